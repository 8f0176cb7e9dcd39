/* Dispatch: which request goes where, and who may send it.
 *
 * One table row per request this metad knows; everything else (chunk data, replies, things from the
 * future) is ERR_PROTOCOL. A metad that does not lead answers ERR_NOT_LEADER to all of it: its
 * state may be old. Roles come from the certificate, or from Hello on plaintext. Runs on the rpc
 * loop's threads; no state of its own. */
#include "service_internal.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "service"
#define CLIENTS (RPC_ROLE_CLIENT | RPC_ROLE_ADMIN)

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

static const struct row {
    Replfs__Envelope__BodyCase body;
    unsigned roles;
    void (*handle)(struct service *s, struct rpc_req *req);
} table[] = {
    {REPLFS__ENVELOPE__BODY_MUTATE_REQ, CLIENTS, service_mutate},
    {REPLFS__ENVELOPE__BODY_LOOKUP_REQ, CLIENTS, service_lookup},
    {REPLFS__ENVELOPE__BODY_GETATTR_REQ, CLIENTS, service_getattr},
    {REPLFS__ENVELOPE__BODY_READDIR_REQ, CLIENTS, service_readdir},
    {REPLFS__ENVELOPE__BODY_READLINK_REQ, CLIENTS, service_readlink},
    {REPLFS__ENVELOPE__BODY_GETXATTR_REQ, CLIENTS, service_getxattr},
    {REPLFS__ENVELOPE__BODY_LISTXATTR_REQ, CLIENTS, service_listxattr},
    {REPLFS__ENVELOPE__BODY_LEASE_REQ, CLIENTS, service_lease},
    {REPLFS__ENVELOPE__BODY_INOS_REQ, CLIENTS, service_inos},
    {REPLFS__ENVELOPE__BODY_LAYOUT_REQ, CLIENTS, service_layout},
    {REPLFS__ENVELOPE__BODY_LAYOUTS_REQ, CLIENTS, service_layouts},
    {REPLFS__ENVELOPE__BODY_OPEN_REQ, CLIENTS, service_open},
    {REPLFS__ENVELOPE__BODY_CLOSE_REQ, CLIENTS, service_close},
    {REPLFS__ENVELOPE__BODY_GRANT_REQ, CLIENTS, service_grant},
    {REPLFS__ENVELOPE__BODY_STATFS_REQ, CLIENTS, service_statfs},
    {REPLFS__ENVELOPE__BODY_SESSION_REQ, CLIENTS, service_session},
    {REPLFS__ENVELOPE__BODY_KEEPALIVE_REQ, CLIENTS, service_keepalive},
    {REPLFS__ENVELOPE__BODY_REPORT_BAD_REQ, CLIENTS, service_report_bad},
    {REPLFS__ENVELOPE__BODY_LOCK_REQ, CLIENTS, service_lock},
    {REPLFS__ENVELOPE__BODY_LOCK_TEST_REQ, CLIENTS, service_lock_test},
    {REPLFS__ENVELOPE__BODY_LOCK_CANCEL_REQ, CLIENTS, service_lock_cancel},
    {REPLFS__ENVELOPE__BODY_UNLOCK_ALL_REQ, CLIENTS, service_unlock_all},
    {REPLFS__ENVELOPE__BODY_NODES_REQ, RPC_ROLE_ANY, node_list},
    {REPLFS__ENVELOPE__BODY_REGISTER_REQ, RPC_ROLE_CHUNKD, node_request},
    {REPLFS__ENVELOPE__BODY_HEARTBEAT_REQ, RPC_ROLE_CHUNKD, node_request},
    {REPLFS__ENVELOPE__BODY_REPORT_REQ, RPC_ROLE_CHUNKD, node_request},
    {REPLFS__ENVELOPE__BODY_STATUS_REQ, CLIENTS, node_status},
    {REPLFS__ENVELOPE__BODY_INFO_REQ, CLIENTS, node_info},
    {REPLFS__ENVELOPE__BODY_CONVERGE_REQ, CLIENTS, node_converge},
    {REPLFS__ENVELOPE__BODY_QUOTA_LIST_REQ, CLIENTS, service_quota_list},
    {REPLFS__ENVELOPE__BODY_CHUNKD_REMOVE_REQ, CLIENTS, node_remove},
    {REPLFS__ENVELOPE__BODY_RECOVER_REQ, CLIENTS, node_recover},
    {REPLFS__ENVELOPE__BODY_QUARANTINE_REQ, CLIENTS, node_quarantine},
};

static void on_request(void *arg, struct rpc_req *req)
{
    struct service *s = arg;
    const struct rpc_peer *peer = rpc_conn_peer(req->conn);
    const struct row *row = NULL;

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]) && row == NULL; i++)
        if (table[i].body == req->env->body_case)
            row = &table[i];
    if (row == NULL) {
        rpc_fail(req, ERR_PROTOCOL, "metad does not serve request %d", (int)req->env->body_case);
    } else if ((row->roles & (unsigned)peer->role) == 0) {
        log_warn("%s (%s): request %d refused: its role may not send it", peer->name, peer->addr,
                 (int)row->body);
        rpc_fail(req, ERR_ROLE, "request %d is not for this role", (int)row->body);
    } else if (!mlog_is_leader(s->cfg.mlog)) {
        rpc_fail(req, ERR_NOT_LEADER, "this metad does not lead");
    } else if (service_grace_waits(s, req)) {
        rpc_fail(req, ERR_BUSY, "metad has just started: not all clients are back yet");
    } else {
        row->handle(s, req);
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

    if (s == NULL)
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
    if (s != NULL)
        leases_stop(s->leases);
}

void service_free(struct service *s)
{
    if (s == NULL)
        return;
    service_lock_stop(s);
    service_leases_free(s);
    free(s);
}

const struct rpc_service *service_rpc(struct service *s)
{
    return &s->rpc;
}
