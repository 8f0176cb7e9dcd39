/* Builds commands for tests, fuzzers and benches of the metadata state machine, and applies them.
 */
#ifndef REPLFS_TESTS_FSM_RIG_H
#define REPLFS_TESTS_FSM_RIG_H
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "metad/fsm/fsm.h"

#define REG_MODE (S_IFREG | 0644)
#define DIR_MODE (S_IFDIR | 0755)

struct rig {
    struct fsm *f;
    uint64_t index;
    int64_t now;
    uint64_t next_ino, next_chunk;
    uint64_t session, seq, acked; /* of the next commands; seq 0: not remembered */
    struct fsm_result res;        /* of the last */
};

static inline ProtobufCBinaryData rig_bytes(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)s};
}

/* Applies op as it is; returns the code. */
static inline int rig_op(struct rig *r, Replfs__MetaOp *op)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    cmd.time_ns = r->now;
    cmd.session = r->session;
    cmd.seq = r->seq;
    cmd.acked_seq = r->acked;
    cmd.op = op;
    fsm_apply(r->f, ++r->index, &cmd, &r->res);
    return r->res.code;
}

#define RIG_OP(r, CASE, field, body)                                                               \
    ({                                                                                             \
        Replfs__MetaOp rig_op_ = REPLFS__META_OP__INIT;                                            \
        rig_op_.op_case = REPLFS__META_OP__OP_##CASE;                                              \
        rig_op_.field = (body);                                                                    \
        rig_op((r), &rig_op_);                                                                     \
    })

/* The same for what the leader proposes itself: no session, not remembered. */
#define RIG_LEADER_OP(r, CASE, field, body)                                                        \
    ({                                                                                             \
        uint64_t rig_session_ = (r)->session, rig_seq_ = (r)->seq;                                 \
        (r)->session = (r)->seq = 0;                                                               \
        int rig_code_ = RIG_OP(r, CASE, field, body);                                              \
        (r)->session = rig_session_;                                                               \
        (r)->seq = rig_seq_;                                                                       \
        rig_code_;                                                                                 \
    })

static inline int rig_create_full(struct rig *r, uint64_t parent, const char *name, uint32_t mode,
                                  uint32_t uid, uint32_t gid, const char *target, uint64_t ino)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = parent;
    c.name = rig_bytes(name);
    c.mode = mode;
    c.uid = uid;
    c.gid = gid;
    c.target = rig_bytes(target);
    c.ino = ino;
    return RIG_OP(r, CREATE, create, &c);
}

/* The number of a new file without a name, or -code. */
static inline int64_t rig_tmpfile(struct rig *r, uint64_t parent, uint32_t mode, uint32_t umask)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = parent;
    c.mode = mode;
    c.umask = umask;
    c.tmpfile = true;
    c.ino = r->next_ino;
    int code = RIG_OP(r, CREATE, create, &c);
    return code ? -code : (int64_t)r->next_ino++;
}

/* The new inode's number, or -code. */
static inline int64_t rig_create(struct rig *r, uint64_t parent, const char *name, uint32_t mode)
{
    int code = rig_create_full(r, parent, name, mode, 0, 0, "", r->next_ino);
    if (code)
        return -code;
    return (int64_t)r->next_ino++;
}

static inline int rig_unlink(struct rig *r, uint64_t parent, const char *name, bool dir)
{
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    u.parent = parent;
    u.name = rig_bytes(name);
    u.dir = dir;
    return RIG_OP(r, UNLINK, unlink, &u);
}

static inline int rig_rename(struct rig *r, uint64_t p, const char *name, uint64_t np,
                             const char *nname, uint32_t flags)
{
    Replfs__RenameOp o = REPLFS__RENAME_OP__INIT;
    o.parent = p;
    o.name = rig_bytes(name);
    o.new_parent = np;
    o.new_name = rig_bytes(nname);
    o.flags = flags;
    return RIG_OP(r, RENAME, rename, &o);
}

static inline int rig_link(struct rig *r, uint64_t ino, uint64_t parent, const char *name)
{
    Replfs__LinkOp o = REPLFS__LINK_OP__INIT;
    o.ino = ino;
    o.parent = parent;
    o.name = rig_bytes(name);
    return RIG_OP(r, LINK, link, &o);
}

