/* Append buffers on their way to the chunkds.
 *
 * send_pump() sends queued buffers in order: at most INFLIGHT_MAX per file, to the file's
 * current chunk until that is full or failed, then to a fresh grant. It never waits: without a
 * grant the file goes to the grants' waiting list, after repeated failures it pauses until
 * retry_at, and the flusher, every completion and each waiter for the file pump again. One
 * thread at a time sends (JOB_SEND), so that appends of a chunk leave in order; mu is dropped
 * over rpc_call because its completion may run at once.
 *
 * Two ways to the copies. A large append goes along the chain: each byte leaves this machine once.
 * A small one goes to every copy at once: its bytes are few, and what counts is that it arrives soon.
 * The way of a chunk changes only while none of its appends is under way, so that each copy gets
 * them in order.
 *
 * A failed append ends its chunk: what all copies acknowledged stays there and will be
 * committed; everything else sent to it is queued again, in its old place of the order, for a
 * grant without the chunkds to blame. Answers to former sendings are told by `gen` and ignored.
 * When nothing goes forward for the mount's time-out, everything not acknowledged is given up:
 * the error is kept for the next write, flush or fsync, and the log names the chunkds that were missing.
 *
 * Context: any thread; completions on loop threads. */
#include "client/writeback/send.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "base/lock.h"
#include "base/u64map.h"
#include "client/base/limits.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/file/chunk_loc.h"
#include "client/file/committed_map.h"
#include "client/file/dirty.h"
#include "client/file/file_check.h"
#include "client/file/file_table.h"
#include "client/file/overlay.h"
#include "client/file/wchunk.h"
#include "client/internal.h"
#include "client/io/chunkds.h"
#include "client/io/grants.h"
#include "client/queue/queue.h"
#include "client/session/session.h"
#include "client/writeback/events.h"

#define LOG_MODULE "send"
#define INFLIGHT_MAX 8u          /* appends on their way, per file */
#define APPEND_TIMEOUT_MS 10000u /* one append through the whole chain */
#define APPEND_SLOW_MS 3000      /* then see whether the chain is alive */
#define DIRECT_MAX 65536u        /* an append of up to so many bytes goes to every copy at once */

/* One append under way: along the chain one part, directly one for each copy. */
struct sending {
    struct cfile *f;
    uint64_t abuf, gen;
    unsigned left; /* parts; f->mu */
    int64_t started;
    struct part {
        struct sending *s;
        uint32_t chunkd; /* that was asked */
        uint32_t copies; /* that it is to answer for */
    } parts[COPIES_MAX];
};

/* ---- failures ---- */

static bool blameless(int code)
{
    return code == -ERR_CAP_EXPIRED || code == -ERR_CAP || code == -ERR_OFFSET ||
           code == -ERR_NO_CHUNK || code == -ERR_SESSION || code == -ERR_CRC || code == -ERR_BUSY;
}

static bool disk_at_fault(int code)
{
    return code == -ENOSPC || code == -EIO || code == -EROFS || code == -EDQUOT;
}

/* What the chunkd that failed says of it, wherever in the chain it is. */
static int cause_of(int code, const Replfs__Envelope *rep)
{
    if (code != -ERR_CHAIN || !rep || rep->body_case != REPLFS__ENVELOPE__BODY_FAILURE ||
        rep->failure->cause == 0 || rep->failure->cause > INT_MAX)
        return code;
    return -(int)rep->failure->cause;
}

/* Marks chunkds that should not get the next chunk; *who gets one of them for the log, 0: nobody. */
static void blame(struct cfile *f, const struct wchunk *wc, const struct part *asked, int code,
                  const Replfs__Envelope *rep, uint32_t *who)
{
    struct client *c = f->c;
    const Replfs__Failure *fail =
        rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE ? rep->failure : NULL;
    *who = 0;
    if (blameless(code) && f->fails < 3)
        return;
    if (fail) {
        *who = fail->chunkd ? fail->chunkd : asked->chunkd;
        chunkds_fail(c, *who, disk_at_fault(code));
        return;
    }
    *who = asked->chunkd;
    if (code != -ERR_TIMEOUT || asked->copies == 1) {
        chunkds_fail(c, *who, false);
        return;
    }
    for (uint32_t i = 0; i < wc->loc.n; i++) /* one of them: probes will tell which */
        chunkds_fail(c, wc->loc.chunkds[i], false);
}

static void requeue(struct cfile *f, struct abuf *a)
{
    a->state = ABUF_QUEUED;
    a->gen++;
    wchunk_unref(f->c, a->wc);
    a->wc = NULL;
    f->inflight--;
}

static void leave_chunk(struct cfile *f)
{
    wchunk_unref(f->c, f->wcur);
    f->wcur = NULL;
}

