/* The writer: one at a time, the writer thread or, for one small append while nothing is queued, the
 * thread that brings it, which spares two wake-ups. Takes operations in order, gathers the records they
 * need into a group, writes the group with one pwritev, applies it to the index, and completes or hands on
 * the operations.
 *
 * Planning and applying are separate. While a group is gathered, each chunk's and copy's `plan_len`
 * runs ahead of its length, so that many appends to one chunk fit one group; the index itself
 * changes only after the bytes are in the file, so a reader never sees an extent without its
 * record. When a write fails half-way, records that are whole in the file count, the file is cut
 * behind them, and plan_len falls back.
 *
 * Whatever is not an append first flushes the group before it: an operation sees the effect of all
 * that came earlier. Repetitions (a client that resends after a lost answer) are compared byte by
 * byte. */
#include "store_internal.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#define LOG_MODULE "store"
#include "base/log.h"
#include "base/lock.h"

#ifndef RWF_DONTCACHE /* newer than the headers of Debian 12 */
#define RWF_DONTCACHE 0x80
#endif
#define STREAM_BYTES (256u << 10)
#define AHEAD_BYTES (256u << 10) /* of zeros, for appends that are synced */
#define AHEAD_MAX (64u << 10)    /* a larger group does not need them */
#define ROOM_NSEC (200 * NSEC_PER_MSEC)
#define ROOM_NSEC_LOW (10 * NSEC_PER_MSEC)

static void flush(struct store *s);

/* ---- room ---- */

static void room_update(struct store *s)
{
    struct store_stat st;
    store_stat(s, &st);
    s->room = st.avail;
    s->room_time = (uint64_t)clock_mono();
}

/* May so many more bytes be written under capacity and reserve? Asks the file system again now and
 * then, and before it says no. */
static bool room_for(struct store *s, uint64_t bytes)
{
    uint64_t age = (uint64_t)clock_mono() - s->room_time;
    bytes += s->group->bytes;
    if (!s->room_time || age > ROOM_NSEC || (s->room < bytes && age > ROOM_NSEC_LOW))
        room_update(s);
    return s->room >= bytes;
}

/* ---- copies ---- */

struct copy *store_copy_find(struct store *s, uint64_t token)
{
    lock_acquire(&s->copies_lock);
    struct copy *cp = s->copies;
    while (cp && cp->token != token)
        cp = cp->next;
    lock_release(&s->copies_lock);
    return cp;
}

void store_copy_drop(struct store *s, struct copy *cp)
{
    lock_acquire(&s->copies_lock);
    struct copy **p = &s->copies;
    while (*p != cp)
        p = &(*p)->next;
    *p = cp->next;
    lock_release(&s->copies_lock);
    extents_clear(&cp->x, store_extent, s);
    free(cp);
}

/* ---- planning ---- */

/* The segment that the group goes to, with space for size bytes behind what is planned. Flushes and
 * begins a new one when needed. */
static int open_segment(struct store *s, uint64_t size, bool limited)
{
    struct segment *sg = s->open_seg;
    if (sg && sg->size + s->group->bytes + size <= s->cfg.segment_size)
        return 0;
    flush(s);
    if (s->failed)
        return -EIO;
    if (sg) {
        segment_cut_ahead(sg);
        segment_update_alloc(sg);
    }
    int rc = segments_create(&s->segs, &sg);
    if (rc == -ENOSPC && !limited && store_spare_drop(s))
        rc = segments_create(&s->segs, &sg);
    if (segment_no_fd(rc) || rc == -ENOMEM)
        return -ERR_BUSY; /* it passes, and says nothing of the disk */
    if (rc) {
        if (rc != -ENOSPC && rc != -EDQUOT)
            store_fail(s, "creation", "a new segment", rc);
        return rc;
    }
    return store_set_open(s, sg);
}

static void add_iov(struct group *g, const void *p, size_t len)
{
    g->iov[g->n_iov++] = (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = len};
}

/* Adds one record to the group. item's op, r, c, cp and last are set; the rest is filled in here.
 */
