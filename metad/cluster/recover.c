/* What a person decides about another future of the metadata and about chunks that nobody knows:
 * replfsctl recover and replfsctl quarantine.
 *
 * Quarantined copies are strays of their chunkds that the judge (reports.c) keeps. Releasing them
 * orders their deletion, once: a chunkd that is away keeps its own, and they are listed again when it
 * is back. A metad that is behind releases nothing: its right directory may still turn up.
 *
 * Thread context: rpc loop threads; the log thread for completions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/compare.h"
#include "base/lock.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"
#define LIST_MAX 2000u /* items in one reply */

uint64_t recover_quarantined(const struct nodes *n)
{
    lock_assert_held(&n->mu);
    uint64_t sum = 0;
    for (uint32_t i = 1; i < n->nnodes; i++)
        sum += n->node[i] ? n->node[i]->nquarantine : 0;
    return sum;
}

/* ---- recover ---- */

static void recover_reply(struct nodes *n, struct rpc_req *req)
{
    Replfs__RecoverReply rep = REPLFS__RECOVER_REPLY__INIT;
    Replfs__FutureInfo info[FSM_FUTURES_MAX], *list[FSM_FUTURES_MAX];
    struct fsm_future u;

    fsm_rdlock(n->cfg.fsm);
    for (uint32_t i = 0; fsm_future_at(n->cfg.fsm, i, &u); i++) {
        replfs__future_info__init(&info[i]);
        info[i].incarnation = u.incarnation;
        info[i].position = u.position;
        info[i].time_ns = u.time;
        info[i].accepted = u.accepted;
        list[i] = &info[i];
        rep.n_futures = i + 1;
    }
    lock_acquire(&n->mu);
    rep.behind = nodes_past_behind(n);
    rep.quarantine = recover_quarantined(n);
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
    rep.futures = list;
    RPC_ENVELOPE(env, RECOVER_REPLY, recover_reply, &rep);
    rpc_reply(req, &env, NULL);
}

struct accepting {
    struct nodes *n;
    struct rpc_req *req;
    int code;
};

static void accept_applied(void *arg, int code, const struct fsm_result *res)
{
    struct accepting *a = arg;
    a->code = code ? code : -res->code;
    if (a->code)
        return;
    LOCK_SCOPE(&a->n->mu);
    a->n->distrust = false;
    nodes_start_walk(a->n); /* what waited for it */
}

static void accept_after(void *arg)
{
    struct accepting *a = arg;
    if (a->code) {
        nodes_fail(a->n, a->req, a->code, "the decision did not get into the metadata log");
    } else {
        log_warn(
            "recover --accept: what other copies of the metadata became is lost; this metad goes "
            "on from what it has");
        recover_reply(a->n, a->req);
    }
    nodes_proposed(a->n);
    free(a);
}

void nodes_rpc_recover(struct nodes *n, struct rpc_req *req)
{
    Replfs__RecoverOp op = REPLFS__RECOVER_OP__INIT;
    Replfs__MetaOp mop = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;

    if (!req->env->recover_req->accept) {
        recover_reply(n, req);
        return;
    }
    struct accepting *a = calloc(1, sizeof(*a));
    if (!a)
        abort();
    *a = (struct accepting){.n = n, .req = req};
    mop.op_case = REPLFS__META_OP__OP_RECOVER;
    mop.recover = &op;
    cmd.op = &mop;
    nodes_propose(n, &cmd, accept_applied, accept_after, a);
}

/* ---- quarantine ---- */

static int by_chunk(const void *x, const void *y)
{
    const struct stray *a = *(struct stray *const *)x, *b = *(struct stray *const *)y;
    return compare_u64(&a->chunk, &b->chunk);
}

/* The quarantined strays of d behind chunk `after`, ascending; malloc'ed. Lock held. */
static const struct stray **sorted(const struct node *d, uint64_t after, size_t *n)
{
    const struct stray **v = malloc((d->nquarantine + 1ul) * sizeof(*v));
    if (!v)
        abort();
    *n = 0;
    for (uint32_t i = 0; i < d->nstrays; i++)
        if (d->strays[i].quarantine && d->strays[i].chunk > after)
            v[(*n)++] = &d->strays[i];
    qsort(v, *n, sizeof(*v), by_chunk);
    return v;
}

