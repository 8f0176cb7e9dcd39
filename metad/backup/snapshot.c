/* All names for replfsctl backup-meta (SnapshotReq): a checkpoint in pieces, then the entries behind it.
 *
 * A request that begins one (token 0) gets the newest state file when everything behind it is still in memory, or has
 * a checkpoint made and is asked to come again. The state file stays open and the ring keeps what is behind it, both
 * bounded: there are a few tokens, one that nobody uses for a minute ends, and a ring that overflows ends the backup.
 *
 * Threads: requests come on rpc threads and are only queued; the thread `names` reads the disk and answers. */
#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "copies_internal.h"

#define LOG_MODULE "names"
#define PIECE (256u << 10)
#define ENTRIES_MAX 4096u
#define LIFE (60 * NSEC_PER_SEC)
#define QUEUE_MAX 64u

void copies_snapshot(struct copies *c, struct rpc_req *req)
{
    struct snapshot_req *q = malloc(sizeof(*q));
    unsigned n = 0;

    if (!q)
        abort();
    *q = (struct snapshot_req){.req = req};
    lock_acquire(&c->mu);
    struct snapshot_req **end = &c->requests;
    while (*end) {
        end = &(*end)->next;
        n++;
    }
    bool taken = n < QUEUE_MAX && c->serving;
    if (taken)
        *end = q;
    c->poked = true;
    cond_broadcast(&c->wake);
    lock_release(&c->mu);
    if (taken)
        return;
    free(q);
    rpc_fail(req, n < QUEUE_MAX ? -ERR_SHUTDOWN : -ERR_BUSY, "no backup can be made now");
}

/* ---- tokens ---- */

static void snapshot_end(struct snapshot *s)
{
    state_file_unref(s->src);
    *s = (struct snapshot){0};
}

static struct snapshot *snapshot_find(struct copies *c, uint64_t token)
{
    for (size_t i = 0; i < SNAPSHOTS_MAX; i++)
        if (token != 0 && c->snapshot[i].token == token)
            return &c->snapshot[i];
    return NULL;
}

static struct snapshot *snapshot_new(struct copies *c, int64_t now)
{
    for (size_t i = 0; i < SNAPSHOTS_MAX; i++) {
        struct snapshot *s = &c->snapshot[i];
        if (s->token != 0)
            continue;
        if (RAND_bytes((unsigned char *)&s->token, sizeof(s->token)) != 1)
            abort();
        s->token |= 1; /* never 0 */
        s->used_at = now;
        return s;
    }
    return NULL;
}

/* ---- answers ---- */

struct collecting {
    Replfs__SnapshotReply *rep;
    Replfs__SnapshotEntry *v;
    uint8_t *bytes; /* copies, since the ring's go */
    size_t used;
};

static bool collect_entry(void *arg, const struct names_ring_entry *e)
{
    struct collecting *g = arg;
    size_t n = g->rep->n_entries;

    if (n == ENTRIES_MAX || (n > 0 && g->used + e->len > PIECE))
        return false;
    uint8_t *at = realloc(g->bytes, g->used + e->len);
    if (!at)
        abort();
    g->bytes = at;
    memcpy(at + g->used, e->data, e->len);
    replfs__snapshot_entry__init(&g->v[n]);
    g->v[n].index = e->index;
    g->v[n].before = e->before;
    g->v[n].time_ns = e->time_ns;
    g->v[n].entry.len = e->len;
    g->used += e->len;
    g->rep->entries[g->rep->n_entries++] = &g->v[n];
    return true;
}

static void answer_entries(struct copies *c, struct snapshot *s, struct rpc_req *req,
                           Replfs__SnapshotReply *rep)
{
    uint64_t after = req->env->snapshot_req->after;
    struct collecting g = {.rep = rep, .v = malloc(ENTRIES_MAX * sizeof(*g.v))};

    rep->entries = malloc(ENTRIES_MAX * sizeof(*rep->entries));
    if (!g.v || !rep->entries)
        abort();
    rep->last = names_ring_last(c->ring);
    if (after < s->after || !names_ring_covers(c->ring, after)) {
        rpc_fail(req, -ESTALE, "changes came faster than the backup was fetched: begin again");
    } else {
        names_ring_each(c->ring, after, collect_entry, &g);
        size_t at = 0;
        for (size_t i = 0; i < rep->n_entries; i++) {
            g.v[i].entry.data = g.bytes + at;
            at += g.v[i].entry.len;
        }
        s->after = after;
        RPC_ENVELOPE(env, SNAPSHOT_REPLY, snapshot_reply, rep);
        rpc_reply(req, &env, NULL);
    }
    free(g.bytes);
    free(g.v);
    free(rep->entries);
}

