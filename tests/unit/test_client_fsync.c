/* fsync is on hosts: what it says is on stable storage there, on as many as it has to be; what metad does not
 * know counts for nothing. Against a metad and chunkds that know little, or are slow. */
#include "client_rig.h"

#define SIZE 20000u

static uint8_t data[SIZE];

static void put(struct cfile *f, size_t len)
{
    off_t at = 0;
    assert_int_equal(cfile_write(f, data, len, &at, 0), 0);
}

/* What metad tells of the chunkds is another. */
static void news(bool third_down, uint32_t copies_known)
{
    client_rig_lock();
    client_rig.third_down = third_down;
    client_rig.copies_known = copies_known;
    client_rig.epoch++;
    client_rig_unlock();
}

static int one_host_setup(void **st)
{
    if (client_rig_up(st) || client_rig_chunkds_up())
        return -1;
    client_rig.one_host = client_rig.third_down = true;
    client_rig.copies_known = 2;
    return client_rig_client_up();
}

static void test_two_copies_on_one_host(void **st)
{
    (void)st;
    struct cfile *f = client_rig_open_file();
    put(f, SIZE);
    int64_t t = clock_mono();
    assert_int_equal(cfile_fsync(f), -EIO);
    assert_true(clock_mono() - t >= NSEC_PER_SEC); /* the time-out is 1.5 s */
    unsigned appends = client_rig_get(node[1].appends);
    assert_int_equal(appends, 1); /* and writing them again would not have helped */
    news(false, 2);               /* the other host is back */
    int rc = cfile_fsync(f);
    for (int i = 0; i < 5 && rc; i++) /* told so within a second or two */
        rc = cfile_fsync(f);
    assert_int_equal(rc, 0);
    assert_true(client_rig.node[3].synced > 0);
    cfile_close(f);
}

static int all_one_host_setup(void **st)
{
    if (client_rig_up(st) || client_rig_chunkds_up())
        return -1;
    client_rig.one_host = client_rig.only_two = true;
    return client_rig_client_up();
}

/* One computer with two disks is all there is: two copies are what it can do. */
static void test_cluster_of_one_host(void **st)
{
    (void)st;
    struct cfile *f = client_rig_open_file();
    put(f, SIZE);
    assert_int_equal(cfile_fsync(f), 0);
    cfile_close(f);
}

/* Written before, by whomever; now metad knows fewer copies of it. */
static void known(uint32_t copies)
{
    struct cfile *f = client_rig_open_file();
    put(f, SIZE);
    assert_int_equal(cfile_flush(f), 0);
    cfile_close(f);
    news(true, copies);
    client_rig_set(node[2].sync_code, -ERR_NO_CHUNK);
    client_rig_set(node[2].append_code, -EIO);
    f = client_rig_open_file();
    assert_int_equal(cfile_fsync(f), -EIO);
    client_rig_set(node[2].sync_code, 0);
    client_rig_set(node[2].append_code, 0);
    news(false, CLIENT_RIG_NODES);
    int rc = cfile_fsync(f);
    for (int i = 0; i < 5 && rc; i++)
        rc = cfile_fsync(f);
    assert_int_equal(rc, 0);
    cfile_close(f);
}

static void test_one_copy_known(void **st)
{
    (void)st;
    known(1);
}

static void test_no_copy_known(void **st)
{
    (void)st;
    known(0);
}

/* All three are up, and one is slow: it is waited for. */
static void test_slow_copy_is_waited_for(void **st)
{
    (void)st;
    assert_int_equal(client_rig_set_goal(3), 0);
    struct cfile *f = client_rig_open_file();
    put(f, SIZE);
    client_rig_set(node[3].mute_syncs, true);
    assert_int_equal(cfile_flush(f), 0);
    assert_int_equal(cfile_fsync(f), -EIO);
    client_rig_set(node[3].mute_syncs, false);
    assert_int_equal(cfile_fsync(f), 0);
    assert_true(client_rig.node[3].synced > 0);
    cfile_close(f);
}

/* Enough have synced and one could not: that is good enough, but its chunk gets nothing more. */
static void test_chunk_is_left_after_a_failure(void **st)
{
    (void)st;
    assert_int_equal(client_rig_set_goal(3), 0);
    struct cfile *f = client_rig_open_file();
    put(f, SIZE);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_set(node[3].sync_code, -EIO);
    assert_int_equal(cfile_fsync(f), 0);
    assert_int_equal(client_rig_get(node[3].appends), 1);
    put(f, 100);
    assert_int_equal(cfile_flush(f), 0);
    assert_int_equal(client_rig_get(node[3].appends), 1);
    client_rig_lock();
    struct client_rig_node *n = &client_rig.node[1];
    assert_int_not_equal(n->recs[n->nrecs - 1].chunk, n->recs[0].chunk);
    client_rig_unlock();
    cfile_close(f);
}

/* Nobody is known to have what was committed before; then others overwrite it, and its chunk is gone with the last
 * file that named it. */
static void test_chunk_that_others_overwrote(void **st)
{
    (void)st;
    struct cfile *f = client_rig_open_file();
    put(f, SIZE);
    assert_int_equal(cfile_flush(f), 0);
    cfile_close(f);
    news(false, 0);
    f = client_rig_open_file();
    assert_int_equal(cfile_fsync(f), -EIO);
    Replfs__FallocateOp hole = REPLFS__FALLOCATE_OP__INIT;
    hole.ino = CLIENT_RIG_INO;
    hole.mode = 3; /* PUNCH_HOLE | KEEP_SIZE */
    hole.len = SIZE;
    assert_int_equal(CLIENT_RIG_AS_LEADER(FALLOCATE, fallocate, &hole), 0);
    int rc = cfile_fsync(f);
    assert_int_equal(rc, 0);
    cfile_close(f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, client_rig_setup, client_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_two_copies_on_one_host, one_host_setup,
                                        client_rig_teardown),
        cmocka_unit_test_setup_teardown(test_cluster_of_one_host, all_one_host_setup,
                                        client_rig_teardown),
        T(test_one_copy_known),
        T(test_no_copy_known),
        T(test_slow_copy_is_waited_for),
        T(test_chunk_is_left_after_a_failure),
        T(test_chunk_that_others_overwrote),
    };
    log_init("test_client_fsync", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
