/* The chunk store of one disk: opening, closing, the operation queue and statistics.
 *
 * All changes are operations that any thread puts in one queue; the writer thread takes them in
 * order, cuts them into groups, writes each group with one pwritev to the open segment, applies it
 * to the index and completes what need not be on stable storage. What must be goes on to the sync
 * thread, which answers everything written before its fdatasync began; so a slow fdatasync never
 * holds up plain appends. The maintenance thread checkpoints the index and gives space back.
 *
 * Truth: the log. An operation is acknowledged after its record was written with write(2) (it
 * survives the death of the process) or, with sync, after fdatasync (it survives a power cut). The
 * index never knows anything durably that the log does not hold durably: a checkpoint is taken at a
 * log position, the log is synced, then LMDB commits.
 *
 * Failure modes: a full disk or capacity fails single appends with -ENOSPC and changes nothing; any
 * other write or fdatasync error makes the store `failed`: it refuses changes from then on (what
 * the page cache holds after a failed fdatasync cannot be trusted), goes on reading, and tells its
 * owner once. A disk that takes no writes when it is opened is failed from the start, and read: locks
 * without writing, an index that is opened so or made in RAM. A lack of file descriptors or memory is
 * nobody's failure. */
#include "store_internal.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include "base/crc32c.h"
#include "base/error.h"
#define LOG_MODULE "store"
#define HERE_MAX (128u << 10)
#include "base/log.h"
#include "base/private.h"
#include "base/thread.h"
#include "base/lock.h"

/* ---- queue ---- */

void op_queue_init(struct op_queue *q)
{
    q->head = NULL;
    q->tail = &q->head;
}

void op_queue_push(struct op_queue *q, struct op *op)
{
    op->next = NULL;
    *q->tail = op;
    q->tail = &op->next;
}

struct op *op_queue_pop(struct op_queue *q)
{
    struct op *op = q->head;
    if (op) {
        q->head = op->next;
        if (!q->head)
            q->tail = &q->head;
    }
    return op;
}

void store_submit(struct store *s, struct op *op)
{
    lock_acquire(&s->queue_lock);
    assert(!s->stopping);
    bool was_empty = !s->queue.head;
    bool here = was_empty && !s->writing && op->kind == OP_APPEND && op->r.len <= HERE_MAX;
    if (here)
        s->writing = true;
    else
        op_queue_push(&s->queue, op);
    if (was_empty && !here)
        cond_signal(&s->queue_cond);
    lock_release(&s->queue_lock);
    if (here)
        store_write_here(s, op);
}

struct op *op_new(enum op_kind kind, size_t words, store_done *done, void *arg)
{
    struct op *op = calloc(1, sizeof(*op) + words * sizeof(op->words[0]));
    if (!op)
        abort();
    op->kind = kind;
    op->done = done;
    op->arg = arg;
    return op;
}

void op_complete(struct op *op, int code)
{
    if (op->done)
        op->done(op->arg, code);
    buf_unref(op->data);
    free(op);
}

/* ---- public operations ---- */

static int append_check(const struct store_append *a)
{
    if (!a->data || a->data->len == 0 || a->data->len > RECORD_PAYLOAD_MAX || a->chunk == 0)
        return -EINVAL;
    if (a->chunk_off > UINT32_MAX - a->data->len)
        return -EFBIG;
    return crc_blocks_check(a->data->data, a->data->len, a->crcs) >= 0 ? -ERR_CRC : 0;
}

static void append(struct store *s, uint64_t token, const struct store_append *a, store_done *done,
                   void *arg)
{
    int code = append_check(a);
    size_t n = code ? 0 : crc_blocks(a->data->len);
    struct op *op = op_new(token ? OP_COPY_APPEND : OP_APPEND, (n + 1) / 2, done, arg);
    op->code = code;
    op->token = token;
    op->sync = a->sync;
    if (!code) {
        op->data = buf_ref(a->data);
        memcpy(op->words, a->crcs, 4 * n);
        op->r = (struct record){.type = token ? RECORD_COPY : RECORD_DATA,
                                .len = (uint32_t)a->data->len,
                                .chunk = a->chunk,
                                .session = a->session,
                                .ino = a->ino,
                                .file_off = a->file_off,
                                .chunk_off = a->chunk_off,
                                .crcs = (const uint8_t *)op->words};
    }
    store_submit(s, op);
}

void store_append(struct store *s, const struct store_append *a, store_done *done, void *arg)
{
    append(s, 0, a, done, arg);
}

void store_copy_append(struct store *s, uint64_t token, const struct store_append *a,
                       store_done *done, void *arg)
{
    append(s, token ? token : UINT64_MAX, a, done, arg);
}

