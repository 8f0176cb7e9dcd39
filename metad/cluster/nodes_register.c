/* How a chunkd becomes known: registration, the key that signs capabilities, and the dispatch of
 * its requests.
 *
 * A chunkd without an id gets one through the log; the answer is sent when that is applied, so an id told
 * is an id kept. One with an id must be a member, of this cluster, and the only live daemon with that id.
 * Ids are given to so many of one address and in all: anyone who may say that it is a chunkd would fill the
 * state with them otherwise. Members come back whatever the limits say. The key lives in the file cap.key
 * of the metad's directory, so that capabilities outlive a restart. Thread context: rpc loop threads, and
 * the log thread for the completion of a proposal. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/private.h"
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

struct key_file {
    uint64_t id;
    uint8_t key[CAP_KEY_LEN];
} __attribute__((packed));

static int key_read(const char *path, struct key_file *k)
{
    CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, k, sizeof(*k));
    return got == (ssize_t)sizeof(*k) ? 0 : got < 0 ? -errno : -ERR_CORRUPT;
}

static int key_write(const char *dir, const char *path, const struct key_file *k)
{
    char tmp[560];
    snprintf(tmp, sizeof(tmp), "%s.new", path);
    CLEANUP(close_fdp) int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    ssize_t put = write(fd, k, sizeof(*k));
    if (put != (ssize_t)sizeof(*k))
        return put < 0 ? -errno : -ENOSPC;
    if (fsync(fd) || rename(tmp, path))
        return -errno;
    CLEANUP(close_fdp) int d = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return d < 0 || fsync(d) ? -errno : 0;
}

int nodes_cap_key_load(struct nodes *n)
{
    struct key_file k;
    char path[540];
    snprintf(path, sizeof(path), "%s/cap.key", n->dir);
    int rc = n->dir[0] ? key_read(path, &k) : -ENOENT;
    if (rc == -ENOENT) {
        if (RAND_bytes((unsigned char *)&k, sizeof(k)) != 1)
            return -EIO;
        rc = n->dir[0] ? key_write(n->dir, path, &k) : 0;
    }
    if (rc) {
        log_error(
            "%s: %s; fix the file's rights or the disk, or remove the file: a new key is made then "
            "(clients refresh their capabilities by themselves)",
            path, err_str(rc));
        return rc;
    }
    n->cap_key.id = k.id;
    memcpy(n->cap_key.key, k.key, sizeof(k.key));
    return 0;
}

/* ---- chunkds whose place was taken ----
 *
 * A chunkd that comes with an empty directory gets a new id; the member that was at its address
 * before is `replaced`: dead at once, and no warning for ever. The ids are kept in the file
 * `replaced` of the metad's directory (as text, a pair a line); losing it costs a warning and,
 * after a restart, a wait of dead_ms. */

static void replaced_path(const struct nodes *n, char out[static 540])
{
    snprintf(out, 540, "%s/replaced", n->dir);
}

void nodes_replaced_load(struct nodes *n)
{
    char path[540];
    unsigned id, by;
    replaced_path(n, path);
    FILE *f = n->dir[0] ? fopen(path, "re") : NULL;
    if (!f)
        return;
    while (fscanf(f, "%u %u", &id, &by) == 2) {
        struct node *d = nodes_find(n, id);
        if (d && by < n->next_id) /* given once; it may have been removed since */
            d->replaced_by = by;
    }
    fclose(f);
}

static void replaced_save(const struct nodes *n)
{
    char path[540], tmp[560];
    replaced_path(n, path);
    snprintf(tmp, sizeof(tmp), "%s.new", path);
    FILE *f = n->dir[0] ? private_create(tmp) : NULL;
    if (!f)
        return;
    for (uint32_t i = 1; i < n->nnodes; i++)
        if (n->node[i] && n->node[i]->replaced_by)
            fprintf(f, "%u %u\n", i, n->node[i]->replaced_by);
    bool bad = fflush(f) || fsync(fileno(f));
    if (fclose(f) || bad || rename(tmp, path))
        log_warn("%s cannot be written: %s", path, err_str(-errno));
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
    if (changed)
        replaced_save(n);
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
    if (RAND_bytes((unsigned char *)&d->registration, sizeof(d->registration)) != 1)
        abort();
    d->beats = 0;
    d->read_bytes = d->write_bytes = d->rate = 0;
    d->want_report = false;
    d->skew = clocks_skew(r->wall_ms);
    d->cert_end = r->cert_end_s;
    snprintf(d->boot_id, sizeof(d->boot_id), "%s", r->boot_id ? r->boot_id : "");
    nodes_disks_set(n, d, r->disks, r->n_disks);
    find_replaced(n, d);
    n->epoch++;
}

static void reply_registered(struct nodes *n, struct rpc_req *req, uint32_t chunkd,
                             uint64_t registration)
{
    Replfs__RegisterReply rep = REPLFS__REGISTER_REPLY__INIT;
    struct past_standing standing;
    uint8_t key[CAP_KEY_LEN];
    char uuid[40];
    struct nodes_registry others;
    nodes_past_fill(n, &standing);
    lock_acquire(&n->mu);
    nodes_registry_fill(n, 0, &others);
    lock_release(&n->mu);
    snprintf(uuid, sizeof(uuid), "%s", mlog_uuid(n->cfg.mlog));
    memcpy(key, n->cap_key.key, sizeof(key));
    rep.cluster = uuid;
    rep.chunkd = chunkd;
    rep.registration = registration;
    rep.heartbeat_ms = n->cfg.heartbeat_ms;
    rep.cap_key = (ProtobufCBinaryData){.len = sizeof(key), .data = key};
    rep.cap_key_id = n->cap_key.id;
    rep.cap_now_s = nodes_cap_now(n);
    rep.standing = &standing.msg;
    rep.behind = standing.behind;
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

static void register_member(struct nodes *n, struct rpc_req *req, uint32_t chunkd)
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
        reply_registered(n, req, chunkd, registration);
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
        rpc_fail(a->req, a->code, "no id could be given to the chunkd on %s: %s",
                 a->req->env->register_req->host_id, err_str(a->code));
    else
        register_member(a->n, a->req, a->chunkd);
    nodes_outstanding(a->n, -1);
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
    nodes_outstanding(n, 1);
    mlog_propose(n->cfg.mlog, &cmd, add_applied, add_after, a);
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
        register_member(n, req, r->chunkd);
}

static void do_register(struct nodes *n, struct rpc_req *req)
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
    nodes_past_check(n, req, PAST_SEEN, register_checked);
}

void nodes_request(struct nodes *n, struct rpc_req *req)
{
    if (!mlog_is_leader(n->cfg.mlog)) {
        rpc_fail(req, -ERR_NOT_LEADER, "this metad does not lead");
        return;
    }
    if (req->env->body_case == REPLFS__ENVELOPE__BODY_REGISTER_REQ)
        do_register(n, req);
    else if (req->env->body_case == REPLFS__ENVELOPE__BODY_HEARTBEAT_REQ)
        reports_heartbeat(n, req);
    else if (req->env->body_case == REPLFS__ENVELOPE__BODY_REPORT_REQ)
        reports_report(n, req);
    else
        rpc_fail(req, -ERR_PROTOCOL, "not a request of a chunkd");
}
