/* Private to the nodes module: nodes.c (registry, states), nodes_register.c (how they join),
 * nodes_registry.c (what they are told of each other), nodes_disks.c (their disks), nodes_decided.c (what administrators
 * decided about them), nodes_set.c (how they do), nodes_leave.c (copies that have to go for it), reports.c
 * (what chunkds say they have), grants.c (what sessions were granted and gave up),
 * orders.c (jobs and results), orders_wire.c (orders as messages), driver.c (the thread), status.c
 * (answers for people).
 *
 * Locks, in order of acquisition: fsm lock, nodes.mu, nodes.done_lock (leaf). Nothing is sent and
 * no call made into rpc while nodes.mu is held, since a call's completion may run at once. */
#ifndef REPLFS_METAD_CLUSTER_NODES_INTERNAL_H
#define REPLFS_METAD_CLUSTER_NODES_INTERNAL_H
#include "metad/fsm/fsm_cluster.h"
#include "nodes.h"
#include "base/lock.h"

#include <stdatomic.h>

#include "metad/plan/doubts.h"
#include "metad/plan/repair_queue.h"

#define NODE_DISKS_MAX 32
#define PAST_ANCESTORS 8u
#define NODE_DISK_UNKNOWN 63u /* loc.disk of a copy known from a commit only */
#define NODE_CHUNKS_REPORT_MAX (1u << 30)
#define NODE_CHECKS_MAX 64u                  /* quick verifications under way at one chunkd */
#define NODES_WRITE_QUIET (3 * NSEC_PER_SEC) /* a chunk extended so recently is left alone */
#define NODES_DELETE_BATCH 4096u
#define NODE_TWIN_SILENT (30 * NSEC_PER_SEC) /* another daemon with the same id has gone */
#define NODE_ID_TOLD_MAX (1u << 19)          /* of 20 bits; what is above is nonsense */

/* soft_flags of struct fsm_chunk */
enum {
    SOFT_BUSY = 1,  /* a job has it */
    SOFT_AGAIN = 2, /* look again when the job ends */
    SOFT_GREW = 4,  /* it was extended meanwhile */
};

struct node_disk {
    uint32_t disk;
    char path[192], error[128];
    uint64_t capacity, used, avail, chunks, dead;
    uint64_t fs, fs_capacity, fs_avail; /* the file system below; fs 0: not known */
    bool failed, missing, readonly;
    Replfs__ScrubStat scrub; /* state NONE: it tells nothing of it */
    uint64_t shortage;       /* as told */
};
#define NODE_LIMITS_MAX FSM_DISKS_MAX /* numbers of disks that limits are of */
/* Of a disk that has to hold less, see nodes_leave.c. */
struct leave_disk {
    bool limited, now; /* as decided */
    uint64_t limit;
    uint64_t over;        /* bytes that are still to go */
    uint64_t below;       /* copies are chosen whose hash is below this; 0: none */
    uint64_t going;       /* bytes of copies that are being deleted */
    uint64_t gone;        /* that were since its last heartbeat */
    uint64_t chosen;      /* bytes of copies chosen, as the last walk found them */
    uint64_t walk_chosen; /* so far in this walk */
};
/* Copies that have to leave a chunkd. */
struct leave {
    uint64_t chunks,
        bytes; /* that are left, as the last walk found them, less those that went since */
    uint64_t walk_chunks, walk_bytes; /* so far in this walk */
    bool walking, walked;             /* one is being made, was made, since it was asked for */
    uint64_t done, done_mark, rate;   /* bytes that went; at the last look; a second */
    uint64_t waiting;                 /* chunks that had to wait in this walk */
    const char *why;
    unsigned goal; /* the highest of them */
};
struct had_disk { /* that a chunkd has, or had when it last told */
    uint32_t disk;
    char path[192];
    uint64_t chunks;
};

