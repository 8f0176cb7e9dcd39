/* Files that take another's place: their bytes are on a disk first. No lock held; any thread but a loop thread. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_DURABLE_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_DURABLE_H
#include "client/file/cfile.h"

/* All that f shows is on a disk: 0, or a code. */
int durable_bytes(struct cfile *f);
/* Likewise for the file that op renames, if it replaces one. */
int durable_rename(struct client *c, const Replfs__RenameOp *op);
#endif
