/* The metad's data directory: who it belongs to, who uses it now, and how it comes into being.
 *
 *   replfs.id         text: format, cluster UUID, server id, checksum. Written last by --init, so a
 *                     directory with it is complete; never changed afterwards
 *   lock              flock'ed by the running process
 *   hwm               mlog_hwm.c
 *   log/              libraft's segments and snapshots
 *   checkpoint-INDEX  mlog_ckpt.c
 *   disks             nodes_disks.c; made when missing
 *   cap.key, replaced of earlier versions, see agree.c
 *
 * A crash in the middle of --init leaves a directory without replfs.id and a log with nothing but
 * the bootstrap entry; --init then starts over. Anything more without a replfs.id is refused:
 * somebody lost a file, and making a new cluster would destroy the old one. Any thread; nothing
 * here is called once the log thread runs. */
#include "mlog_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "base/private.h"

#define LOG_MODULE "mlog"
#define LOCK_PATIENCE_NS                                                                           \
    (3 * NSEC_PER_SEC) /* a checkpoint child of a killed metad dies within moments */

int mlog_dir_path(char out[MLOG_PATH], const char *dir, const char *name)
{
    int n = snprintf(out, MLOG_PATH, "%s/%s", dir, name);

    return n > 0 && (size_t)n < MLOG_PATH ? 0 : -ENAMETOOLONG;
}

int mlog_dir_sync(const char *dir)
{
    CLEANUP(close_fdp) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return -errno;
    return 0;
}

int mlog_dir_read(const char *path, uint8_t **data, size_t *len)
{
    CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    *data = NULL;
    *len = 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    uint8_t *p = malloc((size_t)st.st_size + 1);
    if (!p)
        return -ENOMEM;
    size_t got = 0;
    while (got < (size_t)st.st_size) {
        ssize_t n = read(fd, p + got, (size_t)st.st_size - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int code = -errno;
            free(p);
            return code;
        }
        if (n == 0)
            break;
        got += (size_t)n;
    }
    p[got] = 0;
    *data = p;
    *len = got;
    return 0;
}

/* ---- replfs.id ---- */

/* One that joined (not metad 1) is of a format that versions without --join refuse. */
int mlog_dir_write_id(const char *dir, const char *uuid, uint64_t id)
{
    char text[256];
    int n = snprintf(text, sizeof(text),
                     "replfs-metad data directory\nformat %u\ncluster %s\nserver %" PRIu64 "\n",
                     id == MLOG_FIRST_ID ? MLOG_FORMAT : MLOG_FORMAT_JOINED, uuid, id);
    n += snprintf(text + n, sizeof(text) - (size_t)n, "crc32c %08x\n", crc32c(0, text, (size_t)n));

    return private_replace(dir, "replfs.id", text, (size_t)n);
}

int mlog_dir_read_id(const char *dir, char uuid[37], uint64_t *id)
{
    char path[MLOG_PATH];
    CLEANUP(free_ptr) uint8_t *data = NULL;
    size_t len;
    unsigned format = 0, crc = 0;
    uint64_t server = 0;
    int end = 0;

    int rc = mlog_dir_path(path, dir, "replfs.id");
    if (rc == 0)
        rc = mlog_dir_read(path, &data, &len);
    if (rc == -ENOENT) {
        log_error(
            "%s: there is no cluster here (no replfs.id). To make a new one: replfs-metad --init "
            "--data %s",
            dir, dir);
        return rc;
    }
    if (rc != 0) {
        log_error("%s: cannot be read: %s", path, err_str(rc));
        return rc;
    }
    int got = sscanf((char *)data,
                     "replfs-metad data directory\nformat %u\ncluster %36s\nserver %" SCNu64 "\n%n",
                     &format, uuid, &server, &end);
    if (got >= 1 && format > MLOG_FORMAT_JOINED) {
        log_error(
            "%s: format %u is newer than this program knows (%u): start a replfs-metad at least as "
            "new as the one that wrote it",
            path, format, MLOG_FORMAT_JOINED);
        return -ERR_VERSION;
    }
    if (got != 3 || end <= 0 || sscanf((char *)data + end, "crc32c %x", &crc) != 1 ||
        crc != crc32c(0, data, (size_t)end) || strlen(uuid) != 36 || server == 0 ||
        server > UINT32_MAX) {
        log_error(
            "%s: damaged. Restore this file from a backup or from another copy of the directory",
            path);
        return -ERR_CORRUPT;
    }
    *id = server;
    return 0;
}

