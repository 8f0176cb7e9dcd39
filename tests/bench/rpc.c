/* Round trips and payload throughput of rpc over loopback, in one process with two loops.
 * Usage: bench_rpc [DIR-WITH-mkpki-FILES]: with a directory that holds ca.pem, srv.* (metad) and
 * cli.* (client) the same over TLS. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "rpc/rpc.h"

static bool echo_payload;

static void on_request(void *arg, struct rpc_req *req)
{
    Replfs__GetattrReply body = REPLFS__GETATTR_REPLY__INIT;

    (void)arg;
    RPC_ENVELOPE(rep, GETATTR_REPLY, getattr_reply, &body);
    rpc_reply(req, &rep, echo_payload ? buf_ref(req->payload) : NULL);
}

static struct {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int inflight, failed;
} flow = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};

static void done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)arg;
    (void)rep;
    (void)payload;
    pthread_mutex_lock(&flow.lock);
    flow.inflight--;
    flow.failed += code != 0;
    pthread_cond_signal(&flow.cond);
    pthread_mutex_unlock(&flow.lock);
}

static void fill(Replfs__Envelope *req, Replfs__GetattrReq *body)
{
    replfs__getattr_req__init(body);
    replfs__envelope__init(req);
    body->ino = 1;
    req->body_case = REPLFS__ENVELOPE__BODY_GETATTR_REQ;
    req->getattr_req = body;
}

/* Calls per second with `depth` in flight, each with b as payload. */
static double run(struct rpc_conn *c, int n, int depth, struct buf *b)
{
    Replfs__GetattrReq body;
    Replfs__Envelope req;
    int64_t t0 = clock_mono();

    for (int i = 0; i < n; i++) {
        pthread_mutex_lock(&flow.lock);
        while (flow.inflight >= depth)
            pthread_cond_wait(&flow.cond, &flow.lock);
        flow.inflight++;
        pthread_mutex_unlock(&flow.lock);
        fill(&req, &body);
        rpc_call(c, &req, buf_ref(b), 60000, done, NULL);
    }
    pthread_mutex_lock(&flow.lock);
    while (flow.inflight > 0)
        pthread_cond_wait(&flow.cond, &flow.lock);
    pthread_mutex_unlock(&flow.lock);
    return n / ((double)(clock_mono() - t0) / NSEC_PER_SEC);
}

static double round_trip_us(struct rpc_conn *c, int n)
{
    int64_t t0 = clock_mono();

    for (int i = 0; i < n; i++) {
        Replfs__GetattrReq body;
        Replfs__Envelope req;
        struct rpc_result r;
        fill(&req, &body);
        if (rpc_call_wait(c, &req, NULL, 10000, &r) != 0)
            flow.failed++;
        rpc_result_free(&r);
    }
    return (double)(clock_mono() - t0) / 1000 / n;
}

static void use_tls(struct rpc_config *cfg, const char *dir, const char *name, char paths[3][512])
{
    snprintf(paths[0], 512, "%s/%s.pem", dir, name);
    snprintf(paths[1], 512, "%s/%s.key", dir, name);
    snprintf(paths[2], 512, "%s/ca.pem", dir);
    cfg->tls_cert = paths[0];
    cfg->tls_key = paths[1];
    cfg->tls_ca = paths[2];
}

int main(int argc, char **argv)
{
    struct rpc_config sc = {.role = RPC_ROLE_METAD, .name = "srv", .threads = 2};
    struct rpc_config cc = {.role = RPC_ROLE_CLIENT, .name = "cli", .threads = 1};
    const struct rpc_service svc = {.request = on_request};
    struct rpc_loop *srv, *cli;
    struct rpc_conn *c;
    static char sp[3][512], cp[3][512];
    char addr[64];
    int port = 0;

    log_init("bench_rpc", LOG_LVL_WARN, NULL);
    if (argc > 1) {
        use_tls(&sc, argv[1], "srv", sp);
        use_tls(&cc, argv[1], "cli", cp);
    }
    if (rpc_loop_new(&sc, &srv) < 0 || rpc_loop_new(&cc, &cli) < 0 ||
        rpc_listen(srv, "127.0.0.1:0", &svc, &port) < 0)
        return 1;
    snprintf(addr, sizeof addr, "127.0.0.1:%d", port);
    if (rpc_dial(cli, addr, RPC_ROLE_METAD, NULL, &c) < 0)
        return 1;
    struct buf *b = buf_new(1 << 20);
    b->len = 1 << 20;
    memset(b->data, 7, b->len);
    round_trip_us(c, 2000); /* warm-up */
    printf("round trip, one caller waiting    %8.1f us\n", round_trip_us(c, 20000));
    printf("small calls, 64 in flight         %8.0f /s\n", run(c, 200000, 64, NULL));
    run(c, 64, 8, b);
    printf("1 MiB payload out, 8 in flight    %8.0f MB/s\n", run(c, 2000, 8, b) * 1.048576);
    echo_payload = true;
    printf("1 MiB payload both ways, 8        %8.0f MB/s\n", run(c, 1000, 8, b) * 2 * 1.048576);
    buf_unref(b);
    rpc_conn_unref(c);
    rpc_loop_free(cli);
    rpc_loop_free(srv);
    return flow.failed ? 1 : 0;
}
