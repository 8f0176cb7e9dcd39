/* Operations on names and attributes: each is one question or one mutation, answered when metad has
 * committed it. Atomicity and exactly-once come from there; nothing is kept here. */
#include "ops.h"

#include <errno.h>
#include <string.h>

#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "fuse/serve/kernel.h"

#define LOG_MODULE "fuse"
#define NAME_BYTES_MAX 255
#define OP(var, CASE)                                                                              \
    Replfs__MetaOp var = REPLFS__META_OP__INIT;                                                    \
    var.op_case = REPLFS__META_OP__OP_##CASE

static int mutate(fuse_req_t req, Replfs__MetaOp *op, Replfs__Attr *attr)
{
    return client_mutate(ops_ctx(req)->client, op, attr, NULL);
}

static bool too_long(const char *name)
{
    return strlen(name) > NAME_BYTES_MAX;
}

/* "." and ".." only come from open_by_handle_at(2) and NFS servers, with an inode known from
 * before; inode numbers are never used again, so that it is the same one, or gone. */
static int lookup_dot(fuse_req_t req, fuse_ino_t ino, bool up, Replfs__Attr *out)
{
    Replfs__ReaddirReq ask = REPLFS__READDIR_REQ__INIT;
    RPC_ENVELOPE(q, READDIR_REQ, readdir_req, &ask);
    struct rpc_result r = {0};
    int rc = 0;
    ask.ino = ino;
    ask.max_entries = 1;
    if (up)
        rc = ops_ask(req, &q, REPLFS__ENVELOPE__BODY_READDIR_REPLY, &r);
    if (!rc && up && r.rep->readdir_reply->parent)
        ino = r.rep->readdir_reply->parent;
    rpc_result_free(&r);
    if (!rc)
        rc = client_getattr(ops_ctx(req)->client, ino, out);
    return !rc && !out->nlink ? -ESTALE : rc;
}

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct mount_ctx *m = ops_ctx(req);
    Replfs__Attr a = REPLFS__ATTR__INIT;
    int rc;
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        rc = lookup_dot(req, parent, name[1], &a);
    else
        rc = too_long(name) ? -ENAMETOOLONG : client_lookup(m->client, parent, name, &a);
    int64_t ttl =
        rc == -ENOENT && m->can_forget_entries ? client_entry_ttl(m->client, parent, name, 0) : 0;
    if (ttl) { /* inode 0: there is no such name, and the kernel may remember that */
        struct fuse_entry_param e = {.entry_timeout = (double)ttl / NSEC_PER_SEC};
        fuse_reply_entry(req, &e);
    } else {
        ops_reply_entry(req, OPS_ASKED, rc, parent, name, &a);
    }
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct mount_ctx *m = ops_ctx(req);
    Replfs__Attr a = REPLFS__ATTR__INIT;
    int rc = 0;
    (void)fi;
    if (ino != FUSE_ROOT_ID) {
        rc = client_getattr(m->client, ino, &a);
    } else {
        bool last_seen = ops_cut_off(m);
        if (!last_seen)
            rc = client_getattr(m->client, ino, &a);
        LOCK_SCOPE(&m->root_lock);
        if (last_seen)
            a = m->root;
        else if (!rc)
            m->root = a;
    }
    ops_reply_attr(req, OPS_ASKED, rc, &a);
}

static int64_t from_timespec(const struct timespec *t)
{
    int64_t ns;
    if (__builtin_mul_overflow(t->tv_sec, (int64_t)NSEC_PER_SEC, &ns) ||
        __builtin_add_overflow(ns, t->tv_nsec, &ns))
        return t->tv_sec < 0 ? INT64_MIN : INT64_MAX; /* years 1677 and 2262 */
    return ns;
}

static void fill_setattr(Replfs__SetattrOp *s, const struct stat *st, int to_set)
{
    if (to_set & FUSE_SET_ATTR_MODE) {
        s->valid |= REPLFS__SETATTR_OP__VALID__MODE;
        s->mode = st->st_mode & 07777;
    }
    if (to_set & FUSE_SET_ATTR_UID) {
        s->valid |= REPLFS__SETATTR_OP__VALID__UID;
        s->uid = st->st_uid;
    }
    if (to_set & FUSE_SET_ATTR_GID) {
        s->valid |= REPLFS__SETATTR_OP__VALID__GID;
        s->gid = st->st_gid;
    }
    if (to_set & FUSE_SET_ATTR_ATIME_NOW) {
        s->valid |= REPLFS__SETATTR_OP__VALID__ATIME_NOW;
    } else if (to_set & FUSE_SET_ATTR_ATIME) {
        s->valid |= REPLFS__SETATTR_OP__VALID__ATIME;
        s->atime_ns = from_timespec(&st->st_atim);
    }
    if (to_set & FUSE_SET_ATTR_MTIME_NOW) {
        s->valid |= REPLFS__SETATTR_OP__VALID__MTIME_NOW;
    } else if (to_set & FUSE_SET_ATTR_MTIME) {
        s->valid |= REPLFS__SETATTR_OP__VALID__MTIME;
        s->mtime_ns = from_timespec(&st->st_mtim);
    }
}

/* A change of owner takes setuid and setgid away. One that sets nothing can only be chown(-1, -1),
 * which does so, too. */
