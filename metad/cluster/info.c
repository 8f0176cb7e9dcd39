/* Answers about chunkds and single files: NodesReq (addresses for clients), InfoReq (extents,
 * chunks, copies) and ConvergeReq (how far files are from their goals). Read-only, rpc loop
 * threads, fsm read lock then nodes.mu. Replies are paged by extents, so that no frame outgrows
 * its cap. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/extmap.h"
#include "base/lock.h"
#include "status_internal.h"

#define INFO_EXTENTS 1000u
#define CONVERGE_INOS_MAX 4096u

/* ---- NodesReq ---- */

void nodes_rpc_nodes(struct nodes *n, struct rpc_req *req)
{
    struct status_ask a = {.n = n};
    Replfs__NodesReply rep = REPLFS__NODES_REPLY__INIT;
    lock_acquire(&n->mu);
    rep.nodes = status_alloc(&a, (n->nnodes + 1) * sizeof(*rep.nodes));
    for (uint32_t i = 1; i < n->nnodes; i++) {
        const struct node *d = n->node[i];
        if (!d || !d->addr[0] || nodes_gone(d))
            continue;
        Replfs__NodeAddr *t = rep.nodes[rep.n_nodes++] = status_alloc(&a, sizeof(*t));
        replfs__node_addr__init(t);
        t->chunkd = d->id;
        t->addr = status_text(&a, "%s", d->addr);
        t->host_id = status_text(&a, "%s", d->host_id);
        t->host_name = status_text(&a, "%s", d->host_name);
        t->load = d->inflight + d->granted;
        t->state = nodes_shown_state(d);
    }
    rep.epoch = n->epoch;
    lock_release(&n->mu);
    RPC_ENVELOPE(env, NODES_REPLY, nodes_reply, &rep);
    rpc_reply(req, &env, NULL);
    status_free(&a);
}

/* ---- InfoReq ---- */

static const char *copy_state_text(const struct nodes *n, const struct node *d, struct fsm_loc l)
{
    if (!d || d->state == REPLFS__NODE_STATE__NODE_DEAD)
        return "dead";
    switch (l.state) {
    case COPY_BAD:
        return "bad";
    case COPY_SHORT:
        return "short";
    case COPY_CHECKING:
        return "checking";
    case COPY_DOOMED:
        return "dropping";
    default:
        break;
    }
    if (n->table[d->id].failed_disks >> l.disk & 1)
        return "dead";
    if (n->table[d->id].ro_disks >> l.disk & 1)
        return "readonly";
    return d->state == REPLFS__NODE_STATE__NODE_UP ? "ok" : "suspect";
}

static const char *disk_path(const struct node *d, unsigned disk)
{
    for (unsigned i = 0; i < d->ndisks; i++)
        if (d->disks[i].disk == disk || (d->ndisks == 1 && disk == NODE_DISK_UNKNOWN))
            return d->disks[i].path;
    return "";
}

static Replfs__CopyInfo *fill_copy(struct status_ask *a, struct fsm_loc l)
{
    const struct node *d = nodes_find(a->n, l.chunkd);
    Replfs__CopyInfo *t = status_alloc(a, sizeof(*t));
    replfs__copy_info__init(t);
    t->chunkd = l.chunkd;
    t->addr = status_text(a, "%s", d ? d->addr : "");
    t->host_id = status_text(a, "%s", d ? d->host_id : "");
    t->host_name = status_text(a, "%s", d ? d->host_name : "");
    t->disk = status_text(a, "%s", d ? disk_path(d, l.disk) : "");
    t->state = status_text(a, "%s", copy_state_text(a->n, d, l));
    return t;
}

static const char *chunk_note(struct status_ask *a, struct fsm_chunk *c, uint64_t ino,
                              unsigned file_goal)
{
    struct repair_chunk v;
    struct repair_decision d;
    char lost[400];
    if (damage_text(a->n, c, ino, lost, sizeof(lost)))
        return status_text(a, "damaged: no copy in reach has %s of this file", lost);
    orders_view(a->n, c, &v);
    repair_decide(&a->n->ctx, &v, &d);
    if (d.act == REPAIR_LOST)
        return "lost: no good copy is left";
    if (c->goal > file_goal)
        return status_text(a, "shared with a file of goal %u", c->goal);
    unsigned files = fsm_chunk_files(a->n->cfg.fsm, c);
    if (d.act == REPAIR_NONE && files > 1)
        return status_text(a, "shared by %u files", files);
    return d.act == REPAIR_NONE ? "" : d.why;
}

static Replfs__ChunkInfo *fill_chunk(struct status_ask *a, uint64_t id, uint64_t ino,
                                     unsigned file_goal)
{
    struct fsm_chunk *c = fsm_chunk_find(a->n->cfg.fsm, id);
    Replfs__ChunkInfo *t = status_alloc(a, sizeof(*t));
    replfs__chunk_info__init(t);
    t->chunk = id;
    if (!c)
        return t;
    t->len = c->len;
    t->goal = c->goal;
    t->refs = c->refs;
    t->copies = status_alloc(a, (c->nloc + 1u) * sizeof(*t->copies));
    const struct fsm_loc *l = fsm_chunk_locs(c);
    for (unsigned i = 0; i < c->nloc; i++)
        t->copies[t->n_copies++] = fill_copy(a, l[i]);
    t->note = status_text(a, "%s", chunk_note(a, c, ino, file_goal));
    return t;
}

