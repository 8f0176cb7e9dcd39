/* Leases in metad's requests: what an operation touches, how a session is asked to give back, and
 * how it gets a file for itself.
 *
 * A recall goes over the connection on which its session was last opened or resumed. Its reply is
 * the acknowledgement. When the connection is lost instead, the lease stays recalled until the
 * session comes back or has been silent for the term. Coming back, it has left what it claims
 * (what it holds exclusively, with changes that metad does not know yet), and is asked again for
 * what others wait for: after the reply, so that it knows by then what it has.
 *
 * An unlink or rename changes the inode that the name refers to. It is looked up before the
 * operation waits for leases, so another operation may give the name to another inode in between. Leases on that one
 * are taken back when the operation was applied, before its answer (service_mutate.c); who looks at the name and the
 * inode in just that moment may see the new name and the old link count.
 *
 * Thread context: any. The table of connections has its own mutex; nothing is called under it. */
#include "service_internal.h"
#include "base/lock.h"
#include "metaop.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/compare.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash_table.h"

#define LOG_MODULE "lease"
#define CHILDREN_MAX 1024u
#define RECALL_TIMEOUT_MS 30000u /* then it is asked again */

struct bound {
    struct hash_link link;
    uint64_t session;
    struct rpc_conn *conn;
    uint32_t term_ms; /* by which it goes, as it says; 0: it did not */
};
struct lease_conns {
    struct lock mu;
    struct hash_table bound; /* struct bound by session */
    struct recall *recalls;  /* not answered yet */
    size_t nrecalls;
    bool stopped; /* nobody is asked any more */
};

static struct bound *bound_find(const struct lease_conns *c, uint64_t session)
{
    return HASH_ENTRY(hash_table_find(&c->bound, session), struct bound, link);
}

static void unbind(struct lease_conns *c, struct bound *b)
{
    hash_table_remove(&c->bound, &b->link);
    rpc_conn_unref(b->conn);
    free(b);
}

void service_session_bind(struct service *s, uint64_t session, struct rpc_conn *c)
{
    struct bound *b = malloc(sizeof(*b));

    if (!b)
        abort();
    *b = (struct bound){.session = session, .conn = rpc_conn_ref(c)};
    lock_acquire(&s->conns->mu);
    bool stopped = s->conns->stopped;
    struct bound *old = bound_find(s->conns, session);
    if (old)
        unbind(s->conns, old);
    hash_table_add(&s->conns->bound, &b->link);
    lock_release(&s->conns->mu);
    if (stopped)
        rpc_conn_close(c);
}

static bool exists(struct service *s, uint64_t ino)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    return fsm_getattr(s->cfg.fsm, ino, &a) == 0;
}

/* A claim may be of a file that this metad is yet to be told of: it was made on the mount, or told to a metad that died.
 * Nobody else can know it before, and as it is made its session gets the lease: so it has it. Told otherwise it would
 * answer, when others ask for the file then, that it keeps nothing of it back, and they would not see what was written. */
size_t service_lease_resume(struct service *s, const Replfs__SessionReq *r, bool holds, bool unmade,
                            uint64_t **claims)
{
    uint64_t *v = malloc((r->n_exclusive + 1) * sizeof(*v));
    CLEANUP(free_ptr) uint64_t *others = malloc((r->n_exclusive + 1) * sizeof(*others));
    size_t n = 0, nothers = 0;

    if (!v || !others)
        abort();
    fsm_rdlock(s->cfg.fsm);
    for (size_t i = 0; i < r->n_exclusive; i++)
        if (!exists(s, r->exclusive[i]))
            others[nothers++] = r->exclusive[i];
        else if (holds)
            v[n++] = r->exclusive[i];
    fsm_unlock(s->cfg.fsm);
    n = leases_resume(s->leases, r->session, v, n);
    for (size_t i = 0; unmade && i < nothers; i++)
        v[n++] = others[i];
    qsort(v, n, sizeof(*v), compare_u64);
    *claims = v;
    return n;
}

