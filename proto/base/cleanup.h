/* Release by scope: CLEANUP(free_ptr) char *s = ...; */
#ifndef REPLFS_BASE_CLEANUP_H
#define REPLFS_BASE_CLEANUP_H
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
#endif
