/* Requests and replies over loopback sockets, between two loops: both directions, payload,
 * time-outs, death of the peer, and everything a hostile or mismatched peer can do. */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "rpc/frame.h"
#include "rpc/rpc.h"

/* ---- a service: echoes, swallows or refuses, by the inode asked for ---- */

enum { ECHO = 1, NEVER = 2, REFUSE = 3, LATER = 4, BACK = 5, HUGE_REPLY = 6 };

struct side {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int opened, closed, requests, back_replies, back_code;
    struct rpc_req *kept[RPC_MAX_INFLIGHT + 64];
    int nkept;
    struct rpc_conn *conn; /* last opened, with a reference */
    struct rpc_loop *loop;
    struct rpc_service svc;
    int port;
    char addr[64];
};

static void echo_reply(struct rpc_req *req)
{
    Replfs__GetattrReply body = REPLFS__GETATTR_REPLY__INIT;

    RPC_ENVELOPE(rep, GETATTR_REPLY, getattr_reply, &body);
    rpc_reply(req, &rep, buf_ref(req->payload));
}

static void huge_reply(struct rpc_req *req)
{
    Replfs__ReadlinkReply body = REPLFS__READLINK_REPLY__INIT;
    body.target.len = RPC_MAX_ENVELOPE;
    body.target.data = calloc(1, body.target.len);
    RPC_ENVELOPE(rep, READLINK_REPLY, readlink_reply, &body);
    rpc_reply(req, &rep, NULL);
    free(body.target.data);
}

static void later_fn(void *arg)
{
    echo_reply(arg);
}

static void back_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct side *s = arg;

    (void)rep;
    (void)payload;
    pthread_mutex_lock(&s->lock);
    s->back_replies++;
    s->back_code = code;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

static void call_ino(struct rpc_conn *c, uint64_t ino, struct buf *payload, unsigned ms,
                     rpc_done *done, void *arg)
{
    Replfs__GetattrReq body = REPLFS__GETATTR_REQ__INIT;
    body.ino = ino;
    RPC_ENVELOPE(req, GETATTR_REQ, getattr_req, &body);
    rpc_call(c, &req, payload, ms, done, arg);
}

static void on_request(void *arg, struct rpc_req *req)
{
    struct side *s = arg;
    uint64_t what = req->env->body_case == REPLFS__ENVELOPE__BODY_GETATTR_REQ
                        ? req->env->getattr_req->ino
                        : (uint64_t)REFUSE;

    pthread_mutex_lock(&s->lock);
    s->requests++;
    if (what == NEVER)
        s->kept[s->nkept++] = req;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
    if (what == ECHO)
        echo_reply(req);
    else if (what == LATER)
        rpc_loop_defer(s->loop, 1, later_fn, req);
    else if (what == HUGE_REPLY)
        huge_reply(req);
    else if (what == BACK) {
        call_ino(req->conn, ECHO, NULL, 5000, back_done, s);
        echo_reply(req);
    } else if (what == REFUSE)
        rpc_fail(req, ERR_NO_CHUNK, "nothing like %d here", REFUSE);
}

static void on_opened(void *arg, struct rpc_conn *c)
{
    struct side *s = arg;

    pthread_mutex_lock(&s->lock);
    s->opened++;
    rpc_conn_unref(s->conn);
    s->conn = rpc_conn_ref(c);
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

static void on_closed(void *arg, struct rpc_conn *c)
{
    struct side *s = arg;

    (void)c;
    pthread_mutex_lock(&s->lock);
    s->closed++;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

/* Waits, at most 10 s, until *v >= n. */
static void wait_for(struct side *s, const int *v, int n)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_sec += 10;
    pthread_mutex_lock(&s->lock);
    while (*v < n) {
        if (pthread_cond_timedwait(&s->cond, &s->lock, &ts) != 0)
            break;
    }
    int got = *v;
    pthread_mutex_unlock(&s->lock);
    assert_true(got >= n);
}

static void side_start(struct side *s, const struct rpc_config *cfg, bool listen_too)
{
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->cond, NULL);
    s->svc = (struct rpc_service){on_request, on_opened, on_closed, s, "test-cluster"};
    assert_int_equal(rpc_loop_new(cfg, &s->loop), 0);
    if (listen_too) {
        assert_int_equal(rpc_listen(s->loop, "127.0.0.1:0", &s->svc, &s->port), 0);
        snprintf(s->addr, sizeof s->addr, "127.0.0.1:%d", s->port);
    }
}

