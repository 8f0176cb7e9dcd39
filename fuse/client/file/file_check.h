/* Invariants of an open file, checked after each change where REPLFS_CHECKS is defined (Debug and sanitizer
 * builds). */
#ifndef REPLFS_FUSE_CLIENT_FILE_FILE_CHECK_H
#define REPLFS_FUSE_CLIENT_FILE_FILE_CHECK_H
#include "client/file/cfile.h"

/* Aborts when f is in no state of the table in file_check.c. f->mu held, at a point where it may be dropped. */
#ifdef REPLFS_CHECKS
void file_check(const struct cfile *f);
#else
static inline void file_check(const struct cfile *f)
{
    (void)f;
}
#endif
#endif
