/* A heap of deadlines, for a worker's timers and a connection's calls. Private to rpc. The owner
 * locks. */
#ifndef REPLFS_RPC_TIMERS_H
#define REPLFS_RPC_TIMERS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Embedded in what waits. {0} is a timer that is not set. */
struct timer {
    int64_t when;
    uint64_t seq; /* equal deadlines: first set, first fired */
    size_t at;    /* 1 + place in the heap; 0: not set */
};
struct timers {
    struct timer **heap;
    size_t n, cap;
    uint64_t seq;
};
static inline bool timer_is_set(const struct timer *t)
{
    return t->at != 0;
}
/* Sets t, or moves it when it is set. Aborts without memory. */
void timers_set(struct timers *h, struct timer *t, int64_t when);
void timers_clear(struct timers *h, struct timer *t); /* an unset one is fine */
/* The earliest, or NULL. */
static inline struct timer *timers_first(const struct timers *h)
{
    return h->n ? h->heap[0] : NULL;
}
void timers_free(struct timers *h); /* the timers themselves are not touched */
#endif
