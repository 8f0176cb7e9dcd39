/* The ring: pointers to entries in a circular array that grows, oldest first. An entry goes when nobody needs it and
 * more than the slack is here, or when there is too much in any case. The slack lets a chunkd that was away for a
 * moment, or that outlived metad, go on where it was. */
#include "names_ring.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/byteorder.h"
#include "base/lock.h"
#include "names_file.h"

#define ENTRY_CRC_AT 20u /* metad/log/entry.h */

struct names_ring {
    struct lock mu;
    uint64_t max, slack;
    uint64_t bytes;        /* of entries that are here */
    uint64_t floor, last;  /* index before the first entry here; of the last one */
    uint64_t needed_above; /* entries up to it may go */
    struct names_ring_entry **v;
    size_t first, n, cap; /* cap: a power of two */
};

struct names_ring *names_ring_new(uint64_t max, uint64_t slack)
{
    struct names_ring *r = calloc(1, sizeof(*r));

    if (!r)
        abort();
    r->max = max;
    r->slack = slack;
    lock_init(&r->mu, LOCK_NAMES_RING);
    return r;
}

static struct names_ring_entry *ring_at(const struct names_ring *r, size_t i)
{
    return r->v[(r->first + i) & (r->cap - 1)];
}

static void drop_first(struct names_ring *r)
{
    struct names_ring_entry *e = ring_at(r, 0);

    r->floor = e->index;
    r->bytes -= e->len;
    r->first = (r->first + 1) & (r->cap - 1);
    r->n--;
    free(e);
}

static void clear(struct names_ring *r)
{
    while (r->n > 0)
        drop_first(r);
}

void names_ring_free(struct names_ring *r)
{
    if (!r)
        return;
    clear(r);
    free(r->v);
    lock_destroy(&r->mu);
    free(r);
}

static void trim(struct names_ring *r)
{
    while (r->n > 0 &&
           (r->bytes > r->max || (r->bytes > r->slack && ring_at(r, 0)->index <= r->needed_above)))
        drop_first(r);
}

static void ring_grow(struct names_ring *r)
{
    size_t cap = r->cap ? 2 * r->cap : 256;
    struct names_ring_entry **v = malloc(cap * sizeof(*v));

    if (!v)
        abort();
    for (size_t i = 0; i < r->n; i++)
        v[i] = ring_at(r, i);
    free(r->v);
    r->v = v;
    r->first = 0;
    r->cap = cap;
}

void names_ring_add(struct names_ring *r, uint64_t index, int64_t time_ns, const void *entry,
                    size_t len)
{
    struct names_ring_entry *e = malloc(sizeof(*e) + len);

    if (!e)
        abort();
    memcpy(e->data, entry, len);
    LOCK_SCOPE(&r->mu);
    e->index = index;
    e->before = r->last;
    e->time_ns = time_ns;
    e->len = (uint32_t)len;
    if (r->n == r->cap)
        ring_grow(r);
    r->v[(r->first + r->n++) & (r->cap - 1)] = e;
    r->last = index;
    r->bytes += len;
    trim(r);
}

void names_ring_reset(struct names_ring *r, uint64_t index)
{
    LOCK_SCOPE(&r->mu);
    clear(r);
    r->floor = r->last = index;
}

void names_ring_need(struct names_ring *r, uint64_t above)
{
    LOCK_SCOPE(&r->mu);
    r->needed_above = above;
    trim(r);
}

uint64_t names_ring_last(struct names_ring *r)
{
    LOCK_SCOPE(&r->mu);
    return r->last;
}

/* Place of the first entry behind index; n when there is none. */
static size_t behind(const struct names_ring *r, uint64_t index)
{
    size_t lo = 0, hi = r->n;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (ring_at(r, mid)->index <= index)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool names_ring_covers(struct names_ring *r, uint64_t index)
{
    LOCK_SCOPE(&r->mu);
    return index >= r->floor;
}

bool names_ring_has(struct names_ring *r, uint64_t index, uint32_t crc)
{
    LOCK_SCOPE(&r->mu);
    size_t i = behind(r, index);
    if (i == 0)
        return false;
    const struct names_ring_entry *e = ring_at(r, i - 1);
    return e->index == index && e->len > ENTRY_CRC_AT + 4 &&
           le_get32(e->data + ENTRY_CRC_AT) == crc;
}

size_t names_ring_pack(struct names_ring *r, uint64_t after, uint8_t *out, size_t size,
                       uint64_t *last, bool *gone)
{
    LOCK_SCOPE(&r->mu);
    size_t used = 0;
    *last = after;
    *gone = after < r->floor;
    if (*gone)
        return 0;
    for (size_t i = behind(r, after); i < r->n; i++) {
        const struct names_ring_entry *e = ring_at(r, i);
        if (size - used < NAMES_RECORD + e->len) {
            *gone = used == 0;
            break;
        }
        names_record_make(NAMES_ENTRY, e->index, e->before, e->time_ns, e->data, e->len,
                          out + used);
        memcpy(out + used + NAMES_RECORD, e->data, e->len);
        used += NAMES_RECORD + e->len;
        *last = e->index;
    }
    return used;
}

void names_ring_each(struct names_ring *r, uint64_t after,
                     bool (*fn)(void *arg, const struct names_ring_entry *e), void *arg)
{
    LOCK_SCOPE(&r->mu);
    for (size_t i = behind(r, after); i < r->n; i++)
        if (!fn(arg, ring_at(r, i)))
            break;
}
