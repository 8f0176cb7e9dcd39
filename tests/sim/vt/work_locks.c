/* File locks: nobody holds one that excludes another's, from the answer to the request to give it back. A holder
 * whose client is dead, or out of reach for as long as its session lasts, does not count any more. */
#include <errno.h>
#include <stdlib.h>

#include "base/lockset.h"
#include "work_internal.h"

#define HELD_MAX 64u

struct held {
    uint64_t ino, owner;
    uint32_t type;
    bool flock;
    unsigned client;
};
static struct {
    struct held v[HELD_MAX];
    unsigned n;
    bool cut[WORLD_CLIENTS];
} held;
struct locking {
    struct program *p;
    struct client_lock l;
    struct vt_queue q;
    bool done;
    int code;
};

static void granted(const struct locking *k)
{
    for (unsigned i = 0; i < held.n; i++) {
        const struct held *h = &held.v[i];
        if (h->ino == k->l.ino && h->flock == k->l.flock && h->owner != k->l.owner &&
            (h->type == LOCKSET_WRITE || k->l.type == LOCKSET_WRITE))
            vt_fail("%s lock of %llx: client %u has it, and client %u is given it",
                    h->flock ? "flock" : "posix", (unsigned long long)h->ino, h->client,
                    k->p->client);
    }
    if (held.n < HELD_MAX && !held.cut[k->p->client])
        held.v[held.n++] = (struct held){k->l.ino, k->l.owner, k->l.type, k->l.flock, k->p->client};
}

static void lock_done(void *arg, int code)
{
    struct locking *k = arg;
    if (!code)
        granted(k);
    k->code = code;
    k->done = true;
    vt_wake_all(&k->q);
}

static void forget(unsigned client, uint64_t ino, uint64_t owner)
{
    for (unsigned i = 0; i < held.n; i++)
        if (held.v[i].client == client &&
            (!ino || (held.v[i].ino == ino && held.v[i].owner == owner)))
            held.v[i--] = held.v[--held.n];
}

void work_client_dead(unsigned client)
{
    forget(client, 0, 0);
}

void work_client_cut(unsigned client, bool cut)
{
    held.cut[client] = cut;
    if (cut)
        forget(client, 0, 0);
}

void work_on_locks(struct program *p)
{
    struct work_handle *h = &p->open[vt_below(WORK_HANDLES)];
    if (!h->f)
        return;
    uint64_t owner = (uint64_t)(uintptr_t)p->fiber;
    struct locking *k = calloc(1, sizeof(*k));
    if (!k)
        abort();
    k->p = p;
    k->l = (struct client_lock){.ino = h->file->ino,
                                .owner = owner,
                                .handle = owner,
                                .end = UINT64_MAX,
                                .type = vt_chance(3) ? LOCKSET_READ : LOCKSET_WRITE,
                                .pid = p->number + 1,
                                .flock = vt_chance(2)};
    if (!k->l.flock)
        k->l.end = INT64_MAX;
    bool wait = !vt_chance(3);
    work_call(p, "lock", "%llx %s %s%s", (unsigned long long)k->l.ino,
              k->l.flock ? "flock" : "posix", k->l.type == LOCKSET_READ ? "shared" : "exclusive",
              wait ? "" : ", no waiting");
    client_lock_turn(p->c, &k->l);
    uint64_t id = client_lock_prepare(p->c, &k->l, wait, lock_done, k);
    client_lock_start(p->c, id);
    while (!k->done)
        vt_wait(&k->q, INT64_MAX, "a file lock");
    if (!work_over_with(p, k->code, EAGAIN, EDEADLK, 0))
        return;
    for (unsigned n = (unsigned)vt_below(4); n && !work.stop; n--)
        work_on_file(p);
    work_call(p, "unlock", "%llx %s", (unsigned long long)k->l.ino, k->l.flock ? "flock" : "posix");
    forget(p->client, k->l.ino, owner);
    if (client_flush_ino(p->c, k->l.ino))
        model_broken(p->client, k->l.ino);
    k->l.type = LOCKSET_NONE;
    work_over_with(p, client_unlock(p->c, &k->l), 0);
}
