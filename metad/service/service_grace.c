/* The time after a start in which only those who were here before are let in.
 *
 * Exclusive leases are soft: a metad that has just started does not know them, and what their holders kept
 * back is not in its state. So nothing that reads or changes inodes is served (ERR_BUSY: ask again) until
 * every session that may hold leases, as the state machine knows (service_hold.c), has come back and
 * claimed what it has (SessionReq) or was closed, or until leases have run out by themselves: term_ms, for
 * a peer that has not reached us by then has not heard of us either, and has stopped using them.
 *
 * Who is still awaited is counted by opens, for file locks too: these wait for those that may hold
 * locks, and longer, since a lock lives as long as its session and a lease no longer than its term.
 *
 * The end is in this order: no claim is granted any more, then others are let in. Thus nobody can
 * be served before a claim that is granted.
 *
 * Threads: any; the flag is all that requests look at. */
#include "service_internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "request.h"

#define LOG_MODULE "session"

void service_grace_start(struct service *s)
{
    size_t n = sessions_awaited(s->cfg.sessions, FSM_HOLDS_LEASES);

    s->grace_until = clock_boot() + s->cfg.term_ms * NSEC_PER_MSEC;
    if (n == 0)
        return;
    leases_claim(s->leases, true);
    atomic_store(&s->grace, true);
    log_info("%zu session(s) from before this start may hold leases: until they are back, at most "
             "%u ms, others wait",
             n, s->cfg.term_ms);
}

void service_grace_look(struct service *s)
{
    if (!atomic_load(&s->grace))
        return;
    size_t n = sessions_awaited(s->cfg.sessions, FSM_HOLDS_LEASES);
    if ((n > 0 && clock_boot() < s->grace_until) || !leases_claim(s->leases, false))
        return;
    atomic_store(&s->grace, false);
    if (n > 0)
        log_warn("%zu session(s) did not come back within %u ms: what they held is over", n,
                 s->cfg.term_ms);
    else
        log_info("every session is back or was closed: requests are served");
}

bool service_grace_waits(struct service *s, const struct rpc_req *req)
{
    return atomic_load_explicit(&s->grace, memory_order_acquire) &&
           request_waits_in_grace(req->env);
}
