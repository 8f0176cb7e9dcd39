/* The ioctl tunnel, server side.
 *
 * CTL_CALL carries one packed Envelope. It is unpacked with bounds, checked against a short list of
 * requests that any user of the mount may make, completed with what only the mount knows (the inode
 * the ioctl was made on, the caller's uid), and asked of metad. The packed reply is kept under a
 * token until it has been fetched in pieces, by the same uid, or for 60 s; at most MAX_REPLIES
 * wait, the oldest goes first. Rights: questions are harmless, except for the list of all quotas,
 * which is root's; SetGoal and Quota carry the caller's uid, and metad checks it.
 *
 * CTL_SYNC carries nothing either way but its code; any user may, as with sync(2).
 *
 * When the mount has no connection to metad, a caller gets an answer after a few seconds, not after
 * the mount's whole time-out: people ask for the status exactly then. */
#include "ctl_server.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "request.h"

#define LOG_MODULE "ctl"
#define MAX_REPLIES 64
#define REPLY_LIFE (60 * NSEC_PER_SEC)
#define CONNECT_WAIT (5 * NSEC_PER_SEC)
#define MAX_INOS 1000

struct reply {
    uint64_t token; /* 0: free slot */
    uid_t uid;
    int64_t made;
    uint8_t *data;
    size_t len;
};
struct ctl_server {
    struct client *client;
    struct lock mu; /* of all below */
    uint64_t next_token;
    struct reply replies[MAX_REPLIES];
};

struct ctl_server *ctl_server_new(struct client *c)
{
    struct ctl_server *s = calloc(1, sizeof(*s));
    if (!s)
        abort();
    s->client = c;
    s->next_token = 1;
    lock_init(&s->mu, LOCK_CTL_SERVER);
    return s;
}

static void reply_drop(struct reply *r)
{
    free(r->data);
    *r = (struct reply){0};
}

void ctl_server_free(struct ctl_server *s)
{
    if (!s)
        return;
    for (int i = 0; i < MAX_REPLIES; i++)
        reply_drop(&s->replies[i]);
    lock_destroy(&s->mu);
    free(s);
}

static int allows_mutation(const Replfs__MutateReq *m)
{
    if (!m || m->n_ops != 1)
        return -EPERM;
    const Replfs__MetaOp *op = m->ops[0]->op;
    if (op && op->op_case == REPLFS__META_OP__OP_QUOTA && op->quota)
        return 0;
    if (!op || op->op_case != REPLFS__META_OP__OP_SET_GOAL)
        return -EPERM;
    return op->set_goal->n_ino > MAX_INOS ? -EINVAL : 0;
}

int ctl_server_allows(const Replfs__Envelope *req)
{
    uint64_t ino;
    if (request_ctl(req, &ino) == REQUEST_CTL_FORBIDDEN)
        return -EPERM;
    if (req->body_case == REPLFS__ENVELOPE__BODY_MUTATE_REQ)
        return allows_mutation(req->mutate_req);
    if (req->body_case == REPLFS__ENVELOPE__BODY_CONVERGE_REQ)
        return req->converge_req->n_ino > MAX_INOS ? -EINVAL : 0;
    return 0;
}

/* The envelope `e` packed into a fresh slot; out gets token, length and the first piece. */
static void ctl_keep(struct ctl_server *s, uid_t uid, const Replfs__Envelope *e,
                     struct ctl_msg *out)
{
    size_t len = replfs__envelope__get_packed_size(e);
    uint8_t *data = malloc(len ? len : 1);
    if (!data)
        abort();
    replfs__envelope__pack(e, data);
    out->total = (uint32_t)len;
    out->len = len < sizeof(out->data) ? (uint32_t)len : CTL_DATA_MAX;
    memcpy(out->data, data, out->len);
    if (out->len == len) { /* all of it came along */
        free(data);
        return;
    }
    LOCK_SCOPE(&s->mu);
    int64_t now = clock_mono();
    struct reply *slot = &s->replies[0];
    for (int i = 0; i < MAX_REPLIES; i++) {
        struct reply *r = &s->replies[i];
        if (r->token && now - r->made > REPLY_LIFE)
            reply_drop(r);
        if (!r->token || (slot->token && r->made < slot->made))
            slot = r;
    }
    reply_drop(slot);
    *slot = (struct reply){s->next_token++, uid, now, data, len};
    out->token = slot->token;
}

static int ctl_fetch(struct ctl_server *s, uid_t uid, const struct ctl_msg *in, struct ctl_msg *out)
{
    LOCK_SCOPE(&s->mu);
    for (int i = 0; i < MAX_REPLIES; i++) {
        struct reply *r = &s->replies[i];
        if (!in->token || r->token != in->token || r->uid != uid)
            continue;
        if (in->off >= r->len)
            return -EINVAL;
        size_t left = r->len - in->off;
        out->len = left < sizeof(out->data) ? (uint32_t)left : CTL_DATA_MAX;
        out->total = (uint32_t)r->len;
        out->token = in->token;
        out->off = in->off;
        memcpy(out->data, r->data + in->off, out->len);
        if (out->len == left)
            reply_drop(r);
        return 0;
    }
    return -ESTALE; /* fetched, too old or someone else's */
}