/* A copy on a chunkd of a chunk that the fsm does not know (yet, or any more). */
enum stray_state {
    STRAY_KEPT,     /* its writer may still commit it */
    STRAY_DELETING, /* in the delete queue or in an order under way */
    STRAY_DELETED,  /* order answered; the heartbeat that says so is still to come */
};
struct stray {
    uint64_t chunk, session;
    int64_t at; /* mono: entered the state */
    uint32_t len;
    uint8_t disk, state;
    bool reported;
    bool freed;      /* we knew the chunk, and it was deleted: certainly ours */
    bool quarantine; /* not certainly ours: kept until a person releases it */
};
struct past_told { /* a Standing that a chunkd told; incarnation 0: none */
    uint64_t incarnation, position, chunk_upto, ino_upto;
    uint32_t chunkd_upto, n;
    uint64_t before[PAST_ANCESTORS];
};
struct job;
struct del {
    uint64_t chunk, session; /* session: its writer; another's chunk of that number stays */
    struct job *job;         /* whose decision it was; NULL: garbage */
    uint32_t len;            /* of a job: the copy's bytes, on this disk */
    uint8_t disk;
};
struct report { /* a full report coming in, or being compared */
    uint64_t number;
    struct u64map seen; /* a set of chunks */
    bool complete;      /* last piece is here: sweeping */
    uint64_t sweep_pos;
};
struct node {
    uint32_t id, host; /* host: index + 1 into nodes.hosts */
    char host_id[64], host_name[64], addr[128];
    Replfs__NodeState state;
    struct rpc_conn *conn; /* a reference; NULL when not connected */
    uint32_t replaced_by;  /* a newer chunkd took its place (address, computer); 0: none */
    bool removed;          /* left for good: nobody sees it or waits for it */
    uint64_t origin;       /* where it registered from since we lead; 0: it has not */
    int64_t last_seen;     /* mono; leader start when never seen */
    bool reported;         /* a full report came in since it was last gone */
    bool reported_once;    /* ... since we lead */
    bool want_report;
    unsigned beats;      /* heartbeats since registration */
    unsigned beats_led;  /* since we lead; one that registered since then counts as two */
    struct u64map ahead; /* chunk -> bytes of its copy that no commit has named yet, too */
    struct past_told seen, astray; /* told at its registration */
    struct node_disk disks[NODE_DISKS_MAX];
    unsigned ndisks;
    struct had_disk had[NODE_DISKS_MAX];
    unsigned nhad;
    uint32_t inflight, granted;
    uint64_t read_bytes, write_bytes, rate;
    uint64_t hb_seq;
    uint64_t registration;  /* random, told to it; its appends are answered with it. 0: none */
    uint64_t digest, count; /* of the copies it reported */
    unsigned mismatches;
    struct report *rep;
    struct u64map stray_index; /* chunk -> index into strays */
    struct stray *strays;
    uint32_t nstrays, stray_cap, judge_pos;
    uint32_t nquarantine; /* of the strays */
    struct del *dels;
    uint32_t ndels, del_cap;
    bool deleting; /* a DeleteOrder is under way */
    uint32_t jobs, checks;
    int64_t skew;      /* of its clock against ours, ns; 0: unknown */
    uint64_t cert_end; /* wall seconds; 0: none */
    char boot_id[64];  /* of its computer; "" unknown */
    /* another daemon says that it is this chunkd */
    int64_t twin_first, twin_last; /* mono; 0: none does */
    char twin_addr[128], twin_name[64];
    bool obeys_another; /* metad than this one, nodes_life.c */
    /* what was decided (nodes_decided.c) */
    bool draining;
    int64_t paused_at; /* which pause of the state it is: its time by the log, 0: none */
    uint64_t pause_ms;
    int64_t pause_end; /* boot clock; 0: not paused, or it is over */
    bool known;   /* its decisions were taken in before: what is new now has just been decided */
    bool stopped; /* it said that it stops */
    bool refuses; /* it said in its last heartbeat that it takes no bytes */
    unsigned empty_beats; /* in a row, that said so and that it has nothing */
    struct leave leave;
    struct leave_disk limits[NODE_LIMITS_MAX]; /* by number */
    bool limited;                              /* some disk has something over */
};
struct client_clock { /* of one that is far from ours */
    uint64_t session;
    int64_t skew;
    char name[128];
};

enum order_kind { ORDER_COPY, ORDER_VERIFY, ORDER_DELETE, ORDER_COMPACT };
struct compacting_job;
struct order {
    struct nodes *n;
    enum order_kind kind;
    enum repair_kind stat; /* where it is counted */
    struct job *job;       /* NULL: delete */
    uint64_t leading;      /* the leadership that decided it */
    uint32_t chunkd;       /* which one carries it out */
    struct rpc_conn *conn; /* a reference, for sending */
    uint64_t chunk, session;
    uint32_t len;
    bool quick;
    unsigned nsrc;
    uint32_t src[REPAIR_SOURCES_MAX];
    char src_addr[REPAIR_SOURCES_MAX][128];
    struct del *dels;
    uint32_t ndels;
    struct compacting_job *compacting;
    /* result */
    int code;
    char detail[160];
    uint32_t blamed; /* Failure.chunkd */
    uint64_t bytes;
    uint32_t good_len, disk;
    uint32_t stored;
    bool bad;
    struct order *next;
};
struct job {
    struct repair_queue_item it;
    enum repair_kind kind;
    struct job_verified { /* checked by this job and found good */
        uint32_t chunkd;
        bool proven; /* every byte of it */
    } verified[REPAIR_COPIES_MAX];
    unsigned nverified;
    unsigned steps;
};

