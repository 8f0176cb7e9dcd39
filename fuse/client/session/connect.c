/* One connection to metad at a time, to the one that answered last. A thread that finds it dead becomes the
 * connector: it goes round all addresses (those given, then those learnt), resumes the session (resume.c), and
 * wakes the others. */
#include "client/session/connect.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/lock.h"
#include "client/internal.h"
#include "client/session/resume.h"
#include "client/session/session.h"

#define LOG_MODULE "session"
#define SOON_NS (3 * NSEC_PER_SEC) /* then it is told that the first connection takes long */

/* One round over all addresses. 0 when connected. Only the connector runs this. */
static int connect_round(struct client *c, int64_t deadline)
{
    int rc = -ERR_PEER_GONE;
    lock_acquire(&c->session.mu);
    size_t n = c->session.naddrs;
    lock_release(&c->session.mu);
    for (size_t k = 0; k < n && clock_mono() < deadline && !c->stopping; k++) {
        char addr[256], why[256] = "", leader[256] = "";
        lock_acquire(&c->session.mu);
        size_t i = c->session.cur;
        snprintf(addr, sizeof(addr), "%s", c->session.addrs[i]);
        lock_release(&c->session.mu);
        struct rpc_conn *conn = NULL;
        rc = rpc_dial(c->loop, addr, RPC_ROLE_METAD, &c->session.svc, &conn);
        if (!rc)
            rc = session_resume(c, conn, i, deadline, leader, sizeof(leader));
        if (rc && conn)
            snprintf(why, sizeof(why), "%s", rpc_conn_error(conn));
        lock_acquire(&c->session.mu);
        free(c->session.errors[i]);
        c->session.errors[i] = NULL;
        if (!rc) {
            c->session.conn = conn;
            lock_release(&c->session.mu);
            return 0;
        }
        c->session.errors[i] = strdup(*why ? why : err_str(rc));
        c->session.cur = *leader ? session_addr_add(c, leader) : (i + 1) % c->session.naddrs;
        lock_release(&c->session.mu);
        if (conn) {
            rpc_conn_close(conn);
            rpc_conn_unref(conn);
        }
        log_debug("metad %s: %s", addr, *why ? why : err_str(rc));
    }
    return rc;
}

static void log_addresses(struct client *c, const char *more)
{
    for (size_t i = 0; i < c->session.naddrs; i++)
        log_error("metad %s does not answer: %s%s", c->session.addrs[i],
                  c->session.errors[i] ? c->session.errors[i] : "not tried", more);
}

struct rpc_conn *session_conn(struct client *c, int64_t deadline)
{
    unsigned backoff = 50;
    struct rpc_conn *conn = NULL;
    lock_acquire(&c->session.mu);
    for (;;) {
        if (c->session.conn && rpc_conn_alive(c->session.conn)) {
            conn = rpc_conn_ref(c->session.conn);
            break;
        }
        if (clock_mono() >= deadline || c->stopping)
            break;
        if (c->session.connecting) {
            cond_wait_until(&c->session.cv, &c->session.mu, deadline);
            continue;
        }
        struct rpc_conn *dead = c->session.conn;
        c->session.conn = NULL;
        c->session.connecting = true;
        lock_release(&c->session.mu);
        rpc_conn_unref(dead);
        int rc = connect_round(c, deadline);
        lock_acquire(&c->session.mu);
        c->session.connecting = false;
        cond_broadcast(&c->session.cv);
        if (rc) {
            int64_t until = clock_mono() + backoff * NSEC_PER_MSEC;
            cond_wait_until(&c->session.cv, &c->session.mu, until < deadline ? until : deadline);
            backoff = backoff < 500 ? backoff * 2 : 1000;
        }
    }
    lock_release(&c->session.mu);
    return conn;
}

/* A user that mounts by hand is told soon why it takes long, and may end it. */
struct rpc_conn *session_first_conn(struct client *c)
{
    int64_t ms = c->cfg.connect_ms ? c->cfg.connect_ms : c->cfg.timeout_ms;
    int64_t now = clock_mono(), until = now + ms * NSEC_PER_MSEC, soon = now + SOON_NS;
    struct rpc_conn *conn = session_conn(c, soon < until ? soon : until);
    if (!conn && soon < until) {
        log_addresses(c, "; trying on");
        conn = session_conn(c, until);
    }
    if (!conn)
        log_addresses(c, "");
    return conn;
}
