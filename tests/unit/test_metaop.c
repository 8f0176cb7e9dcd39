/* The table of operations: every operation of meta.proto has its row, and what the rows say of leases, quotas,
 * memory, lateness and the tree below is what metad and the client have always done, written down here by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "metaop.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))
#define INO 100u
#define DIR 200u
#define DIR2 300u
#define SRC 400u

static ProtobufCBinaryData name = {1, (uint8_t *)"a"}, name2 = {1, (uint8_t *)"b"};
static uint64_t inos[] = {INO, INO + 1};
static int64_t times[] = {7, 8};

/* ---- one of each ---- */

static Replfs__CreateOp create;
static Replfs__UnlinkOp unlink_op, rmdir_op;
static Replfs__RenameOp rename_op;
static Replfs__LinkOp link_op;
static Replfs__SetattrOp setattr;
static Replfs__CommitOp commit, moved;
static Replfs__SetGoalOp set_goal;
static Replfs__AtimeOp atime;
static Replfs__XattrOp xattr, no_xattr;
static Replfs__CloneOp clone_op;
static Replfs__FallocateOp fallocate_op, punch;
static Replfs__QuotaOp quota;
static Replfs__ReapOp reap;

static int fill(void **state)
{
    (void)state;
    replfs__create_op__init(&create);
    create.parent = DIR;
    create.name = name;
    create.ino = INO;
    replfs__unlink_op__init(&unlink_op);
    unlink_op.parent = DIR;
    unlink_op.name = name;
    unlink_op.ino = INO; /* a condition */
    rmdir_op = unlink_op;
    rmdir_op.dir = true;
    replfs__rename_op__init(&rename_op);
    rename_op.parent = DIR;
    rename_op.name = name;
    rename_op.new_parent = DIR2;
    rename_op.new_name = name2;
    replfs__link_op__init(&link_op);
    link_op.ino = INO;
    link_op.parent = DIR;
    link_op.name = name;
    replfs__setattr_op__init(&setattr);
    setattr.ino = INO;
    replfs__commit_op__init(&commit);
    commit.ino = INO;
    moved = commit;
    moved.over = 5;
    replfs__set_goal_op__init(&set_goal);
    set_goal.ino = inos;
    set_goal.n_ino = 2;
    replfs__atime_op__init(&atime);
    atime.ino = inos;
    atime.atime_ns = times;
    atime.n_ino = atime.n_atime_ns = 2;
    replfs__xattr_op__init(&xattr);
    xattr.ino = INO;
    no_xattr = xattr;
    no_xattr.remove = true;
    replfs__clone_op__init(&clone_op);
    clone_op.src = SRC;
    clone_op.dst = INO;
    replfs__fallocate_op__init(&fallocate_op);
    fallocate_op.ino = INO;
    punch = fallocate_op;
    punch.mode = 3;
    replfs__quota_op__init(&quota);
    quota.ino = INO;
    replfs__reap_op__init(&reap);
    reap.ino = inos;
    reap.n_ino = 2;
    return 0;
}

struct lease {
    uint64_t ino;
    bool write;
    const ProtobufCBinaryData *name; /* and so is what it refers to */
};

/* What service_needs asked for before it read the table. */
static const struct sample {
    Replfs__MetaOp__OpCase op_case;
    void *op;
    struct lease leases[3];
    unsigned n;
    uint64_t charged, late;
    bool grows;
    enum metaop_weight weight;
    enum metaop_below below;
} samples[] = {
    {REPLFS__META_OP__OP_CREATE,
     &create,
     {{DIR, true, NULL}},
     1,
     .charged = DIR,
     .grows = true,
     .weight = METAOP_WEIGHT_ATTRS},
    {REPLFS__META_OP__OP_UNLINK, &unlink_op, {{DIR, true, &name}}, 1, .charged = 0},
    {REPLFS__META_OP__OP_UNLINK, &rmdir_op, {{DIR, true, &name}}, 1, .below = METAOP_BELOW_EMPTY},
    {REPLFS__META_OP__OP_RENAME,
     &rename_op,
     {{DIR, true, &name}, {DIR2, true, &name2}},
     2,
     .charged = DIR2,
     .weight = METAOP_WEIGHT_MOVE,
     .below = METAOP_BELOW_EMPTY},
    {REPLFS__META_OP__OP_LINK, &link_op, {{INO, true, NULL}, {DIR, true, NULL}}, 2, .grows = true},
    {REPLFS__META_OP__OP_SETATTR, &setattr, {{INO, true, NULL}}, 1, .late = INO},
    {REPLFS__META_OP__OP_COMMIT,
     &commit,
     {{INO, true, NULL}},
     1,
     .charged = INO,
     .late = INO,
     .grows = true,
     .weight = METAOP_WEIGHT_OVER},
    {REPLFS__META_OP__OP_COMMIT,
     &moved,
     {{INO, true, NULL}},
     1,
     .charged = INO,
     .late = INO,
     .grows = false,
     .weight = METAOP_WEIGHT_OVER},
    {REPLFS__META_OP__OP_SET_GOAL,
     &set_goal,
     {{INO, true, NULL}, {INO + 1, true, NULL}},
     2,
     .weight = METAOP_WEIGHT_INODES},
    {REPLFS__META_OP__OP_ATIME, &atime, {{0}}, 0, .charged = 0},
    {REPLFS__META_OP__OP_XATTR,
     &xattr,
     {{INO, true, NULL}},
     1,
     .grows = true,
     .weight = METAOP_WEIGHT_ATTRS},
    {REPLFS__META_OP__OP_XATTR,
     &no_xattr,
     {{INO, true, NULL}},
     1,
     .grows = false,
     .weight = METAOP_WEIGHT_ATTRS},
    {REPLFS__META_OP__OP_CLONE,
     &clone_op,
     {{SRC, false, NULL}, {INO, true, NULL}},
     2,
     .charged = INO,
     .grows = true},
    {REPLFS__META_OP__OP_FALLOCATE,
     &fallocate_op,
     {{INO, true, NULL}},
     1,
     .charged = INO,
     .grows = true},
    {REPLFS__META_OP__OP_FALLOCATE, &punch, {{INO, true, NULL}}, 1, .charged = INO, .grows = false},
    {REPLFS__META_OP__OP_QUOTA, &quota, {{INO, true, NULL}}, 1, .below = METAOP_BELOW_ALL},
    {REPLFS__META_OP__OP_REAP, &reap, {{0}}, 0, .charged = 0},
};

