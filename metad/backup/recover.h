/* A data directory for metad from copies of the names: from chunkds when metad's disk is gone, or from a backup. */
#ifndef REPLFS_METAD_BACKUP_RECOVER_H
#define REPLFS_METAD_BACKUP_RECOVER_H
#include "base/config.h"
#include "rpc/rpc.h"

/* Asks the chunkds at these addresses, takes the copy that reaches furthest, and makes the directory. loop: made with
 * role metad. Says on stdout what it has and what is lost. 0 or a negative code after log lines. Blocks. */
int recover_from_chunkds(struct rpc_loop *loop, const struct config_list *from, const char *dir);
/* The same of one file that replfsctl backup-meta wrote (or of a chunkd's copy). */
int recover_from_file(const char *path, const char *dir);
#endif
