/* File locks and sessions: what is claimed at a resume must be exactly what metad may believe (`gen`, see
 * lock_requests.c), and what is lost with the session is named in the log. */
#include "client/locks/lock_claims.h"
#include <stdio.h>
#include <stdlib.h>
#include "base/log.h"
#include "base/lock.h"
#include "base/u64map.h"
#include "client/client.h"
#include "client/internal.h"
#include "client/locks/lock_table.h"

#define LOG_MODULE "locks"

struct locks_claims *client_locks_claims(struct client *c, Replfs__SessionReq *m)
{
    struct client_locks *k = c->locks;
    size_t n = 0, pos = 0;
    lock_acquire(&k->mu);
    k->gen++;
    for (struct lock_file *f; (f = u64map_next_ptr(&k->files, &pos));)
        for (struct lock_hold *h = f->holds; h; h = h->next)
            n += h->set.n;
    struct locks_claims *x = malloc(sizeof(*x) + (n + 1) * sizeof(Replfs__Lock *));
    Replfs__Lock *v = malloc((n + 1) * sizeof(*v));
    if (!x || !v)
        abort();
    x->locks = v;
    n = pos = 0;
    for (struct lock_file *f; (f = u64map_next_ptr(&k->files, &pos));) {
        for (struct lock_hold *h = f->holds; h; h = h->next) {
            for (uint32_t i = 0; i < h->set.n; i++) {
                struct client_lock l = {.ino = f->ino,
                                        .owner = h->owner,
                                        .pid = h->pid,
                                        .flock = h->flock,
                                        .type = h->set.v[i].type,
                                        .start = h->set.v[i].start,
                                        .end = h->set.v[i].end};
                lock_fill(&v[n], &l);
                x->list[n] = &v[n];
                n++;
            }
        }
    }
    lock_release(&k->mu);
    m->locks = x->list;
    m->n_locks = n;
    return x;
}

void client_locks_claims_free(struct locks_claims *x)
{
    free(x->locks);
    free(x);
}

void client_locks_lost(struct client *c)
{
    struct client_locks *k = c->locks;
    char text[256] = "";
    size_t pos = 0, n = 0, at = 0;
    lock_acquire(&k->mu);
    k->gen++;
    for (struct lock_file *f; (f = u64map_next_ptr(&k->files, &pos)); n++)
        if (at + 24 < sizeof(text))
            at +=
                (size_t)snprintf(text + at, sizeof(text) - at, " %llu", (unsigned long long)f->ino);
    lock_hold_free_all(k);
    lock_release(&k->mu);
    if (n)
        log_error("the file locks held on %zu inodes are lost with the session; others may have "
                  "them now:%s%s",
                  n, text, at + 24 < sizeof(text) ? "" : " ...");
}

/* ---- life ---- */

void client_locks_start(struct client *c)
{
    c->locks = calloc(1, sizeof(*c->locks));
    if (!c->locks)
        abort();
    lock_init(&c->locks->mu, LOCK_LOCK_CLAIMS);
    cond_init(&c->locks->unlocked);
}

void client_locks_free(struct client *c)
{
    struct client_locks *k = c->locks;
    lock_hold_free_all(k);
    u64map_free(&k->files);
    u64map_free(&k->ids);
    lock_destroy(&k->mu);
    cond_destroy(&k->unlocked);
    free(k);
}
