/* What test_nodes.c runs in: the registry and its driver with a real fsm and rpc loop, a stand-in
 * for the log that applies at once, and chunkds whose doings are scripted. */
#ifndef REPLFS_TESTS_NODES_RIG_H
#define REPLFS_TESTS_NODES_RIG_H
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash.h"
#include "metad/cluster/nodes_internal.h"
#include "wait.h"

#define NODES_RIG_UUID "11111111-2222-3333-4444-555555555555"
#define CHUNKDS 4
#define HELD_MAX 64

#include "nodes_rig_log.h"

/* ---- scripted chunkds ---- */

struct nodes_rig_held {
    uint64_t chunk, session;
    uint32_t len;
    bool damaged;
};
struct nodes_rig_chunkd {
    pthread_mutex_t lock;
    char host[32];
    uint32_t id;
    struct rpc_conn *conn;
    struct nodes_rig_held held[HELD_MAX];
    unsigned nheld;
    Replfs__ChunkRecord changes[HELD_MAX];
    unsigned nchanges;
    uint64_t seq, digest, reports, registration;
    unsigned copies, deletes, verifies, scrubs, compacts;
    bool no_compact;         /* of a version before there was compaction */
    bool bad_sources;        /* a copy that it is to make meets bad blocks, wherever it is from */
    bool no_scrub;           /* of a version before there was one */
    Replfs__BadCopy bad;     /* chunk not 0: told by each heartbeat */
    Replfs__ScrubStat scrub; /* state not NONE: likewise */
    uint64_t avail, fs;      /* of its disk; avail 0: half a TiB */
    bool tells_used;         /* what its chunks take */
    uint64_t shortage;
    bool old;  /* of a version that does not know drains */
    bool shut; /* told that it drains */
    bool stopping;
    uint64_t limit; /* of its disk as told, 0: none */
    bool failed, readonly, missing;
    bool silent; /* no heartbeats */
    bool refuse; /* orders fail */
    bool hold;   /* the next order is kept, unanswered */
    struct rpc_req *kept;
    int64_t skew_ms; /* its clock */
    char boot_id[40];
    uint64_t cert_end;
    Replfs__Standing seen; /* told at registration */
    uint64_t term;         /* so is this */
};

struct nodes_rig {
    struct rpc_loop *loop;
    struct rpc_service svc;
    struct mlog mlog;
    struct gate gate;
    struct nodes *nodes;
    int port;
    struct nodes_rig_chunkd chunkd[CHUNKDS];
    pthread_t beater;
    bool stop;
    uint64_t seq, next_chunk, made_chunks;
};
static struct nodes_rig *fx;

/* A field of the script, read under its lock. */
#define NODES_RIG_PEEK(k, field)                                                                   \
    (__extension__({                                                                               \
        pthread_mutex_lock(&(k)->lock);                                                            \
        uint64_t peeked_ = (k)->field;                                                             \
        pthread_mutex_unlock(&(k)->lock);                                                          \
        peeked_;                                                                                   \
    }))

static inline struct nodes_rig_held *find_held(struct nodes_rig_chunkd *k, uint64_t chunk)
{
    for (unsigned i = 0; i < k->nheld; i++)
        if (k->held[i].chunk == chunk)
            return &k->held[i];
    return NULL;
}

/* len 0 removes. Lock held. */
static inline void nodes_rig_hold(struct nodes_rig_chunkd *k, uint64_t chunk, uint32_t len,
                                  uint64_t session)
{
    struct nodes_rig_held *h = find_held(k, chunk);
    if (!h && len) {
        assert_true(k->nheld < HELD_MAX);
        h = &k->held[k->nheld++];
        k->digest ^= hash_u64(chunk);
    } else if (h && !len) {
        *h = k->held[--k->nheld];
        k->digest ^= hash_u64(chunk);
        h = NULL;
    }
    if (h)
        *h = (struct nodes_rig_held){.chunk = chunk, .len = len, .session = session};
    assert_true(k->nchanges < HELD_MAX);
    Replfs__ChunkRecord *r = &k->changes[k->nchanges++];
    replfs__chunk_record__init(r);
    r->chunk = chunk;
    r->len = len;
    r->session = session;
}

static inline void nodes_rig_store(struct nodes_rig_chunkd *k, uint64_t chunk, uint32_t len,
                                   uint64_t session)
{
    pthread_mutex_lock(&k->lock);
    nodes_rig_hold(k, chunk, len, session);
    pthread_mutex_unlock(&k->lock);
}

