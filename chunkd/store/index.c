/* The overlay of recently changed chunks, and the merge with LMDB.
 *
 * A chunk in RAM is complete: all its extents. States: dirty (on the dirty list: LMDB lacks
 * something), clean (on the clean list: a collect took everything; LMDB has it once `committed`
 * reached its epoch), gone (deleted; stays until LMDB forgot it too). Clean chunks leave RAM oldest
 * first when there are more than CLEAN_MAX.
 *
 * Lookup order makes reads right without a global lock: RAM first, then LMDB. A chunk leaves RAM
 * only after the commit that holds it, and a reader that misses it in RAM starts its LMDB
 * transaction after that commit. Only the writer changes chunks, so it alone needs no lock to look
 * at them; changing fields that readers see takes the shard's lock for the moment.
 *
 * A walk goes over RAM first and remembers what it saw, then over LMDB in slices, skipping those:
 * whatever leaves RAM in between is in LMDB by then. */
#include "index.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/hash.h"
#include "base/lock.h"

#define CLEAN_MAX 8192u
#define SLICE 1024

static struct index_shard *shard_of(struct index *ix, uint64_t chunk)
{
    return &ix->shards[(hash_u64(chunk) >> 32) %
                       INDEX_SHARDS]; /* not the bits that the table uses */
}

static void *must(void *p)
{
    if (!p)
        abort(); /* out of memory: like buf_new(), there is nothing sensible to go on with */
    return p;
}

/* ---- lists ---- */

static void list_add(struct chunk_list *l, struct chunk *c)
{
    c->next = NULL;
    c->prev = l->tail;
    if (l->tail)
        l->tail->next = c;
    else
        l->head = c;
    l->tail = c;
    l->n++;
}

static void list_del(struct chunk_list *l, struct chunk *c)
{
    *(c->prev ? &c->prev->next : &l->head) = c->next;
    *(c->next ? &c->next->prev : &l->tail) = c->prev;
    l->n--;
}

static void set_dirty(struct index *ix, struct chunk *c)
{
    if (c->dirty)
        return;
    list_del(&ix->clean, c);
    list_add(&ix->dirty, c);
    c->dirty = true;
}

/* ---- hash ---- */

void index_init(struct index *ix, struct index_db *db, extents_fn *extent, void *arg)
{
    memset(ix, 0, sizeof(*ix));
    ix->db = db;
    ix->extent = extent;
    ix->arg = arg;
    ix->chunks = index_db_chunks(db);
    for (size_t i = 0; i < INDEX_SHARDS; i++) {
        struct index_shard *s = &ix->shards[i];
        lock_init(&s->mu, LOCK_INDEX_STRIPE);
        HASH_TABLE_INIT(&s->chunks, 16, struct chunk, link, chunk);
    }
}

static void chunk_free(struct chunk *c)
{
    free(c->x.v);
    free(c);
}

void index_free(struct index *ix)
{
    for (size_t i = 0; i < INDEX_SHARDS; i++) {
        struct index_shard *s = &ix->shards[i];
        if (!s->chunks.slots)
            return; /* it was never made */
        HASH_TABLE_EACH (&s->chunks, p)
            chunk_free(HASH_ENTRY(p, struct chunk, link));
        hash_table_free(&s->chunks);
        lock_destroy(&s->mu);
    }
}

static struct chunk *shard_find(const struct index_shard *s, uint64_t chunk)
{
    return HASH_ENTRY(hash_table_find(&s->chunks, chunk), struct chunk, link);
}

static void shard_add(struct index *ix, struct chunk *c)
{
    struct index_shard *s = shard_of(ix, c->chunk);
    lock_acquire(&s->mu);
    hash_table_add(&s->chunks, &c->link);
    lock_release(&s->mu);
}

static void shard_del(struct index *ix, struct chunk *c)
{
    struct index_shard *s = shard_of(ix, c->chunk);
    lock_acquire(&s->mu);
    hash_table_remove(&s->chunks, &c->link);
    lock_release(&s->mu);
    chunk_free(c);
}

/* ---- changes: writer thread ---- */

