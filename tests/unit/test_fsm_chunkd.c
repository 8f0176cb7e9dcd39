/* What administrators decided about chunkds, in the state: applied, kept over checkpoints, part of the digest, gone with the
 * member, and not there below its feature level. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "metad/fsm/fsm_cluster.h"
#include "metad/fsm/fsm_format.h"
#include "tests/unit/fsm_rig.h"

#define DRAINING REPLFS__CHUNKD_SET_OP__WHAT__DRAINING
#define PAUSE REPLFS__CHUNKD_SET_OP__WHAT__PAUSE
#define LIMITS REPLFS__CHUNKD_SET_OP__WHAT__LIMITS

static int level(struct fsm_rig *r, unsigned to)
{
    Replfs__FeatureOp o = REPLFS__FEATURE_OP__INIT;
    o.level = to;
    return FSM_RIG_LEADER_OP(r, FEATURE, feature, &o);
}

static int setup(void **state)
{
    int rc = fsm_rig_setup(state);
    struct fsm_rig *r = *state;
    if (rc)
        return rc;
    r->session = 0;
    assert_int_equal(level(r, 1), 0);
    assert_int_equal(fsm_rig_member(r, 4, "host-a"), 0);
    assert_int_equal(fsm_rig_member(r, 7, "host-b"), 0);
    return 0;
}

static int set(struct fsm_rig *r, Replfs__ChunkdSetOp *o)
{
    return FSM_RIG_LEADER_OP(r, CHUNKD_SET, chunkd_set, o);
}

static int drain(struct fsm_rig *r, uint32_t chunkd, bool on)
{
    Replfs__ChunkdSetOp o = REPLFS__CHUNKD_SET_OP__INIT;
    o.chunkd = chunkd;
    o.what = DRAINING;
    o.draining = on;
    return set(r, &o);
}

static int rest(struct fsm_rig *r, uint32_t chunkd, uint64_t ms)
{
    Replfs__ChunkdSetOp o = REPLFS__CHUNKD_SET_OP__INIT;
    o.chunkd = chunkd;
    o.what = PAUSE;
    o.pause_ms = ms;
    return set(r, &o);
}

static int limit(struct fsm_rig *r, uint32_t chunkd, uint32_t disk, uint64_t bytes, bool none)
{
    Replfs__ChunkdSetOp o = REPLFS__CHUNKD_SET_OP__INIT;
    Replfs__DiskLimit l = REPLFS__DISK_LIMIT__INIT, *list[] = {&l};
    o.chunkd = chunkd;
    o.what = LIMITS;
    o.limits = list;
    o.n_limits = 1;
    l.disk = disk;
    l.bytes = bytes;
    l.none = none;
    l.now = bytes == 0;
    return set(r, &o);
}

static struct fsm_decided of(struct fsm *f, uint32_t chunkd)
{
    struct fsm_member m;
    assert_true(fsm_member_next(f, chunkd - 1, &m));
    assert_int_equal(m.chunkd, chunkd);
    return m.decided;
}

static int removal(struct fsm_rig *r, uint32_t chunkd, bool drained)
{
    Replfs__ChunkdRemoveOp o = REPLFS__CHUNKD_REMOVE_OP__INIT;
    o.chunkd = chunkd;
    o.drained = drained;
    return FSM_RIG_LEADER_OP(r, CHUNKD_REMOVE, chunkd_remove, &o);
}

/* Below its level none of it may be in a log, and a metad that meets it there must not go on. */
static void test_level(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t digest = fsm_digest(r->f);
    assert_int_equal(drain(r, 4, true), ERR_VERSION);
    assert_non_null(r->res.stop);
    assert_int_equal(removal(r, 4, true), ERR_VERSION);
    assert_non_null(r->res.stop);
    assert_int_equal(fsm_digest(r->f), digest);
    assert_int_equal(removal(r, 4, false), 0);
    assert_int_equal(level(r, 2), 0);
    assert_int_equal(drain(r, 7, true), 0);
}

