/* Which chunkds keep copies of the names, and the thread that gives them what they need (copies_send.c).
 *
 * The log thread puts every applied entry into a ring and says when a checkpoint is whole: it never waits. The thread
 * `names` runs while this metad leads. Chosen are as many chunkds as are wanted, on distinct computers, this one last,
 * the lowest numbers first, so that the same are chosen after a new start. One that goes away keeps its place for half
 * a minute; one that fails again and again (a full disk) gives it to another for ten minutes, if there is another. When all that are chosen
 * have whole copies, the others are told to keep none.
 *
 * A chunkd that needs a checkpoint has one made, at most every few seconds. While somebody waits for it the ring drops
 * nothing below its bound: the entries behind the checkpoint have to be there when it is whole.
 *
 * Locks: mu guards what other threads look at; calls are made without it, since a completion may run at once. */
#include "copies.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/thread.h"
#include "copies_internal.h"
#include "metad/fsm/fsm_cluster.h"

#define LOG_MODULE "names"
#define RING_MAX (64ull << 20)
#define RING_SLACK (4ull << 20)
#define CHOOSE_EVERY (500 * NSEC_PER_MSEC)
#define AWAY (30 * NSEC_PER_SEC)
#define SHUN (600 * NSEC_PER_SEC)
#define SHUN_AFTER 3u
#define ASK_EVERY (5 * NSEC_PER_SEC)
#define TICK_BUSY (50 * NSEC_PER_MSEC)
#define TICK_IDLE (500 * NSEC_PER_MSEC)

/* ---- told by the log thread ---- */

void copies_poke(struct copies *c)
{
    LOCK_SCOPE(&c->mu);
    c->poked = true;
    cond_broadcast(&c->wake);
}

static void on_entry(void *arg, uint64_t index, uint64_t term, const void *entry, size_t len)
{
    struct copies *c = arg;

    (void)term;
    names_ring_add(c->ring, index, clock_wall(), entry, len);
    if (atomic_exchange(&c->idle, false))
        copies_poke(c);
}

static void on_restored(void *arg, uint64_t index)
{
    struct copies *c = arg;

    names_ring_reset(c->ring, index);
}

static void on_saved(void *arg, uint64_t index, uint64_t size, uint32_t crc)
{
    struct copies *c = arg;

    lock_acquire(&c->mu);
    c->saved_index = index;
    c->saved_size = size;
    c->saved_crc = crc;
    c->poked = true;
    cond_broadcast(&c->wake);
    lock_release(&c->mu);
}

/* ---- life ---- */

struct copies *copies_new(const char *dir, struct fsm *fsm)
{
    struct copies *c = calloc(1, sizeof(*c));

    if (!c || !(c->dir = strdup(dir)))
        abort();
    c->fsm = fsm;
    c->waits_end = &c->waits;
    c->observer = (struct mlog_observer){
        .applied = on_entry, .restored = on_restored, .saved = on_saved, .arg = c};
    c->ring = names_ring_new(RING_MAX, RING_SLACK);
    names_ring_need(c->ring, UINT64_MAX);
    lock_init(&c->mu, LOCK_NAMES_COPIES);
    cond_init(&c->wake);
    char id[MACHINE_ID_MAX];
    if (machine_id(id) == 0)
        snprintf(c->host_id, sizeof(c->host_id), "%s", id);
    return c;
}

void copies_free(struct copies *c)
{
    if (!c)
        return;
    state_file_unref(c->src);
    names_ring_free(c->ring);
    cond_destroy(&c->wake);
    lock_destroy(&c->mu);
    free(c->told);
    free(c->dir);
    free(c);
}

const struct mlog_observer *copies_observer(const struct copies *c)
{
    return &c->observer;
}

/* ---- choosing ---- */

