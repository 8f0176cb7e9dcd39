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
#include "digests.h"
#include "metad/fsm/fsm_cluster.h"
#include "mlog_wire.h"
#include "base/lock.h"

#define MLOG_FORMAT 1u                /* of the data directory, in replfs.id */
#define MLOG_FORMAT_JOINED 2u         /* of one that joined */
#define MLOG_SEGMENT_BYTES (8u << 20) /* libraft's own is known to work at this size */
#define MLOG_FIRST_ID 1u              /* the metad that --init makes */
#define MLOG_PATH (PATH_MAX + 64)
#define MLOG_ELECTION_MS 300u
#define MLOG_HEARTBEAT_MS 50u

/* ---- mlog_dir.c: id file, lock, making a cluster ---- */
int mlog_dir_path(char out[MLOG_PATH], const char *dir, const char *name);
int mlog_dir_sync(const char *dir);
int mlog_dir_read_id(const char *dir, char uuid[37], uint64_t *id);
/* Makes the directory a whole one. */
int mlog_dir_write_id(const char *dir, const char *uuid, uint64_t id);
void mlog_server_addr(char out[32], uint64_t id); /* "metad-1": libraft's address, never dialled */
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
/* Entries above index are about to be dropped from the log. Durable on return. 0 or a negative code. */
int mlog_hwm_lower(struct mlog_hwm *h, uint64_t index);
void mlog_hwm_sync(struct mlog_hwm *h);
void mlog_hwm_close(struct mlog_hwm *h);

/* ---- mlog_check.c: reads the stored log before libraft touches it ---- */
struct mlog_stored {
    uint64_t first, last; /* entries on disk; first > last: none */
    uint64_t last_term;
    uint64_t snapshot; /* index of the newest snapshot, 0: none */
    uint64_t snapshot_term;
    uint64_t checkpoint; /* the state file it names */
    uint64_t term;       /* libraft's current term, */
    uint64_t version;    /* ... of the newest of its two files metadata1 and 2; 0: none */
    uint64_t bytes;      /* of entries behind the snapshot */
    char tail[160];      /* what is odd about the end of the open segment; empty when nothing */
};
/* dir: the data directory; joined: not the cluster's first metad, so that its log may still be empty. 0, or -ERR_CORRUPT / -ERR_VERSION / -errno after logging why. Changes
 * nothing. */
int mlog_check(const char *dir, bool joined, struct mlog_stored *out);
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

struct mlog_file {
    char name[80];
    bool open;
    uint64_t first, last; /* closed segment: indexes. Open: counter. Snapshot: term, index */
    uint64_t stamp;       /* snapshot only */
};
struct mlog_files { /* of log/: segments, closed ones first; complete snapshots; both in order */
    struct mlog_file *seg, *snap;
    size_t nseg, nsnap;
};
/* free() seg and snap in any case. 0 or a code after a log line. */
int mlog_check_list(const char *dir, struct mlog_files *l);
/* Walks a segment on disk; first: index of its first entry. */
int mlog_check_read(const char *dir, const struct mlog_file *f, uint64_t first,
                    struct mlog_walk *w);

/* ---- mlog_repair.c: what a crash leaves when another leader's entries were put in place of ours ---- */
/* dir: the data directory; mark: the high-water mark, 0: none. Removes files of log/ that are of no use. 0 or a code
 * after a log line. */
int mlog_repair(const char *dir, uint64_t mark);

/* ---- mlog_ckpt.c: state files and the descriptors that libraft keeps as its snapshots ---- */
struct mlog_desc {
    uint64_t index; /* log position of the state file */
    uint64_t size;
    uint32_t crc;        /* CRC32C of the whole file */
    const uint8_t *tail; /* entries applied between the state file and the snapshot */
    size_t tail_len;
};
#define MLOG_DESC_HEADER 48u
/* Fills in p's header; its tail is behind it already. p holds MLOG_DESC_HEADER + d->tail_len bytes. */
void mlog_desc_make(const struct mlog_desc *d, uint8_t *p);
#define MLOG_TAIL_HEADER 16u /* of an entry in a tail: u64 index, u32 length, u32 0 */
int mlog_desc_decode(const uint8_t *p, size_t len, struct mlog_desc *d, const char **why);
/* Checks the state file that d names: size and checksum. Logs what is wrong. */
int mlog_ckpt_verify(const char *dir, const struct mlog_desc *d);

