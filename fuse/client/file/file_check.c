/* The states of an open file, and what holds in each whenever its mutex may be taken.
 *
 *   phase    buffers  dirty_end, kill_suid  overlay  uncommitted, growing, inflight  on the dirty list
 *   CLEAN    none     0, false              empty    0                               no
 *   DIRTY    some     any                   any      the sums over the buffers       yes
 *   CLOSED   some     any                   any      the sums over the buffers       yes
 *
 *   buffer       bytes  chunk  where in the list
 *   FILLING      yes    no     the last only
 *   QUEUED       yes    no     behind those COMMITTING
 *   SENT         yes    yes    behind those COMMITTING
 *   ACKED        no     yes    behind those COMMITTING
 *   COMMITTING   no     yes    first, as many as the commit under way took
 *
 *   job          in phase        holds while it is under way
 *   SEND         any             the sending thread drops mu only inside send_one
 *   GRANT        any             the waiting list has a reference; it may outlive what it was wanted for
 *   COMMIT       DIRTY, CLOSED   the first buffer is COMMITTING; and it is only then
 *   FETCH        any             map_gen tells whether the answer still counts
 *   SYNC, ORDER  any             their chunks are referenced by the sync
 *
 * Ids of buffers rise along the list, and each is in `abufs`. Out of memory leaves exceptions: a file that is DIRTY
 * without a buffer. */
#include "client/file/file_check.h"
#ifdef REPLFS_CHECKS
#include <assert.h>

static void check_buffer(const struct cfile *f, const struct abuf *a, bool first_waiting)
{
    bool has_bytes = a->state <= ABUF_SENT, has_chunk = a->state >= ABUF_SENT;
    assert(has_bytes == (a->buf != NULL));
    assert(has_chunk == (a->wc != NULL));
    assert(a->len <= a->limit);
    assert(a->len || a->state == ABUF_FILLING);
    assert(a->state != ABUF_FILLING || !a->next);
    assert(a->state != ABUF_COMMITTING || !first_waiting);
    assert(u64map_get_ptr(&f->abufs, a->id) == a);
}

static void check_clean(const struct cfile *f)
{
    struct ext e;
    assert(!f->head && !f->dirty_end && !f->kill_suid);
    assert(!extmap_find(&f->over, 0, &e));
}

void file_check(const struct cfile *f)
{
    uint64_t uncommitted = 0, growing = 0, last_id = 0;
    unsigned inflight = 0;
    size_t n = 0;
    bool waiting = false; /* a buffer that is not being committed was passed */
    const struct abuf *last = NULL;
    for (const struct abuf *a = f->head; a; last = a, a = a->next, n++) {
        check_buffer(f, a, waiting);
        waiting |= a->state != ABUF_COMMITTING;
        assert(a->id > last_id && a->id < f->next_abuf);
        last_id = a->id;
        inflight += a->state == ABUF_SENT;
        uncommitted += a->state >= ABUF_ACKED ? a->len : 0;
        growing += a->grows;
    }
    assert(f->tail == last);
    assert(f->abufs.n == n);
    assert(f->inflight == inflight && f->uncommitted == uncommitted && f->growing == growing);
    assert(((f->jobs & JOB_COMMIT) != 0) == (f->head && f->head->state == ABUF_COMMITTING));
    assert(f->phase != FILE_CLOSED || f->head);
    if (f->phase == FILE_CLEAN)
        check_clean(f);
}
#endif
