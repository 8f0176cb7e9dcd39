/* The cluster's own part of the state: metads, settings, the key of capabilities, feature levels; and what neither may
 * be skipped nor done by one metad alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include "base/byteorder.h"
#include "metad/fsm/fsm_cluster.h"
#include "metad/fsm/fsm_format.h"
#include "tests/fuzz/ckpt_fix.h"
#include "tests/unit/fsm_rig.h"

static int feature(struct fsm_rig *r, unsigned level)
{
    Replfs__FeatureOp o = REPLFS__FEATURE_OP__INIT;
    o.level = level;
    return FSM_RIG_LEADER_OP(r, FEATURE, feature, &o);
}

static int metad(struct fsm_rig *r, uint32_t id, const char *addr, const char *name,
                 const char *host, bool gone)
{
    Replfs__MetadOp o = REPLFS__METAD_OP__INIT;
    o.id = id;
    o.addr = (char *)(uintptr_t)addr;
    o.name = (char *)(uintptr_t)name;
    o.host_id = (char *)(uintptr_t)host;
    o.remove = gone;
    return FSM_RIG_LEADER_OP(r, METAD, metad, &o);
}

static int metad_alone(struct fsm_rig *r, uint32_t id)
{
    Replfs__MetadOp o = REPLFS__METAD_OP__INIT;
    o.id = id;
    o.alone = true;
    return FSM_RIG_LEADER_OP(r, METAD, metad, &o);
}

static int metad_fresh(struct fsm_rig *r, uint32_t id, const char *addr)
{
    Replfs__MetadOp o = REPLFS__METAD_OP__INIT;
    o.id = id;
    o.addr = (char *)(uintptr_t)addr;
    o.fresh = true;
    return FSM_RIG_LEADER_OP(r, METAD, metad, &o);
}

static int config(struct fsm_rig *r, uint32_t key, uint64_t value)
{
    Replfs__ConfigOp o = REPLFS__CONFIG_OP__INIT;
    o.n_key = o.n_value = 1;
    o.key = &key;
    o.value = &value;
    return FSM_RIG_LEADER_OP(r, CONFIG, config, &o);
}

static int setup(void **state)
{
    int rc = fsm_rig_setup(state);
    if (rc == 0)
        assert_int_equal(feature(*state, 1), 0);
    return rc;
}

/* ---- metads ---- */

static void test_metads(void **state)
{
    struct fsm_rig *r = *state;
    struct fsm_metad m;
    struct fsm_addrs a;

    assert_int_equal(fsm_metads(r->f), 1);
    assert_true(fsm_metad_next(r->f, 0, &m)); /* of which nobody has told anything */
    assert_int_equal(m.id, 1);
    assert_string_equal(m.addr, "");
    assert_int_equal(fsm_metad_new(r->f), 2);
    fsm_metad_addrs(r->f, &a);
    assert_int_equal(a.n, 0); /* whoever asks has found the only one */
    assert_int_equal(metad(r, 1, "a:7000", "anna", "h1", false), 0);
    assert_int_equal(metad(r, 3, "c:7000", "carl", "h3", false), 0);
    assert_int_equal(fsm_metad_new(r->f), 4);
    assert_int_equal(metad(r, 2, "b:7000", "bert", "h2", false), EEXIST); /* below what was given */
    assert_int_equal(metad(r, 4, "b:7000", "bert", "h2", false), 0);
    assert_int_equal(metad(r, 3, "d:7000", "", "", false), 0); /* moved */
    assert_true(fsm_metad_find(r->f, 3, &m));
    assert_string_equal(m.addr, "d:7000");
    assert_string_equal(m.name, "carl");
    assert_string_equal(m.host_id, "h3");
    fsm_metad_addrs(r->f, &a);
    assert_int_equal(a.n, 3);
    assert_string_equal(a.list[0], "a:7000");
    assert_string_equal(a.list[2], "b:7000");
    assert_int_equal(metad(r, 4, "", "", "", true), 0);
    assert_int_equal(metad(r, 4, "", "", "", true), ENOENT);
    assert_int_equal(metad(r, 4, "b:7000", "", "", false), EEXIST); /* never again */
    assert_false(fsm_metad_find(r->f, 4, &m));
    struct fsm *g = fsm_rig_reload(r->f);
    assert_int_equal(fsm_metad_new(g), 5);
    assert_true(fsm_metad_next(g, 1, &m));
    assert_int_equal(m.id, 3);
    assert_string_equal(m.addr, "d:7000");
    assert_false(fsm_metad_next(g, 3, &m));
    assert_false(fsm_metad_next(g, UINT32_MAX, &m));
    fsm_free(g);
    assert_int_equal(metad(r, 1, "", "", "", true), 0);
    assert_int_equal(metad(r, 3, "", "", "", true), EBUSY); /* the last one */
}

