/* Quotas at write(2): a write that does not seem to fit has the file flushed and metad asked anew, since others
 * may have added or deleted; only then it is EDQUOT. */
#include "client/writeback/quota_admit.h"
#include <errno.h>
#include "client/base/client_clock.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/internal.h"
#include "client/io/layout.h"
#include "client/writeback/flush.h"
#include "client/writeback/quota.h"
#include "base/lock.h"

static bool fits(const struct cfile *f, uint64_t more)
{
    uint64_t left = f->attr.quota_left;
    return !more || (f->growing <= left && more <= left - f->growing);
}

int quota_admit(struct cfile *f, uint64_t off, size_t len, bool *asked)
{
    Replfs__Attr now = REPLFS__ATTR__INIT;
    if (fits(f, quota_grows(f, off, len)))
        return 0;
    if (*asked)
        return -EDQUOT;
    *asked = true;
    lock_release(&f->mu);
    int rc = flush_file(f, FLUSH_COMMIT, false);
    quota_settle(f->c, f->ino);
    if (!rc)
        rc = client_getattr_now(f->c, f->ino, &now); /* into f as well */
    lock_acquire(&f->mu);
    if (!rc) /* where the file has bytes already */
        rc = layout_need(f, off + len, client_deadline(f->c));
    return rc ? rc : 1;
}
