/* The log thread: libuv's loop and libraft on it, and nothing else.
 *
 * Queue -> entry: proposals wait in m->head. Whenever the loop is woken or an entry completes, up
 * to 256 commands or 64 KiB become one raft entry, up to 8 entries are in flight; the longer the
 * disk takes, the larger the entries get (group commit without timers).
 *
 * Completion: libraft applies committed entries in log order inside its own callbacks; the entry at
 * the head of `inflight` with the same index is ours and its proposers are answered there.
 * raft_apply's own callback then only frees the batch; called with an error first (leadership lost,
 * closing), it fails the proposers: the command may or may not be committed.
 *
 * `broken`: an entry could not be applied, so that state and log no longer agree, and the process
 * stays to say so; or the engine was refused something (mlog_io.c), and the process shall end.
 * Nothing is accepted any more, nobody leads, and every waiter is answered with -EIO. */
#include "mlog_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/lock.h"
#include "entry.h"

#define LOG_MODULE "mlog"
#define MAX_INFLIGHT 8u
#define ENTRY_SOFT_BYTES (64u << 10)
#define TRAILING 1024u
#define TIMER_MS 200u
#define INSTALL_MS 600000u /* until a snapshot that nobody answers to is sent again */

static void set_phase(struct mlog *m, enum mlog_phase phase, int code)
{
    lock_acquire(&m->mu);
    if (m->phase == PHASE_STARTING) {
        m->phase = phase;
        m->start_code = code;
        cond_broadcast(&m->cond);
    }
    lock_release(&m->mu);
}

static struct mlog_proposal *take_all(struct mlog *m)
{
    lock_acquire(&m->mu);
    struct mlog_proposal *p = m->head;
    m->head = NULL;
    m->tail = &m->head;
    atomic_store(&m->queued, 0);
    lock_release(&m->mu);
    return p;
}

/* What the former leadership queued is answered before the next one can begin. */
static void set_leader(struct mlog *m, bool leader)
{
    if (atomic_exchange(&m->leader, leader) == leader)
        return;
    lock_acquire(&m->mu);
    atomic_store(&m->leading, leader ? ++m->leaderships : 0);
    lock_release(&m->mu);
    if (!leader && !m->stopping)
        mlog_fail_proposals(take_all(m), m->broken ? -EIO : -ERR_NOT_LEADER);
    if (m->role_changed)
        m->role_changed(m->role_arg, leader);
}

/* Up to one entry's worth; *bytes: packed bytes of them. */
static struct mlog_proposal *take_some(struct mlog *m, unsigned *count, size_t *bytes)
{
    *count = 0;
    *bytes = 0;
    lock_acquire(&m->mu);
    struct mlog_proposal *first = m->head, **end = &m->head;
    while (*end && *count < ENTRY_MAX_COMMANDS &&
           (*count == 0 || *bytes + (*end)->len <= ENTRY_SOFT_BYTES)) {
        *bytes += (*end)->len;
        ++*count;
        end = &(*end)->next;
    }
    if (*count > 0) {
        m->head = *end;
        *end = NULL;
        if (!m->head)
            m->tail = &m->head;
        atomic_fetch_sub(&m->queued, *count);
    }
    lock_release(&m->mu);
    return *count > 0 ? first : NULL;
}

/* ---- proposing ---- */

static void submit(struct mlog *m);

static void forget_inflight(struct mlog *m, struct mlog_batch *b)
{
    for (struct mlog_batch **p = &m->inflight; *p; p = &(*p)->next)
        if (*p == b) {
            *p = b->next;
            if (!b->next)
                m->inflight_tail = p;
            return;
        }
}

static void apply_cb(struct raft_apply *req, int status, void *result)
{
    struct mlog_batch *b = req->data;
    struct mlog *m = b->m;

    (void)result;
    m->ninflight--;
    (void)status;
    forget_inflight(m, b);
    mlog_fail_proposals(b->head, m->stopping ? -ERR_SHUTDOWN : -ERR_NOT_LEADER);
    free(b);
    if (!m->stopping)
        submit(m);
}

