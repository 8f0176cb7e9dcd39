/* A guard between libraft and its disk side (raft_uv).
 *
 * libraft cannot cope with a disk side that refuses something at the wrong moment. A refused append
 * leaves it with a log that is shorter than it counts, with the caller's buffer freed or not
 * depending on how far it came; a failed one ends in an assertion, and so does a failed snapshot.
 * Such refusals come from the system, not from the disk (those are retried by raft_uv itself): no
 * file descriptors, no memory, no AIO contexts.
 *
 * So libraft is not told. A request that is refused or fails stays under way for it, for ever;
 * nothing new is accepted (m->broken), what waits is answered with -EIO, and the one that opened the
 * log is told to end the process: all that was acknowledged is on the disk, and a new start begins
 * from there. When the log is closed, raft_uv first ends what it has, then the requests that are
 * kept here are cancelled, as if raft_uv had done it: libraft expects nothing else.
 *
 * A write that the disk fails is the exception: raft_uv (0.22.1) wants to repeat it, and does so with the
 * timer that belongs to the preparation of segments, and that one's data, as if it were the segment: the
 * process crashes, if nothing worse. Before it sets the timer it says so to a tracer. That is where the
 * log breaks, and the timer is put off for good. Such a log cannot be closed either, since the write
 * never ends (m->stuck): it is abandoned, and the process must end.
 *
 * Of some failures raft_uv tells nobody. A full segment that it cannot close stays open, and it goes on: a tracer hears
 * of it, on a thread of libuv's pool. Entries that it cannot drop for another leader's stay, and it writes those behind
 * them, under the same indexes: so the directory is looked at before the first of them counts. A segment that it cannot
 * prepare is tried again for ever: no entry waits for the disk without limit, whatever the disk does.
 *
 * Log thread. libraft's requests do not lead back to us, so the thread knows its log. */
#include "mlog_internal.h"

#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "mlog"
#define DISK_SAY_MS 5000

static _Thread_local struct mlog *own;

void mlog_io_failed(struct mlog *m, const char *what, const char *why)
{
    if (m->broken)
        return;
    m->broken = true;
    log_error("%s: %s: %s. This metad accepts nothing more and has to be started again; nothing "
              "that was acknowledged is lost",
              m->log_dir, what, why);
    atomic_store(&m->error, "the log's engine was refused what it needs: start metad again");
    atomic_store(&m->leader, false);
    atomic_store(&m->leading, 0);
    uv_async_send(&m->wake); /* answers those who wait */
    if (m->failed)
        m->failed(m->role_arg);
}

static const char *reason(struct mlog *m, int rc)
{
    return m->io.errmsg[0] != 0 ? m->io.errmsg : raft_strerror(rc);
}

void mlog_io_dropped(struct mlog *m, uint64_t last)
{
    for (struct mlog_append *a = m->appends; a; a = a->next)
        if (a->last > last)
            a->dropped = true;
    int rc = mlog_hwm_lower(&m->hwm, last);
    if (rc != 0)
        mlog_io_failed(m, "the high-water mark cannot be lowered", err_str(rc));
}

/* ---- requests that libraft believes to be under way ---- */

static void io_keep(struct mlog *m, void *req, enum mlog_kept_kind kind)
{
    struct mlog_kept *k = malloc(sizeof(*k));

    if (!k)
        abort();
    *k = (struct mlog_kept){.req = req, .kind = kind, .next = m->kept};
    m->kept = k;
}

static void unkeep(struct mlog *m, const void *req)
{
    for (struct mlog_kept **p = &m->kept; *p; p = &(*p)->next)
        if ((*p)->req == req) {
            struct mlog_kept *k = *p;
            *p = k->next;
            free(k);
            return;
        }
}

/* The stored log holds nothing from this index on but what is being written now: that is not in closed segments yet. */
static bool dropped_all(struct mlog *m, uint64_t from)
{
    struct mlog_files l = {0};
    bool gone = mlog_check_list(m->log_dir, &l) == 0;

    for (size_t i = 0; gone && i < l.nseg; i++)
        gone = l.seg[i].open || l.seg[i].last < from;
    free(l.seg);
    free(l.snap);
    if (!gone)
        mlog_io_failed(m, "entries could not be dropped", "they are still there");
    return gone;
}

