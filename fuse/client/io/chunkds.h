/* The chunkds as this client knows them, and one connection to each. chunkds.mu is a leaf: a file's mu may be held,
 * grants.mu may not. Nothing waits but chunkds_refresh. Ids that are unknown are fine everywhere. */
#ifndef REPLFS_FUSE_CLIENT_IO_CHUNKDS_H
#define REPLFS_FUSE_CLIENT_IO_CHUNKDS_H
#include "client/file/chunk_loc.h"
#include "rpc/rpc.h"

struct client;
void chunkds_init(struct client *c);
void chunkds_free(struct client *c);
/* Fetches the table anew: asks metad, no lock held. 0 or a code. */
int chunkds_refresh(struct client *c);
/* A reply of metad said this: the table may be stale. */
void chunkds_saw_epoch(struct client *c, uint64_t epoch);
/* Refreshes when stale, and probes. The session thread, no lock held: may ask metad. */
void chunkds_tick(struct client *c);
bool chunkds_known(struct client *c, uint32_t id);
/* Where it listens; false: unknown. */
bool chunkds_addr(struct client *c, uint32_t id, char out[128]);
/* A reference, or NULL: not reachable just now. */
struct rpc_conn *chunkds_conn(struct client *c, uint32_t id);
/* It failed a write: no new chunk goes there for a while. hard: a probe does not clear that (no space). */
void chunkds_fail(struct client *c, uint32_t id, bool hard);
void chunkds_probe(struct client *c, uint32_t id);  /* is it alive? the answer comes later */
bool chunkds_silent(struct client *c, uint32_t id); /* its last probe was not answered */
/* None of a chunk's chunkds failed lately. */
bool chunkds_usable(struct client *c, const struct cloc *l);
/* Ids of those that failed lately, at most max; how many. */
size_t chunkds_bad(struct client *c, uint32_t *out, size_t max);
/* Sorts the ids of a chunk's copies for reading: this host first, then the idle and quick ones, those
 * that failed last. Among equals a chunk keeps to one chunkd, whose disk then reads in sequence. */
void chunkds_order(struct client *c, uint64_t chunk, uint32_t *ids, size_t n);
/* Around each request to it; started: clock_mono before. */
void chunkds_begin(struct client *c, uint32_t id);
void chunkds_end(struct client *c, uint32_t id, int64_t started, bool ok);
/* For messages: "chunkd 3 (host h, addr)". */
void chunkds_name(struct client *c, uint32_t id, char *out, size_t cap);
/* Copies on these are enough where `least` are needed: so many, on so many hosts. A cluster that never had as
 * many hosts makes do with those it has. */
bool chunkds_enough(struct client *c, const uint32_t *ids, size_t n, unsigned least);
/* So many copies could be put on as many hosts just now. */
bool chunkds_ready(struct client *c, unsigned least);
/* The chunkds changed since epoch, and now a chunk of that goal can be on enough hosts where l is not. */
bool chunkds_better(struct client *c, const struct cloc *l, uint64_t epoch, unsigned goal);
bool chunkds_up(struct client *c, uint32_t id); /* as metad sees it */
/* Names of those that are not up, "" when all are. */
void chunkds_down(struct client *c, char *out, size_t cap);
#endif
