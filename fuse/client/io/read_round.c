/* One round of a read: holes are zeros, buffered bytes are copied, the rest comes from chunkds, checked.
 *
 * A read is cut into segments (overlay_next). Those of chunks are asked for in parallel, each from the copy that
 * chunkds_order() puts first. A copy that fails, or has a bad CRC, is followed by the next; one that is slow gets
 * company after HEDGE_MS, and the first good answer wins. Bad copies are reported to metad, which has them
 * verified and healed. No byte whose CRC was not checked leaves this file.
 *
 * Threads: answers come on loop threads, which queue them, for the thread that waits (read_round_wait) or for
 * op->answered to see to. A round is referenced by its reader, and by each outstanding request. */
#include "client/io/read_round.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "base/lock.h"
#include "base/u64map.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/file/chunk_loc.h"
#include "client/file/overlay.h"
#include "client/internal.h"
#include "client/io/chunkds.h"
#include "client/io/layout.h"
#include "client/session/ask.h"
#include "client/session/session.h"

#define LOG_MODULE "read"
#define READ_MAX (1u << 20)
#define HEDGE_MS 500
#define TRY_TIMEOUT_MS 10000u

struct span {
    uint32_t off, len;
    const uint8_t *crcs;
};

struct answer {
    struct answer *next;
    struct read_round *op;
    size_t seg;
    uint32_t chunkd;
    int64_t started;
    int code;
    struct buf *payload;
    size_t nspans;
    struct span *spans; /* one block with the crcs */
};

/* ---- life ---- */

struct read_round *read_round_new(struct cfile *f)
{
    struct read_round *op = calloc(1, sizeof(*op));
    if (!op)
        return NULL;
    op->c = f->c;
    op->ino = f->ino;
    op->session = session_id(f->c);
    op->refs = 1;
    op->try_ms = f->c->cfg.timeout_ms < TRY_TIMEOUT_MS ? f->c->cfg.timeout_ms : TRY_TIMEOUT_MS;
    lock_init(&op->mu, LOCK_READ_ROUND);
    cond_init(&op->cv);
    return op;
}

struct read_round *read_round_ref(struct read_round *op)
{
    lock_acquire(&op->mu);
    op->refs++;
    lock_release(&op->mu);
    return op;
}

static void answer_free(struct answer *a)
{
    buf_unref(a->payload);
    free(a->spans);
    free(a);
}

void read_round_unref(struct read_round *op)
{
    lock_acquire(&op->mu);
    bool last = --op->refs == 0;
    lock_release(&op->mu);
    if (!last)
        return;
    while (op->answers) {
        struct answer *a = op->answers;
        op->answers = a->next;
        answer_free(a);
    }
    buf_unref(op->out);
    free(op->segs);
    cond_destroy(&op->cv);
    lock_destroy(&op->mu);
    free(op);
}

/* ---- completions ---- */

/* Copies what the reply says of its spans; rep does not live longer than the callback. */
static int keep_spans(struct answer *a, const Replfs__ReadReply *r)
{
    size_t bytes = 0;
    for (size_t i = 0; i < r->n_spans; i++)
        bytes += r->spans[i]->crcs.len;
    a->spans = malloc(r->n_spans * sizeof(*a->spans) + bytes + 1);
    if (!a->spans)
        return -ENOMEM;
    uint8_t *p = (uint8_t *)(a->spans + r->n_spans);
    for (size_t i = 0; i < r->n_spans; i++) {
        const Replfs__Span *s = r->spans[i];
        if (!s->len || s->crcs.len != 4 * crc_blocks(s->len))
            return -ERR_PROTOCOL;
        a->spans[i] = (struct span){s->chunk_off, s->len, p};
        memcpy(p, s->crcs.data, s->crcs.len);
        p += s->crcs.len;
    }
    a->nspans = r->n_spans;
    return 0;
}

static void read_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct answer *a = arg;
    struct read_round *op = a->op;
    chunkds_end(op->c, a->chunkd, a->started, !code);
    a->code = code;
    if (!code && (rep->body_case != REPLFS__ENVELOPE__BODY_READ_REPLY || !payload))
        a->code = -ERR_PROTOCOL;
    if (!a->code)
        a->code = keep_spans(a, rep->read_reply);
    if (!a->code)
        a->payload = buf_ref(payload);
    lock_acquire(&op->mu);
    a->next = op->answers;
    op->answers = a;
    cond_signal(&op->cv);
    lock_release(&op->mu);
    if (op->answered)
        op->answered(op);
    read_round_unref(op);
}

/* ---- asking ---- */

