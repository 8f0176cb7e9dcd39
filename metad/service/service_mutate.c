/* Changes of the namespace: each operation of the request becomes one Command, proposed in order;
 * the reply goes out when all have been applied.
 *
 * The leader fills in what apply must not decide: time, and the ids of new inodes, unless the client
 * chose one that it was given (else fresh on every try: the duplicate memory makes a retry answer
 * with the first one's). What chunkds have a commit's bytes is soft: it is kept here, stripped from
 * what is logged, and told to nodes once the commit is applied.
 *
 * Each operation waits for others' leases on what it touches. While none is under way yet they are
 * refused together when that takes too long; the client repeats all of them. What a name refers to is looked up
 * before that; when it turns out that it referred to another inode by the time it was changed, others' leases on that
 * one are taken back before the answer.
 *
 * A regular file that a session creates counts as open by it until it says otherwise (CloseReq), as
 * open(2) with O_CREAT needs it: otherwise its unlink by another client could reap it before the
 * creator's first write.
 *
 * A file without a name (O_TMPFILE) whose creation is answered again after a new start of metad may
 * have been reaped: the session came back without knowing it yet. That answer is ESTALE, upon which
 * open(2) makes another one by itself.
 *
 * With meta-copies-sync the reply waits until copies of the names outside metad have the change too (copies_sync.c). Others
 * may see it before.
 *
 * Threads: proposed on an rpc thread; results are filled in on the log thread under the fsm lock
 * (so attributes are exactly as of the operation), the reply is sent from there after the lock is
 * gone, or from where the copies are known to have it. `left` counts down; the one that takes it to zero replies. */
#include "service_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "metaop.h"

#define MAX_OPS 1024u

struct mutate;
struct step {
    struct mutate *m;
    const Replfs__MetaOp *op; /* as the client sent it */
    struct lease_wait gate;   /* others' leases in the way */
    struct lease_wait late;   /* leases that turned out to be in the way when it was applied */
    Replfs__MutationResult result;
    Replfs__Attr attr, parent;
    int fail;      /* the log could not take it */
    bool kept;     /* Mutation.kept: */
    uint64_t seen; /* the inode's change before it had to wait */
};
struct mutate {
    struct service *s;
    struct rpc_req *req;
    atomic_uint left;
    unsigned n, next;
    uint64_t position; /* of the log, behind the last that was applied; log thread */
    struct copies_wait wait;
    Replfs__MutationResult **results;
    struct step steps[];
};

static void reply_now(struct mutate *m)
{
    struct service *s = m->s;
    Replfs__MutateReply rep = REPLFS__MUTATE_REPLY__INIT;
    int fail = 0;

    for (unsigned i = 0; i < m->n && fail == 0; i++)
        fail = m->steps[i].fail;
    if (fail != 0) {
        /* Some may have been applied: the client repeats all of them with the same numbers. */
        service_fail(s, m->req, fail, "the change did not get into the metadata log");
    } else {
        rep.n_results = m->n;
        rep.results = m->results;
        rep.position = m->position;
        RPC_ENVELOPE(env, MUTATE_REPLY, mutate_reply, &rep);
        rpc_reply(m->req, &env, NULL);
    }
    free(m->results);
    free(m);
    service_leave(s);
}

static void on_copied(struct copies_wait *w, int code)
{
    struct mutate *m = (struct mutate *)((char *)w - offsetof(struct mutate, wait));

    m->steps[0].fail = m->steps[0].fail ? m->steps[0].fail : code;
    reply_now(m);
}

static void reply(struct mutate *m)
{
    if (m->position == 0 || !copies_sync(m->s->cfg.copies)) {
        reply_now(m);
        return;
    }
    m->wait = (struct copies_wait){.index = m->position >> 8, .done = on_copied};
    copies_wait(m->s->cfg.copies, &m->wait);
}

static void step_end(struct step *st)
{
    struct mutate *m = st->m;

    if (st->late.n) /* seldom */
        leases_leave(m->s->leases, &st->late);
    leases_leave(m->s->leases, &st->gate);
    if (atomic_fetch_sub(&m->left, 1) == 1)
        reply(m);
}

static void on_late(struct lease_wait *w)
{
    step_end((struct step *)((char *)w - offsetof(struct step, late)));
}

static void on_after(void *arg)
{
    struct step *st = arg;

    if (st->late.n == 0 || leases_enter(st->m->s->leases, &st->late))
        step_end(st);
}

/* It was changed under a name that had come to refer to it: others' leases on it were not waited for. */
static void changed_late(struct step *st, uint64_t ino)
{
    for (unsigned i = 0; i < st->gate.n; i++)
        if (st->gate.need[i].ino == ino)
            return;
    st->late.session = st->gate.session;
    st->late.ready = on_late;
    st->late.firm = true;
    lease_need(&st->late, ino, true);
}

