/* Append buffers on their way to the chunkds.
 *
 * send_pump() sends queued buffers in order: at most INFLIGHT_MAX per file, to the file's
 * current chunk until that is full or failed, then to a fresh grant. It never waits: without a
 * grant the file goes to the grants' waiting list, after repeated failures it pauses until
 * retry_at, and the flusher, every completion and whoever waits for the file pump again. One
 * thread at a time sends (f->sending), so that appends of a chunk leave in order; mu is dropped
 * over rpc_call because its completion may run at once.
 *
 * A failed append ends its chunk: what all copies acknowledged stays there and will be
 * committed; everything else sent to it is queued again, in its old place of the order, for a
 * grant without the chunkds to blame. Answers to former sendings are told by `gen` and ignored.
 * When nothing goes forward for the mount's time-out, everything not acknowledged is given up:
 * the error is kept for the next write, flush or fsync, and the log names who was missing.
 *
 * Context: any thread; completions on loop threads. */
#include "internal.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/crc32c.h"
#include "base/log.h"

#define LOG_MODULE "send"

struct sending {
    struct cfile *f;
    uint64_t abuf, gen;
    uint32_t first; /* chunkd that was asked */
    int64_t started;
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

/* Marks who should not get the next chunk; *who gets one of them for the log, 0: nobody. */
static void blame(struct cfile *f, const struct wchunk *wc, int code, const Replfs__Envelope *rep,
                  uint32_t *who)
{
    struct client *c = f->c;
    const Replfs__Failure *fail =
        rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE ? rep->failure : NULL;
    *who = 0;
    if (blameless(code) && f->fails < 3)
        return;
    if (fail) {
        *who = fail->chunkd ? fail->chunkd : wc->loc.chunkds[0];
        nodes_fail(c, *who, disk_at_fault(code));
        return;
    }
    *who = wc->loc.chunkds[0];
    if (code != -ERR_TIMEOUT) {
        nodes_fail(c, *who, false);
        return;
    }
    for (uint32_t i = 0; i < wc->loc.n; i++) /* one of them: probes will tell which */
        nodes_fail(c, wc->loc.chunkds[i], false);
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

/* who: the chunkd at fault when that is known already, else 0. */
static void chunk_failed(struct cfile *f, struct wchunk *wc, int code, uint32_t who,
                         const Replfs__Envelope *rep)
{
    char name[256] = "nobody to blame";
    if (!who)
        blame(f, wc, code, rep, &who);
    if (who)
        nodes_name(f->c, who, name, sizeof(name));
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
        append_answer(a, code, 0);
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
        f->kill_suid = f->eager = false;
        behind_release(f->c, f->ino);
        cfile_mark_clean(f);
    }
    pthread_cond_broadcast(&f->cv);
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
        if (!nodes_silent(f->c, l.chunkds[i]))
            continue;
        nodes_fail(f->c, l.chunkds[i], false);
        chunk_failed(f, a->wc, -ERR_TIMEOUT, l.chunkds[i], NULL);
        return;
    }
    pthread_mutex_unlock(&f->mu);
    for (uint32_t i = 0; i < l.n; i++)
        nodes_probe(f->c, l.chunkds[i]);
    pthread_mutex_lock(&f->mu);
}

/* ---- answers ---- */

static bool stored_everywhere(const struct wchunk *wc, const Replfs__Envelope *rep)
{
    if (rep->body_case != REPLFS__ENVELOPE__BODY_APPEND_REPLY)
        return false;
    const Replfs__AppendReply *r = rep->append_reply;
    for (uint32_t i = 0; i < wc->loc.n; i++) {
        bool found = false;
        for (size_t k = 0; k < r->n_stored && !found; k++)
            found = r->stored[k] == wc->loc.chunkds[i];
        if (!found)
            return false;
    }
    return true;
}

static void acked(struct cfile *f, struct abuf *a)
{
    struct wchunk *wc = a->wc;
    uint32_t end = a->chunk_off + a->len;
    f->inflight--;
    a->state = ABUF_ACKED;
    a->acked_at = f->progress = clock_mono();
    f->fails = 0;
    f->retry_at = 0;
    f->last_fail = 0;
    f->uncommitted += a->len;
    if (end > wc->acked)
        wc->acked = end;
    if (a->sync && end > wc->synced)
        wc->synced = end;
    if (!wc->unsynced_listed) {
        wc->unsynced_listed = true;
        wc->refs++;
        wc->next_unsynced = f->unsynced;
        f->unsynced = wc;
    }
    layout_add_loc(f, &wc->loc);
    abuf_drop_buf(f, a);
    if (f->uncommitted > UNCOMMITTED_MAX)
        flush_kick(f->c);
    flush_eager(f);
}

