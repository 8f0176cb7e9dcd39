/* Open files by inode: one cfile however often a file is opened.
 *
 * `opens` counts what users opened; the table keeps a cfile while it is above zero. `refs`
 * counts memory: one for the table, one for each piece of background work (an append on its way,
 * a place on the grants' waiting list, a caller that looked it up). The dirty list (files.mu)
 * names the files that have bytes not committed, for the flusher. The last close flushes, drops
 * the table's reference and tells metad, in a batch.
 *
 * Opening to read under a lease needs no answer of metad: what the file is like is known, and nobody
 * can remove it without recalling the lease. So metad is not told (`untold`), unless somebody else
 * wants to change the inode (a recall: before the lease is given back), this client is about to take
 * a name away (cfile_removing), or the file has been open for a while, since a lease may run out.
 *
 * Of an open directory metad is told only then, too: once removed, it is kept for as long as that is open. */
#include "client/internal.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/cleanup.h"
#include "base/log.h"

#define LOG_MODULE "cfile"
#define UNTOLD_NS (NSEC_PER_SEC / 2)

void cfile_ref(struct cfile *f)
{
    atomic_fetch_add(&f->refs, 1);
}

static void cfile_destroy(struct cfile *f)
{
    struct client *c = f->c;
    while (f->head) {
        struct abuf *a = f->head;
        f->head = a->next;
        abuf_free(f, a);
    }
    while (f->unsynced) {
        struct wchunk *wc = f->unsynced;
        f->unsynced = wc->next_unsynced;
        wchunk_unref(c, wc);
    }
    wchunk_unref(c, f->wcur);
    f->wcur = NULL;
    layout_drop(f);
    idmap_clear(&f->locs);
    idmap_clear(&f->abufs);
    extmap_free(&f->base);
    extmap_free(&f->over);
    pthread_cond_destroy(&f->cv);
    pthread_mutex_destroy(&f->mu);
    free(f);
}

void cfile_unref(struct cfile *f)
{
    unsigned before = atomic_fetch_sub(&f->refs, 1);
    assert(before);
    if (before == 1)
        cfile_destroy(f);
}

struct cfile *cfile_new(struct client *c, uint64_t ino)
{
    struct cfile *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->c = c;
    f->ino = ino;
    atomic_init(&f->refs, 1);
    pthread_mutex_init(&f->mu, NULL);
    cond_init_mono(&f->cv);
    extmap_init(&f->base);
    extmap_init(&f->over);
    f->next_abuf = 1;
    replfs__attr__init(&f->attr);
    return f;
}

uint64_t cfile_size(const struct cfile *f)
{
    return f->dirty_end > f->attr.size ? f->dirty_end : f->attr.size;
}

void cfile_set_attr(struct cfile *f, const Replfs__Attr *a)
{
    if (f->attr.ino && a->change < f->attr.change)
        return; /* an answer from before our last commit */
    if (f->attr.ino && a->change != f->attr.change) {
        layout_drop(f);
        f->base_synced = false; /* who wrote that may not have synced it */
    }
    if (a->change != f->attr.change)
        f->seam = a->size; /* or may have */
    attr_copy(&f->attr, a);
}

void cfile_attr(struct cfile *f, Replfs__Attr *out)
{
    pthread_mutex_lock(&f->mu);
    attr_copy(out, &f->attr);
    out->size = cfile_size(f);
    pthread_mutex_unlock(&f->mu);
    queue_overlay(f->c, out);
}

void cfile_changed_since(struct cfile *f, uint64_t begun)
{
    if (lease_cache_held_since(f->c->leases, begun, f->ino))
        return;
    layout_drop(f);
    f->base_synced = false;
}

/* ---- the table ---- */

struct cfile *cfile_get(struct client *c, uint64_t ino)
{
    pthread_mutex_lock(&c->files.mu);
    struct cfile *f = idmap_get(&c->files.map, ino);
    if (f)
        cfile_ref(f);
    pthread_mutex_unlock(&c->files.mu);
    return f;
}

/* The file's entry with one more open; made when there is none. */
static struct cfile *table_open(struct client *c, uint64_t ino)
{
    pthread_mutex_lock(&c->files.mu);
    struct cfile *f = idmap_get(&c->files.map, ino);
    if (!f) {
        f = cfile_new(c, ino);
        if (f)
            idmap_put(&c->files.map, ino, f);
    }
    if (f)
        f->opens++;
    pthread_mutex_unlock(&c->files.mu);
    return f;
}

/* What metad knows of, or nobody has open. files.mu held. */
static void mark_told(struct cfile *f)
{
    f->c->files.untold -= f->untold;
    f->untold = false;
}