/* ---- lock ---- */

int mlog_dir_lock(const char *dir, int *out)
{
    static const char *const names[] = {"log",     "checkpoint-", "hwm",   "replfs.id", "lock",
                                        "cap.key", "replaced",    "disks", "metads",    NULL};
    char path[MLOG_PATH];
    int rc = mlog_dir_path(path, dir, "lock");

    *out = -1;
    if (rc != 0)
        return rc;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        rc = -errno;
        log_error("%s: cannot be opened: %s", path, err_str(rc));
        return rc;
    }
    int64_t until = clock_mono() + LOCK_PATIENCE_NS;
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (clock_mono() > until) {
            log_error(
                "%s: in use by another process: stop it first, or give this one a directory of its "
                "own with --data",
                dir);
            close(fd);
            return -ERR_LOCKED;
        }
        nanosleep(&(struct timespec){.tv_nsec = 20 * NSEC_PER_MSEC}, NULL);
    }
    rc = private_dir(dir, names);
    if (rc != 0) {
        close(fd);
        return rc;
    }
    *out = fd;
    return 0;
}

/* ---- making a cluster ---- */

static int no_transport_init(struct raft_uv_transport *t, raft_id id, const char *address)
{
    (void)t, (void)id, (void)address;
    return 0;
}

static int no_transport_listen(struct raft_uv_transport *t, raft_uv_accept_cb cb)
{
    (void)t, (void)cb;
    return 0;
}

static int no_transport_connect(struct raft_uv_transport *t, struct raft_uv_connect *req,
                                raft_id id, const char *address, raft_uv_connect_cb cb)
{
    (void)t, (void)req, (void)id, (void)address, (void)cb;
    return RAFT_NOCONNECTION;
}

static void no_transport_close(struct raft_uv_transport *t, raft_uv_transport_close_cb cb)
{
    cb(t);
}

/* A single voter has nobody to talk to: the embedded default needs no port. */
void mlog_transport_init(struct raft_uv_transport *t)
{
    memset(t, 0, sizeof(*t));
    t->version = 1;
    t->init = no_transport_init;
    t->listen = no_transport_listen;
    t->connect = no_transport_connect;
    t->close = no_transport_close;
}

static int never_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    (void)fsm, (void)buf, (void)result;
    return RAFT_MALFORMED;
}

static int never_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
    (void)fsm, (void)bufs, (void)n;
    return RAFT_BUSY;
}

static int never_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    (void)fsm, (void)buf;
    return RAFT_MALFORMED;
}

static void nothing_more(struct raft *r)
{
    (void)r;
}

static int bootstrap(const char *log_dir)
{
    struct raft_fsm fsm = {
        .version = 1, .apply = never_apply, .snapshot = never_snapshot, .restore = never_restore};
    struct raft_uv_transport transport;
    struct raft_configuration conf;
    struct raft raft;
    struct raft_io io = {.version = 1};
    uv_loop_t loop;
    char addr[32];

    mlog_server_addr(addr, MLOG_FIRST_ID);
    if (uv_loop_init(&loop) != 0)
        return -ENOMEM;
    mlog_transport_init(&transport);
    raft_configuration_init(&conf);
    int rc = raft_uv_init(&io, &loop, log_dir, &transport);
    if (rc == 0) {
        raft_uv_set_auto_recovery(&io, false);
        rc = raft_init(&raft, &io, &fsm, MLOG_FIRST_ID, addr);
        if (rc == 0) {
            rc = raft_configuration_add(&conf, MLOG_FIRST_ID, addr, RAFT_VOTER);
            if (rc == 0)
                rc = raft_bootstrap(&raft, &conf);
            raft_close(&raft, nothing_more);
            uv_run(&loop, UV_RUN_DEFAULT);
        }
        if (rc != 0)
            log_error("%s: the log cannot be made: %s", log_dir,
                      io.errmsg[0] != 0 ? io.errmsg : raft_strerror(rc));
        raft_uv_close(&io);
    }
    raft_configuration_close(&conf);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return rc == 0 ? 0 : -EIO;
}

