/* File locks as clients meet them: answers that come later, lost connections, restarts. */
#define LEASE_MS 4000u /* longer than any request waits here */
#include "tests/unit/service_rig.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lockset.h"

#define FILE_INO 1u /* the root will do */

/* ---- requests ---- */

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
    service_rig_hang_up(&other);
    return service_rig_teardown(state);
}

static Replfs__Lock lock_of(uint64_t owner, uint32_t type, uint64_t start, uint64_t end)
{
    Replfs__Lock l = REPLFS__LOCK__INIT;

    l.ino = FILE_INO;
    l.owner = owner;
    l.type = type;
    l.start = start;
    l.end = end;
    l.pid = 4711;
    return l;
}

/* id 0: does not wait. */
static void start(struct service_rig_peer *p, struct service_rig_call *k, uint64_t id, unsigned ms,
                  uint64_t owner, uint32_t type, uint64_t start_at, uint64_t end)
{
    Replfs__LockReq r = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock l = lock_of(owner, type, start_at, end);

    r.session = p->session;
    r.lock = &l;
    r.wait = id != 0;
    r.id = id;
    RPC_ENVELOPE(env, LOCK_REQ, lock_req, &r);
    send_to(p, k, &env, ms);
}

static int lock(struct service_rig_peer *p, uint64_t owner, uint32_t type, uint64_t from,
                uint64_t to)
{
    struct service_rig_call k;

    start(p, &k, 0, PATIENCE_MS, owner, type, from, to);
    return finish(&k);
}

static int test_lock(struct service_rig_peer *p, uint64_t owner, uint32_t type, Replfs__Lock *out)
{
    Replfs__LockTestReq r = REPLFS__LOCK_TEST_REQ__INIT;
    Replfs__Lock l = lock_of(owner, type, 0, 100);
    struct rpc_result res;

    r.session = p->session;
    r.lock = &l;
    RPC_ENVELOPE(env, LOCK_TEST_REQ, lock_test_req, &r);
    int rv = service_rig_ask(p, &env, &res);
    if (rv == 0)
        *out = *res.rep->lock_test_reply->lock;
    rpc_result_free(&res);
    return rv;
}

static int cancel(struct service_rig_peer *p, uint64_t id)
{
    Replfs__LockCancelReq r = REPLFS__LOCK_CANCEL_REQ__INIT;
    struct rpc_result res;

    r.session = p->session;
    r.id = id;
    RPC_ENVELOPE(env, LOCK_CANCEL_REQ, lock_cancel_req, &r);
    int rv = service_rig_ask(p, &env, &res);
    rpc_result_free(&res);
    return rv;
}

static int unlock_all(struct service_rig_peer *p, uint64_t owner)
{
    Replfs__UnlockAllReq r = REPLFS__UNLOCK_ALL_REQ__INIT;
    struct rpc_result res;

    r.session = p->session;
    r.ino = FILE_INO;
    r.owner = &owner;
    r.n_owner = 1;
    RPC_ENVELOPE(env, UNLOCK_ALL_REQ, unlock_all_req, &r);
    int rv = service_rig_ask(p, &env, &res);
    rpc_result_free(&res);
    return rv;
}

/* Comes back on the peer's connection, with these locks. */
static int resume(struct service_rig_peer *p, Replfs__Lock **locks, size_t n)
{
    Replfs__SessionReq r = REPLFS__SESSION_REQ__INIT;
    struct rpc_result res;

    r.session = p->session;
    r.locks = locks;
    r.n_locks = n;
    RPC_ENVELOPE(env, SESSION_REQ, session_req, &r);
    int rv = service_rig_ask(p, &env, &res);
    rpc_result_free(&res);
    return rv;
}

/* Until the lock can be had: what frees it happens by itself. */
static void lock_soon(struct service_rig_peer *p, uint64_t owner, uint64_t from, uint64_t to)
{
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;
    int rv;

    while ((rv = lock(p, owner, LOCKSET_WRITE, from, to)) == -EAGAIN && clock_mono() < until)
        usleep(5000);
    assert_int_equal(rv, 0);
}

/* ---- tests ---- */

static void test_wait_and_grant(void **state)
{
    struct service_rig_call k;
    Replfs__Lock in_the_way;

    (void)state;
    assert_int_equal(lock(&me, 1, LOCKSET_WRITE, 0, 9), 0);
    assert_int_equal(lock(&me, 1, LOCKSET_WRITE, 0, 9), 0); /* a repetition */
    assert_int_equal(lock(&other, 1, LOCKSET_READ, 5, 5), -EAGAIN);
    assert_int_equal(test_lock(&other, 1, LOCKSET_READ, &in_the_way), 0);
    assert_int_equal(in_the_way.type, LOCKSET_WRITE);
    assert_int_equal(in_the_way.end, 9);
    assert_int_equal(in_the_way.pid, 4711);
    start(&other, &k, 7, PATIENCE_MS, 1, LOCKSET_READ, 5, 5);
    assert_int_equal(lock(&other, 2, LOCKSET_WRITE, 20, 20), 0); /* nobody is held up */
    assert_false(is_done(&k));
    assert_int_equal(lock(&me, 1, LOCKSET_NONE, 0, 9), 0);
    assert_int_equal(finish(&k), 0);
    assert_true(k.ino == FILE_INO);
    assert_int_equal(lock(&me, 1, LOCKSET_WRITE, 0, 9), -EAGAIN);
    assert_int_equal(unlock_all(&other, 1), 0);
    assert_int_equal(unlock_all(&other, 1), 0);
    assert_int_equal(lock(&me, 1, LOCKSET_WRITE, 0, 9), 0);
    assert_int_equal(test_lock(&other, 2, LOCKSET_READ, &in_the_way), 0);
    assert_int_equal(test_lock(&me, 1, LOCKSET_READ, &in_the_way), 0);
    assert_int_equal(in_the_way.start, 20);
}

