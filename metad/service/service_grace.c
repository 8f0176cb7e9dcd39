/* The time after a gain of leadership in which only those who were here before are let in.
 *
 * Exclusive leases are soft: a metad that has just started does not know them, and what their holders kept
 * back is not in its state. So nothing that reads or changes inodes is served (ERR_BUSY: ask again) until
 * every session that may hold leases, as the state machine knows (service_hold.c), has come back and
 * claimed what it has (SessionReq) or was closed, or until leases have run out by themselves: after the lease term, for
 * a peer that has not reached us by then has not heard of us either, and has stopped using them.
 *
 * Who is still awaited is counted by sessions, for file locks too: these wait for those that may hold locks. Who has not
 * come back by the end of the term has stopped using what it cached; when it may hold locks it lapses then, through
 * the log, so that one dead client keeps others from new locks no longer than that, and nobody waits for it again,
 * whoever leads next. (Should it live and come back, it is told that it lapsed.)
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
#define LOOK_MAX 64u /* sessions at a time */

void service_grace_start(struct service *s)
{
    size_t n = sessions_awaited(s->cfg.sessions, FSM_HOLDS_LEASES);

    s->grace_ms = service_term(s);
    s->grace_until = clock_boot() + s->grace_ms * NSEC_PER_MSEC;
    if (n == 0)
        return;
    leases_claim(s->leases, true);
    atomic_store(&s->grace, true);
    log_info("%zu session(s) from before this start may hold leases: until they are back, at most "
             "%u ms, others wait",
             n, s->grace_ms);
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
                 s->grace_ms);
    else
        log_info("every session is back or was closed: requests are served");
}

/* Some that have not come back and may hold file locks. */
static size_t missing_lockers(struct service *s, uint64_t v[LOOK_MAX])
{
    const char *name;
    size_t n = 0;

    fsm_rdlock(s->cfg.fsm);
    for (uint64_t id = 0; n < LOOK_MAX && fsm_session_next(s->cfg.fsm, id, &id, &name);)
        if (fsm_session_holds(s->cfg.fsm, id) & FSM_HOLDS_LOCKS &&
            sessions_is_missing(s->cfg.sessions, id))
            v[n++] = id;
    fsm_unlock(s->cfg.fsm);
    return n;
}

void service_grace_locks(struct service *s)
{
    uint64_t v[LOOK_MAX];

    if (s->lockers_seen || clock_boot() < s->grace_until)
        return;
    size_t n = missing_lockers(s, v);
    for (size_t i = 0; i < n; i++)
        sessions_expire(s->cfg.sessions, v[i]);
    if (n > 0)
        log_warn("%zu session(s) that may hold file locks did not come back within %u ms: their "
                 "locks are over, they lapse",
                 n, s->cfg.term_ms);
    s->lockers_seen = n < LOOK_MAX;
}

bool service_grace_waits(struct service *s, const struct rpc_req *req)
{
    return atomic_load_explicit(&s->grace, memory_order_acquire) &&
           request_waits_in_grace(req->env);
}
