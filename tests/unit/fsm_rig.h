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

struct fsm_rig {
    struct fsm *f;
    uint64_t index;
    int64_t now;
    uint64_t next_ino, next_chunk;
    uint64_t session, seq, acked; /* of the next commands; seq 0: not remembered */
    struct fsm_result res;        /* of the last */
};

static inline ProtobufCBinaryData fsm_rig_bytes(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)s};
}

/* Applies op as it is; returns the code. */
static inline int fsm_rig_op(struct fsm_rig *r, Replfs__MetaOp *op)
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

#define FSM_RIG_OP(r, CASE, field, body)                                                           \
    ({                                                                                             \
        Replfs__MetaOp fsm_rig_op_ = REPLFS__META_OP__INIT;                                        \
        fsm_rig_op_.op_case = REPLFS__META_OP__OP_##CASE;                                          \
        fsm_rig_op_.field = (body);                                                                \
        fsm_rig_op((r), &fsm_rig_op_);                                                             \
    })

/* The same for what the leader proposes itself: no session, not remembered. */
#define FSM_RIG_LEADER_OP(r, CASE, field, body)                                                    \
    ({                                                                                             \
        uint64_t fsm_rig_session_ = (r)->session, fsm_rig_seq_ = (r)->seq;                         \
        (r)->session = (r)->seq = 0;                                                               \
        int fsm_rig_code_ = FSM_RIG_OP(r, CASE, field, body);                                      \
        (r)->session = fsm_rig_session_;                                                           \
        (r)->seq = fsm_rig_seq_;                                                                   \
        fsm_rig_code_;                                                                             \
    })

static inline int fsm_rig_create_full(struct fsm_rig *r, uint64_t parent, const char *name,
                                      uint32_t mode, uint32_t uid, uint32_t gid, const char *target,
                                      uint64_t ino)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = parent;
    c.name = fsm_rig_bytes(name);
    c.mode = mode;
    c.uid = uid;
    c.gid = gid;
    c.target = fsm_rig_bytes(target);
    c.ino = ino;
    return FSM_RIG_OP(r, CREATE, create, &c);
}

/* The number of a new file without a name, or -code. */
static inline int64_t fsm_rig_tmpfile(struct fsm_rig *r, uint64_t parent, uint32_t mode,
                                      uint32_t umask)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = parent;
    c.mode = mode;
    c.umask = umask;
    c.tmpfile = true;
    c.ino = r->next_ino;
    int code = FSM_RIG_OP(r, CREATE, create, &c);
    return code ? -code : (int64_t)r->next_ino++;
}

/* The new inode's number, or -code. */
static inline int64_t fsm_rig_create(struct fsm_rig *r, uint64_t parent, const char *name,
                                     uint32_t mode)
{
    int code = fsm_rig_create_full(r, parent, name, mode, 0, 0, "", r->next_ino);
    if (code)
        return -code;
    return (int64_t)r->next_ino++;
}

static inline int fsm_rig_unlink(struct fsm_rig *r, uint64_t parent, const char *name, bool dir)
{
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    u.parent = parent;
    u.name = fsm_rig_bytes(name);
    u.dir = dir;
    return FSM_RIG_OP(r, UNLINK, unlink, &u);
}

static inline int fsm_rig_rename(struct fsm_rig *r, uint64_t p, const char *name, uint64_t np,
                                 const char *nname, uint32_t flags)
{
    Replfs__RenameOp o = REPLFS__RENAME_OP__INIT;
    o.parent = p;
    o.name = fsm_rig_bytes(name);
    o.new_parent = np;
    o.new_name = fsm_rig_bytes(nname);
    o.flags = flags;
    return FSM_RIG_OP(r, RENAME, rename, &o);
}

static inline int fsm_rig_link(struct fsm_rig *r, uint64_t ino, uint64_t parent, const char *name)
{
    Replfs__LinkOp o = REPLFS__LINK_OP__INIT;
    o.ino = ino;
    o.parent = parent;
    o.name = fsm_rig_bytes(name);
    return FSM_RIG_OP(r, LINK, link, &o);
}

