/* Extended attributes of the state machine: names, flags, limits, times, listing, and that they go
 * with their inode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tests/unit/fsm_rig.h"

enum { CREATE = 1, REPLACE = 2 };

static uint64_t mk(struct fsm_rig *r, const char *name, uint32_t mode)
{
    if (!S_ISLNK(mode)) {
        int64_t ino = fsm_rig_create(r, FSM_ROOT_INO, name, mode);
        assert_true(ino > 0);
        return (uint64_t)ino;
    }
    assert_int_equal(fsm_rig_create_full(r, FSM_ROOT_INO, name, mode, 0, 0, "target", r->next_ino),
                     0);
    return r->next_ino++;
}

static void check_value(struct fsm_rig *r, uint64_t ino, const char *name, const char *want)
{
    const uint8_t *v;
    int n = fsm_rig_getxattr(r, ino, name, &v);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(v, want, strlen(want));
}

static void test_set_get_remove(void **state)
{
    struct fsm_rig *r = *state;
    const uint8_t *v;
    uint64_t f = mk(r, "f", REG_MODE);
    Replfs__Attr before = fsm_rig_attr(r, f);
    assert_int_equal(before.flags, 0);
    assert_int_equal(fsm_rig_getxattr(r, f, "user.a", &v), -ENODATA);
    r->now = 7777;
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a", "one", 3, 0), 0);
    assert_int_equal(r->res.ino, f);
    Replfs__Attr a = fsm_rig_attr(r, f);
    assert_int_equal(a.flags, REPLFS__ATTR_FLAG__ATTR_XATTR);
    assert_int_equal(a.ctime_ns, 7777);
    assert_int_equal(a.mtime_ns, before.mtime_ns);
    assert_true(a.change > before.change);
    check_value(r, f, "user.a", "one");
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a", "longer value", 12, 0), 0);
    check_value(r, f, "user.a", "longer value");
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a", "", 0, 0), 0); /* empty is not absent */
    check_value(r, f, "user.a", "");
    assert_int_equal(fsm_rig_setxattr(r, f, "user.ab", "x", 1, 0), 0);
    assert_int_equal(fsm_rig_rmxattr(r, f, "user.a"), 0);
    assert_int_equal(fsm_rig_rmxattr(r, f, "user.a"), ENODATA);
    assert_int_equal(fsm_rig_getxattr(r, f, "user.a", &v), -ENODATA);
    check_value(r, f, "user.ab", "x");
    assert_int_equal(fsm_rig_rmxattr(r, f, "user.ab"), 0);
    assert_int_equal(fsm_rig_attr(r, f).flags, 0);
    assert_int_equal(fsm_rig_setxattr(r, 999, "user.a", "x", 1, 0), ENOENT);
    assert_int_equal(fsm_rig_getxattr(r, 999, "user.a", &v), -ENOENT);
}

static void test_flags(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = mk(r, "f", REG_MODE);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a", "1", 1, REPLACE), ENODATA);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a", "1", 1, CREATE | REPLACE), ENODATA);
    assert_int_equal(fsm_rig_attr(r, f).flags, 0);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a", "1", 1, CREATE), 0);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a", "2", 1, CREATE), EEXIST);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a", "2", 1, CREATE | REPLACE), EEXIST);
    check_value(r, f, "user.a", "1");
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a", "2", 1, REPLACE), 0);
    check_value(r, f, "user.a", "2");
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a", "2", 1, 4), EINVAL);
}

