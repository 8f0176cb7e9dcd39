/* metad's requests: namespace, layouts, grants, sessions; what is about chunkds goes to nodes. */
#ifndef REPLFS_METAD_SERVICE_SERVICE_H
#define REPLFS_METAD_SERVICE_SERVICE_H
#include "metad/fsm/fsm.h"
#include "metad/log/ids.h"
#include "metad/log/mlog.h"
#include "metad/cluster/nodes.h"
#include "metad/coherence/sessions.h"
#include "rpc/rpc.h"

struct service;
struct service_config {
    struct fsm *fsm;
    struct mlog *mlog;
    struct nodes *nodes;
    struct sessions *sessions;
    struct ids *ids;
    struct rpc_loop *loop;     /* the one it is served on: answers that come later */
    unsigned min_copies;       /* default 2 */
    unsigned lease_ms;         /* told to sessions */
    unsigned term_ms;          /* of leases on inodes, default 10000 */
    uint64_t max_memory;       /* bytes of this process; 0: nine tenths of the computer's */
    const char *const *metads; /* addresses told to sessions; may be empty */
    size_t nmetads;
};
/* The service must outlive the loop it listens on, and end before opens. Any thread. */
int service_new(const struct service_config *cfg, struct service **out);
/* Whoever waits for others' leases is refused (ERR_SHUTDOWN): before mlog_stop. */
void service_stop(struct service *s);
void service_free(struct service *s);
const struct rpc_service *service_rpc(struct service *s); /* for rpc_listen */
#endif
