/* The state machine against the kernel's own file system: random creations, ACLs (valid and not),
 * chmods and extended attributes are done to a directory below /var/tmp and to the state machine;
 * error codes, modes and all attributes must agree after each. Skipped where that file system has no
 * ACLs or one may not set trusted attributes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include "base/byteorder.h"
#include "tests/unit/fsm_rig.h"
#include "tests/unit/tree.h"

enum { NODES = 300, STEPS = 15000, DEEPEST = 100 };

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

struct node {
    char path[128];
    uint64_t ino;
    uint32_t type;
};
struct both {
    struct fsm_rig r;
    struct node n[NODES];
    unsigned nn, step;
    uint64_t rnd;
    unsigned fine, refused;
};

static unsigned rnd(struct both *b, unsigned below)
{
    b->rnd = b->rnd * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(b->rnd >> 33) % below;
}

static int code(int rv)
{
    return rv < 0 ? errno : 0;
}

/* ---- agreeing ---- */

static void check_attr(struct both *b, const struct node *n, const char *name)
{
    uint8_t real[1024];
    const uint8_t *ours;
    ssize_t want = lgetxattr(n->path, name, real, sizeof real);
    int got = fsm_rig_getxattr(&b->r, n->ino, name, &ours);

    if (want < 0)
        want = -errno;
    if (got != want || (want > 0 && memcmp(real, ours, (size_t)want) != 0))
        fail_msg("step %u: %s of %s is %d, the kernel says %zd", b->step, name, n->path, got, want);
}

static void agree(struct both *b, const struct node *n, const char *what, int ours, int real)
{
    static const char *const names[] = {ACCESS, DEFAULT, "user.a", "trusted.b", "security.c"};
    struct stat st;

    /* The kernel decodes an ACL before it finds that a link cannot have one. */
    bool same = ours == real || (ours && real && n->type == S_IFLNK);
    if (!same)
        fail_msg("step %u: %s on %s: %s, the kernel says %s", b->step, what, n->path,
                 strerror(ours), strerror(real));
    ours ? b->refused++ : b->fine++;
    assert_int_equal(lstat(n->path, &st), 0);
    Replfs__Attr a = fsm_rig_attr(&b->r, n->ino);
    if (a.mode != st.st_mode)
        fail_msg("step %u: %s on %s: mode %o, the kernel says %o", b->step, what, n->path, a.mode,
                 st.st_mode);
    for (unsigned k = 0; k < sizeof names / sizeof names[0]; k++)
        check_attr(b, n, names[k]);
}

/* ---- the operations ---- */

static int create_real(const char *path, uint32_t type, uint32_t mode)
{
    if (type == S_IFDIR)
        return code(mkdir(path, mode));
    if (type == S_IFLNK)
        return code(symlink("t", path));
    if (type == S_IFIFO)
        return code(mknod(path, S_IFIFO | mode, 0));
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, mode);
    return fd < 0 ? errno : code(close(fd));
}

static void do_create(struct both *b)
{
    static const uint32_t types[] = {S_IFDIR, S_IFDIR, S_IFREG, S_IFREG, S_IFIFO, S_IFLNK};
    struct node *dir = &b->n[rnd(b, b->nn)], *n = &b->n[b->nn];
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    char name[16];

    if (b->nn == NODES || dir->type != S_IFDIR || strlen(dir->path) > DEEPEST)
        return;
    snprintf(name, sizeof name, "n%u", b->nn);
    memcpy(n->path, dir->path, sizeof n->path);
    snprintf(n->path + strlen(n->path), sizeof n->path - strlen(n->path), "/%s", name);
    n->type = types[rnd(b, sizeof types / sizeof types[0])];
    n->ino = c.ino = b->r.next_ino++;
    uint32_t perm = n->type == S_IFLNK ? 0777 : rnd(b, n->type == S_IFDIR ? 02000 : 010000);
    c.parent = dir->ino;
    c.name = fsm_rig_bytes(name);
    c.mode = n->type | perm;
    c.umask = rnd(b, 01000);
    c.target = fsm_rig_bytes(n->type == S_IFLNK ? "t" : "");
    mode_t old = umask(c.umask);
    int real = create_real(n->path, n->type, perm);
    umask(old);
    b->nn++;
    agree(b, n, "create", FSM_RIG_OP(&b->r, CREATE, create, &c), real);
}

static size_t entry(uint8_t *p, size_t at, unsigned tag, unsigned perm, uint32_t id)
{
    le_put16(p + at, (uint16_t)tag);
    le_put16(p + at + 2, (uint16_t)perm);
    le_put32(p + at + 4, id);
    return at + 8;
}

