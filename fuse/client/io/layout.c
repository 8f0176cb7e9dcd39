/* The committed extents of a file and where their chunks are, as fetched from metad.
 *
 * Known is always a prefix of the file, [0, base_to): reading beyond fetches more. Our own
 * commits and truncates change the map directly and raise map_gen, so that a layout asked for
 * before and answered after is refused instead of bringing old extents back. A foreign change
 * (attr.change differs at open or getattr, or a chunk that is gone) drops the map. All with
 * cfile.mu held; layout_need drops it while it waits. */
#include "client/internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"

#define LOG_MODULE "layout"
#define LAYOUT_EXTENTS 2048u

void layout_add_loc(struct cfile *f, const struct cloc *l)
{
    struct cloc *have = idmap_get(&f->locs, l->chunk);
    if (!have) {
        have = malloc(sizeof(*have));
        if (!have)
            return; /* found missing later, and asked for again */
        idmap_put(&f->locs, l->chunk, have);
    }
    *have = *l;
}

void layout_drop(struct cfile *f)
{
    size_t pos = 0;
    for (struct cloc *l; (l = idmap_next(&f->locs, &pos));)
        free(l);
    idmap_clear(&f->locs);
    extmap_free(&f->base);
    extmap_init(&f->base);
    prefetch_drop(f);
    f->base_to = 0;
    f->map_gen++;
    /* Chunks being written are known to us only. */
    if (f->wcur)
        layout_add_loc(f, &f->wcur->loc);
    for (struct abuf *a = f->head; a; a = a->next) {
        if (a->wc)
            layout_add_loc(f, &a->wc->loc);
    }
}

void layout_take(struct cfile *f, const Replfs__LayoutReply *r, uint64_t gen)
{
    if (gen != f->map_gen)
        return;
    for (size_t i = 0; i < r->n_chunks; i++) {
        struct cloc l;
        if (!cloc_from(&l, r->chunks[i]))
            layout_add_loc(f, &l);
    }
    if (f->base_to < r->covered_to && /* what our own commits left there may be outdated */
        extmap_remove(&f->base, f->base_to, r->covered_to - f->base_to, NULL, NULL))
        return;
    for (size_t i = 0; i < r->n_extents; i++) {
        const Replfs__Extent *x = r->extents[i];
        if (!x->len || x->file_off + x->len < x->file_off)
            continue;
        struct ext e = {x->file_off, x->chunk, x->chunk_off, x->len};
        if (extmap_insert(&f->base, &e, NULL, NULL, NULL))
            return;
    }
    if (f->base_to != UINT64_MAX && r->covered_to > f->base_to)
        f->base_to = r->covered_to;
    if (r->attr && f->base_to >= r->attr->size)
        f->base_to = UINT64_MAX;
}

static int layout_fetch(struct cfile *f, int64_t deadline)
{
    Replfs__LayoutReq m = REPLFS__LAYOUT_REQ__INIT;
    m.ino = f->ino;
    m.off = f->base_to;
    m.len = UINT64_MAX - f->base_to;
    m.max_extents = LAYOUT_EXTENTS;
    uint64_t gen = f->map_gen, from = f->base_to;
    f->fetching = true;
    pthread_mutex_unlock(&f->mu);
    RPC_ENVELOPE(env, LAYOUT_REQ, layout_req, &m);
    struct rpc_result res;
    int rc = session_ask(f->c, &env, deadline, &res);
    if (!rc && res.rep->body_case != REPLFS__ENVELOPE__BODY_LAYOUT_REPLY)
        rc = -ERR_PROTOCOL;
    pthread_mutex_lock(&f->mu);
    f->fetching = false;
    if (!rc) {
        const Replfs__LayoutReply *r = res.rep->layout_reply;
        nodes_saw_epoch(f->c, r->nodes_epoch);
        layout_take(f, r, gen);
        if (gen == f->map_gen) {
            if (r->attr)
                attr_copy(&f->attr, r->attr);
            if (f->base_to == from) /* nothing new: a metad that would make us ask for ever */
                f->base_to = UINT64_MAX;
        }
    }
    pthread_cond_broadcast(&f->cv);
    rpc_result_free(&res);
    return rc;
}

int layout_need(struct cfile *f, uint64_t end, int64_t deadline)
{
    while (f->base_to < end) {
        if (clock_mono() >= deadline)
            return -ERR_TIMEOUT;
        if (f->fetching) {
            cond_wait_until(&f->cv, &f->mu, deadline);
            continue;
        }
        int rc = layout_fetch(f, deadline);
        if (rc)
            return rc;
    }
    return 0;
}
