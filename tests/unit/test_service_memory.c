/* metad above the ceiling of its memory: what makes the state grow is refused, all else goes on, and
 * health says so. */
#define MAX_MEMORY (512u << 20)
#define LEASE_MS 20000u /* longer than the test */
#include "tests/unit/service_rig.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define BALLOON (600u << 20)

static struct one_result create(const char *name)
{
    return make_name(1, name, S_IFREG | 0644);
}

static uint32_t attribute(uint64_t ino, bool remove_it)
{
    Replfs__XattrOp x = REPLFS__XATTR_OP__INIT;

    x.ino = ino;
    x.name = bytes_of("user.x");
    x.value = bytes_of("value");
    x.remove = remove_it;
    return MUTATE(XATTR, xattr, &x).code;
}

static uint32_t reserve(uint64_t ino, uint32_t mode)
{
    Replfs__FallocateOp a = REPLFS__FALLOCATE_OP__INIT;

    a.ino = ino;
    a.mode = mode;
    a.len = 4096;
    return MUTATE(FALLOCATE, fallocate, &a).code;
}

static bool health_says_so(void)
{
    Replfs__StatusReq q = REPLFS__STATUS_REQ__INIT;
    struct rpc_result res = {0};
    bool said = false;

    RPC_ENVELOPE(env, STATUS_REQ, status_req, &q);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    const Replfs__StatusReply *s = res.rep->status_reply;
    for (size_t i = 0; i < s->n_problems; i++)
        said |= !strcmp(s->problems[i]->code, "metad-memory") && s->problems[i]->severity == 2;
    rpc_result_free(&res);
    return said;
}

/* Until creating files has this outcome. */
static void create_until(uint32_t code)
{
    int64_t until = clock_mono() + PATIENCE_MS * NSEC_PER_MSEC;
    static unsigned n;
    char name[32];

    do {
        snprintf(name, sizeof name, "more%u", n++);
        if (create(name).code == code)
            return;
        usleep(20000);
    } while (clock_mono() < until);
    fail_msg("creating files never had the outcome %u", code);
}

static void test_ceiling(void **state)
{
    Replfs__CommitOp commit = REPLFS__COMMIT_OP__INIT;
    Replfs__LinkOp link_op = REPLFS__LINK_OP__INIT;
    Replfs__CloneOp clone = REPLFS__CLONE_OP__INIT;
    Replfs__UnlinkOp unlink_op = REPLFS__UNLINK_OP__INIT;
    Replfs__SetattrOp chmod_op = REPLFS__SETATTR_OP__INIT;
    struct one_result f = create("f");

    (void)state;
    assert_int_equal(f.code, 0);
    assert_int_equal(attribute(f.ino, false), 0);
    assert_false(health_says_so());
    char *balloon = mmap(NULL, BALLOON, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(balloon != MAP_FAILED);
    memset(balloon, 1, BALLOON);
    create_until(ENOSPC);
    assert_int_equal(create("g").code, ENOSPC);
    link_op.ino = clone.dst = clone.src = commit.ino = chmod_op.ino = f.ino;
    link_op.parent = unlink_op.parent = 1;
    link_op.name = bytes_of("l");
    clone.len = 4096;
    assert_int_equal(MUTATE(LINK, link, &link_op).code, ENOSPC);
    assert_int_equal(MUTATE(CLONE, clone, &clone).code, ENOSPC);
    assert_int_equal(MUTATE(COMMIT, commit, &commit).code, ENOSPC);
    assert_int_equal(attribute(f.ino, false), ENOSPC);
    assert_int_equal(reserve(f.ino, 0), ENOSPC);
    /* what does not grow, or shrinks */
    chmod_op.valid = REPLFS__SETATTR_OP__VALID__MODE;
    chmod_op.mode = 0600;
    assert_int_equal(MUTATE(SETATTR, setattr, &chmod_op).code, 0);
    assert_int_equal(attribute(f.ino, true), 0);
    assert_int_equal(reserve(f.ino, 3), 0); /* punches */
    unlink_op.name = bytes_of("f");
    assert_int_equal(MUTATE(UNLINK, unlink, &unlink_op).code, 0);
    assert_true(health_says_so());
    munmap(balloon, BALLOON); /* it falls again */
    create_until(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ceiling, service_rig_setup, service_rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
