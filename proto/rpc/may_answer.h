/* What rpc_req.may_answer says of an answer, for whoever sends it: the loop of proto/rpc, and that of the simulator. */
#ifndef REPLFS_PROTO_RPC_MAY_ANSWER_H
#define REPLFS_PROTO_RPC_MAY_ANSWER_H
#include "base/buf.h"
#include "rpc/rpc.h"

/* The answer that goes out: rep; or *own, with *f in it, when rep may not: then *payload is let go. */
static inline Replfs__Envelope *rpc_allowed(struct rpc_req *req, Replfs__Envelope *rep,
                                            struct buf **payload, Replfs__Envelope *own,
                                            Replfs__Failure *f)
{
    replfs__failure__init(f);
    if (!req->may_answer || req->may_answer(req, rep, f))
        return rep;
    buf_unref(*payload);
    *payload = NULL;
    replfs__envelope__init(own);
    own->body_case = REPLFS__ENVELOPE__BODY_FAILURE;
    own->failure = f;
    return own;
}
#endif
