/* Access times.
 *
 * The kernel leaves atime to a FUSE file system, which sees those reads that the page cache does
 * not answer. Each is weighed by the mount's rule (relatime as in mount(8), unless told otherwise)
 * against the attributes known. Those that count are kept in a table and sent to metad together,
 * within about half the mount's flush time, as one AtimeOp; meanwhile every attribute that this
 * client shows has them laid over. Nobody waits for an access time: a client that dies loses the
 * last second of them.
 *
 * Entries: new -> being sent -> settled (metad has it; kept for one round more, since answers from
 * before may still arrive) -> gone. A failed sending makes them new again. Setting atime by hand
 * settles first: whatever was read before must not come after it.
 *
 * For files the rule looks at the open file; for directories and symbolic links at what the last
 * attributes shown said, remembered in one word per slot (ino, and whether a read would count).
 * A forgotten one counts: at worst one needless entry.
 *
 * Failure modes: a full table drops reads' times; without a metad they wait, and nobody with them.
 * Locks: a file's mu before mu; mu before queue.mu. One thread sends at a time (`sending`), without a lock. */
#include "client/names/atime.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash.h"
#include "client/base/attr.h"
#include "client/base/client_clock.h"
#include "base/u64map.h"
#include "client/base/limits.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/internal.h"
#include "client/queue/mutate.h"
#include "client/queue/queue.h"
#include "client/session/session.h"

#define LOG_MODULE "atime"
#define BATCH_MAX 512u
#define TICK_MAX_NS (2 * NSEC_PER_SEC) /* the flusher has other work */
#define DAY_NS (24 * 3600 * NSEC_PER_SEC)

enum atime_state { ATIME_NEW, ATIME_SENDING, ATIME_SETTLED };

struct atime_entry {
    uint64_t ino;
    int64_t atime;
    enum atime_state state;
};

void atime_init(struct client *c)
{
    lock_init(&c->atime.mu, LOCK_ATIMES);
    cond_init(&c->atime.sent);
}

void atime_free(struct client *c)
{
    size_t pos = 0;
    for (struct atime_entry *e; (e = u64map_next_ptr(&c->atime.map, &pos));)
        free(e);
    u64map_free(&c->atime.map);
    lock_destroy(&c->atime.mu);
    cond_destroy(&c->atime.sent);
}

/* ---- the rule ---- */

/* As relatime of Linux: not newer than the last change, or a day old. */
bool atime_counts(enum client_atime mode, bool dirs, const Replfs__Attr *a, int64_t now)
{
    if (mode == CLIENT_ATIME_NEVER || (S_ISDIR(a->mode) && !dirs))
        return false;
    return mode == CLIENT_ATIME_ALWAYS || a->atime_ns <= a->mtime_ns ||
           a->atime_ns <= a->ctime_ns || now - a->atime_ns >= DAY_NS;
}

bool client_atime_counts(struct client *c, const Replfs__Attr *a)
{
    return atime_counts(c->cfg.atime, !c->cfg.nodiratime, a, client_now(c));
}

/* ---- the table ---- */

static void record(struct client *c, uint64_t ino, int64_t now)
{
    lock_acquire(&c->atime.mu);
    struct atime_entry *e = u64map_get_ptr(&c->atime.map, ino);
    if (!e && c->atime.map.n < ATIME_ENTRIES_MAX && (e = calloc(1, sizeof(*e)))) {
        e->ino = ino;
        u64map_put_ptr(&c->atime.map, ino, e);
    }
    if (e) {
        e->atime = now;
        e->state = ATIME_NEW;
        if (!c->atime.since)
            c->atime.since = clock_mono();
    }
    c->atime.n = c->atime.map.n;
    lock_release(&c->atime.mu);
}

void atime_overlay(struct client *c, Replfs__Attr *a)
{
    if (!c->atime.n)
        return;
    lock_acquire(&c->atime.mu);
    const struct atime_entry *e = u64map_get_ptr(&c->atime.map, a->ino);
    if (e && e->atime > a->atime_ns)
        a->atime_ns = e->atime;
    lock_release(&c->atime.mu);
}

/* ---- reads ---- */

static atomic_ullong *slot_of(struct client *c, uint64_t ino)
{
    return &c->atime.seen[hash_u64(ino) % ATIME_SLOTS];
}

void atime_note(struct client *c, const Replfs__Attr *a)
{
    if (c->cfg.atime == CLIENT_ATIME_RELATIME && (S_ISDIR(a->mode) || S_ISLNK(a->mode)))
        atomic_store_explicit(slot_of(c, a->ino), a->ino * 2 + client_atime_counts(c, a),
                              memory_order_relaxed);
}

void client_accessed(struct client *c, uint64_t ino, bool dir)
{
    if (c->cfg.atime == CLIENT_ATIME_NEVER || (dir && c->cfg.nodiratime))
        return;
    if (c->cfg.atime == CLIENT_ATIME_RELATIME &&
        atomic_exchange(slot_of(c, ino), ino * 2) == ino * 2)
        return;
    queue_accessed(c, ino);
    record(c, ino, client_now(c));
}

/* f->mu held. */
static bool counts_for(const struct cfile *f, const Replfs__Attr *a, int64_t now)
{
    return atime_counts(f->c->cfg.atime, true, a, now) ||
           (f->head && a->atime_ns <= f->dirty_mtime);
}

void cfile_accessed(struct cfile *f)
{
    struct client *c = f->c;
    if (c->cfg.atime == CLIENT_ATIME_NEVER)
        return;
    int64_t now = client_now(c);
    Replfs__Attr a = REPLFS__ATTR__INIT;
    lock_acquire(&f->mu);
    attr_copy(&a, &f->attr);
    queue_overlay(c, &a);
    bool counts = counts_for(f, &a, now);
    if (counts) { /* unless it has been read since, and metad's last answer does not know that yet */
        atime_overlay(c, &a);
        counts = counts_for(f, &a, now);
    }
    if (counts) {
        f->attr.atime_ns = now;
        queue_accessed(c, f->ino);
        record(c, f->ino, now);
    }
    lock_release(&f->mu);
}

