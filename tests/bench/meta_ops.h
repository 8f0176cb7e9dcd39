/* What the load generators for metad share: requests through the client library that either succeed
 * or end the program with a message. */
#ifndef REPLFS_BENCH_META_OPS_H
#define REPLFS_BENCH_META_OPS_H
#include "base/error.h"
#include "fuse/client/client.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void die(const char *what, int code)
{
    fprintf(stderr, "bench: %s: %s\n", what, err_str(code));
    exit(1);
}

/* A session of its own, in plaintext. */
static inline struct client *bench_session(char *meta)
{
    struct client_config cfg = {
        .metads = &meta,
        .nmetads = 1,
        .name = "bench",
        .rpc = {.role = RPC_ROLE_CLIENT, .name = "bench", .threads = 1, .insecure = true},
    };
    struct client *c;
    int rc = client_open(&cfg, &c);
    if (rc < 0)
        die(meta, rc);
    return c;
}

/* Makes a file or, by its mode, a directory; returns its inode. */
static inline uint64_t bench_make(struct client *c, uint64_t parent, const char *name,
                                  uint32_t mode)
{
    Replfs__CreateOp create = REPLFS__CREATE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Attr attr = REPLFS__ATTR__INIT;

    create.parent = parent;
    create.name.data = (uint8_t *)name;
    create.name.len = strlen(name);
    create.mode = mode;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &create;
    int rc = client_mutate(c, &op, &attr, NULL);
    if (rc < 0)
        die(name, rc);
    return attr.ino;
}
#endif
