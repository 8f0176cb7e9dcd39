/* Clones: a range of one file becomes the same bytes as a range of another (or of itself), by
 * sharing extents. No bytes move.
 *
 * A command shares at most CLONE_RUNS_MAX stretches and stops short of the next; `value` of the
 * result says how many bytes it did, so the caller goes on from there. What counts is not the
 * extents but the runs of them that continue each other: whether a map holds neighbours joined
 * depends on its history, which differs between a state that was loaded and one that was replayed.
 *
 * The range ends where src ends. Holes become holes; so do reserved ranges: only bytes are shared,
 * not reservations. All extents are pinned for dst before its former ones go, which may be the
 * last that hold the same chunk. Thread context: fsm lock. */
#include "fsm_internal.h"
#include <stdlib.h>

#define CLONE_RUNS_MAX 4096u

struct run {
    uint64_t off, len; /* of the file */
    uint64_t chunk;
    uint32_t chunk_off;
};

/* What is left of e in [off, end). */
static struct run clip(const struct ext *e, uint64_t off, uint64_t end)
{
    uint64_t from = e->file_off > off ? e->file_off : off;
    uint64_t to = e->file_off + e->len < end ? e->file_off + e->len : end;

    return (struct run){from, to - from, e->chunk,
                        e->chunk ? e->chunk_off + (uint32_t)(from - e->file_off) : 0};
}

/* The first run of extents in [off, end). */
static bool next_run(const struct extmap *m, uint64_t off, uint64_t end, struct run *out)
{
    struct ext e;

    if (off >= end || !extmap_find(m, off, &e) || e.file_off >= end)
        return false;
    *out = clip(&e, off, end);
    while (extmap_find(m, out->off + out->len, &e)) {
        uint64_t at = out->off + out->len;
        if (at >= end || e.file_off != at || e.chunk != out->chunk ||
            (e.chunk && e.chunk_off != out->chunk_off + out->len))
            break;
        out->len += clip(&e, at, end).len;
    }
    return true;
}

static int find_file(const struct fsm *f, uint64_t ino, uint32_t *h)
{
    *h = fsm_inode_find(f, ino);
    if (!*h)
        return -ENOENT;
    uint16_t mode = fsm_inode_at(f, *h)->mode;
    if (S_ISREG(mode))
        return 0;
    return S_ISDIR(mode) ? -EISDIR : -EINVAL;
}

/* How many bytes there are to clone; 0: none, or -errno. */
static int64_t clone_check(const struct fsm *f, const Replfs__CloneOp *op, uint32_t *src,
                           uint32_t *dst)
{
    int r = find_file(f, op->src, src);
    if (!r)
        r = find_file(f, op->dst, dst);
    if (r)
        return r;
    uint64_t size = fsm_inode_at(f, *src)->size, len = op->len;
    if (op->src_off >= size)
        return 0;
    if (len > size - op->src_off)
        len = size - op->src_off;
    if (op->dst_off > FSM_SIZE_MAX || len > FSM_SIZE_MAX - op->dst_off)
        return -EFBIG;
    if (*src == *dst && op->src_off < op->dst_off + len && op->dst_off < op->src_off + len)
        return -EINVAL;
    return (int64_t)len;
}

/* Fills list with the bytes of [op->src_off, + *len) as extents of dst; shortens *len when there
 * are more than fit. */
static size_t collect(const struct extmap *m, const Replfs__CloneOp *op, uint64_t *len,
                      struct ext *list)
{
    uint64_t end = op->src_off + *len;
    size_t n = 0;
    struct run r;

    for (unsigned runs = 0; next_run(m, runs ? r.off + r.len : op->src_off, end, &r); runs++) {
        if (runs == CLONE_RUNS_MAX) {
            *len = r.off - op->src_off;
            break;
        }
        if (r.chunk)
            list[n++] = (struct ext){op->dst_off + (r.off - op->src_off), r.chunk, r.chunk_off,
                                     (uint32_t)r.len};
    }
    return n;
}

/* 0, or -EDQUOT when the n extents of list are too many more bytes than dst has in [off, end). */
static int clone_room(const struct fsm *f, const struct fsm_inode *dst, const struct ext *list,
                      size_t n, uint64_t off, uint64_t end)
{
    if (!dst->realm)
        return 0;
    uint64_t more = 0, less = end - off - fsm_file_holes(dst, off, end);
    for (size_t k = 0; k < n; k++)
        more += list[k].len;
    return fsm_quota_room(f, dst, more > less ? more - less : 0, 0);
}

int fsm_op_clone(struct fsm *f, const Replfs__CloneOp *op, struct fsm_result *res)
{
    uint32_t src, dst;
    int64_t r = clone_check(f, op, &src, &dst);

    res->ino = op->dst;
    if (r <= 0)
        return (int)r;
    uint64_t len = (uint64_t)r;
    const struct extmap *m = &fsm_inode_at(f, src)->u.map;
    size_t count = extmap_count(m);
    struct ext *list =
        fsm_xcalloc((count < CLONE_RUNS_MAX ? count : CLONE_RUNS_MAX) + 1, sizeof(*list));
    size_t n = collect(m, op, &len, list);
    r = clone_room(f, fsm_inode_at(f, dst), list, n, op->dst_off, op->dst_off + len);
    if (r) {
        free(list);
        return (int)r;
    }
    for (size_t k = 0; k < n; k++)
        fsm_file_pin(f, dst, &list[k]);
    fsm_file_punch(f, dst, op->dst_off, len);
    for (size_t k = 0; k < n; k++)
        fsm_file_put(f, dst, &list[k]);
    free(list);
    struct fsm_inode *i = fsm_inode_at(f, dst);
    if (i->size < op->dst_off + len)
        i->size = op->dst_off + len;
    fsm_inode_strip(f, i, op->kill_suid);
    fsm_inode_touch(f, i, true);
    res->value = len;
    return 0;
}
