/* Attributes and names under leases: the tables, metad's answers, recalls. What changes of our own
 * do to it is in lease_cache_change.c.
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
 * The kernel is told by LEASE_CACHE_WORKERS threads, since telling it may wait for a page that is being
 * read or written; metad gets its answer after that. Such a page may itself wait for metad, which
 * waits for us: a request about the inode (lease_cache_yield) then answers metad first. A recall of a
 * directory in which somebody is making or removing a name (`holders`) waits for that. Dropping
 * everything waits for it as well, and tells at once what cannot block.
 *
 * Failure modes: out of memory ends the process. Thread context: any. */
#include "client/cache/lease_cache.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "base/lock.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/thread.h"
#include "client/base/attr.h"
#include "client/cache/lease_cache_give.h"
#include "client/cache/lease_table.h"

/* ---- reading ---- */

int64_t lease_cache_ttl(struct lease_cache *l, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    const struct lnode *n = *lnode_slot(l, ino);
    int64_t left = n && !lnode_in_doubt(l, n) ? l->until - clock_boot() : 0;
    return left > 0 ? left : 0;
}

static bool get_attr(struct lease_cache *l, uint64_t ino, Replfs__Attr *out)
{
    struct lnode *n = lnode_find(l, ino);
    if (!n || !n->has_attr || lnode_in_doubt(l, n))
        return false;
    attr_copy(out, &n->attr);
    return true;
}

bool lease_cache_getattr(struct lease_cache *l, uint64_t ino, Replfs__Attr *out)
{
    LOCK_SCOPE(&l->mu);
    bool hit = lease_cache_in_term(l) && get_attr(l, ino, out);
    l->st.hits += hit;
    l->st.misses += !hit;
    return hit;
}

static enum lease_cache_found lease_find(struct lease_cache *l, uint64_t parent, const void *name,
                                         size_t len, Replfs__Attr *out)
{
    struct lnode *dir = lease_cache_in_term(l) ? lnode_find(l, parent) : NULL;
    if (!dir || lnode_in_doubt(l, dir))
        return LEASE_CACHE_MISS;
    struct lentry *e = *lentry_slot(l, parent, name, len, lname_hash(parent, name, len));
    if (!e || e->gen != dir->gen)
        return dir->complete ? LEASE_CACHE_NO_NAME : LEASE_CACHE_MISS;
    if (!e->ino)
        return LEASE_CACHE_NO_NAME;
    return get_attr(l, e->ino, out) ? LEASE_CACHE_NAME : LEASE_CACHE_MISS;
}

enum lease_cache_found lease_cache_lookup(struct lease_cache *l, uint64_t parent, const void *name,
                                          size_t len, Replfs__Attr *out)
{
    LOCK_SCOPE(&l->mu);
    enum lease_cache_found r = lease_find(l, parent, name, len, out);
    l->st.hits += r != LEASE_CACHE_MISS;
    l->st.misses += r == LEASE_CACHE_MISS;
    return r;
}

/* ---- answers ---- */

uint64_t lease_cache_begin(struct lease_cache *l)
{
    LOCK_SCOPE(&l->mu);
    return l->gen;
}

void lease_cache_put_attr(struct lease_cache *l, uint64_t begun, const Replfs__Attr *a,
                          uint32_t lease)
{
    LOCK_SCOPE(&l->mu);
    lnode_put_attr(l, *lfence_of(l, a->ino) > begun || lease_cache_changing(l, a->ino), a, lease);
}

bool lease_cache_exclusive(struct lease_cache *l, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    const struct lnode *n = *lnode_slot(l, ino);
    return n && n->exclusive && lease_cache_in_term(l);
}

void lease_cache_regain(struct lease_cache *l, uint64_t ino, bool ours)
{
    LOCK_SCOPE(&l->mu);
    if (ours)
        lnode_make(l, ino)->exclusive = true;
    else
        lnode_drop(l, ino);
}

bool lease_cache_held_since(struct lease_cache *l, uint64_t begun, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    const struct lnode *n = *lnode_slot(l, ino);
    return !l->term || (n && n->gen <= begun && lease_cache_in_term(l));
}