static void side_stop(struct side *s)
{
    for (int i = 0; i < s->nkept; i++)
        rpc_fail(s->kept[i], ERR_BUSY, "never");
    rpc_loop_free(s->loop);
    rpc_conn_unref(s->conn);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->cond);
}

static const struct rpc_config server_cfg = {.role = RPC_ROLE_METAD, .name = "srv", .threads = 2};
static const struct rpc_config client_cfg = {.role = RPC_ROLE_CLIENT, .name = "cli", .threads = 2};

struct pair {
    struct side srv, cli;
    struct rpc_conn *c;
};

static void pair_start(struct pair *p)
{
    side_start(&p->srv, &server_cfg, true);
    side_start(&p->cli, &client_cfg, false);
    assert_int_equal(rpc_dial(p->cli.loop, p->srv.addr, RPC_ROLE_METAD, &p->cli.svc, &p->c), 0);
}

static void pair_stop(struct pair *p)
{
    rpc_conn_unref(p->c);
    side_stop(&p->cli);
    side_stop(&p->srv);
}

static int ask(struct rpc_conn *c, uint64_t ino, struct buf *payload, unsigned ms,
               struct rpc_result *r)
{
    Replfs__GetattrReq body = REPLFS__GETATTR_REQ__INIT;
    body.ino = ino;
    RPC_ENVELOPE(req, GETATTR_REQ, getattr_req, &body);
    return rpc_call_wait(c, &req, payload, ms, r);
}

static int ask_code(struct rpc_conn *c, uint64_t ino, unsigned ms)
{
    struct rpc_result r;
    int rc = ask(c, ino, NULL, ms, &r);
    rpc_result_free(&r);
    return rc;
}

/* ---- the ordinary ---- */

static void test_call(void **state)
{
    struct pair p;
    struct rpc_result r;

    (void)state;
    pair_start(&p);
    assert_int_equal(ask(p.c, ECHO, NULL, 5000, &r), 0);
    assert_int_equal(r.rep->body_case, REPLFS__ENVELOPE__BODY_GETATTR_REPLY);
    assert_null(r.payload);
    rpc_result_free(&r);
    const struct rpc_peer *peer = rpc_conn_peer(p.c);
    assert_int_equal(peer->role, RPC_ROLE_METAD);
    assert_string_equal(peer->name, "srv");
    assert_string_equal(peer->cluster, "test-cluster");
    assert_string_equal(peer->addr, p.srv.addr);
    assert_int_equal(ask_code(p.c, LATER, 5000), 0);
    wait_for(&p.srv, &p.srv.opened, 1);
    assert_int_equal(rpc_conn_peer(p.srv.conn)->role, RPC_ROLE_CLIENT);
    assert_true(rpc_conn_alive(p.c));
    assert_string_equal(rpc_conn_error(p.c), "");
    /* The last reference closes; on_opened took one too. */
    wait_for(&p.cli, &p.cli.opened, 1);
    rpc_conn_unref(p.c);
    assert_int_equal(ask_code(p.cli.conn, ECHO, 5000), 0);
    p.c = p.cli.conn;
    p.cli.conn = NULL;
    rpc_conn_unref(p.c);
    p.c = NULL;
    wait_for(&p.srv, &p.srv.closed, 1);
    wait_for(&p.cli, &p.cli.closed, 1);
    pair_stop(&p);
}

