/* The replicated log: libraft behind a narrow door, so that the engine could change. One log thread
 * owns libraft and its libuv loop, applies committed commands to the fsm under its write lock,
 * completes proposals and takes checkpoints (fork). */
#ifndef REPLFS_METAD_LOG_MLOG_H
#define REPLFS_METAD_LOG_MLOG_H
#include <stdbool.h>
#include <stdint.h>
#include "metad/fsm/fsm.h"

struct mlog;
struct mlog_config {
    const char *dir; /* the metad's data directory: log/, checkpoints, replfs.id, hwm */
    struct fsm *fsm;
    uint64_t checkpoint_bytes; /* log bytes between checkpoints, default 64 MiB */
    void (*role_changed)(void *arg, bool leader); /* on the log thread */
    /* Called once, on the log thread: the engine was refused something that it cannot do without.
     * Nothing is accepted any more (-EIO); only a new start helps. NULL: nobody is told. */
    void (*failed)(void *arg);
    void *arg;
};
/* Makes a new cluster in an empty or missing dir: UUID, bootstrap of one voter. -EEXIST with a log
 * line when there is one already. */
int mlog_init_dir(const char *dir, char uuid[37]);
/* Opens, loads checkpoint and log, refuses what it cannot trust (-ERR_CORRUPT, -ERR_VERSION,
 * -ERR_LOCKED) after log lines that name the file, the finding and the way out. Returns when this
 * metad has applied all it had stored and leads (a cluster of one), within timeout_ms. */
int mlog_open(const struct mlog_config *cfg, unsigned timeout_ms, struct mlog **out);
/* Completes what was proposed, turns away everything later with -ERR_SHUTDOWN (fn then runs on the
 * proposer's thread); other calls stay allowed. Optional before mlog_close, for callers whose
 * threads may still propose. */
void mlog_stop(struct mlog *m);
void mlog_close(struct mlog *m); /* stops and frees; NULL is fine */
const char *mlog_uuid(struct mlog *m);
/* fn is called once, on the log thread, right after apply, with the fsm write lock HELD (so that a
 * reply can be built from the state), code 0; or with code -ERR_NOT_LEADER / -ERR_SHUTDOWN / -EIO
 * and res NULL, no lock held. mlog_after, when not NULL, is called after the lock is released (send
 * the reply there). cmd is copied (packed) before return; time_ns is stamped here when 0. Any
 * thread. Commands proposed by one thread are applied in that order. */
typedef void mlog_applied(void *arg, int code, const struct fsm_result *res);
typedef void mlog_after(void *arg);
void mlog_propose(struct mlog *m, Replfs__Command *cmd, mlog_applied *fn, mlog_after *after,
                  void *arg);
/* The same, waiting. Not on the log thread. */
int mlog_propose_wait(struct mlog *m, Replfs__Command *cmd, struct fsm_result *res);
bool mlog_is_leader(struct mlog *m);
struct mlog_status {
    bool leader;
    uint64_t term, applied, log_bytes, checkpoint_index, queued;
    const char *error;
};
void mlog_status(struct mlog *m, struct mlog_status *out);
int mlog_checkpoint(struct mlog *m); /* ask for one now; returns at once */
#endif
