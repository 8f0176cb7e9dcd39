/* Closes that nobody waits for: of a close, only the acknowledgements are waited for, and not by a thread, when
 * the commit may be queued. A close leaves the file's list when all copies have its bytes; one that must wait for
 * more then gets a thread of its own. async_reply.c's tick looks after files whose answers do not come. */
#include "client/writeback/close_wait.h"
#include <errno.h>
#include <stdlib.h>
#include "base/lock.h"
#include "client/cache/lease_cache.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/internal.h"
#include "client/io/async_reply.h"
#include "client/writeback/drain.h"
#include "client/writeback/flush.h"
#include "client/writeback/quota.h"
#include "client/writeback/send.h"

struct closing {
    struct async_reply async; /* first: closing_hold */
    struct closing *next;     /* of f's; f->mu */
    struct cfile *f;          /* referenced */
    uint64_t target;          /* below it, all copies have to acknowledge */
    cfile_flush_fn *done;
    void *arg;
};

/* One of f that need not wait any more leaves f's list. f->mu held. */
static struct closing *closing_take(struct cfile *f)
{
    struct closing **at = &f->closing;
    while (*at && drain_left(f, (*at)->target, true))
        at = &(*at)->next;
    struct closing *k = *at;
    if (k)
        *at = k->next;
    return k;
}

static void closing_over(struct closing *k, int rc)
{
    struct client *c = k->f->c;
    async_reply_leave(c, &k->async);
    k->done(k->arg, rc);
    cfile_unref(k->f);
    free(k);
    async_reply_left(c);
}

static void *close_waiting(void *arg)
{
    struct closing *k = arg;
    closing_over(k, cfile_flush(k->f));
    return NULL;
}

void close_wait_go_on(struct cfile *f)
{
    for (;;) {
        lock_acquire(&f->mu);
        struct closing *k = closing_take(f);
        bool deferred = k && flush_deferred(f, k->target);
        int rc = deferred ? cfile_take_err(f) : 0;
        lock_release(&f->mu);
        if (!k)
            return;
        if (deferred || !async_reply_thread(close_waiting, k))
            closing_over(k, deferred ? rc : -EIO);
    }
}

static void *closing_hold(struct async_reply *l)
{
    struct cfile *f = ((struct closing *)l)->f;
    cfile_ref(f);
    return f;
}

/* The flusher may be waiting for metad. */
static void closing_look(void *arg)
{
    struct cfile *f = arg;
    lock_acquire(&f->mu);
    send_check_stall(f);
    send_pump(f);
    lock_release(&f->mu);
    close_wait_go_on(f);
    cfile_unref(f);
}

static const struct async_reply_kind closing_kind = {closing_hold, closing_look};

/* Sends all there is, and lists the close, if all that it has to wait for is acknowledgements. */
static bool close_async(struct cfile *f, cfile_flush_fn *done, void *arg)
{
    struct client *c = f->c;
    LOCK_SCOPE(&f->mu);
    if (!f->head || c->cfg.sync_all || c->cfg.async_close || quota_applies(f) ||
        !lease_cache_exclusive(c->leases, f->ino))
        return false;
    uint64_t target = f->next_abuf;
    drain_send(f, false);
    if (!drain_left(f, target, true))
        return false;
    struct closing *k = malloc(sizeof(*k));
    if (!k)
        abort();
    *k = (struct closing){.next = f->closing, .f = f, .target = target, .done = done, .arg = arg};
    cfile_ref(f);
    async_reply_begin(c, &k->async, &closing_kind);
    f->closing = k;
    return true;
}

void cfile_flush_async(struct cfile *f, cfile_flush_fn *done, void *arg)
{
    if (!close_async(f, done, arg))
        done(arg, cfile_flush(f));
}
