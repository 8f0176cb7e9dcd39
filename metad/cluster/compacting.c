/* The driver's part in compaction: chunks of which less than half is live are written anew by the chunkds that have them,
 * and the files are told.
 *
 *   candidate -> COLLECTING -> ORDERED -> SWAPPING <-> LOGGED -> over
 *
 *   candidate   the state says that the chunk became sparse (hook chunk_sparse, or the walk when leading begins); looked at
 *               again every few seconds while something is in the way (compact_judge)
 *   COLLECTING  the maps of its files are looked through, slice by slice, for its live ranges
 *   ORDERED     each chunkd that has a copy makes the new chunk of these ranges (CompactOrder); all must
 *   SWAPPING    the maps are looked through once more; up to FSM_COMPACT_MAX extents at a time become parts of a CompactOp
 *   LOGGED      which is on its way through the log
 *
 * Since bytes of a chunk never change, nothing needs to stand still meanwhile: the operation takes effect only where a file
 * still shows what was copied (fsm_compact.c). The former chunk goes with its last extent; what of it was cloned in places
 * behind us stays, and is a candidate again. Stopped anywhere, nothing is lost: before the first CompactOp the new copies are
 * strays like those of a client that never committed, afterwards both chunks are in use.
 *
 * The new chunk's writer is the incarnation of this metad, and no session. As long as its job lasts its copies are nobody's
 * garbage (compacting_holds); a job ends when its last command was applied or refused. With the leadership the jobs end, too:
 * what they had proposed was applied before the next one looks at strays, or never will be.
 *
 * The former chunk is held for a moment longer than its last extent: until the copies of the names that chunkds keep have the
 * commands, too. Otherwise, with metad's disk lost just then, the state made of such a copy would show files bytes that were
 * safe for years and are gone. One that does not keep up is waited for no longer than HELD_FOR.
 *
 * A chunk may be compacted when its writer can commit nothing more of it: the session is closed, or has given it up
 * (grants.c). A file that is open for days gives up each chunk when it is full and synced.
 *
 * Failure modes: a chunkd that fails its order, or that does not know it: the job ends, the copies made go as strays, the
 * chunk is tried again after a pause. Locks: fsm lock, nodes.mu; the driver's thread, and the log thread in callbacks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"
#include "base/log.h"
#include "metad/plan/compact.h"
#include "metaop.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"
#define LOOK_SLICE 64u
#define SCAN_SLICE 8192u /* extents in one turn */
#define LOOK_EVERY (2 * NSEC_PER_SEC)
#define HELD_FOR (60 * NSEC_PER_SEC)
#define UNKNOWN_FAILS 9u /* of a chunkd that does not know the order: half a minute and more */

struct compacting_job {
    enum { COLLECTING, ORDERED, SWAPPING, READY, LOGGED } state;
    bool failed, orphan; /* orphan: its leadership is over, and it waits for answers alone */
    uint8_t fails;
    uint64_t chunk, session, to, writer;
    uint64_t ino[COMPACT_OWNERS_MAX];
    uint32_t nino, at; /* at, off: how far their maps were looked through */
    uint64_t off;
    struct compact_ranges ranges;
    uint32_t chunkds[REPAIR_COPIES_MAX], disks[REPAIR_COPIES_MAX], orders, made;
    Replfs__CompactedPart part[FSM_COMPACT_MAX], *list[FSM_COMPACT_MAX];
    size_t nparts;
    uint64_t moved;
    struct nodes *n;
};
struct compacting_candidate {
    uint64_t chunk;
    int64_t due;
    uint8_t fails;
};
struct
    compacting_held { /* a former chunk, and the log's entry by which no file shows it any more */
    uint64_t chunk, index;
    int64_t until;
};
struct compacting {
    struct u64map index; /* chunk -> position in v */
    struct compacting_candidate *v;
    uint32_t n, cap, pos;
    struct compacting_job *job[COMPACT_RUNNING_MAX];
    struct compacting_held *held; /* oldest first */
    uint32_t nheld, cap_held;
    uint64_t next; /* number of the next new chunk, 0: none */
};

