/* forward: one append, stored here and forwarded to the rest of its chain.
 *
 * The bytes go to the first hop of `chain` and to the own store at the same moment, from the same
 * buffer; the answer is sent when both have ended. States of an append: two parts (store, chain)
 * pending, the last one to end answers. Without a chain the second part does not exist.
 *
 * Where the next hop is, metad has said (registry.h). While it is being asked the chain's part waits,
 * and with it what comes later on the same connection.
 *
 * Invariant: appends of one connection reach the store and the next hop in the order they arrived,
 * since both are started here, on the connection's one loop thread, and neither call blocks; what waits
 * for the registry is started by it in that order.
 *
 * While this chunkd is being drained it takes no bytes, also of chunks that it has: their writers go on in other chunks, and
 * what is here can be copied and dropped (disks_shut).
 *
 * Failure modes: an own failure answers with its own code and this chunkd's id. A failure below
 * answers ERR_CHAIN with the deepest chunkd known to have failed, and its code: the one a hop below named, else
 * the next hop itself (unreachable, timed out). The client then knows whom to leave out. Bytes that
 * some copies have stored nevertheless do no harm: they are never committed. Deadlines shrink on
 * the way down, so that the hop next to a hanging one reports it, before those above give up.
 *
 * Thread context: starts on a loop thread (what waited, on the heartbeat's), ends on the store's writer
 * thread or a loop thread. */
#include "chain.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "rpc/cap.h"

struct append_op {
    struct service *s;
    struct rpc_req *req;
    struct disk *disk;
    atomic_uint parts;     /* still pending */
    int store_code;        /* valid when the store's part has ended */
    int chain_code;        /* valid when the chain's part has ended */
    int chain_cause;       /* the code with which chain_failed failed */
    uint32_t chain_failed; /* chunkd that failed below */
    char chain_detail[320];
    uint32_t below[CHAIN_MAX_HOPS];
    uint64_t below_registrations[CHAIN_MAX_HOPS];
    size_t nbelow; /* chunkds below that have the bytes */
    struct registry_wait next_hop;
};

static void answer(struct append_op *op)
{
    const Replfs__AppendReq *in = op->req->env->append_req;
    if (op->store_code != 0) {
        serve_fail(op->s, op->req, op->store_code, 0, "append to chunk %llx at %u+%u: %s",
                   (unsigned long long)in->chunk, in->chunk_off, in->len, err_str(op->store_code));
    } else if (op->chain_code != 0) {
        serve_fail_chain(op->s, op->req, op->chain_cause, op->chain_failed, op->chain_detail);
    } else {
        uint32_t stored[CHAIN_MAX_HOPS + 1];
        uint64_t registrations[CHAIN_MAX_HOPS + 1];
        stored[0] = serve_chunkd(op->s);
        registrations[0] = serve_registration(op->s);
        for (size_t i = 0; i < op->nbelow; i++) {
            stored[i + 1] = op->below[i];
            registrations[i + 1] = op->below_registrations[i];
        }
        Replfs__AppendReply ar = REPLFS__APPEND_REPLY__INIT;
        ar.stored = stored;
        ar.registrations = registrations;
        ar.n_stored = ar.n_registrations = op->nbelow + 1;
        RPC_ENVELOPE(env, APPEND_REPLY, append_reply, &ar);
        serve_count(op->s, 0, in->len);
        serve_reply(op->s, op->req, &env, NULL);
    }
    free(op);
}

static void part_done(struct append_op *op)
{
    if (atomic_fetch_sub(&op->parts, 1) == 1)
        answer(op);
}

static void store_part_done(void *arg, int code)
{
    struct append_op *op = arg;
    op->store_code = code;
    if (code != 0)
        disks_append_failed(serve_disks(op->s), op->req->env->append_req->chunk, op->disk);
    disks_writer_leave(serve_disks(op->s));
    part_done(op);
}

/* Takes apart what the next hop (or rpc, on its behalf) answered. */
static void chain_part_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)payload;
    struct append_op *op = arg;
    const Replfs__ChainHop *hop = op->req->env->append_req->chain[0];
    const char *detail = "";
    uint32_t deeper = 0;
    op->chain_failed = hop->chunkd;
    if (code == 0 && (!rep || rep->body_case != REPLFS__ENVELOPE__BODY_APPEND_REPLY))
        code = -ERR_PROTOCOL;
    if (code == 0) {
        const Replfs__AppendReply *ar = rep->append_reply;
        op->nbelow = ar->n_stored < CHAIN_MAX_HOPS ? ar->n_stored : CHAIN_MAX_HOPS;
        for (size_t i = 0; i < op->nbelow; i++) {
            op->below[i] = ar->stored[i];
            op->below_registrations[i] = i < ar->n_registrations ? ar->registrations[i] : 0;
        }
        if (ar->n_stored != op->req->env->append_req->n_chain)
            code = -ERR_PROTOCOL; /* somebody was left out */
    } else if (rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE) {
        detail = rep->failure->detail;
        if (rep->failure->chunkd != 0)
            op->chain_failed = rep->failure->chunkd;
        deeper = rep->failure->cause < INT_MAX ? rep->failure->cause : 0;
    }
    op->chain_cause = deeper ? -(int)deeper : code;
    if (code != 0)
        snprintf(op->chain_detail, sizeof(op->chain_detail), "chunkd %u at %s: %s%s%s", hop->chunkd,
                 hop->addr, err_str(code), *detail ? ": " : "", detail);
    op->chain_code = code;
    part_done(op);
}

