/* The client library against a metad and chunkds that fail as told: a failed append moves on to
 * another chunk without the culprit, bad copies are skipped and reported, errors come back
 * exactly once, repeated mutations happen once, unsynced copies are written again. */
#include "client_rig.h"

#define SIZE (600u << 10)

static uint8_t data[SIZE];

static struct cfile *open_file(void)
{
    struct cfile *f = NULL;
    assert_int_equal(cfile_open(client_rig.cl, CLIENT_RIG_INO, true, NULL, &f), 0);
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    return f;
}

static int put(struct cfile *f, size_t off, size_t len)
{
    off_t o = (off_t)off;
    return cfile_write(f, data + off, len, &o, 0);
}

static void expect(struct cfile *f, size_t off, size_t len)
{
    struct buf *b = NULL;
    assert_int_equal(cfile_read(f, (off_t)off, len, &b), 0);
    assert_int_equal(b->len, len);
    assert_memory_equal(b->data, data + off, len);
    buf_unref(b);
}

static void test_write_read(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    assert_int_equal(put(f, 0, SIZE), 0);
    expect(f, 1000, 5000); /* from the buffer */
    assert_int_equal(cfile_fsync(f), 0);
    assert_int_equal(client_rig_get(commits), 1);
    expect(f, 0, SIZE);
    expect(f, 4095, 4099);
    struct buf *b = NULL;
    assert_int_equal(cfile_read(f, SIZE - 10, 100, &b), 0); /* short at the end */
    assert_int_equal(b->len, 10);
    buf_unref(b);
    cfile_close(f);
}

/* Nobody asks, and the bytes get there all the same. */
static void test_background_flush(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    assert_int_equal(put(f, 0, 1000), 0);
    client_rig_wait(client_rig.commits == 1);
    cfile_close(f);
}

static void test_failed_append_moves_on(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    client_rig_set(node[2].append_code, -EIO); /* the chain's second hop */
    assert_int_equal(put(f, 0, SIZE), 0);
    assert_int_equal(cfile_flush(f), 0);
    expect(f, 0, SIZE);
    client_rig_lock();
    assert_int_equal(client_rig.node[2].nrecs, 0);
    assert_true(client_rig.node[3].nrecs > 0);
    assert_int_equal(client_rig.nexclude, 1);
    assert_int_equal(client_rig.last_exclude[0], 2);
    client_rig_unlock();
    struct client_stat s;
    client_stat(client_rig.cl, &s);
    assert_true(s.sealed_early >= 1);
    assert_int_equal(s.dirty_bytes, 0);
    cfile_close(f);
}

static void test_too_few_is_eio_once(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    client_rig_set(node[2].append_code, -EIO);
    client_rig_set(node[3].append_code, -EIO);
    assert_int_equal(put(f, 0, 5000), 0);
    int64_t t = clock_mono();
    assert_int_equal(cfile_fsync(f), -EIO);
    int64_t ms = (clock_mono() - t) / NSEC_PER_MSEC;
    assert_true(ms >= 1000 && ms < 10000); /* the time-out is 1.5 s */
    assert_int_equal(cfile_fsync(f), 0);   /* told once */
    struct client_stat s;
    client_stat(client_rig.cl, &s);
    assert_int_equal(s.dirty_bytes, 0);
    cfile_close(f);
}

static void test_no_space(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    client_rig_set(grant_code, -ENOSPC);
    int rc = put(f, 0, 5000);
    assert_true(rc == 0 || rc == -ENOSPC);
    if (!rc)
        assert_int_equal(cfile_flush(f), -ENOSPC);
    client_rig_set(grant_code, 0);
    assert_int_equal(put(f, 0, 5000), 0); /* and it works again */
    assert_int_equal(cfile_flush(f), 0);
    expect(f, 0, 5000);
    cfile_close(f);
}

/* Disks that are full further down the chain are full, and stay so when their chunkds answer probes: what was granted
 * there is not tried, one chunk after the other, until the time is over. */
static void test_no_space_down_the_chain(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    for (unsigned i = 1; i <= CLIENT_RIG_NODES; i++)
        client_rig_set(node[i].hop_code, -ENOSPC);
    assert_int_equal(put(f, 0, SIZE), 0);
    assert_int_equal(cfile_fsync(f), -ENOSPC);
    struct client_stat s;
    client_stat(client_rig.cl, &s);
    assert_true(s.sealed_early <= CLIENT_RIG_NODES);
    cfile_close(f);
}

