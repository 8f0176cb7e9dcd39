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
 * operation waits for leases, so another operation may give the name to another inode in between;
 * two sessions must change one name at one moment for that, and what is then shown too long is the
 * link count and ctime of a file that has further names.
 *
 * Thread context: any. The table of connections has its own mutex; nothing is called under it. */
#include "service_int.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mix.h"

#define LOG_MODULE "lease"
#define BUCKETS 256u
#define TERM_MS 10000u
#define CHILDREN_MAX 1024u
#define RECALL_TIMEOUT_MS 30000u /* then it is asked again */

struct bound {
    struct bound *next;
    uint64_t session;
    struct rpc_conn *conn;
};
struct lease_conns {
    pthread_mutex_t mu;
    struct bound *bucket[BUCKETS];
};

static struct bound **slot_of(struct lease_conns *c, uint64_t session)
{
    struct bound **p = &c->bucket[mix64(session) % BUCKETS];

    while (*p != NULL && (*p)->session != session)
        p = &(*p)->next;
    return p;
}

static void unbind(struct bound **slot)
{
    struct bound *b = *slot;

    *slot = b->next;
    rpc_conn_unref(b->conn);
    free(b);
}

void service_session_bind(struct service *s, uint64_t session, struct rpc_conn *c)
{
    struct bound *b = malloc(sizeof(*b));

    if (b == NULL)
        abort();
    pthread_mutex_lock(&s->conns->mu);
    struct bound **slot = slot_of(s->conns, session);
    if (*slot != NULL)
        unbind(slot);
    *b = (struct bound){*slot, session, rpc_conn_ref(c)};
    *slot = b;
    pthread_mutex_unlock(&s->conns->mu);
}

/* What a claim names may not exist yet: then its directory protects it. */
static bool exists(struct service *s, uint64_t ino)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    return fsm_getattr(s->cfg.fsm, ino, &a) == 0;
}

size_t service_lease_resume(struct service *s, const Replfs__SessionReq *r, bool holds,
                            uint64_t **claims)
{
    uint64_t *v = malloc((r->n_exclusive + 1) * sizeof(*v));
    size_t n = 0;

    if (v == NULL)
        abort();
    fsm_rdlock(s->cfg.fsm);
    for (size_t i = 0; holds && i < r->n_exclusive; i++)
        if (exists(s, r->exclusive[i]))
            v[n++] = r->exclusive[i];
    fsm_unlock(s->cfg.fsm);
    *claims = v;
    return leases_resume(s->leases, r->session, v, n);
}

void service_conn_closed(struct service *s, struct rpc_conn *c)
{
    LOCK_SCOPE(&s->conns->mu);
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct bound **p = &s->conns->bucket[i]; *p != NULL;) {
            if ((*p)->conn == c)
                unbind(p);
            else
                p = &(*p)->next;
        }
}

static struct rpc_conn *conn_of(struct service *s, uint64_t session)
{
    LOCK_SCOPE(&s->conns->mu);
    struct bound *b = *slot_of(s->conns, session);
    return b != NULL ? rpc_conn_ref(b->conn) : NULL;
}

/* ---- recalls ---- */

struct recall {
    struct service *s;
    struct rpc_conn *conn; /* a reference */
    uint64_t session, ino, nr;
    enum lease_mode keep;
};

static void send_recall(void *arg, uint64_t session, uint64_t ino, enum lease_mode keep,
                        uint64_t nr);

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
    rpc_conn_unref(r->conn);
    free(r);
}

static void send_recall(void *arg, uint64_t session, uint64_t ino, enum lease_mode keep,
                        uint64_t nr)
{
    struct service *s = arg;
    struct rpc_conn *c = conn_of(s, session);

    if (c == NULL)
        return; /* it comes back and is reminded, or its time runs out */
    struct recall *r = malloc(sizeof(*r));
    if (r == NULL)
        abort();
    *r = (struct recall){s, rpc_conn_ref(c), session, ino, nr, keep};
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
    return opens_silent_ms(s->cfg.opens, session);
}

