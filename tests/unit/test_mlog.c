/* The replicated log against a real directory: restart, kill -9 under load, checkpoints, and every
 * kind of damage. "Acknowledged" is what a proposer was told; it must be there afterwards, or the
 * start refused. */
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/byteorder.h"
#include "base/log.h"
#include "metad/log/mlog.h"
#include "tests/unit/tree.h"
#include "tests/unit/tsan_forks.h"

#define PATIENCE_MS 20000

struct node {
    struct fsm *fsm;
    struct mlog *mlog;
};

static char dir[128];

/* ---- helpers ---- */

static int setup(void **state)
{
    char uuid[37];

    (void)state;
    if (!tree_make(dir, sizeof(dir), "/var/tmp", "mlog"))
        return -1;
    return mlog_init_dir(dir, uuid);
}

static int teardown(void **state)
{
    (void)state;
    tree_remove(dir);
    return 0;
}

/* Lets inode numbers below `upto` be used, as metad does before it hands them out. */
static void reserve_inos(struct node *n, uint64_t upto)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__ReserveOp reserve = REPLFS__RESERVE_OP__INIT;

    reserve.ino_upto = upto;
    op.op_case = REPLFS__META_OP__OP_RESERVE;
    op.reserve = &reserve;
    cmd.op = &op;
    assert_int_equal(mlog_propose_wait(n->mlog, &cmd, NULL), 0);
}

static int open_node(struct node *n, uint64_t checkpoint_bytes)
{
    struct mlog_config cfg = {.dir = dir, .checkpoint_bytes = checkpoint_bytes};

    assert_int_equal(fsm_new(&n->fsm), 0);
    cfg.fsm = n->fsm;
    int rv = mlog_open(&cfg, PATIENCE_MS, &n->mlog);
    if (rv != 0)
        fsm_free(n->fsm);
    else
        reserve_inos(n, 1u << 30);
    return rv;
}

static void close_node(struct node *n)
{
    mlog_close(n->mlog);
    fsm_free(n->fsm);
}

static void make_name(char name[32], unsigned i)
{
    snprintf(name, 32, "n%08u", i);
}

struct create {
    Replfs__Command cmd;
    Replfs__MetaOp op;
    Replfs__CreateOp create;
    char name[32];
};

static void fill_create(struct create *c, unsigned i)
{
    replfs__command__init(&c->cmd);
    replfs__meta_op__init(&c->op);
    replfs__create_op__init(&c->create);
    make_name(c->name, i);
    c->create.parent = FSM_ROOT_INO;
    c->create.name.data = (uint8_t *)c->name;
    c->create.name.len = strlen(c->name);
    c->create.mode = S_IFREG | 0644;
    c->create.ino = 2 + i;
    c->op.op_case = REPLFS__META_OP__OP_CREATE;
    c->op.create = &c->create;
    c->cmd.op = &c->op;
}

static void create_one(struct node *n, unsigned i)
{
    struct create c;
    struct fsm_result res;

    fill_create(&c, i);
    assert_int_equal(mlog_propose_wait(n->mlog, &c.cmd, &res), 0);
    assert_int_equal(res.code, 0);
}

static bool has(struct node *n, unsigned i)
{
    char name[32];
    uint64_t ino;

    make_name(name, i);
    fsm_rdlock(n->fsm);
    int rv = fsm_lookup(n->fsm, FSM_ROOT_INO, (uint8_t *)name, strlen(name), &ino);
    fsm_unlock(n->fsm);
    return rv == 0;
}

/* Asynchronous creations with a window. */
struct load {
    struct mlog *mlog;
    atomic_uint *acked; /* highest i so that all up to it are acknowledged: answers come in order */
    atomic_uint done;
};
struct load_item {
    struct load *load;
    unsigned i;
    int code;
};

static void load_applied(void *arg, int code, const struct fsm_result *res)
{
    struct load_item *item = arg;
    item->code = code != 0 ? code : -res->code;
}

static void load_after(void *arg)
{
    struct load_item *item = arg;

    if (item->code == 0)
        atomic_store(item->load->acked, item->i + 1);
    atomic_fetch_add(&item->load->done, 1);
    free(item);
}

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

static void run_load(struct load *l, unsigned from, unsigned to, unsigned window)
{
    atomic_store(&l->done, 0);
    for (unsigned i = from; i < to; i++) {
        struct create c;
        struct load_item *item = malloc(sizeof(*item));
        *item = (struct load_item){.load = l, .i = i};
        while (i - from - atomic_load(&l->done) >= window)
            pause_briefly();
        fill_create(&c, i);
        mlog_propose(l->mlog, &c.cmd, load_applied, load_after, item);
    }
    while (atomic_load(&l->done) < to - from)
        pause_briefly();
}

