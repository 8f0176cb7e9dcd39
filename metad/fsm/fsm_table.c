/* Hash table and ordered set of the state machine.
 *
 * Hash table: linear hashing. With P the greatest power of two <= nbuckets, an object is in bucket
 * hash mod 2P when that bucket exists, else in hash mod P. Growing adds bucket nbuckets and moves
 * there what belongs to it from bucket nbuckets - P: work per insert is bounded, so a namespace of
 * any size never stalls while a table doubles. Buckets are 32-bit handles in segments of 16384.
 *
 * Ordered set: an array of blocks, each holding up to 128 handles in key order. Append at the end
 * (directory entries) leaves full blocks behind; an insert into a full block elsewhere splits it. A
 * removal merges a block that got small with a neighbour. Small sets have one block that grows from
 * 4 handles, and no array. Invariants: no block is empty; keys ascend within and across blocks.
 *
 * Thread context: under the fsm lock. Failure modes: out of memory aborts. */
#include "fsm_table.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "fsm_slab.h"

/* ---- hash table ---- */
#define SEG_SHIFT 14
#define SEG_BYTES (sizeof(uint32_t) << SEG_SHIFT)
#define LOAD 2

static uint32_t *bucket_at(const struct fsm_htab *t, uint32_t b)
{
    return (uint32_t *)(void *)t->seg[b >> SEG_SHIFT] + (b & ((1u << SEG_SHIFT) - 1));
}

static uint32_t bucket_of(const struct fsm_htab *t, uint64_t hash)
{
    uint32_t p = 1u << (31 - __builtin_clz(t->nbuckets));
    uint32_t b = (uint32_t)hash & (2 * p - 1);
    return b < t->nbuckets ? b : b - p;
}

static void bucket_add(struct fsm_htab *t)
{
    if (t->nbuckets >> SEG_SHIFT >= t->nseg)
        fsm_seg_push(&t->seg, &t->nseg, SEG_BYTES);
    t->nbuckets++;
}

void fsm_htab_init(struct fsm_htab *t)
{
    *t = (struct fsm_htab){0};
    while (t->nbuckets < 64)
        bucket_add(t);
}

void fsm_htab_fini(struct fsm_htab *t)
{
    fsm_seg_fini(&t->seg, &t->nseg, SEG_BYTES);
    *t = (struct fsm_htab){0};
}

static void htab_grow(struct fsm_htab *t, const struct fsm_htab_ops *ops, void *ctx)
{
    uint32_t fresh = t->nbuckets, from = fresh - (1u << (31 - __builtin_clz(fresh)));
    bucket_add(t);
    uint32_t *keep = bucket_at(t, from), *move = bucket_at(t, fresh);
    for (uint32_t h = *keep; h; h = *keep) {
        uint32_t *next = ops->next(ctx, h);
        if (bucket_of(t, ops->hash(ctx, h)) == from) {
            keep = next;
            continue;
        }
        *keep = *next;
        *next = *move;
        *move = h;
    }
}

void fsm_htab_insert(struct fsm_htab *t, const struct fsm_htab_ops *ops, void *ctx, uint32_t h)
{
    if (t->count / LOAD >= t->nbuckets && t->nbuckets < 1u << 31)
        htab_grow(t, ops, ctx);
    uint32_t *head = bucket_at(t, bucket_of(t, ops->hash(ctx, h)));
    *ops->next(ctx, h) = *head;
    *head = h;
    t->count++;
}

void fsm_htab_remove(struct fsm_htab *t, const struct fsm_htab_ops *ops, void *ctx, uint32_t h)
{
    uint32_t *link = bucket_at(t, bucket_of(t, ops->hash(ctx, h)));
    while (*link != h) {
        assert(*link);
        link = ops->next(ctx, *link);
    }
    uint32_t *next = ops->next(ctx, h);
    *link = *next;
    *next = 0;
    t->count--;
}

uint32_t fsm_htab_first(const struct fsm_htab *t, uint64_t hash)
{
    return *bucket_at(t, bucket_of(t, hash));
}

