/* All bytes of a small open file, read ahead: they count while nobody changed the file. */
#ifndef REPLFS_FUSE_CLIENT_FILE_WHOLE_H
#define REPLFS_FUSE_CLIENT_FILE_WHOLE_H
#include "client/file/cfile.h"

/* f->mu held: */
/* Keeps b, fetched under the lease since `begun`; f takes the reference. There must be none yet. */
void whole_put(struct cfile *f, struct buf *b, uint64_t begun);
/* What there is (NULL: nothing), the caller's now, whether it still counts or not. */
struct buf *whole_take(struct cfile *f);
void whole_drop(struct cfile *f);
/* There is some, and the file is as it was then. */
bool whole_counts(const struct cfile *f);

/* f->mu not held, it is taken. Bytes [off, off+len) or fewer at the end: true and a reference in *out. False: none
 * were read ahead, or they do not count any more. What was read to the end is given up. */
bool whole_read(struct cfile *f, uint64_t off, size_t len, struct buf **out);
#endif
