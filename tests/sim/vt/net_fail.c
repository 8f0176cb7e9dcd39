/* What of rpc.h needs nothing of a connection's inside. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "rpc/rpc.h"

void rpc_fail_with(struct rpc_req *req, const Replfs__Failure *f)
{
    RPC_ENVELOPE(env, FAILURE, failure, (Replfs__Failure *)(uintptr_t)f);
    rpc_reply(req, &env, NULL);
}

void rpc_fail(struct rpc_req *req, int code, const char *fmt, ...)
{
    char detail[512];
    va_list ap;
    Replfs__Failure f = REPLFS__FAILURE__INIT;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof(detail), fmt, ap);
    va_end(ap);
    f.code = (uint32_t)abs(code);
    f.detail = detail;
    rpc_fail_with(req, &f);
}

int rpc_loop_reload_tls(struct rpc_loop *l)
{
    (void)l;
    return 0;
}

int64_t rpc_cert_end(struct rpc_loop *l)
{
    (void)l;
    return 0;
}

void rpc_result_free(struct rpc_result *r)
{
    if (r->rep)
        replfs__envelope__free_unpacked(r->rep, NULL);
    buf_unref(r->payload);
    r->rep = NULL;
    r->payload = NULL;
}
