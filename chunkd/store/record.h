/* A record of the segment log: the on-disk format, encoded and decoded here only. Pure, any thread.
 *
 * Files of a data directory
 *
 *   replfs.id           identity of the disk: see store_id.c
 *   lock                flock()ed by the daemon that uses the directory
 *   seg-%016x.log       segment logs, numbered from 1 in hexadecimal, never reused; default 256 MiB
 *   spare               8 MiB of nothing, given up when the disk is full to go on with deletions
 *   index/              LMDB environment: a cache of what the log says (index_db.h), can be removed
 *
 * A segment is a 128-byte header (segment.h) followed by records, each at a multiple of 8 bytes,
 * with nothing between them. All integers are little-endian. A record is
 *
 *   offset size  field
 *        0    4  magic        "RFR1" (bytes 52 46 52 31)
 *        4    2  version      1. A reader refuses a newer one
 *        6    1  type         1 DATA, 2 COPY, 3 DELETE, 4 COMMIT, 5 DEAD
 *        7    1  zero
 *        8    4  header_len   80 + 4 bytes per checksum, rounded up to 8
 *       12    4  len          bytes of payload
 *       16    8  chunk        chunk id, never 0
 *       24    8  session      who wrote the chunk
 *       32    8  ino          DATA, COPY: inode that the bytes belong to (a hint for salvage)
 *       40    8  file_off     DATA, COPY: offset in that file (the same)
 *       48    8  generation   see below
 *       56    4  chunk_off    DATA, COPY: first byte's place in the chunk; COMMIT: copy's length
 *       60    4  zero
 *       64    8  time         wall clock, nanoseconds since 1970, when the record was first written
 *       72    4  zero
 *       76    4  header CRC   CRC32C, see below
 *       80   4n  checksums    CRC32C of each 4 KiB of payload, counted from its first byte
 *       ...      zeros to a multiple of 8
 *  header_len    payload, then zeros to a multiple of 8 (not checksummed, not read)
 *
 * The header CRC covers the header with its checksums except the field itself. It starts from the
 * CRC32C of the text "cluster/chunkd/disk/segment/position" (UUID, then four unpadded lowercase
 * hexadecimal numbers), so a record is only valid at its own place: a replfs segment that somebody
 * stores as a file can never be taken for records of the segment which holds it, also when a scan
 * must search for the next record behind damage.
 *
 * Generations. Every incarnation of a chunk on this disk has a number that is never used again.
 * DATA belongs to a chunk that a client writes; COPY to a copy made by repair, which counts only
 * once a COMMIT with its generation is in the log. A chunk is what its highest counting generation
 * says; DELETE kills its generation and all lower ones. The last record for a range of (chunk,
 * generation) wins. Hence moving live records to the end of the log (compaction) changes nothing,
 * and reading any stretch of the log twice in order changes nothing.
 *
 * DELETE carries in ino and file_off the lowest and highest segment that may hold records it kills,
 * so that it can be dropped when none of them exists any more. DEAD covers header_len + len bytes
 * of former records whose space was given back (a hole); nothing after its header is defined. */
#ifndef REPLFS_CHUNKD_STORE_RECORD_H
#define REPLFS_CHUNKD_STORE_RECORD_H
#include <stddef.h>
#include <stdint.h>

#define RECORD_MAGIC 0x31524652u
#define RECORD_VERSION 1u
#define RECORD_ALIGN 8u
#define RECORD_FIXED 80u
#define RECORD_PAYLOAD_MAX (1u << 20)
#define RECORD_HEADER_MAX (RECORD_FIXED + 4u * (RECORD_PAYLOAD_MAX / 4096u))
#define RECORD_SIZE_MAX (RECORD_HEADER_MAX + RECORD_PAYLOAD_MAX)

enum record_type {
    RECORD_DATA = 1,
    RECORD_COPY = 2,
    RECORD_DELETE = 3,
    RECORD_COMMIT = 4,
    RECORD_DEAD = 5,
};

struct record {
    uint8_t type;
    uint32_t header_len; /* set by decode; encode computes it */
    uint32_t len;
    uint64_t chunk, session, ino, file_off, gen;
    uint32_t chunk_off;
    uint64_t time;
    const uint8_t
        *crcs; /* decode: into the input; encode: crc_blocks(len) checksums (DATA, COPY) */
};

/* Bytes of the header of a record with so many payload bytes and a checksum for each block. */
uint32_t record_header_len(uint32_t len);
/* Bytes that the record takes in the segment, padding included (64 bit: a DEAD one may be long). */
uint64_t record_size(const struct record *r);
/* What the header CRC starts from at one place. base is record_base() of the disk. */
uint32_t record_base(const char *cluster, uint32_t chunkd, uint32_t disk);
uint32_t record_seed(uint32_t base, uint64_t segment, uint32_t pos);
/* Writes the header to out (RECORD_HEADER_MAX bytes suffice) and returns its length. */
uint32_t record_encode(const struct record *r, uint32_t seed, uint8_t *out);
/* Decodes a header from avail bytes. 0; -EAGAIN: avail is too short to tell (never when avail >=
 * RECORD_HEADER_MAX); -ERR_CORRUPT: no record starts here; -ERR_VERSION: a newer format's record.
 */
int record_decode(const uint8_t *p, size_t avail, uint32_t seed, struct record *out);
#endif
