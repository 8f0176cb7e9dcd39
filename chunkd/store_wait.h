/* A thread that may block waits here for what it asked of a store: several operations at once, one of which may fail. On the
 * stack of the one that waits. */
#ifndef REPLFS_CHUNKD_STORE_WAIT_H
#define REPLFS_CHUNKD_STORE_WAIT_H
#include "base/lock.h"

struct store_wait {
    struct lock mu;
    struct cond cv;
    unsigned pending;
    int code; /* first failure */
};
#define STORE_WAIT_INIT                                                                            \
    {                                                                                              \
        LOCK_INITIALIZER(ORDER_WAIT), COND_INITIALIZER, 0, 0                                       \
    }
/* Before each operation, whose callback is store_wait_done with the struct as its argument. */
void store_wait_add(struct store_wait *w);
void store_wait_done(void *arg, int code);
/* Waits for all: 0, or the first failure. */
int store_wait_end(struct store_wait *w);
#endif