static void test_failure(void **state)
{
    struct pair p;
    struct rpc_result r;

    (void)state;
    pair_start(&p);
    assert_int_equal(ask(p.c, REFUSE, NULL, 5000, &r), -ERR_NO_CHUNK);
    assert_string_equal(r.rep->failure->detail, "nothing like 3 here");
    rpc_result_free(&r);
    assert_int_equal(ask_code(p.c, HUGE_REPLY, 5000), -EMSGSIZE);
    assert_int_equal(ask_code(p.c, ECHO, 5000), 0);
    pair_stop(&p);
}

static void test_unknown_request(void **state)
{
    struct pair p;
    struct rpc_result r;
    Replfs__Envelope req = REPLFS__ENVELOPE__INIT;

    (void)state;
    pair_start(&p);
    assert_int_equal(rpc_call_wait(p.c, &req, NULL, 5000, &r), -EOPNOTSUPP);
    rpc_result_free(&r);
    pair_stop(&p);
}

static void test_both_directions(void **state)
{
    struct pair p;

    (void)state;
    pair_start(&p);
    for (int i = 1; i <= 20; i++) {
        assert_int_equal(ask_code(p.c, BACK, 5000), 0);
        wait_for(&p.srv, &p.srv.back_replies, i);
        assert_int_equal(p.srv.back_code, 0);
    }
    assert_int_equal(p.cli.requests, 20);
    pair_stop(&p);
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
    struct pair p;

    (void)state;
    pair_start(&p);
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct rpc_result r;
            struct buf *b = pattern(sizes[i], round);
            assert_int_equal(ask(p.c, ECHO, buf_ref(b), 10000, &r), 0);
            assert_non_null(r.payload);
            assert_int_equal(r.payload->len, sizes[i]);
            assert_memory_equal(r.payload->data, b->data, sizes[i]);
            rpc_result_free(&r);
            assert_int_equal(b->refs, 1);
            buf_unref(b);
        }
    }
    struct rpc_result r;
    assert_int_equal(ask(p.c, ECHO, pattern(RPC_MAX_PAYLOAD + 1, 0), 1000, &r), -ERR_PROTOCOL);
    rpc_result_free(&r);
    pair_stop(&p);
}

static void test_large_envelope(void **state)
{
    struct pair p;
    struct rpc_result r;
    Replfs__LookupReq body = REPLFS__LOOKUP_REQ__INIT;
    static const size_t sizes[] = {65000, 65536, 70000, 300000, RPC_MAX_ENVELOPE - 100};

    (void)state;
    pair_start(&p);
    for (size_t i = 0; i < 5; i++) {
        body.name.len = sizes[i];
        body.name.data = malloc(sizes[i]);
        memset(body.name.data, 'x', sizes[i]);
        RPC_ENVELOPE(req, LOOKUP_REQ, lookup_req, &body);
        assert_int_equal(rpc_call_wait(p.c, &req, pattern(50000, 1), 5000, &r), -ERR_NO_CHUNK);
        rpc_result_free(&r);
        free(body.name.data);
    }
    pair_stop(&p);
}

/* ---- many at once ---- */

struct counter {
    struct side *s;
    int ok, bad;
};

static void count_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct counter *n = arg;

    (void)rep;
    (void)payload;
    pthread_mutex_lock(&n->s->lock);
    if (code == 0)
        n->ok++;
    else
        n->bad++;
    pthread_cond_broadcast(&n->s->cond);
    pthread_mutex_unlock(&n->s->lock);
}

static void test_beyond_inflight(void **state)
{
    struct pair p;
    struct counter n = {.s = &p.cli};
    int total = RPC_MAX_INFLIGHT * 3;

    (void)state;
    pair_start(&p);
    for (int i = 0; i < total; i++)
        call_ino(p.c, LATER, NULL, 60000, count_done, &n);
    wait_for(&p.cli, &n.ok, total);
    assert_int_equal(n.bad, 0);
    assert_true(rpc_conn_alive(p.c));
    pair_stop(&p);
}

