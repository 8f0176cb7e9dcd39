/* Incarnations: which places of a history a state knows as its own past. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tests/unit/fsm_rig.h"

static bool known(struct rig *r, uint64_t incarnation, uint64_t position)
{
    return fsm_mark_known(r->f, &(struct fsm_mark){incarnation, position});
}

static void test_own_past(void **state)
{
    struct rig *r = *state;
    struct fsm_mark m;
    uint64_t before[4];

    fsm_mark(r->f, &m);
    assert_int_equal(m.incarnation, 0);
    assert_true(known(r, 0, 99)); /* who was never told anything */
    assert_int_equal(rig_incarnation(r, 0), EINVAL);
    assert_int_equal(rig_incarnation(r, 11), 0);
    rig_create(r, 1, "a", REG_MODE);
    fsm_mark(r->f, &m);
    assert_int_equal(m.incarnation, 11);
    assert_int_equal(m.position, r->index);
    assert_true(fsm_mark_known(r->f, &m));
    assert_false(known(r, 11, r->index + 1)); /* the log lost its end */
    assert_int_equal(rig_incarnation(r, 11), EEXIST);
    assert_int_equal(rig_incarnation(r, 22), 0);
    assert_true(fsm_mark_known(r->f, &m));
    assert_false(known(r, 11, r->index)); /* there 22 began here */
    assert_true(known(r, 22, r->index));
    assert_false(known(r, 33, 1));
    assert_int_equal(rig_incarnation(r, 33), 0);
    assert_int_equal(fsm_ancestors(r->f, before, 4), 2);
    assert_int_equal(before[0], 22);
    assert_int_equal(before[1], 11);
    assert_int_equal(fsm_ancestors(r->f, before, 1), 1);
}

/* Two states with one past: each is foreign to what the other became. */
static void test_fork(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_incarnation(r, 11), 0);
    struct rig older = *r;
    struct fsm_mark m;

    older.f = rig_reload(r->f);
    assert_int_equal(rig_incarnation(r, 22), 0);
    rig_create(r, 1, "later", REG_MODE);
    fsm_mark(r->f, &m);
    assert_false(fsm_mark_known(older.f, &m));
    assert_int_equal(rig_incarnation(&older, 23), 0);
    assert_false(fsm_mark_known(older.f, &m));
    fsm_mark(older.f, &m);
    assert_false(fsm_mark_known(r->f, &m));
    fsm_free(rig_reload(older.f));
    rig_close(&older);
}

static void test_bounded(void **state)
{
    struct rig *r = *state;
    struct fsm_mark last;

    for (uint64_t k = 1; k <= FSM_INCARNATIONS_MAX + 10; k++)
        assert_int_equal(rig_incarnation(r, k), 0);
    fsm_mark(r->f, &last);
    assert_true(known(r, 1, 3)); /* forgotten, but as old as that */
    assert_false(known(r, 1, last.position));
    assert_true(known(r, 11, last.position - FSM_INCARNATIONS_MAX + 1));
    struct fsm *g = rig_reload(r->f);
    assert_true(fsm_mark_known(g, &last));
    fsm_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_own_past, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_fork, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(test_bounded, rig_setup, rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
