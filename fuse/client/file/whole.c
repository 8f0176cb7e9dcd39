/* Bytes of small files that were read ahead (prefetch.c). They count while the file's map is the one that they were
 * fetched by and nothing is buffered over them: map_gen moves with every change, and a recall drops them together
 * with the map. All files together keep at most what prefetch.c allows (c->prefetch.held). */
#include "client/file/whole.h"
#include <string.h>
#include "base/buf.h"
#include "base/lock.h"
#include "client/file/cfile.h"
#include "client/internal.h"

void whole_put(struct cfile *f, struct buf *b, uint64_t begun)
{
    f->whole = b;
    atomic_fetch_add(&f->c->prefetch.held, b->len);
    f->whole_gen = f->map_gen;
    f->whole_begun = begun;
}

/* mu held. */
struct buf *whole_take(struct cfile *f)
{
    struct buf *b = f->whole;
    if (b)
        atomic_fetch_sub(&f->c->prefetch.held, b->len);
    f->whole = NULL;
    return b;
}

void whole_drop(struct cfile *f)
{
    buf_unref(whole_take(f));
}

bool whole_counts(const struct cfile *f)
{
    return f->whole && f->whole_gen == f->map_gen && !f->head;
}

bool whole_read(struct cfile *f, uint64_t off, size_t len, struct buf **out)
{
    LOCK_SCOPE(&f->mu);
    struct buf *b = f->whole;
    if (!whole_counts(f))
        return false;
    if (off >= b->len) {
        *out = buf_new(1);
    } else if (!off && len >= b->len) {
        *out = buf_ref(b);
    } else {
        len = len < b->len - off ? len : b->len - off;
        *out = buf_new(len);
        memcpy((*out)->data, b->data + off, len);
        (*out)->len = len;
    }
    if (off + len >= b->len) /* the kernel has all of it now */
        whole_drop(f);
    return true;
}
