/* The chunkd's bond with metad: increments, full reports, reconnection, identity of data
 * directories, and a disk that fails alone. */
#include "chunkd_rig.h"
#include "chunkd/store/store.h"

static const unsigned one[] = {1, 0};

static void append(uint64_t chunk, uint32_t off, uint32_t len)
{
    struct chunkd_rig_append a = {
        .chunk = chunk, .off = off, .len = len, .seed = chunk, .chain = one};
    assert_int_equal(chunkd_rig_append(&a).code, 0);
}

static void changes_arrive_as_increments(void **state)
{
    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    unsigned reports = chunkd_rig.node[1].reports;
    for (unsigned i = 0; i < 100; i++)
        append(100 + i, 0, 1000 + i);
    append(100, 1000, 500);
    chunkd_rig_wait(chunkd_rig.node[1].nchunks == 100 && chunkd_rig_agrees(&chunkd_rig.node[1]) &&
                    chunkd_rig_len(&chunkd_rig.node[1], 100) == 1500);
    assert_int_equal(chunkd_rig.node[1].chunks[0].session, CHUNKD_RIG_SESSION);
    assert_int_equal(chunkd_rig.node[1].reports, reports); /* no full report was needed */
    /* nothing changed: nothing is told */
    unsigned beats = chunkd_rig.node[1].beats;
    chunkd_rig_wait(chunkd_rig.node[1].beats > beats + 2);
    assert_int_equal(chunkd_rig.node[1].last_changes, 0);
}

static void a_report_comes_on_demand(void **state)
{
    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    for (unsigned i = 0; i < 10; i++)
        append(100 + i, 0, 1000);
    chunkd_rig_wait(chunkd_rig.node[1].nchunks == 10);
    pthread_mutex_lock(&chunkd_rig.mu);
    chunkd_rig.node[1].nchunks = 0; /* metad forgot */
    unsigned reports = chunkd_rig.node[1].reports;
    chunkd_rig.metad.want_report = true;
    pthread_mutex_unlock(&chunkd_rig.mu);
    chunkd_rig_wait(chunkd_rig.node[1].reports == reports + 1 && chunkd_rig.node[1].nchunks == 10 &&
                    chunkd_rig_agrees(&chunkd_rig.node[1]));
}

static void refused_heartbeats_lose_nothing(void **state)
{
    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    pthread_mutex_lock(&chunkd_rig.mu);
    chunkd_rig.metad.drop_beats = 3;
    pthread_mutex_unlock(&chunkd_rig.mu);
    for (unsigned i = 0; i < 50; i++)
        append(100 + i, 0, 1000);
    chunkd_rig_wait(chunkd_rig.metad.drop_beats == 0 && chunkd_rig.node[1].nchunks == 50 &&
                    chunkd_rig_agrees(&chunkd_rig.node[1]));
}

static void metad_may_go_and_come_back(void **state)
{
    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    append(100, 0, 1000);
    chunkd_rig_wait(chunkd_rig.node[1].nchunks == 1);
    chunkd_rig_metad_stop();
    append(101, 0, 2000); /* clients are served on */
    chunkd_rig_check(1, 101, 0, 2000, 101);
    chunkd_rig.node[1].nchunks = 0; /* the new one knows nothing */
    unsigned before = chunkd_rig.node[1].registers;
    chunkd_rig_metad_start();
    chunkd_rig_wait(chunkd_rig.node[1].registers > before && chunkd_rig.node[1].nchunks == 2 &&
                    chunkd_rig_agrees(&chunkd_rig.node[1]));
    append(102, 0, 3000);
    chunkd_rig_wait(chunkd_rig_len(&chunkd_rig.node[1], 102) == 3000 &&
                    chunkd_rig_agrees(&chunkd_rig.node[1]));
}

static void directories_remember_who_they_are(void **state)
{
    (void)state;
    chunkd_rig_chunkd_start(1, 2);
    chunkd_rig_chunkd_start(2, 1);
    for (unsigned d = 0; d < 2; d++) {
        char dir[96];
        struct store_id id;
        snprintf(dir, sizeof dir, "%s/1-%u", chunkd_rig.dir, d);
        assert_int_equal(store_id_read(dir, &id), 0);
        assert_string_equal(id.cluster, CHUNKD_RIG_CLUSTER);
        assert_int_equal(id.chunkd, 1);
        assert_int_equal(id.disk, d);
    }
    assert_string_equal(chunkd_rig.node[1].host_id, "host1");
    /* a second daemon on a directory in use */
    struct chunkd *first = chunkd_rig.chunkd[1];
    assert_int_equal(chunkd_rig_chunkd_try(1, 2), -ERR_LOCKED);
    chunkd_rig.chunkd[1] = first;
    /* directories of two chunkds in one daemon */
    chunkd_rig_chunkd_stop(1);
    chunkd_rig_chunkd_stop(2);
    char from[96], to[96];
    snprintf(from, sizeof from, "%s/2-0", chunkd_rig.dir);
    snprintf(to, sizeof to, "%s/1-2", chunkd_rig.dir);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(chunkd_rig_chunkd_try(1, 3), -ERR_WRONG_CLUSTER);
    chunkd_rig.chunkd[1] = NULL;
}

