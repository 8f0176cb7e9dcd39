/* A data directory from a state file and entries, as if a metad had just taken a checkpoint and cut its log:
 *
 *   checkpoint-I        the state file
 *   log/snapshot-T-S-0  libraft's snapshot: our descriptor of I, with the entries I+1..S as its tail
 *   log/snapshot-T-S-0.meta  its configuration: one voter
 *   log/metadata1       libraft's term, no vote
 *   hwm                 the high-water mark, at S
 *   replfs.id           last: without it nothing starts here
 *
 * The term is that of a new life of the cluster (names_file.h): what chunkds were told before must not be newer than
 * what we tell them. The last entry is made here: it says that there are no other metads (those of the copy's table are
 * of the former life, and libraft knows nothing of them). libraft's files are written here byte by byte (it has no
 * call for them without a running engine); mlog_check reads them back, as at each start. */
#include "mlog_build.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/byteorder.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "entry.h"
#include "mlog_internal.h"
#include "names_file.h"

#define LOG_MODULE "mlog"
#define RAFT_FORMAT 1u
#define RAFT_VOTER_ROLE 1u

struct mlog_build {
    char *dir;
    int lock_fd, fd; /* fd: of the state file */
    uint64_t index, size;
    uint32_t crc;
    uint8_t *desc; /* room for its header, then the tail */
    size_t len, cap;
    uint64_t last;
};

void mlog_build_free(struct mlog_build *b)
{
    if (!b)
        return;
    if (b->fd >= 0)
        close(b->fd);
    if (b->lock_fd >= 0)
        close(b->lock_fd);
    free(b->desc);
    free(b->dir);
    free(b);
}

static int build_check_empty(const char *dir)
{
    DIR *d = opendir(dir);
    int rc = 0;

    if (!d)
        return -errno;
    for (struct dirent *e; rc == 0 && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            strcmp(e->d_name, "lock") != 0 && strcmp(e->d_name, "lost+found") != 0) {
            log_error("%s holds '%s': give an empty or missing directory with --data (what an "
                      "attempt before this one left may be removed when there is no replfs.id)",
                      dir, e->d_name);
            rc = -ENOTEMPTY;
        }
    closedir(d);
    return rc;
}

static int build_start(struct mlog_build *b)
{
    char path[MLOG_PATH];
    int rc = mlog_dir_lock(b->dir, &b->lock_fd);

    if (rc == 0)
        rc = build_check_empty(b->dir);
    if (rc == 0)
        rc = mlog_ckpt_path(path, sizeof(path), b->dir, b->index);
    if (rc != 0)
        return rc;
    b->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (b->fd < 0) {
        rc = -errno;
        log_error("%s: cannot be made: %s", path, err_str(rc));
    }
    return rc;
}

int mlog_build_begin(const char *dir, uint64_t index, struct mlog_build **out)
{
    struct mlog_build *b = calloc(1, sizeof(*b));

    *out = NULL;
    if (!b || !(b->dir = strdup(dir)))
        abort();
    b->fd = b->lock_fd = -1;
    b->index = b->last = index;
    b->len = MLOG_DESC_HEADER;
    int rc = mkdir(dir, 0700) < 0 && errno != EEXIST ? -errno : 0;
    if (rc != 0)
        log_error("%s: cannot be made: %s", dir, err_str(rc));
    else
        rc = build_start(b);
    if (rc != 0) {
        mlog_build_free(b);
        return rc;
    }
    *out = b;
    return 0;
}

static int write_full(int fd, const void *data, size_t len)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

int mlog_build_state(struct mlog_build *b, const void *p, size_t len)
{
    b->crc = crc32c(b->crc, p, len);
    b->size += len;
    return write_full(b->fd, p, len);
}

int mlog_build_entry(struct mlog_build *b, uint64_t index, const void *p, size_t len,
                     const char **why)
{
    struct entry e;
    int rc = entry_open(p, len, &e, why);

    if (rc == 0 && (e.index != index || index <= b->last)) {
        *why = "entry belongs to another place of the log";
        rc = -ERR_CORRUPT;
    }
    if (rc != 0)
        return rc;
    size_t need = b->len + MLOG_TAIL_HEADER + len;
    if (need > b->cap) {
        b->cap = 2 * need;
        b->desc = realloc(b->desc, b->cap);
        if (!b->desc)
            abort();
    }
    uint8_t *at = b->desc + b->len;
    le_put64(at, index);
    le_put32(at + 8, (uint32_t)len);
    le_put32(at + 12, 0);
    memcpy(at + MLOG_TAIL_HEADER, p, len);
    b->len = need;
    b->last = index;
    return 0;
}

/* ---- libraft's files ---- */

static uint32_t build_raft_crc(const uint8_t *p, size_t len)
{
    uint32_t crc = 0;

    for (size_t i = 0; i < len; i++) {
        crc ^= (uint32_t)p[i] << 24;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc << 1) ^ ((crc & 0x80000000u) != 0 ? 0x04c11db7u : 0);
    }
    return crc;
}

/* how: O_EXCL for a new file, or O_TRUNC. */
static int put_file_as(const char *dir, const char *name, int how, const void *p, size_t len)
{
    char path[MLOG_PATH];
    int rc = mlog_dir_path(path, dir, name);

    if (rc != 0)
        return rc;
    CLEANUP(close_fdp) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | how, 0600);
    if (fd < 0)
        return -errno;
    rc = write_full(fd, p, len);
    return rc == 0 && fsync(fd) < 0 ? -errno : rc;
}

static int put_file(const char *dir, const char *name, const void *p, size_t len)
{
    return put_file_as(dir, name, O_EXCL, p, len);
}