static bool wait_connected(struct client *c)
{
    int64_t until = clock_mono() + CONNECT_WAIT;
    const struct timespec pause = {.tv_nsec = 50 * NSEC_PER_MSEC};
    struct client_stat st;
    for (;;) {
        client_stat(c, &st);
        if (st.connected)
            return true;
        if (clock_mono() > until)
            return false;
        nanosleep(&pause, NULL);
    }
}

static int run_mutation(struct ctl_server *s, uid_t uid, Replfs__Envelope *req, struct ctl_msg *out)
{
    Replfs__MetaOp *op = req->mutate_req->ops[0]->op;
    Replfs__MutationResult res = REPLFS__MUTATION_RESULT__INIT;
    Replfs__MutationResult *list[1] = {&res};
    Replfs__MutateReply rep = REPLFS__MUTATE_REPLY__INIT;
    RPC_ENVELOPE(env, MUTATE_REPLY, mutate_reply, &rep);
    if (op->op_case == REPLFS__META_OP__OP_QUOTA)
        op->quota->uid = uid;
    else
        op->set_goal->uid = uid;
    int rc = client_mutate(s->client, op, NULL, NULL);
    if (rc)
        return rc;
    env.is_reply = true;
    rep.n_results = 1;
    rep.results = list;
    ctl_keep(s, uid, &env, out);
    return 0;
}

static int run_question(struct ctl_server *s, uint64_t ino, uid_t uid, Replfs__Envelope *req,
                        struct ctl_msg *out)
{
    uint64_t flush = 0, named = 0; /* which shows nothing of the directories above it */
    struct rpc_result r = {0};
    if (uid && request_ctl(req, &named) == REQUEST_CTL_ROOT)
        return -EPERM; /* shows what others wrote, or decides for all */
    if (req->body_case == REPLFS__ENVELOPE__BODY_QUOTA_LIST_REQ && !req->quota_list_req->ino && uid)
        return -EPERM; /* paths that the caller perhaps may not see */
    if (uid && named && named != ino)
        return -EPERM; /* only what the caller could open */
    if (req->body_case == REPLFS__ENVELOPE__BODY_INFO_REQ) {
        if (!req->info_req->ino)
            req->info_req->ino = ino;
        flush = req->info_req->ino;
    } else if (req->body_case == REPLFS__ENVELOPE__BODY_GETATTR_REQ && !req->getattr_req->ino) {
        req->getattr_req->ino = ino;
    }
    if (flush && client_flush_ino(s->client, flush))
        log_warn("info of inode %llu: its buffered data could not be flushed",
                 (unsigned long long)flush);
    int rc = client_ask(s->client, req, &r);
    if (r.rep)
        ctl_keep(s, uid, r.rep, out);
    rpc_result_free(&r);
    return rc;
}

static int not_connected(struct ctl_server *s, uid_t uid, struct ctl_msg *out)
{
    struct client_stat st;
    char detail[160];
    Replfs__Failure f = REPLFS__FAILURE__INIT;
    RPC_ENVELOPE(env, FAILURE, failure, &f);
    client_stat(s->client, &st);
    snprintf(detail, sizeof(detail), "the mount has lost metad and keeps trying, last %s",
             st.metad);
    env.is_reply = true;
    f.code = ERR_PEER_GONE;
    f.detail = detail;
    ctl_keep(s, uid, &env, out);
    return -ERR_PEER_GONE;
}

static int call(struct ctl_server *s, uint64_t ino, uid_t uid, const struct ctl_msg *in,
                struct ctl_msg *out)
{
    Replfs__Envelope *req = replfs__envelope__unpack(NULL, in->len, in->data);
    if (!req)
        return -EINVAL;
    int rc = ctl_server_allows(req);
    if (!rc && !wait_connected(s->client))
        rc = not_connected(s, uid, out);
    if (!rc && req->body_case == REPLFS__ENVELOPE__BODY_MUTATE_REQ)
        rc = run_mutation(s, uid, req, out);
    else if (!rc)
        rc = run_question(s, ino, uid, req, out);
    replfs__envelope__free_unpacked(req, NULL);
    out->code = -rc;
    return 0;
}

int ctl_server_ioctl(struct ctl_server *s, unsigned cmd, uint64_t ino, uid_t uid,
                     const struct ctl_msg *in, struct ctl_msg *out)
{
    if (cmd != CTL_CALL && cmd != CTL_FETCH && cmd != CTL_SYNC)
        return -ENOTTY;
    if (in->version != CTL_VERSION || in->len > sizeof(in->data))
        return -EINVAL;
    memset(out, 0, sizeof(*out));
    out->version = CTL_VERSION;
    out->ino = ino;
    if (cmd == CTL_SYNC) {
        out->code = -client_sync(s->client);
        return 0;
    }
    return cmd == CTL_CALL ? call(s, ino, uid, in, out) : ctl_fetch(s, uid, in, out);
}
