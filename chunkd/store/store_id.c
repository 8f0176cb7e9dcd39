/* The identity of a data directory: replfs.id, a small text file that says which cluster, which
 * chunkd and which of its disks the directory belongs to.
 *
 *   replfs disk 1
 *   cluster 01234567-89ab-cdef-0123-456789abcdef
 *   chunkd 3
 *   disk 0
 *   crc 89abcdef
 *
 * The first line names the format and its version; crc is the CRC32C of the lines above it. The
 * file is written once (temporary file, fsync, link, fsync of the directory) and never changed: a
 * disk that moved to another cluster or another daemon is refused instead of mixing their chunks.
 *
 * Until a new disk has an identity, an empty file replfs.new says that a person wants it to become one
 * (replfs-chunkd --init): a directory with neither is no disk of ours, but most likely the place where
 * one should be mounted, so nothing is ever written there.
 */
#include "store.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/error.h"
#define LOG_MODULE "store"
#include "base/log.h"

#define ID_VERSION 1
#define ID_MAX 512
#define NEW_NAME "replfs.new"

static int id_damaged(const char *dir, const char *what)
{
    log_error(
        "%s/replfs.id is damaged (%s). It names the cluster and chunkd that this disk belongs "
        "to, so the disk is not used. Restore the file from a backup, or take the disk out of "
        "the configuration and let its chunks be repaired from their other copies",
        dir, what);
    return -ERR_CORRUPT;
}

static int id_parse(const char *dir, char *text, size_t len, struct store_id *out)
{
    unsigned version;
    text[len] = 0;
    if (sscanf(text, "replfs disk %u\n", &version) != 1)
        return id_damaged(dir, "the first line is not 'replfs disk VERSION'");
    char *crc_line = strstr(text, "\ncrc ");
    if (!crc_line)
        return id_damaged(dir, "no crc line at its end");
    char want[32];
    snprintf(want, sizeof(want), "\ncrc %08x\n", crc32c(0, text, (size_t)(crc_line + 1 - text)));
    if (strcmp(crc_line, want))
        return id_damaged(dir, "the crc does not match");
    if (version > ID_VERSION) {
        log_error(
            "%s/replfs.id has format %u, this program knows up to %d: a newer replfs used this "
            "disk. Install that version again",
            dir, version, ID_VERSION);
        return -ERR_VERSION;
    }
    memset(out, 0, sizeof(*out));
    if (sscanf(text, "replfs disk %u cluster %39s chunkd %" SCNu32 " disk %" SCNu32, &version,
               out->cluster, &out->chunkd, &out->disk) != 4 ||
        version != ID_VERSION)
        return id_damaged(dir, "cluster, chunkd or disk is missing");
    return 0;
}

int store_id_read(const char *dir, struct store_id *out)
{
    char path[4096], text[ID_MAX + 1];
    if (snprintf(path, sizeof(path), "%s/replfs.id", dir) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, ID_MAX);
    if (n < 0)
        return -errno;
    if (memchr(text, 0, (size_t)n))
        return id_damaged(dir, "it holds zero bytes");
    return id_parse(dir, text, (size_t)n, out);
}

static int id_same(const struct store_id *a, const struct store_id *b)
{
    return !strcmp(a->cluster, b->cluster) && a->chunkd == b->chunkd && a->disk == b->disk;
}

static int write_whole(int fd, const char *text, size_t len)
{
    ssize_t n = write(fd, text, len);
    if (n < 0)
        return -errno;
    if ((size_t)n != len)
        return -ENOSPC;
    return fsync(fd) ? -errno : 0;
}

int store_id_write(const char *dir, const struct store_id *id)
{
    struct store_id have;
    int rc = store_id_read(dir, &have);
    if (rc != -ENOENT)
        return rc ? rc : id_same(&have, id) ? 0 : -EEXIST;
    if (!id->cluster[0] || strpbrk(id->cluster, " \t\n") || strlen(id->cluster) > 39)
        return -EINVAL;

    char text[ID_MAX];
    int len = snprintf(text, sizeof(text), "replfs disk %d\ncluster %s\nchunkd %u\ndisk %u\n",
                       ID_VERSION, id->cluster, id->chunkd, id->disk);
    len += snprintf(text + len, sizeof(text) - (size_t)len, "crc %08x\n",
                    crc32c(0, text, (size_t)len));
    CLEANUP(close_fdp) int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return -errno;
    unlinkat(dirfd, "replfs.id.new", 0);
    CLEANUP(close_fdp)
    int fd = openat(dirfd, "replfs.id.new", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    rc = write_whole(fd, text, (size_t)len);
    /* link() instead of rename(): it never replaces an identity that appeared meanwhile. */
    if (!rc && linkat(dirfd, "replfs.id.new", dirfd, "replfs.id", 0))
        rc = -errno;
    unlinkat(dirfd, "replfs.id.new", 0);
    if (!rc && unlinkat(dirfd, NEW_NAME, 0) && errno != ENOENT)
        rc = -errno;
    if (!rc && fsync(dirfd))
        rc = -errno;
    return rc;
}

/* ---- new disks ---- */

static int make_dirs(const char *dir)
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof(path), "%s", dir) >= sizeof(path))
        return -ENAMETOOLONG;
    for (char *p = path + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(path, 0755) != 0 && errno != EEXIST)
            return -errno;
        *p = '/';
    }
    return mkdir(path, 0700) != 0 && errno != EEXIST ? -errno : 0;
}

int store_id_fresh(const char *dir)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/" NEW_NAME, dir) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    struct stat st;
    return lstat(path, &st) ? -errno : 0;
}

/* What a new disk may hold: nothing but what mkfs or an earlier --init left. */
static int check_empty(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return -errno;
    int rc = 0;
    struct dirent *e;
    while (!rc && (e = readdir(d))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
            !strcmp(e->d_name, "lost+found") || !strcmp(e->d_name, NEW_NAME))
            continue;
        log_error("%s is not empty (it holds %s), so it is not made a new disk: give an empty "
                  "directory",
                  dir, e->d_name);
        rc = -ENOTEMPTY;
    }
    closedir(d);
    return rc;
}

int store_id_init(const char *dir)
{
    struct store_id have;
    int rc = make_dirs(dir);
    if (rc == 0)
        rc = store_id_read(dir, &have);
    if (rc == 0) {
        log_error("%s is disk %u of chunkd %u, cluster %s, already: leave it out to make only new "
                  "disks",
                  dir, have.disk, have.chunkd, have.cluster);
        return -EEXIST;
    }
    if (rc == -ENOENT)
        rc = check_empty(dir);
    if (rc)
        return rc;
    CLEANUP(close_fdp) int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return -errno;
    CLEANUP(close_fdp) int fd = openat(dirfd, NEW_NAME, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    return fd < 0 || fsync(fd) || fsync(dirfd) ? -errno : 0;
}
