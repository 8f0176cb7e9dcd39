/* What the log does when its engine, libraft, is refused what it needs from the system: the process
 * neither crashes nor goes on with a log that is at odds with itself, and everybody who waits is
 * answered. Each run is a child of its own, since the damage would be to the whole process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "metad/log/mlog.h"
#include "tests/unit/tree.h"

#define PATIENCE_MS 20000
#define VALUE 60000u
#define SEGMENT_ENTRIES 140u /* of that size fill a segment */
#define SEGMENT_TAKEN 5u     /* those before may be prepared already */
#define DISK_LIMIT_MS 3000u

static char dir[128];
static atomic_int failures;

static int setup(void **state)
{
    char uuid[37];

    (void)state;
    if (!tree_make(dir, sizeof(dir), "/var/tmp", "mlog_engine"))
        return -1;
    return mlog_init_dir(dir, uuid);
}

static int teardown(void **state)
{
    (void)state;
    tree_remove(dir);
    return 0;
}

static void engine_failed(void *arg)
{
    (void)arg;
    atomic_fetch_add(&failures, 1);
}

/* Sets a large attribute of the root: each fills an entry. */
static int write_large(struct mlog *m, unsigned i)
{
    static uint8_t value[VALUE];
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__XattrOp x = REPLFS__XATTR_OP__INIT;
    struct fsm_result res;

    memset(value, (int)i, sizeof(value));
    x.ino = FSM_ROOT_INO;
    x.name.data = (uint8_t *)"user.large";
    x.name.len = 10;
    x.value.data = value;
    x.value.len = sizeof(value);
    op.op_case = REPLFS__META_OP__OP_XATTR;
    op.xattr = &x;
    cmd.op = &op;
    int rv = mlog_propose_wait(m, &cmd, &res);
    return rv != 0 ? rv : -res.code;
}

static int open_mlog(struct fsm **fsm, struct mlog **m)
{
    struct mlog_config cfg = {.dir = dir, .failed = engine_failed, .disk_limit_ms = DISK_LIMIT_MS};

    int rv = fsm_new(fsm);
    cfg.fsm = *fsm;
    return rv != 0 ? rv : mlog_open(&cfg, PATIENCE_MS, m);
}

/* No descriptor is left. */
static void take_descriptors(void)
{
    struct rlimit r = {256, 256};

    setrlimit(RLIMIT_NOFILE, &r);
    while (dup(STDERR_FILENO) >= 0)
        ;
}

/* Writes more than the segments that are prepared can hold. Exit codes name the step that failed.
 */
static int without_descriptors(void)
{
    struct fsm *fsm;
    struct mlog *m;
    int rv = 0;
    unsigned n = 0;

    if (open_mlog(&fsm, &m) != 0 || write_large(m, 0) != 0)
        return 2;
    while (rv == 0 && n < 2000) {
        take_descriptors(); /* and those that it gave back with a full segment */
        rv = write_large(m, n++);
    }
    if (rv == 0)
        return 3; /* it never needed any: the test shows nothing */
    if (rv != -EIO || write_large(m, n) != -EIO)
        return 4;
    struct mlog_status st;
    mlog_status(m, &st);
    if (st.leader || st.error == NULL)
        return 5;
    if (atomic_load(&failures) != 1)
        return 6;
    mlog_close(m);
    fsm_free(fsm);
    return 0;
}

static void log_path(char out[160], const char *name)
{
    snprintf(out, 160, "%s/log/%s", dir, name);
}

/* The names of the next segments are taken: libraft tries again and again to make one. */
static int without_segments(void)
{
    struct fsm *fsm;
    struct mlog *m;
    char path[160], name[16];
    int rv = 0;

    if (open_mlog(&fsm, &m) != 0 || write_large(m, 0) != 0)
        return 2;
    for (unsigned i = SEGMENT_TAKEN; i < SEGMENT_TAKEN + 8; i++) {
        snprintf(name, sizeof(name), "open-%u", i);
        log_path(path, name);
        if (mkdir(path, 0700) != 0)
            return 3;
    }
    for (unsigned n = 0; rv == 0 && n < 8 * SEGMENT_ENTRIES; n++)
        rv = write_large(m, n);
    if (rv != -EIO || write_large(m, 0) != -EIO)
        return 4;
    if (atomic_load(&failures) != 1)
        return 5;
    mlog_close(m);
    fsm_free(fsm);
    for (unsigned i = SEGMENT_TAKEN; i < SEGMENT_TAKEN + 8; i++) {
        snprintf(name, sizeof(name), "open-%u", i);
        log_path(path, name);
        rmdir(path);
    }
    return 0;
}

