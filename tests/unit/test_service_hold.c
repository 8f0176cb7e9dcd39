/* What sessions hold is logged, so that a metad that starts again waits only for those that may hold
 * something. */
#define LEASE_MS 6000u
#define TERM_MS 500u
#include "tests/unit/service_rig.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lockset.h"
#include "base/log.h"
#include "metad/coherence/leases.h"

static struct service_rig_peer other;

static int other_setup(void **state)
{
    int rv = service_rig_setup(state);

    if (rv == 0) {
        service_rig_dial(&other, RPC_ROLE_CLIENT);
        rv = service_rig_open_session(&other, 0, NULL, 0);
    }
    return rv;
}

static int other_teardown(void **state)
{
    md.term_ms = 0;
    if (other.conn != NULL)
        service_rig_hang_up(&other);
    return service_rig_teardown(state);
}

static int lock_root(struct service_rig_peer *p, uint32_t type)
{
    Replfs__LockReq r = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock l = REPLFS__LOCK__INIT;
    struct rpc_result res;

    l.ino = FSM_ROOT_INO;
    l.owner = 1;
    l.type = type;
    l.end = 9;
    l.pid = 4711;
    r.session = p->session;
    r.lock = &l;
    RPC_ENVELOPE(env, LOCK_REQ, lock_req, &r);
    int rv = service_rig_ask(p, &env, &res);
    rpc_result_free(&res);
    return rv;
}

static int stat_root(struct service_rig_peer *p, uint32_t *lease)
{
    Replfs__GetattrReq r = REPLFS__GETATTR_REQ__INIT;
    struct rpc_result res;

    r.session = p->session;
    r.ino = FSM_ROOT_INO;
    r.lease = true;
    RPC_ENVELOPE(env, GETATTR_REQ, getattr_req, &r);
    int rv = service_rig_ask(p, &env, &res);
    if (rv == 0 && lease != NULL)
        *lease = res.rep->getattr_reply->lease;
    rpc_result_free(&res);
    return rv;
}

static unsigned holds(uint64_t session)
{
    fsm_rdlock(md.fsm);
    unsigned h = fsm_session_holds(md.fsm, session);
    fsm_unlock(md.fsm);
    return h;
}

/* Keeps `me` alive until the other session's bits are as given. */
static bool holds_soon(unsigned want)
{
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;

    while (holds(other.session) != want && clock_mono() < until) {
        assert_int_equal(stat_root(&me, NULL), 0);
        usleep(20000);
    }
    return holds(other.session) == want;
}

/* metad starts again; me comes back, the other one does not. */
static void restart_without_other(void)
{
    uint64_t mine = me.session;

    service_rig_hang_up(&me);
    if (other.conn != NULL)
        service_rig_hang_up(&other);
    other.conn = NULL;
    stop_metad();
    start_metad();
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    assert_int_equal(service_rig_open_session(&me, mine, NULL, 0), 0);
}

/* Nobody had a lock: one is given at once. */
static void test_no_locks_no_wait(void **state)
{
    (void)state;
    restart_without_other();
    assert_int_equal(lock_root(&me, LOCKSET_WRITE), 0);
}

/* Somebody had one, and may come back. */
static void test_locks_are_waited_for(void **state)
{
    (void)state;
    assert_int_equal(lock_root(&other, LOCKSET_WRITE), 0);
    assert_int_equal(holds(other.session), FSM_HOLDS_ALL);
    restart_without_other();
    assert_int_equal(lock_root(&me, LOCKSET_WRITE), -ERR_BUSY);
    service_rig_dial(&other, RPC_ROLE_CLIENT);
    assert_int_equal(service_rig_open_session(&other, other.session, NULL, 0), 0);
    assert_int_equal(lock_root(&me, LOCKSET_WRITE), 0);
}

/* A client that was switched off a while ago, with nothing in its hands: requests are served at
 * once. */
