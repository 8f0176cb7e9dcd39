/* Changes of the namespace: each is executed once, however often it has to be sent.
 *
 * A change has a number of its session and keeps it over reconnects, so that metad recognizes it.
 * Several go in one message and are executed in the order given. Under a new session a change that
 * may have been executed already is not sent again: it fails with EIO. That may be any that was sent,
 * unless the answer says that nothing was done. What is bound to a session (`need`: its chunks were
 * written under it) fails with ERR_SESSION. A session that lapsed and goes on has its numbers still.
 * Others may have changed anything meanwhile: what its caller had been told is done by then is marked as
 * kept, so that metad refuses it where they did.
 *
 * metad remembers answers until told (acked_seq) that everything up to them has come, and no more than
 * so many: one change that waits long for others' leases must not let later ones pile up behind it,
 * so none is given a number too far from the oldest that is unanswered (WINDOW).
 *
 * Thread context: any but a loop thread. The numbers are under session.mu. */
#include "client/session/mutation.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/lock.h"
#include "client/cache/lease_cache.h"
#include "client/cache/lease_cache_change.h"
#include "client/internal.h"
#include "client/session/closes.h"
#include "client/session/connect.h"
#include "client/session/session.h"

#define MESSAGE_BYTES (RPC_MAX_ENVELOPE / 2) /* of the ops in a message */
#define WINDOW 8192u                         /* half of the answers that metad remembers */
#define WINDOW_LOOK_MS 100
#define SEQ_BYTES 32u /* that each has beside what the op itself says, at most */

/* ---- numbers ---- */

/* session.mu held. */
static uint64_t oldest_pending(const struct client *c)
{
    uint64_t least = c->session.next_seq;
    for (size_t i = 0; i < c->session.npending; i++) {
        if (c->session.pending[i].seq < least)
            least = c->session.pending[i].seq;
    }
    return least;
}

/* metad counts what it makes as open by us. */
static bool makes_file(const Replfs__MetaOp *op)
{
    return op->op_case == REPLFS__META_OP__OP_CREATE && S_ISREG(op->create->mode);
}

/* Gives each that has none a number of the present session, which is returned. */
static uint64_t seqs_begin(struct client *c, struct mutation *const *list, size_t n)
{
    lock_acquire(&c->session.mu);
    while (c->session.cap_pending - c->session.npending < n) {
        c->session.cap_pending = c->session.cap_pending ? c->session.cap_pending * 2 : 64;
        c->session.pending =
            realloc(c->session.pending, c->session.cap_pending * sizeof(*c->session.pending));
        if (!c->session.pending)
            abort();
    }
    for (size_t i = 0; i < n; i++) {
        if (list[i]->session == c->session.id)
            continue;
        list[i]->session = c->session.id;
        list[i]->seq = c->session.next_seq++;
        list[i]->maybe_done = false;
        c->session.pending[c->session.npending++] =
            (struct pending_change){.seq = list[i]->seq, .creates = makes_file(list[i]->op)};
    }
    uint64_t session = c->session.id;
    lock_release(&c->session.mu);
    return session;
}

/* Until n more are within the window. False at the deadline. */
static bool window_wait(struct client *c, size_t n, int64_t deadline)
{
    lock_acquire(&c->session.mu);
    bool room;
    while (!(room = c->session.next_seq + n - oldest_pending(c) <= WINDOW) &&
           clock_mono() < deadline && !c->stopping) {
        int64_t until = clock_mono() + WINDOW_LOOK_MS * NSEC_PER_MSEC;
        cond_wait_until(&c->session.cv, &c->session.mu, until < deadline ? until : deadline);
    }
    lock_release(&c->session.mu);
    return room;
}

static void seq_end(struct client *c, uint64_t session, uint64_t seq)
{
    lock_acquire(&c->session.mu);
    for (size_t i = 0; session == c->session.id && i < c->session.npending; i++) {
        if (c->session.pending[i].seq == seq) {
            c->session.pending[i] = c->session.pending[--c->session.npending];
            if (seq + WINDOW / 2 < c->session.next_seq) /* somebody may wait for the window */
                cond_broadcast(&c->session.cv);
            break;
        }
    }
    lock_release(&c->session.mu);
}

