/* Open-addressed hash map, linear probing at a load of at most 3/4. Keys and values stand in two arrays, so that a
 * search reads keys only.
 *
 * Invariant: between a key's home slot and the slot it occupies no slot is free; deletion keeps it
 * by shifting later members of the run back. Key 0 marks a free slot and is never stored. */
#include "base/u64map.h"

#include <assert.h>
#include <stdlib.h>

#include "base/hash.h"

#define MIN_SLOTS 16u

static size_t home(const struct u64map *m, uint64_t key)
{
    return (size_t)hash_u64(key) & (m->cap - 1);
}

/* The slot holding key, or the free one where it belongs. cap > n always, so it ends. */
static size_t u64map_probe(const struct u64map *m, uint64_t key)
{
    size_t i = home(m, key);
    while (m->keys[i] && m->keys[i] != key)
        i = (i + 1) & (m->cap - 1);
    return i;
}

static uint64_t val_at(const struct u64map *m, size_t i)
{
    switch ((enum u64map_width)m->width) {
    case U64MAP_SET:
        return 0;
    case U64MAP_U8:
        return ((const uint8_t *)m->vals)[i];
    case U64MAP_U16:
        return ((const uint16_t *)m->vals)[i];
    case U64MAP_U32:
        return ((const uint32_t *)m->vals)[i];
    case U64MAP_U64:
        return ((const uint64_t *)m->vals)[i];
    }
    abort();
}

static void set_val(struct u64map *m, size_t i, uint64_t val)
{
    switch ((enum u64map_width)m->width) {
    case U64MAP_SET:
        return;
    case U64MAP_U8:
        ((uint8_t *)m->vals)[i] = (uint8_t)val;
        return;
    case U64MAP_U16:
        ((uint16_t *)m->vals)[i] = (uint16_t)val;
        return;
    case U64MAP_U32:
        ((uint32_t *)m->vals)[i] = (uint32_t)val;
        return;
    case U64MAP_U64:
        ((uint64_t *)m->vals)[i] = val;
        return;
    }
    abort();
}

static void u64map_grow(struct u64map *m)
{
    struct u64map old = *m;
    m->cap = old.cap ? old.cap * 2 : MIN_SLOTS;
    m->keys = calloc(m->cap, sizeof(*m->keys));
    m->vals = m->width ? malloc(m->cap * m->width) : NULL;
    if (!m->keys || (m->width && !m->vals))
        abort();
    for (size_t i = 0; i < old.cap; i++)
        if (old.keys[i]) {
            size_t at = u64map_probe(m, old.keys[i]);
            m->keys[at] = old.keys[i];
            set_val(m, at, val_at(&old, i));
        }
    free(old.keys);
    free(old.vals);
}

void u64map_init(struct u64map *m, enum u64map_width width)
{
    *m = (struct u64map){.width = width};
}

void u64map_free(struct u64map *m)
{
    free(m->keys);
    free(m->vals);
    *m = (struct u64map){.width = m->width};
}

bool u64map_get(const struct u64map *m, uint64_t key, uint64_t *val)
{
    if (!m->n || !key)
        return false;
    size_t i = u64map_probe(m, key);
    if (!m->keys[i])
        return false;
    if (val)
        *val = val_at(m, i);
    return true;
}

bool u64map_put(struct u64map *m, uint64_t key, uint64_t val)
{
    assert(key && (m->width == U64MAP_U64 || val >> (8 * m->width) == 0));
    if ((m->n + 1) * 4 > m->cap * 3)
        u64map_grow(m);
    size_t i = u64map_probe(m, key);
    bool fresh = !m->keys[i];
    m->keys[i] = key;
    set_val(m, i, val);
    m->n += fresh;
    return fresh;
}

bool u64map_del(struct u64map *m, uint64_t key)
{
    if (!m->n || !key)
        return false;
    size_t mask = m->cap - 1, hole = u64map_probe(m, key);
    if (!m->keys[hole])
        return false;
    for (size_t i = (hole + 1) & mask; m->keys[i]; i = (i + 1) & mask) {
        /* i may fill the hole unless its home lies behind the hole */
        if (((i - home(m, m->keys[i])) & mask) < ((i - hole) & mask))
            continue;
        m->keys[hole] = m->keys[i];
        set_val(m, hole, val_at(m, i));
        hole = i;
    }
    m->keys[hole] = 0;
    m->n--;
    return true;
}

bool u64map_next(const struct u64map *m, size_t *pos, uint64_t *key, uint64_t *val)
{
    for (; *pos < m->cap; ++*pos)
        if (m->keys[*pos]) {
            *key = m->keys[*pos];
            if (val)
                *val = val_at(m, *pos);
            ++*pos;
            return true;
        }
    return false;
}
