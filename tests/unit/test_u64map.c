/* The map of base: each width against a plain model, by random operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "base/u64map.h"

#define IDS 400u

static uint64_t rnd(uint64_t *s)
{
    return hash_u64(*s += 0x9e3779b97f4a7c15ull);
}

static void against_model(enum u64map_width width, uint64_t seed)
{
    struct u64map m = {.width = width};
    uint64_t model[IDS + 1], mask = width == U64MAP_U64 ? UINT64_MAX : (1ull << 8 * width) - 1;
    bool in[IDS + 1] = {false};
    size_t n = 0;
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t id = 1 + rnd(&seed) % IDS, val = rnd(&seed) & mask, got = 7;
        if (rnd(&seed) % 2) {
            assert_int_equal(u64map_put(&m, id, val), !in[id]);
            n += !in[id];
            in[id] = true;
            model[id] = val;
        } else {
            assert_int_equal(u64map_del(&m, id), in[id]);
            n -= in[id];
            in[id] = false;
        }
        assert_int_equal(m.n, n);
        id = 1 + rnd(&seed) % IDS;
        assert_int_equal(u64map_get(&m, id, &got), in[id]);
        assert_true(got == (in[id] ? model[id] : 7));
    }
    size_t pos = 0, seen = 0;
    uint64_t id, val;
    for (; u64map_next(&m, &pos, &id, &val); seen++)
        assert_true(in[id] && val == model[id]);
    assert_int_equal(seen, n);
    u64map_free(&m);
    assert_false(u64map_has(&m, 1));
    assert_int_equal(m.width, width); /* and can be used again */
    assert_true(u64map_put(&m, 1, mask));
    assert_true(u64map_get(&m, 1, &val) && val == mask);
    u64map_free(&m);
}

static void widths(void **state)
{
    (void)state;
    against_model(U64MAP_SET, 1);
    against_model(U64MAP_U8, 2);
    against_model(U64MAP_U16, 3);
    against_model(U64MAP_U32, 4);
    against_model(U64MAP_U64, 5);
}

static void pointers(void **state)
{
    (void)state;
    struct u64map m = {.width = U64MAP_U64};
    int a, b;
    assert_null(u64map_get_ptr(&m, 5));
    u64map_put_ptr(&m, 5, &a);
    u64map_put_ptr(&m, UINT64_MAX, &b);
    assert_ptr_equal(u64map_get_ptr(&m, 5), &a);
    assert_ptr_equal(u64map_del_ptr(&m, 5), &a);
    assert_null(u64map_del_ptr(&m, 5));
    size_t pos = 0;
    assert_ptr_equal(u64map_next_ptr(&m, &pos), &b);
    assert_null(u64map_next_ptr(&m, &pos));
    u64map_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(widths), cmocka_unit_test(pointers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
