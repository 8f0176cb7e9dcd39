/* The repair planners in a simulated cluster with virtual time: hundreds of chunkds, thousands of
 * chunks, and chunkds that die, return (with or without their data), are drained, have to give space back, are paused, computers that are added,
 * copies that go bad, goals that change, orders that fail or are carried out without anybody
 * hearing of it.
 *
 * The world knows the truth (which copies are real and good); the planner sees only what metad
 * would believe. Checked at every step: no chunkd has more jobs than its bound; a copy is dropped
 * only while enough good ones remain (the goal; for space that is wanted back min_copies, or one); no act repeats for ever. Checked at the end, when the faults
 * have stopped: every chunk has exactly its goal of copies, real and good, no two on one computer
 * while enough computers are up. All randomness comes from the seed in a test's name, so a failure
 * repeats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "metad/plan/repair_queue.h"

#define SEC 1000000000ll
#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define COPIES_MAX 24
#define NONE 255 /* metad does not believe that the copy exists */
#define SUSPECT_AFTER (5 * SEC)
#define DEAD_AFTER (60 * SEC)
#define UP REPLFS__NODE_STATE__NODE_UP
#define SUSPECT REPLFS__NODE_STATE__NODE_SUSPECT
#define DEAD REPLFS__NODE_STATE__NODE_DEAD

struct copy {
    uint32_t chunkd;
    bool real, good; /* the truth */
    uint8_t belief;  /* enum repair_state or NONE */
    bool verified;   /* in the running job */
    bool proven;     /* likewise, every byte */
};
struct chunk {
    uint64_t id;
    uint32_t len;
    uint8_t goal, n;
    bool busy, again;
    struct repair_queue_item it; /* of the running job */
    struct copy copy[COPIES_MAX];
};
struct job {
    int64_t at;
    uint32_t chunk; /* index */
    enum repair_act act;
    uint32_t target, src;
    bool quick, burdens, doomed_node; /* its chunkd died meanwhile */
};
struct world {
    uint64_t random;
    int64_t now;
    struct placement_node *node;
    int64_t *down_at; /* 0: running */
    uint8_t *leave;   /* enum repair_leave of all it has */
    uint32_t nnodes, node_cap;
    struct chunk *chunk;
    uint32_t nchunks;
    struct job *job; /* running, unordered */
    uint32_t njobs, job_cap;
    struct repair_queue *q;
    struct repair_ctx x;
    bool walk;
    uint64_t orders, drops, copies, failures, max_jobs_seen;
};

static uint64_t rnd(struct world *w, uint64_t n)
{
    w->random += 0x9e3779b97f4a7c15ull;
    return hash_u64(w->random) % n;
}

/* ---- copies ---- */

static struct copy *find_copy(struct chunk *c, uint32_t chunkd)
{
    for (unsigned i = 0; i < c->n; i++)
        if (c->copy[i].chunkd == chunkd)
            return &c->copy[i];
    return NULL;
}

static struct copy *get_copy(struct chunk *c, uint32_t chunkd)
{
    struct copy *p = find_copy(c, chunkd);
    if (p)
        return p;
    assert_true(c->n < COPIES_MAX);
    p = &c->copy[c->n++];
    *p = (struct copy){.chunkd = chunkd, .belief = NONE};
    return p;
}

static void tidy(struct chunk *c)
{
    for (unsigned i = 0; i < c->n;)
        if (!c->copy[i].real && c->copy[i].belief == NONE)
            c->copy[i] = c->copy[--c->n];
        else
            i++;
}

static void set_real(struct world *w, struct chunk *c, struct copy *p, bool real)
{
    struct placement_node *n = &w->node[p->chunkd];
    if (p->real != real) {
        n->avail = real ? n->avail - c->len : n->avail + c->len;
        n->room = n->avail;
    }
    p->real = p->good = real;
}

