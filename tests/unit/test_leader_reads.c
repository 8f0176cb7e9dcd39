/* A leader that is deposed and does not know it says nothing of the state: three whole metads in this process, of which
 * the one that leads is cut off with its log thread asleep (as a process is that is stopped, or a computer that
 * sleeps), while the threads that serve its clients go on. What they are asked for, and what they had in hand, is
 * refused; no lease is given. With one voter there is nobody to ask. */
#include "tests/unit/mlog_group.h"

#include "metad/cluster/nodes_internal.h"
#include "metad/coherence/leases.h"
#include "metad/leader.h"

#define PATIENCE_MS 20000u

static struct {
    struct nodes *nodes;
    struct leader *leader;
} top[GROUP_MAX];

/* A client of one metad, which may be asked to give back a lease and keeps the question. */
struct peer {
    struct rpc_loop *loop;
    struct rpc_conn *conn;
    uint64_t session;
    pthread_mutex_t mu;
    struct rpc_req *asked;
};
struct reply { /* of a request under way */
    pthread_mutex_t mu;
    bool done;
    int code;
    uint32_t lease;
};

/* ---- metads ---- */

static void metad_before(unsigned i)
{
    top[i].leader = leader_new();
    group.node[i].role = leader_role_changed;
    group.node[i].restore = leader_restored;
    group.node[i].above = top[i].leader;
}

static void metad_after(unsigned i)
{
    struct group_node *n = &group.node[i];
    struct nodes_config nodes = {
        .fsm = n->fsm, .mlog = n->mlog, .loop = n->loop, .gate = leader_gate(top[i].leader)};
    struct leader_config cfg = {.fsm = n->fsm, .mlog = n->mlog, .loop = n->loop};

    assert_int_equal(nodes_new(&nodes, &top[i].nodes), 0);
    cfg.nodes = top[i].nodes;
    assert_int_equal(leader_begin(top[i].leader, &cfg), 0);
    pthread_rwlock_wrlock(&n->lock);
    n->rest = leader_rpc(top[i].leader);
    pthread_rwlock_unlock(&n->lock);
}

static void grow(unsigned to)
{
    for (unsigned i = 0; i < to; i++) {
        metad_before(i);
        if (i == 0)
            group_open(0);
        else
            group_join(i);
        metad_after(i);
    }
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < GROUP_MAX; i++) {
        struct group_node *n = &group.node[i];
        atomic_store(&n->freeze, false);
        if (!top[i].leader)
            continue;
        pthread_rwlock_wrlock(&n->lock);
        n->rest = NULL;
        pthread_rwlock_unlock(&n->lock);
        leader_end(top[i].leader);
        mlog_stop(n->mlog);
    }
    for (unsigned i = 0; i < GROUP_MAX; i++) {
        if (!top[i].leader)
            continue;
        rpc_loop_free(group.node[i].loop);
        group.node[i].loop = NULL;
        nodes_free(top[i].nodes);
        group_close(i);
        leader_free(top[i].leader);
    }
    memset(top, 0, sizeof(top));
    return group_teardown(state);
}

/* The one that serves. */
static unsigned serving(void)
{
    int i = -1;

    WAIT_UNTIL((i = group_leader()) >= 0 && leader_terms(top[i].leader) > 0);
    return (unsigned)i;
}

/* Deposes metad i behind its back. Returns who leads instead. */
static unsigned depose(unsigned i)
{
    struct group_node *n = &group.node[i];
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__ReserveOp reserve = REPLFS__RESERVE_OP__INIT;
    int next = -1;

    op.op_case = REPLFS__META_OP__OP_RESERVE;
    op.reserve = &reserve;
    cmd.op = &op;
    atomic_store(&n->freeze, true);
    mlog_propose(n->mlog, &cmd, NULL, NULL, NULL); /* at which it falls asleep */
    WAIT_UNTIL(atomic_load(&n->frozen));
    assert_true(mlog_is_leader(n->mlog));
    WAIT_UNTIL((next = group_leader()) >= 0 && (unsigned)next != i);
    return (unsigned)next;
}