/* The entries of an append are stored, and that counts as of now: a follower tells the leader so next, a leader of
 * several counts itself. Alone, entries are marked when somebody is told of them (mlog_apply.c). They do not end in the
 * order in which they began: when libraft's disk half closes, those that wait are cancelled before the one that is being
 * written ends well. */
static bool appended(struct mlog *m, const struct raft_io_append *req, int status)
{
    struct mlog_append **p = &m->appends, *a;
    bool counts = status == 0;

    while (*p && (*p)->req != req)
        p = &(*p)->next;
    a = *p;
    if (!a)
        return counts;
    *p = a->next;
    if (counts && a->dropped_from > 0)
        counts = dropped_all(m, a->dropped_from);
    if (counts && !a->dropped && !mlog_alone(m) &&
        mlog_hwm_advance(&m->hwm, a->last, raft_current_term(&m->raft)) != 0)
        atomic_store(&m->error, "the high-water mark cannot be written");
    free(a);
    return counts;
}

static void append_done(struct raft_io_append *req, int status)
{
    struct mlog *m = own;

    if (!appended(m, req, status) && !m->io_closing) {
        mlog_io_failed(m, "an entry could not be written", reason(m, status));
        io_keep(m, req, MLOG_KEPT_APPEND);
        return;
    }
    unkeep(m, req);
    m->append_cb(req, status != 0 ? RAFT_CANCELED : 0);
}

static int guarded_append(struct raft_io *io, struct raft_io_append *req,
                          const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
    struct mlog *m = own;

    m->append_cb = cb;
    struct mlog_append *a = calloc(1, sizeof(*a));
    if (!a)
        abort();
    a->last = m->append_index + n - 1;
    m->append_index += n;
    a->req = req;
    a->since = clock_mono();
    a->dropped_from = m->dropped_from;
    m->dropped_from = 0;
    a->next = m->appends;
    m->appends = a;
    int rc = m->broken ? RAFT_IOERR : m->io_append(io, req, entries, n, append_done);
    if (rc == 0)
        return 0;
    mlog_io_failed(m, "an entry was refused", reason(m, rc));
    io_keep(m, req, MLOG_KEPT_APPEND);
    return 0;
}

/* libraft calls it before each append, with the index of its first entry. */
static int guarded_truncate(struct raft_io *io, raft_index index)
{
    struct mlog *m = own;

    if (index < m->append_index)
        m->dropped_from = index;
    m->append_index = index;
    mlog_io_dropped(m, index - 1);
    int rc = m->broken ? 0 : m->io_truncate(io, index);
    if (rc != 0)
        mlog_io_failed(m, "entries could not be dropped", reason(m, rc));
    return 0;
}

/* A term or vote that is not on the disk: nothing that rests on it may be said, and nothing is (mlog_net.c). */
static int guarded_term(struct raft_io *io, raft_term term)
{
    struct mlog *m = own;
    int rc = m->broken ? RAFT_IOERR : m->io_set_term(io, term);

    if (rc != 0)
        mlog_io_failed(m, "the term could not be stored", reason(m, rc));
    return 0;
}

static int guarded_vote(struct raft_io *io, raft_id id)
{
    struct mlog *m = own;
    int rc = m->broken ? RAFT_IOERR : m->io_set_vote(io, id);

    if (rc != 0)
        mlog_io_failed(m, "the vote could not be stored", reason(m, rc));
    return 0;
}

static void snapshot_done(struct raft_io_snapshot_put *req, int status)
{
    struct mlog *m = own;

    if (status != 0 && !m->io_closing) {
        mlog_io_failed(m, "a snapshot could not be written", reason(m, status));
        io_keep(m, req, MLOG_KEPT_SNAPSHOT);
        return;
    }
    unkeep(m, req);
    m->snapshot_cb(req, status != 0 ? RAFT_CANCELED : 0);
}

