/* The door of the replicated log (mlog.h): opening, proposing, status, closing. The engine behind
 * it:
 *
 *   mlog_dir.c    data directory, lock, --init
 *   mlog_hwm.c    high-water mark
 *   mlog_repair.c removes what a crash left on a follower
 *   mlog_check.c  checks the log before libraft
 *   mlog_loop.c   log thread: libuv, libraft, batches
 *   mlog_io.c     guards libraft against a disk side that refuses something
 *   mlog_apply.c  entry -> fsm -> answers
 *   mlog_ckpt.c   checkpoints
 *   mlog_net.c    to other metads, the leader's lease
 *   mlog_recv.c   from other metads
 *   mlog_wire.c   these messages' form
 *   mlog_member.c who belongs to the cluster, handing leadership over
 *   mlog_fetch.c  snapshots from other metads
 *   mlog_serve.c  pieces of snapshots for other metads
 *
 * Opening, in this order, each refusing what it cannot trust before anything that counts is changed: replfs.id, lock,
 * the stored log, the high-water mark against the log's end; then libraft loads, the log
 * thread applies what is behind the checkpoint, and a metad that is alone in its cluster leads.
 *
 * Proposals: any thread packs its command and queues it under m->mu; the log thread does the
 * rest. */
#include "mlog_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "unknown.h"
#include "base/thread.h"
#include "base/lock.h"
#include "entry.h"

#define LOG_MODULE "mlog"
#define DEFAULT_CHECKPOINT_BYTES (64ull << 20)
#define DISK_LIMIT_MS 60000u
#define DEFAULT_CHECK_MS 600000u

static int compare_with_mark(struct mlog *m)
{
    const struct mlog_stored *s = &m->stored;

    if (s->last >= m->hwm.index) {
        if (s->tail[0] != 0)
            log_warn("%s/%s: a write that a crash interrupted is dropped; nothing in it was "
                     "acknowledged",
                     m->dir, s->tail);
        return 0;
    }
    log_error("%s/log ends at index %" PRIu64 ", but entries up to %" PRIu64
              " were acknowledged: %" PRIu64 " are missing%s%s. Restore the whole data directory "
              "from a backup; or, to go on without them "
              "(acknowledged changes are lost), remove %s/hwm and start again",
              m->dir, s->last, m->hwm.index, m->hwm.index - s->last,
              s->tail[0] != 0 ? "; found: " : "", s->tail, m->dir);
    return -ERR_CORRUPT;
}

static int open_dir(struct mlog *m)
{
    int rc = mlog_dir_path(m->log_dir, m->dir, "log");

    if (rc == 0)
        rc = mlog_dir_read_id(m->dir, m->uuid, &m->id);
    if (rc == 0)
        rc = mlog_dir_lock(m->dir, &m->lock_fd);
    if (rc == 0)
        rc = digests_barred(m->dir);
    if (rc == 0)
        rc = mlog_hwm_open(&m->hwm, m->dir, false);
    if (rc == 0)
        rc = mlog_repair(m->dir, m->hwm.index);
    if (rc == 0)
        rc = mlog_check(m->dir, m->id != MLOG_FIRST_ID, &m->stored);
    if (rc == 0)
        rc = compare_with_mark(m);
    if (rc == 0)
        mlog_ckpt_clean(m->dir);
    return rc;
}

static void destroy(struct mlog *m)
{
    mlog_net_free(m->net);
    mlog_hwm_close(&m->hwm);
    if (m->lock_fd >= 0)
        close(m->lock_fd);
    lock_destroy(&m->mu);
    cond_destroy(&m->cond);
    free(m->dir);
    free(m);
}

