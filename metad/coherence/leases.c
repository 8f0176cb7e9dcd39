/* The table of leases.
 *
 * A node exists for an inode while somebody holds a lease on it, a change of it is under way
 * (busy), or a request waits for it. Holders are few: a small array. A hold that is being recalled
 * keeps counting until it is acknowledged; `want` is what it was asked to come down to.
 *
 * Waiting is first come, first served per inode: a request that finds others waiting queues behind them,
 * unless it holds the inode exclusively, for it may be flushing what the others wait for. A request
 * waits for one inode at a time and looks at all of them again when woken.
 *
 * Invariants: an EXCLUSIVE hold is alone; a node with waiters is on the list of hot ones, and has a
 * hold in their way that is being recalled (or they are just being woken); busy counts entered
 * writers.
 *
 * Failure modes: out of memory aborts. A holder that neither answers nor keeps silent makes others
 * come again and again, for stubborn_ms; then it is fenced, as one that is silent. While it changes
 * the inode it is taken to be flushing, and has that time anew.
 * Thread context: any; callbacks run without the mutex. */
#include "leases.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/error.h"
#include "base/hash_table.h"
#include "base/compare.h"
#include "base/u64map.h"

#define LEASES_MAX (4ull << 20)
#define PATIENCE_MS 5000u
#define STUBBORN_MS 90000u

struct hold {
    uint64_t session;
    uint64_t recall;    /* the last recall of it, 0: none yet */
    uint8_t mode, want; /* want < mode: recall under way */
    uint32_t asked;     /* then: since when, or since it last changed the inode; ms, cut off */
};
struct node {
    uint64_t ino;
    struct hash_link link;
    struct node *hot_next, **hot_prev; /* nodes with waiters; hot_prev NULL: not on the list */
    struct hold *holds;
    struct hold inl[2];
    uint32_t n, cap;
    uint32_t busy;
    struct lease_wait *head, **tail;
};
struct leases {
    struct leases_config cfg;
    struct lock mu;
    struct hash_table nodes; /* struct node by inode */
    struct node *hot;
    int stopped; /* the code that who would wait is refused with; 0: may wait */
    bool claim;
    uint64_t recall;      /* number of the last one */
    uint32_t now;         /* of the last tick */
    struct u64map barred; /* 1: is being barred or let in again */
    atomic_size_t nbarred;
    struct leases_stat st;
};

struct leases *leases_new(const struct leases_config *cfg)
{
    struct leases *l = calloc(1, sizeof(*l));

    if (!l)
        abort();
    l->cfg = *cfg;
    if (l->cfg.max == 0)
        l->cfg.max = LEASES_MAX;
    if (l->cfg.patience_ms == 0)
        l->cfg.patience_ms = PATIENCE_MS;
    if (l->cfg.stubborn_ms == 0)
        l->cfg.stubborn_ms = STUBBORN_MS;
    HASH_TABLE_INIT(&l->nodes, 1024, struct node, link, ino);
    u64map_init(&l->barred, U64MAP_U8);
    lock_init(&l->mu, LOCK_LEASES);
    return l;
}

void leases_free(struct leases *l)
{
    if (!l)
        return;
    HASH_TABLE_EACH (&l->nodes, p) {
        struct node *n = HASH_ENTRY(p, struct node, link);
        if (n->holds != n->inl)
            free(n->holds);
        free(n);
    }
    hash_table_free(&l->nodes);
    u64map_free(&l->barred);
    lock_destroy(&l->mu);
    free(l);
}

/* ---- nodes, mutex held ---- */

static struct node *node_find(const struct leases *l, uint64_t ino)
{
    lock_assert_held(&l->mu);
    return HASH_ENTRY(hash_table_find(&l->nodes, ino), struct node, link);
}

static struct node *node_make(struct leases *l, uint64_t ino)
{
    struct node *n = node_find(l, ino);

    lock_assert_held(&l->mu);
    if (n)
        return n;
    n = calloc(1, sizeof(*n));
    if (!n)
        abort();
    n->ino = ino;
    n->holds = n->inl;
    n->cap = sizeof(n->inl) / sizeof(n->inl[0]);
    n->tail = &n->head;
    hash_table_add(&l->nodes, &n->link);
    return n;
}