static void fill_extents(struct status_ask *a, const struct extmap *m, const Replfs__InfoReq *q,
                         Replfs__InfoReply *r)
{
    struct u64map seen = {0};
    struct ext e;
    uint64_t off = q->cookie;
    r->extents = status_alloc(a, INFO_EXTENTS * sizeof(*r->extents));
    r->chunks = status_alloc(a, INFO_EXTENTS * sizeof(*r->chunks));
    while (r->n_extents < INFO_EXTENTS && extmap_find(m, off, &e)) {
        Replfs__Extent *t = r->extents[r->n_extents++] = status_alloc(a, sizeof(*t));
        replfs__extent__init(t);
        t->file_off = e.file_off;
        t->len = e.len;
        t->chunk = e.chunk;
        t->chunk_off = e.chunk_off;
        if (e.chunk && u64map_add(&seen, e.chunk))
            r->chunks[r->n_chunks++] = fill_chunk(a, e.chunk, r->attr->ino, r->attr->goal);
        off = e.file_off + e.len;
    }
    r->next_cookie = off;
    r->more = extmap_find(m, off, &e);
    u64map_free(&seen);
}

void nodes_rpc_info(struct nodes *n, struct rpc_req *req)
{
    const Replfs__InfoReq *q = req->env->info_req;
    struct status_ask a = {.n = n};
    Replfs__InfoReply rep = REPLFS__INFO_REPLY__INIT;
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    const struct extmap *m = NULL;
    fsm_rdlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    int rc = fsm_getattr(n->cfg.fsm, q->ino, &attr);
    rep.attr = &attr;
    if (!rc && !fsm_extents(n->cfg.fsm, q->ino, &m) && m)
        fill_extents(&a, m, q, &rep);
    uint64_t parent = 0;
    if (!rc && !fsm_parent(n->cfg.fsm, q->ino, &parent))
        rep.parent = parent;
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
    if (rc) {
        rpc_fail(req, rc, "there is no inode %llu", (unsigned long long)q->ino);
    } else {
        RPC_ENVELOPE(env, INFO_REPLY, info_reply, &rep);
        rpc_reply(req, &env, NULL);
    }
    status_free(&a);
}

/* ---- ConvergeReq ---- */

static void converge_chunk(struct status_ask *a, uint64_t id, Replfs__ConvergeReply *r)
{
    struct repair_chunk v;
    struct repair_decision d;
    struct fsm_chunk *c = fsm_chunk_find(a->n->cfg.fsm, id);
    if (!c)
        return;
    r->chunks++;
    orders_view(a->n, c, &v);
    repair_decide(&a->n->ctx, &v, &d);
    bool busy = c->soft_flags & SOFT_BUSY;
    bool drains = d.kind == REPAIR_KIND_DRAIN && repair_satisfied(&a->n->ctx, &v);
    if (!busy && (d.act == REPAIR_NONE || d.act == REPAIR_FORGET || drains) && !a->n->settling)
        return;
    r->pending++;
    r->bytes_pending += c->len;
    if (d.act == REPAIR_WAIT || d.act == REPAIR_LOST)
        r->waiting = status_text(a, "%s", d.why);
    else if (a->n->settling)
        r->waiting = status_text(a, "metad has just started: chunkds are still reporting");
}

static void converge_ino(struct status_ask *a, uint64_t ino, struct u64map *seen,
                         Replfs__ConvergeReply *r)
{
    const struct extmap *m = NULL;
    struct ext e;
    if (fsm_extents(a->n->cfg.fsm, ino, &m) || !m)
        return; /* gone, or not a file: nothing to wait for */
    for (uint64_t off = 0; extmap_find(m, off, &e); off = e.file_off + e.len)
        if (e.chunk && u64map_add(seen, e.chunk))
            converge_chunk(a, e.chunk, r);
}

void nodes_rpc_converge(struct nodes *n, struct rpc_req *req)
{
    const Replfs__ConvergeReq *q = req->env->converge_req;
    struct status_ask a = {.n = n};
    struct u64map seen = {0};
    Replfs__ConvergeReply rep = REPLFS__CONVERGE_REPLY__INIT;
    if (q->n_ino > CONVERGE_INOS_MAX) {
        rpc_fail(req, -EINVAL, "at most %u inodes in one request", CONVERGE_INOS_MAX);
        return;
    }
    for (size_t i = 0; i < q->n_ino; i++) { /* one at a time: others get the locks in between */
        fsm_rdlock(n->cfg.fsm);
        lock_acquire(&n->mu);
        converge_ino(&a, q->ino[i], &seen, &rep);
        lock_release(&n->mu);
        fsm_unlock(n->cfg.fsm);
    }
    RPC_ENVELOPE(env, CONVERGE_REPLY, converge_reply, &rep);
    rpc_reply(req, &env, NULL);
    u64map_free(&seen);
    status_free(&a);
}
