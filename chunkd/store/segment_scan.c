/* Walking the records of one segment, for recovery, rebuilding and compaction.
 *
 * States: in step (pos is where a record must start) or lost (what was at pos is no record: search
 * on, 8 bytes at a time, for the next place where one proves itself by its CRC, which is bound to
 * the place). A good header with bad payload is damage too, but keeps the scan in step, as its
 * length is trusted. Zeros are holes of given-back space or never written: not damage when lost
 * between records.
 *
 * Reads go through one window. When payload need not be checked and records are large, only headers
 * are read. An unreadable block (EIO) counts as damage, so that one bad sector does not hide what
 * is behind it. Any thread, own buffers. */
#include "segment.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/crc32c.h"
#include "base/error.h"
#include "base/byteorder.h"
#define LOG_MODULE "store"
#include "base/log.h"

#define WINDOW (2u << 20)
#define WINDOW_SMALL 4096u

struct scanner {
    struct segments *t;
    struct segment *sg;
    struct segment_scan *sc;
    int fd;
    uint8_t *win;
    uint64_t win_pos, win_len;
    uint64_t size;
    bool sparse;       /* large records, payload not wanted: read headers only */
    uint64_t bad_from; /* start of the damage being passed, or UINT64_MAX */
    bool bad_nonzero;
};

/* At least want bytes at pos (fewer at the end of the file; unreadable bytes come back as zeros).
 */
static const uint8_t *window(struct scanner *s, uint64_t pos, size_t want, size_t *got)
{
    if (want > s->size - pos)
        want = s->size - pos;
    if (pos < s->win_pos || pos + want > s->win_pos + s->win_len) {
        size_t n = s->sparse && want <= WINDOW_SMALL ? WINDOW_SMALL : WINDOW;
        if (n > s->size - pos)
            n = s->size - pos;
        int rc = segment_read(s->sg, s->win, n, pos);
        if (rc == -EIO || rc == -ERR_CORRUPT) {
            n = n < WINDOW_SMALL ? n : WINDOW_SMALL;
            if (segment_read(s->sg, s->win, n, pos)) {
                log_error("%s/%s: cannot read at offset %llu: %s", s->t->dir, s->sg->name,
                          (unsigned long long)pos, err_str(rc));
                memset(s->win, 0xff, n);
            }
        } else if (rc) {
            memset(s->win, 0xff, n);
        }
        s->win_pos = pos;
        s->win_len = n;
    }
    *got = s->win_pos + s->win_len - pos;
    return s->win + (pos - s->win_pos);
}

static bool payload_good(struct scanner *s, const struct record *r, uint64_t pos)
{
    uint8_t crcs[RECORD_HEADER_MAX];
    memcpy(crcs, r->crcs, r->header_len - RECORD_FIXED);
    size_t got;
    const uint8_t *p = window(s, pos + r->header_len, r->len, &got);
    return got >= r->len && crc_blocks_check(p, r->len, crcs) < 0;
}

static void bad_begin(struct scanner *s, uint64_t pos, bool nonzero)
{
    if (s->bad_from == UINT64_MAX) {
        s->bad_from = pos;
        s->bad_nonzero = false;
    }
    s->bad_nonzero |= nonzero;
}

static void bad_end(struct scanner *s, uint64_t to, bool to_end)
{
    s->sc->zeros = !s->bad_nonzero;
    if (s->bad_from != UINT64_MAX && (s->bad_nonzero || to_end) && s->sc->bad)
        s->sc->bad(s->sc->arg, s->bad_from, to, to_end);
    s->bad_from = UINT64_MAX;
}

/* Next offset > pos at which the magic number stands, or the size. Notes whether bytes passed over
 * are all zero. */
static uint64_t next_candidate(struct scanner *s, uint64_t pos)
{
    for (pos += RECORD_ALIGN; pos + RECORD_FIXED <= s->size;) {
        if (pos % WINDOW_SMALL == 0) {
            off_t data = lseek(s->fd, (off_t)pos, SEEK_DATA);
            if (data < 0 && errno == ENXIO)
                return s->size;
            if (data > (off_t)pos)
                pos = (uint64_t)data / RECORD_ALIGN * RECORD_ALIGN;
            if (pos + RECORD_FIXED > s->size)
                break;
        }
        size_t got;
        const uint8_t *p = window(s, pos, RECORD_FIXED, &got);
        if (le_get32(p) == RECORD_MAGIC)
            return pos;
        s->bad_nonzero |= le_get64(p) != 0;
        pos += RECORD_ALIGN;
    }
    return s->size;
}

/* The record at pos is good up to its header: true when the whole can be used. */
static bool record_usable(struct scanner *s, const struct record *r, uint64_t pos)
{
    if (pos + record_size(r) > s->size && pos + r->header_len + r->len > s->size)
        return false;
    bool payload = r->type == RECORD_DATA || r->type == RECORD_COPY;
    return !payload || !s->sc->verify || payload_good(s, r, pos);
}

static int scan_loop(struct scanner *s, uint64_t pos)
{
    while (pos + RECORD_FIXED <= s->size) {
        size_t got;
        struct record r;
        const uint8_t *p = window(s, pos, RECORD_HEADER_MAX, &got);
        uint64_t first = le_get64(p);
        int rc = record_decode(p, got, record_seed(s->t->base, s->sg->id, (uint32_t)pos), &r);
        if (rc == -ERR_VERSION) {
            log_error(
                "%s/%s: the record at offset %llu has a newer format. Install the replfs version "
                "that wrote it",
                s->t->dir, s->sg->name, (unsigned long long)pos);
            return rc;
        }
        if (rc) {
            bad_begin(s, pos, first != 0);
            pos = next_candidate(s, pos);
            continue;
        }
        uint64_t next = pos + record_size(&r);
        s->sparse = !s->sc->verify && r.len > 64u << 10;
        if (!record_usable(s, &r, pos)) {
            bad_begin(s, pos, true);
            pos = next;
            continue;
        }
        bad_end(s, pos, false);
        s->sc->end = next < s->size ? next : s->size;
        /* The window may have moved to check the payload: decode again for the checksums' sake. */
        p = window(s, pos, RECORD_HEADER_MAX, &got);
        r.crcs = p + RECORD_FIXED;
        rc = s->sc->record(s->sc->arg, &r, (uint32_t)pos);
        if (rc)
            return rc;
        pos = next;
    }
    if (s->bad_from != UINT64_MAX || pos < s->size) {
        bad_begin(s, pos, false);
        bad_end(s, s->size, true);
    }
    return 0;
}

int segment_scan(struct segments *t, struct segment *sg, uint64_t from, struct segment_scan *sc)
{
    struct scanner s = {.t = t, .sg = sg, .sc = sc, .size = sg->size, .bad_from = UINT64_MAX};
    sc->end = from;
    if (from >= s.size)
        return 0;
    s.win = malloc(WINDOW);
    if (!s.win)
        return -ENOMEM;
    s.fd = segment_hold(sg);
    int rc = s.fd < 0 ? s.fd : scan_loop(&s, from);
    if (s.fd >= 0)
        segment_drop(sg);
    free(s.win);
    return rc;
}
