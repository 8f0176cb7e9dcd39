/* POSIX ACLs: what is a valid list, and how list and mode follow each other: setting, chmod,
 * inheriting from a directory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/byteorder.h"
#include "base/posix_acl.h"
#include "tests/unit/fsm_rig.h"

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

struct acl {
    uint8_t b[256];
    size_t n;
};

/* From "u::7 u:10:6 g::5 m::5 o::0". */
static struct acl acl_of(const char *text)
{
    static const struct {
        const char *head;
        uint16_t named, own;
    } tags[] = {{"u:", 2, 1}, {"g:", 8, 4}, {"m:", 0x10, 0x10}, {"o:", 0x20, 0x20}};
    struct acl a = {.n = POSIX_ACL_HEADER};
    le_put32(a.b, 2);
    for (const char *p = text; *p; p += strspn(p, " ")) {
        unsigned t = 0;
        while (strncmp(p, tags[t].head, 2) != 0)
            t++;
        char *end;
        bool named = p[2] != ':';
        unsigned long id = strtoul(p + 2, &end, 10), perm = strtoul(end + 1, &end, 8);
        assert_true(a.n + POSIX_ACL_ENTRY <= sizeof a.b);
        le_put16(a.b + a.n, named ? tags[t].named : tags[t].own);
        le_put16(a.b + a.n + 2, (uint16_t)perm);
        le_put32(a.b + a.n + 4, named ? (uint32_t)id : UINT32_MAX);
        a.n += POSIX_ACL_ENTRY;
        p = end;
    }
    return a;
}

static int set(struct fsm_rig *r, uint64_t ino, const char *name, const char *text)
{
    struct acl a = acl_of(text);
    return fsm_rig_setxattr(r, ino, name, a.b, a.n, 0);
}

/* want NULL: there is none. */
static void check(struct fsm_rig *r, uint64_t ino, const char *name, const char *want)
{
    const uint8_t *v;
    int n = fsm_rig_getxattr(r, ino, name, &v);
    if (!want) {
        assert_int_equal(n, -ENODATA);
        return;
    }
    struct acl a = acl_of(want);
    assert_int_equal(n, a.n);
    assert_memory_equal(v, a.b, a.n);
}

static unsigned perm(struct fsm_rig *r, uint64_t ino)
{
    return fsm_rig_attr(r, ino).mode & 07777;
}

static uint64_t mk(struct fsm_rig *r, uint64_t parent, const char *name, uint32_t mode,
                   uint32_t umask)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = parent;
    c.name = fsm_rig_bytes(name);
    c.mode = mode;
    c.umask = umask;
    c.ino = r->next_ino;
    if (S_ISLNK(mode))
        c.target = fsm_rig_bytes("t");
    assert_int_equal(FSM_RIG_OP(r, CREATE, create, &c), 0);
    return r->next_ino++;
}

static void test_valid(void **state)
{
    (void)state;
    static const char *const good[] = {
        "u::7 g::5 o::0",
        "u::7 g::5 m::5 o::0",
        "u::7 u:1:1 g::5 m::7 o::0",
        "u::7 u:1:1 u:1:2 u:0:3 g::5 m::0 o::0",
        "u::0 g::0 g:4294967294:7 m::7 o::7",
        "u::7 u:3:7 g::5 g:4:7 g:5:6 m::7 o::0",
    };
    static const char *const bad[] = {
        "u::7",
        "u::7 g::5",
        "u::7 o::0",
        "g::5 o::0",
        "u::7 u::7 g::5 o::0",
        "u::7 g::5 g::5 o::0",
        "u::7 g::5 o::0 o::0",
        "u::7 u:1:1 g::5 o::0", /* named, no mask */
        "u::7 g::5 g:1:1 o::0",
        "u::7 g::5 m::7 m::7 o::0",
        "u::7 g::5 u:1:1 m::7 o::0", /* order */
        "u:1:1 u::7 g::5 m::7 o::0",
        "u::7 m::7 g::5 o::0",
        "u::7 g::5 m::7 g:1:1 o::0",
        "u::7 g::5 o::0 m::7",
        "o::0 g::5 u::7",
        "u::10 g::5 o::0", /* permissions */
        "u::7 u:4294967295:1 g::5 m::7 o::0",
    };
    for (size_t k = 0; k < sizeof good / sizeof good[0]; k++) {
        struct acl a = acl_of(good[k]);
        if (posix_acl_check(a.b, a.n) != (int)((a.n - 4) / 8))
            fail_msg("\"%s\" is refused", good[k]);
    }
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        struct acl a = acl_of(bad[k]);
        if (posix_acl_check(a.b, a.n) != -EINVAL)
            fail_msg("\"%s\" is taken", bad[k]);
    }
    struct acl a = acl_of("u::7 g::5 o::0");
    for (size_t n = 0; n < a.n; n++)
        assert_int_equal(posix_acl_check(a.b, n), n == POSIX_ACL_HEADER ? 0 : -EINVAL);
    le_put32(a.b, 1);
    assert_int_equal(posix_acl_check(a.b, a.n), -EOPNOTSUPP);
    a = acl_of("u::7 g::5 o::0");
    le_put16(a.b + POSIX_ACL_HEADER, 0x40);
    assert_int_equal(posix_acl_check(a.b, a.n), -EINVAL);
}

