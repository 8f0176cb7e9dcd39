/* Quotas of directory trees: each rule by itself, then random commands with everything recounted
 * from scratch: what a quota says is in use is the sum over the inodes, no command takes it beyond
 * its limit, and none is refused without a reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "metad/fsm/fsm_format.h"
#include "tests/fuzz/ckpt_fix.h"
#include "tests/unit/fsm_rig.h"

#define BLK 4096u

static int set_as(struct fsm_rig *r, uint64_t ino, uint64_t bytes, uint64_t inodes, uint32_t uid)
{
    Replfs__QuotaOp o = REPLFS__QUOTA_OP__INIT;
    o.ino = ino;
    o.max_bytes = bytes;
    o.max_inodes = inodes;
    o.uid = uid;
    return FSM_RIG_OP(r, QUOTA, quota, &o);
}

static int set(struct fsm_rig *r, uint64_t ino, uint64_t bytes, uint64_t inodes)
{
    return set_as(r, ino, bytes, inodes, 0);
}

/* The quota whose root ino is; ino 0 in it: there is none. */
static struct fsm_quota of(struct fsm_rig *r, uint64_t ino)
{
    struct fsm_quota q = {0};
    if (!fsm_quota_get(r->f, fsm_quota_realm(r->f, ino), &q) || q.ino != ino)
        q = (struct fsm_quota){0};
    return q;
}

static void expect_use(struct fsm_rig *r, uint64_t ino, uint64_t bytes, uint64_t inodes)
{
    struct fsm_quota q = of(r, ino);
    assert_int_equal(q.ino, ino);
    assert_int_equal(q.bytes, bytes);
    assert_int_equal(q.inodes, inodes);
}

static uint64_t make(struct fsm_rig *r, uint64_t dir, const char *name, uint32_t mode)
{
    int64_t ino = fsm_rig_create(r, dir, name, mode);
    assert_true(ino > 0);
    return (uint64_t)ino;
}

static int fill(struct fsm_rig *r, uint64_t ino, uint64_t off, uint32_t len)
{
    return fsm_rig_commit(r, ino, off, len, r->next_chunk++, 0);
}

static uint64_t left(struct fsm_rig *r, uint64_t ino)
{
    Replfs__Attr a = fsm_rig_attr(r, ino);
    assert_int_equal(a.flags & REPLFS__ATTR_FLAG__ATTR_QUOTA, REPLFS__ATTR_FLAG__ATTR_QUOTA);
    return a.quota_left;
}

/* ---- rules ---- */

static int fits(struct fsm_rig *r, uint64_t ino, const char *name, size_t len)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__XattrOp x = REPLFS__XATTR_OP__INIT;

    x.ino = ino;
    x.name = fsm_rig_bytes(name);
    x.value.len = len;
    op.op_case = REPLFS__META_OP__OP_XATTR;
    op.xattr = &x;
    return fsm_quota_attrs_fit(r->f, &op);
}

static int create_fits(struct fsm_rig *r, uint64_t dir, const char *name, uint32_t mode)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;

    c.parent = dir;
    c.name = fsm_rig_bytes(name);
    c.mode = mode;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &c;
    return fsm_quota_attrs_fit(r->f, &op);
}

/* Names and values count with the bytes; whether they fit is asked before a command is logged, and
 * never when it is applied. */
