/* Encoding and decoding of record headers: the one place that knows the layout that record.h
 * documents.
 *
 * Pure functions over memory. The input of record_decode() is whatever a disk gave us, so every
 * field is checked against the others before anything is believed: lengths first (they decide how
 * much the CRC covers), then the CRC, then the meaning. A header that passes can be walked over
 * safely: its size is at least RECORD_FIXED and a multiple of RECORD_ALIGN. */
#include "record.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/crc32c.h"
#include "base/error.h"
#include "base/byteorder.h"

uint32_t record_header_len(uint32_t len)
{
    uint32_t n = RECORD_FIXED + 4 * (uint32_t)crc_blocks(len);
    return (n + RECORD_ALIGN - 1) & ~(RECORD_ALIGN - 1);
}

uint64_t record_size(const struct record *r)
{
    uint64_t n = (uint64_t)r->header_len + r->len;
    return (n + RECORD_ALIGN - 1) & ~(uint64_t)(RECORD_ALIGN - 1);
}

uint32_t record_base(const char *cluster, uint32_t chunkd, uint32_t disk)
{
    char text[96];
    int n = snprintf(text, sizeof(text), "%.40s/%x/%x", cluster, chunkd, disk);
    return crc32c(0, text, (size_t)n);
}

uint32_t record_seed(uint32_t base, uint64_t segment, uint32_t pos)
{
    char text[32], *p = text + sizeof(text);
    /* By hand instead of snprintf: called for every record written, read and scanned. */
    do
        *--p = "0123456789abcdef"[pos & 15];
    while (pos >>= 4);
    *--p = '/';
    do
        *--p = "0123456789abcdef"[segment & 15];
    while (segment >>= 4);
    *--p = '/';
    return crc32c(base, p, (size_t)(text + sizeof(text) - p));
}

static uint32_t header_crc(const uint8_t *p, uint32_t header_len, uint32_t seed)
{
    uint32_t crc = crc32c(seed, p, RECORD_FIXED - 4);
    return crc32c(crc, p + RECORD_FIXED, header_len - RECORD_FIXED);
}

static int has_payload(uint8_t type)
{
    return type == RECORD_DATA || type == RECORD_COPY;
}

uint32_t record_encode(const struct record *r, uint32_t seed, uint8_t *out)
{
    uint32_t header_len = has_payload(r->type) ? record_header_len(r->len) : RECORD_FIXED;
    memset(out, 0, header_len);
    le_put32(out, RECORD_MAGIC);
    le_put16(out + 4, RECORD_VERSION);
    out[6] = r->type;
    le_put32(out + 8, header_len);
    le_put32(out + 12, r->len);
    le_put64(out + 16, r->chunk);
    le_put64(out + 24, r->session);
    le_put64(out + 32, r->ino);
    le_put64(out + 40, r->file_off);
    le_put64(out + 48, r->gen);
    le_put32(out + 56, r->chunk_off);
    le_put64(out + 64, r->time);
    if (has_payload(r->type))
        memcpy(out + RECORD_FIXED, r->crcs, 4 * crc_blocks(r->len));
    le_put32(out + 76, header_crc(out, header_len, seed));
    return header_len;
}

/* Lengths, and whether they fit the type. Only what decides how many bytes the CRC covers matters.
 */
static int check_lengths(const uint8_t *p, uint32_t header_len, uint32_t len)
{
    uint8_t type = p[6];
    if (has_payload(type))
        return len > 0 && len <= RECORD_PAYLOAD_MAX && header_len == record_header_len(len);
    if (header_len != RECORD_FIXED)
        return 0;
    if (type == RECORD_DEAD)
        return len % RECORD_ALIGN == 0;
    return (type == RECORD_DELETE || type == RECORD_COMMIT) && len == 0;
}

static int check_meaning(const struct record *r)
{
    if (r->type == RECORD_DEAD)
        return 1;
    if (r->chunk == 0 || r->gen == 0)
        return 0;
    return !has_payload(r->type) || r->chunk_off <= UINT32_MAX - r->len;
}

int record_decode(const uint8_t *p, size_t avail, uint32_t seed, struct record *out)
{
    if (avail < RECORD_FIXED)
        return -EAGAIN;
    if (le_get32(p) != RECORD_MAGIC)
        return -ERR_CORRUPT;
    uint16_t version = le_get16(p + 4);
    uint32_t header_len = le_get32(p + 8), len = le_get32(p + 12);
    if (header_len < RECORD_FIXED || header_len > RECORD_HEADER_MAX)
        return -ERR_CORRUPT;
    if (version == RECORD_VERSION && !check_lengths(p, header_len, len))
        return -ERR_CORRUPT;
    if (avail < header_len)
        return -EAGAIN;
    if (le_get32(p + 76) != header_crc(p, header_len, seed))
        return -ERR_CORRUPT;
    if (version != RECORD_VERSION)
        return version > RECORD_VERSION ? -ERR_VERSION : -ERR_CORRUPT;
    *out = (struct record){
        .type = p[6],
        .header_len = header_len,
        .len = len,
        .chunk = le_get64(p + 16),
        .session = le_get64(p + 24),
        .ino = le_get64(p + 32),
        .file_off = le_get64(p + 40),
        .gen = le_get64(p + 48),
        .chunk_off = le_get32(p + 56),
        .time = le_get64(p + 64),
        .crcs = p + RECORD_FIXED,
    };
    return check_meaning(out) ? 0 : -ERR_CORRUPT;
}
