/* What health says of mishaps of operation: clocks that are far apart, certificates about to end, computers made
 * from one image, a second daemon on a copy of a data directory. */
#include "nodes_rig.h"

/* The text of the first problem of that code; "" none. */
static void what_of(const char *code, char out[static 512])
{
    struct rpc_result res;
    Replfs__StatusReply *s = nodes_rig_status(&res);
    out[0] = '\0';
    for (size_t i = 0; i < s->n_problems && !out[0]; i++)
        if (!strcmp(s->problems[i]->code, code))
            snprintf(out, 512, "%s", s->problems[i]->what);
    rpc_result_free(&res);
}

static bool said(void *arg)
{
    const char *const *a = arg; /* code, text */
    char what[512];
    what_of(a[0], what);
    return a[1] ? strstr(what, a[1]) != NULL : !what[0];
}
static void expect_said(const char *code, const char *text)
{
    const char *a[] = {code, text};
    wait_until(said, a, text ? text : code);
}

static void clocks_apart_are_named(void **state)
{
    (void)state;
    fx->chunkd[1].skew_ms = 2 * 3600 * 1000 + 330 * 1000;
    join_all(3);
    expect_said("clock", "2 h 5 min ahead of metad's");
    expect_said("clock", "chunkd 2 (host-1");
    pthread_mutex_lock(&fx->chunkd[1].lock);
    fx->chunkd[1].skew_ms = -(3 * 86400 + 60) * 1000ll; /* set wrong the other way */
    pthread_mutex_unlock(&fx->chunkd[1].lock);
    expect_said("clock", "3 d 0 h behind metad's");
    pthread_mutex_lock(&fx->chunkd[1].lock);
    fx->chunkd[1].skew_ms = 3000; /* as good as right */
    pthread_mutex_unlock(&fx->chunkd[1].lock);
    expect_said("clock", NULL);
}

static void clients_clocks_are_named(void **state)
{
    (void)state;
    uint64_t now = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    nodes_client_clock(fx->nodes, 77, now);
    expect_said("clock", NULL);
    nodes_client_clock(fx->nodes, 77, now - 90000 * 1000);
    expect_said("clock", "1 d 1 h behind metad's");
    nodes_client_clock(fx->nodes, 77, 0); /* a client that does not tell */
    expect_said("clock", NULL);
    nodes_client_clock(fx->nodes, 77, now + 7200 * 1000);
    expect_said("clock", "ahead of metad's");
    nodes_rig_close_session(77);
    expect_said("clock", NULL);
    nodes_client_clock(fx->nodes, 77, UINT64_MAX); /* nonsense harms nobody */
    expect_said("clock", NULL);
}

static void ends_of_certificates_are_named(void **state)
{
    (void)state;
    uint64_t now = (uint64_t)(clock_wall() / NSEC_PER_SEC);
    fx->chunkd[0].cert_end = now + 40 * 86400;
    fx->chunkd[1].cert_end = now + 29 * 86400 + 3600;
    join_all(2);
    expect_said("certificate", "the certificate of chunkd 2 (host-1");
    expect_said("certificate", "ends in 29 days");
    assert_true(has_problem("certificate", 1));
    pthread_mutex_lock(&fx->chunkd[1].lock);
    fx->chunkd[1].cert_end = now - 5;
    pthread_mutex_unlock(&fx->chunkd[1].lock);
    expect_said("certificate", "has ended");
    assert_true(has_problem("certificate", 2));
}

static void computers_of_one_image_are_named(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        snprintf(fx->chunkd[i].host, sizeof fx->chunkd[i].host, "%s", i == 1 ? "other" : "same");
    snprintf(fx->chunkd[0].boot_id, sizeof fx->chunkd[0].boot_id, "boot-a");
    snprintf(fx->chunkd[2].boot_id, sizeof fx->chunkd[2].boot_id, "boot-a");
    join_all(3);
    expect_said("same-host-id", NULL); /* two chunkds of one computer */
    nodes_rig_leave(&fx->chunkd[2]);
    snprintf(fx->chunkd[2].boot_id, sizeof fx->chunkd[2].boot_id, "boot-b");
    nodes_rig_join(&fx->chunkd[2], NODES_RIG_UUID);
    expect_said("same-host-id", "host id (machine-id) same: they count as one computer");
    expect_said("same-host-id", "chunkd 1 (same");
}

static void a_second_daemon_is_named(void **state)
{
    (void)state;
    char detail[256] = "";
    join_all(1);
    snprintf(fx->chunkd[3].host, sizeof fx->chunkd[3].host, "clone");
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[3]);
    assert_int_equal(do_register(&fx->chunkd[3], NODES_RIG_UUID, 1, c, detail), -ERR_BUSY);
    expect_said("chunkd-twice", NULL); /* it may be the same one, coming back */
    int64_t until = clock_mono() + 400 * NSEC_PER_MSEC;
    while (clock_mono() < until) {
        assert_int_equal(do_register(&fx->chunkd[3], NODES_RIG_UUID, 1, c, detail), -ERR_BUSY);
        usleep(20000); /* the pace at which a chunkd tries again */
    }
    expect_said("chunkd-twice", "another daemon (clone, 127.0.0.1:7103) says that it is chunkd 1");
    rpc_conn_unref(c);
}

