/* Requests that would keep the log thread for long are done in pieces: a file of very many extents is
 * punched as far as one command goes, and truncated with holes ahead of the truncation. */
#define LEASE_MS 20000u /* longer than any test */
#include "tests/unit/service_rig.h"

#include <errno.h>
#include <sys/stat.h>

#define BLK 4096u
#define EXTENTS 20000u
#define SLICE 16384u
#define BATCH 1000u
#define PUNCH 3u /* with KEEP_SIZE */

/* Gives the file EXTENTS reserved blocks, a hole behind each. */
static void make_holey(struct service_rig_peer *p, uint64_t ino)
{
    static Replfs__Mutation m[BATCH], *list[BATCH];
    static Replfs__MetaOp op[BATCH];
    static Replfs__FallocateOp a[BATCH];

    for (unsigned done = 0; done < EXTENTS; done += BATCH) {
        Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
        struct rpc_result res = {0};
        for (unsigned i = 0; i < BATCH; i++) {
            replfs__mutation__init(&m[i]);
            replfs__meta_op__init(&op[i]);
            replfs__fallocate_op__init(&a[i]);
            a[i].ino = ino;
            a[i].off = 2ull * BLK * (done + i);
            a[i].len = BLK;
            op[i].op_case = REPLFS__META_OP__OP_FALLOCATE;
            op[i].fallocate = &a[i];
            m[i].seq = ++p->seq;
            m[i].op = &op[i];
            list[i] = &m[i];
        }
        r.session = p->session;
        r.acked_seq = p->seq - BATCH;
        r.n_ops = BATCH;
        r.ops = list;
        RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
        assert_int_equal(service_rig_ask(p, &env, &res), 0);
        assert_int_equal(res.rep->mutate_reply->results[BATCH - 1]->code, 0);
        rpc_result_free(&res);
    }
}

static uint64_t allocated(uint64_t ino)
{
    Replfs__Attr attr = REPLFS__ATTR__INIT;

    fsm_rdlock(md.fsm);
    assert_int_equal(fsm_getattr(md.fsm, ino, &attr), 0);
    fsm_unlock(md.fsm);
    return attr.allocated;
}

static void test_punch(void **state)
{
    Replfs__FallocateOp a = REPLFS__FALLOCATE_OP__INIT;
    unsigned calls = 0;

    (void)state;
    a.ino = make_name(1, "f", S_IFREG | 0644).ino;
    make_holey(&me, a.ino);
    assert_int_equal(allocated(a.ino), (uint64_t)EXTENTS * BLK);
    a.mode = PUNCH;
    for (uint64_t end = 2ull * BLK * EXTENTS; a.off < end; calls++) {
        uint64_t before = allocated(a.ino);
        a.len = end - a.off;
        struct one_result r = MUTATE(FALLOCATE, fallocate, &a);
        assert_int_equal(r.code, 0);
        assert_true(r.value > 0 && r.value <= a.len);
        assert_true(before - allocated(a.ino) <= (uint64_t)SLICE * BLK);
        a.off += r.value;
    }
    print_message("%u extents were punched by %u commands\n", EXTENTS, calls);
    assert_true(calls >= 2 && calls <= 4);
    assert_int_equal(allocated(a.ino), 0);
}

static void truncate_as(uint64_t ino, uint64_t size, uint64_t seq)
{
    Replfs__SetattrOp s = REPLFS__SETATTR_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;

    s.ino = ino;
    s.valid = REPLFS__SETATTR_OP__VALID__SIZE;
    s.size = size;
    op.op_case = REPLFS__META_OP__OP_SETATTR;
    op.setattr = &s;
    assert_int_equal(mutate_as(&op, seq).code, 0);
}

static void test_truncate(void **state)
{
    struct service_rig_peer other = {0};
    uint64_t ino = make_name(1, "f", S_IFREG | 0644).ino;

    (void)state;
    service_rig_dial(&other, RPC_ROLE_CLIENT);
    assert_int_equal(service_rig_open_session(&other, 0, NULL, 0), 0);
    make_holey(&other, ino);
    uint64_t seq = ++me.seq;
    truncate_as(ino, BLK, seq);
    assert_int_equal(allocated(ino), BLK);
    /* the answer was lost, and the file has grown since: once more, nothing is cut */
    make_holey(&other, ino);
    truncate_as(ino, BLK, seq);
    assert_int_equal(allocated(ino), (uint64_t)EXTENTS * BLK);
    truncate_as(ino, 0, ++me.seq);
    assert_int_equal(allocated(ino), 0);
    service_rig_hang_up(&other);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, service_rig_setup, service_rig_teardown)
    const struct CMUnitTest tests[] = {T(test_punch), T(test_truncate)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