static inline void nodes_rig_compact(struct nodes_rig_chunkd *k, const Replfs__CompactOrder *o,
                                     Replfs__OrderReply *rep, int *code)
{
    const struct nodes_rig_held *h = find_held(k, o->chunk);
    uint32_t len = 0;
    k->compacts++;
    *code = k->no_compact ? -ERR_PROTOCOL : h && h->session == o->session ? 0 : -ERR_NO_CHUNK;
    for (size_t i = 0; !*code && i < o->n_off; i++) {
        assert_true(o->off[i] + o->len[i] <= h->len);
        len += o->len[i];
    }
    if (!*code)
        nodes_rig_hold(k, o->to, len, o->to_session);
    rep->bytes = len;
}

static inline void do_order(struct nodes_rig_chunkd *k, const Replfs__OrderReq *o,
                            Replfs__OrderReply *rep, int *code)
{
    struct nodes_rig_held *h;
    switch (o->order_case) {
    case REPLFS__ORDER_REQ__ORDER_COPY:
        assert_true(o->copy->n_sources > 0 && o->copy->sources[0]->cap.len == CAP_LEN);
        if (k->bad_sources) {
            *code = -ERR_CRC;
            break;
        }
        nodes_rig_hold(k, o->copy->chunk, o->copy->len, o->copy->session);
        rep->bytes = o->copy->len;
        k->copies++;
        break;
    case REPLFS__ORDER_REQ__ORDER_DELETE_CHUNKS:
        for (size_t i = 0; i < o->delete_chunks->n_chunks; i++) {
            h = find_held(k, o->delete_chunks->chunks[i]);
            if (h && h->session == o->delete_chunks->sessions[i])
                nodes_rig_hold(k, o->delete_chunks->chunks[i], 0, 0);
            k->deletes++;
        }
        break;
    case REPLFS__ORDER_REQ__ORDER_VERIFY:
        k->verifies++;
        h = find_held(k, o->verify->chunk);
        *code = h ? 0 : -ERR_NO_CHUNK;
        rep->len = rep->stored = h ? h->len : 0;
        rep->bad = h && h->damaged && !o->verify->quick;
        if (rep->bad)
            rep->len = 0; /* from its first block on */
        break;
    case REPLFS__ORDER_REQ__ORDER_SALVAGE:
        h = find_held(k, o->salvage->chunk);
        *code = h && h->session == o->salvage->session ? 0 : -ERR_NO_CHUNK;
        rep->stored = h ? h->len : 0;
        break;
    case REPLFS__ORDER_REQ__ORDER_COMPACT:
        nodes_rig_compact(k, o->compact, rep, code);
        break;
    case REPLFS__ORDER_REQ__ORDER_SCRUB:
        k->scrubs++;
        *code = k->no_scrub ? -ERR_PROTOCOL : 0;
        break;
    case REPLFS__ORDER_REQ__ORDER__NOT_SET:
        *code = -ERR_PROTOCOL;
    }
}

