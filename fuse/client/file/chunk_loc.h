/* Where the copies of a chunk are, and the capability to use them, as metad said. A value. */
#ifndef REPLFS_FUSE_CLIENT_FILE_CHUNK_LOC_H
#define REPLFS_FUSE_CLIENT_FILE_CHUNK_LOC_H
#include <stdbool.h>
#include <stdint.h>
#include "client/base/limits.h"
#include "meta.pb-c.h"

struct cloc {
    uint64_t chunk;
    uint32_t len; /* bytes committed of it, as metad knows */
    uint32_t n;
    uint32_t chunkds[COPIES_MAX];
    bool lost; /* nobody has it, as far as metad knows, which has heard all chunkds */
    uint32_t cap_len;
    uint8_t cap[64];
};
/* Fills l from a message. 0, or -ERR_PROTOCOL when it does not fit. */
int cloc_from(struct cloc *l, const Replfs__ChunkLoc *m);
#endif
