/* A FUSE pass-through to a local directory: what FUSE itself costs on this machine, the yardstick
 * beside which tests/bench/run puts replfs. High-level libfuse, file handles kept as descriptors,
 * the same request size (1 MiB) and default kernel caching; no cleverness beyond that.
 *
 *   bench_passthrough SOURCE MOUNTPOINT [FUSE OPTIONS]
 *
 * Failure modes: every error is the local file system's own errno. Threads: libfuse's. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int root_fd;

static const char *rel(const char *path)
{
    return path[1] ? path + 1 : ".";
}

static int result(long r)
{
    return r < 0 ? -errno : 0;
}

static void *pass_init(struct fuse_conn_info *conn, struct fuse_config *cfg)
{
    conn->max_write = 1 << 20;
    conn->want |= conn->capable & (FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE);
    cfg->use_ino = 1;
    cfg->nullpath_ok = 1;
    return NULL;
}

static int pass_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    if (fi)
        return result(fstat((int)fi->fh, st));
    return result(fstatat(root_fd, rel(path), st, AT_SYMLINK_NOFOLLOW));
}

static int pass_readlink(const char *path, char *out, size_t size)
{
    ssize_t n = readlinkat(root_fd, rel(path), out, size - 1);
    if (n < 0)
        return -errno;
    out[n] = 0;
    return 0;
}

static int pass_opendir(const char *path, struct fuse_file_info *fi)
{
    int fd = openat(root_fd, rel(path), O_RDONLY | O_DIRECTORY);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    fi->fh = (uintptr_t)d;
    return d ? 0 : -errno;
}

static int pass_readdir(const char *path, void *out, fuse_fill_dir_t fill, off_t off,
                        struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
    DIR *d = (DIR *)(uintptr_t)fi->fh;
    (void)path;
    seekdir(d, off);
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(d);
        if (!e)
            return -errno;
        struct stat st = {.st_ino = e->d_ino, .st_mode = (mode_t)DTTOIF(e->d_type)};
        enum fuse_fill_dir_flags f = 0;
        if ((flags & FUSE_READDIR_PLUS) &&
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            f = FUSE_FILL_DIR_PLUS;
        if (fill(out, e->d_name, &st, telldir(d), f))
            return 0;
    }
}

static int pass_releasedir(const char *path, struct fuse_file_info *fi)
{
    (void)path;
    closedir((DIR *)(uintptr_t)fi->fh);
    return 0;
}

static int pass_mknod(const char *path, mode_t mode, dev_t dev)
{
    return result(mknodat(root_fd, rel(path), mode, dev));
}
static int pass_mkdir(const char *path, mode_t mode)
{
    return result(mkdirat(root_fd, rel(path), mode));
}
static int pass_unlink(const char *path)
{
    return result(unlinkat(root_fd, rel(path), 0));
}
static int pass_rmdir(const char *path)
{
    return result(unlinkat(root_fd, rel(path), AT_REMOVEDIR));
}
static int pass_symlink(const char *to, const char *path)
{
    return result(symlinkat(to, root_fd, rel(path)));
}
static int pass_rename(const char *from, const char *to, unsigned flags)
{
    return result(renameat2(root_fd, rel(from), root_fd, rel(to), flags));
}
static int pass_link(const char *from, const char *to)
{
    return result(linkat(root_fd, rel(from), root_fd, rel(to), 0));
}
static int pass_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    return result(fi ? fchmod((int)fi->fh, mode) : fchmodat(root_fd, rel(path), mode, 0));
}
static int pass_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
    (void)fi;
    return result(fchownat(root_fd, rel(path), uid, gid, AT_SYMLINK_NOFOLLOW));
}
static int pass_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    if (fi)
        return result(ftruncate((int)fi->fh, size));
    int fd = openat(root_fd, rel(path), O_WRONLY);
    if (fd < 0)
        return -errno;
    int r = result(ftruncate(fd, size));
    close(fd);
    return r;
}
static int pass_utimens(const char *path, const struct timespec tv[2], struct fuse_file_info *fi)
{
    return result(fi ? futimens((int)fi->fh, tv)
                     : utimensat(root_fd, rel(path), tv, AT_SYMLINK_NOFOLLOW));
}
static int open_with(const char *path, int flags, mode_t mode, struct fuse_file_info *fi)
{
    int fd = openat(root_fd, rel(path), flags & ~(O_NOFOLLOW | O_DIRECT), mode);
    fi->fh = (uint64_t)fd;
    fi->keep_cache = 1;
    return fd < 0 ? -errno : 0;
}
static int pass_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
    return open_with(path, fi->flags | O_CREAT, mode, fi);
}
static int pass_open(const char *path, struct fuse_file_info *fi)
{
    return open_with(path, fi->flags, 0, fi);
}
static int pass_read_buf(const char *path, struct fuse_bufvec **out, size_t size, off_t off,
                         struct fuse_file_info *fi)
{
    struct fuse_bufvec *v = malloc(sizeof *v);
    (void)path;
    if (!v)
        return -ENOMEM;
    *v = FUSE_BUFVEC_INIT(size);
    v->buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
    v->buf[0].fd = (int)fi->fh;
    v->buf[0].pos = off;
    *out = v;
    return 0;
}
static int pass_write_buf(const char *path, struct fuse_bufvec *in, off_t off,
                          struct fuse_file_info *fi)
{
    struct fuse_bufvec v = FUSE_BUFVEC_INIT(fuse_buf_size(in));
    (void)path;
    v.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
    v.buf[0].fd = (int)fi->fh;
    v.buf[0].pos = off;
    return (int)fuse_buf_copy(&v, in, FUSE_BUF_SPLICE_NONBLOCK);
}
static int pass_statfs(const char *path, struct statvfs *st)
{
    (void)path;
    return result(fstatvfs(root_fd, st));
}
static int pass_release(const char *path, struct fuse_file_info *fi)
{
    (void)path;
    close((int)fi->fh);
    return 0;
}
static int pass_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
    (void)path;
    return result(datasync ? fdatasync((int)fi->fh) : fsync((int)fi->fh));
}

static const struct fuse_operations ops = {
    .init = pass_init,
    .getattr = pass_getattr,
    .readlink = pass_readlink,
    .opendir = pass_opendir,
    .readdir = pass_readdir,
    .releasedir = pass_releasedir,
    .mknod = pass_mknod,
    .mkdir = pass_mkdir,
    .unlink = pass_unlink,
    .rmdir = pass_rmdir,
    .symlink = pass_symlink,
    .rename = pass_rename,
    .link = pass_link,
    .chmod = pass_chmod,
    .chown = pass_chown,
    .truncate = pass_truncate,
    .utimens = pass_utimens,
    .create = pass_create,
    .open = pass_open,
    .read_buf = pass_read_buf,
    .write_buf = pass_write_buf,
    .statfs = pass_statfs,
    .release = pass_release,
    .fsync = pass_fsync,
};

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s SOURCE MOUNTPOINT [FUSE OPTIONS]\n", argv[0]);
        return 64;
    }
    root_fd = open(argv[1], O_RDONLY | O_DIRECTORY);
    if (root_fd < 0) {
        fprintf(stderr, "%s: %s: %s\n", argv[0], argv[1], strerror(errno));
        return 1;
    }
    argv[1] = argv[0];
    umask(0);
    return fuse_main(argc - 1, argv + 1, &ops, NULL);
}