static void fill(struct node *n, unsigned from, unsigned to)
{
    atomic_uint acked = 0;
    struct load l = {.mlog = n->mlog, .acked = &acked};

    run_load(&l, from, to, 256);
    assert_int_equal(acked, to);
}

static void wait_checkpoint(struct node *n, uint64_t above)
{
    struct mlog_status st;
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;

    do {
        assert_true(clock_mono() < until);
        pause_briefly();
        mlog_status(n->mlog, &st);
    } while (st.checkpoint_index <= above);
}

/* First file in dir/sub that starts with prefix; newest by name when several. */
static void find_file(const char *sub, const char *prefix, char out[512])
{
    char path[256], best[256] = "";
    snprintf(path, sizeof(path), "%s/%s", dir, sub);
    DIR *d = opendir(path);

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 && strstr(e->d_name, ".meta") == NULL &&
            strcmp(e->d_name, best) > 0)
            snprintf(best, sizeof(best), "%s", e->d_name);
    closedir(d);
    assert_true(best[0] != 0);
    snprintf(out, 512, "%s/%s", path, best);
}

/* The open segment that holds entries: the first one by number. */
static void find_open_segment(char out[512])
{
    char path[256];
    unsigned long best = ~0ul;
    snprintf(path, sizeof(path), "%s/log", dir);
    DIR *d = opendir(path);

    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strncmp(e->d_name, "open-", 5) == 0 && strtoul(e->d_name + 5, NULL, 10) < best)
            best = strtoul(e->d_name + 5, NULL, 10);
    closedir(d);
    assert_true(best != ~0ul);
    snprintf(out, 512, "%s/open-%lu", path, best);
}

static void flip(const char *path, long at)
{
    uint8_t b;
    int fd = open(path, O_RDWR);
    struct stat st;

    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    off_t pos = at >= 0 ? at : st.st_size + at;
    assert_int_equal(pread(fd, &b, 1, pos), 1);
    b ^= 0x10;
    assert_int_equal(pwrite(fd, &b, 1, pos), 1);
    close(fd);
}

static bool is_gone(const char *path)
{
    return access(path, F_OK) < 0;
}

/* What the child does: a process of its own, since it has threads. */
static int child(const char *data, unsigned from, uint64_t checkpoint_bytes, int fd)
{
    atomic_uint *acked = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    struct node n;

    snprintf(dir, sizeof(dir), "%s", data);
    if (acked == MAP_FAILED || open_node(&n, checkpoint_bytes) != 0)
        return 7;
    struct load l = {.mlog = n.mlog, .acked = acked};
    run_load(&l, from, from + 10000000, 64);
    return 8;
}

/* Runs a child that is killed with SIGKILL once at least `goal` creations were acknowledged. */
static unsigned killed_child(unsigned from, unsigned goal, unsigned extra_us,
                             uint64_t checkpoint_bytes)
{
    char first[16], bytes[32], shared[16];
    int fd = memfd_create("acked", 0);

    assert_true(fd >= 0 && ftruncate(fd, 4096) == 0);
    atomic_uint *acked = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(acked != MAP_FAILED);
    atomic_store(acked, from);
    snprintf(first, sizeof(first), "%u", from);
    snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)checkpoint_bytes);
    snprintf(shared, sizeof(shared), "%d", fd);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "unit_test_mlog", "child", dir, first, bytes, shared, (char *)NULL);
        _exit(6);
    }
    close(fd);
    int status;
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;
    while (atomic_load(acked) < from + goal) {
        assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
        assert_true(clock_mono() < until);
        pause_briefly();
    }
    nanosleep(&(struct timespec){.tv_nsec = extra_us * 1000l}, NULL); /* vary the moment */
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    unsigned got = atomic_load(acked);
    munmap(acked, 4096);
    return got;
}

/* ---- tests ---- */

static void test_restart(void **state)
{
    struct node n;
    struct mlog_status st;

    (void)state;
    assert_int_equal(open_node(&n, 0), 0);
    assert_true(mlog_is_leader(n.mlog));
    create_one(&n, 0);
    fill(&n, 1, 3000);
    mlog_status(n.mlog, &st);
    assert_true(st.leader && st.applied > 0 && st.log_bytes > 0);
    close_node(&n);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(open_node(&n, 0), 0);
        for (unsigned i = 0; i < 3000; i++)
            assert_true(has(&n, i));
        create_one(&n, 3000 + (unsigned)round);
        close_node(&n);
    }
    assert_int_equal(open_node(&n, 0), 0);
    assert_true(has(&n, 3002) && !has(&n, 3003));
    close_node(&n);
}

