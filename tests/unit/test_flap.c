/* How long a chunkd that died and came back may be silent the next time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "metad/plan/flap.h"

#define MINUTE (60ll * 1000000000)

static void test_longer_each_time(void **state)
{
    static const uint64_t want[] = {60, 60, 120, 240, 480, 960, 1920, 3600, 3600};
    struct flap f = {0};
    (void)state;
    for (unsigned k = 0; k < sizeof want / sizeof want[0]; k++) {
        assert_int_equal(flap_dead_ms(&f, 60000, k * MINUTE), want[k] * 1000);
        flap_returned(&f, (k + 1) * MINUTE);
    }
}

static void test_forgotten(void **state)
{
    struct flap f = {0};
    (void)state;
    for (unsigned k = 0; k < 8; k++)
        flap_returned(&f, 0);
    assert_int_equal(flap_returns(&f, 59 * MINUTE), 8);
    assert_int_equal(flap_returns(&f, 61 * MINUTE), 4);
    assert_int_equal(flap_dead_ms(&f, 60000, 121 * MINUTE), 120000);
    flap_returned(&f, 121 * MINUTE); /* goes on from what is left */
    assert_int_equal(flap_returns(&f, 122 * MINUTE), 3);
    assert_int_equal(flap_returns(&f, 100 * 60 * MINUTE), 0);
    for (unsigned k = 0; k < 100; k++)
        flap_returned(&f, 0);
    assert_int_equal(flap_dead_ms(&f, 60000, 0), 3600000);
    assert_int_equal(flap_dead_ms(&f, 7200000, 0), 7200000); /* a longer time is asked for anyway */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_longer_each_time),
        cmocka_unit_test(test_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
