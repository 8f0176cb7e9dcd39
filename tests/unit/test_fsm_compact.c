/* Compaction in the state: where files still show the old chunk they show the new one, and nowhere else; what they hold,
 * their times and their quotas stay; the old chunk goes with its last extent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "metad/fsm/fsm_cluster.h"
#include "tests/unit/fsm_rig.h"

#define BLOCK 4096u
#define OLD 100u
#define NEW 200u
#define WRITER 0xfeedull
#define PARTS 8u

struct want {
    Replfs__CompactOp op;
    Replfs__CompactedPart part[PARTS], *list[PARTS];
};

static struct want want(uint64_t chunk, uint64_t to)
{
    struct want w = {.op = REPLFS__COMPACT_OP__INIT};
    w.op.chunk = chunk;
    w.op.to = to;
    w.op.writer = WRITER;
    return w;
}

static void part(struct want *w, uint64_t ino, uint64_t file_off, uint32_t off, uint32_t to_off,
                 uint32_t len)
{
    Replfs__CompactedPart *p = &w->part[w->op.n_parts++];
    replfs__compacted_part__init(p);
    p->ino = ino;
    p->file_off = file_off;
    p->chunk_off = off;
    p->to_off = to_off;
    p->len = len;
}

static int compact(struct fsm_rig *r, struct want *w)
{
    for (size_t i = 0; i < PARTS; i++)
        w->list[i] = &w->part[i];
    w->op.parts = w->list;
    return FSM_RIG_LEADER_OP(r, COMPACT, compact, &w->op);
}

static int setup(void **state)
{
    int rc = fsm_rig_setup(state);
    struct fsm_rig *r = *state;
    Replfs__FeatureOp o = REPLFS__FEATURE_OP__INIT;
    o.level = 2;
    assert_int_equal(FSM_RIG_LEADER_OP(r, FEATURE, feature, &o), 0);
    return rc;
}

static void shows(struct fsm_rig *r, uint64_t ino, uint64_t off, uint64_t chunk, uint32_t chunk_off)
{
    const struct extmap *m;
    struct ext e;
    assert_int_equal(fsm_extents(r->f, ino, &m), 0);
    assert_true(extmap_find(m, off, &e) && e.file_off <= off);
    assert_int_equal(e.chunk, chunk);
    assert_int_equal(e.chunk_off + (off - e.file_off), chunk_off);
}

/* A file of eight blocks of OLD of which all but the second and the sixth were overwritten by chunk 101. */
static uint64_t sparse_file(struct fsm_rig *r)
{
    int64_t ino = fsm_rig_create(r, FSM_ROOT_INO, "f", REG_MODE);
    assert_true(ino > 0);
    assert_int_equal(fsm_rig_commit(r, (uint64_t)ino, 0, 8 * BLOCK, OLD, 0), 0);
    for (unsigned i = 0; i < 8; i++)
        if (i != 1 && i != 5)
            assert_int_equal(fsm_rig_commit(r, (uint64_t)ino, i * BLOCK, BLOCK, OLD + 1, i * BLOCK),
                             0);
    return (uint64_t)ino;
}

static void test_moves(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t ino = sparse_file(r);
    struct want w = want(OLD, NEW);
    Replfs__Attr before = fsm_rig_attr(r, ino);
    r->now += 1000;
    part(&w, ino, BLOCK, BLOCK, 0, BLOCK);
    assert_int_equal(compact(r, &w), 0);
    assert_int_equal(r->res.value, BLOCK);
    assert_non_null(fsm_chunk_find(r->f, OLD));
    assert_int_equal(fsm_chunk_find(r->f, OLD)->live, BLOCK);
    w = want(OLD, NEW);
    part(&w, ino, 5 * BLOCK, 5 * BLOCK, BLOCK, BLOCK);
    assert_int_equal(compact(r, &w), 0);
    shows(r, ino, BLOCK, NEW, 0);
    shows(r, ino, 5 * BLOCK, NEW, BLOCK);
    shows(r, ino, 4 * BLOCK, OLD + 1, 4 * BLOCK);
    assert_null(fsm_chunk_find(r->f, OLD));
    const struct fsm_chunk *c = fsm_chunk_find(r->f, NEW);
    assert_non_null(c);
    assert_int_equal(c->len, 2 * BLOCK);
    assert_int_equal(c->live, 2 * BLOCK);
    assert_int_equal(c->refs, 2);
    assert_int_equal(c->session, WRITER);
    assert_int_equal(c->goal, 2);
    Replfs__Attr after = fsm_rig_attr(r, ino);
    assert_int_equal(after.change, before.change);
    assert_int_equal(after.mtime_ns, before.mtime_ns);
    assert_int_equal(after.ctime_ns, before.ctime_ns);
    assert_int_equal(after.allocated, before.allocated);
    assert_int_equal(compact(r, &w), ENOENT); /* once more: the old chunk is gone */
}

