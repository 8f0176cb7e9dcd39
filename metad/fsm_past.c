/* Where the state comes from: the incarnations that made it, one for each start of metad.
 *
 * A metad logs a random number before it serves anybody; what is logged from there to the next such
 * number is of that incarnation. Two copies of a metad's directory that were both started have the
 * same past up to where the copy was made, and different incarnations from there on. So whoever
 * remembers an incarnation and a position in it can be told from the state alone to come from its
 * past (the incarnation is there, and lasted that long) or not: then this state is the older copy.
 *
 * The newest FSM_INCARNATIONS_MAX are kept, sorted by position. Failure modes: codes. Thread
 * context: fsm lock. */
#include "fsm_internal.h"
#include <stdlib.h>
#include <string.h>

static const struct fsm_incarnation *past_find(const struct fsm *f, uint64_t id)
{
    for (uint32_t k = f->npast; k-- > 0;)
        if (f->past[k].id == id)
            return &f->past[k];
    return NULL;
}

static void past_add(struct fsm *f, const struct fsm_incarnation *i)
{
    if (f->npast == FSM_INCARNATIONS_MAX) {
        memmove(&f->past[0], &f->past[1], (f->npast - 1) * sizeof *f->past);
        f->npast--;
    } else if (f->npast == f->past_cap) {
        uint32_t cap = f->past_cap ? 2 * f->past_cap : 8;
        f->past = fsm_xrealloc(f->past, cap * sizeof *f->past);
        f->heap += (cap - f->past_cap) * sizeof *f->past;
        f->past_cap = cap;
    }
    f->past[f->npast++] = *i;
}

int fsm_op_incarnation(struct fsm *f, uint64_t position, const Replfs__IncarnationOp *op)
{
    struct fsm_incarnation i = {op->incarnation, position, f->chunk_upto};

    if (!i.id)
        return -EINVAL;
    return fsm_past_load(f, &i) ? 0 : -EEXIST;
}

bool fsm_past_load(struct fsm *f, const struct fsm_incarnation *i)
{
    if (!i->id || past_find(f, i->id) || i->begin > f->applied ||
        (f->npast && i->begin <= f->past[f->npast - 1].begin))
        return false;
    past_add(f, i);
    return true;
}

void fsm_mark(struct fsm *f, struct fsm_mark *out)
{
    *out = (struct fsm_mark){f->npast ? f->past[f->npast - 1].id : 0, f->applied};
}

bool fsm_mark_known(struct fsm *f, const struct fsm_mark *m)
{
    if (!m->incarnation)
        return true;
    const struct fsm_incarnation *i = past_find(f, m->incarnation);
    if (!i) /* may be one of those that are not remembered any more */
        return f->npast == FSM_INCARNATIONS_MAX && m->position < f->past[0].begin;
    if (i == &f->past[f->npast - 1])
        return m->position <= f->applied;
    return m->position < i[1].begin;
}

size_t fsm_ancestors(struct fsm *f, uint64_t *out, size_t max)
{
    size_t n = 0;

    for (uint32_t k = f->npast; k-- > 1 && n < max;)
        out[n++] = f->past[k - 1].id;
    return n;
}

void fsm_past_fini(struct fsm *f)
{
    free(f->past);
}
