/* Bytes in and out, by every door: read and write at a position or at the handle's own, appending,
 * through shared mappings, and past the page cache.
 *
 * Every call must do all that was asked at once: these are regular files, and nothing interrupts.
 * Mappings are made for one operation, or kept with the file while other operations change it
 * beneath; what is written through one is left to the kernel as often as msync'd. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "exerciser.h"

static uint64_t pick_length(struct exerciser *x)
{
    switch (below(x, 8)) {
    case 0:
        return 1 + below(x, 16);
    case 1:
    case 2:
        return 1 + below(x, PAGE);
    case 3:
        return 1 + below(x, x->o.size / 2);
    default:
        return 1 + below(x, 64u << 10);
    }
}

static uint64_t pick_offset(struct exerciser *x, const struct xfile *f)
{
    switch (below(x, 8)) {
    case 0:
        return f->size;
    case 1:
    case 2:
        return below(x, x->o.size);
    default:
        return below(x, f->size + 1);
    }
}

struct range pick_range(struct exerciser *x, const struct xfile *f, bool aligned)
{
    struct range r = {pick_offset(x, f), pick_length(x)};
    if (aligned || one_in(x, 3)) {
        r.off -= r.off % PAGE;
        r.len += PAGE - 1;
        r.len -= r.len % PAGE;
    }
    if (r.off >= x->o.size)
        r.off = x->o.size - PAGE;
    if (r.len > x->o.size - r.off)
        r.len = x->o.size - r.off;
    return r;
}

/* How much of a range a read gives. */
static uint64_t readable(const struct xfile *f, struct range r)
{
    if (r.off >= f->size)
        return 0;
    return r.len < f->size - r.off ? r.len : f->size - r.off;
}

static void check_read(struct exerciser *x, struct xfile *f, const char *how, ssize_t n,
                       struct range r)
{
    if (n < 0)
        fail_errno(x, f, how);
    if ((uint64_t)n != readable(f, r))
        fail(x, "%s: %s of %llu bytes at %llu gave %zd, expected %llu", f->name, how,
             (unsigned long long)r.len, (unsigned long long)r.off, n,
             (unsigned long long)readable(f, r));
    model_check(x, f, how, x->buf, r.off, (uint64_t)n);
}

static void check_written(struct exerciser *x, struct xfile *f, const char *how, ssize_t n,
                          struct range r)
{
    if (n < 0)
        fail_errno(x, f, how);
    if ((uint64_t)n != r.len)
        fail(x, "%s: %s of %llu bytes at %llu took only %zd", f->name, how,
             (unsigned long long)r.len, (unsigned long long)r.off, n);
    model_write(f, x->buf, r.off, r.len);
    file_check_stat(x, f);
}

static void seek_to(struct exerciser *x, struct xfile *f, uint64_t off)
{
    if (lseek(f->fd, (off_t)off, SEEK_SET) != (off_t)off)
        fail_errno(x, f, "lseek");
}

static void check_position(struct exerciser *x, struct xfile *f, int fd, uint64_t want)
{
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at != (off_t)want)
        fail(x, "%s: the handle stands at %lld, expected %llu", f->name, (long long)at,
             (unsigned long long)want);
}

void op_read(struct exerciser *x, struct xfile *f)
{
    struct range r = pick_range(x, f, false);
    note(x, f, "read", r.off, r.len, 0);
    seek_to(x, f, r.off);
    check_read(x, f, "read", read(f->fd, x->buf, r.len), r);
    check_position(x, f, f->fd, r.off + readable(f, r));
}

void op_pread(struct exerciser *x, struct xfile *f)
{
    struct range r = pick_range(x, f, false);
    note(x, f, "pread", r.off, r.len, 0);
    check_read(x, f, "pread", pread(f->fd, x->buf, r.len, (off_t)r.off), r);
}

void op_write(struct exerciser *x, struct xfile *f)
{
    struct range r = pick_range(x, f, false);
    note(x, f, "write", r.off, r.len, 0);
    pattern(x->buf, x->op, r.off, r.len);
    seek_to(x, f, r.off);
    check_written(x, f, "write", write(f->fd, x->buf, r.len), r);
    check_position(x, f, f->fd, r.off + r.len);
}

void op_pwrite(struct exerciser *x, struct xfile *f)
{
    struct range r = pick_range(x, f, false);
    note(x, f, "pwrite", r.off, r.len, 0);
    pattern(x->buf, x->op, r.off, r.len);
    check_written(x, f, "pwrite", pwrite(f->fd, x->buf, r.len, (off_t)r.off), r);
}