static inline void chunkd_request(void *arg, struct rpc_req *req)
{
    struct nodes_rig_chunkd *k = arg;
    Replfs__OrderReply rep = REPLFS__ORDER_REPLY__INIT;
    int code = 0;
    if (req->env->body_case != REPLFS__ENVELOPE__BODY_ORDER_REQ) {
        rpc_fail(req, -ERR_PROTOCOL, "not an order");
        return;
    }
    pthread_mutex_lock(&k->lock);
    if (k->hold) {
        k->hold = false;
        k->kept = req;
        pthread_mutex_unlock(&k->lock);
        return;
    }
    if (k->refuse)
        code = -EIO;
    else
        do_order(k, req->env->order_req, &rep, &code);
    pthread_mutex_unlock(&k->lock);
    if (code) {
        rpc_fail(req, code, "scripted");
        return;
    }
    RPC_ENVELOPE(env, ORDER_REPLY, order_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static inline void disk_of(const struct nodes_rig_chunkd *k, Replfs__DiskStat *disk)
{
    replfs__disk_stat__init(disk);
    disk->avail = k->avail ? k->avail : 1ull << 39;
    disk->capacity = 2 * disk->avail;
    disk->fs = k->fs;
    disk->fs_capacity = 2 * disk->avail;
    disk->fs_avail = disk->avail;
    for (unsigned i = 0; k->tells_used && i < k->nheld; i++)
        disk->used += k->held[i].len;
    disk->shortage = k->shortage;
    disk->failed = k->failed;
    disk->readonly = k->readonly;
    disk->missing = k->missing;
    disk->disk = k->missing ? UINT32_MAX : 0;
    disk->path = (char *)"/srv/disk";
    if (k->scrub.state != REPLFS__SCRUB_STATE__SCRUB_NONE)
        disk->scrub = (Replfs__ScrubStat *)(uintptr_t)&k->scrub;
}

static inline int do_register(struct nodes_rig_chunkd *k, const char *cluster, uint32_t id,
                              struct rpc_conn *conn, char detail[256])
{
    Replfs__RegisterReq r = REPLFS__REGISTER_REQ__INIT;
    Replfs__DiskStat disk, *disks[] = {&disk};
    char cl[64], addr[32];
    struct rpc_result res;
    snprintf(cl, sizeof cl, "%s", cluster);
    snprintf(addr, sizeof addr, "127.0.0.1:%u", 7100 + (unsigned)(k - fx->chunkd));
    disk_of(k, &disk);
    r.cluster = cl;
    r.chunkd = id;
    r.host_id = r.host_name = k->host;
    r.addr = addr;
    r.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC + k->skew_ms);
    r.boot_id = k->boot_id;
    r.cert_end_s = k->cert_end;
    r.disks = disks;
    r.n_disks = 1;
    r.seen = k->seen.incarnation ? &k->seen : NULL;
    r.term = k->term;
    RPC_ENVELOPE(env, REGISTER_REQ, register_req, &r);
    int rc = rpc_call_wait(conn, &env, NULL, 5000, &res);
    if (!rc) {
        k->id = res.rep->register_reply->chunkd;
        k->registration = res.rep->register_reply->registration;
        assert_true(k->registration != 0);
        assert_int_equal(res.rep->register_reply->cap_key.len, CAP_KEY_LEN);
        assert_string_equal(res.rep->register_reply->cluster, NODES_RIG_UUID);
    } else if (res.rep && res.rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE) {
        snprintf(detail, 256, "%s", res.rep->failure->detail);
    }
    rpc_result_free(&res);
    return rc;
}

static inline struct rpc_conn *nodes_rig_dial(struct nodes_rig_chunkd *k)
{
    char addr[32];
    struct rpc_conn *c = NULL;
    static struct rpc_service svc[CHUNKDS];
    struct rpc_service *s = &svc[k - fx->chunkd];
    *s = (struct rpc_service){.request = chunkd_request, .arg = k};
    snprintf(addr, sizeof addr, "127.0.0.1:%d", fx->port);
    assert_int_equal(rpc_dial(fx->loop, addr, RPC_ROLE_ANY, s, &c), 0);
    return c;
}

/* The first piece of a report has all; the last one, when it is another, nothing. */
static inline void nodes_rig_report_piece(struct nodes_rig_chunkd *k, bool first, bool last)
{
    Replfs__ReportReq r = REPLFS__REPORT_REQ__INIT;
    Replfs__ChunkRecord rec[HELD_MAX], *recs[HELD_MAX];
    struct rpc_result res;
    pthread_mutex_lock(&k->lock);
    r.chunkd = k->id;
    r.report = k->reports += first;
    r.first = first;
    r.last = last;
    for (unsigned i = 0; first && i < k->nheld; i++) {
        replfs__chunk_record__init(&rec[i]);
        rec[i].chunk = k->held[i].chunk;
        rec[i].len = k->held[i].len;
        rec[i].session = k->held[i].session;
        recs[i] = &rec[i];
    }
    r.n_chunks = first ? k->nheld : 0;
    r.chunks = recs;
    struct rpc_conn *c = rpc_conn_ref(k->conn);
    pthread_mutex_unlock(&k->lock);
    RPC_ENVELOPE(env, REPORT_REQ, report_req, &r);
    rpc_call_wait(c, &env, NULL, 5000, &res);
    rpc_result_free(&res);
    rpc_conn_unref(c);
}

static inline void nodes_rig_report(struct nodes_rig_chunkd *k)
{
    nodes_rig_report_piece(k, true, true);
}

/* Returns whether a full report is wanted. */
static inline bool nodes_rig_beat(struct nodes_rig_chunkd *k)
{
    Replfs__HeartbeatReq h = REPLFS__HEARTBEAT_REQ__INIT;
    Replfs__DiskStat disk, *disks[] = {&disk};
    Replfs__ChunkRecord rec[HELD_MAX], *recs[HELD_MAX];
    struct rpc_result res;
    pthread_mutex_lock(&k->lock);
    if (!k->conn || k->silent) {
        pthread_mutex_unlock(&k->lock);
        return false;
    }
    h.chunkd = k->id;
    h.seq = ++k->seq;
    h.digest = k->digest;
    h.count = k->nheld;
    disk_of(k, &disk);
    h.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC + k->skew_ms);
    h.cert_end_s = k->cert_end;
    h.disks = disks;
    h.n_disks = 1;
    for (unsigned i = 0; i < k->nchanges; i++) {
        rec[i] = k->changes[i];
        recs[i] = &rec[i];
    }
    h.n_changes = k->nchanges;
    h.changes = recs;
    h.draining = k->shut;
    h.stopping = k->stopping;
    k->nchanges = 0;
    Replfs__BadCopy bad = k->bad, *bads[] = {&bad};
    h.n_bad = bad.chunk != 0;
    h.bad = bads;
    Replfs__ScrubStat scrub = k->scrub;
    if (disk.scrub)
        disk.scrub = &scrub;
    struct rpc_conn *c = rpc_conn_ref(k->conn);
    pthread_mutex_unlock(&k->lock);
    RPC_ENVELOPE(env, HEARTBEAT_REQ, heartbeat_req, &h);
    int rc = rpc_call_wait(c, &env, NULL, 5000, &res);
    bool want = !rc && res.rep->heartbeat_reply->want_report;
    if (!rc && !res.rep->heartbeat_reply->follows) {
        const Replfs__HeartbeatReply *r = res.rep->heartbeat_reply;
        pthread_mutex_lock(&k->lock);
        k->shut = r->draining && !k->old;
        k->limit = r->n_limits ? r->limits[0]->bytes : 0;
        pthread_mutex_unlock(&k->lock);
    }
    rpc_result_free(&res);
    rpc_conn_unref(c);
    return want;
}

