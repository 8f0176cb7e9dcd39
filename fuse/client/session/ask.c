/* Questions to metad: repeated over reconnects until their deadline. How changes are, says mutation.c. */
#include "client/session/ask.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "client/cache/lease_cache.h"
#include "client/internal.h"
#include "client/session/connect.h"
#include "client/session/session.h"
#include "request.h"

#define LOG_MODULE "session"

int session_ask(struct client *c, Replfs__Envelope *req, int64_t deadline, struct rpc_result *out)
{
    *out = (struct rpc_result){.code = c->session.events->before_ask(c, req)};
    return out->code ? out->code : session_ask_now(c, req, deadline, out);
}

int session_ask_now(struct client *c, Replfs__Envelope *req, int64_t deadline,
                    struct rpc_result *out)
{
    unsigned busy_ms = 10;
    for (;;) {
        *out = (struct rpc_result){.code = -ERR_TIMEOUT};
        struct rpc_conn *conn = session_conn(c, deadline);
        if (!conn)
            return out->code;
        request_stamp(req, session_id(c));
        int64_t sent = clock_boot();
        if (!rpc_call_wait(conn, req, NULL, session_try_ms(c, deadline), out))
            lease_cache_renew(c->leases, sent);
        bool again = out->code && session_attempt_failed(c, conn, out, deadline, &busy_ms);
        rpc_conn_unref(conn);
        if (!again)
            return out->code;
        rpc_result_free(out);
    }
}

/* ---- requests nobody waits for ---- */

static void answer_logged(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)arg;
    (void)rep;
    (void)payload;
    if (code)
        log_debug("metad: %s", err_str(code));
}

void session_tell_then(struct client *c, Replfs__Envelope *req, session_told *done, void *arg)
{
    uint64_t id;
    struct rpc_conn *conn = session_conn_now(c, &id);
    if (!conn) {
        done(arg, -ERR_PEER_GONE, NULL, NULL);
        return;
    }
    request_stamp(req, id);
    rpc_call(conn, req, NULL, 10000, done, arg);
    rpc_conn_unref(conn);
}

void session_tell(struct client *c, Replfs__Envelope *req)
{
    session_tell_then(c, req, answer_logged, NULL);
}
