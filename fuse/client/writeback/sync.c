/* Chunks to stable storage.
 *
 * A file lists the chunks that have acknowledged bytes not known to be on stable storage
 * (unsynced). sync_begin() sends one SyncReq to each chunkd concerned, in parallel; the answers
 * are counted per chunk, and the last one applies the result: all copies synced, or copies on at least
 * min_copies hosts (then the others are reported to metad, which verifies and repairs them, and the
 * chunk gets no more appends). A copy that is only late, on a chunkd that is up, is waited for: asked again.
 * With too few, the chunk is marked short_sync: rewrite_short() reads its live bytes back from whatever
 * copy still answers and writes them to a new chunk. Metad puts those only where the file still
 * shows the old chunk, since other clients may write meanwhile. Nothing is written again where metad does
 * not know enough copies yet (it has just started), or where no better place could be had just now.
 *
 * What one copy has on stable storage is safe to displace other bytes with (write_order.c): that is noted as
 * soon as min_copies hosts have answered, and in any case with the last answer.
 *
 * A syncop is referenced by its waiter (or nobody) and each outstanding request. Completions run
 * on loop threads and take the file's mu. Failure modes: a chunkd that does not answer counts as
 * not synced after SYNC_TIMEOUT_MS. */
#include "client/writeback/sync.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/extmap.h"
#include "base/log.h"
#include "base/lock.h"
#include "base/u64map.h"
#include "client/base/limits.h"
#include "client/file/cfile.h"
#include "client/file/chunk_loc.h"
#include "client/file/wchunk.h"
#include "client/internal.h"
#include "client/io/chunkds.h"
#include "client/io/layout.h"
#include "client/session/ask.h"
#include "client/session/session.h"
#include "client/writeback/events.h"
#include "client/writeback/write_order.h"

#define LOG_MODULE "sync"
#define SYNC_TIMEOUT_MS 10000u
#define COMMITTED_BATCH 64u /* chunks asked about at once */

struct sync_entry {
    struct wchunk *wc;
    uint32_t len;
    uint32_t ok[COPIES_MAX]; /* these have synced, */
    unsigned nok;
    bool late; /* and one that is up has not answered in time */
};

struct sync_target {
    struct syncop *op;
    uint32_t chunkd;
    int code;
    int64_t started;
};

struct syncop { /* protected by f->mu */
    struct cfile *f;
    unsigned refs, pending;
    bool done, background, order;
    int code;
    char missing[SYNC_MISSING]; /* chunkds that did not sync */
    size_t nentries, ntargets;
    struct sync_entry *entries;
    struct sync_target *targets;
};

static bool has_copy(const struct wchunk *wc, uint32_t chunkd)
{
    for (uint32_t i = 0; i < wc->loc.n; i++) {
        if (wc->loc.chunkds[i] == chunkd)
            return true;
    }
    return false;
}

static void op_unref(struct syncop *op)
{
    if (--op->refs)
        return;
    free(op->entries);
    free(op->targets);
    free(op);
}

void sync_forget(struct syncop *op)
{
    if (op)
        op_unref(op);
}

/* ---- results (mu held) ---- */

static void report_bad(struct client *c, uint64_t chunk, uint32_t chunkd, int code)
{
    Replfs__ReportBadReq m = REPLFS__REPORT_BAD_REQ__INIT;
    m.chunk = chunk;
    m.chunkd = chunkd;
    m.code = (uint32_t)-code;
    RPC_ENVELOPE(env, REPORT_BAD_REQ, report_bad_req, &m);
    session_tell(c, &env);
}

static unsigned least_of(const struct cfile *f, const struct wchunk *wc)
{
    return session_min_copies(f->c, wc->goal);
}

static bool entry_enough(const struct syncop *op, const struct sync_entry *e)
{
    return chunkds_enough(op->f->c, e->ok, e->nok, least_of(op->f, e->wc));
}

