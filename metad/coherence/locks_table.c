/* The structures of the lock table and how things enter and leave them; what that means is decided
 * in locks.c. Hash tables of files and sessions; a holder is in its file's and its session's list, a
 * waiting request in its file's queue and its session's list. Files and sessions stay until
 * somebody calls the tidy function, which frees them when they are empty. Pure. */
#include "locks_internal.h"

#include <assert.h>
#include <stdlib.h>

/* ---- sessions ---- */

struct lock_session *locks_session_find(const struct locks *t, uint64_t id)
{
    return HASH_ENTRY(hash_table_find(&t->sessions, id), struct lock_session, link);
}

struct lock_session *locks_session(struct locks *t, uint64_t id)
{
    struct lock_session *s = locks_session_find(t, id);

    if (!s) {
        s = calloc(1, sizeof(*s));
        if (!s)
            abort();
        s->id = id;
        hash_table_add(&t->sessions, &s->link);
    }
    return s;
}

void locks_session_tidy(struct locks *t, struct lock_session *s)
{
    if (s->holders || s->waits)
        return;
    assert(s->nranges == 0 && s->nwaits == 0);
    hash_table_remove(&t->sessions, &s->link);
    free(s);
}

/* ---- files ---- */

struct lock_file *locks_file_find(const struct locks *t, uint64_t ino, bool flock)
{
    struct hash_link *l = hash_table_find(&t->files, ino);

    while (l && HASH_ENTRY(l, struct lock_file, link)->flock != flock)
        l = hash_table_next_same(&t->files, l);
    return HASH_ENTRY(l, struct lock_file, link);
}

struct lock_file *locks_file(struct locks *t, uint64_t ino, bool flock)
{
    struct lock_file *f = locks_file_find(t, ino, flock);

    if (!f) {
        f = calloc(1, sizeof(*f));
        if (!f)
            abort();
        f->ino = ino;
        f->flock = flock;
        f->last = &f->first;
        hash_table_add(&t->files, &f->link);
    }
    return f;
}

void locks_file_tidy(struct locks *t, struct lock_file *f)
{
    if (f->holders || f->first)
        return;
    hash_table_remove(&t->files, &f->link);
    free(f);
}

/* ---- holders ---- */

struct lock_holder **locks_holder_slot(struct lock_file *f, uint64_t session, uint64_t owner)
{
    struct lock_holder **p = &f->holders;

    while (*p && ((*p)->owner != owner || (*p)->session->id != session))
        p = &(*p)->next;
    return p;
}

/* Changes the owner's ranges, with the holder made or freed as needed. */
void locks_apply(struct locks *t, struct lock_file *f, struct lock_session *s,
                 const struct lock_req *r)
{
    struct lock_holder **slot = locks_holder_slot(f, s->id, r->owner), *h = *slot;

    if (!h) {
        if (r->type == LOCKSET_NONE)
            return;
        h = *slot = calloc(1, sizeof(*h));
        if (!h)
            abort();
        f->nholders++;
        h->file = f;
        h->session = s;
        h->owner = r->owner;
        h->s_next = s->holders;
        h->s_prev = &s->holders;
        if (s->holders)
            s->holders->s_prev = &h->s_next;
        s->holders = h;
    }
    if (r->type != LOCKSET_NONE)
        h->pid = r->pid;
    size_t before = h->set.n;
    lockset_set(&h->set, r->type, r->start, r->end);
    s->nranges = s->nranges - before + h->set.n;
    t->nranges = t->nranges - before + h->set.n;
    if (h->set.n > 0)
        return;
    *slot = h->next;
    f->nholders--;
    for (struct lock_wait *w = f->first; w; w = w->next)
        if (w->blocker == h)
            w->blocker = NULL;
    *h->s_prev = h->s_next;
    if (h->s_next)
        h->s_next->s_prev = h->s_prev;
    free(h);
}

void locks_drop_holder(struct locks *t, struct lock_file *f, struct lock_session *s, uint64_t owner)
{
    struct lock_req all = {.owner = owner, .type = LOCKSET_NONE, .end = UINT64_MAX};

    locks_apply(t, f, s, &all);
}

/* ---- waiting requests ---- */

void locks_done_add(struct locks *t, void *cookie, int code)
{
    if (!cookie)
        return;
    if (t->done_at == t->ndone)
        t->done_at = t->ndone = 0;
    if (t->ndone == t->done_cap) {
        t->done_cap = t->done_cap == 0 ? 64 : t->done_cap * 2;
        t->done = realloc(t->done, t->done_cap * sizeof(*t->done));
        if (!t->done)
            abort();
    }
    t->done[t->ndone++] = (struct locks_done){cookie, code};
}

struct lock_wait *locks_wait_find(struct lock_session *s, uint64_t id)
{
    struct lock_wait *w = s->waits;

    while (w && w->req.id != id)
        w = w->s_next;
    return w;
}

struct lock_wait *locks_wait_add(struct locks *t, struct lock_file *f, struct lock_session *s,
                                 const struct lock_req *r)
{
    struct lock_wait *w = calloc(1, sizeof(*w));

    if (!w)
        abort();
    w->req = *r;
    w->file = f;
    w->session = s;
    *f->last = w;
    f->last = &w->next;
    w->s_next = s->waits;
    w->s_prev = &s->waits;
    if (s->waits)
        s->waits->s_prev = &w->s_next;
    s->waits = w;
    s->nwaits++;
    f->nwaits++;
    t->nwaits++;
    return w;
}

/* Takes w out of its lists and tells its cookie. File and session stay, perhaps empty. */
void locks_wait_end(struct locks *t, struct lock_wait *w, int code)
{
    struct lock_file *f = w->file;
    struct lock_wait **p = &f->first;

    while (*p != w)
        p = &(*p)->next;
    *p = w->next;
    if (f->last == &w->next)
        f->last = p;
    *w->s_prev = w->s_next;
    if (w->s_next)
        w->s_next->s_prev = w->s_prev;
    w->session->nwaits--;
    f->nwaits--;
    t->nwaits--;
    locks_done_add(t, w->cookie, code);
    free(w);
}

/* ---- life ---- */

struct locks *locks_new(void)
{
    struct locks *t = calloc(1, sizeof(*t));

    if (!t)
        abort();
    HASH_TABLE_INIT(&t->files, 256, struct lock_file, link, ino);
    HASH_TABLE_INIT(&t->sessions, 256, struct lock_session, link, id);
    return t;
}

void locks_free(struct locks *t)
{
    if (!t)
        return;
    for (struct hash_link *l; (l = hash_table_first(&t->sessions));)
        locks_drop_session(t, HASH_ENTRY(l, struct lock_session, link)->id, 0);
    assert(t->files.n == 0 && t->nwaits == 0 && t->nranges == 0);
    hash_table_free(&t->files);
    hash_table_free(&t->sessions);
    free(t->done);
    free(t);
}