static void test_attrs(void **state)
{
    static const uint8_t value[20000],
        acl[] = {2, 0, 0,   0,   1,   0,   6,  0, 255, 255, 255, 255, 2,   0,  4,
                 0, 1, 0,   0,   0,   4,   0,  4, 0,   255, 255, 255, 255, 16, 0,
                 4, 0, 255, 255, 255, 255, 32, 0, 0,   0,   255, 255, 255, 255};
    struct fsm_rig *r = *state;
    uint64_t d = make(r, 1, "d", DIR_MODE), f = make(r, d, "f", REG_MODE);

    assert_false(fsm_has_quotas(r->f));
    assert_int_equal(fits(r, f, "user.x", 60000), 0);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.x", value, 993, 0),
                     0); /* before: counted as well */
    assert_int_equal(set(r, d, 10000, 0), 0);
    assert_true(fsm_has_quotas(r->f));
    assert_int_equal(of(r, d).attrs, 1000);
    assert_int_equal(left(r, f), 9000);
    assert_int_equal(fits(r, f, "user.y", 8993), 0);
    assert_int_equal(fits(r, f, "user.y", 8994), -EDQUOT);
    assert_int_equal(fits(r, f, "user.x", 9993), 0); /* takes the place of the other */
    assert_int_equal(fits(r, f, "user.x", 9994), -EDQUOT);
    assert_int_equal(fill(r, f, 0, BLK), 0);
    assert_int_equal(fits(r, f, "user.y", 8993), -EDQUOT);
    expect_use(r, d, BLK, 2);
    /* what is in a log is done all the same, and others' data has the limit that it had */
    assert_int_equal(fsm_rig_setxattr(r, f, "user.y", value, sizeof value, 0), 0);
    assert_int_equal(fill(r, f, BLK, BLK), 0);
    assert_int_equal(of(r, d).attrs, 1000 + 7 + sizeof value);
    assert_int_equal(left(r, f), 0);
    assert_int_equal(fsm_rig_rmxattr(r, f, "user.y"), 0);
    assert_int_equal(of(r, d).attrs, 1000);
    /* inherited ACLs */
    assert_int_equal(create_fits(r, d, "new", REG_MODE), 0);
    assert_int_equal(fsm_rig_setxattr(r, d, "system.posix_acl_default", acl, sizeof acl, 0), 0);
    assert_int_equal(create_fits(r, d, "new", REG_MODE), 0);
    assert_int_equal(set(r, d, 9300, 0), 0);
    assert_int_equal(create_fits(r, d, "new", REG_MODE), -EDQUOT);
    assert_int_equal(create_fits(r, d, "new", S_IFLNK), 0);
    assert_int_equal(create_fits(r, d, "f", REG_MODE), 0); /* EEXIST, or once more */
    /* it goes with the inode, or with the quota */
    assert_int_equal(fsm_rig_unlink(r, d, "f", false), 0);
    assert_int_equal(fsm_rig_reap(r, f), 0);
    assert_int_equal(of(r, d).attrs, 25 + sizeof acl);
    assert_int_equal(fsm_rig_rmxattr(r, d, "system.posix_acl_default"), 0);
    assert_int_equal(of(r, d).attrs, 0);
}

static void test_set(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t d = make(r, 1, "d", DIR_MODE), f = make(r, 1, "f", REG_MODE);

    assert_int_equal(set_as(r, d, 100, 0, 1000), EPERM);
    assert_int_equal(set(r, f, 100, 0), ENOTDIR);
    assert_int_equal(set(r, 999, 100, 0), ENOENT);
    assert_int_equal(set(r, d, 0, 0), ENODATA);
    assert_int_equal(fsm_rig_attr(r, d).flags, 0);
    assert_int_equal(set(r, d, 10 * BLK, 3), 0);
    assert_int_equal(r->res.ino, d);
    expect_use(r, d, 0, 1);
    assert_int_equal(left(r, d), 10 * BLK);

    uint64_t a = make(r, d, "a", REG_MODE);
    assert_int_equal(fsm_quota_realm(r->f, a), 1);
    make(r, d, "b", S_IFIFO | 0644);
    assert_int_equal(fsm_rig_create(r, d, "c", REG_MODE), -EDQUOT);
    assert_int_equal(fsm_rig_create(r, d, "c", DIR_MODE), -EDQUOT);
    assert_int_equal(fsm_rig_create(r, d, "a", REG_MODE), -EEXIST); /* tells more */
    expect_use(r, d, 0, 3);
    assert_int_equal(fsm_rig_link(r, a, d, "a2"), 0); /* no inode of its own */
    assert_int_equal(set(r, d, 10 * BLK, 2), 0);      /* below the present use */
    assert_int_equal(fsm_rig_create(r, d, "c", REG_MODE), -EDQUOT);
    assert_int_equal(fsm_rig_unlink(r, d, "b", false), 0);
    assert_int_equal(fsm_rig_reap(r, r->res.ino), 0);
    expect_use(r, d, 0, 2);
    assert_int_equal(set(r, d, 10 * BLK, 0), 0);
    make(r, d, "c", REG_MODE);
    assert_int_equal(set(r, d, 0, 0), 0);
    assert_int_equal(of(r, d).ino, 0);
    assert_int_equal(fsm_quota_realm(r->f, a), 0);
    assert_int_equal(fsm_rig_attr(r, a).flags, 0);
}

