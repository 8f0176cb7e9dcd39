/* Hash table from 64-bit ids to pointers: open addressing with linear probing and backward-shift
 * deletion, at most two thirds full. Not thread-safe: the owner locks. Values are never NULL, so
 * a NULL value marks an empty slot. Running out of memory ends the process, as buf_new does: no
 * caller could go on. */
#include "client/base/idmap.h"
#include <assert.h>
#include <stdlib.h>
#include "base/hash.h"

static size_t home(const struct idmap *m, uint64_t id)
{
    return (size_t)hash_u64(id) & (m->cap - 1);
}

static struct idmap_slot *idmap_find(const struct idmap *m, uint64_t id)
{
    if (!m->cap)
        return NULL;
    for (size_t i = home(m, id);; i = (i + 1) & (m->cap - 1)) {
        if (!m->slots[i].val)
            return NULL;
        if (m->slots[i].id == id)
            return &m->slots[i];
    }
}

void *idmap_get(const struct idmap *m, uint64_t id)
{
    struct idmap_slot *s = idmap_find(m, id);
    return s ? s->val : NULL;
}

static void place(struct idmap *m, uint64_t id, void *val)
{
    size_t i = home(m, id);
    while (m->slots[i].val)
        i = (i + 1) & (m->cap - 1);
    m->slots[i] = (struct idmap_slot){id, val};
}

static void idmap_grow(struct idmap *m)
{
    struct idmap old = *m;
    m->cap = old.cap ? old.cap * 2 : 8;
    m->slots = calloc(m->cap, sizeof(*m->slots));
    if (!m->slots)
        abort();
    for (size_t i = 0; i < old.cap; i++) {
        if (old.slots[i].val)
            place(m, old.slots[i].id, old.slots[i].val);
    }
    free(old.slots);
}

void idmap_put(struct idmap *m, uint64_t id, void *val)
{
    assert(val);
    struct idmap_slot *s = idmap_find(m, id);
    if (s) {
        s->val = val;
        return;
    }
    if ((m->n + 1) * 3 > m->cap * 2)
        idmap_grow(m);
    place(m, id, val);
    m->n++;
}

void *idmap_del(struct idmap *m, uint64_t id)
{
    struct idmap_slot *s = idmap_find(m, id);
    if (!s)
        return NULL;
    void *val = s->val;
    size_t hole = (size_t)(s - m->slots), mask = m->cap - 1;
    for (size_t i = (hole + 1) & mask; m->slots[i].val; i = (i + 1) & mask) {
        /* An entry may move back into the hole unless its home lies behind the hole. */
        size_t h = home(m, m->slots[i].id);
        if (((i - h) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole].val = NULL;
    m->n--;
    return val;
}

void *idmap_next(const struct idmap *m, size_t *pos)
{
    while (*pos < m->cap) {
        void *v = m->slots[(*pos)++].val;
        if (v)
            return v;
    }
    return NULL;
}

void idmap_clear(struct idmap *m)
{
    free(m->slots);
    *m = (struct idmap){0};
}
