/* Dirty bytes are those in append buffers: counted when written, given back when every copy has acknowledged them or
 * they are given up. Writers wait, without locks, while the sum is at its limit; the flusher is told to seal
 * everything then. Failure mode: nothing moves for the mount's time-out: -EIO. */
#include "client/file/dirty.h"
#include <assert.h>
#include <errno.h>
#include "base/log.h"
#include "base/error.h"
#include "base/lock.h"
#include "client/base/client_clock.h"
#include "client/file/cfile.h"
#include "client/internal.h"

#define LOG_MODULE "write"

void dirty_give(struct client *c, uint64_t bytes)
{
    if (!bytes)
        return;
    lock_acquire(&c->dirty.mu);
    assert(c->dirty.bytes >= bytes);
    c->dirty.bytes -= bytes;
    cond_broadcast(&c->dirty.cv);
    lock_release(&c->dirty.mu);
}

int dirty_wait_room(struct cfile *f, size_t len)
{
    struct client *c = f->c;
    int64_t deadline = client_deadline(c);
    uint64_t seen = 0;
    int rc = 0;
    lock_acquire(&c->dirty.mu);
    while (c->dirty.bytes && c->dirty.bytes + len > c->cfg.dirty_max) {
        if (c->dirty.bytes != seen) { /* something moves: patience starts anew */
            seen = c->dirty.bytes;
            deadline = client_deadline(c);
        }
        lock_release(&c->dirty.mu);
        dirty_kick(c);
        lock_acquire(&c->dirty.mu);
        if (c->dirty.bytes + len <= c->cfg.dirty_max)
            break;
        rc = cond_wait_until(&c->dirty.cv, &c->dirty.mu, deadline) ? 0 : -ERR_TIMEOUT;
        if (rc)
            break;
    }
    if (!rc)
        c->dirty.bytes += len;
    lock_release(&c->dirty.mu);
    if (rc)
        log_error("inode %llu: no room for writing within %u ms: the chunkds do not take data",
                  (unsigned long long)f->ino, c->cfg.timeout_ms);
    return rc ? -EIO : 0;
}

void dirty_force(struct client *c, uint64_t len)
{
    lock_acquire(&c->dirty.mu);
    c->dirty.bytes += len;
    lock_release(&c->dirty.mu);
}

void dirty_kick(struct client *c)
{
    lock_acquire(&c->files.mu);
    c->files.flush_now = true;
    cond_signal(&c->files.flush_cv);
    lock_release(&c->files.mu);
}