static void node_tidy(struct leases *l, struct node *n)
{
    lock_assert_held(&l->mu);
    if (n->n > 0 || n->busy > 0 || n->head)
        return;
    hash_table_remove(&l->nodes, &n->link);
    if (n->holds != n->inl)
        free(n->holds);
    free(n);
}

static struct hold *hold_find(struct node *n, uint64_t session)
{
    for (uint32_t i = 0; i < n->n; i++)
        if (n->holds[i].session == session)
            return &n->holds[i];
    return NULL;
}

static void hold_add(struct leases *l, struct node *n, uint64_t session, enum lease_mode mode)
{
    lock_assert_held(&l->mu);
    if (n->n == n->cap) {
        struct hold *v = malloc(2ul * n->cap * sizeof(*v));
        if (!v)
            abort();
        memcpy(v, n->holds, n->n * sizeof(*v));
        if (n->holds != n->inl)
            free(n->holds);
        n->holds = v;
        n->cap *= 2;
    }
    n->holds[n->n++] =
        (struct hold){.session = session, .mode = (uint8_t)mode, .want = (uint8_t)mode};
    l->st.leases++;
}

static void hold_drop(struct leases *l, struct node *n, struct hold *h)
{
    lock_assert_held(&l->mu);
    *h = n->holds[--n->n];
    l->st.leases--;
}

/* ---- waiting ---- */

/* What to do once the mutex is free: recalls to send, requests to wake. */
struct todo {
    struct recall {
        uint64_t session, ino, nr;
        enum lease_mode keep;
    } * recalls;
    size_t n, cap;
    struct lease_wait *ready, **ready_tail;
};

static void todo_init(struct todo *t)
{
    *t = (struct todo){0};
    t->ready_tail = &t->ready;
}

static void todo_recall(struct leases *l, struct todo *t, struct hold *h, uint64_t ino)
{
    if (t->n == t->cap) {
        t->cap = t->cap == 0 ? 8 : t->cap * 2;
        t->recalls = realloc(t->recalls, t->cap * sizeof(*t->recalls));
        if (!t->recalls)
            abort();
    }
    t->recalls[t->n++] = (struct recall){
        .session = h->session, .ino = ino, .nr = h->recall = ++l->recall, .keep = h->want};
}

static void todo_do(struct leases *l, struct todo *t)
{
    for (const struct recall *r = t->recalls; r < t->recalls + t->n; r++)
        l->cfg.recall(l->cfg.arg, r->session, r->ino, r->keep, r->nr);
    free(t->recalls);
    for (struct lease_wait *w = t->ready, *next; w; w = next) {
        next = w->next;
        w->ready(w);
    }
}

/* Recalls what is in the way of one need; true: nothing is. */
static bool way_is_free(struct leases *l, struct node *n, const struct lease_wait *w, bool write,
                        struct todo *t)
{
    enum lease_mode keep = write ? LEASE_NONE : LEASE_SHARED;
    bool is_free = true;

    for (uint32_t i = 0; i < n->n; i++) {
        struct hold *h = &n->holds[i];
        if (h->session == w->session || h->mode <= keep)
            continue;
        is_free = false;
        if (h->want <= keep)
            continue;
        if (h->want == h->mode)
            h->asked = l->now;
        h->want = (uint8_t)keep;
        l->st.recalls++;
        todo_recall(l, t, h, n->ino);
    }
    return is_free;
}

static void queue_up(struct leases *l, struct node *n, struct lease_wait *w)
{
    if (!n->hot_prev) {
        n->hot_next = l->hot;
        n->hot_prev = &l->hot;
        if (l->hot)
            l->hot->hot_prev = &n->hot_next;
        l->hot = n;
    }
    w->next = NULL;
    *n->tail = w;
    n->tail = &w->next;
    l->st.waits += w->waited ? 0 : 1;
    w->waited = true;
}

static bool holds_exclusive(struct node *n, uint64_t session)
{
    struct hold *h = hold_find(n, session);
    return h && h->mode == LEASE_EXCLUSIVE;
}

