/*
 * tools: making, reading and removing files for the cases.
 *
 * Owns nothing. Whatever fails here while the scene is set counts as a failed assertion and ends the case, since nothing
 * after it would mean anything.
 */
#include "tests/conform/engine.h"

#include <dirent.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

const char *const conform_kinds[K_KINDS] = {"nothing",        "file",        "directory",
                                            "full directory", "symlink",     "fifo",
                                            "socket",         "char device", "block device"};

void put(const char *path, const char *text)
{
    int fd = (int)DO(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    size_t n = strlen(text);
    if (n && DO(write(fd, text, n)) != (long long)n)
        conform_stop();
    DO(close(fd));
}

void put_as(const char *path, mode_t mode, const struct conform_user *owner)
{
    int fd = (int)DO(open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (owner)
        DO(fchown(fd, owner->uid, owner->gid));
    DO(fchmod(fd, mode));
    DO(close(fd));
}

void dir_as(const char *path, mode_t mode, const struct conform_user *owner)
{
    DO(mkdir(path, 0700));
    if (owner)
        DO(chown(path, owner->uid, owner->gid));
    DO(chmod(path, mode));
}

struct stat st_of(const char *path)
{
    struct stat st;
    DO(lstat(path, &st));
    return st;
}

struct stat st_fd(int fd)
{
    struct stat st;
    DO(fstat(fd, &st));
    return st;
}

bool there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

int shut(int fd)
{
    if (fd < 0)
        return fd;
    return close(fd);
}

int get(const char *path, char *buffer, size_t size)
{
    int fd = (int)DO(open(path, O_RDONLY | O_CLOEXEC));
    size_t n = 0;
    while (n < size - 1) {
        ssize_t r = (ssize_t)DO(read(fd, buffer + n, size - 1 - n));
        if (r == 0)
            break;
        n += (size_t)r;
    }
    buffer[n] = 0;
    close(fd);
    return (int)n;
}

bool holds(const char *path, const char *text)
{
    char b[8192];
    size_t n = (size_t)get(path, b, sizeof(b));
    return n == strlen(text) && !memcmp(b, text, n);
}

char *filled(size_t length, char with)
{
    static char text[8192];
    if (length >= sizeof(text))
        abort();
    memset(text, with, length);
    text[length] = 0;
    return text;
}

mode_t mode_of(const char *path)
{
    return st_of(path).st_mode & 07777;
}

int nlink_of(const char *path)
{
    return (int)st_of(path).st_nlink;
}

long long size_of(const char *path)
{
    return st_of(path).st_size;
}

void conform_make(enum conform_kind kind, const char *path)
{
    char in[512];
    switch (kind) {
    case K_FILE:
        put(path, "file");
        break;
    case K_FULL_DIR:
        DO(mkdir(path, 0755));
        snprintf(in, sizeof(in), "%s/in", path);
        put(in, "in");
        break;
    case K_DIR:
        DO(mkdir(path, 0755));
        break;
    case K_LINK:
        DO(symlink("no such target", path));
        break;
    case K_FIFO:
        DO(mkfifo(path, 0644));
        break;
    case K_SOCKET:
        DO(mknod(path, S_IFSOCK | 0644, 0));
        break;
    case K_CHAR:
        DO(mknod(path, S_IFCHR | 0644, makedev(1, 3)));
        break;
    case K_BLOCK:
        DO(mknod(path, S_IFBLK | 0644, makedev(7, 77)));
        break;
    case K_NONE:
    case K_KINDS:
        break;
    }
}

enum conform_kind conform_kind_at(const char *path)
{
    struct stat st;
    if (lstat(path, &st))
        return K_NONE;
    switch (st.st_mode & S_IFMT) {
    case S_IFREG:
        return K_FILE;
    case S_IFDIR:
        return K_DIR;
    case S_IFLNK:
        return K_LINK;
    case S_IFIFO:
        return K_FIFO;
    case S_IFSOCK:
        return K_SOCKET;
    case S_IFCHR:
        return K_CHAR;
    case S_IFBLK:
        return K_BLOCK;
    default:
        return K_KINDS;
    }
}

/* Relative to open directories, so that trees deeper than PATH_MAX go too. */
static void remove_at(int at, const char *name)
{
    if (unlinkat(at, name, 0) == 0 || errno != EISDIR)
        return;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    while (d && (e = readdir(d)))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            remove_at(fd, e->d_name);
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
    unlinkat(at, name, AT_REMOVEDIR);
}

void conform_remove(const char *path)
{
    remove_at(AT_FDCWD, path);
}

void conform_to_peer(void)
{
    char here[4096], there_too[8192];
    if (!conform_peer)
        return;
    size_t n = strlen(conform_top);
    if (!getcwd(here, sizeof(here)) || strncmp(here, conform_top, n)) {
        conform_check(__LINE__, false, "the folder's path", conform_top, "%s", here);
        conform_stop();
    }
    snprintf(there_too, sizeof(there_too), "%s%s", conform_peer, here + n);
    DO(chdir(there_too));
}

const char *conform_elsewhere(void)
{
    static const char *const folders[] = {"/dev/shm", "/run", "/tmp", "/var/tmp"};
    struct stat here = st_of("."), st;
    for (size_t i = 0; i < COUNT(folders); i++)
        if (!stat(folders[i], &st) && S_ISDIR(st.st_mode) && st.st_dev != here.st_dev)
            return folders[i];
    conform_check(__LINE__, false, "a folder on another file system", "one", "none");
    conform_stop();
}
