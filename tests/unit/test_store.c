/* The store's ordinary life: appends, reads, repetitions, restarts, deletions, copies, limits. */
#include "store_rig.h"
#include <errno.h>
#include <sys/mount.h>

static void test_append_and_read(void **state)
{
    struct store_rig *r = *state;
    assert_int_equal(store_rig_append(r, 1, 0, 10000), 0);
    assert_int_equal(store_rig_append(r, 1, 10000, MIB), 0);
    assert_int_equal(store_rig_append(r, 1, 10000 + MIB, 1), 0);
    assert_int_equal(store_rig_append(r, 2, 0, 1), 0);
    assert_int_equal(store_rig_len(r, 1), 10001 + MIB);
    assert_int_equal(store_rig_len(r, 2), 1);
    assert_int_equal(store_rig_read(r, 1, 0, 10001 + MIB), 0);
    assert_int_equal(store_rig_read(r, 1, 9999, 2), 0);
    assert_int_equal(store_rig_read(r, 1, 500000, 4096), 0);
    assert_int_equal(store_rig_read(r, 2, 0, 1), 0);
    assert_int_equal(store_rig_read(r, 2, 0, 2), -ERR_SHORT);
    assert_int_equal(store_rig_read(r, 2, UINT32_MAX, 2), -ERR_SHORT);
    assert_int_equal(store_rig_read(r, 2, 0, 0), -EINVAL);
    assert_int_equal(store_rig_read(r, 3, 0, 1), -ERR_NO_CHUNK);
    assert_int_equal(store_rig_len(r, 3), -ERR_NO_CHUNK);
}

static void test_read_gives_whole_blocks(void **state)
{
    struct store_rig *r = *state;
    assert_int_equal(store_rig_append(r, 9, 0, 9000), 0);
    assert_int_equal(store_rig_append(r, 9, 9000, 20000), 0);
    struct store_read rd;
    assert_int_equal(store_read(r->s, 9, 5000, 5000, STORE_PLAIN, &rd), 0);
    assert_int_equal(rd.n, 2);
    assert_int_equal(rd.chunk_len, 29000);
    assert_int_equal(rd.spans[0].chunk_off, 4096); /* blocks count from each record's start */
    assert_int_equal(rd.spans[0].len, 9000 - 4096);
    assert_int_equal(rd.spans[1].chunk_off, 9000);
    assert_int_equal(rd.spans[1].len, 4096);
    buf_unref(rd.data);
    free(rd.spans);
}

static void test_bad_appends(void **state)
{
    struct store_rig *r = *state;
    assert_int_equal(store_rig_append(r, 1, 0, 5000), 0);
    assert_int_equal(store_rig_append(r, 1, 5001, 10), -ERR_OFFSET);   /* a gap */
    assert_int_equal(store_rig_append(r, 1, 4000, 2000), -ERR_OFFSET); /* reaches past the end */
    assert_int_equal(store_rig_append(r, 5, 1, 10), -ERR_OFFSET);      /* a chunk begins at 0 */
    assert_int_equal(store_rig_len(r, 5), -ERR_NO_CHUNK);
    assert_int_equal(store_rig_append(r, 0, 0, 10), -EINVAL);

    uint8_t crcs[8];
    struct buf *b = store_rig_buf(6, 0, 5000, 0, crcs);
    struct store_rig_waiter w;
    struct store_append a = {.chunk = 6, .session = 77, .data = b, .crcs = crcs};
    b->data[4999] ^= 1;
    store_rig_wait_init(&w, 1);
    store_append(r->s, &a, store_rig_done, &w);
    assert_int_equal(store_rig_wait(&w), -ERR_CRC);
    b->data[4999] ^= 1;
    a.session = 78;
    a.chunk = 1;
    a.chunk_off = 5000;
    store_rig_wait_init(&w, 1);
    store_append(r->s, &a, store_rig_done, &w); /* another session's chunk */
    assert_int_equal(store_rig_wait(&w), -ERR_SESSION);
    buf_unref(b);
    assert_int_equal(store_rig_len(r, 6), -ERR_NO_CHUNK);
}

