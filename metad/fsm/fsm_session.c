/* Sessions with their duplicate memory, chunkd members, and reserved id ranges.
 *
 * A session is open from SessionOpenOp to SessionCloseOp. One whose client falls silent (suspended,
 * cut off) lapses instead: nothing of it is accepted and it holds nothing, but its memory, and hence its
 * numbers and chunks, are kept until the client comes back (SessionOpenOp.back), or its time is over.
 * What the client had answered by then arrives late (Command.kept), and is refused where others have
 * changed the same inode in between: every inode has the number of its last change.
 *
 * While a session is there, the answer to each of
 * its numbered commands is remembered until the client says (acked_seq) that it has it: a command
 * that arrives again, over whatever connection, is answered from here and not executed twice.
 * Sequence numbers may arrive out of order. A number at or below acked_seq that comes once more is
 * a straggler nobody waits for: ESTALE. A session that leaves more than FSM_REMEMBER_MAX answers
 * unacknowledged gets ERR_BUSY until it acknowledges, but for numbers below the newest one remembered: the
 * oldest of them is what it waits for. Of those there is as much room again, which a client that keeps
 * its window never needs.
 *
 * What a session may hold of the leader's soft state (leases, locks) is kept, so that a new leader
 * knows whom to wait for. Logs and checkpoints of before did not say: then it may be anything.
 *
 * Sessions, members and answers are sorted arrays with binary search: there are thousands of them,
 * not millions. Failure modes: codes. Thread context: fsm lock. */
#include "fsm_internal.h"
#include "metaop.h"
#include <stdlib.h>
#include <string.h>

/* ---- sessions ---- */

