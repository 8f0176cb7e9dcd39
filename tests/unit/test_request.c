/* The table of requests: every request of envelope.proto has its row, and what the rows say is what metad and the
 * client have always done, written down here by hand; and of each request that has a session somebody fills it in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "request.h"
#include "rpc/rpc.h"

#define N(a) (sizeof(a) / sizeof((a)[0]))
#define INO 77u

static Replfs__Lock a_lock;

static void *field_of(void *message, const ProtobufCFieldDescriptor *f)
{
    return (char *)message + f->offset;
}

static const ProtobufCFieldDescriptor *named(const ProtobufCMessageDescriptor *d, const char *name)
{
    return protobuf_c_message_descriptor_get_field_by_name(d, name);
}

/* An empty message of the body that has this field of the envelope; with its inode, as far as it names one. */
static void *make(const ProtobufCFieldDescriptor *body, Replfs__Envelope *env)
{
    const ProtobufCMessageDescriptor *d = body->descriptor;
    ProtobufCMessage *m = calloc(1, d->sizeof_message);
    assert_non_null(m);
    protobuf_c_message_init(d, m);
    const ProtobufCFieldDescriptor *ino = named(d, "ino"), *parent = named(d, "parent"),
                                   *lock = named(d, "lock");
    if (ino && ino->label != PROTOBUF_C_LABEL_REPEATED)
        *(uint64_t *)field_of(m, ino) = INO;
    if (parent)
        *(uint64_t *)field_of(m, parent) = INO;
    if (lock) {
        replfs__lock__init(&a_lock);
        a_lock.ino = INO;
        *(Replfs__Lock **)field_of(m, lock) = &a_lock;
    }
    replfs__envelope__init(env);
    env->body_case = (Replfs__Envelope__BodyCase)body->id;
    *(void **)field_of(env, body) = m;
    return m;
}

static bool is_body(const ProtobufCFieldDescriptor *f)
{
    return (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
}

static const ProtobufCFieldDescriptor *body_of(enum request r)
{
    char name[64];
    snprintf(name, sizeof(name), "%s_req", request_name(r));
    const ProtobufCFieldDescriptor *f = named(&replfs__envelope__descriptor, name);
    assert_non_null(f);
    return f;
}

/* ---- every request has its row ---- */

static void test_every_request_is_classified(void **state)
{
    (void)state;
    const ProtobufCMessageDescriptor *d = &replfs__envelope__descriptor;
    unsigned requests = 0;
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        size_t len = strlen(f->name);
        Replfs__Envelope env = REPLFS__ENVELOPE__INIT;
        if (!is_body(f))
            continue;
        env.body_case = (Replfs__Envelope__BodyCase)f->id;
        enum request r = request_of(&env);
        bool asks = len > 4 && !strcmp(f->name + len - 4, "_req");
        assert_int_equal(r != REQUEST_NONE, asks);
        requests += asks;
        if (!asks)
            continue;
        assert_int_equal(strlen(request_name(r)), len - 4);
        assert_memory_equal(request_name(r), f->name, len - 4);
        assert_int_not_equal(request_server(r), REQUEST_TO_NOBODY);
        assert_int_not_equal(request_senders(r), RPC_ROLE_NONE);
    }
    assert_int_equal(requests, REQUEST_COUNT - 1);
}

static void test_of_none_nothing_is_said(void **state)
{
    (void)state;
    Replfs__Envelope env = REPLFS__ENVELOPE__INIT;
    uint64_t ino = 1;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(request_of(&env), REQUEST_NONE);
        assert_int_equal(request_order(&env, &ino), REQUEST_OVERTAKES);
        assert_int_equal(ino, 0);
        assert_false(request_waits_in_grace(&env));
        assert_int_equal(request_ctl(&env, &ino), REQUEST_CTL_FORBIDDEN);
        request_stamp(&env, 5);
        env.body_case = (Replfs__Envelope__BodyCase)999;
    }
    assert_int_equal(request_senders(REQUEST_NONE), RPC_ROLE_NONE);
    assert_int_equal(request_server(REQUEST_NONE), REQUEST_TO_NOBODY);
}

/* ---- sessions ---- */

