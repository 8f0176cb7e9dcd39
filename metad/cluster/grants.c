/* What metad granted to sessions, and what they have given up: the leader's knowledge of chunks that no
 * file uses yet.
 *
 * A grant (chunk, session, chunkds) is noted when it is told, and forgotten when the session gives
 * the chunk up or ends. A commit may bring a chunk into being only when it is a grant of its
 * session: noted here, or, when metad has started since, proven by the capability to append that came
 * with the grant. The leader decides this before it logs the commit (CommitOp.checked, .own), so
 * that all metads apply the same. And a copy that a commit tells of is believed at once only on a
 * chunkd of the grant; elsewhere it is doubtful until the chunkd itself has named it.
 *
 * Of a session that lapsed only the floors are kept: should it come back, capabilities prove its grants,
 * and its copies are doubtful.
 *
 * Keepalives say which chunks a session still holds (struct floor). What it does not hold and no
 * file uses is garbage, but that word travels beside the log: commits of those chunks may still
 * be in the log's queue, for as long as its disk hangs. So a floor takes effect in two steps. From
 * the moment it is told, commits of what was given up are refused before they are proposed. Chunks
 * are garbage only behind a barrier: a command proposed after the floor was told has been applied,
 * and hence everything that was proposed before it. Commits between the look at the floor and their
 * place in the queue are counted, in two turns; a barrier waits until those of its own turn are
 * proposed. It is proposed only when there is garbage to decide on: an idle cluster's log stays
 * idle.
 *
 *   NONE -> DRAIN (the turn changes) -> SENT (the last turn's commits are in the queue) -> NONE
 *
 * Failure modes: a barrier that the log could not take is tried again. All of this is soft: after a
 * new start sessions tell their floors again. Locks: nodes.mu. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/compare.h"
#include "nodes_internal.h"

#define LOG_MODULE "nodes"
#define GRANTS_KEPT 65536u /* of one session; older ones need their capability */

static struct session_grants *grants_find(const struct nodes *n, uint64_t session)
{
    uint64_t i;
    return u64map_get(&n->grant_index, session, &i) ? &n->grants[i] : NULL;
}

static struct session_grants *find_or_add(struct nodes *n, uint64_t session)
{
    struct session_grants *g = grants_find(n, session);
    if (g)
        return g;
    n->grants = realloc(n->grants, (n->ngrants + 1) * sizeof(*n->grants));
    if (!n->grants)
        abort();
    u64map_put(&n->grant_index, session, n->ngrants);
    g = &n->grants[n->ngrants++];
    *g = (struct session_grants){.session = session};
    return g;
}

static void free_one(struct session_grants *g)
{
    free(g->told.held);
    free(g->sure.held);
    free(g->v);
}

void grants_session_gone(struct nodes *n, uint64_t session)
{
    lock_assert_held(&n->mu);
    uint64_t i;
    if (!u64map_get(&n->grant_index, session, &i))
        return;
    u64map_del(&n->grant_index, session);
    free_one(&n->grants[i]);
    if (i != --n->ngrants) {
        n->grants[i] = n->grants[n->ngrants];
        u64map_put(&n->grant_index, n->grants[i].session, i);
    }
}

void grants_session_lapsed(struct nodes *n, uint64_t session)
{
    lock_assert_held(&n->mu);
    struct session_grants *g = grants_find(n, session);
    if (!g)
        return;
    free(g->v);
    g->v = NULL;
    g->n = g->cap = 0;
}

void grants_free(struct nodes *n)
{
    for (uint32_t i = 0; i < n->ngrants; i++)
        free_one(&n->grants[i]);
    free(n->grants);
    n->grants = NULL;
    n->ngrants = 0;
    u64map_free(&n->grant_index);
}

void grants_forget(struct nodes *n)
{
    lock_assert_held(&n->mu);
    assert(!n->proposing[0] && !n->proposing[1] && n->barrier != BARRIER_SENT);
    grants_free(n);
    n->barrier = BARRIER_NONE;
    n->want_barrier = false;
}

/* ---- floors ---- */

static bool below(const struct floor *f, uint64_t chunk)
{
    return chunk < f->oldest ||
           (chunk <= f->newest && !bsearch(&chunk, f->held, f->nheld, sizeof(chunk), compare_u64));
}

/* What a session gave up stays given up, so an older message that overtook a newer one says nothing
 * wrong, only less. */
static void floor_raise(struct floor *f, uint64_t oldest, uint64_t newest, const uint64_t *held,
                        size_t nheld)
{
    if (oldest > f->oldest)
        f->oldest = oldest;
    if (newest < f->newest || !newest)
        return;
    for (size_t i = 1; i < nheld; i++)
        if (held[i] <= held[i - 1])
            return; /* a client that cannot count loses nothing but space */
    uint64_t *copy = malloc((nheld + 1) * sizeof(*copy));
    if (!copy)
        abort();
    if (nheld)
        memcpy(copy, held, nheld * sizeof(*copy));
    free(f->held);
    f->held = copy;
    f->nheld = nheld;
    f->newest = newest;
}

static void forget_below(struct session_grants *g)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < g->n; i++)
        if (!below(&g->told, g->v[i].chunk))
            g->v[kept++] = g->v[i];
    g->n = kept;
}

void nodes_held_grants(struct nodes *n, uint64_t session, uint64_t oldest, uint64_t newest,
                       const uint64_t *held, size_t nheld)
{
    LOCK_SCOPE(&n->mu);
    if (!session)
        return;
    struct session_grants *g = find_or_add(n, session);
    floor_raise(&g->told, oldest, newest, held, nheld);
    g->told_at = ++n->floors_told;
    forget_below(g);
}

