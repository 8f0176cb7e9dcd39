/* heartbeat: registers the chunkd at the leading metad and keeps it informed.
 *
 * One thread, which may block. States: looking (dials metads in turn, pausing 0.2 s, doubling up to
 * 2 s, after each round without success; a metad that does not lead may name the one that does, that one is
 * tried next), registered (a full report after each registration, then a heartbeat every
 * heartbeat_ms). Any failure of a heartbeat leads back to looking. Clients are served all the
 * while; what they change is kept in the inventory. Losing metad is logged once, finding it again
 * once.
 *
 * A batch of changes stays in `batch` until a heartbeat that carried it is acknowledged, and is
 * sent again with the chunks' state of then; repeating a record does no harm. A full report carries
 * everything, so it empties the batch. While one is under way heartbeats carry no changes.
 *
 * A heartbeat also tells where other chunkds are (registry.h). When somebody waits for that, the next
 * one is sent at once, but not more often than every HURRY_MS.
 *
 * Failure modes: ERR_WRONG_CLUSTER at registration, or a data directory that cannot take its
 * identity, is for the operator: fatal(). Everything else is tried again for ever.
 *
 * Locks: mu guards stopping and wakes the thread; nothing is called while it is held. The registry's is
 * taken before it. */
#include "heartbeat.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/thread.h"
#include "base/lock.h"
#include "seen.h"

#define LOG_MODULE "heartbeat"
#define BATCH 10000u  /* records in one message: about 300 KB */
#define CALL_MS 5000u /* a metad that does not answer in time is lost */
#define HURRY_MS 100u /* between heartbeats that the registry asks for */
#define BACKOFF_MIN_MS 200u
#define BACKOFF_MAX_MS 2000u

struct heartbeat {
    struct heartbeat_config cfg;
    char **metas;
    char *host_id, *host_name, *addr;
    struct rpc_service svc; /* for what metad asks of us on our connection */
    pthread_t tid;
    struct lock mu;
    struct cond wake;
    bool stopping;         /* mu */
    bool conn_lost;        /* mu: the connection closed, do not wait for the next beat */
    bool hurry;            /* mu: somebody wants to know where a chunkd is */
    struct rpc_conn *conn; /* mu for change; the thread reads it freely */
    /* the thread's own */
    char leader[128]; /* hint: try this one first; "" none */
    unsigned heartbeat_ms;
    uint64_t seq, report;
    struct inventory_item *batch; /* taken, not acknowledged */
    size_t nbatch;
    struct disk_info *infos;
    struct seen seen;
    bool want_report, was_ready, lost_logged;
};

/* ---- sleeping and stopping ---- */

static bool stopping(struct heartbeat *h)
{
    LOCK_SCOPE(&h->mu);
    return h->stopping;
}

/* What else than the time ends a pause, and the stop of the daemon. */
enum { PAUSE_PLAIN, PAUSE_BEAT, PAUSE_HURRY }; /* nothing; a lost connection; also a question */

static void pause_until(struct heartbeat *h, int64_t when, int kind)
{
    LOCK_SCOPE(&h->mu);
    while (!h->stopping && !(kind != PAUSE_PLAIN && h->conn_lost) &&
           !(kind == PAUSE_HURRY && h->hurry))
        if (!cond_sleep_until(&h->wake, &h->mu, when))
            break;
    if (kind == PAUSE_HURRY)
        h->hurry = false;
}

/* The registry wants to know something. Any thread. */
static void on_ask(void *arg)
{
    struct heartbeat *h = arg;
    LOCK_SCOPE(&h->mu);
    h->hurry = true;
    cond_signal(&h->wake);
}

static void on_closed(void *arg, struct rpc_conn *c)
{
    struct heartbeat *h = arg;
    LOCK_SCOPE(&h->mu);
    if (c == h->conn) {
        h->conn_lost = true;
        cond_signal(&h->wake);
    }
}

static void on_request(void *arg, struct rpc_req *req)
{
    struct heartbeat *h = arg;
    serve_metad(h->cfg.service, req);
}

