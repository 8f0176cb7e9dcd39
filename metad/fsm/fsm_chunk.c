/* Chunks and the extents that refer to them: commit, cutting, reference counts.
 *
 * A chunk enters with the first commit that names it and leaves when the last extent that refers to
 * it is gone. refs counts extents, live their bytes; both follow from the extent maps' callbacks,
 * nothing else changes them. Which files those extents are of, and hence the chunk's goal, is kept
 * by fsm_share.c. Extents of chunk 0 are reserved ranges (fsm_fallocate.c): counted in the file's
 * alloc and in n.reserved, they belong to no chunk.
 *
 * A commit may name a chunk that the file owns, or bytes that no commit named yet, for the session
 * that wrote them: even where the file does not own the chunk (any more), since another client may
 * have cut its extents while its clones keep the chunk. Others' chunks are refused with EPERM: only
 * a clone makes a file the owner of bytes that it did not write.
 *
 * All chunks that a commit names are pinned (counted) before the first extent goes in, so that an
 * extent which replaces a chunk's last bytes does not free it under the next one.
 *
 * Locations are soft: kept here for memory's sake, never read by an operation. Up to three are
 * inline. Failure modes: codes only; out of memory aborts. Thread context: fsm lock. */
#include "fsm_internal.h"
#include <stdlib.h>
#include <string.h>

static uint32_t *htab_next(void *ctx, uint32_t h)
{
    return &fsm_chunk_at(ctx, h)->next;
}

static uint64_t htab_hash(void *ctx, uint32_t h)
{
    return hash_u64(fsm_chunk_at(ctx, h)->id);
}

const struct fsm_htab_ops fsm_chunk_htab_ops = {htab_next, htab_hash};

static uint32_t chunk_find(const struct fsm *f, uint64_t id)
{
    if (!id)
        return 0;
    uint32_t h = fsm_htab_first(&f->by_chunk, hash_u64(id));
    while (h && fsm_chunk_at(f, h)->id != id)
        h = fsm_chunk_at(f, h)->next;
    return h;
}

struct fsm_chunk *fsm_chunk_find(struct fsm *f, uint64_t id)
{
    uint32_t h = chunk_find(f, id);
    return h ? fsm_chunk_at(f, h) : NULL;
}

unsigned fsm_chunk_files(struct fsm *f, const struct fsm_chunk *c)
{
    return fsm_share_files(f, c);
}

uint32_t fsm_chunk_new(struct fsm *f, uint64_t id, uint64_t session)
{
    uint32_t h = fsm_slab_alloc(&f->chunks);
    struct fsm_chunk *c = fsm_chunk_at(f, h);

    c->id = id;
    c->session = session;
    fsm_htab_insert(&f->by_chunk, &fsm_chunk_htab_ops, f, h);
    return h;
}

void fsm_chunk_changed(struct fsm *f, struct fsm_chunk *c, bool grew)
{
    if (f->hooks.chunk_changed)
        f->hooks.chunk_changed(f->hooks.arg, c, grew);
}

static void release(struct fsm *f, uint32_t h)
{
    struct fsm_chunk *c = fsm_chunk_at(f, h);

    fsm_htab_remove(&f->by_chunk, &fsm_chunk_htab_ops, f, h);
    if (f->hooks.chunk_freed)
        f->hooks.chunk_freed(f->hooks.arg, c);
    fsm_share_drop(f, c);
    fsm_chunk_drop_locs(c);
    fsm_slab_release(&f->chunks, h);
}

/* ---- locations ---- */

struct fsm_loc *fsm_chunk_locs(struct fsm_chunk *c)
{
    return c->loc_heap ? c->u.ptr : c->u.inl;
}

/* loc_heap is the heap list's capacity, 0 while inline. */
int fsm_chunk_loc_add(struct fsm_chunk *c, struct fsm_loc l)
{
    enum { INLINE = sizeof(c->u.inl) / sizeof(c->u.inl[0]) };
    struct fsm_loc *v = fsm_chunk_locs(c);

    for (unsigned i = 0; i < c->nloc; i++) {
        if (v[i].chunkd == l.chunkd) {
            v[i] = l;
            return 0;
        }
    }
    unsigned cap = c->loc_heap ? c->loc_heap : (unsigned)INLINE;
    if (c->nloc == cap) {
        if (cap >= 192)
            return -ENOSPC; /* far above any goal */
        struct fsm_loc *n = malloc(2ul * cap * sizeof(*n));
        if (!n)
            return -ENOMEM;
        memcpy(n, v, c->nloc * sizeof(*n));
        if (c->loc_heap)
            free(v);
        c->u.ptr = v = n;
        c->loc_heap = (uint8_t)(2 * cap);
    }
    v[c->nloc++] = l;
    return 0;
}

