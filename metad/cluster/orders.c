/* The driver: a thread that feeds the repair planner and carries out what it decides.
 *
 * A chunk that needs work waits in the queue (repair_queue.h). Popped, it becomes a job: the chunk is
 * flagged SOFT_BUSY, so nobody else touches its copies, and the planner is asked again and again
 * until it is content, wants to wait, or an order has to be carried out by a chunkd:
 *
 *   queue -> job -> decide -+-> order to a chunkd -> answered -> decide ...
 *                           +-> delete, batched per chunkd -> answered -> decide ...
 *                           +-> bound of running jobs reached -> queue, same place
 *                           +-> failed -> queue, after a pause that doubles
 *                           +-> nothing can be done now -> left; a walk brings it back when a
 *                               chunkd changes state
 *
 * A walk through all chunks, slice by slice, queues what needs work; it starts when a chunkd's
 * state, disks or report changed, so the cost of an idle cluster is nothing.
 *
 * Failure modes: a chunkd that goes away ends its orders with ERR_PEER_GONE; an order's outcome is
 * unknown then, which the planner handles (a doomed copy is not trusted until it was read).
 * Completions run on rpc threads and only hand the result over; all decisions are on the driver
 * thread, under the fsm write lock and nodes.mu, in short slices. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"
#define POP_SLICE 512u /* queue items looked at in one turn under the locks */
#define STEPS_MAX 64u  /* of one job: more means the planner and we disagree */
#define PROOF_LASTS (60 * NSEC_PER_SEC)

/* ---- the planner's view of a chunk ---- */

void orders_view(const struct nodes *n, const struct fsm_chunk *c, struct repair_chunk *out)
{
    lock_assert_held(&n->mu);
    const struct fsm_loc *l = fsm_chunk_locs((struct fsm_chunk *)(uintptr_t)c);
    out->len = c->len;
    out->goal = c->goal;
    out->writing = false; /* the queue's due time sees to that */
    out->n = c->nloc < REPAIR_COPIES_MAX ? c->nloc : REPAIR_COPIES_MAX;
    for (unsigned i = 0; i < out->n; i++) {
        const struct node *d = nodes_find(n, l[i].chunkd);
        out->copy[i] =
            (struct repair_copy){.chunkd = l[i].chunkd,
                                 .disk = l[i].disk,
                                 .state = l[i].state,
                                 .told = d && d->conn,
                                 .leave = (uint8_t)(n->leaving ? leave_of(n, c, l[i]) : 0)};
    }
    damage_view(n, c, out);
}

void orders_consider(struct nodes *n, struct fsm_chunk *c, int64_t delay)
{
    lock_assert_held(&n->mu);
    if (!n->lead.leading)
        return; /* a walk begins with each leadership */
    struct repair_chunk v;
    struct repair_queue_item it = {.chunk = c->id};
    unsigned prio;
    enum repair_kind kind;
    if (c->soft_flags & SOFT_BUSY) {
        c->soft_flags |= SOFT_AGAIN;
        return;
    }
    orders_view(n, c, &v);
    if (!repair_classify(&n->ctx, &v, &prio, &kind, &it.bytes)) {
        repair_queue_remove(n->queue, c->id);
        return;
    }
    it.since = clock_mono();
    it.due = it.since + delay;
    it.prio = (uint8_t)prio;
    it.kind = (uint8_t)kind;
    repair_queue_push(n->queue, &it);
}

/* ---- jobs ---- */

static void job_verified(struct job *j, uint32_t chunkd, bool proven)
{
    unsigned i = 0;
    while (i < j->nverified && j->verified[i].chunkd != chunkd)
        i++;
    if (i == REPAIR_COPIES_MAX)
        return;
    if (i == j->nverified)
        j->verified[j->nverified++] = (struct job_verified){.chunkd = chunkd};
    j->verified[i].proven |= proven;
}