/* A client's request to metad without its session is a stranger's: its own lease would be called back for it. */
static void test_sessions_are_filled_in(void **state)
{
    (void)state;
    for (unsigned r = 1; r < REQUEST_COUNT; r++) {
        const ProtobufCFieldDescriptor *body = body_of((enum request)r);
        const ProtobufCFieldDescriptor *f = named(body->descriptor, "session");
        Replfs__Envelope env;
        void *m = make(body, &env);
        enum request_session s = request_session((enum request)r);
        if ((f != NULL) != (s != REQUEST_SESSION_NO))
            fail_msg("%s: %s", request_name((enum request)r),
                     f ? "who fills in its session?" : "it has no session");
        request_stamp(&env, 5);
        if (f)
            assert_int_equal(*(uint64_t *)field_of(m, f), s == REQUEST_SESSION_STAMPED ? 5 : 0);
        free(m);
    }
}

static void test_who_fills_in_sessions_himself(void **state)
{
    (void)state;
    for (unsigned r = 1; r < REQUEST_COUNT; r++)
        if (request_server((enum request)r) == REQUEST_TO_METAD &&
            request_session((enum request)r) == REQUEST_SESSION_OWN)
            assert_true(r == REQUEST_SESSION || r == REQUEST_LOCK_CANCEL);
}

/* ---- order, grace, senders ---- */

static bool among(enum request r, const enum request *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == r)
            return true;
    return false;
}

static void test_order_is_that_of_before(void **state)
{
    (void)state;
    static const enum request names[] = {
        REQUEST_LOOKUP, REQUEST_GETATTR, REQUEST_READDIR, REQUEST_READLINK, REQUEST_OPEN,
        REQUEST_LAYOUT, REQUEST_LEASE,   REQUEST_STATFS,  REQUEST_LOCK,     REQUEST_LOCK_TEST};
    static const enum request changes[] = {REQUEST_GETXATTR, REQUEST_LISTXATTR};
    static const enum request all[] = {REQUEST_STATUS,     REQUEST_INFO,     REQUEST_CONVERGE,
                                       REQUEST_QUOTA_LIST, REQUEST_SNAPSHOT, REQUEST_DAMAGED};
    for (unsigned r = 1; r < REQUEST_COUNT; r++) {
        Replfs__Envelope env;
        uint64_t ino = 1;
        void *m = make(body_of((enum request)r), &env);
        enum request_order o = request_order(&env, &ino);
        print_message("%s\n", request_name((enum request)r));
        assert_int_equal(o == REQUEST_AFTER_NAMES, among((enum request)r, names, N(names)));
        assert_int_equal(o == REQUEST_AFTER_ALL, among((enum request)r, all, N(all)));
        bool of_one = o == REQUEST_AFTER_NAMES || o == REQUEST_AFTER_CHANGES;
        assert_int_equal(o == REQUEST_AFTER_CHANGES, among((enum request)r, changes, N(changes)));
        assert_int_equal(ino, of_one ? INO : 0);
        free(m);
    }
}

static void test_grace_is_that_of_before(void **state)
{
    (void)state;
    static const enum request waits[] = {
        REQUEST_MUTATE,    REQUEST_LOOKUP, REQUEST_GETATTR, REQUEST_READDIR, REQUEST_GETXATTR,
        REQUEST_LISTXATTR, REQUEST_LAYOUT, REQUEST_LAYOUTS, REQUEST_OPEN,    REQUEST_LEASE};
    for (unsigned r = 1; r < REQUEST_COUNT; r++) {
        Replfs__Envelope env;
        void *m = make(body_of((enum request)r), &env);
        print_message("%s\n", request_name((enum request)r));
        assert_int_equal(request_waits_in_grace(&env), among((enum request)r, waits, N(waits)));
        free(m);
    }
}

static void test_a_goodbye_does_not_wait(void **state)
{
    (void)state;
    Replfs__MutateReq m = REPLFS__MUTATE_REQ__INIT;
    Replfs__Mutation step = REPLFS__MUTATION__INIT, *steps[2] = {&step, &step};
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__SessionCloseOp close_op = REPLFS__SESSION_CLOSE_OP__INIT;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &m);
    m.ops = steps;
    m.n_ops = 1;
    assert_true(request_waits_in_grace(&env));
    step.op = &op;
    op.op_case = REPLFS__META_OP__OP_SESSION_CLOSE;
    op.session_close = &close_op;
    assert_false(request_waits_in_grace(&env));
    m.n_ops = 2;
    assert_true(request_waits_in_grace(&env));
}

