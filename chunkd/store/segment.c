/* Segment files and the table of them.
 *
 * The table is a sorted array under a rwlock: lookups are a binary search, changes (a new segment,
 * a removed one) are rare. Segments are created by the writer thread, removed by the maintenance
 * thread after a grace period, so a pointer that a reader got inside a read section stays valid
 * until it leaves.
 *
 * Descriptors: a disk of 10 TB has 40,000 segments, the process perhaps 1,024 descriptors. A segment is
 * open while somebody holds it (pins) or until its descriptor is wanted for another, least recently used
 * first. Holding an open one is two atomic steps: a thread that closes takes the descriptor out first, and puts it
 * back when it sees a pin; one that holds sets the pin first, and opens it, under fd_lock, when there is none.
 * One that this process has written to stays open until it is synced, since a write error is told to the
 * descriptors that were open then.
 *
 * Failure modes: a header that cannot be trusted is rewritten after a log line, since the file's
 * name gives the number and every record carries a CRC bound to disk, segment and position; a
 * header that is whole but names another disk or a newer format stops the start. */
#include "segment.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/lock.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/byteorder.h"
#define LOG_MODULE "store"
#include "base/log.h"

static const char segment_magic[8] = "RFSEGMT";
static _Atomic size_t open_now; /* segments of all disks that are open */

static void header_make(const struct segments *t, uint64_t id, uint8_t *h)
{
    memset(h, 0, SEGMENT_HEADER);
    memcpy(h, segment_magic, 8);
    le_put32(h + 8, SEGMENT_VERSION);
    le_put32(h + 12, SEGMENT_HEADER);
    le_put64(h + 16, id);
    le_put64(h + 24, (uint64_t)clock_wall());
    memcpy(h + 32, t->id.cluster, sizeof(t->id.cluster));
    le_put32(h + 72, t->id.chunkd);
    le_put32(h + 76, t->id.disk);
    le_put32(h + 124, crc32c(0, h, 124));
}

static int header_write(const struct segments *t, struct segment *sg)
{
    uint8_t h[SEGMENT_HEADER];
    header_make(t, sg->id, h);
    ssize_t n = pwrite(sg->fd, h, sizeof(h), 0);
    sg->wrote = true;
    sg->unsynced = true;
    return n == (ssize_t)sizeof(h) ? 0 : n < 0 ? -errno : -ENOSPC;
}

/* 0; -ERR_CORRUPT when the header is damaged; -ERR_VERSION, -ERR_WRONG_CLUSTER when it must not be
 * used. */
static int header_check(const struct segments *t, const struct segment *sg, const uint8_t *h)
{
    if (memcmp(h, segment_magic, 8) || le_get32(h + 124) != crc32c(0, h, 124))
        return -ERR_CORRUPT;
    if (le_get32(h + 8) > SEGMENT_VERSION) {
        log_error(
            "%s/%s has segment format %u, this program knows up to %u: a newer replfs wrote it. "
            "Install that version again",
            t->dir, sg->name, le_get32(h + 8), SEGMENT_VERSION);
        return -ERR_VERSION;
    }
    if (le_get64(h + 16) != sg->id || memcmp(h + 32, t->id.cluster, sizeof(t->id.cluster)) ||
        le_get32(h + 72) != t->id.chunkd || le_get32(h + 76) != t->id.disk) {
        log_error(
            "%s/%s belongs to segment %" PRIx64 " of cluster %.40s, chunkd %u, disk %u, but the "
            "directory's replfs.id says cluster %s, chunkd %u, disk %u. Move the file to where "
            "it came from",
            t->dir, sg->name, le_get64(h + 16), (const char *)h + 32, le_get32(h + 72),
            le_get32(h + 76), t->id.cluster, t->id.chunkd, t->id.disk);
        return -ERR_WRONG_CLUSTER;
    }
    return 0;
}

static int header_load(struct segments *t, struct segment *sg)
{
    uint8_t h[SEGMENT_HEADER];
    int rc = segment_read(sg, h, sizeof(h), 0);
    if (!rc)
        rc = header_check(t, sg, h);
    if (rc != -ERR_CORRUPT || t->readonly)
        return rc == -ERR_CORRUPT ? 0 : rc;
    log_error(
        "%s/%s: the segment's header is damaged or incomplete; it is written anew, the records "
        "behind it are checked one by one",
        t->dir, sg->name);
    rc = header_write(t, sg);
    if (!rc && sg->size < SEGMENT_HEADER)
        sg->size = SEGMENT_HEADER;
    return rc;
}

