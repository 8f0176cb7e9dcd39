/* Who belongs to the cluster: adding, removing, handing leadership over; what is known of the others.
 *
 * A metad that is added is a spare at first, then a learner (it gets the log and has no vote), then, when its log is
 * as long as the leader's but for moments, a voter. The two later steps are the leader's own doing, whoever leads by
 * then: so that a leader that dies in between leaves nothing half done.
 *
 * libraft makes one change at a time, and asserts what it should refuse: everything is looked at before it is asked.
 * A change that takes longer than its caller waits goes on; the next one is refused meanwhile (-ERR_BUSY).
 *
 * Before leadership is handed over, the read lease ends, and it does not come back for a while: the one that was asked
 * to take over may do so late, and the others follow it at once. */
#include "mlog_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "mlog"
#define NEARLY                                                                                     \
    256u /* entries that a learner may lack to become a voter: libraft waits for the rest */
#define LEASE_BARRED_MS (4u * MLOG_ELECTION_MS)

void mlog_server_addr(char out[32], uint64_t id)
{
    snprintf(out, 32, "metad-%" PRIu64, id);
}

void mlog_member_init(struct mlog *m)
{
    m->members.asked_tail = &m->members.asked;
}

/* ---- answering ---- */

static void change_done(struct mlog_change *c, int code)
{
    if (c && c->fn)
        c->fn(c->arg, code);
    free(c);
}

static void finish_now(struct mlog *m, int code)
{
    struct mlog_change *c = m->members.now;

    m->members.now = NULL;
    change_done(c, code);
}

static int change_code(int status)
{
    switch (status) {
    case 0:
        return 0;
    case RAFT_NOTLEADER:
    case RAFT_LEADERSHIPLOST:
        return -ERR_NOT_LEADER;
    case RAFT_CANTCHANGE:
        return -ERR_BUSY;
    case RAFT_NOTFOUND:
    case RAFT_BADID:
        return -ENOENT;
    case RAFT_DUPLICATEID:
    case RAFT_DUPLICATEADDRESS:
    case RAFT_BADROLE:
        return -EEXIST;
    default:
        return -EIO;
    }
}

static void on_changed(struct raft_change *req, int status)
{
    struct mlog *m = req->data;

    m->members.req_busy = false;
    if (!m->stopping)
        mlog_member_note(m); /* who asked may look at once */
    finish_now(m, m->stopping ? -ERR_SHUTDOWN : change_code(status));
}

static void on_transferred(struct raft_transfer *req)
{
    struct mlog *m = req->data;

    m->members.transfer_busy = false;
    m->lease_barred_until = clock_mono() + LEASE_BARRED_MS * NSEC_PER_MSEC;
    finish_now(m, m->stopping                           ? -ERR_SHUTDOWN
                  : raft_state(&m->raft) == RAFT_LEADER ? -ERR_TIMEOUT
                                                        : 0);
}

/* ---- on the leader ---- */

static const struct raft_server *server_of(const struct mlog *m, uint64_t id)
{
    const struct raft_configuration *c = &m->raft.configuration;

    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].id == id)
            return &c->servers[i];
    return NULL;
}

/* libraft would take a change of members now. */
static bool free_for_change(const struct mlog *m)
{
    const struct raft *r = &m->raft;

    return atomic_load(&m->leader) && r->state == RAFT_LEADER && !m->members.req_busy &&
           !m->members.transfer_busy && r->configuration_uncommitted_index == 0 &&
           r->leader_state.promotee_id == 0 && r->leader_state.transferee == 0 &&
           !r->legacy.change && !m->broken;
}

/* What libraft answered to a change. Memory apart, nothing fails behind the checks above. */
static void begun(struct mlog *m, struct mlog_change *c, int rc)
{
    if (rc == 0) {
        m->members.req_busy = true;
        m->members.now = c;
        return;
    }
    log_error("members cannot be changed: %s", raft_strerror(rc));
    if (m->raft.legacy.change)
        mlog_io_failed(m, "a change of members was refused", raft_strerror(rc));
    change_done(c, change_code(rc));
}