struct compacting *compacting_new(void)
{
    struct compacting *p = calloc(1, sizeof(*p));
    if (!p)
        abort();
    u64map_init(&p->index, U64MAP_U32);
    return p;
}

static void job_free(struct compacting_job *j)
{
    compact_ranges_free(&j->ranges);
    free(j);
}

/* ---- candidates ---- */

static void candidate_add(struct compacting *p, uint64_t chunk, int64_t due, uint8_t fails)
{
    if (u64map_has(&p->index, chunk))
        return;
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 64;
        p->v = realloc(p->v, p->cap * sizeof(*p->v));
        if (!p->v)
            abort();
    }
    u64map_put(&p->index, chunk, p->n);
    p->v[p->n++] = (struct compacting_candidate){chunk, due, fails};
}

static void candidate_del(struct compacting *p, uint32_t i)
{
    u64map_del(&p->index, p->v[i].chunk);
    if (i != --p->n) {
        p->v[i] = p->v[p->n];
        u64map_put(&p->index, p->v[i].chunk, i);
    }
}

static struct compacting_job *job_of(const struct compacting *p, uint64_t chunk)
{
    for (unsigned i = 0; i < COMPACT_RUNNING_MAX; i++)
        if (p->job[i] && p->job[i]->chunk == chunk)
            return p->job[i];
    return NULL;
}

void compacting_consider(struct nodes *n, const struct fsm_chunk *c)
{
    lock_assert_held(&n->mu);
    if (n->lead.leading && fsm_chunk_is_sparse(c) && !job_of(n->compacting, c->id))
        candidate_add(n->compacting, c->id, 0, 0);
}

bool compacting_holds(const struct nodes *n, uint64_t chunk)
{
    lock_assert_held(&n->mu);
    const struct compacting *p = n->compacting;
    for (unsigned i = 0; i < COMPACT_RUNNING_MAX; i++)
        if (p->job[i] && (p->job[i]->to == chunk || p->job[i]->chunk == chunk))
            return true;
    for (uint32_t i = 0; i < p->nheld; i++)
        if (p->held[i].chunk == chunk)
            return true;
    return false;
}

static void held_add(struct nodes *n, uint64_t chunk)
{
    struct compacting *p = n->compacting;
    if (p->nheld == p->cap_held) {
        p->cap_held = p->cap_held ? 2 * p->cap_held : 16;
        p->held = realloc(p->held, p->cap_held * sizeof(*p->held));
        if (!p->held)
            abort();
    }
    p->held[p->nheld++] = (struct compacting_held){
        chunk, fsm_applied(n->cfg.fsm) >> 8 /* commands of an entry */, clock_mono() + HELD_FOR};
}

/* The log's index that all copies of the names have which are waited for; UINT64_MAX: there are none. */
static uint64_t names_have(struct nodes *n)
{
    struct nodes_names v[NODES_NAMES_MAX];
    struct nodes_names_all all = {0};
    uint64_t have = UINT64_MAX;
    size_t k =
        n->cfg.names_copies ? n->cfg.names_copies(n->cfg.names_arg, v, NODES_NAMES_MAX, &all) : 0;
    while (k--)
        if (v[k].generation && !v[k].late && v[k].reached < have)
            have = v[k].reached;
    return have;
}

static void held_release(struct nodes *n, int64_t now)
{
    struct compacting *p = n->compacting;
    uint32_t kept = 0;
    uint64_t have = p->nheld ? names_have(n) : 0;
    for (uint32_t i = 0; i < p->nheld; i++)
        if (p->held[i].index > have && p->held[i].until > now)
            p->held[kept++] = p->held[i];
    p->nheld = kept;
}

uint64_t compacting_waiting(const struct nodes *n)
{
    lock_assert_held(&n->mu);
    return n->compacting->n;
}

/* ---- beginning ---- */

static bool is_sealed(struct nodes *n, const struct fsm_chunk *c)
{
    return !fsm_session_kept(n->cfg.fsm, c->session) || grants_given_up(n, c->session, c->id);
}

