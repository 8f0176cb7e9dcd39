/* Reference-counted byte buffers: how payload travels from socket to disk and back without a copy.
 * The memory is page-aligned and pooled by size, since fresh pages are expensive. Any thread. */
#ifndef REPLFS_BASE_BUF_H
#define REPLFS_BASE_BUF_H
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* first valid byte */
    size_t len;    /* valid bytes */
    size_t cap;    /* bytes allocated */
    unsigned refs; /* use buf_ref / buf_unref only */
    void *pool;    /* private */
};

/* One reference, len = 0, cap >= size. Aborts when memory is exhausted (no caller can go on). */
struct buf *buf_new(size_t size);
struct buf *buf_ref(struct buf *b); /* NULL stays NULL */
void buf_unref(struct buf *b);      /* NULL is fine */
void buf_unrefp(struct buf **b);    /* for cleanup attribute */
#endif