/* A version that knows nothing of feature levels must not read what comes behind the first. */
static unsigned entry_version(const struct mlog *m, const struct mlog_proposal *props)
{
    unsigned level = fsm_feature_level(m->fsm);

    for (const struct mlog_proposal *p = props; p; p = p->next)
        level = p->level > level ? p->level : level;
    return level > 0 ? ENTRY_VERSION : ENTRY_VERSION_LEVEL_0;
}

static int submit_one(struct mlog *m, struct mlog_proposal *props, unsigned count, size_t bytes)
{
    struct raft_buffer buf = {.len = entry_size(count, bytes)};
    struct mlog_batch *b = calloc(1, sizeof(*b));

    buf.base = raft_malloc(buf.len);
    if (!b || !buf.base)
        abort(); /* no memory to go on with */
    b->m = m;
    b->head = props;
    b->req.data = b;
    b->index = raft_last_index(&m->raft) + 1;
    b->term = raft_current_term(&m->raft);
    size_t pos = ENTRY_HEADER;
    for (struct mlog_proposal *p = props; p; p = p->next)
        pos = entry_put(buf.base, pos, p->data, p->len);
    size_t size = entry_finish(buf.base, pos, count, b->index, entry_version(m, props));
    assert(size == buf.len);
    *m->inflight_tail = b;
    m->inflight_tail = &b->next;
    int rc = raft_apply(&m->raft, &b->req, &buf, 1, apply_cb);
    if (rc != 0) {
        forget_inflight(m, b);
        /* Only these two come before libraft touches anything: the buffer is still ours. After all
         * others nobody can tell, and libraft is not to be relied on. */
        if (rc == RAFT_NOTLEADER || rc == RAFT_NOSPACE)
            raft_free(buf.base);
        else
            mlog_io_failed(m, "an entry was refused", raft_strerror(rc));
        free(b);
        return rc;
    }
    m->ninflight++;
    return 0;
}

static void submit(struct mlog *m)
{
    unsigned count;
    size_t bytes;

    if (m->broken || !atomic_load(&m->leader)) {
        mlog_fail_proposals(take_all(m), m->broken ? -EIO : -ERR_NOT_LEADER);
        return;
    }
    while (m->ninflight < MAX_INFLIGHT) {
        struct mlog_proposal *p = take_some(m, &count, &bytes);
        if (!p)
            return;
        int rc = submit_one(m, p, count, bytes);
        if (rc != 0) {
            log_warn("the log refuses new entries: %s", raft_strerror(rc));
            mlog_fail_proposals(p, m->broken ? -EIO : -ERR_NOT_LEADER);
            return;
        }
        if (m->broken)
            return; /* on_wake answers them all */
    }
}

/* The batches stay with libraft until it is closed. */
static void fail_inflight(struct mlog *m, int code)
{
    for (struct mlog_batch *b = m->inflight; b; b = b->next) {
        mlog_fail_proposals(b->head, code);
        b->head = NULL;
    }
}

/* ---- what libraft calls ---- */

/* The batch that this metad itself wrote at index, taken from those in flight. Only as long as it leads in the same
 * term: another leader may have put something else there, and libraft says so only later. */
static struct mlog_proposal *own_proposals(struct mlog *m, uint64_t index)
{
    struct mlog_batch *b = m->inflight;

    while (b && (b->index != index || b->term != raft_current_term(&m->raft)))
        b = b->next;
    if (!b || raft_state(&m->raft) != RAFT_LEADER)
        return NULL;
    struct mlog_proposal *props = b->head;
    b->head = NULL;
    forget_inflight(m, b);
    return props;
}

/* A failure stays here once libraft runs: told of it while it takes entries from a message, it frees them twice
 * (its recvCb). Nothing is applied any more, and the process ends. */
