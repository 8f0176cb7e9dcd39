/* The committed extents of a file, as far as they are known: always a prefix, [0, base_to).
 *
 * Our own commits and truncates change the map directly and raise map_gen, so that a layout asked for before and
 * answered after is refused instead of bringing old extents back. A foreign change (attr.change differs at open or
 * getattr, or a chunk that is gone) drops the map. io/layout.c fetches what is missing. */
#include "client/file/committed_map.h"
#include <stdlib.h>
#include "base/extmap.h"
#include "base/u64map.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/file/chunk_loc.h"
#include "client/file/whole.h"

void map_add_loc(struct cfile *f, const struct cloc *l)
{
    struct cloc *have = u64map_get_ptr(&f->locs, l->chunk);
    if (!have) {
        have = malloc(sizeof(*have));
        if (!have)
            return; /* found missing later, and asked for again */
        u64map_put_ptr(&f->locs, l->chunk, have);
    }
    *have = *l;
}

void map_drop(struct cfile *f)
{
    size_t pos = 0;
    for (struct cloc *l; (l = u64map_next_ptr(&f->locs, &pos));)
        free(l);
    u64map_free(&f->locs);
    extmap_free(&f->base);
    extmap_init(&f->base);
    whole_drop(f);
    f->base_to = 0;
    f->map_gen++;
    /* Chunks being written are known to us only. */
    if (f->wcur)
        map_add_loc(f, &f->wcur->loc);
    for (struct abuf *a = f->head; a; a = a->next) {
        if (a->wc)
            map_add_loc(f, &a->wc->loc);
    }
}

void map_take(struct cfile *f, const Replfs__LayoutReply *r, uint64_t gen)
{
    if (gen != f->map_gen)
        return;
    for (size_t i = 0; i < r->n_chunks; i++) {
        struct cloc l;
        if (!cloc_from(&l, r->chunks[i]))
            map_add_loc(f, &l);
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
