/* Extent maps. Two shapes, told apart by the high bit of n:
 *
 *   inline  no extent, or one that starts at file offset 0: held in the two words of the map itself
 *           (chunk; chunk_off and len). Most files are this, and cost no allocation.
 *   tree    one sorted array of {first file offset, leaf}; a leaf is a sorted array of 1..128
 *           extents whose allocation grows with need.
 *
 * A tree that shrinks to something inlinable becomes inline again.
 *
 * Every change is one `extmap_replace(off, end, new extent or none)`: the extents that overlap [off, end)
 * are a run of neighbours; the run is replaced by at most three extents (what is left before, the
 * new one, what is left behind). A new extent that continues its predecessor or is continued by its
 * successor is merged with one of them, never both: so each insert changes the number of extents by
 * the callbacks' refs plus 1, or plus 0 when merged.
 *
 * Failure: memory is reserved before the first change or callback; -ENOMEM leaves the map as it
 * was. Threads: none of its own; the owner locks. */
#include "extmap.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LEAF_MAX 128u
#define LEAF_MIN 32u          /* a smaller leaf looks for a neighbour to join */
#define MERGE_MAX (64u << 20) /* largest chunk: no extent with bytes is longer */
#define TREE_BIT 0x80000000u
#define COUNT_MAX (TREE_BIT - 4) /* room for what one replace can add */

struct leaf {
    unsigned n, cap;
    struct ext e[];
};

struct slot {
    uint64_t first; /* file_off of leaf->e[0] */
    struct leaf *leaf;
};

struct tree {
    size_t n, cap;
    struct slot *slots;
};

/* A place in a tree: slot number and index in its leaf. Index == leaf->n only at the very end. */
struct pos {
    size_t slot;
    unsigned i;
};

/* What one replace does, computed before anything is changed. */
struct plan {
    uint64_t off, end;
    bool has_left, has_right; /* remainders of the extents cut at off and at end */
    struct ext left, right;
    struct ext rep[3]; /* what takes the place of the run */
    unsigned nrep;
};

static uint64_t ext_end(const struct ext *e)
{
    return e->file_off + e->len;
}

/* Where in its chunk the byte lies that is `by` behind e's first. */
static uint32_t chunk_pos(const struct ext *e, uint32_t by)
{
    return e->chunk ? e->chunk_off + by : 0;
}

static bool is_tree(const struct extmap *m)
{
    return (m->n & TREE_BIT) != 0;
}

static struct tree *tree_of(const struct extmap *m)
{
    return (struct tree *)(uintptr_t)m->w[0];
}

static void inline_get(const struct extmap *m, struct ext *out)
{
    out->file_off = 0;
    out->chunk = m->w[0];
    out->chunk_off = (uint32_t)m->w[1];
    out->len = (uint32_t)(m->w[1] >> 32);
}

static void inline_set(struct extmap *m, const struct ext *e)
{
    m->n = e ? 1 : 0;
    m->w[0] = e ? e->chunk : 0;
    m->w[1] = e ? (uint64_t)e->len << 32 | e->chunk_off : 0;
}

void extmap_init(struct extmap *m)
{
    memset(m, 0, sizeof(*m));
}

static void tree_free(struct tree *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        free(t->slots[i].leaf);
    free(t->slots);
    free(t);
}

void extmap_free(struct extmap *m)
{
    if (is_tree(m))
        tree_free(tree_of(m));
    extmap_init(m);
}

size_t extmap_count(const struct extmap *m)
{
    return m->n & ~TREE_BIT;
}

size_t extmap_memory(const struct extmap *m)
{
    if (!is_tree(m))
        return 0;
    const struct tree *t = tree_of(m);
    size_t sum = sizeof(*t) + t->cap * sizeof(t->slots[0]);
    for (size_t i = 0; i < t->n; i++)
        sum += sizeof(struct leaf) + t->slots[i].leaf->cap * sizeof(struct ext);
    return sum;
}

/* ---- finding ---- */

