/* Former versions of checkpoints and log entries, as the programs of their time wrote them: all are
 * still read. tests/data/vN/log holds entries with every operation there was (refusals and repeats
 * included), tests/data/vN/checkpoint the state that the program of version N had after them.
 * Replaying the log must give the state in the checkpoint, or a metad that starts from an older
 * checkpoint than another would differ from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include "base/byteorder.h"
#include "metad/log/entry.h"
#include "metad/fsm/fsm_cluster.h"
#include "metad/fsm/fsm_format.h"
#include "tests/unit/fsm_rig.h"

static const struct former {
    const char *dir;
    unsigned version, entries, commands;
} v1 = {"v1", 1, 59, 295}, v2 = {"v2", 2, 21, 104}, v2_goals = {"v2-goals", 2, 53, 265},
  v3 = {"v3", 3, 16, 78}, v4 = {"v4", 4, 9, 42};

static int open_data(const struct former *v, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/%s", TEST_DATA, v->dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail_msg("%s: %s", path, strerror(errno));
    return fd;
}

static struct fsm *load(const struct former *v)
{
    struct fsm *f;
    char why[256];
    uint8_t head[CKPT_HEADER];
    int fd = open_data(v, "checkpoint");
    assert_int_equal(read(fd, head, sizeof head), sizeof head);
    assert_int_equal(le_get32(head + 8), v->version);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(fsm_new(&f), 0);
    if (fsm_load(f, fd, why) != 0)
        fail_msg("%s", why);
    close(fd);
    return f;
}

static void apply_entry(const struct former *v, struct fsm *f, const uint8_t *p, size_t size,
                        uint64_t *index)
{
    struct entry e;
    struct fsm_result res;
    const char *why;
    const uint8_t *cmd;
    size_t len;

    assert_int_equal(le_get16(p + 4), v->version);
    if (entry_open(p, size, &e, &why) != 0)
        fail_msg("entry behind command %u: %s", (unsigned)*index, why);
    while (entry_next(&e, &cmd, &len)) {
        Replfs__Command *c = replfs__command__unpack(NULL, len, cmd);
        assert_non_null(c);
        fsm_apply(f, ++*index, c, &res);
        replfs__command__free_unpacked(c, NULL);
    }
}

static struct fsm *replay(const struct former *v)
{
    static uint8_t all[64u << 10];
    struct fsm *f;
    uint64_t index = 0;
    unsigned entries = 0;
    int fd = open_data(v, "log");
    ssize_t n = read(fd, all, sizeof all);
    close(fd);
    assert_true(n > 0 && n < (ssize_t)sizeof all);
    assert_int_equal(fsm_new(&f), 0);
    for (size_t at = 0; at < (size_t)n; entries++) {
        assert_true((size_t)n - at >= ENTRY_HEADER);
        size_t size = (ENTRY_HEADER + le_get32(all + at + 16) + 7) & ~(size_t)7;
        assert_true(size <= (size_t)n - at);
        apply_entry(v, f, all + at, size, &index);
        at += size;
    }
    assert_int_equal(entries, v->entries);
    assert_int_equal(index, v->commands);
    return f;
}

static void test_checkpoint_1(void **state)
{
    (void)state;
    struct fsm_rig r = {.f = load(&v1), .session = 7, .seq = 6};
    struct fsm_counts n;
    assert_int_equal(fsm_applied(r.f), v1.commands);
    fsm_counts(r.f, &n);
    assert_int_equal(n.files, 19);
    assert_int_equal(n.dirs, 9);
    assert_int_equal(n.orphans, 13);
    assert_int_equal(n.chunks, 9);
    assert_int_equal(n.bytes, 86132);
    assert_int_equal(n.sessions, 2);
    assert_int_equal(fsm_rig_unlink(&r, FSM_ROOT_INO, "gone", false), 0); /* answered from memory */
    assert_true(r.res.repeated);
    fsm_free(fsm_rig_reload(r.f)); /* as the present version */
    fsm_rig_close(&r);
}

static void test_checkpoint_2(void **state)
{
    (void)state;
    struct fsm_rig r = {.f = load(&v2), .session = 8, .seq = 3};
    struct fsm_counts n;
    struct fsm_quota q;
    assert_int_equal(fsm_applied(r.f), v2.commands);
    fsm_counts(r.f, &n);
    assert_int_equal(n.files, 25);
    assert_int_equal(n.dirs, 3);
    assert_int_equal(n.orphans, 6);
    assert_int_equal(n.chunks, 23);
    assert_int_equal(n.bytes, 5911932);
    assert_int_equal(n.reserved, 2105344);
    assert_int_equal(n.sessions, 2);
    assert_true(fsm_quota_get(r.f, fsm_quota_next(r.f, 0), &q));
    assert_int_equal(q.max_inodes, 100);
    assert_int_equal(fsm_rig_unlink(&r, FSM_ROOT_INO, "eight", false),
                     ESTALE);      /* acknowledged then */
    fsm_free(fsm_rig_reload(r.f)); /* as the present version */
    fsm_rig_close(&r);
}

static void test_log(void **state)
{
    (void)state;
    const struct former *all[] = {&v1, &v2, &v2_goals, &v3, &v4};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        struct fsm *f = load(all[k]), *g = replay(all[k]);
        assert_int_equal(fsm_digest(f), fsm_digest(g));
        fsm_free(f);
        fsm_free(g);
    }
}

