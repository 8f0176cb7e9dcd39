/* What a metad does with messages that no honest peer would send, or that come at the wrong moment: a fake metad talks
 * to real ones, and listens to what they say. libraft (0.22.1) alone would end in an assertion, or believe what it must
 * not. */
#include "mlog_group.h"

/* ---- the fake: metad 3, of whose directory nothing runs ---- */

#define FAKE 3u
static struct {
    struct rpc_loop *loop;
    struct rpc_service svc;
    char addr[64];
    struct rpc_conn *conn;
    atomic_uint results, granted, denied, rejected;
    atomic_uint_fast64_t last_index, rejected_at, result_term;
} fake;

static void fake_request(void *arg, struct rpc_req *req)
{
    const Replfs__RaftReq *r = req->env->raft_req;
    Replfs__RaftReply rep = REPLFS__RAFT_REPLY__INIT;
    RPC_ENVELOPE(env, RAFT_REPLY, raft_reply, &rep);

    (void)arg;
    assert_int_equal(request_of(req->env), REQUEST_RAFT);
    if (r->body_case == REPLFS__RAFT_REQ__BODY_APPEND_RESULT) {
        atomic_store(&fake.last_index, r->append_result->last_index);
        atomic_store(&fake.rejected_at, r->append_result->rejected);
        atomic_store(&fake.result_term, r->term);
        atomic_fetch_add(r->append_result->rejected ? &fake.rejected : &fake.results, 1);
    } else if (r->body_case == REPLFS__RAFT_REQ__BODY_VOTE_RESULT) {
        atomic_fetch_add(r->vote_result->granted ? &fake.granted : &fake.denied, 1);
    }
    rpc_reply(req, &env, NULL);
}

static void fake_begin(void)
{
    struct rpc_config rpc = {.role = RPC_ROLE_METAD, .name = "fake", .threads = 1};
    int port = 0;

    memset(&fake, 0, sizeof(fake));
    fake.svc = (struct rpc_service){.request = fake_request, .cluster = group.uuid};
    assert_int_equal(rpc_loop_new(&rpc, &fake.loop), 0);
    assert_int_equal(rpc_listen(fake.loop, "127.0.0.1:0", &fake.svc, &port), 0);
    snprintf(fake.addr, sizeof(fake.addr), "127.0.0.1:%d", port);
    group_set_addr(FAKE - 1, fake.addr);
}

static void fake_end(void)
{
    rpc_conn_unref(fake.conn);
    rpc_loop_free(fake.loop);
}

/* Says it to a node; the code of the answer, and whether that one follows. */
static int fake_say(unsigned node, Replfs__RaftReq *r, struct buf *payload, bool *follows)
{
    struct rpc_conn *c = NULL;
    struct rpc_result res;
    RPC_ENVELOPE(env, RAFT_REQ, raft_req, r);

    r->cluster = r->cluster[0] ? r->cluster : group.uuid;
    r->from = FAKE;
    r->to = r->to ? r->to : node + 1;
    r->addr = fake.addr;
    r->sent = (uint64_t)clock_boot();
    assert_int_equal(rpc_dial(fake.loop, group.node[node].addr, RPC_ROLE_METAD, NULL, &c), 0);
    int rc = rpc_call_wait(c, &env, payload, 5000, &res);
    if (follows)
        *follows = rc == 0 && res.rep->raft_reply->follows;
    rpc_result_free(&res);
    rpc_conn_close(c);
    rpc_conn_unref(c);
    return rc;
}

static int say_append(unsigned node, uint64_t term, uint64_t prev, uint64_t prev_term,
                      uint64_t commit, bool *follows)
{
    Replfs__RaftReq r = REPLFS__RAFT_REQ__INIT;
    Replfs__RaftAppend a = REPLFS__RAFT_APPEND__INIT;

    r.term = term;
    r.body_case = REPLFS__RAFT_REQ__BODY_APPEND;
    r.append = &a;
    a.prev_index = prev;
    a.prev_term = prev_term;
    a.commit = commit;
    return fake_say(node, &r, NULL, follows);
}

static int say_vote(unsigned node, uint64_t term, uint64_t last, uint64_t last_term, bool pre)
{
    Replfs__RaftReq r = REPLFS__RAFT_REQ__INIT;
    Replfs__RaftVote v = REPLFS__RAFT_VOTE__INIT;

    r.term = term;
    r.body_case = REPLFS__RAFT_REQ__BODY_VOTE;
    r.vote = &v;
    v.last_index = last;
    v.last_term = last_term;
    v.pre = pre;
    return fake_say(node, &r, NULL, NULL);
}

static struct mlog_status status_of(unsigned node)
{
    struct mlog_status st;

    mlog_status(group.node[node].mlog, &st);
    return st;
}