/* Asks the next copy of a segment; false when there is none left that could be asked. */
static bool ask_next(struct read_round *op, size_t i)
{
    struct readseg *s = &op->segs[i];
    struct client *c = op->c;
    while (s->next < s->loc.n) {
        uint32_t id = s->order[s->next++];
        struct rpc_conn *conn = chunkds_conn(c, id);
        if (!conn) {
            s->code = -ERR_PEER_GONE;
            s->unreachable = true;
            continue;
        }
        struct answer *a = calloc(1, sizeof(*a));
        if (!a)
            abort();
        *a = (struct answer){
            .op = read_round_ref(op), .seg = i, .chunkd = id, .started = clock_mono()};
        Replfs__ReadReq m = REPLFS__READ_REQ__INIT;
        m.chunk = s->loc.chunk;
        m.off = s->off;
        m.len = s->len;
        m.session = op->session;
        m.cap = (ProtobufCBinaryData){s->loc.cap_len, s->loc.cap};
        RPC_ENVELOPE(env, READ_REQ, read_req, &m);
        s->pending++;
        s->hedge_at = clock_mono() + HEDGE_MS * NSEC_PER_MSEC;
        chunkds_begin(c, id);
        rpc_call(conn, &env, NULL, op->try_ms, read_done, a);
        rpc_conn_unref(conn);
        return true;
    }
    return false;
}

/* ---- answers ---- */

static void report_bad(struct read_round *op, const struct readseg *s, uint32_t chunkd, int code)
{
    char name[256];
    chunkds_name(op->c, chunkd, name, sizeof(name));
    /* one that is gone may have been compacted since the map was asked for: metad knows, and tells of it if not */
    if (code != -ERR_NO_CHUNK || log_enabled(LOG_LVL_DEBUG, LOG_MODULE))
        log_warn("inode %llu: copy of chunk %llx on %s is bad at %u+%u: %s; reading another",
                 (unsigned long long)op->ino, (unsigned long long)s->loc.chunk, name, s->off,
                 s->len, err_str(code));
    Replfs__ReportBadReq m = REPLFS__REPORT_BAD_REQ__INIT;
    m.chunk = s->loc.chunk;
    m.chunkd = chunkd;
    m.code = (uint32_t)-code;
    RPC_ENVELOPE(env, REPORT_BAD_REQ, report_bad_req, &m);
    session_tell(op->c, &env);
}

/* Checks every span and copies the wanted range (or hands the payload through). 0, -ERR_CRC,
 * -ERR_PROTOCOL, -ERR_SHORT. */
static int answer_take(struct read_round *op, const struct readseg *s, const struct answer *a)
{
    size_t at = 0;
    uint32_t pos = s->off, end = s->off + s->len;
    bool whole = op->nsegs == 1 && s->len == op->len && a->nspans == 1 &&
                 a->spans[0].off == s->off && a->spans[0].len == s->len &&
                 a->payload->len == s->len;
    for (size_t i = 0; i < a->nspans; i++) {
        const struct span *sp = &a->spans[i];
        if (sp->len > a->payload->len - at)
            return -ERR_PROTOCOL;
        const uint8_t *data = a->payload->data + at;
        if (crc_blocks_check(data, sp->len, sp->crcs) >= 0)
            return -ERR_CRC;
        uint64_t sp_end = (uint64_t)sp->off + sp->len;
        if (!whole && sp->off <= pos && sp_end > pos) {
            uint32_t n = (uint32_t)(sp_end < end ? sp_end : end) - pos;
            memcpy(op->out->data + s->dest + (pos - s->off), data + (pos - sp->off), n);
            pos += n;
        }
        at += sp->len;
    }
    if (whole) {
        buf_unref(op->out);
        op->out = buf_ref(a->payload);
        return 0;
    }
    return pos == end ? 0 : -ERR_SHORT;
}

static void handle(struct read_round *op, struct answer *a)
{
    struct readseg *s = &op->segs[a->seg];
    s->pending--;
    if (s->done)
        return;
    int code = a->code;
    if (!code)
        code = answer_take(op, s, a);
    if (!code) {
        s->done = true;
        s->code = 0;
        return;
    }
    if (code == -ERR_CRC)
        atomic_fetch_add(&op->c->crc_errors, 1);
    atomic_fetch_add(&op->c->read_retries, 1);
    if (code == -ERR_CRC || code == -ERR_NO_CHUNK || code == -ERR_SHORT || code == -EIO)
        report_bad(op, s, a->chunkd, code);
    else if (code != -ERR_CAP && code != -ERR_CAP_EXPIRED)
        s->unreachable = true;
    s->code = code;
    if (!ask_next(op, a->seg) && !s->pending)
        s->done = true;
}

