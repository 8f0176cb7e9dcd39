/* names: the files that metad's names are copied to.
 *
 * Each file is DIR/names/copy-GENERATION, 0600 in a folder 0700: file names are personal data, and whoever may read
 * these files reads them all. A file begins with the checkpoint's pieces, and log entries follow as metad applies
 * them. Two whole generations are kept, the newest, and the one under way; what is superseded is removed when a newer
 * one is whole. The bytes count as used on their disk.
 *
 * Files are read in full once, when they are first asked for after a start: the end of a write that a crash
 * interrupted, or anything behind the first damage, is cut when the next bytes come; a file without a header is removed. Whatever metad sends is checked
 * before it is written (checksums, order, cluster), and goes to the end of the file that metad means, or nowhere.
 *
 * Failure modes: a full disk leaves a whole file as it was: older names are better than none. Any other error of the
 * disk gives up the file, metad begins another one, on another disk if there is one with more room. A directory that is of another cluster is left alone.
 *
 * Thread context: threads that may block; everything under n->mu. */
#include "names.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/lock.h"
#include "base/log.h"

#define LOG_MODULE "names"
#define KEEP_WHOLE 2u
#define GET_MAX (1u << 20)

struct names_stored {
    struct names_copy c;
    struct disk *disk;
    int fd;
    uint64_t on_disk; /* bytes of the file, which may end in what is not good */
};
struct names {
    struct disks *disks;
    struct lock mu;
    bool scanned;
    uint64_t term; /* of the last put */
    size_t n;
    struct names_stored v[NAMES_FILES_MAX]; /* newest first */
};

struct names *names_new(struct disks *disks)
{
    struct names *n = calloc(1, sizeof(*n));

    if (!n)
        abort();
    n->disks = disks;
    lock_init(&n->mu, LOCK_CHUNKD_NAMES);
    return n;
}

void names_free(struct names *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->n; i++)
        close(n->v[i].fd);
    lock_destroy(&n->mu);
    free(n);
}

/* ---- the list; mu held ---- */

static bool newer(const struct names_copy *a, const struct names_copy *b)
{
    return a->term != b->term ? a->term > b->term : a->generation > b->generation;
}

static struct names_stored *add_file(struct names *n, const struct names_stored *f)
{
    size_t at = 0;

    while (at < n->n && newer(&n->v[at].c, &f->c))
        at++;
    memmove(&n->v[at + 1], &n->v[at], (n->n - at) * sizeof(n->v[0]));
    n->v[at] = *f;
    n->n++;
    return &n->v[at];
}

static void file_path(char out[PATH_MAX], const struct disk *disk, uint64_t generation)
{
    snprintf(out, PATH_MAX, "%s/names/copy-%016" PRIu64, disk_dir(disk), generation);
}

static void count_bytes(struct names *n)
{
    for (size_t d = 0; d < disks_count(n->disks); d++) {
        struct disk *disk = disks_at(n->disks, d);
        uint64_t sum = 0;
        for (size_t i = 0; i < n->n; i++)
            sum += n->v[i].disk == disk ? n->v[i].on_disk : 0;
        disk_set_extra(disk, sum);
    }
}

static void remove_at(struct names *n, size_t i)
{
    char path[PATH_MAX];

    file_path(path, n->v[i].disk, n->v[i].c.generation);
    if (unlink(path) < 0 && errno != ENOENT)
        log_warn("%s cannot be removed: %s", path, strerror(errno));
    close(n->v[i].fd);
    memmove(&n->v[i], &n->v[i + 1], (--n->n - i) * sizeof(n->v[0]));
}

static struct names_stored *find_file(struct names *n, uint64_t generation)
{
    for (size_t i = 0; i < n->n; i++)
        if (n->v[i].c.generation == generation)
            return &n->v[i];
    return NULL;
}

/* Leaves the newest whole ones and `keep`. */
static void prune(struct names *n, uint64_t keep)
{
    unsigned whole = 1;

    for (size_t i = 0; i < n->n;) {
        bool stays = n->v[i].c.generation == keep || (n->v[i].c.track.whole && whole < KEEP_WHOLE);
        if (n->v[i].c.generation != keep && stays)
            whole++;
        if (stays)
            i++;
        else
            remove_at(n, i);
    }
}

/* ---- what is there after a start ---- */

/* What a power cut leaves of a file that was just begun: no header, or the place for one. */
static bool is_blank(int fd)
{
    uint8_t head[NAMES_HEADER];
    ssize_t len = pread(fd, head, sizeof(head), 0);

    if (len < 0)
        return false;
    for (ssize_t i = 0; i < len && len == (ssize_t)sizeof(head); i++)
        if (head[i] != 0)
            return false;
    return true;
}

