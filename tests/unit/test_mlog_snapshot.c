/* Metads that lack more than the leader's log still has: they get the leader's state, into an empty directory or a
 * running one, while they take snapshots of their own, and again when they die on the way. */
#include "mlog_group.h"

#define TRAILING 1024u /* entries that stay in the log behind a snapshot */

static unsigned made;

static void make(unsigned n)
{
    for (unsigned end = made + n; made < end; made++)
        group_create(made);
}

static void checkpoint(int node)
{
    struct mlog_status st;

    mlog_status(group.node[node].mlog, &st);
    uint64_t before = st.checkpoint_index;
    assert_int_equal(mlog_checkpoint(group.node[node].mlog), 0);
    WAIT_UNTIL((mlog_status(group.node[node].mlog, &st), st.checkpoint_index > before));
}

/* The leader's log no longer begins with its first entry. */
static void cut_log(void)
{
    make(TRAILING + 200);
    checkpoint(group_wait_leader());
    make(50);
}

static void test_fresh_learner(void **state)
{
    (void)state;
    made = 0;
    group_open(0);
    group_reserve();
    cut_log();
    group_join(1);
    assert_int_equal(group.node[1].restored, 1);
    make(20);
    group_same();
    group_close(1);
    group_open(1); /* from what it was given */
    make(20);
    group_same();
    assert_true(group_has(1, 0));
}

static int other_than(int leader, int but)
{
    for (int i = 0; i < 3; i++)
        if (i != leader && i != but && group.node[i].mlog)
            return i;
    return -1;
}

/* A follower was cut off for long; its state is not empty when the leader's replaces it. */
static void test_live_follower(void **state)
{
    unsigned restored = 0;

    (void)state;
    made = 0;
    group_open(0);
    group_reserve();
    group_join(1);
    group_join(2);
    make(300);
    group_same();
    for (unsigned round = 0; round < 2; round++) {
        int leader = group_wait_leader(), victim = other_than(leader, -1);
        unsigned before = group.node[victim].restored;
        group_cut((unsigned)victim, true);
        cut_log();
        assert_false(group_has(victim, made - 1));
        group_cut((unsigned)victim, false);
        WAIT_UNTIL(group_has(victim, made - 1));
        restored += group.node[victim].restored > before;
        make(20);
        group_same();
        assert_true(group_has(victim, made - 1));
    }
    assert_true(restored > 0); /* one who began to lead meanwhile still had the entries */
}

/* It comes just while the follower writes a snapshot of its own. */
static void test_during_own_snapshot(void **state)
{
    unsigned restored = 0;

    (void)state;
    made = 0;
    group_open(0);
    group_reserve();
    group_join(1);
    group_join(2);
    for (unsigned round = 0; round < 6; round++) {
        make(100);
        int leader = group_wait_leader(), victim = other_than(leader, -1);
        unsigned before = group.node[victim].restored;
        group_same();
        group_cut((unsigned)victim, true);
        cut_log();
        assert_int_equal(mlog_checkpoint(group.node[victim].mlog), 0);
        usleep(1000 * round);
        group_cut((unsigned)victim, false);
        mlog_checkpoint(group.node[victim].mlog);
        WAIT_UNTIL(group_has(victim, made - 1));
        restored += group.node[victim].restored > before;
        make(20);
        group_same();
    }
    assert_true(restored > 0);
}

/* The one that fetches ends in between, and begins anew. */
static void test_restart_between(void **state)
{
    (void)state;
    made = 0;
    group_open(0);
    group_reserve();
    cut_log();
    group_prepare(1);
    assert_int_equal(mlog_join_dir(group.node[1].dir, group.uuid, 2), 0);
    group_open(1);
    assert_int_equal(mlog_change_wait(group.node[0].mlog, MLOG_ADD, 2, 5000), 0);
    for (unsigned i = 0; i < 5; i++) {
        usleep(3000 * i);
        group_close(1);
        group_open(1);
    }
    int leader;
    WAIT_UNTIL((leader = group_leader()) >= 0 && group_role_of(leader, 2) == MLOG_VOTER);
    make(10);
    group_same();
}

#define GROUP_TEST(f) cmocka_unit_test_setup_teardown(f, group_setup, group_teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        GROUP_TEST(test_fresh_learner),
        GROUP_TEST(test_live_follower),
        GROUP_TEST(test_during_own_snapshot),
        GROUP_TEST(test_restart_between),
    };

    log_set_level(LOG_LVL_WARN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
