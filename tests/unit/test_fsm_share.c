/* Clones and reserved ranges in the state machine: cases one by one, then random commands on a few
 * small files against a model with one array cell a byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/extmap.h"
#include "tests/unit/fsm_rig.h"

#define MIB (1u << 20)
#define GIB (1ull << 30)

enum { KEEP = 1, PUNCH = 3, ZERO = 16 };

static struct fsm_counts counts(struct fsm_rig *r)
{
    struct fsm_counts n;
    fsm_counts(r->f, &n);
    return n;
}

static size_t extents(struct fsm_rig *r, uint64_t ino)
{
    const struct extmap *m;
    assert_int_equal(fsm_extents(r->f, ino, &m), 0);
    return extmap_count(m);
}

static uint64_t file_new(struct fsm_rig *r, const char *name)
{
    int64_t ino = fsm_rig_create(r, FSM_ROOT_INO, name, REG_MODE);
    assert_true(ino > 0);
    return (uint64_t)ino;
}

static void unlink_reap(struct fsm_rig *r, const char *name)
{
    uint64_t ino = fsm_rig_lookup(r, FSM_ROOT_INO, name);
    assert_int_equal(fsm_rig_unlink(r, FSM_ROOT_INO, name, false), 0);
    assert_int_equal(fsm_rig_reap(r, ino), 0);
}

/* ---- clones ---- */

static void test_clone(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = file_new(r, "a"), b = file_new(r, "b");
    assert_int_equal(fsm_rig_commit(r, a, 0, 3 * MIB, 10, 0), 0);
    assert_int_equal(fsm_rig_commit(r, a, 4 * MIB, MIB, 11, 0), 0);
    r->now = 5000;
    assert_int_equal(fsm_rig_clone(r, a, 0, b, 0, UINT64_MAX), 0);
    assert_int_equal(r->res.value, 5 * MIB);
    assert_int_equal(r->res.ino, b);
    Replfs__Attr x = fsm_rig_attr(r, b);
    assert_int_equal(x.size, 5 * MIB);
    assert_int_equal(x.allocated, 4 * MIB);
    assert_int_equal(x.mtime_ns, 5000);
    assert_int_equal(x.ctime_ns, 5000);
    assert_int_equal(counts(r).bytes, 8 * MIB);
    struct fsm_chunk *k = fsm_chunk_find(r->f, 10);
    assert_int_equal(k->refs, 2);
    assert_int_equal(k->live, 6 * MIB);
    assert_int_equal(fsm_chunk_files(r->f, k), 2);
    /* each may change its own */
    assert_int_equal(fsm_rig_truncate(r, a, MIB), 0);
    assert_int_equal(k->live, 4 * MIB);
    assert_int_equal(fsm_chunk_files(r->f, fsm_chunk_find(r->f, 11)), 1);
    assert_int_equal(fsm_rig_commit(r, b, 0, 3 * MIB, 12, 0), 0);
    assert_int_equal(k->live, MIB);
    assert_int_equal(fsm_chunk_files(r->f, k), 1);
    unlink_reap(r, "a");
    assert_null(fsm_chunk_find(r->f, 10));
    assert_non_null(fsm_chunk_find(r->f, 11));
    assert_int_equal(fsm_rig_attr(r, b).allocated, 4 * MIB);
}