void service_conn_closed(struct service *s, struct rpc_conn *c)
{
    LOCK_SCOPE(&s->conns->mu);
    HASH_TABLE_EACH (&s->conns->bound, p) {
        struct bound *b = HASH_ENTRY(p, struct bound, link);
        if (b->conn == c)
            unbind(s->conns, b);
    }
}

static struct rpc_conn *conn_of(struct service *s, uint64_t session)
{
    LOCK_SCOPE(&s->conns->mu);
    const struct bound *b = bound_find(s->conns, session);
    return b ? rpc_conn_ref(b->conn) : NULL;
}

/* ---- recalls ---- */

struct recall {
    struct recall *next, **prev;
    struct service *s;
    struct rpc_conn *conn; /* a reference */
    uint64_t session, ino, nr;
    enum lease_mode keep;
};

static void send_recall(void *arg, uint64_t session, uint64_t ino, enum lease_mode keep,
                        uint64_t nr);

/* False: nobody is asked any more. */
static bool recall_begin(struct recall *r)
{
    struct lease_conns *c = r->s->conns;

    LOCK_SCOPE(&c->mu);
    if (c->stopped)
        return false;
    r->next = c->recalls;
    r->prev = &c->recalls;
    if (r->next)
        r->next->prev = &r->next;
    c->recalls = r;
    c->nrecalls++;
    service_keep(r->s);
    return true;
}

static void recall_over(struct recall *r)
{
    struct service *s = r->s;

    lock_acquire(&s->conns->mu);
    *r->prev = r->next;
    if (r->next)
        r->next->prev = r->prev;
    s->conns->nrecalls--;
    lock_release(&s->conns->mu);
    rpc_conn_unref(r->conn);
    free(r);
    service_leave(s);
}

static void on_answer(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct recall *r = arg;
    struct rpc_conn *now = conn_of(r->s, r->session);

    (void)payload;
    if (now != r->conn) {
        /* the session came back over another connection: what it holds now is what it claimed
         * there, not what it gave back here */
    } else if (code == 0 && rep->body_case == REPLFS__ENVELOPE__BODY_RECALL_REPLY) {
        uint32_t kept = rep->recall_reply->kept;
        leases_ack(r->s->leases, r->session, r->ino,
                   kept <= (uint32_t)r->keep ? (enum lease_mode)kept : r->keep, r->nr);
    } else if (code == -ERR_TIMEOUT) {
        log_warn("session %016llx takes long to give back its lease on inode %llu; asking again",
                 (unsigned long long)r->session, (unsigned long long)r->ino);
        send_recall(r->s, r->session, r->ino, r->keep, r->nr);
    }
    rpc_conn_unref(now);
    recall_over(r);
}

static void send_recall(void *arg, uint64_t session, uint64_t ino, enum lease_mode keep,
                        uint64_t nr)
{
    struct service *s = arg;
    struct rpc_conn *c = conn_of(s, session);

    if (!c)
        return; /* it comes back and is reminded, or its time runs out */
    struct recall *r = malloc(sizeof(*r));
    if (!r)
        abort();
    *r = (struct recall){
        .s = s, .conn = rpc_conn_ref(c), .session = session, .ino = ino, .nr = nr, .keep = keep};
    if (!recall_begin(r)) {
        rpc_conn_unref(r->conn);
        rpc_conn_unref(c);
        free(r);
        return;
    }
    Replfs__RecallReq q = REPLFS__RECALL_REQ__INIT;
    q.ino = ino;
    q.keep = (uint32_t)keep;
    RPC_ENVELOPE(env, RECALL_REQ, recall_req, &q);
    rpc_call(c, &env, NULL, RECALL_TIMEOUT_MS, on_answer, r);
    rpc_conn_unref(c);
}

static uint32_t silent_ms(void *arg, uint64_t session)
{
    struct service *s = arg;
    return sessions_silent_ms(s->cfg.sessions, session);
}

static void fence(void *arg, uint64_t session)
{
    struct service *s = arg;
    sessions_expire(s->cfg.sessions, session);
}

