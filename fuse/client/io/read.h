/* Reading what was asked for, until it succeeds or cannot: cfile_read and cfile_read_async of client.h, and what
 * other files of the client read for themselves. No lock held; any thread but a loop thread. */
#ifndef REPLFS_FUSE_CLIENT_IO_READ_H
#define REPLFS_FUSE_CLIENT_IO_READ_H
#include "client/io/read_round.h"

/* As cfile_read, of what is committed and buffered, without a look at leases. */
int read_range(struct cfile *f, uint64_t off, size_t len, struct buf **out);
/* The first len bytes of a file whose layout is known, read once: NULL when it is not. try_ms: until a
 * copy is given up. f stays until read_wait, which frees the round: 0 and the bytes, or a code. */
struct read_round *read_start(struct cfile *f, size_t len, unsigned try_ms);
int read_wait(struct read_round *op, struct buf **out);
#endif
