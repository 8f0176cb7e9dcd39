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

#include "base/cleanup.h"
#include "base/error.h"
#include "base/thread.h"

struct job {
    void (*fn)(void *arg);
    void *arg;
};
struct workers {
    pthread_mutex_t mu;
    pthread_cond_t more;
    struct job *ring;
    size_t cap, head, n; /* mu */
    bool stopping;       /* mu */
    unsigned threads;
    pthread_t tid[];
};

static void *worker_main(void *arg)
{
    struct workers *w = arg;
    pthread_mutex_lock(&w->mu);
    for (;;) {
        while (w->n == 0 && !w->stopping)
            pthread_cond_wait(&w->more, &w->mu);
        if (w->n == 0)
            break;
        struct job job = w->ring[w->head];
        w->head = (w->head + 1) % w->cap;
        w->n--;
        pthread_mutex_unlock(&w->mu);
        job.fn(job.arg);
        pthread_mutex_lock(&w->mu);
    }
    pthread_mutex_unlock(&w->mu);
    return NULL;
}

int workers_new(const char *name, unsigned threads, size_t max_queued, struct workers **out)
{
    assert(threads > 0 && max_queued > 0);
    struct workers *w = calloc(1, sizeof *w + threads * sizeof w->tid[0]);
    if (!w)
        return -ENOMEM;
    w->ring = calloc(max_queued, sizeof *w->ring);
    w->cap = max_queued;
    pthread_mutex_init(&w->mu, NULL);
    pthread_cond_init(&w->more, NULL);
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
    pthread_mutex_lock(&w->mu);
    w->stopping = true;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->mu);
    threads_join(w->tid, w->threads);
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->mu);
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
    pthread_cond_signal(&w->more);
    return 0;
}