/* libraft's term, without a vote: odd versions are in metadata1, even ones in metadata2. */
static int put_term(const char *log_dir, uint64_t version, uint64_t term)
{
    uint8_t p[32];

    le_put64(p, RAFT_FORMAT);
    le_put64(p + 8, version);
    le_put64(p + 16, term);
    le_put64(p + 24, 0);
    return put_file_as(log_dir, version % 2 == 1 ? "metadata1" : "metadata2", O_TRUNC, p,
                       sizeof(p));
}

/* format, checksum, index and length of the configuration; it: version, count, {id, address, role}, padding */
static int put_meta(const char *log_dir, const char *name)
{
    char addr[32];
    uint8_t p[128] = {0};

    mlog_server_addr(addr, MLOG_FIRST_ID);
    size_t len = strlen(addr) + 1, conf = (1 + 8 + 8 + len + 1 + 7) / 8 * 8;

    le_put64(p, RAFT_FORMAT);
    le_put64(p + 16, 1);
    le_put64(p + 24, conf);
    uint8_t *c = p + 32;
    c[0] = 1;
    le_put64(c + 1, 1);
    le_put64(c + 9, MLOG_FIRST_ID);
    memcpy(c + 17, addr, len);
    c[17 + len] = RAFT_VOTER_ROLE;
    le_put64(p + 8, build_raft_crc(p + 16, 16 + conf));
    return put_file(log_dir, name, p, 32 + conf);
}

static int put_log(struct mlog_build *b, uint64_t term)
{
    char log_dir[MLOG_PATH], name[96], meta[112];
    const struct mlog_desc d = {b->index, b->size, b->crc, NULL, b->len - MLOG_DESC_HEADER};

    int rc = mlog_dir_path(log_dir, b->dir, "log");
    if (rc == 0 && mkdir(log_dir, 0700) < 0)
        rc = -errno;
    if (rc != 0)
        return rc;
    if (!b->desc && !(b->desc = malloc(MLOG_DESC_HEADER)))
        abort();
    mlog_desc_make(&d, b->desc);
    snprintf(name, sizeof(name), "snapshot-%" PRIu64 "-%" PRIu64 "-0", term, b->last);
    snprintf(meta, sizeof(meta), "%s.meta", name);
    rc = put_meta(log_dir, meta);
    if (rc == 0)
        rc = put_file(log_dir, name, b->desc, b->len);
    if (rc == 0)
        rc = put_term(log_dir, 1, term);
    return rc == 0 ? mlog_dir_sync(log_dir) : rc;
}

/* The entry behind all that came: this metad is the only one. */
static int put_alone(struct mlog_build *b)
{
    Replfs__MetadOp metad = REPLFS__METAD_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    uint8_t packed[128], buf[256];
    const char *why;

    metad.id = MLOG_FIRST_ID;
    metad.alone = true;
    op.op_case = REPLFS__META_OP__OP_METAD;
    op.metad = &metad;
    cmd.op = &op;
    cmd.time_ns = clock_wall();
    size_t len = replfs__command__get_packed_size(&cmd);
    assert(len <= sizeof(packed) && entry_size(1, len) <= sizeof(buf));
    replfs__command__pack(&cmd, packed);
    size_t size =
        entry_finish(buf, entry_put(buf, ENTRY_HEADER, packed, len), 1, b->last + 1, ENTRY_VERSION);
    return mlog_build_entry(b, b->last + 1, buf, size, &why);
}

static int put_mark(const char *dir, uint64_t index, uint64_t term)
{
    struct mlog_hwm hwm;
    int rc = mlog_hwm_open(&hwm, dir, true);

    if (rc != 0)
        return rc;
    rc = mlog_hwm_advance(&hwm, index, term);
    mlog_hwm_sync(&hwm);
    mlog_hwm_close(&hwm);
    return rc;
}

int mlog_build_finish(struct mlog_build *b, const char *uuid, uint64_t term)
{
    struct mlog_stored stored;

    int rc = fsync(b->fd) < 0 ? -errno : put_alone(b);
    if (rc == 0)
        rc = put_log(b, term);
    if (rc == 0)
        rc = put_mark(b->dir, b->last, term);
    if (rc == 0)
        rc = mlog_check(b->dir, false, &stored);
    if (rc == 0)
        rc = mlog_dir_write_id(b->dir, uuid, MLOG_FIRST_ID);
    if (rc != 0)
        log_error("%s: the data directory cannot be made: %s", b->dir, err_str(rc));
    return rc;
}

/* ---- a directory that is there goes on ---- */

int mlog_new_life(const char *dir, char uuid[static 37], uint64_t *term)
{
    struct mlog_stored stored = {0};
    char log_dir[MLOG_PATH];
    uint64_t id;
    CLEANUP(close_fdp) int lock = -1;
    int rc = mlog_dir_read_id(dir, uuid, &id);

    if (rc == 0)
        rc = mlog_dir_lock(dir, &lock);
    if (rc == 0)
        rc = mlog_check(dir, id != MLOG_FIRST_ID, &stored);
    if (rc == 0)
        rc = mlog_dir_path(log_dir, dir, "log");
    if (rc == 0 && stored.version == 0) {
        log_error("%s: the log of this metad is empty: it has joined nobody yet", dir);
        rc = -EINVAL;
    }
    if (rc != 0)
        return rc;
    *term = names_next_life(stored.term, clock_wall() / NSEC_PER_SEC);
    rc = put_term(log_dir, stored.version + 1, *term);
    return rc == 0 ? mlog_dir_sync(log_dir) : rc;
}