/* Before it is fenced. Its name is the mount's host and place. */
static void stubborn(void *arg, uint64_t session, uint64_t ino)
{
    struct service *s = arg;
    const char *name = NULL;
    char who[160];
    uint64_t id;

    fsm_rdlock(s->cfg.fsm);
    if (!fsm_session_next(s->cfg.fsm, session - 1, &id, &name) || id != session)
        name = NULL;
    snprintf(who, sizeof(who), "%s", name ? name : "?");
    fsm_unlock(s->cfg.fsm);
    log_error("session %016llx (%s) is alive and does not give back its lease on inode %llu: it is "
              "closed, others wait for it",
              (unsigned long long)session, who, (unsigned long long)ino);
    nodes_note(
        s->cfg.nodes, 1, "client-stubborn",
        "look at that client's log; unmount and mount again there",
        "the mount %s did not give back what others wait for (inode %llu): it lost its session",
        who, (unsigned long long)ino);
}

static void on_session_closed(void *arg, uint64_t session)
{
    struct service *s = arg;

    lock_acquire(&s->conns->mu);
    struct bound *b = bound_find(s->conns, session);
    if (b)
        unbind(s->conns, b);
    lock_release(&s->conns->mu);
    leases_drop_session(s->leases, session);
}

void service_term_heard(struct service *s, uint64_t session, uint32_t term_ms)
{
    LOCK_SCOPE(&s->conns->mu);
    struct bound *b = bound_find(s->conns, session);
    if (b)
        b->term_ms = term_ms;
}

bool service_all_heard(struct service *s, uint32_t term_ms)
{
    LOCK_SCOPE(&s->conns->mu);
    const char *name;
    for (uint64_t id = 0; fsm_session_next(s->cfg.fsm, id, &id, &name);) {
        const struct bound *b = bound_find(s->conns, id);
        if (!b || !b->term_ms || b->term_ms > term_ms)
            return false;
    }
    return true;
}

static void on_reaped(void *arg, uint64_t ino)
{
    struct service *s = arg;
    leases_drop_inode(s->leases, ino);
}

static void on_tick(void *arg)
{
    struct service *s = arg;
    service_grace_look(s);
    service_grace_locks(s);
    service_hold_tick(s);
    service_memory_tick(s);
    service_config_tick(s);
    leases_tick(s->leases, clock_boot() / NSEC_PER_MSEC);
}

static uint32_t lease_term(void *arg)
{
    return service_term(arg);
}

void service_leases_init(struct service *s)
{
    struct leases_config cfg = {.recall = send_recall,
                                .silent_ms = silent_ms,
                                .fence = fence,
                                .stubborn = stubborn,
                                .arg = s,
                                .term = lease_term};
    struct sessions_watcher w = {
        .closed = on_session_closed, .reaped = on_reaped, .tick = on_tick, .arg = s};

    s->conns = calloc(1, sizeof(*s->conns));
    if (!s->conns)
        abort();
    lock_init(&s->conns->mu, LOCK_LEASE_CONNS);
    HASH_TABLE_INIT(&s->conns->bound, 256, struct bound, link, session);
    s->leases = leases_new(&cfg);
    service_hold_start(s);
    service_grace_start(s);
    sessions_watch(s->cfg.sessions, &w);
}

/* Closing a connection ends the recalls on it. */
void service_leases_stop(struct service *s, int code)
{
    struct rpc_conn **v;
    size_t n = 0;

    lock_acquire(&s->conns->mu);
    s->conns->stopped = true;
    v = malloc((s->conns->bound.n + s->conns->nrecalls + 1) * sizeof(struct rpc_conn *));
    if (!v)
        abort();
    for (const struct recall *r = s->conns->recalls; r; r = r->next)
        v[n++] = rpc_conn_ref(r->conn);
    HASH_TABLE_EACH (&s->conns->bound, p)
        v[n++] = rpc_conn_ref(HASH_ENTRY(p, struct bound, link)->conn);
    lock_release(&s->conns->mu);
    leases_stop(s->leases, code);
    for (size_t i = 0; i < n; i++) {
        rpc_conn_close(v[i]);
        rpc_conn_unref(v[i]);
    }
    free(v);
}

