/* How an administrator decides about a chunkd: ChunkdSetReq (replfsctl chunkd drain, undrain, capacity, pause, and
 * reclaim).
 *
 * A decision is logged (ChunkdSetOp), taken in by this metad before it is answered, and by the others as they apply it.
 * What is asked of all disks, or as a number of bytes to give back, becomes a limit for each disk that the chunkd has
 * at this moment: to reclaim 80 % of what it holds is to limit it to the rest, however much it holds when that is read
 * again. So a request that is repeated because its answer was lost, would ask for more: the limits are in the answer,
 * and replfsctl does not repeat it.
 *
 * Failure modes: refused with what is wrong; below the feature level, with how to raise it. Thread context: rpc threads, the
 * log thread for the completion. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"
#include "base/log.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"
#define EACH_DISK UINT32_MAX

struct setting {
    struct nodes *n;
    struct rpc_req *req;
    uint32_t chunkd;
    int code;
    char note[256];
    Replfs__DiskLimit limit[NODE_LIMITS_MAX], *limits[NODE_LIMITS_MAX];
    size_t nlimits;
};

/* ---- what is asked for, as limits of disks; lock held ---- */

static void limit_add(struct setting *a, uint32_t disk, const Replfs__DiskLimit *l)
{
    if (a->nlimits == NODE_LIMITS_MAX || disk >= NODE_LIMITS_MAX)
        return;
    Replfs__DiskLimit *out = &a->limit[a->nlimits];
    replfs__disk_limit__init(out);
    out->disk = disk;
    out->bytes = l->bytes;
    out->none = l->none;
    out->now = l->now;
    a->limits[a->nlimits++] = out;
}

static bool limits_asked(struct setting *a, const struct node *d, const Replfs__ChunkdSetReq *r)
{
    for (size_t i = 0; i < r->n_limits; i++) {
        bool known = false;
        for (unsigned k = 0; k < d->ndisks; k++) {
            bool it = r->limits[i]->disk == EACH_DISK || d->disks[k].disk == r->limits[i]->disk;
            known |= it && d->disks[k].disk < NODE_LIMITS_MAX;
            if (it)
                limit_add(a, d->disks[k].disk, r->limits[i]);
        }
        for (uint32_t k = 0; r->limits[i]->none && k < NODE_LIMITS_MAX; k++) {
            bool it = r->limits[i]->disk == EACH_DISK || r->limits[i]->disk == k;
            known |= it && d->limits[k].limited; /* of a disk that is not there any more */
            if (it && d->limits[k].limited)
                limit_add(a, k, r->limits[i]);
        }
        if (!known && !(r->limits[i]->none && r->limits[i]->disk == EACH_DISK))
            return false;
    }
    return true;
}

/* What a disk holds that is not given back by itself. */
static uint64_t held(const struct node_disk *k)
{
    return k->used > k->dead ? k->used - k->dead : 0;
}

/* Each disk gives in proportion to what it has. */
static bool limits_reclaim(struct setting *a, const struct node *d, const Replfs__ChunkdSetReq *r)
{
    double all = 0;
    for (unsigned k = 0; k < d->ndisks; k++)
        all += d->disks[k].failed ? 0 : (double)held(&d->disks[k]);
    double part = r->reclaim_percent ? r->reclaim_percent / 100.0
                  : all > 0          ? (double)r->reclaim / all
                                     : 1;
    for (unsigned k = 0; k < d->ndisks; k++) {
        const struct node_disk *t = &d->disks[k];
        Replfs__DiskLimit l = REPLFS__DISK_LIMIT__INIT;
        uint64_t give = part < 1 ? (uint64_t)((double)held(t) * part) : held(t);
        l.bytes = held(t) - give;
        l.now = r->now;
        if (!t->failed)
            limit_add(a, t->disk, &l);
    }
    return a->nlimits > 0;
}

/* ---- the way through the log ---- */

