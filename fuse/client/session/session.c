/* The session and its connection: what is known of them.
 *
 * Nothing here asks metad. connect.c makes connections, resume.c opens the session on them, ask.c and mutation.c use
 * them, keepalive.c keeps them alive; all share the fields of struct client.session, under session.mu. */
#include "client/session/session.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"
#include "client/internal.h"
#include "client/session/metads.h"

#define LOG_MODULE "session"

uint64_t session_id(struct client *c)
{
    lock_acquire(&c->session.mu);
    uint64_t id = c->session.id;
    lock_release(&c->session.mu);
    return id;
}

unsigned session_min_copies(struct client *c, unsigned goal)
{
    lock_acquire(&c->session.mu);
    unsigned m = c->session.min_copies ? c->session.min_copies : 2;
    lock_release(&c->session.mu);
    return m < goal ? m : goal;
}

/* leader: where to go, "" or NULL: not told. next: then it is somebody else. */
static void conn_end(struct client *c, struct rpc_conn *conn, const char *leader, bool next)
{
    lock_acquire(&c->session.mu);
    bool present = c->session.conn == conn;
    if (present) {
        c->session.conn = NULL;
        if (leader && *leader)
            metads_leader_locked(c, leader);
        else if (next && c->session.nmetads)
            c->session.cur = (c->session.cur + 1) % c->session.nmetads;
    }
    lock_release(&c->session.mu);
    if (!present)
        return;
    rpc_conn_close(conn);
    rpc_conn_unref(conn);
}

void session_conn_failed(struct client *c, struct rpc_conn *conn, int code,
                         const Replfs__Envelope *rep)
{
    bool told = code == -ERR_NOT_LEADER && rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE;
    conn_end(c, conn, told ? rep->failure->leader : NULL, code != -ERR_SESSION);
}

void session_conn_again(struct client *c, struct rpc_conn *conn)
{
    conn_end(c, conn, NULL, false);
}

void session_saw(struct client *c, uint64_t session, uint64_t position)
{
    lock_acquire(&c->session.mu);
    if (session == c->session.id && position > c->session.seen_position)
        c->session.seen_position = position;
    lock_release(&c->session.mu);
}

bool session_elsewhere(int code)
{
    return code == -ERR_NOT_LEADER || code == -ERR_PEER_GONE || code == -ERR_TIMEOUT ||
           code == -ERR_SHUTDOWN || code == -ECONNREFUSED || code == -EHOSTUNREACH ||
           code == -ENETUNREACH || code == -ETIMEDOUT || code == -ECONNRESET || code == -EPIPE;
}

unsigned session_try_ms(struct client *c, int64_t deadline)
{
    int64_t left = (deadline - clock_mono()) / NSEC_PER_MSEC;
    lock_acquire(&c->session.mu);
    /* longer than a silent holder of a lease can make metad wait */
    int64_t most = c->session.term_ms + 5000 > 15000 ? c->session.term_ms + 5000 : 15000;
    lock_release(&c->session.mu);
    left = left < most ? left : most;
    return left > 1 ? (unsigned)left : 1;
}

static size_t session_metads(struct client *c)
{
    LOCK_SCOPE(&c->session.mu);
    return c->session.nmetads;
}

/* EIO is no answer of metad's service: its log cannot be written just now, or it lost its lead as it tried. */
bool session_attempt_failed(struct client *c, struct rpc_conn *conn, const struct rpc_result *res,
                            int64_t deadline, unsigned *busy_ms)
{
    if (clock_mono() >= deadline || c->stopping)
        return false;
    bool alone = session_metads(c) < 2;
    if (res->code == -ERR_BUSY || (res->code == -EIO && alone)) {
        int64_t until = clock_mono() + *busy_ms * NSEC_PER_MSEC;
        *busy_ms = *busy_ms < 200 ? *busy_ms * 2 : 200;
        lock_acquire(&c->session.mu);
        while (clock_mono() < until && !c->stopping)
            cond_wait_until(&c->session.cv, &c->session.mu, until);
        lock_release(&c->session.mu);
        return true;
    }
    if (res->code != -ERR_SESSION && res->code != -EIO && !session_elsewhere(res->code))
        return false;
    /* ERR_SESSION: the next session_conn() finds out and opens a new one */
    session_conn_failed(c, conn, res->code, res->rep);
    return true;
}

struct rpc_conn *session_conn_now(struct client *c, uint64_t *session)
{
    lock_acquire(&c->session.mu);
    bool alive = c->session.conn && rpc_conn_alive(c->session.conn);
    struct rpc_conn *conn = rpc_conn_ref(alive ? c->session.conn : NULL);
    *session = c->session.id;
    lock_release(&c->session.mu);
    return conn;
}

bool session_connected(struct client *c)
{
    lock_acquire(&c->session.mu);
    bool alive = c->session.conn && rpc_conn_alive(c->session.conn);
    lock_release(&c->session.mu);
    return alive;
}
