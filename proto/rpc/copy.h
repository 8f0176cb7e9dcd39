/* A message that outlives the callback that brought it. */
#ifndef REPLFS_RPC_COPY_H
#define REPLFS_RPC_COPY_H
#include <stdlib.h>
#include "envelope.pb-c.h"

/* A copy of env (NULL stays NULL), for replfs__envelope__free_unpacked; aborts without memory. Any thread. */
static inline Replfs__Envelope *rpc_envelope_copy(const Replfs__Envelope *env)
{
    if (!env)
        return NULL;
    size_t n = replfs__envelope__get_packed_size(env);
    uint8_t *packed = malloc(n + 1);
    if (!packed)
        abort();
    replfs__envelope__pack(env, packed);
    Replfs__Envelope *copy = replfs__envelope__unpack(NULL, n, packed);
    if (!copy)
        abort();
    free(packed);
    return copy;
}

static inline void rpc_envelope_free(Replfs__Envelope *env)
{
    if (env)
        replfs__envelope__free_unpacked(env, NULL);
}
#endif
