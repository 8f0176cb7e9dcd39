/* What metad asks of a client: to give leases back. The answer to that goes out
 * once everything kept back of the inode was sent and nothing of it is cached here or in the kernel
 * any more: from a thread of lease_cache.c, which calls recall_forget. recall_request runs on a loop
 * thread. */
#include "client/calls/recall.h"
#include "base/error.h"
#include "base/lock.h"
#include "client/cache/lease_cache.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/committed_map.h"
#include "client/file/file_table.h"
#include "client/file/open_told.h"
#include "client/internal.h"
#include "client/queue/queue.h"

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
        lease_cache_recall(c->leases, req->env->recall_req->ino, recalled, req);
    else
        rpc_fail(req, ERR_PROTOCOL, "a client does not serve request %d", (int)req->env->body_case);
}

/* While metad is away nobody else gets the lease. */
static void settle(struct client *c, uint64_t ino)
{
    while (queue_settle(c, ino) && !c->stopping)
        ;
}

static void wait_for_all(struct client *c)
{
    while (queue_wait(c, 0) && !c->stopping)
        ;
}

void recall_forget(void *arg, uint64_t ino, bool flush)
{
    cfile_tell_open(arg, ino);
    if (flush) {
        client_flush_ino(arg, ino); /* its error belongs to the writer of the file */
        settle(arg, ino);
    }
    if (queue_naming(arg, ino)) { /* also when the lease was forgotten here before; */
        wait_for_all(arg);        /* and what is below a directory that was just made, */
        wait_for_all(arg);        /* should metad not have given a lease on that */
    }
    struct cfile *f = cfile_get(arg, ino);
    if (!f)
        return;
    lock_acquire(&f->mu);
    map_drop(f);
    f->base_synced = false;
    lock_release(&f->mu);
    cfile_unref(f);
}
