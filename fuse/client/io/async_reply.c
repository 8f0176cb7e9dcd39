/* Answers that nobody waits for.
 *
 * A read or a close is asked for and left: the thread that hears of the last byte answers it. Until then
 * it is listed here, which keeps the client alive, and a tick looks after all that is listed: for copies
 * that are slow, and for what came to its end in another way than by an answer.
 *
 * Context: any thread; the tick runs on a loop thread, so that nothing it calls waits. */
#include "client/internal.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "base/thread.h"

#define TICK_MS 100u

void later_init(struct client *c)
{
    pthread_mutex_init(&c->later.mu, NULL);
    cond_init_mono(&c->later.cv);
}

struct looked {
    const struct later_kind *kind;
    void *of;
};

/* What is listed, held. */
static struct looked *hold_all(struct client *c, size_t *n)
{
    LOCK_SCOPE(&c->later.mu);
    struct looked *list = calloc(c->later.n + 1, sizeof(*list));
    if (!list)
        abort();
    *n = 0;
    for (struct later *l = c->later.first; l; l = l->next)
        list[(*n)++] = (struct looked){l->kind, l->kind->hold(l)};
    return list;
}

static void tick(void *arg)
{
    struct client *c = arg;
    size_t n;
    struct looked *list = hold_all(c, &n);
    for (size_t i = 0; i < n; i++)
        list[i].kind->look(list[i].of);
    free(list);
    LOCK_SCOPE(&c->later.mu);
    c->later.ticking = c->later.n > 0;
    if (c->later.ticking)
        rpc_loop_defer(c->loop, TICK_MS, tick, c);
}

void later_begin(struct client *c, struct later *l, const struct later_kind *kind)
{
    LOCK_SCOPE(&c->later.mu);
    *l = (struct later){.next = c->later.first, .kind = kind};
    if (l->next)
        l->next->prev = l;
    c->later.first = l;
    c->later.n++;
    if (!c->later.ticking)
        rpc_loop_defer(c->loop, TICK_MS, tick, c);
    c->later.ticking = true;
}

/* later.mu held. */
static void unlist(struct client *c, struct later *l)
{
    *(l->prev ? &l->prev->next : &c->later.first) = l->next;
    if (l->next)
        l->next->prev = l->prev;
}

/* later.mu held. */
static void one_less(struct client *c)
{
    if (!--c->later.n)
        pthread_cond_broadcast(&c->later.cv);
}

void later_leave(struct client *c, struct later *l)
{
    LOCK_SCOPE(&c->later.mu);
    unlist(c, l);
}

void later_left(struct client *c)
{
    LOCK_SCOPE(&c->later.mu);
    one_less(c);
}

void later_done(struct client *c, struct later *l)
{
    LOCK_SCOPE(&c->later.mu);
    unlist(c, l);
    one_less(c);
}

bool later_thread(void *(*fn)(void *), void *arg)
{
    pthread_t t;
    int rc = thread_start(&t, "later", fn, arg);
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
