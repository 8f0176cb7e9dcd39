/* The client as a visitor of the tables of operations and requests, against a fake metad that is made to wait: what
 * waits for what is queued, what overtakes it, and whose session goes out. */
#include "client_internals.h"
#include "client_rig.h"
#include "metaop.h"
#include "request.h"

#define OTHER 5000u /* nothing is queued of it */
#define OTHER_DIR 5001u

static uint8_t data[8192];
static uint64_t made_in; /* by name_queued() */
static ProtobufCBinaryData name = {1, (uint8_t *)"x"};

/* A change of CLIENT_RIG_INO, and nothing else, is on its way to metad and stays there. */
static struct cfile *change_queued(void)
{
    struct cfile *f = client_rig_open_file();
    Replfs__SetattrOp op = REPLFS__SETATTR_OP__INIT;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    client_rig_set(hold, true);
    op.ino = CLIENT_RIG_INO;
    op.valid = REPLFS__SETATTR_OP__VALID__MODE;
    op.mode = 0600;
    assert_true(client_setattr_deferred(client_rig.cl, &op, &a));
    client_rig_wait(client_rig.nheld == 1);
    return f;
}

/* A file was made in made_in; returns its number. */
static uint64_t name_queued(void)
{
    Replfs__CreateOp make = REPLFS__CREATE_OP__INIT;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    made_in = client_rig_mkdir("dir");
    client_rig_set(hold, true);
    make.parent = made_in;
    make.name = name;
    make.mode = S_IFREG | 0644;
    assert_true(client_create_deferred(client_rig.cl, &make, &a));
    client_rig_wait(client_rig.nheld == 1);
    return a.ino;
}

/* ---- operations ---- */

static Replfs__CreateOp create_of(uint64_t dir)
{
    Replfs__CreateOp o = REPLFS__CREATE_OP__INIT;
    o.parent = dir;
    o.name = name;
    return o;
}

static Replfs__UnlinkOp unlink_of(uint64_t dir, bool rmdir)
{
    Replfs__UnlinkOp o = REPLFS__UNLINK_OP__INIT;
    o.parent = dir;
    o.name = name;
    o.dir = rmdir;
    return o;
}

static Replfs__RenameOp rename_of(uint64_t dir)
{
    Replfs__RenameOp o = REPLFS__RENAME_OP__INIT;
    o.parent = o.new_parent = dir;
    o.name = o.new_name = name;
    return o;
}

static Replfs__LinkOp link_of(uint64_t ino, uint64_t dir)
{
    Replfs__LinkOp o = REPLFS__LINK_OP__INIT;
    o.ino = ino;
    o.parent = dir;
    o.name = name;
    return o;
}

static Replfs__CloneOp clone_of(uint64_t src, uint64_t dst)
{
    Replfs__CloneOp o = REPLFS__CLONE_OP__INIT;
    o.src = src;
    o.dst = dst;
    return o;
}

static void wrong(const char *what, bool waits)
{
    client_rig_release(); /* or the client would wait at its end */
    fail_msg("%s: it %s", what, waits ? "overtakes" : "waits");
}

static void expect(Replfs__MetaOp__OpCase which, void *body, bool waits)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    op.op_case = which;
    op.create = body; /* any member of the union */
    int rc = queue_before(client_rig.cl, &op);
    if ((rc != 0) != waits)
        wrong(metaop_name(metaop_of(&op)), waits);
    assert_true(rc == 0 || rc == -ERR_TIMEOUT);
}

