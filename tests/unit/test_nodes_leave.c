/* Drains, limits of disks, pauses and announced stops: what the registry and its driver make of the decisions in the state.
 * Chunkds are scripted (nodes_rig.h). */
#include "nodes_rig.h"

#define WHAT(name) REPLFS__CHUNKD_SET_OP__WHAT__##name

static int set(Replfs__ChunkdSetReq *r)
{
    struct rpc_result res;
    RPC_ENVELOPE(env, CHUNKD_SET_REQ, chunkd_set_req, r);
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[3]);
    int rc = rpc_call_wait(c, &env, NULL, 5000, &res);
    rpc_result_free(&res);
    rpc_conn_unref(c);
    return rc;
}

static int drain(unsigned i, bool on)
{
    Replfs__ChunkdSetReq r = REPLFS__CHUNKD_SET_REQ__INIT;
    r.chunkd = fx->chunkd[i].id;
    r.what = WHAT(DRAINING);
    r.draining = on;
    return set(&r);
}

static int rest(unsigned i, uint64_t ms)
{
    Replfs__ChunkdSetReq r = REPLFS__CHUNKD_SET_REQ__INIT;
    r.chunkd = fx->chunkd[i].id;
    r.what = WHAT(PAUSE);
    r.pause_ms = ms;
    return set(&r);
}

static int capacity(unsigned i, uint64_t bytes, bool none, bool now)
{
    Replfs__ChunkdSetReq r = REPLFS__CHUNKD_SET_REQ__INIT;
    Replfs__DiskLimit l = REPLFS__DISK_LIMIT__INIT, *list[] = {&l};
    r.chunkd = fx->chunkd[i].id;
    r.what = WHAT(LIMITS);
    r.limits = list;
    r.n_limits = 1;
    l.disk = 0;
    l.bytes = bytes;
    l.none = none;
    l.now = now;
    return set(&r);
}

static int reclaim(unsigned i, unsigned percent, bool now)
{
    Replfs__ChunkdSetReq r = REPLFS__CHUNKD_SET_REQ__INIT;
    r.chunkd = fx->chunkd[i].id;
    r.what = WHAT(LIMITS);
    r.reclaim_percent = percent;
    r.now = now;
    return set(&r);
}

static int removal(uint32_t id)
{
    Replfs__ChunkdRemoveReq r = REPLFS__CHUNKD_REMOVE_REQ__INIT;
    struct rpc_result res;
    r.chunkd = id;
    RPC_ENVELOPE(env, CHUNKD_REMOVE_REQ, chunkd_remove_req, &r);
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[3]);
    int rc = rpc_call_wait(c, &env, NULL, 5000, &res);
    rpc_result_free(&res);
    rpc_conn_unref(c);
    return rc;
}

/* The chunkd's part of StatusReply; waiting: 256 bytes, or NULL. */
static Replfs__ChunkdStatus status_of(unsigned i, char *waiting)
{
    struct rpc_result res;
    Replfs__StatusReply *s = nodes_rig_status(&res);
    Replfs__ChunkdStatus found = REPLFS__CHUNKD_STATUS__INIT;
    for (size_t k = 0; k < s->n_chunkds; k++) {
        if (s->chunkds[k]->chunkd != fx->chunkd[i].id)
            continue;
        found = *s->chunkds[k];
        if (waiting)
            snprintf(waiting, 256, "%s", found.leave_waiting);
    }
    rpc_result_free(&res);
    return found; /* scalars only */
}

static bool is_removable(void *arg)
{
    return status_of(*(unsigned *)arg, NULL).removable;
}

static bool said_why(unsigned i, const char *why)
{
    char text[256] = "";
    status_of(i, text);
    return strstr(text, why) != NULL;
}

static bool is_state(unsigned i, Replfs__NodeState state)
{
    lock_acquire(&fx->nodes->mu);
    bool is = nodes_find(fx->nodes, fx->chunkd[i].id)->state == state;
    lock_release(&fx->nodes->mu);
    return is;
}

