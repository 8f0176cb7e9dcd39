/* Capabilities: what one grants, and that any change of it grants nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "rpc/cap.h"

static const struct cap_key keys[2] = {
    {11, "0123456789abcdef0123456789abcde"},
    {12, "another key, not like the first"},
};

static void test_grants(void **state)
{
    uint8_t cap[CAP_LEN];

    (void)state;
    cap_make(&keys[0], 100, 200, 300, CAP_READ | CAP_APPEND, 5000, cap);
    assert_int_equal(cap_check(keys, 2, cap, CAP_LEN, 100, 200, 300, CAP_READ, 4000), 0);
    assert_int_equal(cap_check(keys, 2, cap, CAP_LEN, 100, 200, 300, CAP_READ | CAP_APPEND, 5000),
                     0);
    assert_int_equal(cap_check(keys, 2, cap, CAP_LEN, 100, 200, 300, CAP_READ, 5001),
                     -ERR_CAP_EXPIRED);
    assert_int_equal(cap_check(keys, 2, cap, CAP_LEN, 101, 200, 300, CAP_READ, 4000), -ERR_CAP);
    assert_int_equal(cap_check(keys, 2, cap, CAP_LEN, 100, 201, 300, CAP_READ, 4000), -ERR_CAP);
    assert_int_equal(cap_check(keys, 2, cap, CAP_LEN, 100, 200, 301, CAP_READ, 4000), -ERR_CAP);
    cap_make(&keys[1], 100, 200, 300, CAP_READ, 5000, cap); /* the former key still counts */
    assert_int_equal(cap_check(keys, 2, cap, CAP_LEN, 100, 200, 300, CAP_READ, 4000), 0);
    assert_int_equal(cap_check(keys, 2, cap, CAP_LEN, 100, 200, 300, CAP_APPEND, 4000), -ERR_CAP);
    assert_int_equal(cap_check(keys, 1, cap, CAP_LEN, 100, 200, 300, CAP_READ, 4000), -ERR_CAP);
    assert_int_equal(cap_check(keys, 0, cap, CAP_LEN, 100, 200, 300, CAP_READ, 4000), -ERR_CAP);
}

static void test_forgeries(void **state)
{
    uint8_t good[CAP_LEN], bad[CAP_LEN];

    (void)state;
    cap_make(&keys[0], 1, 2, 3, CAP_READ, 5000, good);
    for (unsigned bit = 0; bit < CAP_LEN * 8; bit++) {
        memcpy(bad, good, CAP_LEN);
        bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(cap_check(keys, 2, bad, CAP_LEN, 1, 2, 3, CAP_READ, 4000), -ERR_CAP);
    }
    for (size_t len = 0; len < CAP_LEN; len++)
        assert_int_equal(cap_check(keys, 2, good, len, 1, 2, 3, CAP_READ, 4000), -ERR_CAP);
    assert_int_equal(cap_check(keys, 2, NULL, 0, 1, 2, 3, CAP_READ, 4000), -ERR_CAP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_grants),
                                       cmocka_unit_test(test_forgeries)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