void service_leases_free(struct service *s)
{
    HASH_TABLE_EACH (&s->conns->bound, p)
        unbind(s->conns, HASH_ENTRY(p, struct bound, link));
    hash_table_free(&s->conns->bound);
    lock_destroy(&s->conns->mu);
    free(s->conns);
    leases_free(s->leases);
}

/* ---- waiting for one inode ---- */

struct turn {
    struct lease_wait w;
    struct service *s;
    struct rpc_req *req;
    void (*again)(struct service *s, struct rpc_req *req);
    void (*alone)(struct service *s, struct rpc_req *req, const struct lease_wait *in);
};

static void turn_come(struct lease_wait *w)
{
    struct turn *t = (struct turn *)w;
    struct service *s = t->s;

    if (w->code == 0 && !service_leads(s))
        nodes_not_leader(s->cfg.nodes, t->req);
    else if (w->code != 0)
        service_fail(s, t->req, w->code, "another client has not given its lease back yet");
    else if (t->alone)
        t->alone(s, t->req, w);
    else
        t->again(s, t->req);
    leases_leave(s->leases, w);
    free(t);
    service_leave(s);
}

static void turn_take(const struct turn *how, uint64_t session, uint64_t ino)
{
    struct turn *t = malloc(sizeof(*t));

    if (!t)
        abort();
    *t = *how;
    t->w = (struct lease_wait){.session = session, .ready = turn_come, .firm = how->w.firm};
    lease_need(&t->w, ino, t->alone != NULL);
    service_keep(t->s);
    if (leases_enter(t->s->leases, &t->w))
        turn_come(&t->w);
}

void service_again(struct service *s, struct rpc_req *req, uint64_t session, uint64_t ino,
                   void (*again)(struct service *s, struct rpc_req *req))
{
    turn_take(&(struct turn){.s = s, .req = req, .again = again}, session, ino);
}

void service_again_firmly(struct service *s, struct rpc_req *req, uint64_t session, uint64_t ino,
                          void (*again)(struct service *s, struct rpc_req *req))
{
    turn_take(&(struct turn){.w.firm = true, .s = s, .req = req, .again = again}, session, ino);
}

void service_alone(struct service *s, struct rpc_req *req, uint64_t session, uint64_t ino,
                   void (*alone)(struct service *s, struct rpc_req *req,
                                 const struct lease_wait *in))
{
    turn_take(&(struct turn){.s = s, .req = req, .alone = alone}, session, ino);
}

/* ---- a lease for its own sake ---- */

bool service_is_file(struct service *s, uint64_t ino)
{
    const struct extmap *map;
    return fsm_extents(s->cfg.fsm, ino, &map) == 0;
}

/* Others' leases are gone. Others may have the file open: they ask before they show anything. */
static void lease_alone(struct service *s, struct rpc_req *req, const struct lease_wait *in)
{
    const Replfs__LeaseReq *r = req->env->lease_req;
    Replfs__LeaseReply rep = REPLFS__LEASE_REPLY__INIT;
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    enum lease_mode on = LEASE_NONE;

    fsm_rdlock(s->cfg.fsm);
    int rc = fsm_getattr(s->cfg.fsm, r->ino, &attr);
    if (rc == 0)
        on = leases_grant(s->leases, r->session, r->ino,
                          service_is_file(s, r->ino) ? LEASE_EXCLUSIVE : LEASE_SHARED, in);
    fsm_unlock(s->cfg.fsm);
    if (rc != 0) {
        rpc_fail(req, rc, "inode %llu", (unsigned long long)r->ino);
        return;
    }
    rep.attr = &attr;
    rep.lease = (uint32_t)on;
    RPC_ENVELOPE(env, LEASE_REPLY, lease_reply, &rep);
    rpc_reply(req, &env, NULL);
}

