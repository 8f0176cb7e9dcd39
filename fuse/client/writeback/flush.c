/* Commit, flush, fsync, and the background flusher.
 *
 * A commit takes the acknowledged buffers at the head of the file's list, in the order of
 * writing, and tells metad their extents; then they leave the list and the overlay, and the
 * committed map has them. One commit per file at a time (f->committing). Bytes first, map
 * second: nothing unacknowledged is ever committed.
 *
 * flush = seal, send, wait for all copies, commit. fsync = the same with the last append asking
 * the chain to sync, plus a SyncReq where other bytes are unsynced, while the commit is under
 * way (metad's log is always synced). What too few copies could sync is written again, until the
 * mount's time-out.
 *
 * The flusher thread walks the dirty files a few times per flush_ms: seals what is old, commits
 * what is acknowledged, syncs chunks that get no more appends (so that they can be forgotten),
 * pumps after pauses, gives up what stalls.
 *
 * Of a close, only the acknowledgements are waited for, and not by a thread (cfile_flush_async), when
 * the commit may be queued.
 *
 * Errors of the background stay in f->err until a write, flush or fsync takes them: once. */
#include "client/internal.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/thread.h"

#define LOG_MODULE "flush"
#define COMMIT_BUFS_MAX 1024u

int cfile_take_err(struct cfile *f)
{
    int e = f->err;
    f->err = 0;
    return e;
}

/* Counted, so that everybody who has the file open can be told: f->err only tells the first. */
void cfile_fail(struct cfile *f, int code)
{
    if (!f->err)
        f->err = code;
    f->last_err = code;
    f->nerrs++;
    atomic_fetch_add(&f->c->fails, 1);
}

int cfile_error_since(struct cfile *f, unsigned *seen)
{
    pthread_mutex_lock(&f->mu);
    int rc = *seen != f->nerrs ? f->last_err : 0;
    *seen = f->nerrs;
    pthread_mutex_unlock(&f->mu);
    return rc;
}

/* ---- commit ---- */

static bool commit_some(struct cfile *f, bool deferred);

struct batch {
    struct abuf **bufs;
    uint64_t *chunks;
    size_t n;
    struct ext *exts;
    size_t nexts;
    uint64_t session;
    uint64_t begun; /* of lease_cache_begin */
    bool append;    /* its places count from the end of the file */
    unsigned life;  /* of the oldest buffer */
    uint64_t over;  /* moved bytes: see CommitOp */
    int64_t over_shift;
};

static void batch_free(struct batch *b)
{
    free(b->bufs);
    free(b->chunks);
    free(b->exts);
}

static uint64_t batch_bytes(const struct batch *b)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < b->nexts; i++)
        sum += b->exts[i].len;
    return sum;
}

static bool same_kind(const struct abuf *a, const struct abuf *b)
{
    return a->append == b->append && a->over == b->over && a->over_shift == b->over_shift;
}

/* Takes the acknowledged buffers at the head, written under one session, all at their places, all
 * at the end of the file, or all moved by one way. 0 with b->n == 0: none. */
static int batch_take(struct cfile *f, struct batch *b)
{
    size_t n = 0, used = 0;
    *b = (struct batch){0};
    bool append = f->head && f->head->append;
    for (struct abuf *a = f->head; a && a->state == ABUF_ACKED && n < COMMIT_BUFS_MAX;
         a = a->next) {
        if (!same_kind(a, f->head) || order_needed(f, a))
            break;
        n++;
    }
    if (!n)
        return 0;
    b->bufs = calloc(n, sizeof(*b->bufs));
    b->chunks = calloc(n, sizeof(*b->chunks));
    if (!b->bufs || !b->chunks)
        return -ENOMEM;
    b->session = f->head->wc->session;
    b->life = f->head->life;
    b->append = append;
    b->over = f->head->over;
    b->over_shift = f->head->over_shift;
    size_t i = 0;
    for (struct abuf *a = f->head; i < n && a->wc->session == b->session; a = a->next, i++) {
        b->bufs[i] = a;
        b->chunks[i] = a->wc->loc.chunk;
    }
    if (append)
        append_place(b->bufs, i);
    b->exts = overlay_extents(b->bufs, i, b->chunks, COMMIT_EXTENTS_MAX, &b->nexts, &used);
    if (!b->exts)
        return -ENOMEM;
    b->n = used;
    for (i = 0; i < used; i++)
        b->bufs[i]->state = ABUF_COMMITTING;
    return 0;
}

