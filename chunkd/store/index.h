/* The index: where each chunk's bytes are. What changed recently is in RAM, whole chunks at a time;
 * the rest is in LMDB (index_db.h), where checkpoints put it.
 *
 * One thread changes it: the writer (or the one that recovers, before there is a writer). Functions
 * marked "any thread" may run at the same time. */
#ifndef REPLFS_CHUNKD_STORE_INDEX_H
#define REPLFS_CHUNKD_STORE_INDEX_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "extents.h"
#include "index_db.h"
#include "base/hash_table.h"
#include "base/lock.h"

#define INDEX_SHARDS 64

/* A chunk in RAM. Fields are written by the writer thread under the shard's lock, so it may read
 * them without. */
struct chunk {
    uint64_t chunk;
    struct chunk_row row; /* row.len == x.len */
    struct extents x;
    bool gone; /* deleted; kept until a checkpoint removed it from LMDB */
    /* writer only */
    bool dirty, rewrite;             /* differs from LMDB; its extents must be written anew */
    uint32_t saved;                  /* extents [0, saved) are in LMDB already */
    uint64_t epoch;                  /* checkpoint that took its last change */
    uint32_t plan_len;               /* length once what is being written is applied */
    uint64_t plan_gen, plan_session; /* what it will be, while gone and plan_len > 0 */
    struct hash_link link;           /* in its shard */
    struct chunk *prev, *next;       /* dirty or clean list */
};
struct chunk_list {
    struct chunk *head, *tail;
    size_t n;
};
struct index_shard {
    struct lock mu;
    struct hash_table chunks; /* struct chunk by id */
};
struct index {
    struct index_shard shards[INDEX_SHARDS];
    struct index_db *db;
    struct chunk_list dirty, clean; /* writer */
    extents_fn *extent;             /* an extent became live or dead */
    void *arg;
    uint64_t epoch;             /* of the last collect; writer */
    _Atomic uint64_t committed; /* last epoch that is in LMDB */
    _Atomic uint64_t chunks;    /* that exist */
};

void index_init(struct index *ix, struct index_db *db, extents_fn *extent, void *arg);
void index_free(struct index *ix);

/* The chunk, loaded into RAM when LMDB has it; it may be gone. With create, one that is gone is
 * made when there is none; else *out is NULL then. 0 or a negative code of LMDB. */
int index_get(struct index *ix, uint64_t chunk, bool create, struct chunk **out);
/* (Re)starts c as an empty chunk of this generation; what it had becomes dead. */
void index_start(struct index *ix, struct chunk *c, uint64_t gen, uint64_t session);
/* Puts one extent in. Returns false when exactly it was there. */
bool index_put(struct index *ix, struct chunk *c, const struct ext *e);
/* Replaces c by a finished copy; x is emptied. lo and hi widen to cover both. */
void index_swap(struct index *ix, struct chunk *c, uint64_t gen, uint64_t session,
                struct extents *x, uint64_t lo, uint64_t hi);
void index_remove(struct index *ix, struct chunk *c);

/* Takes everything that differs from LMDB into d and marks it clean; forgets clean chunks that have
 * not been used for long and are in LMDB. Returns the epoch to pass to index_committed(). */
uint64_t index_collect(struct index *ix, struct delta *d);
/* d of this epoch is in LMDB. Any thread. */
void index_committed(struct index *ix, uint64_t epoch);

/* The row and the extents overlapping [from, to), pushed to x (may be NULL). 0, -ERR_NO_CHUNK, or a
 * negative code. Any thread. */
int index_lookup(struct index *ix, uint64_t chunk, uint32_t from, uint32_t to,
                 struct chunk_row *row, struct extents *x);
/* All chunks, each exactly once; one that comes or goes meanwhile may be seen or not. Any thread.
 */
int index_walk(struct index *ix,
               bool (*fn)(void *arg, uint64_t chunk, uint32_t len, uint64_t session), void *arg);
#endif