/* Two real voters and a third one that is the fake's by now. */
static void two_and_a_fake(void)
{
    group_open(0);
    group_reserve();
    group_join(1);
    group_join(2);
    for (unsigned i = 0; i < 20; i++)
        group_create(i);
    group_same();
    group_close(2);
    rpc_loop_free(group.node[2].loop);
    group.node[2].loop = NULL;
    pthread_rwlock_destroy(&group.node[2].lock);
    fake_begin();
}

static void test_wrong_address(void **state)
{
    Replfs__RaftReq r = REPLFS__RAFT_REQ__INIT;
    Replfs__RaftTimeoutNow t = REPLFS__RAFT_TIMEOUT_NOW__INIT;

    (void)state;
    group_open(0);
    fake_begin();
    r.term = 5;
    r.body_case = REPLFS__RAFT_REQ__BODY_TIMEOUT_NOW;
    r.timeout_now = &t;
    r.to = 9;
    assert_int_equal(fake_say(0, &r, NULL, NULL), -ERR_PROTOCOL);
    r.to = 1;
    r.cluster = (char *)"00000000-0000-4000-8000-000000000000";
    assert_int_equal(fake_say(0, &r, NULL, NULL), -ERR_WRONG_CLUSTER);
    r.cluster = group.uuid;
    assert_int_equal(fake_say(0, &r, NULL, NULL), -ERR_ROLE); /* no member, and this one leads */
    r.body_case = REPLFS__RAFT_REQ__BODY__NOT_SET;
    assert_int_equal(fake_say(0, &r, NULL, NULL), -ERR_PROTOCOL);
    assert_true(mlog_is_leader(group.node[0].mlog));
    fake_end();
}

/* A second leader of the same term, an old leader: neither is followed, and the old one is told so with numbers that
 * mean nothing else, whatever it may have become by then. */
static void test_other_leaders(void **state)
{
    bool follows = true;

    (void)state;
    two_and_a_fake();
    while (status_of((unsigned)group_wait_leader()).term < 2) /* so that there is an older one */
        (void)mlog_step_down(group.node[group_wait_leader()].mlog, 5000);
    unsigned leader = (unsigned)group_wait_leader(), other = 1 - leader;
    struct mlog_status st = status_of(leader);
    assert_int_equal(say_append(leader, st.term, 1, 1, 1, &follows), 0);
    assert_false(follows);
    assert_true(mlog_is_leader(group.node[leader].mlog));
    for (int64_t end = clock_mono() + GROUP_PATIENCE_MS * NSEC_PER_MSEC;
         atomic_load(&fake.rejected) == 0; usleep(20000)) {
        /* again and again, as a leader does: what is said while a connection is being made is lost */
        assert_true(clock_mono() < end);
        assert_int_equal(say_append(other, st.term - 1, 0, 0, 1, &follows), 0);
        assert_false(follows);
    }
    assert_int_equal(fake.rejected_at, 1);
    assert_int_equal(fake.last_index, 0);
    assert_true(fake.result_term >= st.term);
    fake_end();
}

/* Entries that contradict committed ones, and a commit index that runs backwards. */
static void test_contradiction(void **state)
{
    bool follows;

    (void)state;
    two_and_a_fake();
    unsigned leader = (unsigned)group_wait_leader(), other = 1 - leader;
    group_cut(other, true);
    struct mlog_status st = status_of(other);
    uint64_t term = st.term + 10;
    assert_int_equal(say_append(other, term, st.applied - 5, st.term, st.applied + 5, &follows), 0);
    assert_true(follows); /* of a higher term */
    WAIT_UNTIL(status_of(other).term == term);
    assert_int_equal(status_of(other).applied, st.applied);
    assert_null(status_of(other).error);
    assert_int_equal(say_append(other, term, st.applied - 5, term, st.applied, &follows), 0);
    WAIT_UNTIL(status_of(other).error != NULL);
    assert_int_equal(status_of(other).applied, st.applied);
    fake_end();
}

/* One that has just started does not remember whom it followed: for a while it gives no vote. */
static void test_no_vote_after_start(void **state)
{
    (void)state;
    two_and_a_fake();
    unsigned leader = (unsigned)group_wait_leader(), other = 1 - leader;
    struct mlog_status st = status_of(other);
    group_close(leader);
    group_close(other);
    int64_t start = clock_mono();
    group_open(other);
    unsigned asked = 0;
    while (atomic_load(&fake.granted) == 0) {
        assert_true(clock_mono() - start < 20 * NSEC_PER_SEC);
        assert_int_equal(say_vote(other, st.term + 1 + asked++, st.last + 1000, st.term, false), 0);
        usleep(10000);
    }
    assert_true(clock_mono() - start >= 2ll * MLOG_ELECTION_MS * NSEC_PER_MSEC);
    fake_end();
}

#define GROUP_TEST(f) cmocka_unit_test_setup_teardown(f, group_setup, group_teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        GROUP_TEST(test_wrong_address),
        GROUP_TEST(test_other_leaders),
        GROUP_TEST(test_contradiction),
        GROUP_TEST(test_no_vote_after_start),
    };

    log_set_level(LOG_LVL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
