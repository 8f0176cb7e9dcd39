/* Attributes and life of inodes: times (also before 1970 and after 2038), atime, what clears setuid
 * and setgid, files without a name (O_TMPFILE), and commits at the end of the file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tests/unit/fsm_rig.h"

#define VALID(what) REPLFS__SETATTR_OP__VALID__##what
#define SEC 1000000000ll

struct hooks_seen {
    uint64_t orphan, opener, adopted;
};

static void on_orphaned(void *arg, uint64_t ino, uint64_t opener)
{
    struct hooks_seen *s = arg;
    s->orphan = ino;
    s->opener = opener;
}

static void on_adopted(void *arg, uint64_t ino)
{
    ((struct hooks_seen *)arg)->adopted = ino;
}

static uint64_t mk(struct fsm_rig *r, const char *name, uint32_t mode)
{
    int64_t ino = fsm_rig_create(r, FSM_ROOT_INO, name, mode);
    assert_true(ino > 0);
    return (uint64_t)ino;
}

static int setattr(struct fsm_rig *r, uint64_t ino, uint32_t valid, int64_t atime, int64_t mtime)
{
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;
    o.ino = ino;
    o.valid = valid;
    o.atime_ns = atime;
    o.mtime_ns = mtime;
    return FSM_RIG_OP(r, SETATTR, setattr, &o);
}

/* ---- times ---- */

static void check_times(struct fsm_rig *r, uint64_t ino, int64_t atime, int64_t mtime,
                        int64_t ctime)
{
    Replfs__Attr a = fsm_rig_attr(r, ino);
    assert_int_equal(a.atime_ns, atime);
    assert_int_equal(a.mtime_ns, mtime);
    assert_int_equal(a.ctime_ns, ctime);
}

static void test_times(void **state)
{
    struct fsm_rig *r = *state;
    static const int64_t odd[] = {0,
                                  -1,
                                  -SEC,
                                  -86400 * 365ll * 69 * SEC - 999999999,
                                  2147483647 * SEC + 999999999,
                                  2147483648 * SEC,
                                  4294967296 * SEC + 1,
                                  INT64_MAX,
                                  INT64_MIN};
    uint64_t f = mk(r, "f", REG_MODE);
    for (size_t k = 0; k < sizeof odd / sizeof odd[0]; k++) {
        r->now = 5000 + (int64_t)k;
        assert_int_equal(setattr(r, f, VALID(ATIME) | VALID(MTIME), odd[k], odd[k] / 2), 0);
        check_times(r, f, odd[k], odd[k] / 2, r->now);
        struct fsm *g = fsm_rig_reload(r->f);
        fsm_free(r->f);
        r->f = g;
        check_times(r, f, odd[k], odd[k] / 2, r->now);
    }
    r->now = 6000;
    assert_int_equal(setattr(r, f, VALID(ATIME) | VALID(MTIME), 1, 2), 0);
    r->now = 6001;
    assert_int_equal(setattr(r, f, VALID(ATIME_NOW) | VALID(MTIME), 77, 3), 0);
    check_times(r, f, 6001, 3, 6001);
    r->now = 6002;
    assert_int_equal(setattr(r, f, VALID(ATIME) | VALID(MTIME_NOW), 4, 77), 0);
    check_times(r, f, 4, 6002, 6002);
    r->now = 6003;
    assert_int_equal(setattr(r, f, VALID(ATIME_NOW), 77, 77), 0);
    check_times(r, f, 6003, 6002, 6003);
    r->now = 6004; /* both: now wins */
    assert_int_equal(setattr(r, f, VALID(MTIME) | VALID(MTIME_NOW), 77, 77), 0);
    check_times(r, f, 6003, 6004, 6004);
    r->now = 6005; /* of nothing at all: still a change */
    assert_int_equal(setattr(r, f, 0, 77, 77), 0);
    check_times(r, f, 6003, 6004, 6005);
}

/* A change that a client kept back: done when the client says, within reason. */
#define APART (10ll * 1000 * 1000 * 1000) /* clocks may be */

