/* What chunkds say they have: full reports, the increments in heartbeats, and the digest that shows
 * when the two sides disagree.
 *
 * Each copy of a chunk the fsm knows is a loc with the bit `reported`; each copy of a chunk it
 * doesn't know is a stray of its chunkd. d->digest is the XOR of hash_u64(chunk) over the copies d
 * itself named (locs and strays with `reported`), d->count their number: exactly what the chunkd
 * sums up in its heartbeats. Copies known from commits and finished copy orders are unreported
 * until the next increment names them.
 *
 * A full report is collected in a map; when its last piece is here, a sweep through all chunks,
 * slice by slice, sets every loc right: reported but not seen now is gone, unreported and not seen
 * is doubtful (the commit may be newer than the report: the chunkd is asked). Increments that
 * arrive meanwhile go into the map too.
 *
 * Strays are garbage when they are certainly of our own past (see fsm_past.c) and their writer's session is
 * closed or has given them up (grants.c); commits from closed sessions are refused, so that is final. One
 * that only lapsed may come back and commit them. Others are kept and judged again. What may come from
 * another metad's future is in quarantine: a number beyond what the log ever reserved or in a range that
 * another metad gave, a writer who may have gone on elsewhere, or a copy of a chunk that we have from another
 * writer (the number was given twice: not a copy of ours at all). It stays until a person releases it. A
 * metad that is behind deletes nothing.
 *
 * Locks: fsm write lock, then nodes.mu; rpc loop threads (requests) and the driver thread (sweep,
 * judge). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash.h"
#include "base/lock.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"
#define SLICE 4096
#define SWEEP_SLICE 8192
#define DELETED_FOR (15 * NSEC_PER_SEC) /* a heartbeat must have confirmed a delete by then */
#define JUDGE_SLICE 16384u
#define AHEAD_MAX 65536u /* of one chunkd; what is not noted is asked for */
#define MISMATCHES 2     /* in a row: one may be a message overtaking another */

/* ---- locs, strays and the digest ---- */

struct fsm_loc *reports_loc(struct fsm_chunk *c, uint32_t chunkd)
{
    struct fsm_loc *l = fsm_chunk_locs(c);
    for (unsigned i = 0; i < c->nloc; i++)
        if (l[i].chunkd == chunkd)
            return &l[i];
    return NULL;
}

static void digest_flip(struct node *d, uint64_t chunk, bool now_there)
{
    d->digest ^= hash_u64(chunk);
    d->count += now_there ? 1 : (uint64_t)-1;
}

static struct stray *stray_find(struct node *d, uint64_t chunk)
{
    uint64_t i;
    return u64map_get(&d->stray_index, chunk, &i) ? &d->strays[i] : NULL;
}

static struct stray *stray_add(struct node *d, uint64_t chunk, uint64_t session, uint32_t disk)
{
    struct stray *s = stray_find(d, chunk);
    if (s)
        return s;
    if (d->nstrays == d->stray_cap) {
        d->stray_cap = d->stray_cap ? d->stray_cap * 2 : 64;
        d->strays = realloc(d->strays, d->stray_cap * sizeof(*d->strays));
        if (!d->strays)
            abort();
    }
    u64map_put(&d->stray_index, chunk, d->nstrays);
    s = &d->strays[d->nstrays++];
    *s = (struct stray){.chunk = chunk,
                        .session = session,
                        .at = clock_mono(),
                        .disk = (uint8_t)disk,
                        .state = STRAY_KEPT};
    return s;
}

/* Forgets the stray; what it says of the digest is the caller's to carry on. */
static void stray_del(struct node *d, struct stray *s)
{
    uint32_t i = (uint32_t)(s - d->strays);
    d->nquarantine -= s->quarantine;
    u64map_del(&d->stray_index, s->chunk);
    if (i != --d->nstrays) {
        d->strays[i] = d->strays[d->nstrays];
        u64map_put(&d->stray_index, d->strays[i].chunk, i);
    }
}

void reports_loc_set(struct nodes *n, struct fsm_chunk *c, uint32_t chunkd, uint32_t disk,
                     enum copy_state state)
{
    lock_assert_held(&n->mu);
    struct node *d = nodes_find(n, chunkd);
    const struct fsm_loc *old = reports_loc(c, chunkd);
    struct stray *s = d ? stray_find(d, c->id) : NULL;
    if (s && s->session != c->session)
        return; /* what it has there is another chunk of that number */
    bool reported = (old && old->reported) || (s && s->reported);
    if (s)
        stray_del(d, s);
    struct fsm_loc l = {.chunkd = chunkd & 0xfffff,
                        .disk = disk & 63,
                        .state = (unsigned)state & 31,
                        .reported = reported};
    fsm_chunk_loc_add(c, l);
}

