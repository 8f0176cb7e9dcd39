/* The scrub of chunkds, as metad has to do with it: what it found is verified and healed, an administrator's word is passed
 * on, and chunks of which no copy in reach has everything are listed by file and range.
 *
 * A chunkd tells a few bad copies in each heartbeat, and tells them again until they are healed or gone; so nothing need
 * be remembered or answered here. Told copies are treated as those that a client could not read (nodes_report_bad): in
 * doubt, so that the planner has every byte of them read. But no session's share of doubts limits it: a chunkd can only
 * speak of its own copies, and tells few at once. Bytes that no file needs are nobody's loss: of a copy that is bad behind
 * what counts of it, nothing is to be healed.
 *
 * Locks: fsm lock, nodes.mu. rpc loop threads. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/lock.h"
#include "base/log.h"
#include "status_internal.h"

#define LOG_MODULE "nodes"
#define SCRUB_MS 10000u
#define SCRUB_CHUNKDS_MAX 4096u
#define FOUND_MAX 64u /* of one heartbeat */
#define DAMAGED_SLICE 16384u
#define DAMAGED_PAGE 2000u      /* ranges in a reply, */
#define DAMAGED_OF_CHUNK 16384u /* and those of its last chunk */

/* ---- what it found ---- */

void nodes_scrub_disk(struct node_disk *k, const Replfs__ScrubStat *told)
{
    replfs__scrub_stat__init(&k->scrub);
    if (!told || told->state > REPLFS__SCRUB_STATE__SCRUB_STOPPED)
        return;
    ProtobufCMessage base = k->scrub.base; /* ours: what else came in the message goes with it */
    k->scrub = *told;                      /* numbers alone */
    k->scrub.base = base;
}

/* Locks held. */
static bool doubt_copy(struct nodes *n, const struct node *d, const Replfs__BadCopy *b)
{
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, b->chunk);
    struct fsm_loc *l = c && c->session == b->session ? reports_loc(c, d->id) : NULL;
    char label[256];
    if (!l || (l->state != COPY_OK && l->state != COPY_SHORT) || b->off >= damage_len(n, c) ||
        damage_known(n, c->id))
        return false;
    log_warn("the scrub of %s found the copy of chunk %016llx bad at byte %u: having it checked",
             nodes_label(d, label), (unsigned long long)c->id, b->off);
    l->state = COPY_CHECKING;
    orders_consider(n, c, 0);
    return true;
}

void nodes_scrub_found(struct nodes *n, const Replfs__HeartbeatReq *h)
{
    bool any = false;
    fsm_wrlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    const struct node *d = nodes_find(n, h->chunkd);
    for (size_t i = 0; d && i < h->n_bad && i < FOUND_MAX; i++)
        any |= doubt_copy(n, d, h->bad[i]);
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
    if (any)
        nodes_poke(n);
}

/* ---- an administrator's word ---- */

struct scrub_ask { /* of one ScrubReq */
    struct rpc_req *req;
    atomic_uint waiting; /* answers to come, and the sender */
    size_t n;
    struct scrub_one {
        struct scrub_ask *ask;
        struct rpc_conn *conn;
        Replfs__ScrubAnswer answer;
        char host_name[64], detail[160];
    } v[];
};

static void ask_done(struct scrub_ask *a)
{
    if (atomic_fetch_sub(&a->waiting, 1) != 1)
        return;
    Replfs__ScrubReply rep = REPLFS__SCRUB_REPLY__INIT;
    Replfs__ScrubAnswer **list = malloc((a->n + 1) * sizeof(Replfs__ScrubAnswer *));
    if (!list)
        abort();
    for (size_t i = 0; i < a->n; i++)
        list[i] = &a->v[i].answer;
    rep.answers = list;
    rep.n_answers = a->n;
    RPC_ENVELOPE(env, SCRUB_REPLY, scrub_reply, &rep);
    rpc_reply(a->req, &env, NULL);
    free(list);
    free(a);
}

static void scrub_answered(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct scrub_one *o = arg;
    (void)payload;
    if (code == 0 && rep->body_case != REPLFS__ENVELOPE__BODY_ORDER_REPLY)
        code = -ERR_PROTOCOL;
    o->answer.code = (uint32_t)-code;
    if (code)
        snprintf(o->detail, sizeof(o->detail), "%s",
                 rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE ? rep->failure->detail
                                                                         : err_str(code));
    ask_done(o->ask);
}

static bool is_asked(const Replfs__ScrubReq *r, uint32_t chunkd)
{
    bool asked = r->n_chunkd == 0;
    for (size_t i = 0; i < r->n_chunkd; i++)
        asked |= r->chunkd[i] == chunkd;
    return asked;
}

static struct scrub_one *ask_add(struct scrub_ask *a, uint32_t chunkd, int code, const char *detail)
{
    struct scrub_one *o = &a->v[a->n++];
    o->ask = a;
    snprintf(o->detail, sizeof(o->detail), "%s", detail);
    replfs__scrub_answer__init(&o->answer);
    o->answer.chunkd = chunkd;
    o->answer.code = (uint32_t)code;
    o->answer.host_name = o->host_name;
    o->answer.detail = o->detail;
    return o;
}

