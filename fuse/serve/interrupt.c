/* A program that is killed while it waits for us must not wait on: the kernel lets nobody go before the answer.
 *
 * It tells once (FUSE_INTERRUPT) that a signal came for the caller. If that kills it, nobody will see an answer, so
 * it gets EINTR within LOOK_MS, past the one that serves the request; that goes on, and when it answers, the kernel
 * knows no such request any more, as if the caller had gone before (ENOENT, which libfuse keeps to itself; an open or
 * create that was not taken is closed). What it does in the end is what a call can do whose caller died: all, or
 * nothing. But what is done when a program has gone surprises a program that cleans up after it (rm -r: "Directory
 * not empty"), so a change of names or attributes is waited for CHANGE_MS: mostly it is answered by then. A signal
 * that does not kill is not told: no local file system ends a stat(2) or a rename(2) for one, and programs know no
 * EINTR there. But a later one may kill, of which the kernel does not tell: such callers are looked after every
 * LOOK_MS. A file may then be released while one of its calls is still served: each holds its handle (ops_hold).
 *
 * A process that ends closes its files (FLUSH), and waits for that without any interrupt, so the same is done for it
 * once it has waited LATE_MS: what was written is then sent in the background. And what it read ahead (READ, which
 * nobody waits for) keeps pages locked that others wait for in ways that no signal ends, to open the file for one:
 * they read them anew, if they want them.
 *
 * A thread is being killed when SIGKILL is pending for it (a signal whose default is to end the process becomes that
 * for each of its threads), or it is exiting already. /proc tells, if the caller's pid means something here: of a
 * container's it does not, and its callers wait.
 *
 * The table is direct-mapped by the request's number: one that is overwritten is waited for.
 *
 * Context: threads of the loop; one of its own, from the first that has to be looked after on. */
#include "interrupt.h"

#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

#define LOG_MODULE "fuse"
#define SLOTS 4096u
#define WATCHED 256u
#define LOOK_MS 100
#define LATE_MS 300
#define CHANGE_MS 700
#define AWAKE_LOOKS 10
#define SIGKILL_BIT (1ull << 8)
#define EXITING 0x4u /* PF_EXITING, of /proc/PID/stat */

static struct slot {
    _Atomic uint64_t unique; /* 0: answered */
    _Atomic uint32_t opcode, tid;
} slots[SLOTS];

struct watched {
    uint64_t unique;
    uint32_t tid;
    int64_t from; /* it is not let go before */
};
static struct {
    struct lock mu;
    struct cond cv;
    struct watched v[WATCHED];
    size_t n;
    int fd;
    pthread_t thread;
    bool started, asleep, stop;
} look = {.mu = LOCK_INITIALIZER(INTERRUPTS)};

static struct slot *slot_of(uint64_t unique)
{
    return &slots[unique / 2 % SLOTS]; /* the kernel counts in twos */
}

void interrupt_saw(uint64_t unique, uint32_t opcode, uint32_t tid)
{
    struct slot *s = slot_of(unique);
    atomic_store_explicit(&s->opcode, opcode, memory_order_relaxed);
    atomic_store_explicit(&s->tid, tid, memory_order_relaxed);
    atomic_store_explicit(&s->unique, unique, memory_order_release);
}

void interrupt_answered(uint64_t unique)
{
    struct slot *s = slot_of(unique);
    if (atomic_load_explicit(&s->unique, memory_order_relaxed) == unique)
        atomic_store_explicit(&s->unique, 0, memory_order_relaxed);
}

/* A line of /proc/TID/file that begins with name, or the whole; false: no such thread. */
static bool proc_text(uint32_t tid, const char *file, char *buf, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%u/%s", tid, file);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(buf, 1, size - 1, f) : 0;
    buf[n] = '\0';
    if (f)
        fclose(f);
    return n > 0;
}

/* SIGKILL is pending for it, or for its whole process. */
static bool killed(const char *status)
{
    static const char *const masks[] = {"\nSigPnd:", "\nShdPnd:"};
    for (size_t i = 0; i < 2; i++) {
        const char *p = strstr(status, masks[i]);
        if (p && strtoull(p + strlen(masks[i]), NULL, 16) & SIGKILL_BIT)
            return true;
    }
    return false;
}

/* Its flags, the seventh number behind the name in parentheses. */
static bool exiting(const char *stat)
{
    const char *p = strrchr(stat, ')');
    unsigned flags = 0;
    return p && sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && (flags & EXITING);
}

