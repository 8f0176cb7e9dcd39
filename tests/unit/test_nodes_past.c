/* A metad that is older than what its chunkds have seen, and chunk numbers that were given twice. */
#include "tests/unit/nodes_rig.h"
#include "names_file.h"

#define ELSEWHERE 0x999u /* an incarnation that is not in this state's past */

/* One request; the reply's quarantine or released count. */
static uint64_t ask(Replfs__Envelope *env, int want)
{
    struct rpc_result res;
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[0]);
    uint64_t n = 0;
    assert_int_equal(rpc_call_wait(c, env, NULL, 5000, &res), want);
    if (!want && res.rep->body_case == REPLFS__ENVELOPE__BODY_RECOVER_REPLY)
        n = res.rep->recover_reply->behind;
    else if (!want && res.rep->quarantine_reply->n_items)
        n = res.rep->quarantine_reply->items[0]->chunk;
    else if (!want)
        n = res.rep->quarantine_reply->released;
    rpc_result_free(&res);
    rpc_conn_unref(c);
    return n;
}

static bool recover(bool accept)
{
    Replfs__RecoverReq m = REPLFS__RECOVER_REQ__INIT;
    RPC_ENVELOPE(env, RECOVER_REQ, recover_req, &m);
    m.accept = accept;
    return ask(&env, 0) != 0;
}

static uint64_t quarantine(uint64_t release, int want)
{
    Replfs__QuarantineReq m = REPLFS__QUARANTINE_REQ__INIT;
    RPC_ENVELOPE(env, QUARANTINE_REQ, quarantine_req, &m);
    m.release = release;
    return ask(&env, want);
}

/* The bytes of a copy in quarantine are asked of the chunkd that has it. */
static uint32_t fetch(uint32_t chunkd, uint64_t chunk, uint64_t session, int want)
{
    Replfs__QuarantineReq m = REPLFS__QUARANTINE_REQ__INIT;
    RPC_ENVELOPE(env, QUARANTINE_REQ, quarantine_req, &m);
    struct rpc_result res;
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[0]);
    m.fetch = chunk;
    m.fetch_session = session;
    m.chunkd = chunkd;
    assert_int_equal(rpc_call_wait(c, &env, NULL, 5000, &res), want);
    uint32_t len = want ? 0 : res.rep->quarantine_reply->len;
    rpc_result_free(&res);
    rpc_conn_unref(c);
    return len;
}

static bool is_listed(void *arg)
{
    return quarantine(0, 0) == *(uint64_t *)arg;
}

static void unlink_file(const char *name)
{
    Replfs__UnlinkOp o = REPLFS__UNLINK_OP__INIT;
    o.parent = FSM_ROOT_INO;
    o.name = (ProtobufCBinaryData){.len = strlen(name), .data = (uint8_t *)(uintptr_t)name};
    NODES_RIG_OP(op, UNLINK, unlink, &o);
    assert_int_equal(nodes_rig_apply(&op, 0, NULL), 0);
}

static void reap(uint64_t ino)
{
    Replfs__ReapOp o = REPLFS__REAP_OP__INIT;
    o.ino = &ino;
    o.n_ino = 1;
    NODES_RIG_OP(op, REAP, reap, &o);
    assert_int_equal(nodes_rig_apply(&op, 0, NULL), 0);
}

static void a_metad_that_is_behind_deletes_nothing(void **state)
{
    (void)state;
    uint64_t stranger = 5000, later = 4999, ino, freed;
    Replfs__Standing *seen = &fx->chunkd[0].seen;
    replfs__standing__init(seen);
    seen->incarnation = ELSEWHERE;
    seen->position = 77;
    seen->chunk_upto = 6000;
    join_all(2);
    assert_true(has_problem("metad-behind", 2));
    assert_true(recover(false));
    nodes_rig_store(&fx->chunkd[0], stranger, 100, 4242);
    freed = make_chunk("a", 1, 2, &ino); /* a copy too many */
    wait_until(is_listed, &stranger, "the unknown chunk to be listed");
    unlink_file("a");
    reap(ino);
    nodes_rig_close_session(77); /* nobody can commit it any more */
    nodes_rig_store(&fx->chunkd[0], later, 100, 4242);
    wait_until(is_listed, &later, "another one to be listed");
    int64_t now = clock_mono();
    wait_until(judged_again, &now, "another look");
    usleep(20000); /* an order to delete it would be on its way */
    assert_int_equal(quarantine(stranger, -EBUSY), 0);
    fetch(fx->chunkd[0].id, stranger, 4242, -EBUSY);
    assert_int_equal(held_by(freed), 2);
    assert_false(recover(true));
    assert_false(has_problem("metad-behind", 2));
    wait_until(nobody_holds, &freed, "what was deleted here to go");
    assert_int_equal(held_by(stranger), 1); /* the accepted future's chunks stay */
    assert_true(has_problem("quarantine", 1));
    nodes_rig_leave(&fx->chunkd[0]);
    nodes_rig_join(&fx->chunkd[0], NODES_RIG_UUID); /* still of that future: known now */
    assert_false(recover(false));
    wait_until(is_listed, &later, "the unknown chunks to be listed again");
    assert_int_equal(fetch(fx->chunkd[0].id, later, 4242, 0), 100);
    fetch(fx->chunkd[0].id, later, 4243, -ENOENT); /* another writer's */
    fetch(fx->chunkd[1].id, later, 4242, -ENOENT); /* it has none */
    fetch(99999, later, 4242, -ENOENT);
    assert_int_equal(quarantine(later, 0), 1);
    wait_until(nobody_holds, &later, "the released chunk to go");
    assert_int_equal(quarantine(stranger, 0), 1);
    wait_until(nobody_holds, &stranger, "the released chunk to go");
}

