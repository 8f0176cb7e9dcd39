/* Joining a cluster: the side of the metad that joins. */
#ifndef REPLFS_METAD_SERVICE_JOIN_H
#define REPLFS_METAD_SERVICE_JOIN_H
#include <stdint.h>
#include "rpc/rpc.h"

struct join_who {
    const char *addr;    /* where others reach this metad, host:port */
    const char *name;    /* of its computer */
    const char *host_id; /* likewise */
};
/* Asks the metad at `at`, and whoever it says leads, for an id. 0 and *id, uuid; or a negative code after a log
 * line. Waits, at most a minute. */
int join_ask(struct rpc_loop *loop, const char *at, const struct join_who *who, uint64_t *id,
             char uuid[37]);

struct mlog;
struct fsm;
struct join;
/* Tells the leader on a thread of its own, until it knows, that this metad runs and where: a new one becomes a member
 * so, one that moved is found again. at: whom to ask as long as the state does not say where the leader is; may be
 * NULL. A cluster of one knows when this metad itself has logged it.
 * removed: called once, on that thread, when the cluster does not have this metad any more: it shall end. leader: an
 * address to join at anew. */
int join_announce(struct rpc_loop *loop, struct mlog *mlog, struct fsm *fsm, const char *at,
                  const struct join_who *who, void (*removed)(void *arg, const char *leader),
                  void *arg, struct join **out);
void join_free(
    struct join *j); /* ends it, at once; before mlog_stop and rpc_loop_free. NULL is fine */
#endif