/* ---- clients ---- */

static void on_recall(void *arg, struct rpc_req *req)
{
    struct peer *p = arg;

    pthread_mutex_lock(&p->mu);
    assert_null(p->asked);
    p->asked = req;
    pthread_mutex_unlock(&p->mu);
}

static void peer_dial(struct peer *p, unsigned i)
{
    struct rpc_config rpc = {.role = RPC_ROLE_CLIENT, .name = "test", .threads = 1};
    struct rpc_service svc = {.request = on_recall, .arg = p};

    *p = (struct peer){.mu = PTHREAD_MUTEX_INITIALIZER};
    assert_int_equal(rpc_loop_new(&rpc, &p->loop), 0);
    assert_int_equal(rpc_dial(p->loop, group.node[i].addr, RPC_ROLE_METAD, &svc, &p->conn), 0);
}

static void peer_session(struct peer *p)
{
    Replfs__SessionReq r = REPLFS__SESSION_REQ__INIT;
    struct rpc_result res;

    r.name = r.host_id = (char *)"test";
    RPC_ENVELOPE(env, SESSION_REQ, session_req, &r);
    assert_int_equal(rpc_call_wait(p->conn, &env, NULL, PATIENCE_MS, &res), 0);
    p->session = res.rep->session_reply->session;
    rpc_result_free(&res);
}

static void hang_up(struct peer *p)
{
    rpc_conn_unref(p->conn);
    rpc_loop_free(p->loop);
}

static int lookup(struct peer *p, const char *name)
{
    Replfs__LookupReq r = REPLFS__LOOKUP_REQ__INIT;
    struct rpc_result res;

    r.parent = FSM_ROOT_INO;
    r.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)(uintptr_t)name};
    RPC_ENVELOPE(env, LOOKUP_REQ, lookup_req, &r);
    int rc = rpc_call_wait(p->conn, &env, NULL, PATIENCE_MS, &res);
    rpc_result_free(&res);
    return rc;
}

/* Makes a file, with an exclusive lease on it. */
static uint64_t make_mine(struct peer *p)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CreateOp create = REPLFS__CREATE_OP__INIT;
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
    Replfs__Mutation m = REPLFS__MUTATION__INIT, *list = &m;
    struct rpc_result res;

    create.parent = FSM_ROOT_INO;
    create.name = (ProtobufCBinaryData){4, (uint8_t *)(uintptr_t) "mine"};
    create.mode = S_IFREG | 0644;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &create;
    m.seq = 1;
    m.op = &op;
    r.session = p->session;
    r.ops = &list;
    r.n_ops = 1;
    r.lease = r.exclusive = true;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    assert_int_equal(rpc_call_wait(p->conn, &env, NULL, PATIENCE_MS, &res), 0);
    const Replfs__MutationResult *x = res.rep->mutate_reply->results[0];
    assert_int_equal(x->code, 0);
    assert_int_equal(x->lease, LEASE_EXCLUSIVE);
    uint64_t ino = x->attr->ino;
    rpc_result_free(&res);
    return ino;
}

static void answered(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct reply *r = arg;

    (void)payload;
    pthread_mutex_lock(&r->mu);
    r->code = code;
    if (code == 0)
        r->lease = rep->getattr_reply->lease;
    r->done = true;
    pthread_mutex_unlock(&r->mu);
}

static void ask_attributes(struct peer *p, struct reply *out, uint64_t ino)
{
    Replfs__GetattrReq r = REPLFS__GETATTR_REQ__INIT;

    *out = (struct reply){.mu = PTHREAD_MUTEX_INITIALIZER};
    r.session = p->session;
    r.ino = ino;
    r.lease = true;
    RPC_ENVELOPE(env, GETATTR_REQ, getattr_req, &r);
    rpc_call(p->conn, &env, NULL, PATIENCE_MS, answered, out);
}

/* ---- the tests ---- */