/* The last slot that starts at or before off, or 0. */
static size_t find_slot(const struct tree *t, uint64_t off)
{
    size_t lo = 0, hi = t->n;

    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (t->slots[mid].first <= off)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* The place of the first extent that ends after off; past the last extent when there is none. */
static struct pos find_pos(const struct tree *t, uint64_t off)
{
    size_t s = find_slot(t, off);
    const struct leaf *l = t->slots[s].leaf;
    unsigned lo = 0, hi = l->n;

    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;
        if (ext_end(&l->e[mid]) > off)
            hi = mid;
        else
            lo = mid + 1;
    }
    if (lo == l->n && s + 1 < t->n)
        return (struct pos){s + 1, 0};
    return (struct pos){s, lo};
}

static struct ext *at(const struct tree *t, struct pos p)
{
    if (p.slot >= t->n || p.i >= t->slots[p.slot].leaf->n)
        return NULL;
    return &t->slots[p.slot].leaf->e[p.i];
}

static struct pos next(const struct tree *t, struct pos p)
{
    p.i++;
    if (p.i >= t->slots[p.slot].leaf->n && p.slot + 1 < t->n)
        return (struct pos){p.slot + 1, 0};
    return p;
}

static struct ext *before(const struct tree *t, struct pos p)
{
    if (p.i > 0)
        return &t->slots[p.slot].leaf->e[p.i - 1];
    if (p.slot == 0)
        return NULL;
    struct leaf *l = t->slots[p.slot - 1].leaf;
    return &l->e[l->n - 1];
}

bool extmap_find(const struct extmap *m, uint64_t off, struct ext *out)
{
    if (is_tree(m)) {
        const struct tree *t = tree_of(m);
        const struct ext *e = at(t, find_pos(t, off));
        if (e)
            *out = *e;
        return e != NULL;
    }
    if (m->n == 0)
        return false;
    inline_get(m, out);
    return out->len > off;
}

uint64_t extmap_holes(const struct extmap *m, uint64_t off, uint64_t end)
{
    uint64_t sum = 0;
    struct ext e;

    while (off < end) {
        if (!extmap_find(m, off, &e) || e.file_off >= end)
            return sum + (end - off);
        if (e.file_off > off)
            sum += e.file_off - off;
        off = ext_end(&e);
    }
    return sum;
}

/* ---- planning ---- */

/* Notes what is left of x, which overlaps [off, end), and tells fn what goes. */
static void plan_cut(struct plan *p, const struct ext *x, extmap_fn *fn, void *arg)
{
    struct ext gone = *x;
    int refs = -1;

    if (x->file_off < p->off) {
        p->left = *x;
        p->left.len = (uint32_t)(p->off - x->file_off);
        p->has_left = true;
        gone.file_off += p->left.len;
        gone.chunk_off = chunk_pos(x, p->left.len);
        gone.len -= p->left.len;
        refs++;
    }
    if (ext_end(x) > p->end) {
        uint32_t keep = (uint32_t)(ext_end(x) - p->end);
        p->right = *x;
        p->right.file_off = p->end;
        p->right.chunk_off = chunk_pos(x, x->len - keep);
        p->right.len = keep;
        p->has_right = true;
        gone.len -= keep;
        refs++;
    }
    if (fn)
        fn(arg, &gone, refs);
}

/* True when b continues a in the file and in the chunk, and both fit one extent. */
static bool extmap_continues(const struct ext *a, const struct ext *b)
{
    if (a->chunk != b->chunk || ext_end(a) != b->file_off)
        return false;
    uint64_t sum = (uint64_t)a->len + b->len;
    if (!a->chunk)
        return sum <= EXTMAP_RESERVED_MAX;
    return (uint64_t)a->chunk_off + a->len == b->chunk_off && sum <= MERGE_MAX;
}

/* Joins e with a neighbour. prev and succ are the extents outside the run (or NULL); they are
 * changed in place. Returns true when merged; e may then be the merged extent, or be gone (*used
 * false). */
