/* What is proposed ahead of the truncation of a file of very many extents, and how long a piece of one
 * is punched at a time. The log is a stand-in that notes the commands, and applies them at once or when it
 * is told to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "metad/service/service_internal.h"
#include "tests/unit/fsm_rig.h"

#define BLK 4096u
#define EXTENTS 50000u
#define SLICE 16384u
#define END (2ull * BLK * EXTENTS)
#define SESSION 5
#define SEQ 9

static struct {
    struct fsm_rig *rig;
    bool late;
    unsigned n;
    Replfs__FallocateOp op[16];
} noted;

static int apply_hole(const Replfs__FallocateOp *op)
{
    Replfs__FallocateOp hole = *op;

    noted.rig->session = SESSION;
    noted.rig->seq = SEQ;
    int code = FSM_RIG_OP(noted.rig, FALLOCATE, fallocate, &hole);
    noted.rig->session = noted.rig->seq = 0;
    return code;
}

void service_propose(struct service *s, Replfs__Command *cmd, mlog_applied *fn, mlog_after *after,
                     void *arg)
{
    (void)s;
    (void)arg;
    assert_true(fn == NULL && after == NULL);
    assert_true(noted.n < 16);
    assert_int_equal(cmd->session, SESSION);
    assert_int_equal(cmd->seq, SEQ);
    assert_int_equal(cmd->op->op_case, REPLFS__META_OP__OP_FALLOCATE);
    noted.op[noted.n] = *cmd->op->fallocate;
    if (!noted.late)
        assert_int_equal(apply_hole(&noted.op[noted.n]), 0);
    noted.n++;
}

/* A file of EXTENTS reserved blocks, a hole behind each. */
static uint64_t holey(struct fsm_rig *r)
{
    int64_t ino = fsm_rig_create(r, FSM_ROOT_INO, "f", REG_MODE);

    assert_true(ino > 0);
    for (uint64_t k = 0; k < EXTENTS; k++)
        assert_int_equal(fsm_rig_fallocate(r, (uint64_t)ino, 0, 2 * BLK * k, BLK), 0);
    return (uint64_t)ino;
}

static uint64_t allocated(struct fsm_rig *r, uint64_t ino)
{
    return fsm_rig_attr(r, ino).allocated;
}

static void truncate_ahead(struct fsm_rig *r, bool late)
{
    struct service s = {.cfg.fsm = r->f};
    Replfs__SetattrOp op = REPLFS__SETATTR_OP__INIT;
    uint64_t ino = holey(r), end = BLK;

    fsm_rig_session_open(r, SESSION);
    memset(&noted, 0, sizeof noted);
    noted.rig = r;
    noted.late = late;
    op.ino = ino;
    op.valid = REPLFS__SETATTR_OP__VALID__MTIME;
    service_truncate_ahead(&s, SESSION, SEQ, &op); /* changes no size */
    assert_int_equal(noted.n, 0);
    op.valid |= REPLFS__SETATTR_OP__VALID__SIZE;
    op.size = BLK;
    service_truncate_ahead(&s, SESSION, SEQ, &op);
    print_message("%u extents: %u holes ahead\n", EXTENTS, noted.n);
    assert_int_equal(noted.n, (EXTENTS - 1) / SLICE);
    for (unsigned i = 0; i < noted.n; i++) {
        uint64_t before = allocated(r, ino);
        assert_int_equal(noted.op[i].ino, ino);
        assert_true(noted.op[i].part);
        assert_true(noted.op[i].off == end); /* one behind the other */
        end = noted.op[i].off + noted.op[i].len;
        if (!late)
            continue;
        assert_int_equal(apply_hole(&noted.op[i]), 0);
        assert_int_equal(before - allocated(r, ino), (uint64_t)SLICE * BLK);
    }
    /* what is left for the truncation itself is no more than a slice, and nothing in front is gone */
    uint64_t left = allocated(r, ino);
    assert_true(left >= BLK && left <= (uint64_t)(SLICE + 1) * BLK);
    assert_int_equal(fsm_rig_truncate(r, ino, BLK), 0);
    assert_int_equal(allocated(r, ino), BLK);
    noted.n = 0;
    op.size = 0;
    service_truncate_ahead(&s, SESSION, SEQ + 1, &op);
    assert_int_equal(noted.n, 0); /* one command is enough */
}

static void test_truncate_at_once(void **state)
{
    truncate_ahead(*state, false);
}

static void test_truncate_late(void **state)
{
    truncate_ahead(*state, true);
}

static void test_cut_len(void **state)
{
    struct fsm_rig *r = *state;
    struct service s = {.cfg.fsm = r->f};
    uint64_t ino = holey(r);

    assert_int_equal(service_cut_len(&s, ino, 0, END), 2ull * BLK * SLICE);
    assert_int_equal(service_cut_len(&s, ino, 2ull * BLK * (EXTENTS - 10), END), END);
    assert_int_equal(service_cut_len(&s, ino, BLK, 3 * BLK), 3 * BLK);
    assert_int_equal(service_cut_len(&s, ino, UINT64_MAX - 5, 100), 100); /* nonsense stays so */
    assert_int_equal(service_cut_len(&s, 9999, 0, END), END);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, fsm_rig_setup, fsm_rig_teardown)
    const struct CMUnitTest tests[] = {T(test_truncate_at_once), T(test_truncate_late),
                                       T(test_cut_len)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
