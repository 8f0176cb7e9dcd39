/* Writes with O_APPEND: metad decides where they go.
 *
 * The end of the file as this client knows it is not where other clients' bytes end. So such a
 * write gets an append buffer of its own, whose bytes have no place in the file yet: it is not in
 * the overlay, and its commit counts from the end of the file at the time it is applied, which its
 * answer tells. Until then the writer waits, and a reader sees nothing of it. Each write of up to
 * APPEND_MAX bytes is whole, and so are those of other clients around it.
 *
 * Order among the writes of this client is that of the list of buffers, whatever their kind: what
 * was written before at given offsets is committed before, since it may move the end.
 *
 * A client that knew itself to be the only writer need not wait; append_waits() is where that
 * knowledge will come in.
 * Context: any thread but a loop thread. */
#include "client/writeback/append.h"
#include <errno.h>
#include <string.h>
#include "client/base/client_clock.h"
#include "base/u64map.h"
#include "client/file/abuf.h"
#include "client/file/cfile.h"
#include "client/file/dirty.h"
#include "client/file/file_check.h"
#include "client/file/file_table.h"
#include "client/internal.h"
#include "client/writeback/drain.h"
#include "client/writeback/quota.h"
#include "client/writeback/send.h"

bool append_waits(const struct cfile *f)
{
    (void)f;
    return true;
}

int append_put(struct cfile *f, const uint8_t *data, size_t len, uint64_t *off)
{
    struct append_wait w = {0};
    abuf_seal(f); /* the order of writing */
    struct abuf *a = abuf_new(f, 0, len);
    if (!a || abuf_add_piece(a, cfile_size(f), (uint32_t)len)) {
        dirty_give(f->c, len);
        if (a) {
            a->len = 0;
            abuf_forget(f, a);
        }
        return -ENOMEM;
    }
    memcpy(a->buf->data, data, len);
    a->append = true;
    a->wait = &w;
    a->grows = quota_applies(f) ? len : 0;
    f->growing += a->grows;
    abuf_seal(f);
    cfile_mark_dirty(f);
    file_check(f);
    uint64_t id = a->id; /* a goes with its commit, perhaps while the lock is dropped here */
    send_pump(f);
    int late = drain_below(f, id + 1, client_deadline(f->c));
    if (late && !w.done) { /* it may still get there, and nobody is told where */
        a = u64map_get_ptr(&f->abufs, id);
        if (a)
            a->wait = NULL;
        return late;
    }
    if (!w.rc)
        *off = w.off;
    return w.rc;
}
