/* What several metads tell each other of themselves with their messages: the feature level that each program knows, so
 * that the cluster's level is raised only when all of them can, and digests of the state, so that one whose state is not
 * that of the others stops. */
#include "mlog_group.h"

#include "metad/fsm/fsm_cluster.h"
#include "metad/log/mlog_build.h"
#include "names_file.h"

static void raise_level(void)
{
    Replfs__FeatureOp feature = REPLFS__FEATURE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;

    feature.level = FSM_FEATURE_MAX;
    op.op_case = REPLFS__META_OP__OP_FEATURE;
    op.feature = &feature;
    group_log(&op);
}

static void three(void)
{
    for (unsigned i = 0; i < 3; i++) {
        group.node[i].check_ms =
            1000; /* time enough for digests: only those of one position are compared */
        if (i == 0)
            group_open(0);
        else
            group_join(i);
    }
    group_reserve();
    raise_level();
    group_log_metads(3);
}

static unsigned level_of(unsigned i, uint32_t *behind)
{
    fsm_rdlock(group.node[i].fsm);
    unsigned level = fsm_upgrade_to(group.node[i].fsm, behind);
    fsm_unlock(group.node[i].fsm);
    return level;
}

static bool held_back(unsigned leader, unsigned level, uint32_t by)
{
    uint32_t behind;

    return level_of(leader, &behind) == level && behind == by;
}

/* Whoever leads knows what the others know, also when one of them has an older program by now. */
static void test_levels(void **state)
{
    (void)state;
    three();
    unsigned leader = (unsigned)group_wait_leader(), old = (leader + 1) % 3;
    WAIT_UNTIL(held_back(leader, FSM_FEATURE_MAX, 0));
    atomic_store(&group.node[old].mlog->net->newest, FSM_FEATURE_MAX - 1);
    WAIT_UNTIL(held_back(leader, FSM_FEATURE_MAX - 1, old + 1));
    atomic_store(&group.node[old].mlog->net->newest, FSM_FEATURE_MAX);
    WAIT_UNTIL(held_back(leader, FSM_FEATURE_MAX, 0));
    (void)mlog_step_down(group.node[leader].mlog, 5000);
    WAIT_UNTIL(group_leader() >= 0 && held_back((unsigned)group_leader(), FSM_FEATURE_MAX, 0));
}

/* Behind its log's back. */
static void tamper(unsigned i)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__SetattrOp set = REPLFS__SETATTR_OP__INIT;
    struct mlog_status st;
    struct fsm_result res;

    set.ino = FSM_ROOT_INO;
    set.valid = REPLFS__SETATTR_OP__VALID__MODE;
    set.mode = 0700;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &set;
    cmd.op = &op;
    cmd.time_ns = clock_wall();
    fsm_wrlock(group.node[i].fsm);
    mlog_status(group.node[i].mlog, &st);
    fsm_apply(group.node[i].fsm, (st.applied << 8) + 255, &cmd, &res);
    fsm_unlock(group.node[i].fsm);
    assert_int_equal(res.code, 0);
}

/* It stops, and does not start again; the others go on. */
static void test_deviating(void **state)
{
    struct mlog_status st;

    (void)state;
    three();
    group_create(1);
    group_same();
    unsigned bad = ((unsigned)group_wait_leader() + 1) % 3;
    tamper(bad);
    struct group_node *n = &group.node[bad];
    WAIT_UNTIL(atomic_load(&n->failed) == 1);
    mlog_status(n->mlog, &st);
    assert_non_null(st.error);
    group_create(2);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(atomic_load(&group.node[i].failed), i == bad);
    group_close(bad);
    assert_int_equal(digests_barred(n->dir), -ERR_CORRUPT);
    group_create(3);
    group_same();
}

/* A directory that is made from the state of three has one metad, in no lower a term than was asked for. */
static void test_recovered(void **state)
{
    struct mlog_status st;
    struct mlog_build *b;
    char path[MLOG_PATH];
    uint8_t *data;
    size_t len;

    (void)state;
    three();
    group_create(1);
    struct group_node *n = &group.node[group_wait_leader()];
    assert_int_equal(mlog_checkpoint(n->mlog), 0);
    WAIT_UNTIL((mlog_status(n->mlog, &st), st.checkpoint_index > 0));
    assert_int_equal(mlog_ckpt_path(path, sizeof(path), n->dir, st.checkpoint_index), 0);
    assert_int_equal(mlog_dir_read(path, &data, &len), 0);
    for (unsigned i = 0; i < 3; i++)
        group_close(i);
    n = &group.node[0];
    snprintf(n->dir, sizeof(n->dir), "%s/recovered", group_base);
    assert_int_equal(mlog_build_begin(n->dir, st.checkpoint_index, &b), 0);
    assert_int_equal(mlog_build_state(b, data, len), 0);
    assert_int_equal(mlog_build_finish(b, group.uuid, 5000), 0);
    mlog_build_free(b);
    free(data);
    group_open(0);
    assert_int_equal(group_wait_leader(), 0);
    assert_true(group_has(0, 1));
    mlog_status(n->mlog, &st);
    assert_true(st.term >= 5000);
    assert_int_equal(fsm_metads(n->fsm), 1);
    assert_int_equal(fsm_metad_new(n->fsm), 4); /* nobody gets their numbers */
}

/* One of three begins a new life: the others follow its term, nothing is lost, and each time is above the one before. */
static void test_new_life(void **state)
{
    struct mlog_status st;
    uint64_t before = 0, term;
    char uuid[37];

    (void)state;
    three();
    group_create(1);
    for (unsigned k = 0; k < 3; k++) { /* metadata1 and metadata2 in turn */
        assert_int_equal(mlog_new_life(group.node[2].dir, uuid, &term), -ERR_LOCKED);
        for (unsigned i = 0; i < 3; i++)
            group_close(i);
        assert_int_equal(mlog_new_life(group.node[2].dir, uuid, &term), 0);
        assert_string_equal(uuid, group.uuid);
        assert_true(names_life(term) > names_life(before));
        before = term;
        for (unsigned i = 0; i < 3; i++)
            group_open(i);
        mlog_status(group.node[group_wait_leader()].mlog, &st);
        assert_true(st.term >= term && names_life(st.term) == names_life(term));
        group_create(2 + k);
    }
    for (unsigned k = 1; k <= 4; k++)
        assert_true(group_has(group_wait_leader(), k));
    group_same();
}

#define GROUP_TEST(f) cmocka_unit_test_setup_teardown(f, group_setup, group_teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        GROUP_TEST(test_levels),
        GROUP_TEST(test_deviating),
        GROUP_TEST(test_recovered),
        GROUP_TEST(test_new_life),
    };

    log_set_level(LOG_LVL_WARN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
