/* Digests of the state at agreed positions (digests.h).
 *
 *   CheckOp at P           each metad forks there; the child adds up its digest and writes it to a pipe, a thread waits
 *                          for that, and for the child's end
 *   digests_told           the leader hears those of the others
 *   CheckOp at Q, with P   every metad compares its own of P with those that were told
 *
 * The fork freezes memory as it is at that position, since the log thread holds the state's write lock; the others go
 * on. It costs the copying of page tables, and of the pages that change until the child is done (man/replfs-admin.7
 * has figures): where that takes longer than the others wait for a leader, the leader leaves it out, and is compared
 * when another one leads. A position that comes while a child is still at work is left out, too: then there is nothing
 * to compare.
 *
 * Who is right: what more than half of all metads have. Without that nobody is wrong, unless all have told theirs; then
 * the leader counts as right: its state is what clients have seen. One that differs logs it, leaves the file `differs`
 * in its directory, and its log stops; since its checkpoints may be wrong as well, it does not start again from them.
 *
 * Failure modes: a child that cannot be started or fails leaves no digest; logged, and tried at the next position.
 * Threads: see digests.h; d->mu guards all that is told. */
#include "digests.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/thread.h"

#define LOG_MODULE "digest"
#define BARRED_FILE "differs"

struct digest {
    uint64_t position, digest; /* position 0: none */
};
struct digests {
    struct fsm *fsm;
    uint32_t self;
    char *dir;
    struct lock mu;
    struct digest mine;
    struct {
        uint32_t metad;
        struct digest of;
    } told[FSM_METADS_MAX]; /* metad 0: free */

    /* the child; log thread, but for the thread that waits for it */
    uint64_t position;
    pid_t pid;
    int64_t fork_ns;
    int fd;
    pthread_t waiter;
    bool has_waiter;
    bool reaping; /* mu */
    atomic_bool done;

    uint32_t op_metad[FSM_METADS_MAX]; /* of the CheckOp that digests_next made */
    uint64_t op_digest[FSM_METADS_MAX];
};

/* ---- comparing ---- */

enum digests_verdict digests_judge(uint64_t mine, const uint64_t *v, size_t n, size_t metads)
{
    uint64_t right = n > 0 ? v[0] : mine;
    bool all = true, sure = n >= metads;

    for (size_t i = 0; i < n; i++) {
        size_t same = 0;
        for (size_t k = 0; k < n; k++)
            same += v[k] == v[i];
        if (2 * same > metads) {
            right = v[i];
            sure = true;
        }
        all &= v[i] == mine;
    }
    if (sure && mine != right)
        return DIGESTS_DIFFER;
    return all ? DIGESTS_SAME : DIGESTS_OTHERS_DIFFER;
}

static void bar(const struct digests *d, uint64_t position)
{
    char path[PATH_MAX];

    if (!d->dir || snprintf(path, sizeof(path), "%s/" BARRED_FILE, d->dir) >= (int)sizeof(path))
        return;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || dprintf(fd, "%" PRIu64 "\n", position) < 0 || fsync(fd) < 0)
        log_warn("%s cannot be written: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

int digests_barred(const char *dir)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/" BARRED_FILE, dir) >= (int)sizeof(path) ||
        access(path, F_OK) != 0)
        return 0;
    log_error("%s: the metadata in this directory were found to differ from those of the other "
              "metads. Move the "
              "directory away and let this metad join again with an empty one (replfs-metad "
              "--join); keep the old "
              "one for a report of the error",
              path);
    return -ERR_CORRUPT;
}

static int compare(struct digests *d, const Replfs__CheckOp *op)
{
    uint64_t position, digest;

    if (op->position == 0 || op->n_digest == 0 || !digests_mine(d, &position, &digest) ||
        position != op->position)
        return 0;
    switch (digests_judge(digest, op->digest, op->n_digest, fsm_metads(d->fsm))) {
    case DIGESTS_SAME:
        log_debug("position %" PRIu64 ": %zu metads have the same state", position, op->n_digest);
        return 0;
    case DIGESTS_OTHERS_DIFFER:
        log_error("position %" PRIu64 ": not all metads have the same state; this one has that of "
                  "most, or leads, or some are missing (replfsctl metad list): start them, and the "
                  "one that differs from most stops",
                  position);
        return 0;
    case DIGESTS_DIFFER:
        break;
    }
    log_error("position %" PRIu64 ": the state of this metad, %" PRIu32 " (digest %016" PRIx64
              "), is not that of the others: a fault of its memory, or an error of the program. "
              "It stops",
              position, d->self, digest);
    for (size_t k = 0; k < op->n_digest && k < op->n_metad; k++)
        log_error("metad %" PRIu32 " has digest %016" PRIx64, op->metad[k], op->digest[k]);
    bar(d, position);
    return -ERR_CORRUPT;
}

/* ---- making one ---- */

static _Noreturn void child_digest(struct fsm *f, int fd, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup2(fd, 3) < 0)
        _exit(1);
    close_range(4, ~0u, 0);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    uint64_t digest = fsm_digest(f);
    _exit(write(3, &digest, sizeof(digest)) == (ssize_t)sizeof(digest) ? 0 : 2);
}