static void test_metads_bounded(void **state)
{
    struct fsm_rig *r = *state;
    char big[300];

    memset(big, 'x', sizeof(big));
    big[256] = 0;
    assert_int_equal(metad(r, 2, big, "", "", false), ENAMETOOLONG);
    assert_int_equal(metad(r, 2, "b", big, "", false), ENAMETOOLONG);
    assert_int_equal(metad(r, 0, "b", "", "", false), EINVAL);
    assert_int_equal(metad(r, UINT32_MAX, "b", "", "", false), EINVAL);
    big[255] = 0;
    for (uint32_t id = 2; id <= FSM_METADS_MAX; id++)
        assert_int_equal(metad(r, id, big, big, big, false), 0);
    assert_int_equal(metad(r, 99, "b", "", "", false), ENOSPC);
    assert_int_equal(fsm_metads(r->f), FSM_METADS_MAX);
    fsm_free(fsm_rig_reload(r->f));
}

/* ---- settings ---- */

static void test_settings(void **state)
{
    struct fsm_rig *r = *state;

    assert_int_equal(fsm_setting(r->f, SETTING_DEAD), 60000);
    fsm_setting_offer(r->f, SETTING_DEAD, 30000); /* a flag */
    assert_int_equal(fsm_setting(r->f, SETTING_DEAD), 30000);
    assert_false(fsm_setting_told(r->f, SETTING_DEAD));
    uint64_t digest = fsm_digest(r->f);
    fsm_setting_offer(r->f, SETTING_DEAD, 31000);
    assert_int_equal(fsm_digest(r->f), digest); /* no part of the state */
    assert_int_equal(config(r, SETTING_DEAD, 40000), 0);
    assert_int_equal(fsm_setting(r->f, SETTING_DEAD), 40000);
    fsm_setting_offer(r->f, SETTING_DEAD, 30000); /* comes too late */
    assert_int_equal(fsm_setting(r->f, SETTING_DEAD), 40000);
    assert_int_not_equal(fsm_digest(r->f), digest);
    assert_int_equal(config(r, SETTING_DEAD, 49), EINVAL);
    assert_int_equal(config(r, SETTINGS_COUNT + 1, 50), EINVAL);
    assert_int_equal(config(r, 0, 50), EINVAL);
    assert_int_equal(config(r, SETTING_MIN_COPIES, 9), EINVAL);
    assert_int_equal(config(r, SETTING_MIN_COPIES, 3), 0);
    assert_int_equal(config(r, SETTING_SUSPECT, 40001), EINVAL); /* longer than dead */
    assert_int_equal(config(r, SETTING_LEASE_TERM, 60001), EINVAL);
    struct fsm *g = fsm_rig_reload(r->f);
    assert_int_equal(fsm_setting(g, SETTING_DEAD), 40000);
    assert_int_equal(fsm_setting(g, SETTING_MIN_COPIES), 3);
    assert_false(fsm_setting_told(g, SETTING_SUSPECT));
    fsm_free(g);
}

/* All or none; and what this process offers decides nothing: another metad offers something else. */
static void test_settings_together(void **state)
{
    struct fsm_rig *r = *state;
    uint32_t key[] = {SETTING_SUSPECT, SETTING_DEAD};
    uint64_t value[] = {70000, 80000};
    Replfs__ConfigOp o = REPLFS__CONFIG_OP__INIT;

    fsm_setting_offer(r->f, SETTING_DEAD, 1000000);
    assert_int_equal(config(r, SETTING_SUSPECT, 70000), EINVAL);
    assert_null(fsm_settings_wrong(r->f, key, value, 1)); /* for what holds here it would do */
    o.key = key;
    o.value = value;
    o.n_key = o.n_value = 2;
    assert_null(fsm_settings_wrong(r->f, key, value, 2));
    assert_int_equal(FSM_RIG_LEADER_OP(r, CONFIG, config, &o), 0);
    value[1] = 1;
    value[0] = 80000;
    assert_non_null(fsm_settings_wrong(r->f, key, value, 2));
    assert_int_equal(FSM_RIG_LEADER_OP(r, CONFIG, config, &o), EINVAL);
    assert_int_equal(fsm_setting(r->f, SETTING_SUSPECT), 70000);
    o.n_value = 1;
    assert_int_equal(FSM_RIG_LEADER_OP(r, CONFIG, config, &o), EINVAL);
}

