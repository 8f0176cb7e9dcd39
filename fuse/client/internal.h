/* Private to fuse/client: how a client is put together.
 *
 *   session.c    the connection to metad, the session, retries, keepalives
 *   closes.c  files that are open no more
 *   nodes.c      the table of chunkds and one connection to each
 *   grants.c     pool of chunks that may be written
 *   layout.c     extents and chunk locations fetched from metad
 *   overlay.c    pure: bytes not yet committed over the committed map
 *   cfile.c      open files by inode
 *   write.c      write(2) into append buffers, dirty accounting
 *   append.c     O_APPEND
 *   data.c       clones, fallocate, holes
 *   quota.c      whether a write still fits into the quotas
 *   send.c       append buffers to chunkds, failures, resending
 *   sync.c       chunks to stable storage, rewriting what too few copies could sync
 *   write_order.c      that before what displaces other bytes
 *   flush.c      commit, flush, fsync, the background flusher
 *   read_round.c     one round of reading from chunkds, checked, with fall-over
 *   read.c       reading until it succeeds or cannot
 *   async_reply.c      reads and closes that nobody waits for
 *   prefetch.c      small files, read before they are opened
 *   dir_pages.c       directories' pages, kept, and listed before they are asked for
 *   client.c     open, close and the plain calls
 *   locks.c      file locks held and asked for
 *   idmap.c      hash table from 64-bit ids to pointers
 *
 * Lock order: cfile.mu first, then at most one of the leaf locks files.mu, nodes.mu, grants.mu,
 * session.mu, dirty.mu, locks.mu (session.mu also inside files.mu and locks.mu); dirs.mu is taken before
 * the lease cache's. No lock is held over a call that waits for a peer, nor over rpc_call
 * (which may run its completion at once). Completions run on loop threads: they take cfile.mu
 * briefly and never wait for a condition. */
#ifndef REPLFS_CLIENT_INTERNAL_H
#define REPLFS_CLIENT_INTERNAL_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include "client/client.h"
#include "client/cache/lease_cache.h"
#include "base/clock.h"
#include "base/cond.h"
#include "base/error.h"
#include "base/extmap.h"

#define APPEND_MAX (1u << 20)
#define CHUNK_MAX (64u << 20)
#define COPIES_MAX 8u
#define INFLIGHT_MAX 8u               /* appends on their way, per file */
#define UNCOMMITTED_MAX (64ull << 20) /* per file, before the flusher commits early */
#define APPEND_TIMEOUT_MS 10000u      /* one append through the whole chain */
#define COMMIT_EXTENTS_MAX 4096u      /* extents in one CommitOp */
#define APPEND_SLOW_MS 3000           /* then see whether the chain is alive */
#define NODE_BAD_MS 10000             /* a chunkd that failed is not written to for so long */
#define FEW_RETRY_MS 200              /* too few chunkds: ask again */

/* ---- idmap.c: not thread-safe; values are never NULL ---- */
struct idmap {
    struct idmap_slot {
        uint64_t id;
        void *val;
    } * slots;
    size_t cap, n;
};
void *idmap_get(const struct idmap *m, uint64_t id); /* NULL: none */
void idmap_put(struct idmap *m, uint64_t id, void *val);
void *idmap_del(struct idmap *m, uint64_t id); /* the value that was there or NULL */
/* *pos 0 starts; NULL at the end. The map must not change meanwhile. */
void *idmap_next(const struct idmap *m, size_t *pos);
void idmap_clear(struct idmap *m); /* frees the table, not the values */

/* ---- overlay.c ---- */
/* One stretch of the file inside an append buffer. */
struct piece {
    uint64_t file_off;
    uint32_t len;
    uint32_t buf_off;
};
enum abuf_state { ABUF_FILLING, ABUF_QUEUED, ABUF_SENT, ABUF_ACKED, ABUF_COMMITTING };
struct wchunk;
struct append_wait { /* of a writer, on its stack; under the file's mu */
    bool done;
    int rc;
    uint64_t off; /* where it went */
};
/* One append: bytes of the file on their way to a chunk.
 *   FILLING -> QUEUED (full, or flushed) -> SENT -> ACKED (buf given back) -> COMMITTING
 *   SENT -> QUEUED when the chunk failed; COMMITTING -> gone once metad has the extents. */
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
    struct append_wait *wait; /* who waits for it */
    uint64_t grows;           /* bytes that were a hole when they were written (quota.c) */
    uint64_t over;            /* a copy of bytes of this chunk, or 0: see CommitOp.over */
    int64_t over_shift;
};
/* Adds a stretch, extending the last piece when it continues it. 0 or -ENOMEM. */
int abuf_add_piece(struct abuf *a, uint64_t file_off, uint32_t len);
/* How many bytes an append buffer beginning at file_off may take, so that the next one begins
 * aligned. */
