/* Operations on open files.
 *
 * A file handle (fi->fh) is a struct handle: one per open, holding a reference to the client's
 * cfile, of which there is one per inode. Bytes written are buffered by the client; flush (every
 * close of a descriptor) waits until all copies and metad have them, fsync until they are on disks,
 * and an error not told by write is told there. Release cannot tell anybody anything: the client
 * logs what is left.
 *
 * A file opened to be appended to bypasses the page cache: the kernel would put the bytes where it
 * believes the file to end, while metad decides where they go. What other descriptors have cached
 * there is dropped before the write is answered. Where O_APPEND was set later (fcntl), pages are
 * locked until then, and those in the wrong place are dropped right behind the answer.
 *
 * What others read into the page cache while a write goes past it may be older: reading on, they find another
 * mtime and drop their pages, since a write ends what the kernel knows of the file. One that it does not wait
 * for (ASYNC_DIO) does not: such writes are not asked for (ops.c), but done one after the other.
 *
 * Create without O_EXCL that meets an existing name (another client was faster) is answered with
 * ESTALE: the kernel then looks the name up again and opens the file with its own permission
 * checks, which a silent open here would skip. */
#include "ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "fuse/serve/kernel.h"

#define LOG_MODULE "fuse"
#define COPY_MAX 0x7ffff000u /* the answer's count has 32 bits */

struct handle {
    struct open_node node;
    struct cfile *file;
    bool writable;
    bool direct;        /* past the page cache */
    unsigned errs_seen; /* under the client's lock of the file */
};

static struct handle *handle_of(const struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}

static bool wants_write(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY;
}

static void release_handle(struct open_node *n)
{
    struct handle *h = (struct handle *)n;
    cfile_close(h->file);
    free(h);
}

static void set_handle(fuse_req_t req, struct fuse_file_info *fi, struct cfile *file)
{
    struct handle *h = calloc(1, sizeof(*h));
    if (!h)
        abort();
    h->file = file;
    cfile_error_since(file, &h->errs_seen); /* older ones are for those who had it open */
    h->writable = wants_write(fi->flags) || (fi->flags & O_TRUNC);
    fi->fh = (uint64_t)(uintptr_t)h;
    if (fi->flags & O_DIRECT || (fi->flags & O_APPEND && h->writable))
        fi->direct_io = 1;
    h->direct = fi->direct_io;
    h->node.release = release_handle;
    ops_opened(ops_ctx(req), &h->node);
}

/* A write in the background that failed is told to each handle, not only to the first that asks. */
static int with_errors(struct handle *h, int rc)
{
    int e = cfile_error_since(h->file, &h->errs_seen);
    return rc < 0 ? rc : e;
}

static int truncate_open(fuse_req_t req, struct cfile *f, uint64_t size, Replfs__Attr *a)
{
    int rc = cfile_truncate(f, size, a);
    return !rc && kernel_kill_suid() ? ops_kill_suid(req, a) : rc;
}

/* Likewise where no message of the change itself can carry it. */
static int kill_suid_now(fuse_req_t req, struct cfile *f)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    cfile_attr(f, &a);
    return ops_kill_suid(req, &a);
}

/* What a write's own flag does not cover: the mode that the kernel has, and setgid without x for
 * the group, of an outsider. */
static int before_kill(fuse_req_t req, struct cfile *f)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    cfile_attr(f, &a);
    if (a.mode & (S_ISUID | S_ISGID))
        ops_invalidate(ops_ctx(req), a.ino, LEASE_CACHE_INVAL_ATTR);
    return ops_loses_sgid(req, &a) ? ops_kill_suid(req, &a) : 0;
}

/* Puts a whole small file into the page cache: neither a read nor, since a read makes the kernel doubt
 * the access time, a question for attributes will follow. */
