/* Sorted array of a chunk's pieces. Nearly every insertion is at the end (chunks are append-only);
 * the general case happens in recovery and compaction, where a later record for the same range
 * replaces an earlier one. Gaps can exist behind damage: len then ends before the first. */
#include "extents.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "record.h"

uint64_t ext_record_size(const struct ext *e)
{
    struct record r = {.header_len = record_header_len(e->len), .len = e->len};
    return record_size(&r);
}

static uint32_t ext_end(const struct ext *e)
{
    return e->off + e->len; /* fits: record_decode checks, and so does append */
}

static void extents_reserve(struct extents *x, uint32_t n)
{
    if (n <= x->cap)
        return;
    uint32_t cap = x->cap ? x->cap * 2 : 2;
    if (cap < n)
        cap = n;
    struct ext *v = realloc(x->v, cap * sizeof(*v));
    if (!v)
        abort(); /* as buf_new(): no caller can go on without an index */
    x->v = v;
    x->cap = cap;
}

uint32_t extents_find(const struct extents *x, uint32_t off)
{
    uint32_t lo = 0, hi = x->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (ext_end(&x->v[mid]) <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void measure(struct extents *x)
{
    x->len = 0;
    for (uint32_t i = 0; i < x->n && x->v[i].off == x->len; i++)
        x->len = ext_end(&x->v[i]);
}

void extents_push(struct extents *x, const struct ext *e)
{
    assert(!x->n || ext_end(&x->v[x->n - 1]) <= e->off);
    extents_reserve(x, x->n + 1);
    if (e->off == x->len)
        x->len = ext_end(e);
    x->v[x->n++] = *e;
}

long extents_put(struct extents *x, const struct ext *e, extents_fn *fn, void *arg)
{
    uint32_t i = x->n && ext_end(&x->v[x->n - 1]) > e->off ? extents_find(x, e->off) : x->n;
    if (i < x->n && !memcmp(&x->v[i], e, sizeof(*e)))
        return -1;
    if (fn)
        fn(arg, e, true);
    if (i == x->n) {
        extents_push(x, e);
        return i;
    }
    uint32_t j = i;
    for (; j < x->n && x->v[j].off < ext_end(e); j++)
        if (fn)
            fn(arg, &x->v[j], false);
    extents_reserve(x, x->n + 1);
    memmove(x->v + i + 1, x->v + j, (x->n - j) * sizeof(*x->v));
    x->n = x->n - (j - i) + 1;
    x->v[i] = *e;
    measure(x);
    return i;
}

void extents_clear(struct extents *x, extents_fn *fn, void *arg)
{
    if (fn)
        for (uint32_t i = 0; i < x->n; i++)
            fn(arg, &x->v[i], false);
    free(x->v);
    *x = (struct extents){0};
}
