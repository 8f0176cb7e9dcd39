/* Changes that are answered before metad has them, against a fake metad that is made to wait: who
 * waits for it, who does not, and what is shown meanwhile. */
#include "client_internals.h"
#include "client_rig.h"

#define MODE REPLFS__SETATTR_OP__VALID__MODE
#define MTIME REPLFS__SETATTR_OP__VALID__MTIME

static uint8_t data[8192];
static uint64_t dir; /* made by made_one() */

static void put(struct cfile *f, size_t len)
{
    off_t at = 0;
    assert_int_equal(cfile_write(f, data, len, &at, 0), 0);
}

/* From now on metad does not look at changes; of these bytes it does not know. */
static struct cfile *written(size_t len)
{
    struct cfile *f = client_rig_open_file();
    client_rig_set(hold, true);
    put(f, len);
    return f;
}

static bool later(uint32_t valid, uint32_t mode, int64_t mtime, Replfs__Attr *a)
{
    Replfs__SetattrOp op = REPLFS__SETATTR_OP__INIT;
    replfs__attr__init(a);
    op.ino = CLIENT_RIG_INO;
    op.valid = valid;
    op.mode = mode;
    op.mtime_ns = mtime;
    return client_setattr_deferred(client_rig.cl, &op, a);
}

static Replfs__Attr set(uint32_t valid, uint32_t mode, int64_t mtime)
{
    Replfs__Attr a;
    assert_true(later(valid, mode, mtime, &a));
    return a;
}

static void *in_background(void *arg)
{
    assert_int_equal(cfile_fsync(arg), 0);
    return NULL;
}

static void test_close_does_not_wait_for_metad(void **st)
{
    (void)st;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    struct cfile *f = written(5000);
    assert_int_equal(cfile_flush(f), 0);
    assert_int_equal(client_rig_get(commits), 0);
    assert_int_equal(client_rig_get(node[1].appends), 1); /* but all copies have the bytes */
    assert_int_equal(client_rig_get(node[2].appends), 1);
    cfile_attr(f, &a);
    assert_int_equal(a.size, 5000);
    cfile_close(f);
    client_rig_release();
    client_rig_wait(client_rig.commits == 1 && client_rig_size() == 5000);
}

static int64_t atime_shown(void)
{
    Replfs__Attr a = REPLFS__ATTR__INIT;
    assert_int_equal(client_getattr_now(client_rig.cl, CLIENT_RIG_INO, &a), 0);
    return a.atime_ns;
}

/* A read counts, and metad has not heard of it when its answer to our commit comes: the next read finds it all
 * the same. */
static void test_read_before_a_commits_answer(void **st)
{
    (void)st;
    struct cfile *f = written(5000);
    assert_int_equal(cfile_flush(f), 0);
    cfile_accessed(f);
    int64_t first = atime_shown();
    assert_int_not_equal(first, 0);
    client_rig_release();
    assert_int_equal(cfile_fsync(f), 0);
    cfile_accessed(f);
    assert_true(atime_shown() == first);
    cfile_close(f);
}

static void test_shared_close_waits(void **st)
{
    (void)st;
    struct cfile *f = client_rig_open_file(); /* this metad gives no leases */
    put(f, 5000);
    assert_int_equal(cfile_flush(f), 0);
    assert_int_equal(client_rig_get(commits), 1);
    cfile_close(f);
}

/* What is not on its way yet becomes one change; what is shown is the last of all. */
static void test_attributes_are_merged(void **st)
{
    (void)st;
    struct cfile *f = client_rig_open_file();
    client_rig_set(hold, true);
    assert_int_equal(set(MODE, 0600, 0).mode & 07777, 0600);
    client_rig_wait(client_rig.nheld == 1);
    set(MODE, 0640, 0);
    set(MTIME, 0, 12345);
    Replfs__Attr a = set(MODE, 0755, 0);
    assert_int_equal(a.mode & 07777, 0755);
    assert_int_equal(a.mtime_ns, 12345);
    cfile_attr(f, &a);
    assert_int_equal(a.mode & 07777, 0755);
    assert_int_equal(client_rig_get(setattrs), 0);
    client_rig_release();
    client_rig_wait((client_rig_attr(CLIENT_RIG_INO).mode & 07777) == 0755 &&
                    client_rig_attr(CLIENT_RIG_INO).mtime_ns == 12345 && client_rig.setattrs >= 2);
    assert_int_equal(client_rig_get(setattrs), 2);
    cfile_close(f);
}

