/* Compaction: files that show bytes of a chunk which is mostly dead show an equal copy of them instead, in a chunk that
 * the leader had made of its live ranges.
 *
 * The copy can be equal whenever it was made, since bytes of a chunk never change. So nothing has to have stayed as it was
 * when the leader looked: each part of the command takes effect where the file still shows just those bytes of the old
 * chunk, and nowhere else. What was overwritten, cut or removed meanwhile stays so; what was cloned meanwhile, or is not
 * named in the command, keeps the old chunk alive. A chunk's parts come in many commands, each of which is whole by
 * itself: stopped between two, both chunks are in use.
 *
 * What files hold stays the same, so neither their times nor `change` move, and no lease stands in the way: a client
 * that still goes by the former map reads the same bytes until the old chunk is gone from the chunkds, and then asks
 * for the map again.
 *
 * Chunk `to` comes into being with the first part that takes effect, and its writer is no session: nobody can commit more
 * of it. Failure modes: codes; out of memory aborts. Thread context: fsm lock. */
#include "fsm_internal.h"
#include <stdlib.h>

struct found { /* extents of the new chunk, of one file */
    uint32_t file;
    struct ext e;
};
struct founds {
    struct found *v;
    size_t n, cap;
};

static void founds_add(struct founds *x, uint32_t file, const struct ext *e)
{
    if (x->n == x->cap) {
        x->cap = x->cap ? 2 * x->cap : 64;
        x->v = fsm_xrealloc(x->v, x->cap * sizeof(*x->v));
    }
    x->v[x->n++] = (struct found){file, *e};
}

static bool part_is_valid(const Replfs__CompactedPart *p)
{
    return p->len >= 1 && p->len <= FSM_CHUNK_MAX && p->chunk_off <= FSM_CHUNK_MAX - p->len &&
           p->to_off <= FSM_CHUNK_MAX - p->len && p->file_off <= FSM_SIZE_MAX - p->len;
}

static int compact_check(struct fsm *f, const Replfs__CompactOp *op)
{
    uint64_t sum = 0;

    if (!op->chunk || !op->to || op->chunk == op->to || op->to >= f->chunk_upto || !op->writer ||
        op->n_parts > FSM_COMPACT_MAX)
        return -EINVAL;
    for (size_t k = 0; k < op->n_parts; k++) {
        if (!part_is_valid(op->parts[k]))
            return -EINVAL;
        sum += op->parts[k]->len;
    }
    if (sum > FSM_CHUNK_MAX)
        return -EINVAL;
    const struct fsm_chunk *to = fsm_chunk_find(f, op->to);
    if (to && to->session != op->writer)
        return -EPERM; /* somebody else's */
    return fsm_chunk_find(f, op->chunk) ? 0 : -ENOENT;
}

/* Where the file still shows what the part is a copy of. */
static void part_collect(const struct fsm *f, const Replfs__CompactOp *op,
                         const Replfs__CompactedPart *p, struct founds *x)
{
    uint32_t h = fsm_inode_find(f, p->ino);
    uint64_t pos = p->file_off, end = pos + p->len;
    struct ext old;

    if (!h || !S_ISREG(fsm_inode_at(f, h)->mode))
        return;
    while (pos < end && extmap_find(&fsm_inode_at(f, h)->u.map, pos, &old) && old.file_off < end) {
        uint64_t from = old.file_off > pos ? old.file_off : pos;
        uint64_t to = old.file_off + old.len < end ? old.file_off + old.len : end;
        uint32_t at = (uint32_t)(from - p->file_off);
        if (old.chunk == op->chunk && old.chunk_off + (from - old.file_off) == p->chunk_off + at)
            founds_add(x, h, &(struct ext){from, op->to, p->to_off + at, (uint32_t)(to - from)});
        pos = to;
    }
}

/* Counts one extent before it is in the map. */
static void found_pin(struct fsm *f, const Replfs__CompactOp *op, const struct found *x)
{
    struct fsm_chunk *c = fsm_chunk_find(f, op->to);

    if (!c)
        c = fsm_chunk_at(f, fsm_chunk_new(f, op->to, op->writer));
    fsm_file_pin(f, x->file, &x->e);
    if (c->len < x->e.chunk_off + x->e.len) {
        c->len = x->e.chunk_off + x->e.len;
        fsm_chunk_changed(f, c, true);
    }
}

int fsm_op_compact(struct fsm *f, const Replfs__CompactOp *op, struct fsm_result *res)
{
    struct founds x = {0};
    int rc = compact_check(f, op);

    for (size_t k = 0; !rc && k < op->n_parts; k++)
        part_collect(f, op, op->parts[k], &x);
    for (size_t k = 0; k < x.n; k++)
        found_pin(f, op, &x.v[k]);
    for (size_t k = 0; k < x.n; k++) {
        fsm_file_put(f, x.v[k].file, &x.v[k].e);
        res->value += x.v[k].e.len;
    }
    free(x.v);
    return rc;
}
