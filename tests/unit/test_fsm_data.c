/* File data in the state machine: attributes, commits, truncation, chunk accounting, goals, hooks,
 * locations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tests/unit/fsm_rig.h"

#define MIB (1u << 20)

struct seen {
    unsigned freed, changed, orphaned, closed;
    uint64_t last_freed;
};

static void on_freed(void *arg, const struct fsm_chunk *c)
{
    struct seen *s = arg;
    s->freed++;
    s->last_freed = c->id;
}
static void on_changed(void *arg, struct fsm_chunk *c, bool grew)
{
    struct seen *s = arg;
    (void)grew;
    assert_true(c->id != 0);
    s->changed++;
}
static void on_orphaned(void *arg, uint64_t ino, uint64_t opener)
{
    (void)opener;
    struct seen *s = arg;
    assert_true(ino != 0);
    s->orphaned++;
}
static void on_closed(void *arg, uint64_t session)
{
    struct seen *s = arg;
    assert_true(session != 0);
    s->closed++;
}

struct ctx {
    struct fsm_rig r;
    struct seen seen;
    uint64_t file;
};

static int setup(void **state)
{
    struct ctx *c = calloc(1, sizeof *c);
    if (!c)
        return -1;
    fsm_rig_open(&c->r);
    struct fsm_hooks h = {on_freed, on_changed, on_orphaned, NULL, on_closed, &c->seen, NULL, NULL};
    fsm_set_hooks(c->r.f, &h);
    c->file = (uint64_t)fsm_rig_create(&c->r, 1, "f", REG_MODE);
    *state = c;
    return 0;
}

static int teardown(void **state)
{
    struct ctx *c = *state;
    fsm_free(fsm_rig_reload(c->r.f));
    fsm_rig_close(&c->r);
    free(c);
    return 0;
}

static size_t extents(struct fsm_rig *r, uint64_t ino)
{
    const struct extmap *m;
    assert_int_equal(fsm_extents(r->f, ino, &m), 0);
    return extmap_count(m);
}

static void test_commit(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    struct fsm_counts n;
    r->now = 2000;
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 4096, 10, 0), 0);
    struct fsm_chunk *k = fsm_chunk_find(r->f, 10);
    assert_non_null(k);
    assert_int_equal(k->session, 7);
    assert_int_equal(k->len, 4096);
    assert_int_equal(k->refs, 1);
    assert_int_equal(k->live, 4096);
    assert_int_equal(k->goal, 2);
    Replfs__Attr a = fsm_rig_attr(r, c->file);
    assert_int_equal(a.size, 4096);
    assert_int_equal(a.allocated, 4096);
    assert_int_equal(a.mtime_ns, 2000);
    assert_int_equal(a.ctime_ns, 2000);
    assert_int_equal(a.atime_ns, 1000);
    assert_int_equal(fsm_rig_commit(r, c->file, 4096, 4096, 10, 4096), 0); /* continues: merges */
    assert_int_equal(extents(r, c->file), 1);
    assert_int_equal(k->refs, 1);
    assert_int_equal(k->live, 8192);
    assert_int_equal(fsm_rig_commit(r, c->file, MIB, 100, 10, 8192), 0); /* leaves a hole */
    assert_int_equal(extents(r, c->file), 2);
    assert_int_equal(k->refs, 2);
    a = fsm_rig_attr(r, c->file);
    assert_int_equal(a.size, MIB + 100);
    assert_int_equal(a.allocated, 8292);
    fsm_counts(r->f, &n);
    assert_int_equal(n.bytes, 8292);
    assert_int_equal(n.chunks, 1);
    assert_int_equal(c->seen.changed, 3);
    assert_int_equal(c->seen.freed, 0);
}

static void test_overwrite_frees(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 3 * MIB, 10, 0), 0);
    assert_int_equal(fsm_rig_commit(r, c->file, MIB, MIB, 11, 0),
                     0); /* the middle: one becomes two */
    struct fsm_chunk *k = fsm_chunk_find(r->f, 10);
    assert_int_equal(k->refs, 2);
    assert_int_equal(k->live, 2 * MIB);
    assert_int_equal(extents(r, c->file), 3);
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 3 * MIB, 12, 0), 0);
    assert_null(fsm_chunk_find(r->f, 10));
    assert_null(fsm_chunk_find(r->f, 11));
    assert_int_equal(c->seen.freed, 2);
    assert_int_equal(extents(r, c->file), 1);
    assert_int_equal(fsm_rig_attr(r, c->file).allocated, 3 * MIB);
    /* new bytes of the same chunk replace all of its old ones: it must survive */
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 3 * MIB, 12, 3 * MIB), 0);
    k = fsm_chunk_find(r->f, 12);
    assert_non_null(k);
    assert_int_equal(k->refs, 1);
    assert_int_equal(k->live, 3 * MIB);
    assert_int_equal(k->len, 6 * MIB);
    assert_int_equal(c->seen.freed, 2);
}

