/* Requests about copies of the names. */
#ifndef REPLFS_CHUNKD_NAMES_SERVE_H
#define REPLFS_CHUNKD_NAMES_SERVE_H
#include "service.h"

/* Handle NamesPutReq (from the metad that we registered at) and NamesGetReq; consume req. Loop thread; answered from
 * another one. */
void names_serve_put(struct service *s, struct rpc_req *req);
void names_serve_get(struct service *s, struct rpc_req *req);
#endif
