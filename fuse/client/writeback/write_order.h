/* Which commits have to wait until their bytes are on a disk. f->mu held by all of these. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_WRITE_ORDER_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_WRITE_ORDER_H
#include "client/file/cfile.h"

#define ORDER_RETRY_MS 200 /* no copy could sync: asked again after that */
/* a, acknowledged, displaces bytes and is on no disk yet: not to be committed. */
bool order_needed(const struct cfile *f, const struct abuf *a);
/* Has that synced; mu is dropped meanwhile; does not wait. */
void order_begin(struct cfile *f);
/* When to look again, clock_mono. */
int64_t order_next(const struct cfile *f);
#endif
