/* A test that waits for what never comes fails in a minute and says so, instead of holding up all others
 * until somebody kills the program: test_limit_begin() in its setup, test_limit_end() in its teardown. */
#ifndef REPLFS_TESTS_LIMIT_H
#define REPLFS_TESTS_LIMIT_H
#include <signal.h>
#include <unistd.h>

#define TEST_LIMIT_S 60

static void test_limit_over(int sig)
{
    static const char text[] = "the test that runs waits for more than 60 s: it fails\n";
    ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)sig, (void)n;
    _exit(1);
}

static void test_limit_begin(void)
{
    signal(SIGALRM, test_limit_over);
    alarm(TEST_LIMIT_S);
}

static void test_limit_end(void)
{
    alarm(0);
}
#endif