static int table_add(struct segments *t, struct segment *sg)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 16;
        struct segment **v = realloc(t->v, cap * sizeof(*v));
        if (!v)
            return -ENOMEM;
        t->v = v;
        t->cap = cap;
    }
    size_t i = t->n++;
    for (; i > 0 && t->v[i - 1]->id > sg->id; i--)
        t->v[i] = t->v[i - 1];
    t->v[i] = sg;
    if (sg->id >= t->next_id)
        t->next_id = sg->id + 1;
    return 0;
}

static void segment_free(struct segment *sg)
{
    if (!sg)
        return;
    if (sg->fd >= 0) {
        close(sg->fd);
        atomic_fetch_sub(&open_now, 1);
    }
    free(sg);
}

static struct segment *segment_new(struct segments *t, uint64_t id)
{
    struct segment *sg = calloc(1, sizeof(*sg));
    if (!sg)
        return NULL;
    sg->id = id;
    sg->table = t;
    sg->fd = -1;
    sg->row_dirty = true;
    snprintf(sg->name, sizeof(sg->name), "seg-%016" PRIx64 ".log", id);
    return sg;
}

/* ---- descriptors ---- */

bool segment_no_fd(int code)
{
    return code == -EMFILE || code == -ENFILE;
}

static size_t open_limit(void)
{
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) || rl.rlim_cur == RLIM_INFINITY)
        return SIZE_MAX;
    return rl.rlim_cur / 2;
}

/* Closes the one that was not used for longest. False: all are in use. fd_lock held. */
static bool close_one(struct segments *t)
{
    lock_assert_held(&t->fd_lock);
    struct segment *best = NULL;
    rwlock_read(&t->lock);
    for (size_t i = 0; i < t->n; i++) {
        struct segment *sg = t->v[i];
        if (sg->fd >= 0 && sg->pins == 0 && !(sg->wrote && sg->unsynced) &&
            (!best || sg->used < best->used))
            best = sg;
    }
    bool closed = false;
    int fd = best ? atomic_exchange(&best->fd, -1) : -1;
    if (fd >= 0 && best->pins == 0) {
        close(fd);
        atomic_fetch_sub(&open_now, 1);
        closed = true;
    } else if (fd >= 0) {
        best->fd = fd; /* somebody came between */
    }
    rwlock_release(&t->lock);
    return closed;
}

/* fd_lock held. */
static int open_file(struct segments *t, const char *name, int flags)
{
    lock_assert_held(&t->fd_lock);
    while (open_now >= open_limit() && close_one(t))
        ;
    int fd;
    while ((fd = openat(t->dirfd, name, flags | O_CLOEXEC, 0600)) < 0)
        if (!segment_no_fd(-errno) || !close_one(t))
            return -errno;
    atomic_fetch_add(&open_now, 1);
    return fd;
}

static int open_flags(const struct segments *t)
{
    return t->readonly ? O_RDONLY : O_RDWR;
}

static int hold_closed(struct segment *sg)
{
    struct segments *t = sg->table;
    LOCK_SCOPE(&t->fd_lock);
    int fd = sg->fd;
    if (fd >= 0)
        return fd; /* opened, or put back, meanwhile */
    fd = open_file(t, sg->name, open_flags(t));
    if (fd >= 0)
        sg->fd = fd;
    return fd;
}

int segment_hold(struct segment *sg)
{
    atomic_fetch_add(&sg->pins, 1);
    int fd = sg->fd;
    if (fd < 0)
        fd = hold_closed(sg);
    if (fd < 0)
        segment_drop(sg);
    else if (sg->table)
        sg->used = atomic_fetch_add_explicit(&sg->table->uses, 1, memory_order_relaxed);
    return fd;
}

void segment_drop(struct segment *sg)
{
    atomic_fetch_sub(&sg->pins, 1);
}

static int open_new_file(struct segments *t, struct segment *sg, int flags)
{
    LOCK_SCOPE(&t->fd_lock);
    int fd = open_file(t, sg->name, flags);
    if (fd < 0)
        return fd;
    sg->fd = fd;
    sg->used = t->uses++;
    return 0;
}

