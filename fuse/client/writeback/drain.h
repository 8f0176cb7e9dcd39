/* Buffers on their way, waited for. f->mu held, dropped while waiting; any thread but a loop thread. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_DRAIN_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_DRAIN_H
#include "client/file/cfile.h"

/* Is a buffer with an id below target left; unacked_only: that not all copies have? Does not wait. */
bool drain_left(const struct cfile *f, uint64_t target, bool unacked_only);
/* Seals and sends all there is; sync: the last append asks the chain to sync. Does not wait. */
void drain_send(struct cfile *f, bool sync);
/* Until everything below target was acknowledged by all copies, or given up. */
void drain_acked(struct cfile *f, uint64_t target);
/* Waits until no buffer with an id below target is left: committed or given up. -ERR_TIMEOUT at the
 * deadline: they are still on their way. */
int drain_below(struct cfile *f, uint64_t target, int64_t deadline);
#endif