static int guarded_snapshot(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                            const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct mlog *m = own;

    m->snapshot_cb = cb;
    return m->io_snapshot_put(io, trailing, req, snapshot, snapshot_done);
}

/* ---- what raft_uv tells only its tracer ---- */

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* The log thread, or for a segment that is being closed one of libuv's pool, which may look at nothing of m before
 * `guarded`. */
static void traced(struct raft_tracer *t, int type, const void *info)
{
    struct mlog *m = (struct mlog *)((char *)t - offsetof(struct mlog, tracer));
    const struct raft_tracer_info *i = info;
    const char *text = type == RAFT_TRACER_DIAGNOSTIC ? i->diagnostic.message : "";

    if (begins(text, "retry failed write")) {
        m->stuck = true;
        raft_uv_set_disk_retry(&m->io, UINT_MAX);
        mlog_io_failed(m, "an entry could not be written", reason(m, RAFT_IOERR));
    } else if (begins(text, "create open segment ")) {
        m->no_segment = true;
    } else if (begins(text, "completed creation of")) {
        m->no_segment = false;
    } else if (begins(text, "truncate segment ") && atomic_load(&m->guarded)) {
        log_error("%s: %s", m->log_dir, text);
        atomic_store(&m->unclosed, true); /* the timer looks */
    }
}

/* ---- waits ---- */

/* Appends end in order, but for closing: the last of the list is the oldest. */
void mlog_io_tick(struct mlog *m)
{
    const struct mlog_append *oldest = m->appends;

    if (m->broken)
        return;
    if (atomic_load(&m->unclosed)) {
        mlog_io_failed(m, "a full segment could not be closed", "see above");
        return;
    }
    while (oldest && oldest->next)
        oldest = oldest->next;
    int64_t waits = oldest ? clock_mono() - oldest->since : 0;
    const char *why = m->no_segment ? "no new segment could be made: is the disk full, or are "
                                      "there no file descriptors left"
                                    : "it does not answer";
    if (waits > m->disk_limit_ns) {
        m->stuck = true; /* what has taken so long may never end */
        mlog_io_failed(m, "an entry has waited for the disk for too long", why);
    } else if (waits > DISK_SAY_MS * NSEC_PER_MSEC && !m->said_slow) {
        log_warn("%s: an entry has waited for the disk for %" PRId64 " s: %s", m->log_dir,
                 (int64_t)(waits / NSEC_PER_SEC), why);
    }
    m->said_slow = waits > DISK_SAY_MS * NSEC_PER_MSEC;
}

/* ---- closing ---- */

static void closed(struct raft_io *io)
{
    struct mlog *m = own;

    while (m->kept) {
        struct mlog_kept k = *m->kept;
        unkeep(m, k.req);
        if (k.kind == MLOG_KEPT_APPEND)
            m->append_cb(k.req, RAFT_CANCELED);
        else
            m->snapshot_cb(k.req, RAFT_CANCELED);
    }
    mlog_net_flush(m, RAFT_CANCELED);
    m->close_cb(io);
}

static void guarded_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct mlog *m = own;

    m->io_closing = true;
    m->close_cb = cb;
    m->io_close(io, closed);
}

void mlog_io_guard(struct mlog *m)
{
    own = m;
    m->io_set_term = m->io.set_term;
    m->io_set_vote = m->io.set_vote;
    m->io.set_term = guarded_term;
    m->io.set_vote = guarded_vote;
    m->io_truncate = m->io.truncate;
    m->io.truncate = guarded_truncate;
    m->io_append = m->io.append;
    m->io_snapshot_put = m->io.snapshot_put;
    m->io_close = m->io.close;
    m->io.append = guarded_append;
    m->io.snapshot_put = guarded_snapshot;
    m->io.close = guarded_close;
    m->tracer = (struct raft_tracer){.version = 2, .emit = traced};
    atomic_store(&m->guarded, true);
    raft_uv_set_tracer(&m->io, &m->tracer);
}
