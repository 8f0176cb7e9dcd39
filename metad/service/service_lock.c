/* File locks as requests: the table of locks.c behind one mutex, answers that wait, and what ties
 * both to sessions and connections.
 *
 * Locks are soft state of the leader. They go when their session is closed; after a change of
 * leader (or a restart) every client that comes back says what it holds, and until all have come
 * back or were closed (at most the term of leases, service_grace.c) nothing new is granted, so that nobody's lock is
 * stolen. Only those that may hold some, as the state knows, are waited for.
 *
 * A request that waits is kept unanswered: granted, cancelled, refused for a deadlock, or told
 * ERR_TIMEOUT at three quarters of its deadline; then the client asks again with the same id and
 * has kept its place.
 *
 * Only the connection on which a session was opened or last resumed may change its locks. What is
 * still in the pipe of a former one would otherwise come after the client has said anew what it
 * holds: a lock that nobody knows of, or an unlock of what was just claimed. Whatever answer is
 * lost with a connection is thus undone by the resume that follows.
 *
 * A granted lock comes with the inode's attributes, so that the client sees what the former holder
 * wrote without asking. When another session has the file to itself, the answer waits until it has
 * sent what it kept back, however long that takes: the lock is granted already.
 *
 * Threads: rpc loop threads; the hook of a closed session runs on the log thread with the fsm lock
 * and leaves the answers to a loop thread. Lock order: fsm, opens, locks.mu, connection. */
#include <errno.h>
#include <stdlib.h>
#include "base/lock.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash_table.h"
#include "metad/coherence/locks.h"
#include "service_internal.h"

#define LOG_MODULE "locks"
#define TICK_MS 100u

struct waiting { /* a request kept unanswered; the table's cookie */
    struct rpc_req *req;
    int code;      /* on the list of those to be answered */
    bool detached; /* its connection is gone, it has left the table */
    struct waiting *next, **prev;
};
struct tie { /* a session and the connection it came on last; NULL: gone */
    uint64_t session;
    struct rpc_conn *conn;
    bool logged; /* that it may hold locks (service_hold.c) */
    unsigned logging;
    struct hash_link link;
};
struct service_locks {
    struct service *s;
    struct lock mu;
    struct locks *table;
    struct waiting *waiting;
    struct hash_table ties; /* struct tie by session */
    bool ticking;
    int stopped; /* requests are answered with this code; 0: served */
};

/* ---- mu held ---- */

static struct tie *tie_find(const struct service_locks *l, uint64_t session)
{
    lock_assert_held(&l->mu);
    return HASH_ENTRY(hash_table_find(&l->ties, session), struct tie, link);
}

static struct tie *tie_set(struct service_locks *l, uint64_t session, struct rpc_conn *conn)
{
    struct tie *t = tie_find(l, session);

    lock_assert_held(&l->mu);
    if (!t) {
        t = calloc(1, sizeof(*t));
        if (!t)
            abort();
        t->session = session;
        hash_table_add(&l->ties, &t->link);
    }
    t->conn = conn;
    return t;
}

static void tie_drop(struct service_locks *l, uint64_t session)
{
    struct tie *t = tie_find(l, session);

    lock_assert_held(&l->mu);
    if (t) {
        hash_table_remove(&l->ties, &t->link);
        free(t);
    }
}

static void waiting_unlist(struct waiting *w)
{
    *w->prev = w->next;
    if (w->next)
        w->next->prev = w->prev;
}

static void refused(struct service *s, struct rpc_req *req, int code)
{
    if (code == -ERR_NOT_LEADER)
        nodes_not_leader(s->cfg.nodes, req);
    else if (code == -ENOLCK)
        rpc_fail(req, code,
                 "too many locks: a mount may hold %u and wait for %u, one file may have %u owners "
                 "of locks and %u requests that wait",
                 LOCKS_PER_SESSION, LOCKS_WAIT_PER_SESSION, LOCKS_OWNERS_PER_FILE,
                 LOCKS_WAIT_PER_FILE);
    else
        rpc_fail(req, code, "%s", code == -ERR_TIMEOUT ? "still locked: ask again" : err_str(code));
}

/* Granted. mu not held: the fsm lock comes before it. */
static void granted(struct service *s, struct rpc_req *req)
{
    const Replfs__LockReq *r = req->env->lock_req;
    Replfs__LockReply rep = REPLFS__LOCK_REPLY__INIT;
    Replfs__Attr attr = REPLFS__ATTR__INIT;

    if (!service_leads(s)) { /* somebody else may have given it to another by now */
        nodes_not_leader(s->cfg.nodes, req);
        return;
    }
    if (r->lock->type != LOCKSET_NONE) {
        fsm_rdlock(s->cfg.fsm);
        enum lease_mode on = leases_grant(s->leases, r->session, r->lock->ino, LEASE_NONE, NULL);
        if (fsm_getattr(s->cfg.fsm, r->lock->ino, &attr) == 0)
            rep.attr = &attr;
        fsm_unlock(s->cfg.fsm);
        if (on == LEASE_ELSEWHERE) {
            service_again_firmly(s, req, r->session, r->lock->ino, granted);
            return;
        }
    }
    RPC_ENVELOPE(env, LOCK_REPLY, lock_reply, &rep);
    rpc_reply(req, &env, NULL);
}

