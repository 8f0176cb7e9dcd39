/* service: what a chunkd answers (serve_*, as metad has a service of its own).
 *
 * It owns the dispatch table, the capability keys, the pools of threads for reads and orders, and
 * the count of requests under way, which shutdown waits for. Every request ends in exactly one
 * serve_reply or serve_fail. Appends are in chain.c, metad's orders in orders.c; reads and
 * syncs are here.
 *
 * A request is refused before its handler runs when the daemon stops, does not know its identity
 * yet, the peer's role may not call it, or its deadline has passed. The handler then checks what
 * the message says: every number in it is a peer's input.
 *
 * A Read blocks on a cold disk, so it runs on a pool, but for small ones of what is in the page
 * cache (read_here).
 *
 * Thread context: serve_request on loop threads (one connection's requests in order), answers
 * from pool, store writer and loop threads. keys: under a mutex, copied out, as it is read once a
 * request. */
#include "service.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "chain.h"
#include "names.h"
#include "names_serve.h"
#include "orders.h"
#include "rpc/cap.h"
#include "workers.h"

#define LOG_MODULE "service"
#define MAX_KEYS 8u
#define MAX_READ (1u << 20)
#define READ_HERE 65536u
#define MAX_SYNC_CHUNKS 4096u
#define MAX_QUEUED_READS 2048u
#define MAX_QUEUED_ORDERS 4096u
#define REPLY_SPACE (RPC_MAX_ENVELOPE - 65536u) /* for the spans of a ReadReply */

struct service {
    struct serve_config cfg;
    struct workers *readers, *orderers;
    struct names *names;
    atomic_uint chunkd; /* 0: not registered */
    atomic_ullong registration;
    atomic_bool stopping;
    atomic_uint_fast64_t read_bytes, write_bytes;
    struct lock mu;
    struct cond idle;
    unsigned inflight;             /* mu */
    struct cap_key keys[MAX_KEYS]; /* mu: newest first */
    size_t nkeys;                  /* mu */
    int64_t cap_offset;            /* mu; metad's time minus our clock_boot, seconds */
    bool cap_told;                 /* mu: it has said */
    char metad[SERVE_METAD_MAX];   /* mu: where we are registered; "" nowhere */
};

/* ---- life ---- */