void fsm_chunk_loc_del(struct fsm_chunk *c, uint32_t chunkd)
{
    struct fsm_loc *v = fsm_chunk_locs(c);

    for (unsigned i = 0; i < c->nloc; i++) {
        if (v[i].chunkd == chunkd) {
            v[i] = v[--c->nloc];
            break;
        }
    }
    if (c->loc_heap && c->nloc <= sizeof(c->u.inl) / sizeof(c->u.inl[0])) {
        struct fsm_loc keep[sizeof(c->u.inl) / sizeof(c->u.inl[0])];
        memcpy(keep, v, c->nloc * sizeof(*v));
        free(v);
        memcpy(c->u.inl, keep, c->nloc * sizeof(*v));
        c->loc_heap = 0;
    }
}

void fsm_chunk_drop_locs(struct fsm_chunk *c)
{
    if (c->loc_heap)
        free(c->u.ptr);
    c->loc_heap = c->nloc = 0;
}

/* *pos is a slab handle: chunks never move, so one that exists all the time is met. */
bool fsm_chunk_walk(struct fsm *f, uint64_t *pos, size_t max,
                    void (*fn)(void *arg, struct fsm_chunk *c), void *arg)
{
    for (size_t k = 0; k < max && *pos < f->chunks.used; k++) {
        struct fsm_chunk *c = fsm_chunk_at(f, (uint32_t)++ * pos);
        if (c->id)
            fn(arg, c);
    }
    return *pos < f->chunks.used;
}

/* ---- extents ---- */

struct cut_ctx {
    struct fsm *f;
    uint32_t file;
};

/* len more bytes of h have a place (less when negative). */
static void count(struct fsm *f, uint32_t h, uint64_t chunk, int64_t len)
{
    struct fsm_inode *i = fsm_inode_at(f, h);

    assert(len >= 0 || i->x.alloc >= (uint64_t)-len);
    i->x.alloc += (uint64_t)len;
    if (chunk)
        f->n.bytes += (uint64_t)len;
    else
        f->n.reserved += (uint64_t)(len * i->goal);
}

static void on_gone(void *arg, const struct ext *gone, int refs)
{
    struct cut_ctx *x = arg;

    count(x->f, x->file, gone->chunk, -(int64_t)gone->len);
    fsm_charge(x->f, fsm_inode_at(x->f, x->file), -(int64_t)gone->len, 0);
    if (!gone->chunk)
        return;
    uint32_t h = chunk_find(x->f, gone->chunk);
    assert(h);
    struct fsm_chunk *c = fsm_chunk_at(x->f, h);
    fsm_share_count(x->f, c, x->file, refs, -(int64_t)gone->len);
    if (c->refs == 0)
        release(x->f, h);
}

void fsm_file_punch(struct fsm *f, uint32_t h, uint64_t off, uint64_t len)
{
    struct cut_ctx x = {f, h};

    if (extmap_remove(&fsm_inode_at(f, h)->u.map, off, len, on_gone, &x) != 0)
        fsm_oom();
}

void fsm_file_cut(struct fsm *f, uint32_t h, uint64_t from)
{
    fsm_file_punch(f, h, from, UINT64_MAX - from);
}

/* From the front, as many extents as this command may still visit. */
bool fsm_file_cut_some(struct fsm *f, uint32_t h)
{
    const struct extmap *m = &fsm_inode_at(f, h)->u.map;
    uint64_t to = 0;
    struct ext e;

    if (extmap_count(m) <= f->steps) {
        f->steps -= (uint32_t)extmap_count(m);
        return true;
    }
    for (; f->steps && extmap_find(m, to, &e); f->steps--)
        to = e.file_off + e.len;
    if (to)
        fsm_file_punch(f, h, 0, to);
    return false;
}

void fsm_file_pin(struct fsm *f, uint32_t h, const struct ext *e)
{
    fsm_charge(f, fsm_inode_at(f, h), e->len, 0);
    fsm_file_count(f, h, e);
}

