/* How a chunkd becomes known: registration, the key that signs capabilities, and the dispatch of
 * its requests.
 *
 * A chunkd without an id gets one through the log; the answer is sent when that is applied, so an id told
 * is an id kept. One with an id must be a member, of this cluster, and the only live daemon with that id.
 * Ids are given to so many of one address and in all: anyone who may say that it is a chunkd would fill the
 * state with them otherwise. Members come back whatever the limits say. The key is in the
 * state (agree.h), so that capabilities outlive a restart and a change of leader. Thread context: rpc loop threads, and
 * the log thread for the completion of a proposal. */
#include <errno.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/lock.h"
#include "nodes_internal.h"
#include "origin.h"

#define LOG_MODULE "nodes"

struct adding { /* a ChunkdAddOp on its way through the log */
    struct nodes *n;
    struct rpc_req *req;
    uint32_t chunkd;
    uint64_t origin;
    int code;
    struct adding *next;
};

/* ---- the key ---- */

int nodes_cap_key_load(struct nodes *n)
{
    fsm_rdlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    bool there = fsm_cap_key(n->cfg.fsm, &n->cap_key.id, n->cap_key.key);
    there = there || n->cap_key.id != 0 ||
            RAND_bytes((unsigned char *)&n->cap_key, sizeof(n->cap_key)) == 1;
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
    return there ? 0 : -EIO;
}

/* ---- chunkds whose place was taken ----
 *
 * A chunkd that comes with an empty directory gets a new id; the member that was at its address
 * before is `replaced`: dead at once, and no warning for ever. The log is told by the driver
 * (ReplacedOp), with no lock held: until then, losing it costs a warning and, after a restart, a
 * wait of the time after which a chunkd counts as dead. */

void nodes_replaced_load(struct nodes *n)
{
    lock_assert_held(&n->mu);
    struct fsm_member m = {0};
    for (uint32_t after = 0; fsm_member_next(n->cfg.fsm, after, &m); after = m.chunkd) {
        struct node *d = nodes_find(n, m.chunkd);
        if (d)
            d->replaced_by = m.replaced_by;
    }
}

#define REPLACED_TELL 16u

/* Where we know something else than the state; how many. */
static size_t replaced_untold(struct nodes *n, Replfs__ReplacedOp v[REPLACED_TELL])
{
    struct fsm_member m = {0};
    size_t k = 0;

    lock_assert_held(&n->mu);
    for (uint32_t after = 0; k < REPLACED_TELL && fsm_member_next(n->cfg.fsm, after, &m);
         after = m.chunkd) {
        const struct node *d = nodes_find(n, m.chunkd);
        if (!d || !m.host_id[0] || d->replaced_by == m.replaced_by)
            continue;
        replfs__replaced_op__init(&v[k]);
        v[k].chunkd = d->id;
        v[k++].by = d->replaced_by;
    }
    return k;
}

static void replaced_told(void *arg)
{
    nodes_proposed(arg);
}

void nodes_replaced_tell(struct nodes *n, int64_t now)
{
    Replfs__ReplacedOp v[REPLACED_TELL];
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;

    if (fsm_feature_level(n->cfg.fsm) < metaop_level(METAOP_REPLACED))
        return;
    fsm_rdlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    bool look = n->replaced_untold && now >= n->replaced_next;
    size_t k = look ? replaced_untold(n, v) : 0;
    if (look) {
        n->replaced_untold = k > 0; /* looked at again until the state has it */
        n->replaced_next = now + NSEC_PER_SEC;
    }
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
    op.op_case = REPLFS__META_OP__OP_REPLACED;
    cmd.op = &op;
    for (size_t i = 0; i < k; i++) {
        op.replaced = &v[i];
        nodes_propose(n, &cmd, NULL, replaced_told, n);
    }
}

/* Lock held, d has just registered. */
static void find_replaced(struct nodes *n, struct node *d)
{
    bool changed = d->replaced_by;
    d->replaced_by = 0;
    for (uint32_t i = 1; i < n->nnodes; i++) {
        struct node *e = n->node[i];
        char label[256];
        if (!e || e == d || e->conn || e->replaced_by || e->host != d->host || !e->addr[0] ||
            strcmp(e->addr, d->addr))
            continue;
        e->replaced_by = d->id;
        changed = true;
        log_info("%s is replaced by chunkd %u at the same address", nodes_label(e, label), d->id);
    }
    n->replaced_untold |= changed;
}

void nodes_replaced_look(struct nodes *n)
{
    lock_assert_held(&n->mu);
    for (uint32_t i = 1; i < n->nnodes; i++)
        if (n->node[i] && n->node[i]->conn)
            find_replaced(n, n->node[i]);
}

/* ---- registration ---- */

