/* See model.h. Histories are short (some dozen writes of a register), so all of it is searched each time. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fiber.h"

static struct {
    struct model_reg **v;
    size_t n;
    uint64_t ops, reads;
    bool cut[16], power_cut;
} all;

struct model_reg *model_reg_new(const char *name, uint64_t value)
{
    struct model_reg *r = calloc(1, sizeof(*r));
    all.v = realloc(all.v, (all.n + 1) * sizeof(struct model_reg *));
    if (!r || !all.v)
        abort();
    all.v[all.n++] = r;
    snprintf(r->name, sizeof(r->name), "%s", name);
    model_begin(r, 0, 0, 0, value);
    model_end(r, 0, MODEL_DONE, false, 0);
    r->v[0].start = r->v[0].end = -1;
    return r;
}

uint64_t model_op(void)
{
    return ++all.ops;
}

uint64_t model_reads(void)
{
    return all.reads;
}

void model_begin(struct model_reg *r, uint64_t op, unsigned client, uint64_t group, uint64_t value)
{
    if (r->n == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 8;
        r->v = realloc(r->v, r->cap * sizeof(*r->v));
        if (!r->v)
            abort();
    }
    r->v[r->n++] = (struct model_write){.value = value,
                                        .start = vt_now(),
                                        .end = MODEL_NEVER,
                                        .client = client,
                                        .op = op,
                                        .group = group};
}

void model_end(struct model_reg *r, uint64_t op, enum model_outcome o, bool soft, uint64_t value)
{
    for (size_t i = 0; i < r->n; i++) {
        struct model_write *w = &r->v[i];
        if (w->op != op)
            continue;
        if (w->value == MODEL_ANY && value)
            w->value = value;
        if (o == MODEL_NOT_DONE) {
            if (w->sure)
                vt_fail("%s: a call failed that others saw done", r->name);
            *w = r->v[--r->n];
            i--;
        } else if (o == MODEL_DONE) {
            w->done = vt_now();
            w->soft = soft && !w->broken; /* while it ran, its client may have been cut off */
            w->sure = !w->broken && !(soft && all.cut[w->client]);
            w->synced = !soft;
            if (w->sure && w->end == MODEL_NEVER)
                w->end = vt_now();
        } else {
            w->soft = false;
            w->broken = true;
        }
    }
}

/* ---- reading ---- */

/* Some write that surely came after w had surely counted at t. */
static bool overwritten(const struct model_reg *r, const struct model_write *w, unsigned client,
                        int64_t t)
{
    for (size_t i = 0; i < r->n; i++) {
        const struct model_write *x = &r->v[i];
        if (x->sure && x != w && x->start > w->end && x->end < t &&
            (x->done ? x->client != client || x->done < t || !x->op : x->client != client))
            return true;
    }
    return false;
}

/* Who else sees it makes it hard: it is where others can see it. */
static void seen(struct model_write *w, unsigned client)
{
    if (w->client == client && (w->soft || !w->sure))
        return;
    w->sure = true;
    w->soft = w->broken = false;
    if (w->end > vt_now())
        w->end = vt_now();
}

static bool may_be(const struct model_reg *r, const struct model_write *w, uint64_t op,
                   unsigned client, int64_t t0)
{
    return w->op != op && w->start <= vt_now() && !overwritten(r, w, client, t0);
}

static struct model_write *find(struct model_reg *r, uint64_t op, unsigned client, uint64_t value,
                                int64_t t0, unsigned *n)
{
    struct model_write *found = NULL;
    *n = 0;
    for (size_t i = 0; i < r->n; i++) {
        struct model_write *w = &r->v[i];
        if (w->value != value || !may_be(r, w, op, client, t0))
            continue;
        found = w;
        ++*n;
    }
    return found;
}

bool model_read(struct model_reg *r, uint64_t op, unsigned client, uint64_t value, int64_t t0,
                char why[static 400])
{
    unsigned n;
    all.reads++;
    struct model_write *w = find(r, op, client, value, t0, &n);
    if (!w && value && (w = find(r, op, client, MODEL_ANY, t0, &n))) {
        if (n > 1)
            return true; /* one of these; which is not known */
        w->value = value;
    }
    if (w) {
        if (n == 1)
            seen(w, client);
        return true;
    }
    snprintf(why, 400, "%s: read %llx between %.6f and %.6f", r->name, (unsigned long long)value,
             (double)t0 / 1e9, (double)vt_now() / 1e9);
    return false;
}

