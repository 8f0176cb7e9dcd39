/* What copies.c (which chunkds, the thread) and copies_send.c (one chunkd: what it gets next)
 * and snapshot.c (backups by people) share. */
#ifndef REPLFS_METAD_BACKUP_COPIES_INTERNAL_H
#define REPLFS_METAD_BACKUP_COPIES_INTERNAL_H
#include <stdatomic.h>
#include "base/lock.h"
#include "copies.h"
#include "names_ring.h"
#include "state_file.h"

struct copy_file { /* as the chunkd has it; generation 0: it has none that can go on */
    uint64_t generation, size, reached;
};
struct copy_answer {
    int code;
    struct copy_file file;
    uint32_t reached_crc, state_crc;
    uint64_t state_size, term;
    bool whole;
    char detail[128];
};
#define COPIES_SYNC_LATE (1 * NSEC_PER_SEC) /* a copy that is slower is not waited for */
#define COPIES_SYNC_NONE (3 * NSEC_PER_SEC) /* without any copy nobody is held longer */

enum copy_call { COPY_CALL_NONE, COPY_CALL_ASK, COPY_CALL_TAIL, COPY_CALL_FILL };

/* One chunkd. The thread's own but for what is under copies.mu. */
struct copy {
    struct copies *c;
    uint32_t chunkd, host;
    char host_name[64];
    struct rpc_conn *conn;
    int64_t away_at; /* mono: since when it is not connected; 0: it is */
    bool asked;      /* it said what it has */
    struct copy_file cur, next;
    uint64_t had, had_life; /* generation of the whole one that it has, and its life; 0: none */
    uint64_t tail_bytes;    /* of entries in cur */
    uint64_t state_size;    /* of cur */
    struct state_file *src; /* of next */
    uint64_t src_off;
    uint32_t src_crc;      /* of what was read of it */
    enum copy_call call;   /* that was made last */
    struct copy_file sent; /* how the file is when it succeeds */
    bool sent_whole;
    bool late;          /* changes are acknowledged without it (copies_sync.c) */
    unsigned failures;  /* in a row */
    int64_t fresh_at;   /* mono: it has all that was applied up to then */
    int64_t sent_fresh; /* fresh_at, when the call succeeds; 0: there is more to be sent */
    int64_t tail_at, retry_at;
    char error[160];
    atomic_bool busy; /* a call is under way; set under copies.mu */
    /* under copies.mu */
    bool answered;
    struct copy_answer answer;
    struct nodes_names shown;
};

#define SNAPSHOTS_MAX 4u
struct snapshot { /* one that is being fetched (snapshot.c); token 0: none */
    uint64_t token;
    struct state_file *src; /* NULL: its checkpoint is still being made */
    uint64_t after;         /* entries behind it are needed */
    int64_t used_at;
};
struct snapshot_req {
    struct rpc_req *req;
    struct snapshot_req *next;
};

struct copies {
    char *dir;
    struct fsm *fsm;
    unsigned wanted; /* the thread's: as the settings say now */
    bool sync;       /* likewise */
    bool unsynced;   /* the thread's: no copy takes changes, nobody waits */
    struct mlog_observer observer;
    struct names_ring *ring;
    struct lock mu;
    struct cond wake;
    struct snapshot_req *requests;          /* mu */
    bool serving;                           /* mu: the thread runs */
    bool stopping, poked;                   /* mu */
    uint64_t saved_index, saved_size;       /* mu: the newest state file */
    uint32_t saved_crc;                     /* mu */
    struct copies_wait *waits, **waits_end; /* mu: whoever waits for copies (copies_sync.c) */
    bool unsynced_shown;                    /* mu */
    unsigned wanted_now;                    /* mu: fewer when there are fewer computers */
    struct copy *copy[NODES_NAMES_MAX];     /* mu for change, by the thread alone */
    size_t ncopies;                         /* likewise */
    atomic_bool idle;                       /* the thread sleeps until something is applied */
    /* the thread's own */
    struct mlog *mlog;
    struct nodes *nodes;
    uint64_t
        term; /* in which this metad leads: later the log may know of a higher one, which is another's */
    pthread_t tid;
    bool running;
    char host_id[64];
    struct snapshot snapshot[SNAPSHOTS_MAX];
    struct state_file *src; /* the newest that is good */
    uint64_t bad_index;     /* of one that is not */
    bool pending;           /* somebody waits for a newer one */
    int64_t asked_at;       /* mono: a checkpoint was asked for */
    int64_t chose_at;
    struct shunned {
        uint32_t chunkd;
        int64_t until;
    } shunned[NODES_NAMES_MAX];
    struct copies_told { /* it was told to keep nothing */
        uint32_t chunkd;
        const struct rpc_conn *conn; /* only compared */
    } * told;
    size_t ntold;
};

/* ---- copies_send.c; on the thread, mu not held ---- */
/* Takes the answer of the last call, if it is there, then makes the next call if one is due. */
void copies_step(struct copy *k, int64_t now);
/* It begins anew with another connection (a reference that it takes), or none. */
void copies_connect(struct copy *k, struct rpc_conn *conn);
/* It has nothing that can go on, or too long a tail: a state file newer than what it had would help. */
bool copies_wants_new(const struct copy *k);
/* The newest state file is such a one, and all that came after it is at hand. */
bool copies_can_begin(const struct copy *k);
/* Tells a chunkd to keep nothing; nobody waits for its answer. */
void copies_send_drop(struct copies *c, struct rpc_conn *conn);
void copies_poke(struct copies *c); /* any thread */

/* ---- copies_sync.c; on the thread, mu not held ---- */
void copies_let_go(struct copies *c, int64_t now);
void copies_let_all_go(struct copies *c, int code); /* after the thread */
bool copies_anybody_waits(struct copies *c);

/* ---- snapshot.c; on the thread, mu not held ---- */
void snapshot_step(struct copies *c, int64_t now); /* answers what was asked */
/* Lowers *above to what they need of the ring. True: one waits for a checkpoint. */
bool snapshot_needs(const struct copies *c, uint64_t *above);
void snapshot_stop(struct copies *c); /* after the thread */
#endif