static void test_repetition(void **state)
{
    struct store_rig *r = *state;
    assert_int_equal(store_rig_append(r, 1, 0, 5000), 0);
    assert_int_equal(store_rig_append(r, 1, 5000, 5000), 0);
    assert_int_equal(store_rig_append(r, 1, 5000, 5000), 0);
    assert_int_equal(store_rig_append(r, 1, 0, 10000), 0); /* cut differently, same bytes */
    assert_int_equal(store_rig_append(r, 1, 4999, 3), 0);
    assert_int_equal(store_rig_append_salted(r, 1, 5000, 5000, 1, false), -ERR_OFFSET);
    assert_int_equal(store_rig_append_salted(r, 1, 0, 5000, 0, true), 0);
    assert_int_equal(store_rig_len(r, 1), 10000);
    assert_int_equal(store_rig_read(r, 1, 0, 10000), 0);

    /* Repeated while the first may still be on its way to the disk. */
    struct store_rig_waiter w;
    store_rig_wait_init(&w, 300);
    for (unsigned i = 0; i < 100; i++)
        for (unsigned k = 0; k < 3; k++)
            store_rig_append_async(r, 0, 2, i * 3000, 3000, 0, false, &w);
    assert_int_equal(store_rig_wait(&w), 0);
    assert_int_equal(store_rig_read(r, 2, 0, 300000), 0);
}

static void test_many_and_restart(void **state)
{
    struct store_rig *r = *state;
    struct store_rig_waiter w;
    enum { N = 3000 };
    for (int round = 0; round < 3; round++) {
        store_rig_wait_init(&w, N);
        for (unsigned i = 0; i < N; i++)
            store_rig_append_async(r, 0, 1000 + i, (uint32_t)round * 3001, 3001, 0, i % 100 == 0,
                                   &w);
        assert_int_equal(store_rig_wait(&w), 0);
        store_rig_reopen(r);
    }
    assert_true(store_rig_segments(r, NULL, NULL, 0) > 5);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(store_rig_len(r, 1000 + i), 9003);
        assert_int_equal(store_rig_read(r, 1000 + i, 2000, 5000), 0);
    }
    struct store_stat st;
    store_stat(r->s, &st);
    assert_int_equal(st.chunks, N);
    assert_true(st.used > N * 9003u);
}

struct seen {
    uint64_t sum, bytes;
    unsigned n;
};

static bool see(void *arg, uint64_t chunk, uint32_t len, uint64_t session)
{
    struct seen *s = arg;
    assert_int_equal(session, 77);
    s->n++;
    s->sum ^= hash_u64(chunk);
    s->bytes += len;
    return true;
}

static bool see_one(void *arg, uint64_t chunk, uint32_t len, uint64_t session)
{
    see(arg, chunk, len, session);
    return false;
}

static void test_walk(void **state)
{
    struct store_rig *r = *state;
    struct store_rig_waiter w;
    uint64_t sum = 0;
    enum { N = 2500 };
    store_rig_wait_init(&w, N);
    for (unsigned i = 1; i <= N; i++) {
        store_rig_append_async(r, 0, i * 11, 0, 10, 0, false, &w);
        sum ^= hash_u64(i * 11);
    }
    assert_int_equal(store_rig_wait(&w), 0);
    store_rig_reopen(r); /* now in LMDB only */
    uint64_t gone[2] = {11, 22};
    assert_int_equal(store_rig_delete(r, gone, 2), 0);
    assert_int_equal(store_rig_append(r, 33, 10, 10), 0);
    assert_int_equal(store_rig_append(r, 5, 0, 10), 0);
    sum ^= hash_u64(11) ^ hash_u64(22) ^ hash_u64(5);
    struct seen s = {0};
    store_walk(r->s, see, &s);
    assert_int_equal(s.n, N - 1);
    assert_true(s.sum == sum);
    assert_int_equal(s.bytes, (N - 1) * 10 + 10);
    s.n = 0;
    store_walk(r->s, see_one, &s);
    assert_int_equal(s.n, 1);
}