struct commit_msg {
    Replfs__MetaOp op;
    Replfs__CommitOp commit;
    Replfs__Extent *exts, **ext_list;
    Replfs__ChunkCopies *copies, **copy_list;
    uint32_t (*chunkds)[COPIES_MAX];
    uint64_t (*registrations)[COPIES_MAX];
};

static void msg_free(struct commit_msg *m)
{
    free(m->exts);
    free(m->ext_list);
    free(m->copies);
    free(m->copy_list);
    free(m->chunkds);
    free(m->registrations);
}

static void msg_add_copies(struct commit_msg *m, struct wchunk *wc)
{
    size_t k = m->commit.n_copies;
    for (size_t i = 0; i < k; i++) {
        if (m->copies[i].chunk == wc->loc.chunk)
            return;
    }
    Replfs__ChunkCopies *c = &m->copies[k];
    replfs__chunk_copies__init(c);
    c->chunk = wc->loc.chunk;
    c->len = wc->acked;
    memcpy(m->chunkds[k], wc->loc.chunkds, sizeof(wc->loc.chunkds));
    c->n_chunkds = wc->loc.n;
    c->chunkds = m->chunkds[k];
    for (uint32_t i = 0; i < wc->loc.n; i++)
        m->registrations[k][i] = wc->took[i].registration;
    c->n_registrations = wc->loc.n;
    c->registrations = m->registrations[k];
    c->cap = (ProtobufCBinaryData){wc->loc.cap_len, wc->loc.cap};
    m->copy_list[k] = c;
    m->commit.n_copies++;
}

static int msg_build(struct cfile *f, const struct batch *b, struct commit_msg *m)
{
    memset(m, 0, sizeof(*m));
    replfs__meta_op__init(&m->op);
    replfs__commit_op__init(&m->commit);
    m->op.op_case = REPLFS__META_OP__OP_COMMIT;
    m->op.commit = &m->commit;
    m->exts = calloc(b->nexts, sizeof(*m->exts));
    m->ext_list = calloc(b->nexts, sizeof(*m->ext_list));
    m->copies = calloc(b->n, sizeof(*m->copies));
    m->copy_list = calloc(b->n, sizeof(*m->copy_list));
    m->chunkds = calloc(b->n, sizeof(*m->chunkds));
    m->registrations = calloc(b->n, sizeof(*m->registrations));
    if (!m->exts || !m->ext_list || !m->copies || !m->copy_list || !m->chunkds || !m->registrations)
        return -ENOMEM;
    m->commit.ino = f->ino;
    if (!b->over) {
        m->commit.mtime_ns = f->dirty_mtime;
        m->commit.written_then = true;
        m->commit.kill_suid = f->kill_suid;
    }
    m->commit.append = b->append;
    m->commit.over = b->over;
    m->commit.over_shift = b->over_shift;
    for (size_t i = 0; i < b->nexts; i++) {
        Replfs__Extent *x = &m->exts[i];
        replfs__extent__init(x);
        x->file_off = b->exts[i].file_off;
        x->len = b->exts[i].len;
        x->chunk = b->exts[i].chunk;
        x->chunk_off = b->exts[i].chunk_off;
        m->ext_list[i] = x;
    }
    m->commit.extents = m->ext_list;
    m->commit.n_extents = b->nexts;
    for (size_t i = 0; i < b->n; i++)
        msg_add_copies(m, b->bufs[i]->wc);
    m->commit.copies = m->copy_list;
    return 0;
}

