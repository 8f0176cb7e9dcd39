/* Messages to other metads: libraft's `send`, over rpc.
 *
 * A message is encoded and handed to rpc at once (mlog_wire.c), so nothing of libraft's is kept; its callback is
 * called later, from the loop, as libraft wants it, and whatever became of the message: libraft repeats what matters.
 *
 * Peers: one connection each, dialled by whoever has something to say, redialled after a short back-off. What may be
 * under way to a peer is bounded; what is above is dropped, and so is what could not be sent before an election
 * time-out is over: an old heartbeat says nothing.
 *
 * The answer to a message (RaftReply) only says that it was looked at, and echoes when it was sent: a follower that
 * followed at that moment gives its vote to nobody else for an election time-out. From these echoes comes the
 * leader's lease (mlog_net_lease): until the election time-out after the time at which a majority's newest echoed
 * messages were sent, minus a margin. CLOCK_BOOTTIME, so that a suspended leader wakes up without one. What libraft
 * itself answers is a message of its own.
 *
 * Threads: all here runs on the log thread but answered(), which runs on the rpc loop's and touches atomics only. */
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
#define CALLS_MAX 256u        /* to one peer */
#define BYTES_MAX (16u << 20) /* of entries, to one peer */
#define BACKOFF_MIN_MS 20u
#define BACKOFF_MAX_MS 500u
#define LEASE_MS (MLOG_ELECTION_MS - 60u)

struct net_call {
    struct mlog_net *net;
    struct mlog_peer *peer;
    int64_t sent;
    uint64_t term;
    size_t bytes;
};

/* ---- peers ---- */

struct mlog_peer *mlog_net_peer(struct mlog *m, uint64_t id)
{
    struct mlog_peer *p = m->net ? m->net->peers : NULL;

    while (p && p->id != id)
        p = p->next;
    return p;
}

static struct mlog_peer *peer_for(struct mlog *m, uint64_t id)
{
    struct mlog_peer *p = mlog_net_peer(m, id);

    if (p)
        return p;
    p = calloc(1, sizeof(*p));
    if (!p)
        abort();
    p->id = id;
    p->next = m->net->peers;
    m->net->peers = p;
    return p;
}

void mlog_net_told(struct mlog *m, const struct mlog_in *in)
{
    struct mlog_peer *p = peer_for(m, in->from);

    if (in->addr[0] != 0)
        snprintf(p->told, sizeof(p->told), "%s", in->addr);
    p->newest = in->newest;
    if (in->digest_at != 0 && in->digest_at != p->digest_at && m->digests) {
        p->digest_at = in->digest_at;
        digests_told(m->digests, (uint32_t)p->id, in->digest_at, in->digest);
    }
}

/* The state's table does not keep it, when it is another one (a snapshot), or did not have that metad yet. */
static void tell_newest(struct mlog *m, const struct mlog_peer *p)
{
    struct fsm_metad known;

    fsm_rdlock(m->fsm);
    bool news = p->id <= UINT32_MAX && fsm_metad_find(m->fsm, (uint32_t)p->id, &known) &&
                known.newest != p->newest;
    fsm_unlock(m->fsm);
    if (news)
        fsm_metad_newest(m->fsm, (uint32_t)p->id, p->newest);
}

bool mlog_net_addr(struct mlog *m, uint64_t id, char out[256])
{
    const struct mlog_peer *p = mlog_net_peer(m, id);

    out[0] = 0;
    if ((!m->net->addr_of || !m->net->addr_of(m->net->addr_arg, id, out)) && p)
        snprintf(out, 256, "%s", p->told);
    return out[0] != 0;
}

static void hang_up(struct mlog_peer *p)
{
    if (p->conn)
        rpc_conn_close(p->conn);
    rpc_conn_unref(p->conn);
    p->conn = NULL;
}

static void lost(struct mlog_peer *p)
{
    if (!p->said) {
        const char *why = rpc_conn_error(p->conn);
        log_warn("metad %" PRIu64 " (%s) cannot be reached: %s", p->id, p->addr,
                 why[0] != 0 ? why : "connection lost");
    }
    p->said = true;
    hang_up(p);
    p->backoff_ms = p->backoff_ms == 0 ? BACKOFF_MIN_MS : p->backoff_ms * 2;
    if (p->backoff_ms > BACKOFF_MAX_MS)
        p->backoff_ms = BACKOFF_MAX_MS;
    p->redial_at = clock_mono() + p->backoff_ms * NSEC_PER_MSEC;
}