static void test_clone_refused(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = file_new(r, "a"), d = (uint64_t)fsm_rig_create(r, FSM_ROOT_INO, "d", DIR_MODE);
    uint64_t p = (uint64_t)fsm_rig_create(r, FSM_ROOT_INO, "p", S_IFIFO | 0600),
             b = file_new(r, "b");
    assert_int_equal(fsm_rig_commit(r, a, 0, MIB, 10, 0), 0);
    uint64_t digest = fsm_digest(r->f);
    assert_int_equal(fsm_rig_clone(r, a, 0, d, 0, 10), EISDIR);
    assert_int_equal(fsm_rig_clone(r, d, 0, a, 0, 10), EISDIR);
    assert_int_equal(fsm_rig_clone(r, a, 0, p, 0, 10), EINVAL);
    assert_int_equal(fsm_rig_clone(r, a, 0, 999, 0, 10), ENOENT);
    assert_int_equal(fsm_rig_clone(r, 999, 0, a, 0, 10), ENOENT);
    assert_int_equal(fsm_rig_clone(r, a, 0, a, 5, 10), EINVAL);
    assert_int_equal(fsm_rig_clone(r, a, 5, a, 0, 10), EINVAL);
    assert_int_equal(fsm_rig_clone(r, a, 0, b, INT64_MAX, 10), EFBIG);
    assert_int_equal(fsm_rig_clone(r, a, 0, b, UINT64_MAX, UINT64_MAX), EFBIG);
    assert_int_equal(fsm_rig_clone(r, a, MIB, b, 0, 10), 0); /* behind the end: nothing to do */
    assert_int_equal(r->res.value, 0);
    assert_int_equal(fsm_digest(r->f), digest);
    assert_int_equal(fsm_rig_clone(r, a, MIB - 4, a, MIB, 100), 0); /* cut first, then no overlap */
    assert_int_equal(r->res.value, 4);
}

/* Who may name the bytes of a shared chunk in a commit. */
static void test_commit_shared(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = file_new(r, "a"), b = file_new(r, "b"), c = file_new(r, "c");
    assert_int_equal(fsm_rig_commit(r, a, 0, MIB, 10, 0), 0);
    assert_int_equal(fsm_rig_clone(r, a, 0, b, 0, MIB), 0);
    assert_int_equal(fsm_rig_commit(r, a, MIB, MIB, 10, MIB), 0); /* a's writer goes on */
    assert_int_equal(fsm_rig_commit(r, b, 2 * MIB, 4096, 10, 0), 0);
    assert_int_equal(fsm_rig_commit(r, c, 0, 4096, 10, 0), EPERM);
    assert_int_equal(fsm_rig_truncate(r, a, 0), 0);
    assert_int_equal(fsm_rig_commit(r, a, 0, 4096, 10, 0), EPERM); /* not a's any more */
    /* but what the writer still had on its way when somebody cut the file is taken */
    assert_int_equal(fsm_rig_commit(r, a, 0, 4096, 10, 2 * MIB), 0);
    assert_int_equal(fsm_chunk_files(r->f, fsm_chunk_find(r->f, 10)), 2);
    assert_int_equal(fsm_rig_session_open(r, 8), 0);
    r->session = 8;
    assert_int_equal(fsm_rig_commit(r, c, 0, 4096, 10, 3 * MIB), EPERM);
    assert_int_equal(fsm_rig_commit(r, b, 0, 4096, 10, 3 * MIB), EPERM);
    assert_int_equal(fsm_rig_commit(r, b, 0, 4096, 10, 4096), 0);
}

struct seen {
    unsigned changed;
    unsigned goal; /* at the last change */
};

static void on_changed(void *arg, struct fsm_chunk *c, bool grew)
{
    struct seen *s = arg;
    (void)grew;
    s->changed++;
    s->goal = c->goal;
}

static void test_shared_goal(void **state)
{
    struct fsm_rig *r = *state;
    struct seen seen = {0};
    struct fsm_hooks h = {.chunk_changed = on_changed, .arg = &seen};
    uint64_t a = file_new(r, "a"), b = file_new(r, "b"), c = file_new(r, "c");
    assert_int_equal(fsm_rig_commit(r, a, 0, MIB, 10, 0), 0);
    fsm_set_hooks(r->f, &h);
    assert_int_equal(fsm_rig_set_goal(r, b, 4, 0), 0);
    assert_int_equal(seen.changed, 0);
    assert_int_equal(fsm_rig_clone(r, a, 0, b, 0, MIB), 0);
    assert_int_equal(seen.changed, 1);
    assert_int_equal(seen.goal, 4);
    assert_int_equal(fsm_rig_clone(r, a, 0, c, 0, MIB), 0);
    assert_int_equal(fsm_rig_set_goal(r, a, 1, 0), 0); /* others still ask for more */
    assert_int_equal(seen.changed, 1);
    assert_int_equal(fsm_rig_set_goal(r, c, 3, 0), 0);
    assert_int_equal(seen.changed, 1);
    assert_int_equal(fsm_rig_truncate(r, b, 0), 0); /* the highest leaves */
    assert_int_equal(seen.changed, 2);
    assert_int_equal(seen.goal, 3);
    struct fsm *g = fsm_rig_reload(r->f);
    assert_int_equal(fsm_chunk_find(g, 10)->goal, 3);
    assert_int_equal(fsm_chunk_find(g, 10)->refs, 2);
    fsm_free(g);
    unlink_reap(r, "c");
    assert_int_equal(fsm_chunk_find(r->f, 10)->goal, 1);
    assert_int_equal(fsm_rig_set_goal(r, a, 2, 0), 0);
    assert_int_equal(fsm_chunk_find(r->f, 10)->goal, 2);
    fsm_set_hooks(r->f, &(struct fsm_hooks){0});
}