static int lost_code(int rc)
{
    return rc == -ERR_SESSION || rc == -ERR_TIMEOUT || rc == -ESTALE ? -EIO : rc;
}

/* The extents of b are in the committed map now. When the file has another size than they explain,
 * somebody else changed it: then nothing of what we know of it counts. */
static void batch_into_map(struct cfile *f, struct batch *b, const Replfs__Attr *attr)
{
    uint64_t size = f->attr.size;
    cfile_changed_since(f, b->begun);
    if (b->over) { /* where others wrote since, they won: ask */
        layout_drop(f);
    }
    for (size_t i = 0; !b->over && i < b->nexts; i++) {
        extmap_insert(&f->base, &b->exts[i], NULL, NULL, NULL);
        if (size < b->exts[i].file_off + b->exts[i].len)
            size = b->exts[i].file_off + b->exts[i].len;
    }
    if (!attr->ino)
        return;
    if (attr->size != size) {
        layout_drop(f);
        f->base_synced = false;
    }
    attr_copy(&f->attr, attr);
}

/* The buffers of b leave the list: committed (rc 0) or lost. base: what their places count from. */
static void batch_finish(struct cfile *f, struct batch *b, int rc, const Replfs__Attr *attr,
                         uint64_t base)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < b->nexts; i++)
        b->exts[i].file_off += base;
    if (!rc)
        batch_into_map(f, b, attr);
    for (size_t i = 0; i < b->n; i++) {
        struct abuf *a = b->bufs[i];
        assert(f->head == a && a->state == ABUF_COMMITTING);
        if (!a->append)
            overlay_drop(&f->over, a);
        append_answer(a, lost_code(rc), base + a->pieces[0].file_off);
        bytes += a->len;
        f->head = a->next;
        abuf_free(f, a);
    }
    f->uncommitted -= bytes;
    f->map_gen++;
    if (rc) {
        if (rc != -EDQUOT) /* quota_refused said more */
            log_error("inode %llu: %llu bytes are with the chunkds but metad did not take them: %s",
                      (unsigned long long)f->ino, (unsigned long long)bytes, err_str(rc));
        if (rc == -EDQUOT) { /* as told now; the next write asks anew */
            f->attr.flags |= REPLFS__ATTR_FLAG__ATTR_QUOTA;
            f->attr.quota_left = 0;
        }
        cfile_fail(f, lost_code(rc));
    }
    if (!f->head) {
        f->tail = NULL;
        f->dirty_end = 0;
        f->dirty_mtime = 0;
        f->kill_suid = f->eager = false;
        queue_release(f->c, f->ino);
        cfile_mark_clean(f);
    }
}

struct commit_job {
    struct queue_op o;
    struct cfile *f;
    struct batch b;
    struct commit_msg m;
    struct lease_request asker;
};

static void commit_over(struct commit_job *j, int rc, const Replfs__Attr *attr, uint64_t base)
{
    struct cfile *f = j->f;
    lease_cache_ask_end(f->c->leases, &j->asker);
    msg_free(&j->m);
    if (rc == -EDQUOT)
        quota_refused(f->c, f->ino, batch_bytes(&j->b));
    pthread_mutex_lock(&f->mu);
    f->committing = false;
    batch_finish(f, &j->b, rc, attr, j->b.append ? base : 0);
    batch_free(&j->b);
    free(j);
    pthread_cond_broadcast(&f->cv);
}

static void committed(struct mutation *m, int code, const Replfs__MutationResult *r)
{
    struct commit_job *j = (struct commit_job *)m;
    struct cfile *f = j->f;
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    if (r && r->attr)
        attr_copy(&attr, r->attr);
    commit_over(j, code, &attr, 0);
    flush_eager(f);
    pthread_mutex_unlock(&f->mu);
    cfile_unref(f);
}

/* Whoever waited for it does so no more, but its bytes are part of the file as soon as metad is back. */
static void commit_late(struct mutation *m)
{
    struct commit_job *j = (struct commit_job *)m;
    queue_put(j->f->c, &j->o);
}

