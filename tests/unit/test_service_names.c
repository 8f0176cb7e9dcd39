/* Names that clients make in directories that are theirs alone, as metad sees it: numbers given
 * beforehand, leases on directories, times told. */
#define LEASE_MS 20000u /* longer than any test */
#include "tests/unit/service_rig.h"

#include <errno.h>
#include <pthread.h>

#include "base/clock.h"
#include "metad/coherence/leases.h"

static struct service_rig_peer other;

/* It gives back whatever it is asked for. */
static void on_recall(void *arg, struct rpc_req *req)
{
    Replfs__RecallReply rep = REPLFS__RECALL_REPLY__INIT;

    (void)arg;
    RPC_ENVELOPE(env, RECALL_REPLY, recall_reply, &rep);
    rpc_reply(req, &env, NULL);
}

static int two_setup(void **state)
{
    static const struct rpc_service svc = {.request = on_recall};
    int rv = service_rig_setup(state);

    if (rv == 0) {
        service_rig_dial_serving(&other, RPC_ROLE_CLIENT, &svc);
        rv = service_rig_open_session(&other, 0, NULL, 0);
    }
    return rv;
}

static int two_teardown(void **state)
{
    service_rig_hang_up(&other);
    return service_rig_teardown(state);
}

static uint64_t inos(struct service_rig_peer *p, uint32_t count, uint32_t *got)
{
    Replfs__InosReq r = REPLFS__INOS_REQ__INIT;
    struct rpc_result res = {0};

    r.session = p->session;
    r.count = count;
    RPC_ENVELOPE(env, INOS_REQ, inos_req, &r);
    assert_int_equal(rpc_call_wait(p->conn, &env, NULL, PATIENCE_MS, &res), 0);
    uint64_t first = res.rep->inos_reply->first;
    *got = res.rep->inos_reply->count;
    rpc_result_free(&res);
    return first;
}

struct made {
    int code;
    uint32_t lease, parent_lease;
    Replfs__Attr attr, parent;
};

/* Several at once, in one message. */
static void create_list(struct service_rig_peer *p, Replfs__CreateOp *const *ops, size_t n,
                        bool parents, struct made *out)
{
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
    Replfs__Mutation m[8], *mp[8];
    Replfs__MetaOp op[8];
    struct rpc_result res = {0};

    for (size_t i = 0; i < n; i++) {
        replfs__mutation__init(&m[i]);
        replfs__meta_op__init(&op[i]);
        op[i].op_case = REPLFS__META_OP__OP_CREATE;
        op[i].create = ops[i];
        m[i].seq = ++p->seq;
        m[i].op = &op[i];
        mp[i] = &m[i];
    }
    r.session = p->session;
    r.ops = mp;
    r.n_ops = n;
    r.lease = r.exclusive = true;
    r.parents = parents;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    assert_int_equal(rpc_call_wait(p->conn, &env, NULL, PATIENCE_MS, &res), 0);
    for (size_t i = 0; i < n; i++) {
        const Replfs__MutationResult *x = res.rep->mutate_reply->results[i];
        out[i] = (struct made){.code = (int)x->code, x->lease, x->parent_lease};
        if (x->attr != NULL)
            out[i].attr = *x->attr;
        if (x->parent != NULL)
            out[i].parent = *x->parent;
    }
    rpc_result_free(&res);
}

static Replfs__CreateOp op_of(uint64_t parent, const char *name, uint32_t mode, uint64_t ino)
{
    Replfs__CreateOp o = REPLFS__CREATE_OP__INIT;

    o.parent = parent;
    o.name.data = (uint8_t *)(uintptr_t)name;
    o.name.len = strlen(name);
    o.mode = mode;
    o.ino = ino;
    return o;
}

static struct made create(struct service_rig_peer *p, uint64_t parent, const char *name,
                          uint32_t mode, uint64_t ino, bool parents)
{
    Replfs__CreateOp o = op_of(parent, name, mode, ino), *list[] = {&o};
    struct made made;

    create_list(p, list, 1, parents, &made);
    return made;
}

