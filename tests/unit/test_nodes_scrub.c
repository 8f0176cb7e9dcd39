/* What metad makes of chunkds' scrub: copies that it found are verified and healed, commands are passed on, what no copy
 * has is listed, and health tells of a scrub that is late. */
#include "nodes_rig.h"

static void tell_bad(struct nodes_rig_chunkd *k, uint64_t chunk, uint64_t session, uint32_t off)
{
    pthread_mutex_lock(&k->lock);
    replfs__bad_copy__init(&k->bad);
    k->bad.chunk = chunk;
    k->bad.session = session;
    k->bad.off = off;
    pthread_mutex_unlock(&k->lock);
}

static void found_by_the_scrub_is_healed(void **state)
{
    (void)state;
    uint64_t ino;
    struct nodes_rig_chunkd *k = &fx->chunkd[1];
    join_all(3);
    struct want w = {make_chunk("a", 3, 3, &ino), 3};
    wait_until(really_held, &w, "three");
    pthread_mutex_lock(&k->lock);
    find_held(k, w.chunk)->damaged = true;
    pthread_mutex_unlock(&k->lock);
    tell_bad(k, w.chunk, 78, 0); /* another's chunk of that number: none of ours */
    uint64_t seq = NODES_RIG_PEEK(k, seq);
    WAIT_UNTIL(NODES_RIG_PEEK(k, seq) > seq + 5);
    tell_bad(k, w.chunk, 77, 8192); /* behind all that anybody needs */
    seq = NODES_RIG_PEEK(k, seq);
    WAIT_UNTIL(NODES_RIG_PEEK(k, seq) > seq + 5);
    assert_int_equal(NODES_RIG_PEEK(k, verifies), 0);
    tell_bad(k, w.chunk, 77, 4096);
    WAIT_UNTIL(NODES_RIG_PEEK(k, copies) > 0);
    tell_bad(k, 0, 0, 0);
    assert_int_equal(NODES_RIG_PEEK(k, copies), 1);
    wait_until(really_held, &w, "three good ones");
    pthread_mutex_lock(&k->lock);
    assert_false(find_held(k, w.chunk)->damaged);
    pthread_mutex_unlock(&k->lock);
}

/* A chunkd that speaks of its copies without end has them read, and nothing else. */
static void a_scrub_that_is_wrong_does_no_harm(void **state)
{
    (void)state;
    uint64_t ino;
    struct nodes_rig_chunkd *k = &fx->chunkd[0];
    join_all(2);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both");
    tell_bad(k, w.chunk, 77, 0);
    WAIT_UNTIL(NODES_RIG_PEEK(k, verifies) > 3);
    tell_bad(k, 0, 0, 0);
    assert_int_equal(NODES_RIG_PEEK(k, copies), 0);
    assert_int_equal(NODES_RIG_PEEK(k, deletes), 0);
    wait_until(has_copies, &w, "both to count");
}

/* Two copies on one computer, and a second computer comes: the copy made there is read back before one of the others is
 * dropped for it. That it was written says nothing. */
static void a_moved_copy_is_read_before_another_goes(void **state)
{
    (void)state;
    uint64_t ino;
    snprintf(fx->chunkd[1].host, sizeof fx->chunkd[1].host, "%s", fx->chunkd[0].host);
    join_all(2);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both");
    wait_until(all_reported, &w.chunk, "both to be reported");
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[2], verifies), 0);
    nodes_rig_join(&fx->chunkd[2], NODES_RIG_UUID);
    wait_up(3);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[2], copies) == 1);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[0], deletes) + NODES_RIG_PEEK(&fx->chunkd[1], deletes) ==
               1);
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[2], verifies), 1);
    wait_until(really_held, &w, "two");
}

/* ---- commands ---- */

static Replfs__ScrubReply *scrub(uint32_t *chunkds, size_t n, struct rpc_result *res)
{
    Replfs__ScrubReq r = REPLFS__SCRUB_REQ__INIT;
    RPC_ENVELOPE(env, SCRUB_REQ, scrub_req, &r);
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[0]);
    r.what = REPLFS__SCRUB_WHAT__SCRUB_PAUSE;
    r.chunkd = chunkds;
    r.n_chunkd = n;
    assert_int_equal(rpc_call_wait(c, &env, NULL, 5000, res), 0);
    rpc_conn_unref(c);
    return res->rep->scrub_reply;
}

