/* What all metads of a cluster must agree on is part of the state; what an older data directory, or this process' flags,
 * say of it goes into the log when a metad begins to lead. */
#ifndef REPLFS_METAD_LOG_AGREE_H
#define REPLFS_METAD_LOG_AGREE_H
#include "metad/fsm/fsm_cluster.h"
#include "mlog.h"

/* A metad begins to lead (feature_begin was called). Logs the settings that the state does not have yet, as they are
 * offered (fsm_setting_offer); the key of capabilities: of the file cap.key, when there is one, else a new one; what
 * the file `replaced` says. Both files are removed then. dir: the data directory, NULL: no files. 0 or a code after a
 * log line. Not on the log thread. */
int agree_begin(struct mlog *mlog, struct fsm *fsm, const char *dir);
/* The key alone, without removing its file. */
int agree_cap_key(struct mlog *mlog, struct fsm *fsm, const char *dir);
#endif
