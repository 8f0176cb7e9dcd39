/* Writes with O_APPEND. f->mu held; any thread but a loop thread. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_APPEND_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_APPEND_H
#include "client/file/cfile.h"

/* Must an append wait until metad has given it its place? */
bool append_waits(const struct cfile *f);
/* Adds len <= APPEND_MAX bytes at the end of the file; waits, without mu, for everything up to
 * them to be committed. Takes over the dirty bytes' account. 0 and where they went, or a code. */
int append_put(struct cfile *f, const uint8_t *data, size_t len, uint64_t *off);
#endif
