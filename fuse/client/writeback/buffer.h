/* Bytes into the append buffers of a file. f->mu held; nothing waits. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_BUFFER_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_BUFFER_H
#include "client/file/cfile.h"

/* Buffers len bytes at off, whose share of the dirty bytes the caller has taken (dirty_wait_room); what cannot be
 * taken is given back. 0 or -ENOMEM. */
int buffer_put(struct cfile *f, const uint8_t *data, size_t len, uint64_t off);
/* The same for committed bytes that e shows, len of them at off, to be written once more: in a buffer
 * of their own, which replaces nothing but e when it is committed. */
int buffer_put_moved(struct cfile *f, const uint8_t *data, size_t len, uint64_t off,
                     const struct ext *e);
#endif
