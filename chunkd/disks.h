/* The data directories of one chunkd: identity, which store has a chunk, where a new one goes, and
 * taking a failing disk out alone. Any thread unless said otherwise. */
#ifndef REPLFS_CHUNKD_DISKS_H
#define REPLFS_CHUNKD_DISKS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "inventory.h"
#include "chunkd/store/store.h"

struct disks_config {
    char *const *dirs;        /* with an identity, or new ones (store_id_init) */
    size_t ndirs;             /* 1 .. INVENTORY_DISKS */
    uint64_t capacity;        /* of each directory; 0: its whole file system */
    uint64_t reserve;         /* bytes of each file system that are never used */
    unsigned reserve_percent; /* of each, likewise, in addition */
    uint64_t segment_size;    /* 0: the store's default */
    bool rebuild_index;
};
struct disks;
struct disk;

/* Reads the directories' identities and, when there is one, opens the stores (which recovers them).
 * 0, or a negative code after a log line: directories of different clusters or chunkds, two with
 * one disk number, in use by another process, no usable directory at all (-ENOENT: every one of them
 * is missing). One broken or missing directory among several is only taken out. */
int disks_new(const struct disks_config *cfg, struct disks **out);
void disks_free(struct disks *d); /* syncs and closes the stores; nobody may use d any more */
/* First registration: gives the directories their identity and opens the stores. Blocks. Also gives
 * it to fresh directories of a known chunkd. 0 or as disks_new. */
int disks_adopt(struct disks *d, const char *cluster, uint32_t chunkd);
/* cluster: 40 bytes, "" when never registered. Returns the chunkd id or 0. */
uint32_t disks_identity(struct disks *d, char *cluster);
bool disks_ready(struct disks *d); /* the stores are open */
struct inventory *disks_inventory(struct disks *d);

/* The disk that has chunk, or NULL. For reads also a failed one, in case it still answers. */
struct disk *disks_find(struct disks *d, uint64_t chunk, bool for_read);
/* Where the first bytes of a new chunk go (by free space), reserving it there. An existing chunk's
 * disk when there is one. 0, -ENOSPC, -EIO (every disk failed). */
int disks_place(struct disks *d, uint64_t chunk, uint32_t len, struct disk **out);
/* An append to chunk failed: forget the reservation when nothing of it was ever stored. */
void disks_append_failed(struct disks *d, uint64_t chunk, struct disk *disk);
/* The disk where a repaired copy goes: that of the copy it replaces, else by free space. Waits
 * while DISKS_COPIES copies are being written there already. End with disks_copy_leave. */
#define DISKS_COPIES 4u
int disks_copy_enter(struct disks *d, uint64_t chunk, uint32_t len, struct disk **out);
void disks_copy_leave(struct disks *d, struct disk *disk);

/* The disk for something of ours that is no chunk: the most free space, and more than need. NULL: none. */
struct disk *disks_roomiest(struct disks *d, uint64_t need);
/* So many bytes in the disk's directory are not the store's: they count as used. */
void disk_set_extra(struct disk *disk, uint64_t bytes);
struct store *disk_store(const struct disk *disk);
const char *disk_dir(const struct disk *disk);
uint32_t disk_index(const struct disk *disk);
size_t disks_count(const struct disks *d);
struct disk *disks_at(struct disks *d, size_t i);
bool disk_failed(const struct disk *disk);
/* Takes a disk out: no new bytes. One that is readable keeps its chunks in the inventory, for others to
 * copy; else they leave it. May be told again when that ends. */
void disk_fail(struct disk *disk, const char *why, bool readable);

/* Shuts the disks to clients' bytes, or opens them: copies that metad orders are not meant. */
void disks_shut(struct disks *d, bool shut);
/* An append of a client begins: false: they are shut. True: disks_writer_leave() when it has ended, whatever came of it. */
bool disks_writer_enter(struct disks *d);
void disks_writer_leave(struct disks *d);
/* They are shut, and no append is under way any more. */
bool disks_are_shut(struct disks *d);
/* What each disk may use, by its number, when that is less than its capacity: all others have no limit. */
struct disk_limit {
    uint32_t index;
    uint64_t bytes;
};
void disks_set_limits(struct disks *d, const struct disk_limit *limits, size_t n);

#define DISK_NO_INDEX UINT32_MAX /* its number cannot be read */
struct disk_info {
    uint32_t index;
    const char *dir;
    uint64_t capacity, used, avail, chunks, dead;
    uint64_t fs, fs_capacity, fs_avail, shortage; /* as in struct store_stat */
    bool failed, readonly;                        /* readonly: failed, but what it has is served */
    bool missing; /* failed, since there is no disk at its path: index is DISK_NO_INDEX */
    char error[256];
};
/* Refreshes free space, notices directories that are gone, and fills out[disks_count]. One thread
 * at a time (the heartbeat's). */
void disks_poll(struct disks *d, struct disk_info *out);
#endif
