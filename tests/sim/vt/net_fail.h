/* Answers that say that something failed. */
#ifndef REPLFS_TESTS_SIM_NET_FAIL_H
#define REPLFS_TESTS_SIM_NET_FAIL_H
#include <stdbool.h>

#include "rpc/rpc.h"

/* True: the answer may not go out (rpc_req.may_answer), and another one did instead: req and payload are consumed. */
bool net_refused(struct rpc_req *req, const Replfs__Envelope *rep, struct buf *payload);
#endif
