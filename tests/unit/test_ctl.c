/* replfsctl's output and path finding, and what the mount's end of the ioctl tunnel lets pass. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <cmocka.h>

#include "base/error.h"
#include "fuse/ctl/ctl.h"
#include "fuse/ctl/output.h"
#include "fuse/ctl/transport.h"
#include "fuse/ctl_server.h"

/* ---- output ---- */

static void sizes(void **state)
{
    char b[32];
    (void)state;
    assert_string_equal(output_size(0, b), "0 B");
    assert_string_equal(output_size(1023, b), "1023 B");
    assert_string_equal(output_size(1024, b), "1 KiB");
    assert_string_equal(output_size(1536, b), "1.5 KiB");
    assert_string_equal(output_size(64u << 20, b), "64 MiB");
    assert_string_equal(output_size((1u << 20) - 1, b), "1.0 MiB");
    assert_string_equal(output_size(UINT64_MAX, b), "16 EiB");
    assert_string_equal(output_age(5, b), "5 s");
    assert_string_equal(output_age(300, b), "5 min");
    assert_string_equal(output_age(3600 * 50, b), "2 d 2 h");
}

static char *with_file(void (*fn)(FILE *))
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    fn(f);
    fclose(f);
    return text;
}

static void some_json(FILE *f)
{
    struct json j;
    json_begin(&j, f);
    json_object(&j, NULL);
    json_str(&j, "a\"b", "x\\y\n\t\x7f");
    json_str(&j, "bytes", "\xff\xc3\xa4\xed\xa0\x80z");
    json_array(&j, "list");
    json_u64(&j, NULL, UINT64_MAX);
    json_i64(&j, NULL, INT64_MIN);
    json_object(&j, NULL);
    json_close(&j);
    json_close(&j);
    json_array(&j, "none");
    json_close(&j);
    json_bool(&j, "t", true);
    json_str(&j, "n", NULL);
    json_id(&j, "id", 0xabcd000000000001);
    json_close(&j);
}

static void json(void **state)
{
    (void)state;
    char *s = with_file(some_json);
    assert_string_equal(s, "{\n"
                           "  \"a\\\"b\": \"x\\\\y\\u000a\\u0009\\u007f\",\n"
                           "  \"bytes\": \"\\ufffd\xc3\xa4\\ufffd\\ufffd\\ufffdz\",\n"
                           "  \"list\": [\n"
                           "    18446744073709551615,\n"
                           "    -9223372036854775808,\n"
                           "    {}\n"
                           "  ],\n"
                           "  \"none\": [],\n"
                           "  \"t\": true,\n"
                           "  \"n\": null,\n"
                           "  \"id\": \"abcd000000000001\"\n"
                           "}\n");
    free(s);
}

static void some_table(FILE *f)
{
    struct table t;
    table_begin(&t, "name|>n|note");
    for (int i = 9; i < 11; i++) {
        table_row(&t);
        table_cell(&t, 0, "row%d", i);
        table_cell(&t, 1, "%d", i);
    }
    table_cell(&t, 2, "last");
    table_print(&t, " ", f);
    output_name("a\nb\x1b[0m", f);
}

static void tables(void **state)
{
    (void)state;
    char *s = with_file(some_table);
    assert_string_equal(s, " name    n  note\n row9    9  \n row10  10  last\na\\x0ab\\x1b[0m");
    free(s);
}

static void leaving(void **state)
{
    Replfs__ChunkdStatus k = REPLFS__CHUNKD_STATUS__INIT;
    char text[512];
    (void)state;
    assert_string_equal(ctl_leave_text(&k, text), "");
    k.draining = true;
    assert_string_equal(ctl_leave_text(&k, text), "drains: looking what is left");
    k.leave_chunks = 3;
    k.leave_bytes = 64u << 20;
    k.leave_rate = 1u << 20;
    k.leave_eta_s = 64;
    assert_string_equal(ctl_leave_text(&k, text),
                        "drains: 3 chunks, 64 MiB left at 1 MiB/s, about 64 s");
    k.leave_rate = 0;
    k.leave_waiting = (char *)"goal 3 needs 3 hosts, 2 are left";
    assert_string_equal(ctl_leave_text(&k, text), "drains: 3 chunks, 64 MiB left; waits: goal 3 "
                                                  "needs 3 hosts, 2 are left");
    k.chunkd = 7;
    k.removable = true;
    assert_string_equal(ctl_leave_text(&k, text),
                        "drained: it can be removed (replfsctl chunkd remove 7)");
    Replfs__ChunkdStatus p = REPLFS__CHUNKD_STATUS__INIT;
    p.paused_s = 36000;
    assert_string_equal(ctl_leave_text(&p, text), "paused for 10 h 0 min");
    p.leave_bytes = 1024; /* and has to give something back */
    assert_string_equal(ctl_leave_text(&p, text),
                        "gives space back: 0 chunks, 1 KiB left; paused for 10 h 0 min");
}

