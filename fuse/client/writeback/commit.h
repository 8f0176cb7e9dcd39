/* Acknowledged bytes into metad's map of the file. f->mu held by these. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_COMMIT_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_COMMIT_H
#include "client/file/cfile.h"

/* One commit of what is acknowledged at the head of the list; none may be under way (f->committing). mu is dropped
 * while metad works; deferred: it is queued instead, and f->committing until it is done. False when there is
 * nothing to commit, or not before it is on a disk: that is seen to. Not on a loop thread unless deferred. */
bool commit_some(struct cfile *f, bool deferred);
/* A closed file: commits what it can, deferred, since nobody else would hurry. Does not wait. */
void commit_eager(struct cfile *f);
#endif
