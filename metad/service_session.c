/* Sessions as clients see them: a new one goes through the log (its id is the leader's random
 * number), one that reconnects resumes and says what it has open, and keepalives renew the lease.
 * Runs on rpc threads; a new session is answered from the log thread. */
#include "service_int.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "session"
#define OPEN_INOS_MAX (1u << 20)

bool service_session_ok(struct service *s, struct rpc_req *req, uint64_t session, bool optional)
{
    if (session == 0 && optional)
        return true;
    if (session != 0 && opens_touch(s->cfg.opens, session) == 0)
        return true;
    rpc_fail(req, ERR_SESSION, "session %016llx is not open: open a new one",
             (unsigned long long)session);
    return false;
}

static void reply(struct service *s, struct rpc_req *req, uint64_t session)
{
    Replfs__SessionReply rep = REPLFS__SESSION_REPLY__INIT;

    rep.session = session;
    rep.lease_ms = s->cfg.lease_ms;
    rep.term_ms = s->cfg.term_ms;
    rep.cluster = (char *)mlog_uuid(s->cfg.mlog);
    rep.default_min_copies = s->cfg.min_copies;
    rep.metads = (char **)(uintptr_t)s->cfg.metads;
    rep.n_metads = s->cfg.nmetads;
    service_session_bind(s, session, req->conn);
    RPC_ENVELOPE(env, SESSION_REPLY, session_reply, &rep);
    rpc_reply(req, &env, NULL);
}

/* ---- a new session ---- */

struct opening {
    struct service *s;
    struct rpc_req *req;
    uint64_t session;
    int code;
};

static void open_applied(void *arg, int code, const struct fsm_result *res)
{
    struct opening *op = arg;

    op->code = code != 0 ? code : -res->code;
    if (op->code == 0)
        opens_session_add(op->s->cfg.opens, op->session);
}

static void open_after(void *arg)
{
    struct opening *op = arg;

    if (op->code == 0)
        service_lock_opened(op->s, op->session, op->req->conn);
    if (op->code == 0)
        reply(op->s, op->req, op->session);
    else
        rpc_fail(op->req, op->code, "the session could not be opened");
    free(op);
}

static void open_new(struct service *s, struct rpc_req *req)
{
    const Replfs__SessionReq *r = req->env->session_req;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    Replfs__SessionOpenOp open_op = REPLFS__SESSION_OPEN_OP__INIT;
    struct opening *op = calloc(1, sizeof(*op));

    if (op == NULL || RAND_bytes((unsigned char *)&op->session, sizeof(op->session)) != 1)
        abort();
    op->session |= 1; /* never 0 */
    op->s = s;
    op->req = req;
    open_op.session = op->session;
    open_op.name = r->name;
    open_op.host_id = r->host_id;
    meta.op_case = REPLFS__META_OP__OP_SESSION_OPEN;
    meta.session_open = &open_op;
    cmd.op = &meta;
    log_info("session %016llx for %s (%s)", (unsigned long long)op->session,
             r->name != NULL ? r->name : "?", rpc_conn_peer(req->conn)->addr);
    mlog_propose(s->cfg.mlog, &cmd, open_applied, open_after, op);
}

void service_session(struct service *s, struct rpc_req *req)
{
    const Replfs__SessionReq *r = req->env->session_req;

    if (r->session == 0) {
        open_new(s, req);
        return;
    }
    if (r->n_open_inos > OPEN_INOS_MAX) {
        rpc_fail(req, ERR_PROTOCOL, "too many open files named");
        return;
    }
    bool alive = opens_touch(s->cfg.opens, r->session) == 0;
    if (alive) {
        service_lock_resume(s, req);
        alive = opens_resume(s->cfg.opens, r->session, r->open_inos, r->n_open_inos) == 0;
        if (!alive)
            service_lock_forget(s, r->session);
    }
    if (!alive) {
        rpc_fail(req, ERR_SESSION, "session %016llx is not open: open a new one",
                 (unsigned long long)r->session);
        return;
    }
    log_info("session %016llx is back with %zu open files and %zu locks (%s)",
             (unsigned long long)r->session, r->n_open_inos, r->n_locks,
             rpc_conn_peer(req->conn)->addr);
    reply(s, req, r->session);
}

/* ---- keepalive, bad copies ---- */

void service_keepalive(struct service *s, struct rpc_req *req)
{
    const Replfs__KeepaliveReq *r = req->env->keepalive_req;
    Replfs__KeepaliveReply rep = REPLFS__KEEPALIVE_REPLY__INIT;

    if (!service_session_ok(s, req, r->session, false))
        return;
    if (r->oldest_grant != 0)
        nodes_held_grants(s->cfg.nodes, r->session, r->oldest_grant, r->newest_grant, r->held,
                          r->n_held);
    rep.lease_ms = s->cfg.lease_ms;
    rep.nodes_epoch = nodes_epoch(s->cfg.nodes);
    RPC_ENVELOPE(env, KEEPALIVE_REPLY, keepalive_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void service_report_bad(struct service *s, struct rpc_req *req)
{
    const Replfs__ReportBadReq *r = req->env->report_bad_req;
    Replfs__ReportBadReply rep = REPLFS__REPORT_BAD_REPLY__INIT;

    if (!service_session_ok(s, req, r->session, true))
        return;
    nodes_report_bad(s->cfg.nodes, r->chunk, r->chunkd, -(int)r->code);
    RPC_ENVELOPE(env, REPORT_BAD_REPLY, report_bad_reply, &rep);
    rpc_reply(req, &env, NULL);
}
