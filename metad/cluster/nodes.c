/* The registry of chunkds: who is a member, connected, alive, and how full; and the door to the
 * module.
 *
 * A chunkd's state follows from two facts, the age of its last heartbeat and whether it is
 * connected:
 *
 *   up       connected, heard of within suspect_ms, and its full report has come in
 *   suspect  silent longer, or its connection broke, or not reported yet: read from, nothing new,
 *            no repair
 *   dead     silent longer than dead_ms, and not paused (nodes_decided.c): its copies don't count until it has registered and
 *            reported again
 *
 * A chunkd that was dead stays so until its report is complete, since nobody knows what became of
 * its disk. After leader start members never seen are suspect, and dead after dead_ms. Ids are
 * given through the log (ChunkdAddOp), so that an id is never given twice; all the rest here is
 * soft and rebuilt by registrations.
 *
 * Failure modes: a second daemon with a live one's id is refused; a daemon of another cluster is
 * refused; a chunkd whose connection hangs is replaced by its new connection once it has been
 * silent for suspect_ms. Thread context: rpc loop threads and the driver thread (driver.c); locks
 * as in nodes_internal.h. */
#include "nodes.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"
#define CHUNKD_ID_MAX ((1u << 20) - 1)
#define GRANT_HEADROOM (64ull << 20)

_Static_assert((int)COPY_OK == REPAIR_OK && (int)COPY_SHORT == REPAIR_SHORT &&
                   (int)COPY_BAD == REPAIR_BAD && (int)COPY_CHECKING == REPAIR_CHECKING &&
                   (int)COPY_DOOMED == REPAIR_DOOMED,
               "the planner's copy states are the registry's");

/* ---- lookup ---- */

struct node *nodes_by_conn(struct nodes *n, const struct rpc_conn *c)
{
    lock_assert_held(&n->mu);
    for (uint32_t i = 1; i < n->nnodes; i++)
        if (n->node[i] && n->node[i]->conn == c)
            return n->node[i];
    return NULL;
}

const char *nodes_label(const struct node *d, char buf[static 256])
{
    snprintf(buf, 256, "chunkd %u (%s%s%s)", d->id, d->host_name[0] ? d->host_name : d->host_id,
             d->addr[0] ? ", " : "", d->addr);
    return buf;
}

static uint32_t intern_host(struct nodes *n, const char *host_id)
{
    for (uint32_t i = 0; i < n->nhosts; i++)
        if (!strcmp(n->hosts[i], host_id))
            return i + 1;
    n->hosts = realloc(n->hosts, (n->nhosts + 1) * sizeof(*n->hosts));
    if (!n->hosts || !(n->hosts[n->nhosts] = strdup(host_id)))
        abort();
    return ++n->nhosts;
}

static void grow_slots(struct nodes *n, uint32_t chunkd)
{
    uint32_t want = chunkd + 1;
    if (want <= n->nnodes)
        return;
    n->node = realloc(n->node, want * sizeof(*n->node));
    n->table = realloc(n->table, want * sizeof(*n->table));
    if (!n->node || !n->table)
        abort();
    for (uint32_t i = n->nnodes; i < want; i++) {
        n->node[i] = NULL;
        memset(&n->table[i], 0, sizeof(n->table[i]));
    }
    n->nnodes = want;
    n->ctx.t = (struct placement_table){n->table, n->nnodes};
}

void nodes_set_host(struct nodes *n, struct node *d, const char *host_id, const char *host_name)
{
    lock_assert_held(&n->mu);
    snprintf(d->host_id, sizeof(d->host_id), "%s", host_id);
    snprintf(d->host_name, sizeof(d->host_name), "%s", host_name);
    d->host = intern_host(n, d->host_id);
}

