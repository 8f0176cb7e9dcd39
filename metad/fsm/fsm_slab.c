/* Slabs and the arena behind the state machine's 32-bit handles.
 *
 * A slab is a growing list of segments of 16384 objects. Handles are positions; slot 0 is never
 * given out. Fresh segments come zeroed, so untouched pages cost nothing; slots are
 * recycled last in, first out, which keeps the order deterministic (not that anything may depend on
 * it).
 *
 * Where the first REGION_BYTES of segments are full the next ones are cut from regions that ask for huge pages
 * (MADV_HUGEPAGE, madvise(2); the kernel's Documentation/admin-guide/mm/transhuge.rst). For fork(2), which begins each
 * checkpoint, copies the page tables while nothing else runs: of 4 KiB pages that takes 100 to 300 ms per GiB, longer
 * than the other metads wait for a sign of life.
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
#include <sys/mman.h>

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

/* ---- segments ---- */

#define REGION_BYTES (32ul << 20)
#define HUGE_PAGE (2ul << 20) /* of most machines; a wrong guess costs only the gain */

static uint32_t per_region(size_t bytes)
{
    uint32_t n = 1;
    while (n * bytes < REGION_BYTES)
        n *= 2;
    return n;
}

static size_t region_bytes(size_t bytes)
{
    return (per_region(bytes) * bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
}

static uint8_t *region_new(size_t len)
{
    uint8_t *p =
        mmap(NULL, len + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        fsm_oom();
    size_t before = -(uintptr_t)p & (HUGE_PAGE - 1);
    if (before)
        munmap(p, before);
    munmap(p + before + len, HUGE_PAGE - before);
    (void)madvise(p + before, len, MADV_HUGEPAGE); /* kernels without: as well, only slower */
    return p + before;
}

/* The pointer list doubles at powers of two. */
void fsm_seg_push(uint8_t ***seg, uint32_t *nseg, size_t bytes)
{
    uint32_t i = *nseg, n = per_region(bytes);

    if ((i & (i - 1)) == 0)
        *seg = fsm_xrealloc(*seg, (i ? i * 2ul : 1ul) * sizeof(**seg));
    (*seg)[i] = i < n        ? fsm_xcalloc(1, bytes)
                : i % n == 0 ? region_new(region_bytes(bytes))
                             : (*seg)[i - 1] + bytes;
    (*nseg)++;
}

void fsm_seg_fini(uint8_t ***seg, uint32_t *nseg, size_t bytes)
{
    uint32_t n = per_region(bytes);

    for (uint32_t i = 0; i < *nseg; i++) {
        if (i < n)
            free((*seg)[i]);
        else if (i % n == 0)
            munmap((*seg)[i], region_bytes(bytes));
    }
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
    fsm_seg_fini(&s->seg, &s->nseg, (size_t)s->size << FSM_SLAB_SHIFT);
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
            fsm_seg_push(&s->seg, &s->nseg, (size_t)s->size << FSM_SLAB_SHIFT);
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

#define ARENA_BYTES ((size_t)FSM_ARENA_UNIT << FSM_ARENA_SHIFT)

void fsm_arena_init(struct fsm_arena *a)
{
    *a = (struct fsm_arena){.top = 1u << FSM_ARENA_SHIFT};
}

void fsm_arena_fini(struct fsm_arena *a)
{
    fsm_seg_fini(&a->seg, &a->nseg, ARENA_BYTES);
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
        fsm_seg_push(&a->seg, &a->nseg, ARENA_BYTES);
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
