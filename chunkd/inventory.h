/* Which chunks this chunkd has, on which disk, and what each metad has been told of it.
 * Thread-safe: own mutex, a leaf (nothing else is called or locked while it is held). */
#ifndef REPLFS_CHUNKD_INVENTORY_H
#define REPLFS_CHUNKD_INVENTORY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct inventory;
struct inventory *inventory_new(void);
void inventory_free(struct inventory *inv);

#define INVENTORY_DISKS 64u /* data directories of one chunkd at most */
#define INVENTORY_NONE UINT32_MAX

/* The disk that has chunk (or is about to: reserved), else INVENTORY_NONE. */
uint32_t inventory_disk(struct inventory *inv, uint64_t chunk);
/* First bytes of chunk are on their way to disk: all appends that follow go there too. Returns the
 * disk, which is another one when somebody was first. */
uint32_t inventory_reserve(struct inventory *inv, uint64_t chunk, uint32_t disk);
/* The reservation came to nothing. No effect when bytes arrived meanwhile. */
void inventory_unreserve(struct inventory *inv, uint64_t chunk);

/* The chunk changed on disk: it exists there (again, longer, replaced) or is gone from there. */
void inventory_changed(struct inventory *inv, uint64_t chunk, uint32_t disk, bool exists);
/* Forgets all chunks of a failed disk; a full report must follow. Returns how many. */
size_t inventory_drop_disk(struct inventory *inv, uint32_t disk);

struct inventory_item {
    uint64_t chunk;
    uint32_t disk;
    bool exists;
};
/* What one metad was told. One thread uses a view. */
struct inventory_view;
struct inventory_view *inventory_view_new(struct inventory *inv); /* it was told nothing yet */
void inventory_view_free(struct inventory_view *v); /* before the inventory; NULL is fine */
/* Takes up to max changes not told yet. The digest and count that go with them cover what metad
 * knows once it has applied all that was taken; what is taken must be told until acknowledged,
 * repetition is harmless. */
size_t inventory_take(struct inventory_view *v, struct inventory_item *out, size_t max);
void inventory_told(struct inventory_view *v, uint64_t *digest, uint64_t *count);
/* True when too much changed to be told one by one, a disk went, or it never had one: a full report is needed. */
bool inventory_overflowed(struct inventory_view *v);
/* Everything there is, for a full report (malloc'ed, caller frees; NULL when *n is 0). Clears the
 * changes: what happens from now on is a change against this list. */
struct inventory_item *inventory_snapshot(struct inventory_view *v, size_t *n);
size_t inventory_count(struct inventory *inv);
/* The highest chunk id that was ever here, gone ones too; 0: none. */
uint64_t inventory_highest(struct inventory *inv);
#endif
