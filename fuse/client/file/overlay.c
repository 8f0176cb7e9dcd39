/* Pure: the bytes of a file that metad does not know yet, laid over those it does.
 *
 * The overlay is an extmap whose "chunks" are ids of append buffers: it is changed when bytes
 * are written and when a buffer's extents were committed or given up, not when a buffer is sent,
 * acknowledged or sent again; where the buffer's bytes are is the buffer's business. A byte
 * found in the overlay is newer than the committed map's. Two buffers never claim the same byte:
 * the later write cuts the earlier's stretch. The pieces of a buffer keep what was cut, too: a
 * commit sends all pieces in the order of writing, and metad's map ends up with the newest. No
 * locks, no I/O. */
#include "client/file/overlay.h"
#include <assert.h>
#include <stdlib.h>
#include "base/extmap.h"
#include "client/file/abuf.h"

void overlay_next(const struct extmap *over, const struct extmap *base, uint64_t off, uint64_t end,
                  struct seg *out)
{
    assert(off < end);
    struct ext e;
    const struct extmap *maps[2] = {over, base};
    *out = (struct seg){.kind = SEG_HOLE, .off = off, .len = end - off};
    for (int i = 0; i < 2; i++) {
        if (!extmap_find(maps[i], off, &e) || e.file_off >= off + out->len)
            continue;
        if (e.file_off > off) { /* something begins later: this segment ends there */
            out->len = e.file_off - off;
            continue;
        }
        uint64_t left = e.file_off + e.len - off;
        out->kind = !i ? SEG_BUFFER : e.chunk ? SEG_COMMITTED : SEG_RESERVED;
        out->len = left < out->len ? left : out->len;
        out->id = e.chunk;
        out->at = e.chunk ? e.chunk_off + (uint32_t)(off - e.file_off) : 0;
        return;
    }
}

int overlay_drop(struct extmap *over, const struct abuf *a)
{
    for (uint32_t i = 0; i < a->npieces; i++) {
        uint64_t pos = a->pieces[i].file_off, end = pos + a->pieces[i].len;
        struct ext e;
        while (pos < end && extmap_find(over, pos, &e) && e.file_off < end) {
            uint64_t from = e.file_off > pos ? e.file_off : pos;
            uint64_t to = e.file_off + e.len < end ? e.file_off + e.len : end;
            if (e.chunk == a->id) {
                int rc = extmap_remove(over, from, to - from, NULL, NULL);
                if (rc)
                    return rc;
            }
            pos = to;
        }
    }
    return 0;
}

bool overlay_inside(const struct extmap *over, uint64_t off, uint32_t len, uint64_t id,
                    uint32_t *at)
{
    struct ext e;
    if (!extmap_find(over, off, &e) || e.chunk != id || e.file_off > off ||
        e.file_off + e.len < off + len)
        return false;
    *at = e.chunk_off + (uint32_t)(off - e.file_off);
    return true;
}

struct ext *overlay_extents(struct abuf *const *bufs, size_t n, const uint64_t *chunks, size_t max,
                            size_t *nout, size_t *used)
{
    assert(n);
    size_t total = 0, count = 0;
    for (*used = 0; *used < n; (*used)++) {
        if (*used && total + bufs[*used]->npieces > max)
            break;
        total += bufs[*used]->npieces;
    }
    struct ext *out = calloc(total ? total : 1, sizeof(*out));
    if (!out)
        return NULL;
    for (size_t b = 0; b < *used; b++) {
        for (uint32_t i = 0; i < bufs[b]->npieces; i++) {
            const struct piece *p = &bufs[b]->pieces[i];
            uint32_t at = bufs[b]->chunk_off + p->buf_off;
            struct ext *last = count ? &out[count - 1] : NULL;
            if (last && last->chunk == chunks[b] && last->file_off + last->len == p->file_off &&
                last->chunk_off + last->len == at)
                last->len += p->len;
            else
                out[count++] = (struct ext){p->file_off, chunks[b], at, p->len};
        }
    }
    *nout = count;
    return out;
}
