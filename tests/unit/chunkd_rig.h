/* Chunk daemons under test in one process: several real chunkds on loopback, a fake metad that
 * records what they tell it and gives orders, and a client. Data lies in a temporary directory.
 * Every wait ends when its condition holds or fails the test (wait.h). */
#ifndef REPLFS_TESTS_CHUNKD_RIG_H
#define REPLFS_TESTS_CHUNKD_RIG_H
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash.h"
#include "chunkd/chunkd.h"
#include "chunkd/store/store.h"
#include "rpc/cap.h"
#include "rpc/rpc.h"
#include "tests/unit/tree.h"
#include "wait.h"

#define CHUNKD_RIG_CLUSTER "11111111-2222-3333-4444-555555555555"
#define CHUNKD_RIG_SESSION 77u
#define CHUNKD_RIG_NODES 4
#define CHUNKD_RIG_CHUNKS 512

static const struct cap_key chunkd_rig_key = {.id = 5, .key = "thirty-two bytes of a test key.."};

/* ---- fake metad ---- */

struct chunkd_rig_node { /* what one chunkd told */
    struct rpc_conn *conn;
    unsigned registers, beats, reports, pieces;
    struct {
        uint64_t chunk, session;
        uint32_t len, disk;
    } chunks[CHUNKD_RIG_CHUNKS];
    size_t nchunks;
    size_t last_changes;      /* in the last heartbeat */
    uint64_t digest, count;   /* of the last heartbeat */
    bool draining, stopping;  /* likewise */
    uint64_t capacity, avail; /* likewise, of its first disk */
    unsigned failed_disks, missing_disks;
    char disk_error[128], addr[128], host_id[64];
    Replfs__ScrubStat scrub; /* of its first disk */
    struct {
        uint64_t chunk;
        uint32_t off;
    } bad[64]; /* what its scrub found, each once */
    size_t nbad, bad_told;
};
struct chunkd_rig_metad {
    struct rpc_loop *loop;
    int port;
    bool want_report;
    int refuse;                          /* registration ends with this code */
    unsigned heartbeat_ms;               /* 0: 30 */
    uint32_t cap_now_s;                  /* told as the time for capabilities */
    uint64_t scrub_cycle_ms, scrub_rate; /* 0: not told */
    unsigned drop_beats;                 /* so many heartbeats are not believed: ERR_BUSY */
    uint32_t last_id;
    bool draining;  /* told of every chunkd */
    uint64_t limit; /* of disk 0, likewise; 0: none */
    /* what is told of chunkds, once registry_version is not 0 */
    uint64_t registry_version;
    char registry_addr[CHUNKD_RIG_NODES + 1][128];
    Replfs__ChunkdAddr registry[CHUNKD_RIG_NODES + 1], *registry_list[CHUNKD_RIG_NODES + 1];
    size_t nregistry;
};
struct chunkd_rig {
    pthread_mutex_t mu;
    pthread_cond_t cv;
    struct chunkd_rig_metad metad;
    struct chunkd_rig_node node[CHUNKD_RIG_NODES + 1]; /* by chunkd id */
    struct chunkd *chunkd[CHUNKD_RIG_NODES + 1];
    struct rpc_loop *client;
    struct rpc_conn *conn[CHUNKD_RIG_NODES + 1];
    char dir[64];
    bool insecure; /* chunkds are reached by anybody, over TCP */
    int fatal;
};
static struct chunkd_rig chunkd_rig;

#define chunkd_rig_wait(cond) WAIT_LOCKED(&chunkd_rig.mu, cond)

static void chunkd_rig_record(struct chunkd_rig_node *n, const Replfs__ChunkRecord *r)
{
    size_t i = 0;
    while (i < n->nchunks && n->chunks[i].chunk != r->chunk)
        i++;
    if (r->len == 0) {
        if (i < n->nchunks)
            n->chunks[i] = n->chunks[--n->nchunks];
        return;
    }
    assert_true(i < CHUNKD_RIG_CHUNKS);
    if (i == n->nchunks)
        n->nchunks++;
    n->chunks[i].chunk = r->chunk;
    n->chunks[i].len = r->len;
    n->chunks[i].session = r->session;
    n->chunks[i].disk = r->disk;
}

