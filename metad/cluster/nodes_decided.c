/* What administrators decided about chunkds (metad/fsm/fsm_chunkd.c), as this metad goes by it: drains, pauses, limits of
 * disks.
 *
 * The state is looked at when it changed, so that leader and followers know the same; whoever makes a change takes
 * it in before the change is answered. Of a pause the state says when it began by the log's time, and for how long it
 * is. A metad that has run since then measures the duration by its own clock; one that has started since, or had its
 * state replaced, takes what is left of it by the calendar, never more than its whole length: clocks may differ, and
 * a pause that is too short costs copies, one without an end would cost safety.
 *
 * A chunkd is told that it drains, and what its disks may hold, in answers of the metad that leads (nodes_limits_fill).
 *
 * Thread context: any; fsm lock, then nodes.mu. */
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"

static void pause_set(struct node *d, uint64_t pause_ms, int64_t paused_at)
{
    int64_t all = (int64_t)pause_ms * NSEC_PER_MSEC, left = all;

    if (d->pause_ms == pause_ms && d->paused_at == paused_at)
        return;
    d->pause_ms = pause_ms;
    d->paused_at = paused_at;
    if (!d->known)
        left = paused_at + all - clock_wall();
    if (left > all)
        left = all;
    d->pause_end = pause_ms && left > 0 ? clock_boot() + left : 0;
}

static void limits_set(struct node *d, const struct fsm_decided *s)
{
    for (uint32_t k = 0; k < NODE_LIMITS_MAX; k++)
        d->limits[k].limited = false;
    for (uint32_t k = 0; k < s->nlimits; k++) {
        struct leave_disk *l = &d->limits[s->limits[k].disk];
        if (l->limit != s->limits[k].bytes)
            l->below = 0; /* chosen anew */
        l->limited = true;
        l->limit = s->limits[k].bytes;
        l->now = s->limits[k].now;
    }
}

static void take_one(struct nodes *n, struct node *d, const struct fsm_decided *s)
{
    char label[256];
    bool was_paused = nodes_paused(d);

    if (d->draining != s->draining) {
        d->draining = s->draining;
        d->refuses = false;
        d->empty_beats = 0;
        leave_reset(d);
        log_info("%s %s", nodes_label(d, label),
                 d->draining ? "is being drained: its chunks are copied to others"
                             : "is not drained any more");
    }
    pause_set(d, s->pause_ms, s->paused_at);
    if (nodes_paused(d) != was_paused)
        log_info("%s %s", nodes_label(d, label),
                 was_paused ? "is not paused any more" : "is paused: its absence is expected");
    limits_set(d, s);
    d->known = true;
    nodes_refresh(n, d);
}

void nodes_decided_take(struct nodes *n)
{
    struct fsm_member m = {0};

    lock_assert_held(&n->mu);
    n->decisions = fsm_decisions(n->cfg.fsm);
    for (uint32_t after = 0; fsm_member_next(n->cfg.fsm, after, &m); after = m.chunkd) {
        struct node *d = nodes_find(n, m.chunkd);
        if (d && m.host_id[0])
            take_one(n, d, &m.decided);
    }
    n->epoch++;
    nodes_start_walk(n);
}

static void pause_tick(struct nodes *n, int64_t now)
{
    for (uint32_t i = 1; i < n->nnodes; i++) {
        struct node *d = n->node[i];
        char label[256];
        if (!d || !d->pause_end || now < d->pause_end)
            continue;
        d->pause_end = 0;
        log_info("the pause of %s is over", nodes_label(d, label));
        nodes_refresh(n, d);
        n->epoch++;
        nodes_start_walk(n);
    }
}

void nodes_decided_tick(struct nodes *n)
{
    fsm_rdlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    if (n->decisions != fsm_decisions(n->cfg.fsm))
        nodes_decided_take(n);
    pause_tick(n, clock_boot());
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
}

size_t nodes_limits_fill(const struct node *d, Replfs__DiskLimit *out, Replfs__DiskLimit **list)
{
    size_t k = 0;

    for (uint32_t i = 0; i < NODE_LIMITS_MAX; i++) {
        if (!d->limits[i].limited)
            continue;
        replfs__disk_limit__init(&out[k]);
        out[k].disk = i;
        out[k].bytes = d->limits[i].limit;
        out[k].now = d->limits[i].now;
        list[k] = &out[k];
        k++;
    }
    return k;
}