void store_sync(struct store *s, store_done *done, void *arg)
{
    struct op *op = op_new(OP_SYNC, 0, done, arg);
    op->sync = true;
    store_submit(s, op);
}

void store_delete(struct store *s, const uint64_t *chunks, size_t n, store_done *done, void *arg)
{
    struct op *op = op_new(OP_DELETE, n, done, arg);
    op->n = n;
    if (n)
        memcpy(op->words, chunks, n * sizeof(*chunks));
    store_submit(s, op);
}

int store_copy_begin(struct store *s, uint64_t chunk, uint64_t session, uint64_t *token)
{
    if (chunk == 0)
        return -EINVAL;
    if (s->failed)
        return -EIO;
    struct copy *cp = calloc(1, sizeof(*cp));
    if (!cp)
        return -ENOMEM;
    cp->chunk = chunk;
    cp->session = session;
    cp->lo = UINT64_MAX;
    lock_acquire(&s->copies_lock);
    /* The generation is drawn here, so a copy begun later wins over one begun earlier. */
    cp->gen = s->next_gen++;
    cp->token = *token = ++s->next_token;
    cp->next = s->copies;
    s->copies = cp;
    lock_release(&s->copies_lock);
    return 0;
}

void store_copy_finish(struct store *s, uint64_t token, uint32_t seen, store_done *done, void *arg)
{
    struct op *op = op_new(OP_COPY_FINISH, 0, done, arg);
    op->token = token;
    op->seen = seen;
    op->sync = true;
    store_submit(s, op);
}

void store_copy_abort(struct store *s, uint64_t token)
{
    struct op *op = op_new(OP_COPY_ABORT, 0, NULL, NULL);
    op->token = token;
    store_submit(s, op);
}

/* ---- shared bookkeeping ---- */

void store_fail(struct store *s, const char *what, const char *name, int code)
{
    if (atomic_exchange(&s->failed, true))
        return;
    char why[256];
    snprintf(why, sizeof(why), "%s of %s in %.150s failed: %s", what, name, s->dir, err_str(code));
    lock_acquire(&s->error_lock);
    memcpy(s->error, why, sizeof(why));
    lock_release(&s->error_lock);
    log_error("%s. The disk takes no more data; what is on it is still served. Check the disk "
              "(dmesg, smartctl) and restart, or take it out of the configuration",
              why);
    if (s->cfg.failed)
        s->cfg.failed(s->cfg.arg, why, !s->index_lost);
}

void store_lose_index(struct store *s, int code)
{
    if (atomic_exchange(&s->index_lost, true))
        return;
    char why[256];
    snprintf(why, sizeof(why), "read of the index in %.150s failed: %s", s->dir, err_str(code));
    if (!atomic_load(&s->failed))
        store_fail(s, "read", "the index", code);
    else if (s->cfg.failed)
        s->cfg.failed(s->cfg.arg, why, false);
}

int store_set_open(struct store *s, struct segment *sg)
{
    int fd = segment_hold(sg);
    if (fd < 0)
        return fd;
    if (s->open_seg)
        segment_drop(s->open_seg);
    s->open_seg = sg;
    return 0;
}

void dead_add(struct dead_list *l, const struct dead_range *d)
{
    if (l->n) { /* neighbours become one range at once */
        struct dead_range *last = &l->v[l->n - 1];
        if (last->seg == d->seg && last->pos + last->len == d->pos) {
            last->len += d->len;
            return;
        }
    }
    l->v = delta_grow(l->v, &l->cap, l->n + 1, sizeof(*l->v));
    l->v[l->n++] = *d;
}

void store_extent(void *arg, const struct ext *e, bool live)
{
    struct store *s = arg;
    struct segment *sg = segments_find(&s->segs, e->seg);
    if (!sg)
        return; /* its file was missing when the store was opened */
    uint64_t size = ext_record_size(e);
    sg->row_dirty = true;
    if (live) {
        sg->live += size;
        return;
    }
    sg->live = sg->live > size ? sg->live - size : 0;
    dead_add(&s->dead, &(struct dead_range){e->seg, e->pos, size});
}

void store_mark(struct store *s, const struct record *r, uint64_t seg, uint32_t pos)
{
    s->marks = delta_grow(s->marks, &s->cap_marks, s->n_marks + 1, sizeof(*s->marks));
    s->marks[s->n_marks++] = (struct mark){.seg = seg,
                                           .pos = pos,
                                           .type = r->type,
                                           .chunk = r->chunk,
                                           .gen = r->gen,
                                           .lo = r->ino,
                                           .hi = r->file_off};
    struct segment *sg = segments_find(&s->segs, seg);
    if (sg)
        sg->marks++;
}

