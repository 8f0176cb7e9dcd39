/* The replicated log: libraft behind a narrow door, so that the engine could change. One log thread
 * owns libraft and its libuv loop, applies committed commands to the fsm under its write lock,
 * completes proposals and takes checkpoints (fork). */
#ifndef REPLFS_METAD_LOG_MLOG_H
#define REPLFS_METAD_LOG_MLOG_H
#include <stdbool.h>
#include <stdint.h>
#include "metad/fsm/fsm.h"
#include "rpc/rpc.h"

struct mlog;
/* Who is told of all that becomes part of the state. On the log thread, also while the log is loaded: must not block. */
struct mlog_observer {
    /* An entry was applied; the bytes as they are in the log (entry.h). */
    void (*applied)(void *arg, uint64_t index, uint64_t term, const void *entry, size_t len);
    /* The state is now that of a state file of this index, whatever was before. */
    void (*restored)(void *arg, uint64_t index);
    /* The state file DIR/checkpoint-INDEX (mlog_ckpt_path) is whole; it stays until there are three newer ones. */
    void (*saved)(void *arg, uint64_t index, uint64_t size, uint32_t crc);
    void *arg;
};
struct mlog_config {
    const char *dir; /* the metad's data directory: log/, checkpoints, replfs.id, hwm */
    struct fsm *fsm;
    uint64_t checkpoint_bytes; /* log bytes between checkpoints, default 64 MiB */
    /* A leader whose last fork took longer hands over before the next; default 100 ms. */
    unsigned long_fork_us;
    /* An entry that waits longer for the disk ends the log as `failed` tells; default 60 s. */
    unsigned disk_limit_ms;
    /* How often the leader has states compared (digests.h), default 10 minutes. */
    unsigned check_ms;
    void (*role_changed)(void *arg, bool leader); /* on the log thread */
    /* Called once, on the log thread: the engine was refused something that it cannot do without.
     * Nothing is accepted any more (-EIO); only a new start helps. NULL: nobody is told. */
    void (*failed)(void *arg);
    /* The whole state was replaced by the leader's, of a later index: what is kept beside it (copy locations, tables
     * made from it) is to be made again. On the log thread, no lock held; never before mlog_open returns. NULL: nobody
     * is told. */
    void (*restored)(void *arg);
    void *arg;
    /* What other metads are reached over; must outlive mlog_stop. NULL: this metad stays alone. */
    struct rpc_loop *loop;
    /* Address of a metad ("host:port"); false: not known. On the log thread, which holds no lock. */
    bool (*addr_of)(void *addr_arg, uint64_t id, char out[256]);
    void *addr_arg;
    const struct mlog_observer *observer; /* copied; NULL: nobody */
};
/* Makes a new cluster in an empty or missing dir: UUID, bootstrap of one voter. -EEXIST with a log
 * line when there is one already. */
int mlog_init_dir(const char *dir, char uuid[37]);
/* Makes the directory of a metad that joins the cluster as number id: its log comes from the leader. Refuses as
 * mlog_init_dir does. */
bool mlog_dir_made(const char *dir); /* it has an identity: made or joined before */
int mlog_join_dir(const char *dir, const char *uuid, uint64_t id);
/* Opens, loads checkpoint and log, refuses what it cannot trust (-ERR_CORRUPT, -ERR_VERSION,
 * -ERR_LOCKED) after log lines that name the file, the finding and the way out. Returns when this
 * metad has applied all that it had stored and knows to be committed: alone in its cluster that is all, and it leads;
 * else whoever leads says later what is committed. Within timeout_ms. */
int mlog_open(const struct mlog_config *cfg, unsigned timeout_ms, struct mlog **out);
/* Of a directory that mlog_open refused: whether other metads have what it had, as it was told last: this one's id, and
 * where one of them was. */
bool mlog_elsewhere(const char *dir, uint64_t *id, char addr[256]);
/* Completes what was proposed, turns away everything later with -ERR_SHUTDOWN (fn then runs on the
 * proposer's thread); other calls stay allowed. Optional before mlog_close, for callers whose
 * threads may still propose. */
void mlog_stop(struct mlog *m);
void mlog_close(struct mlog *m); /* stops and frees; NULL is fine */
const char *mlog_uuid(struct mlog *m);
uint64_t mlog_id(struct mlog *m); /* this metad's, from 1 on */
/* fn is called once, on the log thread, right after apply, with the fsm write lock HELD (so that a
 * reply can be built from the state), code 0; or with code -ERR_NOT_LEADER / -ERR_SHUTDOWN / -EIO
 * and res NULL, no lock held. mlog_after, when not NULL, is called after the lock is released (send
 * the reply there). -ERR_VERSION: cmd needs a feature level that the state does not have. Fields
 * of it that this version does not know are left out. cmd is copied (packed) before return; time_ns is stamped here when 0. Any
 * thread. Commands proposed by one thread are applied in that order. */