static struct mlog *create(const struct mlog_config *cfg)
{
    struct mlog *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    m->lock_fd = -1;
    m->hwm.fd = -1;
    m->fsm = cfg->fsm;
    m->checkpoint_bytes =
        cfg->checkpoint_bytes != 0 ? cfg->checkpoint_bytes : DEFAULT_CHECKPOINT_BYTES;
    m->long_fork_ns = (cfg->long_fork_us ? cfg->long_fork_us : 1000 * MLOG_LONG_FORK_MS) * 1000ll;
    m->disk_limit_ns =
        (cfg->disk_limit_ms != 0 ? cfg->disk_limit_ms : DISK_LIMIT_MS) * NSEC_PER_MSEC;
    m->check_ms = cfg->check_ms != 0 ? cfg->check_ms : DEFAULT_CHECK_MS;
    m->role_changed = cfg->role_changed;
    m->failed = cfg->failed;
    m->restored = cfg->restored;
    m->role_arg = cfg->arg;
    if (cfg->observer)
        m->observer = *cfg->observer;
    m->tail = &m->head;
    mlog_member_init(m);
    m->dir = strdup(cfg->dir);
    lock_init(&m->mu, LOCK_MLOG);
    cond_init(&m->cond);
    if (!m->dir || mlog_net_new(m, cfg) != 0) {
        destroy(m);
        return NULL;
    }
    return m;
}

static int wait_until_ready(struct mlog *m, unsigned timeout_ms)
{
    int64_t until = clock_mono() + (int64_t)timeout_ms * NSEC_PER_MSEC;
    int code = 0;

    lock_acquire(&m->mu);
    while (m->phase == PHASE_STARTING && code == 0)
        if (!cond_sleep_until(&m->cond, &m->mu, until))
            code = -ERR_TIMEOUT;
    if (m->phase != PHASE_STARTING)
        code = m->start_code;
    lock_release(&m->mu);
    if (code == -ERR_TIMEOUT)
        log_error("%s: the log was not ready within %u ms", m->dir, timeout_ms);
    return code;
}

void mlog_stop(struct mlog *m)
{
    if (m->stopped)
        return;
    m->stopped = true;
    lock_acquire(&m->mu);
    atomic_store(&m->closing, true);
    if (m->phase != PHASE_FAILED)
        uv_async_send(&m->wake);
    lock_release(&m->mu);
    pthread_join(m->thread, NULL);
    uv_loop_close(&m->loop);
    mlog_serve_stop(m->net);
    mlog_fail_proposals(m->head, -ERR_SHUTDOWN);
    m->head = NULL;
    mlog_hwm_sync(&m->hwm);
}

int mlog_open(const struct mlog_config *cfg, unsigned timeout_ms, struct mlog **out)
{
    struct mlog *m = create(cfg);

    *out = NULL;
    if (!m)
        return -ENOMEM;
    int rc = open_dir(m);
    if (rc == 0)
        fsm_metad_self(m->fsm, (uint32_t)m->id);
    if (rc == 0)
        rc = mlog_loop_init(m);
    if (rc != 0) {
        destroy(m);
        return rc;
    }
    if (thread_start(&m->thread, "mlog", mlog_loop_main, m) != 0)
        abort(); /* a process that cannot start its first thread cannot go on */
    rc = wait_until_ready(m, timeout_ms);
    if (rc != 0) {
        mlog_stop(m);
        destroy(m);
        return rc;
    }
    *out = m;
    return 0;
}

static struct mlog *abandoned; /* one that could not be closed: the process is about to end */

void mlog_close(struct mlog *m)
{
    if (!m)
        return;
    mlog_stop(m);
    if (m->stuck)
        abandoned = m; /* libraft still believes in it */
    else
        destroy(m);
}

const char *mlog_uuid(struct mlog *m)
{
    return m->uuid;
}

/* 0, or why the command must not be in the log; sets p->level. */
static int not_loggable(const struct mlog *m, const Replfs__Command *cmd, struct mlog_proposal *p)
{
    enum metaop op = cmd->op ? metaop_of(cmd->op) : METAOP_NONE;

    p->level = metaop_level(op);
    if (op == METAOP_FEATURE ? cmd->op->feature->level > FSM_FEATURE_MAX
                             : p->level > fsm_feature_level(m->fsm))
        return -ERR_VERSION;
    /* more, and other metads could not be sent it */
    return entry_size(1, p->len) > MLOG_WIRE_BYTES ? -E2BIG : 0;
}

