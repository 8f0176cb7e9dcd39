/* A gate: many threads pass in and out of a part of the program, now and then one shuts it and waits until nobody
 * is inside, so that what is inside can be taken away.
 *
 * Being inside is not bound to a thread: who is inside may let in a continuation of its own (gate_keep), a completion
 * for example, which leaves later, on whatever thread. Going in and out costs one atomic operation each. Any thread;
 * the gate outlives all that may pass it. */
#ifndef REPLFS_BASE_GATE_H
#define REPLFS_BASE_GATE_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/lock.h"

#define GATE_SHUT (1ull << 63)

struct gate {
    atomic_uint_fast64_t n; /* inside, or just being turned away; and GATE_SHUT */
    struct lock mu;         /* of who waits until it is empty */
    struct cond cond;
};

void gate_init(struct gate *g); /* shut, nobody inside */
void gate_destroy(struct gate *g);
void gate_open(struct gate *g); /* what was written before is seen by who gets in */
void gate_shut(struct gate *g); /* returns at once: nobody gets in any more */
/* Until nobody is inside, at most ms. True: it is empty, and all that was written inside is seen. Only while shut. */
bool gate_drain(struct gate *g, unsigned ms);
uint64_t gate_inside(const struct gate *g); /* so many, roughly */
void gate_emptied(struct gate *g);          /* private */

static inline void gate_leave(struct gate *g)
{
    if (atomic_fetch_sub_explicit(&g->n, 1, memory_order_acq_rel) == (GATE_SHUT | 1))
        gate_emptied(g);
}

/* False: it is shut, or was a moment ago. */
static inline bool gate_enter(struct gate *g)
{
    bool open = !(atomic_fetch_add_explicit(&g->n, 1, memory_order_acquire) & GATE_SHUT);
    if (!open)
        gate_leave(g);
    return open;
}

/* By who is inside: one more gate_leave() follows. */
static inline void gate_keep(struct gate *g)
{
    atomic_fetch_add_explicit(&g->n, 1, memory_order_relaxed);
}
#endif
