/* A file that is open: its memory, its attributes, its errors.
 *
 * `refs` counts memory: one for the table, one for each piece of background work (an append on its way, a place on
 * the grants' waiting list, a caller that looked it up). The last reference frees all that hangs on the file;
 * the caller that drops it must not hold its mutex.
 *
 * Errors of the background stay in f->err until a write, flush or fsync takes them: once. They are counted as
 * well, so that every holder of the open file can be told. */
#include "client/file/cfile.h"
#include <assert.h>
#include <stdlib.h>
#include "base/extmap.h"
#include "base/lock.h"
#include "client/base/attr.h"
#include "base/u64map.h"
#include "client/cache/lease_cache.h"
#include "client/client.h"
#include "client/file/abuf.h"
#include "client/file/committed_map.h"
#include "client/file/wchunk.h"
#include "client/internal.h"

void cfile_ref(struct cfile *f)
{
    atomic_fetch_add(&f->refs, 1);
}

static void cfile_destroy(struct cfile *f)
{
    struct client *c = f->c;
    while (f->head) {
        struct abuf *a = f->head;
        f->head = a->next;
        abuf_free(f, a);
    }
    while (f->unsynced) {
        struct wchunk *wc = f->unsynced;
        f->unsynced = wc->next_unsynced;
        wchunk_unref(c, wc);
    }
    wchunk_unref(c, f->wcur);
    f->wcur = NULL;
    map_drop(f);
    u64map_free(&f->locs);
    u64map_free(&f->abufs);
    extmap_free(&f->base);
    extmap_free(&f->over);
    cond_destroy(&f->cv);
    lock_destroy(&f->mu);
    free(f);
}

void cfile_unref(struct cfile *f)
{
    unsigned before = atomic_fetch_sub(&f->refs, 1);
    assert(before);
    if (before == 1)
        cfile_destroy(f);
}

struct cfile *cfile_new(struct client *c, uint64_t ino)
{
    struct cfile *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->c = c;
    f->ino = ino;
    atomic_init(&f->refs, 1);
    lock_init(&f->mu, LOCK_FILE);
    cond_init(&f->cv);
    extmap_init(&f->base);
    extmap_init(&f->over);
    f->next_abuf = 1;
    replfs__attr__init(&f->attr);
    return f;
}

uint64_t cfile_size(const struct cfile *f)
{
    return f->dirty_end > f->attr.size ? f->dirty_end : f->attr.size;
}

bool cfile_shows(const struct cfile *f)
{
    return f->hidden == 0;
}

uint64_t cfile_shown(const struct cfile *f, const struct extmap **over)
{
    static const struct extmap nothing;
    bool shows = cfile_shows(f);

    if (over)
        *over = shows ? &f->over : &nothing;
    return shows ? cfile_size(f) : f->attr.size;
}

void cfile_set_attr(struct cfile *f, const Replfs__Attr *a)
{
    if (f->attr.ino && a->change < f->attr.change)
        return; /* an answer from before our last commit */
    if (f->attr.ino && a->change != f->attr.change) {
        map_drop(f);
        f->base_synced = false; /* the client that wrote that may not have synced it */
    }
    if (a->change != f->attr.change)
        f->seam = a->size; /* or may have */
    attr_copy(&f->attr, a);
}

void cfile_changed_since(struct cfile *f, uint64_t begun)
{
    if (lease_cache_held_since(f->c->leases, begun, f->ino))
        return;
    map_drop(f);
    f->base_synced = false;
}

/* Counted, so that every holder of the open file can be told: f->err only tells the first. */
void cfile_fail(struct cfile *f, int code)
{
    if (!f->err)
        f->err = code;
    f->last_err = code;
    f->nerrs++;
    atomic_fetch_add(&f->c->fails, 1);
}

int cfile_take_err(struct cfile *f)
{
    int e = f->err;
    f->err = 0;
    return e;
}

int cfile_error_since(struct cfile *f, unsigned *seen)
{
    lock_acquire(&f->mu);
    int rc = *seen != f->nerrs ? f->last_err : 0;
    *seen = f->nerrs;
    lock_release(&f->mu);
    return rc;
}
