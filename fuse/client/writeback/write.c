/* write(2) into append buffers.
 *
 * A file has at most one buffer being filled, the last of its list. Bytes that continue it, and
 * small writes elsewhere in the file, are appended to it; a rewrite of bytes still in it happens
 * in place. It is sealed when full, when it is flushed, when the next write would not fit whole
 * (buffers are committed one by one: another client's write between two halves would tear it), and
 * when a large write begins somewhere else, so that large data stays aligned to CRC blocks and can
 * be read back without amplification. Buffers grow from small to 1 MiB, since most files are small.
 *
 * Dirty bytes are those in buffers: counted when written, given back when every copy has
 * acknowledged them or they are given up. Writers wait, without locks, while the sum is at its
 * limit; the flusher is told to seal everything then. Failure mode: nothing moves for the
 * mount's time-out: -EIO. */
#include "client/internal.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

#define LOG_MODULE "write"
#define LARGE_WRITE (64u << 10)
#define BUF_MIN 4096u
#define LEASE_TRIES 3                       /* others may be quicker; then nothing is kept back */
#define PIECES_MAX (COMMIT_EXTENTS_MAX / 4) /* of one buffer: a commit takes whole buffers */

/* ---- dirty accounting ---- */

void dirty_give(struct client *c, uint64_t bytes)
{
    if (!bytes)
        return;
    pthread_mutex_lock(&c->dirty.mu);
    assert(c->dirty.bytes >= bytes);
    c->dirty.bytes -= bytes;
    pthread_cond_broadcast(&c->dirty.cv);
    pthread_mutex_unlock(&c->dirty.mu);
}

int write_wait_room(struct cfile *f, size_t len)
{
    struct client *c = f->c;
    int64_t deadline = client_deadline(c);
    uint64_t seen = 0;
    int rc = 0;
    pthread_mutex_lock(&c->dirty.mu);
    while (c->dirty.bytes && c->dirty.bytes + len > c->cfg.dirty_max) {
        if (c->dirty.bytes != seen) { /* something moves: patience starts anew */
            seen = c->dirty.bytes;
            deadline = client_deadline(c);
        }
        pthread_mutex_unlock(&c->dirty.mu);
        flush_kick(c);
        pthread_mutex_lock(&c->dirty.mu);
        if (c->dirty.bytes + len <= c->cfg.dirty_max)
            break;
        rc = cond_wait_until(&c->dirty.cv, &c->dirty.mu, deadline);
        if (rc)
            break;
    }
    if (!rc)
        c->dirty.bytes += len;
    pthread_mutex_unlock(&c->dirty.mu);
    if (rc)
        log_error("inode %llu: no room for writing within %u ms: the chunkds do not take data",
                  (unsigned long long)f->ino, c->cfg.timeout_ms);
    return rc ? -EIO : 0;
}

/* ---- append buffers (mu held) ---- */

void abuf_drop_buf(struct cfile *f, struct abuf *a)
{
    if (!a->buf)
        return;
    buf_unref(a->buf);
    a->buf = NULL;
    dirty_give(f->c, a->len);
}

void abuf_free(struct cfile *f, struct abuf *a)
{
    idmap_del(&f->abufs, a->id);
    abuf_drop_buf(f, a);
    append_answer(a, -EIO, 0); /* unless somebody knew better */
    f->growing -= a->grows;
    wchunk_unref(f->c, a->wc);
    free(a->pieces);
    free(a);
}

struct abuf *abuf_new(struct cfile *f, uint64_t off, size_t len)
{
    struct abuf *a = calloc(1, sizeof(*a));
    if (!a)
        return NULL;
    a->id = f->next_abuf++;
    a->limit = abuf_limit(off);
    size_t size = f->streaming || len >= APPEND_MAX / 4 ? a->limit : len;
    a->buf = buf_new(size < BUF_MIN ? BUF_MIN : size);
    a->born = clock_mono();
    a->life = atomic_load(&f->c->life);
    idmap_put(&f->abufs, a->id, a);
    *(f->tail ? &f->tail->next : &f->head) = a;
    f->tail = a;
    return a;
}

void abuf_forget(struct cfile *f, struct abuf *a)
{
    struct abuf **link = &f->head, *before = NULL;
    for (; *link != a; link = &before->next)
        before = *link;
    *link = NULL;
    f->tail = before;
    abuf_free(f, a);
}

static void abuf_grow(struct abuf *a, size_t need)
{
    size_t size = a->buf->cap * 4;
    if (size < need)
        size = need;
    struct buf *b = buf_new(size < a->limit ? size : a->limit);
    memcpy(b->data, a->buf->data, a->len);
    buf_unref(a->buf);
    a->buf = b;
}

void abuf_seal(struct cfile *f)
{
    struct abuf *a = f->tail;
    if (!a || a->state != ABUF_FILLING || !a->len)
        return;
    bool waiting = false;
    for (struct abuf *q = f->head; q && !waiting; q = q->next)
        waiting = q->state == ABUF_QUEUED || q->state == ABUF_SENT;
    if (!waiting)
        f->progress = clock_mono();
    f->streaming = a->len == a->limit;
    a->state = ABUF_QUEUED;
    a->buf->len = a->len;
}

/* The buffer that takes the next bytes at off. */
static struct abuf *abuf_for(struct cfile *f, uint64_t off, size_t len)
{
    struct abuf *a = f->tail;
    if (a && a->state == ABUF_FILLING && a->npieces) {
        const struct piece *p = &a->pieces[a->npieces - 1];
        bool continues = p->file_off + p->len == off;
        bool fits = len <= a->limit - a->len || len > abuf_limit(off);
        if (a->len < a->limit && fits &&
            (continues || (len < LARGE_WRITE && a->npieces < PIECES_MAX)))
            return a;
        abuf_seal(f);
        f->streaming = continues;
    }
    return abuf_new(f, off, len);
}