static void test_delete_gives_space_back(void **state)
{
    struct store_rig *r = *state;
    struct store_stat st;
    uint64_t chunks[24];
    for (unsigned i = 0; i < 24; i++) {
        chunks[i] = 100 + i;
        assert_int_equal(store_rig_append(r, chunks[i], 0, MIB), 0);
    }
    assert_int_equal(store_rig_sync(r), 0);
    store_stat(r->s, &st);
    uint64_t before = st.used;
    assert_true(before > 24 * MIB);
    /* Every second one: holes in segments that stay. */
    uint64_t half[12];
    for (unsigned i = 0; i < 12; i++)
        half[i] = chunks[2 * i];
    assert_int_equal(store_rig_delete(r, half, 12), 0);
    assert_int_equal(store_rig_read(r, half[0], 0, 1), -ERR_NO_CHUNK);
    WAIT_UNTIL((store_stat(r->s, &st), st.used < before - 11 * MIB));
    for (unsigned i = 0; i < 24; i += 2)
        assert_int_equal(store_rig_read(r, chunks[i + 1], 0, MIB), 0);
    /* All: whole segments disappear, except the one being written. */
    assert_int_equal(store_rig_delete(r, chunks, 24), 0);
    WAIT_UNTIL(store_rig_segments(r, NULL, NULL, 0) <= 2);
    WAIT_UNTIL((store_stat(r->s, &st), st.used < 2 * MIB));
    assert_int_equal(st.chunks, 0);
    store_rig_reopen(r);
    assert_int_equal(store_rig_len(r, chunks[1]), -ERR_NO_CHUNK);
    assert_int_equal(store_rig_append(r, chunks[1], 0, 5000), 0); /* the same id may come again */
    store_rig_reopen(r);
    assert_int_equal(store_rig_read(r, chunks[1], 0, 5000), 0);
}

static void test_compaction_keeps_data(void **state)
{
    struct store_rig *r = *state;
    struct store_rig_waiter w;
    enum { N = 6000, KEEP = 10 };
    store_rig_wait_init(&w, N);
    for (unsigned i = 1; i <= N; i++)
        store_rig_append_async(r, 0, i, 0, 3000, 0, false, &w);
    assert_int_equal(store_rig_wait(&w), 0);
    int segments = store_rig_segments(r, NULL, NULL, 0);
    assert_true(segments >= 4);
    uint64_t *del = malloc(N * sizeof *del);
    size_t n = 0;
    for (unsigned i = 1; i <= N; i++)
        if (i % KEEP)
            del[n++] = i;
    assert_int_equal(store_rig_delete(r, del, n), 0);
    WAIT_UNTIL(store_rig_segments(r, NULL, NULL, 0) <= 2);
    for (unsigned i = KEEP; i <= N; i += KEEP)
        assert_int_equal(store_rig_read(r, i, 0, 3000), 0);
    /* The log alone tells the same: nothing deleted comes back, nothing moved is lost. */
    r->cfg.rebuild_index = true;
    store_rig_reopen(r);
    r->cfg.rebuild_index = false;
    struct store_stat st;
    store_stat(r->s, &st);
    assert_int_equal(st.chunks, N / KEEP);
    for (unsigned i = 1; i <= N; i++)
        assert_int_equal(store_rig_len(r, i), i % KEEP ? -ERR_NO_CHUNK : 3000);
    for (unsigned i = KEEP; i <= N; i += KEEP)
        assert_int_equal(store_rig_read(r, i, 0, 3000), 0);
    free(del);
}

