/* Metad's orders carried out by real chunkds: copy, delete, verify. */
#include "chunkd_rig.h"

static const unsigned both[] = {1, 2, 0}, one[] = {1, 0};
#define CHUNK 90u

static uint64_t writer = CHUNKD_RIG_SESSION; /* whose chunk the orders mean */

/* Records of odd lengths, so that copies must keep block boundaries. */
static const uint32_t lens[] = {700000, 4096, 1, 1048576, 12345, 999999, 8192, 3};
#define NLENS (sizeof lens / sizeof lens[0])

static uint32_t write_chunk(const unsigned *chain)
{
    uint32_t off = 0;
    for (unsigned i = 0; i < NLENS; i++) {
        struct chunkd_rig_append a = {
            .chunk = CHUNK, .off = off, .len = lens[i], .seed = i, .chain = chain};
        assert_int_equal(chunkd_rig_append(&a).code, 0);
        off += lens[i];
    }
    return off;
}

static void check_chunk(unsigned node)
{
    uint32_t off = 0;
    for (unsigned i = 0; i < NLENS; i++) {
        chunkd_rig_check(node, CHUNK, off, lens[i], i);
        off += lens[i];
    }
}

static int order_copy(unsigned to, uint32_t len, const unsigned *from,
                      struct chunkd_rig_order_reply *out)
{
    uint8_t cap[CAP_LEN];
    cap_make(&chunkd_rig_key, CHUNK, CHUNKD_RIG_SESSION, CHUNKD_RIG_SESSION, CAP_READ, UINT32_MAX,
             cap);
    Replfs__CopySource src[4], *list[4];
    Replfs__CopyOrder c = REPLFS__COPY_ORDER__INIT;
    for (; from[c.n_sources]; c.n_sources++) {
        size_t i = c.n_sources;
        replfs__copy_source__init(&src[i]);
        src[i].chunkd = from[i];
        src[i].addr = chunkd_rig.node[from[i]].addr;
        src[i].cap.data = cap;
        src[i].cap.len = sizeof cap;
        list[i] = &src[i];
    }
    c.chunk = CHUNK;
    c.len = len;
    c.sources = list;
    c.session = writer;
    Replfs__OrderReq o = REPLFS__ORDER_REQ__INIT;
    o.order_case = REPLFS__ORDER_REQ__ORDER_COPY;
    o.copy = &c;
    return chunkd_rig_order(to, &o, out);
}

/* len: how much of it is needed; 0: all. */
static int order_verify_len(unsigned node, uint64_t chunk, uint32_t len, bool quick,
                            struct chunkd_rig_order_reply *out)
{
    Replfs__VerifyOrder v = REPLFS__VERIFY_ORDER__INIT;
    v.chunk = chunk;
    v.len = len;
    v.quick = quick;
    v.session = writer;
    Replfs__OrderReq o = REPLFS__ORDER_REQ__INIT;
    o.order_case = REPLFS__ORDER_REQ__ORDER_VERIFY;
    o.verify = &v;
    return chunkd_rig_order(node, &o, out);
}

static int order_verify(unsigned node, uint64_t chunk, bool quick,
                        struct chunkd_rig_order_reply *out)
{
    return order_verify_len(node, chunk, 0, quick, out);
}

static void start(unsigned n)
{
    for (unsigned i = 1; i <= n; i++)
        chunkd_rig_chunkd_start(i, 1);
}

static void a_copy_is_equal_and_reported(void **state)
{
    (void)state;
    static const unsigned from[] = {1, 2, 0};
    start(3);
    uint32_t len = write_chunk(both);
    struct chunkd_rig_order_reply r;
    assert_int_equal(order_copy(3, len, from, &r), 0);
    assert_int_equal(r.bytes, len);
    check_chunk(3);
    chunkd_rig_wait(chunkd_rig_len(&chunkd_rig.node[3], CHUNK) == len &&
                    chunkd_rig_agrees(&chunkd_rig.node[3]));
    assert_int_equal(order_verify(3, CHUNK, false, &r), 0);
    assert_false(r.bad);
    assert_int_equal(r.len, len);
    /* a second time replaces it */
    assert_int_equal(order_copy(3, len, from, &r), 0);
    check_chunk(3);
    chunkd_rig_chunkd_stop(3);
    chunkd_rig_chunkd_start(3, 1);
    check_chunk(3);
}