static void chunk_failed(struct cfile *f, struct wchunk *wc, const struct part *asked, int code,
                         const Replfs__Envelope *rep)
{
    char name[256] = "nobody to blame";
    uint32_t who;
    code = cause_of(code, rep);
    blame(f, wc, asked, code, rep, &who);
    if (who)
        chunkds_name(f->c, who, name, sizeof(name));
    const char *detail =
        rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE && rep->failure->detail
            ? rep->failure->detail
            : "";
    log_warn("inode %llu: append to chunk %llx failed: %s: %s%s%s; going on in another chunk from "
             "byte %u",
             (unsigned long long)f->ino, (unsigned long long)wc->loc.chunk, name, err_str(code),
             *detail ? ": " : "", detail, wc->acked);
    wc->failed = true;
    atomic_fetch_add(&f->c->sealed_early, 1);
    f->last_fail = code;
    unsigned k = f->fails++;
    f->retry_at = k ? clock_mono() + (k < 6 ? 20ll << k : 1000) * NSEC_PER_MSEC : 0;
    wc->refs++; /* while we let go of its users */
    for (struct abuf *a = f->head; a; a = a->next) {
        if (a->wc == wc && a->state == ABUF_SENT)
            requeue(f, a);
    }
    if (f->wcur == wc)
        leave_chunk(f);
    wchunk_unref(f->c, wc);
    file_check(f);
}

void send_give_up(struct cfile *f, int code, const char *why)
{
    uint64_t bytes = 0;
    struct abuf **link = &f->head, *last = NULL;
    while (*link) {
        struct abuf *a = *link;
        if (a->state == ABUF_ACKED || a->state == ABUF_COMMITTING) {
            last = a;
            link = &a->next;
            continue;
        }
        *link = a->next;
        bytes += a->len;
        if (a->state == ABUF_SENT)
            f->inflight--;
        if (!a->append)
            overlay_drop(&f->over, a);
        abuf_answer(a, code, 0);
        abuf_free(f, a);
    }
    f->tail = last;
    if (f->wcur) {
        f->wcur->failed = true;
        leave_chunk(f);
    }
    f->fails = 0;
    f->retry_at = 0;
    if (bytes) {
        char missing[256];
        grants_missing(f->c, missing, sizeof(missing));
        log_error("inode %llu: %llu bytes could not be written: %s: %s%s%s",
                  (unsigned long long)f->ino, (unsigned long long)bytes, why, err_str(code),
                  missing[0] ? "; " : "", missing);
        cfile_fail(f, code);
    }
    if (!f->head) {
        f->dirty_end = 0;
        f->kill_suid = false;
        queue_release(f->c, f->ino);
        cfile_mark_clean(f);
    }
    file_check(f);
    cond_broadcast(&f->cv);
}

void send_check_stall(struct cfile *f)
{
    bool waiting = false;
    for (struct abuf *a = f->head; a && !waiting; a = a->next)
        waiting = a->state == ABUF_QUEUED || a->state == ABUF_SENT;
    if (!waiting || clock_mono() - f->progress < f->c->cfg.timeout_ms * NSEC_PER_MSEC)
        return;
    send_give_up(f, f->last_fail == -ENOSPC ? -ENOSPC : -EIO,
                 "not enough chunkds took them before the time-out");
}

/* An append takes long: its chain is probed, and left when one of it does not answer. */
void send_check_slow(struct cfile *f)
{
    struct abuf *a = f->head;
    while (a && a->state != ABUF_SENT)
        a = a->next;
    if (!a || clock_mono() - a->sent_at < APPEND_SLOW_MS * NSEC_PER_MSEC)
        return;
    struct cloc l = a->wc->loc;
    for (uint32_t i = 0; i < l.n; i++) {
        struct part at_fault = {.chunkd = l.chunkds[i], .copies = 1};
        if (!chunkds_silent(f->c, l.chunkds[i]))
            continue;
        chunk_failed(f, a->wc, &at_fault, -ERR_TIMEOUT, NULL);
        return;
    }
    lock_release(&f->mu);
    for (uint32_t i = 0; i < l.n; i++)
        chunkds_probe(f->c, l.chunkds[i]);
    lock_acquire(&f->mu);
}

/* ---- answers ---- */

/* By those that were to: the one asked, and along the chain all others. */
static bool stored_by_all(const struct wchunk *wc, const struct part *asked,
                          const Replfs__Envelope *rep)
{
    if (rep->body_case != REPLFS__ENVELOPE__BODY_APPEND_REPLY)
        return false;
    const Replfs__AppendReply *r = rep->append_reply;
    for (uint32_t i = 0; i < wc->loc.n; i++) {
        bool found = asked->copies == 1 && wc->loc.chunkds[i] != asked->chunkd;
        for (size_t k = 0; k < r->n_stored && !found; k++)
            found = r->stored[k] == wc->loc.chunkds[i];
        if (!found)
            return false;
    }
    return true;
}