/* More bytes named than 32 bits count, by one file and by many. */
static void test_many_clones(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = file_new(r, "a"), len = FSM_CHUNK_MAX;
    assert_int_equal(fsm_rig_commit(r, a, 0, FSM_CHUNK_MAX, 10, 0), 0);
    for (; len < 8 * GIB; len *= 2) {
        assert_int_equal(fsm_rig_clone(r, a, 0, a, len, len), 0);
        assert_int_equal(r->res.value, len);
    }
    struct fsm_chunk *k = fsm_chunk_find(r->f, 10);
    assert_int_equal(k->refs, 128);
    assert_int_equal(k->live, UINT32_MAX);
    assert_int_equal(fsm_chunk_files(r->f, k), 1);
    char name[16];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "f%d", i);
        uint64_t f = file_new(r, name);
        assert_int_equal(fsm_rig_clone(r, a, 0, f, 0, FSM_CHUNK_MAX), 0);
    }
    assert_int_equal(fsm_chunk_files(r->f, k), 301);
    fsm_free(fsm_rig_reload(r->f));
    for (int i = 299; i >= 0; i -= 3) {
        snprintf(name, sizeof name, "f%d", i);
        unlink_reap(r, name);
    }
    assert_int_equal(fsm_chunk_files(r->f, k), 201);
    assert_int_equal(fsm_rig_truncate(r, a, 5), 0);
    assert_int_equal(k->refs, 201);
    assert_int_equal(counts(r).bytes, 200ull * FSM_CHUNK_MAX + 5);
}

/* Stops at the 4097th stretch, wherever the maps happen to be joined. */
static void test_clone_limit(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = file_new(r, "a"), b = file_new(r, "b");
    for (uint32_t i = 0; i < 5000; i++) { /* the middle last: it joins one side only */
        uint64_t at = i * 100ull;
        assert_int_equal(fsm_rig_commit(r, a, at, 10, 10 + i, 0), 0);
        assert_int_equal(fsm_rig_commit(r, a, at + 20, 10, 10 + i, 20), 0);
        assert_int_equal(fsm_rig_commit(r, a, at + 10, 10, 10 + i, 10), 0);
    }
    assert_int_equal(extents(r, a), 10000);
    struct fsm_rig s = *r;
    s.f = fsm_rig_reload(r->f);
    assert_int_equal(fsm_rig_clone(r, a, 0, b, 7, UINT64_MAX), 0);
    assert_int_equal(r->res.value, 409600);
    assert_int_equal(fsm_rig_attr(r, b).size, 409607);
    assert_int_equal(fsm_rig_clone(&s, a, 0, b, 7, UINT64_MAX), 0);
    assert_int_equal(s.res.value, 409600);
    assert_int_equal(fsm_digest(s.f), fsm_digest(r->f));
    fsm_free(s.f);
    assert_int_equal(fsm_rig_clone(r, a, 409600, b, 409607, UINT64_MAX), 0);
    assert_int_equal(fsm_rig_attr(r, b).allocated, fsm_rig_attr(r, a).allocated);
}

/* ---- reserved ranges ---- */

