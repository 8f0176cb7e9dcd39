/* File locks as the client has them, at a metad that decides: granted, refused, waited for, cancelled, given up
 * with a file, claimed again after a cut, lost with the session. `me` is who else wants them. */
#include "base/lockset.h"
#include "client_rig.h"

#define OWNER 100u
#define HANDLE 7u

struct wish { /* a request of the client's */
    pthread_mutex_t mu;
    bool done;
    int code;
    uint64_t id;
};

static void on_lock(void *arg, int code)
{
    struct wish *w = arg;
    pthread_mutex_lock(&w->mu);
    w->code = code;
    w->done = true;
    pthread_mutex_unlock(&w->mu);
}

static struct client_lock range(uint64_t start, uint64_t end, uint32_t type)
{
    return (struct client_lock){.ino = CLIENT_RIG_INO,
                                .owner = OWNER,
                                .start = start,
                                .end = end,
                                .type = type,
                                .pid = 42,
                                .handle = HANDLE};
}

static void ask_for(struct wish *w, const struct client_lock *l, bool wait)
{
    *w = (struct wish){.mu = PTHREAD_MUTEX_INITIALIZER};
    w->id = client_lock_prepare(client_rig.cl, l, wait, on_lock, w);
    client_lock_start(client_rig.cl, w->id);
}

static int outcome(struct wish *w)
{
    WAIT_LOCKED(&w->mu, w->done);
    return w->code;
}

static int lock_now(const struct client_lock *l)
{
    struct wish w;
    ask_for(&w, l, false);
    return outcome(&w);
}

/* The other session's, at once or not at all; type LOCKSET_NONE: unlock. */
static int others(uint64_t start, uint64_t end, uint32_t type, bool flock)
{
    Replfs__LockReq m = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock l = REPLFS__LOCK__INIT;
    struct rpc_result res;
    l.ino = CLIENT_RIG_INO;
    l.owner = 1;
    l.start = start;
    l.end = end;
    l.type = type;
    l.pid = 77;
    l.flock = flock;
    m.session = me.session;
    m.lock = &l;
    m.id = ++me.seq;
    RPC_ENVELOPE(env, LOCK_REQ, lock_req, &m);
    int rc = service_rig_ask(&me, &env, &res);
    rpc_result_free(&res);
    return rc;
}

static void test_granted_and_given_up(void **st)
{
    (void)st;
    struct client_lock l = range(0, 99, LOCKSET_WRITE), half = range(0, 49, LOCKSET_NONE);
    assert_int_equal(lock_now(&l), 0);
    assert_true(client_locks_owner(client_rig.cl, CLIENT_RIG_INO, OWNER));
    assert_int_equal(others(0, 0, LOCKSET_READ, false), -EAGAIN);
    assert_int_equal(others(100, 199, LOCKSET_WRITE, false), 0);
    assert_int_equal(client_unlock(client_rig.cl, &half), 0);
    assert_int_equal(others(0, 49, LOCKSET_WRITE, false), 0);
    assert_int_equal(others(50, 50, LOCKSET_WRITE, false), -EAGAIN);
    assert_int_equal(client_unlock_owner(client_rig.cl, CLIENT_RIG_INO, OWNER), 0);
    assert_false(client_locks_owner(client_rig.cl, CLIENT_RIG_INO, OWNER));
    assert_int_equal(others(50, 50, LOCKSET_WRITE, false), 0);
}

/* What is not locked costs no message. */
static void test_unlock_of_nothing(void **st)
{
    (void)st;
    struct client_lock l = range(0, 99, LOCKSET_NONE);
    assert_int_equal(client_unlock(client_rig.cl, &l), 0);
    assert_int_equal(client_unlock_owner(client_rig.cl, CLIENT_RIG_INO, OWNER), 0);
    assert_int_equal(client_rig_get(asked[REPLFS__ENVELOPE__BODY_LOCK_REQ]), 0);
    assert_int_equal(client_rig_get(asked[REPLFS__ENVELOPE__BODY_UNLOCK_ALL_REQ]), 0);
}

