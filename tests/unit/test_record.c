/* Record headers: what is encoded is decoded, and nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>
#include "base/crc32c.h"
#include "base/error.h"
#include "base/byteorder.h"
#include "chunkd/store/extents.h"
#include "chunkd/store/record.h"

static uint8_t crcs[4 * 256];

static struct record sample(uint8_t type, uint32_t len)
{
    for (size_t i = 0; i < sizeof crcs; i++)
        crcs[i] = (uint8_t)(i * 37);
    return (struct record){.type = type,
                           .len = len,
                           .chunk = 0x1122334455667788,
                           .session = 9,
                           .ino = 10,
                           .file_off = 1ull << 40,
                           .gen = 11,
                           .chunk_off = 4096,
                           .time = 12,
                           .crcs = crcs};
}

static uint32_t seed(void)
{
    return record_seed(record_base("0f8fad5b-d9cb-469f-a165-70867728950e", 3, 1), 5, 4096);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const uint32_t lens[] = {1, 4095, 4096, 4097, 8192, RECORD_PAYLOAD_MAX};
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        uint8_t h[RECORD_HEADER_MAX];
        struct record in = sample(RECORD_DATA, lens[i]), out;
        uint32_t n = record_encode(&in, seed(), h);
        assert_int_equal(n, record_header_len(lens[i]));
        assert_int_equal(n % RECORD_ALIGN, 0);
        assert_int_equal(record_decode(h, n, seed(), &out), 0);
        assert_int_equal(out.header_len, n);
        assert_int_equal(out.len, in.len);
        assert_true(out.chunk == in.chunk && out.session == in.session && out.ino == in.ino);
        assert_true(out.file_off == in.file_off && out.gen == in.gen && out.time == in.time);
        assert_int_equal(out.chunk_off, in.chunk_off);
        assert_memory_equal(out.crcs, crcs, 4 * crc_blocks(in.len));
        assert_true(record_size(&out) >= n + in.len && record_size(&out) < n + in.len + 8);
        assert_int_equal(record_decode(h, n - 1, seed(), &out), -EAGAIN);
        assert_int_equal(record_decode(h, 79, seed(), &out), -EAGAIN);
    }
}

static void test_every_bit_counts(void **state)
{
    (void)state;
    uint8_t h[RECORD_HEADER_MAX];
    struct record in = sample(RECORD_COPY, 9000), out;
    uint32_t n = record_encode(&in, seed(), h);
    for (uint32_t bit = 0; bit < 8 * n; bit++) {
        h[bit / 8] ^= (uint8_t)(1 << bit % 8);
        int rc = record_decode(h, sizeof h, seed(), &out);
        assert_true(rc == -ERR_CORRUPT);
        h[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(record_decode(h, n, seed(), &out), 0);
}

static void test_bound_to_its_place(void **state)
{
    (void)state;
    uint8_t h[RECORD_HEADER_MAX];
    struct record in = sample(RECORD_DATA, 100), out;
    uint32_t base = record_base("0f8fad5b-d9cb-469f-a165-70867728950e", 3, 1);
    uint32_t n = record_encode(&in, record_seed(base, 5, 4096), h);
    assert_int_equal(record_decode(h, n, record_seed(base, 5, 4104), &out), -ERR_CORRUPT);
    assert_int_equal(record_decode(h, n, record_seed(base, 6, 4096), &out), -ERR_CORRUPT);
    base = record_base("0f8fad5b-d9cb-469f-a165-70867728950e", 4, 1);
    assert_int_equal(record_decode(h, n, record_seed(base, 5, 4096), &out), -ERR_CORRUPT);
    /* The text that record.h documents. */
    const char text[] = "0f8fad5b-d9cb-469f-a165-70867728950e/1f/0/ab/1000";
    base = record_base("0f8fad5b-d9cb-469f-a165-70867728950e", 31, 0);
    assert_int_equal(record_seed(base, 0xab, 4096), crc32c(0, text, strlen(text)));
}

static void test_impossible_fields(void **state)
{
    (void)state;
    uint8_t h[RECORD_HEADER_MAX];
    struct record out, in = sample(RECORD_DATA, 100);
    in.chunk = 0;
    record_encode(&in, seed(), h);
    assert_int_equal(record_decode(h, sizeof h, seed(), &out), -ERR_CORRUPT);
    in = sample(RECORD_DATA, 100);
    in.chunk_off = UINT32_MAX - 50;
    record_encode(&in, seed(), h);
    assert_int_equal(record_decode(h, sizeof h, seed(), &out), -ERR_CORRUPT);
    in = sample(6, 0); /* unknown type */
    record_encode(&in, seed(), h);
    assert_int_equal(record_decode(h, sizeof h, seed(), &out), -ERR_CORRUPT);
    in = sample(RECORD_DELETE, 0);
    record_encode(&in, seed(), h);
    assert_int_equal(record_decode(h, RECORD_FIXED, seed(), &out), 0);
    in = sample(RECORD_DEAD, 1u << 31);
    in.chunk = in.gen = 0;
    record_encode(&in, seed(), h);
    assert_int_equal(record_decode(h, RECORD_FIXED, seed(), &out), 0);
    assert_true(record_size(&out) == (1ull << 31) + RECORD_FIXED);
}

static void test_newer_version(void **state)
{
    (void)state;
    uint8_t h[RECORD_HEADER_MAX];
    struct record out, in = sample(RECORD_DELETE, 0);
    record_encode(&in, seed(), h);
    le_put16(h + 4, 2);
    uint32_t crc = crc32c(crc32c(seed(), h, 76), h + 80, 0);
    le_put32(h + 76, crc);
    assert_int_equal(record_decode(h, sizeof h, seed(), &out), -ERR_VERSION);
}

/* ---- extents ---- */

static int balance;

static void count(void *arg, const struct ext *e, bool live)
{
    (void)arg;
    balance += live ? (int)e->len : -(int)e->len;
}

static void test_extents(void **state)
{
    (void)state;
    struct extents x = {0};
    struct ext a = {0, 100, 1, 128}, b = {100, 50, 1, 400}, c = {200, 50, 2, 128};
    balance = 0;
    assert_int_equal(extents_put(&x, &a, count, NULL), 0);
    assert_int_equal(extents_put(&x, &a, count, NULL), -1);
    assert_int_equal(extents_put(&x, &c, count, NULL), 1);
    assert_int_equal(x.len, 100); /* a gap ends the chunk */
    assert_int_equal(extents_put(&x, &b, count, NULL), 1);
    assert_int_equal(x.len, 150);
    b = (struct ext){150, 50, 3, 128};
    assert_int_equal(extents_put(&x, &b, count, NULL), 2);
    assert_int_equal(x.len, 250);
    assert_int_equal(x.n, 4);
    assert_int_equal(extents_find(&x, 149), 1);
    assert_int_equal(extents_find(&x, 150), 2);
    assert_int_equal(extents_find(&x, 250), 4);
    b = (struct ext){90, 70, 4, 128}; /* overlaps three: they leave */
    assert_int_equal(extents_put(&x, &b, count, NULL), 0);
    assert_int_equal(x.n, 2);
    assert_int_equal(x.len, 0);
    assert_int_equal(balance, 120);
    extents_clear(&x, count, NULL);
    assert_int_equal(balance, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),         cmocka_unit_test(test_every_bit_counts),
        cmocka_unit_test(test_bound_to_its_place), cmocka_unit_test(test_impossible_fields),
        cmocka_unit_test(test_newer_version),      cmocka_unit_test(test_extents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
