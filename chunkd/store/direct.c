/* O_DIRECT for readers that care for the medium: scrub and verifications.
 *
 * A read through the page cache proves nothing of a disk whose pages are still in memory, as those are that were
 * written or copied a moment ago; and the bytes of a whole disk, read through it once in two weeks, would push out what
 * others read again and again. So the range is read in aligned windows by a descriptor of its own, made of the given
 * one through /proc, into an aligned buffer, and handed out from there. The kernel writes out dirty pages of the
 * range first.
 *
 * Failure modes: a file system without O_DIRECT, or one with larger blocks than WINDOW_ALIGN: read as others read, and
 * given back with posix_fadvise(2), which keeps dirty pages. No /proc: likewise. Any thread. */
#include "direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

#define WINDOW ((1u << 20) + (64u << 10)) /* a whole record, wherever it begins */
#define WINDOW_ALIGN 4096u

/* One window is kept between calls: to map and fault in a new one each time costs as much as the reading. */
static void *_Atomic spare_window;

static void *window_take(void)
{
    void *mem = atomic_exchange(&spare_window, NULL);
    if (!mem && posix_memalign(&mem, WINDOW_ALIGN, WINDOW) != 0)
        return NULL;
    return mem;
}

static void window_put(void *mem)
{
    free(atomic_exchange(&spare_window, mem));
}

/* Where the next byte goes. */
struct scatter {
    const struct iovec *iov;
    int n;
    size_t at; /* of iov[0] */
};

static void scatter_put(struct scatter *s, const uint8_t *p, size_t len)
{
    while (len > 0 && s->n > 0) {
        size_t room = s->iov->iov_len - s->at, k = len < room ? len : room;
        memcpy((uint8_t *)s->iov->iov_base + s->at, p, k);
        p += k;
        len -= k;
        s->at += k;
        if (s->at == s->iov->iov_len) {
            s->iov++;
            s->n--;
            s->at = 0;
        }
    }
}

/* `want` bytes of the file at `from`, as many as there are; negative: -errno. */
static ssize_t window_read(int fd, uint8_t *buf, size_t want, uint64_t from)
{
    size_t got = 0;
    while (got < want) {
        ssize_t n = pread(fd, buf + got, want - got, (off_t)(from + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        got += (size_t)n;
        if (n == 0 || got % WINDOW_ALIGN != 0)
            break; /* the file's end */
    }
    return (ssize_t)got;
}

static int windows_into(uint8_t *buf, int fd, struct scatter s, uint64_t pos, uint64_t end)
{
    for (uint64_t from = pos - pos % WINDOW_ALIGN; from < end; from += WINDOW) {
        uint64_t rest = (end - from + WINDOW_ALIGN - 1) / WINDOW_ALIGN * WINDOW_ALIGN;
        ssize_t got = window_read(fd, buf, rest < WINDOW ? (size_t)rest : WINDOW, from);
        if (got < 0)
            return (int)got;
        uint64_t lo = pos > from ? pos - from : 0, hi = end - from < WINDOW ? end - from : WINDOW;
        if ((uint64_t)got < hi)
            return -ERR_CORRUPT;
        scatter_put(&s, buf + lo, hi - lo);
    }
    return 0;
}

static int windows_read(int fd, const struct iovec *iov, int n, uint64_t pos, uint64_t end)
{
    void *buf = window_take();
    if (!buf)
        return -ENOMEM;
    int rc = windows_into(buf, fd, (struct scatter){iov, n, 0}, pos, end);
    window_put(buf);
    return rc;
}

int direct_read(int fd, const struct iovec *iov, int n, uint64_t pos)
{
    char path[64];
    uint64_t end = pos;
    for (int i = 0; i < n; i++)
        end += iov[i].iov_len;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    CLEANUP(close_fdp) int own = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    int rc = own < 0 ? -EINVAL : windows_read(own, iov, n, pos, end);
    if (rc != -EINVAL)
        return rc;
    rc = windows_read(fd, iov, n, pos, end);
    posix_fadvise(fd, (off_t)pos, (off_t)(end - pos), POSIX_FADV_DONTNEED);
    return rc;
}
