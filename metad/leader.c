/* Leadership comes and goes; this is where what depends on it is made and taken away.
 *
 * What there is, and for how long:
 *
 *   as long as the process   rpc loop, listener, fsm, log, nodes (registry, copies), this gate
 *   one leadership           incarnation (in the log), ids, sessions with their thread, the service with leases, locks,
 *                            waiting requests, grace; of nodes: hooks, grants, queue, jobs
 *
 * All of the second kind is made anew from the replicated state at each gain, and freed at each loss; nothing is
 * reset and used again. The thread "role" does both, one after the other; the log only says that something has changed
 * (leader_role_changed). Leaderships have numbers (mlog_leading), which are never used twice.
 *
 *   FOLLOWS -> start -> LEADS (gate open) -> stop -> FOLLOWS
 *
 * Start, in this order: incarnation and ids through the log; sessions from the state (from here on the clock of those
 * that have to come back runs); nodes take the hooks; the service, whose grace begins; the sessions' thread; if the
 * leadership still lasts, the gate is opened. The thread that copies the names to chunkds is the last one.
 *
 * Stop, in this order: the gate is shut; the sessions' thread ends; the service answers whoever waits, and closes its
 * clients' connections, so that they look for the new leader at once; then the gate becomes empty by itself; nodes
 * forget what they had decided and give the hooks back; everything is freed.
 *
 * Invariants, and what they rest on:
 *
 *   nothing of a former leadership runs       whoever works for it is inside the gate: requests, while their handler
 *   when the next begins                      runs; what goes on later (proposals, recalls, timers, waiting requests),
 *                                             which stays inside by gate_keep(); turns of the nodes' driver. Sessions
 *                                             and ids wait for their own proposals when they end.
 *   the gate becomes empty                    handlers do not wait; the log answers every proposal when leadership is
 *                                             lost; waiting requests are answered by service_stop(); recalls end with
 *                                             their connections; timers are short
 *   a former leadership logs nothing          its proposals carry its number, and the log refuses them once it is over,
 *                                             even if this metad leads again by then (mlog_propose_as)
 *   a former leadership answers nothing       each request is checked for the number after it is inside (service_leads),
 *                                             and again when its turn has come; between loss and stop the gate is still
 *                                             open, and lets nobody through
 *   no answer is of a state that is not the   the answer goes out only if a majority is known to follow this leader
 *   newest any more; no lease is given by     then (mlog_may_read), in the leadership in which the request came
 *   one who does not know that he leads       (may_answer): a leader that is cut off, was stopped for a while or has
 *                                             slept says ERR_NOT_LEADER, whatever its threads had in hand
 *   orders that are out do no harm            they know their leadership (nodes_lead.c), and chunkds its term
 *   hooks of the state find what they need    they are set and unset under the state's write lock, while nothing runs
 *
 * Failure modes: a start that fails because leadership was lost is undone; for any other reason it is tried again, as
 * long as this metad leads. A stop waits as long as it takes, and says so when it takes long: while it does, this metad
 * cannot lead, and others can.
 *
 * Threads: requests on rpc threads; the rest on the role thread. */
#include "leader.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "metad/log/agree.h"
#include "metad/log/feature.h"
#include "metad/log/incarnation.h"
#include "metad/service/service_metad.h"
#include "request.h"

#define LOG_MODULE "leader"
#define RETRY_MS 200
#define DRAIN_SAY_MS 5000u

struct leader {
    struct leader_config cfg;
    struct gate gate;
    struct rpc_service rpc;
    struct metads *metads;
    /* under mu */
    struct lock mu;
    struct cond cond;
    bool changed, ending, running, begun, restored;
    int64_t lost_at, gained_at; /* mono; 0: never */
    pthread_t thread;
    atomic_bool ends;
    atomic_uint_fast64_t terms;
    /* role thread; read by whoever is inside the gate */
    uint64_t leading; /* 0: follows */
    struct ids *ids;
    struct sessions *sessions;
    struct service *service;
};

