/* Compaction as metad drives it: a sparse chunk that its writer gave up becomes another one on the chunkds that have it, the
 * files are told, and the former one goes; copies made are nobody's garbage meanwhile, and garbage when it comes to nothing. */
#include "nodes_rig.h"

#define LEN (256u << 10)
#define CUT (200u << 10) /* of these that are overwritten */
#define MADE 50000u      /* metad's first own chunk */
#define INCARNATION 0x1234567ull

static uint64_t ino, old, newest;

static int raise_level(unsigned level)
{
    Replfs__FeatureOp o = REPLFS__FEATURE_OP__INIT;
    o.level = level;
    NODES_RIG_OP(op, FEATURE, feature, &o);
    return nodes_rig_apply(&op, 0, NULL);
}

static int setup(void **state)
{
    int rc = nodes_rig_setup(state);
    Replfs__IncarnationOp o = REPLFS__INCARNATION_OP__INIT;
    o.incarnation = INCARNATION;
    NODES_RIG_OP(op, INCARNATION, incarnation, &o);
    assert_int_equal(nodes_rig_apply(&op, 0, NULL), 0);
    assert_int_equal(raise_level(1), 0);
    return rc;
}

/* A file of two chunks on two chunkds: `old`, of which most was overwritten by `newest`. */
static void overwrite(const char *name)
{
    uint32_t ids[CHUNKDS];
    uint64_t registrations[CHUNKDS];
    old = grant_chunk(name, 2, LEN, 2, &ino, ids, registrations);
    commit_chunk(ino, old, LEN, ids, registrations, 2);
    newest = fx->next_chunk++;
    for (unsigned i = 0; i < 2; i++)
        nodes_rig_store(&fx->chunkd[i], newest, CUT, 77);
    nodes_granted(fx->nodes, 77, newest, ids, 2);
    commit_chunk(ino, newest, CUT, ids, registrations, 2);
}

static void give_up(void)
{
    nodes_oldest_grant(fx->nodes, 77, newest);
}

static uint64_t shown(uint64_t off)
{
    const struct extmap *m;
    struct ext e;
    fsm_rdlock(fx->mlog.fsm);
    assert_int_equal(fsm_extents(fx->mlog.fsm, ino, &m), 0);
    assert_true(extmap_find(m, off, &e) && e.file_off <= off);
    fsm_unlock(fx->mlog.fsm);
    return e.chunk;
}

static bool is_made(void *arg)
{
    return held_by(*(uint64_t *)arg) > 0;
}

static struct job_stat compactions(void)
{
    lock_acquire(&fx->nodes->mu);
    struct job_stat st = fx->nodes->stat[JOB_COMPACT];
    lock_release(&fx->nodes->mu);
    return st;
}

static bool is_waiting(void *arg)
{
    struct job_stat st = compactions();
    return st.nwaiting && st.waiting && strstr(st.waiting, arg);
}

static bool has_failed(void *arg)
{
    (void)arg;
    return compactions().failed > 0;
}

static void compacted_to(uint64_t made)
{
    struct want w = {.chunk = made, .ok = 2};
    wait_until(nobody_holds, &old, "the old chunk to go");
    wait_until(really_held, &w, "two copies of the new one");
    assert_int_equal(shown(0), newest);
    assert_int_equal(shown(CUT), made);
    assert_int_equal(shown(LEN - 1), made);
    fsm_rdlock(fx->mlog.fsm);
    const struct fsm_chunk *c = fsm_chunk_find(fx->mlog.fsm, made);
    assert_int_equal(c->len, LEN - CUT);
    assert_int_equal(c->live, LEN - CUT);
    assert_int_equal(c->session, INCARNATION);
    assert_null(fsm_chunk_find(fx->mlog.fsm, old));
    fsm_unlock(fx->mlog.fsm);
}