static struct job *job_new(const struct repair_queue_item *it, struct fsm_chunk *c)
{
    struct job *j = calloc(1, sizeof(*j));
    if (!j)
        abort();
    j->it = *it;
    j->kind = it->kind;
    bool fresh = clock_mono() - it->proven_at < PROOF_LASTS;
    for (unsigned i = 0; i < 2 && fresh && it->proven[i]; i++)
        job_verified(j, it->proven[i], true);
    c->soft_flags = (uint8_t)((c->soft_flags | SOFT_BUSY) & ~SOFT_AGAIN);
    return j;
}

/* It goes back to the queue for want of a free place: what it read in full need not be read again. */
static void job_remember(struct job *j)
{
    unsigned k = 0;
    bool old = j->it.proven[0] && clock_mono() - j->it.proven_at < PROOF_LASTS;
    j->it.proven_at = old ? j->it.proven_at : clock_mono();
    j->it.proven[0] = j->it.proven[1] = 0;
    for (unsigned i = 0; i < j->nverified && k < 2; i++)
        if (j->verified[i].proven)
            j->it.proven[k++] = j->verified[i].chunkd;
}

/* c may be NULL: freed meanwhile. */
static void job_end(struct nodes *n, struct job *j, struct fsm_chunk *c)
{
    if (c) {
        bool again = c->soft_flags & SOFT_AGAIN;
        c->soft_flags &= (uint8_t) ~(SOFT_BUSY | SOFT_AGAIN);
        if (again)
            orders_consider(n, c, 0);
    }
    free(j);
}

static void job_requeue(struct nodes *n, struct job *j, struct fsm_chunk *c, int64_t due)
{
    struct repair_queue_item it = j->it;
    it.due = due;
    it.kind = (uint8_t)j->kind;
    if (c) {
        c->soft_flags &= (uint8_t) ~(SOFT_BUSY | SOFT_AGAIN);
        repair_queue_push(n->queue, &it);
    }
    free(j);
}

static void job_failed(struct nodes *n, struct job *j, struct fsm_chunk *c, const struct order *o)
{
    struct job_stat *st = &n->stat[j->kind];
    struct node *d = nodes_find(n, o->chunkd);
    char label[256];
    st->failed++;
    snprintf(st->last_error, sizeof(st->last_error), "chunk %016llx, %.60s: %.40s%s%.60s",
             (unsigned long long)o->chunk, d ? nodes_label(d, label) : "a former chunkd",
             err_str(o->code), o->detail[0] ? ": " : "", o->detail);
    log_debug("%s failed: %s", repair_kind_name[j->kind], st->last_error);
    if (j->it.fails < 200)
        j->it.fails++;
    job_requeue(n, j, c, clock_mono() + repair_queue_backoff(j->it.fails));
}

static void job_doubted(struct job *j, uint32_t chunkd)
{
    for (unsigned i = 0; i < j->nverified; i++)
        if (j->verified[i].chunkd == chunkd)
            j->verified[i] = j->verified[--j->nverified];
}

/* ---- making orders ---- */

static struct order *order_new(struct nodes *n, enum order_kind kind, struct node *d, struct job *j)
{
    struct order *o = calloc(1, sizeof(*o));
    if (!o)
        abort();
    o->n = n;
    o->kind = kind;
    o->stat = REPAIR_KIND_DROP;
    o->job = j;
    o->leading = n->lead.leading;
    o->chunkd = d->id;
    o->conn = d->conn ? rpc_conn_ref(d->conn) : NULL;
    return o;
}

static void order_send_later(struct nodes *n, struct order *o)
{
    o->next = n->to_send;
    n->to_send = o;
}

static struct order *order_deletes(struct nodes *n, struct node *d, const struct del *dels,
                                   uint32_t ndels)
{
    struct order *o = order_new(n, ORDER_DELETE, d, NULL);
    o->ndels = ndels;
    if (!(o->dels = malloc(ndels * sizeof(*dels))))
        abort();
    memcpy(o->dels, dels, ndels * sizeof(*dels));
    return o;
}

/* Counts a running order at the chunkds it burdens. */
static void burden(struct nodes *n, const struct order *o, int by)
{
    struct node *d = nodes_find(n, o->chunkd);
    if (o->kind == ORDER_VERIFY && o->quick) {
        d->checks += (uint32_t)by;
        return;
    }
    d->jobs += (uint32_t)by;
    nodes_refresh(n, d);
    struct node *s = o->kind == ORDER_COPY ? nodes_find(n, o->src[0]) : NULL;
    if (s) {
        s->jobs += (uint32_t)by;
        nodes_refresh(n, s);
    }
}

