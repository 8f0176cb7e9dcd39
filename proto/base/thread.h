/* Threads with names, so that each background job can be told in ps(1), top(1) and perf(1). */
#ifndef REPLFS_BASE_THREAD_H
#define REPLFS_BASE_THREAD_H
#include <pthread.h>

/* As pthread_create(3), with default attributes: 0 or an errno. name: at most 15 characters
 * (pthread_setname_np(3)). Any thread. */
static inline int thread_start(pthread_t *t, const char *name, void *(*fn)(void *), void *arg)
{
    int rc = pthread_create(t, NULL, fn, arg);
    if (!rc)
        pthread_setname_np(*t, name);
    return rc;
}

/* Up to n such threads; how many there are, less when the machine gives no more. */
static inline unsigned threads_start(pthread_t *t, unsigned n, const char *name,
                                     void *(*fn)(void *), void *arg)
{
    unsigned have = 0;
    while (have < n && !thread_start(&t[have], name, fn, arg))
        have++;
    return have;
}

/* Waits for the end of n threads, which were told to. */
static inline void threads_join(const pthread_t *t, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        pthread_join(t[i], NULL);
}
#endif
