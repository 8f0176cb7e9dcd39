/* The scrub of real chunkds, against a fake metad: what it finds, tells, and takes back; pace, pause, restart. */
#include "chunkd_rig.h"
#include "chunkd/scrub_state.h"

static const unsigned both[] = {1, 2, 0};
#define NCHUNKS 12u
#define LEN 300000u

static struct chunkd_rig_node *node(unsigned i)
{
    return &chunkd_rig.node[i];
}

/* What node i told of its scrub. */
static Replfs__ScrubStat told(unsigned i)
{
    pthread_mutex_lock(&chunkd_rig.mu);
    Replfs__ScrubStat s = node(i)->scrub;
    pthread_mutex_unlock(&chunkd_rig.mu);
    return s;
}

static void write_chunks(unsigned from, unsigned n)
{
    for (unsigned c = from; c < from + n; c++)
        for (unsigned k = 0; k < 3; k++) {
            struct chunkd_rig_append a = {
                .chunk = c, .off = k * LEN, .len = LEN, .seed = c * 10 + k, .chain = both};
            assert_int_equal(chunkd_rig_append(&a).code, 0);
        }
}

static void start(uint64_t cycle_ms)
{
    chunkd_rig.metad.scrub_cycle_ms = cycle_ms;
    for (unsigned i = 1; i <= 2; i++)
        chunkd_rig_chunkd_start(i, 1);
    chunkd_rig_wait(node(1)->scrub.pass && node(2)->scrub.pass);
}

static int command(unsigned i, Replfs__ScrubWhat what)
{
    struct chunkd_rig_order_reply r = {0};
    Replfs__ScrubOrder s = REPLFS__SCRUB_ORDER__INIT;
    Replfs__OrderReq o = REPLFS__ORDER_REQ__INIT;
    s.what = what;
    o.order_case = REPLFS__ORDER_REQ__ORDER_SCRUB;
    o.scrub = &s;
    return chunkd_rig_order(i, &o, &r);
}

/* A pass from the beginning to the end, begun now. */
static void full_pass(unsigned i)
{
    uint64_t pass = told(i).pass;
    assert_int_equal(command(i, REPLFS__SCRUB_WHAT__SCRUB_START_FAST), 0);
    chunkd_rig_wait(node(i)->scrub.pass >= pass + 2); /* one begins now, one when it is over */
}

static int copy_here(unsigned to, unsigned from, uint64_t chunk)
{
    uint8_t cap[CAP_LEN];
    struct chunkd_rig_order_reply r = {0};
    Replfs__CopySource src = REPLFS__COPY_SOURCE__INIT, *list[] = {&src};
    Replfs__CopyOrder c = REPLFS__COPY_ORDER__INIT;
    Replfs__OrderReq o = REPLFS__ORDER_REQ__INIT;
    cap_make(&chunkd_rig_key, chunk, CHUNKD_RIG_SESSION, CHUNKD_RIG_SESSION, CAP_READ, UINT32_MAX,
             cap);
    src.chunkd = from;
    src.addr = chunkd_rig.node[from].addr;
    src.cap.data = cap;
    src.cap.len = sizeof cap;
    c.chunk = chunk;
    c.len = 3 * LEN;
    c.session = CHUNKD_RIG_SESSION;
    c.sources = list;
    c.n_sources = 1;
    o.order_case = REPLFS__ORDER_REQ__ORDER_COPY;
    o.copy = &c;
    return chunkd_rig_order(to, &o, &r);
}

static void rot_is_found_told_and_healed(void **state)
{
    (void)state;
    start(1209600000);
    write_chunks(100, NCHUNKS);
    full_pass(1);
    full_pass(2);
    assert_int_equal(told(1).found, 0); /* nothing is wrong yet */
    chunkd_rig_damage(1, 1030, 5);      /* chunk 103, its first record */
    chunkd_rig_damage(1, 1071, 33);     /* chunk 107, its second */
    full_pass(1);
    full_pass(2);
    chunkd_rig_wait(node(1)->nbad == 2 && node(1)->scrub.found == 2 && node(1)->scrub.open == 2);
    for (unsigned i = 0; i < 2; i++) {
        bool first = node(1)->bad[i].chunk == 103;
        uint32_t at = first ? 5 : LEN + 33; /* blocks are counted from the beginning of a record */
        assert_int_equal(node(1)->bad[i].chunk, first ? 103 : 107);
        assert_in_range(at, node(1)->bad[i].off, node(1)->bad[i].off + 4095);
    }
    assert_int_equal(told(2).found, 0);
    /* told again, as long as it is so */
    chunkd_rig_wait(node(1)->bad_told > 4);
    /* and at once to a metad that begins anew, or another that leads */
    pthread_mutex_lock(&chunkd_rig.mu);
    size_t before = node(1)->bad_told;
    unsigned registers = node(1)->registers;
    struct rpc_conn *c = rpc_conn_ref(node(1)->conn);
    pthread_mutex_unlock(&chunkd_rig.mu);
    rpc_conn_close(c);
    rpc_conn_unref(c);
    chunkd_rig_wait(node(1)->registers > registers && node(1)->bad_told >= before + 2);
    assert_int_equal(copy_here(1, 2, 103), 0);
    chunkd_rig_wait(node(1)->scrub.healed == 1 && node(1)->scrub.open == 1);
    assert_int_equal(copy_here(1, 2, 107), 0);
    chunkd_rig_wait(node(1)->scrub.healed == 2 && node(1)->scrub.open == 0);
    full_pass(1);
    assert_int_equal(told(1).found, 2);
    chunkd_rig_check(1, 103, 0, LEN, 1030);
}