unsigned grace_enter(struct grace *g)
{
    unsigned token = atomic_load(&g->phase) & 1;
    atomic_fetch_add(&g->inside[token], 1);
    return token;
}

void grace_leave(struct grace *g, unsigned token)
{
    atomic_fetch_sub(&g->inside[token], 1);
}

void grace_wait(struct grace *g)
{
    /* Twice, so that both counters were seen empty after the change that the caller made: a reader
     * may have taken its phase before the first flip and counted itself after. */
    for (int i = 0; i < 2; i++) {
        unsigned old = atomic_fetch_add(&g->phase, 1) & 1;
        while (atomic_load(&g->inside[old]) > 0)
            nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
}

/* ---- statistics ---- */

void store_set_limit(struct store *s, uint64_t bytes)
{
    atomic_store(&s->limit, bytes);
}

void store_stat(struct store *s, struct store_stat *out)
{
    memset(out, 0, sizeof(*out));
    struct segment *last = segments_last(&s->segs);
    if (last)
        segment_update_alloc(last);
    struct statvfs v;
    uint64_t total = 0, avail = 0;
    if (!fstatvfs(s->segs.dirfd, &v)) {
        total = (uint64_t)v.f_blocks * v.f_frsize;
        avail = (uint64_t)v.f_bavail * v.f_frsize;
    }
    struct stat st;
    if (!fstat(s->segs.dirfd, &st))
        out->fs = st.st_dev;
    uint64_t reserve = s->cfg.reserve + total / 100 * s->cfg.reserve_percent;
    out->shortage = total && reserve > avail ? reserve - avail : 0;
    total = out->fs_capacity = total > reserve ? total - reserve : 0;
    avail = out->fs_avail = avail > reserve ? avail - reserve : 0;
    out->used = segments_alloc(&s->segs) + index_db_alloc(s->db);
    out->capacity = s->cfg.capacity && s->cfg.capacity < total ? s->cfg.capacity : total;
    uint64_t limit = atomic_load(&s->limit);
    out->capacity = limit < out->capacity ? limit : out->capacity;
    uint64_t left = out->capacity > out->used ? out->capacity - out->used : 0;
    out->avail = left < avail ? left : avail;
    out->chunks = s->ix.chunks;
    out->dead_bytes = segments_dead(&s->segs);
    out->fsyncs = s->fsyncs;
    out->appends = s->appends;
    out->append_bytes = s->append_bytes;
    out->read_bytes = s->read_bytes;
    out->failed = s->failed;
    out->readable = !s->index_lost;
    lock_acquire(&s->error_lock);
    memcpy(out->error, s->error, sizeof(out->error));
    lock_release(&s->error_lock);
    if (out->failed)
        out->avail = 0;
}

/* ---- opening and closing ---- */

static int check_identity(struct store *s)
{
    int rc = store_id_read(s->dir, &s->id);
    if (rc == -ENOENT)
        log_error(
            "%s holds no replfs.id: it is not a chunk directory yet, or its disk is not mounted",
            s->dir);
    if (rc)
        return rc;
    if ((s->cfg.cluster && s->cfg.cluster[0] && strcmp(s->cfg.cluster, s->id.cluster)) ||
        (s->cfg.chunkd && s->cfg.chunkd != s->id.chunkd)) {
        log_error(
            "%s belongs to cluster %s as chunkd %u, not to cluster %s as chunkd %u. Use an empty "
            "directory, or start the chunkd that it belongs to",
            s->dir, s->id.cluster, s->id.chunkd,
            s->cfg.cluster && s->cfg.cluster[0] ? s->cfg.cluster : "(any)", s->cfg.chunkd);
        return -ERR_WRONG_CLUSTER;
    }
    return 0;
}

/* What a dying disk has may be the only copies there are. */
static void open_readonly(struct store *s, int code)
{
    s->readonly = true;
    s->failed = true;
    snprintf(s->error, sizeof(s->error), "the disk under %.150s takes no writes: %s", s->dir,
             err_str(code));
    log_error("%s. What is on it is served, so that it can be copied from there; look at the disk "
              "(dmesg, smartctl, mount options)",
              s->error);
}

static int take_lock(struct store *s)
{
    /* replfs.id, .seen, .scrub and their new versions */
    static const char *const names[] = {"seg-", "replfs.", "lock", "spare", "index", "names", NULL};
    char path[4128];
    snprintf(path, sizeof(path), "%s/lock", s->dir);
    int why = 0;
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0 && (errno == EROFS || errno == EIO)) {
        why = -errno;
        s->lock_fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (s->lock_fd < 0)
        return -errno;
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB)) {
        log_error("%s is in use by another replfs-chunkd (its lock is held): stop that one first",
                  s->dir);
        return -ERR_LOCKED;
    }
    /* ext4 that has stopped itself still opens files for writing */
    if (why == 0 && (pwrite(s->lock_fd, "\n", 1, 0) < 0 || fdatasync(s->lock_fd)) &&
        (errno == EROFS || errno == EIO))
        why = -errno;
    if (!why)
        return private_dir(s->dir, names);
    open_readonly(s, why);
    return 0;
}

