/* What is answered as safe is on a disk: kill -9 keeps the page cache, so these look at the calls. fsync(2) and
 * fdatasync(2) of the whole program, and of what it forks, are ours: they note what a file held when it was synced. */
#include "chunkd_rig.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "metad/log/mlog.h"

/* In memory that forked processes share. */
static struct noted {
    uint8_t needle[16];
    atomic_uint nodes; /* of which a segment that holds the needle was synced: bit by number */
    atomic_uint nckpts;
    struct {
        atomic_ullong ino, size;
    } ckpt[256];
} * noted;

static bool holds(int fd, const uint8_t *needle, size_t len)
{
    static _Thread_local uint8_t piece[1 << 20];
    bool found = false;
    ssize_t n;
    for (off_t at = 0; !found && (n = pread(fd, piece, sizeof piece, at)) > 0; at += n)
        found = memmem(piece, (size_t)n, needle, len);
    return found;
}

/* Before the sync: what is written after that is another one's. */
static unsigned node_of(int fd, const char *path)
{
    unsigned node;
    const char *at = strstr(path, chunkd_rig.dir);
    if (!chunkd_rig.dir[0] || !at || !strstr(path, "/seg-") ||
        sscanf(at + strlen(chunkd_rig.dir), "/%u-", &node) != 1)
        return 0;
    return holds(fd, noted->needle, sizeof noted->needle) ? node : 0;
}

static int note(int fd, long call)
{
    char link[64], path[512] = "";
    struct stat st;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0 || fstat(fd, &st))
        return -1;
    unsigned node = noted ? node_of(fd, path) : 0;
    int rc = (int)syscall(call, fd);
    if (rc || !noted)
        return rc;
    if (node)
        atomic_fetch_or(&noted->nodes, 1u << node);
    if (strstr(path, "/checkpoint-")) {
        unsigned i = atomic_fetch_add(&noted->nckpts, 1) % 256;
        atomic_store(&noted->ckpt[i].size, (unsigned long long)st.st_size);
        atomic_store(&noted->ckpt[i].ino, st.st_ino);
    }
    return 0;
}

int fsync(int fd)
{
    return note(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return note(fd, SYS_fdatasync);
}

/* ---- chunkds ---- */

static int chunkds_setup(void **state)
{
    if (chunkd_rig_setup(state))
        return -1;
    chunkd_rig_chunkd_start(1, 1);
    chunkd_rig_chunkd_start(2, 1);
    return 0;
}

static int append(uint64_t chunk, bool sync)
{
    static const unsigned chain[] = {1, 2, 0};
    const struct chunkd_rig_append a = {
        .chunk = chunk, .len = 5000, .seed = chunk, .chain = chain, .sync = sync};
    chunkd_rig_fill(noted->needle, sizeof noted->needle, chunk);
    atomic_store(&noted->nodes, 0);
    return chunkd_rig_append(&a).code;
}

static void synced_append(void **state)
{
    (void)state;
    for (uint64_t chunk = 10; chunk < 15; chunk++) {
        assert_int_equal(append(chunk, true), 0);
        assert_int_equal(atomic_load(&noted->nodes), 1u << 1 | 1u << 2);
    }
}

static void sync_request(void **state)
{
    (void)state;
    for (uint64_t chunk = 20; chunk < 25; chunk++) {
        assert_int_equal(append(chunk, false), 0);
        for (unsigned node = 1; node <= 2; node++) {
            assert_int_equal(chunkd_rig_sync(node, chunk, 5000), 0);
            assert_true(atomic_load(&noted->nodes) >> node & 1);
        }
    }
}

/* ---- metad ---- */

static bool checkpoint(const char *dir, struct stat *st)
{
    char path[128];
    for (unsigned i = 1; i < 64; i++) {
        snprintf(path, sizeof path, "%s/checkpoint-%016u", dir, i);
        if (stat(path, st) == 0)
            return true;
    }
    return false;
}

static bool was_synced(const struct stat *st)
{
    for (unsigned i = 0; i < 256; i++)
        if (atomic_load(&noted->ckpt[i].ino) == st->st_ino &&
            atomic_load(&noted->ckpt[i].size) == (unsigned long long)st->st_size)
            return true;
    return false;
}

static void make(struct mlog *m, unsigned i)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__ReserveOp reserve = REPLFS__RESERVE_OP__INIT;
    reserve.ino_upto = 1000 + i;
    op.op_case = REPLFS__META_OP__OP_RESERVE;
    op.reserve = &reserve;
    cmd.op = &op;
    assert_int_equal(mlog_propose_wait(m, &cmd, NULL), 0);
}

/* The log is cut behind a checkpoint as soon as that has its name. */
static void checkpoint_is_synced(void **state)
{
    char dir[64], uuid[37];
    struct fsm *fsm;
    struct mlog *m;
    struct stat st = {0};
    (void)state;
    assert_true(tree_make(dir, sizeof dir, "/var/tmp", "ckpt"));
    assert_int_equal(mlog_init_dir(dir, uuid), 0);
    assert_int_equal(fsm_new(&fsm), 0);
    struct mlog_config cfg = {.dir = dir, .checkpoint_bytes = 1, .fsm = fsm};
    assert_int_equal(mlog_open(&cfg, WAIT_LIMIT_S * 1000, &m), 0);
    unsigned i = 0;
    for (; i < 60 && !checkpoint(dir, &st); i++) {
        make(m, i);
        usleep(20000); /* the child needs a moment */
    }
    mlog_close(m);
    fsm_free(fsm);
    tree_remove(dir);
    assert_true(i < 60);
    assert_true(was_synced(&st));
}

int main(void)
{
    noted = mmap(NULL, sizeof *noted, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (noted == MAP_FAILED)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(synced_append, chunkds_setup, chunkd_rig_teardown),
        cmocka_unit_test_setup_teardown(sync_request, chunkds_setup, chunkd_rig_teardown),
        cmocka_unit_test(checkpoint_is_synced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