/* Takes c (its reference) as the connection, ending the former. */
static void set_conn(struct heartbeat *h, struct rpc_conn *c)
{
    lock_acquire(&h->mu);
    struct rpc_conn *old = h->conn;
    h->conn = c;
    h->conn_lost = false;
    bool stop = h->stopping;
    lock_release(&h->mu);
    if (old)
        rpc_conn_close(old);
    rpc_conn_unref(old);
    if (c && stop)
        rpc_conn_close(c); /* heartbeat_stop came between */
}

/* ---- messages ---- */

static int call(struct heartbeat *h, Replfs__Envelope *env, Replfs__Envelope__BodyCase want,
                struct rpc_result *res)
{
    int rc = rpc_call_wait(h->conn, env, NULL, CALL_MS, res);
    if (rc == 0 && res->rep->body_case != want)
        rc = -ERR_PROTOCOL;
    return rc;
}

static const char *detail_of(const struct rpc_result *res, const struct rpc_conn *c)
{
    if (res->rep && res->rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE)
        return res->rep->failure->detail;
    return rpc_conn_error(c);
}

/* DiskStats of all directories in one malloc: the pointers, then the messages. */
static Replfs__DiskStat **disk_stats(struct heartbeat *h)
{
    size_t n = disks_count(h->cfg.disks);
    disks_poll(h->cfg.disks, h->infos);
    Replfs__DiskStat **list = malloc(n * (sizeof(*list) + sizeof(**list)));
    if (!list)
        abort();
    Replfs__DiskStat *v = (Replfs__DiskStat *)(list + n);
    for (size_t i = 0; i < n; i++) {
        struct disk_info *in = &h->infos[i];
        replfs__disk_stat__init(&v[i]);
        v[i].disk = in->index;
        v[i].path = (char *)in->dir;
        v[i].capacity = in->capacity;
        v[i].used = in->used;
        v[i].avail = in->avail;
        v[i].failed = in->failed;
        v[i].error = in->error;
        v[i].chunks = in->chunks;
        v[i].missing = in->missing;
        v[i].readonly = in->readonly;
        v[i].dead = in->dead;
        v[i].fs = in->fs;
        v[i].fs_capacity = in->fs_capacity;
        v[i].fs_avail = in->fs_avail;
        list[i] = &v[i];
    }
    return list;
}

struct records {
    Replfs__ChunkRecord **list;
    Replfs__ChunkRecord *v;
    size_t n;
};

/* What is known now of the chunks in items. skip_gone: leave out those that vanished. */
static struct records make_records(struct heartbeat *h, const struct inventory_item *items,
                                   size_t n, bool skip_gone)
{
    struct records r = {.list = malloc((n + 1) * sizeof(*r.list)),
                        .v = malloc((n + 1) * sizeof(*r.v))};
    if (!r.list || !r.v)
        abort();
    for (size_t i = 0; i < n; i++) {
        uint32_t len = 0;
        uint64_t session = 0;
        struct disk *disk =
            items[i].exists ? disks_find(h->cfg.disks, items[i].chunk, false) : NULL;
        if (disk && store_chunk_len(disk_store(disk), items[i].chunk, &len, &session) != 0)
            len = 0;
        if (len == 0 && skip_gone)
            continue;
        Replfs__ChunkRecord *rec = &r.v[r.n];
        replfs__chunk_record__init(rec);
        rec->chunk = items[i].chunk;
        rec->len = len;
        rec->session = session;
        rec->disk = items[i].disk;
        r.list[r.n++] = rec;
    }
    return r;
}

static void free_records(struct records *r)
{
    free(r->list);
    free(r->v);
}

