/* Dispatch: which request goes where; who may send it is in the table of requests (request.h).
 *
 * One handler per request this metad serves; everything else (chunk data, replies, things from the
 * future) is ERR_PROTOCOL. A metad that does not lead answers ERR_NOT_LEADER to all of it: its
 * state may be old. Roles come from the certificate, or from Hello on plaintext. Runs on the rpc
 * loop's threads; no state of its own. */
#include "service_internal.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"
#include "request.h"

#define LOG_MODULE "service"

static void node_request(struct service *s, struct rpc_req *req)
{
    nodes_request(s->cfg.nodes, req);
}

static void node_list(struct service *s, struct rpc_req *req)
{
    if (service_session_ok(s, req, req->env->nodes_req->session, true))
        nodes_rpc_nodes(s->cfg.nodes, req);
}

static void node_status(struct service *s, struct rpc_req *req)
{
    nodes_rpc_status(s->cfg.nodes, req);
}

static void node_info(struct service *s, struct rpc_req *req)
{
    nodes_rpc_info(s->cfg.nodes, req);
}

static void node_converge(struct service *s, struct rpc_req *req)
{
    nodes_rpc_converge(s->cfg.nodes, req);
}

static void node_remove(struct service *s, struct rpc_req *req)
{
    nodes_rpc_remove(s->cfg.nodes, req);
}

static void node_recover(struct service *s, struct rpc_req *req)
{
    nodes_rpc_recover(s->cfg.nodes, req);
}

static void node_quarantine(struct service *s, struct rpc_req *req)
{
    nodes_rpc_quarantine(s->cfg.nodes, req);
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
    case REQUEST_REGISTER:
    case REQUEST_HEARTBEAT:
    case REQUEST_REPORT:
        return node_request;
    case REQUEST_STATUS:
        return node_status;
    case REQUEST_INFO:
        return node_info;
    case REQUEST_CONVERGE:
        return node_converge;
    case REQUEST_QUOTA_LIST:
        return service_quota_list;
    case REQUEST_CHUNKD_REMOVE:
        return node_remove;
    case REQUEST_RECOVER:
        return node_recover;
    case REQUEST_QUARANTINE:
        return node_quarantine;
    case REQUEST_NONE:
        REQUEST_CASES_CHUNKD
        REQUEST_CASES_CLIENT
        break;
    }
    return NULL;
}

static void on_request(void *arg, struct rpc_req *req)
{
    struct service *s = arg;
    const struct rpc_peer *peer = rpc_conn_peer(req->conn);
    enum request r = request_of(req->env);
    handler *handle = handler_of(r);

    if (!handle) {
        rpc_fail(req, ERR_PROTOCOL, "metad does not serve request %d", (int)req->env->body_case);
    } else if ((request_senders(r) & (unsigned)peer->role) == 0) {
        log_warn("%s (%s): request %d refused: its role may not send it", peer->name, peer->addr,
                 (int)req->env->body_case);
        rpc_fail(req, ERR_ROLE, "request %d is not for this role", (int)req->env->body_case);
    } else if (!mlog_is_leader(s->cfg.mlog)) {
        rpc_fail(req, ERR_NOT_LEADER, "this metad does not lead");
    } else if (service_grace_waits(s, req)) {
        rpc_fail(req, ERR_BUSY, "metad has just started: not all clients are back yet");
    } else {
        handle(s, req);
    }
}

static void on_closed(void *arg, struct rpc_conn *c)
{
    struct service *s = arg;

    service_conn_closed(s, c);
    nodes_conn_closed(s->cfg.nodes, c);
    service_lock_conn_closed(s, c);
}

int service_new(const struct service_config *cfg, struct service **out)
{
    struct service *s = calloc(1, sizeof(*s));

    if (!s)
        abort();
    s->cfg = *cfg;
    if (s->cfg.min_copies == 0)
        s->cfg.min_copies = 2; /* never more than the goal, see service_grant */
    s->rpc = (struct rpc_service){
        .request = on_request, .closed = on_closed, .arg = s, .cluster = mlog_uuid(cfg->mlog)};
    service_lock_start(s);
    service_leases_init(s);
    *out = s;
    return 0;
}

void service_stop(struct service *s)
{
    if (s)
        leases_stop(s->leases);
}

void service_free(struct service *s)
{
    if (!s)
        return;
    service_lock_stop(s);
    service_leases_free(s);
    free(s);
}

const struct rpc_service *service_rpc(struct service *s)
{
    return &s->rpc;
}