static int open_one(struct segments *t, uint64_t id)
{
    struct segment *sg = segment_new(t, id);
    if (!sg)
        return -ENOMEM;
    struct stat st;
    int rc = open_new_file(t, sg, open_flags(t));
    if (!rc && fstat(sg->fd, &st))
        rc = -errno;
    if (rc) {
        log_error("%s/%s: cannot open the segment: %s", t->dir, sg->name, err_str(rc));
    } else {
        sg->size = (uint64_t)st.st_size;
        segment_update_alloc(sg);
        sg->unsynced = true; /* the former process may not have synced it */
        rc = header_load(t, sg);
    }
    if (!rc)
        rc = table_add(t, sg);
    if (rc)
        segment_free(sg);
    return rc;
}

int segments_open(struct segments *t, const char *dir, const struct store_id *id, bool readonly)
{
    memset(t, 0, sizeof(*t));
    t->dirfd = -1;
    t->readonly = readonly;
    rwlock_init(&t->lock, LOCK_SEGMENTS, false);
    lock_init(&t->fd_lock, LOCK_SEGMENT_FD);
    t->id = *id;
    t->base = record_base(id->cluster, id->chunkd, id->disk);
    t->next_id = 1;
    if (snprintf(t->dir, sizeof(t->dir), "%s", dir) >= (int)sizeof(t->dir))
        return -ENAMETOOLONG;
    t->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->dirfd < 0)
        return -errno;
    DIR *d = opendir(dir);
    if (!d)
        return -errno;
    int rc = 0;
    struct dirent *e;
    while (!rc && (e = readdir(d))) {
        uint64_t n;
        int end = 0;
        if (sscanf(e->d_name, "seg-%16" SCNx64 ".log%n", &n, &end) != 1 || !end || e->d_name[end])
            continue;
        char name[32];
        snprintf(name, sizeof(name), "seg-%016" PRIx64 ".log", n);
        if (!strcmp(name, e->d_name) && n > 0 && n < UINT32_MAX)
            rc = open_one(t, n);
    }
    closedir(d);
    return rc;
}

void segments_close(struct segments *t)
{
    for (size_t i = 0; i < t->n; i++)
        segment_free(t->v[i]);
    free(t->v);
    t->v = NULL;
    t->n = t->cap = 0;
    if (t->dirfd >= 0)
        close(t->dirfd);
    t->dirfd = -1;
    rwlock_destroy(&t->lock);
    lock_destroy(&t->fd_lock);
}

