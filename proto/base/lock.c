/* What each thread holds, in builds that check locks.
 *
 * A thread's list is in the order of taking, and short, so everything is a walk. A lock
 * taken by lock_try may stand out of order in it; what is taken after it is compared with it all the same. */
#include "lock.h"
#include <stdio.h>
#include <stdlib.h>

void rwlock_init(struct rwlock *l, enum lock_class class, bool prefer_writers)
{
    pthread_rwlockattr_t a;

    pthread_rwlockattr_init(&a);
    if (prefer_writers)
        pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&l->rwlock, &a);
    pthread_rwlockattr_destroy(&a);
#if LOCK_CHECK
    l->class = class;
#else
    (void)class;
#endif
}

#if LOCK_CHECK
enum { HELD_MAX = 32 };

struct held_list {
    unsigned n;
    struct held {
        const void *lock;
        enum lock_class class;
        const char *where;
    } v[HELD_MAX];
};
static _Thread_local struct held_list own;
static _Thread_local struct held_list *swapped; /* instead of own, when a scheduler said so */

static const struct lock_class_info {
    const char *name;
    bool may_wait;
} classes[LOCK_CLASSES] = {
#define LOCK_CLASS(name, may_wait, what) {#name, may_wait},
#include "base/lock_order.h"
#undef LOCK_CLASS
};

static struct held_list *held_list_own(void)
{
    return swapped ? swapped : &own;
}

static _Noreturn void violation(const char *what, enum lock_class class, const char *where,
                                const struct held *h)
{
    if (h)
        fprintf(
            stderr,
            "lock: %s: %s at %s, while %s is held since %s (the order: proto/base/lock_order.h)\n",
            what, classes[class].name, where, classes[h->class].name, h->where);
    else
        fprintf(stderr, "lock: %s: %s at %s\n", what, classes[class].name, where);
    abort();
}

void lock_note_wanted(const void *l, enum lock_class class, const char *where)
{
    const struct held_list *held = held_list_own();

    for (unsigned i = 0; i < held->n; i++) {
        if (held->v[i].lock == l)
            violation("taken twice by one thread", class, where, &held->v[i]);
        if (held->v[i].class >= class)
            violation("taken out of order", class, where, &held->v[i]);
    }
}

void lock_note_taken(const void *l, enum lock_class class, const char *where)
{
    struct held_list *held = held_list_own();

    if (held->n == HELD_MAX)
        violation("too many locks held", class, where, &held->v[0]);
    held->v[held->n++] = (struct held){l, class, where};
}

static unsigned held_find(const struct held_list *held, const void *l)
{
    unsigned i = held->n;

    while (i > 0 && held->v[i - 1].lock != l)
        i--;
    return i; /* one more than its index; 0: not held */
}

void lock_note_released(const void *l, enum lock_class class, const char *where)
{
    struct held_list *held = held_list_own();
    unsigned i = held_find(held, l);

    if (i == 0)
        violation("released, but not held by this thread", class, where, NULL);
    for (; i < held->n; i++)
        held->v[i - 1] = held->v[i];
    held->n--;
}

void lock_note_wait(const void *l, enum lock_class class, const char *where)
{
    const struct held_list *held = held_list_own();

    for (unsigned i = 0; i < held->n; i++)
        if (held->v[i].lock != l && !classes[held->v[i].class].may_wait)
            violation("a condition is waited for with another lock held", class, where,
                      &held->v[i]);
    lock_note_released(l, class, where);
}

void lock_note_wait_over(void *wait)
{
    const struct lock_wait *w = wait;

    lock_note_taken(w->lock, w->class, w->where);
}

void lock_note_held(const void *l, enum lock_class class, const char *where)
{
    if (held_find(held_list_own(), l) == 0)
        violation("should be held by this thread and is not", class, where, NULL);
}

void lock_note_waitable(const char *what, const char *where)
{
    const struct held_list *held = held_list_own();

    for (unsigned i = 0; i < held->n; i++)
        if (!classes[held->v[i].class].may_wait) {
            fprintf(stderr, "lock: %s at %s waits for a peer while %s is held since %s\n", what,
                    where, classes[held->v[i].class].name, held->v[i].where);
            abort();
        }
}

void *lock_note_swap(void *new)
{
    void *old = swapped;

    swapped = new;
    return old;
}

void *lock_note_list_new(void)
{
    return calloc(1, sizeof(struct held_list));
}
#endif
