/* What tests of the client do with names: directly (metad answers) or later (the client does, see client.h). */
#ifndef REPLFS_TESTS_CLIENT_RIG_NAMES_H
#define REPLFS_TESTS_CLIENT_RIG_NAMES_H
#include "client_rig.h"

static inline Replfs__CreateOp client_rig_create_op(uint64_t dir, const char *name, uint32_t mode)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = dir;
    c.name = bytes_of(name);
    c.mode = mode;
    return c;
}

/* The new inode, which is open when it is a file. */
static inline Replfs__Attr client_rig_create(uint64_t dir, const char *name, uint32_t mode)
{
    Replfs__CreateOp c = client_rig_create_op(dir, name, mode);
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &c;
    assert_int_equal(client_mutate(client_rig.cl, &op, &a, NULL), 0);
    return a;
}

static inline bool client_rig_create_deferred(uint64_t dir, const char *name, Replfs__Attr *a)
{
    Replfs__CreateOp c = client_rig_create_op(dir, name, S_IFREG | 0644);
    return client_create_deferred(client_rig.cl, &c, a);
}

static inline bool client_rig_remove_deferred(uint64_t dir, const char *name)
{
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    u.parent = dir;
    u.name = bytes_of(name);
    return client_remove_deferred(client_rig.cl, &u);
}

/* What the client shows; 0: no such name. */
static inline uint64_t client_rig_shown(uint64_t dir, const char *name)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    int rc = client_lookup(client_rig.cl, dir, name, &a);
    assert_true(rc == 0 || rc == -ENOENT);
    return rc ? 0 : a.ino;
}
#endif
