/* Locks that check themselves: what is right passes, what is wrong ends the process with both places named. lock.c is
 * part of this program with its checks on, whatever the build. Each wrong thing is done in a child. */
#define LOCK_CHECK 1
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include "proto/base/lock.c"
#include "base/clock.h"

static struct lock ids = LOCK_INITIALIZER(IDS), leases, sessions, again = LOCK_INITIALIZER(LEASES);
static struct lock listing = LOCK_INITIALIZER(LISTING); /* may be held over a wait */
static struct rwlock fsm;
static struct cond changed = COND_INITIALIZER;

static int setup(void **state)
{
    (void)state;
    lock_init(&leases, LOCK_LEASES);
    lock_init(&sessions, LOCK_SESSIONS);
    rwlock_init(&fsm, LOCK_FSM, true);
    return 0;
}

static void test_in_order(void **state)
{
    (void)state;
    rwlock_read(&fsm);
    lock_acquire(&ids);
    {
        LOCK_SCOPE(&leases);
        LOCK_SCOPE(&sessions);
        lock_assert_held(&leases);
        lock_assert_held(&sessions);
    }
    rwlock_release(&fsm); /* in any order */
    lock_release(&ids);
    lock_assert_waitable("nobody");
}

static void *signals(void *arg)
{
    LOCK_SCOPE(&leases);
    *(bool *)arg = true;
    cond_signal(&changed);
    return NULL;
}

static void test_condition(void **state)
{
    bool done = false;
    pthread_t t;

    (void)state;
    lock_acquire(&leases);
    assert_int_equal(pthread_create(&t, NULL, signals, &done), 0);
    while (!done)
        cond_wait(&changed, &leases);
    lock_assert_held(&leases);
    assert_false(cond_sleep_until(&changed, &leases, clock_mono() - 1));
    lock_assert_held(&leases);
    lock_release(&leases);
    pthread_join(t, NULL);
}

static void release_leases(void *arg)
{
    (void)arg;
    lock_release(&leases);
}

static void *waits_for_ever(void *arg)
{
    (void)arg;
    lock_acquire(&leases);
    pthread_cleanup_push(release_leases, NULL);
    for (;;)
        cond_wait(&changed, &leases);
    pthread_cleanup_pop(1);
    return NULL;
}

/* The cleanup handler of a thread that is cancelled in its wait has the lock. */
static void test_cancelled(void **state)
{
    pthread_t t;

    (void)state;
    assert_int_equal(pthread_create(&t, NULL, waits_for_ever, NULL), 0);
    pthread_cancel(t);
    pthread_join(t, NULL);
    assert_true(lock_try(&leases));
    lock_release(&leases);
}

/* Runs fn in a child; what it said, with the signal that ended it. */
static int ended_by(void (*fn)(void), char *said, size_t cap)
{
    int fds[2], status;
    ssize_t n;
    size_t len = 0;

    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_DUMPABLE, 0); /* no core */
        signal(SIGABRT, SIG_DFL);
        dup2(fds[1], 2);
        fn();
        _exit(0);
    }
    close(fds[1]);
    while ((n = read(fds[0], said + len, cap - 1 - len)) > 0)
        len += (size_t)n;
    said[len] = 0;
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void out_of_order(void)
{
    lock_acquire(&sessions);
    lock_acquire(&leases);
}
static void two_of_a_class(void)
{
    lock_acquire(&leases);
    lock_acquire(&again);
}
static void twice(void)
{
    lock_acquire(&leases);
    lock_acquire(&leases);
}
static void behind_a_try(void)
{
    if (lock_try(&sessions))
        rwlock_write(&fsm);
}
static void not_held(void)
{
    lock_acquire(&leases);
    lock_release(&sessions);
}
static void not_ours(void)
{
    lock_assert_held(&leases);
}
static void over_a_call(void)
{
    lock_acquire(&listing);
    lock_assert_waitable("first call"); /* fine */
    lock_acquire(&ids);
    lock_assert_waitable("second call");
}
static void over_a_condition(void)
{
    lock_acquire(&ids);
    lock_acquire(&leases);
    cond_sleep_until(&changed, &leases, clock_mono());
}

static void test_wrong_ones(void **state)
{
    static const struct {
        void (*fn)(void);
        const char *says[3];
    } wrong[] = {
        {out_of_order, {"out of order: LEASES at ", "SESSIONS is held since ", __FILE__}},
        {two_of_a_class, {"out of order: LEASES", "LEASES is held", __FILE__}},
        {twice, {"taken twice", "LEASES", __FILE__}},
        {behind_a_try, {"out of order: FSM", "SESSIONS is held", __FILE__}},
        {not_held, {"released, but not held", "SESSIONS", __FILE__}},
        {not_ours, {"should be held", "LEASES", __FILE__}},
        {over_a_call, {"second call at ", "IDS is held since ", __FILE__}},
        {over_a_condition, {"another lock held", "IDS is held since ", __FILE__}},
    };
    char said[1024];

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(ended_by(wrong[i].fn, said, sizeof(said)), SIGABRT);
        for (int k = 0; k < 3; k++)
            assert_non_null(strstr(said, wrong[i].says[k]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_condition),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_wrong_ones),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