/* Sessions go by the term that they were told until they hear of another one. */
static void test_lowered_term(void **state)
{
    struct fsm_rig *r = *state;
    Replfs__ConfigOp o = REPLFS__CONFIG_OP__INIT;

    assert_int_equal(config(r, SETTING_LEASE_TERM, 20000), 0);
    assert_int_equal(fsm_term_longest(r->f), 20000);
    assert_int_equal(fsm_term_lowered(r->f), 0);
    assert_int_equal(config(r, SETTING_LEASE_TERM, 5000), 0);
    assert_int_equal(fsm_setting(r->f, SETTING_LEASE_TERM), 5000);
    assert_int_equal(fsm_term_longest(r->f), 20000);
    uint64_t first = fsm_term_lowered(r->f);
    assert_int_equal(first, r->index);
    assert_int_equal(config(r, SETTING_LEASE_TERM, 8000), 0); /* raised, not above what was told */
    assert_int_equal(config(r, SETTING_LEASE_TERM, 6000), 0);
    assert_int_equal(fsm_term_longest(r->f), 20000);
    o.heard = first; /* not of the last one */
    assert_int_equal(FSM_RIG_LEADER_OP(r, CONFIG, config, &o), 0);
    assert_int_equal(fsm_term_longest(r->f), 20000);
    struct fsm *g = fsm_rig_reload(r->f);
    assert_int_equal(fsm_term_longest(g), 20000);
    fsm_free(g);
    o.heard = fsm_term_lowered(r->f);
    assert_int_equal(FSM_RIG_LEADER_OP(r, CONFIG, config, &o), 0);
    assert_int_equal(fsm_term_longest(r->f), 6000);
    assert_int_equal(config(r, SETTING_LEASE_TERM, 5000), 0);
    assert_int_equal(config(r, SETTING_LEASE_TERM, 7000), 0);
    assert_int_equal(fsm_term_longest(r->f), 7000);
    assert_int_equal(fsm_term_lowered(r->f), 0);
}

/* ---- the key, and chunkds whose place was taken ---- */

static void test_cap_key(void **state)
{
    struct fsm_rig *r = *state;
    uint8_t key[FSM_CAP_KEY_LEN], got[FSM_CAP_KEY_LEN];
    Replfs__CapKeyOp o = REPLFS__CAP_KEY_OP__INIT;
    uint64_t id;

    assert_false(fsm_cap_key(r->f, &id, got));
    memset(key, 7, sizeof(key));
    o.id = 99;
    o.key = (ProtobufCBinaryData){sizeof(key) - 1, key};
    assert_int_equal(FSM_RIG_LEADER_OP(r, CAP_KEY, cap_key, &o), EINVAL);
    o.key.len = sizeof(key);
    assert_int_equal(FSM_RIG_LEADER_OP(r, CAP_KEY, cap_key, &o), 0);
    struct fsm *g = fsm_rig_reload(r->f);
    assert_true(fsm_cap_key(g, &id, got));
    assert_int_equal(id, 99);
    assert_memory_equal(got, key, sizeof(key));
    fsm_free(g);
}

static void test_replaced(void **state)
{
    struct fsm_rig *r = *state;
    Replfs__ChunkdAddOp a = REPLFS__CHUNKD_ADD_OP__INIT;
    Replfs__ReplacedOp o = REPLFS__REPLACED_OP__INIT;
    struct fsm_member m;

    a.host_id = a.host_name = (char *)(uintptr_t) "host";
    for (a.chunkd = 1; a.chunkd <= 2; a.chunkd++)
        assert_int_equal(FSM_RIG_LEADER_OP(r, CHUNKD_ADD, chunkd_add, &a), 0);
    o.chunkd = 1;
    o.by = 3;
    assert_int_equal(FSM_RIG_LEADER_OP(r, REPLACED, replaced, &o), EINVAL);
    o.by = 1;
    assert_int_equal(FSM_RIG_LEADER_OP(r, REPLACED, replaced, &o), EINVAL);
    o.by = 2;
    assert_int_equal(FSM_RIG_LEADER_OP(r, REPLACED, replaced, &o), 0);
    struct fsm *g = fsm_rig_reload(r->f);
    assert_true(fsm_member_next(g, 0, &m));
    assert_int_equal(m.replaced_by, 2);
    fsm_free(g);
    o.by = 0;
    assert_int_equal(FSM_RIG_LEADER_OP(r, REPLACED, replaced, &o), 0);
    assert_true(fsm_member_next(r->f, 0, &m));
    assert_int_equal(m.replaced_by, 0);
    o.chunkd = 3;
    assert_int_equal(FSM_RIG_LEADER_OP(r, REPLACED, replaced, &o), ENOENT);
}

