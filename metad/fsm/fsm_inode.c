/* Inodes: making, finding and freeing them, attributes, and the orphans.
 *
 * States of an inode: named (nlink > 0), orphan (no name left; listed in f->orphans, still readable
 * and writable by each session that has it open) and freed (by ReapOp, once nobody has it open). Directories
 * become orphans as well, so that a process whose working directory was removed can still stat it.
 * A file made by O_TMPFILE begins as an orphan, open by the session that made it, and carries the
 * flag FSM_INODE_TMPFILE until it gets its first name: no other orphan can get one.
 *
 * A directory's nlink field is only 1 or 0; what users see is 2 + subdirs, counted beside it, so
 * that the number of subdirectories has no limit. Every modification takes the next change number.
 *
 * Failure modes: codes only. Thread context: fsm lock, see fsm.h. */
#include "fsm_internal.h"
#include <stdlib.h>
#include <string.h>

#define CLOCKS_APART_NS (10ll * 1000 * 1000 * 1000)

static uint32_t *htab_next(void *ctx, uint32_t h)
{
    return &fsm_inode_at(ctx, h)->next;
}

static uint64_t htab_hash(void *ctx, uint32_t h)
{
    return hash_u64(fsm_inode_at(ctx, h)->ino);
}

const struct fsm_htab_ops fsm_inode_htab_ops = {htab_next, htab_hash};

uint32_t fsm_inode_find(const struct fsm *f, uint64_t ino)
{
    if (!ino)
        return 0;
    uint32_t h = fsm_htab_first(&f->by_ino, hash_u64(ino));
    while (h && fsm_inode_at(f, h)->ino != ino)
        h = fsm_inode_at(f, h)->next;
    return h;
}

static uint64_t *counter_of(struct fsm *f, uint16_t mode)
{
    if (S_ISREG(mode))
        return &f->n.files;
    if (S_ISDIR(mode))
        return &f->n.dirs;
    return S_ISLNK(mode) ? &f->n.symlinks : &f->n.others;
}

uint32_t fsm_inode_new(struct fsm *f, uint64_t ino, uint16_t mode)
{
    uint32_t h = fsm_slab_alloc(&f->inodes);
    struct fsm_inode *i = fsm_inode_at(f, h);

    i->ino = ino;
    i->mode = mode;
    i->mtime = i->ctime = i->atime = f->now;
    i->change = ++f->change;
    if (S_ISREG(mode))
        extmap_init(&i->u.map);
    else if (S_ISDIR(mode))
        i->x.next_cookie = 1;
    ++*counter_of(f, mode);
    fsm_htab_insert(&f->by_ino, &fsm_inode_htab_ops, f, h);
    return h;
}

void fsm_inode_free(struct fsm *f, uint32_t h)
{
    struct fsm_inode *i = fsm_inode_at(f, h);

    if (S_ISREG(i->mode)) {
        fsm_file_cut(f, h, 0);
        extmap_free(&i->u.map);
    } else if (S_ISLNK(i->mode)) {
        free(i->u.target);
        f->heap -= i->size;
    } else if (S_ISDIR(i->mode)) {
        assert(i->u.dir.entries.count == 0);
        fsm_oset_fini(&i->u.dir.entries, &f->heap);
    }
    fsm_xattr_drop_all(f, i);
    fsm_regoal_forget(f, h);
    fsm_charge(f, i, 0, -1);
    --*counter_of(f, i->mode);
    fsm_htab_remove(&f->by_ino, &fsm_inode_htab_ops, f, h);
    fsm_slab_release(&f->inodes, h);
}

bool fsm_time_ok(const struct fsm *f, int64_t ns)
{
    return ns != 0 && ns <= f->now + CLOCKS_APART_NS;
}

void fsm_inode_touch(struct fsm *f, struct fsm_inode *i, bool modified)
{
    if (i->ctime <= f->now || i->ctime > f->now + CLOCKS_APART_NS)
        i->ctime = f->now;
    else
        i->ctime++; /* a client's clock was a little ahead */
    if (modified)
        i->mtime = i->ctime;
    i->change = ++f->change;
}

/* ---- orphans ---- */

static uint64_t orphan_key(void *ctx, uint32_t h)
{
    return fsm_inode_at(ctx, h)->ino;
}

struct fsm_oset_ops fsm_orphan_ops(struct fsm *f)
{
    return (struct fsm_oset_ops){orphan_key, f, &f->heap};
}