struct hammer {
    struct pair *p;
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
        int rc = ask(h->p->c, i % 5 ? ECHO : LATER, len ? buf_ref(b) : NULL, 20000, &r);
        if (rc != 0 || (len && (!r.payload || r.payload->len != len ||
                                memcmp(r.payload->data, b->data, len) != 0)))
            h->bad++;
        rpc_result_free(&r);
        buf_unref(b);
    }
    return NULL;
}

static void hammer_run(struct pair *p)
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
    struct pair p;

    (void)state;
    pair_start(&p);
    hammer_run(&p);
    pair_stop(&p);
}

/* A peer that sends big requests without end must not make the server hold them all. */
static void test_backpressure(void **state)
{
    struct pair p;
    struct counter n = {.s = &p.cli};

    (void)state;
    pair_start(&p);
    struct buf *b = pattern(1 << 20, 3);
    for (int i = 0; i < 200; i++)
        call_ino(p.c, LATER, buf_ref(b), 60000, count_done, &n);
    wait_for(&p.cli, &n.ok, 200);
    assert_int_equal(n.bad, 0);
    buf_unref(b);
    pair_stop(&p);
}

/* ---- time-outs and death ---- */

static void test_timeout(void **state)
{
    struct pair p;
    struct counter n = {.s = &p.cli};

    (void)state;
    pair_start(&p);
    assert_int_equal(ask_code(p.c, ECHO, 5000), 0);
    int64_t t0 = clock_mono();
    assert_int_equal(ask_code(p.c, NEVER, 100), -ERR_TIMEOUT);
    int64_t ms = (clock_mono() - t0) / NSEC_PER_MSEC;
    assert_in_range(ms, 99, 5000);
    /* Short ones behind long ones end first. */
    call_ino(p.c, NEVER, NULL, 60000, count_done, &n);
    for (int i = 0; i < 20; i++)
        call_ino(p.c, NEVER, NULL, 50 + (unsigned)i, count_done, &n);
    wait_for(&p.cli, &n.bad, 20);
    assert_int_equal(n.bad, 20);
    /* Late replies are dropped and the connection goes on. */
    wait_for(&p.srv, &p.srv.nkept, 22);
    for (int i = 0; i < p.srv.nkept; i++)
        echo_reply(p.srv.kept[i]);
    p.srv.nkept = 0;
    wait_for(&p.cli, &n.ok, 1);
    assert_int_equal(ask_code(p.c, ECHO, 5000), 0);
    assert_int_equal(n.bad, 20);
    pair_stop(&p);
}

static void test_peer_dies_mid_call(void **state)
{
    struct pair p;
    struct counter n = {.s = &p.cli};

    (void)state;
    pair_start(&p);
    for (int i = 0; i < 10; i++)
        call_ino(p.c, NEVER, NULL, 60000, count_done, &n);
    wait_for(&p.srv, &p.srv.nkept, 10);
    rpc_conn_close(p.srv.conn);
    wait_for(&p.cli, &n.bad, 10);
    wait_for(&p.cli, &p.cli.closed, 1);
    assert_false(rpc_conn_alive(p.c));
    assert_non_null(strstr(rpc_conn_error(p.c), "closed by the peer"));
    assert_int_equal(ask_code(p.c, ECHO, 1000), -ERR_PEER_GONE);
    pair_stop(&p);
}

static void test_loop_free_ends_calls(void **state)
{
    struct pair p;
    struct counter n;

    (void)state;
    pair_start(&p);
    n = (struct counter){.s = &p.srv};
    for (int i = 0; i < 10; i++)
        call_ino(p.c, NEVER, NULL, 60000, count_done, &n);
    wait_for(&p.srv, &p.srv.nkept, 10);
    rpc_loop_free(p.cli.loop);
    assert_int_equal(n.bad, 10);
    assert_false(rpc_conn_alive(p.c));
    assert_int_equal(ask_code(p.c, ECHO, 1000), -ERR_SHUTDOWN);
    rpc_conn_unref(p.c);
    rpc_conn_unref(p.cli.conn);
    side_stop(&p.srv);
}

