/* File locks of one metad: what is granted, what waits, and why. The structures are in
 * locks_table.c.
 *
 * A `file` is an (inode, kind) with at least one holder or waiting request. A holder is an owner
 * with a non-empty set of ranges. Requests that cannot be granted and may wait stand in the file's
 * queue in the order of their first arrival; whatever frees a range looks through the queue from
 * its head (rescan).
 *
 * Fairness. As on a local file system a lock that nobody holds is given at once, even though others
 * wait for more of it; but a waiting request that has been passed over for STARVING_NS holds back
 * those that come later and would be in its way. It does so for PATIENCE_NS each at most, since
 * who is held back might be the one whose other lock everybody needs: that would be a deadlock which
 * no local file system knows.
 *
 * Deadlock. An owner waits for the owners whose ranges are in its way. When a new request, or a new
 * holder, closes a circle of POSIX owners, the request is refused with EDEADLK. flock has no such
 * check, as on Linux. Requests that are only held back by fairness wait for nobody.
 *
 * A waiting request has a cookie, the service's handle for the answer. Without one (its deadline
 * came, its connection went) it is never granted: it keeps its place for KEEP_NS so that the
 * client can ask again with the same id, and others may pass it.
 *
 * Bounds. Ranges and waiting requests per session are limited, owners and waiting requests per file
 * too, so that many sessions together cannot make each release of one file look at millions. A
 * waiting request remembers whose range was in its way: while that one stands nobody else is looked
 * at, and who is found in the way goes to the head of the holders. A search for circles looks at
 * SEARCH_MAX entries in one call; what is not found by then is taken for none, as Linux does. */
#include "locks_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"

#define STARVING_NS NSEC_PER_SEC
#define PATIENCE_NS (10 * NSEC_PER_SEC)
#define KEEP_NS (10 * NSEC_PER_SEC)
#define SEARCH_MAX 262144u

/* ---- who is in the way ---- */

static bool is_owner(const struct lock_holder *h, const struct lock_req *r)
{
    return h->owner == r->owner && h->session->id == r->session;
}

static const struct lock_range *in_the_way(const struct lock_holder *h, const struct lock_req *r)
{
    return is_owner(h, r) ? NULL : lockset_conflict(&h->set, r->type, r->start, r->end);
}

/* Who is in r's way, NULL for nobody; moved to the head, since others want to know the same. */
static struct lock_holder *blocker(struct locks *t, struct lock_file *f, const struct lock_req *r)
{
    for (struct lock_holder **p = &f->holders; *p; p = &(*p)->next) {
        struct lock_holder *h = *p;
        t->steps++;
        if (!in_the_way(h, r))
            continue;
        *p = h->next;
        h->next = f->holders;
        f->holders = h;
        return h;
    }
    return NULL;
}

static bool wait_blocked(struct locks *t, struct lock_wait *w)
{
    t->steps++;
    if (!w->blocker || !in_the_way(w->blocker, &w->req))
        w->blocker = blocker(t, w->file, &w->req);
    return w->blocker != NULL;
}

static bool requests_exclude(const struct lock_req *a, const struct lock_req *b)
{
    return (a->type == LOCKSET_WRITE || b->type == LOCKSET_WRITE) && a->start <= b->end &&
           b->start <= a->end && (a->owner != b->owner || a->session != b->session);
}

/* Whether a request that waits since `since` is held back by an older one. `before`: its own place
 * in the queue, NULL for one that is not there yet. */
static bool held_back(const struct lock_file *f, const struct lock_req *r,
                      const struct lock_wait *before, int64_t since, int64_t now)
{
    if (now - since >= PATIENCE_NS)
        return false;
    for (const struct lock_wait *w = f->first; w != before; w = w->next)
        if (w->cookie && now - w->since >= STARVING_NS && requests_exclude(&w->req, r))
            return true;
    return false;
}

/* ---- deadlock ---- */

/* One entry of what a search may look at. */
static void looked(struct locks *t)
{
    t->steps++;
    t->search -= t->search > 0;
}

/* Puts on the list what the owner's other requests wait for. */
static struct lock_wait *waits_of(struct locks *t, struct lock_session *s, uint64_t owner,
                                  struct lock_wait *list)
{
    for (struct lock_wait *w = s->waits; w && t->search > 0; w = w->s_next) {
        looked(t);
        if (w->req.owner == owner && !w->req.flock && w->cookie && w->mark != t->mark) {
            w->mark = t->mark;
            w->todo = list;
            list = w;
        }
    }
    return list;
}