static void scan_file(struct names *n, struct disk *disk, uint64_t generation, const char *cluster)
{
    char path[PATH_MAX];
    struct names_stored f = {.disk = disk, .c = {.generation = generation}};
    struct names_header h;
    struct stat st;
    const char *why;

    file_path(path, disk, generation);
    f.fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (f.fd < 0 || fstat(f.fd, &st) < 0) {
        log_warn("%s cannot be opened: %s", path, strerror(errno));
        if (f.fd >= 0)
            close(f.fd);
        return;
    }
    int rc = names_file_read(f.fd, &h, &f.c.track, &f.c.size, &why, NULL, NULL);
    if (rc == 0 && h.generation != generation)
        rc = -ERR_CORRUPT;
    if (rc == 0 && strcmp(h.cluster, cluster) != 0)
        rc = -ERR_WRONG_CLUSTER;
    if (rc == -ERR_CORRUPT && is_blank(f.fd)) {
        log_info("%s was begun and never written: removed", path);
        unlink(path);
        close(f.fd);
        return;
    }
    if (rc != 0 || n->n == NAMES_FILES_MAX) {
        log_warn("%s is left alone: %s", path, rc == 0 ? "there are too many" : err_str(rc));
        close(f.fd);
        return;
    }
    if (why)
        log_warn("%s is good up to byte %" PRIu64 " of %" PRIu64 ": %s", path, f.c.size,
                 (uint64_t)st.st_size, why);
    f.c.term = h.term;
    f.on_disk = (uint64_t)st.st_size;
    add_file(n, &f);
}

static void scan_disk(struct names *n, struct disk *disk, const char *cluster)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/names", disk_dir(disk));
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        uint64_t generation;
        int end = 0;
        if (sscanf(e->d_name, "copy-%16" SCNu64 "%n", &generation, &end) == 1 && end == 21 &&
            e->d_name[end] == 0)
            scan_file(n, disk, generation, cluster);
    }
    closedir(d);
}

static void scan(struct names *n)
{
    char cluster[40];

    lock_assert_held(&n->mu);
    if (n->scanned)
        return;
    n->scanned = true;
    disks_identity(n->disks, cluster);
    for (size_t i = 0; i < disks_count(n->disks); i++)
        if (!disk_failed(disks_at(n->disks, i)))
            scan_disk(n, disks_at(n->disks, i), cluster);
    count_bytes(n);
}

/* ---- put ---- */

/* All records of data may come next: track goes on to where they lead. */
static int check_records(struct names_track *track, const uint8_t *data, size_t len,
                         const char **why)
{
    for (size_t at = 0; at < len;) {
        struct names_record r;
        int rc = names_record_open(data + at, len - at, &r, why);
        if (rc == 0)
            rc = names_track_add(track, &r, why);
        if (rc == NAMES_MORE)
            *why = "a record breaks off";
        if (rc != 0)
            return -ERR_PROTOCOL;
        at += NAMES_RECORD + r.len;
    }
    return 0;
}

static int write_at(int fd, const uint8_t *p, size_t len, uint64_t at)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return 0;
}

static int sync_folder(const char *path)
{
    CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* A new, empty file in its place, durable as a name. */
static int create_file(struct names_stored *f)
{
    char path[PATH_MAX], folder[PATH_MAX];

    snprintf(folder, sizeof(folder), "%s/names", disk_dir(f->disk));
    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return -errno;
    file_path(path, f->disk, f->c.generation);
    unlink(path);
    f->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->fd < 0)
        return -errno;
    int rc = sync_folder(folder);
    return rc == 0 ? sync_folder(disk_dir(f->disk)) : rc;
}

/* Checks the header that begins p's bytes, and makes the file. */
static int begin_file(struct names *n, const struct names_put *p, struct names_stored **out,
                      const char **why)
{
    struct names_header h;
    struct names_stored f = {.fd = -1};
    char cluster[40];

    int rc = names_header_open(p->data, p->len, &h, why);
    if (rc != 0)
        return -ERR_PROTOCOL;
    disks_identity(n->disks, cluster);
    if (strcmp(h.cluster, cluster) != 0)
        return -ERR_WRONG_CLUSTER;
    if (h.generation != p->generation || p->at != 0) {
        *why = "another generation in the header";
        return -ERR_PROTOCOL;
    }
    f.c = (struct names_copy){.generation = h.generation, .term = h.term};
    names_track_begin(&f.c.track, &h);
    for (size_t i = n->n; i > 0; i--) /* what never got whole, or has this number */
        if (!n->v[i - 1].c.track.whole || n->v[i - 1].c.generation == h.generation)
            remove_at(n, i - 1);
    while (n->n >= NAMES_FILES_MAX)
        remove_at(n, n->n - 1);
    count_bytes(n);
    f.disk = disks_roomiest(n->disks, p->expect);
    if (!f.disk)
        return -ENOSPC;
    rc = create_file(&f);
    if (rc == 0)
        *out = add_file(n, &f);
    else if (f.fd >= 0)
        close(f.fd);
    return rc;
}

