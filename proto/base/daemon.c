/* A daemon's log, pid file and signals. Bad options are answered on standard error, since there is no log
 * yet; a pid file that cannot be written is for the log. SIGHUP is what logrotate(8) and administrators
 * send to make a daemon take a look at its files again: whatever is wrong with them, it goes on as before. */
#include "base/daemon.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
#include "error.h"
#include "log.h"

#define LOG_MODULE "main"

int daemon_log(const char *program, const char *level, const char *file, const char *debug)
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

int daemon_pid_file(const char *path)
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

unsigned daemon_raise_files(void)
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

void daemon_block_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, set, NULL);
}

void daemon_unblock_signals(const sigset_t *set)
{
    signal(SIGHUP, SIG_IGN);
    pthread_sigmask(SIG_UNBLOCK, set, NULL);
}

static void reload_config(const struct daemon_reload *r)
{
    static const char *const names[] = {"log-level", "debug", NULL};
    enum log_level level = LOG_LVL_INFO;
    int rc = r->log_file ? log_reopen(r->log_file) : 0;
    if (rc != 0)
        log_error("--log-file=%s cannot be opened again: %s; going on in the former file",
                  r->log_file, err_str(rc));
    rc = config_reload(r->opts, r->program, r->default_file, r->argc, r->argv, names);
    if (rc == 0 && *r->log_level)
        rc = log_parse_level(*r->log_level, &level);
    if (rc == 0) {
        log_set_level(level);
        log_set_debug(*r->debug);
    } else {
        log_error(
            "SIGHUP: the configuration file has a mistake (%s --config=FILE names it), or its "
            "log-level is none of error, warn, info and debug: both stay as they were",
            r->program);
    }
    if (r->more)
        r->more(r->arg);
    log_info("SIGHUP: looked again at %sthe log level%s", r->log_file ? "the log file, " : "",
             r->more ? " and the certificates" : "");
}

int daemon_wait(const sigset_t *set, const struct daemon_reload *r)
{
    int sig;
    for (;;) {
        if (sigwait(set, &sig) != 0)
            continue;
        if (sig != SIGHUP)
            return sig;
        reload_config(r);
    }
}