void lease_cache_put_entry(struct lease_cache *l, uint64_t begun, uint64_t parent, const void *name,
                           size_t len, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    if (*lfence_of(l, parent) > begun || lease_cache_changing(l, parent) || len > UINT8_MAX)
        return;
    lentry_put(l, lnode_make(l, parent), name, len, ino);
}

/* ---- recalls and the end of the term ---- */

/* Two computers' clocks run at rates that differ by 100 ppm or so, and by 500 ppm each while NTP slews them (adjtimex(2)):
 * ours shall say that the term is over first. */
void lease_cache_set_term(struct lease_cache *l, unsigned term_ms)
{
    LOCK_SCOPE(&l->mu);
    l->term = term_ms * NSEC_PER_MSEC;
    l->term -= l->term / 512;
}

bool lease_cache_term(struct lease_cache *l)
{
    LOCK_SCOPE(&l->mu);
    return l->term != 0;
}

void lease_cache_renew(struct lease_cache *l, int64_t sent)
{
    LOCK_SCOPE(&l->mu);
    if (sent + l->term > l->until)
        l->until = sent + l->term;
}

void lease_cache_recall(struct lease_cache *l, uint64_t ino, void (*done)(void *arg), void *arg)
{
    lock_acquire(&l->mu);
    const struct lnode *n = *lnode_slot(l, ino);
    unsigned what = LEASE_CACHE_INVAL_ATTR | LEASE_CACHE_INVAL_PAGES;
    if (!n || !n->has_attr || S_ISDIR(n->attr.mode))
        what |= LEASE_CACHE_INVAL_ENTRIES;
    bool flush = n ? n->exclusive : l->unflushed[hash_u64(ino) % UNFLUSHED] > 0;
    if (n && flush && (what & LEASE_CACHE_INVAL_ENTRIES))
        l->contested[hash_u64(ino) % CONTESTED] = clock_mono();
    l->recalled[hash_u64(ino) % CONTESTED] = clock_mono();
    *lfence_of(l, ino) = ++l->gen;
    lnode_drop(l, ino);
    l->st.recalls++;
    bool later = !l->stop && l->nworkers;
    if (later) { /* a second recall, to come down further, waits for the same flush */
        l->unflushed[hash_u64(ino) % UNFLUSHED] += flush;
        ljob_add(l, ino, what, flush, done, arg);
    }
    lock_release(&l->mu);
    if (!later)
        done(arg);
}

static void nobody(void *arg)
{
    (void)arg;
}

void lease_cache_forget_now(struct lease_cache *l, uint64_t ino)
{
    lease_cache_recall(l, ino, nobody, NULL);
}

void lease_cache_drop_all(struct lease_cache *l)
{
    lock_acquire(&l->mu);
    for (size_t i = 0; i < FENCES; i++)
        l->fence[i] = l->gen + 1;
    l->gen++;
    l->until = 0;
    while (l->holders) /* what they put counts among what is kept back */
        cond_wait(&l->unheld, &l->mu);
    size_t n = 0;
    uint64_t *inos = l->inval && !l->stop && l->nnodes ? malloc(l->nnodes * sizeof(*inos)) : NULL;
    for (struct lnode *x = l->newest, *older; x; x = older) {
        older = x->older;
        if (inos)
            inos[n++] = x->ino;
        if (inos && x->has_attr && (S_ISREG(x->attr.mode) || S_ISDIR(x->attr.mode)))
            ljob_add(l, x->ino, LEASE_CACHE_INVAL_PAGES, false, NULL, NULL);
        lnode_drop(l, x->ino);
    }
    lease_cache_tell_given(l);
    lock_release(&l->mu);
    for (size_t i = 0; i < n; i++)
        l->inval(l->inval_arg, inos[i],
                 LEASE_CACHE_INVAL_ATTR | (i ? 0 : LEASE_CACHE_INVAL_ENTRIES));
    free(inos);
}

