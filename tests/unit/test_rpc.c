/* Requests and replies over loopback sockets, between two loops: both directions, payload, many at
 * once from many threads, addresses, timers. What goes wrong is in test_rpc_faults.c. */
#include "rpc_rig.h"

/* ---- the ordinary ---- */

static void test_call(void **state)
{
    struct rpc_rig p;
    struct rpc_result r;

    (void)state;
    rpc_rig_start(&p);
    assert_int_equal(rpc_rig_ask(p.c, ECHO, NULL, 5000, &r), 0);
    assert_int_equal(r.rep->body_case, REPLFS__ENVELOPE__BODY_GETATTR_REPLY);
    assert_null(r.payload);
    rpc_result_free(&r);
    const struct rpc_peer *peer = rpc_conn_peer(p.c);
    assert_int_equal(peer->role, RPC_ROLE_METAD);
    assert_string_equal(peer->name, "srv");
    assert_string_equal(peer->cluster, "test-cluster");
    assert_string_equal(peer->addr, p.srv.addr);
    assert_int_equal(rpc_rig_ask_code(p.c, LATER, 5000), 0);
    rpc_rig_wait(&p.srv, &p.srv.opened, 1);
    assert_int_equal(rpc_conn_peer(p.srv.conn)->role, RPC_ROLE_CLIENT);
    assert_true(rpc_conn_alive(p.c));
    assert_string_equal(rpc_conn_error(p.c), "");
    /* The last reference closes; on_opened took one too. */
    rpc_rig_wait(&p.cli, &p.cli.opened, 1);
    rpc_conn_unref(p.c);
    assert_int_equal(rpc_rig_ask_code(p.cli.conn, ECHO, 5000), 0);
    p.c = p.cli.conn;
    p.cli.conn = NULL;
    rpc_conn_unref(p.c);
    p.c = NULL;
    rpc_rig_wait(&p.srv, &p.srv.closed, 1);
    rpc_rig_wait(&p.cli, &p.cli.closed, 1);
    rpc_rig_stop(&p);
}

static void test_failure(void **state)
{
    struct rpc_rig p;
    struct rpc_result r;

    (void)state;
    rpc_rig_start(&p);
    assert_int_equal(rpc_rig_ask(p.c, REFUSE, NULL, 5000, &r), -ERR_NO_CHUNK);
    assert_string_equal(r.rep->failure->detail, "nothing like 3 here");
    rpc_result_free(&r);
    assert_int_equal(rpc_rig_ask_code(p.c, HUGE_REPLY, 5000), -EMSGSIZE);
    assert_int_equal(rpc_rig_ask_code(p.c, ECHO, 5000), 0);
    rpc_rig_stop(&p);
}

static void test_unknown_request(void **state)
{
    struct rpc_rig p;
    struct rpc_result r;
    Replfs__Envelope req = REPLFS__ENVELOPE__INIT;

    (void)state;
    rpc_rig_start(&p);
    assert_int_equal(rpc_call_wait(p.c, &req, NULL, 5000, &r), -EOPNOTSUPP);
    rpc_result_free(&r);
    rpc_rig_stop(&p);
}

static void test_both_directions(void **state)
{
    struct rpc_rig p;

    (void)state;
    rpc_rig_start(&p);
    for (int i = 1; i <= 20; i++) {
        assert_int_equal(rpc_rig_ask_code(p.c, BACK, 5000), 0);
        rpc_rig_wait(&p.srv, &p.srv.back_replies, i);
        assert_int_equal(p.srv.back_code, 0);
    }
    assert_int_equal(p.cli.requests, 20);
    rpc_rig_stop(&p);
}

static struct buf *pattern(size_t len, unsigned seed)
{
    struct buf *b = buf_new(len);
    b->len = len;
    for (size_t i = 0; i < len; i++)
        b->data[i] = (uint8_t)((i * 7 + seed) ^ i >> 8);
    return b;
}

