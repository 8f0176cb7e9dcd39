/* Open-addressed hash map of chunk ids, linear probing at a load of at most 3/4.
 *
 * Invariant: between a key's home slot and the slot it occupies no slot is free; deletion keeps it
 * by shifting later members of the run back. Key 0 marks a free slot and is never stored. */
#include "base/u64map.h"

#include <assert.h>
#include <stdlib.h>

#include "base/mix.h"

static size_t home(const struct u64map *m, uint64_t key)
{
    return (size_t)mix64(key) & (m->cap - 1);
}

/* The slot holding key, or the free one where it belongs. cap > n always, so it ends. */
static size_t probe(const struct u64map *m, uint64_t key)
{
    size_t i = home(m, key);
    while (m->keys[i] && m->keys[i] != key)
        i = (i + 1) & (m->cap - 1);
    return i;
}

static void grow(struct u64map *m)
{
    struct u64map old = *m;
    m->cap = old.cap ? old.cap * 2 : 16;
    m->keys = calloc(m->cap, sizeof *m->keys);
    m->vals = malloc(m->cap * sizeof *m->vals);
    if (!m->keys || !m->vals)
        abort();
    for (size_t i = 0; i < old.cap; i++)
        if (old.keys[i]) {
            size_t at = probe(m, old.keys[i]);
            m->keys[at] = old.keys[i];
            m->vals[at] = old.vals[i];
        }
    free(old.keys);
    free(old.vals);
}

void u64map_free(struct u64map *m)
{
    free(m->keys);
    free(m->vals);
    *m = (struct u64map){0};
}

bool u64map_get(const struct u64map *m, uint64_t key, uint32_t *val)
{
    if (!m->n || !key)
        return false;
    size_t i = probe(m, key);
    if (!m->keys[i])
        return false;
    if (val)
        *val = m->vals[i];
    return true;
}

bool u64map_put(struct u64map *m, uint64_t key, uint32_t val)
{
    assert(key);
    if ((m->n + 1) * 4 > m->cap * 3)
        grow(m);
    size_t i = probe(m, key);
    bool fresh = !m->keys[i];
    m->keys[i] = key;
    m->vals[i] = val;
    m->n += fresh;
    return fresh;
}

bool u64map_del(struct u64map *m, uint64_t key)
{
    if (!m->n || !key)
        return false;
    size_t mask = m->cap - 1, hole = probe(m, key);
    if (!m->keys[hole])
        return false;
    for (size_t i = (hole + 1) & mask; m->keys[i]; i = (i + 1) & mask) {
        /* i may fill the hole unless its home lies behind the hole */
        if (((i - home(m, m->keys[i])) & mask) < ((i - hole) & mask))
            continue;
        m->keys[hole] = m->keys[i];
        m->vals[hole] = m->vals[i];
        hole = i;
    }
    m->keys[hole] = 0;
    m->n--;
    return true;
}

bool u64map_next(const struct u64map *m, size_t *pos, uint64_t *key, uint32_t *val)
{
    for (; *pos < m->cap; ++*pos)
        if (m->keys[*pos]) {
            *key = m->keys[*pos];
            if (val)
                *val = m->vals[*pos];
            ++*pos;
            return true;
        }
    return false;
}
