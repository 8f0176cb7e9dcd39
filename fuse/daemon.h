/* Going to the background: mount.replfs returns only once the mount answers, with the right exit
 * code. Call from the main thread; daemon_start before any other thread exists. */
#ifndef REPLFS_FUSE_DAEMON_H
#define REPLFS_FUSE_DAEMON_H

/* Forks. The parent waits for daemon_ready or the child's end and exits (0, or the child's code);
 * only the child returns: 0, or -errno when nothing could be forked. */
int daemon_start(void);
/* In the child: log lines (standard error) go to log_fd from now on, or to syslog when it is -1;
 * the parent is let go. Any thread, once. */
void daemon_ready(int log_fd);
#endif
