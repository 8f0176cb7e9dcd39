/* Bytes that displace others are on a disk before metad hears of it.
 *
 * metad's log is durable at once, a chunkd's segments about a second later. A commit that puts new bytes
 * where the file has had others, a clone over them, or a rename over another file would let the old
 * ones go, and after a power cut in that second there would be neither. So such a change waits until at
 * least one copy of each new byte is on stable storage: of min_copies hosts if they answer soon, of
 * one when the others fail. What goes where nothing was (new files, appends) waits for no disk.
 *
 * Nor may bytes that are safe become unreadable because of others behind them in their page, which is read and
 * checked as a whole: what is appended in the page where the safe ones end (`seam`: as the file was opened,
 * or last synced) waits likewise.
 *
 * Commits: batch_take (flush.c) stops before a buffer of which order_needed says so, and order_begin has
 * the chunks synced in the background; the commit follows when that is known (sync.c calls back). No close
 * waits for it; whoever waits for the commit does. A file that was cut counts as having had bytes
 * there for as long as it stays open: cut and written anew, it is empty or whole afterwards.
 *
 * Renames and clones: the bytes concerned may be another client's, so the map is asked for, and every chunk in
 * it synced, which costs little where it was before.
 *
 * Failure modes: no copy can sync just now: asked again every RETRY_MS, while the old bytes stay. A
 * rename or clone fails with EIO at the time-out; a commit waits until the session is lost.
 *
 * Context: order_needed and order_begin any thread, the others any but a loop thread. */
#include "internal.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "base/crc32c.h"
#include "base/log.h"

#define LOG_MODULE "order"
#define RETRY_MS 200
#define NOREPLACE 1u /* of renameat2(2) */
#define EXCHANGE 2u
#define NAMED_TRIES 16 /* others rename the same names all the time */

/* ---- commits (mu held) ---- */

static uint64_t page_end(uint64_t off)
{
    return (off + CRC_BLOCK - 1) / CRC_BLOCK * CRC_BLOCK;
}

/* Has the file, or had it, other bytes where p goes? */
static bool displaces(const struct cfile *f, const struct piece *p)
{
    uint64_t end = p->file_off + p->len, size = f->attr.size;
    struct ext e;
    if (p->file_off < f->cut || (p->file_off >= size && p->file_off < page_end(f->seam)))
        return true;
    if (p->file_off >= size)
        return false;
    if (f->base_to < end && f->base_to < size) /* nobody knows */
        return true;
    for (uint64_t at = p->file_off; extmap_find(&f->base, at, &e) && e.file_off < end;
         at = e.file_off + e.len)
        if (e.chunk)
            return true;
    return false;
}

bool order_needed(const struct cfile *f, const struct abuf *a)
{
    if (a->wc->safe >= a->chunk_off + a->len)
        return false;
    if (a->over)
        return true;
    if (a->append) /* about there */
        return f->attr.size < page_end(f->seam);
    for (uint32_t i = 0; i < a->npieces; i++)
        if (displaces(f, &a->pieces[i]))
            return true;
    return false;
}

void order_begin(struct cfile *f)
{
    if (f->ordering || clock_mono() < f->order_at)
        return;
    sync_forget(sync_begin(f, false));
}

void order_ended(struct cfile *f, bool failed)
{
    f->ordering = false;
    f->order_at = failed ? clock_mono() + RETRY_MS * NSEC_PER_MSEC : 0;
    flush_eager(f);
}

int64_t order_next(const struct cfile *f)
{
    int64_t until = clock_mono() + NSEC_PER_SEC;
    return !f->ordering && f->order_at > clock_mono() && f->order_at < until ? f->order_at : until;
}

/* ---- files that take another's place ---- */

/* Everything that f shows is on a disk. mu held, dropped while waiting. */
static int order_file(struct cfile *f, int64_t deadline)
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
        cond_wait_until(&f->cv, &f->mu, clock_mono() + RETRY_MS * NSEC_PER_MSEC);
        rc = sync_relocate(f, wc->loc.chunk, deadline);
    }
    return rc;
}

int order_bytes(struct cfile *f)
{
    pthread_mutex_lock(&f->mu);
    int rc = order_file(f, client_deadline(f->c));
    pthread_mutex_unlock(&f->mu);
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
static int order_named(struct client *c, const Replfs__RenameOp *op)
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
    rc = rc ? rc : order_bytes(f);
    cfile_unref(f);
    return rc;
}

int order_rename(struct client *c, const Replfs__RenameOp *op)
{
    int rc = -ENOENT;
    for (int tries = 0; (rc == -ENOENT || rc == -ESTALE) && tries < NAMED_TRIES; tries++)
        rc = order_named(c, op);
    return rc;
}