/* So that many segments can be kept open (segment.c). */
static void raise_nofile(void)
{
    struct rlimit rl;
    if (!getrlimit(RLIMIT_NOFILE, &rl) && rl.rlim_cur < rl.rlim_max) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
}

static void init_sync(struct store *s)
{
    lock_init(&s->queue_lock, LOCK_STORE_QUEUE);
    lock_init(&s->copies_lock, LOCK_STORE_COPIES);
    lock_init(&s->sync_lock, LOCK_STORE_SYNC);
    lock_init(&s->maint_lock, LOCK_STORE_MAINT);
    lock_init(&s->error_lock, LOCK_STORE_ERROR);
    cond_init(&s->queue_cond);
    cond_init(&s->sync_cond);
    cond_init(&s->maint_cond);
    op_queue_init(&s->queue);
    op_queue_init(&s->sync_queue);
}

/* Accepts a half-opened store without running threads. */
static void store_free(struct store *s)
{
    while (s->copies)
        store_copy_drop(s, s->copies);
    index_free(&s->ix);
    index_db_close(s->db);
    segments_close(&s->segs);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    free(s->group);
    free(s->dead.v);
    free(s->to_punch.v);
    free(s->marks);
    free(s);
}

static void stop_threads(struct store *s)
{
    if (s->maint_runs) {
        lock_acquire(&s->maint_lock);
        s->maint_stop = true;
        cond_signal(&s->maint_cond);
        lock_release(&s->maint_lock);
        pthread_join(s->maint, NULL);
        if (!s->failed)
            store_checkpoint(s);
    }
    if (s->writer_runs) {
        lock_acquire(&s->queue_lock);
        s->stopping = true;
        cond_signal(&s->queue_cond);
        lock_release(&s->queue_lock);
        pthread_join(s->writer, NULL);
    }
    if (s->syncer_runs) {
        store_sync_end(s);
        pthread_join(s->syncer, NULL);
    }
}

static int start_threads(struct store *s)
{
    int rc = thread_start(&s->syncer, "store-sync", store_sync_main, s);
    s->syncer_runs = !rc;
    if (!rc)
        rc = thread_start(&s->writer, "store-write", store_writer_main, s);
    s->writer_runs = s->syncer_runs && !rc;
    if (!rc)
        rc = thread_start(&s->maint, "store-maint", store_maint_main, s);
    s->maint_runs = s->writer_runs && !rc;
    return -rc;
}

int store_open(const struct store_config *cfg, struct store **out)
{
    struct store *s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    s->cfg = *cfg;
    atomic_store(&s->limit, UINT64_MAX);
    s->lock_fd = s->segs.dirfd = -1;
    s->next_gen = 1;
    init_sync(s);
    int rc = 0;
    if (snprintf(s->dir, sizeof(s->dir), "%s", cfg->dir) >= (int)sizeof(s->dir))
        rc = -ENAMETOOLONG;
    s->cfg.dir = s->dir;
    uint64_t *size = &s->cfg.segment_size;
    *size = !*size ? 256u << 20 : *size < STORE_SEGMENT_MIN ? STORE_SEGMENT_MIN : *size;
    *size = *size > STORE_SEGMENT_MAX ? STORE_SEGMENT_MAX : *size;
    if (!s->cfg.checkpoint_ms)
        s->cfg.checkpoint_ms = STORE_CHECKPOINT_MSEC;
    raise_nofile();
    s->group = calloc(1, sizeof(*s->group));
    if (!s->group)
        rc = -ENOMEM;
    if (!rc)
        rc = check_identity(s);
    if (!rc)
        rc = take_lock(s);
    if (!rc)
        rc = segments_open(&s->segs, s->dir, &s->id, s->readonly);
    if (!rc)
        rc = store_recover(s);
    if (!rc)
        rc = start_threads(s);
    if (rc) {
        stop_threads(s);
        store_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    stop_threads(s);
    if (s->open_seg) /* which it holds */
        segment_cut_ahead(s->open_seg);
    store_free(s);
}
