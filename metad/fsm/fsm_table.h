/* Indexes over handles: a hash table that grows a bucket at a time (no pause, however big) and an
 * ordered set with O(log n) seek. Neither stores keys: they ask the object. Not thread-safe: the
 * fsm lock covers them. */
#ifndef REPLFS_METAD_FSM_FSM_TABLE_H
#define REPLFS_METAD_FSM_FSM_TABLE_H
#include <stddef.h>
#include <stdint.h>

/* ---- hash table by linear hashing, chained through the objects, two objects a bucket on average
 * ---- */
struct fsm_htab {
    uint8_t **seg; /* of bucket heads */
    uint32_t nseg;
    uint32_t nbuckets;
    uint32_t count;
};
struct fsm_htab_ops {
    uint32_t *(*next)(void *ctx, uint32_t h); /* where the object keeps its chain link */
    uint64_t (*hash)(void *ctx, uint32_t h);
};
void fsm_htab_init(struct fsm_htab *t);
void fsm_htab_fini(struct fsm_htab *t);
void fsm_htab_insert(struct fsm_htab *t, const struct fsm_htab_ops *ops, void *ctx, uint32_t h);
void fsm_htab_remove(struct fsm_htab *t, const struct fsm_htab_ops *ops, void *ctx, uint32_t h);
uint32_t fsm_htab_first(const struct fsm_htab *t,
                        uint64_t hash); /* head of the chain, 0 when empty */
size_t fsm_htab_memory(const struct fsm_htab *t);

/* ---- ordered set of handles by a 64-bit key, unique, in blocks of up to 128 ---- */
struct fsm_oblock;
struct fsm_oset {
    union {
        struct fsm_oblock *one;   /* nblocks <= 1 */
        struct fsm_oblock **many; /* else */
    } b;
    uint32_t nblocks;
    uint32_t count;
};
struct fsm_oset_ops {
    uint64_t (*key)(void *ctx, uint32_t h);
    void *ctx;
    size_t *heap; /* bytes allocated are added here */
};
struct fsm_opos {
    uint32_t block, idx;
};
void fsm_oset_init(struct fsm_oset *s);
void fsm_oset_fini(struct fsm_oset *s, size_t *heap);
/* 0, or -EEXIST when an object with the same key is in. */
int fsm_oset_insert(struct fsm_oset *s, const struct fsm_oset_ops *ops, uint32_t h);
void fsm_oset_remove(struct fsm_oset *s, const struct fsm_oset_ops *ops, uint32_t h);
/* Position of the first object with a key above after. */
struct fsm_opos fsm_oset_seek(const struct fsm_oset *s, const struct fsm_oset_ops *ops,
                              uint64_t after);
/* The object at *pos, stepping behind it; 0 at the end. The set must not change between calls. */
uint32_t fsm_oset_next(const struct fsm_oset *s, struct fsm_opos *pos);
#endif