void op_append(struct exerciser *x, struct xfile *f)
{
    struct range r = {f->size, pick_length(x)};
    if (r.len > x->o.size - r.off)
        r.len = x->o.size - r.off;
    note(x, f, "append", r.off, r.len, 0);
    if (!r.len)
        return;
    pattern(x->buf, x->op, r.off, r.len);
    check_written(x, f, "append", write(f->append_fd, x->buf, r.len), r);
    check_position(x, f, f->append_fd, r.off + r.len);
}

/* ---- mappings ---- */

/* The file's mapping, the kept one or a new one. */
static uint8_t *map_get(struct exerciser *x, struct xfile *f)
{
    if (f->map && !one_in(x, 4))
        return f->map;
    uint8_t *m = mmap(NULL, x->o.size, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    if (m == MAP_FAILED)
        fail_errno(x, f, "mmap");
    return m;
}

static void map_put(struct exerciser *x, struct xfile *f, uint8_t *m)
{
    if (m == f->map)
        return;
    if (f->map ? one_in(x, 2) : one_in(x, 4)) {
        uint8_t *old = f->map;
        f->map = m;
        m = old;
    }
    if (m && munmap(m, x->o.size))
        fail_errno(x, f, "munmap");
}

static struct range pick_mapped(struct exerciser *x, const struct xfile *f)
{
    struct range r = pick_range(x, f, false);
    if (r.off >= f->size)
        r.off = f->size ? below(x, f->size) : 0;
    if (r.len > f->size - r.off)
        r.len = f->size - r.off;
    return r;
}

void op_map_read(struct exerciser *x, struct xfile *f)
{
    struct range r = pick_mapped(x, f);
    note(x, f, "map-read", r.off, r.len, 0);
    if (!r.len)
        return;
    uint8_t *m = map_get(x, f);
    memcpy(x->buf, m + r.off, r.len);
    uint64_t end = r.off + r.len, tail = end % PAGE && end == f->size ? PAGE - end % PAGE : 0;
    for (uint64_t i = 0; i < tail && end + i < x->o.size; i++) {
        if (m[end + i])
            fail(x, "%s: a mapping shows byte %02x at %llu, behind the end", f->name, m[end + i],
                 (unsigned long long)(end + i));
    }
    map_put(x, f, m);
    model_check(x, f, "read through a mapping", x->buf, r.off, r.len);
}

void op_map_write(struct exerciser *x, struct xfile *f)
{
    struct range r = pick_mapped(x, f);
    bool sync = one_in(x, 2);
    note(x, f, sync ? "map-write+s" : "map-write", r.off, r.len, 0);
    if (!r.len)
        return;
    uint8_t *m = map_get(x, f);
    pattern(x->buf, x->op, r.off, r.len);
    memcpy(m + r.off, x->buf, r.len);
    model_write(f, x->buf, r.off, r.len);
    uint64_t from = r.off - r.off % PAGE;
    if (sync && msync(m + from, r.off + r.len - from, MS_SYNC))
        fail_errno(x, f, "msync");
    f->map_dirty = f->map_dirty || !sync;
    map_put(x, f, m);
    file_check_stat(x, f);
}

/* ---- past the cache ---- */

void op_direct_read(struct exerciser *x, struct xfile *f)
{
    struct range r = pick_range(x, f, true);
    note(x, f, "direct-read", r.off, r.len, 0);
    int fd = file_open_again(x, f, O_RDONLY | O_DIRECT);
    check_read(x, f, "direct read", pread(fd, x->buf, r.len, (off_t)r.off), r);
    close(fd);
}

void op_direct_write(struct exerciser *x, struct xfile *f)
{
    struct range r = pick_range(x, f, true);
    note(x, f, "direct-write", r.off, r.len, 0);
    pattern(x->buf, x->op, r.off, r.len);
    int fd = file_open_again(x, f, O_WRONLY | O_DIRECT);
    check_written(x, f, "direct write", pwrite(fd, x->buf, r.len, (off_t)r.off), r);
    if (close(fd))
        fail_errno(x, f, "close after a direct write");
}

void op_fsync(struct exerciser *x, struct xfile *f)
{
    note(x, f, "fsync", 0, 0, 0);
    if (fsync(f->fd))
        fail_errno(x, f, "fsync");
}

void op_fdatasync(struct exerciser *x, struct xfile *f)
{
    note(x, f, "fdatasync", 0, 0, 0);
    if (fdatasync(f->append_fd))
        fail_errno(x, f, "fdatasync");
}
