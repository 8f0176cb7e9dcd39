/* Chunks of which some bytes are on no copy any more: a power cut of all machines took what was written
 * in its last second, or every copy rotted. What is left of them is worth as much care as any
 * other chunk.
 *
 * What a chunk needs is less than what was ever committed of it: the bytes that extents name now.
 * Each verification that finds a copy bad notes how much of it is good (struct damage). A copy that
 * has all that is needed is a good one. When no such copy is in reach, nor on a chunkd that may come
 * back by itself, the planner asks to keep the longest good beginning (REPAIR_KEEP): from then
 * on that length is what the chunk's copies are measured by and copied to. Copies that may have
 * good bytes behind a bad place are neither dropped nor overwritten while the chunk is damaged, and
 * readers are told of them, too. A chunkd that returns with more, or a commit that makes the chunk
 * longer, ends all that, and the copies are looked at anew; likewise the file's being written over,
 * cut or deleted: what is needed is worked out again when the chunk's references change.
 *
 *   noted (keep 0) -> kept (keep > 0) -> forgotten
 *
 * Soft, as all that is known of copies: after a restart reports and verifications find it again.
 * Locks: fsm lock (any), nodes.mu. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"
#define LOOK_SLICE 64u
#define DOUBTS_EVERY (60 * NSEC_PER_SEC)

static struct damage *damage_find(const struct nodes *n, uint64_t chunk)
{
    uint64_t i;
    return n->ndamage && u64map_get(&n->damage_index, chunk, &i) ? &n->damage[i] : NULL;
}

static struct damage *find_or_add(struct nodes *n, const struct fsm_chunk *c)
{
    struct damage *g = damage_find(n, c->id);
    if (g)
        return g;
    n->damage = realloc(n->damage, (n->ndamage + 1) * sizeof(*n->damage));
    if (!n->damage)
        abort();
    u64map_put(&n->damage_index, c->id, n->ndamage);
    g = &n->damage[n->ndamage++];
    *g = (struct damage){.chunk = c->id, .len = c->len};
    atomic_store(&n->any_damage, true);
    return g;
}

void damage_forget(struct nodes *n, uint64_t chunk)
{
    lock_assert_held(&n->mu);
    uint64_t i;
    if (!n->ndamage || !u64map_get(&n->damage_index, chunk, &i))
        return;
    u64map_del(&n->damage_index, chunk);
    if (i != --n->ndamage) {
        n->damage[i] = n->damage[n->ndamage];
        u64map_put(&n->damage_index, n->damage[i].chunk, i);
    }
    atomic_store(&n->any_damage, n->ndamage > 0);
}

void damage_free(struct nodes *n)
{
    free(n->damage);
    u64map_free(&n->damage_index);
}

/* ---- what is needed ---- */

static bool last_end(void *arg, uint64_t ino, const struct ext *e)
{
    uint32_t *need = arg;
    (void)ino;
    if (e->chunk_off + e->len > *need)
        *need = e->chunk_off + e->len;
    return true;
}

/* Works it out again if the chunk's references changed. */
static void refresh(struct nodes *n, struct damage *g, const struct fsm_chunk *c)
{
    if (g->need && g->refs == c->refs && g->live == c->live)
        return;
    g->refs = c->refs;
    g->live = c->live;
    g->need = 0;
    fsm_chunk_extents(n->cfg.fsm, c, last_end, &g->need);
}

uint32_t damage_len(const struct nodes *n, const struct fsm_chunk *c)
{
    const struct damage *g = damage_find(n, c->id);
    return g && g->keep ? g->keep : c->len;
}

static bool is_lost(const struct damage *g)
{
    return g->keep && g->keep < g->need;
}

/* ---- what copies have ---- */

static struct damage_copy *note_of(struct damage *g, uint32_t chunkd)
{
    for (unsigned i = 0; g && i < g->n; i++)
        if (g->copy[i].chunkd == chunkd)
            return &g->copy[i];
    return NULL;
}

bool damage_found(struct nodes *n, struct fsm_chunk *c, uint32_t chunkd, uint32_t good,
                  uint32_t stored)
{
    lock_assert_held(&n->mu);
    struct damage *g = find_or_add(n, c);
    struct damage_copy *k = note_of(g, chunkd);
    if (!k && g->n < DAMAGE_COPIES_MAX)
        k = &g->copy[g->n++];
    if (k)
        *k = (struct damage_copy){chunkd, good, stored > good ? stored : good};
    refresh(n, g, c);
    if (good < g->need)
        return false;
    if (!g->keep)
        g->keep = g->need;
    return good >= g->keep;
}

void damage_view(const struct nodes *n, const struct fsm_chunk *c, struct repair_chunk *v)
{
    lock_assert_held(&n->mu);
    struct damage *g = damage_find(n, c->id);
    if (!g)
        return;
    v->len = g->keep ? g->keep : c->len;
    for (unsigned i = 0; i < v->n; i++) {
        const struct damage_copy *k = note_of(g, v->copy[i].chunkd);
        if (!k || v->copy[i].state != REPAIR_BAD)
            continue;
        v->copy[i].good_len = k->good;
        v->copy[i].precious = is_lost(g) && k->stored > g->keep;
    }
}

/* ---- keeping what there is ---- */

struct naming {
    uint32_t from;
    char *text;
    size_t len, cap;
    unsigned n;
    uint64_t only; /* inode; 0: any */
};