static inline int rig_truncate(struct rig *r, uint64_t ino, uint64_t size)
{
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;
    o.ino = ino;
    o.valid = REPLFS__SETATTR_OP__VALID__SIZE;
    o.size = size;
    return RIG_OP(r, SETATTR, setattr, &o);
}

static inline int rig_commit_at(struct rig *r, uint64_t ino, uint64_t off, uint32_t len,
                                uint64_t chunk, uint32_t chunk_off, bool append)
{
    Replfs__Extent e = REPLFS__EXTENT__INIT, *ep = &e;
    Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
    e.file_off = off;
    e.len = len;
    e.chunk = chunk;
    e.chunk_off = chunk_off;
    o.ino = ino;
    o.n_extents = 1;
    o.extents = &ep;
    o.append = append;
    return RIG_OP(r, COMMIT, commit, &o);
}

static inline int rig_commit(struct rig *r, uint64_t ino, uint64_t off, uint32_t len,
                             uint64_t chunk, uint32_t chunk_off)
{
    return rig_commit_at(r, ino, off, len, chunk, chunk_off, false);
}

/* At the end of the file: r->res.value is where. */
static inline int rig_append(struct rig *r, uint64_t ino, uint32_t len, uint64_t chunk,
                             uint32_t chunk_off)
{
    return rig_commit_at(r, ino, 0, len, chunk, chunk_off, true);
}

static inline int rig_setxattr(struct rig *r, uint64_t ino, const char *name, const void *value,
                               size_t len, uint32_t flags)
{
    Replfs__XattrOp o = REPLFS__XATTR_OP__INIT;
    o.ino = ino;
    o.name = rig_bytes(name);
    o.value = (ProtobufCBinaryData){len, (uint8_t *)(uintptr_t)value};
    o.flags = flags;
    return RIG_OP(r, XATTR, xattr, &o);
}

static inline int rig_rmxattr(struct rig *r, uint64_t ino, const char *name)
{
    Replfs__XattrOp o = REPLFS__XATTR_OP__INIT;
    o.ino = ino;
    o.name = rig_bytes(name);
    o.remove = true;
    return RIG_OP(r, XATTR, xattr, &o);
}

/* The value's length, or a negative code. */
static inline int rig_getxattr(struct rig *r, uint64_t ino, const char *name, const uint8_t **value)
{
    size_t len = 0;
    int code = fsm_getxattr(r->f, ino, (const uint8_t *)name, strlen(name), value, &len);
    return code ? code : (int)len;
}

static inline int rig_chmod(struct rig *r, uint64_t ino, uint32_t mode)
{
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;
    o.ino = ino;
    o.valid = REPLFS__SETATTR_OP__VALID__MODE;
    o.mode = mode;
    return RIG_OP(r, SETATTR, setattr, &o);
}

static inline int rig_clone(struct rig *r, uint64_t src, uint64_t src_off, uint64_t dst,
                            uint64_t dst_off, uint64_t len)
{
    Replfs__CloneOp o = REPLFS__CLONE_OP__INIT;
    o.src = src;
    o.src_off = src_off;
    o.dst = dst;
    o.dst_off = dst_off;
    o.len = len;
    return RIG_OP(r, CLONE, clone, &o);
}

static inline int rig_fallocate(struct rig *r, uint64_t ino, uint32_t mode, uint64_t off,
                                uint64_t len)
{
    Replfs__FallocateOp o = REPLFS__FALLOCATE_OP__INIT;
    o.ino = ino;
    o.mode = mode;
    o.off = off;
    o.len = len;
    return RIG_OP(r, FALLOCATE, fallocate, &o);
}

static inline int rig_set_goal(struct rig *r, uint64_t ino, uint32_t goal, uint32_t uid)
{
    Replfs__SetGoalOp o = REPLFS__SET_GOAL_OP__INIT;
    o.n_ino = 1;
    o.ino = &ino;
    o.goal = goal;
    o.uid = uid;
    return RIG_OP(r, SET_GOAL, set_goal, &o);
}

static inline int rig_reap(struct rig *r, uint64_t ino)
{
    Replfs__ReapOp o = REPLFS__REAP_OP__INIT;
    o.n_ino = 1;
    o.ino = &ino;
    return RIG_LEADER_OP(r, REAP, reap, &o);
}

