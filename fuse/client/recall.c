/* What metad asks of a client: to give back leases. The answer goes out once nothing of the inode is
 * cached here or in the kernel any more, from a thread of lcache.c. Loop thread. */
#include "internal.h"
#include "base/error.h"

static void recalled(void *arg)
{
    struct rpc_req *req = arg;
    Replfs__RecallReply rep = REPLFS__RECALL_REPLY__INIT;
    RPC_ENVELOPE(env, RECALL_REPLY, recall_reply, &rep);
    rpc_reply(req, &env, NULL);
}

void recall_request(void *arg, struct rpc_req *req)
{
    struct client *c = arg;
    if (req->env->body_case == REPLFS__ENVELOPE__BODY_RECALL_REQ)
        lcache_recall(c->lcache, req->env->recall_req->ino, recalled, req);
    else
        rpc_fail(req, ERR_PROTOCOL, "a client does not serve request %d", (int)req->env->body_case);
}

void recall_forget(void *arg, uint64_t ino)
{
    struct cfile *f = cfile_get(arg, ino);
    if (!f)
        return;
    pthread_mutex_lock(&f->mu);
    layout_drop(f);
    f->base_synced = false;
    pthread_mutex_unlock(&f->mu);
    cfile_unref(f);
}
