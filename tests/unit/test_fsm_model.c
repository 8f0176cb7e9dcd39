/* The state machine against a model that is too simple to be wrong: lists searched from end to end,
 * one array cell per 4 KiB block. Random commands over few names, so that every refusal is met; the
 * codes must agree each time, the states every now and then. Also: replaying the same commands
 * gives the same digest, also when the state went through a checkpoint in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tests/unit/fsm_rig.h"

enum {
    NODES = 4000,
    ENTRIES = 400,
    BLOCKS = 24,
    NAMES = 9,
    BLK = 4096,
    OPS = 6000,
    ATTRS = 5,
    RESERVED = 1
};

struct node {
    uint64_t ino;
    bool dir, freed, tmp; /* tmp: never had a name */
    int nlink;            /* names */
    unsigned goal, size,
        span[BLOCKS]; /* size in blocks; span: chunk << 8 | block of the chunk + 1, or RESERVED */
    unsigned attr[ATTRS]; /* user.0 and so on: length of the value + 1, 0: none */
};
struct entry {
    int parent, name, child;
};
struct model {
    struct node n[NODES];
    int nn;
    struct entry e[ENTRIES];
    int ne;
    uint64_t rnd;
    unsigned next_chunk;
    unsigned met[3]; /* successes, refusals, checkpoints */
};

static unsigned rnd(struct model *m, unsigned below)
{
    m->rnd = m->rnd * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(m->rnd >> 33) % below;
}

static int find(const struct model *m, int parent, int name)
{
    for (int k = 0; k < m->ne; k++) {
        if (m->e[k].parent == parent && m->e[k].name == name)
            return k;
    }
    return -1;
}

static bool is_empty(const struct model *m, int dir)
{
    for (int k = 0; k < m->ne; k++) {
        if (m->e[k].parent == dir)
            return false;
    }
    return true;
}

static int parent_of(const struct model *m, int dir)
{
    for (int k = 0; k < m->ne; k++) {
        if (m->e[k].child == dir)
            return m->e[k].parent;
    }
    return -1;
}

static bool within(const struct model *m, int dir, int ancestor)
{
    for (; dir >= 0; dir = parent_of(m, dir)) {
        if (dir == ancestor)
            return true;
    }
    return false;
}

static int dir_code(const struct model *m, int node)
{
    if (m->n[node].freed)
        return ENOENT;
    if (!m->n[node].dir)
        return ENOTDIR;
    return m->n[node].nlink ? 0 : ENOENT;
}

static void entry_del(struct model *m, int k)
{
    m->e[k] = m->e[--m->ne];
}

static const char *name_of(int k)
{
    static const char *const names[NAMES] = {
        "a", "b",     "cc", "longer-name",
        "e", "f.txt", "G",  "a rather long name that needs a good many bytes of room in the arena",
        "h"};
    return names[k];
}

/* Mostly what is alive, sometimes anything. */
static int pick(struct model *m)
{
    int k = (int)rnd(m, (unsigned)m->nn);
    for (int tries = 0; tries < 6 && (m->n[k].freed || !m->n[k].nlink); tries++)
        k = (int)rnd(m, (unsigned)m->nn);
    return k;
}

static int pick_dir(struct model *m)
{
    int k = pick(m);
    for (int tries = 0; tries < 6 && !m->n[k].dir; tries++)
        k = pick(m);
    return k;
}

static void agree(struct model *m, const char *what, int got, int want)
{
    if (got != want)
        fail_msg("%s: code %d, the model says %d", what, got, want);
    m->met[got != 0]++;
}

static void do_create(struct model *m, struct fsm_rig *r)
{
    int p = pick_dir(m), name = (int)rnd(m, NAMES), want = dir_code(m, p);
    bool dir = rnd(m, 3) == 0;
    if (!want && find(m, p, name) >= 0)
        want = EEXIST;
    if (m->nn == NODES || m->ne == ENTRIES)
        return;
    int64_t ino =
        fsm_rig_create(r, m->n[p].ino, name_of(name), dir ? S_IFDIR | 0755 : S_IFREG | 0644);
    agree(m, "create", ino < 0 ? (int)-ino : 0, want);
    if (want)
        return;
    m->n[m->nn] = (struct node){.ino = (uint64_t)ino, .dir = dir, .nlink = 1, .goal = m->n[p].goal};
    m->e[m->ne++] = (struct entry){p, name, m->nn++};
}

