/* Recovery: from the files of a directory to a store that can run.
 *
 * 1. The index is opened and compared with the log: format, identity, and that every segment with
 *    live records exists and is as long as the index knows it. Any doubt, or an index that the disk
 *    cannot read: it is removed and made anew from the log; in RAM, when the disk takes no writes.
 * 2. The log is read from the index's position to its end, and every record put into the index as
 *    the writer would have. The rules of record.h make that right wherever it starts: a record that
 *    the index has already, or that a later one replaced, changes nothing. COPY records wait in a
 *    copy of their own until their COMMIT; those without one are dropped at the end.
 * 3. Payload is checked where a crash may have left a header without its bytes: behind the
 *    position, or, when rebuilding, in the last few segments.
 * 4. What follows the last good record of the last segment is a torn tail, or zeros
 *    put there in advance, and cut off. Damage before it is reported with file and offset; the
 *    chunk's length then ends before what is missing.
 *
 * Runs alone, before any thread is started, in the role of the writer. Large rebuilds checkpoint on
 * the way to keep memory bounded. */
#include "store_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/error.h"
#define LOG_MODULE "store"
#include "base/log.h"

#define MAP_MIN (1ull << 30)
#define MAP_MAX (1ull << 40)
#define VERIFY_SEGMENTS 4      /* when rebuilding: the last so many are checked byte by byte */
#define REBUILDING 1           /* offset in the position's segment 0 while a rebuild runs */
#define REBUILD_CHUNKS 100000u /* dirty chunks before a checkpoint on the way */

struct recovery {
    struct store *s;
    struct segment *sg;
    bool rebuild;
    bool last; /* sg is the last segment */
    uint64_t records, bytes;
    uint64_t cut_from; /* torn tail of the last segment; UINT64_MAX: none */
    const struct segment_scan *sc;
    int code;
};

/* ---- replaying one record ---- */

static bool later(const struct ext *a, const struct ext *b)
{
    return a->seg > b->seg || (a->seg == b->seg && a->pos > b->pos);
}

/* Does something further on in the log already hold (part of) this range? */
static bool superseded(const struct extents *x, const struct ext *e)
{
    for (uint32_t i = extents_find(x, e->off); i < x->n && x->v[i].off < e->off + e->len; i++)
        if (later(&x->v[i], e))
            return true;
    return false;
}

static struct copy *pending(struct store *s, const struct record *r, bool create)
{
    for (struct copy *cp = s->copies; cp; cp = cp->next)
        if (cp->chunk == r->chunk && cp->gen == r->gen)
            return cp;
    if (!create)
        return NULL;
    struct copy *cp = calloc(1, sizeof(*cp));
    if (!cp)
        abort();
    cp->chunk = r->chunk;
    cp->gen = r->gen;
    cp->session = r->session;
    cp->lo = UINT64_MAX;
    cp->next = s->copies;
    return s->copies = cp;
}

static void replay_data(struct store *s, const struct record *r, struct chunk *c,
                        const struct ext *e)
{
    bool current = !c->gone && c->row.gen == r->gen;
    if (!current && r->type == RECORD_COPY) {
        if (!c->gone && c->row.gen > r->gen)
            return;
        struct copy *cp = pending(s, r, true);
        extents_put(&cp->x, e, store_extent, s);
        cp->lo = cp->lo < e->seg ? cp->lo : e->seg;
        cp->hi = cp->hi > e->seg ? cp->hi : e->seg;
        return;
    }
    if (!current && !c->gone && c->row.gen > r->gen)
        return;
    if (!current)
        index_start(&s->ix, c, r->gen, r->session);
    if (!superseded(&c->x, e))
        index_put(&s->ix, c, e);
}

static void replay_commit(struct store *s, const struct record *r, struct chunk *c)
{
    struct copy *cp = pending(s, r, false);
    if (!c->gone && c->row.gen >= r->gen) {
        if (cp)
            store_copy_drop(s, cp);
        return;
    }
    struct extents none = {0};
    index_swap(&s->ix, c, r->gen, cp ? cp->session : r->session, cp ? &cp->x : &none, r->ino,
               r->file_off);
    if (cp)
        store_copy_drop(s, cp);
}

static int replay(struct store *s, const struct record *r, uint64_t seg, uint32_t pos)
{
    struct chunk *c;
    if (r->gen >= s->next_gen)
        s->next_gen = r->gen + 1;
    int rc = index_get(&s->ix, r->chunk, true, &c);
    if (rc)
        return rc;
    struct ext e = {.off = r->chunk_off, .len = r->len, .seg = (uint32_t)seg, .pos = pos};
    switch (r->type) {
    case RECORD_DATA:
    case RECORD_COPY:
        replay_data(s, r, c, &e);
        break;
    case RECORD_COMMIT:
        replay_commit(s, r, c);
        store_mark(s, r, seg, pos);
        break;
    case RECORD_DELETE:
        if (!c->gone && c->row.gen <= r->gen)
            index_remove(&s->ix, c);
        store_mark(s, r, seg, pos);
        break;
    }
    return 0;
}