/* ---- the first lock of a session is logged before it is answered ---- */

struct first_lock {
    struct service *s;
    struct rpc_req *req;
    uint64_t session;
    int code;
};

static void first_applied(void *arg, int code, const struct fsm_result *res)
{
    struct first_lock *f = arg;
    struct service_locks *l = f->s->locks;

    f->code = code != 0 ? code : -res->code;
    lock_acquire(&l->mu);
    struct tie *t = tie_find(l, f->session);
    if (t) {
        t->logging--;
        t->logged |= f->code == 0;
    }
    lock_release(&l->mu);
}

static void first_after(void *arg)
{
    struct first_lock *f = arg;

    if (f->code == 0)
        granted(f->s, f->req);
    else
        refused(f->s, f->req, f->code);
    service_leave(f->s);
    free(f);
}

/* True: the answer comes later. mu not held. */
static bool is_first(struct service_locks *l, struct rpc_req *req)
{
    const Replfs__LockReq *r = req->env->lock_req;

    if (r->lock->type == LOCKSET_NONE)
        return false;
    lock_acquire(&l->mu);
    struct tie *t = tie_find(l, r->session);
    bool first = t && !t->logged;
    if (first)
        t->logging++;
    lock_release(&l->mu);
    if (!first)
        return false;
    struct first_lock *f = malloc(sizeof(*f));
    if (!f)
        abort();
    *f = (struct first_lock){l->s, req, r->session, 0};
    service_keep(l->s);
    service_hold_propose(l->s, r->session, FSM_HOLDS_LOCKS, 0, first_applied, first_after, f);
    return true;
}

static void answer(struct service_locks *l, struct rpc_req *req, int code)
{
    if (code != 0)
        refused(l->s, req, code);
    else if (!is_first(l, req))
        granted(l->s, req);
}

/* A session that has not come back since a start may still claim locks. The bit is cleared under mu: who
 * asks for a lock after that finds it not logged, and proposes behind us. */
void service_lock_silent(struct service *s, uint64_t session)
{
    struct service_locks *l = s->locks;

    lock_acquire(&l->mu);
    struct tie *t = tie_find(l, session);
    if (t && t->logging == 0 && !locks_has_session(l->table, session)) {
        t->logged = false;
        service_hold_propose(s, session, 0, FSM_HOLDS_LOCKS, NULL, NULL, NULL);
    }
    lock_release(&l->mu);
}

static void tick(void *arg);

/* Answers that are due; the others are seen to by the tick. */
static struct waiting *drain(struct service_locks *l)
{
    struct waiting *due = NULL, **last = &due;
    struct locks_done d;

    while (locks_next_done(l->table, &d)) {
        struct waiting *w = d.cookie;
        waiting_unlist(w);
        w->code = d.code;
        w->next = NULL;
        *last = w;
        last = &w->next;
    }
    if (!l->ticking && locks_waiting(l->table) > 0 && l->stopped == 0) {
        l->ticking = true;
        service_keep(l->s);
        rpc_loop_defer(l->s->cfg.loop, TICK_MS, tick, l);
    }
    return due;
}

/* mu taken, and the time of grace ended if it is over. */
static int64_t enter(struct service_locks *l)
{
    bool settled = sessions_awaited(l->s->cfg.sessions, FSM_HOLDS_LOCKS) == 0;
    int64_t now = clock_mono();

    lock_acquire(&l->mu);
    if (settled && locks_held(l->table)) {
        log_info("every client came back or was closed: locks are granted again");
        locks_hold(l->table, false, now);
    }
    return now;
}

static void leave(struct service_locks *l)
{
    struct waiting *due = drain(l);

    lock_release(&l->mu);
    while (due) {
        struct waiting *w = due;
        due = w->next;
        answer(l, w->req, w->code);
        free(w);
    }
}

static void tick(void *arg)
{
    struct service_locks *l = arg;
    int64_t now = enter(l);

    l->ticking = false;
    locks_tick(l->table, now);
    leave(l);
    service_leave(l->s);
}

static void answer_due(void *arg)
{
    struct service_locks *l = arg;

    enter(l);
    leave(l);
    service_leave(l->s);
}

