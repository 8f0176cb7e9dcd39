/* Names and nodes of the state machine: create, unlink, rmdir, link, rename, listing; happy paths
 * and every refusal, with the time and link-count rules of POSIX. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tests/unit/fsm_rig.h"

static uint64_t mk(struct fsm_rig *r, uint64_t parent, const char *name, uint32_t mode)
{
    int64_t ino = fsm_rig_create(r, parent, name, mode);
    assert_true(ino > 0);
    return (uint64_t)ino;
}

static void test_root(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t up = 0;
    Replfs__Attr a = fsm_rig_attr(r, FSM_ROOT_INO);
    assert_int_equal(a.mode, S_IFDIR | 0755);
    assert_int_equal(a.nlink, 2);
    assert_int_equal(a.goal, 2);
    assert_int_equal(fsm_rig_lookup(r, FSM_ROOT_INO, "."), FSM_ROOT_INO);
    assert_int_equal(fsm_rig_lookup(r, FSM_ROOT_INO, ".."), FSM_ROOT_INO);
    assert_int_equal(fsm_parent(r->f, FSM_ROOT_INO, &up), 0);
    assert_int_equal(up, FSM_ROOT_INO);
}

static void test_create(void **state)
{
    struct fsm_rig *r = *state;
    r->now = 5000;
    assert_int_equal(
        fsm_rig_create_full(r, FSM_ROOT_INO, "f", S_IFREG | 04751, 10, 20, "", r->next_ino), 0);
    uint64_t ino = r->next_ino++;
    assert_int_equal(r->res.ino, ino);
    assert_int_equal(r->res.parent, FSM_ROOT_INO);
    Replfs__Attr a = fsm_rig_attr(r, ino), root = fsm_rig_attr(r, FSM_ROOT_INO);
    assert_int_equal(a.mode, S_IFREG | 04751);
    assert_int_equal(a.nlink, 1);
    assert_int_equal(a.uid, 10);
    assert_int_equal(a.gid, 20);
    assert_int_equal(a.goal, 2);
    assert_int_equal(a.mtime_ns, 5000);
    assert_int_equal(a.ctime_ns, 5000);
    assert_int_equal(a.atime_ns, 5000);
    assert_int_equal(root.mtime_ns, 5000);
    assert_int_equal(root.ctime_ns, 5000);
    assert_int_equal(fsm_rig_lookup(r, FSM_ROOT_INO, "f"), ino);
    assert_int_equal(fsm_rig_lookup(r, FSM_ROOT_INO, "g"), 0);
    uint64_t d = mk(r, FSM_ROOT_INO, "d", DIR_MODE);
    assert_int_equal(fsm_rig_attr(r, FSM_ROOT_INO).nlink, 3);
    assert_int_equal(fsm_rig_attr(r, d).nlink, 2);
    assert_int_equal(fsm_rig_lookup(r, d, ".."), FSM_ROOT_INO);
    assert_true(fsm_rig_attr(r, FSM_ROOT_INO).change != root.change);
    struct fsm_counts n;
    fsm_counts(r->f, &n);
    assert_int_equal(n.files, 1);
    assert_int_equal(n.dirs, 2);
}

static void test_create_kinds(void **state)
{
    struct fsm_rig *r = *state;
    const uint32_t kinds[] = {S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
    char name[2] = "a";
    for (size_t k = 0; k < 4; k++, name[0]++) {
        Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
        c.parent = FSM_ROOT_INO;
        c.name = fsm_rig_bytes(name);
        c.mode = kinds[k] | 0600;
        c.rdev = 0x1234;
        c.ino = r->next_ino;
        assert_int_equal(FSM_RIG_OP(r, CREATE, create, &c), 0);
        Replfs__Attr a = fsm_rig_attr(r, r->next_ino++);
        assert_int_equal(a.mode, kinds[k] | 0600);
        assert_int_equal(a.rdev, k >= 2 ? 0x1234 : 0);
    }
    assert_int_equal(fsm_rig_create(r, FSM_ROOT_INO, "bad", 0170000 | 0644), -EINVAL);
    assert_int_equal(fsm_rig_create(r, FSM_ROOT_INO, "bad", S_IFREG | 01000000), -EINVAL);
    uint64_t plain = mk(r, FSM_ROOT_INO, "plain", 0640); /* mknod without a type */
    assert_int_equal(fsm_rig_attr(r, plain).mode, S_IFREG | 0640);
}

