/* Fuzzes what metad decodes from its log: an entry, a whole segment, a checkpoint descriptor, and
 * the commands inside. The first byte chooses. Whatever the bytes say, nothing may be read outside
 * them, and a good answer must be consistent. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "log.pb-c.h"
#include "metad/log/entry.h"
#include "metad/log/mlog_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_entry(const uint8_t *p, size_t len)
{
    struct entry e;
    const char *why;
    const uint8_t *cmd;
    size_t cmd_len;
    unsigned n = 0;

    if (entry_open(p, len, &e, &why) != 0) {
        assert(why != NULL);
        return;
    }
    while (entry_next(&e, &cmd, &cmd_len)) {
        assert(cmd >= p && cmd_len <= (size_t)(p + len - cmd));
        Replfs__Command *c = replfs__command__unpack(NULL, cmd_len, cmd);
        if (c != NULL)
            replfs__command__free_unpacked(c, NULL);
        n++;
    }
    assert(n == e.count);
}

/* The checksum is right, everything else is the fuzzer's: reaches what lies behind it. */
static void walk_commands(const uint8_t *p, size_t len)
{
    size_t size = entry_size(1, len);
    uint8_t *buf = malloc(size);

    if (buf == NULL || size > ENTRY_MAX_BYTES)
        abort();
    entry_finish(buf, entry_put(buf, ENTRY_HEADER, p, len), 1, 1, ENTRY_VERSION);
    walk_entry(buf, size);
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > (1u << 20))
        return 0;
    /* an exact copy, so that a read past the end is seen */
    uint8_t *p = malloc(size > 1 ? size - 1 : 1);
    if (p == NULL)
        return 0;
    memcpy(p, data + 1, size - 1);
    size_t len = size - 1;
    struct mlog_walk w = {0};
    struct mlog_desc d;
    const char *why;

    switch (data[0] % 4) {
    case 0:
        walk_entry(p, len);
        break;
    case 1:
        mlog_check_segment(p, len, 1, &w);
        assert(w.good <= len && (w.why == NULL) == (w.code == 0));
        break;
    case 2:
        if (mlog_desc_decode(p, len, &d, &why) == 0)
            assert(d.tail + d.tail_len == p + len);
        break;
    default:
        walk_commands(p, len);
        break;
    }
    free(p);
    return 0;
}
