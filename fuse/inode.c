/* The table behind keep_cache.
 *
 * Inode numbers are cluster-wide ids, so the kernel's node ids need no translation and lookup
 * counts need no bookkeeping (forget is a no-op). The only thing worth remembering per inode is the
 * change counter at its last open: when the next open brings the same, no client, this one
 * included, has changed the file between, and the page cache is good.
 *
 * Direct-mapped, two words a slot: a colliding inode evicts, which loses a cached page or two but
 * never keeps a wrong one. Stripes of locks, since opens come from many threads. */
#include "inode.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/lock.h"
#include "base/hash.h"

#define SLOTS 65536u
#define STRIPES 64u

struct slot {
    uint64_t ino, change;
    int64_t until; /* a directory's: what the kernel has listed may be used so long */
};
struct inode_table {
    struct lock lock[STRIPES]; /* of slots with index % STRIPES */
    struct slot slot[SLOTS];
};

struct inode_table *inode_table_new(void)
{
    struct inode_table *t = calloc(1, sizeof(*t));
    if (!t)
        abort();
    for (unsigned i = 0; i < STRIPES; i++)
        lock_init(&t->lock[i], LOCK_INODE_STRIPE);
    return t;
}

void inode_table_free(struct inode_table *t)
{
    if (!t)
        return;
    for (unsigned i = 0; i < STRIPES; i++)
        lock_destroy(&t->lock[i]);
    free(t);
}

bool inode_listed(struct inode_table *t, uint64_t ino, uint64_t change, int64_t beyond,
                  int64_t until)
{
    unsigned i = (unsigned)(hash_u64(ino) % SLOTS);
    LOCK_SCOPE(&t->lock[i % STRIPES]);
    struct slot *s = &t->slot[i];
    bool same = s->ino == ino && s->change == change && s->until > beyond;
    if (!same)
        *s = (struct slot){ino, change, until};
    return same;
}

bool inode_seen(struct inode_table *t, uint64_t ino, uint64_t change)
{
    return inode_listed(t, ino, change, 0, INT64_MAX);
}