enum ckpt_state { CKPT_IDLE, CKPT_SAVING, CKPT_SAVED, CKPT_HANDED };
struct mlog_ckpt {
    enum ckpt_state state; /* log thread */
    uint64_t index;        /* of the state file being made */
    uint64_t base_bytes;   /* m->bytes_since at the fork */
    uint64_t retry_bytes;  /* after a failure: not again before bytes_since is above it */
    int64_t fork_ns;       /* how long the last fork took; 0: there was none */
    enum { HAND_NONE, HAND_ASKED, HAND_REFUSED } hand;
    uint8_t *tail; /* entries applied since the fork */
    size_t tail_len, tail_cap;
    pid_t pid;
    pthread_t waiter;
    uint64_t size; /* waiter's results, valid once `finished` */
    uint32_t crc;
    int code;
    atomic_bool finished;
};
#define MLOG_LONG_FORK_MS 100u

/* ---- the log itself ---- */
struct mlog_proposal {
    struct mlog_proposal *next;
    mlog_applied *fn;
    mlog_after *after;
    void *arg;
    unsigned level; /* the feature level that it needs */
    size_t len;
    uint8_t data[]; /* packed Command */
};
struct mlog_batch { /* one raft entry of ours under way */
    struct raft_apply req;
    struct mlog *m;
    struct mlog_batch *next;
    uint64_t index, term;
    struct mlog_proposal *head;
};
/* A request to the disk side that failed, and of which libraft knows nothing yet (mlog_io.c). */
enum mlog_kept_kind { MLOG_KEPT_APPEND, MLOG_KEPT_SNAPSHOT };
struct mlog_kept {
    void *req;
    enum mlog_kept_kind kind;
    struct mlog_kept *next;
};
struct mlog_append { /* entries on their way to the disk */
    struct mlog_append *next;
    const struct raft_io_append *req; /* libraft's, which names it */
    uint64_t last;
    uint64_t dropped_from; /* entries from here on were dropped right before; 0: none */
    int64_t since;         /* clock_mono */
    bool dropped;          /* by another leader, meanwhile */
};
enum mlog_fetch_state { FETCH_IDLE, FETCH_RUNNING, FETCH_HERE };
struct mlog_fetch {
    enum mlog_fetch_state state; /* log thread */
    struct raft_message msg;     /* held back */
    pthread_t thread;
    char addr[256];
    struct raft_buffer desc; /* the thread's results, valid once `finished` */
    int code;
    atomic_bool finished, stop;
};
struct mlog_change { /* asked for by another thread */
    struct mlog_change *next;
    enum mlog_change_kind kind;
    uint64_t id;
    mlog_changed *fn;
    void *arg;
    int64_t deadline; /* clock_mono */
};
struct mlog_members {
    struct mlog_change *asked, **asked_tail;   /* under m->mu */
    struct mlog_member seen[MLOG_MEMBERS_MAX]; /* under m->mu: what mlog_members tells */
    unsigned nseen;
    struct raft_change req;
    bool req_busy; /* libraft has it */
    struct raft_transfer transfer;
    bool transfer_busy;
    struct mlog_change *now; /* what req or transfer is for; NULL: our own promotion */
};
enum mlog_phase { PHASE_STARTING, PHASE_READY, PHASE_FAILED };

struct mlog {
    char *dir;
    char log_dir[MLOG_PATH];
    char uuid[37];
    uint64_t id; /* of this metad */
    struct fsm *fsm;
    struct mlog_net *net; /* NULL: no rpc loop was given, this metad is alone */
    uint64_t checkpoint_bytes;
    int64_t long_fork_ns;
    void (*role_changed)(void *arg, bool leader);
    void (*failed)(void *arg);
    void (*restored)(void *arg);
    void *role_arg;
    struct mlog_observer observer;
    int lock_fd;
    bool stopped; /* mlog_stop was called */
    struct mlog_stored stored;

    atomic_bool closing; /* no new proposals; set under lock */
    struct lock mu;      /* guards the six below */
    struct cond cond;
    struct mlog_proposal *head, **tail;
    atomic_uint_fast64_t leading; /* changes under mu; 0: does not lead */
    enum mlog_phase phase;
    int start_code;

    pthread_t thread;
    atomic_bool leader, want_checkpoint, want_flip;
    atomic_uint_fast64_t leader_id;  /* 0: none known */
    atomic_int_fast64_t lease_until; /* clock_boot ns: until then nobody else leads */
    atomic_uint_fast64_t term, last, applied, log_bytes, checkpoint_index, queued;
    _Atomic(const char *) error;

