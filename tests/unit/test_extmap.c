/* Extent maps against a naive model: one array entry per byte of a small file. Besides the content,
 * the books that a caller keeps from callbacks must balance: live bytes and extents per chunk. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/extmap.h"

#define FILE_SIZE 20000
#define CHUNKS 6
#define HOLE 99u /* in the model; chunk 0 is what was reserved */

struct model {
    struct extmap m;
    uint64_t chunk[FILE_SIZE];
    uint32_t coff[FILE_SIZE];
    int64_t bytes[CHUNKS + 1], refs[CHUNKS + 1]; /* from callbacks and inserts */
    uint32_t tail[CHUNKS + 1];                   /* next offset to append in a chunk */
    uint64_t off, end;                           /* of the running operation */
};

static uint64_t rng_state;

static uint64_t rng(void)
{
    rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
    return rng_state >> 33;
}

static void on_gone(void *arg, const struct ext *g, int refs)
{
    struct model *x = arg;

    assert_in_range(g->chunk, 0, CHUNKS);
    assert_true(g->len > 0);
    assert_true(refs >= -1 && refs <= 1);
    /* Exactly bytes of the map that lie in the range of the operation. */
    assert_true(g->file_off >= x->off && g->file_off + g->len <= x->end);
    for (uint32_t i = 0; i < g->len; i++) {
        assert_int_equal(x->chunk[g->file_off + i], g->chunk);
        assert_int_equal(x->coff[g->file_off + i], g->chunk_off + (g->chunk ? i : 0));
        x->chunk[g->file_off + i] = HOLE;
    }
    x->bytes[g->chunk] -= g->len;
    x->refs[g->chunk] += refs;
}

static void check_all(struct model *x)
{
    int64_t bytes[CHUNKS + 1] = {0}, refs[CHUNKS + 1] = {0};
    uint64_t at = 0;
    size_t n = 0;
    struct ext e;

    while (extmap_find(&x->m, at, &e)) {
        assert_true(e.len > 0 && e.file_off >= at);
        for (; at < e.file_off; at++)
            assert_int_equal(x->chunk[at], HOLE);
        for (uint32_t i = 0; i < e.len; i++, at++) {
            assert_int_equal(x->chunk[at], e.chunk);
            assert_int_equal(x->coff[at], e.chunk_off + (e.chunk ? i : 0));
        }
        bytes[e.chunk] += e.len;
        refs[e.chunk]++;
        n++;
    }
    for (; at < FILE_SIZE; at++)
        assert_int_equal(x->chunk[at], HOLE);
    assert_int_equal(n, extmap_count(&x->m));
    assert_memory_equal(bytes, x->bytes, sizeof bytes);
    assert_memory_equal(refs, x->refs, sizeof refs);
}

static void model_insert(struct model *x, uint64_t off, uint32_t len, uint64_t chunk, uint32_t coff)
{
    struct ext e = {off, chunk, coff, len};
    bool merged = false;
    size_t before = extmap_count(&x->m);
    int64_t refs0 = 0, refs1 = 0;

    for (int i = 0; i <= CHUNKS; i++)
        refs0 += x->refs[i];
    x->off = off;
    x->end = off + len;
    assert_int_equal(extmap_insert(&x->m, &e, on_gone, x, &merged), 0);
    for (uint32_t i = 0; i < len; i++) {
        assert_int_equal(x->chunk[off + i], HOLE); /* all that was there has been told */
        x->chunk[off + i] = chunk;
        x->coff[off + i] = coff + (chunk ? i : 0);
    }
    x->bytes[chunk] += len;
    x->refs[chunk] += merged ? 0 : 1;
    for (int i = 0; i <= CHUNKS; i++)
        refs1 += x->refs[i];
    assert_int_equal((int64_t)(extmap_count(&x->m) - before), refs1 - refs0);
}

static void model_remove(struct model *x, uint64_t off, uint64_t len)
{
    x->off = off;
    x->end = len > FILE_SIZE ? UINT64_MAX : off + len;
    assert_int_equal(extmap_remove(&x->m, off, len, on_gone, x), 0);
    for (uint64_t i = off; i < FILE_SIZE && i < off + len; i++)
        assert_int_equal(x->chunk[i], HOLE);
}

