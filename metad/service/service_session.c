/* Sessions as clients see them: a new one goes through the log (its id is the leader's random
 * number), one that reconnects resumes and says what it has, and keepalives renew the lease.
 * Runs on rpc threads; a new session is answered from the log thread. */
#include "metad/plan/doubts.h"
#include "metad/cluster/origin.h"
#include "service_internal.h"

#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "session"
#define OPEN_INOS_MAX (1u << 20)
#define CLAIMS_MAX 65536u

bool service_session_ok(struct service *s, struct rpc_req *req, uint64_t session, bool optional)
{
    if (session == 0 && optional)
        return true;
    if (session != 0 && sessions_touch(s->cfg.sessions, session) == 0) {
        service_hold_heard(s, session);
        return true;
    }
    rpc_fail(req, ERR_SESSION, "session %016llx is not open: open a new one",
             (unsigned long long)session);
    return false;
}

/* What the client was told last is in our own past. If not, it comes from a metad that went on from an
 * older state of this one, or from another copy: what it knows of files is not true here. */
static bool is_of_our_past(struct service *s, const Replfs__SessionReq *r)
{
    struct fsm_mark m = {r->seen_incarnation, r->seen_position};

    fsm_rdlock(s->cfg.fsm);
    bool known = fsm_mark_known(s->cfg.fsm, &m);
    fsm_unlock(s->cfg.fsm);
    return known;
}

static void reply(struct service *s, struct rpc_req *req, uint64_t session, uint64_t *exclusive,
                  size_t n)
{
    Replfs__SessionReply rep = REPLFS__SESSION_REPLY__INIT;
    struct fsm_mark mark;
    struct fsm_addrs metads;

    fsm_rdlock(s->cfg.fsm);
    fsm_mark(s->cfg.fsm, &mark);
    rep.lapses = fsm_session_lapses(s->cfg.fsm, session);
    fsm_unlock(s->cfg.fsm);
    rep.incarnation = mark.incarnation;
    rep.position = mark.position;
    rep.forked = !is_of_our_past(s, req->env->session_req);
    rep.session = session;
    rep.lease_ms = service_setting(s, SETTING_SESSION_LEASE);
    rep.term_ms = service_setting(s, SETTING_LEASE_TERM);
    rep.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    rep.cluster = (char *)mlog_uuid(s->cfg.mlog);
    rep.default_min_copies = service_min_copies(s);
    fsm_metad_addrs(s->cfg.fsm, &metads);
    rep.metads = metads.list;
    rep.n_metads = metads.n;
    rep.exclusive = exclusive;
    rep.n_exclusive = n;
    RPC_ENVELOPE(env, SESSION_REPLY, session_reply, &rep);
    rpc_reply(req, &env, NULL);
}

/* ---- a new session ---- */

struct opening {
    struct service *s;
    struct rpc_req *req;
    uint64_t session;
    bool back; /* one that lapsed */
    int code;
};

static void open_applied(void *arg, int code, const struct fsm_result *res)
{
    struct opening *op = arg;

    op->code = code != 0 ? code : -res->code;
    if (op->code == 0)
        sessions_add(op->s->cfg.sessions, op->session);
    else
        sessions_none(op->s->cfg.sessions, op->session);
}

/* Notes what the session has open: what its client says, and the files that it made and does not know of yet: their names may
 * be gone before it asks again. 0 or -ERR_SESSION. */
static int resume_files(struct service *s, const Replfs__SessionReq *r)
{
    size_t n = r->n_open_inos;
    CLEANUP(free_ptr)
    uint64_t *open = malloc((n + r->n_unanswered_creates + 1) * sizeof(*open));

    if (!open)
        abort();
    if (n)
        memcpy(open, r->open_inos, n * sizeof(*open));
    fsm_rdlock(s->cfg.fsm);
    for (size_t i = 0; i < r->n_unanswered_creates; i++) {
        open[n] = fsm_session_answered(s->cfg.fsm, r->session, r->unanswered_creates[i]);
        n += open[n] != 0;
    }
    fsm_unlock(s->cfg.fsm);
    return sessions_resume(s->cfg.sessions, r->session, open, n);
}

