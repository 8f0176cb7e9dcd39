/* The threads that serve the kernel's calls. */
#ifndef REPLFS_FUSE_SERVE_LOOP_H
#define REPLFS_FUSE_SERVE_LOOP_H
#include <fuse_lowlevel.h>
#include <signal.h>
#include <stddef.h>

struct loop_config {
    size_t bufsize;         /* of the largest request */
    unsigned max_threads;   /* two at least: what one waits for may have to be read */
    unsigned patience_s;    /* so long calls may take at the end */
    sigset_t signals;       /* that end us, SIGHUP and SIGUSR1; blocked in all threads */
    void (*cut)(void *);    /* ends the connection to the kernel: some call waits for it */
    void (*reload)(void *); /* on SIGHUP, which does not end us; on the main thread */
    void *arg;
};
/* Serves until the file system is unmounted (0), or one of the signals that end us comes (that number); or -errno.
 * Threads are started when all others are at work. One session a process; its main thread. */
int loop_run(struct fuse_session *se, const struct loop_config *cfg);
#endif
