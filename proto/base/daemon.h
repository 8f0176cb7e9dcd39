/* What each daemon does in the same way: the log its options ask for, the pid file, signals. Main
 * thread; all but daemon_wait before others start. */
#ifndef REPLFS_BASE_DAEMON_H
#define REPLFS_BASE_DAEMON_H
#include <signal.h>

#include "config.h"

/* Starts the log as --log-level, --log-file and --debug say; each may be NULL. 0; -EINVAL: no such
 * level; or the code of log_init. What is wrong has been said on stderr then. */
int daemon_log(const char *program, const char *level, const char *file, const char *debug);
/* Writes this process's id to path; NULL: nothing to do. 0, or -errno after a log line. */
int daemon_pid_file(const char *path);
/* Raises the limit of open files as far as the system lets us, once. Returns how many there may be
 * then. */
unsigned daemon_raise_files(void);
/* Blocks the signals that daemon_wait waits for, in this thread and those it starts; *set gets them. */
void daemon_block_signals(sigset_t *set);

struct daemon_reload { /* what SIGHUP reads again */
    const struct config_opt *opts;
    const char *program, *default_file;
    int argc;
    char **argv;
    char **log_level, **debug; /* variables of opts */
    const char *log_file;      /* or NULL */
    void (*more)(void *arg);   /* what else the daemon renews; may be NULL */
    void *arg;
};
/* Waits for SIGTERM or SIGINT and returns which. SIGHUP meanwhile reopens the log and takes over the
 * log level and modules of the configuration file; it ends nothing, not even when the file is wrong. */
int daemon_wait(const sigset_t *set, const struct daemon_reload *r);
/* From here on a second SIGTERM or SIGINT ends the process at once; SIGHUP still does not. */
void daemon_unblock_signals(const sigset_t *set);
#endif
