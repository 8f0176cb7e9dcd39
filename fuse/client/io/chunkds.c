/* The chunkds as this client knows them: address, host, load, and one connection to each.
 *
 * The table comes from metad and is fetched again when a reply shows another epoch, a chunkd is
 * unknown, or a connection cannot be made. Entries are never removed (ids are permanent), so
 * pointers stay valid; fields are protected by chunkds.mu. Connections are dialled on first use,
 * and again with growing pauses after they broke. A chunkd that failed a write is "bad" for some
 * seconds: no new chunk goes there; a cheap probe (a sync of nothing) may clear that earlier.
 * Probes also find out which of a chain is at fault. */
#include "client/io/chunkds.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash.h"
#include "base/lock.h"
#include "base/u64map.h"
#include "client/base/limits.h"
#include "client/file/chunk_loc.h"
#include "client/internal.h"
#include "client/session/ask.h"
#include "client/session/session.h"

#define LOG_MODULE "chunkds"
#define CHUNKD_BAD_MS 10000 /* a chunkd that failed is not written to for so long */
#define FAVOUR 8u           /* so much slower may the chunkd be that reads a chunk in sequence */
#define BACKOFF_MIN_MS 50u
#define BACKOFF_MAX_MS 2000u
#define PROBE_MS 1500u
#define PROBE_AFTER_MS 200 /* after a failure; then every second */

struct chunkd_peer {
    uint32_t id;
    char addr[128], host_id[64], host_name[64];
    unsigned state, load;
    struct rpc_conn *conn;
    char conn_addr[128];
    int64_t dial_after; /* backoff */
    unsigned backoff_ms;
    int64_t bad_until;    /* failed a write lately */
    bool bad_hard;        /* a probe does not clear it (no space) */
    bool probing, silent; /* silent: did not answer the last probe */
    int64_t probe_at;
    atomic_uint inflight;
    uint32_t latency_us; /* smoothed */
};

void chunkds_init(struct client *c)
{
    lock_init(&c->chunkds.mu, LOCK_CHUNKDS);
}

void chunkds_free(struct client *c)
{
    size_t pos = 0;
    for (struct chunkd_peer *n; (n = u64map_next_ptr(&c->chunkds.map, &pos));) {
        rpc_conn_unref(n->conn);
        free(n);
    }
    u64map_free(&c->chunkds.map);
    lock_destroy(&c->chunkds.mu);
}

static struct chunkd_peer *node_get(struct client *c, uint32_t id)
{
    return u64map_get_ptr(&c->chunkds.map, id);
}

static void node_update(struct client *c, const Replfs__NodeAddr *a)
{
    struct chunkd_peer *n = node_get(c, a->chunkd);
    if (!n) {
        n = calloc(1, sizeof(*n));
        if (!n)
            return;
        n->id = a->chunkd;
        u64map_put_ptr(&c->chunkds.map, n->id, n);
    }
    snprintf(n->addr, sizeof(n->addr), "%s", a->addr ? a->addr : "");
    snprintf(n->host_id, sizeof(n->host_id), "%s", a->host_id ? a->host_id : "");
    snprintf(n->host_name, sizeof(n->host_name), "%s", a->host_name ? a->host_name : "");
    n->state = a->state;
    n->load = a->load;
}

int chunkds_refresh(struct client *c)
{
    Replfs__NodesReq m = REPLFS__NODES_REQ__INIT;
    RPC_ENVELOPE(env, NODES_REQ, nodes_req, &m);
    struct rpc_result res;
    int rc = session_ask(c, &env, clock_mono() + 5 * NSEC_PER_SEC, &res);
    if (!rc && res.rep->body_case != REPLFS__ENVELOPE__BODY_NODES_REPLY)
        rc = -ERR_PROTOCOL;
    if (!rc) {
        const Replfs__NodesReply *r = res.rep->nodes_reply;
        lock_acquire(&c->chunkds.mu);
        for (size_t i = 0; i < r->n_nodes; i++)
            node_update(c, r->nodes[i]);
        c->chunkds.epoch = r->epoch;
        c->chunkds.stale = false;
        lock_release(&c->chunkds.mu);
    }
    rpc_result_free(&res);
    return rc;
}

void chunkds_saw_epoch(struct client *c, uint64_t epoch)
{
    lock_acquire(&c->chunkds.mu);
    if (epoch && epoch != c->chunkds.epoch)
        c->chunkds.stale = true;
    lock_release(&c->chunkds.mu);
}