/* ---- requests ---- */

/* Of chunkds, which report to every metad. */
static bool is_of_nodes(const struct rpc_req *req)
{
    enum request r = request_of(req->env);
    return r == REQUEST_REGISTER || r == REQUEST_HEARTBEAT || r == REQUEST_REPORT;
}

static void send_away(struct leader *l, struct rpc_req *req)
{
    if (atomic_load(&l->ends))
        rpc_fail(req, ERR_SHUTDOWN, "metad stops");
    else if (mlog_leading(l->cfg.mlog) != 0)
        rpc_fail(req, ERR_BUSY, "this metad is just beginning to lead");
    else
        nodes_not_leader(l->cfg.nodes, req);
}

/* These say nothing of the state, or that a change of members is done: who stepped down leads no more. */
static bool is_of_no_state(const Replfs__Envelope *rep)
{
    uint32_t code = rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE ? rep->failure->code : 0;

    return code == ERR_NOT_LEADER || code == ERR_SHUTDOWN || code == ERR_BUSY ||
           rep->body_case == REPLFS__ENVELOPE__BODY_METAD_CHANGE_REPLY;
}

/* Asked when the answer is ready: only then is it certain that nobody else led while it was made. In this order, since
 * a number never comes back. */
static bool may_answer(const struct rpc_req *req, const Replfs__Envelope *rep,
                       Replfs__Failure *instead)
{
    struct leader *l = req->may_arg;

    if ((mlog_may_read(l->cfg.mlog) && mlog_leading(l->cfg.mlog) == req->may_nr) ||
        is_of_no_state(rep))
        return true;
    instead->code = ERR_NOT_LEADER; /* not ERR_BUSY: what was asked for may have been done */
    instead->detail = (char *)"no majority of the metads confirms that this one still leads";
    return false;
}

/* From now on it is answered for this leadership alone. Not when there is none: then no answer is of the state, or it
 * says that it comes from a follower. */
static void answer_as_leader(struct leader *l, struct rpc_req *req)
{
    req->may_nr = mlog_leading(l->cfg.mlog);
    req->may_arg = l;
    if (req->may_nr != 0)
        req->may_answer = may_answer;
}

static bool judges(enum request r)
{
    return r != REQUEST_RAFT && r != REQUEST_CHECKPOINT && r != REQUEST_METAD_LIST &&
           r != REQUEST_HEARTBEAT && r != REQUEST_REPORT;
}

static void on_request(void *arg, struct rpc_req *req)
{
    struct leader *l = arg;

    if (!service_admits(req))
        return;
    if (judges(request_of(req->env)))
        answer_as_leader(l, req);
    if (metads_serves(request_of(req->env))) {
        metads_request(l->metads, req);
    } else if (is_of_nodes(req)) {
        nodes_request(l->cfg.nodes, req);
    } else if (gate_enter(&l->gate)) {
        service_request(l->service, req);
        gate_leave(&l->gate);
    } else {
        send_away(l, req);
    }
}

static void on_closed(void *arg, struct rpc_conn *c)
{
    struct leader *l = arg;

    if (gate_enter(&l->gate)) {
        service_closed(l->service, c);
        gate_leave(&l->gate);
    }
    nodes_conn_closed(l->cfg.nodes, c);
}

/* ---- gain and loss ---- */

static void told_ids(void *arg, uint64_t chunk_upto, uint64_t ino_upto)
{
    ids_told(arg, chunk_upto, ino_upto);
}

static uint64_t new_chunk(void *arg)
{
    return ids_chunk(arg);
}

static void leader_stop(struct leader *l, int code)
{
    gate_shut(&l->gate);
    if (l->cfg.copies)
        copies_stop(l->cfg.copies);
    if (l->sessions)
        sessions_stop(l->sessions);
    if (l->service)
        service_stop(l->service, code);
    while (!gate_drain(&l->gate, DRAIN_SAY_MS))
        log_warn("%llu requests and orders of the former leadership do not end: waiting",
                 (unsigned long long)gate_inside(&l->gate));
    nodes_follow(l->cfg.nodes);
    service_free(l->service);
    sessions_free(l->sessions);
    ids_free(l->ids);
    l->service = NULL;
    l->sessions = NULL;
    l->ids = NULL;
    l->leading = 0;
}

