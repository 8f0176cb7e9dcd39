/* Names and open files.
 *
 * Each file has two descriptors that stay open over many operations (read-write and appending) and
 * now and then a shared mapping. A file may lose its name, by unlink or by a rename of the other
 * file over it, and is then used on through its descriptors; closing it ends it, and the next open
 * makes an empty one. With two mounts all files are closed at one mount before they are opened at
 * the other: what close-to-open promises is then checked exactly.
 *
 * The modification time may never go back. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "exerciser.h"

void file_path(struct exerciser *x, const struct xfile *f, char *out, size_t size)
{
    snprintf(out, size, "%s/%s", x->o.dirs[x->mount], f->name);
}

/* The directory for a change of names: with two mounts, names also change behind the back of the
 * mount that has the files open. */
static const char *names_dir(struct exerciser *x)
{
    bool other = x->o.mounts > 1 && one_in(x, 3);
    return x->o.dirs[other ? !x->mount : x->mount];
}

static void new_name(struct exerciser *x, const struct xfile *f, char *out)
{
    snprintf(out, NAME_BYTES, "exerciser-%llu-%c.%u", (unsigned long long)x->o.seed,
             'a' + (int)(f - x->file), ++x->serial);
}

void file_open(struct exerciser *x, struct xfile *f)
{
    char path[4096];
    bool fresh = !f->name[0];
    if (fresh) {
        new_name(x, f, f->name);
        model_resize(f, 0);
        f->mtime = (struct timespec){0};
    }
    file_path(x, f, path, sizeof path);
    f->fd = open(path, O_RDWR | O_CLOEXEC | (fresh ? O_CREAT | O_EXCL : 0), 0644);
    if (f->fd < 0)
        fail_errno(x, f, "open");
    f->append_fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (f->append_fd < 0)
        fail_errno(x, f, "open to append");
}

void file_close(struct exerciser *x, struct xfile *f)
{
    if (f->map && munmap(f->map, x->o.size))
        fail_errno(x, f, "munmap");
    f->map = NULL;
    f->map_dirty = false;
    if (f->fd >= 0 && close(f->fd))
        fail_errno(x, f, "close");
    if (f->append_fd >= 0 && close(f->append_fd))
        fail_errno(x, f, "close");
    f->fd = f->append_fd = -1;
}

int file_open_again(struct exerciser *x, struct xfile *f, int flags)
{
    char path[4096];
    if (f->name[0])
        file_path(x, f, path, sizeof path);
    else
        snprintf(path, sizeof path, "/proc/self/fd/%d", f->fd);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        fail_errno(x, f, flags & O_DIRECT ? "open for direct I/O" : "open once more");
    return fd;
}

