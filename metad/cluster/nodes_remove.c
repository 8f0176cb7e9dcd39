/* A chunkd that has left for good: replfsctl chunkd remove.
 *
 * Refused while it is connected, unless it was drained and nothing is on it any more (leave_removable: then the log, too,
 * takes it only as long as it drains, so that nothing was placed there meanwhile), while this metad has just started and does not know yet what others have, and
 * while it may hold the last copy of a chunk: one of which no other chunkd that is up has a good copy, and which
 * it has, or might have if it has not told since we lead. Otherwise a ChunkdRemoveOp is logged; the id stays
 * taken for ever (a removed member has no host id), so that the chunkd is refused when it comes back, rather
 * than taken for another one. Until the next start its node remains, unseen: copies may still name it.
 *
 * Thread context: rpc threads, the log thread for the completion. */
#include <errno.h>
#include <stdlib.h>

#include "base/lock.h"
#include "base/error.h"
#include "base/log.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"
#define SLICE 16384

struct removing {
    struct nodes *n;
    struct rpc_req *req;
    uint32_t chunkd;
    bool drained;
    int code;
    struct rpc_conn *conn; /* that it had, a reference */
};

struct last_copies {
    const struct nodes *n;
    uint32_t chunkd;
    bool may_have; /* any: it has not told what it has */
    uint64_t found, example;
};

/* fsm lock and lock held. */
static void remove_look(void *arg, struct fsm_chunk *c)
{
    struct last_copies *k = arg;
    const struct fsm_loc *l = fsm_chunk_locs(c);
    bool here = k->may_have;
    for (unsigned i = 0; i < c->nloc; i++) {
        const struct node *d = l[i].chunkd < k->n->nnodes ? k->n->node[l[i].chunkd] : NULL;
        if (l[i].chunkd == k->chunkd)
            here = true;
        else if (d && d->state == REPLFS__NODE_STATE__NODE_UP && l[i].state == COPY_OK)
            return;
    }
    if (!here || !c->refs)
        return;
    if (!k->found++)
        k->example = c->id;
}

static void count_last(struct nodes *n, struct last_copies *k)
{
    uint64_t pos = 0;
    bool more = true;
    while (more) {
        fsm_rdlock(n->cfg.fsm);
        lock_acquire(&n->mu);
        more = fsm_chunk_walk(n->cfg.fsm, &pos, SLICE, remove_look, k);
        lock_release(&n->mu);
        fsm_unlock(n->cfg.fsm);
    }
}

static void remove_applied(void *arg, int code, const struct fsm_result *res)
{
    struct removing *a = arg;
    char label[256];
    a->code = code ? code : -res->code;
    if (a->code)
        return;
    LOCK_SCOPE(&a->n->mu); /* fsm write lock held */
    struct node *d = nodes_find(a->n, a->chunkd);
    if (!d)
        return;
    d->removed = true;
    d->state = REPLFS__NODE_STATE__NODE_DEAD;
    if (d->conn)
        nodes_drop_conn(a->n, d, &a->conn);
    nodes_refresh(a->n, d);
    a->n->epoch++;
    nodes_start_walk(a->n);
    log_info("%s is removed from the cluster", nodes_label(d, label));
}

static void remove_after(void *arg)
{
    struct removing *a = arg;
    Replfs__ChunkdRemoveReply rep = REPLFS__CHUNKD_REMOVE_REPLY__INIT;
    RPC_ENVELOPE(env, CHUNKD_REMOVE_REPLY, chunkd_remove_reply, &rep);
    if (a->code)
        nodes_fail(a->n, a->req, a->code, "the chunkd could not be removed");
    else
        rpc_reply(a->req, &env, NULL);
    if (a->conn)
        rpc_conn_close(a->conn);
    rpc_conn_unref(a->conn);
    nodes_poke(a->n);
    nodes_proposed(a->n);
    free(a);
}

static void remove_propose(struct nodes *n, struct rpc_req *req, uint32_t chunkd, bool drained)
{
    Replfs__ChunkdRemoveOp op = REPLFS__CHUNKD_REMOVE_OP__INIT;
    Replfs__MetaOp mop = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct removing *a = calloc(1, sizeof(*a));
    if (!a)
        abort();
    *a = (struct removing){.n = n, .req = req, .chunkd = chunkd, .drained = drained};
    op.chunkd = chunkd;
    op.drained = drained;
    mop.op_case = REPLFS__META_OP__OP_CHUNKD_REMOVE;
    mop.chunkd_remove = &op;
    cmd.op = &mop;
    nodes_propose(n, &cmd, remove_applied, remove_after, a);
}

void nodes_rpc_remove(struct nodes *n, struct rpc_req *req)
{
    struct last_copies k = {.n = n, .chunkd = req->env->chunkd_remove_req->chunkd};
    char label[256] = "";
    lock_acquire(&n->mu);
    const struct node *d = nodes_find(n, k.chunkd);
    bool known = d && !d->removed, drained = known && leave_removable(d);
    bool there = known && d->conn && !drained, settling = n->settling;
    k.may_have = known && !d->reported_once;
    if (known)
        nodes_label(d, label);
    lock_release(&n->mu);
    if (!known) {
        rpc_fail(req, -ENOENT, "there is no chunkd %u: see replfsctl chunkd list", k.chunkd);
        return;
    }
    if (there) {
        rpc_fail(
            req, -EBUSY,
            "%s is connected: drain it first (replfsctl chunkd drain %u) and wait until it can "
            "be removed; or stop its daemon, and wait until its chunks are copied",
            label, k.chunkd);
        return;
    }
    if (settling) {
        rpc_fail(req, -ERR_BUSY,
                 "metad has just started and does not know yet what all chunkds have: try again");
        return;
    }
    count_last(n, &k);
    if (k.found) {
        rpc_fail(
            req, -EBUSY,
            "%s may hold the last good copy of %llu chunks (%016llx is one): wait until they are "
            "copied "
            "(replfsctl status), start it again, or delete the files that cannot be read any more",
            label, (unsigned long long)k.found, (unsigned long long)k.example);
        return;
    }
    remove_propose(n, req, k.chunkd, drained);
}
