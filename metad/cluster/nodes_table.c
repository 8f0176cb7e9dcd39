/* The table of chunkds: to look one up by its number, and to write what planners see of it.
 *
 * Everything in this folder comes here and nothing leads away, so that who only wants to know a chunkd need not know the
 * registry. Locks as in nodes_internal.h: n->mu. */
#include "base/lock.h"
#include "base/clock.h"
#include "nodes_internal.h"

struct node *nodes_find(const struct nodes *n, uint32_t chunkd)
{
    lock_assert_held(&n->mu);
    return chunkd < n->nnodes ? n->node[chunkd] : NULL;
}

/* What may still be put on a disk: the chunkd may not have heard of a limit yet, or not know any. */
static uint64_t disk_avail(const struct node *d, const struct node_disk *k)
{
    const struct leave_disk *l = k->disk < NODE_LIMITS_MAX ? &d->limits[k->disk] : NULL;
    uint64_t left = l && l->limited ? (l->limit > k->used ? l->limit - k->used : 0) : UINT64_MAX;
    if (l && l->over)
        return 0;
    return k->avail < left ? k->avail : left;
}

void nodes_refresh(struct nodes *n, struct node *d)
{
    lock_assert_held(&n->mu);
    struct placement_node *p = &n->table[d->id];
    unsigned healthy = 0;
    p->host = d->host;
    p->state = (uint8_t)d->state;
    p->draining = d->draining;
    p->paused = nodes_paused(d);
    p->overdue = d->overdue;
    p->flaps = flap_returns(&d->flap, clock_mono()) > 1;
    p->failed_disks = p->ro_disks = p->room = p->avail = p->capacity = 0;
    for (unsigned i = 0; i < d->ndisks; i++) {
        const struct node_disk *k = &d->disks[i];
        if (k->failed) {
            if (k->disk != NODE_DISK_UNKNOWN)
                *(k->readonly ? &p->ro_disks : &p->failed_disks) |= 1ull << k->disk;
            continue;
        }
        healthy++;
        uint64_t avail = disk_avail(d, k);
        p->avail += avail;
        p->capacity += k->capacity;
        if (avail > p->room)
            p->room = avail;
    }
    p->load = d->inflight + d->granted;
    p->rate = d->rate;
    p->jobs = d->jobs;
    p->max_jobs = n->cfg.repairs_per_disk * (healthy ? healthy : 1);
}