static void test_init_twice(void **state)
{
    char uuid[37], path[256], other[160];
    struct node n;

    (void)state;
    assert_int_equal(mlog_init_dir(dir, uuid), -EEXIST);
    snprintf(path, sizeof(path), "%s/replfs.id", dir);
    assert_int_equal(open_node(&n, 0), 0);
    create_one(&n, 0);
    close_node(&n);
    assert_int_equal(unlink(path),
                     0); /* the id is lost: never make a new cluster over the old one */
    assert_int_equal(mlog_init_dir(dir, uuid), -ENOTEMPTY);
    assert_int_equal(open_node(&n, 0), -ENOENT);
    snprintf(other, sizeof(other), "%s/new/x", dir);
    assert_true(mlog_init_dir(other, uuid) < 0);
}

static void test_interrupted_init(void **state)
{
    char uuid[37], path[256];
    struct node n;

    (void)state;
    snprintf(path, sizeof(path), "%s/replfs.id", dir);
    assert_int_equal(unlink(path), 0); /* crash just before the id was written */
    assert_int_equal(mlog_init_dir(dir, uuid), 0);
    assert_int_equal(open_node(&n, 0), 0);
    assert_string_equal(mlog_uuid(n.mlog), uuid);
    create_one(&n, 0);
    close_node(&n);
}

