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
#include "client/internal.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/lockset.h"
#include "base/log.h"

#define LOG_MODULE "locks"
#define WAIT_MS 30000u  /* one round of a request that waits */
#define ASK_MS 10000u   /* one that does not */
#define CANCEL_MS 5000u /* until metad has said that a request is cancelled */
#define RETRY_MS 50u
#define AGAIN_MAX 8u /* refusals asked again */
#define SEQS 64u
#define TURN_MS 200 /* see client_lock_turn */

struct hold { /* what one owner has of one inode */
    uint64_t owner;
    bool flock;
    uint32_t pid;
    struct lockset set;
    struct by {
        uint64_t handle; /* through which it was set */
        bool closing;    /* a descriptor of it was closed since: see client_lock_turn */
    } * by;
    size_t nby;
    struct hold *next;
};
struct lfile {
    uint64_t ino;
    struct hold *holds;
};
struct lreq {
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
    struct lreq *prev, *next;
};
struct client_locks {
    pthread_mutex_t mu;
    struct idmap files;
    struct idmap ids;
    struct lreq *reqs;
    uint64_t next_id, gen;
    uint64_t seq[SEQS];       /* unlocks begun, by inode */
    unsigned unlocking[SEQS]; /* and not yet done */
    pthread_cond_t unlocked;
    bool ticking, stopping;
    atomic_size_t nholds;
};

/* ---- what is held (mu held) ---- */

static struct hold **hold_slot(struct lfile *f, uint64_t owner, bool flock)
{
    struct hold **p = &f->holds;
    while (*p && ((*p)->owner != owner || (*p)->flock != flock))
        p = &(*p)->next;
    return p;
}

static struct hold *hold_get(struct client_locks *k, uint64_t ino, uint64_t owner, bool flock)
{
    struct lfile *f = idmap_get(&k->files, ino);
    return f ? *hold_slot(f, owner, flock) : NULL;
}

static void hold_free(struct client_locks *k, struct lfile *f, struct hold **slot)
{
    struct hold *h = *slot;
    *slot = h->next;
    lockset_free(&h->set);
    free(h->by);
    free(h);
    atomic_fetch_sub(&k->nholds, 1);
    if (f->holds)
        return;
    idmap_del(&k->files, f->ino);
    free(f);
}

static struct by *by_handle(const struct hold *h, uint64_t handle)
{
    for (size_t i = 0; i < h->nby; i++)
        if (h->by[i].handle == handle)
            return &h->by[i];
    return NULL;
}

static void hold_handle(struct hold *h, uint64_t handle)
{
    struct by *b = by_handle(h, handle);
    if (!b) {
        h->by = realloc(h->by, (h->nby + 1) * sizeof(*h->by));
        if (!h->by)
            abort();
        b = &h->by[h->nby++];
    }
    *b = (struct by){handle, false};
}

static void hold_set(struct client_locks *k, const struct client_lock *l)
{
    struct lfile *f = idmap_get(&k->files, l->ino);
    if (!f) {
        f = calloc(1, sizeof(*f));
        if (!f)
            abort();
        f->ino = l->ino;
        idmap_put(&k->files, l->ino, f);
    }
    struct hold **slot = hold_slot(f, l->owner, l->flock), *h = *slot;
    if (!h) {
        h = *slot = calloc(1, sizeof(*h));
        if (!h)
            abort();
        h->owner = l->owner;
        h->flock = l->flock;
        atomic_fetch_add(&k->nholds, 1);
    }
    h->pid = l->pid;
    hold_handle(h, l->handle);
    lockset_set(&h->set, l->type, l->start, l->end);
}

/* False: nothing of it is held. */
static bool hold_clear(struct client_locks *k, const struct client_lock *l)
{
    struct lfile *f = idmap_get(&k->files, l->ino);
    struct hold **slot = f ? hold_slot(f, l->owner, l->flock) : NULL, *h = slot ? *slot : NULL;
    if (!h || !lockset_conflict(&h->set, LOCKSET_WRITE, l->start, l->end))
        return false;
    lockset_set(&h->set, LOCKSET_NONE, l->start, l->end);
    if (!h->set.n)
        hold_free(k, f, slot);
    return true;
}

/* Somebody else on this mount has flocked the file: perhaps one whose RELEASE is on its way. */
static bool flocked_here(struct client_locks *k, const struct client_lock *l)
{
    struct lfile *f = l->flock ? idmap_get(&k->files, l->ino) : NULL;
    for (struct hold *h = f ? f->holds : NULL; h; h = h->next)
        if (h->flock && h->owner != l->owner)
            return true;
    return false;
}