static int check_request(struct service *s, const struct rpc_req *req, const char **what)
{
    const Replfs__AppendReq *in = req->env->append_req;
    *what = "length";
    if (in->len == 0 || in->len > 1u << 20 || !req->payload || req->payload->len != in->len)
        return -ERR_PROTOCOL;
    *what = "number of CRCs";
    if (in->crcs.len != crc_blocks(in->len) * 4)
        return -ERR_PROTOCOL;
    *what = "chunk";
    if (in->chunk == 0)
        return -ERR_PROTOCOL;
    *what = "end beyond a chunk's limit";
    if (in->chunk_off > CHAIN_CHUNK_MAX - in->len)
        return -EFBIG;
    *what = "chain";
    if (in->n_chain > CHAIN_MAX_HOPS)
        return -ERR_PROTOCOL;
    for (size_t i = 0; i < in->n_chain; i++)
        if (in->chain[i]->chunkd == serve_chunkd(s) || in->chain[i]->addr[0] == '\0')
            return -ERR_PROTOCOL;
    *what = "capability";
    return serve_check_cap(s, &in->cap, in->chunk, in->session, in->session, CAP_APPEND);
}

static int find_disk(struct service *s, const Replfs__AppendReq *in, struct disk **disk)
{
    if (in->chunk_off == 0)
        return disks_place(serve_disks(s), in->chunk, in->len, disk);
    *disk = disks_find(serve_disks(s), in->chunk, false);
    return *disk ? 0 : -ERR_NO_CHUNK;
}

/* code: whether addr is that of the next hop, or why not. */
static void send_down(struct append_op *op, int code, const char *addr)
{
    const struct rpc_req *req = op->req;
    const Replfs__AppendReq *in = req->env->append_req;
    struct rpc_conn *conn = NULL;
    int rc = code ? code : peers_get(serve_peers(op->s), addr, &conn);
    if (rc != 0) {
        chain_part_done(op, rc, NULL, NULL);
        return;
    }
    unsigned timeout = serve_time_left(req);
    Replfs__AppendReq down = *in; /* same message, shorter chain; the bytes are shared */
    down.chain = in->chain + 1;
    down.n_chain = in->n_chain - 1;
    RPC_ENVELOPE(env, APPEND_REQ, append_req, &down);
    env.trace = req->trace;
    rpc_call(conn, &env, buf_ref(req->payload), timeout ? timeout : 1, chain_part_done, op);
    rpc_conn_unref(conn);
}

static void hop_found(struct registry_wait *w, int code, const char *addr)
{
    send_down((struct append_op *)((char *)w - offsetof(struct append_op, next_hop)), code, addr);
}

static void chain_down(struct append_op *op)
{
    const Replfs__ChainHop *hop = op->req->env->append_req->chain[0];
    char addr[REGISTRY_ADDR] = "";
    op->next_hop =
        (struct registry_wait){.done = hop_found, .line = op->req->conn, .chunkd = hop->chunkd};
    int rc = registry_find(serve_registry(op->s), &op->next_hop, hop->addr, addr);
    if (rc != REGISTRY_LATER)
        send_down(op, rc, addr);
}

void chain_append(struct service *s, struct rpc_req *req)
{
    const Replfs__AppendReq *in = req->env->append_req;
    const char *what;
    int rc = check_request(s, req, &what);
    if (rc != 0) {
        serve_fail(s, req, rc, 0, "Append of %u bytes to chunk %llx at %u: wrong %s", in->len,
                   (unsigned long long)in->chunk, in->chunk_off, what);
        return;
    }
    if (!disks_writer_enter(serve_disks(s))) {
        serve_fail(s, req, -ENOSPC, 0, "Append to chunk %llx at %u: this chunkd is being drained",
                   (unsigned long long)in->chunk, in->chunk_off);
        return;
    }
    struct disk *disk;
    rc = find_disk(s, in, &disk);
    if (rc != 0) {
        disks_writer_leave(serve_disks(s));
        serve_fail(s, req, rc, 0, "Append to chunk %llx at %u: %s", (unsigned long long)in->chunk,
                   in->chunk_off, err_str(rc));
        return;
    }
    struct append_op *op = calloc(1, sizeof(*op));
    if (!op)
        abort();
    op->s = s;
    op->req = req;
    op->disk = disk;
    atomic_store(&op->parts, in->n_chain > 0 ? 2 : 1);
    struct store_append a = {
        .chunk = in->chunk,
        .session = in->session,
        .ino = in->ino,
        .file_off = in->file_off,
        .chunk_off = in->chunk_off,
        .data = req->payload,
        .crcs = in->crcs.data,
        .sync = in->sync,
    };
    if (in->n_chain > 0)
        chain_down(op); /* req lives at least until the store's part has ended */
    store_append(disk_store(disk), &a, store_part_done, op);
}
