/* Inside of the store: what its .c files share. Not for others.
 *
 *   store.c          open, close, the queue, statistics
 *   store_writer.c   the writer thread: groups of records, the index, completions
 *   store_sync.c     the sync thread: fdatasync
 *   store_read.c     reads, walks
 *   store_maint.c    the maintenance thread: checkpoints, holes, removal of segments
 *   store_compact.c  moving the last live records out of a segment
 *   recovery.c       what open does to find the state again
 *
 * Locks, in the order in which they may be taken: queue_lock; copies_lock; sync_lock; maint_lock; a
 * shard of the index; segments.lock. The writer thread alone changes the index, the list of dead
 * ranges and the fields marked "writer". */
#ifndef REPLFS_CHUNKD_STORE_STORE_INTERNAL_H
#define REPLFS_CHUNKD_STORE_STORE_INTERNAL_H
#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include "index.h"
#include "record.h"
#include "segment.h"
#include "store.h"
#include "base/lock.h"

#define STORE_GROUP_RECORDS 320
#define STORE_GROUP_BYTES (8u << 20)
#define STORE_SYNC_NSEC (1000 * 1000 * 1000ll) /* dirty data older than this is synced */
#define STORE_SYNC_BYTES (64u << 20)           /* or when there is so much of it */
#define STORE_CHECKPOINT_MSEC 2000
#define STORE_SPARE (8u << 20) /* kept allocated for deletions on a full disk */
#define STORE_SEGMENT_MIN (4u << 20)
#define STORE_SEGMENT_MAX (2048u << 20)

enum op_kind {
    OP_APPEND,
    OP_COPY_APPEND,
    OP_COPY_FINISH,
    OP_COPY_ABORT,
    OP_DELETE,
    OP_SYNC,
    OP_COLLECT,  /* checkpoint: fill op->ckpt, then sync */
    OP_RELOCATE, /* compaction: write r again if the index still points at src */
    OP_MARK,     /* compaction: write a DELETE or COMMIT again */
};
struct op {
    struct op *next;
    enum op_kind kind;
    int code; /* known before it reached the writer */
    bool sync;
    store_done *done; /* may be NULL */
    void *arg;
    uint64_t token;  /* COPY_* */
    uint32_t seen;   /* COPY_FINISH */
    struct record r; /* APPEND, COPY_APPEND, RELOCATE, MARK */
    struct ext src;  /* RELOCATE */
    struct buf *data;
    struct checkpoint *ckpt;
    size_t n;         /* DELETE */
    uint64_t words[]; /* DELETE: chunks; appends: checksums */
};
struct op_queue {
    struct op *head, **tail;
};

struct dead_range {
    uint32_t seg, pos;
    uint64_t len;
};
struct dead_list {
    struct dead_range *v;
    size_t n, cap;
};
struct checkpoint {
    struct delta delta;
    struct dead_list dead;
    uint64_t epoch;
};
/* A copy in the making: owned by the writer, created by store_copy_begin(). */
struct copy {
    struct copy *next;
    uint64_t token, chunk, session, gen;
    struct extents x;
    uint32_t plan_len;
    uint64_t lo, hi;
    struct log_pos first; /* its first record; seg 0: none yet */
};
/* One record of the group being written. */
struct item {
    struct op *op;
    struct record r;
    struct chunk *c; /* APPEND, DELETE, RELOCATE, COPY_FINISH */
    struct copy *cp; /* COPY_APPEND, COPY_FINISH */
    uint32_t pos;
    uint64_t end; /* position behind it */
    bool last;    /* completes its op */
};
struct group {
    struct item items[STORE_GROUP_RECORDS];
    struct iovec iov[3 * STORE_GROUP_RECORDS];
    uint8_t headers[STORE_GROUP_RECORDS * RECORD_HEADER_MAX];
    size_t n, n_iov, headers_used;
    uint64_t bytes;
};
/* Readers announce themselves, so that maintenance can wait until nobody can still use what it is
 * about to take away (a hole to punch, a segment to remove). */
struct grace {
    _Atomic unsigned phase;
    _Atomic uint64_t inside[2];
};

struct store {
    struct store_config cfg;
    char dir[4096];
    int lock_fd;
    struct store_id id;
    struct segments segs;
    struct index_db *db;
    struct index ix;
    struct grace grace;
    _Atomic uint64_t next_gen;

    _Atomic uint64_t limit; /* store_set_limit() */

    struct lock queue_lock; /* guards queue, writing, stopping */
    struct cond queue_cond;
    struct op_queue queue;
    bool writing; /* somebody is the writer just now */
    bool stopping;
    pthread_t writer;
    bool writer_runs;

    /* writer */
    struct group *group;
    struct segment *open_seg;
    bool all_cached;          /* RWF_DONTCACHE is unknown here */
    uint64_t room, room_time; /* bytes that may still be written, and when that was found out */
    struct dead_list dead;
    struct mark *marks;
    size_t n_marks, cap_marks;

