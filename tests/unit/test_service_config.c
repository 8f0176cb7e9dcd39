/* Settings of the cluster through metad's door: shown, changed while it runs, kept over a restart; and a lease term
 * that is lowered. */
#define LEASE_MS 4000u
#include "tests/unit/service_rig.h"

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "metad/coherence/leases.h"
#include "metad/fsm/fsm_cluster.h"
#include "tests/unit/wait.h"

#define LONG_TERM 2000u

static struct service_rig_peer other, admin;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static struct rpc_req *asked; /* the last recall, not answered */

static void on_recall(void *arg, struct rpc_req *req)
{
    (void)arg;
    pthread_mutex_lock(&mu);
    if (asked)
        rpc_fail(asked, EIO, "asked again");
    asked = req;
    pthread_mutex_unlock(&mu);
}

static void give_up_recalls(void)
{
    pthread_mutex_lock(&mu);
    if (asked)
        rpc_fail(asked, EIO, "the test is over");
    asked = NULL;
    pthread_mutex_unlock(&mu);
}

static int setup(void **state)
{
    static const struct rpc_service svc = {.request = on_recall};

    (void)state;
    memset(&me, 0, sizeof(me));
    memset(&other, 0, sizeof(other));
    if (!new_metad())
        return -1;
    service_rig_dial_serving(&me, RPC_ROLE_CLIENT, &svc);
    service_rig_dial_serving(&other, RPC_ROLE_CLIENT, &svc);
    service_rig_dial(&admin, RPC_ROLE_ADMIN);
    int rv = service_rig_open_session(&me, 0, NULL, 0);
    return rv ? rv : service_rig_open_session(&other, 0, NULL, 0);
}

static int teardown(void **state)
{
    give_up_recalls();
    service_rig_hang_up(&other);
    service_rig_hang_up(&admin);
    return service_rig_teardown(state);
}

/* name NULL: changes nothing. Returns the code; *value: what `shown` is in the answer. */
static int config(const char *name, uint64_t value, const char *shown, uint64_t *now, bool *told)
{
    Replfs__ConfigReq r = REPLFS__CONFIG_REQ__INIT;
    Replfs__SettingChange c = REPLFS__SETTING_CHANGE__INIT, *list = &c;
    struct rpc_result res;

    c.name = (char *)(uintptr_t)name;
    c.value = value;
    r.set = &list;
    r.n_set = name != NULL;
    RPC_ENVELOPE(env, CONFIG_REQ, config_req, &r);
    int rv = service_rig_ask(&admin, &env, &res);
    for (size_t k = 0; rv == 0 && shown && k < res.rep->config_reply->n_settings; k++) {
        const Replfs__SettingInfo *i = res.rep->config_reply->settings[k];
        if (strcmp(i->name, shown))
            continue;
        *now = i->value;
        *told = i->told;
    }
    rpc_result_free(&res);
    return rv;
}