/* Statistics of one kind of background work. */
enum { JOB_DELETE = REPAIR_KINDS, JOB_COMPACT, JOB_KINDS };
struct job_stat {
    uint64_t running, done, failed, bytes_done, rate, rate_mark;
    char last_error[192];
    const char *waiting; /* since the last walk */
    uint64_t nwaiting;
};

struct floor { /* which of its grants a session has given up for good */
    uint64_t oldest, newest;
    uint64_t *held; /* rising; those in [oldest, newest] that it has not given up */
    size_t nheld;
};
struct granted {
    uint64_t chunk;
    unsigned n;
    uint32_t chunkds[FSM_GOAL_MAX];
};
struct session_grants { /* see grants.c */
    uint64_t session;
    struct floor told, sure; /* sure: behind a barrier of the log */
    uint64_t told_at;        /* nodes.floors_told then */
    struct granted *v;       /* not given up, rising */
    uint32_t n, cap;
};

/* A chunk of which a copy is bad: what is left of it. See damage.c. */
#define DAMAGE_COPIES_MAX 8u
struct damage {
    uint64_t chunk;
    uint32_t len;              /* committed bytes then */
    uint32_t need, refs, live; /* end of the last byte that an extent names, with such counts */
    uint32_t keep;             /* what its copies are measured by; 0: by the chunk's length */
    int64_t doubted_at;
    unsigned n;
    struct damage_copy {
        uint32_t chunkd;
        uint32_t good;   /* so many bytes at its beginning */
        uint32_t stored; /* it has so many, good and bad */
    } copy[DAMAGE_COPIES_MAX];
};

#define NODES_NOTES 8u
#define NODES_NOTE_NS (3600 * NSEC_PER_SEC)
struct nodes_noted { /* nodes_note */
    unsigned severity;
    const char *code, *way_out;
    char what[256];
    int64_t at; /* mono; 0: free */
};
struct nodes {
    struct nodes_config cfg;
    struct nodes_leadership
        lead; /* leading 0: follows. Changes under fsm write lock and mu, gate empty */
    char dir[512], addr[128];
    bool replaced_untold; /* the state may not have each replaced_by */
    int64_t replaced_next;
    struct cap_key cap_key;
    int64_t started; /* mono; the process, or the leadership */
    struct lock mu;
    /* under lock */
    struct nodes_noted noted[NODES_NOTES];
    int64_t process,
        serving; /* mono: since when there is this process, and this leadership is served */
    uint64_t gap_ms, gains;
    struct node **node;           /* by id, holes are NULL */
    struct placement_node *table; /* the planners' view, same index */
    uint32_t nnodes;              /* slots */
    char **hosts;
    uint32_t nhosts, hosts_up;
    uint32_t next_id;
    uint64_t epoch, seed;
    bool another_told;         /* nodes_config.obey_another */
    struct adding *adding;     /* registrations that are in the log's queue */
    uint64_t registry_version; /* of what chunkds are told of each other */
    bool settling;
    struct repair_queue *queue;
    struct compacting *compacting;
    uint64_t walk_pos;
    bool walking, walk_again;
    struct u64map grant_index; /* session -> index into grants */
    struct session_grants *grants;
    uint32_t ngrants;
    uint64_t floors_told; /* so many */
    enum { BARRIER_NONE, BARRIER_DRAIN, BARRIER_SENT } barrier;
    uint64_t barrier_at; /* floors_told, of the barrier under way */
    bool want_barrier;
    unsigned turn, proposing[2]; /* commits checked, not in the log's queue yet; of each turn */
    struct u64map damage_index;  /* chunk -> index into damage */
    struct damage *damage;
    uint32_t ndamage, damage_pos;
    atomic_bool any_damage; /* ndamage > 0, to look without the lock */
    uint64_t lost_seen;
    int64_t cap_wall, cap_boot; /* the time that capabilities are made with, and when that was */
    struct doubts doubts;
    struct client_clock clocks[64];
    unsigned nclocks;
    bool distrust; /* another future could not be logged: as if we were behind */
    struct job_stat stat[JOB_KINDS];
    struct order *to_send;
    int64_t rate_at, judged_at, walked_at;
    uint64_t decisions; /* fsm_decisions() as they were taken in */
    bool leaving;       /* copies have to leave some chunkd */
    int64_t leave_at;
    struct repair_ctx ctx; /* made anew each tick */
    /* under done_lock */
    struct lock done_lock;
    struct cond wake;
    struct order *done;
    unsigned outstanding; /* orders and proposals whose callback is to come */
    bool stop, poked, running;
    pthread_t thread;
};