static void begin_change(const struct leases *l, struct node *n, uint64_t session)
{
    struct hold *h = n->head ? hold_find(n, session) : NULL;

    n->busy++;
    if (h && h->want < h->mode)
        h->asked = l->now; /* it flushes */
}

/* Enters or is refused, or queues up at the first inode that is not free. woken: it has had its
 * turn there. */
static bool try_enter(struct leases *l, struct lease_wait *w, bool woken, struct todo *t)
{
    for (unsigned i = 0; i < w->n; i++) {
        struct node *n = node_find(l, w->need[i].ino);
        if (!n)
            continue;
        bool in_turn = woken || !n->head || holds_exclusive(n, w->session);
        if (way_is_free(l, n, w, w->need[i].write, t) && in_turn)
            continue;
        if (l->stopped != 0) {
            w->code = l->stopped;
            return true;
        }
        queue_up(l, n, w);
        for (unsigned k = i + 1; k < w->n; k++) { /* what it will wait for next is asked for now */
            struct node *after = node_find(l, w->need[k].ino);
            if (after)
                way_is_free(l, after, w, w->need[k].write, t);
        }
        return false;
    }
    for (unsigned i = 0; i < w->n; i++)
        if (w->need[i].write)
            begin_change(l, node_make(l, w->need[i].ino), w->session);
    return true;
}

static void todo_ready(struct todo *t, struct lease_wait *w)
{
    w->next = NULL;
    *t->ready_tail = w;
    t->ready_tail = &w->next;
}

/* Lets the waiters of n try again, in their order. */
static void wake(struct leases *l, struct node *n, struct todo *t)
{
    struct lease_wait *w = n->head, *next;

    if (!n->hot_prev)
        return;
    n->head = NULL;
    n->tail = &n->head;
    *n->hot_prev = n->hot_next;
    if (n->hot_next)
        n->hot_next->hot_prev = n->hot_prev;
    n->hot_prev = NULL;
    for (; w; w = next) {
        next = w->next;
        if (try_enter(l, w, !n->head, t))
            todo_ready(t, w);
    }
}

/* Refuses those at n whose patience has ended; who stood behind them may be free to go. Time starts
 * when a waiting request is first seen here. */
static void refuse_late(struct leases *l, struct node *n, int64_t now, struct todo *t)
{
    bool gone = false;

    for (struct lease_wait **p = &n->head, *w; (w = *p);) {
        if (w->since == 0)
            w->since = now;
        if (w->firm || now - w->since < l->cfg.patience_ms) {
            p = &w->next;
            continue;
        }
        *p = w->next;
        if (n->tail == &w->next)
            n->tail = p;
        w->code = -ERR_BUSY;
        todo_ready(t, w);
        gone = true;
    }
    if (gone) {
        wake(l, n, t);
        node_tidy(l, n);
    }
}

static void need_add(struct lease_wait *w, uint64_t ino, bool write)
{
    if (w->n == 0)
        w->need = w->inl;
    if (w->n >= LEASE_NEEDS_INLINE && (w->n & (w->n - 1)) == 0) { /* full at each power of two */
        struct lease_need *v = malloc(2ul * w->n * sizeof(*v));
        if (!v)
            abort();
        memcpy(v, w->need, w->n * sizeof(*v));
        if (w->need != w->inl)
            free(w->need);
        w->need = v;
    }
    w->need[w->n++] = (struct lease_need){ino, write};
}

void lease_need(struct lease_wait *w, uint64_t ino, bool write)
{
    if (ino == 0)
        return;
    for (unsigned i = 0; i < w->n; i++)
        if (w->need[i].ino == ino) {
            w->need[i].write |= write;
            return;
        }
    need_add(w, ino, write);
}

void leases_need_exclusive(struct leases *l, struct lease_wait *w)
{
    LOCK_SCOPE(&l->mu);
    HASH_TABLE_EACH (&l->nodes, p) {
        const struct node *n = HASH_ENTRY(p, struct node, link);
        if (n->n == 1 && n->holds[0].mode == LEASE_EXCLUSIVE && n->holds[0].session != w->session)
            need_add(w, n->ino, true);
    }
}

