/* Incarnations: which places of a history a state knows as its own past. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tests/unit/fsm_rig.h"

static bool known(struct fsm_rig *r, uint64_t incarnation, uint64_t position)
{
    return fsm_mark_known(r->f, &(struct fsm_mark){incarnation, position});
}

static void test_own_past(void **state)
{
    struct fsm_rig *r = *state;
    struct fsm_mark m;
    uint64_t before[4];

    fsm_mark(r->f, &m);
    assert_int_equal(m.incarnation, 0);
    assert_true(known(r, 0, 99)); /* who was never told anything */
    assert_int_equal(fsm_rig_incarnation(r, 0), EINVAL);
    assert_int_equal(fsm_rig_incarnation(r, 11), 0);
    fsm_rig_create(r, 1, "a", REG_MODE);
    fsm_mark(r->f, &m);
    assert_int_equal(m.incarnation, 11);
    assert_int_equal(m.position, r->index);
    assert_true(fsm_mark_known(r->f, &m));
    assert_false(known(r, 11, r->index + 1)); /* the log lost its end */
    assert_int_equal(fsm_rig_incarnation(r, 11), EEXIST);
    assert_int_equal(fsm_rig_incarnation(r, 22), 0);
    assert_true(fsm_mark_known(r->f, &m));
    assert_false(known(r, 11, r->index)); /* there 22 began here */
    assert_true(known(r, 22, r->index));
    assert_false(known(r, 33, 1));
    assert_int_equal(fsm_rig_incarnation(r, 33), 0);
    assert_int_equal(fsm_ancestors(r->f, before, 4), 2);
    assert_int_equal(before[0], 22);
    assert_int_equal(before[1], 11);
    assert_int_equal(fsm_ancestors(r->f, before, 1), 1);
}

/* Two states with one past: each is foreign to what the other became. */
static void test_fork(void **state)
{
    struct fsm_rig *r = *state;
    assert_int_equal(fsm_rig_incarnation(r, 11), 0);
    struct fsm_rig older = *r;
    struct fsm_mark m;

    older.f = fsm_rig_reload(r->f);
    assert_int_equal(fsm_rig_incarnation(r, 22), 0);
    fsm_rig_create(r, 1, "later", REG_MODE);
    fsm_mark(r->f, &m);
    assert_false(fsm_mark_known(older.f, &m));
    assert_int_equal(fsm_rig_incarnation(&older, 23), 0);
    assert_false(fsm_mark_known(older.f, &m));
    fsm_mark(older.f, &m);
    assert_false(fsm_mark_known(r->f, &m));
    fsm_free(fsm_rig_reload(older.f));
    fsm_rig_close(&older);
}

static void test_bounded(void **state)
{
    struct fsm_rig *r = *state;
    struct fsm_mark last;

    for (uint64_t k = 1; k <= FSM_INCARNATIONS_MAX + 10; k++)
        assert_int_equal(fsm_rig_incarnation(r, k), 0);
    fsm_mark(r->f, &last);
    assert_true(known(r, 1, 3)); /* forgotten, but as old as that */
    assert_false(known(r, 1, last.position));
    assert_true(known(r, 11, last.position - FSM_INCARNATIONS_MAX + 1));
    struct fsm *g = fsm_rig_reload(r->f);
    assert_true(fsm_mark_known(g, &last));
    fsm_free(g);
}

static int future(struct fsm_rig *r, uint64_t incarnation, uint64_t position, uint64_t before,
                  uint64_t chunk_upto, bool astray)
{
    Replfs__FutureOp o = REPLFS__FUTURE_OP__INIT;
    o.incarnation = incarnation;
    o.position = position;
    o.before = &before;
    o.n_before = before != 0;
    o.chunk_upto = chunk_upto;
    o.astray = astray;
    return FSM_RIG_LEADER_OP(r, FUTURE, future, &o);
}

static int recover(struct fsm_rig *r)
{
    Replfs__RecoverOp o = REPLFS__RECOVER_OP__INIT;
    return FSM_RIG_LEADER_OP(r, RECOVER, recover, &o);
}