bool chunkds_addr(struct client *c, uint32_t id, char out[128])
{
    lock_acquire(&c->chunkds.mu);
    struct chunkd_peer *n = node_get(c, id);
    bool ok = n && n->addr[0];
    if (ok)
        memcpy(out, n->addr, 128);
    lock_release(&c->chunkds.mu);
    return ok;
}

bool chunkds_known(struct client *c, uint32_t id)
{
    char addr[128];
    return chunkds_addr(c, id, addr);
}

/* ---- connections ---- */

struct rpc_conn *chunkds_conn(struct client *c, uint32_t id)
{
    struct rpc_conn *out = NULL, *drop = NULL;
    int64_t now = clock_mono();
    lock_acquire(&c->chunkds.mu);
    struct chunkd_peer *n = node_get(c, id);
    if (n && n->conn && (!rpc_conn_alive(n->conn) || strcmp(n->conn_addr, n->addr))) {
        if (!rpc_conn_alive(n->conn)) {
            log_info("connection to chunkd %u (%s) lost: %s", id, n->conn_addr,
                     rpc_conn_error(n->conn));
            n->backoff_ms = n->backoff_ms ? n->backoff_ms * 2 : BACKOFF_MIN_MS;
            if (n->backoff_ms > BACKOFF_MAX_MS)
                n->backoff_ms = BACKOFF_MAX_MS;
            n->dial_after = now + n->backoff_ms * NSEC_PER_MSEC;
            c->chunkds.stale = true;
        }
        drop = n->conn;
        n->conn = NULL;
    }
    if (n && !n->conn && n->addr[0] && now >= n->dial_after) {
        memcpy(n->conn_addr, n->addr, sizeof(n->addr));
        if (rpc_dial(c->loop, n->addr, RPC_ROLE_CHUNKD, NULL, &n->conn))
            n->conn = NULL;
    }
    if (n && n->conn)
        out = rpc_conn_ref(n->conn);
    lock_release(&c->chunkds.mu);
    rpc_conn_unref(drop);
    return out;
}

void chunkds_begin(struct client *c, uint32_t id)
{
    lock_acquire(&c->chunkds.mu);
    struct chunkd_peer *n = node_get(c, id);
    if (n)
        n->inflight++;
    lock_release(&c->chunkds.mu);
}

void chunkds_end(struct client *c, uint32_t id, int64_t started, bool ok)
{
    lock_acquire(&c->chunkds.mu);
    struct chunkd_peer *n = node_get(c, id);
    if (n) {
        if (n->inflight)
            n->inflight--;
        uint32_t us = (uint32_t)((clock_mono() - started) / 1000);
        n->latency_us = n->latency_us ? n->latency_us - n->latency_us / 8 + us / 8 : us;
        if (ok)
            n->backoff_ms = 0;
    }
    lock_release(&c->chunkds.mu);
}

/* ---- good and bad ---- */

void chunkds_fail(struct client *c, uint32_t id, bool hard)
{
    lock_acquire(&c->chunkds.mu);
    struct chunkd_peer *n = node_get(c, id);
    if (n) {
        n->bad_until = clock_mono() + CHUNKD_BAD_MS * NSEC_PER_MSEC;
        n->bad_hard = hard;
        n->probe_at = clock_mono() + PROBE_AFTER_MS * NSEC_PER_MSEC;
    }
    lock_release(&c->chunkds.mu);
}

struct probe {
    struct client *c;
    uint32_t id;
};

static void probe_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)payload;
    struct probe *p = arg;
    struct client *c = p->c;
    lock_acquire(&c->chunkds.mu);
    struct chunkd_peer *n = node_get(c, p->id);
    if (n) {
        n->probing = false;
        n->probe_at = clock_mono() + NSEC_PER_SEC;
        n->silent = code && !rep; /* any answer shows that it lives */
        if (n->silent) {
            n->bad_until = clock_mono() + CHUNKD_BAD_MS * NSEC_PER_MSEC;
        } else {
            n->bad_until = n->bad_hard ? n->bad_until : 0;
            n->backoff_ms = 0;
        }
    }
    lock_release(&c->chunkds.mu);
    free(p);
}

