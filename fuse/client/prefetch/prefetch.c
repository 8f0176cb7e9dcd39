/* Small files, read before anybody asks for them.
 *
 * A program that copies, backs up or searches a tree lists a directory and then reads its files one by one, and
 * for a small file nearly all of the time is round trips: where are the bytes, then the bytes. So
 * when files of a listed directory are being opened, those behind them in the listing are fetched,
 * many at once, and an open takes what is there.
 *
 * Lists: the small files of the directories listed last, in the order of the listing. `next` is the
 * first that was not asked for. The second open in a list begins reading ahead; while opens keep
 * falling into lists (the streak), listing the directory does, or that it will be listed soon. At
 * most WINDOW files wait to be opened; one that has to make room unopened ends the streak, and its
 * list. An open file keeps its bytes until they were read to the end; all together at most HELD_MAX.
 *
 * Coherence: what is fetched counts only while the lease held at that time is held, and while the
 * file's change counter is the one the bytes came with; both are looked at under the file's mutex,
 * where a recall drops them (map_drop). Bytes went through the same checks as any read.
 *
 * Failure modes: none that anybody sees. What cannot be fetched at once is read when it is opened.
 *
 * Threads: PREFETCH_THREADS fetch; any other calls. prefetch.mu is taken inside a file's. */
#include "client/prefetch/prefetch.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/buf.h"
#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "client/base/attr.h"
#include "base/u64map.h"
#include "client/cache/lease_cache.h"
#include "client/cache/lease_cache_change.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/committed_map.h"
#include "client/file/whole.h"
#include "client/internal.h"
#include "client/io/read.h"
#include "client/io/read_round.h"
#include "client/session/ask.h"

#define LOG_MODULE "prefetch"
#define PREFETCH_THREADS 2u
#define LISTS 512u
#define LIST_MAX 4096u
#define LISTED_MAX 65536u /* in all lists; less than LIST_MAX more for a short while */
#define FILE_BYTES_MAX (128u << 10)
#define HELD_MAX (64u << 20)
#define WINDOW 64u /* times FILE_BYTES_MAX: the most that is kept */
#define BATCH 16u
#define EXTENTS 16u
#define STREAK_MAX 8u
#define STREAK_NS (NSEC_PER_SEC / 5)
#define FETCH_MS 2000u
#define WAIT_NS (50 * NSEC_PER_MSEC) /* for one that is being fetched when it is opened */

struct member {
    uint64_t ino;
    bool opened;
};

struct list {
    uint64_t dir;
    struct member *v;
    uint32_t n, cap, next, opened;
    uint64_t used; /* when, of prefetch.clock */
};

struct fetched {
    struct fetched *newer, *older;
    uint64_t ino, change, begun;
    struct buf *data;
};

struct prefetch {
    struct list lists[LISTS];
    struct u64map where; /* ino -> its place, see place_of */
    struct u64map files; /* ino -> struct fetched */
    struct u64map busy;  /* ino -> itself: being fetched */
    struct fetched *oldest, *newest;
    uint64_t queue[WINDOW]; /* to be fetched */
    size_t nqueue;
    uint64_t clock;
    unsigned streak;
    int64_t last; /* when a file of a list was opened */
    pthread_t threads[PREFETCH_THREADS];
    unsigned nthreads;
    bool stop;
};

/* ---- lists (mu held) ---- */

static void *place_of(size_t list, size_t member)
{
    return (void *)(uintptr_t)(1 + list * LIST_MAX + member);
}

static struct list *find_place(struct prefetch *a, uint64_t ino, struct member **member)
{
    uintptr_t at = (uintptr_t)u64map_get_ptr(&a->where, ino);
    struct list *l = at ? &a->lists[(at - 1) / LIST_MAX] : NULL;
    if (l)
        *member = &l->v[(at - 1) % LIST_MAX];
    return l;
}

static void list_empty(struct prefetch *a, struct list *l)
{
    for (uint32_t i = 0; i < l->n; i++) {
        struct member *m;
        if (find_place(a, l->v[i].ino, &m) == l)
            u64map_del_ptr(&a->where, l->v[i].ino);
    }
    free(l->v);
    *l = (struct list){0};
}