static void test_set_access(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = mk(r, 1, "f", S_IFREG | 06644, 0);
    r->now = 4000;
    assert_int_equal(set(r, f, ACCESS, "u::7 u:10:6 g::5 m::6 o::1"), 0);
    Replfs__Attr a = fsm_rig_attr(r, f);
    assert_int_equal(a.mode, S_IFREG | 06761); /* group shows the mask */
    assert_int_equal(a.flags, REPLFS__ATTR_FLAG__ATTR_XATTR);
    assert_int_equal(a.ctime_ns, 4000);
    check(r, f, ACCESS, "u::7 u:10:6 g::5 m::6 o::1");
    /* what is only a mode becomes one */
    assert_int_equal(set(r, f, ACCESS, "u::6 g::4 o::0"), 0);
    a = fsm_rig_attr(r, f);
    assert_int_equal(a.mode, S_IFREG | 06640);
    assert_int_equal(a.flags, 0);
    check(r, f, ACCESS, NULL);
    /* a mask alone is more than a mode */
    assert_int_equal(set(r, f, ACCESS, "u::6 g::7 m::4 o::0"), 0);
    assert_int_equal(perm(r, f), 06640);
    check(r, f, ACCESS, "u::6 g::7 m::4 o::0");
    /* removing leaves the mode */
    assert_int_equal(fsm_rig_rmxattr(r, f, ACCESS), 0);
    assert_int_equal(perm(r, f), 06640);
    check(r, f, ACCESS, NULL);
    uint64_t change = fsm_rig_attr(r, f).change;
    assert_int_equal(fsm_rig_rmxattr(r, f, ACCESS), 0); /* none: nothing happens */
    assert_int_equal(fsm_rig_attr(r, f).change, change);
    assert_int_equal(set(r, f, ACCESS, "u::6 u:1:7 g::7 m::4 o::0"), 0);
    assert_int_equal(set(r, f, ACCESS, ""), 0); /* a list of nothing removes */
    check(r, f, ACCESS, NULL);
    assert_int_equal(set(r, f, ACCESS, "u::6 u:1:7 g::7 o::0"), EINVAL);
    assert_int_equal(fsm_rig_setxattr(r, f, ACCESS, "abc", 3, 0), EINVAL);
    assert_int_equal(fsm_rig_setxattr(r, f, ACCESS, "\1\0\0\0", 4, 0), EOPNOTSUPP);
    check(r, f, ACCESS, NULL);
}

static void test_kill_sgid(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = mk(r, 1, "f", S_IFREG | 06755, 0);
    Replfs__XattrOp o = REPLFS__XATTR_OP__INIT;
    struct acl a = acl_of("u::7 g::5 o::5");
    o.ino = f;
    o.name = fsm_rig_bytes(ACCESS);
    o.value = (ProtobufCBinaryData){a.n, a.b};
    o.kill_sgid = true;
    assert_int_equal(FSM_RIG_OP(r, XATTR, xattr, &o), 0);
    assert_int_equal(perm(r, f), 04755);
}

static void test_kinds(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = mk(r, 1, "f", REG_MODE, 0), d = mk(r, 1, "d", DIR_MODE, 0);
    uint64_t l = mk(r, 1, "l", S_IFLNK | 0777, 0), p = mk(r, 1, "p", S_IFIFO | 0644, 0);
    const uint8_t *v;
    assert_int_equal(set(r, f, DEFAULT, "u::7 g::5 o::0"), EACCES);
    assert_int_equal(set(r, f, DEFAULT, ""), 0);
    assert_int_equal(fsm_rig_rmxattr(r, f, DEFAULT), 0);
    assert_int_equal(set(r, l, ACCESS, "u::7 g::5 o::0"), EOPNOTSUPP);
    assert_int_equal(fsm_rig_getxattr(r, l, ACCESS, &v), -EOPNOTSUPP);
    assert_int_equal(set(r, p, ACCESS, "u::7 u:1:1 g::5 m::1 o::0"), 0);
    assert_int_equal(perm(r, p), 0710);
    assert_int_equal(set(r, d, DEFAULT, "u::7 g::5 o::0"), 0); /* minimal, but stored */
    check(r, d, DEFAULT, "u::7 g::5 o::0");
    assert_int_equal(perm(r, d), 0755);
    assert_int_equal(fsm_rig_rmxattr(r, d, DEFAULT), 0);
    check(r, d, DEFAULT, NULL);
}

