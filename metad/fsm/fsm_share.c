/* Which files a chunk belongs to: those whose extents name it.
 *
 * Nearly every chunk belongs to one file; then `owner` is its inode handle and refs and live say
 * all there is to say. A chunk with several owners has `shared` set and an entry in f->shares,
 * whose handle is in `owner`: the owners in order of their handles, each with the number of its
 * extents, and live in 64 bits (clones may name the same bytes over and over; the chunk's own live
 * is cut to 32). One file that names its chunk's bytes so often that live outgrows 32 bits has an
 * entry as well. Entries go when the plain form suffices again.
 *
 * A chunk's goal is the highest among its owners: it rises when one joins or gets a higher goal, and is
 * worked out anew when one that has the highest leaves or gets a lower one; the search ends at the first
 * other owner that has it, since none has more. All of this follows from the extents, so a checkpoint does
 * not hold it.
 *
 * Failure modes: out of memory aborts. Thread context: fsm lock. */
#include "fsm_internal.h"
#include <stdlib.h>
#include <string.h>

#define LIVE_PLAIN (1u << 31) /* what a chunk without an entry may count */

static struct fsm_share *entry(const struct fsm *f, const struct fsm_chunk *c)
{
    return fsm_slab_at(&f->shares, c->owner);
}

/* Position of the first owner with a handle of at least h. */
static uint32_t owner_pos(const struct fsm_share *s, uint32_t h)
{
    uint32_t lo = 0, hi = s->n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->own[mid].inode < h)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool fsm_share_has(const struct fsm *f, const struct fsm_chunk *c, uint32_t h)
{
    if (!c->shared)
        return c->owner == h;
    const struct fsm_share *s = entry(f, c);
    uint32_t p = owner_pos(s, h);
    return p < s->n && s->own[p].inode == h;
}

uint64_t fsm_share_live(const struct fsm *f, const struct fsm_chunk *c)
{
    return c->shared ? entry(f, c)->live : c->live;
}

uint32_t fsm_share_files(const struct fsm *f, const struct fsm_chunk *c)
{
    return c->shared ? entry(f, c)->n : 1;
}

/* ---- entries ---- */

static void entry_make(struct fsm *f, struct fsm_chunk *c)
{
    uint32_t e = fsm_slab_alloc(&f->shares);
    struct fsm_share *s = fsm_slab_at(&f->shares, e);

    s->id = c->id;
    s->live = c->live;
    s->cap = 2;
    s->own = fsm_xmalloc(s->cap * sizeof(*s->own));
    f->heap += s->cap * sizeof(*s->own);
    s->n = 1;
    s->own[0] = (struct fsm_sharer){c->owner, c->refs};
    c->owner = e;
    c->shared = 1;
}

void fsm_share_drop(struct fsm *f, struct fsm_chunk *c)
{
    if (!c->shared)
        return;
    struct fsm_share *s = entry(f, c);
    f->heap -= s->cap * sizeof(*s->own);
    free(s->own);
    fsm_slab_release(&f->shares, c->owner);
    c->shared = 0;
    c->owner = 0;
}

static void entry_simplify(struct fsm *f, struct fsm_chunk *c)
{
    const struct fsm_share *s = entry(f, c);

    if (s->n > 1 || s->live > LIVE_PLAIN)
        return;
    uint32_t owner = s->n ? s->own[0].inode : 0;
    c->live = (uint32_t)s->live;
    fsm_share_drop(f, c);
    c->owner = owner;
}

static void entry_grow(struct fsm *f, struct fsm_share *s)
{
    f->heap += s->cap * sizeof(*s->own);
    s->cap *= 2;
    s->own = fsm_xrealloc(s->own, s->cap * sizeof(*s->own));
}

