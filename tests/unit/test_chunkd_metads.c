/* A chunkd and several metads: all are told what it has, one leads, and the orders of one that did are refused. */
#include "chunkd_rig.h"
#include "rpc/copy.h"

#define METADS 3u
#define IDS 256u

static const unsigned one[] = {1, 0};

struct metad {
    struct rpc_loop *loop;
    struct rpc_service svc;
    int port, port2;
    char addr[32], addr2[32];
    struct rpc_conn *conn;
    bool follows, hold;
    struct rpc_req *held; /* a registration */
    uint64_t term, registration, told_term;
    char *members[METADS];
    size_t nmembers;
    bool has[IDS];
    size_t count;
    uint64_t digest; /* of what was told */
    unsigned registers, beats, reports, closed;
    bool agrees; /* as of the last heartbeat */
};
static struct metad metad[METADS];
static uint32_t ids; /* given */

/* ---- metads ---- */

static void note(struct metad *m, const Replfs__ChunkRecord *r)
{
    assert_true(r->chunk < IDS);
    if (m->has[r->chunk] == (r->len > 0))
        return;
    m->has[r->chunk] = r->len > 0;
    m->digest ^= hash_u64(r->chunk);
    m->count += r->len ? 1 : (size_t)-1;
}

static void reply_registered(struct metad *m, struct rpc_req *req)
{
    const Replfs__RegisterReq *r = req->env->register_req;
    Replfs__RegisterReply rep = REPLFS__REGISTER_REPLY__INIT;
    rep.cluster = (char *)CHUNKD_RIG_CLUSTER;
    rep.chunkd = r->chunkd ? r->chunkd : ++ids;
    rep.heartbeat_ms = 30;
    rep.cap_key.data = (uint8_t *)chunkd_rig_key.key;
    rep.cap_key.len = CAP_KEY_LEN;
    rep.cap_key_id = chunkd_rig_key.id;
    rep.registration = r->registration;
    rep.follows = m->follows;
    rep.term = m->term;
    rep.metads = m->members;
    rep.n_metads = m->nmembers;
    rpc_conn_unref(m->conn);
    m->conn = rpc_conn_ref(req->conn);
    m->registration = r->registration;
    m->told_term = r->term;
    m->registers++;
    RPC_ENVELOPE(env, REGISTER_REPLY, register_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void on_register(struct metad *m, struct rpc_req *req)
{
    if (m->hold)
        m->held = req;
    else if (m->follows && !req->env->register_req->chunkd)
        rpc_fail(req, ERR_NOT_LEADER, "no majority");
    else
        reply_registered(m, req);
}

static void on_heartbeat(struct metad *m, struct rpc_req *req)
{
    const Replfs__HeartbeatReq *h = req->env->heartbeat_req;
    Replfs__HeartbeatReply rep = REPLFS__HEARTBEAT_REPLY__INIT;
    for (size_t i = 0; i < h->n_changes; i++)
        note(m, h->changes[i]);
    m->agrees = h->digest == m->digest && h->count == m->count;
    m->beats++;
    rep.follows = m->follows;
    rep.term = m->term;
    rep.metads = m->members;
    rep.n_metads = m->nmembers;
    RPC_ENVELOPE(env, HEARTBEAT_REPLY, heartbeat_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void on_report(struct metad *m, struct rpc_req *req)
{
    const Replfs__ReportReq *r = req->env->report_req;
    Replfs__ReportReply rep = REPLFS__REPORT_REPLY__INIT;
    if (r->first) {
        memset(m->has, 0, sizeof m->has);
        m->digest = m->count = 0;
    }
    for (size_t i = 0; i < r->n_chunks; i++)
        note(m, r->chunks[i]);
    m->reports += r->last;
    RPC_ENVELOPE(env, REPORT_REPLY, report_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void on_request(void *arg, struct rpc_req *req)
{
    struct metad *m = arg;
    pthread_mutex_lock(&chunkd_rig.mu);
    if (req->env->body_case == REPLFS__ENVELOPE__BODY_REGISTER_REQ)
        on_register(m, req);
    else if (req->env->body_case == REPLFS__ENVELOPE__BODY_HEARTBEAT_REQ)
        on_heartbeat(m, req);
    else if (req->env->body_case == REPLFS__ENVELOPE__BODY_REPORT_REQ)
        on_report(m, req);
    else
        rpc_fail(req, ERR_PROTOCOL, "not for a fake metad");
    pthread_mutex_unlock(&chunkd_rig.mu);
}

static void on_closed(void *arg, struct rpc_conn *c)
{
    struct metad *m = arg;
    pthread_mutex_lock(&chunkd_rig.mu);
    m->closed += c == m->conn;
    pthread_mutex_unlock(&chunkd_rig.mu);
}

static void metad_start(struct metad *m)
{
    struct rpc_config rc = {.role = RPC_ROLE_METAD, .name = "fake metad", .threads = 1};
    m->svc = (struct rpc_service){.request = on_request, .closed = on_closed, .arg = m};
    assert_int_equal(rpc_loop_new(&rc, &m->loop), 0);
    snprintf(m->addr, sizeof m->addr, "127.0.0.1:%d", m->port);
    assert_int_equal(rpc_listen(m->loop, m->addr, &m->svc, &m->port), 0);
    snprintf(m->addr, sizeof m->addr, "127.0.0.1:%d", m->port);
    assert_int_equal(rpc_listen(m->loop, "127.0.0.1:0", &m->svc, &m->port2), 0);
    snprintf(m->addr2, sizeof m->addr2, "127.0.0.1:%d", m->port2);
}

static void metad_stop(struct metad *m)
{
    pthread_mutex_lock(&chunkd_rig.mu);
    struct rpc_conn *conn = m->conn;
    struct rpc_req *held = m->held;
    m->conn = NULL;
    m->held = NULL;
    pthread_mutex_unlock(&chunkd_rig.mu);
    if (held)
        rpc_fail(held, ERR_SHUTDOWN, "the end");
    rpc_conn_unref(conn);
    rpc_loop_free(m->loop);
    m->loop = NULL;
}

#define SET(i, field, value)                                                                       \
    do {                                                                                           \
        pthread_mutex_lock(&chunkd_rig.mu);                                                        \
        metad[i].field = (value);                                                                  \
        pthread_mutex_unlock(&chunkd_rig.mu);                                                      \
    } while (0)

#define GET(i, field)                                                                              \
    ({                                                                                             \
        pthread_mutex_lock(&chunkd_rig.mu);                                                        \
        uint64_t got_ = metad[i].field;                                                            \
        pthread_mutex_unlock(&chunkd_rig.mu);                                                      \
        got_;                                                                                      \
    })

static void leads(unsigned i, uint64_t term)
{
    pthread_mutex_lock(&chunkd_rig.mu);
    metad[i].follows = false;
    metad[i].term = term;
    pthread_mutex_unlock(&chunkd_rig.mu);
}

/* ---- the chunkd ---- */

static void chunkd_up(char **metas, size_t n)
{
    char dir[96], *dirs[] = {dir};
    snprintf(dir, sizeof dir, "%s/1-0", chunkd_rig.dir);
    if (access(dir, F_OK) != 0)
        assert_int_equal(store_id_init(dir), 0);
    struct chunkd_config cfg = {
        .disks = {.dirs = dirs, .ndirs = 1, .segment_size = 16u << 20},
        .rpc = {.name = "host1", .threads = 1},
        .listen = "127.0.0.1:0",
        .metas = metas,
        .nmetas = n,
        .host_id = "host1",
        .host_name = "host1",
        .fatal = chunkd_rig_on_fatal,
    };
    assert_int_equal(chunkd_start(&cfg, &chunkd_rig.chunkd[1]), 0);
    rpc_conn_unref(chunkd_rig.conn[1]);
    assert_int_equal(rpc_dial(chunkd_rig.client, chunkd_addr(chunkd_rig.chunkd[1]), RPC_ROLE_CHUNKD,
                              NULL, &chunkd_rig.conn[1]),
                     0);
}

static void all_up(void)
{
    char *metas[METADS] = {metad[0].addr, metad[1].addr, metad[2].addr};
    chunkd_up(metas, METADS);
    for (unsigned i = 0; i < METADS; i++)
        chunkd_rig_wait(metad[i].reports > 0 && metad[i].beats > 0);
}

static void append(uint64_t chunk)
{
    struct chunkd_rig_append a = {.chunk = chunk, .len = 1000, .seed = chunk, .chain = one};
    assert_int_equal(chunkd_rig_append(&a).code, 0);
}

static int delete (unsigned by, uint64_t chunk, uint64_t term)
{
    Replfs__OrderReq o = REPLFS__ORDER_REQ__INIT;
    Replfs__DeleteOrder d = REPLFS__DELETE_ORDER__INIT;
    uint64_t writer = CHUNKD_RIG_SESSION;
    struct rpc_result res;
    d.chunks = &chunk;
    d.sessions = &writer;
    d.n_chunks = d.n_sessions = 1;
    o.order_case = REPLFS__ORDER_REQ__ORDER_DELETE_CHUNKS;
    o.delete_chunks = &d;
    o.term = term;
    RPC_ENVELOPE(env, ORDER_REQ, order_req, &o);
    pthread_mutex_lock(&chunkd_rig.mu);
    struct rpc_conn *conn = rpc_conn_ref(metad[by].conn);
    pthread_mutex_unlock(&chunkd_rig.mu);
    int rc = rpc_call_wait(conn, &env, NULL, 20000, &res);
    rpc_result_free(&res);
    rpc_conn_unref(conn);
    return rc;
}

static bool has(uint64_t chunk)
{
    uint8_t data[1000];
    return chunkd_rig_read(1, chunk, 0, sizeof data, data) == 0;
}

/* ---- tests ---- */

static void all_are_told(void **state)
{
    (void)state;
    all_up();
    for (unsigned i = 0; i < 50; i++)
        append(100 + i);
    for (unsigned i = 0; i < METADS; i++)
        chunkd_rig_wait(metad[i].count == 50 && metad[i].agrees);
    assert_true(GET(0, registration) != 0);
    assert_true(GET(0, registration) == GET(1, registration));
    /* one is away, and what it missed is told when it comes back, by a report; the others hear of no more than changes */
    metad_stop(&metad[2]);
    for (unsigned i = 0; i < 50; i++)
        append(150 + i);
    chunkd_rig_wait(metad[0].count == 100 && metad[1].count == 100 && metad[1].agrees);
    metad_start(&metad[2]);
    chunkd_rig_wait(metad[2].count == 100 && metad[2].agrees);
    assert_int_equal(GET(0, reports), 1);
    assert_int_equal(GET(1, reports), 1);
    assert_int_equal(GET(2, reports), 2);
}

/* The leader dies, another one leads: it is told nothing that it has heard already. */
static void no_reports_after_a_fail_over(void **state)
{
    (void)state;
    all_up();
    for (unsigned i = 0; i < 20; i++)
        append(100 + i);
    chunkd_rig_wait(metad[1].agrees && metad[1].count == 20);
    metad_stop(&metad[0]);
    append(130); /* with no leader at all */
    assert_true(has(130));
    leads(1, 4);
    append(131);
    unsigned beats = (unsigned)GET(1, beats);
    chunkd_rig_wait(metad[1].count == 22 && metad[2].count == 22 && metad[1].beats > beats + 2 &&
                    metad[1].agrees);
    assert_int_equal(GET(1, registers), 1);
    assert_int_equal(GET(1, reports), 1);
    assert_int_equal(GET(2, reports), 1);
    assert_int_equal(delete (1, 131, 4), 0);
    assert_false(has(131));
}

static void members_come_and_go(void **state)
{
    char *first[] = {metad[0].addr};
    (void)state;
    chunkd_up(first, 1);
    chunkd_rig_wait(metad[0].beats > 1);
    assert_int_equal(GET(1, registers), 0);
    pthread_mutex_lock(&chunkd_rig.mu);
    for (unsigned i = 0; i < METADS; i++)
        metad[0].members[i] = metad[i].addr;
    metad[0].nmembers = METADS;
    pthread_mutex_unlock(&chunkd_rig.mu);
    chunkd_rig_wait(metad[1].reports == 1 && metad[2].reports == 1);
    SET(0, nmembers, 2);
    chunkd_rig_wait(metad[2].closed == 1);
    unsigned beats = (unsigned)GET(0, beats);
    chunkd_rig_wait(metad[0].beats > beats + 10);
    assert_int_equal(GET(2, registers), 1);
    assert_int_equal(GET(1, closed), 0);
    /* whom the user named is kept, whatever anybody tells */
    SET(1, members[0], metad[1].addr);
    SET(1, nmembers, 1);
    leads(1, 9);
    SET(0, follows, true);
    beats = (unsigned)GET(1, beats);
    chunkd_rig_wait(metad[1].beats > beats + 10);
    assert_int_equal(GET(0, closed), 0);
}

static void two_addresses_of_one(void **state)
{
    char *both[] = {metad[0].addr, metad[0].addr2};
    (void)state;
    chunkd_up(both, 2);
    chunkd_rig_wait(metad[0].beats > 10);
    assert_int_equal(GET(0, registers), 1);
    pthread_mutex_lock(&chunkd_rig.mu);
    rpc_conn_close(metad[0].conn);
    pthread_mutex_unlock(&chunkd_rig.mu);
    chunkd_rig_wait(metad[0].registers == 2);
    unsigned beats = (unsigned)GET(0, beats);
    chunkd_rig_wait(metad[0].beats > beats + 10);
    assert_int_equal(GET(0, registers), 2);
}

/* Two that both take themselves for the leader are not both asked for a number. */
static void one_number(void **state)
{
    (void)state;
    for (unsigned i = 0; i < METADS; i++) {
        SET(i, hold, true);
        leads(i, 3);
    }
    char *metas[METADS] = {metad[0].addr, metad[1].addr, metad[2].addr};
    chunkd_up(metas, METADS);
    chunkd_rig_wait(metad[0].held || metad[1].held || metad[2].held);
    usleep(200000); /* for others to be asked, wrongly */
    pthread_mutex_lock(&chunkd_rig.mu);
    assert_int_equal(!!metad[0].held + !!metad[1].held + !!metad[2].held, 1);
    for (unsigned i = 0; i < METADS; i++) {
        metad[i].hold = false;
        struct rpc_req *req = metad[i].held;
        metad[i].held = NULL;
        if (req)
            reply_registered(&metad[i], req);
    }
    pthread_mutex_unlock(&chunkd_rig.mu);
    for (unsigned i = 0; i < METADS; i++)
        chunkd_rig_wait(metad[i].reports > 0);
    assert_int_equal(ids, 1);
}

static void orders_of_an_old_term(void **state)
{
    char *metas[] = {metad[0].addr, metad[1].addr};
    (void)state;
    leads(0, 3);
    chunkd_up(metas, 2);
    chunkd_rig_wait(metad[0].beats > 1 && metad[1].beats > 1);
    for (unsigned i = 0; i < 10; i++)
        append(100 + i);
    assert_int_equal(delete (0, 100, 3), 0);
    assert_false(has(100));
    assert_int_equal(delete (0, 101, 2), -ERR_OLD_TERM);
    assert_int_equal(delete (1, 101, 0), -ERR_OLD_TERM); /* it follows, and tells no term */
    assert_true(has(101));
    /* heard of in a heartbeat */
    leads(1, 5);
    unsigned beats = (unsigned)GET(1, beats);
    chunkd_rig_wait(metad[1].beats > beats + 1);
    assert_int_equal(delete (0, 101, 3), -ERR_OLD_TERM);
    assert_true(has(101));
    assert_int_equal(delete (1, 101, 5), 0);
    assert_false(has(101));
    /* and in an order */
    assert_int_equal(delete (1, 102, 7), 0);
    assert_int_equal(delete (0, 103, 6), -ERR_OLD_TERM);
    /* a chunkd that starts again remembers: here the old leader is the only one it meets */
    chunkd_rig_chunkd_stop(1);
    metad_stop(&metad[1]);
    unsigned registers = (unsigned)GET(0, registers);
    chunkd_up(metas, 2);
    chunkd_rig_wait(metad[0].registers > registers && metad[0].beats > beats);
    assert_int_equal(GET(0, told_term), 7);
    assert_int_equal(delete (0, 103, 6), -ERR_OLD_TERM);
    WAIT_UNTIL(has(103)); /* when it has taken in the answer to its registration */
    assert_int_equal(delete (0, 103, 7), 0);
    metad_start(&metad[1]);
}

static int setup(void **state)
{
    if (chunkd_rig_setup(state))
        return -1;
    memset(metad, 0, sizeof metad);
    ids = 0;
    for (unsigned i = 0; i < METADS; i++) {
        metad[i].follows = i > 0;
        metad[i].term = i > 0 ? 0 : 3;
        metad_start(&metad[i]);
    }
    return 0;
}

static int teardown(void **state)
{
    chunkd_rig_chunkd_stop(1);
    for (unsigned i = 0; i < METADS; i++)
        if (metad[i].loop)
            metad_stop(&metad[i]);
    return chunkd_rig_teardown(state);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(all_are_told),        T(no_reports_after_a_fail_over),
        T(members_come_and_go), T(two_addresses_of_one),
        T(one_number),          T(orders_of_an_old_term),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
