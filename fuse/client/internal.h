/* Private to fuse/client: how a client is put together. The header of each file says who may call it, in which
 * state, under which lock.
 *
 * The folders, from ground to roof; none includes or calls one above it:
 *
 *   base/       values, the id map, the time
 *   cache/      what leases let this client answer by itself
 *   session/    the connection to metad, the session, questions, mutations, keepalives
 *   file/       open files: their buffers, their committed map, the tables of them
 *   queue/      changes that were answered before metad knows them
 *   names/      attributes and names as they are to be shown; names made and removed ahead of metad; access times
 *   io/         chunkds, grants, layouts, reads
 *   writeback/  buffered bytes to the chunkds, commits, flush, fsync, the flusher
 *   prefetch/   small files and directories' pages, read before they are asked for
 *   calls/      open, close and the plain calls; recalls
 *   locks/      file locks held and asked for
 *   lifecycle/  a client's begin and end, and the tables by which lower floors call back (events.c)
 *
 * Lock order: a file's mu (cfile.mu) first, then at most one of the leaf locks files.mu, chunkds.mu, grants.mu,
 * session.mu, dirty.mu, locks.mu, queue.mu, prefetch.mu, the lease cache's. Of these, session.mu also inside
 * files.mu, locks.mu and inos.mu; queue.mu inside session.mu and atime.mu, which is taken inside a file's; dirs.mu
 * before the lease cache's. No lock is held over a call that waits for a peer, nor over rpc_call (which may run
 * its completion at once). Completions run on loop threads: they take cfile.mu briefly and never wait for a
 * condition. */
#ifndef REPLFS_FUSE_CLIENT_INTERNAL_H
#define REPLFS_FUSE_CLIENT_INTERNAL_H
#include <pthread.h>
#include <stdatomic.h>
#include "base/u64map.h"
#include "client/base/limits.h"
#include "client/client.h"
#include "base/lock.h"

struct lease_cache;
struct session_events;
struct grants_events;
struct queue_events;
struct writeback_events;
struct cfile;
struct wchunk;
struct queue_op;
struct async_reply;

struct client {
    struct client_config cfg;
    struct lease_cache *leases;
    char *name;
    struct rpc_loop *loop;
    char host_id[64];
    atomic_bool stopping;
    _Atomic int64_t
        clock_offset; /* base/client_clock.c; metad's wall clock minus ours, where that is much */

    struct {
        struct lock mu;
        struct cond cv;
        struct metad_addr *metads;
        size_t nmetads, cur; /* cur: who leads, or is asked first */
        struct rpc_conn *conn;
        struct dial *dial; /* left by a connector whose time was over; connect.c */
        bool connecting;
        uint64_t id;                              /* session, 0: none yet */
        uint64_t seen_incarnation, seen_position; /* of metad's state, the newest told */
        unsigned lease_ms, term_ms, min_copies;
        uint32_t lapses;                     /* of the session, as told */
        const struct session_events *events; /* set before the session starts */
        struct rpc_service svc;              /* requests of metad: recalls */
        char cluster[40];
        uint64_t next_seq;
        struct pending_change {
            uint64_t seq;
            bool creates; /* a file that is open from then on */
        } * pending;      /* not answered yet, unordered */
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
        struct lock mu;
        struct u64map map;
        uint64_t epoch;
        bool stale;
    } chunkds;
    struct {
        struct lock mu;
        struct cond cv;
        const struct grants_events *events; /* what happens to files that waited */
        struct grants_pool {
            struct wchunk **items; /* a ring would do; few enough to shift */
            size_t n, want;        /* ready, aimed at */
            size_t waiting;        /* takers that found none */
        } pools[COPIES_MAX + 1];
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
        struct lock mu; /* a leaf */
        struct cond cv, fetched;
        atomic_size_t held; /* bytes of open files */
        struct prefetch *a; /* NULL: nothing is read ahead */
    } prefetch;
    struct {
        struct lock mu;
        struct cond cv, came;
        struct dirs *d;
    } dirs;
    struct {            /* reads and closes that nobody waits for: see async_reply.c */
        struct lock mu; /* a leaf but for what hold takes */
        struct cond cv;
        struct async_reply *first;
        size_t n;
        bool ticking;
    } async_replies;
    struct {
        struct lock mu;
        struct u64map map;
        struct u64map dirs; /* ino -> struct open_dir */
        struct cfile *dirty;
        atomic_size_t untold;                    /* open, unknown to metad */
        _Atomic(struct cfile_telling *) refused; /* opens that metad would not hear of yet */
        atomic_uint removing; /* names are on their way out: opens wait for metad */
        int64_t told_at;      /* flusher's */
        struct cond flush_cv;
        bool flush_now;
        pthread_t thread;
        bool started;
    } files;
    struct {
        struct lock mu;
        struct cond cv;
        uint64_t bytes;
    } dirty;
    struct {
        struct lock mu;    /* map, since, sending */
        struct cond sent;  /* a batch was answered, or sending taken back */
        bool sending;      /* one thread tells metad, one batch after the other */
        struct u64map map; /* ino -> struct atime_entry */
        int64_t since;     /* work waits since; 0: none */
        atomic_size_t n;   /* of map, to look without the lock */
        atomic_ullong seen[ATIME_SLOTS];
    } atime;
    struct {
        struct lock mu; /* a leaf */
        struct cond cv, done_cv;
        const struct queue_events *events; /* what it has others do */
        struct queue_op *head, **tail;
        uint64_t put, done;  /* so many ops */
        int64_t moved;       /* when it last went forward */
        uint64_t hurry;      /* up to here somebody waits */
        struct u64map inos;  /* ino -> struct queue_ino */
        atomic_size_t ninos; /* to look without the lock */
        pthread_t thread;
        bool started, stop;
    } queue;
    struct {
        struct lock mu;    /* session.mu is taken inside it */
        struct cond asked; /* asking was taken back */
        bool asking;       /* one thread asks metad for more, the others wait for it */
        uint64_t next, upto, session;
    } inos;                                   /* given by metad for what we create */
    const struct writeback_events *writeback; /* how the write path goes on */
    struct client_locks *locks;
    atomic_uint life;  /* how often the session has lapsed and gone on, and 1 */
    atomic_uint lost;  /* changes that were answered and that metad did not do */
    atomic_uint fails; /* of cfile_fail, all files together */
    atomic_ullong appends, sealed_early, read_retries, crc_errors;
};
#endif