    /* log thread only */
    uv_loop_t loop;
    uv_async_t wake;
    uv_timer_t timer;
    uv_prepare_t before_poll;
    uv_check_t poll;
    raft_io_recv_cb recv_cb;
    int (*io_start)(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv);
    int (*io_snapshot_get)(struct raft_io *io, struct raft_io_snapshot_get *req,
                           raft_io_snapshot_get_cb cb);
    int (*io_truncate)(struct raft_io *io, raft_index index);
    int (*io_set_term)(struct raft_io *io, raft_term term);
    int (*io_set_vote)(struct raft_io *io, raft_id id);
    raft_io_snapshot_get_cb snapshot_get_cb;
    int64_t lease_barred_until; /* clock_mono: leadership is or was being handed over */
    uint64_t lease_barred_term; /* in this term */
    int64_t votes_from;         /* clock_mono: nobody's vote is given before */
    uint64_t disrupt_term;      /* the leader has asked for an election to this term */
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
    struct mlog_append *appends;
    uint64_t append_index; /* of the next entry to be stored */
    uint64_t
        dropped_from; /* the next append comes in place of entries from this one on; 0: of none */
    int64_t disk_limit_ns;
    bool no_segment; /* one is being made; libraft tries again and again */
    bool said_slow;
    atomic_bool guarded;  /* what the tracer needs is there; any thread */
    atomic_bool unclosed; /* a full segment could not be closed; any thread */
    bool io_closing;
    bool stuck; /* libraft waits for a write that never ends: the log cannot be closed */
    struct raft_tracer tracer;
    struct raft raft;
    struct raft_fsm rfsm;
    struct raft_barrier barrier;
    bool raft_open, barrier_sent, stopping, broken;
    int load_code;        /* why loading failed, when we know better than libraft */
    uint64_t leaderships; /* so many until now */
    struct mlog_batch *inflight, **inflight_tail;
    unsigned ninflight;
    struct mlog_members members;
    struct mlog_fetch fetch;
    bool started; /* libraft has loaded what was stored */
    struct mlog_hwm hwm;
    struct mlog_ckpt ckpt;
    struct digests *digests; /* NULL while it is loading: what others compared long ago is over */
    int64_t check_next;
    unsigned check_ms;
    uint64_t bytes_since; /* entry bytes behind the newest snapshot */
    uint8_t *arena;       /* for unpacking commands */
    size_t arena_pos;
};

static inline bool mlog_alone(const struct mlog *m) /* log thread */
{
    const struct raft_configuration *c = &m->raft.configuration;
    unsigned voters = 0;
    bool self = false;

    for (unsigned i = 0; i < c->n; i++)
        if (c->servers[i].role == RAFT_VOTER) {
            voters++;
            self = self || c->servers[i].id == m->id;
        }
    return voters == 1 && self;
}

/* ---- mlog_net.c: messages to other metads; log thread unless said otherwise ---- */
struct mlog_peer {
    struct mlog_peer *next;
    uint64_t id;
    char addr[256];
    char told[256];        /* the address that its messages name */
    struct rpc_conn *conn; /* NULL: not dialled */
    int64_t redial_at;     /* clock_mono */
    unsigned backoff_ms;
    bool said;          /* that it cannot be reached */
    unsigned newest;    /* feature level that it knows, as it says; 0: it has not said */
    uint64_t digest_at; /* position of the digest that it told last */
    atomic_uint calls;
    atomic_size_t bytes; /* of entries in these calls */
    atomic_int_fast64_t
        echoed; /* clock_boot: the newest message of term echo_term that it followed */
    atomic_uint_fast64_t echo_term;
    atomic_int_fast64_t heard; /* clock_mono, 0: never */
};
struct mlog_in { /* messages received */
    struct mlog_in *next;
    struct rpc_req *req;
    uint64_t from, term;
    int64_t sent;
    char addr[256]; /* of the sender, as it says; likewise these three */
    unsigned newest;
    uint64_t digest_at, digest;
    size_t bytes;
    struct mlog_msgs msgs;
};
struct mlog_sent { /* libraft waits for its callback */
    struct mlog_sent *next;
    struct raft_io_send *req;
};
struct mlog_net {
    struct mlog *m;
    struct rpc_loop *loop;
    bool (*addr_of)(void *arg, uint64_t id, char out[256]);
    void *addr_arg;
    struct rpc_service svc;
    atomic_uint_fast64_t cut; /* tests: bit per id: nothing goes to or comes from there */
    atomic_uint calls;        /* under way, of all peers */
    atomic_bool doubted;      /* a leader said that this metad is no member */
    atomic_uint newest;       /* feature level that it says it knows; tests: another one */

