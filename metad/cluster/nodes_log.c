/* What the nodes module has under way: proposals for the log, in the name of the present leadership, orders, the
 * driver's wake-up; and how requests are told that it is over. A proposal stays inside the leadership's gate until it
 * was answered (nodes_lead.c). Thread context: any. */
#include <stdio.h>

#include "base/error.h"
#include "base/lock.h"
#include "nodes_internal.h"

void nodes_poke(struct nodes *n)
{
    LOCK_SCOPE(&n->done_lock);
    n->poked = true;
    cond_signal(&n->wake);
}

void nodes_outstanding(struct nodes *n, int by)
{
    LOCK_SCOPE(&n->done_lock);
    n->outstanding += (unsigned)by;
    cond_signal(&n->wake);
}

void nodes_propose(struct nodes *n, Replfs__Command *cmd, mlog_applied *fn, mlog_after *after,
                   void *arg)
{
    nodes_keep(n);
    nodes_outstanding(n, 1);
    mlog_propose_as(n->cfg.mlog, n->lead.leading, cmd, fn, after, arg);
}

void nodes_proposed(struct nodes *n)
{
    nodes_leave(n);
    nodes_outstanding(n, -1); /* the last: nodes_free() waits for it */
}

void nodes_not_leader(struct nodes *n, struct rpc_req *req)
{
    Replfs__Failure f = REPLFS__FAILURE__INIT;
    char leader[128] = "";

    if (n->cfg.leader_addr)
        n->cfg.leader_addr(n->cfg.leader_arg, leader);
    f.code = ERR_NOT_LEADER;
    f.detail = (char *)(leader[0] ? "this metad does not lead"
                                  : "no majority: no metad leads as far as this one knows");
    f.leader = leader;
    rpc_fail_with(req, &f);
}

void nodes_fail(struct nodes *n, struct rpc_req *req, int code, const char *text)
{
    if (code == -ERR_NOT_LEADER)
        nodes_not_leader(n, req);
    else
        rpc_fail(req, code, "%s: %s", text, err_str(code));
}