static bool is_shunned(const struct copies *c, uint32_t chunkd, int64_t now)
{
    for (size_t i = 0; i < NODES_NAMES_MAX; i++)
        if (c->shunned[i].chunkd == chunkd && now < c->shunned[i].until)
            return true;
    return false;
}

static bool is_chosen(const struct copies *c, uint32_t chunkd)
{
    for (size_t i = 0; i < c->ncopies; i++)
        if (c->copy[i]->chunkd == chunkd)
            return true;
    return false;
}

static void shun(struct copies *c, uint32_t chunkd, int64_t now)
{
    size_t oldest = 0;

    for (size_t i = 1; i < NODES_NAMES_MAX; i++)
        if (c->shunned[i].until < c->shunned[oldest].until)
            oldest = i;
    c->shunned[oldest] = (struct shunned){chunkd, now + SHUN};
}

static void remove_copy(struct copies *c, size_t i)
{
    struct copy *k = c->copy[i];

    lock_acquire(&c->mu);
    memmove(&c->copy[i], &c->copy[i + 1], (--c->ncopies - i) * sizeof(c->copy[0]));
    lock_release(&c->mu);
    copies_connect(k, NULL);
    free(k);
}

static void add_copy(struct copies *c, const struct nodes_conn *to, int64_t now)
{
    struct copy *k = calloc(1, sizeof(*k));

    if (!k)
        abort();
    k->c = c;
    k->chunkd = to->chunkd;
    k->host = to->host;
    memcpy(k->host_name, to->host_name, sizeof(k->host_name));
    k->fresh_at = now;
    copies_connect(k, to->conn);
    lock_acquire(&c->mu);
    k->shown.chunkd = k->chunkd;
    c->copy[c->ncopies++] = k;
    lock_release(&c->mu);
}

static bool host_is_taken(const struct copies *c, uint32_t host, const struct copy *but)
{
    for (size_t i = 0; i < c->ncopies; i++)
        if (c->copy[i] != but && c->copy[i]->host == host)
            return true;
    return false;
}

/* Another one could have k's place. */
static bool has_stand_in(const struct copies *c, const struct copy *k, const struct nodes_conn *v,
                         size_t n, int64_t now)
{
    for (size_t i = 0; i < n; i++)
        if (!is_chosen(c, v[i].chunkd) && !is_shunned(c, v[i].chunkd, now) &&
            !host_is_taken(c, v[i].host, k))
            return true;
    return false;
}

/* What has become of those that are chosen. */
static void look_after(struct copies *c, const struct nodes_conn *v, size_t n, int64_t now)
{
    for (size_t i = 0; i < c->ncopies;) {
        struct copy *k = c->copy[i];
        size_t at = 0;
        while (at < n && v[at].chunkd != k->chunkd)
            at++;
        if (at == n && k->away_at == 0)
            k->away_at = now;
        if (at < n)
            k->away_at = 0;
        bool fails = k->failures >= SHUN_AFTER && k->away_at == 0 && has_stand_in(c, k, v, n, now);
        if (atomic_load(&k->busy)) {
            i++;
        } else if (fails || (k->away_at != 0 && now - k->away_at > AWAY)) {
            if (fails)
                shun(c, k->chunkd, now);
            remove_copy(c, i);
        } else {
            if (at < n && v[at].conn != k->conn)
                copies_connect(k, v[at].conn);
            i++;
        }
    }
}

static unsigned count_hosts(const struct nodes_conn *v, size_t n)
{
    unsigned hosts = 0;

    for (size_t i = 0; i < n; i++) {
        bool first = true;
        for (size_t k = 0; k < i && first; k++)
            first = v[k].host != v[i].host;
        hosts += first;
        if (hosts > NODES_NAMES_MAX)
            break;
    }
    return hosts;
}

