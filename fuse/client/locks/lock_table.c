/* File locks as this client has them: to claim them again when the session is resumed, to send no unlock for what
 * is not locked, and to know which open file a lock was set through (the kernel sends no unlock for OFD locks when
 * their file is closed). locks.mu is held throughout. */
#include "client/locks/lock_table.h"
#include <stdlib.h>
#include "base/lockset.h"
#include "base/u64map.h"
#include "client/client.h"

static struct lock_hold **lock_slot(struct lock_file *f, uint64_t owner, bool flock)
{
    struct lock_hold **p = &f->holds;
    while (*p && ((*p)->owner != owner || (*p)->flock != flock))
        p = &(*p)->next;
    return p;
}

struct lock_hold *lock_hold_get(struct client_locks *k, uint64_t ino, uint64_t owner, bool flock)
{
    struct lock_file *f = u64map_get_ptr(&k->files, ino);
    return f ? *lock_slot(f, owner, flock) : NULL;
}

void lock_hold_free(struct client_locks *k, struct lock_file *f, struct lock_hold **slot)
{
    struct lock_hold *h = *slot;
    *slot = h->next;
    lockset_free(&h->set);
    free(h->by);
    free(h);
    atomic_fetch_sub(&k->nholds, 1);
    if (f->holds)
        return;
    u64map_del_ptr(&k->files, f->ino);
    free(f);
}

struct lock_by *lock_by_handle(const struct lock_hold *h, uint64_t handle)
{
    for (size_t i = 0; i < h->nby; i++)
        if (h->by[i].handle == handle)
            return &h->by[i];
    return NULL;
}

static void hold_handle(struct lock_hold *h, uint64_t handle)
{
    struct lock_by *b = lock_by_handle(h, handle);
    if (!b) {
        h->by = realloc(h->by, (h->nby + 1) * sizeof(*h->by));
        if (!h->by)
            abort();
        b = &h->by[h->nby++];
    }
    *b = (struct lock_by){handle, false};
}

void lock_hold_set(struct client_locks *k, const struct client_lock *l)
{
    struct lock_file *f = u64map_get_ptr(&k->files, l->ino);
    if (!f) {
        f = calloc(1, sizeof(*f));
        if (!f)
            abort();
        f->ino = l->ino;
        u64map_put_ptr(&k->files, l->ino, f);
    }
    struct lock_hold **slot = lock_slot(f, l->owner, l->flock), *h = *slot;
    if (!h) {
        h = *slot = calloc(1, sizeof(*h));
        if (!h)
            abort();
        h->owner = l->owner;
        h->flock = l->flock;
        atomic_fetch_add(&k->nholds, 1);
    }
    h->pid = l->pid;
    hold_handle(h, l->handle);
    lockset_set(&h->set, l->type, l->start, l->end);
}

/* False: nothing of it is held. */
bool lock_hold_clear(struct client_locks *k, const struct client_lock *l)
{
    struct lock_file *f = u64map_get_ptr(&k->files, l->ino);
    struct lock_hold **slot = f ? lock_slot(f, l->owner, l->flock) : NULL, *h = slot ? *slot : NULL;
    if (!h || !lockset_conflict(&h->set, LOCKSET_WRITE, l->start, l->end))
        return false;
    lockset_set(&h->set, LOCKSET_NONE, l->start, l->end);
    if (!h->set.n)
        lock_hold_free(k, f, slot);
    return true;
}

/* Somebody else on this mount has flocked the file: perhaps one whose RELEASE is on its way. */
bool lock_flocked_here(struct client_locks *k, const struct client_lock *l)
{
    struct lock_file *f = l->flock ? u64map_get_ptr(&k->files, l->ino) : NULL;
    for (struct lock_hold *h = f ? f->holds : NULL; h; h = h->next)
        if (h->flock && h->owner != l->owner)
            return true;
    return false;
}

size_t lock_seq_of(uint64_t ino)
{
    return ino % LOCK_SEQS;
}

void lock_fill(Replfs__Lock *m, const struct client_lock *l)
{
    replfs__lock__init(m);
    m->ino = l->ino;
    m->owner = l->owner;
    m->type = l->type;
    m->start = l->start;
    m->end = l->end;
    m->pid = l->pid;
    m->flock = l->flock;
}

void lock_hold_free_all(struct client_locks *k)
{
    size_t pos;
    for (struct lock_file *f; pos = 0, (f = u64map_next_ptr(&k->files, &pos));) {
        while (f->holds->next)
            lock_hold_free(k, f, &f->holds);
        lock_hold_free(k, f, &f->holds);
    }
}
