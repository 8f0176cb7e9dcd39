/* Sessions that lapsed: what is kept of them, what others may do meanwhile, and what of their client's late
 * changes is refused as it comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "metad/fsm/fsm_internal.h"
#include "tests/unit/fsm_rig.h"

#define ME 7u
#define OTHER 8u

static int lapse(struct fsm_rig *r, uint64_t id)
{
    Replfs__SessionCloseOp o = REPLFS__SESSION_CLOSE_OP__INIT;
    o.n_session = 1;
    o.session = &id;
    o.lapse = true;
    return FSM_RIG_LEADER_OP(r, SESSION_CLOSE, session_close, &o);
}

/* Its time is over, if it has not come back. */
static int over(struct fsm_rig *r, uint64_t id)
{
    Replfs__SessionCloseOp o = REPLFS__SESSION_CLOSE_OP__INIT;
    o.n_session = 1;
    o.session = &id;
    o.over = true;
    return FSM_RIG_LEADER_OP(r, SESSION_CLOSE, session_close, &o);
}

static int back(struct fsm_rig *r, uint64_t id)
{
    Replfs__SessionOpenOp o = REPLFS__SESSION_OPEN_OP__INIT;
    o.session = id;
    o.back = true;
    return FSM_RIG_LEADER_OP(r, SESSION_OPEN, session_open, &o);
}

/* As told by its client, which had answered it before. */
static int kept(struct fsm_rig *r, Replfs__MetaOp *op)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    cmd.time_ns = r->now;
    cmd.session = ME;
    cmd.seq = ++r->seq;
    cmd.kept = true;
    cmd.op = op;
    fsm_apply(r->f, ++r->index, &cmd, &r->res);
    return r->res.code;
}

static int kept_chmod(struct fsm_rig *r, uint64_t ino, uint32_t mode)
{
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    s.ino = ino;
    s.valid = REPLFS__SETATTR_OP__VALID__MODE;
    s.mode = mode;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &s;
    return kept(r, &op);
}

static int kept_commit(struct fsm_rig *r, uint64_t ino, uint64_t chunk)
{
    Replfs__Extent x = REPLFS__EXTENT__INIT, *list = &x;
    Replfs__CommitOp c = REPLFS__COMMIT_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    x.len = 100;
    x.chunk = chunk;
    c.ino = ino;
    c.n_extents = 1;
    c.extents = &list;
    op.op_case = REPLFS__META_OP__OP_COMMIT;
    op.commit = &c;
    return kept(r, &op);
}

static int kept_unlink(struct fsm_rig *r, const char *name, uint64_t ino)
{
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    u.parent = 1;
    u.name = fsm_rig_bytes(name);
    u.ino = ino;
    op.op_case = REPLFS__META_OP__OP_UNLINK;
    op.unlink = &u;
    return kept(r, &op);
}

static void as(struct fsm_rig *r, uint64_t session)
{
    r->session = session;
    r->seq = session == ME ? r->seq : 0;
}

static void test_nothing_while_away(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t s = 0;
    struct fsm_counts n;
    r->seq = 1;
    assert_int_equal(fsm_rig_create_full(r, 1, "f", REG_MODE, 0, 0, "", 2), 0);
    assert_int_equal(back(r, ME), ERR_SESSION); /* it has not lapsed */
    assert_int_equal(lapse(r, ME), 0);
    assert_false(fsm_session_alive(r->f, ME));
    assert_true(fsm_session_lapsed(r->f, ME) && fsm_session_kept(r->f, ME));
    assert_false(fsm_session_next(r->f, 0, &s, NULL));
    assert_int_equal(fsm_session_holds(r->f, ME), 0);
    fsm_counts(r->f, &n);
    assert_int_equal(n.sessions, 0);
    r->seq = 2;
    assert_int_equal(fsm_rig_unlink(r, 1, "f", false), ERR_SESSION);
    assert_int_equal(fsm_rig_session_open(r, OTHER), 0); /* of the same mount: */
    assert_false(fsm_session_kept(r->f, ME));
    assert_int_equal(back(r, ME), ERR_SESSION);
}

/* What it was told before is remembered, over a checkpoint, too. */
static void test_numbers_go_on(void **state)
{
    struct fsm_rig *r = *state;
    r->seq = 5;
    assert_int_equal(fsm_rig_create_full(r, 1, "f", REG_MODE, 0, 0, "", 2), 0);
    assert_int_equal(lapse(r, ME), 0);
    struct fsm *g = fsm_rig_reload(r->f);
    fsm_free(r->f);
    r->f = g;
    assert_true(fsm_session_lapsed(r->f, ME));
    assert_int_equal(back(r, ME), 0);
    assert_int_equal(back(r, ME), ERR_SESSION);
    assert_true(fsm_session_alive(r->f, ME));
    assert_int_equal(fsm_session_holds(r->f, ME), FSM_HOLDS_LEASES);
    r->seq = 5;
    assert_int_equal(fsm_rig_create_full(r, 1, "f", REG_MODE, 0, 0, "", 3), 0);
    assert_true(r->res.repeated);
    assert_int_equal(fsm_rig_lookup(r, 1, "f"), 2);
}