uint32_t abuf_limit(uint64_t file_off);
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
/* Removes from `over` what still points at a. */
int overlay_drop(struct extmap *over, const struct abuf *a);
/* True when [off, off+len) lies in one stretch of buffer id; *at is where. */
bool overlay_inside(const struct extmap *over, uint64_t off, uint32_t len, uint64_t id,
                    uint32_t *at);
/* Extents for a commit: pieces of the buffers first..(n of them), merged where they continue
 * each other. Stops before exceeding max extents; *used says how many buffers went in (at least
 * one). malloc'ed array. */
struct ext *overlay_extents(struct abuf *const *bufs, size_t n, const uint64_t *chunks, size_t max,
                            size_t *nout, size_t *used);

/* ---- where a chunk is ---- */
struct cloc {
    uint64_t chunk;
    uint32_t len;
    uint32_t n;
    uint32_t chunkds[COPIES_MAX];
    bool lost; /* nobody has it, as far as metad knows, which has heard all chunkds */
    uint32_t cap_len;
    uint8_t cap[64];
};
/* client_clock.c: the time for what is changed now, wall ns; what metad's clock says. */
int64_t client_now(struct client *c);
void client_told_time(struct client *c, uint64_t wall_ms);

int cloc_from(struct cloc *l, const Replfs__ChunkLoc *m); /* 0 or -ERR_PROTOCOL */

/* A chunk being written by one file. Protected by that file's mu; the links by grants.mu. */
struct wchunk {
    struct cloc loc;
    uint64_t session;
    unsigned goal;
    int64_t expiry;         /* of the capability, clock_boot ns */
    unsigned refs;          /* file's current chunk, each append buffer, unsynced list */
    uint32_t len;           /* bytes given out to appends */
    uint32_t acked, synced; /* bytes that all copies have, have on stable storage */
    struct {                /* of each of loc.chunkds: what its last answer said */
        uint32_t end;
        uint64_t registration;
    } took[COPIES_MAX];
    uint32_t safe;     /* that one at least has there: write_order.c */
    int64_t few_since; /* its known copies are on too few hosts, 0: they are not */
    unsigned inflight; /* appends sent, not answered; of no interest once failed */
    bool direct;       /* they go to each copy at once, not along the chain (send.c) */
    bool failed;       /* no more appends */
    bool unsynced_listed;
    bool short_sync; /* the last sync reached too few copies */
    bool borrowed;   /* of the committed map: not a grant of ours, only to be synced */
    struct wchunk *next_unsynced;
    struct wchunk *prev, *next; /* grants: live or pooled, in order of id */
};

/* ---- open files ---- */
struct cfile {
    struct client *c;
    uint64_t ino;
    atomic_uint refs; /* memory: opens, background work, completions */

    /* files.mu */
    unsigned opens;
    bool untold; /* metad does not know that it is open */
    int64_t opened_at;
    bool dirty_listed;
    struct cfile *dirty_prev, *dirty_next;

    pthread_mutex_t mu; /* everything below */
    pthread_cond_t cv;  /* any change of state */
    Replfs__Attr attr;  /* as metad last said */
    uint64_t dirty_end; /* end of the last byte not committed, 0: none */
    int64_t dirty_mtime;
    bool kill_suid; /* some of what is not committed clears setuid */
    /* committed map */
    struct extmap base;
    uint64_t base_to; /* known up to here; UINT64_MAX: wholly */
    uint64_t map_gen; /* changes with every commit or truncate: older layouts are refused */
    bool fetching;
    struct idmap locs; /* chunk -> struct cloc */
    struct buf *whole; /* its bytes, read ahead; they count while map_gen is whole_gen and no bytes
                        * are uncommitted */
    uint64_t whole_gen, whole_begun;
    /* bytes not committed */
    struct extmap over;
    struct abuf *head, *tail;
    struct idmap abufs;
    uint64_t next_abuf;
    bool streaming; /* the last buffer was filled up: take a big one at once */
    struct wchunk *wcur, *unsynced;
    unsigned inflight;
    uint64_t uncommitted; /* acknowledged bytes */
    uint64_t growing;     /* sum of the buffers' grows */
    bool sending, committing;
    bool through;            /* others are at it: nothing is kept back */
    bool eager;              /* closed with bytes not committed: as soon as possible */
    unsigned linger;         /* closes that wait until nothing is left to commit */
    struct closing *closing; /* those that nobody waits for, in no order */
    bool want_grant;         /* in the grants' waiting list */
    bool syncing;            /* a background sync is under way */
    bool ordering;           /* one of all there is: commits may wait for it (write_order.c) */
    int64_t order_at;        /* and not before, since the last one failed */
    uint64_t seam;           /* where bytes that are safe may end */
    uint64_t cut;            /* it had bytes up to here before it was cut or punched */
    int err;                 /* not reported yet */
    int last_err;            /* the last one */
    unsigned nerrs;          /* so many */
    bool base_synced; /* all of the committed map is on stable storage, or on the unsynced list */
    int last_fail;    /* why the last append failed */
    unsigned fails;   /* failures in a row */
    int64_t retry_at; /* not before */
    int64_t progress; /* last time something went forward */
};