/* A bad copy is healed up to what was committed while its writer goes on: the bytes that it appended and
 * nobody committed yet are still there. */
static void a_healed_copy_keeps_what_was_appended(void **state)
{
    (void)state;
    static const unsigned from[] = {2, 0};
    start(2);
    uint32_t len = write_chunk(both);
    chunkd_rig_damage(1, 3, 10);
    struct chunkd_rig_append a = {
        .chunk = CHUNK, .off = len, .len = 50000, .seed = 50, .chain = one};
    assert_int_equal(chunkd_rig_append(&a).code, 0);
    struct chunkd_rig_order_reply r;
    assert_int_equal(order_copy(1, len, from, &r), 0);
    check_chunk(1);
    chunkd_rig_check(1, CHUNK, len, 50000, 50);
    a.off += a.len;
    assert_int_equal(chunkd_rig_append(&a).code, 0);
    chunkd_rig_wait(chunkd_rig_len(&chunkd_rig.node[1], CHUNK) == len + 100000);
}

static void a_bad_source_is_left_for_the_next(void **state)
{
    (void)state;
    static const unsigned from[] = {1, 2, 0}, only_bad[] = {1, 0};
    start(3);
    uint32_t len = write_chunk(both);
    chunkd_rig_damage(1, 3,
                      10); /* inside the fourth record: copying starts well and then meets it */
    struct chunkd_rig_order_reply r;
    assert_int_equal(order_copy(3, len, only_bad, &r), -ERR_CRC);
    assert_int_equal(r.blamed, 1);
    uint8_t byte;
    assert_int_equal(chunkd_rig_read(3, CHUNK, 0, 1, &byte), -ERR_NO_CHUNK); /* nothing half */
    assert_int_equal(order_copy(3, len, from, &r), 0);
    check_chunk(3);
    /* and the bad one is found bad, healed from the good ones, found good */
    assert_int_equal(order_verify(1, CHUNK, true, &r), 0);
    assert_false(r.bad);
    assert_int_equal(r.len, len);
    assert_int_equal(order_verify(1, CHUNK, false, &r), 0);
    assert_true(r.bad);
    /* found to the block: what is in front of it may be all that is left of the chunk */
    uint32_t before = lens[0] + lens[1] + lens[2];
    assert_true(r.len <= before && r.len + 2 * CRC_BLOCK > before);
    assert_int_equal(r.stored, len);
    assert_int_equal(order_verify_len(1, CHUNK, r.len, false, &r), 0); /* no more is needed */
    assert_false(r.bad);
    static const unsigned others[] = {2, 3, 0};
    assert_int_equal(order_copy(1, len, others, &r), 0);
    assert_int_equal(order_verify(1, CHUNK, false, &r), 0);
    assert_false(r.bad);
    check_chunk(1);
}

static void a_dead_source_is_left_for_the_next(void **state)
{
    (void)state;
    static const unsigned from[] = {1, 2, 0};
    start(3);
    uint32_t len = write_chunk(both);
    chunkd_rig_chunkd_stop(1);
    struct chunkd_rig_order_reply r;
    assert_int_equal(order_copy(3, len, from, &r), 0);
    check_chunk(3);
    /* a source that is too short does not do */
    assert_int_equal(order_copy(3, len + 1, from, &r), -ERR_SHORT);
    check_chunk(3); /* the copy that was there is still there */
}

