/* Copies of metad's names that this chunkd keeps: files in the folder `names` of its data directories, one a
 * generation (proto/names_file.h). Blocks on the disk: not on a loop thread. Own lock, held meanwhile. */
#ifndef REPLFS_CHUNKD_NAMES_H
#define REPLFS_CHUNKD_NAMES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "disks.h"
#include "names_file.h"

#define NAMES_FILES_MAX 8u

struct names;
struct names *names_new(struct disks *disks); /* never NULL; reads nothing yet */
void names_free(struct names *n);             /* NULL is fine */

struct names_copy { /* one file */
    uint64_t generation, size, term;
    struct names_track track;
};
struct names_put { /* as in NamesPutReq */
    uint64_t generation, at, expect, term;
    bool begin, sync;
    const uint8_t *data;
    size_t len;
};
/* Adds records to a file's end, all or none. 0; -ERR_OFFSET: no such file, or it has another size; -ERR_OLD_TERM: a
 * lower term than a former put's; -ERR_CRC, -ERR_PROTOCOL or -ERR_WRONG_CLUSTER: the bytes are not what may come
 * next; -ENOSPC: the file stays as it was when it is whole; -errno of the disk: that file is given up. *out: the file afterwards. *why: static text, or NULL. */
int names_put(struct names *n, const struct names_put *p, struct names_copy *out, const char **why);
/* Removes every file. */
int names_drop(struct names *n, uint64_t term);
/* What there is, newest first; returns how many. */
size_t names_list(struct names *n, struct names_copy out[NAMES_FILES_MAX]);
/* Up to 1 MiB of a file from offset, fewer at its end, none behind it. 0, -ENOENT, -errno. */
int names_get(struct names *n, uint64_t generation, uint64_t offset, struct buf **out,
              uint64_t *size);
#endif
