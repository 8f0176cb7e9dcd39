/* link: one metad, told what this chunkd has.
 *
 *   IDLE -> DIALLED -> REGISTERING -> REPORTING -> RESTING <-> BEATING
 *     ^________________________________________________|  any failure
 *
 * A full report follows each registration, and whenever the metad asks for one or there was too much to tell one by
 * one; while one is under way a heartbeat without changes goes between its pieces when it is due. A batch of changes
 * stays in `batch` until a heartbeat that carried it is acknowledged, and is sent again with the chunks' state of then;
 * repeating a record does no harm. A full report carries everything, so it empties the batch.
 *
 * One metad leads, others follow: all are told the same, so that one that begins to lead knows where copies are. What a
 * follower says of the cluster (its standing, where chunkds are, the time) is not listened to: it may be a
 * little behind. Which one leads says heartbeat.c.
 *
 * A metad that cannot be reached is dialled again after 0.2 s, doubling up to 2 s. That it is lost is logged once, that
 * it is found again once. A metad that another link has already (two addresses of one program) is left alone, and
 * looked at again when that link breaks.
 *
 * Failure modes: ERR_WRONG_CLUSTER at a registration while no other metad knows us, or a data directory that cannot
 * take its identity, is for the operator: fatal(). Everything else is tried again for ever.
 *
 * Threads: the heartbeat's, which never waits for an answer. Answers come on loop threads, which leave a copy in the link
 * (under h->mu) and wake it. */
#include "link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/machine.h"
#include "rpc/copy.h"
#include "scrub.h"
#include "store/store.h"
#include "terms.h"

#define LOG_MODULE "heartbeat"
#define BATCH 10000u  /* records in one message: about 300 KB */
#define CALL_MS 5000u /* a metad that does not answer in time is lost */
#define BAD_TOLD 64u  /* bad copies in one heartbeat */
#define HURRY_MS 100u /* between heartbeats that the registry asks for */
#define BACKOFF_MIN_MS 200u
#define BACKOFF_MAX_MS 2000u
#define ALIAS_MS 60000u
#define JOIN_LOOK_MS 50u

/* ---- calls ---- */

struct link_call {
    struct link *l;
    struct rpc_conn *conn; /* former ones are not listened to */
};

static void on_answer(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct link_call *k = arg;
    struct link *l = k->l;
    struct heartbeat *h = l->h;
    Replfs__Envelope *copy = rpc_envelope_copy(rep);
    (void)payload;
    lock_acquire(&h->mu);
    if (l->conn == k->conn && !l->answered) {
        l->answered = true;
        l->code = code;
        l->rep = copy;
        copy = NULL;
        h->woken = true;
        cond_signal(&h->wake);
    }
    lock_release(&h->mu);
    rpc_envelope_free(copy);
    rpc_conn_unref(k->conn);
    free(k);
}

static struct link_call *call_begin(struct link *l)
{
    struct link_call *k = malloc(sizeof(*k));
    if (!k)
        abort();
    *k = (struct link_call){l, rpc_conn_ref(l->conn)};
    return k;
}

static void call(struct link *l, Replfs__Envelope *env)
{
    rpc_call(l->conn, env, NULL, CALL_MS, on_answer, call_begin(l));
}

static const char *detail_of(const struct link *l, const Replfs__Envelope *rep)
{
    if (rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE)
        return rep->failure->detail;
    return l->conn ? rpc_conn_error(l->conn) : "";
}

/* ---- life ---- */

struct link *link_new(struct heartbeat *h, const char *addr, bool given)
{
    struct link *l = calloc(1, sizeof(*l));
    if (!l)
        abort();
    l->h = h;
    l->given = given;
    l->heartbeat_ms = 1000;
    snprintf(l->addr, sizeof(l->addr), "%s", addr);
    return l;
}

void link_free(struct link *l)
{
    rpc_envelope_free(l->rep);
    inventory_view_free(l->view);
    free(l->batch);
    free(l->all);
    free(l);
}

