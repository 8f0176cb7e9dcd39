/* One chunkd's copy of the names: what it gets next.
 *
 * First it is asked what it has. When that is whole, of this life of the cluster (names_file.h), and ends with an entry
 * that we have, with the same checksum, or is our newest checkpoint alone, the tail goes on from there. Otherwise it begins with the newest checkpoint: pieces of the state file, with the entries
 * that are applied meanwhile between them; when that is whole it is the current file, and gets entries from then on:
 * at once after a quiet time, at most five times a second else (with meta-copies-sync always at once), synced before the chunkd answers. A current file goes
 * on getting entries while a newer one comes in, so that there is a good one at any time.
 *
 * One call at a time: each says how long the file is, and a chunkd that has it otherwise refuses (it was restored, a
 * call timed out and was executed after all): then it is asked again. Whoever is too slow finds its entries gone
 * (names_ring.h) and begins anew.
 *
 * Thread: copies.c's; completions on rpc threads only hand the answer over. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "copies_internal.h"
#include "names_file.h"

#define LOG_MODULE "names"
#define CALL_MS 30000u
#define PIECE (512u << 10)
#define ROOM ((size_t)RPC_MAX_PAYLOAD)
#define PACE (200 * NSEC_PER_MSEC) /* between syncs of a tail */
#define RETRY (2 * NSEC_PER_SEC)   /* after a failure */
#define TAIL_LONG (64ull << 20)    /* a tail that is longer, and longer than the state */
#define SYNC_EVERY (8ull * PIECE)  /* of a file that is filled: else its end takes long */

/* ---- calls ---- */

static void copy_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct copy *k = arg;
    struct copy_answer a = {.code = code};

    (void)payload;
    if (code != 0 && rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE) {
        snprintf(a.detail, sizeof(a.detail), "%s", rep->failure->detail);
    } else if (code == 0 && rep->body_case == REPLFS__ENVELOPE__BODY_NAMES_PUT_REPLY &&
               rep->names_put_reply->state) {
        const Replfs__NamesState *s = rep->names_put_reply->state;
        a.file = (struct copy_file){s->generation, s->size, s->reached};
        a.reached_crc = s->reached_crc;
        a.state_crc = s->state_crc;
        a.term = s->term;
        a.state_size = s->state_size;
        a.whole = s->whole;
    } else if (code == 0) {
        a.code = -ERR_PROTOCOL;
    }
    lock_acquire(&k->c->mu);
    k->answer = a;
    atomic_store(&k->busy, false);
    k->answered = true;
    k->c->poked = true;
    cond_broadcast(&k->c->wake);
    lock_release(&k->c->mu);
}

static void copy_send(struct copy *k, enum copy_call call, Replfs__NamesPutReq *req,
                      struct buf *data)
{
    req->term = k->c->term;
    k->call = call;
    lock_acquire(&k->c->mu);
    atomic_store(&k->busy, true);
    k->answered = false;
    lock_release(&k->c->mu);
    RPC_ENVELOPE(env, NAMES_PUT_REQ, names_put_req, req);
    rpc_call(k->conn, &env, data, CALL_MS, copy_done, k);
}

static void nobody_waits(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)arg, (void)code, (void)rep, (void)payload;
}

void copies_send_drop(struct copies *c, struct rpc_conn *conn)
{
    Replfs__NamesPutReq req = REPLFS__NAMES_PUT_REQ__INIT;
    req.drop = true;
    req.term = c->term;
    RPC_ENVELOPE(env, NAMES_PUT_REQ, names_put_req, &req);
    rpc_call(conn, &env, NULL, CALL_MS, nobody_waits, NULL);
}

static void copy_ask(struct copy *k)
{
    Replfs__NamesPutReq req = REPLFS__NAMES_PUT_REQ__INIT;

    copy_send(k, COPY_CALL_ASK, &req, NULL);
}

/* ---- the current file's tail ---- */

static void forget_next(struct copy *k)
{
    state_file_unref(k->src);
    k->src = NULL;
    k->next = (struct copy_file){0};
}

static void copy_error(struct copy *k, int64_t now, const char *what)
{
    snprintf(k->error, sizeof(k->error), "%s", what);
    k->retry_at = now + RETRY;
}

/* True: a call was made. */
static bool send_tail(struct copy *k, int64_t now)
{
    if (k->cur.generation == 0)
        return false;
    if (k->cur.reached >= names_ring_last(k->c->ring)) {
        k->fresh_at = now;
        return false;
    }
    if (!k->c->sync && now - k->tail_at < PACE)
        return false;
    struct buf *b = buf_new(ROOM);
    bool gone;
    uint64_t last, all = names_ring_last(k->c->ring);
    b->len = names_ring_pack(k->c->ring, k->cur.reached, b->data, ROOM, &last, &gone);
    if (b->len == 0) {
        buf_unref(b);
        if (gone) {
            k->cur = (struct copy_file){0};
            copy_error(k, now, "it was too slow, and begins anew");
        }
        return false;
    }
    Replfs__NamesPutReq req = REPLFS__NAMES_PUT_REQ__INIT;
    req.generation = k->cur.generation;
    req.at = k->cur.size;
    req.sync = true;
    k->sent = (struct copy_file){k->cur.generation, k->cur.size + b->len, last};
    k->sent_fresh = last >= all ? now : 0; /* more may have come since */
    k->tail_at = now;
    copy_send(k, COPY_CALL_TAIL, &req, b);
    return true;
}

