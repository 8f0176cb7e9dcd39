/* The session thread: sends keepalives (with the oldest chunk we still hold, so that metad can tell garbage),
 * reconnects while nobody asks anything, tells closes in batches, and lets others tick (session_events). It also
 * sees that the computer was suspended: terms went on meanwhile. */
#include "client/session/keepalive.h"
#include <errno.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/lock.h"
#include "client/base/client_clock.h"
#include "client/cache/lease_cache.h"
#include "client/cache/lease_cache_give.h"
#include "client/internal.h"
#include "client/session/closes.h"
#include "client/session/connect.h"
#include "client/session/metads.h"
#include "client/session/session.h"

#define LOG_MODULE "session"
#define TICK_MS 100
#define SLEPT_NS (100 * NSEC_PER_MSEC)
#define HELD_MAX 4096u /* chunks named in a keepalive */

/* Those of the cluster may change while we are mounted. */
static void take_settings(struct client *c, const Replfs__KeepaliveReply *r)
{
    LOCK_SCOPE(&c->session.mu);
    if (r->lease_ms)
        c->session.lease_ms = r->lease_ms;
    if (r->default_min_copies)
        c->session.min_copies = r->default_min_copies;
    if (!r->term_ms || r->term_ms == c->session.term_ms)
        return;
    c->session.term_ms = r->term_ms;
    lease_cache_set_term(c->leases, r->term_ms);
}

static void keepalive(struct client *c)
{
    struct rpc_conn *conn = session_conn(c, clock_mono() + 2 * NSEC_PER_SEC);
    if (!conn)
        return;
    Replfs__KeepaliveReq m = REPLFS__KEEPALIVE_REQ__INIT;
    uint64_t held[HELD_MAX];
    m.session = session_id(c);
    m.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    lock_acquire(&c->session.mu);
    m.term_ms = c->session.term_ms;
    lock_release(&c->session.mu);
    c->session.events->holding(c, &m, held, HELD_MAX);
    RPC_ENVELOPE(env, KEEPALIVE_REQ, keepalive_req, &m);
    struct rpc_result res;
    int64_t sent = clock_boot();
    int rc = rpc_call_wait(conn, &env, NULL, 5000, &res);
    if (!rc && res.rep->body_case == REPLFS__ENVELOPE__BODY_KEEPALIVE_REPLY) {
        lease_cache_renew(c->leases, sent);
        take_settings(c, res.rep->keepalive_reply);
        client_told_time(c, res.rep->keepalive_reply->wall_ms);
        c->session.events->renewed(c, res.rep->keepalive_reply->nodes_epoch);
        session_saw(c, m.session, res.rep->keepalive_reply->position);
        metads_told(c, res.rep->keepalive_reply->metads, res.rep->keepalive_reply->n_metads);
    } else if (rc) {
        log_warn("keepalive to metad: %s", err_str(rc));
        unsigned busy = 10;
        session_attempt_failed(c, conn, &res, clock_mono() + NSEC_PER_SEC, &busy);
    }
    rpc_result_free(&res);
    rpc_conn_unref(conn);
}

/* The computer was suspended: terms went on, while the kernel's clock stood still, so that it would keep what
 * it was given for longer than it may. asleep: until now, in all. */
static void see_sleep(struct client *c, int64_t *asleep)
{
    int64_t now = clock_boot() - clock_mono(), more = now - *asleep;
    *asleep = now;
    if (more < SLEPT_NS)
        return;
    log_info("the computer was suspended for %lld s: what is cached is asked for anew",
             (long long)(more / NSEC_PER_SEC));
    lease_cache_tell_all(c->leases);
    uint64_t id;
    struct rpc_conn *conn = session_conn_now(c, &id);
    if (conn) /* as we come back, each lease is claimed again or forgotten */
        session_conn_again(c, conn);
    rpc_conn_unref(conn);
}

