/* Hash map from non-zero 64-bit keys to numbers, open addressing with back-shift deletion (no tombstones). A map
 * stores its values in as many bytes as it needs, so that a big table pays for nothing else: a slot has 8 bytes
 * and the width of the value, and one to three quarters of the slots are taken. Aborts when memory is exhausted: no
 * caller could go on. Not thread-safe: the owner locks. */
#ifndef REPLFS_BASE_U64MAP_H
#define REPLFS_BASE_U64MAP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a value; a set has keys alone, each value is 0. */
enum u64map_width {
    U64MAP_SET = 0,
    U64MAP_U8 = 1,
    U64MAP_U16 = 2,
    U64MAP_U32 = 4,
    U64MAP_U64 = 8,
};
struct u64map {
    uint64_t *keys; /* 0: free */
    void *vals;
    size_t n, cap; /* entries, for the caller to read; slots: power of two or 0 */
    uint32_t width;
};
/* All zero is an empty set; another width is said by {.width = U64MAP_U32} or here. */
void u64map_init(struct u64map *m, enum u64map_width width);
/* Leaves an empty map of the same width, without memory. */
void u64map_free(struct u64map *m);
/* False when key (0: never) is absent; *val is left alone then. val may be NULL. */
bool u64map_get(const struct u64map *m, uint64_t key, uint64_t *val);
/* Adds or replaces; true when key is new. val must fit the width. */
bool u64map_put(struct u64map *m, uint64_t key, uint64_t val);
bool u64map_del(struct u64map *m, uint64_t key); /* true when it was there */
/* Iterates: *pos 0 starts. False at the end. The map must not change meanwhile. val may be NULL. */
bool u64map_next(const struct u64map *m, size_t *pos, uint64_t *key, uint64_t *val);

/* A set. */
static inline bool u64map_has(const struct u64map *m, uint64_t key)
{
    return u64map_get(m, key, NULL);
}
static inline bool u64map_add(struct u64map *m, uint64_t key) /* true when key is new */
{
    return u64map_put(m, key, 0);
}

/* A map to pointers; all zero is an empty one, too. NULL is absent, and no value. */
static inline void *u64map_get_ptr(const struct u64map *m, uint64_t key)
{
    uint64_t v = 0;
    u64map_get(m, key, &v);
    return (void *)(uintptr_t)v;
}
static inline void u64map_put_ptr(struct u64map *m, uint64_t key, void *val)
{
    if (!m->cap)
        m->width = U64MAP_U64;
    u64map_put(m, key, (uintptr_t)val);
}
static inline void *u64map_del_ptr(struct u64map *m, uint64_t key) /* the value that was there */
{
    void *v = u64map_get_ptr(m, key);
    if (v)
        u64map_del(m, key);
    return v;
}
static inline void *u64map_next_ptr(const struct u64map *m,
                                    size_t *pos) /* the value; NULL: the end */
{
    uint64_t key, v;
    return u64map_next(m, pos, &key, &v) ? (void *)(uintptr_t)v : NULL;
}
#endif
