/* The work of single commands is bounded, whatever they name: a command that takes minutes stops
 * everybody, and again at each start, when it is replayed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <time.h>

#include "fsm_rig.h"

#define EXTENTS 100000u
#define NAMED 1000u
#define STEPS 65536u /* what one command may visit */

static struct {
    unsigned changed, freed;
} told;

static void on_changed(void *arg, struct fsm_chunk *c, bool grew)
{
    (void)arg;
    (void)c;
    (void)grew;
    told.changed++;
}

static void on_freed(void *arg, const struct fsm_chunk *c)
{
    (void)arg;
    (void)c;
    told.freed++;
}

static int64_t mono_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* A file of n extents that are not joined, each of a chunk of its own or all of one. */
static uint64_t fragmented(struct fsm_rig *r, const char *name, unsigned n, bool own_chunks)
{
    uint64_t ino = (uint64_t)fsm_rig_create(r, FSM_ROOT_INO, name, REG_MODE);
    uint64_t chunk = r->next_chunk++;

    for (unsigned i = 0; i < n; i++) {
        uint32_t at = own_chunks ? 0 : 100 * i;
        assert_int_equal(fsm_rig_commit(r, ino, i * 4096ull, 100, chunk, at), 0);
        if (own_chunks)
            chunk = r->next_chunk++;
    }
    return ino;
}

static int set_goal_many(struct fsm_rig *r, const uint64_t *ino, size_t n, uint32_t goal)
{
    Replfs__SetGoalOp o = REPLFS__SET_GOAL_OP__INIT;

    o.n_ino = n;
    o.ino = (uint64_t *)(uintptr_t)ino;
    o.goal = goal;
    return FSM_RIG_OP(r, SET_GOAL, set_goal, &o);
}

static void watch(struct fsm_rig *r)
{
    static const struct fsm_hooks hooks = {.chunk_changed = on_changed, .chunk_freed = on_freed};

    fsm_set_hooks(r->f, &hooks);
    told.changed = told.freed = 0;
}

/* The query of death: one's own fragmented file, named over and over. */
static void test_set_goal_names_one_file_often(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t ino = fragmented(r, "f", EXTENTS, true), named[NAMED];

    for (unsigned i = 0; i < NAMED; i++)
        named[i] = ino;
    uint64_t change = fsm_rig_attr(r, ino).change;
    watch(r);
    int64_t t0 = mono_ms();
    assert_int_equal(set_goal_many(r, named, NAMED, 3), 0);
    int64_t ms = mono_ms() - t0;
    print_message("a file of %u extents named %u times: %lld ms\n", EXTENTS, NAMED, (long long)ms);
    assert_true(ms < 1000);
    assert_int_equal(fsm_rig_attr(r, ino).goal, 3);
    assert_int_equal(fsm_rig_attr(r, ino).change, change + NAMED); /* as old metads replayed it */
}

/* What is too much for a command follows in slices. */
static void test_set_goal_follows_in_slices(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t big = fragmented(r, "big", EXTENTS, true), small = fragmented(r, "small", 10, true);
    uint64_t both[2] = {big, small};

    watch(r);
    assert_int_equal(set_goal_many(r, both, 2, 4), 0);
    assert_int_equal(fsm_rig_attr(r, big).goal, 4); /* at once, as anybody sees it */
    assert_int_equal(told.changed, 10);             /* the small one's */
    assert_true(fsm_has_work(r->f));
    unsigned slices = 0;
    for (bool more = true; more; slices++) {
        unsigned before = told.changed;
        more = fsm_work(r->f, 1000);
        assert_true(told.changed - before <= 1000);
    }
    assert_false(fsm_has_work(r->f));
    assert_int_equal(told.changed, EXTENTS + 10);
    assert_in_range(slices, EXTENTS / 1000, EXTENTS / 1000 + 2);
    /* changed again half way, twice, and removed half way */
    assert_int_equal(fsm_rig_set_goal(r, big, 2, 0), 0);
    assert_true(fsm_work(r->f, 1000));
    assert_int_equal(fsm_rig_set_goal(r, big, 5, 0), 0);
    assert_int_equal(fsm_rig_set_goal(r, big, 3, 0), 0);
    while (fsm_work(r->f, 4096))
        ;
    assert_int_equal(fsm_chunk_find(r->f, 2)->goal, 3);
    assert_int_equal(fsm_chunk_find(r->f, EXTENTS)->goal, 3);
    assert_int_equal(fsm_rig_set_goal(r, big, 2, 0), 0);
    assert_true(fsm_work(r->f, 1000));
    assert_int_equal(fsm_rig_unlink(r, FSM_ROOT_INO, "big", false), 0);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(fsm_rig_reap(r, big), 0);
    assert_false(fsm_work(r->f, 1000));
}

