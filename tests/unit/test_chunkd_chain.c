/* Chains of real chunkds: appends, syncs and reads, and who is blamed when something is wrong. */
#include "chunkd_rig.h"

static const unsigned three[] = {1, 2, 3, 0}, one[] = {1, 0}, two[] = {1, 2, 0};

static void start_three(void)
{
    for (unsigned i = 1; i <= 3; i++)
        chunkd_rig_chunkd_start(i, 1);
}

static void a_chain_stores_everywhere(void **state)
{
    (void)state;
    start_three();
    uint32_t off = 0, lens[] = {1u << 20, 1, 4096, 5000, 300000};
    for (unsigned i = 0; i < 5; i++) {
        struct chunkd_rig_answer a = chunkd_rig_append(&(struct chunkd_rig_append){
            .chunk = 10, .off = off, .len = lens[i], .seed = i, .chain = three, .sync = i == 2});
        assert_int_equal(a.code, 0);
        assert_int_equal(a.n, 3);
        for (unsigned j = 0; j < 3; j++)
            assert_int_equal(a.stored[j], j + 1);
        off += lens[i];
    }
    for (unsigned node = 1; node <= 3; node++) {
        assert_int_equal(chunkd_rig_sync(node, 10, off), 0);
        off = 0;
        for (unsigned i = 0; i < 5; i++) {
            chunkd_rig_check(node, 10, off, lens[i], i);
            off += lens[i];
        }
        assert_int_equal(chunkd_rig_sync(node, 10, off + 1), -ERR_SHORT);
        assert_int_equal(chunkd_rig_sync(node, 11, 1), -ERR_NO_CHUNK);
        uint8_t byte;
        assert_int_equal(chunkd_rig_read(node, 10, off, 1, &byte), -ERR_SHORT);
        assert_int_equal(chunkd_rig_read(node, 11, 0, 1, &byte), -ERR_NO_CHUNK);
    }
    /* the same append again, as after a lost answer, is done already */
    struct chunkd_rig_append again = {.chunk = 10, .len = 1u << 20, .seed = 0, .chain = three};
    assert_int_equal(chunkd_rig_append(&again).code, 0);
    /* and one that leaves a gap is not */
    again.off = off + 7;
    struct chunkd_rig_answer a = chunkd_rig_append(&again);
    assert_int_equal(a.code, -ERR_OFFSET);
    assert_int_equal(a.chunkd, 1);
}

/* Appends in flight at once stay in order at every hop. */
static void appends_in_flight_keep_their_order(void **state)
{
    enum { N = 200, LEN = 20000 };
    const char *addr[2];

    (void)state;
    start_three();
    for (unsigned i = 0; i < 2; i++)
        addr[i] = chunkd_addr(chunkd_rig.chunkd[i + 2]);
    assert_int_equal(chunkd_rig_burst(20, N, LEN, addr, 2), 0);
    for (unsigned node = 1; node <= 3; node++)
        for (unsigned i = 0; i < N; i += 13)
            chunkd_rig_check(node, 20, i * LEN, LEN, i);
}

/* A chunk of very many tiny appends: their CRCs would not fit one reply, yet it can be read. */
static void tiny_appends_can_be_read(void **state)
{
    (void)state;
    enum { N = 40000, LEN = 3 };
    chunkd_rig_chunkd_start(1, 1);
    assert_int_equal(chunkd_rig_burst(80, N, LEN, NULL, 0), 0);
    uint8_t *got = malloc(N * LEN), want[LEN];
    assert_int_equal(chunkd_rig_read(1, 80, 0, N * LEN, got), 0);
    for (unsigned i = 0; i < N; i++) {
        chunkd_rig_fill(want, LEN, i);
        assert_memory_equal(got + i * LEN, want, LEN);
    }
    free(got);
}

static void the_dead_hop_is_named(void **state)
{
    (void)state;
    start_three();
    struct chunkd_rig_append a = {.chunk = 30, .len = 5000, .seed = 1, .chain = three};
    assert_int_equal(chunkd_rig_append(&a).code, 0);
    char dead[128];
    snprintf(dead, sizeof dead, "%s", chunkd_addr(chunkd_rig.chunkd[2]));
    chunkd_rig_chunkd_stop(2);
    a.off = 5000;
    a.addr2 = dead;
    struct chunkd_rig_answer r = chunkd_rig_append(&a);
    assert_int_equal(r.code, -ERR_CHAIN);
    assert_int_equal(r.chunkd, 2);
    /* the last of the chain dead: the first is told by the second */
    chunkd_rig_chunkd_start(2, 1);
    a = (struct chunkd_rig_append){.chunk = 31, .len = 5000, .seed = 1, .chain = three};
    snprintf(dead, sizeof dead, "%s", chunkd_addr(chunkd_rig.chunkd[3]));
    chunkd_rig_chunkd_stop(3);
    static const unsigned swapped[] = {2, 3, 0};
    a.chain = swapped;
    a.addr2 = dead;
    r = chunkd_rig_append(&a);
    assert_int_equal(r.code, -ERR_CHAIN);
    assert_int_equal(r.chunkd, 3);
    /* the client goes on without it */
    a = (struct chunkd_rig_append){.chunk = 32, .len = 5000, .seed = 2, .chain = two};
    assert_int_equal(chunkd_rig_append(&a).code, 0);
    chunkd_rig_check(2, 32, 0, 5000, 2);
}