void fsm_inode_orphan(struct fsm *f, uint32_t h, uint64_t opener)
{
    struct fsm_oset_ops ops = fsm_orphan_ops(f);
    int r = fsm_oset_insert(&f->orphans, &ops, h);
    assert(r == 0);
    if (f->hooks.orphaned)
        f->hooks.orphaned(f->hooks.arg, fsm_inode_at(f, h)->ino, opener);
}

void fsm_inode_adopt(struct fsm *f, uint32_t h)
{
    struct fsm_oset_ops ops = fsm_orphan_ops(f);
    struct fsm_inode *i = fsm_inode_at(f, h);

    assert(i->nlink == 0 && (i->flags & FSM_INODE_TMPFILE));
    fsm_oset_remove(&f->orphans, &ops, h);
    i->flags &= ~(unsigned)FSM_INODE_TMPFILE & 3u;
    if (f->hooks.adopted)
        f->hooks.adopted(f->hooks.arg, i->ino);
}

bool fsm_orphan_next(struct fsm *f, uint64_t after, uint64_t *ino)
{
    struct fsm_oset_ops ops = fsm_orphan_ops(f);
    struct fsm_opos pos = fsm_oset_seek(&f->orphans, &ops, after);
    uint32_t h = fsm_oset_next(&f->orphans, &pos);
    if (h)
        *ino = fsm_inode_at(f, h)->ino;
    return h != 0;
}

/* A file of very many extents goes in several commands: what one leaves of it stays an orphan, and
 * value says how many such there are. */
int fsm_op_reap(struct fsm *f, const Replfs__ReapOp *op, struct fsm_result *res)
{
    struct fsm_oset_ops ops = fsm_orphan_ops(f);

    for (size_t k = 0; k < op->n_ino; k++) {
        uint32_t h = fsm_inode_find(f, op->ino[k]);
        if (!h || fsm_inode_at(f, h)->nlink)
            continue; /* reaped before: proposals may overlap */
        if (S_ISREG(fsm_inode_at(f, h)->mode) && !fsm_file_cut_some(f, h)) {
            res->value++;
            continue;
        }
        fsm_oset_remove(&f->orphans, &ops, h);
        fsm_inode_free(f, h);
    }
    return 0;
}

/* ---- attributes ---- */

/* Inodes that vanished meanwhile are passed over: the client tells in batches, later. */
int fsm_op_atime(struct fsm *f, const Replfs__AtimeOp *op)
{
    if (op->n_ino != op->n_atime_ns)
        return -EINVAL;
    for (size_t k = 0; k < op->n_ino; k++) {
        uint32_t h = fsm_inode_find(f, op->ino[k]);
        if (h && fsm_inode_at(f, h)->atime < op->atime_ns[k])
            fsm_inode_at(f, h)->atime = op->atime_ns[k];
    }
    return 0;
}

void fsm_inode_attr(struct fsm *f, const struct fsm_inode *i, Replfs__Attr *out)
{
    out->ino = i->ino;
    out->mode = i->mode;
    out->nlink = i->nlink;
    out->uid = i->uid;
    out->gid = i->gid;
    out->size = i->size;
    out->allocated = S_ISREG(i->mode) ? i->x.alloc : 0;
    out->mtime_ns = i->mtime;
    out->ctime_ns = i->ctime;
    out->atime_ns = i->atime;
    out->rdev = S_ISCHR(i->mode) || S_ISBLK(i->mode) ? i->x.rdev : 0;
    out->goal = i->goal;
    out->change = i->change;
    if (i->flags & FSM_INODE_XATTR)
        out->flags |= REPLFS__ATTR_FLAG__ATTR_XATTR;
    fsm_quota_attr(f, i, out);
    if (S_ISDIR(i->mode)) {
        out->size = 4096;
        out->nlink = i->nlink ? 2 + i->u.dir.subdirs : 0;
    }
}

int fsm_getattr(struct fsm *f, uint64_t ino, Replfs__Attr *out)
{
    uint32_t h = fsm_inode_find(f, ino);
    if (h)
        fsm_inode_attr(f, fsm_inode_at(f, h), out);
    return h ? 0 : -ENOENT;
}