static void test_silent_without_leases(void **state)
{
    uint32_t lease = 0;

    (void)state;
    assert_int_equal(stat_root(&other, &lease), 0);
    assert_int_equal(lease, LEASE_SHARED);
    assert_int_equal(holds(other.session), FSM_HOLDS_LEASES);
    assert_true(holds_soon(0));
    restart_without_other();
    assert_int_equal(stat_root(&me, NULL), 0);
}

/* It did not come back after a start: the next one, however soon, does not wait for it again. */
static void test_missed_once(void **state)
{
    uint64_t missed = other.session;

    (void)state;
    assert_int_equal(stat_root(&other, NULL), 0);
    md.term_ms = LEASE_MS;
    restart_without_other();
    assert_int_equal(stat_root(&me, NULL), -ERR_BUSY);
    clock_pretend_slept(LEASE_MS * NSEC_PER_MSEC);
    while (holds(missed) != 0 && sessions_silent_ms(md.sessions, missed) < LEASE_MS)
        stat_root(&me, NULL);
    assert_int_equal(holds(missed), 0);
    restart_without_other();
    assert_int_equal(stat_root(&me, NULL), 0);
}

/* It comes back: it gets leases again, once that is logged. */
static void test_silent_comes_back(void **state)
{
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;
    uint32_t lease = 0;

    (void)state;
    assert_int_equal(stat_root(&other, &lease), 0);
    assert_true(holds_soon(0));
    while (lease == 0 || holds(other.session) != FSM_HOLDS_LEASES) {
        assert_true(clock_mono() < until);
        assert_int_equal(stat_root(&other, &lease), 0);
    }
    assert_int_equal(lease, LEASE_SHARED);
}

/* Locks that it still has keep it on the list; none: it goes. */
static void test_silent_with_locks(void **state)
{
    (void)state;
    assert_int_equal(lock_root(&other, LOCKSET_WRITE), 0);
    assert_true(holds_soon(FSM_HOLDS_LOCKS));
    assert_int_equal(lock_root(&other, LOCKSET_NONE), 0);
    assert_true(holds_soon(0));
    assert_int_equal(lock_root(&other, LOCKSET_READ), 0);
    assert_int_equal(holds(other.session) & FSM_HOLDS_LOCKS, FSM_HOLDS_LOCKS);
}

static struct service_rig_peer third;

static void make_exclusive(struct service_rig_peer *p)
{
    Replfs__CreateOp o = REPLFS__CREATE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Mutation m = REPLFS__MUTATION__INIT, *list[1] = {&m};
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
    struct service_rig_call call;

    o.parent = FSM_ROOT_INO;
    o.name = (ProtobufCBinaryData){.len = 1, .data = (uint8_t *)(uintptr_t) "f"};
    o.mode = S_IFREG | 0644;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &o;
    m.seq = ++p->seq;
    m.op = &op;
    r.session = p->session;
    r.n_ops = 1;
    r.ops = list;
    r.lease = r.exclusive = true;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    send_to(p, &call, &env, PATIENCE_MS);
    assert_int_equal(finish(&call), 0);
    assert_int_equal(call.lease, LEASE_EXCLUSIVE);
}

/* A silent client with something exclusively has written what nobody else knows of: it is waited for. */
static void test_silent_with_exclusive(void **state)
{
    (void)state;
    service_rig_dial(&third, RPC_ROLE_CLIENT);
    assert_int_equal(service_rig_open_session(&third, 0, NULL, 0), 0);
    make_exclusive(&third);
    assert_true(holds_soon(0)); /* silent as long, and looked at together */
    unsigned kept = holds(third.session);
    service_rig_hang_up(&third);
    assert_int_equal(kept, FSM_HOLDS_LEASES);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, other_setup, other_teardown)
    const struct CMUnitTest tests[] = {
        T(test_no_locks_no_wait),  T(test_locks_are_waited_for), T(test_silent_without_leases),
        T(test_silent_comes_back), T(test_silent_with_locks),    T(test_silent_with_exclusive),
        T(test_missed_once),
    };
    log_init("test_service_hold", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