static void sparse_chunks_are_compacted(void **state)
{
    (void)state;
    join_all(3);
    assert_int_equal(raise_level(2), 0);
    overwrite("f");
    wait_until(is_waiting, (void *)(uintptr_t) "writer", "the writer to be waited for");
    assert_int_equal(shown(CUT), old);
    give_up();
    compacted_to(MADE);
    uint64_t made = MADE;
    wait_until(all_reported, &made, "reports of the new copies");
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[2], compacts), 0);
    assert_int_equal(compactions().done, 1);
    assert_int_equal(compactions().running, 0);
}

/* Also those of which nobody tells when metad begins to lead. */
static void former_leaders_chunks_are_compacted(void **state)
{
    (void)state;
    join_all(2);
    overwrite("f");
    nodes_rig_close_session(77);
    wait_until(is_waiting, (void *)(uintptr_t) "metad upgrade", "the level to be named");
    nodes_rig_follow();
    assert_int_equal(raise_level(2), 0);
    nodes_rig_lead();
    compacted_to(MADE + 1); /* the former leadership had a number at hand */
}

static void one_that_cannot_spoils_it(void **state)
{
    (void)state;
    join_all(2);
    assert_int_equal(raise_level(2), 0);
    pthread_mutex_lock(&fx->chunkd[1].lock);
    fx->chunkd[1].no_compact = true;
    pthread_mutex_unlock(&fx->chunkd[1].lock);
    overwrite("f");
    give_up();
    uint64_t made = MADE;
    wait_until(has_failed, NULL, "the order to fail");
    wait_until(nobody_holds, &made, "what was made to go");
    assert_int_equal(held_by(old), 2);
    assert_int_equal(shown(CUT), old);
    assert_int_equal(compactions().running, 0);
    fsm_rdlock(fx->mlog.fsm);
    assert_false(fsm_chunk_find(fx->mlog.fsm, old)->soft_flags & SOFT_BUSY);
    fsm_unlock(fx->mlog.fsm);
}

static bool order_is_kept(void *arg)
{
    (void)arg;
    struct nodes_rig_chunkd *k = &fx->chunkd[1];
    pthread_mutex_lock(&k->lock);
    bool yes = k->kept != NULL;
    pthread_mutex_unlock(&k->lock);
    return yes;
}

static void keep_next_order(void)
{
    pthread_mutex_lock(&fx->chunkd[1].lock);
    fx->chunkd[1].hold = true;
    pthread_mutex_unlock(&fx->chunkd[1].lock);
}

/* Answers the order that was kept, as carried out. */
static void answer_kept(void)
{
    Replfs__OrderReply rep = REPLFS__ORDER_REPLY__INIT;
    int code = 0;
    struct nodes_rig_chunkd *k = &fx->chunkd[1];
    pthread_mutex_lock(&k->lock);
    struct rpc_req *req = k->kept;
    k->kept = NULL;
    do_order(k, req->env->order_req, &rep, &code);
    pthread_mutex_unlock(&k->lock);
    assert_int_equal(code, 0);
    RPC_ENVELOPE(env, ORDER_REPLY, order_reply, &rep);
    rpc_reply(req, &env, NULL);
}

/* One chunkd has made its copy, and says so; the other takes its time. */
static void half_made(void)
{
    uint64_t made = MADE;
    keep_next_order();
    overwrite("f");
    give_up();
    wait_until(order_is_kept, NULL, "the order");
    wait_until(is_made, &made, "a copy to be made");
    int64_t now = clock_mono();
    wait_until(judged_again, &now, "strays to be judged");
    now = clock_mono();
    wait_until(judged_again, &now, "strays to be judged");
    assert_int_equal(held_by(made), 1);
    assert_int_equal(shown(CUT), old);
}

static void copies_are_held_until_all_are_made(void **state)
{
    (void)state;
    join_all(2);
    assert_int_equal(raise_level(2), 0);
    half_made();
    answer_kept();
    compacted_to(MADE);
}

