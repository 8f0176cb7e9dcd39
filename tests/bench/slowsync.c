/* A slow disk, preloaded into a daemon (LD_PRELOAD): every call that promises stable storage takes
 * SLOWSYNC_MS longer, as if the disk had to turn first.
 *
 *   LD_PRELOAD=bench_slowsync.so SLOWSYNC_MS=5 [SLOWSYNC_ONLY=NAME] [SLOWSYNC_COUNT=FILE] PROGRAM...
 *
 * Delayed: fsync, fdatasync, sync_file_range, syncfs, msync(MS_SYNC); write, pwrite, writev, pwritev
 * and pwritev2 on a descriptor opened with O_DSYNC or O_SYNC (or with RWF_DSYNC); and io_submit of
 * such writes, which is how libraft writes its log. The caller of the blocking ones sleeps first and
 * syncs then. An io_submit returns at once, as it does on a real disk, and a thread of ours submits
 * the request in earnest when its time has come: requests in flight at the same time wait at the
 * same time, and the order stays. RWF_NOWAIT is taken off then, since nobody could be told EAGAIN.
 * libuv could use io_uring, which is not seen here: it is told not to.
 *
 * With SLOWSYNC_ONLY programs of another name go at full speed. With SLOWSYNC_COUNT, FILE.PID holds three
 * 64-bit counters in the machine's byte order: syncs, synchronous writes, and log writes by io_submit that
 * were delayed. They are in a shared mapping, so they survive a kill.
 *
 * Failure modes: what cannot be submitted later would make the program wait for ever, so that
 * aborts with a message; out of slots for deferred requests: they are submitted at once. */
/* Both names of each call, with and without 64, are replaced: they must be different ones here. */
#undef _FILE_OFFSET_BITS
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 1024u

enum counter { SYNCS, WRITES, LOG_WRITES, COUNTERS };

static int64_t delay_ns;
static _Atomic uint64_t no_file[COUNTERS];
static _Atomic uint64_t *counters = no_file;