static struct list *list_of(struct prefetch *a, uint64_t dir)
{
    for (struct list *l = a->lists; l < a->lists + LISTS; l++)
        if (l->dir == dir)
            return l;
    return NULL;
}

/* One that is read, or else was not used for long. full: none that is empty. */
static struct list *list_to_reuse(struct prefetch *a, bool full)
{
    struct list *best = NULL;
    for (struct list *l = a->lists; l < a->lists + LISTS; l++) {
        if (full && !l->n)
            continue;
        bool over = l->opened >= l->n, best_over = best && best->opened >= best->n;
        if (!best || (over != best_over ? over : l->used < best->used))
            best = l;
    }
    return best;
}

/* The directory's, or an empty one. */
static struct list *list_for(struct prefetch *a, uint64_t dir, bool from_start)
{
    struct list *l = list_of(a, dir);
    if (!l || from_start) {
        l = l ? l : list_to_reuse(a, false);
        list_empty(a, l);
    }
    while (a->where.n > LISTED_MAX)
        list_empty(a, list_to_reuse(a, true));
    l->dir = dir;
    l->used = ++a->clock;
    return l;
}

static void list_add(struct prefetch *a, struct list *l, const Replfs__Attr *at)
{
    if (l->n == LIST_MAX || !S_ISREG(at->mode) || !at->size || at->size > FILE_BYTES_MAX)
        return;
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->v = realloc(l->v, l->cap * sizeof(*l->v));
        if (!l->v)
            abort();
    }
    u64map_put_ptr(&a->where, at->ino, place_of((size_t)(l - a->lists), l->n));
    l->v[l->n++] = (struct member){.ino = at->ino};
}

/* Queues what comes next in the list. */
static void fill(struct client *c, struct list *l)
{
    struct prefetch *a = c->prefetch.a;
    bool more = false;
    while (l->next < l->n && a->nqueue + a->busy.n + a->files.n < WINDOW) {
        const struct member *m = &l->v[l->next++];
        if (m->opened || u64map_get_ptr(&a->files, m->ino) || u64map_get_ptr(&a->busy, m->ino))
            continue;
        a->queue[a->nqueue++] = m->ino;
        more = true;
    }
    if (more)
        cond_signal(&c->prefetch.cv);
}

void prefetch_listed(struct client *c, uint64_t dir, const Replfs__ReaddirReply *r, bool from_start)
{
    struct prefetch *a = c->prefetch.a;
    if (!a)
        return;
    LOCK_SCOPE(&c->prefetch.mu);
    struct list *l = list_for(a, dir, from_start);
    for (size_t i = 0; i < r->n_entries; i++)
        if (r->entries[i]->attr && r->entries[i]->lease)
            list_add(a, l, r->entries[i]->attr);
}

void prefetch_soon(struct client *c, uint64_t dir)
{
    struct prefetch *a = c->prefetch.a;
    if (!a)
        return;
    LOCK_SCOPE(&c->prefetch.mu);
    if (a->streak < 2 || clock_mono() - a->last >= STREAK_NS)
        return;
    struct list *l = list_of(a, dir);
    if (l)
        fill(c, l);
}

/* ---- what was fetched (mu held) ---- */

/* Of ino, as it was fetched; the caller has its data. False: nothing. */
static bool fetched_take(struct prefetch *a, uint64_t ino, struct fetched *out)
{
    struct fetched *f = u64map_del_ptr(&a->files, ino);
    if (!f)
        return false;
    *(f->newer ? &f->newer->older : &a->newest) = f->older;
    *(f->older ? &f->older->newer : &a->oldest) = f->newer;
    *out = *f;
    free(f);
    return true;
}

/* Nobody wanted it. */
static void drop_oldest(struct prefetch *a)
{
    struct fetched f;
    struct member *m;
    if (!fetched_take(a, a->oldest->ino, &f))
        abort();
    struct list *l = find_place(a, f.ino, &m);
    a->streak = 0;
    if (l)
        l->next = l->n;
    buf_unref(f.data);
}

