/* The chunk store of one disk: segment logs plus an LMDB index (DESIGN of the store: store.c;
 * format: man/replfs-format.7). The log is the truth, the index can be rebuilt from it.
 *
 * Threads: one writer thread per store does all writing with group commit. Append, sync and delete
 * are asynchronous: their callback runs on the writer thread, or on the sync thread when it had to
 * wait for an fdatasync (sync appends, store_sync, store_copy_finish). It must not block, and may
 * call the asynchronous functions. Reads run on the caller's thread, concurrently. No calls once
 * store_close() was called. */
#ifndef REPLFS_CHUNKD_STORE_STORE_H
#define REPLFS_CHUNKD_STORE_STORE_H
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"

struct store;
struct store_config {
    const char *dir;
    const char *cluster;      /* UUID; NULL or "": take what the directory says */
    uint32_t chunkd;          /* 0: take what the directory says */
    uint64_t capacity;        /* bytes replfs may use; 0: whole file system */
    uint64_t reserve;         /* bytes of the file system never used */
    unsigned reserve_percent; /* of the file system, likewise, in addition */
    uint64_t segment_size;    /* default 256 MiB */
    bool rebuild_index;
    /* Index checkpoints and giving space back: this long after a change; default 2000. */
    unsigned checkpoint_ms;
    /* On any thread: a chunk got longer, vanished (len 0) or was replaced. For heartbeat
     * increments. May be NULL. */
    void (*changed)(void *arg, uint64_t chunk, uint32_t len, uint64_t session);
    /* The disk failed (write or read error that is the disk's): store serves what it still can,
     * refuses appends. readable: what it has can still be found. Told once, or once more when it is no
     * longer readable. Not during store_open. */
    void (*failed)(void *arg, const char *why, bool readable);
    void *arg;
};
/* Identity of a data directory: cluster UUID and chunkd id, in replfs.id. */
struct store_id {
    char cluster[40];
    uint32_t chunkd;
    uint32_t disk;
};
/* 0; -ENOENT: the directory has none, or is not there; -ERR_CORRUPT, -ERR_VERSION. */
int store_id_read(const char *dir, struct store_id *out);
/* 0 once fsynced; -EEXIST when another identity is there. */
int store_id_write(const char *dir, const struct store_id *id);
/* Makes dir, created when missing, a new disk that gets its identity when a chunkd next starts with it.
 * Repeating it does no harm. 0; -EEXIST: it has an identity, -ENOTEMPTY, both after a log line; -errno. */
int store_id_init(const char *dir);
/* 0: a new disk without identity yet (store_id_init); -ENOENT: it is not. */
int store_id_fresh(const char *dir);

/* Opens (creating what is missing in a directory that has an identity), locks, recovers: on a disk that
 * takes no writes any more the store is `failed` from the beginning and only reads. Index from
 * LMDB, then the log from its checkpointed position. A torn tail after a crash is cut; a bad record
 * in the middle of the log is reported, skipped, and its chunk range counts as missing.
 * -ERR_LOCKED, -ERR_CORRUPT, -ERR_VERSION, -ERR_WRONG_CLUSTER after log lines that name the file
 * and the way out. */
int store_open(const struct store_config *cfg, struct store **out);
void store_close(struct store *s); /* syncs, checkpoints the index */

typedef void store_done(void *arg, int code);
struct store_append {
    uint64_t chunk, session, ino, file_off;
    uint32_t chunk_off; /* must equal the chunk's length; a repetition with equal bytes succeeds */
    struct buf *data;   /* 1 .. 1 MiB; a reference is taken */
    /* crc_blocks(len) little-endian u32, copied. Checked here against data: -ERR_CRC when the bytes
     * were damaged on the way. */
    const uint8_t *crcs;
    bool sync; /* done after fdatasync, else after write(2) */
};
void store_append(struct store *s, const struct store_append *a, store_done *done, void *arg);
/* done when everything appended before is on stable storage. */
void store_sync(struct store *s, store_done *done, void *arg);
void store_delete(struct store *s, const uint64_t *chunks, size_t n, store_done *done, void *arg);
/* Begins a fresh copy of chunk beside whatever is there; appends with the returned token go to it;
 * finish swaps it in atomically (synced), abort drops it; one that failed to finish must be aborted, too.
 * For repair. Nothing that was acknowledged may be lost by the swap: when what is there is longer than
 * the copy and longer than `seen`, up to where the caller has looked at it, finish changes nothing and
 * is -EAGAIN: append what came meanwhile, and finish again. */