/* A connection that is alive, or being made; NULL: not now. */
static struct rpc_conn *connection(struct mlog *m, struct mlog_peer *p)
{
    char addr[256];

    if (p->conn && !rpc_conn_alive(p->conn))
        lost(p);
    if (p->conn || clock_mono() < p->redial_at || m->io_closing)
        return p->conn;
    if (!mlog_net_addr(m, p->id, addr))
        return NULL;
    snprintf(p->addr, sizeof(p->addr), "%s", addr);
    int rc = rpc_dial(m->net->loop, addr, RPC_ROLE_METAD, &m->net->svc, &p->conn);
    if (rc != 0) {
        p->conn = NULL;
        p->redial_at = clock_mono() + BACKOFF_MAX_MS * NSEC_PER_MSEC;
        if (!p->said)
            log_warn("metad %" PRIu64 " (%s) cannot be dialled: %s", p->id, addr, err_str(rc));
        p->said = true;
    }
    return p->conn;
}

/* ---- calls ---- */

static void raise_to(atomic_int_fast64_t *a, int64_t to)
{
    int_fast64_t old = atomic_load(a);

    while (old < to && !atomic_compare_exchange_weak(a, &old, to))
        ;
}

/* An rpc loop thread, or the log thread when the connection is dead already. */
static void answered(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct net_call *c = arg;
    struct mlog_net *n = c->net;
    struct mlog_peer *p = c->peer;

    (void)payload;
    if (code == 0 && rep && rep->body_case == REPLFS__ENVELOPE__BODY_RAFT_REPLY) {
        const Replfs__RaftReply *r = rep->raft_reply;
        atomic_store(&p->heard, clock_mono());
        if (r->follows && r->term == c->term) {
            /* Of an older term than the last one: worth nothing any more. A newer one starts afresh. */
            uint_fast64_t had = atomic_load(&p->echo_term);
            if (had < c->term && atomic_compare_exchange_strong(&p->echo_term, &had, c->term))
                atomic_store(&p->echoed, 0);
            if (atomic_load(&p->echo_term) == c->term)
                raise_to(&p->echoed, c->sent);
        }
    }
    if (code == -ERR_ROLE)
        atomic_store(&n->doubted, true);
    atomic_fetch_sub(&p->bytes, c->bytes);
    atomic_fetch_sub(&p->calls, 1);
    free(c);
    lock_acquire(&n->mu);
    if (atomic_fetch_sub(&n->calls, 1) == 1)
        cond_broadcast(&n->cond);
    lock_release(&n->mu);
}

/* What goes with every message: who says it, what its program knows, what its state is. */
static void sign(struct mlog *m, Replfs__RaftReq *r, char addr[256])
{
    lock_acquire(&m->net->mu);
    memcpy(addr, m->net->addr, sizeof(m->net->addr));
    lock_release(&m->net->mu);
    r->cluster = m->uuid;
    r->from = m->id;
    r->addr = addr;
    r->newest = atomic_load(&m->net->newest);
    if (m->digests)
        (void)digests_mine(m->digests, &r->digest_at, &r->digest);
}

static void call_peer(struct mlog *m, struct mlog_peer *p, struct rpc_conn *conn,
                      struct mlog_wire_out *o, const struct raft_message *msg)
{
    struct mlog_net *n = m->net;
    struct net_call *c = calloc(1, sizeof(*c));
    struct buf *payload = NULL;
    char addr[256];
    RPC_ENVELOPE(env, RAFT_REQ, raft_req, &o->req);

    if (!c)
        abort();
    if (o->payload > 0) {
        payload = buf_new(o->payload);
        payload->len = o->payload;
        mlog_wire_payload(o, msg, payload->data);
    }
    sign(m, &o->req, addr);
    *c = (struct net_call){
        .net = n, .peer = p, .sent = clock_boot(), .term = o->req.term, .bytes = o->payload};
    o->req.sent = (uint64_t)c->sent;
    atomic_fetch_add(&p->calls, 1);
    atomic_fetch_add(&p->bytes, o->payload);
    atomic_fetch_add(&n->calls, 1);
    rpc_call(conn, &env, payload, MLOG_ELECTION_MS, answered, c);
}

static bool is_cut(const struct mlog_net *n, uint64_t id)
{
    return id < 64 && (atomic_load(&n->cut) >> id & 1) != 0;
}