int index_get(struct index *ix, uint64_t chunk, bool create, struct chunk **out)
{
    *out = shard_find(shard_of(ix, chunk), chunk);
    if (*out)
        return 0;
    struct chunk *c = must(calloc(1, sizeof(*c)));
    int rc = index_db_lookup(ix->db, chunk, 0, UINT32_MAX, &c->row, &c->x);
    if (rc && (rc != -ERR_NO_CHUNK || !create)) {
        chunk_free(c);
        return rc == -ERR_NO_CHUNK ? 0 : rc;
    }
    c->chunk = chunk;
    c->gone = rc == -ERR_NO_CHUNK;
    c->row.len = c->plan_len = c->x.len;
    c->saved = c->x.n;
    list_add(&ix->clean, c);
    shard_add(ix, c);
    *out = c;
    return 0;
}

static void live_note(struct index *ix, const struct extents *x)
{
    for (uint32_t i = 0; i < x->n; i++)
        ix->extent(ix->arg, &x->v[i], false);
}

/* Replaces what c is; x (may be NULL for empty) moves in. */
static void index_replace(struct index *ix, struct chunk *c, bool gone, const struct chunk_row *row,
                          struct extents *x)
{
    struct index_shard *s = shard_of(ix, c->chunk);
    struct extents old = c->x;
    lock_acquire(&s->mu);
    c->x = x ? *x : (struct extents){0};
    c->row = *row;
    c->row.len = c->plan_len = c->x.len;
    if (c->gone && !gone)
        ix->chunks++;
    else if (!c->gone && gone)
        ix->chunks--;
    c->gone = gone;
    lock_release(&s->mu);
    c->rewrite = true;
    c->saved = 0;
    set_dirty(ix, c);
    live_note(ix, &old);
    free(old.v);
    if (x)
        *x = (struct extents){0};
}

void index_start(struct index *ix, struct chunk *c, uint64_t gen, uint64_t session)
{
    struct chunk_row row = {.gen = gen, .session = session, .lo = UINT64_MAX};
    if (!c->gone) {
        row.lo = c->row.lo;
        row.hi = c->row.hi;
    }
    index_replace(ix, c, false, &row, NULL);
}

bool index_put(struct index *ix, struct chunk *c, const struct ext *e)
{
    struct index_shard *s = shard_of(ix, c->chunk);
    lock_acquire(&s->mu);
    uint32_t n = c->x.n;
    long at = extents_put(&c->x, e, ix->extent, ix->arg);
    c->row.len = c->plan_len = c->x.len;
    if (e->seg < c->row.lo)
        c->row.lo = e->seg;
    if (e->seg > c->row.hi)
        c->row.hi = e->seg;
    lock_release(&s->mu);
    if (at < 0)
        return false;
    if (at < n)
        c->rewrite = true;
    set_dirty(ix, c);
    return true;
}

void index_swap(struct index *ix, struct chunk *c, uint64_t gen, uint64_t session,
                struct extents *x, uint64_t lo, uint64_t hi)
{
    struct chunk_row row = {.gen = gen, .session = session, .lo = lo, .hi = hi};
    if (!c->gone) {
        row.lo = c->row.lo < lo ? c->row.lo : lo;
        row.hi = c->row.hi > hi ? c->row.hi : hi;
    }
    index_replace(ix, c, false, &row, x);
}

void index_remove(struct index *ix, struct chunk *c)
{
    if (c->gone)
        return;
    index_replace(ix, c, true, &c->row, NULL);
}

/* ---- checkpoints ---- */

static void collect_chunk(struct chunk *c, struct delta *d)
{
    DELTA_GROW(d, chunks, 1);
    struct delta_chunk *dc = &d->chunks[d->n_chunks++];
    uint32_t from = c->rewrite ? 0 : c->saved;
    *dc = (struct delta_chunk){.chunk = c->chunk,
                               .row = c->row,
                               .gone = c->gone,
                               .rewrite = c->rewrite,
                               .n = c->x.n - from,
                               .first = d->n_exts};
    DELTA_GROW(d, exts, dc->n);
    if (dc->n)
        memcpy(d->exts + d->n_exts, c->x.v + from, dc->n * sizeof(*d->exts));
    d->n_exts += dc->n;
    c->saved = c->x.n;
    c->rewrite = c->dirty = false;
}

static void evict(struct index *ix)
{
    uint64_t committed = ix->committed;
    for (struct chunk *c = ix->clean.head, *next; c; c = next) {
        next = c->next;
        if (c->epoch > committed)
            break; /* the list is in epoch order, save for loaded ones, which have epoch 0 */
        if (!c->gone && ix->clean.n <= CLEAN_MAX)
            continue;
        list_del(&ix->clean, c);
        shard_del(ix, c);
    }
}