static void test_symlink(void **state)
{
    struct fsm_rig *r = *state;
    const uint8_t *t;
    size_t n;
    char big[4100];
    assert_int_equal(
        fsm_rig_create_full(r, FSM_ROOT_INO, "l", S_IFLNK | 0777, 0, 0, "a/b", r->next_ino), 0);
    uint64_t ino = r->next_ino++;
    assert_int_equal(fsm_readlink(r->f, ino, &t, &n), 0);
    assert_int_equal(n, 3);
    assert_memory_equal(t, "a/b", 3);
    assert_int_equal(fsm_rig_attr(r, ino).size, 3);
    assert_int_equal(fsm_readlink(r->f, FSM_ROOT_INO, &t, &n), -EINVAL);
    assert_int_equal(fsm_readlink(r->f, 999, &t, &n), -ENOENT);
    assert_int_equal(fsm_rig_create_full(r, 1, "e", S_IFLNK | 0777, 0, 0, "", r->next_ino), ENOENT);
    memset(big, 'x', sizeof big);
    big[4096] = 0;
    assert_int_equal(fsm_rig_create_full(r, 1, "e", S_IFLNK | 0777, 0, 0, big, r->next_ino),
                     ENAMETOOLONG);
    big[4095] = 0;
    assert_int_equal(fsm_rig_create_full(r, 1, "e", S_IFLNK | 0777, 0, 0, big, r->next_ino), 0);
    r->next_ino++;
}

static void test_names_refused(void **state)
{
    struct fsm_rig *r = *state;
    char longest[257];
    uint64_t f = mk(r, FSM_ROOT_INO, "f", REG_MODE);
    uint64_t digest = fsm_digest(r->f);
    memset(longest, 'n', sizeof longest);
    longest[256] = 0;
    assert_int_equal(fsm_rig_create(r, 1, longest, REG_MODE), -ENAMETOOLONG);
    assert_int_equal(fsm_rig_create(r, 1, "", REG_MODE), -EINVAL);
    assert_int_equal(fsm_rig_create(r, 1, ".", REG_MODE), -EINVAL);
    assert_int_equal(fsm_rig_create(r, 1, "..", REG_MODE), -EINVAL);
    assert_int_equal(fsm_rig_create(r, 1, "a/b", REG_MODE), -EINVAL);
    assert_int_equal(fsm_rig_create(r, 1, "f", REG_MODE), -EEXIST);
    assert_int_equal(fsm_rig_create(r, f, "x", REG_MODE), -ENOTDIR);
    assert_int_equal(fsm_rig_create(r, 777, "x", REG_MODE), -ENOENT);
    assert_int_equal(fsm_rig_create_full(r, 1, "x", REG_MODE, 0, 0, "", f), EINVAL);
    assert_int_equal(fsm_rig_create_full(r, 1, "x", REG_MODE, 0, 0, "", 0), EINVAL);
    assert_int_equal(fsm_rig_create_full(r, 1, "x", REG_MODE, 0, 0, "", 1ull << 41), EINVAL);
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = 1;
    c.name = (ProtobufCBinaryData){3, (uint8_t *)"a\0b"};
    c.mode = REG_MODE;
    c.ino = r->next_ino;
    assert_int_equal(FSM_RIG_OP(r, CREATE, create, &c), EINVAL);
    assert_int_equal(fsm_digest(r->f), digest); /* refusals leave no trace */
    longest[255] = 0;
    mk(r, 1, longest, REG_MODE);
    mk(r, 1, "...", REG_MODE);
    mk(r, 1, "\xff\x01 \n", REG_MODE);
}