static void test_connect_refused(void **state)
{
    struct side cli;
    struct rpc_conn *c;
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    char addr[64];

    (void)state;
    /* A bound port that nobody listens on. */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
    snprintf(addr, sizeof addr, "localhost:%d", ntohs(sa.sin_port));
    side_start(&cli, &client_cfg, false);
    assert_int_equal(rpc_dial(cli.loop, addr, RPC_ROLE_ANY, NULL, &c), 0);
    assert_int_equal(ask_code(c, ECHO, 5000), -ECONNREFUSED);
    assert_non_null(strstr(rpc_conn_error(c), addr));
    rpc_conn_unref(c);
    close(fd);
    side_stop(&cli);
}

static void test_addresses(void **state)
{
    struct side cli;
    struct rpc_conn *c;
    int port;

    (void)state;
    side_start(&cli, &client_cfg, false);
    assert_int_equal(rpc_dial(cli.loop, "127.0.0.1", RPC_ROLE_ANY, NULL, &c), -EINVAL);
    assert_int_equal(rpc_dial(cli.loop, "::1:700", RPC_ROLE_ANY, NULL, &c), -EINVAL);
    assert_int_equal(rpc_dial(cli.loop, ":700", RPC_ROLE_ANY, NULL, &c), -EINVAL);
    /* No plaintext beyond loopback. */
    assert_int_equal(rpc_dial(cli.loop, "192.0.2.1:7000", RPC_ROLE_ANY, NULL, &c), -EPERM);
    assert_int_equal(rpc_listen(cli.loop, ":0", &cli.svc, &port), -EPERM);
    assert_int_equal(rpc_listen(cli.loop, "0.0.0.0:0", &cli.svc, &port), -EPERM);
    /* A name that does not exist is looked up in the background. */
    assert_int_equal(rpc_dial(cli.loop, "no-such-host.invalid:7000", RPC_ROLE_ANY, NULL, &c), 0);
    assert_true(ask_code(c, ECHO, 30000) < 0);
    rpc_conn_unref(c);
    side_stop(&cli);
}

static void test_insecure_listens_everywhere(void **state)
{
    struct rpc_config cfg = server_cfg;
    struct side srv, cli;
    struct rpc_conn *c;
    int port;

    (void)state;
    cfg.insecure = true;
    side_start(&srv, &cfg, false);
    side_start(&cli, &client_cfg, false);
    assert_int_equal(rpc_listen(srv.loop, ":0", &srv.svc, &port), 0);
    snprintf(srv.addr, sizeof srv.addr, "127.0.0.1:%d", port);
    assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_METAD, NULL, &c), 0);
    assert_int_equal(ask_code(c, ECHO, 5000), 0);
    rpc_conn_unref(c);
    side_stop(&cli);
    side_stop(&srv);
}

static void test_wrong_expectation(void **state)
{
    struct side srv, cli;
    struct rpc_conn *c;

    (void)state;
    side_start(&srv, &server_cfg, true);
    side_start(&cli, &client_cfg, false);
    assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_CHUNKD, NULL, &c), 0);
    assert_int_equal(ask_code(c, ECHO, 5000), -ERR_ROLE);
    assert_non_null(strstr(rpc_conn_error(c), "is a 'metad', expected chunkd"));
    rpc_conn_unref(c);
    side_stop(&cli);
    side_stop(&srv);
}

/* ---- timers ---- */

struct order {
    struct side *s;
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
    struct side s;
    struct rpc_config one = client_cfg;
    struct order o = {.s = &s};
    struct order_item a = {&o, 0}, b = {&o, 1}, c = {&o, 2};

