/* A fixed set of threads that run blocking jobs from a bounded first-in first-out queue. */
#ifndef REPLFS_CHUNKD_WORKERS_H
#define REPLFS_CHUNKD_WORKERS_H
#include <stddef.h>

struct workers;
/* name: of the threads, up to 15 characters. 0 or -errno. */
int workers_new(const char *name, unsigned threads, size_t max_queued, struct workers **out);
/* Runs what is still queued, joins, frees. NULL is fine. */
void workers_free(struct workers *w);
/* 0, or -ERR_BUSY when the queue is full. Any thread. */
int workers_run(struct workers *w, void (*fn)(void *arg), void *arg);
#endif