static void test_commit_refused(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    client_rig_set(commit_code, -EDQUOT);
    assert_int_equal(put(f, 0, 5000), 0);
    assert_int_equal(cfile_flush(f), -EDQUOT);
    assert_int_equal(cfile_flush(f), 0);
    struct buf *b = NULL;
    assert_int_equal(cfile_read(f, 0, 5000, &b), 0); /* the bytes are not part of the file */
    assert_int_equal(b->len, 0);
    buf_unref(b);
    cfile_close(f);
}

static void test_bad_copy_skipped(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    assert_int_equal(put(f, 0, SIZE), 0);
    assert_int_equal(cfile_fsync(f), 0);
    client_rig_set(corrupt_reads, 1); /* whoever is asked first */
    expect(f, 0, SIZE);
    client_rig_wait(client_rig.bad_reports == 1);
    struct client_stat s;
    client_stat(client_rig.cl, &s);
    assert_int_equal(s.crc_errors, 1);
    assert_int_equal(s.read_retries, 1);
    client_rig_set(node[1].corrupt, true);
    client_rig_set(node[3].read_code, -ERR_NO_CHUNK);
    expect(f, 0, SIZE);
    /* All bad: EIO, never garbage. */
    client_rig_set(node[2].corrupt, true);
    struct buf *b = NULL;
    assert_int_equal(cfile_read(f, 0, SIZE, &b), -EIO);
    assert_null(b);
    client_rig_set(node[2].corrupt, false);
    expect(f, 0, SIZE);
    cfile_close(f);
}

static void test_silent_copy_hedged(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    assert_int_equal(put(f, 0, SIZE), 0);
    assert_int_equal(cfile_fsync(f), 0);
    client_rig_set(node[1].mute_reads, true);
    client_rig_set(node[3].mute_reads, true);
    int64_t t = clock_mono();
    expect(f, 0, SIZE);
    assert_true(clock_mono() - t < 4 * NSEC_PER_SEC);
    cfile_close(f);
}

/* The answer of a commit is lost: it is repeated under the same number and executed once. */
static void test_repeated_mutation(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    client_rig_set(drop_replies, 2);
    assert_int_equal(put(f, 0, 5000), 0);
    assert_int_equal(cfile_flush(f), 0);
    assert_int_equal(client_rig_get(commits), 1);
    assert_int_equal(client_rig_get(mutations), 1);
    cfile_close(f);
}

/* A commit says whose its chunks are, and under which registration each chunkd took them. */
static void test_commit_dates_its_copies(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    client_rig_set(hold, true);
    assert_int_equal(put(f, 0, 5000), 0);
    assert_int_equal(cfile_flush(f),
                     -ERR_TIMEOUT); /* whoever waits; the commit does not end with that */
    client_rig_lock();
    assert_true(client_rig.nheld > 0);
    const Replfs__MutateReq *m = client_rig.held[0]->env->mutate_req;
    assert_int_equal(m->ops[0]->op->op_case, REPLFS__META_OP__OP_COMMIT);
    const Replfs__ChunkCopies *copies = m->ops[0]->op->commit->copies[0];
    assert_int_equal(copies->n_registrations, copies->n_chunkds);
    for (size_t i = 0; i < copies->n_chunkds; i++)
        assert_int_equal(copies->registrations[i],
                         client_rig.node[copies->chunkds[i]].registration);
    const struct client_rig_cap *granted = client_rig_granted(copies->chunk);
    assert_non_null(granted);
    assert_int_equal(copies->cap.len, sizeof(granted->cap));
    assert_memory_equal(copies->cap.data, granted->cap, sizeof(granted->cap));
    client_rig_unlock();
    client_rig_set(hold, false);
    cfile_close(f);
}

/* One of two copies cannot sync: its bytes are read from the other and written where two can. */
static void test_unsynced_written_again(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    assert_int_equal(put(f, 0, SIZE), 0);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_set(node[1].sync_code, -EIO);
    assert_int_equal(cfile_fsync(f), 0);
    client_rig_lock();
    assert_true(client_rig.node[3].nrecs > 0);
    assert_true(client_rig.commits >= 2);
    struct ext e;
    assert_true(client_rig_ext(0, &e));
    uint64_t chunk = e.chunk;
    bool on_one = false;
    for (size_t i = 0; i < client_rig.node[1].nrecs; i++)
        on_one |= client_rig.node[1].recs[i].chunk == chunk;
    assert_false(on_one);
    client_rig_unlock();
    expect(f, 0, SIZE);
    cfile_close(f);
}