static void test_payload_sizes(void **state)
{
    static const size_t sizes[] = {1,      15,      4096,          65536 - 20,     65536,
                                   100000, 1 << 20, (1 << 20) + 1, RPC_MAX_PAYLOAD};
    struct rpc_rig p;

    (void)state;
    rpc_rig_start(&p);
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct rpc_result r;
            struct buf *b = pattern(sizes[i], round);
            assert_int_equal(rpc_rig_ask(p.c, ECHO, buf_ref(b), 10000, &r), 0);
            assert_non_null(r.payload);
            assert_int_equal(r.payload->len, sizes[i]);
            assert_memory_equal(r.payload->data, b->data, sizes[i]);
            rpc_result_free(&r);
            assert_int_equal(b->refs, 1);
            buf_unref(b);
        }
    }
    struct rpc_result r;
    assert_int_equal(rpc_rig_ask(p.c, ECHO, pattern(RPC_MAX_PAYLOAD + 1, 0), 1000, &r),
                     -ERR_PROTOCOL);
    rpc_result_free(&r);
    rpc_rig_stop(&p);
}

static void test_large_envelope(void **state)
{
    struct rpc_rig p;
    struct rpc_result r;
    Replfs__LookupReq body = REPLFS__LOOKUP_REQ__INIT;
    static const size_t sizes[] = {65000, 65536, 70000, 300000, RPC_MAX_ENVELOPE - 100};

    (void)state;
    rpc_rig_start(&p);
    for (size_t i = 0; i < 5; i++) {
        body.name.len = sizes[i];
        body.name.data = malloc(sizes[i]);
        memset(body.name.data, 'x', sizes[i]);
        RPC_ENVELOPE(req, LOOKUP_REQ, lookup_req, &body);
        assert_int_equal(rpc_call_wait(p.c, &req, pattern(50000, 1), 5000, &r), -ERR_NO_CHUNK);
        rpc_result_free(&r);
        free(body.name.data);
    }
    rpc_rig_stop(&p);
}

/* ---- many at once ---- */

static void test_beyond_inflight(void **state)
{
    struct rpc_rig p;
    struct rpc_rig_counter n = {.s = &p.cli};
    int total = RPC_MAX_INFLIGHT * 3;

    (void)state;
    rpc_rig_start(&p);
    for (int i = 0; i < total; i++)
        rpc_rig_call_ino(p.c, LATER, NULL, 60000, rpc_rig_count_done, &n);
    rpc_rig_wait(&p.cli, &n.ok, total);
    assert_int_equal(n.bad, 0);
    assert_true(rpc_conn_alive(p.c));
    rpc_rig_stop(&p);
}

struct hammer {
    struct rpc_rig *p;
    unsigned seed;
    int bad;
};

static void *hammer_main(void *arg)
{
    struct hammer *h = arg;

    for (int i = 0; i < 200; i++) {
        struct rpc_result r;
        size_t len = (h->seed * 7919 + (unsigned)i * 104729) % 200000;
        struct buf *b = pattern(len, h->seed + (unsigned)i);
        int rc = rpc_rig_ask(h->p->c, i % 5 ? ECHO : LATER, len ? buf_ref(b) : NULL, 20000, &r);
        if (rc != 0 || (len && (!r.payload || r.payload->len != len ||
                                memcmp(r.payload->data, b->data, len) != 0)))
            h->bad++;
        rpc_result_free(&r);
        buf_unref(b);
    }
    return NULL;
}

