/* Fields that a peer sends and we do not know: some are a newer peer's, many are an attack. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "base/error.h"
#include "rpc/frame.h"

#define FIELDS 100000u

static ProtobufCMessageUnknownField junk[FIELDS];
static uint8_t zero[1];

static void fill(ProtobufCMessage *m, unsigned n)
{
    m->n_unknown_fields = n;
    m->unknown_fields = junk;
}

/* Packs env and unpacks it again. */
static int there_and_back(const Replfs__Envelope *env)
{
    size_t len = replfs__envelope__get_packed_size(env);
    uint8_t *data = malloc(len);
    struct message m;

    assert_non_null(data);
    replfs__envelope__pack(env, data);
    int rc = message_unpack(&m, data, len);
    if (rc == 0)
        message_free(&m);
    free(data);
    return rc;
}

static void test_somewhere(void **state)
{
    Replfs__LockReq q = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock l = REPLFS__LOCK__INIT;

    (void)state;
    q.lock = &l;
    RPC_ENVELOPE(env, LOCK_REQ, lock_req, &q);
    assert_int_equal(there_and_back(&env), 0);
    ProtobufCMessage *where[] = {&env.base, &q.base, &l.base};
    for (unsigned i = 0; i < 3; i++) {
        fill(where[i], 1500);
        assert_int_equal(there_and_back(&env), 0);
        fill(where[i], FIELDS);
        assert_int_equal(there_and_back(&env), -ERR_PROTOCOL);
        fill(where[i], 0);
    }
}

/* A little in each of many parts is as much as much in one. */
static void test_everywhere(void **state)
{
    enum { PARTS = 200 };
    static Replfs__ChunkRecord rec[PARTS], *list[PARTS];
    Replfs__ReportReq q = REPLFS__REPORT_REQ__INIT;

    (void)state;
    for (unsigned i = 0; i < PARTS; i++) {
        replfs__chunk_record__init(&rec[i]);
        rec[i].chunk = 1000 + i;
        rec[i].len = 77777;
        rec[i].session = 3;
        list[i] = &rec[i];
    }
    q.chunks = list;
    q.n_chunks = PARTS;
    RPC_ENVELOPE(env, REPORT_REQ, report_req, &q);
    assert_int_equal(there_and_back(&env), 0);
    for (unsigned i = 0; i < PARTS; i++)
        fill(&rec[i].base, 50);
    assert_int_equal(there_and_back(&env), -ERR_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_somewhere),
        cmocka_unit_test(test_everywhere),
    };
    for (unsigned i = 0; i < FIELDS; i++)
        junk[i] = (ProtobufCMessageUnknownField){9999, PROTOBUF_C_WIRE_TYPE_VARINT, 1, zero};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
