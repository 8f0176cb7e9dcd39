/* metad's requests: namespace, layouts, grants, sessions; what is about chunkds goes to nodes. A service is
 * of one leadership (metad/leader.h): its leases, locks and waiting requests end with it. */
#ifndef REPLFS_METAD_SERVICE_SERVICE_H
#define REPLFS_METAD_SERVICE_SERVICE_H
#include "metad/backup/copies.h"
#include "metad/fsm/fsm.h"
#include "metad/log/ids.h"
#include "metad/log/mlog.h"
#include "metad/cluster/nodes.h"
#include "metad/coherence/sessions.h"
#include "base/gate.h"
#include "rpc/rpc.h"

struct service;
struct service_config {
    struct fsm *fsm;
    struct mlog *mlog;
    struct nodes *nodes;
    struct sessions *sessions;
    struct ids *ids;
    struct copies *copies; /* NULL: no backups */
    struct rpc_loop *loop; /* the one it is served on: answers that come later */
    struct gate *gate;     /* whoever calls is inside, what goes on later stays inside */
    uint64_t leading;      /* the leadership (mlog_leading) */
    /* What holds as long as the state does not say (fsm_setting_offer), 0: the default */
    unsigned min_copies;
    unsigned lease_ms;   /* told to sessions */
    unsigned term_ms;    /* of leases on inodes */
    uint64_t max_memory; /* bytes of this process; 0: nine tenths of the computer's */
};
/* The sessions have been made and not started. Any thread. */
int service_new(const struct service_config *cfg, struct service **out);
/* False: metad does not serve this request, or not to this role; it was answered. */
bool service_admits(struct rpc_req *req);
/* Handles one that service_admits(). Inside the gate. */
void service_request(struct service *s, struct rpc_req *req);
void service_closed(struct service *s, struct rpc_conn *c); /* its connection. Inside the gate */
/* The gate is shut, the sessions' thread has ended: whoever waits is answered with code (-ERR_NOT_LEADER,
 * -ERR_SHUTDOWN), nobody waits any more, and the connections of sessions are closed, so that their clients look for
 * the leader at once. What is under way still goes on until the gate is empty. */
void service_stop(struct service *s, int code);
void service_free(struct service *s); /* the gate is empty */
#endif
