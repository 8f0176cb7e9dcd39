/* Epoll threads. A loop is a set of workers; each owns an epoll instance, a heap of timers and the
 * connections assigned to it. Work comes to a worker in four ways: readiness of a socket, a timer,
 * a posted connection (something another thread noticed and only the owner may do) and the stop
 * flag; the last three wake it through an eventfd.
 *
 * Life: rpc_loop_new starts the threads. rpc_loop_free closes listeners, waits for resolver
 * threads, tells each worker to tear down its connections (their calls end with ERR_SHUTDOWN) and
 * joins. Deferred functions that are not due by then never run. Connections that users still hold
 * stay valid memory: dead ones never touch worker or loop again.
 *
 * Failure: epoll or eventfd cannot be had: rpc_loop_new fails. Nothing else here fails. */
#include "rpc/rpc_internal.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/lock.h"

#define LOG_MODULE "rpc"
#define EVENTS 64

static _Thread_local struct worker *self;

bool worker_is_self(const struct worker *w)
{
    return self == w;
}

bool worker_any_self(void)
{
    return self != NULL;
}

struct worker *loop_pick(struct rpc_loop *l)
{
    return &l->workers[atomic_fetch_add(&l->next_worker, 1) % l->nworkers];
}

int worker_watch(struct worker *w, int fd, uint32_t events, struct source *s)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};

    return epoll_ctl(w->epfd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* close() alone ends no registration while a child of this process still has the descriptor: one that was forked a
 * moment ago, and has not closed its copies yet. An event would then come for a connection that is freed. */
void worker_unwatch(struct worker *w, int fd)
{
    (void)epoll_ctl(w->epfd, EPOLL_CTL_DEL, fd, NULL);
}

/* Under w->lock: makes a sleeping worker look at its lists, unless it will in time by itself. */
static void wake_locked(struct worker *w, int64_t needed_at)
{
    lock_assert_held(&w->mu);
    if (self == w || needed_at >= w->sleeps_until)
        return;
    w->sleeps_until = INT64_MIN;
    uint64_t one = 1;
    ssize_t rc = write(w->wakefd, &one, sizeof(one));
    (void)rc; /* a full counter wakes as well */
}

static void on_wake(struct source *s, uint32_t events)
{
    struct worker *w = (struct worker *)((char *)s - offsetof(struct worker, wake_source));
    uint64_t n;

    (void)events;
    ssize_t rc = read(w->wakefd, &n, sizeof(n));
    (void)rc;
}

void worker_timer_set(struct worker *w, struct worker_timer *t, int64_t when)
{
    lock_acquire(&w->mu);
    timers_set(&w->timers, &t->t, when);
    wake_locked(w, when);
    lock_release(&w->mu);
}

void worker_timer_clear(struct worker *w, struct worker_timer *t)
{
    lock_acquire(&w->mu);
    timers_clear(&w->timers, &t->t);
    lock_release(&w->mu);
}

void worker_post(struct rpc_conn *c)
{
    struct worker *w = c->worker;

    lock_acquire(&w->mu);
    if (!c->posted) {
        c->posted = true;
        c->posted_next = w->posted;
        w->posted = c;
        wake_locked(w, INT64_MIN + 1);
    }
    lock_release(&w->mu);
}

static void run_timers(struct worker *w)
{
    int64_t now = clock_mono();

    for (;;) {
        lock_acquire(&w->mu);
        struct timer *t = timers_first(&w->timers);
        if (!t || t->when > now) {
            lock_release(&w->mu);
            return;
        }
        timers_clear(&w->timers, t);
        lock_release(&w->mu);
        struct worker_timer *wt = (struct worker_timer *)t;
        void (*fn)(void *) = wt->fn;
        void *arg = wt->arg;
        if (wt->heap_owned)
            free(wt);
        fn(arg);
    }
}

static void run_posted(struct worker *w)
{
    for (;;) {
        lock_acquire(&w->mu);
        struct rpc_conn *c = w->posted;
        if (c) {
            w->posted = c->posted_next;
            c->posted = false;
        }
        lock_release(&w->mu);
        if (!c)
            return;
        conn_posted(c);
    }
}

/* Time to sleep in ms; notes in sleeps_until what others may rely on. */
static int sleep_ms(struct worker *w)
{
    int ms = -1;

    lock_acquire(&w->mu);
    struct timer *t = timers_first(&w->timers);
    w->sleeps_until = t ? t->when : INT64_MAX;
    if (w->posted || w->stop) {
        ms = 0;
    } else if (t) {
        int64_t left = t->when - clock_mono();
        left = left <= 0 ? 0 : (left + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;
        ms = left > 60000 ? 60000 : (int)left;
    }
    if (ms == 0)
        w->sleeps_until = INT64_MIN;
    lock_release(&w->mu);
    return ms;
}

static bool woke_to_stop(struct worker *w)
{
    lock_acquire(&w->mu);
    w->sleeps_until = INT64_MIN;
    bool stop = w->stop;
    lock_release(&w->mu);
    return stop;
}

static void close_all(struct worker *w)
{
    for (;;) {
        lock_acquire(&w->mu);
        struct rpc_conn *c = w->conns;
        lock_release(&w->mu);
        if (!c)
            return;
        conn_die(c, -ERR_SHUTDOWN, "we are shutting down");
        conn_teardown(c);
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct epoll_event evs[EVENTS];

    self = w;
    for (;;) {
        int n = epoll_wait(w->epfd, evs, EVENTS, sleep_ms(w));
        if (woke_to_stop(w))
            break;
        for (int i = 0; i < n; i++) {
            struct source *s = evs[i].data.ptr;
            s->event(s, evs[i].events);
        }
        run_posted(w);
        run_timers(w);
    }
    close_all(w);
    return NULL;
}

static int worker_init(struct worker *w, struct rpc_loop *l)
{
    w->loop = l;
    w->sleeps_until = INT64_MIN;
    lock_init(&w->mu, LOCK_RPC_WORKER);
    w->wake_source.event = on_wake;
    w->epfd = epoll_create1(EPOLL_CLOEXEC);
    w->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->epfd < 0 || w->wakefd < 0)
        return -errno;
    int rc = worker_watch(w, w->wakefd, EPOLLIN, &w->wake_source);
    return rc < 0 ? rc : -thread_start(&w->thread, "rpc", worker_main, w);
}

static void worker_stop(struct worker *w)
{
    lock_acquire(&w->mu);
    w->stop = true;
    wake_locked(w, INT64_MIN + 1);
    lock_release(&w->mu);
    pthread_join(w->thread, NULL);
}

/* After all workers stopped: what callbacks of the last ones left here. */
static void worker_destroy(struct worker *w)
{
    struct timer *t;

    self = w;
    close_all(w);
    self = NULL;
    while ((t = timers_first(&w->timers))) {
        timers_clear(&w->timers, t);
        if (((struct worker_timer *)t)->heap_owned)
            free(t);
    }
    timers_free(&w->timers);
    if (w->epfd >= 0)
        close(w->epfd);
    if (w->wakefd >= 0)
        close(w->wakefd);
    lock_destroy(&w->mu);
}

static void stop_workers(struct rpc_loop *l)
{
    atomic_store(&l->stopping, true);
    for (unsigned i = 0; i < l->nworkers; i++)
        worker_stop(&l->workers[i]);
    for (unsigned i = 0; i < l->nworkers; i++)
        worker_destroy(&l->workers[i]);
}

static char *copy_or_null(const char *s)
{
    char *c = s ? strdup(s) : NULL;
    if (s && !c)
        abort();
    return c;
}

static void loop_release(struct rpc_loop *l)
{
    SSL_CTX_free(l->tls);
    free((char *)(uintptr_t)l->cfg.name);
    free((char *)(uintptr_t)l->cfg.tls_cert);
    free((char *)(uintptr_t)l->cfg.tls_key);
    free((char *)(uintptr_t)l->cfg.tls_ca);
    free(l->workers);
    cond_destroy(&l->resolved);
    admission_free(&l->admission);
    lock_destroy(&l->mu);
    free(l);
}

int rpc_loop_new(const struct rpc_config *cfg, struct rpc_loop **out)
{
    struct rpc_loop *l = calloc(1, sizeof(*l));
    int rc = 0;

    *out = NULL;
    if (!l)
        return -ENOMEM;
    signal(SIGPIPE, SIG_IGN);
    lock_init(&l->mu, LOCK_RPC_LOOP);
    cond_init(&l->resolved);
    admission_init(&l->admission, cfg);
    l->cfg = *cfg;
    l->cfg.name = copy_or_null(cfg->name ? cfg->name : "");
    l->cfg.tls_cert = copy_or_null(cfg->tls_cert);
    l->cfg.tls_key = copy_or_null(cfg->tls_key);
    l->cfg.tls_ca = copy_or_null(cfg->tls_ca);
    if (getrandom(&l->instance, sizeof(l->instance), 0) != sizeof(l->instance))
        l->instance = 0; /* not told */
    l->use_tls = cfg->tls_cert || cfg->tls_key || cfg->tls_ca;
    local_init(l);
    if (l->use_tls)
        rc = tls_ctx_new(cfg, &l->tls);
    unsigned want = cfg->threads ? cfg->threads : 1;
    l->workers = calloc(want, sizeof(*l->workers));
    if (!l->workers)
        abort();
    for (unsigned i = 0; i < want && rc == 0; i++) {
        rc = worker_init(&l->workers[i], l);
        if (rc < 0) {
            log_error("cannot start an rpc thread: %s", err_str(rc));
            worker_destroy(&l->workers[i]);
        } else {
            l->nworkers++;
        }
    }
    if (rc < 0) {
        stop_workers(l);
        loop_release(l);
        return rc;
    }
    tls_watch_end(l);
    *out = l;
    return 0;
}

void rpc_loop_free(struct rpc_loop *l)
{
    if (!l)
        return;
    assert(!worker_any_self() || self->loop != l);
    lock_acquire(&l->mu);
    while (l->resolving > 0)
        cond_wait(&l->resolved, &l->mu);
    lock_release(&l->mu);
    stop_workers(l);
    listeners_free(l);
    loop_release(l);
}

void rpc_loop_defer(struct rpc_loop *l, unsigned delay_ms, void (*fn)(void *arg), void *arg)
{
    struct worker_timer *t = calloc(1, sizeof(*t));

    if (!t)
        abort();
    t->fn = fn;
    t->arg = arg;
    t->heap_owned = true;
    worker_timer_set(loop_pick(l), t, clock_mono() + delay_ms * NSEC_PER_MSEC);
}