static void test_bytes(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t d = make(r, 1, "d", DIR_MODE), f = make(r, d, "f", REG_MODE);

    assert_int_equal(set(r, d, 10 * BLK, 0), 0);
    assert_int_equal(fill(r, f, 0, 8 * BLK), 0);
    assert_int_equal(left(r, f), 2 * BLK);
    uint64_t before = fsm_digest(r->f);
    assert_int_equal(fill(r, f, 100 * BLK, 3 * BLK), EDQUOT);
    assert_int_equal(fill(r, f, 7 * BLK, 4 * BLK), EDQUOT);
    assert_int_equal(fsm_digest(r->f), before);
    assert_int_equal(fill(r, f, 5 * BLK, 5 * BLK), 0); /* three blocks replaced, two new */
    assert_int_equal(left(r, f), 0);
    assert_int_equal(fill(r, f, 0, 10 * BLK), 0); /* only replaced */
    assert_int_equal(fill(r, f, 1, 4 * BLK), 0);
    assert_int_equal(fill(r, f, 9 * BLK, BLK + 1), EDQUOT);
    expect_use(r, d, 10 * BLK, 2);

    Replfs__Extent e[3] = {REPLFS__EXTENT__INIT, REPLFS__EXTENT__INIT, REPLFS__EXTENT__INIT};
    Replfs__Extent *p[3] = {&e[0], &e[1], &e[2]};
    Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
    assert_int_equal(fsm_rig_truncate(r, f, 8 * BLK), 0);
    assert_int_equal(left(r, f), 2 * BLK);
    for (int k = 0; k < 3; k++) { /* blocks 9, 8-9, 7-8: two are new, out of order and twice */
        e[k].file_off = (uint64_t)(9 - k) * BLK;
        e[k].len = k ? 2 * BLK : BLK;
        e[k].chunk = r->next_chunk++;
    }
    o.ino = f;
    o.n_extents = 3;
    o.extents = p;
    assert_int_equal(FSM_RIG_OP(r, COMMIT, commit, &o), 0);
    expect_use(r, d, 10 * BLK, 2);
    assert_int_equal(fsm_rig_truncate(r, f, 1000 * BLK), 0); /* a hole costs nothing */
    assert_int_equal(set(r, d, BLK, 0), 0);
    assert_int_equal(left(r, f), 0);
    assert_int_equal(fill(r, f, 0, BLK), 0); /* overwriting goes on above the limit */
    assert_int_equal(fsm_rig_truncate(r, f, 0), 0);
    expect_use(r, d, 0, 2);

    assert_int_equal(fill(r, f, 0, BLK), 0);
    assert_int_equal(fsm_rig_unlink(r, d, "f", false), 0);
    expect_use(r, d, BLK, 2); /* open perhaps: until it is reaped */
    assert_int_equal(fsm_rig_reap(r, f), 0);
    expect_use(r, d, 0, 1);
}

static void test_nested(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t d = make(r, 1, "d", DIR_MODE), e = make(r, d, "e", DIR_MODE);
    uint64_t g = make(r, e, "g", DIR_MODE), f = make(r, g, "f", REG_MODE);
    uint64_t x = make(r, d, "x", REG_MODE);

    assert_int_equal(fill(r, f, 0, 2 * BLK), 0);
    assert_int_equal(fill(r, x, 0, BLK), 0);
    assert_int_equal(set(r, e, 5 * BLK, 0), 0);
    expect_use(r, e, 2 * BLK, 3);
    assert_int_equal(set(r, d, 4 * BLK, 0), 0); /* around one that is there */
    expect_use(r, d, 3 * BLK, 5);
    assert_int_equal(of(r, e).outer, fsm_quota_realm(r->f, d));
    assert_int_equal(left(r, f), BLK); /* the outer one is nearer to its limit */
    assert_int_equal(fill(r, f, 2 * BLK, 2 * BLK), EDQUOT);
    assert_int_equal(fill(r, f, 2 * BLK, BLK), 0);
    expect_use(r, e, 3 * BLK, 3);
    expect_use(r, d, 4 * BLK, 5);
    assert_int_equal(set(r, g, 0, 3), 0); /* within both */
    expect_use(r, g, 3 * BLK, 2);
    assert_int_equal(set(r, 1, 0, 1000), 0); /* around everything */
    expect_use(r, 1, 4 * BLK, 6);
    assert_int_equal(of(r, 1).outer, 0);
    assert_int_equal(set(r, e, 0, 0), 0); /* from the middle */
    assert_int_equal(of(r, g).outer, fsm_quota_realm(r->f, d));
    assert_int_equal(fsm_quota_realm(r->f, e), fsm_quota_realm(r->f, d));
    expect_use(r, d, 4 * BLK, 5);
    expect_use(r, g, 3 * BLK, 2);
    fsm_free(fsm_rig_reload(r->f));
    assert_int_equal(set(r, 1, 0, 0), 0);
    assert_int_equal(set(r, d, 0, 0), 0);
    assert_int_equal(of(r, g).outer, 0);
    expect_use(r, g, 3 * BLK, 2);
}

