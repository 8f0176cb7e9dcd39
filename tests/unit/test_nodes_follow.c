/* The registry of a metad that does not lead: it takes chunkds in that the state knows, learns from their reports alone
 * where copies are, whatever comes first, report or commit, and orders nothing; and when it leads it knows all that at
 * once, without a full report. */
#include "tests/unit/nodes_rig.h"

/* As another metad's leader had it logged: nobody tells of copies here. */
static void commit_elsewhere(uint64_t ino, uint64_t chunk, uint32_t len)
{
    Replfs__Extent e = REPLFS__EXTENT__INIT, *pe = &e;
    Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
    e.len = len;
    e.chunk = chunk;
    o.ino = ino;
    o.extents = &pe;
    o.n_extents = 1;
    NODES_RIG_OP(op, COMMIT, commit, &o);
    assert_int_equal(nodes_rig_apply(&op, 77, NULL), 0);
}

static uint64_t reports_sent(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < CHUNKDS; i++)
        sum += NODES_RIG_PEEK(&fx->chunkd[i], reports);
    return sum;
}

static uint64_t orders_taken(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < CHUNKDS; i++)
        sum += NODES_RIG_PEEK(&fx->chunkd[i], copies) + NODES_RIG_PEEK(&fx->chunkd[i], deletes) +
               NODES_RIG_PEEK(&fx->chunkd[i], verifies);
    return sum;
}

struct telling {
    uint64_t chunk;
    uint32_t len;
    unsigned n;
};

/* The first n chunkds have told that they have len bytes of the chunk: more than any commit named. */
static bool told(void *arg)
{
    const struct telling *t = arg;
    bool yes = true;
    lock_acquire(&fx->nodes->mu);
    for (unsigned i = 0; i < t->n; i++) {
        const struct node *d = fx->nodes->node[fx->chunkd[i].id];
        uint64_t len = 0, at;
        if (!u64map_get(&d->ahead, t->chunk, &len) && u64map_get(&d->stray_index, t->chunk, &at))
            len = d->strays[at].len;
        yes &= len == t->len;
    }
    lock_release(&fx->nodes->mu);
    return yes;
}

static bool copies_are(uint64_t chunk, unsigned ok)
{
    struct want w = {chunk, ok};
    return has_copies(&w);
}

static void test_warm(void **state)
{
    uint64_t ino, led, chunk = fx->next_chunk++;
    (void)state;
    join_all(3);
    led = make_chunk("led", 2, 2, &ino);
    wait_until(all_reported, &led, "the copies to be reported");
    nodes_rig_follow();
    uint64_t orders = orders_taken(), reports = reports_sent();
    assert_true(copies_are(led, 2));
    ino = make_file("followed");
    set_goal(ino, 2);
    /* reported first, while no commit named it, */
    nodes_rig_store(&fx->chunkd[0], chunk, 4096, 77);
    nodes_rig_store(&fx->chunkd[1], chunk, 4096, 77);
    struct telling t = {chunk, 4096, 2};
    wait_until(told, &t, "strays to be told of");
    commit_elsewhere(ino, chunk, 4096);
    struct want two = {chunk, 2};
    wait_until(has_copies, &two, "strays to be copies");
    /* then more of it, */
    nodes_rig_store(&fx->chunkd[0], chunk, 12288, 77);
    nodes_rig_store(&fx->chunkd[1], chunk, 12288, 77);
    t.len = 12288;
    wait_until(told, &t, "longer copies to be told of");
    commit_elsewhere(ino, chunk, 8192);
    assert_true(copies_are(chunk, 2));
    commit_elsewhere(ino, chunk, 12288);
    assert_true(copies_are(chunk, 2));
    /* then the commit first */
    commit_elsewhere(ino, chunk, 16384);
    assert_false(copies_are(chunk, 2));
    nodes_rig_store(&fx->chunkd[0], chunk, 16384, 77);
    nodes_rig_store(&fx->chunkd[1], chunk, 16384, 77);
    wait_until(has_copies, &two, "copies to have all");
    assert_int_equal(orders_taken(), orders);
    nodes_rig_lead();
    wait_up(3);
    assert_true(copies_are(chunk, 2) && copies_are(led, 2));
    assert_int_equal(reports_sent(), reports);
    assert_int_equal(orders_taken(), orders);
}