static int on_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct mlog *m = fsm->data;
    uint64_t index = m->raft.last_applied + 1;
    int failure = m->started ? 0 : RAFT_CORRUPT;

    *result = NULL;
    if (m->broken)
        return failure;
    struct mlog_proposal *props = own_proposals(m, index);
    mlog_ckpt_record(m, index, buf->base, buf->len);
    m->bytes_since += buf->len;
    int rc = mlog_apply_entry(m, index, buf->base, buf->len, props);
    if (rc != 0) {
        m->broken = true;
        m->load_code = rc;
        atomic_store(&m->error, "the log holds an entry that cannot be applied");
        set_leader(m, false);
        if (m->phase == PHASE_READY && m->failed)
            m->failed(m->role_arg);
        return failure;
    }
    atomic_store(&m->applied, index);
    atomic_store(&m->log_bytes, m->bytes_since);
    return 0;
}

static int on_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
    return mlog_ckpt_hand_over(fsm->data, bufs, n);
}

static int on_snapshot_done(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
    mlog_ckpt_finished(fsm->data, bufs, n);
    return 0;
}

static int on_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    struct mlog *m = fsm->data;
    int rc = mlog_ckpt_restore(m, buf->base, buf->len);

    if (rc != 0) {
        m->load_code = rc;
        if (m->started)
            mlog_io_failed(m, "the leader's snapshot cannot be loaded", err_str(rc));
        return RAFT_CORRUPT;
    }
    raft_free(buf->base);
    return 0;
}

/* ---- role ---- */

static void lead(struct mlog *m)
{
    log_info("leading: term %" PRIu64 ", %" PRIu64 " entries applied",
             (uint64_t)raft_current_term(&m->raft), (uint64_t)raft_last_applied(&m->raft));
    set_leader(m, true);
    set_phase(m, PHASE_READY, 0);
    submit(m);
}

static void barrier_cb(struct raft_barrier *req, int status)
{
    struct mlog *m = req->data;

    m->barrier_sent = false;
    if (status == 0 && !m->stopping && !m->broken && raft_state(&m->raft) == RAFT_LEADER)
        lead(m);
}

static void note_leader(struct mlog *m, bool leads)
{
    raft_id id = m->id;
    const char *address;

    if (!leads)
        raft_leader(&m->raft, &id, &address);
    if (atomic_exchange(&m->leader_id, id) != id) {
        if (!leads && id != 0)
            log_info("metad %" PRIu64 " leads: term %" PRIu64, (uint64_t)id,
                     (uint64_t)raft_current_term(&m->raft));
        mlog_member_note(m);
    }
}

/* Until when nobody else can lead: see mlog_net.c. A cluster of one has nobody else. */
static void note_lease(struct mlog *m, bool leads)
{
    int64_t until = 0;

    if (m->lease_barred_until != 0 && (raft_current_term(&m->raft) != m->lease_barred_term ||
                                       clock_mono() >= m->lease_barred_until))
        m->lease_barred_until = 0;
    if (leads && m->lease_barred_until == 0)
        until = m->net ? mlog_net_lease(m) : INT64_MAX;
    atomic_store(&m->lease_until, until);
}

/* Leading counts once everything stored before has been applied. */
static void poll_role(struct mlog *m)
{
    bool leads = raft_state(&m->raft) == RAFT_LEADER && !m->broken;

    atomic_store(&m->term, raft_current_term(&m->raft));
    atomic_store(&m->last, raft_last_index(&m->raft));
    if (!m->broken)
        atomic_store(&m->applied, raft_last_applied(&m->raft));
    note_leader(m, leads);
    note_lease(m, leads);
    if (!leads) {
        set_leader(m, false);
    } else if (!atomic_load(&m->leader) && !m->barrier_sent) {
        if (raft_last_applied(&m->raft) == raft_last_index(&m->raft)) {
            atomic_store(&m->applied, raft_last_applied(&m->raft));
            lead(m);
        } else {
            m->barrier.data = m;
            int rc = raft_barrier(&m->raft, &m->barrier, barrier_cb);
            m->barrier_sent = rc == 0;
            if (rc != 0 && rc != RAFT_NOTLEADER)
                mlog_io_failed(m, "a barrier was refused", raft_strerror(rc));
        }
    }
}

