/* StatusReply's metads, and what is wrong with them: how this one is, which leads, and how far the others are, as its log
 * knows them. Of a metad that the table has and the log has not, a place is kept that was never taken.
 *
 * Read-only; the fsm under its read lock, then nodes.mu. Thread context: rpc loop threads. */
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"
#include "metad/fsm/fsm_cluster.h"
#include "status_internal.h"

#define METAD_SILENT_MS 3000 /* the leader hears of each several times a second */

static uint64_t resident_bytes(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (!f)
        return 0;
    int got = fscanf(f, "%*u %lu", &pages);
    fclose(f);
    return got == 1 ? pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static Replfs__MetadStatus *metad_row(struct status_ask *a, Replfs__StatusReply *r, uint64_t id)
{
    for (size_t i = 0; i < r->n_metads; i++)
        if (r->metads[i]->id == id)
            return r->metads[i];
    Replfs__MetadStatus *m = status_alloc(a, sizeof(*m));
    replfs__metad_status__init(m);
    m->id = id;
    m->addr = m->name = status_text(a, "%s", "");
    m->role = status_text(a, "%s", "new");
    r->metads[r->n_metads++] = m;
    return m;
}

static void fill_self(struct status_ask *a, Replfs__MetadStatus *m, const struct mlog_status *ms)
{
    if (!m->addr[0])
        m->addr = status_text(a, "%s", a->n->addr);
    m->role = status_text(a, "%s", ms->leader ? "leader" : "follower");
    m->applied = ms->applied;
    m->term = ms->term;
    m->up = true;
    m->silent_ms = 0;
    m->behind = 0;
    m->uptime_s = (uint64_t)((a->now - a->n->process) / NSEC_PER_SEC);
    lock_acquire(&a->n->mu);
    m->leads_s = a->n->serving ? (uint64_t)((a->now - a->n->serving) / NSEC_PER_SEC) : 0;
    m->gap_ms = a->n->gap_ms;
    m->gains = a->n->gains;
    lock_release(&a->n->mu);
    m->memory = resident_bytes();
    m->log_bytes = ms->log_bytes;
    m->checkpoint_index = ms->checkpoint_index;
    if (ms->error && ms->error[0])
        status_problem(a, 2, "metad-log",
                       status_text(a, "the metadata log has a problem: %s", ms->error),
                       "look at the metad's log and disk; keep the chunkds running");
}

static const char *member_role(const struct mlog_member *b)
{
    switch (b->role) {
    case MLOG_SPARE:
    case MLOG_LEARNER:
        return "learner";
    case MLOG_VOTER:
        return "follower";
    }
    return "";
}

static void fill_member(struct status_ask *a, Replfs__MetadStatus *m, const struct mlog_member *b,
                        uint64_t last)
{
    m->role = status_text(a, "%s", member_role(b));
    m->applied = b->match;
    m->behind = last > b->match ? last - b->match : 0;
    m->silent_ms = b->heard_ms > 0 ? (uint64_t)b->heard_ms : 0;
    m->up = b->heard_ms >= 0 && b->heard_ms < METAD_SILENT_MS;
}

static void say_silent(struct status_ask *a, const Replfs__MetadStatus *m, unsigned voters,
                       unsigned up)
{
    bool last = up - 1 < voters / 2 + 1;
    status_problem(
        a, 1, "metad-silent",
        status_text(a, "metad %llu (%s%s%s) is not heard of: %u of %u metads are up%s",
                    (unsigned long long)m->id, m->name, m->name[0] ? ", " : "", m->addr, up, voters,
                    last ? ", and the loss of one more stops the cluster" : ""),
        status_text(
            a,
            "start replfs-metad on that computer again; when it or its disk is gone for "
            "good: replfs-metad --join ADDRESS --data DIR with an empty directory, there or "
            "elsewhere, and replfsctl metad remove %llu",
            (unsigned long long)m->id));
}

static void check_metads(struct status_ask *a, const Replfs__StatusReply *r,
                         const struct mlog_member *all, unsigned n, uint64_t leads_s)
{
    unsigned voters = 0, up = 0;

    for (unsigned i = 0; i < n; i++) {
        voters += all[i].role == MLOG_VOTER;
        for (size_t k = 0; k < r->n_metads; k++)
            up += all[i].role == MLOG_VOTER && r->metads[k]->id == all[i].id && r->metads[k]->up;
    }
    if (voters < 2 || leads_s * 1000 < METAD_SILENT_MS)
        return; /* alone; or it has just begun to listen */
    if (voters == 2 && up == 2)
        status_problem(
            a, 1, "metads-two", "there are two metads, and the loss of either stops the cluster",
            "add a third: replfs-metad --join ADDRESS --data DIR on another computer; or "
            "remove one: replfsctl metad remove ID");
    for (unsigned i = 0; i < n; i++)
        for (size_t k = 0; k < r->n_metads && all[i].role == MLOG_VOTER; k++)
            if (r->metads[k]->id == all[i].id && !r->metads[k]->up)
                say_silent(a, r->metads[k], voters, up);
}

void status_metads(struct status_ask *a, Replfs__StatusReply *r)
{
    struct mlog_member all[MLOG_MEMBERS_MAX];
    struct mlog_status ms = {0};
    struct fsm_metad known = {.id = 0};
    uint64_t self = mlog_id(a->n->cfg.mlog);

    mlog_status(a->n->cfg.mlog, &ms);
    unsigned n = mlog_members(a->n->cfg.mlog, all);
    r->metads = status_alloc(a, (FSM_METADS_MAX + MLOG_MEMBERS_MAX + 1) * sizeof(*r->metads));
    fsm_rdlock(a->n->cfg.fsm);
    while (fsm_metad_next(a->n->cfg.fsm, known.id, &known)) {
        Replfs__MetadStatus *m = metad_row(a, r, known.id);
        m->addr = status_text(a, "%s", known.addr);
        m->name = status_text(a, "%s", known.name);
    }
    fsm_unlock(a->n->cfg.fsm);
    for (unsigned i = 0; i < n; i++)
        fill_member(a, metad_row(a, r, all[i].id), &all[i], ms.last);
    Replfs__MetadStatus *m = metad_row(a, r, self);
    fill_self(a, m, &ms);
    check_metads(a, r, all, n, m->leads_s);
}