static void test_rename(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = make(r, 1, "a", DIR_MODE), b = make(r, 1, "b", DIR_MODE);
    uint64_t f = make(r, 1, "f", REG_MODE), g = make(r, a, "g", REG_MODE);

    assert_int_equal(set(r, a, 10 * BLK, 0), 0);
    assert_int_equal(set(r, b, 4 * BLK, 3), 0);
    assert_int_equal(fill(r, f, 0, 5 * BLK), 0);
    assert_int_equal(fill(r, g, 0, 3 * BLK), 0);
    assert_int_equal(fsm_rig_rename(r, 1, "f", b, "f", 0), EDQUOT);
    expect_use(r, b, 0, 1);
    assert_int_equal(fsm_rig_rename(r, 1, "f", a, "f", 0), 0);
    expect_use(r, a, 8 * BLK, 3);
    assert_int_equal(fsm_rig_rename(r, a, "g", b, "g", 0), 0);
    expect_use(r, a, 5 * BLK, 2);
    expect_use(r, b, 3 * BLK, 2);
    assert_int_equal(fsm_rig_rename(r, a, "f", b, "g", 2), EDQUOT); /* 5 for 3 in a quota of 4 */
    assert_int_equal(set(r, b, 5 * BLK, 3), 0);
    assert_int_equal(fsm_rig_rename(r, a, "f", b, "g", 2), 0); /* each makes room for the other */
    expect_use(r, a, 3 * BLK, 2);
    expect_use(r, b, 5 * BLK, 2);
    assert_int_equal(fsm_rig_link(r, f, 1, "elsewhere"), EXDEV);
    assert_int_equal(fsm_rig_link(r, f, b, "again"), 0);
    assert_int_equal(fsm_rig_rename(r, b, "again", 1, "again", 0), EXDEV);
    assert_int_equal(fsm_rig_rename(r, b, "again", b, "twice", 0), 0);
    assert_int_equal(fsm_rig_unlink(r, b, "twice", false), 0);

    /* a directory takes all below along, hard links counted once */
    uint64_t t = make(r, 1, "t", DIR_MODE), u = make(r, t, "u", DIR_MODE);
    uint64_t h = make(r, u, "h", REG_MODE);
    assert_int_equal(fsm_rig_link(r, h, t, "h2"), 0);
    assert_int_equal(fill(r, h, 0, 7 * BLK), 0);
    assert_int_equal(fsm_rig_rename(r, 1, "t", b, "t", 0), EDQUOT);
    expect_use(r, b, 5 * BLK, 2);
    assert_int_equal(fsm_quota_realm(r->f, h), 0);
    assert_int_equal(fsm_rig_rename(r, 1, "t", a, "t", 0), 0);
    expect_use(r, a, 10 * BLK, 5);
    assert_int_equal(fsm_rig_rename(r, a, "t", a, "t3", 0), 0);

    /* one quota root into another's tree: charged there as well */
    assert_int_equal(fsm_rig_rename(r, 1, "b", u, "b", 0), EDQUOT);
    assert_int_equal(set(r, a, 15 * BLK, 0), 0);
    assert_int_equal(fsm_rig_rename(r, 1, "b", u, "b", 0), 0);
    expect_use(r, a, 15 * BLK, 7);
    expect_use(r, b, 5 * BLK, 2);
    assert_int_equal(fsm_rig_rename(r, a, "t3", 1, "t", 0), 0); /* with b inside */
    expect_use(r, a, 3 * BLK, 2);
    assert_int_equal(of(r, b).outer, 0);
    expect_use(r, b, 5 * BLK, 2);
}

static void test_removed(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t d = make(r, 1, "d", DIR_MODE), e = make(r, d, "e", DIR_MODE);
    uint64_t f = make(r, e, "f", REG_MODE), x = make(r, 1, "x", DIR_MODE);

    assert_int_equal(set(r, d, 10 * BLK, 0), 0);
    assert_int_equal(set(r, e, 5 * BLK, 0), 0);
    assert_int_equal(fill(r, f, 0, 3 * BLK), 0);
    assert_int_equal(fsm_rig_unlink(r, e, "f", false), 0);
    assert_int_equal(fsm_rig_unlink(r, d, "e", true), 0); /* and its quota; f is an orphan of it */
    expect_use(r, d, 3 * BLK, 3);
    assert_int_equal(fsm_quota_realm(r->f, f), fsm_quota_realm(r->f, d));
    assert_int_equal(set(r, e, 5 * BLK, 0), ENOENT);
    assert_int_equal(fsm_rig_reap(r, f), 0);
    assert_int_equal(fsm_rig_reap(r, e), 0);
    expect_use(r, d, 0, 1);
    /* replaced by a rename */
    assert_int_equal(fsm_rig_rename(r, 1, "x", 1, "d", 0), 0);
    assert_int_equal(fsm_quota_realm(r->f, x), 0);
    assert_int_equal(fsm_quota_next(r->f, 0), 0);
    assert_int_equal(fsm_rig_reap(r, d), 0);
}

