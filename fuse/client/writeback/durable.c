/* Files that take another's place.
 *
 * A clone over bytes, or a rename over another file, waits until at least one copy of each new byte is on stable
 * storage (write_order.c says why). The bytes concerned may be another client's, so the map is asked for, and every
 * chunk in it synced, which costs little where it was before. A copy that cannot be synced just now is asked again
 * every ORDER_RETRY_MS, while the old bytes stay; EIO at the time-out. */
#include "client/writeback/durable.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/lock.h"
#include "client/base/client_clock.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/file_table.h"
#include "client/file/wchunk.h"
#include "client/internal.h"
#include "client/writeback/flush.h"
#include "client/writeback/rewrite.h"
#include "client/writeback/sync.h"
#include "client/writeback/write_order.h"

#define LOG_MODULE "order"
#define NAMED_TRIES 16 /* others rename the same names all the time */
#define NOREPLACE 1u   /* of renameat2(2) */
#define EXCHANGE 2u

/* Everything that f shows is on a disk. mu held, dropped while waiting. */
static int durable_file(struct cfile *f, int64_t deadline)
{
    int rc = sync_committed(f, deadline);
    while (!rc) {
        sync_wait(f, sync_begin(f, false), NULL);
        sync_drop_done(f);
        struct wchunk *wc = f->unsynced;
        while (wc && wc->safe >= wc->acked)
            wc = wc->next_unsynced;
        if (!wc)
            return 0;
        if (clock_mono() >= deadline) {
            log_error(
                "inode %llu: cannot take another file's place: no copy of its chunk %llx could be "
                "synced within %u ms",
                (unsigned long long)f->ino, (unsigned long long)wc->loc.chunk,
                f->c->cfg.timeout_ms);
            return -EIO;
        }
        cond_wait_until(&f->cv, &f->mu, clock_mono() + ORDER_RETRY_MS * NSEC_PER_MSEC);
        rc = rewrite_relocate(f, wc->loc.chunk, deadline);
    }
    return rc;
}

int durable_bytes(struct cfile *f)
{
    lock_acquire(&f->mu);
    int rc = durable_file(f, client_deadline(f->c));
    lock_release(&f->mu);
    return rc;
}

static bool lookup(struct client *c, uint64_t dir, const ProtobufCBinaryData *name, Replfs__Attr *a)
{
    char s[256];
    if (name->len >= sizeof(s))
        return false;
    memcpy(s, name->data, name->len);
    s[name->len] = '\0';
    return !client_lookup(c, dir, s, a) && S_ISREG(a->mode);
}

/* -ENOENT or -ESTALE: the file has lost its name to another meanwhile. */
static int durable_named(struct client *c, const Replfs__RenameOp *op)
{
    Replfs__Attr old = REPLFS__ATTR__INIT, a = REPLFS__ATTR__INIT;
    if (op->flags & (NOREPLACE | EXCHANGE) || !lookup(c, op->new_parent, &op->new_name, &old) ||
        !old.size || !lookup(c, op->parent, &op->name, &a) || a.ino == old.ino)
        return 0;
    struct cfile *f = cfile_get(c, a.ino);
    int rc = f ? flush_file(f, FLUSH_COMMIT, false) : 0;
    if (!f)
        f = cfile_new(c, a.ino);
    if (!f)
        return -ENOMEM;
    rc = rc ? rc : durable_bytes(f);
    cfile_unref(f);
    return rc;
}

int durable_rename(struct client *c, const Replfs__RenameOp *op)
{
    int rc = -ENOENT;
    for (int tries = 0; (rc == -ENOENT || rc == -ESTALE) && tries < NAMED_TRIES; tries++)
        rc = durable_named(c, op);
    return rc;
}
