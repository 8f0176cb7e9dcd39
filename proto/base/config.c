/* Options of a daemon. Every value passes through one setter, whether it came from the command line
 * or from the file, so that limits and messages are the same. Each option remembers its source
 * (default, file, command line): a lower source never overrides a higher one, and the first value
 * of a higher source replaces what a lower one put there (for lists too).
 *
 * Read again (config_reload), everything goes to a table of its own first: a mistake changes nothing.
 *
 * Ownership: config_parse copies default strings and lists first, so that config_free may free
 * whatever it finds. Not thread-safe: runs before threads start. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_OPTS 64

enum source { FROM_DEFAULT, FROM_FILE, FROM_FLAG };

struct parser {
    const struct config_opt *opts;
    const char *program;
    enum source source[MAX_OPTS];
    const char *file; /* being read, or NULL: command line */
    FILE *fp;
    int line;
    int error; /* first one; its message is already printed */
};

/* ---- numbers ---- */

struct unit {
    const char *name;
    uint64_t factor;
};

static int parse_with_units(const char *s, const struct unit *units, uint64_t *out)
{
    uint64_t v = 0;

    if (*s < '0' || *s > '9')
        return -EINVAL;
    for (; *s >= '0' && *s <= '9'; s++) {
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *s - '0', &v))
            return -ERANGE;
    }
    for (const struct unit *u = units; u->name; u++) {
        if (!strcasecmp(s, u->name))
            return __builtin_mul_overflow(v, u->factor, out) ? -ERANGE : 0;
    }
    return -EINVAL;
}

int config_parse_size(const char *s, uint64_t *out)
{
    static const struct unit units[] = {
        {"", 1},           {"B", 1},
        {"K", 1ull << 10}, {"KiB", 1ull << 10},
        {"M", 1ull << 20}, {"MiB", 1ull << 20},
        {"G", 1ull << 30}, {"GiB", 1ull << 30},
        {"T", 1ull << 40}, {"TiB", 1ull << 40},
        {"P", 1ull << 50}, {NULL, 0},
    };
    return parse_with_units(s, units, out);
}

int config_parse_msec(const char *s, uint64_t *out)
{
    static const struct unit units[] = {
        {"ms", 1},      {"", 1000},      {"s", 1000}, {"m", 60000},
        {"h", 3600000}, {"d", 86400000}, {NULL, 0},
    };
    return parse_with_units(s, units, out);
}

static int parse_bool(const char *s, bool *out)
{
    static const char *const yes[] = {"yes", "true", "on", "1"};
    static const char *const no[] = {"no", "false", "off", "0"};

    for (size_t i = 0; i < 4; i++) {
        if (!strcasecmp(s, yes[i]) || !strcasecmp(s, no[i])) {
            *out = !strcasecmp(s, yes[i]);
            return 0;
        }
    }
    return -EINVAL;
}

/* ---- messages ---- */

