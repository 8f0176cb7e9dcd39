/* orders: metad's orders, carried out one per thread of the service's order pool.
 *
 * Copy fetches a chunk from the named sources in turn, in reads of up to 1 MiB, checks every CRC of
 * what arrives, and appends each span to a fresh copy that the store keeps beside whatever is
 * there; only when it is complete and synced it takes that one's place. A bad or missing block, a
 * source that dies or ends early: the next source goes on from the same offset (all copies of a
 * chunk have the same bytes), and when none is left the half copy is dropped. Nothing bad is ever
 * stored: CRCs are checked before. A copy that is healed while its writer goes on appending keeps
 * what it got meanwhile.
 *
 * Spans begin on CRC block boundaries of their records, and the next range asked for begins where
 * the last span ended, so that spans line up and keep the client's own CRCs. A source with other
 * boundaries (its span begins earlier) is trimmed; only when the cut is inside a block, CRCs are
 * made anew, from bytes just verified against the client's.
 *
 * Verify reads the whole copy back, from the disk itself, and says how much of it is good. Salvage gives bytes, and whose they
 * are. Compact is in compaction.c.
 *
 * Nothing is done for a metad whose term is over (terms.h).
 *
 * Thread context: pool threads, which may block; deletes run on the store's writer threads. */
#include "orders.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "compaction.h"
#include "scrub.h"
#include "store_wait.h"

#define LOG_MODULE "orders"
#define PIECE (1u << 20) /* of one Read */
#define SALVAGE_PIECE (256u << 10)
#define SALVAGE_PARTS 4096u
#define FETCH_MS 15000u     /* a source that needs longer for one piece is given up */
#define MAX_SPAN (1u << 20) /* an append's limit */
#define FINISH_TRIES                                                                               \
    32 /* a writer that appends faster than its own disk is read is another's turn */

struct order {
    struct service *s;
    struct rpc_req *req;
};

static void order_reply(struct service *s, struct rpc_req *req, const Replfs__OrderReply *r)
{
    Replfs__OrderReply copy = *r;
    RPC_ENVELOPE(env, ORDER_REPLY, order_reply, &copy);
    serve_reply(s, req, &env, NULL);
}

/* ---- copy ---- */

struct copy {
    struct service *s;
    const Replfs__CopyOrder *o;
    struct store *store;
    uint64_t token;
    uint32_t pos;    /* bytes of the new copy so far */
    bool own_fault;  /* the last failure was this chunkd's disk: no other source helps */
    uint32_t failed; /* chunkd that the last failure came from; 0: this one */
    char why[256];   /* of the last failure */
};

/* Appends one verified span, skipping what is there already. */
static int copy_span(struct copy *c, const Replfs__Span *sp, const uint8_t *data,
                     struct store_wait *w)
{
    uint32_t skip = c->pos - sp->chunk_off, len = sp->len - skip;
    struct buf *b = buf_new(len);
    memcpy(b->data, data + skip, len);
    b->len = len;
    CLEANUP(free_ptr) uint8_t *made = NULL;
    const uint8_t *crcs = sp->crcs.data + (size_t)skip / CRC_BLOCK * 4;
    if (skip % CRC_BLOCK != 0) {
        made = malloc(crc_blocks(len) * 4);
        if (!made)
            abort();
        crc_blocks_make(b->data, len, made);
        crcs = made;
    }
    struct store_append a = {
        .chunk = c->o->chunk,
        .session = c->o->session,
        .chunk_off = c->pos,
        .data = b,
        .crcs = crcs,
    };
    store_wait_add(w);
    store_copy_append(c->store, c->token, &a, store_wait_done, w);
    buf_unref(b);
    c->pos += len;
    return 0;
}

/* Checks all of a ReadReply before anything of it is used. */
static int check_spans(const struct copy *c, const Replfs__ReadReply *rr, const struct buf *payload)
{
    size_t at = 0, have = payload ? payload->len : 0;
    uint32_t pos = c->pos;
    for (size_t i = 0; i < rr->n_spans; i++) {
        const Replfs__Span *sp = rr->spans[i];
        if (sp->len == 0 || sp->len > MAX_SPAN || sp->len > have - at ||
            sp->crcs.len != crc_blocks(sp->len) * 4 || sp->chunk_off > UINT32_MAX - sp->len)
            return -ERR_PROTOCOL;
        if (sp->chunk_off > pos || sp->chunk_off + sp->len <= pos)
            return -ERR_PROTOCOL; /* a gap, or nothing new */
        if (crc_blocks_check(payload->data + at, sp->len, sp->crcs.data) >= 0)
            return -ERR_CRC;
        at += sp->len;
        pos = sp->chunk_off + sp->len;
    }
    return pos > c->pos ? 0 : -ERR_SHORT;
}