static int send_heartbeat(struct heartbeat *h, bool with_changes)
{
    struct inventory *inv = disks_inventory(h->cfg.disks);
    if (with_changes && h->nbatch == 0)
        h->nbatch = inventory_take(inv, h->batch, BATCH);
    struct records recs = make_records(h, h->batch, with_changes ? h->nbatch : 0, false);
    struct serve_load load;
    serve_load(h->cfg.service, &load);
    char cluster[40];
    CLEANUP(free_ptr) Replfs__DiskStat **stats = disk_stats(h);
    Replfs__HeartbeatReq hb = REPLFS__HEARTBEAT_REQ__INIT;
    hb.chunkd = disks_identity(h->cfg.disks, cluster);
    hb.disks = stats;
    hb.n_disks = disks_count(h->cfg.disks);
    hb.inflight = load.inflight;
    hb.read_bytes = load.read_bytes;
    hb.write_bytes = load.write_bytes;
    hb.changes = recs.list;
    hb.n_changes = recs.n;
    hb.seq = ++h->seq;
    hb.chunk_upto = seen_chunk_upto(&h->seen, h->cfg.disks);
    inventory_told(inv, &hb.digest, &hb.count);
    hb.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    hb.cert_end_s = (uint64_t)rpc_cert_end(h->cfg.loop);
    hb.registry_version = registry_version(h->cfg.registry);
    RPC_ENVELOPE(env, HEARTBEAT_REQ, heartbeat_req, &hb);
    struct rpc_result res;
    registry_begin(h->cfg.registry);
    int rc = call(h, &env, REPLFS__ENVELOPE__BODY_HEARTBEAT_REPLY, &res);
    if (rc == 0) {
        const Replfs__HeartbeatReply *rep = res.rep->heartbeat_reply;
        serve_add_key(h->cfg.service, rep->cap_key_id, rep->cap_key.data, rep->cap_key.len);
        serve_metad_time(h->cfg.service, rep->cap_now_s);
        h->want_report |= with_changes && rep->want_report;
        seen_told(&h->seen, h->cfg.disks, rep->standing, rep->behind);
        registry_told(h->cfg.registry, rep->registry_version, rep->registry, rep->n_registry);
        if (with_changes)
            h->nbatch = 0;
    } else {
        log_debug("heartbeat: %s %s", err_str(rc), detail_of(&res, h->conn));
    }
    rpc_result_free(&res);
    free_records(&recs);
    return rc;
}

static int send_piece(struct heartbeat *h, const struct inventory_item *items, size_t n, bool first,
                      bool last)
{
    struct records recs = make_records(h, items, n, true);
    char cluster[40];
    Replfs__ReportReq r = REPLFS__REPORT_REQ__INIT;
    r.chunkd = disks_identity(h->cfg.disks, cluster);
    r.report = h->report;
    r.first = first;
    r.last = last;
    r.chunks = recs.list;
    r.n_chunks = recs.n;
    RPC_ENVELOPE(env, REPORT_REQ, report_req, &r);
    struct rpc_result res;
    int rc = call(h, &env, REPLFS__ENVELOPE__BODY_REPORT_REPLY, &res);
    rpc_result_free(&res);
    free_records(&recs);
    return rc;
}

static int send_report(struct heartbeat *h)
{
    size_t n, at = 0;
    CLEANUP(free_ptr)
    struct inventory_item *all = inventory_snapshot(disks_inventory(h->cfg.disks), &n);
    h->nbatch = 0; /* the report says it all */
    h->report++;
    int64_t beat = clock_mono() + h->heartbeat_ms * NSEC_PER_MSEC;
    int rc = 0;
    do {
        size_t part = n - at < BATCH ? n - at : BATCH;
        rc = send_piece(h, all ? all + at : NULL, part, at == 0, at + part == n);
        at += part;
        if (rc == 0 && at < n && clock_mono() > beat) {
            rc = send_heartbeat(h, false);
            beat = clock_mono() + h->heartbeat_ms * NSEC_PER_MSEC;
        }
    } while (rc == 0 && at < n);
    h->want_report = rc != 0;
    if (rc == 0)
        log_debug("full report %llu: %zu chunks", (unsigned long long)h->report, n);
    return rc;
}

/* ---- registration ---- */