size_t fsm_htab_memory(const struct fsm_htab *t)
{
    return t->nseg * ((sizeof(uint32_t) << SEG_SHIFT) + sizeof(*t->seg));
}

/* ---- ordered set ---- */
#define BLOCK_MAX 128u
#define BLOCK_FIRST 4u
#define MERGE_BELOW 32u
#define MERGE_SUM 96u

struct fsm_oblock {
    uint32_t n, cap;
    uint32_t item[];
};

static size_t block_bytes(uint32_t cap)
{
    return sizeof(struct fsm_oblock) + cap * sizeof(uint32_t);
}

static struct fsm_oblock **block_slot(const struct fsm_oset *s, uint32_t b)
{
    assert(b < s->nblocks);
    return s->nblocks == 1 ? (struct fsm_oblock **)&s->b.one : &s->b.many[b];
}

/* Makes room for want items in block b. */
static struct fsm_oblock *block_reserve(struct fsm_oset *s, uint32_t b, uint32_t want, size_t *heap)
{
    struct fsm_oblock **slot = block_slot(s, b);
    uint32_t cap = *slot ? (*slot)->cap : 0, need = cap ? cap : BLOCK_FIRST;
    while (need < want)
        need *= 2;
    if (need != cap) {
        uint32_t n = *slot ? (*slot)->n : 0;
        *slot = fsm_xrealloc(*slot, block_bytes(need));
        (*slot)->n = n;
        (*slot)->cap = need;
        *heap += block_bytes(need) - (cap ? block_bytes(cap) : 0);
    }
    return *slot;
}

/* Puts an empty place for a block at position b. */
static void blocks_open(struct fsm_oset *s, uint32_t b, size_t *heap)
{
    if (s->nblocks == 0) {
        s->b.one = NULL;
    } else {
        if (s->nblocks == 1) {
            struct fsm_oblock *one = s->b.one;
            s->b.many = fsm_xmalloc(2 * sizeof(*s->b.many));
            s->b.many[0] = one;
            *heap += 2 * sizeof(*s->b.many);
        } else if ((s->nblocks & (s->nblocks - 1)) == 0) {
            s->b.many = fsm_xrealloc(s->b.many, 2ul * s->nblocks * sizeof(*s->b.many));
            *heap += s->nblocks * sizeof(*s->b.many);
        }
        memmove(&s->b.many[b + 1], &s->b.many[b], (s->nblocks - b) * sizeof(*s->b.many));
        s->b.many[b] = NULL;
    }
    s->nblocks++;
}

/* Frees block b and closes its place. */
static void blocks_close(struct fsm_oset *s, uint32_t b, size_t *heap)
{
    struct fsm_oblock *gone = *block_slot(s, b);
    *heap -= block_bytes(gone->cap);
    free(gone);
    if (s->nblocks == 1) {
        s->b.one = NULL;
        s->nblocks = 0;
        return;
    }
    memmove(&s->b.many[b], &s->b.many[b + 1], (s->nblocks - b - 1) * sizeof(*s->b.many));
    s->nblocks--;
    if (s->nblocks == 1) {
        struct fsm_oblock *one = s->b.many[0];
        free(s->b.many);
        *heap -= 2 * sizeof(*s->b.many);
        s->b.one = one;
    } else if ((s->nblocks & (s->nblocks - 1)) == 0) {
        s->b.many = fsm_xrealloc(s->b.many, s->nblocks * sizeof(*s->b.many));
        *heap -= s->nblocks * sizeof(*s->b.many);
    }
}

void fsm_oset_init(struct fsm_oset *s)
{
    *s = (struct fsm_oset){0};
}

void fsm_oset_fini(struct fsm_oset *s, size_t *heap)
{
    while (s->nblocks)
        blocks_close(s, s->nblocks - 1, heap);
    s->count = 0;
}