static void test_ctime_told(void **state)
{
    struct fsm_rig *r = *state;
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;
    static const struct {
        int64_t now, told, ctime;
    } t[] = {
        {2000, 0, 2000},
        {2100, 2050, 2050},
        {2200, 2050, 2050},
        {2300, 2300, 2300},
        {2400, 2299, 2400},
        {2500, 2501, 2501},
        {2600, INT64_MAX, 2600},
        {2700, INT64_MIN, 2700},
        {2800, -1, 2800},
        {2900, 2900 + APART, 2900 + APART}, /* a clock that is ahead */
        {2901, 2902 + APART, 2901 + APART},
        {2903, 0, 2902 + APART},
        {3000 + APART, 0, 3000 + APART},
    };
    uint64_t f = mk(r, "f", REG_MODE);
    o.ino = f;
    o.valid = VALID(MODE) | VALID(ATIME_NOW);
    for (size_t k = 0; k < sizeof t / sizeof t[0]; k++) {
        uint64_t change = fsm_rig_attr(r, f).change;
        r->now = t[k].now;
        o.mode = 0600 + (uint32_t)k;
        o.ctime_ns = t[k].told;
        assert_int_equal(FSM_RIG_OP(r, SETATTR, setattr, &o), 0);
        check_times(r, f, r->now, 1000, t[k].ctime); /* of ctime alone */
        assert_true(fsm_rig_attr(r, f).change > change);
    }
}

static void test_truncate_times(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = mk(r, "f", REG_MODE);
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;
    r->now = 7000;
    assert_int_equal(fsm_rig_truncate(r, f, 0), 0); /* the size it has */
    check_times(r, f, 1000, 7000, 7000);
    o.ino = f;
    o.valid = VALID(SIZE) | VALID(MTIME);
    o.size = 10;
    o.mtime_ns = 5;
    r->now = 7001;
    assert_int_equal(FSM_RIG_OP(r, SETATTR, setattr, &o), 0);
    check_times(r, f, 1000, 5, 7001);
    r->now = 7002;
    assert_int_equal(fsm_rig_chmod(r, f, 0600), 0);
    check_times(r, f, 1000, 5, 7002);
}

static void test_atime(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = mk(r, "f", REG_MODE), d = mk(r, "d", DIR_MODE);
    uint64_t inos[3] = {f, 999, d};
    int64_t times[3] = {9000, 9001, 9002};
    Replfs__AtimeOp o = REPLFS__ATIME_OP__INIT;
    Replfs__Attr a = fsm_rig_attr(r, f);
    o.n_ino = o.n_atime_ns = 3;
    o.ino = inos;
    o.atime_ns = times;
    r->now = 10000;
    assert_int_equal(FSM_RIG_OP(r, ATIME, atime, &o), 0); /* one is gone: passed over */
    check_times(r, f, 9000, a.mtime_ns, a.ctime_ns);
    assert_int_equal(fsm_rig_attr(r, f).change, a.change);
    assert_int_equal(fsm_rig_attr(r, d).atime_ns, 9002);
    times[0] = 8999;
    assert_int_equal(FSM_RIG_OP(r, ATIME, atime, &o), 0); /* never back */
    assert_int_equal(fsm_rig_attr(r, f).atime_ns, 9000);
    o.n_atime_ns = 2;
    assert_int_equal(FSM_RIG_OP(r, ATIME, atime, &o), EINVAL);
    o.n_ino = o.n_atime_ns = 0;
    assert_int_equal(FSM_RIG_OP(r, ATIME, atime, &o), 0);
    assert_int_equal(setattr(r, f, VALID(ATIME), 5, 0), 0); /* but utimensat may */
    assert_int_equal(fsm_rig_attr(r, f).atime_ns, 5);
}

/* ---- setuid and setgid ---- */

static unsigned killed(struct fsm_rig *r, uint32_t mode, uint32_t valid)
{
    uint64_t ino = mk(r, "k", mode);
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;
    o.ino = ino;
    o.valid = valid;
    o.uid = 7;
    assert_int_equal(FSM_RIG_OP(r, SETATTR, setattr, &o), 0);
    unsigned perm = fsm_rig_attr(r, ino).mode & 07777;
    assert_int_equal(fsm_rig_unlink(r, FSM_ROOT_INO, "k", S_ISDIR(mode)), 0);
    return perm;
}