void link_close(struct link *l)
{
    struct heartbeat *h = l->h;
    lock_acquire(&h->mu);
    struct rpc_conn *conn = l->conn;
    Replfs__Envelope *rep = l->rep;
    bool had = l->stage > LINK_DIALLED;
    l->conn = NULL;
    l->rep = NULL;
    l->answered = l->closed = false;
    lock_release(&h->mu);
    rpc_envelope_free(rep);
    if (conn)
        rpc_conn_close(conn);
    rpc_conn_unref(conn);
    l->stage = LINK_IDLE;
    l->registered = false;
    free(l->all);
    l->all = NULL;
    heartbeat_unlinked(h, l, had);
    /* the next registration is followed by a report: nothing need be remembered until then */
    inventory_view_free(l->view);
    l->view = NULL;
    free(l->batch);
    l->batch = NULL;
    l->nbatch = 0;
}

/* Back to IDLE, after something that is already logged. */
static void link_retry(struct link *l, int64_t now)
{
    link_close(l);
    l->backoff_ms = !l->backoff_ms ? BACKOFF_MIN_MS : l->backoff_ms * 2;
    if (l->backoff_ms > BACKOFF_MAX_MS)
        l->backoff_ms = BACKOFF_MAX_MS;
    l->at = now + l->backoff_ms * NSEC_PER_MSEC;
}

static void link_failed(struct link *l, int code, const Replfs__Envelope *rep, int64_t now)
{
    const char *detail = detail_of(l, rep);
    if (l->registered)
        log_warn("lost metad %s: %s%s%s; clients are served on, looking for it", l->addr,
                 err_str(code), *detail ? ": " : "", detail);
    else if (!l->lost_logged)
        log_warn("cannot register at metad %s: %s%s%s; trying on", l->addr, err_str(code),
                 *detail ? ": " : "", detail);
    l->lost_logged = true;
    link_retry(l, now);
}

/* ---- messages ---- */