static void view(struct nodes *n, const struct fsm_chunk *c, struct compact_chunk *out)
{
    struct repair_chunk v;
    orders_view(n, c, &v);
    *out = (struct compact_chunk){.len = c->len,
                                  .live = c->live,
                                  .owners = fsm_chunk_files(n->cfg.fsm, c),
                                  .sealed = is_sealed(n, c),
                                  .busy = c->soft_flags & SOFT_BUSY,
                                  .copies = c->nloc,
                                  .need = c->goal < n->ctx.hosts_up ? c->goal : n->ctx.hosts_up};
    for (unsigned i = 0; i < v.n; i++) {
        const struct node *d = nodes_find(n, v.copy[i].chunkd);
        out->good += v.copy[i].state == REPAIR_OK && !v.copy[i].precious && !v.copy[i].leave && d &&
                     d->conn && d->state == REPLFS__NODE_STATE__NODE_UP;
    }
}

static uint64_t repairs_running(const struct nodes *n)
{
    return n->stat[REPAIR_KIND_REPAIR].running + n->stat[REPAIR_KIND_MOVE].running +
           n->stat[REPAIR_KIND_DRAIN].running;
}

static unsigned jobs_running(const struct compacting *p)
{
    unsigned running = 0;
    for (unsigned i = 0; i < COMPACT_RUNNING_MAX; i++)
        running += p->job[i] != NULL;
    return running;
}

void compacting_stock(struct nodes *n)
{
    lock_acquire(&n->mu);
    bool wanted = n->compacting->n && !n->compacting->next && n->lead.new_chunk;
    lock_release(&n->mu);
    uint64_t id = wanted ? n->lead.new_chunk(n->lead.ids_arg) : 0;
    lock_acquire(&n->mu);
    if (id)
        n->compacting->next = id;
    lock_release(&n->mu);
}

/* False: no number for the new chunk is at hand. */
static bool job_begin(struct nodes *n, struct fsm_chunk *c, uint8_t fails)
{
    struct compacting *p = n->compacting;
    struct fsm_mark mark;
    unsigned i = 0;
    fsm_mark(n->cfg.fsm, &mark);
    if (!p->next || !mark.incarnation)
        return false;
    struct compacting_job *j = calloc(1, sizeof(*j));
    if (!j)
        abort();
    *j = (struct compacting_job){.n = n,
                                 .chunk = c->id,
                                 .session = c->session,
                                 .to = p->next,
                                 .writer = mark.incarnation,
                                 .fails = fails};
    p->next = 0;
    j->nino = fsm_chunk_owners(n->cfg.fsm, c, j->ino, COMPACT_OWNERS_MAX);
    if (j->nino > COMPACT_OWNERS_MAX)
        j->nino = COMPACT_OWNERS_MAX;
    c->soft_flags = (uint8_t)((c->soft_flags | SOFT_BUSY) & ~SOFT_AGAIN);
    while (p->job[i])
        i++;
    p->job[i] = j;
    n->stat[JOB_COMPACT].running++;
    return true;
}

/* Looks at candidate i. True: it is none any more. */
static bool candidate_look(struct nodes *n, uint32_t i, int64_t now, const char **why)
{
    struct compacting_candidate *k = &n->compacting->v[i];
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, k->chunk);
    struct compact_chunk v;
    enum compact_verdict verdict = COMPACT_NOT;
    if (c) {
        view(n, c, &v);
        verdict = compact_judge(&v, why);
    }
    if (verdict == COMPACT_NOW &&
        compact_may_begin(jobs_running(n->compacting), repairs_running(n), why) &&
        job_begin(n, c, k->fails))
        verdict = COMPACT_NOT;
    k->due = now + (verdict == COMPACT_LATER ? LOOK_EVERY : 0);
    return verdict == COMPACT_NOT;
}

