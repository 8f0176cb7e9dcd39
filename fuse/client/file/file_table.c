/* Open files by inode: one cfile however often a file is opened.
 *
 * `opens` counts what users opened; the table keeps a cfile while it is above zero. The dirty list names the files
 * that have bytes not committed, for the flusher. Closes that wait until nothing is left to commit (`linger`) are
 * over as their file leaves that list. The last close drops the table's reference and tells metad, in a batch. */
#include "client/file/file_table.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/log.h"
#include "base/lock.h"
#include "base/u64map.h"
#include "client/file/cfile.h"
#include "client/file/committed_map.h"
#include "client/internal.h"
#include "client/session/closes.h"

#define LOG_MODULE "cfile"

struct cfile *cfile_get(struct client *c, uint64_t ino)
{
    lock_acquire(&c->files.mu);
    struct cfile *f = u64map_get_ptr(&c->files.map, ino);
    if (f)
        cfile_ref(f);
    lock_release(&c->files.mu);
    return f;
}

/* The file's entry with one more open; made when there is none. */
struct cfile *cfile_table_open(struct client *c, uint64_t ino)
{
    lock_acquire(&c->files.mu);
    struct cfile *f = u64map_get_ptr(&c->files.map, ino);
    if (!f) {
        f = cfile_new(c, ino);
        if (f)
            u64map_put_ptr(&c->files.map, ino, f);
    }
    if (f)
        f->opens++;
    lock_release(&c->files.mu);
    return f;
}

/* What metad knows of, or nobody has open. files.mu held. */
void cfile_mark_told(struct cfile *f)
{
    f->c->files.untold -= f->untold;
    f->untold = false;
}

/* One open less; true when it was the last: the caller has the table's reference now. */
bool cfile_table_close(struct cfile *f)
{
    struct client *c = f->c;
    lock_acquire(&c->files.mu);
    assert(f->opens);
    bool last = --f->opens == 0;
    if (last) {
        u64map_del_ptr(&c->files.map, f->ino);
        /* Before anybody can open it anew: the open then finds the pending close and cancels it. */
        if (!f->untold)
            closes_add(c, f->ino);
        cfile_mark_told(f);
    }
    lock_release(&c->files.mu);
    return last;
}

/* A user has closed the file. mu held; the caller has another reference. */
void cfile_closed(struct cfile *f, int rc)
{
    if (!cfile_table_close(f))
        return; /* an error not told yet is for those who still have it open */
    int err = cfile_take_err(f);
    if (err || rc)
        log_error("inode %llu: writing failed and nobody asked: %s", (unsigned long long)f->ino,
                  err_str(err ? err : rc));
    cfile_unref(f);
}

/* ---- the dirty list ---- */

void cfile_mark_dirty(struct cfile *f)
{
    struct client *c = f->c;
    if (f->phase != FILE_CLEAN)
        return;
    lock_acquire(&c->files.mu);
    f->phase = FILE_DIRTY;
    f->dirty_prev = NULL;
    f->dirty_next = c->files.dirty;
    if (f->dirty_next)
        f->dirty_next->dirty_prev = f;
    c->files.dirty = f;
    cfile_ref(f);
    lock_release(&c->files.mu);
}

void cfile_mark_clean(struct cfile *f)
{
    struct client *c = f->c;
    if (f->phase == FILE_CLEAN)
        return;
    lock_acquire(&c->files.mu);
    f->phase = FILE_CLEAN;
    *(f->dirty_prev ? &f->dirty_prev->dirty_next : &c->files.dirty) = f->dirty_next;
    if (f->dirty_next)
        f->dirty_next->dirty_prev = f->dirty_prev;
    lock_release(&c->files.mu);
    unsigned before = atomic_fetch_sub(&f->refs, 1);
    assert(before > 1); /* the caller has one as well */
    for (; f->linger; f->linger--)
        cfile_closed(f, 0);
}

size_t cfile_dirty_all(struct client *c, struct cfile ***out)
{
    size_t n = 0, cap = 0;
    lock_acquire(&c->files.mu);
    for (struct cfile *f = c->files.dirty; f; f = f->dirty_next)
        cap++;
    *out = malloc((cap + 1) * sizeof(**out));
    for (struct cfile *f = c->files.dirty; *out && f; f = f->dirty_next) {
        cfile_ref(f);
        (*out)[n++] = f;
    }
    lock_release(&c->files.mu);
    return n;
}

void cfile_forget_maps(struct client *c)
{
    size_t pos = 0, n = 0;
    lock_acquire(&c->files.mu);
    struct cfile **list = malloc((c->files.map.n + 1) * sizeof(*list));
    if (!list)
        abort();
    for (struct cfile *f; (f = u64map_next_ptr(&c->files.map, &pos));) {
        cfile_ref(f);
        list[n++] = f;
    }
    lock_release(&c->files.mu);
    for (size_t i = 0; i < n; i++) {
        lock_acquire(&list[i]->mu);
        map_drop(list[i]);
        cfile_fail(list[i], -EIO);
        lock_release(&list[i]->mu);
        cfile_unref(list[i]);
    }
    free(list);
}
