/* chunkds as this metad knows them, and where copies are: registry, heartbeats, reports, orders,
 * and the driver that feeds the pure planners (placement.h, repair.h) with events and carries out what
 * they decide. Soft state only; what must survive is in the fsm. It lives as long as the process and leads
 * now and then (nodes_lead). Thread-safe: own mutex, taken after the fsm lock. */
#ifndef REPLFS_METAD_CLUSTER_NODES_H
#define REPLFS_METAD_CLUSTER_NODES_H
#include "metad/fsm/fsm.h"
#include "metad/log/mlog.h"
#include "base/gate.h"
#include "rpc/cap.h"
#include "rpc/rpc.h"

#define NODES_MAX 4096u       /* chunkds of a cluster */
#define NODES_PER_ORIGIN 256u /* of one address (metad/cluster/origin.h) */
#define NODES_PER_HOST 64u    /* of one computer, when there are NODES_MAX already */

enum copy_state { COPY_OK = 0, COPY_SHORT = 1, COPY_BAD = 2, COPY_CHECKING = 3, COPY_DOOMED = 4 };

#define NODES_NAMES_MAX 16u
struct nodes_names { /* one copy of the names, for people */
    uint32_t chunkd;
    char host_name[64];
    uint64_t generation, reached, size; /* generation 0: none is whole yet */
    int64_t age_ns;                     /* since it had everything; of none: since it is wanted */
    bool filling;
    bool late; /* changes are acknowledged without it: it is slow */
    uint64_t filled;
    char error[160];
};
struct nodes_names_all {
    unsigned wanted; /* fewer when there are fewer computers */
    bool sync;       /* answers to changes wait for the copies */
    bool unsynced;   /* and do not, since no chunkd takes any */
};
struct nodes;
struct nodes_config {
    struct fsm *fsm;
    struct mlog *mlog;
    struct rpc_loop *loop;
    /* These three and min_copies: what holds as long as the state does not say (fsm_setting_offer), 0: the default */
    unsigned heartbeat_ms;
    unsigned suspect_ms;
    unsigned dead_ms;
    unsigned repairs_per_disk; /* default 4 */
    /* metad's data directory, for the file disks; NULL: none */
    const char *dir;
    const char *addr;    /* our address as status shows it; may be NULL */
    unsigned min_copies; /* as status explains it */
    /* Open while this metad leads: what only a leader may do is done inside, and what goes on later stays inside.
     * NULL: as if open, for tests. */
    struct gate *gate;
    /* The leader's address as far as this metad knows, "" if not. May be NULL. Any thread. */
    void (*leader_addr)(void *arg, char out[static 128]);
    void *leader_arg;
    /* Fills in, for StatusReply, the copies of the names that chunkds keep; returns how many, and what holds for all of
     * them. nodes.mu is held. May be NULL. */
    size_t (*names_copies)(void *arg, struct nodes_names *out, size_t max,
                           struct nodes_names_all *all);
    void *names_arg;
    /* More than half of the chunkds have obeyed another metad, `which`, than one with this one's directory could be.
     * Called once, on an rpc thread, no lock held. May be NULL. */
    void (*obey_another)(void *arg, const char *which);
    void *obey_arg;
};
/* Sets the fsm hooks, starts its thread. It does not lead yet. */
int nodes_new(const struct nodes_config *cfg, struct nodes **out);
void nodes_free(struct nodes *n);
/* What a leadership needs of it: all may be NULL. */
struct nodes_leadership {
    uint64_t leading; /* mlog_leading */
    uint64_t term;    /* of the log, told in orders */
    /* The module owns the fsm's hooks; what it does not need itself it passes on. Called with the
     * fsm write lock held. */
    void (*orphaned)(void *arg, uint64_t ino, uint64_t opener);
    void (*adopted)(void *arg, uint64_t ino);
    void (*session_closed)(void *arg, uint64_t session); /* or lapsed */
    void *hook_arg;
    /* A chunkd registered, or said in a heartbeat: ids below these may have been given. */
    void (*ids_told)(void *arg, uint64_t chunk_upto, uint64_t ino_upto);
    void *ids_arg;
    /* A number for a chunk that metad itself has made; 0: none can be had just now. Called without locks. */
    uint64_t (*new_chunk)(void *ids_arg);
};
/* Begins and ends a leadership, while the gate is shut and empty. From nodes_follow() on no hook is called any more,
 * grants, jobs and doubts are forgotten, and answers to orders that are still out change nothing. Take the fsm lock;
 * nodes_lead may wait for the log. Not on the log thread. */
void nodes_lead(struct nodes *n, const struct nodes_leadership *l);
void nodes_follow(struct nodes *n);
/* The whole state was replaced while following: chunkds are asked for full reports. Takes the fsm lock; the log thread's
 * (mlog_config.restored), or any other. */
void nodes_restored(struct nodes *n);
/* Requests are served from now on, after gap_ms in which nobody did; for status. */
void nodes_serving(struct nodes *n, uint64_t gap_ms);
/* Answers a request with ERR_NOT_LEADER and the leader's address. Any thread. */
void nodes_not_leader(struct nodes *n, struct rpc_req *req);
/* Handles register, heartbeat, report requests of chunkds; consumes req. */
void nodes_request(struct nodes *n, struct rpc_req *req);
void nodes_conn_closed(struct nodes *n, struct rpc_conn *c);
/* Placement for a new chunk: fills up to goal ids, best first; returns how many. exclude: just
 * failed. */