static void a_failure_deep_in_the_chain_is_passed_up(void **state)
{
    (void)state;
    start_three();
    /* chunkd 3 has bytes of the chunk that the others lack: it refuses offset 100 */
    static const unsigned three_only[] = {3, 0};
    struct chunkd_rig_append a = {.chunk = 40, .len = 50, .seed = 1, .chain = three_only};
    assert_int_equal(chunkd_rig_append(&a).code, 0);
    a = (struct chunkd_rig_append){.chunk = 40, .len = 100, .seed = 2, .chain = three};
    struct chunkd_rig_answer r = chunkd_rig_append(&a);
    assert_int_equal(r.code, -ERR_CHAIN);
    assert_int_equal(r.chunkd, 3);
    assert_int_equal(r.cause, -ERR_OFFSET);
}

/* A chunkd that takes a request and never answers, until the test lets it. */
static struct rpc_req *held;

static void hold_request(void *arg, struct rpc_req *req)
{
    (void)arg;
    pthread_mutex_lock(&chunkd_rig.mu);
    held = req;
    pthread_cond_broadcast(&chunkd_rig.cv);
    pthread_mutex_unlock(&chunkd_rig.mu);
}

static void a_hanging_hop_is_named_before_the_client_gives_up(void **state)
{
    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    chunkd_rig_chunkd_start(2, 1);
    struct rpc_loop *loop;
    struct rpc_config rc = {.role = RPC_ROLE_CHUNKD, .name = "hanging", .threads = 1};
    assert_int_equal(rpc_loop_new(&rc, &loop), 0);
    struct rpc_service svc = {.request = hold_request};
    int port;
    assert_int_equal(rpc_listen(loop, "127.0.0.1:0", &svc, &port), 0);
    char addr[32];
    snprintf(addr, sizeof addr, "127.0.0.1:%d", port);
    held = NULL;
    struct chunkd_rig_append a = {
        .chunk = 45, .len = 5000, .seed = 1, .chain = three, .addr3 = addr, .timeout_ms = 1600};
    struct chunkd_rig_answer r = chunkd_rig_append(&a);
    assert_int_equal(r.code, -ERR_CHAIN);
    assert_int_equal(r.chunkd, 3);
    chunkd_rig_wait(held != NULL);
    rpc_fail(held, -ERR_BUSY, "too late");
    rpc_loop_free(loop);
}

static void expect_refused(struct chunkd_rig_append a, int code)
{
    a.chunk = 50;
    a.chain = one;
    if (!a.len)
        a.len = 5000;
    struct chunkd_rig_answer r = chunkd_rig_append(&a);
    assert_int_equal(r.code, code);
    assert_int_equal(r.chunkd, 1);
    uint8_t byte;
    assert_int_equal(chunkd_rig_read(1, 50, 0, 1, &byte), -ERR_NO_CHUNK);
}

/* Clocks may be hours apart: capabilities end by the time that metad tells. */
static void capabilities_end_by_metads_time(void **state)
{
    (void)state;
    uint32_t now = (uint32_t)(clock_wall() / NSEC_PER_SEC);
    chunkd_rig.metad.cap_now_s = now - 7200;
    chunkd_rig_chunkd_start(1, 1);
    struct chunkd_rig_append late = {.chunk = 51, .len = 500, .expiry = now - 3600, .chain = one};
    assert_int_equal(chunkd_rig_append(&late).code, 0);
    expect_refused((struct chunkd_rig_append){.expiry = now - 7300}, -ERR_CAP_EXPIRED);
    /* it goes on telling: its clock was set */
    pthread_mutex_lock(&chunkd_rig.mu);
    chunkd_rig.metad.cap_now_s = now + 7200;
    unsigned beats = chunkd_rig.node[1].beats;
    pthread_mutex_unlock(&chunkd_rig.mu);
    chunkd_rig_wait(chunkd_rig.node[1].beats > beats + 1);
    expect_refused((struct chunkd_rig_append){.expiry = now + 3600}, -ERR_CAP_EXPIRED);
}