static inline void *nodes_rig_beater(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&fx->stop, __ATOMIC_ACQUIRE)) {
        for (unsigned i = 0; i < CHUNKDS; i++)
            if (nodes_rig_beat(&fx->chunkd[i]))
                nodes_rig_report(&fx->chunkd[i]);
        usleep(20000); /* the pace of heartbeats, not a wait for anything */
    }
    return NULL;
}

/* Registers; the report is to follow. */
static inline void nodes_rig_connect(struct nodes_rig_chunkd *k, const char *cluster)
{
    char detail[256] = "";
    struct rpc_conn *c = nodes_rig_dial(k);
    assert_int_equal(do_register(k, cluster, k->id, c, detail), 0);
    pthread_mutex_lock(&k->lock);
    k->conn = c;
    k->nchanges = 0;
    pthread_mutex_unlock(&k->lock);
}

static inline void nodes_rig_join(struct nodes_rig_chunkd *k, const char *cluster)
{
    nodes_rig_connect(k, cluster);
    nodes_rig_report(k);
}

static inline void nodes_rig_leave(struct nodes_rig_chunkd *k)
{
    pthread_mutex_lock(&k->lock);
    struct rpc_conn *c = k->conn;
    k->conn = NULL;
    pthread_mutex_unlock(&k->lock);
    rpc_conn_close(c);
    rpc_conn_unref(c);
}

/* ---- metad's side ---- */