/* The time that was set stays although the bytes written before are committed after it was set. */
static void test_mtime_comes_after_the_bytes(void **st)
{
    (void)st;
    struct cfile *f = written(100);
    set(MTIME, 0, 777);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_release();
    client_rig_wait(client_rig.commits == 1 && client_rig_attr(CLIENT_RIG_INO).mtime_ns == 777);
    put(f, 200); /* and bytes written after it make it void */
    assert_int_equal(cfile_fsync(f), 0);
    assert_int_not_equal(client_rig_attr(CLIENT_RIG_INO).mtime_ns, 777);
    cfile_close(f);
}

static void test_recall_waits_for_what_was_kept_back(void **st)
{
    (void)st;
    Replfs__Attr a;
    struct cfile *f = written(5000);
    set(MODE, 0600, 0);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_recall(CLIENT_RIG_INO);
    client_rig_wait(client_rig.nheld >= 1);
    client_rig_release();
    client_rig_wait(client_rig.recalled);
    assert_int_equal(client_rig_get(commits_then), 1);
    assert_int_equal(client_rig_get(setattrs_then), 1);
    /* without the lease nothing is kept back any more */
    assert_false(later(MODE, 0644, 0, &a));
    cfile_close(f);
}

/* Bytes that no call has sent yet: the recall sends them, since who asked reads them next. */
static void test_recall_flushes_what_is_written(void **st)
{
    (void)st;
    struct cfile *f = client_rig_open_file();
    put(f, 5000);
    client_rig_recall(CLIENT_RIG_INO);
    client_rig_wait(client_rig.recalled);
    assert_int_equal(client_rig_get(commits_then), 1);
    cfile_close(f);
}

static void test_fsync_waits(void **st)
{
    (void)st;
    pthread_t t;
    struct cfile *f = written(5000);
    set(MODE, 0600, 0);
    assert_int_equal(pthread_create(&t, NULL, in_background, f), 0);
    client_rig_wait(client_rig.nheld >= 1);
    client_rig_release();
    pthread_join(t, NULL);
    assert_int_equal(client_rig_get(commits), 1);
    assert_int_equal(client_rig_get(setattrs), 1);
    cfile_close(f);
}

/* Written, with a connection that metad gave up before it did what it was told of that. */
static struct cfile *lost_on_the_way(void)
{
    struct cfile *f = written(5000);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_wait(client_rig.nheld == 1);
    client_rig_lock();
    client_rig.hold = false;
    rpc_fail(client_rig.held[--client_rig.nheld], -ERR_NOT_LEADER, "scripted");
    client_rig_unlock();
    return f;
}

/* metad loses the connection with changes that it has not done: they come again, once, and the
 * lease is claimed before. */
static void test_resume_claims_and_repeats(void **st)
{
    (void)st;
    struct cfile *f = lost_on_the_way();
    client_rig_wait(client_rig.claims > 0 && client_rig.commits == 1);
    assert_int_equal(cfile_fsync(f), 0); /* the answer is here */
    client_rig_set(hold, true);
    put(f, 5000);
    assert_int_equal(cfile_flush(f), 0); /* still ours: not waited for */
    assert_int_equal(client_rig_get(commits), 1);
    client_rig_release();
    cfile_close(f);
}

static int patient_setup(void **st)
{
    client_rig_patient = true;
    return client_rig_leased_setup(st);
}

static int patient_teardown(void **st)
{
    client_rig_patient = false;
    return client_rig_teardown(st);
}

/* More is open than a message may name: the session resumes all the same, and nothing written is lost. */
static void test_resume_with_too_much_open(void **st)
{
    (void)st;
    enum { OPEN = RPC_MAX_ENVELOPE / sizeof(uint64_t) };
    static struct cfile *open[OPEN];
    Replfs__Attr a = REPLFS__ATTR__INIT;
    a.mode = S_IFREG | 0644;
    for (size_t i = 0; i < OPEN; i++) {
        a.ino = CLIENT_RIG_INO + 1 + i;
        assert_int_equal(cfile_open_new(client_rig.cl, &a, &open[i]), 0);
    }
    struct cfile *f = lost_on_the_way();
    client_rig_wait(client_rig.commits == 1);
    assert_in_range(client_rig.open, OPEN / 2, OPEN - 1);
    assert_int_equal(cfile_fsync(f), 0);
    cfile_close(f);
    for (size_t i = 0; i < OPEN; i++)
        cfile_close(open[i]);
}