static void fence(void *arg, uint64_t session)
{
    struct service *s = arg;
    opens_expire(s->cfg.opens, session);
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
    snprintf(who, sizeof(who), "%s", name != NULL ? name : "?");
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

    pthread_mutex_lock(&s->conns->mu);
    struct bound **slot = slot_of(s->conns, session);
    if (*slot != NULL)
        unbind(slot);
    pthread_mutex_unlock(&s->conns->mu);
    leases_drop_session(s->leases, session);
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
    service_hold_tick(s);
    service_memory_tick(s);
    leases_tick(s->leases, clock_boot() / NSEC_PER_MSEC);
}

void service_leases_init(struct service *s)
{
    if (s->cfg.term_ms == 0)
        s->cfg.term_ms = TERM_MS;
    if (s->cfg.lease_ms != 0 && s->cfg.term_ms > s->cfg.lease_ms)
        s->cfg.term_ms = s->cfg.lease_ms; /* the session's end ends its leases */
    struct leases_config cfg = {.recall = send_recall,
                                .silent_ms = silent_ms,
                                .fence = fence,
                                .stubborn = stubborn,
                                .arg = s,
                                .term_ms = s->cfg.term_ms};
    struct opens_watcher w = {
        .closed = on_session_closed, .reaped = on_reaped, .tick = on_tick, .arg = s};

    s->conns = calloc(1, sizeof(*s->conns));
    if (s->conns == NULL)
        abort();
    pthread_mutex_init(&s->conns->mu, NULL);
    s->leases = leases_new(&cfg);
    service_hold_start(s);
    service_grace_start(s);
    opens_watch(s->cfg.opens, &w);
}

void service_leases_free(struct service *s)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        while (s->conns->bucket[i] != NULL)
            unbind(&s->conns->bucket[i]);
    pthread_mutex_destroy(&s->conns->mu);
    free(s->conns);
    leases_free(s->leases);
}

/* ---- waiting for one inode ---- */

struct gate {
    struct lease_wait w;
    struct service *s;
    struct rpc_req *req;
    void (*again)(struct service *s, struct rpc_req *req);
    void (*alone)(struct service *s, struct rpc_req *req, const struct lease_wait *in);
};

static void gate_ready(struct lease_wait *w)
{
    struct gate *g = (struct gate *)w;

    if (w->code != 0)
        rpc_fail(g->req, w->code, "another client has not given its lease back yet");
    else if (g->alone != NULL)
        g->alone(g->s, g->req, w);
    else
        g->again(g->s, g->req);
    leases_leave(g->s->leases, w);
    free(g);
}

static void gate_enter(const struct gate *how, uint64_t session, uint64_t ino)
{
    struct gate *g = malloc(sizeof(*g));

    if (g == NULL)
        abort();
    *g = *how;
    g->w = (struct lease_wait){.session = session, .ready = gate_ready, .firm = how->w.firm};
    lease_need(&g->w, ino, g->alone != NULL);
    if (leases_enter(g->s->leases, &g->w))
        gate_ready(&g->w);
}

void service_again(struct service *s, struct rpc_req *req, uint64_t session, uint64_t ino,
                   void (*again)(struct service *s, struct rpc_req *req))
{
    gate_enter(&(struct gate){.s = s, .req = req, .again = again}, session, ino);
}

void service_again_firmly(struct service *s, struct rpc_req *req, uint64_t session, uint64_t ino,
                          void (*again)(struct service *s, struct rpc_req *req))
{
    gate_enter(&(struct gate){.w.firm = true, .s = s, .req = req, .again = again}, session, ino);
}