    struct lock copies_lock; /* guards the list; contents belong to the writer */
    struct copy *copies;
    uint64_t next_token;

    struct lock sync_lock; /* guards sync_queue, sync_stop, written, synced, dirty_since */
    struct cond sync_cond;
    struct op_queue sync_queue;
    bool sync_stop;
    uint64_t written, synced; /* bytes since start */
    int64_t dirty_since;
    uint64_t sync_from; /* sync thread: segments below are synced */
    pthread_t syncer;
    bool syncer_runs;

    struct lock maint_lock; /* guards maint_wanted */
    struct cond maint_cond;
    bool maint_wanted; /* something changed since the last round began */
    _Atomic bool maint_stop;
    bool swept; /* maintenance: looked for forgotten dead ranges */
    pthread_t maint;
    bool maint_runs;
    struct dead_list to_punch; /* maintenance: dead and checkpointed, not yet given back */
    struct log_pos committed;  /* maintenance: position in LMDB */

    _Atomic bool spare; /* the spare file is there */
    bool readonly;      /* the disk took no writes when it was opened */
    _Atomic bool failed;
    _Atomic bool index_lost; /* the index cannot be read: what is in it cannot be found */
    struct lock error_lock;  /* guards error */
    char error[256];
    _Atomic uint64_t fsyncs, appends, append_bytes, read_bytes;
};

/* -- store.c */
struct op *op_new(enum op_kind kind, size_t words, store_done *done, void *arg);
void op_queue_init(struct op_queue *q);
void op_queue_push(struct op_queue *q, struct op *op);
struct op *op_queue_pop(struct op_queue *q);
/* Hands an op to the writer. Any thread. */
void store_submit(struct store *s, struct op *op);
/* Calls done and frees the op. */
void op_complete(struct op *op, int code);
/* The disk failed: remembered, logged and told to the owner once. Any thread. */
void store_fail(struct store *s, const char *what, const char *name, int code);
/* So did its index: not even reading goes on. Any thread. */
void store_lose_index(struct store *s, int code);
/* Makes sg the segment that is written to, and keeps it open as long as it is. 0 or -errno. Writer. */
int store_set_open(struct store *s, struct segment *sg);
void dead_add(struct dead_list *l, const struct dead_range *d);
/* index.extent: keeps live bytes of segments and the list of dead ranges. Writer. */
void store_extent(void *arg, const struct ext *e, bool live);
void store_mark(struct store *s, const struct record *r, uint64_t seg, uint32_t pos);
unsigned grace_enter(struct grace *g);
void grace_leave(struct grace *g, unsigned token);
void grace_wait(struct grace *g); /* maintenance thread only */

/* -- store_writer.c */
/* One small operation on the caller's thread, which has set `writing`. */
void store_write_here(struct store *s, struct op *op);
void *store_writer_main(void *arg);
/* Fills a checkpoint. Writer, or the only thread. */
void store_collect(struct store *s, struct checkpoint *ck);
struct copy *store_copy_find(struct store *s, uint64_t token);
/* Unlinks and frees; its records become dead. Writer. */
void store_copy_drop(struct store *s, struct copy *cp);

/* -- store_sync.c */
void *store_sync_main(void *arg);
void store_sync_wrote(struct store *s, uint64_t bytes);
void store_sync_hand(struct store *s, struct op *op); /* complete after the next fdatasync */
void store_sync_end(struct store *s);                 /* no more will come: finish and exit */

/* -- store_maint.c */
void *store_maint_main(void *arg);
int store_checkpoint(struct store *s);  /* maintenance thread, or close after it ended */
void store_maint_note(struct store *s); /* something changed: a checkpoint is due in a while */
/* Submits op and waits until it is done. Not on the writer or sync thread. */
int store_submit_wait(struct store *s, struct op *op);
/* Gives up the spare file, so that a deletion or checkpoint can be written on a full disk. False
 * when it was given up before. Any thread. */
bool store_spare_drop(struct store *s);
void checkpoint_free(struct checkpoint *ck);
/* Commits a collected checkpoint to LMDB. */
int store_commit(struct store *s, struct checkpoint *ck);

/* -- store_compact.c */
/* Moves what must stay out of the segment. 0 when it can be removed after the next checkpoint. */
int store_compact(struct store *s, struct segment *sg);
bool store_compact_wanted(const struct store *s, const struct segment *sg);
/* Adds ranges of dead records that still take space to s->to_punch: what was found dead before a
 * restart and not given back. */
int store_sweep(struct store *s, struct segment *sg);

/* -- store_read.c */
/* The bytes [off, off+len) that x covers equal p. Any thread inside a grace section, or the writer.
 */
bool store_same_bytes(struct store *s, const struct extents *x, uint32_t off, uint32_t len,
                      const uint8_t *p);

/* -- recovery.c */
int store_recover(struct store *s);
#endif
