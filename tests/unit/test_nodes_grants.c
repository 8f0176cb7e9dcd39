/* What sessions were granted, commit and give up: garbage, floors behind a barrier of the log, and commits whose
 * word of copies is not taken for more than it is worth. On the rig of test_nodes.c. */
#include "nodes_rig.h"
#include "base/cleanup.h"

static void garbage_goes_when_it_is_sure(void **state)
{
    (void)state;
    uint64_t orphan = fx->next_chunk++, old = fx->next_chunk++, young = fx->next_chunk++;
    uint64_t future = 200000;
    join_all(2);
    assert_false(nodes_full(fx->nodes, 2)); /* they have room, whoever wants them left out */
    nodes_rig_open_session(88);
    nodes_rig_store(&fx->chunkd[0], orphan, 100, 4242); /* a session that never was */
    nodes_rig_store(&fx->chunkd[0], old, 100, 88);
    nodes_rig_store(&fx->chunkd[0], young, 100, 88);
    nodes_rig_store(&fx->chunkd[0], future, 100, 4242);
    wait_until(nobody_holds, &orphan, "the dead session's chunk to go");
    assert_int_equal(held_by(old), 1);
    nodes_oldest_grant(fx->nodes, 88, young);
    wait_until(nobody_holds, &old, "the chunk below the oldest grant to go");
    assert_int_equal(held_by(young), 1);
    /* one that is held keeps neither those before nor those behind it */
    uint64_t behind = fx->next_chunk++, later = fx->next_chunk++;
    nodes_rig_store(&fx->chunkd[0], behind, 100, 88);
    nodes_rig_store(&fx->chunkd[0], later, 100, 88);
    nodes_held_grants(fx->nodes, 88, young, behind, &young, 1);
    wait_until(nobody_holds, &behind, "the chunk that is not held to go");
    assert_int_equal(held_by(young), 1);
    assert_int_equal(held_by(later), 1);
    nodes_rig_end_session(88, true); /* it may come back and commit it */
    int64_t now = clock_mono();
    wait_until(judged_again, &now, "another look");
    now = clock_mono();
    wait_until(judged_again, &now, "and one more");
    assert_int_equal(held_by(young), 1);
    nodes_rig_close_session(88);
    wait_until(nobody_holds, &young, "the closed session's chunk to go");
    assert_int_equal(held_by(future), 1); /* the log never gave that number */
    assert_true(has_problem("quarantine", 1));
}

static bool barrier_waits_or_chunk_gone(void *arg)
{
    pthread_mutex_lock(&fx->mlog.lock);
    bool waits = fx->mlog.nwaiting > 0;
    pthread_mutex_unlock(&fx->mlog.lock);
    return waits || nobody_holds(arg);
}

/* A client that gave up waiting for its commit says that it holds the chunk no more, while the commit is
 * in the queue of a log that stands still. The chunk must live until the log has gone on. */
static void floor_waits_for_the_log(void **state)
{
    (void)state;
    uint32_t ids[CHUNKDS];
    uint64_t registrations[CHUNKDS], ino;
    join_all(2);
    uint64_t chunk = grant_chunk("a", 2, 8192, 2, &ino, ids, registrations);
    uint64_t garbage = grant_chunk("b", 2, 8192, 2, &(uint64_t){0}, ids, registrations);
    stall(&fx->mlog);
    nodes_held_grants(fx->nodes, 77, chunk + 9, chunk + 9, NULL, 0);
    wait_until(barrier_waits_or_chunk_gone, &chunk, "the judge");
    assert_int_equal(held_by(chunk), 2);
    commit_chunk(ino, chunk, 8192, ids, registrations, 2); /* it was in front of the barrier */
    go_on(&fx->mlog);
    wait_until(nobody_holds, &garbage, "what is garbage to be deleted");
    struct want w = {chunk, 2};
    wait_until(really_held, &w, "the committed one to stay");
    int64_t now = clock_mono();
    wait_until(judged_again, &now, "another look");
    assert_true(really_held(&w));
}

/* The client gives up a second chunk while the barrier for the first is on its way: that says nothing of a commit
 * behind the barrier. */