static void test_setgid_directory(void **state)
{
    struct fsm_rig *r = *state;
    assert_int_equal(fsm_rig_create_full(r, 1, "d", S_IFDIR | 02775, 1, 50, "", r->next_ino), 0);
    uint64_t d = r->next_ino++;
    assert_int_equal(fsm_rig_create_full(r, d, "f", REG_MODE, 2, 60, "", r->next_ino), 0);
    Replfs__Attr a = fsm_rig_attr(r, r->next_ino++);
    assert_int_equal(a.gid, 50);
    assert_int_equal(a.mode, REG_MODE);
    assert_int_equal(fsm_rig_create_full(r, d, "s", DIR_MODE, 2, 60, "", r->next_ino), 0);
    a = fsm_rig_attr(r, r->next_ino++);
    assert_int_equal(a.gid, 50);
    assert_int_equal(a.mode, S_IFDIR | 02755);
}

static void test_unlink(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = mk(r, 1, "f", REG_MODE), d = mk(r, 1, "d", DIR_MODE), orphan = 0;
    mk(r, d, "in", REG_MODE);
    assert_int_equal(fsm_rig_unlink(r, 1, "none", false), ENOENT);
    assert_int_equal(fsm_rig_unlink(r, 1, "d", false), EISDIR);
    assert_int_equal(fsm_rig_unlink(r, 1, "f", true), ENOTDIR);
    assert_int_equal(fsm_rig_unlink(r, 1, "d", true), ENOTEMPTY);
    assert_int_equal(fsm_rig_unlink(r, f, "x", false), ENOTDIR);
    assert_int_equal(fsm_rig_unlink(r, 1, ".", true), EINVAL);
    r->now = 9000;
    assert_int_equal(fsm_rig_unlink(r, 1, "f", false), 0);
    assert_int_equal(r->res.ino, f);
    Replfs__Attr a = fsm_rig_attr(r, f);
    assert_int_equal(a.nlink, 0);
    assert_int_equal(a.ctime_ns, 9000);
    assert_int_equal(a.mtime_ns, 1000);
    assert_int_equal(fsm_rig_attr(r, 1).mtime_ns, 9000);
    assert_true(fsm_orphan_next(r->f, 0, &orphan));
    assert_int_equal(orphan, f);
    assert_false(fsm_orphan_next(r->f, f, &orphan));
    assert_int_equal(fsm_rig_link(r, f, 1, "again"), ENOENT);
    assert_int_equal(fsm_rig_reap(r, f), 0);
    assert_int_equal(fsm_rig_attr(r, f).ino, 0);
    assert_int_equal(fsm_rig_reap(r, f), 0); /* repeated */
    assert_int_equal(fsm_rig_reap(r, d), 0); /* has a name: stays */
    assert_int_equal(fsm_rig_attr(r, d).ino, d);
}

static void test_removed_directory(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t d = mk(r, 1, "d", DIR_MODE), up = 0;
    assert_int_equal(fsm_rig_attr(r, 1).nlink, 3);
    assert_int_equal(fsm_rig_unlink(r, 1, "d", true), 0);
    assert_int_equal(fsm_rig_attr(r, 1).nlink, 2);
    assert_int_equal(fsm_rig_attr(r, d).nlink, 0);
    assert_int_equal(fsm_rig_create(r, d, "x", REG_MODE), -ENOENT);
    assert_int_equal(fsm_parent(r->f, d, &up), -ENOENT);
    assert_int_equal(fsm_rig_lookup(r, d, ".."), 0);
    uint64_t f = mk(r, 1, "f", REG_MODE);
    assert_int_equal(fsm_rig_rename(r, 1, "f", d, "f", 0), ENOENT);
    assert_int_equal(fsm_rig_link(r, f, d, "f"), ENOENT);
}