static int kill_on_chown(fuse_req_t req, Replfs__SetattrOp *s, int to_set)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    if (to_set & FUSE_SET_ATTR_SIZE)
        return 0;
    if (s->valid && !(s->valid & (REPLFS__SETATTR_OP__VALID__UID | REPLFS__SETATTR_OP__VALID__GID)))
        return 0;
    s->valid |= REPLFS__SETATTR_OP__VALID__KILL_SUID;
    if (!fuse_req_ctx(req)->uid)
        return 0;
    int rc = client_getattr(ops_ctx(req)->client, s->ino, &a);
    if (!rc && ops_loses_sgid(req, &a))
        s->valid |= REPLFS__SETATTR_OP__VALID__KILL_SGID;
    return rc;
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set,
                struct fuse_file_info *fi)
{
    struct client *c = ops_ctx(req)->client;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    OP(op, SETATTR);
    op.setattr = &s;
    s.ino = ino;
    fill_setattr(&s, st, to_set);
    int rc = kill_on_chown(req, &s, to_set);
    if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))
        client_forget_atime(c, ino);
    if (!rc && s.valid && !(to_set & FUSE_SET_ATTR_SIZE) && client_setattr_deferred(c, &s, &a)) {
        ops_reply_attr(req, OPS_CHANGED, 0, &a);
        return;
    }
    if (!rc && (to_set & FUSE_SET_ATTR_SIZE))
        rc = ops_truncate(req, ino, (uint64_t)st->st_size, fi, &a);
    else if (!rc) /* a later commit of buffered data would set mtime anew */
        rc = client_flush_ino(c, ino);
    if (!rc && s.valid)
        rc = mutate(req, &op, &a);
    else if (!rc && !(to_set & FUSE_SET_ATTR_SIZE))
        rc = client_getattr(c, ino, &a);
    ops_reply_attr(req, OPS_CHANGED, rc, &a);
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    Replfs__ReadlinkReq ask = REPLFS__READLINK_REQ__INIT;
    RPC_ENVELOPE(q, READLINK_REQ, readlink_req, &ask);
    struct rpc_result r;
    char target[4096];
    ask.ino = ino;
    int rc = ops_ask(req, &q, REPLFS__ENVELOPE__BODY_READLINK_REPLY, &r);
    if (!rc) {
        const ProtobufCBinaryData *t = &r.rep->readlink_reply->target;
        if (t->len >= sizeof(target)) {
            rc = -ENAMETOOLONG;
        } else {
            memcpy(target, t->data, t->len);
            target[t->len] = '\0';
        }
    }
    rpc_result_free(&r);
    if (!rc)
        client_accessed(ops_ctx(req)->client, ino, false);
    if (rc)
        ops_reply(req, rc);
    else
        fuse_reply_readlink(req, target);
}

int ops_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev,
               const char *target, Replfs__Attr *out)
{
    const struct fuse_ctx *who = fuse_req_ctx(req);
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    OP(op, CREATE);
    if (too_long(name))
        return -ENAMETOOLONG;
    op.create = &c;
    c.parent = parent;
    c.tmpfile = !strcmp(name, KERNEL_TMPFILE_NAME);
    if (!c.tmpfile)
        c.name = ops_bytes(name, strlen(name));
    c.mode = mode;
    c.umask = who->umask;
    c.uid = who->uid;
    c.gid = who->gid;
    c.rdev = rdev;
    if (target)
        c.target = ops_bytes(target, strlen(target));
    if (client_create_deferred(ops_ctx(req)->client, &c, out))
        return 0;
    return mutate(req, &op, out);
}

static void create_and_reply(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                             dev_t rdev, const char *target)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    int rc = ops_create(req, parent, name, mode, rdev, target, &a);
    ops_reply_entry(req, OPS_CHANGED, rc, parent, name, &a);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    if (!(mode & S_IFMT))
        mode |= S_IFREG;
    create_and_reply(req, parent, name, mode, S_ISCHR(mode) || S_ISBLK(mode) ? rdev : 0, NULL);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    create_and_reply(req, parent, name, (mode & 07777) | S_IFDIR, 0, NULL);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    create_and_reply(req, parent, name, S_IFLNK | 0777, 0, target);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, bool dir)
{
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    OP(op, UNLINK);
    op.unlink = &u;
    u.parent = parent;
    u.name = ops_bytes(name, strlen(name));
    u.dir = dir;
    int rc = too_long(name) ? -ENAMETOOLONG : 0;
    if (!rc && !client_remove_deferred(ops_ctx(req)->client, &u))
        rc = mutate(req, &op, NULL);
    ops_reply(req, rc);
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, false);
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, true);
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
               const char *new_name, unsigned flags)
{
    Replfs__RenameOp r = REPLFS__RENAME_OP__INIT;
    OP(op, RENAME);
    op.rename = &r;
    r.parent = parent;
    r.name = ops_bytes(name, strlen(name));
    r.new_parent = new_parent;
    r.new_name = ops_bytes(new_name, strlen(new_name));
    r.flags = flags;
    int rc = too_long(name) || too_long(new_name) ? -ENAMETOOLONG : mutate(req, &op, NULL);
    ops_reply(req, rc);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    Replfs__LinkOp l = REPLFS__LINK_OP__INIT;
    OP(op, LINK);
    op.link = &l;
    l.ino = ino;
    l.parent = new_parent;
    l.name = ops_bytes(new_name, strlen(new_name));
    int rc = too_long(new_name) ? -ENAMETOOLONG : 0;
    if (!rc) /* the attributes that come back must not show a size from before buffered writes */
        rc = client_flush_ino(ops_ctx(req)->client, ino);
    if (!rc)
        rc = mutate(req, &op, &a);
    ops_reply_entry(req, OPS_CHANGED, rc, new_parent, new_name, &a);
}
