/* Envelopes from a hostile peer: unpacking is bounded and never crashes, and what it accepts can be
 * packed and unpacked again. */
#include <assert.h>
#include <stdlib.h>

#include "rpc/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message m, again;

    if (size > RPC_MAX_ENVELOPE || message_unpack(&m, data, size) < 0)
        return 0;
    size_t len = replfs__envelope__get_packed_size(m.env);
    uint8_t *packed = malloc(len + 1);
    assert(packed);
    assert(replfs__envelope__pack(m.env, packed) == len);
    /* Not everything accepted packs to something acceptable: an unknown field with an overlong tag
     * of 0 is kept as it is and refused when written short. */
    if (len <= RPC_MAX_ENVELOPE && message_unpack(&again, packed, len) == 0) {
        assert(again.env->id == m.env->id && again.env->body_case == m.env->body_case);
        message_free(&again);
    }
    free(packed);
    message_free(&m);
    return 0;
}
