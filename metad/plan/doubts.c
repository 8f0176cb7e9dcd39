/* Each copy that a client doubts is read in full by its chunkd, up to 64 MiB, and until then it does not
 * count as good. So a session may doubt so many at once, and then so many a second; all sessions
 * together, too. What is refused is met again by the next reader.
 *
 * Who doubts moves its `due` on by one interval; due is how far it is ahead of what is always allowed.
 * A session whose due has passed needs no entry. Pure. */
#include "doubts.h"

#include <stddef.h>

#include "base/clock.h"

static bool may(int64_t due, int64_t now, unsigned burst, unsigned ms)
{
    return due - now <= (int64_t)(burst - 1) * ms * NSEC_PER_MSEC;
}

static void move_on(int64_t *due, int64_t now, unsigned ms)
{
    *due = (*due > now ? *due : now) + (int64_t)ms * NSEC_PER_MSEC;
}

bool doubts_take(struct doubts *d, uint64_t session, int64_t now)
{
    size_t at = DOUBTS_SESSIONS;

    for (size_t i = 0; i < DOUBTS_SESSIONS; i++) {
        if (d->v[i].session == session) {
            at = i;
            break;
        }
        if (at == DOUBTS_SESSIONS && d->v[i].due <= now)
            at = i; /* free, unless the session is found behind */
    }
    if (at == DOUBTS_SESSIONS || !may(d->all, now, DOUBTS_IN_ALL, DOUBTS_ALL_MS))
        return false;
    if (d->v[at].session != session) {
        d->v[at].session = session;
        d->v[at].due = now;
    }
    if (!may(d->v[at].due, now, DOUBTS_PER_SESSION, DOUBTS_SESSION_MS))
        return false;
    move_on(&d->v[at].due, now, DOUBTS_SESSION_MS);
    move_on(&d->all, now, DOUBTS_ALL_MS);
    return true;
}
