/* What the programs call the C library for and what depends on time, chance or other threads: the linker gives
 * these functions instead (--wrap, see tests/CMakeLists.txt). The objects' own memory holds our state, so that
 * static initialisers (all zero) work. Outside of fibers nothing waits.
 *
 * More than the C library promises is checked: a lock is unlocked by its owner, and not locked twice. */
#include <errno.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "fiber.h"

#define NSEC 1000000000ll
#define WRAP(name) __wrap_##name

struct mutex {
    struct fiber *owner;
    struct vt_queue waiters;
    bool locked;
};
struct cond {
    struct vt_queue waiters;
    enum vt_clock clock;
    bool mono;
};
struct rwlock {
    struct vt_queue waiters;
    struct fiber *writer;
    unsigned readers, writers_waiting;
    bool written;
};
struct sem {
    struct vt_queue waiters;
    unsigned value;
};
_Static_assert(sizeof(struct mutex) <= sizeof(pthread_mutex_t), "mutex");
_Static_assert(sizeof(struct cond) <= sizeof(pthread_cond_t), "cond");
_Static_assert(sizeof(struct rwlock) <= sizeof(pthread_rwlock_t), "rwlock");
_Static_assert(sizeof(struct sem) <= sizeof(sem_t), "sem");

int WRAP(pthread_mutex_init)(pthread_mutex_t *m, const pthread_mutexattr_t *a);
int WRAP(pthread_mutex_destroy)(pthread_mutex_t *m);
int WRAP(pthread_mutex_lock)(pthread_mutex_t *m);
int WRAP(pthread_mutex_trylock)(pthread_mutex_t *m);
int WRAP(pthread_mutex_unlock)(pthread_mutex_t *m);
int WRAP(pthread_cond_init)(pthread_cond_t *c, const pthread_condattr_t *a);
int WRAP(pthread_cond_destroy)(pthread_cond_t *c);
int WRAP(pthread_cond_wait)(pthread_cond_t *c, pthread_mutex_t *m);
int WRAP(pthread_cond_timedwait)(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *ts);
int WRAP(pthread_cond_clockwait)(pthread_cond_t *c, pthread_mutex_t *m, clockid_t id,
                                 const struct timespec *ts);
int WRAP(pthread_cond_signal)(pthread_cond_t *c);
int WRAP(pthread_cond_broadcast)(pthread_cond_t *c);
int WRAP(pthread_rwlock_init)(pthread_rwlock_t *l, const pthread_rwlockattr_t *a);
int WRAP(pthread_rwlock_destroy)(pthread_rwlock_t *l);
int WRAP(pthread_rwlock_rdlock)(pthread_rwlock_t *l);
int WRAP(pthread_rwlock_wrlock)(pthread_rwlock_t *l);
int WRAP(pthread_rwlock_unlock)(pthread_rwlock_t *l);
int WRAP(sem_init)(sem_t *s, int shared, unsigned value);
int WRAP(sem_destroy)(sem_t *s);
int WRAP(sem_wait)(sem_t *s);
int WRAP(sem_post)(sem_t *s);
int WRAP(pthread_create)(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);
int WRAP(pthread_join)(pthread_t t, void **out);
int WRAP(pthread_detach)(pthread_t t);
int WRAP(pthread_setname_np)(pthread_t t, const char *name);
pthread_t WRAP(pthread_self)(void);
int WRAP(clock_gettime)(clockid_t id, struct timespec *ts);
int WRAP(nanosleep)(const struct timespec *want, struct timespec *left);
ssize_t WRAP(getrandom)(void *p, size_t n, unsigned flags);
int WRAP(RAND_bytes)(unsigned char *p, int n);

/* ---- mutexes ---- */

int WRAP(pthread_mutex_init)(pthread_mutex_t *m, const pthread_mutexattr_t *a)
{
    (void)a;
    memset(m, 0, sizeof(*m));
    return 0;
}

int WRAP(pthread_mutex_destroy)(pthread_mutex_t *m)
{
    struct mutex *x = (struct mutex *)m;
    if (x->locked)
        vt_fail("a locked mutex is destroyed (%s has it)", vt_fiber_name(x->owner));
    return 0;
}

