/* Growth of the chained hash table, and walks over it; what is short or hot stands in the header. */
#include "base/hash_table.h"

#include <assert.h>
#include <stdlib.h>

static struct hash_link **slots_new(size_t n)
{
    struct hash_link **v = calloc(n, sizeof(*v));
    if (!v)
        abort();
    return v;
}

void hash_table_init(struct hash_table *t, size_t slots, size_t key_at)
{
    assert(slots && !(slots & (slots - 1)));
    *t = (struct hash_table){.slots = slots_new(slots), .mask = slots - 1, .key_at = key_at};
}

void hash_table_free(struct hash_table *t)
{
    free(t->slots);
    *t = (struct hash_table){0};
}

void hash_table_grow(struct hash_table *t)
{
    struct hash_table old = *t;
    t->mask = old.mask * 2 + 1;
    t->slots = slots_new(t->mask + 1);
    for (size_t i = 0; i <= old.mask; i++)
        for (struct hash_link *l = old.slots[i], *next; l; l = next) {
            struct hash_link **slot = hash_table_slot(t, hash_table_key(t, l));
            next = l->next;
            l->next = *slot;
            *slot = l;
        }
    free(old.slots);
}

static struct hash_link *first_from(const struct hash_table *t, size_t i)
{
    for (; t->slots && i <= t->mask; i++)
        if (t->slots[i])
            return t->slots[i];
    return NULL;
}

struct hash_link *hash_table_first(const struct hash_table *t)
{
    return first_from(t, 0);
}

struct hash_link *hash_table_after(const struct hash_table *t, const struct hash_link *p)
{
    if (p->next)
        return p->next;
    return first_from(t, (size_t)(hash_table_slot(t, hash_table_key(t, p)) - t->slots) + 1);
}
