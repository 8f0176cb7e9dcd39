/* The log's last entries in memory, for those who copy the names elsewhere: added by the log thread, packed as
 * records (proto/names_file.h) by others. Bounded: whoever is too slow finds that the entries are gone, and begins
 * with a new checkpoint. Any thread; own lock, a leaf. */
#ifndef REPLFS_METAD_BACKUP_NAMES_RING_H
#define REPLFS_METAD_BACKUP_NAMES_RING_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct names_ring;
/* max: bytes that are kept at most, of entries that somebody still needs; slack: that are kept in any case. Never
 * NULL. */
struct names_ring *names_ring_new(uint64_t max, uint64_t slack);
void names_ring_free(struct names_ring *r); /* NULL is fine */
/* The entry at index, which comes after all that were added. */
void names_ring_add(struct names_ring *r, uint64_t index, int64_t time_ns, const void *entry,
                    size_t len);
/* The state jumped to index: what is here does not lead there. */
void names_ring_reset(struct names_ring *r, uint64_t index);
/* Entries up to index are needed by nobody. */
void names_ring_need(struct names_ring *r, uint64_t above);
uint64_t names_ring_last(struct names_ring *r); /* index that was added last, or jumped to */
/* All entries behind index are here. */
bool names_ring_covers(struct names_ring *r, uint64_t index);
/* The entry at index is here, and has this checksum in its header. */
bool names_ring_has(struct names_ring *r, uint64_t index, uint32_t crc);
/* Records of the entries behind `after` into out, as many as fit size. Returns the bytes; *last: index of the last
 * one (`after` when none); *gone: the next one is not here any more, or fits no buffer of this size. */
size_t names_ring_pack(struct names_ring *r, uint64_t after, uint8_t *out, size_t size,
                       uint64_t *last, bool *gone);
/* Calls fn for entries behind `after` under the lock, until it returns false. */
struct names_ring_entry {
    uint64_t index, before; /* before: index of the one before it */
    int64_t time_ns;
    uint32_t len;
    uint8_t data[];
};
void names_ring_each(struct names_ring *r, uint64_t after,
                     bool (*fn)(void *arg, const struct names_ring_entry *e), void *arg);
#endif
