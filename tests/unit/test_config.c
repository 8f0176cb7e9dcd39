/* Options from the command line and from a file: values, precedence, limits and messages. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/config.h"

static char *name;
static struct config_list dirs;
static bool insecure, init;
static uint64_t threads, size, beat;

static const struct config_opt opts[] = {
    {"name", CONFIG_STRING, &name, "NAME", "a name", 0, 0, false},
    {"data", CONFIG_LIST, &dirs, "DIR", "a directory", 0, 0, false},
    {"insecure", CONFIG_BOOL, &insecure, NULL, "plaintext", 0, 0, false},
    {"init", CONFIG_BOOL, &init, NULL, "make one", 0, 0, true},
    {"threads", CONFIG_UINT, &threads, "N", "threads", 1, 64, false},
    {"segment-size", CONFIG_SIZE, &size, "SIZE", "bytes", 4096, 0, false},
    {"heartbeat", CONFIG_MSEC, &beat, "TIME", "interval", 10, 60000, false},
    {NULL, 0, NULL, NULL, NULL, 0, 0, false},
};

static char *rest_first;
static int nrest;
static bool exit_now;
static char messages[2048];

/* Parses a NULL-terminated list of arguments, catching stderr. */
static int parse(const char *file, ...)
{
    static char *argv[32];
    char **rest;
    int argc = 0, rc, fds[2], saved = dup(2);
    va_list ap;

    config_free(opts);
    name = (char *)(uintptr_t) "default";
    insecure = init = false;
    threads = 2;
    size = 8192;
    beat = 1000;
    argv[argc++] = (char *)(uintptr_t) "prog";
    va_start(ap, file);
    while ((argv[argc] = va_arg(ap, char *)) != NULL)
        argc++;
    va_end(ap);
    assert_int_equal(pipe(fds), 0);
    dup2(fds[1], 2);
    close(fds[1]);
    rc = config_parse(opts, "prog", "Usage: prog\n", file, argc, argv, &rest, &nrest, &exit_now);
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    ssize_t n = read(fds[0], messages, sizeof messages - 1);
    messages[n > 0 ? n : 0] = '\0';
    close(fds[0]);
    rest_first = nrest ? rest[0] : NULL;
    return rc;
}

static char path[64];