bool leases_enter(struct leases *l, struct lease_wait *w)
{
    struct todo t;

    todo_init(&t);
    w->waited = false;
    w->code = 0;
    w->since = 0;
    lock_acquire(&l->mu);
    bool in = try_enter(l, w, false, &t);
    lock_release(&l->mu);
    todo_do(l, &t);
    return in;
}

void leases_leave(struct leases *l, struct lease_wait *w)
{
    LOCK_SCOPE(&l->mu);
    for (unsigned i = 0; i < w->n; i++) {
        if (!w->need[i].write || w->code != 0)
            continue;
        struct node *n = node_find(l, w->need[i].ino);
        assert(n && n->busy > 0);
        n->busy--;
        node_tidy(l, n);
    }
    if (w->n > LEASE_NEEDS_INLINE)
        free(w->need);
    w->n = 0;
}

/* ---- giving and taking ---- */

static bool is_barred(const struct leases *l, uint64_t session)
{
    return u64map_has(&l->barred, session);
}

/* own: so many of the changes under way are the asking request's. Mutex held. */
static enum lease_mode grant(struct leases *l, uint64_t session, uint64_t ino, enum lease_mode want,
                             uint32_t own)
{
    struct node *n = node_find(l, ino);
    struct hold *h = n ? hold_find(n, session) : NULL;
    if (!h && n && n->n == 1 && n->holds[0].mode == LEASE_EXCLUSIVE)
        return LEASE_ELSEWHERE;
    if (h && h->want < h->mode)
        return LEASE_NONE; /* being recalled */
    if (h && h->mode == LEASE_EXCLUSIVE)
        return LEASE_EXCLUSIVE; /* the one that changes it just now is the session itself */
    if (n && (n->busy > own || n->head))
        return LEASE_NONE;
    if (want == LEASE_EXCLUSIVE && n && n->n > (h != NULL))
        want = LEASE_SHARED;
    if (h) {
        if (h->mode < want)
            h->mode = h->want = (uint8_t)want;
        return h->mode;
    }
    if (want == LEASE_NONE || l->st.leases >= l->cfg.max || is_barred(l, session))
        return LEASE_NONE;
    hold_add(l, node_make(l, ino), session, want);
    return want;
}

enum lease_mode leases_grant(struct leases *l, uint64_t session, uint64_t ino, enum lease_mode want,
                             const struct lease_wait *in)
{
    uint32_t own = 0;

    for (unsigned i = 0; in && i < in->n; i++)
        own += in->need[i].ino == ino && in->need[i].write;
    LOCK_SCOPE(&l->mu);
    return grant(l, session, ino, want, own);
}

/* The table is larger than any cache: its parts are on their way before the first is looked at. */
void leases_grant_list(struct leases *l, uint64_t session, const uint64_t *ino, size_t n,
                       enum lease_mode want, enum lease_mode *out)
{
    LOCK_SCOPE(&l->mu);
    for (size_t i = 0; i < n; i++)
        __builtin_prefetch(hash_table_slot(&l->nodes, ino[i]));
    for (size_t i = 0; i < n; i++)
        __builtin_prefetch(HASH_ENTRY(*hash_table_slot(&l->nodes, ino[i]), struct node, link));
    for (size_t i = 0; i < n; i++)
        out[i] = grant(l, session, ino[i], want, 0);
}

bool leases_grant_new(struct leases *l, uint64_t session, uint64_t ino)
{
    LOCK_SCOPE(&l->mu);
    struct node *n = node_find(l, ino);

    if ((n && n->n > 0) || l->st.leases >= l->cfg.max || is_barred(l, session))
        return false;
    hold_add(l, node_make(l, ino), session, LEASE_EXCLUSIVE);
    return true;
}

/* The hold comes down to `kept`. */
static void lower(struct leases *l, struct node *n, struct hold *h, enum lease_mode kept,
                  struct todo *t)
{
    if (kept >= h->mode)
        return; /* not asked for, or told twice */
    if (kept == LEASE_NONE) {
        hold_drop(l, n, h);
    } else {
        h->mode = (uint8_t)kept;
        h->want = h->want < h->mode ? h->want : h->mode;
    }
    wake(l, n, t);
}