static void test_reserve(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = file_new(r, "a");
    assert_int_equal(fsm_rig_commit(r, a, MIB, MIB, 10, 0), 0);
    r->now = 3000;
    assert_int_equal(fsm_rig_fallocate(r, a, KEEP, 0, 4 * MIB), 0);
    assert_int_equal(r->res.value, 4 * MIB);
    Replfs__Attr x = fsm_rig_attr(r, a);
    assert_int_equal(x.size, 2 * MIB);
    assert_int_equal(x.allocated, 4 * MIB);
    assert_int_equal(x.mtime_ns, 3000);
    assert_int_equal(x.ctime_ns, 3000);
    assert_int_equal(counts(r).bytes, MIB);
    assert_int_equal(counts(r).reserved, 6 * MIB); /* goal 2 */
    fsm_free(fsm_rig_reload(r->f));
    assert_int_equal(fsm_rig_set_goal(r, a, 3, 0), 0);
    assert_int_equal(counts(r).reserved, 9 * MIB);
    assert_int_equal(fsm_rig_commit(r, a, 0, MIB, 11, 0), 0); /* takes its place */
    assert_int_equal(fsm_rig_attr(r, a).allocated, 4 * MIB);
    assert_int_equal(counts(r).reserved, 6 * MIB);
    assert_int_equal(fsm_rig_truncate(r, a, 3 * MIB), 0); /* up, into the reservation */
    assert_int_equal(fsm_rig_attr(r, a).allocated, 4 * MIB);
    assert_int_equal(fsm_rig_truncate(r, a, 3 * MIB),
                     0); /* to the same size: what is behind goes */
    assert_int_equal(fsm_rig_attr(r, a).allocated, 3 * MIB);
    assert_int_equal(fsm_rig_fallocate(r, a, 0, 5 * MIB, MIB), 0);
    assert_int_equal(fsm_rig_attr(r, a).size, 6 * MIB);
    assert_int_equal(fsm_rig_attr(r, a).allocated, 4 * MIB);
    uint64_t hole = 0;
    assert_int_equal(fsm_holes(r->f, a, 0, 10 * MIB, &hole), 0);
    assert_int_equal(hole, 6 * MIB);
    unlink_reap(r, "a");
    assert_int_equal(counts(r).reserved, 0);
}

static void test_reserve_long(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = file_new(r, "a");
    assert_int_equal(fsm_rig_fallocate(r, a, 0, 7, 4 * GIB), 0);
    assert_int_equal(fsm_rig_fallocate(r, a, 0, 0, 4 * GIB + 20), 0);
    fsm_free(fsm_rig_reload(r->f));
    assert_int_equal(fsm_rig_attr(r, a).allocated, 4 * GIB + 20);
    assert_true(extents(r, a) <= 6);
    assert_int_equal(fsm_rig_fallocate(r, a, KEEP, 0, INT64_MAX),
                     0); /* as far as one command goes */
    assert_int_equal(r->res.value, 4096 * GIB);
    assert_int_equal(fsm_rig_fallocate(r, a, PUNCH, 0, INT64_MAX), 0);
    assert_int_equal(fsm_rig_attr(r, a).allocated, 0);
    assert_int_equal(extents(r, a), 0);
    assert_int_equal(fsm_rig_attr(r, a).size, 4 * GIB + 20);
}

static void test_punch_zero(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = file_new(r, "a");
    assert_int_equal(fsm_rig_commit(r, a, 0, 4 * MIB, 10, 0), 0);
    r->now = 7000;
    assert_int_equal(fsm_rig_fallocate(r, a, PUNCH, MIB, MIB), 0);
    Replfs__Attr x = fsm_rig_attr(r, a);
    assert_int_equal(x.allocated, 3 * MIB);
    assert_int_equal(x.size, 4 * MIB);
    assert_int_equal(x.mtime_ns, 7000);
    assert_int_equal(fsm_chunk_find(r->f, 10)->live, 3 * MIB);
    assert_int_equal(fsm_rig_fallocate(r, a, ZERO | KEEP, 3 * MIB, 2 * MIB), 0);
    assert_int_equal(fsm_rig_attr(r, a).allocated, 4 * MIB);
    assert_int_equal(fsm_rig_attr(r, a).size, 4 * MIB);
    assert_int_equal(fsm_chunk_find(r->f, 10)->live, 2 * MIB);
    assert_int_equal(fsm_rig_fallocate(r, a, ZERO, 0, 5 * MIB), 0);
    assert_int_equal(fsm_rig_attr(r, a).size, 5 * MIB);
    assert_null(fsm_chunk_find(r->f, 10));
    r->now = 8000;
    assert_int_equal(fsm_rig_fallocate(r, a, PUNCH, 6 * MIB, MIB), 0); /* nothing there */
    assert_int_equal(fsm_rig_attr(r, a).mtime_ns, 8000);
    assert_int_equal(fsm_rig_attr(r, a).size, 5 * MIB);
}

