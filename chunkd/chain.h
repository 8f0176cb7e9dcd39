/* Appends: store the bytes and send them down the chain at the same time. */
#ifndef REPLFS_CHUNKD_CHAIN_H
#define REPLFS_CHUNKD_CHAIN_H
#include "service.h"

#define CHAIN_MAX_HOPS 16u          /* of one chain, this chunkd not counted */
#define CHAIN_CHUNK_MAX (64u << 20) /* bytes of one chunk */
/* Handles AppendReq; consumes req. Loop thread: appends of one connection keep their order. */
void chain_append(struct service *s, struct rpc_req *req);
#endif
