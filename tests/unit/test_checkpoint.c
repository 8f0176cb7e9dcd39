/* Checkpoints: what is saved is what is loaded, also from a forked child; damage anywhere is
 * refused with its place; contradictions behind right checksums are refused too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/wait.h>
#include "metad/fsm/fsm_cluster.h"
#include "tests/fuzz/ckpt_fix.h"
#include "tests/unit/fsm_rig.h"

/* u::rw- g::r-- m::rw- o::--- */
static const uint8_t acl[] = {2,   0,   0,   0,   1,   0,   6,   0,   255, 255, 255, 255,
                              4,   0,   4,   0,   255, 255, 255, 255, 16,  0,   6,   0,
                              255, 255, 255, 255, 32,  0,   0,   0,   255, 255, 255, 255};

/* A little of everything. */
static void fill(struct fsm_rig *r)
{
    fsm_rig_open(r);
    uint64_t a = (uint64_t)fsm_rig_create(r, 1, "a", DIR_MODE);
    uint64_t b = (uint64_t)fsm_rig_create(r, a, "b", DIR_MODE);
    uint64_t f = (uint64_t)fsm_rig_create(r, b, "file", REG_MODE);
    uint64_t g = (uint64_t)fsm_rig_create(r, 1, "gone", REG_MODE);
    int bad = fsm_rig_commit(r, f, 0, 10000, 5, 0);
    bad |= fsm_rig_commit(r, f, 50000, 10000, 5, 10000);
    bad |= fsm_rig_commit(r, g, 0, 77, 6, 0);
    bad |= fsm_rig_link(r, f, 1, "second");
    bad |= fsm_rig_unlink(r, 1, "gone", false);
    bad |= fsm_rig_create_full(r, a, "link", S_IFLNK | 0777, 1, 2, "b/file", r->next_ino++);
    bad |= fsm_rig_rename(r, b, "file", b, "file2", 0); /* its former cookie stays unused */
    bad |= fsm_rig_set_goal(r, b, 3, 0);
    bad |= fsm_rig_setxattr(r, a, "system.posix_acl_default", acl, sizeof acl, 0);
    bad |= fsm_rig_setxattr(r, f, "system.posix_acl_access", acl, sizeof acl, 0);
    bad |= fsm_rig_setxattr(r, f, "user.x", "value", 5, 0);
    r->seq = 3;
    bad |= fsm_rig_truncate(r, f, 55000);
    r->seq = 0;
    bad |= fsm_rig_clone(r, f, 100, f, 60000, 1000);
    bad |= fsm_rig_fallocate(r, f, 1, 70000, 4096);
    r->session = 0;
    bad |= fsm_rig_member(r, 1, "machine-one");
    bad |= fsm_rig_session_open(r, 9);
    r->session = 7;
    assert_int_equal(bad, 0);
}

static uint8_t *slurp(int fd, size_t *n)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    *n = (size_t)st.st_size;
    uint8_t *p = malloc(*n + 64);
    assert_non_null(p);
    assert_int_equal(pread(fd, p, *n, 0), (ssize_t)*n);
    return p;
}

/* Loads n bytes; *f is the state when that works. */
static int load(const uint8_t *p, size_t n, char why[256], struct fsm **f)
{
    int fd = memfd_create("ckpt", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), (ssize_t)n);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(fsm_new(f), 0);
    int code = fsm_load(*f, fd, why);
    close(fd);
    if (code) {
        fsm_free(*f);
        *f = NULL;
    }
    return code;
}

static uint8_t *saved(size_t *n)
{
    struct fsm_rig r;
    fill(&r);
    int fd = fsm_rig_save(r.f);
    uint8_t *p = slurp(fd, n);
    close(fd);
    fsm_rig_close(&r);
    return p;
}