/* A loaded state has the goals that the slices would have led to. */
static void test_set_goal_then_load(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t big = fragmented(r, "big", EXTENTS, true);

    assert_int_equal(fsm_rig_set_goal(r, big, 4, 0), 0);
    struct fsm *g = fsm_rig_reload(r->f);
    assert_non_null(g);
    assert_int_equal(fsm_chunk_find(g, EXTENTS / 2)->goal, 4);
    assert_false(fsm_has_work(g));
    fsm_free(g);
}

/* A file of very many extents that nobody has open any more goes in several commands. */
static void test_reap_in_slices(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t ino = fragmented(r, "f", EXTENTS, true);
    unsigned commands = 0;

    assert_int_equal(fsm_rig_unlink(r, FSM_ROOT_INO, "f", false), 0);
    watch(r);
    do {
        unsigned before = told.freed;
        assert_int_equal(fsm_rig_reap(r, ino), 0);
        print_message("a ReapOp freed %u chunks\n", told.freed - before);
        assert_true(told.freed - before <= STEPS);
        commands++;
    } while (r->res.value > 0);
    assert_int_equal(told.freed, EXTENTS);
    assert_int_equal(commands, EXTENTS / STEPS + 1);
    struct fsm_counts n;
    fsm_counts(r->f, &n);
    assert_int_equal(n.orphans, 0);
    assert_int_equal(n.chunks, 0);
    assert_int_equal(n.bytes, 0);
}

/* One chunk in many files: neither a clone nor a goal looks through all of them. */
static void test_goal_of_a_chunk_in_many_files(void **state)
{
    struct fsm_rig *r = *state;
    const unsigned files = 1000, pieces = 1000;
    uint64_t first = fragmented(r, "f", pieces, true), ino[1000];
    char name[16];

    ino[0] = first;
    for (unsigned i = 1; i < files; i++) {
        snprintf(name, sizeof(name), "c%u", i);
        ino[i] = (uint64_t)fsm_rig_create(r, FSM_ROOT_INO, name, REG_MODE);
        assert_int_equal(fsm_rig_clone(r, first, 0, ino[i], 0, UINT32_MAX), 0);
    }
    int64_t t0 = mono_ms();
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(fsm_rig_set_goal(r, ino[files - 1 - i], 3, 0), 0); /* up */
        assert_int_equal(fsm_rig_set_goal(r, ino[files - 1 - i], 2, 0), 0); /* and down */
    }
    int64_t ms = mono_ms() - t0;
    print_message("40 goals of a file with %u chunks in %u files: %lld ms\n", pieces, files,
                  (long long)ms);
    assert_int_equal(fsm_chunk_find(r->f, 2)->goal, 2);
    assert_true(ms < 20000);
}

static int hole_part(struct fsm_rig *r, uint64_t ino, uint64_t off, uint64_t len)
{
    Replfs__FallocateOp o = REPLFS__FALLOCATE_OP__INIT;

    o.ino = ino;
    o.mode = 3;
    o.off = off;
    o.len = len;
    o.part = true;
    return FSM_RIG_OP(r, FALLOCATE, fallocate, &o);
}

/* The leader makes a long truncation short by holes ahead of it. They carry its number: when it comes
 * once more, they must not cut into what was written since. */