void fsm_file_count(struct fsm *f, uint32_t h, const struct ext *e)
{
    count(f, h, e->chunk, e->len);
    if (!e->chunk)
        return;
    struct fsm_chunk *c = fsm_chunk_find(f, e->chunk);
    assert(c);
    fsm_share_count(f, c, h, 1, e->len);
}

void fsm_file_put(struct fsm *f, uint32_t h, const struct ext *e)
{
    struct fsm_inode *i = fsm_inode_at(f, h);
    struct cut_ctx ctx = {f, h};
    bool merged = false;

    if (extmap_insert(&i->u.map, e, on_gone, &ctx, &merged) != 0)
        fsm_oom();
    if (merged && e->chunk) {
        struct fsm_chunk *c = fsm_chunk_find(f, e->chunk);
        assert(c && c->refs > 1);
        fsm_share_count(f, c, h, -1, 0);
    }
}

/* ---- commit ---- */

#define COMMIT_BYTES (2ull << 30) /* in one command, so that live fits 32 bits while pinned */
#define EXTS_MAX (1u << 20)       /* parts of one command */

/* Whether the commit may bring the chunk into being. The leader knows what it granted to whom; a
 * commit logged before leaders looked may. */
static bool may_begin(const Replfs__CommitOp *op, uint64_t chunk)
{
    bool own = !op->checked;
    for (size_t k = 0; k < op->n_own && !own; k++)
        own = op->own[k] == chunk;
    return own;
}

static int extent_check(const struct fsm *f, uint64_t session, uint32_t file, uint64_t base,
                        const Replfs__CommitOp *op, const Replfs__Extent *e)
{
    if (e->len < 1 || e->len > FSM_CHUNK_MAX || e->chunk_off > FSM_CHUNK_MAX - e->len)
        return -EINVAL;
    if (e->len > FSM_SIZE_MAX - base || e->file_off > FSM_SIZE_MAX - base - e->len)
        return -EFBIG;
    if (e->chunk == 0 || e->chunk >= f->chunk_upto)
        return -EINVAL; /* was never granted */
    uint32_t h = chunk_find(f, e->chunk);
    if (!h)
        return may_begin(op, e->chunk) ? 0 : -EPERM;
    const struct fsm_chunk *c = fsm_chunk_at(f, h);
    bool own = c->session == session;
    if (own && e->chunk_off >= c->len)
        return 0;
    if (!fsm_share_has(f, c, file))
        return -EPERM;
    if (!own && e->chunk_off + e->len > c->len)
        return -EPERM;
    if (fsm_share_live(f, c) > COMMIT_BYTES && fsm_share_files(f, c) == 1)
        return -EPERM; /* the same bytes named over and over */
    return 0;
}

/* Where the offsets of a commit count from. */
static uint64_t commit_base(const struct fsm *f, uint32_t file, const Replfs__CommitOp *op)
{
    return op->append ? fsm_inode_at(f, file)->size : 0;
}

static int commit_check(const struct fsm *f, uint64_t session, const Replfs__CommitOp *op,
                        uint32_t *file)
{
    *file = fsm_inode_find(f, op->ino);
    if (!*file)
        return -ENOENT;
    uint16_t mode = fsm_inode_at(f, *file)->mode;
    if (!S_ISREG(mode))
        return S_ISDIR(mode) ? -EISDIR : -EINVAL;
    if (!session)
        return -ERR_SESSION;
    if (op->n_extents > FSM_COMMIT_MAX)
        return -EINVAL;
    uint64_t sum = 0, base = commit_base(f, *file, op);
    for (size_t k = 0; k < op->n_extents; k++) {
        int r = extent_check(f, session, *file, base, op, op->extents[k]);
        if (r)
            return r;
        sum += op->extents[k]->len;
    }
    if (sum >= COMMIT_BYTES || (op->over && op->append))
        return -EINVAL;
    if (op->over)
        return 0; /* takes no more room than there is taken */
    return fsm_quota_commit(f, fsm_inode_at(f, *file), op, base, sum);
}

/* What a commit puts into the map. */
struct exts {
    struct ext *v;
    size_t n, cap;
};

static bool chunk_continues(const struct ext *a, const struct ext *b)
{
    return a->file_off + a->len == b->file_off && a->chunk == b->chunk &&
           (uint64_t)a->chunk_off + a->len == b->chunk_off && a->len <= FSM_CHUNK_MAX - b->len;
}