struct node *nodes_add(struct nodes *n, uint32_t chunkd, const char *host_id, const char *host_name)
{
    lock_assert_held(&n->mu);
    if (!chunkd || chunkd > CHUNKD_ID_MAX)
        return NULL;
    struct node *d = nodes_find(n, chunkd);
    if (d)
        return d;
    grow_slots(n, chunkd);
    d = calloc(1, sizeof(*d));
    if (!d)
        abort();
    u64map_init(&d->stray_index, U64MAP_U32);
    u64map_init(&d->ahead, U64MAP_U32);
    d->id = chunkd;
    d->last_seen = clock_mono();
    d->state = REPLFS__NODE_STATE__NODE_SUSPECT;
    nodes_set_host(n, d, host_id ? host_id : "", host_name ? host_name : "");
    n->node[chunkd] = d;
    if (n->next_id <= chunkd)
        n->next_id = chunkd + 1;
    nodes_refresh(n, d);
    return d;
}

void nodes_load_members(struct nodes *n)
{
    lock_assert_held(&n->mu);
    struct fsm_member m = {0};
    for (uint32_t after = 0; fsm_member_next(n->cfg.fsm, after, &m); after = m.chunkd) {
        if (m.host_id[0])
            nodes_add(n, m.chunkd, m.host_id, m.host_name);
        else if (n->next_id <= m.chunkd)
            n->next_id = m.chunkd + 1; /* removed; its id is not given again */
        struct node *d = nodes_find(n, m.chunkd);
        if (d && !m.host_id[0] && !d->removed) {
            d->removed = true; /* by another leader */
            d->state = REPLFS__NODE_STATE__NODE_DEAD;
            nodes_refresh(n, d);
        }
    }
}

/* ---- the planners' view ---- */

void nodes_make_ctx(struct nodes *n)
{
    lock_assert_held(&n->mu);
    n->ctx.hosts_up = n->hosts_up = placement_hosts_up(&n->ctx.t);
    n->ctx.seed = hash_u64(n->seed++);
    n->ctx.min_copies = n->cfg.min_copies;
    n->ctx.incomplete = n->ctx.unreported = n->ctx.dozing = false;
    for (uint32_t i = 1; i < n->nnodes; i++) {
        const struct node *d = n->node[i];
        if (!d || d->reported_once || nodes_gone(d))
            continue;
        bool dead = d->state == REPLFS__NODE_STATE__NODE_DEAD, dozes = nodes_paused(d) && !d->conn;
        n->ctx.unreported = true;
        n->ctx.dozing |= !dead && dozes;
        n->ctx.incomplete |= !dead && !dozes;
    }
}

bool nodes_all_reported(struct nodes *n)
{
    lock_acquire(&n->mu);
    bool all = !n->settling;
    for (uint32_t i = 1; i < n->nnodes; i++)
        all &= !n->node[i] || n->node[i]->reported_once || n->node[i]->replaced_by;
    lock_release(&n->mu);
    return all;
}

/* ---- states ---- */

/* They change while metad runs. Lock held, or nobody else knows n yet. */
static void take_settings(struct nodes *n)
{
    struct nodes_config *c = &n->cfg;

    c->heartbeat_ms = (unsigned)fsm_setting(c->fsm, SETTING_HEARTBEAT);
    c->suspect_ms = (unsigned)fsm_setting(c->fsm, SETTING_SUSPECT);
    c->dead_ms = (unsigned)fsm_setting(c->fsm, SETTING_DEAD);
    c->min_copies = (unsigned)fsm_setting(c->fsm, SETTING_MIN_COPIES);
    if (c->min_copies == 0)
        c->min_copies = 2; /* or the goal, if that is less */
}

Replfs__NodeState nodes_state_at(const struct nodes_config *cfg, bool connected, bool reported,
                                 Replfs__NodeState former, int64_t silent_ms)
{
    if (silent_ms > (int64_t)cfg->dead_ms)
        return REPLFS__NODE_STATE__NODE_DEAD;
    if (!reported && former == REPLFS__NODE_STATE__NODE_DEAD)
        return former;
    if (!connected || !reported || silent_ms > (int64_t)cfg->suspect_ms)
        return REPLFS__NODE_STATE__NODE_SUSPECT;
    return REPLFS__NODE_STATE__NODE_UP;
}

static const char *state_text(Replfs__NodeState s)
{
    switch (s) {
    case REPLFS__NODE_STATE__NODE_UP:
        return "up";
    case REPLFS__NODE_STATE__NODE_SUSPECT:
        return "suspect";
    case REPLFS__NODE_STATE__NODE_DEAD:
        return "dead";
    case REPLFS__NODE_STATE__NODE_DRAINING:
    case REPLFS__NODE_STATE__NODE_UNKNOWN:
        break;
    }
    return "unknown";
}