/* An address without a host ("0.0.0.0:7101", ":7101") gets the one its connection comes from. */
static void full_addr(const char *told, const char *peer, char out[static 128])
{
    const char *port = strrchr(told, ':'), *end = strrchr(peer, ':');
    bool any = told[0] == ':' || !strncmp(told, "0.0.0.0:", 8) || !strncmp(told, "[::]:", 5);
    if (any && port && end)
        snprintf(out, 128, "%.*s%s", (int)(end - peer < 64 ? end - peer : 64), peer, port);
    else
        snprintf(out, 128, "%s", told);
}

/* Lock held. Takes the request's facts into d; an older connection of d is handed to *old. */
static void take_in(struct nodes *n, struct node *d, const struct rpc_req *req,
                    struct rpc_conn **old)
{
    const Replfs__RegisterReq *r = req->env->register_req;
    const struct rpc_peer *peer = rpc_conn_peer(req->conn);
    nodes_drop_conn(n, d, old);
    nodes_set_host(n, d, r->host_id, r->host_name ? r->host_name : "");
    char was[sizeof(d->addr)];
    snprintf(was, sizeof(was), "%s", d->addr);
    full_addr(r->addr ? r->addr : "", peer ? peer->addr : "", d->addr);
    n->registry_version += strcmp(was, d->addr) != 0;
    d->conn = rpc_conn_ref(req->conn);
    d->origin = origin_of(req->conn);
    d->last_seen = clock_mono();
    d->hb_seq = 0;
    d->registration = r->registration; /* the same at all metads */
    if (!d->registration &&
        RAND_bytes((unsigned char *)&d->registration, sizeof(d->registration)) != 1)
        abort();
    d->beats = 0;
    d->refuses = false;
    d->empty_beats = 0;
    d->stopped = false;
    d->read_bytes = d->write_bytes = d->rate = 0;
    d->want_report = false;
    d->skew = clocks_skew(r->wall_ms);
    d->cert_end = r->cert_end_s;
    snprintf(d->boot_id, sizeof(d->boot_id), "%s", r->boot_id ? r->boot_id : "");
    nodes_disks_set(n, d, r->disks, r->n_disks);
    nodes_past_note(d, r);
    d->obeys_another = false;
    d->beats_led = 2; /* what it reports from now on is of now */
    if (n->lead.leading)
        find_replaced(n, d);
    n->epoch++;
}

static void reply_registered(struct nodes *n, struct rpc_req *req, uint32_t chunkd,
                             uint64_t registration, bool leads)
{
    Replfs__RegisterReply rep = REPLFS__REGISTER_REPLY__INIT;
    struct past_standing standing;
    uint8_t key[CAP_KEY_LEN];
    char uuid[40];
    struct nodes_registry others = {0};
    struct fsm_addrs metads;
    Replfs__DiskLimit limit[NODE_LIMITS_MAX], *limits[NODE_LIMITS_MAX];
    fsm_metad_addrs(n->cfg.fsm, &metads);
    rep.metads = metads.list;
    rep.n_metads = metads.n;
    if (leads) {
        nodes_past_fill(n, &standing);
        lock_acquire(&n->mu);
        nodes_registry_fill(n, 0, &others);
        const struct node *d = nodes_find(n, chunkd);
        rep.draining = d && d->draining;
        rep.n_limits = d ? nodes_limits_fill(d, limit, limits) : 0;
        rep.limits = limits;
        lock_release(&n->mu);
        rep.cap_now_s = nodes_cap_now(n);
        rep.term = n->lead.term;
        rep.standing = &standing.msg;
        rep.behind = standing.behind;
    }
    rep.follows = !leads;
    snprintf(uuid, sizeof(uuid), "%s", mlog_uuid(n->cfg.mlog));
    memcpy(key, n->cap_key.key, sizeof(key));
    rep.cluster = uuid;
    rep.chunkd = chunkd;
    rep.registration = registration;
    rep.heartbeat_ms = (uint32_t)fsm_setting(n->cfg.fsm, SETTING_HEARTBEAT);
    rep.cap_key = (ProtobufCBinaryData){.len = sizeof(key), .data = key};
    rep.cap_key_id = n->cap_key.id;
    rep.registry = others.list;
    rep.n_registry = others.n;
    rep.registry_version = others.version;
    RPC_ENVELOPE(env, REGISTER_REPLY, register_reply, &rep);
    rpc_reply(req, &env, NULL);
    free(others.list);
}

/* Lock held. Whether another daemon with d's id is alive on another connection. */
static bool taken(const struct nodes *n, const struct node *d, const struct rpc_conn *c)
{
    int64_t silent = (clock_mono() - d->last_seen) / NSEC_PER_MSEC;
    return d->conn && d->conn != c && rpc_conn_alive(d->conn) &&
           silent <= (int64_t)n->cfg.suspect_ms;
}

