/* Checkpoints: the whole state in a file, so that the log can be cut.
 *
 * States (log thread):
 *   IDLE    nothing under way
 *   SAVING  forked at index I: the child writes checkpoint-I.tmp from its frozen copy of memory, a
 *           waiter thread waits for it, checks the file in, renames it to checkpoint-I and syncs
 *           the directory
 *   SAVED   the file is safe; libraft has been told to take a snapshot at its next event
 *   HANDED  libraft is writing the descriptor; when it is done it cuts the log, and old files go
 *
 * fork() copies page tables while nothing else runs: with gigabytes of state that is longer than followers wait for a
 * sign of life. So a leader whose last fork was long asks another voter to lead first, and forks when it follows; programs
 * notice the change of leader, which is shorter. When nobody can take over, it forks as it is.
 *
 * libraft takes its snapshot at the index S it has reached by then, not at I. So entries applied
 * since the fork are kept (`tail`) and become part of the descriptor: descriptor = {file of I,
 * entries I+1..S}. Nobody waits for the disk, and the tail is as short as the child is quick.
 *
 * A crash at any moment leaves: a .tmp (removed at the next start), or a checkpoint that no
 * descriptor names (superseded later), or everything. A file that a snapshot in log/ names is never
 * removed.
 *
 * The child inherits every descriptor of the process: it closes them at once, since a listening
 * port or a lock kept by a child would stop the next metad after a kill -9, and it dies with its
 * parent. */
#include "mlog_internal.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/byteorder.h"
#include "base/log.h"
#include "base/machine.h"
#include "base/thread.h"
#include "entry.h"

#define LOG_MODULE "checkpoint"
#define DESC_MAGIC 0x44435052u /* "RPCD" */
#define DESC_VERSION 1u
#define KEEP 3u
#define HAND_OVER_MS 2000u

/* ---- the descriptor; layout: 0 magic, 4 version, 8 index, 16 size, 24 crc, 28 0, 32 tail length,
 * 40 0, 44 crc32c of 0..43 and the tail, 48 tail ---- */

static uint32_t desc_crc(const uint8_t *p, size_t tail)
{
    return crc32c(crc32c(0, p, 44), p + MLOG_DESC_HEADER, tail);
}

static const char *tail_problem(const uint8_t *p, size_t len, uint64_t index)
{
    for (size_t pos = 0; pos < len;) {
        if (len - pos < MLOG_TAIL_HEADER)
            return "tail breaks off";
        uint64_t next = le_get64(p + pos);
        size_t size = le_get32(p + pos + 8);
        if (next <= index)
            return "tail entries out of order";
        index = next;
        pos += MLOG_TAIL_HEADER;
        if (size > len - pos)
            return "tail breaks off";
        pos += size;
    }
    return NULL;
}

int mlog_desc_decode(const uint8_t *p, size_t len, struct mlog_desc *d, const char **why)
{
    *why = NULL;
    if (len < MLOG_DESC_HEADER || le_get32(p) != DESC_MAGIC) {
        *why = "not a checkpoint descriptor";
        return -ERR_CORRUPT;
    }
    if (le_get32(p + 4) != DESC_VERSION) {
        *why = "descriptor version unknown to this program";
        return -ERR_VERSION;
    }
    d->index = le_get64(p + 8);
    d->size = le_get64(p + 16);
    d->crc = le_get32(p + 24);
    d->tail = p + MLOG_DESC_HEADER;
    d->tail_len = len - MLOG_DESC_HEADER;
    if (le_get64(p + 32) != d->tail_len)
        *why = "wrong length";
    else if (desc_crc(p, d->tail_len) != le_get32(p + 44))
        *why = "checksum mismatch";
    else
        *why = tail_problem(d->tail, d->tail_len, d->index);
    return !*why ? 0 : -ERR_CORRUPT;
}

void mlog_desc_make(const struct mlog_desc *d, uint8_t *p)
{
    memset(p, 0, MLOG_DESC_HEADER);
    le_put32(p, DESC_MAGIC);
    le_put32(p + 4, DESC_VERSION);
    le_put64(p + 8, d->index);
    le_put64(p + 16, d->size);
    le_put32(p + 24, d->crc);
    le_put64(p + 32, d->tail_len);
    le_put32(p + 44, desc_crc(p, d->tail_len));
}

