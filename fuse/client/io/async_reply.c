/* Answers that nobody waits for.
 *
 * A read or a close is asked for and left: the thread that hears of the last byte answers it. Until then
 * it is listed here, which keeps the client alive, and a tick looks after all that is listed: for copies
 * that are slow, and for what came to its end in another way than by an answer.
 *
 * Context: any thread; the tick runs on a loop thread, so that nothing it calls waits. */
#include "client/io/async_reply.h"
#include <stdlib.h>
#include "base/lock.h"
#include "base/clock.h"
#include "base/thread.h"
#include "client/internal.h"

#define TICK_MS 100u

void async_reply_init(struct client *c)
{
    lock_init(&c->async_replies.mu, LOCK_ASYNC_REPLIES);
    cond_init(&c->async_replies.cv);
}

struct looked {
    const struct async_reply_kind *kind;
    void *of;
};

/* What is listed, held. */
static struct looked *hold_all(struct client *c, size_t *n)
{
    LOCK_SCOPE(&c->async_replies.mu);
    struct looked *list = calloc(c->async_replies.n + 1, sizeof(*list));
    if (!list)
        abort();
    *n = 0;
    for (struct async_reply *l = c->async_replies.first; l; l = l->next)
        list[(*n)++] = (struct looked){l->kind, l->kind->hold(l)};
    return list;
}

static void replies_tick(void *arg)
{
    struct client *c = arg;
    size_t n;
    struct looked *list = hold_all(c, &n);
    for (size_t i = 0; i < n; i++)
        list[i].kind->look(list[i].of);
    free(list);
    LOCK_SCOPE(&c->async_replies.mu);
    c->async_replies.ticking = c->async_replies.n > 0;
    if (c->async_replies.ticking)
        rpc_loop_defer(c->loop, TICK_MS, replies_tick, c);
}

void async_reply_begin(struct client *c, struct async_reply *l, const struct async_reply_kind *kind)
{
    LOCK_SCOPE(&c->async_replies.mu);
    *l = (struct async_reply){.next = c->async_replies.first, .kind = kind};
    if (l->next)
        l->next->prev = l;
    c->async_replies.first = l;
    c->async_replies.n++;
    if (!c->async_replies.ticking)
        rpc_loop_defer(c->loop, TICK_MS, replies_tick, c);
    c->async_replies.ticking = true;
}

/* async_replies.mu held. */
static void async_reply_unlist(struct client *c, struct async_reply *l)
{
    *(l->prev ? &l->prev->next : &c->async_replies.first) = l->next;
    if (l->next)
        l->next->prev = l->prev;
}

/* async_replies.mu held. */
static void one_less(struct client *c)
{
    if (!--c->async_replies.n)
        cond_broadcast(&c->async_replies.cv);
}

void async_reply_leave(struct client *c, struct async_reply *l)
{
    LOCK_SCOPE(&c->async_replies.mu);
    async_reply_unlist(c, l);
}

void async_reply_left(struct client *c)
{
    LOCK_SCOPE(&c->async_replies.mu);
    one_less(c);
}

void async_reply_done(struct client *c, struct async_reply *l)
{
    LOCK_SCOPE(&c->async_replies.mu);
    async_reply_unlist(c, l);
    one_less(c);
}

bool async_reply_thread(void *(*fn)(void *), void *arg)
{
    pthread_t t;
    int rc = thread_start(&t, "async", fn, arg);
    if (!rc)
        pthread_detach(t);
    return !rc;
}

void async_reply_wait(struct client *c)
{
    LOCK_SCOPE(&c->async_replies.mu);
    while (c->async_replies.n) /* each has a deadline */
        cond_wait_until(&c->async_replies.cv, &c->async_replies.mu, clock_mono() + NSEC_PER_SEC);
}