void leases_ack(struct leases *l, uint64_t session, uint64_t ino, enum lease_mode kept, uint64_t nr)
{
    struct todo t;

    todo_init(&t);
    lock_acquire(&l->mu);
    struct node *n = node_find(l, ino);
    struct hold *h = n ? hold_find(n, session) : NULL;
    if (h && (nr == 0 || nr == h->recall)) {
        lower(l, n, h, kept, &t);
        node_tidy(l, n);
    }
    lock_release(&l->mu);
    todo_do(l, &t);
}

/* Everything that the session holds, malloc'ed. Sessions end seldom: a walk over the whole table is
 * cheaper than a list per session. */
static uint64_t *held_by(struct leases *l, uint64_t session, size_t *n)
{
    uint64_t *v = NULL;
    size_t cap = 0;

    *n = 0;
    HASH_TABLE_EACH (&l->nodes, link) {
        struct node *p = HASH_ENTRY(link, struct node, link);
        if (!hold_find(p, session))
            continue;
        if (*n == cap) {
            cap = cap == 0 ? 64 : cap * 2;
            v = realloc(v, cap * sizeof(*v));
            if (!v)
                abort();
        }
        v[(*n)++] = p->ino;
    }
    return v;
}

static void set_barred(struct leases *l, uint64_t session, bool on)
{
    if (on)
        u64map_put(&l->barred, session, 1);
    else
        u64map_del(&l->barred, session);
    atomic_store_explicit(&l->nbarred, l->barred.n, memory_order_relaxed);
}

void leases_drop_session(struct leases *l, uint64_t session)
{
    size_t n;

    lock_acquire(&l->mu);
    uint64_t *v = held_by(l, session, &n);
    set_barred(l, session, false);
    lock_release(&l->mu);
    for (size_t i = 0; i < n; i++)
        leases_ack(l, session, v[i], LEASE_NONE, 0);
    free(v);
}

bool leases_bar(struct leases *l, uint64_t session, bool (*silent)(void *arg, uint64_t session),
                void *arg)
{
    struct todo t;
    size_t n;
    bool ok = true;

    todo_init(&t);
    lock_acquire(&l->mu);
    uint64_t *v = held_by(l, session, &n);
    for (size_t i = 0; i < n; i++)
        ok &= !holds_exclusive(node_find(l, v[i]), session);
    ok &= !is_barred(l, session) && silent(arg, session);
    for (size_t i = 0; ok && i < n; i++) {
        struct node *p = node_find(l, v[i]);
        lower(l, p, hold_find(p, session), LEASE_NONE, &t);
        node_tidy(l, p);
    }
    if (ok)
        set_barred(l, session, true);
    lock_release(&l->mu);
    free(v);
    todo_do(l, &t);
    return ok;
}

bool leases_unbar_begin(struct leases *l, uint64_t session)
{
    uint64_t under_way = 1;

    LOCK_SCOPE(&l->mu);
    if (!u64map_get(&l->barred, session, &under_way) || under_way)
        return false;
    u64map_put(&l->barred, session, 1);
    return true;
}

void leases_unbar(struct leases *l, uint64_t session)
{
    LOCK_SCOPE(&l->mu);
    set_barred(l, session, false);
}

void leases_bar_settle(struct leases *l, uint64_t session)
{
    LOCK_SCOPE(&l->mu);
    if (is_barred(l, session))
        u64map_put(&l->barred, session, 0);
}

bool leases_has_barred(const struct leases *l)
{
    return atomic_load_explicit(&l->nbarred, memory_order_relaxed) > 0;
}

bool leases_claim(struct leases *l, bool on)
{
    LOCK_SCOPE(&l->mu);
    bool was = l->claim;
    l->claim = on;
    return was;
}

/* The session has the inode exclusively, still or from now on. Mutex held. */
static bool claim(struct leases *l, uint64_t session, uint64_t ino)
{
    struct node *n = node_find(l, ino);

    if (n && n->n > 0)
        return holds_exclusive(n, session);
    if (!l->claim || n || l->st.leases >= l->cfg.max || is_barred(l, session))
        return false; /* a node without holds: somebody waits, or changes it */
    hold_add(l, node_make(l, ino), session, LEASE_EXCLUSIVE);
    return true;
}