void nodes_drop_conn(struct nodes *n, struct node *d, struct rpc_conn **put)
{
    lock_assert_held(&n->mu);
    *put = d->conn;
    d->conn = NULL;
    d->reported = false;
    d->deleting = false;
    orders_node_gone(n, d);
    reports_forget(d);
}

static void change_state(struct nodes *n, struct node *d, Replfs__NodeState to, int64_t silent_ms)
{
    char label[256];
    if (to == REPLFS__NODE_STATE__NODE_UP)
        log_info("%s is up", nodes_label(d, label));
    else
        log_warn("%s is %s: %s for %lld ms", nodes_label(d, label), state_text(to),
                 d->conn ? "no heartbeat" : "not connected, silent", (long long)silent_ms);
    d->state = to;
    n->epoch++;
    nodes_start_walk(n);
}

/* A report from before the gain lacks what was appended since. The second heartbeat was made after the first came in,
 * so that it tells of all that was committed by the gain. */
static bool is_up_to_date(const struct node *d)
{
    return d->beats_led >= 2 || (!d->conn && d->state == REPLFS__NODE_STATE__NODE_DEAD);
}

static bool nodes_settled(const struct nodes *n, int64_t now)
{
    if (now - n->started > 2 * (int64_t)n->cfg.suspect_ms * NSEC_PER_MSEC)
        return true;
    bool any = false;
    for (uint32_t i = 1; i < n->nnodes; i++)
        if (n->node[i]) {
            const struct node *d = n->node[i];
            any = true;
            if (!(d->reported_once && is_up_to_date(d)) && !nodes_gone(d))
                return false;
        }
    return any;
}

/* Lock held. A chunkd silent until dead loses its connection, so that it must register anew. */
static void step_node(struct nodes *n, struct node *d, int64_t now, struct rpc_conn **close)
{
    int64_t silent = (now - d->last_seen) / NSEC_PER_MSEC;
    Replfs__NodeState s = nodes_state_at(&n->cfg, d->conn != NULL, d->reported, d->state, silent);
    if (s == REPLFS__NODE_STATE__NODE_DEAD && nodes_paused(d) && d->state != s)
        s = REPLFS__NODE_STATE__NODE_SUSPECT; /* it is expected back */
    if (nodes_gone(d))
        s = REPLFS__NODE_STATE__NODE_DEAD; /* nobody waits for it */
    if (s != d->state)
        change_state(n, d, s, silent);
    if (d->conn && silent > (int64_t)n->cfg.dead_ms)
        nodes_drop_conn(n, d, close);
    nodes_refresh(n, d);
}

void nodes_tick_states(struct nodes *n, int64_t now)
{
    struct rpc_conn *close[64];
    size_t nclose = 0;
    lock_acquire(&n->mu);
    take_settings(n);
    for (uint32_t i = 1; i < n->nnodes && nclose < 64; i++) {
        struct rpc_conn *c = NULL;
        if (n->node[i])
            step_node(n, n->node[i], now, &c);
        if (c)
            close[nclose++] = c;
    }
    if (n->settling && n->lead.leading && nodes_settled(n, now)) {
        n->settling = false;
        log_info("settled %lld ms after leading began: repair and clean-up may begin",
                 (long long)((now - n->started) / NSEC_PER_MSEC));
        nodes_start_walk(n);
    }
    nodes_make_ctx(n);
    lock_release(&n->mu);
    for (size_t i = 0; i < nclose; i++) {
        rpc_conn_close(close[i]);
        rpc_conn_unref(close[i]);
    }
}

void nodes_conn_closed(struct nodes *n, struct rpc_conn *c)
{
    struct rpc_conn *put = NULL;
    lock_acquire(&n->mu);
    struct node *d = nodes_by_conn(n, c);
    if (d)
        nodes_drop_conn(n, d, &put);
    lock_release(&n->mu);
    rpc_conn_unref(put);
    if (d)
        nodes_poke(n);
}