static void test_no_stale_read(void **state)
{
    struct peer p;

    (void)state;
    grow(3);
    group_reserve();
    unsigned old = serving();
    group_create(1);
    peer_dial(&p, old);
    assert_int_equal(lookup(&p, "n00000001"), 0);
    assert_int_equal(lookup(&p, "n00000002"), -ENOENT);
    unsigned next = depose(old);
    assert_int_equal(group_propose_create((int)next, 2), 0);
    assert_int_equal(lookup(&p, "n00000002"), -ERR_BUSY); /* once it was: no such name */
    atomic_store(&group.node[old].freeze, false);
    WAIT_UNTIL(!mlog_is_leader(group.node[old].mlog));
    int rc = lookup(&p, "n00000002");
    assert_true(rc == -ERR_NOT_LEADER || rc == -ERR_PEER_GONE || rc == -ERR_BUSY);
    hang_up(&p);
}

/* It had begun when the metad still led, and would be answered later. */
static void test_in_hand(void **state)
{
    struct peer holder, reader;
    struct reply r;
    Replfs__RecallReply rep = REPLFS__RECALL_REPLY__INIT;
    RPC_ENVELOPE(env, RECALL_REPLY, recall_reply, &rep);

    (void)state;
    grow(3);
    unsigned old = serving();
    peer_dial(&holder, old);
    peer_dial(&reader, old);
    peer_session(&holder);
    peer_session(&reader);
    uint64_t ino = make_mine(&holder);
    ask_attributes(&reader, &r, ino);
    WAIT_LOCKED(&holder.mu, holder.asked != NULL);
    depose(old);
    assert_false(r.done);
    rpc_reply(holder.asked, &env, NULL); /* given back: now the reader may be answered */
    WAIT_LOCKED(&r.mu, r.done);
    assert_int_equal(r.code, -ERR_NOT_LEADER); /* once it was: attributes and a lease */
    assert_int_equal(r.lease, LEASE_NONE);
    hang_up(&holder);
    hang_up(&reader);
}

static bool knows_chunkd(unsigned i, uint32_t chunkd)
{
    struct nodes *n = top[i].nodes;

    LOCK_SCOPE(&n->mu);
    return nodes_find(n, chunkd) != NULL;
}

/* A follower whose state was replaced by a snapshot goes by it in all that it keeps beside: here, which chunkds there
 * are. */
static void test_state_replaced(void **state)
{
    Replfs__ChunkdAddOp add = REPLFS__CHUNKD_ADD_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    struct mlog_status st;

    (void)state;
    grow(3);
    group_reserve();
    unsigned leader = serving(), late = (leader + 1) % 3;
    group_cut(late, true);
    add.chunkd = 7;
    add.host_id = add.host_name = (char *)"host";
    op.op_case = REPLFS__META_OP__OP_CHUNKD_ADD;
    op.chunkd_add = &add;
    group_log(&op);
    for (unsigned i = 0; i < 1200; i++) /* more than the log keeps behind a snapshot */
        group_create(i);
    assert_int_equal(mlog_checkpoint(group.node[leader].mlog), 0);
    WAIT_UNTIL((mlog_status(group.node[leader].mlog, &st), st.checkpoint_index > 1000));
    assert_false(knows_chunkd(late, 7));
    group_cut(late, false);
    WAIT_UNTIL(atomic_load(&group.node[late].restored) > 0);
    WAIT_UNTIL(knows_chunkd(late, 7));
}

/* Nobody else could lead: nothing to wait for. */
static void test_one_alone(void **state)
{
    struct group_node *n = &group.node[0];
    struct peer p;

    (void)state;
    grow(1);
    (void)serving();
    assert_int_equal(atomic_load(&n->mlog->lease_until), INT64_MAX);
    peer_dial(&p, 0);
    atomic_store(&n->freeze, true);
    assert_int_equal(lookup(&p, "n00000002"), -ENOENT);
    atomic_store(&n->freeze, false);
    hang_up(&p);
}

#define READS_TEST(f) cmocka_unit_test_setup_teardown(f, group_setup, teardown)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        READS_TEST(test_no_stale_read),
        READS_TEST(test_in_hand),
        READS_TEST(test_one_alone),
        READS_TEST(test_state_replaced),
    };

    log_set_level(LOG_LVL_WARN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
