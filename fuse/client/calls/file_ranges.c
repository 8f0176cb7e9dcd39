/* Clones, fallocate, and holes as lseek(2) sees them.
 *
 * All three look at, or change, the committed map at metad, so what is buffered in the file goes
 * there first: bytes written before a hole is punched are under it when the command is applied, and
 * bytes written after it was answered come later in the log. metad may do part of a command only
 * (limits of one log entry) and says how much: these calls go on until all is done.
 *
 * Afterwards the cached map is put right, or dropped: when a commit of another thread was under way
 * meanwhile, nobody here knows which came first. A clone's destination names chunks that nobody
 * here has synced, so base_synced is taken back: the next fsync has them synced.
 *
 * Failure modes: as metad answers; -ERR_TIMEOUT after the mount's time-out. */
#include "client/calls/file_ranges.h"
#include <errno.h>
#include <fcntl.h>
#include "base/error.h"
#include "base/extmap.h"
#include "base/lock.h"
#include "client/base/attr.h"
#include "client/base/client_clock.h"
#include "client/cache/lease_cache.h"
#include "client/client.h"
#include "client/file/cfile.h"
#include "client/file/committed_map.h"
#include "client/file/overlay.h"
#include "client/internal.h"
#include "client/io/layout.h"
#include "client/writeback/durable.h"
#include "client/writeback/flush.h"
#include "client/writeback/quota.h"

/* ---- fallocate ---- */

/* The holes of [off, end) of the known map are reserved now. */
static int base_reserve(struct cfile *f, uint64_t off, uint64_t end)
{
    int rc = 0;
    if (f->base_to < end)
        end = f->base_to;
    while (off < end && !rc) {
        struct ext e;
        bool have = extmap_find(&f->base, off, &e) && e.file_off < end;
        if (have && e.file_off <= off) {
            off = e.file_off + e.len;
            continue;
        }
        uint64_t len = (have ? e.file_off : end) - off;
        struct ext r = {.file_off = off, .len = EXTMAP_RESERVED_MAX};
        if (r.len > len)
            r.len = (uint32_t)len;
        rc = extmap_insert(&f->base, &r, NULL, NULL, NULL);
        off += r.len;
    }
    return rc;
}