uint64_t index_collect(struct index *ix, struct delta *d)
{
    uint64_t epoch = ++ix->epoch;
    evict(ix);
    while (ix->dirty.head) {
        struct chunk *c = ix->dirty.head;
        collect_chunk(c, d);
        c->epoch = epoch;
        list_del(&ix->dirty, c);
        list_add(&ix->clean, c);
    }
    return epoch;
}

void index_committed(struct index *ix, uint64_t epoch)
{
    ix->committed = epoch;
}

/* ---- reading: any thread ---- */

/* 1 when RAM does not know the chunk. */
static int lookup_ram(struct index *ix, uint64_t chunk, uint32_t from, uint32_t to,
                      struct chunk_row *row, struct extents *x)
{
    struct index_shard *s = shard_of(ix, chunk);
    lock_acquire(&s->mu);
    const struct chunk *c = shard_find(s, chunk);
    int rc = !c ? 1 : c->gone ? -ERR_NO_CHUNK : 0;
    if (!rc) {
        *row = c->row;
        for (uint32_t i = x ? extents_find(&c->x, from) : c->x.n; i < c->x.n; i++) {
            if (c->x.v[i].off >= to)
                break;
            extents_push(x, &c->x.v[i]);
        }
    }
    lock_release(&s->mu);
    return rc;
}

int index_lookup(struct index *ix, uint64_t chunk, uint32_t from, uint32_t to,
                 struct chunk_row *row, struct extents *x)
{
    int rc = lookup_ram(ix, chunk, from, to, row, x);
    return rc == 1 ? index_db_lookup(ix->db, chunk, from, to, row, x) : rc;
}

struct walk {
    uint64_t *seen;
    size_t n, cap;
    bool (*fn)(void *arg, uint64_t chunk, uint32_t len, uint64_t session);
    void *arg;
};
struct walk_row {
    uint64_t chunk, session;
    uint32_t len;
};

/* One shard is copied under its lock, then shown without. */
static bool walk_shard(struct index_shard *s, struct walk *w)
{
    lock_acquire(&s->mu);
    struct walk_row *rows = must(malloc((s->chunks.n + 1) * sizeof(*rows)));
    size_t n = 0;
    HASH_TABLE_EACH (&s->chunks, p) {
        const struct chunk *c = HASH_ENTRY(p, struct chunk, link);
        if (!c->gone)
            rows[n++] = (struct walk_row){c->chunk, c->row.session, c->row.len};
    }
    lock_release(&s->mu);
    w->seen = must(delta_grow(w->seen, &w->cap, w->n + n + 1, sizeof(*w->seen)));
    bool more = true;
    for (size_t i = 0; i < n && more; i++) {
        w->seen[w->n++] = rows[i].chunk;
        more = w->fn(w->arg, rows[i].chunk, rows[i].len, rows[i].session);
    }
    free(rows);
    return more;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool walk_slice(struct index *ix, struct walk *w, const uint64_t *chunks,
                       const struct chunk_row *rows, long n)
{
    for (long i = 0; i < n; i++) {
        if (bsearch(&chunks[i], w->seen, w->n, sizeof(*w->seen), by_number))
            continue;
        struct chunk_row row = rows[i];
        int rc = lookup_ram(ix, chunks[i], 0, 0, &row, NULL);
        if (rc < 0)
            continue;
        if (!w->fn(w->arg, chunks[i], row.len, row.session))
            return false;
    }
    return true;
}

int index_walk(struct index *ix,
               bool (*fn)(void *arg, uint64_t chunk, uint32_t len, uint64_t session), void *arg)
{
    struct walk w = {.fn = fn, .arg = arg};
    bool more = true;
    for (size_t i = 0; i < INDEX_SHARDS && more; i++)
        more = walk_shard(&ix->shards[i], &w);
    uint64_t *chunks = must(malloc(SLICE * sizeof(*chunks)));
    struct chunk_row *rows = must(malloc(SLICE * sizeof(*rows)));
    if (w.n)
        qsort(w.seen, w.n, sizeof(*w.seen), by_number);
    long n = SLICE;
    for (uint64_t after = 0; more && n == SLICE;) {
        n = index_db_slice(ix->db, after, chunks, rows, SLICE);
        if (n > 0) {
            after = chunks[n - 1];
            more = walk_slice(ix, &w, chunks, rows, n);
        }
    }
    free(chunks);
    free(rows);
    free(w.seen);
    return n < 0 ? (int)n : 0;
}
