/* fallocate(2): reserved ranges, holes, zeros.
 *
 * A reserved range is extents of chunk 0: they have no bytes anywhere, read as zeros, count in the
 * file's st_blocks, may lie behind its end (KEEP_SIZE), and give way to whatever is written there.
 * They keep no space on any disk: the leader refuses a reservation that free space could not hold,
 * with what else is reserved (n.reserved), and after that it is a promise like any free space.
 *
 * One command puts in at most RESERVE_PIECES_MAX of them and covers at most so many GiB; `value`
 * of the result says how far it came, so the caller goes on from there. Holes do not depend on how
 * a map's extents are joined, so neither does where it stops. Thread context: fsm lock. */
#include "fsm_internal.h"

#define RESERVE_PIECES_MAX 4096u

enum { KEEP_SIZE = 1, PUNCH_HOLE = 2, ZERO_RANGE = 16 };

static int fallocate_check(const struct fsm *f, const Replfs__FallocateOp *op, uint32_t *h)
{
    *h = fsm_inode_find(f, op->ino);
    if (!*h)
        return -ENOENT;
    uint16_t mode = fsm_inode_at(f, *h)->mode;
    if (!S_ISREG(mode))
        return S_ISDIR(mode) ? -EISDIR : -ENODEV;
    if (op->len == 0)
        return -EINVAL;
    if (op->off > FSM_SIZE_MAX || op->len > FSM_SIZE_MAX - op->off)
        return -EFBIG;
    switch (op->mode) {
    case 0:
    case KEEP_SIZE:
    case PUNCH_HOLE | KEEP_SIZE:
    case ZERO_RANGE:
    case ZERO_RANGE | KEEP_SIZE:
        return 0;
    default:
        return -EOPNOTSUPP;
    }
}

/* The first hole of [*from, end): its start and end. */
static bool next_hole(const struct extmap *m, uint64_t *from, uint64_t *to, uint64_t end)
{
    struct ext e;

    while (*from < end) {
        bool have = extmap_find(m, *from, &e) && e.file_off < end;
        if (!have || e.file_off > *from) {
            *to = have ? e.file_off : end;
            return true;
        }
        *from = e.file_off + e.len;
    }
    return false;
}

/* Fills the holes of [off, end). Returns how far it came. */
static uint64_t fallocate_reserve(struct fsm *f, uint32_t h, uint64_t off, uint64_t end)
{
    const struct extmap *m = &fsm_inode_at(f, h)->u.map;
    uint64_t to;

    for (unsigned k = 0; next_hole(m, &off, &to, end); k++) {
        if (k == RESERVE_PIECES_MAX)
            return off;
        struct ext e = {.file_off = off, .len = EXTMAP_RESERVED_MAX};
        if (e.len > to - off)
            e.len = (uint32_t)(to - off);
        fsm_file_pin(f, h, &e);
        fsm_file_put(f, h, &e);
        off += e.len;
    }
    return end;
}

/* Behind the end of the file there is nothing to see, but it counts as a change: as on ext4. */
static void punch(struct fsm *f, uint32_t h, const Replfs__FallocateOp *op)
{
    struct fsm_inode *i = fsm_inode_at(f, h);

    fsm_file_punch(f, h, op->off, op->len);
    if (op->part)
        return;
    fsm_inode_strip(f, i, op->kill_suid);
    fsm_inode_touch(f, i, true);
}

int fsm_op_fallocate(struct fsm *f, const Replfs__FallocateOp *op, struct fsm_result *res)
{
    uint32_t h;
    int r = fallocate_check(f, op, &h);

    if (r)
        return r;
    res->ino = op->ino;
    res->value = op->len;
    if (op->mode & PUNCH_HOLE) {
        punch(f, h, op);
        return 0;
    }
    uint64_t most = (uint64_t)RESERVE_PIECES_MAX * EXTMAP_RESERVED_MAX;
    uint64_t end = op->off + (op->len < most ? op->len : most);
    struct fsm_inode *i = fsm_inode_at(f, h);
    if (i->realm && (r = fsm_quota_room(f, i, fsm_file_holes(i, op->off, end), 0)))
        return r;
    if (op->mode & ZERO_RANGE)
        fsm_file_punch(f, h, op->off, end - op->off);
    end = fallocate_reserve(f, h, op->off, end);
    if (!(op->mode & KEEP_SIZE) && i->size < end)
        i->size = end;
    fsm_inode_strip(f, i, op->kill_suid);
    fsm_inode_touch(f, i, true);
    res->value = end - op->off;
    return 0;
}

int fsm_holes(struct fsm *f, uint64_t ino, uint64_t off, uint64_t len, uint64_t *out)
{
    const struct extmap *m;
    int r = fsm_extents(f, ino, &m);

    if (r == 0)
        *out = fsm_file_holes(fsm_inode_at(f, fsm_inode_find(f, ino)), off,
                              len < UINT64_MAX - off ? off + len : UINT64_MAX);
    return r;
}
