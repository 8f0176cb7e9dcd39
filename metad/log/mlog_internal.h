/* What the mlog_*.c files share; nobody else includes this. */
#ifndef REPLFS_METAD_LOG_MLOG_INTERNAL_H
#define REPLFS_METAD_LOG_MLOG_INTERNAL_H
#include <limits.h>
#include <pthread.h>
#include <raft.h>
#include <raft/uv.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "mlog.h"
#include "base/lock.h"

#define MLOG_FORMAT 1u                /* of the data directory, in replfs.id */
#define MLOG_SEGMENT_BYTES (8u << 20) /* libraft's own is known to work at this size */
#define MLOG_SERVER_ID 1u             /* the first voter */
#define MLOG_SERVER_ADDR "metad-1"    /* not dialled: a single voter has no peers */
#define MLOG_PATH (PATH_MAX + 64)

/* ---- mlog_dir.c: id file, lock, making a cluster ---- */
int mlog_dir_path(char out[MLOG_PATH], const char *dir, const char *name);
int mlog_dir_sync(const char *dir);
int mlog_dir_read_id(const char *dir, char uuid[37]);
int mlog_dir_lock(const char *dir, int *fd);
/* Whole file into malloc'ed memory. 0 or -errno. */
int mlog_dir_read(const char *path, uint8_t **data, size_t *len);
void mlog_transport_init(struct raft_uv_transport *t);

/* ---- mlog_hwm.c: the highest acknowledged index; shows that a log lost its end ---- */
struct mlog_hwm {
    int fd;
    uint64_t seq, index, term;
    bool dirty;
};
int mlog_hwm_open(struct mlog_hwm *h, const char *dir, bool create);
int mlog_hwm_advance(struct mlog_hwm *h, uint64_t index, uint64_t term);
void mlog_hwm_sync(struct mlog_hwm *h);
void mlog_hwm_close(struct mlog_hwm *h);

/* ---- mlog_check.c: reads the stored log before libraft touches it ---- */
struct mlog_stored {
    uint64_t first, last; /* entries on disk; first > last: none */
    uint64_t last_term;
    uint64_t snapshot; /* index of the newest snapshot, 0: none */
    uint64_t snapshot_term;
    uint64_t checkpoint; /* the state file it names */
    uint64_t term;       /* libraft's current term */
    uint64_t bytes;      /* of entries behind the snapshot */
    char tail[160];      /* what is odd about the end of the open segment; empty when nothing */
};
/* dir: the data directory. 0, or -ERR_CORRUPT / -ERR_VERSION / -errno after logging why. Changes
 * nothing. */
int mlog_check(const char *dir, struct mlog_stored *out);
/* Walks one segment's bytes; pure. first: index of its first entry. Stops at the first bad batch.
 */
struct mlog_walk {
    uint64_t entries, bytes, last_term;
    uint64_t skip;   /* in: entries up to this index are not counted in bytes */
    size_t good;     /* offset behind the last good batch */
    const char *why; /* what is wrong at `good`; NULL: nothing */
    bool zeros;      /* only zeros from there on */
    int code;        /* 0, -ERR_CORRUPT, -ERR_VERSION */
};
void mlog_check_segment(const uint8_t *p, size_t len, uint64_t first, struct mlog_walk *w);

/* ---- mlog_ckpt.c: state files and the descriptors that libraft keeps as its snapshots ---- */
struct mlog_desc {
    uint64_t index; /* log position of the state file */
    uint64_t size;
    uint32_t crc;        /* CRC32C of the whole file */
    const uint8_t *tail; /* entries applied between the state file and the snapshot */
    size_t tail_len;
};
#define MLOG_DESC_HEADER 48u
int mlog_desc_decode(const uint8_t *p, size_t len, struct mlog_desc *d, const char **why);
/* Checks the state file that d names: size and checksum. Logs what is wrong. */
int mlog_ckpt_verify(const char *dir, const struct mlog_desc *d);

enum ckpt_state { CKPT_IDLE, CKPT_SAVING, CKPT_SAVED, CKPT_HANDED };
struct mlog_ckpt {
    enum ckpt_state state; /* log thread */
    uint64_t index;        /* of the state file being made */
    uint64_t base_bytes;   /* m->bytes_since at the fork */
    uint64_t retry_bytes;  /* after a failure: not again before bytes_since is above it */
    uint8_t *tail;         /* entries applied since the fork */
    size_t tail_len, tail_cap;
    pid_t pid;
    pthread_t waiter;
    uint64_t size; /* waiter's results, valid once `finished` */
    uint32_t crc;
    int code;
    atomic_bool finished;
};

