/* Which computer this is: what stands in /etc/machine-id and is none. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/machine.h"

static int id_of(const char *text, char out[static MACHINE_ID_MAX])
{
    char path[] = "/tmp/replfs-machine.XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    int rc = machine_id_from(path, out);
    unlink(path);
    return rc;
}

static void test_machine_id(void **state)
{
    char id[MACHINE_ID_MAX];

    (void)state;
    assert_int_equal(id_of("0123456789abcdef0123456789abcdef\n", id), 0);
    assert_string_equal(id, "0123456789abcdef0123456789abcdef");
    assert_int_equal(id_of("uninitialized\n", id), -ENODATA);
    assert_string_equal(id, "");
    assert_int_equal(id_of("", id), -ENODATA);
    assert_int_equal(id_of("\n", id), -ENODATA);
    assert_int_equal(id_of("00000000000000000000000000000000\n", id), -ENODATA);
    assert_int_equal(machine_id_from("/nonexistent/machine-id", id), -ENOENT);
    assert_int_equal(machine_boot_id(id), 0);
    assert_true(strlen(id) >= 32);
}

static void put(const char *dir, const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void put_away(const char *dir, const char *name)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
    rmdir(dir);
}

/* A unit's own limit counts, a lower one above it does too, and no more than that. */
static void test_memory_of_a_cgroup(void **state)
{
    char root[] = "/tmp/replfs-cgroup.XXXXXX", own[64], sub[64], leaf[80];

    (void)state;
    assert_non_null(mkdtemp(root));
    snprintf(own, sizeof own, "%s/own", root);
    snprintf(sub, sizeof sub, "%s/system.slice", root);
    snprintf(leaf, sizeof leaf, "%s/metad.service", sub);
    assert_int_equal(mkdir(sub, 0700), 0);
    assert_int_equal(mkdir(leaf, 0700), 0);
    assert_true(machine_memory_from(own, root) == UINT64_MAX);
    put(root, "own", "1:name=systemd:/x\n0::/system.slice/metad.service\n");
    assert_true(machine_memory_from(own, root) == UINT64_MAX);
    put(sub, "memory.max", "max\n");
    put(leaf, "memory.max", "1000000\n");
    assert_int_equal(machine_memory_from(own, root), 1000000);
    put(sub, "memory.max", "2000000\n");
    assert_int_equal(machine_memory_from(own, root), 1000000);
    put(sub, "memory.max", "500000\n");
    assert_int_equal(machine_memory_from(own, root), 500000);
    put(root, "memory.max", "400000\n"); /* as a container sees its own */
    assert_int_equal(machine_memory_from(own, root), 400000);
    put(root, "own", "0::/\n");
    assert_int_equal(machine_memory_from(own, root), 400000);
    assert_true(machine_memory() > 0);
    put_away(leaf, "memory.max");
    put_away(sub, "memory.max");
    put_away(root, "memory.max");
    unlink(own);
    assert_int_equal(rmdir(root), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine_id),
        cmocka_unit_test(test_memory_of_a_cgroup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