int serve_new(const struct serve_config *cfg, struct service **out)
{
    struct service *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->cfg = *cfg;
    lock_init(&s->mu, LOCK_CHUNKD_SERVICE);
    cond_init(&s->idle);
    s->names = names_new(cfg->disks);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned threads = cfg->read_threads ? cfg->read_threads : cpus > 2 ? (unsigned)cpus : 2;
    size_t copiers = cfg->ndisks * DISKS_COPIES;
    int rc = workers_new("chunkd-read", threads, MAX_QUEUED_READS, &s->readers);
    if (rc == 0)
        rc = workers_new("chunkd-order", copiers > 64 ? 64 : (unsigned)copiers, MAX_QUEUED_ORDERS,
                         &s->orderers);
    if (rc != 0) {
        serve_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void serve_stop(struct service *s)
{
    atomic_store(&s->stopping, true);
    LOCK_SCOPE(&s->mu);
    while (s->inflight > 0)
        cond_wait(&s->idle, &s->mu);
}

void serve_free(struct service *s)
{
    if (!s)
        return;
    workers_free(s->readers);
    workers_free(s->orderers);
    names_free(s->names);
    cond_destroy(&s->idle);
    lock_destroy(&s->mu);
    explicit_bzero(s->keys, sizeof(s->keys));
    free(s);
}

void serve_identity(struct service *s, const char *cluster, uint32_t chunkd, uint64_t registration)
{
    (void)cluster;
    atomic_store(&s->registration, registration);
    atomic_store(&s->chunkd, chunkd);
}

void serve_add_key(struct service *s, uint64_t id, const uint8_t *key, size_t len)
{
    if (len != CAP_KEY_LEN)
        return;
    LOCK_SCOPE(&s->mu);
    size_t at = 0; /* where this id is, or the place of the one to drop */
    while (at < s->nkeys && s->keys[at].id != id)
        at++;
    if (at == s->nkeys) {
        if (s->nkeys < MAX_KEYS)
            s->nkeys++;
        else
            at--;
    }
    memmove(&s->keys[1], &s->keys[0], at * sizeof(s->keys[0]));
    s->keys[0].id = id;
    memcpy(s->keys[0].key, key, len);
}

void serve_load(struct service *s, struct serve_load *out)
{
    LOCK_SCOPE(&s->mu);
    *out =
        (struct serve_load){s->inflight, atomic_load(&s->read_bytes), atomic_load(&s->write_bytes)};
}

/* ---- for handlers ---- */

struct disks *serve_disks(struct service *s)
{
    return s->cfg.disks;
}

struct peers *serve_peers(struct service *s)
{
    return s->cfg.peers;
}

struct terms *serve_terms(struct service *s)
{
    return s->cfg.terms;
}

struct registry *serve_registry(struct service *s)
{
    return s->cfg.registry;
}

struct scrub *serve_scrub(struct service *s)
{
    return s->cfg.scrub;
}

struct names *serve_names(struct service *s)
{
    return s->names;
}

void serve_set_metad(struct service *s, const char *addr)
{
    LOCK_SCOPE(&s->mu);
    snprintf(s->metad, sizeof(s->metad), "%s", addr ? addr : "");
}

void serve_metad_addr(struct service *s, char out[SERVE_METAD_MAX])
{
    LOCK_SCOPE(&s->mu);
    memcpy(out, s->metad, SERVE_METAD_MAX);
}

uint64_t serve_registration(struct service *s)
{
    return atomic_load(&s->registration);
}

uint32_t serve_chunkd(struct service *s)
{
    return atomic_load(&s->chunkd);
}

bool serve_stopping(struct service *s)
{
    return atomic_load(&s->stopping);
}

void serve_count(struct service *s, uint64_t read_bytes, uint64_t write_bytes)
{
    atomic_fetch_add(&s->read_bytes, read_bytes);
    atomic_fetch_add(&s->write_bytes, write_bytes);
}

void serve_metad_time(struct service *s, uint32_t now_s)
{
    if (now_s == 0)
        return; /* a metad that does not tell */
    LOCK_SCOPE(&s->mu);
    s->cap_offset = (int64_t)now_s - clock_boot() / NSEC_PER_SEC;
    s->cap_told = true;
}

int serve_check_cap(struct service *s, const ProtobufCBinaryData *cap, uint64_t chunk,
                    uint64_t session, uint64_t writer, uint32_t rights)
{
    struct cap_key keys[MAX_KEYS];
    lock_acquire(&s->mu);
    size_t n = s->nkeys;
    memcpy(keys, s->keys, n * sizeof(keys[0]));
    int64_t now =
        s->cap_told ? clock_boot() / NSEC_PER_SEC + s->cap_offset : clock_wall() / NSEC_PER_SEC;
    lock_release(&s->mu);
    if (n == 0)
        return -ERR_NOT_REGISTERED;
    return cap_check(keys, n, cap->data, cap->len, chunk, session, writer, rights, (uint32_t)now);
}

int serve_run_order(struct service *s, struct rpc_req *req, void (*fn)(void *), void *arg)
{
    int rc = workers_run(s->orderers, fn, arg);
    if (rc != 0)
        serve_fail(s, req, rc, 0, "%u orders are waiting already", MAX_QUEUED_ORDERS);
    return rc;
}

static void leave(struct service *s)
{
    LOCK_SCOPE(&s->mu);
    if (--s->inflight == 0)
        cond_broadcast(&s->idle);
}

void serve_reply(struct service *s, struct rpc_req *req, Replfs__Envelope *rep, struct buf *payload)
{
    rpc_reply(req, rep, payload);
    leave(s);
}

static void send_failure(struct service *s, struct rpc_req *req, const Replfs__Failure *f)
{
    log_debug("trace %016llx fails: %s (%s)", (unsigned long long)req->trace, err_str((int)f->code),
              f->detail);
    rpc_fail_with(req, f);
    leave(s);
}

void serve_fail(struct service *s, struct rpc_req *req, int code, uint32_t chunkd, const char *fmt,
                ...)
{
    char detail[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof(detail), fmt, ap);
    va_end(ap);
    Replfs__Failure f = REPLFS__FAILURE__INIT;
    f.code = (uint32_t)-code;
    f.detail = detail;
    f.chunkd = chunkd ? chunkd : serve_chunkd(s);
    send_failure(s, req, &f);
}

void serve_fail_chain(struct service *s, struct rpc_req *req, int cause, uint32_t chunkd,
                      char *detail)
{
    Replfs__Failure f = REPLFS__FAILURE__INIT;
    f.code = ERR_CHAIN;
    f.cause = (uint32_t)-cause;
    f.detail = detail;
    f.chunkd = chunkd;
    send_failure(s, req, &f);
}

unsigned serve_time_left(const struct rpc_req *req)
{
    int64_t left = (req->deadline - clock_mono()) / NSEC_PER_MSEC;
    left -= left / 16;
    return left <= 0 ? 0 : left > 3600000 ? 3600000 : (unsigned)left;
}

/* ---- read ---- */

struct read_job {
    struct service *s;
    struct rpc_req *req;
    bool checked; /* its capability was */
};

/* Whether the peer may read the chunk that is here under this number. Looks into the index. */
static int read_check(struct service *s, const Replfs__ReadReq *in)
{
    struct disk *disk = disks_find(s->cfg.disks, in->chunk, true);
    uint64_t writer;
    int rc = -ERR_NO_CHUNK;
    if (disk && disk_store(disk))
        rc = store_chunk_len(disk_store(disk), in->chunk, NULL, &writer);
    return rc != 0 ? rc : serve_check_cap(s, &in->cap, in->chunk, in->session, writer, CAP_READ);
}

static void read_refused(struct service *s, struct rpc_req *req, int code)
{
    serve_fail(s, req, code, 0, "Read of chunk %llx: %s",
               (unsigned long long)req->env->read_req->chunk, err_str(code));
}

/* Whether the spans fit the envelope of a reply: a chunk of very small appends has many. */
static bool spans_fit(const struct store_read *r)
{
    size_t space = 0;
    for (size_t i = 0; i < r->n; i++)
        space += 32 + crc_blocks(r->spans[i].len) * 4;
    return space <= REPLY_SPACE;
}

/* Makes one span (two, when edge blocks make it longer than an append may be) of many, with CRCs of
 * its own. The bytes were verified against the client's CRCs just now. */
static void merge_spans(struct store_read *r)
{
    uint32_t off = r->spans[0].chunk_off, len = (uint32_t)r->data->len;
    size_t n = (len + MAX_READ - 1) / MAX_READ;
    struct store_span *merged = malloc(n * sizeof(*merged) + (crc_blocks(len) + n) * 4);
    if (!merged)
        abort();
    uint8_t *crcs = (uint8_t *)(merged + n);
    for (size_t i = 0; i < n; i++) {
        uint32_t from = (uint32_t)i * MAX_READ,
                 size = len - from < MAX_READ ? len - from : MAX_READ;
        merged[i] = (struct store_span){off + from, size, crcs};
        crc_blocks_make(r->data->data + from, size, crcs);
        crcs += crc_blocks(size) * 4;
    }
    free(r->spans);
    r->spans = merged;
    r->n = n;
}

/* store_read, with a result that fits a reply. */
static int read_fitting(struct store *store, const Replfs__ReadReq *in, enum store_read_how how,
                        struct store_read *r)
{
    int rc = store_read(store, in->chunk, in->off, in->len, how, r);
    if (rc != 0 || spans_fit(r))
        return rc;
    buf_unref(r->data);
    free(r->spans);
    rc = store_read(store, in->chunk, in->off, in->len, STORE_VERIFY, r);
    if (rc == 0)
        merge_spans(r);
    return rc;
}

static void read_send(struct service *s, struct rpc_req *req, struct store_read *r)
{
    Replfs__Span *spans = calloc(r->n + 1, sizeof(*spans));
    Replfs__Span **list = calloc(r->n + 1, sizeof(*list));
    if (!spans || !list)
        abort();
    for (size_t i = 0; i < r->n; i++) {
        replfs__span__init(&spans[i]);
        spans[i].chunk_off = r->spans[i].chunk_off;
        spans[i].len = r->spans[i].len;
        spans[i].crcs.data = r->spans[i].crcs;
        spans[i].crcs.len = crc_blocks(r->spans[i].len) * 4;
        list[i] = &spans[i];
    }
    Replfs__ReadReply rr = REPLFS__READ_REPLY__INIT;
    rr.spans = list;
    rr.n_spans = r->n;
    rr.chunk_len = r->chunk_len;
    RPC_ENVELOPE(env, READ_REPLY, read_reply, &rr);
    serve_count(s, r->data->len, 0);
    serve_reply(s, req, &env, r->data);
    free(list);
    free(spans);
    free(r->spans);
}

/* A small Read of what is in the page cache is answered where it arrives, without a second thread's
 * wake-up. False: it has to go to the disk, or to the code that tells what is wrong. */
static bool read_here(struct service *s, struct rpc_req *req)
{
    const Replfs__ReadReq *in = req->env->read_req;
    struct store_read r;
    struct disk *disk = disks_find(s->cfg.disks, in->chunk, true);
    if (!disk || !disk_store(disk) || read_fitting(disk_store(disk), in, STORE_CACHED, &r))
        return false;
    read_send(s, req, &r);
    return true;
}

/* Answers a Read that has been checked. May block on the disk. */
static void read_answer(struct service *s, struct rpc_req *req)
{
    const Replfs__ReadReq *in = req->env->read_req;
    struct disk *disk = disks_find(s->cfg.disks, in->chunk, true);
    struct store_read r;
    int rc = -ERR_NO_CHUNK;
    if (disk && disk_store(disk))
        rc = read_fitting(disk_store(disk), in, STORE_PLAIN, &r);
    if (rc != 0)
        serve_fail(s, req, rc, 0, "read of chunk %llx at %u+%u: %s", (unsigned long long)in->chunk,
                   in->off, in->len, err_str(rc));
    else
        read_send(s, req, &r);
}

static void read_job_run(void *arg)
{
    struct read_job *job = arg;
    int rc;
    if (clock_mono() > job->req->deadline)
        serve_fail(job->s, job->req, -ERR_TIMEOUT, 0, "waited too long for a free reader");
    else if (!job->checked && (rc = read_check(job->s, job->req->env->read_req)) != 0)
        read_refused(job->s, job->req, rc);
    else
        read_answer(job->s, job->req);
    free(job);
}

static void handle_read(struct service *s, struct rpc_req *req)
{
    const Replfs__ReadReq *in = req->env->read_req;
    if (in->len == 0 || in->len > MAX_READ || in->off > UINT32_MAX - in->len) {
        serve_fail(s, req, -ERR_PROTOCOL, 0, "Read of %u bytes at %u: 1 to %u are possible",
                   in->len, in->off, MAX_READ);
        return;
    }
    bool here = in->len <= READ_HERE; /* else not on a loop thread: the index may be on disk */
    int rc = here ? read_check(s, in) : 0;
    if (rc != 0) {
        read_refused(s, req, rc);
        return;
    }
    if (here && read_here(s, req))
        return;
    struct read_job *job = malloc(sizeof(*job));
    if (!job)
        abort();
    *job = (struct read_job){s, req, here};
    rc = workers_run(s->readers, read_job_run, job);
    if (rc != 0) {
        free(job);
        serve_fail(s, req, rc, 0, "%u reads are waiting already", MAX_QUEUED_READS);
    }
}

/* ---- sync ---- */

struct sync_op {
    struct service *s;
    struct rpc_req *req;
    atomic_uint waits; /* disks still syncing, plus one while they are being started */
    atomic_int code;
};

static void sync_done(void *arg, int code)
{
    struct sync_op *op = arg;
    if (code != 0)
        atomic_store(&op->code, code);
    if (atomic_fetch_sub(&op->waits, 1) != 1)
        return;
    code = atomic_load(&op->code);
    if (code != 0) {
        serve_fail(op->s, op->req, code, 0, "sync: %s", err_str(code));
    } else {
        Replfs__SyncReply sr = REPLFS__SYNC_REPLY__INIT;
        RPC_ENVELOPE(env, SYNC_REPLY, sync_reply, &sr);
        serve_reply(op->s, op->req, &env, NULL);
    }
    free(op);
}

/* The disk of one named chunk, after checking the right to it and its length. */
static int sync_check(struct service *s, uint64_t session, const Replfs__SyncChunk *c,
                      struct disk **disk)
{
    uint32_t len;
    uint64_t writer;
    *disk = disks_find(s->cfg.disks, c->chunk, false);
    if (!*disk)
        return -ERR_NO_CHUNK;
    int rc = store_chunk_len(disk_store(*disk), c->chunk, &len, &writer);
    if (rc != 0)
        return rc;
    rc = serve_check_cap(s, &c->cap, c->chunk, session, writer, CAP_APPEND);
    if (rc == -ERR_CAP)
        rc = serve_check_cap(s, &c->cap, c->chunk, session, writer, CAP_READ);
    return rc != 0 ? rc : len < c->len ? -ERR_SHORT : 0;
}

static void handle_sync(struct service *s, struct rpc_req *req)
{
    const Replfs__SyncReq *in = req->env->sync_req;
    if (in->n_chunks > MAX_SYNC_CHUNKS) {
        serve_fail(s, req, -ERR_PROTOCOL, 0, "Sync of %zu chunks: at most %u are possible",
                   in->n_chunks, MAX_SYNC_CHUNKS);
        return;
    }
    uint64_t wanted = 0; /* set of disk indexes */
    struct disk *of[INVENTORY_DISKS];
    for (size_t i = 0; i < in->n_chunks; i++) {
        struct disk *disk;
        int rc = sync_check(s, in->session, in->chunks[i], &disk);
        if (rc != 0) {
            serve_fail(s, req, rc, 0, "Sync of chunk %llx up to %u: %s",
                       (unsigned long long)in->chunks[i]->chunk, in->chunks[i]->len, err_str(rc));
            return;
        }
        wanted |= 1ull << disk_index(disk);
        of[disk_index(disk)] = disk;
    }
    struct sync_op *op = calloc(1, sizeof(*op));
    if (!op)
        abort();
    op->s = s;
    op->req = req;
    atomic_store(&op->waits, 1);
    for (unsigned i = 0; i < INVENTORY_DISKS; i++) {
        if (!(wanted >> i & 1))
            continue;
        atomic_fetch_add(&op->waits, 1);
        store_sync(disk_store(of[i]), sync_done, op);
    }
    sync_done(op, 0);
}

/* ---- dispatch ---- */

struct entry {
    Replfs__Envelope__BodyCase body;
    unsigned roles;
    void (*handler)(struct service *s, struct rpc_req *req);
};
static const struct entry table[] = {
    {REPLFS__ENVELOPE__BODY_APPEND_REQ, RPC_ROLE_CLIENT | RPC_ROLE_CHUNKD, chain_append},
    {REPLFS__ENVELOPE__BODY_READ_REQ, RPC_ROLE_CLIENT | RPC_ROLE_CHUNKD, handle_read},
    {REPLFS__ENVELOPE__BODY_SYNC_REQ, RPC_ROLE_CLIENT | RPC_ROLE_CHUNKD, handle_sync},
    {REPLFS__ENVELOPE__BODY_NAMES_GET_REQ, RPC_ROLE_METAD | RPC_ROLE_ADMIN, names_serve_get},
    {REPLFS__ENVELOPE__BODY_ORDER_REQ, RPC_ROLE_NONE, NULL}, /* see serve_metad */
    {REPLFS__ENVELOPE__BODY_NAMES_PUT_REQ, RPC_ROLE_NONE, NULL},
};

static const struct entry *find_entry(Replfs__Envelope__BodyCase body)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (table[i].body == body)
            return &table[i];
    return NULL;
}

static void service_serve(struct service *s, struct rpc_req *req, const struct entry *e)
{
    lock_acquire(&s->mu);
    s->inflight++; /* before looking at stopping: serve_stop then waits for us */
    lock_release(&s->mu);
    const struct rpc_peer *peer = rpc_conn_peer(req->conn);
    if (serve_stopping(s))
        serve_fail(s, req, -ERR_SHUTDOWN, 0, "the chunkd is stopping");
    else if (!e)
        serve_fail(s, req, -ERR_PROTOCOL, 0, "a chunkd does not answer message %d",
                   (int)req->env->body_case);
    else if (!(e->roles & (unsigned)peer->role))
        serve_fail(s, req, -ERR_ROLE, 0, "%s may not send message %d to a chunkd", peer->name,
                   (int)req->env->body_case);
    else if (serve_chunkd(s) == 0 || !disks_ready(s->cfg.disks))
        serve_fail(s, req, -ERR_NOT_REGISTERED, 0, "this chunkd is not registered at a metad yet");
    else if (clock_mono() > req->deadline)
        serve_fail(s, req, -ERR_TIMEOUT, 0, "the deadline had passed on arrival");
    else
        e->handler(s, req);
}

void serve_request(void *arg, struct rpc_req *req)
{
    service_serve(arg, req, find_entry(req->env->body_case));
}

void serve_metad(struct service *s, struct rpc_req *req)
{
    static const struct entry order = {REPLFS__ENVELOPE__BODY_ORDER_REQ, RPC_ROLE_METAD,
                                       orders_request};
    static const struct entry put = {REPLFS__ENVELOPE__BODY_NAMES_PUT_REQ, RPC_ROLE_METAD,
                                     names_serve_put};
    Replfs__Envelope__BodyCase body = req->env->body_case;
    service_serve(s, req, body == order.body ? &order : body == put.body ? &put : NULL);
}
