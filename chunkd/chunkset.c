/* chunkset: the hash table behind the inventory.
 *
 * Invariants: slots is a power of two; at most 70 % of them are taken; every key can be reached
 * from its home slot without crossing an empty one (removal shifts followers back, so there are no
 * tombstones). Thread context: none of its own, the owner holds its lock. */
#include "chunkset.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mix.h"

#define MIN_SLOTS 64u

void chunkset_init(struct chunkset *s)
{
    memset(s, 0, sizeof *s);
}

void chunkset_free(struct chunkset *s)
{
    free(s->keys);
    free(s->vals);
    chunkset_init(s);
}

void chunkset_clear(struct chunkset *s)
{
    chunkset_free(s);
}

static size_t home(const struct chunkset *s, uint64_t chunk)
{
    return (size_t)mix64(chunk) & (s->slots - 1);
}

/* The slot that holds chunk, or the empty one where it would go. */
static size_t probe(const struct chunkset *s, uint64_t chunk)
{
    size_t i = home(s, chunk);
    while (s->keys[i] != 0 && s->keys[i] != chunk)
        i = (i + 1) & (s->slots - 1);
    return i;
}

uint16_t *chunkset_find(const struct chunkset *s, uint64_t chunk)
{
    if (s->n == 0 || chunk == 0)
        return NULL;
    size_t i = probe(s, chunk);
    return s->keys[i] ? &s->vals[i] : NULL;
}

static void grow(struct chunkset *s)
{
    struct chunkset bigger = {.slots = s->slots ? s->slots * 2 : MIN_SLOTS, .n = s->n};
    bigger.keys = calloc(bigger.slots, sizeof *bigger.keys);
    bigger.vals = calloc(bigger.slots, sizeof *bigger.vals);
    if (!bigger.keys || !bigger.vals)
        abort(); /* nothing can go on without an inventory */
    for (size_t i = 0; i < s->slots; i++) {
        if (s->keys[i] == 0)
            continue;
        size_t j = probe(&bigger, s->keys[i]);
        bigger.keys[j] = s->keys[i];
        bigger.vals[j] = s->vals[i];
    }
    chunkset_free(s);
    *s = bigger;
}

uint16_t *chunkset_add(struct chunkset *s, uint64_t chunk, bool *fresh)
{
    assert(chunk != 0);
    if ((s->n + 1) * 10 > s->slots * 7)
        grow(s);
    size_t i = probe(s, chunk);
    *fresh = s->keys[i] == 0;
    if (*fresh) {
        s->keys[i] = chunk;
        s->vals[i] = 0;
        s->n++;
    }
    return &s->vals[i];
}

bool chunkset_remove(struct chunkset *s, uint64_t chunk)
{
    if (s->n == 0 || chunk == 0)
        return false;
    size_t mask = s->slots - 1, hole = probe(s, chunk);
    if (s->keys[hole] == 0)
        return false;
    for (size_t i = (hole + 1) & mask; s->keys[i] != 0; i = (i + 1) & mask) {
        /* A follower may move into the hole when its home is not between hole and itself. */
        size_t dist_home = (i - home(s, s->keys[i])) & mask;
        if (dist_home < ((i - hole) & mask))
            continue;
        s->keys[hole] = s->keys[i];
        s->vals[hole] = s->vals[i];
        hole = i;
    }
    s->keys[hole] = 0;
    s->n--;
    return true;
}

bool chunkset_next(const struct chunkset *s, size_t *pos, uint64_t *chunk, uint16_t *val)
{
    for (; *pos < s->slots; (*pos)++) {
        if (s->keys[*pos] == 0)
            continue;
        *chunk = s->keys[*pos];
        *val = s->vals[*pos];
        (*pos)++;
        return true;
    }
    return false;
}
