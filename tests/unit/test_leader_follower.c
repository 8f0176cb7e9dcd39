/* leader_follower.c over a pipe for the device: every request is read once, and somebody always reads the next,
 * whatever the one who serves does: nothing, waits and says so, waits and does not, is cancelled. Who
 * asks and waits for the answer is soon served on the CPU where he is. */
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/clock.h"
#include "base/wait_hook.h"
#include "fuse/serve/cpu_affinity.h"
#include "fuse/serve/leader_follower.h"

#define THREADS 6u
#define MANY 20000u

enum what { PLAIN, LONG, ASKS, ASKS_AND_WAITS, WAITS, HANGS };
/* The answer to those that ask: 1 + the CPU they are served on, the CPUs that it could be. */
#define WHERE(cpu, cpus) ((uint64_t)(cpus) << 32 | ((unsigned)(cpu) + 1))
#define CPU_OF(where) ((int)(uint32_t)(where)-1)
#define CPUS_OF(where) ((int)((where) >> 32))
static struct {
    int fds[2];
    pthread_t threads[THREADS];
    atomic_uint served;
    sem_t go;            /* lets one that waits go on */
    sem_t waiting, done; /* one waits, one was served */
    pid_t tid;           /* who asks, and there are the answers */
    int answers;
} rig;

static void answer(enum what what)
{
    cpu_set_t set;
    if (what == ASKS_AND_WAITS)
        wait_hook_call();
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    uint64_t w = WHERE(sched_getcpu(), CPU_COUNT(&set));
    struct iovec v = {&w, sizeof w};
    assert_int_equal(leader_follower_answer(rig.answers, &v, 1), sizeof w);
}

static void *server(void *arg)
{
    static _Thread_local uint64_t what; /* not on the stack: it goes by cancellation */
    static _Thread_local int state;
    (void)arg;
    while (leader_follower_read(rig.fds[0], &what, sizeof what) == sizeof what) {
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state); /* as libfuse does */
        leader_follower_share(rig.fds[0], (uint32_t)rig.tid);
        if (what == LONG)
            leader_follower_pass();
        if (what == WAITS)
            wait_hook_call();
        if (what >= WAITS) {
            sem_post(&rig.waiting);
            sem_wait(&rig.go);
        }
        if (what == ASKS || what == ASKS_AND_WAITS) {
            answer((enum what)what);
        } else {
            atomic_fetch_add(&rig.served, 1);
            sem_post(&rig.done);
        }
        pthread_setcancelstate(state, NULL);
    }
    return NULL;
}

static void ask(enum what what)
{
    uint64_t b = what;
    assert_int_equal(write(rig.fds[1], &b, sizeof b), sizeof b);
}

static void start(void)
{
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&rig.threads[i], NULL, server, NULL), 0);
}

static int up(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof rig);
    sem_init(&rig.go, 0, 0);
    sem_init(&rig.waiting, 0, 0);
    sem_init(&rig.done, 0, 0);
    return pipe(rig.fds) || leader_follower_start();
}

/* As the kernel wakes those that wait for requests and answers: unlike a pipe, which puts the one who
 * reads beside the one who writes. */
static int up_eventfd(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof rig);
    rig.tid = gettid();
    rig.fds[0] = eventfd(0, 0);
    rig.fds[1] = dup(rig.fds[0]);
    rig.answers = eventfd(0, 0);
    return rig.fds[1] < 0 || rig.answers < 0 || leader_follower_start();
}

static int down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_cancel(rig.threads[i]);
        pthread_join(rig.threads[i], NULL);
    }
    leader_follower_stop();
    close(rig.fds[0]);
    close(rig.fds[1]);
    if (rig.answers)
        close(rig.answers);
    return 0;
}

/* One at a time, then all at once, of both kinds that do not wait. */
static void test_each_once(void **state)
{
    (void)state;
    start();
    for (unsigned i = 0; i < MANY / 10; i++) {
        ask(i % 7 ? PLAIN : LONG);
        sem_wait(&rig.done);
    }
    for (unsigned i = 0; i < MANY; i++)
        ask(i % 7 ? PLAIN : LONG);
    for (unsigned i = 0; i < MANY; i++)
        sem_wait(&rig.done);
    assert_int_equal(rig.served, MANY + MANY / 10);
}

static void go_on_around(enum what what)
{
    start();
    for (unsigned round = 0; round < 50; round++) {
        unsigned held = 1 + round % (THREADS - 1);
        for (unsigned i = 0; i < held; i++) {
            ask(what);
            sem_wait(&rig.waiting);
        }
        for (unsigned i = 0; i < 10; i++) { /* served while those wait */
            ask(PLAIN);
            sem_wait(&rig.done);
        }
        for (unsigned i = 0; i < held; i++)
            sem_post(&rig.go);
        for (unsigned i = 0; i < held; i++)
            sem_wait(&rig.done);
    }
}

static void test_who_waits_says_so(void **state)
{
    (void)state;
    go_on_around(WAITS);
}

static void test_who_waits_says_nothing(void **state)
{
    (void)state;
    go_on_around(HANGS);
}

/* Threads go while they are parked or read; those that are left, or come, go on. */
static void test_cancelled(void **state)
{
    (void)state;
    start();
    for (unsigned round = 0; round < 100; round++) {
        unsigned i = round % THREADS;
        pthread_cancel(rig.threads[i]);
        pthread_join(rig.threads[i], NULL);
        assert_int_equal(pthread_create(&rig.threads[i], NULL, server, NULL), 0);
        ask(round % 2 ? PLAIN : LONG);
        sem_wait(&rig.done);
    }
}

static uint64_t ask_where(enum what what)
{
    uint64_t w;
    ask(what);
    assert_int_equal(read(rig.answers, &w, sizeof w), sizeof w);
    return w;
}

/* Most of many answers come from the CPU that this thread runs on then, or else soon: somebody else may
 * need one of them just now. */
static void assert_near(void)
{
    enum { ASKED = 2000, MOST = ASKED * 9 / 10, ATTEMPTS = 50 };
    unsigned near = 0;
    for (unsigned i = 0; near < MOST && i < ATTEMPTS; i++) {
        near = 0;
        for (unsigned k = 0; k < ASKED; k++) {
            int cpu = CPU_OF(ask_where(ASKS));
            near += cpu == sched_getcpu();
        }
    }
    assert_in_range(near, MOST, ASKED);
}

static void test_near(void **state)
{
    cpu_set_t all, one;
    (void)state;
    if (!cpu_affinity_start())
        skip(); /* one CPU, or not allowed */
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    start();
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all))
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
        assert_near();
        assert_int_equal(CPUS_OF(ask_where(ASKS_AND_WAITS)), CPU_COUNT(&all));
    }
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_near(); /* it is not woken elsewhere */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_once, up, down),
        cmocka_unit_test_setup_teardown(test_who_waits_says_so, up, down),
        cmocka_unit_test_setup_teardown(test_who_waits_says_nothing, up, down),
        cmocka_unit_test_setup_teardown(test_cancelled, up, down),
        cmocka_unit_test_setup_teardown(test_near, up_eventfd, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
