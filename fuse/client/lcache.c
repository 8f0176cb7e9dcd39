/* Attributes and names under leases: the tables, metad's answers, recalls. What changes of our own
 * do to it is in lcache_change.c.
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
 * The kernel is told by LCACHE_WORKERS threads, since telling it may wait for a page that is being
 * read or written; metad gets its answer after that. Such a page may itself wait for metad, which
 * waits for us: a request about the inode (lcache_yield) then answers metad first. A recall of a
 * directory in which somebody is making or removing a name (`holders`) waits for that. Dropping
 * everything waits for it as well, and tells at once what cannot block.
 *
 * Failure modes: out of memory ends the process. Thread context: any. */
#include "lcache.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mix.h"
#include "base/thread.h"
#include "internal.h"
#include "lcache_int.h"

/* ---- nodes and entries, mutex held ---- */

uint64_t *lfence_of(struct lcache *l, uint64_t ino)
{
    return &l->fence[mix64(ino) % FENCES];
}

struct lnode **lnode_slot(struct lcache *l, uint64_t ino)
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

struct lnode *lnode_find(struct lcache *l, uint64_t ino)
{
    struct lnode *n = *lnode_slot(l, ino);
    if (n && n != l->newest) {
        node_unlink(l, n);
        node_link(l, n);
    }
    return n;
}

bool lnode_drop(struct lcache *l, uint64_t ino)
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