/* metad refuses what was answered long ago: fsync tells, once. */
static void test_late_error_is_told(void **st)
{
    (void)st;
    struct cfile *f = written(5000);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_set(commit_code, -ENOSPC);
    client_rig_release();
    assert_int_equal(cfile_fsync(f), -ENOSPC);
    assert_int_equal(cfile_fsync(f), 0);
    cfile_close(f);
}

/* What was answered is done however long metad is away; who waits for it is told sooner. */
static void test_queue_outlives_the_timeout(void **st)
{
    (void)st;
    struct cfile *f = written(5000);
    set(MODE, 0600, 0);
    assert_int_equal(cfile_flush(f), 0);
    int64_t t = clock_mono();
    assert_int_equal(cfile_fsync(f), -ERR_TIMEOUT);
    int64_t ms = (clock_mono() - t) / NSEC_PER_MSEC;
    assert_in_range(ms, 300, 10000); /* the time-out is 1.5 s */
    while (clock_mono() - t < 2 * NSEC_PER_SEC)
        usleep(10000);
    assert_int_not_equal(client_sync(client_rig.cl), 0);
    assert_int_equal(client_settle(client_rig.cl, CLIENT_RIG_INO), -ERR_TIMEOUT);
    assert_int_equal(client_lost(client_rig.cl), 0);
    client_rig_release();
    client_rig_wait(client_rig.commits == 1 && client_rig.setattrs == 1 &&
                    (client_rig_attr(CLIENT_RIG_INO).mode & 07777) == 0600);
    assert_int_equal(cfile_fsync(f), 0);
    assert_int_equal(client_settle(client_rig.cl, CLIENT_RIG_INO), 0);
    cfile_close(f);
}

/* The same for bytes that a thread was waiting for: an fsync that failed takes nothing along. */
static void test_late_commit_is_done(void **st)
{
    (void)st;
    struct cfile *f = written(5000);
    assert_int_equal(cfile_fsync(f), -ERR_TIMEOUT);
    assert_int_equal(client_rig_get(commits), 0);
    client_rig_release();
    client_rig_wait(client_rig.commits == 1 && client_rig_size() == 5000);
    assert_int_equal(cfile_fsync(f), 0);
    assert_int_equal(client_rig_get(commits), 1); /* once */
    cfile_close(f);
}

static int unlink_it(void)
{
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    op.op_case = REPLFS__META_OP__OP_UNLINK;
    op.unlink = &u;
    u.parent = 1;
    u.name = (ProtobufCBinaryData){3, (uint8_t *)"new"};
    return client_mutate(client_rig.cl, &op, NULL, NULL);
}

static void *unlinker(void *arg)
{
    *(int *)arg = unlink_it();
    return NULL;
}

/* metad says that a change came to nothing, and has executed it; then the session is lost. It must not be done
 * once more under the next. */
static void doubled(int code)
{
    pthread_t t;
    int rc = 0;
    client_rig_lock();
    client_rig.fail_code = code;
    client_rig.fail_done = true;
    client_rig_unlock();
    assert_int_equal(pthread_create(&t, NULL, unlinker, &rc), 0);
    client_rig_wait(client_rig.unlinks == 1);
    usleep(20000); /* for the answer; whatever it meets, the outcome is the same */
    client_rig_end_session();
    client_rig_set(fail_code, 0);
    pthread_join(t, NULL);
    assert_int_equal(rc, -EIO);
    assert_int_equal(client_rig_get(unlinks), 1);
}

static void test_not_done_twice(void **st)
{
    (void)st;
    doubled(-ERR_NOT_LEADER);
}

static void test_not_done_twice_at_the_end(void **st)
{
    (void)st;
    doubled(-ERR_SHUTDOWN);
}

static void test_not_done_twice_when_the_log_fails(void **st)
{
    (void)st;
    doubled(-EIO);
}

/* And in the same session it is repeated until there is an answer, however it failed. */
static void test_log_that_cannot_be_written(void **st)
{
    (void)st;
    pthread_t t;
    int rc = 1;
    client_rig_set(fail_code, -EIO);
    assert_int_equal(pthread_create(&t, NULL, unlinker, &rc), 0);
    usleep(100000);
    client_rig_set(fail_code, 0);
    pthread_join(t, NULL);
    assert_int_equal(rc, 0);
    assert_int_equal(client_rig_get(unlinks), 1);
}

