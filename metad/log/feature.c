/* Raises the feature level.
 *
 * A cluster of several metads is upgraded one program after the other, so its level waits until somebody says that all
 * of them are new (replfsctl metad upgrade): until then what the new version can do and the old one cannot is not used,
 * and any of them may go back to the old program.
 *
 * A cluster of one has nobody to wait for. Whoever puts a new replfs-metad on its directory means to use it, and would
 * not know of a command that still has to be given; so its level is raised at the first start. The program before
 * refuses the directory from then on, and says why (entry and checkpoint versions, fsm_not_understood).
 *
 * Failure modes: codes of the log. Any thread but the log's; no state. */
#include "feature.h"

#include <errno.h>

#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "metad"

int feature_raise(struct mlog *mlog, struct fsm *fsm, unsigned level)
{
    Replfs__FeatureOp feature = REPLFS__FEATURE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct fsm_result res = {0};
    unsigned was = fsm_feature_level(fsm);

    if (level <= was)
        return 0;
    feature.level = level;
    op.op_case = REPLFS__META_OP__OP_FEATURE;
    op.feature = &feature;
    cmd.op = &op;
    int rc = mlog_propose_wait(mlog, &cmd, &res);
    if (rc == 0 && res.code != 0 && res.code != EALREADY)
        rc = -res.code;
    if (rc == 0)
        log_info("feature level %u (it was %u): a replfs-metad of a version before it cannot go on "
                 "with this "
                 "cluster any more",
                 level, was);
    return rc;
}

int feature_begin(struct mlog *mlog, struct fsm *fsm)
{
    unsigned level = fsm_feature_level(fsm);

    fsm_rdlock(fsm);
    bool alone = fsm_metads(fsm) == 1;
    fsm_unlock(fsm);
    if (alone)
        return feature_raise(mlog, fsm, FSM_FEATURE_MAX);
    if (level < FSM_FEATURE_MAX)
        log_info("feature level %u; this version knows %u: when every metad runs it, raise it with "
                 "'replfsctl metad upgrade'",
                 level, FSM_FEATURE_MAX);
    return 0;
}
