/* Copies of metad's names kept by a real chunkd: what is put is what is got, by whom it may be; nothing is taken that
 * does not fit; a torn end is cut; two whole generations stay. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/byteorder.h"
#include "chunkd_rig.h"
#include "names_rig.h"

static int send_drop(uint64_t term)
{
    Replfs__NamesPutReq r = REPLFS__NAMES_PUT_REQ__INIT;
    struct rpc_result res;

    r.drop = true;
    r.term = term;
    RPC_ENVELOPE(env, NAMES_PUT_REQ, names_put_req, &r);
    int rc = rpc_call_wait(chunkd_rig.node[1].conn, &env, NULL, 10000, &res);
    rpc_result_free(&res);
    return rc;
}

static uint64_t listed[8];
static size_t nlisted;

/* Asks as that role; what comes back of a file goes to *data. */
static int get_as(enum rpc_role role, uint64_t generation, uint64_t offset, struct buf **data)
{
    struct rpc_config rc = {.role = role, .name = "test", .threads = 1};
    Replfs__NamesGetReq r = REPLFS__NAMES_GET_REQ__INIT;
    struct rpc_result res;
    struct rpc_loop *loop;
    struct rpc_conn *c;

    assert_int_equal(rpc_loop_new(&rc, &loop), 0);
    assert_int_equal(rpc_dial(loop, chunkd_addr(chunkd_rig.chunkd[1]), RPC_ROLE_CHUNKD, NULL, &c),
                     0);
    r.generation = generation;
    r.offset = offset;
    RPC_ENVELOPE(env, NAMES_GET_REQ, names_get_req, &r);
    int code = rpc_call_wait(c, &env, NULL, 10000, &res);
    if (code == 0) {
        const Replfs__NamesGetReply *rep = res.rep->names_get_reply;
        assert_string_equal(rep->cluster, CHUNKD_RIG_CLUSTER);
        assert_int_equal(rep->chunkd, 1);
        nlisted = rep->n_files;
        for (size_t i = 0; i < nlisted; i++)
            listed[i] = rep->files[i]->generation;
        if (data)
            *data = buf_ref(res.payload);
    }
    rpc_result_free(&res);
    rpc_conn_unref(c);
    rpc_loop_free(loop);
    return code;
}

static void expect_file(uint64_t generation, const struct sheet *s)
{
    struct buf *b = NULL;

    assert_int_equal(get_as(RPC_ROLE_METAD, generation, 0, &b), 0);
    assert_int_equal(b->len, s->len);
    assert_memory_equal(b->data, s->p, s->len);
    buf_unref(b);
}

/* A whole file of that generation. */
static void put_whole(uint64_t generation, struct sheet *s)
{
    put_header(s, generation, 5, CHUNKD_RIG_CLUSTER);
    put_state(s, 3000);
    assert_int_equal(send_put(1, generation, 0, true, 5, s), 0);
    assert_true(answer.whole);
    assert_int_equal(answer.size, s->len);
    assert_int_equal(answer.reached, generation);
}

static void test_put_and_get(void **state)
{
    struct sheet s, tail;
    struct buf *b = NULL;

    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    assert_int_equal(send_put(1, 0, 0, false, 5, NULL), 0); /* asked: nothing */
    assert_int_equal(answer.generation, 0);
    put_whole(100, &s);
    tail.len = 0;
    put_record(&tail, NAMES_ENTRY, 101, 99, 64);
    put_record(&tail, NAMES_ENTRY, 104, 101, 64);
    assert_int_equal(send_put(1, 100, s.len, false, 5, &tail), 0);
    assert_int_equal(answer.reached, 104);
    memcpy(s.p + s.len, tail.p, tail.len);
    s.len += tail.len;
    assert_int_equal(answer.size, s.len);
    expect_file(100, &s);
    assert_int_equal(get_as(RPC_ROLE_ADMIN, 100, s.len, &b), 0); /* behind its end */
    assert_int_equal(b ? b->len : 0, 0);
    buf_unref(b);
    assert_int_equal(get_as(RPC_ROLE_ADMIN, 101, 0, NULL), -ENOENT);

    /* whoever is neither metad nor administrator gets nothing, and nobody else puts */
    assert_int_equal(get_as(RPC_ROLE_CLIENT, 100, 0, NULL), -ERR_ROLE);
    assert_int_equal(get_as(RPC_ROLE_CHUNKD, 0, 0, NULL), -ERR_ROLE);
    Replfs__NamesPutReq r = REPLFS__NAMES_PUT_REQ__INIT;
    RPC_ENVELOPE(env, NAMES_PUT_REQ, names_put_req, &r);
    struct rpc_result res;
    assert_int_equal(rpc_call_wait(chunkd_rig.conn[1], &env, NULL, 10000, &res), -ERR_ROLE);
    rpc_result_free(&res);
}

