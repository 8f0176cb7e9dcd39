/* Attributes and names under leases.
 *
 * Two hash tables under one mutex. A node's `gen` is new whenever its lease is; an entry carries
 * the gen of its directory's node and is dead when that differs: forgetting a directory forgets all
 * its names in one step, the entries go when the table needs room (oldest first).
 *
 * Crossing answers: `gen` counts recalls and our own changes, and fence[] remembers for (a hash of)
 * each inode the last one that concerned it. An answer to a request sent before that is not kept.
 * Two inodes with one hash only make it keep less. Attributes of a node that is there are replaced
 * by newer ones only (Attr.change).
 *
 * The kernel is told by WORKERS threads, since telling it may wait for a page that is being read
 * or written; metad gets its answer after that. Such a page may itself wait for metad, which waits
 * for us: a request about the inode (lcache_yield) then answers metad first. Dropping everything
 * tells at once what cannot block.
 *
 * Failure modes: out of memory ends the process. Thread context: any. */
#include "lcache.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mix.h"
#include "internal.h"

#define FENCES 16384u
#define WORKERS 8u

struct lnode {
    uint64_t ino, gen;
    struct lnode *hash_next;
    struct lnode *newer, *older; /* by last use */
    bool has_attr;
    bool exclusive;
    bool complete; /* a directory of which every name has an entry */
    Replfs__Attr attr;
};
struct lentry {
    struct lentry *hash_next;
    struct lentry *newer, *older; /* by age */
    uint64_t parent, gen, ino, hash;
    uint8_t len;
    char name[];
};
struct ljob {
    struct ljob *next;
    uint64_t ino;
    unsigned what;
    bool flush;
    void (*done)(void *arg);
    void *arg;
};
struct lcache {
    pthread_mutex_t mu;
    size_t max_nodes, max_entries;
    struct lnode **nodes, *newest, *oldest;
    size_t nodes_mask, nnodes;
    struct lentry **entries, *young, *old;
    size_t entries_mask, nentries;
    uint64_t gen;
    uint64_t fence[FENCES];
    int64_t term, until; /* ns */
    struct lcache_stat st;

    lcache_inval *inval;
    void *inval_arg;
    lcache_forget *forget;
    void *forget_arg;
    pthread_cond_t cv;
    struct ljob *head, **tail;
    struct ljob *paging; /* those that wait for pages, by next */
    struct lasker *askers;
    pthread_t workers[WORKERS];
    unsigned nworkers;
    bool stop;
};

/* ---- nodes and entries, mutex held ---- */

static uint64_t *fence_of(struct lcache *l, uint64_t ino)
{
    return &l->fence[mix64(ino) % FENCES];
}

static struct lnode **node_slot(struct lcache *l, uint64_t ino)
{
    struct lnode **p = &l->nodes[mix64(ino) & l->nodes_mask];
    while (*p && (*p)->ino != ino)
        p = &(*p)->hash_next;
    return p;
}

static void node_unlink(struct lcache *l, struct lnode *n)
{
    *(n->newer ? &n->newer->older : &l->newest) = n->older;
    *(n->older ? &n->older->newer : &l->oldest) = n->newer;
}

static void node_link(struct lcache *l, struct lnode *n)
{
    n->newer = NULL;
    n->older = l->newest;
    *(n->older ? &n->older->newer : &l->oldest) = n;
    l->newest = n;
}

static struct lnode *node_find(struct lcache *l, uint64_t ino)
{
    struct lnode *n = *node_slot(l, ino);
    if (n && n != l->newest) {
        node_unlink(l, n);
        node_link(l, n);
    }
    return n;
}

static bool node_drop(struct lcache *l, uint64_t ino)
{
    struct lnode **slot = node_slot(l, ino), *n = *slot;
    if (!n)
        return false;
    *slot = n->hash_next;
    node_unlink(l, n);
    l->nnodes--;
    free(n);
    return true;
}

static void job_add(struct lcache *l, uint64_t ino, unsigned what, bool flush,
                    void (*done)(void *arg), void *arg)
{
    struct ljob *j = malloc(sizeof(*j));
    if (!j)
        abort();
    *j = (struct ljob){NULL, ino, what, flush, done, arg};
    *l->tail = j;
    l->tail = &j->next;
    pthread_cond_signal(&l->cv);
}

