/* Append buffers: bytes of a file on their way to a chunk. */
#ifndef REPLFS_FUSE_CLIENT_FILE_ABUF_H
#define REPLFS_FUSE_CLIENT_FILE_ABUF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"

struct cfile;
struct wchunk;
/* One stretch of the file inside an append buffer. */
struct piece {
    uint64_t file_off;
    uint32_t len;
    uint32_t buf_off;
};
enum abuf_state { ABUF_FILLING, ABUF_QUEUED, ABUF_SENT, ABUF_ACKED, ABUF_COMMITTING };
struct append_wait { /* of a writer, on its stack; under the file's mu */
    bool done;
    int rc;
    uint64_t off; /* where it went */
};
/* One append. The states, and what holds in each, are listed in abuf.c. All fields: the file's mu. */
struct abuf {
    uint64_t id;       /* per file, increasing; what the overlay map names */
    struct abuf *next; /* in the order of writing */
    enum abuf_state state;
    struct buf *buf;     /* NULL once acknowledged */
    uint32_t len, limit; /* bytes used, bytes it may take */
    struct piece *pieces;
    uint32_t npieces, cap_pieces;
    struct wchunk *wc; /* SENT and later */
    uint32_t chunk_off;
    uint64_t gen; /* of the sending: late answers to a former one are ignored */
    int64_t sent_at;
    bool sync; /* ask the chain to sync with this append */
    int64_t born, acked_at;
    unsigned life;            /* client's, when it was begun */
    bool append;              /* goes to the end of the file, wherever that is (append.c) */
    struct append_wait *wait; /* the writer that waits for it, or NULL */
    uint64_t grows;           /* bytes that were a hole when they were written (quota.c) */
    uint64_t over;            /* a copy of bytes of this chunk, or 0: see CommitOp.over */
    int64_t over_shift;
};
/* All of these: the file's mu held; nothing waits. */

/* A new last buffer for bytes that begin at off, len of them to begin with; NULL: memory is out. One that gets
 * no bytes must be forgotten before mu is dropped. */
struct abuf *abuf_new(struct cfile *f, uint64_t off, size_t len);
/* Takes the last buffer, which has no bytes, off the list and frees it. */
void abuf_forget(struct cfile *f, struct abuf *a);
/* Frees a buffer that is off the list already; a writer that still waits for it is told -EIO. Takes dirty.mu and
 * grants.mu. */
void abuf_free(struct cfile *f, struct abuf *a);
/* Gives the memory of the bytes back, and their share of the dirty bytes. Takes dirty.mu. */
void abuf_drop_buf(struct cfile *f, struct abuf *a);
/* Makes room for `need` bytes in all, at most a->limit. */
void abuf_grow(struct abuf *a, size_t need);
/* FILLING -> QUEUED, if the last buffer is being filled and has bytes. */
void abuf_seal(struct cfile *f);
/* Adds a stretch of len bytes at the end of the buffer, extending the last piece when it continues it. 0 or
 * -ENOMEM. */
int abuf_add_piece(struct abuf *a, uint64_t file_off, uint32_t len);
/* How many bytes a buffer that begins at file_off may take, so that the next one begins aligned. No lock. */
uint32_t abuf_limit(uint64_t file_off);
/* Tells a's writer where its bytes went, or why they did not, if one waits. */
void abuf_answer(struct abuf *a, int rc, uint64_t off);
/* O_APPEND buffers of one commit get their places behind one another, counted from the first. Their sum. */
uint64_t abuf_place(struct abuf *const *bufs, size_t n);
#endif