static void do_tmpfile(struct model *m, struct fsm_rig *r)
{
    int p = pick_dir(m), want = dir_code(m, p);
    if (m->nn == NODES)
        return;
    int64_t ino = fsm_rig_tmpfile(r, m->n[p].ino, S_IFREG | 0600, 0);
    agree(m, "tmpfile", ino < 0 ? (int)-ino : 0, want);
    if (!want)
        m->n[m->nn++] = (struct node){.ino = (uint64_t)ino, .tmp = true, .goal = m->n[p].goal};
}

/* Names one of the newest files that never had a name. */
static void do_adopt(struct model *m, struct fsm_rig *r)
{
    int k = m->nn - 1, p = pick_dir(m), name = (int)rnd(m, NAMES), want = dir_code(m, p);
    while (k > 0 && (!m->n[k].tmp || m->n[k].freed))
        k--;
    if (k == 0 || m->ne == ENTRIES)
        return;
    if (!want && find(m, p, name) >= 0)
        want = EEXIST;
    agree(m, "name a tmpfile", fsm_rig_link(r, m->n[k].ino, m->n[p].ino, name_of(name)), want);
    if (want)
        return;
    m->n[k].nlink = 1;
    m->n[k].tmp = false;
    m->e[m->ne++] = (struct entry){p, name, k};
}

static void do_unlink(struct model *m, struct fsm_rig *r)
{
    int p = pick_dir(m), name = (int)rnd(m, NAMES), want = dir_code(m, p);
    bool dir = rnd(m, 2);
    int k = find(m, p, name);
    if (!want && k < 0)
        want = ENOENT;
    if (!want && dir && !m->n[m->e[k].child].dir)
        want = ENOTDIR;
    if (!want && !dir && m->n[m->e[k].child].dir)
        want = EISDIR;
    if (!want && dir && !is_empty(m, m->e[k].child))
        want = ENOTEMPTY;
    agree(m, "unlink", fsm_rig_unlink(r, m->n[p].ino, name_of(name), dir), want);
    if (want)
        return;
    m->n[m->e[k].child].nlink--;
    entry_del(m, k);
}

static void do_link(struct model *m, struct fsm_rig *r)
{
    int f = pick(m), p = pick_dir(m), name = (int)rnd(m, NAMES), want = 0;
    if (m->ne == ENTRIES)
        return;
    if (m->n[f].freed)
        want = ENOENT;
    else if (m->n[f].dir)
        want = EPERM;
    else if (!(want = dir_code(m, p)))
        want = find(m, p, name) >= 0 ? EEXIST : !m->n[f].nlink && !m->n[f].tmp ? ENOENT : 0;
    agree(m, "link", fsm_rig_link(r, m->n[f].ino, m->n[p].ino, name_of(name)), want);
    if (want)
        return;
    m->n[f].nlink++;
    m->n[f].tmp = false;
    m->e[m->ne++] = (struct entry){p, name, f};
}

static int rename_code(const struct model *m, int p, int from, int np, int to, unsigned flags)
{
    int code = dir_code(m, p);
    if (!code)
        code = dir_code(m, np);
    if (code)
        return code;
    if (from < 0)
        return ENOENT;
    if (to >= 0 && flags == 1)
        return EEXIST;
    if (to < 0 && flags == 2)
        return ENOENT;
    int x = m->e[from].child, y = to >= 0 ? m->e[to].child : -1;
    if (m->n[x].dir && within(m, np, x))
        return EINVAL;
    if (y >= 0 && m->n[y].dir && within(m, p, y))
        return flags == 2 ? EINVAL : ENOTEMPTY;
    if (y < 0 || x == y || flags == 2)
        return 0;
    if (m->n[x].dir != m->n[y].dir)
        return m->n[y].dir ? EISDIR : ENOTDIR;
    return m->n[y].dir && !is_empty(m, y) ? ENOTEMPTY : 0;
}