static void set_applied(void *arg, int code, const struct fsm_result *res)
{
    struct setting *a = arg;
    a->code = code ? code : -res->code;
    if (a->code)
        return;
    LOCK_SCOPE(&a->n->mu); /* fsm write lock held */
    nodes_decided_take(a->n);
    nodes_make_ctx(a->n);
    a->n->leave_at = 0; /* what is over is known before it is asked for */
    leave_tick(a->n, clock_mono());
    const struct node *d = nodes_find(a->n, a->chunkd);
    a->nlimits = d ? nodes_limits_fill(d, a->limit, a->limits) : 0;
    if (d && d->draining && a->n->hosts_up < 2)
        snprintf(a->note, sizeof(a->note),
                 "only %u other computers have a chunkd that is up: files that ask for more "
                 "copies keep theirs here, and writes of such files wait",
                 a->n->hosts_up);
}

static void set_after(void *arg)
{
    struct setting *a = arg;
    Replfs__ChunkdSetReply rep = REPLFS__CHUNKD_SET_REPLY__INIT;
    rep.limits = a->limits;
    rep.n_limits = a->nlimits;
    rep.note = a->note;
    RPC_ENVELOPE(env, CHUNKD_SET_REPLY, chunkd_set_reply, &rep);
    if (a->code)
        nodes_fail(a->n, a->req, a->code, "the decision did not get into the metadata log");
    else
        rpc_reply(a->req, &env, NULL);
    nodes_poke(a->n);
    nodes_proposed(a->n);
    free(a);
}

static void set_propose(struct setting *a)
{
    const Replfs__ChunkdSetReq *r = a->req->env->chunkd_set_req;
    Replfs__ChunkdSetOp op = REPLFS__CHUNKD_SET_OP__INIT;
    Replfs__MetaOp mop = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    op.chunkd = a->chunkd;
    op.what = r->what;
    op.draining = r->draining;
    op.pause_ms = r->pause_ms;
    op.limits = a->limits;
    op.n_limits = a->nlimits;
    mop.op_case = REPLFS__META_OP__OP_CHUNKD_SET;
    mop.chunkd_set = &op;
    cmd.op = &mop;
    nodes_propose(a->n, &cmd, set_applied, set_after, a);
}

/* NULL, or why it cannot be. Takes the lock. */
static const char *understand(struct setting *a)
{
    const Replfs__ChunkdSetReq *r = a->req->env->chunkd_set_req;
    struct nodes *n = a->n;
    LOCK_SCOPE(&n->mu);
    const struct node *d = nodes_find(n, a->chunkd);
    if (!d || d->removed)
        return "there is no such chunkd: see replfsctl chunkd list";
    if (r->reclaim_percent > 100)
        return "at most 100 % can be given back";
    if (r->pause_ms > FSM_PAUSE_MAX_MS)
        return "a pause lasts a year at most";
    if (!(r->what & REPLFS__CHUNKD_SET_OP__WHAT__LIMITS))
        return NULL;
    bool reclaims = r->reclaim || r->reclaim_percent;
    if (reclaims && !d->conn)
        return "it is not connected: what it holds is not known";
    if (reclaims ? !limits_reclaim(a, d, r) : !limits_asked(a, d, r))
        return "it has no such disk: see replfsctl chunkd list";
    return NULL;
}

void nodes_rpc_set(struct nodes *n, struct rpc_req *req)
{
    uint32_t chunkd = req->env->chunkd_set_req->chunkd;
    if (fsm_feature_level(n->cfg.fsm) < metaop_level(METAOP_CHUNKD_SET)) {
        rpc_fail(req, ERR_VERSION,
                 "the cluster's feature level is too low: when every metad runs this version, "
                 "raise it with 'replfsctl metad upgrade'");
        return;
    }
    struct setting *a = calloc(1, sizeof(*a));
    if (!a)
        abort();
    a->n = n;
    a->req = req;
    a->chunkd = chunkd;
    const char *wrong = understand(a);
    if (wrong) {
        rpc_fail(req, EINVAL, "chunkd %u: %s", chunkd, wrong);
        free(a);
        return;
    }
    set_propose(a);
}