static void test_copy(void **state)
{
    struct store_rig *r = *state;
    uint64_t token, other;
    assert_int_equal(store_rig_append(r, 1, 0, 100000), 0);
    assert_int_equal(store_copy_begin(r->s, 1, 77, &token), 0);
    assert_int_equal(store_rig_copy_append(r, token, 1, 0, 60000, 1), 0);
    assert_int_equal(store_rig_copy_append(r, token, 1, 0, 60000, 1), 0);
    assert_int_equal(store_rig_copy_append(r, token, 1, 60001, 5, 1), -ERR_OFFSET);
    assert_int_equal(store_rig_copy_append(r, token, 1, 60000, 60000, 1), 0);
    assert_int_equal(store_rig_copy_append(r, token + 5, 1, 0, 5, 1), -ERR_NO_CHUNK);
    assert_int_equal(store_rig_read(r, 1, 0, 100000), 0); /* untouched so far */
    assert_int_equal(store_rig_finish(r, token), 0);
    assert_int_equal(store_rig_len(r, 1), 120000);
    assert_int_equal(store_rig_read_salted(r, 1, 0, 120000, 1), 0);
    assert_int_equal(store_rig_finish(r, token), -ERR_NO_CHUNK);

    assert_int_equal(store_copy_begin(r->s, 1, 77, &token), 0);
    assert_int_equal(store_rig_copy_append(r, token, 1, 0, 5000, 2), 0);
    store_copy_abort(r->s, token);
    assert_int_equal(store_rig_copy_append(r, token, 1, 5000, 5000, 2), -ERR_NO_CHUNK);
    assert_int_equal(store_rig_read_salted(r, 1, 0, 120000, 1), 0);

    /* Of two, the one begun later wins. */
    assert_int_equal(store_copy_begin(r->s, 2, 77, &token), 0);
    assert_int_equal(store_copy_begin(r->s, 2, 77, &other), 0);
    assert_int_equal(store_rig_copy_append(r, token, 2, 0, 5000, 1), 0);
    assert_int_equal(store_rig_copy_append(r, other, 2, 0, 5000, 2), 0);
    assert_int_equal(store_rig_finish(r, other), 0);
    assert_int_equal(store_rig_finish(r, token), -ERR_BUSY);
    store_copy_abort(r->s, token);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(store_rig_read_salted(r, 1, 0, 120000, 1), 0);
        assert_int_equal(store_rig_read_salted(r, 2, 0, 5000, 2), 0);
        r->cfg.rebuild_index = i == 0;
        store_rig_reopen(r);
    }
}

/* The chunk goes on growing while a copy of it is made: nothing that was acknowledged is lost. */
static void test_copy_of_what_grows(void **state)
{
    struct store_rig *r = *state;
    uint64_t token;
    assert_int_equal(store_rig_append(r, 1, 0, 100000), 0);
    assert_int_equal(store_copy_begin(r->s, 1, 77, &token), 0);
    assert_int_equal(store_rig_copy_append(r, token, 1, 0, 100000, 0), 0);
    assert_int_equal(store_rig_append(r, 1, 100000, 5000), 0);
    assert_int_equal(store_rig_finish_seen(r, token, 100000), -EAGAIN);
    assert_int_equal(store_rig_len(r, 1), 105000);
    assert_int_equal(store_rig_copy_append(r, token, 1, 100000, 5000, 0), 0);
    assert_int_equal(store_rig_finish_seen(r, token, 105000), 0);
    assert_int_equal(store_rig_append(r, 1, 105000, 7), 0);
    /* what was seen and cannot be saved stands in nobody's way */
    assert_int_equal(store_copy_begin(r->s, 1, 77, &token), 0);
    assert_int_equal(store_rig_copy_append(r, token, 1, 0, 105000, 0), 0);
    assert_int_equal(store_rig_finish_seen(r, token, 105006), -EAGAIN);
    assert_int_equal(store_rig_finish_seen(r, token, 105007), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(store_rig_len(r, 1), 105000);
        assert_int_equal(store_rig_read(r, 1, 0, 105000), 0);
        store_rig_reopen(r);
    }
}

