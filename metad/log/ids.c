/* Ranges of ids. A ReserveOp in the log says "everything below X may have been handed out"; with each gain of
 * leadership, hence after each restart, counting goes on at X, so what was left of the old range is lost and nothing is given
 * twice. Ids are 64 bits wide (inodes: 16 bits of group, 0 for now, 48 of counter): a million lost
 * per restart is nothing.
 *
 * Another copy of metad's directory may have given ids that this one's log knows nothing of. chunkds
 * were told how far, and say so when they register: counting goes on above (ids_told). Chunks cannot
 * be written before a chunkd is there. Inodes could: so in a cluster that has chunkds, no new inode
 * numbers are given until one of them has come back, or HOLD has passed; then a gap is left that no
 * other copy can have filled.
 *
 * When less than half of a range is left the next one is proposed, long before it runs out. Should
 * the log stall so long that it does run out, callers get 0 and answer "try again". Any thread; own
 * mutex, taken last. */
#include "ids.h"
#include "base/lock.h"

#include <stdbool.h>
#include <stdlib.h>

#include <openssl/rand.h>

#include "base/clock.h"
#include "base/log.h"

#define LOG_MODULE "ids"
#define BLOCK FSM_IDS_BLOCK
#define HOLD (3 * NSEC_PER_SEC)
#define GAP (1ull << 32)          /* and up to twice that */
#define INO_TOLD_MAX (1ull << 47) /* of 48 bits; what is above is nonsense */
#define CHUNK_TOLD_MAX (1ull << 62)

struct range {
    uint64_t next, upto; /* next..upto-1 may be handed out */
};
struct given { /* to a client, which chooses from it */
    uint64_t first, session;
    uint32_t n;
};
struct ids {
    struct mlog *mlog;
    uint64_t leading; /* the leadership that these are of */
    struct lock mu;
    struct cond cond; /* of ids_free */
    struct range ino, chunk;
    struct given *given; /* by first; 24 bytes for each run of numbers, for as long as metad runs */
    size_t ngiven, cap_given;
    uint64_t start;                  /* below it: of former runs */
    uint64_t asked_ino, asked_chunk; /* upto of the reservation under way */
    uint64_t told_chunk, asked_from; /* others may have given chunk ids below */
    int64_t hold_until;              /* mono: no new inode numbers before; 0: not held */
    bool told;                       /* by one chunkd at least */
    bool asking;
};

static void range_reserved(struct range *r, uint64_t upto)
{
    if (upto > r->upto)
        r->upto = upto;
}

static uint64_t range_left(const struct range *r)
{
    return r->upto > r->next ? r->upto - r->next : 0;
}

static void reserved(void *arg, int code, const struct fsm_result *res)
{
    struct ids *ids = arg;

    lock_acquire(&ids->mu);
    if (code == 0 && res->code == 0) {
        range_reserved(&ids->ino, ids->asked_ino);
        range_reserved(&ids->chunk, ids->asked_chunk);
    } else {
        log_warn("ids could not be reserved in the log; trying again");
    }
    ids->asking = false;
    cond_signal(&ids->cond);
    lock_release(&ids->mu);
}

static void fill_op(struct ids *ids, Replfs__Command *cmd, Replfs__MetaOp *op, Replfs__ReserveOp *r)
{
    replfs__command__init(cmd);
    replfs__meta_op__init(op);
    replfs__reserve_op__init(r);
    r->ino_upto = ids->asked_ino;
    r->chunk_upto = ids->asked_chunk;
    r->chunk_from = ids->asked_from;
    op->op_case = REPLFS__META_OP__OP_RESERVE;
    op->reserve = r;
    cmd->op = op;
}

/* A range below half asks for more. Called with the lock held; returns true when the caller must
 * propose. */
static bool running_low(struct ids *ids)
{
    lock_assert_held(&ids->mu);
    if (ids->asking || (range_left(&ids->ino) > BLOCK / 2 && range_left(&ids->chunk) > BLOCK / 2))
        return false;
    ids->asked_ino = ids->ino.next + BLOCK;
    ids->asked_chunk = ids->chunk.next + BLOCK;
    ids->asked_from = ids->told_chunk;
    ids->asking = true;
    return true;
}

static void note_given(struct ids *ids, uint64_t first, uint32_t n, uint64_t session)
{
    if (ids->ngiven == ids->cap_given) {
        ids->cap_given = ids->cap_given == 0 ? 64 : 2 * ids->cap_given;
        ids->given = realloc(ids->given, ids->cap_given * sizeof(*ids->given));
        if (!ids->given)
            abort();
    }
    ids->given[ids->ngiven++] = (struct given){first, session, n};
}

static void ids_ask(struct ids *ids)
{
    Replfs__Command cmd;
    Replfs__MetaOp op;
    Replfs__ReserveOp reserve;

    fill_op(ids, &cmd, &op, &reserve); /* asked_* stay until `asking` ends */
    mlog_propose_as(ids->mlog, ids->leading, &cmd, reserved, NULL, ids);
}