void reports_loc_deleted(struct nodes *n, struct fsm_chunk *c, uint32_t chunkd)
{
    lock_assert_held(&n->mu);
    struct node *d = nodes_find(n, chunkd);
    const struct fsm_loc *l = reports_loc(c, chunkd);
    if (!l)
        return;
    if (d && l->reported) {
        struct stray *s = stray_add(d, c->id, c->session, l->disk);
        s->reported = true;
        s->state = STRAY_DELETED;
    }
    fsm_chunk_loc_del(c, chunkd);
}

void reports_stray_settled(struct nodes *n, struct node *d, uint64_t chunk, bool deleted)
{
    lock_assert_held(&n->mu);
    struct stray *s = stray_find(d, chunk);
    (void)n;
    if (!s || s->state != STRAY_DELETING)
        return;
    s->state = deleted ? STRAY_DELETED : STRAY_KEPT;
    s->at = clock_mono();
    if (deleted && !s->reported)
        stray_del(d, s);
}

void reports_freed(struct nodes *n, const struct fsm_chunk *c)
{
    lock_assert_held(&n->mu);
    /* fsm_chunk_locs wants a chunk it may give write access to; we only read */
    const struct fsm_loc *l = fsm_chunk_locs((struct fsm_chunk *)(uintptr_t)c);
    for (unsigned i = 0; i < c->nloc; i++) {
        struct node *d = nodes_find(n, l[i].chunkd);
        if (d)
            u64map_del(&d->ahead, c->id);
        if (!d || !d->conn)
            continue; /* its next report tells */
        struct stray *s = stray_add(d, c->id, c->session, l[i].disk);
        s->reported |= l[i].reported;
        s->freed = true;
        s->len = c->len;
    }
}

void reports_forget(struct node *d)
{
    if (d->rep) {
        u64map_free(&d->rep->seen);
        free(d->rep);
        d->rep = NULL;
    }
    u64map_free(&d->stray_index);
    u64map_free(&d->ahead);
    free(d->strays);
    d->strays = NULL;
    d->nstrays = d->stray_cap = d->judge_pos = d->nquarantine = 0;
    d->mismatches = 0;
}

/* ---- single records ---- */

/* Commits of what it has may be applied later here than they were where they were made. */
static void note_ahead(struct node *d, const struct fsm_chunk *c, uint32_t len)
{
    if (len <= c->len)
        u64map_del(&d->ahead, c->id);
    else if (d->ahead.n < AHEAD_MAX || u64map_has(&d->ahead, c->id))
        u64map_put(&d->ahead, c->id, len);
}

void reports_grew(struct nodes *n, struct fsm_chunk *c)
{
    lock_assert_held(&n->mu);
    struct fsm_loc *l = fsm_chunk_locs(c);
    for (unsigned i = 0; i < c->nloc; i++) {
        struct node *d = nodes_find(n, l[i].chunkd);
        uint64_t len = 0;
        bool has = d && u64map_get(&d->ahead, c->id, &len) && len >= c->len;
        if (has && len == c->len)
            u64map_del(&d->ahead, c->id);
        if (!has && l[i].state == COPY_OK)
            l[i].state = COPY_SHORT; /* until its chunkd says more */
    }
}

/* full: from a full report, which a restart may have made shorter; increments only lag behind. */
static void known_copy(struct nodes *n, struct node *d, struct fsm_chunk *c,
                       const Replfs__ChunkRecord *r, bool full)
{
    damage_reported(n, c, d->id, r->len);
    struct fsm_loc *l = reports_loc(c, d->id);
    enum copy_state state = r->len >= damage_len(n, c) ? COPY_OK : COPY_SHORT;
    if (!l) {
        const struct stray *s = stray_find(d, c->id);
        if (!full && s && s->state == STRAY_DELETED)
            return; /* told before it was deleted */
        reports_loc_set(n, c, d->id, r->disk, state);
        l = reports_loc(c, d->id);
        if (!l)
            return;
    } else if (l->state == COPY_SHORT && state == COPY_OK) {
        l->state = COPY_OK;
    } else if (l->state == COPY_OK && state == COPY_SHORT &&
               (full || !fsm_session_kept(n->cfg.fsm, c->session))) {
        l->state = COPY_SHORT;
    }
    note_ahead(d, c, r->len);
    l->disk = r->disk & 63;
    if (!l->reported) {
        l->reported = 1;
        digest_flip(d, c->id, true);
    }
    orders_consider(n, c, NSEC_PER_SEC);
}