static void test_capacity(void **state)
{
    struct store_rig *r = *state;
    struct store_stat st;
    store_rig_close(r);
    r->cfg.capacity = 8 * MIB;
    assert_int_equal(store_rig_open(r), 0);
    unsigned n = 0;
    int rc;
    while ((rc = store_rig_append(r, 1, n * 512 * KIB, 512 * KIB)) == 0)
        assert_true(++n < 20);
    assert_int_equal(rc, -ENOSPC);
    assert_in_range(n, 12, 16);
    store_stat(r->s, &st);
    assert_true(st.used <= 8 * MIB && !st.failed);
    assert_int_equal(st.capacity, 8 * MIB);
    assert_true(st.avail < 512 * KIB + 4096);
    assert_int_equal(store_rig_read(r, 1, 0, n * 512 * KIB), 0);
    /* Room again: the store goes on. */
    assert_int_equal(store_rig_delete(r, &(uint64_t){1}, 1), 0);
    WAIT_UNTIL((rc = store_rig_append(r, 2, 0, MIB)) == 0 || rc != -ENOSPC);
    assert_int_equal(rc, 0);
    /* A reserve larger than the disk leaves nothing. */
    store_rig_close(r);
    r->cfg.capacity = 0;
    r->cfg.reserve = 1ull << 60;
    assert_int_equal(store_rig_open(r), 0);
    assert_int_equal(store_rig_append(r, 3, 0, 1), -ENOSPC);
    assert_int_equal(store_rig_append_salted(r, 2, 0, MIB, 0, true), 0); /* nothing new to write */
    store_stat(r->s, &st);
    assert_int_equal(st.avail, 0);
}

/* A really full file system: appends fail, nothing breaks, deletions still work. Needs the right to
 * mount. */
static void test_full_disk(void **state)
{
    struct store_rig *r = *state;
    struct store_stat st;
    struct store_id id = {.cluster = STORE_RIG_CLUSTER, .chunkd = 3, .disk = 1};
    store_rig_close(r);
    if (mount("tmpfs", r->dir, "tmpfs", 0, "size=100m"))
        skip();
    assert_int_equal(store_id_write(r->dir, &id), 0);
    assert_int_equal(store_rig_open(r), 0);
    unsigned n = 0;
    int rc;
    assert_int_equal(store_rig_append(r, 1, 0, 4096), 0);
    char spare[128];
    snprintf(spare, sizeof spare, "%s/spare", r->dir);
    WAIT_UNTIL(access(spare, F_OK) == 0);
    while ((rc = store_rig_append(r, 100 + n, 0, MIB)) == 0)
        assert_true(++n < 100);
    assert_int_equal(rc, -ENOSPC);
    /* Somebody else takes the last bytes. */
    char hog[128];
    snprintf(hog, sizeof hog, "%s/hog", r->dir);
    int fd = open(hog, O_WRONLY | O_CREAT, 0600);
    static char page[4096];
    while (write(fd, page, sizeof page) > 0)
        ;
    assert_int_equal(errno, ENOSPC);
    while ((rc = store_rig_append(r, 2, 0, 100000)) == 0)
        assert_int_equal(store_rig_delete(r, &(uint64_t){2}, 1), 0);
    assert_int_equal(rc, -ENOSPC);
    store_stat(r->s, &st);
    assert_false(st.failed);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(store_rig_read(r, 100 + i, 0, MIB), 0);
    for (unsigned i = 0; i < n; i += 2)
        assert_int_equal(store_rig_delete(r, &(uint64_t){100 + i}, 1), 0);
    WAIT_UNTIL((rc = store_rig_append(r, 50, 0, MIB)) == 0 || rc != -ENOSPC);
    assert_int_equal(rc, 0);
    store_rig_reopen(r);
    for (unsigned i = 1; i < n; i += 2)
        assert_int_equal(store_rig_read(r, 100 + i, 0, MIB), 0);
    assert_int_equal(store_rig_read(r, 50, 0, MIB), 0);
    close(fd);
    store_rig_close(r);
    assert_int_equal(umount(r->dir), 0);
    assert_int_equal(store_rig_open(r), 0);
}

struct change {
    pthread_mutex_t lock;
    unsigned grown, gone;
    uint64_t chunk;
    uint32_t len;
};