static bool plan_merge(struct plan *p, struct ext *e, struct ext *prev, struct ext *succ,
                       bool *used)
{
    *used = true;
    if (p->has_left && extmap_continues(&p->left, e)) {
        p->left.len += e->len;
        *used = false;
        return true;
    }
    if (!p->has_left && prev && extmap_continues(prev, e)) {
        prev->len += e->len;
        *used = false;
        return true;
    }
    if (p->has_right) {
        if (!extmap_continues(e, &p->right))
            return false;
        e->len += p->right.len;
        p->has_right = false;
        return true;
    }
    if (succ && extmap_continues(e, succ)) {
        succ->file_off = e->file_off;
        succ->chunk_off = e->chunk_off;
        succ->len += e->len;
        *used = false;
        return true;
    }
    return false;
}

/* Fills rep from the remainders and the new extent (NULL: none). */
static bool plan_finish(struct plan *p, const struct ext *e, struct ext *prev, struct ext *succ)
{
    struct ext fresh;
    bool merged = false, used = false;

    if (e) {
        fresh = *e;
        merged = plan_merge(p, &fresh, prev, succ, &used);
    }
    if (p->has_left)
        p->rep[p->nrep++] = p->left;
    if (used)
        p->rep[p->nrep++] = fresh;
    if (p->has_right)
        p->rep[p->nrep++] = p->right;
    return merged;
}

/* ---- memory ---- */

static struct leaf *leaf_resize(struct leaf *l, unsigned cap)
{
    struct leaf *n = realloc(l, sizeof(*l) + cap * sizeof(l->e[0]));

    if (n) {
        n->cap = cap;
        if (!l)
            n->n = 0;
    }
    return n;
}

/* Leaf of slot s can take `more` further extents, if need be with the help of *spare. */
static int extmap_reserve(struct tree *t, size_t s, unsigned more, struct leaf **spare)
{
    struct leaf *l = t->slots[s].leaf;
    unsigned need = l->n + more;

    *spare = NULL;
    if (need > LEAF_MAX) {
        if (t->n == t->cap) {
            size_t cap = t->cap * 2;
            struct slot *slots = realloc(t->slots, cap * sizeof(*slots));
            if (!slots)
                return -ENOMEM;
            t->slots = slots;
            t->cap = cap;
        }
        *spare = leaf_resize(NULL, LEAF_MAX);
        if (!*spare)
            return -ENOMEM;
        need = LEAF_MAX;
    }
    if (need > l->cap) {
        unsigned cap = l->cap * 2 > need ? l->cap * 2 : need;
        l = leaf_resize(l, cap < LEAF_MAX ? cap : LEAF_MAX);
        if (!l) {
            free(*spare);
            *spare = NULL;
            return -ENOMEM;
        }
        t->slots[s].leaf = l;
    }
    return 0;
}

static struct tree *tree_new(const struct ext *e, unsigned n)
{
    struct tree *t = calloc(1, sizeof(*t));
    struct slot *slots = malloc(sizeof(*slots));
    struct leaf *l = leaf_resize(NULL, n < 4 ? 4 : n);

    if (!t || !slots || !l) {
        free(t);
        free(slots);
        free(l);
        return NULL;
    }
    memcpy(l->e, e, n * sizeof(*e));
    l->n = n;
    slots[0] = (struct slot){e[0].file_off, l};
    *t = (struct tree){1, 1, slots};
    return t;
}

/* ---- changing a tree ---- */

static void slots_drop(struct tree *t, size_t from, size_t n)
{
    for (size_t i = from; i < from + n; i++)
        free(t->slots[i].leaf);
    memmove(t->slots + from, t->slots + from + n, (t->n - from - n) * sizeof(t->slots[0]));
    t->n -= n;
}

