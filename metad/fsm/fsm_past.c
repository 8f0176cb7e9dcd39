/* Where the state comes from: the incarnations that made it, one for each start of metad.
 *
 * A metad logs a random number before it serves anybody; what is logged from there to the next such
 * number is of that incarnation. Two copies of a metad's directory that were both started have the
 * same past up to where the copy was made, and different incarnations from there on. So the one that
 * remembers an incarnation and a position in it can be told from the state alone to come from its
 * past (the incarnation is there, and lasted that long) or not: then this state is the older copy.
 *
 * Such another incarnation is a future of the common past that this state knows nothing of. Chunks
 * made there must not be taken for garbage of ours. They are told by their numbers: whatever was
 * given behind the fork is above the ids reserved there, less one block that may have been given
 * only in part; and by their writers: a session that was open at the fork may have gone on there,
 * with grants that it had before. Both are conservative: some garbage of our own is kept as well.
 *
 * A future is accepted when a person says that it is lost (RecoverOp), or when the metad that went
 * there knew that it was not right (astray: an older copy started by mistake). Until then this
 * state is behind.
 *
 * The newest FSM_INCARNATIONS_MAX incarnations and FSM_FUTURES_MAX futures are kept. Failure modes:
 * codes. Thread context: fsm lock. */
#include "fsm_internal.h"
#include <stdlib.h>
#include <string.h>

static const struct fsm_incarnation *past_find(const struct fsm *f, uint64_t id)
{
    for (uint32_t k = f->past.n; k-- > 0;)
        if (f->past.v[k].id == id)
            return &f->past.v[k];
    return NULL;
}

static void past_add(struct fsm *f, const struct fsm_incarnation *i)
{
    if (f->past.n == FSM_INCARNATIONS_MAX) {
        memmove(&f->past.v[0], &f->past.v[1], (f->past.n - 1) * sizeof(*f->past.v));
        f->past.n--;
    } else if (f->past.n == f->past.cap) {
        uint32_t cap = f->past.cap ? 2 * f->past.cap : 8;
        f->past.v = fsm_xrealloc(f->past.v, cap * sizeof(*f->past.v));
        f->heap += (cap - f->past.cap) * sizeof(*f->past.v);
        f->past.cap = cap;
    }
    f->past.v[f->past.n++] = *i;
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
        (f->past.n && i->begin <= f->past.v[f->past.n - 1].begin))
        return false;
    past_add(f, i);
    return true;
}

void fsm_mark(struct fsm *f, struct fsm_mark *out)
{
    *out = (struct fsm_mark){f->past.n ? f->past.v[f->past.n - 1].id : 0, f->applied};
}

bool fsm_mark_known(struct fsm *f, const struct fsm_mark *m)
{
    if (!m->incarnation)
        return true;
    const struct fsm_incarnation *i = past_find(f, m->incarnation);
    if (!i) /* may be one of those that are not remembered any more */
        return f->past.n == FSM_INCARNATIONS_MAX && m->position < f->past.v[0].begin;
    if (i == &f->past.v[f->past.n - 1])
        return m->position <= f->applied;
    return m->position < i[1].begin;
}

size_t fsm_ancestors(struct fsm *f, uint64_t *out, size_t max)
{
    size_t n = 0;

    for (uint32_t k = f->past.n; k-- > 1 && n < max;)
        out[n++] = f->past.v[k - 1].id;
    return n;
}

/* ---- other futures ---- */

static struct fsm_future *future_find(struct fsm *f, uint64_t incarnation)
{
    for (uint32_t k = 0; k < f->past.nfutures; k++)
        if (f->past.futures[k].incarnation == incarnation)
            return &f->past.futures[k];
    return NULL;
}

bool fsm_future_at(struct fsm *f, uint32_t i, struct fsm_future *out)
{
    if (i >= f->past.nfutures)
        return false;
    *out = f->past.futures[i];
    return true;
}

bool fsm_behind(struct fsm *f)
{
    return f->past.nbehind > 0;
}

bool fsm_future_known(struct fsm *f, const struct fsm_mark *m)
{
    return future_find(f, m->incarnation) != NULL;
}

/* The first id that may have been given behind the fork. */
static uint64_t fork_from(const struct fsm *f, const Replfs__FutureOp *op)
{
    const struct fsm_incarnation *i = past_find(f, op->incarnation), *end;

    for (size_t k = 0; !i && k < op->n_before; k++)
        i = past_find(f, op->before[k]);
    if (!i)
        return 0; /* no common past in sight */
    end = &f->past.v[f->past.n - 1];
    uint64_t reserved = i == end ? f->chunk_upto : i[1].chunk_from;
    return reserved > FSM_IDS_BLOCK ? reserved - FSM_IDS_BLOCK : 0;
}