static void candidates_look(struct nodes *n, int64_t now)
{
    struct compacting *p = n->compacting;
    struct job_stat *st = &n->stat[JOB_COMPACT];
    uint32_t left = p->n < LOOK_SLICE ? p->n : LOOK_SLICE;
    const char *why = NULL;
    for (; left && p->n && jobs_running(p) < COMPACT_RUNNING_MAX; left--) {
        if (p->pos >= p->n)
            p->pos = 0;
        if (p->v[p->pos].due <= now && candidate_look(n, p->pos, now, &why))
            candidate_del(p, p->pos); /* its place is taken by another */
        else
            p->pos++;
        if (why)
            st->waiting = why;
    }
    st->nwaiting = p->n && st->waiting ? p->n : 0;
}

/* ---- ends ---- */

static void job_end(struct nodes *n, struct compacting_job *j)
{
    struct compacting *p = n->compacting;
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, j->chunk);
    struct job_stat *st = &n->stat[JOB_COMPACT];
    for (unsigned i = 0; i < COMPACT_RUNNING_MAX; i++)
        if (p->job[i] == j)
            p->job[i] = NULL;
    st->running--;
    *(j->failed ? &st->failed : &st->done) += 1;
    st->waiting = NULL;
    if (j->failed && c)
        candidate_add(p, j->chunk, clock_mono() + repair_queue_backoff(j->fails),
                      j->fails < UNKNOWN_FAILS ? (uint8_t)(j->fails + 1) : j->fails);
    if (!c && j->moved)
        held_add(n, j->chunk);
    if (c) {
        c->soft_flags &= (uint8_t) ~(SOFT_BUSY | SOFT_AGAIN);
        if (!j->failed)
            compacting_consider(n, c);
        orders_consider(n, c, 0);
    }
    log_debug("compaction of chunk %016llx to %016llx %s: %llu bytes moved",
              (unsigned long long)j->chunk, (unsigned long long)j->to,
              j->failed ? "failed" : "is over", (unsigned long long)j->moved);
    job_free(j);
}

static void job_fails(struct nodes *n, struct compacting_job *j, const char *what, const char *why)
{
    struct job_stat *st = &n->stat[JOB_COMPACT];
    j->failed = true;
    snprintf(st->last_error, sizeof(st->last_error), "chunk %016llx: %.80s: %.80s",
             (unsigned long long)j->chunk, what, why);
    log_debug("compaction failed: %s", st->last_error);
}

void compacting_forget(struct nodes *n)
{
    lock_assert_held(&n->mu);
    struct compacting *p = n->compacting;
    for (unsigned i = 0; i < COMPACT_RUNNING_MAX; i++) {
        struct compacting_job *j = p->job[i];
        struct fsm_chunk *c = j ? fsm_chunk_find(n->cfg.fsm, j->chunk) : NULL;
        p->job[i] = NULL;
        if (c)
            c->soft_flags &= (uint8_t) ~(SOFT_BUSY | SOFT_AGAIN);
        if (!j)
            continue;
        n->stat[JOB_COMPACT].running--;
        j->orphan = true;
        if (!j->orders)
            job_free(j);
    }
    u64map_free(&p->index);
    u64map_init(&p->index, U64MAP_U32);
    free(p->v);
    p->v = NULL;
    p->n = p->cap = p->pos = 0;
    p->nheld = 0;
    p->next = 0;
}

void compacting_free(struct compacting *p)
{
    if (!p)
        return;
    for (unsigned i = 0; i < COMPACT_RUNNING_MAX; i++)
        if (p->job[i])
            job_free(p->job[i]);
    u64map_free(&p->index);
    free(p->v);
    free(p->held);
    free(p);
}

/* ---- collecting and orders ---- */

/* The next extent that names the chunk; *steps are those looked at. False: out of steps, or that was all (then at is
 * nino). */
static bool scan_next(struct nodes *n, struct compacting_job *j, uint32_t *steps, struct ext *e)
{
    const struct extmap *m;
    while (j->at < j->nino && *steps) {
        --*steps;
        if (fsm_extents(n->cfg.fsm, j->ino[j->at], &m) || !extmap_find(m, j->off, e)) {
            j->at++;
            j->off = 0;
            continue;
        }
        j->off = e->file_off + e->len;
        if (e->chunk == j->chunk)
            return true;
    }
    return false;
}