/* ---- the log itself ---- */
struct mlog_proposal {
    struct mlog_proposal *next;
    mlog_applied *fn;
    mlog_after *after;
    void *arg;
    size_t len;
    uint8_t data[]; /* packed Command */
};
struct mlog_batch { /* one raft entry of ours under way */
    struct raft_apply req;
    struct mlog *m;
    struct mlog_batch *next;
    uint64_t index;
    struct mlog_proposal *head;
};
/* A request to the disk side that failed, and of which libraft knows nothing yet (mlog_io.c). */
enum mlog_kept_kind { MLOG_KEPT_APPEND, MLOG_KEPT_SNAPSHOT };
struct mlog_kept {
    void *req;
    enum mlog_kept_kind kind;
    struct mlog_kept *next;
};
enum mlog_phase { PHASE_STARTING, PHASE_READY, PHASE_FAILED };

struct mlog {
    char *dir;
    char log_dir[MLOG_PATH];
    char uuid[37];
    struct fsm *fsm;
    uint64_t checkpoint_bytes;
    void (*role_changed)(void *arg, bool leader);
    void (*failed)(void *arg);
    void *role_arg;
    int lock_fd;
    bool stopped; /* mlog_stop was called */
    struct mlog_stored stored;

    atomic_bool closing; /* no new proposals; set under lock */
    struct lock mu;      /* guards the five below */
    struct cond cond;
    struct mlog_proposal *head, **tail;
    enum mlog_phase phase;
    int start_code;

    pthread_t thread;
    atomic_bool leader, want_checkpoint;
    atomic_uint_fast64_t term, applied, log_bytes, checkpoint_index, queued;
    _Atomic(const char *) error;

    /* log thread only */
    uv_loop_t loop;
    uv_async_t wake;
    uv_timer_t timer;
    uv_check_t poll;
    struct raft_uv_transport transport;
    struct raft_io io;
    int (*io_append)(struct raft_io *io, struct raft_io_append *req,
                     const struct raft_entry entries[], unsigned n, raft_io_append_cb cb);
    int (*io_snapshot_put)(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                           const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb);
    void (*io_close)(struct raft_io *io, raft_io_close_cb cb); /* raft_uv's own three */
    raft_io_append_cb append_cb;
    raft_io_snapshot_put_cb snapshot_cb;
    raft_io_close_cb close_cb; /* libraft's */
    struct mlog_kept *kept;
    bool io_closing;
    bool stuck; /* libraft waits for a write that never ends: the log cannot be closed */
    struct raft_tracer tracer;
    struct raft raft;
    struct raft_fsm rfsm;
    struct raft_barrier barrier;
    bool raft_open, barrier_sent, stopping, broken;
    int load_code; /* why loading failed, when we know better than libraft */
    struct mlog_batch *inflight, **inflight_tail;
    unsigned ninflight;
    struct mlog_hwm hwm;
    struct mlog_ckpt ckpt;
    uint64_t bytes_since; /* entry bytes behind the newest snapshot */
    uint8_t *arena;       /* for unpacking commands */
    size_t arena_pos;
};

/* mlog_io.c, log thread */
void mlog_io_guard(struct mlog *m); /* after raft_uv_init */
/* The engine cannot go on: nothing is accepted any more, every waiter is answered with -EIO. */
void mlog_io_failed(struct mlog *m, const char *what, const char *why);
/* mlog_apply.c */
int mlog_apply_entry(struct mlog *m, uint64_t index, const uint8_t *buf, size_t len,
                     struct mlog_proposal *props);
void mlog_fail_proposals(struct mlog_proposal *p, int code);
/* mlog_ckpt.c, log thread */
void mlog_ckpt_maybe_start(struct mlog *m);
void mlog_ckpt_poll(struct mlog *m);
void mlog_ckpt_record(struct mlog *m, uint64_t index, const void *buf, size_t len);
int mlog_ckpt_hand_over(struct mlog *m, struct raft_buffer *bufs[], unsigned *n);
void mlog_ckpt_finished(struct mlog *m, struct raft_buffer *bufs[], unsigned *n);
int mlog_ckpt_restore(struct mlog *m, const void *buf, size_t len);
void mlog_ckpt_stop(struct mlog *m);
void mlog_ckpt_clean(const char *dir); /* leftovers of a crash */
/* mlog_loop.c */
int mlog_loop_init(struct mlog *m);
void *mlog_loop_main(void *arg);
#endif