#define EXPECT(CASE, waits, ...)                                                                   \
    do {                                                                                           \
        __auto_type expect_body = __VA_ARGS__;                                                     \
        expect(REPLFS__META_OP__OP_##CASE, &expect_body, waits);                                   \
    } while (0)
#define ONE(Type, ino_)                                                                            \
    (Type)                                                                                         \
    {                                                                                              \
        .ino = (ino_)                                                                              \
    }

/* What concerns `ino` alone: each kind of change, of it and of something else. */
static void expect_of_inode(uint64_t ino, bool waits)
{
    uint64_t list[] = {OTHER, ino};
    int64_t times[] = {1, 2};
    EXPECT(SETATTR, waits, ONE(Replfs__SetattrOp, ino));
    EXPECT(COMMIT, waits, ONE(Replfs__CommitOp, ino));
    EXPECT(XATTR, waits, ONE(Replfs__XattrOp, ino));
    EXPECT(FALLOCATE, waits, ONE(Replfs__FallocateOp, ino));
    EXPECT(CLONE, waits, clone_of(ino, OTHER));
    EXPECT(CLONE, waits, clone_of(OTHER, ino));
    EXPECT(LINK, waits, link_of(ino, OTHER_DIR));
    EXPECT(SET_GOAL, waits, (Replfs__SetGoalOp){.ino = list, .n_ino = 2});
    EXPECT(ATIME, waits,
           (Replfs__AtimeOp){.ino = list, .n_ino = 2, .atime_ns = times, .n_atime_ns = 2});
}

static void expect_of_dir(uint64_t dir, bool waits)
{
    EXPECT(CREATE, waits, create_of(dir));
    EXPECT(UNLINK, waits, unlink_of(dir, false));
    EXPECT(LINK, waits, link_of(OTHER, dir));
}

/* What may need a directory that is empty, or holds for a whole tree. */
static void expect_of_all(bool waits)
{
    EXPECT(UNLINK, waits, unlink_of(OTHER_DIR, true));
    EXPECT(RENAME, waits, rename_of(OTHER_DIR));
    EXPECT(QUOTA, waits, ONE(Replfs__QuotaOp, OTHER));
}

static void test_operations_after_a_change(void **st)
{
    (void)st;
    struct cfile *f = change_queued();
    expect_of_inode(OTHER, false);
    expect_of_dir(OTHER_DIR, false);
    EXPECT(SESSION_CLOSE, false, (Replfs__SessionCloseOp){.n_session = 0});
    expect_of_inode(CLIENT_RIG_INO, true);
    expect_of_all(true);
    client_rig_release();
    expect_of_inode(CLIENT_RIG_INO, false);
    expect_of_all(false);
    cfile_close(f);
}

static void test_operations_after_a_name(void **st)
{
    (void)st;
    uint64_t made = name_queued();
    expect_of_inode(OTHER, false);
    expect_of_dir(OTHER_DIR, false);
    expect_of_inode(made, true);
    expect_of_dir(made_in, true);
    expect_of_all(true);
    client_rig_release();
    expect_of_dir(made_in, false);
}

/* ---- requests ---- */

static void expect_request(Replfs__Envelope *env, bool waits)
{
    int rc = queue_before_ask(client_rig.cl, env);
    if ((rc != 0) != waits)
        wrong(request_name(request_of(env)), waits);
}

static void expect_requests_of(uint64_t ino, bool waits)
{
    Replfs__GetattrReq get = REPLFS__GETATTR_REQ__INIT;
    Replfs__LookupReq look = REPLFS__LOOKUP_REQ__INIT;
    Replfs__LockReq lock = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock l = REPLFS__LOCK__INIT;
    get.ino = look.parent = l.ino = ino;
    lock.lock = &l;
    RPC_ENVELOPE(genv, GETATTR_REQ, getattr_req, &get);
    RPC_ENVELOPE(lenv, LOOKUP_REQ, lookup_req, &look);
    RPC_ENVELOPE(kenv, LOCK_REQ, lock_req, &lock);
    expect_request(&genv, waits);
    expect_request(&lenv, waits);
    expect_request(&kenv, waits);
}

static void expect_status(bool waits)
{
    Replfs__StatusReq status = REPLFS__STATUS_REQ__INIT;
    Replfs__KeepaliveReq alive = REPLFS__KEEPALIVE_REQ__INIT;
    RPC_ENVELOPE(senv, STATUS_REQ, status_req, &status);
    RPC_ENVELOPE(aenv, KEEPALIVE_REQ, keepalive_req, &alive);
    expect_request(&senv, waits);
    expect_request(&aenv, false);
}

static void expect_attributes_of(uint64_t ino, bool waits)
{
    Replfs__GetxattrReq get = REPLFS__GETXATTR_REQ__INIT;
    Replfs__ListxattrReq list = REPLFS__LISTXATTR_REQ__INIT;
    get.ino = list.ino = ino;
    RPC_ENVELOPE(genv, GETXATTR_REQ, getxattr_req, &get);
    RPC_ENVELOPE(lenv, LISTXATTR_REQ, listxattr_req, &list);
    expect_request(&genv, waits);
    expect_request(&lenv, waits);
}

static void test_requests_after_a_change(void **st)
{
    (void)st;
    struct cfile *f = change_queued();
    expect_requests_of(CLIENT_RIG_INO, false); /* its answer has the change laid over */
    expect_attributes_of(CLIENT_RIG_INO, true);
    expect_attributes_of(OTHER, false);
    expect_status(true);
    client_rig_release();
    expect_status(false);
    expect_attributes_of(CLIENT_RIG_INO, false);
    cfile_close(f);
}

static void test_requests_after_a_name(void **st)
{
    (void)st;
    uint64_t made = name_queued();
    expect_requests_of(OTHER, false);
    expect_requests_of(made, true);
    expect_requests_of(made_in, true);
    expect_attributes_of(made, true);
    expect_status(true);
    client_rig_release();
    expect_requests_of(made_in, false);
}

/* ---- sessions ---- */

/* Without it metad takes the asker for a stranger, and calls back its own lease. */
static void ask_attributes(void)
{
    Replfs__GetxattrReq get = REPLFS__GETXATTR_REQ__INIT;
    Replfs__ListxattrReq list = REPLFS__LISTXATTR_REQ__INIT;
    struct rpc_result res;
    get.ino = list.ino = CLIENT_RIG_INO;
    get.name = bytes_of("user.x"); /* which the file has not */
    RPC_ENVELOPE(genv, GETXATTR_REQ, getxattr_req, &get);
    RPC_ENVELOPE(lenv, LISTXATTR_REQ, listxattr_req, &list);
    assert_int_equal(client_ask(client_rig.cl, &genv, &res), -ENODATA);
    rpc_result_free(&res);
    assert_int_equal(client_rig_get(xattr_session), client_rig_get(session));
    client_rig_set(xattr_session, 0);
    assert_int_equal(client_ask(client_rig.cl, &lenv, &res), 0);
    rpc_result_free(&res);
    assert_int_equal(client_rig_get(xattr_session), client_rig_get(session));
}

static void test_attributes_are_asked_with_the_session(void **st)
{
    (void)st;
    ask_attributes();
}

/* Writing takes capabilities away, and metad keeps those: it hears of the bytes first, though it does not ask. */
static void test_bytes_come_before_a_question_for_attributes(void **st)
{
    (void)st;
    struct cfile *f = client_rig_open_file();
    off_t at = 0;
    assert_int_equal(cfile_write(f, data, sizeof(data), &at, 0), 0);
    assert_int_equal(client_rig_get(commits), 0);
    ask_attributes();
    assert_int_equal(client_rig_get(commits_asked), 1);
    cfile_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_operations_after_a_change, client_rig_leased_setup,
                                        client_rig_teardown),
        cmocka_unit_test_setup_teardown(test_operations_after_a_name, client_rig_leased_setup,
                                        client_rig_teardown),
        cmocka_unit_test_setup_teardown(test_requests_after_a_change, client_rig_leased_setup,
                                        client_rig_teardown),
        cmocka_unit_test_setup_teardown(test_requests_after_a_name, client_rig_leased_setup,
                                        client_rig_teardown),
        cmocka_unit_test_setup_teardown(test_attributes_are_asked_with_the_session,
                                        client_rig_leased_setup, client_rig_teardown),
        cmocka_unit_test_setup_teardown(test_bytes_come_before_a_question_for_attributes,
                                        client_rig_leased_setup, client_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