    (void)state;
    one.threads = 1;
    side_start(&s, &one, false);
    int64_t t0 = clock_mono();
    rpc_loop_defer(s.loop, 100, order_fn, &c);
    rpc_loop_defer(s.loop, 30, order_fn, &b);
    rpc_loop_defer(s.loop, 0, order_fn, &a);
    rpc_loop_defer(s.loop, 100000, order_fn, &c); /* dropped by rpc_loop_free */
    wait_for(&s, &o.n, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(o.seq[i], i);
    assert_true(o.at[1] - t0 >= 30 * NSEC_PER_MSEC);
    assert_true(o.at[2] - t0 >= 100 * NSEC_PER_MSEC);
    side_stop(&s);
}

/* ---- hostile peers: raw sockets ---- */

static int raw_connect(int port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval tv = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), 0);
    return fd;
}

static size_t raw_frame(uint8_t *out, const Replfs__Envelope *env, uint32_t payload_len)
{
    size_t n = replfs__envelope__pack(env, out + FRAME_HEADER);
    frame_encode(out, out + FRAME_HEADER, (uint32_t)n, payload_len);
    return n + FRAME_HEADER;
}

static size_t raw_hello(uint8_t *out, uint32_t version, uint32_t min_version, const char *role)
{
    Replfs__Hello h = REPLFS__HELLO__INIT;
    h.version = version;
    h.min_version = min_version;
    h.role = (char *)(uintptr_t)role;
    RPC_ENVELOPE(env, HELLO, hello, &h);
    return raw_frame(out, &env, 0);
}

static void raw_send(int fd, const void *p, size_t n)
{
    assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), (ssize_t)n);
}

/* Reads one frame's envelope; false at the end of the stream (or reset). */
static bool raw_recv(int fd, struct message *m)
{
    uint8_t h[FRAME_HEADER], env[4096];
    struct frame f;
    const char *why;

    if (recv(fd, h, sizeof h, MSG_WAITALL) != sizeof h)
        return false;
    assert_int_equal(frame_decode(h, &f, &why), 0);
    assert_true(f.env_len <= sizeof env);
    assert_int_equal(recv(fd, env, f.env_len, MSG_WAITALL), (ssize_t)f.env_len);
    assert_int_equal(frame_check(h, env, f.env_len), 0);
    assert_int_equal(message_unpack(m, env, f.env_len), 0);
    return true;
}

static void raw_expect_failure(int fd, uint32_t code)
{
    struct message m;

    assert_true(raw_recv(fd, &m));
    assert_int_equal(m.env->body_case, REPLFS__ENVELOPE__BODY_FAILURE);
    assert_int_equal(m.env->failure->code, code);
    message_free(&m);
    assert_false(raw_recv(fd, &m));
}

static void raw_greet(int fd)
{
    uint8_t b[512];
    struct message m;

    raw_send(fd, b, raw_hello(b, 1, 1, "client"));
    assert_true(raw_recv(fd, &m));
    assert_int_equal(m.env->body_case, REPLFS__ENVELOPE__BODY_HELLO);
    assert_true(m.env->is_reply);
    message_free(&m);
}

