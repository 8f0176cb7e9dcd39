/* One thread reads requests, and serves them as well.
 *
 * When every thread of a session waits in read(2), each request wakes the one that has slept longest:
 * a wake-up, and often another core's way out of idle, for the few microseconds that an answer from
 * the lease cache takes. Here one thread, whose turn it is, reads and serves one request after the
 * other, and looks again for a short while before it sleeps, since the next call of a program that
 * walks a tree is on its way. The others are parked outside of the kernel.
 *
 * Its holder gives the turn up
 * - before it waits for anything (wait_hook_call: for a condition, for an answer of the cluster),
 * - when more requests are there already, so that those of several programs are served in parallel; but
 *   not while one program's calls come right behind each other,
 * - before what takes long by itself (leader_follower_pass: the bytes of writes),
 * and a parked thread takes it, unless some thread is reading anyway: one that had to wait for its last
 * request reads without a turn, since the next will probably make it wait as well, and a wake-up by
 * the kernel is cheaper than one to park and one to read.
 *
 * While one program is served at a time, the thread whose turn it is goes where that runs (cpu_affinity.c) and
 * lets everybody else run first at the two moments when it has nothing to lose: while it writes an answer,
 * and while it looks for the next request.
 *
 * When no thread reads for longer than a tick of the watch, whatever the reason, it wakes a parked one:
 * a call of ours into the kernel may wait for a page that a request not read yet would release, and
 * others that are let first may not come to an end. If a request waited meanwhile, answers are given in
 * the ordinary way for a while.
 *
 * States: `owner` (a thread's id) has the turn, 0: nobody; `reading` threads are about to read or in
 * read(2). The one that returns with a request and finds no owner becomes it. The one that gives up the turn first
 * clears owner, then looks at reading; the one that returns first leaves reading, then looks at owner: so one
 * of the two sees to it that somebody reads.
 *
 * Context: the threads of loop.c, which are cancelled while they read or are parked; the watch. */
#include "leader_follower.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/uio.h>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#include "base/clock.h"
#include "base/thread.h"
#include "base/wait_hook.h"
#include "base/lock.h"
#include "cpu_affinity.h"

#define SPIN_NS (50 * NSEC_PER_USEC) /* looking for the next request */
/* What came within that is worth looking for the next time. */
#define CLOSE_NS (100 * NSEC_PER_USEC)
#define QUICK_BYTES 16384u /* copying more takes too long to be the last in line */
#define ASAN_STACK 32768   /* more than a read in turn takes */
#define SHY_MIN 16u
#define SHY_MAX 4096u
#define TICK_NS (2 * NSEC_PER_MSEC)

static struct {
    struct lock mu;
    struct cond parked, watched;
    pthread_t watch;
    atomic_uint owner, reading;
    atomic_ulong served;      /* requests read so far */
    atomic_bool asleep;       /* the watch */
    atomic_bool lively;       /* requests come one upon the other */
    _Atomic int64_t answered; /* when, the last one */
    atomic_int fd;            /* one of those that are read */
    bool can_be_near;
    atomic_uint last_in_line; /* the thread that runs when nobody else wants to, 0: none */
    atomic_uint shy;          /* so many answers are given in the ordinary way */
    bool stop;
} turns = {.mu = LOCK_INITIALIZER(LEADER_FOLLOWER), .parked = COND_INITIALIZER};

static _Thread_local struct {
    unsigned id;
    bool waited;       /* for the last request */
    bool reading;      /* counted in turns.reading */
    uint32_t tid;      /* whose call was the last one */
    bool quick;        /* the last answer could be: others were let first */
    bool right_behind; /* the next request was there when they were done */
} self;

/* ---- turns ---- */

static void unlock(void *arg)
{
    (void)arg;
    lock_release(&turns.mu);
}

static bool mine(void)
{
    return self.id && atomic_load(&turns.owner) == self.id;
}

/* Parked until nobody reads and nobody is about to. */
static void turn_take(void)
{
    lock_acquire(&turns.mu);
    pthread_cleanup_push(unlock, NULL);
    while (atomic_load(&turns.owner) || atomic_load(&turns.reading))
        cond_wait(&turns.parked, &turns.mu);
    atomic_store(&turns.owner, self.id);
    pthread_cleanup_pop(1);
}

void leader_follower_pass(void)
{
    unsigned id = self.id;
    if (!id || self.waited)
        return;
    cpu_affinity_leave();
    self.waited = true;
    atomic_compare_exchange_strong(&turns.owner, &id, 0);
    if (atomic_load(&turns.owner) || atomic_load(&turns.reading))
        return;
    lock_acquire(&turns.mu);
    cond_signal(&turns.parked);
    lock_release(&turns.mu);
}

/* ---- reading ---- */