static void desc_encode(const struct mlog_ckpt *c, uint8_t *p)
{
    const struct mlog_desc d = {c->index, c->size, c->crc, NULL, c->tail_len};

    if (c->tail_len > 0)
        memcpy(p + MLOG_DESC_HEADER, c->tail, c->tail_len);
    mlog_desc_make(&d, p);
}

/* ---- files ---- */

int mlog_ckpt_file(char out[MLOG_PATH], const char *dir, uint64_t index, const char *suffix)
{
    int n = snprintf(out, MLOG_PATH, "%s/checkpoint-%016" PRIu64 "%s", dir, index, suffix);

    return n > 0 && n < (int)MLOG_PATH ? 0 : -ENAMETOOLONG;
}

int mlog_ckpt_path(char *out, size_t size, const char *dir, uint64_t index)
{
    int n = snprintf(out, size, "%s/checkpoint-%016" PRIu64, dir, index);

    return n > 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

static int file_crc(const char *path, uint64_t *size, uint32_t *crc)
{
    enum { PIECE = 1 << 20 };
    CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
    CLEANUP(free_ptr) uint8_t *piece = malloc(PIECE);

    *size = 0;
    *crc = 0;
    if (fd < 0)
        return -errno;
    if (!piece)
        return -ENOMEM;
    for (;;) {
        ssize_t n = read(fd, piece, PIECE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        *crc = crc32c(*crc, piece, (size_t)n);
        *size += (uint64_t)n;
    }
}

int mlog_ckpt_verify(const char *dir, const struct mlog_desc *d)
{
    char path[MLOG_PATH];
    uint64_t size;
    uint32_t crc;

    int rc = mlog_ckpt_file(path, dir, d->index, "");
    if (rc != 0)
        return rc;
    rc = file_crc(path, &size, &crc);
    if (rc == -ENOENT)
        log_error("%s is missing, and the log before it has been cut: restore the whole data "
                  "directory from "
                  "a backup",
                  path);
    else if (rc != 0)
        log_error("%s: cannot be read: %s", path, err_str(rc));
    else if (size != d->size)
        log_error("%s: damaged: %" PRIu64 " bytes instead of %" PRIu64
                  ". Restore the whole data directory from "
                  "a backup",
                  path, size, d->size);
    else if (crc != d->crc)
        log_error("%s: damaged: the file's checksum is %08x instead of %08x. Restore the whole "
                  "data directory "
                  "from a backup",
                  path, crc, d->crc);
    else
        return 0;
    return rc == 0 || rc == -ENOENT ? -ERR_CORRUPT : rc;
}

/* ---- making one ---- */

static _Noreturn void child_main(struct mlog *m, int fd, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup2(fd, 3) < 0)
        _exit(1);
    close_range(4, ~0u, 0);
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    if (fsm_save(m->fsm, 3) != 0 || fsync(3) < 0)
        _exit(2);
    _exit(0);
}

static int check_in(struct mlog *m)
{
    char tmp[MLOG_PATH], path[MLOG_PATH];
    struct mlog_ckpt *c = &m->ckpt;
    int rc = mlog_ckpt_file(tmp, m->dir, c->index, ".tmp");

    if (rc == 0)
        rc = mlog_ckpt_file(path, m->dir, c->index, "");
    if (rc == 0)
        rc = file_crc(tmp, &c->size, &c->crc);
    if (rc == 0 && rename(tmp, path) < 0)
        rc = -errno;
    return rc == 0 ? mlog_dir_sync(m->dir) : rc;
}

static void *waiter_main(void *arg)
{
    struct mlog *m = arg;
    int status = 0;
    pid_t got;

    do
        got = waitpid(m->ckpt.pid, &status, 0);
    while (got < 0 && errno == EINTR);
    if (got == m->ckpt.pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        m->ckpt.code = check_in(m);
    else
        m->ckpt.code = -EIO;
    atomic_store(&m->ckpt.finished, true);
    uv_async_send(&m->wake);
    return NULL;
}

static void give_up(struct mlog *m, int code)
{
    char tmp[MLOG_PATH];
    struct mlog_ckpt *c = &m->ckpt;

    if (mlog_ckpt_file(tmp, m->dir, c->index, ".tmp") == 0)
        unlink(tmp);
    log_error("%s: no checkpoint could be written at index %" PRIu64
              " (%s): the log keeps growing. Is there "
              "space on this disk?",
              m->dir, c->index, err_str(code));
    atomic_store(&m->error, "the last checkpoint failed, see the log");
    c->retry_bytes = m->bytes_since + m->checkpoint_bytes / 4;
    c->tail_len = 0;
    c->state = CKPT_IDLE;
}

static void ckpt_start(struct mlog *m)
{
    char tmp[MLOG_PATH];
    struct mlog_ckpt *c = &m->ckpt;

    c->index = m->raft.last_applied;
    c->base_bytes = m->bytes_since;
    c->tail_len = 0;
    c->code = 0;
    atomic_store(&c->finished, false);
    int rc = mlog_ckpt_file(tmp, m->dir, c->index, ".tmp");
    if (rc != 0) {
        give_up(m, rc);
        return;
    }
    unlink(tmp);
    CLEANUP(close_fdp) int fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        give_up(m, -errno);
        return;
    }
    pid_t parent = getpid();
    fsm_rdlock(m->fsm); /* nobody is in the middle of a change while memory is frozen */
    c->hand = HAND_NONE;
    c->fork_ns = clock_mono();
    c->pid = fork();
    if (c->pid == 0)
        child_main(m, fd, parent);
    rc = c->pid < 0 ? -errno : 0;
    c->fork_ns = clock_mono() - c->fork_ns;
    fsm_unlock(m->fsm);
    if (rc == 0 && thread_start(&c->waiter, "checkpoint", waiter_main, m) != 0) {
        kill(c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
        rc = -EAGAIN;
    }
    if (rc != 0) {
        give_up(m, rc);
        return;
    }
    c->state = CKPT_SAVING;
    log_debug("%s: saving checkpoint at index %" PRIu64, m->dir, c->index);
}

static void handed_over(void *arg, int code)
{
    struct mlog *m = arg;

    m->ckpt.hand = code == 0 ? HAND_NONE : HAND_REFUSED;
}

/* True: not now, another one shall lead first. */
static bool hand_over(struct mlog *m)
{
    struct mlog_ckpt *c = &m->ckpt;

    if (c->hand != HAND_NONE)
        return c->hand == HAND_ASKED;
    if (!atomic_load(&m->leader) || mlog_alone(m) || c->fork_ns <= m->long_fork_ns)
        return false;
    log_info("a checkpoint is due, and takes %d ms to begin: another metad shall lead first",
             (int)(c->fork_ns / NSEC_PER_MSEC));
    c->hand = HAND_ASKED;
    mlog_change(m, MLOG_TRANSFER, 0, HAND_OVER_MS, handed_over, m);
    return true;
}

void mlog_ckpt_maybe_start(struct mlog *m)
{
    struct mlog_ckpt *c = &m->ckpt;
    bool due = m->bytes_since > m->checkpoint_bytes && m->bytes_since > c->retry_bytes;
    bool wanted = atomic_load(&m->want_checkpoint);

    if (c->state != CKPT_IDLE || m->stopping || m->broken)
        return;
    if (wanted)
        due = m->raft.last_applied > atomic_load(&m->checkpoint_index);
    if (due && hand_over(m))
        return;
    if (wanted)
        atomic_store(&m->want_checkpoint, false);
    if (due)
        ckpt_start(m);
}

void mlog_ckpt_poll(struct mlog *m)
{
    struct mlog_ckpt *c = &m->ckpt;

    if (c->state != CKPT_SAVING || !atomic_load(&c->finished))
        return;
    pthread_join(c->waiter, NULL);
    if (c->code != 0) {
        give_up(m, c->code);
        return;
    }
    c->state = CKPT_SAVED;
    if (m->observer.saved)
        m->observer.saved(m->observer.arg, c->index, c->size, c->crc);
    raft_set_snapshot_threshold(&m->raft, 1);
}

void mlog_ckpt_record(struct mlog *m, uint64_t index, const void *buf, size_t len)
{
    struct mlog_ckpt *c = &m->ckpt;
    size_t need = c->tail_len + MLOG_TAIL_HEADER + len;

    if (c->state != CKPT_SAVING && c->state != CKPT_SAVED)
        return;
    if (need > c->tail_cap) {
        size_t cap = need * 2;
        uint8_t *p = realloc(c->tail, cap);
        if (!p)
            abort();
        c->tail = p;
        c->tail_cap = cap;
    }
    le_put64(c->tail + c->tail_len, index);
    le_put32(c->tail + c->tail_len + 8, (uint32_t)len);
    le_put32(c->tail + c->tail_len + 12, 0);
    memcpy(c->tail + c->tail_len + MLOG_TAIL_HEADER, buf, len);
    c->tail_len = need;
}

int mlog_ckpt_hand_over(struct mlog *m, struct raft_buffer *bufs[], unsigned *n)
{
    struct mlog_ckpt *c = &m->ckpt;

    if (c->state != CKPT_SAVED)
        return RAFT_BUSY;
    raft_set_snapshot_threshold(&m->raft, UINT_MAX);
    *bufs = malloc(sizeof(**bufs));
    uint8_t *p = malloc(MLOG_DESC_HEADER + c->tail_len);
    if (!*bufs || !p) {
        free(*bufs);
        free(p);
        give_up(m, -ENOMEM);
        return RAFT_NOMEM;
    }
    desc_encode(c, p);
    (*bufs)[0] = (struct raft_buffer){.base = p, .len = MLOG_DESC_HEADER + c->tail_len};
    *n = 1;
    c->state = CKPT_HANDED;
    return 0;
}

/* ---- cleaning up ---- */

struct kept {
    uint64_t index[64];
    size_t n;
};

/* Indexes of the state files that snapshots in log/ name. */
static int referenced(const char *log_dir, struct kept *k)
{
    DIR *d = opendir(log_dir);
    int rc = 0;

    if (!d)
        return -errno;
    for (struct dirent *e; rc == 0 && (e = readdir(d));) {
        uint8_t head[MLOG_DESC_HEADER];
        size_t len = strlen(e->d_name);
        if (strncmp(e->d_name, "snapshot-", 9) != 0 ||
            (len > 5 && strcmp(e->d_name + len - 5, ".meta") == 0))
            continue;
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, head, sizeof(head)) != (ssize_t)sizeof(head) || k->n == 60)
            rc = -EIO; /* when in doubt, remove nothing */
        else
            k->index[k->n++] = le_get64(head + 8);
        if (fd >= 0)
            close(fd);
    }
    closedir(d);
    return rc;
}

