/* Append buffers. A file has a list of them, in the order of writing; at most the last is being filled.
 *
 *   state        buf   wc    counted in            leaves it when
 *   FILLING      yes   no    dirty.bytes           full, flushed, old, or the next write goes elsewhere
 *   QUEUED       yes   no    dirty.bytes           a chunk and connections are there (send.c)
 *   SENT         yes   yes   dirty.bytes, inflight all copies have it -> ACKED; its chunk failed -> QUEUED
 *   ACKED        no    yes   uncommitted           a commit takes it (commit.c)
 *   COMMITTING   no    yes   uncommitted           metad has its extents, or refused them: it is freed
 *
 * One in a state before ACKED may be given up: it is freed, and its bytes are lost. Buffers grow from small to 1 MiB,
 * since most files are small. */
#include "client/file/abuf.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/u64map.h"
#include "client/base/limits.h"
#include "client/file/cfile.h"
#include "client/file/dirty.h"
#include "client/file/wchunk.h"
#include "client/internal.h"

#define BUF_MIN 4096u

int abuf_add_piece(struct abuf *a, uint64_t file_off, uint32_t len)
{
    assert(len && a->len + len <= a->limit);
    struct piece *last = a->npieces ? &a->pieces[a->npieces - 1] : NULL;
    if (last && last->file_off + last->len == file_off) {
        last->len += len;
    } else {
        if (a->npieces == a->cap_pieces) {
            uint32_t cap = a->cap_pieces ? a->cap_pieces * 2 : 4;
            struct piece *p = realloc(a->pieces, cap * sizeof(*p));
            if (!p)
                return -ENOMEM;
            a->pieces = p;
            a->cap_pieces = cap;
        }
        a->pieces[a->npieces++] = (struct piece){file_off, len, a->len};
    }
    a->len += len;
    return 0;
}

uint32_t abuf_limit(uint64_t file_off)
{
    return APPEND_MAX - (uint32_t)(file_off % CRC_BLOCK);
}

void abuf_drop_buf(struct cfile *f, struct abuf *a)
{
    if (!a->buf)
        return;
    buf_unref(a->buf);
    a->buf = NULL;
    dirty_give(f->c, a->len);
}

void abuf_free(struct cfile *f, struct abuf *a)
{
    u64map_del_ptr(&f->abufs, a->id);
    abuf_drop_buf(f, a);
    abuf_answer(a, -EIO, 0); /* unless somebody knew better */
    f->growing -= a->grows;
    wchunk_unref(f->c, a->wc);
    free(a->pieces);
    free(a);
}

struct abuf *abuf_new(struct cfile *f, uint64_t off, size_t len)
{
    struct abuf *a = calloc(1, sizeof(*a));
    if (!a)
        return NULL;
    a->id = f->next_abuf++;
    a->limit = abuf_limit(off);
    size_t size = f->streaming || len >= APPEND_MAX / 4 ? a->limit : len;
    a->buf = buf_new(size < BUF_MIN ? BUF_MIN : size);
    a->born = clock_mono();
    a->life = atomic_load(&f->c->life);
    u64map_put_ptr(&f->abufs, a->id, a);
    *(f->tail ? &f->tail->next : &f->head) = a;
    f->tail = a;
    return a;
}

void abuf_forget(struct cfile *f, struct abuf *a)
{
    struct abuf **link = &f->head, *before = NULL;
    for (; *link != a; link = &before->next)
        before = *link;
    *link = NULL;
    f->tail = before;
    abuf_free(f, a);
}

void abuf_grow(struct abuf *a, size_t need)
{
    size_t size = a->buf->cap * 4;
    if (size < need)
        size = need;
    struct buf *b = buf_new(size < a->limit ? size : a->limit);
    memcpy(b->data, a->buf->data, a->len);
    buf_unref(a->buf);
    a->buf = b;
}

void abuf_seal(struct cfile *f)
{
    struct abuf *a = f->tail;
    if (!a || a->state != ABUF_FILLING || !a->len)
        return;
    bool waiting = false;
    for (struct abuf *q = f->head; q && !waiting; q = q->next)
        waiting = q->state == ABUF_QUEUED || q->state == ABUF_SENT;
    if (!waiting)
        f->progress = clock_mono();
    f->streaming = a->len == a->limit;
    a->state = ABUF_QUEUED;
    a->buf->len = a->len;
}

void abuf_answer(struct abuf *a, int rc, uint64_t off)
{
    if (!a->append || !a->wait)
        return;
    *a->wait = (struct append_wait){true, rc, off};
    a->wait = NULL;
}

uint64_t abuf_place(struct abuf *const *bufs, size_t n)
{
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        bufs[i]->pieces[0].file_off = at;
        at += bufs[i]->len;
    }
    return at;
}
