/* Placement of copies: weighted random choice without replacement.
 *
 * Each pick is one pass over all chunkds. A candidate falls in a class: 0 on a computer without a
 * copy and roomy, 1 the same but tight, 2 and 3 on a computer that has a copy. The best class that
 * occurs wins; within it reservoir sampling picks by weight, so hundreds of chunkds cost one pass
 * and no memory.
 *
 * Invariants: never a chunkd twice, never one that is not up, draining, paused, excluded, or without room. Pure:
 * callable from any thread, the same inputs give the same picks. */
#include "placement.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define RATE_HALF (64.0 * (1 << 20)) /* a chunkd writing so much a second gets half the chance */
#define LOAD_HALF 8.0                /* so does one with so many requests in flight */

struct picking {
    const struct placement_table *t;
    const struct placement_req *r;
    uint32_t *out;
    unsigned n;      /* picked so far */
    uint64_t random; /* state */
};

const struct placement_node *placement_node(const struct placement_table *t, uint32_t chunkd)
{
    return chunkd && chunkd < t->n && t->node[chunkd].host ? &t->node[chunkd] : NULL;
}

bool placement_takes_new(const struct placement_node *p)
{
    return p->state == REPLFS__NODE_STATE__NODE_UP && !p->draining && !p->paused;
}

unsigned placement_hosts_up(const struct placement_table *t)
{
    uint32_t max = 0;
    for (uint32_t i = 1; i < t->n; i++)
        if (t->node[i].host > max)
            max = t->node[i].host;
    uint8_t *seen = calloc(1, max + 1u);
    if (!seen)
        abort();
    unsigned n = 0;
    for (uint32_t i = 1; i < t->n; i++) {
        const struct placement_node *p = &t->node[i];
        if (p->host && placement_takes_new(p) && !seen[p->host]) {
            seen[p->host] = 1;
            n++;
        }
    }
    free(seen);
    return n;
}

/* Uniform in [0, 1). */
static double next_random(struct picking *k)
{
    k->random += 0x9e3779b97f4a7c15ull;
    return (double)(hash_u64(k->random) >> 11) / 9007199254740992.0;
}

static bool contains(const uint32_t *v, size_t n, uint32_t x)
{
    for (size_t i = 0; i < n; i++)
        if (v[i] == x)
            return true;
    return false;
}

static bool host_used(const struct picking *k, uint32_t host)
{
    if (contains(k->r->hosts, k->r->nhosts, host))
        return true;
    for (unsigned i = 0; i < k->n; i++)
        if (k->t->node[k->out[i]].host == host)
            return true;
    return false;
}

#define WORST 8 /* than all classes */
/* 0 best; -1: not eligible. */
static int classify(const struct picking *k, uint32_t id)
{
    const struct placement_node *p = placement_node(k->t, id);
    const struct placement_req *r = k->r;
    if (!p || !placement_takes_new(p) || p->room < PLACEMENT_TIGHT + r->need)
        return -1;
    if (r->idle_only && p->jobs >= p->max_jobs)
        return -1;
    if (contains(r->exclude, r->nexclude, id) || contains(k->out, k->n, id))
        return -1;
    bool shared = host_used(k, p->host), tight = p->room < r->headroom + r->need;
    if (shared && r->new_host_only)
        return -1;
    return (shared ? 4 : 0) + (p->flaps ? 2 : 0) + (tight ? 1 : 0);
}

static double weight(const struct placement_node *p)
{
    double w = (double)(p->avail >> 20) + 1;
    w /= 1 + p->load / LOAD_HALF;
    w /= 1 + (double)p->rate / RATE_HALF;
    return w / (1 + p->jobs);
}

static uint32_t pick_one(struct picking *k)
{
    int best = WORST;
    double total = 0;
    uint32_t chosen = 0;
    for (uint32_t id = 1; id < k->t->n; id++) {
        int cls = classify(k, id);
        if (cls < 0 || cls > best)
            continue;
        if (cls < best) {
            best = cls;
            total = 0;
        }
        double w = weight(&k->t->node[id]);
        total += w;
        if (next_random(k) * total < w)
            chosen = id;
    }
    return chosen;
}

/* Stable: equals keep their random order. */
static void least_loaded_first(const struct placement_table *t, uint32_t *out, unsigned n)
{
    for (unsigned i = 1; i < n; i++) {
        uint32_t id = out[i];
        unsigned j = i;
        for (; j > 0 && t->node[out[j - 1]].load > t->node[id].load; j--)
            out[j] = out[j - 1];
        out[j] = id;
    }
}

unsigned placement_pick(const struct placement_table *t, const struct placement_req *r,
                        uint32_t *out)
{
    assert(r->want <= PLACEMENT_PICK_MAX);
    struct picking k = {.t = t, .r = r, .out = out, .random = hash_u64(r->seed ^ 0x706c616365ull)};
    while (k.n < r->want) {
        uint32_t id = pick_one(&k);
        if (!id)
            break;
        out[k.n++] = id;
    }
    least_loaded_first(t, out, k.n);
    return k.n;
}
