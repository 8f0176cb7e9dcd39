/* Is the other side still there? A computer that loses its power or its cable sends no end of the connection, and the
 * kernel of one whose program hangs acknowledges everything. So whoever waits for an answer and hears nothing for a
 * quarter of silent_ms sends a Ping; the peer's loop thread answers it, however long the request itself takes. No sign of
 * life until silent_ms have passed: the connection is dead, its calls end with ERR_PEER_GONE, and it is the caller's to
 * ask elsewhere or dial again. An idle connection costs nothing: nobody waits, nobody asks.
 *
 * Who lives and is not to be dropped:
 *  - a slow line. The Ping is behind all that was sent before, so the time runs anew whenever some of that was
 *    taken off (by the peer's kernel; a UNIX socket: by the peer itself).
 *  - a peer that does not read, because it holds too much of ours (conn.c). It says so: it sends Pings itself.
 *  - we ourselves were not running: the timer is late, or there is something to read. The time runs anew.
 *
 * A Ping has id 0 and no call. A peer that does not know it answers with a Failure, which is as good. It counts as
 * one of RPC_MAX_INFLIGHT there, so one place is kept free.
 *
 * Threads: the connection's worker, but for alive_watch_locked; all under its lock. */
#include "rpc/rpc_internal.h"

#include <limits.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "base/lock.h"

#define LATE_NS (250 * NSEC_PER_MSEC)
#define SOON_NS (20 * NSEC_PER_MSEC)
#define PINGS_MAX                                                                                  \
    512u /* while we do not read: it is a quarter of a minute before somebody gives up, not hours */

/* 0: never look. */
static int64_t silent_ns(const struct rpc_conn *c)
{
    unsigned ms = c->loop->cfg.silent_ms;

    return ms == UINT_MAX ? 0 : (ms ? ms : RPC_SILENT_MS) * NSEC_PER_MSEC;
}

bool alive_room_locked(const struct rpc_conn *c)
{
    lock_assert_held(&c->mu);
    return c->outstanding + c->pings + 1 < RPC_MAX_INFLIGHT;
}

void alive_watch_locked(struct rpc_conn *c, int64_t now)
{
    int64_t silent = silent_ns(c);

    lock_assert_held(&c->mu);
    if (silent)
        conn_arm_locked(c, now + silent / 4);
}

static void send_ping_locked(struct rpc_conn *c)
{
    Replfs__Ping p = REPLFS__PING__INIT;

    RPC_ENVELOPE(env, PING, ping, &p);
    c->pings++;
    conn_send_locked(c, &env, NULL, 0);
}

/* Bytes that the other side has to take before the Ping. */
static uint64_t ahead_locked(const struct rpc_conn *c)
{
    int queued = 0;

    if (ioctl(c->fd, SIOCOUTQ, &queued) < 0)
        queued = 0;
    uint64_t all = c->out_bytes + (uint64_t)queued, later = c->put - c->asked.put;
    return all > later ? all - later : 0;
}

static bool something_to_read(const struct rpc_conn *c)
{
    int n = 0;

    return ioctl(c->fd, FIONREAD, &n) == 0 && n > 0;
}

static void ask_locked(struct rpc_conn *c, int64_t now)
{
    if (!c->pings)
        send_ping_locked(c);
    c->asked.since = c->asked.moved = now;
    c->asked.put = c->put;
    c->asked.ahead = ahead_locked(c);
}

/* It was asked. When to look again. */
static int64_t wait_on_locked(struct rpc_conn *c, int64_t due, int64_t now, int64_t patience)
{
    uint64_t ahead = ahead_locked(c);

    if (ahead < c->asked.ahead || now - due > LATE_NS)
        c->asked.moved = now;
    if (ahead < c->asked.ahead)
        c->asked.ahead = ahead;
    if (now - c->asked.moved >= patience && something_to_read(c))
        c->asked.moved = now;
    int64_t until = c->asked.moved + patience, step = now + patience / 4;
    if (now >= until)
        conn_die_locked(c, -ERR_PEER_GONE, "%s: no sign of life for %lld ms", c->target,
                        (long long)((now - c->asked.since + silent_ns(c) / 4) / NSEC_PER_MSEC));
    return ahead && step < until ? step : until;
}

void alive_look_locked(struct rpc_conn *c, int64_t due, int64_t now)
{
    int64_t silent = silent_ns(c), next;

    lock_assert_held(&c->mu);
    if (!silent || c->state != CONN_READY)
        return;
    if (c->paused) {
        if (c->pings < PINGS_MAX)
            send_ping_locked(c);
        c->asked.since = 0;
        next = now + silent / 4;
    } else if (c->outstanding == 0) {
        c->asked.since = 0;
        return;
    } else if (now < c->heard + silent / 4) {
        c->asked.since = 0;
        next = c->heard + silent / 4;
    } else if (!c->asked.since || c->heard >= c->asked.since) {
        ask_locked(c, now);
        next = now + SOON_NS; /* the kernel of a peer that is there has taken it by then */
    } else {
        next = wait_on_locked(c, due, now, silent * 5 / 8);
    }
    conn_arm_locked(c, next);
}

bool alive_message(struct rpc_conn *c, const struct message *msg)
{
    const Replfs__Envelope *env = msg->env;

    if (env->is_reply && env->id == 0) {
        lock_acquire(&c->mu);
        if (c->pings == 0)
            conn_die_locked(c, -ERR_PROTOCOL, "%s: sent a reply to no request", c->target);
        c->pings -= c->pings > 0;
        lock_release(&c->mu);
        return true;
    }
    if (env->is_reply || env->body_case != REPLFS__ENVELOPE__BODY_PING)
        return false;
    Replfs__Ping p = REPLFS__PING__INIT;
    RPC_ENVELOPE(rep, PING, ping, &p);
    rep.id = env->id;
    rep.is_reply = true;
    lock_acquire(&c->mu);
    conn_send_locked(c, &rep, NULL, 0);
    conn_update_events_locked(c);
    lock_release(&c->mu);
    return true;
}

void rpc_ping(struct rpc_conn *c, unsigned timeout_ms, rpc_done *done, void *arg)
{
    Replfs__Ping p = REPLFS__PING__INIT;

    RPC_ENVELOPE(env, PING, ping, &p);
    rpc_call(c, &env, NULL, timeout_ms, done, arg);
}