/* Everything below the oldest unanswered number may be forgotten. */
static uint64_t acked_seq(struct client *c)
{
    lock_acquire(&c->session.mu);
    uint64_t least = oldest_pending(c);
    lock_release(&c->session.mu);
    return least - 1;
}

/* ---- a list on its way ---- */

struct sending {
    struct client *c;
    struct mutation *todo[MUTATE_MAX];
    size_t n;
    uint64_t session; /* of the numbers, 0: none yet */
    uint64_t begun;
};

/* The message as a whole came to nothing: were the changes in it executed? Only these say: no. A metad that
 * lost its lead, ends, or cannot write its log may have handed them to others, or find them in its log. */
static bool ambiguous(int code)
{
    return code && code != -ERR_BUSY && code != -ERR_SESSION && code != -ERR_ROLE &&
           code != -ERR_PROTOCOL && code != -EPERM;
}

/* r NULL: nothing is known of what happened unless code says so. */
static void mutation_finish(struct sending *s, size_t i, int code, const Replfs__MutationResult *r)
{
    struct mutation *m = s->todo[i];
    if (!m->known && (r || ambiguous(code) || code == -ERR_SESSION))
        lease_cache_mutated(s->c->leases, s->begun, m->op, r);
    lease_cache_change_end(s->c->leases, &m->change);
    if (!m->known && code == 0 && makes_file(m->op) && r && r->attr)
        closes_add(s->c, r->attr->ino); /* unless cfile_open_new follows */
    if (m->session)
        seq_end(s->c, m->session, m->seq);
    m->done(m, code, r);
}

/* The deadline has passed. */
static void give_up(struct sending *s, int code)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->todo[i]->late)
            s->todo[i]->late(s->todo[i]);
        else
            mutation_finish(s, i, code, NULL);
    }
    s->n = 0;
}

static void finish_all(struct sending *s, int code)
{
    for (size_t i = 0; i < s->n; i++)
        mutation_finish(s, i, code, NULL);
    s->n = 0;
}

/* What a session that is gone takes with it fails. So many are left without a number of the present one. */
static size_t look_at_numbers(struct sending *s, uint64_t now)
{
    size_t kept = 0, without = 0;
    for (size_t i = 0; i < s->n; i++) {
        struct mutation *m = s->todo[i];
        bool old = m->session != now;
        if (old && (m->maybe_done || (m->need && m->need != now))) {
            mutation_finish(s, i, m->need ? -ERR_SESSION : -EIO, NULL);
            continue;
        }
        without += old;
        s->todo[kept++] = m;
    }
    s->n = kept;
    return without;
}

/* Numbers of the present session for all. False at the deadline. */
static bool renumber(struct sending *s, int64_t deadline)
{
    for (;;) {
        uint64_t now = session_id(s->c);
        size_t without = look_at_numbers(s, now);
        if (without && !window_wait(s->c, without, deadline))
            return false;
        s->session = without ? seqs_begin(s->c, s->todo, s->n) : now;
        if (s->session == now)
            return true;
    }
}

static bool again_later(uint32_t code)
{
    return code == ERR_BUSY || code == ERR_SESSION;
}

/* Of the first n. 0, or why some of them are left. */
static int take_results(struct sending *s, size_t n, const Replfs__MutateReply *reply)
{
    size_t kept = 0;
    int rc = 0;
    for (size_t i = 0; i < n; i++) {
        const Replfs__MutationResult *r = NULL;
        for (size_t k = 0; k < reply->n_results && !r; k++)
            if (reply->results[k]->seq == s->todo[i]->seq)
                r = reply->results[k];
        if (r && !again_later(r->code)) {
            mutation_finish(s, i, -(int)r->code, r);
            continue;
        }
        rc = r ? -(int)r->code : -ERR_PROTOCOL;
        s->todo[i]->maybe_done &= !r;
        s->todo[kept++] = s->todo[i];
    }
    for (size_t i = n; i < s->n; i++)
        s->todo[kept++] = s->todo[i];
    s->n = kept;
    return rc;
}