/* Under which registration with metad each chunkd took the chunk up to the end of a. */
static void note_registrations(const struct abuf *a, const Replfs__AppendReply *r)
{
    struct wchunk *wc = a->wc;
    uint32_t end = a->chunk_off + a->len;
    for (size_t k = 0; k < r->n_stored && k < r->n_registrations; k++) {
        for (uint32_t i = 0; i < wc->loc.n; i++) {
            if (wc->loc.chunkds[i] != r->stored[k] || end < wc->took[i].end)
                continue;
            wc->took[i].end = end;
            wc->took[i].registration = r->registrations[k];
        }
    }
}

static void acked(struct cfile *f, struct abuf *a)
{
    struct wchunk *wc = a->wc;
    uint32_t end = a->chunk_off + a->len;
    f->inflight--;
    wc->inflight--;
    a->state = ABUF_ACKED;
    a->acked_at = f->progress = clock_mono();
    f->fails = 0;
    f->retry_at = 0;
    f->last_fail = 0;
    f->uncommitted += a->len;
    if (end > wc->acked)
        wc->acked = end;
    if (a->sync && end > wc->safe)
        wc->safe = end;
    if (a->sync && end > wc->synced &&
        chunkds_enough(f->c, wc->loc.chunkds, wc->loc.n, session_min_copies(f->c, wc->goal)))
        wc->synced = end;
    if (!wc->unsynced_listed) {
        wc->unsynced_listed = true;
        wc->refs++;
        wc->next_unsynced = f->unsynced;
        f->unsynced = wc;
    }
    map_add_loc(f, &wc->loc);
    abuf_drop_buf(f, a);
    file_check(f);
    if (f->uncommitted > UNCOMMITTED_MAX)
        dirty_kick(f->c);
    f->c->writeback->may_commit(f);
}

static void append_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)payload;
    struct part *p = arg;
    struct sending *s = p->s;
    struct cfile *f = s->f;
    chunkds_end(f->c, p->chunkd, s->started, !code);
    atomic_fetch_sub(&f->c->appends, 1);
    lock_acquire(&f->mu);
    bool last = --s->left == 0;
    struct abuf *a = u64map_get_ptr(&f->abufs, s->abuf);
    if (a && a->gen == s->gen && a->state == ABUF_SENT) {
        if (!code && !stored_by_all(a->wc, p, rep))
            code = -ERR_PROTOCOL;
        if (!code)
            note_registrations(a, rep->append_reply);
        if (code)
            chunk_failed(f, a->wc, p, code, rep);
        else if (last)
            acked(f, a);
        if (code || last)
            cond_broadcast(&f->cv);
    }
    if (code || last)
        send_pump(f);
    bool closing = last && f->closing;
    lock_release(&f->mu);
    if (!last)
        return;
    if (closing)
        f->c->writeback->acknowledged(f);
    cfile_unref(f);
    free(s);
}

/* ---- sending ---- */

/* What an append says, whichever way it goes. */
struct message {
    Replfs__AppendReq m;
    Replfs__ChainHop hops[COPIES_MAX], *chain[COPIES_MAX];
    char addrs[COPIES_MAX][128];
    uint8_t cap[sizeof(((struct cloc *)0)->cap)];
    uint32_t chunkds[COPIES_MAX];
};

static void message_fill(struct message *w, struct cfile *f, const struct abuf *a)
{
    const struct wchunk *wc = a->wc;
    replfs__append_req__init(&w->m);
    w->m.chunk = wc->loc.chunk;
    w->m.chunk_off = a->chunk_off;
    w->m.len = a->len;
    memcpy(w->cap, wc->loc.cap, sizeof(w->cap));
    w->m.cap = (ProtobufCBinaryData){wc->loc.cap_len, w->cap};
    w->m.session = wc->session;
    w->m.ino = f->ino;
    w->m.file_off = a->pieces[0].file_off;
    w->m.sync = a->sync;
    memcpy(w->chunkds, wc->loc.chunkds, sizeof(w->chunkds));
    if (wc->direct)
        return;
    for (uint32_t i = 1; i < wc->loc.n; i++) {
        Replfs__ChainHop *h = &w->hops[i - 1];
        replfs__chain_hop__init(h);
        h->chunkd = wc->loc.chunkds[i];
        if (!chunkds_addr(f->c, h->chunkd, w->addrs[i]))
            w->addrs[i][0] = 0; /* the first hop will name it as failed */
        h->addr = w->addrs[i];
        w->chain[i - 1] = h;
    }
    w->m.n_chain = wc->loc.n - 1;
    w->m.chain = w->chain;
}

