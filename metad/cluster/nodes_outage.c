/* Mass death: when many computers are dead at once, repair waits for a person (plan/outage.h).
 *
 *   all well     as many dead as may be: repair copies what they had
 *   held         more are dead: nothing is copied for want of copies; verification, drops, drains and moves go on.
 *                Ends when enough come back, or a person says to go on (replfsctl repair resume), which is logged as
 *                the number of dead chunkds that are known of (setting dead-accepted)
 *   accepted     repair goes on while no more than those are dead. When none is dead any more the leader takes it back
 *
 * As soon as one is dead, those that are silent count with it. Who died and is made up for counts no more: once every chunk
 * has its copies elsewhere, so that computers which die one after the other, months apart, are each repaired.
 *
 * A new leader judges by the same state and, once it has settled, by the same reports.
 *
 * Thread context: the driver's; status asks from rpc threads. n->mu. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"
#include "base/log.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"
#define TAKE_BACK_EVERY (10 * NSEC_PER_SEC) /* when the log did not take it */

const char outage_why[] = "too much is dead: replfsctl repair resume";

static uint64_t held_bytes(const struct node *d)
{
    uint64_t sum = 0;

    for (unsigned k = 0; k < d->ndisks; k++)
        sum += d->disks[k].used;
    return sum;
}

/* One that died long ago, and whose chunks have their copies elsewhere since, is no part of what happens now. */
static bool outage_counts(const struct node *d)
{
    return !nodes_gone(d) && !d->made_up;
}

/* Whether no chunk lacks a copy: a walk is through since the last chunkd changed its state, and nothing that it found
 * is left to be done or waits for something. */
static bool nothing_lacks(const struct nodes *n)
{
    uint64_t queued, bytes;

    repair_queue_stat(n->queue, REPAIR_KIND_REPAIR, &queued, &bytes);
    return !n->settling && !n->walking && !queued && !n->stat[REPAIR_KIND_REPAIR].nwaiting &&
           !n->stat[REPAIR_KIND_REPAIR].running && !n->stat[REPAIR_KIND_VERIFY].running;
}

static void note_made_up(struct nodes *n)
{
    for (uint32_t i = 1; i < n->nnodes; i++)
        if (n->node[i] && n->node[i]->state == REPLFS__NODE_STATE__NODE_DEAD)
            n->node[i]->made_up = true;
}

/* It is dead, or silent and nobody said why: those that fall together are not found dead at one instant. */
static bool is_down(const struct nodes *n, const struct node *d, int64_t now)
{
    bool silent = now - d->last_seen > (int64_t)n->cfg.suspect_ms * NSEC_PER_MSEC;
    return d->state == REPLFS__NODE_STATE__NODE_DEAD ||
           (d->state == REPLFS__NODE_STATE__NODE_SUSPECT && silent && !nodes_paused(d));
}

/* Computers without a chunkd that is not dead. Ids of hosts run from 1 to nhosts. */
static void count_hosts(const struct nodes *n, int64_t now, struct outage *o)
{
    for (uint32_t h = 1; h <= n->nhosts; h++) {
        bool any = false, alive = false;
        for (uint32_t i = 1; i < n->nnodes; i++) {
            const struct node *d = n->node[i];
            if (!d || d->host != h || !outage_counts(d))
                continue;
            any = true;
            alive |= !is_down(n, d, now);
        }
        o->hosts += any;
        o->down_hosts += any && !alive;
    }
}

static void outage_count(const struct nodes *n, int64_t now, struct outage *o)
{
    *o = (struct outage){0};
    for (uint32_t i = 1; i < n->nnodes; i++) {
        const struct node *d = n->node[i];
        if (!d || !outage_counts(d))
            continue;
        bool down = is_down(n, d, now);
        o->dead_chunkds += d->state == REPLFS__NODE_STATE__NODE_DEAD;
        o->down_chunkds += down;
        o->bytes += held_bytes(d);
        o->down_bytes += down ? held_bytes(d) : 0;
    }
    if (o->dead_chunkds)
        count_hosts(n, now, o);
}

static void taken_back(void *arg, int code, const struct fsm_result *res)
{
    (void)arg, (void)code,
        (void)res; /* looked at again, and told again, when it did not get there */
}

static void take_back_after(void *arg)
{
    nodes_proposed(arg);
}

/* Within the gate. */
static void take_back(struct nodes *n, int64_t now)
{
    uint32_t key = SETTING_DEAD_ACCEPTED;
    uint64_t value = 0;
    Replfs__ConfigOp config = REPLFS__CONFIG_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;

    if (n->outage_told && now - n->outage_told < TAKE_BACK_EVERY)
        return;
    n->outage_told = now;
    config.key = &key;
    config.n_key = 1;
    config.value = &value;
    config.n_value = 1;
    op.op_case = REPLFS__META_OP__OP_CONFIG;
    op.config = &config;
    cmd.op = &op;
    nodes_propose(n, &cmd, taken_back, take_back_after, n);
}

void outage_tick(struct nodes *n, int64_t now)
{
    uint64_t accepted = fsm_setting(n->cfg.fsm, SETTING_DEAD_ACCEPTED);
    unsigned most = (unsigned)fsm_setting(n->cfg.fsm, SETTING_MAX_DEAD);
    char text[256];

    lock_acquire(&n->mu);
    if (nothing_lacks(n))
        note_made_up(n);
    outage_count(n, now, &n->outage);
    bool was = n->held;
    n->held = !n->settling && outage_holds(&n->outage, most, accepted);
    if (n->held && !was)
        log_error("%s: repair waits until they are back, or for replfsctl repair resume",
                  outage_text(n, text));
    if (was && !n->held) {
        log_info("repair goes on: %s", n->outage.dead_chunkds <= accepted
                                           ? "a person knows of those that are dead"
                                           : "enough chunkds are back");
        nodes_start_walk(n);
    }
    bool back = accepted > 0 && !n->settling && n->outage.down_chunkds == 0;
    lock_release(&n->mu);
    if (back)
        take_back(n, now);
}

const char *outage_text(const struct nodes *n, char out[static 256])
{
    const struct outage *o = &n->outage;

    snprintf(out, 256,
             "%u of %u computers with chunkds are dead or silent, with %.0f %% of the bytes stored",
             o->down_hosts, o->hosts,
             o->bytes ? (double)o->down_bytes * 100 / (double)o->bytes : 0.0);
    return out;
}
