/* Quotas of directory trees. */
#include "fsm_internal.h"

int fsm_op_quota(struct fsm *f, const Replfs__QuotaOp *op, struct fsm_result *res)
{
    (void)f, (void)op, (void)res;
    return -EOPNOTSUPP;
}