static void test_names(void **state)
{
    struct fsm_rig *r = *state;
    char name[300] = "user.";
    const uint8_t *v;
    uint64_t f = mk(r, "f", REG_MODE);
    memset(name + 5, 'n', 250);
    assert_int_equal(fsm_rig_setxattr(r, f, name, "x", 1, 0), 0); /* 255 bytes */
    check_value(r, f, name, "x");
    name[255] = 'n';
    assert_int_equal(fsm_rig_setxattr(r, f, name, "x", 1, 0), ERANGE);
    assert_int_equal(fsm_rig_getxattr(r, f, name, &v), -ERANGE);
    assert_int_equal(fsm_rig_setxattr(r, f, "", "x", 1, 0), ERANGE);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.", "x", 1, 0), EINVAL);
    assert_int_equal(fsm_rig_setxattr(r, f, "user", "x", 1, 0), EOPNOTSUPP);
    assert_int_equal(fsm_rig_setxattr(r, f, "system.other", "x", 1, 0), EOPNOTSUPP);
    assert_int_equal(fsm_rig_setxattr(r, f, "btrfs.compression", "x", 1, 0), EOPNOTSUPP);
    assert_int_equal(fsm_rig_getxattr(r, f, "os2.ea", &v), -EOPNOTSUPP);
    assert_int_equal(fsm_rig_setxattr(r, f, "trusted.a", "x", 1, 0), 0);
    assert_int_equal(fsm_rig_setxattr(r, f, "security.selinux", "x", 1, 0), 0);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.\xff\n/", "x", 1, 0), 0);
    Replfs__XattrOp o = REPLFS__XATTR_OP__INIT;
    o.ino = f;
    o.name = (ProtobufCBinaryData){8, (uint8_t *)"user.a\0b"};
    assert_int_equal(FSM_RIG_OP(r, XATTR, xattr, &o), EINVAL);
}

static void test_kinds(void **state)
{
    struct fsm_rig *r = *state;
    const uint32_t modes[] = {S_IFLNK | 0777, S_IFIFO | 0600, S_IFSOCK | 0600, S_IFCHR | 0600,
                              S_IFBLK | 0600};
    const uint8_t *v;
    for (unsigned k = 0; k < sizeof modes / sizeof modes[0]; k++) {
        char name[2] = {(char)('a' + k), 0};
        uint64_t ino = mk(r, name, modes[k]);
        assert_int_equal(fsm_rig_setxattr(r, ino, "user.a", "x", 1, 0), EPERM);
        assert_int_equal(fsm_rig_rmxattr(r, ino, "user.a"), EPERM);
        assert_int_equal(fsm_rig_getxattr(r, ino, "user.a", &v), -ENODATA);
        assert_int_equal(fsm_rig_setxattr(r, ino, "trusted.a", "x", 1, 0), 0);
        assert_int_equal(fsm_rig_setxattr(r, ino, "security.a", "y", 1, 0), 0);
        check_value(r, ino, "security.a", "y");
    }
    assert_int_equal(fsm_rig_setxattr(r, FSM_ROOT_INO, "user.a", "x", 1, 0), 0);
}

static void test_sizes(void **state)
{
    struct fsm_rig *r = *state;
    static uint8_t big[FSM_XATTR_SIZE_MAX + 1];
    char name[300];
    const uint8_t *v;
    uint64_t f = mk(r, "f", REG_MODE), g = mk(r, "g", REG_MODE);
    memset(big, 'b', sizeof big);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.big", big, sizeof big, 0), E2BIG);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.big", big, sizeof big - 1, 0), 0);
    assert_int_equal(fsm_rig_getxattr(r, f, "user.big", &v), FSM_XATTR_SIZE_MAX);
    assert_memory_equal(v, big, FSM_XATTR_SIZE_MAX);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.more", "x", 1, 0), ENOSPC);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.none", "", 0, 0), 0);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.big", big, 100, 0), 0);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.more", "x", 1, 0), 0);
    int code = 0;
    unsigned n = 0;
    for (; !code; n++) { /* listxattr(2) can tell 64 KiB of names */
        snprintf(name, sizeof name, "user.%0200u", n);
        code = fsm_rig_setxattr(r, g, name, "", 0, 0);
    }
    assert_int_equal(code, ENOSPC);
    assert_int_equal(n - 1, FSM_XATTR_LIST_MAX / 206);
}

static void check_list(struct fsm_rig *r, uint64_t ino, const char *want, size_t n)
{
    static uint8_t names[FSM_XATTR_LIST_MAX];
    size_t len = 1;
    assert_int_equal(fsm_listxattr(r->f, ino, NULL, &len), 0);
    assert_int_equal(len, n);
    assert_int_equal(fsm_listxattr(r->f, ino, names, &len), 0);
    assert_memory_equal(names, want, n);
}

