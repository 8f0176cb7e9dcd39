/* The lock table when many sessions come together at one file: how many entries each call looks at
 * (a count, not a time), and where it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

#include "base/error.h"
#include "metad/coherence/locks.h"

#define SESSIONS 256u
#define INO 7
#define LINEAR (4 * (LOCKS_OWNERS_PER_FILE + LOCKS_WAIT_PER_FILE))

static struct locks *t;

static int setup(void **state)
{
    (void)state;
    t = locks_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    locks_free(t);
    return 0;
}

/* Owner `owner` of the session that its number leads to. id 0: does not wait. */
static int set(uint64_t owner, uint32_t type, uint64_t start, uint64_t end, uint64_t id)
{
    struct lock_req r = {.session = 1 + owner % SESSIONS,
                         .ino = INO,
                         .owner = owner,
                         .id = id,
                         .start = start,
                         .end = end,
                         .type = type};

    return locks_set(t, &r, id != 0 ? (void *)(uintptr_t)id : NULL, 0, INT64_MAX);
}

/* The entries looked at since the last call of this. */
static uint64_t steps_since(uint64_t *before)
{
    uint64_t steps = locks_steps(t) - *before;

    *before = locks_steps(t);
    return steps;
}

static unsigned drain(int code)
{
    struct locks_done d;
    unsigned n = 0;

    while (locks_next_done(t, &d)) {
        assert_int_equal(d.code, code);
        n++;
    }
    return n;
}

static void test_waiting_is_bounded(void **state)
{
    uint64_t i;

    (void)state;
    assert_int_equal(set(1, LOCKSET_WRITE, 0, 9, 0), 0);
    for (i = 0; i < LOCKS_WAIT_PER_FILE; i++)
        assert_int_equal(set(2 + i, LOCKSET_WRITE, 0, 9, 2 + i), LOCKS_QUEUED);
    assert_int_equal(set(2 + i, LOCKSET_WRITE, 0, 9, 2 + i), -ENOLCK);
    assert_int_equal(locks_waiting(t), LOCKS_WAIT_PER_FILE);
    /* one that has its place asks again and keeps it; one that leaves makes room */
    assert_int_equal(set(2, LOCKSET_WRITE, 0, 9, 2), LOCKS_QUEUED);
    assert_int_equal(drain(-ERR_TIMEOUT), 1);
    assert_true(locks_cancel(t, 1 + 3 % SESSIONS, 3, 0));
    assert_int_equal(set(2 + i, LOCKSET_WRITE, 0, 9, 2 + i), LOCKS_QUEUED);
}

static void test_owners_are_bounded(void **state)
{
    uint64_t i;

    (void)state;
    for (i = 0; i < LOCKS_OWNERS_PER_FILE; i++)
        assert_int_equal(set(1 + i, LOCKSET_READ, 0, 9, 0), 0);
    assert_int_equal(set(1 + i, LOCKSET_READ, 0, 9, 0), -ENOLCK);
    assert_int_equal(set(1, LOCKSET_READ, 20, 29, 0), 0); /* who is one already */
    assert_int_equal(set(2, LOCKSET_NONE, 0, 9, 0), 0);
    assert_int_equal(set(1 + i, LOCKSET_READ, 0, 9, 0), 0);
}

/* Everybody holds a byte, many wait for one of them: each owner that goes has the queue looked at
 * once, not all the owners that stay for each request. */
static void test_release_is_linear(void **state)
{
    uint64_t before = 0, most = 0;

    (void)state;
    for (uint64_t i = 0; i < LOCKS_OWNERS_PER_FILE; i++)
        assert_int_equal(set(1 + i, LOCKSET_READ, i, i, 0), 0);
    for (uint64_t i = 0; i < LOCKS_WAIT_PER_FILE; i++)
        assert_int_equal(set(10000 + i, LOCKSET_WRITE, LOCKS_OWNERS_PER_FILE - 1,
                             LOCKS_OWNERS_PER_FILE - 1, 1 + i),
                         LOCKS_QUEUED);
    steps_since(&before);
    for (uint64_t i = 0; i + 1 < LOCKS_OWNERS_PER_FILE; i += 64) {
        assert_int_equal(set(1 + i, LOCKSET_NONE, 0, UINT64_MAX, 0), 0);
        uint64_t steps = steps_since(&before);
        most = steps > most ? steps : most;
    }
    printf("a release looked at %llu entries at most\n", (unsigned long long)most);
    assert_true(most <= LINEAR);
}

/* Owners of whom one thread waits while another takes locks: each such lock searches for circles on
 * behalf of everybody who waits. */
static void test_circles_are_bounded(void **state)
{
    uint64_t before = 0, most = 0;

    (void)state;
    assert_int_equal(set(1, LOCKSET_WRITE, 0, 9, 0), 0);
    for (uint64_t i = 0; i < LOCKS_WAIT_PER_FILE; i++)
        assert_int_equal(set(2 + i, LOCKSET_WRITE, 0, 9, 2 + i), LOCKS_QUEUED);
    for (uint64_t i = 0; i < LOCKS_WAIT_PER_FILE; i++) {
        steps_since(&before);
        assert_int_equal(set(2 + i, LOCKSET_READ, 1000, 1000, 0), 0);
        uint64_t steps = steps_since(&before);
        most = steps > most ? steps : most;
    }
    printf("a lock looked at %llu entries at most\n", (unsigned long long)most);
    assert_true(most <= 300000);
    /* and they still get what they wait for, one after the other */
    assert_int_equal(set(1, LOCKSET_NONE, 0, 9, 0), 0);
    assert_int_equal(drain(0), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_waiting_is_bounded),
        T(test_owners_are_bounded),
        T(test_release_is_linear),
        T(test_circles_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