static void test_fallocate_refused(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = file_new(r, "a"), d = (uint64_t)fsm_rig_create(r, FSM_ROOT_INO, "d", DIR_MODE);
    uint64_t p = (uint64_t)fsm_rig_create(r, FSM_ROOT_INO, "p", S_IFIFO | 0600);
    uint64_t digest = fsm_digest(r->f);
    assert_int_equal(fsm_rig_fallocate(r, 999, 0, 0, 10), ENOENT);
    assert_int_equal(fsm_rig_fallocate(r, d, 0, 0, 10), EISDIR);
    assert_int_equal(fsm_rig_fallocate(r, p, 0, 0, 10), ENODEV);
    assert_int_equal(fsm_rig_fallocate(r, a, 0, 0, 0), EINVAL);
    assert_int_equal(fsm_rig_fallocate(r, a, 0, INT64_MAX, 1), EFBIG);
    assert_int_equal(fsm_rig_fallocate(r, a, 0, UINT64_MAX, UINT64_MAX), EFBIG);
    const uint32_t bad[] = {2, 8, 9, 18, 32, 64, 65, 1u << 31, 19};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(fsm_rig_fallocate(r, a, bad[i], 0, 10), EOPNOTSUPP);
    assert_int_equal(fsm_digest(r->f), digest);
}

static void test_kill_suid(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t a = file_new(r, "a");
    int64_t b = fsm_rig_create(r, FSM_ROOT_INO, "b", S_IFREG | 06755);
    Replfs__FallocateOp fo = REPLFS__FALLOCATE_OP__INIT;
    Replfs__CloneOp co = REPLFS__CLONE_OP__INIT;
    assert_int_equal(fsm_rig_commit(r, a, 0, MIB, 10, 0), 0);
    co.src = a;
    fo.ino = co.dst = (uint64_t)b;
    fo.len = co.len = MIB;
    assert_int_equal(FSM_RIG_OP(r, CLONE, clone, &co), 0);
    assert_int_equal(FSM_RIG_OP(r, FALLOCATE, fallocate, &fo), 0);
    assert_int_equal(fsm_rig_attr(r, (uint64_t)b).mode, S_IFREG | 06755);
    co.kill_suid = true;
    assert_int_equal(FSM_RIG_OP(r, CLONE, clone, &co), 0);
    assert_int_equal(fsm_rig_attr(r, (uint64_t)b).mode, S_IFREG | 0755);
}

/* ---- the model ---- */

enum { FILES = 6, LEN = 300, OPS = 8000, CHUNKS = 20000, RESERVED = 1, CELL = 1 << 10 };

struct file {
    uint64_t ino;
    unsigned goal, size, chunk, used; /* chunk being filled, bytes of it */
    unsigned cell[2 * LEN];           /* 0: hole, RESERVED, or chunk * CELL + offset */
};
struct model {
    struct file f[FILES];
    unsigned next_chunk;
    uint64_t rnd;
    unsigned met[2];
};

static unsigned rnd(struct model *m, unsigned below)
{
    m->rnd = m->rnd * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(m->rnd >> 33) % below;
}

static void agree(struct model *m, const char *what, int got, int want)
{
    if (got != want)
        fail_msg("%s: code %d, the model says %d", what, got, want);
    m->met[got != 0]++;
}

static void make_file(struct model *m, struct fsm_rig *r, unsigned k)
{
    char name[2] = {(char)('a' + k), 0};
    m->f[k] = (struct file){.ino = file_new(r, name), .goal = 2};
}