/* The session may change locks on this connection. false: to be refused with *code. */
static bool tied(struct service_locks *l, uint64_t session, const struct rpc_conn *conn, int *code)
{
    const struct tie *t = tie_find(l, session);

    *code = !t ? -ERR_SESSION : t->conn != conn ? -ERR_PEER_GONE : 0;
    return *code == 0;
}

/* ---- requests ---- */

static bool decode(struct lock_req *out, const Replfs__Lock *m, uint64_t session)
{
    if (!m)
        return false;
    *out = (struct lock_req){.session = session,
                             .ino = m->ino,
                             .owner = m->owner,
                             .type = m->type,
                             .start = m->start,
                             .end = m->end,
                             .pid = m->pid,
                             .flock = m->flock};
    return true;
}

/* One that may wait gets a place on the list first: its answer may be due at once. */
static int lock_service_set(struct service_locks *l, struct rpc_req *req, const struct lock_req *r,
                            int64_t now)
{
    struct waiting *w = NULL;
    int64_t patience = (req->deadline - now) / 4 * 3;

    if (req->env->lock_req->wait) {
        w = calloc(1, sizeof(*w));
        if (!w)
            abort();
        w->req = req;
        w->next = l->waiting;
        w->prev = &l->waiting;
        if (w->next)
            w->next->prev = &w->next;
        l->waiting = w;
    }
    int rc = locks_set(l->table, r, w, now, now + (patience > 0 ? patience : 0));
    if (rc != LOCKS_QUEUED && w) {
        waiting_unlist(w);
        free(w);
    }
    return rc;
}

void service_lock(struct service *s, struct rpc_req *req)
{
    const Replfs__LockReq *m = req->env->lock_req;
    struct lock_req r;
    int rc;

    if (!service_session_ok(s, req, m->session, false))
        return;
    if (!decode(&r, m->lock, m->session)) {
        rpc_fail(req, ERR_PROTOCOL, "a lock request without a lock");
        return;
    }
    r.id = m->id;
    int64_t now = enter(s->locks);
    rc = s->locks->stopped;
    if (rc == 0 && tied(s->locks, m->session, req->conn, &rc))
        rc = lock_service_set(s->locks, req, &r, now);
    leave(s->locks);
    if (rc != LOCKS_QUEUED)
        answer(s->locks, req, rc);
}