static void begin_transfer(struct mlog *m, struct mlog_change *c)
{
    const struct raft_server *s = c->id != 0 ? server_of(m, c->id) : NULL;
    struct mlog_members *w = &m->members;

    if (c->id == m->id || (c->id != 0 && (!s || s->role != RAFT_VOTER)) ||
        (c->id == 0 && mlog_alone(m))) {
        change_done(c, c->id == m->id ? 0 : -ENOENT);
        return;
    }
    m->lease_barred_until = INT64_MAX;
    m->lease_barred_term = raft_current_term(&m->raft);
    atomic_store(&m->lease_until, 0);
    w->transfer.data = m;
    int rc = raft_transfer(&m->raft, &w->transfer, c->id, on_transferred);
    if (rc != 0) {
        m->lease_barred_until = 0;
        change_done(c, change_code(rc));
        return;
    }
    w->transfer_busy = true;
    w->now = c;
}

static void begin_change(struct mlog *m, struct mlog_change *c)
{
    const struct raft_server *s = server_of(m, c->id);
    struct mlog_members *w = &m->members;
    char addr[32];

    if (!atomic_load(&m->leader)) {
        change_done(c, -ERR_NOT_LEADER);
        return;
    }
    if (!free_for_change(m)) {
        change_done(c, -ERR_BUSY);
        return;
    }
    w->req.data = m;
    mlog_server_addr(addr, c->id);
    switch (c->kind) {
    case MLOG_ADD:
        if (s || c->id == 0 || c->id > UINT32_MAX || m->raft.configuration.n >= MLOG_MEMBERS_MAX)
            change_done(c, s ? -EEXIST : -EINVAL);
        else
            begun(m, c, raft_add(&m->raft, &w->req, c->id, addr, on_changed));
        return;
    case MLOG_REMOVE:
        if (!s || c->id == m->id)
            change_done(c, s ? -EINVAL : -ENOENT);
        else
            begun(m, c, raft_remove(&m->raft, &w->req, c->id, on_changed));
        return;
    case MLOG_TRANSFER:
        begin_transfer(m, c);
        return;
    }
}

/* The next step of one that was added. */
static void promote(struct mlog *m)
{
    const struct raft_configuration *c = &m->raft.configuration;

    for (unsigned i = 0; i < c->n && free_for_change(m); i++) {
        uint64_t id = c->servers[i].id;
        raft_index match = 0;
        int role = -1;
        if (c->servers[i].role == RAFT_SPARE)
            role = RAFT_STANDBY;
        else if (c->servers[i].role == RAFT_STANDBY &&
                 raft_match_index(&m->raft, id, &match) == 0 && match > 0 &&
                 match + NEARLY > raft_last_index(&m->raft))
            role = RAFT_VOTER;
        if (role < 0)
            continue;
        if (role == RAFT_VOTER)
            log_info("metad %" PRIu64 " has caught up and becomes a voter", id);
        m->members.req.data = m;
        begun(m, NULL, raft_assign(&m->raft, &m->members.req, id, role, on_changed));
        return;
    }
}

static struct mlog_change *take_asked(struct mlog *m)
{
    lock_acquire(&m->mu);
    struct mlog_change *c = m->members.asked;
    m->members.asked = NULL;
    m->members.asked_tail = &m->members.asked;
    lock_release(&m->mu);
    return c;
}

void mlog_member_tick(struct mlog *m)
{
    struct mlog_change *now = m->members.now;

    if (now && clock_mono() > now->deadline) {
        m->members.now = NULL; /* libraft goes on */
        change_done(now, -ERR_TIMEOUT);
    }
    for (struct mlog_change *c = take_asked(m), *next; c; c = next) {
        next = c->next;
        begin_change(m, c);
    }
    if (m->net && free_for_change(m))
        promote(m);
}

