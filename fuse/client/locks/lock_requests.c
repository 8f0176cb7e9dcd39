/* File locks as this client has them.
 *
 * metad decides; here is remembered what was granted: to claim it again when the session is
 * resumed, to send no unlock for what is not locked, and to know which open file a lock was set
 * through (the kernel sends no unlock for OFD locks when their file is closed).
 *
 * A request runs without a thread of its own: sent, and answered from the completion. metad keeps
 * one that waits unanswered and says ERR_TIMEOUT from time to time; it is then sent again with
 * the same id, as after a reconnect. So a program may wait for ever as long as metad is there; when
 * nothing is heard of it for the mount's time-out, the request fails with EIO.
 *
 *   prepared -> in flight <-> idle (until retry_at) -> told
 *
 * What is claimed at a resume must be exactly what metad may believe. A grant counts only when no
 * list of claims has been made since its request was sent (`gen`): else metad has dropped the lock
 * with that resume, and the request is sent again. An unlock leaves our record before it is sent.
 * A request of ours that nobody answers in time costs the connection, so that a resume clears up.
 *
 * Unlocks by RELEASE come after close(2) has returned, and may be overtaken by the next request of
 * the same program. So a refusal is asked again when an unlock of this client was under way, and a
 * request waits for an open file that may be on its way out (client_lock_turn).
 *
 * Locks: locks.mu, a leaf like files.mu (session.mu is taken inside it). Callbacks of users
 * run without it, on a loop thread or the caller's. */
#include "client/locks/lock_requests.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/lockset.h"
#include "base/log.h"
#include "base/lock.h"
#include "client/base/attr.h"
#include "client/base/client_clock.h"
#include "base/u64map.h"
#include "client/client.h"
#include "client/internal.h"
#include "client/locks/lock_table.h"
#include "client/session/ask.h"
#include "client/session/session.h"

#define LOG_MODULE "locks"
#define WAIT_MS 30000u  /* one round of a request that waits */
#define ASK_MS 10000u   /* one that does not */
#define CANCEL_MS 5000u /* until metad has said that a request is cancelled */
#define RETRY_MS 50u
#define AGAIN_MAX 8u /* refusals asked again */

struct lock_request {
    struct client *c;
    uint64_t id;
    struct client_lock l;
    bool wait, started, cancelled, told;
    bool telling;       /* the callback runs */
    bool cut_off;       /* metad was not there the last time */
    bool sending, busy; /* rpc_call not returned yet; not answered yet */
    struct rpc_conn *conn;
    uint64_t gen, seq;
    unsigned again;
    int64_t retry_at, deadline;
    client_lock_done *done;
    void *arg;
    struct lock_request *prev, *next;
};

/* ---- requests under way ---- */

static void req_free(struct lock_request *w) /* mu held */
{
    if (w->told && !w->telling && !w->busy && !w->sending)
        free(w);
}

/* mu held, dropped for the callback. */
static void req_tell(struct client_locks *k, struct lock_request *w, int code)
{
    assert(!w->told);
    w->told = w->telling = true;
    u64map_del_ptr(&k->ids, w->id);
    *(w->prev ? &w->prev->next : &k->reqs) = w->next;
    if (w->next)
        w->next->prev = w->prev;
    lock_release(&k->mu);
    w->done(w->arg, code);
    lock_acquire(&k->mu);
    w->telling = false;
}

static void requests_tick(void *arg);

static void retry(struct client_locks *k, struct lock_request *w, unsigned ms) /* mu held */
{
    w->retry_at = clock_mono() + ms * NSEC_PER_MSEC;
    if (!k->ticking) {
        k->ticking = true;
        rpc_loop_defer(w->c->loop, ms ? ms : 1, requests_tick, w->c);
    }
}

/* For one that waits, patience with metad begins when metad is missed, not when it was asked. */
static void heard(struct lock_request *w, bool said)
{
    if (w->wait && (said || !w->cut_off))
        w->deadline = client_deadline(w->c);
    w->cut_off = !said;
}

struct cancelling {
    struct client *c;
    struct rpc_conn *conn;
};

static void cancel_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct cancelling *x = arg;
    (void)payload;
    if (code == -ERR_TIMEOUT && !rep) /* a resume says which locks there are */
        session_conn_failed(x->c, x->conn, code, rep);
    rpc_conn_unref(x->conn);
    free(x);
}

/* mu held, dropped while sending. */
static void send_cancel(struct client_locks *k, struct client *c, struct rpc_conn *conn,
                        uint64_t id)
{
    Replfs__LockCancelReq m = REPLFS__LOCK_CANCEL_REQ__INIT;
    struct cancelling *x = malloc(sizeof(*x));
    if (!x)
        abort();
    *x = (struct cancelling){c, rpc_conn_ref(conn)};
    lock_release(&k->mu);
    m.session = session_id(c);
    m.id = id;
    RPC_ENVELOPE(env, LOCK_CANCEL_REQ, lock_cancel_req, &m);
    rpc_call(x->conn, &env, NULL, CANCEL_MS, cancel_done, x);
    lock_acquire(&k->mu);
}