/* By this thread. mu held, dropped meanwhile. */
static void commit_now(struct commit_job *j)
{
    struct cfile *f = j->f;
    struct client *c = f->c;
    struct mutation *m = &j->o.m;
    cfile_ref(f);
    pthread_mutex_unlock(&f->mu);
    if (queue_wait(c, f->ino))
        commit_late(m);
    else
        session_mutate_list(c, &m, 1, client_deadline(c));
    pthread_mutex_lock(&f->mu);
}

/* One commit of what is acknowledged. mu held, dropped while metad works; deferred: it is queued
 * instead (queue.c), and f->committing until it is done. False when there is nothing to commit, or not before
 * it is on a disk: that is seen to. */
static bool commit_some(struct cfile *f, bool deferred)
{
    struct client *c = f->c;
    if (f->head && f->head->state == ABUF_ACKED && order_needed(f, f->head)) {
        order_begin(f);
        return false;
    }
    struct commit_job *j = calloc(1, sizeof(*j));
    if (!j || batch_take(f, &j->b)) /* without memory for a message nothing goes on */
        abort();
    if (!j->b.n) {
        batch_free(&j->b);
        free(j);
        return false;
    }
    if (msg_build(f, &j->b, &j->m))
        abort();
    j->f = f;
    j->b.begun = lease_cache_begin(c->leases);
    lease_cache_ask_begin(c->leases, &j->asker, f->ino);
    f->committing = true;
    j->o = (struct queue_op){.m = {.op = &j->m.op,
                                   .need = j->b.session,
                                   .done = committed,
                                   .late = commit_late,
                                   .life = j->b.life},
                             .ino = f->ino};
    if (deferred && !quota_applies(f) && !j->b.append) {
        bool all = j->b.bufs[j->b.n - 1] == f->tail;
        cfile_ref(f);
        queue_put(c, &j->o);
        if (all)
            queue_release(c, f->ino);
        return true;
    }
    if (!quota_applies(f) && !j->b.append) {
        commit_now(j);
        return true;
    }
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    uint64_t base = 0;
    pthread_mutex_unlock(&f->mu);
    int rc = quota_mutate(c, &j->m.op, j->b.session, client_deadline(c), &attr, NULL, &base);
    commit_over(j, rc, &attr, base);
    return true;
}

/* A closed file: nobody else would hurry. */
void flush_eager(struct cfile *f)
{
    const struct abuf *a = f->head;
    if (f->eager && !f->committing && a && a->state == ABUF_ACKED && !a->append &&
        !quota_applies(f))
        commit_some(f, true);
}

/* ---- flush and fsync ---- */

static bool any_below(const struct cfile *f, uint64_t target, bool unacked_only)
{
    for (const struct abuf *a = f->head; a && a->id < target; a = a->next) {
        if (!unacked_only || a->state <= ABUF_SENT)
            return true;
    }
    return false;
}

static void seal_and_send(struct cfile *f, bool sync)
{
    abuf_seal(f);
    if (sync && f->tail && f->tail->state == ABUF_QUEUED)
        f->tail->sync = true;
    send_pump(f);
}

/* Until everything below target was acknowledged by all copies, or given up. */
static void wait_acked(struct cfile *f, uint64_t target)
{
    while (any_below(f, target, true)) {
        int64_t until = clock_mono() + 100 * NSEC_PER_MSEC;
        if (f->retry_at && f->retry_at < until && f->retry_at > clock_mono())
            until = f->retry_at;
        cond_wait_until(&f->cv, &f->mu, until);
        send_check_stall(f);
        send_pump(f);
    }
}