/* A file that never had a name counts, and stays within its quota when it gets one. */
static void test_tmpfile(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t d = make(r, 1, "d", DIR_MODE), ino = r->next_ino++;
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;

    assert_int_equal(set(r, d, BLK, 2), 0);
    c.parent = d;
    c.mode = REG_MODE;
    c.ino = ino;
    c.tmpfile = true;
    assert_int_equal(FSM_RIG_OP(r, CREATE, create, &c), 0);
    expect_use(r, d, 0, 2);
    c.ino = r->next_ino++;
    assert_int_equal(FSM_RIG_OP(r, CREATE, create, &c), EDQUOT);
    assert_int_equal(fill(r, ino, 0, 2 * BLK), EDQUOT);
    assert_int_equal(fill(r, ino, 0, BLK), 0);
    assert_int_equal(fsm_rig_link(r, ino, 1, "out"), EXDEV);
    assert_int_equal(fsm_rig_link(r, ino, d, "in"), 0);
    expect_use(r, d, BLK, 2);
    assert_int_equal(fsm_rig_unlink(r, d, "in", false), 0);
    assert_int_equal(set(r, d, 0, 0), 0); /* hands over what has no name, too */
    assert_int_equal(fsm_quota_realm(r->f, ino), 0);
    assert_int_equal(fsm_rig_reap(r, ino), 0);
}

/* A file with names inside and outside when the quota is set stays with it until it is removed. */
static void test_names_outside(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t d = make(r, 1, "d", DIR_MODE), f = make(r, d, "in", REG_MODE);

    assert_int_equal(fsm_rig_link(r, f, 1, "out"), 0);
    assert_int_equal(fill(r, f, 0, 2 * BLK), 0);
    assert_int_equal(set(r, d, 3 * BLK, 0), 0);
    expect_use(r, d, 2 * BLK, 2);
    assert_int_equal(fsm_rig_rename(r, 1, "out", 1, "out2", 0), 0); /* not between trees */
    assert_int_equal(fsm_rig_link(r, f, 1, "out3"), EXDEV);
    assert_int_equal(fsm_rig_rename(r, d, "in", 1, "in", 0), EXDEV);
    assert_int_equal(fsm_rig_unlink(r, d, "in", false), 0);
    expect_use(r, d, 2 * BLK, 2);
    fsm_free(fsm_rig_reload(r->f));
    assert_int_equal(fill(r, f, 2 * BLK, 2 * BLK), EDQUOT);
    assert_int_equal(set(r, d, 0, 0), 0); /* finds it although it is not in the tree */
    assert_int_equal(fsm_quota_realm(r->f, f), 0);
    assert_int_equal(fill(r, f, 2 * BLK, 2 * BLK), 0);
}

static void test_numbers(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t first = 0, third = 0;
    char name[16];

    for (unsigned k = 1; k <= FSM_QUOTAS_MAX; k++) {
        snprintf(name, sizeof name, "d%u", k);
        uint64_t d = make(r, 1, name, DIR_MODE);
        first = k == 1 ? d : first;
        third = k == 3 ? d : third;
        assert_int_equal(set(r, d, k, 0), 0);
        assert_int_equal(fsm_quota_realm(r->f, d), k);
    }
    uint64_t d = make(r, 1, "one more", DIR_MODE);
    assert_int_equal(set(r, d, 1, 0), ENOSPC);
    assert_int_equal(set(r, third, 0, 0), 0);
    assert_int_equal(set(r, first, 0, 0), 0);
    assert_int_equal(set(r, d, 1, 0), 0);
    assert_int_equal(fsm_quota_realm(r->f, d), 1);
    assert_int_equal(fsm_quota_next(r->f, 2), 4);
}

static void test_deep(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t d = 1;

    for (int k = 0; k < 3000; k++) {
        d = make(r, d, "d", DIR_MODE);
        if (k % 100 == 0)
            assert_int_equal(set(r, d, 0, 100000), 0);
    }
    assert_int_equal(set(r, 1, 1 << 20, 0), 0);
    expect_use(r, 1, 0, 3001);
    make(r, d, "f", REG_MODE);
    expect_use(r, 1, 0, 3002);
}

