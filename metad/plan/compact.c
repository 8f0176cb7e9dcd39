/* Planner of compaction: a chunk of which less than half is live is written anew.
 *
 * With every sealed chunk at least half live, a file's chunks take at most twice its size, and one that is just being
 * written comes on top. Fewer than COMPACT_DEAD_MIN dead bytes are left alone: a file so small costs less than what
 * moving it about would.
 *
 * A chunk may be sealed and sparse and still have to wait: for its writer to give it up, for repairs of its copies (what is
 * made anew has as many copies as there are whole ones), for a free place. `live` counts bytes that several extents name
 * once for each: a chunk with many clones looks livelier than it is, and is compacted late.
 *
 * Extents of the same chunk in several files, or twice in one, may overlap: ranges are joined before they get their
 * places, so that each live byte is written once. While they are collected they are joined whenever the table is full.
 * Failure modes: out of memory aborts. */
#include "compact.h"
#include <assert.h>
#include <stdlib.h>

enum compact_verdict compact_judge(const struct compact_chunk *c, const char **why)
{
    *why = NULL;
    if (c->live >= c->len / 2 || c->len - c->live < COMPACT_DEAD_MIN ||
        c->owners > COMPACT_OWNERS_MAX)
        return COMPACT_NOT;
    if (!c->sealed)
        *why = "still held by its writer";
    else if (c->busy)
        *why = "a repair is at work on it";
    else if (!c->copies || c->good < c->copies || c->good < c->need)
        *why = "not all of its copies are whole and in reach";
    return *why ? COMPACT_LATER : COMPACT_NOW;
}

bool compact_may_begin(unsigned running, uint64_t repairs, const char **why)
{
    *why = NULL;
    if (repairs)
        *why = "repairs go first";
    else if (running >= COMPACT_RUNNING_MAX)
        *why = "others are being compacted";
    return !*why;
}

static int by_off(const void *a, const void *b)
{
    const struct compact_range *x = a, *y = b;
    return x->off < y->off ? -1 : x->off > y->off;
}

static void join(struct compact_ranges *r)
{
    size_t n = 0;
    if (r->n)
        qsort(r->v, r->n, sizeof(*r->v), by_off);
    for (size_t i = 0; i < r->n; i++) {
        uint32_t end = r->v[i].off + r->v[i].len;
        struct compact_range *last = n ? &r->v[n - 1] : NULL;
        if (!last || r->v[i].off > last->off + last->len)
            r->v[n++] = r->v[i];
        else if (end > last->off + last->len)
            last->len = end - last->off;
    }
    r->n = n;
}

bool compact_ranges_add(struct compact_ranges *r, uint32_t off, uint32_t len)
{
    struct compact_range *last = r->n ? &r->v[r->n - 1] : NULL;

    assert(len && off <= UINT32_MAX - len);
    if (last && last->off + last->len == off) {
        last->len += len;
        return true;
    }
    if (r->n == 2 * COMPACT_RANGES_MAX) {
        join(r);
        if (r->n > COMPACT_RANGES_MAX)
            return false;
    }
    if (r->n == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 64;
        r->v = realloc(r->v, r->cap * sizeof(*r->v));
        if (!r->v)
            abort();
    }
    r->v[r->n++] = (struct compact_range){.off = off, .len = len};
    return true;
}

bool compact_ranges_finish(struct compact_ranges *r)
{
    join(r);
    r->total = 0;
    for (size_t i = 0; i < r->n; i++) {
        r->v[i].to = r->total;
        r->total += r->v[i].len;
    }
    return r->n <= COMPACT_RANGES_MAX;
}

bool compact_ranges_find(const struct compact_ranges *r, uint32_t off, uint32_t len, uint32_t *to)
{
    size_t lo = 0, hi = r->n; /* the last range that begins at off or before is below hi */

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (r->v[mid].off <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (!lo)
        return false;
    const struct compact_range *x = &r->v[lo - 1];
    if (off - x->off >= x->len || len > x->len - (off - x->off))
        return false;
    *to = x->to + (off - x->off);
    return true;
}

void compact_ranges_free(struct compact_ranges *r)
{
    free(r->v);
    *r = (struct compact_ranges){0};
}