/* Inside the gate of a leadership that lasts; nodes_leave() follows. */
static inline bool nodes_enter(struct nodes *n)
{
    if (n->cfg.gate && !gate_enter(n->cfg.gate))
        return false;
    if (n->lead.leading && mlog_leading(n->cfg.mlog) == n->lead.leading)
        return true;
    if (n->cfg.gate)
        gate_leave(n->cfg.gate);
    return false;
}

static inline void nodes_keep(struct nodes *n)
{
    if (n->cfg.gate)
        gate_keep(n->cfg.gate);
}

static inline void nodes_leave(struct nodes *n)
{
    if (n->cfg.gate)
        gate_leave(n->cfg.gate);
}

/* Nobody waits for it: another took its place, or it was removed. */
static inline bool nodes_gone(const struct node *d)
{
    return d->replaced_by || d->removed;
}

/* A look at all chunks begins, or will when this one ends. Lock held. */
static inline void nodes_start_walk(struct nodes *n)
{
    lock_assert_held(&n->mu);
    if (n->walking)
        n->walk_again = true;
    n->walking = true;
}

/* As people and clients are told it. */
static inline Replfs__NodeState nodes_shown_state(const struct node *d)
{
    bool drains = d->draining && d->state == REPLFS__NODE_STATE__NODE_UP;
    return drains ? REPLFS__NODE_STATE__NODE_DRAINING : d->state;
}

static inline bool nodes_paused(const struct node *d)
{
    return d->pause_end != 0;
}

/* ---- nodes_decided.c ---- */
/* Takes in what the state says was decided. fsm lock (any) and lock held. */
void nodes_decided_take(struct nodes *n);
/* Likewise when it changed, and ends pauses whose time is over. Takes the fsm read lock and lock. */
void nodes_decided_tick(struct nodes *n);
/* For replies to d: what it is to go by. out: NODE_LIMITS_MAX, list likewise; how many. lock held. */
size_t nodes_limits_fill(const struct node *d, Replfs__DiskLimit *out, Replfs__DiskLimit **list);

/* ---- nodes_leave.c: fsm lock (any) and lock held ---- */
enum repair_leave leave_of(const struct nodes *n, const struct fsm_chunk *c, struct fsm_loc l);
void leave_walk_begin(struct nodes *n);
void leave_walk_chunk(struct nodes *n, struct fsm_chunk *c);
void leave_walk_end(struct nodes *n);
void leave_tick(struct nodes *n, int64_t now); /* about once a second */
void leave_beat(struct node *d);               /* a heartbeat has told what its disks have */
/* A job's delete of a copy is on its way; what came of it. */
void leave_drop(struct node *d, struct del *e, const struct fsm_chunk *c, unsigned disk);
void leave_dropped(struct nodes *n, struct node *d, const struct del *e, bool gone);
void leave_waits(struct nodes *n, const struct fsm_chunk *c,
                 const char *why); /* WAIT was decided */
void leave_reset(struct node *d);  /* what is to leave it has changed */
void leave_forget(struct node *d); /* likewise, with what was chosen and is on its way */
/* Nothing is on it any more and nothing can come. */
bool leave_removable(const struct node *d);
/* Why it does not get on, for people; "": it does, or nothing is to leave. */
const char *leave_text(const struct nodes *n, const struct node *d, char out[static 256]);

/* ---- nodes_table.c ---- */
struct node *nodes_find(const struct nodes *n, uint32_t chunkd); /* NULL: there is none */
void nodes_refresh(struct nodes *n, struct node *d);             /* planner's view of d from d */