static void entry_safe(const struct sync_entry *e)
{
    if (e->wc->safe < e->len)
        e->wc->safe = e->len;
}

static void apply_entry(struct syncop *op, struct sync_entry *e)
{
    struct wchunk *wc = e->wc;
    bool enough = entry_enough(op, e);
    if (e->nok < wc->loc.n)
        wc->failed = true;
    if (e->nok)
        entry_safe(e);
    if (enough && !e->late && e->len > wc->synced)
        wc->synced = e->len;
    if (!enough || e->late)
        op->code = -ERR_FEW_COPIES;
    wc->short_sync = !enough;
}

/* Commits that waited for the disks may go on, or it has to be tried again. */
static void order_over(struct cfile *f, bool failed)
{
    f->jobs &= ~JOB_ORDER;
    f->order_at = failed ? clock_mono() + ORDER_RETRY_MS * NSEC_PER_MSEC : 0;
    f->c->writeback->may_commit(f);
}

static void op_finish(struct syncop *op)
{
    struct cfile *f = op->f;
    bool unsafe = false;
    for (size_t i = 0; i < op->nentries; i++) {
        struct sync_entry *e = &op->entries[i];
        apply_entry(op, e);
        unsafe |= e->wc->safe < e->len;
        wchunk_unref(f->c, e->wc);
    }
    if (op->background)
        f->jobs &= ~JOB_SYNC;
    op->done = true;
    sync_drop_done(f);
    cond_broadcast(&f->cv);
    if (op->order)
        order_over(f, unsafe);
}

/* One more has answered: what waits for the disks may be able to go on. */
static void op_look(struct syncop *op)
{
    bool all = op->order;
    for (size_t i = 0; i < op->nentries && all; i++) {
        const struct sync_entry *e = &op->entries[i];
        if (entry_enough(op, e))
            entry_safe(e);
        all = e->wc->safe >= e->len;
    }
    if (!all)
        return;
    op->order = false;
    cond_broadcast(&op->f->cv);
    order_over(op->f, false);
}

/* Those that failed are told to metad, with no lock held. */
static void report_targets(struct client *c, struct sync_target *t, const struct syncop *op)
{
    char name[256];
    if (!t->code)
        return;
    chunkds_name(c, t->chunkd, name, sizeof(name));
    log_warn("%s could not sync: %s", name, err_str(t->code));
    chunkds_fail(c, t->chunkd, t->code == -EIO || t->code == -ENOSPC);
    if (t->code != -ERR_SHORT && t->code != -ERR_NO_CHUNK && t->code != -EIO && t->code != -ERR_CRC)
        return; /* not reachable: metad sees that by itself, and its next report tells the rest */
    for (size_t i = 0; i < op->nentries; i++) {
        if (has_copy(op->entries[i].wc, t->chunkd))
            report_bad(c, op->entries[i].wc->loc.chunk, t->chunkd, t->code);
    }
}

static void note_target(struct syncop *op, const struct sync_target *t)
{
    bool late = t->code == -ERR_TIMEOUT && chunkds_up(op->f->c, t->chunkd);
    for (size_t i = 0; i < op->nentries; i++) {
        struct sync_entry *e = &op->entries[i];
        if (!has_copy(e->wc, t->chunkd))
            continue;
        if (!t->code)
            e->ok[e->nok++] = t->chunkd;
        e->late |= late;
    }
    size_t at = strlen(op->missing);
    if (!t->code || at + 3 >= SYNC_MISSING)
        return;
    if (at)
        at += (size_t)snprintf(op->missing + at, SYNC_MISSING - at, ", ");
    chunkds_name(op->f->c, t->chunkd, op->missing + at, SYNC_MISSING - at);
}

