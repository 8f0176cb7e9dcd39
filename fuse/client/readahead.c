/* Prefetching for sequential readers.
 *
 * When reads of a file follow one another, the next WINDOW blocks of 1 MiB are fetched in the
 * background by a few threads of the client, through the same checked path as every read. A read
 * that lies within one block is served from it, waiting when it is on its way. Blocks are
 * dropped when they were read to their end, when the reader goes elsewhere, and when the file's
 * bytes change. A failed prefetch is forgotten: the read itself will meet the error and report
 * it. Fields of struct ra are protected by cfile.mu, the job queue by client.ra.mu. */
#include "internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK (1u << 20)
#define SLOTS 8u
#define WINDOW 4u
#define JITTER (4ull << 20) /* the kernel asks for several ranges at once, in any order */

enum slot_state { SLOT_EMPTY, SLOT_FETCHING, SLOT_READY };
struct slot {
    enum slot_state state;
    uint64_t off;
    uint64_t gen;
    size_t used;
    struct buf *buf;
};
struct ra {
    struct slot slots[SLOTS];
    uint64_t next;   /* where a sequential reader goes on */
    unsigned streak; /* reads that did */
    uint64_t gen;    /* changes with every drop: older fetches are refused */
};
struct ra_job {
    struct ra_job *next;
    struct cfile *f;
    uint64_t off, gen;
};

static void slot_clear(struct slot *s)
{
    buf_unref(s->buf);
    *s = (struct slot){0};
}

void ra_drop(struct cfile *f)
{
    if (!f->ra)
        return;
    for (unsigned i = 0; i < SLOTS; i++)
        slot_clear(&f->ra->slots[i]);
    f->ra->gen++;
    f->ra->streak = 0;
}

void ra_free(struct cfile *f)
{
    ra_drop(f);
    free(f->ra);
    f->ra = NULL;
}

static struct slot *slot_find(struct ra *ra, uint64_t off)
{
    for (unsigned i = 0; ra && i < SLOTS; i++) {
        struct slot *s = &ra->slots[i];
        if (s->state != SLOT_EMPTY && off >= s->off && off < s->off + BLOCK)
            return s;
    }
    return NULL;
}

static struct buf *part_of(struct slot *s, uint64_t off, size_t len)
{
    size_t at = off - s->off;
    if (at >= s->buf->len)
        return NULL;
    size_t n = len < s->buf->len - at ? len : s->buf->len - at;
    if (at == 0 && n == s->buf->len)
        return buf_ref(s->buf);
    struct buf *b = buf_new(n);
    memcpy(b->data, s->buf->data + at, n);
    b->len = n;
    return b;
}

int ra_serve(struct cfile *f, uint64_t off, size_t len, struct buf **out)
{
    int served = 0;
    pthread_mutex_lock(&f->mu);
    struct slot *s = slot_find(f->ra, off);
    while (s && s->state == SLOT_FETCHING) {
        cond_wait_until(&f->cv, &f->mu, clock_mono() + NSEC_PER_SEC);
        s = slot_find(f->ra, off);
    }
    /* A read over the end of the block is served only when the file ends there. */
    if (s && off + len > s->off + BLOCK && s->off + s->buf->len < cfile_size(f))
        s = NULL;
    if (s) {
        *out = part_of(s, off, len);
        served = *out != NULL;
        s->used += served ? (*out)->len : 0;
        if (!served || s->used >= s->buf->len)
            slot_clear(s);
    }
    pthread_mutex_unlock(&f->mu);
    return served;
}

/* ---- the threads ---- */

static void run_job(struct ra_job *j)
{
    struct cfile *f = j->f;
    struct buf *b = NULL;
    int rc = read_range(f, j->off, BLOCK, true, &b);
    pthread_mutex_lock(&f->mu);
    struct slot *s = slot_find(f->ra, j->off);
    if (s && s->state == SLOT_FETCHING && s->gen == j->gen) {
        if (rc || !b->len) {
            slot_clear(s);
        } else {
            s->buf = buf_ref(b);
            s->state = SLOT_READY;
        }
        pthread_cond_broadcast(&f->cv);
    }
    pthread_mutex_unlock(&f->mu);
    buf_unref(b);
    cfile_unref(f);
    free(j);
}