static void wrong_requests_are_refused(void **state)
{
    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    static const struct cap_key other = {.id = 5, .key = "another thirty-two byte test key"};
    static const struct cap_key unknown = {.id = 6, .key = "thirty-two bytes of a test key.."};
    uint32_t now = (uint32_t)(clock_wall() / NSEC_PER_SEC);
    expect_refused((struct chunkd_rig_append){.key = &other}, -ERR_CAP);
    expect_refused((struct chunkd_rig_append){.key = &unknown}, -ERR_CAP);
    expect_refused((struct chunkd_rig_append){.rights = CAP_READ}, -ERR_CAP);
    expect_refused((struct chunkd_rig_append){.expiry = now - 100}, -ERR_CAP_EXPIRED);
    expect_refused((struct chunkd_rig_append){.lie_len = 5001}, -ERR_PROTOCOL);
    expect_refused((struct chunkd_rig_append){.bad_crc = true}, -ERR_CRC);
    expect_refused((struct chunkd_rig_append){.off = 64u << 20}, -EFBIG);
    expect_refused((struct chunkd_rig_append){.off = 4096}, -ERR_NO_CHUNK);
    struct chunkd_rig_append good = {.chunk = 50, .len = 5000, .seed = 3, .chain = one};
    assert_int_equal(chunkd_rig_append(&good).code, 0);
    chunkd_rig_check(1, 50, 0, 5000, 3);
}

static void unregistered_and_foreign_roles_are_refused(void **state)
{
    (void)state;
    chunkd_rig.metad.refuse = -ERR_BUSY;
    assert_int_equal(chunkd_rig_chunkd_try(1, 1), 0);
    assert_int_equal(rpc_dial(chunkd_rig.client, chunkd_addr(chunkd_rig.chunkd[1]), RPC_ROLE_CHUNKD,
                              NULL, &chunkd_rig.conn[1]),
                     0);
    struct chunkd_rig_append a = {.chunk = 60, .len = 10, .chain = one};
    assert_int_equal(chunkd_rig_append(&a).code, -ERR_NOT_REGISTERED);
    pthread_mutex_lock(&chunkd_rig.mu);
    chunkd_rig.metad.refuse = 0;
    pthread_mutex_unlock(&chunkd_rig.mu);
    chunkd_rig_wait(chunkd_rig.node[1].beats > 0);
    assert_int_equal(chunkd_rig_append(&a).code, 0);
    /* an order is metad's to give, and a chunkd answers nothing of metad's */
    Replfs__DeleteOrder del = REPLFS__DELETE_ORDER__INIT;
    Replfs__OrderReq o = REPLFS__ORDER_REQ__INIT;
    o.order_case = REPLFS__ORDER_REQ__ORDER_DELETE_CHUNKS;
    o.delete_chunks = &del;
    RPC_ENVELOPE(env, ORDER_REQ, order_req, &o);
    struct rpc_result res;
    assert_int_equal(rpc_call_wait(chunkd_rig.conn[1], &env, NULL, 5000, &res), -ERR_ROLE);
    rpc_result_free(&res);
    /* nor does it help to say that one is metad: orders come on the connection that the chunkd made */
    struct rpc_config rc = {.role = RPC_ROLE_METAD, .name = "another metad", .threads = 1};
    struct rpc_loop *loop;
    struct rpc_conn *conn;
    assert_int_equal(rpc_loop_new(&rc, &loop), 0);
    assert_int_equal(
        rpc_dial(loop, chunkd_addr(chunkd_rig.chunkd[1]), RPC_ROLE_CHUNKD, NULL, &conn), 0);
    assert_int_equal(rpc_call_wait(conn, &env, NULL, 5000, &res), -ERR_ROLE);
    rpc_result_free(&res);
    rpc_conn_unref(conn);
    rpc_loop_free(loop);
    Replfs__StatusReq st = REPLFS__STATUS_REQ__INIT;
    RPC_ENVELOPE(env2, STATUS_REQ, status_req, &st);
    assert_int_equal(rpc_call_wait(chunkd_rig.conn[1], &env2, NULL, 5000, &res), -ERR_PROTOCOL);
    rpc_result_free(&res);
}

static void acknowledged_bytes_survive_a_restart(void **state)
{
    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    for (unsigned i = 0; i < 20; i++) {
        struct chunkd_rig_append a = {
            .chunk = 70 + i, .len = 1000 * (i + 1), .seed = i, .chain = one};
        assert_int_equal(chunkd_rig_append(&a).code, 0);
    }
    chunkd_rig_chunkd_stop(1);
    chunkd_rig_chunkd_start(1, 1);
    chunkd_rig_wait(chunkd_rig_agrees(&chunkd_rig.node[1]) && chunkd_rig.node[1].nchunks == 20);
    for (unsigned i = 0; i < 20; i++)
        chunkd_rig_check(1, 70 + i, 0, 1000 * (i + 1), i);
}

#define T(f) cmocka_unit_test_setup_teardown(f, chunkd_rig_setup, chunkd_rig_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_chain_stores_everywhere),
        T(appends_in_flight_keep_their_order),
        T(tiny_appends_can_be_read),
        T(the_dead_hop_is_named),
        T(a_failure_deep_in_the_chain_is_passed_up),
        T(a_hanging_hop_is_named_before_the_client_gives_up),
        T(capabilities_end_by_metads_time),
        T(wrong_requests_are_refused),
        T(unregistered_and_foreign_roles_are_refused),
        T(acknowledged_bytes_survive_a_restart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
