/* Sizes, holes and copies: truncate, fallocate in its variants, SEEK_DATA and SEEK_HOLE, and
 * copy_file_range within a file and to the other.
 *
 * Where a file system keeps holes is its own business; that it never calls bytes a hole that were
 * written is checked. Pages written through a mapping are msync'd first: FUSE has no way to ask the
 * kernel for them. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "exerciser.h"

void op_truncate(struct exerciser *x, struct xfile *f)
{
    char path[4096];
    uint64_t size = below(x, 8) < 5 ? below(x, f->size + 1) : below(x, x->o.size + 1);
    bool by_name = one_in(x, 4) && f->name[0];
    if (one_in(x, 3))
        size -= size % PAGE;
    note(x, f, by_name ? "truncate" : "ftruncate", 0, size, 0);
    file_path(x, f, path, sizeof path);
    if (by_name ? truncate(path, (off_t)size) : ftruncate(f->fd, (off_t)size))
        fail_errno(x, f, "truncate");
    model_resize(f, size);
    file_check_stat(x, f);
}

/* ---- fallocate ---- */

static struct range allocate(struct exerciser *x, struct xfile *f, const char *what, int mode)
{
    struct range r = pick_range(x, f, false);
    note(x, f, what, r.off, r.len, 0);
    if (fallocate(f->fd, mode, (off_t)r.off, (off_t)r.len))
        fail_errno(x, f, what);
    return r;
}

void op_reserve(struct exerciser *x, struct xfile *f)
{
    struct range r = allocate(x, f, "reserve", 0);
    if (r.off + r.len > f->size)
        model_resize(f, r.off + r.len);
    file_check_stat(x, f);
}

void op_keep_size(struct exerciser *x, struct xfile *f)
{
    allocate(x, f, "keep-size", FALLOC_FL_KEEP_SIZE);
    file_check_stat(x, f);
}

void op_punch(struct exerciser *x, struct xfile *f)
{
    struct range r = allocate(x, f, "punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
    model_zero(f, r.off, r.len);
    file_check_stat(x, f);
}

void op_zero(struct exerciser *x, struct xfile *f)
{
    bool keep = one_in(x, 2);
    struct range r = allocate(x, f, keep ? "zero-keep" : "zero",
                              FALLOC_FL_ZERO_RANGE | (keep ? FALLOC_FL_KEEP_SIZE : 0));
    model_zero(f, r.off, r.len);
    if (!keep && r.off + r.len > f->size)
        model_resize(f, r.off + r.len);
    file_check_stat(x, f);
}

/* ---- copies ---- */

static void copy_overlapping(struct exerciser *x, struct xfile *f, struct range r, uint64_t to)
{
    off_t in = (off_t)r.off, out = (off_t)to;
    if (copy_file_range(f->fd, &in, f->fd, &out, r.len, 0) != -1 || errno != EINVAL)
        fail(x, "%s: copy_file_range within one file to an overlapping range is not refused",
             f->name);
}

void op_copy(struct exerciser *x, struct xfile *f)
{
    struct range r = pick_range(x, f, false);
    struct xfile *to = one_in(x, 2) ? f : &x->file[f == x->file];
    uint64_t at = pick_range(x, to, !(r.off % PAGE)).off;
    if (r.len > x->o.size - at)
        r.len = x->o.size - at;
    note(x, f, to == f ? "copy-within" : "copy-to", r.off, r.len, at);
    uint64_t have = r.off >= f->size ? 0 : f->size - r.off;
    if (to == f && at < r.off + r.len && r.off < at + r.len && have >= r.len) {
        copy_overlapping(x, f, r, at);
        return;
    }
    if (r.len > have)
        r.len = have;
    if (to == f && at < r.off + r.len && r.off < at + r.len)
        return; /* which part counts at the end of the file differs between kernels */
    off_t in = (off_t)r.off, out = (off_t)at;
    for (uint64_t left = r.len; left;) {
        ssize_t n = copy_file_range(f->fd, &in, to->fd, &out, left, 0);
        if (n < 0)
            fail_errno(x, f, "copy_file_range");
        if (!n || (uint64_t)n > left)
            fail(x, "%s: copy_file_range says %zd with %llu bytes to go", f->name, n,
                 (unsigned long long)left);
        left -= (uint64_t)n;
    }
    model_copy(to, at, f, r.off, r.len);
    file_check_stat(x, to);
}

/* ---- holes ---- */

static void check_hole(struct exerciser *x, struct xfile *f, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        if (f->model[i])
            fail(x, "%s: [%llu, %llu) is said to be a hole, but there is data at %llu", f->name,
                 (unsigned long long)from, (unsigned long long)to, (unsigned long long)i);
    }
}

void op_seek(struct exerciser *x, struct xfile *f)
{
    uint64_t pos = one_in(x, 2) ? 0 : below(x, f->size + 1);
    note(x, f, "seek", pos, 0, 0);
    if (f->map_dirty && fsync(f->fd))
        fail_errno(x, f, "fsync");
    f->map_dirty = false;
    while (pos < f->size) {
        off_t data = lseek(f->fd, (off_t)pos, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
            fail_errno(x, f, "SEEK_DATA");
        uint64_t to = data < 0 ? f->size : (uint64_t)data;
        if (to < pos || to > f->size || (data >= 0 && to == f->size))
            fail(x, "%s: SEEK_DATA from %llu of %llu went to %lld", f->name,
                 (unsigned long long)pos, (unsigned long long)f->size, (long long)data);
        check_hole(x, f, pos, to);
        if (data < 0)
            break;
        off_t hole = lseek(f->fd, data, SEEK_HOLE);
        if (hole <= data || (uint64_t)hole > f->size)
            fail(x, "%s: SEEK_HOLE from %lld of %llu went to %lld", f->name, (long long)data,
                 (unsigned long long)f->size, (long long)hole);
        pos = (uint64_t)hole;
    }
    if (lseek(f->fd, (off_t)f->size, SEEK_DATA) != -1 || errno != ENXIO)
        fail(x, "%s: SEEK_DATA at the end is not refused with ENXIO", f->name);
    if (lseek(f->fd, (off_t)f->size, SEEK_HOLE) != -1 || errno != ENXIO)
        fail(x, "%s: SEEK_HOLE at the end is not refused with ENXIO", f->name);
}