static bool dying(uint32_t tid)
{
    char text[4096];
    if (!tid)
        return false;
    if (!proc_text(tid, "status", text, sizeof(text)))
        return true; /* gone */
    return killed(text) || (proc_text(tid, "stat", text, sizeof(text)) && exiting(text));
}

static void let_go(int fd, uint64_t unique)
{
    struct fuse_out_header h = {.len = sizeof(h), .error = -EINTR, .unique = unique};
    if (write(fd, &h, sizeof(h)) != (ssize_t)sizeof(h) && errno != ENOENT)
        log_debug("a caller that was killed cannot be let go: %s", strerror(errno));
}

/* ---- those who wait ---- */

static bool waits(const struct watched *w)
{
    return atomic_load(&slot_of(w->unique)->unique) == w->unique;
}

/* Forgets those that were answered. look.mu held. */
static void forget_answered(void)
{
    lock_assert_held(&look.mu);
    size_t kept = 0;
    for (size_t i = 0; i < look.n; i++)
        if (waits(&look.v[i]))
            look.v[kept++] = look.v[i];
    look.n = kept;
}

/* look.mu held, dropped meanwhile: to read of a process that execs is to wait for its closes (cpu_affinity.c), which
 * are watched here. */
static void look_at_all(void)
{
    lock_assert_held(&look.mu);
    struct watched v[WATCHED];
    forget_answered();
    size_t n = look.n;
    int fd = look.fd;
    memcpy(v, look.v, n * sizeof(*v));
    lock_release(&look.mu);
    int64_t now = clock_mono();
    for (size_t i = 0; i < n; i++) {
        const struct watched *w = &v[i];
        if (now >= w->from && waits(w) && dying(w->tid)) {
            let_go(fd, w->unique);
            interrupt_answered(w->unique);
        }
    }
    lock_acquire(&look.mu);
    forget_answered();
}

/* Stays awake for a while, so that the next one has nobody to wake. */
static void *look_after(void *arg)
{
    LOCK_SCOPE(&look.mu);
    for (unsigned idle = 0; !look.stop; idle = look.n ? 0 : idle + 1) {
        look.asleep = idle >= AWAKE_LOOKS;
        while (look.asleep && !look.stop)
            cond_wait(&look.cv, &look.mu);
        if (!look.stop)
            cond_sleep_until(&look.cv, &look.mu, clock_mono() + LOOK_MS * NSEC_PER_MSEC);
        look_at_all();
    }
    return arg;
}

static void interrupt_watch(int fd, uint64_t unique, uint32_t tid, int64_t ms)
{
    LOCK_SCOPE(&look.mu);
    if (look.n == WATCHED)
        forget_answered();
    if (look.n == WATCHED || look.stop)
        return;
    look.fd = fd;
    look.v[look.n++] = (struct watched){unique, tid, clock_mono() + ms * NSEC_PER_MSEC};
    if (!look.started) {
        cond_init(&look.cv);
        look.started = !thread_start(&look.thread, "interrupts", look_after, NULL);
    }
    if (look.asleep)
        cond_signal(&look.cv);
    look.asleep = false;
}

static bool is_change(uint32_t opcode)
{
    switch (opcode) {
    case FUSE_SETATTR:
    case FUSE_SYMLINK:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_CREATE:
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
    case FUSE_FALLOCATE:
    case FUSE_COPY_FILE_RANGE:
        return true;
    default:
        return false;
    }
}

void interrupt_came(int fd, uint64_t unique)
{
    struct slot *s = slot_of(unique);
    uint32_t tid = atomic_load(&s->tid), opcode = atomic_load(&s->opcode);
    if (atomic_load(&s->unique) != unique ||
        opcode == FUSE_SETLKW) /* locks have a way of their own */
        return;
    interrupt_watch(fd, unique, tid, is_change(opcode) ? CHANGE_MS : LOOK_MS / 2);
}

void interrupt_lasting(int fd, uint64_t unique, uint32_t tid)
{
    interrupt_watch(fd, unique, tid, LATE_MS);
}

void interrupt_stop(void)
{
    lock_acquire(&look.mu);
    look.stop = true;
    if (look.started)
        cond_broadcast(&look.cv);
    lock_release(&look.mu);
    if (look.started)
        pthread_join(look.thread, NULL);
}