static bool running(const struct world *w, uint32_t chunkd)
{
    return !w->down_at[chunkd];
}

/* Good in truth, on a chunkd that runs. */
static unsigned really_good(const struct world *w, const struct chunk *c, uint32_t but)
{
    unsigned n = 0;
    for (unsigned i = 0; i < c->n; i++)
        n += c->copy[i].real && c->copy[i].good && c->copy[i].chunkd != but &&
             running(w, c->copy[i].chunkd);
    return n;
}

/* The guarantee for a drop: enough good ones remain in truth, on chunkds that metad may count on
 * (one may have died so lately that nobody can know). */
static unsigned held_good(const struct world *w, const struct chunk *c, uint32_t but)
{
    unsigned n = 0;
    for (unsigned i = 0; i < c->n; i++)
        n += c->copy[i].real && c->copy[i].good && c->copy[i].chunkd != but &&
             w->node[c->copy[i].chunkd].state == UP;
    return n;
}

static void view(const struct world *w, const struct chunk *c, struct repair_chunk *v)
{
    *v = (struct repair_chunk){.len = c->len, .goal = c->goal};
    for (unsigned i = 0; i < c->n; i++)
        if (c->copy[i].belief != NONE)
            v->copy[v->n++] = (struct repair_copy){.chunkd = c->copy[i].chunkd,
                                                   .state = c->copy[i].belief,
                                                   .leave = w->leave[c->copy[i].chunkd],
                                                   .verified = c->copy[i].verified,
                                                   .proven = c->copy[i].proven};
}

static void consider(struct world *w, struct chunk *c)
{
    struct repair_chunk v;
    struct repair_queue_item it = {.chunk = c->id, .since = w->now, .due = w->now};
    unsigned prio;
    enum repair_kind kind;
    if (c->busy) {
        c->again = true;
        return;
    }
    view(w, c, &v);
    if (!repair_classify(&w->x, &v, &prio, &kind, &it.bytes)) {
        repair_queue_remove(w->q, c->id);
        return;
    }
    it.prio = (uint8_t)prio;
    it.kind = (uint8_t)kind;
    repair_queue_push(w->q, &it);
}

/* ---- jobs, as orders.c runs them ---- */

/* Back to the queue for want of a free place: what was read in full is remembered. */
static void pause_job(struct world *w, struct chunk *c)
{
    c->busy = false;
    for (unsigned i = 0; i < c->n; i++)
        c->copy[i].verified = c->copy[i].proven;
    tidy(c);
    if (c->again)
        consider(w, c);
    c->again = false;
}

static void end_job(struct world *w, struct chunk *c)
{
    for (unsigned i = 0; i < c->n; i++)
        c->copy[i].proven = false;
    pause_job(w, c);
}

static void start(struct world *w, struct chunk *c, const struct repair_decision *d)
{
    if (w->njobs == w->job_cap) {
        w->job_cap = w->job_cap ? w->job_cap * 2 : 256;
        w->job = realloc(w->job, w->job_cap * sizeof(*w->job));
        assert_non_null(w->job);
    }
    struct job *j = &w->job[w->njobs++];
    *j = (struct job){.chunk = (uint32_t)(c->id - 1),
                      .act = d->act,
                      .target = d->target,
                      .src = d->nsrc ? d->src[0] : 0,
                      .quick = d->quick};
    int64_t took = d->act == REPAIR_COPY ? (int64_t)(c->len * 10ull) /* 100 MB/s */ : SEC / 50;
    j->at = w->now + took + (int64_t)rnd(w, SEC / 5);
    j->burdens = d->act == REPAIR_COPY || (d->act == REPAIR_VERIFY && !d->quick);
    if (j->burdens) {
        w->node[j->target].jobs++;
        if (j->src)
            w->node[j->src].jobs++;
        assert_true(w->node[j->target].jobs <= w->node[j->target].max_jobs);
        assert_true(!j->src || w->node[j->src].jobs <= w->node[j->src].max_jobs);
        if (w->node[j->target].jobs > w->max_jobs_seen)
            w->max_jobs_seen = w->node[j->target].jobs;
    }
    w->orders++;
}

