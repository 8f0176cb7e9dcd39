/* The lease cache and the kernel: what it is given, for how long, and that it forgets that, too.
 *
 * An answer is made, written to the kernel, and taken in there by the program that asked, in this order
 * and with time between: a lease may be recalled, or the inode changed by us, at any point.
 * - Lifetimes are given for what is known to be so at the moment of giving (lease_cache_give_attr and _name), not
 *   for what was known when the answer was asked for.
 * - What comes later goes to the kernel as a message, which may overtake the answer. Attributes that a
 *   question asked for (getattr, lookup) are safe where the kernel has the inode: it ignores an answer to
 *   a question from before the message. Of an
 *   inode that it has not (the message fails) an answer may be on its way, so the message is repeated
 *   until the kernel knows the inode, or LATE_NS have passed since it was given.
 * - Attributes that answer a change (setattr, create, link) the kernel takes in whatever came meanwhile, and a
 *   new inode it has a moment before it has its attributes. So these are given no time where others use
 *   the inode or its directory: the next who asks for them asks us (lease_cache_give_changed).
 * - Names come with answers to a question from before the message (lookups), which the kernel takes for old
 *   ones, or with a listing, which it does not: the caller that lists says when the kernel has come back for more
 *   (lease_cache_linking), and the message is repeated then. A program may stop in the middle of a listing, so a
 *   recall waits LINKING_NS at most; should the program only have had no CPU for so long, the message
 *   comes as soon as it goes on.
 *
 * Two inodes that share a slot of the tables protect each other less: what was given first is forgotten.
 * Thread context: any; lease_cache_tell sleeps. */
#include "client/cache/lease_cache_give.h"
#include <stdlib.h>
#include <time.h>
#include "base/lock.h"
#include "base/clock.h"
#include "base/hash.h"
#include "client/cache/lease_cache.h"
#include "client/cache/lease_table.h"

#define LATE_NS (500 * NSEC_PER_MSEC)
#define LINKING_NS NSEC_PER_SEC

static int64_t left(const struct lease_cache *l, int64_t now)
{
    return l->until > now ? l->until - now : 0;
}

int64_t lease_cache_give_attr(struct lease_cache *l, const Replfs__Attr *a)
{
    int64_t now = clock_boot();
    LOCK_SCOPE(&l->mu);
    const struct lnode *n = *lnode_slot(l, a->ino);
    if (!n || !n->has_attr || lnode_in_doubt(l, n) || n->attr.change > a->change || !left(l, now))
        return 0;
    l->given[hash_u64(a->ino) % GIVEN] = (struct lgiven){.ino = a->ino, .at = now};
    return left(l, now);
}

int64_t lease_cache_give_changed(struct lease_cache *l, uint64_t dir, const Replfs__Attr *a)
{
    int64_t since = clock_mono() - CONTESTED_NS;
    lock_acquire(&l->mu);
    const struct lnode *n = *lnode_slot(l, a->ino);
    int64_t at = l->recalled[hash_u64(a->ino) % CONTESTED];
    int64_t dir_at = dir ? l->recalled[hash_u64(dir) % CONTESTED] : 0;
    bool alone = n && n->exclusive && !(at && at > since) && !(dir_at && dir_at > since);
    lock_release(&l->mu);
    return alone ? lease_cache_give_attr(l, a) : 0;
}

/* mu held. */
static bool has_name(struct lease_cache *l, uint64_t dir, const void *name, size_t len,
                     uint64_t ino)
{
    const struct lnode *d = *lnode_slot(l, dir);
    if (!d || lnode_in_doubt(l, d) || len > UINT8_MAX)
        return false;
    const struct lentry *e = *lentry_slot(l, dir, name, len, lname_hash(dir, name, len));
    return e && e->gen == d->gen ? e->ino == ino : d->complete && !ino;
}

int64_t lease_cache_give_name(struct lease_cache *l, uint64_t dir, const void *name, size_t len,
                              uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    return has_name(l, dir, name, len, ino) ? left(l, clock_boot()) : 0;
}

bool lease_cache_has_name(struct lease_cache *l, uint64_t dir, const void *name, size_t len,
                          uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    return ino && lease_cache_in_term(l) && has_name(l, dir, name, len, ino);
}

void lease_cache_linking(struct lease_cache *l, uint64_t dir, bool begin)
{
    LOCK_SCOPE(&l->mu);
    struct lgiven *g = &l->linking[hash_u64(dir) % LINKING];
    if (g->ino != dir) {
        if (!begin)
            return;
        *g = (struct lgiven){.ino = dir};
    }
    if (begin) {
        g->at = clock_boot();
        g->n++;
        return;
    }
    if (!g->n)
        return;
    g->n--;
    if (g->missed)
        lease_cache_tell_soon(l, dir, LEASE_CACHE_INVAL_ENTRIES);
    g->missed &= g->n > 0;
}

/* mu held. */
static bool late(const struct lgiven *g, int64_t now)
{
    return g->at && now - g->at < LATE_NS;
}

static bool may_be_given(struct lease_cache *l, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    const struct lgiven *g = &l->given[hash_u64(ino) % GIVEN];
    return g->ino == ino && late(g, clock_boot());
}

/* And is to be waited for, until then. */
static bool being_linked(struct lease_cache *l, uint64_t dir, int64_t until)
{
    int64_t now = clock_boot();
    LOCK_SCOPE(&l->mu);
    struct lgiven *g = &l->linking[hash_u64(dir) % LINKING];
    if (g->ino != dir || !g->n)
        return false;
    if (now < until && now - g->at < LINKING_NS)
        return true;
    g->missed = true;
    return false;
}

void lease_cache_tell(struct lease_cache *l, uint64_t ino, unsigned what)
{
    static const struct timespec pause = {.tv_nsec = NSEC_PER_MSEC};
    int64_t until = clock_boot() + LINKING_NS;
    for (;;) {
        bool names = (what & LEASE_CACHE_INVAL_ENTRIES) && being_linked(l, ino, until);
        bool known = l->inval(l->inval_arg, ino, what);
        if (!names && (known || !may_be_given(l, ino)))
            return;
        do
            nanosleep(&pause, NULL);
        while (names && being_linked(l, ino, until));
    }
}

void lease_cache_tell_given(struct lease_cache *l)
{
    int64_t now = clock_boot();
    for (size_t i = 0; i < GIVEN; i++)
        if (late(&l->given[i], now))
            lease_cache_tell_soon(l, l->given[i].ino, LEASE_CACHE_INVAL_ATTR);
    for (size_t i = 0; i < LINKING; i++)
        if (l->linking[i].n)
            lease_cache_tell_soon(l, l->linking[i].ino, LEASE_CACHE_INVAL_ENTRIES);
}

void lease_cache_tell_all(struct lease_cache *l)
{
    size_t n = 0;
    lock_acquire(&l->mu);
    uint64_t *inos = l->inval && !l->stop && l->nnodes ? malloc(l->nnodes * sizeof(*inos)) : NULL;
    for (struct lnode *x = inos ? l->newest : NULL; x; x = x->older)
        inos[n++] = x->ino;
    lock_release(&l->mu);
    for (size_t i = 0; i < n; i++)
        l->inval(l->inval_arg, inos[i],
                 LEASE_CACHE_INVAL_ATTR | (i ? 0 : LEASE_CACHE_INVAL_ENTRIES));
    free(inos);
}
