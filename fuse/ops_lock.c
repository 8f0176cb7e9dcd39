/* File locks: what the kernel asks becomes requests of the client library (client/locks/lock_requests.c).
 *
 * The kernel keeps no locks of its own for this file system. It names the owner of each: the table
 * of open files for POSIX locks, the open file for OFD locks and flock. Which of the first two it is
 * it does not say. A request that waits holds no thread: the answer is given from the callback,
 * and a signal (FUSE_INTERRUPT) cancels it.
 *
 * Unlocking: POSIX locks of a process go with the first close of any of its descriptors of the
 * file, which arrives as FLUSH with its owner; so every close must arrive (no FOPEN_NOFLUSH, also for
 * files opened for reading). OFD locks and flock go with the open file: RELEASE drops what was
 * set through the handle, which also catches a POSIX lock that was set while another thread
 * closed the file.
 *
 * What was written under a lock is handed over before the lock is: bytes still buffered are flushed
 * first. A failure of that is for fsync and close to report, as any of the background. */
#include "ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>

#include "base/error.h"
#include "base/lockset.h"

#define LAST_BYTE ((uint64_t)INT64_MAX)

static bool from_flock(struct client_lock *out, fuse_ino_t ino, const struct fuse_file_info *fi,
                       const struct flock *l)
{
    *out = (struct client_lock){.ino = ino,
                                .owner = fi->lock_owner,
                                .handle = fi->fh,
                                .pid = (uint32_t)l->l_pid,
                                .start = (uint64_t)l->l_start,
                                .end = l->l_len ? (uint64_t)(l->l_start + l->l_len - 1) : LAST_BYTE,
                                .type = l->l_type == F_RDLCK   ? LOCKSET_READ
                                        : l->l_type == F_WRLCK ? LOCKSET_WRITE
                                                               : LOCKSET_NONE};
    return out->start <= out->end;
}

void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
    struct client_lock l, got;
    int rc = from_flock(&l, ino, fi, lock) ? 0 : -EINVAL;
    if (!rc)
        rc = client_lock_test(ops_ctx(req)->client, &l, &got);
    if (rc) {
        ops_reply(req, rc);
        return;
    }
    struct flock out = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    if (got.type != LOCKSET_NONE) {
        out.l_type = got.type == LOCKSET_READ ? F_RDLCK : F_WRLCK;
        out.l_start = (off_t)got.start;
        out.l_len = got.end >= LAST_BYTE ? 0 : (off_t)(got.end - got.start + 1);
        out.l_pid = (pid_t)got.pid;
    }
    fuse_reply_lock(req, &out);
}

static void answered(void *arg, int code)
{
    ops_reply(arg, code);
}

/* libfuse calls this with a lock of the request held, perhaps before it is started. */
static void interrupted(fuse_req_t req, void *id)
{
    client_lock_cancel(ops_ctx(req)->client, (uintptr_t)id);
}

static void lock_op_set(fuse_req_t req, const struct client_lock *l, bool wait)
{
    struct client *c = ops_ctx(req)->client;
    if (l->type == LOCKSET_NONE) {
        client_flush_ino(c, l->ino);
        ops_reply(req, client_unlock(c, l));
        return;
    }
    client_lock_turn(c, l);
    uint64_t id = client_lock_prepare(c, l, wait, answered, req);
    fuse_req_interrupt_func(req, interrupted, (void *)(uintptr_t)id);
    client_lock_start(c, id); /* req may be gone from here on */
}

void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock,
              int sleep)
{
    struct client_lock l;
    if (from_flock(&l, ino, fi, lock))
        lock_op_set(req, &l, sleep);
    else
        ops_reply(req, -EINVAL);
}

void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
    struct client_lock l = {.ino = ino,
                            .owner = fi->fh, /* the kernel's name may already be another's */
                            .handle = fi->fh,
                            .end = UINT64_MAX,
                            .flock = true,
                            .type = op & LOCK_UN   ? LOCKSET_NONE
                                    : op & LOCK_EX ? LOCKSET_WRITE
                                                   : LOCKSET_READ};
    lock_op_set(req, &l, !(op & LOCK_NB));
}

bool ops_unlock_closing(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi)
{
    struct client *c = ops_ctx(req)->client;
    client_locks_closing(c, ino, fi->fh);
    return client_locks_owner(c, ino, fi->lock_owner);
}

void ops_unlock_flush(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi)
{
    struct client *c = ops_ctx(req)->client;
    client_flush_ino(c, ino);
    client_unlock_owner(c, ino, fi->lock_owner);
}

void ops_unlock_release(fuse_req_t req, fuse_ino_t ino, const struct fuse_file_info *fi)
{
    struct client *c = ops_ctx(req)->client;
    if (!client_locks_handle(c, ino, fi->fh))
        return;
    client_flush_ino(c, ino);
    client_unlock_handle(c, ino, fi->fh);
}