static bool in_list(const struct lease_request *a, uint64_t ino)
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
static void job_do(struct lease_cache *l, struct ljob *j)
{
    lock_acquire(&l->mu);
    while (in_list(l->holders, j->ino))
        cond_wait(&l->unheld, &l->mu);
    lock_release(&l->mu);
    l->forget(l->forget_arg, j->ino, j->flush);
    l->unflushed[hash_u64(j->ino) % UNFLUSHED] -= j->flush;
    if (l->inval)
        lease_cache_tell(l, j->ino, j->what & ~LEASE_CACHE_INVAL_PAGES);
    if (!(j->what & LEASE_CACHE_INVAL_PAGES) || !l->inval) {
        job_done(j);
        return;
    }
    lock_acquire(&l->mu);
    bool now = in_list(l->askers, j->ino);
    j->next = l->paging;
    l->paging = j;
    lock_release(&l->mu);
    if (now)
        lease_cache_yield(l, j->ino);
    l->inval(l->inval_arg, j->ino, LEASE_CACHE_INVAL_PAGES);
    lock_acquire(&l->mu);
    struct ljob **p = &l->paging;
    while (*p != j)
        p = &(*p)->next;
    *p = j->next;
    lock_release(&l->mu);
    job_done(j);
}

void lease_cache_yield(struct lease_cache *l, uint64_t ino)
{
    void (*done[LEASE_CACHE_WORKERS])(void *arg);
    void *arg[LEASE_CACHE_WORKERS];
    unsigned n = 0;
    lock_acquire(&l->mu);
    for (struct ljob *j = l->paging; j; j = j->next) {
        if (j->ino == ino && j->done && n < LEASE_CACHE_WORKERS) {
            done[n] = j->done;
            arg[n++] = j->arg;
            j->done = NULL;
        }
    }
    lock_release(&l->mu);
    for (unsigned i = 0; i < n; i++)
        done[i](arg[i]);
}

void lease_cache_ask_begin(struct lease_cache *l, struct lease_request *a, uint64_t ino)
{
    lock_acquire(&l->mu);
    *a = (struct lease_request){l->askers, ino};
    l->askers = a;
    lock_release(&l->mu);
    lease_cache_yield(l, ino);
}

void lease_cache_ask_end(struct lease_cache *l, struct lease_request *a)
{
    LOCK_SCOPE(&l->mu);
    lease_request_remove(&l->askers, a);
}

static void *worker(void *arg)
{
    struct lease_cache *l = arg;
    lock_acquire(&l->mu);
    for (;;) {
        while (!l->head && !l->stop)
            cond_wait(&l->cv, &l->mu);
        struct ljob *j = l->head;
        if (!j)
            break;
        l->head = j->next;
        if (!l->head)
            l->tail = &l->head;
        lock_release(&l->mu);
        job_do(l, j);
        free(j);
        lock_acquire(&l->mu);
    }
    lock_release(&l->mu);
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

struct lease_cache *lease_cache_new(size_t max_nodes, lease_cache_inval *inval, void *arg,
                                    lease_cache_forget *forget, void *forget_arg)
{
    struct lease_cache *l = calloc(1, sizeof(*l));
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
    lock_init(&l->mu, LOCK_LEASE_CACHE);
    cond_init(&l->cv);
    cond_init(&l->unheld);
    l->tail = &l->head;
    l->inval = inval;
    l->inval_arg = arg;
    l->forget = forget;
    l->forget_arg = forget_arg;
    l->nworkers = threads_start(l->workers, LEASE_CACHE_WORKERS, "leases", worker, l);
    if (!l->nworkers)
        abort();
    return l;
}

void lease_cache_stop(struct lease_cache *l)
{
    if (!l)
        return;
    lock_acquire(&l->mu);
    l->stop = true;
    cond_broadcast(&l->cv);
    lock_release(&l->mu);
    threads_join(l->workers, l->nworkers);
    l->nworkers = 0;
}

void lease_cache_free(struct lease_cache *l)
{
    if (!l)
        return;
    lease_cache_stop(l);
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
    lock_destroy(&l->mu);
    cond_destroy(&l->cv);
    cond_destroy(&l->unheld);
    free(l);
}

void lease_cache_stat(struct lease_cache *l, struct lease_cache_stat *out)
{
    LOCK_SCOPE(&l->mu);
    *out = l->st;
    out->nodes = l->nnodes;
    out->entries = l->nentries;
}
