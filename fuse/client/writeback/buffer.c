/* Bytes into append buffers.
 *
 * A file has at most one buffer being filled, the last of its list. Bytes that continue it, and
 * small writes elsewhere in the file, are appended to it; a rewrite of bytes still in it happens
 * in place. It is sealed when full, when it is flushed, when the next write would not fit whole
 * (buffers are committed one by one: another client's write between two halves would tear it), and
 * when a large write begins somewhere else, so that large data stays aligned to CRC blocks and can
 * be read back without amplification. */
#include "client/writeback/buffer.h"
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "base/extmap.h"
#include "client/base/limits.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/file/dirty.h"
#include "client/file/file_check.h"
#include "client/file/file_table.h"
#include "client/file/overlay.h"
#include "client/internal.h"
#include "client/writeback/quota.h"

#define LARGE_WRITE (64u << 10)
#define PIECES_MAX (COMMIT_EXTENTS_MAX / 4) /* of one buffer: a commit takes whole buffers */

/* The buffer that takes the next bytes at off. */
static struct abuf *abuf_for(struct cfile *f, uint64_t off, size_t len)
{
    struct abuf *a = f->tail;
    if (a && a->state == ABUF_FILLING && a->npieces) {
        const struct piece *p = &a->pieces[a->npieces - 1];
        bool continues = p->file_off + p->len == off;
        bool fits = len <= a->limit - a->len || len > abuf_limit(off);
        if (a->len < a->limit && fits &&
            (continues || (len < LARGE_WRITE && a->npieces < PIECES_MAX)))
            return a;
        abuf_seal(f);
        f->streaming = continues;
    }
    return abuf_new(f, off, len);
}

int buffer_put(struct cfile *f, const uint8_t *data, size_t len, uint64_t off)
{
    uint32_t at;
    struct abuf *a = f->tail;
    if (a && a->state == ABUF_FILLING && len <= APPEND_MAX &&
        overlay_inside(&f->over, off, (uint32_t)len, a->id, &at)) {
        memcpy(a->buf->data + at, data, len);
        dirty_give(f->c, len);
        return 0;
    }
    while (len) {
        a = abuf_for(f, off, len);
        if (!a)
            break;
        uint32_t room = a->limit - a->len, part = len < room ? (uint32_t)len : room;
        if (a->len + part > a->buf->cap)
            abuf_grow(a, a->len + part);
        struct ext e = {off, a->id, a->len, part};
        uint64_t grows = quota_applies(f) ? quota_grows(f, off, part) : 0;
        a->grows += grows;
        f->growing += grows;
        memcpy(a->buf->data + a->len, data, part);
        if (extmap_insert(&f->over, &e, NULL, NULL, NULL) || abuf_add_piece(a, off, part))
            break;
        data += part;
        off += part;
        len -= part;
        if (off > f->dirty_end)
            f->dirty_end = off;
        if (a->len == a->limit)
            abuf_seal(f);
    }
    dirty_give(f->c, len); /* what could not be taken */
    cfile_mark_dirty(f);
    file_check(f);
    return len ? -ENOMEM : 0;
}

int buffer_put_moved(struct cfile *f, const uint8_t *data, size_t len, uint64_t off,
                     const struct ext *e)
{
    uint64_t end = f->dirty_end;
    assert(len <= abuf_limit(off));
    abuf_seal(f);
    int rc = buffer_put(f, data, len, off);
    f->dirty_end = end; /* it does not make the file longer, should somebody have cut it */
    if (rc)
        return rc;
    f->tail->over = e->chunk;
    f->tail->over_shift = (int64_t)((uint64_t)e->chunk_off - e->file_off);
    abuf_seal(f);
    return 0;
}