/* ---- nodes.c ---- */
struct node *nodes_by_conn(struct nodes *n, const struct rpc_conn *c);
struct node *nodes_add(struct nodes *n, uint32_t chunkd, const char *host_id,
                       const char *host_name);
/* The state that time and connection give a chunkd. Pure. ages in ms. */
Replfs__NodeState nodes_state_at(const struct nodes_config *cfg, bool connected, bool reported,
                                 Replfs__NodeState former, int64_t silent_ms);
void nodes_tick_states(struct nodes *n, int64_t now); /* takes fsm read lock and lock */
void nodes_make_ctx(struct nodes *n);                 /* lock held */
const char *nodes_label(const struct node *d, char buf[static 256]); /* "chunkd 3 (name, addr)" */
void nodes_drop_conn(struct nodes *n, struct node *d,
                     struct rpc_conn **put); /* lock held; *put: unref later */
void nodes_set_host(struct nodes *n, struct node *d, const char *host_id, const char *host_name);
void nodes_load_members(
    struct nodes *n); /* those of the state that are not known; fsm lock and lock held */

/* ---- nodes_log.c ---- */
void nodes_poke(struct nodes *n);                /* wakes the driver */
void nodes_outstanding(struct nodes *n, int by); /* counts callbacks to come; takes done_lock */
/* As mlog_propose, of this leadership; stays inside the gate until `after`, which ends with nodes_proposed(). */
void nodes_propose(struct nodes *n, Replfs__Command *cmd, mlog_applied *fn, mlog_after *after,
                   void *arg);
void nodes_proposed(struct nodes *n);
/* Fails a request with what its proposal came to. */
void nodes_fail(struct nodes *n, struct rpc_req *req, int code, const char *text);

/* ---- nodes_disks.c: lock held ---- */
/* Takes in what a chunkd says of its disks. */
void nodes_disks_set(struct nodes *n, struct node *d, Replfs__DiskStat **disks, size_t ndisks);
void nodes_disks_load(struct nodes *n); /* members are known */
/* Whether d, which has told its disks, no longer names this one. */
bool nodes_disk_unnamed(const struct node *d, const struct had_disk *h);
/* The disk that d had at path, or NULL. */
const struct had_disk *nodes_disk_had(const struct node *d, const char *path);

/* ---- nodes_register.c ---- */
/* From the state: before anybody is served, also when this metad begins to lead. 0 or -EIO. No locks held. */
int nodes_cap_key_load(struct nodes *n);
void nodes_replaced_load(struct nodes *n);              /* likewise; fsm and registry locks held */
void nodes_replaced_tell(struct nodes *n, int64_t now); /* the log, as the leader; no locks held */
/* For all that registered while we followed; lock held. */
void nodes_replaced_look(struct nodes *n);

/* ---- nodes_registry.c: lock held ---- */
struct nodes_registry { /* for a message */
    uint64_t version;
    Replfs__ChunkdAddr **list; /* to be freed; NULL when the chunkd has this version */
    size_t n;
};
void nodes_registry_fill(struct nodes *n, uint64_t had, struct nodes_registry *out);

/* ---- nodes_scrub.c ---- */
/* What a chunkd's scrub found: has these copies verified. Takes locks. Of the leader. */
void nodes_scrub_found(struct nodes *n, const Replfs__HeartbeatReq *h);
void nodes_scrub_disk(struct node_disk *k,
                      const Replfs__ScrubStat *told); /* NULL: nothing. lock held */

/* ---- clocks.c: lock held ---- */
void clocks_init(struct nodes *n);
int64_t clocks_skew(uint64_t wall_ms); /* of a clock that was told, against ours, ns. Any thread */
void clocks_forget(struct nodes *n, uint64_t session);
uint32_t nodes_cap_now(const struct nodes *n); /* seconds. Any thread */
/* ---- nodes_life.c ---- */
/* The chunkd has obeyed a metad of another copy of this one's directory. While leading; no lock held. */
bool nodes_life_is_other(struct nodes *n, const Replfs__RegisterReq *r);
/* Refuses it, consuming req, and tells nodes_config.obey_another when most of the members say so. No lock held. */
void nodes_life_refuse(struct nodes *n, struct rpc_req *req);
/* ---- nodes_past.c ---- */
struct past_standing {
    Replfs__Standing msg;
    uint64_t before[PAST_ANCESTORS];
    bool behind;
};
void nodes_past_fill(struct nodes *n,
                     struct past_standing *out); /* takes locks; msg points into out */
