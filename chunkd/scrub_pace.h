/* How fast the scrub of one disk may read now. Pure: time and sizes in, a rate out. Any thread. */
#ifndef REPLFS_CHUNKD_SCRUB_PACE_H
#define REPLFS_CHUNKD_SCRUB_PACE_H
#include <stdbool.h>
#include <stdint.h>

#define SCRUB_BUSY_SHARE 4u /* of its rate is left while clients use the disk */

enum scrub_mode {
    SCRUB_EVEN, /* spread over the cycle */
    SCRUB_SOON, /* as fast as the limit allows, until the pass ends */
    SCRUB_FAST, /* and without the limit */
};
struct scrub_pace {
    enum scrub_mode mode;
    bool busy;       /* clients read or write on this disk */
    uint64_t limit;  /* bytes a second, not 0 */
    int64_t cycle;   /* ns: a byte is to be checked so soon after the last time */
    int64_t elapsed; /* ns since the pass began */
    uint64_t left;   /* bytes that it has still to check */
};
/* Bytes a second; UINT64_MAX: no limit; never 0. */
uint64_t scrub_pace_rate(const struct scrub_pace *p);
/* How long to wait after `bytes` were read at that rate in `took` ns. */
int64_t scrub_pace_wait(uint64_t rate, uint64_t bytes, int64_t took);
#endif