static void lead_nodes(struct leader *l)
{
    struct mlog_status st;

    mlog_status(l->cfg.mlog, &st);
    nodes_lead(l->cfg.nodes, &(struct nodes_leadership){.leading = l->leading,
                                                        .term = st.term,
                                                        .orphaned = sessions_orphaned,
                                                        .adopted = sessions_adopted,
                                                        .session_closed = sessions_closed,
                                                        .hook_arg = l->sessions,
                                                        .ids_told = told_ids,
                                                        .ids_arg = l->ids,
                                                        .new_chunk = new_chunk});
}

static int start_service(struct leader *l)
{
    struct service_config cfg = l->cfg.service;

    cfg.fsm = l->cfg.fsm;
    cfg.mlog = l->cfg.mlog;
    cfg.loop = l->cfg.loop;
    cfg.nodes = l->cfg.nodes;
    cfg.sessions = l->sessions;
    cfg.ids = l->ids;
    cfg.copies = l->cfg.copies;
    cfg.gate = &l->gate;
    cfg.leading = l->leading;
    return service_new(&cfg, &l->service);
}

static int leader_start(struct leader *l, uint64_t leading)
{
    struct sessions_config sessions = l->cfg.sessions;

    l->leading = leading;
    sessions.fsm = l->cfg.fsm;
    sessions.mlog = l->cfg.mlog;
    int rc = feature_begin(l->cfg.mlog, l->cfg.fsm);
    if (rc == 0)
        rc = incarnation_begin(l->cfg.mlog);
    if (rc == 0)
        rc = l->cfg.dir ? agree_begin(l->cfg.mlog, l->cfg.fsm, l->cfg.dir)
                        : agree_cap_key(l->cfg.mlog, l->cfg.fsm, NULL);
    if (rc == 0)
        rc = ids_new(l->cfg.fsm, l->cfg.mlog, &l->ids);
    if (rc == 0)
        rc = sessions_new(&sessions, &l->sessions);
    if (rc == 0) {
        lead_nodes(l);
        rc = start_service(l);
    }
    if (rc == 0)
        rc = sessions_start(l->sessions);
    if (rc == 0 && l->cfg.copies)
        rc = copies_start(l->cfg.copies, l->cfg.mlog, l->cfg.nodes, leading);
    if (rc == 0 && mlog_leading(l->cfg.mlog) != leading)
        rc = -ERR_NOT_LEADER;
    if (rc == 0) {
        atomic_fetch_add(&l->terms, 1);
        gate_open(&l->gate);
    }
    return rc;
}

/* ---- the role thread ---- */

static void say_serving(struct leader *l)
{
    lock_acquire(&l->mu);
    int64_t from = l->lost_at != 0 ? l->lost_at : l->gained_at;
    lock_release(&l->mu);
    uint64_t gap = from != 0 ? (uint64_t)((clock_mono() - from) / NSEC_PER_MSEC) : 0;
    nodes_serving(l->cfg.nodes, gap);
    log_info("serving as the leader, after %llu ms without one", (unsigned long long)gap);
}

/* The state may be another one since: nothing that leads stands on it now. */
static void look_at_state(struct leader *l)
{
    lock_acquire(&l->mu);
    bool restored = l->restored;
    l->restored = false;
    lock_release(&l->mu);
    if (restored)
        nodes_restored(l->cfg.nodes);
}