static void on_change(void *arg, uint64_t chunk, uint32_t len, uint64_t session)
{
    struct change *c = arg;
    (void)session;
    pthread_mutex_lock(&c->lock);
    *(len ? &c->grown : &c->gone) += 1;
    c->chunk = chunk;
    c->len = len;
    pthread_mutex_unlock(&c->lock);
}

static void test_changes_are_told(void **state)
{
    struct store_rig *r = *state;
    struct change c = {.lock = PTHREAD_MUTEX_INITIALIZER};
    store_rig_close(r);
    r->cfg.changed = on_change;
    r->cfg.arg = &c;
    assert_int_equal(store_rig_open(r), 0);
    assert_int_equal(store_rig_append(r, 4, 0, 100), 0);
    assert_int_equal(store_rig_append(r, 4, 100, 100), 0);
    assert_int_equal(c.grown, 2);
    assert_int_equal(c.len, 200);
    assert_int_equal(store_rig_delete(r, (uint64_t[]){4, 4, 9}, 3), 0);
    assert_int_equal(c.gone, 1);
    assert_int_equal(store_rig_delete(r, NULL, 0), 0);
    uint64_t token;
    assert_int_equal(store_copy_begin(r->s, 8, 77, &token), 0);
    assert_int_equal(store_rig_copy_append(r, token, 8, 0, 50, 0), 0);
    assert_int_equal(c.grown, 2);
    assert_int_equal(store_rig_finish(r, token), 0);
    assert_int_equal(c.grown, 3);
    assert_int_equal(c.chunk, 8);
    r->cfg.changed = NULL;
    store_rig_reopen(r);
}

static void *reader(void *arg)
{
    struct store_rig *r = arg;
    for (unsigned i = 0; i < 4000; i++) {
        uint64_t chunk = 1 + i % 40;
        long len = store_rig_len(r, chunk);
        if (len <= 0)
            continue;
        uint32_t off = (uint32_t)(hash_u64(i) % (uint64_t)len);
        uint32_t n = (uint32_t)len - off < 9000 ? (uint32_t)len - off : 9000;
        struct store_read rd;
        int rc = store_read(r->s, chunk, off, n, STORE_VERIFY, &rd);
        assert_true(rc == 0 || rc == -ERR_NO_CHUNK || rc == -ERR_SHORT);
        if (!rc) {
            buf_unref(rd.data);
            free(rd.spans);
        }
    }
    return NULL;
}

/* Readers next to appends, deletions, copies, checkpoints and hole punching. */
static void test_concurrent(void **state)
{
    struct store_rig *r = *state;
    pthread_t t[2];
    store_rig_close(r);
    r->cfg.checkpoint_ms = 10;
    assert_int_equal(store_rig_open(r), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&t[i], NULL, reader, r), 0);
    for (unsigned round = 0; round < 30; round++) {
        struct store_rig_waiter w;
        store_rig_wait_init(&w, 40 * 4);
        for (unsigned k = 0; k < 4; k++)
            for (unsigned i = 0; i < 40; i++)
                store_rig_append_async(r, 0, 1 + i, k * 20000, 20000, 0, i == 7, &w);
        assert_int_equal(store_rig_wait(&w), 0);
        uint64_t token, del[20];
        assert_int_equal(store_copy_begin(r->s, 2, 77, &token), 0);
        assert_int_equal(store_rig_copy_append(r, token, 2, 0, 80000, 0), 0);
        assert_int_equal(store_rig_finish(r, token), 0);
        for (unsigned i = 0; i < 20; i++)
            del[i] = 1 + 2 * i + round % 2;
        assert_int_equal(store_rig_delete(r, del, 20), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, store_rig_setup, store_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_append_and_read),
        T(test_read_gives_whole_blocks),
        T(test_bad_appends),
        T(test_repetition),
        T(test_many_and_restart),
        T(test_walk),
        T(test_delete_gives_space_back),
        T(test_compaction_keeps_data),
        T(test_copy),
        T(test_copy_of_what_grows),
        T(test_capacity),
        T(test_full_disk),
        T(test_changes_are_told),
        T(test_concurrent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
