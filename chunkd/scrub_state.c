/* replfs.scrub: how far the scrub of a disk is. Little-endian:
 *
 *   offset size  field
 *        0    8  magic "RFSCRUB" and a zero byte
 *        8    4  version 1. A newer one is not used
 *       12    4  length of the file
 *       16    4  chunkd
 *       20    4  disk
 *       24    8  number of the pass
 *       32    8  when the first pass began; times are nanoseconds since 1970
 *       40    8  when this pass began
 *       48    8  when the disk was made, as far as is known
 *       56    8  chunk that the pass has come to: those below are checked,
 *       64    4  and the bytes of it below this one
 *       68    4  mode: 0 spread over the cycle, 1 at the limit, 2 without limit
 *       72    8  paused since; 0: it is not
 *       80    8  bytes checked by this pass
 *       88    8  copies found bad, ever
 *       96    8  copies healed of these, ever
 *      104    2  marks of the pass before
 *      106    2  marks of this pass
 *      108    2  bad copies
 *      110    2  zero
 *      112    8  last chunk of this pass; 0: not known yet
 *      120  16n  marks, the former pass's first: chunk, time
 *       ...  24n bad copies: chunk, session, first bad byte (4), zero (4)
 *       end    4  CRC32C of all before
 *
 * Chunks are checked in the order of their numbers. A mark says that from its chunk on all was checked at its time or
 * later; a pass sets some hundred of them at most. So the byte that has waited longest is the one at which the pass is, and
 * it was checked when the pass before was there (scrub_state_oldest). New bytes are checked when they are written, and are
 * younger than any mark. A pass is about the chunks that were there when it began: so that it ends, however much is
 * written; what came later was written after its beginning, and has a mark of that time (scrub_state_over). A pass that begins before the one under way is over takes what that has checked from its marks,
 * the rest from those before (fold).
 *
 * Nothing is lost with the file but the knowledge: the pass begins anew, and all bytes count as old as the disk.
 *
 * Failure modes: a damaged file, another disk's, or one of a newer version is refused with a code. Times of a clock that
 * was wrong are cut to the present (scrub_state_clock). */
#include "scrub_state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/byteorder.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/private.h"

#define SCRUB_VERSION 1u
#define HEAD 120u
#define NAME "replfs.scrub"

static const char magic[8] = "RFSCRUB";

/* ---- passes and marks ---- */

void scrub_state_init(struct scrub_state *s, uint32_t chunkd, uint32_t disk, int64_t made)
{
    memset(s, 0, sizeof(*s));
    s->chunkd = chunkd;
    s->disk = disk;
    s->made = made;
}

static void mark_put(struct scrub_mark *v, unsigned *n, uint64_t chunk, int64_t time)
{
    if (*n < SCRUB_MARKS_MAX)
        v[(*n)++] = (struct scrub_mark){chunk, time};
}

/* What is known when a pass begins: of this one up to where it came, of the one before from there on. */
static void fold(struct scrub_state *s, bool over)
{
    struct scrub_mark v[SCRUB_MARKS_MAX];
    unsigned n = 0;
    int64_t behind = s->made;
    for (unsigned i = 0; i < s->ncur; i++)
        mark_put(v, &n, s->cur[i].chunk, s->cur[i].time);
    for (unsigned i = 0; i < s->nprev; i++)
        if (s->prev[i].chunk <= s->chunk)
            behind = s->prev[i].time;
    if (!over) {
        if (n == SCRUB_MARKS_MAX)
            n--; /* the time before it serves for a little more: it is older */
        mark_put(v, &n, s->chunk, behind);
    }
    for (unsigned i = 0; i < s->nprev && !over; i++)
        if (s->prev[i].chunk > s->chunk && n < SCRUB_MARKS_MAX)
            mark_put(v, &n, s->prev[i].chunk, s->prev[i].time);
    memset(s->prev, 0, sizeof(s->prev));
    memcpy(s->prev, v, n * sizeof(*v));
    s->nprev = n;
}

void scrub_state_begin(struct scrub_state *s, int64_t now, enum scrub_mode mode)
{
    if (s->pass)
        fold(s, s->chunk == UINT64_MAX);
    else
        s->first = now;
    s->pass++;
    s->begin = now;
    s->mode = mode;
    s->chunk = s->done = s->upto = 0;
    s->off = 0;
    s->ncur = 0;
    memset(s->cur, 0, sizeof(s->cur));
    mark_put(s->cur, &s->ncur, 0, now);
}

