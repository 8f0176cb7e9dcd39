/* Dispatch: which request goes where; who may send it is in the table of requests (request.h).
 *
 * One handler per request this metad serves; everything else (chunk data, replies, things from the
 * future) is ERR_PROTOCOL. Roles come from the certificate, or from Hello on plaintext.
 *
 * A service is of one leadership: it answers ERR_NOT_LEADER when that is over, also to what had to wait, and what it
 * proposes then comes to nothing (mlog_propose_as). All that works for it is inside the gate of leader.c: handlers
 * while they run, and whatever they leave behind to be gone on with later (proposals, recalls, timers, requests that
 * wait for leases), which says so with service_keep(). So an empty gate means that nobody has a pointer to it.
 *
 * Runs on the rpc loop's threads; no state of its own. */
#include "service_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"
#include "request.h"

#define LOG_MODULE "service"

static void node_list(struct service *s, struct rpc_req *req)
{
    if (service_session_ok(s, req, req->env->nodes_req->session, true))
        nodes_rpc_nodes(s->cfg.nodes, req);
}

/* What anybody may know of chunkds and their chunks. */
static void node_shown(struct service *s, struct rpc_req *req)
{
    enum request r = request_of(req->env);

    if (r == REQUEST_STATUS)
        nodes_rpc_status(s->cfg.nodes, req);
    else if (r == REQUEST_INFO)
        nodes_rpc_info(s->cfg.nodes, req);
    else
        nodes_rpc_converge(s->cfg.nodes, req);
}

/* What administrators ask of chunkds and their chunks. */
static void node_admin(struct service *s, struct rpc_req *req)
{
    enum request r = request_of(req->env);

    if (r == REQUEST_CHUNKD_REMOVE)
        nodes_rpc_remove(s->cfg.nodes, req);
    else if (r == REQUEST_CHUNKD_SET)
        nodes_rpc_set(s->cfg.nodes, req);
    else if (r == REQUEST_RECOVER)
        nodes_rpc_recover(s->cfg.nodes, req);
    else if (r == REQUEST_QUARANTINE)
        nodes_rpc_quarantine(s->cfg.nodes, req);
    else if (r == REQUEST_SCRUB)
        nodes_rpc_scrub(s->cfg.nodes, req);
    else if (r == REQUEST_DAMAGED)
        nodes_rpc_damaged(s->cfg.nodes, req);
    else
        rpc_fail(req, ERR_PROTOCOL, "not a request of an administrator");
}

/* They do not come here: of chunkds and other metads, served whatever this metad's role is (leader.c). */
static void of_any_role(struct service *s, struct rpc_req *req)
{
    (void)s;
    rpc_fail(req, ERR_PROTOCOL, "not of a leadership");
}

static void names_snapshot(struct service *s, struct rpc_req *req)
{
    if (s->cfg.copies)
        copies_snapshot(s->cfg.copies, req);
    else
        rpc_fail(req, -ENOTSUP, "this metad makes no backups");
}

typedef void handler(struct service *s, struct rpc_req *req);

/* NULL: not for metad. */
static handler *handler_of(enum request r)
{
    switch (r) {
    case REQUEST_MUTATE:
        return service_mutate;
    case REQUEST_LOOKUP:
        return service_lookup;
    case REQUEST_GETATTR:
        return service_getattr;
    case REQUEST_READDIR:
        return service_readdir;
    case REQUEST_READLINK:
        return service_readlink;
    case REQUEST_GETXATTR:
        return service_getxattr;
    case REQUEST_LISTXATTR:
        return service_listxattr;
    case REQUEST_LEASE:
        return service_lease;
    case REQUEST_INOS:
        return service_inos;
    case REQUEST_LAYOUT:
        return service_layout;
    case REQUEST_LAYOUTS:
        return service_layouts;
    case REQUEST_OPEN:
        return service_open;
    case REQUEST_CLOSE:
        return service_close;
    case REQUEST_GRANT:
        return service_grant;
    case REQUEST_STATFS:
        return service_statfs;
    case REQUEST_SESSION:
        return service_session;
    case REQUEST_KEEPALIVE:
        return service_keepalive;
    case REQUEST_REPORT_BAD:
        return service_report_bad;
    case REQUEST_LOCK:
        return service_lock;
    case REQUEST_LOCK_TEST:
        return service_lock_test;
    case REQUEST_LOCK_CANCEL:
        return service_lock_cancel;
    case REQUEST_UNLOCK_ALL:
        return service_unlock_all;
    case REQUEST_NODES:
        return node_list;
    case REQUEST_STATUS:
    case REQUEST_INFO:
    case REQUEST_CONVERGE:
        return node_shown;
    case REQUEST_QUOTA_LIST:
        return service_quota_list;
    case REQUEST_CHUNKD_REMOVE:
    case REQUEST_CHUNKD_SET:
    case REQUEST_RECOVER:
    case REQUEST_QUARANTINE:
    case REQUEST_SCRUB:
    case REQUEST_DAMAGED:
        return node_admin;
    case REQUEST_CONFIG:
        return service_config_req;
    case REQUEST_SNAPSHOT:
        return names_snapshot;
    case REQUEST_REGISTER:
    case REQUEST_HEARTBEAT:
    case REQUEST_REPORT:
    case REQUEST_RAFT:
    case REQUEST_CHECKPOINT:
    case REQUEST_METAD_LIST:
    case REQUEST_METAD_CHANGE:
        return of_any_role;
    case REQUEST_NONE:
        REQUEST_CASES_CHUNKD
        REQUEST_CASES_CLIENT
        break;
    }
    return NULL;
}