static bool there(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

static void last_in_line(bool on)
{
    unsigned id = self.id;
    if (!turns.can_be_near)
        return;
    if (on)
        atomic_store(&turns.last_in_line, id);
    cpu_affinity_idle(0, on);
    if (!on)
        atomic_compare_exchange_strong(&turns.last_in_line, &id, 0);
}

/* Others run meanwhile, if there are any. */
static void look_for_next(int fd)
{
    int64_t until = clock_mono() + SPIN_NS;
    last_in_line(true);
    while (!there(fd) && clock_mono() < until)
        sched_yield();
    last_in_line(false);
}

static void wake_watch(void)
{
    atomic_fetch_add(&turns.served, 1);
    if (!atomic_load(&turns.asleep))
        return;
    lock_acquire(&turns.mu);
    cond_signal(&turns.watched);
    lock_release(&turns.mu);
}

void leader_follower_share(int fd, uint32_t tid)
{
    if (!mine())
        return;
    /* What is there besides, while one program's calls come right behind each other, is the kernel's own
     * (FORGET): no reason to wake anybody. */
    bool same = self.right_behind && self.tid == tid;
    self.tid = tid;
    if (!same && there(fd))
        leader_follower_pass();
    else if (turns.lively && turns.can_be_near)
        cpu_affinity_came(tid, self.right_behind);
    else
        cpu_affinity_leave();
}

void leader_follower_stream(void)
{
    cpu_affinity_leave();
    turns.lively = false;
}

static size_t bytes_of(const struct iovec *iov, int count)
{
    size_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += iov[i].iov_len;
    return sum;
}

ssize_t leader_follower_answer(int fd, const struct iovec *iov, int count)
{
    unsigned shy = atomic_load(&turns.shy);
    bool quick = mine() && turns.lively && !shy && bytes_of(iov, count) <= QUICK_BYTES;
    if (shy)
        atomic_compare_exchange_strong(&turns.shy, &shy, shy - 1);
    if (quick)
        last_in_line(true);
    ssize_t n = writev(fd, iov, count);
    if (quick)
        last_in_line(false);
    self.quick = quick;
    atomic_store(&turns.answered, clock_mono());
    return n;
}

static ssize_t read_in_turn(int fd, void *buf, size_t size)
{
    if (!mine())
        cpu_affinity_leave();
    if (!mine() && !self.waited)
        turn_take();
    self.waited = false;
    self.right_behind = self.quick && there(fd);
    if (!self.right_behind && mine() && turns.lively && !atomic_load(&turns.shy))
        look_for_next(fd);
    self.reading = true;
    atomic_fetch_add(&turns.reading, 1);
    ssize_t n = read(fd, buf, size);
    atomic_fetch_sub(&turns.reading, 1);
    self.reading = false;
    unsigned nobody = 0;
    bool ours = atomic_compare_exchange_strong(&turns.owner, &nobody, self.id) || mine();
    if (ours && !self.right_behind)
        turns.lively = clock_mono() - atomic_load(&turns.answered) < CLOSE_NS;
    wake_watch();
    return n;
}

/* This thread ends in its turn, while it reads, or parked. */
static void cancelled(void *arg)
{
    (void)arg;
#ifdef __SANITIZE_ADDRESS__
    /* It does not see frames go by a cancellation: what they had poisoned is the stack of what is called from here on. */
    const char *here = __builtin_frame_address(0);
    __asan_unpoison_memory_region(here - ASAN_STACK, ASAN_STACK);
#endif
    if (self.reading)
        atomic_fetch_sub(&turns.reading, 1);
    leader_follower_pass();
}

ssize_t leader_follower_read(int fd, void *buf, size_t size)
{
    ssize_t n;
    atomic_store_explicit(&turns.fd, fd, memory_order_relaxed);
    if (!self.id) {
        self.id = (unsigned)gettid();
        if (turns.can_be_near)
            cpu_affinity_begin();
    }
    pthread_cleanup_push(cancelled, NULL);
    n = read_in_turn(fd, buf, size);
    pthread_cleanup_pop(0);
    return n;
}

/* ---- the watch ---- */

/* Thread id let others go first, and they do not come to an end: it is one of them now. When a request
 * waits, not so soon again. */
static void is_kept(unsigned id)
{
    static unsigned shy;
    static int64_t last;
    int64_t now = clock_mono();
    cpu_affinity_idle((pid_t)id, false);
    if (!there(atomic_load(&turns.fd)))
        return;
    shy = now - last > NSEC_PER_SEC ? SHY_MIN : shy < SHY_MAX ? shy * 2 : SHY_MAX;
    last = now;
    atomic_store(&turns.shy, shy);
}

static void *turn_watch(void *arg)
{
    unsigned long before = 0;
    (void)arg;
    lock_acquire(&turns.mu);
    while (!turns.stop) {
        unsigned long now = atomic_load(&turns.served);
        unsigned last = atomic_load(&turns.last_in_line);
        bool idle = now == before;
        before = now;
        if (idle && last)
            is_kept(last);
        if (idle && !last && atomic_load(&turns.reading)) { /* until something happens */
            atomic_store(&turns.asleep, true);
            if (atomic_load(&turns.served) == now)
                cond_wait(&turns.watched, &turns.mu);
            atomic_store(&turns.asleep, false);
            continue;
        }
        if (idle && !atomic_load(&turns.reading)) {
            atomic_store(&turns.owner, 0);
            cond_signal(&turns.parked);
        }
        cond_sleep_until(&turns.watched, &turns.mu, clock_mono() + TICK_NS);
    }
    lock_release(&turns.mu);
    return NULL;
}

int leader_follower_start(void)
{
    cond_init(&turns.watched);
    turns.stop = false;
    turns.can_be_near = cpu_affinity_start();
    wait_hook_set(leader_follower_pass);
    return -thread_start(&turns.watch, "turns", turn_watch, NULL);
}

void leader_follower_stop(void)
{
    lock_acquire(&turns.mu);
    turns.stop = true;
    cond_signal(&turns.watched);
    lock_release(&turns.mu);
    pthread_join(turns.watch, NULL);
    cond_destroy(&turns.watched);
}
