/* terms: which orders are to be obeyed.
 *
 * A term becomes known by an answer to the heartbeat or by an order. It is written down (replfs.seen, by the heartbeat's
 * thread) before anything of it is done: else a chunkd that starts again would obey a metad of an older term, which
 * deletes what it takes for garbage.
 *
 * Failure modes: no directory takes the file: seen.c warns, and the term counts as saved. Locks: mu, a leaf but for
 * news(), which is called without it. Threads: any. */
#include "terms.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"

#define SAVE_NS (5 * NSEC_PER_SEC)

struct terms {
    struct lock mu;
    struct cond saved_more;
    /* all under mu */
    uint64_t highest, saved;
    bool closed;
    void (*news)(void *arg);
    void *arg;
};

struct terms *terms_new(void)
{
    struct terms *t = calloc(1, sizeof(*t));
    if (!t)
        abort();
    lock_init(&t->mu, LOCK_TERMS);
    cond_init(&t->saved_more);
    return t;
}

void terms_free(struct terms *t)
{
    if (!t)
        return;
    cond_destroy(&t->saved_more);
    lock_destroy(&t->mu);
    free(t);
}

void terms_close(struct terms *t)
{
    LOCK_SCOPE(&t->mu);
    t->closed = true;
    t->news = NULL;
    cond_broadcast(&t->saved_more);
}

void terms_on_news(struct terms *t, void (*news)(void *arg), void *arg)
{
    LOCK_SCOPE(&t->mu);
    t->news = news;
    t->arg = arg;
}

uint64_t terms_highest(struct terms *t)
{
    LOCK_SCOPE(&t->mu);
    return t->highest;
}

void terms_saved(struct terms *t, uint64_t term)
{
    LOCK_SCOPE(&t->mu);
    if (term > t->saved)
        t->saved = term;
    if (term > t->highest)
        t->highest = term;
    cond_broadcast(&t->saved_more);
}

int terms_order(struct terms *t, uint64_t term)
{
    lock_acquire(&t->mu);
    if (term > t->highest)
        t->highest = term;
    void (*news)(void *) = term > t->saved ? t->news : NULL;
    void *arg = t->arg;
    lock_release(&t->mu);
    if (news)
        news(arg);
    int64_t until = clock_mono() + SAVE_NS;
    LOCK_SCOPE(&t->mu);
    while (term > t->saved && !t->closed && clock_mono() < until)
        cond_wait_until(&t->saved_more, &t->mu, until);
    if (term && term < t->highest)
        return -ERR_OLD_TERM;
    if (term > t->saved)
        return t->closed ? -ERR_SHUTDOWN : -ERR_BUSY;
    return 0;
}
