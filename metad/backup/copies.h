/* Copies of the names outside metad: the leader streams its checkpoints and what is applied after them to a few
 * chunkds, so that a cluster survives the loss of metad's disk (recover.h). */
#ifndef REPLFS_METAD_BACKUP_COPIES_H
#define REPLFS_METAD_BACKUP_COPIES_H
#include "metad/cluster/nodes.h"
#include "metad/log/mlog.h"

struct copies;
/* dir: metad's data directory. fsm: for the settings meta-copies (how many chunkds, on distinct computers, keep copies)
 * and meta-copies-sync; outlives it. Never NULL. */
struct copies *copies_new(const char *dir, struct fsm *fsm);
/* For mlog_open: told of everything from the log's loading on. Lives as long as c. */
const struct mlog_observer *copies_observer(const struct copies *c);
/* This metad leads (`leading`, as mlog_leading tells): starts the thread. 0, -ERR_NOT_LEADER when that is over already, or
 * -errno. To be followed by copies_stop, before m and n go. */
int copies_start(struct copies *c, struct mlog *m, struct nodes *n, uint64_t leading);
/* It does not lead any more, or ends. Returns when no call is under way: those that are end with their connections,
 * which are closed. Not started: nothing. */
void copies_stop(struct copies *c);
void copies_free(struct copies *c); /* after the log was closed; NULL is fine */
/* meta-copies-sync is on: answers to changes are to wait for the copies. NULL: no. Any thread. */
bool copies_sync(const struct copies *c);
/* Calls w->done once the copies have the log's entry at w->index, or when that takes too long (copies_sync.c), with
 * code 0; -ERR_NOT_LEADER: leadership is over. On the thread `names`, the caller's or that of copies_stop, no lock held. w
 * lives until then. Any thread. */
struct copies_wait {
    uint64_t index;
    void (*done)(struct copies_wait *w, int code);
    int64_t at; /* private, like next */
    struct copies_wait *next;
};
void copies_wait(struct copies *c, struct copies_wait *w);
/* SnapshotReq; consumes req. Any thread. */
void copies_snapshot(struct copies *c, struct rpc_req *req);
/* For struct nodes_config.names_copies; arg is c. Any thread. */
size_t copies_status(void *arg, struct nodes_names *out, size_t max, struct nodes_names_all *all);
#endif