static void *digest_waiter(void *arg)
{
    struct digests *d = arg;
    uint64_t digest = 0;
    ssize_t got;
    int status = 0;
    pid_t ended;

    do
        got = read(d->fd, &digest, sizeof(digest));
    while (got < 0 && errno == EINTR);
    lock_acquire(&d->mu);
    d->reaping = true; /* from here on its number may be another's */
    lock_release(&d->mu);
    do
        ended = waitpid(d->pid, &status, 0);
    while (ended < 0 && errno == EINTR);
    if (got == (ssize_t)sizeof(digest) && ended == d->pid && WIFEXITED(status) &&
        WEXITSTATUS(status) == 0) {
        LOCK_SCOPE(&d->mu);
        d->mine = (struct digest){d->position, digest};
    } else {
        log_warn("no digest could be made at position %" PRIu64, d->position);
    }
    atomic_store(&d->done, true);
    return NULL;
}

/* Log thread. True: no child is at work any more. */
static bool reap_child(struct digests *d)
{
    if (!d->has_waiter)
        return true;
    if (!atomic_load(&d->done))
        return false;
    pthread_join(d->waiter, NULL);
    close(d->fd);
    d->has_waiter = false;
    return true;
}

static void start_child(struct digests *d, uint64_t position)
{
    int fds[2];
    pid_t parent = getpid();

    if (!reap_child(d) || pipe2(fds, O_CLOEXEC) < 0)
        return;
    d->position = position;
    d->fork_ns = clock_mono();
    d->pid = fork();
    if (d->pid == 0)
        child_digest(d->fsm, fds[1], parent);
    d->fork_ns = clock_mono() - d->fork_ns;
    close(fds[1]);
    d->fd = fds[0];
    lock_acquire(&d->mu);
    d->reaping = false;
    lock_release(&d->mu);
    atomic_store(&d->done, false);
    if (d->pid > 0 && thread_start(&d->waiter, "digest", digest_waiter, d) == 0) {
        d->has_waiter = true;
        return;
    }
    log_warn("no digest can be made at position %" PRIu64 ": %s", position, strerror(errno));
    if (d->pid > 0) {
        kill(d->pid, SIGKILL);
        waitpid(d->pid, NULL, 0);
    }
    close(d->fd);
}

int digests_check(struct digests *d, uint64_t position, const Replfs__CheckOp *op, bool make)
{
    int rc = compare(d, op);

    if (rc == 0 && make)
        start_child(d, position);
    return rc;
}

int64_t digests_fork_ns(const struct digests *d)
{
    return d->fork_ns;
}

/* ---- telling ---- */

bool digests_mine(struct digests *d, uint64_t *position, uint64_t *digest)
{
    LOCK_SCOPE(&d->mu);
    *position = d->mine.position;
    *digest = d->mine.digest;
    return d->mine.position != 0;
}

void digests_told(struct digests *d, uint32_t metad, uint64_t position, uint64_t digest)
{
    LOCK_SCOPE(&d->mu);
    size_t at = 0;
    for (size_t k = FSM_METADS_MAX; k-- > 0;) {
        if (d->told[k].metad == metad) {
            at = k;
            break;
        }
        if (d->told[k].of.position <= d->told[at].of.position)
            at = k; /* else: the place of the oldest */
    }
    d->told[at].metad = metad;
    d->told[at].of = (struct digest){position, digest};
}

/* Who has told a digest of this position, self first; how many. */
static size_t digests_of(struct digests *d, uint64_t position)
{
    struct fsm_metad m = {0};
    size_t n = 0;

    if (d->mine.position == position) {
        d->op_metad[n] = d->self;
        d->op_digest[n++] = d->mine.digest;
    }
    for (size_t k = 0; k < FSM_METADS_MAX && n < FSM_METADS_MAX; k++) {
        if (d->told[k].of.position != position || d->told[k].metad == d->self ||
            !fsm_metad_find(d->fsm, d->told[k].metad, &m))
            continue;
        d->op_metad[n] = d->told[k].metad;
        d->op_digest[n++] = d->told[k].of.digest;
    }
    return n;
}

bool digests_next(struct digests *d, Replfs__CheckOp *out)
{
    uint64_t position;
    size_t n = 0;

    replfs__check_op__init(out);
    if (fsm_feature_level(d->fsm) < metaop_level(METAOP_CHECK))
        return false;
    fsm_rdlock(d->fsm);
    lock_acquire(&d->mu);
    uint32_t all = fsm_metads(d->fsm);
    position = d->mine.position;
    for (size_t k = 0; k < FSM_METADS_MAX; k++) /* this metad may have left the newest one out */
        if (d->told[k].of.position > position)
            position = d->told[k].of.position;
    if (position != 0)
        n = digests_of(d, position);
    if (2 * n <= all && d->mine.position != 0) {
        position = d->mine.position;
        n = digests_of(d, position);
    }
    if (2 * n > all) {
        out->position = position;
        out->metad = d->op_metad;
        out->digest = d->op_digest;
        out->n_metad = out->n_digest = n;
    }
    lock_release(&d->mu);
    fsm_unlock(d->fsm);
    return all > 1;
}

/* ---- life ---- */

struct digests *digests_new(struct fsm *f, uint32_t self, const char *dir)
{
    struct digests *d = calloc(1, sizeof(*d));

    if (!d)
        abort();
    d->fsm = f;
    d->self = self;
    d->dir = dir ? strdup(dir) : NULL;
    if (dir && !d->dir)
        abort();
    lock_init(&d->mu, LOCK_DIGESTS);
    return d;
}

void digests_free(struct digests *d)
{
    if (!d)
        return;
    if (d->has_waiter) {
        lock_acquire(&d->mu);
        if (!d->reaping)
            kill(d->pid, SIGKILL);
        lock_release(&d->mu);
        pthread_join(d->waiter, NULL);
        close(d->fd);
    }
    lock_destroy(&d->mu);
    free(d->dir);
    free(d);
}