/* ---- drains ---- */

static void drained_chunkd_is_emptied_and_removed(void **state)
{
    (void)state;
    uint64_t ino;
    unsigned first = 0;
    join_all(4);
    struct want w[6];
    for (unsigned i = 0; i < 6; i++) {
        char name[8];
        snprintf(name, sizeof name, "f%u", i);
        w[i] = (struct want){make_chunk(name, 2, 2, &ino), 2};
        wait_until(really_held, &w[i], "the copies");
    }
    assert_int_equal(removal(fx->chunkd[0].id), -EBUSY);
    assert_int_equal(drain(0, true), 0);
    uint32_t out[4];
    for (unsigned i = 0; i < 50; i++) /* at once: the reply comes after it */
        for (unsigned n = nodes_place(fx->nodes, 4, NULL, 0, out); n > 0; n--)
            assert_int_not_equal(out[n - 1], fx->chunkd[0].id);
    wait_until(is_removable, &first, "the drain");
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[0], nheld), 0);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(held_by(w[i].chunk), 2);
        assert_true(has_copies(&w[i]));
    }
    Replfs__ChunkdStatus s = status_of(0, NULL);
    assert_int_equal(s.state, REPLFS__NODE_STATE__NODE_DRAINING);
    assert_true(s.draining && !s.leave_chunks && !s.leave_bytes);
    assert_false(has_problem("drain-waits", 1));
    uint32_t id = fx->chunkd[0].id;
    assert_int_equal(removal(id), 0); /* connected as it is */
    WAIT_UNTIL(status_of(0, NULL).chunkd == 0);
    char detail[256] = "";
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[0]);
    assert_int_equal(do_register(&fx->chunkd[0], NODES_RIG_UUID, id, c, detail),
                     -ERR_NOT_REGISTERED);
    assert_non_null(strstr(detail, "was removed"));
    rpc_conn_unref(c);
}

/* No copy goes before those that stay were read: one that rotted is no reason to drop a good one. */
static void rotten_copy_justifies_no_drop(void **state)
{
    (void)state;
    uint64_t ino;
    unsigned first = 0;
    join_all(3);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "the copies");
    pthread_mutex_lock(&fx->chunkd[1].lock);
    find_held(&fx->chunkd[1], w.chunk)->damaged = true;
    pthread_mutex_unlock(&fx->chunkd[1].lock);
    assert_int_equal(drain(0, true), 0);
    wait_until(is_removable, &first, "the drain");
    wait_until(really_held, &w, "two copies");
    for (unsigned i = 1; i < 3; i++) {
        pthread_mutex_lock(&fx->chunkd[i].lock);
        struct nodes_rig_held *h = find_held(&fx->chunkd[i], w.chunk);
        assert_true(h && !h->damaged);
        pthread_mutex_unlock(&fx->chunkd[i].lock);
    }
}

static void drain_says_why_it_waits_and_is_taken_back(void **state)
{
    (void)state;
    uint64_t ino;
    unsigned first = 0;
    join_all(3);
    struct want w = {make_chunk("a", 3, 3, &ino), 3};
    wait_until(really_held, &w, "the copies");
    assert_int_equal(drain(0, true), 0);
    WAIT_UNTIL(said_why(0, "goal 3 needs 3 hosts, 2 are left"));
    assert_true(has_problem("drain-waits", 1));
    assert_false(has_problem("chunks-below-goal", 1));
    assert_false(is_removable(&first));
    assert_int_equal(removal(fx->chunkd[0].id), -EBUSY);
    Replfs__ChunkdStatus s = status_of(0, NULL);
    assert_int_equal(s.leave_chunks, 1);
    assert_int_equal(s.leave_bytes, 8192);
    assert_int_equal(held_by(w.chunk), 3);
    assert_int_equal(drain(0, false), 0);
    WAIT_UNTIL(!status_of(0, NULL).draining && !has_problem("drain-waits", 1));
    assert_true(really_held(&w));
    assert_int_equal(drain(0, true), 0);
    nodes_rig_join(&fx->chunkd[3], ""); /* a host more: it goes on */
    wait_until(is_removable, &first, "the drain");
    wait_until(really_held, &w, "three copies");
}

