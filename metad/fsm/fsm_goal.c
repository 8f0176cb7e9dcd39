/* Replication goals. A file's goal is part of the state and changes at once; its chunks' goals follow
 * from the files that reference them, and are not (a checkpoint does not hold them).
 *
 * So a command that sets goals visits no more than FSM_STEPS_MAX extents itself. A file with more
 * than is left of that is put on a list, and fsm_work brings its chunks' goals up to date in slices,
 * between other commands: the leader's threads call it for as long as something is listed. A file
 * whose goal changes while fsm_work is at it is done once more, after the others on the list.
 *
 * An inode that has the goal already costs nothing, however often a command names it.
 *
 * Failure modes: errno codes only. Thread context: fsm write lock. */
#include "fsm_internal.h"

#define OWNERS_PER_STEP 64u /* looking through a chunk's owners is cheap, and not free */

static uint64_t regoal_key(void *ctx, uint32_t h)
{
    return fsm_inode_at(ctx, h)->ino;
}

static struct fsm_oset_ops regoal_ops(struct fsm *f)
{
    return (struct fsm_oset_ops){regoal_key, f, &f->heap};
}

int fsm_goal(struct fsm *f, uint64_t ino)
{
    uint32_t h = fsm_inode_find(f, ino);
    return h ? (int)fsm_inode_at(f, h)->goal : -ENOENT;
}

/* Reserved extents count with the goal: their bytes in all. */
static uint64_t reserved_bytes(const struct extmap *m)
{
    uint64_t sum = 0;
    struct ext e;

    for (uint64_t off = 0; extmap_find(m, off, &e); off = e.file_off + e.len)
        sum += e.chunk ? 0 : e.len;
    return sum;
}

/* The chunk goals of h from *off on, for *steps extents. True: that was all. */
static bool follow(struct fsm *f, uint32_t h, uint64_t *off, uint32_t *steps)
{
    struct fsm_inode *i = fsm_inode_at(f, h);
    struct ext e;

    while (*steps && extmap_find(&i->u.map, *off, &e)) {
        uint32_t cost = 1;
        if (e.chunk) {
            struct fsm_chunk *c = fsm_chunk_find(f, e.chunk);
            cost += fsm_share_files(f, c) / OWNERS_PER_STEP;
            fsm_share_goal(f, c, i->goal);
        }
        *off = e.file_off + e.len;
        *steps -= cost < *steps ? cost : *steps;
    }
    return *steps > 0;
}

void fsm_file_set_goal(struct fsm *f, uint32_t h, uint8_t goal)
{
    struct fsm_inode *i = fsm_inode_at(f, h);
    unsigned was = i->goal;

    i->goal = goal & 15;
    if (!S_ISREG(i->mode) || was == goal)
        return;
    const struct extmap *m = &i->u.map;
    if (f->n.reserved) {
        uint64_t reserved = reserved_bytes(m);
        f->n.reserved += reserved * goal - reserved * was;
    }
    uint64_t off = 0;
    if (extmap_count(m) <= f->steps && follow(f, h, &off, &f->steps))
        return;
    struct fsm_oset_ops ops = regoal_ops(f);
    if (i->ino == f->regoal_ino)
        f->regoal_again = true;
    else
        (void)fsm_oset_insert(&f->regoal, &ops, h); /* or it is there */
}

void fsm_regoal_forget(struct fsm *f, uint32_t h)
{
    struct fsm_oset_ops ops = regoal_ops(f);

    if (!f->regoal.count)
        return;
    struct fsm_opos pos = fsm_oset_seek(&f->regoal, &ops, fsm_inode_at(f, h)->ino - 1);
    if (fsm_oset_next(&f->regoal, &pos) == h)
        fsm_oset_remove(&f->regoal, &ops, h);
}

/* The one under way, or the next on the list: its handle, 0: none. */
static uint32_t current(struct fsm *f)
{
    struct fsm_oset_ops ops = regoal_ops(f);
    struct fsm_opos pos = fsm_oset_seek(&f->regoal, &ops, f->regoal_ino ? f->regoal_ino - 1 : 0);
    uint32_t h = fsm_oset_next(&f->regoal, &pos);

    if (!h) {
        pos = fsm_oset_seek(&f->regoal, &ops, 0);
        h = fsm_oset_next(&f->regoal, &pos);
    }
    if (h && fsm_inode_at(f, h)->ino != f->regoal_ino) {
        f->regoal_ino = fsm_inode_at(f, h)->ino;
        f->regoal_off = 0;
        f->regoal_again = false;
    }
    return h;
}

bool fsm_work(struct fsm *f, uint32_t steps)
{
    struct fsm_oset_ops ops = regoal_ops(f);

    while (steps && f->regoal.count) {
        uint32_t h = current(f);
        if (!follow(f, h, &f->regoal_off, &steps))
            continue;
        if (!f->regoal_again)
            fsm_oset_remove(&f->regoal, &ops, h);
        f->regoal_ino++; /* the next one's turn */
        f->regoal_off = 0;
    }
    if (!f->regoal.count)
        f->regoal_ino = 0;
    return f->regoal.count > 0;
}

bool fsm_has_work(struct fsm *f)
{
    return f->regoal.count > 0;
}

/* Inodes that vanished meanwhile are passed over, unless none is left: a tree may be worked on
 * while its goal is being set. One inode that belongs to somebody else refuses the whole command.
 */
int fsm_op_set_goal(struct fsm *f, const Replfs__SetGoalOp *op, struct fsm_result *res)
{
    size_t found = 0;

    if (op->goal < 1 || op->goal > FSM_GOAL_MAX || op->n_ino == 0)
        return -EINVAL;
    for (size_t k = 0; k < op->n_ino; k++) {
        uint32_t h = fsm_inode_find(f, op->ino[k]);
        if (!h)
            continue;
        if (op->uid != 0 && fsm_inode_at(f, h)->uid != op->uid)
            return -EPERM;
        found++;
    }
    if (!found)
        return -ENOENT;
    for (size_t k = 0; k < op->n_ino; k++) {
        uint32_t h = fsm_inode_find(f, op->ino[k]);
        if (!h)
            continue;
        fsm_inode_touch(f, fsm_inode_at(f, h), false);
        fsm_file_set_goal(f, h, (uint8_t)op->goal);
    }
    if (op->n_ino == 1)
        res->ino = op->ino[0];
    return 0;
}
