/* Bytes written once more, of chunks that too few copies could sync (short_sync).
 *
 * The live bytes of such a chunk are read back from whatever copy still answers and written to a new one. Metad puts
 * those only where the file still shows the old chunk, since other clients may write meanwhile. Nothing is written
 * again where metad does not know enough copies yet (it has just started), or where no better place could be had just
 * now. */
#include "client/writeback/rewrite.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/extmap.h"
#include "base/log.h"
#include "base/lock.h"
#include "base/u64map.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/file/chunk_loc.h"
#include "client/file/committed_map.h"
#include "client/file/dirty.h"
#include "client/file/overlay.h"
#include "client/file/wchunk.h"
#include "client/internal.h"
#include "client/io/chunkds.h"
#include "client/io/layout.h"
#include "client/io/read.h"
#include "client/session/session.h"
#include "client/writeback/buffer.h"
#include "client/writeback/drain.h"
#include "client/writeback/sync.h"

#define LOG_MODULE "sync"
#define REWRITE_MAX (256u << 10)
#define FEW_NS NSEC_PER_SEC /* for so long metad may not have heard of all copies */

/* First stretch of the file from off on that still lives in wc beyond what was synced. */
static bool next_live(struct cfile *f, const struct wchunk *wc, uint64_t off, struct ext *out)
{
    while (extmap_find(&f->base, off, out)) {
        if (out->file_off < off) {
            uint32_t cut = (uint32_t)(off - out->file_off);
            out->file_off = off;
            out->chunk_off += cut;
            out->len -= cut;
        }
        if (out->chunk == wc->loc.chunk && out->chunk_off + out->len > wc->synced) {
            if (out->len > REWRITE_MAX)
                out->len = REWRITE_MAX;
            return true;
        }
        off = out->file_off + out->len;
    }
    return false;
}

/* Puts b's bytes where the file still shows exactly the stretch e of the committed map. */
static int put_back(struct cfile *f, const struct ext *e, const struct buf *b)
{
    uint64_t pos = e->file_off, end = e->file_off + b->len;
    int rc = 0;
    while (pos < end && !rc) {
        struct seg s;
        overlay_next(&f->over, &f->base, pos, end, &s);
        if (s.kind == SEG_COMMITTED && s.id == e->chunk &&
            s.at == e->chunk_off + (uint32_t)(pos - e->file_off)) {
            dirty_force(f->c, s.len); /* this has to go first */
            rc = buffer_put_moved(f, b->data + (pos - e->file_off), s.len, pos, e);
        }
        pos += s.len;
    }
    return rc;
}

static int rewrite_chunk(struct cfile *f, struct wchunk *wc, int64_t deadline)
{
    struct ext e;
    int rc = layout_need(f, UINT64_MAX, deadline);
    log_warn("inode %llu: too few copies of chunk %llx could be synced: writing its bytes again",
             (unsigned long long)f->ino, (unsigned long long)wc->loc.chunk);
    for (uint64_t off = 0; !rc && next_live(f, wc, off, &e); off = e.file_off + e.len) {
        struct buf *b = NULL;
        lock_release(&f->mu);
        rc = read_range(f, e.file_off, e.len, &b);
        lock_acquire(&f->mu);
        if (!rc)
            rc = put_back(f, &e, b);
        if (!rc) /* anew: it may be dropped meanwhile */
            rc = layout_need(f, UINT64_MAX, deadline);
        buf_unref(b);
    }
    if (!rc) {
        wc->synced =
            wc->acked; /* nothing of the file lives there any more once this is committed */
        wc->short_sync = false;
    }
    return rc;
}

/* Nothing of the file lives in wc any more, as the map says that was just asked for: others wrote over it or
 * cut it away, and with the last file that names it a chunk is gone. */
static bool nothing_left(struct cfile *f, const struct wchunk *wc)
{
    struct ext e;
    for (const struct abuf *a = f->head; a; a = a->next) {
        if (a->wc == wc)
            return false;
    }
    return !next_live(f, wc, 0, &e);
}

/* The map is asked for anew: metad may know more of where the copies of wc are, or that nobody needs
 * them. It gets no appends. */
static int relocate(struct cfile *f, struct wchunk *wc, int64_t deadline)
{
    map_drop(f);
    int rc = layout_need(f, UINT64_MAX, deadline);
    const struct cloc *l = rc ? NULL : u64map_get_ptr(&f->locs, wc->loc.chunk);
    if (l && l->len && l->n) {
        wc->loc = *l;
        wc->session = session_id(f->c);
    }
    if (!rc && nothing_left(f, wc))
        wc->synced = wc->safe = wc->acked;
    return rc;
}

int rewrite_relocate(struct cfile *f, uint64_t chunk, int64_t deadline)
{
    struct wchunk *wc = f->unsynced;
    while (wc && wc->loc.chunk != chunk)
        wc = wc->next_unsynced;
    if (!wc || !wc->failed)
        return 0;
    wc->refs++;
    int rc = relocate(f, wc, deadline);
    wchunk_unref(f->c, wc);
    return rc;
}

/* What to do about wc, of which too few copies could be synced. 1: ask again where it is now, 0: write its
 * bytes again, or a code: neither is possible just now. */
static int short_of(struct cfile *f, struct wchunk *wc, int64_t deadline)
{
    unsigned least = session_min_copies(f->c, wc->goal);
    if (chunkds_enough(f->c, wc->loc.chunkds, wc->loc.n, least))
        return chunkds_ready(f->c, least) ? 0 : -ERR_FEW_COPIES;
    if (!wc->few_since)
        wc->few_since = clock_mono();
    int rc = relocate(f, wc, deadline);
    if (rc)
        return rc;
    if (wc->synced >= wc->acked || chunkds_enough(f->c, wc->loc.chunkds, wc->loc.n, least)) {
        wc->few_since = 0;
        return 1;
    }
    bool soon = clock_mono() - wc->few_since < FEW_NS;
    return !soon && wc->loc.n && chunkds_ready(f->c, least) ? 0 : -ERR_FEW_COPIES;
}

int rewrite_short(struct cfile *f, int64_t deadline)
{
    for (;;) {
        struct wchunk *wc = f->unsynced;
        while (wc && !wc->short_sync)
            wc = wc->next_unsynced;
        if (!wc)
            return 0;
        wc->refs++;
        if (f->wcur == wc) {
            wchunk_unref(f->c, wc);
            f->wcur = NULL;
        }
        /* what else went to this chunk is in the map then */
        int rc = drain_below(f, f->next_abuf, deadline);
        rc = rc ? rc : short_of(f, wc, deadline);
        if (rc > 0) {
            wc->short_sync = false;
            rc = 0;
        } else if (!rc) {
            rc = rewrite_chunk(f, wc, deadline);
        }
        wchunk_unref(f->c, wc);
        sync_drop_done(f); /* the list changes: start over */
        if (rc)
            return rc;
    }
}
