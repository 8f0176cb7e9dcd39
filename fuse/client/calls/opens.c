/* Opening and closing files.
 *
 * An open to read under a lease is answered here (open_here). The mark that metad does not know of it is made
 * before anything is looked at: a thread that takes the lease back or removes a name looks for the mark after
 * that. Any other open asks metad. The last close flushes; metad is told of it in a batch.
 *
 * Thread context: any but a loop thread. */
#include "client/calls/opens.h"
#include <errno.h>
#include <sys/stat.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"
#include "client/base/attr.h"
#include "client/base/client_clock.h"
#include "base/u64map.h"
#include "client/cache/lease_cache.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/committed_map.h"
#include "client/file/file_table.h"
#include "client/file/open_told.h"
#include "client/internal.h"
#include "client/names/atime.h"
#include "client/prefetch/prefetch.h"
#include "client/queue/queue.h"
#include "client/session/ask.h"
#include "client/session/closes.h"
#include "client/writeback/flush.h"
#include "client/writeback/send.h"

void cfile_attr(struct cfile *f, Replfs__Attr *out)
{
    lock_acquire(&f->mu);
    attr_copy(out, &f->attr);
    out->size = cfile_shown(f, NULL);
    lock_release(&f->mu);
    queue_overlay(f->c, out);
}

/* Without metad, under a lease. The mark is made before anything is looked at: a thread that takes the lease
 * back or removes a name looks for the mark after that. known: metad has it open for us. */
static bool open_here(struct cfile *f, bool known, Replfs__Attr *attr)
{
    struct client *c = f->c;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    lock_acquire(&c->files.mu);
    bool only = !known && f->opens == 1 && !f->untold;
    if (only) {
        f->untold = true;
        f->opened_at = clock_mono();
        c->files.untold++;
    }
    lock_release(&c->files.mu);
    prefetch_wait(c, f->ino);
    lock_acquire(&f->mu);
    bool here = !atomic_load(&c->files.removing) && lease_cache_getattr(c->leases, f->ino, &a) &&
                S_ISREG(a.mode) && a.nlink;
    if (here) {
        atime_overlay(c, &a);
        cfile_set_attr(f, &a);
        prefetch_open(f);
    }
    lock_release(&f->mu);
    if (here && attr)
        cfile_attr(f, attr);
    if (!here && only)
        cfile_now_told(f); /* as it is about to be */
    return here;
}

int cfile_open(struct client *c, uint64_t ino, bool write, Replfs__Attr *attr, struct cfile **out)
{
    struct cfile *f = cfile_table_open(c, ino);
    if (!f)
        return -ENOMEM;
    bool known = closes_take_back(c, ino);
    if (!write && open_here(f, known, attr)) {
        *out = f;
        return 0;
    }
    lock_acquire(&f->mu);
    uint64_t gen = f->map_gen;
    lock_release(&f->mu);
    Replfs__OpenReq m = REPLFS__OPEN_REQ__INIT;
    m.ino = ino;
    m.write = write;
    m.exclusive = write && !c->cfg.sync_all;
    RPC_ENVELOPE(env, OPEN_REQ, open_req, &m);
    struct rpc_result res;
    uint64_t begun = lease_cache_begin(c->leases);
    int rc = session_ask(c, &env, client_deadline(c), &res);
    const Replfs__OpenReply *r = NULL;
    if (!rc &&
        (res.rep->body_case != REPLFS__ENVELOPE__BODY_OPEN_REPLY || !res.rep->open_reply->attr))
        rc = -ERR_PROTOCOL;
    if (!rc) {
        r = res.rep->open_reply;
        lock_acquire(&f->mu);
        bool raced = gen != f->map_gen; /* with a commit or truncate of ours */
        atime_overlay(c, r->attr);
        cfile_set_attr(f, r->attr);
        if (r->layout) { /* fresh: what others did since the last look is in it */
            map_drop(f);
            if (!raced)
                map_take(f, r->layout, f->map_gen);
        }
        if (attr) {
            attr_copy(attr, &f->attr);
            attr->size = cfile_shown(f, NULL);
        }
        lock_release(&f->mu);
        if (r->lease)
            lease_cache_put_attr(c->leases, begun, r->attr, r->lease);
        if (attr)
            queue_overlay(c, attr);
        cfile_now_told(f);
        *out = f;
    }
    rpc_result_free(&res);
    if (rc && cfile_table_close(f))
        cfile_unref(f);
    return rc;
}

/* metad counts a file as open by the session that created it; client_mutate queued a close for
 * those that are only created. Unless that was sent already, taking it back is all there is to
 * do. */
int cfile_open_new(struct client *c, const Replfs__Attr *attr, struct cfile **out)
{
    struct cfile *f = cfile_table_open(c, attr->ino);
    if (!f)
        return -ENOMEM;
    lock_acquire(&f->mu);
    if (!f->attr.ino) {
        attr_copy(&f->attr, attr);
        if (!attr->size) { /* nothing there, nothing to ask for */
            f->base_to = UINT64_MAX;
            f->base_synced = true;
        }
    }
    lock_release(&f->mu);
    if (!closes_take_back(c, attr->ino))
        cfile_tell(c, attr->ino, true);
    *out = f;
    return 0;
}

void cfile_close(struct cfile *f)
{
    int rc = flush_file(f, FLUSH_ACCEPTED, false);
    cfile_ref(f);
    lock_acquire(&f->mu);
    if (f->head)
        f->linger++;
    else
        cfile_closed(f, rc);
    lock_release(&f->mu);
    cfile_unref(f);
}

/* At the end of client_close, when no other thread is left. */
void open_files_free(struct client *c)
{
    size_t pos = 0;
    while (c->files.dirty) {
        struct cfile *f = c->files.dirty;
        lock_acquire(&f->mu);
        cfile_ref(f);
        send_give_up(f, -EIO, "the client closes");
        cfile_mark_clean(f);
        lock_release(&f->mu);
        cfile_unref(f);
    }
    for (struct cfile *f; (f = u64map_next_ptr(&c->files.map, &pos));)
        cfile_unref(f);
    u64map_free(&c->files.map);
    cfile_take_refused(c);
    cfile_dirs_free(c);
}
