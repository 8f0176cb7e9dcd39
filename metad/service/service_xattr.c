/* Reading extended attributes: answered from memory under the fsm's read lock, on the thread that
 * received the request, from a copy made before the lock is released. Who may see trusted.* is the
 * client's business: it knows its callers. Setting and removing are mutations
 * (service_mutate.c). */
#include "service_internal.h"

#include "base/cleanup.h"
#include "base/error.h"

void service_getxattr(struct service *s, struct rpc_req *req)
{
    const Replfs__GetxattrReq *r = req->env->getxattr_req;
    Replfs__GetxattrReply rep = REPLFS__GETXATTR_REPLY__INIT;
    CLEANUP(reply_arena_free) struct reply_arena arena = {0};
    const uint8_t *value;
    size_t len;

    if (!service_session_ok(s, req, r->session, true))
        return;
    fsm_rdlock(s->cfg.fsm);
    enum lease_mode on = leases_grant(s->leases, r->session, r->ino, LEASE_NONE, NULL);
    int rc = fsm_getxattr(s->cfg.fsm, r->ino, r->name.data, r->name.len, &value, &len);
    if (rc == 0) {
        rep.value.data = reply_arena_copy(&arena, value, len);
        rep.value.len = len;
    }
    fsm_unlock(s->cfg.fsm);
    if (on == LEASE_ELSEWHERE) { /* chmod changes the ACL, and writing drops capabilities */
        service_again(s, req, r->session, r->ino, service_getxattr);
        return;
    }
    if (rc != 0) {
        rpc_fail(req, rc, "extended attribute of inode %llu", (unsigned long long)r->ino);
        return;
    }
    RPC_ENVELOPE(env, GETXATTR_REPLY, getxattr_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void service_listxattr(struct service *s, struct rpc_req *req)
{
    const Replfs__ListxattrReq *r = req->env->listxattr_req;
    Replfs__ListxattrReply rep = REPLFS__LISTXATTR_REPLY__INIT;
    CLEANUP(reply_arena_free) struct reply_arena arena = {0};
    size_t len = 0;

    if (!service_session_ok(s, req, r->session, true))
        return;
    fsm_rdlock(s->cfg.fsm);
    enum lease_mode on = leases_grant(s->leases, r->session, r->ino, LEASE_NONE, NULL);
    int rc = fsm_listxattr(s->cfg.fsm, r->ino, NULL, &len);
    if (rc == 0 && len > 0) {
        rep.names.data = reply_arena_alloc(&arena, len);
        rep.names.len = len;
        rc = fsm_listxattr(s->cfg.fsm, r->ino, rep.names.data, &len);
    }
    fsm_unlock(s->cfg.fsm);
    if (on == LEASE_ELSEWHERE) {
        service_again(s, req, r->session, r->ino, service_listxattr);
        return;
    }
    if (rc != 0) {
        rpc_fail(req, rc, "extended attributes of inode %llu", (unsigned long long)r->ino);
        return;
    }
    RPC_ENVELOPE(env, LISTXATTR_REPLY, listxattr_reply, &rep);
    rpc_reply(req, &env, NULL);
}