static void sync_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)rep;
    (void)payload;
    struct sync_target *t = arg;
    struct syncop *op = t->op;
    struct cfile *f = op->f;
    chunkds_end(f->c, t->chunkd, t->started, !code);
    t->code = code;
    if (code && code != -ERR_SHUTDOWN)
        report_targets(f->c, t, op); /* entries' chunks are referenced until op_finish */
    lock_acquire(&f->mu);
    note_target(op, t);
    if (--op->pending == 0)
        op_finish(op);
    else
        op_look(op);
    op_unref(op);
    lock_release(&f->mu);
    cfile_unref(f);
}

/* ---- asking ---- */

static void ask_one(struct client *c, struct sync_target *t, struct rpc_conn *conn)
{
    struct syncop *op = t->op;
    Replfs__SyncReq m = REPLFS__SYNC_REQ__INIT;
    Replfs__SyncChunk *chunks = calloc(op->nentries, sizeof(*chunks));
    Replfs__SyncChunk **list = calloc(op->nentries, sizeof(*list));
    if (!chunks || !list)
        abort();
    for (size_t i = 0; i < op->nentries; i++) {
        struct wchunk *wc = op->entries[i].wc;
        if (!has_copy(wc, t->chunkd))
            continue;
        Replfs__SyncChunk *s = &chunks[m.n_chunks];
        replfs__sync_chunk__init(s);
        s->chunk = wc->loc.chunk;
        s->len = op->entries[i].len;
        s->cap = (ProtobufCBinaryData){wc->loc.cap_len, wc->loc.cap};
        m.session = wc->session;
        list[m.n_chunks++] = s;
    }
    m.chunks = list;
    RPC_ENVELOPE(env, SYNC_REQ, sync_req, &m);
    t->started = clock_mono();
    chunkds_begin(c, t->chunkd);
    unsigned ms = c->cfg.timeout_ms < SYNC_TIMEOUT_MS ? c->cfg.timeout_ms : SYNC_TIMEOUT_MS;
    rpc_call(conn, &env, NULL, ms, sync_done, t);
    free(chunks);
    free(list);
}

static bool wanted(const struct cfile *f, const struct wchunk *wc, bool sealed_only)
{
    if (wc->acked <= wc->synced)
        return false;
    return !sealed_only || (wc != f->wcur && wc->refs == 1);
}

static struct syncop *op_new(struct cfile *f, bool sealed_only)
{
    size_t n = 0;
    for (struct wchunk *wc = f->unsynced; wc; wc = wc->next_unsynced)
        n += wanted(f, wc, sealed_only);
    if (!n)
        return NULL;
    struct syncop *op = calloc(1, sizeof(*op));
    if (!op || !(op->entries = calloc(n, sizeof(*op->entries))) ||
        !(op->targets = calloc(n * COPIES_MAX, sizeof(*op->targets))))
        abort();
    op->f = f;
    for (struct wchunk *wc = f->unsynced; wc; wc = wc->next_unsynced) {
        if (!wanted(f, wc, sealed_only))
            continue;
        wc->refs++;
        op->entries[op->nentries++] = (struct sync_entry){.wc = wc, .len = wc->acked};
        for (uint32_t i = 0; i < wc->loc.n; i++) {
            size_t k = 0;
            while (k < op->ntargets && op->targets[k].chunkd != wc->loc.chunkds[i])
                k++;
            if (k == op->ntargets)
                op->targets[op->ntargets++] = (struct sync_target){op, wc->loc.chunkds[i], 0, 0};
        }
    }
    return op;
}

