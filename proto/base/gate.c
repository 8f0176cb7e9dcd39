/* Gates (gate.h): one counter, with a bit that says shut. The last one to leave a shut gate wakes the one that waits,
 * under the lock that this one looks under: no wake-up is missed. Who is turned away counts for a moment, too, and
 * may wake it once too often. */
#include "base/gate.h"

#include <assert.h>

void gate_init(struct gate *g)
{
    atomic_init(&g->n, GATE_SHUT);
    lock_init(&g->mu, LOCK_GATE);
    cond_init(&g->cond);
}

void gate_destroy(struct gate *g)
{
    assert(gate_inside(g) == 0);
    lock_destroy(&g->mu);
    cond_destroy(&g->cond);
}

void gate_open(struct gate *g)
{
    atomic_fetch_and_explicit(&g->n, ~GATE_SHUT, memory_order_release);
}

void gate_shut(struct gate *g)
{
    atomic_fetch_or(&g->n, GATE_SHUT);
}

uint64_t gate_inside(const struct gate *g)
{
    return atomic_load_explicit(&g->n, memory_order_acquire) & ~GATE_SHUT;
}

bool gate_drain(struct gate *g, unsigned ms)
{
    int64_t until = clock_mono() + (int64_t)ms * NSEC_PER_MSEC;
    bool in_time = true;

    lock_acquire(&g->mu);
    while (gate_inside(g) > 0 && in_time)
        in_time = cond_sleep_until(&g->cond, &g->mu, until);
    lock_release(&g->mu);
    return gate_inside(g) == 0;
}

void gate_emptied(struct gate *g)
{
    lock_acquire(&g->mu);
    cond_broadcast(&g->cond);
    lock_release(&g->mu);
}