static int setattr_check(const struct fsm_inode *i, const Replfs__SetattrOp *op)
{
    enum {
        KNOWN = REPLFS__SETATTR_OP__VALID__MODE | REPLFS__SETATTR_OP__VALID__UID |
                REPLFS__SETATTR_OP__VALID__GID | REPLFS__SETATTR_OP__VALID__SIZE |
                REPLFS__SETATTR_OP__VALID__ATIME | REPLFS__SETATTR_OP__VALID__MTIME |
                REPLFS__SETATTR_OP__VALID__ATIME_NOW | REPLFS__SETATTR_OP__VALID__MTIME_NOW |
                REPLFS__SETATTR_OP__VALID__KILL_SUID | REPLFS__SETATTR_OP__VALID__KILL_SGID
    };
    if (op->valid & ~(uint32_t)KNOWN)
        return -EINVAL;
    if (op->valid & REPLFS__SETATTR_OP__VALID__SIZE) {
        if (S_ISDIR(i->mode))
            return -EISDIR;
        if (!S_ISREG(i->mode))
            return -EINVAL;
        if (op->size > FSM_SIZE_MAX)
            return -EFBIG;
    }
    return 0;
}

void fsm_inode_strip(struct fsm *f, struct fsm_inode *i, bool suid)
{
    if (S_ISDIR(i->mode))
        return;
    fsm_xattr_drop_caps(f, i);
    if (!suid)
        return;
    i->mode &= (uint16_t)~S_ISUID;
    if (i->mode & S_IXGRP)
        i->mode &= (uint16_t)~S_ISGID;
}

int fsm_op_setattr(struct fsm *f, const Replfs__SetattrOp *op, struct fsm_result *res)
{
    uint32_t h = fsm_inode_find(f, op->ino);
    if (!h)
        return -ENOENT;
    struct fsm_inode *i = fsm_inode_at(f, h);
    int64_t changed = i->ctime;
    int r = setattr_check(i, op);
    if (r)
        return r;
    if (op->valid & (REPLFS__SETATTR_OP__VALID__UID | REPLFS__SETATTR_OP__VALID__GID |
                     REPLFS__SETATTR_OP__VALID__SIZE | REPLFS__SETATTR_OP__VALID__KILL_SUID))
        fsm_inode_strip(f, i, op->valid & REPLFS__SETATTR_OP__VALID__KILL_SUID);
    if ((op->valid & REPLFS__SETATTR_OP__VALID__KILL_SGID) && !S_ISDIR(i->mode))
        i->mode &= (uint16_t)~S_ISGID;
    if (op->valid & REPLFS__SETATTR_OP__VALID__MODE) {
        i->mode = (uint16_t)((i->mode & S_IFMT) | (op->mode & 07777));
        fsm_xattr_chmod(f, i);
    }
    if (op->valid & REPLFS__SETATTR_OP__VALID__UID)
        i->uid = op->uid;
    if (op->valid & REPLFS__SETATTR_OP__VALID__GID)
        i->gid = op->gid;
    if (op->valid & REPLFS__SETATTR_OP__VALID__SIZE) {
        if (op->size <= i->size) /* also what is reserved behind the end */
            fsm_file_cut(f, h, op->size);
        i->size = op->size;
        i->mtime = f->now;
    }
    if (op->valid & REPLFS__SETATTR_OP__VALID__ATIME_NOW)
        i->atime = f->now;
    else if (op->valid & REPLFS__SETATTR_OP__VALID__ATIME)
        i->atime = op->atime_ns;
    if (op->valid & REPLFS__SETATTR_OP__VALID__MTIME_NOW)
        i->mtime = f->now;
    else if (op->valid & REPLFS__SETATTR_OP__VALID__MTIME)
        i->mtime = op->mtime_ns;
    fsm_inode_touch(f, i, false);
    if (op->ctime_ns >= changed && fsm_time_ok(f, op->ctime_ns))
        i->ctime = op->ctime_ns; /* as the client has shown it since */
    res->ino = op->ino;
    return 0;
}

int fsm_readlink(struct fsm *f, uint64_t ino, const uint8_t **target, size_t *len)
{
    uint32_t h = fsm_inode_find(f, ino);
    if (!h)
        return -ENOENT;
    const struct fsm_inode *i = fsm_inode_at(f, h);
    if (!S_ISLNK(i->mode))
        return -EINVAL;
    *target = i->u.target;
    *len = i->size;
    return 0;
}

int fsm_extents(struct fsm *f, uint64_t ino, const struct extmap **out)
{
    uint32_t h = fsm_inode_find(f, ino);
    if (!h)
        return -ENOENT;
    const struct fsm_inode *i = fsm_inode_at(f, h);
    if (S_ISDIR(i->mode))
        return -EISDIR;
    if (!S_ISREG(i->mode))
        return -EINVAL;
    *out = &i->u.map;
    return 0;
}