static Replfs__MetaOp op_of(const struct sample *s)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    op.op_case = s->op_case;
    op.create = s->op; /* any member of the union */
    return op;
}

/* ---- every operation has its row ---- */

static void test_every_operation_is_classified(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *d = &replfs__meta_op__descriptor;
    bool seen[METAOP_COUNT] = {false};
    assert_int_equal(d->n_fields, METAOP_COUNT - 1);
    for (unsigned i = 0; i < d->n_fields; i++) {
        Replfs__MetaOp op = REPLFS__META_OP__INIT;
        op.op_case = (Replfs__MetaOp__OpCase)d->fields[i].id;
        enum metaop m = metaop_of(&op);
        assert_int_not_equal(m, METAOP_NONE);
        assert_false(seen[m]);
        seen[m] = true;
        assert_string_equal(metaop_name(m), d->fields[i].name);
        assert_int_not_equal(metaop_sender(m), METAOP_BY_NOBODY);
    }
}

static void test_of_none_nothing_is_said(void **state)
{
    (void)state;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(metaop_of(&op), METAOP_NONE);
        assert_int_equal(metaop_below(&op), METAOP_BELOW_NOTHING);
        assert_int_equal(metaop_charged(&op), 0);
        assert_int_equal(metaop_late(&op), 0);
        assert_false(metaop_grows(&op));
        assert_false(metaop_does(&op, METAOP_CHANGES));
        op.op_case = (Replfs__MetaOp__OpCase)999;
    }
    assert_int_equal(metaop_sender(METAOP_NONE), METAOP_BY_NOBODY);
    assert_string_equal(metaop_name(METAOP_NONE), "none");
}

/* What a version before knows is of a level that it knows. */
static void test_levels(void **state)
{
    (void)state;
    assert_int_equal(metaop_level(METAOP_NONE), 0);
    assert_int_equal(metaop_level(METAOP_RECOVER), 0);
    assert_int_equal(metaop_level(METAOP_METAD), 1);
    assert_int_equal(metaop_level(METAOP_CHUNKD_SET), 2);
    assert_int_equal(metaop_level(METAOP_COMPACT), 2);
    for (unsigned m = 1; m < METAOP_COUNT; m++)
        assert_true(metaop_level((enum metaop)m) <= METAOP_LEVEL_MAX);
}

static void test_senders(void **state)
{
    (void)state;
    static const enum metaop leader[] = {
        METAOP_SESSION_OPEN,  METAOP_REAP,        METAOP_RESERVE, METAOP_CHUNKD_ADD,
        METAOP_CHUNKD_REMOVE, METAOP_INCARNATION, METAOP_HOLDS,   METAOP_FUTURE,
        METAOP_RECOVER,       METAOP_METAD,       METAOP_CONFIG,  METAOP_CAP_KEY,
        METAOP_REPLACED,      METAOP_FEATURE,     METAOP_CHECK,   METAOP_CHUNKD_SET,
        METAOP_COMPACT};
    static const enum metaop client[] = {METAOP_CREATE,   METAOP_UNLINK,    METAOP_RENAME,
                                         METAOP_LINK,     METAOP_SETATTR,   METAOP_COMMIT,
                                         METAOP_SET_GOAL, METAOP_ATIME,     METAOP_XATTR,
                                         METAOP_CLONE,    METAOP_FALLOCATE, METAOP_QUOTA};
    assert_int_equal(N(leader) + N(client) + 1, METAOP_COUNT - 1);
    for (unsigned i = 0; i < N(leader); i++)
        assert_int_equal(metaop_sender(leader[i]), METAOP_BY_LEADER);
    for (unsigned i = 0; i < N(client); i++)
        assert_int_equal(metaop_sender(client[i]), METAOP_BY_CLIENT);
    assert_int_equal(metaop_sender(METAOP_SESSION_CLOSE), METAOP_BY_OWNER);
}