struct lnode *lnode_make(struct lcache *l, uint64_t ino)
{
    struct lnode *n = lnode_find(l, ino);
    if (n)
        return n;
    if (l->nnodes >= l->max_nodes) { /* the kernel may still have it, under this very lease */
        l->unflushed[mix64(l->oldest->ino) % UNFLUSHED] += l->oldest->exclusive;
        job_add(l, l->oldest->ino, LCACHE_INVAL_ATTR, l->oldest->exclusive, NULL, NULL);
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

struct lentry **lentry_slot(struct lcache *l, uint64_t parent, const void *name, size_t len,
                            uint64_t hash)
{
    struct lentry **p = &l->entries[hash & l->entries_mask];
    while (*p && ((*p)->hash != hash || (*p)->parent != parent || (*p)->len != len ||
                  memcmp((*p)->name, name, len)))
        p = &(*p)->hash_next;
    return p;
}

void lentry_drop(struct lcache *l, struct lentry **slot)
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

void lentry_put(struct lcache *l, struct lnode *dir, const void *name, size_t len, uint64_t ino)
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

bool lcache_in_term(const struct lcache *l)
{
    return l->until > clock_boot();
}

/* ---- reading ---- */

int64_t lcache_ttl(struct lcache *l, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    int64_t left = *lnode_slot(l, ino) ? l->until - clock_boot() : 0;
    return left > 0 ? left : 0;
}

static bool get_attr(struct lcache *l, uint64_t ino, Replfs__Attr *out)
{
    struct lnode *n = lnode_find(l, ino);
    if (!n || !n->has_attr)
        return false;
    attr_copy(out, &n->attr);
    return true;
}

bool lcache_getattr(struct lcache *l, uint64_t ino, Replfs__Attr *out)
{
    LOCK_SCOPE(&l->mu);
    bool hit = lcache_in_term(l) && get_attr(l, ino, out);
    l->st.hits += hit;
    l->st.misses += !hit;
    return hit;
}

static enum lcache_found find(struct lcache *l, uint64_t parent, const void *name, size_t len,
                              Replfs__Attr *out)
{
    struct lnode *dir = lcache_in_term(l) ? lnode_find(l, parent) : NULL;
    if (!dir)
        return LCACHE_MISS;
    struct lentry *e = *lentry_slot(l, parent, name, len, lname_hash(parent, name, len));
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

void lnode_put_attr(struct lcache *l, bool crossed, const Replfs__Attr *a, uint32_t lease)
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

void lcache_put_attr(struct lcache *l, uint64_t begun, const Replfs__Attr *a, uint32_t lease)
{
    LOCK_SCOPE(&l->mu);
    lnode_put_attr(l, *lfence_of(l, a->ino) > begun, a, lease);
}

bool lcache_exclusive(struct lcache *l, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    const struct lnode *n = *lnode_slot(l, ino);
    return n && n->exclusive && lcache_in_term(l);
}

void lcache_regain(struct lcache *l, uint64_t ino, bool ours)
{
    LOCK_SCOPE(&l->mu);
    if (ours)
        lnode_make(l, ino)->exclusive = true;
    else
        lnode_drop(l, ino);
}

bool lcache_held_since(struct lcache *l, uint64_t begun, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    const struct lnode *n = *lnode_slot(l, ino);
    return !l->term || (n && n->gen <= begun && lcache_in_term(l));
}

void lcache_put_entry(struct lcache *l, uint64_t begun, uint64_t parent, const void *name,
                      size_t len, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    if (*lfence_of(l, parent) > begun || len > UINT8_MAX)
        return;
    lentry_put(l, lnode_make(l, parent), name, len, ino);
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
    const struct lnode *n = *lnode_slot(l, ino);
    unsigned what = LCACHE_INVAL_ATTR | LCACHE_INVAL_PAGES;
    if (!n || !n->has_attr || S_ISDIR(n->attr.mode))
        what |= LCACHE_INVAL_ENTRIES;
    bool flush = n ? n->exclusive : l->unflushed[mix64(ino) % UNFLUSHED] > 0;
    if (n && flush && (what & LCACHE_INVAL_ENTRIES))
        l->contested[mix64(ino) % CONTESTED] = clock_mono();
    *lfence_of(l, ino) = ++l->gen;
    lnode_drop(l, ino);
    l->st.recalls++;
    bool later = !l->stop && l->nworkers;
    if (later) { /* a second recall, to come down further, waits for the same flush */
        l->unflushed[mix64(ino) % UNFLUSHED] += flush;
        job_add(l, ino, what, flush, done, arg);
    }
    pthread_mutex_unlock(&l->mu);
    if (!later)
        done(arg);
}

static void nobody(void *arg)
{
    (void)arg;
}

void lcache_forget_now(struct lcache *l, uint64_t ino)
{
    lcache_recall(l, ino, nobody, NULL);
}

void lcache_tell_later(struct lcache *l, uint64_t ino, unsigned what)
{
    if (l->inval && !l->stop)
        job_add(l, ino, what, false, NULL, NULL);
}

void lcache_drop_all(struct lcache *l)
{
    pthread_mutex_lock(&l->mu);
    for (size_t i = 0; i < FENCES; i++)
        l->fence[i] = l->gen + 1;
    l->gen++;
    l->until = 0;
    while (l->holders) /* what they put counts among what is kept back */
        pthread_cond_wait(&l->unheld, &l->mu);
    size_t n = 0;
    uint64_t *inos = l->inval && !l->stop && l->nnodes ? malloc(l->nnodes * sizeof(*inos)) : NULL;
    for (struct lnode *x = l->newest, *older; x; x = older) {
        older = x->older;
        if (inos)
            inos[n++] = x->ino;
        if (inos && x->has_attr && (S_ISREG(x->attr.mode) || S_ISDIR(x->attr.mode)))
            job_add(l, x->ino, LCACHE_INVAL_PAGES, false, NULL, NULL);
        lnode_drop(l, x->ino);
    }
    lcache_tell_given(l);
    pthread_mutex_unlock(&l->mu);
    for (size_t i = 0; i < n; i++)
        l->inval(l->inval_arg, inos[i], LCACHE_INVAL_ATTR | (i ? 0 : LCACHE_INVAL_ENTRIES));
    free(inos);
}

static bool in_list(const struct lasker *a, uint64_t ino)
{
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
    pthread_mutex_lock(&l->mu);
    while (in_list(l->holders, j->ino))
        pthread_cond_wait(&l->unheld, &l->mu);
    pthread_mutex_unlock(&l->mu);
    l->forget(l->forget_arg, j->ino, j->flush);
    l->unflushed[mix64(j->ino) % UNFLUSHED] -= j->flush;
    if (l->inval)
        lcache_tell(l, j->ino, j->what & ~LCACHE_INVAL_PAGES);
    if (!(j->what & LCACHE_INVAL_PAGES) || !l->inval) {
        job_done(j);
        return;
    }
    pthread_mutex_lock(&l->mu);
    bool now = in_list(l->askers, j->ino);
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
    void (*done[LCACHE_WORKERS])(void *arg);
    void *arg[LCACHE_WORKERS];
    unsigned n = 0;
    pthread_mutex_lock(&l->mu);
    for (struct ljob *j = l->paging; j; j = j->next) {
        if (j->ino == ino && j->done && n < LCACHE_WORKERS) {
            done[n] = j->done;
            arg[n++] = j->arg;
            j->done = NULL;
        }
    }
    pthread_mutex_unlock(&l->mu);
    for (unsigned i = 0; i < n; i++)
        done[i](arg[i]);
}

void lasker_remove(struct lasker **list, struct lasker *a)
{
    while (*list != a)
        list = &(*list)->next;
    *list = a->next;
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
    lasker_remove(&l->askers, a);
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
    pthread_cond_init(&l->unheld, NULL);
    l->tail = &l->head;
    l->inval = inval;
    l->inval_arg = arg;
    l->forget = forget;
    l->forget_arg = forget_arg;
    l->nworkers = threads_start(l->workers, LCACHE_WORKERS, "lcache", worker, l);
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
    threads_join(l->workers, l->nworkers);
    l->nworkers = 0;
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
        lnode_drop(l, l->newest->ino);
    while (l->old)
        lentry_drop(l, lentry_slot(l, l->old->parent, l->old->name, l->old->len, l->old->hash));
    free(l->nodes);
    free(l->entries);
    pthread_mutex_destroy(&l->mu);
    pthread_cond_destroy(&l->cv);
    pthread_cond_destroy(&l->unheld);
    free(l);
}

void lcache_stat(struct lcache *l, struct lcache_stat *out)
{
    LOCK_SCOPE(&l->mu);
    *out = l->st;
    out->nodes = l->nnodes;
    out->entries = l->nentries;
}
