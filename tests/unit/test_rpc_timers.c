/* The heap of deadlines against a plain array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "rpc/timers.h"

#define N 300

static uint64_t seed = 9;

static uint64_t rng(void)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return seed >> 33;
}

/* Earliest by (when, order of setting), or -1. */
static int naive_first(const int64_t when[N], const uint64_t order[N])
{
    int best = -1;

    for (int i = 0; i < N; i++) {
        if (when[i] < 0)
            continue;
        if (best < 0 || when[i] < when[best] || (when[i] == when[best] && order[i] < order[best]))
            best = i;
    }
    return best;
}

static void test_random(void **state)
{
    static struct timer t[N];
    static int64_t when[N];
    static uint64_t order[N];
    struct timers h = {0};

    (void)state;
    memset(when, 0xff, sizeof when);
    for (uint64_t i = 0; i < 50000; i++) {
        size_t k = rng() % N;
        if (rng() % 3) {
            when[k] = (int64_t)(rng() % 100);
            order[k] = i;
            timers_set(&h, &t[k], when[k]);
        } else if (rng() % 2) {
            when[k] = -1;
            timers_clear(&h, &t[k]);
        } else if (timers_first(&h)) {
            struct timer *f = timers_first(&h);
            when[f - t] = -1;
            timers_clear(&h, f);
        }
        assert_int_equal(timer_is_set(&t[k]), when[k] >= 0);
        int first = naive_first(when, order);
        assert_ptr_equal(timers_first(&h), first < 0 ? NULL : &t[first]);
    }
    timers_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