static bool was_removed(struct nodes *n, uint32_t chunkd)
{
    struct fsm_member m;
    fsm_rdlock(n->cfg.fsm);
    bool is = fsm_member_next(n->cfg.fsm, chunkd - 1, &m) && m.chunkd == chunkd && !m.host_id[0];
    fsm_unlock(n->cfg.fsm);
    return is;
}

/* Lock held. Another daemon wants to be d, which is alive: so does one whose former connection has not
 * been missed yet, but not for long. */
static void note_twin(struct node *d, const struct rpc_req *req)
{
    const Replfs__RegisterReq *r = req->env->register_req;
    const struct rpc_peer *peer = rpc_conn_peer(req->conn);
    int64_t now = clock_mono();
    if (!d->twin_last || now - d->twin_last > NODE_TWIN_SILENT)
        d->twin_first = now;
    d->twin_last = now;
    full_addr(r->addr ? r->addr : "", peer ? peer->addr : "", d->twin_addr);
    snprintf(d->twin_name, sizeof(d->twin_name), "%s", r->host_name ? r->host_name : "");
}

/* leads: inside the gate. */
static void register_member(struct nodes *n, struct rpc_req *req, uint32_t chunkd, bool leads)
{
    struct rpc_conn *old = NULL;
    uint64_t registration = 0;
    char label[256];
    lock_acquire(&n->mu);
    struct node *d = nodes_find(n, chunkd);
    if (d && d->removed)
        d = NULL;
    bool busy = d && taken(n, d, req->conn);
    if (d)
        nodes_label(d, label);
    if (busy)
        note_twin(d, req);
    if (d && !busy) {
        take_in(n, d, req, &old);
        registration = d->registration;
        log_info("%s registered", nodes_label(d, label));
    }
    lock_release(&n->mu);
    if (old && old != req->conn)
        rpc_conn_close(old);
    rpc_conn_unref(old);
    if (!d)
        rpc_fail(req, -ERR_NOT_REGISTERED,
                 was_removed(n, chunkd)
                     ? "chunkd %u was removed from cluster %s (replfsctl chunkd remove), and what "
                       "it held was copied or given up before; give the daemon a new data "
                       "directory (replfs-chunkd --init) to join as a new one"
                     : "chunkd %u is not a member of cluster %s: its data directory belongs to "
                       "another metad state; give the daemon a new one (replfs-chunkd --init) to "
                       "join with",
                 chunkd, mlog_uuid(n->cfg.mlog));
    else if (busy)
        rpc_fail(
            req, -ERR_BUSY,
            "%s is connected and alive: two daemons use copies of one data directory, or the old "
            "one has not gone yet; stop one of them",
            label);
    else
        reply_registered(n, req, chunkd, registration, leads);
    nodes_poke(n);
}

/* Lock held. Whether one more of this origin would be too many; says so in why. Who was replaced or
 * removed does not count. When the cluster is full, a computer that is in it may still bring a new disk
 * for an old one. */
static bool is_too_many(const struct nodes *n, uint64_t origin, const char *host_id,
                        char why[static 200])
{
    unsigned all = 0, here = 0, host = 0;
    for (uint32_t i = 1; i < n->nnodes; i++) {
        const struct node *d = n->node[i];
        if (!d || nodes_gone(d))
            continue;
        all++;
        here += d->origin == origin;
        host += !strcmp(d->host_id, host_id);
    }
    for (const struct adding *a = n->adding; a; a = a->next) {
        all++;
        here += a->origin == origin;
    }
    if (here >= NODES_PER_ORIGIN)
        snprintf(why, 200, "%u chunkds of this address are members already", here);
    else if (all >= NODES_MAX && (host == 0 || host >= NODES_PER_HOST))
        snprintf(why, 200, "the cluster has %u chunkds already", all);
    else
        return false;
    return true;
}

static void adding_end(struct adding *a)
{
    LOCK_SCOPE(&a->n->mu);
    struct adding **p = &a->n->adding;
    while (*p != a)
        p = &(*p)->next;
    *p = a->next;
}

static void add_applied(void *arg, int code, const struct fsm_result *res)
{
    struct adding *a = arg;
    const Replfs__RegisterReq *r = a->req->env->register_req;
    a->code = code ? code : -res->code;
    if (!a->code) { /* fsm write lock held */
        LOCK_SCOPE(&a->n->mu);
        nodes_add(a->n, a->chunkd, r->host_id, r->host_name);
        /* a fresh disk holds nothing that anyone could miss */
        nodes_find(a->n, a->chunkd)->reported_once = !r->chunkd;
        nodes_find(a->n, a->chunkd)->origin = a->origin;
    }
}

