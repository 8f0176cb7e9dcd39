/* Requests about metads themselves: their log's messages, the list of them, changes of it. Served by every metad,
 * whatever its role (changes: by the leader). */
#ifndef REPLFS_METAD_SERVICE_SERVICE_METAD_H
#define REPLFS_METAD_SERVICE_SERVICE_METAD_H
#include "metad/fsm/fsm.h"
#include "metad/log/mlog.h"
#include "request.h"
#include "rpc/rpc.h"

struct metads;
/* Both must outlive it; all answers that are under way end with mlog_stop. Never NULL. */
struct metads *metads_new(struct fsm *fsm, struct mlog *mlog);
void metads_free(struct metads *t);
bool metads_serves(enum request r);
/* One of metads_serves, from a peer whose role may send it. Consumes req; an rpc loop thread. */
void metads_request(struct metads *t, struct rpc_req *req);
/* ERR_NOT_LEADER, with the leader's address when it is known. Consumes req; any thread, no lock held. */
void metads_not_leader(struct metads *t, struct rpc_req *req);
/* For mlog_config.addr_of, with the fsm as arg. */
bool metads_addr_of(void *fsm, uint64_t id, char out[256]);
#endif