static void do_write(struct model *m, struct fsm_rig *r)
{
    struct file *x = &m->f[rnd(m, FILES)];
    unsigned off = rnd(m, LEN), len = 1 + rnd(m, LEN - off);
    if (!x->chunk || x->used + len >= CELL || !rnd(m, 20)) {
        x->chunk = m->next_chunk++;
        x->used = 2; /* so that no cell is RESERVED */
    }
    agree(m, "write", fsm_rig_commit(r, x->ino, off, len, x->chunk, x->used), 0);
    for (unsigned k = 0; k < len; k++)
        x->cell[off + k] = x->chunk * CELL + x->used + k;
    x->used += len;
    if (x->size < off + len)
        x->size = off + len;
}

static void do_clone(struct model *m, struct fsm_rig *r)
{
    struct file *s = &m->f[rnd(m, FILES)], *d = &m->f[rnd(m, FILES)];
    unsigned so = rnd(m, LEN), off = rnd(m, LEN), len = 1 + rnd(m, LEN - off), want = 0;
    unsigned n = so >= s->size ? 0 : len < s->size - so ? len : s->size - so;
    if (s == d && n && so < off + n && off < so + n)
        want = EINVAL;
    agree(m, "clone", fsm_rig_clone(r, s->ino, so, d->ino, off, len), (int)want);
    if (want)
        return;
    assert_int_equal(r->res.value, n);
    for (unsigned k = 0; k < n; k++)
        d->cell[off + k] = s->cell[so + k] == RESERVED ? 0 : s->cell[so + k];
    if (n && d->size < off + n)
        d->size = off + n;
}

static void do_fallocate(struct model *m, struct fsm_rig *r)
{
    static const uint32_t modes[] = {0, KEEP, PUNCH, PUNCH, ZERO, ZERO | KEEP, 8};
    struct file *x = &m->f[rnd(m, FILES)];
    unsigned off = rnd(m, LEN), len = 1 + rnd(m, LEN - off);
    uint32_t mode = modes[rnd(m, 7)];
    agree(m, "fallocate", fsm_rig_fallocate(r, x->ino, mode, off, len), mode == 8 ? EOPNOTSUPP : 0);
    if (mode == 8)
        return;
    for (unsigned k = off; k < off + len; k++) {
        if (mode == PUNCH)
            x->cell[k] = 0;
        else if (!x->cell[k] || mode & ZERO)
            x->cell[k] = RESERVED;
    }
    if (!(mode & KEEP) && x->size < off + len)
        x->size = off + len;
}

static void do_truncate(struct model *m, struct fsm_rig *r)
{
    struct file *x = &m->f[rnd(m, FILES)];
    unsigned size = rnd(m, LEN);
    agree(m, "truncate", fsm_rig_truncate(r, x->ino, size), 0);
    for (unsigned k = size; k < LEN && size <= x->size; k++)
        x->cell[k] = 0;
    x->size = size;
}

static void do_goal(struct model *m, struct fsm_rig *r)
{
    struct file *x = &m->f[rnd(m, FILES)];
    x->goal = 1 + rnd(m, 8);
    agree(m, "goal", fsm_rig_set_goal(r, x->ino, x->goal, 0), 0);
}

static void do_replace(struct model *m, struct fsm_rig *r)
{
    unsigned k = rnd(m, FILES);
    char name[2] = {(char)('a' + k), 0};
    if (rnd(m, 4))
        return;
    unlink_reap(r, name);
    make_file(m, r, k);
}

struct sums {
    const struct model *m;
    struct fsm_rig *r;
    unsigned chunks;
};

