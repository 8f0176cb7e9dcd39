/* Child processes and file locks by virtual time: a checkpoint is written by a real child of this process, which runs
 * while all fibers stand still; how long it took by virtual time is chosen when somebody waits for it. A locked file
 * is nobody's: processes that were killed never close theirs. Outside of fibers nothing is replaced. */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fiber.h"

#define CHILDREN 64u
#define TAKES_MAX 300000000ll /* ns */

static struct child {
    pid_t pid;
    int status;
} children[CHILDREN];
static unsigned next;

pid_t __real_fork(void);
pid_t __wrap_fork(void);
pid_t __real_waitpid(pid_t pid, int *status, int options);
pid_t __wrap_waitpid(pid_t pid, int *status, int options);
int __real_kill(pid_t pid, int sig);
int __wrap_kill(pid_t pid, int sig);
int __wrap_flock(int fd, int op);

pid_t __wrap_fork(void)
{
    pid_t pid = __real_fork();
    if (!vt_self())
        return pid;
    if (pid == 0) {
        vt_alone();
        return 0;
    }
    struct child *c = &children[next++ % CHILDREN];
    c->pid = pid;
    if (pid > 0 && __real_waitpid(pid, &c->status, 0) != pid)
        vt_fail("a child is lost");
    return pid;
}

static struct child *child(pid_t pid)
{
    for (unsigned i = 0; i < CHILDREN; i++)
        if (children[i].pid == pid)
            return &children[i];
    return NULL;
}

pid_t __wrap_waitpid(pid_t pid, int *status, int options)
{
    if (!vt_self())
        return __real_waitpid(pid, status, options);
    struct child *c = child(pid);
    if (!c) {
        errno = ECHILD;
        return -1;
    }
    if (!WIFSIGNALED(c->status))
        vt_sleep_until(vt_now() + vt_between(0, TAKES_MAX));
    *status = c->status;
    c->pid = 0;
    return pid;
}

int __wrap_kill(pid_t pid, int sig)
{
    struct child *c = vt_self() ? child(pid) : NULL;
    if (!c)
        return __real_kill(pid, sig);
    c->status = sig;
    return 0;
}

int __wrap_flock(int fd, int op)
{
    (void)fd, (void)op;
    return 0;
}