struct open_dir {
    uint64_t ino;
    unsigned opens;
    bool told; /* metad knows that it is open */
};

struct node {
    uint32_t id;
    char addr[128], host_id[64], host_name[64];
    unsigned state, load;
    struct rpc_conn *conn;
    char conn_addr[128];
    int64_t dial_after; /* backoff */
    unsigned backoff_ms;
    int64_t bad_until;    /* failed a write lately */
    bool bad_hard;        /* a probe does not clear it (no space) */
    bool probing, silent; /* silent: did not answer the last probe */
    int64_t probe_at;
    atomic_uint inflight;
    uint32_t latency_us; /* smoothed */
};

#define PREFETCH_THREADS 2u
#define ATIME_SLOTS 8192u
#define ATIME_ENTRIES_MAX 4096u

struct pool {
    struct wchunk **items; /* a ring would do; few enough to shift */
    size_t n, want;        /* ready, aimed at */
    size_t waiting;        /* takers that found none */
};

struct client {
    struct client_config cfg;
    struct lease_cache *leases;
    char *name;
    struct rpc_loop *loop;
    char host_id[64];
    atomic_bool stopping;
    _Atomic int64_t
        clock_offset; /* client_clock.c; metad's wall clock minus ours, where that is much */

    struct {
        pthread_mutex_t mu;
        pthread_cond_t cv;
        char **addrs;
        char **errors; /* last error per address, for messages */
        size_t naddrs, cur;
        struct rpc_conn *conn;
        bool connecting;
        uint64_t id;                              /* session, 0: none yet */
        uint64_t seen_incarnation, seen_position; /* of metad's state, the newest told */
        unsigned lease_ms, term_ms, min_copies;
        uint32_t lapses;        /* of the session, as told */
        struct rpc_service svc; /* requests of metad: recalls */
        char cluster[40];
        uint64_t next_seq;
        uint64_t *pending; /* seqs not answered yet, unordered */
        size_t npending, cap_pending;
        pthread_t thread;
        bool started;
        uint64_t *closes; /* inodes to tell metad about */
        size_t ncloses, cap_closes;
        uint64_t *closing; /* being told right now */
        size_t nclosing;
        bool closes_now; /* somebody waits for them */
    } session;
    struct {
        pthread_mutex_t mu;
        struct idmap map;
        uint64_t epoch;
        bool stale;
    } nodes;
    struct {
        pthread_mutex_t mu;
        pthread_cond_t cv;
        struct pool pools[COPIES_MAX + 1];
        struct wchunk *oldest, *newest; /* every chunk we hold, in order of id */
        uint64_t last_id;
        struct cfile **waiting;
        size_t nwaiting, cap_waiting;
        char missing[256]; /* chunkds that were down at the last grant */
        int last_code;
        pthread_t thread;
        bool started;
    } grants;
    struct {
        pthread_mutex_t mu; /* a leaf */
        pthread_cond_t cv, fetched;
        atomic_size_t held; /* bytes of open files */
        struct prefetch *a; /* NULL: nothing is read ahead */
    } prefetch;
    struct {
        pthread_mutex_t mu;
        pthread_cond_t cv, came;
        struct dirs *d;
    } dirs;
    struct {                /* reads and closes that nobody waits for: see async_reply.c */
        pthread_mutex_t mu; /* a leaf but for what hold takes */
        pthread_cond_t cv;
        struct async_reply *first;
        size_t n;
        bool ticking;
    } async_replies;
    struct {
        pthread_mutex_t mu;
        struct idmap map;
        struct idmap dirs; /* ino -> struct open_dir */
        struct cfile *dirty;
        atomic_size_t untold;                    /* open, unknown to metad */
        _Atomic(struct cfile_telling *) refused; /* opens that metad would not hear of yet */
        atomic_uint removing; /* names are on their way out: opens wait for metad */
        int64_t told_at;      /* flusher's */
        pthread_cond_t flush_cv;
        bool flush_now;
        pthread_t thread;
        bool started;
    } files;
    struct {
        pthread_mutex_t mu;
        pthread_cond_t cv;
        uint64_t bytes;
    } dirty;
    struct {
        pthread_mutex_t sending; /* taken first */
        pthread_mutex_t mu;      /* map, since */
        struct idmap map;        /* ino -> struct atime_entry */
        int64_t since;           /* work waits since; 0: none */
        atomic_size_t n;         /* of map, to look without the lock */
        atomic_ullong seen[ATIME_SLOTS];
    } atime;
    struct {
        pthread_mutex_t mu; /* a leaf */
        pthread_cond_t cv, done_cv;
        struct queue_op *head, **tail;
        uint64_t put, done;  /* so many ops */
        int64_t moved;       /* when it last went forward */
        uint64_t hurry;      /* up to here somebody waits */
        struct idmap inos;   /* ino -> struct queue_ino */
        atomic_size_t ninos; /* to look without the lock */
        pthread_t thread;
        bool started, stop;
    } queue;
    struct {
        pthread_mutex_t mu;
        uint64_t next, upto, session;
    } inos; /* given by metad for what we create */
    struct client_locks *locks;
    atomic_uint life;  /* how often the session has lapsed and gone on, and 1 */
    atomic_uint lost;  /* changes that were answered and that metad did not do */
    atomic_uint fails; /* of cfile_fail, all files together */
    atomic_ullong appends, sealed_early, read_retries, crc_errors;
};

