/* Extent maps without memory: an operation that fails changes nothing and calls nobody. The module
 * is compiled in here once more, with allocators that fail on demand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int fail_after = -1; /* so many allocations succeed, the next fails; -1: all succeed */

static int fails(void)
{
    if (fail_after < 0)
        return 0;
    return fail_after-- == 0;
}

static void *flaky_malloc(size_t n)
{
    return fails() ? NULL : malloc(n);
}

static void *flaky_calloc(size_t n, size_t m)
{
    return fails() ? NULL : calloc(n, m);
}

static void *flaky_realloc(void *p, size_t n)
{
    return fails() ? NULL : realloc(p, n);
}

#define malloc flaky_malloc
#define calloc flaky_calloc
#define realloc flaky_realloc
#include "proto/base/extmap.c"
#undef malloc
#undef calloc
#undef realloc

#define MAX_EXTENTS 4096

static struct ext before_op[MAX_EXTENTS], after_op[MAX_EXTENTS];

static size_t dump(const struct extmap *m, struct ext *out)
{
    uint64_t at = 0;
    size_t n = 0;

    while (n < MAX_EXTENTS && extmap_find(m, at, &out[n])) {
        at = out[n].file_off + out[n].len;
        n++;
    }
    assert_int_equal(n, extmap_count(m));
    return n;
}

static int told;

static void on_gone(void *arg, const struct ext *gone, int refs)
{
    (void)arg;
    (void)gone;
    (void)refs;
    told++;
}

static uint64_t seed = 42;

static uint64_t rng(void)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return seed >> 33;
}

static int one_op(struct extmap *m, uint64_t off, uint32_t len, bool insert)
{
    struct ext e = {off, 1 + off % 3, (uint32_t)(off * 8), len};

    told = 0;
    return insert ? extmap_insert(m, &e, on_gone, NULL, NULL)
                  : extmap_remove(m, off, len, on_gone, NULL);
}

static void test_nothing_changes(void **state)
{
    struct extmap m;
    int failures = 0;

    (void)state;
    extmap_init(&m);
    for (int i = 0; i < 6000; i++) {
        uint64_t off = rng() % 5000;
        uint32_t len = 1 + (uint32_t)(rng() % 4);
        bool insert = rng() % 4 != 0;
        for (int k = 0;; k++) {
            size_t n = dump(&m, before_op);
            fail_after = k;
            int rc = one_op(&m, off, len, insert);
            bool spent = fail_after < 0; /* the failure happened (or was absorbed by a join) */
            fail_after = -1;
            if (rc == 0)
                break;
            failures++;
            assert_true(spent);
            assert_int_equal(rc, -ENOMEM);
            assert_int_equal(told, 0);
            assert_int_equal(dump(&m, after_op), n);
            assert_memory_equal(before_op, after_op, n * sizeof before_op[0]);
        }
    }
    assert_true(failures > 100);
    extmap_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nothing_changes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