static int list_checkpoints(DIR *d, uint64_t *out, size_t max, size_t *n)
{
    *n = 0;
    rewinddir(d);
    for (struct dirent *e; (e = readdir(d));) {
        uint64_t index;
        int end = 0;
        if (sscanf(e->d_name, "checkpoint-%16" SCNu64 "%n", &index, &end) != 1 ||
            e->d_name[end] != 0)
            continue;
        if (*n == max)
            return -E2BIG;
        out[(*n)++] = index;
    }
    return 0;
}

static int descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x > y ? -1 : x < y;
}

static void remove_old(const char *dir, const char *log_dir)
{
    uint64_t all[256];
    size_t n;
    struct kept k = {.n = 0};
    DIR *d = opendir(dir);

    if (!d)
        return;
    if (list_checkpoints(d, all, 256, &n) == 0 && referenced(log_dir, &k) == 0) {
        qsort(all, n, sizeof(all[0]), descending);
        for (size_t i = KEEP; i < n; i++) {
            bool keep = false;
            char path[MLOG_PATH];
            for (size_t j = 0; j < k.n; j++)
                keep = keep || k.index[j] == all[i];
            if (!keep && mlog_ckpt_file(path, dir, all[i], "") == 0)
                unlink(path);
        }
    }
    closedir(d);
}