void mlog_net_send(struct mlog *m, const struct raft_message *msg)
{
    struct mlog_wire_out o;
    unsigned next = 0;

    if (!m->net || m->io_closing || m->broken || is_cut(m->net, msg->server_id))
        return;
    struct mlog_peer *p = peer_for(m, msg->server_id);
    struct rpc_conn *conn = connection(m, p);
    do {
        if (!conn || atomic_load(&p->calls) >= CALLS_MAX || atomic_load(&p->bytes) >= BYTES_MAX)
            return; /* dropped; libraft sends again what was not answered */
        int rc = mlog_wire_fill(&o, msg, &next);
        if (rc == 0)
            call_peer(m, p, conn, &o, msg);
        else
            log_error("a message to metad %" PRIu64 " cannot be sent: %s", p->id, err_str(rc));
        mlog_wire_done(&o);
        if (rc != 0)
            return;
    } while (msg->type == RAFT_APPEND_ENTRIES && next < msg->append_entries.n_entries);
}

/* ---- as libraft's raft_io ---- */

/* Mends what libraft gets wrong. false: it is not to be sent. */
static bool amend(struct mlog *m, struct raft_message *msg)
{
    switch (msg->type) {
    case RAFT_REQUEST_VOTE:
        /* libraft goes on disturbing leaders in all later elections once its leader has asked it to stand. */
        if (msg->request_vote.disrupt_leader && msg->request_vote.term != m->disrupt_term)
            msg->request_vote.disrupt_leader = false;
        return true;
    case RAFT_INSTALL_SNAPSHOT:
        if (!msg->install_snapshot.data.base)
            return false; /* could not be loaded: see got_snapshot */
        /* A newer snapshot than the one that was asked for gets its index, but not its term. */
        if (msg->install_snapshot.last_index == m->net->snap_index)
            msg->install_snapshot.last_term = m->net->snap_term;
        return true;
    case RAFT_APPEND_ENTRIES_RESULT:
        /* While a snapshot is fetched, the leader's heartbeats begin behind it: were they refused, it would send it
         * again and again. This says only that we are here. */
        if (m->fetch.state != FETCH_IDLE && msg->append_entries_result.rejected > 0) {
            msg->append_entries_result.rejected = 0;
            msg->append_entries_result.last_log_index = 0;
        }
        return true;
    case RAFT_APPEND_ENTRIES:
    case RAFT_REQUEST_VOTE_RESULT:
    case RAFT_TIMEOUT_NOW:
        return true;
    }
    return false;
}

static _Thread_local struct mlog *own;

static int net_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *msg,
                    raft_io_send_cb cb)
{
    struct mlog *m = own;
    struct raft_message copy = *msg;
    struct mlog_sent *s = calloc(1, sizeof(*s));

    (void)io;
    if (!s)
        abort();
    req->cb = cb;
    s->req = req;
    *m->net->sent_tail = s;
    m->net->sent_tail = &s->next;
    if (amend(m, &copy))
        mlog_net_send(m, &copy);
    return 0; /* never an error: libraft would stop in the middle of what it does */
}

void mlog_net_flush(struct mlog *m, int code)
{
    struct mlog_sent *s = m->net ? m->net->sent : NULL;

    if (!s)
        return;
    m->net->sent = NULL;
    m->net->sent_tail = &m->net->sent;
    while (s) {
        struct mlog_sent *next = s->next;
        s->req->cb(s->req, code);
        free(s);
        s = next;
    }
}

static int net_start(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
    struct mlog *m = own;

    m->recv_cb = recv;
    return m->io_start(io, msecs, tick, recv);
}

/* A snapshot that cannot be loaded: libraft would free what it never filled in. It gets an empty one, which is not
 * sent. */
static void got_snapshot(struct raft_io_snapshot_get *req, struct raft_snapshot *s, int status)
{
    struct mlog *m = own;

    if (status == 0) {
        m->net->snap_index = s->index;
        m->net->snap_term = s->term;
    } else {
        log_error("%s: the newest snapshot cannot be read: %s", m->log_dir, raft_strerror(status));
        memset(s, 0, sizeof(*s));
        s->index = ULLONG_MAX;
        s->n_bufs = 1;
        s->bufs = raft_calloc(1, sizeof(*s->bufs));
        if (!s->bufs)
            abort();
    }
    m->snapshot_get_cb(req, s, 0);
}

static int net_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req,
                            raft_io_snapshot_get_cb cb)
{
    struct mlog *m = own;

    m->snapshot_get_cb = cb;
    return m->io_snapshot_get(io, req, got_snapshot);
}

