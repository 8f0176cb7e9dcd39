/* The sync thread: makes what was written durable.
 *
 * It owns no data, only promises: operations that wait for an fdatasync queue here after their
 * bytes were written. One round takes all that wait, syncs every segment written since (nearly
 * always one), and completes them; those that arrive meanwhile share the next round. Without anyone
 * waiting, a round runs when dirty data is a second old or has grown large. Idle, the thread sleeps
 * without a timer.
 *
 * A failed fdatasync is final (the kernel may have dropped the dirty pages): everyone waiting gets
 * -EIO and the store is failed. */
#include "store_internal.h"
#include <errno.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"

void store_sync_wrote(struct store *s, uint64_t bytes)
{
    lock_acquire(&s->sync_lock);
    bool clean = s->written == s->synced;
    if (clean)
        s->dirty_since = clock_mono();
    bool large = s->written - s->synced < STORE_SYNC_BYTES &&
                 s->written + bytes - s->synced >= STORE_SYNC_BYTES;
    s->written += bytes;
    if (clean || large)
        cond_signal(&s->sync_cond);
    lock_release(&s->sync_lock);
}

void store_sync_hand(struct store *s, struct op *op)
{
    lock_acquire(&s->sync_lock);
    bool was_empty = !s->sync_queue.head;
    op_queue_push(&s->sync_queue, op);
    if (was_empty)
        cond_signal(&s->sync_cond);
    lock_release(&s->sync_lock);
}

void store_sync_end(struct store *s)
{
    lock_acquire(&s->sync_lock);
    s->sync_stop = true;
    cond_signal(&s->sync_cond);
    lock_release(&s->sync_lock);
}

/* Only a segment of a former process can be closed before it is synced; a lack of descriptors passes. */
static int hold_patiently(struct segment *sg)
{
    int fd;
    for (int i = 0; segment_no_fd(fd = segment_hold(sg)) && i < 200; i++)
        nanosleep(&(struct timespec){.tv_nsec = 50 * NSEC_PER_MSEC}, NULL);
    return fd;
}

static int sync_segments(struct store *s)
{
    struct segment *last = segments_last(&s->segs);
    if (!last)
        return 0;
    if (atomic_exchange(&s->segs.dir_unsynced, false) && fsync(s->segs.dirfd)) {
        int code = -errno;
        store_fail(s, "fsync", "the directory", code);
        return -EIO;
    }
    for (uint64_t id = s->sync_from; id <= last->id; id++) {
        struct segment *sg = segments_find(&s->segs, id);
        if (!sg || !atomic_exchange(&sg->unsynced, false))
            continue;
        int fd = hold_patiently(sg);
        int code = fd < 0 ? fd : fdatasync(fd) ? -errno : 0;
        s->fsyncs++;
        if (fd >= 0)
            segment_drop(sg);
        if (code) {
            store_fail(s, "fdatasync", sg->name, code);
            return -EIO;
        }
    }
    s->sync_from = last->id;
    return 0;
}

/* Waits for work. Returns false when the thread should end. Called and returns with the lock held.
 */
static bool wait_for_work(struct store *s)
{
    for (;;) {
        uint64_t dirty = s->written - s->synced;
        if (s->sync_queue.head || s->sync_stop)
            return s->sync_queue.head || dirty;
        if (!dirty || s->failed) {
            cond_wait(&s->sync_cond, &s->sync_lock);
            continue;
        }
        int64_t at = s->dirty_since + STORE_SYNC_NSEC;
        if (dirty >= STORE_SYNC_BYTES || clock_mono() >= at)
            return true;
        cond_sleep_until(&s->sync_cond, &s->sync_lock, at);
    }
}

void *store_sync_main(void *arg)
{
    struct store *s = arg;
    lock_acquire(&s->sync_lock);
    while (wait_for_work(s)) {
        struct op_queue mine = s->sync_queue;
        if (mine.head)
            op_queue_init(&s->sync_queue);
        uint64_t target = s->written;
        int64_t now = clock_mono();
        lock_release(&s->sync_lock);

        unsigned g = grace_enter(&s->grace);
        int rc = s->failed ? -EIO : sync_segments(s);
        grace_leave(&s->grace, g);

        lock_acquire(&s->sync_lock);
        bool fresh = s->synced != target;
        s->synced = target;
        s->dirty_since = now; /* what came meanwhile is younger */
        lock_release(&s->sync_lock);
        if (fresh)
            store_maint_note(s);
        while (mine.head)
            op_complete(op_queue_pop(&mine), rc);
        lock_acquire(&s->sync_lock);
    }
    lock_release(&s->sync_lock);
    return NULL;
}
