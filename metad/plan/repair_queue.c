/* The repair queue: one FIFO per urgency, and a binary heap by time for items that are not due yet.
 *
 * Items live in a slab and are named by index; `where` says which structure holds an item: a list
 * (LISTED, linked by prev/next) or the heap (HEAPED, at position pos). The map finds them by chunk.
 * Invariants: an item is in exactly one of the two; heap order by due; stat[] sums all items by
 * kind. */
#include "repair_queue.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

enum where { FREE, LISTED, HEAPED };

struct node {
    struct repair_queue_item it;
    enum where where;
    uint32_t prev, next; /* LISTED; next also links the free list */
    uint32_t pos;        /* HEAPED */
};
struct repair_queue {
    struct node *slab;
    uint32_t cap, free;
    struct u64map index;
    uint32_t head[REPAIR_PRIO_MAX], tail[REPAIR_PRIO_MAX];
    uint32_t *heap;
    uint32_t nheap, heap_cap;
    uint64_t stat_n[REPAIR_KINDS], stat_bytes[REPAIR_KINDS];
};

struct repair_queue *repair_queue_new(void)
{
    struct repair_queue *q = calloc(1, sizeof(*q));
    if (!q)
        abort();
    q->free = NONE;
    u64map_init(&q->index, U64MAP_U32);
    for (unsigned i = 0; i < REPAIR_PRIO_MAX; i++)
        q->head[i] = q->tail[i] = NONE;
    return q;
}

void repair_queue_free(struct repair_queue *q)
{
    if (!q)
        return;
    u64map_free(&q->index);
    free(q->slab);
    free(q->heap);
    free(q);
}

/* ---- heap ---- */

static void heap_set(struct repair_queue *q, uint32_t pos, uint32_t i)
{
    q->heap[pos] = i;
    q->slab[i].pos = pos;
}

static int64_t heap_due(const struct repair_queue *q, uint32_t pos)
{
    return q->slab[q->heap[pos]].it.due;
}

static void heap_up(struct repair_queue *q, uint32_t pos)
{
    uint32_t i = q->heap[pos];
    while (pos > 0 && heap_due(q, (pos - 1) / 2) > q->slab[i].it.due) {
        heap_set(q, pos, q->heap[(pos - 1) / 2]);
        pos = (pos - 1) / 2;
    }
    heap_set(q, pos, i);
}

static void heap_down(struct repair_queue *q, uint32_t pos)
{
    uint32_t i = q->heap[pos];
    for (;;) {
        uint32_t kid = 2 * pos + 1;
        if (kid >= q->nheap)
            break;
        if (kid + 1 < q->nheap && heap_due(q, kid + 1) < heap_due(q, kid))
            kid++;
        if (heap_due(q, kid) >= q->slab[i].it.due)
            break;
        heap_set(q, pos, q->heap[kid]);
        pos = kid;
    }
    heap_set(q, pos, i);
}

static void heap_add(struct repair_queue *q, uint32_t i)
{
    if (q->nheap == q->heap_cap) {
        q->heap_cap = q->heap_cap ? q->heap_cap * 2 : 64;
        q->heap = realloc(q->heap, q->heap_cap * sizeof(*q->heap));
        if (!q->heap)
            abort();
    }
    q->heap[q->nheap] = i;
    heap_up(q, q->nheap++);
    q->slab[i].where = HEAPED;
}

static void heap_del(struct repair_queue *q, uint32_t i)
{
    uint32_t pos = q->slab[i].pos, last = q->heap[--q->nheap];
    if (last == i)
        return;
    heap_set(q, pos, last);
    heap_up(q, pos);
    heap_down(q, q->slab[last].pos);
}

/* ---- lists ---- */

static void list_add(struct repair_queue *q, uint32_t i, bool front)
{
    struct node *n = &q->slab[i];
    unsigned p = n->it.prio;
    n->where = LISTED;
    n->prev = front ? NONE : q->tail[p];
    n->next = front ? q->head[p] : NONE;
    *(n->prev == NONE ? &q->head[p] : &q->slab[n->prev].next) = i;
    *(n->next == NONE ? &q->tail[p] : &q->slab[n->next].prev) = i;
}

static void list_del(struct repair_queue *q, uint32_t i)
{
    struct node *n = &q->slab[i];
    unsigned p = n->it.prio;
    *(n->prev == NONE ? &q->head[p] : &q->slab[n->prev].next) = n->next;
    *(n->next == NONE ? &q->tail[p] : &q->slab[n->next].prev) = n->prev;
}

/* ---- items ---- */

static uint32_t slab_take(struct repair_queue *q)
{
    if (q->free == NONE) {
        uint32_t old = q->cap;
        q->cap = old ? old * 2 : 64;
        q->slab = realloc(q->slab, q->cap * sizeof(*q->slab));
        if (!q->slab)
            abort();
        for (uint32_t i = q->cap; i-- > old;) {
            q->slab[i].where = FREE;
            q->slab[i].next = q->free;
            q->free = i;
        }
    }
    uint32_t i = q->free;
    q->free = q->slab[i].next;
    return i;
}