/* Mostly valid lists. */
static size_t random_acl(struct both *b, uint8_t *p)
{
    size_t at = 4;
    bool named = false;

    le_put32(p, rnd(b, 50) ? 2 : 1);
    if (rnd(b, 30))
        at = entry(p, at, 1, rnd(b, 8), rnd(b, 5) ? UINT32_MAX : 5);
    for (unsigned k = rnd(b, 2) * rnd(b, 4); k > 0; k--, named = true)
        at = entry(p, at, 2, rnd(b, 8), rnd(b, 40) ? 100 + rnd(b, 5) : UINT32_MAX);
    if (rnd(b, 30))
        at = entry(p, at, 4, rnd(b, 8), UINT32_MAX);
    for (unsigned k = rnd(b, 2) * rnd(b, 4); k > 0; k--, named = true)
        at = entry(p, at, 8, rnd(b, 8), 200 + rnd(b, 5));
    if (named ? rnd(b, 15) : rnd(b, 3) == 0)
        at = entry(p, at, 16, rnd(b, 60) ? rnd(b, 8) : 8, UINT32_MAX);
    if (rnd(b, 30))
        at = entry(p, at, 32, rnd(b, 8), UINT32_MAX);
    if (rnd(b, 40) == 0)
        at = entry(p, at, 1u << rnd(b, 8), rnd(b, 8), rnd(b, 3));
    if (rnd(b, 40) == 0)
        at -= rnd(b, 4);
    return rnd(b, 40) ? at : rnd(b, 5);
}

static void do_acl(struct both *b)
{
    struct node *n = &b->n[rnd(b, b->nn)];
    const char *name = rnd(b, 2) ? ACCESS : DEFAULT;
    uint8_t acl[256];

    if (rnd(b, 4) == 0) {
        int real = code(lremovexattr(n->path, name));
        agree(b, n, "removing an ACL", fsm_rig_rmxattr(&b->r, n->ino, name), real);
        return;
    }
    size_t len = random_acl(b, acl);
    int real = code(lsetxattr(n->path, name, acl, len, 0));
    agree(b, n, name, fsm_rig_setxattr(&b->r, n->ino, name, acl, len, 0), real);
}

static void do_chmod(struct both *b)
{
    struct node *n = &b->n[rnd(b, b->nn)];
    uint32_t mode = rnd(b, 010000);

    if (n->type == S_IFLNK)
        return;
    int real = code(chmod(n->path, mode));
    agree(b, n, "chmod", fsm_rig_chmod(&b->r, n->ino, mode), real);
}

static void do_xattr(struct both *b)
{
    static const char *const names[] = {"user.a", "trusted.b", "security.c", "user.",
                                        "bad.x",  "x",         "trusted."};
    static const uint8_t value[50] = "some bytes";
    struct node *n = &b->n[rnd(b, b->nn)];
    const char *name = names[rnd(b, sizeof names / sizeof names[0])];
    size_t len = rnd(b, sizeof value);
    unsigned flags = rnd(b, 5);

    if (rnd(b, 3) == 0) {
        int real = code(lremovexattr(n->path, name));
        agree(b, n, "removexattr", fsm_rig_rmxattr(&b->r, n->ino, name), real);
        return;
    }
    int real = code(lsetxattr(n->path, name, value, len, (int)flags));
    agree(b, n, name, fsm_rig_setxattr(&b->r, n->ino, name, value, len, flags), real);
}

/* ---- the test ---- */

static bool usable(const char *dir)
{
    static const uint8_t minimal[] = {2, 0, 0, 0};

    return lsetxattr(dir, DEFAULT, minimal, sizeof minimal, 0) == 0 &&
           lsetxattr(dir, "trusted.b", "", 0, 0) == 0 && lremovexattr(dir, "trusted.b") == 0;
}

static void test_against_kernel(void **state)
{
    static void (*const ops[])(struct both *) = {do_create, do_acl,   do_acl, do_chmod,
                                                 do_xattr,  do_xattr, do_acl};
    (void)state;
    struct both *b = calloc(1, sizeof *b);
    assert_non_null(b);
    struct node *top = &b->n[0];
    snprintf(top->path, sizeof top->path, "/var/tmp/test_fsm_acl_kernel.XXXXXX");
    assert_non_null(mkdtemp(top->path));
    if (!usable(top->path)) {
        tree_remove(top->path);
        free(b);
        skip();
    }
    fsm_rig_open(&b->r);
    assert_int_equal(chmod(top->path, 0755), 0);
    top->ino = FSM_ROOT_INO;
    top->type = S_IFDIR;
    b->nn = 1;
    b->rnd = 3;
    for (b->step = 0; b->step < STEPS; b->step++)
        ops[rnd(b, sizeof ops / sizeof ops[0])](b);
    assert_true(b->fine > STEPS / 4 && b->refused > STEPS / 10 && b->nn == NODES);
    fsm_free(fsm_rig_reload(b->r.f));
    fsm_rig_close(&b->r);
    tree_remove(top->path);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_kernel)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