static void do_rename(struct model *m, struct fsm_rig *r)
{
    int p = pick_dir(m), np = rnd(m, 3) ? pick_dir(m) : p;
    int name = (int)rnd(m, NAMES), nname = (int)rnd(m, NAMES);
    unsigned flags = rnd(m, 3);
    int from = find(m, p, name), to = find(m, np, nname);
    int want = rename_code(m, p, from, np, to, flags);
    agree(m, "rename",
          fsm_rig_rename(r, m->n[p].ino, name_of(name), m->n[np].ino, name_of(nname), flags), want);
    if (want || (to >= 0 && m->e[from].child == m->e[to].child))
        return;
    int x = m->e[from].child;
    if (to < 0) {
        m->e[from].parent = np;
        m->e[from].name = nname;
    } else if (flags == 2) {
        m->e[from].child = m->e[to].child;
        m->e[to].child = x;
    } else {
        m->n[m->e[to].child].nlink--;
        m->e[to].child = x;
        entry_del(m, from);
    }
}

static void do_commit(struct model *m, struct fsm_rig *r)
{
    int f = pick(m);
    unsigned at = rnd(m, BLOCKS), n = 1 + rnd(m, BLOCKS - at), chunk, off = 0;
    struct node *x = &m->n[f];
    int want = x->freed ? ENOENT : x->dir ? EISDIR : 0;
    chunk = m->next_chunk++;
    if (!want && at > 0 && x->span[at - 1] > RESERVED && (x->span[at - 1] & 255) + n < 200 &&
        rnd(m, 4)) {
        chunk = x->span[at - 1] >> 8; /* go on in the chunk: extents merge, or fork off */
        off = x->span[at - 1] & 255;
    }
    agree(m, "commit", fsm_rig_commit(r, x->ino, (uint64_t)at * BLK, n * BLK, chunk, off * BLK),
          want);
    if (want)
        return;
    for (unsigned k = 0; k < n; k++)
        x->span[at + k] = chunk << 8 | (off + k + 1);
    if (x->size < at + n)
        x->size = at + n;
}

static void do_append(struct model *m, struct fsm_rig *r)
{
    struct node *x = &m->n[pick(m)];
    unsigned chunk = m->next_chunk++, n = 1 + rnd(m, 3), at = x->size;
    int want = x->freed ? ENOENT : x->dir ? EISDIR : 0;
    if (at + n > BLOCKS)
        return;
    agree(m, "append", fsm_rig_append(r, x->ino, n * BLK, chunk, 0), want);
    if (want)
        return;
    assert_int_equal(r->res.value, (uint64_t)at * BLK);
    for (unsigned k = 0; k < n; k++)
        x->span[at + k] = chunk << 8 | (k + 1);
    x->size = at + n;
}

static void do_xattr(struct model *m, struct fsm_rig *r)
{
    static const uint8_t value[256];
    char name[16];
    struct node *x = &m->n[pick(m)];
    unsigned k = rnd(m, ATTRS), flags = rnd(m, 3), len = rnd(m, sizeof value);
    bool have = x->attr[k] != 0, removes = rnd(m, 3) == 0;
    int want = x->freed ? ENOENT : 0;
    snprintf(name, sizeof name, "user.%u", k);
    if (!want && removes)
        want = have ? 0 : ENODATA;
    else if (!want && flags)
        want = flags == 1 && have ? EEXIST : flags == 2 && !have ? ENODATA : 0;
    agree(m, "xattr",
          removes ? fsm_rig_rmxattr(r, x->ino, name)
                  : fsm_rig_setxattr(r, x->ino, name, value, len, flags),
          want);
    if (!want)
        x->attr[k] = removes ? 0 : len + 1;
}

static void do_truncate(struct model *m, struct fsm_rig *r)
{
    int f = pick(m);
    struct node *x = &m->n[f];
    unsigned size = rnd(m, BLOCKS + 1);
    int want = x->freed ? ENOENT : x->dir ? EISDIR : 0;
    agree(m, "truncate", fsm_rig_truncate(r, x->ino, (uint64_t)size * BLK), want);
    if (want)
        return;
    for (unsigned k = size; k < BLOCKS && size <= x->size; k++)
        x->span[k] = 0;
    x->size = size;
}

