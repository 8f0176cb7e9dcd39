/* Clusters of one to five metads' logs: growing online, a leader that dies, is cut off or steps down, restarts, and
 * what a program may rely on meanwhile: nothing acknowledged is lost, nothing is done twice or differently. */
#include "mlog_group.h"

static void grow(unsigned to)
{
    group_open(0);
    group_reserve();
    for (unsigned i = 1; i < to; i++)
        group_join(i);
}

static void test_one_leads_at_once(void **state)
{
    (void)state;
    group_open(0);
    uint64_t id;
    assert_true(mlog_is_leader(group.node[0].mlog));
    assert_true(mlog_may_read(group.node[0].mlog));
    assert_true(mlog_leader(group.node[0].mlog, &id));
    assert_int_equal(id, 1);
    assert_int_equal(mlog_id(group.node[0].mlog), 1);
    assert_int_equal(mlog_step_down(group.node[0].mlog, 1000), -ENOENT);
    assert_true(mlog_is_leader(group.node[0].mlog));
}

static void test_grow_to_three(void **state)
{
    (void)state;
    group_open(0);
    group_reserve();
    for (unsigned i = 0; i < 50; i++)
        group_create(i);
    group_join(1);
    for (unsigned i = 50; i < 100; i++)
        group_create(i);
    group_join(2);
    for (unsigned i = 100; i < 150; i++)
        group_create(i);
    group_same();
    for (unsigned i = 0; i < 150; i++)
        assert_true(group_has(2, i));
    int leader = group_wait_leader();
    uint64_t id;
    for (unsigned i = 0; i < 3; i++) {
        WAIT_UNTIL(mlog_leader(group.node[i].mlog, &id) && id == (uint64_t)leader + 1);
        assert_true((int)i == leader || !mlog_may_read(group.node[i].mlog));
    }
    assert_int_equal(mlog_change_wait(group.node[leader].mlog, MLOG_ADD, 2, 1000), -EEXIST);
    assert_int_equal(mlog_change_wait(group.node[leader].mlog, MLOG_REMOVE, 9, 1000), -ENOENT);
    assert_int_equal(mlog_change_wait(group.node[(leader + 1) % 3].mlog, MLOG_ADD, 5, 1000),
                     -ERR_NOT_LEADER);
}

/* Five times the leader ends; the others go on, and it comes back. */
static void test_leader_dies(void **state)
{
    unsigned n = 0;

    (void)state;
    grow(3);
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned k = 0; k < 20; k++)
            group_create(n++);
        int leader = group_wait_leader();
        int64_t t0 = clock_mono();
        group_close((unsigned)leader);
        int next = group_wait_leader();
        print_message("new leader after %d ms\n", (int)((clock_mono() - t0) / NSEC_PER_MSEC));
        assert_int_not_equal(next, leader);
        for (unsigned k = 0; k < 20; k++)
            group_create(n++);
        group_open((unsigned)leader);
        group_same();
    }
    for (unsigned i = 0; i < 3; i++)
        for (unsigned k = 0; k < n; k++)
            assert_true(group_has((int)i, k));
}

/* What it was writing when it ended, and what waited behind that, is not taken for stored: it starts again. */
static void test_follower_ends_while_it_writes(void **state)
{
    unsigned n = 0;

    (void)state;
    grow(3);
    for (unsigned round = 0; round < 20; round++) {
        int leader = group_wait_leader();
        unsigned follower = (unsigned)(leader + 1) % 3;
        for (unsigned i = 0; i < 3000; i++) {
            group_send_create(leader, n++, false);
            if (i % 100 == 0)
                sched_yield();
        }
        group_close(follower); /* at any moment */
        group_open(follower);  /* fails when its log ends before the mark */
    }
    group_same();
}

/* One that leads does not begin a checkpoint that takes long: it hands over, and makes it when it follows. */
static void test_hands_over_before_a_long_fork(void **state)
{
    struct mlog_status st;
    unsigned n = 0, changes = 0;
    uint64_t term;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        group.node[i].checkpoint_bytes = 8192;
        group.node[i].long_fork_us = 1; /* every fork is long */
    }
    grow(3);
    mlog_status(group.node[group_wait_leader()].mlog, &st);
    for (term = st.term; changes < 3 && n < 20000; n++) {
        group_create(n);
        mlog_status(group.node[group_wait_leader()].mlog, &st);
        changes += st.term != term;
        term = st.term;
    }
    assert_int_equal(changes, 3);
    group_same();
    for (unsigned i = 0; i < n; i++)
        assert_true(group_has(0, i));
}

/* A leader that is cut off does not answer for the state, and its proposals come to nothing. */
static void test_leader_cut_off(void **state)
{
    (void)state;
    grow(3);
    for (unsigned round = 0; round < 3; round++) {
        int old = group_wait_leader();
        group_cut((unsigned)old, true);
        int next = -1;
        WAIT_UNTIL((next = group_leader()) >= 0 && next != old);
        assert_false(mlog_may_read(group.node[old].mlog));
        int rc = group_propose_create(old, 1000 + round);
        assert_true(rc == -ERR_NOT_LEADER);
        for (unsigned k = 0; k < 20; k++)
            group_create(100 * round + k);
        assert_false(group_has(old, 100 * round));
        group_cut((unsigned)old, false);
        group_same();
        assert_true(group_has(old, 100 * round + 19));
        assert_false(group_has(old, 1000 + round));
    }
}

/* What is in the way of a segment that ends with `last`: libraft cannot cut one there. */
static void in_the_way(unsigned i, uint64_t last, bool there)
{
    char path[256];

    for (unsigned first = 1; first <= 3; first++) {
        snprintf(path, sizeof(path), "%s/log/%016u-%016llu", group.node[i].dir, first,
                 (unsigned long long)last);
        assert_int_equal(there ? mkdir(path, 0700) : rmdir(path), 0);
    }
}

