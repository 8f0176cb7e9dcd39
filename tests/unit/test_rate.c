/* Limits in bytes a second of things that begin whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "metad/plan/rate.h"

#define SEC 1000000000ll
#define MIB (1ull << 20)

/* Bytes begun in so many seconds, looked at every step. */
static uint64_t moved(uint64_t limit, uint64_t piece, int seconds, int64_t step)
{
    struct rate r = {0};
    uint64_t sum = 0;
    for (int64_t now = SEC; now < (seconds + 1) * SEC; now += step)
        while (rate_free(&r, limit, now) && sum < 1000000 * MIB) {
            rate_owe(&r, limit, piece);
            sum += piece;
        }
    return sum;
}

static void test_average(void **state)
{
    (void)state;
    for (uint64_t piece = MIB; piece <= 64 * MIB; piece *= 8) {
        uint64_t sum = moved(20 * MIB, piece, 100, SEC / 10);
        assert_in_range(sum, 2000 * MIB - 300 * MIB, 2006 * MIB + piece);
    }
    assert_in_range(moved(20 * MIB, 64 * MIB, 100, SEC / 10), 1900 * MIB, 2070 * MIB);
}

static void test_none(void **state)
{
    (void)state;
    assert_true(moved(0, 64 * MIB, 1, SEC) >= 1000000 * MIB);
}

/* What was owed under a limit is forgotten without one, and time that is not used is not saved. */
static void test_changes(void **state)
{
    struct rate r = {0};
    (void)state;
    assert_true(rate_free(&r, MIB, SEC));
    rate_owe(&r, MIB, 100 * MIB);
    assert_false(rate_free(&r, MIB, 50 * SEC));
    assert_true(rate_free(&r, 0, 51 * SEC));
    assert_true(rate_free(&r, MIB, 52 * SEC));
    assert_true(rate_free(&r, MIB, 1000 * SEC));
    rate_owe(&r, MIB, 2 * MIB);
    assert_false(rate_free(&r, MIB, 1001 * SEC));
    assert_true(rate_free(&r, MIB, 1002 * SEC));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_average),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
