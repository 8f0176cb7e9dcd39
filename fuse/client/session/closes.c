/* Files that are not open any more: metad is told of them in batches, by the session thread. A file that is opened
 * again before that is no news. The lists are under session.mu. */
#include "client/session/closes.h"
#include <stdlib.h>
#include "base/clock.h"
#include "base/lock.h"
#include "client/internal.h"
#include "client/session/ask.h"

static void close_ino(struct client *c, uint64_t ino)
{
    if (c->session.ncloses == c->session.cap_closes) {
        c->session.cap_closes = c->session.cap_closes ? c->session.cap_closes * 2 : 64;
        c->session.closes = realloc(c->session.closes, c->session.cap_closes * sizeof(uint64_t));
        if (!c->session.closes)
            abort();
    }
    c->session.closes[c->session.ncloses++] = ino;
}

void closes_add(struct client *c, uint64_t ino)
{
    lock_acquire(&c->session.mu);
    close_ino(c, ino);
    if (c->session.ncloses >= CLOSE_BATCH)
        cond_broadcast(&c->session.cv);
    lock_release(&c->session.mu);
}

bool closes_take_back(struct client *c, uint64_t ino)
{
    bool cancelled = false;
    int64_t deadline = clock_mono() + 5 * NSEC_PER_SEC;
    lock_acquire(&c->session.mu);
    for (size_t i = 0; i < c->session.ncloses; i++) {
        if (c->session.closes[i] != ino)
            continue;
        c->session.closes[i--] = c->session.closes[--c->session.ncloses];
        cancelled = true;
    }
    for (size_t i = 0; i < c->session.nclosing && clock_mono() < deadline;) {
        if (c->session.closing[i] == ino) {
            cond_wait_until(&c->session.cv, &c->session.mu, deadline);
            i = 0;
        } else {
            i++;
        }
    }
    lock_release(&c->session.mu);
    return cancelled;
}

/* False: there was nothing to send. */
bool closes_send(struct client *c, int64_t deadline)
{
    lock_acquire(&c->session.mu);
    if (!c->session.ncloses) {
        lock_release(&c->session.mu);
        return false;
    }
    uint64_t *inos = c->session.closes;
    size_t n = 0, all = c->session.ncloses;
    c->session.closes = NULL;
    c->session.ncloses = c->session.cap_closes = 0;
    for (size_t i = 0; i < all; i++) { /* what metad does not know yet is closed later */
        if (c->session.events->name_queued(c, inos[i]))
            close_ino(c, inos[i]);
        else
            inos[n++] = inos[i];
    }
    c->session.closing = inos;
    c->session.nclosing = n;
    lock_release(&c->session.mu);
    for (size_t at = 0; at < n; at += 4096) {
        Replfs__CloseReq m = REPLFS__CLOSE_REQ__INIT;
        m.ino = inos + at;
        m.n_ino = n - at < 4096 ? n - at : 4096;
        RPC_ENVELOPE(env, CLOSE_REQ, close_req, &m);
        struct rpc_result res;
        /* Lost closes do no harm beyond a delay: a resumed session tells what is open. */
        session_ask(c, &env, deadline, &res);
        rpc_result_free(&res);
    }
    lock_acquire(&c->session.mu);
    c->session.closing = NULL;
    c->session.nclosing = 0;
    cond_broadcast(&c->session.cv);
    lock_release(&c->session.mu);
    free(inos);
    return n > 0;
}

void closes_flush(struct client *c)
{
    int64_t deadline = clock_mono() + 2 * NSEC_PER_SEC;
    lock_acquire(&c->session.mu);
    while ((c->session.ncloses || c->session.nclosing) && clock_mono() < deadline) {
        c->session.closes_now = true;
        cond_broadcast(&c->session.cv);
        cond_wait_until(&c->session.cv, &c->session.mu, deadline);
    }
    c->session.closes_now = false;
    lock_release(&c->session.mu);
}
