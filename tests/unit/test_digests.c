/* Metads compare their states: several states with one log, one of which is changed behind fsm_apply's back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/log.h"
#include "metad/log/digests.h"
#include "tests/unit/fsm_rig.h"
#include "tests/unit/tree.h"
#include "tests/unit/tsan_forks.h"
#include "tests/unit/wait.h"

#define METADS 3

static char dirs[METADS][64];
static struct fsm_rig rig[METADS];
static struct digests *dig[METADS];
static bool stopped[METADS], leaves_out[METADS];

/* ---- one log for all ---- */

static void apply_all(const Replfs__Command *cmd)
{
    for (int k = 0; k < METADS; k++) {
        fsm_apply(rig[k].f, ++rig[k].index, cmd, &rig[k].res);
        assert_int_equal(rig[k].res.code, 0);
        if (cmd->op->op_case != REPLFS__META_OP__OP_CHECK || stopped[k])
            continue;
        fsm_wrlock(rig[k].f);
        stopped[k] = digests_check(dig[k], rig[k].index, cmd->op->check, !leaves_out[k]) != 0;
        fsm_unlock(rig[k].f);
    }
}

#define ALL(CASE, field, body)                                                                     \
    do {                                                                                           \
        Replfs__MetaOp op_ = REPLFS__META_OP__INIT;                                                \
        Replfs__Command cmd_ = REPLFS__COMMAND__INIT;                                              \
        op_.op_case = REPLFS__META_OP__OP_##CASE;                                                  \
        op_.field = (body);                                                                        \
        cmd_.op = &op_;                                                                            \
        apply_all(&cmd_);                                                                          \
    } while (0)

static void make_file(const char *name)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = FSM_ROOT_INO;
    c.name = fsm_rig_bytes(name);
    c.mode = REG_MODE;
    c.ino = rig[0].next_ino++;
    ALL(CREATE, create, &c);
}

static bool has_digest(int k)
{
    uint64_t position, digest;
    return digests_mine(dig[k], &position, &digest) && position == rig[k].index;
}

/* A CheckOp of this leader; then all who still run have a digest, and have told the leader. */
static void check_by(int leader)
{
    Replfs__CheckOp check;
    uint64_t position, digest;

    assert_true(digests_next(dig[leader], &check));
    ALL(CHECK, check, &check);
    for (int k = 0; k < METADS; k++) {
        if (stopped[k] || leaves_out[k])
            continue;
        WAIT_UNTIL(has_digest(k));
        assert_true(digests_mine(dig[k], &position, &digest));
        digests_told(dig[leader], (uint32_t)k + 1, position, digest);
    }
}

static int setup(void **state)
{
    Replfs__FeatureOp feature = REPLFS__FEATURE_OP__INIT;
    Replfs__MetadOp metad = REPLFS__METAD_OP__INIT;
    Replfs__ReserveOp reserve = REPLFS__RESERVE_OP__INIT;

    (void)state;
    memset(stopped, 0, sizeof(stopped));
    memset(leaves_out, 0, sizeof(leaves_out));
    for (int k = 0; k < METADS; k++) {
        rig[k] = (struct fsm_rig){.next_ino = 2};
        assert_int_equal(fsm_new(&rig[k].f), 0);
        assert_true(tree_make(dirs[k], sizeof(dirs[k]), "/tmp", "digests"));
        dig[k] = digests_new(rig[k].f, (uint32_t)k + 1, dirs[k]);
    }
    feature.level = 1;
    ALL(FEATURE, feature, &feature);
    reserve.ino_upto = 1000;
    ALL(RESERVE, reserve, &reserve);
    for (metad.id = 2; metad.id <= METADS; metad.id++)
        ALL(METAD, metad, &metad);
    for (int k = 0; k < 20; k++) {
        char name[16];
        snprintf(name, sizeof(name), "f%d", k);
        make_file(name);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int k = 0; k < METADS; k++) {
        digests_free(dig[k]);
        fsm_free(rig[k].f);
        tree_remove(dirs[k]);
    }
    return 0;
}

/* One inode's mode, with no command that says so. */
static void plant(int k)
{
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct fsm_result res;

    s.ino = 5;
    s.valid = REPLFS__SETATTR_OP__VALID__MODE;
    s.mode = 0600;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &s;
    cmd.op = &op;
    fsm_apply(rig[k].f, rig[k].index, &cmd, &res);
    assert_int_equal(res.code, 0);
}

static void test_same(void **state)
{
    (void)state;
    Replfs__CheckOp check;

    assert_true(digests_next(dig[0], &check));
    assert_int_equal(check.position, 0); /* nothing to compare yet */
    for (int k = 0; k < 4; k++) {
        check_by(0);
        make_file(k == 0 ? "a" : k == 1 ? "b" : k == 2 ? "c" : "d");
    }
    assert_true(digests_next(dig[0], &check));
    assert_int_equal(check.n_digest, METADS);
    for (int k = 0; k < METADS; k++) {
        assert_false(stopped[k]);
        assert_int_equal(digests_barred(dirs[k]), 0);
    }
}

