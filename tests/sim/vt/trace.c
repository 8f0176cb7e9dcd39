/* base/log.h by virtual time: lines go to stderr when the run is traced, with the process they come from. */
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "fiber.h"

static enum log_level level = LOG_LVL_ERROR;
static bool quiet = true;

int log_init(const char *program, enum log_level l, const char *file)
{
    (void)program, (void)file;
    level = l;
    quiet = false;
    return 0;
}

int log_reopen(const char *file)
{
    (void)file;
    return 0;
}

void log_set_level(enum log_level l)
{
    level = l;
}

int log_parse_level(const char *s, enum log_level *out)
{
    (void)s;
    *out = LOG_LVL_DEBUG;
    return 0;
}

void log_set_debug(const char *modules)
{
    (void)modules;
}

bool log_enabled(enum log_level l, const char *module)
{
    (void)module;
    return !quiet && l <= level;
}

void log_line(enum log_level l, const char *module, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    if (!log_enabled(l, module))
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fprintf(stderr, "%12.6f %-8s %s/%s: %s\n", (double)vt_now() / 1e9,
            vt_proc() ? vt_proc()->name : "-", module, vt_fiber_name(vt_self()), text);
}
