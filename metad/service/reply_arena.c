/* Blocks of at least 16 KiB, the newest first; an allocation is carved from the newest block or
 * opens a new one. An arena lives on one thread's stack for the time of one request. */
#include "reply_arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 16384u

struct reply_arena_block {
    struct reply_arena_block *next;
    size_t used, size;
    _Alignas(16) uint8_t data[];
};

void *reply_arena_alloc(struct reply_arena *p, size_t size)
{
    size_t want = (size + 15u) & ~(size_t)15u;

    if (!p->head || p->head->size - p->head->used < want) {
        size_t room = want > BLOCK ? want : BLOCK;
        struct reply_arena_block *b = malloc(sizeof(*b) + room);
        if (!b)
            abort();
        b->next = p->head;
        b->used = 0;
        b->size = room;
        p->head = b;
    }
    void *out = p->head->data + p->head->used;
    p->head->used += want;
    return memset(out, 0, size);
}

void *reply_arena_copy(struct reply_arena *p, const void *data, size_t size)
{
    void *out = reply_arena_alloc(p, size);

    return size > 0 ? memcpy(out, data, size) : out;
}

char *reply_arena_string(struct reply_arena *p, const void *text, size_t len)
{
    char *out = reply_arena_alloc(p, len + 1);

    if (len > 0)
        memcpy(out, text, len);
    return out;
}

void reply_arena_free(struct reply_arena *p)
{
    while (p->head) {
        struct reply_arena_block *b = p->head;
        p->head = b->next;
        free(b);
    }
}