static void goals(void **state)
{
    (void)state;
    assert_int_equal(ctl_parse_goal("1"), 1);
    assert_int_equal(ctl_parse_goal("8"), 8);
    const char *const bad[] = {"0", "9", "", "3x", "-1", "10", "three", " 3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(ctl_parse_goal(bad[i]), 0);
}

static void mountinfo(void **state)
{
    dev_t dev;
    char p[64];
    (void)state;
    assert_true(transport_parse_mount(
        "36 35 0:52 / /mnt/a\\040b rw,relatime shared:9 - fuse.replfs m:7000 rw\n", &dev, p,
        sizeof p));
    assert_int_equal(dev, makedev(0, 52));
    assert_string_equal(p, "/mnt/a b");
    assert_true(transport_parse_mount("36 35 0:52 /sub /m rw - fuse.replfs m rw", &dev, p, 3));
    assert_string_equal(p, "/m");
    const char *const bad[] = {"36 35 0:52 / /mnt rw - ext4 /dev/sda rw",
                               "36 35 0:52 - fuse.replfs m rw", "", "x - fuse.replfs ",
                               "36 35 0:5 / - fuse.replfs m rw"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(transport_parse_mount(bad[i], &dev, p, sizeof p));
}

/* ---- tunnel ---- */

static void pack(struct ctl_msg *m, const Replfs__Envelope *e)
{
    memset(m, 0, sizeof *m);
    m->version = CTL_VERSION;
    m->len = (uint32_t)replfs__envelope__get_packed_size(e);
    assert_true(m->len <= sizeof m->data);
    replfs__envelope__pack(e, m->data);
}

static int allowed_op(Replfs__MetaOp *op, size_t n)
{
    Replfs__Mutation m = REPLFS__MUTATION__INIT;
    Replfs__Mutation *list[2] = {&m, &m};
    Replfs__MutateReq req = REPLFS__MUTATE_REQ__INIT;
    RPC_ENVELOPE(e, MUTATE_REQ, mutate_req, &req);
    m.op = op;
    req.n_ops = n;
    req.ops = list;
    return ctl_server_allows(&e);
}

static void allow_list(void **state)
{
    (void)state;
    Replfs__StatusReq st = REPLFS__STATUS_REQ__INIT;
    RPC_ENVELOPE(a, STATUS_REQ, status_req, &st);
    assert_int_equal(ctl_server_allows(&a), 0);
    Replfs__GrantReq grant = REPLFS__GRANT_REQ__INIT;
    RPC_ENVELOPE(b, GRANT_REQ, grant_req, &grant);
    assert_int_equal(ctl_server_allows(&b), -EPERM);
    Replfs__Envelope none = REPLFS__ENVELOPE__INIT;
    assert_int_equal(ctl_server_allows(&none), -EPERM);

    Replfs__SetGoalOp goal = REPLFS__SET_GOAL_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    op.op_case = REPLFS__META_OP__OP_SET_GOAL;
    op.set_goal = &goal;
    assert_int_equal(allowed_op(&op, 1), 0);
    assert_int_equal(allowed_op(&op, 2), -EPERM);
    assert_int_equal(allowed_op(&op, 0), -EPERM);
    assert_int_equal(allowed_op(NULL, 1), -EPERM);
    Replfs__QuotaOp quota = REPLFS__QUOTA_OP__INIT;
    op.op_case = REPLFS__META_OP__OP_QUOTA;
    op.quota = &quota;
    assert_int_equal(allowed_op(&op, 1), 0);
    op.quota = NULL;
    assert_int_equal(allowed_op(&op, 1), -EPERM);
    op.op_case = REPLFS__META_OP__OP_SET_GOAL;
    op.set_goal = &goal;
    goal.n_ino = 1001;
    assert_int_equal(allowed_op(&op, 1), -EINVAL);
    Replfs__UnlinkOp unlink_op = REPLFS__UNLINK_OP__INIT;
    op.op_case = REPLFS__META_OP__OP_UNLINK;
    op.unlink = &unlink_op;
    assert_int_equal(allowed_op(&op, 1), -EPERM);
}

/* Messages that never get as far as the client. */
static void bad_messages(void **state)
{
    (void)state;
    struct ctl_server *s = ctl_server_new(NULL);
    struct ctl_msg in, out;
    Replfs__GrantReq grant = REPLFS__GRANT_REQ__INIT;
    RPC_ENVELOPE(e, GRANT_REQ, grant_req, &grant);
    pack(&in, &e);
    assert_int_equal(ctl_server_ioctl(s, CTL_CALL, 7, 0, &in, &out), 0);
    assert_int_equal(out.code, EPERM);
    assert_int_equal(out.ino, 7);
    assert_int_equal(out.total, 0);
    assert_int_equal(ctl_server_ioctl(s, 0x5401, 7, 0, &in, &out), -ENOTTY);
    in.version++;
    assert_int_equal(ctl_server_ioctl(s, CTL_CALL, 7, 0, &in, &out), -EINVAL);
    in.version--;
    in.len = CTL_DATA_MAX + 1;
    assert_int_equal(ctl_server_ioctl(s, CTL_CALL, 7, 0, &in, &out), -EINVAL);
    memset(in.data, 0xff, sizeof in.data);
    in.len = 100;
    assert_int_equal(ctl_server_ioctl(s, CTL_CALL, 7, 0, &in, &out), -EINVAL);
    in.token = 0;
    assert_int_equal(ctl_server_ioctl(s, CTL_FETCH, 7, 0, &in, &out), -ESTALE);
    in.token = 99;
    assert_int_equal(ctl_server_ioctl(s, CTL_FETCH, 7, 0, &in, &out), -ESTALE);
    ctl_server_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),      cmocka_unit_test(json),         cmocka_unit_test(tables),
        cmocka_unit_test(leaving),    cmocka_unit_test(goals),        cmocka_unit_test(mountinfo),
        cmocka_unit_test(allow_list), cmocka_unit_test(bad_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