/* Every chunk's counts, recounted. */
static void check_chunk(void *arg, struct fsm_chunk *c)
{
    struct sums *s = arg;
    unsigned refs = 0, live = 0, files = 0, goal = 0;
    for (int k = 0; k < FILES; k++) {
        const struct file *x = &s->m->f[k];
        const struct extmap *map;
        unsigned of_file = 0;
        struct ext e;
        assert_int_equal(fsm_extents(s->r->f, x->ino, &map), 0);
        for (uint64_t off = 0; extmap_find(map, off, &e); off = e.file_off + e.len)
            of_file += e.chunk == c->id;
        for (unsigned i = 0; i < LEN; i++)
            live += x->cell[i] / CELL == c->id;
        refs += of_file;
        files += of_file > 0;
        if (of_file && goal < x->goal)
            goal = x->goal;
    }
    assert_true(refs > 0);
    assert_int_equal(c->refs, refs);
    assert_int_equal(c->live, live);
    assert_int_equal(c->goal, goal);
    assert_int_equal(fsm_chunk_files(s->r->f, c), files);
    s->chunks++;
}

static void compare(const struct model *m, struct fsm_rig *r)
{
    uint64_t bytes = 0, reserved = 0, pos = 0;
    for (int k = 0; k < FILES; k++) {
        const struct file *x = &m->f[k];
        Replfs__Attr a = fsm_rig_attr(r, x->ino);
        const struct extmap *map;
        uint64_t alloc = 0;
        assert_int_equal(a.size, x->size);
        assert_int_equal(fsm_extents(r->f, x->ino, &map), 0);
        for (unsigned i = 0; i < LEN; i++) {
            struct ext e;
            unsigned cell = 0;
            if (extmap_find(map, i, &e) && e.file_off <= i)
                cell =
                    e.chunk ? (unsigned)(e.chunk * CELL + e.chunk_off + i - e.file_off) : RESERVED;
            assert_int_equal(cell, x->cell[i]);
            alloc += cell != 0;
            bytes += cell > RESERVED;
            reserved += cell == RESERVED ? x->goal : 0;
        }
        assert_int_equal(a.allocated, alloc);
    }
    struct fsm_counts n = counts(r);
    assert_int_equal(n.bytes, bytes);
    assert_int_equal(n.reserved, reserved);
    struct sums s = {m, r, 0};
    while (fsm_chunk_walk(r->f, &pos, 1000, check_chunk, &s))
        ;
    assert_int_equal(n.chunks, s.chunks);
}

static void step(struct model *m, struct fsm_rig *r)
{
    static void (*const ops[])(struct model *, struct fsm_rig *) = {
        do_write, do_write,     do_write,     do_clone,    do_clone, do_clone,  do_clone,
        do_clone, do_fallocate, do_fallocate, do_truncate, do_goal,  do_replace};
    r->now += 10;
    ops[rnd(m, sizeof ops / sizeof ops[0])](m, r);
}

static struct model *model_new(struct fsm_rig *r, uint64_t seed)
{
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->rnd = seed;
    m->next_chunk = 1;
    for (unsigned k = 0; k < FILES; k++)
        make_file(m, r, k);
    return m;
}

/* One state machine goes on from its own checkpoints, the other never does: they stay equal. */
static void test_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct fsm_rig a, b;
        fsm_rig_open(&a);
        fsm_rig_open(&b);
        struct model *m = model_new(&a, seed), *n = model_new(&b, seed);
        for (unsigned k = 1; k <= OPS; k++) {
            step(m, &a);
            step(n, &b);
            if (k % 50 == 0)
                compare(m, &a);
            if (k % 200 == 0) {
                struct fsm *g = fsm_rig_reload(b.f);
                fsm_free(b.f);
                b.f = g;
                compare(n, &b);
                assert_int_equal(fsm_digest(a.f), fsm_digest(b.f));
            }
        }
        assert_true(m->met[0] > OPS / 2 && m->met[1] > OPS / 100);
        fsm_rig_close(&a);
        fsm_rig_close(&b);
        free(m);
        free(n);
    }
}

int main(void)
{
#define T(x) cmocka_unit_test_setup_teardown(x, fsm_rig_setup, fsm_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_clone),         T(test_clone_refused),
        T(test_commit_shared), T(test_shared_goal),
        T(test_many_clones),   T(test_clone_limit),
        T(test_reserve),       T(test_reserve_long),
        T(test_punch_zero),    T(test_fallocate_refused),
        T(test_kill_suid),     cmocka_unit_test(test_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
