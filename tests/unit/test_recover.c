/* replfs-metad --recover: which copy of those that chunkds have becomes metad's directory, and in which term; with real
 * chunkds. What a directory is made of is tried by test_names_file.c. */
#include <dirent.h>
#include <fcntl.h>

#include "base/byteorder.h"
#include "chunkd_rig.h"
#include "metad/backup/recover.h"
#include "metad/log/entry.h"
#include "metad/log/mlog.h"
#include "names_rig.h"

static char dir[160];

/* A whole file of that generation and term on a chunkd, with entries up to an index. */
static void put_copy(unsigned chunkd, uint64_t generation, uint64_t term, uint64_t upto)
{
    struct sheet s;
    uint8_t buf[64];

    put_header(&s, generation, term, CHUNKD_RIG_CLUSTER);
    put_state(&s, 3000);
    for (uint64_t i = generation + 1; i <= upto; i++) {
        size_t pos = entry_put(buf, ENTRY_HEADER, "command", 7);
        size_t len = entry_finish(buf, pos, 1, i, ENTRY_VERSION);
        names_record_make(NAMES_ENTRY, i, i - 1, 1, buf, (uint32_t)len, s.p + s.len);
        memcpy(s.p + s.len + NAMES_RECORD, buf, len);
        s.len += NAMES_RECORD + len;
    }
    assert_int_equal(send_put(chunkd, generation, 0, true, term, &s), 0);
    assert_true(answer.whole);
    assert_int_equal(answer.reached, upto);
}

static int recover(unsigned chunkds)
{
    struct rpc_config rc = {.role = RPC_ROLE_METAD, .name = "metad", .threads = 1};
    char addr[CHUNKD_RIG_NODES + 1][128], *list[CHUNKD_RIG_NODES + 1];
    struct config_list from = {.items = list, .n = chunkds};
    struct rpc_loop *loop;

    for (unsigned i = 0; i < chunkds; i++) {
        snprintf(addr[i], sizeof(addr[i]), "%s", chunkd_addr(chunkd_rig.chunkd[i + 1]));
        list[i] = addr[i];
    }
    snprintf(dir, sizeof(dir), "%s/metad", chunkd_rig.dir);
    assert_int_equal(rpc_loop_new(&rc, &loop), 0);
    int code = recover_from_chunkds(loop, &from, dir);
    rpc_loop_free(loop);
    return code;
}

static void expect_made_of(uint64_t generation)
{
    char path[MLOG_PATH_MAX];

    assert_int_equal(mlog_ckpt_path(path, sizeof(path), dir, generation), 0);
    assert_int_equal(access(path, F_OK), 0);
}

static uint64_t term_of_dir(void)
{
    char path[256];
    uint8_t p[32];

    snprintf(path, sizeof(path), "%s/log/metadata1", dir);
    int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, p, sizeof(p)), sizeof(p));
    close(fd);
    return le_get64(p + 16);
}

static void begin(unsigned chunkds)
{
    for (unsigned i = 1; i <= chunkds; i++)
        chunkd_rig_chunkd_start(i, 1);
    log_init("test", LOG_LVL_ERROR, NULL);
}

/* Nobody recovers what lives: only when the chunkds have noticed that metad is gone. */
static void recover_without_metad(unsigned chunkds)
{
    assert_int_equal(recover(chunkds), -EBUSY);
    chunkd_rig_metad_stop();
    WAIT_UNTIL(recover(chunkds) != -EBUSY);
    assert_true(mlog_dir_made(dir));
}

static void test_furthest(void **state)
{
    (void)state;
    begin(3);
    put_copy(1, 100, 5, 110);
    put_copy(2, 90, 5, 130);
    put_copy(3, 120, 5, 120);
    recover_without_metad(3);
    expect_made_of(90);
}

/* Of the copies of an earlier life none counts, however far they reach. */
static void test_newest_life(void **state)
{
    (void)state;
    begin(2);
    put_copy(1, 100, 999999, 130);
    put_copy(2, 90, NAMES_LIFE, 110);
    recover_without_metad(2);
    expect_made_of(90);
}

/* They are better than nothing. */
static void test_older_life_alone(void **state)
{
    struct sheet s;

    (void)state;
    begin(2);
    put_copy(1, 100, 999999, 130);
    put_header(&s, 90, NAMES_LIFE, CHUNKD_RIG_CLUSTER); /* begun, never whole */
    assert_int_equal(send_put(2, 90, 0, true, NAMES_LIFE, &s), 0);
    recover_without_metad(2);
    expect_made_of(100);
}

/* In a term above all that a chunkd has heard of, whoever has no copy: else it would obey nobody. */
static void test_term(void **state)
{
    const uint64_t far = (uint64_t)(clock_wall() / NSEC_PER_SEC + 1000000) * NAMES_LIFE;

    (void)state;
    begin(2);
    put_copy(1, 100, 5, 110);
    assert_int_equal(send_put(2, 0, 0, false, far + 17, NULL), 0); /* asked by one of that term */
    recover_without_metad(2);
    assert_true(term_of_dir() > far + 17);
    assert_true(term_of_dir() % NAMES_LIFE == 0);
}

/* A chunkd that is away may have more: said, and no hindrance. */
static void test_without_copies(void **state)
{
    (void)state;
    begin(1);
    assert_int_equal(recover(1), -EBUSY);
    chunkd_rig_metad_stop();
    WAIT_UNTIL(recover(1) != -EBUSY);
    assert_int_equal(recover(1), -ENOENT);
    assert_false(mlog_dir_made(dir));
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, chunkd_rig_setup, chunkd_rig_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_furthest), TEST(test_newest_life),    TEST(test_older_life_alone),
        TEST(test_term),     TEST(test_without_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
