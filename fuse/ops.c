/* The table of operations, FUSE_INIT, and what all operations share.
 *
 * Attributes and entries are given to the kernel for as long as metad's leases on them last
 * (client/cache/lease_cache.h): it answers by itself meanwhile, and is told when a lease is recalled. Entries
 * need a kernel that can forget them without waiting for anybody (7.44); older ones ask for each
 * path component, which the client mostly answers. File pages are cached: checked at open by the
 * change counter (inode.c), dropped when the lease goes or a stat shows another size or mtime
 * (AUTO_INVAL_DATA).
 *
 * Permissions are the kernel's business (default_permissions), ACLs included. Clearing setuid bits
 * is ours: the kernel says when (kernel.c), metad does it with the write. The umask comes along
 * with every creation, since a directory's default ACL replaces it. */
#include "ops.h"

#include <errno.h>

#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "fuse/serve/kernel.h"

#define LOG_MODULE "fuse"

struct mount_ctx *ops_ctx(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

void ops_opened(struct mount_ctx *m, struct open_node *n)
{
    LOCK_SCOPE(&m->opens_lock);
    atomic_init(&n->refs, 1);
    n->prev = NULL;
    n->next = m->opens;
    if (n->next)
        n->next->prev = n;
    m->opens = n;
}

void ops_closed(struct mount_ctx *m, struct open_node *n)
{
    lock_acquire(&m->opens_lock);
    *(n->prev ? &n->prev->next : &m->opens) = n->next;
    if (n->next)
        n->next->prev = n->prev;
    lock_release(&m->opens_lock);
    ops_drop(n);
}

struct open_node *ops_hold(const struct fuse_file_info *fi)
{
    struct open_node *n = (struct open_node *)(uintptr_t)fi->fh;
    atomic_fetch_add(&n->refs, 1);
    return n;
}

void ops_drop(struct open_node *n)
{
    if (atomic_fetch_sub(&n->refs, 1) == 1)
        n->release(n);
}

/* Releases of those whose last holder was a thread that must not wait. */
static struct {
    struct lock mu;
    struct cond cv;
    struct open_node *first;
    bool started, stop;
    pthread_t thread;
} releases = {.mu = LOCK_INITIALIZER(RELEASES), .cv = COND_INITIALIZER};

static void *releases_main(void *arg)
{
    LOCK_SCOPE(&releases.mu);
    while (releases.first || !releases.stop) {
        struct open_node *n = releases.first;
        if (!n) {
            cond_wait(&releases.cv, &releases.mu);
            continue;
        }
        releases.first = n->next;
        lock_release(&releases.mu);
        n->release(n);
        lock_acquire(&releases.mu);
    }
    return arg;
}

void ops_drop_elsewhere(struct open_node *n)
{
    if (atomic_fetch_sub(&n->refs, 1) != 1)
        return;
    lock_acquire(&releases.mu);
    if (!releases.started && !releases.stop)
        releases.started = !thread_start(&releases.thread, "releases", releases_main, NULL);
    bool taken = releases.started && !releases.stop;
    if (taken) {
        n->next = releases.first; /* it is in no other list any more */
        releases.first = n;
        cond_signal(&releases.cv);
    }
    lock_release(&releases.mu);
    if (!taken)
        n->release(n);
}

void ops_release_all(struct mount_ctx *m)
{
    while (m->opens)
        ops_closed(m, m->opens);
    lock_acquire(&releases.mu);
    bool started = releases.started;
    releases.stop = true;
    cond_signal(&releases.cv);
    lock_release(&releases.mu);
    if (started)
        pthread_join(releases.thread, NULL);
}

bool ops_cut_off(struct mount_ctx *m)
{
    struct client_stat st;
    client_stat(m->client, &st);
    return !st.connected;
}

void ops_reply(fuse_req_t req, int code)
{
    fuse_reply_err(req, code ? err_to_errno(code) : 0);
}

static struct timespec to_timespec(int64_t ns)
{
    int64_t s = ns / NSEC_PER_SEC, r = ns % NSEC_PER_SEC;
    if (r < 0) { /* before 1970: tv_nsec counts forward all the same */
        s--;
        r += NSEC_PER_SEC;
    }
    return (struct timespec){.tv_sec = s, .tv_nsec = r};
}

void ops_stat(const Replfs__Attr *a, struct stat *st)
{
    *st = (struct stat){.st_ino = a->ino,
                        .st_mode = a->mode,
                        .st_nlink = a->nlink,
                        .st_uid = a->uid,
                        .st_gid = a->gid,
                        .st_rdev = a->rdev,
                        .st_size = (off_t)a->size,
                        .st_blocks = (blkcnt_t)((a->allocated + 511) / 512),
                        .st_blksize = S_ISREG(a->mode) ? OPS_IO_SIZE : 4096,
                        .st_atim = to_timespec(a->atime_ns),
                        .st_mtim = to_timespec(a->mtime_ns),
                        .st_ctim = to_timespec(a->ctime_ns)};
}

static double seconds(int64_t ns)
{
    return (double)ns / NSEC_PER_SEC;
}

static double attr_lifetime(struct mount_ctx *m, enum ops_answer to, uint64_t parent,
                            const Replfs__Attr *a)
{
    return seconds(to == OPS_CHANGED ? client_changed_ttl(m->client, parent, a)
                                     : client_attr_ttl(m->client, a));
}

void ops_entry(struct mount_ctx *m, enum ops_answer to, uint64_t parent, const char *name,
               const Replfs__Attr *a, struct fuse_entry_param *e)
{
    *e = (struct fuse_entry_param){.ino = a->ino, .attr_timeout = attr_lifetime(m, to, parent, a)};
    if (m->can_forget_entries)
        e->entry_timeout = seconds(client_entry_ttl(m->client, parent, name, a->ino));
    ops_stat(a, &e->attr);
}

void ops_reply_entry(fuse_req_t req, enum ops_answer to, int code, uint64_t parent,
                     const char *name, const Replfs__Attr *a)
{
    struct mount_ctx *m = ops_ctx(req);
    struct fuse_entry_param e;
    if (code) {
        ops_reply(req, code);
        return;
    }
    ops_entry(m, to, parent, name, a, &e);
    fuse_reply_entry(req, &e);
}

void ops_reply_attr(fuse_req_t req, enum ops_answer to, int code, const Replfs__Attr *a)
{
    struct stat st;
    if (code) {
        ops_reply(req, code);
        return;
    }
    ops_stat(a, &st);
    fuse_reply_attr(req, &st, attr_lifetime(ops_ctx(req), to, 0, a));
}

int ops_ask(fuse_req_t req, Replfs__Envelope *q, Replfs__Envelope__BodyCase want,
            struct rpc_result *out)
{
    *out = (struct rpc_result){0};
    int rc = client_ask(ops_ctx(req)->client, q, out);
    if (!rc && (!out->rep || out->rep->body_case != want))
        rc = -ERR_PROTOCOL;
    return rc;
}

static bool odd_sgid(uint32_t mode)
{
    return !S_ISDIR(mode) && (mode & (S_ISGID | S_IXGRP)) == S_ISGID;
}

bool ops_loses_sgid(fuse_req_t req, const Replfs__Attr *a)
{
    gid_t groups[256];
    if (!odd_sgid(a->mode) || fuse_req_ctx(req)->gid == a->gid)
        return false;
    int n = fuse_req_getgroups(req, sizeof(groups) / sizeof(groups[0]), groups);
    for (int i = 0; i < n && i < (int)(sizeof(groups) / sizeof(groups[0])); i++)
        if (groups[i] == a->gid)
            return false;
    return true;
}

int ops_kill_suid(fuse_req_t req, Replfs__Attr *a)
{
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    if (!(a->mode & (S_ISUID | S_ISGID)) && !(a->flags & REPLFS__ATTR_FLAG__ATTR_XATTR))
        return 0;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &s;
    s.ino = a->ino;
    s.valid = REPLFS__SETATTR_OP__VALID__KILL_SUID;
    if (ops_loses_sgid(req, a))
        s.valid |= REPLFS__SETATTR_OP__VALID__KILL_SGID;
    int rc = client_mutate(ops_ctx(req)->client, &op, a, NULL);
    ops_invalidate(ops_ctx(req), a->ino,
                   LEASE_CACHE_INVAL_ATTR); /* the kernel has the former mode */
    return rc;
}

/* Of the client library: leases are gone, and with them what the kernel knows under them. */
bool ops_invalidate(void *arg, uint64_t ino, unsigned what)
{
    struct mount_ctx *m = arg;
    if (!m->session)
        return true;
    if ((what & LEASE_CACHE_INVAL_ENTRIES) && m->can_forget_entries)
        kernel_forget_entries(m->session);
    return fuse_lowlevel_notify_inval_inode(m->session, ino,
                                            what & LEASE_CACHE_INVAL_PAGES ? 0 : -1, 0) != -ENOENT;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct mount_ctx *m = userdata;
    unsigned want = FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC |
                    FUSE_CAP_IOCTL_DIR | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_POSIX_ACL |
                    FUSE_CAP_DONT_MASK | FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_POSIX_LOCKS |
                    FUSE_CAP_FLOCK_LOCKS;
    unsigned avoid = FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_ASYNC_DIO;
    if (m->readdirplus)
        want |= FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO;
    else
        avoid |= FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO;
    m->can_forget_entries = conn->proto_minor >= KERNEL_MINOR_INC_EPOCH;
    conn->want = (conn->want | (want & conn->capable)) & ~avoid;
    kernel_want(conn);
    conn->max_write = OPS_IO_SIZE;
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->time_gran = 1;
    log_debug("FUSE %u.%u, capable %#x, want %#x, max_write %u, max_readahead %u",
              conn->proto_major, conn->proto_minor, conn->capable, conn->want, conn->max_write,
              conn->max_readahead);
}

/* Inodes are ids, not memory of this process: there is nothing to forget. */
static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    (void)ino, (void)n;
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t n, struct fuse_forget_data *list)
{
    (void)n, (void)list;
    fuse_reply_none(req);
}

