/* Two sides of rpc on loopback sockets: each a loop with a service that echoes, swallows or
 * refuses, by the inode it is asked for, and counts what happens. Every wait ends when its
 * condition holds, or fails the test after 10 s. */
#ifndef REPLFS_TESTS_RPC_RIG_H
#define REPLFS_TESTS_RPC_RIG_H
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
#include "wait.h"

/* ---- a service: echoes, swallows or refuses, by the inode asked for ---- */

enum { ECHO = 1, NEVER = 2, REFUSE = 3, LATER = 4, BACK = 5, HUGE_REPLY = 6 };

struct rpc_rig_side {
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

static void rpc_rig_echo_reply(struct rpc_req *req)
{
    Replfs__GetattrReply body = REPLFS__GETATTR_REPLY__INIT;

    RPC_ENVELOPE(rep, GETATTR_REPLY, getattr_reply, &body);
    rpc_reply(req, &rep, buf_ref(req->payload));
}

static void rpc_rig_huge_reply(struct rpc_req *req)
{
    Replfs__ReadlinkReply body = REPLFS__READLINK_REPLY__INIT;
    body.target.len = RPC_MAX_ENVELOPE;
    body.target.data = calloc(1, body.target.len);
    RPC_ENVELOPE(rep, READLINK_REPLY, readlink_reply, &body);
    rpc_reply(req, &rep, NULL);
    free(body.target.data);
}

static void rpc_rig_later_fn(void *arg)
{
    rpc_rig_echo_reply(arg);
}

static void rpc_rig_back_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct rpc_rig_side *s = arg;

    (void)rep;
    (void)payload;
    pthread_mutex_lock(&s->lock);
    s->back_replies++;
    s->back_code = code;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

static void rpc_rig_call_ino(struct rpc_conn *c, uint64_t ino, struct buf *payload, unsigned ms,
                             rpc_done *done, void *arg)
{
    Replfs__GetattrReq body = REPLFS__GETATTR_REQ__INIT;
    body.ino = ino;
    RPC_ENVELOPE(req, GETATTR_REQ, getattr_req, &body);
    rpc_call(c, &req, payload, ms, done, arg);
}

static void rpc_rig_on_request(void *arg, struct rpc_req *req)
{
    struct rpc_rig_side *s = arg;
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
        rpc_rig_echo_reply(req);
    else if (what == LATER)
        rpc_loop_defer(s->loop, 1, rpc_rig_later_fn, req);
    else if (what == HUGE_REPLY)
        rpc_rig_huge_reply(req);
    else if (what == BACK) {
        rpc_rig_call_ino(req->conn, ECHO, NULL, 5000, rpc_rig_back_done, s);
        rpc_rig_echo_reply(req);
    } else if (what == REFUSE)
        rpc_fail(req, ERR_NO_CHUNK, "nothing like %d here", REFUSE);
}

static void rpc_rig_on_opened(void *arg, struct rpc_conn *c)
{
    struct rpc_rig_side *s = arg;

    pthread_mutex_lock(&s->lock);
    s->opened++;
    rpc_conn_unref(s->conn);
    s->conn = rpc_conn_ref(c);
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

static void rpc_rig_on_closed(void *arg, struct rpc_conn *c)
{
    struct rpc_rig_side *s = arg;

    (void)c;
    pthread_mutex_lock(&s->lock);
    s->closed++;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
}

/* Until *v >= n. */
static inline void rpc_rig_wait(struct rpc_rig_side *s, const int *v, int n)
{
    WAIT_LOCKED(&s->lock, *v >= n);
}

static void rpc_rig_side_start(struct rpc_rig_side *s, const struct rpc_config *cfg,
                               bool listen_too)
{
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->cond, NULL);
    s->svc = (struct rpc_service){rpc_rig_on_request, rpc_rig_on_opened, rpc_rig_on_closed, s,
                                  "test-cluster"};
    assert_int_equal(rpc_loop_new(cfg, &s->loop), 0);
    if (listen_too) {
        assert_int_equal(rpc_listen(s->loop, "127.0.0.1:0", &s->svc, &s->port), 0);
        snprintf(s->addr, sizeof s->addr, "127.0.0.1:%d", s->port);
    }
}

static void rpc_rig_side_stop(struct rpc_rig_side *s)
{
    for (int i = 0; i < s->nkept; i++)
        rpc_fail(s->kept[i], ERR_BUSY, "never");
    rpc_loop_free(s->loop);
    rpc_conn_unref(s->conn);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->cond);
}

/* Tests with sockets of their own say true: else a loopback address is a UNIX socket, see rpc/local.c. */
#ifndef RPC_RIG_INSECURE
#define RPC_RIG_INSECURE false
#endif
static const struct rpc_config rpc_rig_server_cfg = {
    .role = RPC_ROLE_METAD, .name = "srv", .threads = 2, .insecure = RPC_RIG_INSECURE};
static const struct rpc_config rpc_rig_client_cfg = {
    .role = RPC_ROLE_CLIENT, .name = "cli", .threads = 2, .insecure = RPC_RIG_INSECURE};

struct rpc_rig {
    struct rpc_rig_side srv, cli;
    struct rpc_conn *c;
};

static inline void rpc_rig_start(struct rpc_rig *p)
{
    rpc_rig_side_start(&p->srv, &rpc_rig_server_cfg, true);
    rpc_rig_side_start(&p->cli, &rpc_rig_client_cfg, false);
    assert_int_equal(rpc_dial(p->cli.loop, p->srv.addr, RPC_ROLE_METAD, &p->cli.svc, &p->c), 0);
}

static inline void rpc_rig_stop(struct rpc_rig *p)
{
    rpc_conn_unref(p->c);
    rpc_rig_side_stop(&p->cli);
    rpc_rig_side_stop(&p->srv);
}

static int rpc_rig_ask(struct rpc_conn *c, uint64_t ino, struct buf *payload, unsigned ms,
                       struct rpc_result *r)
{
    Replfs__GetattrReq body = REPLFS__GETATTR_REQ__INIT;
    body.ino = ino;
    RPC_ENVELOPE(req, GETATTR_REQ, getattr_req, &body);
    return rpc_call_wait(c, &req, payload, ms, r);
}

static int rpc_rig_ask_code(struct rpc_conn *c, uint64_t ino, unsigned ms)
{
    struct rpc_result r;
    int rc = rpc_rig_ask(c, ino, NULL, ms, &r);
    rpc_result_free(&r);
    return rc;
}

/* ---- replies counted ---- */

struct rpc_rig_counter {
    struct rpc_rig_side *s;
    int ok, bad;
};

__attribute__((unused)) static void
rpc_rig_count_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct rpc_rig_counter *n = arg;

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

#endif