static void deleted_chunks_are_gone_and_reported(void **state)
{
    (void)state;
    start(1);
    uint32_t len = write_chunk(one);
    chunkd_rig_wait(chunkd_rig_len(&chunkd_rig.node[1], CHUNK) == len);
    uint64_t ids[] = {CHUNK, 12345};
    uint64_t writers[] = {CHUNKD_RIG_SESSION + 1, CHUNKD_RIG_SESSION};
    Replfs__DeleteOrder d = REPLFS__DELETE_ORDER__INIT;
    d.chunks = ids;
    d.n_chunks = 2;
    d.sessions = writers;
    d.n_sessions = 2;
    Replfs__OrderReq o = REPLFS__ORDER_REQ__INIT;
    o.order_case = REPLFS__ORDER_REQ__ORDER_DELETE_CHUNKS;
    o.delete_chunks = &d;
    struct chunkd_rig_order_reply r;
    uint8_t byte;
    assert_int_equal(chunkd_rig_order(1, &o, &r), 0);
    assert_int_equal(chunkd_rig_read(1, CHUNK, 0, 1, &byte), 0); /* another writer's was meant */
    writers[0] = CHUNKD_RIG_SESSION;
    assert_int_equal(chunkd_rig_order(1, &o, &r), 0);
    assert_int_equal(chunkd_rig_read(1, CHUNK, 0, 1, &byte), -ERR_NO_CHUNK);
    chunkd_rig_wait(chunkd_rig.node[1].nchunks == 0 && chunkd_rig_agrees(&chunkd_rig.node[1]));
    assert_int_equal(order_verify(1, CHUNK, false, &r), -ERR_NO_CHUNK);
    assert_int_equal(chunkd_rig_order(1, &o, &r), 0); /* again: already done */
}

static void ignore_answer(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)arg;
    (void)code;
    (void)rep;
    (void)payload;
}

static void many_copies_at_once(void **state)
{
    (void)state;
    start(2);
    enum { N = 24 };
    for (unsigned i = 0; i < N; i++) {
        struct chunkd_rig_append a = {.chunk = 200 + i, .len = 200000, .seed = i, .chain = one};
        assert_int_equal(chunkd_rig_append(&a).code, 0);
    }
    /* orders overlap because each is answered only when done: send all, then wait for all copies */
    for (unsigned i = 0; i < N; i++) {
        uint8_t cap[CAP_LEN];
        cap_make(&chunkd_rig_key, 200 + i, CHUNKD_RIG_SESSION, CHUNKD_RIG_SESSION, CAP_READ,
                 UINT32_MAX, cap);
        Replfs__CopySource src = REPLFS__COPY_SOURCE__INIT, *list[1] = {&src};
        src.chunkd = 1;
        src.addr = chunkd_rig.node[1].addr;
        src.cap.data = cap;
        src.cap.len = sizeof cap;
        Replfs__CopyOrder c = REPLFS__COPY_ORDER__INIT;
        c.chunk = 200 + i;
        c.len = 200000;
        c.sources = list;
        c.n_sources = 1;
        c.session = writer;
        Replfs__OrderReq o = REPLFS__ORDER_REQ__INIT;
        o.order_case = REPLFS__ORDER_REQ__ORDER_COPY;
        o.copy = &c;
        RPC_ENVELOPE(env, ORDER_REQ, order_req, &o);
        rpc_call(chunkd_rig.node[2].conn, &env, NULL, 15000, ignore_answer, NULL);
    }
    chunkd_rig_wait(chunkd_rig.node[2].nchunks == N && chunkd_rig_agrees(&chunkd_rig.node[2]));
    for (unsigned i = 0; i < N; i++)
        chunkd_rig_check(2, 200 + i, 0, 200000, i);
}

/* A number that was given twice: what is here is another writer's, and may be all that is left of it. */
static void another_writers_chunk_is_left_alone(void **state)
{
    (void)state;
    struct chunkd_rig_order_reply r = {0};
    start(2);
    uint32_t len = write_chunk(both);
    writer = CHUNKD_RIG_SESSION + 1;
    int copied = order_copy(2, len, one, &r), verified = order_verify(2, CHUNK, false, &r),
        quick = order_verify(2, CHUNK, true, &r);
    writer = CHUNKD_RIG_SESSION;
    assert_int_equal(copied, -EEXIST);
    assert_int_equal(verified, -ERR_NO_CHUNK);
    assert_int_equal(quick, -ERR_NO_CHUNK);
    check_chunk(2);
}

/* ---- salvage ---- */

struct salvaged {
    struct rpc_result res;
    const Replfs__OrderReply *r;
};