static void do_fallocate(struct model *m, struct fsm_rig *r)
{
    enum { KEEP = 1, PUNCH = 2, ZERO = 16 };
    static const uint32_t modes[] = {0, KEEP, PUNCH | KEEP, PUNCH | KEEP, ZERO, ZERO | KEEP};
    struct node *x = &m->n[pick(m)];
    unsigned at = rnd(m, BLOCKS), n = 1 + rnd(m, BLOCKS - at);
    uint32_t mode = modes[rnd(m, sizeof modes / sizeof modes[0])];
    int want = x->freed ? ENOENT : x->dir ? EISDIR : 0;
    agree(m, "fallocate", fsm_rig_fallocate(r, x->ino, mode, (uint64_t)at * BLK, (uint64_t)n * BLK),
          want);
    if (want)
        return;
    assert_int_equal(r->res.value, (uint64_t)n * BLK);
    for (unsigned k = at; k < at + n; k++)
        x->span[k] = mode & PUNCH ? 0 : mode & ZERO || !x->span[k] ? RESERVED : x->span[k];
    if (!(mode & KEEP) && x->size < at + n)
        x->size = at + n;
}

static void do_goal(struct model *m, struct fsm_rig *r)
{
    int f = pick(m);
    unsigned goal = rnd(m, 10);
    int want = goal < 1 || goal > 8 ? EINVAL : m->n[f].freed ? ENOENT : 0;
    agree(m, "setgoal", fsm_rig_set_goal(r, m->n[f].ino, goal, 0), want);
    if (!want)
        m->n[f].goal = goal;
}

static void do_reap(struct model *m, struct fsm_rig *r)
{
    int f = (int)rnd(m, (unsigned)m->nn);
    agree(m, "reap", fsm_rig_reap(r, m->n[f].ino), 0);
    if (m->n[f].nlink == 0)
        m->n[f].freed = true;
}

static void step(struct model *m, struct fsm_rig *r)
{
    static void (*const ops[])(struct model *, struct fsm_rig *) = {
        do_create, do_create, do_create, do_unlink,   do_link,     do_rename, do_rename,
        do_rename, do_commit, do_commit, do_truncate, do_goal,     do_reap,   do_tmpfile,
        do_adopt,  do_append, do_xattr,  do_xattr,    do_fallocate};
    r->now += 10;
    ops[rnd(m, sizeof ops / sizeof ops[0])](m, r);
}

/* ---- comparing states ---- */

static void check_file(struct fsm_rig *r, const struct node *x, const Replfs__Attr *a)
{
    const struct extmap *map;
    unsigned live = 0;
    assert_int_equal(a->size, (uint64_t)x->size * BLK);
    assert_int_equal(fsm_extents(r->f, x->ino, &map), 0);
    for (unsigned k = 0; k < BLOCKS; k++) {
        struct ext e;
        bool got = extmap_find(map, (uint64_t)k * BLK, &e) && e.file_off <= (uint64_t)k * BLK;
        assert_int_equal(got, x->span[k] != 0);
        if (!got)
            continue;
        live++;
        assert_int_equal(e.chunk, x->span[k] >> 8);
        if (!e.chunk)
            continue;
        assert_int_equal(e.chunk_off + k * BLK - e.file_off, ((x->span[k] & 255) - 1) * BLK);
        struct fsm_chunk *c = fsm_chunk_find(r->f, e.chunk);
        assert_non_null(c);
        assert_int_equal(c->goal, x->goal);
    }
    assert_int_equal(a->allocated, (uint64_t)live * BLK);
}

/* refs and live of every chunk, recounted from all extents. */
static void check_chunk(void *arg, struct fsm_chunk *c)
{
    struct {
        const struct model *m;
        struct fsm_rig *r;
    } *x = arg;
    unsigned refs = 0, live = 0;
    for (int k = 0; k < x->m->nn; k++) {
        const struct extmap *map;
        struct ext e;
        if (x->m->n[k].freed || x->m->n[k].dir)
            continue;
        assert_int_equal(fsm_extents(x->r->f, x->m->n[k].ino, &map), 0);
        for (uint64_t off = 0; extmap_find(map, off, &e); off = e.file_off + e.len) {
            if (e.chunk != c->id)
                continue;
            refs++;
            live += e.len;
            assert_true(e.chunk_off + e.len <= c->len);
        }
    }
    assert_true(refs > 0);
    assert_int_equal(c->refs, refs);
    assert_int_equal(c->live, live);
}