/* ---- feature levels ---- */

static unsigned saved_version(struct fsm *f)
{
    uint8_t head[CKPT_HEADER];
    int fd = memfd_create("ckpt", MFD_CLOEXEC);

    assert_int_equal(fsm_save(f, fd), 0);
    assert_int_equal(pread(fd, head, sizeof(head), 0), sizeof(head));
    close(fd);
    return le_get32(head + 8);
}

static void test_levels(void **state)
{
    struct fsm_rig *r = *state; /* at level 0 */

    assert_int_equal(fsm_feature_level(r->f), 0);
    assert_int_equal(saved_version(r->f), CKPT_VERSION_LEVEL_0); /* the version before can go on */
    uint64_t digest = fsm_digest(r->f);
    assert_int_equal(metad(r, 2, "b:1", "", "", false), ERR_VERSION); /* no leader logs it */
    assert_non_null(r->res.stop);
    assert_int_equal(feature(r, FSM_FEATURE_MAX + 1), ERR_VERSION);
    assert_non_null(r->res.stop);
    assert_int_equal(fsm_digest(r->f), digest);
    assert_true(fsm_rig_create(r, FSM_ROOT_INO, "old", REG_MODE) >
                0); /* all that there was before */
    assert_int_equal(feature(r, 1), 0);
    assert_null(r->res.stop);
    assert_int_equal(feature(r, 1), EALREADY);
    assert_int_equal(feature(r, 0), EALREADY);
    assert_int_equal(saved_version(r->f), CKPT_VERSION_LEVEL_1);
    assert_int_equal(metad(r, 2, "b:1", "", "", false), 0);
    struct fsm *g = fsm_rig_reload(r->f);
    assert_int_equal(fsm_feature_level(g), 1);
    fsm_free(g);
    assert_int_equal(feature(r, 2), 0);
    assert_int_equal(saved_version(r->f), CKPT_VERSION);
    fsm_free(fsm_rig_reload(r->f));
}

/* A recovered directory is the first metad's, whoever is in the table; numbers that were given are given to nobody
 * else. */
static void test_alone(void **state)
{
    struct fsm_rig *r = *state;
    struct fsm_metad m;

    assert_int_equal(metad(r, 2, "b:1", "", "", false), 0);
    assert_int_equal(metad(r, 3, "c:1", "", "", false), 0);
    assert_int_equal(metad(r, 1, "", "", "", true), 0);
    assert_int_equal(metad(r, 1, "a:1", "", "", false), EEXIST);
    assert_int_equal(metad_alone(r, 1), 0);
    assert_int_equal(fsm_metads(r->f), 1);
    assert_true(fsm_metad_find(r->f, 1, &m));
    assert_int_equal(fsm_metad_new(r->f), 4);
    assert_int_equal(metad(r, 1, "a:1", "", "", false), 0);
    assert_int_equal(metad_fresh(r, 1, "e:1"), EEXIST); /* not this one's any more */
    assert_int_equal(metad_fresh(r, 4, "d:1"), 0);
    assert_int_equal(metad_fresh(r, 4, "d:1"), EEXIST);
    assert_int_equal(metad_alone(r, 4), 0);
    assert_int_equal(fsm_metads(r->f), 1);
    assert_true(fsm_metad_find(r->f, 4, &m));
    assert_string_equal(m.addr, "d:1");
}

/* To what all metads know: one that has not told, or is older, holds it back. */
static void test_upgrade_to(void **state)
{
    struct fsm_rig *r = *state;
    uint32_t behind;

    assert_int_equal(fsm_upgrade_to(r->f, &behind), FSM_FEATURE_MAX); /* alone */
    assert_int_equal(metad(r, 2, "b:1", "", "", false), 0);
    assert_int_equal(metad(r, 3, "c:1", "", "", false), 0);
    assert_int_equal(fsm_upgrade_to(r->f, &behind), 0);
    assert_int_equal(behind, 2);
    fsm_metad_newest(r->f, 2, FSM_FEATURE_MAX + 1); /* newer than we are */
    assert_int_equal(fsm_upgrade_to(r->f, &behind), 0);
    assert_int_equal(behind, 3);
    fsm_metad_newest(r->f, 3, FSM_FEATURE_MAX);
    assert_int_equal(fsm_upgrade_to(r->f, &behind), FSM_FEATURE_MAX);
    assert_int_equal(behind, 0);
    fsm_metad_self(r->f, 3);
    assert_int_equal(fsm_upgrade_to(r->f, &behind), 0);
    assert_int_equal(behind, 1);
    uint64_t digest = fsm_digest(r->f);
    fsm_metad_newest(r->f, 1, 7);
    assert_int_equal(fsm_digest(r->f), digest); /* no part of the state */
}