static void commands_reach_those_that_are_meant(void **state)
{
    (void)state;
    struct rpc_result res;
    uint32_t two[] = {2, 99};
    join_all(3);
    pthread_mutex_lock(&fx->chunkd[2].lock);
    fx->chunkd[2].no_scrub = true;
    pthread_mutex_unlock(&fx->chunkd[2].lock);
    nodes_rig_leave(&fx->chunkd[0]);
    Replfs__ScrubReply *r = scrub(NULL, 0, &res);
    assert_int_equal(r->n_answers, 3);
    assert_int_equal(r->answers[0]->code, ERR_PEER_GONE);
    assert_int_equal(r->answers[1]->code, 0);
    assert_int_equal(r->answers[2]->code, ERR_PROTOCOL);
    assert_string_equal(r->answers[2]->detail, "scripted");
    assert_string_equal(r->answers[1]->host_name, "host-1");
    rpc_result_free(&res);
    r = scrub(two, 2, &res);
    assert_int_equal(r->n_answers, 2);
    assert_int_equal(r->answers[0]->chunkd, 2);
    assert_int_equal(r->answers[0]->code, 0);
    assert_int_equal(r->answers[1]->chunkd, 99); /* there is none */
    assert_int_equal(r->answers[1]->code, ENOENT);
    assert_non_null(strstr(r->answers[1]->detail, "no such chunkd"));
    rpc_result_free(&res);
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[1], scrubs), 2);
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[2], scrubs), 1);
    two[0] = 99;
    r = scrub(two, 1, &res);
    assert_int_equal(r->n_answers, 1);
    assert_int_equal(r->answers[0]->code, ENOENT);
    rpc_result_free(&res);
}

/* ---- damaged ---- */

/* The only range; false: there is none. */
static bool damaged(Replfs__DamagedRange *out)
{
    Replfs__DamagedReq r = REPLFS__DAMAGED_REQ__INIT;
    RPC_ENVELOPE(env, DAMAGED_REQ, damaged_req, &r);
    struct rpc_result res;
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[0]);
    assert_int_equal(rpc_call_wait(c, &env, NULL, 5000, &res), 0);
    assert_false(res.rep->damaged_reply->more);
    size_t n = res.rep->damaged_reply->n_ranges;
    assert_true(n <= 1);
    if (n)
        *out = *res.rep->damaged_reply->ranges[0];
    rpc_result_free(&res);
    rpc_conn_unref(c);
    return n == 1;
}

static void cut(unsigned n, uint64_t chunk, uint32_t len)
{
    for (unsigned i = 0; i < n; i++)
        nodes_rig_leave(&fx->chunkd[i]);
    for (unsigned i = 0; i < n; i++) {
        pthread_mutex_lock(&fx->chunkd[i].lock);
        if (len)
            find_held(&fx->chunkd[i], chunk)->len = len;
        else
            find_held(&fx->chunkd[i], chunk)->damaged = fx->chunkd[i].bad_sources = true;
        pthread_mutex_unlock(&fx->chunkd[i].lock);
    }
    for (unsigned i = 0; i < n; i++)
        nodes_rig_join(&fx->chunkd[i], NODES_RIG_UUID);
}

static void what_no_copy_has_is_listed(void **state)
{
    (void)state;
    uint64_t ino, other;
    Replfs__DamagedRange d;
    join_all(2);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both");
    w.chunk = make_chunk("b", 2, 2, &other);
    wait_until(really_held, &w, "both of another");
    wait_until(all_reported, &w.chunk, "both to be reported");
    assert_false(damaged(&d));
    cut(2, w.chunk, 5000);
    WAIT_UNTIL(damaged(&d));
    assert_int_equal(d.ino, other);
    assert_int_equal(d.chunk, w.chunk);
    assert_int_equal(d.off, 5000);
    assert_int_equal(d.len, 3192);
    assert_false(d.whole);
    truncate_file(other, 6000);
    WAIT_UNTIL(damaged(&d) && d.len == 1000);
    truncate_file(other, 5000);
    WAIT_UNTIL(!damaged(&d));
}