static void test_kill_suid(void **state)
{
    struct fsm_rig *r = *state;
    assert_int_equal(killed(r, S_IFREG | 06755, VALID(UID)), 06755);
    assert_int_equal(killed(r, S_IFREG | 06755, VALID(UID) | VALID(KILL_SUID)), 0755);
    assert_int_equal(killed(r, S_IFREG | 06745, VALID(UID) | VALID(KILL_SUID)), 02745);
    assert_int_equal(killed(r, S_IFREG | 07777, VALID(KILL_SUID)), 01777);
    assert_int_equal(killed(r, S_IFREG | 06745, VALID(KILL_SUID) | VALID(KILL_SGID)), 0745);
    assert_int_equal(killed(r, S_IFDIR | 02755, VALID(KILL_SUID) | VALID(KILL_SGID)), 02755);
    assert_int_equal(killed(r, S_IFIFO | 06755, VALID(UID) | VALID(KILL_SUID)), 0755);
    assert_int_equal(killed(r, S_IFDIR | 06755, VALID(UID) | VALID(KILL_SUID)), 06755);
    uint64_t f = mk(r, "f", S_IFREG | 06755);
    Replfs__CommitOp c = REPLFS__COMMIT_OP__INIT;
    c.ino = f;
    assert_int_equal(FSM_RIG_OP(r, COMMIT, commit, &c), 0);
    assert_int_equal(fsm_rig_attr(r, f).mode & 07777, 06755);
    c.kill_suid = true;
    assert_int_equal(FSM_RIG_OP(r, COMMIT, commit, &c), 0);
    assert_int_equal(fsm_rig_attr(r, f).mode & 07777, 0755);
}

/* ---- O_TMPFILE ---- */

static int tmpfile_code(struct fsm_rig *r, uint64_t parent, uint32_t mode, const char *name)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = parent;
    c.name = fsm_rig_bytes(name);
    c.mode = mode;
    c.uid = 3;
    c.gid = 4;
    c.umask = 022;
    c.tmpfile = true;
    c.ino = r->next_ino;
    return FSM_RIG_OP(r, CREATE, create, &c);
}

static uint64_t mk_tmpfile(struct fsm_rig *r, uint64_t parent)
{
    assert_int_equal(tmpfile_code(r, parent, S_IFREG | 0666, ""), 0);
    assert_int_equal(r->res.ino, r->next_ino);
    assert_int_equal(r->res.parent, 0);
    return r->next_ino++;
}

static void test_tmpfile(void **state)
{
    struct fsm_rig *r = *state;
    struct hooks_seen seen = {0};
    struct fsm_hooks h = {.orphaned = on_orphaned, .adopted = on_adopted, .arg = &seen};
    uint64_t d = mk(r, "d", S_IFDIR | 02755), ino = 0;
    assert_int_equal(fsm_rig_set_goal(r, d, 3, 0), 0);
    Replfs__Attr dir = fsm_rig_attr(r, d);
    fsm_set_hooks(r->f, &h);
    r->now = 2000;
    uint64_t t = mk_tmpfile(r, d);
    Replfs__Attr a = fsm_rig_attr(r, t);
    assert_int_equal(a.mode, S_IFREG | 0644);
    assert_int_equal(a.nlink, 0);
    assert_int_equal(a.uid, 3);
    assert_int_equal(a.gid, dir.gid); /* setgid directory */
    assert_int_equal(a.goal, 3);
    assert_int_equal(fsm_rig_attr(r, d).mtime_ns, dir.mtime_ns);
    assert_int_equal(fsm_rig_attr(r, d).change, dir.change);
    assert_true(fsm_orphan_next(r->f, 0, &ino) && ino == t);
    assert_true(seen.orphan == t && seen.opener == 7);
    assert_int_equal(fsm_rig_commit(r, t, 0, 100, 10, 0), 0);
    struct fsm *g = fsm_rig_reload(r->f); /* still nameable after a restart */
    fsm_free(r->f);
    r->f = g;
    fsm_set_hooks(r->f, &h);
    r->now = 3000;
    assert_int_equal(fsm_rig_link(r, t, FSM_ROOT_INO, "named"), 0);
    assert_int_equal(r->res.parent, FSM_ROOT_INO);
    assert_int_equal(seen.adopted, t);
    a = fsm_rig_attr(r, t);
    assert_int_equal(a.nlink, 1);
    assert_int_equal(a.ctime_ns, 3000);
    assert_int_equal(fsm_rig_lookup(r, FSM_ROOT_INO, "named"), t);
    assert_false(fsm_orphan_next(r->f, 0, &ino));
    assert_int_equal(fsm_rig_reap(r, t), 0); /* one that was under way does nothing */
    assert_int_equal(fsm_rig_attr(r, t).size, 100);
    assert_int_equal(fsm_rig_link(r, t, d, "second"), 0);
    assert_int_equal(fsm_rig_unlink(r, FSM_ROOT_INO, "named", false), 0);
    assert_int_equal(fsm_rig_unlink(r, d, "second", false), 0);
    assert_true(fsm_orphan_next(r->f, 0, &ino) && ino == t);
    assert_true(seen.orphan == t && seen.opener == 0);
    assert_int_equal(fsm_rig_link(r, t, d, "again"), ENOENT); /* it had a name: no more */
    assert_int_equal(fsm_rig_reap(r, t), 0);
    assert_int_equal(fsm_rig_attr(r, t).ino, 0);
}