static void tell_copies(struct service *s, uint64_t session, const Replfs__CommitOp *c)
{
    for (size_t i = 0; i < c->n_copies; i++)
        nodes_copies(s->cfg.nodes, session, c->copies[i]);
}

/* A regular file exists, or did when the command was first answered. */
static void created(struct step *st, uint64_t ino)
{
    uint64_t session = st->m->req->env->mutate_req->session;

    if (st->result.attr && sessions_file_add(st->m->s->cfg.sessions, session, ino) != -ESTALE)
        return;
    if (st->op->create->tmpfile) { /* reaped, or about to be */
        st->result.attr = NULL;
        st->result.code = ESTALE;
    }
}

static uint32_t give(struct leases *l, const struct step *st, uint64_t ino, enum lease_mode want)
{
    enum lease_mode m = leases_grant(l, st->gate.session, ino, want, &st->gate);
    return m == LEASE_ELSEWHERE ? LEASE_NONE : (uint32_t)m;
}

/* What a CreateOp made is its session's alone; when the answer is given again, others may have
 * opened it since. */
static enum lease_mode deserved(const struct step *st, bool repeated)
{
    const struct mutate *m = st->m;
    const Replfs__MutateReq *r = m->req->env->mutate_req;

    if (!r->exclusive || st->op->op_case != REPLFS__META_OP__OP_CREATE)
        return LEASE_SHARED;
    if (repeated && sessions_elsewhere(m->s->cfg.sessions, r->session, st->attr.ino))
        return LEASE_SHARED;
    return LEASE_EXCLUSIVE;
}

static void give_leases(struct step *st, bool repeated)
{
    const Replfs__MutateReq *r = st->m->req->env->mutate_req;
    struct leases *l = st->m->s->leases;

    if (!r->lease)
        return;
    enum lease_mode want = st->result.attr ? deserved(st, repeated) : LEASE_NONE;
    if (want == LEASE_EXCLUSIVE && !repeated && leases_grant_new(l, r->session, st->attr.ino))
        st->result.lease = LEASE_EXCLUSIVE;
    else if (want != LEASE_NONE)
        st->result.lease = give(l, st, st->attr.ino, want);
    if (st->result.parent)
        st->result.parent_lease =
            give(l, st, st->parent.ino, r->parents ? LEASE_EXCLUSIVE : LEASE_SHARED);
}

/* Log thread; fsm write lock held when code is 0. */
static void on_applied(void *arg, int code, const struct fsm_result *res)
{
    struct step *st = arg;
    struct service *s = st->m->s;

    if (code != 0) {
        st->fail = code;
        return;
    }
    st->m->position = fsm_applied(s->cfg.fsm);
    st->result.code = (uint32_t)res->code;
    st->result.value = res->value;
    if (res->code != 0)
        return;
    if (st->op->op_case == REPLFS__META_OP__OP_COMMIT)
        tell_copies(s, st->m->req->env->mutate_req->session, st->op->commit);
    if (res->ino != 0 && fsm_getattr(s->cfg.fsm, res->ino, &st->attr) == 0)
        st->result.attr = &st->attr;
    if (st->op->op_case == REPLFS__META_OP__OP_CREATE && S_ISREG(st->op->create->mode))
        created(st, res->ino);
    if (res->parent != 0 && fsm_getattr(s->cfg.fsm, res->parent, &st->parent) == 0)
        st->result.parent = &st->parent;
    if (st->op->op_case == REPLFS__META_OP__OP_UNLINK)
        changed_late(st, res->ino);
    if (st->op->op_case == REPLFS__META_OP__OP_RENAME) {
        changed_late(st, res->ino);
        changed_late(st, res->value);
    }
    give_leases(st, res->repeated);
}

/* About the session itself and no other: unmount. */
static bool is_own(const Replfs__MetaOp *op, uint64_t session)
{
    return op->op_case == REPLFS__META_OP__OP_SESSION_CLOSE && op->session_close &&
           op->session_close->n_session == 1 && op->session_close->session[0] == session;
}

/* 0, or why a client may not propose this. */
static int check_op(const Replfs__MetaOp *op, uint64_t session)
{
    if (!op)
        return -ERR_PROTOCOL;
    switch (metaop_sender(metaop_of(op))) {
    case METAOP_BY_CLIENT:
        return op->create ? 0 : -ERR_PROTOCOL; /* any member of the union */
    case METAOP_BY_OWNER:
        return is_own(op, session) ? 0 : -EPERM;
    case METAOP_BY_LEADER:
    case METAOP_BY_NOBODY:
        break;
    }
    return -EPERM;
}

