/* Extended attributes under a quota, as clients meet it: refused before anything is logged, shown in the
 * list and by statfs. */
#include "tests/unit/service_rig.h"

#include <errno.h>
#include <sys/stat.h>

#define LIMIT (1u << 20)
#define FILES 2000u

struct made {
    uint32_t code;
    uint64_t ino;
};

static struct made mutate(Replfs__MetaOp *op)
{
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
    Replfs__Mutation m = REPLFS__MUTATION__INIT, *list = &m;
    struct rpc_result res = {0};

    m.seq = ++me.seq;
    m.op = op;
    r.session = me.session;
    r.acked_seq = me.seq - 1;
    r.n_ops = 1;
    r.ops = &list;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    assert_int_equal(ask(&me, &env, &res), 0);
    const Replfs__MutationResult *x = res.rep->mutate_reply->results[0];
    struct made out = {x->code, x->attr ? x->attr->ino : 0};
    rpc_result_free(&res);
    return out;
}

static struct made create(uint64_t dir, const char *name, uint32_t mode)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;

    c.parent = dir;
    c.name = (ProtobufCBinaryData){strlen(name), (uint8_t *)(uintptr_t)name};
    c.mode = mode;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &c;
    return mutate(&op);
}

static uint32_t set_attr(uint64_t ino, size_t len)
{
    static uint8_t value[65536];
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__XattrOp x = REPLFS__XATTR_OP__INIT;

    x.ino = ino;
    x.name = (ProtobufCBinaryData){6, (uint8_t *)(uintptr_t) "user.x"};
    x.value = (ProtobufCBinaryData){len, value};
    op.op_case = REPLFS__META_OP__OP_XATTR;
    op.xattr = &x;
    return mutate(&op).code;
}

static uint32_t set_quota(uint64_t ino, uint64_t bytes)
{
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__QuotaOp q = REPLFS__QUOTA_OP__INIT;

    q.ino = ino;
    q.max_bytes = bytes;
    op.op_case = REPLFS__META_OP__OP_QUOTA;
    op.quota = &q;
    return mutate(&op).code;
}

static uint64_t listed_bytes(uint64_t ino)
{
    Replfs__QuotaListReq q = REPLFS__QUOTA_LIST_REQ__INIT;
    struct rpc_result res = {0};

    q.ino = ino;
    RPC_ENVELOPE(env, QUOTA_LIST_REQ, quota_list_req, &q);
    assert_int_equal(ask(&me, &env, &res), 0);
    assert_int_equal(res.rep->quota_list_reply->n_quotas, 1);
    uint64_t bytes = res.rep->quota_list_reply->quotas[0]->bytes;
    rpc_result_free(&res);
    return bytes;
}

static void test_many_attributes(void **state)
{
    unsigned done = 0, refused = 0;
    char name[16];

    (void)state;
    uint64_t dir = create(1, "d", S_IFDIR | 0755).ino;
    assert_int_equal(set_quota(dir, LIMIT), 0);
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%u", i);
        struct made made = create(dir, name, S_IFREG | 0644);
        assert_int_equal(made.code, 0);
        uint32_t code = set_attr(made.ino, 65536);
        done += code == 0;
        refused += code == EDQUOT;
    }
    printf("%u files with 64 KiB of attributes, %u refused\n", done, refused);
    assert_int_equal(refused, FILES - done);
    assert_true(done <= LIMIT / 65536);
    assert_int_equal(listed_bytes(dir), done * (65536 + 7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_many_attributes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