/* Good ones when the target's copy is dropped. */
static unsigned must_remain(const struct world *w, const struct chunk *c, uint32_t target)
{
    unsigned least = w->x.min_copies && w->x.min_copies < c->goal ? w->x.min_copies : c->goal;
    switch ((enum repair_leave)w->leave[target]) {
    case REPAIR_STAYS:
        break;
    case REPAIR_DRAIN: /* the others of its goal may be asleep */
    case REPAIR_SHED:
        return least;
    case REPAIR_AT_ONCE:
        return 1;
    }
    return c->goal;
}

/* False: blocked by bounds, the caller puts it back. */
static bool go_on(struct world *w, struct chunk *c)
{
    for (unsigned steps = 0; steps < 64; steps++) {
        struct repair_chunk v;
        struct repair_decision d;
        view(w, c, &v);
        w->x.seed++;
        repair_decide(&w->x, &v, &d);
        switch (d.act) {
        case REPAIR_FORGET:
            get_copy(c, d.target)->belief = NONE;
            continue;
        case REPAIR_DROP:
            assert_true(held_good(w, c, d.target) >= must_remain(w, c, d.target));
            get_copy(c, d.target)->belief = REPAIR_DOOMED;
            w->drops++;
            start(w, c, &d);
            return true;
        case REPAIR_VERIFY:
            if (!d.quick && w->node[d.target].jobs >= w->node[d.target].max_jobs) {
                pause_job(w, c);
                return false;
            }
            start(w, c, &d);
            return true;
        case REPAIR_COPY:
            w->copies++;
            start(w, c, &d);
            return true;
        case REPAIR_BUSY:
            pause_job(w, c);
            return false;
        case REPAIR_NONE:
        case REPAIR_KEEP:
        case REPAIR_LATER:
        case REPAIR_WAIT:
        case REPAIR_LOST:
            end_job(w, c);
            return true;
        }
    }
    fail_msg("chunk %llu does not settle", (unsigned long long)c->id);
    return true;
}

static void failed(struct world *w, struct chunk *c)
{
    struct repair_queue_item it = c->it;
    it.fails++;
    it.due = w->now + repair_queue_backoff(it.fails);
    w->failures++;
    c->again = false;
    end_job(w, c);
    repair_queue_push(w->q, &it);
}

/* The chunkd's part of an order: changes the truth. Returns false when it could not. */
static bool carry_out(struct world *w, const struct job *j, struct chunk *c)
{
    struct copy *p = get_copy(c, j->target);
    const struct copy *s = j->src ? find_copy(c, j->src) : NULL;
    switch (j->act) {
    case REPAIR_COPY:
        if (!s || !s->real || !running(w, j->src))
            return false;
        if (!s->good) { /* its CRC tells; nothing is written */
            get_copy(c, j->src)->belief = REPAIR_CHECKING;
            return false;
        }
        set_real(w, c, p, true);
        return true;
    case REPAIR_DROP:
        set_real(w, c, p, false);
        return true;
    case REPAIR_NONE: /* nothing to carry out */
    case REPAIR_VERIFY:
    case REPAIR_FORGET:
    case REPAIR_KEEP:
    case REPAIR_BUSY:
    case REPAIR_LATER:
    case REPAIR_WAIT:
    case REPAIR_LOST:
        break;
    }
    return true;
}

static void believe(const struct job *j, struct chunk *c)
{
    struct copy *p = get_copy(c, j->target);
    if (j->act == REPAIR_COPY) {
        p->belief = REPAIR_OK;
        p->verified = true;
    } else if (j->act == REPAIR_DROP) {
        p->belief = NONE;
    } else {
        bool fine = p->real && (p->good || j->quick);
        p->belief = !p->real ? NONE : fine ? REPAIR_OK : REPAIR_BAD;
        p->verified = fine;
        p->proven = fine && !j->quick;
    }
}

