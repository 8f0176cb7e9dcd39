/* Pages of directories: those that were listed, and those that will be.
 *
 * A program that looks at a directory and then opens it to read it (rm, find) is answered from one page,
 * and so is the kernel when it has forgotten what it listed, while there are not KEPT_ENTRIES newer ones.
 * And one that walks a tree (ls -R, find, a backup) lists a directory, and then those in it: when that is
 * going on, the pages of what was named are fetched before they are asked for, the deepest first.
 *
 * A page is handed out while the lease that its directory had since is held, and while this client has
 * changed nothing in it (client_dir_same): names are what they were then. Attributes may not be. And
 * while a page goes to the kernel, a few entries at a time, both change: so each entry is looked at in the
 * lease cache, which knows what we did and were told since (client_entry_attr).
 *
 * A walk: one directory after the other within WALK_NS, each named by one that was listed in it. A program that lists
 * anything else begins anew, and the same directory once more is no step. A program goes through what a directory named in an order of its own (ls: the
 * alphabet's), so many pages may wait to be read: WINDOW_STEP for each directory of the walk so far, up to
 * WINDOW_MAX. If one of them has to make room, the walk has ended.
 *
 * Failure modes: none that anybody sees. What cannot be fetched is asked for when it is listed.
 *
 * Threads: FETCHERS fetch; any other calls. dirs.mu is taken before the lease cache's. */
#include "client/prefetch/dir_pages.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "client/base/attr.h"
#include "client/base/client_clock.h"
#include "base/u64map.h"
#include "client/cache/lease_cache.h"
#include "client/cache/lease_cache_change.h"
#include "client/cache/lease_cache_give.h"
#include "client/client.h"
#include "client/internal.h"
#include "client/names/attrs.h"
#include "client/prefetch/prefetch.h"
#include "client/session/ask.h"

#define PAGE_ENTRIES 1000u
#define KEPT_ENTRIES 32768u /* about 300 bytes each */
#define PAGE_ENTRIES_OWN 8u /* what a page takes besides, as so many */
#define WINDOW_STEP 16u
#define WINDOW_MAX 256u
#define SOON 4u /* so many of what was just named: their files are read ahead, too (prefetch.c) */
#define NAMED_MAX 4096u
#define FETCHERS 2u
#define FETCH_MS 2000u
#define WALK_NS (NSEC_PER_SEC / 5)
#define WAIT_NS (50 * NSEC_PER_MSEC) /* for one that is being fetched when it is asked for */

struct dirs {
    struct u64map kept;            /* ino -> page */
    TAILQ_HEAD(, dir_page) by_use; /* of these, the one used longest ago first */
    size_t entries;                /* of these, PAGE_ENTRIES_OWN each besides */
    size_t unread;                 /* of these, fetched for this walk and not asked for yet */
    uint64_t stack[NAMED_MAX];     /* directories named in a walk, the next on top */
    size_t nstack;
    struct u64map named; /* those of the stack that still are to be fetched; ino -> itself */
    struct u64map busy;  /* being fetched */
    uint64_t at;         /* the directory that was listed last, 0: none */
    int64_t last;        /* when */
    unsigned walk;       /* its number, from 1 */
    size_t window;       /* of it */
    size_t since;        /* so many fetched since a directory was listed */
    bool walking, stop;
    pthread_t threads[FETCHERS];
    unsigned nthreads;
};

void dir_page_unref(struct dir_page *p)
{
    if (!p || atomic_fetch_sub(&p->refs, 1) > 1)
        return;
    rpc_result_free(&p->res);
    free(p);
}

const Replfs__ReaddirReply *dir_page_entries(const struct dir_page *p)
{
    return p->res.rep->readdir_reply;
}

/* ---- pages that are kept (mu held) ---- */

static size_t charge(const struct dir_page *p)
{
    return dir_page_entries(p)->n_entries + PAGE_ENTRIES_OWN;
}

static bool unread(const struct dirs *d, const struct dir_page *p)
{
    return p->walk == d->walk;
}

static void drop(struct dirs *d, struct dir_page *p)
{
    d->entries -= charge(p);
    d->unread -= unread(d, p);
    u64map_del_ptr(&d->kept, p->ino);
    TAILQ_REMOVE(&d->by_use, p, by_use);
    dir_page_unref(p);
}

static void end_walk(struct dirs *d)
{
    d->walk++;
    d->window = 0;
    d->unread = 0;
    d->nstack = 0;
    u64map_free(&d->named);
}

static void make_room(struct dirs *d, struct dir_page *p)
{
    if (unread(d, p))
        end_walk(d);
    drop(d, p);
}

/* walk: the one it was fetched for; 0: it was asked for. */
static void dir_pages_keep(struct dirs *d, struct dir_page *p, unsigned walk)
{
    struct dir_page *old = u64map_get_ptr(&d->kept, p->ino);
    if (old)
        drop(d, old);
    atomic_fetch_add(&p->refs, 1);
    p->walk = walk;
    d->unread += unread(d, p);
    d->entries += charge(p);
    u64map_put_ptr(&d->kept, p->ino, p);
    TAILQ_INSERT_TAIL(&d->by_use, p, by_use);
    while (d->entries > KEPT_ENTRIES)
        make_room(d, TAILQ_FIRST(&d->by_use));
}

