/* What chunkds remember of metads, compared with this one's own past.
 *
 * A chunkd tells at registration where the newest metad that it believed stood (seen), and where one
 * stood that said itself that it was behind (astray). Either is in this state's past, or another copy
 * of metad's directory has run: that is logged (FutureOp) before the chunkd is answered, so that
 * nothing of it is judged before. A future that was seen means that this metad is behind: it deletes
 * nothing and says so, until a person decides (RecoverOp). One that was astray is a mistake that is
 * over; what came of it is kept all the same.
 *
 * Whatever is told of ids given raises those that this metad gives.
 *
 * Thread context: rpc loop threads, and the log thread for completions. */
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/error.h"
#include "base/log.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"

void nodes_past_fill(struct nodes *n, struct past_standing *out)
{
    struct fsm_mark mark;

    replfs__standing__init(&out->msg);
    fsm_rdlock(n->cfg.fsm);
    fsm_mark(n->cfg.fsm, &mark);
    fsm_reserved(n->cfg.fsm, &out->msg.chunk_upto, &out->msg.ino_upto);
    out->msg.n_before = fsm_ancestors(n->cfg.fsm, out->before, PAST_ANCESTORS);
    out->behind = fsm_behind(n->cfg.fsm);
    fsm_unlock(n->cfg.fsm);
    out->msg.before = out->before;
    out->msg.incarnation = mark.incarnation;
    out->msg.position = mark.position;
    LOCK_SCOPE(&n->mu);
    out->msg.chunkd_upto = n->next_id;
}

void nodes_past_ids(struct nodes *n, uint64_t chunk_upto, uint64_t ino_upto)
{
    if (n->lead.ids_told)
        n->lead.ids_told(n->lead.ids_arg, chunk_upto, ino_upto);
}

/* ---- futures ---- */

struct telling { /* a FutureOp on its way through the log */
    struct nodes *n;
    struct rpc_req *req;
    void (*then)(struct nodes *n, struct rpc_req *req);
    bool astray;
};

static bool is_news(struct nodes *n, const Replfs__Standing *s)
{
    struct fsm_mark m = {s->incarnation, s->position};

    fsm_rdlock(n->cfg.fsm);
    bool news = !fsm_mark_known(n->cfg.fsm, &m) && !fsm_future_known(n->cfg.fsm, &m);
    fsm_unlock(n->cfg.fsm);
    return news;
}

static void told_applied(void *arg, int code, const struct fsm_result *res)
{
    const struct telling *t = arg;

    if (code || res->code) {
        LOCK_SCOPE(&t->n->mu);
        t->n->distrust = true;
        log_error("another future of the metadata could not be logged: %s",
                  err_str(code ? code : -res->code));
    }
}

static void told_after(void *arg)
{
    struct telling *t = arg;

    nodes_past_check(t->n, t->req, t->astray ? PAST_DONE : PAST_ASTRAY, t->then);
    nodes_proposed(t->n);
    free(t);
}

static void past_propose(struct nodes *n, struct rpc_req *req, const Replfs__Standing *s,
                         bool astray, void (*then)(struct nodes *n, struct rpc_req *req))
{
    Replfs__FutureOp op = REPLFS__FUTURE_OP__INIT;
    Replfs__MetaOp mop = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct telling *t = calloc(1, sizeof(*t));

    if (!t)
        abort();
    *t = (struct telling){n, req, then, astray};
    op.incarnation = s->incarnation;
    op.position = s->position;
    op.before = s->before;
    op.n_before = s->n_before < PAST_ANCESTORS ? s->n_before : PAST_ANCESTORS;
    op.chunk_upto = s->chunk_upto;
    op.astray = astray;
    mop.op_case = REPLFS__META_OP__OP_FUTURE;
    mop.future = &op;
    cmd.op = &mop;
    log_warn(
        "chunkd %u on %s was told of incarnation %016llx up to position %llu%s: that is not in "
        "this metad's past, so another copy of its data directory has run; unknown chunks are "
        "kept",
        req->env->register_req->chunkd, req->env->register_req->host_name,
        (unsigned long long)op.incarnation, (unsigned long long)op.position,
        astray ? " (as one that was behind)" : "");
    nodes_propose(n, &cmd, told_applied, told_after, t);
}