static void test_what_does_not_fit(void **state)
{
    struct sheet s, t;

    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    put_whole(100, &s);
    t.len = 0;
    put_record(&t, NAMES_ENTRY, 101, 100, 64);
    assert_int_equal(send_put(1, 100, s.len - 1, false, 5, &t), -ERR_OFFSET); /* another size */
    assert_int_equal(send_put(1, 99, 0, false, 5, &t), -ERR_OFFSET);          /* no such file */
    assert_int_equal(send_put(1, 100, s.len, false, 4, &t), -ERR_OLD_TERM);   /* a deposed metad */
    t.p[t.len - 1] ^= 1;
    assert_int_equal(send_put(1, 100, s.len, false, 5, &t), -ERR_PROTOCOL); /* a wrong checksum */
    t.p[t.len - 1] ^= 1;
    t.len -= 1;
    assert_int_equal(send_put(1, 100, s.len, false, 5, &t), -ERR_PROTOCOL); /* a cut record */
    t.len = 0;
    put_record(&t, NAMES_ENTRY, 101, 100, 64);
    put_record(&t, NAMES_ENTRY, 103, 102, 64); /* one is missing: neither is taken */
    assert_int_equal(send_put(1, 100, s.len, false, 5, &t), -ERR_PROTOCOL);
    expect_file(100, &s);
    put_header(&t, 200, 5, "99999999-2222-3333-4444-555555555555");
    assert_int_equal(send_put(1, 200, 0, true, 5, &t), -ERR_WRONG_CLUSTER);
    put_header(&t, 201, 5, CHUNKD_RIG_CLUSTER);
    assert_int_equal(send_put(1, 200, 0, true, 5, &t), -ERR_PROTOCOL);
    expect_file(100, &s);
}

static void test_two_whole_ones_stay(void **state)
{
    struct sheet s, t;

    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    put_whole(100, &s);
    put_whole(200, &s);
    put_header(&t, 300, 5, CHUNKD_RIG_CLUSTER); /* begun, never whole */
    assert_int_equal(send_put(1, 300, 0, true, 5, &t), 0);
    assert_int_equal(send_put(1, 0, 0, false, 5, NULL), 0);
    assert_int_equal(answer.generation, 200); /* the newest whole one is told */
    put_whole(400, &s);
    assert_int_equal(get_as(RPC_ROLE_METAD, 0, 0, NULL), 0);
    assert_int_equal(nlisted, 2);
    assert_int_equal(listed[0], 400);
    assert_int_equal(listed[1], 200);
    put_whole(150, &s); /* an older metad: what it puts now stays, whatever its number */
    expect_file(150, &s);
    assert_int_equal(send_drop(4), -ERR_OLD_TERM);
    assert_int_equal(send_drop(5), 0);
    assert_int_equal(get_as(RPC_ROLE_METAD, 0, 0, NULL), 0);
    assert_int_equal(nlisted, 0);
}

static void file_of(char *path, size_t size, uint64_t generation)
{
    snprintf(path, size, "%s/1-0/names/copy-%016llu", chunkd_rig.dir,
             (unsigned long long)generation);
}

/* Also by a chunkd that has started again since: else one that was deposed drops what its successor has sent. */
static void test_old_term_is_remembered(void **state)
{
    struct sheet s;

    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    put_whole(100, &s);
    chunkd_rig_chunkd_stop(1);
    chunkd_rig_chunkd_start(1, 1);
    assert_int_equal(send_drop(4), -ERR_OLD_TERM);
    assert_int_equal(send_put(1, 100, s.len, false, 4, NULL), -ERR_OLD_TERM);
    expect_file(100, &s);
}

