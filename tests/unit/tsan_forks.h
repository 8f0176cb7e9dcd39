/* For tests whose process has children while it has threads, as metad does for checkpoints and digests: when such a child
 * ends, ThreadSanitizer shall not look for threads that its parent had not joined yet. */
#ifndef REPLFS_TESTS_TSAN_FORKS_H
#define REPLFS_TESTS_TSAN_FORKS_H
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "report_thread_leaks=0";
}
#endif
#endif
