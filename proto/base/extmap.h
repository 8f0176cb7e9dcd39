/* Extent map of one file: which range of the file lives where. Keyed by file offset, no overlaps;
 * inserting a range replaces what was there (the newest bytes win), cutting neighbours as needed.
 * Used by metad (committed extents) and the client (the same plus its own uncommitted ones).
 * A map with one extent that starts at offset 0 needs no allocation. Leaves of up to 128 extents under
 * one sorted array keep an insert into a map of 10^6 extents to a few microseconds.
 * Not thread-safe: the owner locks. */
#ifndef REPLFS_BASE_EXTMAP_H
#define REPLFS_BASE_EXTMAP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ext {
    uint64_t file_off;
    uint64_t chunk; /* 0 is never a chunk of the store */
    uint32_t chunk_off;
    uint32_t len; /* > 0 */
};
struct extmap {
    uint64_t w[2]; /* private: inline extent or pointer; see extmap.c */
    uint32_t n;    /* extents; high bit private, use extmap_count() */
};
/* Called for every piece of an extent that leaves the map (replaced or cut), with exactly the bytes
 * that left; so a caller can keep reference counts and live bytes. May be NULL. whole: the last piece of
 * a former extent of the map is not implied; use `extmap_fn`'s delta: refs is -1 when an extent vanished,
 * 0 when it was shortened, +1 when a cut in the middle made two of one. */
typedef void extmap_fn(void *arg, const struct ext *gone, int refs);

void extmap_init(struct extmap *m);
void extmap_free(struct extmap *m); /* no callbacks */
/* Inserts e (merging with a neighbour that continues it in file and chunk: merged is true then).
 * With both neighbours continuing it only one is merged, so that the count changes by the sum of the
 * callbacks' refs, plus 1 unless merged. Returns 0, -ENOMEM or -EINVAL (empty or past 2^64 / 2^32 offsets);
 * the map is unchanged then and no callback was made. */
int extmap_insert(struct extmap *m, const struct ext *e, extmap_fn *fn, void *arg, bool *merged);
/* Makes [off, off+len) a hole. len may reach UINT64_MAX - off. */
int extmap_remove(struct extmap *m, uint64_t off, uint64_t len, extmap_fn *fn, void *arg);
/* First extent that ends after off; false when none. *out is a copy. O(log n). */
bool extmap_find(const struct extmap *m, uint64_t off, struct ext *out);
/* The extent at position i in order, 0 <= i < extmap_count (for checkpoints: iterate with find is fine
 * too). */
size_t extmap_count(const struct extmap *m);
size_t extmap_memory(const struct extmap *m); /* heap bytes used */
#endif
