/* The index on disk: an LMDB environment in DIR/index, a cache of what the segment log says up to a
 * position. It can be removed at any time the daemon is not running; it is then rebuilt from the
 * log.
 *
 *   database  key (big-endian)            value (little-endian)
 *   chunks    u64 chunk                   u64 generation, session, lowest segment, highest segment;
 *                                         u32 length, u32 zero
 *   extents   u64 chunk, u32 offset       u32 length, segment, position
 *   segments  u64 segment                 u64 size, u64 live bytes
 *   marks     u64 segment, u32 position   u64 type, chunk, generation, lowest, highest segment
 *                                         (DELETE and COMMIT records)
 *   meta      "format"                    u32 1
 *             "identity"                  u32 record_base() of the disk
 *             "position"                  u64 segment, u64 offset: all before is in the index
 *             "generation"                u64 next unused one
 *
 * Reads on any thread; one thread at a time commits. A page that the disk cannot read is -EIO, from then
 * on for every call. The reading functions take a NULL db for one that holds nothing. */
#ifndef REPLFS_CHUNKD_STORE_INDEX_DB_H
#define REPLFS_CHUNKD_STORE_INDEX_DB_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "extents.h"

struct index_db;
struct chunk_row {
    uint64_t gen, session;
    uint64_t lo, hi; /* segments that may hold records of this or an earlier generation */
    uint32_t len;
};
struct log_pos {
    uint64_t seg, pos;
};
struct mark {
    uint64_t seg;
    uint32_t pos;
    uint8_t type; /* RECORD_DELETE or RECORD_COMMIT */
    uint64_t chunk, gen, lo, hi;
};
struct segment_row {
    uint64_t id, size, live;
    bool gone;
};
/* What one commit changes: made by the writer thread, consumed by index_db_commit(). */
struct delta_chunk {
    uint64_t chunk;
    struct chunk_row row;
    bool gone;    /* remove it */
    bool rewrite; /* remove its extents first */
    uint32_t n;   /* extents to write */
    size_t first; /* where they start in delta.exts */
};
struct delta {
    struct delta_chunk *chunks;
    size_t n_chunks, cap_chunks;
    struct ext *exts;
    size_t n_exts, cap_exts;
    struct segment_row *segs;
    size_t n_segs, cap_segs;
    struct mark *marks;
    size_t n_marks, cap_marks;
    struct log_pos pos;
    uint64_t next_gen;
};
void delta_free(struct delta *d);
/* Room for n more elements in one of the arrays; aborts when memory is exhausted. */
#define DELTA_GROW(d, what, n)                                                                     \
    ((d)->what = delta_grow((d)->what, &(d)->cap_##what, (d)->n_##what + (n), sizeof *(d)->what))
void *delta_grow(void *v, size_t *cap, size_t n, size_t size);

/* Opens or, unless readonly, creates. fresh: the environment was empty. 0; -ERR_CORRUPT: unusable, remove and
 * rebuild; -errno. */
int index_db_open(const char *dir, uint32_t identity, uint64_t map_size, bool readonly, bool *fresh,
                  struct index_db **out);
void index_db_close(struct index_db *db);
/* Removes DIR/index. */
int index_db_remove(const char *dir);
int index_db_commit(struct index_db *db, const struct delta *d);
int index_db_position(struct index_db *db, struct log_pos *pos, uint64_t *next_gen);
uint64_t index_db_chunks(struct index_db *db);
uint64_t index_db_alloc(struct index_db *db);
/* The row of a chunk and its extents that overlap [from, to), pushed to x. 0, -ERR_NO_CHUNK,
 * -errno. */
int index_db_lookup(struct index_db *db, uint64_t chunk, uint32_t from, uint32_t to,
                    struct chunk_row *row, struct extents *x);
/* Up to max rows with chunk > after, in order. Returns how many, or -errno. */
long index_db_slice(struct index_db *db, uint64_t after, uint64_t *chunks, struct chunk_row *rows,
                    size_t max);
int index_db_segments(struct index_db *db, int (*fn)(void *arg, const struct segment_row *row),
                      void *arg);
/* Marks of one segment (seg) or, with seg 0, of all. */
int index_db_marks(struct index_db *db, uint64_t seg, int (*fn)(void *arg, const struct mark *m),
                   void *arg);
#endif