static struct order *order_chunk(struct nodes *n, enum order_kind kind, struct node *d,
                                 struct job *j, const struct fsm_chunk *c)
{
    struct order *o = order_new(n, kind, d, j);
    o->stat = kind == ORDER_VERIFY ? REPAIR_KIND_VERIFY : j->kind;
    o->chunk = c->id;
    o->session = c->session;
    o->len = damage_len(n, c);
    n->stat[o->stat].running++;
    order_send_later(n, o);
    return o;
}

void orders_compact(struct nodes *n, struct node *d, struct compacting_job *j,
                    const struct fsm_chunk *c)
{
    struct order *o = order_new(n, ORDER_COMPACT, d, NULL);
    o->chunk = c->id;
    o->session = c->session;
    o->compacting = j;
    burden(n, o, 1);
    order_send_later(n, o);
}

static void start_copy(struct nodes *n, struct job *j, const struct fsm_chunk *c, struct node *d,
                       const struct repair_decision *dec)
{
    struct order *o = order_chunk(n, ORDER_COPY, d, j, c);
    o->nsrc = dec->nsrc;
    for (unsigned i = 0; i < dec->nsrc; i++) {
        const struct node *s = nodes_find(n, dec->src[i]);
        o->src[i] = s->id;
        snprintf(o->src_addr[i], sizeof(o->src_addr[i]), "%s", s->addr);
    }
    burden(n, o, 1);
}

static void start_verify(struct nodes *n, struct job *j, const struct fsm_chunk *c, struct node *d,
                         bool quick)
{
    struct order *o = order_chunk(n, ORDER_VERIFY, d, j, c);
    o->quick = quick;
    burden(n, o, 1);
}

void orders_delete(struct nodes *n, struct node *d, uint64_t chunk, uint64_t session,
                   struct job *job)
{
    lock_assert_held(&n->mu);
    if (d->ndels == d->del_cap) {
        d->del_cap = d->del_cap ? d->del_cap * 2 : 64;
        d->dels = realloc(d->dels, d->del_cap * sizeof(*d->dels));
        if (!d->dels)
            abort();
    }
    d->dels[d->ndels++] = (struct del){.chunk = chunk, .session = session, .job = job};
    n->stat[job ? REPAIR_KIND_DROP : (unsigned)JOB_DELETE].running++;
}

static void start_drop(struct nodes *n, struct job *j, struct fsm_chunk *c, struct node *d)
{
    struct fsm_loc *l = reports_loc(c, d->id);
    assert(l);
    l->state = COPY_DOOMED;
    orders_delete(n, d, c->id, c->session, j);
    leave_drop(d, &d->dels[d->ndels - 1], c, l->disk);
}

/* Every connected chunkd with deletes waiting gets the next batch. Lock held. */
void orders_batch_deletes(struct nodes *n)
{
    lock_assert_held(&n->mu);
    for (uint32_t i = 1; i < n->nnodes; i++) {
        struct node *d = n->node[i];
        if (!d || !d->conn || !d->ndels || d->deleting)
            continue;
        uint32_t k = d->ndels < NODES_DELETE_BATCH ? d->ndels : NODES_DELETE_BATCH;
        struct order *o = order_deletes(n, d, d->dels, k);
        order_send_later(n, o);
        d->ndels -= k;
        memmove(d->dels, d->dels + o->ndels, d->ndels * sizeof(*d->dels));
        d->deleting = true;
    }
}

/* ---- deciding ---- */

static void mark_verified(const struct job *j, struct repair_chunk *v)
{
    for (unsigned i = 0; i < v->n; i++)
        for (unsigned k = 0; k < j->nverified; k++)
            if (v->copy[i].chunkd == j->verified[k].chunkd) {
                v->copy[i].verified = true;
                v->copy[i].proven |= j->verified[k].proven;
            }
}

static void note_waiting(struct nodes *n, enum repair_kind kind, const char *why)
{
    n->stat[kind].waiting = why;
    n->stat[kind].nwaiting++;
}

