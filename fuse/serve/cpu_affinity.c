/* Near the caller.
 *
 * A program that waits for the answer to a call, and a thread that waits for its next call, never run
 * at the same time, but on two CPUs each wakes the other's out of idle: 20 us in a virtual machine,
 * several times what an answer from the lease cache takes. On one CPU it is a context switch.
 *
 * The scheduler brings a thread that wakes up to an idle CPU, if there is one; and a CPU on which only
 * SCHED_IDLE threads run counts as idle (sched(7); the kernel's select_idle_sibling()). So ours is one
 * while it writes the answer: the program stays, runs at once, and ours goes on when it waits again.
 * At no other time, but for looking whether there is a next call: a thread of that class gets what
 * others leave, and nobody should wait for it, or for a lock that it has.
 *
 * The two meet by ours going where the program was seen last (proc_pid_stat(5)), and it stays there, so
 * that the scheduler does not part them, until a call comes from elsewhere. A look that was in vain
 * makes the next one come later.
 *
 * Looking is done by a scout, a thread that nobody waits for: reading that file may wait until the
 * program's execve(2) is over, which closes its files and waits for our answer to that. */
#include "cpu_affinity.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/log.h"
#include "base/thread.h"

#define LOG_MODULE "fuse"
#define PATIENCE_MIN 4u /* calls from elsewhere, before looking where that is */
#define PATIENCE_MAX 4096u
#define STAT_CPU 39 /* of the fields of /proc/PID/stat, from 1 */

static cpu_set_t anywhere; /* since cpu_affinity_start */

static struct {
    struct lock mu;
    struct cond cv;
    bool started;
    uint32_t wanted; /* the thread to look for, 0: none */
    uint32_t found;  /* that was looked for last, 0: nobody asked since */
    int cpu;         /* where that was; -1: cannot be told */
} scout = {.mu = LOCK_INITIALIZER(CPU_SCOUT), .cv = COND_INITIALIZER};

static _Thread_local struct {
    uint32_t tid;
    unsigned apart, patience;
    bool stays;
    cpu_set_t before; /* it stayed */
} self;

static const struct sched_param no_param;

/* ---- where a program is ---- */

/* Where thread tid is, or was when it ran last; -1: cannot be told. */
static int cpu_of(uint32_t tid)
{
    char name[32], line[1024], *at;
    snprintf(name, sizeof(name), "/proc/%u/stat", tid);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, line, sizeof(line) - 1);
    close(fd);
    line[n > 0 ? n : 0] = 0;
    at = strrchr(line, ')'); /* the second field's end: it may hold anything */
    for (int field = 2; at && field < STAT_CPU; field++)
        at = strchr(at + 1, ' ');
    return at ? atoi(at) : -1;
}

static void *scouting(void *arg)
{
    (void)arg;
    for (;;) {
        lock_acquire(&scout.mu);
        while (!scout.wanted)
            cond_wait(&scout.cv, &scout.mu);
        uint32_t tid = scout.wanted;
        lock_release(&scout.mu);
        int cpu = cpu_of(tid);
        lock_acquire(&scout.mu);
        scout.cpu = cpu;
        scout.found = tid;
        scout.wanted = 0;
        lock_release(&scout.mu);
    }
    return NULL;
}

/* For as long as the process lives: nobody could wait for its end. */
static bool scout_start(void)
{
    pthread_t t;
    if (!scout.started && !thread_start(&t, "near", scouting, NULL)) {
        pthread_detach(t);
        scout.started = true;
    }
    return scout.started;
}

/* Where thread tid was when the scout saw it, -1 if that could not tell. False: it is on its way, or will
 * be asked again. */
static bool seen(uint32_t tid, int *cpu)
{
    LOCK_SCOPE(&scout.mu);
    if (scout.found == tid) {
        scout.found = 0;
        *cpu = scout.cpu;
        return true;
    }
    if (!scout.wanted) {
        scout.wanted = tid;
        cond_signal(&scout.cv);
    }
    return false;
}

/* ---- what the process may do ---- */

static void *try(void *ok)
{
    *(bool *)ok = !sched_setscheduler(0, SCHED_IDLE, &no_param) &&
                  !sched_setscheduler(0, SCHED_OTHER, &no_param);
    return NULL;
}

bool cpu_affinity_start(void)
{
    pthread_t t; /* its own thread, since without CAP_SYS_NICE there is no way back */
    bool ok = false;
    if (sched_getscheduler(0) != SCHED_OTHER || sched_getaffinity(0, sizeof(anywhere), &anywhere) ||
        CPU_COUNT(&anywhere) < 2 || pthread_create(&t, NULL, try, &ok))
        return false;
    pthread_join(t, NULL);
    if (!ok)
        log_debug("not allowed to change the scheduling of threads: slower answers");
    return ok && scout_start();
}

void cpu_affinity_begin(void)
{
    sched_setaffinity(0, sizeof(anywhere), &anywhere);
}

/* ---- class ---- */

void cpu_affinity_idle(pid_t tid, bool on)
{
    sched_setscheduler(tid, on ? SCHED_IDLE : SCHED_OTHER, &no_param);
}

/* ---- place ---- */

void cpu_affinity_leave(void)
{
    if (self.stays)
        sched_setaffinity(0, sizeof(self.before), &self.before);
    self.stays = false;
}

static void go_to(int cpu)
{
    cpu_set_t one;
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof(self.before), &self.before) ||
        !CPU_ISSET(cpu, &self.before))
        return;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    self.stays = !sched_setaffinity(0, sizeof(one), &one);
}

void cpu_affinity_came(uint32_t tid, bool right_behind)
{
    bool other = tid != self.tid;
    if (other || right_behind) {
        self.tid = tid;
        self.apart = 0;
        self.patience = PATIENCE_MIN;
    }
    if (right_behind && !other)
        return;
    cpu_affinity_leave();
    int cpu;
    if (!tid || ++self.apart < self.patience || !seen(tid, &cpu))
        return;
    self.apart = 0;
    self.patience = self.patience < PATIENCE_MAX ? self.patience * 2 : PATIENCE_MAX;
    go_to(cpu);
}