void mlog_propose_as(struct mlog *m, uint64_t leading, Replfs__Command *cmd, mlog_applied *fn,
                     mlog_after *after, void *arg)
{
    if (cmd->time_ns == 0)
        cmd->time_ns = clock_wall();
    /* What this version does not know must not be in the log: it may mean something to others. */
    struct unknown *hidden = unknown_hide(&cmd->base);
    size_t len = replfs__command__get_packed_size(cmd);
    struct mlog_proposal *p = malloc(sizeof(*p) + len);
    if (!p)
        abort();
    *p = (struct mlog_proposal){.fn = fn, .after = after, .arg = arg, .len = len};
    int code = not_loggable(m, cmd, p);
    if (code == 0)
        replfs__command__pack(cmd, p->data);
    unknown_show(hidden);
    if (code != 0) {
        mlog_fail_proposals(p, code);
        return;
    }

    lock_acquire(&m->mu);
    code = atomic_load(&m->closing)                              ? -ERR_SHUTDOWN
           : leading != 0 && atomic_load(&m->leading) != leading ? -ERR_NOT_LEADER
                                                                 : 0;
    bool first = !m->head;
    if (code == 0) {
        *m->tail = p;
        m->tail = &p->next;
        atomic_fetch_add(&m->queued, 1);
        if (first)
            uv_async_send(
                &m->wake); /* under the lock: mlog_close cannot close the handle meanwhile */
    }
    lock_release(&m->mu);
    if (code != 0)
        mlog_fail_proposals(p, code);
}

void mlog_propose(struct mlog *m, Replfs__Command *cmd, mlog_applied *fn, mlog_after *after,
                  void *arg)
{
    mlog_propose_as(m, 0, cmd, fn, after, arg);
}

struct waiting {
    struct lock mu;
    struct cond cond;
    bool done;
    int code;
    struct fsm_result res;
};

static void wait_applied(void *arg, int code, const struct fsm_result *res)
{
    struct waiting *w = arg;

    w->code = code;
    if (res)
        w->res = *res;
}

static void wait_after(void *arg)
{
    struct waiting *w = arg;

    lock_acquire(&w->mu);
    w->done = true;
    cond_signal(&w->cond);
    lock_release(&w->mu);
}

int mlog_propose_wait(struct mlog *m, Replfs__Command *cmd, struct fsm_result *res)
{
    struct waiting w = {.mu = LOCK_INITIALIZER(MLOG_WAIT), .cond = COND_INITIALIZER};

    assert(!pthread_equal(pthread_self(), m->thread));
    mlog_propose(m, cmd, wait_applied, wait_after, &w);
    lock_acquire(&w.mu);
    while (!w.done)
        cond_wait(&w.cond, &w.mu);
    lock_release(&w.mu);
    if (res)
        *res = w.res;
    return w.code;
}

uint64_t mlog_id(struct mlog *m)
{
    return m->id;
}

bool mlog_is_leader(struct mlog *m)
{
    return atomic_load(&m->leader);
}

bool mlog_leader(struct mlog *m, uint64_t *id)
{
    *id = atomic_load(&m->leader_id);
    return *id != 0;
}

bool mlog_may_read(struct mlog *m)
{
    if (!atomic_load(&m->leader))
        return false;
    int64_t until = atomic_load(&m->lease_until);
    return until == INT64_MAX || (until != 0 && clock_boot() < until);
}

uint64_t mlog_leading(struct mlog *m)
{
    return atomic_load_explicit(&m->leading, memory_order_acquire);
}

void mlog_flip(struct mlog *m)
{
    lock_acquire(&m->mu);
    atomic_store(&m->want_flip, true);
    if (!atomic_load(&m->closing))
        uv_async_send(&m->wake);
    lock_release(&m->mu);
}

void mlog_status(struct mlog *m, struct mlog_status *out)
{
    *out = (struct mlog_status){.leader = atomic_load(&m->leader),
                                .term = atomic_load(&m->term),
                                .leader_id = atomic_load(&m->leader_id),
                                .last = atomic_load(&m->last),
                                .applied = atomic_load(&m->applied),
                                .log_bytes = atomic_load(&m->log_bytes),
                                .checkpoint_index = atomic_load(&m->checkpoint_index),
                                .queued = atomic_load(&m->queued),
                                .error = atomic_load(&m->error)};
}

int mlog_checkpoint(struct mlog *m)
{
    lock_acquire(&m->mu);
    bool closing = atomic_load(&m->closing);
    atomic_store(&m->want_checkpoint, true);
    if (!closing)
        uv_async_send(&m->wake);
    lock_release(&m->mu);
    return closing ? -ERR_SHUTDOWN : 0;
}