int flush_below(struct cfile *f, uint64_t target, int64_t deadline)
{
    while (any_below(f, target, false)) {
        if (clock_mono() >= deadline)
            return -ERR_TIMEOUT;
        bool some = f->committing || commit_some(f, queue_queued(f->c, f->ino));
        int64_t until = order_next(f);
        if (some) {
            queue_hurry(f->c, f->ino);
            if (f->committing)
                cond_wait_until(&f->cv, &f->mu, until < deadline ? until : deadline);
        } else if (f->head && f->head->state == ABUF_ACKED && order_needed(f, f->head)) {
            cond_wait_until(&f->cv, &f->mu, until < deadline ? until : deadline);
        } else {
            wait_acked(f, target);
        }
    }
    return 0;
}

static int sync_failed(struct cfile *f, const char *missing)
{
    char down[SYNC_MISSING], granted[SYNC_MISSING];
    nodes_down(f->c, down, sizeof(down));
    grants_missing(f->c, granted, sizeof(granted));
    const char *who = *missing ? missing : *down ? down : granted;
    log_error("inode %llu: fsync: not on stable storage of %u hosts within %u ms; %s%s",
              (unsigned long long)f->ino, session_min_copies(f->c, f->attr.goal),
              f->c->cfg.timeout_ms, *who ? "missing: " : "metad knows of too few copies", who);
    return -EIO;
}

static int flush_synced(struct cfile *f, int64_t deadline)
{
    int known = sync_committed(f, deadline);
    if (known)
        return known;
    for (;;) {
        char missing[SYNC_MISSING];
        uint64_t target = f->next_abuf;
        seal_and_send(f, true);
        wait_acked(f, target);
        struct syncop *op = sync_begin(f, false);
        int late = flush_below(f, target, deadline);
        int rc = sync_wait(f, op, missing);
        sync_drop_done(f);
        if (!rc && !late)
            f->seam = f->attr.size;
        if (!rc || late)
            return late;
        rc = sync_rewrite(f, deadline);
        if (clock_mono() >= deadline)
            return sync_failed(f, missing);
        if (rc) /* neither possible just now: try again */
            cond_wait_until(&f->cv, &f->mu, clock_mono() + 200 * NSEC_PER_MSEC);
    }
}

/* Nobody else can see the file: what happens to bytes below target may be seen to a little later.
 * From the moment that they have been accepted by all copies, the flusher needs no hurrying. */
static bool commit_deferred(struct cfile *f, uint64_t target)
{
    if (f->c->cfg.sync_all || quota_applies(f) || !lease_cache_exclusive(f->c->leases, f->ino))
        return false;
    for (const struct abuf *a = f->head; a && a->id < target; a = a->next)
        if (a->append)
            return false;
    f->eager = f->head != NULL;
    flush_eager(f);
    return lease_cache_exclusive(f->c->leases,
                                 f->ino); /* still: a recall from now on waits for it */
}

int flush_file(struct cfile *f, enum flush_how how, bool report)
{
    int rc = 0;
    pthread_mutex_lock(&f->mu);
    if (how == FLUSH_SYNC) {
        rc = flush_synced(f, client_deadline(f->c));
    } else if (f->head) {
        uint64_t target = f->next_abuf;
        seal_and_send(f, false);
        bool deferred =
            how == FLUSH_ACCEPTED && f->c->cfg.async_close && commit_deferred(f, target);
        if (!deferred)
            wait_acked(f, target);
        if (!deferred && (how == FLUSH_COMMIT || !commit_deferred(f, target)))
            rc = flush_below(f, target, client_deadline(f->c));
    }
    if (how == FLUSH_SYNC) { /* its mode and times, too */
        pthread_mutex_unlock(&f->mu);
        queue_release(f->c, f->ino);
        int late = queue_wait(f->c, f->ino);
        rc = rc ? rc : late;
        pthread_mutex_lock(&f->mu);
    }
    if (report) {
        int e = cfile_take_err(f);
        rc = e ? e : rc;
    }
    pthread_mutex_unlock(&f->mu);
    return rc;
}

/* ---- closes that nobody waits for ---- */

struct closing {
    struct async_reply async; /* first: closing_hold */
    struct closing *next;     /* of f's; f->mu */
    struct cfile *f;          /* referenced */
    uint64_t target;          /* below it, all copies have to acknowledge */
    cfile_flush_fn *done;
    void *arg;
};

