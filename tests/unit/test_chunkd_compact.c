/* Metad's order to compact a chunk, carried out by real chunkds: the new chunk has just the ranges that were named, the same
 * on each, checked and kept over a restart; what cannot be read ends it, and the former chunk stays. */
#include "chunkd_rig.h"

static const unsigned both[] = {1, 2, 0};
#define OLD 90u
#define NEW 91u
#define RECORDS 6u
#define RANGES 4u

static const uint32_t lens[RECORDS] = {1048576, 4096, 12345, 999999, 1048576, 1048576};

struct ranges {
    uint32_t off[600], len[600];
    size_t n;
};

static uint8_t *old; /* what the old chunk has */
static uint32_t old_len;

static void write_old(void)
{
    old_len = 0;
    for (unsigned i = 0; i < RECORDS; i++)
        old_len += lens[i];
    old = malloc(old_len);
    assert_non_null(old);
    for (uint32_t i = 0, off = 0; i < RECORDS; off += lens[i++]) {
        struct chunkd_rig_append a = {
            .chunk = OLD, .off = off, .len = lens[i], .seed = i, .chain = both};
        assert_int_equal(chunkd_rig_append(&a).code, 0);
        chunkd_rig_fill(old + off, lens[i], i);
    }
}

static int compact_as(unsigned node, uint64_t session, uint64_t to_session, const struct ranges *r,
                      struct chunkd_rig_order_reply *out)
{
    Replfs__CompactOrder c = REPLFS__COMPACT_ORDER__INIT;
    c.chunk = OLD;
    c.session = session;
    c.to = NEW;
    c.to_session = to_session;
    c.n_off = c.n_len = r->n;
    c.off = (uint32_t *)(uintptr_t)r->off;
    c.len = (uint32_t *)(uintptr_t)r->len;
    Replfs__OrderReq o = REPLFS__ORDER_REQ__INIT;
    o.order_case = REPLFS__ORDER_REQ__ORDER_COMPACT;
    o.compact = &c;
    return chunkd_rig_order(node, &o, out);
}

static int compact(unsigned node, const struct ranges *r, struct chunkd_rig_order_reply *out)
{
    return compact_as(node, CHUNKD_RIG_SESSION, CHUNKD_RIG_SESSION, r, out);
}

static void check_new(unsigned node, const struct ranges *r)
{
    uint32_t at = 0, sum = 0;
    for (size_t i = 0; i < r->n; i++)
        sum += r->len[i];
    uint8_t *got = malloc(sum);
    assert_non_null(got);
    for (uint32_t n; at < sum; at += n) { /* a read has its limit */
        n = sum - at < (1u << 19) ? sum - at : 1u << 19;
        assert_int_equal(chunkd_rig_read(node, NEW, at, n, got + at), 0);
    }
    at = 0;
    for (size_t i = 0; i < r->n; at += r->len[i++])
        assert_memory_equal(got + at, old + r->off[i], r->len[i]);
    free(got);
}

static void start(unsigned n)
{
    for (unsigned i = 1; i <= n; i++)
        chunkd_rig_chunkd_start(i, 1);
    write_old();
}

/* In blocks and out of them, in one record and over several, and many small ones. */
static struct ranges some(void)
{
    struct ranges r = {0};
    uint32_t first[][2] = {{0, 4096}, {1000000, 100000}, {1100001, 1}, {1300000, 2500000}};
    for (unsigned i = 0; i < RANGES; i++, r.n++) {
        r.off[r.n] = first[i][0];
        r.len[r.n] = first[i][1];
    }
    for (uint32_t off = 3900000; off + 8192 < old_len && r.n < 600; off += 2500, r.n++) {
        r.off[r.n] = off;
        r.len[r.n] = 1200;
    }
    return r;
}

