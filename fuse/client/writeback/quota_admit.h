/* Whether a write still fits into the quotas. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_QUOTA_ADMIT_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_QUOTA_ADMIT_H
#include "client/file/cfile.h"

/* May [off, off+len) be written? 0 or a code. With *asked unset it may flush and ask metad anew,
 * without mu: then 1 and *asked, look at the file again and call once more. f->mu held; any thread but a loop
 * thread. */
int quota_admit(struct cfile *f, uint64_t off, size_t len, bool *asked);
#endif
