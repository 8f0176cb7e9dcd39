/* What a chunkd makes of what the metad that leads decided about it: it refuses clients' bytes while it is drained, and says so
 * only when none is on its way; its disks hold no more than they may; and it says goodbye. */
#include "chunkd_rig.h"

static const unsigned one[] = {1, 0};

static struct chunkd_rig_answer append(uint64_t chunk, uint32_t off, uint32_t len,
                                       const unsigned *chain)
{
    struct chunkd_rig_append a = {
        .chunk = chunk, .off = off, .len = len, .seed = chunk, .chain = chain};
    return chunkd_rig_append(&a);
}

static void tell(bool draining, uint64_t limit)
{
    pthread_mutex_lock(&chunkd_rig.mu);
    chunkd_rig.metad.draining = draining;
    chunkd_rig.metad.limit = limit;
    pthread_mutex_unlock(&chunkd_rig.mu);
}

static void drained_one_takes_no_bytes(void **state)
{
    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    assert_int_equal(append(100, 0, 1000, one).code, 0);
    chunkd_rig_wait(chunkd_rig.node[1].beats > 1);
    assert_false(chunkd_rig.node[1].draining);
    tell(true, 0);
    chunkd_rig_wait(chunkd_rig.node[1].draining);
    struct chunkd_rig_answer a = append(101, 0, 1000, one);
    assert_int_equal(a.code, -ENOSPC);
    assert_int_equal(a.chunkd, 1);                              /* who is to be left out */
    assert_int_equal(append(100, 1000, 10, one).code, -ENOSPC); /* of what it has, too */
    chunkd_rig_check(1, 100, 0, 1000, 100);                     /* and is read on */
    assert_int_equal(chunkd_rig.node[1].nchunks, 1);
    tell(false, 0);
    chunkd_rig_wait(!chunkd_rig.node[1].draining);
    assert_int_equal(append(101, 0, 1000, one).code, 0);
    assert_int_equal(append(100, 1000, 10, one).code, 0);
}

static void limit_is_taken_live(void **state)
{
    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    chunkd_rig_wait(chunkd_rig.node[1].beats > 1 && chunkd_rig.node[1].capacity > 64u << 20);
    tell(false, 32u << 20);
    chunkd_rig_wait(chunkd_rig.node[1].capacity == 32u << 20);
    chunkd_rig_wait(chunkd_rig.node[1].avail <= 32u << 20);
    int code = 0;
    for (unsigned i = 0; i < 64 && !code; i++)
        code = append(200 + i, 0, 1u << 20, one).code;
    assert_int_equal(code, -ENOSPC);
    tell(false, 0);
    chunkd_rig_wait(chunkd_rig.node[1].capacity > 64u << 20);
    chunkd_rig_wait(chunkd_rig.node[1].avail > 64u << 20);
    WAIT_UNTIL(append(300, 0, 1000, one).code == 0);
    /* a metad that lowers it below what is there takes nothing away */
    tell(false, 1u << 20);
    chunkd_rig_wait(chunkd_rig.node[1].capacity == 1u << 20 && chunkd_rig.node[1].avail == 0);
    chunkd_rig_check(1, 200, 0, 1u << 20, 200);
}

static void stop_is_announced(void **state)
{
    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    chunkd_rig_wait(chunkd_rig.node[1].beats > 1);
    assert_false(chunkd_rig.node[1].stopping);
    chunkd_rig_chunkd_stop(1);
    assert_true(chunkd_rig.node[1].stopping);
}

#define T(f) cmocka_unit_test_setup_teardown(f, chunkd_rig_setup, chunkd_rig_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(drained_one_takes_no_bytes),
        T(limit_is_taken_live),
        T(stop_is_announced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