void service_alone(struct service *s, struct rpc_req *req, uint64_t session, uint64_t ino,
                   void (*alone)(struct service *s, struct rpc_req *req,
                                 const struct lease_wait *in))
{
    gate_enter(&(struct gate){.s = s, .req = req, .alone = alone}, session, ino);
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
    int rv = fsm_getattr(s->cfg.fsm, r->ino, &attr);
    if (rv == 0)
        on = leases_grant(s->leases, r->session, r->ino,
                          service_is_file(s, r->ino) ? LEASE_EXCLUSIVE : LEASE_SHARED, in);
    fsm_unlock(s->cfg.fsm);
    if (rv != 0) {
        rpc_fail(req, rv, "inode %llu", (unsigned long long)r->ino);
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
            !opens_elsewhere(c->s->cfg.opens, c->session, ino) &&
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
    CLEANUP(pile_free) struct pile pile = {0};
    struct children c = {s, r->session, pile_alloc(&pile, CHILDREN_MAX * sizeof(uint64_t)), 0, 0};
    enum lease_mode on = LEASE_NONE;

    fsm_rdlock(s->cfg.fsm);
    int rv = fsm_getattr(s->cfg.fsm, r->ino, &attr);
    if (rv == 0)
        on = leases_grant(s->leases, r->session, r->ino, LEASE_EXCLUSIVE, NULL);
    if (on == LEASE_EXCLUSIVE)
        rv = fsm_readdir(s->cfg.fsm, r->ino, r->cookie, children_alone, &c);
    fsm_unlock(s->cfg.fsm);
    if (rv != 0) {
        rpc_fail(req, rv, "directory %llu", (unsigned long long)r->ino);
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

static void need_name(struct service *s, struct lease_wait *w, uint64_t parent,
                      const ProtobufCBinaryData *name)
{
    uint64_t ino;

    lease_need(w, parent, true);
    if (fsm_lookup(s->cfg.fsm, parent, name->data, name->len, &ino) == 0)
        lease_need(w, ino, true);
}

void service_needs(struct service *s, const Replfs__MetaOp *op, struct lease_wait *w)
{
    bool names =
        op->op_case == REPLFS__META_OP__OP_UNLINK || op->op_case == REPLFS__META_OP__OP_RENAME;

    if (names)
        fsm_rdlock(s->cfg.fsm);
    switch ((int)op->op_case) {
    case REPLFS__META_OP__OP_CREATE:
        lease_need(w, op->create->parent, true);
        break;
    case REPLFS__META_OP__OP_UNLINK:
        need_name(s, w, op->unlink->parent, &op->unlink->name);
        break;
    case REPLFS__META_OP__OP_RENAME:
        need_name(s, w, op->rename->parent, &op->rename->name);
        need_name(s, w, op->rename->new_parent, &op->rename->new_name);
        break;
    case REPLFS__META_OP__OP_LINK:
        lease_need(w, op->link->ino, true);
        lease_need(w, op->link->parent, true);
        break;
    case REPLFS__META_OP__OP_SETATTR:
        lease_need(w, op->setattr->ino, true);
        break;
    case REPLFS__META_OP__OP_COMMIT:
        lease_need(w, op->commit->ino, true);
        break;
    case REPLFS__META_OP__OP_XATTR:
        lease_need(w, op->xattr->ino, true);
        break;
    case REPLFS__META_OP__OP_CLONE:
        lease_need(w, op->clone->src, false);
        lease_need(w, op->clone->dst, true);
        break;
    case REPLFS__META_OP__OP_FALLOCATE:
        lease_need(w, op->fallocate->ino, true);
        break;
    case REPLFS__META_OP__OP_QUOTA:
        /* who works behind metad's back in the tree must hear of the quota; what is in it is not
         * known without a walk, and quotas are set seldom */
        leases_need_exclusive(s->leases, w);
        lease_need(w, op->quota->ino, true);
        break;
    case REPLFS__META_OP__OP_SET_GOAL: /* hundreds at once, from setrepl -R */
        for (size_t i = 0; i < op->set_goal->n_ino; i++)
            lease_need(w, op->set_goal->ino[i], true);
        break;
    default:
        break;
    }
    if (names)
        fsm_unlock(s->cfg.fsm);
}