/* Those that are not chosen keep nothing, once the others do; nobody, when none are wanted. */
static void tell_others(struct copies *c, const struct nodes_conn *v, size_t n)
{
    for (size_t i = 0; i < c->ncopies; i++)
        if (c->copy[i]->cur.generation == 0)
            return;
    for (size_t i = 0; i < n && (c->ncopies > 0 || c->wanted == 0); i++) {
        size_t at = 0;
        if (is_chosen(c, v[i].chunkd))
            continue;
        while (at < c->ntold && c->told[at].chunkd != v[i].chunkd)
            at++;
        if (at < c->ntold && c->told[at].conn == v[i].conn)
            continue;
        if (at == c->ntold) {
            c->told = realloc(c->told, ++c->ntold * sizeof(*c->told));
            if (!c->told)
                abort();
        }
        c->told[at] = (struct copies_told){v[i].chunkd, v[i].conn};
        copies_send_drop(c, v[i].conn);
    }
}

static void read_settings(struct copies *c)
{
    uint64_t wanted = fsm_setting(c->fsm, SETTING_META_COPIES);

    c->wanted = wanted < NODES_NAMES_MAX ? (unsigned)wanted : NODES_NAMES_MAX;
    c->sync = copies_sync(c);
}

static void copies_choose(struct copies *c, int64_t now)
{
    struct nodes_conn *v = malloc(NODES_MAX * sizeof(*v));

    if (!v)
        abort();
    read_settings(c);
    for (size_t i = c->ncopies; i-- > 0 && c->ncopies > c->wanted;) /* fewer are wanted now */
        if (!atomic_load(&c->copy[i]->busy))
            remove_copy(c, i);
    size_t n = nodes_conns(c->nodes, v, NODES_MAX);
    look_after(c, v, n, now);
    unsigned hosts = count_hosts(v, n);
    unsigned want = c->wanted < hosts ? c->wanted : hosts;
    for (unsigned own = 0; own < 2; own++) /* this computer only when there are too few others */
        for (size_t i = 0; i < n && c->ncopies < want; i++) {
            bool here = c->host_id[0] && strcmp(v[i].host_id, c->host_id) == 0;
            if (here == own && !host_is_taken(c, v[i].host, NULL) &&
                !is_shunned(c, v[i].chunkd, now))
                add_copy(c, &v[i], now);
        }
    if (c->ncopies >= want)
        tell_others(c, v, n);
    lock_acquire(&c->mu);
    c->wanted_now = want;
    lock_release(&c->mu);
    for (size_t i = 0; i < n; i++)
        rpc_conn_unref(v[i].conn);
    free(v);
}

/* ---- the thread ---- */

static void take_saved(struct copies *c)
{
    lock_acquire(&c->mu);
    uint64_t index = c->saved_index, size = c->saved_size;
    uint32_t crc = c->saved_crc;
    lock_release(&c->mu);
    if (index == 0 || index == c->bad_index || (c->src && c->src->index == index))
        return;
    struct state_file *f;
    int rc = state_file_open(c->dir, index, size, crc, &f);
    if (rc != 0) {
        log_warn("the checkpoint at index %llu cannot be opened: %s", (unsigned long long)index,
                 err_str(rc));
        return;
    }
    state_file_unref(c->src);
    c->src = f;
}

/* What the ring has to keep, and whether a checkpoint is wanted. */
static void needs(struct copies *c, int64_t now)
{
    uint64_t above = names_ring_last(c->ring);
    bool urgent = false;

    c->pending = snapshot_needs(c, &above);
    urgent = c->pending;
    for (size_t i = 0; i < c->ncopies; i++) {
        const struct copy *k = c->copy[i];
        if (k->cur.generation && k->cur.reached < above)
            above = k->cur.reached;
        if (k->next.generation && k->next.reached < above)
            above = k->next.reached;
        if (copies_wants_new(k) && !k->away_at) {
            c->pending = true;
            urgent |= k->cur.generation == 0 && !copies_can_begin(k) && now >= k->retry_at;
        }
        c->pending |= !k->asked && !k->away_at;
    }
    names_ring_need(c->ring, c->pending ? 0 : above);
    if (urgent && now - c->asked_at > ASK_EVERY) {
        c->asked_at = now;
        mlog_checkpoint(c->mlog);
    }
}