/* ---- session.c ---- */
int session_start(struct client *c);
void session_stop(struct client *c);
uint64_t session_id(struct client *c);
unsigned session_min_copies(struct client *c, unsigned goal);
int64_t client_deadline(const struct client *c);
/* A reference to a live connection with our session on it, or NULL at the deadline. */
struct rpc_conn *session_conn(struct client *c, int64_t deadline);
unsigned session_try_ms(struct client *c, int64_t deadline); /* of one attempt */
/* What to do after a failed attempt: true: try again. Sleeps when metad is busy. */
bool session_attempt_failed(struct client *c, struct rpc_conn *conn, const struct rpc_result *res,
                            int64_t deadline, unsigned *busy_ms);

/* ---- mutation.c ---- */
#define MUTATE_MAX 256u
struct mutation {
    Replfs__MetaOp *op; /* the caller's, until done */
    uint64_t need;      /* session that it is bound to, 0: any */
    /* Once, on the thread of session_mutate_list; r: the answer, or NULL. m may be freed. */
    void (*done)(struct mutation *m, int code, const Replfs__MutationResult *r);
    /* Instead of done, when the deadline has passed and it may still be executed: it has to be handed to
     * another session_mutate_list as it is. NULL: done is told. */
    void (*late)(struct mutation *m);
    bool known;    /* the lease cache has it already: done sees to it */
    unsigned life; /* client's, when the caller was answered; 0: it waits for this */
    /* private; zero at first */
    uint64_t seq, session; /* whose number it is, 0: it has none */
    bool maybe_done;       /* it was sent, and the answer did not come */
};
/* Executes them in order, in as few messages as they fit into while nothing goes wrong; waits until all
 * are done. n: at most MUTATE_MAX. */
void session_mutate_list(struct client *c, struct mutation *const *list, size_t n,
                         int64_t deadline);
/* One, behind what queue.c still has of its inodes. need: see struct mutation; -ERR_SESSION when it
 * is gone. */
int session_mutate(struct client *c, Replfs__MetaOp *op, uint64_t need, int64_t deadline,
                   Replfs__Attr *attr, Replfs__Attr *parent);
/* Also hands out MutationResult.value. */
int session_mutate_value(struct client *c, Replfs__MetaOp *op, uint64_t need, int64_t deadline,
                         Replfs__Attr *attr, Replfs__Attr *parent, uint64_t *value);
int session_ask(struct client *c, Replfs__Envelope *req, int64_t deadline, struct rpc_result *out);
/* Not behind them: for whoever they wait for. */
int session_ask_now(struct client *c, Replfs__Envelope *req, int64_t deadline,
                    struct rpc_result *out);
/* The present connection (a reference) and the session on it, or NULL: none just now. */
struct rpc_conn *session_conn_now(struct client *c, uint64_t *session);
/* conn is of no use any more: the session thread dials anew. leader: where to, or NULL. */
void session_conn_failed(struct client *c, struct rpc_conn *conn, const char *leader);
/* An answer to a request of this session says how far metad's state had come. */
void session_saw(struct client *c, uint64_t session, uint64_t position);
bool session_elsewhere(int code); /* worth trying again on another connection */
/* Fire and forget on the present connection. */
void session_tell(struct client *c, Replfs__Envelope *req);
/* The same, and done hears of the answer: once, perhaps before this returns, or on a loop thread. */
typedef void session_told(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload);
void session_tell_then(struct client *c, Replfs__Envelope *req, session_told *done, void *arg);
void session_close_ino(struct client *c, uint64_t ino);
#define CLOSE_BATCH 256 /* so many are not waited with */
/* Tells metad of those that are listed; false: there were none. The session thread's. */
bool session_send_closes(struct client *c, int64_t deadline);
void session_flush_closes(struct client *c); /* metad knows them all; gives up after a while */
/* A file is being opened: its pending close is dropped (true), or waited for when it is under
 * way. */