static bool name_range(void *arg, uint64_t ino, const struct ext *e)
{
    struct naming *w = arg;
    uint64_t end = e->chunk_off + (uint64_t)e->len, from = e->chunk_off;
    if (end <= w->from || (w->only && w->only != ino))
        return true;
    if (from < w->from)
        from = w->from;
    uint64_t at = e->file_off + (from - e->chunk_off);
    char inode[40] = "";
    if (!w->only)
        snprintf(inode, sizeof(inode), "inode %llu ", (unsigned long long)ino);
    int k = snprintf(w->text + w->len, w->cap - w->len, "%s%sbytes %llu to %llu", w->n ? ", " : "",
                     inode, (unsigned long long)at, (unsigned long long)(at + (end - from) - 1));
    if (k < 0 || (size_t)k >= w->cap - w->len) {
        w->text[w->len] = 0; /* as many as fit */
        return false;
    }
    w->len += (size_t)k;
    w->n++;
    return true;
}

bool damage_lost(const struct nodes *n, const struct fsm_chunk *c)
{
    lock_assert_held(&n->mu);
    const struct damage *g = damage_find(n, c->id);
    return g && is_lost(g);
}

bool damage_text(struct nodes *n, const struct fsm_chunk *c, uint64_t ino, char *out, size_t cap)
{
    lock_assert_held(&n->mu);
    const struct damage *g = damage_find(n, c->id);
    struct naming w = {.from = g ? g->keep : 0, .text = out, .cap = cap, .only = ino};
    out[0] = 0;
    if (!g || !is_lost(g))
        return false;
    fsm_chunk_extents(n->cfg.fsm, c, name_range, &w);
    return w.n > 0;
}

void damage_keep(struct nodes *n, struct fsm_chunk *c, uint32_t len)
{
    lock_assert_held(&n->mu);
    struct damage *g = find_or_add(n, c);
    char ranges[512];
    refresh(n, g, c);
    g->keep = len < g->need ? len : g->need;
    for (unsigned i = 0; i < g->n; i++) {
        struct fsm_loc *l = reports_loc(c, g->copy[i].chunkd);
        if (l && l->state == COPY_BAD && g->copy[i].good >= g->keep)
            l->state = COPY_OK;
    }
    if (damage_text(n, c, 0, ranges, sizeof(ranges)))
        log_error(
            "chunk %016llx is damaged: no copy in reach has more than its first %u bytes of %u; "
            "these are kept. Lost: %s",
            (unsigned long long)c->id, g->keep, g->need, ranges);
}

/* All that is known of the copies is in doubt again. */
static void look_anew(struct nodes *n, struct fsm_chunk *c)
{
    struct fsm_loc *l = fsm_chunk_locs(c);
    damage_forget(n, c->id);
    for (unsigned i = 0; i < c->nloc; i++)
        if (l[i].state == COPY_OK || l[i].state == COPY_BAD)
            l[i].state = COPY_SHORT;
    orders_consider(n, c, 0);
}

void damage_reported(struct nodes *n, struct fsm_chunk *c, uint32_t chunkd, uint32_t len)
{
    lock_assert_held(&n->mu);
    struct damage *g = damage_find(n, c->id);
    const struct damage_copy *k = note_of(g, chunkd);
    if (g && is_lost(g) && len > g->keep && !(k && len <= k->stored))
        look_anew(n, c);
}

void damage_grew(struct nodes *n, const struct fsm_chunk *c)
{
    lock_assert_held(&n->mu);
    const struct damage *g = damage_find(n, c->id);
    if (g && c->len > g->len)
        damage_forget(n, c->id); /* who took more bytes has all in front of them */
}

bool damage_known(struct nodes *n, uint64_t chunk)
{
    lock_assert_held(&n->mu);
    struct damage *g = damage_find(n, chunk);
    int64_t now = clock_mono();
    if (!g || !is_lost(g) || now - g->doubted_at > DOUBTS_EVERY) {
        if (g)
            g->doubted_at = now;
        return false;
    }
    return true;
}

void damage_forget_all(struct nodes *n)
{
    lock_assert_held(&n->mu);
    while (n->ndamage) {
        uint64_t chunk = n->damage[n->ndamage - 1].chunk;
        struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, chunk);
        if (c)
            look_anew(n, c);
        else
            damage_forget(n, chunk);
    }
}

/* ---- time ---- */

/* Notes of copies that are no longer bad. True: nothing is left to be known. */
static bool tidy(struct damage *g, struct fsm_chunk *c)
{
    for (unsigned i = 0; i < g->n;) {
        const struct fsm_loc *l = reports_loc(c, g->copy[i].chunkd);
        if (l && (l->state == COPY_BAD || (g->keep && l->state == COPY_OK)))
            i++;
        else
            g->copy[i] = g->copy[--g->n];
    }
    return !g->n && !g->keep;
}

static void damage_look_at(struct nodes *n, struct damage *g)
{
    struct fsm_chunk *c = fsm_chunk_find(n->cfg.fsm, g->chunk);
    if (!c || tidy(g, c)) {
        damage_forget(n, g->chunk);
        return;
    }
    bool lost = is_lost(g);
    uint32_t needed = g->need;
    refresh(n, g, c);
    if (g->keep && g->keep >= needed && g->need > g->keep) {
        look_anew(n, c); /* a file names more of it again */
    } else if (lost && !is_lost(g)) {
        log_info("chunk %016llx is whole: what it had lost is no longer part of a file",
                 (unsigned long long)c->id);
        orders_consider(n, c, 0);
    }
}

void damage_look(struct nodes *n)
{
    lock_assert_held(&n->mu);
    for (unsigned i = 0; i < LOOK_SLICE && n->ndamage; i++) {
        if (n->damage_pos >= n->ndamage)
            n->damage_pos = 0;
        damage_look_at(n, &n->damage[n->damage_pos++]);
        if (i + 1 >= n->ndamage)
            break;
    }
}