/* ---- what they touch ---- */

struct got {
    struct lease v[8];
    unsigned n;
};

static void collect(void *arg, const struct metaop_touch *t)
{
    struct got *g = arg;
    enum metaop_lease l = metaop_lease(t->how);
    assert_true(!metaop_resolves(t->how) || t->name);
    if (l != METAOP_LEASE_ANY)
        g->v[g->n++] = (struct lease){t->ino, l == METAOP_LEASE_NONE,
                                      metaop_resolves(t->how) ? t->name : NULL};
}

static void test_leases_are_those_of_before(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N(samples); i++) {
        const struct sample *s = &samples[i];
        Replfs__MetaOp op = op_of(s);
        struct got g = {.n = 0};
        metaop_visit(&op, collect, &g);
        print_message("%s\n", metaop_name(metaop_of(&op)));
        assert_int_equal(g.n, s->n);
        for (unsigned k = 0; k < s->n; k++) {
            assert_int_equal(g.v[k].ino, s->leases[k].ino);
            assert_int_equal(g.v[k].write, s->leases[k].write);
            assert_int_equal(g.v[k].name != NULL, s->leases[k].name != NULL);
            if (g.v[k].name)
                assert_memory_equal(g.v[k].name->data, s->leases[k].name->data, 1);
        }
    }
}

static void test_columns_are_those_of_before(void **state)
{
    (void)state;
    for (unsigned i = 0; i < N(samples); i++) {
        const struct sample *s = &samples[i];
        Replfs__MetaOp op = op_of(s);
        print_message("%s\n", metaop_name(metaop_of(&op)));
        assert_int_equal(metaop_charged(&op), s->charged);
        assert_int_equal(metaop_late(&op), s->late);
        assert_int_equal(metaop_grows(&op), s->grows);
        assert_int_equal(metaop_weight(metaop_of(&op)), s->weight);
        assert_int_equal(metaop_below(&op), s->below);
    }
}

static bool sampled(enum metaop m)
{
    for (unsigned i = 0; i < N(samples); i++) {
        Replfs__MetaOp op = op_of(&samples[i]);
        if (metaop_of(&op) == m)
            return true;
    }
    return false;
}

static void test_every_operation_of_clients_is_sampled(void **state)
{
    (void)state;
    for (unsigned m = 1; m < METAOP_COUNT; m++)
        assert_true(metaop_sender((enum metaop)m) != METAOP_BY_CLIENT || sampled((enum metaop)m));
}

struct sought {
    uint64_t ino;
    bool found;
};

static void seek(void *arg, const struct metaop_touch *t)
{
    struct sought *s = arg;
    s->found |= t->ino == s->ino;
}

/* Whatever an operation of a client names is touched somehow: each field of 64 fixed bits, but for those that are no
 * inode, and for UnlinkOp.ino, which is a condition. */
static void test_no_inode_is_left_out(void **state)
{
    (void)state;
    static const char *const inode_fields[] = {"ino", "parent", "new_parent", "src", "dst"};
    for (unsigned i = 0; i < N(samples); i++) {
        Replfs__MetaOp op = op_of(&samples[i]);
        const ProtobufCMessageDescriptor *d = op.create->base.descriptor;
        for (unsigned k = 0; k < N(inode_fields); k++) {
            const ProtobufCFieldDescriptor *f =
                protobuf_c_message_descriptor_get_field_by_name(d, inode_fields[k]);
            if (!f || (metaop_of(&op) == METAOP_UNLINK && !strcmp(f->name, "ino")))
                continue;
            const uint64_t *at =
                (const uint64_t *)(const void *)((const char *)samples[i].op + f->offset);
            struct sought s = {f->label == PROTOBUF_C_LABEL_REPEATED ? INO + 1 : *at, false};
            metaop_visit(&op, seek, &s);
            if (!s.found)
                fail_msg("%s: %s is not touched", metaop_name(metaop_of(&op)), f->name);
        }
    }
}

static void times_of(void *arg, const struct metaop_touch *t)
{
    int64_t *sum = arg;
    assert_int_equal(t->how, METAOP_SEES);
    *sum = *sum * 10 + t->atime_ns;
}

static void test_times_come_along(void **state)
{
    (void)state;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    int64_t sum = 0;
    op.op_case = REPLFS__META_OP__OP_ATIME;
    op.atime = &atime;
    metaop_visit(&op, times_of, &sum);
    assert_int_equal(sum, 78);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operation_is_classified),
        cmocka_unit_test(test_of_none_nothing_is_said),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_senders),
        cmocka_unit_test(test_leases_are_those_of_before),
        cmocka_unit_test(test_columns_are_those_of_before),
        cmocka_unit_test(test_every_operation_of_clients_is_sampled),
        cmocka_unit_test(test_no_inode_is_left_out),
        cmocka_unit_test(test_times_come_along),
    };
    return cmocka_run_group_tests(tests, fill, NULL);
}
