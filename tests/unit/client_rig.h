/* A client under test against a fake metad and fake chunkds in the same process, scripted to
 * fail: one file (RIG_INO), grants in order, chunks in memory. Every wait ends with its
 * condition or after RIG_WAIT_S. */
#ifndef REPLFS_TESTS_CLIENT_RIG_H
#define REPLFS_TESTS_CLIENT_RIG_H
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/extmap.h"
#include "base/log.h"
#include "fuse/client/client.h"
#include "limit.h"

#define RIG_INO 10u
#define RIG_NODES 3u
#define RIG_RECORDS 4096
#define RIG_SESSION 77u
#define RIG_WAIT_S 20
#define RIG_TIMEOUT_MS 1500
#define RIG_PATIENT_MS 20000 /* for tests of much that must not time out on a slow machine */

#define RIG_OLD_INO 11u /* "old", a file that a rename of "new" (RIG_INO) replaces */

struct rig_record { /* one append, as a chunkd keeps it */
    uint64_t chunk;
    uint32_t off, len;
    struct buf *data;
    uint8_t *crcs;
};
struct rig_node {
    int port;
    struct rig_record recs[RIG_RECORDS];
    size_t nrecs;
    int append_code, sync_code, read_code; /* answered instead, when set */
    bool corrupt;                          /* flips a byte of what it reads */
    bool mute_reads;
    bool mute_syncs; /* of chunks: not answered */
    size_t synced;   /* of recs */
    unsigned appends, reads, syncs;
};
struct rig {
    pthread_mutex_t mu;
    struct rpc_loop *loop;
    int meta_port;
    char addr[RIG_NODES + 1][32], meta_addr[32];
    struct rig_node node[RIG_NODES + 1];
    struct rpc_req *muted[64];
    size_t nmuted;
    /* metad */
    struct extmap map;
    uint64_t had; /* the file once had bytes up to here */
    uint64_t size, change, next_chunk, next_session, session;
    unsigned commits, grants, bad_reports, last_bad_chunkd, mutations, drop_replies;
    unsigned corrupt_reads; /* so many next reads of any chunkd are damaged */
    uint64_t last_seq, last_value;
    uint64_t foreign;  /* so many bytes are appended by somebody else before the next append */
    bool keep_getattr; /* the next one is answered later, as it was then: */
    struct rpc_req *kept_getattr;
    Replfs__Attr kept_attr;
    bool nowhere, lost; /* no chunkd is named, and that is for sure */
    uint64_t step;      /* a clone or fallocate does no more at once, when set */
    int grant_code, commit_code;
    int fail_code;  /* changes come to nothing with it, executed or not, */
    bool fail_done; /* as this says */
    int create_code;
    unsigned creates_then; /* known when something was removed or renamed */
    unsigned creates, unlinks, opens_refused, opens;
    bool grace;            /* opens are refused */
    bool lapsed;           /* the session, until the client comes back with it */
    unsigned lapses, kept; /* kept: changes that were marked so, */
    int kept_code;         /* and refused with it */
    uint64_t unlinked;     /* the inode that the last unlink expected */
    bool leases;           /* metad gives some: the file is its opener's alone */
    uint32_t mode;
    int64_t mtime_ns;
    unsigned setattrs; /* changes of attributes alone */
    bool hold;         /* changes are not looked at until release() of the test */
    struct rpc_req *held[64];
    size_t nheld;
    struct rpc_conn *client;     /* on which the session was last opened or resumed */
    unsigned renames, unsafe;    /* unsafe: what displaced others' bytes was on no disk yet */
    uint32_t goal, copies_known; /* copies_known: so many of them does metad name */
    bool one_host, third_down;   /* chunkds 1 and 2 are on one computer, 3 is away */
    bool only_two;               /* there is no third */
    uint64_t epoch;
    uint64_t xattr_session; /* with which attributes were last asked for, */
    unsigned commits_asked; /* and what was known then */
    size_t claims, open;    /* exclusive leases and open files named at the last resume */
    bool recalled;
    unsigned commits_then, setattrs_then; /* what was known when the lease was given back */
    uint32_t last_exclude[8];
    size_t nexclude;
    struct client *cl;
};
static struct rig rig;
static bool rig_patient; /* the next client waits long */