void nodes_past_note(struct node *d, const Replfs__RegisterReq *r); /* lock held */
/* What chunkds told while we followed counts from now on. Waits for the log; no lock held. */
void nodes_past_lead(struct nodes *n);
/* What a chunkd told of ids given, by whomever. No lock held. */
void nodes_past_ids(struct nodes *n, uint64_t chunk_upto, uint64_t ino_upto);
/* Compares what the RegisterReq req tells with our past, logs what is new, then calls then(n, req).
 * step: PAST_SEEN. No lock held. */
enum past_step { PAST_SEEN, PAST_ASTRAY, PAST_DONE };
void nodes_past_check(struct nodes *n, struct rpc_req *req, enum past_step step,
                      void (*then)(struct nodes *n, struct rpc_req *req));
/* Ids below may be others'; 0: unknown. */
uint32_t nodes_past_next_id(const Replfs__RegisterReq *r);
/* It comes from another future, and so may have got its id there. Takes the fsm lock. */
bool nodes_past_joined(struct nodes *n, const Replfs__RegisterReq *r);
/* Nothing may be deleted. fsm lock and lock held. */
static inline bool nodes_past_behind(const struct nodes *n)
{
    return n->distrust || fsm_behind(n->cfg.fsm);
}

/* ---- recover.c ---- */
void salvage_fetch(struct nodes *n, struct rpc_req *req); /* salvage.c. no lock held */
uint64_t recover_quarantined(const struct nodes *n);      /* copies; lock held */

/* ---- compacting.c: fsm write lock and lock held unless said otherwise ---- */
struct compacting *compacting_new(void);
void compacting_free(struct compacting *p); /* no order is out any more. No locks */
/* c may be worth it. fsm lock (any) and lock held. */
void compacting_consider(struct nodes *n, const struct fsm_chunk *c);
/* Copies of this chunk are made, and no file shows it yet, or those of it that were are not needed any more, but not to be
 * deleted yet. */
bool compacting_holds(const struct nodes *n, uint64_t chunk);
uint64_t compacting_waiting(const struct nodes *n); /* chunks; lock held */
void compacting_stock(
    struct nodes *n); /* ahead of a turn: gets what it may need. No locks held; while leading */
bool compacting_turn(struct nodes *n,
                     int64_t now);        /* of the driver. True: there is more to do at once */
void compacting_propose(struct nodes *n); /* behind it, no locks held */
/* An order was answered; late: of a former leadership. The job may be gone afterwards. */
void compacting_answered(struct nodes *n, const struct order *o, bool late);
void compacting_discard(
    struct compacting_job *j);           /* likewise, and nobody listens any more. No locks */
void compacting_forget(struct nodes *n); /* leading ends */
/* What an order says: how many ranges; *off is to be freed, *len with it. No locks. */
size_t compacting_ranges(const struct compacting_job *j, uint64_t *to, uint64_t *writer,
                         uint32_t **off, uint32_t **len);

/* ---- reports.c: fsm write lock and lock held unless said otherwise ---- */
/* Takes locks; consumes req. leads: inside the gate. */
void reports_heartbeat(struct nodes *n, struct rpc_req *req, bool leads);
void reports_report(struct nodes *n, struct rpc_req *req); /* takes locks; consumes req */
bool reports_sweep(struct nodes *n);              /* takes locks: one slice; true: there is more */
void reports_judge(struct nodes *n, int64_t now); /* takes locks: one slice */
void reports_forget(struct node *d);              /* drops report, strays, digest */
/* Copies that were reported before the commit that named them counted: up to max strays of each chunkd. */
void reports_adopt(struct nodes *n, uint32_t max);
/* While following: c is new or longer, and nobody says which copies have the bytes. */
void reports_grew(struct nodes *n, struct fsm_chunk *c);
struct fsm_loc *reports_loc(struct fsm_chunk *c, uint32_t chunkd);
/* Sets a copy's disk and state, keeping what is known of its having been reported. */
void reports_loc_set(struct nodes *n, struct fsm_chunk *c, uint32_t chunkd, uint32_t disk,
                     enum copy_state state);
/* Our delete of a known chunk's copy was answered: strikes it, awaiting the heartbeat. */
void reports_loc_deleted(struct nodes *n, struct fsm_chunk *c, uint32_t chunkd);
void reports_stray_settled(struct nodes *n, struct node *d, uint64_t chunk, bool deleted);
void reports_freed(struct nodes *n, const struct fsm_chunk *c);