static const char *file_with(const char *text)
{
    snprintf(path, sizeof path, "/tmp/replfs-config-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    return path;
}

static void test_defaults(void **state)
{
    (void)state;
    assert_int_equal(parse("/nonexistent/prog.conf", NULL), 0);
    assert_string_equal(name, "default");
    assert_int_equal(threads, 2);
    assert_int_equal(nrest, 0);
    assert_false(exit_now);
}

static void test_flags(void **state)
{
    (void)state;
    assert_int_equal(parse(NULL, "--name", "x", "pos", "--data=/a, /b", "--data", "/c",
                           "--insecure", "--init=no", "--threads=7", "--segment-size", "64K",
                           "--heartbeat=500ms", "--", "--name", NULL),
                     0);
    assert_string_equal(name, "x");
    assert_int_equal(dirs.n, 3);
    assert_string_equal(dirs.items[0], "/a");
    assert_string_equal(dirs.items[1], "/b");
    assert_string_equal(dirs.items[2], "/c");
    assert_true(insecure);
    assert_false(init);
    assert_int_equal(threads, 7);
    assert_int_equal(size, 65536);
    assert_int_equal(beat, 500);
    assert_int_equal(nrest, 2);
    assert_string_equal(rest_first, "pos");
}

static void test_file_and_precedence(void **state)
{
    const char *f =
        file_with("# comment\nthreads = 3\n[other]\nname = wrong\n[prog]\n"
                  "name = filed\ndata = /f1\ndata = /f2\nheartbeat = 2s\ninsecure = yes\n");

    (void)state;
    assert_int_equal(parse(f, NULL), 0);
    assert_string_equal(name, "filed");
    assert_int_equal(threads, 3);
    assert_int_equal(dirs.n, 2);
    assert_int_equal(beat, 2000);
    assert_true(insecure);
    assert_int_equal(parse(f, "--name=flag", "--data=/x", "--insecure=no", NULL), 0);
    assert_string_equal(name, "flag");
    assert_int_equal(dirs.n, 1);
    assert_string_equal(dirs.items[0], "/x");
    assert_false(insecure);
    /* --config replaces the default file. */
    assert_int_equal(parse("/nonexistent", "--config", f, NULL), 0);
    assert_string_equal(name, "filed");
    unlink(f);
    assert_int_equal(parse(NULL, "--config", f, NULL), -EINVAL);
    assert_non_null(strstr(messages, f));
}

static void expect(int rc, const char *part)
{
    assert_int_equal(rc, -EINVAL);
    if (!strstr(messages, part))
        fail_msg("'%s' does not say '%s'", messages, part);
}

static void test_mistakes(void **state)
{
    (void)state;
    expect(parse(NULL, "--nope", NULL), "command line: unknown option '--nope'");
    expect(parse(NULL, "-x", NULL), "unknown option '-x'");
    expect(parse(NULL, "--name", NULL), "'--name' needs a value");
    expect(parse(NULL, "--threads=zero", NULL), "'zero' is not a whole number");
    expect(parse(NULL, "--threads=65", NULL), "allowed: 1 to 64");
    expect(parse(NULL, "--threads=0", NULL), "allowed: 1 to 64");
    expect(parse(NULL, "--segment-size=1", NULL), "at least 4096 bytes");
    expect(parse(NULL, "--heartbeat=5x", NULL), "500ms, 10s, 2m or 1h");
    expect(parse(NULL, "--insecure=maybe", NULL), "yes or no");
}

static void expect_file(const char *text, const char *part)
{
    const char *f = file_with(text);
    int rc = parse(f, NULL);
    unlink(f);
    expect(rc, part);
}

static void test_file_mistakes(void **state)
{
    char line[400];

    (void)state;
    expect_file("name = a\nthreads = x\n", ":2: option 'threads': 'x'");
    expect_file("\n\nnope = a\n", ":3: unknown option 'nope'");
    expect_file("init = yes\n", "command line only");
    expect_file("name = a\nname = b\n", ":2: option 'name' is given twice");
    expect_file("name\n", ":1: not understood");
    memset(line, 'a', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    memcpy(line, "name = ", 7);
    expect_file(line, "line longer than");
}

static void test_numbers(void **state)
{
    uint64_t v;

    (void)state;
    assert_int_equal(config_parse_size("512", &v), 0);
    assert_int_equal(v, 512);
    assert_int_equal(config_parse_size("2g", &v), 0);
    assert_true(v == 2ull << 30);
    assert_int_equal(config_parse_size("3TiB", &v), 0);
    assert_true(v == 3ull << 40);
    assert_int_equal(config_parse_size("18446744073709551615", &v), 0);
    assert_int_equal(config_parse_size("18446744073709551616", &v), -ERANGE);
    assert_int_equal(config_parse_size("99999999999T", &v), -ERANGE);
    assert_int_equal(config_parse_size("-1", &v), -EINVAL);
    assert_int_equal(config_parse_size("", &v), -EINVAL);
    assert_int_equal(config_parse_size("1.5G", &v), -EINVAL);
    assert_int_equal(config_parse_msec("10", &v), 0);
    assert_int_equal(v, 10000);
    assert_int_equal(config_parse_msec("2m", &v), 0);
    assert_int_equal(v, 120000);
    assert_int_equal(config_parse_msec("1h", &v), 0);
    assert_int_equal(v, 3600000);
    assert_int_equal(config_parse_msec("1y", &v), -EINVAL);
}

static void test_help(void **state)
{
    (void)state;
    /* Help and version win over mistakes behind them; the text goes to stdout. */
    int saved = dup(1), null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    int rc = parse(NULL, "--help", "--nope", NULL);
    bool e1 = exit_now;
    int rc2 = parse(NULL, "--version", NULL);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    close(null);
    assert_int_equal(rc, 0);
    assert_true(e1);
    assert_int_equal(rc2, 0);
    assert_true(exit_now);
}

static int teardown(void **state)
{
    (void)state;
    config_free(opts);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_file_and_precedence),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_file_mistakes),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
