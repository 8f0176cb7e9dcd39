/* Metad's order to write the live ranges of a chunk as another one. */
#ifndef REPLFS_CHUNKD_COMPACTION_H
#define REPLFS_CHUNKD_COMPACTION_H
#include "service.h"

/* 0, or -ERR_PROTOCOL: no order that could be carried out. Any thread. */
int compaction_check(const Replfs__CompactOrder *o);
/* Carries out the order in req, which passed the check, and answers. A thread of the order pool; may block. */
void compaction_run(struct service *s, struct rpc_req *req);
#endif
