/* inventory: the chunkd's table of contents and the memory of what metad was told.
 *
 * It owns two maps. `have`: every chunk on a healthy disk with the disk's index (and those reserved
 * for bytes on their way). `changes`: chunks whose state may differ from what metad knows; its
 * value says whether metad knows the chunk (TOLD). told_digest and told_count describe metad's view
 * after everything taken has been applied, so they move when a change is taken, not when it
 * happens. A heartbeat's digest is therefore right even when there are more changes than fit into
 * it.
 *
 * A chunk that changes a thousand times between two heartbeats is one entry: lengths are looked up
 * when the heartbeat is made. When metad is away for long and the changes pile up, they are dropped
 * in favour of one full report.
 *
 * Thread context: store writer threads, loop threads, heartbeat thread; one leaf mutex. */
#include "inventory.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/lock.h"
#include "base/hash.h"
#include "base/u64map.h"

#define DISK_MASK 0x00ffu
#define RESERVED 0x0100u /* no byte stored yet: not reported */
#define TOLD 1u          /* value in changes: metad knows this chunk */
#define MAX_CHANGES 1000000u

struct inventory {
    struct lock mu;
    struct u64map have;    /* mu */
    struct u64map changes; /* mu */
    uint64_t told_digest;  /* mu */
    uint64_t told_count;   /* mu */
    uint64_t highest;      /* mu: chunk id ever held */
    size_t reserved;       /* mu: entries of have that are only reserved */
    bool overflowed;       /* mu */
};

struct inventory *inventory_new(void)
{
    struct inventory *inv = calloc(1, sizeof(*inv));
    if (!inv)
        abort();
    lock_init(&inv->mu, LOCK_INVENTORY);
    u64map_init(&inv->have, U64MAP_U16);
    u64map_init(&inv->changes, U64MAP_U8);
    return inv;
}

void inventory_free(struct inventory *inv)
{
    if (!inv)
        return;
    u64map_free(&inv->have);
    u64map_free(&inv->changes);
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
    if (inv->overflowed)
        return;
    if (inv->changes.n >= MAX_CHANGES) {
        u64map_free(&inv->changes);
        inv->overflowed = true;
        return;
    }
    if (!u64map_has(&inv->changes, chunk))
        u64map_put(&inv->changes, chunk, had ? TOLD : 0);
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
    u64map_free(&inv->changes);
    inv->overflowed = true;
    return dropped;
}

size_t inventory_take(struct inventory *inv, struct inventory_item *out, size_t max)
{
    LOCK_SCOPE(&inv->mu);
    size_t n = 0, pos = 0;
    uint64_t chunk, told;
    while (n < max && u64map_next(&inv->changes, &pos, &chunk, &told)) {
        struct inventory_item *it = &out[n++];
        it->chunk = chunk;
        it->exists = exists_locked(inv, chunk, &it->disk);
        if (it->exists != (told == TOLD)) {
            inv->told_digest ^= hash_u64(chunk);
            inv->told_count += it->exists ? 1 : (uint64_t)-1;
        }
    }
    if (n == inv->changes.n)
        u64map_free(&inv->changes);
    else
        for (size_t i = 0; i < n; i++)
            u64map_del(&inv->changes, out[i].chunk);
    return n;
}

void inventory_told(struct inventory *inv, uint64_t *digest, uint64_t *count)
{
    LOCK_SCOPE(&inv->mu);
    *digest = inv->told_digest;
    *count = inv->told_count;
}

void inventory_look(struct inventory *inv, struct inventory_item *it)
{
    LOCK_SCOPE(&inv->mu);
    it->exists = exists_locked(inv, it->chunk, &it->disk);
}

bool inventory_overflowed(struct inventory *inv)
{
    LOCK_SCOPE(&inv->mu);
    return inv->overflowed;
}

struct inventory_item *inventory_snapshot(struct inventory *inv, size_t *n)
{
    LOCK_SCOPE(&inv->mu);
    struct inventory_item *out = inv->have.n ? malloc(inv->have.n * sizeof(*out)) : NULL;
    if (inv->have.n && !out)
        abort();
    *n = 0;
    inv->told_digest = 0;
    size_t pos = 0;
    uint64_t chunk, val;
    while (u64map_next(&inv->have, &pos, &chunk, &val)) {
        if (val & RESERVED)
            continue;
        out[(*n)++] = (struct inventory_item){chunk, val & DISK_MASK, true};
        inv->told_digest ^= hash_u64(chunk);
    }
    inv->told_count = *n;
    u64map_free(&inv->changes);
    inv->overflowed = false;
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
