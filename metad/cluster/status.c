/* Answers for people: how the cluster is, what is wrong and what to do, where a file's copies are,
 * how far from its goal it is. Read-only; reads the fsm under its read lock and the registry under
 * nodes.mu, in slices.
 *
 * Chunks are counted by a walk through all of them at each StatusReq; a walk of a million takes
 * some ten milliseconds, so with many chunks the last count serves for COUNT_KEEP. Vocabulary: a
 * chunk is `lost` when no copy of it is good and no chunkd that may have one is away; `unavailable`
 * when one is away. Thread context: rpc loop threads. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"
#include "nodes_internal.h"
#include "status_internal.h"

#define COUNT_SLICE 16384
#define COUNT_KEEP (2 * NSEC_PER_SEC)
#define COUNT_MANY 200000u
#define DAMAGED_NAMED 4u /* naming ranges looks through whole files */

/* ---- counting ---- */

static void count_damage(struct status_ask *a, const struct fsm_chunk *c)
{
    struct status_count *k = &a->count;
    char text[200];
    if (!damage_lost(a->n, c) || k->damaged++ >= DAMAGED_NAMED ||
        !damage_text(a->n, c, 0, text, sizeof(text)))
        return;
    size_t len = strlen(k->damaged_where);
    if (len + strlen(text) + 3 <= sizeof(k->damaged_where))
        snprintf(k->damaged_where + len, sizeof(k->damaged_where) - len, "%s%s", len ? ", " : "",
                 text);
}

static void count_chunk(void *arg, struct fsm_chunk *c)
{
    struct status_ask *a = arg;
    struct status_count *k = &a->count;
    struct repair_chunk v;
    struct repair_tally t;
    orders_view(a->n, c, &v);
    repair_tally(&a->n->ctx, &v, &t);
    unsigned g = c->goal <= FSM_GOAL_MAX ? c->goal : FSM_GOAL_MAX;
    unsigned h = t.good < STATUS_COPIES_MAX ? t.good : STATUS_COPIES_MAX - 1;
    k->chunks[g][h]++;
    k->bytes[g][h] += c->len;
    unsigned min = a->n->cfg.min_copies < c->goal ? a->n->cfg.min_copies : c->goal;
    bool dozes = a->n->ctx.dozing && t.good >= min; /* a paused one may have the others */
    k->below += t.good < c->goal && !dozes;
    k->above += t.good > c->goal;
    k->misplaced += t.good >= c->goal && t.hosts < c->goal;
    k->endangered += !t.good && t.rescue;
    k->unreferenced += c->live < c->len ? c->len - c->live : 0;
    if (!t.good && !t.unsure && !t.rescue) {
        bool away = t.away || a->n->ctx.unreported || a->n->settling;
        *(away ? &k->unavailable : &k->lost) += 1;
    }
    count_damage(a, c);
    const struct fsm_loc *l = fsm_chunk_locs(c);
    for (unsigned i = 0; i < c->nloc; i++)
        k->bad += l[i].state == COPY_BAD;
}

static void count_all(struct status_ask *a)
{
    struct nodes *n = a->n;
    uint64_t pos = 0;
    bool more = true;
    while (more) {
        fsm_rdlock(n->cfg.fsm);
        lock_acquire(&n->mu);
        more = fsm_chunk_walk(n->cfg.fsm, &pos, COUNT_SLICE, count_chunk, a);
        lock_release(&n->mu);
        fsm_unlock(n->cfg.fsm);
    }
}

static void count_or_recall(struct status_ask *a)
{
    static struct {
        struct lock mu;
        const struct nodes *of;
        int64_t at;
        struct status_count count;
    } kept = {.mu = LOCK_INITIALIZER(CONVERGE_ANSWER)};
    int64_t now = clock_mono();
    lock_acquire(&kept.mu);
    bool good = kept.of == a->n && a->fsm.chunks > COUNT_MANY && now - kept.at < COUNT_KEEP;
    if (good)
        a->count = kept.count;
    lock_release(&kept.mu);
    if (good)
        return;
    count_all(a);
    lock_acquire(&kept.mu);
    kept.of = a->n;
    kept.at = now;
    kept.count = a->count;
    lock_release(&kept.mu);
}

/* ---- building replies: everything hangs on one arena, freed at once ---- */

void *status_alloc(struct status_ask *a, size_t len)
{
    struct status_mem *m = calloc(1, sizeof(*m) + len);
    if (!m)
        abort();
    m->next = a->mem;
    a->mem = m;
    return m->data;
}

char *status_text(struct status_ask *a, const char *fmt, ...)
{
    char buf[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf, sizeof(buf), fmt, ap);
    va_end(ap);
    size_t len = strlen(buf) + 1;
    return memcpy(status_alloc(a, len), buf, len);
}

