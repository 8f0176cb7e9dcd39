/* Slabs and the arena behind the state machine's 32-bit handles.
 *
 * A slab is a growing list of segments of 16384 objects. Handles are positions; slot 0 is never
 * given out. Fresh segments come zeroed from calloc, so untouched pages cost nothing; slots are
 * recycled last in, first out, which keeps the order deterministic (not that anything may depend on
 * it).
 *
 * The arena gives out pieces of 4-byte units from 1 MiB segments and keeps a free list per size.
 * The tail of a segment too short for a request is put on the free list of its size. Up to 2^32
 * units: 16 GiB of names.
 *
 * Failure modes: out of memory or out of handles aborts with a message. Thread context: under the
 * fsm write lock. */
#include "fsm_slab.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fsm_oom(void)
{
    fputs("replfs-metad: out of memory for the namespace; give this machine more RAM or move "
          "directories to another cluster\n",
          stderr);
    abort();
}

void *fsm_xmalloc(size_t n)
{
    void *p = malloc(n);
    if (!p)
        fsm_oom();
    return p;
}

void *fsm_xcalloc(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p)
        fsm_oom();
    return p;
}

void *fsm_xrealloc(void *p, size_t n)
{
    p = realloc(p, n);
    if (!p)
        fsm_oom();
    return p;
}

/* Appends one zeroed segment; the pointer list doubles at powers of two. */
static void seg_push(uint8_t ***seg, uint32_t *nseg, size_t bytes)
{
    if ((*nseg & (*nseg - 1)) == 0)
        *seg = fsm_xrealloc(*seg, (*nseg ? *nseg * 2ul : 1ul) * sizeof(**seg));
    (*seg)[(*nseg)++] = fsm_xcalloc(1, bytes);
}

static void seg_fini(uint8_t ***seg, uint32_t *nseg)
{
    for (uint32_t i = 0; i < *nseg; i++)
        free((*seg)[i]);
    free(*seg);
    *seg = NULL;
    *nseg = 0;
}

/* ---- slab ---- */

void fsm_slab_init(struct fsm_slab *s, uint32_t size)
{
    assert(size >= 12 && size % 4 == 0);
    *s = (struct fsm_slab){.size = size};
}

void fsm_slab_fini(struct fsm_slab *s)
{
    seg_fini(&s->seg, &s->nseg);
    s->used = s->free = s->count = 0;
}

uint32_t fsm_slab_alloc(struct fsm_slab *s)
{
    uint32_t h = s->free;
    if (h) {
        uint8_t *p = fsm_slab_at(s, h);
        memcpy(&s->free, p + 8, sizeof(s->free));
        memset(p, 0, s->size);
    } else {
        if (s->used == UINT32_MAX)
            fsm_oom();
        h = ++s->used;
        if (h >> FSM_SLAB_SHIFT >= s->nseg)
            seg_push(&s->seg, &s->nseg, (size_t)s->size << FSM_SLAB_SHIFT);
    }
    s->count++;
    return h;
}

void fsm_slab_release(struct fsm_slab *s, uint32_t h)
{
    assert(h && h <= s->used && s->count);
    uint8_t *p = fsm_slab_at(s, h);
    memset(p, 0, s->size);
    memcpy(p + 8, &s->free, sizeof(s->free));
    s->free = h;
    s->count--;
}

size_t fsm_slab_memory(const struct fsm_slab *s)
{
    return s->nseg * (((size_t)s->size << FSM_SLAB_SHIFT) + sizeof(void *));
}

/* ---- arena ---- */

void fsm_arena_init(struct fsm_arena *a)
{
    *a = (struct fsm_arena){.top = 1u << FSM_ARENA_SHIFT};
}

void fsm_arena_fini(struct fsm_arena *a)
{
    seg_fini(&a->seg, &a->nseg);
    fsm_arena_init(a);
}

static uint32_t units_of(size_t size)
{
    uint32_t u = (uint32_t)((size + FSM_ARENA_UNIT - 1) / FSM_ARENA_UNIT);
    assert(u > 0 && u < FSM_ARENA_CLASSES);
    return u;
}

static void arena_free_push(struct fsm_arena *a, uint32_t h, uint32_t units)
{
    memcpy(fsm_arena_at(a, h), &a->free[units], sizeof(h));
    a->free[units] = h;
}

uint32_t fsm_arena_alloc(struct fsm_arena *a, size_t size)
{
    uint32_t units = units_of(size), h = a->free[units];
    if (h) {
        memcpy(&a->free[units], fsm_arena_at(a, h), sizeof(h));
        return h;
    }
    uint32_t left = (1u << FSM_ARENA_SHIFT) - a->top;
    if (left < units) {
        if (a->nseg && left)
            arena_free_push(a, (a->nseg - 1) << FSM_ARENA_SHIFT | a->top, left);
        if (a->nseg == 1u << (32 - FSM_ARENA_SHIFT))
            fsm_oom();
        seg_push(&a->seg, &a->nseg, (size_t)FSM_ARENA_UNIT << FSM_ARENA_SHIFT);
        a->top = a->nseg == 1; /* handle 0 means none */
    }
    h = (a->nseg - 1) << FSM_ARENA_SHIFT | a->top;
    a->top += units;
    return h;
}

void fsm_arena_release(struct fsm_arena *a, uint32_t h, size_t size)
{
    assert(h);
    arena_free_push(a, h, units_of(size));
}

size_t fsm_arena_memory(const struct fsm_arena *a)
{
    return a->nseg * (((size_t)FSM_ARENA_UNIT << FSM_ARENA_SHIFT) + sizeof(void *));
}