/* ---- scanning ---- */

/* While rebuilding: LMDB takes over what has piled up. Positions and marks go along; with copies
 * pending, which are only in RAM, it has to wait (the position written would be wrong for them, but
 * a rebuild that is interrupted starts from scratch anyway, as the position stays at zero until the
 * end). */
static int spill(struct recovery *rv)
{
    struct checkpoint ck = {0};
    store_collect(rv->s, &ck);
    ck.delta.pos = (struct log_pos){0, REBUILDING};
    int rc = store_commit(rv->s, &ck);
    checkpoint_free(&ck);
    return rc;
}

static int on_record(void *arg, const struct record *r, uint32_t pos)
{
    struct recovery *rv = arg;
    rv->records++;
    rv->bytes += record_size(r);
    if (r->type == RECORD_DEAD)
        return 0;
    int rc = replay(rv->s, r, rv->sg->id, pos);
    if (!rc && rv->s->ix.dirty.n > REBUILD_CHUNKS && !rv->s->readonly)
        rc = spill(rv);
    return rc;
}

static void on_bad(void *arg, uint64_t from, uint64_t to, bool to_end)
{
    struct recovery *rv = arg;
    if (to_end && rv->last) {
        rv->cut_from = from;
        return;
    }
    if (to_end && rv->sc->zeros)
        return; /* put there in advance; that they were cut off is not synced */
    log_error(
        "%s/%s: %llu bytes at offset %llu are no valid records. What they held is missing from its "
        "chunks and is repaired from other copies",
        rv->s->dir, rv->sg->name, (unsigned long long)(to - from), (unsigned long long)from);
}

static int truncate_segment(struct segment *sg, uint64_t end)
{
    int fd = segment_hold(sg);
    int rc = fd < 0 ? fd : ftruncate(fd, (off_t)end) ? -errno : 0;
    if (fd >= 0)
        segment_drop(sg);
    return rc;
}

static int cut_tail(struct recovery *rv, uint64_t end)
{
    if (!rv->sc->zeros)
        log_warn("%s/%s: %llu bytes behind the last whole record (offset %llu) were being written "
                 "when the daemon or machine stopped; they are cut off",
                 rv->s->dir, rv->sg->name, (unsigned long long)(rv->sg->size - end),
                 (unsigned long long)end);
    int rc = rv->s->readonly ? 0 : truncate_segment(rv->sg, end);
    if (rc)
        return rc;
    rv->sg->size = end;
    rv->sg->row_dirty = true;
    segment_update_alloc(rv->sg);
    return 0;
}

static int scan_one(struct recovery *rv, struct segment *sg, uint64_t from, bool verify)
{
    rv->sg = sg;
    rv->cut_from = UINT64_MAX;
    struct segment_scan sc = {.record = on_record, .bad = on_bad, .arg = rv, .verify = verify};
    rv->sc = &sc;
    int rc = segment_scan(&rv->s->segs, sg, from, &sc);
    if (rc)
        return rc;
    return rv->cut_from != UINT64_MAX ? cut_tail(rv, sc.end) : 0;
}

static int scan_log(struct recovery *rv, const struct log_pos *start)
{
    struct segments *t = &rv->s->segs;
    int rc = 0;
    for (size_t i = 0; i < t->n && !rc; i++) {
        struct segment *sg = t->v[i];
        if (sg->id < start->seg)
            continue;
        uint64_t from = sg->id == start->seg ? start->pos : SEGMENT_HEADER;
        if (from < SEGMENT_HEADER)
            from = SEGMENT_HEADER;
        rv->last = i == t->n - 1;
        rc = scan_one(rv, sg, from, !rv->rebuild || i + VERIFY_SEGMENTS >= t->n);
    }
    return rc;
}

/* ---- the index against the log ---- */

static int check_row(void *arg, const struct segment_row *row)
{
    struct store *s = arg;
    struct segment *sg = segments_find(&s->segs, row->id);
    if (!sg) {
        if (row->live == 0)
            return 0; /* removed, and the row was not, when the daemon stopped */
        log_error(
            "%s/seg-%016" PRIx64 ".log is missing, with %" PRIu64
            " bytes of chunks in it. They are "
            "repaired from other copies, or put the file back and restart with --rebuild-index",
            s->dir, row->id, row->live);
        return -ERR_CORRUPT;
    }
    if (sg->size < row->size) {
        log_error("%s/%s has %" PRIu64 " bytes, but had %" PRIu64 ": it was cut", s->dir, sg->name,
                  (uint64_t)sg->size, row->size);
        return -ERR_CORRUPT;
    }
    sg->live = sg->live_committed = row->live;
    sg->row_dirty = sg->size != row->size;
    return 0;
}