static void test_names(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t d = make(r, 1, "d", DIR_MODE), parent = 0;
    uint64_t f = make(r, d, "f", REG_MODE), e = make(r, d, "eee", DIR_MODE);
    const uint8_t *name;
    size_t len;

    assert_int_equal(fsm_dir_name(r->f, e, &parent, &name, &len), 0);
    assert_int_equal(parent, d);
    assert_int_equal(len, 3);
    assert_memory_equal(name, "eee", 3);
    assert_int_equal(fsm_dir_name(r->f, 1, &parent, &name, &len), 0);
    assert_int_equal(len, 0);
    assert_int_equal(fsm_dir_name(r->f, f, &parent, &name, &len), -ENOTDIR);
}

/* ---- a checkpoint that lies ---- */

static void lie(struct fsm *f, uint32_t type, size_t field, size_t width, uint64_t v,
                const char *what)
{
    char why[256];
    struct fsm *g;
    uint8_t le[8];
    int fd = fsm_rig_save(f);
    size_t n = (size_t)lseek(fd, 0, SEEK_END);
    uint8_t *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(p != MAP_FAILED);
    size_t at = ckpt_section(p, n, type);
    le_put64(le, v);
    memcpy(p + at + CKPT_SECTION + field, le, width);
    ckpt_fix(p, n);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(fsm_new(&g), 0);
    int code = fsm_load(g, fd, why);
    if (code != -ERR_CORRUPT || !strstr(why, what))
        fail_msg("section %u field %zu: code %d, \"%s\" instead of \"%s\"", type, field, code, why,
                 what);
    fsm_free(g);
    munmap(p, n);
    close(fd);
}

static void test_lies(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t d = make(r, 1, "d", DIR_MODE), e = make(r, d, "e", DIR_MODE);
    enum { INODE = 74, REALM = 70, QUOTA = 26 }; /* lengths of records, and where the realm is */

    make(r, e, "f", REG_MODE);
    assert_int_equal(set(r, d, 100, 0), 0);
    assert_int_equal(set(r, e, 0, 10), 0);
    lie(r->f, CKPT_QUOTA, 0, 2, 0, "malformed quota");
    lie(r->f, CKPT_QUOTA, 0, 2, 4096, "malformed quota");
    lie(r->f, CKPT_QUOTA, 2, 8, 1, "malformed quota"); /* not that realm's root */
    lie(r->f, CKPT_QUOTA, 2, 8, 77, "malformed quota");
    lie(r->f, CKPT_QUOTA, 10, 8, 0, "malformed quota"); /* without limits */
    lie(r->f, CKPT_INODE, REALM, 2, 5, "not there");    /* the root directory */
    lie(r->f, CKPT_INODE, REALM, 2, 1, "around it");
    lie(r->f, CKPT_INODE, 3 * INODE + REALM, 2, 3, "not there"); /* the file */
    lie(r->f, CKPT_QUOTA, QUOTA, 2, 1, "malformed quota");
}

/* ---- at random ---- */

enum { NODES = 400, NAMES = 6, BLOCKS = 12, OPS = 4000 };

struct world {
    uint64_t ino[NODES]; /* ever made; some are gone */
    unsigned n, ok, refused, edquot, exdev;
    uint64_t rnd;
};

static unsigned rnd(struct world *w, unsigned below)
{
    w->rnd = w->rnd * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(w->rnd >> 33) % below;
}

static uint64_t pick(struct world *w, struct fsm_rig *r, bool dir)
{
    uint64_t ino = w->ino[rnd(w, w->n)];
    for (int tries = 0; tries < 8; tries++) {
        Replfs__Attr a = fsm_rig_attr(r, ino);
        if (a.ino && a.nlink && S_ISDIR(a.mode) == dir)
            break;
        ino = w->ino[rnd(w, w->n)];
    }
    return ino;
}

/* Use and limits by realm. */
struct book {
    struct fsm_quota q[64];
};

static void read_book(struct fsm_rig *r, struct book *b)
{
    memset(b, 0, sizeof *b);
    for (unsigned k = fsm_quota_next(r->f, 0); k; k = fsm_quota_next(r->f, k)) {
        assert_true(k < 64);
        assert_true(fsm_quota_get(r->f, k, &b->q[k]));
    }
}

/* Every sum from scratch, every directory's realm from its place. */
static const char *const attr_names[] = {"user.a", "user.bb", "security.c"};

static uint64_t attr_bytes(struct fsm_rig *r, uint64_t ino)
{
    const uint8_t *value;
    uint64_t bytes = 0;

    for (unsigned k = 0; k < 3; k++) {
        int n = fsm_rig_getxattr(r, ino, attr_names[k], &value);
        bytes += n >= 0 ? strlen(attr_names[k]) + 1 + (unsigned)n : 0;
    }
    return bytes;
}