static void test_round_trip(void **state)
{
    (void)state;
    struct fsm_rig r;
    uint64_t ino = 0, chunk, upto;
    const uint8_t *t;
    size_t n;
    fill(&r);
    struct fsm *g = fsm_rig_reload(r.f);
    uint64_t digest = fsm_digest(r.f);
    uint64_t f = fsm_rig_lookup(&r, 1, "second");
    Replfs__Attr a = fsm_rig_attr(&r, f);
    struct fsm_counts c1, c2;
    fsm_counts(r.f, &c1);
    fsm_counts(g, &c2);
    assert_memory_equal(&c1, &c2, sizeof c1);
    fsm_rig_close(&r);
    r.f = g;
    Replfs__Attr b = fsm_rig_attr(&r, f);
    assert_memory_equal(&a.ino, &b.ino, sizeof a - offsetof(Replfs__Attr, ino));
    assert_int_equal(b.nlink, 2);
    assert_int_equal(b.allocated, 15000 + 1000 + 4096);
    assert_true(fsm_orphan_next(g, 0, &ino));
    assert_int_equal(fsm_chunk_find(g, 6)->live, 77);
    assert_int_equal(fsm_chunk_find(g, 5)->refs, 3);
    assert_int_equal(fsm_chunk_find(g, 5)->len, 20000);
    fsm_reserved(g, &chunk, &upto);
    assert_true(chunk == 1ull << 40 && upto == 1ull << 40);
    uint64_t link = fsm_rig_lookup(&r, fsm_rig_lookup(&r, 1, "a"), "link");
    assert_int_equal(fsm_readlink(g, link, &t, &n), 0);
    assert_memory_equal(t, "b/file", 6);
    r.seq = 3; /* remembered */
    assert_int_equal(fsm_rig_truncate(&r, f, 1), 0);
    assert_true(r.res.repeated);
    assert_int_equal(fsm_digest(g), digest);
    r.seq = 4;
    assert_int_equal(fsm_rig_truncate(&r, f, 1), 0);
    assert_int_equal(fsm_rig_attr(&r, f).size, 1);
    fsm_rig_close(&r);
}

static void test_empty(void **state)
{
    (void)state;
    struct fsm *f;
    assert_int_equal(fsm_new(&f), 0);
    fsm_free(fsm_rig_reload(f));
    fsm_free(f);
}

static void test_many_sections(void **state)
{
    (void)state;
    struct fsm_rig r;
    char name[64];
    fsm_rig_open(&r);
    for (unsigned k = 0; k < 20000; k++) {
        snprintf(name, sizeof name, "some file with a name %u", k);
        int64_t ino = fsm_rig_create(&r, 1, name, REG_MODE);
        assert_true(ino > 0);
        assert_int_equal(fsm_rig_commit(&r, (uint64_t)ino, 0, 100, r.next_chunk++, 0), 0);
    }
    fsm_free(fsm_rig_reload(r.f));
    fsm_rig_close(&r);
}

static void test_every_flip(void **state)
{
    (void)state;
    size_t n;
    uint8_t *p = saved(&n);
    char why[256];
    struct fsm *f;
    assert_int_equal(load(p, n, why, &f), 0);
    fsm_free(f);
    for (size_t k = 0; k < n; k++) {
        p[k] ^= (uint8_t)(1u << (k * 7 % 8));
        int code = load(p, n, why, &f);
        if (code != -ERR_CORRUPT || !strstr(why, "offset"))
            fail_msg("byte %zu flipped: code %d, \"%s\"", k, code, why);
        p[k] ^= (uint8_t)(1u << (k * 7 % 8));
    }
    free(p);
}

static void test_every_cut(void **state)
{
    (void)state;
    size_t n;
    uint8_t *p = saved(&n);
    char why[256];
    struct fsm *f;
    for (size_t k = 0; k < n; k++) {
        if (load(p, k, why, &f) != -ERR_CORRUPT || !strstr(why, "offset"))
            fail_msg("cut at %zu: \"%s\"", k, why);
    }
    p[n] = 0;
    assert_int_equal(load(p, n + 1, why, &f), -ERR_CORRUPT); /* bytes behind the end */
    assert_non_null(strstr(why, "behind the end"));
    free(p);
}

static void test_lost_section(void **state)
{
    (void)state;
    size_t n;
    uint8_t *p = saved(&n);
    char why[256];
    struct fsm *f;
    size_t at = ckpt_section(p, n, CKPT_MEMBER);
    assert_true(at > 0);
    size_t len = CKPT_SECTION + le_get32(p + at + 8);
    memmove(p + at, p + at + len, n - at - len);
    assert_int_equal(load(p, n - len, why, &f), -ERR_CORRUPT);
    assert_non_null(strstr(why, "missing"));
    free(p);
}

static void test_version(void **state)
{
    (void)state;
    size_t n;
    uint8_t *p = saved(&n);
    char why[256];
    struct fsm *f;
    le_put32(p + 8, CKPT_VERSION + 1);
    ckpt_fix(p, n);
    assert_int_equal(load(p, n, why, &f), -ERR_VERSION);
    char named[32];
    snprintf(named, sizeof named, "version %u", CKPT_VERSION + 1);
    assert_non_null(strstr(why, named));
    free(p);
}