/* The one that is as good as a new one. */
static struct dir_page *at(struct client *c, uint64_t ino)
{
    struct dirs *d = c->dirs.d;
    struct dir_page *p = u64map_get_ptr(&d->kept, ino);
    if (p && !client_dir_same(c, p->begun, ino)) {
        drop(d, p);
        p = NULL;
    }
    return p;
}

/* It, referenced, since it is asked for. */
static struct dir_page *page_take(struct client *c, uint64_t ino)
{
    struct dirs *d = c->dirs.d;
    struct dir_page *p = at(c, ino);
    if (!p)
        return NULL;
    d->unread -= unread(d, p);
    p->walk = 0;
    TAILQ_REMOVE(&d->by_use, p, by_use);
    TAILQ_INSERT_TAIL(&d->by_use, p, by_use);
    atomic_fetch_add(&p->refs, 1);
    return p;
}

/* ---- walks (mu held) ---- */

static void come_to(struct dirs *d, uint64_t ino)
{
    int64_t now = clock_mono();
    bool again = ino == d->at; /* no step of a walk, nor its end */
    bool named = u64map_del_ptr(&d->named, ino) || u64map_get_ptr(&d->busy, ino) ||
                 u64map_get_ptr(&d->kept, ino);
    if (!named && !again)
        end_walk(d);
    d->walking = (again ? d->walking : named) && now - d->last < WALK_NS;
    if (d->walking && !again && d->window < WINDOW_MAX)
        d->window += WINDOW_STEP;
    d->at = ino;
    d->last = now;
}

static bool may_fetch(const struct dirs *d)
{
    return d->walking && d->nstack && d->unread + d->busy.n < d->window;
}

/* What a directory that was just listed names is listed next. */
static void go_on(struct client *c, const struct dir_page *p)
{
    struct dirs *d = c->dirs.d;
    const Replfs__ReaddirReply *r = dir_page_entries(p);
    for (size_t i = r->n_entries; i-- > 0 && d->nstack < NAMED_MAX;) {
        const Replfs__Dirent *e = r->entries[i];
        if (!e->attr || !S_ISDIR(e->attr->mode) || u64map_get_ptr(&d->named, e->ino) ||
            at(c, e->ino))
            continue;
        u64map_put_ptr(&d->named, e->ino, d);
        d->stack[d->nstack++] = e->ino;
    }
    d->since = 0;
    if (may_fetch(d))
        cond_signal(&c->dirs.cv);
}

/* ---- asking ---- */

void client_saw_entries(struct client *c, uint64_t begun, uint64_t dir, bool from_start,
                        const Replfs__ReaddirReply *r)
{
    for (size_t i = 0; i < r->n_entries; i++) {
        const Replfs__Dirent *e = r->entries[i];
        if (e->attr)
            attrs_dir_as_now(c, begun, e->attr);
        if (e->lease && e->attr) {
            Replfs__Attr a = REPLFS__ATTR__INIT;
            attr_copy(&a, e->attr);
            client_merge_attr(c, &a); /* an open file hears of a change first */
            lease_cache_put_attr(c->leases, begun, e->attr, e->lease);
        }
        if (r->dir_lease)
            lease_cache_put_entry(c->leases, begun, dir, e->name.data, e->name.len, e->ino);
    }
    prefetch_listed(c, dir, r, from_start);
}

static int dir_pages_ask(struct client *c, uint64_t ino, uint64_t after, bool plus, unsigned max,
                         int64_t deadline, struct dir_page **out)
{
    Replfs__ReaddirReq m = REPLFS__READDIR_REQ__INIT;
    RPC_ENVELOPE(env, READDIR_REQ, readdir_req, &m);
    struct dir_page *p = calloc(1, sizeof(*p));
    if (!p)
        abort();
    p->refs = 1;
    p->ino = ino;
    m.ino = ino;
    m.cookie = after;
    m.max_entries = max && max < PAGE_ENTRIES ? max : PAGE_ENTRIES;
    m.plus = plus;
    m.lease = plus;
    p->begun = client_begin(c);
    int rc = session_ask(c, &env, deadline, &p->res);
    if (!rc && (!p->res.rep || p->res.rep->body_case != REPLFS__ENVELOPE__BODY_READDIR_REPLY))
        rc = -ERR_PROTOCOL;
    if (rc) {
        dir_page_unref(p);
        return rc;
    }
    if (plus)
        client_saw_entries(c, p->begun, ino, !after, dir_page_entries(p));
    p->seen = client_begin(c);
    *out = p;
    return 0;
}

