/* Leading and following: what of the nodes module begins and ends with a leadership (leader.c).
 *
 *                                       while following        gain                loss
 *   members, addresses, connections     kept                   completed           kept
 *   states (up, suspect, dead)          kept                   kept                kept
 *   copies, strays, digests             kept from reports      doubts wait         kept
 *                                       alone, no orders       for two heartbeats
 *   damaged chunks                      none                   none                copies in doubt again
 *   grants, floors, barrier             none                   none                forgotten
 *   what drains have left, copies       none                   from a walk         forgotten
 *   chosen to be shed
 *   chunks to be compacted              none                   none, walk          forgotten
 *   queue, jobs not sent                none                   none, walk          forgotten
 *   orders that are out                 answers are late       answers are late    become late
 *   hooks of sessions, ids              none                   set                 unset
 *
 * Gain and loss happen while the gate is shut and empty: no request, proposal or turn of the driver is then under way
 * in the name of a leadership. Only orders that are out (chunkds take up to a minute for them) outlive it: each knows
 * its leadership, and when its answer comes late it frees the chunk for others and says nothing more (orders.c).
 *
 * Chunkds report to every metad, so that one that begins to lead knows where copies are. While following nothing is
 * logged, ordered or believed of clients: a chunkd registers when the state knows it, and its reports alone say which
 * copies there are. Reports may come before the commits that they tell of (struct node.ahead, reports_adopt), or after
 * (reports_grew). What chunkds told of other futures is looked at when leading begins.
 *
 * Thread context: the role thread of leader.c. */
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"
#include "nodes_internal.h"

void nodes_lead(struct nodes *n, const struct nodes_leadership *l)
{
    (void)nodes_cap_key_load(n);
    fsm_wrlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    nodes_load_members(n);
    nodes_replaced_load(n);
    nodes_decided_take(n);
    n->lead = *l;
    n->started = clock_mono();
    n->settling = true;
    n->distrust = false;
    n->epoch = (uint64_t)clock_wall() > n->epoch ? (uint64_t)clock_wall() : n->epoch + 1;
    n->registry_version = n->epoch;
    for (uint32_t i = 1; i < n->nnodes; i++)
        if (n->node[i]) {
            n->node[i]->granted = n->node[i]->beats_led = 0;
            leave_forget(n->node[i]);
        }
    nodes_replaced_look(n);
    reports_adopt(n, UINT32_MAX);
    nodes_make_ctx(n);
    nodes_start_walk(n);
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
    nodes_past_lead(n);
    nodes_poke(n);
}

void nodes_restored(struct nodes *n)
{
    fsm_wrlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    nodes_load_members(n);
    for (uint32_t i = 1; i < n->nnodes; i++)
        if (n->node[i])
            n->node[i]->known = false; /* of another moment */
    nodes_decided_take(n);
    for (uint32_t i = 1; i < n->nnodes; i++) {
        struct node *d = n->node[i];
        if (!d)
            continue;
        reports_forget(d);
        d->digest = d->count = 0;
        d->reported = d->reported_once =
            false; /* its next heartbeat is answered with want_report */
    }
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
}

void nodes_serving(struct nodes *n, uint64_t gap_ms)
{
    LOCK_SCOPE(&n->mu);
    n->serving = clock_mono();
    n->gap_ms = gap_ms;
    n->gains++;
}

void nodes_follow(struct nodes *n)
{
    fsm_wrlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    n->lead = (struct nodes_leadership){0}; /* first: nothing is queued any more */
    orders_forget(n);
    damage_forget_all(n);
    grants_forget(n);
    compacting_forget(n);
    n->walking = n->walk_again = n->leaving = false;
    n->walk_pos = 0;
    n->doubts = (struct doubts){0};
    n->nclocks = 0;
    memset(n->noted, 0, sizeof(n->noted));
    for (unsigned i = 0; i < JOB_KINDS; i++) {
        n->stat[i].waiting = NULL;
        n->stat[i].nwaiting = 0;
    }
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
}