bool session_keep_ino(struct client *c, uint64_t ino);
void attr_copy(Replfs__Attr *dst, const Replfs__Attr *src);

/* ---- queue.c ---- */
int queue_start(struct client *c);
void queue_stop(struct client *c); /* what is queued is done first, or fails as metad is away */
/* One change that nobody waits for yet. Sent in the order put. */
struct queue_op {
    struct mutation m; /* its done is called on the sender's thread; the op may be freed there */
    uint64_t ino;      /* that it changes */
    uint64_t dir;      /* where it makes ino known under a name; 0: it does not */
    struct queue_op *next;
};
void queue_put(struct client *c, struct queue_op *o); /* may be called with a file's mu held */
/* Takes over a change of attributes of a file under an exclusive lease. a: the attributes as known, then
 * as they are to be shown. held: kept until queue_release, since bytes written before are not
 * committed. False: it is not one that can wait, nothing was done. */
bool queue_setattr(struct client *c, const Replfs__SetattrOp *op, Replfs__Attr *a, bool held);
void queue_release(struct client *c, uint64_t ino);  /* file's mu may be held */
void queue_accessed(struct client *c, uint64_t ino); /* a former atime is over */
void queue_wrote(struct client *c, uint64_t ino);    /* later bytes: a former mtime is over */
bool queue_queued(struct client *c, uint64_t ino);   /* something of ino is on its way */
bool queue_naming(struct client *c, uint64_t ino);   /* its name, or one in it, is on its way */
/* The following wait until metad has something. 0, or -ERR_TIMEOUT: it has been away for too long; what is
 * queued stays queued.
 *
 * Until few enough are queued that one more is no burden; false at the time-out. */
bool queue_room(struct client *c);
/* Before a question to metad: until it knows the names that the answer depends on. */
int queue_before_ask(struct client *c, const Replfs__Envelope *req);
/* Somebody waits for what is queued of ino, elsewhere. May be called with a file's mu held. */
void queue_hurry(struct client *c, uint64_t ino);
/* Until what was put before now is done: of ino, 0: of all. */
int queue_wait(struct client *c, uint64_t ino);
/* The same, and first what is held is committed and released. No file's mu held. */
int queue_settle(struct client *c, uint64_t ino);
/* Before a change that is not put here. */
int queue_before(struct client *c, const Replfs__MetaOp *op);
/* Lays over a what metad does not know yet. May be called with a file's mu held. */
void queue_overlay(struct client *c, Replfs__Attr *a);
/* Adds the inodes with something held or queued to a malloc'ed list. */
void queue_inos(struct client *c, uint64_t **inos, size_t *n);

/* ---- deferred_names.c ---- */
void names_init(struct client *c);
void names_free(struct client *c);

/* ---- atime.c ---- */
void atime_init(struct client *c);
void atime_free(struct client *c);
bool atime_counts(enum client_atime mode, bool dirs, const Replfs__Attr *a, int64_t now);
/* Lays over a what this client read. May be called with a file's mu held. */
void atime_overlay(struct client *c, Replfs__Attr *a);
void atime_note(struct client *c, const Replfs__Attr *a); /* a is being shown */
void atime_tick(struct client *c);                        /* flusher: sends what is old enough */

/* ---- recall.c ---- */
void recall_request(void *client, struct rpc_req *req);     /* of rpc_service */
void recall_forget(void *client, uint64_t ino, bool flush); /* an lease_cache_forget */

/* Asks for an exclusive lease on f, so that bytes may be kept back. 0 whether or not it came. */
int lease_ask(struct cfile *f);

/* ---- nodes.c ---- */
void nodes_init(struct client *c);
void nodes_free(struct client *c);
int nodes_refresh(struct client *c);                    /* waits for metad */
void nodes_saw_epoch(struct client *c, uint64_t epoch); /* of a reply */
void nodes_tick(struct client *c); /* session thread: refresh when stale, probes */
bool nodes_known(struct client *c, uint32_t id);
bool nodes_addr(struct client *c, uint32_t id, char out[128]);
struct rpc_conn *nodes_conn(struct client *c,
                            uint32_t id); /* a reference, or NULL: not reachable just now */
void nodes_fail(struct client *c, uint32_t id, bool hard);
void nodes_probe(struct client *c, uint32_t id);  /* is it alive? */
bool nodes_silent(struct client *c, uint32_t id); /* its last probe was not answered */
bool nodes_usable(struct client *c, const struct cloc *l);
size_t nodes_bad(struct client *c, uint32_t *out, size_t max);
/* Sorts the ids of a chunk's copies for reading: this host first, then the idle and quick ones, those
 * that failed last. Among equals a chunk keeps to one chunkd, whose disk then reads in sequence. */