void status_free(struct status_ask *a)
{
    while (a->mem) {
        struct status_mem *m = a->mem;
        a->mem = m->next;
        free(m);
    }
}

static void fill_disks(struct status_ask *a, const struct node *d, Replfs__ChunkdStatus *s)
{
    s->n_disks = d->ndisks;
    s->disks = status_alloc(a, (d->ndisks + 1) * sizeof(*s->disks));
    for (unsigned i = 0; i < d->ndisks; i++) {
        const struct node_disk *k = &d->disks[i];
        Replfs__DiskStat *t = s->disks[i] = status_alloc(a, sizeof(*t));
        replfs__disk_stat__init(t);
        t->disk = k->disk;
        t->path = status_text(a, "%s", k->path);
        t->error = status_text(a, "%s", k->error);
        t->capacity = k->capacity;
        t->used = k->used;
        t->avail = k->avail;
        t->failed = k->failed;
        t->chunks = k->chunks;
        t->missing = k->missing;
        t->readonly = k->readonly;
        t->dead = k->dead;
        t->fs = k->fs;
        t->fs_capacity = k->fs_capacity;
        t->fs_avail = k->fs_avail;
        if (k->scrub.state == REPLFS__SCRUB_STATE__SCRUB_NONE)
            continue;
        t->scrub = status_alloc(a, sizeof(*t->scrub));
        *t->scrub = k->scrub;
    }
}

/* What was decided about it, and how far that is. */
static void fill_decided(struct status_ask *a, const struct node *d, Replfs__ChunkdStatus *s)
{
    const struct leave *l = &d->leave;
    char text[256];
    int64_t left = nodes_paused(d) ? d->pause_end - clock_boot() : 0;
    s->draining = d->draining;
    s->leave_chunks = l->chunks;
    s->leave_bytes = l->bytes;
    for (unsigned k = 0; !l->bytes && k < d->ndisks; k++)
        if (d->disks[k].chunks) /* not chosen yet, or written since all chunks were looked at */
            s->leave_bytes += d->limits[d->disks[k].disk & 63].over;
    s->leave_rate = l->rate;
    s->leave_eta_s = l->rate ? l->bytes / l->rate : 0;
    s->leave_waiting = status_text(a, "%s", leave_text(a->n, d, text));
    s->removable = leave_removable(d);
    s->paused_s = left > 0 ? (uint64_t)(left / NSEC_PER_SEC) + 1 : 0;
    s->stopped = d->stopped && !d->conn;
    Replfs__DiskLimit *v = status_alloc(a, NODE_LIMITS_MAX * sizeof(*v));
    s->limits = status_alloc(a, NODE_LIMITS_MAX * sizeof(*s->limits));
    s->n_limits = nodes_limits_fill(d, v, s->limits);
}

static Replfs__ChunkdStatus *fill_chunkd(struct status_ask *a, const struct node *d)
{
    Replfs__ChunkdStatus *s = status_alloc(a, sizeof(*s));
    replfs__chunkd_status__init(s);
    s->chunkd = d->id;
    s->addr = status_text(a, "%s", d->addr);
    s->host_id = status_text(a, "%s", d->host_id);
    s->host_name = status_text(a, "%s", d->host_name);
    s->state = nodes_shown_state(d);
    s->last_seen_ms = (uint64_t)((a->now - d->last_seen) / NSEC_PER_MSEC);
    s->chunks = d->count;
    s->inflight = d->inflight;
    s->read_bytes = d->read_bytes;
    s->write_bytes = d->write_bytes;
    fill_disks(a, d, s);
    fill_decided(a, d, s);
    return s;
}

static void fill_chunkds(struct status_ask *a, Replfs__StatusReply *r)
{
    const struct nodes *n = a->n;
    r->chunkds = status_alloc(a, (n->nnodes + 1) * sizeof(*r->chunkds));
    for (uint32_t i = 1; i < n->nnodes; i++)
        if (n->node[i] && !nodes_gone(n->node[i]))
            r->chunkds[r->n_chunkds++] = fill_chunkd(a, n->node[i]);
}

static void fill_names(struct status_ask *a, Replfs__StatusReply *r)
{
    const struct nodes_config *cfg = &a->n->cfg;
    struct nodes_names v[NODES_NAMES_MAX];
    struct nodes_names_all all;

    if (!cfg->names_copies)
        return;
    size_t n = cfg->names_copies(cfg->names_arg, v, NODES_NAMES_MAX, &all);
    r->names_wanted = all.wanted;
    r->names_sync = all.sync;
    r->names_unsynced = all.unsynced;
    r->names = status_alloc(a, (n + 1) * sizeof(*r->names));
    for (size_t i = 0; i < n; i++) {
        Replfs__NamesCopy *c = r->names[r->n_names++] = status_alloc(a, sizeof(*c));
        replfs__names_copy__init(c);
        c->chunkd = v[i].chunkd;
        c->host_name = status_text(a, "%s", v[i].host_name);
        c->generation = v[i].generation;
        c->reached = v[i].reached;
        c->age_ms = v[i].age_ns > 0 ? (uint64_t)(v[i].age_ns / NSEC_PER_MSEC) : 0;
        c->size = v[i].size;
        c->filling = v[i].filling;
        c->filled = v[i].filled;
        c->error = status_text(a, "%s", v[i].error);
    }
}