static void finish(struct world *w, struct job j)
{
    struct chunk *c = &w->chunk[j.chunk];
    if (j.burdens) {
        w->node[j.target].jobs--;
        if (j.src)
            w->node[j.src].jobs--;
    }
    bool reached = running(w, j.target) && !j.doomed_node && rnd(w, 100) >= 4;
    bool done = reached && carry_out(w, &j, c);
    bool heard = done && rnd(w, 100) >= 2; /* else the answer was lost */
    if (heard)
        believe(&j, c);
    else if (done && find_copy(c, j.target)->real && find_copy(c, j.target)->belief == NONE)
        find_copy(c, j.target)->belief = REPAIR_OK; /* the next heartbeat's increment */
    if (!heard)
        failed(w, c);
    else if (!go_on(w, c))
        repair_queue_unpop(w->q, &c->it);
}

static void finish_due(struct world *w)
{
    for (uint32_t i = 0; i < w->njobs;) {
        if (w->job[i].at > w->now) {
            i++;
            continue;
        }
        struct job j = w->job[i];
        w->job[i] = w->job[--w->njobs];
        finish(w, j);
    }
}

static void pop(struct world *w)
{
    struct repair_queue_item it, blocked[256];
    unsigned n = 0;
    while (n < 256 && repair_queue_pop(w->q, w->now, &it)) {
        struct chunk *c = &w->chunk[it.chunk - 1];
        assert_false(c->busy);
        c->busy = true;
        c->again = false;
        c->it = it;
        if (!go_on(w, c))
            blocked[n++] = it;
    }
    while (n)
        repair_queue_unpop(w->q, &blocked[--n]);
}

/* ---- chunkds come and go ---- */

static uint32_t add_node(struct world *w, uint32_t host)
{
    if (w->nnodes == w->node_cap) {
        w->node_cap = w->node_cap ? w->node_cap * 2 : 64;
        w->node = realloc(w->node, w->node_cap * sizeof(*w->node));
        w->down_at = realloc(w->down_at, w->node_cap * sizeof(*w->down_at));
        w->leave = realloc(w->leave, w->node_cap);
        assert_true(w->node && w->down_at && w->leave);
    }
    uint64_t size = (20 + rnd(w, 200)) * GIB;
    w->node[w->nnodes] = (struct placement_node){
        .host = host, .state = UP, .room = size, .avail = size, .capacity = size, .max_jobs = 4};
    w->down_at[w->nnodes] = 0;
    w->leave[w->nnodes] = REPAIR_STAYS;
    w->x.t = (struct placement_table){w->node, ++w->nnodes};
    w->walk = true;
    return w->nnodes - 1;
}

static void kill_node(struct world *w, uint32_t k)
{
    w->down_at[k] = w->now;
    for (uint32_t i = 0; i < w->njobs; i++)
        w->job[i].doomed_node |= w->job[i].target == k;
}

/* Losing k's data must not lose a chunk: that would be the fault's doing, not the planner's. */
static bool may_wipe(const struct world *w, uint32_t k)
{
    for (uint32_t i = 0; i < w->nchunks; i++) {
        struct chunk *c = &w->chunk[i];
        const struct copy *p = find_copy(c, k);
        if (p && p->real && (c->busy || !really_good(w, c, k)))
            return false;
    }
    return true;
}

/* Back, and its full report is in. */
static void return_node(struct world *w, uint32_t k, bool wiped)
{
    w->down_at[k] = 0;
    w->node[k].state = UP;
    for (uint32_t i = 0; i < w->nchunks; i++) {
        struct chunk *c = &w->chunk[i];
        struct copy *p = find_copy(c, k);
        if (!p)
            continue;
        if (wiped)
            set_real(w, c, p, false);
        if (!p->real)
            p->belief = NONE;
        else if (p->belief == NONE)
            p->belief = p->good ? REPAIR_OK : REPAIR_CHECKING;
        if (!c->busy)
            tidy(c);
    }
    w->walk = true;
}