void read_round_start(struct read_round *op)
{
    for (size_t i = 0; i < op->nsegs; i++) {
        struct readseg *s = &op->segs[i];
        memcpy(s->order, s->loc.chunkds, sizeof(s->order));
        chunkds_order(op->c, s->loc.chunk, s->order, s->loc.n);
        if (!ask_next(op, i)) {
            s->done = true;
            s->code = s->code ? s->code : -ERR_NO_CHUNK;
            s->unreachable = true;
        }
    }
}

size_t read_round_left(struct read_round *op, int64_t now, int64_t *wake)
{
    size_t left = 0;
    for (size_t i = 0; i < op->nsegs; i++) {
        struct readseg *s = &op->segs[i];
        if (s->done)
            continue;
        left++;
        if (s->next < s->loc.n && now >= s->hedge_at && ask_next(op, i))
            atomic_fetch_add(&op->c->read_retries, 1);
        if (s->next < s->loc.n && s->hedge_at < *wake)
            *wake = s->hedge_at;
    }
    return left;
}

struct answer *read_round_answers(struct read_round *op)
{
    struct answer *list = op->answers;
    op->answers = NULL;
    return list;
}

void read_round_handle(struct read_round *op, struct answer *list)
{
    while (list) {
        struct answer *a = list;
        list = a->next;
        handle(op, a);
        answer_free(a);
    }
}

int read_round_code(const struct read_round *op)
{
    for (size_t i = 0; i < op->nsegs; i++) {
        if (op->segs[i].code)
            return op->segs[i].code;
    }
    return 0;
}

int read_round_wait(struct read_round *op)
{
    for (;;) {
        int64_t now = clock_mono(), wake = now + NSEC_PER_SEC;
        if (!read_round_left(op, now, &wake))
            return read_round_code(op);
        lock_acquire(&op->mu);
        if (!op->answers)
            cond_wait_until(&op->cv, &op->mu, wake);
        struct answer *list = read_round_answers(op);
        lock_release(&op->mu);
        read_round_handle(op, list);
    }
}

/* ---- cutting a read into segments (f->mu held) ---- */

static int add_seg(struct read_round *op, const struct cloc *l, uint32_t off, uint32_t len,
                   size_t dest)
{
    while (len) {
        uint32_t part = len < READ_MAX ? len : READ_MAX;
        if (op->nsegs == op->capsegs) {
            size_t cap = op->capsegs ? op->capsegs * 2 : 4;
            struct readseg *s = realloc(op->segs, cap * sizeof(*s));
            if (!s)
                return -ENOMEM;
            op->segs = s;
            op->capsegs = cap;
        }
        op->segs[op->nsegs++] = (struct readseg){.loc = *l, .off = off, .len = part, .dest = dest};
        off += part;
        len -= part;
        dest += part;
    }
    return 0;
}

static int add_piece(struct cfile *f, struct read_round *op, const struct seg *s, size_t dest)
{
    struct abuf *a = s->kind == SEG_BUFFER ? u64map_get_ptr(&f->abufs, s->id) : NULL;
    assert(s->kind != SEG_BUFFER || a);
    if (s->kind == SEG_HOLE || s->kind == SEG_RESERVED) {
        memset(op->out->data + dest, 0, s->len);
        return 0;
    }
    if (a && a->buf) {
        memcpy(op->out->data + dest, a->buf->data + s->at, s->len);
        return 0;
    }
    if (a)
        return add_seg(op, &a->wc->loc, a->chunk_off + s->at, (uint32_t)s->len, dest);
    struct cloc *l = u64map_get_ptr(&f->locs, s->id);
    if (!l || !l->n) {
        op->stale = true;
        op->unsure |= !l || !l->lost;
        op->lost_chunk = s->id;
        op->lost_off = s->off;
        op->lost_len = s->len;
        return 0;
    }
    return add_seg(op, l, s->at, (uint32_t)s->len, dest);
}

int read_round_plan(struct cfile *f, struct read_round *op, uint64_t off, size_t len,
                    int64_t deadline)
{
    const struct extmap *over;
    uint64_t size = cfile_shown(f, NULL);
    uint64_t end = off >= size ? off : len < size - off ? off + len : size;
    int rc = layout_need(f, end, deadline);
    if (rc)
        return rc;
    size = cfile_shown(f, &over);
    if (size < end) /* learnt meanwhile */
        end = size > off ? size : off;
    op->len = end - off;
    op->out = buf_new(op->len ? op->len : 1);
    op->out->len = op->len;
    for (uint64_t pos = off; pos < end && !rc;) {
        struct seg s;
        overlay_next(over, &f->base, pos, end, &s);
        rc = add_piece(f, op, &s, pos - off);
        pos += s.len;
    }
    return rc;
}
