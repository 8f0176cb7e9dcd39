/* The state machine's hash table, ordered set and arena against plain arrays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "metad/fsm/fsm_slab.h"
#include "metad/fsm/fsm_table.h"

enum { N = 20000 };

static uint64_t rnd_state;
static uint32_t rnd(uint32_t below)
{
    rnd_state = rnd_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(rnd_state >> 33) % below;
}

/* Handles 1..N; a handle's key is a scrambled number, so inserts come in no order. */
static uint32_t links[N + 1];

static uint64_t key_of(void *ctx, uint32_t h)
{
    (void)ctx;
    return hash_u64(h) >> 20;
}
static uint32_t *link_of(void *ctx, uint32_t h)
{
    (void)ctx;
    return &links[h];
}
static uint64_t hash_of(void *ctx, uint32_t h)
{
    (void)ctx;
    return h % 7 == 0 ? 7 : hash_u64(h); /* some chains are long */
}

static void check_set(const struct fsm_oset *s, const struct fsm_oset_ops *ops, const bool *in,
                      uint32_t count)
{
    struct fsm_opos pos = {0, 0};
    uint64_t last = 0;
    uint32_t h, seen = 0;
    while ((h = fsm_oset_next(s, &pos))) {
        assert_true(in[h] && key_of(NULL, h) > last);
        last = key_of(NULL, h);
        seen++;
    }
    assert_int_equal(seen, count);
    assert_int_equal(s->count, count);
    for (unsigned k = 0; k < 50; k++) { /* seek: the least key above any value */
        uint64_t after = hash_u64(rnd(1u << 30)) >> 20, best = UINT64_MAX;
        for (uint32_t i = 1; i <= N; i++) {
            if (in[i] && key_of(NULL, i) > after && key_of(NULL, i) < best)
                best = key_of(NULL, i);
        }
        pos = fsm_oset_seek(s, ops, after);
        h = fsm_oset_next(s, &pos);
        assert_true(h ? key_of(NULL, h) == best : best == UINT64_MAX);
    }
}

static void test_oset(void **state)
{
    (void)state;
    static bool in[N + 1];
    size_t heap = 0;
    struct fsm_oset s;
    struct fsm_oset_ops ops = {key_of, NULL, &heap};
    uint32_t count = 0;
    fsm_oset_init(&s);
    rnd_state = 1;
    for (unsigned phase = 0; phase < 6; phase++) { /* grow, shrink, grow ... to nothing */
        uint32_t want = phase == 5 ? 0 : phase & 1 ? 300 : N * 3 / 4;
        while (count != want) {
            uint32_t h = 1 + rnd(N);
            if (count < want && !in[h]) {
                assert_int_equal(fsm_oset_insert(&s, &ops, h), 0);
                in[h] = true;
                count++;
            } else if (count < want) {
                assert_int_equal(fsm_oset_insert(&s, &ops, h), -EEXIST);
            } else if (in[h]) {
                fsm_oset_remove(&s, &ops, h);
                in[h] = false;
                count--;
            }
        }
        check_set(&s, &ops, in, count);
        assert_true(heap <= 4096 + count * 16ul); /* shrinks with its content */
    }
    assert_int_equal(heap, 0);
    fsm_oset_fini(&s, &heap);
}

static bool has(const struct fsm_htab *t, uint32_t want)
{
    uint32_t h = fsm_htab_first(t, hash_of(NULL, want));
    while (h && h != want)
        h = links[h];
    return h == want;
}

static void test_htab(void **state)
{
    (void)state;
    static bool in[N + 1];
    const struct fsm_htab_ops ops = {link_of, hash_of};
    struct fsm_htab t;
    fsm_htab_init(&t);
    rnd_state = 2;
    for (unsigned k = 0; k < 4 * N; k++) {
        uint32_t h = 1 + rnd(N);
        if (in[h] && rnd(3) == 0) {
            fsm_htab_remove(&t, &ops, NULL, h);
            in[h] = false;
        } else if (!in[h]) {
            fsm_htab_insert(&t, &ops, NULL, h);
            in[h] = true;
        }
    }
    uint32_t count = 0;
    for (uint32_t h = 1; h <= N; h++) {
        assert_int_equal(has(&t, h), in[h]);
        count += in[h];
    }
    assert_int_equal(t.count, count);
    fsm_htab_fini(&t);
}

static void test_arena(void **state)
{
    (void)state;
    struct fsm_arena a;
    static uint32_t handle[N];
    static uint16_t size[N];
    fsm_arena_init(&a);
    rnd_state = 3;
    for (unsigned k = 0; k < 10 * N; k++) {
        uint32_t i = rnd(N);
        if (handle[i]) {
            const uint8_t *p = fsm_arena_at(&a, handle[i]);
            for (unsigned b = 0; b < size[i]; b++)
                assert_int_equal(p[b], (uint8_t)i); /* nobody else wrote here */
            fsm_arena_release(&a, handle[i], size[i]);
        }
        size[i] = (uint16_t)(20 + rnd(255));
        handle[i] = fsm_arena_alloc(&a, size[i]);
        assert_true(handle[i] != 0);
        memset(fsm_arena_at(&a, handle[i]), (int)(uint8_t)i, size[i]);
    }
    assert_true(fsm_arena_memory(&a) < 24u << 20); /* pieces are used again */
    fsm_arena_fini(&a);
}

/* Past the segments that are made one by one, in regions of many. */
static void test_segments(void **state)
{
    (void)state;
    enum { BYTES = 1 << 20, SEGS = 100 }; /* 32 alone, two regions of 32, and a part of one */
    uint8_t **seg = NULL;
    uint32_t n = 0;

    for (unsigned i = 0; i < SEGS; i++) {
        fsm_seg_push(&seg, &n, BYTES);
        assert_int_equal(seg[i][0] | seg[i][BYTES - 1], 0);
        memset(seg[i], (int)i + 1, 16);
        memset(seg[i] + BYTES - 16, (int)i + 1, 16);
    }
    assert_int_equal(n, SEGS);
    assert_true((uintptr_t)seg[32] % (2u << 20) == 0); /* huge pages can be had */
    for (unsigned i = 0; i < SEGS; i++)
        assert_true(seg[i][0] == i + 1 && seg[i][BYTES - 1] == i + 1);
    fsm_seg_fini(&seg, &n, BYTES);
    assert_true(!seg && n == 0);
    fsm_seg_push(&seg, &n, BYTES); /* and again */
    fsm_seg_fini(&seg, &n, BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_oset), cmocka_unit_test(test_htab),
                                       cmocka_unit_test(test_arena),
                                       cmocka_unit_test(test_segments)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
