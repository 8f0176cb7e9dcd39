/* A metad begins to lead on a data directory of an earlier version, or a new one: what goes into the log then, and what
 * the log refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include "base/byteorder.h"
#include "base/error.h"
#include "base/log.h"
#include "metad/log/agree.h"
#include "metad/log/feature.h"
#include "tests/unit/tree.h"

static struct {
    char dir[256];
    struct fsm *fsm;
    struct mlog *mlog;
} md;

static void start(void)
{
    struct mlog_config cfg = {.dir = md.dir};

    assert_int_equal(fsm_new(&md.fsm), 0);
    cfg.fsm = md.fsm;
    assert_int_equal(mlog_open(&cfg, 30000, &md.mlog), 0);
}

static void stop(void)
{
    mlog_close(md.mlog);
    fsm_free(md.fsm);
}

static int setup(void **state)
{
    char uuid[37];

    (void)state;
    if (!tree_make(md.dir, sizeof(md.dir), "/tmp", "agree") || mlog_init_dir(md.dir, uuid) != 0)
        return -1;
    start();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop();
    tree_remove(md.dir);
    return 0;
}

static void put_file(const char *name, const void *p, size_t n)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", md.dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), n);
    close(fd);
}

static bool has_file(const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", md.dir, name);
    return access(path, F_OK) == 0;
}

static int propose(Replfs__MetaOp *op)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct fsm_result res = {0};

    cmd.op = op;
    int rc = mlog_propose_wait(md.mlog, &cmd, &res);
    return rc ? rc : -res.code;
}

static void add_chunkd(uint32_t id)
{
    Replfs__ChunkdAddOp a = REPLFS__CHUNKD_ADD_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;

    a.chunkd = id;
    a.host_id = a.host_name = (char *)(uintptr_t) "host";
    op.op_case = REPLFS__META_OP__OP_CHUNKD_ADD;
    op.chunkd_add = &a;
    assert_int_equal(propose(&op), 0);
}

static void key_is(uint64_t id, uint8_t byte)
{
    uint64_t got_id;
    uint8_t got[FSM_CAP_KEY_LEN], want[FSM_CAP_KEY_LEN];

    memset(want, byte, sizeof(want));
    fsm_rdlock(md.fsm);
    assert_true(fsm_cap_key(md.fsm, &got_id, got));
    fsm_unlock(md.fsm);
    assert_int_equal(got_id, id);
    assert_memory_equal(got, want, sizeof(want));
}

static void test_earlier_directory(void **state)
{
    (void)state;
    uint8_t key[8 + FSM_CAP_KEY_LEN];
    struct fsm_member m;

    memset(key, 5, sizeof(key));
    le_put64(key, 1234);
    put_file("cap.key", key, sizeof(key));
    put_file("replaced", "1 2\n9 2\n2 7\n", 12); /* two of them make no sense any more */
    add_chunkd(1);
    add_chunkd(2);
    assert_int_equal(fsm_feature_level(md.fsm), 0);
    fsm_setting_offer(md.fsm, SETTING_DEAD, 77000);
    assert_int_equal(agree_begin(md.mlog, md.fsm, md.dir), 0); /* nothing below level 1 */
    assert_true(has_file("cap.key"));
    assert_int_equal(feature_begin(md.mlog, md.fsm), 0);
    assert_int_equal(fsm_feature_level(md.fsm), FSM_FEATURE_MAX);
    assert_int_equal(agree_begin(md.mlog, md.fsm, md.dir), 0);
    key_is(1234, 5);
    assert_false(has_file("cap.key"));
    assert_false(has_file("replaced"));
    assert_true(fsm_member_next(md.fsm, 0, &m));
    assert_int_equal(m.replaced_by, 2);
    assert_true(fsm_setting_told(md.fsm, SETTING_DEAD));
    stop();
    memset(key, 6, sizeof(key));
    put_file("cap.key", key, sizeof(key)); /* a copy of the directory was put back, in part */
    start();
    fsm_setting_offer(md.fsm, SETTING_DEAD, 88000);
    assert_int_equal(fsm_feature_level(md.fsm), FSM_FEATURE_MAX);
    assert_int_equal(fsm_setting(md.fsm, SETTING_DEAD), 77000);
    uint64_t applied = fsm_applied(md.fsm);
    assert_int_equal(feature_begin(md.mlog, md.fsm), 0);
    assert_int_equal(agree_begin(md.mlog, md.fsm, md.dir), 0);
    key_is(1234, 5);
    assert_false(has_file("cap.key"));
    fsm_rdlock(md.fsm);
    assert_int_equal(fsm_applied(md.fsm), applied); /* nothing to be logged */
    fsm_unlock(md.fsm);
}