/* What another client committed meanwhile is not undone by writing our bytes again. */
static void test_written_again_spares_others(void **st)
{
    (void)st;
    struct ext e;
    struct cfile *f = open_file();
    assert_int_equal(put(f, 0, SIZE), 0);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_lock();
    client_rig.node[1].sync_code = -EIO;
    assert_true(client_rig_ext(0, &e));
    uint64_t before = e.chunk;
    client_rig_unlock();
    uint64_t theirs = client_rig_foreign_write(8192, 4096);
    assert_int_equal(cfile_fsync(f), 0);
    client_rig_lock();
    assert_true(client_rig_ext(8192, &e) && e.file_off == 8192);
    assert_true(e.chunk == theirs && e.len == 4096);
    assert_true(client_rig_ext(0, &e) && e.chunk != before);
    assert_true(client_rig_ext(SIZE - 1, &e) && e.chunk != before);
    client_rig_unlock();
    cfile_close(f);
}

/* Metad closed the session: what was written under it and not committed is lost and told; the
 * next works. */
static void test_session_lost(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    assert_int_equal(put(f, 0, 5000), 0);
    assert_int_equal(cfile_flush(f), 0);
    client_rig_end_session();
    assert_int_equal(put(f, 5000, 5000), 0);
    int rc = cfile_flush(f);
    assert_true(rc == -EIO || rc == 0); /* 0: the loss was noticed before the bytes were sent */
    assert_int_equal(put(f, 5000, 5000), 0);
    assert_int_equal(cfile_flush(f), 0);
    expect(f, 0, 10000);
    cfile_close(f);
}

static void test_truncate(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    assert_int_equal(put(f, 0, 10000), 0);
    Replfs__Attr a = REPLFS__ATTR__INIT;
    assert_int_equal(cfile_truncate(f, 4000, &a), 0);
    assert_int_equal(a.size, 4000);
    assert_int_equal(put(f, 8000, 100), 0);
    struct buf *b = NULL;
    assert_int_equal(cfile_read(f, 0, 9000, &b), 0);
    assert_int_equal(b->len, 8100);
    assert_memory_equal(b->data, data, 4000);
    for (size_t i = 4000; i < 8000; i++)
        assert_int_equal(b->data[i], 0);
    assert_memory_equal(b->data + 8000, data + 8000, 100);
    buf_unref(b);
    cfile_close(f);
}

/* Many small writes become few appends. */
static void test_small_writes_batched(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(put(f, (i * 37 % 100) * 5000, 300), 0);
    assert_int_equal(cfile_flush(f), 0);
    assert_true(client_rig_get(node[1].appends) <= 5);
    for (size_t i = 0; i < 100; i++)
        expect(f, (i * 37 % 100) * 5000, 300);
    cfile_close(f);
}

/* A write is one append, or another client's could come between its parts. */
static void test_write_not_cut(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    off_t next = SIZE;
    assert_int_equal(put(f, 0, SIZE), 0);
    assert_int_equal(cfile_write(f, data, SIZE, &next, 0), 0);
    assert_int_equal(cfile_flush(f), 0);
    assert_int_equal(client_rig.node[1].nrecs, 2);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(client_rig.node[1].recs[i].len, SIZE);
    cfile_close(f);
}

/* fsync is about the file, not about what this open of it wrote. */
static void test_fsync_after_reopen(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    assert_int_equal(put(f, 0, SIZE), 0);
    assert_int_equal(cfile_flush(f), 0);
    cfile_close(f);
    unsigned before = client_rig_get(node[2].syncs);
    f = open_file();
    assert_int_equal(cfile_fsync(f), 0);
    unsigned after = client_rig_get(node[2].syncs);
    assert_true(after > before);
    assert_int_equal(cfile_fsync(f), 0); /* known now */
    assert_int_equal(client_rig_get(node[2].syncs), after);
    cfile_close(f);
}