static void unknown_copy(struct node *d, const Replfs__ChunkRecord *r)
{
    struct stray *s = stray_add(d, r->chunk, r->session, r->disk);
    if (s->session != r->session) { /* replaced by another chunk of that number */
        s->session = r->session;
        s->freed = false;
        if (s->state == STRAY_DELETED)
            s->state = STRAY_KEPT;
    }
    s->len = r->len;
    if (!s->reported) {
        s->reported = true;
        digest_flip(d, r->chunk, true);
    }
}

/* Not a copy of a chunk that we know, although c, if not NULL, has the same number. */
static void other_copy(struct nodes *n, struct node *d, struct fsm_chunk *c,
                       const Replfs__ChunkRecord *r)
{
    const struct fsm_loc *l = c ? reports_loc(c, d->id) : NULL;
    bool reported = l && l->reported;
    if (l) { /* a commit said so, or the copy was there before: it is not any more */
        fsm_chunk_loc_del(c, d->id);
        orders_consider(n, c, 0);
    }
    if (reported)
        stray_add(d, r->chunk, r->session, r->disk)->reported = true; /* is in the digest */
    unknown_copy(d, r);
}

static void copy_gone(struct nodes *n, struct node *d, uint64_t chunk, struct fsm_chunk *c)
{
    const struct fsm_loc *l = c ? reports_loc(c, d->id) : NULL;
    struct stray *s = stray_find(d, chunk);
    if ((l && l->reported) || (s && s->reported))
        digest_flip(d, chunk, false);
    u64map_del(&d->ahead, chunk);
    if (s)
        stray_del(d, s);
    if (l) {
        fsm_chunk_loc_del(c, d->id);
        orders_consider(n, c, 0);
    }
}

static void apply_record(struct nodes *n, struct node *d, const Replfs__ChunkRecord *r, bool full)
{
    if (!r->chunk)
        return;
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, r->chunk);
    if (!r->len)
        copy_gone(n, d, r->chunk, c);
    else if (c && c->session == r->session)
        known_copy(n, d, c, r, full);
    else
        other_copy(n, d, c, r);
    if (!d->rep)
        return;
    if (r->len)
        u64map_add(&d->rep->seen, r->chunk);
    else
        u64map_del(&d->rep->seen, r->chunk);
}

/* Applies records in slices, so that clients get their turn at the fsm. False: the connection was
 * replaced. */
static bool apply_records(struct nodes *n, const struct rpc_conn *conn, uint32_t chunkd,
                          Replfs__ChunkRecord **recs, size_t nrecs, bool full)
{
    for (size_t i = 0; i < nrecs;) {
        fsm_wrlock(n->cfg.fsm);
        lock_acquire(&n->mu);
        struct node *d = nodes_find(n, chunkd);
        bool ours = d && d->conn == conn;
        for (size_t end = i + SLICE; ours && i < nrecs && i < end; i++)
            apply_record(n, d, recs[i], full);
        lock_release(&n->mu);
        fsm_unlock(n->cfg.fsm);
        if (!ours)
            return false;
    }
    return true;
}

/* ---- heartbeats ---- */

/* Lock held. Whether the chunkd should send a full report. */
static bool compare_digest(struct node *d, const Replfs__HeartbeatReq *h)
{
    if (d->rep)
        return false; /* one is under way */
    if (!d->reported)
        return d->beats > 1; /* it begins by itself after registering; remind it */
    if (h->digest == d->digest && h->count == d->count) {
        d->mismatches = 0;
        return d->want_report;
    }
    if (++d->mismatches < MISMATCHES)
        return d->want_report;
    char label[256];
    if (!d->want_report)
        log_info("%s has %llu chunks, we know of %llu: asking for a full report",
                 nodes_label(d, label), (unsigned long long)h->count, (unsigned long long)d->count);
    return d->want_report = true;
}