struct children {
    struct service *s;
    uint64_t session, *alone, cookie;
    size_t n;
};

static bool children_alone(void *arg, const struct fsm_dirent *list, size_t n)
{
    struct children *c = arg;

    for (size_t i = 0; i < n && c->n < CHILDREN_MAX; i++) {
        uint64_t ino = list[i].ino;
        c->cookie = list[i].cookie;
        c->alone[c->n] = ino;
        c->n +=
            !sessions_elsewhere(c->s->cfg.sessions, c->session, ino) &&
            leases_grant(c->s->leases, c->session, ino, LEASE_EXCLUSIVE, NULL) == LEASE_EXCLUSIVE;
    }
    return c->n < CHILDREN_MAX;
}

/* Nobody is asked to give anything back for this. */
static void lease_children(struct service *s, struct rpc_req *req)
{
    const Replfs__LeaseReq *r = req->env->lease_req;
    Replfs__LeaseReply rep = REPLFS__LEASE_REPLY__INIT;
    Replfs__Attr attr = REPLFS__ATTR__INIT;
    CLEANUP(reply_arena_free) struct reply_arena arena = {0};
    struct children c = {s, r->session, reply_arena_alloc(&arena, CHILDREN_MAX * sizeof(uint64_t)),
                         0, 0};
    enum lease_mode on = LEASE_NONE;

    fsm_rdlock(s->cfg.fsm);
    int rc = fsm_getattr(s->cfg.fsm, r->ino, &attr);
    if (rc == 0)
        on = leases_grant(s->leases, r->session, r->ino, LEASE_EXCLUSIVE, NULL);
    if (on == LEASE_EXCLUSIVE)
        rc = fsm_readdir(s->cfg.fsm, r->ino, r->cookie, children_alone, &c);
    fsm_unlock(s->cfg.fsm);
    if (rc != 0) {
        rpc_fail(req, rc, "directory %llu", (unsigned long long)r->ino);
        return;
    }
    rep.attr = &attr;
    rep.lease = on == LEASE_ELSEWHERE ? LEASE_NONE : (uint32_t)on;
    rep.alone = c.alone;
    rep.n_alone = c.n;
    rep.cookie = c.n == CHILDREN_MAX ? c.cookie : 0;
    RPC_ENVELOPE(env, LEASE_REPLY, lease_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void service_lease(struct service *s, struct rpc_req *req)
{
    const Replfs__LeaseReq *r = req->env->lease_req;

    if (!service_session_ok(s, req, r->session, false))
        return;
    if (r->children)
        lease_children(s, req);
    else
        service_alone(s, req, r->session, r->ino, lease_alone);
}

/* ---- what an operation touches ---- */

struct needs {
    struct service *s;
    struct lease_wait *w;
    bool locked; /* the fsm, for reading: from the first name on */
};

static void need(void *arg, const struct metaop_touch *t)
{
    struct needs *n = arg;
    enum metaop_lease others = metaop_lease(t->how);
    struct fsm *f = n->s->cfg.fsm;
    uint64_t ino;

    if (others == METAOP_LEASE_ANY)
        return;
    lease_need(n->w, t->ino, others == METAOP_LEASE_NONE);
    if (!metaop_resolves(t->how))
        return;
    if (!n->locked)
        fsm_rdlock(f);
    n->locked = true;
    if (fsm_lookup(f, t->ino, t->name->data, t->name->len, &ino) == 0)
        lease_need(n->w, ino, true);
}

void service_needs(struct service *s, const Replfs__MetaOp *op, struct lease_wait *w)
{
    struct needs n = {s, w, false};

    /* a client that works behind metad's back in the tree must hear of it; what is in it is not known without
     * a walk, and such operations are seldom */
    if (metaop_below(op) == METAOP_BELOW_ALL)
        leases_need_exclusive(s->leases, w);
    metaop_visit(op, need, &n);
    if (n.locked)
        fsm_unlock(s->cfg.fsm);
}
