/* Conditions on the monotonic clock: one place that sets the clock of the attribute. */
#include "base/cond.h"
#include <errno.h>
#include <time.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/wait.h"

void cond_init_mono(pthread_cond_t *cv)
{
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(cv, &a);
    pthread_condattr_destroy(&a);
}

int cond_sleep_until(pthread_cond_t *cv, pthread_mutex_t *mu, int64_t deadline)
{
    struct timespec ts = {deadline / NSEC_PER_SEC, deadline % NSEC_PER_SEC};
    return pthread_cond_timedwait(cv, mu, &ts) == ETIMEDOUT ? -ERR_TIMEOUT : 0;
}

int cond_wait_until(pthread_cond_t *cv, pthread_mutex_t *mu, int64_t deadline)
{
    wait_begin();
    return cond_sleep_until(cv, mu, deadline);
}