/* len * goal + reserved, no more than fits. */
static uint64_t more(uint64_t len, unsigned goal, uint64_t reserved)
{
    uint64_t r;

    if (__builtin_mul_overflow(len, goal, &r) || __builtin_add_overflow(r, reserved, &r))
        return UINT64_MAX;
    return r;
}

/* A reservation that free space could not hold, with what else is reserved, is refused here: apply
 * knows no disks. What the file has already is counted only when that decides. */
static bool no_room(struct service *s, const Replfs__FallocateOp *op)
{
    struct fsm_counts n;
    uint64_t need = op->len;

    if (op->mode & 2) /* FALLOC_FL_PUNCH_HOLE */
        return false;
    fsm_rdlock(s->cfg.fsm);
    int goal = fsm_goal(s->cfg.fsm, op->ino);
    fsm_counts(s->cfg.fsm, &n);
    bool full = goal > 0 && nodes_no_room(s->cfg.nodes, more(need, (unsigned)goal, n.reserved));
    if (full)
        full = fsm_holes(s->cfg.fsm, op->ino, op->off, op->len, &need) == 0 && need &&
               nodes_no_room(s->cfg.nodes, more(need, (unsigned)goal, n.reserved));
    fsm_unlock(s->cfg.fsm);
    return full;
}

/* st was not let in: neither it nor what follows is done, lest the order change. The client repeats
 * all of them. */
static void refuse_rest(struct step *st)
{
    struct mutate *m = st->m;
    unsigned rest = m->n - (unsigned)(st - m->steps);

    st->fail = st->gate.code;
    leases_leave(m->s->leases, &st->gate);
    if (atomic_fetch_sub(&m->left, rest) == rest)
        reply(m);
}

static void mutate_put(struct step *st, Replfs__MetaOp *op, uint64_t seq)
{
    const Replfs__MutateReq *r = st->m->req->env->mutate_req;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;

    cmd.session = r->session;
    cmd.seq = seq;
    cmd.acked_seq = r->acked_seq;
    cmd.kept = st->kept;
    cmd.op = op;
    service_propose(st->m->s, &cmd, on_applied, on_after, st);
}

/* Which of its chunks are the session's own is decided here and logged: apply knows no grants. */
static void propose_commit(struct step *st, Replfs__MetaOp *op, uint64_t seq)
{
    struct nodes *nodes = st->m->s->cfg.nodes;
    Replfs__CommitOp commit = *op->commit;
    uint64_t few[8], *own = few;
    size_t most = commit.n_copies + commit.n_extents;
    unsigned turn;

    if (most > sizeof(few) / sizeof(few[0]))
        own = malloc(most * sizeof(*own));
    if (!own)
        abort();
    commit.checked = true;
    commit.own = own;
    int rc = nodes_commit_begin(nodes, st->gate.session, &commit, own, &commit.n_own, &turn);
    if (rc == 0) {
        commit.n_copies = 0;
        commit.copies = NULL;
        op->commit = &commit;
        mutate_put(st, op, seq);
        nodes_commit_end(nodes, turn);
    } else {
        st->result.code = (uint32_t)-rc;
        on_after(st);
    }
    if (own != few)
        free(own);
}

/* Of the inode that a late change (Mutation.kept) is about; 0: apply looks at no more than names. */
static uint64_t change_now(struct service *s, const struct step *st)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    uint64_t ino = st->kept ? metaop_late(st->op) : 0;

    if (ino == 0)
        return 0;
    fsm_rdlock(s->cfg.fsm);
    int rc = fsm_getattr(s->cfg.fsm, ino, &a);
    fsm_unlock(s->cfg.fsm);
    return rc == 0 ? a.change : 0;
}