static void a_later_floor_waits_for_another_barrier(void **state)
{
    (void)state;
    uint32_t ids[CHUNKDS];
    uint64_t registrations[CHUNKDS], ino;
    join_all(2);
    uint64_t garbage = grant_chunk("a", 2, 8192, 2, &ino, ids, registrations);
    uint64_t later = grant_chunk("b", 2, 8192, 2, &ino, ids, registrations);
    stall(&fx->mlog);
    nodes_held_grants(fx->nodes, 77, garbage + 1, 0, NULL, 0);
    wait_until(barrier_waits_or_chunk_gone, &garbage, "the judge");
    nodes_held_grants(fx->nodes, 77, later + 1, 0, NULL, 0);
    let_through(&fx->mlog);
    int64_t now = clock_mono();
    wait_until(judged_again, &now, "another look");
    usleep(20000); /* an order to delete it would be on its way */
    assert_int_equal(held_by(later), 2);
    go_on(&fx->mlog);
    wait_until(nobody_holds, &garbage, "what is garbage to be deleted");
    wait_until(nobody_holds, &later, "the other one to be deleted");
}

/* Names a chunk that the session gave up, one that it was granted, and one that is not its own. */
static void commits_are_checked_before_they_are_logged(void **state)
{
    (void)state;
    Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
    Replfs__Extent e = REPLFS__EXTENT__INIT, *pe = &e;
    Replfs__ChunkCopies cc = REPLFS__CHUNK_COPIES__INIT, *pcc = &cc;
    uint64_t own[2];
    uint8_t cap[CAP_LEN];
    uint32_t id = 1;
    size_t n;
    unsigned turn;
    nodes_rig_open_session(88);
    nodes_granted(fx->nodes, 77, 5000, &id, 1);
    nodes_granted(fx->nodes, 77, 5001, &id, 1);
    nodes_held_grants(fx->nodes, 77, 5001, 0, NULL, 0);
    o.extents = &pe;
    o.n_extents = 1;
    o.copies = &pcc;
    o.n_copies = 1;
    e.chunk = cc.chunk = 5000;
    assert_int_equal(nodes_commit_begin(fx->nodes, 77, &o, own, &n, &turn), -EPERM);
    e.chunk = cc.chunk = 5001;
    assert_int_equal(nodes_commit_begin(fx->nodes, 77, &o, own, &n, &turn), 0);
    nodes_commit_end(fx->nodes, turn);
    assert_true(n == 1 && own[0] == 5001);
    for (unsigned k = 0; k < 3; k++) { /* no proof, a reader's, another session's */
        nodes_cap(fx->nodes, 5001, k == 2 ? 77 : 88, k == 2 ? 77 : 88,
                  k == 1 ? CAP_READ : CAP_APPEND, cap);
        cc.cap = (ProtobufCBinaryData){k ? sizeof cap : 0, cap};
        assert_int_equal(nodes_commit_begin(fx->nodes, 88, &o, own, &n, &turn), 0);
        nodes_commit_end(fx->nodes, turn);
        assert_int_equal(n, 0);
    }
    e.chunk = cc.chunk = 4000; /* granted before metad started */
    nodes_cap(fx->nodes, 4000, 88, 88, CAP_READ | CAP_APPEND, cap);
    assert_int_equal(nodes_commit_begin(fx->nodes, 88, &o, own, &n, &turn), 0);
    nodes_commit_end(fx->nodes, turn);
    assert_true(n == 1 && own[0] == 4000);
    nodes_rig_end_session(77,
                          true); /* it lapses: what it gave up stays so, the rest it can prove */
    e.chunk = cc.chunk = 5000;
    assert_int_equal(nodes_commit_begin(fx->nodes, 77, &o, own, &n, &turn), -EPERM);
    e.chunk = cc.chunk = 5001;
    nodes_cap(fx->nodes, 5001, 77, 77, CAP_READ | CAP_APPEND, cap);
    assert_int_equal(nodes_commit_begin(fx->nodes, 77, &o, own, &n, &turn), 0);
    nodes_commit_end(fx->nodes, turn);
    assert_true(n == 1 && own[0] == 5001);
}

