/* Extent map of one file: which range of the file lives where. Keyed by file offset, no overlaps;
 * inserting a range replaces what was there (the newest bytes win), cutting neighbours as needed.
 * Used by metad (committed extents) and the client (the same plus its own uncommitted ones).
 * A map with one extent that starts at offset 0 needs no allocation. Leaves of up to 128 extents
 * under one sorted array keep an insert into a map of 10^6 extents to a few microseconds. Not
 * thread-safe: the owner locks. */
#ifndef REPLFS_BASE_EXTMAP_H
#define REPLFS_BASE_EXTMAP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ext {
    uint64_t file_off;
    uint64_t chunk; /* 0: reserved, no bytes anywhere, reads as zeros; chunk_off is 0 then */
    uint32_t chunk_off;
    uint32_t len; /* > 0 */
};
#define EXTMAP_RESERVED_MAX (1u << 30) /* longest extent of chunk 0 */
struct extmap {
    uint64_t w[2]; /* private: inline extent or pointer; see extmap.c */
    uint32_t n;    /* extents; high bit private, use extmap_count() */
};
/* Called for each range that leaves the map, because something newer replaced it or it was cut out;
 * may be NULL. `gone` is exactly that range and where it lived; `refs` says what this did to the
 * number of the map's extents that name gone->chunk:
 *
 *   -1  the extent vanished: gone is all of it
 *    0  it lost its beginning or its end
 *   +1  it lost bytes in its middle and is two extents now
 *
 * So a caller that sums up refs and subtracts gone->len knows each chunk's references and live
 * bytes. */
typedef void extmap_fn(void *arg, const struct ext *gone, int refs);

void extmap_init(struct extmap *m);
void extmap_free(struct extmap *m); /* no callbacks */
/* Inserts e. *merged says whether it became part of a neighbour that it continues in file and chunk. When
 * it continues both neighbours only one is merged, so that the count always changes by the sum of the
 * callbacks' refs, plus 1 unless merged. Returns 0, or -ENOMEM or -EINVAL (empty, or reaching past 2^64 in
 * the file or 2^32 in the chunk, of chunk 0 and too long): nothing was changed then and fn was not called. */
int extmap_insert(struct extmap *m, const struct ext *e, extmap_fn *fn, void *arg, bool *merged);
/* Makes [off, off+len) a hole. len may reach UINT64_MAX - off. */
int extmap_remove(struct extmap *m, uint64_t off, uint64_t len, extmap_fn *fn, void *arg);
/* First extent that ends after off; false when none. *out is a copy. O(log n). */
bool extmap_find(const struct extmap *m, uint64_t off, struct ext *out);
/* Bytes of [off, end) that are in no extent. */
uint64_t extmap_holes(const struct extmap *m, uint64_t off, uint64_t end);
/* Number of extents. All of them in order: extmap_find from 0, then from each one's end. */
size_t extmap_count(const struct extmap *m);
size_t extmap_memory(const struct extmap *m); /* heap bytes used */
#endif