static void check_attrs(struct fsm_rig *r, const struct node *x, const Replfs__Attr *a)
{
    char name[16];
    const uint8_t *v;
    unsigned have = 0;
    for (unsigned k = 0; k < ATTRS; k++) {
        snprintf(name, sizeof name, "user.%u", k);
        int len = x->attr[k] ? (int)x->attr[k] - 1 : -ENODATA;
        assert_int_equal(fsm_rig_getxattr(r, x->ino, name, &v), len);
        have += x->attr[k] != 0;
    }
    assert_int_equal(a->flags, have ? REPLFS__ATTR_FLAG__ATTR_XATTR : 0);
}

static bool count_entries(void *arg, const struct fsm_dirent *list, size_t n)
{
    (void)list;
    *(int *)arg += (int)n;
    return true;
}

static void compare(const struct model *m, struct fsm_rig *r)
{
    uint64_t pos = 0;
    int listed = 0;
    struct {
        const struct model *m;
        struct fsm_rig *r;
    } x = {m, r};

    for (int k = 0; k < m->nn; k++) {
        const struct node *n = &m->n[k];
        Replfs__Attr a = fsm_rig_attr(r, n->ino);
        assert_int_equal(a.ino, n->freed ? 0 : n->ino);
        if (n->freed)
            continue;
        assert_int_equal(a.goal, n->goal);
        check_attrs(r, n, &a);
        if (!n->dir) {
            assert_int_equal(a.nlink, n->nlink);
            check_file(r, n, &a);
            continue;
        }
        unsigned subdirs = 0;
        for (int j = 0; j < m->ne; j++)
            subdirs += m->e[j].parent == k && m->n[m->e[j].child].dir;
        assert_int_equal(a.nlink, n->nlink ? 2 + subdirs : 0);
        assert_int_equal(fsm_readdir(r->f, n->ino, 0, count_entries, &listed), 0);
    }
    assert_int_equal(listed, m->ne);
    for (int k = 0; k < m->ne; k++) {
        const struct entry *e = &m->e[k];
        assert_int_equal(fsm_rig_lookup(r, m->n[e->parent].ino, name_of(e->name)),
                         m->n[e->child].ino);
        if (m->n[e->child].dir)
            assert_int_equal(fsm_rig_lookup(r, m->n[e->child].ino, ".."), m->n[e->parent].ino);
    }
    while (fsm_chunk_walk(r->f, &pos, 1000, check_chunk, &x))
        ;
}

static struct model *model_new(uint64_t seed)
{
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->n[0] = (struct node){.ino = FSM_ROOT_INO, .dir = true, .nlink = 1, .goal = 2};
    m->nn = 1;
    m->rnd = seed;
    m->next_chunk = 1;
    return m;
}

static void test_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct fsm_rig r;
        struct model *m = model_new(seed);
        fsm_rig_open(&r);
        for (unsigned k = 1; k <= OPS; k++) {
            step(m, &r);
            if (k % 200 == 0)
                compare(m, &r);
            if (k % 500 == 0) { /* go on with what the checkpoint holds */
                struct fsm *g = fsm_rig_reload(r.f);
                fsm_free(r.f);
                r.f = g;
                compare(m, &r);
            }
        }
        assert_true(m->met[0] > OPS / 4 && m->met[1] > OPS / 10);
        fsm_rig_close(&r);
        free(m);
    }
}

static void test_replay(void **state)
{
    (void)state;
    for (uint64_t seed = 11; seed <= 12; seed++) {
        struct fsm_rig a, b;
        struct model *m = model_new(seed), *n = model_new(seed);
        fsm_rig_open(&a);
        fsm_rig_open(&b);
        for (unsigned k = 1; k <= OPS; k++) {
            a.seq = b.seq = k; /* answers are part of the state */
            a.acked = b.acked = k > 50 ? k - 50 : 0;
            step(m, &a);
            step(n, &b);
            if (k % 1000 == 0) {
                struct fsm *g = fsm_rig_reload(b.f);
                fsm_free(b.f);
                b.f = g;
            }
            if (k % 250 == 0)
                assert_int_equal(fsm_digest(a.f), fsm_digest(b.f));
        }
        uint64_t before = fsm_digest(a.f);
        a.seq++;
        assert_true(fsm_rig_create(&a, FSM_ROOT_INO, "one more", S_IFREG) > 0);
        assert_true(fsm_digest(a.f) != before);
        fsm_rig_close(&a);
        fsm_rig_close(&b);
        free(m);
        free(n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model), cmocka_unit_test(test_replay)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
