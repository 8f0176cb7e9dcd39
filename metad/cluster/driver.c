/* The driver's thread: a turn every 100 ms, or at once when an answer or a report came in.
 *
 * A turn: states of chunkds by time, one slice of comparing a full report, answered orders, once a
 * second the strays, one slice of the walk, then what the bounds on running jobs allow to start; at
 * last the orders decided are sent with no lock held. Each part takes the locks for itself and for
 * a bounded piece of work, so that clients' requests never wait long. While settling (a while after
 * gain of leadership, until chunkds have reported) nothing is judged missing or garbage. While this metad
 * follows, only states and reports are kept up. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/thread.h"
#include "base/lock.h"
#include "nodes_internal.h"

#define TICK_MS 100
#define WALK_SLICE 8192
#define ADOPT_SLICE 16384u
#define WORK_STEPS 4096u /* a millisecond or so */
#define WALK_EVERY (10 * NSEC_PER_SEC)
#define RATE_EVERY NSEC_PER_SEC

static void walk_fn(void *arg, struct fsm_chunk *c)
{
    leave_walk_chunk(arg, c);
    compacting_consider(arg, c);
    orders_consider(arg, c, 0);
}

/* What waits for room or for a computer may have got it without any chunkd changing its state. */
static bool walk_is_due(const struct nodes *n, int64_t now)
{
    uint64_t waiting = 0;
    for (unsigned i = 0; i < REPAIR_KINDS; i++)
        waiting += n->stat[i].nwaiting;
    return (waiting || n->leaving) && now - n->walked_at > WALK_EVERY;
}

static void walk_slice(struct nodes *n, int64_t now)
{
    if (!n->walking && walk_is_due(n, now))
        nodes_start_walk(n);
    if (!n->walking)
        return;
    n->walked_at = now;
    if (!n->walk_pos) {
        leave_walk_begin(n);
        for (unsigned i = 0; i < JOB_COMPACT; i++) { /* that is seen to by itself */
            n->stat[i].waiting = NULL;
            n->stat[i].nwaiting = 0;
        }
    }
    if (fsm_chunk_walk(n->cfg.fsm, &n->walk_pos, WALK_SLICE, walk_fn, n))
        return;
    n->walk_pos = 0;
    n->walking = n->walk_again;
    n->walk_again = false;
    leave_walk_end(n);
}

static void update_rates(struct nodes *n, int64_t now)
{
    if (now - n->rate_at < RATE_EVERY)
        return;
    double dt = (double)(now - n->rate_at) / NSEC_PER_SEC;
    for (unsigned i = 0; i < JOB_KINDS; i++) {
        struct job_stat *st = &n->stat[i];
        double r = (double)(st->bytes_done - st->rate_mark) / dt;
        st->rate_mark = st->bytes_done;
        st->rate = (uint64_t)(0.7 * (double)st->rate + 0.3 * r);
    }
    n->rate_at = now;
}

/* True: there is more to do at once. */
static bool work_slice(struct nodes *n, int64_t now)
{
    fsm_wrlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    bool compacts = false;
    leave_tick(n, now);
    if (!n->settling) {
        walk_slice(n, now);
        orders_pop_slice(n, now);
        compacts = compacting_turn(n, now);
    }
    orders_batch_deletes(n);
    update_rates(n, now);
    struct order *o = n->to_send;
    n->to_send = NULL;
    bool more = (n->walking && !n->settling) || compacts;
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
    orders_send_all(n, o);
    compacting_propose(n);
    return more;
}

static bool leader_tick(struct nodes *n)
{
    int64_t now = clock_mono();
    nodes_decided_tick(n);
    nodes_tick_states(n, now);
    bool sweeping = reports_sweep(n);
    orders_take_results(n, true);
    if (!n->settling && now - n->judged_at >= NSEC_PER_SEC) { /* only this thread writes both */
        reports_judge(n, now);
        n->judged_at = now;
    }
    grants_barrier(n);
    nodes_replaced_tell(n, now);
    compacting_stock(n);
    bool more = work_slice(n, now) || sweeping;
    nodes_leave(n);
    return more;
}

/* What is known is kept up, nothing is decided. What commands left to do is done here; a leader's sessions do it. */
static bool follower_tick(struct nodes *n)
{
    int64_t now = clock_mono();
    nodes_decided_tick(n);
    nodes_tick_states(n, now);
    orders_take_results(n, false);
    fsm_rdlock(n->cfg.fsm);
    bool work = fsm_has_work(n->cfg.fsm);
    fsm_unlock(n->cfg.fsm);
    if (work) {
        fsm_wrlock(n->cfg.fsm);
        work = fsm_work(n->cfg.fsm, WORK_STEPS);
        fsm_unlock(n->cfg.fsm);
    }
    if (now - n->judged_at >= NSEC_PER_SEC) {
        fsm_wrlock(n->cfg.fsm);
        lock_acquire(&n->mu);
        reports_adopt(n, ADOPT_SLICE);
        lock_release(&n->mu);
        fsm_unlock(n->cfg.fsm);
        n->judged_at = now;
    }
    return reports_sweep(n) || work;
}

static void *driver(void *arg)
{
    struct nodes *n = arg;
    bool more = false;
    for (;;) {
        lock_acquire(&n->done_lock);
        int64_t until = clock_mono() + (more ? 1 : TICK_MS) * NSEC_PER_MSEC;
        bool in_time = true;
        while (!n->stop && !n->done && !n->poked && in_time)
            in_time = cond_sleep_until(&n->wake, &n->done_lock, until);
        bool stop = n->stop;
        n->poked = false;
        lock_release(&n->done_lock);
        if (stop)
            return NULL;
        more = nodes_enter(n) ? leader_tick(n) : follower_tick(n);
    }
}

int driver_start(struct nodes *n)
{
    cond_init(&n->wake);
    int rc = thread_start(&n->thread, "driver", driver, n);
    if (rc)
        return -rc;
    n->running = true;
    return 0;
}

/* Ends all jobs whose orders were answered; nothing new is decided. */
static void discard_results(struct nodes *n)
{
    for (struct order *o = n->done, *next; o; o = next) {
        next = o->next;
        free(o->job);
        if (o->compacting)
            compacting_discard(o->compacting);
        for (uint32_t i = 0; i < o->ndels; i++)
            free(o->dels[i].job);
        orders_free(o);
        n->outstanding--;
    }
    n->done = NULL;
}

/* Ends the orders under way. */
static void close_all(struct nodes *n)
{
    for (uint32_t i = 1; i < n->nnodes; i++) {
        lock_acquire(&n->mu);
        struct rpc_conn *c = n->node[i] && n->node[i]->conn ? rpc_conn_ref(n->node[i]->conn) : NULL;
        lock_release(&n->mu);
        if (c)
            rpc_conn_close(c);
        rpc_conn_unref(c);
    }
}

void driver_stop(struct nodes *n)
{
    if (!n->running)
        return;
    lock_acquire(&n->done_lock);
    n->stop = true;
    cond_signal(&n->wake);
    lock_release(&n->done_lock);
    pthread_join(n->thread, NULL);
    close_all(n);
    lock_acquire(&n->done_lock);
    discard_results(n);
    while (n->outstanding) {
        cond_wait(&n->wake, &n->done_lock);
        discard_results(n);
    }
    lock_release(&n->done_lock);
    for (uint32_t i = 1; i < n->nnodes; i++)
        for (uint32_t k = 0; n->node[i] && k < n->node[i]->ndels; k++)
            free(n->node[i]->dels[k].job);
    cond_destroy(&n->wake);
    n->running = false;
}