size_t leases_resume(struct leases *l, uint64_t session, uint64_t *v, size_t n)
{
    struct todo t;
    size_t nheld, kept = 0;

    if (n > 0)
        qsort(v, n, sizeof(*v), compare_u64);
    todo_init(&t);
    lock_acquire(&l->mu);
    uint64_t *held = held_by(l, session, &nheld);
    for (size_t i = 0; i < nheld; i++) {
        struct node *p = node_find(l, held[i]);
        if (n > 0 && holds_exclusive(p, session) &&
            bsearch(&held[i], v, n, sizeof(*v), compare_u64))
            continue;
        lower(l, p, hold_find(p, session), LEASE_NONE, &t);
        node_tidy(l, p);
    }
    for (size_t i = 0; i < n; i++)
        if ((kept == 0 || v[kept - 1] != v[i]) && claim(l, session, v[i]))
            v[kept++] = v[i];
    lock_release(&l->mu);
    free(held);
    todo_do(l, &t);
    return kept;
}

void leases_remind(struct leases *l, uint64_t session)
{
    struct todo t;
    size_t n;

    todo_init(&t);
    lock_acquire(&l->mu);
    uint64_t *v = held_by(l, session, &n);
    for (size_t i = 0; i < n; i++) {
        struct hold *h = hold_find(node_find(l, v[i]), session);
        if (h->want < h->mode)
            todo_recall(l, &t, h, v[i]);
    }
    lock_release(&l->mu);
    free(v);
    todo_do(l, &t);
}

void leases_drop_inode(struct leases *l, uint64_t ino)
{
    struct todo t;

    todo_init(&t);
    lock_acquire(&l->mu);
    struct node *n = node_find(l, ino);
    if (n) {
        while (n->n > 0)
            hold_drop(l, n, &n->holds[n->n - 1]);
        wake(l, n, &t);
        node_tidy(l, n);
    }
    lock_release(&l->mu);
    todo_do(l, &t);
}

#define TICK_MAX 64u

void leases_tick(struct leases *l, int64_t now)
{
    struct {
        uint64_t session, ino;
        enum lease_mode mode;
        bool stubborn;
    } late[TICK_MAX];
    struct todo t;
    unsigned n = 0;

    todo_init(&t);
    lock_acquire(&l->mu);
    l->now = (uint32_t)now;
    for (struct node *p = l->hot, *next; p; p = next) {
        next = p->hot_next;
        refuse_late(l, p, now, &t);
    }
    for (const struct node *p = l->hot; p; p = p->hot_next)
        for (uint32_t i = 0; i < p->n && n < TICK_MAX; i++)
            if (p->holds[i].want < p->holds[i].mode) {
                late[n].session = p->holds[i].session;
                late[n].ino = p->ino;
                late[n].stubborn = l->now - p->holds[i].asked >= l->cfg.stubborn_ms;
                late[n++].mode = p->holds[i].mode;
            }
    lock_release(&l->mu);
    todo_do(l, &t);
    uint32_t term = l->cfg.term(l->cfg.arg);
    for (unsigned i = 0; i < n; i++) {
        uint32_t silent = l->cfg.silent_ms(l->cfg.arg, late[i].session);
        bool stubborn = late[i].stubborn && silent < term;
        if (silent < term && !stubborn)
            continue;
        if (stubborn && l->cfg.stubborn)
            l->cfg.stubborn(l->cfg.arg, late[i].session, late[i].ino);
        if ((late[i].mode == LEASE_EXCLUSIVE || stubborn) && silent != UINT32_MAX)
            l->cfg.fence(l->cfg.arg, late[i].session); /* its end drops its leases */
        else
            leases_ack(l, late[i].session, late[i].ino, LEASE_NONE, 0);
        lock_acquire(&l->mu);
        l->st.expired++;
        l->st.stubborn += stubborn;
        lock_release(&l->mu);
    }
}

void leases_stop(struct leases *l, int code)
{
    struct todo t;

    todo_init(&t);
    lock_acquire(&l->mu);
    l->stopped = code;
    while (l->hot)
        wake(l, l->hot, &t);
    lock_release(&l->mu);
    todo_do(l, &t);
}

void leases_stat(struct leases *l, struct leases_stat *out)
{
    LOCK_SCOPE(&l->mu);
    *out = l->st;
}