void service_lock_test(struct service *s, struct rpc_req *req)
{
    const Replfs__LockTestReq *m = req->env->lock_test_req;
    Replfs__LockTestReply rep = REPLFS__LOCK_TEST_REPLY__INIT;
    Replfs__Lock lock = REPLFS__LOCK__INIT;
    struct lock_req r, in_the_way;

    if (!service_session_ok(s, req, m->session, false))
        return;
    if (!decode(&r, m->lock, m->session)) {
        rpc_fail(req, ERR_PROTOCOL, "a lock request without a lock");
        return;
    }
    enter(s->locks);
    bool found = locks_test(s->locks->table, &r, &in_the_way);
    bool unsure = !found && locks_held(s->locks->table);
    leave(s->locks);
    if (unsure) {
        rpc_fail(req, ERR_BUSY, "metad has just started: not all clients are back yet");
        return;
    }
    lock = *m->lock;
    lock.base.n_unknown_fields = 0;
    lock.type = LOCKSET_NONE;
    if (found) {
        lock.type = in_the_way.type;
        lock.start = in_the_way.start;
        lock.end = in_the_way.end;
        lock.owner = in_the_way.owner;
        lock.pid = in_the_way.pid;
    }
    rep.lock = &lock;
    RPC_ENVELOPE(env, LOCK_TEST_REPLY, lock_test_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void service_lock_cancel(struct service *s, struct rpc_req *req)
{
    const Replfs__LockCancelReq *m = req->env->lock_cancel_req;
    Replfs__LockCancelReply rep = REPLFS__LOCK_CANCEL_REPLY__INIT;
    int rc;

    if (!service_session_ok(s, req, m->session, false))
        return;
    int64_t now = enter(s->locks);
    if (tied(s->locks, m->session, req->conn, &rc))
        locks_cancel(s->locks->table, m->session, m->id, now);
    leave(s->locks);
    if (rc != 0) {
        rpc_fail(req, rc, "%s", err_str(rc));
        return;
    }
    RPC_ENVELOPE(env, LOCK_CANCEL_REPLY, lock_cancel_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void service_unlock_all(struct service *s, struct rpc_req *req)
{
    const Replfs__UnlockAllReq *m = req->env->unlock_all_req;
    Replfs__UnlockAllReply rep = REPLFS__UNLOCK_ALL_REPLY__INIT;
    int rc;

    if (!service_session_ok(s, req, m->session, false))
        return;
    int64_t now = enter(s->locks);
    if (tied(s->locks, m->session, req->conn, &rc))
        for (size_t i = 0; i < m->n_owner; i++)
            locks_unlock_all(s->locks->table, m->session, m->ino, m->owner[i], m->flock, now);
    leave(s->locks);
    if (rc != 0) {
        rpc_fail(req, rc, "%s", err_str(rc));
        return;
    }
    RPC_ENVELOPE(env, UNLOCK_ALL_REPLY, unlock_all_reply, &rep);
    rpc_reply(req, &env, NULL);
}

/* ---- sessions and connections ---- */

void service_lock_opened(struct service *s, uint64_t session, struct rpc_conn *conn)
{
    enter(s->locks);
    tie_set(s->locks, session, conn);
    leave(s->locks);
}

void service_lock_resume(struct service *s, struct rpc_req *req, bool holds)
{
    const Replfs__SessionReq *m = req->env->session_req;
    size_t n = holds ? m->n_locks : 0;
    struct lock_req *v = calloc(n + 1, sizeof(*v));

    if (!v)
        abort();
    for (size_t i = 0; i < n; i++)
        decode(&v[i], m->locks[i], m->session);
    bool logged = service_holds(s, m->session) & FSM_HOLDS_LOCKS;
    if (n > 0 && !logged)
        service_hold_propose(s, m->session, FSM_HOLDS_LOCKS, 0, NULL, NULL, NULL);
    int64_t now = enter(s->locks);
    tie_set(s->locks, m->session, req->conn)->logged |= logged;
    size_t refused = locks_resume(s->locks->table, m->session, v, n, now);
    leave(s->locks);
    free(v);
    if (refused > 0)
        log_error("session %016llx: %zu of its %zu locks are held by others: not given back",
                  (unsigned long long)m->session, refused, n);
}

void service_lock_forget(struct service *s, uint64_t session)
{
    struct service_locks *l = s->locks;

    lock_acquire(&l->mu);
    tie_drop(l, session);
    locks_drop_session(l->table, session, clock_mono());
    if (l->stopped == 0) { /* not here: the caller has the fsm lock */
        service_keep(s);
        rpc_loop_defer(l->s->cfg.loop, 0, answer_due, l);
    }
    lock_release(&l->mu);
}

static void session_closed(void *arg, uint64_t session)
{
    service_lock_forget(arg, session);
}

static bool is_of_conn(void *cookie, const void *conn)
{
    struct waiting *w = cookie;

    w->detached = w->req->conn == conn;
    return w->detached;
}

void service_lock_conn_closed(struct service *s, struct rpc_conn *conn)
{
    struct service_locks *l = s->locks;
    int64_t now = enter(l);

    HASH_TABLE_EACH (&l->ties, p) {
        struct tie *t = HASH_ENTRY(p, struct tie, link);
        if (t->conn == conn)
            t->conn = NULL;
    }
    locks_detach(l->table, is_of_conn, conn, now);
    for (struct waiting *w = l->waiting, *next; w; w = next) {
        next = w->next;
        if (!w->detached)
            continue; /* another's, or its answer is due: see leave() */
        waiting_unlist(w);
        rpc_fail(w->req, ERR_PEER_GONE, "its connection is gone");
        free(w);
    }
    leave(l);
}

/* ---- life ---- */

void service_lock_start(struct service *s)
{
    struct service_locks *l = calloc(1, sizeof(*l));

    if (!l)
        abort();
    l->s = s;
    lock_init(&l->mu, LOCK_FILE_LOCKS);
    HASH_TABLE_INIT(&l->ties, 256, struct tie, link, session);
    l->table = locks_new();
    locks_hold(l->table, sessions_awaited(s->cfg.sessions, FSM_HOLDS_LOCKS) > 0, clock_mono());
    s->locks = l;
    sessions_on_close(s->cfg.sessions, session_closed, s);
}

/* The table goes, with all that it knows of those that waited. */
void service_lock_stop(struct service *s, int code)
{
    struct service_locks *l = s->locks;

    sessions_on_close(s->cfg.sessions, NULL, NULL);
    lock_acquire(&l->mu);
    struct waiting *list = l->waiting;
    l->waiting = NULL;
    l->stopped = code;
    locks_free(l->table);
    l->table = locks_new();
    lock_release(&l->mu);
    while (list) {
        struct waiting *w = list;
        list = w->next;
        refused(s, w->req, code);
        free(w);
    }
}

void service_lock_free(struct service *s)
{
    struct service_locks *l = s->locks;

    locks_free(l->table);
    HASH_TABLE_EACH (&l->ties, p)
        free(HASH_ENTRY(p, struct tie, link));
    hash_table_free(&l->ties);
    lock_destroy(&l->mu);
    free(l);
}
