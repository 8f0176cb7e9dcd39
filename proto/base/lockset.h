/* The byte ranges that one owner holds locked in one file: sorted, none overlaps, neighbours of one
 * type are one range. Shared by metad (who holds what) and by clients (what to claim again). All
 * zero is an empty set. Not thread-safe; aborts without memory. */
#ifndef REPLFS_BASE_LOCKSET_H
#define REPLFS_BASE_LOCKSET_H
#include <stdbool.h>
#include <stdint.h>

enum lock_type {
    LOCKSET_READ = 0,
    LOCKSET_WRITE = 1,
    LOCKSET_NONE = 2
}; /* F_RDLCK.. and the wire's */
struct lock_range {
    uint64_t start, end; /* end: the last byte, inclusive */
    uint32_t type;       /* LOCKSET_READ or LOCKSET_WRITE */
};
struct lockset {
    struct lock_range *v;
    uint32_t n, cap;
};
/* Makes [start, end] of this type, whatever it was; LOCKSET_NONE unlocks. start <= end. */
void lockset_set(struct lockset *s, uint32_t type, uint64_t start, uint64_t end);
/* The first range that overlaps [start, end] and excludes a lock of this type by somebody else, or
 * NULL. */
const struct lock_range *lockset_conflict(const struct lockset *s, uint32_t type, uint64_t start,
                                          uint64_t end);
/* True when all of [start, end] is held with this very type. */
bool lockset_holds(const struct lockset *s, uint32_t type, uint64_t start, uint64_t end);
/* True when unlocking [start, end] would leave both ends of one range. */
bool lockset_cuts(const struct lockset *s, uint64_t start, uint64_t end);
void lockset_free(struct lockset *s); /* leaves an empty set */
#endif
