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

#include "base/error.h"
#include "base/log.h"
#include "base/lock.h"
#include "entry.h"

#define LOG_MODULE "mlog"
#define MAX_INFLIGHT 8u
#define ENTRY_SOFT_BYTES (64u << 10)
#define TRAILING 1024u
#define ELECTION_MS 300u
#define HEARTBEAT_MS 50u
#define TIMER_MS 200u

static void set_leader(struct mlog *m, bool leader)
{
    if (atomic_exchange(&m->leader, leader) != leader && m->role_changed)
        m->role_changed(m->role_arg, leader);
}

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
    if (status != 0) {
        forget_inflight(m, b);
        mlog_fail_proposals(b->head, m->stopping ? -ERR_SHUTDOWN : -ERR_NOT_LEADER);
    }
    free(b);
    if (!m->stopping)
        submit(m);
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
    size_t pos = ENTRY_HEADER;
    for (struct mlog_proposal *p = props; p; p = p->next)
        pos = entry_put(buf.base, pos, p->data, p->len);
    size_t size = entry_finish(buf.base, pos, count, b->index);
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
static void fail_inflight(struct mlog *m)
{
    for (struct mlog_batch *b = m->inflight; b; b = b->next) {
        mlog_fail_proposals(b->head, -EIO);
        b->head = NULL;
    }
}

/* ---- what libraft calls ---- */

static int on_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    struct mlog *m = fsm->data;
    uint64_t index = m->raft.last_applied + 1;
    struct mlog_batch *b = m->inflight;
    struct mlog_proposal *props = NULL;

    *result = NULL;
    if (m->broken)
        return RAFT_CORRUPT;
    if (b && b->index == index) {
        props = b->head;
        b->head = NULL;
        forget_inflight(m, b);
    }
    mlog_ckpt_record(m, index, buf->base, buf->len);
    m->bytes_since += buf->len;
    int rc = mlog_apply_entry(m, index, buf->base, buf->len, props);
    if (rc != 0) {
        m->broken = true;
        m->load_code = rc;
        atomic_store(&m->error, "the log holds an entry that cannot be applied");
        set_leader(m, false);
        mlog_fail_proposals(props, -EIO);
        return RAFT_CORRUPT;
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
    if (status == 0 && !m->stopping && raft_state(&m->raft) == RAFT_LEADER)
        lead(m);
}

/* Leading counts once everything stored before has been applied. */
static void poll_role(struct mlog *m)
{
    bool leads = raft_state(&m->raft) == RAFT_LEADER && !m->broken;

    atomic_store(&m->term, raft_current_term(&m->raft));
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

/* ---- the loop ---- */

static void close_handles(struct mlog *m)
{
    uv_close((uv_handle_t *)&m->wake, NULL);
    uv_close((uv_handle_t *)&m->timer, NULL);
    uv_close((uv_handle_t *)&m->poll, NULL);
}

static void on_raft_closed(struct raft *r)
{
    close_handles(r->data);
}

static void on_wake(uv_async_t *h)
{
    struct mlog *m = h->data;

    if (m->stopping)
        return;
    mlog_ckpt_poll(m);
    if (m->broken)
        fail_inflight(m);
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
    set_leader(m, false);
    mlog_fail_proposals(take_all(m), -ERR_SHUTDOWN);
    if (m->stuck)
        uv_stop(&m->loop);
    else
        raft_close(&m->raft, on_raft_closed);
}

static void on_timer(uv_timer_t *h)
{
    struct mlog *m = h->data;

    if (m->stopping)
        return;
    if (m->hwm.dirty && m->ninflight == 0)
        mlog_hwm_sync(&m->hwm);
    poll_role(m);
    on_wake(&m->wake);
}

static void on_poll(uv_check_t *h)
{
    struct mlog *m = h->data;

    if (m->stopping)
        return;
    mlog_ckpt_maybe_start(m);
    if (atomic_load(&m->closing) && (m->ninflight == 0 || m->broken))
        on_wake(&m->wake);
}

static int open_raft(struct mlog *m)
{
    mlog_transport_init(&m->transport);
    m->io.version = 1;
    int rc = raft_uv_init(&m->io, &m->loop, m->log_dir, &m->transport);
    if (rc != 0)
        return rc;
    mlog_io_guard(m);
    raft_uv_set_segment_size(&m->io, MLOG_SEGMENT_BYTES);
    raft_uv_set_auto_recovery(&m->io, false);
    m->rfsm = (struct raft_fsm){.version = 2,
                                .data = m,
                                .apply = on_apply,
                                .snapshot = on_snapshot,
                                .restore = on_restore,
                                .snapshot_finalize = on_snapshot_done};
    rc = raft_init(&m->raft, &m->io, &m->rfsm, MLOG_SERVER_ID, MLOG_SERVER_ADDR);
    if (rc != 0) {
        raft_uv_close(&m->io);
        return rc;
    }
    m->raft_open = true;
    m->raft.data = m;
    raft_set_election_timeout(&m->raft, ELECTION_MS);
    raft_set_heartbeat_timeout(&m->raft, HEARTBEAT_MS);
    raft_set_pre_vote(&m->raft, true);
    raft_set_capacity_threshold(&m->raft, 0); /* a full disk makes us wait, not step down */
    raft_set_snapshot_threshold(&m->raft, UINT_MAX);
    raft_set_snapshot_trailing(&m->raft, TRAILING);
    return raft_start(&m->raft);
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
    m->wake.data = m->timer.data = m->poll.data = m;
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
        uv_timer_start(&m->timer, on_timer, TIMER_MS, TIMER_MS);
        uv_check_start(&m->poll, on_poll);
        uv_run(&m->loop, UV_RUN_DEFAULT);
    }
    mlog_ckpt_stop(m);
    if (m->stuck)
        return NULL;
    if (m->raft_open)
        raft_uv_close(&m->io);
    assert(!m->kept);
    free(m->arena);
    m->arena = NULL;
    return NULL;
}
