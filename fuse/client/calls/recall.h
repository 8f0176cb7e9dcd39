/* What metad asks of a client: leases back. */
#ifndef REPLFS_FUSE_CLIENT_CALLS_RECALL_H
#define REPLFS_FUSE_CLIENT_CALLS_RECALL_H
#include "rpc/rpc.h"

/* session_events.request. On a loop thread, does not wait. */
void recall_request(void *client, struct rpc_req *req);
/* A lease_cache_forget: what was kept back of ino goes to metad, and its map is forgotten. A thread of the lease
 * cache, no lock held; waits. */
void recall_forget(void *client, uint64_t ino, bool flush);
#endif