/* True when some owner in r's way waits, through whomever, for r's owner. */
static bool deadlock(struct locks *t, const struct lock_file *f, const struct lock_req *r)
{
    struct lock_wait *todo = NULL;

    if (r->flock || t->nwaits == 0)
        return false;
    t->mark++;
    for (const struct lock_holder *h = f->holders; h && t->search > 0; h = h->next) {
        looked(t);
        if (in_the_way(h, r))
            todo = waits_of(t, h->session, h->owner, todo);
    }
    while (todo) {
        struct lock_wait *w = todo;
        todo = w->todo;
        for (const struct lock_holder *h = w->file->holders; h && t->search > 0; h = h->next) {
            looked(t);
            if (!in_the_way(h, &w->req))
                continue;
            if (is_owner(h, r))
                return true;
            todo = waits_of(t, h->session, h->owner, todo);
        }
    }
    return false;
}

static bool owner_waits(const struct lock_session *s, uint64_t owner)
{
    for (const struct lock_wait *w = s->waits; w; w = w->s_next)
        if (w->req.owner == owner && !w->req.flock && w->cookie)
            return true;
    return false;
}

/* A lock was given to an owner of whom another thread waits: who waits for that lock may now be in a
 * circle. */
static void check_circles(struct locks *t, struct lock_file *f, const struct lock_session *s,
                          uint64_t owner)
{
    if (f->flock || !f->first || !owner_waits(s, owner))
        return;
    for (struct lock_wait *w = f->first, *next; w; w = next) {
        next = w->next;
        if (w->cookie && deadlock(t, f, &w->req)) {
            struct lock_session *ws = w->session;
            locks_wait_end(t, w, -EDEADLK);
            locks_session_tidy(t, ws);
        }
    }
}

/* ---- granting ---- */

/* Looks through the queue once; true when a grant was also a downgrade, which may help others. */
static bool scan(struct locks *t, struct lock_file *f, int64_t now)
{
    bool again = false;

    f->soft = false;
    for (struct lock_wait *w = f->first, *next; w; w = next) {
        next = w->next;
        if (!w->cookie || wait_blocked(t, w))
            continue;
        if (held_back(f, &w->req, w, w->since, now)) {
            f->soft = true;
            continue;
        }
        struct lock_req r = w->req;
        struct lock_session *s = w->session;
        again |= r.type == LOCKSET_READ;
        locks_wait_end(t, w, 0);
        locks_apply(t, f, s, &r);
        if (!f->flock && owner_waits(s, r.owner)) {
            check_circles(t, f, s, r.owner);
            return true; /* `next` may be gone */
        }
    }
    return again;
}

static void rescan(struct locks *t, struct lock_file *f, int64_t now)
{
    if (!t->held)
        while (f->first && scan(t, f, now))
            ;
}

/* After something was freed. May free f. */
static void freed(struct locks *t, struct lock_file *f, int64_t now)
{
    t->search = SEARCH_MAX;
    rescan(t, f, now);
    locks_file_tidy(t, f);
}

/* ---- requests ---- */

static int set_unlock(struct locks *t, const struct lock_req *r, int64_t now)
{
    struct lock_file *f = locks_file_find(t, r->ino, r->flock);
    struct lock_session *s = locks_session_find(t, r->session);

    const struct lock_holder *h = f && s ? *locks_holder_slot(f, s->id, r->owner) : NULL;
    if (!h)
        return 0;
    if (s->nranges >= LOCKS_PER_SESSION && lockset_cuts(&h->set, r->start, r->end))
        return -ENOLCK;
    locks_apply(t, f, s, r);
    freed(t, f, now);
    locks_session_tidy(t, s);
    return 0;
}

/* flock: the same lock again is nothing to do; another gives the former up first. True: done. */
static bool flock_convert(struct locks *t, struct lock_file *f, struct lock_session *s,
                          const struct lock_req *r, int64_t now)
{
    const struct lock_holder *h = *locks_holder_slot(f, s->id, r->owner);

    if (!h)
        return false;
    if (lockset_holds(&h->set, r->type, r->start, r->end))
        return true;
    locks_drop_holder(t, f, s, r->owner);
    rescan(t, f, now);
    return false;
}

static bool requests_equal(const struct lock_req *a, const struct lock_req *b)
{
    return a->owner == b->owner && a->start == b->start && a->end == b->end && a->type == b->type;
}

