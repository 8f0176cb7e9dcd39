/* Exclusive leases as clients meet them: what is given when, who waits for whom, who has to give
 * back, and what a client that comes back still has. */
#define LEASE_MS 8000u
#define TERM_MS 4000u
#include "tests/unit/service_rig.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "metad/leases.h"

/* ---- clients ---- */

/* A session that metad may ask to give leases back. */
static struct client {
    struct peer p;
    pthread_mutex_t mu;
    bool keeps; /* recalls stay unanswered: in `asked` */
    struct rpc_req *asked[8];
    unsigned nasked, recalls;
    uint64_t ino; /* of the last recall */
    uint32_t keep;
} a, b, c;

static void answer(struct rpc_req *req, uint32_t kept)
{
    Replfs__RecallReply rep = REPLFS__RECALL_REPLY__INIT;

    rep.kept = kept;
    RPC_ENVELOPE(env, RECALL_REPLY, recall_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static void on_recall(void *arg, struct rpc_req *req)
{
    struct client *k = arg;
    uint32_t keep = req->env->recall_req->keep;

    pthread_mutex_lock(&k->mu);
    k->recalls++;
    k->ino = req->env->recall_req->ino;
    k->keep = keep;
    bool now = !k->keeps || k->nasked == sizeof(k->asked) / sizeof(k->asked[0]);
    if (!now)
        k->asked[k->nasked++] = req;
    pthread_mutex_unlock(&k->mu);
    if (now)
        answer(req, keep);
}

static void connect_to_metad(struct client *k)
{
    struct rpc_service svc = {.request = on_recall, .arg = k};

    dial_serving(&k->p, RPC_ROLE_CLIENT, &svc);
}

static void client_start(struct client *k)
{
    *k = (struct client){.mu = PTHREAD_MUTEX_INITIALIZER};
    connect_to_metad(k);
    assert_int_equal(open_session(&k->p, 0, NULL, 0), 0);
}

static int clients_setup(void **state)
{
    int rv = setup(state);

    if (rv == 0) {
        client_start(&a);
        client_start(&b);
        client_start(&c);
    }
    return rv;
}

static int clients_teardown(void **state)
{
    hang_up(&a.p);
    hang_up(&b.p);
    hang_up(&c.p);
    return teardown(state);
}

static unsigned recalls_of(struct client *k)
{
    pthread_mutex_lock(&k->mu);
    unsigned n = k->recalls;
    pthread_mutex_unlock(&k->mu);
    return n;
}

/* The last thing that metad asked of it. */
static bool was_asked(struct client *k, uint64_t ino, uint32_t keep)
{
    pthread_mutex_lock(&k->mu);
    bool yes = k->ino == ino && k->keep == keep;
    pthread_mutex_unlock(&k->mu);
    return yes;
}

/* ---- requests ---- */

/* One under way, and what was answered. */
struct call {
    pthread_mutex_t mu;
    pthread_cond_t cond;
    bool done;
    int code; /* of the call, or of the first operation */
    uint32_t lease;
    uint64_t ino;
};

static void on_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct call *k = arg;

    (void)payload;
    pthread_mutex_lock(&k->mu);
    k->code = code;
    if (code == 0 && rep->body_case == REPLFS__ENVELOPE__BODY_MUTATE_REPLY) {
        const Replfs__MutationResult *r = rep->mutate_reply->results[0];
        k->code = -(int)r->code;
        k->lease = r->lease;
        k->ino = r->attr != NULL ? r->attr->ino : 0;
    } else if (code == 0 && rep->body_case == REPLFS__ENVELOPE__BODY_GETATTR_REPLY) {
        k->lease = rep->getattr_reply->lease;
    }
    k->done = true;
    pthread_cond_signal(&k->cond);
    pthread_mutex_unlock(&k->mu);
}

static void send_to(struct client *k, struct call *call, Replfs__Envelope *env)
{
    *call = (struct call){.mu = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    rpc_call(k->p.conn, env, NULL, PATIENCE_MS, on_done, call);
}

static int finish(struct call *call)
{
    pthread_mutex_lock(&call->mu);
    while (!call->done)
        pthread_cond_wait(&call->cond, &call->mu);
    pthread_mutex_unlock(&call->mu);
    return call->code;
}

static void send_op(struct client *k, struct call *call, Replfs__MetaOp *op, uint64_t seq,
                    bool exclusive)
{
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
    Replfs__Mutation m = REPLFS__MUTATION__INIT, *mp = &m;

    m.seq = seq != 0 ? seq : ++k->p.seq;
    m.op = op;
    r.session = k->p.session;
    r.ops = &mp;
    r.n_ops = 1;
    r.lease = true;
    r.exclusive = exclusive;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    send_to(k, call, &env);
}

/* name NULL: a file without one. seq 0: the next. */
static struct call make_as(struct client *k, const char *name, uint32_t mode, bool exclusive,
                           uint64_t seq)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CreateOp o = REPLFS__CREATE_OP__INIT;
    struct call call;

    o.parent = FSM_ROOT_INO;
    o.name.data = (uint8_t *)(uintptr_t)name;
    o.name.len = name != NULL ? strlen(name) : 0;
    o.mode = mode;
    o.tmpfile = name == NULL;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &o;
    send_op(k, &call, &op, seq, exclusive);
    assert_int_equal(finish(&call), 0);
    return call;
}

static uint64_t make(struct client *k, const char *name)
{
    struct call call = make_as(k, name, S_IFREG | 0644, true, 0);

    assert_int_equal(call.lease, LEASE_EXCLUSIVE);
    return call.ino;
}

static void send_chmod(struct client *k, struct call *call, uint64_t ino, uint32_t mode)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;

    o.ino = ino;
    o.valid = REPLFS__SETATTR_OP__VALID__MODE;
    o.mode = mode;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &o;
    send_op(k, call, &op, 0, false);
}