static void random_op(struct model *x, unsigned max_len, unsigned remove_percent)
{
    uint64_t off = rng() % FILE_SIZE;
    uint32_t len = 1 + (uint32_t)(rng() % max_len);

    if (off + len > FILE_SIZE)
        len = (uint32_t)(FILE_SIZE - off);
    if (rng() % 100 < remove_percent) {
        if (rng() % 50 == 0)
            model_remove(x, off, UINT64_MAX - off); /* truncate */
        else
            model_remove(x, off, len);
        return;
    }
    uint64_t chunk = 1 + rng() % CHUNKS;
    uint32_t coff = x->tail[chunk];
    struct ext e;
    if (rng() % 5 == 0) {
        chunk = coff = 0;
    } else if (rng() % 3 == 0 && off > 0 && x->chunk[off - 1] < HOLE &&
               x->chunk[off - 1]) { /* continue what is before */
        chunk = x->chunk[off - 1];
        coff = x->coff[off - 1] + 1;
    } else if (rng() % 3 == 0 && extmap_find(&x->m, off + len, &e) && e.chunk &&
               e.chunk_off >= len && e.file_off >= len) { /* be continued by what is behind */
        off = e.file_off - len;
        chunk = e.chunk;
        coff = e.chunk_off - len;
    } else if (rng() % 8 == 0 && x->chunk[off] < HOLE) { /* the same bytes again */
        chunk = x->chunk[off];
        coff = x->coff[off];
    } else {
        x->tail[chunk] += len;
    }
    model_insert(x, off, len, chunk, coff);
}

static void run_random(uint64_t seed, int ops, unsigned max_len, unsigned remove_percent)
{
    struct model *x = calloc(1, sizeof *x);

    rng_state = seed;
    extmap_init(&x->m);
    for (int i = 0; i < FILE_SIZE; i++)
        x->chunk[i] = HOLE;
    for (int i = 1; i <= CHUNKS; i++)
        x->tail[i] = 1000000u * (unsigned)i;
    for (int i = 0; i < ops; i++) {
        random_op(x, max_len, remove_percent);
        if (i % 64 == 0)
            check_all(x);
    }
    check_all(x);
    model_remove(x, 0, UINT64_MAX);
    check_all(x);
    assert_int_equal(extmap_count(&x->m), 0);
    assert_int_equal(extmap_memory(&x->m), 0);
    extmap_free(&x->m);
    free(x);
}

static void test_random(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        run_random(seed, 8000, 6, 10);    /* thousands of extents: many leaves */
        run_random(seed, 8000, 10, 50);   /* leaves shrink and join */
        run_random(seed, 4000, 300, 20);  /* runs over several extents */
        run_random(seed, 2000, 8000, 20); /* runs over whole leaves */
    }
}

/* Tiny files: every transition between empty, inline and tree. */
static void test_random_small(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++)
        run_random(seed * 77, 40, seed % 2 ? FILE_SIZE : 3, 40);
}

static void test_inline_costs_nothing(void **state)
{
    struct extmap m;
    struct ext e = {0, 7, 4096, 1000}, got;
    bool merged;

    (void)state;
    extmap_init(&m);
    assert_false(extmap_find(&m, 0, &got));
    assert_int_equal(extmap_insert(&m, &e, NULL, NULL, &merged), 0);
    assert_false(merged);
    assert_int_equal(extmap_memory(&m), 0);
    assert_int_equal(sizeof m, 24);
    struct ext more = {1000, 7, 5096, 24};
    assert_int_equal(extmap_insert(&m, &more, NULL, NULL, &merged), 0);
    assert_true(merged);
    assert_int_equal(extmap_memory(&m), 0);
    assert_true(extmap_find(&m, 1023, &got));
    assert_int_equal(got.file_off, 0);
    assert_int_equal(got.len, 1024);
    assert_int_equal(got.chunk, 7);
    assert_int_equal(got.chunk_off, 4096);
    assert_false(extmap_find(&m, 1024, &got));
    extmap_free(&m);
}

static void test_merge_limit(void **state)
{
    struct extmap m;
    struct ext a = {0, 1, 0, 64u << 20}, b = {64u << 20, 1, 64u << 20, 4096};
    bool merged;

    (void)state;
    extmap_init(&m);
    assert_int_equal(extmap_insert(&m, &a, NULL, NULL, NULL), 0);
    assert_int_equal(extmap_insert(&m, &b, NULL, NULL, &merged), 0);
    assert_false(merged);
    assert_int_equal(extmap_count(&m), 2);
    extmap_free(&m);
}

