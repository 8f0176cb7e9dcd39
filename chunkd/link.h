/* One metad as the heartbeat's thread sees it: the connection, the registration, what it was told. */
#ifndef REPLFS_CHUNKD_LINK_H
#define REPLFS_CHUNKD_LINK_H
#include <pthread.h>
#include <stdatomic.h>

#include "base/lock.h"
#include "heartbeat.h"
#include "inventory.h"
#include "seen.h"

#define LINKS_MAX 16u
#define LINK_ADDR 128u

enum link_stage {
    LINK_IDLE,        /* dials at `at` */
    LINK_DIALLED,     /* is it there? */
    LINK_REGISTERING, /* told who we are */
    LINK_REPORTING,   /* told a piece of a full report */
    LINK_BEATING,     /* told a heartbeat */
    LINK_RESTING,     /* the next heartbeat is at `at` */
};

struct link {
    struct heartbeat *h;
    char addr[LINK_ADDR];
    bool given; /* by the user: never dropped */
    enum link_stage stage;
    int64_t at;
    unsigned backoff_ms;
    uint64_t instance; /* of the metad's run, see rpc_peer */
    bool alias;        /* another link has the same metad */
    bool lost_logged;
    bool old_logged; /* it leads in a term that is over */
    bool other_copy; /* ... of a former life of the cluster: another copy of its directory */
    bool dropped;    /* no member any more */
    struct link *next_gone;
    bool was_registered;
    /* of this registration */
    bool registered;
    atomic_bool follows; /* it does not lead */
    unsigned heartbeat_ms;
    uint64_t seq, report, registry_version;
    int64_t began; /* the last heartbeat */
    bool want_report, with_changes;
    bool goodbye; /* told that we stop */
    struct inventory_view *view;
    struct inventory_item *batch; /* taken, not acknowledged */
    size_t nbatch;
    struct inventory_item *all; /* of the report under way; what is in front of all_at is told */
    size_t nall, all_at, piece;
    /* h->mu */
    struct rpc_conn *conn; /* the thread reads it freely */
    bool answered;         /* what was asked last */
    int code;
    Replfs__Envelope *rep; /* a copy */
    bool closed;
};

struct heartbeat {
    struct heartbeat_config cfg;
    char *host_id, *host_name, *addr;
    struct rpc_service svc; /* for what metads ask of us on our connections */
    pthread_t tid;
    struct lock mu;
    struct cond wake;
    bool stopping; /* mu */
    bool woken;    /* mu: there is something to look at */
    bool hurry;    /* mu: somebody wants to know where a chunkd is */
    /* the thread's own */
    struct link *link[LINKS_MAX];
    size_t nlinks;
    struct link *lead;     /* who leads, as far as we know, or NULL */
    struct link *gone;     /* those dropped */
    struct link *joining;  /* who is asked for our number: one at a time */
    uint64_t registration; /* of this run of ours */
    struct disk_info *infos;
    struct seen seen;
    bool was_ready;
    bool leaves; /* that is told now */
};

/* ---- for the heartbeat's thread alone ---- */

struct link *link_new(struct heartbeat *h, const char *addr, bool given);
void link_free(struct link *l); /* after the loop's end */
/* Does what is to be done by now; when there is more, unless the thread is woken before. */
int64_t link_step(struct link *l, int64_t now);
void link_close(struct link *l);

/* ---- heartbeat.c, for link.c ---- */

/* May l ask for our number now? */
bool heartbeat_may_join(struct heartbeat *h, struct link *l);
/* Another link that has the metad l is connected to, or NULL. */
struct link *heartbeat_twin(struct heartbeat *h, const struct link *l);
/* What an answer of l says: who leads, and all members. True: it is l that leads. */
bool heartbeat_heard(struct heartbeat *h, struct link *l, bool follows, uint64_t term,
                     char *const *metads, size_t nmetads);
/* l names somebody as the leader. */
void heartbeat_named(struct heartbeat *h, const char *addr);
/* l is connected no more; had: as the link to its metad, not only as another one. */
void heartbeat_unlinked(struct heartbeat *h, struct link *l, bool had);
#endif
