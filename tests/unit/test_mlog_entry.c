/* Log entries: what goes in comes out; every flipped bit, cut and wrong version is noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/byteorder.h"
#include "metad/log/entry.h"

static size_t make(uint8_t *buf, unsigned count, uint64_t index)
{
    size_t pos = ENTRY_HEADER;

    for (unsigned i = 0; i < count; i++) {
        uint8_t cmd[64];
        memset(cmd, (int)(i + 1), sizeof(cmd));
        pos = entry_put(buf, pos, cmd, i % 40);
    }
    return entry_finish(buf, pos, count, index, ENTRY_VERSION);
}

static void test_round_trip(void **state)
{
    static const unsigned counts[] = {1, 2, 7, 256};
    uint8_t buf[32768];

    (void)state;
    for (size_t k = 0; k < sizeof(counts) / sizeof(counts[0]); k++) {
        struct entry e;
        const char *why;
        const uint8_t *cmd;
        size_t len, bytes = 0;
        unsigned n = 0;
        size_t size = make(buf, counts[k], 77 + k);
        assert_int_equal(size % 8, 0);
        assert_int_equal(entry_open(buf, size, &e, &why), 0);
        assert_int_equal(e.count, counts[k]);
        assert_int_equal(e.index, 77 + k);
        while (entry_next(&e, &cmd, &len)) {
            assert_int_equal(len, n % 40);
            for (size_t i = 0; i < len; i++)
                assert_int_equal(cmd[i], (uint8_t)(n + 1));
            bytes += len;
            n++;
        }
        assert_int_equal(n, counts[k]);
        assert_int_equal(entry_size(n, bytes), size);
    }
}

static void test_every_bit_counts(void **state)
{
    uint8_t buf[1024];
    struct entry e;
    const char *why;
    size_t size = make(buf, 5, 9);

    (void)state;
    for (size_t bit = 0; bit < size * 8; bit++) {
        buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        int rv = entry_open(buf, size, &e, &why);
        assert_true(rv == -ERR_CORRUPT || (rv == -ERR_VERSION && bit / 8 >= 4 && bit / 8 < 6));
        assert_non_null(why);
        buf[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    assert_int_equal(entry_open(buf, size, &e, &why), 0);
}

static void test_cut_and_newer(void **state)
{
    uint8_t buf[1024];
    struct entry e;
    const char *why;
    size_t size = make(buf, 5, 9);

    (void)state;
    for (size_t len = 0; len < size; len++)
        assert_int_equal(entry_open(buf, len, &e, &why), -ERR_CORRUPT);
    le_put16(buf + 4, ENTRY_VERSION + 1);
    assert_int_equal(entry_open(buf, size, &e, &why), -ERR_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_bit_counts),
        cmocka_unit_test(test_cut_and_newer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