void nodes_order(struct client *c, uint64_t chunk, uint32_t *ids, size_t n);
void nodes_begin(struct client *c, uint32_t id);
void nodes_end(struct client *c, uint32_t id, int64_t started, bool ok);
void nodes_name(struct client *c, uint32_t id, char *out,
                size_t cap); /* "chunkd 3 (host h, addr)" */
/* Copies on these are enough where `least` are needed: so many, on so many hosts. A cluster that never had as
 * many hosts makes do with those it has. */
bool nodes_enough(struct client *c, const uint32_t *ids, size_t n, unsigned least);
/* So many copies could be put on as many hosts just now. */
bool nodes_ready(struct client *c, unsigned least);
bool nodes_up(struct client *c, uint32_t id); /* as metad sees it */
/* Names of those that are not up, "" when all are. */
void nodes_down(struct client *c, char *out, size_t cap);

/* ---- grants.c ---- */
int grants_start(struct client *c);
void grants_stop(struct client *c);
/* A chunk for f (f->mu held), or NULL: f is on the waiting list and will be pumped. */
struct wchunk *grants_take(struct client *c, struct cfile *f, unsigned goal);
void wchunk_unref(struct client *c, struct wchunk *wc); /* owner file's mu held */
uint64_t grants_oldest(struct client *c);
/* Everything held, rising; *newest: the newest grant there ever was. 0 and *newest 0: more than max. */
size_t grants_held(struct client *c, uint64_t *out, size_t max, uint64_t *newest);
void grants_drop_all(struct client *c); /* pooled ones: the session is gone */
void grants_missing(struct client *c, char *out, size_t cap);

/* ---- cfile.c ---- */
struct cfile *cfile_get(struct client *c, uint64_t ino); /* open or dirty; a reference or NULL */
void cfile_ref(struct cfile *f);
void cfile_unref(struct cfile *f);
void cfile_mark_dirty(struct cfile *f); /* mu held */
void cfile_mark_clean(struct cfile *f); /* mu held */
/* Nothing that is known of where open files' bytes are holds any more; who has them open gets EIO once. */
void cfile_forget_maps(struct client *c);
size_t cfile_dirty_all(struct client *c, struct cfile ***out); /* references; free the array */
uint64_t cfile_size(const struct cfile *f);                    /* mu held */
void cfile_set_attr(struct cfile *f, const Replfs__Attr *a);   /* mu held */
/* After a change of ours: forgets the map unless nobody else can have changed the file since
 * lease_cache_begin. mu held. */
void cfile_changed_since(struct cfile *f, uint64_t begun);
/* malloc'ed, to be told to metad: they count as known to it from now on. */
uint64_t *cfile_open_inos(struct client *c, size_t *n);
struct cfile *cfile_new(struct client *c, uint64_t ino); /* one reference, not in the table */
/* Those that are open unknown to metad are told: that of ino, all since before some time (ns), those
 * of some age (flusher). Before what is told to metad from now on. */
void cfile_tell_open(struct client *c, uint64_t ino);
void cfile_tell_opens(struct client *c, int64_t before);
void cfile_tell_old(struct client *c);
/* All directories that are open, likewise; whether one is. */
void cfile_tell_dirs(struct client *c);
bool cfile_dir_open(struct client *c, uint64_t ino);
/* Around a change that may remove a name: all that is open is known to metad before. */
void cfile_removing(struct client *c, bool begin);
void cfile_free_all(struct client *c);

/* ---- layout.c ---- */
void layout_drop(struct cfile *f); /* mu held: forget the committed map */
void layout_take(struct cfile *f, const Replfs__LayoutReply *r, uint64_t gen); /* mu held */
int layout_need(struct cfile *f, uint64_t end,
                int64_t deadline);                          /* mu held, dropped while waiting */
void layout_add_loc(struct cfile *f, const struct cloc *l); /* mu held */

/* ---- append.c (mu held) ---- */
/* Must an append wait until metad has given it its place? */
bool append_waits(const struct cfile *f);
/* Adds len <= APPEND_MAX bytes at the end of the file; waits, without mu, for everything up to
 * them to be committed. Takes over the dirty bytes' account. */
int append_put(struct cfile *f, const uint8_t *data, size_t len, uint64_t *off);
/* Tells a's writer, if somebody waits for it. */
void append_answer(struct abuf *a, int rc, uint64_t off);
/* Buffers of one commit get their places behind one another, counted from the first. */
uint64_t append_place(struct abuf *const *bufs, size_t n);