struct listing {
    Replfs__QuarantineItem item[LIST_MAX], *list[LIST_MAX];
    char host[LIST_MAX][64];
    size_t n;
    bool more;
};

static void list_node(struct listing *l, const struct node *d, uint64_t after)
{
    size_t n;
    CLEANUP(free_ptr) const struct stray **v = sorted(d, after, &n);
    for (size_t i = 0; i < n; i++) {
        if (l->n == LIST_MAX) {
            l->more = true;
            return;
        }
        Replfs__QuarantineItem *it = l->list[l->n] = &l->item[l->n];
        replfs__quarantine_item__init(it);
        it->chunk = v[i]->chunk;
        it->chunkd = d->id;
        it->session = v[i]->session;
        it->len = v[i]->len;
        memcpy(l->host[l->n], d->host_name, sizeof(l->host[0]));
        it->host_name = l->host[l->n++];
    }
}

static void quarantine_list(struct nodes *n, struct rpc_req *req)
{
    const Replfs__QuarantineReq *r = req->env->quarantine_req;
    Replfs__QuarantineReply rep = REPLFS__QUARANTINE_REPLY__INIT;
    struct listing *l = calloc(1, sizeof(*l));
    if (!l)
        abort();
    lock_acquire(&n->mu);
    for (uint32_t i = r->chunkd ? r->chunkd : 1; i < n->nnodes && !l->more; i++)
        if (n->node[i])
            list_node(l, n->node[i], i == r->chunkd ? r->after : 0);
    lock_release(&n->mu);
    rep.items = l->list;
    rep.n_items = l->n;
    rep.more = l->more;
    RPC_ENVELOPE(env, QUARANTINE_REPLY, quarantine_reply, &rep);
    rpc_reply(req, &env, NULL);
    free(l);
}

static uint64_t release_node(struct nodes *n, struct node *d, uint64_t chunk)
{
    uint64_t done = 0;
    for (uint32_t i = 0; i < d->nstrays; i++) {
        struct stray *s = &d->strays[i];
        if (!s->quarantine || s->state != STRAY_KEPT || (chunk && s->chunk != chunk))
            continue;
        s->state = STRAY_DELETING;
        s->at = clock_mono();
        orders_delete(n, d, s->chunk, s->session, NULL);
        done++;
    }
    return done;
}

static void quarantine_release(struct nodes *n, struct rpc_req *req)
{
    const Replfs__QuarantineReq *r = req->env->quarantine_req;
    Replfs__QuarantineReply rep = REPLFS__QUARANTINE_REPLY__INIT;
    fsm_wrlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    bool behind = nodes_past_behind(n);
    for (uint32_t i = 1; i < n->nnodes && !behind; i++)
        if (n->node[i] && n->node[i]->conn)
            rep.released += release_node(n, n->node[i], r->release_all ? 0 : r->release);
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
    if (behind) {
        rpc_fail(
            req, -EBUSY,
            "this metad is older than what chunkds have seen, nothing is deleted: first put its "
            "right data directory back, or decide with replfsctl recover --accept");
        return;
    }
    if (rep.released)
        log_warn("%llu copies of chunks are released from quarantine: they are deleted",
                 (unsigned long long)rep.released);
    RPC_ENVELOPE(env, QUARANTINE_REPLY, quarantine_reply, &rep);
    rpc_reply(req, &env, NULL);
    nodes_poke(n);
}

void nodes_rpc_quarantine(struct nodes *n, struct rpc_req *req)
{
    const Replfs__QuarantineReq *r = req->env->quarantine_req;
    if (r->fetch)
        salvage_fetch(n, req);
    else if (r->release || r->release_all)
        quarantine_release(n, req);
    else
        quarantine_list(n, req);
}