/* Removes k extents from the front of slot s on, whole leaves first. */
static void drop_front(struct tree *t, size_t s, size_t k)
{
    size_t whole = 0;

    while (s + whole < t->n && t->slots[s + whole].leaf->n <= k) {
        k -= t->slots[s + whole].leaf->n;
        whole++;
    }
    slots_drop(t, s, whole);
    if (k == 0)
        return;
    struct leaf *l = t->slots[s].leaf;
    memmove(l->e, l->e + k, (l->n - k) * sizeof(l->e[0]));
    l->n -= (unsigned)k;
    t->slots[s].first = l->e[0].file_off;
}

static void leaf_splice(struct leaf *l, unsigned i, unsigned del, const struct ext *rep,
                        unsigned nrep)
{
    memmove(l->e + i + nrep, l->e + i + del, (l->n - i - del) * sizeof(l->e[0]));
    memcpy(l->e + i, rep, nrep * sizeof(*rep));
    l->n = l->n - del + nrep;
}

/* The leaf at p.slot overflows: moves its tail to spare, which becomes the next slot, then splices.
 * An insert at the very end moves nothing, so that files written in order have full leaves. */
static void split_splice(struct tree *t, struct pos p, unsigned del, const struct plan *plan,
                         struct leaf *spare)
{
    struct leaf *l = t->slots[p.slot].leaf;
    bool at_end = p.i + del == l->n && p.slot + 1 == t->n;
    unsigned keep = at_end ? p.i : l->n / 2;

    memmove(t->slots + p.slot + 2, t->slots + p.slot + 1,
            (t->n - p.slot - 1) * sizeof(t->slots[0]));
    t->n++;
    if (!at_end && p.i < keep && p.i + del > keep)
        keep = p.i + del; /* the run stays in one leaf */
    memcpy(spare->e, l->e + keep, (l->n - keep) * sizeof(l->e[0]));
    spare->n = l->n - keep;
    l->n = keep;
    t->slots[p.slot + 1].leaf = spare;
    if (p.i >= keep)
        leaf_splice(spare, p.i - keep, del, plan->rep, plan->nrep);
    else
        leaf_splice(l, p.i, del, plan->rep, plan->nrep);
    t->slots[p.slot + 1].first = spare->e[0].file_off;
    t->slots[p.slot].first = l->e[0].file_off;
}

/* Joins slot s with the next when both are small. Failing to allocate only leaves them apart. */
static void try_join(struct tree *t, size_t s)
{
    if (s + 1 >= t->n)
        return;
    struct leaf *a = t->slots[s].leaf, *b = t->slots[s + 1].leaf;
    unsigned sum = a->n + b->n;
    if ((a->n >= LEAF_MIN && b->n >= LEAF_MIN) || sum > LEAF_MAX - LEAF_MIN)
        return;
    if (sum > a->cap) {
        a = leaf_resize(a, sum);
        if (!a)
            return;
        t->slots[s].leaf = a;
    }
    memcpy(a->e + a->n, b->e, b->n * sizeof(b->e[0]));
    a->n = sum;
    slots_drop(t, s + 1, 1);
}

/* Replaces the k extents from p on by the plan's. */
static void splice(struct tree *t, struct pos p, size_t k, const struct plan *plan,
                   struct leaf **spare)
{
    struct leaf *l = t->slots[p.slot].leaf;
    unsigned del = k < l->n - p.i ? (unsigned)k : l->n - p.i;

    if (k > del)
        drop_front(t, p.slot + 1, k - del);
    if (l->n - del + plan->nrep > LEAF_MAX) {
        assert(*spare);
        split_splice(t, p, del, plan, *spare);
        *spare = NULL;
        return;
    }
    leaf_splice(l, p.i, del, plan->rep, plan->nrep);
    if (l->n == 0) {
        slots_drop(t, p.slot, 1);
    } else {
        t->slots[p.slot].first = l->e[0].file_off;
        try_join(t, p.slot);
    }
    if (k > plan->nrep && p.slot > 0)
        try_join(t, p.slot - 1);
}