static void fill_goals(struct status_ask *a, Replfs__StatusReply *r)
{
    r->goals = status_alloc(a, (FSM_GOAL_MAX + 1) * STATUS_COPIES_MAX * sizeof(*r->goals));
    for (unsigned g = 0; g <= FSM_GOAL_MAX; g++)
        for (unsigned h = 0; h < STATUS_COPIES_MAX; h++) {
            if (!a->count.chunks[g][h])
                continue;
            Replfs__GoalCount *t = status_alloc(a, sizeof(*t));
            replfs__goal_count__init(t);
            t->goal = g;
            t->copies = h;
            t->chunks = a->count.chunks[g][h];
            t->bytes = a->count.bytes[g][h];
            r->goals[r->n_goals++] = t;
        }
}

static Replfs__JobStatus *fill_job(struct status_ask *a, unsigned kind)
{
    const struct nodes *n = a->n;
    const struct job_stat *st = &n->stat[kind];
    Replfs__JobStatus *j = status_alloc(a, sizeof(*j));
    replfs__job_status__init(j);
    j->name = status_text(a, "%s",
                          kind < REPAIR_KINDS  ? repair_kind_name[kind]
                          : kind == JOB_DELETE ? "delete"
                                               : "compact");
    if (kind < REPAIR_KINDS)
        repair_queue_stat(n->queue, (enum repair_kind)kind, &j->queued, &j->bytes_left);
    if (kind == JOB_COMPACT)
        j->queued = compacting_waiting(n);
    j->running = st->running;
    j->done = st->done;
    j->failed = st->failed;
    j->bytes_per_s = st->rate;
    j->eta_s = st->rate ? j->bytes_left / st->rate : 0;
    j->last_error = status_text(a, "%s", st->last_error);
    if (n->settling && (j->queued || n->walking))
        j->waiting = status_text(a, "just started: waiting for chunkds to report");
    else if (st->nwaiting)
        j->waiting =
            status_text(a, "%llu chunks: %s", (unsigned long long)st->nwaiting, st->waiting);
    else if (j->queued && !j->running)
        j->waiting = status_text(a, "begins shortly");
    return j;
}

static void fill_jobs(struct status_ask *a, Replfs__StatusReply *r)
{
    r->jobs = status_alloc(a, JOB_KINDS * sizeof(*r->jobs));
    for (unsigned i = 0; i < JOB_KINDS; i++)
        r->jobs[r->n_jobs++] = fill_job(a, i);
}

static void fill_counts(struct status_ask *a, Replfs__StatusReply *r)
{
    r->cluster = status_text(a, "%s", mlog_uuid(a->n->cfg.mlog));
    r->files = a->fsm.files;
    r->dirs = a->fsm.dirs;
    r->symlinks = a->fsm.symlinks;
    r->others = a->fsm.others;
    r->bytes = a->fsm.bytes;
    r->chunks = a->fsm.chunks;
    r->sessions = a->fsm.sessions;
    r->sessions_lapsed = a->fsm.sessions_lapsed;
    r->orphans = a->fsm.orphans;
    r->unreferenced = a->count.unreferenced;
    r->misplaced = a->count.misplaced;
    r->bad_copies = a->count.bad;
    r->lost = a->count.lost;
    r->settling = a->n->settling;
    r->quarantine = recover_quarantined(a->n);
}

void nodes_rpc_status(struct nodes *n, struct rpc_req *req)
{
    struct status_ask a = {.n = n, .now = clock_mono()};
    Replfs__StatusReply rep = REPLFS__STATUS_REPLY__INIT;
    fsm_rdlock(n->cfg.fsm);
    fsm_counts(n->cfg.fsm, &a.fsm);
    a.behind = fsm_behind(n->cfg.fsm);
    fsm_unlock(n->cfg.fsm);
    count_or_recall(&a);
    status_metads(&a, &rep);
    nodes_space(n, 0, &rep.capacity, &rep.avail);
    lock_acquire(&n->mu);
    a.behind |= n->distrust;
    fill_counts(&a, &rep);
    fill_chunkds(&a, &rep);
    fill_goals(&a, &rep);
    fill_jobs(&a, &rep);
    fill_names(&a, &rep);
    status_problems(&a, &rep);
    lock_release(&n->mu);
    RPC_ENVELOPE(env, STATUS_REPLY, status_reply, &rep);
    rpc_reply(req, &env, NULL);
    status_free(&a);
}