/* Whoever else has the file open and closes it does not take the error along. */
static void test_error_reaches_all(void **st)
{
    (void)st;
    unsigned seen = 0, other = 0;
    struct cfile *f = open_file(), *g = open_file();
    assert_int_equal(put(f, 0, 1000), 0);
    client_rig_set(commit_code, -EFBIG);
    cfile_close(g);
    client_rig_set(commit_code, 0);
    assert_int_equal(cfile_fsync(f), -EFBIG);
    assert_int_equal(cfile_error_since(f, &seen), -EFBIG);
    assert_int_equal(cfile_error_since(f, &seen), 0);
    assert_int_equal(cfile_error_since(f, &other), -EFBIG);
    assert_int_equal(cfile_fsync(f), 0);
    cfile_close(f);
}

/* A commit is limited in extents: so many scattered bytes need several. */
static void test_scattered_bytes(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    for (size_t i = 0; i < 10000; i++)
        assert_int_equal(put(f, 3 * i, 1), 0);
    assert_int_equal(cfile_fsync(f), 0);
    expect(f, 29997, 1);
    cfile_close(f);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, client_rig_setup, client_rig_teardown)

/* No chunkd has the chunk: said at once when that is sure, waited for when it is not. */
static void test_lost_chunk(void **st)
{
    (void)st;
    struct cfile *f = open_file();
    struct buf *b = NULL;
    assert_int_equal(put(f, 0, 5000), 0);
    assert_int_equal(cfile_fsync(f), 0);
    cfile_close(f);
    client_rig_set(lost, true);
    client_rig_set(nowhere, true);
    f = open_file();
    int64_t begun = clock_mono();
    assert_int_equal(cfile_read(f, 0, 5000, &b), -EIO);
    assert_true(clock_mono() - begun < CLIENT_RIG_TIMEOUT_MS * NSEC_PER_MSEC / 2);
    client_rig_set(lost, false);
    begun = clock_mono();
    assert_int_equal(cfile_read(f, 0, 5000, &b), -EIO);
    assert_true(clock_mono() - begun > CLIENT_RIG_TIMEOUT_MS * NSEC_PER_MSEC / 2);
    client_rig_set(nowhere, false);
    expect(f, 0, 5000);
    cfile_close(f);
}

static void *ask_attr(void *arg)
{
    Replfs__Attr *a = arg;
    if (client_getattr(client_rig.cl, CLIENT_RIG_INO, a))
        a->ino = 0;
    return NULL;
}

/* An answer that was made before our commit, and comes when nobody has the file open any more. */
static void test_answer_from_before_the_commit(void **st)
{
    (void)st;
    pthread_t t;
    Replfs__Attr a = REPLFS__ATTR__INIT;
    struct cfile *f = open_file();
    client_rig_set(keep_getattr, true);
    assert_int_equal(pthread_create(&t, NULL, ask_attr, &a), 0);
    client_rig_wait(client_rig.kept_getattr != NULL);
    assert_int_equal(put(f, 0, 5000), 0);
    assert_int_equal(cfile_fsync(f), 0);
    cfile_close(f);
    Replfs__GetattrReply r = REPLFS__GETATTR_REPLY__INIT;
    RPC_ENVELOPE(env, GETATTR_REPLY, getattr_reply, &r);
    r.attr = &client_rig.kept_attr;
    rpc_reply(client_rig.kept_getattr, &env, NULL);
    pthread_join(t, NULL);
    assert_int_equal(a.ino, CLIENT_RIG_INO);
    assert_int_equal(a.size, 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_write_read),
        T(test_background_flush),
        T(test_failed_append_moves_on),
        T(test_too_few_is_eio_once),
        T(test_no_space),
        T(test_no_space_down_the_chain),
        T(test_commit_refused),
        T(test_bad_copy_skipped),
        T(test_silent_copy_hedged),
        T(test_repeated_mutation),
        T(test_commit_dates_its_copies),
        T(test_unsynced_written_again),
        T(test_written_again_spares_others),
        T(test_session_lost),
        T(test_truncate),
        T(test_small_writes_batched),
        T(test_write_not_cut),
        T(test_fsync_after_reopen),
        T(test_error_reaches_all),
        T(test_scattered_bytes),
        T(test_lost_chunk),
        T(test_answer_from_before_the_commit),
    };
    log_init("test_client_faults", LOG_LVL_ERROR, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