void scrub_state_reached(struct scrub_state *s, int64_t now, uint64_t chunk, uint32_t off,
                         uint64_t left)
{
    /* marks lie evenly over the bytes, however many there are */
    double whole = (double)s->done + (double)left;
    bool due = chunk > s->cur[s->ncur - 1].chunk && !(s->upto && chunk > s->upto) &&
               (double)s->done * SCRUB_MARKS_MAX >= whole * s->ncur;
    s->chunk = chunk;
    s->off = off;
    if (due && s->ncur < SCRUB_MARKS_MAX - 1)
        mark_put(s->cur, &s->ncur, chunk, now);
}

void scrub_state_over(struct scrub_state *s)
{
    if (s->upto < UINT64_MAX && s->upto + 1 > s->cur[s->ncur - 1].chunk)
        mark_put(s->cur, &s->ncur, s->upto + 1, s->begin);
    s->chunk = UINT64_MAX;
    s->off = 0;
}

int64_t scrub_state_oldest(const struct scrub_state *s)
{
    int64_t t = s->made;
    unsigned i = 0;
    for (; i < s->nprev && s->prev[i].chunk <= s->chunk; i++)
        t = s->prev[i].time;
    for (; i < s->nprev; i++) /* a pass that was not over left older ones behind younger ones */
        t = s->prev[i].time < t ? s->prev[i].time : t;
    return t;
}

static void not_after(int64_t *t, int64_t now)
{
    if (*t > now)
        *t = now;
}

void scrub_state_clock(struct scrub_state *s, int64_t now)
{
    not_after(&s->first, now);
    not_after(&s->begin, now);
    not_after(&s->made, now);
    not_after(&s->paused, now);
    for (unsigned i = 0; i < s->nprev; i++)
        not_after(&s->prev[i].time, now);
    for (unsigned i = 0; i < s->ncur; i++)
        not_after(&s->cur[i].time, now);
}

/* ---- what was found ---- */

bool scrub_state_bad(struct scrub_state *s, uint64_t chunk, uint64_t session, uint32_t off)
{
    unsigned at = s->nbad;
    for (unsigned i = 0; i < s->nbad; i++)
        if (s->bad[i].chunk == chunk)
            return false;
    if (at == SCRUB_BAD_MAX) {
        at = 0;
        for (unsigned i = 1; i < SCRUB_BAD_MAX; i++)
            if (s->bad[i].told > s->bad[at].told)
                at = i;
    } else {
        s->nbad++;
    }
    s->bad[at] = (struct scrub_bad){.chunk = chunk, .session = session, .off = off};
    s->found++;
    return true;
}

void scrub_state_good(struct scrub_state *s, unsigned i)
{
    s->bad[i] = s->bad[--s->nbad];
    s->healed++;
}

/* ---- as bytes ---- */

static uint8_t *put_marks(uint8_t *p, const struct scrub_mark *v, unsigned n)
{
    for (unsigned i = 0; i < n; i++, p += 16) {
        le_put64(p, v[i].chunk);
        le_put64(p + 8, (uint64_t)v[i].time);
    }
    return p;
}

size_t scrub_state_encode(const struct scrub_state *s, uint8_t out[SCRUB_FILE_MAX])
{
    size_t len = HEAD + 16u * (s->nprev + s->ncur) + 24u * s->nbad + 4;
    memset(out, 0, len);
    memcpy(out, magic, sizeof(magic));
    le_put32(out + 8, SCRUB_VERSION);
    le_put32(out + 12, (uint32_t)len);
    le_put32(out + 16, s->chunkd);
    le_put32(out + 20, s->disk);
    le_put64(out + 24, s->pass);
    le_put64(out + 32, (uint64_t)s->first);
    le_put64(out + 40, (uint64_t)s->begin);
    le_put64(out + 48, (uint64_t)s->made);
    le_put64(out + 56, s->chunk);
    le_put32(out + 64, s->off);
    le_put32(out + 68, (uint32_t)s->mode);
    le_put64(out + 72, (uint64_t)s->paused);
    le_put64(out + 80, s->done);
    le_put64(out + 88, s->found);
    le_put64(out + 96, s->healed);
    le_put16(out + 104, (uint16_t)s->nprev);
    le_put16(out + 106, (uint16_t)s->ncur);
    le_put16(out + 108, (uint16_t)s->nbad);
    le_put64(out + 112, s->upto);
    uint8_t *p = put_marks(out + HEAD, s->prev, s->nprev);
    p = put_marks(p, s->cur, s->ncur);
    for (unsigned i = 0; i < s->nbad; i++, p += 24) {
        le_put64(p, s->bad[i].chunk);
        le_put64(p + 8, s->bad[i].session);
        le_put32(p + 16, s->bad[i].off);
    }
    le_put32(p, crc32c(0, out, len - 4));
    return len;
}