void mlog_ckpt_clean(const char *dir)
{
    DIR *d = opendir(dir);

    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (strncmp(e->d_name, "checkpoint-", 11) == 0 && len > 4 &&
            strcmp(e->d_name + len - 4, ".tmp") == 0)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
}

/* libraft is done with the descriptor: on disk, or given up because it is being closed. */
void mlog_ckpt_finished(struct mlog *m, struct raft_buffer *bufs[], unsigned *n)
{
    struct mlog_ckpt *c = &m->ckpt;

    for (unsigned i = 0; i < *n; i++)
        free((*bufs)[i].base);
    free(*bufs);
    *bufs = NULL;
    *n = 0;
    if (c->state != CKPT_HANDED)
        return;
    c->state = CKPT_IDLE;
    if (m->stopping)
        return;
    m->bytes_since -= c->base_bytes < m->bytes_since ? c->base_bytes : m->bytes_since;
    c->retry_bytes = 0;
    atomic_store(&m->log_bytes, m->bytes_since);
    atomic_store(&m->checkpoint_index, c->index);
    atomic_store(&m->error, NULL);
    remove_old(m->dir, m->log_dir);
    log_info("checkpoint at index %" PRIu64 ": %" PRIu64 " bytes, %zu bytes of later entries",
             c->index, c->size, c->tail_len);
    free(c->tail);
    c->tail = NULL;
    c->tail_len = c->tail_cap = 0;
}