static int try_set(struct locks *t, struct lock_file *f, struct lock_session *s,
                   const struct lock_req *r, void *cookie, int64_t now, int64_t deadline)
{
    struct lock_wait *w = r->id != 0 ? locks_wait_find(s, r->id) : NULL;

    if (w && (w->file != f || !requests_equal(&w->req, r)))
        return -EINVAL; /* an id used twice */
    if (t->held && !cookie)
        return -ERR_BUSY;
    if (r->flock && s->nranges >= LOCKS_PER_SESSION)
        return -ENOLCK; /* before a lock is given up for another */
    if (r->flock && flock_convert(t, f, s, r, now)) {
        if (w)
            locks_wait_end(t, w, 0);
        return 0;
    }
    if (w && locks_wait_find(s, r->id) != w)
        return 0; /* giving up the former lock let it through */
    struct lock_holder *in_way = blocker(t, f, r);
    bool stuck = in_way != NULL;
    if (stuck && !cookie)
        return -EAGAIN;
    if (s->nranges >= LOCKS_PER_SESSION)
        return -ENOLCK;
    bool full = s->nwaits >= LOCKS_WAIT_PER_SESSION || f->nwaits >= LOCKS_WAIT_PER_FILE;
    if (stuck && !w && full)
        return -ENOLCK; /* before any search */
    if (stuck && deadlock(t, f, r)) {
        if (w)
            locks_wait_end(t, w, -EDEADLK);
        return -EDEADLK;
    }
    if (cookie && (stuck || t->held || held_back(f, r, w, w ? w->since : now, now))) {
        if (!w && full)
            return -ENOLCK;
        if (!w) {
            w = locks_wait_add(t, f, s, r);
            w->since = now;
        } else {
            locks_done_add(t, w->cookie, -ERR_TIMEOUT); /* the same one, come twice */
        }
        w->cookie = cookie;
        w->deadline = deadline;
        w->blocker = in_way;
        f->soft |= !stuck;
        return LOCKS_QUEUED;
    }
    if (w)
        locks_wait_end(t, w, 0);
    else if (f->nholders >= LOCKS_OWNERS_PER_FILE && !*locks_holder_slot(f, s->id, r->owner))
        return -ENOLCK;
    locks_apply(t, f, s, r);
    check_circles(t, f, s, r->owner);
    if (r->type == LOCKSET_READ) /* a downgrade, perhaps */
        rescan(t, f, now);
    return 0;
}

int locks_set(struct locks *t, const struct lock_req *r, void *cookie, int64_t now,
              int64_t deadline)
{
    if (r->type > LOCKSET_NONE || r->start > r->end || r->session == 0 || (cookie && r->id == 0))
        return -EINVAL;
    if (r->type == LOCKSET_NONE)
        return set_unlock(t, r, now);
    t->search = SEARCH_MAX;
    struct lock_file *f = locks_file(t, r->ino, r->flock);
    struct lock_session *s = locks_session(t, r->session);
    int rc = try_set(t, f, s, r, cookie, now, deadline);
    locks_file_tidy(t, f);
    locks_session_tidy(t, s);
    return rc;
}

bool locks_test(struct locks *t, const struct lock_req *r, struct lock_req *out)
{
    const struct lock_file *f = locks_file_find(t, r->ino, r->flock);

    for (const struct lock_holder *h = f ? f->holders : NULL; h; h = h->next) {
        const struct lock_range *x = in_the_way(h, r);
        if (x) {
            *out = (struct lock_req){.session = h->session->id,
                                     .ino = r->ino,
                                     .owner = h->owner,
                                     .start = x->start,
                                     .end = x->end,
                                     .type = x->type,
                                     .pid = h->pid,
                                     .flock = r->flock};
            return true;
        }
    }
    return false;
}

/* w leaves the queue unserved: those whom it held back may go. */
static void give_up(struct locks *t, struct lock_wait *w, int code, int64_t now)
{
    struct lock_file *f = w->file;
    struct lock_session *s = w->session;

    locks_wait_end(t, w, code);
    freed(t, f, now);
    locks_session_tidy(t, s);
}

bool locks_cancel(struct locks *t, uint64_t session, uint64_t id, int64_t now)
{
    struct lock_session *s = locks_session_find(t, session);
    struct lock_wait *w = s ? locks_wait_find(s, id) : NULL;

    if (!w)
        return false;
    give_up(t, w, -EINTR, now);
    return true;
}

void locks_unlock_all(struct locks *t, uint64_t session, uint64_t ino, uint64_t owner, bool flock,
                      int64_t now)
{
    struct lock_file *f = locks_file_find(t, ino, flock);
    struct lock_session *s = locks_session_find(t, session);

    if (!f || !s)
        return;
    locks_drop_holder(t, f, s, owner);
    freed(t, f, now);
    locks_session_tidy(t, s);
}

void locks_detach(struct locks *t, bool (*gone)(void *cookie, const void *arg), const void *arg,
                  int64_t now)
{
    HASH_TABLE_EACH (&t->sessions, p)
        for (struct lock_wait *w = HASH_ENTRY(p, struct lock_session, link)->waits; w;
             w = w->s_next)
            if (w->cookie && gone(w->cookie, arg)) {
                w->cookie = NULL;
                w->deadline = now + KEEP_NS;
            }
}

/* ---- many files at once ---- */

struct file_list {
    struct lock_file **v;
    size_t n, cap;
};

