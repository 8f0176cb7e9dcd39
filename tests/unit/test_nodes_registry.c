/* What metad tells chunkds of each other, and how many it takes. */
#include "metad/cluster/origin.h"
#include "nodes_rig.h"

#define KNOWN_MAX 300

/* What one chunkd was told. */
struct told {
    uint64_t version;
    size_t n;
    struct {
        uint32_t chunkd;
        char addr[128];
    } v[KNOWN_MAX];
};

static void take(struct told *t, uint64_t version, Replfs__ChunkdAddr *const *v, size_t n)
{
    t->version = version;
    t->n = n;
    for (size_t i = 0; i < n && i < KNOWN_MAX; i++) {
        t->v[i].chunkd = v[i]->chunkd;
        snprintf(t->v[i].addr, sizeof t->v[i].addr, "%s", v[i]->addr);
    }
}

/* Registers host as a new chunkd (id 0) or as id; returns the code. */
static int enrol(struct rpc_conn *c, uint32_t *id, const char *host, const char *addr,
                 struct told *t, char detail[256])
{
    Replfs__RegisterReq r = REPLFS__REGISTER_REQ__INIT;
    struct rpc_result res;

    r.cluster = (char *)"";
    r.chunkd = *id;
    r.host_id = r.host_name = (char *)(uintptr_t)host;
    r.addr = (char *)(uintptr_t)addr;
    RPC_ENVELOPE(env, REGISTER_REQ, register_req, &r);
    int rc = rpc_call_wait(c, &env, NULL, 5000, &res);
    if (rc == 0) {
        const Replfs__RegisterReply *rep = res.rep->register_reply;
        *id = rep->chunkd;
        take(t, rep->registry_version, rep->registry, rep->n_registry);
    } else if (res.rep && res.rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE) {
        snprintf(detail, 256, "%s", res.rep->failure->detail);
    }
    rpc_result_free(&res);
    return rc;
}

static void heartbeat(struct rpc_conn *c, uint32_t id, uint64_t seq, uint64_t version,
                      struct told *t)
{
    Replfs__HeartbeatReq h = REPLFS__HEARTBEAT_REQ__INIT;
    struct rpc_result res;

    h.chunkd = id;
    h.seq = seq;
    h.registry_version = version;
    RPC_ENVELOPE(env, HEARTBEAT_REQ, heartbeat_req, &h);
    assert_int_equal(rpc_call_wait(c, &env, NULL, 5000, &res), 0);
    const Replfs__HeartbeatReply *rep = res.rep->heartbeat_reply;
    take(t, rep->registry_version, rep->registry, rep->n_registry);
    rpc_result_free(&res);
}

static void chunkds_are_told_of_each_other(void **state)
{
    struct rpc_conn *a = nodes_rig_dial(&fx->chunkd[0]), *b = nodes_rig_dial(&fx->chunkd[1]),
                    *again;
    struct told t;
    char detail[256];
    uint32_t one = 0, two = 0;

    (void)state;
    assert_int_equal(enrol(a, &one, "h1", "10.0.0.1:7100", &t, detail), 0);
    assert_true(t.version != 0 && t.n == 1);
    uint64_t first = t.version;
    heartbeat(a, one, 1, first, &t);
    assert_int_equal(t.version, first);
    assert_int_equal(t.n, 0); /* nothing new */
    assert_int_equal(enrol(b, &two, "h2", "10.0.0.2:7100", &t, detail), 0);
    assert_int_equal(t.n, 2); /* who joins is told of all */
    heartbeat(a, one, 2, first, &t);
    assert_true(t.version != first && t.n == 2);
    assert_int_equal(t.v[1].chunkd, two);
    assert_string_equal(t.v[1].addr, "10.0.0.2:7100");
    uint64_t second = t.version;
    /* one comes back where it was: nothing changes; elsewhere: it does */
    rpc_conn_close(b);
    again = nodes_rig_dial(&fx->chunkd[1]);
    while (enrol(again, &two, "h2", "10.0.0.2:7100", &t, detail) == -ERR_BUSY)
        usleep(10000); /* its former connection has not been missed yet */
    assert_int_equal(t.version, second);
    assert_int_equal(enrol(again, &two, "h2", "10.0.0.3:7100", &t, detail), 0);
    heartbeat(a, one, 3, second, &t);
    assert_true(t.version != second && t.n == 2);
    assert_string_equal(t.v[1].addr, "10.0.0.3:7100");
    rpc_conn_unref(a);
    rpc_conn_unref(b);
    rpc_conn_unref(again);
}

static void one_address_brings_so_many(void **state)
{
    struct rpc_conn *c;
    struct told t;
    char host[32], addr[32], detail[256] = "";
    unsigned taken = 0;
    uint32_t first = 0;

    (void)state;
    for (unsigned i = 0; i < NODES_PER_ORIGIN + 20; i++) {
        uint32_t id = 0;
        snprintf(host, sizeof host, "host%u", i);
        snprintf(addr, sizeof addr, "10.0.0.1:%u", 1000 + i);
        c = nodes_rig_dial(
            &fx->chunkd[0]); /* one each: that of a chunkd that is given up is closed */
        taken += enrol(c, &id, host, addr, &t, detail) == 0;
        rpc_conn_close(c);
        rpc_conn_unref(c);
        first = first ? first : id;
    }
    printf("%u registrations of one address, %u taken: %s\n", NODES_PER_ORIGIN + 20, taken, detail);
    assert_int_equal(taken, NODES_PER_ORIGIN);
    assert_non_null(strstr(detail, "256 chunkds of this address"));
    /* who is a member comes back all the same; and one in the place of another is none more */
    c = nodes_rig_dial(&fx->chunkd[0]);
    assert_int_equal(enrol(c, &first, "host0", "10.0.0.1:1000", &t, detail), 0);
    rpc_conn_unref(c);
}

static void origins_are_addresses(void **state)
{
    (void)state;
    assert_int_equal(origin_of_addr("10.0.0.1:7000"), origin_of_addr("10.0.0.1:7001"));
    assert_int_not_equal(origin_of_addr("10.0.0.1:7000"), origin_of_addr("10.0.0.2:7000"));
    assert_int_equal(origin_of_addr("[2001:db8::1]:7"), origin_of_addr("[2001:db8::ffff:1:2]:9"));
    assert_int_not_equal(origin_of_addr("[2001:db8::1]:7"), origin_of_addr("[2001:db8:0:1::1]:7"));
    assert_int_equal(origin_of_addr("[::ffff:10.0.0.1]:7"), origin_of_addr("10.0.0.1:7000"));
    assert_int_not_equal(origin_of_addr("uid 0"), origin_of_addr("uid 1"));
}

int main(void)
{
#define NODES_TEST(fn) cmocka_unit_test_setup_teardown(fn, nodes_rig_setup, nodes_rig_teardown)
    const struct CMUnitTest tests[] = {
        NODES_TEST(chunkds_are_told_of_each_other),
        NODES_TEST(one_address_brings_so_many),
        cmocka_unit_test(origins_are_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