/* Right checksums, wrong content: one field of one section is set to v. */
static void lie(uint32_t type, size_t field, unsigned width, uint64_t v, const char *expect)
{
    size_t n;
    uint8_t *p = saved(&n), le[8];
    char why[256];
    struct fsm *f;
    size_t at = ckpt_section(p, n, type);
    assert_true(at > 0);
    le_put64(le, v);
    memcpy(p + at + CKPT_SECTION + field, le, width);
    ckpt_fix(p, n);
    int code = load(p, n, why, &f);
    if (code != -ERR_CORRUPT || !strstr(why, expect))
        fail_msg("section %u field %zu: code %d, \"%s\" instead of \"%s\"", type, field, code, why,
                 expect);
    free(p);
}

static void test_contradictions(void **state)
{
    (void)state;
    const size_t reserved = 3 * 32ul;    /* behind three with bytes */
    const size_t dentry = 8 + 8 + 8 + 1; /* plus the name's length */
    lie(CKPT_META, 16, 8, 1, "counters");
    lie(CKPT_SESSION, 0, 8, 0, "session id");
    lie(CKPT_SESSION, 0, 8, 9, "twice");
    lie(CKPT_ANSWER, 0, 8, 1234, "session that is not there");
    lie(CKPT_ANSWER, 8, 8, 0, "forgotten");
    lie(CKPT_MEMBER, 0, 4, 0, "member");
    lie(CKPT_INODE, 0, 8, 1ull << 50, "inode");     /* root renumbered: not reserved */
    lie(CKPT_INODE, 8, 2, S_IFREG | 0644, "inode"); /* root a file */
    lie(CKPT_INODE, 20, 1, 0, "inode");             /* goal 0 */
    lie(CKPT_INODE, 8 + 2 + 2 + 4 + 4, 1, 9, "inode");
    lie(CKPT_INODE, 3 * 74 + 10, 2, 3, "link count"); /* the file, which has two names */
    lie(CKPT_DENTRY, 0, 8, 999, "directory that is not there");
    lie(CKPT_DENTRY, 0, 8, 4, "directory that is not there"); /* a file */
    lie(CKPT_DENTRY, 8, 8, 999, "inode that is not there");
    lie(CKPT_DENTRY, 8, 8, 1, "two names");
    lie(CKPT_DENTRY, 16, 8, 0, "cookie");
    lie(CKPT_DENTRY, 16, 8, 3, "cookie");
    lie(CKPT_DENTRY, dentry, 1, '/', "name");
    lie(CKPT_DENTRY, 0, 8, 3, "not below the root"); /* a in b, b in a */
    lie(CKPT_CHUNK, 0, 8, 0, "chunk");
    lie(CKPT_CHUNK, 0, 8, 6, "twice");
    lie(CKPT_CHUNK, 16, 4, 10, "does not have");
    lie(CKPT_EXTENT, 0, 8, 1, "file that is not there");
    lie(CKPT_EXTENT, 8, 8, 1 << 30, "behind the end");
    lie(CKPT_EXTENT, 8, 8, 45000, "overlap");
    lie(CKPT_EXTENT, 16, 8, 77, "does not have");
    lie(CKPT_EXTENT, 28, 4, 0, "behind the end");
    lie(CKPT_EXTENT, reserved + 8, 8, UINT64_MAX - 9, "reservation");
    lie(CKPT_EXTENT, reserved + 16, 8, 5, "behind the end"); /* bytes where none can be */
    lie(CKPT_EXTENT, reserved + 24, 4, 1, "reservation");
    lie(CKPT_EXTENT, reserved + 28, 4, 0, "reservation");
    lie(CKPT_EXTENT, reserved + 28, 4, (1u << 30) + 1, "reservation");
    const size_t space = 9, value = 9 + 24 + 4; /* of a's default ACL, the first */
    lie(CKPT_XATTR, 0, 8, 999, "inode that is not there");
    lie(CKPT_XATTR, 0, 8, 4, "impossible"); /* a file with a default ACL */
    lie(CKPT_XATTR, space, 1, 'S', "impossible");
    lie(CKPT_XATTR, space, 1, 0, "impossible");
    lie(CKPT_XATTR, value - 4, 4, 1u << 30, "malformed");
    lie(CKPT_XATTR, value - 4, 4, 0, "impossible"); /* an ACL of nothing */
    lie(CKPT_XATTR, value, 4, 3, "impossible");
    lie(CKPT_XATTR, value + 4, 2, 64, "impossible");
    lie(CKPT_END, 0, 8, 1, "counts");
}