static void send_getattr(struct client *k, struct call *call, uint64_t ino)
{
    Replfs__GetattrReq r = REPLFS__GETATTR_REQ__INIT;

    r.session = k->p.session;
    r.ino = ino;
    r.lease = true;
    RPC_ENVELOPE(env, GETATTR_REQ, getattr_req, &r);
    send_to(k, call, &env);
}

/* The lease that came, or a negative code. */
static int getattr(struct client *k, uint64_t ino)
{
    struct call call;

    send_getattr(k, &call, ino);
    return finish(&call) != 0 ? call.code : (int)call.lease;
}

static int chmod_as(struct client *k, uint64_t ino, uint32_t mode)
{
    struct call call;

    send_chmod(k, &call, ino, mode);
    return finish(&call) != 0 ? call.code : (int)call.lease;
}

/* ---- what is given ---- */

static void test_created(void **state)
{
    (void)state;
    assert_int_equal(make_as(&a, "plain", S_IFREG | 0644, false, 0).lease, LEASE_SHARED);
    assert_int_equal(make_as(&a, "dir", S_IFDIR | 0755, true, 0).lease, LEASE_SHARED);
    uint64_t ino = make(&a, "file"), nameless = make(&a, NULL);
    assert_int_equal(getattr(&a, ino), LEASE_EXCLUSIVE); /* what is held already counts */
    assert_int_equal(chmod_as(&a, ino, 0600), LEASE_EXCLUSIVE);
    assert_int_equal(getattr(&b, ino), LEASE_SHARED);
    assert_int_equal(recalls_of(&a), 1);
    assert_true(was_asked(&a, ino, LEASE_SHARED));
    assert_int_equal(getattr(&a, ino), LEASE_SHARED);
    assert_int_equal(chmod_as(&b, nameless, 0600), LEASE_SHARED);
    assert_true(was_asked(&a, nameless, LEASE_NONE));
}

/* The answer to a creation got lost; another client was quicker than the repetition. */
static void test_created_again(void **state)
{
    (void)state;
    uint64_t ino = make_as(&a, "file", S_IFREG | 0644, true, 77).ino;
    struct call again = make_as(&a, "file", S_IFREG | 0644, true, 77);
    assert_true(again.ino == ino && again.lease == LEASE_EXCLUSIVE);
    assert_int_equal(chmod_as(&b, ino, 0600), LEASE_SHARED);
    again = make_as(&a, "file", S_IFREG | 0644, true, 77);
    assert_true(again.ino == ino && again.lease == LEASE_SHARED);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, clients_setup, clients_teardown)
    const struct CMUnitTest tests[] = {
        T(test_created),
        T(test_created_again),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
