/* Which computer this is: what stands in /etc/machine-id and is none. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_machine_id)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
