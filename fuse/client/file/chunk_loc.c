/* Where a chunk is, out of a message: bounds are checked here, once. */
#include "client/file/chunk_loc.h"
#include <string.h>
#include "base/error.h"
#include "client/base/limits.h"

int cloc_from(struct cloc *l, const Replfs__ChunkLoc *m)
{
    if (!m->chunk || m->n_chunkds > COPIES_MAX || m->cap.len > sizeof(l->cap))
        return -ERR_PROTOCOL;
    *l = (struct cloc){.chunk = m->chunk, .len = m->len, .n = (uint32_t)m->n_chunkds};
    for (size_t i = 0; i < m->n_chunkds; i++)
        l->chunkds[i] = m->chunkds[i];
    l->lost = m->lost && !m->n_chunkds;
    l->cap_len = (uint32_t)m->cap.len;
    if (m->cap.len)
        memcpy(l->cap, m->cap.data, m->cap.len);
    return 0;
}