/* ---- write.c ---- */
void dirty_give(struct client *c, uint64_t bytes);
int write_wait_room(struct cfile *f, size_t len);
int write_put(struct cfile *f, const uint8_t *data, size_t len, uint64_t off); /* mu held */
/* The same for committed bytes that e shows, len of them at off, to be written once more: in a buffer
 * of their own, which replaces nothing but e when it is committed. */
int write_moved(struct cfile *f, const uint8_t *data, size_t len, uint64_t off,
                const struct ext *e);
/* A new last buffer. What gets no bytes must be forgotten before mu is dropped. */
struct abuf *abuf_new(struct cfile *f, uint64_t off, size_t len);
void abuf_forget(struct cfile *f, struct abuf *a); /* the last one, without bytes */
void abuf_seal(struct cfile *f);                   /* mu held: FILLING -> QUEUED */
void abuf_drop_buf(struct cfile *f, struct abuf *a);
void abuf_free(struct cfile *f, struct abuf *a); /* already off the list */

/* ---- quota.c ---- */
static inline bool quota_applies(const struct cfile *f) /* mu held */
{
    return f->attr.flags & REPLFS__ATTR_FLAG__ATTR_QUOTA;
}
/* Bytes of [off, off+len) that are a hole as far as we know. mu held. */
uint64_t quota_grows(const struct cfile *f, uint64_t off, uint64_t len);
/* May [off, off+len) be written? 0 or a code. With *asked unset it may flush and ask metad anew,
 * without mu: then 1 and *asked, look at the file again and call once more. mu held. */
int quota_admit(struct cfile *f, uint64_t off, size_t len, bool *asked);
/* session_mutate, and once more after EDQUOT when what was just deleted has been given back. */
int quota_mutate(struct client *c, Replfs__MetaOp *op, uint64_t need, int64_t deadline,
                 Replfs__Attr *attr, Replfs__Attr *parent, uint64_t *value);
/* A commit was refused: says so in the log, and what to do. Asks metad; no locks. */
void quota_refused(struct client *c, uint64_t ino, uint64_t bytes);

/* ---- send.c ---- */
void send_pump(struct cfile *f); /* mu held, dropped while sending */
/* Gives up everything not acknowledged: the error is remembered. mu held. */
void send_give_up(struct cfile *f, int code, const char *why);
void send_check_stall(struct cfile *f); /* mu held */
void send_check_slow(struct cfile *f);  /* mu held, dropped while probing */

/* ---- sync.c (mu held, dropped while waiting) ---- */
struct syncop;
/* Asks every copy of the chunks with unsynced bytes to sync; sealed_only: those that get no more
 * appends. NULL when there is nothing to do. The last answer applies what was learnt to the
 * chunks. */
struct syncop *sync_begin(struct cfile *f, bool sealed_only);
/* 0, or -ERR_FEW_COPIES when some chunk got too few synced copies; missing (or NULL): who did not sync.
 * Consumes op (NULL: 0). */
#define SYNC_MISSING 256u
int sync_wait(struct cfile *f, struct syncop *op, char missing[SYNC_MISSING]);
void sync_forget(struct syncop *op); /* nobody waits: the answers do their work anyway */
/* Puts the live bytes of chunks whose copies could not be synced into new append buffers. */
int sync_rewrite(struct cfile *f, int64_t deadline);
/* Before a file's first fsync: what was committed earlier, through other opens or by others, is
 * synced as well. What cannot be stays on the unsynced list. */
int sync_committed(struct cfile *f, int64_t deadline);
/* Where the copies of a chunk on the unsynced list are, asked anew: metad may know of more by now. */
int sync_relocate(struct cfile *f, uint64_t chunk, int64_t deadline);
void sync_drop_done(struct cfile *f); /* forgets chunks that are wholly synced and not in use */

/* ---- write_order.c ---- */
/* a, acknowledged, displaces bytes and is on no disk yet: not to be committed. mu held. */
bool order_needed(const struct cfile *f, const struct abuf *a);
void order_begin(struct cfile *f); /* has that synced; mu held, dropped meanwhile; does not wait */
void order_ended(struct cfile *f, bool failed); /* of sync.c; mu held, perhaps dropped meanwhile */
int64_t order_next(const struct cfile *f);      /* when to look again; mu held */
int order_bytes(struct cfile *f);               /* all that f shows is on a disk, or a code */
int order_rename(struct client *c,
                 const Replfs__RenameOp *op); /* likewise, if it replaces a file */

/* ---- flush.c ---- */
int flush_start(struct client *c);
void flush_stop(struct client *c);
/* What was closed without waiting: with metad now. */
void flush_closed(struct client *c);
void flush_eager(struct cfile *f); /* mu held; does not wait */
void flush_kick(struct client *c);
/* Of several files, the last of which ended with rc: is there anything in waiting for the next? */
bool flush_waits(struct client *c, int rc);
/* ACCEPTED: every copy has the bytes, and metad knows or will before anybody else can look. COMMIT:
 * metad knows. SYNC: all on stable storage. */