/* replfsctl chunkd remove: the code, and the reason in detail. */
static int remove_chunkd(uint32_t id, char detail[static 512])
{
    Replfs__ChunkdRemoveReq r = REPLFS__CHUNKD_REMOVE_REQ__INIT;
    struct rpc_result res;
    r.chunkd = id;
    RPC_ENVELOPE(env, CHUNKD_REMOVE_REQ, chunkd_remove_req, &r);
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[3]);
    int rc = rpc_call_wait(c, &env, NULL, 5000, &res);
    bool failed = rc && res.rep && res.rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE;
    snprintf(detail, 512, "%s", failed ? res.rep->failure->detail : "");
    rpc_result_free(&res);
    rpc_conn_unref(c);
    return rc;
}

static void who_left_for_good_can_be_removed(void **state)
{
    (void)state;
    char detail[512];
    uint64_t ino;
    join_all(3);
    struct want w = {make_chunk("a", 1, 1, &ino), 1};
    uint32_t id = fx->chunkd[0].id;
    wait_until(really_held, &w, "the copy");
    assert_int_equal(remove_chunkd(99, detail), -ENOENT);
    assert_int_equal(remove_chunkd(id, detail), -EBUSY);
    assert_non_null(strstr(detail, "is connected"));
    nodes_rig_leave(&fx->chunkd[0]);
    assert_int_equal(remove_chunkd(id, detail), -EBUSY);
    assert_non_null(strstr(detail, "last good copy of 1 chunks"));
    nodes_rig_join(&fx->chunkd[0], NODES_RIG_UUID);
    set_goal(ino, 2);
    w.ok = 2;
    wait_until(really_held, &w, "another copy");
    nodes_rig_leave(&fx->chunkd[0]);
    expect_said("chunkd-dead", "chunkd 1");
    assert_int_equal(remove_chunkd(id, detail), 0);
    expect_said("chunkd-dead", NULL);
    expect_said("chunkd-suspect", NULL);
    struct rpc_result res;
    Replfs__StatusReply *s = nodes_rig_status(&res);
    assert_int_equal(s->n_chunkds, 2);
    rpc_result_free(&res);
    assert_int_equal(remove_chunkd(id, detail), -ENOENT);
    /* when it comes back, it is told so; and nobody gets its number */
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[0]);
    assert_int_equal(do_register(&fx->chunkd[0], NODES_RIG_UUID, id, c, detail),
                     -ERR_NOT_REGISTERED);
    assert_non_null(strstr(detail, "was removed"));
    rpc_conn_unref(c);
    nodes_rig_join(&fx->chunkd[3], "");
    assert_int_equal(fx->chunkd[3].id, 4);
}

static bool none_up(void *arg)
{
    bool up = false;
    (void)arg;
    lock_acquire(&fx->nodes->mu);
    for (uint32_t i = 1; i < fx->nodes->nnodes; i++)
        up |= fx->nodes->node[i] && fx->nodes->node[i]->state == REPLFS__NODE_STATE__NODE_UP;
    lock_release(&fx->nodes->mu);
    return !up;
}

static bool is_removed(void *arg)
{
    char detail[512];
    return remove_chunkd(*(uint32_t *)arg, detail) == 0;
}

static bool has_told(void *arg)
{
    lock_acquire(&fx->nodes->mu);
    bool told = nodes_find(fx->nodes, *(uint32_t *)arg)->reported_once;
    lock_release(&fx->nodes->mu);
    return told;
}

/* Since metad started it has not told what it has: that may be the copy which nobody else has. */
static void who_has_not_told_may_have_the_last(void **state)
{
    (void)state;
    char detail[512];
    uint64_t ino;
    join_all(2);
    make_chunk("a", 1, 1, &ino);
    uint32_t id = fx->chunkd[1].id;
    for (unsigned i = 0; i < 2; i++)
        nodes_rig_leave(&fx->chunkd[i]);
    wait_until(none_up, NULL, "metad to notice");
    lock_acquire(&fx->nodes->mu);
    nodes_find(fx->nodes, id)->reported_once = false;
    lock_release(&fx->nodes->mu);
    assert_int_equal(remove_chunkd(id, detail), -EBUSY);
    assert_non_null(strstr(detail, "last good copy"));
    nodes_rig_join(&fx->chunkd[1], NODES_RIG_UUID);
    wait_until(has_told, &id, "its report");
    nodes_rig_leave(&fx->chunkd[1]); /* it has told: nothing of that chunk */
    wait_until(is_removed, &id, "its removal");
}

