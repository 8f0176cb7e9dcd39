/* flush and fsync.
 *
 * flush = seal, send, wait for all copies, commit. fsync = the same with the last append asking
 * the chain to sync, plus a SyncReq where other bytes are unsynced, while the commit is under
 * way (metad's log is always synced). What too few copies could sync is written again, until the
 * mount's time-out. Thread context: any but a loop thread. */
#include "client/writeback/flush.h"
#include <errno.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/lock.h"
#include "client/base/client_clock.h"
#include "client/cache/lease_cache.h"
#include "client/client.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/file/file_check.h"
#include "client/file/file_table.h"
#include "client/internal.h"
#include "client/io/chunkds.h"
#include "client/io/grants.h"
#include "client/queue/queue.h"
#include "client/session/session.h"
#include "client/writeback/commit.h"
#include "client/writeback/drain.h"
#include "client/writeback/quota.h"
#include "client/writeback/rewrite.h"
#include "client/writeback/sync.h"

#define LOG_MODULE "flush"

static int sync_failed(struct cfile *f, const char *missing)
{
    char down[SYNC_MISSING], granted[SYNC_MISSING];
    chunkds_down(f->c, down, sizeof(down));
    grants_missing(f->c, granted, sizeof(granted));
    const char *who = *missing ? missing : *down ? down : granted;
    log_error("inode %llu: fsync: not on stable storage of %u hosts within %u ms; %s%s",
              (unsigned long long)f->ino, session_min_copies(f->c, f->attr.goal),
              f->c->cfg.timeout_ms, *who ? "missing: " : "metad knows of too few copies", who);
    return -EIO;
}

static int flush_synced(struct cfile *f, int64_t deadline)
{
    int known = sync_committed(f, deadline);
    if (known)
        return known;
    for (;;) {
        char missing[SYNC_MISSING];
        uint64_t target = f->next_abuf;
        drain_send(f, true);
        drain_acked(f, target);
        struct syncop *op = sync_begin(f, false);
        int late = drain_below(f, target, deadline);
        int rc = sync_wait(f, op, missing);
        sync_drop_done(f);
        if (!rc && !late)
            f->seam = f->attr.size;
        if (!rc || late)
            return late;
        rc = rewrite_short(f, deadline);
        if (clock_mono() >= deadline)
            return sync_failed(f, missing);
        if (rc) /* neither possible just now: try again */
            cond_wait_until(&f->cv, &f->mu, clock_mono() + 200 * NSEC_PER_MSEC);
    }
}

/* Nobody else can see the file: what happens to bytes below target may be seen to a little later.
 * From the moment that they have been accepted by all copies, the flusher needs no hurrying. */
bool flush_deferred(struct cfile *f, uint64_t target)
{
    if (f->c->cfg.sync_all || quota_applies(f) || !lease_cache_exclusive(f->c->leases, f->ino))
        return false;
    for (const struct abuf *a = f->head; a && a->id < target; a = a->next)
        if (a->append)
            return false;
    if (f->head)
        f->phase = FILE_CLOSED;
    file_check(f);
    commit_eager(f);
    return lease_cache_exclusive(f->c->leases,
                                 f->ino); /* still: a recall from now on waits for it */
}

int flush_file(struct cfile *f, enum flush_how how, bool report)
{
    int rc = 0;
    lock_acquire(&f->mu);
    if (how == FLUSH_SYNC) {
        rc = flush_synced(f, client_deadline(f->c));
    } else if (f->head) {
        uint64_t target = f->next_abuf;
        drain_send(f, false);
        bool deferred = how == FLUSH_ACCEPTED && f->c->cfg.async_close && flush_deferred(f, target);
        if (!deferred)
            drain_acked(f, target);
        if (!deferred && (how == FLUSH_COMMIT || !flush_deferred(f, target)))
            rc = drain_below(f, target, client_deadline(f->c));
    }
    if (how == FLUSH_SYNC) { /* its mode and times, too */
        lock_release(&f->mu);
        queue_release(f->c, f->ino);
        int late = queue_wait(f->c, f->ino);
        rc = rc ? rc : late;
        lock_acquire(&f->mu);
    }
    if (report) {
        int e = cfile_take_err(f);
        rc = e ? e : rc;
    }
    lock_release(&f->mu);
    return rc;
}

int cfile_flush(struct cfile *f)
{
    return flush_file(f, FLUSH_ACCEPTED, true);
}

int cfile_fsync(struct cfile *f)
{
    return flush_file(f, FLUSH_SYNC, true);
}

int client_flush_ino(struct client *c, uint64_t ino)
{
    struct cfile *f = cfile_get(c, ino);
    if (!f)
        return 0;
    int rc = flush_file(f, FLUSH_COMMIT, false); /* its error belongs to the writer of the file */
    cfile_unref(f);
    return rc;
}

void flush_closed(struct client *c)
{
    struct cfile **list;
    if (!c->cfg.async_close)
        return;
    size_t n = cfile_dirty_all(c, &list);
    for (size_t i = 0; i < n; i++) {
        lock_acquire(&list[i]->mu);
        bool eager = list[i]->phase == FILE_CLOSED;
        lock_release(&list[i]->mu);
        if (eager)
            flush_file(list[i], FLUSH_COMMIT, false);
        cfile_unref(list[i]);
    }
    free(list);
}

bool flush_waits(struct client *c, int rc)
{
    return !rc || (rc != -ERR_TIMEOUT && session_connected(c));
}
