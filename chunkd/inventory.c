/* inventory: the chunkd's table of contents and the memory of what metads were told.
 *
 * `have`: every chunk on a healthy disk with the disk's index (and those reserved for bytes on their
 * way). For each metad there is a view: in `changes` the chunks whose state may differ from what it
 * knows, with whether it knows the chunk (TOLD). told_digest and told_count describe what it knows
 * after everything taken has been applied, so they move when a change is taken, not when it
 * happens. A heartbeat's digest is therefore right even when there are more changes than fit into
 * it.
 *
 * A chunk that changes a thousand times between two heartbeats is one entry: lengths are looked up
 * when the heartbeat is made. When a metad is away for long and the changes pile up, they are dropped
 * in favour of one full report; all views together are bounded.
 *
 * Thread context: store writer threads, loop threads, heartbeat thread; one leaf mutex. */
#include "inventory.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/lock.h"
#include "base/hash.h"
#include "base/u64map.h"

#define DISK_MASK 0x00ffu
#define RESERVED 0x0100u     /* no byte stored yet: not reported */
#define TOLD 1u              /* value in changes: metad knows this chunk */
#define MAX_CHANGES 1000000u /* of all views */

struct inventory_view { /* all under the inventory's mu */
    struct inventory *inv;
    struct inventory_view *next;
    struct u64map changes;
    uint64_t told_digest, told_count;
    bool overflowed;
};
struct inventory {
    struct lock mu;
    /* all under mu */
    struct u64map have;
    struct inventory_view *views;
    size_t nviews;
    uint64_t highest; /* chunk id ever held */
    size_t reserved;  /* entries of have that are only reserved */
};

struct inventory *inventory_new(void)
{
    struct inventory *inv = calloc(1, sizeof(*inv));
    if (!inv)
        abort();
    lock_init(&inv->mu, LOCK_INVENTORY);
    u64map_init(&inv->have, U64MAP_U16);
    return inv;
}

struct inventory_view *inventory_view_new(struct inventory *inv)
{
    struct inventory_view *v = calloc(1, sizeof(*v));
    if (!v)
        abort();
    u64map_init(&v->changes, U64MAP_U8);
    v->inv = inv;
    LOCK_SCOPE(&inv->mu);
    v->overflowed = inv->have.n > inv->reserved; /* it was told nothing of these */
    v->next = inv->views;
    inv->views = v;
    inv->nviews++;
    return v;
}

void inventory_view_free(struct inventory_view *v)
{
    if (!v)
        return;
    lock_acquire(&v->inv->mu);
    struct inventory_view **p = &v->inv->views;
    while (*p != v)
        p = &(*p)->next;
    *p = v->next;
    v->inv->nviews--;
    lock_release(&v->inv->mu);
    u64map_free(&v->changes);
    free(v);
}

void inventory_free(struct inventory *inv)
{
    if (!inv)
        return;
    u64map_free(&inv->have);
    lock_destroy(&inv->mu);
    free(inv);
}

static bool exists_locked(const struct inventory *inv, uint64_t chunk, uint32_t *disk)
{
    lock_assert_held(&inv->mu);
    uint64_t v = 0;
    bool there = u64map_get(&inv->have, chunk, &v);
    *disk = v & DISK_MASK;
    return there && !(v & RESERVED);
}

/* Notes that chunk is about to change; had: whether it exists before the change. */
static void note_change(struct inventory *inv, uint64_t chunk, bool had)
{
    for (struct inventory_view *v = inv->views; v; v = v->next) {
        if (v->overflowed)
            continue;
        if (v->changes.n >= MAX_CHANGES / inv->nviews) {
            u64map_free(&v->changes);
            v->overflowed = true;
        } else if (!u64map_has(&v->changes, chunk)) {
            u64map_put(&v->changes, chunk, had ? TOLD : 0);
        }
    }
}

uint32_t inventory_disk(struct inventory *inv, uint64_t chunk)
{
    LOCK_SCOPE(&inv->mu);
    uint64_t v;
    return u64map_get(&inv->have, chunk, &v) ? v & DISK_MASK : INVENTORY_NONE;
}

uint32_t inventory_reserve(struct inventory *inv, uint64_t chunk, uint32_t disk)
{
    LOCK_SCOPE(&inv->mu);
    uint64_t v;
    if (u64map_get(&inv->have, chunk, &v))
        return v & DISK_MASK;
    u64map_put(&inv->have, chunk, disk | RESERVED);
    inv->reserved++;
    return disk;
}

