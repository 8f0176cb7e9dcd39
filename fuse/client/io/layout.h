/* The committed map of a file, fetched from metad as far as it is needed. */
#ifndef REPLFS_FUSE_CLIENT_IO_LAYOUT_H
#define REPLFS_FUSE_CLIENT_IO_LAYOUT_H
#include "client/file/cfile.h"

/* Until the map is known up to `end`: 0 or a code, -ERR_TIMEOUT at the deadline. f->mu held, dropped while waiting:
 * everything may be different afterwards. Any thread but a loop thread. */
int layout_need(struct cfile *f, uint64_t end, int64_t deadline);
#endif
