/* Bytes of quarantined chunks, for replfsctl quarantine adopt: metad passes on what the chunkd that has a copy answers,
 * since people's programs reach metad alone. Nothing is decided or changed here.
 *
 * Thread context: rpc loop threads. */
#include <errno.h>

#include "base/error.h"
#include "base/lock.h"
#include "nodes_internal.h"

#define SALVAGE_MS 30000u

static void salvaged(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct rpc_req *req = arg;
    Replfs__QuarantineReply r = REPLFS__QUARANTINE_REPLY__INIT;

    (void)payload;
    if (code == 0 && rep->body_case != REPLFS__ENVELOPE__BODY_ORDER_REPLY)
        code = -ERR_PROTOCOL;
    if (code) {
        rpc_fail(req, code, "%s",
                 rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE ? rep->failure->detail
                                                                         : err_str(code));
        return;
    }
    r.parts = rep->order_reply->parts;
    r.n_parts = rep->order_reply->n_parts;
    r.data = rep->order_reply->data;
    r.len = rep->order_reply->stored;
    RPC_ENVELOPE(env, QUARANTINE_REPLY, quarantine_reply, &r);
    rpc_reply(req, &env, NULL);
}

void salvage_fetch(struct nodes *n, struct rpc_req *req)
{
    const Replfs__QuarantineReq *q = req->env->quarantine_req;
    Replfs__OrderReq order = REPLFS__ORDER_REQ__INIT;
    Replfs__SalvageOrder o = REPLFS__SALVAGE_ORDER__INIT;
    struct rpc_conn *conn = NULL;
    uint64_t at;

    fsm_rdlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    bool behind = nodes_past_behind(n);
    struct node *d = q->chunkd < n->nnodes ? n->node[q->chunkd] : NULL;
    if (d && d->conn && u64map_get(&d->stray_index, q->fetch, &at) && d->strays[at].quarantine &&
        d->strays[at].session == q->fetch_session)
        conn = rpc_conn_ref(d->conn);
    order.term = n->lead.term;
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
    if (behind || !conn) {
        rpc_conn_unref(conn);
        rpc_fail(req, behind ? -EBUSY : -ENOENT, "%s",
                 behind ? "this metad is older than what chunkds have seen: first put its right "
                          "data directory back, or decide with replfsctl recover --accept"
                        : "no such copy is in quarantine, or its chunkd is away");
        return;
    }
    o.chunk = q->fetch;
    o.session = q->fetch_session;
    o.off = q->fetch_off;
    order.order_case = REPLFS__ORDER_REQ__ORDER_SALVAGE;
    order.salvage = &o;
    RPC_ENVELOPE(env, ORDER_REQ, order_req, &order);
    rpc_call(conn, &env, NULL, SALVAGE_MS, salvaged, req);
    rpc_conn_unref(conn);
}
