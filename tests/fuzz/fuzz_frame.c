/* Frame headers from a hostile peer: decoding never accepts lengths above the caps, and what it
 * accepts is what encoding makes. */
#include <assert.h>
#include <string.h>

#include "rpc/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame f;
    const char *why = NULL;
    uint8_t again[FRAME_HEADER];

    if (size > 0)
        (void)frame_bad_start(data, size);
    if (size < FRAME_HEADER)
        return 0;
    if (frame_decode(data, &f, &why) < 0) {
        assert(why);
        return 0;
    }
    assert(f.env_len <= RPC_MAX_ENVELOPE && f.payload_len <= RPC_MAX_PAYLOAD);
    size_t rest = size - FRAME_HEADER;
    if (f.env_len > rest || frame_check(data, data + FRAME_HEADER, f.env_len) < 0)
        return 0;
    frame_encode(again, data + FRAME_HEADER, f.env_len, f.payload_len);
    assert(memcmp(again, data, FRAME_HEADER) == 0);
    return 0;
}