static inline int rig_reserve(struct rig *r, uint64_t chunk_upto, uint64_t ino_upto)
{
    Replfs__ReserveOp o = REPLFS__RESERVE_OP__INIT;
    o.chunk_upto = chunk_upto;
    o.ino_upto = ino_upto;
    return RIG_OP(r, RESERVE, reserve, &o);
}

static inline int rig_incarnation(struct rig *r, uint64_t id)
{
    Replfs__IncarnationOp o = REPLFS__INCARNATION_OP__INIT;
    o.incarnation = id;
    return RIG_LEADER_OP(r, INCARNATION, incarnation, &o);
}

static inline int rig_session_open(struct rig *r, uint64_t id)
{
    Replfs__SessionOpenOp o = REPLFS__SESSION_OPEN_OP__INIT;
    o.session = id;
    o.name = (char *)"host:/mnt";
    o.host_id = (char *)"0123456789abcdef";
    return RIG_LEADER_OP(r, SESSION_OPEN, session_open, &o);
}

static inline int rig_session_close(struct rig *r, uint64_t id)
{
    Replfs__SessionCloseOp o = REPLFS__SESSION_CLOSE_OP__INIT;
    o.n_session = 1;
    o.session = &id;
    return RIG_LEADER_OP(r, SESSION_CLOSE, session_close, &o);
}

static inline int rig_member(struct rig *r, uint32_t chunkd, const char *host)
{
    Replfs__ChunkdAddOp o = REPLFS__CHUNKD_ADD_OP__INIT;
    o.chunkd = chunkd;
    o.host_id = (char *)host;
    o.host_name = (char *)host;
    return RIG_OP(r, CHUNKD_ADD, chunkd_add, &o);
}

/* A state machine with ids to give and session 7 open and used by what follows. */
static inline void rig_open(struct rig *r)
{
    *r = (struct rig){.now = 1000, .next_ino = 2, .next_chunk = 1};
    int code = fsm_new(&r->f);
    assert(code == 0);
    code = rig_reserve(r, 1ull << 40, 1ull << 40);
    assert(code == 0);
    code = rig_session_open(r, 7);
    assert(code == 0);
    r->session = 7;
}

static inline void rig_close(struct rig *r)
{
    fsm_free(r->f);
    r->f = NULL;
}

static inline Replfs__Attr rig_attr(struct rig *r, uint64_t ino)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    int code = fsm_getattr(r->f, ino, &a);
    if (code)
        a.ino = 0;
    return a;
}

/* Inode behind a name, 0 when there is none. */
static inline uint64_t rig_lookup(struct rig *r, uint64_t parent, const char *name)
{
    uint64_t ino = 0;
    if (fsm_lookup(r->f, parent, (const uint8_t *)name, strlen(name), &ino) != 0)
        return 0;
    return ino;
}

/* A memory file with the state saved, positioned at its start. */
static inline int rig_save(struct fsm *f)
{
    int fd = memfd_create("fsm", MFD_CLOEXEC);
    assert(fd >= 0);
    int code = fsm_save(f, fd);
    assert(code == 0);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

/* Saves, loads into a second state machine and compares digests; aborts with a line when they
 * differ. */
static inline struct fsm *rig_reload(struct fsm *f)
{
    char why[256];
    struct fsm *g;
    int fd = rig_save(f), code = fsm_new(&g);
    assert(code == 0);
    code = fsm_load(g, fd, why);
    close(fd);
    if (code) {
        fprintf(stderr, "own checkpoint is refused: %s\n", why);
        abort();
    }
    if (fsm_digest(g) != fsm_digest(f) || fsm_applied(g) != fsm_applied(f)) {
        fprintf(stderr, "the state differs after save and load\n");
        abort();
    }
    return g;
}

/* ---- cmocka's setup and teardown: *state is a struct rig ---- */

static inline int rig_setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    if (!r)
        return -1;
    rig_open(r);
    *state = r;
    return 0;
}

static inline int rig_teardown(void **state)
{
    struct rig *r = *state;
    fsm_free(rig_reload(r->f)); /* whatever a test built survives a checkpoint */
    rig_close(r);
    free(r);
    return 0;
}
#endif