/* Fetches and stores the piece at c->pos. */
static int copy_piece(struct copy *c, struct rpc_conn *conn, const Replfs__CopySource *src,
                      uint64_t trace)
{
    Replfs__ReadReq rd = REPLFS__READ_REQ__INIT;
    rd.chunk = c->o->chunk;
    rd.session = c->o->session;
    rd.cap = src->cap;
    rd.off = c->pos;
    rd.len = c->o->len - c->pos < PIECE ? c->o->len - c->pos : PIECE;
    RPC_ENVELOPE(env, READ_REQ, read_req, &rd);
    env.trace = trace;
    struct rpc_result res;
    int rc = rpc_call_wait(conn, &env, NULL, FETCH_MS, &res);
    if (rc == 0 && res.rep->body_case != REPLFS__ENVELOPE__BODY_READ_REPLY)
        rc = -ERR_PROTOCOL;
    if (rc == 0)
        rc = check_spans(c, res.rep->read_reply, res.payload);
    if (rc == 0) {
        const Replfs__ReadReply *rr = res.rep->read_reply;
        const uint8_t *at = res.payload->data;
        uint32_t before = c->pos;
        struct store_wait w = STORE_WAIT_INIT;
        for (size_t i = 0; i < rr->n_spans; at += rr->spans[i++]->len)
            copy_span(c, rr->spans[i], at, &w);
        rc = store_wait_end(&w);
        c->own_fault = rc != 0;
        serve_count(c->s, 0, c->pos - before);
    }
    rpc_result_free(&res);
    return rc;
}

static int copy_from(struct copy *c, const Replfs__CopySource *src, uint64_t trace)
{
    struct rpc_conn *conn = NULL;
    int rc = peers_get(serve_peers(c->s), src->addr, &conn);
    while (rc == 0 && c->pos < c->o->len)
        rc = serve_stopping(c->s) ? -ERR_SHUTDOWN : copy_piece(c, conn, src, trace);
    rpc_conn_unref(conn);
    if (rc != 0) {
        c->failed = c->own_fault ? 0 : src->chunkd;
        snprintf(c->why, sizeof(c->why), "chunk %llx at %u from chunkd %u at %s: %s",
                 (unsigned long long)c->o->chunk, c->pos, src->chunkd, src->addr, err_str(rc));
        log_warn("copy of %s", c->why);
    }
    return rc;
}

/* The copy that is replaced may be longer than what metad asked for: its writer still appends, and what
 * was acknowledged must stay. Adds what of it is behind the new one's end and can be read; *seen becomes
 * its length. */
