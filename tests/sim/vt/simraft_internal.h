/* What simraft.c (the disk side of libraft) and simraft_dir.c (all around it) share. */
#ifndef REPLFS_TESTS_SIM_SIMRAFT_INTERNAL_H
#define REPLFS_TESTS_SIM_SIMRAFT_INTERNAL_H
#include <raft.h>
#include <raft/uv.h>
#include "metad/log/mlog_internal.h"
#include "simraft.h"

#define DISKS 16u
#define RETRY_NS 250000000ll

struct stored {
    uint64_t term;
    unsigned short type;
    size_t len;
    uint8_t *bytes;
};
struct snap {
    uint64_t index, term, conf_index, stamp;
    struct raft_buffer conf, data; /* malloc'ed */
};
enum op_kind { OP_APPEND, OP_TRUNCATE, OP_INSTALL };
struct op { /* in the order in which they are done */
    struct op *next;
    enum op_kind kind;
    uint64_t index; /* first of the entries; that is truncated */
    struct stored *v;
    unsigned n;
    struct raft_io_append *append;
    struct raft_io_snapshot_put *put;
    struct snap snap;
};
struct disk {
    char dir[MLOG_PATH];
    uint64_t term, vote;
    uint64_t first; /* index of v[0] */
    struct stored *v;
    size_t n, cap;
    struct snap snap[2]; /* older, newest; index 0: none */
    bool full, broken;
    int64_t slow;
    /* of the process that has it */
    struct impl *user;
    struct op *ops, **ops_tail;
    bool busy;
};
struct impl {
    struct disk *disk;
    struct raft_io *io;
    uv_loop_t *loop;
    uv_timer_t tick;
    uv_prepare_t before;
    uv_check_t after;
    raft_io_tick_cb tick_cb;
    raft_io_close_cb close_cb;
    struct raft_tracer *tracer;
    uint64_t next;  /* index that is appended next */
    struct op *own; /* snapshot of its own that is being written */
    unsigned gets;
    bool ticks, closing, stuck;
};
struct get {
    struct impl *u;
    struct raft_io_snapshot_get *req;
    raft_io_snapshot_get_cb cb;
};

struct simraft_all {
    struct simraft_config cfg;
    struct disk disk[DISKS];
    unsigned n;
    uint64_t entries, stamp;
};
extern struct simraft_all simraft_all;

struct disk *simraft_disk(const char *dir); /* of a metad's data directory */
void simraft_settle(struct disk *d);
void simraft_drop_from(struct disk *d, uint64_t index);
void simraft_snap_drop(struct disk *d, struct snap *s);
#endif