static int no_answer(const struct lock_request *w)
{
    log_warn("inode %llu: a lock was asked for, but metad did not answer for %u ms",
             (unsigned long long)w->l.ino, w->c->cfg.timeout_ms);
    return -EIO;
}

static void on_reply(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload);

/* mu held, dropped while sending; w may be gone afterwards. */
static void req_send(struct client_locks *k, struct lock_request *w)
{
    struct client *c = w->c;
    uint64_t session;
    w->conn = session_conn_now(c, &session);
    if (!w->conn) {
        heard(w, false);
        if (clock_mono() >= w->deadline) {
            req_tell(k, w, no_answer(w));
            req_free(w);
        } else {
            retry(k, w, RETRY_MS);
        }
        return;
    }
    struct lock_hold *h = w->l.flock ? lock_hold_get(k, w->l.ino, w->l.owner, true) : NULL;
    if (h && !lockset_holds(&h->set, w->l.type, w->l.start, w->l.end))
        lock_hold_clear(k, &w->l); /* a conversion gives the former lock up first */
    w->busy = w->sending = true;
    w->gen = k->gen;
    w->seq = k->seq[lock_seq_of(w->l.ino)];
    Replfs__LockReq m = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock lock;
    lock_fill(&lock, &w->l);
    m.session = session;
    m.lock = &lock;
    m.wait = w->wait;
    m.id = w->id;
    RPC_ENVELOPE(env, LOCK_REQ, lock_req, &m);
    lock_release(&k->mu);
    rpc_call(w->conn, &env, NULL, w->wait ? WAIT_MS : ASK_MS, on_reply, w);
    lock_acquire(&k->mu);
    if (w->busy && w->cancelled && !w->told)
        send_cancel(k, c, w->conn, w->id);
    w->sending = false;
    if (!w->told && !w->busy) /* answered already, to be sent again: the tick passed it over */
        retry(k, w, RETRY_MS);
    req_free(w);
}

static void requests_tick(void *arg)
{
    struct client *c = arg;
    struct client_locks *k = c->locks;
    lock_acquire(&k->mu);
    k->ticking = false;
    for (bool found = true; found && !k->stopping;) {
        int64_t now = clock_mono(), next = INT64_MAX;
        found = false;
        for (struct lock_request *w = k->reqs; w && !found; w = w->next) {
            if (!w->started || w->busy || w->sending)
                continue;
            if (w->retry_at <= now) {
                found = true; /* the list may be another afterwards */
                req_send(k, w);
                break;
            }
            next = w->retry_at < next ? w->retry_at : next;
        }
        if (!found && next != INT64_MAX && !k->ticking) {
            k->ticking = true;
            rpc_loop_defer(c->loop, (unsigned)((next - now) / NSEC_PER_MSEC) + 1, requests_tick, c);
        }
    }
    lock_release(&k->mu);
}

/* A refusal that an unlock of ours, on its way, may have made wrong. */
static bool ask_again(struct client_locks *k, struct lock_request *w, int code)
{
    size_t s = lock_seq_of(w->l.ino);
    if (code != -EAGAIN || w->wait || w->again >= AGAIN_MAX)
        return false;
    bool doubtful =
        k->unlocking[s] || k->seq[s] != w->seq || (!w->again && lock_flocked_here(k, &w->l));
    w->again++;
    return doubtful;
}

/* What an answer other than a grant means: 0 when the request goes on, else what to tell. mu
 * held. */
static int judge(struct client_locks *k, struct lock_request *w, int code, bool said)
{
    int64_t now = clock_mono();
    heard(w, said);
    if (w->cancelled)
        return -EINTR;
    if (ask_again(k, w, code)) {
        retry(k, w, 4);
        return 0;
    }
    bool again = code == 0 || code == -ERR_BUSY || code == -ERR_SESSION || code == -EIO ||
                 session_elsewhere(code); /* EIO: its log, see session_attempt_failed */
    if (!again)
        return code;
    if (now >= w->deadline)
        return code == -ERR_BUSY ? -ENOLCK : no_answer(w);
    bool at_once = code == 0 || (code == -ERR_TIMEOUT && said);
    retry(k, w, at_once ? 0 : RETRY_MS);
    return 0;
}