/* One open less; true when it was the last: the caller has the table's reference now. */
static bool table_close(struct cfile *f)
{
    struct client *c = f->c;
    pthread_mutex_lock(&c->files.mu);
    assert(f->opens);
    bool last = --f->opens == 0;
    if (last) {
        idmap_del(&c->files.map, f->ino);
        /* Before anybody can open it anew: the open then finds the pending close and cancels it. */
        if (!f->untold)
            session_close_ino(c, f->ino);
        mark_told(f);
    }
    pthread_mutex_unlock(&c->files.mu);
    return last;
}

uint64_t *cfile_open_inos(struct client *c, size_t *n)
{
    size_t pos = 0;
    pthread_mutex_lock(&c->files.mu);
    *n = 0;
    uint64_t *out = malloc((c->files.map.n + c->files.dirs.n + 1) * sizeof(*out));
    for (struct cfile *f; out && (f = idmap_next(&c->files.map, &pos));) {
        out[(*n)++] = f->ino;
        mark_told(f);
    }
    pos = 0;
    for (struct open_dir *d; out && (d = idmap_next(&c->files.dirs, &pos));)
        if (d->told)
            out[(*n)++] = d->ino;
    pthread_mutex_unlock(&c->files.mu);
    return out;
}

/* A user has closed the file. mu held; the caller has another reference. */
static void closed(struct cfile *f, int rc)
{
    if (!table_close(f))
        return; /* an error not told yet is for those who still have it open */
    int err = cfile_take_err(f);
    if (err || rc)
        log_error("inode %llu: writing failed and nobody asked: %s", (unsigned long long)f->ino,
                  err_str(err ? err : rc));
    cfile_unref(f);
}

/* ---- open directories ---- */

static void tell_open(struct client *c, uint64_t ino, bool write);

void client_dir_opened(struct client *c, uint64_t ino)
{
    LOCK_SCOPE(&c->files.mu);
    struct open_dir *d = idmap_get(&c->files.dirs, ino);
    if (!d) {
        d = calloc(1, sizeof(*d));
        if (!d)
            abort();
        d->ino = ino;
        idmap_put(&c->files.dirs, ino, d);
    }
    d->opens++;
}

void client_dir_closed(struct client *c, uint64_t ino)
{
    LOCK_SCOPE(&c->files.mu);
    struct open_dir *d = idmap_get(&c->files.dirs, ino);
    if (!d || --d->opens)
        return;
    idmap_del(&c->files.dirs, ino);
    if (d->told)
        session_close_ino(c, ino);
    free(d);
}

bool cfile_dir_open(struct client *c, uint64_t ino)
{
    LOCK_SCOPE(&c->files.mu);
    return idmap_get(&c->files.dirs, ino) != NULL;
}

/* files.mu held. */
static void tell_dir(struct client *c, struct open_dir *d)
{
    if (d && !d->told)
        tell_open(c, d->ino, false);
    if (d)
        d->told = true;
}

void cfile_tell_dirs(struct client *c)
{
    size_t pos = 0;
    LOCK_SCOPE(&c->files.mu);
    for (struct open_dir *d; (d = idmap_next(&c->files.dirs, &pos));)
        tell_dir(c, d);
}

/* ---- the dirty list ---- */

void cfile_mark_dirty(struct cfile *f)
{
    struct client *c = f->c;
    if (f->dirty_listed) /* only changed with f->mu held */
        return;
    pthread_mutex_lock(&c->files.mu);
    f->dirty_listed = true;
    f->dirty_prev = NULL;
    f->dirty_next = c->files.dirty;
    if (f->dirty_next)
        f->dirty_next->dirty_prev = f;
    c->files.dirty = f;
    cfile_ref(f);
    pthread_mutex_unlock(&c->files.mu);
}

void cfile_mark_clean(struct cfile *f)
{
    struct client *c = f->c;
    if (!f->dirty_listed)
        return;
    pthread_mutex_lock(&c->files.mu);
    f->dirty_listed = false;
    *(f->dirty_prev ? &f->dirty_prev->dirty_next : &c->files.dirty) = f->dirty_next;
    if (f->dirty_next)
        f->dirty_next->dirty_prev = f->dirty_prev;
    pthread_mutex_unlock(&c->files.mu);
    unsigned before = atomic_fetch_sub(&f->refs, 1);
    assert(before > 1); /* the caller has one as well */
    for (; f->linger; f->linger--)
        closed(f, 0);
}

size_t cfile_dirty_all(struct client *c, struct cfile ***out)
{
    size_t n = 0, cap = 0;
    pthread_mutex_lock(&c->files.mu);
    for (struct cfile *f = c->files.dirty; f; f = f->dirty_next)
        cap++;
    *out = malloc((cap + 1) * sizeof(**out));
    for (struct cfile *f = c->files.dirty; *out && f; f = f->dirty_next) {
        cfile_ref(f);
        (*out)[n++] = f;
    }
    pthread_mutex_unlock(&c->files.mu);
    return n;
}