bool service_admits(struct rpc_req *req)
{
    const struct rpc_peer *peer = rpc_conn_peer(req->conn);
    enum request r = request_of(req->env);

    if (!handler_of(r)) {
        rpc_fail(req, ERR_PROTOCOL, "metad does not serve request %d", (int)req->env->body_case);
        return false;
    }
    if ((request_senders(r) & (unsigned)peer->role) != 0)
        return true;
    log_warn("%s (%s): request %d refused: its role may not send it", peer->name, peer->addr,
             (int)req->env->body_case);
    rpc_fail(req, ERR_ROLE, "request %d is not for this role", (int)req->env->body_case);
    return false;
}

void service_request(struct service *s, struct rpc_req *req)
{
    handler *handle = handler_of(request_of(req->env));

    if (!service_leads(s))
        nodes_not_leader(s->cfg.nodes, req);
    else if (!mlog_may_read(s->cfg.mlog)) /* nothing of it was done: whoever leads may be asked */
        rpc_fail(req, ERR_BUSY, "no majority of the metads answers this one at present");
    else if (service_grace_waits(s, req))
        rpc_fail(req, ERR_BUSY, "metad has just begun to lead: not all clients are back yet");
    else
        handle(s, req);
}

void service_closed(struct service *s, struct rpc_conn *c)
{
    service_conn_closed(s, c);
    service_lock_conn_closed(s, c);
}

bool service_leads(const struct service *s)
{
    return mlog_leading(s->cfg.mlog) == s->cfg.leading && mlog_is_leader(s->cfg.mlog);
}

void service_fail(struct service *s, struct rpc_req *req, int code, const char *text)
{
    if (code == -ERR_NOT_LEADER)
        nodes_not_leader(s->cfg.nodes, req);
    else
        rpc_fail(req, code, "%s", text);
}

void service_propose(struct service *s, Replfs__Command *cmd, mlog_applied *fn, mlog_after *after,
                     void *arg)
{
    mlog_propose_as(s->cfg.mlog, s->cfg.leading, cmd, fn, after, arg);
}

int service_new(const struct service_config *cfg, struct service **out)
{
    struct service *s = calloc(1, sizeof(*s));

    if (!s)
        abort();
    s->cfg = *cfg;
    fsm_setting_offer(cfg->fsm, SETTING_MIN_COPIES, cfg->min_copies);
    fsm_setting_offer(cfg->fsm, SETTING_SESSION_LEASE, cfg->lease_ms);
    fsm_setting_offer(cfg->fsm, SETTING_LEASE_TERM, cfg->term_ms);
    uint64_t lease = fsm_setting(cfg->fsm, SETTING_SESSION_LEASE);
    if (fsm_setting(cfg->fsm, SETTING_LEASE_TERM) > lease) /* the session's end ends its leases */
        fsm_setting_offer(cfg->fsm, SETTING_LEASE_TERM, lease);
    service_lock_start(s);
    service_leases_init(s);
    *out = s;
    return 0;
}

void service_stop(struct service *s, int code)
{
    service_leases_stop(s, code);
    service_lock_stop(s, code);
}

void service_free(struct service *s)
{
    if (!s)
        return;
    service_lock_free(s);
    service_leases_free(s);
    free(s);
}