static void test_link(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = mk(r, 1, "f", REG_MODE), d = mk(r, 1, "d", DIR_MODE);
    r->now = 7000;
    assert_int_equal(fsm_rig_link(r, f, d, "g"), 0);
    assert_int_equal(fsm_rig_attr(r, f).nlink, 2);
    assert_int_equal(fsm_rig_attr(r, f).ctime_ns, 7000);
    assert_int_equal(fsm_rig_attr(r, f).mtime_ns, 1000);
    assert_int_equal(fsm_rig_attr(r, d).mtime_ns, 7000);
    assert_int_equal(fsm_rig_lookup(r, d, "g"), f);
    assert_int_equal(fsm_rig_link(r, f, d, "g"), EEXIST);
    assert_int_equal(fsm_rig_link(r, d, 1, "h"), EPERM);
    assert_int_equal(fsm_rig_link(r, 999, 1, "h"), ENOENT);
    assert_int_equal(fsm_rig_link(r, f, f, "h"), ENOTDIR);
    assert_int_equal(fsm_rig_link(r, f, 1, ".."), EINVAL);
    assert_int_equal(fsm_rig_unlink(r, 1, "f", false), 0);
    assert_int_equal(fsm_rig_attr(r, f).nlink, 1);
    char name[16];
    for (unsigned k = 1; k < 65000; k++) {
        snprintf(name, sizeof name, "l%u", k);
        assert_int_equal(fsm_rig_link(r, f, d, name), 0);
    }
    assert_int_equal(fsm_rig_attr(r, f).nlink, 65000);
    assert_int_equal(fsm_rig_link(r, f, d, "one-too-many"), EMLINK);
}

static void test_rename_plain(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = mk(r, 1, "a", DIR_MODE), b = mk(r, 1, "b", DIR_MODE), f = mk(r, a, "f", REG_MODE);
    uint64_t sub = mk(r, a, "sub", DIR_MODE);
    r->now = 3000;
    assert_int_equal(fsm_rig_rename(r, a, "f", b, "g", 0), 0);
    assert_int_equal(r->res.ino, f);
    assert_int_equal(r->res.parent, b);
    assert_int_equal(fsm_rig_lookup(r, a, "f"), 0);
    assert_int_equal(fsm_rig_lookup(r, b, "g"), f);
    assert_int_equal(fsm_rig_attr(r, f).ctime_ns, 3000);
    assert_int_equal(fsm_rig_attr(r, f).mtime_ns, 1000);
    assert_int_equal(fsm_rig_attr(r, a).mtime_ns, 3000);
    assert_int_equal(fsm_rig_attr(r, b).mtime_ns, 3000);
    assert_int_equal(fsm_rig_rename(r, a, "sub", b, "sub2", 0), 0);
    assert_int_equal(fsm_rig_attr(r, a).nlink, 2);
    assert_int_equal(fsm_rig_attr(r, b).nlink, 3);
    assert_int_equal(fsm_rig_lookup(r, sub, ".."), b);
    assert_int_equal(fsm_rig_rename(r, b, "sub2", b, "sub3", 0), 0); /* within one directory */
    assert_int_equal(fsm_rig_attr(r, b).nlink, 3);
    assert_int_equal(fsm_rig_lookup(r, b, "sub3"), sub);
}

static void test_rename_refused(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = mk(r, 1, "a", DIR_MODE), b = mk(r, a, "b", DIR_MODE), c = mk(r, b, "c", DIR_MODE);
    uint64_t f = mk(r, 1, "f", REG_MODE);
    mk(r, 1, "empty", DIR_MODE);
    uint64_t digest = fsm_digest(r->f);
    assert_int_equal(fsm_rig_rename(r, 1, "none", 1, "x", 0), ENOENT);
    assert_int_equal(fsm_rig_rename(r, 1, "a", c, "x", 0), EINVAL);
    assert_int_equal(fsm_rig_rename(r, 1, "a", a, "x", 0), EINVAL);
    assert_int_equal(fsm_rig_rename(r, a, "b", c, "x", 0), EINVAL);
    assert_int_equal(fsm_rig_rename(r, b, "c", 1, "a", 0), ENOTEMPTY);
    assert_int_equal(fsm_rig_rename(r, 1, "f", 1, "empty", 0), EISDIR);
    assert_int_equal(fsm_rig_rename(r, 1, "empty", 1, "f", 0), ENOTDIR);
    assert_int_equal(fsm_rig_rename(r, 1, "empty", 1, "a", 0), ENOTEMPTY);
    assert_int_equal(fsm_rig_rename(r, 1, "f", 1, "empty", 1), EEXIST);
    assert_int_equal(fsm_rig_rename(r, 1, "f", 1, "f", 1), EEXIST);
    assert_int_equal(fsm_rig_rename(r, 1, "f", 1, "none", 2), ENOENT);
    assert_int_equal(fsm_rig_rename(r, 1, "f", 1, "x", 3), EINVAL);
    assert_int_equal(fsm_rig_rename(r, 1, "f", 1, "x", 4), EINVAL);
    assert_int_equal(fsm_rig_rename(r, 1, "f", 1, "..", 0), EINVAL);
    assert_int_equal(fsm_rig_rename(r, 1, "f", f, "x", 0), ENOTDIR);
    assert_int_equal(fsm_rig_rename(r, 1, "a", c, "x", 2), ENOENT);
    mk(r, c, "x", DIR_MODE);
    digest = fsm_digest(r->f);
    assert_int_equal(fsm_rig_rename(r, 1, "a", c, "x", 2), EINVAL);
    assert_int_equal(fsm_rig_rename(r, c, "x", 1, "a", 2), EINVAL);
    assert_int_equal(fsm_digest(r->f), digest);
}