/* ---- grants.c: lock held unless said otherwise ---- */
/* Whether the session will never name the chunk in a commit again, nor has one on the way. */
bool grants_given_up(struct nodes *n, uint64_t session, uint64_t chunk);
/* Whether a copy that the session tells of may be true; *sure: the chunk was granted on chunkd. */
bool grants_may_be_on(const struct nodes *n, uint64_t session, uint64_t chunk, uint32_t chunkd,
                      bool *sure);
void grants_session_gone(struct nodes *n, uint64_t session);
void grants_session_lapsed(struct nodes *n, uint64_t session);
void grants_barrier(struct nodes *n); /* no lock held: goes on with the barrier if one is wanted */
void grants_free(struct nodes *n);    /* empty afterwards, and can be used again */
void grants_forget(struct nodes *n);  /* with the barrier that was wanted */

/* ---- damage.c: fsm lock (any) and lock held ---- */
/* The bytes that a copy must have to be a good one. */
uint32_t damage_len(const struct nodes *n, const struct fsm_chunk *c);
/* A copy was found to have so many good bytes, and to store so many. True: it has all that is
 * needed. */
bool damage_found(struct nodes *n, struct fsm_chunk *c, uint32_t chunkd, uint32_t good,
                  uint32_t stored);
/* The planner's view of length and bad copies. */
void damage_view(const struct nodes *n, const struct fsm_chunk *c, struct repair_chunk *v);
/* The chunk's first len bytes are all that can be had: they are kept, the loss is logged. */
void damage_keep(struct nodes *n, struct fsm_chunk *c, uint32_t len);
/* A chunkd says that its copy has len bytes. */
void damage_reported(struct nodes *n, struct fsm_chunk *c, uint32_t chunkd, uint32_t len);
void damage_grew(struct nodes *n, const struct fsm_chunk *c); /* or its goal changed */
void damage_forget(struct nodes *n, uint64_t chunk);
/* Whether a reader's failure may be put down to it, having been looked into lately. */
bool damage_known(struct nodes *n, uint64_t chunk);
bool damage_lost(const struct nodes *n,
                 const struct fsm_chunk *c); /* files need more than is kept */
/* Names the lost ranges of the inode (0: with the inodes, of any). False: nothing is lost. */
bool damage_text(struct nodes *n, const struct fsm_chunk *c, uint64_t ino, char *out, size_t cap);
void damage_look(struct nodes *n); /* once a second: a slice; fsm write lock */
void damage_free(struct nodes *n);
void damage_forget_all(struct nodes *n); /* what copies have is in doubt again; fsm write lock */

/* ---- orders.c ---- */
/* Has d make j's new chunk of its copy of c. fsm write lock and lock held. */
void orders_compact(struct nodes *n, struct node *d, struct compacting_job *j,
                    const struct fsm_chunk *c);
/* fsm lock (any) and lock held: queues the chunk if it needs work, not before delay ns from now. */
void orders_consider(struct nodes *n, struct fsm_chunk *c, int64_t delay);
void orders_view(const struct nodes *n, const struct fsm_chunk *c,
                 struct repair_chunk *out); /* for the planner */
void orders_delete(struct nodes *n, struct node *d, uint64_t chunk, uint64_t session,
                   struct job *job);
/* lock held: chunkd d is gone, its queued deletes come to nothing. */
void orders_node_gone(struct nodes *n, struct node *d);
/* Nothing is decided any more: forgets what waits and what is not sent yet. fsm write lock and lock held. */
void orders_forget(struct nodes *n);
/* Turns of the driver thread. */
/* leads: within the gate. Without it every answer is a late one: n->lead tells of the former leadership until the role
 * thread comes to nodes_follow(). Takes locks. */
void orders_take_results(struct nodes *n, bool leads);
void orders_pop_slice(struct nodes *n, int64_t now);    /* fsm write lock and lock held */
void orders_batch_deletes(struct nodes *n);             /* lock held */
void orders_answered(struct nodes *n, struct order *o); /* has its result; takes done_lock */
void orders_free(struct order *o);

/* ---- orders_wire.c ---- */
void orders_send_all(struct nodes *n, struct order *o); /* no lock held */

/* ---- driver.c ---- */
int driver_start(struct nodes *n);
void driver_stop(struct nodes *n); /* waits for the callbacks to come */
#endif
