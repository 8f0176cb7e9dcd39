/* Reading: from (chunk, range) to bytes and their checksums, on the caller's thread.
 *
 * A read looks up the extents, then turns each into two pieces of a segment: the record's header
 * (its checksums, whose place is proven by the header CRC) and the wanted blocks of its payload.
 * Pieces that lie close together become one preadv (the gap between goes to a scratch page), so a
 * small record, a run of small records, or the beginning of a large one costs one system call,
 * anything else two.
 *
 * Who wants to know what the disk has (STORE_SCRUB) reads past the page cache (direct.c).
 *
 * Everything happens inside a grace section: what the lookup found stays in place until the read is
 * over, even if the chunk is deleted or moved meanwhile.
 *
 * Failure modes: a header that does not prove itself, or (with verify) wrong bytes: -ERR_CRC, this
 * copy is bad; a read error: -EIO. */
#include "store_internal.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "direct.h"
#include "base/crc32c.h"
#include "base/error.h"
#define LOG_MODULE "store"
#include "base/log.h"

#define GAP_MAX (32u << 10) /* reading on is cheaper than another system call */
#define RUN_IOV 128

struct piece {
    uint32_t seg;
    uint64_t pos;
    size_t len;
    uint8_t *to;
};
/* A preadv being put together. */
struct run {
    struct store *s;
    int flags;   /* of preadv2 */
    bool direct; /* past the page cache */
    struct iovec iov[RUN_IOV];
    int n;
    uint32_t seg;
    uint64_t pos, end;
    int code;
    uint8_t *scratch; /* GAP_MAX bytes where gaps go */
};

/* Who reads for the sake of checking says what came of it, and reads what is bad again and again. */
static enum log_level bad_level(bool direct)
{
    return direct ? LOG_LVL_DEBUG : LOG_LVL_ERROR;
}

static void run_failed(struct run *r, const struct segment *sg, int code)
{
    log_line(bad_level(r->direct), LOG_MODULE, "%s/%s: cannot read at offset %llu: %s", r->s->dir,
             sg->name, (unsigned long long)r->pos,
             code == -ERR_CORRUPT ? "the file ends before the record does" : err_str(code));
    r->code = -EIO;
}

static void run_read(struct run *r, const struct segment *sg, int fd)
{
    struct iovec *iov = r->iov;
    int n = r->n;
    uint64_t pos = r->pos;
    while (n > 0) {
        ssize_t got = preadv2(fd, iov, n, (off_t)pos, r->flags);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && r->flags) { /* the next may come after some of it */
            r->code = -EAGAIN;
            return;
        }
        if (got <= 0) {
            run_failed(r, sg, got < 0 ? -errno : -ERR_CORRUPT);
            return;
        }
        pos += (uint64_t)got;
        for (; n > 0 && (size_t)got >= iov->iov_len; iov++, n--)
            got -= (ssize_t)iov->iov_len;
        if (n > 0 && got > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + got;
            iov->iov_len -= (size_t)got;
        }
    }
    r->n = 0;
}

static void run_flush(struct run *r)
{
    if (!r->n || r->code)
        return;
    struct segment *sg = segments_find(&r->s->segs, r->seg);
    int fd = sg ? segment_hold(sg) : -EIO;
    if (fd < 0) {
        r->code = segment_no_fd(fd) ? -ERR_BUSY : -EIO;
        return;
    }
    int rc = r->direct ? direct_read(fd, r->iov, r->n, r->pos) : 0;
    if (!r->direct)
        run_read(r, sg, fd);
    else if (rc == -ENOMEM)
        r->code = rc;
    else if (rc)
        run_failed(r, sg, rc);
    r->n = 0;
    segment_drop(sg);
}

static void run_add(struct run *r, const struct piece *p)
{
    bool joins = r->n > 0 && r->n + 2 <= RUN_IOV && p->seg == r->seg && p->pos >= r->end &&
                 p->pos - r->end <= GAP_MAX;
    if (!joins) {
        run_flush(r);
        r->seg = p->seg;
        r->pos = r->end = p->pos;
        r->n = 0;
    }
    if (p->pos > r->end)
        r->iov[r->n++] = (struct iovec){r->scratch, p->pos - r->end};
    r->iov[r->n++] = (struct iovec){p->to, p->len};
    r->end = p->pos + p->len;
}

/* ---- store_read ---- */

/* The blocks of e that cover [off, end): span relative to the chunk, first block's index in *block.
 */
static struct store_span cover(const struct ext *e, uint32_t off, uint32_t end, uint32_t *block)
{
    uint32_t from = off > e->off ? (off - e->off) / CRC_BLOCK * CRC_BLOCK : 0;
    uint64_t to = end < e->off + e->len ? end - e->off : e->len;
    to = (to + CRC_BLOCK - 1) / CRC_BLOCK * CRC_BLOCK;
    if (to > e->len)
        to = e->len;
    *block = from / CRC_BLOCK;
    return (struct store_span){.chunk_off = e->off + from, .len = (uint32_t)to - from};
}

