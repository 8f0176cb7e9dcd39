/* What a command would cost, before it is proposed.
 *
 * fsm_apply executes whatever the log holds, however long it takes: old logs must replay. So the
 * leader asks here first, and cuts or refuses what would take too long. Each question looks at a
 * bounded number of extents or entries itself; a small file or state is told from its count alone.
 * Between question and apply others may add to the cost, by no more than they have in the queue.
 *
 * Pure; fsm read lock held. */
#include "fsm_internal.h"
#include <stdlib.h>

uint64_t fsm_slice_end(struct fsm *f, uint64_t ino, uint64_t off, uint64_t end, uint32_t max)
{
    uint32_t h = fsm_inode_find(f, ino);
    struct ext e;

    if (!h || !S_ISREG(fsm_inode_at(f, h)->mode))
        return 0;
    const struct extmap *m = &fsm_inode_at(f, h)->u.map;
    if (extmap_count(m) <= max)
        return end;
    for (uint32_t n = 0; off < end && extmap_find(m, off, &e) && e.file_off < end; n++) {
        if (n == max)
            return e.file_off > off ? e.file_off : off;
        off = e.file_off + e.len;
    }
    return end;
}

bool fsm_over_is_long(struct fsm *f, const Replfs__CommitOp *op, uint32_t max)
{
    uint32_t h = fsm_inode_find(f, op->ino), n = 0;
    struct ext e;

    if (!h || !S_ISREG(fsm_inode_at(f, h)->mode))
        return false;
    const struct extmap *m = &fsm_inode_at(f, h)->u.map;
    if (extmap_count(m) * op->n_extents <= max)
        return false;
    for (size_t k = 0; k < op->n_extents; k++) {
        uint64_t off = op->extents[k]->file_off, end = off + op->extents[k]->len;
        for (; off < end && extmap_find(m, off, &e) && e.file_off < end; off = e.file_off + e.len)
            if (++n > max)
                return true;
    }
    return false;
}

/* Counts what is in a tree, up to max. */
static bool tree_is_long(const struct fsm *f, uint32_t h, uint32_t max)
{
    uint32_t *stack = fsm_xmalloc((max + 1ul) * sizeof(*stack)), d, seen = 0, n = 0;

    for (stack[n++] = h; n && seen <= max;) {
        h = stack[--n];
        struct fsm_opos pos = {0};
        while (seen <= max && (d = fsm_oset_next(&fsm_inode_at(f, h)->u.dir.entries, &pos))) {
            uint32_t c = fsm_dentry_at(f, d)->child;
            seen++;
            if (S_ISDIR(fsm_inode_at(f, c)->mode) && n <= max)
                stack[n++] = c;
        }
    }
    free(stack);
    return seen > max;
}

static bool entry_is_long(const struct fsm *f, uint32_t dir, const ProtobufCBinaryData *name,
                          uint32_t max)
{
    uint32_t d = fsm_dentry_find(f, dir, name->data, name->len);
    uint32_t h = d ? fsm_dentry_at(f, d)->child : 0;

    return h && S_ISDIR(fsm_inode_at(f, h)->mode) && tree_is_long(f, h, max);
}

bool fsm_move_is_long(struct fsm *f, const Replfs__RenameOp *op, uint32_t max)
{
    int code;

    if (op->parent == op->new_parent || f->inodes.count <= max)
        return false;
    uint32_t from = fsm_dir_find(f, op->parent, &code), to = fsm_dir_find(f, op->new_parent, &code);
    if (!from || !to || fsm_inode_at(f, from)->realm == fsm_inode_at(f, to)->realm)
        return false;
    return entry_is_long(f, from, &op->name, max) || entry_is_long(f, to, &op->new_name, max);
}