/* ---- a new file ---- */

bool copies_wants_new(const struct copy *k)
{
    uint64_t limit = k->state_size > TAIL_LONG ? k->state_size : TAIL_LONG;

    return k->asked && k->next.generation == 0 && (k->cur.generation == 0 || k->tail_bytes > limit);
}

bool copies_can_begin(const struct copy *k)
{
    const struct state_file *f = k->c->src;

    return f && (f->index > k->had || k->had_life < names_life(k->c->term)) &&
           names_ring_covers(k->c->ring, f->index);
}

/* Nobody gets anything of it; the next change brings another one. */
static void source_damaged(struct copy *k)
{
    struct copies *c = k->c;

    log_error("the checkpoint at index %" PRIu64
              " in %s has other bytes than were written: is that "
              "disk failing? A new one is made",
              k->src->index, c->dir);
    if (c->src == k->src) {
        state_file_unref(c->src);
        c->src = NULL;
        c->bad_index = k->src->index;
    }
}

/* Header, entries, a piece, the end: as much as one call takes. False: it cannot go on. */
static bool pack_fill(struct copy *k, struct buf *b, bool *whole)
{
    const struct state_file *f = k->src;
    uint64_t left = f->size - k->src_off;
    uint32_t piece = left < PIECE ? (uint32_t)left : PIECE;
    size_t room = ROOM - 2ul * NAMES_RECORD - piece;
    int64_t now = clock_wall();
    bool gone;

    if (k->next.size == 0) {
        struct names_header h = {.generation = f->index, .term = k->c->term, .time_ns = now};
        snprintf(h.cluster, sizeof(h.cluster), "%s", mlog_uuid(k->c->mlog));
        names_header_make(&h, b->data);
        b->len = NAMES_HEADER;
    }
    b->len += names_ring_pack(k->c->ring, k->next.reached, b->data + b->len, room - b->len,
                              &k->sent.reached, &gone);
    if (gone && names_ring_covers(k->c->ring, k->next.reached)) { /* one large entry */
        piece = 0;
        b->len += names_ring_pack(k->c->ring, k->next.reached, b->data + b->len, ROOM - b->len,
                                  &k->sent.reached, &gone);
    }
    if (gone)
        return false;
    if (piece > 0) {
        uint8_t *at = b->data + b->len;
        if (state_file_read(f, k->src_off, at + NAMES_RECORD, piece) != 0)
            return false;
        names_record_make(NAMES_PIECE, k->src_off, 0, now, at + NAMES_RECORD, piece, at);
        k->src_crc = crc32c(k->src_crc, at + NAMES_RECORD, piece);
        b->len += NAMES_RECORD + piece;
        k->src_off += piece;
    }
    *whole = k->src_off == f->size;
    if (*whole && k->src_crc != f->crc) {
        source_damaged(k);
        return false;
    }
    if (*whole) {
        names_record_make(NAMES_WHOLE, f->size, f->crc, now, NULL, 0, b->data + b->len);
        b->len += NAMES_RECORD;
    }
    return true;
}

static void send_fill(struct copy *k, int64_t now)
{
    Replfs__NamesPutReq req = REPLFS__NAMES_PUT_REQ__INIT;
    struct buf *b = buf_new(ROOM);
    uint64_t before = k->src_off;

    k->sent = k->next;
    if (!pack_fill(k, b, &k->sent_whole)) {
        buf_unref(b);
        forget_next(k);
        copy_error(k, now, "it was too slow, or the checkpoint is damaged: it begins anew");
        return;
    }
    req.generation = k->next.generation;
    req.at = k->next.size;
    req.begin = k->next.size == 0;
    req.expect = k->src->size + k->src->size / 4;
    req.sync = k->sent_whole || before / SYNC_EVERY != k->src_off / SYNC_EVERY;
    k->sent.size += b->len;
    copy_send(k, COPY_CALL_FILL, &req, b);
}

static void copy_begin(struct copy *k, int64_t now)
{
    k->src = state_file_ref(k->c->src);
    k->src_off = k->src_crc = 0;
    k->next = (struct copy_file){.generation = k->src->index, .reached = k->src->index};
    send_fill(k, now);
}

/* ---- answers ---- */