/* Moved bytes replace what they are a copy of and nothing else, and leave times and size alone. */
static void test_commit_over(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    Replfs__Extent e = REPLFS__EXTENT__INIT, *ep = &e;
    Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 4 * MIB, 10, MIB), 0);
    assert_int_equal(fsm_rig_commit(r, c->file, MIB, MIB, 11, 0), 0); /* somebody else, meanwhile */
    assert_int_equal(fsm_rig_truncate(r, c->file, 3 * MIB), 0);
    Replfs__Attr before = fsm_rig_attr(r, c->file);
    e.len = 4 * MIB;
    e.chunk = 12;
    o.ino = c->file;
    o.n_extents = 1;
    o.extents = &ep;
    o.over = 10;
    o.over_shift = MIB;
    o.append = true;
    assert_int_equal(FSM_RIG_OP(r, COMMIT, commit, &o), EINVAL);
    o.append = false;
    assert_int_equal(FSM_RIG_OP(r, COMMIT, commit, &o), 0);
    assert_null(fsm_chunk_find(r->f, 10));
    assert_int_equal(fsm_chunk_find(r->f, 11)->live, MIB);
    struct fsm_chunk *k = fsm_chunk_find(r->f, 12);
    assert_int_equal(k->live, 2 * MIB);
    assert_int_equal(k->refs, 2);
    assert_int_equal(k->len, 3 * MIB);
    Replfs__Attr after = fsm_rig_attr(r, c->file);
    assert_int_equal(after.size, 3 * MIB);
    assert_int_equal(after.allocated, 3 * MIB);
    assert_int_equal(after.mtime_ns, before.mtime_ns);
    assert_int_equal(after.ctime_ns, before.ctime_ns);
    assert_true(after.change > before.change);
    o.over = 11;
    o.over_shift = 7; /* other bytes of that chunk */
    e.chunk = 13;
    assert_int_equal(FSM_RIG_OP(r, COMMIT, commit, &o), 0);
    assert_null(fsm_chunk_find(r->f, 13));
    assert_int_equal(extents(r, c->file), 3);
}

/* The same file, written in another order, is another list of extents: what a limit says must not
 * depend on it (a checkpoint, or a newer program, may join them in other ways). */
static void test_over_knows_no_history(void **state)
{
    enum { PIECE = 512, PIECES = 600, EXTENTS = 4096 };
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    static Replfs__Extent e[EXTENTS], *ep[EXTENTS];
    Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
    int code[2];
    for (unsigned k = 0; k < EXTENTS; k++) {
        ep[k] = &e[k];
        replfs__extent__init(ep[k]);
        e[k].len = PIECE * PIECES;
    }
    o.n_extents = EXTENTS;
    o.extents = ep;
    for (unsigned way = 0; way < 2; way++) {
        o.ino = (uint64_t)fsm_rig_create(r, 1, way ? "b" : "a", REG_MODE);
        o.over = 30 + way;
        for (unsigned i = 0; i < PIECES; i++) { /* in order, or even ones first */
            unsigned k = !way ? i : i < PIECES / 2 ? 2 * i : 2 * (i - PIECES / 2) + 1;
            assert_int_equal(fsm_rig_commit(r, o.ino, k * PIECE, PIECE, o.over, k * PIECE), 0);
        }
        assert_true(way == 0 ? extents(r, o.ino) == 1 : extents(r, o.ino) > 256);
        for (unsigned k = 0; k < EXTENTS; k++)
            e[k].chunk = 40 + way;
        code[way] = FSM_RIG_OP(r, COMMIT, commit, &o);
    }
    assert_int_equal(code[0], 0);
    assert_int_equal(code[1], code[0]);
}