static void orders_give(struct nodes *n, struct compacting_job *j, struct fsm_chunk *c)
{
    const struct fsm_loc *l = fsm_chunk_locs(c);
    for (unsigned i = 0; i < c->nloc && i < REPAIR_COPIES_MAX; i++) {
        struct node *d = nodes_find(n, l[i].chunkd);
        if (l[i].state != COPY_OK || !d || !d->conn) {
            job_fails(n, j, "a copy is out of reach", "meanwhile");
            return;
        }
    }
    for (unsigned i = 0; i < c->nloc && i < REPAIR_COPIES_MAX; i++) {
        orders_compact(n, nodes_find(n, l[i].chunkd), j, c);
        j->orders++;
    }
    j->state = ORDERED;
}

static void job_collect(struct nodes *n, struct compacting_job *j, uint32_t *steps)
{
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, j->chunk);
    struct ext e;
    while (c && !j->failed && scan_next(n, j, steps, &e))
        if (!compact_ranges_add(&j->ranges, e.chunk_off, e.len))
            job_fails(n, j, "its live ranges are too many", "later");
    if (c && !j->failed && j->at < j->nino)
        return; /* next turn */
    if (c && !j->failed && !compact_ranges_finish(&j->ranges))
        job_fails(n, j, "its live ranges are too many", "later");
    if (c && !j->failed && j->ranges.n)
        orders_give(n, j, c);
    if (!c || j->failed || !j->ranges.n)
        job_end(n, j);
}

size_t compacting_ranges(const struct compacting_job *j, uint64_t *to, uint64_t *writer,
                         uint32_t **off, uint32_t **len)
{
    size_t n = j->ranges.n;
    uint32_t *v = malloc((2 * n + 1) * sizeof(*v));
    if (!v)
        abort();
    for (size_t i = 0; i < n; i++) {
        v[i] = j->ranges.v[i].off;
        v[n + i] = j->ranges.v[i].len;
    }
    *off = v;
    *len = v + n;
    *to = j->to;
    *writer = j->writer;
    return n;
}

void compacting_answered(struct nodes *n, const struct order *o, bool late)
{
    lock_assert_held(&n->mu);
    struct compacting_job *j = o->compacting;
    struct node *d = nodes_find(n, o->chunkd);
    char label[256];
    j->orders--;
    if (late || j->orphan) {
        if (j->orphan && !j->orders)
            job_free(j);
        return;
    }
    if (!o->code && o->bytes == j->ranges.total) {
        j->chunkds[j->made] = o->chunkd;
        j->disks[j->made++] = o->disk;
        n->stat[JOB_COMPACT].bytes_done += o->bytes;
    } else {
        if (o->code == -ERR_PROTOCOL)
            j->fails = UNKNOWN_FAILS;
        job_fails(n, j, d ? nodes_label(d, label) : "a former chunkd",
                  o->detail[0] ? o->detail : err_str(o->code));
    }
    if (j->orders)
        return;
    if (j->failed) {
        job_end(n, j);
        return;
    }
    j->state = SWAPPING;
    j->at = 0;
    j->off = 0;
}

void compacting_discard(struct compacting_job *j)
{
    j->orders--;
    if (j->orphan && !j->orders)
        job_free(j);
}

/* ---- swapping ---- */

static void part_add(struct compacting_job *j, const struct ext *e, uint32_t to_off)
{
    Replfs__CompactedPart *p = j->list[j->nparts] = &j->part[j->nparts];
    j->nparts++;
    replfs__compacted_part__init(p);
    p->ino = j->ino[j->at];
    p->file_off = e->file_off;
    p->chunk_off = e->chunk_off;
    p->to_off = to_off;
    p->len = e->len;
}

static void swap_prepare(struct nodes *n, struct compacting_job *j, uint32_t *steps)
{
    uint64_t sum = 0;
    uint32_t to;
    struct ext e;
    j->nparts = 0;
    while (j->nparts < FSM_COMPACT_MAX && sum <= FSM_CHUNK_MAX / 2 && scan_next(n, j, steps, &e)) {
        if (!compact_ranges_find(&j->ranges, e.chunk_off, e.len, &to))
            continue; /* came meanwhile */
        part_add(j, &e, to);
        sum += e.len;
    }
    if (j->nparts)
        j->state = READY;
    else if (j->at == j->nino)
        job_end(n, j);
}

