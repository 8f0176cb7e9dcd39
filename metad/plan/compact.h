/* Which chunks are worth writing anew without their dead bytes, and what of them is to be kept. Pure: no clock, no I/O;
 * not thread-safe. */
#ifndef REPLFS_METAD_PLAN_COMPACT_H
#define REPLFS_METAD_PLAN_COMPACT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COMPACT_DEAD_MIN (64u << 10) /* fewer dead bytes are not worth a new chunk */
#define COMPACT_OWNERS_MAX                                                                         \
    16u /* files that share the chunk: all of their maps are looked through */
#define COMPACT_RANGES_MAX 16384u /* live ranges of one chunk: those of 4 KiB in 64 MiB */
#define COMPACT_RUNNING_MAX 2u    /* chunks at once */

struct compact_chunk {
    uint32_t len, live; /* bytes committed, and named by extents */
    uint32_t owners;    /* files */
    bool sealed;        /* nobody can commit more of it, nor bytes of it once more */
    bool busy;          /* a repair has it */
    unsigned copies;    /* in all */
    unsigned good;      /* of these that are whole, on chunkds that are up, and stay there */
    unsigned need;      /* copies that it is to have, and can have */
};
enum compact_verdict {
    COMPACT_NOT,   /* nothing to be gained: forget it until more of it dies */
    COMPACT_LATER, /* something is in the way that passes */
    COMPACT_NOW
};
/* *why, of COMPACT_LATER: for people, static. */
enum compact_verdict compact_judge(const struct compact_chunk *c, const char **why);

/* Whether one more may begin while so many run, and so many copies are being made by repairs: these go first. */
bool compact_may_begin(unsigned running, uint64_t repairs, const char **why);

/* The live ranges of a chunk, and where in the new one they go: in order, without gaps. All zero is the beginning. */
struct compact_range {
    uint32_t off, len; /* in the old chunk */
    uint32_t to;       /* in the new one */
};
struct compact_ranges {
    struct compact_range *v;
    size_t n, cap;
    uint32_t total; /* bytes, once finished */
};
/* May overlap others. False: they are too many. */
bool compact_ranges_add(struct compact_ranges *r, uint32_t off, uint32_t len);
/* Sorts, joins what overlaps or touches, and gives places. Nothing is added any more. False: they are too many. */
bool compact_ranges_finish(struct compact_ranges *r);
/* Where [off, off + len) of the old chunk is in the new one. False: not all of it is in one range. */
bool compact_ranges_find(const struct compact_ranges *r, uint32_t off, uint32_t len, uint32_t *to);
void compact_ranges_free(struct compact_ranges *r);
#endif
