/* What metad knows to be open.
 *
 * Opening to read under a lease needs no answer of metad: what the file is like is known, and nobody can remove it
 * without recalling the lease. So metad is not told (`untold`), unless somebody else wants to change the inode (a
 * recall: before the lease is given back), this client is about to take a name away (cfile_removing), or the file has
 * been open for a while, since a lease may run out.
 *
 * Of an open directory metad is told only then, too: once removed, it is kept for as long as that is open.
 *
 * A metad that has just started takes no opens yet: what it refused is told again. */
#include "client/file/open_told.h"
#include <stdlib.h>
#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/u64map.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/file_table.h"
#include "client/internal.h"
#include "client/session/ask.h"
#include "client/session/closes.h"

#define UNTOLD_NS (NSEC_PER_SEC / 2)

struct cfile_telling {
    struct cfile_telling *next; /* of those refused */
    struct client *c;
    uint64_t ino;
};

/* metad that has just started takes no opens yet: it is told again (cfile_tell_old). What a lost connection
 * took along is told as the session resumes. Locks may be held. */
static void tell_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)rep;
    (void)payload;
    struct cfile_telling *t = arg;
    if (code != -ERR_BUSY) {
        free(t);
        return;
    }
    t->next = atomic_load(&t->c->files.refused);
    while (!atomic_compare_exchange_weak(&t->c->files.refused, &t->next, t))
        ;
}

/* Those that were refused are untold. */
void cfile_take_refused(struct client *c)
{
    struct cfile_telling *t = atomic_exchange(&c->files.refused, NULL), *next;
    for (; t; t = next) {
        next = t->next;
        lock_acquire(&c->files.mu);
        struct cfile *f = u64map_get_ptr(&c->files.map, t->ino);
        if (f && !f->untold) {
            f->untold = true;
            f->opened_at = clock_mono();
            c->files.untold++;
        }
        lock_release(&c->files.mu);
        free(t);
    }
}

void cfile_tell(struct client *c, uint64_t ino, bool write)
{
    Replfs__OpenReq m = REPLFS__OPEN_REQ__INIT;
    struct cfile_telling *t = malloc(sizeof(*t));
    if (!t)
        abort();
    *t = (struct cfile_telling){.c = c, .ino = ino};
    m.ino = ino;
    m.write = write;
    RPC_ENVELOPE(env, OPEN_REQ, open_req, &m);
    session_tell_then(c, &env, tell_done, t);
}

/* files.mu held, so that no close overtakes it. */
static void tell(struct client *c, struct cfile *f)
{
    cfile_mark_told(f);
    cfile_tell(c, f->ino, false);
}

/* files.mu held. */
static void tell_dir(struct client *c, struct open_dir *d)
{
    if (d && !d->told)
        cfile_tell(c, d->ino, false);
    if (d)
        d->told = true;
}

/* ---- files ---- */

uint64_t *cfile_open_inos(struct client *c, size_t *n)
{
    size_t pos = 0;
    lock_acquire(&c->files.mu);
    *n = 0;
    uint64_t *out = malloc((c->files.map.n + c->files.dirs.n + 1) * sizeof(*out));
    for (struct cfile *f; out && (f = u64map_next_ptr(&c->files.map, &pos));) {
        out[(*n)++] = f->ino;
        cfile_mark_told(f);
    }
    pos = 0;
    for (struct open_dir *d; out && (d = u64map_next_ptr(&c->files.dirs, &pos));)
        if (d->told)
            out[(*n)++] = d->ino;
    lock_release(&c->files.mu);
    return out;
}

void cfile_tell_open(struct client *c, uint64_t ino)
{
    LOCK_SCOPE(&c->files.mu);
    struct cfile *f = u64map_get_ptr(&c->files.map, ino);
    if (f && f->untold)
        tell(c, f);
    tell_dir(c, u64map_get_ptr(&c->files.dirs, ino));
}

void cfile_tell_opens(struct client *c, int64_t before)
{
    size_t pos = 0;
    if (!atomic_load(&c->files.untold))
        return;
    LOCK_SCOPE(&c->files.mu);
    for (struct cfile *f; (f = u64map_next_ptr(&c->files.map, &pos));)
        if (f->untold && f->opened_at < before)
            tell(c, f);
}

void cfile_tell_old(struct client *c)
{
    int64_t now = clock_mono();
    if (now - c->files.told_at < UNTOLD_NS / 2)
        return;
    c->files.told_at = now;
    cfile_take_refused(c);
    cfile_tell_opens(c, now - UNTOLD_NS);
}

void cfile_removing(struct client *c, bool begin)
{
    if (!begin) {
        atomic_fetch_sub(&c->files.removing, 1);
        return;
    }
    atomic_fetch_add(&c->files.removing, 1);
    cfile_tell_opens(c, INT64_MAX);
}

void cfile_now_told(struct cfile *f)
{
    LOCK_SCOPE(&f->c->files.mu);
    cfile_mark_told(f);
}

/* ---- directories ---- */

void client_dir_opened(struct client *c, uint64_t ino)
{
    LOCK_SCOPE(&c->files.mu);
    struct open_dir *d = u64map_get_ptr(&c->files.dirs, ino);
    if (!d) {
        d = calloc(1, sizeof(*d));
        if (!d)
            abort();
        d->ino = ino;
        u64map_put_ptr(&c->files.dirs, ino, d);
    }
    d->opens++;
}

void client_dir_closed(struct client *c, uint64_t ino)
{
    LOCK_SCOPE(&c->files.mu);
    struct open_dir *d = u64map_get_ptr(&c->files.dirs, ino);
    if (!d || --d->opens)
        return;
    u64map_del_ptr(&c->files.dirs, ino);
    if (d->told)
        closes_add(c, ino);
    free(d);
}

bool cfile_dir_open(struct client *c, uint64_t ino)
{
    LOCK_SCOPE(&c->files.mu);
    return u64map_get_ptr(&c->files.dirs, ino) != NULL;
}

void cfile_tell_dirs(struct client *c)
{
    size_t pos = 0;
    LOCK_SCOPE(&c->files.mu);
    for (struct open_dir *d; (d = u64map_next_ptr(&c->files.dirs, &pos));)
        tell_dir(c, d);
}

void cfile_dirs_free(struct client *c)
{
    size_t pos = 0;
    for (struct open_dir *d; (pos = 0, d = u64map_next_ptr(&c->files.dirs, &pos));)
        free(u64map_del_ptr(&c->files.dirs, d->ino));
    u64map_free(&c->files.dirs);
}
