/* Ranges of ids. A ReserveOp in the log says "everything below X may have been handed out"; after a
 * restart counting goes on at X, so what was left of the old range is lost and nothing is given
 * twice. Ids are 64 bits wide (inodes: 16 bits of group, 0 for now, 48 of counter): a million lost
 * per restart is nothing.
 *
 * When less than half of a range is left the next one is proposed, long before it runs out. Should
 * the log stall so long that it does run out, callers get 0 and answer "try again". Any thread; own
 * mutex, taken last. */
#include "ids.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/log.h"

#define LOG_MODULE "ids"
#define BLOCK (1ull << 20)

struct range {
    uint64_t next, upto; /* next..upto-1 may be handed out */
};
struct given { /* to a client, which chooses from it */
    uint64_t first, session;
    uint32_t n;
};
struct ids {
    struct mlog *mlog;
    pthread_mutex_t lock;
    struct range ino, chunk;
    struct given *given; /* by first; 24 bytes for each run of numbers, for as long as metad runs */
    size_t ngiven, cap_given;
    uint64_t start;                  /* below it: of former runs */
    uint64_t asked_ino, asked_chunk; /* upto of the reservation under way */
    bool asking;
};

static void reserved(void *arg, int code, const struct fsm_result *res)
{
    struct ids *ids = arg;

    pthread_mutex_lock(&ids->lock);
    if (code == 0 && res->code == 0) {
        ids->ino.upto = ids->asked_ino;
        ids->chunk.upto = ids->asked_chunk;
    } else {
        log_warn("ids could not be reserved in the log; trying again");
    }
    ids->asking = false;
    pthread_mutex_unlock(&ids->lock);
}

static void fill_op(struct ids *ids, Replfs__Command *cmd, Replfs__MetaOp *op, Replfs__ReserveOp *r)
{
    replfs__command__init(cmd);
    replfs__meta_op__init(op);
    replfs__reserve_op__init(r);
    r->ino_upto = ids->asked_ino;
    r->chunk_upto = ids->asked_chunk;
    op->op_case = REPLFS__META_OP__OP_RESERVE;
    op->reserve = r;
    cmd->op = op;
}

/* A range below half asks for more. Called with the lock held; returns true when the caller must
 * propose. */
static bool running_low(struct ids *ids)
{
    if (ids->asking || (ids->ino.upto - ids->ino.next > BLOCK / 2 &&
                        ids->chunk.upto - ids->chunk.next > BLOCK / 2))
        return false;
    ids->asked_ino = ids->ino.next + BLOCK;
    ids->asked_chunk = ids->chunk.next + BLOCK;
    ids->asking = true;
    return true;
}

static void note_given(struct ids *ids, uint64_t first, uint32_t n, uint64_t session)
{
    if (ids->ngiven == ids->cap_given) {
        ids->cap_given = ids->cap_given == 0 ? 64 : 2 * ids->cap_given;
        ids->given = realloc(ids->given, ids->cap_given * sizeof(*ids->given));
        if (ids->given == NULL)
            abort();
    }
    ids->given[ids->ngiven++] = (struct given){first, session, n};
}

/* n in a row, told to be the session's unless that is 0. */
static uint64_t take(struct ids *ids, struct range *r, uint32_t n, uint64_t session)
{
    uint64_t id = 0;

    pthread_mutex_lock(&ids->lock);
    if (r->upto - r->next >= n) {
        id = r->next;
        r->next += n;
        if (session != 0)
            note_given(ids, id, n, session);
    }
    bool ask = running_low(ids);
    pthread_mutex_unlock(&ids->lock);
    if (ask) {
        Replfs__Command cmd;
        Replfs__MetaOp op;
        Replfs__ReserveOp reserve;
        fill_op(ids, &cmd, &op, &reserve); /* asked_* stay until `asking` ends */
        mlog_propose(ids->mlog, &cmd, reserved, NULL, ids);
    }
    return id;
}

uint64_t ids_ino(struct ids *ids)
{
    return take(ids, &ids->ino, 1, 0);
}

uint64_t ids_chunk(struct ids *ids)
{
    return take(ids, &ids->chunk, 1, 0);
}

uint64_t ids_inos(struct ids *ids, uint64_t session, uint32_t n)
{
    return take(ids, &ids->ino, n, session);
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

    pthread_mutex_lock(&ids->lock);
    if (!yes && ids->ngiven > 0) {
        const struct given *g =
            bsearch(&ino, ids->given, ids->ngiven, sizeof(*ids->given), in_given);
        yes = g != NULL && g->session == session;
    }
    pthread_mutex_unlock(&ids->lock);
    return yes;
}

int ids_new(struct fsm *fsm, struct mlog *mlog, struct ids **out)
{
    struct ids *ids = calloc(1, sizeof(*ids));
    Replfs__Command cmd;
    Replfs__MetaOp op;
    Replfs__ReserveOp reserve;
    struct fsm_result res;
    uint64_t chunk, ino;

    *out = NULL;
    if (ids == NULL)
        abort();
    ids->mlog = mlog;
    pthread_mutex_init(&ids->lock, NULL);
    fsm_rdlock(fsm);
    fsm_reserved(fsm, &chunk, &ino);
    fsm_unlock(fsm);
    ids->chunk.next = chunk > 1 ? chunk : 1;
    ids->ino.next = ino > FSM_ROOT_INO + 1 ? ino : FSM_ROOT_INO + 1;
    ids->start = ids->ino.next;
    ids->asked_chunk = ids->chunk.next + BLOCK;
    ids->asked_ino = ids->ino.next + BLOCK;
    fill_op(ids, &cmd, &op, &reserve);
    int rv = mlog_propose_wait(mlog, &cmd, &res);
    if (rv == 0 && res.code != 0)
        rv = -res.code;
    if (rv != 0) {
        ids_free(ids);
        return rv;
    }
    ids->chunk.upto = ids->asked_chunk;
    ids->ino.upto = ids->asked_ino;
    *out = ids;
    return 0;
}

void ids_free(struct ids *ids)
{
    if (ids == NULL)
        return;
    pthread_mutex_destroy(&ids->lock);
    free(ids->given);
    free(ids);
}