static struct lnode *node_make(struct lcache *l, uint64_t ino)
{
    struct lnode *n = node_find(l, ino);
    if (n)
        return n;
    if (l->nnodes >= l->max_nodes) { /* the kernel may still have it, under this very lease */
        job_add(l, l->oldest->ino, LCACHE_INVAL_ATTR, l->oldest->exclusive, NULL, NULL);
        node_drop(l, l->oldest->ino);
    }
    n = calloc(1, sizeof(*n));
    if (!n)
        abort();
    n->ino = ino;
    n->gen = ++l->gen;
    struct lnode **slot = node_slot(l, ino);
    *slot = n;
    node_link(l, n);
    l->nnodes++;
    return n;
}

static uint64_t name_hash(uint64_t parent, const void *name, size_t len)
{
    const uint8_t *p = name;
    uint64_t h = mix64(parent ^ len);
    while (len) {
        uint64_t w = 0;
        size_t n = len < sizeof(w) ? len : sizeof(w);
        memcpy(&w, p, n);
        h = mix64(h ^ w);
        p += n;
        len -= n;
    }
    return h;
}

static struct lentry **entry_slot(struct lcache *l, uint64_t parent, const void *name, size_t len,
                                  uint64_t hash)
{
    struct lentry **p = &l->entries[hash & l->entries_mask];
    while (*p && ((*p)->hash != hash || (*p)->parent != parent || (*p)->len != len ||
                  memcmp((*p)->name, name, len)))
        p = &(*p)->hash_next;
    return p;
}

static void entry_drop(struct lcache *l, struct lentry **slot)
{
    struct lentry *e = *slot;
    *slot = e->hash_next;
    *(e->newer ? &e->newer->older : &l->young) = e->older;
    *(e->older ? &e->older->newer : &l->old) = e->newer;
    l->nentries--;
    free(e);
}