static void step_states(struct world *w)
{
    for (uint32_t k = 1; k < w->nnodes; k++) {
        int64_t silent = w->down_at[k] ? w->now - w->down_at[k] : 0;
        bool dead = silent > DEAD_AFTER && !w->node[k].paused;
        uint8_t s = dead ? DEAD : silent > SUSPECT_AFTER ? SUSPECT : UP;
        if (s != w->node[k].state)
            w->walk = true;
        w->node[k].state = s;
    }
    w->x.hosts_up = placement_hosts_up(&w->x.t);
}

static void tick(struct world *w, int64_t step)
{
    w->now += step;
    step_states(w);
    finish_due(w);
    for (uint32_t i = 0; w->walk && i < w->nchunks; i++)
        consider(w, &w->chunk[i]);
    w->walk = false;
    pop(w);
}

/* ---- faults ---- */

static void corrupt(struct world *w)
{
    struct chunk *c = &w->chunk[rnd(w, w->nchunks)];
    struct copy *p = c->n ? &c->copy[rnd(w, c->n)] : NULL;
    if (!p || c->busy || !p->real || !p->good || p->belief != REPAIR_OK || !running(w, p->chunkd) ||
        !really_good(w, c, p->chunkd))
        return;
    p->good = false;
    p->belief = REPAIR_CHECKING; /* a reader met it */
    consider(w, c);
}

static void set_goals(struct world *w, unsigned goal_max)
{
    for (unsigned k = 0; k < 50; k++) {
        struct chunk *c = &w->chunk[rnd(w, w->nchunks)];
        c->goal = (uint8_t)(1 + rnd(w, goal_max));
        consider(w, c);
    }
}

/* What an administrator decides. Where space is wanted back there is no room for other chunks. */
static void decide_leave(struct world *w, uint32_t k, enum repair_leave how)
{
    w->leave[k] = (uint8_t)how;
    w->node[k].draining = how != REPAIR_STAYS;
    w->walk = true;
}

static void decide_pause(struct world *w, uint32_t k, bool paused)
{
    w->node[k].paused = paused;
    w->walk = true;
}

static void fault(struct world *w, unsigned goal_max, uint32_t *hosts, bool decisions)
{
    uint32_t k = 1 + (uint32_t)rnd(w, w->nnodes - 1);
    switch (rnd(w, decisions ? 11 : 8)) {
    case 8:
    case 9:
        decide_leave(w, k,
                     w->leave[k] || rnd(w, 2) ? REPAIR_STAYS : (enum repair_leave)(1 + rnd(w, 3)));
        break;
    case 10:
        decide_pause(w, k, !w->node[k].paused && rnd(w, 2));
        break;
    case 0:
    case 1:
        if (running(w, k))
            kill_node(w, k);
        break;
    case 2:
    case 3:
        if (!running(w, k))
            return_node(w, k, rnd(w, 4) == 0 && may_wipe(w, k));
        break;
    case 4:
        set_goals(w, goal_max);
        break;
    case 5:
        if (rnd(w, 10) == 0)
            add_node(w, rnd(w, 2) ? ++*hosts : 1 + (uint32_t)rnd(w, *hosts));
        break;
    default:
        for (unsigned i = 0; i < 5; i++)
            corrupt(w);
    }
}

/* ---- the run ---- */

