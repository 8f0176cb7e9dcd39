/* Bytes that too few copies could sync, written once more. f->mu held, dropped while waiting; any thread but a loop
 * thread. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_REWRITE_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_REWRITE_H
#include "client/file/cfile.h"

/* Puts the live bytes of chunks whose copies could not be synced into new append buffers. 0, or a code: not possible
 * just now. */
int rewrite_short(struct cfile *f, int64_t deadline);
/* Where the copies of a chunk on the unsynced list are, asked anew: metad may know of more by now. 0 or a code. */
int rewrite_relocate(struct cfile *f, uint64_t chunk, int64_t deadline);
#endif
