/* Mass death: when many computers are dead at once, repair waits for a person (plan/outage.h).
 *
 *   all well     as many dead as may be: repair copies what they had
 *   held         more are dead: nothing is copied for want of copies; verification, drops, drains and moves go on.
 *                Ends when enough come back, or a person says to go on (replfsctl repair resume), which is logged as
 *                the number of dead chunkds that are known of (setting dead-accepted)
 *   accepted     repair goes on while no more than those are dead. When none is dead any more the leader takes it back
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

static uint64_t held_bytes(const struct node *d)
{
    uint64_t sum = 0;

    for (unsigned k = 0; k < d->ndisks; k++)
        sum += d->disks[k].used;
    return sum;
}

/* Computers without a chunkd that is not dead. Ids of hosts run from 1 to nhosts. */
static void count_hosts(const struct nodes *n, struct outage *o)
{
    for (uint32_t h = 1; h <= n->nhosts; h++) {
        bool any = false, alive = false;
        for (uint32_t i = 1; i < n->nnodes; i++) {
            const struct node *d = n->node[i];
            if (!d || d->host != h || nodes_gone(d))
                continue;
            any = true;
            alive |= d->state != REPLFS__NODE_STATE__NODE_DEAD;
        }
        o->hosts += any;
        o->dead_hosts += any && !alive;
    }
}

static void outage_count(const struct nodes *n, struct outage *o)
{
    *o = (struct outage){0};
    for (uint32_t i = 1; i < n->nnodes; i++) {
        const struct node *d = n->node[i];
        if (!d || nodes_gone(d))
            continue;
        bool dead = d->state == REPLFS__NODE_STATE__NODE_DEAD;
        o->chunkds++;
        o->dead_chunkds += dead;
        o->bytes += held_bytes(d);
        o->dead_bytes += dead ? held_bytes(d) : 0;
    }
    if (o->dead_chunkds)
        count_hosts(n, o);
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
    outage_count(n, &n->outage);
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
    bool back = accepted > 0 && !n->settling && n->outage.dead_chunkds == 0;
    lock_release(&n->mu);
    if (back)
        take_back(n, now);
}

const char *outage_text(const struct nodes *n, char out[static 256])
{
    const struct outage *o = &n->outage;

    snprintf(out, 256, "%u of %u computers with chunkds are dead, with %.0f %% of the bytes stored",
             o->dead_hosts, o->hosts,
             o->bytes ? (double)o->dead_bytes * 100 / (double)o->bytes : 0.0);
    return out;
}