/* A file system that is not mounted leaves an empty directory, or none, in its place. */
static void a_missing_disk_is_no_new_one(void **state)
{
    (void)state;
    char dir[96], away[96], path[128];
    struct store_id id;
    struct stat st;
    chunkd_rig_chunkd_start(1, 2);
    for (unsigned i = 0; i < 40; i++)
        append(100 + i, 0, 1000);
    chunkd_rig_wait(chunkd_rig.node[1].nchunks == 40 && chunkd_rig_agrees(&chunkd_rig.node[1]));
    chunkd_rig_chunkd_stop(1);
    snprintf(dir, sizeof dir, "%s/1-0", chunkd_rig.dir);
    snprintf(away, sizeof away, "%s/away", chunkd_rig.dir);
    assert_int_equal(rename(dir, away), 0);
    assert_int_equal(mkdir(dir, 0700), 0);
    /* one of two: the other is served, this one is told, nothing is written to it */
    chunkd_rig_chunkd_start(1, 2);
    chunkd_rig_wait(chunkd_rig.node[1].failed_disks == 1 && chunkd_rig.node[1].missing_disks == 1 &&
                    chunkd_rig_agrees(&chunkd_rig.node[1]));
    assert_true(chunkd_rig.node[1].nchunks > 0 && chunkd_rig.node[1].nchunks < 40);
    for (unsigned i = 0; i < chunkd_rig.node[1].nchunks; i++)
        assert_int_equal(chunkd_rig.node[1].chunks[i].disk, 1);
    chunkd_rig_chunkd_stop(1);
    assert_int_equal(rmdir(dir), 0); /* it is still empty */
    /* the only one, not even a directory */
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(chunkd_rig_chunkd_try(1, 1), -ENOENT);
    chunkd_rig.chunkd[1] = NULL;
    assert_int_equal(rmdir(dir), 0);
    /* a person may say that it is new; it does not get the number of the one that is away */
    assert_int_equal(store_id_init(dir), 0);
    assert_int_equal(store_id_init(dir), 0);
    assert_int_equal(store_id_fresh(dir), 0);
    chunkd_rig_chunkd_start(1, 2);
    assert_int_equal(store_id_read(dir, &id), 0);
    assert_int_equal(id.chunkd, 1);
    assert_int_equal(store_id_fresh(dir), -ENOENT);
    chunkd_rig_chunkd_stop(1);
    assert_int_equal(store_id_init(dir), -EEXIST);
    /* what holds something is not made a disk */
    snprintf(path, sizeof path, "%s/full/file", chunkd_rig.dir);
    snprintf(dir, sizeof dir, "%s/full", chunkd_rig.dir);
    assert_int_equal(mkdir(dir, 0755), 0);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(store_id_init(dir), -ENOTEMPTY);
    assert_int_equal(store_id_fresh(dir), -ENOENT);
    /* directories on the way are made */
    snprintf(dir, sizeof dir, "%s/full/a/b", chunkd_rig.dir);
    assert_int_equal(store_id_init(dir), 0);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
}

static void another_clusters_metad_is_fatal(void **state)
{
    (void)state;
    chunkd_rig.metad.refuse = -ERR_WRONG_CLUSTER;
    assert_int_equal(chunkd_rig_chunkd_try(1, 1), 0);
    chunkd_rig_wait(chunkd_rig.fatal == -ERR_WRONG_CLUSTER);
}

static void a_failing_disk_is_taken_out_alone(void **state)
{
    (void)state;
    enum { N = 60 };
    chunkd_rig_chunkd_start(1, 2);
    for (unsigned i = 0; i < N; i++)
        append(100 + i, 0, 1000 + i);
    chunkd_rig_wait(chunkd_rig.node[1].nchunks == N && chunkd_rig_agrees(&chunkd_rig.node[1]));
    unsigned on[2] = {0, 0};
    for (unsigned i = 0; i < N; i++)
        on[chunkd_rig.node[1].chunks[i].disk]++;
    assert_true(on[0] > 5 && on[1] > 5); /* equal disks share */
    char id[128];
    snprintf(id, sizeof id, "%s/1-1/replfs.id", chunkd_rig.dir);
    assert_int_equal(unlink(id), 0);
    chunkd_rig_wait(chunkd_rig.node[1].failed_disks == 1 && chunkd_rig.node[1].nchunks == on[0] &&
                    chunkd_rig_agrees(&chunkd_rig.node[1]));
    assert_non_null(strstr(chunkd_rig.node[1].disk_error, "replfs.id"));
    /* new chunks go to the other one */
    for (unsigned i = 0; i < 20; i++)
        append(300 + i, 0, 100);
    chunkd_rig_wait(chunkd_rig.node[1].nchunks == on[0] + 20 &&
                    chunkd_rig_agrees(&chunkd_rig.node[1]));
    for (unsigned i = 0; i < chunkd_rig.node[1].nchunks; i++)
        assert_int_equal(chunkd_rig.node[1].chunks[i].disk, 0);
    /* what it still can give, it gives */
    for (unsigned i = 0; i < N; i++)
        chunkd_rig_check(1, 100 + i, 0, 1000 + i, 100 + i);
}

#define T(f) cmocka_unit_test_setup_teardown(f, chunkd_rig_setup, chunkd_rig_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(changes_arrive_as_increments),      T(a_report_comes_on_demand),
        T(refused_heartbeats_lose_nothing),   T(metad_may_go_and_come_back),
        T(directories_remember_who_they_are), T(another_clusters_metad_is_fatal),
        T(a_failing_disk_is_taken_out_alone), T(a_missing_disk_is_no_new_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