/* n->probing is set. */
static void chunkd_probe(struct client *c, uint32_t id)
{
    struct probe *p = malloc(sizeof(*p));
    if (!p)
        abort();
    *p = (struct probe){c, id};
    struct rpc_conn *conn = chunkds_conn(c, id);
    if (!conn) {
        probe_done(p, -ERR_PEER_GONE, NULL, NULL);
        return;
    }
    Replfs__SyncReq m = REPLFS__SYNC_REQ__INIT;
    m.session = session_id(c);
    RPC_ENVELOPE(env, SYNC_REQ, sync_req, &m);
    rpc_call(conn, &env, NULL, PROBE_MS, probe_done, p);
    rpc_conn_unref(conn);
}

void chunkds_probe(struct client *c, uint32_t id)
{
    lock_acquire(&c->chunkds.mu);
    struct chunkd_peer *n = node_get(c, id);
    bool go = n && !n->probing;
    if (go)
        n->probing = true;
    lock_release(&c->chunkds.mu);
    if (go)
        chunkd_probe(c, id);
}

bool chunkds_silent(struct client *c, uint32_t id)
{
    lock_acquire(&c->chunkds.mu);
    struct chunkd_peer *n = node_get(c, id);
    bool silent = n && n->silent;
    lock_release(&c->chunkds.mu);
    return silent;
}

void chunkds_tick(struct client *c)
{
    uint32_t ids[64];
    size_t count = 0, pos = 0;
    int64_t now = clock_mono();
    lock_acquire(&c->chunkds.mu);
    bool stale = c->chunkds.stale;
    for (struct chunkd_peer *n; count < 64 && (n = u64map_next_ptr(&c->chunkds.map, &pos));) {
        if (n->bad_until > now && !n->bad_hard && !n->probing && now >= n->probe_at)
            ids[count++] = n->id;
    }
    lock_release(&c->chunkds.mu);
    for (size_t i = 0; i < count; i++)
        chunkds_probe(c, ids[i]);
    if (stale)
        chunkds_refresh(c);
}

static bool node_bad(const struct chunkd_peer *n, int64_t now)
{
    return !n || n->bad_until > now;
}

bool chunkds_usable(struct client *c, const struct cloc *l)
{
    int64_t now = clock_mono();
    bool ok = true;
    lock_acquire(&c->chunkds.mu);
    for (uint32_t i = 0; i < l->n && ok; i++)
        ok = !node_bad(node_get(c, l->chunkds[i]), now);
    lock_release(&c->chunkds.mu);
    return ok;
}

size_t chunkds_bad(struct client *c, uint32_t *out, size_t max)
{
    size_t count = 0, pos = 0;
    int64_t now = clock_mono();
    lock_acquire(&c->chunkds.mu);
    for (struct chunkd_peer *n; count < max && (n = u64map_next_ptr(&c->chunkds.map, &pos));) {
        if (node_bad(n, now))
            out[count++] = n->id;
    }
    lock_release(&c->chunkds.mu);
    return count;
}

/* Lower is better. */
static uint64_t read_cost(struct client *c, uint32_t id, int64_t now)
{
    const struct chunkd_peer *n = node_get(c, id);
    if (!n || !n->addr[0])
        return UINT64_MAX;
    uint64_t cost = (uint64_t)(n->inflight + 1) * (n->latency_us + 200);
    if (strcmp(n->host_id, c->host_id))
        cost += 1ull << 40;
    if (node_bad(n, now) || (!n->conn && now < n->dial_after) ||
        n->state == REPLFS__NODE_STATE__NODE_DEAD)
        cost += 1ull << 60;
    else if (n->state == REPLFS__NODE_STATE__NODE_SUSPECT)
        cost += 1ull << 50;
    return cost;
}

void chunkds_order(struct client *c, uint64_t chunk, uint32_t *ids, size_t n)
{
    uint32_t favourite = 0;
    for (size_t i = 0; i < n; i++) /* highest random weight: the same one whatever their order */
        if (!favourite ||
            hash_u64(chunk ^ (uint64_t)ids[i] << 40) > hash_u64(chunk ^ (uint64_t)favourite << 40))
            favourite = ids[i];
    uint64_t cost[COPIES_MAX];
    int64_t now = clock_mono();
    lock_acquire(&c->chunkds.mu);
    for (size_t i = 0; i < n; i++) {
        uint32_t id = ids[i];
        uint64_t mine = read_cost(c, id, now) / (id == favourite ? FAVOUR : 1);
        size_t k = i;
        for (; k && cost[k - 1] > mine; k--) {
            cost[k] = cost[k - 1];
            ids[k] = ids[k - 1];
        }
        cost[k] = mine;
        ids[k] = id;
    }
    lock_release(&c->chunkds.mu);
}

