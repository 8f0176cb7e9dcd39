/* turns.c over a pipe for the device: every request is read once, and somebody always reads the next,
 * whatever the one who serves does: nothing, waits and says so, waits and does not, is cancelled. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/wait.h"
#include "fuse/turns.h"

#define THREADS 6u
#define MANY 20000u

enum what { PLAIN, LONG, WAITS, HANGS };
static struct {
    int fds[2];
    pthread_t threads[THREADS];
    atomic_uint served;
    sem_t go;            /* lets one that waits go on */
    sem_t waiting, done; /* one waits, one was served */
} rig;

static void *server(void *arg)
{
    static _Thread_local uint8_t what; /* not on the stack: it goes by cancellation */
    static _Thread_local int state;
    (void)arg;
    while (turns_read(rig.fds[0], &what, 1) == 1) {
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state); /* as libfuse does */
        turns_share(rig.fds[0]);
        if (what == LONG)
            turns_pass();
        if (what == WAITS)
            wait_begin();
        if (what >= WAITS) {
            sem_post(&rig.waiting);
            sem_wait(&rig.go);
        }
        atomic_fetch_add(&rig.served, 1);
        sem_post(&rig.done);
        pthread_setcancelstate(state, NULL);
    }
    return NULL;
}

static void ask(enum what what)
{
    uint8_t b = (uint8_t)what;
    assert_int_equal(write(rig.fds[1], &b, 1), 1);
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
    return pipe(rig.fds) || turns_start();
}

static int down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_cancel(rig.threads[i]);
        pthread_join(rig.threads[i], NULL);
    }
    turns_stop();
    close(rig.fds[0]);
    close(rig.fds[1]);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_once, up, down),
        cmocka_unit_test_setup_teardown(test_who_waits_says_so, up, down),
        cmocka_unit_test_setup_teardown(test_who_waits_says_nothing, up, down),
        cmocka_unit_test_setup_teardown(test_cancelled, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
