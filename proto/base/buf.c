/* Pooled byte buffers. Freed memory goes to a free list of its size class, up to a bound per class,
 * since the kernel's zeroing of fresh pages costs more than a memcpy of them. A request above the
 * largest class is allocated exactly and never pooled.
 *
 * Invariants: a buf is on a free list exactly when refs is 0; the list link is in `pool` while
 * free, and `pool` is the class while in use (NULL: unpooled). Threads: reference counts are
 * atomic; each class has one mutex, held for a few instructions. With AddressSanitizer nothing is
 * pooled, so that a use after the last unref is seen. */
#include "buf.h"
#include "base/lock.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define ALIGNMENT 4096u

struct class
{
    size_t size;
    unsigned max_free;
    struct lock mu;
    struct buf *free; /* under lock, linked by ->pool */
    unsigned nfree;   /* under lock */
};

#define CLASS(bytes, keep)                                                                         \
    {                                                                                              \
        bytes, keep, LOCK_INITIALIZER(BUF_POOL), NULL, 0                                           \
    }
static struct class classes[] = {
    CLASS(4096, 1024),   CLASS(16384, 256),
    CLASS(65536, 128),   CLASS(262144, 64),
    CLASS(1u << 20, 64), CLASS((1u << 20) + 65536, 64), /* an append or span with its framing */
    CLASS(4u << 20, 8),
};
#undef CLASS

#ifdef __SANITIZE_ADDRESS__
static const int pooling = 0;
#else
static const int pooling = 1;
#endif

static _Noreturn void die(size_t size)
{
    fprintf(stderr, "out of memory: cannot allocate a buffer of %zu bytes\n", size);
    abort();
}

static struct class *class_of(size_t size)
{
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (size <= classes[i].size)
            return &classes[i];
    }
    return NULL;
}

static struct buf *take_pooled(struct class *c)
{
    lock_acquire(&c->mu);
    struct buf *b = c->free;
    if (b) {
        c->free = b->pool;
        c->nfree--;
    }
    lock_release(&c->mu);
    return b;
}

static bool give_back(struct class *c, struct buf *b)
{
    bool kept = false;

    lock_acquire(&c->mu);
    if (c->nfree < c->max_free) {
        b->pool = c->free;
        c->free = b;
        c->nfree++;
        kept = true;
    }
    lock_release(&c->mu);
    return kept;
}

static struct buf *alloc_fresh(size_t size)
{
    struct buf *b = malloc(sizeof(*b));
    size_t cap = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);

    if (cap < size)
        die(size);
    if (cap == 0)
        cap = ALIGNMENT;
    uint8_t *data = aligned_alloc(ALIGNMENT, cap);
    if (!b || !data)
        die(size);
    b->data = data;
    b->cap = cap;
    return b;
}

struct buf *buf_new(size_t size)
{
    struct class *c = pooling ? class_of(size) : NULL;
    struct buf *b = c ? take_pooled(c) : NULL;

    if (!b)
        b = alloc_fresh(c ? c->size : size);
    b->len = 0;
    b->refs = 1;
    b->pool = c;
    return b;
}

struct buf *buf_ref(struct buf *b)
{
    if (b) {
        unsigned old = __atomic_fetch_add(&b->refs, 1, __ATOMIC_RELAXED);
        assert(old > 0);
        (void)old;
    }
    return b;
}

void buf_unref(struct buf *b)
{
    if (!b)
        return;
    unsigned old = __atomic_fetch_sub(&b->refs, 1, __ATOMIC_ACQ_REL);
    assert(old > 0);
    if (old > 1)
        return;
    if (b->pool && give_back(b->pool, b))
        return;
    free(b->data);
    free(b);
}

void buf_unrefp(struct buf **b)
{
    buf_unref(*b);
}
