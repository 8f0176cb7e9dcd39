/* Log lines for daemons and tools: "2026-01-02T03:04:05.678Z info  program module: text". One
 * write(2) a line to stderr or a file. Any thread. */
#ifndef REPLFS_BASE_LOG_H
#define REPLFS_BASE_LOG_H
#include <stdbool.h>

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };

/* program names the process in each line; level is the most verbose shown. file NULL: stderr.
 * Returns 0 or -errno (file cannot be opened). Call once before threads start. */
int log_init(const char *program, enum log_level level, const char *file);
/* Goes on in a new file of that name, whatever took the former one's place; lines go to the one or the other
 * entirely. 0, or -errno: the former file stays. Any thread, any time. */
int log_reopen(const char *file);
/* Changes the level. Any thread, any time. */
void log_set_level(enum log_level level);
int log_parse_level(const char *s, enum log_level *out); /* "error|warn|info|debug"; 0 or -EINVAL */
/* Comma list of modules whose debug lines are shown even at a lower level; "all". One thread at a time. */
void log_set_debug(const char *modules);
bool log_enabled(enum log_level level, const char *module);
void log_line(enum log_level level, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Each .c file defines LOG_MODULE before using these. */
#define log_error(...) log_line(LOG_LVL_ERROR, LOG_MODULE, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LVL_WARN, LOG_MODULE, __VA_ARGS__)
#define log_info(...) log_line(LOG_LVL_INFO, LOG_MODULE, __VA_ARGS__)
#define log_debug(...)                                                                             \
    do {                                                                                           \
        if (log_enabled(LOG_LVL_DEBUG, LOG_MODULE))                                                \
            log_line(LOG_LVL_DEBUG, LOG_MODULE, __VA_ARGS__);                                      \
    } while (0)
#endif
