/* Unlocking. Our record goes first, then metad is told.
 *
 * Unlocks by RELEASE come after close(2) has returned, and may be overtaken by the next request of
 * the same program. So a refusal is asked again when an unlock of this client was under way
 * (lock_requests.c), and a request waits for an open file that may be on its way out (client_lock_turn). */
#include "client/locks/unlock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/lockset.h"
#include "base/log.h"
#include "base/lock.h"
#include "client/base/client_clock.h"
#include "base/u64map.h"
#include "client/client.h"
#include "client/internal.h"
#include "client/locks/lock_table.h"
#include "client/session/ask.h"

#define LOG_MODULE "locks"
#define TURN_MS 200 /* see client_lock_turn */

static void unlock_begin(struct client_locks *k, uint64_t ino) /* mu held */
{
    k->seq[lock_seq_of(ino)]++;
    k->unlocking[lock_seq_of(ino)]++;
}

static void unlock_end(struct client_locks *k, uint64_t ino)
{
    lock_acquire(&k->mu);
    k->unlocking[lock_seq_of(ino)]--;
    cond_broadcast(&k->unlocked);
    lock_release(&k->mu);
}

int client_unlock(struct client *c, const struct client_lock *l)
{
    struct client_locks *k = c->locks;
    lock_acquire(&k->mu);
    bool some = lock_hold_clear(k, l);
    if (some)
        unlock_begin(k, l->ino);
    lock_release(&k->mu);
    if (!some)
        return 0;
    Replfs__LockReq m = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock lock;
    struct rpc_result res;
    lock_fill(&lock, l);
    lock.type = LOCKSET_NONE;
    m.lock = &lock;
    RPC_ENVELOPE(env, LOCK_REQ, lock_req, &m);
    int rc = session_ask(c, &env, client_deadline(c), &res);
    rpc_result_free(&res);
    unlock_end(k, l->ino);
    return rc;
}

/* Drops an owner's locks on the inode, already out of our record. */
static int unlock_owner(struct client *c, uint64_t ino, uint64_t owner, bool flock)
{
    Replfs__UnlockAllReq m = REPLFS__UNLOCK_ALL_REQ__INIT;
    struct rpc_result res;
    m.ino = ino;
    m.owner = &owner;
    m.n_owner = 1;
    m.flock = flock;
    RPC_ENVELOPE(env, UNLOCK_ALL_REQ, unlock_all_req, &m);
    int rc = session_ask(c, &env, client_deadline(c), &res);
    rpc_result_free(&res);
    if (rc)
        log_warn("inode %llu: unlocking at close: %s; metad drops the lock with the next resume or "
                 "the session",
                 (unsigned long long)ino, err_str(rc));
    unlock_end(c->locks, ino);
    return rc;
}

bool client_locks_owner(struct client *c, uint64_t ino, uint64_t owner)
{
    struct client_locks *k = c->locks;
    if (!atomic_load(&k->nholds))
        return false;
    lock_acquire(&k->mu);
    bool some = lock_hold_get(k, ino, owner, false) != NULL;
    lock_release(&k->mu);
    return some;
}

int client_unlock_owner(struct client *c, uint64_t ino, uint64_t owner)
{
    struct client_locks *k = c->locks;
    struct client_lock all = {.ino = ino, .owner = owner, .end = UINT64_MAX};
    lock_acquire(&k->mu);
    bool some = lock_hold_clear(k, &all);
    if (some)
        unlock_begin(k, ino);
    lock_release(&k->mu);
    return some ? unlock_owner(c, ino, owner, false) : 0;
}

bool client_locks_handle(struct client *c, uint64_t ino, uint64_t handle)
{
    struct client_locks *k = c->locks;
    bool some = false;
    if (!atomic_load(&k->nholds))
        return false;
    lock_acquire(&k->mu);
    struct lock_file *f = u64map_get_ptr(&k->files, ino);
    for (struct lock_hold *h = f ? f->holds : NULL; h && !some; h = h->next)
        some = lock_by_handle(h, handle) != NULL;
    if (some) /* seen before the bytes are flushed: see ask_again */
        k->seq[lock_seq_of(ino)]++;
    lock_release(&k->mu);
    return some;
}

void client_unlock_handle(struct client *c, uint64_t ino, uint64_t handle)
{
    struct client_locks *k = c->locks;
    for (bool more = true; more;) {
        uint64_t owner = 0;
        bool flock = false;
        more = false;
        lock_acquire(&k->mu);
        struct lock_file *f = u64map_get_ptr(&k->files, ino);
        for (struct lock_hold **p = f ? &f->holds : NULL; p && *p; p = &(*p)->next) {
            if (!lock_by_handle(*p, handle))
                continue;
            more = true;
            owner = (*p)->owner;
            flock = (*p)->flock;
            unlock_begin(k, ino);
            lock_hold_free(k, f, p);
            break;
        }
        lock_release(&k->mu);
        if (more)
            unlock_owner(c, ino, owner, flock);
    }
}

/* ---- whose turn ---- */

void client_locks_closing(struct client *c, uint64_t ino, uint64_t handle)
{
    struct client_locks *k = c->locks;
    if (!atomic_load(&k->nholds))
        return;
    lock_acquire(&k->mu);
    struct lock_file *f = u64map_get_ptr(&k->files, ino);
    for (struct lock_hold *h = f ? f->holds : NULL; h; h = h->next) {
        struct lock_by *b = lock_by_handle(h, handle);
        if (b)
            b->closing = true;
    }
    lock_release(&k->mu);
}

/* Another handle of the same owner that may be on its way out. */
static struct lock_by *leaving(struct client_locks *k, const struct client_lock *l)
{
    struct lock_hold *h = lock_hold_get(k, l->ino, l->owner, l->flock);
    for (size_t i = 0; h && i < h->nby; i++)
        if (h->by[i].closing && h->by[i].handle != l->handle)
            return &h->by[i];
    return NULL;
}

void client_lock_turn(struct client *c, const struct client_lock *l)
{
    struct client_locks *k = c->locks;
    int64_t deadline = clock_mono() + TURN_MS * NSEC_PER_MSEC;
    lock_acquire(&k->mu);
    while ((leaving(k, l) || k->unlocking[lock_seq_of(l->ino)]) &&
           cond_wait_until(&k->unlocked, &k->mu, deadline))
        ;
    for (struct lock_by *b; (b = leaving(k, l));) /* it stays, through a copy of the descriptor */
        b->closing = false;
    lock_release(&k->mu);
}