enum flush_how { FLUSH_ACCEPTED = 1, FLUSH_COMMIT, FLUSH_SYNC };
int flush_file(struct cfile *f, enum flush_how how, bool report);
void closes_go_on(struct cfile *f); /* those that wait for acknowledgements; no lock held */
/* Waits until no buffer with an id below target is left: committed or given up. -ERR_TIMEOUT at the
 * deadline: they are still on their way. mu held, dropped. */
int flush_below(struct cfile *f, uint64_t target, int64_t deadline);
int cfile_take_err(struct cfile *f);        /* mu held */
void cfile_fail(struct cfile *f, int code); /* mu held: bytes were lost */

/* ---- locks.c ---- */
void client_locks_start(struct client *c);
void client_locks_stop(struct client *c); /* answers what waits; before session_stop */
void client_locks_free(struct client *c); /* after the loop */
/* Everything held, for the resume of a session; answers to earlier requests count no more. */
struct locks_claims {
    Replfs__Lock *locks;
    Replfs__Lock *list[];
};
struct locks_claims *client_locks_claims(struct client *c, Replfs__SessionReq *m);
void client_locks_claims_free(struct locks_claims *x);
void client_locks_lost(struct client *c); /* the session is gone, and its locks */

/* ---- async_reply.c ---- */
struct async_reply;
/* How those of a kind are looked after. hold: what look will be called for, referenced (taken under
 * async_replies.mu). look: gives the reference back; does not wait. */
struct async_reply_kind {
    void *(*hold)(struct async_reply *l);
    void (*look)(void *held);
};
/* Something whose answer nobody waits for. Embedded in it; async_replies.mu. */
struct async_reply {
    struct async_reply *prev, *next;
    const struct async_reply_kind *kind;
};
void async_reply_init(struct client *c);
/* l is listed until async_reply_done: its answer will come, in limited time, and the client stays. */
void async_reply_begin(struct client *c, struct async_reply *l,
                       const struct async_reply_kind *kind);
void async_reply_done(struct client *c,
                      struct async_reply *l); /* the last use of c by whoever answered */
/* Its two halves: l is not looked after any more (before what hold refers to goes); the client may go. */
void async_reply_leave(struct client *c, struct async_reply *l);
void async_reply_left(struct client *c);
bool async_reply_thread(void *(*fn)(void *),
                        void *arg);      /* for what has to wait; false: no thread */
void async_reply_wait(struct client *c); /* until nothing is left */

/* ---- read.c ---- */
int read_range(struct cfile *f, uint64_t off, size_t len, struct buf **out); /* as cfile_read */
/* The first len bytes of a file whose layout is known, read once: NULL when it is not. try_ms: until a
 * copy is given up. f stays until read_wait, which frees the op: 0 and the bytes, or a code. */
struct read_round *read_start(struct cfile *f, size_t len, unsigned try_ms);
int read_wait(struct read_round *op, struct buf **out);

/* ---- client.c ---- */
/* A page of a directory that was asked for with `lease`: kept as far as leases came with it. begun:
 * client_begin before asking. from_start: the first page. */
uint64_t client_begin(struct client *c);
void client_saw_entries(struct client *c, uint64_t begun, uint64_t dir, bool from_start,
                        const Replfs__ReaddirReply *r);
/* The names in directory dir are what an answer to a request of then (client_begin) said: a lease was kept
 * since, and we changed nothing ourselves. */
bool client_dir_same(struct client *c, uint64_t begun, uint64_t dir);

/* ---- dir_pages.c: pages of listings ---- */
int dirs_start(struct client *c);
void dirs_stop(struct client *c);

/* ---- prefetch.c: small files, read before they are asked for ---- */
int prefetch_start(struct client *c);
void prefetch_stop(struct client *c);
/* A page of a directory's listing, with leases on what it names; from_start: the first. */
void prefetch_listed(struct client *c, uint64_t dir, const Replfs__ReaddirReply *r,
                     bool from_start);
/* The directory of that listing is asked for, or will be before most others. */
void prefetch_soon(struct client *c, uint64_t dir);
/* ino is about to be opened: until it is not being fetched any more, for a short while at most. */
void prefetch_wait(struct client *c, uint64_t ino);
/* f is being opened: takes what there is of it. f->mu held, f->attr under a lease. */
void prefetch_open(struct cfile *f);
void prefetch_drop(struct cfile *f); /* f->mu held */
/* False: it was not read ahead, or is not like that any more. No mu held. */
bool prefetch_read(struct cfile *f, uint64_t off, size_t len, struct buf **out);
#endif
