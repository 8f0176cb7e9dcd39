/* A binary heap of pointers; each timer knows its place, so that clearing one needs no search. */
#include "rpc/timers.h"

#include <assert.h>
#include <stdlib.h>

static bool earlier(const struct timer *a, const struct timer *b)
{
    return a->when != b->when ? a->when < b->when : a->seq < b->seq;
}

static void timers_put(struct timers *h, size_t i, struct timer *t)
{
    h->heap[i] = t;
    t->at = i + 1;
}

/* Moves t, which belongs at i or elsewhere, to a place that keeps the heap. */
static void settle(struct timers *h, size_t i, struct timer *t)
{
    while (i > 0 && earlier(t, h->heap[(i - 1) / 2])) {
        timers_put(h, i, h->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        size_t kid = 2 * i + 1;
        if (kid + 1 < h->n && earlier(h->heap[kid + 1], h->heap[kid]))
            kid++;
        if (kid >= h->n || !earlier(h->heap[kid], t))
            break;
        timers_put(h, i, h->heap[kid]);
        i = kid;
    }
    timers_put(h, i, t);
}

void timers_set(struct timers *h, struct timer *t, int64_t when)
{
    size_t i = t->at;

    t->when = when;
    t->seq = ++h->seq;
    if (i == 0) {
        if (h->n == h->cap) {
            size_t cap = h->cap ? h->cap * 2 : 16;
            struct timer **heap = realloc(h->heap, cap * sizeof(struct timer *));
            if (!heap)
                abort();
            h->heap = heap;
            h->cap = cap;
        }
        i = ++h->n;
    }
    assert(i <= h->n);
    settle(h, i - 1, t);
}

void timers_clear(struct timers *h, struct timer *t)
{
    if (t->at == 0)
        return;
    size_t i = t->at - 1;
    assert(i < h->n && h->heap[i] == t);
    t->at = 0;
    struct timer *last = h->heap[--h->n];
    if (last != t)
        settle(h, i, last);
}

void timers_free(struct timers *h)
{
    free(h->heap);
    h->heap = NULL;
    h->n = h->cap = 0;
}