static int plan(struct store *s, const struct item *item, bool limited)
{
    static const uint8_t zeros[RECORD_ALIGN];
    struct group *g = s->group;
    struct item it = *item;
    it.r.header_len = it.r.len ? record_header_len(it.r.len) : RECORD_FIXED;
    uint64_t size = record_size(&it.r);
    if (g->n == STORE_GROUP_RECORDS || (g->n && g->bytes + size > STORE_GROUP_BYTES))
        flush(s);
    if (s->failed)
        return -EIO;
    if (limited && !room_for(s, size))
        return -ENOSPC;
    int rc = open_segment(s, size, limited);
    if (rc)
        return rc;
    uint64_t pos = s->open_seg->size + g->bytes;
    it.pos = (uint32_t)pos;
    it.end = pos + size;
    uint8_t *h = g->headers + g->headers_used;
    uint32_t header_len =
        record_encode(&it.r, record_seed(s->segs.base, s->open_seg->id, it.pos), h);
    assert(header_len == it.r.header_len);
    g->headers_used += header_len;
    add_iov(g, h, header_len);
    if (it.r.len)
        add_iov(g, it.op->data->data, it.r.len);
    if (size > header_len + it.r.len)
        add_iov(g, zeros, size - header_len - it.r.len);
    g->bytes += size;
    g->items[g->n++] = it;
    return 0;
}

/* ---- writing and applying ---- */

/* Streams do not stay in the page cache (pwritev2(2), RWF_DONTCACHE, since Linux 6.14): it is the
 * computer's owner's, finding pages for them costs more than all the rest, and on their way to the disk
 * at once they leave less for the next sync. Small appends stay: they may soon be read. */
static ssize_t put_bytes(struct store *s, const struct iovec *iov, size_t n, uint64_t pos)
{
    int fd = s->open_seg->fd;
    if (s->group->bytes >= STREAM_BYTES && !s->all_cached) {
        ssize_t w = pwritev2(fd, iov, (int)n, (off_t)pos, RWF_DONTCACHE);
        if (w >= 0 || errno != EOPNOTSUPP)
            return w;
        s->all_cached = true;
    }
    return pwritev(fd, iov, (int)n, (off_t)pos);
}

/* Writes the group's bytes; returns how many got there, and the error that stopped it. */
static uint64_t write_group(struct store *s, int *code)
{
    struct group *g = s->group;
    uint64_t pos = s->open_seg->size, done = 0;
    struct iovec *iov = g->iov;
    size_t n = g->n_iov;
    *code = 0;
    while (n > 0) {
        ssize_t w = put_bytes(s, iov, n, pos + done);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0 && errno == ENOSPC && g->items[0].op->kind == OP_DELETE && store_spare_drop(s))
            continue;
        if (w <= 0) {
            *code = w < 0 ? -errno : -EIO;
            break;
        }
        done += (uint64_t)w;
        while (n > 0 && (size_t)w >= iov->iov_len) {
            w -= (ssize_t)iov->iov_len;
            iov++;
            n--;
        }
        if (n > 0 && w > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + w;
            iov->iov_len -= (size_t)w;
        }
    }
    return done;
}

static void writer_changed(struct store *s, uint64_t chunk, uint32_t len, uint64_t session)
{
    if (s->cfg.changed)
        s->cfg.changed(s->cfg.arg, chunk, len, session);
}

static void apply_copy(struct store *s, const struct item *it, const struct ext *e)
{
    struct copy *cp = it->cp;
    extents_put(&cp->x, e, store_extent, s);
    if (!cp->first.seg)
        cp->first = (struct log_pos){e->seg, e->pos};
    cp->lo = cp->lo < e->seg ? cp->lo : e->seg;
    cp->hi = cp->hi > e->seg ? cp->hi : e->seg;
}

static void apply(struct store *s, const struct item *it, uint64_t seg)
{
    struct ext e = {.off = it->r.chunk_off, .len = it->r.len, .seg = (uint32_t)seg, .pos = it->pos};
    uint64_t session = it->r.session;
    switch (it->op->kind) {
    case OP_APPEND:
        if (it->c->gone)
            index_start(&s->ix, it->c, it->r.gen, session);
        index_put(&s->ix, it->c, &e);
        s->appends++;
        s->append_bytes += e.len;
        writer_changed(s, it->r.chunk, it->c->row.len, session);
        break;
    case OP_RELOCATE:
        index_put(&s->ix, it->c, &e);
        break;
    case OP_COPY_APPEND:
        apply_copy(s, it, &e);
        s->appends++;
        s->append_bytes += e.len;
        break;
    case OP_COPY_FINISH:
        store_mark(s, &it->r, seg, it->pos);
        index_swap(&s->ix, it->c, it->cp->gen, it->cp->session, &it->cp->x, it->cp->lo, it->cp->hi);
        writer_changed(s, it->r.chunk, it->c->row.len, session);
        store_copy_drop(s, it->cp);
        break;
    case OP_DELETE:
        store_mark(s, &it->r, seg, it->pos);
        if (!it->c->gone) {
            index_remove(&s->ix, it->c);
            writer_changed(s, it->r.chunk, 0, session);
        }
        break;
    case OP_MARK:
        store_mark(s, &it->r, seg, it->pos);
        break;
    case OP_COPY_ABORT:
    case OP_SYNC:
    case OP_COLLECT:
        assert(!"an op without records was planned");
    }
}