static void test_parts_of_a_truncation(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t ino = fragmented(r, "f", 1000, true);
    Replfs__Attr before = fsm_rig_attr(r, ino);

    watch(r);
    r->seq = 50;
    r->now += 1000;
    assert_int_equal(hole_part(r, ino, 10 * 4096, 990 * 4096), 0);
    assert_int_equal(told.freed, 990);
    assert_int_equal(fsm_rig_attr(r, ino).mtime_ns, before.mtime_ns);
    assert_int_equal(fsm_rig_attr(r, ino).size, before.size);
    assert_int_equal(fsm_rig_truncate(r, ino, 0), 0); /* not taken for a repetition of the hole */
    assert_false(r->res.repeated);
    assert_int_equal(told.freed, 1000);
    r->seq = 51;
    assert_int_equal(fsm_rig_commit(r, ino, 20 * 4096, 100, r->next_chunk++, 0), 0);
    r->seq = 50;
    assert_int_equal(hole_part(r, ino, 10 * 4096, 990 * 4096), 0);
    assert_int_equal(fsm_rig_truncate(r, ino, 0), 0);
    assert_true(r->res.repeated);
    r->seq = 0;
    assert_int_equal(fsm_rig_attr(r, ino).allocated, 100);
}

/* Where a range has to be cut, and what would look at too much. */
static void test_weigh(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t ino = fragmented(r, "f", 1000, true);

    assert_int_equal(fsm_slice_end(r->f, ino, 0, UINT64_MAX, 1000), UINT64_MAX);
    assert_int_equal(fsm_slice_end(r->f, ino, 0, UINT64_MAX, 100), 100 * 4096);
    assert_int_equal(fsm_slice_end(r->f, ino, 950 * 4096, UINT64_MAX, 100), UINT64_MAX);
    assert_int_equal(fsm_slice_end(r->f, ino, 50, 101 * 4096 + 50, 100), 100 * 4096);
    assert_int_equal(fsm_slice_end(r->f, 4711, 0, UINT64_MAX, 100), 0);
    Replfs__Extent e = REPLFS__EXTENT__INIT, *v[4] = {&e, &e, &e, &e};
    Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
    o.ino = ino;
    o.over = 1;
    o.extents = v;
    o.n_extents = 4;
    e.len = 1000 * 4096; /* the same region, over and over */
    assert_true(fsm_over_is_long(r->f, &o, 3999));
    assert_false(fsm_over_is_long(r->f, &o, 4000));
    Replfs__QuotaOp q = REPLFS__QUOTA_OP__INIT;
    q.ino = (uint64_t)fsm_rig_create(r, FSM_ROOT_INO, "q", DIR_MODE);
    q.max_inodes = 1000;
    assert_int_equal(FSM_RIG_OP(r, QUOTA, quota, &q), 0);
    uint64_t d = (uint64_t)fsm_rig_create(r, FSM_ROOT_INO, "d", DIR_MODE);
    for (char name[] = "a"; name[0] < 'k'; name[0]++)
        assert_true(fsm_rig_create(r, d, name, REG_MODE) > 0);
    Replfs__RenameOp m = REPLFS__RENAME_OP__INIT;
    m.parent = FSM_ROOT_INO;
    m.name = fsm_rig_bytes("d");
    m.new_parent = q.ino;
    m.new_name = fsm_rig_bytes("d");
    assert_true(fsm_move_is_long(r->f, &m, 9));
    assert_false(fsm_move_is_long(r->f, &m, 10));
    m.new_parent = FSM_ROOT_INO;
    m.new_name = fsm_rig_bytes("e");
    assert_false(fsm_move_is_long(r->f, &m, 9)); /* no quota is left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_set_goal_names_one_file_often, fsm_rig_setup,
                                        fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_set_goal_follows_in_slices, fsm_rig_setup,
                                        fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_set_goal_then_load, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_reap_in_slices, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_parts_of_a_truncation, fsm_rig_setup,
                                        fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_weigh, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_goal_of_a_chunk_in_many_files, fsm_rig_setup,
                                        fsm_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