typedef void mlog_applied(void *arg, int code, const struct fsm_result *res);
typedef void mlog_after(void *arg);
void mlog_propose(struct mlog *m, Replfs__Command *cmd, mlog_applied *fn, mlog_after *after,
                  void *arg);
/* The same for what only this leadership may log (`leading`, as mlog_leading told; 0: whichever there is):
 * once that is over, fn gets -ERR_NOT_LEADER, even if this metad leads again. */
void mlog_propose_as(struct mlog *m, uint64_t leading, Replfs__Command *cmd, mlog_applied *fn,
                     mlog_after *after, void *arg);
/* The same, waiting. Not on the log thread. */
int mlog_propose_wait(struct mlog *m, Replfs__Command *cmd, struct fsm_result *res);
bool mlog_is_leader(struct mlog *m);
/* Id of the leader as known here; false: none is known. Any thread. */
bool mlog_leader(struct mlog *m, uint64_t *id);
/* This metad leads, and nobody else does at this moment: the state may be read for an answer. Cheap. Any thread. */
bool mlog_may_read(struct mlog *m);
enum mlog_change_kind { MLOG_ADD, MLOG_REMOVE, MLOG_TRANSFER };
/* code: 0; -ERR_NOT_LEADER; -ERR_BUSY: another change is under way; -EEXIST, -ENOENT: is (not) a member;
 * -ERR_TIMEOUT: not within the time, it may still happen; -EINVAL; -ERR_SHUTDOWN. On the log thread, no lock held,
 * or on the caller's when the log is stopped. */
typedef void mlog_changed(void *arg, int code);
/* On the leader. ADD: the metad is a learner once fn is called, and becomes a voter by itself when its log has caught
 * up. REMOVE: no member once fn is called; the leader may not remove itself (-EINVAL). TRANSFER: id leads, or, 0,
 * whoever is most up to date. Any thread. */
void mlog_change(struct mlog *m, enum mlog_change_kind kind, uint64_t id, unsigned timeout_ms,
                 mlog_changed *fn, void *arg);
/* The same, waiting. Not on the log thread, nor on one of the rpc loop. */
int mlog_change_wait(struct mlog *m, enum mlog_change_kind kind, uint64_t id, unsigned timeout_ms);
int mlog_step_down(struct mlog *m, unsigned timeout_ms); /* TRANSFER to anybody, waiting */
#define MLOG_MEMBERS_MAX 16u
struct mlog_member {
    uint64_t id;
    enum { MLOG_SPARE, MLOG_LEARNER, MLOG_VOTER } role;
    uint64_t match;   /* leader: how far its log is known to be ours; else 0 */
    int64_t heard_ms; /* leader: ago; -1: never */
};
/* As of a moment ago. Returns how many. Any thread. */
unsigned mlog_members(struct mlog *m, struct mlog_member out[MLOG_MEMBERS_MAX]);
/* One that leads has said since the last call that this metad is no member (any more). To be asked (METAD_JOIN): the
 * one that said it may be deposed. Any thread. */
bool mlog_doubted(struct mlog *m);
/* Where others reach this metad, told with each message: their state may not say so yet. Any thread. */
void mlog_serves_at(struct mlog *m, const char *addr);
/* A RaftReq; consumes req. Any thread. */
void mlog_rpc_raft(struct mlog *m, struct rpc_req *req);
void mlog_rpc_checkpoint(struct mlog *m, struct rpc_req *req); /* likewise, a CheckpointReq */
/* Which leadership of this process it is that lasts: 1, 2, ...; 0: this metad does not lead. Any thread. */
uint64_t mlog_leading(struct mlog *m);
/* For tests, with one voter: leadership is lost and gained again, as if another had led for a moment. What is
 * queued and under way is answered with -ERR_NOT_LEADER; what is under way is committed all the same. */
void mlog_flip(struct mlog *m);
struct mlog_status {
    bool leader;
    uint64_t term, leader_id, last, applied, log_bytes, checkpoint_index, queued;
    const char *error;
};
void mlog_status(struct mlog *m, struct mlog_status *out);
int mlog_checkpoint(struct mlog *m); /* ask for one now; returns at once */
/* Where the state file of this index is; 0 or -ENAMETOOLONG. */
#define MLOG_PATH_MAX 4200u
int mlog_ckpt_path(char *out, size_t size, const char *dir, uint64_t index);
#endif
