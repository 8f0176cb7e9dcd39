/* Sizes and times that several files of the client agree on. */
#ifndef REPLFS_FUSE_CLIENT_BASE_LIMITS_H
#define REPLFS_FUSE_CLIENT_BASE_LIMITS_H

#define APPEND_MAX (1u << 20)      /* bytes of one append */
#define CHUNK_MAX (64u << 20)      /* bytes of one chunk */
#define OVERWRITTEN_MIN (4u << 20) /* of one of a smaller file, in which bytes were overwritten */
#define COPIES_MAX 8u              /* of one chunk */
#define UNCOMMITTED_MAX (64ull << 20) /* per file, before the flusher commits early */
#define COMMIT_EXTENTS_MAX 4096u      /* extents in one CommitOp */
#define ATIME_SLOTS 8192u             /* words that remember whether a read would count */
#endif
