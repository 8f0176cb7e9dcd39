/* What displaces bytes that were safe is on the disks before metad hears of it: a power cut then leaves the
 * old or the new version, never neither (rig.unsafe counts changes that came too early). What
 * displaces nothing waits for no disk, and closes wait for none at all. */
#include "client_rig.h"

#define SIZE 20000u

static uint8_t data[SIZE];

static void put(struct cfile *f, size_t off, size_t len)
{
    off_t at = (off_t)off;
    assert_int_equal(cfile_write(f, data, len, &at, 0), 0);
}

static void mute_syncs(bool on)
{
    client_rig_lock();
    for (size_t i = 1; i <= CLIENT_RIG_NODES; i++)
        client_rig.node[i].mute_syncs = on;
    client_rig_unlock();
}

/* A file whose bytes are safe. */
static struct cfile *safe_file(void)
{
    struct cfile *f = NULL;
    assert_int_equal(cfile_open(client_rig.cl, CLIENT_RIG_INO, true, NULL, &f), 0);
    put(f, 0, SIZE);
    assert_int_equal(cfile_fsync(f), 0);
    return f;
}

static unsigned syncs(void)
{
    unsigned n = 0;
    for (size_t i = 1; i <= CLIENT_RIG_NODES; i++)
        n += client_rig_get(node[i].syncs);
    return n;
}

static void test_overwrite(void **st)
{
    (void)st;
    struct cfile *f = safe_file();
    put(f, 5000, 3000);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_wait(client_rig.commits == 2);
    put(f, 0, 100); /* and by itself, before it is closed */
    client_rig_wait(client_rig.commits == 3);
    assert_int_equal(client_rig_get(unsafe), 0);
    cfile_close(f);
}

/* Nothing is lost by waiting: what goes behind the end is committed as soon as the copies have it. */
static void test_new_bytes_wait_for_no_disk(void **st)
{
    (void)st;
    struct cfile *f = safe_file();
    unsigned before = syncs();
    mute_syncs(true);
    put(f, (SIZE / 4096 + 1) * 4096, 3000);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_wait(client_rig.commits == 2);
    assert_int_equal(syncs(), before);
    mute_syncs(false);
    cfile_close(f);
}

/* An fsync of what displaces bytes costs no message more: the append itself syncs. */
static void test_fsync_of_an_overwrite(void **st)
{
    (void)st;
    struct cfile *f = safe_file();
    unsigned before = syncs(), appends = client_rig_get(node[1].appends);
    for (int i = 0; i < 5; i++) {
        put(f, 4096, 4096);
        assert_int_equal(cfile_fsync(f), 0);
    }
    assert_int_equal(syncs(), before);
    assert_int_equal(client_rig_get(node[1].appends), appends + 5);
    assert_int_equal(client_rig_get(commits), 6);
    assert_int_equal(client_rig_get(unsafe), 0);
    cfile_close(f);
}

/* A page is read as a whole: what goes behind safe bytes in it must not make them unreadable. */
static void seam(unsigned flags)
{
    struct cfile *f = safe_file();
    off_t at = SIZE;
    mute_syncs(true);
    if (flags) { /* whose writer waits: it gives up, and the bytes get there later */
        assert_int_equal(cfile_write(f, data, 100, &at, flags), -ERR_TIMEOUT);
    } else {
        put(f, SIZE, 100);
        assert_int_equal(cfile_flush(f), 0);
    }
    client_rig_wait(client_rig.nmuted >= 2);
    assert_int_equal(client_rig_get(commits), 1);
    mute_syncs(false);
    client_rig_wait(client_rig.commits == 2);
    put(f, SIZE + 100, 8192); /* beginning in the same page */
    assert_int_equal(cfile_fsync(f), 0);
    assert_int_equal(client_rig_get(unsafe), 0);
    cfile_close(f);
}

static void test_seam(void **st)
{
    (void)st;
    seam(0);
}

static void test_seam_of_appends(void **st)
{
    (void)st;
    seam(CFILE_APPEND);
}

static void test_truncated_and_written_anew(void **st)
{
    (void)st;
    struct cfile *f = safe_file();
    assert_int_equal(cfile_truncate(f, 0, NULL), 0);
    put(f, 0, SIZE);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_wait(client_rig.commits == 2);
    assert_int_equal(client_rig_get(unsafe), 0);
    cfile_close(f);
}

