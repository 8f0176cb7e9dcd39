/* Placement planner: who may be picked, how picks spread, what happens when computers or room run
 * short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "metad/plan/placement.h"

#define GIB (1ull << 30)
#define NMAX 64

struct fixture {
    struct placement_node node[NMAX];
    struct placement_table t;
};

/* n chunkds, per_host on each computer, all up and with room. */
static void make(struct fixture *f, unsigned n, unsigned per_host)
{
    *f = (struct fixture){.t = {f->node, n + 1}};
    for (unsigned i = 1; i <= n; i++)
        f->node[i] = (struct placement_node){.host = (i - 1) / per_host + 1,
                                             .state = REPLFS__NODE_STATE__NODE_UP,
                                             .room = 100 * GIB,
                                             .avail = 100 * GIB,
                                             .capacity = 200 * GIB,
                                             .max_jobs = 4};
}

static unsigned pick(struct fixture *f, unsigned want, uint64_t seed, uint32_t *out)
{
    struct placement_req r = {.want = want, .headroom = want * (64ull << 20), .seed = seed};
    return placement_pick(&f->t, &r, out);
}

static void distinct_hosts_while_there_are_enough(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, 6, 2);
    for (uint64_t seed = 0; seed < 500; seed++) {
        uint32_t out[3];
        assert_int_equal(pick(&f, 3, seed, out), 3);
        assert_int_not_equal(f.node[out[0]].host, f.node[out[1]].host);
        assert_int_not_equal(f.node[out[0]].host, f.node[out[2]].host);
        assert_int_not_equal(f.node[out[1]].host, f.node[out[2]].host);
    }
}

static void two_on_one_host_one_on_another(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, 3, 2); /* 1, 2 on the first computer, 3 on the second */
    for (uint64_t seed = 0; seed < 200; seed++) {
        uint32_t out[2];
        assert_int_equal(pick(&f, 2, seed, out), 2);
        assert_true(out[0] == 3 || out[1] == 3);
    }
}

static void shares_a_host_rather_than_giving_less(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t out[4];
    make(&f, 3, 3);
    assert_int_equal(pick(&f, 2, 1, out), 2);
    assert_int_not_equal(out[0], out[1]);
    assert_int_equal(pick(&f, 4, 1, out), 3); /* never one twice */
    struct placement_req r = {.want = 2, .new_host_only = true, .seed = 1};
    assert_int_equal(placement_pick(&f.t, &r, out), 1);
}

static void skips_what_is_not_up_full_excluded_or_busy(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, 6, 1);
    f.node[1].state = REPLFS__NODE_STATE__NODE_SUSPECT;
    f.node[2].state = REPLFS__NODE_STATE__NODE_DEAD;
    f.node[3].room = PLACEMENT_TIGHT - 1;
    f.node[4].jobs = 4;
    const uint32_t exclude[] = {5};
    struct placement_req r = {.want = 6, .exclude = exclude, .nexclude = 1, .idle_only = true};
    uint32_t out[6];
    assert_int_equal(placement_pick(&f.t, &r, out), 1);
    assert_int_equal(out[0], 6);
}

static void tight_ones_only_when_needed(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, 3, 1);
    f.node[1].room = f.node[1].avail = 40ull << 20;
    for (uint64_t seed = 0; seed < 100; seed++) {
        uint32_t out[3];
        assert_int_equal(pick(&f, 2, seed, out), 2);
        assert_true(out[0] != 1 && out[1] != 1);
        assert_int_equal(pick(&f, 3, seed, out), 3);
    }
}

static void need_must_fit(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t out;
    make(&f, 1, 1);
    f.node[1].room = 64ull << 20;
    struct placement_req r = {.want = 1, .need = 60ull << 20};
    assert_int_equal(placement_pick(&f.t, &r, &out), 0);
    r.need = 40ull << 20;
    assert_int_equal(placement_pick(&f.t, &r, &out), 1);
}