static void a_chunk_that_is_deleted_is_no_concern(void **state)
{
    (void)state;
    start(1209600000);
    write_chunks(100, 2);
    chunkd_rig_damage(1, 1002, 0);
    full_pass(1);
    chunkd_rig_wait(node(1)->scrub.open == 1);
    struct chunkd_rig_order_reply r = {0};
    uint64_t chunk = 100, session = CHUNKD_RIG_SESSION;
    Replfs__DeleteOrder del = REPLFS__DELETE_ORDER__INIT;
    Replfs__OrderReq o = REPLFS__ORDER_REQ__INIT;
    del.n_chunks = del.n_sessions = 1;
    del.chunks = &chunk;
    del.sessions = &session;
    o.order_case = REPLFS__ORDER_REQ__ORDER_DELETE_CHUNKS;
    o.delete_chunks = &del;
    assert_int_equal(chunkd_rig_order(1, &o, &r), 0);
    chunkd_rig_wait(node(1)->scrub.open == 0 && node(1)->scrub.healed == 1);
}

/* Without a word of an administrator a cycle is enough, and the age says so. */
static void a_cycle_finds_it_by_itself(void **state)
{
    (void)state;
    start(2000);
    write_chunks(100, NCHUNKS);
    chunkd_rig_damage(2, 1110, 100);
    chunkd_rig_wait(node(2)->nbad == 1 && node(2)->bad[0].chunk == 111);
    chunkd_rig_wait(node(1)->scrub.pass > 3);
    assert_true(told(1).age_s < WAIT_LIMIT_S);
    assert_int_equal(told(1).found, 0);
}

static void pause_and_resume(void **state)
{
    (void)state;
    start(1500);
    write_chunks(100, NCHUNKS);
    assert_int_equal(command(1, REPLFS__SCRUB_WHAT__SCRUB_PAUSE), 0);
    chunkd_rig_wait(node(1)->scrub.state == REPLFS__SCRUB_STATE__SCRUB_PAUSED);
    /* and it stays so over a restart */
    chunkd_rig_chunkd_stop(1);
    memset(&node(1)->scrub, 0, sizeof node(1)->scrub);
    chunkd_rig_chunkd_start(1, 1);
    chunkd_rig_wait(node(1)->scrub.state == REPLFS__SCRUB_STATE__SCRUB_PAUSED);
    uint64_t pass = told(1).pass, done = told(1).done;
    uint64_t other = told(2).pass;
    chunkd_rig_wait(node(2)->scrub.pass > other + 2); /* the other goes on meanwhile */
    assert_int_equal(told(1).pass, pass);
    assert_int_equal(told(1).done, done);
    assert_int_equal(command(1, REPLFS__SCRUB_WHAT__SCRUB_RESUME), 0);
    chunkd_rig_wait(node(1)->scrub.pass > pass + 1);
    assert_int_equal(command(1, 77), -EINVAL);
}

/* Stopped in the middle, it goes on there; without its file, or with a damaged one, it begins anew. */
static void a_restart_goes_on(void **state)
{
    (void)state;
    static struct scrub_state st;
    char dir[96], path[128];
    chunkd_rig.metad.scrub_rate = 1u << 20;
    start(1209600000);
    write_chunks(100, NCHUNKS);
    uint64_t before = told(1).pass;
    assert_int_equal(command(1, REPLFS__SCRUB_WHAT__SCRUB_START), 0);
    /* of 10 MB, at 1 MiB a second or less */
    chunkd_rig_wait(node(1)->scrub.pass > before && node(1)->scrub.done > 2 * LEN);
    chunkd_rig_chunkd_stop(1);
    snprintf(dir, sizeof dir, "%s/1-0", chunkd_rig.dir);
    scrub_state_init(&st, 1, 0, 0);
    assert_int_equal(scrub_state_load(&st, dir), 0);
    assert_true(st.done > 2 * LEN && st.done < 3 * LEN * NCHUNKS && st.chunk > 100);
    assert_int_equal(st.mode, SCRUB_SOON);
    chunkd_rig_chunkd_start(1, 1);
    chunkd_rig_wait(node(1)->scrub.pass == st.pass && node(1)->scrub.done >= st.done);
    chunkd_rig_chunkd_stop(1);
    snprintf(path, sizeof path, "%s/replfs.scrub", dir);
    assert_int_equal(truncate(path, 100), 0);
    chunkd_rig_chunkd_start(1, 1);
    chunkd_rig_wait(node(1)->scrub.pass == 1);
}

int main(void)
{
#define SCRUB_TEST(fn) cmocka_unit_test_setup_teardown(fn, chunkd_rig_setup, chunkd_rig_teardown)
    const struct CMUnitTest tests[] = {
        SCRUB_TEST(rot_is_found_told_and_healed),
        SCRUB_TEST(a_chunk_that_is_deleted_is_no_concern),
        SCRUB_TEST(a_cycle_finds_it_by_itself),
        SCRUB_TEST(pause_and_resume),
        SCRUB_TEST(a_restart_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