static void test_numbers(void **state)
{
    uint32_t n, m;
    uint64_t mine, theirs;

    (void)state;
    mine = inos(&other, 10, &n);
    theirs = inos(&me, 1000000, &m);
    assert_int_equal(n, 10);
    assert_true(m > 0 && m < 1000000);
    assert_true(theirs >= mine + n || mine >= theirs + m);
    struct made f = create(&other, FSM_ROOT_INO, "f", S_IFREG | 0644, mine + 9, false);
    assert_true(f.code == 0 && f.attr.ino == mine + 9);
    assert_int_equal(create(&other, FSM_ROOT_INO, "again", S_IFREG, mine + 9, false).code, EINVAL);
    assert_int_equal(create(&other, FSM_ROOT_INO, "beyond", S_IFREG, mine + 10, false).code,
                     EINVAL);
    assert_int_equal(create(&other, FSM_ROOT_INO, "theirs", S_IFREG, theirs, false).code, EINVAL);
    assert_int_equal(create(&other, FSM_ROOT_INO, "root", S_IFREG, FSM_ROOT_INO, false).code,
                     EINVAL);
    assert_int_equal(create(&other, FSM_ROOT_INO, "far", S_IFREG, 1ull << 60, false).code, EINVAL);
    assert_int_equal(create(&me, FSM_ROOT_INO, "g", S_IFREG | 0644, theirs, false).code, 0);
}

/* What is made in a directory right behind it does not cost the lease on it. */
static void test_whole_tree_in_one_message(void **state)
{
    uint32_t n;
    uint64_t ino;
    struct made made[3];

    (void)state;
    ino = inos(&me, 3, &n);
    Replfs__CreateOp d = op_of(FSM_ROOT_INO, "d", S_IFDIR | 0755, ino);
    Replfs__CreateOp e = op_of(ino, "e", S_IFDIR | 0755, ino + 1);
    Replfs__CreateOp f = op_of(ino + 1, "f", S_IFREG | 0644, ino + 2), *list[] = {&d, &e, &f};
    create_list(&me, list, 3, true, made);
    for (int i = 0; i < 3; i++)
        assert_true(made[i].code == 0 && made[i].lease == LEASE_EXCLUSIVE &&
                    made[i].parent_lease == LEASE_EXCLUSIVE);
    assert_int_equal(made[2].parent.ino, ino + 1);
}

/* The directory of a change: exclusively when asked for and nobody else keeps it. */
static void test_parents(void **state)
{
    (void)state;
    uint64_t dir = create(&other, FSM_ROOT_INO, "d", S_IFDIR | 0755, 0, false).attr.ino;
    uint64_t there = create(&other, dir, "a", S_IFREG, 0, true).attr.ino;
    assert_int_equal(create(&other, FSM_ROOT_INO, "b", S_IFREG, 0, false).parent_lease,
                     LEASE_SHARED);
    assert_int_equal(create(&other, FSM_ROOT_INO, "c", S_IFREG, 0, true).parent_lease,
                     LEASE_EXCLUSIVE);
    /* another one looks: it is answered when the directory is shared again */
    Replfs__LookupReq r = REPLFS__LOOKUP_REQ__INIT;
    struct rpc_result res = {0};
    r.session = me.session;
    r.parent = dir;
    r.name.data = (uint8_t *)(uintptr_t) "a";
    r.name.len = 1;
    r.lease = true;
    RPC_ENVELOPE(env, LOOKUP_REQ, lookup_req, &r);
    assert_int_equal(rpc_call_wait(me.conn, &env, NULL, PATIENCE_MS, &res), 0);
    assert_true(res.rep->lookup_reply->attr->ino == there);
    assert_int_equal(res.rep->lookup_reply->dir_lease, LEASE_SHARED);
    rpc_result_free(&res);
}

static void test_times_told(void **state)
{
    int64_t now = clock_wall(), soon = now + 3 * NSEC_PER_SEC, far = now + 3600 * NSEC_PER_SEC;

    (void)state;
    uint64_t dir = create(&me, FSM_ROOT_INO, "d", S_IFDIR | 0755, 0, false).attr.ino;
    Replfs__CreateOp o = op_of(dir, "f", S_IFREG, 0), *list[] = {&o};
    struct made made;
    o.time_ns = soon;
    create_list(&me, list, 1, false, &made);
    assert_true(made.attr.mtime_ns == soon && made.attr.ctime_ns == soon);
    assert_true(made.attr.atime_ns == soon);
    assert_true(made.parent.mtime_ns == soon && made.parent.ctime_ns == soon);
    o = op_of(dir, "g", S_IFREG, 0); /* later, by metad's clock, which is behind */
    create_list(&me, list, 1, false, &made);
    assert_true(made.attr.ctime_ns < soon && made.parent.ctime_ns >= soon);
    o = op_of(dir, "h", S_IFREG, 0);
    o.time_ns = far;
    create_list(&me, list, 1, false, &made);
    assert_true(made.attr.ctime_ns < soon && made.parent.ctime_ns < far);
}

#define T(f) cmocka_unit_test_setup_teardown(f, two_setup, two_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_numbers),
        T(test_whole_tree_in_one_message),
        T(test_parents),
        T(test_times_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
