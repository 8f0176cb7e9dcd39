/* libuv by virtual time: the few of its functions that the log thread (metad/log) calls are defined in simuv.c and come
 * before the library's. A loop belongs to the fiber that runs it. */
#ifndef REPLFS_TESTS_SIM_SIMUV_H
#define REPLFS_TESTS_SIM_SIMUV_H
#include <stdint.h>
#include <uv.h>

/* fn runs on the loop's fiber at virtual time `at`, or a little later; those of one time in the order in which they
 * were posted. The loop does not end before. Any fiber of the process. */
void simuv_post(uv_loop_t *loop, int64_t at, void (*fn)(void *arg), void *arg);
#endif