/* Two copies, both on chunkds that are away: none of them is another's safety. */
static void who_has_left_is_no_other_copy(void **state)
{
    (void)state;
    char detail[512];
    uint64_t ino;
    join_all(2);
    struct want w = {make_chunk("a", 2, 2, &ino), 2};
    wait_until(really_held, &w, "the copies");
    for (unsigned i = 0; i < 2; i++)
        nodes_rig_leave(&fx->chunkd[i]);
    wait_until(none_up, NULL, "metad to notice");
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(remove_chunkd(fx->chunkd[i].id, detail), -EBUSY);
        assert_non_null(strstr(detail, "last good copy of 1 chunks"));
    }
    expect_said("chunkd-dead", "chunkd 1");
    assert_int_equal(remove_chunkd(fx->chunkd[0].id, detail), -EBUSY);
}

/* ---- copies of the names ---- */

static struct nodes_names told[2];

static bool unsynced;
static size_t tell_names(void *arg, struct nodes_names *out, size_t max,
                         struct nodes_names_all *all)
{
    (void)arg;
    assert_true(max >= 2);
    memcpy(out, told, sizeof(told));
    *all = (struct nodes_names_all){.wanted = 2, .sync = true, .unsynced = unsynced};
    return 2;
}

static void tell_ages(int64_t first_s, int64_t second_s)
{
    LOCK_SCOPE(&fx->nodes->mu);
    told[0].age_ns = first_s * NSEC_PER_SEC;
    told[1].age_ns = second_s * NSEC_PER_SEC;
    fx->nodes->cfg.names_copies = tell_names;
}

static void old_copies_of_the_names_are_named(void **state)
{
    (void)state;
    join_all(2);
    for (unsigned i = 0; i < 2; i++)
        told[i] = (struct nodes_names){.chunkd = i + 1, .generation = 7, .reached = 9};
    snprintf(told[1].error, sizeof(told[1].error), "its disk is full");
    tell_ages(1, 59);
    expect_said("names-copies", NULL);
    tell_ages(1, 61);
    expect_said("names-copies", "1 of 2 copies");
    expect_said("names-copies", "chunkd 2 (): its disk is full");
    tell_ages(90, 61);
    expect_said("names-copies", "newer than 61 s");
    struct rpc_result res;
    Replfs__StatusReply *s = nodes_rig_status(&res);
    assert_int_equal(s->n_names, 2);
    assert_int_equal(s->names[1]->age_ms, 61000);
    assert_int_equal(s->names[1]->reached, 9);
    rpc_result_free(&res);
}

static void copies_that_nobody_waits_for_are_named(void **state)
{
    (void)state;
    join_all(2);
    for (unsigned i = 0; i < 2; i++)
        told[i] = (struct nodes_names){.chunkd = i + 1, .generation = 7, .reached = 9};
    unsynced = false;
    tell_ages(1, 1);
    expect_said("names-unsynced", NULL);
    lock_acquire(&fx->nodes->mu);
    unsynced = true;
    lock_release(&fx->nodes->mu);
    expect_said("names-unsynced", "no chunkd takes changes of the names");
}

static void tell_members(unsigned n, int64_t heard2, int64_t heard3)
{
    const int64_t heard[3] = {0, heard2, heard3};

    lock_acquire(&fx->nodes->mu);
    fx->nodes->serving = clock_mono() - 10 * NSEC_PER_SEC;
    lock_release(&fx->nodes->mu);
    pthread_mutex_lock(&fx->mlog.lock);
    for (unsigned i = 0; i < n; i++)
        fx->mlog.members[i] = (struct mlog_member){
            .id = i + 1, .role = MLOG_VOTER, .match = fx->mlog.index, .heard_ms = heard[i]};
    fx->mlog.nmembers = n;
    pthread_mutex_unlock(&fx->mlog.lock);
}

static void silent_metads_are_named(void **state)
{
    (void)state;
    join_all(2);
    tell_members(3, 50, 50);
    expect_said("metad-silent", NULL);
    tell_members(3, 50, 60000);
    expect_said("metad-silent", "metad 3 (");
    expect_said("metad-silent", "2 of 3 metads are up, and the loss of one more stops the cluster");
    tell_members(3, -1, 50); /* never heard of */
    expect_said("metad-silent", "metad 2 (");
    tell_members(2, 50, 0);
    expect_said("metad-silent", NULL);
    expect_said("metads-two", "the loss of either");
    tell_members(1, 0, 0);
    expect_said("metads-two", NULL);
}

int main(void)
{
#define NODES_TEST(fn) cmocka_unit_test_setup_teardown(fn, nodes_rig_setup, nodes_rig_teardown)
    const struct CMUnitTest tests[] = {
        NODES_TEST(clocks_apart_are_named),
        NODES_TEST(clients_clocks_are_named),
        NODES_TEST(ends_of_certificates_are_named),
        NODES_TEST(computers_of_one_image_are_named),
        NODES_TEST(a_second_daemon_is_named),
        NODES_TEST(who_left_for_good_can_be_removed),
        NODES_TEST(who_has_left_is_no_other_copy),
        NODES_TEST(who_has_not_told_may_have_the_last),
        NODES_TEST(old_copies_of_the_names_are_named),
        NODES_TEST(copies_that_nobody_waits_for_are_named),
        NODES_TEST(silent_metads_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
