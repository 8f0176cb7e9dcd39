/* Clones: extents of one file shared with another. */
#include "fsm_internal.h"

int fsm_op_clone(struct fsm *f, const Replfs__CloneOp *op, struct fsm_result *res)
{
    (void)f, (void)op, (void)res;
    return -EOPNOTSUPP;
}
