/* Waiting for a store's callbacks, which run on its writer's and sync threads. A callback may come before the wait begins; the
 * last one may run while the waiter already wakes, which is why it signals under the lock. A store answers every operation, so
 * the wait ends. */
#include "store_wait.h"

void store_wait_add(struct store_wait *w)
{
    LOCK_SCOPE(&w->mu);
    w->pending++;
}

void store_wait_done(void *arg, int code)
{
    struct store_wait *w = arg;
    LOCK_SCOPE(&w->mu);
    if (w->code == 0)
        w->code = code;
    w->pending--;
    cond_signal(&w->cv);
}

int store_wait_end(struct store_wait *w)
{
    LOCK_SCOPE(&w->mu);
    while (w->pending > 0)
        cond_wait(&w->cv, &w->mu);
    return w->code;
}
