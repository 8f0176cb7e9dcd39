/* Who was killed is let go: at once from a call that changes nothing, later from one whose answer may still come in time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/serve/interrupt.h"

#define PATIENCE_MS 20000

static int device[2];

/* A thread that has gone. */
static uint32_t dead_one(void)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    return (uint32_t)pid;
}

static uint64_t next_let_go(void)
{
    struct fuse_out_header h;
    struct pollfd p = {.fd = device[0], .events = POLLIN};

    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    assert_int_equal(read(device[0], &h, sizeof h), sizeof h);
    assert_int_equal(h.error, -EINTR);
    return h.unique;
}

static void test_changes_are_waited_for(void **state)
{
    static const uint32_t changes[] = {FUSE_MKDIR, FUSE_UNLINK, FUSE_RENAME2, FUSE_CREATE,
                                       FUSE_SETATTR};
    enum { N = sizeof changes / sizeof changes[0], ASKS = 2 * N + 2, ANSWERED = ASKS + 2 };
    uint32_t tid = dead_one();

    (void)state;
    for (unsigned i = 0; i < N; i++) {
        interrupt_saw(2 * i + 2, changes[i], tid);
        interrupt_came(device[1], 2 * i + 2);
    }
    interrupt_saw(ANSWERED, FUSE_RMDIR, tid);
    interrupt_came(device[1], ANSWERED);
    interrupt_answered(ANSWERED);
    interrupt_saw(ASKS, FUSE_LOOKUP, tid);
    interrupt_came(device[1], ASKS);
    assert_int_equal(next_let_go(), ASKS);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(next_let_go(), 2 * i + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_changes_are_waited_for)};

    if (pipe(device))
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    interrupt_stop();
    return rc;
}