void mlog_ckpt_cancel(struct mlog *m)
{
    raft_set_snapshot_threshold(&m->raft, UINT_MAX);
    mlog_ckpt_stop(m);
    m->ckpt.state = CKPT_IDLE;
}

void mlog_ckpt_stop(struct mlog *m)
{
    struct mlog_ckpt *c = &m->ckpt;

    if (c->state == CKPT_SAVING) {
        kill(c->pid, SIGKILL);
        pthread_join(c->waiter, NULL);
        c->state = CKPT_IDLE;
        mlog_ckpt_clean(m->dir);
    }
    free(c->tail);
    c->tail = NULL;
    c->tail_len = c->tail_cap = 0;
}

/* ---- loading one ---- */

/* In place of the present state, which is given up first when there is no room for two. */
static int load_here(struct mlog *m, int fd, char why[static 256])
{
    fsm_wrlock(m->fsm);
    if (m->started)
        fsm_reset(m->fsm);
    int rc = fsm_load(m->fsm, fd, why);
    fsm_unlock(m->fsm);
    return rc;
}

/* Beside the present state, and then in its place at once: loading takes seconds when files are many, and whoever waits
 * for the lock meanwhile (chunkds are heard on rpc threads) would be believed dead. */
static int load_beside(struct mlog *m, int fd, char why[static 256])
{
    struct fsm *fresh;
    int rc = fsm_new(&fresh);

    if (rc != 0)
        return rc;
    rc = fsm_load(fresh, fd, why);
    if (rc == 0) {
        fsm_wrlock(m->fsm);
        fsm_exchange(m->fsm, fresh);
        fsm_unlock(m->fsm);
    }
    fsm_free(fresh);
    return rc;
}

static bool has_room_beside(struct mlog *m)
{
    fsm_rdlock(m->fsm);
    uint64_t now = fsm_memory(m->fsm);
    fsm_unlock(m->fsm);
    return now < machine_memory() / 3;
}

int mlog_ckpt_restore(struct mlog *m, const void *buf, size_t len)
{
    char path[MLOG_PATH], why_load[256] = "";
    struct mlog_desc d;
    const char *why;

    int rc = mlog_desc_decode(buf, len, &d, &why);
    if (rc == 0)
        rc = mlog_ckpt_file(path, m->dir, d.index, "");
    if (rc != 0) {
        log_error("%s: snapshot descriptor: %s", m->log_dir, why ? why : err_str(rc));
        return rc;
    }
    CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    rc = m->started && has_room_beside(m) ? load_beside(m, fd, why_load)
                                          : load_here(m, fd, why_load);
    if (rc == -ERR_VERSION)
        log_error("%s: %s: start a replfs-metad at least as new as the one that wrote it", path,
                  why_load);
    else if (rc != 0)
        log_error("%s: damaged: %s. Restore the whole data directory from a backup", path,
                  why_load);
    if (rc == 0 && m->observer.restored)
        m->observer.restored(m->observer.arg, d.index);
    for (size_t pos = 0; rc == 0 && pos < d.tail_len;) {
        size_t size = le_get32(d.tail + pos + 8);
        rc = mlog_apply_entry(m, le_get64(d.tail + pos), d.tail + pos + MLOG_TAIL_HEADER, size,
                              NULL);
        pos += MLOG_TAIL_HEADER + size;
    }
    if (rc != 0)
        return rc;
    atomic_store(&m->checkpoint_index, d.index);
    if (m->started) {
        m->bytes_since = d.tail_len;
        atomic_store(&m->log_bytes, m->bytes_since);
        if (m->restored)
            m->restored(m->role_arg);
    }
    return 0;
}