static void test_locked(void **state)
{
    struct node n;

    (void)state;
    assert_int_equal(open_node(&n, 0), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct node second;
        struct mlog_config cfg = {.dir = dir};
        if (fsm_new(&second.fsm) != 0)
            _exit(1);
        cfg.fsm = second.fsm;
        _exit(mlog_open(&cfg, PATIENCE_MS, &second.mlog) == -ERR_LOCKED ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    create_one(&n, 0);
    close_node(&n);
}

static void test_kill_under_load(void **state)
{
    unsigned upto = 0;

    (void)state;
    for (unsigned round = 0; round < 12; round++) {
        struct node n;
        unsigned acked = killed_child(upto, 50 + round * 400, round * 377, 64 << 10);
        assert_int_equal(open_node(&n, 64 << 10), 0);
        for (unsigned i = 0; i < acked; i++)
            if (!has(&n, i))
                fail_msg("round %u: creation %u of %u acknowledged ones is gone", round, i, acked);
        upto = acked;
        while (has(&n, upto)) /* unacknowledged ones may be there, in order */
            upto++;
        create_one(&n, upto++);
        close_node(&n);
    }
}

static void test_checkpoint(void **state)
{
    struct node n;
    unsigned made = 0;

    (void)state;
    assert_int_equal(open_node(&n, 0), 0);
    for (int round = 0; round < 5; round++) {
        struct mlog_status st;
        fill(&n, made, made + 2000);
        mlog_status(n.mlog, &st);
        assert_int_equal(mlog_checkpoint(n.mlog), 0);
        fill(&n, made + 2000, made + 2500); /* goes on meanwhile: part of the descriptor's tail */
        made += 2500;
        wait_checkpoint(&n, st.checkpoint_index);
    }
    close_node(&n);
    char path[256];
    unsigned files = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        files += strncmp(e->d_name, "checkpoint-", 11) == 0;
    closedir(d);
    assert_int_equal(files, 3);
    snprintf(path, sizeof(path), "%s/checkpoint-0000000000000001.tmp", dir);
    close(open(path, O_CREAT | O_WRONLY, 0600)); /* a crash's leftover */
    assert_int_equal(open_node(&n, 0), 0);
    assert_true(is_gone(path));
    for (unsigned i = 0; i < made; i++)
        assert_true(has(&n, i));
    create_one(&n, made);
    close_node(&n);
    assert_int_equal(open_node(&n, 0), 0);
    assert_true(has(&n, made));
    close_node(&n);
}

static void test_log_is_cut(void **state)
{
    struct node n;
    struct mlog_status st;

    (void)state;
    assert_int_equal(open_node(&n, 256 << 10), 0);
    fill(&n, 0, 60000);
    wait_checkpoint(&n, 1);
    mlog_status(n.mlog, &st);
    assert_true(st.log_bytes < (3u << 20));
    close_node(&n);
    assert_int_equal(open_node(&n, 256 << 10), 0);
    for (unsigned i = 0; i < 60000; i += 7)
        assert_true(has(&n, i));
    close_node(&n);
}

/* Damage: a state directory with everything in it, then one byte changed. */
static void prepare_damage(unsigned entries, bool checkpoint)
{
    struct node n;

    assert_int_equal(open_node(&n, 0), 0);
    fill(&n, 0, entries);
    if (checkpoint) {
        mlog_checkpoint(n.mlog);
        wait_checkpoint(&n, 0);
    }
    close_node(&n);
}

static void test_flipped_closed_segment(void **state)
{
    char path[512];
    struct node n;

    (void)state;
    prepare_damage(2000, false);
    find_file("log", "0000", path);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    for (long at = 0; at < st.st_size; at += st.st_size / 9 + 1) {
        flip(path, at);
        int rv = open_node(&n, 0);
        if (rv != -ERR_CORRUPT && rv != -ERR_VERSION)
            fail_msg("flipped byte %ld of %s: %d", at, path, rv);
        flip(path, at);
    }
    assert_int_equal(open_node(&n, 0), 0); /* refusing changed nothing */
    for (unsigned i = 0; i < 2000; i++)
        assert_true(has(&n, i));
    close_node(&n);
}

static void test_flipped_open_segment(void **state)
{
    char path[512];
    struct node n;

    (void)state;
    unsigned acked = killed_child(0, 500, 0, 0);
    find_open_segment(path);
    static const long at[] = {0, 9, 13, 17, 40, 100, 300, 1000};
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        flip(path, at[i]);
        assert_int_equal(open_node(&n, 0), -ERR_CORRUPT);
        assert_false(is_gone(path));
        flip(path, at[i]);
    }
    assert_int_equal(open_node(&n, 0), 0);
    for (unsigned i = 0; i < acked; i++)
        assert_true(has(&n, i));
    close_node(&n);
}

static void test_missing_segment(void **state)
{
    char path[512], moved[600];
    struct node n;

    (void)state;
    prepare_damage(500, false);
    prepare_damage(0, false);
    find_file("log", "0000", path);
    snprintf(moved, sizeof(moved), "%s/kept", dir);
    assert_int_equal(rename(path, moved), 0);
    assert_int_equal(open_node(&n, 0), -ERR_CORRUPT);
    assert_int_equal(rename(moved, path), 0);
    assert_int_equal(open_node(&n, 0), 0);
    close_node(&n);
}

static void check_flips(const char *path, const long *at, size_t count)
{
    struct node n;

    for (size_t i = 0; i < count; i++) {
        flip(path, at[i]);
        int rv = open_node(&n, 0);
        if (rv != -ERR_CORRUPT && rv != -ERR_VERSION)
            fail_msg("%s: flipped byte %ld: %d", path, at[i], rv);
        flip(path, at[i]);
    }
    assert_int_equal(open_node(&n, 0), 0);
    close_node(&n);
}

static void test_flipped_checkpoint(void **state)
{
    static const long at[] = {0, 5, 9, 21, 100, -1, -30};
    char path[512];
    struct node n;

    (void)state;
    prepare_damage(2000, true);
    find_file(".", "checkpoint-", path);
    check_flips(path, at, sizeof(at) / sizeof(at[0]));
    assert_int_equal(truncate(path, 50), 0);
    assert_int_equal(open_node(&n, 0), -ERR_CORRUPT);
    unlink(path);
    assert_int_equal(open_node(&n, 0), -ERR_CORRUPT);
}

static void test_flipped_descriptor(void **state)
{
    static const long at[] = {0, 4, 9, 17, 25, 33, 44, 47};
    static const long meta[] = {0, 8, 17, 24, 33, 45};
    char path[512], meta_path[520];

    (void)state;
    prepare_damage(2000, true);
    find_file("log", "snapshot-", path);
    check_flips(path, at, sizeof(at) / sizeof(at[0]));
    snprintf(meta_path, sizeof(meta_path), "%s.meta", path);
    check_flips(meta_path, meta, sizeof(meta) / sizeof(meta[0]));
}

static void test_lost_end(void **state)
{
    char path[512];
    struct node n;

    (void)state;
    prepare_damage(100, false);
    snprintf(path, sizeof(path), "%s/log/0000000000000001-0000000000000001", dir);
    DIR *d = opendir(dir);
    closedir(d);
    /* Everything but the first segment disappears: a good log, only too short. */
    char sub[256];
    snprintf(sub, sizeof(sub), "%s/log", dir);
    d = opendir(sub);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] == '0' && strstr(path, e->d_name) == NULL)
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    assert_int_equal(open_node(&n, 0), -ERR_CORRUPT);
    snprintf(path, sizeof(path), "%s/hwm", dir); /* the way out that the message names */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(open_node(&n, 0), 0);
    assert_false(has(&n, 0));
    close_node(&n);
}