/* One of f that need not wait any more leaves f's list. f->mu held. */
static struct closing *closing_take(struct cfile *f)
{
    struct closing **at = &f->closing;
    while (*at && any_below(f, (*at)->target, true))
        at = &(*at)->next;
    struct closing *k = *at;
    if (k)
        *at = k->next;
    return k;
}

static void closing_over(struct closing *k, int rc)
{
    struct client *c = k->f->c;
    async_reply_leave(c, &k->async);
    k->done(k->arg, rc);
    cfile_unref(k->f);
    free(k);
    async_reply_left(c);
}

static void *close_waiting(void *arg)
{
    struct closing *k = arg;
    closing_over(k, cfile_flush(k->f));
    return NULL;
}

void closes_go_on(struct cfile *f)
{
    for (;;) {
        pthread_mutex_lock(&f->mu);
        struct closing *k = closing_take(f);
        bool deferred = k && commit_deferred(f, k->target);
        int rc = deferred ? cfile_take_err(f) : 0;
        pthread_mutex_unlock(&f->mu);
        if (!k)
            return;
        if (deferred || !async_reply_thread(close_waiting, k))
            closing_over(k, deferred ? rc : -EIO);
    }
}

static void *closing_hold(struct async_reply *l)
{
    struct cfile *f = ((struct closing *)l)->f;
    cfile_ref(f);
    return f;
}

/* The flusher may be waiting for metad. */
static void closing_look(void *arg)
{
    struct cfile *f = arg;
    pthread_mutex_lock(&f->mu);
    send_check_stall(f);
    send_pump(f);
    pthread_mutex_unlock(&f->mu);
    closes_go_on(f);
    cfile_unref(f);
}

static const struct async_reply_kind closing_kind = {closing_hold, closing_look};

/* Sends all there is, and lists the close, if all that it has to wait for is acknowledgements. */
static bool close_async(struct cfile *f, cfile_flush_fn *done, void *arg)
{
    struct client *c = f->c;
    LOCK_SCOPE(&f->mu);
    if (!f->head || c->cfg.sync_all || c->cfg.async_close || quota_applies(f) ||
        !lease_cache_exclusive(c->leases, f->ino))
        return false;
    uint64_t target = f->next_abuf;
    seal_and_send(f, false);
    if (!any_below(f, target, true))
        return false;
    struct closing *k = malloc(sizeof(*k));
    if (!k)
        abort();
    *k = (struct closing){.next = f->closing, .f = f, .target = target, .done = done, .arg = arg};
    cfile_ref(f);
    async_reply_begin(c, &k->async, &closing_kind);
    f->closing = k;
    return true;
}

void cfile_flush_async(struct cfile *f, cfile_flush_fn *done, void *arg)
{
    if (!close_async(f, done, arg))
        done(arg, cfile_flush(f));
}

int cfile_flush(struct cfile *f)
{
    return flush_file(f, FLUSH_ACCEPTED, true);
}

int cfile_fsync(struct cfile *f)
{
    return flush_file(f, FLUSH_SYNC, true);
}

int client_flush_ino(struct client *c, uint64_t ino)
{
    struct cfile *f = cfile_get(c, ino);
    if (!f)
        return 0;
    int rc = flush_file(f, FLUSH_COMMIT, false); /* its error belongs to whoever writes the file */
    cfile_unref(f);
    return rc;
}

void flush_closed(struct client *c)
{
    struct cfile **list;
    if (!c->cfg.async_close)
        return;
    size_t n = cfile_dirty_all(c, &list);
    for (size_t i = 0; i < n; i++) {
        pthread_mutex_lock(&list[i]->mu);
        bool eager = list[i]->eager;
        pthread_mutex_unlock(&list[i]->mu);
        if (eager)
            flush_file(list[i], FLUSH_COMMIT, false);
        cfile_unref(list[i]);
    }
    free(list);
}