static void test_refused_and_told_why(void **st)
{
    (void)st;
    struct client_lock l = range(0, 99, LOCKSET_WRITE), found;
    assert_int_equal(others(10, 20, LOCKSET_WRITE, false), 0);
    assert_int_equal(lock_now(&l), -EAGAIN);
    assert_false(client_locks_owner(client_rig.cl, CLIENT_RIG_INO, OWNER));
    assert_int_equal(client_lock_test(client_rig.cl, &l, &found), 0);
    assert_int_equal(found.type, LOCKSET_WRITE);
    assert_true(found.start == 10 && found.end == 20);
    l = range(30, 99, LOCKSET_WRITE);
    assert_int_equal(client_lock_test(client_rig.cl, &l, &found), 0);
    assert_int_equal(found.type, LOCKSET_NONE);
}

static void test_waited_for(void **st)
{
    (void)st;
    struct client_lock l = range(0, 99, LOCKSET_WRITE);
    struct wish w;
    assert_int_equal(others(0, 99, LOCKSET_WRITE, false), 0);
    ask_for(&w, &l, true);
    client_rig_wait(client_rig.asked[REPLFS__ENVELOPE__BODY_LOCK_REQ] == 1);
    assert_false(w.done);
    assert_int_equal(others(0, 99, LOCKSET_NONE, false), 0);
    assert_int_equal(outcome(&w), 0);
    assert_int_equal(others(0, 99, LOCKSET_WRITE, false), -EAGAIN);
}

/* And the place in the queue is gone with the request. */
static void test_cancelled(void **st)
{
    (void)st;
    struct client_lock l = range(0, 99, LOCKSET_WRITE);
    struct wish w;
    assert_int_equal(others(0, 99, LOCKSET_WRITE, false), 0);
    ask_for(&w, &l, true);
    client_rig_wait(client_rig.asked[REPLFS__ENVELOPE__BODY_LOCK_REQ] == 1);
    client_lock_cancel(client_rig.cl, w.id);
    assert_int_equal(outcome(&w), -EINTR);
    assert_int_equal(others(0, 99, LOCKSET_NONE, false), 0);
    assert_false(client_locks_owner(client_rig.cl, CLIENT_RIG_INO, OWNER));
    assert_int_equal(others(0, 99, LOCKSET_WRITE, false), 0);
}

/* A whole-file lock goes with the open file that it was set through, not with another. */
static void test_goes_with_its_handle(void **st)
{
    (void)st;
    struct client_lock l = range(0, UINT64_MAX, LOCKSET_WRITE);
    l.flock = true;
    assert_int_equal(lock_now(&l), 0);
    assert_true(client_locks_handle(client_rig.cl, CLIENT_RIG_INO, HANDLE));
    client_unlock_handle(client_rig.cl, CLIENT_RIG_INO, HANDLE + 1);
    assert_int_equal(others(0, UINT64_MAX, LOCKSET_READ, true), -EAGAIN);
    client_unlock_handle(client_rig.cl, CLIENT_RIG_INO, HANDLE);
    assert_int_equal(others(0, UINT64_MAX, LOCKSET_READ, true), 0);
    assert_false(client_locks_handle(client_rig.cl, CLIENT_RIG_INO, HANDLE));
}

static void test_claimed_after_a_cut(void **st)
{
    (void)st;
    struct client_lock l = range(0, 99, LOCKSET_WRITE);
    assert_int_equal(lock_now(&l), 0);
    client_rig_cut();
    client_rig_wait(client_rig.sessions == 2);
    assert_int_equal(client_rig_get(claimed_locks), 1);
    assert_int_equal(others(0, 99, LOCKSET_WRITE, false), -EAGAIN);
    assert_int_equal(client_unlock(client_rig.cl, &l), 0);
    assert_int_equal(others(0, 99, LOCKSET_WRITE, false), 0);
}

static void test_lost_with_the_session(void **st)
{
    (void)st;
    struct client_lock l = range(0, 99, LOCKSET_WRITE);
    assert_int_equal(lock_now(&l), 0);
    client_rig_end_session();
    client_rig_cut();
    client_rig_wait(client_rig.sessions == 2);
    WAIT_UNTIL(!client_locks_owner(client_rig.cl, CLIENT_RIG_INO, OWNER));
    WAIT_UNTIL(others(0, 99, LOCKSET_WRITE, false) == 0);
    assert_int_equal(lock_now(&l), -EAGAIN);
}

#define T(f) cmocka_unit_test_setup_teardown(f, client_rig_leased_setup, client_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_granted_and_given_up),
        T(test_unlock_of_nothing),
        T(test_refused_and_told_why),
        T(test_waited_for),
        T(test_cancelled),
        T(test_goes_with_its_handle),
        T(test_claimed_after_a_cut),
        T(test_lost_with_the_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