/* Lock held. No chunkd has said yet how far ids were given. */
static bool held(struct ids *ids)
{
    uint64_t gap;

    if (ids->hold_until == 0)
        return false;
    if (clock_mono() < ids->hold_until)
        return true;
    ids->hold_until = 0;
    if (RAND_bytes((unsigned char *)&gap, sizeof(gap)) != 1)
        abort();
    ids->ino.next += GAP + gap % GAP;
    return false; /* out of numbers until more are reserved */
}

/* n in a row, told to be the session's unless that is 0. */
static uint64_t ids_take(struct ids *ids, struct range *r, uint32_t n, uint64_t session)
{
    uint64_t id = 0;

    lock_acquire(&ids->mu);
    if (!(r == &ids->ino && held(ids)) && range_left(r) >= n) {
        id = r->next;
        r->next += n;
        if (session != 0)
            note_given(ids, id, n, session);
    }
    bool need = running_low(ids);
    lock_release(&ids->mu);
    if (need)
        ids_ask(ids);
    return id;
}

void ids_told(struct ids *ids, uint64_t chunk_upto, uint64_t ino_upto)
{
    if (chunk_upto > CHUNK_TOLD_MAX || ino_upto > INO_TOLD_MAX) {
        log_error("a chunkd tells of chunk ids up to %llu and inode numbers up to %llu: nobody can "
                  "have given so many; not believed",
                  (unsigned long long)chunk_upto, (unsigned long long)ino_upto);
        return;
    }
    lock_acquire(&ids->mu);
    /* Before the first, nobody can have heard of the ranges that this run reserved at its start. */
    if (ino_upto > (ids->told ? ids->ino.upto : ids->ino.next))
        ids->ino.next = ino_upto;
    if (chunk_upto > (ids->told ? ids->chunk.upto : ids->chunk.next))
        ids->chunk.next = ids->told_chunk = chunk_upto;
    ids->told = true;
    ids->hold_until = 0;
    bool need = running_low(ids);
    lock_release(&ids->mu);
    if (need)
        ids_ask(ids);
}

uint64_t ids_ino(struct ids *ids)
{
    return ids_take(ids, &ids->ino, 1, 0);
}

uint64_t ids_chunk(struct ids *ids)
{
    return ids_take(ids, &ids->chunk, 1, 0);
}

uint64_t ids_inos(struct ids *ids, uint64_t session, uint32_t n)
{
    return ids_take(ids, &ids->ino, n, session);
}

static int in_given(const void *key, const void *elem)
{
    const struct given *g = elem;
    uint64_t ino = *(const uint64_t *)key;
    return ino < g->first ? -1 : ino >= g->first + g->n;
}

bool ids_is_given(struct ids *ids, uint64_t session, uint64_t ino)
{
    bool yes = ino < ids->start;

    lock_acquire(&ids->mu);
    if (!yes && ids->ngiven > 0) {
        const struct given *g =
            bsearch(&ino, ids->given, ids->ngiven, sizeof(*ids->given), in_given);
        yes = g && g->session == session;
    }
    lock_release(&ids->mu);
    return yes;
}

int ids_new(struct fsm *fsm, struct mlog *mlog, struct ids **out)
{
    struct ids *ids = calloc(1, sizeof(*ids));
    Replfs__Command cmd;
    Replfs__MetaOp op;
    Replfs__ReserveOp reserve;
    struct fsm_result res;
    struct fsm_member member;
    uint64_t chunk, ino;

    *out = NULL;
    if (!ids)
        abort();
    ids->mlog = mlog;
    ids->leading = mlog_leading(mlog);
    lock_init(&ids->mu, LOCK_IDS);
    cond_init(&ids->cond);
    fsm_rdlock(fsm);
    fsm_reserved(fsm, &chunk, &ino);
    if (fsm_member_next(fsm, 0, &member))
        ids->hold_until = clock_mono() + HOLD;
    fsm_unlock(fsm);
    ids->chunk.next = chunk > 1 ? chunk : 1;
    ids->ino.next = ino > FSM_ROOT_INO + 1 ? ino : FSM_ROOT_INO + 1;
    ids->start = ids->ino.next;
    ids->asked_chunk = ids->chunk.next + BLOCK;
    ids->asked_ino = ids->ino.next + BLOCK;
    fill_op(ids, &cmd, &op, &reserve);
    int rc = mlog_propose_wait(mlog, &cmd, &res);
    if (rc == 0 && res.code != 0)
        rc = -res.code;
    if (rc != 0) {
        ids_free(ids);
        return rc;
    }
    ids->chunk.upto = ids->asked_chunk;
    ids->ino.upto = ids->asked_ino;
    *out = ids;
    return 0;
}

void ids_free(struct ids *ids)
{
    if (!ids)
        return;
    lock_acquire(&ids->mu);
    while (ids->asking)
        cond_wait(&ids->cond, &ids->mu);
    lock_release(&ids->mu);
    cond_destroy(&ids->cond);
    lock_destroy(&ids->mu);
    free(ids->given);
    free(ids);
}
