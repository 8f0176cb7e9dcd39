/* The maintenance thread: checkpoints the index into LMDB, gives dead space back, removes dead
 * segments.
 *
 * A checkpoint: the writer, between two groups, copies what changed since the last one together
 * with the log position (store_collect); the sync thread makes the log durable up to there; then
 * one LMDB transaction stores changes and position. A failed commit is kept and repeated, since
 * later ones build on it.
 *
 * Space goes back only for what a checkpoint has left behind: recovery starts reading at the
 * checkpoint's position and must find there what it expects. So dead ranges wait until they are
 * before that position; then, after a grace period for readers that still look at them, their
 * blocks are punched out. A segment without live records is unlinked once LMDB has that down, so a
 * crash in between leaves at worst an unused file.
 *
 * Idle, the thread sleeps without a timer. */
#include "store_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#define LOG_MODULE "store"
#include "base/log.h"
#include "base/lock.h"

void checkpoint_free(struct checkpoint *ck)
{
    delta_free(&ck->delta);
    free(ck->dead.v);
    memset(ck, 0, sizeof(*ck));
}

void store_maint_note(struct store *s)
{
    lock_acquire(&s->maint_lock);
    if (!s->maint_wanted)
        cond_signal(&s->maint_cond);
    s->maint_wanted = true;
    lock_release(&s->maint_lock);
}

/* ---- waiting for an op ---- */

struct waiter {
    struct lock mu;
    struct cond cond;
    bool done;
    int code;
};

static void waiter_done(void *arg, int code)
{
    struct waiter *w = arg;
    lock_acquire(&w->mu);
    w->done = true;
    w->code = code;
    cond_signal(&w->cond);
    lock_release(&w->mu);
}

int store_submit_wait(struct store *s, struct op *op)
{
    struct waiter w = {.mu = LOCK_INITIALIZER(STORE_WAIT), .cond = COND_INITIALIZER};
    op->done = waiter_done;
    op->arg = &w;
    store_submit(s, op);
    lock_acquire(&w.mu);
    while (!w.done)
        cond_wait(&w.cond, &w.mu);
    lock_release(&w.mu);
    return w.code;
}

/* ---- the spare ---- */

#define SPARE_NAME "spare"

bool store_spare_drop(struct store *s)
{
    if (!atomic_exchange(&s->spare, false))
        return false;
    log_warn("%s: the disk is full; its spare %u MiB are used to go on with deletions", s->dir,
             STORE_SPARE >> 20);
    return !unlinkat(s->segs.dirfd, SPARE_NAME, 0);
}

/* (Re)creates it when there is room to do so. Not counted as used: it is what keeps a full disk
 * usable. */
static void spare_make(struct store *s)
{
    struct store_stat st;
    store_stat(s, &st);
    if (s->spare || st.avail < 8ull * STORE_SPARE)
        return;
    CLEANUP(close_fdp)
    int fd = openat(s->segs.dirfd, SPARE_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && !fallocate(fd, 0, 0, STORE_SPARE))
        s->spare = true;
    else if (fd >= 0)
        unlinkat(s->segs.dirfd, SPARE_NAME, 0);
}

/* ---- checkpoints ---- */

int store_commit(struct store *s, struct checkpoint *ck)
{
    int rc = index_db_commit(s->db, &ck->delta);
    if (rc == -ENOSPC && store_spare_drop(s))
        rc = index_db_commit(s->db, &ck->delta);
    if (rc) {
        if (rc == -EIO || rc == -EROFS || rc == -ERR_CORRUPT)
            store_fail(s, "checkpoint", "the index", rc);
        else
            log_error(
                "%s/index: checkpoint failed: %s. The log keeps everything; it is tried again",
                s->dir, err_str(rc));
        return rc;
    }
    index_committed(&s->ix, ck->epoch);
    s->committed = ck->delta.pos;
    for (size_t i = 0; i < ck->delta.n_segs; i++) {
        struct segment *sg = segments_find(&s->segs, ck->delta.segs[i].id);
        if (sg)
            sg->live_committed = ck->delta.segs[i].live;
    }
    for (size_t i = 0; i < ck->dead.n; i++)
        dead_add(&s->to_punch, &ck->dead.v[i]);
    return 0;
}

int store_checkpoint(struct store *s)
{
    struct checkpoint *ck = calloc(1, sizeof(*ck));
    struct op *op = calloc(1, sizeof(*op));
    if (!ck || !op)
        abort();
    op->kind = OP_COLLECT;
    op->ckpt = ck;
    int rc = store_submit_wait(s, op);
    /* Until it is committed it must not be lost: what it holds counts as clean in RAM. */
    for (int64_t pause = 100 * NSEC_PER_MSEC; !rc && (rc = store_commit(s, ck));) {
        if (s->failed || s->maint_stop)
            break;
        nanosleep(&(struct timespec){pause / NSEC_PER_SEC, pause % NSEC_PER_SEC}, NULL);
        if (pause < 10 * NSEC_PER_SEC)
            pause *= 2;
        rc = 0;
    }
    checkpoint_free(ck);
    free(ck);
    return rc;
}