static void test_commit_order(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    Replfs__Extent e[3] = {REPLFS__EXTENT__INIT, REPLFS__EXTENT__INIT, REPLFS__EXTENT__INIT};
    Replfs__Extent *ep[3] = {&e[0], &e[1], &e[2]};
    Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
    for (unsigned k = 0; k < 3; k++) { /* the same range, newest last */
        e[k].len = 1000;
        e[k].chunk = 20 + (k & 1);
        e[k].chunk_off = 1000 * k;
    }
    o.ino = c->file;
    o.n_extents = 3;
    o.extents = ep;
    o.mtime_ns = 77;
    assert_int_equal(FSM_RIG_OP(r, COMMIT, commit, &o), 0);
    const struct extmap *m;
    struct ext x;
    assert_int_equal(fsm_extents(r->f, c->file, &m), 0);
    assert_true(extmap_find(m, 0, &x));
    assert_int_equal(x.chunk, 20);
    assert_int_equal(x.chunk_off, 2000);
    assert_int_equal(fsm_chunk_find(r->f, 20)->live, 1000);
    assert_null(fsm_chunk_find(r->f, 21));
    assert_int_equal(fsm_rig_attr(r, c->file).mtime_ns, 77);
    assert_int_equal(fsm_rig_attr(r, c->file).ctime_ns, 1000);
}

/* ctime is the time of the write that is committed, where that can be. */
static void test_commit_ctime(void **state)
{
    static const struct {
        int64_t now, mtime, ctime;
        bool then;
    } t[] = {
        {10000, 9000, 10000, false}, {20000, 19000, 19000, true}, {21000, 19000, 19000, true},
        {30000, 18000, 30000, true}, {40000, 41000, 40000, true}, {50000, 0, 50000, true},
    };
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    for (size_t k = 0; k < sizeof(t) / sizeof(t[0]); k++) {
        Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
        o.ino = c->file;
        o.mtime_ns = t[k].mtime;
        o.written_then = t[k].then;
        r->now = t[k].now;
        assert_int_equal(FSM_RIG_OP(r, COMMIT, commit, &o), 0);
        assert_int_equal(fsm_rig_attr(r, c->file).mtime_ns, t[k].mtime ? t[k].mtime : t[k].now);
        assert_int_equal(fsm_rig_attr(r, c->file).ctime_ns, t[k].ctime);
    }
}

static void test_commit_refused(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    uint64_t g = (uint64_t)fsm_rig_create(r, 1, "g", REG_MODE);
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 4096, 10, 0), 0);
    assert_int_equal(fsm_rig_session_open(r, 8), 0);
    uint64_t digest = fsm_digest(r->f);
    assert_int_equal(fsm_rig_commit(r, 1, 0, 10, 11, 0), EISDIR);
    assert_int_equal(fsm_rig_commit(r, 999, 0, 10, 11, 0), ENOENT);
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 0, 11, 0), EINVAL);
    assert_int_equal(fsm_rig_commit(r, c->file, 0, FSM_CHUNK_MAX + 1, 11, 0), EINVAL);
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 1, 11, FSM_CHUNK_MAX), EINVAL);
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 2, 11, UINT32_MAX), EINVAL);
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 10, 0, 0), EINVAL);
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 10, 1ull << 40, 0), EINVAL); /* never granted */
    assert_int_equal(fsm_rig_commit(r, c->file, INT64_MAX, 1, 11, 0), EFBIG);
    assert_int_equal(fsm_rig_commit(r, c->file, UINT64_MAX, 1, 11, 0), EFBIG);
    assert_int_equal(fsm_rig_commit(r, g, 0, 10, 10, 0), EPERM); /* another file's chunk */
    r->session = 8;
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 10, 10, 4090),
                     EPERM); /* another writer's chunk */
    r->session = 9;
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 10, 11, 0), ERR_SESSION);
    r->session = 0;
    assert_int_equal(fsm_rig_commit(r, c->file, 0, 10, 11, 0), ERR_SESSION);
    assert_int_equal(fsm_digest(r->f), digest);
    r->session = 8;
    assert_int_equal(fsm_rig_commit(r, c->file, 8192, 10, 10, 4086),
                     0); /* its old bytes, same file */
    assert_int_equal(fsm_rig_commit(r, c->file, INT64_MAX - 1, 1, 11, 0), 0);
    assert_int_equal(fsm_rig_attr(r, c->file).size, INT64_MAX);
}