static void on_reply(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct lock_request *w = arg;
    struct client *c = w->c;
    struct client_locks *k = c->locks;
    bool granted = !code && rep->body_case == REPLFS__ENVELOPE__BODY_LOCK_REPLY;
    (void)payload;
    if (!code && !granted)
        code = -ERR_PROTOCOL;
    /* Silence, or an answer that says this connection is of no use any more. */
    if (code && code != -ERR_BUSY && !(code == -ERR_TIMEOUT && rep) &&
        (session_elsewhere(code) || code == -ERR_SESSION))
        session_conn_failed(c, w->conn, code, rep);
    if (granted && rep->lock_reply->attr && S_ISREG(rep->lock_reply->attr->mode)) {
        Replfs__Attr a; /* what the former holder wrote is seen from now on */
        attr_copy(&a, rep->lock_reply->attr);
        client_merge_attr(c, &a);
    }
    lock_acquire(&k->mu);
    struct rpc_conn *conn = w->conn;
    w->conn = NULL;
    w->busy = false;
    if (!w->told && granted && w->gen == k->gen) {
        lock_hold_set(k, &w->l);
        req_tell(k, w, 0);
    } else if (!w->told) {
        int rc = judge(k, w, code, rep != NULL);
        if (rc)
            req_tell(k, w, rc);
    }
    req_free(w);
    lock_release(&k->mu);
    rpc_conn_unref(conn);
}

/* ---- locking ---- */

uint64_t client_lock_prepare(struct client *c, const struct client_lock *l, bool wait,
                             client_lock_done *done, void *arg)
{
    struct client_locks *k = c->locks;
    struct lock_request *w = calloc(1, sizeof(*w));
    if (!w)
        abort();
    w->c = c;
    w->l = *l;
    w->wait = wait;
    w->done = done;
    w->arg = arg;
    w->deadline = client_deadline(c);
    lock_acquire(&k->mu);
    w->id = ++k->next_id;
    w->next = k->reqs;
    if (w->next)
        w->next->prev = w;
    k->reqs = w;
    u64map_put_ptr(&k->ids, w->id, w);
    uint64_t id = w->id;
    lock_release(&k->mu);
    return id;
}

void client_lock_start(struct client *c, uint64_t id)
{
    struct client_locks *k = c->locks;
    lock_acquire(&k->mu);
    struct lock_request *w = u64map_get_ptr(&k->ids, id);
    if (w && (w->cancelled || k->stopping)) {
        req_tell(k, w, w->cancelled ? -EINTR : -EIO);
        req_free(w);
    } else if (w) {
        w->started = true;
        req_send(k, w);
    }
    lock_release(&k->mu);
}

void client_lock_cancel(struct client *c, uint64_t id)
{
    struct client_locks *k = c->locks;
    uint64_t session;
    lock_acquire(&k->mu);
    struct lock_request *w = u64map_get_ptr(&k->ids, id);
    if (!w || w->cancelled) {
        lock_release(&k->mu);
        return;
    }
    w->cancelled = true;
    if (w->busy && !w->sending) {
        struct rpc_conn *conn = rpc_conn_ref(w->conn);
        send_cancel(k, c, conn, id);
        rpc_conn_unref(conn);
    } else if (w->started && !w->sending) { /* metad may keep its place: give that up */
        struct rpc_conn *conn = session_conn_now(c, &session);
        req_tell(k, w, -EINTR);
        req_free(w);
        if (conn)
            send_cancel(k, c, conn, id);
        rpc_conn_unref(conn);
    }
    lock_release(&k->mu);
}

int client_lock_test(struct client *c, const struct client_lock *l, struct client_lock *out)
{
    Replfs__LockTestReq m = REPLFS__LOCK_TEST_REQ__INIT;
    Replfs__Lock lock;
    struct rpc_result res;
    lock_fill(&lock, l);
    m.lock = &lock;
    RPC_ENVELOPE(env, LOCK_TEST_REQ, lock_test_req, &m);
    int rc = session_ask(c, &env, client_deadline(c), &res);
    if (!rc && (res.rep->body_case != REPLFS__ENVELOPE__BODY_LOCK_TEST_REPLY ||
                !res.rep->lock_test_reply->lock))
        rc = -ERR_PROTOCOL;
    if (!rc) {
        const Replfs__Lock *r = res.rep->lock_test_reply->lock;
        *out = (struct client_lock){.ino = r->ino,
                                    .owner = r->owner,
                                    .type = r->type,
                                    .start = r->start,
                                    .end = r->end,
                                    .pid = r->pid,
                                    .flock = r->flock};
    }
    rpc_result_free(&res);
    return rc;
}

void lock_requests_stop(struct client *c)
{
    struct client_locks *k = c->locks;
    lock_acquire(&k->mu);
    k->stopping = true;
    while (k->reqs) {
        struct lock_request *w = k->reqs;
        req_tell(k, w, w->cancelled ? -EINTR : -EIO);
        req_free(w);
    }
    lock_release(&k->mu);
}