static inline int fsm_rig_truncate(struct fsm_rig *r, uint64_t ino, uint64_t size)
{
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;
    o.ino = ino;
    o.valid = REPLFS__SETATTR_OP__VALID__SIZE;
    o.size = size;
    return FSM_RIG_OP(r, SETATTR, setattr, &o);
}

static inline int fsm_rig_commit_at(struct fsm_rig *r, uint64_t ino, uint64_t off, uint32_t len,
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
    return FSM_RIG_OP(r, COMMIT, commit, &o);
}

static inline int fsm_rig_commit(struct fsm_rig *r, uint64_t ino, uint64_t off, uint32_t len,
                                 uint64_t chunk, uint32_t chunk_off)
{
    return fsm_rig_commit_at(r, ino, off, len, chunk, chunk_off, false);
}

/* At the end of the file: r->res.value is where. */
static inline int fsm_rig_append(struct fsm_rig *r, uint64_t ino, uint32_t len, uint64_t chunk,
                                 uint32_t chunk_off)
{
    return fsm_rig_commit_at(r, ino, 0, len, chunk, chunk_off, true);
}

static inline int fsm_rig_setxattr(struct fsm_rig *r, uint64_t ino, const char *name,
                                   const void *value, size_t len, uint32_t flags)
{
    Replfs__XattrOp o = REPLFS__XATTR_OP__INIT;
    o.ino = ino;
    o.name = fsm_rig_bytes(name);
    o.value = (ProtobufCBinaryData){len, (uint8_t *)(uintptr_t)value};
    o.flags = flags;
    return FSM_RIG_OP(r, XATTR, xattr, &o);
}

static inline int fsm_rig_rmxattr(struct fsm_rig *r, uint64_t ino, const char *name)
{
    Replfs__XattrOp o = REPLFS__XATTR_OP__INIT;
    o.ino = ino;
    o.name = fsm_rig_bytes(name);
    o.remove = true;
    return FSM_RIG_OP(r, XATTR, xattr, &o);
}

/* The value's length, or a negative code. */
static inline int fsm_rig_getxattr(struct fsm_rig *r, uint64_t ino, const char *name,
                                   const uint8_t **value)
{
    size_t len = 0;
    int code = fsm_getxattr(r->f, ino, (const uint8_t *)name, strlen(name), value, &len);
    return code ? code : (int)len;
}

static inline int fsm_rig_chmod(struct fsm_rig *r, uint64_t ino, uint32_t mode)
{
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;
    o.ino = ino;
    o.valid = REPLFS__SETATTR_OP__VALID__MODE;
    o.mode = mode;
    return FSM_RIG_OP(r, SETATTR, setattr, &o);
}

static inline int fsm_rig_clone(struct fsm_rig *r, uint64_t src, uint64_t src_off, uint64_t dst,
                                uint64_t dst_off, uint64_t len)
{
    Replfs__CloneOp o = REPLFS__CLONE_OP__INIT;
    o.src = src;
    o.src_off = src_off;
    o.dst = dst;
    o.dst_off = dst_off;
    o.len = len;
    return FSM_RIG_OP(r, CLONE, clone, &o);
}

static inline int fsm_rig_fallocate(struct fsm_rig *r, uint64_t ino, uint32_t mode, uint64_t off,
                                    uint64_t len)
{
    Replfs__FallocateOp o = REPLFS__FALLOCATE_OP__INIT;
    o.ino = ino;
    o.mode = mode;
    o.off = off;
    o.len = len;
    return FSM_RIG_OP(r, FALLOCATE, fallocate, &o);
}

static inline int fsm_rig_set_goal(struct fsm_rig *r, uint64_t ino, uint32_t goal, uint32_t uid)
{
    Replfs__SetGoalOp o = REPLFS__SET_GOAL_OP__INIT;
    o.n_ino = 1;
    o.ino = &ino;
    o.goal = goal;
    o.uid = uid;
    return FSM_RIG_OP(r, SET_GOAL, set_goal, &o);
}

static inline int fsm_rig_reap(struct fsm_rig *r, uint64_t ino)
{
    Replfs__ReapOp o = REPLFS__REAP_OP__INIT;
    o.n_ino = 1;
    o.ino = &ino;
    return FSM_RIG_LEADER_OP(r, REAP, reap, &o);
}