static void test_conflicts(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t mine = (uint64_t)fsm_rig_create(r, 1, "mine", REG_MODE);
    uint64_t taken = (uint64_t)fsm_rig_create(r, 1, "taken", REG_MODE);
    Replfs__SessionOpenOp o = REPLFS__SESSION_OPEN_OP__INIT;
    o.session = OTHER;
    o.name = (char *)"other";
    assert_int_equal(FSM_RIG_LEADER_OP(r, SESSION_OPEN, session_open, &o), 0);
    assert_int_equal(lapse(r, ME), 0);
    as(r, OTHER);
    assert_int_equal(fsm_rig_chmod(r, taken, 0640), 0);
    assert_int_equal(fsm_rig_commit(r, taken, 0, 50, 3, 0), 0);
    assert_int_equal(back(r, ME), 0);
    as(r, ME);
    assert_int_equal(kept_chmod(r, taken, 0600), ESTALE);
    assert_int_equal(kept_commit(r, taken, 4), ESTALE);
    /* one's own late changes are nobody else's */
    assert_int_equal(kept_commit(r, mine, 5), 0);
    assert_int_equal(kept_chmod(r, mine, 0600), 0);
    assert_int_equal(kept_commit(r, mine, 5), 0);
    struct fsm *g = fsm_rig_reload(r->f);
    fsm_free(r->f);
    r->f = g;
    assert_int_equal(kept_chmod(r, taken, 0600), ESTALE);
    r->seq++;
    assert_int_equal(fsm_rig_chmod(r, taken, 0644), 0); /* somebody asks for it now */
    assert_int_equal(kept_chmod(r, 999, 0600), ENOENT);
}

/* A name is removed while it is what was removed. */
static void test_removed_name(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = (uint64_t)fsm_rig_create(r, 1, "f", REG_MODE);
    assert_int_equal(kept_unlink(r, "f", f + 1), ESTALE);
    assert_int_equal(fsm_rig_lookup(r, 1, "f"), f);
    assert_int_equal(kept_unlink(r, "f", f), 0);
    assert_int_equal(kept_unlink(r, "f", f), ENOENT);
}

/* There are never more of them than FSM_LAPSED_MAX, and none with a large memory. */
static void test_bounds(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t out[2];
    for (uint64_t id = 100; id < 100 + FSM_LAPSED_MAX; id++) {
        Replfs__SessionOpenOp o = REPLFS__SESSION_OPEN_OP__INIT;
        o.session = id;
        assert_int_equal(FSM_RIG_LEADER_OP(r, SESSION_OPEN, session_open, &o), 0);
        r->now++;
        assert_int_equal(lapse(r, id), 0);
    }
    assert_true(fsm_session_lapsed(r->f, 100));
    assert_int_equal(fsm_lapsed_before(r->f, r->now - FSM_LAPSED_MAX + 3, out, 2), 2);
    assert_int_equal(out[0], 100);
    assert_int_equal(fsm_lapsed_before(r->f, 0, out, 2), 0);
    r->now++;
    assert_int_equal(lapse(r, ME), 0);
    assert_true(fsm_session_lapsed(r->f, ME));
    assert_false(fsm_session_kept(r->f, 100));
    assert_true(fsm_session_kept(r->f, 101));
    assert_int_equal(back(r, ME), 0);
    assert_int_equal(over(r, ME), 0);
    assert_true(fsm_session_alive(r->f, ME));
    assert_int_equal(lapse(r, ME), 0);
    assert_int_equal(over(r, ME), 0);
    assert_false(fsm_session_kept(r->f, ME));
    assert_int_equal(fsm_rig_session_open(r, ME), 0);
    for (r->seq = 1; r->seq <= FSM_LAPSED_ANSWERS + 1; r->seq++)
        assert_int_equal(fsm_rig_unlink(r, 1, "none", false), ENOENT);
    assert_int_equal(lapse(r, ME), 0);
    assert_false(fsm_session_kept(r->f, ME));
}

int main(void)
{
#define T(x) cmocka_unit_test_setup_teardown(x, fsm_rig_setup, fsm_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_nothing_while_away), T(test_numbers_go_on), T(test_conflicts),
        T(test_removed_name),       T(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
