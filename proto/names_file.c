/* Encoding and decoding of copies of the names; the layout is in names_file.h.
 *
 * Each record has a checksum of its own, the state file one over all of it, and each entry names the one before it:
 * so a reader knows how far a file is good, and that nothing is missing in between. A torn end is an end. */
#include "names_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/byteorder.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/error.h"

#define ENTRY_CRC_AT 20u /* in a log entry's header, of 24 bytes (metad/log/entry.h) */
#define ENTRY_HEADER_LEN 24u

void names_header_make(const struct names_header *h, uint8_t out[NAMES_HEADER])
{
    memset(out, 0, NAMES_HEADER);
    le_put32(out, NAMES_FILE_MAGIC);
    le_put32(out + 4, NAMES_FILE_VERSION);
    memcpy(out + 8, h->cluster, 36);
    le_put64(out + 48, h->generation);
    le_put64(out + 56, h->term);
    le_put64(out + 64, (uint64_t)h->time_ns);
    le_put32(out + 76, crc32c(0, out, 76));
}

int names_header_open(const uint8_t *p, size_t len, struct names_header *h, const char **why)
{
    *why = NULL;
    if (len < NAMES_HEADER || le_get32(p) != NAMES_FILE_MAGIC)
        *why = "not a copy of the names";
    else if (crc32c(0, p, 76) != le_get32(p + 76))
        *why = "the header's checksum is wrong";
    else if (memchr(p + 8, 0, 36) || le_get64(p + 48) == 0)
        *why = "the header makes no sense";
    if (*why)
        return -ERR_CORRUPT;
    if (le_get32(p + 4) != NAMES_FILE_VERSION) {
        *why = "its version is unknown to this program";
        return -ERR_VERSION;
    }
    memcpy(h->cluster, p + 8, 36);
    h->cluster[36] = 0;
    h->generation = le_get64(p + 48);
    h->term = le_get64(p + 56);
    h->time_ns = (int64_t)le_get64(p + 64);
    return 0;
}

uint64_t names_life(uint64_t term)
{
    return term / NAMES_LIFE;
}

/* The clock, since a backup may be older than a life of which it knows nothing. */
uint64_t names_next_life(uint64_t term, int64_t now_s)
{
    uint64_t next = names_life(term) + 1, now = now_s > 0 ? (uint64_t)now_s : 0;

    return (next > now ? next : now) * NAMES_LIFE;
}

