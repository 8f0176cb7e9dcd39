/* Answers that nobody waits for.
 *
 * A read or a close is asked for and left: the thread that hears of the last byte answers it. Here is
 * what keeps the client alive until then (later_begin, later_done), and the tick that looks after all of
 * them while there are any: for copies that are slow, and for what came to its end in another way than
 * by an answer.
 *
 * Context: any thread; the tick runs on a loop thread, so that nothing it calls waits. */
#include "internal.h"

#include "base/cleanup.h"

#define TICK_MS 100u

void later_init(struct client *c)
{
    pthread_mutex_init(&c->later.mu, NULL);
    cond_init_mono(&c->later.cv);
}

static void tick(void *arg)
{
    struct client *c = arg;
    reads_look(c);
    closes_look(c);
    LOCK_SCOPE(&c->later.mu);
    c->later.ticking = c->later.n > 0;
    if (c->later.ticking)
        rpc_loop_defer(c->loop, TICK_MS, tick, c);
}

void later_begin(struct client *c)
{
    LOCK_SCOPE(&c->later.mu);
    c->later.n++;
    if (!c->later.ticking)
        rpc_loop_defer(c->loop, TICK_MS, tick, c);
    c->later.ticking = true;
}

void later_done(struct client *c)
{
    LOCK_SCOPE(&c->later.mu);
    if (!--c->later.n)
        pthread_cond_broadcast(&c->later.cv);
}

bool later_thread(void *(*fn)(void *), void *arg)
{
    pthread_t t;
    int rc = pthread_create(&t, NULL, fn, arg);
    if (!rc)
        pthread_detach(t);
    return !rc;
}

void later_wait(struct client *c)
{
    LOCK_SCOPE(&c->later.mu);
    while (c->later.n) /* each has a deadline */
        cond_wait_until(&c->later.cv, &c->later.mu, clock_mono() + NSEC_PER_SEC);
}