/* spans, then their checksums, in one allocation; headers go to *headers, one RECORD_HEADER_MAX at
 * most each. */
struct reading {
    struct extents x;
    uint32_t off, end;
    uint8_t *headers;
};

static int read_layout(struct reading *rd, struct store_read *out)
{
    size_t bytes = 0, crcs = 0, headers = 0;
    uint32_t block;
    for (uint32_t i = 0; i < rd->x.n; i++) {
        struct store_span sp = cover(&rd->x.v[i], rd->off, rd->end, &block);
        bytes += sp.len;
        crcs += 4 * crc_blocks(sp.len);
        headers += record_header_len(rd->x.v[i].len);
    }
    out->n = rd->x.n;
    out->spans = malloc(out->n * sizeof(*out->spans) + crcs);
    rd->headers = malloc(headers);
    if (!out->spans || !rd->headers)
        return -ENOMEM;
    out->data = buf_new(bytes);
    out->data->len = bytes;
    return 0;
}

static int read_pieces(struct store *s, struct reading *rd, enum store_read_how how,
                       struct store_read *out)
{
    uint8_t scratch[GAP_MAX];
    struct run run = {.s = s,
                      .flags = how == STORE_CACHED ? RWF_NOWAIT : 0,
                      .direct = how == STORE_SCRUB,
                      .scratch = scratch};
    uint8_t *data = out->data->data, *crcs = (uint8_t *)(out->spans + out->n), *h = rd->headers;
    for (uint32_t i = 0; i < out->n; i++) {
        const struct ext *e = &rd->x.v[i];
        uint32_t block, header_len = record_header_len(e->len);
        out->spans[i] = cover(e, rd->off, rd->end, &block);
        out->spans[i].crcs = crcs;
        crcs += 4 * crc_blocks(out->spans[i].len);
        run_add(&run, &(struct piece){e->seg, e->pos, header_len, h});
        run_add(&run, &(struct piece){e->seg, (uint64_t)e->pos + header_len + block * CRC_BLOCK,
                                      out->spans[i].len, data});
        h += header_len;
        data += out->spans[i].len;
    }
    run_flush(&run);
    return run.code;
}

static int bad_record(struct store *s, const struct ext *e, uint64_t chunk, const char *what,
                      bool direct)
{
    log_line(bad_level(direct), LOG_MODULE,
             "%s: seg-%016x.log: %s of the record at offset %u (chunk %llu, offset %u): this copy "
             "is bad",
             s->dir, e->seg, what, e->pos, (unsigned long long)chunk, e->off);
    return -ERR_CRC;
}

/* Proves the headers and hands out the checksums. */
static int read_check(struct store *s, uint64_t chunk, struct reading *rd, enum store_read_how how,
                      struct store_read *out)
{
    bool verify = how == STORE_VERIFY || how == STORE_SCRUB;
    const uint8_t *h = rd->headers, *data = out->data->data;
    for (uint32_t i = 0; i < out->n; i++) {
        const struct ext *e = &rd->x.v[i];
        struct store_span *sp = &out->spans[i];
        struct record r;
        uint32_t header_len = record_header_len(e->len);
        int rc = record_decode(h, header_len, record_seed(s->segs.base, e->seg, e->pos), &r);
        if (rc || r.chunk != chunk || r.chunk_off != e->off || r.len != e->len)
            return bad_record(s, e, chunk, "damaged header", how == STORE_SCRUB);
        memcpy(sp->crcs, r.crcs + 4 * ((sp->chunk_off - e->off) / CRC_BLOCK),
               4 * crc_blocks(sp->len));
        if (verify && crc_blocks_check(data, sp->len, sp->crcs) >= 0)
            return bad_record(s, e, chunk, "damaged data", how == STORE_SCRUB);
        h += header_len;
        data += sp->len;
    }
    return 0;
}

/* An index that cannot be read is the disk's failure: none of its chunks can be found any more. */
static int look_up(struct store *s, uint64_t chunk, uint32_t from, uint32_t to,
                   struct chunk_row *row, struct extents *x)
{
    int rc = index_lookup(&s->ix, chunk, from, to, row, x);
    if (rc != -ERR_CORRUPT && rc != -EIO)
        return rc;
    store_lose_index(s, rc);
    return -EIO;
}

static int read_inside(struct store *s, uint64_t chunk, struct reading *rd, enum store_read_how how,
                       struct store_read *out)
{
    struct chunk_row row;
    int rc = look_up(s, chunk, rd->off, rd->end, &row, &rd->x);
    if (rc)
        return rc;
    out->chunk_len = row.len;
    if (rd->end > row.len)
        return -ERR_SHORT;
    rc = read_layout(rd, out);
    if (!rc)
        rc = read_pieces(s, rd, how, out);
    return rc ? rc : read_check(s, chunk, rd, how, out);
}