/* ---- giving space back ---- */

static int by_place(const void *a, const void *b)
{
    const struct dead_range *x = a, *y = b;
    if (x->seg != y->seg)
        return x->seg < y->seg ? -1 : 1;
    return x->pos < y->pos ? -1 : x->pos > y->pos;
}

/* Merges neighbours of a sorted list in place. */
static void maint_merge(struct dead_list *l)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) {
        struct dead_range *last = n ? &l->v[n - 1] : NULL;
        if (last && last->seg == l->v[i].seg && last->pos + last->len >= l->v[i].pos) {
            uint64_t end = l->v[i].pos + l->v[i].len;
            if (end > last->pos + last->len)
                last->len = end - last->pos;
        } else {
            l->v[n++] = l->v[i];
        }
    }
    l->n = n;
}

static bool before(const struct dead_range *d, const struct log_pos *p)
{
    return d->seg < p->seg || (d->seg == p->seg && d->pos + d->len <= p->pos);
}

static void punch_all(struct store *s)
{
    struct dead_list *l = &s->to_punch;
    if (!l->n)
        return;
    qsort(l->v, l->n, sizeof(*l->v), by_place);
    maint_merge(l);
    grace_wait(&s->grace);
    size_t kept = 0;
    struct segment *sg = NULL;
    for (size_t i = 0; i < l->n; i++) {
        const struct dead_range *d = &l->v[i];
        if (!before(d, &s->committed)) {
            l->v[kept++] = *d;
            continue;
        }
        if (!sg || sg->id != d->seg) {
            if (sg)
                segment_update_alloc(sg);
            sg = segments_find(&s->segs, d->seg);
        }
        int rc = sg ? segment_punch(&s->segs, sg, d->pos, (uint32_t)d->len) : 0;
        if (rc)
            log_warn("%s/%s: cannot give back %llu bytes at offset %u: %s", s->dir, sg->name,
                     (unsigned long long)d->len, d->pos, err_str(rc));
    }
    if (sg)
        segment_update_alloc(sg);
    l->n = kept;
}

static bool removable(const struct store *s, const struct segment *sg)
{
    return sg->id < s->committed.seg && sg->live == 0 && sg->live_committed == 0 && sg->marks == 0;
}

static int remove_dead(void *arg, struct segment *sg)
{
    struct store *s = arg;
    if (!removable(s, sg))
        return 0;
    struct checkpoint gone = {.delta = {.pos = s->committed, .next_gen = s->next_gen}};
    struct segment_row row = {.id = sg->id, .gone = true};
    gone.delta.segs = &row;
    gone.delta.n_segs = 1;
    grace_wait(&s->grace);
    char name[sizeof(sg->name)];
    memcpy(name, sg->name, sizeof(name));
    int rc = segments_remove(&s->segs, sg);
    if (rc) {
        log_warn("%s/%s: cannot remove the empty segment: %s", s->dir, name, err_str(rc));
        return 0;
    }
    /* When this fails, the row of an empty segment without a file is harmless. */
    rc = index_db_commit(s->db, &gone.delta);
    log_debug("%s/%s: removed%s", s->dir, name, rc ? ", its row not yet" : "");
    return 0;
}

static int compact_one(void *arg, struct segment *sg)
{
    struct store *s = arg;
    if (s->failed || s->maint_stop || !store_compact_wanted(s, sg))
        return 0;
    int rc = store_compact(s, sg);
    if (rc && rc != -ENOSPC)
        sg->stuck = true;
    return rc == -ENOSPC ? rc : 0;
}

static int sweep_one(void *arg, struct segment *sg)
{
    struct store *s = arg;
    return s->failed || s->maint_stop ? 1 : store_sweep(s, sg);
}

static void maintain(struct store *s)
{
    if (store_checkpoint(s))
        return;
    if (!s->swept)
        s->swept = !segments_each(&s->segs, sweep_one, s);
    punch_all(s);
    segments_each(&s->segs, compact_one, s);
    segments_each(&s->segs, remove_dead, s);
    spare_make(s);
}

/* Sleeps until something changed and a while has passed since then, so that much of it comes
 * together. Called and returns with the lock held. */
static void wait_for_change(struct store *s)
{
    lock_assert_held(&s->maint_lock);
    while (!s->maint_stop && !s->maint_wanted)
        cond_wait(&s->maint_cond, &s->maint_lock);
    int64_t at = clock_mono() + s->cfg.checkpoint_ms * NSEC_PER_MSEC;
    while (!s->maint_stop && cond_sleep_until(&s->maint_cond, &s->maint_lock, at))
        ;
}

void *store_maint_main(void *arg)
{
    struct store *s = arg;
    lock_acquire(&s->maint_lock);
    for (;;) {
        wait_for_change(s);
        if (s->maint_stop)
            break;
        s->maint_wanted = false;
        lock_release(&s->maint_lock);
        if (!s->failed)
            maintain(s);
        lock_acquire(&s->maint_lock);
    }
    lock_release(&s->maint_lock);
    return NULL;
}
