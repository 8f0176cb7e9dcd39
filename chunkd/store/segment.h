/* The segment files of one disk: naming, headers, the table of those that exist, holes, scanning.
 *
 * A segment starts with a header of SEGMENT_HEADER bytes, little-endian:
 *
 *   offset size  field
 *        0    8  magic       "RFSEGMT" and a zero byte
 *        8    4  version     1. A newer one is refused
 *       12    4  header length, 128
 *       16    8  segment id  the number in the file's name
 *       24    8  time        creation, wall clock nanoseconds
 *       32   40  cluster     UUID text, zero-padded
 *       72    4  chunkd
 *       76    4  disk
 *       80   44  zero
 *      124    4  CRC32C of the 124 bytes before
 *
 * then records (record.h). Only the segment with the highest number is written to. Behind its last record
 * there may be zeros, put there in advance (segment_zero_ahead). */
#ifndef REPLFS_CHUNKD_STORE_SEGMENT_H
#define REPLFS_CHUNKD_STORE_SEGMENT_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "record.h"
#include "store.h"
#include "base/lock.h"

#define SEGMENT_HEADER 128u
#define SEGMENT_VERSION 1u

struct segments;
struct segment {
    uint64_t id;
    struct segments *table;
    _Atomic int fd;          /* -1: closed, for others' sake; see segment_hold */
    _Atomic unsigned pins;   /* who holds it open */
    _Atomic uint64_t used;   /* when it was last held, by the table's count */
    _Atomic bool wrote;      /* by this process: stays open until it is synced, to hear of errors */
    char name[32];           /* seg-%016x.log */
    _Atomic uint64_t size;   /* bytes written: where the next record goes */
    _Atomic uint64_t live;   /* bytes of records that the index points to */
    _Atomic uint64_t alloc;  /* bytes allocated by the file system when last looked */
    _Atomic bool unsynced;   /* written since the last fdatasync */
    uint64_t zeroed;         /* end of the zeros put behind size, if greater; writer */
    bool row_dirty;          /* size or live differ from the index's row; writer */
    bool stuck;              /* compaction could not empty it; maintenance */
    uint64_t live_committed; /* live in the index's row; maintenance */
    _Atomic unsigned marks;  /* DELETE and COMMIT records that must outlive it */
};

struct segments {
    char dir[4096];
    int dirfd;
    struct store_id id;
    uint32_t base;      /* record_base() of id */
    struct rwlock lock; /* guards v, n, cap; segments themselves stay valid until removed */
    struct segment **v; /* ascending by id */
    size_t n, cap;
    uint64_t next_id;
    _Atomic bool dir_unsynced; /* a name was added since the last fsync of the directory */
    _Atomic bool no_punch;     /* the file system cannot punch holes */
    bool readonly;             /* nothing is written */
    struct lock fd_lock;       /* opening and closing; taken before lock */
    _Atomic uint64_t uses;
};

/* Opens all segments of the directory and checks their headers. A damaged header is reported and,
 * unless readonly, written anew (the records behind it prove themselves). 0, -errno, -ERR_VERSION,
 * -ERR_WRONG_CLUSTER. */
int segments_open(struct segments *t, const char *dir, const struct store_id *id, bool readonly);
void segments_close(struct segments *t);
/* NULL when there is none. Any thread; see the grace period in store_internal.h for how long
 * it lives. */
struct segment *segments_find(struct segments *t, uint64_t id);
struct segment *segments_last(struct segments *t);
/* The segment's descriptor, which stays open until segment_drop; -errno when it cannot be opened, of which
 * -EMFILE and -ENFILE say nothing about the disk. Only so many segments are kept open as half of the
 * process's limit allows. Any thread. */
int segment_hold(struct segment *sg);
void segment_drop(struct segment *sg);
/* Creates the next segment with its header. Neither is on stable storage yet: unsynced,
 * dir_unsynced. */
int segments_create(struct segments *t, struct segment **out);
/* Unlinks and forgets it. No reader or writer may use it any more. */
int segments_remove(struct segments *t, struct segment *sg);
/* Is there a segment with lo <= id <= hi? */
bool segments_any(struct segments *t, uint64_t lo, uint64_t hi);
/* Calls fn for each, ascending, on a copy of the table. fn returns non-zero to stop. */
int segments_each(struct segments *t, int (*fn)(void *arg, struct segment *sg), void *arg);
uint64_t segments_alloc(struct segments *t);
/* Allocated but not live. */
uint64_t segments_dead(struct segments *t);
void segment_update_alloc(struct segment *sg);
/* Writer, who holds it: puts zeros behind end, the end of what is written or about to be, up to offset to,
 * as far as there are none yet. When it fails there are fewer, which costs nothing but time. */
void segment_zero_ahead(struct segment *sg, uint64_t end, uint64_t to);
/* Gives back the zeros behind its size. Likewise. */
void segment_cut_ahead(struct segment *sg);

/* Whether the process has no descriptor left: try again later. */
bool segment_no_fd(int code);
/* Reads exactly len bytes. 0, -errno, or -ERR_CORRUPT when the file ends before. */
int segment_read(struct segment *sg, void *p, size_t len, uint64_t pos);
/* Makes [pos, pos+len), which must hold only dead records, a DEAD record and gives its whole 4 KiB
 * blocks back to the file system. Too small ranges are left alone. Returns 0 or -errno. */
int segment_punch(struct segments *t, struct segment *sg, uint32_t pos, uint32_t len);

/* What a scan finds. record: at pos; payload_ok is true unless payload checking was asked for and
 * failed (then the record is damage as well, and bad is called for it, not record). bad: [from, to)
 * is no record; to_end: nothing valid follows. */
struct segment_scan {
    int (*record)(void *arg, const struct record *r, uint32_t pos);
    void (*bad)(void *arg, uint64_t from, uint64_t to, bool to_end);
    void *arg;
    bool verify;  /* check payload checksums */
    bool zeros;   /* out, for bad: it is nothing but zeros */
    uint64_t end; /* out: end of the last good record */
};
/* Walks the records from offset from to the segment's size. Returns 0, what record returned when
 * not 0, -errno, -ERR_VERSION. Zeros (holes) are passed over silently. */
int segment_scan(struct segments *t, struct segment *sg, uint64_t from, struct segment_scan *sc);
#endif