void mlog_member_stop(struct mlog *m, int code)
{
    finish_now(m, code);
    for (struct mlog_change *c = take_asked(m), *next; c; c = next) {
        next = c->next;
        change_done(c, code);
    }
}

/* ---- what is known ---- */

void mlog_member_note(struct mlog *m)
{
    const struct raft_configuration *c = &m->raft.configuration;
    struct mlog_member seen[MLOG_MEMBERS_MAX];
    bool leads = raft_state(&m->raft) == RAFT_LEADER;
    unsigned n = 0;

    for (unsigned i = 0; i < c->n && n < MLOG_MEMBERS_MAX; i++, n++) {
        const struct raft_server *s = &c->servers[i];
        struct mlog_peer *p = mlog_net_peer(m, s->id);
        int64_t heard = p ? atomic_load(&p->heard) : 0;
        raft_index match = 0;
        if (leads)
            (void)raft_match_index(&m->raft, s->id, &match);
        seen[n] = (struct mlog_member){.id = s->id,
                                       .role = s->role == RAFT_VOTER     ? MLOG_VOTER
                                               : s->role == RAFT_STANDBY ? MLOG_LEARNER
                                                                         : MLOG_SPARE,
                                       .match = match};
        seen[n].heard_ms = heard == 0 ? -1 : (clock_mono() - heard) / NSEC_PER_MSEC;
        if (s->id == m->id)
            seen[n].heard_ms = 0;
    }
    lock_acquire(&m->mu);
    memcpy(m->members.seen, seen, n * sizeof(seen[0]));
    m->members.nseen = n;
    lock_release(&m->mu);
    mlog_peers_save(m);
}

unsigned mlog_members(struct mlog *m, struct mlog_member out[MLOG_MEMBERS_MAX])
{
    lock_acquire(&m->mu);
    unsigned n = m->members.nseen;
    memcpy(out, m->members.seen, n * sizeof(out[0]));
    lock_release(&m->mu);
    return n;
}

/* ---- asking ---- */

void mlog_change(struct mlog *m, enum mlog_change_kind kind, uint64_t id, unsigned timeout_ms,
                 mlog_changed *fn, void *arg)
{
    struct mlog_change *c = calloc(1, sizeof(*c));

    if (!c)
        abort();
    *c = (struct mlog_change){.kind = kind,
                              .id = id,
                              .fn = fn,
                              .arg = arg,
                              .deadline = clock_mono() + timeout_ms * NSEC_PER_MSEC};
    lock_acquire(&m->mu);
    bool closing = atomic_load(&m->closing);
    if (!closing) {
        *m->members.asked_tail = c;
        m->members.asked_tail = &c->next;
        uv_async_send(&m->wake); /* under the lock: the handle is not closed meanwhile */
    }
    lock_release(&m->mu);
    if (closing)
        change_done(c, -ERR_SHUTDOWN);
}

struct change_wait {
    struct lock mu;
    struct cond cond;
    bool done;
    int code;
};

static void change_waited(void *arg, int code)
{
    struct change_wait *w = arg;

    lock_acquire(&w->mu);
    w->code = code;
    w->done = true;
    cond_signal(&w->cond);
    lock_release(&w->mu);
}

int mlog_change_wait(struct mlog *m, enum mlog_change_kind kind, uint64_t id, unsigned timeout_ms)
{
    struct change_wait w = {.mu = LOCK_INITIALIZER(MLOG_WAIT), .cond = COND_INITIALIZER};

    assert(!pthread_equal(pthread_self(), m->thread));
    mlog_change(m, kind, id, timeout_ms, change_waited, &w);
    lock_acquire(&w.mu);
    while (!w.done)
        cond_wait(&w.cond, &w.mu);
    lock_release(&w.mu);
    return w.code;
}

int mlog_step_down(struct mlog *m, unsigned timeout_ms)
{
    return mlog_change_wait(m, MLOG_TRANSFER, 0, timeout_ms);
}
