/* Time-outs, death of the peer, peers that are not who was expected, and everything a hostile or
 * mismatched one can send. */
#define RPC_RIG_INSECURE true
#include "rpc_rig.h"
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- time-outs and death ---- */

static void test_timeout(void **state)
{
    struct rpc_rig p;
    struct rpc_rig_counter n = {.s = &p.cli};

    (void)state;
    rpc_rig_start(&p);
    assert_int_equal(rpc_rig_ask_code(p.c, ECHO, 5000), 0);
    int64_t t0 = clock_mono();
    assert_int_equal(rpc_rig_ask_code(p.c, NEVER, 100), -ERR_TIMEOUT);
    int64_t ms = (clock_mono() - t0) / NSEC_PER_MSEC;
    assert_in_range(ms, 99, 5000);
    /* Short ones behind long ones end first. */
    rpc_rig_call_ino(p.c, NEVER, NULL, 60000, rpc_rig_count_done, &n);
    for (int i = 0; i < 20; i++)
        rpc_rig_call_ino(p.c, NEVER, NULL, 50 + (unsigned)i, rpc_rig_count_done, &n);
    rpc_rig_wait(&p.cli, &n.bad, 20);
    assert_int_equal(n.bad, 20);
    /* Late replies are dropped and the connection goes on. */
    rpc_rig_wait(&p.srv, &p.srv.nkept, 22);
    for (int i = 0; i < p.srv.nkept; i++)
        rpc_rig_echo_reply(p.srv.kept[i]);
    p.srv.nkept = 0;
    rpc_rig_wait(&p.cli, &n.ok, 1);
    assert_int_equal(rpc_rig_ask_code(p.c, ECHO, 5000), 0);
    assert_int_equal(n.bad, 20);
    rpc_rig_stop(&p);
}

static void test_peer_dies_mid_call(void **state)
{
    struct rpc_rig p;
    struct rpc_rig_counter n = {.s = &p.cli};

    (void)state;
    rpc_rig_start(&p);
    for (int i = 0; i < 10; i++)
        rpc_rig_call_ino(p.c, NEVER, NULL, 60000, rpc_rig_count_done, &n);
    rpc_rig_wait(&p.srv, &p.srv.nkept, 10);
    rpc_conn_close(p.srv.conn);
    rpc_rig_wait(&p.cli, &n.bad, 10);
    rpc_rig_wait(&p.cli, &p.cli.closed, 1);
    assert_false(rpc_conn_alive(p.c));
    assert_non_null(strstr(rpc_conn_error(p.c), "closed by the peer"));
    assert_int_equal(rpc_rig_ask_code(p.c, ECHO, 1000), -ERR_PEER_GONE);
    rpc_rig_stop(&p);
}

static void test_loop_free_ends_calls(void **state)
{
    struct rpc_rig p;
    struct rpc_rig_counter n;

    (void)state;
    rpc_rig_start(&p);
    n = (struct rpc_rig_counter){.s = &p.srv};
    for (int i = 0; i < 10; i++)
        rpc_rig_call_ino(p.c, NEVER, NULL, 60000, rpc_rig_count_done, &n);
    rpc_rig_wait(&p.srv, &p.srv.nkept, 10);
    rpc_loop_free(p.cli.loop);
    assert_int_equal(n.bad, 10);
    assert_false(rpc_conn_alive(p.c));
    assert_int_equal(rpc_rig_ask_code(p.c, ECHO, 1000), -ERR_SHUTDOWN);
    rpc_conn_unref(p.c);
    rpc_conn_unref(p.cli.conn);
    rpc_rig_side_stop(&p.srv);
}

static void test_connect_refused(void **state)
{
    struct rpc_rig_side cli;
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
    rpc_rig_side_start(&cli, &rpc_rig_client_cfg, false);
    assert_int_equal(rpc_dial(cli.loop, addr, RPC_ROLE_ANY, NULL, &c), 0);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, 5000), -ECONNREFUSED);
    assert_non_null(strstr(rpc_conn_error(c), addr));
    rpc_conn_unref(c);
    close(fd);
    rpc_rig_side_stop(&cli);
}