bool flush_waits(struct client *c, int rc)
{
    struct client_stat st;
    client_stat(c, &st);
    return !rc || (rc != -ERR_TIMEOUT && st.connected);
}

int client_sync(struct client *c)
{
    struct cfile **list;
    unsigned lost = client_lost(c), fails = atomic_load(&c->fails);
    size_t n = cfile_dirty_all(c, &list);
    int rc = 0;
    for (size_t i = 0; i < n; i++) { /* all on their way before the first is waited for */
        pthread_mutex_lock(&list[i]->mu);
        seal_and_send(list[i], true);
        pthread_mutex_unlock(&list[i]->mu);
    }
    for (size_t i = 0; i < n; i++) {
        int e = flush_waits(c, rc) ? flush_file(list[i], FLUSH_SYNC, false) : rc;
        e = !e && atomic_load(&c->fails) != fails ? -EIO : e; /* told to whoever has it open, too */
        rc = rc ? rc : e;
        cfile_unref(list[i]);
    }
    free(list);
    int late = flush_waits(c, rc) ? queue_wait(c, 0) : rc;
    rc = rc ? rc : late;
    client_flush_atime(c, 0);
    if (!rc && client_lost(c) != lost)
        rc = -EIO;
    return rc;
}

/* ---- the flusher ---- */

void flush_kick(struct client *c)
{
    pthread_mutex_lock(&c->files.mu);
    c->files.flush_now = true;
    pthread_cond_signal(&c->files.flush_cv);
    pthread_mutex_unlock(&c->files.mu);
}

static void flush_tick(struct cfile *f, bool now_all)
{
    int64_t now = clock_mono(), old = f->c->cfg.flush_ms * NSEC_PER_MSEC / 2;
    pthread_mutex_lock(&f->mu);
    if (f->tail && f->tail->state == ABUF_FILLING && (now_all || now - f->tail->born >= old))
        abuf_seal(f);
    send_check_stall(f);
    send_check_slow(f);
    send_pump(f);
    if (!f->syncing) {
        struct syncop *op = sync_begin(f, true);
        sync_forget(op);
    }
    if (!f->committing && f->head && f->head->state == ABUF_ACKED &&
        (f->uncommitted > UNCOMMITTED_MAX || now - f->head->acked_at >= old / 2))
        commit_some(f, !f->c->cfg.sync_all);
    pthread_mutex_unlock(&f->mu);
}

static void *flush_thread(void *arg)
{
    struct client *c = arg;
    int64_t every = c->cfg.flush_ms * NSEC_PER_MSEC / 8;
    if (every < 20 * NSEC_PER_MSEC)
        every = 20 * NSEC_PER_MSEC;
    while (!c->stopping) {
        pthread_mutex_lock(&c->files.mu);
        if (!c->files.flush_now)
            cond_wait_until(&c->files.flush_cv, &c->files.mu, clock_mono() + every);
        bool now_all = c->files.flush_now;
        c->files.flush_now = false;
        pthread_mutex_unlock(&c->files.mu);
        struct cfile **list;
        size_t n = cfile_dirty_all(c, &list);
        for (size_t i = 0; i < n; i++) {
            flush_tick(list[i], now_all);
            cfile_unref(list[i]);
        }
        free(list);
        atime_tick(c);
        cfile_tell_old(c);
        if (now_all) { /* not a busy loop while writers wait for slow chunkds */
            pthread_mutex_lock(&c->files.mu);
            c->files.flush_now = false;
            cond_wait_until(&c->files.flush_cv, &c->files.mu, clock_mono() + 5 * NSEC_PER_MSEC);
            pthread_mutex_unlock(&c->files.mu);
        }
    }
    return NULL;
}

int flush_start(struct client *c)
{
    int rc = thread_start(&c->files.thread, "flush", flush_thread, c);
    c->files.started = !rc;
    return -rc;
}

void flush_stop(struct client *c)
{
    if (!c->files.started)
        return;
    flush_kick(c);
    pthread_join(c->files.thread, NULL);
}
