/* Version 1 of checkpoints and log entries, as the program wrote them that knew no other: both are
 * still read. tests/data/v1/log holds 59 entries with 295 commands (every operation there was,
 * refusals and repeats included), tests/data/v1/checkpoint the state that the former program had
 * after them. Replaying the log must give the state in the checkpoint, or a metad that starts from
 * an older checkpoint than another would differ from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include "base/le.h"
#include "metad/entry.h"
#include "metad/fsm_format.h"
#include "tests/unit/fsm_rig.h"

#define ENTRIES 59u
#define COMMANDS 295u

static int open_data(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/v1/%s", TEST_DATA, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail_msg("%s: %s", path, strerror(errno));
    return fd;
}

static struct fsm *load(void)
{
    struct fsm *f;
    char why[256];
    uint8_t head[CKPT_HEADER];
    int fd = open_data("checkpoint");
    assert_int_equal(read(fd, head, sizeof head), sizeof head);
    assert_int_equal(le_get32(head + 8), 1);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(fsm_new(&f), 0);
    if (fsm_load(f, fd, why) != 0)
        fail_msg("%s", why);
    close(fd);
    return f;
}

static void apply_entry(struct fsm *f, const uint8_t *p, size_t size, uint64_t *index)
{
    struct entry e;
    struct fsm_result res;
    const char *why;
    const uint8_t *cmd;
    size_t len;

    assert_int_equal(le_get16(p + 4), 1);
    if (entry_open(p, size, &e, &why) != 0)
        fail_msg("entry behind command %u: %s", (unsigned)*index, why);
    while (entry_next(&e, &cmd, &len)) {
        Replfs__Command *c = replfs__command__unpack(NULL, len, cmd);
        assert_non_null(c);
        fsm_apply(f, ++*index, c, &res);
        replfs__command__free_unpacked(c, NULL);
    }
}

static struct fsm *replay(void)
{
    static uint8_t all[64u << 10];
    struct fsm *f;
    uint64_t index = 0;
    unsigned entries = 0;
    int fd = open_data("log");
    ssize_t n = read(fd, all, sizeof all);
    close(fd);
    assert_true(n > 0 && n < (ssize_t)sizeof all);
    assert_int_equal(fsm_new(&f), 0);
    for (size_t at = 0; at < (size_t)n; entries++) {
        assert_true((size_t)n - at >= ENTRY_HEADER);
        size_t size = (ENTRY_HEADER + le_get32(all + at + 16) + 7) & ~(size_t)7;
        assert_true(size <= (size_t)n - at);
        apply_entry(f, all + at, size, &index);
        at += size;
    }
    assert_int_equal(entries, ENTRIES);
    assert_int_equal(index, COMMANDS);
    return f;
}

static void test_checkpoint(void **state)
{
    (void)state;
    struct rig r = {.f = load(), .session = 7, .seq = 6};
    struct fsm_counts n;
    assert_int_equal(fsm_applied(r.f), COMMANDS);
    fsm_counts(r.f, &n);
    assert_int_equal(n.files, 19);
    assert_int_equal(n.dirs, 9);
    assert_int_equal(n.orphans, 13);
    assert_int_equal(n.chunks, 9);
    assert_int_equal(n.bytes, 86132);
    assert_int_equal(n.sessions, 2);
    assert_int_equal(rig_unlink(&r, FSM_ROOT_INO, "gone", false), 0); /* answered from memory */
    assert_true(r.res.repeated);
    fsm_free(rig_reload(r.f)); /* as version 2 */
    rig_close(&r);
}

static void test_log(void **state)
{
    (void)state;
    struct fsm *f = load(), *g = replay();
    assert_int_equal(fsm_digest(f), fsm_digest(g));
    fsm_free(f);
    fsm_free(g);
}

/* What came with version 2 works on a state that began as version 1. */
static void test_goes_on(void **state)
{
    (void)state;
    struct rig r = {.f = load(), .index = COMMANDS, .session = 7, .next_ino = 1000};
    uint64_t a = rig_lookup(&r, FSM_ROOT_INO, "a");
    assert_true(a != 0);
    assert_int_equal(rig_setxattr(&r, a, "user.note", "new", 3, 0), 0);
    assert_true(rig_create(&r, a, "new", REG_MODE) > 0);
    fsm_free(rig_reload(r.f));
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_checkpoint),
                                       cmocka_unit_test(test_log), cmocka_unit_test(test_goes_on)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