static void prefetch_keep(struct client *c, const struct fetched *got)
{
    struct prefetch *a = c->prefetch.a;
    struct member *m;
    LOCK_SCOPE(&c->prefetch.mu);
    if (!find_place(a, got->ino, &m) || m->opened || u64map_get_ptr(&a->files, got->ino)) {
        buf_unref(got->data);
        return;
    }
    struct fetched *f = malloc(sizeof(*f));
    if (!f)
        abort();
    *f = *got;
    f->older = a->newest;
    *(f->older ? &f->older->newer : &a->oldest) = f;
    a->newest = f;
    u64map_put_ptr(&a->files, f->ino, f);
}

/* A file of a list is being opened: what may come next is fetched. */
static void follow(struct client *c, struct list *l, struct member *m)
{
    struct prefetch *a = c->prefetch.a;
    int64_t now = clock_mono();
    uint32_t behind = (uint32_t)(m - l->v) + 1;
    a->streak = now - a->last > STREAK_NS ? 1 : a->streak + (a->streak < STREAK_MAX);
    a->last = now;
    l->used = ++a->clock;
    l->opened += !m->opened;
    m->opened = true;
    if (l->next < behind)
        l->next = behind;
    while (a->files.n >= WINDOW) /* those that were passed over */
        drop_oldest(a);
    if (l->opened > 1 || a->streak > 1)
        fill(c, l);
}

void prefetch_wait(struct client *c, uint64_t ino)
{
    struct prefetch *a = c->prefetch.a;
    int64_t deadline = clock_mono() + WAIT_NS;
    if (!a)
        return;
    LOCK_SCOPE(&c->prefetch.mu);
    while (u64map_get_ptr(&a->busy, ino) && clock_mono() < deadline)
        cond_wait_until(&c->prefetch.fetched, &c->prefetch.mu, deadline);
}

void prefetch_open(struct cfile *f)
{
    struct client *c = f->c;
    struct prefetch *a = c->prefetch.a;
    struct fetched got = {0};
    struct member *m;
    if (!a)
        return;
    lock_acquire(&c->prefetch.mu);
    bool have = fetched_take(a, f->ino, &got);
    struct list *l = find_place(a, f->ino, &m);
    if (l)
        follow(c, l, m);
    lock_release(&c->prefetch.mu);
    if (!have)
        return;
    if (!f->head && !f->whole && c->prefetch.held < HELD_MAX && got.change == f->attr.change &&
        got.data->len == f->attr.size && lease_cache_held_since(c->leases, got.begun, f->ino)) {
        whole_put(f, got.data, got.begun);
    } else {
        buf_unref(got.data);
    }
}

bool cfile_give_whole(struct cfile *f, cfile_whole_fn *give, void *arg)
{
    struct client *c = f->c;
    struct lease_request hold;
    struct buf *b = NULL;
    lock_acquire(&c->files.mu);
    bool only = f->opens == 1; /* nobody is reading, so that giving waits for nothing */
    lock_release(&c->files.mu);
    lock_acquire(&f->mu);
    if (only && whole_counts(f) && lease_cache_hold(c->leases, &hold, f->whole_begun, f->ino))
        b = whole_take(f);
    lock_release(&f->mu);
    if (!b)
        return false;
    bool given = give(arg, f->ino, b);
    lease_cache_unhold(c->leases, &hold);
    buf_unref(b);
    return given;
}

/* ---- fetching ---- */

/* A file of which only the layout is known, to be read like any other. */
static struct cfile *file_of(struct client *c, const Replfs__LayoutReply *r, uint64_t begun)
{
    if (!r->attr || !S_ISREG(r->attr->mode) || !r->attr->size || r->attr->size > FILE_BYTES_MAX ||
        r->covered_to < r->attr->size || !lease_cache_held_since(c->leases, begun, r->attr->ino))
        return NULL;
    struct cfile *f = cfile_new(c, r->attr->ino);
    if (!f)
        return NULL;
    attr_copy(&f->attr, r->attr);
    map_take(f, r, f->map_gen);
    return f;
}