/* Overwritten, cut and renamed over between the leader's look and the command. */
static void test_what_changed_stays(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t ino = sparse_file(r);
    struct want w = want(OLD, NEW);
    assert_int_equal(fsm_rig_commit(r, ino, BLOCK + 1024, 1024, OLD + 2, 0), 0);
    assert_int_equal(fsm_rig_truncate(r, ino, 5 * BLOCK + 100), 0);
    part(&w, ino, BLOCK, BLOCK, 0, BLOCK);
    part(&w, ino, 5 * BLOCK, 5 * BLOCK, BLOCK, BLOCK);
    part(&w, ino + 1000, 0, 0, 0, BLOCK);          /* no such file */
    part(&w, FSM_ROOT_INO, 0, 0, 0, BLOCK);        /* no file */
    part(&w, ino, 2 * BLOCK, 2 * BLOCK, 0, BLOCK); /* another chunk is there */
    part(&w, ino, 0, BLOCK, 0, 2 * BLOCK);         /* the chunk, but not at that place of it */
    assert_int_equal(compact(r, &w), 0);
    assert_int_equal(r->res.value, BLOCK - 1024 + 100);
    shows(r, ino, BLOCK, NEW, 0);
    shows(r, ino, BLOCK + 1024, OLD + 2, 0);
    shows(r, ino, BLOCK + 2048, NEW, 2048);
    shows(r, ino, 5 * BLOCK + 99, NEW, BLOCK + 99);
    shows(r, ino, 2 * BLOCK, OLD + 1, 2 * BLOCK);
    assert_int_equal(fsm_rig_attr(r, ino).size, 5 * BLOCK + 100);
    assert_null(fsm_chunk_find(r->f, OLD));
    assert_int_equal(fsm_chunk_find(r->f, NEW)->live, BLOCK - 1024 + 100);
}

/* A clone that the leader did not know of keeps the old chunk. */
static void test_clones(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t ino = sparse_file(r), inos[2];
    int64_t other = fsm_rig_create(r, FSM_ROOT_INO, "g", REG_MODE);
    struct want w = want(OLD, NEW);
    assert_int_equal(fsm_rig_clone(r, ino, BLOCK, (uint64_t)other, 0, BLOCK), 0);
    assert_int_equal(fsm_chunk_owners(r->f, fsm_chunk_find(r->f, OLD), inos, 2), 2);
    assert_int_equal(inos[0] + inos[1], ino + (uint64_t)other);
    part(&w, ino, BLOCK, BLOCK, 0, BLOCK);
    part(&w, ino, 5 * BLOCK, 5 * BLOCK, BLOCK, BLOCK);
    assert_int_equal(compact(r, &w), 0);
    assert_int_equal(fsm_chunk_find(r->f, OLD)->live, BLOCK);
    shows(r, (uint64_t)other, 0, OLD, BLOCK);
    w = want(OLD, NEW);
    part(&w, (uint64_t)other, 0, BLOCK, 0, BLOCK);
    assert_int_equal(compact(r, &w), 0);
    assert_null(fsm_chunk_find(r->f, OLD));
    assert_int_equal(fsm_chunk_find(r->f, NEW)->refs, 3);
    assert_int_equal(fsm_chunk_files(r->f, fsm_chunk_find(r->f, NEW)), 2);
}

static void test_refused(void **state)
{
    struct fsm_rig *r = *state;
    uint64_t ino = sparse_file(r);
    struct want w = want(OLD, OLD);
    assert_int_equal(compact(r, &w), EINVAL);
    w = want(OLD, OLD + 1); /* of a session */
    assert_int_equal(compact(r, &w), EPERM);
    w = want(OLD, 1ull << 50); /* was never given */
    assert_int_equal(compact(r, &w), EINVAL);
    w = want(OLD + 50, NEW);
    assert_int_equal(compact(r, &w), ENOENT);
    w = want(OLD, NEW);
    w.op.writer = 0;
    assert_int_equal(compact(r, &w), EINVAL);
    w = want(OLD, NEW);
    part(&w, ino, BLOCK, FSM_CHUNK_MAX, 0, BLOCK);
    assert_int_equal(compact(r, &w), EINVAL);
    w = want(OLD, NEW);
    part(&w, ino, BLOCK, BLOCK, FSM_CHUNK_MAX, BLOCK);
    assert_int_equal(compact(r, &w), EINVAL);
    w = want(OLD, NEW);
    part(&w, ino, UINT64_MAX - 10, BLOCK, 0, BLOCK);
    assert_int_equal(compact(r, &w), EINVAL);
    w = want(OLD, NEW);
    part(&w, ino, BLOCK, BLOCK, 0, 0);
    assert_int_equal(compact(r, &w), EINVAL);
    /* nor by a client */
    w = want(OLD, NEW);
    part(&w, ino, BLOCK, BLOCK, 0, BLOCK);
    w.list[0] = &w.part[0];
    w.op.parts = w.list;
    assert_int_equal(FSM_RIG_OP(r, COMPACT, compact, &w.op), EPERM);
    assert_null(fsm_chunk_find(r->f, NEW));
    assert_int_equal(fsm_chunk_find(r->f, OLD)->live, 2 * BLOCK);
}

static void count_sparse(void *arg, struct fsm_chunk *c)
{
    if (c->id == OLD)
        ++*(unsigned *)arg;
}

/* The hook tells of a chunk when less than half of it is live, and not when it goes. */
static void test_sparse_is_told(void **state)
{
    struct fsm_rig *r = *state;
    unsigned told = 0;
    int64_t ino = fsm_rig_create(r, FSM_ROOT_INO, "f", REG_MODE);
    fsm_set_hooks(r->f, &(struct fsm_hooks){.chunk_sparse = count_sparse, .arg = &told});
    assert_int_equal(fsm_rig_commit(r, (uint64_t)ino, 0, 4 * BLOCK, OLD, 0), 0);
    assert_int_equal(fsm_rig_commit(r, (uint64_t)ino, 0, 2 * BLOCK, OLD + 1, 0), 0);
    assert_int_equal(told, 0);
    assert_int_equal(fsm_rig_commit(r, (uint64_t)ino, 2 * BLOCK, 1, OLD + 1, 2 * BLOCK), 0);
    assert_int_equal(told, 1);
    assert_int_equal(fsm_rig_truncate(r, (uint64_t)ino, 0), 0);
    assert_int_equal(told, 1);
    fsm_set_hooks(r->f, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_moves, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_what_changed_stays, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_clones, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, fsm_rig_teardown),
        cmocka_unit_test_setup_teardown(test_sparse_is_told, setup, fsm_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
