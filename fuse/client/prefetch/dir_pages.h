/* Pages of directories: client_list of client.h. dirs.mu is taken before the lease cache's. */
#ifndef REPLFS_FUSE_CLIENT_PREFETCH_DIR_PAGES_H
#define REPLFS_FUSE_CLIENT_PREFETCH_DIR_PAGES_H
#include "client/client.h"

int dirs_start(struct client *c); /* 0 or a code */
void dirs_stop(struct client *c); /* accepts one that never started; no lock held */
/* Pages that are being fetched before they are asked for. Between start and stop; no lock held. */
size_t dir_pages_coming(struct client *c);
/* A page of a directory that was asked for with `lease`: kept as far as leases came with it. begun:
 * client_begin before asking. from_start: the first page. No lock held; may ask metad. */
void client_saw_entries(struct client *c, uint64_t begun, uint64_t dir, bool from_start,
                        const Replfs__ReaddirReply *r);
#endif