/* Who leads next goes by it, and a chunkd that does not say that it refuses bytes is never known to be empty. */
static void drain_outlives_the_leader(void **state)
{
    (void)state;
    uint64_t ino;
    unsigned first = 0;
    fx->chunkd[0].old = true;
    join_all(3);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "the copies");
    pthread_mutex_lock(&fx->chunkd[2].lock);
    fx->chunkd[2].refuse = true;
    pthread_mutex_unlock(&fx->chunkd[2].lock);
    assert_int_equal(drain(0, true), 0);
    nodes_rig_follow();
    lock_acquire(&fx->nodes->mu);
    nodes_find(fx->nodes, fx->chunkd[0].id)->draining = false; /* as if another process led */
    fx->nodes->decisions++;
    lock_release(&fx->nodes->mu);
    nodes_rig_lead();
    pthread_mutex_lock(&fx->chunkd[2].lock);
    fx->chunkd[2].refuse = false;
    pthread_mutex_unlock(&fx->chunkd[2].lock);
    wait_up(3);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[0], nheld) == 0);
    WAIT_UNTIL(said_why(0, "it has not said yet that it takes no more bytes"));
    assert_false(is_removable(&first));
    assert_int_equal(removal(fx->chunkd[0].id), -EBUSY);
    pthread_mutex_lock(&fx->chunkd[0].lock);
    fx->chunkd[0].old = false;
    pthread_mutex_unlock(&fx->chunkd[0].lock);
    wait_until(is_removable, &first, "the chunkd's word");
}

/* ---- limits ---- */

static void make_chunks(struct want *w, unsigned n, unsigned goal)
{
    uint64_t ino;
    for (unsigned i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "g%u-%u", goal, i);
        w[i] = (struct want){make_chunk(name, goal, goal, &ino), goal};
        wait_until(really_held, &w[i], "the copies");
    }
}

static uint64_t bytes_of(unsigned i)
{
    uint64_t sum = 0;
    pthread_mutex_lock(&fx->chunkd[i].lock);
    for (unsigned k = 0; k < fx->chunkd[i].nheld; k++)
        sum += fx->chunkd[i].held[k].len;
    pthread_mutex_unlock(&fx->chunkd[i].lock);
    return sum;
}

static bool at_rest(unsigned i)
{
    Replfs__ChunkdStatus s = status_of(i, NULL);
    return !s.leave_bytes && !s.leave_chunks;
}

static void lowered_capacity_moves_copies(void **state)
{
    (void)state;
    struct want w[20];
    for (unsigned i = 0; i < 4; i++)
        fx->chunkd[i].tells_used = true;
    join_all(4);
    make_chunks(w, 20, 2);
    assert_int_equal(bytes_of(0), 20 * 8192);
    assert_int_equal(capacity(0, 5 * 8192 + 100, false, false), 0);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[0], limit) == 5 * 8192 + 100);
    WAIT_UNTIL(bytes_of(0) <= 5 * 8192);
    WAIT_UNTIL(at_rest(0));
    for (unsigned i = 0; i < 20; i++)
        wait_until(really_held, &w[i], "two copies of each");
    assert_true(bytes_of(0) >= 2 * 8192); /* not much more than was asked for */
    assert_int_equal(capacity(0, 0, true, false), 0);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[0], limit) == 0);
}