static void open_after(void *arg)
{
    struct opening *op = arg;

    if (op->code == 0) {
        const Replfs__SessionReq *r = op->req->env->session_req;
        CLEANUP(free_ptr) uint64_t *claims = NULL;
        size_t n = 0;
        if (op->back) {
            resume_files(op->s, r);
            n = service_lease_resume(op->s, r, false, is_of_our_past(op->s, r), &claims);
        }
        service_lock_opened(op->s, op->session, op->req->conn);
        service_session_bind(op->s, op->session, op->req->conn);
        reply(op->s, op->req, op->session, claims, n);
    } else {
        service_fail(op->s, op->req, op->code, "the session could not be opened");
    }
    service_leave(op->s);
    free(op);
}

static void propose_open(struct service *s, struct rpc_req *req, uint64_t session, bool back)
{
    const Replfs__SessionReq *r = req->env->session_req;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    Replfs__SessionOpenOp open_op = REPLFS__SESSION_OPEN_OP__INIT;
    struct opening *op = calloc(1, sizeof(*op));

    if (!op)
        abort();
    *op = (struct opening){.s = s, .req = req, .session = session, .back = back};
    open_op.session = session;
    open_op.name = r->name;
    open_op.host_id = r->host_id;
    open_op.tells = true;
    open_op.back = back;
    meta.op_case = REPLFS__META_OP__OP_SESSION_OPEN;
    meta.session_open = &open_op;
    cmd.op = &meta;
    log_info("session %016llx %s %s (%s)", (unsigned long long)session,
             back ? "had lapsed, and goes on:" : "for", r->name ? r->name : "?",
             rpc_conn_peer(req->conn)->addr);
    service_keep(s);
    service_propose(s, &cmd, open_applied, open_after, op);
}

static void refuse_peer(struct rpc_req *req)
{
    rpc_fail(req, EDQUOT, "%u sessions of one address are open: unmount some", SESSIONS_PER_PEER);
}

static void open_new(struct service *s, struct rpc_req *req)
{
    uint64_t session;

    if (RAND_bytes((unsigned char *)&session, sizeof(session)) != 1)
        abort();
    session |= 1; /* never 0 */
    if (sessions_begin(s->cfg.sessions, session, origin_of(req->conn)) != 0)
        refuse_peer(req);
    else
        propose_open(s, req, session, false);
}

/* ---- one that comes back ---- */

static void unknown(struct rpc_req *req)
{
    rpc_fail(req, ERR_SESSION, "session %016llx is not open: open a new one",
             (unsigned long long)req->env->session_req->session);
}

/* It was silent for too long, others have had what it held. Its client knows how to go on from there, or
 * does not ask for it (comes_back). */
static void come_back(struct service *s, struct rpc_req *req)
{
    const Replfs__SessionReq *r = req->env->session_req;
    int rc = -ERR_SESSION;

    if (r->comes_back) {
        rc = sessions_return(s->cfg.sessions, r->session, origin_of(req->conn));
        fsm_rdlock(s->cfg.fsm);
        bool lapsed = fsm_session_lapsed(s->cfg.fsm, r->session);
        fsm_unlock(s->cfg.fsm);
        if (rc == 0 && !lapsed) {
            sessions_none(s->cfg.sessions, r->session);
            rc = -ERR_SESSION;
        }
    }
    if (rc == 0)
        propose_open(s, req, r->session, true);
    else if (rc == -EDQUOT)
        refuse_peer(req);
    else if (rc == -ERR_BUSY)
        rpc_fail(req, ERR_BUSY, "the session is just being closed");
    else
        unknown(req);
}

/* It lapsed, went on, and the answer that said so was lost: what the client says to hold, it does not. */
static bool heard_of_all(struct service *s, const Replfs__SessionReq *r)
{
    fsm_rdlock(s->cfg.fsm);
    uint32_t lapses = fsm_session_lapses(s->cfg.fsm, r->session);
    fsm_unlock(s->cfg.fsm);
    return lapses == r->lapses;
}

/* The claims come first: once the last session is back, others are let in again. The connection is
 * bound after the reply, lest a recall overtake it (the client's next request is read when this one
 * is done); what was asked for in between is asked for again. */