static void a_leadership_ends_meanwhile(void **state)
{
    (void)state;
    join_all(2);
    assert_int_equal(raise_level(2), 0);
    half_made();
    nodes_rig_follow();
    nodes_rig_lead();
    answer_kept();
    uint64_t made = MADE;
    wait_until(nobody_holds, &made, "what was made to go");
    assert_int_equal(held_by(old), 2);
    give_up(); /* sessions tell the new leader, too */
    compacted_to(MADE + 1);
}

/* Overwritten and cloned while the copies are made. */
static void changes_meanwhile_stay(void **state)
{
    (void)state;
    uint32_t ids[CHUNKDS];
    uint64_t registrations[CHUNKDS];
    join_all(2);
    assert_int_equal(raise_level(2), 0);
    half_made();
    uint64_t other = make_file("g"), last = fx->next_chunk++;
    Replfs__CloneOp cl = REPLFS__CLONE_OP__INIT;
    cl.src = ino;
    cl.dst = other;
    cl.len = LEN;
    NODES_RIG_OP(op, CLONE, clone, &cl);
    assert_int_equal(nodes_rig_apply(&op, 77, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        ids[i] = fx->chunkd[i].id;
        registrations[i] = fx->chunkd[i].registration;
        nodes_rig_store(&fx->chunkd[i], last, CUT + 4096, 77);
    }
    nodes_granted(fx->nodes, 77, last, ids, 2);
    commit_chunk(ino, last, CUT + 4096, ids, registrations, 2);
    answer_kept();
    /* the clone, which nobody knew of, keeps the old chunk; it is compacted for that one next */
    wait_until(nobody_holds, &old, "the old chunk to go");
    assert_int_equal(shown(CUT), last);
    assert_int_equal(shown(CUT + 4096), MADE);
    ino = other;
    assert_int_equal(shown(CUT), MADE + 1);
    assert_int_equal(shown(LEN - 1), MADE + 1);
}

static uint64_t reached;

static size_t names_copy(void *arg, struct nodes_names *out, size_t max,
                         struct nodes_names_all *all)
{
    (void)arg;
    (void)all;
    assert_true(max > 0);
    out[0] = (struct nodes_names){
        .chunkd = 1, .generation = 1, .reached = __atomic_load_n(&reached, __ATOMIC_ACQUIRE)};
    return 1;
}

static bool is_compacted(void *arg)
{
    (void)arg;
    return compactions().done == 1;
}

/* The copies of the names, from which all may have to be made again, still show the old chunk: it stays. */
static void former_chunk_is_held_for_copies_of_the_names(void **state)
{
    (void)state;
    fx->mlog.index = 1000 << 8;
    reached = 999;
    lock_acquire(&fx->nodes->mu);
    fx->nodes->cfg.names_copies = names_copy;
    lock_release(&fx->nodes->mu);
    join_all(2);
    assert_int_equal(raise_level(2), 0);
    overwrite("f");
    give_up();
    wait_until(is_compacted, NULL, "the chunk to be compacted");
    for (unsigned i = 0; i < 2; i++) {
        int64_t now = clock_mono();
        wait_until(judged_again, &now, "strays to be judged");
    }
    assert_int_equal(held_by(old), 2);
    __atomic_store_n(&reached, fx->mlog.index >> 8, __ATOMIC_RELEASE);
    compacted_to(MADE);
}

#define COMPACT_TEST(f) cmocka_unit_test_setup_teardown(f, setup, nodes_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        COMPACT_TEST(sparse_chunks_are_compacted),
        COMPACT_TEST(former_leaders_chunks_are_compacted),
        COMPACT_TEST(one_that_cannot_spoils_it),
        COMPACT_TEST(copies_are_held_until_all_are_made),
        COMPACT_TEST(a_leadership_ends_meanwhile),
        COMPACT_TEST(changes_meanwhile_stay),
        COMPACT_TEST(former_chunk_is_held_for_copies_of_the_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
