/* What a chunkd was told of metads: where the newest one stood that it believes, and below which numbers
 * ids may have been given. Kept in the file replfs.seen of each data directory, so that a metad that
 * runs from an older copy of its own directory learns of it. One thread (the heartbeat's). */
#ifndef REPLFS_CHUNKD_SEEN_H
#define REPLFS_CHUNKD_SEEN_H
#include <stdbool.h>
#include <stdint.h>
#include "disks.h"
#include "node.pb-c.h"

#define SEEN_ANCESTORS 8u
struct seen_mark {
    uint64_t incarnation, position; /* incarnation 0: none */
    uint64_t before[SEEN_ANCESTORS];
    unsigned nbefore;
};
struct seen {
    uint64_t seq;            /* of the file: the highest of all directories counts */
    struct seen_mark newest; /* of a metad that was not behind */
    struct seen_mark astray; /* of one that was, since then */
    uint64_t chunk_upto, ino_upto;
    uint32_t chunkd_upto;
    uint64_t term;   /* highest of a metad that led (terms.h) */
    bool changed;    /* since it was written */
    int64_t written; /* mono */
};
/* From the directories of d; what is missing or damaged in all of them is as if never told. */
void seen_load(struct seen *s, struct disks *d);
/* What a registration or a heartbeat was answered. Written at once when it is of another metad or
 * another run of it, else SEEN_LAG later at the earliest (seen_save). st may be NULL. */
void seen_told(struct seen *s, struct disks *d, const Replfs__Standing *st, bool behind);
#define SEEN_LAG (5 * NSEC_PER_SEC)
/* Writes what changed to the directories that work. now: though it was written a moment ago. */
void seen_save(struct seen *s, struct disks *d, bool now);
/* A metad leads, or led, in this term: written at once. */
void seen_term(struct seen *s, struct disks *d, uint64_t term);
/* Above every chunk id ever told or stored. */
uint64_t seen_chunk_upto(const struct seen *s, struct disks *d);
/* For a RegisterReq: *seen and *astray, pointing into s. *r gets those that there are. */
void seen_fill(struct seen *s, struct disks *d, Replfs__RegisterReq *r, Replfs__Standing *seen,
               Replfs__Standing *astray);

/* ---- pure, for tests ---- */
#define SEEN_TEXT_MAX 1024u
int seen_format(const struct seen *s, char out[SEEN_TEXT_MAX]); /* length */
int seen_parse(const char *text, size_t len, struct seen *out); /* 0, -ERR_CORRUPT, -ERR_VERSION */
#endif