bool model_read_some(struct model_reg *r, uint64_t op, unsigned client, int64_t t0,
                     char why[static 400])
{
    all.reads++;
    for (size_t i = 0; i < r->n; i++)
        if (r->v[i].value && may_be(r, &r->v[i], op, client, t0))
            return true;
    snprintf(why, 400, "%s: something seen between %.6f and %.6f", r->name, (double)t0 / 1e9,
             (double)vt_now() / 1e9);
    return false;
}

bool model_surely(const struct model_reg *r, uint64_t value, int64_t t)
{
    const struct model_write *w = NULL;
    for (size_t i = 0; i < r->n && !w; i++)
        if (r->v[i].value == value && r->v[i].sure && r->v[i].end <= t)
            w = &r->v[i];
    for (size_t i = 0; w && i < r->n; i++)
        if (&r->v[i] != w && r->v[i].start <= t && r->v[i].end >= w->start)
            return false;
    return w != NULL;
}

/* ---- what becomes of soft writes ---- */

#define EACH_WRITE(w)                                                                              \
    for (size_t i_ = 0; i_ < all.n; i_++)                                                          \
        for (struct model_write *w = all.v[i_]->v; w < all.v[i_]->v + all.v[i_]->n; w++)

void model_hard(unsigned client, uint64_t group, int64_t t0)
{
    EACH_WRITE(w)
    {
        if (w->client != client || (group && w->group != group) || w->broken || !w->done ||
            w->done > t0 || !w->sure)
            continue;
        w->synced = true;
        if (!w->soft)
            continue;
        w->soft = false;
        w->sure = true;
        if (w->end > vt_now())
            w->end = vt_now();
    }
}

void model_broken(unsigned client, uint64_t group)
{
    EACH_WRITE(w)
    {
        if (w->client != client || (group && w->group != group) || !w->soft)
            continue;
        w->soft = w->sure = false;
        w->broken = true;
        w->end = MODEL_NEVER;
    }
}

void model_dead(unsigned client)
{
    EACH_WRITE(w)
    {
        bool running = !w->sure && !w->soft && !w->broken && w->op;
        if (w->client != client || !(w->soft || running))
            continue;
        w->soft = w->sure = false;
        w->broken = true;
        /* what was on its way may still arrive, and be executed, for a while */
        w->end = MODEL_NEVER;
    }
}

void model_power_cut(void)
{
    for (size_t i = 0; i < all.n; i++) {
        struct model_reg *r = all.v[i];
        for (struct model_write *w = r->v; r->bytes && w < r->v + r->n; w++) {
            if (w->synced)
                continue;
            w->soft = w->sure = false;
            w->broken = true;
            w->end = MODEL_NEVER;
        }
    }
    all.power_cut = true;
}

bool model_must_be_there(const struct model_reg *r)
{
    const struct model_write *w = NULL;
    for (size_t i = 0; i < r->n; i++)
        if (!w || r->v[i].start > w->start)
            w = &r->v[i];
    return !all.power_cut || (w && w->synced && !w->broken);
}

void model_cut_off(unsigned client, bool cut)
{
    all.cut[client] = cut;
    if (!cut)
        return;
    EACH_WRITE(w)
    {
        bool running = !w->sure && !w->broken && w->op;
        if (w->client != client || !(w->soft || running))
            continue;
        w->end = MODEL_NEVER;
        w->sure = false;
        if (running && !w->soft)
            w->broken = true;
    }
}

void model_print(const struct model_reg *r)
{
    for (size_t i = 0; i < r->n; i++) {
        const struct model_write *w = &r->v[i];
        fprintf(stderr, "  %s := %llx by client %u, call %llu, from %.6f by ", r->name,
                (unsigned long long)w->value, w->client, (unsigned long long)w->op,
                (double)w->start / 1e9);
        if (w->end == MODEL_NEVER)
            fprintf(stderr, "? ");
        else
            fprintf(stderr, "%.6f ", (double)w->end / 1e9);
        fprintf(stderr, "%s%s%s\n", w->sure ? "surely" : "perhaps", w->soft ? ", soft" : "",
                w->broken ? ", broken" : "");
    }
}