static inline void server_request(void *arg, struct rpc_req *req)
{
    struct nodes_rig *f = arg;
    if (req->env->body_case == REPLFS__ENVELOPE__BODY_STATUS_REQ) {
        nodes_rpc_status(f->nodes, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_INFO_REQ) {
        nodes_rpc_info(f->nodes, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_CONVERGE_REQ) {
        nodes_rpc_converge(f->nodes, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_RECOVER_REQ) {
        nodes_rpc_recover(f->nodes, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_QUARANTINE_REQ) {
        nodes_rpc_quarantine(f->nodes, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_SCRUB_REQ) {
        nodes_rpc_scrub(f->nodes, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_DAMAGED_REQ) {
        nodes_rpc_damaged(f->nodes, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_NODES_REQ) {
        nodes_rpc_nodes(f->nodes, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_CHUNKD_REMOVE_REQ) {
        nodes_rpc_remove(f->nodes, req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_CHUNKD_SET_REQ) {
        nodes_rpc_set(f->nodes, req);
    } else {
        nodes_request(f->nodes, req);
    }
}

static inline void server_closed(void *arg, struct rpc_conn *c)
{
    nodes_conn_closed(((struct nodes_rig *)arg)->nodes, c);
}

static inline int nodes_rig_apply(Replfs__MetaOp *op, uint64_t session, uint64_t *ino)
{
    struct fsm_result res;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    cmd.op = op;
    cmd.session = session;
    cmd.time_ns = clock_wall();
    fsm_wrlock(fx->mlog.fsm);
    fsm_apply(fx->mlog.fsm, ++fx->mlog.index, &cmd, &res);
    if (!res.code && op->op_case == REPLFS__META_OP__OP_COMMIT)
        for (size_t i = 0; i < op->commit->n_copies; i++)
            nodes_copies(fx->nodes, session, op->commit->copies[i]);
    fsm_unlock(fx->mlog.fsm);
    if (ino)
        *ino = res.ino;
    return res.code;
}

#define NODES_RIG_OP(var, CASE, field, ptr)                                                        \
    Replfs__MetaOp var = REPLFS__META_OP__INIT;                                                    \
    var.op_case = REPLFS__META_OP__OP_##CASE;                                                      \
    var.field = ptr

static inline void nodes_rig_open_session(uint64_t session)
{
    char text[] = "test";
    Replfs__SessionOpenOp o = REPLFS__SESSION_OPEN_OP__INIT;
    o.session = session;
    o.name = o.host_id = text;
    NODES_RIG_OP(op, SESSION_OPEN, session_open, &o);
    assert_int_equal(nodes_rig_apply(&op, 0, NULL), 0);
}

static inline void nodes_rig_end_session(uint64_t session, bool lapse)
{
    Replfs__SessionCloseOp o = REPLFS__SESSION_CLOSE_OP__INIT;
    o.n_session = 1;
    o.session = &session;
    o.lapse = lapse;
    NODES_RIG_OP(op, SESSION_CLOSE, session_close, &o);
    assert_int_equal(nodes_rig_apply(&op, 0, NULL), 0);
}

static inline void nodes_rig_close_session(uint64_t session)
{
    nodes_rig_end_session(session, false);
}

static inline uint64_t make_file(const char *name)
{
    static uint64_t ino = 100;
    uint64_t got;
    Replfs__CreateOp o = REPLFS__CREATE_OP__INIT;
    o.parent = FSM_ROOT_INO;
    o.name = (ProtobufCBinaryData){.len = strlen(name), .data = (uint8_t *)(uintptr_t)name};
    o.mode = 0100644;
    o.ino = ++ino;
    NODES_RIG_OP(op, CREATE, create, &o);
    assert_int_equal(nodes_rig_apply(&op, 0, &got), 0);
    return got;
}

static inline void truncate_file(uint64_t ino, uint64_t size)
{
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;
    o.ino = ino;
    o.valid = REPLFS__SETATTR_OP__VALID__SIZE;
    o.size = size;
    NODES_RIG_OP(op, SETATTR, setattr, &o);
    assert_int_equal(nodes_rig_apply(&op, 0, NULL), 0);
}

static inline void set_goal(uint64_t ino, unsigned goal)
{
    Replfs__SetGoalOp o = REPLFS__SET_GOAL_OP__INIT;
    o.ino = &ino;
    o.n_ino = 1;
    o.goal = goal;
    NODES_RIG_OP(op, SET_GOAL, set_goal, &o);
    assert_int_equal(nodes_rig_apply(&op, 0, NULL), 0);
}

/* Session 77 commits len bytes of chunk as the contents of ino, and tells of these n chunkds, which
 * took them under these registrations. */
static inline void commit_chunk(uint64_t ino, uint64_t chunk, uint32_t len, uint32_t *ids,
                                uint64_t *registrations, unsigned n)
{
    Replfs__Extent e = REPLFS__EXTENT__INIT, *pe = &e;
    Replfs__ChunkCopies cc = REPLFS__CHUNK_COPIES__INIT, *pcc = &cc;
    Replfs__CommitOp o = REPLFS__COMMIT_OP__INIT;
    e.len = len;
    e.chunk = cc.chunk = chunk;
    cc.len = len;
    cc.chunkds = ids;
    cc.registrations = registrations;
    cc.n_chunkds = cc.n_registrations = n;
    o.ino = ino;
    o.extents = &pe;
    o.n_extents = 1;
    o.copies = &pcc;
    o.n_copies = 1;
    NODES_RIG_OP(op, COMMIT, commit, &o);
    assert_int_equal(nodes_rig_apply(&op, 77, NULL), 0);
}

/* A new file and a chunk granted to session 77 on the first n chunkds, who hold len bytes of it. */
static inline uint64_t grant_chunk(const char *name, unsigned goal, uint32_t len, unsigned n,
                                   uint64_t *ino, uint32_t ids[CHUNKDS],
                                   uint64_t registrations[CHUNKDS])
{
    uint64_t chunk = fx->next_chunk++;
    *ino = make_file(name);
    set_goal(*ino, goal);
    for (unsigned i = 0; i < n; i++) {
        ids[i] = fx->chunkd[i].id;
        registrations[i] = fx->chunkd[i].registration;
        nodes_rig_store(&fx->chunkd[i], chunk, len, 77);
    }
    nodes_granted(fx->nodes, 77, chunk, ids, n);
    return chunk;
}

/* A committed chunk of a new file, stored at the first n chunkds. */
static inline uint64_t make_chunk(const char *name, unsigned goal, unsigned n, uint64_t *ino)
{
    uint32_t ids[CHUNKDS];
    uint64_t registrations[CHUNKDS];
    uint64_t chunk = grant_chunk(name, goal, 8192, n, ino, ids, registrations);
    commit_chunk(*ino, chunk, 8192, ids, registrations, n);
    return chunk;
}

/* ---- waiting ---- */

/* arg: an int64_t of clock_mono; all strays have been looked at since. */
static inline bool judged_again(void *arg)
{
    lock_acquire(&fx->nodes->mu);
    bool yes = fx->nodes->judged_at > *(int64_t *)arg;
    lock_release(&fx->nodes->mu);
    return yes;
}

struct want {
    uint64_t chunk;
    unsigned ok; /* copies in state ok, and none in any other */
};

static inline bool has_copies(void *arg)
{
    const struct want *w = arg;
    unsigned ok = 0, other = 0;
    fsm_rdlock(fx->mlog.fsm);
    struct fsm_chunk *c = fsm_chunk_find(fx->mlog.fsm, w->chunk);
    for (unsigned i = 0; c && i < c->nloc; i++) {
        const struct fsm_loc *l = &fsm_chunk_locs(c)[i];
        *(l->state == COPY_OK ? &ok : &other) += 1;
    }
    fsm_unlock(fx->mlog.fsm);
    return ok == w->ok && !other;
}

static inline bool all_reported(void *arg)
{
    bool all = true;
    fsm_rdlock(fx->mlog.fsm);
    struct fsm_chunk *c = fsm_chunk_find(fx->mlog.fsm, *(uint64_t *)arg);
    for (unsigned i = 0; i < c->nloc; i++)
        all &= fsm_chunk_locs(c)[i].reported;
    fsm_unlock(fx->mlog.fsm);
    return all;
}

static inline unsigned held_by(uint64_t chunk)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CHUNKDS; i++) {
        pthread_mutex_lock(&fx->chunkd[i].lock);
        n += find_held(&fx->chunkd[i], chunk) != NULL;
        pthread_mutex_unlock(&fx->chunkd[i].lock);
    }
    return n;
}

static inline bool really_held(void *arg)
{
    const struct want *w = arg;
    return held_by(w->chunk) == w->ok && has_copies(arg);
}

static inline bool nobody_holds(void *arg)
{
    return held_by(*(uint64_t *)arg) == 0;
}

static inline bool all_up(void *arg)
{
    unsigned up = 0;
    lock_acquire(&fx->nodes->mu);
    for (uint32_t i = 1; i < fx->nodes->nnodes; i++)
        up += fx->nodes->node[i] && fx->nodes->node[i]->state == REPLFS__NODE_STATE__NODE_UP;
    bool ok = up == *(unsigned *)arg && !fx->nodes->settling;
    lock_release(&fx->nodes->mu);
    return ok;
}

static inline void wait_up(unsigned n)
{
    wait_until(all_up, &n, "chunkds to be up");
}

/* ---- fixture ---- */

/* Of metad's own. */
static inline uint64_t nodes_rig_new_chunk(void *arg)
{
    (void)arg;
    return __atomic_fetch_add(&fx->made_chunks, 1, __ATOMIC_RELAXED) + 50000;
}

static inline void nodes_rig_lead(void)
{
    uint64_t leading = fx->mlog.leading + 1;
    __atomic_store_n(&fx->mlog.leading, leading, __ATOMIC_RELEASE);
    nodes_lead(fx->nodes, &(struct nodes_leadership){.leading = leading,
                                                     .term = leading,
                                                     .new_chunk = nodes_rig_new_chunk});
    gate_open(&fx->gate);
}

static inline void nodes_rig_follow(void)
{
    gate_shut(&fx->gate);
    assert_true(gate_drain(&fx->gate, 30000));
    nodes_follow(fx->nodes);
}

static inline int nodes_rig_setup(void **state)
{
    struct nodes_rig *f = fx = calloc(1, sizeof *f);
    struct rpc_config rc = {.role = RPC_ROLE_METAD, .name = "test", .threads = 2};
    log_init("test", LOG_LVL_ERROR, NULL);
    assert_int_equal(rpc_loop_new(&rc, &f->loop), 0);
    assert_int_equal(fsm_new(&f->mlog.fsm), 0);
    pthread_mutex_init(&f->mlog.lock, NULL);
    gate_init(&f->gate);
    struct nodes_config nc = {.fsm = f->mlog.fsm,
                              .mlog = &f->mlog,
                              .loop = f->loop,
                              .gate = &f->gate,
                              .heartbeat_ms = 20,
                              .suspect_ms = 300,
                              .dead_ms = 600};
    assert_int_equal(nodes_new(&nc, &f->nodes), 0);
    nodes_rig_lead();
    f->svc = (struct rpc_service){
        .request = server_request, .closed = server_closed, .arg = f, .cluster = NODES_RIG_UUID};
    assert_int_equal(rpc_listen(f->loop, "127.0.0.1:0", &f->svc, &f->port), 0);
    f->next_chunk = 1000;
    for (unsigned i = 0; i < CHUNKDS; i++) {
        pthread_mutex_init(&f->chunkd[i].lock, NULL);
        snprintf(f->chunkd[i].host, sizeof f->chunkd[i].host, "host-%u", i);
    }
    Replfs__ReserveOp o = REPLFS__RESERVE_OP__INIT;
    o.chunk_upto = 100000;
    o.ino_upto = 100000;
    NODES_RIG_OP(op, RESERVE, reserve, &o);
    assert_int_equal(nodes_rig_apply(&op, 0, NULL), 0);
    nodes_rig_open_session(77);
    pthread_create(&f->beater, NULL, nodes_rig_beater, NULL);
    *state = f;
    return 0;
}

static inline int nodes_rig_teardown(void **state)
{
    struct nodes_rig *f = *state;
    __atomic_store_n(&f->stop, true, __ATOMIC_RELEASE);
    pthread_join(f->beater, NULL);
    for (unsigned i = 0; i < CHUNKDS; i++)
        if (f->chunkd[i].conn)
            nodes_rig_leave(&f->chunkd[i]);
    go_on(&f->mlog);
    rpc_loop_free(f->loop); /* the order in which metad stops */
    nodes_free(f->nodes);
    gate_destroy(&f->gate);
    fsm_free(f->mlog.fsm);
    free(f);
    return 0;
}

static inline void join_all(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        nodes_rig_join(&fx->chunkd[i], "");
    wait_up(n);
}

static inline Replfs__StatusReply *nodes_rig_status(struct rpc_result *res)
{
    Replfs__StatusReq r = REPLFS__STATUS_REQ__INIT;
    RPC_ENVELOPE(env, STATUS_REQ, status_req, &r);
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[0]);
    assert_int_equal(rpc_call_wait(c, &env, NULL, 5000, res), 0);
    rpc_conn_unref(c);
    return res->rep->status_reply;
}

static inline bool has_problem(const char *code, unsigned severity)
{
    struct rpc_result res;
    Replfs__StatusReply *s = nodes_rig_status(&res);
    bool found = false;
    for (size_t i = 0; i < s->n_problems; i++) {
        assert_true(s->problems[i]->what[0] && s->problems[i]->way_out[0]);
        found |= !strcmp(s->problems[i]->code, code) && s->problems[i]->severity == severity;
    }
    rpc_result_free(&res);
    return found;
}
#endif