/* Behind the checks: the bytes go to the file's end. */
static int store_bytes(struct names_stored *f, const struct names_put *p)
{
    int rc = 0;

    if (f->on_disk > f->c.size && ftruncate(f->fd, (off_t)f->c.size) < 0)
        rc = -errno;
    f->on_disk = f->c.size + p->len; /* should it break off: cut next time */
    if (rc == 0)
        rc = write_at(f->fd, p->data, p->len, f->c.size);
    if (rc == 0 && p->sync && fdatasync(f->fd) < 0)
        rc = -errno;
    return rc;
}

static bool is_full(int rc)
{
    return rc == -ENOSPC || rc == -EDQUOT || rc == -EFBIG;
}

/* Nothing of p is in f: -ENOSPC when f stays, else it is given up. */
static int put_failed(struct names *n, struct names_stored *f, const struct names_put *p, int rc)
{
    bool stays = is_full(rc) && f->c.track.whole;

    if (stays && ftruncate(f->fd, (off_t)f->c.size) == 0)
        f->on_disk = f->c.size;
    if (!stays) {
        log_warn("copy %" PRIu64 " of the names is given up: %s", p->generation, err_str(rc));
        remove_at(n, (size_t)(f - n->v));
    }
    count_bytes(n);
    return is_full(rc) ? -ENOSPC : rc;
}

static int put_locked(struct names *n, const struct names_put *p, struct names_copy *out,
                      const char **why)
{
    struct names_stored *f = find_file(n, p->generation);
    int rc = 0;

    if (p->begin)
        rc = begin_file(n, p, &f, why);
    else if (!f || f->c.size != p->at)
        rc = -ERR_OFFSET;
    if (rc != 0)
        return rc;
    struct names_track track = f->c.track;
    size_t head = p->begin ? NAMES_HEADER : 0;
    bool was_whole = track.whole;
    rc = check_records(&track, p->data + head, p->len - head, why);
    if (rc == 0) {
        rc = store_bytes(f, p);
        if (rc != 0)
            return put_failed(n, f, p, rc);
        f->c.track = track;
        f->c.size += p->len;
        f->on_disk = f->c.size;
    }
    *out = f->c;
    if (rc == 0 && track.whole && !was_whole)
        prune(n, p->generation);
    count_bytes(n);
    return rc;
}

int names_put(struct names *n, const struct names_put *p, struct names_copy *out, const char **why)
{
    *why = NULL;
    LOCK_SCOPE(&n->mu);
    scan(n);
    if (p->term < n->term)
        return -ERR_OLD_TERM;
    n->term = p->term;
    return put_locked(n, p, out, why);
}

int names_drop(struct names *n, uint64_t term)
{
    LOCK_SCOPE(&n->mu);
    scan(n);
    if (term < n->term)
        return -ERR_OLD_TERM;
    n->term = term;
    while (n->n > 0)
        remove_at(n, n->n - 1);
    count_bytes(n);
    return 0;
}

/* ---- get ---- */

size_t names_list(struct names *n, struct names_copy out[NAMES_FILES_MAX])
{
    LOCK_SCOPE(&n->mu);
    scan(n);
    for (size_t i = 0; i < n->n; i++)
        out[i] = n->v[i].c;
    return n->n;
}

int names_get(struct names *n, uint64_t generation, uint64_t offset, struct buf **out,
              uint64_t *size)
{
    LOCK_SCOPE(&n->mu);
    scan(n);
    const struct names_stored *f = find_file(n, generation);
    *out = NULL;
    if (!f)
        return -ENOENT;
    *size = f->c.size;
    uint64_t left = offset < f->c.size ? f->c.size - offset : 0;
    struct buf *b = buf_new(GET_MAX);
    b->len = left < GET_MAX ? (size_t)left : GET_MAX;
    for (size_t got = 0; got < b->len;) {
        ssize_t k = pread(f->fd, b->data + got, b->len - got, (off_t)(offset + got));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            int rc = k < 0 ? -errno : -EIO;
            buf_unref(b);
            return rc;
        }
        got += (size_t)k;
    }
    *out = b;
    return 0;
}