/* metad knows the chunkd, at this address. */
static inline void chunkd_rig_tell(uint32_t chunkd, const char *addr)
{
    pthread_mutex_lock(&chunkd_rig.mu);
    size_t i = 0;
    while (i < chunkd_rig.metad.nregistry && chunkd_rig.metad.registry[i].chunkd != chunkd)
        i++;
    assert_true(i <= CHUNKD_RIG_NODES);
    Replfs__ChunkdAddr *e = &chunkd_rig.metad.registry[i];
    if (i == chunkd_rig.metad.nregistry)
        chunkd_rig.metad.registry_list[chunkd_rig.metad.nregistry++] = e;
    snprintf(chunkd_rig.metad.registry_addr[i], sizeof chunkd_rig.metad.registry_addr[i], "%s",
             addr);
    replfs__chunkd_addr__init(e);
    e->chunkd = chunkd;
    e->addr = chunkd_rig.metad.registry_addr[i];
    chunkd_rig.metad.registry_version++;
    pthread_mutex_unlock(&chunkd_rig.mu);
}

struct chunkd_rig_limit { /* for a message */
    Replfs__DiskLimit msg, *list[1];
};

static size_t chunkd_rig_limits(struct chunkd_rig_limit *l)
{
    replfs__disk_limit__init(&l->msg);
    l->msg.bytes = chunkd_rig.metad.limit;
    l->list[0] = &l->msg;
    return chunkd_rig.metad.limit ? 1 : 0;
}

static void chunkd_rig_register(struct rpc_req *req)
{
    const Replfs__RegisterReq *r = req->env->register_req;
    Replfs__RegisterReply rep = REPLFS__REGISTER_REPLY__INIT;
    uint32_t id = r->chunkd ? r->chunkd : ++chunkd_rig.metad.last_id;
    struct chunkd_rig_node *n = &chunkd_rig.node[id];
    rep.cluster = (char *)CHUNKD_RIG_CLUSTER;
    rep.chunkd = id;
    rep.heartbeat_ms = chunkd_rig.metad.heartbeat_ms ? chunkd_rig.metad.heartbeat_ms : 30;
    rep.cap_key.data = (uint8_t *)chunkd_rig_key.key;
    rep.cap_key.len = CAP_KEY_LEN;
    rep.cap_key_id = chunkd_rig_key.id;
    rep.cap_now_s = chunkd_rig.metad.cap_now_s;
    rpc_conn_unref(n->conn);
    n->conn = rpc_conn_ref(req->conn);
    n->registers++;
    n->beats = n->reports = 0;
    snprintf(n->addr, sizeof n->addr, "%s", r->addr);
    snprintf(n->host_id, sizeof n->host_id, "%s", r->host_id);
    rep.registry_version = chunkd_rig.metad.registry_version;
    rep.registry = chunkd_rig.metad.registry_list;
    rep.n_registry = chunkd_rig.metad.nregistry;
    struct chunkd_rig_limit limit;
    rep.draining = chunkd_rig.metad.draining;
    rep.n_limits = chunkd_rig_limits(&limit);
    rep.limits = limit.list;
    RPC_ENVELOPE(env, REGISTER_REPLY, register_reply, &rep);
    rpc_reply(req, &env, NULL);
}

/* What is told of the scrub. */
static void chunkd_rig_scrub(struct chunkd_rig_node *n, const Replfs__HeartbeatReq *h)
{
    if (h->n_disks && h->disks[0]->scrub)
        n->scrub = *h->disks[0]->scrub;
    n->bad_told += h->n_bad;
    for (size_t i = 0; i < h->n_bad; i++) {
        size_t k = 0;
        while (k < n->nbad && n->bad[k].chunk != h->bad[i]->chunk)
            k++;
        assert_true(k < 64);
        n->nbad += k == n->nbad;
        n->bad[k].chunk = h->bad[i]->chunk;
        n->bad[k].off = h->bad[i]->off;
    }
}