static void complain(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void complain(struct parser *p, const char *fmt, ...)
{
    va_list ap;

    if (p->error)
        return; /* the first mistake is the one to mend */
    p->error = -EINVAL;
    if (p->file && p->line > 0)
        fprintf(stderr, "%s: %s:%d: ", p->program, p->file, p->line);
    else
        fprintf(stderr, "%s: %s: ", p->program, p->file ? p->file : "command line");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

static const char *allowed(enum config_type type)
{
    switch (type) {
    case CONFIG_BOOL:
        return "yes or no";
    case CONFIG_UINT:
        return "a whole number";
    case CONFIG_SIZE:
        return "a size such as 512, 64K, 10M, 2G or 1T";
    case CONFIG_MSEC:
        return "a time such as 500ms, 10s, 2m or 1h (a bare number is seconds)";
    case CONFIG_STRING:
    case CONFIG_LIST:
        break;
    }
    return "text";
}

/* ---- values ---- */

static char *copy_string(const char *s, size_t n)
{
    char *c = strndup(s, n);
    if (!c)
        abort();
    return c;
}

static void list_clear(struct config_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->items[i]);
    free(l->items);
    l->items = NULL;
    l->n = 0;
}

static void list_add(struct config_list *l, const char *s, size_t n)
{
    while (n > 0 && (*s == ' ' || *s == '\t')) {
        s++;
        n--;
    }
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
        n--;
    if (n == 0)
        return;
    char **items = realloc(l->items, (l->n + 1) * sizeof(*items));
    if (!items)
        abort();
    l->items = items;
    l->items[l->n++] = copy_string(s, n);
}

static void list_add_all(struct config_list *l, const char *s)
{
    for (;;) {
        size_t n = strcspn(s, ",");
        list_add(l, s, n);
        if (!s[n])
            return;
        s += n + 1;
    }
}

static void set_number(struct parser *p, const struct config_opt *o, const char *s)
{
    static const struct unit plain[] = {{"", 1}, {NULL, 0}};
    uint64_t v = 0;
    int rc = o->type == CONFIG_SIZE   ? config_parse_size(s, &v)
             : o->type == CONFIG_MSEC ? config_parse_msec(s, &v)
                                      : parse_with_units(s, plain, &v);

    if (rc == -EINVAL) {
        complain(p, "option '%s': '%s' is not %s", o->name, s, allowed(o->type));
        return;
    }
    if (rc < 0 || v < o->min || (o->max && v > o->max)) {
        const char *unit = o->type == CONFIG_SIZE ? " bytes" : o->type == CONFIG_MSEC ? " ms" : "";
        if (o->max)
            complain(p, "option '%s': %s is out of range; allowed: %llu to %llu%s", o->name, s,
                     (unsigned long long)o->min, (unsigned long long)o->max, unit);
        else
            complain(p, "option '%s': %s is out of range; allowed: at least %llu%s", o->name, s,
                     (unsigned long long)o->min, unit);
        return;
    }
    *(uint64_t *)o->value = v;
}

static void set_value(struct parser *p, size_t i, enum source from, const char *s)
{
    const struct config_opt *o = &p->opts[i];
    bool again = p->source[i] == from;

    if (p->source[i] > from)
        return;
    if (again && from == FROM_FILE && o->type != CONFIG_LIST) {
        complain(p, "option '%s' is given twice", o->name);
        return;
    }
    p->source[i] = from;
    switch (o->type) {
    case CONFIG_STRING:
        free(*(char **)o->value);
        *(char **)o->value = copy_string(s, strlen(s));
        return;
    case CONFIG_LIST:
        if (!again)
            list_clear(o->value);
        list_add_all(o->value, s);
        return;
    case CONFIG_BOOL:
        if (parse_bool(s, o->value) < 0)
            complain(p, "option '%s': '%s' is not %s", o->name, s, allowed(o->type));
        return;
    case CONFIG_UINT:
    case CONFIG_SIZE:
    case CONFIG_MSEC:
        set_number(p, o, s);
        return;
    }
}

static long find_opt(const struct parser *p, const char *name, size_t n)
{
    for (size_t i = 0; p->opts[i].name; i++) {
        if (strlen(p->opts[i].name) == n && !memcmp(p->opts[i].name, name, n))
            return (long)i;
    }
    return -1;
}

static void own_defaults(struct parser *p)
{
    for (size_t i = 0; p->opts[i].name; i++) {
        assert(i < MAX_OPTS);
        const struct config_opt *o = &p->opts[i];
        if (o->type == CONFIG_STRING && *(char **)o->value) {
            char **s = o->value;
            *s = copy_string(*s, strlen(*s));
        } else if (o->type == CONFIG_LIST) {
            struct config_list old = *(struct config_list *)o->value, fresh = {NULL, 0};
            for (size_t k = 0; k < old.n; k++)
                list_add(&fresh, old.items[k], strlen(old.items[k]));
            *(struct config_list *)o->value = fresh;
        }
    }
}

void config_free(const struct config_opt *opts)
{
    for (const struct config_opt *o = opts; o->name; o++) {
        if (o->type == CONFIG_STRING) {
            free(*(char **)o->value);
            *(char **)o->value = NULL;
        } else if (o->type == CONFIG_LIST) {
            list_clear(o->value);
        }
    }
}

/* ---- the file ---- */

/* inih's line source: counts lines, for messages. */
static char *read_line(char *str, int num, void *stream)
{
    struct parser *p = stream;

    if (p->error || !fgets(str, num, p->fp))
        return NULL;
    p->line++;
    size_t n = strlen(str);
    if (n > 0 && str[n - 1] != '\n' && !feof(p->fp)) {
        complain(p, "line longer than %d characters", num - 2);
        return NULL;
    }
    return str;
}

static int on_value(void *user, const char *section, const char *name, const char *value)
{
    struct parser *p = user;

    if (section[0] && strcmp(section, p->program) != 0)
        return 1; /* another program's section */
    long i = find_opt(p, name, strlen(name));
    if (i < 0)
        complain(p, "unknown option '%s'; %s --help lists them", name, p->program);
    else if (p->opts[i].flag_only)
        complain(p, "option '%s' is allowed on the command line only", name);
    else
        set_value(p, (size_t)i, FROM_FILE, value);
    return 1;
}

static void parse_file(struct parser *p, const char *path, bool required)
{
    p->file = path;
    p->line = 0;
    p->fp = fopen(path, "re");
    if (!p->fp) {
        if (required || errno != ENOENT)
            complain(p, "cannot read: %s", strerror(errno));
        p->file = NULL;
        return;
    }
    int rc = ini_parse_stream(read_line, p, on_value, p);
    if (rc != 0 && !p->error) {
        p->line = rc > 0 ? rc : p->line;
        complain(p, "not understood; expected '[section]' or 'name = value'");
    }
    fclose(p->fp);
    p->file = NULL;
}

/* ---- the command line ---- */

static void print_help(const struct config_opt *opts, const char *usage, const char *default_file)
{
    fputs(usage, stdout);
    fputs("\nOptions:\n", stdout);
    for (const struct config_opt *o = opts; o->name; o++) {
        char left[64];
        snprintf(left, sizeof(left), "--%s%s%s", o->name, o->type == CONFIG_BOOL ? "" : " ",
                 o->type == CONFIG_BOOL ? ""
                 : o->arg               ? o->arg
                                        : "VALUE");
        printf("  %-28s %s\n", left, o->help ? o->help : "");
    }
    printf("  %-28s %s%s%s\n", "--config FILE", "options from FILE",
           default_file ? " instead of " : "", default_file ? default_file : "");
    printf("  %-28s %s\n  %-28s %s\n", "--help", "this text", "--version",
           "version of this program");
}

/* The value of the flag at argv[*i], which has n characters of name; NULL after complaining. */
static const char *flag_value(struct parser *p, int argc, char **argv, int *i, const char *name,
                              size_t n)
{
    if (name[n] == '=')
        return name + n + 1;
    if (*i + 1 >= argc) {
        complain(p, "option '--%s' needs a value", name);
        return NULL;
    }
    return argv[++*i];
}

static void parse_flag(struct parser *p, int argc, char **argv, int *i, const char **config)
{
    const char *name = argv[*i] + 2;
    size_t n = strcspn(name, "=");
    bool is_config = n == 6 && !memcmp(name, "config", 6);
    long o = is_config ? -1 : find_opt(p, name, n);
    const char *v;

    if (o < 0 && !is_config) {
        complain(p, "unknown option '--%.*s'; %s --help lists them", (int)n, name, p->program);
        return;
    }
    if (o >= 0 && p->opts[o].type == CONFIG_BOOL)
        v = name[n] == '=' ? name + n + 1 : "yes";
    else
        v = flag_value(p, argc, argv, i, name, n);
    if (!v)
        return;
    if (is_config)
        *config = v;
    else
        set_value(p, (size_t)o, FROM_FLAG, v);
}

int config_parse(const struct config_opt *opts, const char *program, const char *usage,
                 const char *default_file, int argc, char **argv, char ***rest, int *nrest,
                 bool *exit_now)
{
    struct parser p = {.opts = opts, .program = program};
    const char *config = NULL;
    int kept = 1, i;

    *exit_now = false;
    own_defaults(&p);
    for (i = 1; i < argc && !p.error; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_help(opts, usage, default_file);
            *exit_now = true;
            return 0;
        }
        if (!strcmp(argv[i], "--version")) {
            printf("%s %s\n", program, REPLFS_VERSION);
            *exit_now = true;
            return 0;
        }
        if (!strcmp(argv[i], "--")) {
            i++;
            break;
        }
        if (!strncmp(argv[i], "--", 2))
            parse_flag(&p, argc, argv, &i, &config);
        else if (argv[i][0] == '-' && argv[i][1])
            complain(&p, "unknown option '%s'; %s --help lists them", argv[i], program);
        else
            argv[kept++] = argv[i];
    }
    for (; i < argc; i++)
        argv[kept++] = argv[i];
    if (!p.error && (config || default_file))
        parse_file(&p, config ? config : default_file, config != NULL);
    if (rest)
        *rest = argv + 1;
    if (nrest)
        *nrest = kept - 1;
    return p.error;
}

union any_value {
    char *string;
    struct config_list list;
    bool flag;
    uint64_t number;
};

static bool named(const char *const *names, const char *name)
{
    for (; *names; names++) {
        if (!strcmp(*names, name))
            return true;
    }
    return false;
}

int config_reload(const struct config_opt *opts, const char *program, const char *default_file,
                  int argc, char **argv, const char *const *names)
{
    union any_value fresh[MAX_OPTS] = {0};
    struct config_opt table[MAX_OPTS + 1] = {0};
    bool exit_now;

    for (size_t i = 0; opts[i].name; i++) {
        assert(i < MAX_OPTS);
        table[i] = opts[i];
        table[i].value = &fresh[i];
    }
    int rc = config_parse(table, program, "", default_file, argc, argv, NULL, NULL, &exit_now);
    for (size_t i = 0; rc == 0 && opts[i].name; i++) {
        if (!named(names, opts[i].name))
            continue;
        assert(opts[i].type == CONFIG_STRING);
        free(*(char **)opts[i].value);
        *(char **)opts[i].value = fresh[i].string;
        fresh[i].string = NULL;
    }
    config_free(table);
    return rc;
}
