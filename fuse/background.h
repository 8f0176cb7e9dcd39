/* Going to the background: mount.replfs returns only once the mount answers, with the right exit
 * code. Call from the main thread; background_start before any other thread exists. */
#ifndef REPLFS_FUSE_BACKGROUND_H
#define REPLFS_FUSE_BACKGROUND_H

/* Forks. The parent waits for background_ready or the child's end and exits (0, or the child's code);
 * only the child returns: 0, or -errno when nothing could be forked. */
int background_start(void);
/* In the child: log lines (standard error) go to log_fd from now on, or to syslog when it is -1;
 * the parent is let go. Any thread, once. */
void background_ready(int log_fd);
#endif
