/* Between libfuse and /dev/fuse: the parts of the protocol that libfuse 3.14 (and in part every
 * later one) does not know.
 *
 * We read the requests ourselves (loop.c), and libfuse lets a session's writes of the device be
 * replaced. Ours look at what passes, in the buffers where it lies, without a copy. Threads read in
 * turns (leader_follower.c), at the price of a poll(2), and two changes of the thread's scheduling class, for
 * each request that somebody waits for.
 *
 *   INIT        FUSE_HANDLE_KILLPRIV_V2, FUSE_SETXATTR_EXT and FUSE_DIRECT_IO_ALLOW_MMAP are added
 *               to the answer when the kernel offers them. With the first, the file system clears
 *               setuid, setgid and capabilities, and the kernel no longer asks for
 *               security.capability before every write. The second tells when setting an ACL
 *               clears setgid. The third allows shared mappings of files opened with O_DIRECT.
 *   TMPFILE     looks exactly as CREATE does, with the impossible name "/": becomes one.
 *   SETXATTR    in its extended form is cut back to the short one that libfuse reads.
 *   INTERRUPT   callers that are killed are let go (interrupt.c).
 *   WRITE, OPEN, CREATE, SETATTR, SETXATTR carry "kill setuid and setgid": remembered.
 *
 * What is remembered belongs to the thread: a worker of libfuse reads a request and serves it
 * before it reads the next. Operations that answer from another thread ask before they leave.
 *
 * Since 3.18.3 libfuse may be built without fuse_session_custom_io(3): then it writes the answers itself,
 * which costs a program that waits for each a little more, and what is added to INIT's is asked of
 * libfuse (kernel_want), which such a one knows.
 *
 * FUSE over io_uring, which libfuse has since 3.18, is declined: there a request is served with the lock of
 * its CPU's ring held, so that one that waits for the cluster keeps all answers of that CPU from being
 * given, by the very threads that it waits for.
 *
 * Invariant: a request that is not understood passes unchanged. Failure modes: none of its own. */
#include "kernel.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "interrupt.h"
#include "leader_follower.h"

#define LOG_MODULE "fuse"
#define DIRECT_IO_ALLOW_MMAP_2                                                                     \
    (1u << (36 - 32))     /* of flags2; newer than the headers of Debian 12 */
#define LONG_WRITE 65536u /* a thread of its own is worth it */
#define SHORT_SETXATTR FUSE_COMPAT_SETXATTR_IN_SIZE

static _Thread_local struct {
    bool kill_suid, kill_sgid;
    uint64_t unique; /* of the request */
    uint32_t tid;    /* whose call it is */
    int fd;
} now;

/* From the request of INIT to its answer; one session a process. */
static struct {
    _Atomic uint64_t unique;        /* of the request; 0: none is waiting for its answer */
    _Atomic uint32_t flags, flags2; /* that the kernel offers; then: agreed on */
} init;

static bool answers_pass; /* through write_answer, instead of libfuse's own */

bool kernel_kill_suid(void)
{
    return now.kill_suid;
}

bool kernel_kill_sgid(void)
{
    return now.kill_sgid;
}

void kernel_lasting(void)
{
    interrupt_lasting(now.fd, now.unique, now.tid);
}

/* ---- requests ---- */

static void saw_init(const struct fuse_in_header *h, const struct fuse_init_in *in, size_t len)
{
    if (len < sizeof(*in) || in->major != FUSE_KERNEL_VERSION)
        return;
    init.flags = in->flags;
    init.flags2 = in->flags & FUSE_INIT_EXT ? in->flags2 : 0;
    init.unique = h->unique;
}

/* Returns how long the message is now. */
static size_t shorten_setxattr(struct fuse_in_header *h, struct fuse_setxattr_in *in, size_t len)
{
    size_t cut = sizeof(*in) - SHORT_SETXATTR;
    if (!(init.flags & FUSE_SETXATTR_EXT) || len < sizeof(*in))
        return len;
    now.kill_sgid = in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID;
    if (!answers_pass) /* libfuse agreed on it, and reads it */
        return len;
    memmove((char *)in + SHORT_SETXATTR, (char *)in + sizeof(*in), len - sizeof(*in));
    h->len -= (uint32_t)cut;
    return len - cut;
}

/* len: of what follows the header. Returns what it is afterwards. */
static size_t kernel_look(struct fuse_in_header *h, size_t len)
{
    union {
        void *p;
        struct fuse_init_in *init;
        struct fuse_open_in *open;
        struct fuse_create_in *create;
        struct fuse_write_in *write;
        struct fuse_setattr_in *setattr;
        struct fuse_setxattr_in *setxattr;
        struct fuse_interrupt_in *interrupt;
    } in = {h + 1};
    switch (h->opcode) {
    case FUSE_INIT:
        saw_init(h, in.init, len);
        break;
    case FUSE_OPEN:
        now.kill_suid = len >= sizeof(*in.open) && in.open->open_flags & FUSE_OPEN_KILL_SUIDGID;
        break;
    case FUSE_INTERRUPT:
        if (len >= sizeof(*in.interrupt))
            interrupt_came(now.fd, in.interrupt->unique);
        break;
    case FUSE_TMPFILE:
        h->opcode = FUSE_CREATE;
        break;
    case FUSE_WRITE:
        if (len > LONG_WRITE)
            leader_follower_pass();
        now.kill_suid = len >= sizeof(*in.write) && in.write->write_flags & FUSE_WRITE_KILL_SUIDGID;
        break;
    case FUSE_SETATTR:
        now.kill_suid = len >= sizeof(*in.setattr) && in.setattr->valid & FATTR_KILL_SUIDGID;
        break;
    case FUSE_SETXATTR:
        return shorten_setxattr(h, in.setxattr, len);
    default:
        break;
    }
    return len;
}