static bool to_kernel(void *arg, uint64_t ino, const struct buf *b)
{
    struct fuse_bufvec v = FUSE_BUFVEC_INIT(b->len);
    v.buf[0].mem = b->data;
    return !fuse_lowlevel_notify_store(arg, ino, 0, &v, 0);
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct mount_ctx *m = ops_ctx(req);
    struct cfile *f = NULL;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    bool write = wants_write(fi->flags) || (fi->flags & O_TRUNC);
    int rc = cfile_open(m->client, ino, write, &a, &f);
    if (!rc && (fi->flags & O_TRUNC)) {
        rc = truncate_open(req, f, 0, &a);
        if (rc)
            cfile_close(f);
    }
    if (rc) {
        ops_reply(req, rc);
        return;
    }
    fi->keep_cache = inode_seen(m->inodes, ino, a.change);
    if (!(fi->flags & O_NOATIME) && (fi->flags & O_ACCMODE) != O_WRONLY &&
        client_atime_counts(m->client, &a))
        fi->keep_cache = 0; /* so that the first read reaches us */
    else if (!write && !fi->keep_cache && !(fi->flags & O_DIRECT))
        fi->keep_cache = cfile_give_whole(f, to_kernel, m->session);
    set_handle(req, fi, f);
    if (fuse_reply_open(req, fi))
        ops_closed(m, &handle_of(fi)->node); /* the caller was interrupted: no release will come */
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
               struct fuse_file_info *fi)
{
    struct mount_ctx *m = ops_ctx(req);
    struct cfile *f = NULL;
    struct fuse_entry_param e;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    int rc = ops_create(req, parent, name, (mode & 07777) | S_IFREG, 0, NULL, &a);
    if (!rc)
        rc = cfile_open_new(m->client, &a, &f);
    if (rc == -EEXIST && !(fi->flags & O_EXCL))
        rc = -ESTALE;
    if (rc) {
        ops_reply(req, rc);
        return;
    }
    inode_seen(m->inodes, a.ino, a.change);
    ops_entry(m, OPS_CHANGED, parent, name, &a, &e);
    set_handle(req, fi, f);
    if (fuse_reply_create(req, &e, fi))
        ops_closed(m, &handle_of(fi)->node);
}

struct reading {
    fuse_req_t req;
    struct handle *h; /* held */
    bool counts;      /* for the access time */
};

static void read_over(void *arg, int rc, struct buf *b)
{
    struct reading *r = arg;
    if (!rc && r->counts)
        cfile_accessed(r->h->file);
    ops_drop_elsewhere(&r->h->node);
    if (rc < 0)
        ops_reply(r->req, rc);
    else
        fuse_reply_buf(r->req, b ? (const char *)b->data : NULL, b ? b->len : 0);
    free(r);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct reading *r = malloc(sizeof(*r));
    (void)ino;
    if (!r)
        abort();
    *r = (struct reading){req, (struct handle *)ops_hold(fi), !(fi->flags & O_NOATIME)};
    kernel_lasting();
    cfile_read_async(r->h->file, off, size, read_over, r);
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
              struct fuse_file_info *fi)
{
    OPS_HOLD(fi);
    struct handle *h = handle_of(fi);
    off_t asked = off;
    /* Pages of a shared mapping go where they were, whatever flags their file was opened with. */
    bool append = (fi->flags & O_APPEND) && !fi->writepage;
    unsigned flags = append ? CFILE_APPEND : 0;
    int rc = 0;
    if (kernel_kill_suid()) {
        flags |= CFILE_KILL_SUID;
        rc = before_kill(req, h->file);
    }
    if (!rc)
        rc = cfile_write(h->file, data, size, &off, flags);
    if (rc >= 0 && (fi->flags & (O_SYNC | O_DSYNC)))
        rc = cfile_fsync(h->file);
    rc = with_errors(h, rc);
    off_t from = off < asked ? off : asked;
    struct fuse_session *se = ops_ctx(req)->session; /* the answer ends req, and soon perhaps h */
    bool direct = h->direct;
    if (append && direct)
        fuse_lowlevel_notify_inval_inode(se, ino, from, 0);
    if (rc < 0)
        ops_reply(req, rc);
    else
        fuse_reply_write(req, size);
    if (append && !direct && off != asked)
        fuse_lowlevel_notify_inval_inode(se, ino, from, 0);
}

struct flushing {
    fuse_req_t req;
    struct handle *h;
};

static void flush_over(void *arg, int rc)
{
    struct flushing *x = arg;
    rc = with_errors(x->h, rc);
    ops_drop_elsewhere(&x->h->node);
    ops_reply(x->req, rc);
    free(x);
}

