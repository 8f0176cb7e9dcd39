/* Release by scope: CLEANUP(free_ptr) char *s = ...; */
#ifndef REPLFS_BASE_CLEANUP_H
#define REPLFS_BASE_CLEANUP_H
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
#define CLEANUP(fn) __attribute__((cleanup(fn)))
static inline void free_ptr(void *p)
{
    free(*(void **)p);
}
static inline void close_fdp(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
static inline void unlock_mutexp(pthread_mutex_t **m)
{
    pthread_mutex_unlock(*m);
}
#define MUTEX_SCOPE(m)                                                                             \
    CLEANUP(unlock_mutexp) pthread_mutex_t *lock_scope_once = (m);                                 \
    pthread_mutex_lock(lock_scope_once)
#define LOCK_SCOPE(m) MUTEX_SCOPE(m)
#endif
