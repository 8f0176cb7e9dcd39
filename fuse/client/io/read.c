/* Reading what was asked for, until it succeeds or cannot.
 *
 * When no copy of a segment served (read_round.c), the layout is fetched anew (the chunk may have moved, the
 * capability may have expired) and the read begins again, until the mount's time-out; when all copies
 * answered and none is good, or no chunkd has one (which metad knows), twice in a row, it is EIO at once.
 *
 * Nobody waits for an ordinary read (cfile_read_async): the thread that has an answer goes on with it, one at a
 * time (op->handling), and the last one hands out the bytes; async_reply.c's tick finds copies that are slow.
 * What went wrong with every copy once gets a thread of its own, which tries until the time-out. */
#include "client/io/read.h"
#include <errno.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/wait_hook.h"
#include "base/lock.h"
#include "client/base/client_clock.h"
#include "client/cache/lease_cache.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/committed_map.h"
#include "client/file/whole.h"
#include "client/internal.h"
#include "client/io/async_reply.h"
#include "client/io/chunkds.h"
#include "client/io/read_round.h"

#define LOG_MODULE "read"

/* ---- the whole read ---- */

static bool all_answered(const struct read_round *op)
{
    for (size_t i = 0; i < op->nsegs; i++) {
        if (op->segs[i].code && op->segs[i].unreachable)
            return false;
    }
    return !op->unsure;
}

/* off: where in the file op begins. */
static void log_failed(const struct read_round *op, uint64_t off, int rc)
{
    for (size_t i = 0; i < op->nsegs; i++) {
        const struct readseg *s = &op->segs[i];
        char who[600] = "";
        size_t at = 0;
        if (!s->code)
            continue;
        for (uint32_t k = 0; k < s->loc.n && at + 130 < sizeof(who); k++) {
            char name[128];
            chunkds_name(op->c, s->loc.chunkds[k], name, sizeof(name));
            at += (size_t)snprintf(who + at, sizeof(who) - at, "%s%s", k ? ", " : "", name);
        }
        log_error(
            "inode %llu (find -inum names it): bytes %llu+%u cannot be read: chunk %llx at %u: %s; "
            "copies: %s",
            (unsigned long long)op->ino, (unsigned long long)(off + s->dest), s->len,
            (unsigned long long)s->loc.chunk, s->off, err_str(rc), *who ? who : "none known");
        return;
    }
    log_error(
        "inode %llu (find -inum names it): bytes %llu+%llu cannot be read: no chunkd %s chunk "
        "%llx: %s",
        (unsigned long long)op->ino, (unsigned long long)op->lost_off,
        (unsigned long long)op->lost_len, op->unsure ? "is known to have" : "has",
        (unsigned long long)op->lost_chunk, err_str(rc));
}

/* What metad said of the file before gen did not serve. */
static void distrust(struct cfile *f, uint64_t gen)
{
    lock_acquire(&f->mu);
    if (f->map_gen == gen)
        map_drop(f);
    lock_release(&f->mu);
}

/* One round: 0, or a code; *again: worth fetching the layout and trying once more; *answered:
 * all copies did. */
static int round_once(struct cfile *f, uint64_t off, size_t len, int64_t deadline, bool log,
                      struct buf **out, bool *again, bool *answered)
{
    *again = *answered = false;
    struct read_round *op = read_round_new(f);
    if (!op)
        return -ENOMEM;
    lock_acquire(&f->mu);
    uint64_t gen = f->map_gen;
    int rc = read_round_plan(f, op, off, len, deadline);
    lock_release(&f->mu);
    if (!rc) {
        rc = -ERR_NO_CHUNK;
        if (!op->stale) {
            read_round_start(op);
            rc = read_round_wait(op);
        }
        *again = rc != 0;
        *answered = rc && all_answered(op);
    }
    if (!rc) {
        *out = op->out;
        op->out = NULL;
    } else if (log) {
        log_failed(op, off, rc);
    }
    if (*again)
        distrust(f, gen);
    read_round_unref(op);
    return rc;
}

static int read_until(struct cfile *f, uint64_t off, size_t len, int64_t deadline, struct buf **out)
{
    unsigned hopeless = 0, pause_ms = 20;
    for (;;) {
        bool again, answered;
        bool last = hopeless == 2 || clock_mono() + pause_ms * NSEC_PER_MSEC >= deadline;
        int rc = round_once(f, off, len, deadline, last, out, &again, &answered);
        if (!rc || !again)
            return rc;
        if (last)
            return -EIO;
        hopeless = answered ? hopeless + 1 : 0;
        lock_acquire(&f->mu);
        cond_wait_until(&f->cv, &f->mu, clock_mono() + pause_ms * NSEC_PER_MSEC);
        lock_release(&f->mu);
        pause_ms = pause_ms < 400 ? pause_ms * 2 : 500;
        chunkds_refresh(f->c);
    }
}

int read_range(struct cfile *f, uint64_t off, size_t len, struct buf **out)
{
    return read_until(f, off, len, client_deadline(f->c), out);
}

struct read_round *read_start(struct cfile *f, size_t len, unsigned try_ms)
{
    struct read_round *op = read_round_new(f);
    if (!op)
        return NULL;
    op->try_ms = try_ms;
    lock_acquire(&f->mu);
    int rc = read_round_plan(f, op, 0, len, clock_mono());
    lock_release(&f->mu);
    if (rc || op->stale) {
        read_round_unref(op);
        return NULL;
    }
    read_round_start(op);
    return op;
}

