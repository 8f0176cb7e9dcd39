/* Ranges locked by one owner. Every change writes the whole array anew: owners hold a handful of
 * ranges, and with thousands a change still costs less than the message that asked for it. Pure. */
#include "lockset.h"

#include <assert.h>
#include <stdlib.h>

/* Appends to the array being written, joining what continues the last range. */
static void push(struct lockset *s, uint32_t type, uint64_t start, uint64_t end)
{
    struct lock_range *last = s->n > 0 ? &s->v[s->n - 1] : NULL;

    if (type == LOCKSET_NONE)
        return;
    if (last && last->type == type && last->end + 1 == start) {
        last->end = end;
        return;
    }
    assert(s->n < s->cap);
    s->v[s->n++] = (struct lock_range){start, end, type};
}

void lockset_set(struct lockset *s, uint32_t type, uint64_t start, uint64_t end)
{
    struct lockset out = {.cap = s->n + 2}; /* the new one, and one that it cuts in two */
    bool placed = false;

    assert(start <= end);
    out.v = malloc(out.cap * sizeof(*out.v));
    if (!out.v)
        abort();
    for (uint32_t i = 0; i < s->n; i++) {
        const struct lock_range *r = &s->v[i];
        if (r->start < start)
            push(&out, r->type, r->start, r->end < start ? r->end : start - 1);
        if (!placed && r->end >= start) {
            push(&out, type, start, end);
            placed = true;
        }
        if (r->end > end)
            push(&out, r->type, r->start > end ? r->start : end + 1, r->end);
    }
    if (!placed)
        push(&out, type, start, end);
    free(s->v);
    *s = out;
    if (s->n == 0)
        lockset_free(s);
}

/* The first range that does not end before `at`. */
static uint32_t lockset_find(const struct lockset *s, uint64_t at)
{
    uint32_t lo = 0, hi = s->n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->v[mid].end < at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const struct lock_range *lockset_conflict(const struct lockset *s, uint32_t type, uint64_t start,
                                          uint64_t end)
{
    if (type == LOCKSET_NONE)
        return NULL;
    for (uint32_t i = lockset_find(s, start); i < s->n && s->v[i].start <= end; i++)
        if (type == LOCKSET_WRITE || s->v[i].type == LOCKSET_WRITE)
            return &s->v[i];
    return NULL;
}

bool lockset_holds(const struct lockset *s, uint32_t type, uint64_t start, uint64_t end)
{
    uint32_t i = lockset_find(s, start);

    return i < s->n && s->v[i].type == type && s->v[i].start <= start && s->v[i].end >= end;
}

bool lockset_cuts(const struct lockset *s, uint64_t start, uint64_t end)
{
    uint32_t i = lockset_find(s, start);

    return i < s->n && s->v[i].start < start && s->v[i].end > end;
}

void lockset_free(struct lockset *s)
{
    free(s->v);
    *s = (struct lockset){0};
}
