/* What the scrub of one disk knows and must know again after a restart: where its pass is, when which chunks were
 * checked before, what was found. And its file, replfs.scrub. Not thread-safe: the owner locks. */
#ifndef REPLFS_CHUNKD_SCRUB_STATE_H
#define REPLFS_CHUNKD_SCRUB_STATE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "scrub_pace.h"

#define SCRUB_MARKS_MAX 128u
#define SCRUB_BAD_MAX 1024u
#define SCRUB_FILE_MAX (120u + 2u * SCRUB_MARKS_MAX * 16u + SCRUB_BAD_MAX * 24u + 4u)

/* Chunks from this one on, up to the next mark's, were checked at that time or later. */
struct scrub_mark {
    uint64_t chunk;
    int64_t time; /* wall clock, ns */
};
struct scrub_bad { /* a copy that was found bad and is still here */
    uint64_t chunk, session;
    uint32_t off; /* of the first bad block */
    /* not in the file */
    uint32_t told;   /* so often */
    int64_t tell_at; /* mono */
};
struct scrub_state {
    uint32_t chunkd, disk; /* whose it is */
    uint64_t pass;         /* 0: none has begun */
    int64_t first;         /* wall clock, ns: when the first pass began */
    int64_t begin;         /* this pass */
    int64_t made;          /* no byte is older: when the disk was made */
    uint64_t chunk;        /* the pass has checked all chunks below, and of this one */
    uint32_t off;          /* the bytes below */
    uint64_t upto; /* the pass ends with this one: those above are younger. 0: not known yet */
    enum scrub_mode mode;
    int64_t paused; /* since then; 0: it is not */
    uint64_t done;  /* bytes of this pass */
    uint64_t found, healed;
    unsigned nprev, ncur, nbad;
    struct scrub_mark prev[SCRUB_MARKS_MAX]; /* of the pass before, by chunk */
    struct scrub_mark cur[SCRUB_MARKS_MAX];  /* of this one */
    struct scrub_bad bad[SCRUB_BAD_MAX];
};

/* A disk that was never scrubbed. */
void scrub_state_init(struct scrub_state *s, uint32_t chunkd, uint32_t disk, int64_t made);
/* A pass begins: of all chunks from the first one on. */
void scrub_state_begin(struct scrub_state *s, int64_t now, enum scrub_mode mode);
/* The pass has come to chunk, off; left: bytes that are still to come. */
void scrub_state_reached(struct scrub_state *s, int64_t now, uint64_t chunk, uint32_t off,
                         uint64_t left);
/* The pass is over: chunk becomes UINT64_MAX. */
void scrub_state_over(struct scrub_state *s);
/* Since when the byte was not checked for which that is longest. */
int64_t scrub_state_oldest(const struct scrub_state *s);
/* The clock was set back: nothing has happened later than now. */
void scrub_state_clock(struct scrub_state *s, int64_t now);
/* Notes a bad copy; false: it is noted already. When there are too many, one that was told takes its place with it. */
bool scrub_state_bad(struct scrub_state *s, uint64_t chunk, uint64_t session, uint32_t off);
void scrub_state_good(struct scrub_state *s, unsigned i); /* bad[i] was healed or is gone */

/* As bytes; how many. */
size_t scrub_state_encode(const struct scrub_state *s, uint8_t out[SCRUB_FILE_MAX]);
/* 0, -ERR_CORRUPT, -ERR_VERSION; s is as it was then. */
int scrub_state_decode(struct scrub_state *s, const uint8_t *p, size_t len);
/* The disk's file: 0, -ENOENT, -ERR_CORRUPT (also another disk's), -ERR_VERSION, -errno. */
int scrub_state_load(struct scrub_state *s, const char *dir);
int scrub_state_save(const struct scrub_state *s, const char *dir);
#endif