static void test_ids_tidied(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t d = mk(r, 1, "d", DIR_MODE, 0);
    struct acl a = acl_of("u::7 u:10:6 g::5 m::6 o::1");
    le_put32(a.b + POSIX_ACL_HEADER + 4, 77); /* the owner's entry has no id */
    assert_int_equal(fsm_rig_setxattr(r, d, ACCESS, a.b, a.n, 0), 0);
    check(r, d, ACCESS, "u::7 u:10:6 g::5 m::6 o::1");
}

static void test_chmod(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = mk(r, 1, "f", REG_MODE, 0);
    assert_int_equal(set(r, f, ACCESS, "u::7 u:10:6 g::5 m::6 o::1"), 0);
    assert_int_equal(fsm_rig_chmod(r, f, 01420), 0);
    assert_int_equal(perm(r, f), 01420);
    check(r, f, ACCESS, "u::4 u:10:6 g::5 m::2 o::0");
    uint64_t d = mk(r, 1, "d", DIR_MODE, 0);
    assert_int_equal(set(r, d, DEFAULT, "u::7 g::5 o::0"), 0);
    assert_int_equal(fsm_rig_chmod(r, d, 0700), 0);
    check(r, d, DEFAULT, "u::7 g::5 o::0"); /* not the directory's own */
}

static void test_umask(void **state)
{
    struct fsm_rig *r = *state;
    assert_int_equal(perm(r, mk(r, 1, "f", S_IFREG | 06777, 027)), 06750);
    assert_int_equal(perm(r, mk(r, 1, "d", S_IFDIR | 0777, 07777)), 0);
    assert_int_equal(perm(r, mk(r, 1, "p", S_IFIFO | 0666, 022)), 0644);
    assert_int_equal(perm(r, mk(r, 1, "l", S_IFLNK | 0777, 077)), 0777);
}

static void test_inherit(void **state)
{
    struct fsm_rig *r = *state;
    static const char list[] = "u::7 u:10:7 g::5 m::7 o::5";
    uint64_t d = mk(r, 1, "d", DIR_MODE, 0);
    assert_int_equal(set(r, d, DEFAULT, list), 0);
    uint64_t f = mk(r, d, "f", S_IFREG | 0666, 077); /* umask does not count */
    assert_int_equal(perm(r, f), 0664);
    check(r, f, ACCESS, "u::6 u:10:7 g::5 m::6 o::4");
    check(r, f, DEFAULT, NULL);
    uint64_t sub = mk(r, d, "sub", S_IFDIR | 0770, 077);
    assert_int_equal(perm(r, sub), 0770);
    check(r, sub, ACCESS, "u::7 u:10:7 g::5 m::7 o::0");
    check(r, sub, DEFAULT, list);
    uint64_t deep = mk(r, sub, "deep", S_IFREG | 0600, 0);
    assert_int_equal(perm(r, deep), 0600);
    check(r, deep, ACCESS, "u::6 u:10:7 g::5 m::0 o::0");
    uint64_t l = mk(r, d, "l", S_IFLNK | 0777, 077);
    assert_int_equal(perm(r, l), 0777);
    assert_int_equal(fsm_rig_attr(r, l).flags, 0);
    check(r, mk(r, d, "p", S_IFIFO | 0600, 0), ACCESS, "u::6 u:10:7 g::5 m::0 o::0");
    /* a minimal default list is a mode for the files below */
    assert_int_equal(set(r, d, DEFAULT, "u::6 g::4 o::0"), 0);
    f = mk(r, d, "g", S_IFREG | 0777, 0777);
    assert_int_equal(perm(r, f), 0640);
    assert_int_equal(fsm_rig_attr(r, f).flags, 0);
    sub = mk(r, d, "sub2", S_IFDIR | 0777, 0);
    assert_int_equal(perm(r, sub), 0640);
    check(r, sub, ACCESS, NULL);
    check(r, sub, DEFAULT, "u::6 g::4 o::0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),
        cmocka_unit_test_setup_teardown(test_set_access, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_kill_sgid, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_kinds, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_ids_tidied, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_chmod, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_umask, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_inherit, fsm_rig_setup, fsm_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