/* False: they are not in order. */
static bool get_marks(const uint8_t *p, struct scrub_mark *v, unsigned n)
{
    for (unsigned i = 0; i < n; i++, p += 16) {
        v[i] = (struct scrub_mark){le_get64(p), (int64_t)le_get64(p + 8)};
        if (v[i].time < 0 || (i && v[i].chunk < v[i - 1].chunk))
            return false;
    }
    return true;
}

/* What the file's numbers must be to each other. */
static bool scrub_state_sound(const struct scrub_state *s)
{
    bool times = s->first >= 0 && s->begin >= 0 && s->made >= 0 && s->paused >= 0;
    return times && (s->pass == 0) == (s->ncur == 0) && (unsigned)s->mode <= SCRUB_FAST;
}

int scrub_state_decode(struct scrub_state *s, const uint8_t *p, size_t len)
{
    if (len < HEAD + 4 || memcmp(p, magic, sizeof(magic)) || le_get32(p + 12) != len ||
        len > SCRUB_FILE_MAX || le_get32(p + len - 4) != crc32c(0, p, len - 4))
        return -ERR_CORRUPT;
    if (le_get32(p + 8) != SCRUB_VERSION)
        return -ERR_VERSION;
    struct scrub_state t;
    memset(&t, 0, sizeof(t));
    t.nprev = le_get16(p + 104);
    t.ncur = le_get16(p + 106);
    t.nbad = le_get16(p + 108);
    if (t.nprev > SCRUB_MARKS_MAX || t.ncur > SCRUB_MARKS_MAX || t.nbad > SCRUB_BAD_MAX ||
        len != HEAD + 16u * (t.nprev + t.ncur) + 24u * t.nbad + 4)
        return -ERR_CORRUPT;
    t.chunkd = le_get32(p + 16);
    t.disk = le_get32(p + 20);
    t.pass = le_get64(p + 24);
    t.first = (int64_t)le_get64(p + 32);
    t.begin = (int64_t)le_get64(p + 40);
    t.made = (int64_t)le_get64(p + 48);
    t.chunk = le_get64(p + 56);
    t.off = le_get32(p + 64);
    t.mode = (enum scrub_mode)le_get32(p + 68);
    t.paused = (int64_t)le_get64(p + 72);
    t.done = le_get64(p + 80);
    t.found = le_get64(p + 88);
    t.healed = le_get64(p + 96);
    t.upto = le_get64(p + 112);
    bool sound = get_marks(p + HEAD, t.prev, t.nprev) &&
                 get_marks(p + HEAD + 16u * t.nprev, t.cur, t.ncur) && scrub_state_sound(&t);
    p += HEAD + 16u * (t.nprev + t.ncur);
    for (unsigned i = 0; i < t.nbad; i++, p += 24)
        t.bad[i] = (struct scrub_bad){
            .chunk = le_get64(p), .session = le_get64(p + 8), .off = le_get32(p + 16)};
    if (!sound)
        return -ERR_CORRUPT;
    *s = t;
    return 0;
}

/* ---- as a file ---- */

int scrub_state_load(struct scrub_state *s, const char *dir)
{
    char path[PATH_MAX];
    static const size_t cap = SCRUB_FILE_MAX + 1;
    if ((size_t)snprintf(path, sizeof(path), "%s/" NAME, dir) >= sizeof(path))
        return -ENAMETOOLONG;
    CLEANUP(close_fdp) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    CLEANUP(free_ptr) uint8_t *p = malloc(cap);
    CLEANUP(free_ptr) struct scrub_state *t = malloc(sizeof(*t));
    if (!p || !t)
        return -ENOMEM;
    ssize_t n = read(fd, p, cap);
    int rc = n < 0 ? -errno : scrub_state_decode(t, p, (size_t)n);
    if (rc == 0 && (t->chunkd != s->chunkd || t->disk != s->disk))
        rc = -ERR_CORRUPT;
    if (rc == 0)
        *s = *t;
    return rc;
}

int scrub_state_save(const struct scrub_state *s, const char *dir)
{
    CLEANUP(free_ptr) uint8_t *p = malloc(SCRUB_FILE_MAX);
    if (!p)
        return -ENOMEM;
    return private_replace(dir, NAME, p, scrub_state_encode(s, p));
}