/* Version 3, which this program goes on to write as long as there is no feature level; and then it has one. */
static void test_checkpoint_3(void **state)
{
    (void)state;
    struct fsm_rig r = {.f = load(&v3), .index = v3.commands};
    Replfs__FeatureOp feature = REPLFS__FEATURE_OP__INIT;
    struct fsm_counts n;
    struct fsm_metad m;
    uint64_t id;
    uint8_t key[FSM_CAP_KEY_LEN];
    assert_int_equal(fsm_applied(r.f), v3.commands);
    fsm_counts(r.f, &n);
    assert_int_equal(n.files, 27);
    assert_int_equal(n.chunks, 26);
    assert_int_equal(n.sessions_lapsed, 1);
    assert_int_equal(fsm_session_holds(r.f, 7), 0);
    assert_int_equal(fsm_session_holds(r.f, 8), FSM_HOLDS_ALL);
    assert_int_equal(fsm_feature_level(r.f), 0);
    assert_int_equal(fsm_metads(r.f), 1);
    assert_true(fsm_metad_next(r.f, 0, &m));
    assert_int_equal(m.id, 1);
    assert_string_equal(m.addr, "");
    assert_false(fsm_cap_key(r.f, &id, key));
    for (unsigned k = 1; k <= SETTINGS_COUNT; k++)
        assert_false(fsm_setting_told(r.f, (enum setting_key)k));
    fsm_free(fsm_rig_reload(r.f));
    feature.level = FSM_FEATURE_MAX;
    assert_int_equal(FSM_RIG_LEADER_OP(&r, FEATURE, feature, &feature), 0);
    fsm_free(fsm_rig_reload(r.f));
    fsm_rig_close(&r);
}

/* Version 4 and feature level 1: nothing is decided about any chunkd. It is written on until the level rises. */
static void test_checkpoint_4(void **state)
{
    (void)state;
    struct fsm_rig r = {.f = load(&v4), .index = v4.commands};
    Replfs__FeatureOp feature = REPLFS__FEATURE_OP__INIT;
    Replfs__ChunkdSetOp set = REPLFS__CHUNKD_SET_OP__INIT;
    Replfs__CompactOp compact = REPLFS__COMPACT_OP__INIT;
    struct fsm_counts n;
    struct fsm_member m;
    fsm_counts(r.f, &n);
    assert_int_equal(n.files, 12);
    assert_int_equal(n.chunks, 12);
    assert_int_equal(n.bytes, 319488);
    assert_int_equal(fsm_feature_level(r.f), 1);
    assert_int_equal(fsm_metads(r.f), 2);
    assert_int_equal(fsm_setting(r.f, SETTING_LEASE_TERM), 2000);
    assert_true(fsm_member_next(r.f, 1, &m));
    assert_int_equal(m.replaced_by, 4);
    for (uint32_t at = 0; fsm_member_next(r.f, at, &m); at = m.chunkd)
        assert_false(m.decided.draining || m.decided.pause_ms || m.decided.nlimits);
    fsm_free(fsm_rig_reload(r.f));
    set.chunkd = 1;
    set.what = REPLFS__CHUNKD_SET_OP__WHAT__DRAINING;
    set.draining = true;
    assert_int_equal(FSM_RIG_LEADER_OP(&r, CHUNKD_SET, chunkd_set, &set), ERR_VERSION);
    assert_int_equal(FSM_RIG_LEADER_OP(&r, COMPACT, compact, &compact), ERR_VERSION);
    feature.level = 2;
    assert_int_equal(FSM_RIG_LEADER_OP(&r, FEATURE, feature, &feature), 0);
    assert_int_equal(FSM_RIG_LEADER_OP(&r, CHUNKD_SET, chunkd_set, &set), 0);
    assert_int_equal(FSM_RIG_LEADER_OP(&r, COMPACT, compact, &compact), EINVAL);
    fsm_free(fsm_rig_reload(r.f));
    fsm_rig_close(&r);
}

/* Version 2 did not say what sessions hold: anything. */
static void test_holds_of_2(void **state)
{
    (void)state;
    struct fsm *f = load(&v2_goals), *g = replay(&v2_goals);
    assert_int_equal(fsm_session_holds(f, 7), FSM_HOLDS_ALL);
    assert_int_equal(fsm_session_holds(g, 9), FSM_HOLDS_ALL);
    fsm_free(f);
    fsm_free(g);
}

/* What came later works on a state that began as version 1. */
static void test_goes_on(void **state)
{
    (void)state;
    struct fsm_rig r = {.f = load(&v1), .index = v1.commands, .session = 7, .next_ino = 1000};
    uint64_t a = fsm_rig_lookup(&r, FSM_ROOT_INO, "a");
    assert_true(a != 0);
    assert_int_equal(fsm_rig_setxattr(&r, a, "user.note", "new", 3, 0), 0);
    assert_true(fsm_rig_create(&r, a, "new", REG_MODE) > 0);
    assert_int_equal(fsm_rig_incarnation(&r, 77), 0);
    fsm_free(fsm_rig_reload(r.f));
    fsm_rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint_1), cmocka_unit_test(test_checkpoint_2),
        cmocka_unit_test(test_checkpoint_3), cmocka_unit_test(test_checkpoint_4),
        cmocka_unit_test(test_log),          cmocka_unit_test(test_holds_of_2),
        cmocka_unit_test(test_goes_on)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
