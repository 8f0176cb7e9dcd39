/* rename(2) and renameat2(2): plain, RENAME_NOREPLACE and RENAME_EXCHANGE, each one atomic command.
 *
 * Checks come in the order of the Linux VFS: names and parents; existence (ENOENT, EEXIST);
 * ancestry (EINVAL when a directory would move into itself, ENOTEMPTY when the target contains the
 * source); same inode (nothing to do); kinds (ENOTDIR, EISDIR); emptiness. A replaced entry keeps
 * its cookie and gets the new inode.
 *
 * Between trees of different quotas files take their charge along: a file with several names is
 * EXDEV (it can be charged to one only), what does not fit is EDQUOT (fsm_quota.c).
 *
 * Failure modes: errno codes only. Thread context: fsm write lock. */
#include "fsm_internal.h"

enum { NOREPLACE = 1, EXCHANGE = 2 };

struct move {
    uint32_t from_dir, to_dir; /* inode handles */
    uint32_t from, to;         /* dentries; to is 0 when the name is free */
    uint32_t moved, other;     /* inode handles behind them */
};

static bool is_dir(const struct fsm *f, uint32_t h)
{
    return h && S_ISDIR(fsm_inode_at(f, h)->mode);
}

static int resolve(const struct fsm *f, const Replfs__RenameOp *op, struct move *m)
{
    int r;

    if ((op->flags & ~(uint32_t)(NOREPLACE | EXCHANGE)) || op->flags == (NOREPLACE | EXCHANGE))
        return -EINVAL;
    if (!(m->from_dir = fsm_dir_find(f, op->parent, &r)))
        return r;
    if (!(m->to_dir = fsm_dir_find(f, op->new_parent, &r)))
        return r;
    if ((r = fsm_name_check(op->name.data, op->name.len)))
        return r;
    if ((r = fsm_name_check(op->new_name.data, op->new_name.len)))
        return r;
    m->from = fsm_dentry_find(f, m->from_dir, op->name.data, op->name.len);
    if (!m->from)
        return -ENOENT;
    m->to = fsm_dentry_find(f, m->to_dir, op->new_name.data, op->new_name.len);
    if (m->to && (op->flags & NOREPLACE))
        return -EEXIST;
    if (!m->to && (op->flags & EXCHANGE))
        return -ENOENT;
    m->moved = fsm_dentry_at(f, m->from)->child;
    m->other = m->to ? fsm_dentry_at(f, m->to)->child : 0;
    return 0;
}

static int rename_check(const struct fsm *f, const struct move *m, bool exchange)
{
    if (is_dir(f, m->moved) && fsm_dir_is_within(f, m->to_dir, m->moved))
        return -EINVAL;
    if (is_dir(f, m->other) && fsm_dir_is_within(f, m->from_dir, m->other))
        return exchange ? -EINVAL : -ENOTEMPTY;
    if (exchange || !m->other || m->moved == m->other)
        return 0;
    if (is_dir(f, m->moved) && !is_dir(f, m->other))
        return -ENOTDIR;
    if (!is_dir(f, m->moved) && is_dir(f, m->other))
        return -EISDIR;
    if (is_dir(f, m->other) && fsm_inode_at(f, m->other)->u.dir.entries.count)
        return -ENOTEMPTY;
    return 0;
}

/* A directory changes its parent. */
static void reparent(struct fsm *f, uint32_t h, uint32_t from_dir, uint32_t to_dir)
{
    if (!is_dir(f, h))
        return;
    fsm_inode_at(f, from_dir)->u.dir.subdirs--;
    fsm_inode_at(f, to_dir)->u.dir.subdirs++;
    fsm_inode_at(f, h)->u.dir.parent = to_dir;
}

static void rename_replace(struct fsm *f, const struct move *m, const Replfs__RenameOp *op)
{
    if (m->to) {
        if (is_dir(f, m->other))
            fsm_inode_at(f, m->to_dir)->u.dir.subdirs--;
        fsm_dentry_at(f, m->to)->child = m->moved;
        fsm_inode_unname(f, m->other);
    } else {
        uint32_t d = fsm_dentry_add(f, m->to_dir, op->new_name.data, op->new_name.len, m->moved, 0);
        assert(d);
    }
    fsm_dentry_drop(f, m->from);
    reparent(f, m->moved, m->from_dir, m->to_dir);
}

int fsm_op_rename(struct fsm *f, const Replfs__RenameOp *op, struct fsm_result *res)
{
    struct move m = {0};
    bool exchange = op->flags & EXCHANGE;
    int r = resolve(f, op, &m);
    if (!r)
        r = rename_check(f, &m, exchange);
    if (r)
        return r;
    struct fsm_inode *moved = fsm_inode_at(f, m.moved);
    res->ino = moved->ino;
    res->parent = op->new_parent;
    res->value = op->tell && m.other ? fsm_inode_at(f, m.other)->ino : 0;
    if (m.moved == m.other)
        return 0; /* two names of one file: POSIX wants both kept */
    r = fsm_quota_move_check(f, m.moved, exchange ? m.other : 0, m.from_dir, m.to_dir);
    if (r)
        return r;
    fsm_quota_move(f, m.moved, m.from_dir, m.to_dir);
    if (exchange) {
        fsm_quota_move(f, m.other, m.to_dir, m.from_dir);
        fsm_dentry_at(f, m.from)->child = m.other;
        fsm_dentry_at(f, m.to)->child = m.moved;
        reparent(f, m.moved, m.from_dir, m.to_dir);
        reparent(f, m.other, m.to_dir, m.from_dir);
        fsm_inode_touch(f, fsm_inode_at(f, m.other), false);
    } else {
        rename_replace(f, &m, op);
    }
    fsm_inode_touch(f, moved, false);
    fsm_inode_touch(f, fsm_inode_at(f, m.from_dir), true);
    if (m.to_dir != m.from_dir)
        fsm_inode_touch(f, fsm_inode_at(f, m.to_dir), true);
    return 0;
}
