/* No command of a client takes the log thread for long, whatever it names: "long" is what stops the
 * others, and comes again at each start, when it is replayed. What a request asks for too much of is
 * cut, where the protocol lets the client go on from there (clone, fallocate), or split into several
 * commands (truncate), or refused with a code that the client can live with:
 *
 *   SetGoal of very many inodes, or of one twice           EINVAL  replfsctl asks for less at a time
 *   rename of a large tree from one quota to another       EXDEV   mv copies
 *   attributes that a quota has no room for                EDQUOT  (apply does not ask: fsm_quota.c)
 *   commit of a copy over very many extents                EINVAL  the copy is given up
 *
 * What is not bounded here: setting or removing a quota walks its tree (root only, once each).
 *
 * Threads: any; the fsm's read lock is taken, in short pieces. */
#include "service_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "metaop.h"

#define SLICE_EXTENTS 16384u /* of a file, that one command may cut away */
#define OVER_EXTENTS 262144u
#define MOVE_INODES 50000u
#define GOAL_INODES 1000u

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int weigh_goal(const Replfs__SetGoalOp *op)
{
    uint64_t v[GOAL_INODES];

    if (op->n_ino < 2)
        return 0;
    assert(op->n_ino <= GOAL_INODES); /* service_is_too_wide */
    memcpy(v, op->ino, op->n_ino * sizeof(v[0]));
    qsort(v, op->n_ino, sizeof(v[0]), by_number);
    for (size_t i = 1; i < op->n_ino; i++)
        if (v[i] == v[i - 1])
            return EINVAL;
    return 0;
}

bool service_is_too_wide(const Replfs__MetaOp *op)
{
    return op->op_case == REPLFS__META_OP__OP_SET_GOAL && op->set_goal->n_ino > GOAL_INODES;
}

int service_weigh(struct service *s, const Replfs__MetaOp *op)
{
    bool is_long = false;

    switch (metaop_weight(metaop_of(op))) {
    case METAOP_WEIGHT_INODES:
        return weigh_goal(op->set_goal);
    case METAOP_WEIGHT_OVER:
        if (op->commit->over == 0)
            return 0;
        fsm_rdlock(s->cfg.fsm);
        is_long = fsm_over_is_long(s->cfg.fsm, op->commit, OVER_EXTENTS);
        fsm_unlock(s->cfg.fsm);
        return is_long ? EINVAL : 0;
    case METAOP_WEIGHT_MOVE:
        if (op->rename->parent == op->rename->new_parent)
            return 0;
        fsm_rdlock(s->cfg.fsm);
        is_long = fsm_move_is_long(s->cfg.fsm, op->rename, MOVE_INODES);
        fsm_unlock(s->cfg.fsm);
        return is_long ? EXDEV : 0;
    case METAOP_WEIGHT_ATTRS:
        if (!fsm_has_quotas(s->cfg.fsm))
            return 0;
        fsm_rdlock(s->cfg.fsm);
        int rc = fsm_quota_attrs_fit(s->cfg.fsm, op);
        fsm_unlock(s->cfg.fsm);
        return -rc;
    case METAOP_WEIGHT_NONE:
        break;
    }
    return 0;
}

uint64_t service_cut_len(struct service *s, uint64_t ino, uint64_t off, uint64_t len)
{
    uint64_t end = len < UINT64_MAX - off ? off + len : UINT64_MAX;

    fsm_rdlock(s->cfg.fsm);
    uint64_t to = fsm_slice_end(s->cfg.fsm, ino, off, end, SLICE_EXTENTS);
    fsm_unlock(s->cfg.fsm);
    return to > off && to < end ? to - off : len;
}

/* Holes ahead of the truncation, each of the same number: none is made when that has been done
 * already, and this is the same request once more. */
void service_truncate_ahead(struct service *s, uint64_t session, uint64_t seq,
                            const Replfs__SetattrOp *op)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp meta = REPLFS__META_OP__INIT;
    Replfs__FallocateOp hole = REPLFS__FALLOCATE_OP__INIT;

    if (!(op->valid & REPLFS__SETATTR_OP__VALID__SIZE))
        return;
    hole.ino = op->ino;
    hole.mode = 3; /* FALLOC_FL_PUNCH_HOLE with KEEP_SIZE */
    hole.part = true;
    meta.op_case = REPLFS__META_OP__OP_FALLOCATE;
    meta.fallocate = &hole;
    cmd.session = session;
    cmd.seq = seq;
    cmd.op = &meta;
    for (uint64_t off = op->size;;) {
        fsm_rdlock(s->cfg.fsm);
        uint64_t to = fsm_slice_end(s->cfg.fsm, op->ino, off, INT64_MAX, SLICE_EXTENTS);
        fsm_unlock(s->cfg.fsm);
        if (to <= off || to >= INT64_MAX)
            return; /* the rest goes with the truncation itself */
        hole.off = off;
        hole.len = to - off;
        cmd.time_ns = 0;
        service_propose(s, &cmd, NULL, NULL, NULL);
        off = to;
    }
}