static int take_identity(struct heartbeat *h, const Replfs__RegisterReply *rep)
{
    if (rep->chunkd == 0 || rep->cluster[0] == '\0' || strlen(rep->cluster) >= 40) {
        log_error("metad answered a registration without cluster or chunkd id");
        return -ERR_PROTOCOL;
    }
    serve_add_key(h->cfg.service, rep->cap_key_id, rep->cap_key.data, rep->cap_key.len);
    serve_metad_time(h->cfg.service, rep->cap_now_s);
    h->heartbeat_ms = rep->heartbeat_ms ? rep->heartbeat_ms : 1000;
    int rc = disks_adopt(h->cfg.disks, rep->cluster, rep->chunkd);
    if (rc != 0) {
        h->cfg.fatal(h->cfg.arg, rc);
        return -ERR_SHUTDOWN;
    }
    registry_told(h->cfg.registry, rep->registry_version, rep->registry, rep->n_registry);
    serve_identity(h->cfg.service, rep->cluster, rep->chunkd, rep->registration);
    seen_told(&h->seen, h->cfg.disks, rep->standing, rep->behind);
    return 0;
}

static void note_refusal(struct heartbeat *h, const char *addr, int code,
                         const struct rpc_result *res)
{
    const char *detail = detail_of(res, h->conn);
    if (code == -ERR_NOT_LEADER) {
        if (res->rep && res->rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE)
            snprintf(h->leader, sizeof(h->leader), "%s", res->rep->failure->leader);
        return;
    }
    if (code == -ERR_WRONG_CLUSTER) {
        log_error("metad %s refuses this chunkd: %s", addr, detail);
        h->cfg.fatal(h->cfg.arg, code);
        return;
    }
    if (!h->lost_logged)
        log_warn("cannot register at metad %s: %s%s%s; trying on", addr, err_str(code),
                 *detail ? ": " : "", detail);
    h->lost_logged = true;
}

static int register_at(struct heartbeat *h, const char *addr)
{
    struct rpc_conn *c;
    struct rpc_result res = {0};
    int rc = rpc_dial(h->cfg.loop, addr, RPC_ROLE_METAD, &h->svc, &c);
    if (rc != 0) {
        if (!h->lost_logged)
            log_warn("cannot reach metad %s: %s; trying on", addr, err_str(rc));
        h->lost_logged = true;
        return rc;
    }
    set_conn(h, c);
    char cluster[40];
    CLEANUP(free_ptr) Replfs__DiskStat **stats = disk_stats(h);
    Replfs__RegisterReq r = REPLFS__REGISTER_REQ__INIT;
    r.chunkd = disks_identity(h->cfg.disks, cluster);
    r.cluster = cluster;
    r.host_id = h->host_id;
    r.host_name = h->host_name;
    r.addr = h->addr;
    r.disks = stats;
    r.n_disks = disks_count(h->cfg.disks);
    r.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    r.cert_end_s = (uint64_t)rpc_cert_end(h->cfg.loop);
    char boot[MACHINE_ID_MAX];
    machine_boot_id(boot); /* "" when there is none: then it tells nothing */
    r.boot_id = boot;
    Replfs__Standing newest, astray;
    seen_fill(&h->seen, h->cfg.disks, &r, &newest, &astray);
    RPC_ENVELOPE(env, REGISTER_REQ, register_req, &r);
    registry_begin(h->cfg.registry);
    rc = call(h, &env, REPLFS__ENVELOPE__BODY_REGISTER_REPLY, &res);
    if (rc == 0)
        rc = take_identity(h, res.rep->register_reply);
    else if (!stopping(h))
        note_refusal(h, addr, rc, &res);
    rpc_result_free(&res);
    if (rc == 0 && h->was_ready && h->lost_logged)
        log_info("registered again as chunkd %u at metad %s", disks_identity(h->cfg.disks, cluster),
                 addr);
    if (rc == 0 && !h->was_ready) {
        log_info("ready: chunkd %u on %s", disks_identity(h->cfg.disks, cluster), h->addr);
        if (h->cfg.ready)
            h->cfg.ready(h->cfg.arg, disks_identity(h->cfg.disks, cluster));
    }
    h->was_ready |= rc == 0;
    return rc;
}