void nodes_past_check(struct nodes *n, struct rpc_req *req, enum past_step step,
                      void (*then)(struct nodes *n, struct rpc_req *req))
{
    const Replfs__RegisterReq *r = req->env->register_req;

    if (step == PAST_SEEN) {
        if (r->seen && is_news(n, r->seen)) {
            past_propose(n, req, r->seen, false, then);
            return;
        }
        step = PAST_ASTRAY;
    }
    if (step == PAST_ASTRAY && r->astray && is_news(n, r->astray)) {
        past_propose(n, req, r->astray, true, then);
        return;
    }
    if (r->seen)
        nodes_past_ids(n, r->seen->chunk_upto, r->seen->ino_upto);
    else
        nodes_past_ids(n, 0, 0);
    then(n, req);
}

/* ---- what was told while following ---- */

static void note(struct past_told *t, const Replfs__Standing *s)
{
    *t = (struct past_told){0};
    if (!s)
        return;
    t->incarnation = s->incarnation;
    t->position = s->position;
    t->chunk_upto = s->chunk_upto;
    t->ino_upto = s->ino_upto;
    t->chunkd_upto = s->chunkd_upto;
    t->n = s->n_before < PAST_ANCESTORS ? (uint32_t)s->n_before : PAST_ANCESTORS;
    if (t->n > 0)
        memcpy(t->before, s->before, t->n * sizeof(t->before[0]));
}

void nodes_past_note(struct node *d, const Replfs__RegisterReq *r)
{
    note(&d->seen, r->seen);
    note(&d->astray, r->astray);
}

static void log_future(struct nodes *n, uint32_t chunkd, struct past_told *t, bool astray)
{
    Replfs__FutureOp op = REPLFS__FUTURE_OP__INIT;
    Replfs__MetaOp mop = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__Standing s = REPLFS__STANDING__INIT;
    struct fsm_result res = {0};

    s.incarnation = op.incarnation = t->incarnation;
    s.position = op.position = t->position;
    if (!t->incarnation || !is_news(n, &s))
        return;
    op.before = t->before;
    op.n_before = t->n;
    op.chunk_upto = t->chunk_upto;
    op.astray = astray;
    mop.op_case = REPLFS__META_OP__OP_FUTURE;
    mop.future = &op;
    cmd.op = &mop;
    log_warn("chunkd %u was told of incarnation %016llx up to position %llu%s: that is not in the "
             "past of the metadata; unknown chunks are kept",
             chunkd, (unsigned long long)op.incarnation, (unsigned long long)op.position,
             astray ? " (as one that was behind)" : "");
    int rc = mlog_propose_wait(n->cfg.mlog, &cmd, &res);
    if (rc || res.code) {
        LOCK_SCOPE(&n->mu);
        n->distrust = true;
    }
}

void nodes_past_lead(struct nodes *n)
{
    for (uint32_t i = 1;; i++) {
        lock_acquire(&n->mu);
        bool more = i < n->nnodes, there = more && n->node[i] && n->node[i]->conn;
        struct past_told seen = {0}, astray = {0};
        if (there) {
            seen = n->node[i]->seen;
            astray = n->node[i]->astray;
            if (seen.chunkd_upto < NODE_ID_TOLD_MAX && seen.chunkd_upto > n->next_id)
                n->next_id = seen.chunkd_upto;
        }
        lock_release(&n->mu);
        if (!more)
            return;
        if (!there)
            continue;
        log_future(n, i, &seen, false);
        log_future(n, i, &astray, true);
        nodes_past_ids(n, seen.chunk_upto, seen.ino_upto);
    }
}

/* ---- a chunkd that joined in a future ---- */

uint32_t nodes_past_next_id(const Replfs__RegisterReq *r)
{
    uint32_t upto = r->seen ? r->seen->chunkd_upto : 0;

    return upto < NODE_ID_TOLD_MAX ? upto : 0;
}

bool nodes_past_joined(struct nodes *n, const Replfs__RegisterReq *r)
{
    struct fsm_mark m = {r->seen ? r->seen->incarnation : 0, r->seen ? r->seen->position : 0};

    fsm_rdlock(n->cfg.fsm);
    bool future = m.incarnation && !fsm_mark_known(n->cfg.fsm, &m);
    fsm_unlock(n->cfg.fsm);
    return future;
}
