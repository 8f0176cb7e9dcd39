/* The clocks. clock_gettime on these ids cannot fail on Linux; a failure is a broken machine.
 */
#include "clock.h"

#include <assert.h>
#include <stdatomic.h>
#include <time.h>

static _Atomic int64_t slept;

static int64_t read_clock(clockid_t id)
{
    struct timespec ts;
    int rc = clock_gettime(id, &ts);
    assert(rc == 0);
    (void)rc;
    return (int64_t)ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

int64_t clock_mono(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_boot(void)
{
    return read_clock(CLOCK_BOOTTIME) + atomic_load_explicit(&slept, memory_order_relaxed);
}

void clock_pretend_slept(int64_t ns)
{
    atomic_fetch_add(&slept, ns);
}

int64_t clock_wall(void)
{
    return read_clock(CLOCK_REALTIME);
}
