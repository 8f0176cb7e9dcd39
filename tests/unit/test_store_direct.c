/* Reading past the page cache gives what reading gives, wherever it begins and however it is scattered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/hash.h"
#include "chunkd/store/direct.h"
#include "tests/unit/tree.h"

#define LEN (5u * 1024 * 1024 + 777)

static uint8_t want[LEN], got[LEN];

static void try_at(const char *where)
{
    char dir[200], path[256];
    int n = snprintf(dir, sizeof dir, "%s/direct.XXXXXX", where);
    assert_true(n > 0 && mkdtemp(dir));
    snprintf(path, sizeof path, "%s/file", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    for (size_t i = 0; i < LEN; i++)
        want[i] = (uint8_t)hash_u64(i / 8 + i % 3);
    assert_int_equal(write(fd, want, LEN), LEN);
    for (uint64_t i = 0; i < 300; i++) {
        uint64_t from = hash_u64(3 * i) % LEN, len = hash_u64(3 * i + 1) % (3u << 20) + 1,
                 cut = hash_u64(3 * i + 2) % len;
        len = len < LEN - from ? len : LEN - from;
        cut = cut < len ? cut : len - 1;
        struct iovec iov[3] = {{got, cut}, {got + cut, 0}, {got + cut, len - cut}};
        memset(got, 0, len);
        assert_int_equal(direct_read(fd, iov, 3, from), 0);
        assert_memory_equal(got, want + from, len);
    }
    struct iovec one = {got, 10};
    assert_int_equal(direct_read(fd, &one, 1, LEN - 9), -ERR_CORRUPT);
    assert_int_equal(direct_read(fd, &one, 1, LEN + 100000), -ERR_CORRUPT);
    /* written a moment ago, not on the disk yet */
    assert_int_equal(pwrite(fd, "0123456789", 10, 4090), 10);
    assert_int_equal(direct_read(fd, &one, 1, 4090), 0);
    assert_memory_equal(got, "0123456789", 10);
    close(fd);
    tree_remove(dir);
}

static void on_a_disk(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    try_at(tmp ? tmp : "/tmp");
}

static void in_memory(void **state)
{
    (void)state;
    try_at("/dev/shm");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(on_a_disk), cmocka_unit_test(in_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