static void mutate_propose(struct step *st, uint64_t seq)
{
    struct service *s = st->m->s;
    const Replfs__MutateReq *r = st->m->req->env->mutate_req;
    Replfs__MetaOp op = *st->op;
    Replfs__CreateOp create;
    Replfs__RenameOp rename;
    Replfs__CloneOp clone;
    Replfs__FallocateOp fallocate;

    st->result.code =
        service_memory_refuses(s, st->op) ? ENOSPC : (uint32_t)service_weigh(s, st->op);
    if (st->gate.waited && change_now(s, st) != st->seen)
        st->result.code =
            ESTALE; /* by the one that kept changes back under the lease that was in the way */
    if (st->result.code != 0) {
        on_after(st);
        return;
    }
    switch (metaop_of(&op)) {
    case METAOP_CREATE:
        create = *op.create;
        if (create.ino == 0)
            create.ino = ids_ino(s->cfg.ids);
        else if (!ids_is_given(s->cfg.ids, r->session, create.ino))
            create.ino = FSM_ROOT_INO; /* not its own: refused as invalid */
        op.create = &create;
        if (create.ino == 0) {
            st->fail = -ERR_BUSY;
            on_after(st);
            return;
        }
        break;
    case METAOP_COMMIT:
        propose_commit(st, &op, seq);
        return;
    case METAOP_RENAME:
        rename = *op.rename;
        rename.tell = true;
        op.rename = &rename;
        break;
    case METAOP_CLONE:
        clone = *op.clone;
        clone.len = service_cut_len(s, clone.dst, clone.dst_off, clone.len);
        op.clone = &clone;
        break;
    case METAOP_SETATTR:
        service_truncate_ahead(s, r->session, seq, op.setattr);
        break;
    case METAOP_FALLOCATE:
        if (no_room(s, op.fallocate)) {
            st->result.code = ENOSPC;
            on_after(st);
            return;
        }
        fallocate = *op.fallocate;
        fallocate.part = false;
        fallocate.len = service_cut_len(s, fallocate.ino, fallocate.off, fallocate.len);
        op.fallocate = &fallocate;
        break;
    case METAOP_UNLINK: /* as they come */
    case METAOP_LINK:
    case METAOP_SET_GOAL:
    case METAOP_ATIME:
    case METAOP_XATTR:
    case METAOP_QUOTA:
    case METAOP_SESSION_CLOSE:
        break;
    case METAOP_NONE: /* check_op refused them */
        METAOP_CASES_LEADER
        break;
    }
    mutate_put(st, &op, seq);
}

/* Proposes the operations from m->next on, in their order, until one has to wait for others'
 * leases. The answer to the last one frees m. */
static void advance(struct mutate *m)
{
    struct service *s = m->s;
    unsigned n = m->n;

    for (bool last = false; !last;) {
        struct step *st = &m->steps[m->next++];
        last = m->next == n;
        service_needs(s, st->op, &st->gate);
        st->seen = change_now(s, st);
        /* once a part is under way the rest follows, however long that takes */
        st->gate.firm = st != m->steps;
        if (!leases_enter(s->leases, &st->gate))
            return; /* on_ready goes on, perhaps already */
        if (st->gate.code != 0) {
            refuse_rest(st);
            return;
        }
        mutate_propose(st, st->result.seq);
    }
}

static void on_ready(struct lease_wait *w)
{
    struct step *st = (struct step *)((char *)w - offsetof(struct step, gate));
    struct mutate *m = st->m;
    bool last = m->next == m->n;

    if (w->code != 0) {
        refuse_rest(st);
        return;
    }
    mutate_propose(st, st->result.seq);
    if (!last)
        advance(m);
}

static bool request_ok(struct rpc_req *req, const Replfs__MutateReq *r)
{
    if (r->n_ops == 0 || r->n_ops > MAX_OPS) {
        rpc_fail(req, ERR_PROTOCOL, "%zu operations in one request: 1 to %u are allowed", r->n_ops,
                 MAX_OPS);
        return false;
    }
    for (size_t i = 0; i < r->n_ops; i++) {
        int code = r->ops[i]->seq == 0 ? -ERR_PROTOCOL : check_op(r->ops[i]->op, r->session);
        if (code != 0) {
            rpc_fail(req, code, "operation %zu of the request is not for clients", i);
            return false;
        }
        if (service_is_too_wide(r->ops[i]->op)) {
            rpc_fail(req, EINVAL, "operation %zu of the request names too many inodes", i);
            return false;
        }
    }
    return true;
}

void service_mutate(struct service *s, struct rpc_req *req)
{
    const Replfs__MutateReq *r = req->env->mutate_req;

    if (!service_session_ok(s, req, r->session, false) || !request_ok(req, r))
        return;
    struct mutate *m = calloc(1, sizeof(*m) + r->n_ops * sizeof(m->steps[0]));
    if (!m)
        abort();
    m->results = calloc(r->n_ops, sizeof(*m->results));
    if (!m->results)
        abort();
    m->s = s;
    m->req = req;
    m->n = (unsigned)r->n_ops;
    atomic_init(&m->left, m->n);
    for (unsigned i = 0; i < m->n; i++) {
        struct step *st = &m->steps[i];
        st->m = m;
        st->op = r->ops[i]->op;
        st->kept = r->ops[i]->kept;
        replfs__mutation_result__init(&st->result);
        replfs__attr__init(&st->attr);
        replfs__attr__init(&st->parent);
        st->result.seq = r->ops[i]->seq;
        st->gate = (struct lease_wait){.session = r->session, .ready = on_ready};
        m->results[i] = &st->result;
    }
    service_keep(s);
    advance(m);
}