static void test_hwm_damage(void **state)
{
    char path[512];
    struct node n;

    (void)state;
    prepare_damage(100, false);
    snprintf(path, sizeof(path), "%s/hwm", dir);
    flip(path, 16);
    flip(path, 512 + 16);
    assert_int_equal(open_node(&n, 0), -ERR_CORRUPT);
    flip(path, 16);
    assert_int_equal(open_node(&n, 0), 0); /* one good mark is enough */
    close_node(&n);
}

static void test_metadata_damage(void **state)
{
    char path[512];
    struct node n;

    (void)state;
    prepare_damage(10, false);
    snprintf(path, sizeof(path), "%s/log/metadata1", dir);
    flip(path, 0);
    assert_int_equal(open_node(&n, 0), -ERR_CORRUPT);
    flip(path, 0);
    flip(path, 9);
    assert_int_equal(open_node(&n, 0), -ERR_CORRUPT);
    flip(path, 9);
    assert_int_equal(open_node(&n, 0), 0);
    close_node(&n);
}

static void test_newer_version(void **state)
{
    char path[512], text[256];
    struct node n;

    (void)state;
    prepare_damage(10, true);
    snprintf(path, sizeof(path), "%s/replfs.id", dir);
    int fd = open(path, O_RDWR);
    ssize_t len = read(fd, text, sizeof(text) - 1);
    assert_true(len > 0);
    text[len] = 0;
    char *digit = strstr(text, "format ") + 7;
    assert_int_equal(*digit, '1');
    *digit = '3';
    assert_int_equal(pwrite(fd, text, (size_t)len, 0), len);
    assert_int_equal(open_node(&n, 0), -ERR_VERSION);
    *digit = '1';
    assert_int_equal(pwrite(fd, text, (size_t)len, 0), len);
    close(fd);
    /* a descriptor of a newer program */
    find_file("log", "snapshot-", path);
    fd = open(path, O_RDWR);
    uint8_t version[4];
    le_put32(version, 2);
    assert_int_equal(pwrite(fd, version, 4, 4), 4);
    assert_int_equal(open_node(&n, 0), -ERR_VERSION);
    le_put32(version, 1);
    assert_int_equal(pwrite(fd, version, 4, 4), 4);
    close(fd);
    assert_int_equal(open_node(&n, 0), 0);
    close_node(&n);
}

/* The check reads segments exactly as they come, of any content. */
static void test_close_fails_late_proposals(void **state)
{
    struct node n;
    atomic_uint acked = 0;

    (void)state;
    assert_int_equal(open_node(&n, 0), 0);
    struct load l = {.mlog = n.mlog, .acked = &acked};
    for (unsigned i = 0; i < 500; i++) {
        struct create c;
        struct load_item *item = malloc(sizeof(*item));
        *item = (struct load_item){.load = &l, .i = i};
        fill_create(&c, i);
        mlog_propose(n.mlog, &c.cmd, load_applied, load_after, item);
    }
    close_node(&n);
    assert_int_equal(l.done, 500); /* each answered, one way or the other */
    unsigned told = acked;
    assert_int_equal(open_node(&n, 0), 0);
    for (unsigned i = 0; i < told; i++)
        assert_true(has(&n, i));
    close_node(&n);
}

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "child") == 0)
        return child(argv[2], (unsigned)strtoul(argv[3], NULL, 10), strtoull(argv[4], NULL, 10),
                     (int)strtol(argv[5], NULL, 10));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_init_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupted_init, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kill_under_load, setup, teardown),
        cmocka_unit_test_setup_teardown(test_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_log_is_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flipped_closed_segment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flipped_open_segment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_segment, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flipped_checkpoint, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flipped_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hwm_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_metadata_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newer_version, setup, teardown),
        cmocka_unit_test_setup_teardown(test_close_fails_late_proposals, setup, teardown),
    };
    signal(SIGPIPE, SIG_IGN);
    log_init("test_mlog", LOG_LVL_ERROR, getenv("TEST_LOG") != NULL ? NULL : "/dev/null");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