static void list_add(struct file_list *l, struct lock_file *f)
{
    if (l->n == l->cap) {
        l->cap = l->cap == 0 ? 16 : l->cap * 2;
        l->v = realloc(l->v, l->cap * sizeof(struct lock_file *));
        if (!l->v)
            abort();
    }
    l->v[l->n++] = f;
}

/* Serves the queues of these files, each of which may be listed often, and frees empty files and
 * the list. */
static void list_freed(struct locks *t, struct file_list *l, int64_t now)
{
    size_t kept = 0;

    t->seen++;
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i]->seen == t->seen)
            continue;
        l->v[i]->seen = t->seen;
        l->v[kept++] = l->v[i];
    }
    for (size_t i = 0; i < kept; i++)
        freed(t, l->v[i], now);
    free(l->v);
}

static void list_waited(struct locks *t, struct file_list *l)
{
    HASH_TABLE_EACH (&t->sessions, p)
        for (struct lock_wait *w = HASH_ENTRY(p, struct lock_session, link)->waits; w;
             w = w->s_next)
            list_add(l, w->file);
}

static void drop_holders(struct locks *t, struct lock_session *s, struct file_list *l)
{
    while (s->holders) {
        struct lock_file *f = s->holders->file;
        list_add(l, f);
        locks_drop_holder(t, f, s, s->holders->owner);
    }
}

void locks_drop_session(struct locks *t, uint64_t session, int64_t now)
{
    struct lock_session *s = locks_session_find(t, session);
    struct file_list l = {0};

    if (!s)
        return;
    while (s->waits) {
        list_add(&l, s->waits->file);
        locks_wait_end(t, s->waits, -ERR_SESSION);
    }
    drop_holders(t, s, &l);
    locks_session_tidy(t, s);
    list_freed(t, &l, now);
}

bool locks_has_session(struct locks *t, uint64_t session)
{
    const struct lock_session *s = locks_session_find(t, session);
    return s && (s->holders || s->waits);
}

size_t locks_resume(struct locks *t, uint64_t session, const struct lock_req *v, size_t n,
                    int64_t now)
{
    struct lock_session *s = locks_session(t, session);
    struct file_list l = {0};
    size_t refused = 0;

    drop_holders(t, s, &l);
    for (size_t i = 0; i < n; i++) {
        struct lock_req r = v[i];
        r.session = session;
        if (r.type > LOCKSET_WRITE || r.start > r.end || s->nranges > LOCKS_PER_SESSION + 1) {
            refused++;
            continue;
        }
        struct lock_file *f = locks_file(t, r.ino, r.flock);
        list_add(&l, f);
        if (f->nholders >= LOCKS_OWNERS_PER_FILE + LOCKS_WAIT_PER_FILE) {
            refused++; /* more than were ever granted */
            continue;
        }
        if (blocker(t, f, &r))
            r.type = LOCKSET_READ; /* a downgrade whose answer was lost */
        if (blocker(t, f, &r))
            refused++;
        else
            locks_apply(t, f, s, &r);
    }
    locks_session_tidy(t, s);
    list_freed(t, &l, now);
    return refused;
}

/* ---- time ---- */

void locks_hold(struct locks *t, bool on, int64_t now)
{
    struct file_list l = {0};
    bool ends = t->held && !on;

    t->held = on;
    if (!ends)
        return;
    list_waited(t, &l);
    list_freed(t, &l, now);
}

bool locks_held(const struct locks *t)
{
    return t->held;
}

/* One request whose time has come. */
static void expire(struct locks *t, struct lock_wait *w, int64_t now)
{
    struct lock_session *s = w->session;

    if (w->cookie) {
        locks_done_add(t, w->cookie, -ERR_TIMEOUT);
        w->cookie = NULL;
        w->deadline = now + KEEP_NS;
        return;
    }
    locks_wait_end(t, w, 0);
    locks_session_tidy(t, s);
}

void locks_tick(struct locks *t, int64_t now)
{
    struct file_list l = {0}, look = {0};

    if (t->nwaits == 0)
        return;
    list_waited(t, &l);
    t->seen++;
    for (size_t i = 0; i < l.n; i++) {
        struct lock_file *f = l.v[i];
        if (f->seen == t->seen)
            continue;
        f->seen = t->seen;
        for (struct lock_wait *w = f->first, *next; w; w = next) {
            next = w->next;
            if (w->deadline <= now)
                expire(t, w, now);
        }
        if (f->soft || !f->first)
            list_add(&look, f);
    }
    free(l.v);
    list_freed(t, &look, now);
}

size_t locks_waiting(const struct locks *t)
{
    return t->nwaits;
}

bool locks_next_done(struct locks *t, struct locks_done *out)
{
    if (t->done_at == t->ndone)
        return false;
    *out = t->done[t->done_at++];
    return true;
}

uint64_t locks_steps(const struct locks *t)
{
    return t->steps;
}

size_t locks_count(const struct locks *t)
{
    return t->nranges;
}