static void test_deadline_and_cancel(void **state)
{
    struct service_rig_call k;

    (void)state;
    assert_int_equal(lock(&me, 1, LOCKSET_WRITE, 0, 9), 0);
    start(&other, &k, 7, 2000, 1, LOCKSET_READ, 5, 5);
    assert_int_equal(finish(&k), -ERR_TIMEOUT);
    assert_true(k.said); /* in time to be told apart from a metad that is gone */
    start(&other, &k, 7, PATIENCE_MS, 1, LOCKSET_READ, 5, 5);
    assert_int_equal(cancel(&other, 8), 0); /* another: nothing */
    assert_false(is_done(&k));
    assert_int_equal(cancel(&other, 7), 0);
    assert_int_equal(finish(&k), -EINTR);
    assert_int_equal(unlock_all(&me, 1), 0);
    assert_int_equal(lock(&me, 2, LOCKSET_WRITE, 0, 9), 0); /* nothing was left behind */
}

static void test_deadlock(void **state)
{
    struct service_rig_call k;

    (void)state;
    assert_int_equal(lock(&me, 1, LOCKSET_WRITE, 0, 0), 0);
    assert_int_equal(lock(&other, 1, LOCKSET_WRITE, 1, 1), 0);
    start(&me, &k, 5, PATIENCE_MS, 1, LOCKSET_WRITE, 1, 1);
    assert_int_equal(lock(&me, 9, LOCKSET_READ, 50, 50), 0); /* the former has arrived */
    struct service_rig_call q;
    start(&other, &q, 6, PATIENCE_MS, 1, LOCKSET_WRITE, 0, 0);
    assert_int_equal(finish(&q), -EDEADLK);
    assert_int_equal(lock(&other, 1, LOCKSET_NONE, 0, 1), 0);
    assert_int_equal(finish(&k), 0);
}

/* A waiting client that goes, and comes back or does not. */
static void test_lost_connection(void **state)
{
    struct service_rig_call k;
    struct service_rig_peer again = {0};
    Replfs__Lock held = lock_of(3, LOCKSET_WRITE, 50, 59), *claims[] = {&held};

    (void)state;
    assert_int_equal(lock(&me, 1, LOCKSET_WRITE, 0, 9), 0);
    assert_int_equal(lock(&other, 3, LOCKSET_WRITE, 50, 59), 0);
    assert_int_equal(lock(&other, 4, LOCKSET_WRITE, 60, 69), 0);
    start(&other, &k, 7, PATIENCE_MS, 1, LOCKSET_READ, 5, 5);
    service_rig_dial(&again, RPC_ROLE_CLIENT);
    again.session = other.session;
    /* before it has said who it is, nothing of the session may be changed here */
    assert_int_equal(lock(&again, 3, LOCKSET_NONE, 50, 59), -ERR_PEER_GONE);
    assert_int_equal(resume(&again, claims, 1), 0);
    /* what comes late on the old connection does nothing any more */
    assert_int_equal(lock(&other, 5, LOCKSET_WRITE, 70, 79), -ERR_PEER_GONE);
    assert_int_equal(unlock_all(&other, 3), -ERR_PEER_GONE);
    assert_int_equal(lock(&me, 1, LOCKSET_READ, 50, 50), -EAGAIN);
    assert_int_equal(lock(&me, 1, LOCKSET_WRITE, 60, 79), 0); /* was not claimed */
    rpc_conn_close(other.conn);
    assert_int_equal(finish(&k), -ERR_PEER_GONE);
    /* unlocked while the waiting one is away: it gets the lock when it asks again */
    assert_int_equal(unlock_all(&me, 1), 0);
    start(&again, &k, 7, PATIENCE_MS, 1, LOCKSET_READ, 5, 5);
    assert_int_equal(finish(&k), 0);
    /* or never asks again: nobody has it, at the latest when its session ends (metad may have
     * granted the lock before it saw the connection go) */
    start(&me, &k, 9, PATIENCE_MS, 1, LOCKSET_WRITE, 50, 50);
    assert_int_equal(lock(&me, 2, LOCKSET_READ, 90, 90), 0);
    rpc_conn_close(me.conn);
    assert_int_equal(finish(&k), -ERR_PEER_GONE);
    assert_int_equal(unlock_all(&again, 3), 0);
    lock_soon(&again, 6, 50, 50);
    service_rig_hang_up(&again);
}