static size_t seq_of(uint64_t ino)
{
    return ino % SEQS;
}

/* ---- requests under way ---- */

static void req_free(struct lreq *w) /* mu held */
{
    if (w->told && !w->telling && !w->busy && !w->sending)
        free(w);
}

/* mu held, dropped for the callback. */
static void req_tell(struct client_locks *k, struct lreq *w, int code)
{
    assert(!w->told);
    w->told = w->telling = true;
    idmap_del(&k->ids, w->id);
    *(w->prev ? &w->prev->next : &k->reqs) = w->next;
    if (w->next)
        w->next->prev = w->prev;
    pthread_mutex_unlock(&k->mu);
    w->done(w->arg, code);
    pthread_mutex_lock(&k->mu);
    w->telling = false;
}

static void fill(Replfs__Lock *m, const struct client_lock *l)
{
    replfs__lock__init(m);
    m->ino = l->ino;
    m->owner = l->owner;
    m->type = l->type;
    m->start = l->start;
    m->end = l->end;
    m->pid = l->pid;
    m->flock = l->flock;
}

static void tick(void *arg);

static void retry(struct client_locks *k, struct lreq *w, unsigned ms) /* mu held */
{
    w->retry_at = clock_mono() + ms * NSEC_PER_MSEC;
    if (!k->ticking) {
        k->ticking = true;
        rpc_loop_defer(w->c->loop, ms ? ms : 1, tick, w->c);
    }
}

/* For one that waits, patience with metad begins when metad is missed, not when it was asked. */
static void heard(struct lreq *w, bool said)
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
        session_conn_failed(x->c, x->conn, NULL);
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
    pthread_mutex_unlock(&k->mu);
    m.session = session_id(c);
    m.id = id;
    RPC_ENVELOPE(env, LOCK_CANCEL_REQ, lock_cancel_req, &m);
    rpc_call(x->conn, &env, NULL, CANCEL_MS, cancel_done, x);
    pthread_mutex_lock(&k->mu);
}

static int no_answer(const struct lreq *w)
{
    log_warn("inode %llu: a lock was asked for, but metad did not answer for %u ms",
             (unsigned long long)w->l.ino, w->c->cfg.timeout_ms);
    return -EIO;
}

static void on_reply(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload);

/* mu held, dropped while sending; w may be gone afterwards. */
static void req_send(struct client_locks *k, struct lreq *w)
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
    struct hold *h = w->l.flock ? hold_get(k, w->l.ino, w->l.owner, true) : NULL;
    if (h && !lockset_holds(&h->set, w->l.type, w->l.start, w->l.end))
        hold_clear(k, &w->l); /* a conversion gives the former lock up first */
    w->busy = w->sending = true;
    w->gen = k->gen;
    w->seq = k->seq[seq_of(w->l.ino)];
    Replfs__LockReq m = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock lock;
    fill(&lock, &w->l);
    m.session = session;
    m.lock = &lock;
    m.wait = w->wait;
    m.id = w->id;
    RPC_ENVELOPE(env, LOCK_REQ, lock_req, &m);
    pthread_mutex_unlock(&k->mu);
    rpc_call(w->conn, &env, NULL, w->wait ? WAIT_MS : ASK_MS, on_reply, w);
    pthread_mutex_lock(&k->mu);
    if (w->busy && w->cancelled && !w->told)
        send_cancel(k, c, w->conn, w->id);
    w->sending = false;
    if (!w->told && !w->busy) /* answered already, to be sent again: the tick passed it over */
        retry(k, w, RETRY_MS);
    req_free(w);
}

static void tick(void *arg)
{
    struct client *c = arg;
    struct client_locks *k = c->locks;
    pthread_mutex_lock(&k->mu);
    k->ticking = false;
    for (bool found = true; found && !k->stopping;) {
        int64_t now = clock_mono(), next = INT64_MAX;
        found = false;
        for (struct lreq *w = k->reqs; w && !found; w = w->next) {
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
            rpc_loop_defer(c->loop, (unsigned)((next - now) / NSEC_PER_MSEC) + 1, tick, c);
        }
    }
    pthread_mutex_unlock(&k->mu);
}

/* A refusal that an unlock of ours, on its way, may have made wrong. */
static bool ask_again(struct client_locks *k, struct lreq *w, int code)
{
    size_t s = seq_of(w->l.ino);
    if (code != -EAGAIN || w->wait || w->again >= AGAIN_MAX)
        return false;
    bool doubtful = k->unlocking[s] || k->seq[s] != w->seq || (!w->again && flocked_here(k, &w->l));
    w->again++;
    return doubtful;
}