static void heartbeat_facts(struct nodes *n, struct node *d, const Replfs__HeartbeatReq *h)
{
    int64_t now = clock_mono();
    double dt = (double)(now - d->last_seen) / NSEC_PER_SEC;
    uint64_t wrote = h->write_bytes > d->write_bytes ? h->write_bytes - d->write_bytes : 0;
    if (dt > 0.01 && d->beats)
        d->rate = (uint64_t)(((double)d->rate + (double)wrote / dt) / 2);
    d->read_bytes = h->read_bytes;
    d->write_bytes = h->write_bytes;
    d->inflight = h->inflight;
    d->granted = 0;
    d->last_seen = now;
    d->beats++;
    d->beats_led++;
    d->skew = clocks_skew(h->wall_ms);
    d->cert_end = h->cert_end_s;
    nodes_disks_set(n, d, h->disks, h->n_disks);
    leave_beat(d);
    d->refuses = h->draining && d->draining;
    d->empty_beats = d->refuses && !h->count && !h->n_changes ? d->empty_beats + 1 : 0;
    d->stopped = h->stopping;
}

struct beat_limits { /* for a message */
    Replfs__DiskLimit v[NODE_LIMITS_MAX], *list[NODE_LIMITS_MAX];
};

static void fill_beat_reply(struct nodes *n, const Replfs__HeartbeatReq *h,
                            Replfs__HeartbeatReply *rep, struct past_standing *standing,
                            struct nodes_registry *others, struct beat_limits *limits)
{
    if (h->chunk_upto)
        nodes_past_ids(n, h->chunk_upto, 0);
    nodes_past_fill(n, standing);
    rep->standing = &standing->msg;
    rep->behind = standing->behind;
    rep->cap_now_s = nodes_cap_now(n);
    rep->term = n->lead.term;
    lock_acquire(&n->mu);
    nodes_registry_fill(n, h->registry_version, others);
    const struct node *d = nodes_find(n, h->chunkd);
    rep->draining = d && d->draining;
    rep->n_limits = d ? nodes_limits_fill(d, limits->v, limits->list) : 0;
    rep->limits = limits->list;
    lock_release(&n->mu);
    rep->registry = others->list;
    rep->n_registry = others->n;
    rep->registry_version = others->version;
}

/* One who follows is told what there is, and says nothing that a chunkd would go by. */
void reports_heartbeat(struct nodes *n, struct rpc_req *req, bool leads)
{
    const Replfs__HeartbeatReq *h = req->env->heartbeat_req;
    Replfs__HeartbeatReply rep = REPLFS__HEARTBEAT_REPLY__INIT;
    struct past_standing standing;
    struct nodes_registry others = {0};
    struct beat_limits limits;
    struct fsm_addrs metads;
    uint8_t key[CAP_KEY_LEN];
    lock_acquire(&n->mu);
    struct node *d = nodes_find(n, h->chunkd);
    bool ours = d && d->conn == req->conn;
    bool fresh = ours && (!h->seq || h->seq > d->hb_seq);
    if (ours)
        heartbeat_facts(n, d, h);
    if (fresh)
        d->hb_seq = h->seq;
    lock_release(&n->mu);
    if (!ours ||
        (fresh && !apply_records(n, req->conn, h->chunkd, h->changes, h->n_changes, false))) {
        rpc_fail(req, -ERR_NOT_REGISTERED,
                 "chunkd %u is not registered on this connection: register first", h->chunkd);
        return;
    }
    rep.heartbeat_ms = (uint32_t)fsm_setting(n->cfg.fsm, SETTING_HEARTBEAT);
    rep.scrub_cycle_ms = fsm_setting(n->cfg.fsm, SETTING_SCRUB_CYCLE);
    rep.scrub_rate = fsm_setting(n->cfg.fsm, SETTING_SCRUB_RATE) << 20;
    rep.follows = !leads;
    fsm_metad_addrs(n->cfg.fsm, &metads);
    rep.metads = metads.list;
    rep.n_metads = metads.n;
    if (leads)
        fill_beat_reply(n, h, &rep, &standing, &others, &limits);
    if (leads && fresh && h->n_bad > 0)
        nodes_scrub_found(n, h);
    lock_acquire(&n->mu);
    rep.want_report = d->conn == req->conn && compare_digest(d, h);
    memcpy(key, n->cap_key.key, sizeof(key));
    rep.cap_key = (ProtobufCBinaryData){.len = sizeof(key), .data = key};
    rep.cap_key_id = n->cap_key.id;
    lock_release(&n->mu);
    RPC_ENVELOPE(env, HEARTBEAT_REPLY, heartbeat_reply, &rep);
    rpc_reply(req, &env, NULL);
    free(others.list);
}

/* ---- full reports ---- */

