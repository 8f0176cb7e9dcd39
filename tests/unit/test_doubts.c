/* How often sessions may have copies checked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/clock.h"
#include "metad/plan/doubts.h"

#define MS NSEC_PER_MSEC

static unsigned taken(struct doubts *d, uint64_t session, unsigned tries, int64_t now)
{
    unsigned n = 0;

    for (unsigned i = 0; i < tries; i++)
        n += doubts_take(d, session, now);
    return n;
}

static void test_one_session(void **state)
{
    static struct doubts d;
    int64_t now = 1000 * NSEC_PER_SEC;

    (void)state;
    memset(&d, 0, sizeof d);
    assert_int_equal(taken(&d, 1, 1000, now), DOUBTS_PER_SESSION);
    assert_int_equal(taken(&d, 1, 1000, now + (DOUBTS_SESSION_MS - 1) * MS), 0);
    assert_int_equal(taken(&d, 1, 1000, now + DOUBTS_SESSION_MS * MS), 1);
    assert_int_equal(taken(&d, 2, 1000, now), DOUBTS_PER_SESSION); /* others are not concerned */
    assert_int_equal(taken(&d, 1, 1000, now + 3600 * NSEC_PER_SEC), DOUBTS_PER_SESSION);
}

static void test_all(void **state)
{
    static struct doubts d;
    int64_t now = 1000 * NSEC_PER_SEC;
    unsigned n = 0;

    (void)state;
    memset(&d, 0, sizeof d);
    for (uint64_t s = 1; s <= 1000; s++)
        n += taken(&d, s, 10, now);
    assert_true(n <= DOUBTS_IN_ALL && n >= DOUBTS_SESSIONS);
    n = 0;
    for (unsigned i = 1; i <= 100; i++)
        n += taken(&d, 5000 + i, 10, now + i * NSEC_PER_SEC);
    assert_true(n <= DOUBTS_IN_ALL + 100 * 1000 / DOUBTS_ALL_MS);
    /* long after that everything is as it was */
    assert_int_equal(taken(&d, 77, 1000, now + 7200 * NSEC_PER_SEC), DOUBTS_PER_SESSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_session),
        cmocka_unit_test(test_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