void chunkds_name(struct client *c, uint32_t id, char *out, size_t cap)
{
    lock_acquire(&c->chunkds.mu);
    struct chunkd_peer *n = node_get(c, id);
    if (n)
        snprintf(out, cap, "chunkd %u (host %s, %s)", id, n->host_name, n->addr);
    else
        snprintf(out, cap, "chunkd %u (unknown)", id);
    lock_release(&c->chunkds.mu);
}

/* ---- hosts ---- */

bool chunkds_up(struct client *c, uint32_t id)
{
    lock_acquire(&c->chunkds.mu);
    const struct chunkd_peer *n = node_get(c, id);
    bool up = n && (n->state == REPLFS__NODE_STATE__NODE_UP ||
                    n->state == REPLFS__NODE_STATE__NODE_DRAINING);
    lock_release(&c->chunkds.mu);
    return up;
}

/* Another one than those before it in list? chunkds.mu held. */
static bool new_host(const struct chunkd_peer *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i]->host_id, list[n]->host_id))
            return false;
    return true;
}

/* Distinct hosts of all chunkds known, or of those that could be written to. chunkds.mu held. */
static unsigned hosts_of_all(struct client *c, bool usable, unsigned *chunkds)
{
    size_t pos = 0, n = 0;
    unsigned hosts = 0;
    int64_t now = clock_mono();
    const struct chunkd_peer **list = calloc(c->chunkds.map.n + 1, sizeof(*list));
    if (!list)
        abort();
    for (const struct chunkd_peer *k; (k = u64map_next_ptr(&c->chunkds.map, &pos));) {
        if (usable && (k->state != REPLFS__NODE_STATE__NODE_UP || node_bad(k, now)))
            continue;
        list[n] = k;
        hosts += new_host(list, n++);
    }
    free(list);
    *chunkds = (unsigned)n;
    return hosts;
}

bool chunkds_enough(struct client *c, const uint32_t *ids, size_t n, unsigned least)
{
    const struct chunkd_peer *list[COPIES_MAX];
    size_t known = 0;
    unsigned hosts = 0, all;
    lock_acquire(&c->chunkds.mu);
    for (size_t i = 0; i < n && known < COPIES_MAX; i++) {
        list[known] = node_get(c, ids[i]);
        if (list[known])
            hosts += new_host(list, known++);
    }
    bool ok = known >= least && (hosts >= least || hosts >= hosts_of_all(c, false, &all));
    lock_release(&c->chunkds.mu);
    return ok;
}

bool chunkds_ready(struct client *c, unsigned least)
{
    unsigned n, all;
    lock_acquire(&c->chunkds.mu);
    unsigned hosts = hosts_of_all(c, true, &n);
    bool ok = n >= least && (hosts >= least || hosts >= hosts_of_all(c, false, &all));
    lock_release(&c->chunkds.mu);
    return ok;
}

bool chunkds_better(struct client *c, const struct cloc *l, uint64_t epoch, unsigned goal)
{
    lock_acquire(&c->chunkds.mu);
    bool changed = c->chunkds.epoch != epoch;
    lock_release(&c->chunkds.mu);
    if (!changed) /* nearly always */
        return false;
    unsigned least = session_min_copies(c, goal);
    return !chunkds_enough(c, l->chunkds, l->n, least) && chunkds_ready(c, least);
}

void chunkds_down(struct client *c, char *out, size_t cap)
{
    size_t pos = 0, at = 0;
    lock_acquire(&c->chunkds.mu);
    out[0] = '\0';
    for (const struct chunkd_peer *n; at < cap && (n = u64map_next_ptr(&c->chunkds.map, &pos));)
        if (n->state != REPLFS__NODE_STATE__NODE_UP &&
            n->state != REPLFS__NODE_STATE__NODE_DRAINING)
            at += (size_t)snprintf(out + at, cap - at, "%schunkd %u (host %s, %s)", at ? ", " : "",
                                   n->id, n->host_name, n->addr);
    lock_release(&c->chunkds.mu);
}