static void test_session_ends(void **state)
{
    (void)state;
    assert_int_equal(lock(&other, 1, LOCKSET_WRITE, 0, 9), 0);
    rpc_conn_close(other.conn); /* and is not heard of again */
    assert_int_equal(lock(&me, 1, LOCKSET_WRITE, 0, 9), -EAGAIN);
    lock_soon(&me, 1, 0, 9);
}

static void test_restart(void **state)
{
    Replfs__Lock held = lock_of(1, LOCKSET_WRITE, 0, 9), *claims[] = {&held}, found;
    struct service_rig_call k;
    uint64_t mine = me.session, theirs = other.session;

    (void)state;
    assert_int_equal(lock(&me, 1, LOCKSET_WRITE, 0, 9), 0);
    service_rig_hang_up(&me);
    service_rig_hang_up(&other);
    stop_metad();
    start_metad();
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    service_rig_dial(&other, RPC_ROLE_CLIENT);
    other.session = theirs;
    assert_int_equal(resume(&other, NULL, 0), 0);
    /* not all are back: nothing new is granted, whether it looks free or not */
    assert_int_equal(lock(&other, 1, LOCKSET_WRITE, 0, 9), -ERR_BUSY);
    assert_int_equal(lock(&other, 1, LOCKSET_WRITE, 50, 50), -ERR_BUSY);
    assert_int_equal(test_lock(&other, 1, LOCKSET_WRITE, &found), -ERR_BUSY);
    start(&other, &k, 3, PATIENCE_MS, 1, LOCKSET_READ, 9, 9);
    me.session = mine;
    assert_int_equal(resume(&me, claims, 1), 0);
    assert_int_equal(lock(&other, 1, LOCKSET_WRITE, 50, 50), 0);
    assert_int_equal(lock(&other, 1, LOCKSET_WRITE, 0, 0), -EAGAIN);
    assert_false(is_done(&k));
    assert_int_equal(lock(&me, 1, LOCKSET_NONE, 0, 9), 0);
    assert_int_equal(finish(&k), 0);
}

static void test_refusals(void **state)
{
    Replfs__LockReq r = REPLFS__LOCK_REQ__INIT;
    struct rpc_result res;
    uint64_t mine = me.session;

    (void)state;
    r.session = me.session;
    RPC_ENVELOPE(env, LOCK_REQ, lock_req, &r);
    assert_int_equal(service_rig_ask(&me, &env, &res), -ERR_PROTOCOL);
    rpc_result_free(&res);
    assert_int_equal(lock(&me, 1, 17, 0, 0), -EINVAL);
    assert_int_equal(lock(&me, 1, LOCKSET_READ, 2, 1), -EINVAL);
    me.session = mine + 2;
    assert_int_equal(lock(&me, 1, LOCKSET_READ, 0, 0), -ERR_SESSION);
    assert_int_equal(unlock_all(&me, 1), -ERR_SESSION);
    me.session = mine;
}

/* Two clients, two threads: the shared number is never seen by both. */
static struct {
    atomic_int inside;
    int rounds;
} contest;

static void *contestant(void *arg)
{
    struct service_rig_peer *p = arg;

    for (uint64_t i = 1; i <= 200; i++) {
        struct service_rig_call k;
        start(p, &k, i, PATIENCE_MS, 1, LOCKSET_WRITE, 0, 9);
        assert_int_equal(finish(&k), 0);
        assert_int_equal(atomic_fetch_add(&contest.inside, 1), 0);
        contest.rounds++;
        atomic_fetch_sub(&contest.inside, 1);
        assert_int_equal(i % 2 ? unlock_all(p, 1) : lock(p, 1, LOCKSET_NONE, 0, 9), 0);
    }
    return NULL;
}

static void test_contest(void **state)
{
    pthread_t t;

    (void)state;
    contest.rounds = 0;
    assert_int_equal(pthread_create(&t, NULL, contestant, &other), 0);
    contestant(&me);
    pthread_join(t, NULL);
    assert_int_equal(contest.rounds, 400);
}

/* metad stops while somebody waits. */
static void test_stop(void **state)
{
    struct service_rig_call k;

    (void)state;
    assert_int_equal(lock(&me, 1, LOCKSET_WRITE, 0, 9), 0);
    start(&other, &k, 7, PATIENCE_MS, 1, LOCKSET_READ, 5, 5);
    assert_int_equal(lock(&other, 2, LOCKSET_READ, 50, 50), 0);
    stop_metad();
    finish(&k);
    assert_int_not_equal(k.code, 0);
    start_metad();
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, other_setup, other_teardown)
    const struct CMUnitTest tests[] = {
        T(test_wait_and_grant), T(test_deadline_and_cancel),
        T(test_deadlock),       T(test_lost_connection),
        T(test_session_ends),   T(test_restart),
        T(test_refusals),       T(test_contest),
        T(test_stop),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
