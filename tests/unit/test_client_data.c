/* The client library's appends, clones, fallocate and search for holes against the fake metad: cases
 * one by one, then random calls on one file against an array of bytes. */
#include "client_rig.h"

#include <linux/falloc.h>

#include "client/cache/lease_cache.h"
#include "client/internal.h"

#define KEEP FALLOC_FL_KEEP_SIZE
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO FALLOC_FL_ZERO_RANGE

enum { SIZE = 120000, OPS = 3000 };

struct model {
    uint8_t byte[2 * SIZE], written[2 * SIZE]; /* written 0: a hole, or reserved */
    uint64_t size, rnd;
};
static struct model model;

static uint64_t rnd(uint64_t below)
{
    model.rnd = model.rnd * 6364136223846793005ull + 1442695040888963407ull;
    return (model.rnd >> 33) % below;
}

static void setup_model(uint64_t seed)
{
    memset(&model, 0, sizeof model);
    model.rnd = seed;
}

static uint64_t put(struct cfile *f, uint64_t off, size_t len, bool append)
{
    uint8_t *p = malloc(len);
    off_t o = (off_t)off;
    assert_non_null(p);
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)rnd(256);
    assert_int_equal(cfile_write(f, p, len, &o, append ? CFILE_APPEND : 0), 0);
    memcpy(model.byte + o, p, len);
    memset(model.written + o, 1, len);
    if (model.size < (uint64_t)o + len)
        model.size = (uint64_t)o + len;
    free(p);
    return (uint64_t)o;
}

static void check(struct cfile *f, uint64_t off, size_t len)
{
    struct buf *b = NULL;
    uint64_t end = off >= model.size ? off : off + len < model.size ? off + len : model.size;
    assert_int_equal(cfile_read(f, (off_t)off, len, &b), 0);
    assert_int_equal(b->len, end - off);
    assert_memory_equal(b->data, model.byte + off, b->len);
    buf_unref(b);
}

static void check_seek(struct cfile *f, uint64_t off, bool hole)
{
    uint64_t want = off, got = 0;
    while (want < model.size && model.written[want] == hole)
        want++;
    bool none = off >= model.size || (!hole && want == model.size);
    assert_int_equal(cfile_seek(f, off, hole, &got), none ? -ENXIO : 0);
    if (!none)
        assert_int_equal(got, want);
}

static void fallocate_both(struct cfile *f, int mode, uint64_t off, uint64_t len)
{
    assert_int_equal(cfile_fallocate(f, mode, off, len, false), 0);
    if (mode & (FALLOC_FL_PUNCH_HOLE | ZERO)) {
        memset(model.byte + off, 0, len);
        memset(model.written + off, 0, len);
    }
    if (!(mode & KEEP) && model.size < off + len)
        model.size = off + len;
}

/* ---- appends ---- */

static void test_append(void **st)
{
    (void)st;
    setup_model(1);
    struct cfile *f = client_rig_open_file();
    assert_int_equal(put(f, 0, 5000, false), 0); /* buffered, and before what follows */
    assert_int_equal(put(f, 77, 300, true), 5000);
    assert_int_equal(client_rig.commits, 2);
    assert_int_equal(client_rig_size(), 5300);
    put(f, 5290, 100, false);
    assert_int_equal(put(f, 0, 10, true), 5390);
    check(f, 0, 6000);
    assert_int_equal(cfile_fsync(f), 0);
    check(f, 0, 6000);
    cfile_close(f);
}

/* Somebody else has moved the end: we learn where our bytes went, and that there are others. */
static void test_append_elsewhere(void **st)
{
    (void)st;
    setup_model(2);
    struct cfile *f = client_rig_open_file();
    put(f, 0, 1000, true);
    client_rig_lock();
    client_rig.foreign = 500;
    client_rig.drop_replies = 1; /* and the first answer is lost */
    client_rig_unlock();
    assert_int_equal(put(f, 0, 200, true), 1500);
    assert_int_equal(client_rig.commits, 2);
    check(f, 0, 2000);
    check_seek(f, 1000, false);
    cfile_close(f);
}

