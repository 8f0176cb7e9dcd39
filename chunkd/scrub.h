/* The scrub: reads every byte of every disk again and again, checks it, and has metad heal what is bad. One thread a disk.
 * Any thread may call, unless said otherwise. */
#ifndef REPLFS_CHUNKD_SCRUB_H
#define REPLFS_CHUNKD_SCRUB_H
#include "disks.h"
#include "node.pb-c.h"

#define SCRUB_CYCLE_MS (14ull * 24 * 3600 * 1000) /* until metad tells another */
#define SCRUB_RATE (32ull << 20)                  /* bytes a second, likewise */

/* A struct scrub that is NULL does nothing. */
struct scrub;
/* Its threads wait until the disks are open. 0 or -errno. */
int scrub_new(struct disks *d, struct scrub **out);
/* Ends the threads and saves where they are; before the disks are freed. NULL is fine. */
void scrub_free(struct scrub *s);
/* As metad tells them; 0: not told, as before. */
void scrub_settings(struct scrub *s, uint64_t cycle_ms, uint64_t rate);
/* An administrator's word, for all disks. -EINVAL: one that this version does not know; -ENOTSUP: there is no scrub. */
int scrub_command(struct scrub *s, Replfs__ScrubWhat what);
/* Of disks_at(i), for the heartbeat. */
void scrub_stat(struct scrub *s, size_t i, Replfs__ScrubStat *out);
/* Copies found bad that metad is to be told of now, at most max; each again and again, ever more rarely, until it is
 * healed or gone. Returns how many. */
struct scrub_told {
    uint64_t chunk, session;
    uint32_t off;
};
size_t scrub_bad(struct scrub *s, struct scrub_told *out, size_t max);
/* Another metad leads, or the same one began anew: it knows nothing of them. */
void scrub_retell(struct scrub *s);
#endif
