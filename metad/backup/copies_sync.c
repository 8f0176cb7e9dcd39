/* meta-copies-sync: answers to changes that wait until copies of the names have the change.
 *
 * Who waits gives the log index of its entry, and is let go when every copy that is being kept up has that entry on
 * stable storage, and there is at least one. The wait is bounded, in two ways:
 *
 *   a copy is late            after COPIES_SYNC_LATE nobody waits for it any more, until it has everything again; the
 *                             others go on being waited for
 *   no copy takes anything    after COPIES_SYNC_NONE everybody is let go, and nobody waits until a copy has everything
 *                             again: changes are acknowledged that are on metad's disk alone, and `health` says so
 *                             (names-unsynced). Otherwise a lack of chunkds would stop every program
 *
 * Those who wait when leadership ends are answered with an error: clients repeat the same change at whoever leads next.
 *
 * Threads: copies_wait on any, usually the log's; everybody is let go on the thread `names`, or on that of copies_stop
 * after it has ended, no lock held. */
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "copies_internal.h"
#include "metad/fsm/fsm_cluster.h"

#define LOG_MODULE "names"

bool copies_sync(const struct copies *c)
{
    return c && fsm_setting(c->fsm, SETTING_META_COPIES_SYNC) != 0;
}

void copies_wait(struct copies *c, struct copies_wait *w)
{
    w->at = clock_mono();
    w->next = NULL;
    lock_acquire(&c->mu);
    bool taken = c->serving;
    if (taken) {
        *c->waits_end = w;
        c->waits_end = &w->next;
        c->poked = true;
        cond_broadcast(&c->wake);
    }
    lock_release(&c->mu);
    if (!taken)
        w->done(w, -ERR_NOT_LEADER);
}

static bool is_kept_up(const struct copy *k)
{
    return k->cur.generation != 0 && !k->away_at && k->conn && rpc_conn_alive(k->conn);
}

/* Copies that have the entry at index, and whether one is waited for that has not. */
static unsigned count_synced(const struct copies *c, uint64_t index, bool *waits)
{
    unsigned have = 0;

    *waits = false;
    for (size_t i = 0; i < c->ncopies; i++) {
        const struct copy *k = c->copy[i];
        if (!is_kept_up(k))
            continue;
        have += k->cur.reached >= index;
        *waits |= k->cur.reached < index && !k->late;
    }
    return have;
}

static void note_late(struct copies *c, uint64_t index)
{
    for (size_t i = 0; i < c->ncopies; i++) {
        struct copy *k = c->copy[i];
        if (k->late || !is_kept_up(k) || k->cur.reached >= index)
            continue;
        k->late = true;
        log_warn("chunkd %u (%s) is slow to take changes of the names: they are acknowledged "
                 "without it",
                 k->chunkd, k->host_name);
    }
}

static bool may_go(struct copies *c, const struct copies_wait *w, int64_t now)
{
    bool waits;
    unsigned have = count_synced(c, w->index, &waits);

    if (have > 0 && waits && now - w->at > COPIES_SYNC_LATE) {
        note_late(c, w->index);
        have = count_synced(c, w->index, &waits);
    }
    if (have > 0 && !waits)
        return true;
    if (!c->unsynced && now - w->at > COPIES_SYNC_NONE) {
        c->unsynced = true;
        log_error("no chunkd takes changes of the names (meta-copies-sync): they are acknowledged "
                  "without a copy");
    }
    return c->unsynced;
}

static void look_again(struct copies *c)
{
    uint64_t last = names_ring_last(c->ring);
    bool any = false;

    for (size_t i = 0; i < c->ncopies; i++) {
        struct copy *k = c->copy[i];
        if (!is_kept_up(k) || k->cur.reached < last)
            continue;
        any = true;
        k->late = false;
    }
    if (any && c->unsynced)
        log_info("changes of the names are copied again");
    if (any)
        c->unsynced = false;
}

static struct copies_wait *take_first(struct copies *c)
{
    struct copies_wait *w = c->waits;

    c->waits = w->next;
    if (!c->waits)
        c->waits_end = &c->waits;
    return w;
}

/* They come in the order of their entries, nearly: one that could go waits for those before it at most. */
void copies_let_go(struct copies *c, int64_t now)
{
    look_again(c);
    lock_acquire(&c->mu);
    c->unsynced_shown = c->unsynced && copies_sync(c);
    while (c->waits && may_go(c, c->waits, now)) {
        struct copies_wait *w = take_first(c);
        lock_release(&c->mu);
        w->done(w, 0);
        lock_acquire(&c->mu);
    }
    lock_release(&c->mu);
}

void copies_let_all_go(struct copies *c, int code)
{
    lock_acquire(&c->mu);
    while (c->waits) {
        struct copies_wait *w = take_first(c);
        lock_release(&c->mu);
        w->done(w, code);
        lock_acquire(&c->mu);
    }
    lock_release(&c->mu);
}

/* Shorter than the bounds. */
bool copies_anybody_waits(struct copies *c)
{
    LOCK_SCOPE(&c->mu);
    return c->waits != NULL;
}