static int copy_tail(struct copy *c, uint32_t *seen)
{
    uint64_t session = 0;
    *seen = 0;
    if (store_chunk_len(c->store, c->o->chunk, seen, &session) != 0 || session != c->o->session)
        return 0;
    while (c->pos < *seen) {
        struct store_read r;
        struct store_wait w = STORE_WAIT_INIT;
        uint32_t n = *seen - c->pos < PIECE ? *seen - c->pos : PIECE;
        if (store_read(c->store, c->o->chunk, c->pos, n, STORE_VERIFY, &r) != 0)
            return 0; /* nothing to be saved there */
        const uint8_t *at = r.data->data;
        for (size_t i = 0; i < r.n; at += r.spans[i++].len) {
            Replfs__Span sp = REPLFS__SPAN__INIT;
            sp.chunk_off = r.spans[i].chunk_off;
            sp.len = r.spans[i].len;
            sp.crcs.data = r.spans[i].crcs;
            sp.crcs.len = crc_blocks(sp.len) * 4;
            copy_span(c, &sp, at, &w);
        }
        int rc = store_wait_end(&w);
        buf_unref(r.data);
        free(r.spans);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Swaps the new copy in, once it has all that the old one has. */
static int copy_finish(struct copy *c)
{
    int rc = -EAGAIN;
    for (int i = 0; rc == -EAGAIN && i < FINISH_TRIES; i++) {
        uint32_t seen;
        struct store_wait w = STORE_WAIT_INIT;
        rc = copy_tail(c, &seen);
        if (rc != 0)
            break;
        store_wait_add(&w);
        store_copy_finish(c->store, c->token, seen, store_wait_done, &w);
        rc = store_wait_end(&w);
    }
    return rc;
}

/* A copy takes the place of a copy of the same chunk, never of another writer's chunk that has the same
 * number: that may be all that is left of it. */
static int check_place(const struct copy *c)
{
    uint32_t len;
    uint64_t session;
    int rc = store_chunk_len(c->store, c->o->chunk, &len, &session);
    if (rc == -ERR_NO_CHUNK)
        return 0;
    return rc == 0 && session != c->o->session ? -EEXIST : rc;
}

static int copy_all(struct copy *c, uint64_t trace)
{
    int rc = check_place(c);
    if (rc == 0)
        rc = store_copy_begin(c->store, c->o->chunk, c->o->session, &c->token);
    if (rc != 0) {
        snprintf(c->why, sizeof(c->why), "chunk %llx: beginning the copy: %s",
                 (unsigned long long)c->o->chunk, err_str(rc));
        return rc;
    }
    rc = -ERR_NO_CHUNK;
    snprintf(c->why, sizeof(c->why), "chunk %llx: no source was named",
             (unsigned long long)c->o->chunk);
    for (size_t i = 0; i < c->o->n_sources && rc != 0 && !c->own_fault; i++)
        rc = copy_from(c, c->o->sources[i], trace);
    if (rc != 0) {
        store_copy_abort(c->store, c->token);
        return rc;
    }
    rc = copy_finish(c);
    if (rc != 0) {
        store_copy_abort(c->store, c->token);
        c->failed = 0; /* whatever sources failed before, this was our disk */
        snprintf(c->why, sizeof(c->why), "chunk %llx: completing the copy: %s",
                 (unsigned long long)c->o->chunk, err_str(rc));
    }
    return rc;
}

static void run_copy(struct service *s, struct rpc_req *req)
{
    const Replfs__CopyOrder *o = req->env->order_req->copy;
    struct copy c = {.s = s, .o = o};
    struct disk *disk;
    int rc = disks_copy_enter(serve_disks(s), o->chunk, o->len, &disk);
    if (rc != 0) {
        serve_fail(s, req, rc, 0, "no disk for a copy of chunk %llx: %s",
                   (unsigned long long)o->chunk, err_str(rc));
        return;
    }
    c.store = disk_store(disk);
    rc = copy_all(&c, req->trace);
    disks_copy_leave(serve_disks(s), disk);
    if (rc != 0) {
        serve_fail(s, req, rc, c.failed, "copy of %s", c.why);
        return;
    }
    log_debug("copied chunk %llx, %u bytes", (unsigned long long)o->chunk, c.pos);
    Replfs__OrderReply r = REPLFS__ORDER_REPLY__INIT;
    r.bytes = r.len = c.pos;
    r.disk = disk_index(disk);
    order_reply(s, req, &r);
}

/* ---- delete ---- */

/* Deletes on every disk that has the chunk: a disk that was out may have come back with an old
 * copy. Another writer's chunk of that number is not meant. */
static void run_delete(struct service *s, struct rpc_req *req)
{
    const Replfs__DeleteOrder *o = req->env->order_req->delete_chunks;
    struct disks *d = serve_disks(s);
    struct store_wait w = STORE_WAIT_INIT;
    CLEANUP(free_ptr) uint64_t *mine = malloc((o->n_chunks + 1) * sizeof(*mine));
    if (!mine)
        abort();
    for (size_t i = 0; i < disks_count(d); i++) {
        struct store *store = disk_store(disks_at(d, i));
        size_t n = 0;
        uint32_t len;
        uint64_t session;
        for (size_t j = 0; store && j < o->n_chunks; j++)
            if (store_chunk_len(store, o->chunks[j], &len, &session) == 0 &&
                session == o->sessions[j])
                mine[n++] = o->chunks[j];
        if (n == 0 || disk_failed(disks_at(d, i)))
            continue;
        store_wait_add(&w);
        store_delete(store, mine, n, store_wait_done, &w);
        int rc = store_wait_end(&w); /* mine is reused */
        if (rc != 0) {
            serve_fail(s, req, rc, 0, "deleting %zu chunks: %s", n, err_str(rc));
            return;
        }
    }
    Replfs__OrderReply r = REPLFS__ORDER_REPLY__INIT;
    order_reply(s, req, &r);
}

/* ---- verify ---- */

static void run_verify(struct service *s, struct rpc_req *req)
{
    const Replfs__VerifyOrder *o = req->env->order_req->verify;
    struct disk *disk = disks_find(serve_disks(s), o->chunk, false);
    uint32_t len = 0;
    uint64_t session;
    int rc = disk ? store_chunk_len(disk_store(disk), o->chunk, &len, &session) : -ERR_NO_CHUNK;
    if (rc == 0 && session != o->session)
        rc = -ERR_NO_CHUNK; /* that number was given twice: not the one that is meant */
    Replfs__OrderReply r = REPLFS__ORDER_REPLY__INIT;
    r.len = r.stored = len;
    if (o->len != 0 && len > o->len)
        len = o->len; /* nobody needs what is behind */
    uint32_t step = PIECE;
    for (uint32_t pos = 0; rc == 0 && !o->quick && pos < len && !r.bad;) {
        uint32_t n = len - pos < step ? len - pos : step;
        struct store_read sr;
        rc = serve_stopping(s) ? -ERR_SHUTDOWN
                               : store_read(disk_store(disk), o->chunk, pos, n, STORE_SCRUB, &sr);
        bool bad = rc == -ERR_CRC || rc == -EIO || rc == -ERR_SHORT;
        if (rc == 0) {
            buf_unref(sr.data);
            free(sr.spans);
            pos += n;
            r.bytes += n;
        } else if (bad && step > CRC_BLOCK) {
            step /= 2; /* to the block: what is in front of it may be all that is left */
            rc = 0;
        } else if (bad) {
            log_warn("chunk %llx is bad between %u and %u: %s", (unsigned long long)o->chunk, pos,
                     pos + n, err_str(rc));
            r.bad = true;
            r.len = pos;
            rc = 0;
        }
    }
    if (rc != 0) {
        serve_fail(s, req, rc, 0, "verifying chunk %llx: %s", (unsigned long long)o->chunk,
                   err_str(rc));
        return;
    }
    if (disk)
        r.disk = disk_index(disk);
    order_reply(s, req, &r);
}

/* ---- salvage ---- */

struct salvage {
    uint32_t at, len; /* what is asked for */
    struct store_part part[SALVAGE_PARTS];
    Replfs__ChunkPart msg[SALVAGE_PARTS], *list[SALVAGE_PARTS];
    size_t n;
    uint8_t data[SALVAGE_PIECE];
};

/* Bytes and parts of the range, which ends earlier when the parts are too many. */
static int salvage_read(struct store *store, uint64_t chunk, struct salvage *v)
{
    struct store_read sr;
    int rc = store_parts(store, chunk, v->at, v->at + v->len, v->part, SALVAGE_PARTS, &v->n);
    if (rc != 0 || v->n == 0)
        return rc ? rc : -ERR_SHORT;
    v->len = v->part[v->n - 1].chunk_off + v->part[v->n - 1].len - v->at;
    rc = store_read(store, chunk, v->at, v->len, STORE_VERIFY, &sr);
    if (rc != 0)
        return rc;
    const uint8_t *from = sr.data->data;
    for (size_t i = 0; i < sr.n; i++) { /* spans begin and end at blocks */
        const struct store_span *sp = &sr.spans[i];
        uint32_t lo = sp->chunk_off > v->at ? sp->chunk_off : v->at;
        uint32_t end = v->at + v->len,
                 hi = sp->chunk_off + sp->len < end ? sp->chunk_off + sp->len : end;
        if (lo < hi)
            memcpy(v->data + (lo - v->at), from + (lo - sp->chunk_off), hi - lo);
        from += sp->len;
    }
    buf_unref(sr.data);
    free(sr.spans);
    return 0;
}

static void run_salvage(struct service *s, struct rpc_req *req)
{
    const Replfs__SalvageOrder *o = req->env->order_req->salvage;
    struct disk *disk = disks_find(serve_disks(s), o->chunk, false);
    Replfs__OrderReply r = REPLFS__ORDER_REPLY__INIT;
    CLEANUP(free_ptr) struct salvage *v = malloc(sizeof(*v));
    uint32_t len = 0;
    uint64_t session;

    if (!v)
        abort();
    int rc = disk ? store_chunk_len(disk_store(disk), o->chunk, &len, &session) : -ERR_NO_CHUNK;
    if (rc == 0 && session != o->session)
        rc = -ERR_NO_CHUNK; /* that number was given twice: not the one that is meant */
    v->at = o->off;
    v->len = o->off < len ? len - o->off : 0;
    v->len = v->len < SALVAGE_PIECE ? v->len : SALVAGE_PIECE;
    v->n = 0;
    if (rc == 0 && v->len > 0)
        rc = salvage_read(disk_store(disk), o->chunk, v);
    if (rc != 0) {
        serve_fail(s, req, rc, 0, "salvaging chunk %llx: %s", (unsigned long long)o->chunk,
                   err_str(rc));
        return;
    }
    for (size_t i = 0; i < v->n; i++) {
        Replfs__ChunkPart *p = v->list[i] = &v->msg[i];
        replfs__chunk_part__init(p);
        p->ino = v->part[i].ino;
        p->file_off = v->part[i].file_off;
        p->chunk_off = v->part[i].chunk_off;
        p->len = v->part[i].len;
    }
    r.stored = len;
    r.parts = v->list;
    r.n_parts = v->n;
    r.data = (ProtobufCBinaryData){.len = v->len, .data = v->data};
    order_reply(s, req, &r);
}

/* ---- scrub ---- */

static void run_scrub(struct service *s, struct rpc_req *req)
{
    Replfs__OrderReply r = REPLFS__ORDER_REPLY__INIT;
    int rc = scrub_command(serve_scrub(s), req->env->order_req->scrub->what);
    if (rc != 0)
        serve_fail(s, req, rc, 0, "the scrub does not know command %d",
                   (int)req->env->order_req->scrub->what);
    else
        order_reply(s, req, &r);
}

/* ---- dispatch ---- */

static void order_run(void *arg)
{
    struct order *job = arg;
    struct service *s = job->s;
    struct rpc_req *req = job->req;
    free(job);
    if (serve_stopping(s)) {
        serve_fail(s, req, -ERR_SHUTDOWN, 0, "the chunkd is stopping");
        return;
    }
    if (clock_mono() > req->deadline) {
        serve_fail(s, req, -ERR_TIMEOUT, 0, "the order waited too long for a free thread");
        return;
    }
    uint64_t term = req->env->order_req->term;
    int rc = terms_order(serve_terms(s), term);
    if (rc != 0) {
        serve_fail(s, req, rc, 0, "an order of term %llu: %s", (unsigned long long)term,
                   err_str(rc));
        return;
    }
    switch (req->env->order_req->order_case) {
    case REPLFS__ORDER_REQ__ORDER_COPY:
        run_copy(s, req);
        break;
    case REPLFS__ORDER_REQ__ORDER_DELETE_CHUNKS:
        run_delete(s, req);
        break;
    case REPLFS__ORDER_REQ__ORDER_VERIFY:
        run_verify(s, req);
        break;
    case REPLFS__ORDER_REQ__ORDER_SALVAGE:
        run_salvage(s, req);
        break;
    case REPLFS__ORDER_REQ__ORDER_COMPACT:
        compaction_run(s, req);
        break;
    case REPLFS__ORDER_REQ__ORDER_SCRUB:
        run_scrub(s, req);
        break;
    case REPLFS__ORDER_REQ__ORDER__NOT_SET: /* check_order */
        break;
    }
}

/* What must hold of an order before a thread takes it. */
static int check_order(const Replfs__OrderReq *in)
{
    switch (in->order_case) {
    case REPLFS__ORDER_REQ__ORDER_COPY:
        return in->copy->chunk != 0 && in->copy->len > 0 ? 0 : -ERR_PROTOCOL;
    case REPLFS__ORDER_REQ__ORDER_DELETE_CHUNKS:
        return in->delete_chunks->n_sessions == in->delete_chunks->n_chunks ? 0 : -ERR_PROTOCOL;
    case REPLFS__ORDER_REQ__ORDER_COMPACT:
        return compaction_check(in->compact);
    case REPLFS__ORDER_REQ__ORDER_VERIFY:
    case REPLFS__ORDER_REQ__ORDER_SALVAGE:
    case REPLFS__ORDER_REQ__ORDER_SCRUB:
        return 0;
    case REPLFS__ORDER_REQ__ORDER__NOT_SET:
        break;
    }
    return -ERR_PROTOCOL;
}

void orders_request(struct service *s, struct rpc_req *req)
{
    const Replfs__OrderReq *in = req->env->order_req;
    int rc = check_order(in);
    if (rc != 0) {
        serve_fail(s, req, rc, 0, "order %d is not one this chunkd knows", (int)in->order_case);
        return;
    }
    struct order *job = malloc(sizeof(*job));
    if (!job)
        abort();
    *job = (struct order){s, req};
    if (serve_run_order(s, req, order_run, job) != 0)
        free(job);
}
