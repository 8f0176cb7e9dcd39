/* The pieces of one chunk, sorted by offset: which record of which segment holds which bytes. Not
 * thread-safe: the owner locks. */
#ifndef REPLFS_CHUNKD_STORE_EXTENTS_H
#define REPLFS_CHUNKD_STORE_EXTENTS_H
#include <stdbool.h>
#include <stdint.h>

/* One record. seg and pos say where its header is. */
struct ext {
    uint32_t off, len; /* range of the chunk */
    uint32_t seg, pos;
};
struct extents {
    struct ext *v;
    uint32_t n, cap;
    uint32_t len; /* bytes present without a gap from 0 */
};
/* Called for each extent that enters (live true) or leaves a set. */
typedef void extents_fn(void *arg, const struct ext *e, bool live);

/* Bytes that the record of this extent takes in its segment. */
uint64_t ext_record_size(const struct ext *e);
/* Puts e in; extents that overlap it leave whole. Returns its position, or -1 when exactly e was
 * there already. Aborts when memory is exhausted. fn may be NULL. */
long extents_put(struct extents *x, const struct ext *e, extents_fn *fn, void *arg);
/* First position whose extent ends after off; x->n when none. */
uint32_t extents_find(const struct extents *x, uint32_t off);
/* Everything leaves; the set can be used again. */
void extents_clear(struct extents *x, extents_fn *fn, void *arg);
/* Adds e behind the last one without looking for overlaps (loading in order). */
void extents_push(struct extents *x, const struct ext *e);
#endif