static void test_list(void **state)
{
    struct fsm_rig *r = *state;
    static const char want[] = "security.z\0trusted.c\0user.a\0user.a2";
    size_t len;
    uint64_t f = mk(r, "f", REG_MODE);
    check_list(r, f, "", 0);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a2", "x", 1, 0), 0);
    assert_int_equal(fsm_rig_setxattr(r, f, "security.z", "x", 1, 0), 0);
    assert_int_equal(fsm_rig_setxattr(r, f, "user.a", "x", 1, 0), 0);
    assert_int_equal(fsm_rig_setxattr(r, f, "trusted.c", "x", 1, 0), 0);
    check_list(r, f, want, sizeof want);
    struct fsm *g = fsm_rig_reload(r->f);
    fsm_rig_close(r);
    r->f = g;
    check_list(r, f, want, sizeof want);
    assert_int_equal(fsm_listxattr(r->f, 999, NULL, &len), -ENOENT);
}

/* Freed with the inode: memory comes back to where it was. */
static void test_freed(void **state)
{
    struct fsm_rig *r = *state;
    static uint8_t big[60000];
    uint64_t keep = mk(r, "keep", REG_MODE);
    assert_int_equal(fsm_rig_setxattr(r, keep, "user.a", "x", 1, 0), 0);
    uint64_t gone = mk(r, "gone", REG_MODE);
    assert_int_equal(fsm_rig_unlink(r, FSM_ROOT_INO, "gone", false), 0);
    uint64_t before = fsm_memory(r->f);
    assert_int_equal(fsm_rig_setxattr(r, gone, "user.a", big, sizeof big, 0),
                     0); /* open, unlinked */
    assert_true(fsm_memory(r->f) >= before + sizeof big);
    fsm_free(fsm_rig_reload(r->f));
    assert_int_equal(fsm_rig_setxattr(r, gone, "user.b", "y", 1, 0), 0);
    assert_int_equal(fsm_rig_setxattr(r, gone, "user.a", "z", 1, 0), 0);
    assert_int_equal(fsm_rig_rmxattr(r, gone, "user.a"), 0);
    assert_int_equal(fsm_rig_reap(r, gone), 0);
    assert_true(fsm_memory(r->f) <= before);
    check_value(r, keep, "user.a", "x");
}

/* Changed contents and owners are no longer what was given capabilities. */
static void test_capabilities(void **state)
{
    struct fsm_rig *r = *state;
    const uint8_t *v;
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    Replfs__CommitOp c = REPLFS__COMMIT_OP__INIT;
    uint64_t f = mk(r, "f", REG_MODE);
    s.ino = c.ino = f;
    s.uid = 5;
    const uint32_t drops[] = {REPLFS__SETATTR_OP__VALID__UID, REPLFS__SETATTR_OP__VALID__SIZE};
    for (unsigned k = 0; k < 2; k++) {
        assert_int_equal(fsm_rig_setxattr(r, f, "security.capability", "caps", 4, 0), 0);
        s.valid = REPLFS__SETATTR_OP__VALID__MODE | REPLFS__SETATTR_OP__VALID__MTIME;
        assert_int_equal(FSM_RIG_OP(r, SETATTR, setattr, &s), 0);
        check_value(r, f, "security.capability", "caps");
        s.valid = drops[k];
        assert_int_equal(FSM_RIG_OP(r, SETATTR, setattr, &s), 0);
        assert_int_equal(fsm_rig_getxattr(r, f, "security.capability", &v), -ENODATA);
    }
    assert_int_equal(fsm_rig_setxattr(r, f, "security.capability", "caps", 4, 0), 0);
    assert_int_equal(FSM_RIG_OP(r, COMMIT, commit, &c), 0); /* by whomever: not kill_suid alone */
    assert_int_equal(fsm_rig_getxattr(r, f, "security.capability", &v), -ENODATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_set_get_remove, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_flags, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_names, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_kinds, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_sizes, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_list, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_freed, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_capabilities, fsm_rig_setup, fsm_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
