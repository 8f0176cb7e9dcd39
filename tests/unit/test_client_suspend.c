/* A client that metad has not heard of for longer than the session's lease (a suspended laptop), against a
 * fake metad: what was answered before is offered again as it comes back, and what metad refuses then is
 * told to whoever asks. */
#include "client_rig.h"
#include "fuse/client/cache/lease_cache_change.h"
#include "fuse/client/internal.h"

#define DIR_INO 50u

static uint8_t data[8192];

static int leased_setup(void **st)
{
    if (rig_up(st) || rig_chunkds_up())
        return -1;
    rig.leases = true;
    return rig_client_up();
}

/* metad has seen nothing of what it holds; the session has lapsed when the client is heard of again. */
static void suspend(void)
{
    pthread_mutex_lock(&rig.mu);
    rig.hold = false;
    rig.lapsed = true;
    for (size_t i = 0; i < rig.nheld; i++)
        rpc_fail(rig.held[i], -ERR_SESSION, "scripted");
    rig.nheld = 0;
    pthread_mutex_unlock(&rig.mu);
}

static void put(struct cfile *f, size_t len)
{
    off_t at = 0;
    assert_int_equal(cfile_write(f, data, len, &at, 0), 0);
}

/* Bytes that close has answered for, on their way. */
static struct cfile *closed(size_t len)
{
    struct cfile *f = rig_open_file();
    rig_set(hold, true);
    put(f, len);
    assert_int_equal(cfile_flush(f), 0);
    rig_wait(rig.nheld == 1);
    return f;
}

static void change_mode(uint32_t mode)
{
    Replfs__SetattrOp op = REPLFS__SETATTR_OP__INIT;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    op.ino = RIG_INO;
    op.valid = REPLFS__SETATTR_OP__VALID__MODE;
    op.mode = mode;
    assert_true(client_setattr_deferred(rig.cl, &op, &a));
}

static void own_dir(void)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    a.ino = DIR_INO;
    a.mode = S_IFDIR | 0755;
    a.nlink = 2;
    a.change = 1;
    uint64_t begun = lease_cache_begin(rig.cl->leases);
    lease_cache_put_attr(rig.cl->leases, begun, &a, 2);
    lease_cache_listed(rig.cl->leases, begun, DIR_INO, 0);
}

static void make(const char *name, Replfs__Attr *a)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = DIR_INO;
    c.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)(uintptr_t)name};
    c.mode = S_IFREG | 0644;
    assert_true(client_create_deferred(rig.cl, &c, a));
}

static void test_bytes_of_a_closed_file(void **st)
{
    (void)st;
    cfile_close(closed(5000));
    suspend();
    rig_wait(rig.commits == 1 && rig.size == 5000);
    assert_int_equal(rig_get(lapses), 1);
    assert_int_equal(rig_get(kept), 1);
    assert_int_equal(rig_get(session), RIG_SESSION);
    assert_int_equal(client_lost(rig.cl), 0);
    struct cfile *f = rig_open_file();
    put(f, 6000); /* and what comes now is an ordinary change */
    assert_int_equal(cfile_fsync(f), 0);
    assert_int_equal(rig_get(kept), 1);
    cfile_close(f);
}

static void test_names(void **st)
{
    (void)st;
    Replfs__Attr a, b;
    own_dir();
    rig_set(hold, true);
    make("a", &a);
    rig_wait(rig.nheld == 1);
    make("b", &b); /* waits for that one */
    suspend();
    rig_wait(rig.creates == 2);
    assert_int_equal(rig_get(kept), 2);
    assert_int_equal(client_settle(rig.cl, DIR_INO), 0);
    assert_int_equal(client_lost(rig.cl), 0);
}

static void test_open_file_goes_on(void **st)
{
    (void)st;
    struct cfile *f = rig_open_file();
    rig_set(hold, true);
    put(f, 5000);
    suspend(); /* the bytes are nowhere yet */
    assert_int_equal(cfile_fsync(f), 0);
    assert_int_equal(rig_get(size), 5000);
    assert_int_equal(rig_get(lapses), 1);
    cfile_close(f);
}

/* metad says which inode is meant, lest a foreign one of that name be removed. */
static void test_removed_name(void **st)
{
    (void)st;
    Replfs__Attr a;
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    u.parent = DIR_INO;
    u.name = (ProtobufCBinaryData){1, (uint8_t *)"a"};
    own_dir();
    make("a", &a);
    assert_int_equal(client_settle(rig.cl, DIR_INO), 0);
    rig_set(hold, true);
    assert_true(client_remove_deferred(rig.cl, &u));
    rig_wait(rig.nheld == 1);
    suspend();
    rig_wait(rig.unlinks == 1);
    assert_int_equal(rig_get(unlinked), a.ino);
    assert_int_equal(client_settle(rig.cl, DIR_INO), 0);
    assert_int_equal(client_lost(rig.cl), 0);
}

/* Others changed the file meanwhile: the program that has it open is told, once. */
static void test_conflict_is_told(void **st)
{
    (void)st;
    struct cfile *f = closed(5000);
    change_mode(0600);
    unsigned lost = client_lost(rig.cl);
    rig_set(kept_code, ESTALE);
    suspend();
    assert_int_equal(cfile_fsync(f), -EIO);
    assert_int_equal(rig_get(commits), 0);
    assert_int_equal(rig_get(setattrs), 0);
    assert_int_equal(client_settle(rig.cl, RIG_INO), 0);
    assert_int_equal(client_lost(rig.cl), lost + 1); /* the mode; bytes are the file's business */
    cfile_close(f);
    f = rig_open_file();
    put(f, 100);
    assert_int_equal(cfile_fsync(f), 0);
    cfile_close(f);
}

static void test_conflict_of_a_name(void **st)
{
    (void)st;
    Replfs__Attr a;
    own_dir();
    rig_set(hold, true);
    make("a", &a);
    rig_wait(rig.nheld == 1);
    rig_set(create_code, EEXIST);
    suspend();
    assert_int_equal(client_settle(rig.cl, DIR_INO), 0);
    assert_int_equal(client_lost(rig.cl), 1);
}

/* metad does not know the session at all any more. */
static void test_gone_for_good(void **st)
{
    (void)st;
    struct cfile *f = closed(5000);
    rig_set(session, 1);
    suspend();
    assert_int_equal(cfile_fsync(f), -EIO);
    assert_int_equal(rig_get(commits), 0);
    assert_int_equal(rig_get(lapses), 0);
    cfile_close(f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, leased_setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_bytes_of_a_closed_file), T(test_names),
        T(test_open_file_goes_on),      T(test_removed_name),
        T(test_conflict_is_told),       T(test_conflict_of_a_name),
        T(test_gone_for_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
