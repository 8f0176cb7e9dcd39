/* Fuzzes what a chunkd and metad decode of copies of the names: a header, and records one after the other. The first
 * byte chooses whether checksums are put right, which reaches what lies behind them. Nothing may be read outside the
 * bytes, and what is accepted must be consistent. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/byteorder.h"
#include "base/crc32c.h"
#include "names_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put_right(uint8_t *p, size_t len)
{
    le_put32(p, NAMES_FILE_MAGIC);
    le_put32(p + 4, NAMES_FILE_VERSION);
    le_put32(p + 76, crc32c(0, p, 76));
    for (size_t at = NAMES_HEADER; len - at >= NAMES_RECORD;) {
        uint8_t *r = p + at;
        size_t left = len - at - NAMES_RECORD;
        uint32_t n = le_get32(r + 32) % 512;
        if (n > left)
            n = (uint32_t)left;
        le_put32(r, NAMES_RECORD_MAGIC);
        le_put16(r + 4, (uint16_t)(r[4] % 4));
        le_put32(r + 32, n);
        le_put32(r + 36, crc32c(crc32c(0, r, 36), r + NAMES_RECORD, n));
        at += NAMES_RECORD + n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct names_header h;
    struct names_track t;
    const char *why;

    if (size < 1 || size > 65536)
        return 0;
    size_t len = size - 1;
    uint8_t *p = malloc(len ? len : 1);
    if (!p)
        abort();
    memcpy(p, data + 1, len);
    if ((data[0] & 1) && len >= NAMES_HEADER)
        put_right(p, len);
    if (names_header_open(p, len, &h, &why) != 0) {
        assert(why);
        free(p);
        return 0;
    }
    assert(strlen(h.cluster) == 36);
    names_track_begin(&t, &h);
    for (size_t at = NAMES_HEADER;;) {
        struct names_record r;
        int rc = names_record_open(p + at, len - at, &r, &why);
        if (rc != 0)
            break;
        assert(r.payload == p + at + NAMES_RECORD && r.len <= len - at - NAMES_RECORD);
        struct names_track before = t;
        if (names_track_add(&t, &r, &why) != 0) {
            assert(why && memcmp(&before, &t, sizeof(t)) == 0);
            break;
        }
        assert(t.reached >= before.reached && t.state_len >= before.state_len);
        assert(!before.whole || (t.whole && t.state_len == before.state_len));
        at += NAMES_RECORD + r.len;
    }
    free(p);
    return 0;
}