static void test_append_large(void **st)
{
    (void)st;
    size_t len = (5u << 20) / 2;
    uint8_t *p = malloc(len);
    struct cfile *f = client_rig_open_file();
    struct buf *b = NULL;
    off_t off = 0;
    assert_non_null(p);
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i * 2654435761u >> 13);
    assert_int_equal(cfile_write(f, p, len, &off, CFILE_APPEND), 0);
    assert_int_equal(off, 0);
    assert_int_equal(client_rig_size(), len);
    for (size_t at = 0; at < len; at += b->len) {
        buf_unref(b);
        assert_int_equal(cfile_read(f, (off_t)at, 1u << 20, &b), 0);
        assert_true(b->len > 0);
        assert_memory_equal(b->data, p + at, b->len);
    }
    buf_unref(b);
    free(p);
    cfile_close(f);
}

/* The error is the writer's, and nobody else's. */
static void test_append_fails(void **st)
{
    (void)st;
    setup_model(3);
    struct cfile *f = client_rig_open_file();
    off_t off = 0;
    client_rig_set(commit_code, -ENOSPC);
    assert_int_equal(cfile_write(f, "lost", 4, &off, CFILE_APPEND), -ENOSPC);
    client_rig_lock();
    client_rig.commit_code = 0;
    for (unsigned i = 1; i <= CLIENT_RIG_NODES; i++)
        client_rig.node[i].append_code = -EIO;
    client_rig_unlock();
    assert_int_equal(cfile_write(f, "lost", 4, &off, CFILE_APPEND), -EIO);
    client_rig_lock();
    for (unsigned i = 1; i <= CLIENT_RIG_NODES; i++)
        client_rig.node[i].append_code = 0;
    client_rig_unlock();
    assert_int_equal(cfile_flush(f), 0);
    cfile_close(f);
}

struct appender {
    struct cfile *f;
    uint8_t tag;
};

static void *append_thread(void *arg)
{
    struct appender *a = arg;
    uint8_t line[700];
    memset(line, a->tag, sizeof line);
    for (unsigned i = 0; i < 100; i++) {
        off_t off = 0;
        assert_int_equal(cfile_write(a->f, line, 100 + i * 6, &off, CFILE_APPEND), 0);
    }
    return NULL;
}

