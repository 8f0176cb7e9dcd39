/* What metad asks of a client: to give back leases. The answer goes out once what was kept back of
 * the file is committed and, unless a shared lease stays, nothing of the inode is cached here or in
 * the kernel any more; from a thread of lcache.c. Loop thread. */
#include "internal.h"
#include "base/error.h"

static void recalled(void *arg)
{
    struct rpc_req *req = arg;
    Replfs__RecallReply rep = REPLFS__RECALL_REPLY__INIT;
    rep.kept = req->env->recall_req->keep;
    RPC_ENVELOPE(env, RECALL_REPLY, recall_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void recall_request(void *arg, struct rpc_req *req)
{
    struct client *c = arg;
    if (req->env->body_case == REPLFS__ENVELOPE__BODY_RECALL_REQ)
        lcache_recall(c->lcache, req->env->recall_req->ino, req->env->recall_req->keep, recalled,
                      req);
    else
        rpc_fail(req, ERR_PROTOCOL, "a client does not serve request %d", (int)req->env->body_case);
}

void recall_flush(void *arg, uint64_t ino)
{
    client_flush_ino(arg, ino);
}

int lease_ask(struct cfile *f)
{
    struct client *c = f->c;
    Replfs__LeaseReq m = REPLFS__LEASE_REQ__INIT;
    RPC_ENVELOPE(env, LEASE_REQ, lease_req, &m);
    struct rpc_result res;
    m.ino = f->ino;
    uint64_t begun = lcache_begin(c->lcache);
    int rc = client_ask(c, &env, &res);
    if (!rc &&
        (res.rep->body_case != REPLFS__ENVELOPE__BODY_LEASE_REPLY || !res.rep->lease_reply->attr))
        rc = -ERR_PROTOCOL;
    if (!rc) {
        Replfs__Attr a = REPLFS__ATTR__INIT;
        attr_copy(&a, res.rep->lease_reply->attr);
        if (res.rep->lease_reply->lease)
            lcache_put_attr(c->lcache, begun, &a, res.rep->lease_reply->lease);
        client_merge_attr(c, &a); /* what others have written since we last looked */
    }
    rpc_result_free(&res);
    return rc;
}