/* Position of the first session with an id of at least id. */
static uint32_t session_pos(const struct fsm *f, uint64_t id)
{
    uint32_t lo = 0, hi = f->nsessions;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (f->sessions[mid]->id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct fsm_session *fsm_session_find(const struct fsm *f, uint64_t id)
{
    uint32_t p = session_pos(f, id);
    return p < f->nsessions && f->sessions[p]->id == id ? f->sessions[p] : NULL;
}

/* A copy of a string from a message (which may lack it), cut to 255 bytes, accounted in f->heap. */
char *fsm_keep_string(struct fsm *f, const char *s)
{
    size_t n = s ? strnlen(s, FSM_STRING_MAX) : 0;
    char *p = fsm_xmalloc(n + 1);
    if (n)
        memcpy(p, s, n);
    p[n] = 0;
    f->heap += n + 1;
    return p;
}

void fsm_drop_string(struct fsm *f, const char *s)
{
    f->heap -= strlen(s) + 1;
    free((char *)s);
}

/* Opens a place for one more pointer-like element of size bytes at position p of a sorted array. */
static void *array_open(struct fsm *f, void *base, uint32_t n, uint32_t *cap, uint32_t p,
                        size_t size)
{
    if (n == *cap) {
        uint32_t fresh = *cap ? *cap * 2 : 8;
        base = fsm_xrealloc(base, fresh * size);
        f->heap += (fresh - *cap) * size;
        *cap = fresh;
    }
    memmove((char *)base + (p + 1ul) * size, (char *)base + p * size, (n - p) * size);
    return base;
}

struct fsm_session *fsm_session_add(struct fsm *f, uint64_t id, const char *name,
                                    const char *host_id)
{
    uint32_t p = session_pos(f, id);
    if (p < f->nsessions && f->sessions[p]->id == id)
        return NULL;
    f->sessions =
        array_open(f, f->sessions, f->nsessions, &f->sessions_cap, p, sizeof(struct fsm_session *));
    struct fsm_session *s = fsm_xcalloc(1, sizeof(*s));
    f->heap += sizeof(*s);
    s->id = id;
    s->name = fsm_keep_string(f, name);
    s->host_id = fsm_keep_string(f, host_id);
    s->holds = FSM_HOLDS_ALL;
    f->sessions[p] = s;
    f->nsessions++;
    return s;
}

static void session_free(struct fsm *f, struct fsm_session *s)
{
    fsm_drop_string(f, s->name);
    fsm_drop_string(f, s->host_id);
    f->heap -= sizeof(*s) + s->cap * sizeof(*s->answers);
    free(s->answers);
    free(s);
}

/* Takes the one at p out. */
static void session_end(struct fsm *f, uint32_t p)
{
    uint64_t id = f->sessions[p]->id;

    f->nlapsed -= f->sessions[p]->lapsed;
    session_free(f, f->sessions[p]);
    f->nsessions--;
    memmove(&f->sessions[p], &f->sessions[p + 1], (f->nsessions - p) * sizeof(*f->sessions));
    if (f->hooks.session_closed)
        f->hooks.session_closed(f->hooks.arg, id);
}

/* ---- those that lapsed ---- */

static void end_first_lapsed(struct fsm *f)
{
    uint32_t first = f->nsessions;

    for (uint32_t k = 0; k < f->nsessions; k++)
        if (f->sessions[k]->lapsed &&
            (first == f->nsessions || f->sessions[k]->lapsed_at < f->sessions[first]->lapsed_at))
            first = k;
    session_end(f, first);
}

static void session_lapse(struct fsm *f, uint32_t p)
{
    struct fsm_session *s = f->sessions[p];

    if (s->lapsed)
        return;
    if (s->end - s->first > FSM_LAPSED_ANSWERS) {
        session_end(f, p);
        return;
    }
    s->lapsed = true;
    s->lapses++;
    s->lapsed_at = f->now;
    s->away_from = s->away_to = f->change;
    s->holds = 0;
    if (f->hooks.session_lapsed)
        f->hooks.session_lapsed(f->hooks.arg, s->id);
    if (++f->nlapsed > FSM_LAPSED_MAX)
        end_first_lapsed(f);
}

static int session_back(struct fsm *f, uint64_t id)
{
    struct fsm_session *s = fsm_session_find(f, id);

    if (!s || !s->lapsed)
        return -ERR_SESSION;
    s->lapsed = false;
    f->nlapsed--;
    s->away_to = f->change;
    s->holds = FSM_HOLDS_LEASES;
    return 0;
}

/* The same mount has begun anew: what it had before it ended does not come back. */
static void end_former(struct fsm *f, const Replfs__SessionOpenOp *op)
{
    if (!f->nlapsed || !op->name || !*op->name || !op->host_id || !*op->host_id)
        return;
    for (uint32_t k = f->nsessions; k-- > 0;) {
        const struct fsm_session *s = f->sessions[k];
        if (s->lapsed && !strcmp(s->name, op->name) && !strcmp(s->host_id, op->host_id))
            session_end(f, k);
    }
}

bool fsm_session_late(const struct fsm *f, const struct fsm_session *s, const Replfs__MetaOp *op)
{
    /* bytes that only moved are looked at one by one */
    bool moved = op->op_case == REPLFS__META_OP__OP_COMMIT && op->commit->over;
    uint32_t h = fsm_inode_find(f, moved ? 0 : metaop_late(op));

    if (!h)
        return false;
    uint64_t change = fsm_inode_at(f, h)->change;
    return change > s->away_from && change <= s->away_to;
}

bool fsm_session_lapsed(struct fsm *f, uint64_t session)
{
    const struct fsm_session *s = fsm_session_find(f, session);
    return s && s->lapsed;
}

uint32_t fsm_session_lapses(struct fsm *f, uint64_t session)
{
    const struct fsm_session *s = fsm_session_find(f, session);
    return s ? s->lapses : 0;
}

bool fsm_session_kept(struct fsm *f, uint64_t session)
{
    return fsm_session_find(f, session) != NULL;
}

size_t fsm_lapsed_before(struct fsm *f, int64_t ns, uint64_t *out, size_t max)
{
    size_t n = 0;

    for (uint32_t k = 0; k < f->nsessions && n < max; k++)
        if (f->sessions[k]->lapsed && f->sessions[k]->lapsed_at < ns)
            out[n++] = f->sessions[k]->id;
    return n;
}

/* ---- the commands ---- */

int fsm_op_session_open(struct fsm *f, const Replfs__SessionOpenOp *op)
{
    if (!op->session)
        return -EINVAL;
    if (op->back)
        return session_back(f, op->session);
    struct fsm_session *s = fsm_session_add(f, op->session, op->name, op->host_id);
    if (!s)
        return -EEXIST;
    s->holds = op->tells ? FSM_HOLDS_LEASES : FSM_HOLDS_ALL;
    end_former(f, op);
    return 0;
}

int fsm_op_holds(struct fsm *f, const Replfs__HoldsOp *op)
{
    struct fsm_session *s = fsm_session_find(f, op->session);
    if (!s)
        return -ERR_SESSION;
    s->holds = (uint8_t)(((s->holds & ~op->clear) | op->set) & FSM_HOLDS_ALL);
    return 0;
}

unsigned fsm_session_holds(struct fsm *f, uint64_t session)
{
    const struct fsm_session *s = fsm_session_find(f, session);
    return s ? s->holds : 0;
}

int fsm_op_session_close(struct fsm *f, const Replfs__SessionCloseOp *op)
{
    for (size_t k = 0; k < op->n_session; k++) {
        uint32_t p = session_pos(f, op->session[k]);
        if (p == f->nsessions || f->sessions[p]->id != op->session[k])
            continue; /* closed before: proposals may overlap */
        if (op->over && !f->sessions[p]->lapsed)
            continue;
        if (op->lapse)
            session_lapse(f, p);
        else
            session_end(f, p);
    }
    return 0;
}

bool fsm_session_alive(struct fsm *f, uint64_t session)
{
    const struct fsm_session *s = fsm_session_find(f, session);
    return s && !s->lapsed;
}

bool fsm_session_next(struct fsm *f, uint64_t after, uint64_t *session, const char **name)
{
    uint32_t p = after == UINT64_MAX ? f->nsessions : session_pos(f, after + 1);
    while (p < f->nsessions && f->sessions[p]->lapsed)
        p++;
    if (p == f->nsessions)
        return false;
    *session = f->sessions[p]->id;
    if (name)
        *name = f->sessions[p]->name;
    return true;
}

/* ---- duplicate memory ---- */

static uint32_t answer_pos(const struct fsm_session *s, uint64_t seq)
{
    uint32_t lo = s->first, hi = s->end;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->answers[mid].seq < seq)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

uint64_t fsm_session_answered(struct fsm *f, uint64_t session, uint64_t seq)
{
    const struct fsm_session *s = fsm_session_find(f, session);
    uint32_t p = s ? answer_pos(s, seq) : 0;
    bool there = s && p < s->end && s->answers[p].seq == seq;
    return there && s->answers[p].code == 0 ? s->answers[p].ino : 0;
}

bool fsm_session_recall(struct fsm *f, struct fsm_session *s, uint64_t seq, uint64_t acked,
                        struct fsm_result *res)
{
    (void)f;
    if (acked > s->acked) {
        s->acked = acked;
        s->first = acked == UINT64_MAX ? s->end : answer_pos(s, acked + 1);
    }
    if (seq <= s->acked) {
        res->code = ESTALE;
        res->repeated = true;
        return true;
    }
    uint32_t p = answer_pos(s, seq);
    if (p < s->end && s->answers[p].seq == seq) {
        const struct fsm_answer *a = &s->answers[p];
        *res = (struct fsm_result){.code = (int)a->code,
                                   .ino = a->ino,
                                   .parent = a->parent,
                                   .value = a->value,
                                   .repeated = true};
        return true;
    }
    uint32_t kept = s->end - s->first;
    bool late = kept && seq < s->answers[s->end - 1].seq;
    if (kept >= (late ? 2 : 1) * FSM_REMEMBER_MAX) {
        res->code = ERR_BUSY;
        return true;
    }
    return false;
}

int fsm_session_remember(struct fsm *f, struct fsm_session *s, const struct fsm_answer *a)
{
    if (s->first > 0 && s->first >= (s->cap + 1) / 2) {
        /* at least half is forgotten: move the rest to the front */
        memmove(s->answers, s->answers + s->first, (s->end - s->first) * sizeof(*s->answers));
        s->end -= s->first;
        s->first = 0;
    }
    uint32_t p = answer_pos(s, a->seq);
    if (p < s->end && s->answers[p].seq == a->seq)
        return -EEXIST;
    s->answers = array_open(f, s->answers, s->end, &s->cap, p, sizeof(*s->answers));
    s->answers[p] = *a;
    s->end++;
    return 0;
}

/* ---- members and reservations ---- */

static uint32_t member_pos(const struct fsm *f, uint32_t chunkd)
{
    uint32_t lo = 0, hi = f->nmembers;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (f->members[mid].chunkd < chunkd)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

int fsm_member_add(struct fsm *f, uint32_t chunkd, const char *host_id, const char *host_name)
{
    uint32_t p = member_pos(f, chunkd);
    if (p < f->nmembers && f->members[p].chunkd == chunkd)
        return -EEXIST;
    f->members = array_open(f, f->members, f->nmembers, &f->members_cap, p, sizeof(*f->members));
    f->members[p] = (struct fsm_member){
        chunkd, fsm_keep_string(f, host_id), fsm_keep_string(f, host_name), 0, {0}};
    f->nmembers++;
    return 0;
}

struct fsm_member *fsm_member_find(const struct fsm *f, uint32_t chunkd)
{
    uint32_t p = member_pos(f, chunkd);
    bool there = p < f->nmembers && f->members[p].chunkd == chunkd && f->members[p].host_id[0];

    return there ? &f->members[p] : NULL;
}

static void member_set(struct fsm *f, uint32_t p, const char *host_id, const char *host_name)
{
    struct fsm_member *m = &f->members[p];

    fsm_drop_string(f, m->host_id);
    fsm_drop_string(f, m->host_name);
    m->host_id = fsm_keep_string(f, host_id);
    m->host_name = fsm_keep_string(f, host_name);
}

/* A member that is added again under another host id or name was moved or renamed: the disk went
 * into another computer. */
int fsm_op_chunkd_add(struct fsm *f, const Replfs__ChunkdAddOp *op)
{
    if (op->chunkd == 0 || op->chunkd >= 1u << 20)
        return -EINVAL;
    uint32_t p = member_pos(f, op->chunkd);
    if (p < f->nmembers && f->members[p].chunkd == op->chunkd) {
        if (!f->members[p].host_id[0])
            return -EEXIST; /* removed: never again */
        member_set(f, p, op->host_id, op->host_name);
        return 0;
    }
    return fsm_member_add(f, op->chunkd, op->host_id, op->host_name);
}

int fsm_op_chunkd_remove(struct fsm *f, const Replfs__ChunkdRemoveOp *op)
{
    struct fsm_member *m = fsm_member_find(f, op->chunkd);

    if (!m)
        return -ENOENT;
    if (op->drained && !m->decided.draining)
        return -EBUSY;
    member_set(f, (uint32_t)(m - f->members), "", "");
    m->replaced_by = 0;
    fsm_decided_drop(f, m);
    return 0;
}

int fsm_op_replaced(struct fsm *f, const Replfs__ReplacedOp *op)
{
    uint32_t p = member_pos(f, op->chunkd), by = member_pos(f, op->by);

    if (p == f->nmembers || f->members[p].chunkd != op->chunkd || !f->members[p].host_id[0])
        return -ENOENT;
    if (op->by && (by == f->nmembers || f->members[by].chunkd != op->by || by == p))
        return -EINVAL;
    f->members[p].replaced_by = op->by;
    return 0;
}

bool fsm_member_next(struct fsm *f, uint32_t after, struct fsm_member *out)
{
    uint32_t p = after == UINT32_MAX ? f->nmembers : member_pos(f, after + 1);
    if (p == f->nmembers)
        return false;
    *out = f->members[p];
    return true;
}

int fsm_op_reserve(struct fsm *f, const Replfs__ReserveOp *op)
{
    if (op->chunk_from > f->chunk_upto)
        fsm_past_gap(f, op->chunk_from);
    if (op->chunk_upto > f->chunk_upto)
        f->chunk_upto = op->chunk_upto;
    if (op->ino_upto > f->ino_upto)
        f->ino_upto = op->ino_upto;
    return 0;
}

void fsm_sessions_free(struct fsm *f)
{
    for (uint32_t k = 0; k < f->nsessions; k++)
        session_free(f, f->sessions[k]);
    for (uint32_t k = 0; k < f->nmembers; k++) {
        fsm_drop_string(f, f->members[k].host_id);
        fsm_drop_string(f, f->members[k].host_name);
        fsm_decided_drop(f, &f->members[k]);
    }
    free(f->sessions);
    free(f->members);
}