/* Holds when cond became true, with rig.mu held for looking. */
#define rig_wait(cond)                                                                             \
    do {                                                                                           \
        int64_t rig_until = clock_mono() + RIG_WAIT_S * NSEC_PER_SEC;                              \
        bool rig_ok = false;                                                                       \
        while (!rig_ok && clock_mono() < rig_until) {                                              \
            pthread_mutex_lock(&rig.mu);                                                           \
            rig_ok = (cond);                                                                       \
            pthread_mutex_unlock(&rig.mu);                                                         \
            if (!rig_ok)                                                                           \
                usleep(2000);                                                                      \
        }                                                                                          \
        assert_true(rig_ok);                                                                       \
    } while (0)

/* A field of rig; nobody else has it meanwhile. */
#define rig_set(field, value)                                                                      \
    do {                                                                                           \
        pthread_mutex_lock(&rig.mu);                                                               \
        rig.field = (value);                                                                       \
        pthread_mutex_unlock(&rig.mu);                                                             \
    } while (0)

#define rig_get(field)                                                                             \
    ({                                                                                             \
        pthread_mutex_lock(&rig.mu);                                                               \
        uint64_t rig_v = rig.field;                                                                \
        pthread_mutex_unlock(&rig.mu);                                                             \
        rig_v;                                                                                     \
    })

#include "client_rig_chunkd.h"

/* ---- fake metad ---- */

static void rig_attr(Replfs__Attr *a)
{
    replfs__attr__init(a);
    a->ino = RIG_INO;
    a->mode = S_IFREG | rig.mode;
    a->mtime_ns = rig.mtime_ns;
    a->nlink = 1;
    a->size = rig.size;
    a->goal = rig.goal;
    a->change = rig.change;
}

static uint8_t rig_cap[] = {1, 2, 3, 4}; /* nobody looks into it */

static bool rig_excluded(const Replfs__GrantReq *m, uint32_t id)
{
    for (size_t i = 0; i < m->n_exclude; i++) {
        if (m->exclude[i] == id)
            return true;
    }
    return false;
}