static void hammer_run(struct rpc_rig *p)
{
    pthread_t t[4];
    struct hammer h[4];

    for (unsigned i = 0; i < 4; i++) {
        h[i] = (struct hammer){p, i, 0};
        assert_int_equal(pthread_create(&t[i], NULL, hammer_main, &h[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(h[i].bad, 0);
    }
}

static void test_threads(void **state)
{
    struct rpc_rig p;

    (void)state;
    rpc_rig_start(&p);
    hammer_run(&p);
    rpc_rig_stop(&p);
}

/* A peer that sends big requests without end must not make the server hold them all. */
static void test_backpressure(void **state)
{
    struct rpc_rig p;
    struct rpc_rig_counter n = {.s = &p.cli};

    (void)state;
    rpc_rig_start(&p);
    struct buf *b = pattern(1 << 20, 3);
    for (int i = 0; i < 200; i++)
        rpc_rig_call_ino(p.c, LATER, buf_ref(b), 60000, rpc_rig_count_done, &n);
    rpc_rig_wait(&p.cli, &n.ok, 200);
    assert_int_equal(n.bad, 0);
    buf_unref(b);
    rpc_rig_stop(&p);
}

/* ---- addresses ---- */

static void test_addresses(void **state)
{
    struct rpc_rig_side cli;
    struct rpc_conn *c;
    int port;

    (void)state;
    rpc_rig_side_start(&cli, &rpc_rig_client_cfg, false);
    assert_int_equal(rpc_dial(cli.loop, "127.0.0.1", RPC_ROLE_ANY, NULL, &c), -EINVAL);
    assert_int_equal(rpc_dial(cli.loop, "::1:700", RPC_ROLE_ANY, NULL, &c), -EINVAL);
    assert_int_equal(rpc_dial(cli.loop, ":700", RPC_ROLE_ANY, NULL, &c), -EINVAL);
    /* No plaintext beyond loopback. */
    assert_int_equal(rpc_dial(cli.loop, "192.0.2.1:7000", RPC_ROLE_ANY, NULL, &c), -EPERM);
    assert_int_equal(rpc_listen(cli.loop, ":0", &cli.svc, &port), -EPERM);
    assert_int_equal(rpc_listen(cli.loop, "0.0.0.0:0", &cli.svc, &port), -EPERM);
    /* A name that does not exist is looked up in the background. */
    assert_int_equal(rpc_dial(cli.loop, "no-such-host.invalid:7000", RPC_ROLE_ANY, NULL, &c), 0);
    assert_true(rpc_rig_ask_code(c, ECHO, 30000) < 0);
    rpc_conn_unref(c);
    rpc_rig_side_stop(&cli);
}

static void test_insecure_listens_everywhere(void **state)
{
    struct rpc_config cfg = rpc_rig_server_cfg, cli_cfg = rpc_rig_client_cfg;
    struct rpc_rig_side srv, cli;
    struct rpc_conn *c;
    int port;

    (void)state;
    cfg.insecure = cli_cfg.insecure = true;
    rpc_rig_side_start(&srv, &cfg, false);
    rpc_rig_side_start(&cli, &cli_cfg, false);
    assert_int_equal(rpc_listen(srv.loop, ":0", &srv.svc, &port), 0);
    snprintf(srv.addr, sizeof srv.addr, "127.0.0.1:%d", port);
    assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_METAD, NULL, &c), 0);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, 5000), 0);
    rpc_conn_unref(c);
    rpc_rig_side_stop(&cli);
    rpc_rig_side_stop(&srv);
}

/* ---- timers ---- */

struct order {
    struct rpc_rig_side *s;
    int n, seq[3];
    int64_t at[3];
};
struct order_item {
    struct order *o;
    int id;
};

static void order_fn(void *arg)
{
    struct order_item *i = arg;

    pthread_mutex_lock(&i->o->s->lock);
    i->o->at[i->o->n] = clock_mono();
    i->o->seq[i->o->n++] = i->id;
    pthread_cond_broadcast(&i->o->s->cond);
    pthread_mutex_unlock(&i->o->s->lock);
}

static void test_defer(void **state)
{
    struct rpc_rig_side s;
    struct rpc_config one = rpc_rig_client_cfg;
    struct order o = {.s = &s};
    struct order_item a = {&o, 0}, b = {&o, 1}, c = {&o, 2};

    (void)state;
    one.threads = 1;
    rpc_rig_side_start(&s, &one, false);
    int64_t t0 = clock_mono();
    rpc_loop_defer(s.loop, 100, order_fn, &c);
    rpc_loop_defer(s.loop, 30, order_fn, &b);
    rpc_loop_defer(s.loop, 0, order_fn, &a);
    rpc_loop_defer(s.loop, 100000, order_fn, &c); /* dropped by rpc_loop_free */
    rpc_rig_wait(&s, &o.n, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(o.seq[i], i);
    assert_true(o.at[1] - t0 >= 30 * NSEC_PER_MSEC);
    assert_true(o.at[2] - t0 >= 100 * NSEC_PER_MSEC);
    rpc_rig_side_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_unknown_request),
        cmocka_unit_test(test_both_directions),
        cmocka_unit_test(test_payload_sizes),
        cmocka_unit_test(test_large_envelope),
        cmocka_unit_test(test_beyond_inflight),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_backpressure),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_insecure_listens_everywhere),
        cmocka_unit_test(test_defer),
    };
    log_init("test_rpc", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