/* Every copy is bad from its first block on: nothing is left, and nothing is dropped. */
static void a_chunk_without_any_good_copy_is_listed_and_kept(void **state)
{
    (void)state;
    uint64_t ino;
    Replfs__DamagedRange d;
    join_all(2);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "both");
    wait_until(all_reported, &w.chunk, "both to be reported");
    cut(2, w.chunk, 0);
    tell_bad(&fx->chunkd[0], w.chunk, 77, 0);
    tell_bad(&fx->chunkd[1], w.chunk, 77, 0);
    WAIT_UNTIL(damaged(&d));
    assert_int_equal(d.ino, ino);
    assert_int_equal(d.off, 0);
    assert_int_equal(d.len, 8192);
    assert_true(d.whole);
    assert_true(has_problem("chunks-lost", 2));
    uint64_t seq = NODES_RIG_PEEK(&fx->chunkd[0], seq);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[0], seq) > seq + 20);
    assert_int_equal(held_by(w.chunk), 2);
    assert_int_equal(NODES_RIG_PEEK(&fx->chunkd[0], deletes), 0);
    truncate_file(ino, 0);
    WAIT_UNTIL(!damaged(&d));
}

/* ---- health ---- */

static void tell_scrub(Replfs__ScrubState st, uint64_t age_s, uint64_t since_s, uint64_t paused_s)
{
    struct nodes_rig_chunkd *k = &fx->chunkd[0];
    pthread_mutex_lock(&k->lock);
    replfs__scrub_stat__init(&k->scrub);
    k->scrub.state = st;
    k->scrub.age_s = age_s;
    k->scrub.since_s = since_s;
    k->scrub.paused_s = paused_s;
    pthread_mutex_unlock(&k->lock);
}

static void health_tells_of_a_late_scrub(void **state)
{
    (void)state;
    const uint64_t day = 24 * 3600;
    join_all(1);
    tell_scrub(REPLFS__SCRUB_STATE__SCRUB_RUNNING, 18 * day, 18 * day, 0);
    WAIT_UNTIL(has_problem("scrub-late", 1));
    tell_scrub(REPLFS__SCRUB_STATE__SCRUB_RUNNING, 17 * day, 40 * day, 0);
    WAIT_UNTIL(!has_problem("scrub-late", 1));
    tell_scrub(REPLFS__SCRUB_STATE__SCRUB_RUNNING, 400 * day, 5 * day,
               0); /* of before there was a scrub */
    uint64_t seq = NODES_RIG_PEEK(&fx->chunkd[0], seq);
    WAIT_UNTIL(NODES_RIG_PEEK(&fx->chunkd[0], seq) > seq + 3);
    assert_false(has_problem("scrub-late", 1));
    tell_scrub(REPLFS__SCRUB_STATE__SCRUB_PAUSED, day, 5 * day, 2 * day);
    WAIT_UNTIL(has_problem("scrub-paused", 1));
    tell_scrub(REPLFS__SCRUB_STATE__SCRUB_PAUSED, day, 5 * day, 3600);
    WAIT_UNTIL(!has_problem("scrub-paused", 1));
}

int main(void)
{
#define NODES_TEST(fn) cmocka_unit_test_setup_teardown(fn, nodes_rig_setup, nodes_rig_teardown)
    const struct CMUnitTest tests[] = {
        NODES_TEST(found_by_the_scrub_is_healed),
        NODES_TEST(a_scrub_that_is_wrong_does_no_harm),
        NODES_TEST(a_moved_copy_is_read_before_another_goes),
        NODES_TEST(commands_reach_those_that_are_meant),
        NODES_TEST(what_no_copy_has_is_listed),
        NODES_TEST(a_chunk_without_any_good_copy_is_listed_and_kept),
        NODES_TEST(health_tells_of_a_late_scrub),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
