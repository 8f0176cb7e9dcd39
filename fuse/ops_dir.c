/* Listing directories.
 *
 * A handle holds one page of entries as metad sent it. Positions are the server's cookies shifted
 * by two, since "." and ".." (which metad does not store) take 1 and 2; a position names the entry
 * after which to go on, so entries that come or go elsewhere are never skipped or repeated for it.
 * A page is reused only while reading goes on where it left off; any other position (seekdir,
 * rewinddir) asks anew.
 *
 * Under a lease the kernel may list again what it has listed (let_kernel_list), and a page may have been
 * there already (client_list). Of a page that is older than the kernel's question each entry is given with
 * attributes only as far as it is known to be so still (client_entry_attr). When the directory's lease
 * went since, that is not known of any: what follows is asked for anew, not more than one answer takes.
 *
 * A listing ends where the directory ended as it began (opendir, rewinddir): a program that replaces what it lists
 * as it goes would otherwise meet the replacements, for ever.
 *
 * The kernel may read one handle from several threads (PARALLEL_DIROPS): a lock per handle. */
#include "ops.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "fuse"
#define COOKIE_SHIFT 2u
#define COOKIE_MAX ((uint64_t)INT64_MAX - COOKIE_SHIFT)
#define ANSWER_ENTRIES 32u /* about as many as the kernel asks for with attributes at a time */

struct dirh {
    struct open_node node;
    struct client *client;
    uint64_t ino;
    struct lock mu;
    uint64_t parent;       /* for "..": known with the first page */
    struct dir_page *page; /* or NULL */
    bool again;            /* it was asked for earlier */
    size_t pos;            /* next entry of page */
    uint64_t after;        /* cookie that pos goes on behind */
    uint64_t end;          /* entries with this cookie and higher ones came later; 0: not known */
    bool linking;          /* the kernel is taking names from the last answer */
    bool plus;             /* page has attributes */
    unsigned lost_seen;    /* of client_lost, told by fsync */
    uint64_t begun;        /* client_begin of the first page */
    size_t listed;         /* entries of all pages up to this one, */
    uint64_t upto;         /* the last one's cookie; one after the other since the first */
    bool whole;
};

/* What one readdir request fills. */
struct listing {
    fuse_req_t req;
    char *buf;
    size_t size, used;
    uint64_t dir;
    bool plus;
    bool fresh; /* the page came for this request */
};

static struct dirh *dirh_of(const struct fuse_file_info *fi)
{
    return (struct dirh *)(uintptr_t)fi->fh;
}

static const Replfs__ReaddirReply *entries_of(const struct dirh *d)
{
    return d->page ? dir_page_entries(d->page) : NULL;
}

static void dirh_free(struct open_node *n)
{
    struct dirh *d = (struct dirh *)n;
    if (d->linking)
        client_linking(d->client, d->ino, false);
    client_dir_closed(d->client, d->ino);
    dir_page_unref(d->page);
    lock_destroy(&d->mu);
    free(d);
}

/* Under a lease the kernel may keep what it has listed, and list it again by itself, as long as the
 * change counter is the same and the attributes that came with the list are good: asking for each
 * of them would cost more than listing anew. Which it does at half of their time, lest that ends while a
 * program lists. */
static void let_kernel_list(struct mount_ctx *m, fuse_ino_t ino, struct fuse_file_info *fi)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    int64_t now = clock_mono(), ttl = client_list_ttl(m->client, ino);
    if (!m->can_forget_entries || !ttl || client_getattr(m->client, ino, &a))
        return;
    fi->cache_readdir = 1;
    fi->keep_cache = inode_listed(m->inodes, ino, a.change, now + ttl / 2, now + ttl) &&
                     ((fi->flags & O_NOATIME) || !client_atime_counts(m->client, &a));
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct dirh *d = calloc(1, sizeof(*d));
    if (!d)
        abort();
    lock_init(&d->mu, LOCK_LISTING);
    d->parent = d->ino = ino;
    d->client = ops_ctx(req)->client;
    client_dir_opened(d->client, ino);
    fi->fh = (uint64_t)(uintptr_t)d;
    d->node.release = dirh_free;
    struct mount_ctx *m = ops_ctx(req);
    d->lost_seen = client_lost(m->client);
    let_kernel_list(m, ino, fi);
    ops_opened(m, &d->node);
    if (fuse_reply_open(req, fi))
        ops_closed(m, &d->node);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    ops_closed(ops_ctx(req), &dirh_of(fi)->node);
    ops_reply(req, 0);
}