/* A checkpoint of a level that this program does not know is refused, and says so. */
static void test_newer_level(void **state)
{
    struct fsm_rig *r = *state;
    char why[256];
    struct fsm *g;
    int fd = memfd_create("ckpt", MFD_CLOEXEC);

    assert_int_equal(fsm_save(r->f, fd), 0);
    size_t n = (size_t)lseek(fd, 0, SEEK_END);
    uint8_t *p = malloc(n);
    assert_int_equal(pread(fd, p, n, 0), n);
    size_t at = ckpt_section(p, n, CKPT_CLUSTER);
    assert_true(at > 0);
    le_put32(p + at + CKPT_SECTION, FSM_FEATURE_MAX + 1);
    ckpt_fix(p, n);
    assert_int_equal(pwrite(fd, p, n, 0), n);
    free(p);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(fsm_new(&g), 0);
    assert_int_equal(fsm_load(g, fd, why), -ERR_VERSION);
    assert_non_null(strstr(why, "feature level"));
    fsm_free(g);
    close(fd);
}

/* ---- what this version does not know ---- */

/* Applies a CreateOp with a field that no CreateOp has; where: 0 in it, 1 in MetaOp instead of it, 2 in Command. */
static int strange(struct fsm_rig *r, int where, const char *name)
{
    static uint8_t one[] = {1};
    ProtobufCMessageUnknownField u = {
        .tag = 999, .wire_type = PROTOBUF_C_WIRE_TYPE_VARINT, .len = 1, .data = one};
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    ProtobufCMessage *at[] = {&c.base, &op.base, &cmd.base};

    c.parent = FSM_ROOT_INO;
    c.name = fsm_rig_bytes(name);
    c.mode = REG_MODE;
    c.ino = r->next_ino++;
    at[where]->n_unknown_fields = 1;
    at[where]->unknown_fields = &u;
    if (where != 1) {
        op.op_case = REPLFS__META_OP__OP_CREATE;
        op.create = &c;
    }
    cmd.op = &op;
    fsm_apply(r->f, ++r->index, &cmd, &r->res);
    return r->res.code;
}

static void test_unknown(void **state)
{
    struct fsm_rig *r = *state; /* at level 0 */

    assert_int_equal(strange(r, 0, "a"), 0); /* as it always was: leaders logged what came */
    assert_int_equal(strange(r, 2, "b"), 0);
    assert_int_equal(strange(r, 1, "c"), ERR_VERSION);
    assert_non_null(r->res.stop);
    assert_int_equal(feature(r, 1), 0);
    for (int where = 0; where < 3; where++) {
        uint64_t digest = fsm_digest(r->f);
        assert_int_equal(strange(r, where, "d"), ERR_VERSION);
        assert_non_null(r->res.stop);
        assert_int_equal(fsm_digest(r->f), digest);
    }
    Replfs__MetaOp none = REPLFS__META_OP__INIT; /* malformed is another thing */
    assert_int_equal(fsm_rig_op(r, &none), EINVAL);
    assert_null(r->res.stop);
}

/* One inode changed behind fsm_apply's back: the digest tells. */
static void test_digest_tells(void **state)
{
    struct fsm_rig *r = *state;
    struct fsm *g;

    assert_true(fsm_rig_create(r, FSM_ROOT_INO, "a", REG_MODE) > 0);
    g = fsm_rig_reload(r->f);
    assert_int_equal(fsm_digest(r->f), fsm_digest(g));
    struct fsm_rig other = *r;
    other.f = g;
    other.session = 0;
    assert_int_equal(fsm_rig_chmod(&other, (uint64_t)fsm_rig_lookup(r, FSM_ROOT_INO, "a"), 0600),
                     0);
    assert_int_not_equal(fsm_digest(r->f), fsm_digest(g));
    fsm_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_metads, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_metads_bounded, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_settings, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_settings_together, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_lowered_term, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_cap_key, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_replaced, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_levels, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_alone, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_upgrade_to, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_newer_level, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_unknown, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_digest_tells, setup, fsm_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
