/* What each daemon does in the same way at its start: the log its options ask for, the pid file.
 * Main thread, before others start. */
#ifndef REPLFS_BASE_RUN_H
#define REPLFS_BASE_RUN_H

/* Starts the log as --log-level, --log-file and --debug say; each may be NULL. 0; -EINVAL: no such
 * level; or the code of log_init. What is wrong has been said on stderr then. */
int run_log(const char *program, const char *level, const char *file, const char *debug);
/* Writes this process's id to path; NULL: nothing to do. 0, or -errno after a log line. */
int run_pid_file(const char *path);
/* Raises the limit of open files as far as the system lets us, once. Returns how many there may be
 * then. */
unsigned run_raise_files(void);
#endif