static void finish_op(struct store *s, struct op *op, int code)
{
    if (!code && op->sync)
        store_sync_hand(s, op);
    else
        op_complete(op, code);
}

static void fall_back(const struct item *it)
{
    if (it->op->kind == OP_COPY_APPEND)
        it->cp->plan_len = it->cp->x.len;
    else if (it->c)
        it->c->plan_len = it->c->row.len;
}

/* A full disk is the operation's problem; everything else is the disk's. */
static int write_failed(struct store *s, int code, uint64_t end)
{
    s->open_seg->zeroed = 0;
    if (ftruncate(s->open_seg->fd, (off_t)end))
        log_error("%s/%s: cannot cut a half-written record at offset %llu: %s", s->dir,
                  s->open_seg->name, (unsigned long long)end, err_str(-errno));
    if (code == -ENOSPC || code == -EDQUOT || code == -EFBIG) {
        s->room = 0;
        return -ENOSPC;
    }
    store_fail(s, "write", s->open_seg->name, code);
    return -EIO;
}

/* An fdatasync behind an append has to write the file's size and map as well, in another place, and on
 * most file systems through a journal; behind the overwriting of bytes that are there it has not. So who
 * syncs small appends gets zeros to write over, for the next of them. */
static void prepare_syncs(struct store *s)
{
    const struct group *g = s->group;
    struct segment *sg = s->open_seg;
    uint64_t end = sg->size + g->bytes, to = (end + AHEAD_BYTES) / AHEAD_BYTES * AHEAD_BYTES;
    bool sync = false;
    if (g->bytes > AHEAD_MAX || end <= sg->zeroed || to > s->cfg.segment_size)
        return;
    for (size_t i = 0; i < g->n; i++)
        sync |= g->items[i].op->sync;
    if (sync && room_for(s, AHEAD_BYTES))
        segment_zero_ahead(sg, end, to);
}

static void flush(struct store *s)
{
    struct group *g = s->group;
    if (!g->n)
        return;
    struct segment *sg = s->open_seg;
    int code;
    prepare_syncs(s);
    uint64_t start = sg->size, end = start, written = write_group(s, &code);
    size_t good = 0;
    while (good < g->n && g->items[good].end <= start + written)
        end = g->items[good++].end;
    if (good < g->n)
        code = write_failed(s, code, end);
    sg->size = end;
    sg->row_dirty = true;
    sg->wrote = true;
    sg->unsynced = true;
    s->room -= end - start < s->room ? end - start : s->room;
    if (end > start)
        store_sync_wrote(s, end - start);

    size_t n = g->n;
    g->n = g->n_iov = g->headers_used = 0;
    g->bytes = 0;
    for (size_t i = 0; i < n; i++) {
        struct item *it = &g->items[i];
        if (i < good)
            apply(s, it, sg->id);
        else
            fall_back(it);
        if (it->last)
            finish_op(s, it->op, i < good ? 0 : code);
    }
}

/* ---- operations ---- */

/* index_get(); an index that cannot be read is the disk's failure. */
static int chunk_get(struct store *s, uint64_t chunk, bool create, struct chunk **out)
{
    int rc = index_get(&s->ix, chunk, create, out);
    if (rc == -EIO || rc == -ERR_CORRUPT) {
        store_lose_index(s, rc);
        rc = -EIO;
    }
    return rc;
}

/* The range is there already: equal bytes make the append a success (a repetition), else it is
 * wrong. */
static void repeated(struct store *s, struct op *op, const struct extents *x)
{
    bool same = store_same_bytes(s, x, op->r.chunk_off, op->r.len, op->data->data);
    finish_op(s, op, same ? 0 : -ERR_OFFSET);
}

/* Where an append belongs: 0 plan it, 1 it repeats what is there, or a negative code. */
static int place_append(struct store *s, const struct op *op, uint32_t *plan_len,
                        const uint32_t *len)
{
    uint32_t off = op->r.chunk_off, end = off + op->r.len;
    if (off == *plan_len)
        return 0;
    if (end > *plan_len)
        return -ERR_OFFSET;
    if (end > *len)
        flush(s); /* what it repeats is in this very group */
    return end <= *len ? 1 : -ERR_OFFSET;
}

/* Generation and session of what an append continues; a chunk that is not here begins with its
 * first append. It comes into being when that is applied: c stays gone until then. */
