/* What administrators decided about chunkds (ChunkdSetOp): that one is to be emptied, that it is to be away for a while,
 * what its disks may hold. It is part of a member, so that it lasts through restarts and fail-over, and ends with
 * the member.
 *
 * A pause is kept as a duration and the log's time when it began, since the clocks of metads may differ: what follows from
 * it for a running metad is decided by who knows how long it has known of it (metad/cluster/nodes_decided.c).
 *
 * Limits are of disks by number, whether the chunkd has such a disk at present or not. Failure modes: codes. Thread
 * context: fsm lock. */
#include <stdlib.h>
#include <string.h>

#include "fsm_internal.h"

#define CHUNKD_SET_ALL                                                                             \
    (REPLFS__CHUNKD_SET_OP__WHAT__DRAINING | REPLFS__CHUNKD_SET_OP__WHAT__PAUSE |                  \
     REPLFS__CHUNKD_SET_OP__WHAT__LIMITS)

uint64_t fsm_decisions(const struct fsm *f)
{
    return atomic_load(&f->decisions);
}

bool fsm_decided_any(const struct fsm_decided *d)
{
    return d->draining || d->pause_ms || d->nlimits;
}

static void limits_resize(struct fsm *f, struct fsm_decided *d, uint32_t n)
{
    f->heap += n * sizeof(d->limits[0]);
    f->heap -= d->nlimits * sizeof(d->limits[0]);
    if (n > 0) {
        d->limits = fsm_xrealloc(d->limits, n * sizeof(d->limits[0]));
    } else {
        free(d->limits);
        d->limits = NULL;
    }
    d->nlimits = n;
}

void fsm_decided_drop(struct fsm *f, struct fsm_member *m)
{
    limits_resize(f, &m->decided, 0);
    m->decided = (struct fsm_decided){0};
    atomic_fetch_add(&f->decisions, 1);
}

static void limit_set(struct fsm *f, struct fsm_decided *d, const Replfs__DiskLimit *l)
{
    uint32_t k = 0, n = d->nlimits;

    while (k < n && d->limits[k].disk < l->disk)
        k++;
    bool there = k < n && d->limits[k].disk == l->disk;
    if (l->none && there) {
        memmove(&d->limits[k], &d->limits[k + 1], (n - k - 1) * sizeof(d->limits[0]));
        limits_resize(f, d, n - 1);
    }
    if (l->none)
        return;
    if (!there) {
        limits_resize(f, d, n + 1);
        memmove(&d->limits[k + 1], &d->limits[k], (n - k) * sizeof(d->limits[0]));
    }
    d->limits[k] = (struct fsm_limit){.disk = l->disk, .now = l->now, .bytes = l->bytes};
}

static bool limits_ok(const Replfs__ChunkdSetOp *op)
{
    for (size_t i = 0; i < op->n_limits; i++)
        if (op->limits[i]->disk >= FSM_DISKS_MAX)
            return false;
    return true;
}

int fsm_op_chunkd_set(struct fsm *f, const Replfs__ChunkdSetOp *op)
{
    struct fsm_member *m = fsm_member_find(f, op->chunkd);

    if (!op->what || (op->what & ~(uint32_t)CHUNKD_SET_ALL) || !limits_ok(op) ||
        op->pause_ms > FSM_PAUSE_MAX_MS)
        return -EINVAL;
    if (!m)
        return -ENOENT;
    struct fsm_decided *d = &m->decided;
    if (op->what & REPLFS__CHUNKD_SET_OP__WHAT__DRAINING)
        d->draining = op->draining;
    if (op->what & REPLFS__CHUNKD_SET_OP__WHAT__PAUSE) {
        d->pause_ms = op->pause_ms;
        d->paused_at = op->pause_ms ? f->now : 0;
    }
    for (size_t i = 0; (op->what & REPLFS__CHUNKD_SET_OP__WHAT__LIMITS) && i < op->n_limits; i++)
        limit_set(f, d, op->limits[i]);
    atomic_fetch_add(&f->decisions, 1);
    return 0;
}

bool fsm_decided_load(struct fsm *f, uint32_t chunkd, const struct fsm_decided *d)
{
    struct fsm_member *m = fsm_member_find(f, chunkd);

    if (!m || fsm_decided_any(&m->decided) || !fsm_decided_any(d) ||
        d->pause_ms > FSM_PAUSE_MAX_MS || (!d->pause_ms && d->paused_at))
        return false;
    for (uint32_t i = 0; i < d->nlimits; i++)
        if (d->limits[i].disk >= FSM_DISKS_MAX ||
            (i > 0 && d->limits[i].disk <= d->limits[i - 1].disk))
            return false;
    limits_resize(f, &m->decided, d->nlimits);
    struct fsm_limit *own = m->decided.limits;
    m->decided = *d;
    m->decided.limits = own;
    if (d->nlimits > 0)
        memcpy(own, d->limits, d->nlimits * sizeof(own[0]));
    atomic_fetch_add(&f->decisions, 1);
    return true;
}