static void take_failure(struct copy *k, const struct copy_answer *a, int64_t now)
{
    char text[160];

    snprintf(text, sizeof(text), "%s", a->detail[0] ? a->detail : err_str(a->code));
    if (a->code != -ERR_OFFSET && k->failures++ == 0 && rpc_conn_alive(k->conn))
        log_warn("chunkd %u (%s) does not take its copy of the names: %s", k->chunkd, k->host_name,
                 text);
    k->cur = (struct copy_file){0};
    forget_next(k);
    k->asked = false;
    copy_error(k, now, text);
}

/* What it has is the beginning of what we have. */
static bool is_ours(const struct copy *k, const struct copy_answer *a)
{
    const struct state_file *f = k->c->src;

    if (!a->whole || k->had_life != names_life(k->c->term))
        return false;
    if (a->file.reached != a->file.generation)
        return names_ring_has(k->c->ring, a->file.reached, a->reached_crc);
    return f && f->index == a->file.generation && f->size == a->state_size &&
           f->crc == a->state_crc && names_ring_covers(k->c->ring, f->index);
}

static void take_ask(struct copy *k, const struct copy_answer *a, int64_t now)
{
    k->asked = true;
    k->had = a->whole ? a->file.generation : 0;
    k->had_life = names_life(a->term);
    if (!is_ours(k, a))
        return;
    k->cur = a->file;
    k->state_size = a->state_size;
    k->tail_bytes = a->file.size - a->state_size;
    if (k->cur.reached >= names_ring_last(k->c->ring))
        k->fresh_at = now;
}

static void take_fill(struct copy *k)
{
    k->next = k->sent;
    if (!k->sent_whole)
        return;
    log_info("chunkd %u (%s) has a copy of the names: checkpoint %" PRIu64 ", %" PRIu64 " bytes",
             k->chunkd, k->host_name, k->next.generation, k->next.size);
    k->cur = k->next;
    k->had = k->cur.generation;
    k->had_life = names_life(k->c->term);
    k->state_size = k->src->size;
    k->tail_bytes = k->cur.size - k->state_size;
    forget_next(k);
}

static void take_answer(struct copy *k, int64_t now)
{
    lock_acquire(&k->c->mu);
    struct copy_answer a = k->answer;
    bool answered = k->answered && !atomic_load(&k->busy);
    if (answered)
        k->answered = false;
    lock_release(&k->c->mu);
    if (!answered)
        return;
    bool moved = k->call == COPY_CALL_TAIL || k->call == COPY_CALL_FILL;
    if (a.code == 0 && moved &&
        (a.file.generation != k->sent.generation || a.file.size != k->sent.size))
        a.code = -ERR_OFFSET;
    if (a.code != 0) {
        take_failure(k, &a, now);
        return;
    }
    k->failures = 0;
    k->error[0] = 0;
    if (k->call == COPY_CALL_ASK) {
        take_ask(k, &a, now);
    } else if (k->call == COPY_CALL_FILL) {
        take_fill(k);
    } else if (k->call == COPY_CALL_TAIL) {
        k->tail_bytes += k->sent.size - k->cur.size;
        k->cur = k->sent;
        if (k->sent_fresh > k->fresh_at)
            k->fresh_at = k->sent_fresh;
    }
}

void copies_connect(struct copy *k, struct rpc_conn *conn)
{
    rpc_conn_unref(k->conn);
    k->conn = rpc_conn_ref(conn);
    forget_next(k);
    k->cur = (struct copy_file){0};
    k->asked = false;
    k->retry_at = 0;
}

static void copy_show(struct copy *k, int64_t now)
{
    struct nodes_names s = {.chunkd = k->chunkd,
                            .generation = k->cur.generation,
                            .reached = k->cur.reached,
                            .size = k->cur.size,
                            .age_ns = now - k->fresh_at,
                            .filling = k->next.generation != 0,
                            .late = k->late && k->c->sync,
                            .filled = k->next.size};
    memcpy(s.host_name, k->host_name, sizeof(s.host_name));
    memcpy(s.error, k->error, sizeof(s.error));
    if (s.late && !s.error[0])
        snprintf(s.error, sizeof(s.error), "it is slow: changes are acknowledged without it");
    if (k->away_at)
        snprintf(s.error, sizeof(s.error), "its chunkd is not connected");
    LOCK_SCOPE(&k->c->mu);
    k->shown = s;
}

void copies_step(struct copy *k, int64_t now)
{
    take_answer(k, now);
    bool may = !atomic_load(&k->busy) && now >= k->retry_at && k->conn && rpc_conn_alive(k->conn);
    if (may && !k->asked)
        copy_ask(k);
    else if (may && !send_tail(k, now)) {
        if (k->next.generation != 0)
            send_fill(k, now);
        else if (copies_wants_new(k) && copies_can_begin(k))
            copy_begin(k, now);
    }
    copy_show(k, now);
}
