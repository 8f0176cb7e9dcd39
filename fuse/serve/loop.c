/* The threads that serve the kernel's calls.
 *
 * libfuse has such a loop, but hands its reads and writes to others only where it was built to
 * (fuse_session_custom_io(3), since 3.18.3 not by default), and reading is what leader_follower.c and kernel.c are
 * about. So: read here, and let libfuse take the request apart (fuse_session_process_buf(3)).
 *
 * Each thread reads, serves, reads again. When the last one that was free has got something to do, another
 * one is started, up to a limit. All read one descriptor: of a clone for each thread (FUSE_DEV_IOC_CLONE)
 * libfuse would have to know to answer on it, and with one thread at a time reading, nothing is gained.
 *
 * A thread ends when reading fails, which ends all: with ENODEV when the file system was unmounted. The
 * others are cancelled where they read, or wait for their turn; never while they serve. One may be in
 * the kernel for a page (fuse_lowlevel_notify_inval_inode(3)) that is locked until we answer a request
 * that nobody reads any more: after the time that calls may take, the connection is cut, which releases it.
 *
 * Context: the main thread waits for signals; SIGUSR1 is what a thread that ended sends it. */
#include "loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/thread.h"
#include "kernel.h"

#define LOG_MODULE "fuse"

static struct {
    struct fuse_session *se;
    const struct loop_config *cfg;
    pthread_t main;
    struct lock mu;
    pthread_t *threads;
    unsigned n;
    atomic_uint free; /* that read, or are about to */
    bool ending;
    bool gone; /* the connection to the kernel */
    int rc;    /* -errno: what reading failed with */
} loop = {.mu = LOCK_INITIALIZER(SERVE_LOOP)};

static void *loop_serve(void *arg);

/* One more thread. loop.mu held. 0 or an errno. */
static int loop_grow(void)
{
    lock_assert_held(&loop.mu);
    if (loop.ending || loop.n == loop.cfg->max_threads)
        return 0;
    int rc = thread_start(&loop.threads[loop.n], "serve", loop_serve, NULL);
    if (rc)
        return rc;
    loop.n++;
    atomic_fetch_add(&loop.free, 1);
    return 0;
}

static void begin_work(void)
{
    static bool told;
    if (atomic_fetch_sub(&loop.free, 1) > 1)
        return;
    LOCK_SCOPE(&loop.mu);
    int rc = loop_grow();
    if (rc && !told)
        log_warn("no more than %u threads: %s", loop.n, strerror(rc));
    told = told || rc;
}

/* rc: of the last read. The first one counts: the one that sees the session's end comes behind it. */
static void over(int rc)
{
    LOCK_SCOPE(&loop.mu);
    loop.gone = loop.gone || rc == -ENODEV;
    if (!loop.ending)
        loop.rc = rc == -ENODEV ? 0 : rc;
    loop.ending = true;
    fuse_session_exit(loop.se);
    pthread_kill(loop.main, SIGUSR1);
}

/* Of the kernel's request: its length, or -errno. */
static ssize_t next(void *mem)
{
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    ssize_t n = kernel_read(loop.se, mem, loop.cfg->bufsize);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    return n;
}

static void serve_all(void *mem)
{
    for (;;) {
        ssize_t n = next(mem);
        if (n == -EINTR || n == -EAGAIN || n == -ENOENT) /* the last: it was interrupted just now */
            continue;
        if (n <= 0) {
            over((int)n);
            return;
        }
        struct fuse_buf buf = {.size = (size_t)n, .mem = mem};
        begin_work();
        fuse_session_process_buf(loop.se, &buf);
        atomic_fetch_add(&loop.free, 1);
        /* if nobody else ended it, libfuse did: the kernel's protocol is none that it knows */
        if (fuse_session_exited(loop.se)) {
            over(-EPROTO);
            return;
        }
    }
}

static void *loop_serve(void *arg)
{
    (void)arg;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    void *mem = aligned_alloc((size_t)sysconf(_SC_PAGESIZE), loop.cfg->bufsize);
    if (!mem) {
        over(-ENOMEM);
        return NULL;
    }
    pthread_cleanup_push(free, mem);
    serve_all(mem);
    pthread_cleanup_pop(1);
    return NULL;
}

/* The signal that ends us, 0 if the loop came to its end by itself. */
static int wait_for_end(void)
{
    int sig = 0;
    while (!fuse_session_exited(loop.se)) {
        if (sigwait(&loop.cfg->signals, &sig))
            continue;
        if (sig == SIGHUP)
            loop.cfg->reload(loop.cfg->arg);
        else if (sig != SIGUSR1)
            return sig;
    }
    return 0;
}

static void join_all(void)
{
    struct timespec until;
    bool patient = true;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += loop.cfg->patience_s;
    for (unsigned i = 0; i < loop.n; i++) {
        if (patient && !pthread_clockjoin_np(loop.threads[i], NULL, CLOCK_MONOTONIC, &until))
            continue;
        if (patient && !loop.gone)
            loop.cfg->cut(loop.cfg->arg);
        patient = false;
        pthread_join(loop.threads[i], NULL);
    }
}

int loop_run(struct fuse_session *se, const struct loop_config *cfg)
{
    loop.se = se;
    loop.cfg = cfg;
    loop.main = pthread_self();
    loop.threads = calloc(cfg->max_threads, sizeof(*loop.threads));
    if (!loop.threads)
        return -ENOMEM;
    lock_acquire(&loop.mu);
    int rc = -loop_grow();
    lock_release(&loop.mu);
    int sig = rc ? 0 : wait_for_end();
    lock_acquire(&loop.mu);
    loop.ending = true;
    lock_release(&loop.mu);
    fuse_session_exit(se);
    for (unsigned i = 0; i < loop.n; i++)
        pthread_cancel(loop.threads[i]);
    join_all();
    free(loop.threads);
    return rc ? rc : loop.rc ? loop.rc : sig;
}