struct fsm_opos fsm_oset_seek(const struct fsm_oset *s, const struct fsm_oset_ops *ops,
                              uint64_t after)
{
    /* last block whose first key is <= after; the answer is in it or starts the next */
    uint32_t lo = 0, hi = s->nblocks;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (ops->key(ops->ctx, (*block_slot(s, mid))->item[0]) <= after)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0)
        return (struct fsm_opos){0, 0};
    const struct fsm_oblock *b = *block_slot(s, lo - 1);
    uint32_t l = 1, h = b->n;
    while (l < h) {
        uint32_t mid = l + (h - l) / 2;
        if (ops->key(ops->ctx, b->item[mid]) <= after)
            l = mid + 1;
        else
            h = mid;
    }
    return (struct fsm_opos){lo - 1, l};
}

uint32_t fsm_oset_next(const struct fsm_oset *s, struct fsm_opos *pos)
{
    while (pos->block < s->nblocks) {
        const struct fsm_oblock *b = *block_slot(s, pos->block);
        if (pos->idx < b->n)
            return b->item[pos->idx++];
        pos->block++;
        pos->idx = 0;
    }
    return 0;
}

static void split(struct fsm_oset *s, struct fsm_opos *p, size_t *heap)
{
    uint32_t n = (*block_slot(s, p->block))->n;
    uint32_t at = p->idx == n && p->block + 1 == s->nblocks ? n : n / 2;
    blocks_open(s, p->block + 1, heap);
    struct fsm_oblock *right = block_reserve(s, p->block + 1, n - at, heap);
    struct fsm_oblock *left = *block_slot(s, p->block);
    right->n = n - at;
    memcpy(right->item, left->item + at, right->n * sizeof(*right->item));
    left->n = at;
    if (p->idx > at || at == n) {
        p->block++;
        p->idx -= at;
    }
}

int fsm_oset_insert(struct fsm_oset *s, const struct fsm_oset_ops *ops, uint32_t h)
{
    uint64_t key = ops->key(ops->ctx, h);
    struct fsm_opos p = fsm_oset_seek(s, ops, key);
    if (p.idx > 0 && ops->key(ops->ctx, (*block_slot(s, p.block))->item[p.idx - 1]) == key)
        return -EEXIST;
    if (s->nblocks == 0)
        blocks_open(s, 0, ops->heap);
    else if ((*block_slot(s, p.block))->n == BLOCK_MAX)
        split(s, &p, ops->heap);
    struct fsm_oblock *b = *block_slot(s, p.block);
    b = block_reserve(s, p.block, b ? b->n + 1 : 1, ops->heap);
    memmove(b->item + p.idx + 1, b->item + p.idx, (b->n - p.idx) * sizeof(*b->item));
    b->item[p.idx] = h;
    b->n++;
    s->count++;
    return 0;
}

/* Moves everything of block b + 1 into block b. */
static void table_merge(struct fsm_oset *s, uint32_t b, size_t *heap)
{
    struct fsm_oblock *right = *block_slot(s, b + 1), *left = *block_slot(s, b);
    left = block_reserve(s, b, left->n + right->n, heap);
    memcpy(left->item + left->n, right->item, right->n * sizeof(*left->item));
    left->n += right->n;
    blocks_close(s, b + 1, heap);
}

void fsm_oset_remove(struct fsm_oset *s, const struct fsm_oset_ops *ops, uint32_t h)
{
    struct fsm_opos p = fsm_oset_seek(s, ops, ops->key(ops->ctx, h));
    assert(p.idx > 0);
    struct fsm_oblock *b = *block_slot(s, p.block);
    uint32_t at = p.idx - 1;
    assert(b->item[at] == h);
    memmove(b->item + at, b->item + at + 1, (b->n - at - 1) * sizeof(*b->item));
    b->n--;
    s->count--;
    if (b->n == 0)
        blocks_close(s, p.block, ops->heap);
    else if (b->n < MERGE_BELOW && p.block + 1 < s->nblocks &&
             b->n + (*block_slot(s, p.block + 1))->n <= MERGE_SUM)
        table_merge(s, p.block, ops->heap);
    else if (b->n < MERGE_BELOW && p.block > 0 &&
             b->n + (*block_slot(s, p.block - 1))->n <= MERGE_SUM)
        table_merge(s, p.block - 1, ops->heap);
}