/* The map as it is after the command. gen: of the map before it was sent. */
static void map_follow(struct cfile *f, int mode, uint64_t off, uint64_t len, uint64_t gen)
{
    int rc = f->head || (f->jobs & JOB_COMMIT) || gen != f->map_gen ? -EAGAIN : 0;
    if (!rc && mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
        rc = extmap_remove(&f->base, off, len, NULL, NULL);
    if (!rc && !(mode & FALLOC_FL_PUNCH_HOLE))
        rc = base_reserve(f, off, off + len);
    if (rc)
        map_drop(f);
    f->map_gen++;
}

static void own_attr(struct cfile *f, const Replfs__Attr *got, uint64_t begun)
{
    cfile_changed_since(f, begun);
    if (got->ino && got->change >= f->attr.change)
        attr_copy(&f->attr, got);
}

static int fallocate_some(struct cfile *f, Replfs__FallocateOp *op, uint64_t *done)
{
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    Replfs__Attr got = REPLFS__ATTR__INIT;
    int rc = flush_file(f, FLUSH_COMMIT, true);
    if (rc)
        return rc;
    lock_acquire(&f->mu);
    uint64_t gen = f->map_gen;
    lock_release(&f->mu);
    meta.op_case = REPLFS__META_OP__OP_FALLOCATE;
    meta.fallocate = op;
    uint64_t begun = lease_cache_begin(f->c->leases);
    rc = quota_mutate(f->c, &meta, 0, client_deadline(f->c), &got, NULL, done);
    if (!rc && (!*done || *done > op->len))
        rc = -ERR_PROTOCOL;
    if (rc)
        return rc;
    lock_acquire(&f->mu);
    if (op->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && f->cut < op->off + *done)
        f->cut = op->off + *done;
    map_follow(f, (int)op->mode, op->off, *done, gen);
    own_attr(f, &got, begun);
    lock_release(&f->mu);
    return 0;
}

int cfile_fallocate(struct cfile *f, int mode, uint64_t off, uint64_t len, bool kill_suid)
{
    Replfs__FallocateOp op = REPLFS__FALLOCATE_OP__INIT;
    int known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
    if (mode & ~known)
        return -EOPNOTSUPP;
    if (!len)
        return -EINVAL;
    op.ino = f->ino;
    op.mode = (uint32_t)mode;
    op.off = off;
    op.len = len;
    op.kill_suid = kill_suid;
    for (uint64_t done; op.len; op.off += done, op.len -= done) {
        int rc = fallocate_some(f, &op, &done);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- clones ---- */

static bool clone_displaces(struct cfile *dst, const Replfs__CloneOp *op)
{
    lock_acquire(&dst->mu);
    bool over = op->dst_off < dst->attr.size || op->dst_off < dst->cut;
    lock_release(&dst->mu);
    return over;
}

static int clone_some(struct cfile *src, struct cfile *dst, Replfs__CloneOp *op, uint64_t *done)
{
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    Replfs__Attr got = REPLFS__ATTR__INIT;
    int rc = flush_file(src, FLUSH_COMMIT, true);
    if (!rc && dst != src)
        rc = flush_file(dst, FLUSH_COMMIT, true);
    if (!rc && clone_displaces(dst, op))
        rc = durable_bytes(src);
    if (rc)
        return rc;
    meta.op_case = REPLFS__META_OP__OP_CLONE;
    meta.clone = op;
    uint64_t begun = lease_cache_begin(dst->c->leases);
    rc = quota_mutate(dst->c, &meta, 0, client_deadline(dst->c), &got, NULL, done);
    if (!rc && *done > op->len)
        rc = -ERR_PROTOCOL;
    if (rc || !*done)
        return rc;
    lock_acquire(&dst->mu);
    map_drop(dst);
    dst->base_synced = false;
    own_attr(dst, &got, begun);
    lock_release(&dst->mu);
    return 0;
}

int cfile_clone(struct cfile *src, uint64_t src_off, struct cfile *dst, uint64_t dst_off,
                uint64_t len, uint64_t *done)
{
    Replfs__CloneOp op = REPLFS__CLONE_OP__INIT;
    op.src = src->ino;
    op.dst = dst->ino;
    if (src == dst) { /* which may grow on the way */
        Replfs__Attr now = REPLFS__ATTR__INIT;
        int rc = client_getattr(src->c, src->ino, &now);
        if (rc)
            return rc;
        uint64_t most = now.size > src_off ? now.size - src_off : 0;
        len = len < most ? len : most;
    }
    for (*done = 0; *done < len;) {
        uint64_t part = 0;
        op.src_off = src_off + *done;
        op.dst_off = dst_off + *done;
        op.len = len - *done;
        int rc = clone_some(src, dst, &op, &part);
        if (rc)
            return rc;
        if (!part) /* the end of src */
            break;
        *done += part;
    }
    return 0;
}

/* ---- holes ---- */

int cfile_seek(struct cfile *f, uint64_t off, bool hole, uint64_t *out)
{
    int64_t deadline = client_deadline(f->c);
    const struct extmap *over;
    uint64_t size, pos = off;
    bool found = false;
    int rc = 0;
    lock_acquire(&f->mu);
    while (!rc && !found && pos < (size = cfile_shown(f, &over))) {
        struct seg s;
        if (f->base_to <= pos) { /* everything may be different afterwards */
            rc = layout_need(f, pos + 1, deadline);
            continue;
        }
        overlay_next(over, &f->base, pos, f->base_to < size ? f->base_to : size, &s);
        found = hole == (s.kind == SEG_HOLE || s.kind == SEG_RESERVED);
        if (!found)
            pos += s.len;
    }
    size = cfile_shown(f, NULL);
    lock_release(&f->mu);
    if (rc)
        return rc;
    if (!found && (!hole || off >= size))
        return -ENXIO;
    *out = found ? pos : size; /* the end is a hole */
    return 0;
}