/* A full segment cannot be closed: its name is gone. All that it holds is there. */
static int without_closing(void)
{
    struct fsm *fsm;
    struct mlog *m;
    char path[160], away[160];
    int rv = 0;

    log_path(path, "open-1");
    log_path(away, "away");
    if (open_mlog(&fsm, &m) != 0 || write_large(m, 0) != 0)
        return 2;
    if (rename(path, away) != 0)
        return 3;
    for (unsigned n = 0; rv == 0 && n < 8 * SEGMENT_ENTRIES; n++)
        rv = write_large(m, n);
    if (rv != -EIO)
        return 4;
    if (atomic_load(&failures) != 1)
        return 5;
    mlog_close(m);
    fsm_free(fsm);
    return rename(away, path) == 0 ? 0 : 6;
}

/* What the disk does not take: a write of a segment fails with EFBIG. */
static int with_failing_writes(void)
{
    const struct rlimit none = {0, RLIM_INFINITY};
    struct fsm *fsm;
    struct mlog *m;

    signal(SIGXFSZ, SIG_IGN);
    if (open_mlog(&fsm, &m) != 0 || write_large(m, 0) != 0)
        return 2;
    if (setrlimit(RLIMIT_FSIZE, &none) != 0)
        return 3;
    if (write_large(m, 1) != -EIO || write_large(m, 2) != -EIO)
        return 4;
    if (atomic_load(&failures) != 1)
        return 5;
    mlog_close(m);
    fsm_free(fsm);
    return 0;
}

static int goes_on(void)
{
    struct fsm *fsm;
    struct mlog *m;

    if (open_mlog(&fsm, &m) != 0)
        return 2;
    if (write_large(m, 1) != 0)
        return 3;
    mlog_close(m);
    fsm_free(fsm);
    return 0;
}

static void in_a_child(int (*run)(void))
{
    int status;

    pid_t pid = fork();
    if (pid == 0) {
        alarm(200);
        _exit(run());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status))
        fail_msg("ended by signal %d", WTERMSIG(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* run ends with 0; what it was told as done is there, and the log goes on. (In another child: this process has no
 * threads, so that it may have children with some under ThreadSanitizer, too.) */
static void ends_well(int (*run)(void))
{
    in_a_child(run);
    in_a_child(goes_on);
}

static void test_no_descriptors(void **state)
{
    (void)state;
    ends_well(without_descriptors);
}

static void test_no_segments(void **state)
{
    (void)state;
    ends_well(without_segments);
}

static void test_no_closing(void **state)
{
    (void)state;
    ends_well(without_closing);
}

static void test_failing_writes(void **state)
{
    (void)state;
    ends_well(with_failing_writes);
}

/* ---- segments that could not be closed ---- */

static int writes_segments(void)
{
    struct fsm *fsm;
    struct mlog *m;

    if (open_mlog(&fsm, &m) != 0)
        return 2;
    for (unsigned i = 0; i < 500; i++)
        if (write_large(m, i) != 0)
            return 3;
    mlog_close(m);
    fsm_free(fsm);
    return 0;
}

/* The closed segment that begins with this entry gets the name and the length that it had before. Its last entry. */
static unsigned long long reopen(unsigned long long first, unsigned counter)
{
    unsigned long long from, last = 0;
    char log_dir[160], path[500], to[500];
    struct dirent *e;

    snprintf(log_dir, sizeof(log_dir), "%s/log", dir);
    DIR *d = opendir(log_dir);
    assert_non_null(d);
    while ((e = readdir(d)) && last == 0)
        if (sscanf(e->d_name, "%llu-%llu", &from, &last) != 2 || from != first)
            last = 0;
        else
            snprintf(path, sizeof(path), "%s/%s", log_dir, e->d_name);
    closedir(d);
    assert_true(last > first);
    snprintf(to, sizeof(to), "%s/open-%u", log_dir, counter);
    assert_int_equal(truncate(path, 8 << 20), 0);
    assert_int_equal(rename(path, to), 0);
    return last;
}

/* Two full segments were not closed, and later ones were: all that they hold is still there. */
static void test_not_closed(void **state)
{
    (void)state;
    in_a_child(writes_segments);
    reopen(reopen(2, 1) + 1, 2);
    in_a_child(goes_on);
    in_a_child(goes_on); /* and once more from what that made of it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_segments, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_closing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failing_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_closed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