static void test_rename_over(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = mk(r, 1, "f", REG_MODE), g = mk(r, 1, "g", REG_MODE), ino = 0;
    uint64_t d = mk(r, 1, "d", DIR_MODE), e = mk(r, 1, "e", DIR_MODE);
    r->now = 4000;
    assert_int_equal(fsm_rig_rename(r, 1, "f", 1, "g", 0), 0);
    assert_int_equal(fsm_rig_lookup(r, 1, "g"), f);
    assert_int_equal(fsm_rig_lookup(r, 1, "f"), 0);
    assert_int_equal(fsm_rig_attr(r, g).nlink, 0);
    assert_int_equal(fsm_rig_attr(r, g).ctime_ns, 4000);
    assert_true(fsm_orphan_next(r->f, 0, &ino));
    assert_int_equal(ino, g);
    assert_int_equal(fsm_rig_attr(r, 1).nlink, 4);
    assert_int_equal(fsm_rig_rename(r, 1, "d", 1, "e", 0), 0); /* an empty directory gives way */
    assert_int_equal(fsm_rig_attr(r, 1).nlink, 3);
    assert_int_equal(fsm_rig_lookup(r, 1, "e"), d);
    assert_int_equal(fsm_rig_attr(r, e).nlink, 0);
    assert_int_equal(fsm_rig_link(r, f, 1, "g2"), 0);
    uint64_t digest = fsm_digest(r->f);
    assert_int_equal(fsm_rig_rename(r, 1, "g", 1, "g2", 0), 0); /* same inode: nothing happens */
    assert_int_equal(fsm_rig_lookup(r, 1, "g"), f);
    assert_int_equal(fsm_rig_lookup(r, 1, "g2"), f);
    assert_int_equal(fsm_digest(r->f), digest);
}

static void test_rename_exchange(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = mk(r, 1, "a", DIR_MODE), b = mk(r, 1, "b", DIR_MODE);
    uint64_t f = mk(r, a, "x", REG_MODE), d = mk(r, b, "y", DIR_MODE);
    mk(r, d, "inside", REG_MODE);
    r->now = 8000;
    assert_int_equal(fsm_rig_rename(r, a, "x", b, "y", 2), 0);
    assert_int_equal(fsm_rig_lookup(r, a, "x"), d);
    assert_int_equal(fsm_rig_lookup(r, b, "y"), f);
    assert_int_equal(fsm_rig_lookup(r, d, ".."), a);
    assert_int_equal(fsm_rig_attr(r, a).nlink, 3);
    assert_int_equal(fsm_rig_attr(r, b).nlink, 2);
    assert_int_equal(fsm_rig_attr(r, f).ctime_ns, 8000);
    assert_int_equal(fsm_rig_attr(r, d).ctime_ns, 8000);
    assert_int_equal(fsm_rig_rename(r, 1, "a", 1, "b", 2), 0);
    assert_int_equal(fsm_rig_lookup(r, 1, "a"), b);
    assert_int_equal(fsm_rig_lookup(r, 1, "b"), a);
    assert_int_equal(fsm_rig_attr(r, 1).nlink, 4);
}