static void answer_piece(struct snapshot *s, struct rpc_req *req, Replfs__SnapshotReply *rep)
{
    uint64_t offset = req->env->snapshot_req->offset;
    uint64_t left = offset < s->src->size ? s->src->size - offset : 0;
    size_t len = left < PIECE ? (size_t)left : PIECE;
    uint8_t *p = malloc(len + 1);

    if (!p)
        abort();
    int rc = state_file_read(s->src, offset, p, len);
    rep->data.data = p;
    rep->data.len = len;
    RPC_ENVELOPE(env, SNAPSHOT_REPLY, snapshot_reply, rep);
    if (rc == 0)
        rpc_reply(req, &env, NULL);
    else
        rpc_fail(req, rc, "the checkpoint cannot be read: %s", err_str(rc));
    free(p);
}

static void snapshot_answer(struct copies *c, struct rpc_req *req, int64_t now)
{
    const Replfs__SnapshotReq *in = req->env->snapshot_req;
    struct snapshot *s = in->token ? snapshot_find(c, in->token) : snapshot_new(c, now);
    Replfs__SnapshotReply rep = REPLFS__SNAPSHOT_REPLY__INIT;
    struct mlog_status ms;
    bool done = in->done; /* the request is gone once it was answered */

    if (!s) {
        rpc_fail(req, in->token ? -ENOENT : -ERR_BUSY,
                 in->token ? "this backup was given up: begin again"
                           : "other backups are being made");
        return;
    }
    s->used_at = now;
    if (!s->src && c->src && names_ring_covers(c->ring, c->src->index)) {
        s->src = state_file_ref(c->src);
        s->after = s->src->index;
    }
    mlog_status(c->mlog, &ms);
    rep.token = s->token;
    rep.ready = s->src != NULL;
    rep.cluster = (char *)mlog_uuid(c->mlog);
    rep.term = ms.term;
    if (s->src) {
        rep.generation = s->src->index;
        rep.size = s->src->size;
        rep.crc = s->src->crc;
    }
    if (s->src && in->token && in->after) {
        answer_entries(c, s, req, &rep);
    } else if (s->src && in->token && !in->done) {
        answer_piece(s, req, &rep);
    } else {
        RPC_ENVELOPE(env, SNAPSHOT_REPLY, snapshot_reply, &rep);
        rpc_reply(req, &env, NULL);
    }
    if (done)
        snapshot_end(s);
}

static struct snapshot_req *take_requests(struct copies *c)
{
    LOCK_SCOPE(&c->mu);
    struct snapshot_req *q = c->requests;
    c->requests = NULL;
    return q;
}

void snapshot_step(struct copies *c, int64_t now)
{
    for (struct snapshot_req *q = take_requests(c), *next; q; q = next) {
        next = q->next;
        snapshot_answer(c, q->req, now);
        free(q);
    }
    for (size_t i = 0; i < SNAPSHOTS_MAX; i++)
        if (c->snapshot[i].token != 0 && now - c->snapshot[i].used_at > LIFE)
            snapshot_end(&c->snapshot[i]);
}

bool snapshot_needs(const struct copies *c, uint64_t *above)
{
    bool pending = false;

    for (size_t i = 0; i < SNAPSHOTS_MAX; i++) {
        const struct snapshot *s = &c->snapshot[i];
        pending |= s->token != 0 && !s->src;
        if (s->src && s->after < *above)
            *above = s->after;
    }
    return pending;
}

void snapshot_stop(struct copies *c)
{
    for (struct snapshot_req *q = take_requests(c), *next; q; q = next) {
        next = q->next;
        rpc_fail(q->req, -ERR_SHUTDOWN, "this metad does not lead any more");
        free(q);
    }
    for (size_t i = 0; i < SNAPSHOTS_MAX; i++)
        snapshot_end(&c->snapshot[i]);
}