/* metad has just started and takes no opens: it hears of them later. */
static void test_open_told_in_grace(void **st)
{
    (void)st;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    struct cfile *f = NULL;
    a.ino = CLIENT_RIG_INO + 5;
    assert_int_equal(client_rig_make_file("third", a.ino), 0);
    a.mode = S_IFREG | 0644;
    client_rig_set(grace, true);
    assert_int_equal(cfile_open_new(client_rig.cl, &a, &f), 0);
    client_rig_wait(client_rig.opens_refused > 0);
    client_rig_set(grace, false);
    client_rig_wait(client_rig.opens > 0);
    cfile_close(f);
}

static bool make(const char *name, Replfs__Attr *a)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;
    c.parent = dir;
    c.name = bytes_of(name);
    c.mode = S_IFREG | 0644;
    return client_create_deferred(client_rig.cl, &c, a);
}

/* In a directory that is ours alone, a name of which metad has not heard. */
static void made_one(void)
{
    Replfs__Attr a;
    dir = client_rig_mkdir("dir");
    client_rig_set(hold, true);
    assert_true(make("a", &a));
    client_rig_wait(client_rig.nheld == 1);
}

static void *remover(void *arg)
{
    Replfs__UnlinkOp u = REPLFS__UNLINK_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    op.op_case = REPLFS__META_OP__OP_UNLINK;
    op.unlink = &u;
    u.parent = dir;
    u.name = (ProtobufCBinaryData){1, (uint8_t *)"a"};
    *(int *)arg = client_mutate(client_rig.cl, &op, NULL, NULL);
    return NULL;
}

static void *renamer(void *arg)
{
    Replfs__RenameOp r = REPLFS__RENAME_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    op.op_case = REPLFS__META_OP__OP_RENAME;
    op.rename = &r;
    r.parent = r.new_parent = dir;
    r.name = (ProtobufCBinaryData){1, (uint8_t *)"a"};
    r.new_name = (ProtobufCBinaryData){1, (uint8_t *)"b"};
    r.flags = 1; /* RENAME_NOREPLACE */
    *(int *)arg = client_mutate(client_rig.cl, &op, NULL, NULL);
    return NULL;
}

static unsigned number(const unsigned *field)
{
    client_rig_lock();
    unsigned v = *field;
    client_rig_unlock();
    return v;
}

/* A change that is sent directly comes after what is queued of the same names. The thread has ended before anything
 * is asserted: it uses the rig. */
static void comes_after(void *(*change)(void *), unsigned *seen)
{
    pthread_t t;
    int rc = 1;
    made_one();
    assert_int_equal(pthread_create(&t, NULL, change, &rc), 0);
    usleep(100000); /* it could come too early, but never does */
    client_rig_lock();
    size_t sent = client_rig.nheld;
    client_rig_unlock();
    unsigned early = number(seen);
    client_rig_release();
    pthread_join(t, NULL);
    assert_int_equal(sent, 1);
    assert_int_equal(early, 0);
    assert_int_equal(rc, 0);
    assert_int_equal(number(seen), 1);
    assert_int_equal(client_rig_get(creates_then), 1);
}

static void test_unlink_does_not_overtake(void **st)
{
    (void)st;
    comes_after(remover, &client_rig.unlinks);
}

static void test_rename_does_not_overtake(void **st)
{
    (void)st;
    comes_after(renamer, &client_rig.renames);
}

static void *sizer(void *arg)
{
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &s;
    s.ino = CLIENT_RIG_INO;
    s.valid = MODE;
    s.mode = 04755; /* setuid: metad decides */
    *(int *)arg = client_mutate(client_rig.cl, &op, NULL, NULL);
    return NULL;
}

/* A direct change of attributes first settles what is held back of the inode: bytes, and the mode set after
 * them. */
static void test_setattr_settles(void **st)
{
    (void)st;
    pthread_t t;
    int rc = 1;
    struct cfile *f = written(5000);
    set(MODE, 0600, 0);
    assert_int_equal(pthread_create(&t, NULL, sizer, &rc), 0);
    client_rig_wait(client_rig.nheld >= 1);
    client_rig_release();
    pthread_join(t, NULL);
    assert_int_equal(rc, 0);
    assert_int_equal(client_rig_get(commits), 1);
    assert_int_equal(client_rig_get(setattrs), 2);
    assert_int_equal((client_rig_attr(CLIENT_RIG_INO).mode & 07777), 04755); /* the last word */
    cfile_close(f);
}

/* The lease on a directory was forgotten here, with a name in it on its way: a recall that comes then waits for
 * the name all the same. */
