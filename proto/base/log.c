/* Log lines. One line is formatted on the stack and written by one write(2), so that lines of
 * several threads (and of several processes on one O_APPEND file) do not mix. Control characters in
 * the text are replaced: peers' strings end up here.
 *
 * Threads: program and descriptor are set by log_init before threads start and only read
 * afterwards; log_reopen puts another file behind the same descriptor. Level and modules may change at any
 * time: the list in use is one of two, the other one is filled and then taken. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 2048

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static struct {
    char program[32];
    _Atomic enum log_level level;
    int fd;
    char lists[2][256];          /* of modules: ",mod,mod," or "," */
    _Atomic(const char *) debug; /* the one in use */
} state = {
    .level = LOG_LVL_INFO, .fd = STDERR_FILENO, .lists = {",", ","}, .debug = state.lists[0]};

static int open_file(const char *file)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    return fd < 0 ? -errno : fd;
}

int log_init(const char *program, enum log_level level, const char *file)
{
    snprintf(state.program, sizeof(state.program), "%s", program ? program : "");
    state.level = level;
    if (!file)
        return 0;
    int fd = open_file(file);
    if (fd < 0)
        return fd;
    if (state.fd != STDERR_FILENO)
        close(state.fd);
    state.fd = fd;
    return 0;
}

int log_reopen(const char *file)
{
    int fd = open_file(file);
    if (fd < 0)
        return fd;
    int rc = dup3(fd, state.fd, state.fd == STDERR_FILENO ? 0 : O_CLOEXEC) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

void log_set_level(enum log_level level)
{
    state.level = level;
}

int log_parse_level(const char *s, enum log_level *out)
{
    for (int i = 0; i <= LOG_LVL_DEBUG; i++) {
        if (!strcmp(s, level_names[i])) {
            *out = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

void log_set_debug(const char *modules)
{
    char *unused = state.debug == state.lists[0] ? state.lists[1] : state.lists[0];
    snprintf(unused, sizeof(state.lists[0]), ",%s,", modules ? modules : "");
    state.debug = unused;
}

bool log_enabled(enum log_level level, const char *module)
{
    char key[48];

    if (level <= state.level)
        return true;
    const char *debug = state.debug;
    if (level != LOG_LVL_DEBUG || !debug[1])
        return false;
    if (strstr(debug, ",all,"))
        return true;
    snprintf(key, sizeof(key), ",%s,", module);
    return strstr(debug, key) != NULL;
}

static size_t put_prefix(char *line, size_t cap, enum log_level level, const char *module)
{
    struct timespec ts;
    struct tm tm;

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(line, cap, "%Y-%m-%dT%H:%M:%S", &tm);
    int m = snprintf(line + n, cap - n, ".%03ldZ %-5s %s%s%s: ", ts.tv_nsec / 1000000,
                     level_names[level], state.program, state.program[0] ? " " : "", module);
    return m > 0 ? n + (size_t)m : n;
}

void log_line(enum log_level level, const char *module, const char *fmt, ...)
{
    char line[LINE_MAX_BYTES];
    int saved = errno;

    if (!log_enabled(level, module))
        return;
    size_t n = put_prefix(line, sizeof(line) / 2, level, module);
    if (n > sizeof(line) / 2)
        n = sizeof(line) / 2 - 1;
    size_t room = sizeof(line) - 1 - n; /* one byte is for the newline */
    va_list ap;
    va_start(ap, fmt);
    int m = vsnprintf(line + n, room, fmt, ap);
    va_end(ap);
    size_t end = n + (m < 0 ? 0 : (size_t)m < room ? (size_t)m : room - 1);
    for (size_t i = n; i < end; i++) {
        if ((unsigned char)line[i] < 32 || line[i] == 127)
            line[i] = line[i] == '\n' || line[i] == '\t' ? ' ' : '?';
    }
    line[end++] = '\n';
    /* Nowhere to report a failing log: the program goes on. */
    ssize_t rc = write(state.fd, line, end);
    (void)rc;
    errno = saved;
}
