/* The threads that serve the kernel's calls. */
#ifndef REPLFS_FUSE_LOOP_H
#define REPLFS_FUSE_LOOP_H
#include <fuse_lowlevel.h>
#include <stddef.h>

/* Serves until the file system is unmounted (0), or the process is asked to end by SIGTERM, SIGINT or
 * SIGHUP (that number); or -errno. bufsize: of the largest request. Up to max_threads threads, two at least,
 * started when all others are at work. To be called with these signals, and SIGUSR1, blocked: they are
 * waited for. cut(arg) ends the connection to the kernel, should that be necessary for threads to end.
 * One session a process. */
int loop_run(struct fuse_session *se, size_t bufsize, unsigned max_threads, void (*cut)(void *),
             void *arg);
#endif