static void entry_put(struct lcache *l, const struct lnode *dir, const void *name, size_t len,
                      uint64_t ino)
{
    uint64_t hash = name_hash(dir->ino, name, len);
    struct lentry **slot = entry_slot(l, dir->ino, name, len, hash);
    if (*slot) {
        (*slot)->gen = dir->gen;
        (*slot)->ino = ino;
        return;
    }
    if (l->nentries >= l->max_entries) {
        struct lentry *o = l->old;
        struct lnode *of = *node_slot(l, o->parent);
        if (of)
            of->complete = false;
        entry_drop(l, entry_slot(l, o->parent, o->name, o->len, o->hash));
        slot = entry_slot(l, dir->ino, name, len, hash);
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

static bool in_term(const struct lcache *l)
{
    return l->until > clock_mono();
}

/* ---- reading ---- */

int64_t lcache_ttl(struct lcache *l, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    int64_t left = *node_slot(l, ino) ? l->until - clock_mono() : 0;
    return left > 0 ? left : 0;
}

static bool get_attr(struct lcache *l, uint64_t ino, Replfs__Attr *out)
{
    struct lnode *n = node_find(l, ino);
    if (!n || !n->has_attr)
        return false;
    attr_copy(out, &n->attr);
    return true;
}

bool lcache_getattr(struct lcache *l, uint64_t ino, Replfs__Attr *out)
{
    LOCK_SCOPE(&l->mu);
    bool hit = in_term(l) && get_attr(l, ino, out);
    l->st.hits += hit;
    l->st.misses += !hit;
    return hit;
}

static enum lcache_found find(struct lcache *l, uint64_t parent, const void *name, size_t len,
                              Replfs__Attr *out)
{
    struct lnode *dir = in_term(l) ? node_find(l, parent) : NULL;
    if (!dir)
        return LCACHE_MISS;
    struct lentry *e = *entry_slot(l, parent, name, len, name_hash(parent, name, len));
    if (!e || e->gen != dir->gen)
        return dir->complete ? LCACHE_NO_NAME : LCACHE_MISS;
    if (!e->ino)
        return LCACHE_NO_NAME;
    return get_attr(l, e->ino, out) ? LCACHE_NAME : LCACHE_MISS;
}

enum lcache_found lcache_lookup(struct lcache *l, uint64_t parent, const void *name, size_t len,
                                Replfs__Attr *out)
{
    LOCK_SCOPE(&l->mu);
    enum lcache_found r = find(l, parent, name, len, out);
    l->st.hits += r != LCACHE_MISS;
    l->st.misses += r == LCACHE_MISS;
    return r;
}

/* ---- answers ---- */

uint64_t lcache_begin(struct lcache *l)
{
    LOCK_SCOPE(&l->mu);
    return l->gen;
}

static void put_attr(struct lcache *l, bool crossed, const Replfs__Attr *a, uint32_t lease)
{
    struct lnode *n = node_find(l, a->ino);
    if (crossed && !(n && n->has_attr))
        return;
    if (!n)
        n = node_make(l, a->ino);
    if (!crossed && lease == 2) /* an answer from before that said "shared" may come later */
        n->exclusive = true;
    if (n->has_attr && a->change < n->attr.change)
        return;
    attr_copy(&n->attr, a);
    n->has_attr = true;
}

void lcache_put_attr(struct lcache *l, uint64_t begun, const Replfs__Attr *a, uint32_t lease)
{
    LOCK_SCOPE(&l->mu);
    put_attr(l, *fence_of(l, a->ino) > begun, a, lease);
}

bool lcache_exclusive(struct lcache *l, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    const struct lnode *n = *node_slot(l, ino);
    return n && n->exclusive && in_term(l);
}

void lcache_regain(struct lcache *l, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    node_make(l, ino)->exclusive = true;
}

bool lcache_held_since(struct lcache *l, uint64_t begun, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    const struct lnode *n = *node_slot(l, ino);
    return !l->term || (n && n->gen <= begun && in_term(l));
}

void lcache_put_entry(struct lcache *l, uint64_t begun, uint64_t parent, const void *name,
                      size_t len, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    if (*fence_of(l, parent) > begun || len > UINT8_MAX)
        return;
    entry_put(l, node_make(l, parent), name, len, ino);
}

/* ---- our own changes ---- */

static bool fence(struct lcache *l, uint64_t begun, uint64_t ino)
{
    uint64_t *f = fence_of(l, ino);
    bool crossed = *f > begun;
    *f = ++l->gen;
    return crossed;
}

/* An exclusive lease is not forgotten: metad relies on us. */
static void node_unknown(struct lcache *l, uint64_t ino)
{
    struct lnode *n = *node_slot(l, ino);
    if (n && n->exclusive)
        n->has_attr = false;
    else
        node_drop(l, ino);
}

/* An inode that was changed: attributes when the answer has them, else nothing is known of it. */
static bool changed(struct lcache *l, uint64_t begun, uint64_t ino, const Replfs__Attr *a,
                    uint32_t lease)
{
    if (!ino)
        return false;
    bool crossed = fence(l, begun, ino);
    if (a && a->ino == ino)
        put_attr(l, crossed || !lease, a, lease);
    else
        node_unknown(l, ino);
    return crossed;
}

/* crossed: the directory was recalled meanwhile, and what it has under this name now is not known. */
static void name_changed(struct lcache *l, uint64_t parent, const ProtobufCBinaryData *name,
                         uint64_t ino, bool crossed)
{
    struct lnode *dir = *node_slot(l, parent);
    if (!dir || name->len > UINT8_MAX)
        return;
    if (!crossed) {
        entry_put(l, dir, name->data, name->len, ino);
        return;
    }
    struct lentry **slot =
        entry_slot(l, parent, name->data, name->len, name_hash(parent, name->data, name->len));
    dir->complete = false;
    if (*slot)
        entry_drop(l, slot);
}

/* What the name refers to as far as known, 0: unknown or nothing. */
static uint64_t name_ino(struct lcache *l, uint64_t parent, const ProtobufCBinaryData *name)
{
    const struct lnode *dir = *node_slot(l, parent);
    const struct lentry *e =
        *entry_slot(l, parent, name->data, name->len, name_hash(parent, name->data, name->len));
    return dir && e && e->gen == dir->gen ? e->ino : 0;
}

static void renamed(struct lcache *l, uint64_t begun, const Replfs__RenameOp *r,
                    const Replfs__MutationResult *res)
{
    /* both before any of the directories is forgotten, and with it the names in it */
    uint64_t moved = res && res->attr ? res->attr->ino : name_ino(l, r->parent, &r->name);
    uint64_t gone = res && res->value ? res->value : name_ino(l, r->new_parent, &r->new_name);
    bool known = res && res->attr && !r->flags;
    changed(l, begun, gone, NULL, 0);
    if (r->parent != r->new_parent)
        changed(l, begun, r->parent, NULL, 0);
    bool crossed =
        changed(l, begun, r->new_parent, res ? res->parent : NULL, res ? res->parent_lease : 0);
    if (!known) { /* exchanged, or nobody knows */
        changed(l, begun, moved, NULL, 0);
        node_drop(l, r->parent);
        node_drop(l, r->new_parent);
        return;
    }
    changed(l, begun, res->attr->ino, res->attr, res->lease);
    name_changed(l, r->parent, &r->name, 0, crossed);
    name_changed(l, r->new_parent, &r->new_name, res->attr->ino, crossed);
}

static void named(struct lcache *l, uint64_t begun, uint64_t parent,
                  const ProtobufCBinaryData *name, uint64_t ino, bool there,
                  const Replfs__MutationResult *res)
{
    const Replfs__Attr *a = res ? res->attr : NULL;
    bool crossed = changed(l, begun, parent, res ? res->parent : NULL, res ? res->parent_lease : 0);
    changed(l, begun, a ? a->ino : ino, a, res ? res->lease : 0);
    if (!res)
        node_drop(l, parent);
    else if (!there || a)
        name_changed(l, parent, name, there ? a->ino : 0, crossed);
}

/* Nothing is in it yet. */
static void made_dir(struct lcache *l, uint64_t begun, uint64_t ino)
{
    struct lnode *n = *node_slot(l, ino);
    if (n && n->gen > begun) /* of this very answer */
        n->complete = true;
}

void lcache_mutated(struct lcache *l, uint64_t begun, const Replfs__MetaOp *op,
                    const Replfs__MutationResult *res)
{
    LOCK_SCOPE(&l->mu);
    const Replfs__Attr *a = res ? res->attr : NULL;
    uint32_t lease = res ? res->lease : 0;
    if (res && res->code)
        return; /* nothing happened */
    switch ((int)op->op_case) {
    case REPLFS__META_OP__OP_CREATE:
        if (op->create->tmpfile)
            break; /* without a name: its directory did not change */
        named(l, begun, op->create->parent, &op->create->name, 0, true, res);
        if (a && lease && S_ISDIR(a->mode))
            made_dir(l, begun, a->ino);
        break;
    case REPLFS__META_OP__OP_UNLINK:
        named(l, begun, op->unlink->parent, &op->unlink->name,
              name_ino(l, op->unlink->parent, &op->unlink->name), false, res);
        break;
    case REPLFS__META_OP__OP_LINK:
        named(l, begun, op->link->parent, &op->link->name, op->link->ino, true, res);
        break;
    case REPLFS__META_OP__OP_RENAME:
        renamed(l, begun, op->rename, res);
        break;
    case REPLFS__META_OP__OP_SETATTR:
        changed(l, begun, op->setattr->ino, a, lease);
        break;
    case REPLFS__META_OP__OP_COMMIT:
        changed(l, begun, op->commit->ino, a, lease);
        break;
    case REPLFS__META_OP__OP_XATTR:
        changed(l, begun, op->xattr->ino, a, lease);
        break;
    case REPLFS__META_OP__OP_CLONE:
        changed(l, begun, op->clone->dst, a, lease);
        break;
    case REPLFS__META_OP__OP_FALLOCATE:
        changed(l, begun, op->fallocate->ino, a, lease);
        break;
    case REPLFS__META_OP__OP_QUOTA:
        changed(l, begun, op->quota->ino, a, lease);
        break;
    case REPLFS__META_OP__OP_SET_GOAL:
        for (size_t i = 0; i < op->set_goal->n_ino; i++)
            changed(l, begun, op->set_goal->ino[i], a, lease);
        break;
    case REPLFS__META_OP__OP_ATIME:
        for (size_t i = 0; i < op->atime->n_ino; i++) {
            struct lnode *n = *node_slot(l, op->atime->ino[i]);
            fence(l, begun, op->atime->ino[i]);
            if (n && n->has_attr && n->attr.atime_ns < op->atime->atime_ns[i])
                n->attr.atime_ns = op->atime->atime_ns[i];
        }
        break;
    default:
        break;
    }
}

/* ---- recalls and the end of the term ---- */

void lcache_set_term(struct lcache *l, unsigned term_ms)
{
    LOCK_SCOPE(&l->mu);
    l->term = term_ms * NSEC_PER_MSEC;
}

bool lcache_term(struct lcache *l)
{
    LOCK_SCOPE(&l->mu);
    return l->term != 0;
}

void lcache_renew(struct lcache *l, int64_t sent)
{
    LOCK_SCOPE(&l->mu);
    if (sent + l->term > l->until)
        l->until = sent + l->term;
}

void lcache_recall(struct lcache *l, uint64_t ino, void (*done)(void *arg), void *arg)
{
    pthread_mutex_lock(&l->mu);
    const struct lnode *n = *node_slot(l, ino);
    unsigned what = LCACHE_INVAL_ATTR | LCACHE_INVAL_PAGES;
    if (!n || !n->has_attr || S_ISDIR(n->attr.mode))
        what |= LCACHE_INVAL_ENTRIES;
    bool flush = n && n->exclusive;
    *fence_of(l, ino) = ++l->gen;
    node_drop(l, ino);
    l->st.recalls++;
    bool later = !l->stop && l->nworkers;
    if (later)
        job_add(l, ino, what, flush, done, arg);
    pthread_mutex_unlock(&l->mu);
    if (!later)
        done(arg);
}

void lcache_drop_all(struct lcache *l)
{
    pthread_mutex_lock(&l->mu);
    for (size_t i = 0; i < FENCES; i++)
        l->fence[i] = l->gen + 1;
    l->gen++;
    l->until = 0;
    size_t n = 0;
    uint64_t *inos = l->inval && !l->stop && l->nnodes ? malloc(l->nnodes * sizeof(*inos)) : NULL;
    for (struct lnode *x = l->newest, *older; x; x = older) {
        older = x->older;
        if (inos)
            inos[n++] = x->ino;
        if (inos && x->has_attr && S_ISREG(x->attr.mode))
            job_add(l, x->ino, LCACHE_INVAL_PAGES, false, NULL, NULL);
        node_drop(l, x->ino);
    }
    pthread_mutex_unlock(&l->mu);
    for (size_t i = 0; i < n; i++)
        l->inval(l->inval_arg, inos[i], LCACHE_INVAL_ATTR | (i ? 0 : LCACHE_INVAL_ENTRIES));
    free(inos);
}

static bool is_asking(const struct lcache *l, uint64_t ino)
{
    const struct lasker *a = l->askers;
    while (a && a->ino != ino)
        a = a->next;
    return a != NULL;
}

static void job_done(struct ljob *j) /* off the list of those that wait for pages */
{
    if (j->done)
        j->done(j->arg);
}

/* Pages are waited for last, and not by metad when a write of ours to the file waits for metad: the
 * write may hold the page, or be the page's own way out. Reads are right all the same: they ask for
 * attributes first, which are gone. */
static void job_do(struct lcache *l, struct ljob *j)
{
    l->forget(l->forget_arg, j->ino, j->flush);
    if (l->inval)
        l->inval(l->inval_arg, j->ino, j->what & ~LCACHE_INVAL_PAGES);
    if (!(j->what & LCACHE_INVAL_PAGES) || !l->inval) {
        job_done(j);
        return;
    }
    pthread_mutex_lock(&l->mu);
    bool now = is_asking(l, j->ino);
    j->next = l->paging;
    l->paging = j;
    pthread_mutex_unlock(&l->mu);
    if (now)
        lcache_yield(l, j->ino);
    l->inval(l->inval_arg, j->ino, LCACHE_INVAL_PAGES);
    pthread_mutex_lock(&l->mu);
    struct ljob **p = &l->paging;
    while (*p != j)
        p = &(*p)->next;
    *p = j->next;
    pthread_mutex_unlock(&l->mu);
    job_done(j);
}

void lcache_yield(struct lcache *l, uint64_t ino)
{
    void (*done[WORKERS])(void *arg);
    void *arg[WORKERS];
    unsigned n = 0;
    pthread_mutex_lock(&l->mu);
    for (struct ljob *j = l->paging; j; j = j->next) {
        if (j->ino == ino && j->done && n < WORKERS) {
            done[n] = j->done;
            arg[n++] = j->arg;
            j->done = NULL;
        }
    }
    pthread_mutex_unlock(&l->mu);
    for (unsigned i = 0; i < n; i++)
        done[i](arg[i]);
}

void lcache_ask_begin(struct lcache *l, struct lasker *a, uint64_t ino)
{
    pthread_mutex_lock(&l->mu);
    *a = (struct lasker){l->askers, ino};
    l->askers = a;
    pthread_mutex_unlock(&l->mu);
    lcache_yield(l, ino);
}

void lcache_ask_end(struct lcache *l, struct lasker *a)
{
    LOCK_SCOPE(&l->mu);
    struct lasker **p = &l->askers;
    while (*p != a)
        p = &(*p)->next;
    *p = a->next;
}

static void *worker(void *arg)
{
    struct lcache *l = arg;
    pthread_mutex_lock(&l->mu);
    for (;;) {
        while (!l->head && !l->stop)
            pthread_cond_wait(&l->cv, &l->mu);
        struct ljob *j = l->head;
        if (!j)
            break;
        l->head = j->next;
        if (!l->head)
            l->tail = &l->head;
        pthread_mutex_unlock(&l->mu);
        job_do(l, j);
        free(j);
        pthread_mutex_lock(&l->mu);
    }
    pthread_mutex_unlock(&l->mu);
    return NULL;
}

/* ---- life ---- */

static size_t table_mask(size_t n)
{
    size_t cap = 1024;
    while (cap < n)
        cap *= 2;
    return cap - 1;
}

struct lcache *lcache_new(size_t max_nodes, lcache_inval *inval, void *arg, lcache_forget *forget,
                          void *forget_arg)
{
    struct lcache *l = calloc(1, sizeof(*l));
    if (!l)
        abort();
    l->max_nodes = max_nodes;
    l->max_entries = 2 * max_nodes;
    l->nodes_mask = table_mask(max_nodes);
    l->entries_mask = table_mask(l->max_entries);
    l->nodes = calloc(l->nodes_mask + 1, sizeof(*l->nodes));
    l->entries = calloc(l->entries_mask + 1, sizeof(*l->entries));
    if (!l->nodes || !l->entries)
        abort();
    pthread_mutex_init(&l->mu, NULL);
    pthread_cond_init(&l->cv, NULL);
    l->tail = &l->head;
    l->inval = inval;
    l->inval_arg = arg;
    l->forget = forget;
    l->forget_arg = forget_arg;
    while (l->nworkers < WORKERS && !pthread_create(&l->workers[l->nworkers], NULL, worker, l))
        l->nworkers++;
    if (!l->nworkers)
        abort();
    return l;
}

void lcache_stop(struct lcache *l)
{
    if (!l)
        return;
    pthread_mutex_lock(&l->mu);
    l->stop = true;
    pthread_cond_broadcast(&l->cv);
    pthread_mutex_unlock(&l->mu);
    for (; l->nworkers; l->nworkers--)
        pthread_join(l->workers[l->nworkers - 1], NULL);
}

void lcache_free(struct lcache *l)
{
    if (!l)
        return;
    lcache_stop(l);
    for (struct ljob *j = l->head, *next; j; j = next) { /* evictions since */
        next = j->next;
        free(j);
    }
    while (l->newest)
        node_drop(l, l->newest->ino);
    while (l->old)
        entry_drop(l, entry_slot(l, l->old->parent, l->old->name, l->old->len, l->old->hash));
    free(l->nodes);
    free(l->entries);
    pthread_mutex_destroy(&l->mu);
    pthread_cond_destroy(&l->cv);
    free(l);
}

void lcache_stat(struct lcache *l, struct lcache_stat *out)
{
    LOCK_SCOPE(&l->mu);
    *out = l->st;
    out->nodes = l->nnodes;
    out->entries = l->nentries;
}