struct listing {
    unsigned n, stop_after;
    uint64_t cookie;
    char names[64][32];
};

static bool on_entries(void *arg, const struct fsm_dirent *e, size_t n)
{
    struct listing *l = arg;
    assert_in_range(n, 1, FSM_DIRENTS_MAX);
    for (; n > 0; n--, e++) {
        assert_true(e->cookie > l->cookie && e->ino != 0 && (e->mode & S_IFMT));
        l->cookie = e->cookie;
        if (l->n < 64)
            snprintf(l->names[l->n], 32, "%.*s", (int)e->len, (const char *)e->name);
        l->n++;
        if (l->n == l->stop_after)
            return false;
    }
    return true;
}

static void test_readdir_stable(void **state)
{
    struct fsm_rig *r = *state;
    struct listing l = {.stop_after = 3};
    const char *first[] = {"a", "b", "c", "d", "e"};
    for (int k = 0; k < 5; k++)
        mk(r, 1, first[k], REG_MODE);
    assert_int_equal(fsm_readdir(r->f, 1, 0, on_entries, &l), 0);
    assert_int_equal(l.n, 3);
    assert_string_equal(l.names[2], "c");
    fsm_rig_unlink(r, 1, "a", false);
    fsm_rig_unlink(r, 1, "c", false); /* the very entry the listing stands on */
    fsm_rig_unlink(r, 1, "d", false);
    mk(r, 1, "f", REG_MODE);
    mk(r, 1, "c", REG_MODE);                                   /* back under a new cookie */
    assert_int_equal(fsm_rig_rename(r, 1, "b", 1, "e", 0), 0); /* e keeps its place */
    l.stop_after = 0;
    assert_int_equal(fsm_readdir(r->f, 1, l.cookie, on_entries, &l), 0);
    assert_int_equal(l.n, 6);
    assert_string_equal(l.names[3], "e");
    assert_string_equal(l.names[4], "f");
    assert_string_equal(l.names[5], "c");
    assert_int_equal(fsm_readdir(r->f, l.cookie + 100, 0, on_entries, &l), -ENOENT);
    assert_int_equal(fsm_readdir(r->f, fsm_rig_lookup(r, 1, "e"), 0, on_entries, &l), -ENOTDIR);
}

static void test_big_directory(void **state)
{
    struct fsm_rig *r = *state;
    enum { N = 20000 };
    char name[32];
    struct listing l = {0};
    uint64_t d = mk(r, 1, "big", DIR_MODE);
    for (unsigned k = 0; k < N; k++) {
        snprintf(name, sizeof name, "n%u", k);
        mk(r, d, name, REG_MODE);
    }
    for (unsigned k = 0; k < N; k++) {
        if (k % 16 == 5)
            continue;
        snprintf(name, sizeof name, "n%u", k);
        assert_int_equal(fsm_rig_unlink(r, d, name, false), 0);
    }
    assert_int_equal(fsm_readdir(r->f, d, 0, on_entries, &l), 0);
    assert_int_equal(l.n, N / 16);
    assert_string_equal(l.names[1], "n21");
    l = (struct listing){.cookie = N - 16};
    assert_int_equal(fsm_readdir(r->f, d, N - 16, on_entries, &l), 0);
    assert_int_equal(l.n, 1);
    snprintf(name, sizeof name, "n%u", N - 16 + 5);
    assert_string_equal(l.names[0], name);
}

int main(void)
{
#define T(x) cmocka_unit_test_setup_teardown(x, fsm_rig_setup, fsm_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_root),
        T(test_create),
        T(test_create_kinds),
        T(test_symlink),
        T(test_names_refused),
        T(test_setgid_directory),
        T(test_unlink),
        T(test_removed_directory),
        T(test_link),
        T(test_rename_plain),
        T(test_rename_refused),
        T(test_rename_over),
        T(test_rename_exchange),
        T(test_readdir_stable),
        T(test_big_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