static int ask_space(fuse_req_t req, fuse_ino_t ino, struct statvfs *v)
{
    Replfs__StatfsReq ask = REPLFS__STATFS_REQ__INIT;
    RPC_ENVELOPE(q, STATFS_REQ, statfs_req, &ask);
    struct rpc_result r;
    ask.ino = ino ? ino : FUSE_ROOT_ID;
    int rc = ops_ask(req, &q, REPLFS__ENVELOPE__BODY_STATFS_REPLY, &r);
    if (!rc) {
        const Replfs__StatfsReply *s = r.rep->statfs_reply;
        *v = (struct statvfs){.f_bsize = 4096,
                              .f_frsize = 4096,
                              .f_blocks = s->total / 4096,
                              .f_bfree = s->free / 4096,
                              .f_bavail = s->free / 4096,
                              .f_files = s->files + s->files_free,
                              .f_ffree = s->files_free,
                              .f_favail = s->files_free,
                              .f_namemax = 255};
    }
    rpc_result_free(&r);
    return rc;
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct mount_ctx *m = ops_ctx(req);
    struct statvfs v = {0};
    int rc = 0;
    bool last_seen = ops_cut_off(m);
    if (!last_seen)
        rc = ask_space(req, ino, &v);
    lock_acquire(&m->root_lock);
    if (last_seen)
        v = m->space;
    else if (!rc)
        m->space = v;
    lock_release(&m->root_lock);
    if (rc)
        ops_reply(req, rc);
    else
        fuse_reply_statfs(req, &v);
}

/* Absent operations get ENOSYS from libfuse, which the kernel remembers and then handles itself:
 * access (default_permissions checks). */
const struct fuse_lowlevel_ops ops_table = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .open = op_open,
    .create = op_create,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .release = op_release,
    .fsync = op_fsync,
    .fallocate = op_fallocate,
    .lseek = op_lseek,
    .copy_file_range = op_copy_file_range,
    .ioctl = op_ioctl,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .statfs = op_statfs,
    .getlk = op_getlk,
    .setlk = op_setlk,
    .flock = op_flock,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .setxattr = op_setxattr,
    .removexattr = op_removexattr,
};