/* ---- placement and what clients learn ---- */

unsigned nodes_place(struct nodes *n, unsigned goal, const uint32_t *exclude, size_t nexclude,
                     uint32_t *out)
{
    LOCK_SCOPE(&n->mu);
    struct placement_table t = {n->table, n->nnodes};
    struct placement_req r = {.want = goal < PLACEMENT_PICK_MAX ? goal : PLACEMENT_PICK_MAX,
                              .headroom = GRANT_HEADROOM * goal,
                              .exclude = exclude,
                              .nexclude = nexclude,
                              .seed = hash_u64(n->seed++)};
    unsigned got = placement_pick(&t, &r, out);
    for (unsigned i = 0; i < got; i++) {
        n->node[out[i]]->granted++;
        n->table[out[i]].load++;
    }
    return got;
}

/* Before its first heartbeat a chunkd's disks are still being opened, and what it says of them is
 * nothing; one that a client wants left out may have room all the same. */
bool nodes_full(struct nodes *n, unsigned need)
{
    LOCK_SCOPE(&n->mu);
    unsigned full = 0, hopeful = 0;
    for (uint32_t i = 1; i < n->nnodes; i++) {
        if (!n->node[i] || !placement_takes_new(&n->table[i]))
            continue;
        bool lacks = n->node[i]->beats && n->table[i].room < PLACEMENT_TIGHT;
        *(lacks ? &full : &hopeful) += 1;
    }
    return full + hopeful >= need && hopeful < need;
}

uint64_t nodes_epoch(struct nodes *n)
{
    LOCK_SCOPE(&n->mu);
    return n->epoch;
}

bool nodes_no_room(struct nodes *n, uint64_t bytes)
{
    uint64_t total, avail;
    nodes_space(n, 0, &total, &avail);
    LOCK_SCOPE(&n->mu);
    return !n->settling && total && bytes > avail;
}

void nodes_cap(struct nodes *n, uint64_t chunk, uint64_t session, uint64_t writer, uint32_t rights,
               uint8_t out[CAP_LEN])
{
    cap_make(&n->cap_key, chunk, session, writer, rights, nodes_cap_now(n) + CAP_LIFE_S, out);
}

size_t nodes_missing(struct nodes *n, char ***out)
{
    LOCK_SCOPE(&n->mu);
    size_t got = 0;
    char **v = calloc(n->nnodes + 1, sizeof(*v));
    if (!v)
        abort();
    int64_t now = clock_mono();
    for (uint32_t i = 1; i < n->nnodes; i++) {
        const struct node *d = n->node[i];
        char label[256];
        if (!d || d->state == REPLFS__NODE_STATE__NODE_UP || nodes_gone(d))
            continue;
        if (asprintf(&v[got], "%s: %s, silent for %lld s", nodes_label(d, label),
                     nodes_paused(d) ? "paused" : state_text(d->state),
                     (long long)((now - d->last_seen) / NSEC_PER_SEC)) < 0)
            abort();
        got++;
    }
    *out = v;
    return got;
}

/* ---- what commits and readers say ---- */

/* What a commit says of one copy, against what is known. sure: as far as the commit itself goes. */
static void told_copy(struct nodes *n, struct fsm_chunk *c, uint32_t chunkd, uint64_t registration,
                      bool sure, bool grew)
{
    bool granted;
    const struct node *d = nodes_find(n, chunkd);
    const struct fsm_loc *l = reports_loc(c, chunkd);
    if (!d || !grants_may_be_on(n, c->session, c->id, chunkd, &granted))
        return;
    /* one that is damaged, doubted by a reader or being deleted does not count again for being longer */
    if (l && l->state != COPY_OK && l->state != COPY_SHORT)
        return;
    /* What was stored under an earlier registration may be gone: the chunkd tells, or is asked. */
    sure = sure && granted && d->conn && registration && registration == d->registration;
    if (sure || grew || !l)
        reports_loc_set(n, c, chunkd, l ? l->disk : NODE_DISK_UNKNOWN, sure ? COPY_OK : COPY_SHORT);
}