/* Whether anybody waits for the answer: what nobody waits for is done in no time. */
static bool awaited(const struct fuse_in_header *h)
{
    return h->opcode != FUSE_FORGET && h->opcode != FUSE_BATCH_FORGET &&
           h->opcode != FUSE_RELEASE && h->opcode != FUSE_RELEASEDIR && h->opcode != FUSE_INTERRUPT;
}

ssize_t kernel_read(struct fuse_session *se, void *buf, size_t size)
{
    int fd = fuse_session_fd(se);
    ssize_t n = leader_follower_read(fd, buf, size);
    int code = n < 0 ? errno : EIO;
    now.kill_suid = now.kill_sgid = false;
    if (n < (ssize_t)sizeof(struct fuse_in_header))
        return -code;
    size_t rest = (size_t)n - sizeof(struct fuse_in_header);
    const struct fuse_in_header *h = buf;
    now.unique = h->unique;
    now.tid = h->pid;
    now.fd = fd;
    if (awaited(h))
        interrupt_saw(h->unique, h->opcode, h->pid);
    if (h->opcode == FUSE_READ)
        leader_follower_stream();
    else if (awaited(h))
        leader_follower_share(fd, h->pid);
    return (ssize_t)(sizeof(struct fuse_in_header) + kernel_look(buf, rest));
}

/* ---- answers ---- */

static void add_features(struct fuse_init_out *out)
{
    uint32_t flags = init.flags, flags2 = init.flags2;
    out->flags |= flags & (FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT);
    if (out->flags & FUSE_INIT_EXT)
        out->flags2 |= flags2 & DIRECT_IO_ALLOW_MMAP_2;
    log_debug("the kernel offers %#x %#x, agreed on %#x %#x", flags, flags2, out->flags,
              out->flags2);
    init.flags = out->flags;
    init.flags2 = out->flags2;
}

static ssize_t write_init(int fd, const struct iovec *iov)
{
    struct fuse_init_out out;
    struct iovec v[2] = {iov[0], {&out, sizeof(out)}};
    memcpy(&out, iov[1].iov_base, sizeof(out));
    add_features(&out);
    return writev(fd, v, 2);
}

static ssize_t write_answer(int fd, struct iovec *iov, int count, void *userdata)
{
    (void)userdata;
    uint64_t waiting = init.unique;
    if (waiting && count == 2 && iov[1].iov_len == sizeof(struct fuse_init_out)) {
        const struct fuse_out_header *h = iov[0].iov_base;
        if (h->unique == waiting && !h->error) {
            init.unique = 0;
            return write_init(fd, iov);
        }
    }
    const struct fuse_out_header *h = iov[0].iov_base;
    interrupt_answered(h->unique);
    return h->unique ? leader_follower_answer(fd, iov, count) : writev(fd, iov, count);
}

/* libfuse wants both. */
static ssize_t read_nothing(int fd, void *buf, size_t size, void *userdata)
{
    (void)fd, (void)buf, (void)size, (void)userdata;
    errno = ENOTSUP;
    return -1;
}

static void say_nothing(enum fuse_log_level level, const char *fmt, va_list ap)
{
    (void)level, (void)fmt, (void)ap;
}

int kernel_attach(struct fuse_session *se, fuse_log_func_t log)
{
    static const struct fuse_custom_io io = {.read = read_nothing, .writev = write_answer};
    fuse_set_log_func(say_nothing); /* that it cannot is no error */
    int rc = fuse_session_custom_io(se, &io, fuse_session_fd(se));
    fuse_set_log_func(log);
    answers_pass = !rc;
    if (rc == -ENOTSUP)
        log_info("libfuse %s was built without custom I/O: it writes the answers itself",
                 fuse_pkgversion());
    return rc == -ENOTSUP ? 0 : rc;
}

void kernel_want(struct fuse_conn_info *conn)
{
    unsigned want = 0;
#ifdef FUSE_CAP_OVER_IO_URING
    fuse_unset_feature_flag(conn, FUSE_CAP_OVER_IO_URING);
#endif
    if (answers_pass)
        return;
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
    want |= FUSE_CAP_HANDLE_KILLPRIV_V2;
#endif
#ifdef FUSE_CAP_SETXATTR_EXT
    want |= FUSE_CAP_SETXATTR_EXT;
#endif
#ifdef FUSE_CAP_DIRECT_IO_ALLOW_MMAP
    want |= FUSE_CAP_DIRECT_IO_ALLOW_MMAP;
#endif
    want &= conn->capable;
    conn->want |= want;
    init.flags = 0;
#ifdef FUSE_CAP_SETXATTR_EXT
    init.flags = want & FUSE_CAP_SETXATTR_EXT ? FUSE_SETXATTR_EXT : 0;
#endif
}

void kernel_forget_entries(struct fuse_session *se)
{
    enum { INC_EPOCH = 8 }; /* FUSE_NOTIFY_INC_EPOCH, newer than the headers of Debian 12 */
    struct fuse_out_header h = {.len = sizeof(h), .error = INC_EPOCH};
    if (write(fuse_session_fd(se), &h, sizeof(h)) != (ssize_t)sizeof(h) && errno != ENODEV)
        log_error("the kernel does not take back the names it knows: %s", strerror(errno));
}