/* All of them are looked at when leading begins, wherever the last look at some of them ended. */
static void test_strays_at_gain(void **state)
{
    uint64_t first = fx->next_chunk++, second = fx->next_chunk++, ino;
    (void)state;
    join_all(3);
    ino = make_file("both");
    set_goal(ino, 2);
    nodes_rig_follow();
    for (unsigned i = 0; i < 2; i++) {
        nodes_rig_store(&fx->chunkd[i], first, 4096, 77);
        nodes_rig_store(&fx->chunkd[i], second, 4096, 77);
    }
    struct telling a = {first, 4096, 2}, b = {second, 4096, 2};
    wait_until(told, &a, "strays to be told of");
    wait_until(told, &b, "strays to be told of");
    int64_t now = clock_mono();
    wait_until(judged_again, &now, "strays to be looked at");
    commit_elsewhere(ino, first, 4096);
    lock_acquire(&fx->nodes->mu);
    for (unsigned i = 0; i < 2; i++) /* as after a slice that ended behind the first one */
        fx->nodes->node[fx->chunkd[i].id]->judge_pos = 1;
    lock_release(&fx->nodes->mu);
    nodes_rig_lead();
    assert_true(copies_are(first, 2));
}

/* A chunkd that fell behind is not taken for one that has all. */
static void test_shorter_copy(void **state)
{
    uint64_t chunk = fx->next_chunk++;
    (void)state;
    join_all(3);
    nodes_rig_follow();
    uint64_t ino = make_file("short");
    set_goal(ino, 2);
    nodes_rig_store(&fx->chunkd[0], chunk, 8192, 77);
    nodes_rig_store(&fx->chunkd[1], chunk, 4096, 77);
    struct telling t = {chunk, 8192, 1};
    wait_until(told, &t, "a stray to be told of");
    commit_elsewhere(ino, chunk, 4096);
    commit_elsewhere(ino, chunk, 8192);
    nodes_rig_lead();
    struct want two = {chunk, 2};
    wait_until(really_held, &two, "the short copy to be replaced");
}

/* Garbage is found, and deleted by who leads. */
static void test_orders_nothing(void **state)
{
    uint64_t chunk = fx->next_chunk++;
    (void)state;
    join_all(3);
    nodes_rig_follow();
    uint64_t orders = orders_taken();
    nodes_rig_store(&fx->chunkd[0], chunk, 8192, 77);
    struct telling t = {chunk, 8192, 1};
    wait_until(told, &t, "a stray to be told of");
    nodes_rig_close_session(77);
    int64_t now = clock_mono();
    wait_until(judged_again, &now, "strays to be looked at");
    nodes_rig_leave(&fx->chunkd[2]);
    assert_int_equal(orders_taken(), orders);
    nodes_rig_lead();
    wait_until(nobody_holds, &chunk, "garbage to be deleted");
}

/* Members are taken in without the log; who is none has to ask the leader. */
static void test_registers(void **state)
{
    char detail[256] = "";
    (void)state;
    join_all(2);
    nodes_rig_follow();
    uint64_t index = fx->mlog.index;
    nodes_rig_leave(&fx->chunkd[0]);
    nodes_rig_join(&fx->chunkd[0], NODES_RIG_UUID);
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[2]);
    assert_int_equal(do_register(&fx->chunkd[2], "", 0, c, detail), -ERR_NOT_LEADER);
    assert_int_equal(do_register(&fx->chunkd[2], NODES_RIG_UUID, 9, c, detail), -ERR_NOT_LEADER);
    rpc_conn_close(c);
    rpc_conn_unref(c);
    assert_int_equal(fx->mlog.index, index);
    nodes_rig_lead();
    wait_up(2);
}

/* Another state, which knows no copies: they are reported again. */
static void test_restored(void **state)
{
    uint64_t ino;
    (void)state;
    join_all(3);
    uint64_t chunk = make_chunk("restored", 2, 2, &ino);
    wait_until(all_reported, &chunk, "the copies to be reported");
    nodes_rig_follow();
    uint64_t orders = orders_taken();
    fsm_wrlock(fx->mlog.fsm);
    for (unsigned i = 0; i < 2; i++)
        fsm_chunk_loc_del(fsm_chunk_find(fx->mlog.fsm, chunk), fx->chunkd[i].id);
    fsm_unlock(fx->mlog.fsm);
    nodes_restored(fx->nodes);
    struct want two = {chunk, 2};
    wait_until(has_copies, &two, "the copies to be reported again");
    nodes_rig_lead();
    wait_up(3);
    assert_true(has_copies(&two));
    assert_int_equal(orders_taken(), orders);
}