static unsigned ok_copies(uint64_t chunk, unsigned *all)
{
    unsigned ok = 0;
    fsm_rdlock(fx->mlog.fsm);
    struct fsm_chunk *c = fsm_chunk_find(fx->mlog.fsm, chunk);
    *all = c ? c->nloc : 0;
    for (unsigned i = 0; i < *all; i++)
        ok += fsm_chunk_locs(c)[i].state == COPY_OK;
    fsm_unlock(fx->mlog.fsm);
    return ok;
}

/* Both chunkds lost power and came back with less than the client was told; then its commit comes. */
static void late_commit_is_not_believed(void **state)
{
    (void)state;
    uint32_t ids[CHUNKDS];
    uint64_t registrations[CHUNKDS], ino;
    unsigned all;
    join_all(2);
    uint64_t chunk = grant_chunk("a", 2, 4096, 2, &ino, ids, registrations);
    for (unsigned i = 0; i < 2; i++) {
        nodes_rig_leave(&fx->chunkd[i]);
        nodes_rig_join(&fx->chunkd[i], NODES_RIG_UUID);
    }
    wait_up(2);
    commit_chunk(ino, chunk, 8192, ids, registrations, 2);
    assert_int_equal(ok_copies(chunk, &all), 0);
    assert_int_equal(all, 2);
    /* one that took its bytes since then is believed */
    for (unsigned i = 0; i < 2; i++)
        registrations[i] = fx->chunkd[i].registration;
    chunk = make_chunk("b", 2, 2, &ino);
    assert_int_equal(ok_copies(chunk, &all), 2);
    /* an answer that is given again, after a restart of the chunkd, raises no doubts */
    Replfs__ChunkCopies cc = REPLFS__CHUNK_COPIES__INIT;
    cc.chunk = chunk;
    cc.len = 8192;
    cc.chunkds = ids;
    cc.n_chunkds = 2;
    fsm_wrlock(fx->mlog.fsm);
    nodes_copies(fx->nodes, 77, &cc);
    fsm_unlock(fx->mlog.fsm);
    assert_int_equal(ok_copies(chunk, &all), 2);
}

/* A client that lies: chunkds that it was not granted, chunks that are another's. */
static void lies_about_copies_are_not_believed(void **state)
{
    (void)state;
    uint32_t ids[CHUNKDS];
    uint64_t registrations[CHUNKDS], ino;
    unsigned all;
    join_all(3);
    uint64_t chunk = grant_chunk("a", 2, 8192, 2, &ino, ids, registrations);
    ids[2] = fx->chunkd[2].id;
    registrations[2] = fx->chunkd[2].registration;
    commit_chunk(ino, chunk, 8192, ids, registrations, 3);
    assert_int_equal(ok_copies(chunk, &all), 2);
    assert_int_equal(all, 2);
    Replfs__ChunkCopies cc = REPLFS__CHUNK_COPIES__INIT;
    cc.chunk = chunk;
    cc.chunkds = &ids[2];
    cc.registrations = &registrations[2];
    cc.n_chunkds = cc.n_registrations = 1;
    fsm_wrlock(fx->mlog.fsm);
    nodes_copies(fx->nodes, 88, &cc);
    fsm_unlock(fx->mlog.fsm);
    assert_int_equal(ok_copies(chunk, &all), 2);
    assert_int_equal(all, 2);
    /* nothing is known of the grant, metad has started since: doubtful until the chunkd tells */
    nodes_held_grants(fx->nodes, 77, chunk + 1, 0, NULL, 0);
    fsm_wrlock(fx->mlog.fsm);
    nodes_copies(fx->nodes, 77, &cc);
    fsm_unlock(fx->mlog.fsm);
    assert_int_equal(ok_copies(chunk, &all), 2);
    assert_int_equal(all, 3);
    struct want w = {chunk, 2};
    wait_until(really_held, &w, "the third, which has nothing, to be struck");
}

int main(void)
{
#define NODES_TEST(fn) cmocka_unit_test_setup_teardown(fn, nodes_rig_setup, nodes_rig_teardown)
    const struct CMUnitTest tests[] = {
        NODES_TEST(garbage_goes_when_it_is_sure),
        NODES_TEST(floor_waits_for_the_log),
        NODES_TEST(a_later_floor_waits_for_another_barrier),
        NODES_TEST(commits_are_checked_before_they_are_logged),
        NODES_TEST(late_commit_is_not_believed),
        NODES_TEST(lies_about_copies_are_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