void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);
    bool locked = ops_unlock_closing(req, ino, fi);
    if (h->writable && !locked) {
        struct flushing *x = malloc(sizeof(*x));
        if (!x)
            abort();
        *x = (struct flushing){req, (struct handle *)ops_hold(fi)};
        kernel_lasting();
        cfile_flush_async(h->file, flush_over, x);
        return;
    }
    OPS_HOLD(fi);
    int rc = h->writable ? with_errors(h, cfile_flush(h->file)) : 0;
    if (locked)
        ops_unlock_flush(req, ino, fi);
    ops_reply(req, rc);
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    ops_unlock_release(req, ino, fi);
    ops_closed(ops_ctx(req), &handle_of(fi)->node);
    ops_reply(req, 0);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    OPS_HOLD(fi);
    /* Size and map are needed to find the data: fdatasync only spares the access time. */
    int rc = cfile_fsync(handle_of(fi)->file);
    if (!rc && !datasync)
        client_flush_atime(ops_ctx(req)->client, ino);
    ops_reply(req, with_errors(handle_of(fi), rc));
}

/* The protocol says of writes and truncations who must lose setuid bits, of these not. */
static bool unprivileged(fuse_req_t req)
{
    return fuse_req_ctx(req)->uid != 0;
}

/* The kernel lets through mode 0, KEEP_SIZE, PUNCH_HOLE and ZERO_RANGE, and drops the pages. */
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                  struct fuse_file_info *fi)
{
    OPS_HOLD(fi);
    struct handle *h = handle_of(fi);
    (void)ino;
    int rc = off < 0 || len <= 0 ? -EINVAL : 0;
    if (!rc)
        rc = cfile_fallocate(h->file, mode, (uint64_t)off, (uint64_t)len, unprivileged(req));
    ops_reply(req, with_errors(h, rc));
}

/* Only SEEK_DATA and SEEK_HOLE come here. */
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    OPS_HOLD(fi);
    uint64_t at = 0;
    (void)ino;
    int rc = whence != SEEK_DATA && whence != SEEK_HOLE ? -EINVAL : off < 0 ? -ENXIO : 0;
    if (!rc)
        rc = cfile_seek(handle_of(fi)->file, (uint64_t)off, whence == SEEK_HOLE, &at);
    if (rc)
        ops_reply(req, rc);
    else
        fuse_reply_lseek(req, (off_t)at);
}

/* EOPNOTSUPP makes the kernel copy through the page cache. */
void op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
                        struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                        struct fuse_file_info *fi_out, size_t len, int flags)
{
    OPS_HOLD(fi_out);
    struct handle *src = (struct handle *)ops_hold(fi_in), *dst = handle_of(fi_out);
    uint64_t done = 0;
    (void)ino_in, (void)ino_out;
    if (len > COPY_MAX)
        len = COPY_MAX;
    int rc = flags || off_in < 0 || off_out < 0 ? -EINVAL : 0;
    if (!rc && unprivileged(req))
        rc = kill_suid_now(req, dst->file);
    if (!rc)
        rc = cfile_clone(src->file, (uint64_t)off_in, dst->file, (uint64_t)off_out, len, &done);
    ops_drop(&src->node);
    if (rc && !done)
        ops_reply(req, with_errors(dst, rc));
    else
        fuse_reply_write(req, done);
}

int ops_truncate(fuse_req_t req, fuse_ino_t ino, uint64_t size, struct fuse_file_info *fi,
                 Replfs__Attr *out)
{
    struct cfile *f;
    if (fi) {
        OPS_HOLD(fi);
        return truncate_open(req, handle_of(fi)->file, size, out);
    }
    int rc = cfile_open(ops_ctx(req)->client, ino, true, out, &f);
    if (rc)
        return rc;
    rc = truncate_open(req, f, size, out);
    cfile_close(f);
    return rc;
}

void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg, struct fuse_file_info *fi,
              unsigned flags, const void *in, size_t in_len, size_t out_len)
{
    const struct fuse_ctx *who = fuse_req_ctx(req);
    struct ctl_msg reply;
    (void)arg, (void)fi;
    if (flags & FUSE_IOCTL_COMPAT) {
        ops_reply(req, -ENOSYS);
        return;
    }
    if (in_len < sizeof(struct ctl_msg) || out_len < sizeof(reply)) {
        ops_reply(req, -ENOTTY); /* not one of ours: those carry a message both ways */
        return;
    }
    int rc = ctl_server_ioctl(ops_ctx(req)->ctl, cmd, ino, who->uid, in, &reply);
    if (rc)
        ops_reply(req, rc);
    else
        fuse_reply_ioctl(req, 0, &reply, sizeof(reply));
}