static int continue_chunk(struct store *s, struct op *op, struct chunk *c)
{
    if (!c->gone) {
        op->r.gen = c->row.gen;
        return c->row.session == op->r.session ? 0 : -ERR_SESSION;
    }
    if (c->plan_len == 0) {
        c->plan_gen = s->next_gen++;
        c->plan_session = op->r.session;
    }
    op->r.gen = c->plan_gen;
    return c->plan_session == op->r.session ? 0 : -ERR_SESSION;
}

static void do_append(struct store *s, struct op *op)
{
    struct chunk *c;
    int rc = chunk_get(s, op->r.chunk, true, &c);
    if (!rc)
        rc = continue_chunk(s, op, c);
    if (!rc)
        rc = place_append(s, op, &c->plan_len, &c->row.len);
    if (rc == 1) {
        repeated(s, op, &c->x);
        return;
    }
    op->r.time = (uint64_t)clock_wall();
    uint32_t end = op->r.chunk_off + op->r.len;
    if (!rc)
        rc = plan(s, &(struct item){.op = op, .r = op->r, .c = c, .last = true}, true);
    if (rc)
        finish_op(s, op, rc);
    else
        c->plan_len = end;
}

static void do_copy_append(struct store *s, struct op *op)
{
    struct copy *cp = store_copy_find(s, op->token);
    int rc = !cp || cp->chunk != op->r.chunk ? -ERR_NO_CHUNK
                                             : place_append(s, op, &cp->plan_len, &cp->x.len);
    if (rc == 1) {
        repeated(s, op, &cp->x);
        return;
    }
    if (rc) {
        finish_op(s, op, rc);
        return;
    }
    op->r.gen = cp->gen;
    op->r.session = cp->session;
    op->r.time = (uint64_t)clock_wall();
    uint32_t end = op->r.chunk_off + op->r.len;
    rc = plan(s, &(struct item){.op = op, .r = op->r, .cp = cp, .last = true}, true);
    if (rc)
        finish_op(s, op, rc);
    else
        cp->plan_len = end;
}

static void do_copy_finish(struct store *s, struct op *op)
{
    struct copy *cp = store_copy_find(s, op->token);
    struct chunk *c;
    int rc = cp ? chunk_get(s, cp->chunk, true, &c) : -ERR_NO_CHUNK;
    if (!rc && !c->gone && c->row.gen > cp->gen)
        rc = -ERR_BUSY; /* something newer took the chunk's place meanwhile */
    if (!rc && !c->gone && c->row.len > cp->x.len && c->row.len > op->seen)
        rc = -EAGAIN; /* it has grown meanwhile: that was acknowledged */
    struct record r = {.type = RECORD_COMMIT, .time = (uint64_t)clock_wall()};
    if (!rc) {
        r.chunk = cp->chunk;
        r.session = cp->session;
        r.gen = cp->gen;
        r.chunk_off = cp->x.len;
        r.ino = cp->lo;
        r.file_off = cp->hi;
        rc = plan(s, &(struct item){.op = op, .r = r, .c = c, .cp = cp, .last = true}, true);
    }
    if (rc) {
        finish_op(s, op, rc);
        return;
    }
    flush(s);
}

static void do_delete(struct store *s, struct op *op)
{
    int rc = 0;
    struct item it = {.op = op, .r = {.type = RECORD_DELETE, .time = (uint64_t)clock_wall()}};
    /* Find out first which ones are here, so that the last record of the op is known. */
    size_t n = 0;
    for (size_t i = 0; i < op->n && !rc; i++) {
        struct chunk *c;
        rc = chunk_get(s, op->words[i], false, &c);
        if (!rc && c && !c->gone)
            op->words[n++] = op->words[i];
    }
    for (size_t i = 0; i < n && !rc; i++) {
        rc = chunk_get(s, op->words[i], false, &it.c);
        assert(rc || it.c); /* nothing leaves the overlay within an operation */
        it.r.chunk = op->words[i];
        it.r.session = it.c->row.session;
        it.r.gen = it.c->row.gen;
        it.r.ino = it.c->row.lo;
        it.r.file_off = it.c->row.hi;
        it.last = i == n - 1;
        rc = plan(s, &it, false);
    }
    if (n == 0 || rc) {
        flush(s);
        finish_op(s, op, rc);
        return;
    }
    flush(s);
}

/* Compaction: the record is written again when it is still the one that counts. */
static void do_relocate(struct store *s, struct op *op)
{
    struct chunk *c;
    int rc = chunk_get(s, op->r.chunk, false, &c);
    bool current = !rc && c && !c->gone && c->row.gen == op->r.gen;
    uint32_t i = current ? extents_find(&c->x, op->src.off) : 0;
    current = current && i < c->x.n && !memcmp(&c->x.v[i], &op->src, sizeof(op->src));
    if (current)
        rc = plan(s, &(struct item){.op = op, .r = op->r, .c = c, .last = true}, false);
    if (rc || !current)
        finish_op(s, op, rc);
    flush(s);
}