/* What is reserved has no place in a chunk: neighbours merge, pieces of it stay at chunk_off 0. */
static void test_reserved(void **state)
{
    struct extmap m;
    struct ext got, r = {0, 0, 0, EXTMAP_RESERVED_MAX}, small = {1u << 30, 0, 0, 4096},
                    data = {1000, 5, 70, 100}, odd = {0, 0, 1, 10},
                    long_one = {0, 0, 0, EXTMAP_RESERVED_MAX + 1};
    bool merged;

    (void)state;
    extmap_init(&m);
    assert_int_equal(extmap_insert(&m, &odd, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(extmap_insert(&m, &long_one, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(extmap_insert(&m, &r, NULL, NULL, &merged), 0);
    assert_false(merged);
    assert_int_equal(extmap_memory(&m), 0);
    assert_int_equal(extmap_insert(&m, &small, NULL, NULL, &merged), 0);
    assert_false(merged); /* too long together */
    assert_int_equal(extmap_insert(&m, &data, NULL, NULL, &merged), 0);
    assert_int_equal(extmap_count(&m), 4);
    assert_true(extmap_find(&m, 1100, &got));
    assert_int_equal(got.file_off, 1100);
    assert_int_equal(got.chunk, 0);
    assert_int_equal(got.chunk_off, 0);
    struct ext again = {1000, 0, 0, 100};
    assert_int_equal(extmap_insert(&m, &again, NULL, NULL, &merged), 0);
    assert_true(merged); /* with one neighbour */
    assert_int_equal(extmap_count(&m), 3);
    extmap_free(&m);
}

static void test_bad_ranges(void **state)
{
    struct extmap m;
    struct ext empty = {0, 1, 0, 0}, wraps = {UINT64_MAX - 5, 1, 0, 10},
               chunk_wraps = {0, 1, UINT32_MAX - 5, 10}, last = {UINT64_MAX - 10, 1, 0, 10}, got;

    (void)state;
    extmap_init(&m);
    assert_int_equal(extmap_insert(&m, &empty, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(extmap_insert(&m, &wraps, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(extmap_insert(&m, &chunk_wraps, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(extmap_remove(&m, 10, UINT64_MAX, NULL, NULL), -EINVAL);
    assert_int_equal(extmap_count(&m), 0);
    assert_int_equal(extmap_insert(&m, &last, NULL, NULL, NULL), 0);
    assert_true(extmap_find(&m, 0, &got));
    assert_int_equal(got.file_off, UINT64_MAX - 10);
    assert_int_equal(extmap_remove(&m, 0, UINT64_MAX, NULL, NULL), 0);
    assert_int_equal(extmap_count(&m), 0);
    extmap_free(&m);
}

/* A million extents: written in order, leaves are full; at random, an insert still costs
 * microseconds. */
static void test_large(void **state)
{
    struct extmap m;
    const uint64_t n = 1000000;
    struct ext got;

    (void)state;
    extmap_init(&m);
    for (uint64_t i = 0; i < n; i++) {
        struct ext e = {i * 8192, 1 + i % 5, 0, 4096};
        assert_int_equal(extmap_insert(&m, &e, NULL, NULL, NULL), 0);
    }
    assert_int_equal(extmap_count(&m), n);
    assert_true(extmap_memory(&m) < n * 27);
    rng_state = 5;
    int64_t t0 = clock_mono();
    for (int i = 0; i < 200000; i++) {
        struct ext e = {(rng() % n) * 8192 + 4096, 9, (uint32_t)i * 4096, 4096};
        assert_int_equal(extmap_insert(&m, &e, NULL, NULL, NULL), 0);
    }
    int64_t per = (clock_mono() - t0) / 200000;
    print_message("random insert into 10^6 extents: %lld ns\n", (long long)per);
    assert_true(per < 100000); /* two orders above what it takes: catches linear behaviour only */
    assert_true(extmap_find(&m, 8192ull * 500000, &got));
    assert_int_equal(got.file_off, 8192ull * 500000);
    extmap_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_random_small),
        cmocka_unit_test(test_inline_costs_nothing),
        cmocka_unit_test(test_merge_limit),
        cmocka_unit_test(test_reserved),
        cmocka_unit_test(test_bad_ranges),
        cmocka_unit_test(test_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
