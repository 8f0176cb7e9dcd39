/* Messages from other metads: from the rpc loop's threads to libraft.
 *
 * On a loop thread (mlog_rpc_raft): the message is decoded and checked as far as it can be alone, then queued for the
 * log thread; a queue that is too long refuses. On the log thread: what depends on our own state is checked, then
 * libraft's callback gets it, then the request is answered (mlog_net.c says what the answer is good for).
 *
 * A message that libraft (0.22.1) would stumble over never reaches it:
 *   - for another cluster or metad; from a metad that is no member, when this one leads and so knows. (A follower
 *     may not have heard yet who became a member; a learner knows nobody. They listen to whoever has a metad's
 *     certificate and the cluster's UUID.);
 *   - entries, a snapshot of our own term while we lead; entries that contradict what is committed: assertions;
 *   - entries or a snapshot of an older term: libraft's refusal has a field that it never set, which a sender that
 *     leads by now would take for how far our log is. We refuse ourselves;
 *   - a commit index that would run backwards: an assertion;
 *   - votes that nobody asked for: it looks at a candidate's state without being one;
 *   - any request for a vote shortly after the start: what this metad promised before it stopped, by following a
 *     leader, it does not remember, and that leader may still hold its lease. */
#include "mlog_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "mlog"
#define QUEUE_MAX 4096u
#define QUEUE_BYTES (64u << 20)

/* ---- loop threads ---- */

static void recv_free(struct mlog_in *in)
{
    mlog_wire_free(&in->msgs, 0);
    free(in);
}

void mlog_recv_drop(struct mlog_in *in, int code, const char *why)
{
    rpc_fail(in->req, code, "%s", why);
    recv_free(in);
}

static bool enqueue(struct mlog_net *n, struct mlog_in *in)
{
    lock_acquire(&n->mu);
    bool ok = !n->stopped && n->nin < QUEUE_MAX && n->in_bytes + in->bytes <= QUEUE_BYTES;
    bool first = !n->in;
    if (ok) {
        *n->in_tail = in;
        n->in_tail = &in->next;
        n->nin++;
        n->in_bytes += in->bytes;
        if (first)
            uv_async_send(&n->m->wake); /* under the lock: the handle is not closed meanwhile */
    }
    lock_release(&n->mu);
    return ok;
}

void mlog_rpc_raft(struct mlog *m, struct rpc_req *req)
{
    const Replfs__RaftReq *r = req->env->raft_req;
    const char *why = "out of memory";

    if (!m->net) {
        rpc_fail(req, ERR_PROTOCOL, "this metad is alone");
        return;
    }
    if (strcmp(r->cluster, m->uuid) != 0) {
        rpc_fail(req, ERR_WRONG_CLUSTER, "this metad belongs to cluster %s", m->uuid);
        return;
    }
    if (r->to != m->id || r->from == m->id) {
        rpc_fail(req, ERR_PROTOCOL, "this is metad %" PRIu64, m->id);
        return;
    }
    if (r->from < 64 && (atomic_load(&m->net->cut) >> r->from & 1) != 0) {
        rpc_fail(req, ERR_PEER_GONE, "cut off");
        return;
    }
    struct mlog_in *in = calloc(1, sizeof(*in));
    if (!in)
        abort();
    *in = (struct mlog_in){.req = req,
                           .from = r->from,
                           .term = r->term,
                           .sent = (int64_t)r->sent,
                           .newest = r->newest,
                           .digest_at = r->digest_at,
                           .digest = r->digest};
    snprintf(in->addr, sizeof(in->addr), "%s", r->addr);
    in->bytes = req->payload ? req->payload->len : 0;
    int rc =
        mlog_wire_decode(r, req->payload ? req->payload->data : NULL, in->bytes, &in->msgs, &why);
    if (rc != 0) {
        log_error("metad %" PRIu64 " (%s) sent a message that is refused: %s", r->from,
                  rpc_conn_peer(req->conn)->addr, why);
        mlog_recv_drop(in, -rc, why);
    } else if (!enqueue(m->net, in)) {
        mlog_recv_drop(in, ERR_BUSY, "too many messages wait");
    }
}

/* ---- log thread: what libraft would not survive ---- */

/* Term of an entry of our log; 0: we do not have it, or no longer. As libraft keeps it: by runs of equal terms. */
static uint64_t term_at(const struct raft *r, uint64_t index)
{
    const struct raft_trail *t = &r->trail;

    if (index == t->snapshot.index)
        return t->snapshot.term;
    if (index <= t->offset || t->size == 0)
        return 0;
    for (unsigned i = t->front; i != t->back; i = (i + 1) % t->size)
        if (index <= t->records[i].index)
            return t->records[i].term;
    return 0;
}

static const struct raft_server *member(const struct raft *r, uint64_t id)
{
    for (unsigned i = 0; i < r->configuration.n; i++)
        if (r->configuration.servers[i].id == id)
            return &r->configuration.servers[i];
    return NULL;
}

static bool contradicts(const struct raft *r, const struct raft_append_entries *a)
{
    uint64_t local = a->prev_log_index > 0 ? term_at(r, a->prev_log_index) : 0;

    if (local != 0 && local != a->prev_log_term && a->prev_log_index <= r->commit_index)
        return true;
    for (unsigned i = 0; i < a->n_entries && a->prev_log_index + 1 + i <= r->commit_index; i++) {
        local = term_at(r, a->prev_log_index + 1 + i);
        if (local != 0 && local != a->entries[i].term)
            return true;
    }
    return false;
}

