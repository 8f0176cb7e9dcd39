/* Changes of one inode: told to metad at once, or queued while nobody else can see it. Our own change of an open file
 * leaves what is known of its extents as it was, unless it was truncated. Thread context: any but a loop thread. */
#include "client/calls/changes.h"
#include <errno.h>
#include <sys/stat.h>
#include "base/extmap.h"
#include "base/lock.h"
#include "client/base/attr.h"
#include "client/base/client_clock.h"
#include "client/cache/lease_cache.h"
#include "client/file/cfile.h"
#include "client/file/file_table.h"
#include "client/file/wchunk.h"
#include "client/internal.h"
#include "client/queue/mutate.h"
#include "client/queue/queue.h"
#include "client/session/closes.h"
#include "client/writeback/durable.h"
#include "client/writeback/flush.h"
#include "client/writeback/quota.h"

int client_mutate(struct client *c, Replfs__MetaOp *op, Replfs__Attr *attr, Replfs__Attr *parent)
{
    Replfs__Attr got = REPLFS__ATTR__INIT;
    int rc = op->op_case == REPLFS__META_OP__OP_RENAME ? durable_rename(c, op->rename) : 0;
    if (rc)
        return rc;
    uint64_t begun = lease_cache_begin(c->leases);
    rc = quota_mutate(c, op, 0, client_deadline(c), &got, parent, NULL);
    /* The answer to a repetition has none when somebody else removed it since. */
    if (!rc && attr && !got.ino)
        rc = -ESTALE;
    if (rc)
        return rc;
    struct cfile *f = got.ino ? cfile_get(c, got.ino) : NULL;
    if (f) { /* our own change of an open file: its extents are the same unless it was truncated */
        lock_acquire(&f->mu);
        bool same = got.change >= f->attr.change && got.size == f->attr.size &&
                    lease_cache_held_since(c->leases, begun, got.ino);
        if (same)
            attr_copy(&f->attr, &got);
        else
            cfile_set_attr(f, &got);
        lock_release(&f->mu);
        cfile_unref(f);
    }
    if (attr) {
        attr_copy(attr, &got);
        client_merge_attr(c, attr);
    }
    return 0;
}

bool client_setattr_deferred(struct client *c, const Replfs__SetattrOp *op, Replfs__Attr *a)
{
    if (c->cfg.sync_all || !lease_cache_exclusive(c->leases, op->ino) ||
        !lease_cache_getattr(c->leases, op->ino, a))
        return false;
    client_merge_attr(c, a);
    struct cfile *f = cfile_get(c, op->ino);
    if (f)
        lock_acquire(&f->mu);
    bool done = queue_setattr(c, op, a, f && f->head);
    if (f) {
        lock_release(&f->mu);
        cfile_unref(f);
    }
    if (done && !lease_cache_exclusive(c->leases, op->ino)) /* recalled meanwhile */
        queue_settle(c, op->ino);
    return done;
}

int cfile_truncate(struct cfile *f, uint64_t size, Replfs__Attr *attr)
{
    int rc = flush_file(f, FLUSH_COMMIT, true);
    if (rc)
        return rc;
    Replfs__SetattrOp op = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    Replfs__Attr got = REPLFS__ATTR__INIT;
    op.ino = f->ino;
    op.valid = REPLFS__SETATTR_OP__VALID__SIZE | REPLFS__SETATTR_OP__VALID__MTIME_NOW;
    op.size = size;
    meta.op_case = REPLFS__META_OP__OP_SETATTR;
    meta.setattr = &op;
    uint64_t begun = lease_cache_begin(f->c->leases);
    rc = mutate_one(f->c, &meta, 0, client_deadline(f->c), &got, NULL);
    if (rc)
        return rc;
    lock_acquire(&f->mu);
    cfile_changed_since(f, begun);
    if (f->attr.size > size && f->cut < f->attr.size)
        f->cut = f->attr.size;
    extmap_remove(&f->base, size, UINT64_MAX - size, NULL, NULL);
    f->map_gen++;
    if (got.ino)
        attr_copy(&f->attr, &got);
    /* metad may free the chunk with its last extent: nothing more goes there. */
    wchunk_unref(f->c, f->wcur);
    f->wcur = NULL;
    if (attr)
        attr_copy(attr, &f->attr);
    lock_release(&f->mu);
    return 0;
}