/* What an answer other than a grant means: 0 when the request goes on, else what to tell. mu
 * held. */
static int judge(struct client_locks *k, struct lreq *w, int code, bool said)
{
    int64_t now = clock_mono();
    heard(w, said);
    if (w->cancelled)
        return -EINTR;
    if (ask_again(k, w, code)) {
        retry(k, w, 4);
        return 0;
    }
    bool again = code == 0 || code == -ERR_BUSY || code == -ERR_SESSION || session_elsewhere(code);
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
    struct lreq *w = arg;
    struct client *c = w->c;
    struct client_locks *k = c->locks;
    bool granted = !code && rep->body_case == REPLFS__ENVELOPE__BODY_LOCK_REPLY;
    (void)payload;
    if (!code && !granted)
        code = -ERR_PROTOCOL;
    /* Silence, or an answer that says this connection is of no use any more. */
    if (code && code != -ERR_BUSY && !(code == -ERR_TIMEOUT && rep) &&
        (session_elsewhere(code) || code == -ERR_SESSION))
        session_conn_failed(c, w->conn, NULL);
    if (granted && rep->lock_reply->attr && S_ISREG(rep->lock_reply->attr->mode)) {
        Replfs__Attr a; /* what the former holder wrote is seen from now on */
        attr_copy(&a, rep->lock_reply->attr);
        client_merge_attr(c, &a);
    }
    pthread_mutex_lock(&k->mu);
    struct rpc_conn *conn = w->conn;
    w->conn = NULL;
    w->busy = false;
    if (!w->told && granted && w->gen == k->gen) {
        hold_set(k, &w->l);
        req_tell(k, w, 0);
    } else if (!w->told) {
        int rc = judge(k, w, code, rep != NULL);
        if (rc)
            req_tell(k, w, rc);
    }
    req_free(w);
    pthread_mutex_unlock(&k->mu);
    rpc_conn_unref(conn);
}

/* ---- locking ---- */

uint64_t client_lock_prepare(struct client *c, const struct client_lock *l, bool wait,
                             client_lock_done *done, void *arg)
{
    struct client_locks *k = c->locks;
    struct lreq *w = calloc(1, sizeof(*w));
    if (!w)
        abort();
    w->c = c;
    w->l = *l;
    w->wait = wait;
    w->done = done;
    w->arg = arg;
    w->deadline = client_deadline(c);
    pthread_mutex_lock(&k->mu);
    w->id = ++k->next_id;
    w->next = k->reqs;
    if (w->next)
        w->next->prev = w;
    k->reqs = w;
    idmap_put(&k->ids, w->id, w);
    uint64_t id = w->id;
    pthread_mutex_unlock(&k->mu);
    return id;
}

void client_lock_start(struct client *c, uint64_t id)
{
    struct client_locks *k = c->locks;
    pthread_mutex_lock(&k->mu);
    struct lreq *w = idmap_get(&k->ids, id);
    if (w && (w->cancelled || k->stopping)) {
        req_tell(k, w, w->cancelled ? -EINTR : -EIO);
        req_free(w);
    } else if (w) {
        w->started = true;
        req_send(k, w);
    }
    pthread_mutex_unlock(&k->mu);
}

