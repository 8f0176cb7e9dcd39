/* Hash map from non-zero 64-bit keys to 32-bit values, open addressing with back-shift deletion (no
 * tombstones). For chunk ids: report sets, queues. Aborts when memory is exhausted. Not
 * thread-safe. */
#ifndef REPLFS_BASE_U64MAP_H
#define REPLFS_BASE_U64MAP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct u64map {
    uint64_t *keys; /* 0: free */
    uint32_t *vals;
    size_t n, cap; /* cap: power of two or 0 */
};
/* All zero is an empty map. */
void u64map_free(struct u64map *m);                                   /* leaves an empty map */
bool u64map_get(const struct u64map *m, uint64_t key, uint32_t *val); /* val may be NULL */
bool u64map_put(struct u64map *m, uint64_t key, uint32_t val);        /* true when key is new */
bool u64map_del(struct u64map *m, uint64_t key);                      /* true when it was there */
/* Iterates: *pos 0 starts. False at the end. The map must not change meanwhile. */
bool u64map_next(const struct u64map *m, size_t *pos, uint64_t *key, uint32_t *val);
#endif