static bool report_begin(struct node *d, const Replfs__ReportReq *r)
{
    if (r->first) {
        if (d->rep)
            u64map_free(&d->rep->seen);
        else if (!(d->rep = calloc(1, sizeof(*d->rep))))
            abort();
        *d->rep = (struct report){.number = r->report};
        d->want_report = false;
    }
    return d->rep && d->rep->number == r->report && !d->rep->complete;
}

void reports_report(struct nodes *n, struct rpc_req *req)
{
    const Replfs__ReportReq *r = req->env->report_req;
    lock_acquire(&n->mu);
    struct node *d = nodes_find(n, r->chunkd);
    bool ours = d && d->conn == req->conn;
    bool right = ours && report_begin(d, r);
    lock_release(&n->mu);
    if (!ours || (right && !apply_records(n, req->conn, r->chunkd, r->chunks, r->n_chunks, true))) {
        rpc_fail(req, -ERR_NOT_REGISTERED,
                 "chunkd %u is not registered on this connection: register first", r->chunkd);
        return;
    }
    if (!right) {
        rpc_fail(req, -ERR_PROTOCOL, "chunkd %u: piece of report %llu without its first piece",
                 r->chunkd, (unsigned long long)r->report);
        return;
    }
    if (r->last) {
        lock_acquire(&n->mu);
        if (d->conn == req->conn && d->rep)
            d->rep->complete = true;
        lock_release(&n->mu);
        nodes_poke(n);
    }
    Replfs__ReportReply rep = REPLFS__REPORT_REPLY__INIT;
    RPC_ENVELOPE(env, REPORT_REPLY, report_reply, &rep);
    rpc_reply(req, &env, NULL);
}

struct sweeping {
    struct nodes *n;
    struct node *d;
};

static void sweep_chunk(void *arg, struct fsm_chunk *c)
{
    struct sweeping *s = arg;
    struct fsm_loc *l = reports_loc(c, s->d->id);
    if (!l)
        return;
    if (u64map_has(&s->d->rep->seen, c->id)) {
        l->reported = 1;
        return;
    }
    bool gone = l->reported;
    if (gone)
        fsm_chunk_loc_del(c, s->d->id);
    else if (l->state == COPY_OK)
        l->state = COPY_SHORT; /* a commit newer than the report, or never written: ask */
    orders_consider(s->n, c, gone ? 0 : NSEC_PER_SEC);
}

static void sweep_strays(struct node *d)
{
    for (uint32_t i = 0; i < d->nstrays;) {
        struct stray *s = &d->strays[i];
        s->reported = u64map_has(&d->rep->seen, s->chunk);
        if (s->reported)
            i++;
        else
            stray_del(d, s);
    }
}

static void sweep_finish(struct nodes *n, struct node *d)
{
    char label[256];
    uint64_t chunk;
    sweep_strays(d);
    d->digest = 0;
    d->count = d->rep->seen.n;
    for (size_t pos = 0; u64map_next(&d->rep->seen, &pos, &chunk, NULL);)
        d->digest ^= hash_u64(chunk);
    u64map_free(&d->rep->seen);
    free(d->rep);
    d->rep = NULL;
    d->reported = d->reported_once = true;
    d->mismatches = 0;
    log_info("%s reported %llu chunks, %u of them not in use", nodes_label(d, label),
             (unsigned long long)d->count, d->nstrays);
    nodes_start_walk(n);
}

static struct node *find_sweep(struct nodes *n)
{
    for (uint32_t i = 1; i < n->nnodes; i++)
        if (n->node[i] && n->node[i]->rep && n->node[i]->rep->complete)
            return n->node[i];
    return NULL;
}

bool reports_sweep(struct nodes *n)
{
    lock_acquire(&n->mu);
    bool any = find_sweep(n) != NULL;
    lock_release(&n->mu);
    if (!any)
        return false;
    fsm_wrlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    struct node *d = find_sweep(n); /* one slice of one chunkd at a time */
    if (d) {
        struct sweeping s = {.n = n, .d = d};
        if (!fsm_chunk_walk(n->cfg.fsm, &d->rep->sweep_pos, SWEEP_SLICE, sweep_chunk, &s))
            sweep_finish(n, d);
    }
    any = find_sweep(n) != NULL;
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
    return any;
}

/* ---- garbage ---- */

static void quarantine_set(struct node *d, struct stray *s, bool on)
{
    d->nquarantine += (uint32_t)on - (uint32_t)s->quarantine;
    s->quarantine = on;
}

