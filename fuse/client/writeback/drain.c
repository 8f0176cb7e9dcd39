/* Waiting for buffers: until all copies have them, until metad has. The waiting thread pumps and commits by
 * itself, so that nobody waits for the flusher's next round. */
#include "client/writeback/drain.h"
#include "base/clock.h"
#include "base/error.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/file/file_check.h"
#include "client/internal.h"
#include "client/queue/queue.h"
#include "client/writeback/commit.h"
#include "client/writeback/send.h"
#include "client/writeback/write_order.h"

bool drain_left(const struct cfile *f, uint64_t target, bool unacked_only)
{
    for (const struct abuf *a = f->head; a && a->id < target; a = a->next) {
        if (!unacked_only || a->state <= ABUF_SENT)
            return true;
    }
    return false;
}

void drain_send(struct cfile *f, bool sync)
{
    abuf_seal(f);
    file_check(f);
    if (sync && f->tail && f->tail->state == ABUF_QUEUED)
        f->tail->sync = true;
    send_pump(f);
}

/* Until everything below target was acknowledged by all copies, or given up. */
void drain_acked(struct cfile *f, uint64_t target)
{
    while (drain_left(f, target, true)) {
        int64_t until = clock_mono() + 100 * NSEC_PER_MSEC;
        if (f->retry_at && f->retry_at < until && f->retry_at > clock_mono())
            until = f->retry_at;
        cond_wait_until(&f->cv, &f->mu, until);
        send_check_stall(f);
        send_pump(f);
    }
}

int drain_below(struct cfile *f, uint64_t target, int64_t deadline)
{
    while (drain_left(f, target, false)) {
        if (clock_mono() >= deadline)
            return -ERR_TIMEOUT;
        bool some = (f->jobs & JOB_COMMIT) || commit_some(f, queue_queued(f->c, f->ino));
        int64_t until = order_next(f);
        if (some) {
            queue_hurry(f->c, f->ino);
            if (f->jobs & JOB_COMMIT)
                cond_wait_until(&f->cv, &f->mu, until < deadline ? until : deadline);
        } else if (f->head && f->head->state == ABUF_ACKED && order_needed(f, f->head)) {
            cond_wait_until(&f->cv, &f->mu, until < deadline ? until : deadline);
        } else {
            drain_acked(f, target);
        }
    }
    return 0;
}