void cfile_forget_maps(struct client *c)
{
    size_t pos = 0, n = 0;
    pthread_mutex_lock(&c->files.mu);
    struct cfile **list = malloc((c->files.map.n + 1) * sizeof(*list));
    if (!list)
        abort();
    for (struct cfile *f; (f = idmap_next(&c->files.map, &pos));) {
        cfile_ref(f);
        list[n++] = f;
    }
    pthread_mutex_unlock(&c->files.mu);
    for (size_t i = 0; i < n; i++) {
        pthread_mutex_lock(&list[i]->mu);
        layout_drop(list[i]);
        cfile_fail(list[i], -EIO);
        pthread_mutex_unlock(&list[i]->mu);
        cfile_unref(list[i]);
    }
    free(list);
}

/* ---- opens that metad has not been told of ---- */

struct cfile_telling {
    struct cfile_telling *next; /* of those refused */
    struct client *c;
    uint64_t ino;
};

/* metad that has just started takes no opens yet: it is told again (cfile_tell_old). What a lost connection
 * took along is told as the session resumes. Locks may be held. */
static void tell_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)rep;
    (void)payload;
    struct cfile_telling *t = arg;
    if (code != -ERR_BUSY) {
        free(t);
        return;
    }
    t->next = atomic_load(&t->c->files.refused);
    while (!atomic_compare_exchange_weak(&t->c->files.refused, &t->next, t))
        ;
}

/* Those that were refused are untold. */
static void take_refused(struct client *c)
{
    struct cfile_telling *t = atomic_exchange(&c->files.refused, NULL), *next;
    for (; t; t = next) {
        next = t->next;
        pthread_mutex_lock(&c->files.mu);
        struct cfile *f = idmap_get(&c->files.map, t->ino);
        if (f && !f->untold) {
            f->untold = true;
            f->opened_at = clock_mono();
            c->files.untold++;
        }
        pthread_mutex_unlock(&c->files.mu);
        free(t);
    }
}

static void tell_open(struct client *c, uint64_t ino, bool write)
{
    Replfs__OpenReq m = REPLFS__OPEN_REQ__INIT;
    struct cfile_telling *t = malloc(sizeof(*t));
    if (!t)
        abort();
    *t = (struct cfile_telling){.c = c, .ino = ino};
    m.ino = ino;
    m.write = write;
    RPC_ENVELOPE(env, OPEN_REQ, open_req, &m);
    session_tell_then(c, &env, tell_done, t);
}

/* files.mu held, so that no close overtakes it. */
static void tell(struct client *c, struct cfile *f)
{
    mark_told(f);
    tell_open(c, f->ino, false);
}

void cfile_tell_open(struct client *c, uint64_t ino)
{
    LOCK_SCOPE(&c->files.mu);
    struct cfile *f = idmap_get(&c->files.map, ino);
    if (f && f->untold)
        tell(c, f);
    tell_dir(c, idmap_get(&c->files.dirs, ino));
}

void cfile_tell_opens(struct client *c, int64_t before)
{
    size_t pos = 0;
    if (!atomic_load(&c->files.untold))
        return;
    LOCK_SCOPE(&c->files.mu);
    for (struct cfile *f; (f = idmap_next(&c->files.map, &pos));)
        if (f->untold && f->opened_at < before)
            tell(c, f);
}

void cfile_tell_old(struct client *c)
{
    int64_t now = clock_mono();
    if (now - c->files.told_at < UNTOLD_NS / 2)
        return;
    c->files.told_at = now;
    take_refused(c);
    cfile_tell_opens(c, now - UNTOLD_NS);
}

void cfile_removing(struct client *c, bool begin)
{
    if (!begin) {
        atomic_fetch_sub(&c->files.removing, 1);
        return;
    }
    atomic_fetch_add(&c->files.removing, 1);
    cfile_tell_opens(c, INT64_MAX);
}

static void told(struct cfile *f)
{
    LOCK_SCOPE(&f->c->files.mu);
    mark_told(f);
}

/* Without metad, under a lease. The mark is made before anything is looked at: whoever takes the lease
 * back or removes a name looks for the mark after that. known: metad has it open for us. */
