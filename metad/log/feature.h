/* The feature level of the metadata (metaop.h, FeatureOp): what may be logged, so that all metads know it. */
#ifndef REPLFS_METAD_LOG_FEATURE_H
#define REPLFS_METAD_LOG_FEATURE_H
#include "metad/fsm/fsm_cluster.h"
#include "mlog.h"

/* A metad begins to lead, and nothing of this start has been logged. A cluster of one gets the newest level of this
 * version at once; with others it stays as it is, and a log line tells of a newer one. 0 or a code. Not on the log
 * thread. */
int feature_begin(struct mlog *mlog, struct fsm *fsm);
/* To `level`; whoever calls it has made sure that every metad knows that one. 0, also when it is there already, or a
 * code. Not on the log thread. */
int feature_raise(struct mlog *mlog, struct fsm *fsm, unsigned level);
#endif