void nodes_oldest_grant(struct nodes *n, uint64_t session, uint64_t oldest)
{
    nodes_held_grants(n, session, oldest, 0, NULL, 0);
}

bool grants_given_up(struct nodes *n, uint64_t session, uint64_t chunk)
{
    lock_assert_held(&n->mu);
    const struct session_grants *g = grants_find(n, session);
    if (!g)
        return false;
    if (below(&g->sure, chunk))
        return true;
    n->want_barrier |= below(&g->told, chunk);
    return false;
}

/* ---- the barrier ---- */

/* Log thread; the fsm write lock is held when code is 0. */
static void barrier_applied(void *arg, int code, const struct fsm_result *res)
{
    struct nodes *n = arg;
    (void)res;
    LOCK_SCOPE(&n->mu);
    n->barrier = BARRIER_NONE;
    for (uint32_t i = 0; i < n->ngrants && !code; i++) {
        struct session_grants *g = &n->grants[i];
        if (g->told_at <= n->barrier_at)
            floor_raise(&g->sure, g->told.oldest, g->told.newest, g->told.held, g->told.nheld);
    }
}

static void barrier_after(void *arg)
{
    nodes_proposed(arg);
}

static bool barrier_due(struct nodes *n)
{
    LOCK_SCOPE(&n->mu);
    if (n->barrier == BARRIER_NONE && n->want_barrier) {
        n->want_barrier = false;
        n->barrier = BARRIER_DRAIN;
        n->barrier_at = n->floors_told;
        n->turn ^= 1;
    }
    if (n->barrier != BARRIER_DRAIN || n->proposing[n->turn ^ 1])
        return false;
    n->barrier = BARRIER_SENT;
    return true;
}

void grants_barrier(struct nodes *n)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__ReserveOp nothing = REPLFS__RESERVE_OP__INIT;
    if (!barrier_due(n))
        return;
    op.op_case = REPLFS__META_OP__OP_RESERVE;
    op.reserve = &nothing; /* reserves no more than there is: changes nothing */
    cmd.op = &op;
    nodes_propose(n, &cmd, barrier_applied, barrier_after, n);
}

/* ---- grants ---- */

static struct granted *granted(const struct session_grants *g, uint64_t chunk)
{
    return g && g->n ? bsearch(&chunk, g->v, g->n, sizeof(*g->v), compare_u64)
                     : NULL; /* chunk is first */
}

void nodes_granted(struct nodes *n, uint64_t session, uint64_t chunk, const uint32_t *chunkds,
                   unsigned nchunkds)
{
    LOCK_SCOPE(&n->mu);
    struct session_grants *g = find_or_add(n, session);
    assert(nchunkds <= FSM_GOAL_MAX);
    if (g->n >= GRANTS_KEPT) {
        g->n -= GRANTS_KEPT / 2;
        memmove(g->v, g->v + GRANTS_KEPT / 2, g->n * sizeof(*g->v));
    }
    if (g->n == g->cap) {
        g->cap = g->cap ? 2 * g->cap : 64;
        g->v = realloc(g->v, g->cap * sizeof(*g->v));
        if (!g->v)
            abort();
    }
    uint32_t at = g->n++;
    for (; at > 0 && g->v[at - 1].chunk > chunk; at--) /* two requests of a session at once */
        g->v[at] = g->v[at - 1];
    g->v[at] = (struct granted){.chunk = chunk, .n = nchunkds};
    memcpy(g->v[at].chunkds, chunkds, nchunkds * sizeof(*chunkds));
}

bool grants_may_be_on(const struct nodes *n, uint64_t session, uint64_t chunk, uint32_t chunkd,
                      bool *sure)
{
    lock_assert_held(&n->mu);
    const struct granted *w = granted(grants_find(n, session), chunk);
    *sure = false;
    for (unsigned i = 0; w && i < w->n && !*sure; i++)
        *sure = w->chunkds[i] == chunkd;
    return *sure || !w;
}

/* ---- commits on their way into the log ---- */

static bool names_given_up(const struct session_grants *g, const Replfs__CommitOp *c)
{
    uint64_t last = 0;
    for (size_t i = 0; g && i < c->n_extents; i++) {
        uint64_t chunk = c->extents[i]->chunk;
        if (chunk != last && below(&g->told, chunk))
            return true;
        last = chunk;
    }
    return false;
}

static bool proven(const struct nodes *n, uint64_t session, const Replfs__ChunkCopies *c)
{
    int rc = cap_check(&n->cap_key, 1, c->cap.data, c->cap.len, c->chunk, session, session,
                       CAP_APPEND, 0);
    return rc == 0 || rc == -ERR_CAP_EXPIRED; /* it says whose the chunk is: that does not end */
}

int nodes_commit_begin(struct nodes *n, uint64_t session, const Replfs__CommitOp *c, uint64_t *own,
                       size_t *nown, unsigned *turn)
{
    LOCK_SCOPE(&n->mu);
    const struct session_grants *g = grants_find(n, session);
    *nown = 0;
    if (names_given_up(g, c))
        return -EPERM;
    for (size_t i = 0; i < c->n_copies; i++)
        if (granted(g, c->copies[i]->chunk) || proven(n, session, c->copies[i]))
            own[(*nown)++] = c->copies[i]->chunk;
    for (size_t i = 0; i < c->n_extents; i++) /* of which it tells no copies */
        if (!(*nown && own[*nown - 1] == c->extents[i]->chunk) && granted(g, c->extents[i]->chunk))
            own[(*nown)++] = c->extents[i]->chunk;
    *turn = n->turn;
    n->proposing[*turn]++;
    return 0;
}

void nodes_commit_end(struct nodes *n, unsigned turn)
{
    LOCK_SCOPE(&n->mu);
    assert(n->proposing[turn]);
    n->proposing[turn]--;
}