static bool order_kept(void *arg)
{
    struct nodes_rig_chunkd *k = arg;
    pthread_mutex_lock(&k->lock);
    bool yes = k->kept != NULL;
    pthread_mutex_unlock(&k->lock);
    return yes;
}

static bool either_kept(void *arg)
{
    struct nodes_rig_chunkd **k = arg;
    return order_kept(k[0]) || order_kept(k[1]);
}

/* An order of a former leadership is answered: what it said is not believed, and the chunk is free for others. */
static void test_late_answer(void **state)
{
    struct nodes_rig_chunkd *k = &fx->chunkd[2];
    Replfs__OrderReply rep = REPLFS__ORDER_REPLY__INIT;
    uint64_t ino;
    (void)state;
    join_all(3);
    pthread_mutex_lock(&k->lock);
    k->hold = true;
    pthread_mutex_unlock(&k->lock);
    uint64_t chunk = make_chunk("late", 3, 2, &ino);
    wait_until(order_kept, k, "a copy to be ordered");
    assert_int_equal(k->kept->env->order_req->term, 1);
    nodes_rig_follow();
    nodes_rig_lead();
    wait_up(3);
    assert_int_equal(held_by(chunk), 2);
    rep.bytes = 8192; /* which is not so */
    RPC_ENVELOPE(env, ORDER_REPLY, order_reply, &rep);
    rpc_reply(k->kept, &env, NULL);
    struct want three = {chunk, 3};
    wait_until(really_held, &three, "the copy to be made");
}

static bool all_answered(void *arg)
{
    (void)arg;
    lock_acquire(&fx->nodes->done_lock);
    bool yes = fx->nodes->outstanding == 0;
    lock_release(&fx->nodes->done_lock);
    return yes;
}

/* The answer comes when the leadership is lost already, and the role thread has not said so yet: the next copy of the
 * chunk is not ordered any more. */
static void test_answer_at_the_loss(void **state)
{
    struct nodes_rig_chunkd *k[] = {&fx->chunkd[1], &fx->chunkd[2]};
    Replfs__OrderReply rep = REPLFS__ORDER_REPLY__INIT;
    uint64_t ino;
    (void)state;
    join_all(3);
    for (unsigned i = 0; i < 2; i++) {
        pthread_mutex_lock(&k[i]->lock);
        k[i]->hold = true;
        pthread_mutex_unlock(&k[i]->lock);
    }
    uint64_t chunk = make_chunk("lost", 3, 1, &ino);
    wait_until(either_kept, k, "a copy to be ordered");
    struct nodes_rig_chunkd *first = order_kept(k[0]) ? k[0] : k[1];
    struct nodes_rig_chunkd *other = first == k[0] ? k[1] : k[0];
    gate_shut(&fx->gate);
    assert_true(gate_drain(&fx->gate, 30000));
    rep.bytes = 8192;
    nodes_rig_store(first, chunk, 8192, 77);
    RPC_ENVELOPE(env, ORDER_REPLY, order_reply, &rep);
    rpc_reply(first->kept, &env, NULL);
    wait_until(all_answered, NULL, "the answer to be taken");
    nodes_follow(fx->nodes);
    assert_false(order_kept(other));
    pthread_mutex_lock(&other->lock);
    other->hold = false;
    pthread_mutex_unlock(&other->lock);
    nodes_rig_lead();
    wait_up(3);
    struct want three = {chunk, 3};
    wait_until(really_held, &three, "the third copy to be made");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_warm, nodes_rig_setup, nodes_rig_teardown),
        cmocka_unit_test_setup_teardown(test_strays_at_gain, nodes_rig_setup, nodes_rig_teardown),
        cmocka_unit_test_setup_teardown(test_shorter_copy, nodes_rig_setup, nodes_rig_teardown),
        cmocka_unit_test_setup_teardown(test_orders_nothing, nodes_rig_setup, nodes_rig_teardown),
        cmocka_unit_test_setup_teardown(test_registers, nodes_rig_setup, nodes_rig_teardown),
        cmocka_unit_test_setup_teardown(test_restored, nodes_rig_setup, nodes_rig_teardown),
        cmocka_unit_test_setup_teardown(test_late_answer, nodes_rig_setup, nodes_rig_teardown),
        cmocka_unit_test_setup_teardown(test_answer_at_the_loss, nodes_rig_setup,
                                        nodes_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
