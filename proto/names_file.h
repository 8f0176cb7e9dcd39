/* A copy of the names in one file: a whole checkpoint of metad's state and the log's entries behind it. chunkds
 * keep such files for metad (chunkd/names.c), replfsctl backup-meta writes one, and replfs-metad makes a data
 * directory of it (--recover, --restore). The same records travel from metad to chunkds.
 *
 * Layout, little-endian (man/replfs-format.7): a header of 80 bytes
 *   0 u32 magic   4 u32 version   8 36 bytes cluster UUID   44 u32 0   48 u64 generation   56 u64 term
 *   64 i64 time (ns)   72 u32 0   76 u32 crc32c of 0..75
 * then records, each a header of 40 bytes and a payload
 *   0 u32 magic   4 u16 type   6 u16 0   8 u64 a   16 u64 b   24 i64 time (ns)   32 u32 length
 *   36 u32 crc32c of 0..35 and the payload
 * PIECE: a is the payload's offset in the state file; pieces come in order, without gaps. WHOLE: a is the state
 * file's size, b its CRC32C; no piece comes after it. ENTRY: a log entry, a its index, b that of the entry before;
 * the first one's b is not above the generation, which is the state file's index. Entries may lie between pieces.
 *
 * Pure but for names_file_read; any thread. Bytes come from disks and peers: nothing in them trips an assertion. */
#ifndef REPLFS_NAMES_FILE_H
#define REPLFS_NAMES_FILE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAMES_FILE_MAGIC 0x464e5052u   /* "RPNF" */
#define NAMES_RECORD_MAGIC 0x524e5052u /* "RPNR" */
#define NAMES_FILE_VERSION 1u
#define NAMES_HEADER 80u
#define NAMES_RECORD 40u
#define NAMES_PIECE_MAX (1u << 20)   /* of a state file in one record */
#define NAMES_PAYLOAD_MAX (4u << 20) /* of any record: a log entry is not longer */

struct names_header {
    char cluster[37];
    uint64_t generation; /* log index of the state file */
    uint64_t term;       /* of the metad that made it */
    int64_t time_ns;
};
void names_header_make(const struct names_header *h, uint8_t out[NAMES_HEADER]);
/* 0; -ERR_CORRUPT or -ERR_VERSION with *why (static text). */
int names_header_open(const uint8_t *p, size_t len, struct names_header *h, const char **why);

/* A data directory that is made of a copy begins a new life of the cluster: what was logged behind the copy before, and
 * what is logged there from now on, have nothing to do with each other. Lives are told apart by the term: each begins
 * with a term that is a multiple of NAMES_LIFE, above all before. */
#define NAMES_LIFE 1000000u
uint64_t names_life(uint64_t term);
/* The first term of a life that begins now, at second now_s of 1970, behind term. */
uint64_t names_next_life(uint64_t term, int64_t now_s);
/* Second s of 1970 for people, in local time; returns out. */
#define NAMES_TIME_TEXT 64
const char *names_time(int64_t s, char out[static NAMES_TIME_TEXT]);

enum names_type { NAMES_PIECE = 1, NAMES_WHOLE = 2, NAMES_ENTRY = 3 };
struct names_record {
    enum names_type type;
    uint64_t a, b;
    int64_t time_ns;
    const uint8_t *payload;
    uint32_t len;
};
/* Writes the record's header for this payload; the payload goes behind it. */
void names_record_make(enum names_type type, uint64_t a, uint64_t b, int64_t time_ns,
                       const void *payload, uint32_t len, uint8_t out[NAMES_RECORD]);
#define NAMES_MORE 1 /* the record is longer than what is there */
/* The record at p: 0 with *r pointing into p; NAMES_MORE; -ERR_CORRUPT with *why. */
int names_record_open(const uint8_t *p, size_t len, struct names_record *r, const char **why);

/* What the records of a file say together, in the order in which they come. */
struct names_track {
    uint64_t generation;
    uint64_t state_len; /* bytes of the state file so far */
    uint32_t state_crc;
    bool whole;           /* the state file is complete, and is what it was */
    uint64_t reached;     /* index of the last entry; the generation when there is none */
    uint32_t reached_crc; /* that the entry carries in its header; 0: there is none */
    uint64_t entries, entry_bytes;
    int64_t time_ns; /* of the last record */
};
void names_track_begin(struct names_track *t, const struct names_header *h);
/* 0; -ERR_CORRUPT with *why when r cannot come next: then t is as before. */
int names_track_add(struct names_track *t, const struct names_record *r, const char **why);

/* Reads the file from its beginning as far as it is good, calling fn (may be NULL) for each good record; an fn that
 * returns other than 0 ends it with that. *good: offset behind the last good record; *why: what is wrong there, NULL:
 * the file ends there. 0; -ERR_CORRUPT or -ERR_VERSION: not even the header is good; -errno. */
int names_file_read(int fd, struct names_header *h, struct names_track *t, uint64_t *good,
                    const char **why, int (*fn)(void *arg, const struct names_record *r),
                    void *arg);
#endif