static int count_mark(void *arg, const struct mark *m)
{
    struct store *s = arg;
    struct segment *sg = segments_find(&s->segs, m->seg);
    if (sg)
        sg->marks++;
    return 0;
}

static int check_index(struct store *s, struct log_pos *start)
{
    uint64_t next_gen;
    int rc = index_db_position(s->db, start, &next_gen);
    if (rc)
        return rc;
    if (start->seg == 0 && start->pos == REBUILDING)
        return -ERR_CORRUPT; /* it was interrupted */
    s->next_gen = next_gen ? next_gen : 1;
    rc = index_db_segments(s->db, check_row, s);
    if (!rc)
        rc = index_db_marks(s->db, 0, count_mark, s);
    struct segment *at = start->seg ? segments_find(&s->segs, start->seg) : NULL;
    if (!rc && start->seg && (!at || at->size < start->pos))
        rc = -ERR_CORRUPT;
    return rc;
}

static void forget_rows(struct store *s)
{
    for (size_t i = 0; i < s->segs.n; i++) {
        struct segment *sg = s->segs.v[i];
        sg->live = sg->live_committed = 0;
        sg->marks = 0;
        sg->row_dirty = true;
    }
    s->next_gen = 1;
}

static uint64_t map_size(const struct store *s)
{
    struct statvfs v;
    uint64_t size = fstatvfs(s->segs.dirfd, &v) ? 0 : (uint64_t)v.f_blocks * v.f_frsize / 16;
    size = size < MAP_MIN ? MAP_MIN : size > MAP_MAX ? MAP_MAX : size;
    return size & ~(uint64_t)0xffff;
}

static int make_index(struct store *s, bool *fresh)
{
    int rc = index_db_remove(s->dir);
    return rc ? rc : index_db_open(s->dir, s->segs.base, map_size(s), false, fresh, &s->db);
}

/* The index's position in the log; it is empty when there is none. */
static int try_index(struct store *s, struct log_pos *start)
{
    bool fresh = false;
    int rc = 0;
    if (s->cfg.rebuild_index)
        return s->readonly ? -ERR_CORRUPT : make_index(s, &fresh);
    rc = index_db_open(s->dir, s->segs.base, map_size(s), s->readonly, &fresh, &s->db);
    if (!rc && !fresh)
        rc = check_index(s, start);
    return rc == -ENOENT && s->db ? 0 : rc; /* the daemon stopped before its first checkpoint */
}

/* Opens the index; *start is where the log must be read from; *rebuild tells that it is empty. On a disk
 * that cannot be written, one that is of no use is made in RAM. */
static int open_index(struct store *s, struct log_pos *start, bool *rebuild)
{
    bool fresh;
    *start = (struct log_pos){0, 0};
    int rc = try_index(s, start);
    *rebuild = start->seg == 0;
    bool useless = rc == -ERR_CORRUPT || rc == -EIO || (rc && s->readonly);
    if (!useless)
        return rc;
    log_warn(
        "%s/index is damaged, of another format, or does not fit the log: it is made anew from the "
        "log",
        s->dir);
    index_db_close(s->db);
    s->db = NULL;
    forget_rows(s);
    *start = (struct log_pos){0, 0};
    *rebuild = true;
    return s->readonly ? 0 : make_index(s, &fresh);
}

int store_recover(struct store *s)
{
    struct log_pos start;
    struct recovery rv = {.s = s};
    int64_t began = clock_mono();
    int rc = open_index(s, &start, &rv.rebuild);
    if (rc) {
        log_error("%s/index: cannot open the index: %s", s->dir, err_str(rc));
        return rc;
    }
    index_init(&s->ix, s->db, store_extent, s);
    if (rv.rebuild && s->segs.n)
        log_info("%s: building the index from %zu segments", s->dir, s->segs.n);
    rc = scan_log(&rv, &start);
    if (rc)
        return rc;
    while (s->copies)
        store_copy_drop(s, s->copies);
    s->committed = start;
    s->spare = !faccessat(s->segs.dirfd, "spare", F_OK, 0);
    struct segment *last = segments_last(&s->segs);
    if (last && last->size < s->cfg.segment_size && !s->readonly)
        rc = store_set_open(s, last);
    if (rc)
        return rc;
    s->sync_from = s->segs.n ? s->segs.v[0]->id : 0;
    if (!s->readonly && (rv.records || (rv.rebuild && s->segs.n))) {
        s->written =
            1; /* not synced by this process: the sync thread and a checkpoint take it from here */
        s->dirty_since = clock_mono();
    }
    log_info("%s: %" PRIu64 " chunks; read %" PRIu64 " records, %" PRIu64
             " bytes of log in %lld ms",
             s->dir, (uint64_t)s->ix.chunks, rv.records, rv.bytes,
             (long long)((clock_mono() - began) / NSEC_PER_MSEC));
    return 0;
}
