/* A client that metad has not heard of for longer than the session's lease (a suspended laptop), against a
 * fake metad: what was answered before is offered again as it comes back, and what metad refuses then is
 * told to whoever asks. */
#include "client_internals.h"
#include "client_rig.h"

static uint8_t data[8192];

/* metad has seen nothing of what it holds, and knows the session no more. */
static void lose_held(void)
{
    client_rig_lock();
    client_rig.hold = false;
    for (size_t i = 0; i < client_rig.nheld; i++)
        rpc_fail(client_rig.held[i], -ERR_SESSION, "scripted");
    client_rig.nheld = 0;
    client_rig_unlock();
}

/* The session has lapsed when the client is heard of again. */
static void suspend(void)
{
    client_rig_lapse();
    lose_held();
}

static void put(struct cfile *f, size_t len)
{
    off_t at = 0;
    assert_int_equal(cfile_write(f, data, len, &at, 0), 0);
}

/* Bytes that close has answered for, on their way. */
static struct cfile *closed(size_t len)
{
    struct cfile *f = client_rig_open_file();
    client_rig_set(hold, true);
    put(f, len);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_wait(client_rig.nheld == 1);
    return f;
}

static void change_mode(uint32_t mode)
{
    Replfs__SetattrOp op = REPLFS__SETATTR_OP__INIT;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    op.ino = CLIENT_RIG_INO;
    op.valid = REPLFS__SETATTR_OP__VALID__MODE;
    op.mode = mode;
    assert_true(client_setattr_deferred(client_rig.cl, &op, &a));
}

static void make(uint64_t dir, const char *name, Replfs__Attr *a)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = dir;
    c.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)(uintptr_t)name};
    c.mode = S_IFREG | 0644;
    assert_true(client_create_deferred(client_rig.cl, &c, a));
}

static void test_bytes_of_a_closed_file(void **st)
{
    (void)st;
    uint64_t session = client_rig_get(session);
    cfile_close(closed(5000));
    suspend();
    client_rig_wait(client_rig.commits == 1 && client_rig_size() == 5000);
    assert_int_equal(client_rig_get(lapses), 1);
    assert_int_equal(client_rig_get(kept), 1);
    assert_int_equal(client_rig_get(session), session);
    assert_int_equal(client_lost(client_rig.cl), 0);
    struct cfile *f = client_rig_open_file();
    put(f, 6000); /* and what comes now is an ordinary change */
    assert_int_equal(cfile_fsync(f), 0);
    assert_int_equal(client_rig_get(kept), 1);
    cfile_close(f);
}

static void test_names(void **st)
{
    (void)st;
    Replfs__Attr a, b;
    uint64_t dir = client_rig_mkdir("dir");
    client_rig_set(hold, true);
    make(dir, "a", &a);
    client_rig_wait(client_rig.nheld == 1);
    make(dir, "b", &b); /* waits for that one */
    suspend();
    client_rig_wait(client_rig.creates == 2);
    assert_int_equal(client_rig_get(kept), 2);
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    assert_int_equal(client_lost(client_rig.cl), 0);
}

static void test_open_file_goes_on(void **st)
{
    (void)st;
    struct cfile *f = client_rig_open_file();
    client_rig_set(hold, true);
    put(f, 5000);
    suspend(); /* the bytes are nowhere yet */
    assert_int_equal(cfile_fsync(f), 0);
    assert_int_equal(client_rig_size(), 5000);
    assert_int_equal(client_rig_get(lapses), 1);
    cfile_close(f);
}

/* metad says which inode is meant, lest a foreign one of that name be removed. */
static void test_removed_name(void **st)
{
    (void)st;
    Replfs__Attr a;
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    uint64_t dir = client_rig_mkdir("dir");
    u.parent = dir;
    u.name = bytes_of("a");
    make(dir, "a", &a);
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    client_rig_set(hold, true);
    assert_true(client_remove_deferred(client_rig.cl, &u));
    client_rig_wait(client_rig.nheld == 1);
    suspend();
    client_rig_wait(client_rig.unlinks == 1);
    assert_int_equal(client_rig_get(unlinked), a.ino);
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    assert_int_equal(client_lost(client_rig.cl), 0);
}

/* Others changed the file meanwhile: the program that has it open is told, once. */
static void test_conflict_is_told(void **st)
{
    (void)st;
    struct cfile *f = closed(5000);
    change_mode(0600);
    unsigned lost = client_lost(client_rig.cl);
    client_rig_set(kept_code, ESTALE);
    suspend();
    assert_int_equal(cfile_fsync(f), -EIO);
    assert_int_equal(client_rig_get(commits), 0);
    assert_int_equal(client_rig_get(setattrs), 0);
    assert_int_equal(client_settle(client_rig.cl, CLIENT_RIG_INO), 0);
    assert_int_equal(client_lost(client_rig.cl),
                     lost + 1); /* the mode; bytes are the file's business */
    cfile_close(f);
    f = client_rig_open_file();
    put(f, 100);
    assert_int_equal(cfile_fsync(f), 0);
    cfile_close(f);
}

static void test_conflict_of_a_name(void **st)
{
    (void)st;
    Replfs__Attr a;
    uint64_t dir = client_rig_mkdir("dir");
    client_rig_set(hold, true);
    make(dir, "a", &a);
    client_rig_wait(client_rig.nheld == 1);
    client_rig_set(create_code, EEXIST);
    suspend();
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    assert_int_equal(client_lost(client_rig.cl), 1);
}

/* metad does not know the session at all any more. */
static void test_gone_for_good(void **st)
{
    (void)st;
    struct cfile *f = closed(5000);
    client_rig_end_session();
    lose_held();
    assert_int_equal(cfile_fsync(f), -EIO);
    assert_int_equal(client_rig_get(commits), 0);
    assert_int_equal(client_rig_get(lapses), 0);
    cfile_close(f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, client_rig_leased_setup, client_rig_teardown)

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