/* DiskStat of all directories in one malloc: the pointers, then the messages, then what hangs on them. */
static Replfs__DiskStat **disk_stats(struct heartbeat *h)
{
    size_t n = disks_count(h->cfg.disks);
    disks_poll(h->cfg.disks, h->infos);
    Replfs__DiskStat **list =
        malloc(n * (sizeof(*list) + sizeof(**list) + sizeof(Replfs__ScrubStat)));
    if (!list)
        abort();
    Replfs__DiskStat *v = (Replfs__DiskStat *)(list + n);
    Replfs__ScrubStat *scrub = (Replfs__ScrubStat *)(v + n);
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
        scrub_stat(h->cfg.scrub, i, &scrub[i]);
        v[i].scrub = &scrub[i];
        v[i].shortage = in->shortage;
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

/* What the scrub found, for the leader, who alone does something about it. */
struct bad_copies {
    Replfs__BadCopy v[BAD_TOLD], *list[BAD_TOLD];
    size_t n;
};

static void fill_bad(struct link *l, struct bad_copies *b)
{
    struct scrub_told told[BAD_TOLD];
    b->n = l == l->h->lead ? scrub_bad(l->h->cfg.scrub, told, BAD_TOLD) : 0;
    for (size_t i = 0; i < b->n; i++) {
        replfs__bad_copy__init(b->list[i] = &b->v[i]);
        b->v[i].chunk = told[i].chunk;
        b->v[i].session = told[i].session;
        b->v[i].off = told[i].off;
    }
}

static void send_heartbeat(struct link *l, bool with_changes, int64_t now)
{
    struct heartbeat *h = l->h;
    if (with_changes && l->nbatch == 0)
        l->nbatch = inventory_take(l->view, l->batch, BATCH);
    bool shut = disks_are_shut(h->cfg.disks); /* before what is told is looked at */
    struct records recs = make_records(h, l->batch, with_changes ? l->nbatch : 0, false);
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
    hb.seq = ++l->seq;
    hb.chunk_upto = seen_chunk_upto(&h->seen, h->cfg.disks);
    inventory_told(l->view, &hb.digest, &hb.count);
    hb.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    hb.cert_end_s = (uint64_t)rpc_cert_end(h->cfg.loop);
    hb.registry_version = l->registry_version;
    struct bad_copies bad;
    fill_bad(l, &bad);
    hb.bad = bad.list;
    hb.n_bad = bad.n;
    hb.draining = shut && with_changes;
    hb.stopping = l->goodbye = h->leaves;
    RPC_ENVELOPE(env, HEARTBEAT_REQ, heartbeat_req, &hb);
    if (l == h->lead)
        registry_begin(h->cfg.registry);
    l->stage = LINK_BEATING;
    l->began = now;
    l->with_changes = with_changes;
    call(l, &env);
    free_records(&recs);
}

static void send_piece(struct link *l)
{
    struct heartbeat *h = l->h;
    l->piece = l->nall - l->all_at < BATCH ? l->nall - l->all_at : BATCH;
    struct records recs = make_records(h, l->all ? l->all + l->all_at : NULL, l->piece, true);
    char cluster[40];
    Replfs__ReportReq r = REPLFS__REPORT_REQ__INIT;
    r.chunkd = disks_identity(h->cfg.disks, cluster);
    r.report = l->report;
    r.first = l->all_at == 0;
    r.last = l->all_at + l->piece == l->nall;
    r.chunks = recs.list;
    r.n_chunks = recs.n;
    RPC_ENVELOPE(env, REPORT_REQ, report_req, &r);
    l->stage = LINK_REPORTING;
    call(l, &env);
    free_records(&recs);
}

static void report_begin(struct link *l, int64_t now)
{
    l->nbatch = 0; /* the report says it all */
    l->report++;
    free(l->all);
    l->all = inventory_snapshot(l->view, &l->nall);
    l->all_at = 0;
    l->began = now; /* of heartbeats: the next one between two pieces */
    send_piece(l);
}

static void send_register(struct link *l)
{
    struct heartbeat *h = l->h;
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
    r.registration = h->registration;
    r.term = h->seen.term;
    char boot[MACHINE_ID_MAX];
    machine_boot_id(boot); /* "" when there is none: then it tells nothing */
    r.boot_id = boot;
    Replfs__Standing newest, astray;
    seen_fill(&h->seen, h->cfg.disks, &r, &newest, &astray);
    RPC_ENVELOPE(env, REGISTER_REQ, register_req, &r);
    if (!h->lead)
        registry_begin(h->cfg.registry);
    l->stage = LINK_REGISTERING;
    call(l, &env);
}

/* ---- answers ---- */

/* What the metad that leads says of our disks. */
static void told_disks(struct heartbeat *h, bool draining, Replfs__DiskLimit *const *v, size_t n)
{
    struct disk_limit limits[INVENTORY_DISKS];
    size_t k = 0;
    for (size_t i = 0; i < n && k < INVENTORY_DISKS; i++)
        limits[k++] = (struct disk_limit){v[i]->disk, v[i]->bytes};
    disks_set_limits(h->cfg.disks, limits, k);
    disks_shut(h->cfg.disks, draining);
}

static void told_registry(struct link *l, uint64_t version, Replfs__ChunkdAddr *const *v, size_t n)
{
    registry_told(l->h->cfg.registry, version, v, n);
    l->registry_version = version;
}

/* 0, or why it cannot be. */
static int take_identity(struct link *l, const Replfs__RegisterReply *rep)
{
    struct heartbeat *h = l->h;
    if (rep->chunkd == 0 || rep->cluster[0] == '\0' || strlen(rep->cluster) >= 40) {
        log_error("metad %s answered a registration without cluster or chunkd id", l->addr);
        return -ERR_PROTOCOL;
    }
    serve_add_key(h->cfg.service, rep->cap_key_id, rep->cap_key.data, rep->cap_key.len);
    l->heartbeat_ms = rep->heartbeat_ms ? rep->heartbeat_ms : 1000;
    int rc = disks_adopt(h->cfg.disks, rep->cluster, rep->chunkd);
    if (rc != 0) {
        h->cfg.fatal(h->cfg.arg, rc);
        return -ERR_SHUTDOWN;
    }
    bool first = !h->lead,
         leads = heartbeat_heard(h, l, rep->follows, rep->term, rep->metads, rep->n_metads);
    if (leads || !h->was_ready)
        serve_identity(h->cfg.service, rep->cluster, rep->chunkd,
                       leads ? rep->registration : h->registration);
    if (leads) {
        scrub_retell(h->cfg.scrub);
        serve_metad_time(h->cfg.service, rep->cap_now_s);
        seen_told(&h->seen, h->cfg.disks, rep->standing, rep->behind);
        told_disks(h, rep->draining, rep->limits, rep->n_limits);
    }
    if (leads && first)
        told_registry(l, rep->registry_version, rep->registry, rep->n_registry);
    else if (first)
        registry_lost(h->cfg.registry); /* nobody leads that we know of */
    return 0;
}

static void registered(struct link *l, const Replfs__RegisterReply *rep, int64_t now)
{
    struct heartbeat *h = l->h;
    char cluster[40];
    l->registered = true;
    l->registry_version = 0;
    l->seq = 0;
    l->backoff_ms = 0;
    if (!l->view)
        l->view = inventory_view_new(disks_inventory(h->cfg.disks));
    if (!l->batch && !(l->batch = calloc(BATCH, sizeof(*l->batch))))
        abort();
    if (take_identity(l, rep) != 0) {
        l->registered = false;
        link_retry(l, now);
        return;
    }
    uint32_t id = disks_identity(h->cfg.disks, cluster);
    if (l->was_registered && l->lost_logged)
        log_info("registered again as chunkd %u at metad %s", id, l->addr);
    l->was_registered = true;
    l->lost_logged = false;
    if (!h->was_ready) {
        log_info("ready: chunkd %u on %s", id, h->addr);
        if (h->cfg.ready)
            h->cfg.ready(h->cfg.arg, id);
    }
    h->was_ready = true;
    report_begin(l, now);
}

static void refused(struct link *l, int code, const Replfs__Envelope *rep, int64_t now)
{
    struct heartbeat *h = l->h;
    bool told = rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE;
    if (!h->lead)
        registry_lost(h->cfg.registry); /* ends the registry_begin of send_register */
    if (code == -ERR_NOT_LEADER) {
        if (told)
            heartbeat_named(h, rep->failure->leader);
        link_retry(l, now);
        return;
    }
    if (code == -ERR_WRONG_CLUSTER) {
        log_error("metad %s refuses this chunkd: %s", l->addr, detail_of(l, rep));
        if (!h->lead)
            h->cfg.fatal(h->cfg.arg, code);
    }
    link_failed(l, code, rep, now);
}

static void heard_beat(struct link *l, const Replfs__HeartbeatReply *rep)
{
    struct heartbeat *h = l->h;
    bool was_lead = l == h->lead;
    bool leads = heartbeat_heard(h, l, rep->follows, rep->term, rep->metads, rep->n_metads);
    serve_add_key(h->cfg.service, rep->cap_key_id, rep->cap_key.data, rep->cap_key.len);
    l->want_report |= l->with_changes && rep->want_report;
    if (l->with_changes)
        l->nbatch = 0;
    if (!leads)
        return;
    if (rep->heartbeat_ms)
        l->heartbeat_ms = rep->heartbeat_ms;
    scrub_settings(h->cfg.scrub, rep->scrub_cycle_ms, rep->scrub_rate);
    serve_metad_time(h->cfg.service, rep->cap_now_s);
    seen_told(&h->seen, h->cfg.disks, rep->standing, rep->behind);
    if (!was_lead)
        scrub_retell(h->cfg.scrub);
    told_disks(h, rep->draining, rep->limits, rep->n_limits);
    if (was_lead)
        told_registry(l, rep->registry_version, rep->registry, rep->n_registry);
    else
        l->registry_version = 0; /* to be told all of it the next time */
}

/* After a heartbeat or a piece: what is next. */
static void go_on(struct link *l, int64_t now)
{
    int64_t due = l->began + l->heartbeat_ms * NSEC_PER_MSEC;
    if (l->all || l->all_at < l->nall) {
        if (now > due && l->stage == LINK_REPORTING)
            send_heartbeat(l, false, now);
        else
            send_piece(l);
    } else if (l->want_report || inventory_overflowed(l->view)) {
        report_begin(l, now);
    } else {
        l->stage = LINK_RESTING;
        l->at = due;
    }
}

static void piece_done(struct link *l, int64_t now)
{
    l->all_at += l->piece;
    if (l->all_at == l->nall) {
        log_debug("full report %llu to metad %s: %zu chunks", (unsigned long long)l->report,
                  l->addr, l->nall);
        free(l->all);
        l->all = NULL;
        l->nall = l->all_at = 0;
        l->want_report = false;
        l->began = 0; /* a heartbeat at once: its digest shows whether all arrived */
    }
    go_on(l, now);
}

/* It is there: is it one that we have already? */
static void dialled(struct link *l, int64_t now)
{
    struct heartbeat *h = l->h;
    char cluster[40];
    l->instance = rpc_conn_peer(l->conn)->instance;
    l->alias = heartbeat_twin(h, l) != NULL;
    if (l->alias) {
        link_close(l);
        l->at = now + ALIAS_MS * NSEC_PER_MSEC;
    } else if (disks_identity(h->cfg.disks, cluster) == 0 && !heartbeat_may_join(h, l)) {
        l->at = now + JOIN_LOOK_MS * NSEC_PER_MSEC; /* still DIALLED */
    } else {
        send_register(l);
    }
}

static void link_answer(struct link *l, int code, const Replfs__Envelope *rep, int64_t now)
{
    Replfs__Envelope__BodyCase body = rep ? rep->body_case : REPLFS__ENVELOPE__BODY__NOT_SET;
    switch (l->stage) {
    case LINK_DIALLED:
        if (code && !rep)
            link_failed(l, code, rep, now);
        else
            dialled(l, now);
        return;
    case LINK_REGISTERING:
        if (!code && body == REPLFS__ENVELOPE__BODY_REGISTER_REPLY)
            registered(l, rep->register_reply, now);
        else
            refused(l, code ? code : -ERR_PROTOCOL, rep, now);
        return;
    case LINK_REPORTING:
        if (!code && body == REPLFS__ENVELOPE__BODY_REPORT_REPLY)
            piece_done(l, now);
        else
            link_failed(l, code ? code : -ERR_PROTOCOL, rep, now);
        return;
    case LINK_BEATING:
        if (!code && body == REPLFS__ENVELOPE__BODY_HEARTBEAT_REPLY) {
            heard_beat(l, rep->heartbeat_reply);
            if (l->other_copy)
                link_retry(l, now); /* a registration tells it what we have heard since */
            else
                go_on(l, now);
        } else {
            link_failed(l, code ? code : -ERR_PROTOCOL, rep, now);
        }
        return;
    case LINK_IDLE:
    case LINK_RESTING:
        return; /* nothing is asked then */
    }
}

static void dial(struct link *l, int64_t now)
{
    struct heartbeat *h = l->h;
    struct rpc_conn *conn;
    int rc = rpc_dial(h->cfg.loop, l->addr, RPC_ROLE_METAD, &h->svc, &conn);
    if (rc != 0) {
        if (!l->lost_logged)
            log_warn("cannot reach metad %s: %s; trying on", l->addr, err_str(rc));
        l->lost_logged = true;
        link_retry(l, now);
        return;
    }
    rpc_conn_set_data(conn, l);
    lock_acquire(&h->mu);
    l->conn = conn;
    lock_release(&h->mu);
    l->stage = LINK_DIALLED;
    l->at = INT64_MAX;
    rpc_ping(conn, CALL_MS, on_answer, call_begin(l));
}

/* When a resting link is to beat: earlier when somebody waits for what its metad knows. */
static int64_t beat_at(struct link *l)
{
    struct heartbeat *h = l->h;
    int64_t soonest = l->began + HURRY_MS * NSEC_PER_MSEC;
    LOCK_SCOPE(&h->mu);
    return l == h->lead && h->hurry && soonest < l->at ? soonest : l->at;
}

int64_t link_step(struct link *l, int64_t now)
{
    struct heartbeat *h = l->h;
    lock_acquire(&h->mu);
    bool answered = l->answered, closed = l->closed;
    int code = l->code;
    Replfs__Envelope *rep = l->rep;
    l->rep = NULL;
    l->answered = false;
    lock_release(&h->mu);
    if (answered)
        link_answer(l, code, rep, now);
    rpc_envelope_free(rep);
    bool rests = l->stage == LINK_RESTING || (l->stage == LINK_DIALLED && l->at != INT64_MAX);
    if (!answered && closed && rests)
        link_failed(l, -ERR_PEER_GONE, NULL, now);
    switch (l->stage) {
    case LINK_IDLE:
        if (now >= l->at)
            dial(l, now);
        return l->stage == LINK_IDLE ? l->at : INT64_MAX;
    case LINK_DIALLED:
        if (now >= l->at) /* it waits for another link to join */
            dialled(l, now);
        return l->at;
    case LINK_RESTING:
        if (now < beat_at(l))
            return beat_at(l);
        lock_acquire(&h->mu);
        h->hurry = h->hurry && l != h->lead;
        lock_release(&h->mu);
        send_heartbeat(l, true, now);
        return INT64_MAX;
    case LINK_REGISTERING:
    case LINK_REPORTING:
    case LINK_BEATING:
        break; /* an answer comes */
    }
    return INT64_MAX;
}
