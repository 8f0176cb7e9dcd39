/* Begins a new incarnation of the metadata: a random number in the log, so that this run can be told
 * from that of another copy of the directory, whatever the two have in common. Any thread but the
 * log's; no state. */
#include "incarnation.h"

#include <errno.h>
#include <openssl/rand.h>

#include "base/log.h"

#define LOG_MODULE "metad"

int incarnation_begin(struct mlog *mlog)
{
    Replfs__IncarnationOp inc = REPLFS__INCARNATION_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct fsm_result res = {0};

    if (RAND_bytes((unsigned char *)&inc.incarnation, sizeof(inc.incarnation)) != 1)
        return -EIO;
    inc.incarnation |= 1; /* never 0 */
    op.op_case = REPLFS__META_OP__OP_INCARNATION;
    op.incarnation = &inc;
    cmd.op = &op;
    int rc = mlog_propose_wait(mlog, &cmd, &res);
    if (rc == 0 && res.code != 0)
        rc = -res.code;
    if (rc == 0)
        log_info("incarnation %016llx begins", (unsigned long long)inc.incarnation);
    return rc;
}
