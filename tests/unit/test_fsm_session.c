/* Sessions, duplicate memory, members, reservations and malformed commands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "metad/fsm/fsm_internal.h"
#include "tests/unit/fsm_rig.h"

static void test_repeat(void **state)
{
    struct fsm_rig *r = *state;
    r->seq = 1;
    assert_int_equal(fsm_rig_create_full(r, 1, "f", REG_MODE, 0, 0, "", 2), 0);
    r->seq = 2;
    assert_int_equal(fsm_rig_unlink(r, 1, "none", false), ENOENT);
    r->seq = 3;
    assert_int_equal(fsm_rig_unlink(r, 1, "f", false), 0);
    uint64_t digest = fsm_digest(r->f);
    r->seq = 1; /* again, with another stamped inode as a new leader would */
    assert_int_equal(fsm_rig_create_full(r, 1, "f", REG_MODE, 0, 0, "", 3), 0);
    assert_true(r->res.repeated);
    assert_int_equal(r->res.ino, 2);
    assert_int_equal(r->res.parent, 1);
    assert_int_equal(fsm_rig_lookup(r, 1, "f"), 0);
    r->seq = 2;
    assert_int_equal(fsm_rig_unlink(r, 1, "none", false), ENOENT);
    assert_true(r->res.repeated);
    r->seq = 3;
    assert_int_equal(fsm_rig_unlink(r, 1, "f", false), 0);
    assert_true(r->res.repeated);
    assert_int_equal(fsm_digest(r->f), digest);
    struct fsm *g = fsm_rig_reload(r->f); /* the memory survives a checkpoint */
    fsm_free(r->f);
    r->f = g;
    assert_int_equal(fsm_rig_unlink(r, 1, "f", false), 0);
    assert_true(r->res.repeated);
    r->seq = 4;
    assert_int_equal(fsm_rig_unlink(r, 1, "f", false), ENOENT);
    assert_false(r->res.repeated);
}

/* One change waits long, and its successors' answers pile up: it is let in all the same, and so is what was
 * numbered before the newest; what is newer is not. */
static void test_late_one_is_let_in(void **state)
{
    struct fsm_rig *r = *state;
    for (r->seq = 2; r->seq < 2 + FSM_REMEMBER_MAX; r->seq++)
        if (r->seq != 7)
            assert_int_equal(fsm_rig_unlink(r, 1, "none", false), ENOENT);
    r->seq = FSM_REMEMBER_MAX + 2;
    assert_int_equal(fsm_rig_unlink(r, 1, "none", false), ENOENT);
    r->seq++;
    assert_int_equal(fsm_rig_unlink(r, 1, "none", false), ERR_BUSY);
    r->seq = 7;
    assert_int_equal(fsm_rig_unlink(r, 1, "none", false), ENOENT);
    r->seq = 1;
    assert_int_equal(fsm_rig_unlink(r, 1, "none", false), ENOENT);
    assert_false(r->res.repeated);
    struct fsm *g = fsm_rig_reload(r->f); /* and all of them survive a checkpoint */
    fsm_free(r->f);
    r->f = g;
    assert_int_equal(fsm_rig_unlink(r, 1, "none", false), ENOENT);
    assert_true(r->res.repeated);
}