static void append_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)payload;
    struct sending *s = arg;
    struct cfile *f = s->f;
    nodes_end(f->c, s->first, s->started, !code);
    atomic_fetch_sub(&f->c->appends, 1);
    pthread_mutex_lock(&f->mu);
    struct abuf *a = idmap_get(&f->abufs, s->abuf);
    if (a && a->gen == s->gen && a->state == ABUF_SENT) {
        if (!code && !stored_everywhere(a->wc, rep))
            code = -ERR_PROTOCOL;
        if (!code)
            acked(f, a);
        else
            chunk_failed(f, a->wc, code, 0, rep);
        pthread_cond_broadcast(&f->cv);
    }
    send_pump(f);
    pthread_mutex_unlock(&f->mu);
    cfile_unref(f);
    free(s);
}

/* ---- sending ---- */

/* mu held, dropped meanwhile. */
static void send_one(struct cfile *f, struct abuf *a, struct rpc_conn *conn)
{
    struct client *c = f->c;
    struct wchunk *wc = a->wc;
    struct sending *s = malloc(sizeof(*s));
    uint8_t *crcs = malloc(4 * crc_blocks(a->len));
    char addrs[COPIES_MAX][128];
    Replfs__ChainHop hops[COPIES_MAX], *chain[COPIES_MAX];
    Replfs__AppendReq m = REPLFS__APPEND_REQ__INIT;
    uint8_t cap[sizeof(wc->loc.cap)];
    if (!s || !crcs)
        abort();
    *s = (struct sending){f, a->id, a->gen, wc->loc.chunkds[0], clock_mono()};
    m.chunk = wc->loc.chunk;
    m.chunk_off = a->chunk_off;
    m.len = a->len;
    memcpy(cap, wc->loc.cap, sizeof(cap));
    m.cap = (ProtobufCBinaryData){wc->loc.cap_len, cap};
    m.session = wc->session;
    m.ino = f->ino;
    m.file_off = a->pieces[0].file_off;
    m.crcs = (ProtobufCBinaryData){4 * crc_blocks(a->len), crcs};
    m.sync = a->sync;
    for (uint32_t i = 1; i < wc->loc.n; i++) {
        Replfs__ChainHop *h = &hops[i - 1];
        replfs__chain_hop__init(h);
        h->chunkd = wc->loc.chunkds[i];
        if (!nodes_addr(c, h->chunkd, addrs[i]))
            addrs[i][0] = 0; /* the first hop will name it as failed */
        h->addr = addrs[i];
        chain[i - 1] = h;
    }
    m.n_chain = wc->loc.n - 1;
    m.chain = chain;
    struct buf *b = buf_ref(a->buf);
    cfile_ref(f);
    pthread_mutex_unlock(&f->mu);
    crc_blocks_make(b->data, b->len, crcs);
    RPC_ENVELOPE(env, APPEND_REQ, append_req, &m);
    unsigned ms = c->cfg.timeout_ms < APPEND_TIMEOUT_MS ? c->cfg.timeout_ms : APPEND_TIMEOUT_MS;
    nodes_begin(c, s->first);
    atomic_fetch_add(&c->appends, 1);
    rpc_call(conn, &env, b, ms, append_done, s);
    free(crcs);
    pthread_mutex_lock(&f->mu);
}

/* The chunk for an append of len bytes, or NULL: wait. */
static struct wchunk *chunk_for(struct cfile *f, uint32_t len)
{
    struct wchunk *wc = f->wcur;
    if (wc && (wc->failed || wc->len + len > CHUNK_MAX || wc->session != session_id(f->c) ||
               wc->expiry < clock_wall() + 15 * NSEC_PER_SEC))
        leave_chunk(f);
    if (!f->wcur) {
        f->wcur = grants_take(f->c, f, f->attr.goal);
        if (f->wcur)
            f->wcur->refs = 1;
    }
    return f->wcur;
}

void send_pump(struct cfile *f)
{
    if (f->sending)
        return;
    f->sending = true;
    struct abuf *a;
    while (f->inflight < INFLIGHT_MAX && clock_mono() >= f->retry_at) {
        for (a = f->head; a && a->state != ABUF_QUEUED; a = a->next)
            ;
        struct wchunk *wc = a ? chunk_for(f, a->len) : NULL;
        if (!wc)
            break;
        struct rpc_conn *conn = nodes_conn(f->c, wc->loc.chunkds[0]);
        if (!conn) {
            chunk_failed(f, wc, -ERR_PEER_GONE, 0, NULL);
            continue;
        }
        a->wc = wc;
        wc->refs++;
        a->chunk_off = wc->len;
        wc->len += a->len;
        a->state = ABUF_SENT;
        a->sent_at = clock_mono();
        a->gen++;
        f->inflight++;
        send_one(f, a, conn);
        rpc_conn_unref(conn);
    }
    f->sending = false;
}