/* What metad has of a directory is durable; what it has not yet is waited for. What was lost since
 * the directory was opened, here or elsewhere in the mount, is told once. */
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct client *c = ops_ctx(req)->client;
    struct dirh *d = dirh_of(fi);
    OPS_HOLD(fi);
    int rc = client_settle(c, ino);
    if (!rc && !datasync)
        client_flush_atime(c, ino);
    LOCK_SCOPE(&d->mu);
    unsigned lost = client_lost(c), seen = d->lost_seen;
    d->lost_seen = lost;
    ops_reply(req, lost != seen ? -EIO : rc);
}

/* Whether the pages so far are all that is in the directory. */
static void note_page(struct dirh *d, fuse_req_t req, uint64_t ino, uint64_t begun, uint64_t after,
                      bool plus, const Replfs__ReaddirReply *r)
{
    if (!after) {
        d->begun = begun;
        d->listed = 0;
        d->upto = 0;
        d->whole = true;
    }
    d->whole &= plus && after == d->upto;
    d->listed += r->n_entries;
    d->upto = r->n_entries ? r->entries[r->n_entries - 1]->cookie : d->upto;
    if (d->whole && r->eof)
        client_listed(ops_ctx(req)->client, d->begun, ino, d->listed);
}

static int fetch_page(struct dirh *d, struct listing *l, uint64_t after, unsigned max)
{
    dir_page_unref(d->page);
    d->page = NULL;
    bool plus = l->plus;
    int rc = client_list(ops_ctx(l->req)->client, l->dir, after, plus, max, &d->page, &d->again);
    if (rc)
        return rc;
    l->fresh = !d->again;
    d->pos = 0;
    d->after = after;
    d->plus = plus || d->again;
    if (entries_of(d)->parent)
        d->parent = entries_of(d)->parent;
    if (!after || !d->end)
        d->end = entries_of(d)->end;
    if (!d->again)
        note_page(d, l->req, l->dir, d->page->begun, after, plus, entries_of(d));
    return 0;
}

/* False when the buffer is full. cookie: where to go on behind this entry, as the kernel sees it.
 */
static bool listing_add(struct listing *l, const char *name, const struct fuse_entry_param *e,
                        uint64_t cookie)
{
    size_t room = l->size - l->used, need;
    char *at = l->buf + l->used;
    if (l->plus)
        need = fuse_add_direntry_plus(l->req, at, room, name, e, (off_t)cookie);
    else
        need = fuse_add_direntry(l->req, at, room, name, &e->attr, (off_t)cookie);
    if (need > room)
        return false;
    l->used += need;
    return true;
}

static bool add_dot(struct listing *l, const char *name, uint64_t ino, uint64_t cookie)
{
    /* ino 0 outside attr: the kernel takes no reference for "." and ".." */
    struct fuse_entry_param e = {.attr = {.st_ino = ino, .st_mode = S_IFDIR}};
    return listing_add(l, name, &e, cookie);
}

/* False when the buffer is full. Entries that no directory can hold are passed over, not trusted.
 */
