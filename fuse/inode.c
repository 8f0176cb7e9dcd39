/* The tables behind keep_cache and behind questions for absent extended attributes.
 *
 * Inode numbers are cluster-wide ids, so the kernel's node ids need no translation and lookup
 * counts need no bookkeeping (forget is a no-op). The only thing worth remembering per inode is the
 * change counter at its last open: when the next open brings the same, no client, this one
 * included, has changed the file between, and the page cache is good.
 *
 * Direct-mapped, two words a slot: a colliding inode evicts, which loses a cached page or two but
 * never keeps a wrong one. Stripes of locks, since opens come from many threads.
 *
 * The second table bridges the moment between the attributes that the kernel asks for at each step
 * of a path and the ACL that it asks for next. It must not outlive the call: a path that is walked
 * again brings attributes again, so what another client changed meanwhile is seen. */
#include "inode.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/mix.h"

#define SLOTS 65536u
#define STRIPES 64u
#define PLAIN_SLOTS 4096u
#define PLAIN_NS (10 * NSEC_PER_MSEC)

struct slot {
    uint64_t ino, change;
};
struct inode_table {
    pthread_mutex_t lock[STRIPES]; /* of slots with index % STRIPES */
    struct slot slot[SLOTS];
    pthread_mutex_t plain_lock[STRIPES]; /* of those with index % STRIPES */
    struct plain {
        uint64_t ino;
        int64_t at;
    } plain[PLAIN_SLOTS];
};

struct inode_table *inode_table_new(void)
{
    struct inode_table *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_init(&t->lock[i], NULL);
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_init(&t->plain_lock[i], NULL);
    return t;
}

void inode_table_free(struct inode_table *t)
{
    if (!t)
        return;
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_destroy(&t->lock[i]);
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_destroy(&t->plain_lock[i]);
    free(t);
}

bool inode_seen(struct inode_table *t, uint64_t ino, uint64_t change)
{
    unsigned i = (unsigned)(mix64(ino) % SLOTS);
    LOCK_SCOPE(&t->lock[i % STRIPES]);
    struct slot *s = &t->slot[i];
    bool same = s->ino == ino && s->change == change;
    s->ino = ino;
    s->change = change;
    return same;
}

void inode_note_xattr(struct inode_table *t, uint64_t ino, bool has)
{
    unsigned i = (unsigned)(mix64(ino) % PLAIN_SLOTS);
    int64_t now = clock_mono();
    LOCK_SCOPE(&t->plain_lock[i % STRIPES]);
    struct plain *p = &t->plain[i];
    if (has && p->ino == ino)
        p->ino = 0;
    else if (!has)
        *p = (struct plain){ino, now};
}

bool inode_plain(struct inode_table *t, uint64_t ino)
{
    unsigned i = (unsigned)(mix64(ino) % PLAIN_SLOTS);
    int64_t now = clock_mono();
    LOCK_SCOPE(&t->plain_lock[i % STRIPES]);
    return t->plain[i].ino == ino && now - t->plain[i].at < PLAIN_NS;
}