unsigned nodes_place(struct nodes *n, unsigned goal, const uint32_t *exclude, size_t nexclude,
                     uint32_t *out);
/* A commit of the session said which chunkds have a chunk's bytes. Believed of its own chunks, on
 * chunkds that it was granted on, when they took the bytes under their present registration;
 * otherwise such a copy is doubtful until its chunkd names it. fsm write lock held (mlog_applied
 * callback). */
void nodes_copies(struct nodes *n, uint64_t session, const Replfs__ChunkCopies *copies);
/* The session was told that it may write the chunk on these chunkds. */
void nodes_granted(struct nodes *n, uint64_t session, uint64_t chunk, const uint32_t *chunkds,
                   unsigned nchunkds);
/* Before the session's commit is proposed: fills own (room for n_copies + n_extents) with the chunks
 * that are its own to bring into being. 0, to be followed by nodes_commit_end() with *turn
 * when the commit is in the log's queue, or -EPERM: it names a chunk that it gave up. */
int nodes_commit_begin(struct nodes *n, uint64_t session, const Replfs__CommitOp *c, uint64_t *own,
                       size_t *nown, unsigned *turn);
void nodes_commit_end(struct nodes *n, unsigned turn);
/* Some bytes of the chunk are on no copy that counts as good: others may have them. fsm lock held. */
bool nodes_damaged(struct nodes *n, struct fsm_chunk *c);
/* A client met a bad copy: have it verified, then healed. 0, or -ERR_BUSY: the session has had too many
 * checked lately (doubts.h). */
int nodes_report_bad(struct nodes *n, uint64_t session, uint64_t chunk, uint32_t chunkd, int code);
/* Session's chunks below oldest that nobody committed are garbage. */
void nodes_oldest_grant(struct nodes *n, uint64_t session, uint64_t oldest);
/* So are those up to newest that `held` (rising) does not name. */
void nodes_held_grants(struct nodes *n, uint64_t session, uint64_t oldest, uint64_t newest,
                       const uint64_t *held, size_t nheld);
/* Every chunkd has said what it has: a chunk that none named is nowhere. */
bool nodes_all_reported(struct nodes *n);
/* Whether it is space that keeps nodes_place() from giving `need`: so many chunkds are up, and known to
 * have no room. */
bool nodes_full(struct nodes *n, unsigned need);
uint64_t nodes_epoch(struct nodes *n); /* changes when NodesReply would */
void nodes_cap(struct nodes *n, uint64_t chunk, uint64_t session, uint64_t writer, uint32_t rights,
               uint8_t out[CAP_LEN]);
/* What a client's clock says; one that is far away is named in health. Takes the fsm read lock. */
void nodes_client_clock(struct nodes *n, uint64_t session, uint64_t wall_ms);
/* Bytes that can be stored, and still be stored, with goal copies of each on computers of their own
 * (chunkds, when there are fewer computers); goal 0: the raw bytes of all live disks. A file system
 * counts once, however many directories are on it. */
void nodes_space(struct nodes *n, unsigned goal, uint64_t *total, uint64_t *avail);
/* The most that n units of these sizes hold when each byte is to be in goal of them. Reorders unit. Pure. */
uint64_t nodes_fit(uint64_t *unit, size_t n, unsigned goal);
/* Whether so many raw bytes surely do not fit; false while chunkds are still reporting. */
bool nodes_no_room(struct nodes *n, uint64_t bytes);
/* RPC bodies that only concern nodes; consume req: NodesReq, StatusReq, InfoReq, ConvergeReq,
 * ChunkdRemoveReq, ChunkdSetReq. */
void nodes_rpc_nodes(struct nodes *n, struct rpc_req *req);
void nodes_rpc_status(struct nodes *n, struct rpc_req *req);
void nodes_rpc_info(struct nodes *n, struct rpc_req *req);
void nodes_rpc_remove(struct nodes *n, struct rpc_req *req);
void nodes_rpc_set(struct nodes *n, struct rpc_req *req);
void nodes_rpc_recover(struct nodes *n, struct rpc_req *req);
void nodes_rpc_quarantine(struct nodes *n, struct rpc_req *req);
void nodes_rpc_scrub(struct nodes *n, struct rpc_req *req);
void nodes_rpc_damaged(struct nodes *n, struct rpc_req *req);
void nodes_rpc_converge(struct nodes *n, struct rpc_req *req);
/* Something that health shall show for an hour: severity 1 warning, 2 error; code and way_out are
 * static. One of the same code takes the former's place. */
void nodes_note(struct nodes *n, unsigned severity, const char *code, const char *way_out,
                const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Chunkds that are up, by number; returns how many, each with a reference to its connection for the caller. */
struct nodes_conn {
    uint32_t chunkd, host;
    uint64_t avail; /* bytes, of the disk with the most */
    struct rpc_conn *conn;
    char host_id[64], host_name[64];
};
size_t nodes_conns(struct nodes *n, struct nodes_conn *out, size_t max);
/* Names of chunkds that are down, for messages; malloc'ed strings, caller frees. */
size_t nodes_missing(struct nodes *n, char ***out);
#endif