/* Entries that cannot be dropped for another leader's: what comes in their place does not count. */
static void test_drop_fails(void **state)
{
    struct mlog_status st;

    (void)state;
    grow(3);
    unsigned old = (unsigned)group_wait_leader();
    group_create(1);
    group_same();
    mlog_status(group.node[old].mlog, &st);
    uint64_t last = st.last;
    group_cut(old, true);
    assert_int_equal(group_send_create((int)old, 1000, false), 0);
    int next = -1;
    WAIT_UNTIL((next = group_leader()) >= 0 && next != (int)old);
    WAIT_UNTIL((mlog_status(group.node[old].mlog, &st), st.last > last));
    for (unsigned k = 2; k < 20; k++)
        group_create(k);
    in_the_way(old, last, true);
    group_cut(old, false);
    WAIT_UNTIL(atomic_load(&group.node[old].failed) == 1);
    mlog_status(group.node[old].mlog, &st);
    assert_non_null(st.error);
    in_the_way(old, last, false);
    group_close(old);
    struct mlog_config cfg = {.dir = group.node[old].dir};
    struct mlog *m;
    assert_int_equal(fsm_new(&cfg.fsm), 0);
    assert_int_equal(mlog_open(&cfg, GROUP_PATIENCE_MS, &m), -ERR_CORRUPT); /* nor does it later */
    fsm_free(cfg.fsm);
    assert_true(group_has(next, 19));
    assert_false(group_has(next, 1000));
}

/* At no moment two of them may read. */
struct two {
    atomic_bool stop;
    atomic_uint seen, looks;
};

static void *watch_two(void *arg)
{
    struct two *t = arg;

    while (!atomic_load(&t->stop)) {
        unsigned n = 0;
        for (unsigned i = 0; i < 3; i++)
            n += mlog_may_read(group.node[i].mlog);
        if (n > 1) {
            /* they were asked one after the other: a second look at the first ones decides */
            n = 0;
            for (unsigned i = 3; i-- > 0;)
                n += mlog_may_read(group.node[i].mlog);
            if (n > 1)
                atomic_fetch_add(&t->seen, 1);
        }
        atomic_fetch_add(&t->looks, 1);
    }
    return NULL;
}

static void test_step_down(void **state)
{
    struct two t = {.stop = false};
    pthread_t th;
    unsigned n = 0;

    (void)state;
    grow(3);
    assert_int_equal(pthread_create(&th, NULL, watch_two, &t), 0);
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned k = 0; k < 5; k++)
            group_create(n++);
        int leader = group_wait_leader();
        int rc = mlog_step_down(group.node[leader].mlog, 5000);
        assert_true(rc == 0 || rc == -ERR_TIMEOUT || rc == -ERR_BUSY || rc == -ERR_NOT_LEADER);
        group_wait_leader();
    }
    atomic_store(&t.stop, true);
    pthread_join(th, NULL);
    assert_true(t.looks > 1000);
    assert_int_equal(t.seen, 0);
    group_same();
}

static void test_all_restart(void **state)
{
    (void)state;
    grow(3);
    for (unsigned k = 0; k < 50; k++)
        group_create(k);
    group_same();
    for (unsigned i = 0; i < 3; i++)
        group_close(i);
    for (unsigned i = 0; i < 3; i++)
        group_open(i);
    for (unsigned k = 50; k < 60; k++)
        group_create(k);
    group_same();
    for (unsigned k = 0; k < 60; k++)
        assert_true(group_has(1, k));
}

static void test_shrink(void **state)
{
    (void)state;
    grow(5);
    group_same();
    for (unsigned k = 0; k < 20; k++)
        group_create(k);
    for (unsigned left = 5; left > 1; left--) {
        int leader = group_wait_leader();
        unsigned victim = 0;
        while (!group.node[victim].mlog || (int)victim == leader)
            victim++;
        assert_int_equal(mlog_change_wait(group.node[leader].mlog, MLOG_REMOVE, victim + 1, 5000),
                         0);
        group_close(victim);
        group_create(100 + left);
    }
    assert_int_equal(mlog_change_wait(group.node[group_wait_leader()].mlog, MLOG_REMOVE,
                                      (uint64_t)group_wait_leader() + 1, 1000),
                     -EINVAL);
    group_same();
}

/* Without a majority nothing is answered. */
static void test_minority(void **state)
{
    (void)state;
    grow(3);
    int leader = group_wait_leader();
    for (unsigned i = 0; i < 3; i++)
        if ((int)i != leader)
            group_close(i);
    WAIT_UNTIL(!mlog_is_leader(group.node[leader].mlog));
    assert_int_equal(group_propose_create(leader, 7), -ERR_NOT_LEADER);
    assert_false(mlog_may_read(group.node[leader].mlog));
}

#define GROUP_TEST(f) cmocka_unit_test_setup_teardown(f, group_setup, group_teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        GROUP_TEST(test_one_leads_at_once),
        GROUP_TEST(test_grow_to_three),
        GROUP_TEST(test_leader_dies),
        GROUP_TEST(test_follower_ends_while_it_writes),
        GROUP_TEST(test_leader_cut_off),
        GROUP_TEST(test_drop_fails),
        GROUP_TEST(test_hands_over_before_a_long_fork),
        GROUP_TEST(test_step_down),
        GROUP_TEST(test_all_restart),
        GROUP_TEST(test_shrink),
        GROUP_TEST(test_minority),
    };

    log_set_level(LOG_LVL_WARN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