static void test_commit_overflow(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    Replfs__Extent e = REPLFS__EXTENT__INIT, *ep[FSM_CHUNK_MAX >> 14];
    Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
    e.len = FSM_CHUNK_MAX;
    e.chunk = 30;
    for (size_t k = 0; k < sizeof ep / sizeof ep[0]; k++)
        ep[k] = &e;
    o.ino = c->file;
    o.extents = ep;
    o.n_extents = 4096; /* 256 GiB of one chunk */
    assert_int_equal(FSM_RIG_OP(r, COMMIT, commit, &o), EINVAL);
    o.n_extents = 0;
    assert_int_equal(FSM_RIG_OP(r, COMMIT, commit, &o), 0);
    int code = 0;
    for (uint64_t k = 0; k < 64 && !code; k++) /* the same bytes at many places */
        code = fsm_rig_commit(r, c->file, k * FSM_CHUNK_MAX * 2, FSM_CHUNK_MAX, 30, 0);
    assert_int_equal(code, EPERM);
}

static void test_truncate(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    assert_int_equal(fsm_rig_commit(r, c->file, 0, MIB, 10, 0), 0);
    assert_int_equal(fsm_rig_commit(r, c->file, MIB, MIB, 11, 0), 0);
    r->now = 6000;
    assert_int_equal(fsm_rig_truncate(r, c->file, MIB / 2), 0);
    Replfs__Attr a = fsm_rig_attr(r, c->file);
    assert_int_equal(a.size, MIB / 2);
    assert_int_equal(a.allocated, MIB / 2);
    assert_int_equal(a.mtime_ns, 6000);
    assert_int_equal(a.ctime_ns, 6000);
    assert_int_equal(fsm_chunk_find(r->f, 10)->live, MIB / 2);
    assert_null(fsm_chunk_find(r->f, 11));
    assert_int_equal(c->seen.last_freed, 11);
    assert_int_equal(fsm_rig_truncate(r, c->file, 1ull << 44), 0); /* up: a hole */
    a = fsm_rig_attr(r, c->file);
    assert_int_equal(a.size, 1ull << 44);
    assert_int_equal(a.allocated, MIB / 2);
    assert_int_equal(fsm_rig_truncate(r, c->file, (uint64_t)INT64_MAX + 1), EFBIG);
    assert_int_equal(fsm_rig_truncate(r, 1, 0), EISDIR);
    fsm_rig_create(r, 1, "p", S_IFIFO | 0600);
    assert_int_equal(fsm_rig_truncate(r, fsm_rig_lookup(r, 1, "p"), 0), EINVAL);
    assert_int_equal(fsm_rig_truncate(r, c->file, 0), 0);
    assert_int_equal(fsm_rig_attr(r, c->file).allocated, 0);
    assert_null(fsm_chunk_find(r->f, 10));
}

/* Exactly what was named goes, at every edge of what is there, and not a byte more. */
static void test_punch(void **state)
{
    enum { PUNCH = 3, CHUNK = 40, BLOCK = 4096, N = 8 };
    static const struct {
        uint64_t off, len;
    } holes[] = {{0, 1},
                 {BLOCK, BLOCK},
                 {3 * BLOCK - 1, 2},
                 {5 * BLOCK, BLOCK},
                 {6 * BLOCK + 1, BLOCK - 2},
                 {N * BLOCK - 1, BLOCK}};
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    bool gone[N * BLOCK] = {0};
    const struct extmap *map;
    uint64_t left = sizeof gone;

    assert_int_equal(fsm_rig_commit(r, c->file, 0, N * BLOCK, CHUNK, 0), 0);
    for (size_t k = 0; k < sizeof holes / sizeof holes[0]; k++) {
        assert_int_equal(fsm_rig_fallocate(r, c->file, PUNCH, holes[k].off, holes[k].len), 0);
        for (uint64_t at = holes[k].off; at < holes[k].off + holes[k].len && at < sizeof gone; at++)
            gone[at] = true, left--;
        assert_int_equal(fsm_extents(r->f, c->file, &map), 0);
        for (uint64_t at = 0; at < sizeof gone; at++) {
            struct ext e;
            bool there = extmap_find(map, at, &e) && e.file_off <= at;
            if (there == gone[at])
                fail_msg("hole %zu: byte %llu is %s", k, (unsigned long long)at,
                         there ? "still there" : "gone");
            assert_true(gone[at] || e.chunk_off + at - e.file_off == at);
        }
        assert_int_equal(fsm_rig_attr(r, c->file).size, N * BLOCK);
        assert_int_equal(fsm_chunk_find(r->f, CHUNK)->live, left);
    }
}

