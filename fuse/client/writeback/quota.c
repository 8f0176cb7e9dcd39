/* Quotas at write(2), and what the log says when one is exceeded.
 *
 * metad charges bytes when they are committed; a program wants to know when it writes. Every reply
 * about a file in a tree with a quota says how many bytes may still be added there (quota_left).
 * Against that count the bytes this file has buffered that will add to it: those that were a hole,
 * in the file as known, when they were written. Overwriting adds nothing. When a write does not
 * seem to fit, the file is flushed and metad asked anew, since others may have added or deleted;
 * only then it is EDQUOT.
 *
 * A refusal by metad is met the same way: what this client has just deleted or closed may not have
 * been given back yet, so EDQUOT counts only when metad has nothing left to free in that tree.
 *
 * Not known are the bytes that other files, here and on other clients, have buffered: together
 * they may exceed the quota. metad then refuses a commit; its bytes are lost, which close or fsync
 * report as for any error of the background (cfile_fail), and the log names the tree. Refused
 * commits are not repeated. Any thread; no state of its own. */
#include "client/writeback/quota.h"
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "client/file/cfile.h"
#include "client/file/overlay.h"
#include "client/internal.h"
#include "client/queue/mutate.h"
#include "client/session/ask.h"
#include "client/session/closes.h"
#include "metaop.h"

#define LOG_MODULE "quota"
#define SETTLE_MS 1000
#define SETTLE_STEP_MS 10

uint64_t quota_grows(const struct cfile *f, uint64_t off, uint64_t len)
{
    uint64_t sum = 0, end = off + len;
    struct seg s;
    for (; off < end; off += s.len) {
        overlay_next(&f->over, &f->base, off, end, &s);
        if (s.kind == SEG_HOLE)
            sum += s.len;
    }
    return sum;
}

/* ---- what was just deleted ---- */

typedef int ask_fn(struct client *, Replfs__Envelope *, int64_t, struct rpc_result *);

static int quota_ask(struct client *c, uint64_t ino, ask_fn *how, struct rpc_result *res)
{
    Replfs__QuotaListReq m = REPLFS__QUOTA_LIST_REQ__INIT;
    RPC_ENVELOPE(env, QUOTA_LIST_REQ, quota_list_req, &m);
    m.ino = ino;
    int rc = how(c, &env, clock_mono() + 5 * NSEC_PER_SEC, res);
    return !rc && res->rep->body_case != REPLFS__ENVELOPE__BODY_QUOTA_LIST_REPLY ? -ERR_PROTOCOL
                                                                                 : rc;
}

/* Deleted files are charged until metad has removed them, moments after nobody has them open any
 * more: tells it what this client has closed, and waits, not for long. */
void quota_settle(struct client *c, uint64_t ino)
{
    const struct timespec pause = {.tv_nsec = SETTLE_STEP_MS * NSEC_PER_MSEC};
    int64_t until = clock_mono() + SETTLE_MS * NSEC_PER_MSEC;
    bool freeing;
    closes_flush(c);
    do {
        struct rpc_result res;
        freeing = !quota_ask(c, ino, session_ask, &res) && res.rep->quota_list_reply->freeing;
        rpc_result_free(&res);
        if (freeing)
            nanosleep(&pause, NULL);
    } while (freeing && clock_mono() < until);
}

int quota_mutate(struct client *c, Replfs__MetaOp *op, uint64_t need, int64_t deadline,
                 Replfs__Attr *attr, Replfs__Attr *parent, uint64_t *value)
{
    int rc = mutate_value(c, op, need, deadline, attr, parent, value);
    if (rc != -EDQUOT || !metaop_charged(op))
        return rc;
    quota_settle(c, metaop_charged(op));
    return mutate_value(c, op, need, deadline, attr, parent, value);
}

/* ---- the log ---- */

/* "/a/b", or "..." and its end. */
static void path_of(const Replfs__QuotaInfo *q, char *out, size_t cap)
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < q->n_path && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "/%.*s", (int)q->path[i].len,
                               (const char *)q->path[i].data);
    if (!q->n_path)
        snprintf(out, cap, "/");
}

/* The quota in the way: the one with the fewest bytes left. */
static const Replfs__QuotaInfo *tightest(const Replfs__QuotaListReply *r)
{
    const Replfs__QuotaInfo *best = NULL;
    uint64_t least = 0;
    for (size_t i = 0; i < r->n_quotas; i++) {
        const Replfs__QuotaInfo *q = r->quotas[i];
        uint64_t left = q->max_bytes > q->bytes ? q->max_bytes - q->bytes : 0;
        if (q->max_bytes && (!best || left < least)) {
            best = q;
            least = left;
        }
    }
    return best;
}

void quota_refused(struct client *c, uint64_t ino, uint64_t bytes)
{
    struct rpc_result res;
    const Replfs__QuotaInfo *q = NULL;
    char path[1024];
    if (!quota_ask(c, ino, session_ask_now, &res)) /* the sender of what is queued may be asking */
        q = tightest(res.rep->quota_list_reply);
    if (q) {
        path_of(q, path, sizeof(path));
        log_error("inode %llu: %llu bytes written are lost: the quota of directory %s of this file "
                  "system would be exceeded (%llu of %llu bytes in use). Delete something there, "
                  "or raise it: "
                  "replfsctl quota set DIR --bytes SIZE. Which file: find DIR -inum %llu",
                  (unsigned long long)ino, (unsigned long long)bytes, path,
                  (unsigned long long)q->bytes, (unsigned long long)q->max_bytes,
                  (unsigned long long)ino);
    } else {
        log_error("inode %llu: %llu bytes written are lost: the quota of its directory tree is "
                  "used up; see replfsctl quota list",
                  (unsigned long long)ino, (unsigned long long)bytes);
    }
    rpc_result_free(&res);
}