/* Batches under way keep their places, without anybody to tell. */
static void flip(struct mlog *m)
{
    if (m->broken || !atomic_load(&m->leader))
        return;
    set_leader(m, false);
    fail_inflight(m, -ERR_NOT_LEADER);
    poll_role(m);
}

/* ---- the loop ---- */

static void close_handles(struct mlog *m)
{
    uv_close((uv_handle_t *)&m->wake, NULL);
    uv_close((uv_handle_t *)&m->timer, NULL);
    uv_close((uv_handle_t *)&m->poll, NULL);
    uv_close((uv_handle_t *)&m->before_poll, NULL);
}

static void on_raft_closed(struct raft *r)
{
    close_handles(r->data);
}

static void on_wake(uv_async_t *h)
{
    struct mlog *m = h->data;

    mlog_recv_all(m);
    if (m->stopping)
        return;
    mlog_ckpt_poll(m);
    if (atomic_exchange(&m->want_flip, false))
        flip(m);
    if (m->broken)
        fail_inflight(m, -EIO);
    poll_role(m);
    mlog_member_tick(m);
    if (!atomic_load(&m->closing)) {
        submit(m);
        mlog_ckpt_maybe_start(m);
        return;
    }
    /* Everything accepted is still completed; new proposals have been turned away since `closing`.
     */
    submit(m);
    if (m->ninflight > 0 && !m->broken)
        return;
    m->stopping = true;
    atomic_store(&m->lease_until, 0);
    set_leader(m, false);
    mlog_fail_proposals(take_all(m), -ERR_SHUTDOWN);
    mlog_member_stop(m, -ERR_SHUTDOWN);
    mlog_fetch_stop(m);
    mlog_net_close(m);
    if (m->stuck)
        uv_stop(&m->loop);
    else
        raft_close(&m->raft, on_raft_closed);
}

/* The leader has all metads compare their states now and then. */
static void check_tick(struct mlog *m)
{
    Replfs__CheckOp check;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    int64_t now = clock_mono();

    if (now < m->check_next || !atomic_load(&m->leader))
        return;
    m->check_next = now + m->check_ms * NSEC_PER_MSEC;
    if (!digests_next(m->digests, &check))
        return;
    op.op_case = REPLFS__META_OP__OP_CHECK;
    op.check = &check;
    cmd.op = &op;
    mlog_propose(m, &cmd, NULL, NULL, NULL);
}

static void on_timer(uv_timer_t *h)
{
    struct mlog *m = h->data;

    if (m->stopping)
        return;
    if (m->hwm.dirty && m->ninflight == 0)
        mlog_hwm_sync(&m->hwm);
    mlog_io_tick(m);
    mlog_net_tick(m);
    mlog_member_note(m);
    check_tick(m);
    on_wake(&m->wake);
}

/* Each turn of the loop: what became of the role in libraft's timers and callbacks counts at once. */
static void look(struct mlog *m)
{
    mlog_net_flush(m, 0);
    if (m->stopping)
        return;
    mlog_fetch_poll(m);
    poll_role(m);
    mlog_member_tick(m);
    if (atomic_load(&m->closing) && (m->ninflight == 0 || m->broken))
        on_wake(&m->wake);
}

static void on_before_poll(uv_prepare_t *h)
{
    look(h->data);
}

static void on_poll(uv_check_t *h)
{
    struct mlog *m = h->data;

    if (!m->stopping)
        mlog_ckpt_maybe_start(m);
    look(m);
}

/* What libraft needs to know before it starts. */
static void set_up_raft(struct mlog *m)
{
    m->raft.data = m;
    raft_set_election_timeout(&m->raft, MLOG_ELECTION_MS);
    raft_set_heartbeat_timeout(&m->raft, MLOG_HEARTBEAT_MS);
    raft_set_install_snapshot_timeout(&m->raft, INSTALL_MS);
    raft_set_pre_vote(&m->raft, true);
    raft_set_capacity_threshold(&m->raft, 0); /* a full disk makes us wait, not step down */
    raft_set_snapshot_threshold(&m->raft, UINT_MAX);
    raft_set_snapshot_trailing(&m->raft, TRAILING);
    m->votes_from = clock_mono() + 2ll * MLOG_ELECTION_MS * NSEC_PER_MSEC;
}

