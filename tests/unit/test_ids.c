/* Numbers that may have been given by another run of metad's directory: none is given again, whoever tells
 * of them, or nobody. */
#include "tests/unit/service_rig.h"

#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "metad/log/ids.h"

#define FAR (1ull << 32) /* as far as another run can have got */

/* There is a chunkd, which may have seen a later state than this one. */
static void add_chunkd(void)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__ChunkdAddOp o = REPLFS__CHUNKD_ADD_OP__INIT;

    o.chunkd = 1;
    o.host_id = o.host_name = (char *)"host";
    op.op_case = REPLFS__META_OP__OP_CHUNKD_ADD;
    op.chunkd_add = &o;
    cmd.op = &op;
    assert_int_equal(mlog_propose_wait(md.mlog, &cmd, NULL), 0);
}

static void start_again(void)
{
    service_rig_hang_up(&me);
    stop_metad();
    start_metad();
    service_rig_dial(&me, RPC_ROLE_CLIENT);
}

/* A number, as soon as one is given. */
static uint64_t number(uint64_t (*give)(struct ids *))
{
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;
    uint64_t n;

    while ((n = give(md.ids)) == 0 && clock_mono() < until)
        usleep(10000);
    assert_true(n != 0);
    return n;
}

static void test_nobody_tells(void **state)
{
    (void)state;
    uint64_t before = number(ids_ino);

    add_chunkd();
    start_again();
    assert_int_equal(ids_ino(md.ids), 0); /* somebody may tell yet */
    assert_true(number(ids_ino) >= before + FAR);
}

static void test_a_chunkd_tells(void **state)
{
    (void)state;
    uint64_t ino = number(ids_ino) + 5000000, chunk = number(ids_chunk) + 7000000;

    add_chunkd();
    start_again();
    ids_told(md.ids, chunk, ino);
    uint64_t got = number(ids_ino);
    assert_true(got >= ino && got < ino + FAR);
    assert_true(number(ids_chunk) >= chunk);
    ids_told(md.ids, UINT64_MAX, UINT64_MAX); /* nonsense uses up nothing */
    assert_true(number(ids_ino) < ino + FAR);
}

/* No chunkd, nobody to wait for. */
static void test_new_cluster(void **state)
{
    (void)state;
    start_again();
    assert_true(ids_ino(md.ids) != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nobody_tells, service_rig_setup, service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_a_chunkd_tells, service_rig_setup,
                                        service_rig_teardown),
        cmocka_unit_test_setup_teardown(test_new_cluster, service_rig_setup, service_rig_teardown),
    };
    log_init("test_ids", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