/* Called after add_applied, whatever came of the proposal. */
static void add_after(void *arg)
{
    struct adding *a = arg;
    adding_end(a);
    if (a->code)
        nodes_fail(a->n, a->req, a->code, "no id could be given to the chunkd");
    else
        register_member(a->n, a->req, a->chunkd, true);
    nodes_proposed(a->n);
    free(a);
}

/* id 0: the next one. */
static void register_new(struct nodes *n, struct rpc_req *req, uint32_t id)
{
    const Replfs__RegisterReq *r = req->env->register_req;
    Replfs__ChunkdAddOp op = REPLFS__CHUNKD_ADD_OP__INIT;
    Replfs__MetaOp mop = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct adding *a = calloc(1, sizeof(*a));
    if (!a)
        abort();
    a->n = n;
    a->req = req;
    a->origin = origin_of(req->conn);
    char why[200];
    lock_acquire(&n->mu);
    bool refused = is_too_many(n, a->origin, r->host_id, why);
    if (!refused) {
        a->chunkd = id ? id : n->next_id++;
        a->next = n->adding;
        n->adding = a;
    }
    lock_release(&n->mu);
    if (refused) {
        free(a);
        rpc_fail(
            req, -EDQUOT,
            "no id is given to another chunkd: %s; remove those that are gone (replfsctl chunkd "
            "remove)",
            why);
        return;
    }
    op.chunkd = a->chunkd;
    op.host_id = r->host_id;
    op.host_name = r->host_name;
    mop.op_case = REPLFS__META_OP__OP_CHUNKD_ADD;
    mop.chunkd_add = &op;
    cmd.op = &mop;
    nodes_propose(n, &cmd, add_applied, add_after, a);
}

static void register_checked(struct nodes *n, struct rpc_req *req)
{
    const Replfs__RegisterReq *r = req->env->register_req;
    uint32_t upto = nodes_past_next_id(r);
    lock_acquire(&n->mu);
    if (upto > n->next_id)
        n->next_id = upto;
    bool member = nodes_find(n, r->chunkd) != NULL;
    lock_release(&n->mu);
    if (!r->chunkd)
        register_new(n, req, 0);
    else if (!member && r->chunkd < NODE_ID_TOLD_MAX && nodes_past_joined(n, r))
        register_new(n, req, r->chunkd); /* an older copy of us gave it no id, a newer one did */
    else
        register_member(n, req, r->chunkd, true);
}

/* One that the state knows is taken in as it is; who needs a decision has to ask the leader. */
static void register_follow(struct nodes *n, struct rpc_req *req)
{
    const Replfs__RegisterReq *r = req->env->register_req;
    struct fsm_member m;
    bool known = false;
    if (r->chunkd) {
        fsm_rdlock(n->cfg.fsm);
        known =
            fsm_member_next(n->cfg.fsm, r->chunkd - 1, &m) && m.chunkd == r->chunkd && m.host_id[0];
        lock_acquire(&n->mu);
        if (known)
            nodes_add(n, m.chunkd, m.host_id, m.host_name);
        lock_release(&n->mu);
        fsm_unlock(n->cfg.fsm);
    }
    if (known)
        register_member(n, req, r->chunkd, false);
    else
        nodes_not_leader(n, req);
}

static void do_register(struct nodes *n, struct rpc_req *req, bool leads)
{
    const Replfs__RegisterReq *r = req->env->register_req;
    const char *uuid = mlog_uuid(n->cfg.mlog);
    if (!r->host_id || !r->host_id[0]) {
        rpc_fail(
            req, -EINVAL,
            "a chunkd must tell its host id: is /etc/machine-id missing there? give --host-id");
        return;
    }
    if (r->cluster && r->cluster[0] && strcmp(r->cluster, uuid)) {
        rpc_fail(
            req, -ERR_WRONG_CLUSTER,
            "the data directory belongs to cluster %s, this metad serves cluster %s: point --meta "
            "to the right metad, or give a new directory (replfs-chunkd --init)",
            r->cluster, uuid);
        return;
    }
    if (leads && nodes_life_is_other(n, r))
        nodes_life_refuse(n, req);
    else if (leads)
        nodes_past_check(n, req, PAST_SEEN, register_checked);
    else
        register_follow(n, req);
}

void nodes_request(struct nodes *n, struct rpc_req *req)
{
    bool leads = nodes_enter(n);
    if (req->env->body_case == REPLFS__ENVELOPE__BODY_REGISTER_REQ)
        do_register(n, req, leads);
    else if (req->env->body_case == REPLFS__ENVELOPE__BODY_HEARTBEAT_REQ)
        reports_heartbeat(n, req, leads);
    else if (req->env->body_case == REPLFS__ENVELOPE__BODY_REPORT_REQ)
        reports_report(n, req);
    else
        rpc_fail(req, -ERR_PROTOCOL, "not a request of a chunkd");
    if (leads)
        nodes_leave(n);
}