int write_put(struct cfile *f, const uint8_t *data, size_t len, uint64_t off)
{
    uint32_t at;
    struct abuf *a = f->tail;
    if (a && a->state == ABUF_FILLING && len <= APPEND_MAX &&
        overlay_inside(&f->over, off, (uint32_t)len, a->id, &at)) {
        memcpy(a->buf->data + at, data, len);
        dirty_give(f->c, len);
        return 0;
    }
    while (len) {
        a = abuf_for(f, off, len);
        if (!a)
            break;
        uint32_t room = a->limit - a->len, part = len < room ? (uint32_t)len : room;
        if (a->len + part > a->buf->cap)
            abuf_grow(a, a->len + part);
        struct ext e = {off, a->id, a->len, part};
        uint64_t grows = quota_applies(f) ? quota_grows(f, off, part) : 0;
        a->grows += grows;
        f->growing += grows;
        memcpy(a->buf->data + a->len, data, part);
        if (extmap_insert(&f->over, &e, NULL, NULL, NULL) || abuf_add_piece(a, off, part))
            break;
        data += part;
        off += part;
        len -= part;
        if (off > f->dirty_end)
            f->dirty_end = off;
        if (a->len == a->limit)
            abuf_seal(f);
    }
    dirty_give(f->c, len); /* what could not be taken */
    cfile_mark_dirty(f);
    return len ? -ENOMEM : 0;
}

int write_moved(struct cfile *f, const uint8_t *data, size_t len, uint64_t off, const struct ext *e)
{
    uint64_t end = f->dirty_end;
    assert(len <= abuf_limit(off));
    abuf_seal(f);
    int rc = write_put(f, data, len, off);
    f->dirty_end = end; /* it does not make the file longer, should somebody have cut it */
    if (rc)
        return rc;
    f->tail->over = e->chunk;
    f->tail->over_shift = (int64_t)((uint64_t)e->chunk_off - e->file_off);
    abuf_seal(f);
    return 0;
}

/* ---- the call ---- */

/* Bytes may be kept back only under an exclusive lease: others could not see them otherwise. mu
 * held, dropped while metad is asked. Sets f->through when it is not to be had. */
static int write_lease(struct cfile *f)
{
    struct lease_cache *l = f->c->leases;
    f->through = false;
    if (!lease_cache_term(l)) /* a metad without leases */
        return 0;
    for (int tries = 0; !lease_cache_exclusive(l, f->ino); tries++) {
        f->through = tries == LEASE_TRIES;
        if (f->through)
            return 0;
        pthread_mutex_unlock(&f->mu);
        int rc = lease_ask(f);
        pthread_mutex_lock(&f->mu);
        if (rc)
            return rc;
    }
    return 0;
}

/* Where it goes and whether it may. mu held, dropped when metad must be asked. */
static int write_begin(struct cfile *f, size_t len, off_t *off, bool append)
{
    bool asked = false;
    for (int rc = 1;;) {
        int err = cfile_take_err(f);
        if (err || rc <= 0)
            return err ? err : rc;
        rc = write_lease(f);
        if (rc)
            return rc;
        if (append)
            *off = (off_t)cfile_size(f);
        rc = quota_applies(f) ? quota_admit(f, (uint64_t)*off, len, &asked) : 0;
    }
}

static int write_some(struct cfile *f, const uint8_t *data, size_t len, off_t *off, unsigned flags)
{
    bool append = flags & CFILE_APPEND;
    int rc = write_wait_room(f, len);
    pthread_mutex_lock(&f->mu);
    if (rc) {
        int err = cfile_take_err(f);
        rc = err ? err : rc;
    } else {
        rc = write_begin(f, len, off, append);
        if (rc)
            dirty_give(f->c, len);
    }
    if (rc) {
        pthread_mutex_unlock(&f->mu);
        return rc;
    }
    f->dirty_mtime = client_now(f->c);
    queue_wrote(f->c, f->ino);
    f->kill_suid |= (flags & CFILE_KILL_SUID) != 0; /* until nothing is left to commit */
    if (append && append_waits(f)) {
        uint64_t at = 0;
        rc = append_put(f, data, len, &at);
        if (rc)
            cfile_take_err(f); /* the same one */
        else
            *off = (off_t)at;
    } else {
        rc = write_put(f, data, len, (uint64_t)*off);
        if (!rc && f->through) { /* others look at it all the time */
            abuf_seal(f);
            int late = flush_below(f, f->next_abuf, client_deadline(f->c));
            rc = cfile_take_err(f);
            rc = rc ? rc : late;
        }
    }
    send_pump(f);
    pthread_mutex_unlock(&f->mu);
    return rc;
}

int cfile_write(struct cfile *f, const void *data, size_t len, off_t *off, unsigned flags)
{
    const uint8_t *p = data;
    if (*off < 0 || len > (uint64_t)INT64_MAX - (uint64_t)*off)
        return -EFBIG;
    off_t pos = *off;
    for (size_t done = 0; done < len;) {
        size_t part = len - done < APPEND_MAX ? len - done : APPEND_MAX;
        int rc = write_some(f, p + done, part, &pos, flags);
        if (rc)
            return rc;
        if (!done)
            *off = pos;
        done += part;
        pos += (off_t)part;
    }
    return f->c->cfg.sync_all ? flush_file(f, FLUSH_SYNC, true) : 0;
}
