/* The model, and the bytes of a unit; model.h tells what it is. No state of its own, no threads. */
#include <stdlib.h>
#include <string.h>

#include "model.h"

static struct object *want_object(struct model *m, uint32_t number)
{
    if (number >= m->n_objects) {
        uint32_t n = number + 64;
        m->objects = realloc(m->objects, n * sizeof *m->objects);
        if (!m->objects)
            abort();
        memset(m->objects + m->n_objects, 0, (n - m->n_objects) * sizeof *m->objects);
        m->n_objects = n;
    }
    return &m->objects[number];
}

struct object *model_object(const struct model *m, uint32_t number)
{
    return number > 0 && number < m->n_objects ? &m->objects[number] : NULL;
}

struct unit model_unit(const struct object *o, uint32_t i)
{
    return i < o->have ? o->units[i] : (struct unit){.zero = true};
}

static void want_units(struct object *o, uint32_t n)
{
    if (n <= o->have)
        return;
    o->units = realloc(o->units, n * sizeof *o->units);
    if (!o->units)
        abort();
    for (uint32_t i = o->have; i < n; i++)
        o->units[i] = (struct unit){.zero = true};
    o->have = n;
}

static void resize(struct object *o, uint32_t size)
{
    o->size = size;
    if (size < o->smallest)
        o->smallest = size;
    if (size > o->largest)
        o->largest = size;
}

/* A write that was answered, or not: then it may have happened in parts. */
static void write_units(struct object *o, const struct record *r, bool done)
{
    uint32_t end = r->unit + r->units;
    if (end > MAX_UNITS)
        abort();
    want_units(o, end);
    for (uint32_t i = r->unit; i < end; i++) {
        struct unit *u = &o->units[i];
        u->newest = r->version;
        if (done)
            u->now = r->version;
        u->doubt = !done;
    }
    if (end > o->size) {
        resize(o, end);
        o->doubt |= !done;
    }
}

static void truncate_units(struct object *o, uint32_t size, bool done)
{
    want_units(o, o->size);
    for (uint32_t i = size; i < o->have; i++) {
        struct unit *u = &o->units[i];
        u->zero = true;
        if (done)
            u->now = 0;
        u->doubt |= !done;
    }
    resize(o, size);
    o->doubt |= !done;
}

static void synced(struct object *o)
{
    for (uint32_t i = 0; i < o->have; i++) {
        struct unit *u = &o->units[i];
        if (u->doubt)
            continue;
        u->safe = u->newest = u->now;
        u->zero = u->now == 0;
    }
    if (!o->doubt)
        o->smallest = o->largest = o->size;
}

/* Whoever was told that it failed knows nothing of what he had not synced before. */
static void sync_failed(struct object *o)
{
    for (uint32_t i = 0; i < o->have; i++) {
        struct unit *u = &o->units[i];
        u->doubt |= u->now != u->safe || u->newest != u->safe;
    }
    o->doubt |= o->smallest != o->largest;
}

static void name_becomes(struct name *n, uint32_t object, bool done)
{
    if (n->n_was == 0)
        n->was[n->n_was++] = n->now;
    n->doubt |= !done;
    n->now = object;
    for (int i = 0; i < n->n_was; i++)
        if (n->was[i] == object)
            return;
    if (n->n_was == MAX_WAS)
        abort(); /* the worker syncs before */
    n->was[n->n_was++] = object;
}

static void dir_synced(struct model *m, int dir)
{
    for (int i = 0; i < NAMES; i++) {
        struct name *n = &m->names[dir][i];
        if (n->doubt)
            continue;
        n->was[0] = n->now;
        n->n_was = 1;
    }
}

static void answered(struct model *m, const struct record *r, bool done)
{
    struct name *n = &m->names[r->dir % DIRS][r->name % NAMES];
    struct object *o = want_object(m, r->object);
    switch ((enum op)r->op) {
    case OP_CREATE:
        name_becomes(n, r->object, done);
        o->made |= done;
        break;
    case OP_WRITE:
        write_units(o, r, done);
        break;
    case OP_TRUNCATE:
        truncate_units(o, r->unit, done);
        break;
    case OP_FSYNC:
        if (done)
            synced(o);
        else
            sync_failed(o);
        break;
    case OP_RENAME:
        name_becomes(n, 0, done);
        name_becomes(&m->names[r->dir2 % DIRS][r->name2 % NAMES], r->object, done);
        break;
    case OP_UNLINK:
        name_becomes(n, 0, done);
        break;
    case OP_SYNCDIR:
        if (done)
            dir_synced(m, r->dir % DIRS);
        break;
    }
}

void model_apply(struct model *m, const struct record *r)
{
    switch ((enum phase)r->phase) {
    case PHASE_ASKED:
        m->open = *r;
        return;
    case PHASE_DONE:
        answered(m, r, true);
        break;
    case PHASE_FAILED:
        answered(m, r, false);
        break;
    }
    m->open.op = 0;
}

void model_end(struct model *m)
{
    if (m->open.op)
        answered(m, &m->open, false);
    m->open.op = 0;
}

void model_free(struct model *m)
{
    for (uint32_t i = 0; i < m->n_objects; i++)
        free(m->objects[i].units);
    free(m->objects);
    *m = (struct model){0};
}

/* -- bytes ----------------------------------------------------------------------------------------- */
static const char magic[8] = "fltlabU1";

void unit_fill(void *buf, uint32_t worker, uint32_t object, uint32_t unit, uint32_t version)
{
    uint32_t head[4] = {worker, object, unit, version};
    uint64_t x =
        ((uint64_t)worker << 48) ^ ((uint64_t)object << 32) ^ ((uint64_t)unit << 20) ^ version;
    char *p = buf;
    memcpy(p, magic, 8);
    memcpy(p + 8, head, 16);
    for (int i = 24; i < UNIT; i += 8) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint64_t word = x ^ (x >> 29);
        memcpy(p + i, &word, 8);
    }
}

int64_t unit_version(const void *buf, uint32_t worker, uint32_t object, uint32_t unit,
                     char says[100])
{
    static const char zeros[UNIT];
    char want[UNIT];
    uint32_t head[4];
    if (memcmp(buf, zeros, UNIT) == 0)
        return 0;
    memcpy(head, (const char *)buf + 8, 16);
    if (memcmp(buf, magic, 8) != 0) {
        snprintf(says, 100, "bytes that were never written");
        return -1;
    }
    unit_fill(want, head[0], head[1], head[2], head[3]);
    bool whole = memcmp(want, buf, UNIT) == 0;
    if (whole && head[0] == worker && head[1] == object && head[2] == unit)
        return head[3];
    snprintf(says, 100, "%s worker %u object %u unit %u version %u",
             whole ? "what was written elsewhere:" : "torn bytes of", head[0], head[1], head[2],
             head[3]);
    return -1;
}