int WRAP(pthread_mutex_lock)(pthread_mutex_t *m)
{
    struct mutex *x = (struct mutex *)m;
    vt_maybe_yield();
    if (x->locked && x->owner == vt_self())
        vt_fail("a mutex is locked twice by one thread");
    while (x->locked)
        vt_wait(&x->waiters, INT64_MAX, "a mutex");
    x->locked = true;
    x->owner = vt_self();
    return 0;
}

int WRAP(pthread_mutex_trylock)(pthread_mutex_t *m)
{
    struct mutex *x = (struct mutex *)m;
    if (x->locked)
        return EBUSY;
    x->locked = true;
    x->owner = vt_self();
    return 0;
}

static void unlock(struct mutex *x)
{
    if (!x->locked || x->owner != vt_self())
        vt_fail("a mutex is unlocked that %s has locked",
                x->locked ? vt_fiber_name(x->owner) : "nobody");
    x->locked = false;
    x->owner = NULL;
    vt_wake_one(&x->waiters);
}

int WRAP(pthread_mutex_unlock)(pthread_mutex_t *m)
{
    unlock((struct mutex *)m);
    vt_maybe_yield();
    return 0;
}

/* ---- conditions ---- */

int WRAP(pthread_cond_init)(pthread_cond_t *c, const pthread_condattr_t *a)
{
    struct cond *x = (struct cond *)c;
    clockid_t id = CLOCK_REALTIME;
    memset(c, 0, sizeof(*c));
    if (a)
        pthread_condattr_getclock(a, &id);
    x->mono = id == CLOCK_MONOTONIC;
    return 0;
}

int WRAP(pthread_cond_destroy)(pthread_cond_t *c)
{
    if (((struct cond *)c)->waiters.first)
        vt_fail("a condition is destroyed that somebody waits for");
    return 0;
}

/* at: by clock k; INT64_MAX: for ever. */
static int wait_cond(pthread_cond_t *c, pthread_mutex_t *m, enum vt_clock k, int64_t at)
{
    struct cond *x = (struct cond *)c;
    bool woken;
    unlock((struct mutex *)m);
    do /* the clock may have stood still meanwhile */
        woken = vt_wait(&x->waiters, at == INT64_MAX ? at : vt_from_clock(vt_proc(), k, at),
                        "a condition");
    while (!woken && vt_clock(vt_proc(), k) < at);
    WRAP(pthread_mutex_lock)(m);
    return woken ? 0 : ETIMEDOUT;
}

int WRAP(pthread_cond_wait)(pthread_cond_t *c, pthread_mutex_t *m)
{
    return wait_cond(c, m, VT_MONO, INT64_MAX);
}

int WRAP(pthread_cond_clockwait)(pthread_cond_t *c, pthread_mutex_t *m, clockid_t id,
                                 const struct timespec *ts)
{
    enum vt_clock k = id == CLOCK_MONOTONIC ? VT_MONO : id == CLOCK_BOOTTIME ? VT_BOOT : VT_WALL;
    int64_t at = ts->tv_sec >= INT64_MAX / NSEC ? INT64_MAX : ts->tv_sec * NSEC + ts->tv_nsec;
    return wait_cond(c, m, k, at);
}

int WRAP(pthread_cond_timedwait)(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *ts)
{
    clockid_t id = ((struct cond *)c)->mono ? CLOCK_MONOTONIC : CLOCK_REALTIME;
    return WRAP(pthread_cond_clockwait)(c, m, id, ts);
}

int WRAP(pthread_cond_signal)(pthread_cond_t *c)
{
    vt_wake_one(&((struct cond *)c)->waiters);
    return 0;
}

int WRAP(pthread_cond_broadcast)(pthread_cond_t *c)
{
    vt_wake_all(&((struct cond *)c)->waiters);
    return 0;
}

/* ---- read-write locks ---- */

