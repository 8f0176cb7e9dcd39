/* Locks: each of these threads, on whatever mount, takes one of a few files' locks (flock, or an OFD lock), says in memory that
 * all share outside of the cluster that it is the holder, adds one to a number in the file, and gives the lock back. Two
 * holders at once, or a number that is not the last one's, must not be. A holder that was killed with its mount says nothing
 * of giving back: the next one sees that it is dead, and then takes the number as it is. A number that was not fsynced may be lost
 * with its mount, or with the power: the file `forgetful` says that this happened. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lab.h"

/* Of one lock, in the witness file. */
struct witness {
    _Atomic int holder; /* thread id, 0: none */
    _Atomic uint64_t number;
    _Atomic uint64_t taken;
};

static bool dead(int tid)
{
    return kill(tid, 0) < 0 && errno == ESRCH;
}

static int lock(int fd, bool whole, bool take)
{
    struct flock l = {
        .l_type = take ? F_WRLCK : F_UNLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 10};
    if (whole)
        return flock(fd, take ? LOCK_EX : LOCK_UN);
    return fcntl(fd, F_OFD_SETLKW, &l);
}

/* While the lock is held. */
static void count(const struct board *b, int fd, struct witness *w, const char *path,
                  struct random *random)
{
    int self = (int)syscall(SYS_gettid), other = 0;
    bool inherited = false;
    uint64_t number = 0;
    if (!atomic_compare_exchange_strong(&w->holder, &other, self)) {
        inherited = dead(other);
        if (!inherited) {
            board_violation(b, "%s: thread %d holds the lock, and so does %d", path, self, other);
            return;
        }
        atomic_store(&w->holder, self);
    }
    inherited |= atomic_fetch_add(&w->taken, 1) == 0;
    if (pread(fd, &number, sizeof number, 0) < 0) {
        board_error(b, "read under a lock", errno);
    } else {
        uint64_t expected = atomic_load(&w->number);
        if (number != expected && !inherited && !(number < expected && board_has(b, "forgetful")))
            board_violation(b, "%s: %llu was written under the lock, %llu is read", path,
                            (unsigned long long)expected, (unsigned long long)number);
        number++;
        if (pwrite(fd, &number, sizeof number, 0) < 0 ||
            (random_below(random, 4) == 0 && fsync(fd) < 0))
            board_error(b, "write under a lock", errno);
        atomic_store(&w->number, number);
    }
    usleep(random_below(random, 3000));
    int mine = self;
    if (!atomic_compare_exchange_strong(&w->holder, &mine, 0))
        board_violation(b, "%s: thread %d held the lock until %d took it", path, self, mine);
}

int locks_run(const struct board *b, const char *folder, const char *witness, uint64_t seed)
{
    struct random random = {seed * 31 + 7};
    int at = open(witness, O_RDWR | O_CREAT, 0644);
    if (at < 0 || ftruncate(at, 4096) < 0)
        abort();
    struct witness *all = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, at, 0);
    if (all == MAP_FAILED)
        abort();
    close(at);
    while (!board_stopped(b)) {
        uint32_t k = random_below(&random, LOCKS);
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/l%u", folder, k);
        int fd = open(path, O_RDWR | O_CREAT, 0644);
        bool whole = k & 1; /* flock and fcntl do not know of each other */
        if (fd < 0 || lock(fd, whole, true) < 0) {
            board_error(b, fd < 0 ? "open of a lock's file" : "lock", errno);
            if (errno == ENOTCONN || errno == ECONNABORTED)
                break;
        } else {
            count(b, fd, &all[k], path, &random);
            if (lock(fd, whole, false) < 0)
                board_error(b, "unlock", errno);
        }
        if (fd >= 0 && close(fd) < 0)
            board_error(b, "close of a lock's file", errno);
        usleep(random_below(&random, 8000));
    }
    munmap(all, 4096);
    return 0;
}