/* Of each chunkd that is meant: a place in the answer, and its connection. Of each number that is none: that. Lock held. */
static struct scrub_ask *ask_new(struct nodes *n, struct rpc_req *req)
{
    const Replfs__ScrubReq *r = req->env->scrub_req;
    struct scrub_ask *a = calloc(1, sizeof(*a) + (n->nnodes + r->n_chunkd) * sizeof(a->v[0]));
    if (!a)
        abort();
    a->req = req;
    for (uint32_t i = 1; i < n->nnodes; i++) {
        const struct node *d = n->node[i];
        if (!d || nodes_gone(d) || !is_asked(r, i))
            continue;
        struct scrub_one *o =
            ask_add(a, i, d->conn ? 0 : ERR_PEER_GONE, d->conn ? "" : "it is not connected");
        o->conn = d->conn ? rpc_conn_ref(d->conn) : NULL;
        snprintf(o->host_name, sizeof(o->host_name), "%s", d->host_name);
    }
    for (size_t i = 0; i < r->n_chunkd; i++) {
        const struct node *d = nodes_find(n, r->chunkd[i]);
        if (!d || nodes_gone(d))
            ask_add(a, r->chunkd[i], ENOENT, "there is no such chunkd: see replfsctl chunkd list");
    }
    return a;
}

void nodes_rpc_scrub(struct nodes *n, struct rpc_req *req)
{
    const Replfs__ScrubReq *r = req->env->scrub_req;
    Replfs__OrderReq order = REPLFS__ORDER_REQ__INIT;
    Replfs__ScrubOrder so = REPLFS__SCRUB_ORDER__INIT;
    if (r->n_chunkd > SCRUB_CHUNKDS_MAX || (unsigned)r->what > REPLFS__SCRUB_WHAT__SCRUB_RESUME) {
        rpc_fail(req, -EINVAL, "no such command of the scrub");
        return;
    }
    so.what = r->what;
    order.order_case = REPLFS__ORDER_REQ__ORDER_SCRUB;
    order.scrub = &so;
    lock_acquire(&n->mu);
    struct scrub_ask *a = ask_new(n, req);
    order.term = n->lead.term;
    lock_release(&n->mu);
    atomic_store(&a->waiting, (unsigned)a->n + 1);
    for (size_t i = 0; i < a->n; i++) {
        struct scrub_one *o = &a->v[i];
        struct rpc_conn *conn = o->conn;
        if (!conn) { /* answered already */
            ask_done(a);
            continue;
        }
        RPC_ENVELOPE(env, ORDER_REQ, order_req, &order);
        rpc_call(conn, &env, NULL, SCRUB_MS, scrub_answered, o);
        rpc_conn_unref(conn);
    }
    ask_done(a);
}

/* ---- damaged ---- */

/* A page ends between two chunks. */
struct damage_list {
    struct status_ask mem;
    struct nodes *n;
    Replfs__DamagedRange *list[DAMAGED_PAGE + DAMAGED_OF_CHUNK];
    size_t count;
    uint64_t *pos, stop; /* of the walk; where the next page begins */
    bool full;
    /* of the chunk that is being listed */
    uint64_t chunk;
    uint32_t from;
    bool whole;
};

static bool list_range(void *arg, uint64_t ino, const struct ext *e)
{
    struct damage_list *l = arg;
    uint32_t skip = l->from > e->chunk_off ? l->from - e->chunk_off : 0;
    if (skip >= e->len || l->count == DAMAGED_PAGE + DAMAGED_OF_CHUNK)
        return l->count < DAMAGED_PAGE + DAMAGED_OF_CHUNK;
    Replfs__DamagedRange *r = l->list[l->count++] = status_alloc(&l->mem, sizeof(*r));
    replfs__damaged_range__init(r);
    r->ino = ino;
    r->chunk = l->chunk;
    r->off = e->file_off + skip;
    r->len = e->len - skip;
    r->whole = l->whole;
    return true;
}

/* No copy is good, to be checked, or on a chunkd or disk that may come back. As status counts `lost`. */
static bool is_nowhere(const struct nodes *n, const struct fsm_chunk *c)
{
    struct repair_chunk v;
    struct repair_tally t;
    orders_view(n, c, &v);
    repair_tally(&n->ctx, &v, &t);
    return !t.good && !t.unsure && !t.rescue && !t.away && !n->ctx.unreported && !n->settling;
}

static void list_chunk(void *arg, struct fsm_chunk *c)
{
    struct damage_list *l = arg;
    bool damaged = damage_lost(l->n, c);
    l->whole = !damaged && is_nowhere(l->n, c);
    if (!damaged && !l->whole)
        return;
    l->full |= l->count >= DAMAGED_PAGE;
    if (l->full) {
        l->stop = l->stop ? l->stop : *l->pos;
        return;
    }
    l->chunk = c->id;
    l->from = damaged ? damage_len(l->n, c) : 0;
    fsm_chunk_extents(l->n->cfg.fsm, c, list_range, l);
}

void nodes_rpc_damaged(struct nodes *n, struct rpc_req *req)
{
    Replfs__DamagedReply rep = REPLFS__DAMAGED_REPLY__INIT;
    struct damage_list *l = calloc(1, sizeof(*l));
    if (!l)
        abort();
    l->n = n;
    l->pos = &rep.cookie;
    rep.cookie = req->env->damaged_req->cookie;
    rep.more = true;
    while (rep.more && !l->full) {
        fsm_rdlock(n->cfg.fsm);
        lock_acquire(&n->mu);
        rep.more = fsm_chunk_walk(n->cfg.fsm, &rep.cookie, DAMAGED_SLICE, list_chunk, l);
        lock_release(&n->mu);
        fsm_unlock(n->cfg.fsm);
    }
    if (l->full) { /* its place is the position before it */
        rep.cookie = l->stop - 1;
        rep.more = true;
    }
    rep.ranges = l->list;
    rep.n_ranges = l->count;
    RPC_ENVELOPE(env, DAMAGED_REPLY, damaged_reply, &rep);
    rpc_reply(req, &env, NULL);
    status_free(&l->mem);
    free(l);
}