static int salvage(uint64_t chunk, uint64_t session, uint32_t off, struct salvaged *out)
{
    Replfs__SalvageOrder v = REPLFS__SALVAGE_ORDER__INIT;
    Replfs__OrderReq o = REPLFS__ORDER_REQ__INIT;

    v.chunk = chunk;
    v.session = session;
    v.off = off;
    o.order_case = REPLFS__ORDER_REQ__ORDER_SALVAGE;
    o.salvage = &v;
    RPC_ENVELOPE(env, ORDER_REQ, order_req, &o);
    int rc = rpc_call_wait(chunkd_rig.node[1].conn, &env, NULL, 10000, &out->res);
    out->r = rc == 0 ? out->res.rep->order_reply : NULL;
    return rc;
}

static void is_part(const Replfs__ChunkPart *p, uint64_t ino, uint64_t file_off, uint32_t at,
                    uint32_t len)
{
    assert_int_equal(p->ino, ino);
    assert_int_equal(p->file_off, file_off);
    assert_int_equal(p->chunk_off, at);
    assert_int_equal(p->len, len);
}

/* The bytes of a chunk, and of which files they are: neighbours of one file are one part. */
static void salvage_tells_whose_bytes_they_are(void **state)
{
    static const unsigned alone[] = {1, 0};
    static const struct {
        uint32_t len;
        uint64_t ino, file_off;
    } put[] = {{5000, 9, 100}, {3000, 9, 5100}, {300000, 11, 0}, {700, 9, 0}};
    uint8_t want[308700];
    struct salvaged v;
    uint32_t at = 0;

    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    for (size_t i = 0; i < 4; i++) {
        struct chunkd_rig_append a = {.chunk = 40,
                                      .off = at,
                                      .len = put[i].len,
                                      .seed = i,
                                      .chain = alone,
                                      .sync = true,
                                      .ino = put[i].ino,
                                      .file_off = put[i].file_off};
        assert_int_equal(chunkd_rig_append(&a).code, 0);
        chunkd_rig_fill(want + at, put[i].len, i);
        at += put[i].len;
    }
    assert_int_equal(salvage(40, CHUNKD_RIG_SESSION, 0, &v), 0);
    assert_int_equal(v.r->stored, sizeof(want));
    assert_int_equal(v.r->data.len, 256 << 10);
    assert_memory_equal(v.r->data.data, want, v.r->data.len);
    assert_int_equal(v.r->n_parts, 2);
    is_part(v.r->parts[0], 9, 100, 0, 8000);
    is_part(v.r->parts[1], 11, 0, 8000, (256 << 10) - 8000);
    rpc_result_free(&v.res);
    assert_int_equal(salvage(40, CHUNKD_RIG_SESSION, 300001, &v), 0); /* in the middle of a block */
    assert_int_equal(v.r->data.len, sizeof(want) - 300001);
    assert_memory_equal(v.r->data.data, want + 300001, v.r->data.len);
    assert_int_equal(v.r->n_parts, 2);
    is_part(v.r->parts[0], 11, 300001 - 8000, 300001, 7999);
    is_part(v.r->parts[1], 9, 0, 308000, 700);
    rpc_result_free(&v.res);
    assert_int_equal(salvage(40, CHUNKD_RIG_SESSION, sizeof(want), &v), 0);
    assert_int_equal(v.r->n_parts, 0);
    rpc_result_free(&v.res);
    /* another's chunk of that number, and none */
    assert_int_equal(salvage(40, CHUNKD_RIG_SESSION + 1, 0, &v), -ERR_NO_CHUNK);
    rpc_result_free(&v.res);
    assert_int_equal(salvage(41, CHUNKD_RIG_SESSION, 0, &v), -ERR_NO_CHUNK);
    rpc_result_free(&v.res);
    chunkd_rig_damage(1, 3, 10); /* nothing bad is given */
    assert_int_equal(salvage(40, CHUNKD_RIG_SESSION, 300001, &v), -ERR_CRC);
    rpc_result_free(&v.res);
}

#define T(f) cmocka_unit_test_setup_teardown(f, chunkd_rig_setup, chunkd_rig_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_copy_is_equal_and_reported),
        T(a_healed_copy_keeps_what_was_appended),
        T(a_bad_source_is_left_for_the_next),
        T(a_dead_source_is_left_for_the_next),
        T(another_writers_chunk_is_left_alone),
        T(deleted_chunks_are_gone_and_reported),
        T(many_copies_at_once),
        T(salvage_tells_whose_bytes_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