/* Nowhere else: without --now both copies stay, and it says so; with it one goes, never the last. */
static void reclaim_keeps_what_is_needed(void **state)
{
    (void)state;
    struct want w[10];
    for (unsigned i = 0; i < 2; i++)
        fx->chunkd[i].tells_used = true;
    join_all(2);
    make_chunks(w, 9, 2);
    make_chunks(w + 9, 1, 1); /* only on the first */
    assert_int_equal(reclaim(0, 100, false), 0);
    WAIT_UNTIL(has_problem("reclaim-waits", 1));
    WAIT_UNTIL(bytes_of(0) == 9 * 8192); /* that one has a place elsewhere */
    assert_int_equal(reclaim(0, 100, true), 0);
    WAIT_UNTIL(bytes_of(0) <= 8192 && NODES_RIG_PEEK(&fx->chunkd[0], nheld) == 0);
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(held_by(w[i].chunk), 1);
    assert_int_equal(held_by(w[9].chunk), 1); /* it was copied before */
    assert_true(has_problem("chunks-below-goal", 1));
}

/* The owner needs the space: less than the reserve is free. Surplus copies go first, and alone when they are enough. */
static void short_disk_sheds(void **state)
{
    (void)state;
    struct want w[10];
    for (unsigned i = 0; i < 3; i++)
        fx->chunkd[i].tells_used = true;
    join_all(3);
    make_chunks(w, 10, 2);
    pthread_mutex_lock(&fx->chunkd[0].lock);
    fx->chunkd[0].shortage = 3 * 8192;
    pthread_mutex_unlock(&fx->chunkd[0].lock);
    WAIT_UNTIL(bytes_of(0) <= 7 * 8192);
    pthread_mutex_lock(&fx->chunkd[0].lock);
    fx->chunkd[0].shortage = 0;
    pthread_mutex_unlock(&fx->chunkd[0].lock);
    for (unsigned i = 0; i < 10; i++)
        wait_until(really_held, &w[i], "two copies of each");
}

/* ---- pauses ---- */

static void paused_chunkd_is_waited_for(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(4);
    struct want three = {make_chunk("a", 3, 3, &ino), 3};
    wait_until(really_held, &three, "the copies");
    assert_int_equal(rest(2, 3600 * 1000), 0);
    uint32_t out[4];
    for (unsigned i = 0; i < 50; i++)
        for (unsigned n = nodes_place(fx->nodes, 4, NULL, 0, out); n > 0; n--)
            assert_int_not_equal(out[n - 1], fx->chunkd[2].id);
    nodes_rig_leave(&fx->chunkd[2]);
    WAIT_UNTIL(status_of(2, NULL).last_seen_ms > 1200); /* twice the time of death */
    assert_true(is_state(2, REPLFS__NODE_STATE__NODE_SUSPECT));
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[3], copies), 0);
    assert_false(has_problem("chunkd-suspect", 1));
    assert_false(has_problem("hosts-below-goal", 1));
    assert_true(status_of(2, NULL).paused_s > 3000);
    /* another one goes without a word: one copy is awake */
    nodes_rig_leave(&fx->chunkd[1]);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[3], copies) == 1);
    nodes_rig_join(&fx->chunkd[1], NODES_RIG_UUID);
    nodes_rig_join(&fx->chunkd[2], NODES_RIG_UUID);
    assert_int_equal(rest(2, 0), 0);
    wait_until(really_held, &three, "three copies");
}

static void too_few_awake_copies_are_copied(void **state)
{
    (void)state;
    uint64_t ino;
    join_all(3);
    struct want two = {make_chunk("a", 2, 2, &ino), 3};
    two.ok = 2;
    wait_until(really_held, &two, "the copies");
    assert_int_equal(rest(0, 3600 * 1000), 0); /* one would be left awake */
    two.ok = 3;
    wait_until(really_held, &two, "a copy more, before it goes");
    nodes_rig_leave(&fx->chunkd[0]);
    assert_int_equal(rest(0, 1), 0); /* the pause ends, and it is away */
    WAIT_UNTIL(is_state(0, REPLFS__NODE_STATE__NODE_DEAD));
    assert_true(has_problem("chunkd-dead", 1));
}

