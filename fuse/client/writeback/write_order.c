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
 * Commits: batch_take (commit.c) stops before a buffer of which order_needed says so, and order_begin has
 * the chunks synced in the background; the commit follows when that is known (sync.c calls back). No close
 * waits for it; a caller that waits for the commit does. A file that was cut counts as having had bytes
 * there for as long as it stays open: cut and written anew, it is empty or whole afterwards.
 *
 * Renames and clones are made to wait in durable.c.
 *
 * Failure modes: no copy can sync just now: the flusher asks again (order_next says when), while the old bytes stay,
 * and the commit waits until the session is lost.
 *
 * Context: any thread; the file's mu is held. */
#include "client/writeback/write_order.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/extmap.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/writeback/sync.h"

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
    if ((f->jobs & JOB_ORDER) || clock_mono() < f->order_at)
        return;
    sync_forget(sync_begin(f, false));
}

int64_t order_next(const struct cfile *f)
{
    int64_t until = clock_mono() + NSEC_PER_SEC;
    return !(f->jobs & JOB_ORDER) && f->order_at > clock_mono() && f->order_at < until ? f->order_at
                                                                                       : until;
}