static void test_hostile_peers(void **state)
{
    struct side srv;
    uint8_t b[1024];
    struct message m;
    Replfs__GetattrReq body = REPLFS__GETATTR_REQ__INIT;

    (void)state;
    side_start(&srv, &server_cfg, true);
    body.ino = ECHO;
    RPC_ENVELOPE(req, GETATTR_REQ, getattr_req, &body);

    int fd = raw_connect(srv.port); /* newer only */
    raw_send(fd, b, raw_hello(b, 9, 9, "client"));
    raw_expect_failure(fd, ERR_VERSION);
    close(fd);
    fd = raw_connect(srv.port); /* newer, but still speaks ours */
    raw_send(fd, b, raw_hello(b, 9, 1, "client"));
    assert_true(raw_recv(fd, &m));
    assert_int_equal(m.env->body_case, REPLFS__ENVELOPE__BODY_HELLO);
    message_free(&m);
    close(fd);
    fd = raw_connect(srv.port); /* older */
    raw_send(fd, b, raw_hello(b, 0, 0, "client"));
    raw_expect_failure(fd, ERR_VERSION);
    close(fd);
    fd = raw_connect(srv.port); /* no such role */
    raw_send(fd, b, raw_hello(b, 1, 1, "king"));
    raw_expect_failure(fd, ERR_ROLE);
    close(fd);
    fd = raw_connect(srv.port); /* request before Hello */
    raw_send(fd, b, raw_frame(b, &req, 0));
    assert_false(raw_recv(fd, &m));
    close(fd);
    fd = raw_connect(srv.port); /* a header that promises a huge Hello */
    memset(b, 0, FRAME_HEADER);
    frame_encode(b, b, 0, 0);
    b[6] = 1;
    raw_send(fd, b, FRAME_HEADER);
    assert_false(raw_recv(fd, &m));
    close(fd);
    fd = raw_connect(srv.port); /* another protocol */
    raw_send(fd, "GET / HTTP/1.1\r\n\r\n", 18);
    assert_false(raw_recv(fd, &m));
    close(fd);
    fd = raw_connect(srv.port); /* bad CRC */
    raw_greet(fd);
    size_t n = raw_frame(b, &req, 0);
    b[n - 1] ^= 1;
    raw_send(fd, b, n);
    assert_false(raw_recv(fd, &m));
    close(fd);
    fd = raw_connect(srv.port); /* a reply to nothing */
    raw_greet(fd);
    req.is_reply = true;
    raw_send(fd, b, raw_frame(b, &req, 0));
    req.is_reply = false;
    assert_false(raw_recv(fd, &m));
    close(fd);
    fd = raw_connect(srv.port); /* one byte at a time is fine */
    raw_greet(fd);
    n = raw_frame(b, &req, 0);
    for (size_t i = 0; i < n; i++)
        raw_send(fd, b + i, 1);
    assert_true(raw_recv(fd, &m));
    assert_int_equal(m.env->body_case, REPLFS__ENVELOPE__BODY_GETATTR_REPLY);
    message_free(&m);
    close(fd);
    side_stop(&srv);
}

static void test_oversized(void **state)
{
    struct side srv;
    struct message m;
    uint8_t b[FRAME_HEADER];

    (void)state;
    side_start(&srv, &server_cfg, true);
    for (int what = 0; what < 2; what++) {
        int fd = raw_connect(srv.port);
        raw_greet(fd);
        frame_encode(b, b, 0, what ? RPC_MAX_PAYLOAD + 1 : 0);
        if (!what)
            memset(b + 4, 0x7f, 4); /* envelope length */
        raw_send(fd, b, sizeof b);
        assert_false(raw_recv(fd, &m));
        close(fd);
    }
    side_stop(&srv);
}

static void test_too_many_requests(void **state)
{
    static struct side srv;
    uint8_t b[256];
    struct message m;
    Replfs__GetattrReq body = REPLFS__GETATTR_REQ__INIT;

    (void)state;
    side_start(&srv, &server_cfg, true);
    int fd = raw_connect(srv.port);
    raw_greet(fd);
    body.ino = NEVER;
    RPC_ENVELOPE(req, GETATTR_REQ, getattr_req, &body);
    size_t n = raw_frame(b, &req, 0);
    for (int i = 0; i < RPC_MAX_INFLIGHT; i++)
        raw_send(fd, b, n);
    wait_for(&srv, &srv.requests, RPC_MAX_INFLIGHT);
    assert_int_equal(srv.closed, 0);
    raw_send(fd, b, n);
    assert_false(raw_recv(fd, &m));
    wait_for(&srv, &srv.closed, 1);
    assert_int_equal(srv.requests, RPC_MAX_INFLIGHT);
    close(fd);
    side_stop(&srv);
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
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_peer_dies_mid_call),
        cmocka_unit_test(test_loop_free_ends_calls),
        cmocka_unit_test(test_connect_refused),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_insecure_listens_everywhere),
        cmocka_unit_test(test_wrong_expectation),
        cmocka_unit_test(test_defer),
        cmocka_unit_test(test_hostile_peers),
        cmocka_unit_test(test_oversized),
        cmocka_unit_test(test_too_many_requests),
    };
    log_init("test_rpc", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