static void test_out_of_order_and_acks(void **state)
{
    struct fsm_rig *r = *state;
    const uint64_t order[] = {5, 2, 9, 3, 7};
    char name[8];
    for (size_t k = 0; k < 5; k++) {
        r->seq = order[k];
        snprintf(name, sizeof name, "n%d", (int)order[k]);
        assert_true(fsm_rig_create(r, 1, name, REG_MODE) > 0);
    }
    r->seq = 10;
    r->acked = 5;
    assert_int_equal(fsm_rig_unlink(r, 1, "n9", false), 0);
    r->seq = 3; /* forgotten: a straggler */
    assert_int_equal(fsm_rig_unlink(r, 1, "n3", false), ESTALE);
    assert_true(r->res.repeated);
    assert_true(fsm_rig_lookup(r, 1, "n3") != 0);
    r->seq = 7;
    assert_int_equal(fsm_rig_unlink(r, 1, "n7", false), 0); /* the answer of its creation */
    assert_true(fsm_rig_lookup(r, 1, "n7") != 0);
    r->acked = 2; /* an older acknowledgement takes nothing back */
    r->seq = 4;
    assert_int_equal(fsm_rig_unlink(r, 1, "n5", false), ESTALE);
    r->seq = 6;
    assert_int_equal(fsm_rig_unlink(r, 1, "n5", false), 0); /* a gap is filled late */
    assert_false(r->res.repeated);
    assert_int_equal(fsm_rig_lookup(r, 1, "n5"), 0);
}

static void test_busy(void **state)
{
    struct fsm_rig *r = *state;
    for (r->seq = 1; r->seq <= 16384; r->seq++)
        assert_int_equal(fsm_rig_unlink(r, 1, "x", false), ENOENT);
    assert_int_equal(fsm_rig_unlink(r, 1, "x", false), ERR_BUSY);
    assert_false(r->res.repeated);
    r->acked = 16000;
    assert_int_equal(fsm_rig_unlink(r, 1, "x", false), ENOENT);
    for (unsigned k = 0; k < 100000; k++) { /* the usual case must not grow */
        r->seq++;
        r->acked = r->seq - 4;
        assert_int_equal(fsm_rig_unlink(r, 1, "x", false), ENOENT);
    }
    assert_true(fsm_memory(r->f) < 16u << 20);
}

static void test_sessions(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t s = 0;
    const char *name = NULL;
    assert_int_equal(fsm_rig_session_open(r, 7), EEXIST);
    assert_int_equal(fsm_rig_session_open(r, 0), EINVAL);
    assert_int_equal(fsm_rig_session_open(r, 3), 0);
    assert_int_equal(fsm_rig_session_open(r, UINT64_MAX), 0);
    assert_true(fsm_session_alive(r->f, 3));
    assert_false(fsm_session_alive(r->f, 4));
    assert_true(fsm_session_next(r->f, 0, &s, &name));
    assert_int_equal(s, 3);
    assert_string_equal(name, "host:/mnt");
    assert_true(fsm_session_next(r->f, 3, &s, &name));
    assert_int_equal(s, 7);
    assert_true(fsm_session_next(r->f, 7, &s, NULL));
    assert_true(s == UINT64_MAX);
    assert_false(fsm_session_next(r->f, s, &s, &name));
    assert_int_equal(fsm_rig_session_close(r, 3), 0);
    assert_int_equal(fsm_rig_session_close(r, 3), 0);
    assert_false(fsm_session_alive(r->f, 3));
    r->session = 3;
    r->seq = 1;
    assert_int_equal(fsm_rig_create(r, 1, "f", REG_MODE), -ERR_SESSION);
    assert_int_equal(fsm_rig_lookup(r, 1, "f"), 0);
    r->session = 7; /* a session may close itself by a numbered command */
    Replfs__SessionCloseOp o = REPLFS__SESSION_CLOSE_OP__INIT;
    uint64_t self = 7;
    o.n_session = 1;
    o.session = &self;
    assert_int_equal(FSM_RIG_OP(r, SESSION_CLOSE, session_close, &o), 0);
    assert_false(fsm_session_alive(r->f, 7));
}

static void test_internal_only(void **state)
{
    struct fsm_rig *r = *state;
    Replfs__ReapOp reap = REPLFS__REAP_OP__INIT;
    Replfs__SessionOpenOp so = REPLFS__SESSION_OPEN_OP__INIT;
    so.session = 99;
    assert_int_equal(FSM_RIG_OP(r, REAP, reap, &reap), EPERM);
    assert_int_equal(FSM_RIG_OP(r, SESSION_OPEN, session_open, &so), EPERM);
    assert_int_equal(fsm_rig_reserve(r, 5, 5), EPERM);
    assert_int_equal(fsm_rig_member(r, 1, "h"), EPERM);
}