static void *session_thread(void *arg)
{
    struct client *c = arg;
    int64_t next_keepalive = 0, asleep = clock_boot() - clock_mono();
    while (!c->stopping) {
        int64_t now = clock_mono();
        see_sleep(c, &asleep);
        lock_acquire(&c->session.mu);
        bool alive = c->session.conn && rpc_conn_alive(c->session.conn);
        int64_t every = (int64_t)c->session.lease_ms / 6 * NSEC_PER_MSEC;
        int64_t renew = (int64_t)c->session.term_ms / 4 * NSEC_PER_MSEC;
        if (renew && every > renew)
            every = renew;
        lock_release(&c->session.mu);
        if (every > 5 * NSEC_PER_SEC)
            every = 5 * NSEC_PER_SEC;
        if (now >= next_keepalive || !alive) {
            keepalive(c);
            next_keepalive = clock_mono() + every;
        }
        bool sent = closes_send(c, clock_mono() + 2 * NSEC_PER_SEC);
        c->session.events->tick(c);
        lock_acquire(&c->session.mu);
        bool more = c->session.ncloses >= CLOSE_BATCH || c->session.closes_now;
        if (!c->stopping && !(more && sent)) /* those not sent wait for their names */
            cond_wait_until(&c->session.cv, &c->session.mu, clock_mono() + TICK_MS * NSEC_PER_MSEC);
        lock_release(&c->session.mu);
    }
    return NULL;
}

/* ---- life ---- */

static void given(struct client *c, const char *addr)
{
    LOCK_SCOPE(&c->session.mu);
    if (metads_add_locked(c, addr, true) == METADS_NONE)
        log_warn("metad %s: more addresses than %u, or it is too long", addr, METADS_MAX);
}

int session_start(struct client *c)
{
    c->session.svc = (struct rpc_service){.request = c->session.events->request, .arg = c};
    for (size_t i = 0; i < c->cfg.nmetads; i++)
        given(c, c->cfg.metads[i]);
    struct rpc_conn *conn = session_first_conn(c);
    if (!conn)
        return -ETIMEDOUT;
    rpc_conn_unref(conn);
    int rc = thread_start(&c->session.thread, "session", session_thread, c);
    c->session.started = !rc;
    return -rc;
}

/* Tells metad that this session ends, so that what it held is freed now and not a lease later. Only
 * a courtesy: nothing is lost when it does not arrive. */
static void session_goodbye(struct client *c)
{
    lock_acquire(&c->session.mu);
    struct rpc_conn *conn = rpc_conn_ref(c->session.conn);
    Replfs__Mutation step = REPLFS__MUTATION__INIT, *steps = &step;
    Replfs__MutateReq m = REPLFS__MUTATE_REQ__INIT;
    m.session = c->session.id;
    step.seq = c->session.next_seq++;
    lock_release(&c->session.mu);
    if (!conn || !rpc_conn_alive(conn)) {
        rpc_conn_unref(conn);
        return;
    }
    Replfs__SessionCloseOp close_op = REPLFS__SESSION_CLOSE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    close_op.session = &m.session;
    close_op.n_session = 1;
    op.op_case = REPLFS__META_OP__OP_SESSION_CLOSE;
    op.session_close = &close_op;
    step.op = &op;
    m.ops = &steps;
    m.n_ops = 1;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &m);
    struct rpc_result res;
    if (rpc_call_wait(conn, &env, NULL, 2000, &res))
        log_info("metad did not answer the end of the session; it ends by itself after its lease");
    rpc_result_free(&res);
    rpc_conn_unref(conn);
}

void session_stop(struct client *c)
{
    if (c->session.started) {
        closes_send(c, clock_mono() + 2 * NSEC_PER_SEC);
        lock_acquire(&c->session.mu);
        c->stopping = true;
        cond_broadcast(&c->session.cv);
        lock_release(&c->session.mu);
        pthread_join(c->session.thread, NULL);
        session_goodbye(c);
    }
    c->stopping = true;
    lock_acquire(&c->session.mu);
    struct rpc_conn *conn = c->session.conn;
    c->session.conn = NULL; /* the last answers may still look for it */
    lock_release(&c->session.mu);
    rpc_conn_unref(conn);
    session_dial_end(c);
    free(c->session.metads);
    free(c->session.pending);
    free(c->session.closes);
}