/* Until registered; false when the daemon stops. */
static bool find_metad(struct heartbeat *h)
{
    for (unsigned backoff = BACKOFF_MIN_MS;; backoff *= 2) {
        int rc = -ERR_NOT_LEADER;
        for (size_t i = 0; i < h->cfg.nmetas && rc != 0 && !stopping(h); i++) {
            rc = register_at(h, h->metas[i]);
            if (rc == -ERR_NOT_LEADER && h->leader[0]) {
                char addr[sizeof(h->leader)];
                memcpy(addr, h->leader, sizeof(addr));
                h->leader[0] = '\0';
                rc = register_at(h, addr);
            }
        }
        if (stopping(h))
            return false;
        if (rc == 0)
            break;
        if (backoff > BACKOFF_MAX_MS)
            backoff = BACKOFF_MAX_MS;
        pause_until(h, clock_mono() + backoff * NSEC_PER_MSEC, PAUSE_PLAIN);
    }
    h->lost_logged = false;
    return true;
}

/* ---- the thread ---- */

static void beat_until_lost(struct heartbeat *h)
{
    int rc = send_report(h);
    while (rc == 0 && !stopping(h)) {
        int64_t now = clock_mono(), next = now + h->heartbeat_ms * NSEC_PER_MSEC;
        int64_t soon = now + HURRY_MS * NSEC_PER_MSEC;
        rc = send_heartbeat(h, true);
        if (rc == 0 && (h->want_report || inventory_overflowed(disks_inventory(h->cfg.disks))))
            rc = send_report(h);
        if (rc == 0) {
            pause_until(h, soon < next ? soon : next, PAUSE_BEAT);
            pause_until(h, next, PAUSE_HURRY);
        }
    }
    registry_lost(h->cfg.registry);
    if (rc != 0 && !stopping(h)) {
        log_warn("lost metad: %s; clients are served on, looking for it", err_str(rc));
        h->lost_logged = true;
    }
}

static void *heartbeat_main(void *arg)
{
    struct heartbeat *h = arg;
    seen_load(&h->seen, h->cfg.disks);
    while (find_metad(h))
        beat_until_lost(h);
    seen_save(&h->seen, h->cfg.disks, true);
    return NULL;
}

void heartbeat_free(struct heartbeat *h)
{
    if (!h)
        return;
    for (size_t i = 0; h->metas && i < h->cfg.nmetas; i++)
        free(h->metas[i]);
    free(h->metas);
    free(h->host_id);
    free(h->host_name);
    free(h->addr);
    free(h->batch);
    free(h->infos);
    cond_destroy(&h->wake);
    lock_destroy(&h->mu);
    free(h);
}

int heartbeat_start(const struct heartbeat_config *cfg, struct heartbeat **out)
{
    struct heartbeat *h = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    h->cfg = *cfg;
    h->svc = (struct rpc_service){.request = on_request, .closed = on_closed, .arg = h};
    h->heartbeat_ms = 1000;
    h->metas = calloc(cfg->nmetas, sizeof(*h->metas));
    h->host_id = strdup(cfg->host_id);
    h->host_name = strdup(cfg->host_name);
    h->addr = strdup(cfg->addr);
    h->batch = calloc(BATCH, sizeof(*h->batch));
    h->infos = calloc(disks_count(cfg->disks), sizeof(*h->infos));
    bool ok = h->metas && h->host_id && h->host_name && h->addr && h->batch && h->infos;
    for (size_t i = 0; ok && i < cfg->nmetas; i++)
        ok = (h->metas[i] = strdup(cfg->metas[i])) != NULL;
    lock_init(&h->mu, LOCK_HEARTBEAT);
    cond_init(&h->wake);
    int rc = ok ? -thread_start(&h->tid, "heartbeat", heartbeat_main, h) : -ENOMEM;
    if (rc != 0) {
        heartbeat_free(h);
        return rc;
    }
    *out = h;
    registry_on_ask(cfg->registry, on_ask, h);
    return 0;
}

void heartbeat_stop(struct heartbeat *h)
{
    lock_acquire(&h->mu);
    h->stopping = true;
    struct rpc_conn *c = h->conn ? rpc_conn_ref(h->conn) : NULL;
    cond_signal(&h->wake);
    lock_release(&h->mu);
    if (c)
        rpc_conn_close(c); /* ends a call under way */
    rpc_conn_unref(c);
    pthread_join(h->tid, NULL);
    set_conn(h, NULL);
}