/* Nothing in log_dir but what an interrupted --init leaves: remove it. */
static int clear_half_made_log(const char *log_dir)
{
    static const char *const ours[] = {"metadata1", "metadata2",
                                       "0000000000000001-0000000000000001"};
    DIR *d = opendir(log_dir);
    int rc = 0;

    if (!d)
        return errno == ENOENT ? 0 : -errno;
    for (int pass = 0; pass < 2 && rc == 0; pass++) {
        rewinddir(d);
        for (struct dirent *e; rc == 0 && (e = readdir(d));) {
            bool known = false;
            if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                continue;
            for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
                known = known || strcmp(e->d_name, ours[i]) == 0;
            if (pass == 0 && !known)
                rc = -ENOTEMPTY;
            else if (pass == 1 && unlinkat(dirfd(d), e->d_name, 0) < 0 && errno != ENOENT)
                rc = -errno;
        }
    }
    closedir(d);
    return rc;
}

/* Only files that --init itself makes may be there. */
static int check_empty(const char *dir)
{
    static const char *const allowed[] = {
        ".", "..", "lock", "log", "hwm", "replfs.id.tmp", "replfs.id.new", "lost+found"};
    DIR *d = opendir(dir);
    int rc = 0;

    if (!d)
        return -errno;
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        bool known = false;
        for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
            known = known || strcmp(e->d_name, allowed[i]) == 0;
        if (!known) {
            log_error("%s holds '%s': --init wants an empty or missing directory", dir, e->d_name);
            rc = -ENOTEMPTY;
        }
    }
    closedir(d);
    return rc;
}

static int make_uuid(char uuid[37])
{
    uint8_t b[16];

    if (RAND_bytes(b, sizeof(b)) != 1)
        return -EIO;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(uuid, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
    return 0;
}

/* id: that of a metad that joins the cluster uuid, whose log is empty; 0: a new cluster, uuid is made. */
static int init_locked(const char *dir, char uuid[37], uint64_t join_id)
{
    char log_dir[MLOG_PATH], id[MLOG_PATH];
    struct mlog_hwm hwm;
    int rc = mlog_dir_path(log_dir, dir, "log");

    if (rc == 0)
        rc = mlog_dir_path(id, dir, "replfs.id");
    if (rc != 0)
        return rc;
    if (access(id, F_OK) == 0) {
        log_error("%s holds a cluster already: start it without --init or --join", dir);
        return -EEXIST;
    }
    rc = check_empty(dir);
    if (rc != 0)
        return rc;
    rc = clear_half_made_log(log_dir);
    if (rc == -ENOTEMPTY)
        log_error("%s holds a log although %s/replfs.id is missing: restore that file from a "
                  "backup; --init "
                  "would destroy what is there",
                  log_dir, dir);
    if (rc != 0)
        return rc;
    if (mkdir(log_dir, 0700) < 0 && errno != EEXIST)
        return -errno;
    rc = join_id == 0 ? bootstrap(log_dir) : 0;
    if (rc == 0)
        rc = mlog_dir_sync(log_dir);
    if (rc == 0)
        rc = mlog_hwm_open(&hwm, dir, true);
    if (rc == 0) {
        mlog_hwm_sync(&hwm);
        mlog_hwm_close(&hwm);
        if (join_id == 0)
            rc = make_uuid(uuid);
    }
    return rc == 0 ? mlog_dir_write_id(dir, uuid, join_id == 0 ? MLOG_FIRST_ID : join_id) : rc;
}

static int make_dir(const char *dir, char uuid[37], uint64_t join_id)
{
    int fd;

    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        int code = -errno;
        log_error("%s: cannot be made: %s", dir, err_str(code));
        return code;
    }
    int rc = mlog_dir_lock(dir, &fd);
    if (rc != 0)
        return rc;
    rc = init_locked(dir, uuid, join_id);
    close(fd);
    if (rc != 0 && rc != -EEXIST && rc != -ENOTEMPTY)
        log_error("%s: no data directory could be made: %s", dir, err_str(rc));
    return rc;
}

bool mlog_dir_made(const char *dir)
{
    char path[MLOG_PATH];

    return mlog_dir_path(path, dir, "replfs.id") == 0 && access(path, F_OK) == 0;
}

int mlog_init_dir(const char *dir, char uuid[37])
{
    return make_dir(dir, uuid, 0);
}

int mlog_join_dir(const char *dir, const char *uuid, uint64_t id)
{
    char copy[37];

    if (strlen(uuid) != 36 || id <= MLOG_FIRST_ID || id > UINT32_MAX)
        return -EINVAL;
    memcpy(copy, uuid, sizeof(copy));
    return make_dir(dir, copy, id);
}
