/* What sessions may hold, told to the log, so that a new start waits only for those that matter.
 *
 * Leases and file locks are soft. A metad that has just started waits until each session that may hold some has
 * come back; it must not wait for a client that was switched off days ago with nothing in its hands.
 * So the replicated state has two bits for each session (FSM_HOLDS_*).
 *
 *   leases  set from the beginning, since every mount takes some at once. Cleared when the session
 *           has been silent for longer than the term and has nothing exclusively: its shared leases
 *           ran out by themselves; or when it has not come back in the grace after a start. From
 *           then on it is barred: it gets none until the bit is logged again, which its next
 *           request starts.
 *   locks   clear in the beginning. Set before the first lock is answered (service_lock.c); cleared
 *           when a silent session has none.
 *
 * Bits are cleared for silent sessions only: what works does not pay for it. A bit that is set
 * without need costs others a wait, one that is missing would cost coherence. Hence the order: what
 * makes a session hold something is switched off first, then the clear bit is proposed, and only then
 * may the set bit be; and only when that is applied is anything given.
 *
 * Threads: service_hold_tick on the opens thread, the rest on any. */
#include "service_internal.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"

#define LOG_MODULE "session"
#define LOOK_EVERY (2 * NSEC_PER_SEC)
#define LOOK_MAX 64u
#define MARGIN_MS 1000u

void service_hold_propose(struct service *s, uint64_t session, unsigned set, unsigned clear,
                          mlog_applied *fn, mlog_after *after, void *arg)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    Replfs__HoldsOp op = REPLFS__HOLDS_OP__INIT;

    op.session = session;
    op.set = set;
    op.clear = clear;
    meta.op_case = REPLFS__META_OP__OP_HOLDS;
    meta.holds = &op;
    cmd.op = &meta;
    service_propose(s, &cmd, fn, after, arg);
}

unsigned service_holds(struct service *s, uint64_t session)
{
    fsm_rdlock(s->cfg.fsm);
    unsigned holds = fsm_session_holds(s->cfg.fsm, session);
    fsm_unlock(s->cfg.fsm);
    return holds;
}

/* ---- silent sessions ---- */

struct silent {
    uint64_t session;
    unsigned holds;
};

/* Its shared leases ran out by themselves; or it has none, since what it had before the start could be
 * claimed only in the grace, which is over. */
static bool is_silent(void *arg, uint64_t session)
{
    struct service *s = arg;
    uint32_t ms = sessions_silent_ms(s->cfg.sessions, session);

    return ms != UINT32_MAX &&
           (ms > service_term(s) + MARGIN_MS || sessions_is_missing(s->cfg.sessions, session));
}

static size_t find_silent(struct service *s, struct silent v[LOOK_MAX])
{
    const char *name;
    size_t n = 0;

    fsm_rdlock(s->cfg.fsm);
    for (uint64_t id = 0; n < LOOK_MAX && fsm_session_next(s->cfg.fsm, id, &id, &name);) {
        unsigned holds = fsm_session_holds(s->cfg.fsm, id);
        if (holds && is_silent(s, id))
            v[n++] = (struct silent){id, holds};
    }
    fsm_unlock(s->cfg.fsm);
    return n;
}

/* Whether it is silent is asked again in leases_bar: a session that was heard of since may have been given a lease. */
static void clear_bits(struct service *s, const struct silent *v)
{
    if (v->holds & FSM_HOLDS_LEASES && leases_bar(s->leases, v->session, is_silent, s)) {
        service_hold_propose(s, v->session, 0, FSM_HOLDS_LEASES, NULL, NULL, NULL);
        leases_bar_settle(s->leases, v->session);
    }
    if (v->holds & FSM_HOLDS_LOCKS)
        service_lock_silent(s, v->session);
}

void service_hold_tick(struct service *s)
{
    struct silent v[LOOK_MAX];
    int64_t now = clock_mono();

    if (now < s->hold_next || atomic_load(&s->grace))
        return;
    s->hold_next = now + LOOK_EVERY;
    size_t n = find_silent(s, v);
    for (size_t i = 0; i < n; i++)
        clear_bits(s, &v[i]);
}

/* ---- heard of again ---- */

struct setting {
    struct service *s;
    uint64_t session;
};

static void set_applied(void *arg, int code, const struct fsm_result *res)
{
    struct setting *t = arg;

    if (code == 0 && res->code == 0)
        leases_unbar(t->s->leases, t->session);
    else
        leases_bar_settle(t->s->leases, t->session);
}

static void set_after(void *arg)
{
    struct setting *t = arg;

    service_leave(t->s);
    free(t);
}

void service_hold_heard(struct service *s, uint64_t session)
{
    if (!leases_has_barred(s->leases))
        return;
    if (!leases_unbar_begin(s->leases, session))
        return;
    struct setting *t = malloc(sizeof(*t));
    if (!t)
        abort();
    *t = (struct setting){s, session};
    service_keep(s);
    service_hold_propose(s, session, FSM_HOLDS_LEASES, 0, set_applied, set_after, t);
}

/* Who held no leases before this leadership may claim none. */
void service_hold_start(struct service *s)
{
    const char *name;

    fsm_rdlock(s->cfg.fsm);
    for (uint64_t id = 0; fsm_session_next(s->cfg.fsm, id, &id, &name);)
        if (!(fsm_session_holds(s->cfg.fsm, id) & FSM_HOLDS_LEASES)) {
            leases_bar(s->leases, id, is_silent, s);
            leases_bar_settle(s->leases, id);
        }
    fsm_unlock(s->cfg.fsm);
}
