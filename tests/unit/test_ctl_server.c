/* What users of a mount may ask metad through the ioctl, by whom it is asked and on which inode. The
 * client below is a stand-in that notes what gets through. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/error.h"
#include "fuse/ctl_server.h"

#define OWN 7u /* the inode that the ioctl is made on */
#define OTHER 8u

static struct {
    unsigned asked, mutated;
    uint64_t ino;     /* that was asked for */
    uint64_t flushed; /* whose data was flushed before */
    uint32_t uid;     /* of a mutation */
} seen;

void client_stat(struct client *c, struct client_stat *out)
{
    (void)c;
    *out = (struct client_stat){.connected = true};
}

int client_mutate(struct client *c, Replfs__MetaOp *op, Replfs__Attr *attr, Replfs__Attr *parent)
{
    (void)c;
    (void)attr;
    (void)parent;
    seen.mutated++;
    seen.uid = op->op_case == REPLFS__META_OP__OP_QUOTA ? op->quota->uid : op->set_goal->uid;
    return 0;
}

int client_ask(struct client *c, Replfs__Envelope *req, struct rpc_result *out)
{
    (void)c;
    (void)out;
    seen.asked++;
    if (req->body_case == REPLFS__ENVELOPE__BODY_INFO_REQ)
        seen.ino = req->info_req->ino;
    else if (req->body_case == REPLFS__ENVELOPE__BODY_GETATTR_REQ)
        seen.ino = req->getattr_req->ino;
    else if (req->body_case == REPLFS__ENVELOPE__BODY_QUOTA_LIST_REQ)
        seen.ino = req->quota_list_req->ino;
    return 0;
}

int client_flush_ino(struct client *c, uint64_t ino)
{
    (void)c;
    seen.flushed = ino;
    return 0;
}

int client_sync(struct client *c)
{
    (void)c;
    return 0;
}

/* The code that uid gets for this request on OWN. */
static int call(uid_t uid, const Replfs__Envelope *e)
{
    struct ctl_server *s = ctl_server_new(NULL);
    static struct ctl_msg in, out;

    memset(&in, 0, sizeof in);
    memset(&seen, 0, sizeof seen);
    in.version = CTL_VERSION;
    in.len = (uint32_t)replfs__envelope__get_packed_size(e);
    assert_true(in.len <= sizeof in.data);
    replfs__envelope__pack(e, in.data);
    assert_int_equal(ctl_server_ioctl(s, CTL_CALL, OWN, uid, &in, &out), 0);
    ctl_server_free(s);
    return out.code;
}

static int info(uid_t uid, uint64_t ino)
{
    Replfs__InfoReq q = REPLFS__INFO_REQ__INIT;
    q.ino = ino;
    RPC_ENVELOPE(e, INFO_REQ, info_req, &q);
    return call(uid, &e);
}

static int getattr(uid_t uid, uint64_t ino)
{
    Replfs__GetattrReq q = REPLFS__GETATTR_REQ__INIT;
    q.ino = ino;
    RPC_ENVELOPE(e, GETATTR_REQ, getattr_req, &q);
    return call(uid, &e);
}

static int quotas(uid_t uid, uint64_t ino)
{
    Replfs__QuotaListReq q = REPLFS__QUOTA_LIST_REQ__INIT;
    q.ino = ino;
    RPC_ENVELOPE(e, QUOTA_LIST_REQ, quota_list_req, &q);
    return call(uid, &e);
}

/* A number shows what the directories above the inode hide. */
static void by_number(void **state)
{
    static int (*const ask[])(uid_t, uint64_t) = {info, getattr, quotas};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(ask[i](1000, OTHER), EPERM);
        assert_int_equal(seen.asked, 0);
        assert_int_equal(seen.flushed, 0);
        assert_int_equal(ask[i](1000, OWN), 0);
        assert_int_equal(seen.ino, OWN);
        assert_int_equal(ask[i](0, OTHER), 0);
        assert_int_equal(seen.ino, OTHER);
    }
    assert_int_equal(info(1000, 0), 0);
    assert_int_equal(seen.ino, OWN);
    assert_int_equal(seen.flushed, OWN);
    assert_int_equal(getattr(1000, 0), 0);
    assert_int_equal(seen.ino, OWN);
    assert_int_equal(quotas(1000, 0), EPERM); /* all that there are */
    assert_int_equal(seen.asked, 0);
    assert_int_equal(quotas(0, 0), 0);
}

static void for_root(void **state)
{
    Replfs__ChunkdRemoveReq remove_req = REPLFS__CHUNKD_REMOVE_REQ__INIT;
    Replfs__RecoverReq recover = REPLFS__RECOVER_REQ__INIT;
    Replfs__QuarantineReq quarantine = REPLFS__QUARANTINE_REQ__INIT;
    RPC_ENVELOPE(a, CHUNKD_REMOVE_REQ, chunkd_remove_req, &remove_req);
    RPC_ENVELOPE(b, RECOVER_REQ, recover_req, &recover);
    RPC_ENVELOPE(c, QUARANTINE_REQ, quarantine_req, &quarantine);
    const Replfs__Envelope *e[] = {&a, &b, &c};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(call(1000, e[i]), EPERM);
        assert_int_equal(seen.asked, 0);
        assert_int_equal(call(0, e[i]), 0);
        assert_int_equal(seen.asked, 1);
    }
}

/* The caller's uid is the kernel's word, not the message's. */
static void uid_is_stamped(void **state)
{
    Replfs__QuotaOp quota = REPLFS__QUOTA_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Mutation m = REPLFS__MUTATION__INIT, *list = &m;
    Replfs__MutateReq req = REPLFS__MUTATE_REQ__INIT;

    (void)state;
    op.op_case = REPLFS__META_OP__OP_QUOTA;
    op.quota = &quota; /* uid 0 in it */
    m.op = &op;
    req.n_ops = 1;
    req.ops = &list;
    RPC_ENVELOPE(e, MUTATE_REQ, mutate_req, &req);
    assert_int_equal(call(1000, &e), 0);
    assert_int_equal(seen.mutated, 1);
    assert_int_equal(seen.uid, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_number),
        cmocka_unit_test(for_root),
        cmocka_unit_test(uid_is_stamped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