static void resume(struct service *s, struct rpc_req *req)
{
    const Replfs__SessionReq *r = req->env->session_req;
    struct rpc_conn *conn = rpc_conn_ref(req->conn);
    uint64_t session = r->session, *claims = NULL;
    size_t kept = 0;

    bool alive = sessions_touch(s->cfg.sessions, session) == 0;
    if (alive) {
        bool holds = heard_of_all(s, r);
        service_lock_resume(s, req, holds);
        kept = service_lease_resume(s, r, holds, is_of_our_past(s, r), &claims);
        alive = resume_files(s, r) == 0;
        if (!alive) {
            service_lock_forget(s, session);
            leases_drop_session(s->leases, session);
        }
    }
    service_grace_look(s);
    if (alive) {
        log_info("session %016llx is back with %zu open files, %zu locks and %zu of %zu exclusive "
                 "leases (%s)",
                 (unsigned long long)session, r->n_open_inos, r->n_locks, kept, r->n_exclusive,
                 rpc_conn_peer(conn)->addr);
        reply(s, req, session, claims, kept);
        service_hold_heard(s, session);
        service_session_bind(s, session, conn);
        leases_remind(s->leases, session);
    } else {
        come_back(s, req);
    }
    free(claims);
    rpc_conn_unref(conn);
}

/* The session may be open here, from before the fork: it ends, lest its grants and changes from there be
 * mixed with what it would get here. */
static void refuse(struct service *s, struct rpc_req *req)
{
    const Replfs__SessionReq *r = req->env->session_req;

    sessions_expire(s->cfg.sessions, r->session);
    log_warn(
        "session %016llx (%s, %s) is refused: it was told of incarnation %016llx up to position "
        "%llu, which this metad does not have in its past",
        (unsigned long long)r->session, r->name ? r->name : "?", rpc_conn_peer(req->conn)->addr,
        (unsigned long long)r->seen_incarnation, (unsigned long long)r->seen_position);
    rpc_fail(req, ERR_SESSION,
             "session %016llx belongs to another state of the metadata than this metad has: open a "
             "new one",
             (unsigned long long)r->session);
}

void service_session(struct service *s, struct rpc_req *req)
{
    const Replfs__SessionReq *r = req->env->session_req;

    if (r->session == 0)
        open_new(s, req);
    else if (r->n_open_inos > OPEN_INOS_MAX || r->n_unanswered_creates > OPEN_INOS_MAX)
        rpc_fail(req, ERR_PROTOCOL, "too many open files named");
    else if (r->n_exclusive > CLAIMS_MAX)
        rpc_fail(req, ERR_PROTOCOL, "more than %u exclusive leases claimed", CLAIMS_MAX);
    else if (!is_of_our_past(s, r))
        refuse(s, req);
    else
        resume(s, req);
}

/* ---- keepalive, bad copies ---- */

void service_keepalive(struct service *s, struct rpc_req *req)
{
    const Replfs__KeepaliveReq *r = req->env->keepalive_req;
    Replfs__KeepaliveReply rep = REPLFS__KEEPALIVE_REPLY__INIT;
    struct fsm_addrs metads;

    if (!service_session_ok(s, req, r->session, false))
        return;
    if (r->oldest_grant != 0)
        nodes_held_grants(s->cfg.nodes, r->session, r->oldest_grant, r->newest_grant, r->held,
                          r->n_held);
    service_term_heard(s, r->session, r->term_ms);
    rep.lease_ms = service_setting(s, SETTING_SESSION_LEASE);
    rep.term_ms = service_setting(s, SETTING_LEASE_TERM);
    rep.default_min_copies = service_min_copies(s);
    rep.nodes_epoch = nodes_epoch(s->cfg.nodes);
    rep.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    nodes_client_clock(s->cfg.nodes, r->session, r->wall_ms);
    fsm_rdlock(s->cfg.fsm);
    rep.position = fsm_applied(s->cfg.fsm);
    fsm_unlock(s->cfg.fsm);
    fsm_metad_addrs(s->cfg.fsm, &metads);
    rep.metads = metads.list;
    rep.n_metads = metads.n;
    RPC_ENVELOPE(env, KEEPALIVE_REPLY, keepalive_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void service_report_bad(struct service *s, struct rpc_req *req)
{
    const Replfs__ReportBadReq *r = req->env->report_bad_req;
    Replfs__ReportBadReply rep = REPLFS__REPORT_BAD_REPLY__INIT;

    if (!service_session_ok(s, req, r->session, false)) /* each costs the reading of a chunk */
        return;
    int rc = nodes_report_bad(s->cfg.nodes, r->session, r->chunk, r->chunkd, -(int)r->code);
    if (rc != 0) {
        rpc_fail(req, rc, "this mount has had %u copies checked, and more come twice a second only",
                 DOUBTS_PER_SESSION);
        return;
    }
    RPC_ENVELOPE(env, REPORT_BAD_REPLY, report_bad_reply, &rep);
    rpc_reply(req, &env, NULL);
}
