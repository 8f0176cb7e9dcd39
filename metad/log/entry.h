/* A metadata log entry: up to 256 packed Commands with one checksum around them. Pure, any thread.
 *
 * Layout, little-endian (see man/replfs-format.7):
 *   0 u32 magic   4 u16 version   6 u16 count   8 u64 index   16 u32 length   20 u32 crc32c
 *   24 count times {u32 length, packed Command}, then zeros up to a multiple of 8
 * length counts the bytes from 24 to the padding; crc32c covers bytes 0..19 and those. index is the
 * log position the leader wrote the entry for, so that a log with a gap in it is noticed. */
#ifndef REPLFS_METAD_LOG_ENTRY_H
#define REPLFS_METAD_LOG_ENTRY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENTRY_MAGIC 0x4e455052u /* "RPEN" */
/* 2: operations from AtimeOp on; 3: from IncarnationOp on, parts; 4: a feature level, which says the rest */
#define ENTRY_VERSION 4u
#define ENTRY_VERSION_LEVEL_0 3u /* as long as the state's feature level is 0 */
#define ENTRY_VERSION_MIN 1u
#define ENTRY_HEADER 24u
#define ENTRY_MAX_COMMANDS 256u
#define ENTRY_MAX_BYTES (4u << 20) /* of one entry: far below a segment */

struct entry {
    unsigned count;
    uint64_t index;
    const uint8_t *next, *end; /* private: cursor of entry_next */
    unsigned left;             /* private */
};

/* Bytes an entry of `count` commands with `bytes` packed bytes in all takes, padding included. */
size_t entry_size(unsigned count, size_t bytes);
/* Writes one command behind those already there; pos starts at ENTRY_HEADER. Returns the new pos.
 * The buffer must hold entry_size(). */
size_t entry_put(uint8_t *buf, size_t pos, const void *cmd, size_t len);
/* Fills in header, checksum and padding; pos as entry_put returned it; version: ENTRY_VERSION or
 * ENTRY_VERSION_LEVEL_0. Returns the entry's size. */
size_t entry_finish(uint8_t *buf, size_t pos, unsigned count, uint64_t index, unsigned version);

/* Checks buf completely. 0; -ERR_CORRUPT or -ERR_VERSION with *why (static text). e points into
 * buf. */
int entry_open(const void *buf, size_t len, struct entry *e, const char **why);
/* The next packed Command, in order; false at the end. */
bool entry_next(struct entry *e, const uint8_t **cmd, size_t *len);
#endif