/* Back to the inline shape when possible. */
static void try_inline(struct extmap *m)
{
    struct tree *t = tree_of(m);
    size_t n = extmap_count(m);

    if (n > 1 || (n == 1 && t->slots[0].leaf->e[0].file_off != 0))
        return;
    struct ext e = {0};
    if (n == 1)
        e = t->slots[0].leaf->e[0];
    tree_free(t);
    inline_set(m, n == 1 ? &e : NULL);
}

static int tree_replace(struct extmap *m, struct plan *p, const struct ext *e, extmap_fn *fn,
                        void *arg, bool *merged)
{
    struct tree *t = tree_of(m);
    struct leaf *spare = NULL;
    struct pos start = find_pos(t, p->off), q;
    size_t k = 0;
    struct ext *x;

    if (extmap_count(m) >= COUNT_MAX || extmap_reserve(t, start.slot, 3, &spare) < 0)
        return -ENOMEM;
    for (q = start; (x = at(t, q)) && x->file_off < p->end; q = next(t, q), k++)
        plan_cut(p, x, fn, arg);
    uint64_t succ_was = x ? x->file_off : 0;
    *merged = plan_finish(p, e, before(t, start), x);
    if (x && x->file_off != succ_was && q.i == 0)
        t->slots[q.slot].first = x->file_off;
    m->n = (uint32_t)(m->n + p->nrep - k);
    if (k > 0 || p->nrep > 0)
        splice(t, start, k, p, &spare);
    free(spare);
    try_inline(m);
    return 0;
}

static int inline_replace(struct extmap *m, struct plan *p, const struct ext *e, extmap_fn *fn,
                          void *arg, bool *merged)
{
    struct ext x, list[3];
    bool have = m->n == 1, overlap = false, after = false;
    unsigned n = 0;
    struct plan trial = *p;

    if (have) {
        inline_get(m, &x);
        overlap = p->off < x.len && p->end > 0;
        after = !overlap; /* x starts at 0, so what does not overlap it lies behind */
    }
    if (overlap)
        plan_cut(&trial, &x, NULL, NULL);
    *merged = plan_finish(&trial, e, after ? &x : NULL, NULL);
    if (after)
        list[n++] = x;
    for (unsigned i = 0; i < trial.nrep; i++)
        list[n++] = trial.rep[i];
    struct tree *t = NULL;
    if (n > 1 || (n == 1 && list[0].file_off != 0)) {
        t = tree_new(list, n);
        if (!t)
            return -ENOMEM;
    }
    if (overlap)
        plan_cut(p, &x, fn, arg);
    if (!t) {
        inline_set(m, n ? &list[0] : NULL);
        return 0;
    }
    m->w[0] = (uint64_t)(uintptr_t)t;
    m->w[1] = 0;
    m->n = TREE_BIT | n;
    return 0;
}

static int extmap_replace(struct extmap *m, uint64_t off, uint64_t end, const struct ext *e,
                          extmap_fn *fn, void *arg, bool *merged)
{
    struct plan p = {.off = off, .end = end};

    return is_tree(m) ? tree_replace(m, &p, e, fn, arg, merged)
                      : inline_replace(m, &p, e, fn, arg, merged);
}

int extmap_insert(struct extmap *m, const struct ext *e, extmap_fn *fn, void *arg, bool *merged)
{
    bool dummy;

    if (e->len == 0 || e->file_off > UINT64_MAX - e->len || e->chunk_off > UINT32_MAX - e->len)
        return -EINVAL;
    if (!e->chunk && (e->chunk_off || e->len > EXTMAP_RESERVED_MAX))
        return -EINVAL;
    return extmap_replace(m, e->file_off, ext_end(e), e, fn, arg, merged ? merged : &dummy);
}

int extmap_remove(struct extmap *m, uint64_t off, uint64_t len, extmap_fn *fn, void *arg)
{
    bool merged;

    if (len == 0)
        return 0;
    if (len > UINT64_MAX - off)
        return -EINVAL;
    return extmap_replace(m, off, off + len, NULL, fn, arg, &merged);
}