static void test_show_and_change(void **state)
{
    (void)state;
    uint64_t v = 0;
    bool told = true;

    assert_int_equal(config(NULL, 0, "dead", &v, &told), 0);
    assert_int_equal(v, 12 * SUSPECT_MS); /* what nodes were configured with */
    assert_false(told);
    assert_int_equal(config("dead", 123456, "dead", &v, &told), 0);
    assert_int_equal(v, 123456);
    assert_true(told);
    assert_int_equal(config("dead", 1, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(config("dread", 100000, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(config("lease-term", LEASE_MS + 1, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(config("min-copies", 9, NULL, NULL, NULL), -EINVAL);
    assert_int_equal(config("min-copies", 3, NULL, NULL, NULL), 0);
    service_rig_hang_up(&admin);
    service_rig_hang_up(&me);
    service_rig_hang_up(&other);
    stop_metad();
    start_metad(); /* configured as before */
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    service_rig_dial(&other, RPC_ROLE_CLIENT);
    service_rig_dial(&admin, RPC_ROLE_ADMIN);
    assert_int_equal(config(NULL, 0, "dead", &v, &told), 0);
    assert_int_equal(v, 123456);
    assert_true(told);
}

/* What sessions are told, from the next keepalive on. */
static void keepalive(struct service_rig_peer *p, uint32_t goes_by, uint32_t *term, uint32_t *least)
{
    Replfs__KeepaliveReq r = REPLFS__KEEPALIVE_REQ__INIT;
    struct rpc_result res;

    r.session = p->session;
    r.term_ms = goes_by;
    RPC_ENVELOPE(env, KEEPALIVE_REQ, keepalive_req, &r);
    assert_int_equal(service_rig_ask(p, &env, &res), 0);
    *term = res.rep->keepalive_reply->term_ms;
    *least = res.rep->keepalive_reply->default_min_copies;
    rpc_result_free(&res);
}

static void test_told_to_sessions(void **state)
{
    (void)state;
    uint32_t term, least;

    assert_int_equal(config("lease-term", 1500, NULL, NULL, NULL), 0);
    assert_int_equal(config("min-copies", 4, NULL, NULL, NULL), 0);
    keepalive(&me, 0, &term, &least);
    assert_int_equal(term, 1500);
    assert_int_equal(least, 4);
}

/* Who waits for a silent holder waits for the term that this one was told. */
static void test_lowered_term_is_waited_for(void **state)
{
    (void)state;
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Mutation m = REPLFS__MUTATION__INIT, *list = &m;
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
    struct service_rig_call k;

    assert_int_equal(config("lease-term", LONG_TERM, NULL, NULL, NULL), 0);
    c.parent = FSM_ROOT_INO;
    c.name = bytes_of("mine");
    c.mode = S_IFREG | 0644;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &c;
    m.seq = ++me.seq;
    m.op = &op;
    r.session = me.session;
    r.ops = &list;
    r.n_ops = 1;
    r.lease = r.exclusive = true;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    send_to(&me, &k, &env, PATIENCE_MS);
    assert_int_equal(finish(&k), 0);
    assert_int_equal(k.lease, LEASE_EXCLUSIVE);
    int64_t silent_since = clock_boot();
    assert_int_equal(config("lease-term", 200, NULL, NULL, NULL), 0);
    s.ino = k.ino;
    s.valid = REPLFS__SETATTR_OP__VALID__MODE;
    s.mode = 0600;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &s;
    m.seq = ++other.seq;
    r.session = other.session;
    send_to(&other, &k, &env, PATIENCE_MS);
    assert_int_equal(finish(&k), 0);
    assert_true(clock_boot() - silent_since >= (LONG_TERM - 100) * NSEC_PER_MSEC);
}

static uint64_t longest(void)
{
    return fsm_term_longest(md.fsm);
}

static bool fell_after_keepalives(uint32_t goes_by)
{
    uint32_t term, least;

    keepalive(&me, goes_by, &term, &least);
    keepalive(&other, goes_by, &term, &least);
    return longest() == 300;
}

/* Once all sessions say that they go by the shorter term, and the former one is over, it is over for the next leader,
 * too. */
static void test_lowered_term_is_heard(void **state)
{
    (void)state;
    uint32_t term, least;

    assert_int_equal(config("lease-term", 1000, NULL, NULL, NULL), 0);
    assert_int_equal(config("lease-term", 300, NULL, NULL, NULL), 0);
    int64_t lowered = clock_boot();
    assert_int_equal(longest(), 1000);
    keepalive(&me, 300, &term, &least);
    keepalive(&other, 1000, &term, &least); /* had not heard when it sent this */
    assert_int_equal(term, 300);
    WAIT_UNTIL(fell_after_keepalives(300));
    assert_true(clock_boot() - lowered >= 1000 * NSEC_PER_MSEC);
    service_rig_hang_up(&admin);
    service_rig_hang_up(&me);
    service_rig_hang_up(&other);
    stop_metad();
    start_metad();
    assert_int_equal(longest(), 300);
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    service_rig_dial(&other, RPC_ROLE_CLIENT);
    service_rig_dial(&admin, RPC_ROLE_ADMIN);
}

/* A client too old to say by what it goes. */
static void test_silent_client_keeps_it_long(void **state)
{
    (void)state;
    uint32_t term, least;

    assert_int_equal(config("lease-term", 400, NULL, NULL, NULL), 0);
    assert_int_equal(config("lease-term", 300, NULL, NULL, NULL), 0);
    for (int64_t until = clock_boot() + 1500 * NSEC_PER_MSEC; clock_boot() < until; usleep(20000)) {
        keepalive(&me, 300, &term, &least);
        keepalive(&other, 0, &term, &least);
        assert_int_equal(longest(), 400);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_show_and_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_told_to_sessions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lowered_term_is_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lowered_term_is_heard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silent_client_keeps_it_long, setup, teardown),
    };
    log_init("test_service_config", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