/* Requests of io_submit whose time has not come, a ring in order of arrival. */
struct deferred {
    aio_context_t ctx;
    struct iocb *cb;
    int64_t due;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct deferred ring[SLOTS]; /* lock */
static unsigned first, count;       /* lock */
static bool started;                /* lock */

/* The same call in the library behind us. */
#define REAL(name)                                                                                 \
    ({                                                                                             \
        static void *_Atomic real;                                                                 \
        if (!real)                                                                                 \
            real = dlsym(RTLD_NEXT, #name);                                                        \
        (__typeof__(&name))real;                                                                   \
    })

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void sleep_until(int64_t due)
{
    struct timespec t = {.tv_sec = due / 1000000000, .tv_nsec = due % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static void delay(enum counter c)
{
    atomic_fetch_add(&counters[c], 1);
    if (delay_ns)
        sleep_until(now() + delay_ns);
}

__attribute__((constructor)) static void setup(void)
{
    const char *ms = getenv("SLOWSYNC_MS"), *file = getenv("SLOWSYNC_COUNT");
    const char *only = getenv("SLOWSYNC_ONLY");
    char path[4096];

    if (only && strcmp(only, program_invocation_short_name))
        ms = NULL;
    delay_ns = ms ? (int64_t)(strtod(ms, NULL) * 1e6) : 0;
    setenv("UV_USE_IO_URING", "0", 1);
    if (!file)
        return;
    snprintf(path, sizeof path, "%s.%d", file, (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, sizeof no_file)) {
        fprintf(stderr, "slowsync: %s: %s\n", path, strerror(errno));
        abort();
    }
    void *p = mmap(NULL, sizeof no_file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED)
        counters = p;
    close(fd);
}

/* ---- calls that sync ---- */
int fsync(int fd)
{
    delay(SYNCS);
    return REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    delay(SYNCS);
    return REAL(fdatasync)(fd);
}

int syncfs(int fd)
{
    delay(SYNCS);
    return REAL(syncfs)(fd);
}

int sync_file_range(int fd, off_t off, off_t len, unsigned flags)
{
    delay(SYNCS);
    return REAL(sync_file_range)(fd, off, len, flags);
}

int msync(void *addr, size_t len, int flags)
{
    if (flags & MS_SYNC)
        delay(SYNCS);
    return REAL(msync)(addr, len, flags);
}

/* ---- writes that sync ---- */
static void before_write(int fd, int rwf)
{
    int saved = errno, flags = fcntl(fd, F_GETFL);
    errno = saved;
    if ((rwf & RWF_DSYNC) || (flags >= 0 && (flags & O_DSYNC))) /* O_SYNC has that bit, too */
        delay(WRITES);
}

ssize_t write(int fd, const void *data, size_t n)
{
    before_write(fd, 0);
    return REAL(write)(fd, data, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t off)
{
    before_write(fd, 0);
    return REAL(pwrite)(fd, data, n, off);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t off)
{
    before_write(fd, 0);
    return REAL(pwrite64)(fd, data, n, off);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
    before_write(fd, 0);
    return REAL(writev)(fd, v, n);
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t off)
{
    before_write(fd, 0);
    return REAL(pwritev)(fd, v, n, off);
}

ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t off)
{
    before_write(fd, 0);
    return REAL(pwritev64)(fd, v, n, off);
}

ssize_t pwritev2(int fd, const struct iovec *v, int n, off_t off, int rwf)
{
    before_write(fd, rwf);
    return REAL(pwritev2)(fd, v, n, off, rwf);
}

ssize_t pwritev64v2(int fd, const struct iovec *v, int n, off64_t off, int rwf)
{
    before_write(fd, rwf);
    return REAL(pwritev64v2)(fd, v, n, off, rwf);
}

/* ---- io_submit ---- */
static void submit(aio_context_t ctx, struct iocb *cb)
{
    struct timespec ms = {.tv_nsec = 1000000};

    cb->aio_rw_flags &= ~RWF_NOWAIT;
    while (REAL(syscall)(SYS_io_submit, ctx, 1L, &cb) != 1) {
        if (errno != EAGAIN) {
            fprintf(stderr, "slowsync: io_submit: %s\n", strerror(errno));
            abort();
        }
        nanosleep(&ms, NULL);
    }
}

static void *submit_later(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (!count)
            pthread_cond_wait(&more, &lock);
        struct deferred d = ring[first];
        pthread_mutex_unlock(&lock);
        sleep_until(d.due);
        submit(d.ctx, d.cb);
        pthread_mutex_lock(&lock);
        first = (first + 1) % SLOTS;
        count--;
    }
    return NULL;
}

/* With lock: there is a thread to hand requests to. Signals are for the program's own threads. */
static bool have_thread(void)
{
    sigset_t all, before;
    pthread_t id;

    if (started)
        return true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(&id, NULL, submit_later, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        pthread_detach(id);
    return started;
}

static bool sync_write(const struct iocb *cb)
{
    if (cb->aio_lio_opcode != IOCB_CMD_PWRITE && cb->aio_lio_opcode != IOCB_CMD_PWRITEV)
        return cb->aio_lio_opcode == IOCB_CMD_FSYNC || cb->aio_lio_opcode == IOCB_CMD_FDSYNC;
    int flags = fcntl((int)cb->aio_fildes, F_GETFL);
    return (cb->aio_rw_flags & RWF_DSYNC) || (flags >= 0 && (flags & O_DSYNC));
}

static bool defer(aio_context_t ctx, struct iocb *cb)
{
    bool done = false;

    if (!delay_ns || !sync_write(cb))
        return false;
    pthread_mutex_lock(&lock);
    if (count < SLOTS && have_thread()) {
        ring[(first + count) % SLOTS] =
            (struct deferred){.ctx = ctx, .cb = cb, .due = now() + delay_ns};
        count++;
        done = true;
        atomic_fetch_add(&counters[LOG_WRITES], 1);
        pthread_cond_signal(&more);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

static long submit_some(aio_context_t ctx, long n, struct iocb **cbs)
{
    for (long i = 0; i < n; i++) {
        if (defer(ctx, cbs[i]))
            continue;
        long r = REAL(syscall)(SYS_io_submit, ctx, 1L, &cbs[i]);
        if (r != 1)
            return i ? i : r;
    }
    return n;
}

long syscall(long nr, ...)
{
    long a[6];
    va_list ap;

    va_start(ap, nr);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    if (nr == SYS_io_submit && a[1] > 0)
        return submit_some((aio_context_t)a[0], a[1], (struct iocb **)a[2]);
    return REAL(syscall)(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}