static void test_recall_waits_for_names(void **st)
{
    (void)st;
    made_one();
    lease_cache_drop_all(client_rig.cl->leases);
    client_rig_recall(dir);
    client_rig_wait(client_rig.recalls > 0);
    usleep(100000); /* it could be answered too early, but never is */
    client_rig_lock();
    bool early = client_rig.recalled;
    client_rig_unlock();
    assert_false(early);
    client_rig_release();
    client_rig_wait(client_rig.recalled);
    assert_int_equal(client_rig_get(creates), 1);
}

/* A name that was answered, and that metad refuses: whoever syncs its directory is told (fuse/ops_dir.c). */
static void test_lost_name_is_counted(void **st)
{
    (void)st;
    made_one();
    unsigned before = client_lost(client_rig.cl);
    client_rig_set(create_code, ENOSPC);
    client_rig_release();
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    assert_int_equal(client_lost(client_rig.cl), before + 1);
    assert_int_equal(client_settle(client_rig.cl, dir), 0);
    assert_int_equal(client_lost(client_rig.cl), before + 1);
}

enum { LARGE = 24 };

static void large_done(struct mutation *m, int code, const Replfs__MutationResult *r)
{
    (void)m, (void)r;
    assert_int_equal(code, 0);
}

/* Together they are more than one message may hold. */
static void test_large_changes(void **st)
{
    (void)st;
    static Replfs__Extent x[COMMIT_EXTENTS_MAX], *list[COMMIT_EXTENTS_MAX];
    struct cfile *f = client_rig_open_file(); /* so that there is a chunk of ours */
    struct ext own;
    put(f, 5000);
    assert_int_equal(cfile_fsync(f), 0);
    assert_true(client_rig_ext(0, &own));
    assert_int_equal(client_rig_get(commits), 1);
    Replfs__CommitOp commit[LARGE];
    Replfs__MetaOp op[LARGE];
    struct mutation m[LARGE] = {0}, *all[LARGE];
    for (uint32_t i = 0; i < COMMIT_EXTENTS_MAX; i++) {
        replfs__extent__init(list[i] = &x[i]);
        x[i].file_off = 8192ull * i;
        x[i].len = 100;
        x[i].chunk = own.chunk;
        x[i].chunk_off = 100 * i;
    }
    for (size_t i = 0; i < LARGE; i++) {
        replfs__commit_op__init(&commit[i]);
        commit[i].ino = CLIENT_RIG_INO;
        commit[i].n_extents = COMMIT_EXTENTS_MAX;
        commit[i].extents = list;
        replfs__meta_op__init(&op[i]);
        op[i].op_case = REPLFS__META_OP__OP_COMMIT;
        op[i].commit = &commit[i];
        m[i] = (struct mutation){.op = &op[i], .done = large_done};
        all[i] = &m[i];
    }
    assert_true(LARGE * protobuf_c_message_get_packed_size(&op[0].base) > RPC_MAX_ENVELOPE);
    mutation_run(client_rig.cl, all, LARGE, clock_mono() + WAIT_LIMIT_S * NSEC_PER_SEC);
    assert_int_equal(client_rig_get(commits), 1 + LARGE);
    cfile_close(f);
}

#define T(f) cmocka_unit_test_setup_teardown(f, client_rig_leased_setup, client_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_close_does_not_wait_for_metad),
        T(test_read_before_a_commits_answer),
        cmocka_unit_test_setup_teardown(test_shared_close_waits, client_rig_setup,
                                        client_rig_teardown),
        T(test_attributes_are_merged),
        T(test_mtime_comes_after_the_bytes),
        T(test_recall_waits_for_what_was_kept_back),
        T(test_recall_flushes_what_is_written),
        T(test_fsync_waits),
        T(test_resume_claims_and_repeats),
        cmocka_unit_test_setup_teardown(test_resume_with_too_much_open, patient_setup,
                                        patient_teardown),
        T(test_late_error_is_told),
        T(test_large_changes),
        T(test_queue_outlives_the_timeout),
        T(test_late_commit_is_done),
        T(test_not_done_twice),
        T(test_not_done_twice_at_the_end),
        T(test_not_done_twice_when_the_log_fails),
        T(test_log_that_cannot_be_written),
        T(test_open_told_in_grace),
        T(test_unlink_does_not_overtake),
        T(test_rename_does_not_overtake),
        T(test_setattr_settles),
        T(test_recall_waits_for_names),
        T(test_lost_name_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
