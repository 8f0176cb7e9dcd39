/* Hash table from 64-bit ids to pointers. No lock of its own: the owner's protects it. Values are never NULL,
 * and stay the owner's. */
#ifndef REPLFS_FUSE_CLIENT_BASE_IDMAP_H
#define REPLFS_FUSE_CLIENT_BASE_IDMAP_H
#include <stddef.h>
#include <stdint.h>

struct idmap { /* all zero: empty */
    struct idmap_slot {
        uint64_t id;
        void *val;
    } * slots;
    size_t cap, n;
};
/* The value of id, or NULL. */
void *idmap_get(const struct idmap *m, uint64_t id);
/* Sets or replaces the value of id. Aborts when memory is out. */
void idmap_put(struct idmap *m, uint64_t id, void *val);
/* Removes id: the value that was there, or NULL. */
void *idmap_del(struct idmap *m, uint64_t id);
/* The next value in no order; *pos 0 starts, NULL is the end. The map must not change meanwhile. */
void *idmap_next(const struct idmap *m, size_t *pos);
/* Frees the table, not the values. The map is empty then. */
void idmap_clear(struct idmap *m);
#endif