static void account(struct repair_queue *q, const struct repair_queue_item *it, int by)
{
    q->stat_n[it->kind] += (uint64_t)(int64_t)by;
    q->stat_bytes[it->kind] += (uint64_t)by * it->bytes;
}

static void detach(struct repair_queue *q, uint32_t i)
{
    struct node *n = &q->slab[i];
    assert(n->where != FREE);
    if (n->where == HEAPED)
        heap_del(q, i);
    else
        list_del(q, i);
    assert(q->stat_n[n->it.kind] > 0 && q->stat_bytes[n->it.kind] >= n->it.bytes);
    account(q, &n->it, -1);
}

static void attach(struct repair_queue *q, uint32_t i, bool front)
{
    struct node *n = &q->slab[i];
    assert(n->it.prio < REPAIR_PRIO_MAX && n->it.kind < REPAIR_KINDS);
    account(q, &n->it, 1);
    if (front)
        list_add(q, i, true);
    else
        heap_add(q, i); /* repair_queue_pop lists it once due */
}

static void discard(struct repair_queue *q, uint32_t i)
{
    u64map_del(&q->index, q->slab[i].it.chunk);
    q->slab[i].where = FREE;
    q->slab[i].next = q->free;
    q->free = i;
}

/* What stays of the one in the queue when a newer finding comes. One that asks for no delay (due
 * when it was found) changes nothing about when and in which order. */
static struct repair_queue_item repair_queue_merge(const struct repair_queue_item *old,
                                                   const struct repair_queue_item *it)
{
    struct repair_queue_item m = *it;
    m.since = old->since;
    m.due = it->due <= it->since || old->due > it->due ? old->due : it->due;
    m.fails = old->fails > it->fails ? old->fails : it->fails;
    if (old->proven_at > it->proven_at) {
        m.proven_at = old->proven_at;
        memcpy(m.proven, old->proven, sizeof(m.proven));
    }
    return m;
}

static void repair_queue_add(struct repair_queue *q, const struct repair_queue_item *it, bool front)
{
    uint32_t i = slab_take(q);
    u64map_put(&q->index, it->chunk, i);
    q->slab[i].it = *it;
    attach(q, i, front);
}

static void update(struct repair_queue *q, uint32_t i, const struct repair_queue_item *it)
{
    struct node *n = &q->slab[i];
    struct repair_queue_item m = repair_queue_merge(&n->it, it);
    if (n->where == LISTED && m.prio == n->it.prio && m.due == n->it.due) {
        account(q, &n->it, -1); /* keeps its place */
        n->it = m;
        account(q, &n->it, 1);
        return;
    }
    detach(q, i);
    n->it = m;
    attach(q, i, false);
}

void repair_queue_push(struct repair_queue *q, const struct repair_queue_item *it)
{
    uint64_t i;
    if (u64map_get(&q->index, it->chunk, &i))
        update(q, (uint32_t)i, it);
    else
        repair_queue_add(q, it, false);
}

void repair_queue_unpop(struct repair_queue *q, const struct repair_queue_item *it)
{
    uint64_t i;
    if (u64map_get(&q->index, it->chunk, &i))
        update(q, (uint32_t)i, it);
    else
        repair_queue_add(q, it, true);
}

bool repair_queue_pop(struct repair_queue *q, int64_t now, struct repair_queue_item *out)
{
    while (q->nheap && heap_due(q, 0) <= now) {
        uint32_t i = q->heap[0];
        heap_del(q, i);
        list_add(q, i, false);
    }
    for (unsigned p = 0; p < REPAIR_PRIO_MAX; p++) {
        uint32_t i = q->head[p];
        if (i == NONE)
            continue;
        *out = q->slab[i].it;
        detach(q, i);
        discard(q, i);
        return true;
    }
    return false;
}

bool repair_queue_remove(struct repair_queue *q, uint64_t chunk)
{
    struct repair_queue_item gone;
    return repair_queue_take(q, chunk, &gone);
}

bool repair_queue_take(struct repair_queue *q, uint64_t chunk, struct repair_queue_item *out)
{
    uint64_t i;
    if (!u64map_get(&q->index, chunk, &i))
        return false;
    *out = q->slab[i].it;
    detach(q, (uint32_t)i);
    discard(q, (uint32_t)i);
    return true;
}

bool repair_queue_has(const struct repair_queue *q, uint64_t chunk)
{
    return u64map_has(&q->index, chunk);
}

size_t repair_queue_count(const struct repair_queue *q)
{
    return q->index.n;
}

void repair_queue_stat(const struct repair_queue *q, enum repair_kind kind, uint64_t *n,
                       uint64_t *bytes)
{
    *n = q->stat_n[kind];
    *bytes = q->stat_bytes[kind];
}

int64_t repair_queue_backoff(unsigned fails)
{
    return 1000000000ll << (fails < 5 ? fails : 5);
}
