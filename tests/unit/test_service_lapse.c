/* Clients that metad has not heard of for longer than their session's lease, and that come back. */
#define LEASE_MS 1000u
#include "tests/unit/service_rig.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "metad/coherence/leases.h"

#define MODE REPLFS__SETATTR_OP__VALID__MODE

static struct service_rig_peer other;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static struct rpc_req *asked; /* a recall that is not answered yet */

static void on_recall(void *arg, struct rpc_req *req)
{
    (void)arg;
    pthread_mutex_lock(&mu);
    asked = req;
    pthread_mutex_unlock(&mu);
}

static int two_setup(void **state)
{
    static const struct rpc_service svc = {.request = on_recall};
    int rv = service_rig_setup(state);

    asked = NULL;
    other.seq = 0;
    service_rig_dial_serving(&other, RPC_ROLE_CLIENT, &svc);
    return rv == 0 ? service_rig_open_session(&other, 0, NULL, 0) : rv;
}

static int two_teardown(void **state)
{
    service_rig_hang_up(&other);
    return service_rig_teardown(state);
}

/* Nothing is heard of `me`, and of the other all the time. */
static void lapse(void)
{
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;

    for (bool is = false; !is;) {
        assert_true(clock_mono() < until);
        sessions_touch(md.sessions, other.session);
        fsm_rdlock(md.fsm);
        is = fsm_session_lapsed(md.fsm, me.session);
        fsm_unlock(md.fsm);
        usleep(5000);
    }
}

struct comeback {
    int code;
    uint32_t lapses;
    size_t exclusive;
};

/* lapses: that the client knows of. claim: an inode of which it holds the lease, or 0. */
static struct comeback come_back(bool asks, uint32_t lapses, uint64_t claim)
{
    Replfs__SessionReq r = REPLFS__SESSION_REQ__INIT;
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;
    struct comeback b = {0};

    r.session = me.session;
    r.name = (char *)"test";
    r.host_id = (char *)"host";
    r.comes_back = asks;
    r.lapses = lapses;
    r.exclusive = &claim;
    r.n_exclusive = claim != 0;
    RPC_ENVELOPE(env, SESSION_REQ, session_req, &r);
    do { /* ERR_BUSY: not all of metad has heard that it lapsed */
        struct rpc_result res;
        b.code = service_rig_ask(&me, &env, &res);
        if (b.code == 0) {
            assert_int_equal(res.rep->session_reply->session, me.session);
            b.lapses = res.rep->session_reply->lapses;
            b.exclusive = res.rep->session_reply->n_exclusive;
        }
        rpc_result_free(&res);
    } while (b.code == -ERR_BUSY && clock_mono() < until);
    return b;
}

static void send_op(struct service_rig_peer *p, struct service_rig_call *k, Replfs__MetaOp *op,
                    uint64_t seq, bool kept)
{
    Replfs__Mutation m = REPLFS__MUTATION__INIT, *mp = &m;
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;

    m.seq = seq;
    m.op = op;
    m.kept = kept;
    r.session = p->session;
    r.ops = &mp;
    r.n_ops = 1;
    r.lease = r.exclusive = true;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    send_to(p, k, &env, PATIENCE_MS);
}

static uint64_t inos(void)
{
    Replfs__InosReq r = REPLFS__INOS_REQ__INIT;
    struct rpc_result res;

    r.session = me.session;
    r.count = 10;
    RPC_ENVELOPE(env, INOS_REQ, inos_req, &r);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    uint64_t first = res.rep->inos_reply->first;
    rpc_result_free(&res);
    return first;
}

/* Returns the code; *made is the inode. */
static int create(const char *name, uint64_t ino, uint64_t seq, uint64_t *made)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    struct service_rig_call k;

    c.parent = FSM_ROOT_INO;
    c.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)(uintptr_t)name};
    c.mode = S_IFREG | 0644;
    c.ino = ino;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &c;
    send_op(&me, &k, &op, seq, true);
    int code = finish(&k);
    *made = k.ino;
    return code;
}

static void chmod_start(struct service_rig_peer *p, struct service_rig_call *k, uint64_t ino,
                        uint32_t mode, bool kept)
{
    Replfs__SetattrOp o = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;

    o.ino = ino;
    o.valid = MODE;
    o.mode = mode;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &o;
    send_op(p, k, &op, ++p->seq, kept);
}