/* What does not fit on the disk leaves the whole copy that is there as it was, and that goes on when there is room. */
static void test_full_disk(void **state)
{
    struct sheet s, t;
    struct rlimit was, few;

    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    put_whole(100, &s);
    t.len = 0;
    for (uint64_t i = 101; i < 105; i++)
        put_record(&t, NAMES_ENTRY, i, i - 1, 8000);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    few = (struct rlimit){s.len + 10000, was.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
    int rc = send_put(1, 100, s.len, false, 5, &t);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(rc, -ENOSPC);
    expect_file(100, &s);
    assert_int_equal(send_put(1, 100, s.len, false, 5, &t), 0);
    memcpy(s.p + s.len, t.p, t.len);
    s.len += t.len;
    expect_file(100, &s);
}

/* kill -9 in the middle of a write; then the rest comes again. */
static void test_torn_end(void **state)
{
    struct sheet s, t;
    char path[256];
    struct stat st;

    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    put_whole(100, &s);
    file_of(path, sizeof(path), 100);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    chunkd_rig_chunkd_stop(1);
    t.len = 0;
    put_record(&t, NAMES_ENTRY, 101, 100, 200);
    int fd = open(path, O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, t.p, 100), 100);
    close(fd);
    chunkd_rig_chunkd_start(1, 1);
    assert_int_equal(send_put(1, 0, 0, false, 5, NULL), 0);
    assert_int_equal(answer.size, s.len);
    assert_true(answer.whole);
    assert_int_equal(send_put(1, 100, s.len, false, 5, &t), 0);
    memcpy(s.p + s.len, t.p, t.len);
    s.len += t.len;
    expect_file(100, &s);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, s.len);
}

/* A power cut right after a file was begun. */
static void test_begun_and_not_written(void **state)
{
    struct sheet s;
    char path[2][256];

    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    put_whole(100, &s);
    chunkd_rig_chunkd_stop(1);
    for (unsigned i = 0; i < 2; i++) {
        file_of(path[i], sizeof(path[i]), 200 + i);
        int fd = open(path[i], O_WRONLY | O_CREAT | O_EXCL, 0600);
        assert_int_equal(ftruncate(fd, 5000 * i), 0);
        close(fd);
    }
    chunkd_rig_chunkd_start(1, 1);
    expect_file(100, &s);
    assert_int_not_equal(access(path[0], F_OK), 0);
    assert_int_not_equal(access(path[1], F_OK), 0);
}

static void test_damaged_and_foreign_files(void **state)
{
    struct sheet s, other;
    char path[256];

    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    put_whole(100, &s);
    put_whole(200, &s);
    chunkd_rig_chunkd_stop(1);
    file_of(path, sizeof(path), 200); /* a flipped bit in the state: it is not whole any more */
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "\xff", 1, NAMES_HEADER + NAMES_RECORD + 5), 1);
    close(fd);
    file_of(path, sizeof(path), 300); /* another cluster's, left by somebody: not served */
    put_header(&other, 300, 5, "99999999-2222-3333-4444-555555555555");
    put_state(&other, 1000);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, other.p, other.len), (ssize_t)other.len);
    close(fd);
    chunkd_rig_chunkd_start(1, 1);
    assert_int_equal(send_put(1, 0, 0, false, 5, NULL), 0);
    assert_int_equal(answer.generation, 100);
    assert_int_equal(get_as(RPC_ROLE_METAD, 300, 0, NULL), -ENOENT);
    assert_int_equal(access(path, F_OK), 0);
}

/* The bytes count as used on their disk. */
static void test_bytes_are_counted(void **state)
{
    struct disk_info before, after;

    (void)state;
    chunkd_rig_chunkd_start(1, 1);
    chunkd_rig_chunkd_stop(1);
    char dir[128], *dirs[1] = {dir};
    snprintf(dir, sizeof(dir), "%s/1-0", chunkd_rig.dir);
    struct disks_config cfg = {
        .dirs = dirs, .ndirs = 1, .segment_size = 16u << 20, .capacity = 1ull << 30};
    struct disks *d;
    assert_int_equal(disks_new(&cfg, &d), 0);
    disks_poll(d, &before);
    disk_set_extra(disks_at(d, 0), 100u << 20);
    disks_poll(d, &after);
    assert_int_equal(after.used, before.used + (100u << 20));
    assert_true(after.avail <= before.avail - (100u << 20) || after.avail < (924ull << 20));
    disks_free(d);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, chunkd_rig_setup, chunkd_rig_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_put_and_get),
        TEST(test_what_does_not_fit),
        TEST(test_two_whole_ones_stay),
        TEST(test_old_term_is_remembered),
        TEST(test_full_disk),
        TEST(test_torn_end),
        TEST(test_begun_and_not_written),
        TEST(test_damaged_and_foreign_files),
        TEST(test_bytes_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