void nodes_copies(struct nodes *n, uint64_t session, const Replfs__ChunkCopies *copies)
{
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, copies->chunk);
    if (!c || c->session != session)
        return;
    LOCK_SCOPE(&n->mu);
    size_t told = copies->n_chunkds < FSM_GOAL_MAX ? copies->n_chunkds : FSM_GOAL_MAX;
    bool grew = c->soft_flags & SOFT_GREW;
    bool all = copies->len >= c->len; /* else it is the answer to an older commit, given again */
    c->soft_flags &= (uint8_t)~SOFT_GREW;
    for (size_t i = 0; i < told; i++)
        told_copy(n, c, copies->chunkds[i],
                  i < copies->n_registrations ? copies->registrations[i] : 0, all, grew);
    struct fsm_loc *l = fsm_chunk_locs(c);
    for (unsigned i = 0; grew && i < c->nloc; i++) {
        bool named = false;
        for (size_t k = 0; k < told; k++)
            named |= l[i].chunkd == copies->chunkds[k];
        if (!named && l[i].state == COPY_OK)
            l[i].state = COPY_SHORT;
    }
    orders_consider(n, c, NODES_WRITE_QUIET);
}

bool nodes_damaged(struct nodes *n, struct fsm_chunk *c)
{
    if (!atomic_load(&n->any_damage))
        return false;
    LOCK_SCOPE(&n->mu);
    return damage_lost(n, c);
}

int nodes_report_bad(struct nodes *n, uint64_t session, uint64_t chunk, uint32_t chunkd, int code)
{
    int rc = 0;
    fsm_wrlock(n->cfg.fsm);
    lock_acquire(&n->mu);
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, chunk);
    struct node *d = nodes_find(n, chunkd);
    struct fsm_loc *l = c && d ? reports_loc(c, chunkd) : NULL;
    char label[256];
    bool doubted = l && (l->state == COPY_OK || l->state == COPY_SHORT) && !damage_known(n, chunk);
    if (doubted && !doubts_take(&n->doubts, session, clock_mono())) {
        rc = -ERR_BUSY;
    } else if (doubted) {
        log_warn("a client could not read chunk %016llx from %s (%s): having it checked",
                 (unsigned long long)chunk, nodes_label(d, label), err_str(code));
        l->state = COPY_CHECKING;
        orders_consider(n, c, 0);
    }
    lock_release(&n->mu);
    fsm_unlock(n->cfg.fsm);
    nodes_poke(n);
    return rc;
}

/* ---- fsm hooks: fsm write lock held, on the log thread ---- */

static void on_freed(void *arg, const struct fsm_chunk *c)
{
    struct nodes *n = arg;
    LOCK_SCOPE(&n->mu);
    repair_queue_remove(n->queue, c->id);
    damage_forget(n, c->id);
    reports_freed(n, c);
}

/* The commit's proposer tells of its copies (nodes_copies), while the leadership lasts in which it proposed. */
static void on_changed(void *arg, struct fsm_chunk *c, bool grew)
{
    struct nodes *n = arg;
    LOCK_SCOPE(&n->mu);
    if (n->lead.leading && mlog_leading(n->cfg.mlog) == n->lead.leading)
        c->soft_flags |= SOFT_GREW;
    else if (grew)
        reports_grew(n, c);
    damage_grew(n, c);
    orders_consider(n, c, 0);
}

static void on_sparse(void *arg, struct fsm_chunk *c)
{
    struct nodes *n = arg;
    LOCK_SCOPE(&n->mu);
    compacting_consider(n, c);
}

static void on_session_closed(void *arg, uint64_t session)
{
    struct nodes *n = arg;
    lock_acquire(&n->mu);
    clocks_forget(n, session);
    grants_session_gone(n, session);
    lock_release(&n->mu);
    if (n->lead.session_closed)
        n->lead.session_closed(n->lead.hook_arg, session);
}

static void on_session_lapsed(void *arg, uint64_t session)
{
    struct nodes *n = arg;
    lock_acquire(&n->mu);
    clocks_forget(n, session);
    grants_session_lapsed(n, session);
    lock_release(&n->mu);
    if (n->lead.session_closed)
        n->lead.session_closed(n->lead.hook_arg, session);
}