static void check_end(struct world *w)
{
    for (uint32_t i = 0; i < w->nchunks; i++) {
        struct chunk *c = &w->chunk[i];
        unsigned ok = 0, hosts = 0;
        uint32_t seen[COPIES_MAX];
        for (unsigned k = 0; k < c->n; k++) {
            assert_true(c->copy[k].real && c->copy[k].good && c->copy[k].belief == REPAIR_OK);
            assert_int_equal(w->leave[c->copy[k].chunkd], REPAIR_STAYS);
            uint32_t h = w->node[c->copy[k].chunkd].host;
            unsigned m = 0;
            while (m < hosts && seen[m] != h)
                m++;
            if (m == hosts)
                seen[hosts++] = h;
            ok++;
        }
        unsigned most = c->goal < w->nnodes - 1 ? c->goal : w->nnodes - 1;
        assert_int_equal(ok, most);
        assert_int_equal(hosts, most < w->x.hosts_up ? most : w->x.hosts_up);
    }
    for (uint32_t k = 1; k < w->nnodes; k++)
        assert_int_equal(w->node[k].jobs, 0);
}

static bool quiet(const struct world *w)
{
    return !w->njobs && !repair_queue_count(w->q);
}

static void free_world(struct world *w)
{
    repair_queue_free(w->q);
    free(w->node);
    free(w->down_at);
    free(w->leave);
    free(w->chunk);
    free(w->job);
}

static void populate(struct world *w, uint32_t nchunks, unsigned goal_max)
{
    w->chunk = calloc(nchunks, sizeof(*w->chunk));
    assert_non_null(w->chunk);
    for (w->nchunks = 0; w->nchunks < nchunks; w->nchunks++) {
        struct chunk *c = &w->chunk[w->nchunks];
        c->id = w->nchunks + 1;
        c->len = 1 + (uint32_t)rnd(w, 64 * MIB);
        c->goal = (uint8_t)(1 + rnd(w, goal_max));
        uint32_t out[PLACEMENT_PICK_MAX];
        struct placement_req r = {.want = c->goal, .headroom = 64 * MIB * c->goal, .seed = c->id};
        unsigned n = placement_pick(&w->x.t, &r, out);
        for (unsigned i = 0; i < n; i++) {
            struct copy *p = get_copy(c, out[i]);
            set_real(w, c, p, true);
            p->belief = REPAIR_OK;
        }
    }
}

struct plan {
    uint64_t seed;
    uint32_t hosts, per_host, chunks;
    unsigned goal_max;
    int64_t minutes;  /* of faults */
    unsigned every_s; /* one fault every so many seconds on average */
    bool decisions;   /* drains, space wanted back, pauses */
};

static void run(const struct plan *p)
{
    struct world w = {.random = p->seed, .q = repair_queue_new()};
    w.x.min_copies = p->decisions ? 2 : 0;
    uint32_t hosts = p->hosts;
    add_node(&w, 0); /* id 0 is nobody */
    for (uint32_t i = 0; i < p->hosts * p->per_host; i++)
        add_node(&w, i % p->hosts + 1);
    step_states(&w);
    populate(&w, p->chunks, p->goal_max);
    while (w.now < p->minutes * 60 * SEC) {
        if (rnd(&w, p->every_s * 4) == 0)
            fault(&w, p->goal_max, &hosts, p->decisions);
        tick(&w, SEC / 4);
    }
    for (uint32_t k = 1; k < w.nnodes; k++)
        if (!running(&w, k))
            return_node(&w, k, false);
    for (uint32_t k = 1; k < w.nnodes; k++) {
        bool goes = p->decisions && p->hosts > 4 * p->goal_max && w.node[k].host % 4 == 0;
        decide_leave(&w, k, goes ? REPAIR_DRAIN : REPAIR_STAYS);
        decide_pause(&w, k, false);
    }
    int64_t calm = w.now;
    do {
        tick(&w, SEC / 4);
        assert_true(w.now - calm < 6 * 3600 * SEC); /* no livelock */
    } while (!quiet(&w) || w.walk);
    for (uint32_t i = 0; i < w.nchunks; i++)
        consider(&w, &w.chunk[i]);
    assert_true(quiet(&w));
    check_end(&w);
    print_message(
        "seed %llu: %u chunkds, %u chunks: %llu orders, %llu copies, %llu drops, %llu failed, "
        "at most %llu jobs on one; calm after %lld s\n",
        (unsigned long long)p->seed, w.nnodes - 1, w.nchunks, (unsigned long long)w.orders,
        (unsigned long long)w.copies, (unsigned long long)w.drops, (unsigned long long)w.failures,
        (unsigned long long)w.max_jobs_seen, (long long)((w.now - calm) / SEC));
    free_world(&w);
}

