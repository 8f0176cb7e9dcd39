/* Applying a log entry without memory: the process must end, since an answer would be another one
 * than on metads that have some. The module is compiled in here once more, with an allocator that
 * fails on demand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static int allow = -1; /* so many allocations succeed; -1: all */

static void *flaky_malloc(size_t n)
{
    if (allow == 0)
        return NULL;
    if (allow > 0)
        allow--;
    return malloc(n);
}

#define malloc flaky_malloc
#include "metad/log/mlog_apply.c"
#undef malloc

static int got;

static void applied(void *arg, int code, const struct fsm_result *res)
{
    (void)arg;
    got = code ? code : res->code;
}

/* Applies one command; returns what its proposer is told. */
static int apply(const uint8_t *cmd, size_t len)
{
    struct mlog m = {0};
    struct mlog_proposal *p = calloc(1, sizeof(*p));
    size_t size = entry_size(1, len);
    uint8_t *buf = calloc(1, size);

    p->fn = applied;
    m.hwm.index = 1; /* nothing to be written */
    got = -1;
    assert_int_equal(fsm_new(&m.fsm), 0);
    entry_finish(buf, entry_put(buf, ENTRY_HEADER, cmd, len), 1, 1, ENTRY_VERSION);
    assert_int_equal(mlog_apply_entry(&m, 1, buf, size, p), 0);
    fsm_free(m.fsm);
    free(m.arena);
    free(buf);
    return got;
}

static uint8_t text[2 << 20];

/* A command with an attribute of n bytes. */
static size_t make(size_t n, uint8_t *out)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__XattrOp x = REPLFS__XATTR_OP__INIT;

    memset(text, 'x', n);
    x.ino = FSM_ROOT_INO;
    x.name = (ProtobufCBinaryData){6, (uint8_t *)(uintptr_t) "user.a"};
    x.value = (ProtobufCBinaryData){n, text};
    op.op_case = REPLFS__META_OP__OP_XATTR;
    op.xattr = &x;
    cmd.time_ns = 1;
    cmd.op = &op;
    return replfs__command__pack(&cmd, out);
}

/* In a child: 0 when it ended by abort(). */
static int ends(const uint8_t *cmd, size_t len, int allowed)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGABRT, SIG_DFL);
        allow = allowed;
        apply(cmd, len);
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? 0 : -1;
}

static void no_memory_is_no_answer(void **state)
{
    static uint8_t cmd[3 << 20];
    size_t len = make(3, cmd);

    (void)state;
    assert_int_equal(apply(cmd, len), 0);
    assert_int_equal(ends(cmd, len, 0), 0); /* not even the arena */
    len = make(sizeof(text), cmd);          /* what outgrows the arena */
    assert_true(apply(cmd, len) > 0);       /* refused, for its size */
    assert_int_equal(ends(cmd, len, 1), 0);
}

static int answers[3], nanswers, nafter;

static void answered(void *arg, int code, const struct fsm_result *res)
{
    (void)arg;
    answers[nanswers++] = code ? code : res->code;
}

static void after(void *arg)
{
    (void)arg;
    nafter++;
}

/* What this version must not apply ends it: what came before in the entry is done and answered, nothing behind it. */
static void not_understood_stops(void **state)
{
    struct mlog m = {0};
    struct mlog_proposal *props = NULL;
    Replfs__MetadOp metad = REPLFS__METAD_OP__INIT;
    Replfs__ReserveOp reserve = REPLFS__RESERVE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    static uint8_t packed[3][64], buf[512];
    size_t pos = ENTRY_HEADER, bytes = 0;
    uint64_t chunks, inos;

    (void)state;
    cmd.op = &op;
    for (int k = 0; k < 3; k++) {
        reserve.ino_upto = 1000 + (uint64_t)k;
        op.op_case = k == 1 ? REPLFS__META_OP__OP_METAD : REPLFS__META_OP__OP_RESERVE;
        metad.id = 2; /* above the level */
        if (k == 1)
            op.metad = &metad;
        else
            op.reserve = &reserve;
        size_t len = replfs__command__pack(&cmd, packed[k]);
        pos = entry_put(buf, pos, packed[k], len);
        bytes += len;
        struct mlog_proposal *p = calloc(1, sizeof(*p)), **end = &props;
        p->fn = answered;
        p->after = after;
        while (*end)
            end = &(*end)->next;
        *end = p;
    }
    size_t size = entry_finish(buf, pos, 3, 1, ENTRY_VERSION);
    assert_int_equal(size, entry_size(3, bytes));
    m.hwm.index = 1;
    assert_int_equal(fsm_new(&m.fsm), 0);
    assert_int_equal(mlog_apply_entry(&m, 1, buf, size, props), -ERR_VERSION);
    assert_int_equal(nanswers, 3);
    assert_int_equal(nafter, 3);
    assert_int_equal(answers[0], 0);
    assert_int_equal(answers[1], -EIO);
    assert_int_equal(answers[2], -EIO);
    fsm_reserved(m.fsm, &chunks, &inos);
    assert_int_equal(inos, 1000);
    fsm_free(m.fsm);
    free(m.arena);
}

static void malformed_is(void **state)
{
    static const uint8_t junk[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    (void)state;
    assert_int_equal(apply(junk, sizeof(junk)), ERR_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_memory_is_no_answer),
        cmocka_unit_test(malformed_is),
        cmocka_unit_test(not_understood_stops),
    };
    log_init("test_mlog_apply", LOG_LVL_ERROR, "/dev/null");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