static void test_senders_are_those_of_before(void **state)
{
    (void)state;
    static const enum request chunkds[] = {REQUEST_REGISTER, REQUEST_HEARTBEAT, REQUEST_REPORT};
    static const enum request chunks[] = {REQUEST_APPEND, REQUEST_READ, REQUEST_SYNC};
    unsigned client = RPC_ROLE_CLIENT | RPC_ROLE_ADMIN;
    for (unsigned k = 1; k < REQUEST_COUNT; k++) {
        enum request r = (enum request)k;
        unsigned want = client;
        if (r == REQUEST_NODES)
            want = RPC_ROLE_ANY;
        else if (among(r, chunkds, N(chunkds)))
            want = RPC_ROLE_CHUNKD;
        else if (among(r, chunks, N(chunks)))
            want = RPC_ROLE_CLIENT | RPC_ROLE_CHUNKD;
        else if (r == REQUEST_ORDER || r == REQUEST_RECALL || r == REQUEST_NAMES_PUT ||
                 r == REQUEST_RAFT || r == REQUEST_CHECKPOINT)
            want = RPC_ROLE_METAD;
        else if (r == REQUEST_METAD_LIST || r == REQUEST_METAD_CHANGE)
            want = client | RPC_ROLE_METAD;
        else if (r == REQUEST_NAMES_GET)
            want = RPC_ROLE_METAD | RPC_ROLE_ADMIN;
        print_message("%s\n", request_name(r));
        assert_int_equal(request_senders(r), want);
        bool chunkd = among(r, chunks, N(chunks)) || r == REQUEST_ORDER || r == REQUEST_NAMES_PUT ||
                      r == REQUEST_NAMES_GET;
        assert_int_equal(request_server(r) == REQUEST_TO_CHUNKD, chunkd);
        assert_int_equal(request_server(r) == REQUEST_TO_CLIENT, r == REQUEST_RECALL);
    }
}

static void test_replfsctl_may_what_it_might(void **state)
{
    (void)state;
    static const enum request may[] = {REQUEST_STATUS,  REQUEST_INFO,      REQUEST_NODES,
                                       REQUEST_GETATTR, REQUEST_CONVERGE,  REQUEST_QUOTA_LIST,
                                       REQUEST_MUTATE,  REQUEST_METAD_LIST};
    static const enum request root[] = {
        REQUEST_CHUNKD_REMOVE, REQUEST_RECOVER, REQUEST_QUARANTINE,
        REQUEST_SNAPSHOT,      REQUEST_CONFIG,  REQUEST_METAD_CHANGE,
        REQUEST_SCRUB,         REQUEST_DAMAGED, REQUEST_CHUNKD_SET};
    static const enum request number[] = {REQUEST_INFO, REQUEST_GETATTR, REQUEST_QUOTA_LIST};
    for (unsigned r = 1; r < REQUEST_COUNT; r++) {
        Replfs__Envelope env;
        uint64_t ino = 1;
        void *m = make(body_of((enum request)r), &env);
        enum request_ctl c = request_ctl(&env, &ino);
        print_message("%s\n", request_name((enum request)r));
        assert_int_equal(c == REQUEST_CTL_ANYBODY, among((enum request)r, may, N(may)));
        assert_int_equal(c == REQUEST_CTL_ROOT, among((enum request)r, root, N(root)));
        assert_int_equal(ino, among((enum request)r, number, N(number)) ? INO : 0);
        free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_request_is_classified),
        cmocka_unit_test(test_of_none_nothing_is_said),
        cmocka_unit_test(test_sessions_are_filled_in),
        cmocka_unit_test(test_who_fills_in_sessions_himself),
        cmocka_unit_test(test_order_is_that_of_before),
        cmocka_unit_test(test_grace_is_that_of_before),
        cmocka_unit_test(test_a_goodbye_does_not_wait),
        cmocka_unit_test(test_senders_are_those_of_before),
        cmocka_unit_test(test_replfsctl_may_what_it_might),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
