/* Where new copies go: a pure planner. Given the chunkds and what is wanted, it picks; no clock, no
 * I/O, no randomness but the caller's seed. Any thread. */
#ifndef REPLFS_METAD_PLAN_PLACEMENT_H
#define REPLFS_METAD_PLAN_PLACEMENT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "node.pb-c.h"

#define PLACEMENT_PICK_MAX 16
#define PLACEMENT_TIGHT (16ull << 20) /* a chunkd with less room than this gets nothing */

struct placement_node {
    uint32_t host; /* same number: same computer; 0: there is no such chunkd */
    uint8_t state; /* Replfs__NodeState; only NODE_UP is ever picked */
    bool draining; /* it is to be emptied: gets nothing */
    bool paused;   /* it is to be away for a while, and gets nothing */
    bool overdue;  /* silent for so long that others would be dead; it is waited for (flap.h) */
    bool
        flaps; /* it died and came back lately, more than once: gets copies when others don't suffice */
    uint64_t failed_disks; /* bit set by disk index: copies there don't count */
    /* likewise: can be read, so copies there are sources, and count for nothing */
    uint64_t ro_disks;
    uint64_t room;  /* bytes that fit on its emptiest disk */
    uint64_t avail; /* bytes that fit on all its disks */
    uint64_t capacity;
    uint32_t load;     /* requests in flight and grants not yet seen in a heartbeat */
    uint64_t rate;     /* bytes written per second lately */
    uint32_t jobs;     /* repair copies running to or from it */
    uint32_t max_jobs; /* bound of the same */
};
/* Indexed by chunkd id; 0 is never one. */
struct placement_table {
    const struct placement_node *node;
    uint32_t n; /* entries, so ids run to n - 1 */
};
struct placement_req {
    unsigned want;           /* 1 .. PLACEMENT_PICK_MAX */
    uint64_t headroom;       /* chunkds with less room are taken only when others don't suffice */
    uint64_t need;           /* bytes that must fit in any case (PLACEMENT_TIGHT is added) */
    const uint32_t *exclude; /* chunkds */
    size_t nexclude;
    const uint32_t *hosts; /* computers that have a copy already */
    size_t nhosts;
    bool new_host_only; /* rather nothing than a second copy on one computer */
    bool idle_only;     /* skip chunkds with max_jobs running */
    uint64_t seed;
};
/* Fills out with at most want distinct chunkds, first those on computers of their own, and returns
 * how many. A pick on a shared computer, of one that flaps, or beyond headroom happens only when there is no better.
 * Among equals the chance follows free space and falls with load and rate. The least loaded comes
 * first in out. */
unsigned placement_pick(const struct placement_table *t, const struct placement_req *r,
                        uint32_t *out);
/* The chunkd's entry, NULL when unknown. */
const struct placement_node *placement_node(const struct placement_table *t, uint32_t chunkd);
/* It is up and stays: neither draining nor paused. */
bool placement_takes_new(const struct placement_node *p);
/* Computers with at least one chunkd that is up and stays: neither draining nor paused. */
unsigned placement_hosts_up(const struct placement_table *t);
#endif