static void small_clusters(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++)
        run(&(struct plan){.seed = seed,
                           .hosts = 1 + (uint32_t)seed % 5,
                           .per_host = 1 + (uint32_t)seed % 3,
                           .chunks = 100,
                           .goal_max = 3,
                           .minutes = 60,
                           .every_s = 10});
}

static void decisions_in_small_clusters(void **state)
{
    (void)state;
    for (uint64_t seed = 101; seed <= 130; seed++)
        run(&(struct plan){.seed = seed,
                           .hosts = 3 + (uint32_t)seed % 5,
                           .per_host = 1 + (uint32_t)seed % 3,
                           .chunks = 100,
                           .goal_max = 3,
                           .minutes = 60,
                           .every_s = 10,
                           .decisions = true});
}

static void decisions_in_a_storm(void **state)
{
    (void)state;
    run(&(struct plan){.seed = 3003,
                       .hosts = 24,
                       .per_host = 2,
                       .chunks = 2000,
                       .goal_max = 4,
                       .minutes = 30,
                       .every_s = 1,
                       .decisions = true});
}

static void three_hundred_chunkds(void **state)
{
    (void)state;
    run(&(struct plan){.seed = 1001,
                       .hosts = 150,
                       .per_host = 2,
                       .chunks = 5000,
                       .goal_max = 4,
                       .minutes = 60,
                       .every_s = 4});
}

static void storm(void **state)
{
    (void)state;
    run(&(struct plan){.seed = 2002,
                       .hosts = 12,
                       .per_host = 3,
                       .chunks = 2000,
                       .goal_max = 5,
                       .minutes = 30,
                       .every_s = 1});
}

/* One of ten chunkds dies for good: everything it had is copied, and only that. */
static void one_death_costs_one_chunkd_of_copies(void **state)
{
    (void)state;
    struct world w = {.random = 7, .q = repair_queue_new()};
    add_node(&w, 0);
    for (uint32_t i = 1; i <= 10; i++)
        add_node(&w, i);
    step_states(&w);
    populate(&w, 2000, 3);
    unsigned had = 0, lost = 0;
    for (uint32_t i = 0; i < w.nchunks; i++)
        if (find_copy(&w.chunk[i], 4)) {
            had++;
            lost += w.chunk[i].goal == 1;
        }
    tick(&w, SEC);
    kill_node(&w, 4);
    while (w.now < 50 * SEC)
        tick(&w, SEC / 4);
    assert_int_equal(w.copies, 0); /* suspect only */
    do
        tick(&w, SEC / 4);
    while (w.now < 70 * SEC || !quiet(&w));
    assert_true(w.copies >= had - lost);
    assert_true(w.copies - w.failures <= had - lost);
    for (uint32_t i = 0; i < w.nchunks; i++) {
        const struct chunk *c = &w.chunk[i];
        if (c->goal > 1)
            assert_int_equal(really_good(&w, c, 0), c->goal);
    }
    free_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_death_costs_one_chunkd_of_copies),
        cmocka_unit_test(small_clusters),
        cmocka_unit_test(storm),
        cmocka_unit_test(decisions_in_small_clusters),
        cmocka_unit_test(decisions_in_a_storm),
        cmocka_unit_test(three_hundred_chunkds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
