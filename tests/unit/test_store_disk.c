/* The store on a disk that misbehaves, and in a process with few file descriptors: a disk that takes no
 * writes is read, an index that cannot be read fails its disk alone, a lack of descriptors fails none. */
#include "store_rig.h"
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { N = 40 };

static void write_some(struct store_rig *r, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        assert_int_equal(store_rig_append(r, 1 + i, 0, 3000 + i), 0);
    assert_int_equal(store_rig_sync(r), 0);
}

static void check_some(struct store_rig *r, unsigned to)
{
    for (unsigned i = 0; i < to; i++) {
        assert_int_equal(store_rig_len(r, 1 + i), 3000 + i);
        assert_int_equal(store_rig_read(r, 1 + i, 0, 3000 + i), 0);
    }
}

static void remount(struct store_rig *r, unsigned long flags)
{
    assert_int_equal(mount(NULL, r->dir, NULL, MS_REMOUNT | flags, NULL), 0);
}

/* Needs the right to mount. */
static void test_readonly(void **state)
{
    struct store_rig *r = *state;
    struct store_stat st;
    struct store_id id = {.cluster = STORE_RIG_CLUSTER, .chunkd = 3, .disk = 1};
    store_rig_close(r);
    if (mount("tmpfs", r->dir, "tmpfs", 0, "size=100m"))
        skip();
    assert_int_equal(store_id_write(r->dir, &id), 0);
    assert_int_equal(store_rig_open(r), 0);
    write_some(r, 0, N);
    for (int i = 0; i < 3; i++) { /* with its index, with none, with a useless one */
        store_rig_close(r);
        if (i == 1)
            r->cfg.rebuild_index = true;
        if (i == 2) {
            char path[128];
            snprintf(path, sizeof path, "%s/index/data.mdb", r->dir);
            assert_int_equal(truncate(path, 100), 0);
            r->cfg.rebuild_index = false;
        }
        remount(r, MS_RDONLY);
        assert_int_equal(store_rig_open(r), 0);
        check_some(r, N);
        assert_int_equal(store_rig_append(r, 500, 0, 10), -EIO);
        assert_int_equal(store_rig_delete(r, &(uint64_t){1}, 1), -EIO);
        uint64_t token;
        assert_int_equal(store_copy_begin(r->s, 9, 77, &token), -EIO);
        store_stat(r->s, &st);
        assert_true(st.failed && st.readable);
        assert_int_equal(st.chunks, N);
        assert_int_equal(st.avail, 0);
        assert_non_null(strstr(st.error, "takes no writes"));
        store_rig_close(r);
        remount(r, 0);
        assert_int_equal(store_rig_open(r), 0);
        check_some(r, N);
    }
    write_some(r, N, N + 2);
    store_rig_close(r);
    assert_int_equal(umount(r->dir), 0);
    assert_int_equal(store_rig_open(r), 0);
}

#ifndef __SANITIZE_THREAD__ /* TSan does not follow a jump out of a signal's handler */
static _Atomic unsigned told, told_unreadable;

static void on_failed(void *arg, const char *why, bool readable)
{
    (void)arg;
    told += why[0] != 0;
    told_unreadable += !readable;
}

/* A map's page behind the end of its file is what a bad sector under it is: SIGBUS. */
static void test_index_unreadable(void **state)
{
    struct store_rig *r = *state;
    struct store_stat st;
    char path[128];
    write_some(r, 0, N);
    r->cfg.failed = on_failed;
    store_rig_reopen(r);
    told = told_unreadable = 0;
    snprintf(path, sizeof path, "%s/index/data.mdb", r->dir);
    assert_int_equal(truncate(path, 0), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(store_rig_read(r, 1, 0, 3000), -EIO);
    assert_int_equal(store_rig_len(r, 2), -EIO);
    store_stat(r->s, &st);
    assert_true(st.failed && !st.readable);
    assert_int_equal(told, 1);
    assert_int_equal(told_unreadable, 1);
    assert_int_equal(store_rig_append(r, 500, 0, 10), -EIO);
    /* anything else that is SIGBUS ends the process as ever */
    pid_t pid = fork();
    if (pid == 0) {
        raise(SIGBUS);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
    /* the log has everything */
    store_rig_reopen(r);
    check_some(r, N);
    write_some(r, N, N + 2);
}

/* A page goes bad under the writer's feet. */
static void test_index_unreadable_for_a_checkpoint(void **state)
{
    struct store_rig *r = *state;
    struct store_stat st;
    char path[128];
    write_some(r, 0, N);
    store_rig_reopen(r);
    snprintf(path, sizeof path, "%s/index/data.mdb", r->dir);
    assert_int_equal(truncate(path, 0), 0);
    (void)store_rig_append(r, 500, 0, 10);
    WAIT_UNTIL((store_stat(r->s, &st), st.failed));
    store_rig_reopen(r);
    check_some(r, N);
}

#endif

/* In a child, since a limit once lowered stays. */
static void few_descriptors(struct store_rig *r)
{
    struct rlimit rl = {40, 40};
    if (setrlimit(RLIMIT_NOFILE, &rl) || store_rig_open(r))
        _exit(2);
    for (unsigned i = 0; i < 4 * 30; i++) /* 30 segments */
        if (store_rig_append(r, 1000 + i, 0, MIB - 4096))
            _exit(3);
    if (store_rig_sync(r))
        _exit(4);
    for (unsigned i = 0; i < 4 * 30; i += 3)
        if (store_rig_read(r, 1000 + i, 0, MIB - 4096))
            _exit(5);
    store_rig_close(r);
    if (store_rig_open(r)) /* all at once */
        _exit(6);
    for (unsigned i = 0; i < 4 * 30; i += 5)
        if (store_rig_read(r, 1000 + i, 0, MIB - 4096))
            _exit(7);
    /* none at all for a while: nobody's failure */
    int fd[64];
    unsigned n = 0;
    while (n < 64 && (fd[n] = dup(0)) >= 0)
        n++;
    for (unsigned i = 0; i < 4 * 30; i++)
        (void)store_rig_read(r, 1000 + i, 0, 1);
    for (unsigned i = 0; i < 6; i++)
        (void)store_rig_append(r, 2000 + i, 0, MIB - 4096);
    while (n > 0)
        close(fd[--n]);
    struct store_stat st;
    store_stat(r->s, &st);
    if (st.failed || store_rig_append(r, 3000, 0, MIB) || store_rig_read(r, 1000, 0, MIB - 4096))
        _exit(8);
    store_rig_close(r);
    _exit(0);
}

static void test_few_descriptors(void **state)
{
    struct store_rig *r = *state;
    store_rig_close(r);
    pid_t pid = fork();
    if (pid == 0)
        few_descriptors(r);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(store_rig_open(r), 0);
    assert_int_equal(store_rig_read(r, 1000, 0, MIB - 4096), 0);
}

/* After a page of its map could not be read nothing of LMDB's is touched again, nor freed (index_db.c). */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:mdb_\n";
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, store_rig_setup, store_rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_readonly),
#ifndef __SANITIZE_THREAD__
        T(test_index_unreadable),
        T(test_index_unreadable_for_a_checkpoint),
#endif
        T(test_few_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