void client_lock_cancel(struct client *c, uint64_t id)
{
    struct client_locks *k = c->locks;
    uint64_t session;
    pthread_mutex_lock(&k->mu);
    struct lreq *w = idmap_get(&k->ids, id);
    if (!w || w->cancelled) {
        pthread_mutex_unlock(&k->mu);
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
    pthread_mutex_unlock(&k->mu);
}

int client_lock_test(struct client *c, const struct client_lock *l, struct client_lock *out)
{
    Replfs__LockTestReq m = REPLFS__LOCK_TEST_REQ__INIT;
    Replfs__Lock lock;
    struct rpc_result res;
    fill(&lock, l);
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

/* ---- unlocking ---- */

static void unlock_begin(struct client_locks *k, uint64_t ino) /* mu held */
{
    k->seq[seq_of(ino)]++;
    k->unlocking[seq_of(ino)]++;
}

static void unlock_end(struct client_locks *k, uint64_t ino)
{
    pthread_mutex_lock(&k->mu);
    k->unlocking[seq_of(ino)]--;
    pthread_cond_broadcast(&k->unlocked);
    pthread_mutex_unlock(&k->mu);
}

int client_unlock(struct client *c, const struct client_lock *l)
{
    struct client_locks *k = c->locks;
    pthread_mutex_lock(&k->mu);
    bool some = hold_clear(k, l);
    if (some)
        unlock_begin(k, l->ino);
    pthread_mutex_unlock(&k->mu);
    if (!some)
        return 0;
    Replfs__LockReq m = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock lock;
    struct rpc_result res;
    fill(&lock, l);
    lock.type = LOCKSET_NONE;
    m.lock = &lock;
    RPC_ENVELOPE(env, LOCK_REQ, lock_req, &m);
    int rc = session_ask(c, &env, client_deadline(c), &res);
    rpc_result_free(&res);
    unlock_end(k, l->ino);
    return rc;
}

/* Drops an owner's locks on the inode, already out of our record. */
static int unlock_owner(struct client *c, uint64_t ino, uint64_t owner, bool flock)
{
    Replfs__UnlockAllReq m = REPLFS__UNLOCK_ALL_REQ__INIT;
    struct rpc_result res;
    m.ino = ino;
    m.owner = &owner;
    m.n_owner = 1;
    m.flock = flock;
    RPC_ENVELOPE(env, UNLOCK_ALL_REQ, unlock_all_req, &m);
    int rc = session_ask(c, &env, client_deadline(c), &res);
    rpc_result_free(&res);
    if (rc)
        log_warn("inode %llu: unlocking at close: %s; metad drops the lock with the next resume or "
                 "the session",
                 (unsigned long long)ino, err_str(rc));
    unlock_end(c->locks, ino);
    return rc;
}

bool client_locks_owner(struct client *c, uint64_t ino, uint64_t owner)
{
    struct client_locks *k = c->locks;
    if (!atomic_load(&k->nholds))
        return false;
    pthread_mutex_lock(&k->mu);
    bool some = hold_get(k, ino, owner, false) != NULL;
    pthread_mutex_unlock(&k->mu);
    return some;
}

int client_unlock_owner(struct client *c, uint64_t ino, uint64_t owner)
{
    struct client_locks *k = c->locks;
    struct client_lock all = {.ino = ino, .owner = owner, .end = UINT64_MAX};
    pthread_mutex_lock(&k->mu);
    bool some = hold_clear(k, &all);
    if (some)
        unlock_begin(k, ino);
    pthread_mutex_unlock(&k->mu);
    return some ? unlock_owner(c, ino, owner, false) : 0;
}

bool client_locks_handle(struct client *c, uint64_t ino, uint64_t handle)
{
    struct client_locks *k = c->locks;
    bool some = false;
    if (!atomic_load(&k->nholds))
        return false;
    pthread_mutex_lock(&k->mu);
    struct lfile *f = idmap_get(&k->files, ino);
    for (struct hold *h = f ? f->holds : NULL; h && !some; h = h->next)
        some = by_handle(h, handle) != NULL;
    if (some) /* seen before the bytes are flushed: see ask_again */
        k->seq[seq_of(ino)]++;
    pthread_mutex_unlock(&k->mu);
    return some;
}

void client_unlock_handle(struct client *c, uint64_t ino, uint64_t handle)
{
    struct client_locks *k = c->locks;
    for (bool more = true; more;) {
        uint64_t owner = 0;
        bool flock = false;
        more = false;
        pthread_mutex_lock(&k->mu);
        struct lfile *f = idmap_get(&k->files, ino);
        for (struct hold **p = f ? &f->holds : NULL; p && *p; p = &(*p)->next) {
            if (!by_handle(*p, handle))
                continue;
            more = true;
            owner = (*p)->owner;
            flock = (*p)->flock;
            unlock_begin(k, ino);
            hold_free(k, f, p);
            break;
        }
        pthread_mutex_unlock(&k->mu);
        if (more)
            unlock_owner(c, ino, owner, flock);
    }
}

/* ---- whose turn ---- */

void client_locks_closing(struct client *c, uint64_t ino, uint64_t handle)
{
    struct client_locks *k = c->locks;
    if (!atomic_load(&k->nholds))
        return;
    pthread_mutex_lock(&k->mu);
    struct lfile *f = idmap_get(&k->files, ino);
    for (struct hold *h = f ? f->holds : NULL; h; h = h->next) {
        struct by *b = by_handle(h, handle);
        if (b)
            b->closing = true;
    }
    pthread_mutex_unlock(&k->mu);
}

/* Another handle of the same owner that may be on its way out. */
static struct by *leaving(struct client_locks *k, const struct client_lock *l)
{
    struct hold *h = hold_get(k, l->ino, l->owner, l->flock);
    for (size_t i = 0; h && i < h->nby; i++)
        if (h->by[i].closing && h->by[i].handle != l->handle)
            return &h->by[i];
    return NULL;
}

void client_lock_turn(struct client *c, const struct client_lock *l)
{
    struct client_locks *k = c->locks;
    int64_t deadline = clock_mono() + TURN_MS * NSEC_PER_MSEC;
    pthread_mutex_lock(&k->mu);
    while ((leaving(k, l) || k->unlocking[seq_of(l->ino)]) &&
           !cond_wait_until(&k->unlocked, &k->mu, deadline))
        ;
    for (struct by *b; (b = leaving(k, l));) /* it stays, through a copy of the descriptor */
        b->closing = false;
    pthread_mutex_unlock(&k->mu);
}

/* ---- sessions ---- */

struct locks_claims *client_locks_claims(struct client *c, Replfs__SessionReq *m)
{
    struct client_locks *k = c->locks;
    size_t n = 0, pos = 0;
    pthread_mutex_lock(&k->mu);
    k->gen++;
    for (struct lfile *f; (f = idmap_next(&k->files, &pos));)
        for (struct hold *h = f->holds; h; h = h->next)
            n += h->set.n;
    struct locks_claims *x = malloc(sizeof(*x) + (n + 1) * sizeof(Replfs__Lock *));
    Replfs__Lock *v = malloc((n + 1) * sizeof(*v));
    if (!x || !v)
        abort();
    x->locks = v;
    n = pos = 0;
    for (struct lfile *f; (f = idmap_next(&k->files, &pos));) {
        for (struct hold *h = f->holds; h; h = h->next) {
            for (uint32_t i = 0; i < h->set.n; i++) {
                struct client_lock l = {.ino = f->ino,
                                        .owner = h->owner,
                                        .pid = h->pid,
                                        .flock = h->flock,
                                        .type = h->set.v[i].type,
                                        .start = h->set.v[i].start,
                                        .end = h->set.v[i].end};
                fill(&v[n], &l);
                x->list[n] = &v[n];
                n++;
            }
        }
    }
    pthread_mutex_unlock(&k->mu);
    m->locks = x->list;
    m->n_locks = n;
    return x;
}

void client_locks_claims_free(struct locks_claims *x)
{
    free(x->locks);
    free(x);
}

void client_locks_lost(struct client *c)
{
    struct client_locks *k = c->locks;
    char text[256] = "";
    size_t pos = 0, n = 0, at = 0;
    pthread_mutex_lock(&k->mu);
    k->gen++;
    for (struct lfile *f; (f = idmap_next(&k->files, &pos)); n++)
        if (at + 24 < sizeof(text))
            at +=
                (size_t)snprintf(text + at, sizeof(text) - at, " %llu", (unsigned long long)f->ino);
    for (struct lfile *f; pos = 0, (f = idmap_next(&k->files, &pos));) {
        while (f->holds->next)
            hold_free(k, f, &f->holds);
        hold_free(k, f, &f->holds);
    }
    pthread_mutex_unlock(&k->mu);
    if (n)
        log_error("the file locks held on %zu inodes are lost with the session; others may have "
                  "them now:%s%s",
                  n, text, at + 24 < sizeof(text) ? "" : " ...");
}

/* ---- life ---- */

void client_locks_start(struct client *c)
{
    c->locks = calloc(1, sizeof(*c->locks));
    if (!c->locks)
        abort();
    pthread_mutex_init(&c->locks->mu, NULL);
    cond_init_mono(&c->locks->unlocked);
}

void client_locks_stop(struct client *c)
{
    struct client_locks *k = c->locks;
    pthread_mutex_lock(&k->mu);
    k->stopping = true;
    while (k->reqs) {
        struct lreq *w = k->reqs;
        req_tell(k, w, w->cancelled ? -EINTR : -EIO);
        req_free(w);
    }
    pthread_mutex_unlock(&k->mu);
}

void client_locks_free(struct client *c)
{
    struct client_locks *k = c->locks;
    size_t pos = 0;
    for (struct lfile *f; pos = 0, (f = idmap_next(&k->files, &pos));) {
        while (f->holds->next)
            hold_free(k, f, &f->holds);
        hold_free(k, f, &f->holds);
    }
    idmap_clear(&k->files);
    idmap_clear(&k->ids);
    pthread_mutex_destroy(&k->mu);
    pthread_cond_destroy(&k->unlocked);
    free(k);
}