/* ---- sending ---- */

/* Takes up to BATCH_MAX new entries into op; drops those settled. free_only: not those that would have to
 * wait for what is on its way to metad. */
static void batch_take(struct client *c, bool free_only, Replfs__AtimeOp *op)
{
    struct atime_entry *e = NULL, *settled[BATCH_MAX];
    size_t pos = 0, n = 0;
    bool left = false;
    lock_acquire(&c->atime.mu);
    while (op->n_ino < BATCH_MAX && n < BATCH_MAX && (e = u64map_next_ptr(&c->atime.map, &pos))) {
        if (e->state == ATIME_SETTLED) {
            settled[n++] = e;
        } else if (e->state == ATIME_NEW && free_only && queue_queued(c, e->ino)) {
            left = true;
        } else if (e->state == ATIME_NEW) {
            e->state = ATIME_SENDING;
            op->ino[op->n_ino++] = e->ino;
            op->atime_ns[op->n_atime_ns++] = e->atime;
        }
    }
    c->atime.since = left ? clock_mono() : 0;
    while (n) {
        u64map_del_ptr(&c->atime.map, settled[--n]->ino);
        free(settled[n]);
    }
    c->atime.n = c->atime.map.n;
    lock_release(&c->atime.mu);
}

/* Those that were read again meanwhile are new anyway. */
static void batch_end(struct client *c, const Replfs__AtimeOp *op, int rc)
{
    bool lost = rc == -ERR_TIMEOUT || rc == -ETIMEDOUT || rc == -EIO || rc == -ERR_SESSION;
    lock_acquire(&c->atime.mu);
    for (size_t i = 0; i < op->n_ino; i++) {
        struct atime_entry *e = u64map_get_ptr(&c->atime.map, op->ino[i]);
        if (e && e->state == ATIME_SENDING)
            e->state = lost ? ATIME_NEW : ATIME_SETTLED;
    }
    c->atime.since = c->atime.map.n ? clock_mono() : 0;
    cond_broadcast(&c->atime.sent);
    lock_release(&c->atime.mu);
    if (rc)
        log_debug("access times of %zu inodes not taken: %s", op->n_ino, err_str(rc));
}

/* By the thread that has `sending`; no lock held. *more: there may be others. */
static int send_batch(struct client *c, bool tick, bool *more)
{
    uint64_t inos[BATCH_MAX];
    int64_t times[BATCH_MAX];
    Replfs__AtimeOp op = REPLFS__ATIME_OP__INIT;
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    op.ino = inos;
    op.atime_ns = times;
    meta.op_case = REPLFS__META_OP__OP_ATIME;
    meta.atime = &op;
    batch_take(c, tick, &op);
    *more = op.n_ino == BATCH_MAX;
    if (!op.n_ino)
        return 0;
    int64_t deadline = tick ? clock_mono() + TICK_MAX_NS : client_deadline(c);
    int rc = mutate_one(c, &meta, 0, deadline, NULL, NULL);
    batch_end(c, &op, rc);
    return rc;
}

/* False: another thread sends, and that is not waited for. */
static bool sending_begin(struct client *c, bool wait)
{
    LOCK_SCOPE(&c->atime.mu);
    while (c->atime.sending && wait) /* each batch has a deadline */
        cond_wait_until(&c->atime.sent, &c->atime.mu, clock_mono() + NSEC_PER_SEC);
    bool ours = !c->atime.sending;
    c->atime.sending = true;
    return ours;
}

static void sending_end(struct client *c)
{
    LOCK_SCOPE(&c->atime.mu);
    c->atime.sending = false;
    cond_broadcast(&c->atime.sent);
}

/* tick: for the flusher, which waits for nobody else, and not long. */
static void send_all(struct client *c, bool tick)
{
    bool more = true;
    int rc = 0;
    if (!session_connected(c))
        return;
    if (!sending_begin(c, !tick))
        return;
    for (unsigned i = 0; more && !rc && i <= ATIME_ENTRIES_MAX / BATCH_MAX; i++)
        rc = send_batch(c, tick, &more);
    sending_end(c);
}

void atime_tick(struct client *c)
{
    if (!c->atime.n)
        return;
    lock_acquire(&c->atime.mu);
    int64_t since = c->atime.since;
    lock_release(&c->atime.mu);
    if (since && clock_mono() - since >= c->cfg.flush_ms * NSEC_PER_MSEC / 2)
        send_all(c, true);
}

void client_flush_atime(struct client *c, uint64_t ino)
{
    if (!c->atime.n)
        return;
    lock_acquire(&c->atime.mu);
    const struct atime_entry *e = ino ? u64map_get_ptr(&c->atime.map, ino) : NULL;
    bool wanted = !ino || (e && e->state != ATIME_SETTLED);
    lock_release(&c->atime.mu);
    if (wanted)
        send_all(c, false);
}

void client_forget_atime(struct client *c, uint64_t ino)
{
    if (!c->atime.n)
        return;
    LOCK_SCOPE(&c->atime.mu);
    for (const struct atime_entry *e; (e = u64map_get_ptr(&c->atime.map, ino)) &&
                                      e->state == ATIME_SENDING;) /* until it is over */
        cond_wait_until(&c->atime.sent, &c->atime.mu, clock_mono() + NSEC_PER_SEC);
    free(u64map_del_ptr(&c->atime.map, ino));
    c->atime.n = c->atime.map.n;
}