/* Whether d has its fill of verifications. A job that has some behind it goes on with quick ones:
 * sent back to the queue it would have to do them again. What it read in full is remembered. */
static bool checks_full(const struct nodes *n, const struct node *d, const struct job *j,
                        bool quick)
{
    if (quick)
        return !j->nverified && d->checks >= NODE_CHECKS_MAX;
    return d->jobs >= n->table[d->id].max_jobs;
}

/* Takes away a copy, or puts another in its place: it may be worth more to a newer metad. */
static bool is_destructive(struct fsm_chunk *c, const struct repair_decision *dec)
{
    return dec->act == REPAIR_DROP || (dec->act == REPAIR_COPY && reports_loc(c, dec->target));
}

/* Starts what was decided at the chunkd named. False: it cannot take it now. */
static bool start_act(struct nodes *n, struct job *j, struct fsm_chunk *c,
                      const struct repair_decision *dec)
{
    struct node *d = nodes_find(n, dec->target);
    if (!d || !d->conn || (dec->act == REPAIR_VERIFY && checks_full(n, d, j, dec->quick)))
        return false;
    if (dec->act == REPAIR_COPY)
        start_copy(n, j, c, d, dec);
    else if (dec->act == REPAIR_VERIFY)
        start_verify(n, j, c, d, dec->quick);
    else
        start_drop(n, j, c, d);
    return true;
}

/* Asks the planner until an order is under way (the job lives on) or the job ends. True: it was
 * blocked by bounds and is back in the queue. */
static bool job_go_on(struct nodes *n, struct job *j, struct fsm_chunk *c)
{
    struct repair_chunk v;
    struct repair_decision dec;
    while (j->steps++ < STEPS_MAX) {
        n->ctx.seed++;
        orders_view(n, c, &v);
        mark_verified(j, &v);
        repair_decide(&n->ctx, &v, &dec);
        switch (dec.act) {
        case REPAIR_FORGET:
            fsm_chunk_loc_del(c, dec.target);
            continue;
        case REPAIR_KEEP:
            damage_keep(n, c, dec.keep_len);
            continue;
        case REPAIR_COPY:
        case REPAIR_VERIFY:
        case REPAIR_DROP:
            j->kind = dec.kind;
            if (nodes_past_behind(n) && is_destructive(c, &dec)) {
                note_waiting(n, dec.kind, "metad is older than what chunkds have seen");
                job_end(n, j, c);
                return false;
            }
            if (start_act(n, j, c, &dec))
                return false;
            /* fall through */
        case REPAIR_BUSY:
            job_remember(j);
            c->soft_flags &= (uint8_t) ~(SOFT_BUSY | SOFT_AGAIN);
            repair_queue_unpop(n->queue, &j->it);
            free(j);
            return true;
        case REPAIR_LATER:
            job_requeue(n, j, c, clock_mono() + NODES_WRITE_QUIET);
            return false;
        case REPAIR_WAIT:
        case REPAIR_LOST:
            note_waiting(n, dec.kind, dec.why);
            leave_waits(n, c, dec.why);
            /* fall through */
        case REPAIR_NONE:
            job_end(n, j, c);
            return false;
        }
    }
    log_warn("chunk %016llx does not settle: trying again in a while", (unsigned long long)c->id);
    job_requeue(n, j, c, clock_mono() + repair_queue_backoff(5));
    return false;
}

/* ---- results ---- */

static void copy_result(struct nodes *n, struct order *o, struct job *j, struct fsm_chunk *c)
{
    if (!o->code) {
        bool whole = o->len >= damage_len(n, c);
        reports_loc_set(n, c, o->chunkd, o->disk, whole ? COPY_OK : COPY_SHORT);
        if (whole)
            job_verified(j, o->chunkd, false); /* before another goes for it, it is read back */
        job_go_on(n, j, c);
        return;
    }
    if (o->code == -ERR_CRC || o->code == -ERR_NO_CHUNK || o->code == -ERR_SHORT)
        for (unsigned i = 0; i < o->nsrc; i++) {
            struct fsm_loc *l = reports_loc(c, o->src[i]);
            if (l && l->state == COPY_OK && (!o->blamed || o->blamed == o->src[i])) {
                l->state = COPY_CHECKING;
                job_doubted(j, o->src[i]);
            }
        }
    job_failed(n, j, c, o);
}

