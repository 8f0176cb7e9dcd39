/* The tables of the lease cache: nodes (inodes under a lease), entries (names in leased directories), and the list of
 * what the kernel still has to be told. The mutex is held throughout. What lease_cache.c says of `gen` and fence[] is
 * kept here. */
#include "client/cache/lease_table.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/hash.h"
#include "base/lock.h"
#include "client/base/attr.h"
#include "client/cache/lease_cache.h"

uint64_t *lfence_of(struct lease_cache *l, uint64_t ino)
{
    return &l->fence[hash_u64(ino) % FENCES];
}

struct lnode **lnode_slot(struct lease_cache *l, uint64_t ino)
{
    struct lnode **p = &l->nodes[hash_u64(ino) & l->nodes_mask];
    while (*p && (*p)->ino != ino)
        p = &(*p)->hash_next;
    return p;
}

static void node_unlink(struct lease_cache *l, struct lnode *n)
{
    *(n->newer ? &n->newer->older : &l->newest) = n->older;
    *(n->older ? &n->older->newer : &l->oldest) = n->newer;
}

static void node_link(struct lease_cache *l, struct lnode *n)
{
    n->newer = NULL;
    n->older = l->newest;
    *(n->older ? &n->older->newer : &l->oldest) = n;
    l->newest = n;
}

struct lnode *lnode_find(struct lease_cache *l, uint64_t ino)
{
    struct lnode *n = *lnode_slot(l, ino);
    if (n && n != l->newest) {
        node_unlink(l, n);
        node_link(l, n);
    }
    return n;
}

bool lnode_drop(struct lease_cache *l, uint64_t ino)
{
    struct lnode **slot = lnode_slot(l, ino), *n = *slot;
    if (!n)
        return false;
    *slot = n->hash_next;
    node_unlink(l, n);
    l->nnodes--;
    free(n);
    return true;
}

void ljob_add(struct lease_cache *l, uint64_t ino, unsigned what, bool flush,
              void (*done)(void *arg), void *arg)
{
    struct ljob *j = malloc(sizeof(*j));
    if (!j)
        abort();
    *j = (struct ljob){NULL, ino, what, flush, done, arg};
    *l->tail = j;
    l->tail = &j->next;
    cond_signal(&l->cv);
}

struct lnode *lnode_make(struct lease_cache *l, uint64_t ino)
{
    struct lnode *n = lnode_find(l, ino);
    if (n)
        return n;
    if (l->nnodes >= l->max_nodes) { /* the kernel may still have it, under this very lease */
        l->unflushed[hash_u64(l->oldest->ino) % UNFLUSHED] += l->oldest->exclusive;
        ljob_add(l, l->oldest->ino, LEASE_CACHE_INVAL_ATTR, l->oldest->exclusive, NULL, NULL);
        lnode_drop(l, l->oldest->ino);
    }
    n = calloc(1, sizeof(*n));
    if (!n)
        abort();
    n->ino = ino;
    n->gen = ++l->gen;
    struct lnode **slot = lnode_slot(l, ino);
    *slot = n;
    node_link(l, n);
    l->nnodes++;
    return n;
}

uint64_t lname_hash(uint64_t parent, const void *name, size_t len)
{
    const uint8_t *p = name;
    uint64_t h = hash_u64(parent ^ len);
    while (len) {
        uint64_t w = 0;
        size_t n = len < sizeof(w) ? len : sizeof(w);
        memcpy(&w, p, n);
        h = hash_u64(h ^ w);
        p += n;
        len -= n;
    }
    return h;
}

struct lentry **lentry_slot(struct lease_cache *l, uint64_t parent, const void *name, size_t len,
                            uint64_t hash)
{
    struct lentry **p = &l->entries[hash & l->entries_mask];
    while (*p && ((*p)->hash != hash || (*p)->parent != parent || (*p)->len != len ||
                  memcmp((*p)->name, name, len)))
        p = &(*p)->hash_next;
    return p;
}

void lentry_drop(struct lease_cache *l, struct lentry **slot)
{
    struct lentry *e = *slot;
    struct lnode *dir = *lnode_slot(l, e->parent);
    if (dir && dir->gen == e->gen && e->ino)
        dir->names--;
    *slot = e->hash_next;
    *(e->newer ? &e->newer->older : &l->young) = e->older;
    *(e->older ? &e->older->newer : &l->old) = e->newer;
    l->nentries--;
    free(e);
}

void lentry_put(struct lease_cache *l, struct lnode *dir, const void *name, size_t len,
                uint64_t ino)
{
    uint64_t hash = lname_hash(dir->ino, name, len);
    struct lentry **slot = lentry_slot(l, dir->ino, name, len, hash);
    bool named = *slot && (*slot)->gen == dir->gen && (*slot)->ino;
    dir->names += (ino != 0) - named;
    if (*slot) {
        (*slot)->gen = dir->gen;
        (*slot)->ino = ino;
        return;
    }
    if (l->nentries >= l->max_entries) {
        struct lentry *o = l->old;
        struct lnode *of = *lnode_slot(l, o->parent);
        if (of)
            of->complete = false;
        lentry_drop(l, lentry_slot(l, o->parent, o->name, o->len, o->hash));
        slot = lentry_slot(l, dir->ino, name, len, hash);
    }
    struct lentry *e = malloc(sizeof(*e) + len);
    if (!e)
        abort();
    *e = (struct lentry){.parent = dir->ino,
                         .gen = dir->gen,
                         .ino = ino,
                         .hash = hash,
                         .len = (uint8_t)len,
                         .older = l->young};
    memcpy(e->name, name, len);
    *(e->older ? &e->older->newer : &l->old) = e;
    l->young = e;
    *slot = e;
    l->nentries++;
}

bool lease_cache_in_term(const struct lease_cache *l)
{
    return l->until > clock_boot();
}

bool lease_cache_changing(const struct lease_cache *l, uint64_t ino)
{
    return l->changing[hash_u64(ino) % CHANGING] > 0;
}

bool lnode_in_doubt(const struct lease_cache *l, const struct lnode *n)
{
    return !n->exclusive && lease_cache_changing(l, n->ino);
}

void lnode_put_attr(struct lease_cache *l, bool crossed, const Replfs__Attr *a, uint32_t lease)
{
    struct lnode *n = lnode_find(l, a->ino);
    if (crossed && !(n && n->has_attr))
        return;
    if (!n)
        n = lnode_make(l, a->ino);
    if (!crossed && lease == 2) /* an answer from before that said "shared" may come later */
        n->exclusive = true;
    if (n->pending) { /* what metad alone decides is not ours to know better */
        n->attr.flags = a->flags;
        n->attr.quota_left = a->quota_left;
        return;
    }
    if (n->has_attr && a->change < n->attr.change)
        return;
    attr_copy(&n->attr, a);
    n->has_attr = true;
}

void lease_cache_tell_soon(struct lease_cache *l, uint64_t ino, unsigned what)
{
    if (l->inval && !l->stop)
        ljob_add(l, ino, what, false, NULL, NULL);
}

void lease_request_remove(struct lease_request **list, struct lease_request *a)
{
    while (*list != a)
        list = &(*list)->next;
    *list = a->next;
}