/* One that is kept, or is about to be. */
static struct dir_page *at_hand(struct client *c, uint64_t ino)
{
    struct dirs *d = c->dirs.d;
    int64_t deadline = clock_mono() + WAIT_NS;
    LOCK_SCOPE(&c->dirs.mu);
    come_to(d, ino);
    while (u64map_get_ptr(&d->busy, ino) && clock_mono() < deadline)
        cond_wait_until(&c->dirs.came, &c->dirs.mu, deadline);
    struct dir_page *p = page_take(c, ino);
    if (p)
        go_on(c, p);
    return p;
}

int client_list(struct client *c, uint64_t ino, uint64_t after, bool plus, unsigned max,
                struct dir_page **out, bool *again)
{
    struct dir_page *p = after ? NULL : at_hand(c, ino);
    *again = p;
    int rc = p ? 0 : dir_pages_ask(c, ino, after, plus, max, client_deadline(c), &p);
    if (rc)
        return rc;
    *out = p;
    prefetch_soon(c, ino);
    if (*again || !plus)
        return 0;
    LOCK_SCOPE(&c->dirs.mu);
    if (!after && dir_page_entries(p)->eof)
        dir_pages_keep(c->dirs.d, p, 0);
    go_on(c, p);
    return 0;
}

/* ---- giving ---- */

bool client_page_holds(struct client *c, const struct dir_page *p)
{
    return dir_page_entries(p)->dir_lease && lease_cache_ttl(c->leases, p->ino) &&
           lease_cache_held_since(c->leases, p->seen, p->ino);
}

bool client_entry_attr(struct client *c, const struct dir_page *p, bool fresh,
                       const Replfs__Dirent *e, Replfs__Attr *out)
{
    if (!lease_cache_has_name(c->leases, p->ino, e->name.data, e->name.len, e->ino) &&
        (!fresh || lease_cache_crossed(c->leases, p->begun, p->ino)))
        return false;
    if (client_attr_known(c, e->ino, out))
        return true;
    if (!fresh || !e->attr)
        return false;
    attr_copy(out, e->attr);
    client_merge_attr(c, out);
    return !lease_cache_crossed(c->leases, p->begun, e->ino); /* of a change after that we know */
}

/* ---- fetching ---- */

/* The next that nobody has listed meanwhile, or 0. mu held. */
static uint64_t next_named(struct dirs *d)
{
    while (may_fetch(d)) {
        uint64_t ino = d->stack[--d->nstack];
        if (u64map_del_ptr(&d->named, ino))
            return ino;
    }
    return 0;
}

static struct dir_page *dir_pages_fetch(struct client *c, uint64_t ino)
{
    struct dir_page *p;
    if (dir_pages_ask(c, ino, 0, true, 0, clock_mono() + FETCH_MS * NSEC_PER_MSEC, &p))
        return NULL;
    const Replfs__ReaddirReply *r = dir_page_entries(p);
    if (r->eof) {
        client_listed(c, p->begun, ino, r->n_entries);
        return p;
    }
    dir_page_unref(p);
    return NULL;
}

static void *fetcher(void *arg)
{
    struct client *c = arg;
    struct dirs *d = c->dirs.d;
    LOCK_SCOPE(&c->dirs.mu);
    while (!d->stop) {
        uint64_t ino = next_named(d);
        if (!ino) {
            cond_wait(&c->dirs.cv, &c->dirs.mu);
            continue;
        }
        unsigned walk = d->walk;
        u64map_put_ptr(&d->busy, ino, d);
        if (may_fetch(d))
            cond_signal(&c->dirs.cv);
        bool soon = d->since++ < SOON;
        lock_release(&c->dirs.mu);
        struct dir_page *p = dir_pages_fetch(c, ino);
        if (soon)
            prefetch_soon(c, ino);
        lock_acquire(&c->dirs.mu);
        u64map_del_ptr(&d->busy, ino);
        if (p)
            dir_pages_keep(d, p, walk);
        dir_page_unref(p);
        cond_broadcast(&c->dirs.came);
    }
    return NULL;
}

size_t dir_pages_coming(struct client *c)
{
    LOCK_SCOPE(&c->dirs.mu);
    return c->dirs.d->busy.n;
}

/* ---- life ---- */

int dirs_start(struct client *c)
{
    struct dirs *d = calloc(1, sizeof(*d));
    if (!d)
        return -ENOMEM;
    d->walk = 1;
    TAILQ_INIT(&d->by_use);
    c->dirs.d = d;
    d->nthreads = threads_start(d->threads, FETCHERS, "dirs", fetcher, c);
    return d->nthreads ? 0 : -EAGAIN;
}

void dirs_stop(struct client *c)
{
    struct dirs *d = c->dirs.d;
    if (!d)
        return;
    lock_acquire(&c->dirs.mu);
    d->stop = true;
    cond_broadcast(&c->dirs.cv);
    lock_release(&c->dirs.mu);
    threads_join(d->threads, d->nthreads);
    while (!TAILQ_EMPTY(&d->by_use))
        drop(d, TAILQ_FIRST(&d->by_use));
    u64map_free(&d->kept);
    u64map_free(&d->named);
    u64map_free(&d->busy);
    free(d);
    c->dirs.d = NULL;
}