static bool add_entry(struct listing *l, const struct dir_page *page, const Replfs__Dirent *de)
{
    struct mount_ctx *m = ops_ctx(l->req);
    char name[NAME_MAX + 1];
    struct fuse_entry_param e = {0};
    if (!de->name.len || de->name.len > NAME_MAX || memchr(de->name.data, 0, de->name.len) ||
        memchr(de->name.data, '/', de->name.len)) {
        log_warn("readdir: metad sent an impossible name (inode %llu); skipped",
                 (unsigned long long)de->ino);
        return true;
    }
    memcpy(name, de->name.data, de->name.len);
    name[de->name.len] = '\0';
    Replfs__Attr known = REPLFS__ATTR__INIT;
    if (l->plus && client_entry_attr(m->client, page, l->fresh, de, &known)) {
        ops_entry(m, OPS_ASKED, l->dir, name, &known, &e);
    } else { /* without ino, it stands for a name only */
        e.attr.st_ino = de->ino;
        e.attr.st_mode = (mode_t)DTTOIF(de->type);
    }
    return listing_add(l, name, &e, de->cookie + COOKIE_SHIFT);
}

/* The page has what follows, as far as it is still known. *max: how much to ask for, if not. */
static bool page_serves(const struct dirh *d, const struct listing *l, uint64_t after,
                        unsigned *max)
{
    const Replfs__ReaddirReply *r = entries_of(d);
    *max = 0;
    if (!r || d->after != after || (l->plus && !d->plus))
        return false;
    if (d->pos == r->n_entries)
        return r->eof;
    if (!l->plus || l->fresh || client_page_holds(ops_ctx(l->req)->client, d->page))
        return true;
    *max = ANSWER_ENTRIES;
    return false;
}

/* The kernel has taken the last answer in, or will take one. */
static void linking(struct dirh *d, struct listing *l, bool begin)
{
    if (d->linking != begin)
        client_linking(ops_ctx(l->req)->client, l->dir, begin);
    d->linking = begin;
}

/* Adds entries behind cookie `after` until the buffer is full or the directory ends. */
static int add_entries(struct dirh *d, struct listing *l, uint64_t after)
{
    for (;;) {
        unsigned max;
        linking(d, l, false);
        if (!page_serves(d, l, after, &max)) {
            int rc = fetch_page(d, l, after, max);
            if (rc)
                return rc;
        }
        const Replfs__ReaddirReply *r = entries_of(d);
        if (d->pos == r->n_entries)
            return 0;
        linking(d, l, l->plus);
        while (d->pos < r->n_entries) {
            const Replfs__Dirent *de = r->entries[d->pos];
            if (de->cookie <= after || de->cookie > COOKIE_MAX)
                return -ERR_PROTOCOL; /* going backwards would list for ever */
            if ((d->end && de->cookie >= d->end) || !add_entry(l, d->page, de))
                return 0;
            after = d->after = de->cookie;
            d->pos++;
        }
    }
}

static int listing_read(struct dirh *d, struct listing *l, uint64_t off)
{
    LOCK_SCOPE(&d->mu);
    int rc = 0;
    linking(d, l, false);
    if (off < COOKIE_SHIFT) { /* from the start: with the first page comes the parent */
        rc = fetch_page(d, l, 0, 0);
        if (rc)
            return rc;
    }
    if (off < 1 && !add_dot(l, ".", l->dir, 1))
        return 0;
    if (off < 2 && !add_dot(l, "..", d->parent, 2))
        return 0;
    return add_entries(d, l, off < COOKIE_SHIFT ? 0 : off - COOKIE_SHIFT);
}

static void read_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                     struct fuse_file_info *fi, bool plus)
{
    OPS_HOLD(fi);
    struct listing l = {.req = req, .dir = ino, .size = size, .plus = plus, .buf = malloc(size)};
    if (!l.buf)
        abort();
    int rc = off < 0 ? -EINVAL : listing_read(dirh_of(fi), &l, (uint64_t)off);
    if (!rc && l.used)
        client_accessed(ops_ctx(req)->client, ino, true);
    if (rc && !l.used) /* else: give what there is, the next call meets the error */
        ops_reply(req, rc);
    else
        fuse_reply_buf(req, l.buf, l.used);
    free(l.buf);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    read_dir(req, ino, size, off, fi, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
    read_dir(req, ino, size, off, fi, true);
}