/* Position of the first segment with an id >= id. Caller holds the lock. */
static size_t table_pos(const struct segments *t, uint64_t id)
{
    size_t lo = 0, hi = t->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (t->v[mid]->id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct segment *segments_find(struct segments *t, uint64_t id)
{
    rwlock_read(&t->lock);
    size_t i = table_pos(t, id);
    struct segment *sg = i < t->n && t->v[i]->id == id ? t->v[i] : NULL;
    rwlock_release(&t->lock);
    return sg;
}

struct segment *segments_last(struct segments *t)
{
    rwlock_read(&t->lock);
    struct segment *sg = t->n ? t->v[t->n - 1] : NULL;
    rwlock_release(&t->lock);
    return sg;
}

bool segments_any(struct segments *t, uint64_t lo, uint64_t hi)
{
    rwlock_read(&t->lock);
    size_t i = table_pos(t, lo);
    bool any = i < t->n && t->v[i]->id <= hi;
    rwlock_release(&t->lock);
    return any;
}

int segments_create(struct segments *t, struct segment **out)
{
    struct segment *sg = segment_new(t, t->next_id);
    if (!sg)
        return -ENOMEM;
    int rc = open_new_file(t, sg, O_RDWR | O_CREAT | O_EXCL);
    if (!rc)
        rc = header_write(t, sg);
    if (!rc) {
        t->dir_unsynced = true;
        sg->size = SEGMENT_HEADER;
        segment_update_alloc(sg);
        rwlock_write(&t->lock);
        rc = table_add(t, sg);
        rwlock_release(&t->lock);
    }
    if (rc) {
        if (sg->fd >= 0)
            unlinkat(t->dirfd, sg->name, 0);
        segment_free(sg);
        return rc;
    }
    *out = sg;
    return 0;
}

int segments_remove(struct segments *t, struct segment *sg)
{
    if (unlinkat(t->dirfd, sg->name, 0) && errno != ENOENT)
        return -errno;
    rwlock_write(&t->lock);
    size_t i = table_pos(t, sg->id);
    if (i < t->n && t->v[i] == sg) {
        memmove(t->v + i, t->v + i + 1, (t->n - i - 1) * sizeof(*t->v));
        t->n--;
    }
    rwlock_release(&t->lock);
    segment_free(sg);
    return 0;
}

int segments_each(struct segments *t, int (*fn)(void *arg, struct segment *sg), void *arg)
{
    rwlock_read(&t->lock);
    size_t n = t->n;
    struct segment **v = malloc((n + 1) * sizeof(*v));
    if (v && n)
        memcpy(v, t->v, n * sizeof(*v));
    rwlock_release(&t->lock);
    if (!v)
        return -ENOMEM;
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = fn(arg, v[i]);
    free(v);
    return rc;
}

uint64_t segments_alloc(struct segments *t)
{
    uint64_t sum = 0;
    rwlock_read(&t->lock);
    for (size_t i = 0; i < t->n; i++)
        sum += t->v[i]->alloc;
    rwlock_release(&t->lock);
    return sum;
}

uint64_t segments_dead(struct segments *t)
{
    uint64_t sum = 0;
    rwlock_read(&t->lock);
    for (size_t i = 0; i < t->n; i++) {
        uint64_t alloc = t->v[i]->alloc, live = t->v[i]->live;
        sum += alloc > live ? alloc - live : 0;
    }
    rwlock_release(&t->lock);
    return sum;
}

void segment_update_alloc(struct segment *sg)
{
    struct stat st;
    if (!fstatat(sg->table->dirfd, sg->name, &st, AT_SYMLINK_NOFOLLOW))
        sg->alloc = (uint64_t)st.st_blocks * 512;
}

void segment_zero_ahead(struct segment *sg, uint64_t end, uint64_t to)
{
    static uint8_t zeros[64u << 10];
    uint64_t pos = sg->zeroed > end ? sg->zeroed : end;
    while (pos < to) {
        size_t len = to - pos < sizeof(zeros) ? (size_t)(to - pos) : sizeof(zeros);
        ssize_t n = pwrite(sg->fd, zeros, len, (off_t)pos);
        if (n <= 0)
            return;
        sg->wrote = true;
        pos += (uint64_t)n;
        sg->zeroed = pos;
    }
}

void segment_cut_ahead(struct segment *sg)
{
    if (sg->zeroed > sg->size && ftruncate(sg->fd, (off_t)sg->size))
        log_warn("%s: cannot cut the zeros behind offset %llu: %s", sg->name,
                 (unsigned long long)sg->size, err_str(-errno));
    sg->zeroed = 0;
}

int segment_read(struct segment *sg, void *p, size_t len, uint64_t pos)
{
    uint8_t *b = p;
    int fd = segment_hold(sg), rc = 0;
    if (fd < 0)
        return fd;
    while (len > 0 && !rc) {
        ssize_t n = pread(fd, b, len, (off_t)pos);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = n < 0 ? -errno : -ERR_CORRUPT;
            break;
        }
        b += n;
        len -= (size_t)n;
        pos += (uint64_t)n;
    }
    segment_drop(sg);
    return rc;
}

static int punch_hole(struct segments *t, int fd, uint64_t from, uint64_t to)
{
    if (!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)))
        return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return -errno;
    if (!atomic_exchange(&t->no_punch, true))
        log_warn("%s: this file system cannot punch holes; space of deleted chunks comes back "
                 "when whole segments are rewritten",
                 t->dir);
    return 0;
}

int segment_punch(struct segments *t, struct segment *sg, uint32_t pos, uint32_t len)
{
    if (len < RECORD_FIXED || t->no_punch)
        return 0;
    const uint64_t block = 4096;
    uint64_t end = (uint64_t)pos + len;
    uint64_t from = (pos + RECORD_FIXED + block - 1) / block * block, to = end / block * block;
    if (from >= to)
        return 0;
    struct record dead = {.type = RECORD_DEAD, .len = len - RECORD_FIXED};
    uint8_t h[RECORD_FIXED];
    record_encode(&dead, record_seed(t->base, sg->id, pos), h);
    int fd = segment_hold(sg);
    if (fd < 0)
        return fd;
    ssize_t n = pwrite(fd, h, sizeof(h), pos);
    int rc = n == (ssize_t)sizeof(h) ? punch_hole(t, fd, from, to) : n < 0 ? -errno : -EIO;
    segment_drop(sg);
    return rc;
}
