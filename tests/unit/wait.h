/* Waiting in tests: for a condition, with a limit, and with a message that names what never came. The condition
 * is evaluated again and again, so it must be cheap and without side effects. A test fails at the line of the
 * wait, with the text of its condition. */
#ifndef REPLFS_TESTS_WAIT_H
#define REPLFS_TESTS_WAIT_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"

#define WAIT_LIMIT_S 30    /* long for what takes milliseconds: a sanitizer on a busy machine */
#define WAIT_PAUSE_US 2000 /* between two looks */

/* Returns when cond is true. */
#define WAIT_UNTIL(cond) WAIT_UNTIL_WITH((void)0, cond, (void)0)

/* The same; mutex is held while cond is looked at, and not otherwise. */
#define WAIT_LOCKED(mutex, cond)                                                                   \
    WAIT_UNTIL_WITH(pthread_mutex_lock(mutex), cond, pthread_mutex_unlock(mutex))

/* before and after: what is done around each look. */
#define WAIT_UNTIL_WITH(before, cond, after)                                                       \
    do {                                                                                           \
        int64_t wait_end_ = clock_mono() + WAIT_LIMIT_S * NSEC_PER_SEC;                            \
        for (bool wait_ok_ = false; !wait_ok_;) {                                                  \
            bool wait_over_ = clock_mono() > wait_end_; /* asked first: the last look counts */    \
            before;                                                                                \
            wait_ok_ = (cond);                                                                     \
            after;                                                                                 \
            if (!wait_ok_ && wait_over_)                                                           \
                fail_msg("waited %d s for: %s", WAIT_LIMIT_S, #cond);                              \
            if (!wait_ok_)                                                                         \
                usleep(WAIT_PAUSE_US);                                                             \
        }                                                                                          \
    } while (0)

/* The same for a condition that needs statements; what names it. */
typedef bool wait_condition(void *arg);
static inline void wait_until(wait_condition *fn, void *arg, const char *what)
{
    int64_t end = clock_mono() + WAIT_LIMIT_S * NSEC_PER_SEC;
    for (bool over = false; !fn(arg); usleep(WAIT_PAUSE_US)) {
        if (over)
            fail_msg("waited %d s for: %s", WAIT_LIMIT_S, what);
        over = clock_mono() > end;
    }
}
#endif