    struct lock mu;   /* guards the six below and what mlog_serve.c has */
    struct cond cond; /* calls end, pieces are asked for */
    char addr[256];   /* our own */
    struct mlog_in *in, **in_tail;
    unsigned nin;
    size_t in_bytes;
    bool stopped;

    /* mlog_serve.c, under mu */
    pthread_t server;
    bool serving, serve_stop;
    struct mlog_piece *pieces, **pieces_tail;
    unsigned npieces;

    /* log thread */
    struct mlog_peer *peers;
    struct mlog_sent *sent, **sent_tail;
    uint64_t snap_index, snap_term; /* of the snapshot that was loaded last */
    char *saved;                    /* the file of addresses as it was written (mlog_peers.c) */
};
int mlog_net_new(struct mlog *m, const struct mlog_config *cfg);
void mlog_net_free(struct mlog_net *n);        /* any thread, the log thread is gone */
void mlog_net_wrap(struct mlog *m);            /* after raft_uv_init */
void mlog_net_flush(struct mlog *m, int code); /* calls back for what was sent */
void mlog_net_tick(struct mlog *m);
void mlog_net_close(struct mlog *m); /* the log is closing: no calls begin any more */
void mlog_net_send(struct mlog *m, const struct raft_message *msg);
void mlog_net_told(struct mlog *m,
                   const struct mlog_in *in); /* what a message says of its sender */
struct mlog_peer *mlog_net_peer(struct mlog *m, uint64_t id); /* NULL: never written to */
/* Where it is, as the state or its own messages say; false: not known. */
bool mlog_net_addr(struct mlog *m, uint64_t id, char out[256]);
/* Until when (clock_boot) a majority follows this leader. */
int64_t mlog_net_lease(struct mlog *m);

/* ---- mlog_peers.c: the file of addresses; log thread ---- */
void mlog_peers_load(struct mlog *m); /* before libraft starts */
void mlog_peers_save(struct mlog *m); /* when it is another one than before */

/* ---- mlog_recv.c ---- */
void mlog_recv_all(struct mlog *m); /* log thread: what was received goes to libraft */
void mlog_recv_drop(struct mlog_in *in, int code, const char *why);

/* ---- mlog_member.c: who belongs to the cluster; log thread unless said otherwise ---- */
void mlog_member_init(struct mlog *m);
void mlog_member_tick(struct mlog *m);           /* each turn of the loop */
void mlog_member_note(struct mlog *m);           /* now and then, and after each change of role */
void mlog_member_stop(struct mlog *m, int code); /* answers those who wait */

/* ---- mlog_fetch.c: snapshots from other metads; log thread ---- */
/* Takes over an InstallSnapshot: it goes to libraft once all that it names is here. */
void mlog_fetch_begin(struct mlog *m, const struct raft_message *msg);
void mlog_fetch_poll(struct mlog *m); /* each turn of the loop */
void mlog_fetch_stop(struct mlog *m); /* waits for its thread */
/* ---- mlog_serve.c: pieces of checkpoints for other metads ---- */
void mlog_serve_stop(struct mlog_net *n); /* any thread: no piece is sent any more */

/* mlog_io.c, log thread */
void mlog_io_guard(struct mlog *m); /* after raft_uv_init */
void mlog_io_tick(struct mlog *m);  /* now and then */
/* Entries above `last` are about to go from the log: the high-water mark is lowered. */
void mlog_io_dropped(struct mlog *m, uint64_t last);
/* The engine cannot go on: nothing is accepted any more, every waiter is answered with -EIO. */
void mlog_io_failed(struct mlog *m, const char *what, const char *why);
/* mlog_apply.c: 0, or why the entry cannot be applied, in whole or from some command on. props, its proposers, are
 * answered in any case. */
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
/* One that is being made is of no use any more. Not while libraft has its descriptor. */
void mlog_ckpt_cancel(struct mlog *m);
int mlog_ckpt_file(char out[MLOG_PATH], const char *dir, uint64_t index, const char *suffix);
void mlog_ckpt_clean(const char *dir); /* leftovers of a crash */
/* mlog_loop.c */
int mlog_loop_init(struct mlog *m);
void *mlog_loop_main(void *arg);
#endif