static int open_raft(struct mlog *m)
{
    char addr[32];

    mlog_transport_init(&m->transport);
    m->io.version = 1;
    int rc = raft_uv_init(&m->io, &m->loop, m->log_dir, &m->transport);
    if (rc != 0)
        return rc;
    mlog_io_guard(m);
    mlog_net_wrap(m);
    raft_uv_set_segment_size(&m->io, MLOG_SEGMENT_BYTES);
    raft_uv_set_auto_recovery(&m->io, false);
    m->rfsm = (struct raft_fsm){.version = 2,
                                .data = m,
                                .apply = on_apply,
                                .snapshot = on_snapshot,
                                .restore = on_restore,
                                .snapshot_finalize = on_snapshot_done};
    mlog_server_addr(addr, m->id);
    rc = raft_init(&m->raft, &m->io, &m->rfsm, m->id, addr);
    if (rc != 0) {
        raft_uv_close(&m->io);
        return rc;
    }
    m->raft_open = true;
    set_up_raft(m);
    mlog_peers_load(m);
    rc = raft_start(&m->raft);
    m->started = rc == 0;
    if (rc == 0)
        m->digests = digests_new(m->fsm, (uint32_t)m->id, m->dir);
    return rc;
}

int mlog_loop_init(struct mlog *m)
{
    m->inflight_tail = &m->inflight;
    if (uv_loop_init(&m->loop) != 0)
        return -ENOMEM;
    int rc = uv_async_init(&m->loop, &m->wake, on_wake);
    assert(rc == 0);
    uv_timer_init(&m->loop, &m->timer);
    uv_check_init(&m->loop, &m->poll);
    uv_prepare_init(&m->loop, &m->before_poll);
    m->before_poll.data = m->wake.data = m->timer.data = m->poll.data = m;
    return 0;
}

/* libraft could not load: say why once, put everything away. */
static void loading_failed(struct mlog *m, int rc)
{
    int code = m->load_code != 0 ? m->load_code : rc == RAFT_CORRUPT ? -ERR_CORRUPT : -EIO;

    if (m->load_code == 0)
        log_error("%s: the log cannot be opened: %s", m->log_dir,
                  m->io.errmsg[0] != 0 ? m->io.errmsg : raft_strerror(rc));
    m->stopping = true;
    set_phase(m, PHASE_FAILED, code); /* from here on nobody sends to `wake` */
    if (m->raft_open)
        raft_close(&m->raft, on_raft_closed);
    else
        close_handles(m);
    uv_run(&m->loop, UV_RUN_DEFAULT);
}

void *mlog_loop_main(void *arg)
{
    struct mlog *m = arg;
    int rc = open_raft(m);

    if (rc != 0) {
        loading_failed(m, rc);
    } else {
        poll_role(m);
        if (!mlog_alone(m))
            set_phase(m, PHASE_READY, 0); /* who leads, and what is committed, others will say */
        uv_prepare_start(&m->before_poll, on_before_poll);
        uv_timer_start(&m->timer, on_timer, TIMER_MS, TIMER_MS);
        uv_check_start(&m->poll, on_poll);
        uv_run(&m->loop, UV_RUN_DEFAULT);
    }
    mlog_ckpt_stop(m);
    digests_free(m->digests);
    m->digests = NULL;
    if (m->stuck)
        return NULL;
    if (m->raft_open)
        raft_uv_close(&m->io);
    assert(!m->kept);
    while (m->appends) {
        struct mlog_append *a = m->appends;
        m->appends = a->next;
        free(a);
    }
    free(m->arena);
    m->arena = NULL;
    return NULL;
}