static void recount(struct world *w, struct fsm_rig *r)
{
    struct book want, got;

    read_book(r, &got);
    want = got;
    for (unsigned k = 0; k < 64; k++)
        want.q[k].bytes = want.q[k].inodes = want.q[k].attrs = 0;
    for (unsigned k = 0; k < w->n; k++) {
        Replfs__Attr a = fsm_rig_attr(r, w->ino[k]);
        if (!a.ino)
            continue;
        unsigned realm = fsm_quota_realm(r->f, a.ino);
        uint64_t parent;
        if (S_ISDIR(a.mode) && a.nlink && got.q[realm].ino != a.ino) {
            assert_int_equal(fsm_parent(r->f, a.ino, &parent), 0);
            assert_int_equal(realm, parent == a.ino ? 0 : fsm_quota_realm(r->f, parent));
        }
        for (; realm; realm = got.q[realm].outer) {
            want.q[realm].bytes += a.allocated;
            want.q[realm].inodes++;
            want.q[realm].attrs += attr_bytes(r, a.ino);
        }
    }
    assert_memory_equal(&want, &got, sizeof got);
}

/* No limit keeps a logged command from being applied: those of old logs were not counted. */
static void do_attr(struct world *w, struct fsm_rig *r)
{
    uint64_t ino = pick(w, r, rnd(w, 2));
    const char *name = attr_names[rnd(w, 3)];

    if (rnd(w, 3) == 0)
        fsm_rig_rmxattr(r, ino, name);
    else
        assert_int_not_equal(fsm_rig_setxattr(r, ino, name, w, rnd(w, 300), 0), EDQUOT);
}

static void do_create(struct world *w, struct fsm_rig *r)
{
    char name[2] = {(char)('a' + rnd(w, NAMES)), 0};
    uint64_t dir = pick(w, r, true);
    if (w->n == NODES)
        return;
    struct fsm_quota q;
    bool full = false;
    for (unsigned k = fsm_quota_realm(r->f, dir); fsm_quota_get(r->f, k, &q); k = q.outer)
        full |= q.max_inodes && q.inodes >= q.max_inodes;
    int64_t ino = fsm_rig_create(r, dir, name, rnd(w, 3) ? REG_MODE : DIR_MODE);
    if (ino > 0)
        w->ino[w->n++] = (uint64_t)ino;
    assert_true(ino == -EDQUOT ? full : ino < 0 || !full);
}

static void do_commit(struct world *w, struct fsm_rig *r)
{
    uint64_t f = pick(w, r, false), grow = 0;
    unsigned at = rnd(w, BLOCKS), n = 1 + rnd(w, BLOCKS - at);
    const struct extmap *map;
    struct fsm_quota q;
    struct ext e;
    bool full = false;
    if (fsm_extents(r->f, f, &map))
        return;
    for (unsigned k = at; k < at + n; k++)
        if (!extmap_find(map, (uint64_t)k * BLK, &e) || e.file_off > (uint64_t)k * BLK)
            grow += BLK;
    for (unsigned k = fsm_quota_realm(r->f, f); fsm_quota_get(r->f, k, &q); k = q.outer)
        full |= q.max_bytes && grow && q.bytes + grow > q.max_bytes;
    assert_int_equal(fill(r, f, (uint64_t)at * BLK, n * BLK), full ? EDQUOT : 0);
}

static void do_rename(struct world *w, struct fsm_rig *r)
{
    char name[2] = {(char)('a' + rnd(w, NAMES)), 0}, nname[2] = {(char)('a' + rnd(w, NAMES)), 0};
    uint64_t from = pick(w, r, true), to = pick(w, r, true);
    unsigned flags = rnd(w, 3);
    uint64_t before = fsm_digest(r->f);
    int code = fsm_rig_rename(r, from, name, to, nname, flags);
    if (code)
        assert_int_equal(fsm_digest(r->f), before);
}

/* Clones and reservations of blocks that may be there already. */
static void do_range(struct world *w, struct fsm_rig *r)
{
    static const uint32_t modes[] = {0, 1, 3, 16};
    uint64_t f = pick(w, r, false), g = pick(w, r, false);
    uint64_t at = (uint64_t)rnd(w, BLOCKS) * BLK, len = (1 + (uint64_t)rnd(w, BLOCKS)) * BLK;
    uint64_t before = fsm_digest(r->f);
    int code = rnd(w, 2) ? fsm_rig_fallocate(r, f, modes[rnd(w, 4)], at, len)
                         : fsm_rig_clone(r, f, (uint64_t)rnd(w, BLOCKS) * BLK, g, at, len);
    if (code)
        assert_int_equal(fsm_digest(r->f), before);
}

