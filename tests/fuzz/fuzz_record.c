/* Feeds arbitrary bytes to the record decoder and to the segment scan.
 *
 * Random bytes never have a right CRC, so each input is tried three times: as it is, with the CRC
 * of its first header made right, and as a segment's contents in which every header that stands at
 * a plausible place has its CRC made right. Whatever decodes must satisfy what the callers rely
 * on. */
#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/crc32c.h"
#include "base/error.h"
#include "base/byteorder.h"
#include "base/log.h"
#include "chunkd/store/record.h"
#include "chunkd/store/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static struct segments table;
static struct segment segment = {.id = 7, .fd = -1};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_init("fuzz_record", LOG_LVL_ERROR, "/dev/null");
    table.base = record_base("0f8fad5b-d9cb-469f-a165-70867728950e", 1, 0);
    rwlock_init(&table.lock, LOCK_SEGMENTS, false);
    snprintf(table.dir, sizeof table.dir, "memory");
    segment.fd = memfd_create("segment", MFD_CLOEXEC);
    return segment.fd < 0;
}

static void check(const struct record *r, size_t avail)
{
    assert(r->header_len >= RECORD_FIXED && r->header_len <= RECORD_HEADER_MAX);
    assert(r->header_len <= avail && r->header_len % RECORD_ALIGN == 0);
    assert(record_size(r) >= r->header_len && record_size(r) % RECORD_ALIGN == 0);
    if (r->type == RECORD_DATA || r->type == RECORD_COPY) {
        assert(r->len > 0 && r->len <= RECORD_PAYLOAD_MAX);
        assert(r->chunk_off + (uint64_t)r->len <= UINT32_MAX);
        assert(r->header_len >= RECORD_FIXED + 4 * crc_blocks(r->len));
    }
}

/* Decodes; what is good must encode to the same bytes. */
static void decode(const uint8_t *p, size_t size, uint32_t seed)
{
    struct record r;
    uint8_t again[RECORD_HEADER_MAX];
    int rc = record_decode(p, size, seed, &r);
    assert(rc == 0 || rc == -ERR_CORRUPT || rc == -ERR_VERSION ||
           (rc == -EAGAIN && size < RECORD_HEADER_MAX));
    if (rc)
        return;
    check(&r, size);
    assert(record_encode(&r, seed, again) == r.header_len);
    struct record twice;
    assert(record_decode(again, r.header_len, seed, &twice) == 0);
    assert(twice.chunk == r.chunk && twice.gen == r.gen && twice.len == r.len);
}

static void make_right(uint8_t *p, size_t avail, uint32_t seed)
{
    if (avail < RECORD_FIXED)
        return;
    uint32_t n = le_get32(p + 8);
    if (n < RECORD_FIXED || n > RECORD_HEADER_MAX || n > avail)
        return;
    le_put32(p, RECORD_MAGIC);
    le_put32(p + 76, crc32c(crc32c(seed, p, 76), p + RECORD_FIXED, n - RECORD_FIXED));
}

static int on_record(void *arg, const struct record *r, uint32_t pos)
{
    check(r, RECORD_HEADER_MAX);
    assert(pos >= *(uint64_t *)arg && pos + r->header_len <= segment.size);
    *(uint64_t *)arg = pos + r->header_len;
    return 0;
}

static void on_bad(void *arg, uint64_t from, uint64_t to, bool to_end)
{
    (void)arg;
    assert(from <= to && to <= segment.size && (!to_end || to == segment.size));
}

static void scan(uint8_t *copy, size_t size, bool verify)
{
    for (size_t at = 0; at + RECORD_FIXED <= size; at += RECORD_ALIGN)
        if (le_get32(copy + at) == RECORD_MAGIC)
            make_right(copy + at, size - at,
                       record_seed(table.base, segment.id, (uint32_t)at + SEGMENT_HEADER));
    if (ftruncate(segment.fd, 0) || pwrite(segment.fd, copy, size, SEGMENT_HEADER) != (ssize_t)size)
        abort();
    segment.size = SEGMENT_HEADER + size;
    uint64_t reached = 0;
    struct segment_scan sc = {
        .record = on_record, .bad = on_bad, .arg = &reached, .verify = verify};
    int rc = segment_scan(&table, &segment, SEGMENT_HEADER, &sc);
    assert(rc == 0 || rc == -ERR_VERSION);
    assert(sc.end <= segment.size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t seed = record_seed(table.base, segment.id, SEGMENT_HEADER);
    decode(data, size, seed);
    uint8_t *copy = malloc(size + 1);
    memcpy(copy, data, size);
    make_right(copy, size, seed);
    decode(copy, size, seed);
    scan(copy, size, size % 2);
    free(copy);
    return 0;
}