static void test_planted_in_follower(void **state)
{
    (void)state;
    check_by(0);
    plant(2);
    check_by(0);
    assert_false(stopped[2]); /* at that position they are told apart, at the next they know it */
    check_by(0);
    assert_false(stopped[0]);
    assert_false(stopped[1]);
    assert_true(stopped[2]);
    assert_int_equal(digests_barred(dirs[0]), 0);
    assert_int_equal(digests_barred(dirs[2]), -ERR_CORRUPT);
}

/* The leader itself: the others are the majority. */
static void test_planted_in_leader(void **state)
{
    (void)state;
    plant(0);
    check_by(0);
    check_by(0);
    assert_true(stopped[0]);
    assert_false(stopped[1]);
    assert_false(stopped[2]);
}

/* One is down, two differ: the third will say who is right; the leader may be wrong, and is not to stop the others. */
static void test_no_majority(void **state)
{
    (void)state;
    stopped[1] = true;
    plant(2);
    check_by(0);
    check_by(0);
    assert_false(stopped[0]);
    assert_false(stopped[2]);
}

/* A leader that cannot afford a digest: the other two are most of three, and agree or not. */
static void test_left_out(void **state)
{
    (void)state;
    Replfs__CheckOp check;

    leaves_out[0] = true;
    check_by(0);
    assert_true(digests_next(dig[0], &check));
    assert_int_equal(check.n_digest, 2);
    assert_true(check.position != 0);
    check_by(0);
    assert_false(stopped[1] || stopped[2]);
    leaves_out[0] = false;
    leaves_out[1] = true; /* another one leads, and the former leader is compared */
    plant(0);
    check_by(1);
    check_by(1);
    assert_false(stopped[0]); /* one against one */
    leaves_out[1] = false;
    check_by(1);
    check_by(1);
    assert_true(stopped[0]);
    assert_false(stopped[1] || stopped[2]);
}

static void test_judge(void **state)
{
    (void)state;
    const uint64_t same[] = {7, 7, 7}, one[] = {7, 8, 7}, leader[] = {8, 7, 7}, two[] = {7, 8};

    assert_int_equal(digests_judge(7, same, 3, 3), DIGESTS_SAME);
    assert_int_equal(digests_judge(7, one, 3, 3), DIGESTS_OTHERS_DIFFER);
    assert_int_equal(digests_judge(8, one, 3, 3), DIGESTS_DIFFER);
    assert_int_equal(digests_judge(8, leader, 3, 3), DIGESTS_DIFFER);
    assert_int_equal(digests_judge(7, leader, 3, 3), DIGESTS_OTHERS_DIFFER);
    assert_int_equal(digests_judge(7, two, 2, 2), DIGESTS_OTHERS_DIFFER);
    assert_int_equal(digests_judge(8, two, 2, 2), DIGESTS_DIFFER);
    assert_int_equal(digests_judge(9, NULL, 0, 0), DIGESTS_SAME);
    /* two of three have told, and the leader is the one that differs: who is right comes with the third */
    assert_int_equal(digests_judge(7, leader, 2, 3), DIGESTS_OTHERS_DIFFER);
    assert_int_equal(digests_judge(8, leader, 2, 3), DIGESTS_OTHERS_DIFFER);
    assert_int_equal(digests_judge(8, same, 2, 3), DIGESTS_DIFFER);
}

/* Too few have told: a majority of those is none of all. */
static void test_too_few(void **state)
{
    (void)state;
    Replfs__CheckOp check;
    uint64_t position, digest;

    check_by(0);
    assert_true(digests_mine(dig[1], &position, &digest));
    assert_true(digests_next(dig[1], &check)); /* a new leader, whom nobody has told */
    assert_int_equal(check.position, 0);
    digests_told(dig[1], 9, position, digest); /* no member */
    assert_true(digests_next(dig[1], &check));
    assert_int_equal(check.position, 0);
    digests_told(dig[1], 1, position, digest);
    assert_true(digests_next(dig[1], &check));
    assert_int_equal(check.position, position);
    assert_int_equal(check.metad[0], 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_same, setup, teardown),
        cmocka_unit_test_setup_teardown(test_planted_in_follower, setup, teardown),
        cmocka_unit_test_setup_teardown(test_planted_in_leader, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_majority, setup, teardown),
        cmocka_unit_test_setup_teardown(test_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_few, setup, teardown),
        cmocka_unit_test(test_judge),
    };
    log_init("test_digests", LOG_LVL_ERROR, "/dev/null");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