static void test_unreadable_key(void **state)
{
    (void)state;
    put_file("cap.key", "short", 5);
    assert_int_equal(feature_begin(md.mlog, md.fsm), 0);
    assert_int_equal(agree_begin(md.mlog, md.fsm, md.dir), -ERR_CORRUPT);
    assert_true(has_file("cap.key"));
}

/* What is not consistent is not made the cluster's. */
static void test_flags_contradict(void **state)
{
    (void)state;
    fsm_setting_offer(md.fsm, SETTING_SUSPECT, 70000);
    fsm_setting_offer(md.fsm, SETTING_DEAD, 60000);
    assert_int_equal(feature_begin(md.mlog, md.fsm), 0);
    assert_int_equal(agree_begin(md.mlog, md.fsm, NULL), 0);
    assert_false(fsm_setting_told(md.fsm, SETTING_DEAD));
    assert_int_equal(fsm_setting(md.fsm, SETTING_SUSPECT), 70000);
}

/* The key is a secret: nobody but the owner may read where it is now. */
static void test_secret(void **state)
{
    (void)state;
    char path[512];
    struct stat st;

    assert_int_equal(feature_begin(md.mlog, md.fsm), 0);
    assert_int_equal(agree_begin(md.mlog, md.fsm, md.dir), 0);
    snprintf(path, sizeof(path), "%s/log", md.dir);
    assert_int_equal(stat(path, &st), 0);
    bool closed = (st.st_mode & 077) == 0;
    assert_int_equal(stat(md.dir, &st), 0);
    assert_true(closed || (st.st_mode & 077) == 0);
}

/* ---- what the log refuses ---- */

static void test_above_the_level(void **state)
{
    (void)state;
    Replfs__MetadOp metad = REPLFS__METAD_OP__INIT;
    Replfs__FeatureOp feature = REPLFS__FEATURE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;

    metad.id = 2;
    op.op_case = REPLFS__META_OP__OP_METAD;
    op.metad = &metad;
    assert_int_equal(propose(&op), -ERR_VERSION);
    assert_int_equal(feature_begin(md.mlog, md.fsm), 0);
    assert_int_equal(propose(&op), 0);
    feature.level = FSM_FEATURE_MAX + 1;
    op.op_case = REPLFS__META_OP__OP_FEATURE;
    op.feature = &feature;
    assert_int_equal(propose(&op), -ERR_VERSION);
    assert_true(mlog_is_leader(md.mlog)); /* and goes on */
}

/* With several metads a new program does not raise the level by itself; a newer client's fields stay out of the log. */
static void test_unknown_fields_stay_out(void **state)
{
    (void)state;
    static uint8_t one[] = {1};
    ProtobufCMessageUnknownField u = {
        .tag = 999, .wire_type = PROTOBUF_C_WIRE_TYPE_VARINT, .len = 1, .data = one};
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;

    assert_int_equal(feature_begin(md.mlog, md.fsm), 0);
    s.ino = FSM_ROOT_INO;
    s.valid = REPLFS__SETATTR_OP__VALID__MODE;
    s.mode = 0700;
    s.base.n_unknown_fields = 1;
    s.base.unknown_fields = &u;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &s;
    assert_int_equal(propose(&op), 0);            /* were it logged, this metad would stop */
    assert_int_equal(s.base.n_unknown_fields, 1); /* the message is as it was */
    assert_true(mlog_is_leader(md.mlog));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_earlier_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flags_contradict, setup, teardown),
        cmocka_unit_test_setup_teardown(test_secret, setup, teardown),
        cmocka_unit_test_setup_teardown(test_above_the_level, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_fields_stay_out, setup, teardown),
    };
    log_init("test_agree", LOG_LVL_ERROR, "/dev/null");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