/* False: it has to be tried again. */
static bool take_role(struct leader *l, uint64_t leading)
{
    if (l->leading != 0 && l->leading != leading) {
        log_warn("leadership is lost: clients are sent away");
        leader_stop(l, -ERR_NOT_LEADER);
        log_info("following");
    }
    look_at_state(l);
    if (leading == l->leading)
        return true;
    int rc = leader_start(l, leading);
    if (rc == 0) {
        say_serving(l);
        return true;
    }
    leader_stop(l, -ERR_NOT_LEADER);
    if (rc != -ERR_NOT_LEADER)
        log_error("leading does not begin: %s", err_str(rc));
    return rc == -ERR_NOT_LEADER;
}

static void *role_main(void *arg)
{
    struct leader *l = arg;
    bool done = true;

    lock_acquire(&l->mu);
    while (!l->ending) {
        uint64_t leading = mlog_leading(l->cfg.mlog);
        l->changed = false;
        if (leading != l->leading || l->restored) {
            lock_release(&l->mu);
            done = take_role(l, leading);
            lock_acquire(&l->mu);
        } else {
            done = true;
        }
        l->begun = true;
        cond_broadcast(&l->cond);
        if (done && mlog_leading(l->cfg.mlog) != l->leading)
            continue; /* changed again meanwhile */
        int64_t until = clock_mono() + (done ? NSEC_PER_SEC : RETRY_MS * NSEC_PER_MSEC);
        while (!l->changed && !l->ending && cond_sleep_until(&l->cond, &l->mu, until)) {
        }
    }
    lock_release(&l->mu);
    if (l->leading != 0)
        leader_stop(l, -ERR_SHUTDOWN);
    return NULL;
}

void leader_role_changed(void *arg, bool leads)
{
    struct leader *l = arg;

    lock_acquire(&l->mu);
    if (leads) /* what it is by now is asked of the log when there is time */
        l->gained_at = clock_mono();
    else if (l->gained_at != 0)
        l->lost_at = clock_mono();
    l->changed = true;
    cond_broadcast(&l->cond);
    lock_release(&l->mu);
}

void leader_restored(void *arg)
{
    struct leader *l = arg;

    lock_acquire(&l->mu);
    l->restored = l->changed = true;
    cond_broadcast(&l->cond);
    lock_release(&l->mu);
}

/* ---- life ---- */

struct leader *leader_new(void)
{
    struct leader *l = calloc(1, sizeof(*l));

    if (!l)
        abort();
    gate_init(&l->gate);
    lock_init(&l->mu, LOCK_LEADER);
    cond_init(&l->cond);
    l->rpc = (struct rpc_service){.request = on_request, .closed = on_closed, .arg = l};
    return l;
}

struct gate *leader_gate(struct leader *l)
{
    return &l->gate;
}

const struct rpc_service *leader_rpc(struct leader *l)
{
    return &l->rpc;
}

int leader_begin(struct leader *l, const struct leader_config *cfg)
{
    l->cfg = *cfg;
    l->rpc.cluster = mlog_uuid(cfg->mlog);
    l->metads = metads_new(cfg->fsm, cfg->mlog);
    int rc = thread_start(&l->thread, "role", role_main, l);
    if (rc != 0)
        return -rc;
    lock_acquire(&l->mu);
    l->running = true;
    while (!l->begun)
        cond_wait(&l->cond, &l->mu);
    lock_release(&l->mu);
    return 0;
}

void leader_end(struct leader *l)
{
    lock_acquire(&l->mu);
    bool running = l->running;
    l->running = false;
    l->ending = true;
    atomic_store(&l->ends, true);
    cond_broadcast(&l->cond);
    lock_release(&l->mu);
    if (running)
        pthread_join(l->thread, NULL);
}

void leader_free(struct leader *l)
{
    if (!l)
        return;
    metads_free(l->metads);
    gate_destroy(&l->gate);
    lock_destroy(&l->mu);
    cond_destroy(&l->cond);
    free(l);
}

struct sessions *leader_sessions(struct leader *l)
{
    return l->sessions;
}

struct ids *leader_ids(struct leader *l)
{
    return l->ids;
}

struct service *leader_service(struct leader *l)
{
    return l->service;
}

uint64_t leader_terms(struct leader *l)
{
    return atomic_load(&l->terms);
}