/* The number of a chunk that we have, but written by somebody else: not a copy, and not garbage. */
static void another_writers_chunk_is_no_copy(void **state)
{
    (void)state;
    struct want w = {.ok = 1};
    uint64_t ino;
    join_all(2);
    w.chunk = make_chunk("a", 1, 1, &ino);
    nodes_rig_store(&fx->chunkd[1], w.chunk, 8192, 4242);
    wait_until(is_listed, &w.chunk, "the other chunk to be listed");
    assert_true(really_held(&(struct want){.chunk = w.chunk, .ok = 2}) == false);
    wait_until(has_copies, &w, "one copy");
    unlink_file("a");
    reap(ino);
    nodes_rig_close_session(77);
    WAIT_UNTIL(held_by(w.chunk) == 1);
    assert_int_equal(held_by(w.chunk), 1); /* ours went, by its writer's name */
    pthread_mutex_lock(&fx->chunkd[1].lock);
    bool there = find_held(&fx->chunkd[1], w.chunk);
    pthread_mutex_unlock(&fx->chunkd[1].lock);
    assert_true(there);
}

/* A chunkd that joined a metad we know nothing of keeps its id, and nobody else gets it. */
static void ids_of_chunkds_are_kept(void **state)
{
    (void)state;
    Replfs__Standing *seen = &fx->chunkd[0].seen;
    replfs__standing__init(seen);
    seen->incarnation = ELSEWHERE;
    seen->chunkd_upto = 8;
    fx->chunkd[0].id = 7;
    nodes_rig_join(&fx->chunkd[0], NODES_RIG_UUID);
    assert_int_equal(fx->chunkd[0].id, 7);
    nodes_rig_join(&fx->chunkd[1], "");
    assert_int_equal(fx->chunkd[1].id, 8);
}

static unsigned another_told;

static void count_another(void *arg, const char *which)
{
    (void)arg;
    assert_non_null(strstr(which, "in term 9"));
    __atomic_add_fetch(&another_told, 1, __ATOMIC_RELAXED);
}

/* One chunkd alone can be wrong, or lie: it is refused. More than half of them end this metad, once. */
static void another_copy_has_led(void **state)
{
    (void)state;
    char detail[256] = "";
    another_told = 0;
    fx->nodes->cfg.obey_another = count_another;
    join_all(3);
    for (unsigned i = 0; i < 3; i++)
        nodes_rig_leave(&fx->chunkd[i]);
    fx->chunkd[0].term = fx->chunkd[1].term = fx->chunkd[3].term = 9;
    fx->chunkd[2].term = fx->mlog.leading; /* our own */
    struct rpc_conn *c = nodes_rig_dial(&fx->chunkd[0]);
    uint32_t stranger = 99;
    assert_int_equal(do_register(&fx->chunkd[3], NODES_RIG_UUID, stranger, c, detail),
                     -ERR_OLD_TERM);
    for (unsigned i = 0; i < 2; i++) /* the same one twice */
        assert_int_equal(do_register(&fx->chunkd[0], NODES_RIG_UUID, fx->chunkd[0].id, c, detail),
                         -ERR_OLD_TERM);
    assert_non_null(strstr(detail, "OLDER COPIES"));
    assert_int_equal(do_register(&fx->chunkd[2], NODES_RIG_UUID, fx->chunkd[2].id, c, detail), 0);
    assert_int_equal(__atomic_load_n(&another_told, __ATOMIC_RELAXED), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(do_register(&fx->chunkd[1], NODES_RIG_UUID, fx->chunkd[1].id, c, detail),
                         -ERR_OLD_TERM);
    assert_int_equal(__atomic_load_n(&another_told, __ATOMIC_RELAXED), 1);
    rpc_conn_unref(c);
}

/* Among several metads a higher term is a newer leader's, as long as the life is the same. */
static void a_newer_leader_is_no_other_copy(void **state)
{
    (void)state;
    Replfs__RegisterReq r = REPLFS__REGISTER_REQ__INIT;
    Replfs__MetadOp o = REPLFS__METAD_OP__INIT;
    r.term = fx->mlog.leading + 1;
    assert_true(nodes_life_is_other(fx->nodes, &r));
    Replfs__FeatureOp feature = REPLFS__FEATURE_OP__INIT;
    feature.level = 1;
    NODES_RIG_OP(raise, FEATURE, feature, &feature);
    assert_int_equal(nodes_rig_apply(&raise, 0, NULL), 0);
    for (unsigned id = 1; id <= 3; id++) {
        o.id = id;
        o.addr = (char *)"127.0.0.1:7000";
        NODES_RIG_OP(op, METAD, metad, &o);
        assert_int_equal(nodes_rig_apply(&op, 0, NULL), 0);
    }
    assert_false(nodes_life_is_other(fx->nodes, &r));
    r.term = NAMES_LIFE;
    assert_true(nodes_life_is_other(fx->nodes, &r));
}

int main(void)
{
#define NODES_TEST(fn) cmocka_unit_test_setup_teardown(fn, nodes_rig_setup, nodes_rig_teardown)
    const struct CMUnitTest tests[] = {
        NODES_TEST(a_metad_that_is_behind_deletes_nothing),
        NODES_TEST(another_writers_chunk_is_no_copy),
        NODES_TEST(ids_of_chunkds_are_kept),
        NODES_TEST(another_copy_has_led),
        NODES_TEST(a_newer_leader_is_no_other_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
