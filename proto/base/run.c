/* A daemon's log and pid file. Bad options are answered on standard error, since there is no log
 * yet; a pid file that cannot be written is for the log. */
#include "run.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
#include "error.h"
#include "log.h"

#define LOG_MODULE "main"

int run_log(const char *program, const char *level, const char *file, const char *debug)
{
    enum log_level parsed = LOG_LVL_INFO;
    if (level && log_parse_level(level, &parsed) != 0) {
        fprintf(stderr, "%s: --log-level=%s: must be error, warn, info or debug\n", program, level);
        return -EINVAL;
    }
    int rc = log_init(program, parsed, file);
    if (rc != 0)
        fprintf(stderr, "%s: --log-file=%s: %s\n", program, file ? file : "", err_str(rc));
    if (debug)
        log_set_debug(debug);
    return rc;
}

int run_pid_file(const char *path)
{
    if (!path)
        return 0;
    FILE *f = fopen(path, "we");
    int rc = f && fprintf(f, "%ld\n", (long)getpid()) > 0 ? 0 : -errno;
    if (f && fclose(f) != 0)
        rc = -errno;
    if (rc != 0)
        log_error("--pid-file=%s: %s", path, err_str(rc));
    return rc;
}

#define FILES_MAX (1u << 20) /* as many as nobody needs: a limit may be "none" */

unsigned run_raise_files(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return 256;
    rlim_t want = r.rlim_max < FILES_MAX ? r.rlim_max : FILES_MAX, had = r.rlim_cur;
    if (had < want) {
        r.rlim_cur = want;
        if (setrlimit(RLIMIT_NOFILE, &r) != 0) {
            log_warn("the limit of open files stays at %llu: %s", (unsigned long long)had,
                     err_str(-errno));
            r.rlim_cur = had;
        }
    }
    return r.rlim_cur < FILES_MAX ? (unsigned)r.rlim_cur : FILES_MAX;
}
