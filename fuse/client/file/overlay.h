/* Pure: bytes not yet committed over the committed map. The maps' owner holds the file's mu. */
#ifndef REPLFS_FUSE_CLIENT_FILE_OVERLAY_H
#define REPLFS_FUSE_CLIENT_FILE_OVERLAY_H
#include "base/extmap.h"
#include "client/file/abuf.h"

/* RESERVED: committed, but without bytes: reads as a hole. */
enum seg_kind { SEG_HOLE, SEG_BUFFER, SEG_COMMITTED, SEG_RESERVED };
struct seg {
    enum seg_kind kind;
    uint64_t off, len; /* range of the file */
    uint64_t id;       /* append buffer or chunk */
    uint32_t at;       /* offset in it */
};
/* The first segment of [off, end), end > off. */
void overlay_next(const struct extmap *over, const struct extmap *base, uint64_t off, uint64_t end,
                  struct seg *out);
/* Removes from `over` what still points at a. 0 or -ENOMEM. */
int overlay_drop(struct extmap *over, const struct abuf *a);
/* True when [off, off+len) lies in one stretch of buffer id; *at is where. */
bool overlay_inside(const struct extmap *over, uint64_t off, uint32_t len, uint64_t id,
                    uint32_t *at);
/* Extents for a commit: pieces of the buffers first..(n of them), merged where they continue
 * each other. Stops before exceeding max extents; *used says how many buffers went in (at least
 * one). malloc'ed array, or NULL. */
struct ext *overlay_extents(struct abuf *const *bufs, size_t n, const uint64_t *chunks, size_t max,
                            size_t *nout, size_t *used);
#endif
