/* What quotas have to say to a change. */
#ifndef REPLFS_FUSE_CLIENT_WRITEBACK_QUOTA_H
#define REPLFS_FUSE_CLIENT_WRITEBACK_QUOTA_H
#include "client/file/cfile.h"

/* The file is in a tree with a quota. f->mu held. */
static inline bool quota_applies(const struct cfile *f)
{
    return f->attr.flags & REPLFS__ATTR_FLAG__ATTR_QUOTA;
}
/* Bytes of [off, off+len) that are a hole as far as we know. f->mu held. */
uint64_t quota_grows(const struct cfile *f, uint64_t off, uint64_t len);

/* No lock held; any thread but a loop thread; these ask metad: */
/* mutate_value, and once more after EDQUOT when what was just deleted has been given back. */
int quota_mutate(struct client *c, Replfs__MetaOp *op, uint64_t need, int64_t deadline,
                 Replfs__Attr *attr, Replfs__Attr *parent, uint64_t *value);
/* Until metad has nothing left to free in the tree of ino; not for long. */
void quota_settle(struct client *c, uint64_t ino);
/* A commit was refused: says so in the log, and what to do. The queue's sender may call it. */
void quota_refused(struct client *c, uint64_t ino, uint64_t bytes);
#endif
