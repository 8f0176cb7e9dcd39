/* write(2): room, a lease, a look at the quota, and then the bytes go into append buffers (buffer.c). The writer
 * waits for more than that only where others are at the file all the time (`through`), or with O_APPEND
 * (append.c). */
#include "client/writeback/write.h"
#include <errno.h>
#include "client/base/client_clock.h"
#include "client/base/limits.h"
#include "client/cache/lease_cache.h"
#include "client/cache/lease_table.h"
#include "client/client.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/file/dirty.h"
#include "client/internal.h"
#include "client/names/lease.h"
#include "client/queue/queue.h"
#include "client/writeback/append.h"
#include "client/writeback/buffer.h"
#include "client/writeback/drain.h"
#include "client/writeback/flush.h"
#include "client/writeback/quota.h"
#include "client/writeback/quota_admit.h"
#include "client/writeback/send.h"
#include "base/lock.h"

#define LEASE_TRIES 3 /* others may be quicker; then nothing is kept back */

/* Bytes may be kept back only under an exclusive lease: others could not see them otherwise. mu
 * held, dropped while metad is asked. Sets f->through when it is not to be had, and while a writer still waits that
 * did not have it: nobody sees what is in its list. */
static int write_lease(struct cfile *f)
{
    struct lease_cache *l = f->c->leases;
    f->through = false;
    if (!lease_cache_term(l)) /* a metad without leases */
        return 0;
    for (int tries = 0; !lease_cache_exclusive(l, f->ino); tries++) {
        f->through = tries == LEASE_TRIES;
        if (f->through)
            return 0;
        lock_release(&f->mu);
        int rc = lease_ask(f);
        lock_acquire(&f->mu);
        if (rc)
            return rc;
    }
    f->through = f->hidden > 0;
    return 0;
}

/* Where it goes and whether it may. mu held, dropped when metad must be asked. */
static int write_begin(struct cfile *f, size_t len, off_t *off, bool append)
{
    bool asked = false;
    for (int rc = 1;;) {
        int err = cfile_take_err(f);
        if (err || rc <= 0)
            return err ? err : rc;
        rc = write_lease(f);
        if (!rc && f->through && f->hidden == 0 && f->head) { /* kept under a lease that is gone */
            abuf_seal(f);
            rc = drain_below(f, f->next_abuf, client_deadline(f->c));
            if (!rc) {
                rc = 1;
                continue;
            }
        }
        if (rc)
            return rc;
        if (append)
            *off = (off_t)cfile_size(f);
        rc = quota_applies(f) ? quota_admit(f, (uint64_t)*off, len, &asked) : 0;
    }
}

static int write_some(struct cfile *f, const uint8_t *data, size_t len, off_t *off, unsigned flags)
{
    bool append = flags & CFILE_APPEND;
    int rc = dirty_wait_room(f, len);
    lock_acquire(&f->mu);
    if (rc) {
        int err = cfile_take_err(f);
        rc = err ? err : rc;
    } else {
        rc = write_begin(f, len, off, append);
        if (rc)
            dirty_give(f->c, len);
    }
    if (rc) {
        lock_release(&f->mu);
        return rc;
    }
    f->dirty_mtime = client_now(f->c);
    queue_wrote(f->c, f->ino);
    f->kill_suid |= (flags & CFILE_KILL_SUID) != 0; /* until nothing is left to commit */
    if (append && append_waits(f)) {
        uint64_t at = 0;
        rc = append_put(f, data, len, &at);
        if (rc)
            cfile_take_err(f); /* the same one */
        else
            *off = (off_t)at;
    } else {
        bool through = f->through;
        f->hidden += through;
        rc = buffer_put(f, data, len, (uint64_t)*off);
        if (!rc && through) { /* others look at it all the time */
            abuf_seal(f);
            int late = drain_below(f, f->next_abuf, client_deadline(f->c));
            rc = cfile_take_err(f);
            rc = rc ? rc : late;
        }
        f->hidden -= through;
    }
    send_pump(f);
    lock_release(&f->mu);
    return rc;
}

int cfile_write(struct cfile *f, const void *data, size_t len, off_t *off, unsigned flags)
{
    const uint8_t *p = data;
    if (*off < 0 || len > (uint64_t)INT64_MAX - (uint64_t)*off)
        return -EFBIG;
    off_t pos = *off;
    for (size_t done = 0; done < len;) {
        size_t part = len - done < APPEND_MAX ? len - done : APPEND_MAX;
        int rc = write_some(f, p + done, part, &pos, flags);
        if (rc)
            return rc;
        if (!done)
            *off = pos;
        done += part;
        pos += (off_t)part;
    }
    return f->c->cfg.sync_all ? flush_file(f, FLUSH_SYNC, true) : 0;
}
