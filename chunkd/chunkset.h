/* A hash table from chunk id to 16 bits: ten bytes a slot, so that ten million chunks fit 200 MB.
 * Open addressing with linear probing and backward shifting on removal. Id 0 is never a chunk.
 * Not thread-safe: the owner locks. */
#ifndef REPLFS_CHUNKD_CHUNKSET_H
#define REPLFS_CHUNKD_CHUNKSET_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chunkset {
    uint64_t *keys;
    uint16_t *vals;
    size_t n, slots;
};
void chunkset_init(struct chunkset *s);
void chunkset_free(struct chunkset *s);
void chunkset_clear(struct chunkset *s); /* frees its memory too */
/* The value's place, valid until the next change; NULL when absent. */
uint16_t *chunkset_find(const struct chunkset *s, uint64_t chunk);
/* Inserts (val 0) when absent; *fresh says so. Aborts when memory is exhausted. */
uint16_t *chunkset_add(struct chunkset *s, uint64_t chunk, bool *fresh);
bool chunkset_remove(struct chunkset *s, uint64_t chunk);
/* Walks by position: start with *pos = 0; false at the end. No change of the set while walking. */
bool chunkset_next(const struct chunkset *s, size_t *pos, uint64_t *chunk, uint16_t *val);
#endif
