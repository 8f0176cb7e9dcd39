/* Compaction: emptying a segment that is mostly dead, and finding dead ranges that a restart
 * forgot.
 *
 * Each live record is read and handed to the writer, which writes it again at the log's end if the
 * index still points at the old place, and moves the index. A record keeps its generation,
 * checksums and time, so for recovery the later one simply wins; a crash anywhere leaves two equal
 * records. Payload is not checked here: a damaged block stays as damaged as it was and is found by
 * who reads it.
 *
 * DELETE and COMMIT records move too, as long as they are needed: a DELETE while a segment exists
 * that may hold what it killed, a COMMIT while its generation is the chunk's. They are durable in
 * their new place before the old segment is given up. Maintenance thread only. */
#include "store_internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/crc32c.h"
#include "base/error.h"
#define LOG_MODULE "store"
#include "base/log.h"

#define SWEEP_SLACK (4u << 20)

struct compaction {
    struct store *s;
    struct segment *sg;
};

/* Does the index point at this record? */
static bool is_live(struct store *s, const struct segment *sg, const struct record *r, uint32_t pos)
{
    struct chunk_row row;
    struct extents x = {0};
    int rc = index_lookup(&s->ix, r->chunk, r->chunk_off, r->chunk_off + 1, &row, &x);
    bool live = !rc && x.n == 1 && row.gen == r->gen && x.v[0].seg == sg->id && x.v[0].pos == pos;
    free(x.v);
    return live;
}

static int move_record(void *arg, const struct record *r, uint32_t pos)
{
    struct compaction *c = arg;
    if (r->type != RECORD_DATA && r->type != RECORD_COPY)
        return 0;
    if (c->s->failed || c->s->maint_stop)
        return -ERR_SHUTDOWN;
    if (!is_live(c->s, c->sg, r, pos))
        return 0;
    size_t n = crc_blocks(r->len);
    struct op *op = op_new(OP_RELOCATE, (n + 1) / 2, NULL, NULL);
    op->r = *r;
    memcpy(op->words, r->crcs, 4 * n);
    op->r.crcs = (const uint8_t *)op->words;
    op->src = (struct ext){r->chunk_off, r->len, (uint32_t)c->sg->id, pos};
    op->data = buf_new(r->len);
    op->data->len = r->len;
    int rc = segment_read(c->sg, op->data->data, r->len, (uint64_t)pos + r->header_len);
    if (rc) {
        op_complete(op, rc);
        return rc;
    }
    return store_submit_wait(c->s, op);
}

struct mark_list {
    struct mark *v;
    size_t n, cap;
};

static int note_mark(void *arg, const struct mark *m)
{
    struct mark_list *l = arg;
    l->v = delta_grow(l->v, &l->cap, l->n + 1, sizeof(*l->v));
    l->v[l->n++] = *m;
    return 0;
}

/* Any segment but this one that may hold records which the DELETE killed? */
static bool delete_needed(struct store *s, const struct segment *sg, const struct mark *m)
{
    if (m->lo < sg->id && segments_any(&s->segs, m->lo, m->hi < sg->id ? m->hi : sg->id - 1))
        return true;
    return m->hi > sg->id && segments_any(&s->segs, m->lo > sg->id ? m->lo : sg->id + 1, m->hi);
}

static void move_mark(struct store *s, struct segment *sg, const struct mark *m)
{
    if (m->type == RECORD_DELETE && !delete_needed(s, sg, m))
        return;
    struct op *op = op_new(OP_MARK, 0, NULL, NULL);
    uint8_t h[RECORD_FIXED];
    if (segment_read(sg, h, sizeof(h), m->pos) ||
        record_decode(h, sizeof(h), record_seed(s->segs.base, sg->id, m->pos), &op->r)) {
        log_warn("%s/%s: the record at offset %u is damaged; it is written anew from the index",
                 s->dir, sg->name, m->pos);
        op->r = (struct record){.type = m->type, .chunk = m->chunk, .gen = m->gen};
        op->r.ino = m->lo;
        op->r.file_off = m->hi;
    }
    op->r.crcs = NULL;
    store_submit(s, op);
}

static int move_marks(struct store *s, struct segment *sg)
{
    if (!sg->marks)
        return 0;
    struct mark_list l = {0};
    int rc = index_db_marks(s->db, sg->id, note_mark, &l);
    for (size_t i = 0; i < l.n && !rc; i++)
        move_mark(s, sg, &l.v[i]);
    free(l.v);
    if (!rc)
        rc = store_submit_wait(s, op_new(OP_SYNC, 0, NULL, NULL));
    if (!rc)
        sg->marks = 0;
    return rc;
}

bool store_compact_wanted(const struct store *s, const struct segment *sg)
{
    uint64_t size = sg->size, live = sg->live;
    if (sg->stuck || sg->id >= s->committed.seg || (live == 0 && sg->marks == 0))
        return false;
    return live == 0 || live < (size - SEGMENT_HEADER) / 4;
}

int store_compact(struct store *s, struct segment *sg)
{
    struct compaction c = {s, sg};
    struct segment_scan scan = {.record = move_record, .arg = &c};
    int rc = sg->live ? segment_scan(&s->segs, sg, SEGMENT_HEADER, &scan) : 0;
    if (!rc && sg->live) {
        log_error("%s/%s: %llu live bytes cannot be found again in the segment: their records are "
                  "damaged. The chunks are repaired when they are read or verified",
                  s->dir, sg->name, (unsigned long long)sg->live);
        return -ERR_CORRUPT;
    }
    return rc ? rc : move_marks(s, sg);
}

/* ---- forgotten ranges ---- */

static int sweep_record(void *arg, const struct record *r, uint32_t pos)
{
    struct compaction *c = arg;
    bool data = r->type == RECORD_DATA || r->type == RECORD_COPY;
    if (data && !is_live(c->s, c->sg, r, pos))
        dead_add(&c->s->to_punch, &(struct dead_range){(uint32_t)c->sg->id, pos, record_size(r)});
    return c->s->maint_stop ? -ERR_SHUTDOWN : 0;
}

int store_sweep(struct store *s, struct segment *sg)
{
    uint64_t slack = sg->size / 16 > SWEEP_SLACK ? sg->size / 16 : SWEEP_SLACK;
    if (sg->id >= s->committed.seg || sg->alloc < sg->live + slack)
        return 0;
    struct compaction c = {s, sg};
    struct segment_scan scan = {.record = sweep_record, .arg = &c};
    return segment_scan(&s->segs, sg, SEGMENT_HEADER, &scan);
}