static void test_setattr(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;
    uint64_t change = fsm_rig_attr(r, c->file).change;
    o.ino = c->file;
    o.valid = REPLFS__SETATTR_OP__VALID__MODE | REPLFS__SETATTR_OP__VALID__UID |
              REPLFS__SETATTR_OP__VALID__GID | REPLFS__SETATTR_OP__VALID__ATIME |
              REPLFS__SETATTR_OP__VALID__MTIME;
    o.mode = S_IFDIR | 06755; /* the type is not for change */
    o.uid = 3;
    o.gid = 4;
    o.atime_ns = -5;
    o.mtime_ns = -6;
    r->now = 5100;
    assert_int_equal(FSM_RIG_OP(r, SETATTR, setattr, &o), 0);
    Replfs__Attr a = fsm_rig_attr(r, c->file);
    assert_int_equal(a.mode, S_IFREG | 06755);
    assert_int_equal(a.uid, 3);
    assert_int_equal(a.gid, 4);
    assert_int_equal(a.atime_ns, -5);
    assert_int_equal(a.mtime_ns, -6);
    assert_int_equal(a.ctime_ns, 5100);
    assert_true(a.change > change);
    o.valid = REPLFS__SETATTR_OP__VALID__ATIME_NOW | REPLFS__SETATTR_OP__VALID__MTIME_NOW |
              REPLFS__SETATTR_OP__VALID__KILL_SUID;
    assert_int_equal(FSM_RIG_OP(r, SETATTR, setattr, &o), 0);
    a = fsm_rig_attr(r, c->file);
    assert_int_equal(a.atime_ns, 5100);
    assert_int_equal(a.mtime_ns, 5100);
    assert_int_equal(a.mode, S_IFREG | 0755);
    o.valid = 1u << 20;
    assert_int_equal(FSM_RIG_OP(r, SETATTR, setattr, &o), EINVAL);
    o.valid = 0;
    o.ino = 999;
    assert_int_equal(FSM_RIG_OP(r, SETATTR, setattr, &o), ENOENT);
}

static void test_goal(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    assert_int_equal(fsm_rig_commit(r, c->file, 0, MIB, 10, 0), 0);
    assert_int_equal(fsm_rig_commit(r, c->file, MIB, MIB, 11, 0), 0);
    c->seen.changed = 0;
    assert_int_equal(fsm_rig_set_goal(r, c->file, 3, 0), 0);
    assert_int_equal(fsm_goal(r->f, c->file), 3);
    assert_int_equal(fsm_chunk_find(r->f, 10)->goal, 3);
    assert_int_equal(fsm_chunk_find(r->f, 11)->goal, 3);
    assert_int_equal(c->seen.changed, 2);
    assert_int_equal(fsm_rig_set_goal(r, c->file, 3, 0), 0);
    assert_int_equal(c->seen.changed, 2);
    assert_int_equal(fsm_rig_commit(r, c->file, 2 * MIB, MIB, 12, 0), 0);
    assert_int_equal(fsm_chunk_find(r->f, 12)->goal, 3);
    assert_int_equal(fsm_rig_set_goal(r, c->file, 1, 0), 0);
    assert_int_equal(fsm_chunk_find(r->f, 12)->goal, 1);
    assert_int_equal(fsm_rig_set_goal(r, c->file, 0, 0), EINVAL);
    assert_int_equal(fsm_rig_set_goal(r, c->file, 9, 0), EINVAL);
    assert_int_equal(fsm_rig_set_goal(r, c->file, 2, 1000), EPERM);
    assert_int_equal(fsm_rig_set_goal(r, 999, 2, 0), ENOENT);
    assert_int_equal(fsm_goal(r->f, 999), -ENOENT);
    uint64_t d = (uint64_t)fsm_rig_create(r, 1, "d", S_IFDIR | 0755);
    assert_int_equal(fsm_rig_set_goal(r, d, 5, 0), 0);
    uint64_t sub = (uint64_t)fsm_rig_create(r, d, "sub", S_IFDIR | 0755);
    assert_int_equal(fsm_goal(r->f, (uint64_t)fsm_rig_create(r, sub, "f", REG_MODE)), 5);
    Replfs__SetGoalOp o = REPLFS__SET_GOAL_OP__INIT;
    uint64_t inos[3] = {d, 999, sub};
    o.n_ino = 3;
    o.ino = inos;
    o.goal = 4;
    assert_int_equal(FSM_RIG_OP(r, SET_GOAL, set_goal, &o), 0); /* one vanished: the rest is done */
    assert_int_equal(fsm_goal(r->f, sub), 4);
}

