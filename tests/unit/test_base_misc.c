/* Errors, checksums, buffers, log lines. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"

static void test_errors(void **state)
{
    (void)state;
    for (int code = ERR_NOT_LEADER; code <= ERR_OLD_TERM; code++) {
        assert_true(err_to_errno(code) > 0 && err_to_errno(code) < 200);
        assert_int_equal(err_to_errno(code), err_to_errno(-code));
        assert_int_equal(strncmp(err_str(-code), "ERR_", 4), 0);
    }
    assert_int_equal(err_to_errno(0), 0);
    assert_int_equal(err_to_errno(-ENOENT), ENOENT);
    assert_int_equal(err_to_errno(999999), EIO);
    assert_int_equal(err_to_errno(INT32_MIN), EIO);
    assert_string_equal(err_str(-ENOENT), strerror(ENOENT));
    assert_non_null(strstr(err_str(999999), "999999"));
    assert_non_null(err_str(INT32_MIN));
}

static void test_crc(void **state)
{
    uint8_t zeros[32] = {0}, ones[32], data[3 * CRC_BLOCK + 100], crcs[16];

    (void)state;
    assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283u);
    /* RFC 3720, B.4 */
    assert_int_equal(crc32c(0, zeros, 32), 0x8A9136AAu);
    memset(ones, 0xff, sizeof ones);
    assert_int_equal(crc32c(0, ones, 32), 0x62A8AB43u);
    assert_int_equal(crc32c(0, "", 0), 0);
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xE3069283u);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 31);
    assert_int_equal(crc_blocks(sizeof data), 4);
    crc_blocks_make(data, sizeof data, crcs);
    assert_int_equal(crc_blocks_check(data, sizeof data, crcs), -1);
    for (long b = 0; b < 4; b++) {
        data[b * CRC_BLOCK + 99] ^= 0x10;
        assert_int_equal(crc_blocks_check(data, sizeof data, crcs), b);
        data[b * CRC_BLOCK + 99] ^= 0x10;
    }
}

static void *buf_hammer(void *arg)
{
    struct buf *shared = arg;

    for (int i = 0; i < 2000; i++) {
        struct buf *b = buf_new((size_t)(i % 40) * 7000);
        assert_true(b->cap >= (size_t)(i % 40) * 7000);
        assert_int_equal((uintptr_t)b->data % 4096, 0);
        b->data[0] = (uint8_t)i;
        buf_unref(buf_ref(shared));
        buf_unref(b);
    }
    return NULL;
}

static void test_buf(void **state)
{
    pthread_t t[4];

    (void)state;
    struct buf *b = buf_new(100);
    assert_int_equal(b->len, 0);
    assert_int_equal(b->refs, 1);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, buf_hammer, b), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(b->refs, 1);
    buf_unref(b);
    b = buf_new(20u << 20); /* above every class */
    memset(b->data, 1, 20u << 20);
    buf_unrefp(&b);
    assert_null(buf_ref(NULL));
    buf_unref(NULL);
}

static void test_clock(void **state)
{
    (void)state;
    int64_t a = clock_mono(), b = clock_mono();
    assert_true(b >= a && a > 0);
    assert_true(clock_wall() > 1600000000ll * NSEC_PER_SEC);
}

static void test_log(void **state)
{
    char path[] = "/tmp/replfs-log-XXXXXX", text[8192], big[5000];
    enum log_level l;
    int fd = mkstemp(path);

    (void)state;
    assert_int_equal(log_parse_level("warn", &l), 0);
    assert_int_equal(l, LOG_LVL_WARN);
    assert_int_equal(log_parse_level("loud", &l), -EINVAL);
    assert_int_equal(log_init("prog", LOG_LVL_INFO, "/nonexistent/x"), -ENOENT);
    assert_int_equal(log_init("prog", LOG_LVL_INFO, path), 0);
    log_line(LOG_LVL_INFO, "mod", "number %d\nnext \033[1m", 5);
    log_line(LOG_LVL_DEBUG, "mod", "hidden");
    log_set_debug("other,mod");
    log_line(LOG_LVL_DEBUG, "mod", "shown");
    log_line(LOG_LVL_DEBUG, "mo", "hidden");
    log_set_debug(NULL);
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    log_line(LOG_LVL_ERROR, "mod", "%s", big);
    ssize_t n = read(fd, text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_non_null(strstr(text, "Z info  prog mod: number 5 next ?[1m\n"));
    assert_null(strstr(text, "hidden"));
    assert_non_null(strstr(text, "debug prog mod: shown\n"));
    assert_int_equal(text[n - 1], '\n');
    int lines = 0;
    for (ssize_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    assert_int_equal(lines, 3);
    assert_true(n < 3000); /* the long one was cut */
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors), cmocka_unit_test(test_crc), cmocka_unit_test(test_buf),
        cmocka_unit_test(test_clock),  cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