/* Any byte changed behind right checksums: refused, or loaded as a state that works. */
static void test_mangled(void **state)
{
    (void)state;
    size_t n;
    uint8_t *p = saved(&n), *q = malloc(n);
    char why[256];
    unsigned refused = 0, taken = 0;
    assert_non_null(q);
    for (size_t k = CKPT_HEADER; k < n; k++) {
        memcpy(q, p, n);
        q[k] = (uint8_t)(q[k] + 1 + k * 31 % 255);
        ckpt_fix(q, n);
        struct fsm_rig r = {.next_ino = 1ull << 30, .session = 0};
        if (load(q, n, why, &r.f) != 0) {
            refused++;
            continue;
        }
        taken++;
        fsm_rig_create(&r, 1, "new", REG_MODE);
        fsm_rig_unlink(&r, 1, "second", false);
        fsm_rig_rename(&r, 1, "a", 1, "z", 0);
        fsm_free(fsm_rig_reload(r.f));
        fsm_rig_close(&r);
    }
    assert_true(refused > 100 && taken > 50);
    free(p);
    free(q);
}

static void test_forked(void **state)
{
    (void)state;
    struct fsm_rig r;
    char why[256];
    int status;
    fill(&r);
    uint64_t digest = fsm_digest(r.f);
    int fd = memfd_create("ckpt", MFD_CLOEXEC);
    fsm_wrlock(r.f); /* the child must not want it */
    pid_t pid = fork();
    if (pid == 0)
        _exit(fsm_save(r.f, fd) ? 1 : 0);
    fsm_rig_create(&r, 1, "later", REG_MODE);
    fsm_unlock(r.f);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    struct fsm *g;
    assert_int_equal(fsm_new(&g), 0);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(fsm_load(g, fd, why), 0);
    assert_int_equal(fsm_digest(g), digest);
    assert_true(fsm_digest(r.f) != digest);
    close(fd);
    fsm_free(g);
    fsm_rig_close(&r);
}

static void count_orphan(void *arg, uint64_t ino, uint64_t opener)
{
    (void)ino;
    (void)opener;
    ++*(int *)arg;
}

/* The loaded state takes the place of another one: all of it, both ways, but for what is of the process. */
static void test_exchange(void **state)
{
    (void)state;
    struct fsm_rig r, other = {.next_ino = 1ull << 20};
    int told = 0;
    struct fsm_hooks hooks = {.orphaned = count_orphan, .arg = &told};

    fill(&r);
    assert_int_equal(fsm_new(&other.f), 0);
    fsm_rig_create(&other, 1, "only here", REG_MODE);
    fsm_setting_offer(other.f, SETTING_DEAD, 77000);
    fsm_metad_self(other.f, 5);
    uint64_t a = fsm_digest(r.f), b = fsm_digest(other.f);
    struct fsm *fresh = fsm_rig_reload(r.f);
    assert_int_equal(fsm_digest(fresh), a);
    fsm_wrlock(other.f);
    fsm_set_hooks(other.f, &hooks);
    fsm_exchange(other.f, fresh);
    fsm_unlock(other.f);
    assert_int_equal(fsm_digest(other.f), a);
    assert_int_equal(fsm_digest(fresh), b);
    assert_int_equal(fsm_setting(other.f, SETTING_DEAD), 77000);
    fsm_free(fresh);
    fsm_rig_create(&other, 1, "and goes on", REG_MODE);
    assert_true(fsm_digest(other.f) != a);
    assert_int_equal(told, 0);
    assert_int_equal(fsm_rig_unlink(&other, 1, "and goes on", false), 0);
    assert_int_equal(told, 1);
    fsm_set_hooks(other.f, NULL);
    fsm_free(fsm_rig_reload(other.f));
    fsm_rig_close(&other);
    fsm_rig_close(&r);
}

static void test_save_fails(void **state)
{
    (void)state;
    struct fsm_rig r;
    fill(&r);
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fsm_save(r.f, fd), -ENOSPC);
    close(fd);
    fsm_rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_empty),
        cmocka_unit_test(test_many_sections), cmocka_unit_test(test_every_flip),
        cmocka_unit_test(test_every_cut),     cmocka_unit_test(test_lost_section),
        cmocka_unit_test(test_version),       cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_mangled),       cmocka_unit_test(test_forked),
        cmocka_unit_test(test_exchange),      cmocka_unit_test(test_save_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