int read_wait(struct read_round *op, struct buf **out)
{
    int rc = read_round_wait(op);
    if (!rc) {
        *out = op->out;
        op->out = NULL;
    }
    read_round_unref(op);
    return rc;
}

/* ---- reads that nobody waits for ---- */

static void async_over(struct read_round *op, int rc, struct buf *b)
{
    struct client *c = op->c;
    op->done(op->arg, rc, b);
    cfile_unref(op->f);
    async_reply_done(c, &op->async);
    read_round_unref(op);
}

static void *try_again(void *arg)
{
    struct read_round *op = arg;
    struct buf *b = NULL;
    distrust(op->f, op->map_gen);
    int rc = read_until(op->f, op->off, op->len, op->deadline, &b);
    async_over(op, rc, b);
    buf_unref(b);
    return NULL;
}

static void async_end(struct read_round *op)
{
    int rc = read_round_code(op);
    if (!rc || !async_reply_thread(try_again, op))
        async_over(op, rc ? -EIO : 0, rc ? NULL : op->out);
}

/* By the thread that set op->handling, as long as there are answers. now: copies that are slow by then get
 * company. */
static void async_handle(struct read_round *op, int64_t now)
{
    int64_t wake = INT64_MAX;
    while (read_round_left(op, now, &wake)) {
        lock_acquire(&op->mu);
        struct answer *list = read_round_answers(op);
        op->handling = list != NULL;
        lock_release(&op->mu);
        if (!list)
            return;
        read_round_handle(op, list);
    }
    async_end(op); /* still handling: later answers find nothing to do */
}

static void async_go_on(struct read_round *op, int64_t now)
{
    lock_acquire(&op->mu);
    bool mine = !op->handling;
    op->handling = true;
    lock_release(&op->mu);
    if (mine)
        async_handle(op, now);
}

static void async_answered(struct read_round *op)
{
    async_go_on(op, 0);
}

static void *async_hold(struct async_reply *l)
{
    return read_round_ref((struct read_round *)((char *)l - offsetof(struct read_round, async)));
}

static void async_look(void *op)
{
    async_go_on(op, clock_mono());
    read_round_unref(op);
}

static const struct async_reply_kind async_reads = {async_hold, async_look};

/* ---- what the outside calls ---- */

/* Bytes that are at hand, 1; or 0: those at chunkds are needed; or an error. */
static int read_local(struct cfile *f, off_t off, size_t len, struct buf **out)
{
    if (off < 0)
        return -EINVAL;
    /* Not every read is preceded by a question for attributes (O_DIRECT, page faults): without a
     * lease another client may have changed the file. */
    if (lease_cache_term(f->c->leases) && !lease_cache_ttl(f->c->leases, f->ino)) {
        Replfs__Attr now = REPLFS__ATTR__INIT;
        int rc = client_getattr_now(f->c, f->ino, &now);
        if (rc)
            return rc;
    }
    return whole_read(f, (uint64_t)off, len, out);
}

/* Asks for what is needed: NULL when metad has to be asked first what that is, or cannot be. */
static struct read_round *async_plan(struct cfile *f, uint64_t off, size_t len, int64_t deadline)
{
    struct read_round *op = read_round_new(f);
    if (!op)
        abort();
    lock_acquire(&f->mu);
    op->map_gen = f->map_gen;
    int rc = read_round_plan(f, op, off, len, deadline);
    lock_release(&f->mu);
    if (!rc && !op->stale)
        return op;
    read_round_unref(op);
    return NULL;
}

void cfile_read_async(struct cfile *f, off_t off, size_t len, cfile_read_fn *done, void *arg)
{
    int64_t deadline = client_deadline(f->c);
    struct buf *b = NULL;
    int rc = read_local(f, off, len, &b);
    struct read_round *op = rc ? NULL : async_plan(f, (uint64_t)off, len, deadline);
    if (!op) {
        if (!rc)
            rc = read_until(f, (uint64_t)off, len, deadline, &b);
        done(arg, rc < 0 ? rc : 0, b);
        buf_unref(b);
        return;
    }
    op->f = f;
    cfile_ref(f);
    op->done = done;
    op->arg = arg;
    op->off = (uint64_t)off;
    op->deadline = deadline;
    op->handling = true;
    op->answered = async_answered;
    async_reply_begin(f->c, &op->async, &async_reads);
    read_round_start(op);
    async_handle(op, 0);
}

struct waited {
    sem_t over;
    int rc;
    struct buf *b;
};

static void wake(void *arg, int rc, struct buf *b)
{
    struct waited *w = arg;
    w->rc = rc;
    w->b = buf_ref(b);
    sem_post(&w->over);
}

int cfile_read(struct cfile *f, off_t off, size_t len, struct buf **out)
{
    struct waited w = {0};
    sem_init(&w.over, 0, 0);
    cfile_read_async(f, off, len, wake, &w);
    wait_hook_call();
    while (sem_wait(&w.over)) /* EINTR; a read ends at its deadline */
        ;
    sem_destroy(&w.over);
    *out = w.b;
    return w.rc;
}
