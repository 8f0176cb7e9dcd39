/* Options of a daemon: one table serves --flag, --flag=value and the config file (INI by inih, one
 * section named like the program), so both have the same names. Flags win over the file. */
#ifndef REPLFS_BASE_CONFIG_H
#define REPLFS_BASE_CONFIG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_type {
    CONFIG_STRING, /* char * (owned by the config, freed by config_free) */
    CONFIG_LIST,   /* struct config_list: may be given several times or comma-separated */
    CONFIG_BOOL,   /* bool; --flag, --flag=yes|no */
    CONFIG_UINT,   /* uint64_t */
    CONFIG_SIZE,   /* uint64_t bytes: 512, 64K, 10M, 2G, 1T (powers of 1024) */
    CONFIG_MSEC,   /* uint64_t milliseconds: 500ms, 10s, 2m, 1h; bare number is seconds */
};
struct config_list {
    char **items;
    size_t n;
};
struct config_opt {
    const char *name; /* long name without dashes; NULL ends the table */
    enum config_type type;
    void *value;       /* the variable; holds the default before parsing */
    const char *arg;   /* placeholder in --help, e.g. "DIR" */
    const char *help;  /* one line */
    uint64_t min, max; /* numbers: allowed range; max 0: no limit */
    bool flag_only;    /* not in the config file (e.g. --init) */
};

/* Parses argv after the config file named by --config (or default_file when it exists). Handles
 * --help and --version itself (prints, *exit_now = true). usage: text before the option list.
 * Positional arguments are left in *rest and *nrest (pointing into argv). Returns 0, or -EINVAL
 * after writing a message to stderr that names the option, the bad value, its place (file:line or
 * command line) and what is allowed. Not thread-safe. */
int config_parse(const struct config_opt *opts, const char *program, const char *usage,
                 const char *default_file, int argc, char **argv, char ***rest, int *nrest,
                 bool *exit_now);
/* Reads file and command line again, as config_parse did, for the options of these names (a list that ends
 * with NULL; strings without a default): theirs are replaced, what is said of others is checked only. Returns 0,
 * or -EINVAL after a message on stderr: then nothing has changed. Not thread-safe. */
int config_reload(const struct config_opt *opts, const char *program, const char *default_file,
                  int argc, char **argv, const char *const *names);
void config_free(const struct config_opt *opts);
int config_parse_size(const char *s, uint64_t *out); /* 0 or -EINVAL / -ERANGE */
int config_parse_msec(const char *s, uint64_t *out);
#endif
