/* Locks that check themselves, and conditions on the monotonic clock.
 *
 * Each lock belongs to a class of base/lock_order.h, which lists all classes of all programs in the order in which a
 * thread may take them. In a build with LOCK_CHECK (sanitizers, Debug; see CMakeLists.txt) the program ends by
 * abort(3), with both places on stderr, when
 * - a lock is taken while one of the same or a later class is held (a deadlock in waiting, even if it did not happen);
 * - a lock that another thread holds, or nobody, is released, or asserted to be held;
 * - a thread waits for a peer, or for a condition, while it holds a lock whose class may not be held that long.
 * Otherwise these are the pthread calls and nothing more.
 *
 * Any thread. Errors of pthread calls are errors of the program: they abort in checked builds and cannot happen in
 * others (a lock of the default type that was initialised does not fail). */
#ifndef REPLFS_BASE_LOCK_H
#define REPLFS_BASE_LOCK_H
#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/wait_hook.h"
#ifndef LOCK_CHECK
#define LOCK_CHECK 0
#endif

enum lock_class {
#define LOCK_CLASS(name, may_wait, what) LOCK_##name,
#include "base/lock_order.h"
#undef LOCK_CLASS
    LOCK_CLASSES
};

struct lock {
    pthread_mutex_t mutex;
#if LOCK_CHECK
    enum lock_class class;
#endif
};
struct rwlock {
    pthread_rwlock_t rwlock;
#if LOCK_CHECK
    enum lock_class class;
#endif
};
struct cond {
    pthread_cond_t cond;
};

/* For variables that exist from the start; class without LOCK_. */
#if LOCK_CHECK
#define LOCK_INITIALIZER(name)                                                                     \
    {                                                                                              \
        .mutex = PTHREAD_MUTEX_INITIALIZER, .class = LOCK_##name                                   \
    }
#else
#define LOCK_INITIALIZER(name)                                                                     \
    {                                                                                              \
        .mutex = PTHREAD_MUTEX_INITIALIZER                                                         \
    }
#endif
#define COND_INITIALIZER                                                                           \
    {                                                                                              \
        .cond = PTHREAD_COND_INITIALIZER                                                           \
    }

#if LOCK_CHECK
/* What lock.c keeps of each thread; `where` is "file:line", static. */
void lock_note_wanted(const void *l, enum lock_class class,
                      const char *where); /* before it is taken */
void lock_note_taken(const void *l, enum lock_class class, const char *where);
void lock_note_released(const void *l, enum lock_class class, const char *where);
void lock_note_wait(const void *l, enum lock_class class,
                    const char *where); /* l is given up meanwhile */
void lock_note_held(const void *l, enum lock_class class, const char *where);
void lock_note_waitable(const char *what, const char *where);
/* The calling thread's list of held locks, for a scheduler that runs several threads of a program on one: returns
 * the list in force and puts another in its place. NULL: an empty one that this thread owns. */
void *lock_note_swap(void *list);
void *lock_note_list_new(void);
#define LOCK_WHERE_TEXT(n) #n
#define LOCK_WHERE_LINE(n) LOCK_WHERE_TEXT(n)
#define LOCK_WHERE __FILE__ ":" LOCK_WHERE_LINE(__LINE__)
#define LOCK_CLASS_OF(l) ((l)->class)
/* A thread that is cancelled in a wait has the lock again when its cleanup handlers run. */
struct lock_wait {
    const void *lock;
    enum lock_class class;
    const char *where;
};
void lock_note_wait_over(void *wait);
#define LOCK_TAKEN_WHEN_CANCELLED(l, where)                                                        \
    struct lock_wait wait_ = {l, LOCK_CLASS_OF(l), where};                                         \
    pthread_cleanup_push(lock_note_wait_over, &wait_);
#define LOCK_TAKEN_AFTER_WAIT(l, where) pthread_cleanup_pop(1);
#else
#define lock_note_wanted(l, class, where) ((void)0)
#define lock_note_taken(l, class, where) ((void)0)
#define lock_note_released(l, class, where) ((void)0)
#define lock_note_wait(l, class, where) ((void)0)
#define LOCK_TAKEN_WHEN_CANCELLED(l, where)
#define LOCK_TAKEN_AFTER_WAIT(l, where)
#define lock_note_held(l, class, where) ((void)(l))
#define lock_note_waitable(what, where) ((void)0)
#define LOCK_WHERE ""
#define LOCK_CLASS_OF(l) LOCK_CLASSES
#endif

