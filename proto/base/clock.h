/* Time. clock_mono: intervals and deadlines; clock_boot: the same, but it goes on while the computer is suspended:
 * terms that others wait for; clock_wall: what users see. Nanoseconds, any thread. */
#ifndef REPLFS_BASE_CLOCK_H
#define REPLFS_BASE_CLOCK_H
#include <stdint.h>
#define NSEC_PER_SEC 1000000000ll
#define NSEC_PER_MSEC 1000000ll
#define NSEC_PER_USEC 1000ll
int64_t clock_mono(void);
int64_t clock_boot(void);
int64_t clock_wall(void);
void clock_pretend_slept(int64_t ns); /* for tests: clock_boot is ahead by so much more */
#endif
