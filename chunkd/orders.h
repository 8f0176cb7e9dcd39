/* What metad orders a chunkd to do: copy, delete, verify, compact. */
#ifndef REPLFS_CHUNKD_ORDERS_H
#define REPLFS_CHUNKD_ORDERS_H
#include "service.h"

/* Handles OrderReq; consumes req. Loop thread; answered from other threads when done. */
void orders_request(struct service *s, struct rpc_req *req);
#endif
