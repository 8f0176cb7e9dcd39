/* fallocate(2): reserved ranges, holes, zeros. */
#include "fsm_internal.h"

int fsm_op_fallocate(struct fsm *f, const Replfs__FallocateOp *op, struct fsm_result *res)
{
    (void)f, (void)op, (void)res;
    return -EOPNOTSUPP;
}