static void test_append_threads(void **st)
{
    (void)st;
    struct appender a[4];
    pthread_t t[4];
    struct buf *b = NULL;
    size_t total = 4 * (100 * 100 + 6 * 99 * 50), runs[4] = {0};
    for (unsigned i = 0; i < 4; i++) {
        a[i] = (struct appender){client_rig_open_file(), (uint8_t)(i + 1)};
        assert_int_equal(pthread_create(&t[i], NULL, append_thread, &a[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(client_rig_size(), total);
    for (size_t at = 0; at < total; buf_unref(b)) { /* each one whole, those of a thread in order */
        assert_int_equal(cfile_read(a[0].f, (off_t)at, 700, &b), 0);
        size_t tag = b->data[0], len = 100 + 6 * runs[tag - 1]++;
        assert_in_range(tag, 1, 4);
        assert_true(b->len >= len);
        for (size_t i = 0; i < len; i++)
            assert_int_equal(b->data[i], tag);
        at += len;
    }
    for (unsigned i = 0; i < 4; i++)
        cfile_close(a[i].f);
}

/* ---- fallocate, clone, seek ---- */

static void test_punch_order(void **st)
{
    (void)st;
    setup_model(4);
    struct cfile *f = client_rig_open_file();
    put(f, 0, 30000, false);
    fallocate_both(f, PUNCH, 1000, 20000);
    put(f, 5000, 100, false);
    check(f, 0, 30000);
    for (int i = 0; i < 2; i++) {
        check_seek(f, 0, true);
        check_seek(f, 1000, false);
        check_seek(f, 5000, true);
        check_seek(f, 5100, false);
        check_seek(f, 29999, true);
        check_seek(f, 30000, true);
        assert_int_equal(cfile_flush(f), 0);
    }
    check(f, 0, 30000);
    assert_int_equal(cfile_fallocate(f, FALLOC_FL_COLLAPSE_RANGE, 0, 10, false), -EOPNOTSUPP);
    assert_int_equal(cfile_fallocate(f, 0, 0, 0, false), -EINVAL);
    cfile_close(f);
}

static void test_blocks(void **st)
{
    (void)st;
    setup_model(5);
    struct cfile *f = client_rig_open_file();
    Replfs__Attr a = REPLFS__ATTR__INIT;
    client_rig_set(grant_code, -ENOSPC); /* stays buffered for a moment */
    fallocate_both(f, 0, 0, 4096);
    put(f, 0, 8192, false);
    put(f, 20000, 10, false);
    assert_int_equal(client_getattr(client_rig.cl, CLIENT_RIG_INO, &a), 0);
    assert_int_equal(a.allocated, 8192 + 10); /* what is reserved counts once */
    assert_int_equal(a.size, 20010);
    client_rig_set(grant_code, 0);
    cfile_close(f);
}

static void random_op(struct cfile *f)
{
    uint64_t off = rnd(SIZE), len = 1 + rnd(rnd(4) ? 3000 : SIZE - off), done = 0;
    if (off + len > SIZE)
        len = SIZE - off;
    static const int modes[] = {0, KEEP, PUNCH, PUNCH, ZERO, ZERO | KEEP};
    switch (rnd(12)) {
    case 0:
    case 1:
    case 2:
        put(f, off, len, false);
        break;
    case 3:
        if (model.size < SIZE)
            put(f, 0, 1 + rnd(2000), true);
        break;
    case 4:
    case 5:
        fallocate_both(f, modes[rnd(6)], off, len);
        break;
    case 6: {
        uint64_t src = rnd(SIZE), n = src >= model.size ? 0 : model.size - src;
        n = n < len ? n : len;
        bool overlap = n && src < off + n && off < src + n;
        assert_int_equal(cfile_clone(f, src, f, off, len, &done), overlap ? -EINVAL : 0);
        if (overlap)
            break;
        assert_int_equal(done, n);
        memcpy(model.byte + off, model.byte + src, n);
        memcpy(model.written + off, model.written + src, n);
        if (n && model.size < off + n)
            model.size = off + n;
        break;
    }
    case 7:
        assert_int_equal(cfile_truncate(f, off, NULL), 0);
        if (off < model.size) {
            memset(model.byte + off, 0, model.size - off);
            memset(model.written + off, 0, model.size - off);
        }
        model.size = off;
        break;
    case 8:
        check_seek(f, off, rnd(2));
        break;
    case 9:
        assert_int_equal(rnd(3) ? cfile_flush(f) : cfile_fsync(f), 0);
        break;
    default:
        check(f, off, len);
    }
}

static void test_random(void **st)
{
    static uint64_t seed = 99;
    (void)st;
    setup_model(seed++);
    struct cfile *f = client_rig_open_file();
    for (unsigned i = 0; i < OPS; i++) {
        if (i % 100 == 0)
            client_rig_set(step, i % 200 ? 7001 : 0);
        random_op(f);
        if (i % 500 == 0) {
            cfile_close(f);
            f = client_rig_open_file();
        }
    }
    check(f, 0, SIZE);
    cfile_close(f);
}

static void *write_500(void *arg)
{
    put(arg, 0, 500, false);
    return NULL;
}

/* A file at which others are, and t, which writes to it until client_rig_release(). */
static struct cfile *writing_through(pthread_t *t)
{
    setup_model(1);
    client_rig_set(crowded, true);
    struct cfile *f = client_rig_open_file();
    client_rig_set(hold, true);
    assert_int_equal(pthread_create(t, NULL, write_500, f), 0);
    client_rig_wait(client_rig.nheld == 1); /* its commit */
    return f;
}

/* Others are at the file, so a write waits until they can see it. Until then nobody here sees it either: who did, and
 * tells another client, would be ahead of what metad says there. */
static void test_through_is_hidden(void **st)
{
    (void)st;
    Replfs__Attr a;
    pthread_t t;
    struct buf *b = NULL;
    struct cfile *f = writing_through(&t);
    assert_int_equal(client_getattr_now(client_rig.cl, CLIENT_RIG_INO, &a), 0);
    assert_int_equal(a.size, 0);
    cfile_attr(f, &a);
    assert_int_equal(a.size, 0);
    assert_int_equal(cfile_read(f, 0, 600, &b), 0);
    assert_int_equal(b->len, 0);
    buf_unref(b);
    client_rig_release();
    pthread_join(t, NULL);
    assert_int_equal(client_getattr_now(client_rig.cl, CLIENT_RIG_INO, &a), 0);
    assert_int_equal(a.size, 500);
    check(f, 0, 600);
    cfile_close(f);
}

static void *write_100_more(void *arg)
{
    uint8_t p[100]; /* the model is the other writer's */
    off_t o = 500;
    memset(p, 7, sizeof p);
    assert_int_equal(cfile_write(arg, p, sizeof p, &o, 0), 0);
    return NULL;
}

static size_t seen(struct cfile *f)
{
    struct buf *b = NULL;
    assert_int_equal(cfile_read(f, 0, 600, &b), 0);
    size_t n = b->len;
    buf_unref(b);
    return n;
}

static bool taken(unsigned appends)
{
    client_rig_lock();
    for (unsigned i = 1; i <= CLIENT_RIG_NODES; i++)
        appends -= appends < client_rig.node[i].appends ? appends : client_rig.node[i].appends;
    client_rig_unlock();
    return appends == 0;
}

static uint64_t kept(void)
{
    struct client_stat s;
    client_stat(client_rig.cl, &s);
    return s.dirty_bytes;
}

/* While such a write waits the others go, and another writer has the file alone, for a while. What was seen stays. */
static void test_through_and_alone(void **st)
{
    (void)st;
    pthread_t t, more;
    struct cfile *f = writing_through(&t);
    client_rig_set(crowded, false);
    assert_int_equal(pthread_create(&more, NULL, write_100_more, f), 0);
    WAIT_UNTIL(taken(4) || kept() == 100);
    size_t before = seen(f);
    client_rig_set(crowded, true);
    client_rig_recall(CLIENT_RIG_INO);
    client_rig_wait(client_rig.recalls == 1);
    WAIT_UNTIL(!lease_cache_exclusive(client_rig.cl->leases, CLIENT_RIG_INO));
    size_t after = seen(f);
    client_rig_release();
    pthread_join(t, NULL);
    pthread_join(more, NULL);
    assert_true(after >= before);
    memset(model.byte + 500, 7, 100);
    memset(model.written + 500, 1, 100);
    model.size = 600;
    check(f, 0, 600);
    cfile_close(f);
}

/* Chunks that a chunkd has something of. */
static size_t chunks_stored(void)
{
    uint64_t seen[64];
    size_t n = 0;
    client_rig_lock();
    for (size_t i = 0; i < client_rig.node[1].nrecs; i++) {
        size_t k = 0;
        while (k < n && seen[k] != client_rig.node[1].recs[i].chunk)
            k++;
        assert_true(k < 64);
        if (k == n)
            seen[n++] = client_rig.node[1].recs[i].chunk;
    }
    client_rig_unlock();
    return n;
}

/* A file that grows stays in one chunk; one that is overwritten takes the next when the chunk is longer than it, and 4 MiB
 * long, so that metad can give back what was overwritten. */
static void test_overwritten_chunks_are_left(void **st)
{
    (void)st;
    enum { BLOCK = 256 << 10 };
    uint8_t *p = calloc(1, BLOCK);
    struct cfile *f = client_rig_open_file();
    off_t o;
    assert_non_null(p);
    for (unsigned i = 0; i < 32; i++) {
        o = (off_t)i * BLOCK;
        assert_int_equal(cfile_write(f, p, BLOCK, &o, 0), 0);
        assert_int_equal(cfile_flush(f), 0);
    }
    assert_int_equal(chunks_stored(), 1);
    for (unsigned i = 0; i < 32; i++) {
        o = (off_t)(i % 4) * BLOCK;
        assert_int_equal(cfile_write(f, p, BLOCK, &o, 0), 0);
        assert_int_equal(cfile_flush(f), 0);
    }
    assert_int_equal(chunks_stored(), 2);
    assert_int_equal(cfile_truncate(f, 0, NULL), 0);
    for (unsigned i = 0; i < 48; i++) {
        o = 0;
        assert_int_equal(cfile_write(f, p, BLOCK, &o, 0), 0);
        assert_int_equal(cfile_flush(f), 0);
    }
    assert_int_equal(chunks_stored(), 5);
    free(p);
    cfile_close(f);
}

int main(void)
{
#define T(x) cmocka_unit_test_setup_teardown(x, client_rig_setup, client_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_append),
        T(test_append_elsewhere),
        T(test_append_large),
        T(test_append_fails),
        T(test_append_threads),
        T(test_punch_order),
        T(test_blocks),
        T(test_overwritten_chunks_are_left),
        T(test_random),
        T(test_random),
        T(test_random),
        cmocka_unit_test_setup_teardown(test_through_is_hidden, client_rig_leased_setup,
                                        client_rig_teardown),
        cmocka_unit_test_setup_teardown(test_through_and_alone, client_rig_leased_setup,
                                        client_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