static void test_each_field_alone(void **state)
{
    struct fsm_rig *r = *state;
    assert_int_equal(level(r, 2), 0);
    uint64_t before = fsm_decisions(r->f), digest = fsm_digest(r->f);
    assert_int_equal(drain(r, 4, true), 0);
    assert_true(fsm_decisions(r->f) != before);
    assert_int_not_equal(fsm_digest(r->f), digest);
    assert_int_equal(rest(r, 4, 36000000), 0);
    assert_int_equal(limit(r, 4, 3, 5000, false), 0);
    assert_int_equal(limit(r, 4, 0, 0, false), 0);
    assert_int_equal(limit(r, 4, 1, 7000, false), 0);
    assert_int_equal(limit(r, 4, 1, 8000, false), 0);
    struct fsm_decided d = of(r->f, 4);
    assert_true(d.draining);
    assert_int_equal(d.pause_ms, 36000000);
    assert_true(d.paused_at != 0);
    assert_int_equal(d.nlimits, 3);
    assert_int_equal(d.limits[0].disk, 0);
    assert_true(d.limits[0].now && d.limits[0].bytes == 0);
    assert_int_equal(d.limits[1].disk, 1);
    assert_int_equal(d.limits[1].bytes, 8000);
    assert_int_equal(d.limits[2].bytes, 5000);
    assert_false(of(r->f, 7).draining);
    assert_int_equal(of(r->f, 7).nlimits, 0);
    struct fsm *g = fsm_rig_reload(r->f); /* compares digests */
    d = of(g, 4);
    assert_true(d.draining && d.nlimits == 3 && d.limits[1].bytes == 8000 && d.limits[0].now);
    assert_int_equal(d.pause_ms, 36000000);
    assert_int_equal(d.paused_at, of(r->f, 4).paused_at);
    fsm_free(g);
    /* and back: as if nothing had ever been decided */
    assert_int_equal(drain(r, 4, false), 0);
    assert_int_equal(rest(r, 4, 0), 0);
    for (uint32_t k = 0; k < 4; k++)
        assert_int_equal(limit(r, 4, k, 0, true), 0);
    assert_int_equal(of(r->f, 4).nlimits, 0);
    assert_int_equal(of(r->f, 4).paused_at, 0);
    fsm_free(fsm_rig_reload(r->f));
}

static void test_nonsense(void **state)
{
    struct fsm_rig *r = *state;
    Replfs__ChunkdSetOp o = REPLFS__CHUNKD_SET_OP__INIT;
    assert_int_equal(level(r, 2), 0);
    uint64_t digest = fsm_digest(r->f);
    o.chunkd = 4;
    assert_int_equal(set(r, &o), EINVAL); /* nothing is meant */
    o.what = 8;
    assert_int_equal(set(r, &o), EINVAL);
    assert_int_equal(drain(r, 5, true), ENOENT);
    assert_int_equal(drain(r, 0, true), ENOENT);
    assert_int_equal(rest(r, 4, FSM_PAUSE_MAX_MS + 1), EINVAL);
    assert_int_equal(limit(r, 4, FSM_DISKS_MAX, 1, false), EINVAL);
    assert_int_equal(fsm_digest(r->f), digest);
}

/* What was decided ends with the member; a drained one is removed only as long as it drains. */
static void test_removal(void **state)
{
    struct fsm_rig *r = *state;
    assert_int_equal(level(r, 2), 0);
    assert_int_equal(removal(r, 4, true), EBUSY);
    assert_int_equal(drain(r, 4, true), 0);
    assert_int_equal(limit(r, 4, 2, 99, false), 0);
    assert_int_equal(removal(r, 4, true), 0);
    assert_int_equal(drain(r, 4, true), ENOENT);
    struct fsm *g = fsm_rig_reload(r->f);
    assert_false(of(g, 4).draining);
    assert_int_equal(of(g, 4).nlimits, 0);
    fsm_free(g);
}

static void test_reset(void **state)
{
    struct fsm_rig *r = *state;
    assert_int_equal(level(r, 2), 0);
    uint64_t memory = fsm_memory(r->f);
    assert_int_equal(limit(r, 4, 2, 99, false), 0);
    assert_true(fsm_memory(r->f) > memory);
    assert_int_equal(limit(r, 4, 2, 0, true), 0);
    assert_int_equal(fsm_memory(r->f), memory);
    assert_int_equal(limit(r, 4, 2, 99, false), 0);
    fsm_wrlock(r->f);
    fsm_reset(r->f);
    fsm_unlock(r->f);
    struct fsm_member m;
    assert_false(fsm_member_next(r->f, 0, &m));
}

int main(void)
{
#define CHUNKD_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, fsm_rig_teardown)
    const struct CMUnitTest tests[] = {
        CHUNKD_TEST(test_level),    CHUNKD_TEST(test_each_field_alone),
        CHUNKD_TEST(test_nonsense), CHUNKD_TEST(test_removal),
        CHUNKD_TEST(test_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