static void test_futures(void **state)
{
    struct fsm_rig *r = *state;
    const uint64_t base = 1ull << 40;
    struct fsm_future u;

    assert_int_equal(fsm_rig_incarnation(r, 11), 0);
    assert_int_equal(fsm_rig_session_open(r, 500), 0);
    assert_int_equal(future(r, 11, 1, 0, 0, false), 0); /* ours */
    assert_false(fsm_behind(r->f));
    assert_int_equal(fsm_rig_incarnation(r, 22), 0);
    assert_int_equal(fsm_rig_reserve(r, base + 10, 0), EPERM); /* a client may not */
    assert_int_equal(future(r, 33, 9, 11, base + 99, false), 0);
    assert_true(fsm_behind(r->f));
    assert_true(fsm_future_known(r->f, &(struct fsm_mark){33, 12}));
    assert_true(fsm_chunk_foreign(r->f, base, 1));
    assert_true(fsm_chunk_foreign(r->f, base - FSM_IDS_BLOCK, 1)); /* a block given in part */
    assert_false(fsm_chunk_foreign(r->f, base - FSM_IDS_BLOCK - 1, 1));
    assert_true(fsm_chunk_foreign(r->f, 5, 500)); /* may have gone on there */
    assert_false(fsm_chunk_foreign(r->f, base + 99, 1));
    assert_int_equal(fsm_rig_session_open(r, 501), 0);
    assert_false(fsm_chunk_foreign(r->f, 5, 501));
    fsm_free(fsm_rig_reload(r->f));
    assert_int_equal(recover(r), 0);
    assert_false(fsm_behind(r->f));
    assert_true(fsm_chunk_foreign(r->f, base, 1));
    /* more of the same is lost too; something else is not */
    assert_int_equal(future(r, 44, 20, 33, base + 200, false), 0);
    assert_false(fsm_behind(r->f));
    assert_int_equal(future(r, 55, 20, 11, base + 200, true), 0); /* a mistake that is over */
    assert_false(fsm_behind(r->f));
    assert_int_equal(future(r, 66, 20, 0, 0, false), 0);
    assert_true(fsm_behind(r->f));
    assert_true(fsm_chunk_foreign(r->f, 1, 1)); /* no common past in sight: it may be any */
    assert_true(fsm_future_at(r->f, 3, &u));
    assert_int_equal(u.incarnation, 66);
    assert_false(u.accepted);
    assert_false(fsm_future_at(r->f, 4, &u));
    struct fsm *g = fsm_rig_reload(r->f);
    assert_true(fsm_behind(g));
    fsm_free(g);
}

/* The end of 11 was lost, and that was accepted: 22 went on from what was left. When an older copy of 22's directory
 * is started, what it lacks is no part of what was lost then, although both have 11 before them. */
static void test_lost_twice(void **state)
{
    struct fsm_rig *r = *state;

    assert_int_equal(fsm_rig_incarnation(r, 11), 0);
    assert_int_equal(fsm_rig_incarnation(r, 22), 0);
    assert_int_equal(future(r, 11, 1000, 0, 0, false), 0);
    assert_int_equal(recover(r), 0);
    assert_false(fsm_behind(r->f));
    assert_int_equal(fsm_rig_incarnation(r, 33), 0);
    assert_int_equal(future(r, 22, 2000, 11, 0, false), 0);
    assert_true(fsm_behind(r->f));
    assert_int_equal(recover(r), 0);
    /* what grew from 22 may have grown from what is left of it */
    assert_int_equal(future(r, 44, 3000, 22, 0, false), 0);
    assert_true(fsm_behind(r->f));
}

static void test_too_many_futures(void **state)
{
    struct fsm_rig *r = *state;
    for (uint64_t k = 1; k <= FSM_FUTURES_MAX; k++)
        assert_int_equal(future(r, 1000 + k, 1, 0, k * 10, false), 0);
    assert_int_equal(future(r, 5000, 1, 0, 5, false), ENOSPC);
    assert_true(fsm_behind(r->f));
    fsm_free(fsm_rig_reload(r->f));
    assert_int_equal(recover(r), 0);
    assert_int_equal(future(r, 5000, 1, 0, 5, false), 0);
    assert_true(fsm_behind(r->f));
}

static void test_gap(void **state)
{
    struct fsm_rig *r = *state;
    const uint64_t base = 1ull << 40;
    Replfs__ReserveOp o = REPLFS__RESERVE_OP__INIT;

    assert_int_equal(fsm_rig_incarnation(r, 11), 0);
    o.chunk_upto = base + 300;
    o.chunk_from = base + 200; /* somebody else gave those below */
    assert_int_equal(FSM_RIG_LEADER_OP(r, RESERVE, reserve, &o), 0);
    assert_true(fsm_chunk_foreign(r->f, base, 1));
    assert_true(fsm_chunk_foreign(r->f, base + 199, 1));
    assert_false(fsm_chunk_foreign(r->f, base + 200, 1));
    assert_false(fsm_behind(r->f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_own_past, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_lost_twice, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_fork, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_bounded, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_futures, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_too_many_futures, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_gap, fsm_rig_setup, fsm_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
