/* The background process and its parent.
 *
 * fork comes first, since threads do not survive it; everything that can fail happens in the child
 * while standard error is still the caller's, so messages reach a terminal or mount(8). The parent
 * blocks on a pipe: one byte means mounted and answering, end of file means that the child died,
 * and its exit code is passed on.
 *
 * After that standard error is the log file, or a pipe whose other end a thread reads line by line
 * into syslog. The pipe never blocks its writers: when syslog stalls, lines are dropped rather than
 * calls. */
#include "background.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>
#include "base/thread.h"

static int ready_fd = -1;

static void parent_waits(int fd, pid_t child)
{
    char byte;
    ssize_t n;
    int status;
    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n == 1)
        _exit(0);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status))
        _exit(WEXITSTATUS(status) ? WEXITSTATUS(status) : 32);
    fprintf(stderr, "mount.replfs: the mount process was killed by signal %d\n", WTERMSIG(status));
    _exit(32);
}

int background_start(void)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC))
        return -errno;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        int e = errno;
        close(fds[0]);
        close(fds[1]);
        return -e;
    }
    if (pid > 0) {
        close(fds[1]);
        parent_waits(fds[0], pid);
    }
    close(fds[0]);
    ready_fd = fds[1];
    return 0;
}

static void *to_syslog(void *arg)
{
    FILE *in = fdopen((int)(intptr_t)arg, "r");
    char *line = NULL;
    size_t cap = 0;
    openlog("mount.replfs", LOG_PID, LOG_DAEMON);
    while (in && getline(&line, &cap, in) > 0)
        syslog(LOG_NOTICE, "%s", line);
    return NULL;
}

/* The write end of a pipe into syslog, or -1. */
static int syslog_fd(void)
{
    int fds[2];
    pthread_t t;
    if (pipe2(fds, O_CLOEXEC))
        return -1;
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    if (thread_start(&t, "syslog", to_syslog, (void *)(intptr_t)fds[0])) {
        close(fds[0]);
        close(fds[1]);
        return -1;
    }
    pthread_detach(t);
    return fds[1];
}

void background_ready(int log_fd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int err = log_fd >= 0 ? log_fd : syslog_fd();
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
    }
    if (err >= 0 || null >= 0)
        dup2(err >= 0 ? err : null, STDERR_FILENO);
    if (err > STDERR_FILENO)
        close(err);
    if (null > STDERR_FILENO)
        close(null);
    setsid();
    if (chdir("/") == 0 && ready_fd >= 0) {
        ssize_t n = write(ready_fd, "", 1);
        (void)n;
        close(ready_fd);
        ready_fd = -1;
    }
}
