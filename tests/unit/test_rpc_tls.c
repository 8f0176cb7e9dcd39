/* TLS between two loops, with certificates made by scripts/mkpki: who is let in, who is not, and
 * what the refused side is told. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "rpc/frame.h"
#include "rpc/rpc.h"

static char dir[] = "/tmp/replfs-tls-XXXXXX";

#define SH(...)                                                                                    \
    do {                                                                                           \
        char cmd_[4096];                                                                           \
        snprintf(cmd_, sizeof cmd_, __VA_ARGS__);                                                  \
        assert_int_equal(system(cmd_), 0);                                                         \
    } while (0)

/* This file's path leads to the script, wherever the build directory is. */
static void script_path(char *out, size_t len)
{
    const char *tests = strstr(__FILE__, "tests/unit/");
    snprintf(out, len, "%.*sscripts/mkpki", tests ? (int)(tests - __FILE__) : 0, __FILE__);
}

static int setup(void **state)
{
    char mkpki[512];

    (void)state;
    script_path(mkpki, sizeof mkpki);
    assert_non_null(mkdtemp(dir));
    SH("%s %s/a ca >/dev/null && %s %s/b ca >/dev/null", mkpki, dir, mkpki, dir);
    SH("%s %s/a metad srv >/dev/null && %s %s/a client cli >/dev/null", mkpki, dir, mkpki, dir);
    SH("%s %s/b client cli >/dev/null && %s %s/a chunkd store >/dev/null", mkpki, dir, mkpki, dir);
    /* Signed by the right CA, but names no role. */
    SH("cd %s/a && openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "
       "no.key "
       "-subj /CN=norole -out no.csr 2>/dev/null && openssl x509 -req -in no.csr -CA ca.pem -CAkey "
       "ca.key -set_serial 7 -days 10 -out no.pem 2>/dev/null",
       dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    SH("rm -rf %s", dir);
    return 0;
}

struct ident {
    char cert[128], key[128], ca[128];
};

static struct rpc_config config(struct ident *id, enum rpc_role role, const char *sub,
                                const char *name)
{
    struct rpc_config cfg = {.role = role, .name = "unsaid", .threads = 1};

    snprintf(id->cert, sizeof id->cert, "%s/%s/%s.pem", dir, sub, name);
    snprintf(id->key, sizeof id->key, "%s/%s/%s.key", dir, sub, name);
    snprintf(id->ca, sizeof id->ca, "%s/%s/ca.pem", dir, sub);
    cfg.tls_cert = id->cert;
    cfg.tls_key = id->key;
    cfg.tls_ca = id->ca;
    return cfg;
}

static void on_request(void *arg, struct rpc_req *req)
{
    Replfs__GetattrReply body = REPLFS__GETATTR_REPLY__INIT;

    (void)arg;
    RPC_ENVELOPE(rep, GETATTR_REPLY, getattr_reply, &body);
    rpc_reply(req, &rep, buf_ref(req->payload));
}

static const struct rpc_service svc = {.request = on_request};

struct server {
    struct rpc_loop *loop;
    char addr[64];
};

static void server_start(struct server *s, const char *listen_on)
{
    struct ident id;
    struct rpc_config cfg = config(&id, RPC_ROLE_METAD, "a", "srv");
    int port = 0;

    assert_int_equal(rpc_loop_new(&cfg, &s->loop), 0);
    assert_int_equal(rpc_listen(s->loop, listen_on, &svc, &port), 0);
    snprintf(s->addr, sizeof s->addr, "127.0.0.1:%d", port);
}

static int ask(struct rpc_conn *c, struct buf *payload, struct rpc_result *r)
{
    Replfs__GetattrReq body = REPLFS__GETATTR_REQ__INIT;
    RPC_ENVELOPE(req, GETATTR_REQ, getattr_req, &body);
    return rpc_call_wait(c, &req, payload, 10000, r);
}

/* Dials with cfg; returns the call's code and copies the connection's error. */
static int try_call(const struct rpc_config *cfg, const char *addr, unsigned expect,
                    char error[512])
{
    struct rpc_loop *loop;
    struct rpc_conn *c;
    struct rpc_result r;

    assert_int_equal(rpc_loop_new(cfg, &loop), 0);
    assert_int_equal(rpc_dial(loop, addr, expect, NULL, &c), 0);
    int rc = ask(c, NULL, &r);
    rpc_result_free(&r);
    snprintf(error, 512, "%s", rpc_conn_error(c));
    rpc_conn_unref(c);
    rpc_loop_free(loop);
    return rc;
}

static void test_accepted(void **state)
{
    struct server s;
    struct ident id;
    struct rpc_config cfg = config(&id, RPC_ROLE_CLIENT, "a", "cli");
    struct rpc_loop *loop;
    struct rpc_conn *c;
    struct rpc_result r;

    (void)state;
    server_start(&s, ":0"); /* with TLS all addresses are allowed */
    assert_int_equal(rpc_loop_new(&cfg, &loop), 0);
    assert_int_equal(rpc_dial(loop, s.addr, RPC_ROLE_METAD, NULL, &c), 0);
    for (size_t len = 0; len <= RPC_MAX_PAYLOAD; len += RPC_MAX_PAYLOAD / 8) {
        struct buf *b = len ? buf_new(len) : NULL;
        if (b) {
            b->len = len;
            memset(b->data, (int)len % 251 + 1, len);
        }
        assert_int_equal(ask(c, buf_ref(b), &r), 0);
        if (b) {
            assert_int_equal(r.payload->len, len);
            assert_memory_equal(r.payload->data, b->data, len);
        }
        rpc_result_free(&r);
        buf_unref(b);
    }
    assert_string_equal(rpc_conn_peer(c)->name, "srv"); /* from the certificate */
    assert_int_equal(rpc_conn_peer(c)->role, RPC_ROLE_METAD);
    rpc_conn_unref(c);
    rpc_loop_free(loop);
    rpc_loop_free(s.loop);
}

struct hammer {
    struct rpc_conn *c;
    int bad;
};

static void *hammer_main(void *arg)
{
    struct hammer *h = arg;

    for (size_t i = 0; i < 100; i++) {
        struct rpc_result r;
        struct buf *b = buf_new(200000);
        b->len = 1 + i * 1999;
        memset(b->data, (int)i, b->len);
        if (ask(h->c, buf_ref(b), &r) != 0 || !r.payload || r.payload->len != b->len ||
            memcmp(r.payload->data, b->data, b->len) != 0)
            h->bad++;
        rpc_result_free(&r);
        buf_unref(b);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct server s;
    struct ident id;
    struct rpc_config cfg = config(&id, RPC_ROLE_CLIENT, "a", "cli");
    struct rpc_loop *loop;
    struct hammer h[4];
    pthread_t t[4];

    (void)state;
    server_start(&s, "127.0.0.1:0");
    assert_int_equal(rpc_loop_new(&cfg, &loop), 0);
    struct rpc_conn *c;
    assert_int_equal(rpc_dial(loop, s.addr, RPC_ROLE_METAD, NULL, &c), 0);
    for (int i = 0; i < 4; i++) {
        h[i] = (struct hammer){c, 0};
        assert_int_equal(pthread_create(&t[i], NULL, hammer_main, &h[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(h[i].bad, 0);
    }
    rpc_conn_unref(c);
    rpc_loop_free(loop);
    rpc_loop_free(s.loop);
}

static void test_refused(void **state)
{
    struct server s;
    struct ident id;
    struct rpc_config cfg;
    char error[512];

    (void)state;
    server_start(&s, "127.0.0.1:0");
    /* Each side's CA does not know the other: the client finds out first. */
    cfg = config(&id, RPC_ROLE_CLIENT, "b", "cli");
    assert_true(try_call(&cfg, s.addr, RPC_ROLE_ANY, error) < 0);
    assert_non_null(strstr(error, "we refuse the peer's certificate"));
    assert_non_null(strstr(error, s.addr));
    assert_non_null(strstr(error, "mkpki"));
    /* The client trusts the server's CA, but not the other way round: told by an alert. */
    snprintf(id.ca, sizeof id.ca, "%s/a/ca.pem", dir);
    assert_true(try_call(&cfg, s.addr, RPC_ROLE_ANY, error) < 0);
    assert_non_null(strstr(error, "alert unknown ca"));
    assert_non_null(strstr(error, "mkpki"));
    /* The server is no chunkd. */
    cfg = config(&id, RPC_ROLE_CLIENT, "a", "cli");
    assert_int_equal(try_call(&cfg, s.addr, RPC_ROLE_CHUNKD, error), -ERR_ROLE);
    assert_non_null(strstr(error, "expected chunkd"));
    /* Plaintext to a TLS port. */
    struct rpc_config plain = {.role = RPC_ROLE_CLIENT, .threads = 1, .insecure = true};
    assert_true(try_call(&plain, s.addr, RPC_ROLE_ANY, error) < 0);
    assert_non_null(strstr(error, "TLS"));
    rpc_loop_free(s.loop);
}

static void test_tls_to_plaintext(void **state)
{
    struct rpc_config plain = {.role = RPC_ROLE_METAD, .threads = 1, .insecure = true};
    struct ident id;
    struct rpc_config cfg = config(&id, RPC_ROLE_CLIENT, "a", "cli");
    struct rpc_loop *loop;
    char error[512], addr[64];
    int port = 0;

    (void)state;
    assert_int_equal(rpc_loop_new(&plain, &loop), 0);
    assert_int_equal(rpc_listen(loop, "127.0.0.1:0", &svc, &port), 0);
    snprintf(addr, sizeof addr, "127.0.0.1:%d", port);
    assert_true(try_call(&cfg, addr, RPC_ROLE_ANY, error) < 0);
    assert_non_null(strstr(error, "TLS"));
    assert_non_null(strstr(error, addr));
    rpc_loop_free(loop);
}

/* A client's certificate whose owner says in Hello that it is a metad. */
static void test_role_lie(void **state)
{
    struct server s;
    struct ident id;
    struct rpc_config cfg = config(&id, RPC_ROLE_CLIENT, "a", "cli");
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    Replfs__Hello h = REPLFS__HELLO__INIT;
    uint8_t b[4096];
    const char *why;
    struct frame f;
    struct message m;

    (void)state;
    server_start(&s, "127.0.0.1:0");
    sa.sin_port = htons((uint16_t)atoi(strrchr(s.addr, ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof sa), 0);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_use_certificate_file(ctx, cfg.tls_cert, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, cfg.tls_key, SSL_FILETYPE_PEM), 1);
    SSL *ssl = SSL_new(ctx);
    SSL_set_fd(ssl, fd);
    assert_int_equal(SSL_connect(ssl), 1);
    h.version = h.min_version = RPC_PROTO_VERSION;
    h.role = (char *)(uintptr_t) "metad";
    RPC_ENVELOPE(env, HELLO, hello, &h);
    size_t n = replfs__envelope__pack(&env, b + FRAME_HEADER);
    frame_encode(b, b + FRAME_HEADER, (uint32_t)n, 0);
    assert_int_equal(SSL_write(ssl, b, (int)(n + FRAME_HEADER)), (int)(n + FRAME_HEADER));
    int got = SSL_read(ssl, b, sizeof b); /* small: one record */
    assert_true(got > (int)FRAME_HEADER);
    assert_int_equal(frame_decode(b, &f, &why), 0);
    assert_int_equal(f.env_len + FRAME_HEADER, got);
    assert_int_equal(message_unpack(&m, b + FRAME_HEADER, f.env_len), 0);
    assert_int_equal(m.env->body_case, REPLFS__ENVELOPE__BODY_FAILURE);
    assert_int_equal(m.env->failure->code, ERR_ROLE);
    assert_non_null(strstr(m.env->failure->detail, "its certificate (CN=cli) is for 'client'"));
    message_free(&m);
    assert_true(SSL_read(ssl, b, sizeof b) <= 0); /* and closes */
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
    rpc_loop_free(s.loop);
}

/* Material that cannot work is refused at start. */
static void test_bad_material(void **state)
{
    struct ident id;
    struct rpc_config cfg;
    struct rpc_loop *loop;

    (void)state;
    cfg = config(&id, RPC_ROLE_CHUNKD, "a", "cli"); /* a client's certificate */
    assert_int_equal(rpc_loop_new(&cfg, &loop), -EINVAL);
    cfg = config(&id, RPC_ROLE_CLIENT, "a", "no"); /* no role */
    assert_int_equal(rpc_loop_new(&cfg, &loop), -EINVAL);
    cfg = config(&id, RPC_ROLE_CLIENT, "a", "missing");
    assert_int_equal(rpc_loop_new(&cfg, &loop), -EINVAL);
    cfg = config(&id, RPC_ROLE_CLIENT, "a", "cli");
    cfg.tls_ca = NULL;
    assert_int_equal(rpc_loop_new(&cfg, &loop), -EINVAL);
    cfg = config(&id, RPC_ROLE_CLIENT, "a", "cli"); /* key of another certificate */
    snprintf(id.key, sizeof id.key, "%s/a/srv.key", dir);
    assert_int_equal(rpc_loop_new(&cfg, &loop), -EINVAL);
}

/* When our certificate ends is known, and read again; files that went bad change nothing. */
static void test_reload(void **state)
{
    struct server s;
    struct ident id;
    struct rpc_config cfg = config(&id, RPC_ROLE_CLIENT, "a", "cli"), plain = {.threads = 1};
    struct rpc_loop *loop;
    char error[512], away[300];
    int64_t now = clock_wall() / NSEC_PER_SEC;

    (void)state;
    plain.role = RPC_ROLE_CLIENT;
    assert_int_equal(rpc_loop_new(&plain, &loop), 0);
    assert_int_equal(rpc_cert_end(loop), 0);
    assert_int_equal(rpc_loop_reload_tls(loop), 0);
    rpc_loop_free(loop);
    server_start(&s, "127.0.0.1:0");
    int64_t end = rpc_cert_end(s.loop);
    assert_true(end > now && end < now + 100 * 366 * 86400ll);
    assert_int_equal(try_call(&cfg, s.addr, RPC_ROLE_ANY, error), 0);
    assert_int_equal(rpc_loop_reload_tls(s.loop), 0);
    assert_int_equal(rpc_cert_end(s.loop), end);
    assert_int_equal(try_call(&cfg, s.addr, RPC_ROLE_ANY, error), 0);
    rpc_loop_free(s.loop);
    /* the file is gone for a moment: what was read stays in use */
    assert_int_equal(rpc_loop_new(&cfg, &loop), 0);
    snprintf(away, sizeof away, "%s.away", cfg.tls_cert);
    assert_int_equal(rename(cfg.tls_cert, away), 0);
    assert_true(rpc_loop_reload_tls(loop) < 0);
    assert_true(rpc_cert_end(loop) > now);
    assert_int_equal(rename(away, cfg.tls_cert), 0);
    rpc_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_tls_to_plaintext),
        cmocka_unit_test(test_role_lie), cmocka_unit_test(test_bad_material),
        cmocka_unit_test(test_reload),
    };
    log_init("test_rpc_tls", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, setup, teardown);
}