static inline int fsm_rig_reserve(struct fsm_rig *r, uint64_t chunk_upto, uint64_t ino_upto)
{
    Replfs__ReserveOp o = REPLFS__RESERVE_OP__INIT;
    o.chunk_upto = chunk_upto;
    o.ino_upto = ino_upto;
    return FSM_RIG_OP(r, RESERVE, reserve, &o);
}

static inline int fsm_rig_incarnation(struct fsm_rig *r, uint64_t id)
{
    Replfs__IncarnationOp o = REPLFS__INCARNATION_OP__INIT;
    o.incarnation = id;
    return FSM_RIG_LEADER_OP(r, INCARNATION, incarnation, &o);
}

static inline int fsm_rig_session_open(struct fsm_rig *r, uint64_t id)
{
    Replfs__SessionOpenOp o = REPLFS__SESSION_OPEN_OP__INIT;
    o.session = id;
    o.name = (char *)"host:/mnt";
    o.host_id = (char *)"0123456789abcdef";
    return FSM_RIG_LEADER_OP(r, SESSION_OPEN, session_open, &o);
}

static inline int fsm_rig_session_close(struct fsm_rig *r, uint64_t id)
{
    Replfs__SessionCloseOp o = REPLFS__SESSION_CLOSE_OP__INIT;
    o.n_session = 1;
    o.session = &id;
    return FSM_RIG_LEADER_OP(r, SESSION_CLOSE, session_close, &o);
}

static inline int fsm_rig_member(struct fsm_rig *r, uint32_t chunkd, const char *host)
{
    Replfs__ChunkdAddOp o = REPLFS__CHUNKD_ADD_OP__INIT;
    o.chunkd = chunkd;
    o.host_id = (char *)host;
    o.host_name = (char *)host;
    return FSM_RIG_OP(r, CHUNKD_ADD, chunkd_add, &o);
}

/* A state machine with ids to give and session 7 open and used by what follows. */
static inline void fsm_rig_open(struct fsm_rig *r)
{
    *r = (struct fsm_rig){.now = 1000, .next_ino = 2, .next_chunk = 1};
    int code = fsm_new(&r->f);
    assert(code == 0);
    code = fsm_rig_reserve(r, 1ull << 40, 1ull << 40);
    assert(code == 0);
    code = fsm_rig_session_open(r, 7);
    assert(code == 0);
    r->session = 7;
}

static inline void fsm_rig_close(struct fsm_rig *r)
{
    fsm_free(r->f);
    r->f = NULL;
}

static inline Replfs__Attr fsm_rig_attr(struct fsm_rig *r, uint64_t ino)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    int code = fsm_getattr(r->f, ino, &a);
    if (code)
        a.ino = 0;
    return a;
}

/* Inode behind a name, 0 when there is none. */
static inline uint64_t fsm_rig_lookup(struct fsm_rig *r, uint64_t parent, const char *name)
{
    uint64_t ino = 0;
    if (fsm_lookup(r->f, parent, (const uint8_t *)name, strlen(name), &ino) != 0)
        return 0;
    return ino;
}

/* A memory file with the state saved, positioned at its start. */
static inline int fsm_rig_save(struct fsm *f)
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
static inline struct fsm *fsm_rig_reload(struct fsm *f)
{
    char why[256];
    struct fsm *g;
    int fd = fsm_rig_save(f), code = fsm_new(&g);
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

/* ---- cmocka's setup and teardown: *state is a struct fsm_rig ---- */

static inline int fsm_rig_setup(void **state)
{
    struct fsm_rig *r = calloc(1, sizeof *r);
    if (!r)
        return -1;
    fsm_rig_open(r);
    *state = r;
    return 0;
}

static inline int fsm_rig_teardown(void **state)
{
    struct fsm_rig *r = *state;
    fsm_free(fsm_rig_reload(r->f)); /* whatever a test built survives a checkpoint */
    fsm_rig_close(r);
    free(r);
    return 0;
}
#endif