static void follows_space_and_load(void **state)
{
    (void)state;
    struct fixture f;
    unsigned hits[4] = {0};
    uint32_t out;
    make(&f, 3, 1);
    f.node[1].avail = 300 * GIB;
    f.node[2].avail = 100 * GIB;
    f.node[3].avail = 100 * GIB;
    f.node[3].load = 24; /* a quarter of the chance */
    for (uint64_t seed = 0; seed < 10000; seed++) {
        assert_int_equal(pick(&f, 1, seed, &out), 1);
        hits[out]++;
    }
    /* expected 300 : 100 : 25 */
    assert_in_range(hits[1], 6600, 7500);
    assert_in_range(hits[2], 2000, 2700);
    assert_in_range(hits[3], 400, 800);
}

static void flapping_ones_when_others_do_not_suffice(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, 4, 1);
    f.node[1].flaps = true;
    f.node[2].room = 80ull << 20; /* rather a tight one */
    for (uint64_t seed = 0; seed < 200; seed++) {
        uint32_t out[4];
        assert_int_equal(pick(&f, 3, seed, out), 3);
        for (unsigned i = 0; i < 3; i++)
            assert_int_not_equal(out[i], 1);
        assert_int_equal(pick(&f, 4, seed, out), 4);
    }
}

static void same_seed_same_picks(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t a[3], b[3];
    make(&f, 20, 1);
    bool differs = false;
    for (uint64_t seed = 0; seed < 50; seed++) {
        pick(&f, 3, seed, a);
        pick(&f, 3, seed, b);
        assert_memory_equal(a, b, sizeof a);
        pick(&f, 3, seed + 1000, b);
        differs |= a[0] != b[0];
    }
    assert_true(differs);
}

static void least_loaded_leads(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t out[3];
    make(&f, 3, 1);
    f.node[1].load = 9;
    f.node[2].load = 1;
    f.node[3].load = 5;
    assert_int_equal(pick(&f, 3, 7, out), 3);
    assert_int_equal(out[0], 2);
    assert_int_equal(out[1], 3);
    assert_int_equal(out[2], 1);
}

static void counts_hosts_that_are_up(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, 6, 2);
    assert_int_equal(placement_hosts_up(&f.t), 3);
    f.node[1].state = REPLFS__NODE_STATE__NODE_DEAD;
    assert_int_equal(placement_hosts_up(&f.t), 3);
    f.node[2].state = REPLFS__NODE_STATE__NODE_SUSPECT;
    assert_int_equal(placement_hosts_up(&f.t), 2);
    assert_null(placement_node(&f.t, 0));
    assert_null(placement_node(&f.t, 7));
    assert_non_null(placement_node(&f.t, 6));
}

/* One that drains or is to be away gets nothing, also when there is no other, and no host is counted for it. */
static void leaving_ones_get_nothing(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t out[3];
    make(&f, 3, 1);
    f.node[1].draining = true;
    f.node[3].paused = true;
    for (uint64_t seed = 0; seed < 50; seed++) {
        assert_int_equal(pick(&f, 3, seed, out), 1);
        assert_int_equal(out[0], 2);
    }
    assert_int_equal(placement_hosts_up(&f.t), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaving_ones_get_nothing),
        cmocka_unit_test(distinct_hosts_while_there_are_enough),
        cmocka_unit_test(two_on_one_host_one_on_another),
        cmocka_unit_test(shares_a_host_rather_than_giving_less),
        cmocka_unit_test(skips_what_is_not_up_full_excluded_or_busy),
        cmocka_unit_test(tight_ones_only_when_needed),
        cmocka_unit_test(need_must_fit),
        cmocka_unit_test(follows_space_and_load),
        cmocka_unit_test(flapping_ones_when_others_do_not_suffice),
        cmocka_unit_test(same_seed_same_picks),
        cmocka_unit_test(least_loaded_leads),
        cmocka_unit_test(counts_hosts_that_are_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
