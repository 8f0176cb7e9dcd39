/* Is the other side still there? A computer that loses its power or its cable sends no end of the connection, and the
 * kernel of one whose program hangs acknowledges everything. So whoever waits for an answer and hears nothing for a
 * quarter of silent_ms sends a Ping; the peer's loop thread answers it, however long the request itself takes. No sign of
 * life for most of silent_ms: the connection is dead, its calls end with ERR_PEER_GONE, and it is the caller's to
 * ask elsewhere or dial again. An idle connection costs nothing: nobody waits, nobody asks.
 *
 * Who lives and is not to be dropped:
 *  - a slow line. The Ping is behind all that was sent before, so the time runs anew whenever some of that was
 *    taken off (by the peer's kernel; a UNIX socket: by the peer itself).
 *  - a peer that does not read, because it holds too much of ours (conn.c). It says so: it sends Pings itself.
 *  - we ourselves were not running: the look is late, or there is something to read. The time runs anew.
 *
 * A Ping has id 0 and no call. A peer that does not know it answers with a Failure, which is as good. It counts as
 * one of RPC_MAX_INFLIGHT there, so one place is kept free. */
#include "rpc/alive.h"

#include "base/clock.h"

#define LATE_NS (250 * NSEC_PER_MSEC)
#define SOON_NS                                                                                    \
    (20 * NSEC_PER_MSEC) /* the kernel of a peer that is there has taken a Ping by then */

/* With these a silent peer is given up between 5/8 and 7/8 of the time after the call that it does not answer. */
static int64_t before_asking(int64_t silent)
{
    return silent / 4;
}

static int64_t patience(int64_t silent)
{
    return silent * 5 / 8;
}

int64_t alive_first(int64_t now, int64_t silent)
{
    return now + before_asking(silent);
}

void alive_asked(struct alive *a, int64_t now, uint64_t put, uint64_t queued)
{
    a->since = a->moved = now;
    a->put = put;
    a->ahead = queued;
}

/* It was asked. */
static enum alive_todo wait_on(struct alive *a, const struct alive_now *n, int64_t *next)
{
    uint64_t later = n->put - a->put, ahead = n->queued > later ? n->queued - later : 0;
    if (ahead < a->ahead || n->now - n->due > LATE_NS || n->readable)
        a->moved = n->now;
    if (ahead < a->ahead)
        a->ahead = ahead;
    int64_t until = a->moved + patience(n->silent), step = n->now + patience(n->silent) / 4;
    *next = ahead && step < until ? step : until;
    return n->now >= until ? ALIVE_DEAD : ALIVE_NOTHING;
}

enum alive_todo alive_look(struct alive *a, const struct alive_now *n, int64_t *next)
{
    int64_t quiet = a->heard + before_asking(n->silent);
    if (n->paused) { /* we hear nothing, and it shall know that we are here */
        a->since = 0;
        *next = n->now + before_asking(n->silent);
        return ALIVE_ASK;
    }
    if (!n->waits || n->now < quiet) {
        a->since = 0;
        *next = quiet;
        return n->waits ? ALIVE_NOTHING : ALIVE_REST;
    }
    if (!a->since || a->heard >= a->since) {
        *next = n->now + SOON_NS;
        return ALIVE_ASK;
    }
    return wait_on(a, n, next);
}
