/* Hash table of objects, chained through the objects themselves: no memory per entry but one pointer, none allocated.
 * An object has a struct hash_link and, anywhere, a 64-bit key:
 *
 *     struct hold { uint64_t ino; struct hash_link link; ... };
 *     HASH_TABLE_INIT(&t, 256, struct hold, link, ino);
 *     struct hold *h = HASH_ENTRY(hash_table_find(&t, ino), struct hold, link);
 *
 * Several objects may have the same key: a caller that tells them apart by more walks them with hash_table_next_same.
 * The table grows to one slot an object, by a pause of its size, and never shrinks. Aborts when memory is exhausted.
 * Not thread-safe: the owner locks. */
#ifndef REPLFS_BASE_HASH_TABLE_H
#define REPLFS_BASE_HASH_TABLE_H
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

struct hash_link {
    struct hash_link *next;
};
struct hash_table {
    struct hash_link **slots;
    size_t mask;   /* slots - 1, a power of two */
    size_t n;      /* objects, for the caller to read */
    size_t key_at; /* private: the key's distance from the link, modulo 2^64 */
};

/* slots: a power of two, the least that the table has. */
#define HASH_TABLE_INIT(t, slots, type, link, key)                                                 \
    hash_table_init((t), (slots), offsetof(type, key) - offsetof(type, link))
/* The object that the link belongs to; NULL stays NULL. */
#define HASH_ENTRY(l, type, link) ((type *)hash_table_object((l), offsetof(type, link)))
/* Visits all objects, in no order; p is a struct hash_link *. The body may remove p's object and free it, but no other. */
#define HASH_TABLE_EACH(t, p)                                                                      \
    for (struct hash_link *p = hash_table_first(t), *p##_next;                                     \
         p && (p##_next = hash_table_after((t), p), 1); p = p##_next)

void hash_table_init(struct hash_table *t, size_t slots, size_t key_at);
/* Frees the slots; the objects are not touched. */
void hash_table_free(struct hash_table *t);
void hash_table_grow(struct hash_table *t); /* private: doubles the slots */
struct hash_link *hash_table_first(const struct hash_table *t);
struct hash_link *hash_table_after(const struct hash_table *t, const struct hash_link *p);

static inline void *hash_table_object(struct hash_link *l, size_t at)
{
    return l ? (char *)l - at : NULL;
}
static inline uint64_t hash_table_key(const struct hash_table *t, const struct hash_link *l)
{
    return *(const uint64_t *)((uintptr_t)l + t->key_at);
}
/* Where the chain of key begins, e.g. to prefetch it. */
static inline struct hash_link **hash_table_slot(const struct hash_table *t, uint64_t key)
{
    return &t->slots[hash_u64(key) & t->mask];
}
static inline struct hash_link *hash_table_same(const struct hash_table *t, struct hash_link *l,
                                                uint64_t key)
{
    while (l && hash_table_key(t, l) != key)
        l = l->next;
    return l;
}
/* The first object with this key, or NULL. */
static inline struct hash_link *hash_table_find(const struct hash_table *t, uint64_t key)
{
    return hash_table_same(t, *hash_table_slot(t, key), key);
}
/* The next one with the key of l, or NULL. */
static inline struct hash_link *hash_table_next_same(const struct hash_table *t,
                                                     struct hash_link *l)
{
    return hash_table_same(t, l->next, hash_table_key(t, l));
}
/* Adds an object, whose key is set already and must not change while it is here. */
static inline void hash_table_add(struct hash_table *t, struct hash_link *l)
{
    if (t->n > t->mask)
        hash_table_grow(t);
    struct hash_link **slot = hash_table_slot(t, hash_table_key(t, l));
    l->next = *slot;
    *slot = l;
    t->n++;
}
/* Takes out an object, which must be in the table. */
static inline void hash_table_remove(struct hash_table *t, struct hash_link *l)
{
    struct hash_link **p = hash_table_slot(t, hash_table_key(t, l));
    while (*p != l)
        p = &(*p)->next;
    *p = l->next;
    t->n--;
}
#endif
