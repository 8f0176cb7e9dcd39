/* The planner of compaction: what is worth it, what has to wait, and where live ranges go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "metad/plan/compact.h"

#define MB (1u << 20)

static struct compact_chunk chunk(void)
{
    return (struct compact_chunk){.len = 64 * MB,
                                  .live = 20 * MB,
                                  .owners = 1,
                                  .sealed = true,
                                  .copies = 2,
                                  .good = 2,
                                  .need = 2};
}

static enum compact_verdict judged(struct compact_chunk c)
{
    const char *why;
    enum compact_verdict v = compact_judge(&c, &why);
    assert_true((v == COMPACT_LATER) == (why != NULL));
    return v;
}

static void test_judged(void **state)
{
    (void)state;
    struct compact_chunk c = chunk();
    assert_int_equal(judged(c), COMPACT_NOW);
    c.live = 32 * MB;
    assert_int_equal(judged(c), COMPACT_NOT);
    c.live--;
    assert_int_equal(judged(c), COMPACT_NOW);
    c.owners = COMPACT_OWNERS_MAX + 1;
    assert_int_equal(judged(c), COMPACT_NOT);
    c = chunk();
    c.len = COMPACT_DEAD_MIN;
    c.live = 1;
    assert_int_equal(judged(c), COMPACT_NOT);
    c.len++;
    assert_int_equal(judged(c), COMPACT_NOW);
    c = chunk();
    c.live = UINT32_MAX; /* named over and over */
    assert_int_equal(judged(c), COMPACT_NOT);
}

static void test_waits(void **state)
{
    (void)state;
    struct compact_chunk c = chunk();
    c.sealed = false;
    assert_int_equal(judged(c), COMPACT_LATER);
    c = chunk();
    c.busy = true;
    assert_int_equal(judged(c), COMPACT_LATER);
    c = chunk();
    c.copies = 3; /* one is bad, or away */
    assert_int_equal(judged(c), COMPACT_LATER);
    c = chunk();
    c.need = 3;
    assert_int_equal(judged(c), COMPACT_LATER);
    c = chunk();
    c.copies = c.good = c.need = 0;
    assert_int_equal(judged(c), COMPACT_LATER);
    const char *why;
    assert_true(compact_may_begin(0, 0, &why));
    assert_false(compact_may_begin(COMPACT_RUNNING_MAX, 0, &why));
    assert_false(compact_may_begin(0, 1, &why));
    assert_non_null(why);
}

static void test_ranges(void **state)
{
    (void)state;
    struct compact_ranges r = {0};
    uint32_t to;
    assert_true(compact_ranges_finish(&r));
    assert_false(compact_ranges_find(&r, 0, 1, &to));
    assert_true(compact_ranges_add(&r, 5000, 100));
    assert_true(compact_ranges_add(&r, 1000, 500));
    assert_true(compact_ranges_add(&r, 1500, 10));  /* continues it */
    assert_true(compact_ranges_add(&r, 1200, 200)); /* once more, by another extent */
    assert_true(compact_ranges_add(&r, 4990, 20));
    assert_true(compact_ranges_finish(&r));
    assert_int_equal(r.n, 2);
    assert_int_equal(r.total, 510 + 110);
    assert_true(compact_ranges_find(&r, 1000, 510, &to));
    assert_int_equal(to, 0);
    assert_true(compact_ranges_find(&r, 1509, 1, &to));
    assert_int_equal(to, 509);
    assert_true(compact_ranges_find(&r, 5000, 100, &to));
    assert_int_equal(to, 520);
    assert_false(compact_ranges_find(&r, 999, 2, &to));
    assert_false(compact_ranges_find(&r, 1509, 2, &to));
    assert_false(compact_ranges_find(&r, 1510, 1, &to));
    assert_false(compact_ranges_find(&r, 5100, 1, &to));
    assert_false(compact_ranges_find(&r, 2000, UINT32_MAX, &to));
    compact_ranges_free(&r);
}

/* Against a table of bytes, in any order. */
static void test_ranges_of_chance(void **state)
{
    (void)state;
    enum { N = 5000 };
    static bool live[N + 100];
    for (unsigned round = 0; round < 200; round++) {
        struct compact_ranges r = {0};
        uint32_t sum = 0, to, next = 0;
        srand(round);
        for (unsigned i = 0; i < sizeof live; i++)
            live[i] = false;
        for (unsigned i = 0; i < round; i++) {
            uint32_t off = (uint32_t)rand() % N, len = 1 + (uint32_t)rand() % 99;
            assert_true(compact_ranges_add(&r, off, len));
            for (uint32_t k = 0; k < len; k++)
                live[off + k] = true;
        }
        assert_true(compact_ranges_finish(&r));
        for (uint32_t i = 0; i < sizeof live; i++) {
            assert_true(compact_ranges_find(&r, i, 1, &to) == live[i]);
            if (live[i])
                assert_int_equal(to, next++);
            sum += live[i];
        }
        assert_int_equal(r.total, sum);
        compact_ranges_free(&r);
    }
}

static void test_too_many(void **state)
{
    (void)state;
    struct compact_ranges r = {0};
    for (unsigned again = 0; again < 3; again++) /* the same ones, of three clones */
        for (uint32_t i = 0; i < COMPACT_RANGES_MAX; i++)
            assert_true(compact_ranges_add(&r, 4096 * i, 1000));
    assert_true(compact_ranges_finish(&r));
    assert_int_equal(r.n, COMPACT_RANGES_MAX);
    compact_ranges_free(&r);
    for (uint32_t i = 0; i <= COMPACT_RANGES_MAX; i++)
        assert_true(compact_ranges_add(&r, 3 * i, 1));
    assert_false(compact_ranges_finish(&r));
    compact_ranges_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judged),   cmocka_unit_test(test_waits),
        cmocka_unit_test(test_ranges),   cmocka_unit_test(test_ranges_of_chance),
        cmocka_unit_test(test_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