/* So many of the first fit into one message: a commit may have thousands of extents. */
static size_t fitting(const struct sending *s)
{
    size_t n = 0, bytes = 0;
    while (n < s->n) {
        bytes += protobuf_c_message_get_packed_size(&s->todo[n]->op->base) + SEQ_BYTES;
        if (n && bytes > MESSAGE_BYTES)
            break;
        n++;
    }
    return n;
}

/* Directories of which others want to know are better shared; and only a client that makes names in one is
 * likely to go on. */
static bool contested(const struct sending *s)
{
    for (size_t i = 0; i < s->n; i++) {
        const Replfs__MetaOp *op = s->todo[i]->op;
        if (op->op_case != REPLFS__META_OP__OP_CREATE ||
            lease_cache_contested(s->c->leases, op->create->parent))
            return true;
    }
    return false;
}

static int send_once(struct sending *s, struct rpc_conn *conn, int64_t deadline,
                     struct rpc_result *res)
{
    struct client *c = s->c;
    Replfs__Mutation mu[MUTATE_MAX], *list[MUTATE_MAX];
    Replfs__MutateReq m = REPLFS__MUTATE_REQ__INIT;
    size_t n = fitting(s);
    unsigned life = atomic_load(&c->life);
    for (size_t i = 0; i < n; i++) {
        replfs__mutation__init(&mu[i]);
        mu[i].seq = s->todo[i]->seq;
        mu[i].op = s->todo[i]->op;
        mu[i].kept = s->todo[i]->life && s->todo[i]->life != life;
        list[i] = &mu[i];
    }
    m.session = s->session;
    m.acked_seq = acked_seq(c);
    m.n_ops = n;
    m.ops = list;
    m.lease = true;
    m.exclusive = !c->cfg.sync_all;
    m.parents = m.exclusive && !contested(s);
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &m);
    int64_t sent = clock_boot();
    int rc = rpc_call_wait(conn, &env, NULL, session_try_ms(c, deadline), res);
    for (size_t i = 0; i < n && ambiguous(rc); i++)
        s->todo[i]->maybe_done = true;
    if (rc)
        return rc;
    lease_cache_renew(c->leases, sent);
    if (res->rep->body_case != REPLFS__ENVELOPE__BODY_MUTATE_REPLY)
        return -ERR_PROTOCOL;
    session_saw(c, m.session, res->rep->mutate_reply->position);
    return take_results(s, n, res->rep->mutate_reply);
}

/* Whether to go on after an attempt that failed with rc. */
static bool go_on(struct sending *s, struct rpc_conn *conn, struct rpc_result *res, int rc,
                  int64_t deadline, unsigned *busy_ms)
{
    res->code = rc;
    return session_attempt_failed(s->c, conn, res, deadline, busy_ms);
}

void mutation_run(struct client *c, struct mutation *const *list, size_t n, int64_t deadline)
{
    struct sending s = {.c = c, .n = n, .begun = lease_cache_begin(c->leases)};
    unsigned busy_ms = 10;
    assert(n <= MUTATE_MAX);
    for (size_t i = 0; i < n; i++) {
        s.todo[i] = list[i];
        if (!list[i]->known && list[i]->change.n == 0)
            lease_cache_change_begin(c->leases, &list[i]->change, list[i]->op);
    }
    while (s.n) {
        struct rpc_conn *conn = session_conn(c, deadline);
        if (!conn || !renumber(&s, deadline)) {
            rpc_conn_unref(conn);
            give_up(&s, -ERR_TIMEOUT);
            return;
        }
        if (!s.n) {
            rpc_conn_unref(conn);
            return;
        }
        struct rpc_result res = {0};
        int rc = send_once(&s, conn, deadline, &res);
        bool again = rc && go_on(&s, conn, &res, rc, deadline, &busy_ms);
        rpc_result_free(&res);
        rpc_conn_unref(conn);
        if (rc && !again && clock_mono() >= deadline)
            give_up(&s, rc);
        else if (rc && !again)
            finish_all(&s, rc);
    }
}
