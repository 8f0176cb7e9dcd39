/* workers: threads for what must not block a loop thread (disk reads, chunk copies).
 *
 * States of the pool: running, then stopping (workers_free): queued jobs still run, so that each
 * one can answer its request, then the threads end. The queue is a ring of fixed size: a full one
 * refuses the job and the caller says "busy" to its client instead of growing without bound.
 *
 * Thread context: workers_run from any thread; jobs run on the pool's threads. */
#include "workers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/lock.h"
#include "base/error.h"
#include "base/thread.h"

struct job {
    void (*fn)(void *arg);
    void *arg;
};
struct workers {
    struct lock mu;
    struct cond more;
    struct job *ring;
    size_t cap, head, n; /* mu */
    bool stopping;       /* mu */
    unsigned threads;
    pthread_t tid[];
};

static void *worker_main(void *arg)
{
    struct workers *w = arg;
    lock_acquire(&w->mu);
    for (;;) {
        while (w->n == 0 && !w->stopping)
            cond_wait(&w->more, &w->mu);
        if (w->n == 0)
            break;
        struct job job = w->ring[w->head];
        w->head = (w->head + 1) % w->cap;
        w->n--;
        lock_release(&w->mu);
        job.fn(job.arg);
        lock_acquire(&w->mu);
    }
    lock_release(&w->mu);
    return NULL;
}

int workers_new(const char *name, unsigned threads, size_t max_queued, struct workers **out)
{
    assert(threads > 0 && max_queued > 0);
    struct workers *w = calloc(1, sizeof(*w) + threads * sizeof(w->tid[0]));
    if (!w)
        return -ENOMEM;
    w->ring = calloc(max_queued, sizeof(*w->ring));
    w->cap = max_queued;
    lock_init(&w->mu, LOCK_WORKERS);
    cond_init(&w->more);
    if (w->ring)
        w->threads = threads_start(w->tid, threads, name, worker_main, w);
    if (w->threads < threads) {
        int rc = w->ring ? -EAGAIN : -ENOMEM;
        workers_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

void workers_free(struct workers *w)
{
    if (!w)
        return;
    lock_acquire(&w->mu);
    w->stopping = true;
    cond_broadcast(&w->more);
    lock_release(&w->mu);
    threads_join(w->tid, w->threads);
    cond_destroy(&w->more);
    lock_destroy(&w->mu);
    free(w->ring);
    free(w);
}

int workers_run(struct workers *w, void (*fn)(void *arg), void *arg)
{
    LOCK_SCOPE(&w->mu);
    if (w->n == w->cap)
        return -ERR_BUSY;
    w->ring[(w->head + w->n) % w->cap] = (struct job){fn, arg};
    w->n++;
    cond_signal(&w->more);
    return 0;
}