/* mu held, dropped meanwhile. conns: as many as there are parts. */
static void send_one(struct cfile *f, struct abuf *a, struct rpc_conn *const *conns, unsigned n)
{
    struct client *c = f->c;
    struct sending *s = malloc(sizeof(*s));
    uint8_t *crcs = malloc(4 * crc_blocks(a->len));
    struct message w;
    if (!s || !crcs)
        abort();
    *s = (struct sending){.f = f, .abuf = a->id, .gen = a->gen, .left = n, .started = clock_mono()};
    message_fill(&w, f, a);
    for (unsigned i = 0; i < n; i++)
        s->parts[i] = (struct part){s, w.chunkds[i], n > 1 ? 1 : a->wc->loc.n};
    w.m.crcs = (ProtobufCBinaryData){4 * crc_blocks(a->len), crcs};
    struct buf *b = buf_ref(a->buf);
    cfile_ref(f);
    lock_release(&f->mu);
    crc_blocks_make(b->data, b->len, crcs);
    RPC_ENVELOPE(env, APPEND_REQ, append_req, &w.m);
    unsigned ms = c->cfg.timeout_ms < APPEND_TIMEOUT_MS ? c->cfg.timeout_ms : APPEND_TIMEOUT_MS;
    for (unsigned i = 0; i < n; i++) { /* s lives until the last is done */
        chunkds_begin(c, w.chunkds[i]);
        atomic_fetch_add(&c->appends, 1);
        rpc_call(conns[i], &env, i + 1 < n ? buf_ref(b) : b, ms, append_done, &s->parts[i]);
    }
    free(crcs);
    lock_acquire(&f->mu);
}

/* How long the chunk may get. One that is longer than its file has bytes that were overwritten since, and metad can give them
 * back only once it is left: a small file that is overwritten for ever would take as much as a whole chunk more. */
static uint32_t chunk_limit(const struct cfile *f)
{
    uint64_t size = f->attr.size > f->dirty_end ? f->attr.size : f->dirty_end;
    size = size > OVERWRITTEN_MIN ? size : OVERWRITTEN_MIN;
    return size < CHUNK_MAX ? (uint32_t)size : CHUNK_MAX;
}

/* The chunk for an append of len bytes, or NULL: wait. */
static struct wchunk *chunk_for(struct cfile *f, uint32_t len)
{
    struct wchunk *wc = f->wcur;
    if (wc && (wc->failed || wc->len + len > chunk_limit(f) || wc->session != session_id(f->c) ||
               wc->expiry < clock_boot() + 15 * NSEC_PER_SEC))
        leave_chunk(f);
    if (!f->wcur) {
        f->wcur = grants_take(f->c, f, f->attr.goal);
        if (f->wcur)
            f->wcur->refs = 1;
    }
    return f->wcur;
}

/* False: it has to wait until what went the other way has arrived. */
static bool choose_way(struct wchunk *wc, uint32_t len)
{
    bool direct = len <= DIRECT_MAX && wc->loc.n > 1;
    if (direct != wc->direct && wc->inflight)
        return false;
    wc->direct = direct;
    return true;
}

/* To those that will be asked; 0 when one cannot be reached, *who then. */
static unsigned connect_all(struct cfile *f, const struct wchunk *wc, struct rpc_conn **conns,
                            struct part *who)
{
    unsigned n = wc->direct ? wc->loc.n : 1;
    for (unsigned i = 0; i < n; i++) {
        conns[i] = chunkds_conn(f->c, wc->loc.chunkds[i]);
        if (conns[i])
            continue;
        *who = (struct part){.chunkd = wc->loc.chunkds[i], .copies = 1};
        while (i)
            rpc_conn_unref(conns[--i]);
        return 0;
    }
    return n;
}

void send_pump(struct cfile *f)
{
    if (f->jobs & JOB_SEND)
        return;
    f->jobs |= JOB_SEND;
    struct abuf *a;
    while (f->inflight < INFLIGHT_MAX && clock_mono() >= f->retry_at) {
        for (a = f->head; a && a->state != ABUF_QUEUED; a = a->next)
            ;
        struct wchunk *wc = a ? chunk_for(f, a->len) : NULL;
        if (!wc || !choose_way(wc, a->len))
            break;
        struct rpc_conn *conns[COPIES_MAX];
        struct part at_fault;
        unsigned n = connect_all(f, wc, conns, &at_fault);
        if (!n) {
            chunk_failed(f, wc, &at_fault, -ERR_PEER_GONE, NULL);
            continue;
        }
        a->wc = wc;
        wc->refs++;
        wc->inflight++;
        a->chunk_off = wc->len;
        wc->len += a->len;
        a->state = ABUF_SENT;
        a->sent_at = clock_mono();
        a->gen++;
        f->inflight++;
        file_check(f);
        send_one(f, a, conns, n);
        while (n)
            rpc_conn_unref(conns[--n]);
    }
    f->jobs &= ~JOB_SEND;
    file_check(f);
}