static bool earlier(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

void file_check_stat(struct exerciser *x, struct xfile *f)
{
    struct stat st;
    if (fstat(f->fd, &st))
        fail_errno(x, f, "fstat");
    if ((uint64_t)st.st_size != f->size)
        fail(x, "%s: fstat says %lld bytes, expected %llu", f->name, (long long)st.st_size,
             (unsigned long long)f->size);
    if (st.st_nlink != (f->name[0] ? 1u : 0u))
        fail(x, "%s: fstat says %u links", f->name, (unsigned)st.st_nlink);
    if (earlier(&st.st_mtim, &f->mtime))
        fail(x, "%s: the modification time went back from %lld.%09ld to %lld.%09ld", f->name,
             (long long)f->mtime.tv_sec, f->mtime.tv_nsec, (long long)st.st_mtim.tv_sec,
             st.st_mtim.tv_nsec);
    f->mtime = st.st_mtim;
}

void file_check_all(struct exerciser *x, struct xfile *f, int fd, const char *how)
{
    uint64_t got = 0;
    for (;;) { /* one byte more than there should be */
        ssize_t n = pread(fd, x->buf + got, f->size + 1 - got, (off_t)got);
        if (n < 0)
            fail_errno(x, f, how);
        if (!n)
            break;
        got += (uint64_t)n;
        if (got > f->size)
            break;
    }
    if (got != f->size)
        fail(x, "%s: %s: %llu bytes%s, expected %llu", f->name, how, (unsigned long long)got,
             got > f->size ? " or more" : "", (unsigned long long)f->size);
    model_check(x, f, how, x->buf, 0, got);
}

/* ---- operations ---- */

void op_reopen(struct exerciser *x, struct xfile *f)
{
    note(x, f, "reopen", 0, 0, 0);
    file_close(x, f);
    file_open(x, f);
    file_check_stat(x, f);
}

void op_rename(struct exerciser *x, struct xfile *f)
{
    char from[4096], to[4096], name[NAME_BYTES];
    const char *dir = names_dir(x);
    note(x, f, "rename", dir != x->o.dirs[x->mount], 0, 0);
    if (!f->name[0])
        return;
    new_name(x, f, name);
    snprintf(from, sizeof from, "%s/%s", dir, f->name);
    snprintf(to, sizeof to, "%s/%s", dir, name);
    if (rename(from, to))
        fail_errno(x, f, "rename");
    memcpy(f->name, name, sizeof name);
}

void op_rename_over(struct exerciser *x, struct xfile *f)
{
    char from[4096], to[4096];
    const char *dir = names_dir(x);
    struct xfile *other = &x->file[f == x->file];
    note(x, f, "rename-over", dir != x->o.dirs[x->mount], 0, 0);
    if (!f->name[0] || !other->name[0])
        return;
    snprintf(from, sizeof from, "%s/%s", dir, f->name);
    snprintf(to, sizeof to, "%s/%s", dir, other->name);
    if (rename(from, to))
        fail_errno(x, f, "rename over the other file");
    memcpy(f->name, other->name, sizeof f->name);
    other->name[0] = '\0';
    file_check_stat(x, other);
}

void op_unlink(struct exerciser *x, struct xfile *f)
{
    char path[4096];
    const char *dir = names_dir(x);
    note(x, f, "unlink", dir != x->o.dirs[x->mount], 0, 0);
    if (!f->name[0])
        return;
    snprintf(path, sizeof path, "%s/%s", dir, f->name);
    if (unlink(path))
        fail_errno(x, f, "unlink");
    f->name[0] = '\0';
    file_check_stat(x, f);
}

void op_stat(struct exerciser *x, struct xfile *f)
{
    note(x, f, "stat", 0, 0, 0);
    file_check_stat(x, f);
}

void op_check(struct exerciser *x, struct xfile *f)
{
    note(x, f, "check", 0, 0, 0);
    int fd = file_open_again(x, f, O_RDONLY);
    file_check_all(x, f, fd, "read of the whole file by a new handle");
    close(fd);
}

/* Drops what the kernel has cached: of this file, or, rarely, of all. */
void op_forget(struct exerciser *x, struct xfile *f)
{
    bool all = one_in(x, 4);
    note(x, f, "forget", all, 0, 0);
    int fd = all ? open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        if (write(fd, "3", 1) != 1)
            fail_errno(x, f, "drop_caches");
        close(fd);
    } else {
        posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
    }
}

/* Goes on at the other mount, where both files must be what they are. */
void op_switch(struct exerciser *x, struct xfile *f)
{
    bool whole = one_in(x, 4);
    note(x, f, "switch", 0, 0, 0);
    if (x->o.mounts < 2)
        return;
    for (unsigned i = 0; i < FILES; i++)
        file_close(x, &x->file[i]);
    x->mount = !x->mount;
    for (unsigned i = 0; i < FILES; i++) {
        file_open(x, &x->file[i]);
        file_check_stat(x, &x->file[i]);
        if (whole)
            file_check_all(x, &x->file[i], x->file[i].fd,
                           "read of the whole file by the other mount");
    }
}