/* The state says how long it is to be away; a metad that starts later counts what is left. */
static void pause_goes_on_after_a_start(void **state)
{
    (void)state;
    join_all(2);
    assert_int_equal(rest(0, 3600 * 1000), 0);
    lock_acquire(&fx->nodes->mu);
    struct node *d = nodes_find(fx->nodes, fx->chunkd[0].id);
    d->known = false;
    d->pause_ms = 0;
    d->pause_end = 0;
    fx->nodes->decisions--;
    lock_release(&fx->nodes->mu);
    WAIT_UNTIL(status_of(0, NULL).paused_s > 3500);
    assert_true(status_of(0, NULL).paused_s <= 3601);
}

static void announced_stop_is_no_alarm(void **state)
{
    (void)state;
    join_all(2);
    pthread_mutex_lock(&fx->chunkd[1].lock);
    fx->chunkd[1].stopping = true;
    pthread_mutex_unlock(&fx->chunkd[1].lock);
    nodes_rig_beat(&fx->chunkd[1]);
    nodes_rig_leave(&fx->chunkd[1]);
    WAIT_UNTIL(!is_state(1, REPLFS__NODE_STATE__NODE_UP));
    assert_true(is_state(1, REPLFS__NODE_STATE__NODE_DEAD) || !has_problem("chunkd-suspect", 1));
    WAIT_UNTIL(has_problem("chunkd-dead", 1)); /* not for ever */
}

/* ---- refusals ---- */

static void wrong_decisions_are_refused(void **state)
{
    (void)state;
    join_all(1);
    Replfs__ChunkdSetReq r = REPLFS__CHUNKD_SET_REQ__INIT;
    r.chunkd = 99;
    r.what = WHAT(DRAINING);
    assert_int_equal(set(&r), -EINVAL);
    r.chunkd = fx->chunkd[0].id;
    r.what = 0;
    assert_int_equal(set(&r), -EINVAL);
    assert_int_equal(reclaim(0, 101, false), -EINVAL);
    assert_int_equal(rest(0, FSM_PAUSE_MAX_MS + 1), -EINVAL);
    Replfs__DiskLimit l = REPLFS__DISK_LIMIT__INIT, *list[] = {&l};
    r.what = WHAT(LIMITS);
    r.limits = list;
    r.n_limits = 1;
    l.disk = 5; /* it has none */
    assert_int_equal(set(&r), -EINVAL);
}

static void below_its_level_it_says_how_to_raise_it(void **state)
{
    (void)state;
    join_all(1);
    assert_int_equal(drain(0, true), -ERR_VERSION);
}

int main(void)
{
#define LEAVE_TEST(fn)                                                                             \
    cmocka_unit_test_setup_teardown(fn, nodes_rig_setup_newest, nodes_rig_teardown)
    const struct CMUnitTest tests[] = {
        LEAVE_TEST(drained_chunkd_is_emptied_and_removed),
        LEAVE_TEST(rotten_copy_justifies_no_drop),
        LEAVE_TEST(drain_says_why_it_waits_and_is_taken_back),
        LEAVE_TEST(drain_outlives_the_leader),
        LEAVE_TEST(lowered_capacity_moves_copies),
        LEAVE_TEST(reclaim_keeps_what_is_needed),
        LEAVE_TEST(short_disk_sheds),
        LEAVE_TEST(paused_chunkd_is_waited_for),
        LEAVE_TEST(too_few_awake_copies_are_copied),
        LEAVE_TEST(pause_goes_on_after_a_start),
        LEAVE_TEST(announced_stop_is_no_alarm),
        LEAVE_TEST(wrong_decisions_are_refused),
        cmocka_unit_test_setup_teardown(below_its_level_it_says_how_to_raise_it, nodes_rig_setup,
                                        nodes_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