static void test_wrong_expectation(void **state)
{
    struct rpc_rig_side srv, cli;
    struct rpc_conn *c;

    (void)state;
    rpc_rig_side_start(&srv, &rpc_rig_server_cfg, true);
    rpc_rig_side_start(&cli, &rpc_rig_client_cfg, false);
    assert_int_equal(rpc_dial(cli.loop, srv.addr, RPC_ROLE_CHUNKD, NULL, &c), 0);
    assert_int_equal(rpc_rig_ask_code(c, ECHO, 5000), -ERR_ROLE);
    assert_non_null(strstr(rpc_conn_error(c), "is a 'metad', expected chunkd"));
    rpc_conn_unref(c);
    rpc_rig_side_stop(&cli);
    rpc_rig_side_stop(&srv);
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

    raw_send(fd, b, raw_hello(b, RPC_PROTO_VERSION, RPC_PROTO_VERSION, "client"));
    assert_true(raw_recv(fd, &m));
    assert_int_equal(m.env->body_case, REPLFS__ENVELOPE__BODY_HELLO);
    assert_true(m.env->is_reply);
    message_free(&m);
}

static void test_hostile_peers(void **state)
{
    struct rpc_rig_side srv;
    uint8_t b[1024];
    struct message m;
    Replfs__GetattrReq body = REPLFS__GETATTR_REQ__INIT;

    (void)state;
    rpc_rig_side_start(&srv, &rpc_rig_server_cfg, true);
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
    raw_send(fd, b, raw_hello(b, RPC_PROTO_VERSION, RPC_PROTO_VERSION, "king"));
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
    rpc_rig_side_stop(&srv);
}

static void test_oversized(void **state)
{
    struct rpc_rig_side srv;
    struct message m;
    uint8_t b[FRAME_HEADER];

    (void)state;
    rpc_rig_side_start(&srv, &rpc_rig_server_cfg, true);
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
    rpc_rig_side_stop(&srv);
}

/* A connection that was greeted, and in b the frame of a request for it that is not answered at once; its length. */
static size_t raw_request(int port, int *fd, uint8_t b[256])
{
    Replfs__GetattrReq body = REPLFS__GETATTR_REQ__INIT;
    RPC_ENVELOPE(req, GETATTR_REQ, getattr_req, &body);

    *fd = raw_connect(port);
    raw_greet(*fd);
    body.ino = NEVER;
    return raw_frame(b, &req, 0);
}

static void test_too_many_requests(void **state)
{
    static struct rpc_rig_side srv;
    uint8_t b[256];
    struct message m;
    int fd;

    (void)state;
    rpc_rig_side_start(&srv, &rpc_rig_server_cfg, true);
    size_t n = raw_request(srv.port, &fd, b);
    for (int i = 0; i < RPC_MAX_INFLIGHT; i++)
        raw_send(fd, b, n);
    rpc_rig_wait(&srv, &srv.requests, RPC_MAX_INFLIGHT);
    assert_int_equal(srv.closed, 0);
    raw_send(fd, b, n);
    assert_false(raw_recv(fd, &m));
    rpc_rig_wait(&srv, &srv.closed, 1);
    assert_int_equal(srv.requests, RPC_MAX_INFLIGHT);
    close(fd);
    rpc_rig_side_stop(&srv);
}

/* A child that was forked a moment ago, as for a checkpoint, still has copies of all descriptors while a connection is
 * closed: what its peer sends then is nobody's event. */
static void test_forked(void **state)
{
    static struct rpc_rig_side srv;
    uint8_t b[256];
    int fd;

    (void)state;
    rpc_rig_side_start(&srv, &rpc_rig_server_cfg, true);
    size_t n = raw_request(srv.port, &fd, b);
    raw_send(fd, b, n);
    rpc_rig_wait(&srv, &srv.requests, 1);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pause();
        _exit(0);
    }
    rpc_rig_echo_reply(srv.kept[0]); /* its connection can go */
    srv.nkept = 0;
    rpc_conn_close(srv.conn);
    rpc_rig_wait(&srv, &srv.closed, 1);
    for (int i = 0; i < 3; i++) {
        raw_send(fd, b, n);
        int other = raw_connect(srv.port); /* served by the same thread, behind that */
        raw_greet(other);
        close(other);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(fd);
    rpc_rig_side_stop(&srv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_peer_dies_mid_call),
        cmocka_unit_test(test_loop_free_ends_calls),
        cmocka_unit_test(test_connect_refused),
        cmocka_unit_test(test_wrong_expectation),
        cmocka_unit_test(test_hostile_peers),
        cmocka_unit_test(test_oversized),
        cmocka_unit_test(test_too_many_requests),
        cmocka_unit_test(test_forked),
    };
    log_init("test_rpc_faults", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