static bool verify_found_bad(const struct order *o)
{
    return o->code == -ERR_CRC || o->code == -ERR_SHORT ||
           (!o->code && (o->bad || o->good_len < o->len));
}

static void verify_result(struct nodes *n, struct order *o, struct job *j, struct fsm_chunk *c)
{
    struct fsm_loc *l = reports_loc(c, o->chunkd);
    struct node *d = nodes_find(n, o->chunkd);
    char label[256];
    bool bad = l && verify_found_bad(o);
    if (bad && !damage_found(n, c, o->chunkd, o->code ? 0 : o->good_len, o->stored)) {
        log_warn("the copy of chunk %016llx on %s is bad (good up to byte %u of %u): it will be "
                 "replaced",
                 (unsigned long long)c->id, nodes_label(d, label), o->good_len, o->len);
        l->state = COPY_BAD;
        job_doubted(j, o->chunkd);
    } else if (l && (bad || !o->code)) {
        l->state = o->good_len >= damage_len(n, c) ? COPY_OK : COPY_SHORT;
        if (l->state == COPY_OK)
            job_verified(j, o->chunkd, !o->quick);
    } else if (l && o->code == -ERR_NO_CHUNK) {
        reports_loc_deleted(n, c, o->chunkd);
    } else if (o->code) {
        job_failed(n, j, c, o);
        return;
    }
    job_go_on(n, j, c);
}

static void drop_result(struct nodes *n, const struct order *o, struct del *del)
{
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, del->chunk);
    struct job_stat *st = &n->stat[REPAIR_KIND_DROP];
    struct order failed = *o; /* for the message: names one chunk */
    failed.chunk = del->chunk;
    st->running--;
    leave_dropped(n, nodes_find(n, o->chunkd), del, !o->code);
    if (!c) {
        job_end(n, del->job, NULL);
    } else if (o->code) {
        job_failed(n, del->job, c, &failed); /* stays doomed */
    } else {
        st->done++;
        st->bytes_done += c->len;
        reports_loc_deleted(n, c, o->chunkd);
        job_go_on(n, del->job, c);
    }
}

static void delete_result(struct nodes *n, struct order *o)
{
    struct node *d = nodes_find(n, o->chunkd);
    struct job_stat *st = &n->stat[JOB_DELETE];
    bool same = d->conn == o->conn;
    if (same)
        d->deleting = false;
    for (uint32_t i = 0; i < o->ndels; i++) {
        if (o->dels[i].job) {
            drop_result(n, o, &o->dels[i]);
            continue;
        }
        st->running--;
        *(o->code ? &st->failed : &st->done) += 1;
        if (same)
            reports_stray_settled(n, d, o->dels[i].chunk, !o->code);
    }
    if (o->code)
        snprintf(st->last_error, sizeof(st->last_error), "chunkd %u: %s", o->chunkd,
                 err_str(o->code));
}

/* Hands an order that has its result to the driver. */
void orders_answered(struct nodes *n, struct order *o)
{
    LOCK_SCOPE(&n->done_lock);
    o->next = n->done;
    n->done = o;
    cond_signal(&n->wake);
}

/* Lock held: the deletes not sent yet. Their drops go back to the queue; garbage is found again by
 * reports. */
void orders_node_gone(struct nodes *n, struct node *d)
{
    lock_assert_held(&n->mu);
    for (uint32_t i = 0; i < d->ndels; i++) {
        if (!d->dels[i].job) {
            n->stat[JOB_DELETE].running--;
            continue;
        }
        struct order *o = order_deletes(n, d, &d->dels[i], 1);
        o->code = -ERR_PEER_GONE;
        nodes_outstanding(n, 1);
        orders_answered(n, o);
    }
    d->ndels = 0;
}

void orders_free(struct order *o)
{
    rpc_conn_unref(o->conn);
    free(o->dels);
    free(o);
}