int store_read(struct store *s, uint64_t chunk, uint32_t off, uint32_t len, enum store_read_how how,
               struct store_read *out)
{
    memset(out, 0, sizeof(*out));
    if (len == 0)
        return -EINVAL;
    struct reading rd = {.off = off, .end = off + len};
    if (off > UINT32_MAX - len)
        rd.end = UINT32_MAX; /* longer than any chunk: ends as -ERR_SHORT */
    unsigned g = grace_enter(&s->grace);
    int rc = read_inside(s, chunk, &rd, how, out);
    grace_leave(&s->grace, g);
    free(rd.x.v);
    free(rd.headers);
    if (rc) {
        free(out->spans);
        out->spans = NULL;
        out->n = 0;
        buf_unrefp(&out->data);
        return rc;
    }
    if (how != STORE_SCRUB)
        s->read_bytes += out->data->len;
    return 0;
}

bool store_same_bytes(struct store *s, const struct extents *x, uint32_t off, uint32_t len,
                      const uint8_t *p)
{
    uint8_t *have = malloc(RECORD_PAYLOAD_MAX);
    if (!have)
        return false;
    bool same = true;
    uint32_t end = off + len;
    for (uint32_t i = extents_find(x, off); same && off < end; i++) {
        if (i >= x->n || x->v[i].off > off) {
            same = false;
            break;
        }
        const struct ext *e = &x->v[i];
        struct segment *sg = segments_find(&s->segs, e->seg);
        uint32_t to = end < e->off + e->len ? end : e->off + e->len;
        uint64_t pos = (uint64_t)e->pos + record_header_len(e->len) + (off - e->off);
        same = sg && !segment_read(sg, have, to - off, pos) && !memcmp(have, p, to - off);
        p += to - off;
        off = to;
    }
    free(have);
    return same;
}

/* ---- whose bytes they are ---- */

/* The header of e's record: 0, -ERR_CRC, -EIO. */
static int part_header(struct store *s, uint64_t chunk, const struct ext *e, uint8_t *h,
                       struct record *r)
{
    uint32_t len = record_header_len(e->len);
    struct segment *sg = segments_find(&s->segs, e->seg);
    if (!sg || segment_read(sg, h, len, e->pos) != 0)
        return -EIO;
    int rc = record_decode(h, len, record_seed(s->segs.base, e->seg, e->pos), r);
    return rc || r->chunk != chunk ? bad_record(s, e, chunk, "damaged header", false) : 0;
}

static bool part_joins(const struct store_part *a, const struct store_part *b)
{
    return a->ino == b->ino && a->chunk_off + a->len == b->chunk_off &&
           (!a->ino || a->file_off + a->len == b->file_off);
}

static int parts_inside(struct store *s, uint64_t chunk, const struct extents *x, uint32_t from,
                        uint32_t to, struct store_part *out, size_t max, size_t *n)
{
    uint8_t *h = malloc(RECORD_HEADER_MAX);
    int rc = h ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < x->n && !rc; i++) {
        const struct ext *e = &x->v[i];
        uint32_t lo = e->off > from ? e->off : from;
        uint32_t hi = e->off + e->len < to ? e->off + e->len : to;
        struct record r;
        rc = part_header(s, chunk, e, h, &r);
        if (rc)
            break;
        struct store_part p = {r.ino, r.ino ? r.file_off + (lo - e->off) : 0, lo, hi - lo};
        if (*n && part_joins(&out[*n - 1], &p))
            out[*n - 1].len += p.len;
        else if (*n < max)
            out[(*n)++] = p;
        else
            break;
    }
    free(h);
    return rc;
}

int store_parts(struct store *s, uint64_t chunk, uint32_t from, uint32_t to, struct store_part *out,
                size_t max, size_t *n)
{
    struct chunk_row row;
    struct extents x = {0};
    *n = 0;
    unsigned g = grace_enter(&s->grace);
    int rc = look_up(s, chunk, from, to, &row, &x);
    if (!rc)
        rc = parts_inside(s, chunk, &x, from, to, out, max, n);
    grace_leave(&s->grace, g);
    free(x.v);
    return rc;
}

/* ---- the rest ---- */

int store_chunk_len(struct store *s, uint64_t chunk, uint32_t *len, uint64_t *session)
{
    struct chunk_row row;
    int rc = look_up(s, chunk, 0, 0, &row, NULL);
    if (rc)
        return rc;
    if (len)
        *len = row.len;
    if (session)
        *session = row.session;
    return 0;
}

uint64_t store_traffic(const struct store *s)
{
    return s->read_bytes + s->append_bytes;
}

void store_walk(struct store *s,
                bool (*fn)(void *arg, uint64_t chunk, uint32_t len, uint64_t session), void *arg)
{
    int rc = index_walk(&s->ix, fn, arg);
    if (rc)
        store_lose_index(s, rc);
}