static void test_orphan_data(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    assert_int_equal(fsm_rig_commit(r, c->file, 0, MIB, 10, 0), 0);
    assert_int_equal(fsm_rig_unlink(r, 1, "f", false), 0);
    assert_int_equal(c->seen.orphaned, 1);
    assert_int_equal(c->seen.freed, 0);
    assert_int_equal(fsm_rig_commit(r, c->file, MIB, MIB, 10, MIB), 0); /* still open somewhere */
    fsm_free(fsm_rig_reload(r->f));
    assert_int_equal(fsm_rig_reap(r, c->file), 0);
    assert_int_equal(c->seen.freed, 1);
    assert_null(fsm_chunk_find(r->f, 10));
    struct fsm_counts n;
    fsm_counts(r->f, &n);
    assert_int_equal(n.bytes, 0);
    assert_int_equal(n.files, 0);
    assert_int_equal(n.orphans, 0);
    assert_int_equal(fsm_rig_session_close(r, 7), 0);
    assert_int_equal(c->seen.closed, 1);
}

static void test_locations(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    assert_int_equal(fsm_rig_commit(r, c->file, 0, MIB, 10, 0), 0);
    struct fsm_chunk *k = fsm_chunk_find(r->f, 10);
    uint64_t digest = fsm_digest(r->f);
    for (unsigned id = 1; id <= 100; id++)
        assert_int_equal(fsm_chunk_loc_add(k, (struct fsm_loc){.chunkd = id, .disk = 1}), 0);
    assert_int_equal(fsm_chunk_loc_add(k, (struct fsm_loc){.chunkd = 50, .disk = 2}), 0);
    assert_int_equal(k->nloc, 100);
    assert_int_equal(fsm_chunk_locs(k)[49].disk, 2);
    assert_int_equal(fsm_digest(r->f), digest); /* soft: not part of the state */
    for (unsigned id = 1; id <= 98; id++)
        fsm_chunk_loc_del(k, id);
    fsm_chunk_loc_del(k, 12345);
    assert_int_equal(k->nloc, 2);
    unsigned sum = fsm_chunk_locs(k)[0].chunkd + fsm_chunk_locs(k)[1].chunkd;
    assert_int_equal(sum, 199);
    int code = 0;
    for (unsigned id = 1; id < 1000 && !code; id++)
        code = fsm_chunk_loc_add(k, (struct fsm_loc){.chunkd = id});
    assert_int_equal(code, -ENOSPC); /* and the heap list is freed with the chunk (ASan looks) */
}

static void count_chunk(void *arg, struct fsm_chunk *c)
{
    uint8_t *seen = arg;
    seen[c->id]++;
}

static void test_walk(void **state)
{
    struct ctx *c = *state;
    struct fsm_rig *r = &c->r;
    uint8_t seen[300] = {0};
    uint64_t pos = 0;
    for (uint64_t k = 0; k < 200; k++)
        assert_int_equal(fsm_rig_commit(r, c->file, k * 10, 10, 1 + k, 0), 0);
    assert_int_equal(fsm_rig_truncate(r, c->file, 1950), 0);
    unsigned slices = 0;
    while (fsm_chunk_walk(r->f, &pos, 64, count_chunk, seen))
        assert_true(++slices < 10);
    for (unsigned id = 1; id <= 200; id++)
        assert_int_equal(seen[id], id <= 195);
}

int main(void)
{
#define T(x) cmocka_unit_test_setup_teardown(x, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_commit),         T(test_overwrite_frees),
        T(test_commit_over),    T(test_over_knows_no_history),
        T(test_commit_order),   T(test_commit_ctime),
        T(test_commit_refused), T(test_commit_overflow),
        T(test_truncate),       T(test_punch),
        T(test_setattr),        T(test_goal),
        T(test_orphan_data),    T(test_locations),
        T(test_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