static void do_other(struct world *w, struct fsm_rig *r)
{
    char name[2] = {(char)('a' + rnd(w, NAMES)), 0};
    switch (rnd(w, 5)) {
    case 0:
        fsm_rig_unlink(r, pick(w, r, true), name, rnd(w, 2));
        break;
    case 1:
        fsm_rig_link(r, pick(w, r, false), pick(w, r, true), name);
        break;
    case 2:
        fsm_rig_truncate(r, pick(w, r, false), (uint64_t)rnd(w, BLOCKS) * BLK);
        break;
    default:
        fsm_rig_reap(r, w->ino[rnd(w, w->n)]);
        break;
    }
}

static void do_quota(struct world *w, struct fsm_rig *r)
{
    uint64_t d = pick(w, r, true);
    if (fsm_quota_next(r->f, 40))
        set(r, d, 0, 0);
    else if (rnd(w, 3) == 0)
        set(r, d, 0, 0);
    else
        set(r, d, rnd(w, 2) ? (uint64_t)rnd(w, 80) * BLK : 0, rnd(w, 2) ? rnd(w, 30) : 0);
}

static void step(struct world *w, struct fsm_rig *r)
{
    static void (*const ops[])(struct world *, struct fsm_rig *) = {
        do_create, do_create, do_create, do_commit, do_commit, do_commit,
        do_rename, do_rename, do_range,  do_other,  do_other,  do_attr};
    struct book was, is;

    r->now += 10;
    if (rnd(w, 25) == 0) {
        do_quota(w, r);
        return;
    }
    read_book(r, &was);
    ops[rnd(w, sizeof ops / sizeof ops[0])](w, r);
    read_book(r, &is);
    w->ok += r->res.code == 0;
    w->refused += r->res.code != 0;
    w->edquot += r->res.code == EDQUOT;
    w->exdev += r->res.code == EXDEV;
    for (unsigned k = 1; k < 64; k++) { /* what grew is within its limit */
        const struct fsm_quota *q = &is.q[k];
        assert_true(q->bytes <= was.q[k].bytes || !q->max_bytes || q->bytes <= q->max_bytes);
        assert_true(q->inodes <= was.q[k].inodes || !q->max_inodes || q->inodes <= q->max_inodes);
    }
}

static struct world *world_new(uint64_t seed)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->ino[w->n++] = FSM_ROOT_INO;
    w->rnd = seed;
    return w;
}

static void test_random(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct fsm_rig r;
        struct world *w = world_new(seed);
        fsm_rig_open(&r);
        for (unsigned k = 1; k <= OPS; k++) {
            step(w, &r);
            recount(w, &r);
            if (k % 200 == 0) {
                struct fsm *g = fsm_rig_reload(r.f);
                fsm_free(r.f);
                r.f = g;
                recount(w, &r);
            }
        }
        assert_true(w->ok > OPS / 4 && w->edquot > OPS / 50 && w->exdev > 0);
        fsm_rig_close(&r);
        free(w);
    }
}

/* Two that apply the same commands, one of them through checkpoints, stay the same. */
static void test_replay(void **state)
{
    (void)state;
    struct fsm_rig a, b;
    struct world *v = world_new(77), *w = world_new(77);
    fsm_rig_open(&a);
    fsm_rig_open(&b);
    for (unsigned k = 1; k <= OPS; k++) {
        step(v, &a);
        step(w, &b);
        if (k % 300 == 0) {
            struct fsm *g = fsm_rig_reload(b.f);
            fsm_free(b.f);
            b.f = g;
        }
        assert_int_equal(a.res.code, b.res.code);
        if (k % 50 == 0)
            assert_int_equal(fsm_digest(a.f), fsm_digest(b.f));
    }
    uint64_t before = fsm_digest(a.f); /* limits are part of the state */
    assert_int_equal(set(&a, 1, 12345, 0), 0);
    uint64_t limited = fsm_digest(a.f);
    assert_true(limited != before);
    assert_int_equal(set(&a, 1, 12346, 0), 0);
    assert_true(fsm_digest(a.f) != limited);
    fsm_rig_close(&a);
    fsm_rig_close(&b);
    free(v);
    free(w);
}

#define RULE(fn) cmocka_unit_test_setup_teardown(fn, fsm_rig_setup, fsm_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {RULE(test_set),
                                       RULE(test_bytes),
                                       RULE(test_attrs),
                                       RULE(test_nested),
                                       RULE(test_rename),
                                       RULE(test_removed),
                                       RULE(test_tmpfile),
                                       RULE(test_names_outside),
                                       RULE(test_numbers),
                                       RULE(test_deep),
                                       RULE(test_names),
                                       RULE(test_lies),
                                       cmocka_unit_test(test_random),
                                       cmocka_unit_test(test_replay)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