static void test_tmpfile_refused(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t f = mk(r, "f", REG_MODE);
    uint64_t digest = fsm_digest(r->f);
    assert_int_equal(tmpfile_code(r, FSM_ROOT_INO, S_IFREG | 0600, "name"), EINVAL);
    assert_int_equal(tmpfile_code(r, FSM_ROOT_INO, S_IFDIR | 0700, ""), EINVAL);
    assert_int_equal(tmpfile_code(r, FSM_ROOT_INO, S_IFIFO | 0700, ""), EINVAL);
    assert_int_equal(tmpfile_code(r, f, S_IFREG | 0600, ""), ENOTDIR);
    assert_int_equal(tmpfile_code(r, 999, S_IFREG | 0600, ""), ENOENT);
    assert_int_equal(fsm_digest(r->f), digest);
    uint64_t t = mk_tmpfile(r, FSM_ROOT_INO), u = mk_tmpfile(r, FSM_ROOT_INO);
    assert_int_equal(fsm_rig_link(r, t, FSM_ROOT_INO, "f"), EEXIST);
    assert_int_equal(fsm_rig_link(r, t, f, "x"), ENOTDIR);
    assert_int_equal(fsm_rig_attr(r, t).nlink, 0);
    assert_int_equal(fsm_rig_link(r, t, FSM_ROOT_INO, "x"), 0); /* a refusal did no harm */
    assert_int_equal(fsm_rig_reap(r, u), 0);
    assert_int_equal(fsm_rig_attr(r, u).ino, 0);
}

/* ---- append ---- */

static int append(struct fsm_rig *r, uint64_t ino, uint64_t off, uint32_t len, uint64_t chunk,
                  uint32_t chunk_off)
{
    Replfs__Extent e[2] = {REPLFS__EXTENT__INIT, REPLFS__EXTENT__INIT}, *ep[2] = {&e[0], &e[1]};
    Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
    for (unsigned k = 0; k < 2; k++) {
        e[k].file_off = off + (uint64_t)k * len;
        e[k].len = len;
        e[k].chunk = chunk;
        e[k].chunk_off = chunk_off + k * len;
    }
    o.ino = ino;
    o.n_extents = 2;
    o.extents = ep;
    o.append = true;
    return FSM_RIG_OP(r, COMMIT, commit, &o);
}

static void test_append(void **state)
{
    struct fsm_rig *r = *state;
    struct ext e;
    const struct extmap *m;
    uint64_t f = mk(r, "f", REG_MODE);
    assert_int_equal(fsm_rig_session_open(r, 8), 0);
    r->seq = 1;
    assert_int_equal(append(r, f, 0, 50, 10, 0), 0);
    assert_int_equal(r->res.value, 0);
    r->session = 8; /* another client, with a chunk of its own */
    assert_int_equal(append(r, f, 0, 25, 11, 0), 0);
    assert_int_equal(r->res.value, 100);
    assert_int_equal(fsm_rig_attr(r, f).size, 150);
    struct fsm *g = fsm_rig_reload(r->f);
    fsm_free(r->f);
    r->f = g;
    assert_int_equal(append(r, f, 0, 25, 11, 0), 0); /* a repeat: told, not done */
    assert_true(r->res.repeated);
    assert_int_equal(r->res.value, 100);
    assert_int_equal(fsm_rig_attr(r, f).size, 150);
    assert_int_equal(fsm_extents(r->f, f, &m), 0);
    assert_true(extmap_find(m, 100, &e) && e.chunk == 11 && e.file_off == 100 && e.len == 50);
    r->seq = 0;
    assert_int_equal(fsm_rig_truncate(r, f, (uint64_t)INT64_MAX - 99), 0);
    assert_int_equal(append(r, f, 0, 50, 11, 50), EFBIG);
    assert_int_equal(append(r, f, UINT64_MAX - 20, 10, 11, 50), EFBIG);
    assert_int_equal(append(r, f, 0, 49, 11, 50), 0);
    assert_int_equal(r->res.value, INT64_MAX - 99);
    assert_int_equal(fsm_rig_attr(r, f).size, (uint64_t)INT64_MAX - 1);
    assert_int_equal(append(r, f, 0, FSM_CHUNK_MAX / 2, 12, 0), EFBIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_times, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_ctime_told, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_truncate_times, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_atime, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_kill_suid, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_tmpfile, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_tmpfile_refused, fsm_rig_setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_append, fsm_rig_setup, fsm_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