static void fetch_files(struct client *c, const Replfs__LayoutsReply *r, uint64_t begun)
{
    struct cfile *files[BATCH];
    struct read_round *ops[BATCH];
    size_t n = 0;
    for (size_t i = 0; i < r->n_files && n < BATCH; i++) {
        struct cfile *f = file_of(c, r->files[i], begun);
        if (!f)
            continue;
        ops[n] = read_start(f, f->attr.size, FETCH_MS);
        files[n++] = f;
    }
    for (size_t i = 0; i < n; i++) {
        struct fetched got = {.ino = files[i]->ino, .change = files[i]->attr.change};
        got.begun = begun;
        if (ops[i] && !read_wait(ops[i], &got.data))
            prefetch_keep(c, &got);
        cfile_unref(files[i]);
    }
}

static void prefetch_fetch(struct client *c, uint64_t *inos, size_t n)
{
    Replfs__LayoutsReq m = REPLFS__LAYOUTS_REQ__INIT;
    struct rpc_result res;
    m.ino = inos;
    m.n_ino = n;
    m.max_extents = EXTENTS;
    RPC_ENVELOPE(env, LAYOUTS_REQ, layouts_req, &m);
    uint64_t begun = lease_cache_begin(c->leases);
    int rc = session_ask(c, &env, clock_mono() + FETCH_MS * NSEC_PER_MSEC, &res);
    if (!rc && res.rep->body_case == REPLFS__ENVELOPE__BODY_LAYOUTS_REPLY)
        fetch_files(c, res.rep->layouts_reply, begun);
    else
        log_debug("layouts of %zu files: %s", n, err_str(rc));
    rpc_result_free(&res);
}

/* From the queue, those that nobody has opened meanwhile. mu held. */
static size_t batch_take(struct prefetch *a, uint64_t *batch)
{
    size_t n = 0, i = 0;
    for (; i < a->nqueue && n < BATCH; i++) {
        struct member *m;
        if (find_place(a, a->queue[i], &m) && m->opened)
            continue;
        batch[n++] = a->queue[i];
        u64map_put_ptr(&a->busy, a->queue[i], a);
    }
    memmove(a->queue, a->queue + i, (a->nqueue - i) * sizeof(*a->queue));
    a->nqueue -= i;
    return n;
}

static void *fetcher(void *arg)
{
    struct client *c = arg;
    struct prefetch *a = c->prefetch.a;
    uint64_t batch[BATCH];
    lock_acquire(&c->prefetch.mu);
    for (;;) {
        while (!a->nqueue && !a->stop)
            cond_wait(&c->prefetch.cv, &c->prefetch.mu);
        if (a->stop)
            break;
        size_t n = batch_take(a, batch);
        if (a->nqueue)
            cond_signal(&c->prefetch.cv);
        lock_release(&c->prefetch.mu);
        if (n)
            prefetch_fetch(c, batch, n);
        lock_acquire(&c->prefetch.mu);
        while (n)
            u64map_del_ptr(&a->busy, batch[--n]);
        cond_broadcast(&c->prefetch.fetched);
    }
    lock_release(&c->prefetch.mu);
    return NULL;
}

/* ---- life ---- */

int prefetch_start(struct client *c)
{
    struct prefetch *a = calloc(1, sizeof(*a));
    if (!a)
        return -ENOMEM;
    c->prefetch.a = a;
    a->nthreads = threads_start(a->threads, PREFETCH_THREADS, "prefetch", fetcher, c);
    return a->nthreads ? 0 : -EAGAIN;
}

void prefetch_stop(struct client *c)
{
    struct prefetch *a = c->prefetch.a;
    if (!a)
        return;
    lock_acquire(&c->prefetch.mu);
    a->stop = true;
    cond_broadcast(&c->prefetch.cv);
    lock_release(&c->prefetch.mu);
    threads_join(a->threads, a->nthreads);
    while (a->oldest)
        drop_oldest(a);
    for (size_t i = 0; i < LISTS; i++)
        free(a->lists[i].v);
    u64map_free(&a->where);
    u64map_free(&a->files);
    u64map_free(&a->busy);
    free(a);
    c->prefetch.a = NULL;
}
