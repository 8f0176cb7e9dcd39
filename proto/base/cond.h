/* Conditions that are waited for until a moment of clock_mono, which no step of the wall clock moves. Any
 * thread. */
#ifndef REPLFS_BASE_COND_H
#define REPLFS_BASE_COND_H
#include <pthread.h>
#include <stdint.h>

/* Initializes cv for the two waits below. The caller destroys it with pthread_cond_destroy. */
void cond_init_mono(pthread_cond_t *cv);
/* Waits for a signal of cv, a spurious wake-up, or `deadline` (clock_mono, ns). 0 or -ERR_TIMEOUT. mu is held,
 * and dropped meanwhile. Announces the wait (wait_begin), so that a thread that alone takes in requests lets
 * another do that. */
int cond_wait_until(pthread_cond_t *cv, pthread_mutex_t *mu, int64_t deadline);
/* The same without the announcement: for threads that only sleep between two rounds of work of their own. */
int cond_sleep_until(pthread_cond_t *cv, pthread_mutex_t *mu, int64_t deadline);
#endif