/* Adds to h's count. True when h joined or left. */
static bool entry_count(struct fsm *f, struct fsm_share *s, uint32_t h, int refs)
{
    uint32_t p = owner_pos(s, h);

    if (p < s->n && s->own[p].inode == h) {
        s->own[p].refs += (uint32_t)refs;
        if (s->own[p].refs)
            return false;
        s->n--;
        memmove(&s->own[p], &s->own[p + 1], (s->n - p) * sizeof(*s->own));
        return true;
    }
    assert(refs > 0);
    if (s->n == s->cap)
        entry_grow(f, s);
    memmove(&s->own[p + 1], &s->own[p], (s->n - p) * sizeof(*s->own));
    s->own[p] = (struct fsm_sharer){h, (uint32_t)refs};
    s->n++;
    return true;
}

/* ---- goals ---- */

void fsm_share_goal(struct fsm *f, struct fsm_chunk *c, unsigned now)
{
    const struct fsm_share *s = c->shared ? entry(f, c) : NULL;
    uint32_t n = s ? s->n : 1;
    unsigned goal = now;

    for (uint32_t k = 0; k < n && goal < c->goal; k++) {
        const struct fsm_inode *i = fsm_inode_at(f, s ? s->own[k].inode : c->owner);
        if (goal < i->goal)
            goal = i->goal;
    }
    if (c->goal == goal)
        return;
    bool fresh = c->goal == 0;
    c->goal = (uint8_t)(goal & 15);
    if (!fresh) /* the one that makes a chunk tells of it when it has bytes */
        fsm_chunk_changed(f, c, false);
}

/* ---- counting ---- */

void fsm_share_count(struct fsm *f, struct fsm_chunk *c, uint32_t h, int refs, int64_t bytes)
{
    bool moved = c->refs == 0;
    uint64_t live = fsm_share_live(f, c);

    assert(bytes >= 0 || live >= (uint64_t)-bytes);
    live += (uint64_t)bytes;
    if (moved)
        c->owner = h;
    if (!c->shared && (c->owner != h || live > LIVE_PLAIN))
        entry_make(f, c); /* with the counts so far */
    c->refs += (uint32_t)refs;
    c->live = live < UINT32_MAX ? (uint32_t)live : UINT32_MAX;
    if (c->shared) {
        entry(f, c)->live = live;
        moved |= refs && entry_count(f, entry(f, c), h, refs);
        entry_simplify(f, c);
    }
    if (moved && c->refs)
        fsm_share_goal(f, c, refs > 0 ? fsm_inode_at(f, h)->goal : 0);
    if (bytes < 0 && c->refs && fsm_chunk_is_sparse(c) && f->hooks.chunk_sparse)
        f->hooks.chunk_sparse(f->hooks.arg, c);
}

/* ---- looking back ---- */

static bool extents_of(struct fsm *f, const struct fsm_chunk *c, uint32_t h, fsm_extent_fn *fn,
                       void *arg)
{
    const struct fsm_inode *i = fsm_inode_at(f, h);
    struct ext e;

    for (uint64_t off = 0; extmap_find(&i->u.map, off, &e); off = e.file_off + e.len)
        if (e.chunk == c->id && !fn(arg, i->ino, &e))
            return false;
    return true;
}

uint32_t fsm_chunk_owners(struct fsm *f, const struct fsm_chunk *c, uint64_t *ino, uint32_t max)
{
    const struct fsm_share *s = c->shared ? entry(f, c) : NULL;
    uint32_t n = s ? s->n : c->refs ? 1 : 0;

    for (uint32_t k = 0; k < n && k < max; k++)
        ino[k] = fsm_inode_at(f, s ? s->own[k].inode : c->owner)->ino;
    return n;
}

void fsm_chunk_extents(struct fsm *f, const struct fsm_chunk *c, fsm_extent_fn *fn, void *arg)
{
    const struct fsm_share *s = c->shared ? entry(f, c) : NULL;
    uint32_t n = s ? s->n : c->refs ? 1 : 0;

    for (uint32_t k = 0; k < n; k++)
        if (!extents_of(f, c, s ? s->own[k].inode : c->owner, fn, arg))
            return;
}