static void chunkd_rig_heartbeat(struct rpc_req *req)
{
    const Replfs__HeartbeatReq *h = req->env->heartbeat_req;
    struct chunkd_rig_node *n = &chunkd_rig.node[h->chunkd];
    if (chunkd_rig.metad.drop_beats > 0) {
        chunkd_rig.metad.drop_beats--;
        rpc_fail(req, -ERR_BUSY, "dropped");
        return;
    }
    for (size_t i = 0; i < h->n_changes; i++)
        chunkd_rig_record(n, h->changes[i]);
    n->failed_disks = n->missing_disks = 0;
    for (size_t i = 0; i < h->n_disks; i++)
        if (h->disks[i]->failed) {
            n->failed_disks++;
            n->missing_disks += h->disks[i]->missing;
            snprintf(n->disk_error, sizeof n->disk_error, "%s", h->disks[i]->error);
        }
    chunkd_rig_scrub(n, h);
    n->beats++;
    n->last_changes = h->n_changes;
    n->digest = h->digest;
    n->count = h->count;
    n->draining = h->draining;
    n->stopping = h->stopping;
    n->capacity = h->n_disks ? h->disks[0]->capacity : 0;
    n->avail = h->n_disks ? h->disks[0]->avail : 0;
    Replfs__HeartbeatReply rep = REPLFS__HEARTBEAT_REPLY__INIT;
    rep.registry_version = chunkd_rig.metad.registry_version;
    if (h->registry_version != rep.registry_version) {
        rep.registry = chunkd_rig.metad.registry_list;
        rep.n_registry = chunkd_rig.metad.nregistry;
    }
    rep.want_report = chunkd_rig.metad.want_report;
    rep.cap_now_s = chunkd_rig.metad.cap_now_s;
    rep.scrub_cycle_ms = chunkd_rig.metad.scrub_cycle_ms;
    rep.scrub_rate = chunkd_rig.metad.scrub_rate;
    chunkd_rig.metad.want_report = false;
    struct chunkd_rig_limit limit;
    rep.draining = chunkd_rig.metad.draining;
    rep.n_limits = chunkd_rig_limits(&limit);
    rep.limits = limit.list;
    RPC_ENVELOPE(env, HEARTBEAT_REPLY, heartbeat_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void chunkd_rig_report(struct rpc_req *req)
{
    const Replfs__ReportReq *r = req->env->report_req;
    struct chunkd_rig_node *n = &chunkd_rig.node[r->chunkd];
    if (r->first)
        n->nchunks = 0;
    for (size_t i = 0; i < r->n_chunks; i++)
        chunkd_rig_record(n, r->chunks[i]);
    n->pieces++;
    n->reports += r->last;
    Replfs__ReportReply rep = REPLFS__REPORT_REPLY__INIT;
    RPC_ENVELOPE(env, REPORT_REPLY, report_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void chunkd_rig_request(void *arg, struct rpc_req *req)
{
    (void)arg;
    pthread_mutex_lock(&chunkd_rig.mu);
    if (req->env->body_case == REPLFS__ENVELOPE__BODY_REGISTER_REQ) {
        if (chunkd_rig.metad.refuse)
            rpc_fail(req, chunkd_rig.metad.refuse, "refused by the test");
        else
            chunkd_rig_register(req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_HEARTBEAT_REQ) {
        chunkd_rig_heartbeat(req);
    } else if (req->env->body_case == REPLFS__ENVELOPE__BODY_REPORT_REQ) {
        chunkd_rig_report(req);
    } else {
        rpc_fail(req, -ERR_PROTOCOL, "not for a fake metad");
    }
    pthread_cond_broadcast(&chunkd_rig.cv);
    pthread_mutex_unlock(&chunkd_rig.mu);
}

static inline void chunkd_rig_metad_start(void)
{
    struct rpc_config rc = {.role = RPC_ROLE_METAD, .name = "fake metad", .threads = 1};
    assert_int_equal(rpc_loop_new(&rc, &chunkd_rig.metad.loop), 0);
    struct rpc_service svc = {.request = chunkd_rig_request};
    char addr[32];
    snprintf(addr, sizeof addr, "127.0.0.1:%d", chunkd_rig.metad.port);
    assert_int_equal(rpc_listen(chunkd_rig.metad.loop, addr, &svc, &chunkd_rig.metad.port), 0);
}

static inline void chunkd_rig_metad_stop(void)
{
    for (unsigned i = 0; i <= CHUNKD_RIG_NODES; i++) {
        rpc_conn_unref(chunkd_rig.node[i].conn);
        chunkd_rig.node[i].conn = NULL;
    }
    rpc_loop_free(chunkd_rig.metad.loop);
    chunkd_rig.metad.loop = NULL;
}

/* Metad's view agrees with the chunkd's digest: nothing is left to be told. Lock held. */
static inline bool chunkd_rig_agrees(const struct chunkd_rig_node *n)
{
    uint64_t digest = 0;
    for (size_t i = 0; i < n->nchunks; i++)
        digest ^= hash_u64(n->chunks[i].chunk);
    return n->beats > 0 && n->count == n->nchunks && n->digest == digest;
}

/* Length metad knows of a chunk's copy; 0: none. Lock held. */
static inline uint32_t chunkd_rig_len(const struct chunkd_rig_node *n, uint64_t chunk)
{
    for (size_t i = 0; i < n->nchunks; i++)
        if (n->chunks[i].chunk == chunk)
            return n->chunks[i].len;
    return 0;
}

/* ---- chunkds ---- */

static void chunkd_rig_on_fatal(void *arg, int code)
{
    (void)arg;
    pthread_mutex_lock(&chunkd_rig.mu);
    chunkd_rig.fatal = code;
    pthread_cond_broadcast(&chunkd_rig.cv);
    pthread_mutex_unlock(&chunkd_rig.mu);
}

/* Data directories of node i: DIR/i-0, DIR/i-1 .., new disks when they are not there yet. */
static inline int chunkd_rig_chunkd_try(unsigned i, size_t ndirs)
{
    char dirs[4][96], meta[32], *list[4], *metas[1] = {meta};
    for (size_t d = 0; d < ndirs; d++) {
        snprintf(dirs[d], sizeof dirs[d], "%s/%u-%zu", chunkd_rig.dir, i, d);
        list[d] = dirs[d];
        if (access(dirs[d], F_OK) != 0)
            assert_int_equal(store_id_init(dirs[d]), 0);
    }
    snprintf(meta, sizeof meta, "127.0.0.1:%d", chunkd_rig.metad.port);
    char host[16];
    snprintf(host, sizeof host, "host%u", i);
    struct chunkd_config cfg = {
        .disks = {.dirs = list, .ndirs = ndirs, .segment_size = 16u << 20},
        .rpc = {.name = host, .threads = 1, .insecure = chunkd_rig.insecure},
        .listen = "127.0.0.1:0",
        .metas = metas,
        .nmetas = 1,
        .host_id = host,
        .host_name = host,
        .fatal = chunkd_rig_on_fatal,
    };
    return chunkd_start(&cfg, &chunkd_rig.chunkd[i]);
}

/* Starts node i; the fake metad gives ids in the order of first starts, so i is the chunkd id. */
static inline void chunkd_rig_chunkd_start(unsigned i, size_t ndirs)
{
    unsigned before = chunkd_rig.node[i].registers;
    assert_int_equal(chunkd_rig_chunkd_try(i, ndirs), 0);
    chunkd_rig_wait(chunkd_rig.node[i].registers > before && chunkd_rig.node[i].reports > 0 &&
                    chunkd_rig.node[i].beats > 0);
    assert_int_equal(chunkd_id(chunkd_rig.chunkd[i]), i);
    rpc_conn_unref(chunkd_rig.conn[i]);
    assert_int_equal(rpc_dial(chunkd_rig.client, chunkd_addr(chunkd_rig.chunkd[i]), RPC_ROLE_CHUNKD,
                              NULL, &chunkd_rig.conn[i]),
                     0);
}

static inline void chunkd_rig_chunkd_stop(unsigned i)
{
    chunkd_stop(chunkd_rig.chunkd[i]);
    chunkd_rig.chunkd[i] = NULL;
}

/* ---- life ---- */

static inline int chunkd_rig_setup(void **state)
{
    (void)state;
    memset(&chunkd_rig, 0, sizeof chunkd_rig);
    pthread_mutex_init(&chunkd_rig.mu, NULL);
    pthread_cond_init(&chunkd_rig.cv, NULL);
    log_init("test", getenv("TEST_LOG") ? LOG_LVL_DEBUG : LOG_LVL_ERROR, NULL);
    if (!tree_make(chunkd_rig.dir, sizeof chunkd_rig.dir, "/tmp", "chunkd"))
        return -1;
    struct rpc_config rc = {.role = RPC_ROLE_CLIENT, .name = "test", .threads = 1};
    if (rpc_loop_new(&rc, &chunkd_rig.client) != 0)
        return -1;
    chunkd_rig_metad_start();
    return 0;
}

static inline int chunkd_rig_teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i <= CHUNKD_RIG_NODES; i++) {
        rpc_conn_unref(chunkd_rig.conn[i]);
        chunkd_stop(chunkd_rig.chunkd[i]);
    }
    if (chunkd_rig.metad.loop)
        chunkd_rig_metad_stop();
    rpc_loop_free(chunkd_rig.client);
    pthread_mutex_destroy(&chunkd_rig.mu);
    pthread_cond_destroy(&chunkd_rig.cv);
    tree_remove(chunkd_rig.dir);
    return 0;
}

/* ---- client ---- */

static inline void chunkd_rig_fill(uint8_t *p, size_t len, uint64_t seed)
{
    for (size_t i = 0; i < len; i++) {
        if (i % 8 == 0)
            seed = hash_u64(seed + 0x9e3779b97f4a7c15ull);
        p[i] = (uint8_t)(seed >> (i % 8 * 8));
    }
}

struct chunkd_rig_append {
    uint64_t chunk;
    uint32_t off, len;
    uint64_t seed;         /* of the bytes */
    const unsigned *chain; /* node numbers, 0 ends; [0] is who is asked */
    bool sync;
    uint64_t ino, file_off; /* whose bytes they are said to be */
    /* to get things wrong */
    const struct cap_key *key;
    uint32_t rights, expiry; /* 0: append, in an hour */
    uint32_t lie_len;        /* 0: len */
    bool bad_crc;
    unsigned timeout_ms;
    const char *addr2, *addr3; /* instead of the second and third hop's address */
};
struct chunkd_rig_answer {
    int code, cause;
    uint32_t chunkd; /* of the failure */
    uint32_t stored[8];
    size_t n;
};

static inline struct chunkd_rig_answer chunkd_rig_append(const struct chunkd_rig_append *a)
{
    uint8_t cap[CAP_LEN], crcs[1024];
    Replfs__ChainHop hops[8], *list[8];
    Replfs__AppendReq r = REPLFS__APPEND_REQ__INIT;
    struct buf *b = buf_new(a->len);
    b->len = a->len;
    chunkd_rig_fill(b->data, b->len, a->seed);
    crc_blocks_make(b->data, b->len, crcs);
    crcs[0] ^= a->bad_crc;
    uint32_t now = (uint32_t)(clock_wall() / NSEC_PER_SEC);
    cap_make(a->key ? a->key : &chunkd_rig_key, a->chunk, CHUNKD_RIG_SESSION, CHUNKD_RIG_SESSION,
             a->rights ? a->rights : CAP_APPEND, a->expiry ? a->expiry : now + 3600, cap);
    for (unsigned i = 1; a->chain[i]; i++) {
        replfs__chain_hop__init(&hops[i]);
        hops[i].chunkd = a->chain[i];
        const char *given = i == 1 ? a->addr2 : i == 2 ? a->addr3 : NULL;
        hops[i].addr = (char *)(given ? given : chunkd_addr(chunkd_rig.chunkd[a->chain[i]]));
        list[r.n_chain++] = &hops[i];
    }
    r.chunk = a->chunk;
    r.chunk_off = a->off;
    r.len = a->lie_len ? a->lie_len : a->len;
    r.cap.data = cap;
    r.cap.len = sizeof cap;
    r.session = CHUNKD_RIG_SESSION;
    r.crcs.data = crcs;
    r.crcs.len = crc_blocks(a->len) * 4;
    r.chain = list;
    r.sync = a->sync;
    r.ino = a->ino;
    r.file_off = a->file_off;
    RPC_ENVELOPE(env, APPEND_REQ, append_req, &r);
    struct rpc_result res;
    struct chunkd_rig_answer out = {0};
    out.code = rpc_call_wait(chunkd_rig.conn[a->chain[0]], &env, b,
                             a->timeout_ms ? a->timeout_ms : 10000, &res);
    if (out.code == 0) {
        assert_int_equal(res.rep->body_case, REPLFS__ENVELOPE__BODY_APPEND_REPLY);
        out.n = res.rep->append_reply->n_stored;
        assert_true(out.n <= 8);
        memcpy(out.stored, res.rep->append_reply->stored, out.n * sizeof out.stored[0]);
    } else if (res.rep) {
        out.chunkd = res.rep->failure->chunkd;
        out.cause = -(int)res.rep->failure->cause;
    }
    rpc_result_free(&res);
    return out;
}

/* Reads off..off+len from node i into out, checking every CRC. Returns the code. */
static inline int chunkd_rig_read(unsigned i, uint64_t chunk, uint32_t off, uint32_t len,
                                  uint8_t *out)
{
    uint8_t cap[CAP_LEN];
    cap_make(&chunkd_rig_key, chunk, CHUNKD_RIG_SESSION, CHUNKD_RIG_SESSION, CAP_READ, UINT32_MAX,
             cap);
    Replfs__ReadReq r = REPLFS__READ_REQ__INIT;
    r.chunk = chunk;
    r.off = off;
    r.len = len;
    r.cap.data = cap;
    r.cap.len = sizeof cap;
    r.session = CHUNKD_RIG_SESSION;
    RPC_ENVELOPE(env, READ_REQ, read_req, &r);
    struct rpc_result res;
    int rc = rpc_call_wait(chunkd_rig.conn[i], &env, NULL, 10000, &res);
    if (rc == 0) {
        const Replfs__ReadReply *rr = res.rep->read_reply;
        size_t at = 0;
        uint32_t pos = off;
        for (size_t s = 0; s < rr->n_spans && rc == 0; s++) {
            const Replfs__Span *sp = rr->spans[s];
            if (crc_blocks_check(res.payload->data + at, sp->len, sp->crcs.data) >= 0)
                rc = -ERR_CRC;
            assert_true(sp->chunk_off <= pos && sp->chunk_off + sp->len > pos);
            for (; pos < off + len && pos < sp->chunk_off + sp->len; pos++)
                out[pos - off] = res.payload->data[at + pos - sp->chunk_off];
            at += sp->len;
        }
        assert_int_equal(pos, off + len);
        assert_int_equal(at, res.payload->len);
    }
    rpc_result_free(&res);
    return rc;
}

static inline void chunkd_rig_check(unsigned i, uint64_t chunk, uint32_t off, uint32_t len,
                                    uint64_t seed)
{
    uint8_t *got = malloc(len), *want = malloc(len);
    assert_int_equal(chunkd_rig_read(i, chunk, off, len, got), 0);
    chunkd_rig_fill(want, len, seed);
    assert_memory_equal(got, want, len);
    free(got);
    free(want);
}

/* Flips a byte of the bytes with this seed, in whichever segment of the node they are. */
static inline void chunkd_rig_damage(unsigned node, uint64_t seed, size_t at)
{
    uint8_t want[64];
    chunkd_rig_fill(want, sizeof want, seed);
    char dir[96];
    snprintf(dir, sizeof dir, "%s/%u-0", chunkd_rig.dir, node);
    DIR *d = opendir(dir);
    assert_non_null(d);
    bool found = false;
    for (struct dirent *e; (e = readdir(d)) && !found;) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        CLEANUP(close_fdp) int fd = open(path, O_RDWR | O_CLOEXEC);
        struct stat st;
        if (strncmp(e->d_name, "seg", 3) != 0 || fd < 0 || fstat(fd, &st) != 0)
            continue;
        CLEANUP(free_ptr) uint8_t *bytes = malloc((size_t)st.st_size + 1);
        ssize_t n = pread(fd, bytes, (size_t)st.st_size, 0);
        uint8_t *hit = n > 0 ? memmem(bytes, (size_t)n, want, sizeof want) : NULL;
        if (!hit)
            continue;
        uint8_t flipped = hit[at] ^ 0x40;
        assert_int_equal(pwrite(fd, &flipped, 1, hit - bytes + (off_t)at), 1);
        found = true;
    }
    closedir(d);
    assert_true(found);
}

/* ---- many appends in flight ---- */

struct chunkd_rig_burst {
    pthread_mutex_t mu;
    pthread_cond_t cv;
    unsigned done, failed;
};

static inline void chunkd_rig_burst_done(void *arg, int code, const Replfs__Envelope *rep,
                                         struct buf *payload)
{
    struct chunkd_rig_burst *b = arg;

    (void)rep;
    (void)payload;
    pthread_mutex_lock(&b->mu);
    b->done++;
    b->failed += code != 0;
    pthread_cond_signal(&b->cv);
    pthread_mutex_unlock(&b->mu);
}

/* n appends of len bytes to the chunk, one after the other, up to 1000 in flight, to chunkd 1 and hops
 * behind it: 2, 3 and so on, at addr. The i-th is filled with seed i. Returns how many failed. */
static inline unsigned chunkd_rig_burst(uint64_t chunk, unsigned n, uint32_t len,
                                        const char *const *addr, unsigned hops)
{
    struct chunkd_rig_burst b = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    uint8_t cap[CAP_LEN], crcs[128];
    Replfs__ChainHop hop[CHUNKD_RIG_NODES], *list[CHUNKD_RIG_NODES];

    assert_true(crc_blocks(len) * 4 <= sizeof crcs && hops <= CHUNKD_RIG_NODES);
    cap_make(&chunkd_rig_key, chunk, CHUNKD_RIG_SESSION, CHUNKD_RIG_SESSION, CAP_APPEND, UINT32_MAX,
             cap);
    for (unsigned i = 0; i < hops; i++) {
        replfs__chain_hop__init(&hop[i]);
        hop[i].chunkd = i + 2;
        hop[i].addr = (char *)(uintptr_t)addr[i];
        list[i] = &hop[i];
    }
    for (unsigned i = 0; i < n; i++) {
        struct buf *data = buf_new(len);
        data->len = len;
        chunkd_rig_fill(data->data, len, i);
        crc_blocks_make(data->data, len, crcs);
        Replfs__AppendReq r = REPLFS__APPEND_REQ__INIT;
        r.chunk = chunk;
        r.chunk_off = i * len;
        r.len = len;
        r.cap = (ProtobufCBinaryData){sizeof cap, cap};
        r.session = CHUNKD_RIG_SESSION;
        r.crcs = (ProtobufCBinaryData){crc_blocks(len) * 4, crcs};
        r.chain = list;
        r.n_chain = hops;
        RPC_ENVELOPE(env, APPEND_REQ, append_req, &r);
        pthread_mutex_lock(&b.mu);
        while (i - b.done >= 1000)
            pthread_cond_wait(&b.cv, &b.mu);
        pthread_mutex_unlock(&b.mu);
        rpc_call(chunkd_rig.conn[1], &env, data, 3 * WAIT_LIMIT_S * 1000, chunkd_rig_burst_done,
                 &b);
    }
    pthread_mutex_lock(&b.mu);
    while (b.done < n)
        pthread_cond_wait(&b.cv, &b.mu);
    pthread_mutex_unlock(&b.mu);
    return b.failed;
}

/* Sync of one chunk at node i. */
static inline int chunkd_rig_sync(unsigned i, uint64_t chunk, uint32_t len)
{
    uint8_t cap[CAP_LEN];
    cap_make(&chunkd_rig_key, chunk, CHUNKD_RIG_SESSION, CHUNKD_RIG_SESSION, CAP_APPEND, UINT32_MAX,
             cap);
    Replfs__SyncChunk c = REPLFS__SYNC_CHUNK__INIT, *list[1] = {&c};
    c.chunk = chunk;
    c.len = len;
    c.cap.data = cap;
    c.cap.len = sizeof cap;
    Replfs__SyncReq r = REPLFS__SYNC_REQ__INIT;
    r.session = CHUNKD_RIG_SESSION;
    r.chunks = list;
    r.n_chunks = 1;
    RPC_ENVELOPE(env, SYNC_REQ, sync_req, &r);
    struct rpc_result res;
    int rc = rpc_call_wait(chunkd_rig.conn[i], &env, NULL, 10000, &res);
    rpc_result_free(&res);
    return rc;
}

/* Metad's order to node i; *out gets the reply's numbers. */
struct chunkd_rig_order_reply {
    uint64_t bytes;
    uint32_t len, disk;
    bool bad;
    uint32_t blamed; /* of a failure */
    uint32_t stored;
};
static inline int chunkd_rig_order(unsigned i, Replfs__OrderReq *o,
                                   struct chunkd_rig_order_reply *out)
{
    RPC_ENVELOPE(env, ORDER_REQ, order_req, o);
    struct rpc_result res;
    int rc = rpc_call_wait(chunkd_rig.node[i].conn, &env, NULL, 15000, &res);
    if (rc == 0) {
        const Replfs__OrderReply *r = res.rep->order_reply;
        *out = (struct chunkd_rig_order_reply){r->bytes, r->len, r->disk, r->bad, 0, r->stored};
    } else if (res.rep) {
        out->blamed = res.rep->failure->chunkd;
    }
    rpc_result_free(&res);
    return rc;
}
#endif