static void rig_grant(struct rpc_req *req)
{
    const Replfs__GrantReq *m = req->env->grant_req;
    Replfs__GrantReply rep = REPLFS__GRANT_REPLY__INIT;
    Replfs__ChunkLoc locs[64], *list[64];
    uint32_t ids[RIG_NODES], n = 0;
    rig.nexclude = 0;
    for (size_t i = 0; i < m->n_exclude && i < 8; i++)
        rig.last_exclude[rig.nexclude++] = m->exclude[i];
    for (uint32_t id = 1; id <= RIG_NODES && n < m->goal; id++) {
        if (!rig_excluded(m, id) && !(id == 3 && (rig.third_down || rig.only_two)) &&
            !(id == 2 && rig.one_host && !rig.third_down && !rig.only_two))
            ids[n++] = id;
    }
    if (rig.grant_code || n < (m->goal < 2 ? m->goal : 2)) {
        rpc_fail(req, rig.grant_code ? rig.grant_code : -ERR_FEW_COPIES,
                 "scripted: chunkd 9 is missing");
        return;
    }
    rig.grants++;
    for (; rep.n_grants < m->count && rep.n_grants < 64; rep.n_grants++) {
        Replfs__ChunkLoc *l = &locs[rep.n_grants];
        replfs__chunk_loc__init(l);
        l->chunk = rig.next_chunk++;
        l->cap = (ProtobufCBinaryData){sizeof(rig_cap), rig_cap};
        l->n_chunkds = n;
        l->chunkds = ids;
        list[rep.n_grants] = l;
    }
    rep.grants = list;
    rep.nodes_epoch = rig.epoch;
    RPC_ENVELOPE(env, GRANT_REPLY, grant_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void rig_fallocate(const Replfs__FallocateOp *op, uint64_t *value)
{
    uint64_t len = rig.step && rig.step < op->len ? rig.step : op->len;
    if (op->mode & 18) /* PUNCH_HOLE, ZERO_RANGE */
        extmap_remove(&rig.map, op->off, len, NULL, NULL);
    for (uint64_t at = op->off, to; !(op->mode & 2) && at < op->off + len; at = to) {
        struct ext e;
        bool have = extmap_find(&rig.map, at, &e) && e.file_off < op->off + len;
        to = have ? e.file_off : op->off + len;
        struct ext r = {.file_off = at, .len = (uint32_t)(to - at)};
        if (to > at)
            extmap_insert(&rig.map, &r, NULL, NULL, NULL);
        if (have)
            to = e.file_off + e.len;
    }
    if (!(op->mode & 1) && rig.size < op->off + len)
        rig.size = op->off + len;
    *value = len;
}

/* Within the one file there is. */
static int rig_clone(const Replfs__CloneOp *op, uint64_t *value)
{
    struct extmap copy;
    struct ext e;
    uint64_t len = op->src_off >= rig.size ? 0 : rig.size - op->src_off;
    len = len < op->len ? len : op->len;
    if (len && op->src_off < op->dst_off + len && op->dst_off < op->src_off + len)
        return EINVAL;
    len = rig.step && rig.step < len ? rig.step : len;
    extmap_init(&copy);
    for (uint64_t at = op->src_off; at < op->src_off + len && extmap_find(&rig.map, at, &e);) {
        uint64_t from = e.file_off > at ? e.file_off : at, end = e.file_off + e.len;
        if (from >= op->src_off + len)
            break;
        end = end < op->src_off + len ? end : op->src_off + len;
        struct ext c = {op->dst_off + (from - op->src_off), e.chunk,
                        e.chunk_off + (uint32_t)(from - e.file_off), (uint32_t)(end - from)};
        if (e.chunk)
            extmap_insert(&copy, &c, NULL, NULL, NULL);
        at = end;
    }
    extmap_remove(&rig.map, op->dst_off, len, NULL, NULL);
    for (uint64_t at = 0; extmap_find(&copy, at, &e); at = e.file_off + e.len)
        rig.unsafe += op->dst_off < rig.size && !rig_safe(e.chunk, e.chunk_off, e.len);
    for (uint64_t at = 0; extmap_find(&copy, at, &e); at = e.file_off + e.len)
        extmap_insert(&rig.map, &e, NULL, NULL, NULL);
    extmap_free(&copy);
    if (len && rig.size < op->dst_off + len)
        rig.size = op->dst_off + len;
    *value = len;
    return 0;
}

/* One extent of a commit; of moved bytes only where the map still shows the old ones. */
static void rig_commit_one(const Replfs__CommitOp *op, uint64_t base, const Replfs__Extent *x)
{
    uint64_t pos = base + x->file_off, end = pos + x->len;
    while (pos < end) {
        struct ext old = {.file_off = end}, e = {pos, x->chunk, 0, (uint32_t)(end - pos)};
        e.chunk_off = x->chunk_off + (uint32_t)(pos - base - x->file_off);
        if (op->over) {
            if (!extmap_find(&rig.map, pos, &old) || old.file_off >= end)
                return;
            if (old.file_off + old.len < end)
                e.len = (uint32_t)(old.file_off + old.len - pos);
        }
        if (!op->over ||
            (old.chunk == op->over && (int64_t)(old.chunk_off - old.file_off) == op->over_shift &&
             old.file_off <= pos)) {
            rig.unsafe += pos < rig.had && !rig_safe(e.chunk, e.chunk_off, e.len);
            extmap_insert(&rig.map, &e, NULL, NULL, NULL);
        }
        pos += e.len;
    }
    if (!op->over && end > rig.size)
        rig.size = end;
    if (rig.had < rig.size)
        rig.had = rig.size;
}

/* "new" goes over "old". */
static void rig_rename(const Replfs__RenameOp *op)
{
    struct ext e;
    bool over = op->new_name.len == 3 && !memcmp(op->new_name.data, "old", 3);
    rig.renames++;
    rig.creates_then = rig.creates;
    for (uint64_t at = 0; over && extmap_find(&rig.map, at, &e); at = e.file_off + e.len)
        rig.unsafe += !rig_safe(e.chunk, e.chunk_off, e.len);
}

static int rig_apply(const Replfs__MetaOp *op, uint64_t *value)
{
    rig.mutations++;
    rig.change++;
    if (op->op_case == REPLFS__META_OP__OP_SETATTR &&
        !(op->setattr->valid & REPLFS__SETATTR_OP__VALID__SIZE)) {
        rig.setattrs++;
        if (op->setattr->valid & REPLFS__SETATTR_OP__VALID__MODE)
            rig.mode = op->setattr->mode;
        if (op->setattr->valid & REPLFS__SETATTR_OP__VALID__MTIME)
            rig.mtime_ns = op->setattr->mtime_ns;
        return 0;
    }
    if (op->op_case == REPLFS__META_OP__OP_SETATTR) {
        rig.size = op->setattr->size;
        extmap_remove(&rig.map, rig.size, UINT64_MAX - rig.size, NULL, NULL);
        return 0;
    }
    if (op->op_case == REPLFS__META_OP__OP_FALLOCATE) {
        rig_fallocate(op->fallocate, value);
        return 0;
    }
    if (op->op_case == REPLFS__META_OP__OP_CREATE) {
        rig.creates++;
        return rig.create_code;
    }
    if (op->op_case == REPLFS__META_OP__OP_UNLINK) {
        rig.unlinks++;
        rig.unlinked = op->unlink->ino;
        rig.creates_then = rig.creates;
        return 0;
    }
    if (op->op_case == REPLFS__META_OP__OP_RENAME) {
        rig_rename(op->rename);
        return 0;
    }
    if (op->op_case == REPLFS__META_OP__OP_CLONE)
        return rig_clone(op->clone, value);
    if (op->op_case != REPLFS__META_OP__OP_COMMIT)
        return EINVAL;
    if (rig.commit_code)
        return -rig.commit_code;
    if (op->commit->n_extents > 4096)
        return EINVAL; /* as metad's limit */
    rig.commits++;
    rig.mtime_ns = op->commit->mtime_ns;
    if (op->commit->append) {
        rig.size += rig.foreign;
        rig.foreign = 0;
        *value = rig.size;
    }
    for (size_t i = 0; i < op->commit->n_extents; i++)
        rig_commit_one(op->commit, *value, op->commit->extents[i]);
    return 0;
}

static void rig_mutate(struct rpc_req *req)
{
    const Replfs__MutateReq *m = req->env->mutate_req;
    Replfs__MutateReply rep = REPLFS__MUTATE_REPLY__INIT;
    Replfs__MutationResult results[256], *list[256];
    Replfs__Attr a;
    if (m->session != rig.session || rig.lapsed) {
        rpc_fail(req, -ERR_SESSION, "scripted");
        return;
    }
    if (rig.fail_code && !rig.fail_done) {
        rpc_fail(req, rig.fail_code, "scripted");
        return;
    }
    for (; rep.n_results < m->n_ops && rep.n_results < 256; rep.n_results++) {
        Replfs__MutationResult *r = list[rep.n_results] = &results[rep.n_results];
        replfs__mutation_result__init(r);
        r->seq = m->ops[rep.n_results]->seq;
        if (r->seq > rig.last_seq) { /* executed once however often it comes */
            rig.last_seq = r->seq;
            rig.last_value = 0;
            bool kept = m->ops[rep.n_results]->kept;
            rig.kept += kept;
            r->code = kept && rig.kept_code
                          ? (uint32_t)rig.kept_code
                          : (uint32_t)rig_apply(m->ops[rep.n_results]->op, &rig.last_value);
        }
        r->value = rig.last_value;
        r->attr = &a;
        r->lease = rig.leases ? 2 : 0;
    }
    if (rig.fail_code) {
        rpc_fail(req, rig.fail_code, "scripted");
        return;
    }
    if (rig.drop_replies) { /* executed, but the answer is lost with the connection */
        rig.drop_replies--;
        rpc_fail(req, -ERR_NOT_LEADER, "scripted");
        return;
    }
    rig_attr(&a);
    rep.results = list;
    RPC_ENVELOPE(env, MUTATE_REPLY, mutate_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void rig_layout(struct rpc_req *req, bool open)
{
    Replfs__OpenReply orep = REPLFS__OPEN_REPLY__INIT;
    Replfs__LayoutReply rep = REPLFS__LAYOUT_REPLY__INIT;
    static Replfs__Extent xs[4096], *xl[4096];
    static Replfs__ChunkLoc ls[4096], *ll[4096];
    uint32_t ids[RIG_NODES] = {1, 2, 3};
    Replfs__Attr a;
    struct ext e;
    rig_attr(&a);
    rep.attr = orep.attr = &a;
    for (uint64_t at = 0; rep.n_extents < 4096 && extmap_find(&rig.map, at, &e);
         at = e.file_off + e.len) {
        size_t i = rep.n_extents++;
        replfs__extent__init(&xs[i]);
        xs[i].file_off = e.file_off;
        xs[i].len = e.len;
        xs[i].chunk = e.chunk;
        xs[i].chunk_off = e.chunk_off;
        xl[i] = &xs[i];
        replfs__chunk_loc__init(&ls[i]);
        ls[i].chunk = e.chunk;
        ls[i].len = e.chunk_off + e.len;
        ls[i].n_chunkds = rig.nowhere ? 0 : rig.copies_known;
        ls[i].lost = rig.nowhere && rig.lost;
        ls[i].chunkds = ids;
        ll[i] = &ls[i];
    }
    rep.extents = xl;
    rep.n_chunks = rep.n_extents;
    rep.chunks = ll;
    rep.covered_to = UINT64_MAX;
    rep.nodes_epoch = rig.epoch;
    orep.layout = &rep;
    orep.lease = rig.leases ? 2 : 0;
    RPC_ENVELOPE(oenv, OPEN_REPLY, open_reply, &orep);
    RPC_ENVELOPE(lenv, LAYOUT_REPLY, layout_reply, &rep);
    rpc_reply(req, open ? &oenv : &lenv, NULL);
}

static void rig_session(struct rpc_req *req)
{
    Replfs__SessionReply rep = REPLFS__SESSION_REPLY__INIT;
    uint64_t asked = req->env->session_req->session;
    if (asked && (asked != rig.session || (rig.lapsed && !req->env->session_req->comes_back))) {
        rpc_fail(req, -ERR_SESSION, "scripted");
        return;
    }
    bool back = asked && rig.lapsed;
    rig.lapses += back;
    rep.lapses = rig.lapses;
    rig.lapsed = false;
    if (!asked) {
        rig.session = rig.next_session++;
        rig.last_seq = 0;
    }
    if (rig.client)
        rpc_conn_unref(rig.client);
    rig.client = rpc_conn_ref(req->conn);
    rig.claims = req->env->session_req->n_exclusive;
    rig.open = req->env->session_req->n_open_inos;
    rep.n_exclusive = back ? 0 : rig.claims;
    rep.exclusive = req->env->session_req->exclusive;
    rep.session = rig.session;
    rep.lease_ms = 60000;
    rep.term_ms = rig.leases ? 60000 : 0;
    rep.cluster = (char *)"test";
    rep.default_min_copies = 2;
    RPC_ENVELOPE(env, SESSION_REPLY, session_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void rig_nodes(struct rpc_req *req)
{
    Replfs__NodesReply rep = REPLFS__NODES_REPLY__INIT;
    Replfs__NodeAddr n[RIG_NODES], *list[RIG_NODES];
    char hosts[RIG_NODES][16];
    for (uint32_t i = 0; i < RIG_NODES; i++) {
        replfs__node_addr__init(&n[i]);
        n[i].chunkd = i + 1;
        n[i].addr = rig.addr[i + 1];
        snprintf(hosts[i], sizeof(hosts[i]), "host %u", rig.one_host && i == 1 ? 1 : i + 1);
        n[i].host_id = hosts[i];
        n[i].state =
            i == 2 && rig.third_down ? REPLFS__NODE_STATE__NODE_DEAD : REPLFS__NODE_STATE__NODE_UP;
        list[i] = &n[i];
    }
    rep.n_nodes = rig.only_two ? 2 : RIG_NODES;
    rep.nodes = list;
    rep.epoch = rig.epoch;
    RPC_ENVELOPE(env, NODES_REPLY, nodes_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void rig_lookup(struct rpc_req *req)
{
    const Replfs__LookupReq *m = req->env->lookup_req;
    Replfs__LookupReply rep = REPLFS__LOOKUP_REPLY__INIT;
    Replfs__Attr a;
    RPC_ENVELOPE(env, LOOKUP_REPLY, lookup_reply, &rep);
    bool old = m->name.len == 3 && !memcmp(m->name.data, "old", 3);
    rig_attr(&a);
    if (old) {
        a.ino = RIG_OLD_INO;
        a.size = 1;
    }
    if (old || (m->name.len == 3 && !memcmp(m->name.data, "new", 3)))
        rep.attr = &a;
    rpc_reply(req, &env, NULL);
}

static void rig_small(struct rpc_req *req)
{
    Replfs__KeepaliveReply ka = REPLFS__KEEPALIVE_REPLY__INIT;
    Replfs__CloseReply cl = REPLFS__CLOSE_REPLY__INIT;
    Replfs__ReportBadReply rb = REPLFS__REPORT_BAD_REPLY__INIT;
    Replfs__GetattrReply ga = REPLFS__GETATTR_REPLY__INIT;
    Replfs__LeaseReply le = REPLFS__LEASE_REPLY__INIT;
    Replfs__InosReply in = REPLFS__INOS_REPLY__INIT;
    Replfs__Attr a;
    rig_attr(&a);
    ga.attr = le.attr = &a;
    le.lease = rig.leases ? 2 : 0;
    in.first = 1000;
    in.count = 1000;
    RPC_ENVELOPE(ienv, INOS_REPLY, inos_reply, &in);
    RPC_ENVELOPE(genv, GETATTR_REPLY, getattr_reply, &ga);
    RPC_ENVELOPE(lenv, LEASE_REPLY, lease_reply, &le);
    RPC_ENVELOPE(kenv, KEEPALIVE_REPLY, keepalive_reply, &ka);
    RPC_ENVELOPE(cenv, CLOSE_REPLY, close_reply, &cl);
    RPC_ENVELOPE(benv, REPORT_BAD_REPLY, report_bad_reply, &rb);
    ka.nodes_epoch = rig.epoch;
    if (req->env->body_case == REPLFS__ENVELOPE__BODY_KEEPALIVE_REQ) {
        if (req->env->keepalive_req->session == rig.session && !rig.lapsed)
            rpc_reply(req, &kenv, NULL);
        else
            rpc_fail(req, -ERR_SESSION, "scripted");
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_CLOSE_REQ) {
        rpc_reply(req, &cenv, NULL);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_INOS_REQ) {
        rpc_reply(req, &ienv, NULL);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_GETATTR_REQ && rig.keep_getattr) {
        rig.keep_getattr = false;
        rig.kept_getattr = req;
        rig.kept_attr = a;
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_GETATTR_REQ) {
        rpc_reply(req, &genv, NULL);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_LEASE_REQ) {
        rpc_reply(req, &lenv, NULL);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_REPORT_BAD_REQ) {
        rig.bad_reports++;
        rig.last_bad_chunkd = req->env->report_bad_req->chunkd;
        rpc_reply(req, &benv, NULL);
    } else {
        rpc_fail(req, -ERR_PROTOCOL, "not in the script");
    }
}

static void rig_xattr(struct rpc_req *req)
{
    Replfs__GetxattrReply get = REPLFS__GETXATTR_REPLY__INIT;
    Replfs__ListxattrReply list = REPLFS__LISTXATTR_REPLY__INIT;
    RPC_ENVELOPE(genv, GETXATTR_REPLY, getxattr_reply, &get);
    RPC_ENVELOPE(lenv, LISTXATTR_REPLY, listxattr_reply, &list);
    bool one = req->env->body_case == REPLFS__ENVELOPE__BODY_GETXATTR_REQ;
    rig.xattr_session = one ? req->env->getxattr_req->session : req->env->listxattr_req->session;
    rig.commits_asked = rig.commits;
    rpc_reply(req, one ? &genv : &lenv, NULL);
}

static void rig_metad(void *arg, struct rpc_req *req)
{
    (void)arg;
    pthread_mutex_lock(&rig.mu);
    if (req->env->body_case == REPLFS__ENVELOPE__BODY_SESSION_REQ) {
        rig_session(req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_NODES_REQ) {
        rig_nodes(req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_GRANT_REQ) {
        rig_grant(req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_MUTATE_REQ) {
        if (rig.hold && rig.nheld < 64)
            rig.held[rig.nheld++] = req;
        else
            rig_mutate(req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_OPEN_REQ) {
        rig.opens += !rig.grace;
        rig.opens_refused += rig.grace;
        if (rig.grace)
            rpc_fail(req, -ERR_BUSY, "scripted");
        else
            rig_layout(req, true);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_LAYOUT_REQ) {
        rig_layout(req, false);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_LOOKUP_REQ) {
        rig_lookup(req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_GETXATTR_REQ ||
               req->env->body_case == REPLFS__ENVELOPE__BODY_LISTXATTR_REQ) {
        rig_xattr(req);
    } else {
        rig_small(req);
    }
    pthread_mutex_unlock(&rig.mu);
}

/* ---- set-up ---- */

static int rig_up(void **st)
{
    (void)st;
    test_limit_begin();
    memset(&rig, 0, sizeof(rig));
    pthread_mutexattr_t own;
    pthread_mutexattr_init(&own);
    pthread_mutexattr_settype(&own, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&rig.mu, &own);
    pthread_mutexattr_destroy(&own);
    extmap_init(&rig.map);
    rig.next_chunk = 100;
    rig.next_session = RIG_SESSION;
    rig.mode = 0644;
    rig.goal = 2;
    rig.copies_known = RIG_NODES;
    rig.epoch = 1;
    struct rpc_config mc = {.role = RPC_ROLE_METAD, .name = "fake", .threads = 1};
    if (rpc_loop_new(&mc, &rig.loop))
        return -1;
    static struct rpc_service msvc = {.request = rig_metad, .cluster = "test"};
    if (rpc_listen(rig.loop, "127.0.0.1:0", &msvc, &rig.meta_port))
        return -1;
    snprintf(rig.meta_addr, sizeof(rig.meta_addr), "127.0.0.1:%d", rig.meta_port);
    return 0;
}

static struct rpc_loop *rig_chunkd_loop;

static int rig_chunkds_up(void)
{
    static struct rpc_service svc[RIG_NODES + 1];
    struct rpc_config cc = {.role = RPC_ROLE_CHUNKD, .name = "fake", .threads = 1};
    if (rpc_loop_new(&cc, &rig_chunkd_loop))
        return -1;
    for (uint32_t i = 1; i <= RIG_NODES; i++) {
        svc[i] = (struct rpc_service){
            .request = rig_chunkd, .arg = (void *)(uintptr_t)i, .cluster = "test"};
        if (rpc_listen(rig_chunkd_loop, "127.0.0.1:0", &svc[i], &rig.node[i].port))
            return -1;
        snprintf(rig.addr[i], sizeof(rig.addr[i]), "127.0.0.1:%d", rig.node[i].port);
    }
    return 0;
}

static int rig_client_up(void)
{
    char *metads[] = {rig.meta_addr};
    struct client_config cfg = {
        .metads = metads,
        .nmetads = 1,
        .name = "test",
        .timeout_ms = rig_patient ? RIG_PATIENT_MS : RIG_TIMEOUT_MS,
        .flush_ms = 200,
        .host_id = "here",
        .rpc = {.role = RPC_ROLE_CLIENT, .name = "test", .threads = 1},
    };
    return client_open(&cfg, &rig.cl);
}

static inline int rig_setup(void **st)
{
    return rig_up(st) || rig_chunkds_up() || rig_client_up() ? -1 : 0;
}

/* The file that there is, open for writing. */
static inline struct cfile *rig_open_file(void)
{
    struct cfile *f = NULL;
    assert_int_equal(cfile_open(rig.cl, RIG_INO, true, NULL, &f), 0);
    return f;
}

static int rig_teardown(void **st)
{
    (void)st;
    (void)pthread_mutex_lock(&rig.mu); /* which an assertion that failed may have left locked */
    pthread_mutex_unlock(&rig.mu);
    client_close(rig.cl);
    pthread_mutex_lock(&rig.mu);
    for (size_t i = 0; i < rig.nheld; i++)
        rpc_fail(rig.held[i], -ERR_SHUTDOWN, "the end");
    if (rig.client)
        rpc_conn_unref(rig.client);
    for (size_t i = 0; i < rig.nmuted; i++)
        rpc_fail(rig.muted[i], -ERR_SHUTDOWN, "the end");
    pthread_mutex_unlock(&rig.mu);
    rpc_loop_free(rig_chunkd_loop);
    rpc_loop_free(rig.loop);
    for (uint32_t i = 1; i <= RIG_NODES; i++) {
        for (size_t k = 0; k < rig.node[i].nrecs; k++) {
            buf_unref(rig.node[i].recs[k].data);
            free(rig.node[i].recs[k].crcs);
        }
    }
    extmap_free(&rig.map);
    pthread_mutex_destroy(&rig.mu);
    test_limit_end();
    return 0;
}
#endif
