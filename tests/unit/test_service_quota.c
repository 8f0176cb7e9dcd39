/* Extended attributes under a quota, as clients meet it: refused before anything is logged, shown in the
 * list and by statfs. */
#include "tests/unit/service_rig.h"

#include <errno.h>
#include <sys/stat.h>

#define LIMIT (1u << 20)
#define FILES 2000u

static uint32_t set_attr(uint64_t ino, size_t len)
{
    static uint8_t value[65536];
    Replfs__XattrOp x = REPLFS__XATTR_OP__INIT;

    x.ino = ino;
    x.name = bytes_of("user.x");
    x.value = (ProtobufCBinaryData){len, value};
    return MUTATE(XATTR, xattr, &x).code;
}

static uint32_t set_quota(uint64_t ino, uint64_t max)
{
    Replfs__QuotaOp q = REPLFS__QUOTA_OP__INIT;

    q.ino = ino;
    q.max_bytes = max;
    return MUTATE(QUOTA, quota, &q).code;
}

static uint64_t listed_bytes(uint64_t ino)
{
    Replfs__QuotaListReq q = REPLFS__QUOTA_LIST_REQ__INIT;
    struct rpc_result res = {0};

    q.ino = ino;
    RPC_ENVELOPE(env, QUOTA_LIST_REQ, quota_list_req, &q);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
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
    uint64_t dir = make_name(1, "d", S_IFDIR | 0755).ino;
    assert_int_equal(set_quota(dir, LIMIT), 0);
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%u", i);
        struct one_result made = make_name(dir, name, S_IFREG | 0644);
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
        cmocka_unit_test_setup_teardown(test_many_attributes, service_rig_setup,
                                        service_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
