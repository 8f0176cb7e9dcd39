/* Keeping a data directory to its owner. Anyone who reads chunks from a data directory has been asked for no
 * permission, and anyone who writes there owns the cluster: so directories are 0700 and files 0600, whatever the
 * umask, an installer or a restored backup made of them. What is wider is mended, and said; what cannot be
 * mended is refused. On a file system that is read-only nothing is mended, and nobody can write. */
#include "private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "log.h"

#define LOG_MODULE "private"
#define OTHERS (S_IRWXG | S_IRWXO)

/* 0, 1: mended, or -errno. */
static int mend(int fd, const char *dir, mode_t mode)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!(st.st_mode & OTHERS))
        return 0;
    if (fchmod(fd, mode) == 0)
        return 1;
    if (errno == EROFS)
        return 0;
    int rc = -errno;
    log_error("%s or a file in it is open to other users (mode %03o) and cannot be closed: %s; "
              "give it to "
              "the user that runs the daemon (chown -R) and close it (chmod -R go=)",
              dir, (unsigned)st.st_mode & 0777, err_str(rc));
    return rc;
}

static bool ours(const char *name, const char *const *names)
{
    for (; *names; names++) {
        if (!strncmp(name, *names, strlen(*names)))
            return true;
    }
    return false;
}

/* Files (and one level of directories) of dirfd that are ours; names NULL: all are. Counts what was mended. */
static int mend_files(int dirfd, const char *dir, const char *const *names, unsigned *mended)
{
    int rc = 0, copy = dup(dirfd);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    const struct dirent *e;

    if (!d) {
        rc = -errno;
        if (copy >= 0)
            close(copy);
        return rc;
    }
    rewinddir(d);
    while (rc >= 0 && (e = readdir(d))) {
        if (e->d_name[0] == '.' || (names && !ours(e->d_name, names)))
            continue;
        CLEANUP(close_fdp)
        int fd = openat(dirfd, e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) < 0)
            continue; /* the one that needs the file says so */
        if (S_ISDIR(st.st_mode) && names)
            rc = mend_files(fd, dir, NULL, mended);
        if (rc >= 0 && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)))
            rc = mend(fd, dir, S_ISDIR(st.st_mode) ? 0700 : 0600);
        *mended += rc == 1;
    }
    closedir(d);
    return rc < 0 ? rc : 0;
}

int private_dir(const char *dir, const char *const *names)
{
    CLEANUP(close_fdp) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    unsigned files = 0;

    if (fd < 0)
        return -errno;
    int self = mend(fd, dir, 0700);
    int rc = self < 0 ? self : mend_files(fd, dir, names, &files);
    if (rc == 0 && self > 0 && files == 0)
        log_info("%s was open to other users: closed", dir);
    else if (rc == 0 && files > 0)
        log_warn("%s was open to other users (the directory%s, %u files in it): closed", dir,
                 self > 0 ? "" : " not", files);
    return rc;
}

FILE *private_create(const char *path)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return NULL;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (!f && fd >= 0)
        close(fd);
    return f;
}

int private_replace(const char *dir, const char *name, const void *bytes, size_t len)
{
    char tmp[NAME_MAX + 1];
    if ((size_t)snprintf(tmp, sizeof(tmp), "%s.new", name) >= sizeof(tmp))
        return -ENAMETOOLONG;
    CLEANUP(close_fdp) int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return -errno;
    CLEANUP(close_fdp)
    int fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, bytes, len);
    if (n != (ssize_t)len)
        return n < 0 ? -errno : -ENOSPC;
    if (fsync(fd) || renameat(dirfd, tmp, dirfd, name) || fsync(dirfd))
        return -errno;
    return 0;
}
