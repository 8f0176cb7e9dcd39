/* Whom a chunkd forwards appends to: chunkds that metad knows, where metad says that they are, whatever
 * the sender says; also right after one has joined or moved, and without a metad. */
#include <stdatomic.h>

#include "chunkd_rig.h"

static const unsigned one_two[] = {1, 2, 0}, one_nine[] = {1, 9, 0};

/* Somebody who says to be a chunkd, and sees whether anybody comes. */
struct stranger {
    struct rpc_loop *loop;
    atomic_uint calls;
    char addr[32];
};

static void stranger_request(void *arg, struct rpc_req *req)
{
    atomic_fetch_add(&((struct stranger *)arg)->calls, 1);
    rpc_fail(req, -ERR_BUSY, "not for you");
}

static void stranger_start(struct stranger *s)
{
    struct rpc_config rc = {.role = RPC_ROLE_CHUNKD, .name = "stranger", .threads = 1};
    struct rpc_service svc = {.request = stranger_request, .arg = s};
    int port;

    atomic_store(&s->calls, 0);
    assert_int_equal(rpc_loop_new(&rc, &s->loop), 0);
    assert_int_equal(rpc_listen(s->loop, "127.0.0.1:0", &svc, &port), 0);
    snprintf(s->addr, sizeof s->addr, "127.0.0.1:%d", port);
}

/* Chunkds 1 and 2 run, and know of each other. */
static void start_two(void)
{
    for (unsigned i = 1; i <= 2; i++)
        chunkd_rig_chunkd_start(i, 1);
    for (unsigned i = 1; i <= 2; i++)
        chunkd_rig_tell(i, chunkd_addr(chunkd_rig.chunkd[i]));
    unsigned beats = chunkd_rig.node[1].beats;
    chunkd_rig_wait(chunkd_rig.node[1].beats > beats + 1);
}

static void nobody_else_is_called(void **state)
{
    struct stranger s;
    (void)state;
    start_two();
    stranger_start(&s);
    struct chunkd_rig_append a = {.chunk = 10,
                                  .len = 5000,
                                  .seed = 1,
                                  .chain = one_nine,
                                  .addr2 = s.addr,
                                  .timeout_ms = 1500};
    struct chunkd_rig_answer r = chunkd_rig_append(&a);
    assert_int_equal(atomic_load(&s.calls), 0);
    assert_int_equal(r.code, -ERR_CHAIN);
    assert_int_equal(r.chunkd, 9);
    /* the number is a chunkd's, the address is not */
    a = (struct chunkd_rig_append){
        .chunk = 11, .len = 5000, .seed = 2, .chain = one_two, .addr2 = s.addr, .timeout_ms = 1500};
    r = chunkd_rig_append(&a);
    assert_int_equal(atomic_load(&s.calls), 0);
    assert_int_equal(r.code, 0);
    chunkd_rig_check(2, 11, 0, 5000, 2);
    rpc_loop_free(s.loop);
}

/* ---- many at once ---- */

/* n appends to the chunk through chunkds 1 and 2. Returns how many failed. */
static unsigned appends(uint64_t chunk, unsigned n, const char *addr)
{
    enum { LEN = 6000 };
    unsigned failed = chunkd_rig_burst(chunk, n, LEN, &addr, 1);

    for (unsigned i = 0; failed == 0 && i < n; i += 7)
        chunkd_rig_check(2, chunk, i * LEN, LEN, i);
    return failed;
}

/* The next heartbeat is a long time away: who joined or moved meanwhile is asked for. */
static void a_new_one_is_reached_at_once(void **state)
{
    (void)state;
    chunkd_rig.metad.heartbeat_ms = 60000;
    chunkd_rig_tell(3, "127.0.0.1:1");
    chunkd_rig_chunkd_start(1, 1);
    chunkd_rig_chunkd_start(2, 1);
    chunkd_rig_tell(2, chunkd_addr(chunkd_rig.chunkd[2]));
    assert_int_equal(appends(20, 200, chunkd_addr(chunkd_rig.chunkd[2])), 0);
    /* it comes back elsewhere */
    chunkd_rig_chunkd_stop(2);
    chunkd_rig_chunkd_start(2, 1);
    chunkd_rig_tell(2, chunkd_addr(chunkd_rig.chunkd[2]));
    assert_int_equal(appends(21, 200, chunkd_addr(chunkd_rig.chunkd[2])), 0);
    /* and a client that has not heard of that reaches it, too */
    assert_int_equal(appends(22, 20, "127.0.0.1:2"), 0);
}

static void without_metad_what_is_known_goes_on(void **state)
{
    (void)state;
    start_two();
    unsigned registers = chunkd_rig.node[1].registers;
    pthread_mutex_lock(&chunkd_rig.mu);
    chunkd_rig.metad.refuse = -ERR_BUSY;
    chunkd_rig.metad.drop_beats = 1000000;
    pthread_mutex_unlock(&chunkd_rig.mu);
    struct chunkd_rig_append a = {
        .chunk = 30, .len = 500, .chain = one_nine, .addr2 = "127.0.0.1:1"};
    struct chunkd_rig_answer r = chunkd_rig_append(&a);
    assert_int_equal(r.code, -ERR_CHAIN);
    assert_int_equal(r.chunkd, 9);
    assert_int_equal(appends(31, 20, chunkd_addr(chunkd_rig.chunkd[2])), 0);
    assert_int_equal(chunkd_rig.node[1].registers, registers);
    pthread_mutex_lock(&chunkd_rig.mu);
    chunkd_rig.metad.refuse = 0;
    chunkd_rig.metad.drop_beats = 0;
    pthread_mutex_unlock(&chunkd_rig.mu);
}

#define T(f) cmocka_unit_test_setup_teardown(f, chunkd_rig_setup, chunkd_rig_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(nobody_else_is_called),
        T(a_new_one_is_reached_at_once),
        T(without_metad_what_is_known_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