static void test_members(void **state)
{
    struct fsm_rig *r = *state;
    struct fsm_member m;
    r->session = 0;
    assert_int_equal(fsm_rig_member(r, 2, "host-b"), 0);
    assert_int_equal(fsm_rig_member(r, 1, "host-a"), 0);
    assert_int_equal(fsm_rig_member(r, 0, "x"), EINVAL);
    assert_int_equal(fsm_rig_member(r, 1u << 20, "x"), EINVAL);
    assert_int_equal(fsm_rig_member(r, 2, "host-c"), 0); /* the disk moved to another computer */
    assert_true(fsm_member_next(r->f, 0, &m));
    assert_int_equal(m.chunkd, 1);
    assert_string_equal(m.host_id, "host-a");
    assert_true(fsm_member_next(r->f, 1, &m));
    assert_string_equal(m.host_id, "host-c");
    assert_false(fsm_member_next(r->f, 2, &m));
    char longname[400];
    memset(longname, 'h', sizeof longname);
    longname[399] = 0;
    assert_int_equal(fsm_rig_member(r, 9, longname), 0);
    assert_true(fsm_member_next(r->f, 2, &m));
    assert_int_equal(strlen(m.host_name), 255);
}

/* A removed one stays in the way of its id, over a checkpoint, too. */
static void test_member_removed(void **state)
{
    struct fsm_rig *r = *state;
    struct fsm_member m;
    Replfs__ChunkdRemoveOp op = REPLFS__CHUNKD_REMOVE_OP__INIT;
    r->session = 0;
    assert_int_equal(fsm_rig_member(r, 5, "host"), 0);
    op.chunkd = 6;
    assert_int_equal(FSM_RIG_OP(r, CHUNKD_REMOVE, chunkd_remove, &op), ENOENT);
    op.chunkd = 5;
    assert_int_equal(FSM_RIG_OP(r, CHUNKD_REMOVE, chunkd_remove, &op), 0);
    assert_int_equal(FSM_RIG_OP(r, CHUNKD_REMOVE, chunkd_remove, &op), ENOENT);
    assert_int_equal(fsm_rig_member(r, 5, "host"), EEXIST);
    assert_true(fsm_member_next(r->f, 0, &m));
    assert_int_equal(m.chunkd, 5);
    assert_string_equal(m.host_id, "");
}

static void test_reserve(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t chunk, ino;
    r->session = 0;
    assert_int_equal(fsm_rig_reserve(r, 5, 6), 0); /* never lower */
    fsm_reserved(r->f, &chunk, &ino);
    assert_true(chunk == 1ull << 40 && ino == 1ull << 40);
    assert_int_equal(fsm_rig_reserve(r, (1ull << 40) + 1, 6), 0);
    fsm_reserved(r->f, &chunk, &ino);
    assert_true(chunk == (1ull << 40) + 1 && ino == 1ull << 40);
}

static void test_malformed(void **state)
{
    struct fsm_rig *r = *state;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    fsm_apply(r->f, ++r->index, &cmd, &r->res);
    assert_int_equal(r->res.code, EINVAL);
    cmd.op = &op;
    fsm_apply(r->f, ++r->index, &cmd, &r->res);
    assert_int_equal(r->res.code, EINVAL);
    op.op_case = REPLFS__META_OP__OP_RENAME;
    fsm_apply(r->f, ++r->index, &cmd, &r->res);
    assert_int_equal(r->res.code, EINVAL);
    assert_int_equal(fsm_applied(r->f), r->index);
}

int main(void)
{
#define T(x) cmocka_unit_test_setup_teardown(x, fsm_rig_setup, fsm_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_repeat),    T(test_late_one_is_let_in), T(test_out_of_order_and_acks),
        T(test_busy),      T(test_sessions),           T(test_internal_only),
        T(test_members),   T(test_member_removed),     T(test_reserve),
        T(test_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