static void ranges_become_a_chunk(void **state)
{
    (void)state;
    start(2);
    struct ranges r = some();
    struct chunkd_rig_order_reply out;
    uint32_t sum = 0;
    for (size_t i = 0; i < r.n; i++)
        sum += r.len[i];
    for (unsigned node = 1; node <= 2; node++) {
        assert_int_equal(compact(node, &r, &out), 0);
        assert_int_equal(out.bytes, sum);
        check_new(node, &r);
        assert_int_equal(compact(node, &r, &out), 0); /* repeated */
        check_new(node, &r);
        chunkd_rig_wait(chunkd_rig_len(&chunkd_rig.node[node], NEW) == sum &&
                        chunkd_rig_len(&chunkd_rig.node[node], OLD) == old_len &&
                        chunkd_rig_agrees(&chunkd_rig.node[node]));
    }
    chunkd_rig_chunkd_stop(1);
    chunkd_rig_chunkd_start(1, 1);
    check_new(1, &r);
    free(old);
}

/* A bad block that is dead does no harm, though it is near a live one; one that is live does. */
static void bad_bytes_are_not_copied(void **state)
{
    (void)state;
    start(2);
    struct ranges r = {.off = {0, 12288}, .len = {4096, 4096}, .n = 2};
    struct chunkd_rig_order_reply out;
    chunkd_rig_damage(1, 3, 10); /* at the beginning of the fourth record */
    uint32_t fourth = lens[0] + lens[1] + lens[2];
    r.off[0] = fourth - 5000;
    r.len[0] = 5000;
    r.off[1] = fourth + 4096;
    r.len[1] = 4096;
    assert_int_equal(compact(1, &r, &out), 0);
    check_new(1, &r);
    r.len[0] = 5001;
    assert_int_equal(compact(1, &r, &out), -ERR_CRC);
    assert_int_equal(compact(2, &r, &out), 0);
    check_new(2, &r);
    pthread_mutex_lock(&chunkd_rig.mu);
    assert_int_equal(chunkd_rig_len(&chunkd_rig.node[1], OLD), old_len);
    pthread_mutex_unlock(&chunkd_rig.mu);
    free(old);
}

static void what_is_not_meant_stays(void **state)
{
    (void)state;
    start(2);
    struct ranges r = {.off = {0}, .len = {4096}, .n = 1};
    struct chunkd_rig_order_reply out;
    assert_int_equal(compact_as(1, CHUNKD_RIG_SESSION + 1, CHUNKD_RIG_SESSION, &r, &out),
                     -ERR_NO_CHUNK);
    assert_int_equal(compact(1, &r, &out), 0);
    r.len[0] = 8192;
    assert_int_equal(compact_as(1, CHUNKD_RIG_SESSION, CHUNKD_RIG_SESSION + 1, &r, &out), -EEXIST);
    r.len[0] = 4096;
    check_new(1, &r);
    r.off[0] = old_len - 4095; /* behind its end */
    assert_int_equal(compact(1, &r, &out), -ERR_SHORT);
    r = (struct ranges){.off = {4096, 0}, .len = {1, 1}, .n = 2};
    assert_int_equal(compact(1, &r, &out), -ERR_PROTOCOL);
    r = (struct ranges){.off = {0, 1}, .len = {2, 1}, .n = 2};
    assert_int_equal(compact(1, &r, &out), -ERR_PROTOCOL);
    r = (struct ranges){.off = {UINT32_MAX}, .len = {UINT32_MAX}, .n = 1};
    assert_int_equal(compact(1, &r, &out), -ERR_PROTOCOL);
    r = (struct ranges){.n = 0};
    assert_int_equal(compact(1, &r, &out), -ERR_PROTOCOL);
    free(old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ranges_become_a_chunk, chunkd_rig_setup,
                                        chunkd_rig_teardown),
        cmocka_unit_test_setup_teardown(bad_bytes_are_not_copied, chunkd_rig_setup,
                                        chunkd_rig_teardown),
        cmocka_unit_test_setup_teardown(what_is_not_meant_stays, chunkd_rig_setup,
                                        chunkd_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