static inline void lock_init(struct lock *l, enum lock_class class)
{
    pthread_mutex_init(&l->mutex, NULL);
#if LOCK_CHECK
    l->class = class;
#else
    (void)class;
#endif
}
static inline void lock_destroy(struct lock *l)
{
    pthread_mutex_destroy(&l->mutex);
}
static inline void lock_acquire_at(struct lock *l, const char *where)
{
    (void)where;
    lock_note_wanted(l, LOCK_CLASS_OF(l), where);
    pthread_mutex_lock(&l->mutex);
    lock_note_taken(l, LOCK_CLASS_OF(l), where);
}
static inline void lock_release_at(struct lock *l, const char *where)
{
    (void)where;
    lock_note_released(l, LOCK_CLASS_OF(l), where);
    pthread_mutex_unlock(&l->mutex);
}
/* Whether it was free and is taken now; never waits, so the order does not matter. */
static inline bool lock_try_at(struct lock *l, const char *where)
{
    (void)where;
    if (pthread_mutex_trylock(&l->mutex) != 0)
        return false;
    lock_note_taken(l, LOCK_CLASS_OF(l), where);
    return true;
}
#define lock_acquire(l) lock_acquire_at(l, LOCK_WHERE)
#define lock_release(l) lock_release_at(l, LOCK_WHERE)
#define lock_try(l) lock_try_at(l, LOCK_WHERE)
/* This thread holds l. */
#define lock_assert_held(l) lock_note_held(l, LOCK_CLASS_OF(l), LOCK_WHERE)
/* This thread is about to wait for a peer (`what`: for the message) and holds nothing that may not be held then. */
#define lock_assert_waitable(what) lock_note_waitable(what, LOCK_WHERE)

static inline void lock_scope_end(struct lock **l)
{
    lock_release_at(*l, "the end of the scope that took it");
}
/* Holds l until the end of the scope. */
#define LOCK_SCOPE_NAME(n) lock_scope_##n
#define LOCK_SCOPE_AT(l, n)                                                                        \
    CLEANUP(lock_scope_end) struct lock *LOCK_SCOPE_NAME(n) = (l);                                 \
    lock_acquire(LOCK_SCOPE_NAME(n))
#define LOCK_SCOPE(l) LOCK_SCOPE_AT(l, __COUNTER__)

/* prefer_writers: a reader waits while a writer does; without, readers that keep coming keep writers out. */
void rwlock_init(struct rwlock *l, enum lock_class class, bool prefer_writers);
static inline void rwlock_destroy(struct rwlock *l)
{
    pthread_rwlock_destroy(&l->rwlock);
}
static inline void rwlock_read_at(struct rwlock *l, const char *where)
{
    (void)where;
    lock_note_wanted(l, LOCK_CLASS_OF(l), where);
    int rc = pthread_rwlock_rdlock(&l->rwlock);
    assert(rc == 0); /* EDEADLK: this thread has it */
    (void)rc;
    lock_note_taken(l, LOCK_CLASS_OF(l), where);
}
static inline void rwlock_write_at(struct rwlock *l, const char *where)
{
    (void)where;
    lock_note_wanted(l, LOCK_CLASS_OF(l), where);
    int rc = pthread_rwlock_wrlock(&l->rwlock);
    assert(rc == 0); /* EDEADLK: this thread has it */
    (void)rc;
    lock_note_taken(l, LOCK_CLASS_OF(l), where);
}
static inline void rwlock_release_at(struct rwlock *l, const char *where)
{
    (void)where;
    lock_note_released(l, LOCK_CLASS_OF(l), where);
    pthread_rwlock_unlock(&l->rwlock);
}
#define rwlock_read(l) rwlock_read_at(l, LOCK_WHERE)
#define rwlock_write(l) rwlock_write_at(l, LOCK_WHERE)
#define rwlock_release(l) rwlock_release_at(l, LOCK_WHERE)

static inline void cond_init(struct cond *c)
{
    pthread_cond_init(&c->cond, NULL);
}
static inline void cond_destroy(struct cond *c)
{
    pthread_cond_destroy(&c->cond);
}
static inline void cond_signal(struct cond *c)
{
    pthread_cond_signal(&c->cond);
}
static inline void cond_broadcast(struct cond *c)
{
    pthread_cond_broadcast(&c->cond);
}
static inline void cond_wait_at(struct cond *c, struct lock *l, const char *where)
{
    (void)where;
    lock_note_wait(l, LOCK_CLASS_OF(l), where);
    LOCK_TAKEN_WHEN_CANCELLED(l, where)
    pthread_cond_wait(&c->cond, &l->mutex);
    LOCK_TAKEN_AFTER_WAIT(l, where)
}
/* Until the condition is signalled or clock_mono() reaches deadline (ns): whether it was signalled, or woke for
 * nothing; false: the time is over. The clock does not follow the wall clock's steps, however it was initialised. */
static inline bool cond_sleep_until_at(struct cond *c, struct lock *l, int64_t deadline,
                                       const char *where)
{
    struct timespec ts = {.tv_sec = deadline / NSEC_PER_SEC, .tv_nsec = deadline % NSEC_PER_SEC};
    (void)where;
    int rc;
    lock_note_wait(l, LOCK_CLASS_OF(l), where);
    LOCK_TAKEN_WHEN_CANCELLED(l, where)
    rc = pthread_cond_clockwait(&c->cond, &l->mutex, CLOCK_MONOTONIC, &ts);
    LOCK_TAKEN_AFTER_WAIT(l, where)
    return rc == 0;
}
#define cond_wait(c, l) cond_wait_at(c, l, LOCK_WHERE)
#define cond_sleep_until(c, l, deadline) cond_sleep_until_at(c, l, deadline, LOCK_WHERE)
/* The same, announced (base/wait_hook.h), so that a thread that alone takes in requests lets another do that: for threads
 * that serve somebody. The other is for those that sleep between two rounds of work of their own. */
#define cond_wait_until(c, l, deadline) (wait_hook_call(), cond_sleep_until(c, l, deadline))
#endif