static void do_mark(struct store *s, struct op *op)
{
    int rc = 0;
    bool wanted = true;
    if (op->r.type == RECORD_COMMIT) {
        struct chunk *c;
        rc = chunk_get(s, op->r.chunk, false, &c);
        wanted = !rc && c && !c->gone && c->row.gen == op->r.gen;
    }
    if (wanted)
        rc = plan(s, &(struct item){.op = op, .r = op->r, .last = true}, false);
    if (rc || !wanted)
        finish_op(s, op, rc);
}

static int collect_segment(void *arg, struct segment *sg)
{
    struct delta *d = arg;
    if (!sg->row_dirty)
        return 0;
    sg->row_dirty = false;
    DELTA_GROW(d, segs, 1);
    d->segs[d->n_segs++] = (struct segment_row){.id = sg->id, .size = sg->size, .live = sg->live};
    return 0;
}

void store_collect(struct store *s, struct checkpoint *ck)
{
    struct delta *d = &ck->delta;
    ck->epoch = index_collect(&s->ix, d);
    segments_each(&s->segs, collect_segment, d);
    d->marks = s->marks;
    d->n_marks = s->n_marks;
    d->cap_marks = s->cap_marks;
    s->marks = NULL;
    s->n_marks = s->cap_marks = 0;
    ck->dead = s->dead;
    s->dead = (struct dead_list){0};
    d->next_gen = s->next_gen;
    struct segment *last = segments_last(&s->segs);
    if (last)
        d->pos = (struct log_pos){last->id, last->size};
    /* A copy in the making is nowhere but in the log: recovery must start before it. */
    lock_acquire(&s->copies_lock);
    for (const struct copy *cp = s->copies; cp; cp = cp->next)
        if (cp->first.seg && (cp->first.seg < d->pos.seg ||
                              (cp->first.seg == d->pos.seg && cp->first.pos < d->pos.pos)))
            d->pos = cp->first;
    lock_release(&s->copies_lock);
}

static void do_op(struct store *s, struct op *op)
{
    if (op->code) {
        op_complete(op, op->code);
        return;
    }
    if (op->kind != OP_APPEND && op->kind != OP_COPY_APPEND && op->kind != OP_MARK)
        flush(s);
    if (s->failed && op->kind != OP_COPY_ABORT) {
        op_complete(op, -EIO);
        return;
    }
    switch (op->kind) {
    case OP_APPEND:
        do_append(s, op);
        break;
    case OP_COPY_APPEND:
        do_copy_append(s, op);
        break;
    case OP_COPY_FINISH:
        do_copy_finish(s, op);
        break;
    case OP_COPY_ABORT: {
        struct copy *cp = store_copy_find(s, op->token);
        if (cp)
            store_copy_drop(s, cp);
        store_maint_note(s);
        op_complete(op, 0);
        break;
    }
    case OP_DELETE:
        do_delete(s, op);
        break;
    case OP_COLLECT:
        store_collect(s, op->ckpt);
        store_sync_hand(s, op);
        break;
    case OP_SYNC:
        store_sync_hand(s, op);
        break;
    case OP_RELOCATE:
        do_relocate(s, op);
        break;
    case OP_MARK:
        do_mark(s, op);
        break;
    }
}

static void done_writing(struct store *s)
{
    lock_acquire(&s->queue_lock);
    s->writing = false;
    if (s->queue.head || s->stopping)
        cond_signal(&s->queue_cond);
    lock_release(&s->queue_lock);
}

void store_write_here(struct store *s, struct op *op)
{
    do_op(s, op);
    flush(s);
    done_writing(s);
}

void *store_writer_main(void *arg)
{
    struct store *s = arg;
    struct op_queue mine;
    for (;;) {
        lock_acquire(&s->queue_lock);
        while (s->writing || (!s->queue.head && !s->stopping))
            cond_wait(&s->queue_cond, &s->queue_lock);
        mine = s->queue;
        if (mine.head)
            op_queue_init(&s->queue);
        bool stop = s->stopping;
        s->writing = true;
        lock_release(&s->queue_lock);
        /* mine.tail may point into the emptied queue when there was nothing: head says so. */
        bool idle = !mine.head;
        while (mine.head)
            do_op(s, op_queue_pop(&mine));
        flush(s);
        done_writing(s);
        if (idle && stop)
            return NULL;
    }
}
