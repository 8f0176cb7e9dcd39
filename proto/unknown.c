/* Walks a message by its descriptor and finds what no descriptor names (unknown.h).
 *
 * unknown_hide sets the counts of unknown fields to 0 and remembers them in one block; unknown_show puts them back, so
 * that whoever made the message frees all of it.
 *
 * Failure modes: without memory the process ends, as everywhere when a request is executed. Thread context: any. */
#include "unknown.h"

#include <stdbool.h>
#include <stdlib.h>

struct unknown {
    size_t n, room;
    struct {
        ProtobufCMessage *m;
        unsigned count;
    } v[];
};

/* u NULL: counts only. */
static size_t unknown_walk(const ProtobufCMessage *m, struct unknown *u);

static size_t walk_field(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                         struct unknown *u)
{
    const char *at = (const char *)m + f->offset, *count = (const char *)m + f->quantifier_offset;
    size_t sum = 0;

    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t n = *(const size_t *)(const void *)count;
        ProtobufCMessage *const *v = *(ProtobufCMessage *const *const *)(const void *)at;
        for (size_t k = 0; k < n; k++)
            sum += unknown_walk(v[k], u);
        return sum;
    }
    if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) && *(const uint32_t *)(const void *)count != f->id)
        return 0;
    return unknown_walk(*(ProtobufCMessage *const *)(const void *)at, u);
}

static size_t unknown_walk(const ProtobufCMessage *m, struct unknown *u)
{
    size_t sum = 0;

    if (!m)
        return 0;
    if (m->n_unknown_fields > 0) {
        sum = 1;
        if (u && u->n < u->room) {
            u->v[u->n].m = (ProtobufCMessage *)(uintptr_t)m;
            u->v[u->n++].count = m->n_unknown_fields;
            u->v[u->n - 1].m->n_unknown_fields = 0;
        }
    }
    for (unsigned k = 0; k < m->descriptor->n_fields; k++)
        if (m->descriptor->fields[k].type == PROTOBUF_C_TYPE_MESSAGE)
            sum += walk_field(m, &m->descriptor->fields[k], u);
    return sum;
}

size_t unknown_fields(const ProtobufCMessage *m)
{
    return unknown_walk(m, NULL);
}

struct unknown *unknown_hide(ProtobufCMessage *m)
{
    size_t n = unknown_fields(m);

    if (n == 0)
        return NULL;
    struct unknown *u = calloc(1, sizeof(*u) + n * sizeof(u->v[0]));
    if (!u)
        abort();
    u->room = n;
    unknown_walk(m, u);
    return u;
}

void unknown_show(struct unknown *u)
{
    for (size_t k = 0; u && k < u->n; k++)
        u->v[k].m->n_unknown_fields = u->v[k].count;
    free(u);
}