int store_copy_begin(struct store *s, uint64_t chunk, uint64_t session, uint64_t *token);
void store_copy_append(struct store *s, uint64_t token, const struct store_append *a,
                       store_done *done, void *arg);
void store_copy_finish(struct store *s, uint64_t token, uint32_t seen, store_done *done, void *arg);
void store_copy_abort(struct store *s, uint64_t token);

struct store_span {
    uint32_t chunk_off, len;
    uint8_t *crcs; /* into the caller's arena: see store_read */
};
struct store_read {
    struct buf *data;         /* the spans' bytes, one after the other; caller unrefs */
    struct store_span *spans; /* one malloc holding spans and crcs; caller frees spans only */
    size_t n;
    uint32_t chunk_len;
};
/* Whole CRC blocks covering [off, off+len). 0, -ERR_NO_CHUNK, -ERR_SHORT (range reaches past the
 * end; chunk_len is set), -ERR_CRC (this copy is bad: a record's header is damaged, or with VERIFY
 * its bytes), -EIO (the disk cannot read it), with CACHED -EAGAIN: not all of it is in the page cache,
 * and the disk was not asked. Does not check CRCs of data (the reader does) without VERIFY. Any
 * thread. */
enum store_read_how {
    STORE_PLAIN,
    STORE_VERIFY,
    STORE_CACHED,
    STORE_SCRUB, /* as VERIFY, from the disk itself, whatever the page cache has of it; not counted as read_bytes */
};
int store_read(struct store *s, uint64_t chunk, uint32_t off, uint32_t len, enum store_read_how how,
               struct store_read *out);
/* Whose the bytes of [from, to) are, as those who appended them said: in order, neighbours joined, at most max parts. ino
 * 0: not known. 0, -ERR_NO_CHUNK, -ERR_CRC, -EIO; *n parts. Any thread. */
struct store_part {
    uint64_t ino, file_off;
    uint32_t chunk_off, len;
};
int store_parts(struct store *s, uint64_t chunk, uint32_t from, uint32_t to, struct store_part *out,
                size_t max, size_t *n);
/* 0 or -ERR_NO_CHUNK. */
int store_chunk_len(struct store *s, uint64_t chunk, uint32_t *len, uint64_t *session);
/* Bytes that others than the scrub have read and appended since the start. Any thread. */
uint64_t store_traffic(const struct store *s);
/* All chunks, in no order. fn returns false to stop. A consistent enough view: chunks changing
 * meanwhile are seen before or after. */
void store_walk(struct store *s,
                bool (*fn)(void *arg, uint64_t chunk, uint32_t len, uint64_t session), void *arg);

/* What it may use in all from now on, less than the configuration says or not: UINT64_MAX: no other limit. What is
 * there stays. Any thread. */
void store_set_limit(struct store *s, uint64_t bytes);

struct store_stat {
    uint64_t capacity, used, avail, chunks, dead_bytes;
    uint64_t fs, fs_capacity, fs_avail; /* the file system: its number, and without cfg.capacity */
    uint64_t shortage;                  /* so much less than the reserve is free on it */
    bool failed;
    bool readable; /* failed or not: what it has can be found */
    char error[256];
    uint64_t fsyncs, appends, append_bytes, read_bytes;
};
void store_stat(struct store *s, struct store_stat *out);
#endif