/* Whether it may be of another metad's future. c: the chunk that we have of this number. */
static bool is_foreign(struct nodes *n, const struct stray *s, const struct fsm_chunk *c,
                       uint64_t chunk_upto)
{
    if (c)
        return true;
    return !s->freed &&
           (s->chunk >= chunk_upto || fsm_chunk_foreign(n->cfg.fsm, s->chunk, s->session));
}

static bool is_garbage(struct nodes *n, const struct stray *s)
{
    if (s->quarantine || nodes_past_behind(n) || compacting_holds(n, s->chunk))
        return false;
    return !fsm_session_kept(n->cfg.fsm, s->session) || grants_given_up(n, s->session, s->chunk);
}

/* A stray is a copy of the chunk c that was committed since. */
static void adopt(struct nodes *n, struct node *d, struct stray *s, struct fsm_chunk *c)
{
    const struct fsm_loc *l = reports_loc(c, d->id);
    uint32_t len = s->reported ? s->len : 0, disk = s->disk;
    enum copy_state state = len >= damage_len(n, c) ? COPY_OK : COPY_SHORT;
    reports_loc_set(n, c, d->id, disk, l ? (enum copy_state)l->state : state);
    note_ahead(d, c, len);
    orders_consider(n, c, NODES_WRITE_QUIET);
}

/* Whose turn it is to be looked at; NULL: there are none. All have their turn, however many come meanwhile. */
static struct stray *stray_turn(struct node *d)
{
    if (d->judge_pos >= d->nstrays)
        d->judge_pos = 0;
    return d->nstrays ? &d->strays[d->judge_pos] : NULL;
}

void reports_adopt(struct nodes *n, uint32_t max)
{
    lock_assert_held(&n->mu);
    for (uint32_t i = 1; i < n->nnodes; i++) {
        struct node *d = n->node[i];
        if (!d || !d->conn)
            continue;
        if (max >= d->nstrays)
            d->judge_pos = 0; /* then each is looked at once */
        for (uint32_t k = d->nstrays < max ? d->nstrays : max; k > 0; k--) {
            struct stray *s = stray_turn(d);
            struct fsm_chunk *c =
                s && s->state == STRAY_KEPT ? fsm_chunk_find(n->cfg.fsm, s->chunk) : NULL;
            if (c && c->session == s->session)
                adopt(n, d, s, c); /* its place is taken by another */
            else
                d->judge_pos++;
        }
    }
}

/* Returns false when the stray was taken out of the array. */
static bool judge(struct nodes *n, struct node *d, struct stray *s, uint64_t chunk_upto,
                  int64_t now)
{
    if (s->state == STRAY_DELETED && now - s->at > DELETED_FOR)
        s->state = STRAY_KEPT; /* the heartbeat never said so: look again */
    if (s->state != STRAY_KEPT)
        return true;
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, s->chunk);
    if (c && c->session == s->session) { /* committed since, by others than this chunkd or before it
                                            was reported */
        adopt(n, d, s, c);
        return false;
    }
    /* once it was, it stays so: ours of that number may be deleted meanwhile */
    quarantine_set(d, s, s->quarantine || is_foreign(n, s, c, chunk_upto));
    if (n->table[d->id].ro_disks >> (s->disk & 63) & 1)
        return true; /* nothing can be deleted there */
    if (is_garbage(n, s)) {
        s->state = STRAY_DELETING;
        s->at = now;
        orders_delete(n, d, s->chunk, s->session, NULL);
    }
    return true;
}

static void judge_node(struct nodes *n, struct node *d, uint64_t chunk_upto, int64_t now)
{
    if (!d->conn || !d->reported)
        return;
    if (d->nstrays <= JUDGE_SLICE)
        d->judge_pos = 0;
    for (uint32_t k = d->nstrays < JUDGE_SLICE ? d->nstrays : JUDGE_SLICE; k > 0; k--) {
        struct stray *s = stray_turn(d);
        if (s && judge(n, d, s, chunk_upto, now))
            d->judge_pos++;
    }
}

void reports_judge(struct nodes *n, int64_t now)
{
    uint64_t chunk_upto, ino_upto;
    fsm_wrlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    fsm_reserved(n->cfg.fsm, &chunk_upto, &ino_upto);
    for (uint32_t i = 1; i < n->nnodes; i++)
        if (n->node[i])
            judge_node(n, n->node[i], chunk_upto, now);
    damage_look(n);
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
}