/* Joins what overlaps or touches; when there are too many, the gap before the last goes too. */
static void foreign_add(struct fsm *f, struct fsm_foreign r)
{
    struct fsm_foreign *v = f->past.foreign;
    uint32_t k = 0;

    while (k < f->past.nforeign) {
        if (v[k].from > r.to || v[k].to < r.from) {
            k++;
            continue;
        }
        r.from = v[k].from < r.from ? v[k].from : r.from;
        r.to = v[k].to > r.to ? v[k].to : r.to;
        v[k] = v[--f->past.nforeign];
        k = 0;
    }
    if (f->past.nforeign < FSM_FUTURES_MAX) {
        v[f->past.nforeign++] = r;
        return;
    }
    struct fsm_foreign *last = &v[FSM_FUTURES_MAX - 1];
    last->from = last->from < r.from ? last->from : r.from;
    last->to = last->to > r.to ? last->to : r.to;
}

void fsm_past_gap(struct fsm *f, uint64_t to)
{
    uint64_t from = f->past.n ? f->past.v[f->past.n - 1].chunk_from : f->chunk_upto;

    foreign_add(f, (struct fsm_foreign){from, to});
}

static uint32_t doubt_pos(const struct fsm *f, uint64_t session)
{
    uint32_t lo = 0, hi = f->past.ndoubt;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (f->past.doubt[mid] < session)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool fsm_doubt_load(struct fsm *f, uint64_t session)
{
    struct fsm_past *p = &f->past;
    uint32_t at = doubt_pos(f, session);

    if (!session || (at < p->ndoubt && p->doubt[at] == session))
        return false;
    if (p->ndoubt == p->doubt_cap) {
        uint32_t cap = p->doubt_cap ? 2 * p->doubt_cap : 16;
        p->doubt = fsm_xrealloc(p->doubt, cap * sizeof(*p->doubt));
        f->heap += (cap - p->doubt_cap) * sizeof(*p->doubt);
        p->doubt_cap = cap;
    }
    memmove(&p->doubt[at + 1], &p->doubt[at], (p->ndoubt - at) * sizeof(*p->doubt));
    p->doubt[at] = session;
    p->ndoubt++;
    return true;
}

static bool future_add(struct fsm *f, const struct fsm_future *u)
{
    struct fsm_past *p = &f->past;

    for (uint32_t k = 0; p->nfutures == FSM_FUTURES_MAX && k < p->nfutures; k++)
        if (p->futures[k].accepted) { /* told of once more, it is accepted once more */
            memmove(&p->futures[k], &p->futures[k + 1],
                    (p->nfutures - k - 1) * sizeof(*p->futures));
            p->nfutures--;
        }
    if (p->nfutures == FSM_FUTURES_MAX)
        return false;
    p->futures[p->nfutures++] = *u;
    p->nbehind += !u->accepted;
    return true;
}

int fsm_op_future(struct fsm *f, const Replfs__FutureOp *op)
{
    struct fsm_mark m = {op->incarnation, op->position};
    struct fsm_future u = {op->incarnation, op->position, f->now, op->astray};

    if (!m.incarnation)
        return -EINVAL;
    if (fsm_mark_known(f, &m) || fsm_future_known(f, &m))
        return 0; /* told by two chunkds at once */
    /* Only more of what is lost already, unless it may have left our own past elsewhere. */
    bool ours = past_find(f, op->incarnation);
    for (size_t k = 0; k < op->n_before && !ours && !u.accepted; k++) {
        const struct fsm_future *former = future_find(f, op->before[k]);
        ours = past_find(f, op->before[k]);
        u.accepted = !ours && former && former->accepted;
    }
    if (!future_add(f, &u))
        return -ENOSPC;
    uint64_t to = op->chunk_upto > f->chunk_upto ? op->chunk_upto : f->chunk_upto;
    foreign_add(f, (struct fsm_foreign){fork_from(f, op), to});
    for (uint32_t k = 0; k < f->nsessions; k++)
        fsm_doubt_load(f, f->sessions[k]->id);
    return 0;
}

int fsm_op_recover(struct fsm *f)
{
    for (uint32_t k = 0; k < f->past.nfutures; k++)
        f->past.futures[k].accepted = true;
    f->past.nbehind = 0;
    return 0;
}

bool fsm_chunk_foreign(struct fsm *f, uint64_t chunk, uint64_t session)
{
    const struct fsm_past *p = &f->past;

    for (uint32_t k = 0; k < p->nforeign; k++)
        if (chunk >= p->foreign[k].from && chunk < p->foreign[k].to)
            return true;
    uint32_t at = doubt_pos(f, session);
    return at < p->ndoubt && p->doubt[at] == session;
}

bool fsm_future_load(struct fsm *f, const struct fsm_future *u)
{
    return u->incarnation && !future_find(f, u->incarnation) && future_add(f, u);
}

bool fsm_foreign_load(struct fsm *f, uint64_t from, uint64_t to)
{
    if (from >= to || f->past.nforeign == FSM_FUTURES_MAX)
        return false;
    f->past.foreign[f->past.nforeign++] = (struct fsm_foreign){from, to};
    return true;
}

void fsm_past_fini(struct fsm *f)
{
    free(f->past.v);
    free(f->past.doubt);
}
