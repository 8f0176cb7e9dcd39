/* Open files by inode, and the list of those with bytes not committed. */
#ifndef REPLFS_FUSE_CLIENT_FILE_FILE_TABLE_H
#define REPLFS_FUSE_CLIENT_FILE_FILE_TABLE_H
#include "client/file/cfile.h"

/* These take files.mu; a file's mu may be held. */

/* The file if it is open: a reference, or NULL. */
struct cfile *cfile_get(struct client *c, uint64_t ino);
/* The file with one more open, made when there is none; NULL: memory is out. The table has the reference. */
struct cfile *cfile_table_open(struct client *c, uint64_t ino);
/* One open less. True: it was the last, and the caller has the table's reference now; metad is told, unless it
 * never knew. */
bool cfile_table_close(struct cfile *f);
/* A user has closed the file, rc: what its flush came to. An error that nobody asked for is logged after the last.
 * f->mu held; the caller has a reference of its own. */
void cfile_closed(struct cfile *f, int rc);
/* f has bytes that are not committed, or none any more. f->mu held. */
void cfile_mark_dirty(struct cfile *f);
void cfile_mark_clean(struct cfile *f);
/* All files with such bytes: a malloc'ed array of references in *out, how many. */
size_t cfile_dirty_all(struct client *c, struct cfile ***out);
/* Nothing that is known of where open files' bytes are holds any more; each open file has an error. No lock held:
 * takes each file's mu. */
void cfile_forget_maps(struct client *c);

/* metad knows that f is open, or nobody has it open. files.mu held. */
void cfile_mark_told(struct cfile *f);
#endif