const char *names_time(int64_t s, char out[static NAMES_TIME_TEXT])
{
    time_t at = (time_t)s;
    struct tm tm;

    if (!localtime_r(&at, &tm) || strftime(out, NAMES_TIME_TEXT, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        snprintf(out, NAMES_TIME_TEXT, "an unknown time");
    return out;
}

void names_record_make(enum names_type type, uint64_t a, uint64_t b, int64_t time_ns,
                       const void *payload, uint32_t len, uint8_t out[NAMES_RECORD])
{
    memset(out, 0, NAMES_RECORD);
    le_put32(out, NAMES_RECORD_MAGIC);
    le_put16(out + 4, (uint16_t)type);
    le_put64(out + 8, a);
    le_put64(out + 16, b);
    le_put64(out + 24, (uint64_t)time_ns);
    le_put32(out + 32, len);
    uint32_t crc = crc32c(0, out, 36);
    if (len > 0)
        crc = crc32c(crc, payload, len);
    le_put32(out + 36, crc);
}

int names_record_open(const uint8_t *p, size_t len, struct names_record *r, const char **why)
{
    *why = NULL;
    if (len < NAMES_RECORD)
        return NAMES_MORE;
    uint32_t size = le_get32(p + 32);
    unsigned type = le_get16(p + 4);
    if (le_get32(p) != NAMES_RECORD_MAGIC)
        *why = "no record begins here";
    else if (type < NAMES_PIECE || type > NAMES_ENTRY)
        *why = "unknown kind of record";
    else if (size > NAMES_PAYLOAD_MAX)
        *why = "impossible length of a record";
    if (*why)
        return -ERR_CORRUPT;
    if (len - NAMES_RECORD < size)
        return NAMES_MORE;
    uint32_t crc = crc32c(0, p, 36);
    if (size > 0)
        crc = crc32c(crc, p + NAMES_RECORD, size);
    if (crc != le_get32(p + 36)) {
        *why = "a record's checksum is wrong";
        return -ERR_CORRUPT;
    }
    *r = (struct names_record){.type = (enum names_type)type,
                               .a = le_get64(p + 8),
                               .b = le_get64(p + 16),
                               .time_ns = (int64_t)le_get64(p + 24),
                               .payload = p + NAMES_RECORD,
                               .len = size};
    return 0;
}

/* ---- what they say together ---- */

void names_track_begin(struct names_track *t, const struct names_header *h)
{
    *t = (struct names_track){
        .generation = h->generation, .reached = h->generation, .time_ns = h->time_ns};
}

static const char *piece_problem(const struct names_track *t, const struct names_record *r)
{
    if (t->whole)
        return "a piece of the state behind its end";
    if (r->a != t->state_len)
        return "a piece of the state is missing";
    return r->len == 0 || r->len > NAMES_PIECE_MAX ? "impossible piece of the state" : NULL;
}

static const char *whole_problem(const struct names_track *t, const struct names_record *r)
{
    if (t->whole || r->len != 0)
        return "the state ends twice";
    if (r->a != t->state_len || r->a == 0)
        return "the state has another length than it had";
    return r->b != t->state_crc ? "the state has another checksum than it had" : NULL;
}

static const char *entry_problem(const struct names_track *t, const struct names_record *r)
{
    if (r->len < ENTRY_HEADER_LEN)
        return "impossible log entry";
    if (r->a <= t->reached || (t->entries > 0 ? r->b != t->reached : r->b > t->generation))
        return "a log entry is missing";
    return NULL;
}

int names_track_add(struct names_track *t, const struct names_record *r, const char **why)
{
    switch (r->type) {
    case NAMES_PIECE:
        *why = piece_problem(t, r);
        break;
    case NAMES_WHOLE:
        *why = whole_problem(t, r);
        break;
    case NAMES_ENTRY:
        *why = entry_problem(t, r);
        break;
    }
    if (*why)
        return -ERR_CORRUPT;
    if (r->type == NAMES_PIECE) {
        t->state_crc = crc32c(t->state_crc, r->payload, r->len);
        t->state_len += r->len;
    } else if (r->type == NAMES_WHOLE) {
        t->whole = true;
    } else {
        t->reached = r->a;
        t->reached_crc = le_get32(r->payload + ENTRY_CRC_AT);
        t->entries++;
        t->entry_bytes += r->len;
    }
    t->time_ns = r->time_ns;
    return 0;
}

/* ---- a file ---- */

struct reading {
    int fd;
    uint8_t *buf; /* NAMES_RECORD + NAMES_PAYLOAD_MAX bytes */
    size_t at, len;
};
#define READING_SIZE (NAMES_RECORD + NAMES_PAYLOAD_MAX)

/* Moves what is left to the front and fills up. Bytes that came, 0 at the end, -errno. */
static ssize_t fill(struct reading *f)
{
    memmove(f->buf, f->buf + f->at, f->len - f->at);
    f->len -= f->at;
    f->at = 0;
    ssize_t n;
    do
        n = read(f->fd, f->buf + f->len, READING_SIZE - f->len);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    f->len += (size_t)n;
    return n;
}

/* The next record; NAMES_MORE: the file ends here, at once or in the middle of a record. */
static int next_record(struct reading *f, struct names_record *r, const char **why)
{
    for (;;) {
        int rc = names_record_open(f->buf + f->at, f->len - f->at, r, why);
        if (rc != NAMES_MORE)
            return rc;
        ssize_t n = fill(f);
        if (n < 0)
            return (int)n;
        if (n == 0) {
            *why = f->len > f->at ? "a record breaks off" : NULL;
            return NAMES_MORE;
        }
    }
}

static int read_header(struct reading *f, struct names_header *h, const char **why)
{
    while (f->len < NAMES_HEADER) {
        ssize_t n = fill(f);
        if (n < 0)
            return (int)n;
        if (n == 0)
            break;
    }
    f->at = NAMES_HEADER;
    return names_header_open(f->buf, f->len, h, why);
}

int names_file_read(int fd, struct names_header *h, struct names_track *t, uint64_t *good,
                    const char **why, int (*fn)(void *arg, const struct names_record *r), void *arg)
{
    CLEANUP(free_ptr) uint8_t *buf = malloc(READING_SIZE);
    struct reading f = {.fd = fd, .buf = buf};
    struct names_record r;

    *good = 0;
    *why = NULL;
    if (!buf)
        return -ENOMEM;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return -errno;
    int rc = read_header(&f, h, why);
    if (rc != 0)
        return rc;
    names_track_begin(t, h);
    *good = NAMES_HEADER;
    for (;;) {
        rc = next_record(&f, &r, why);
        if (rc == 0)
            rc = names_track_add(t, &r, why);
        if (rc == NAMES_MORE || rc == -ERR_CORRUPT)
            return 0; /* good as far as it goes */
        if (rc == 0 && fn)
            rc = fn(arg, &r);
        if (rc != 0)
            return rc;
        f.at += NAMES_RECORD + r.len;
        *good += NAMES_RECORD + r.len;
    }
}