/* here: the order was for d as it is connected now. */
static void del_forget(struct nodes *n, struct node *d, const struct del *del, bool here)
{
    n->stat[del->job ? REPAIR_KIND_DROP : (unsigned)JOB_DELETE].running--;
    if (del->job) {
        leave_dropped(n, d, del, false);
        job_end(n, del->job, fsm_chunk_find(n->cfg.fsm, del->chunk)); /* stays doomed */
    } else if (here) {
        reports_stray_settled(n, d, del->chunk, false);
    }
}

void orders_forget(struct nodes *n)
{
    lock_assert_held(&n->mu);
    assert(!n->to_send);
    repair_queue_free(n->queue);
    n->queue = repair_queue_new();
    for (uint32_t i = 1; i < n->nnodes; i++) {
        struct node *d = n->node[i];
        for (uint32_t k = 0; d && k < d->ndels; k++)
            del_forget(n, d, &d->dels[k], true);
        if (d)
            d->ndels = 0;
    }
}

/* What was decided by a former leadership: what came of it is no news to be built on, chunkds report it. */
static void take_late(struct nodes *n, struct order *o)
{
    struct node *d = nodes_find(n, o->chunkd);
    if (o->kind == ORDER_DELETE) {
        d->deleting &= d->conn != o->conn;
        for (uint32_t i = 0; i < o->ndels; i++)
            del_forget(n, d, &o->dels[i], d->conn == o->conn);
        return;
    }
    burden(n, o, -1);
    if (o->kind == ORDER_COMPACT) {
        compacting_answered(n, o, true);
        return;
    }
    n->stat[o->stat].running--;
    job_end(n, o->job, fsm_chunk_find(n->cfg.fsm, o->chunk));
}

/* Locks held. */
static void take_result(struct nodes *n, struct order *o, bool leads)
{
    if (!leads || o->leading != n->lead.leading) {
        take_late(n, o);
        return;
    }
    if (o->kind == ORDER_DELETE) {
        delete_result(n, o);
        return;
    }
    struct job *j = o->job;
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, o->chunk);
    struct job_stat *st = &n->stat[o->stat];
    burden(n, o, -1);
    if (o->kind == ORDER_COMPACT) {
        compacting_answered(n, o, false);
        return;
    }
    st->running--;
    if (!o->code) {
        st->done++;
        st->bytes_done += o->kind == ORDER_COPY ? o->bytes : 0;
    }
    if (!c)
        job_end(n, j, NULL); /* a copy made of it is a stray now */
    else if (o->kind == ORDER_COPY)
        copy_result(n, o, j, c);
    else
        verify_result(n, o, j, c);
}

/* ---- turns of the driver ---- */

void orders_take_results(struct nodes *n, bool leads)
{
    lock_acquire(&n->done_lock);
    struct order *o = n->done;
    n->done = NULL;
    lock_release(&n->done_lock);
    while (o) {
        fsm_wrlock(n->cfg.fsm);
        lock_acquire(&n->mu);
        for (unsigned k = 0; o && k < 64; k++) {
            struct order *next = o->next;
            take_result(n, o, leads);
            orders_free(o);
            nodes_outstanding(n, -1);
            o = next;
        }
        lock_release(&n->mu);
        fsm_unlock(n->cfg.fsm);
    }
}

/* Starts what the bounds allow. Items blocked by them go back in their order. */
void orders_pop_slice(struct nodes *n, int64_t now)
{
    lock_assert_held(&n->mu);
    struct repair_queue_item *blocked = malloc(POP_SLICE * sizeof(*blocked)), it;
    unsigned nblocked = 0;
    if (!blocked)
        abort();
    for (unsigned k = 0; k < POP_SLICE && repair_queue_pop(n->queue, now, &it); k++) {
        struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, it.chunk);
        if (!c || (c->soft_flags & SOFT_BUSY))
            continue; /* freed, or its job looks again by itself */
        if (job_go_on(n, job_new(&it, c), c) && repair_queue_take(n->queue, it.chunk, &it))
            blocked[nblocked++] = it;
    }
    while (nblocked)
        repair_queue_unpop(n->queue, &blocked[--nblocked]);
    free(blocked);
}
