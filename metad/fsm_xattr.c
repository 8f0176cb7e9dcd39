/* Extended attributes and POSIX ACLs. */
#include "fsm_internal.h"

int fsm_op_xattr(struct fsm *f, const Replfs__XattrOp *op, struct fsm_result *res)
{
    (void)f, (void)op, (void)res;
    return -EOPNOTSUPP;
}
