/* The flusher thread walks the dirty files a few times per flush_ms: seals what is old, commits
 * what is acknowledged, syncs chunks that get no more appends (so that they can be forgotten),
 * pumps after pauses, gives up what stalls. */
#include "client/writeback/flusher.h"
#include <stdlib.h>
#include "base/clock.h"
#include "base/thread.h"
#include "base/lock.h"
#include "client/base/limits.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/file/dirty.h"
#include "client/file/file_table.h"
#include "client/file/open_told.h"
#include "client/internal.h"
#include "client/names/atime.h"
#include "client/writeback/commit.h"
#include "client/writeback/send.h"
#include "client/writeback/sync.h"

static void flush_tick(struct cfile *f, bool now_all)
{
    int64_t now = clock_mono(), old = f->c->cfg.flush_ms * NSEC_PER_MSEC / 2;
    lock_acquire(&f->mu);
    if (f->tail && f->tail->state == ABUF_FILLING && (now_all || now - f->tail->born >= old))
        abuf_seal(f);
    send_check_stall(f);
    send_check_slow(f);
    send_pump(f);
    if (!(f->jobs & JOB_SYNC)) {
        struct syncop *op = sync_begin(f, true);
        sync_forget(op);
    }
    if (!(f->jobs & JOB_COMMIT) && f->head && f->head->state == ABUF_ACKED &&
        (f->uncommitted > UNCOMMITTED_MAX || now - f->head->acked_at >= old / 2))
        commit_some(f, !f->c->cfg.sync_all);
    lock_release(&f->mu);
}

static void *flush_thread(void *arg)
{
    struct client *c = arg;
    int64_t every = c->cfg.flush_ms * NSEC_PER_MSEC / 8;
    if (every < 20 * NSEC_PER_MSEC)
        every = 20 * NSEC_PER_MSEC;
    while (!c->stopping) {
        lock_acquire(&c->files.mu);
        if (!c->files.flush_now)
            cond_wait_until(&c->files.flush_cv, &c->files.mu, clock_mono() + every);
        bool now_all = c->files.flush_now;
        c->files.flush_now = false;
        lock_release(&c->files.mu);
        struct cfile **list;
        size_t n = cfile_dirty_all(c, &list);
        for (size_t i = 0; i < n; i++) {
            flush_tick(list[i], now_all);
            cfile_unref(list[i]);
        }
        free(list);
        atime_tick(c);
        cfile_tell_old(c);
        if (now_all) { /* not a busy loop while writers wait for slow chunkds */
            lock_acquire(&c->files.mu);
            c->files.flush_now = false;
            cond_wait_until(&c->files.flush_cv, &c->files.mu, clock_mono() + 5 * NSEC_PER_MSEC);
            lock_release(&c->files.mu);
        }
    }
    return NULL;
}

int flusher_start(struct client *c)
{
    int rc = thread_start(&c->files.thread, "flush", flush_thread, c);
    c->files.started = !rc;
    return -rc;
}

void flusher_stop(struct client *c)
{
    if (!c->files.started)
        return;
    dirty_kick(c);
    pthread_join(c->files.thread, NULL);
}