static void *ra_thread(void *arg)
{
    struct client *c = arg;
    pthread_mutex_lock(&c->ra.mu);
    while (!c->stopping) {
        struct ra_job *j = c->ra.head;
        if (!j) {
            c->ra.idle++;
            pthread_cond_wait(&c->ra.cv, &c->ra.mu);
            c->ra.idle--;
            continue;
        }
        c->ra.head = j->next;
        if (!c->ra.head)
            c->ra.tail = NULL;
        pthread_mutex_unlock(&c->ra.mu);
        run_job(j);
        pthread_mutex_lock(&c->ra.mu);
    }
    pthread_mutex_unlock(&c->ra.mu);
    return NULL;
}

static void submit(struct cfile *f, uint64_t off, uint64_t gen)
{
    struct client *c = f->c;
    struct ra_job *j = calloc(1, sizeof(*j));
    if (!j)
        abort();
    *j = (struct ra_job){NULL, f, off, gen};
    cfile_ref(f);
    pthread_mutex_lock(&c->ra.mu);
    *(c->ra.tail ? &c->ra.tail->next : &c->ra.head) = j;
    c->ra.tail = j;
    if (!c->ra.idle && c->ra.nthreads < 4 &&
        !pthread_create(&c->ra.threads[c->ra.nthreads], NULL, ra_thread, c))
        c->ra.nthreads++;
    pthread_cond_signal(&c->ra.cv);
    pthread_mutex_unlock(&c->ra.mu);
}

/* ---- when to prefetch ---- */

static struct slot *slot_take(struct ra *ra, uint64_t next)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *s = &ra->slots[i];
        if (s->state == SLOT_READY && s->off + BLOCK + JITTER < next)
            slot_clear(s); /* the reader is past it */
        if (s->state == SLOT_EMPTY)
            return s;
    }
    return NULL;
}

static void schedule(struct cfile *f)
{
    struct ra *ra = f->ra;
    uint64_t first = (ra->next + BLOCK - 1) / BLOCK * BLOCK, size = cfile_size(f);
    for (unsigned i = 0; i < WINDOW; i++) {
        uint64_t off = first + (uint64_t)i * BLOCK;
        if (off >= size)
            return;
        if (slot_find(ra, off))
            continue;
        struct slot *s = slot_take(ra, ra->next);
        if (!s)
            return;
        *s = (struct slot){.state = SLOT_FETCHING, .off = off, .gen = ra->gen};
        submit(f, off, ra->gen);
    }
}

void ra_after(struct cfile *f, uint64_t off, size_t len)
{
    pthread_mutex_lock(&f->mu);
    if (!f->ra)
        f->ra = calloc(1, sizeof(*f->ra));
    struct ra *ra = f->ra;
    if (!ra || cfile_size(f) <= BLOCK) {
        pthread_mutex_unlock(&f->mu);
        return;
    }
    if (off > ra->next + JITTER || off + JITTER < ra->next) {
        ra_drop(f);
        ra->next = off + len;
    } else {
        ra->streak++;
        if (off + len > ra->next)
            ra->next = off + len;
    }
    if (ra->streak >= 2 && len >= 4096)
        schedule(f);
    pthread_mutex_unlock(&f->mu);
}

void ra_start(struct client *c)
{
    pthread_mutex_init(&c->ra.mu, NULL);
    pthread_cond_init(&c->ra.cv, NULL);
}

void ra_stop(struct client *c)
{
    pthread_mutex_lock(&c->ra.mu);
    c->stopping = true;
    pthread_cond_broadcast(&c->ra.cv);
    pthread_mutex_unlock(&c->ra.mu);
    for (unsigned i = 0; i < c->ra.nthreads; i++)
        pthread_join(c->ra.threads[i], NULL);
    while (c->ra.head) {
        struct ra_job *j = c->ra.head;
        c->ra.head = j->next;
        cfile_unref(j->f);
        free(j);
    }
}