/* Log thread; the fsm write lock is held when code is 0. */
static void swap_applied(void *arg, int code, const struct fsm_result *res)
{
    struct compacting_job *j = arg;
    struct nodes *n = j->n;
    LOCK_SCOPE(&n->mu);
    if (code || res->code) {
        if (code || res->code != ENOENT) /* it is gone: all is done */
            job_fails(n, j, "the log", err_str(code ? code : -res->code));
        j->at = j->nino;
        return;
    }
    j->moved += res->value;
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, j->to);
    for (unsigned i = 0; c && i < j->made; i++)
        if (!reports_loc(c, j->chunkds[i]))
            reports_loc_set(n, c, j->chunkds[i], j->disks[i], COPY_OK);
    if (c) {
        c->soft_flags &= (uint8_t)~SOFT_GREW;
        orders_consider(n, c, NODES_WRITE_QUIET);
    }
}

static void swap_after(void *arg)
{
    struct compacting_job *j = arg;
    struct nodes *n = j->n;
    lock_acquire(&n->mu);
    j->state = SWAPPING;
    lock_release(&n->mu);
    nodes_poke(n);
    nodes_proposed(n);
}

static void swap_propose(struct nodes *n, struct compacting_job *j)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CompactOp c = REPLFS__COMPACT_OP__INIT;
    c.chunk = j->chunk;
    c.to = j->to;
    c.writer = j->writer;
    c.parts = j->list;
    c.n_parts = j->nparts;
    op.op_case = REPLFS__META_OP__OP_COMPACT;
    op.compact = &c;
    cmd.op = &op;
    nodes_propose(n, &cmd, swap_applied, swap_after, j);
}

void compacting_propose(struct nodes *n)
{
    struct compacting_job *ready[COMPACT_RUNNING_MAX];
    unsigned nready = 0;
    lock_acquire(&n->mu);
    for (unsigned i = 0; i < COMPACT_RUNNING_MAX; i++) {
        struct compacting_job *j = n->compacting->job[i];
        if (j && j->state == READY) {
            j->state = LOGGED;
            ready[nready++] = j;
        }
    }
    lock_release(&n->mu);
    while (nready) /* only this thread ends jobs while this leadership lasts */
        swap_propose(n, ready[--nready]);
}

/* ---- a turn ---- */

/* What stands in the way of all of it, for people; NULL: nothing. */
static const char *in_the_way(struct nodes *n)
{
    if (fsm_feature_level(n->cfg.fsm) < metaop_level(METAOP_COMPACT))
        return "the metads' feature level is below 2: replfsctl metad upgrade";
    if (nodes_past_behind(n))
        return "metad is older than what chunkds have seen";
    return NULL;
}

bool compacting_turn(struct nodes *n, int64_t now)
{
    lock_assert_held(&n->mu);
    struct compacting *p = n->compacting;
    struct job_stat *st = &n->stat[JOB_COMPACT];
    const char *why = in_the_way(n);
    uint32_t steps = SCAN_SLICE;
    bool more = false;
    held_release(n, now);
    for (unsigned i = 0; i < COMPACT_RUNNING_MAX; i++) {
        struct compacting_job *j = p->job[i];
        if (!j || !steps)
            continue;
        if (j->state == COLLECTING)
            job_collect(n, j, &steps);
        else if (j->state == SWAPPING && j->failed)
            job_end(n, j);
        else if (j->state == SWAPPING)
            swap_prepare(n, j, &steps);
        more |= p->job[i] && (j->state == COLLECTING || j->state == SWAPPING);
    }
    if (why) {
        st->waiting = why;
        st->nwaiting = p->n;
    } else {
        candidates_look(n, now);
    }
    for (unsigned i = 0; i < COMPACT_RUNNING_MAX; i++)
        more |= p->job[i] && p->job[i]->state == COLLECTING;
    return more || !steps;
}
