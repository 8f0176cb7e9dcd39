/* Orders as messages: puts a decided order on its chunkd's connection and takes the answer.
 *
 * An answer is only written down and handed to the driver (orders_answered): completions run on rpc
 * threads, or on the driver's own when the connection is already dead. Every order sent is answered
 * exactly once, at the latest by its time-out. Call without any lock. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "nodes_internal.h"

#define COPY_TIMEOUT_MS 60000u
#define CHECK_TIMEOUT_MS 60000u
#define DELETE_TIMEOUT_MS 60000u

/* rpc thread (or ours when the connection is dead). */
static void order_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct order *o = arg;
    struct nodes *n = o->n;
    (void)payload;
    o->code = code;
    if (code && rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE) {
        o->blamed = rep->failure->chunkd;
        snprintf(o->detail, sizeof(o->detail), "%s", rep->failure->detail);
    } else if (!code && rep->body_case == REPLFS__ENVELOPE__BODY_ORDER_REPLY) {
        o->bytes = rep->order_reply->bytes;
        o->good_len = rep->order_reply->len;
        o->disk = rep->order_reply->disk;
        o->bad = rep->order_reply->bad;
        o->stored = rep->order_reply->stored;
    } else if (!code) {
        o->code = -ERR_PROTOCOL;
    }
    orders_answered(n, o);
}

static void send_req(struct order *o, Replfs__OrderReq *req, unsigned timeout_ms)
{
    req->term = o->n->lead.term;
    RPC_ENVELOPE(env, ORDER_REQ, order_req, req);
    rpc_call(o->conn, &env, NULL, timeout_ms, order_done, o);
}

static void send_copy(struct order *o)
{
    Replfs__OrderReq req = REPLFS__ORDER_REQ__INIT;
    Replfs__CopyOrder copy = REPLFS__COPY_ORDER__INIT;
    Replfs__CopySource src[REPAIR_SOURCES_MAX], *psrc[REPAIR_SOURCES_MAX];
    uint8_t cap[CAP_LEN];
    nodes_cap(o->n, o->chunk, o->session, o->session, CAP_READ, cap);
    for (unsigned i = 0; i < o->nsrc; i++) {
        psrc[i] = &src[i];
        replfs__copy_source__init(&src[i]);
        src[i].chunkd = o->src[i];
        src[i].addr = o->src_addr[i];
        src[i].cap = (ProtobufCBinaryData){.len = CAP_LEN, .data = cap};
    }
    copy.chunk = o->chunk;
    copy.len = o->len;
    copy.session = o->session;
    copy.n_sources = o->nsrc;
    copy.sources = psrc;
    req.order_case = REPLFS__ORDER_REQ__ORDER_COPY;
    req.copy = &copy;
    send_req(o, &req, COPY_TIMEOUT_MS);
}

static void send_verify(struct order *o)
{
    Replfs__OrderReq req = REPLFS__ORDER_REQ__INIT;
    Replfs__VerifyOrder v = REPLFS__VERIFY_ORDER__INIT;
    v.chunk = o->chunk;
    v.len = o->len;
    v.quick = o->quick;
    v.session = o->session;
    req.order_case = REPLFS__ORDER_REQ__ORDER_VERIFY;
    req.verify = &v;
    send_req(o, &req, CHECK_TIMEOUT_MS);
}

static void send_delete(struct order *o)
{
    Replfs__OrderReq req = REPLFS__ORDER_REQ__INIT;
    Replfs__DeleteOrder del = REPLFS__DELETE_ORDER__INIT;
    uint64_t *ids = malloc(2ul * o->ndels * sizeof(*ids)), *writers = ids + o->ndels;
    if (!ids)
        abort();
    for (uint32_t i = 0; i < o->ndels; i++) {
        ids[i] = o->dels[i].chunk;
        writers[i] = o->dels[i].session;
    }
    del.n_chunks = del.n_sessions = o->ndels;
    del.chunks = ids;
    del.sessions = writers;
    req.order_case = REPLFS__ORDER_REQ__ORDER_DELETE_CHUNKS;
    req.delete_chunks = &del;
    send_req(o, &req, DELETE_TIMEOUT_MS);
    free(ids);
}

static void send_compact(struct order *o)
{
    Replfs__OrderReq req = REPLFS__ORDER_REQ__INIT;
    Replfs__CompactOrder c = REPLFS__COMPACT_ORDER__INIT;
    c.chunk = o->chunk;
    c.session = o->session;
    c.n_off = c.n_len = compacting_ranges(o->compacting, &c.to, &c.to_session, &c.off, &c.len);
    req.order_case = REPLFS__ORDER_REQ__ORDER_COMPACT;
    req.compact = &c;
    send_req(o, &req, COPY_TIMEOUT_MS);
    free(c.off); /* c.len is behind it */
}

/* No lock held. */
void orders_send_all(struct nodes *n, struct order *o)
{
    while (o) {
        struct order *next = o->next;
        nodes_outstanding(n, 1);
        if (o->kind == ORDER_COPY)
            send_copy(o);
        else if (o->kind == ORDER_VERIFY)
            send_verify(o);
        else if (o->kind == ORDER_COMPACT)
            send_compact(o);
        else
            send_delete(o);
        o = next;
    }
}