struct syncop *sync_begin(struct cfile *f, bool sealed_only)
{
    struct syncop *op = op_new(f, sealed_only);
    if (!op)
        return NULL;
    op->background = sealed_only;
    op->order = !sealed_only && !(f->jobs & JOB_ORDER);
    f->jobs |= op->background ? JOB_SYNC : 0;
    f->jobs |= op->order ? JOB_ORDER : 0;
    size_t n = op->ntargets;
    op->pending = (unsigned)n;
    op->refs = (unsigned)n + 1;
    if (!n) { /* of chunks that nobody is known to have */
        op_finish(op);
        return op;
    }
    atomic_fetch_add(&f->refs, (unsigned)n);
    lock_release(&f->mu);
    for (size_t i = 0; i < n; i++) {
        struct sync_target *t = &op->targets[i];
        struct rpc_conn *conn = chunkds_conn(f->c, t->chunkd);
        if (conn) {
            ask_one(f->c, t, conn);
        } else {
            t->started = clock_mono();
            chunkds_begin(f->c, t->chunkd);
            sync_done(t, -ERR_PEER_GONE, NULL, NULL);
        }
        rpc_conn_unref(conn);
    }
    lock_acquire(&f->mu);
    return op;
}

int sync_wait(struct cfile *f, struct syncop *op, char missing[SYNC_MISSING])
{
    if (missing)
        missing[0] = '\0';
    if (!op)
        return 0;
    while (!op->done)
        cond_wait_until(&f->cv, &f->mu, clock_mono() + NSEC_PER_SEC);
    int rc = op->code;
    if (missing)
        memcpy(missing, op->missing, SYNC_MISSING);
    op_unref(op);
    return rc;
}

void sync_drop_done(struct cfile *f)
{
    struct wchunk **link = &f->unsynced;
    while (*link) {
        struct wchunk *wc = *link;
        if (wc->acked > wc->synced) {
            link = &wc->next_unsynced;
            continue;
        }
        *link = wc->next_unsynced;
        wc->unsynced_listed = false;
        wchunk_unref(f->c, wc);
    }
}

/* ---- what was committed before ---- */

static bool listed(const struct cfile *f, uint64_t chunk)
{
    for (const struct wchunk *wc = f->unsynced; wc; wc = wc->next_unsynced) {
        if (wc->loc.chunk == chunk)
            return true;
    }
    return false;
}

/* Lists the chunk of a committed extent, also when nobody is known to have it. loc.len is what metad said was
 * committed of it: 0 for chunks of our own that were never asked about, and those are listed when
 * they need it. */
static bool borrow(struct cfile *f, const struct ext *e, const struct cloc *l)
{
    if ((l && !l->len) || listed(f, e->chunk))
        return false;
    struct wchunk *wc = calloc(1, sizeof(*wc));
    if (!wc)
        abort();
    *wc = (struct wchunk){.session = session_id(f->c),
                          .goal = f->attr.goal,
                          .refs = 1,
                          .failed = true,
                          .unsynced_listed = true,
                          .borrowed = true,
                          .next_unsynced = f->unsynced};
    if (l)
        wc->loc = *l;
    wc->loc.chunk = e->chunk;
    wc->len = wc->acked = l ? l->len : e->chunk_off + e->len;
    f->unsynced = wc;
    return true;
}

int sync_committed(struct cfile *f, int64_t deadline)
{
    struct u64map seen = {0};
    uint64_t off = 0;
    int rc = 0;
    if (f->base_synced)
        return 0;
    f->base_synced = true; /* a foreign change meanwhile takes it back */
    for (bool more = true; more && !rc;) {
        struct ext e;
        rc = layout_need(f, UINT64_MAX, deadline); /* anew: it may be dropped while we wait */
        for (unsigned k = 0; !rc && k < COMMITTED_BATCH; off = e.file_off + e.len) {
            more = extmap_find(&f->base, off, &e);
            if (!more)
                break;
            if (!e.chunk || u64map_get_ptr(&seen, e.chunk))
                continue;
            u64map_put_ptr(&seen, e.chunk, &seen);
            k += borrow(f, &e, u64map_get_ptr(&f->locs, e.chunk));
        }
        if (!rc && more) {
            sync_wait(f, sync_begin(f, false), NULL); /* what fails is tried again by the caller */
            sync_drop_done(f);
        }
    }
    u64map_free(&seen);
    if (rc)
        f->base_synced = false;
    return rc;
}