void mlog_net_wrap(struct mlog *m)
{
    if (!m->net)
        return;
    own = m;
    m->io_start = m->io.start;
    m->io_snapshot_get = m->io.snapshot_get;
    m->io.send = net_send;
    m->io.start = net_start;
    m->io.snapshot_get = net_snapshot_get;
}

/* ---- time ---- */

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x > y ? -1 : x < y;
}

int64_t mlog_net_lease(struct mlog *m)
{
    const struct raft_configuration *c = &m->raft.configuration;
    int64_t echoed[64];
    unsigned n = 0;
    uint64_t term = raft_current_term(&m->raft);

    for (unsigned i = 0; i < c->n && n < 64; i++) {
        if (c->servers[i].role != RAFT_VOTER)
            continue;
        struct mlog_peer *p = mlog_net_peer(m, c->servers[i].id);
        if (c->servers[i].id == m->id)
            echoed[n++] = INT64_MAX;
        else
            echoed[n++] = p && atomic_load(&p->echo_term) == term ? atomic_load(&p->echoed) : 0;
    }
    if (n == 0)
        return 0;
    qsort(echoed, n, sizeof(echoed[0]), newest_first);
    int64_t sent = echoed[n / 2]; /* that of the last one of the smallest majority */
    return sent == 0 || sent == INT64_MAX ? sent : sent + LEASE_MS * NSEC_PER_MSEC;
}

void mlog_net_tick(struct mlog *m)
{
    if (!m->net)
        return;
    for (struct mlog_peer *p = m->net->peers; p; p = p->next) {
        tell_newest(m, p);
        if (p->conn && !rpc_conn_alive(p->conn))
            lost(p);
        if (p->conn && p->said &&
            clock_mono() - atomic_load(&p->heard) < MLOG_ELECTION_MS * NSEC_PER_MSEC) {
            log_info("metad %" PRIu64 " (%s) is reached again", p->id, p->addr);
            p->said = false;
        }
        if (!p->said)
            p->backoff_ms = 0;
    }
}

/* ---- life ---- */

static void not_here(void *arg, struct rpc_req *req)
{
    (void)arg;
    rpc_fail(req, ERR_PROTOCOL, "not on this connection");
}

int mlog_net_new(struct mlog *m, const struct mlog_config *cfg)
{
    if (!cfg->loop)
        return 0;
    m->net = calloc(1, sizeof(*m->net));
    if (!m->net)
        return -ENOMEM;
    m->net->m = m;
    m->net->loop = cfg->loop;
    m->net->addr_of = cfg->addr_of;
    m->net->addr_arg = cfg->addr_arg;
    atomic_init(&m->net->newest, FSM_FEATURE_MAX);
    m->net->svc = (struct rpc_service){.request = not_here, .cluster = m->uuid};
    m->net->in_tail = &m->net->in;
    m->net->sent_tail = &m->net->sent;
    m->net->pieces_tail = &m->net->pieces;
    lock_init(&m->net->mu, LOCK_MLOG_NET);
    cond_init(&m->net->cond);
    return 0;
}

bool mlog_doubted(struct mlog *m)
{
    return m->net && atomic_exchange(&m->net->doubted, false);
}

void mlog_serves_at(struct mlog *m, const char *addr)
{
    if (!m->net)
        return;
    lock_acquire(&m->net->mu);
    snprintf(m->net->addr, sizeof(m->net->addr), "%s", addr);
    lock_release(&m->net->mu);
}

void mlog_net_close(struct mlog *m)
{
    if (!m->net)
        return;
    for (struct mlog_peer *p = m->net->peers; p; p = p->next)
        hang_up(p);
    lock_acquire(&m->net->mu);
    struct mlog_in *in = m->net->in;
    m->net->in = NULL;
    m->net->in_tail = &m->net->in;
    m->net->stopped = true;
    lock_release(&m->net->mu);
    while (in) {
        struct mlog_in *next = in->next;
        mlog_recv_drop(in, ERR_SHUTDOWN, "metad stops");
        in = next;
    }
}

void mlog_net_free(struct mlog_net *n)
{
    if (!n)
        return;
    lock_acquire(&n->mu);
    while (atomic_load(&n->calls) > 0) /* their connections are closed: they are ending */
        cond_wait(&n->cond, &n->mu);
    lock_release(&n->mu);
    while (n->peers) {
        struct mlog_peer *p = n->peers;
        n->peers = p->next;
        rpc_conn_unref(p->conn);
        free(p);
    }
    free(n->saved);
    lock_destroy(&n->mu);
    cond_destroy(&n->cond);
    free(n);
}