int WRAP(pthread_rwlock_init)(pthread_rwlock_t *l, const pthread_rwlockattr_t *a)
{
    (void)a;
    memset(l, 0, sizeof(*l));
    return 0;
}

int WRAP(pthread_rwlock_destroy)(pthread_rwlock_t *l)
{
    (void)l;
    return 0;
}

int WRAP(pthread_rwlock_rdlock)(pthread_rwlock_t *l)
{
    struct rwlock *x = (struct rwlock *)l;
    vt_maybe_yield();
    while (x->written || x->writers_waiting)
        vt_wait(&x->waiters, INT64_MAX, "a read lock");
    x->readers++;
    return 0;
}

int WRAP(pthread_rwlock_wrlock)(pthread_rwlock_t *l)
{
    struct rwlock *x = (struct rwlock *)l;
    vt_maybe_yield();
    x->writers_waiting++;
    while (x->written || x->readers)
        vt_wait(&x->waiters, INT64_MAX, "a write lock");
    x->writers_waiting--;
    x->written = true;
    x->writer = vt_self();
    return 0;
}

int WRAP(pthread_rwlock_unlock)(pthread_rwlock_t *l)
{
    struct rwlock *x = (struct rwlock *)l;
    if (x->written && x->writer == vt_self()) {
        x->written = false;
        x->writer = NULL;
    } else if (!x->readers--) {
        vt_fail("a read-write lock is unlocked that nobody has");
    }
    vt_wake_all(&x->waiters);
    vt_maybe_yield();
    return 0;
}

/* ---- semaphores ---- */

int WRAP(sem_init)(sem_t *s, int shared, unsigned value)
{
    struct sem *x = (struct sem *)s;
    (void)shared;
    *x = (struct sem){.value = value};
    return 0;
}

int WRAP(sem_destroy)(sem_t *s)
{
    (void)s;
    return 0;
}

int WRAP(sem_wait)(sem_t *s)
{
    struct sem *x = (struct sem *)s;
    while (!x->value)
        vt_wait(&x->waiters, INT64_MAX, "a semaphore");
    x->value--;
    return 0;
}

int WRAP(sem_post)(sem_t *s)
{
    struct sem *x = (struct sem *)s;
    x->value++;
    vt_wake_one(&x->waiters);
    return 0;
}

/* ---- threads ---- */

int WRAP(pthread_create)(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
    (void)a;
    *t = (pthread_t)vt_spawn(vt_proc(), "thread", fn, arg);
    return 0;
}

int WRAP(pthread_join)(pthread_t t, void **out)
{
    void *r = vt_join((struct fiber *)t);
    if (out)
        *out = r;
    return 0;
}

int WRAP(pthread_detach)(pthread_t t)
{
    vt_detach((struct fiber *)t);
    return 0;
}

int WRAP(pthread_setname_np)(pthread_t t, const char *name)
{
    if (t)
        vt_name((struct fiber *)t, name);
    return 0;
}

pthread_t WRAP(pthread_self)(void)
{
    return (pthread_t)vt_self();
}

/* ---- time and chance ---- */

int WRAP(clock_gettime)(clockid_t id, struct timespec *ts)
{
    enum vt_clock k = id == CLOCK_REALTIME ? VT_WALL : id == CLOCK_BOOTTIME ? VT_BOOT : VT_MONO;
    int64_t t = vt_clock(vt_proc(), k);
    *ts = (struct timespec){t / NSEC, t % NSEC};
    return 0;
}

int WRAP(nanosleep)(const struct timespec *want, struct timespec *left)
{
    if (left)
        memset(left, 0, sizeof(*left));
    vt_sleep_until(vt_now() + want->tv_sec * NSEC + want->tv_nsec);
    return 0;
}

ssize_t WRAP(getrandom)(void *p, size_t n, unsigned flags)
{
    uint8_t *b = p;
    (void)flags;
    for (size_t i = 0; i < n; i++)
        b[i] = (uint8_t)vt_rand();
    return (ssize_t)n;
}

int WRAP(RAND_bytes)(unsigned char *p, int n)
{
    WRAP(getrandom)(p, (size_t)n, 0);
    return 1;
}