static void on_orphaned(void *arg, uint64_t ino, uint64_t opener)
{
    struct nodes *n = arg;
    if (n->lead.orphaned)
        n->lead.orphaned(n->lead.hook_arg, ino, opener);
}

static void on_adopted(void *arg, uint64_t ino)
{
    struct nodes *n = arg;
    if (n->lead.adopted)
        n->lead.adopted(n->lead.hook_arg, ino);
}

/* ---- life ---- */

static void nodes_offer_settings(const struct nodes_config *c)
{
    fsm_setting_offer(c->fsm, SETTING_HEARTBEAT, c->heartbeat_ms);
    fsm_setting_offer(c->fsm, SETTING_SUSPECT, c->suspect_ms);
    fsm_setting_offer(c->fsm, SETTING_DEAD, c->dead_ms);
    fsm_setting_offer(c->fsm, SETTING_MIN_COPIES, c->min_copies);
}

int nodes_new(const struct nodes_config *cfg, struct nodes **out)
{
    struct nodes *n = calloc(1, sizeof(*n));
    if (!n)
        return -ENOMEM;
    u64map_init(&n->grant_index, U64MAP_U32);
    u64map_init(&n->damage_index, U64MAP_U32);
    n->cfg = *cfg;
    nodes_offer_settings(cfg);
    take_settings(n);
    if (n->cfg.repairs_per_disk == 0)
        n->cfg.repairs_per_disk = 4;
    snprintf(n->dir, sizeof(n->dir), "%s", cfg->dir ? cfg->dir : "");
    snprintf(n->addr, sizeof(n->addr), "%s", cfg->addr ? cfg->addr : "");
    n->started = n->process = clock_mono();
    clocks_init(n);
    n->seed = (uint64_t)clock_wall();
    n->settling = true;
    n->epoch = (uint64_t)clock_wall(); /* differs from any a client saw before a restart */
    n->registry_version = n->epoch;
    n->next_id = 1;
    n->queue = repair_queue_new();
    n->compacting = compacting_new();
    lock_init(&n->mu, LOCK_REGISTRY);
    lock_init(&n->done_lock, LOCK_DRIVER);
    fsm_wrlock(cfg->fsm);
    lock_acquire(&n->mu); /* nobody else knows it yet; what is called asks for it */
    grow_slots(n, 0);
    nodes_load_members(n);
    nodes_replaced_load(n);
    nodes_decided_take(n);
    nodes_disks_load(n);
    nodes_make_ctx(n);
    lock_release(&n->mu);
    struct fsm_hooks hooks = {.chunk_freed = on_freed,
                              .chunk_changed = on_changed,
                              .chunk_sparse = on_sparse,
                              .orphaned = on_orphaned,
                              .adopted = on_adopted,
                              .session_closed = on_session_closed,
                              .session_lapsed = on_session_lapsed,
                              .arg = n};
    fsm_set_hooks(cfg->fsm, &hooks);
    fsm_unlock(cfg->fsm);
    int rc = nodes_cap_key_load(n);
    if (!rc)
        rc = driver_start(n);
    if (rc) {
        nodes_free(n);
        return rc;
    }
    *out = n;
    return 0;
}

static void free_node(struct node *d)
{
    if (!d)
        return;
    rpc_conn_unref(d->conn);
    reports_forget(d);
    free(d->dels);
    free(d);
}

void nodes_free(struct nodes *n)
{
    if (!n)
        return;
    fsm_wrlock(n->cfg.fsm);
    fsm_set_hooks(n->cfg.fsm, &(struct fsm_hooks){0});
    fsm_unlock(n->cfg.fsm);
    driver_stop(n);
    for (uint32_t i = 0; i < n->nnodes; i++)
        free_node(n->node[i]);
    for (uint32_t i = 0; i < n->nhosts; i++)
        free(n->hosts[i]);
    free(n->hosts);
    free(n->node);
    free(n->table);
    grants_free(n);
    damage_free(n);
    repair_queue_free(n->queue);
    compacting_free(n->compacting);
    lock_destroy(&n->mu);
    lock_destroy(&n->done_lock);
    free(n);
}