void inventory_unreserve(struct inventory *inv, uint64_t chunk)
{
    LOCK_SCOPE(&inv->mu);
    uint64_t v;
    if (u64map_get(&inv->have, chunk, &v) && (v & RESERVED)) {
        u64map_del(&inv->have, chunk);
        inv->reserved--;
    }
}

void inventory_changed(struct inventory *inv, uint64_t chunk, uint32_t disk, bool exists)
{
    if (chunk == 0)
        return;
    LOCK_SCOPE(&inv->mu);
    uint32_t where;
    if (chunk > inv->highest)
        inv->highest = chunk;
    bool had = exists_locked(inv, chunk, &where);
    if (!exists && (!had || where != disk))
        return; /* an old second copy went; the one we name is elsewhere */
    note_change(inv, chunk, had);
    if (!exists) {
        u64map_del(&inv->have, chunk);
        return;
    }
    uint64_t v;
    if (u64map_get(&inv->have, chunk, &v) && (v & RESERVED))
        inv->reserved--;
    u64map_put(&inv->have, chunk, disk);
}

size_t inventory_drop_disk(struct inventory *inv, uint32_t disk)
{
    LOCK_SCOPE(&inv->mu);
    struct u64map keep = {.width = U64MAP_U16};
    size_t pos = 0, dropped = 0;
    uint64_t chunk, val;
    while (u64map_next(&inv->have, &pos, &chunk, &val)) {
        if ((val & DISK_MASK) == disk) {
            dropped++;
            if (val & RESERVED)
                inv->reserved--;
            continue;
        }
        u64map_put(&keep, chunk, val);
    }
    u64map_free(&inv->have);
    inv->have = keep;
    for (struct inventory_view *v = inv->views; v; v = v->next) {
        u64map_free(&v->changes);
        v->overflowed = true;
    }
    return dropped;
}

size_t inventory_take(struct inventory_view *v, struct inventory_item *out, size_t max)
{
    LOCK_SCOPE(&v->inv->mu);
    size_t n = 0, pos = 0;
    uint64_t chunk, told;
    while (n < max && u64map_next(&v->changes, &pos, &chunk, &told)) {
        struct inventory_item *it = &out[n++];
        it->chunk = chunk;
        it->exists = exists_locked(v->inv, chunk, &it->disk);
        if (it->exists != (told == TOLD)) {
            v->told_digest ^= hash_u64(chunk);
            v->told_count += it->exists ? 1 : (uint64_t)-1;
        }
    }
    if (n == v->changes.n)
        u64map_free(&v->changes);
    else
        for (size_t i = 0; i < n; i++)
            u64map_del(&v->changes, out[i].chunk);
    return n;
}

void inventory_told(struct inventory_view *v, uint64_t *digest, uint64_t *count)
{
    LOCK_SCOPE(&v->inv->mu);
    *digest = v->told_digest;
    *count = v->told_count;
}

bool inventory_overflowed(struct inventory_view *v)
{
    LOCK_SCOPE(&v->inv->mu);
    return v->overflowed;
}

struct inventory_item *inventory_snapshot(struct inventory_view *v, size_t *n)
{
    struct inventory *inv = v->inv;
    LOCK_SCOPE(&inv->mu);
    struct inventory_item *out = inv->have.n ? malloc(inv->have.n * sizeof(*out)) : NULL;
    if (inv->have.n && !out)
        abort();
    *n = 0;
    v->told_digest = 0;
    size_t pos = 0;
    uint64_t chunk, val;
    while (u64map_next(&inv->have, &pos, &chunk, &val)) {
        if (val & RESERVED)
            continue;
        out[(*n)++] = (struct inventory_item){chunk, val & DISK_MASK, true};
        v->told_digest ^= hash_u64(chunk);
    }
    v->told_count = *n;
    u64map_free(&v->changes);
    v->overflowed = false;
    return out;
}

size_t inventory_count(struct inventory *inv)
{
    LOCK_SCOPE(&inv->mu);
    return inv->have.n - inv->reserved;
}

uint64_t inventory_highest(struct inventory *inv)
{
    LOCK_SCOPE(&inv->mu);
    return inv->highest;
}