static int exts_add(struct exts *x, const struct ext *e)
{
    if (x->n == EXTS_MAX)
        return -EINVAL;
    if (x->n == x->cap) {
        x->cap = x->cap ? 2 * x->cap : 64;
        x->v = realloc(x->v, x->cap * sizeof(*x->v));
        if (!x->v)
            fsm_oom();
    }
    x->v[x->n++] = *e;
    return 0;
}

/* Of e, the parts where the file still shows what they are a copy of. Parts that continue each
 * other are one: how the map's extents happen to be joined says when they were written, and a limit
 * must not depend on that. */
static int exts_add_over(struct exts *x, const struct extmap *map, const Replfs__CommitOp *op,
                         const struct ext *e)
{
    uint64_t pos = e->file_off, end = pos + e->len;
    size_t first = x->n;
    struct ext old;
    int r = 0;

    while (!r && pos < end && extmap_find(map, pos, &old) && old.file_off < end) {
        uint64_t from = old.file_off > pos ? old.file_off : pos;
        uint64_t to = old.file_off + old.len < end ? old.file_off + old.len : end;
        struct ext part = {from, e->chunk, e->chunk_off + (uint32_t)(from - e->file_off),
                           (uint32_t)(to - from)};
        bool same = old.chunk == op->over &&
                    (uint64_t)old.chunk_off - old.file_off == (uint64_t)op->over_shift;
        if (same && x->n > first && chunk_continues(&x->v[x->n - 1], &part))
            x->v[x->n - 1].len += part.len;
        else if (same)
            r = exts_add(x, &part);
        pos = to;
    }
    return r;
}

static int exts_collect(const struct fsm *f, uint32_t file, const Replfs__CommitOp *op,
                        struct exts *x)
{
    uint64_t base = commit_base(f, file, op);
    int r = 0;

    for (size_t k = 0; !r && k < op->n_extents; k++) {
        const Replfs__Extent *w = op->extents[k];
        struct ext e = {base + w->file_off, w->chunk, w->chunk_off, w->len};
        if (op->over)
            r = exts_add_over(x, &fsm_inode_at(f, file)->u.map, op, &e);
        else
            r = exts_add(x, &e);
    }
    return r;
}

/* Counts one extent before it is in the map. */
static void pin(struct fsm *f, uint64_t session, uint32_t file, const struct ext *e)
{
    uint32_t h = chunk_find(f, e->chunk);

    if (!h)
        h = fsm_chunk_new(f, e->chunk, session);
    struct fsm_chunk *c = fsm_chunk_at(f, h);
    fsm_file_pin(f, file, e);
    if (c->len < e->chunk_off + e->len) {
        c->len = e->chunk_off + e->len;
        fsm_chunk_changed(f, c, true);
    }
}

static void insert(struct fsm *f, uint32_t file, const struct ext *e)
{
    struct fsm_inode *i = fsm_inode_at(f, file);

    fsm_file_put(f, file, e);
    if (i->size < e->file_off + e->len)
        i->size = e->file_off + e->len;
}

static void written(struct fsm *f, struct fsm_inode *i, const Replfs__CommitOp *op)
{
    int64_t changed = i->ctime;

    i->mtime = op->mtime_ns ? op->mtime_ns : f->now;
    fsm_inode_strip(f, i, op->kill_suid);
    fsm_inode_touch(f, i, false);
    if (op->written_then && op->mtime_ns >= changed && op->mtime_ns <= f->now)
        i->ctime = op->mtime_ns; /* as the client has shown it since */
}

int fsm_op_commit(struct fsm *f, uint64_t session, const Replfs__CommitOp *op,
                  struct fsm_result *res)
{
    uint32_t file;
    struct exts x = {0};
    int r = commit_check(f, session, op, &file);
    if (!r)
        r = exts_collect(f, file, op, &x);
    if (!r) {
        res->ino = op->ino;
        res->value = commit_base(f, file, op);
        for (size_t k = 0; k < x.n; k++)
            pin(f, session, file, &x.v[k]);
        for (size_t k = 0; k < x.n; k++)
            insert(f, file, &x.v[k]);
        if (op->over) /* the bytes are the same: only the one that knows the map must learn it */
            fsm_inode_at(f, file)->change = ++f->change;
        else
            written(f, fsm_inode_at(f, file), op);
    }
    free(x.v);
    return r;
}