static void refuse_old_term(struct mlog *m, uint64_t to, uint64_t index)
{
    struct raft_message msg = {.type = RAFT_APPEND_ENTRIES_RESULT, .server_id = to};

    msg.append_entries_result.term = raft_current_term(&m->raft);
    msg.append_entries_result.rejected = index > 0 ? index : 1;
    msg.append_entries_result.last_log_index = msg.append_entries_result.rejected - 1;
    mlog_net_send(m, &msg);
}

static bool append_passes(struct mlog *m, uint64_t from, struct raft_append_entries *a)
{
    struct raft *r = &m->raft;

    if (a->term < r->current_term) {
        refuse_old_term(m, from, a->prev_log_index);
        return false;
    }
    if (a->term == r->current_term && raft_state(r) == RAFT_LEADER) {
        log_error("metad %" PRIu64 " says that it leads in term %" PRIu64
                  ", in which this one does",
                  from, (uint64_t)a->term);
        return false;
    }
    if (contradicts(r, a)) {
        log_error("metad %" PRIu64 " sends entries that contradict committed ones of this metad: "
                  "one of the two logs is damaged, or belongs to another cluster of the same UUID. "
                  "Remove one of both metads and let it join again with an empty directory",
                  from);
        atomic_store(&m->error, "its log and the leader's contradict each other");
        return false;
    }
    if (a->leader_commit > r->commit_index && a->prev_log_index + a->n_entries < r->commit_index)
        a->leader_commit = r->commit_index;
    return true;
}

static bool vote_passes(struct mlog *m, const struct raft_request_vote *v)
{
    (void)v;
    return clock_mono() >= m->votes_from;
}

static bool result_passes(const struct raft *r, const struct raft_request_vote_result *v)
{
    if (r->state != RAFT_CANDIDATE)
        return false;
    return !(r->candidate_state.in_pre_vote && v->vote_granted && v->term > r->current_term + 1);
}

static bool recv_passes(struct mlog *m, struct raft_message *msg)
{
    switch (msg->type) {
    case RAFT_APPEND_ENTRIES:
        return append_passes(m, msg->server_id, &msg->append_entries);
    case RAFT_INSTALL_SNAPSHOT:
        if (msg->install_snapshot.term < m->raft.current_term) {
            refuse_old_term(m, msg->server_id, msg->install_snapshot.last_index);
            return false;
        }
        return msg->install_snapshot.term > m->raft.current_term ||
               raft_state(&m->raft) != RAFT_LEADER;
    case RAFT_REQUEST_VOTE:
        return vote_passes(m, &msg->request_vote);
    case RAFT_REQUEST_VOTE_RESULT:
        return result_passes(&m->raft, &msg->request_vote_result);
    case RAFT_APPEND_ENTRIES_RESULT:
        return true;
    case RAFT_TIMEOUT_NOW:
        if (clock_mono() < m->votes_from)
            return false;
        m->disrupt_term = msg->timeout_now.term + 1;
        return true;
    }
    return false;
}

/* ---- log thread: in ---- */

/* Every message ends here: with libraft, or freed. */
static void recv_all_of(struct mlog *m, struct mlog_in *in)
{
    char addr[32];

    mlog_server_addr(addr, in->from);
    for (unsigned i = 0; i < in->msgs.n; i++) {
        struct raft_message *msg = &in->msgs.v[i];
        msg->server_address = addr;
        if (m->broken || !recv_passes(m, msg)) {
            mlog_wire_free(&in->msgs, i);
            return;
        }
        if (msg->type == RAFT_INSTALL_SNAPSHOT) {
            mlog_fetch_begin(m, msg); /* takes it over */
            continue;
        }
        uv_update_time(&m->loop); /* libraft's time is that of the loop; a lease counts on it */
        m->recv_cb(&m->io, msg);
    }
    free(in->msgs.v);
    in->msgs = (struct mlog_msgs){0};
}

static bool follows(struct mlog *m, const struct mlog_in *in)
{
    raft_id id = 0;
    const char *address;

    if (raft_state(&m->raft) != RAFT_FOLLOWER || raft_current_term(&m->raft) != in->term)
        return false;
    raft_leader(&m->raft, &id, &address);
    return id == in->from;
}

static void recv_one(struct mlog *m, struct mlog_in *in)
{
    bool counts = in->msgs.n > 0 && in->msgs.v[0].type == RAFT_APPEND_ENTRIES;
    Replfs__RaftReply rep = REPLFS__RAFT_REPLY__INIT;
    RPC_ENVELOPE(env, RAFT_REPLY, raft_reply, &rep);

    if (raft_state(&m->raft) == RAFT_LEADER && !member(&m->raft, in->from)) {
        mlog_recv_drop(in, ERR_ROLE, "the sender is no member of this cluster (any more)");
        return;
    }
    mlog_net_told(m, in);
    recv_all_of(m, in);
    rep.sent = (uint64_t)in->sent;
    rep.follows = counts && follows(m, in);
    rep.term = in->term;
    rpc_reply(in->req, &env, NULL);
    recv_free(in);
}

void mlog_recv_all(struct mlog *m)
{
    struct mlog_net *n = m->net;

    if (!n || !m->recv_cb)
        return;
    lock_acquire(&n->mu);
    struct mlog_in *in = n->in;
    n->in = NULL;
    n->in_tail = &n->in;
    n->nin = 0;
    n->in_bytes = 0;
    lock_release(&n->mu);
    while (in) {
        struct mlog_in *next = in->next;
        if (m->stopping || m->broken)
            mlog_recv_drop(in, ERR_SHUTDOWN, "metad stops");
        else
            recv_one(m, in);
        in = next;
    }
}