static void test_goes_on(void **state)
{
    uint64_t first = inos(), made = 0;

    (void)state;
    assert_int_equal(create("a", first, 1, &made), 0);
    lapse();
    assert_int_equal(create("b", first + 1, 2, &made), -ERR_SESSION);
    assert_int_equal(come_back(false, 0, 0).code, -ERR_SESSION); /* as clients of before */
    struct comeback b = come_back(true, 0, 0);
    assert_int_equal(b.code, 0);
    assert_int_equal(b.lapses, 1);
    assert_int_equal(create("a", first, 1, &made), 0); /* answered again, not done again */
    assert_int_equal(made, first);
    assert_int_equal(create("b", first + 1, 2, &made), 0); /* the numbers are its own still */
    assert_int_equal(made, first + 1);
}

/* The answer that said so was lost: what the client says to hold then, it does not. */
static void test_heard_of_later(void **state)
{
    uint64_t ino = 0;

    (void)state;
    lapse();
    assert_int_equal(come_back(true, 0, 0).code, 0);
    assert_int_equal(create("x", 0, 1, &ino), 0); /* exclusively */
    struct comeback b = come_back(true, 0, ino);
    assert_int_equal(b.code, 0);
    assert_int_equal(b.lapses, 1);
    assert_int_equal(b.exclusive, 0);
    assert_int_equal(create("y", 0, 2, &ino), 0);
    b = come_back(true, 1, ino);
    assert_int_equal(b.lapses, 1);
    assert_int_equal(b.exclusive, 1);
}

/* What it has made and not told of can be nobody else's, however long it was away; what it has told of can. */
static void test_has_what_it_alone_knows(void **state)
{
    uint64_t first = inos(), made = 0;

    (void)state;
    assert_int_equal(create("a", first, 1, &made), 0);
    lapse();
    struct comeback b = come_back(true, 0, first + 1);
    assert_int_equal(b.code, 0);
    assert_int_equal(b.exclusive, 1);
    assert_int_equal(create("b", first + 1, 2, &made), 0);
    lapse();
    b = come_back(true, 1, first + 1);
    assert_int_equal(b.code, 0);
    assert_int_equal(b.exclusive, 0);
}

/* Another client has the file's lease by now, and changes of its own that metad has not heard of yet. */
static void held_elsewhere(bool changes)
{
    struct service_rig_call late, now;
    uint64_t ino = 0;

    assert_int_equal(create("f", 0, ++me.seq, &ino), 0);
    lapse();
    Replfs__LeaseReq l = REPLFS__LEASE_REQ__INIT;
    struct rpc_result res;
    l.session = other.session;
    l.ino = ino;
    RPC_ENVELOPE(env, LEASE_REQ, lease_req, &l);
    assert_int_equal(service_rig_ask(&other, &env, &res), 0);
    assert_int_equal(res.rep->lease_reply->lease, LEASE_EXCLUSIVE);
    rpc_result_free(&res);
    assert_int_equal(come_back(true, 0, 0).code, 0);
    chmod_start(&me, &late, ino, 0600, true);
    struct rpc_req *req = NULL;
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;
    while (req == NULL) {
        assert_true(clock_mono() < until);
        usleep(2000);
        pthread_mutex_lock(&mu);
        req = asked;
        pthread_mutex_unlock(&mu);
    }
    if (changes) {
        chmod_start(&other, &now, ino, 0640, false);
        assert_int_equal(finish(&now), 0);
    }
    Replfs__RecallReply rep = REPLFS__RECALL_REPLY__INIT;
    RPC_ENVELOPE(renv, RECALL_REPLY, recall_reply, &rep);
    rpc_reply(req, &renv, NULL);
    assert_int_equal(finish(&late), changes ? -ESTALE : 0);
}

static void test_kept_back_elsewhere(void **state)
{
    (void)state;
    held_elsewhere(true);
}

static void test_only_looked_at_elsewhere(void **state)
{
    (void)state;
    held_elsewhere(false);
}

static int short_setup(void **state)
{
    int rv = two_setup(state);

    stop_metad(); /* it starts again with the session that it knows */
    service_rig_hang_up(&me);
    service_rig_hang_up(&other);
    md.keep_ms = 100;
    start_metad();
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    service_rig_dial(&other, RPC_ROLE_CLIENT);
    return rv;
}

/* Who does not come back within that time need not come at all. */
static void test_time_is_over(void **state)
{
    (void)state;
    WAIT_UNTIL_WITH(fsm_rdlock(md.fsm), !fsm_session_kept(md.fsm, me.session), fsm_unlock(md.fsm));
    assert_int_equal(come_back(true, 0, 0).code, -ERR_SESSION);
}

#define T(f) cmocka_unit_test_setup_teardown(f, two_setup, two_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_goes_on),
        T(test_heard_of_later),
        T(test_has_what_it_alone_knows),
        T(test_kept_back_elsewhere),
        T(test_only_looked_at_elsewhere),
        cmocka_unit_test_setup_teardown(test_time_is_over, short_setup, two_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