/* Everybody has everything. */
static bool all_fresh(const struct copies *c, int64_t now)
{
    for (size_t i = 0; i < c->ncopies; i++)
        if (atomic_load(&c->copy[i]->busy) || (!c->copy[i]->away_at && c->copy[i]->fresh_at != now))
            return false;
    return true;
}

static bool sleep_until_due(struct copies *c, bool idle)
{
    int64_t until = clock_mono() + (idle ? TICK_IDLE : TICK_BUSY);

    LOCK_SCOPE(&c->mu);
    while (!c->stopping && !c->poked)
        if (!cond_sleep_until(&c->wake, &c->mu, until))
            break;
    c->poked = false;
    return !c->stopping;
}

static void *names_main(void *arg)
{
    struct copies *c = arg;
    bool idle = false;

    while (sleep_until_due(c, idle)) {
        atomic_store(&c->idle, true); /* what is applied from here on wakes us */
        int64_t now = clock_mono();
        take_saved(c);
        if (now - c->chose_at > CHOOSE_EVERY) {
            copies_choose(c, now);
            c->chose_at = now;
        }
        for (size_t i = 0; i < c->ncopies; i++)
            copies_step(c->copy[i], now);
        copies_let_go(c, now);
        snapshot_step(c, now);
        needs(c, now);
        idle = all_fresh(c, now) && !copies_anybody_waits(c);
        if (!idle)
            atomic_store(&c->idle, false);
    }
    return NULL;
}

int copies_start(struct copies *c, struct mlog *m, struct nodes *n, uint64_t leading)
{
    struct mlog_status ms;

    mlog_status(m, &ms);
    if (mlog_leading(m) != leading) /* looked at behind the term: that is this leadership's */
        return -ERR_NOT_LEADER;
    c->term = ms.term;
    c->mlog = m;
    c->nodes = n;
    c->stopping = false;
    c->chose_at = c->asked_at = 0;
    c->unsynced = c->unsynced_shown = false;
    c->ntold = 0;
    int rc = thread_start(&c->tid, "names", names_main, c);
    lock_acquire(&c->mu);
    c->running = c->serving = rc == 0;
    lock_release(&c->mu);
    return -rc;
}

void copies_stop(struct copies *c)
{
    if (!c->running)
        return;
    lock_acquire(&c->mu);
    c->stopping = true;
    c->serving = false;
    cond_broadcast(&c->wake);
    lock_release(&c->mu);
    pthread_join(c->tid, NULL);
    c->running = false;
    copies_let_all_go(c, -ERR_NOT_LEADER);
    snapshot_stop(c);
    for (size_t i = 0; i < c->ncopies; i++)
        if (c->copy[i]->conn)
            rpc_conn_close(c->copy[i]->conn);
    lock_acquire(&c->mu);
    for (size_t i = 0; i < c->ncopies; i++)
        while (atomic_load(&c->copy[i]->busy))
            cond_wait(&c->wake, &c->mu);
    lock_release(&c->mu);
    while (c->ncopies > 0)
        remove_copy(c, c->ncopies - 1);
    names_ring_need(c->ring, UINT64_MAX);
}

/* ---- for people ---- */

size_t copies_status(void *arg, struct nodes_names *out, size_t max, struct nodes_names_all *all)
{
    struct copies *c = arg;

    LOCK_SCOPE(&c->mu);
    size_t n = c->ncopies < max ? c->ncopies : max;
    for (size_t i = 0; i < n; i++)
        out[i] = c->copy[i]->shown;
    *all = (struct nodes_names_all){
        .wanted = c->wanted_now, .sync = copies_sync(c), .unsynced = c->unsynced_shown};
    return n;
}
