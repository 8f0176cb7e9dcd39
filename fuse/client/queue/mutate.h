/* One change that its caller waits for, behind what is queued of its inodes. Any thread but a loop thread and the
 * queue's sender; no lock held. */
#ifndef REPLFS_FUSE_CLIENT_QUEUE_MUTATE_H
#define REPLFS_FUSE_CLIENT_QUEUE_MUTATE_H
#include <stdint.h>
#include "meta.pb-c.h"

struct client;
/* need: see struct mutation; -ERR_SESSION when it is gone. attr, parent: filled with scalars, or NULL. 0 or a
 * code. */
int mutate_one(struct client *c, Replfs__MetaOp *op, uint64_t need, int64_t deadline,
               Replfs__Attr *attr, Replfs__Attr *parent);
/* Also hands out MutationResult.value. */
int mutate_value(struct client *c, Replfs__MetaOp *op, uint64_t need, int64_t deadline,
                 Replfs__Attr *attr, Replfs__Attr *parent, uint64_t *value);
#endif
