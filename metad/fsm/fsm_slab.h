/* Memory of the state machine: objects named by 32-bit handles instead of pointers, which halves
 * what links cost. Handle 0 is "none". Objects never move. Not thread-safe: the fsm lock covers
 * them. Running out of memory aborts: a replica that cannot apply a committed command must not go
 * on. */
#ifndef REPLFS_METAD_FSM_FSM_SLAB_H
#define REPLFS_METAD_FSM_FSM_SLAB_H
#include <stddef.h>
#include <stdint.h>

/* malloc family that aborts with a message instead of returning NULL (n > 0). */
void *fsm_xmalloc(size_t n);
void *fsm_xcalloc(size_t n, size_t size);
void *fsm_xrealloc(void *p, size_t n);
void fsm_oom(void) __attribute__((noreturn));

/* A list of zeroed segments of `bytes` each, from nothing: {NULL, 0}. */
void fsm_seg_push(uint8_t ***seg, uint32_t *nseg, size_t bytes);
void fsm_seg_fini(uint8_t ***seg, uint32_t *nseg, size_t bytes);

/* Objects of one size. Their first 8 bytes are an id that is 0 exactly while the slot is free, the
 * next 4 bytes link free slots; so a walk over all handles can tell what is alive. */
#define FSM_SLAB_SHIFT 14
struct fsm_slab {
    uint8_t **seg;
    uint32_t nseg;
    uint32_t size;  /* of an object */
    uint32_t used;  /* handles below or equal were given out once */
    uint32_t free;  /* first free slot */
    uint32_t count; /* live objects */
};
void fsm_slab_init(struct fsm_slab *s, uint32_t size);
void fsm_slab_fini(struct fsm_slab *s);
uint32_t fsm_slab_alloc(struct fsm_slab *s); /* zeroed; the caller sets the id at once */
void fsm_slab_release(struct fsm_slab *s, uint32_t h);
size_t fsm_slab_memory(const struct fsm_slab *s);
static inline void *fsm_slab_at(const struct fsm_slab *s, uint32_t h)
{
    return s->seg[h >> FSM_SLAB_SHIFT] + (size_t)(h & ((1u << FSM_SLAB_SHIFT) - 1)) * s->size;
}

/* Objects of varying size, in units of 4 bytes; freed ones are reused for the same size. Contents
 * are kept by nobody after release: the first 4 bytes link free objects. */
#define FSM_ARENA_UNIT 4u
#define FSM_ARENA_SHIFT 18 /* units in a segment: 1 MiB */
#define FSM_ARENA_CLASSES 70
struct fsm_arena {
    uint8_t **seg;
    uint32_t nseg;
    uint32_t top; /* units used of the last segment */
    uint32_t free[FSM_ARENA_CLASSES];
};
void fsm_arena_init(struct fsm_arena *a);
void fsm_arena_fini(struct fsm_arena *a);
uint32_t fsm_arena_alloc(struct fsm_arena *a, size_t size); /* size <= 276 */
void fsm_arena_release(struct fsm_arena *a, uint32_t h, size_t size);
size_t fsm_arena_memory(const struct fsm_arena *a);
static inline void *fsm_arena_at(const struct fsm_arena *a, uint32_t h)
{
    return a->seg[h >> FSM_ARENA_SHIFT] +
           (size_t)(h & ((1u << FSM_ARENA_SHIFT) - 1)) * FSM_ARENA_UNIT;
}
#endif