static bool open_here(struct cfile *f, bool known, Replfs__Attr *attr)
{
    struct client *c = f->c;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    pthread_mutex_lock(&c->files.mu);
    bool only = !known && f->opens == 1 && !f->untold;
    if (only) {
        f->untold = true;
        f->opened_at = clock_mono();
        c->files.untold++;
    }
    pthread_mutex_unlock(&c->files.mu);
    prefetch_wait(c, f->ino);
    pthread_mutex_lock(&f->mu);
    bool here = !atomic_load(&c->files.removing) && lease_cache_getattr(c->leases, f->ino, &a) &&
                S_ISREG(a.mode) && a.nlink;
    if (here) {
        atime_overlay(c, &a);
        cfile_set_attr(f, &a);
        prefetch_open(f);
    }
    pthread_mutex_unlock(&f->mu);
    if (here && attr)
        cfile_attr(f, attr);
    if (!here && only)
        told(f); /* as it is about to be */
    return here;
}

/* ---- open and close ---- */

int cfile_open(struct client *c, uint64_t ino, bool write, Replfs__Attr *attr, struct cfile **out)
{
    struct cfile *f = table_open(c, ino);
    if (!f)
        return -ENOMEM;
    bool known = session_keep_ino(c, ino);
    if (!write && open_here(f, known, attr)) {
        *out = f;
        return 0;
    }
    pthread_mutex_lock(&f->mu);
    uint64_t gen = f->map_gen;
    pthread_mutex_unlock(&f->mu);
    Replfs__OpenReq m = REPLFS__OPEN_REQ__INIT;
    m.ino = ino;
    m.write = write;
    m.exclusive = write && !c->cfg.sync_all;
    RPC_ENVELOPE(env, OPEN_REQ, open_req, &m);
    struct rpc_result res;
    uint64_t begun = lease_cache_begin(c->leases);
    int rc = session_ask(c, &env, client_deadline(c), &res);
    const Replfs__OpenReply *r = NULL;
    if (!rc &&
        (res.rep->body_case != REPLFS__ENVELOPE__BODY_OPEN_REPLY || !res.rep->open_reply->attr))
        rc = -ERR_PROTOCOL;
    if (!rc) {
        r = res.rep->open_reply;
        pthread_mutex_lock(&f->mu);
        bool raced = gen != f->map_gen; /* with a commit or truncate of ours */
        atime_overlay(c, r->attr);
        cfile_set_attr(f, r->attr);
        if (r->layout) { /* fresh: what others did since the last look is in it */
            layout_drop(f);
            if (!raced)
                layout_take(f, r->layout, f->map_gen);
        }
        if (attr) {
            attr_copy(attr, &f->attr);
            attr->size = cfile_size(f);
        }
        pthread_mutex_unlock(&f->mu);
        if (r->lease)
            lease_cache_put_attr(c->leases, begun, r->attr, r->lease);
        if (attr)
            queue_overlay(c, attr);
        told(f);
        *out = f;
    }
    rpc_result_free(&res);
    if (rc && table_close(f))
        cfile_unref(f);
    return rc;
}

/* metad counts a file as open by the session that created it; client_mutate queued a close for
 * those that are only created. Unless that was sent already, taking it back is all there is to
 * do. */
int cfile_open_new(struct client *c, const Replfs__Attr *attr, struct cfile **out)
{
    struct cfile *f = table_open(c, attr->ino);
    if (!f)
        return -ENOMEM;
    pthread_mutex_lock(&f->mu);
    if (!f->attr.ino) {
        attr_copy(&f->attr, attr);
        if (!attr->size) { /* nothing there, nothing to ask for */
            f->base_to = UINT64_MAX;
            f->base_synced = true;
        }
    }
    pthread_mutex_unlock(&f->mu);
    if (!session_keep_ino(c, attr->ino))
        tell_open(c, attr->ino, true);
    *out = f;
    return 0;
}

void cfile_close(struct cfile *f)
{
    int rc = flush_file(f, FLUSH_ACCEPTED, false);
    cfile_ref(f);
    pthread_mutex_lock(&f->mu);
    if (f->head)
        f->linger++;
    else
        closed(f, rc);
    pthread_mutex_unlock(&f->mu);
    cfile_unref(f);
}

/* At the end of client_close, when no other thread is left. */
void cfile_free_all(struct client *c)
{
    size_t pos = 0;
    while (c->files.dirty) {
        struct cfile *f = c->files.dirty;
        pthread_mutex_lock(&f->mu);
        cfile_ref(f);
        send_give_up(f, -EIO, "the client closes");
        cfile_mark_clean(f);
        pthread_mutex_unlock(&f->mu);
        cfile_unref(f);
    }
    for (struct cfile *f; (f = idmap_next(&c->files.map, &pos));)
        cfile_unref(f);
    idmap_clear(&c->files.map);
    take_refused(c);
    for (struct open_dir *d; (pos = 0, d = idmap_next(&c->files.dirs, &pos));)
        free(idmap_del(&c->files.dirs, d->ino));
    idmap_clear(&c->files.dirs);
}