static void test_punched_and_written_anew(void **st)
{
    (void)st;
    struct cfile *f = safe_file();
    assert_int_equal(cfile_fallocate(f, 3, 4096, 4096, false), 0); /* PUNCH_HOLE | KEEP_SIZE */
    put(f, 4096, 4096);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_wait(client_rig.commits == 2);
    assert_int_equal(client_rig_get(unsafe), 0);
    cfile_close(f);
}

/* The close is answered when all copies have the bytes; the old ones stay as long as the disks hang. */
static void test_close_waits_for_no_disk(void **st)
{
    (void)st;
    struct cfile *f = safe_file();
    mute_syncs(true);
    put(f, 0, SIZE);
    int64_t t = clock_mono();
    assert_int_equal(cfile_flush(f), 0);
    assert_true(clock_mono() - t < NSEC_PER_SEC);
    client_rig_wait(client_rig.nmuted >= 2);
    assert_int_equal(client_rig_get(commits), 1);
    mute_syncs(false);
    client_rig_wait(client_rig.commits == 2); /* asked again after a while */
    assert_int_equal(client_rig_get(unsafe), 0);
    cfile_close(f);
}

/* One copy that can sync is enough for that; and none is never given up, however long it takes. */
static void test_disks_that_fail(void **st)
{
    (void)st;
    struct cfile *f = safe_file();
    client_rig_set(node[1].sync_code, -EIO);
    client_rig_set(node[2].sync_code, -EIO);
    put(f, 0, SIZE);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_wait(client_rig.node[1].syncs + client_rig.node[2].syncs >
                    12); /* longer than the time-out */
    assert_int_equal(client_rig_get(commits), 1);
    client_rig_set(node[2].sync_code, 0);
    client_rig_wait(client_rig.commits == 2);
    assert_int_equal(client_rig_get(unsafe), 0);
    client_rig_set(node[1].sync_code, 0);
    cfile_close(f);
}

static int rename_to(const char *from, const char *to)
{
    Replfs__RenameOp r = REPLFS__RENAME_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    op.op_case = REPLFS__META_OP__OP_RENAME;
    op.rename = &r;
    r.parent = r.new_parent = 1;
    r.name = bytes_of(from);
    r.new_name = bytes_of(to);
    return client_mutate(client_rig.cl, &op, NULL, NULL);
}

static void test_rename_over_another(void **st)
{
    (void)st;
    struct cfile *f = NULL;
    assert_int_equal(cfile_open(client_rig.cl, CLIENT_RIG_INO, true, NULL, &f), 0);
    put(f, 0, SIZE);
    assert_int_equal(cfile_flush(f), 0);
    cfile_close(f);
    client_rig_wait(client_rig.commits == 1);
    unsigned before = syncs();
    assert_int_equal(rename_to("new", "other"), 0); /* which is nobody's name */
    assert_int_equal(syncs(), before);
    assert_int_equal(rename_to("other", "old"), 0);
    assert_int_equal(client_rig_get(renames), 2);
    assert_int_equal(client_rig_get(unsafe), 0);
}

static void test_rename_while_open(void **st)
{
    (void)st;
    struct cfile *f = NULL;
    assert_int_equal(cfile_open(client_rig.cl, CLIENT_RIG_INO, true, NULL, &f), 0);
    put(f, 0, SIZE);
    assert_int_equal(rename_to("new", "old"), 0);
    assert_int_equal(client_rig_get(unsafe), 0);
    assert_int_equal(client_rig_get(commits), 1);
    cfile_close(f);
}

static void test_clone_over(void **st)
{
    (void)st;
    uint64_t done = 0;
    struct cfile *f = safe_file();
    put(f, SIZE, 4096);
    assert_int_equal(cfile_clone(f, SIZE, f, 0, 4096, &done), 0);
    assert_int_equal(done, 4096);
    assert_int_equal(client_rig_get(unsafe), 0);
    cfile_close(f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, client_rig_leased_setup, client_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_overwrite),
        T(test_new_bytes_wait_for_no_disk),
        T(test_fsync_of_an_overwrite),
        T(test_seam),
        T(test_seam_of_appends),
        T(test_truncated_and_written_anew),
        T(test_punched_and_written_anew),
        T(test_close_waits_for_no_disk),
        T(test_disks_that_fail),
        T(test_rename_over_another),
        T(test_rename_while_open),
        T(test_clone_over),
        cmocka_unit_test_setup_teardown(test_overwrite, client_rig_setup, client_rig_teardown),
        cmocka_unit_test_setup_teardown(test_truncated_and_written_anew, client_rig_setup,
                                        client_rig_teardown),
    };
    log_init("test_client_order", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
