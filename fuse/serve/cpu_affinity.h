/* The thread that serves a program, on the CPU where that runs. Each thread for itself. */
#ifndef REPLFS_FUSE_SERVE_CPU_AFFINITY_H
#define REPLFS_FUSE_SERVE_CPU_AFFINITY_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Whether this process may do what follows, and has CPUs to choose from. Before other threads start. */
bool cpu_affinity_start(void);
/* This thread begins to serve: it may run wherever the process could at cpu_affinity_start, the one that made it. */
void cpu_affinity_begin(void);
/* A call of thread tid (0: not known) came, right behind the answer to the one before or not: after some
 * that did not, this thread goes to where that one runs, and stays. */
void cpu_affinity_came(uint32_t tid, bool right_behind);
/* Any CPU will do from now on. */
void cpu_affinity_leave(void);
/* For thread tid, 0: this one, from now on, or no longer: whatever else is ready to run goes first, and
 * who is woken by it may run on its CPU. No lock may be held meanwhile. */
void cpu_affinity_idle(pid_t tid, bool on);
#endif
