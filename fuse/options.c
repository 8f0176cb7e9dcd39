/* Mount options.
 *
 * One table names every option that is ours (with its type and variable), a second one the names
 * that belong to the kernel or to mount(8): the former go to libfuse, the latter are accepted and
 * dropped, since mount(8) has dealt with them before it called us (nofail, _netdev, x-systemd.*,
 * ...). A name in neither is refused, by name, with the list of what is known: a misspelt option
 * must not pass for a set one.
 *
 * -f means "stay in the foreground". mount(8) uses the same letter for a fake mount but never calls
 * a helper for one, so there is no clash in practice. */
#include "options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"

enum opt_kind { OPT_BOOL, OPT_NOT, OPT_STRING, OPT_SIZE, OPT_MSEC, OPT_UINT };
struct opt_def {
    const char *name;
    enum opt_kind kind;
    size_t offset;
    uint64_t min, max;
    const char *arg, *help;
};
#define OFF(field) offsetof(struct options, field)
static const struct opt_def own_opts[] = {
    {"timeout", OPT_MSEC, OFF(timeout_ms), 1000, 86400000, "TIME",
     "calls fail after so long without metad or chunkds (default 60s)"},
    {"silence", OPT_MSEC, OFF(silence_ms), 500, 3600000, "TIME",
     "metad or a chunkd that owes an answer and shows no sign of life for so long is gone (default "
     "2s)"},
    {"bg", OPT_BOOL, OFF(bg), 0, 0, NULL,
     "if metad does not answer yet, keep trying in the background"},
    {"fg", OPT_NOT, OFF(bg), 0, 0, NULL, "the default: wait for it, as long as timeout"},
    {"retry", OPT_UINT, OFF(retry_min), 0, 1000000, "N",
     "minutes to keep trying to mount (default: timeout; bg: 10000)"},
    {"sync", OPT_BOOL, OFF(sync), 0, 0, NULL, "every write waits as fsync does"},
    {"async_close", OPT_BOOL, OFF(async_close), 0, 0, NULL,
     "close does not wait for the copies (fsync does); for bulk loads"},
    {"async", OPT_NOT, OFF(sync), 0, 0, NULL,
     "the default: writes are collected for up to a second"},
    {"dirty_max", OPT_SIZE, OFF(dirty_max), 4u << 20, 1ull << 40, "SIZE",
     "memory for data not yet sent (default 128M)"},
    {"flush", OPT_MSEC, OFF(flush_ms), 10, 60000, "TIME",
     "data nobody synced is sent within this (default 1s)"},
    {"readahead", OPT_SIZE, OFF(readahead), 0, 1u << 30, "SIZE",
     "kernel read-ahead, set when mounting as root (default 4M)"},
    {"max_threads", OPT_UINT, OFF(max_threads), 1, 1024, "N", "threads serving calls (default 32)"},
    {"rpc_threads", OPT_UINT, OFF(rpc_threads), 1, 64, "N", "network threads (default 2)"},
    {"allow_other", OPT_BOOL, OFF(allow_other), 0, 0, NULL,
     "all users may use the mount (default when root mounts)"},
    {"no_allow_other", OPT_NOT, OFF(allow_other), 0, 0, NULL, "only the mounting user may"},
    {"readdirplus", OPT_BOOL, OFF(readdirplus), 0, 0, NULL,
     "read attributes with directories (default)"},
    {"no_readdirplus", OPT_NOT, OFF(readdirplus), 0, 0, NULL, "read names only"},
    {"strictatime", OPT_BOOL, OFF(strictatime), 0, 0, NULL, "each read sets the access time"},
    {"nostrictatime", OPT_NOT, OFF(strictatime), 0, 0, NULL, "the default, as relatime"},
    {"noatime", OPT_BOOL, OFF(noatime), 0, 0, NULL, "no read does"},
    {"atime", OPT_NOT, OFF(noatime), 0, 0, NULL, "the default"},
    {"nodiratime", OPT_BOOL, OFF(nodiratime), 0, 0, NULL, "listing a directory does not"},
    {"diratime", OPT_NOT, OFF(nodiratime), 0, 0, NULL, "the default"},
    {"tls_cert", OPT_STRING, OFF(tls_cert), 0, 0, "FILE", "certificate of this client (PEM)"},
    {"tls_key", OPT_STRING, OFF(tls_key), 0, 0, "FILE", "its private key"},
    {"tls_ca", OPT_STRING, OFF(tls_ca), 0, 0, "FILE", "certificate authority of the cluster"},
    {"insecure", OPT_BOOL, OFF(insecure), 0, 0, NULL,
     "allow connections without TLS to other computers"},
    {"host_id", OPT_STRING, OFF(host_id), 0, 0, "ID", "identity of this host (default machine-id)"},
    {"log_file", OPT_STRING, OFF(log_file), 0, 0, "FILE",
     "log of the background process (default: syslog)"},
    {"debug", OPT_BOOL, OFF(debug), 0, 0, NULL, "log every call; implies -f"},
};
#undef OFF
#define N_OWN (sizeof(own_opts) / sizeof(*own_opts))

/* Flags of the mount itself, understood by libfuse or by mount(2). libfuse's default is nosuid,nodev, and it is
 * ours: anyone who can write to the cluster from another computer is not to become root on this one. */
static const char *const kernel_opts[] = {"rw",    "ro",   "suid",   "nosuid", "dev",
                                          "nodev", "exec", "noexec", "dirsync"};
/* Nothing to do: handled by mount(8), or the way it is anyway. */
static const char *const ignored_opts[] = {"defaults",
                                           "auto",
                                           "noauto",
                                           "nofail",
                                           "_netdev",
                                           "user",
                                           "nouser",
                                           "users",
                                           "owner",
                                           "group",
                                           "relatime",
                                           "norelatime",
                                           "lazytime",
                                           "nolazytime",
                                           "silent",
                                           "loud",
                                           "mand",
                                           "nomand",
                                           "default_permissions"};
/* The second half: of a mount that is there, as the kernel shows them and mount -o remount repeats them. */
static const char *const ignored_prefixes[] = {
    "x-",          "X-",       "comment=",  "uhelper=", "helper=",   "context=",  "fscontext=",
    "defcontext=", "user_id=", "group_id=", "fd=",      "rootmode=", "max_read=", "blksize="};

static int options_fail(char *err, size_t n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int options_fail(char *err, size_t n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err, n, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

static bool listed(const char *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], name))
            return true;
    return false;
}

static char *dup_or_abort(const char *s, size_t n)
{
    char *p = strndup(s, n);
    if (!p)
        abort();
    return p;
}

char *options_addr(const char *s, size_t len)
{
    char *out = NULL;
    char *a = dup_or_abort(s, len);
    char *close_br = strrchr(a, ']'), *colon = strrchr(a, ':');
    bool bad = !len || strpbrk(a, " \t/") || (a[0] == '[' && !close_br);
    if (!bad && a[0] != '[' && colon && strchr(a, ':') != colon) { /* bare IPv6 address */
        if (asprintf(&out, "[%s]:" OPTIONS_DEFAULT_PORT, a) < 0)
            abort();
    } else if (!bad) {
        if (colon && close_br && colon < close_br)
            colon = NULL;
        if (colon == a)
            bad = true;
        else if (colon) {
            char *end;
            unsigned long port = strtoul(colon + 1, &end, 10);
            bad = !colon[1] || *end || port < 1 || port > 65535;
        }
        if (!bad && asprintf(&out, "%s%s", a, colon ? "" : ":" OPTIONS_DEFAULT_PORT) < 0)
            abort();
    }
    free(a);
    return bad ? NULL : out;
}

static int parse_spec(struct options *o, const char *spec, char *err, size_t n)
{
    o->spec = dup_or_abort(spec, strlen(spec));
    for (const char *p = spec;; p++) {
        size_t len = strcspn(p, ",");
        if (o->nmetads == OPTIONS_MAX_METADS)
            return options_fail(err, n, "%s: more than %d metads", spec, OPTIONS_MAX_METADS);
        char *a = options_addr(p, len);
        if (!a)
            return options_fail(err, n,
                                "'%.*s' is not the address of a metad: give HOST or HOST:PORT, "
                                "several with commas between",
                                (int)len, p);
        o->metads[o->nmetads++] = a;
        p += len;
        if (!*p)
            return 0;
    }
}

static void known_names(char *out, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < N_OWN && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%s%s", i ? ", " : "", own_opts[i].name,
                               own_opts[i].kind >= OPT_STRING ? "=" : "");
    for (size_t i = 0; i < sizeof(kernel_opts) / sizeof(*kernel_opts) && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, ", %s", kernel_opts[i]);
}

static int set_value(struct options *o, const struct opt_def *d, const char *val, char *err,
                     size_t n)
{
    char *base = (char *)o + d->offset;
    uint64_t v = 0;
    int rc = 0;
    if (d->kind == OPT_BOOL || d->kind == OPT_NOT) {
        if (val)
            return options_fail(err, n, "option '%s' takes no value ('%s' given)", d->name, val);
        *(bool *)base = d->kind == OPT_BOOL;
        if (base == (char *)&o->allow_other)
            o->allow_other_set = true;
        return 0;
    }
    if (!val || !*val)
        return options_fail(err, n, "option '%s' needs a value: %s=%s", d->name, d->name, d->arg);
    if (d->kind == OPT_STRING) {
        free(*(char **)base);
        *(char **)base = dup_or_abort(val, strlen(val));
        return 0;
    }
    if (d->kind == OPT_MSEC) {
        rc = config_parse_msec(val, &v);
    } else if (d->kind == OPT_SIZE) {
        rc = config_parse_size(val, &v);
    } else {
        char *end;
        errno = 0;
        v = strtoull(val, &end, 10);
        rc = *end || errno || val[0] == '-' ? -EINVAL : 0;
    }
    if (rc)
        return options_fail(err, n, "option '%s': '%s' is not a %s", d->name, val,
                            d->kind == OPT_MSEC   ? "time such as 500ms, 30s or 2m"
                            : d->kind == OPT_SIZE ? "size such as 512K, 64M or 1G"
                                                  : "number");
    if (v < d->min || v > d->max)
        return options_fail(err, n, "option '%s': %s is out of range (%llu to %llu%s)", d->name,
                            val, (unsigned long long)d->min, (unsigned long long)d->max,
                            d->kind == OPT_MSEC   ? " ms"
                            : d->kind == OPT_SIZE ? " bytes"
                                                  : "");
    *(uint64_t *)base = v;
    return 0;
}

static void add_kernel(struct options *o, const char *name)
{
    char *joined;
    if (asprintf(&joined, "%s%s%s", o->kernel, *o->kernel ? "," : "", name) < 0)
        abort();
    free(o->kernel);
    o->kernel = joined;
    if (!strcmp(name, "ro") || !strcmp(name, "rw"))
        o->ro = name[1] == 'o';
}

static int one_option(struct options *o, char *opt, bool sloppy, char *err, size_t n)
{
    if (!*opt)
        return 0;
    for (size_t i = 0; i < sizeof(ignored_prefixes) / sizeof(*ignored_prefixes); i++)
        if (!strncmp(opt, ignored_prefixes[i], strlen(ignored_prefixes[i])))
            return 0;
    char *val = strchr(opt, '=');
    if (val)
        *val++ = '\0';
    for (size_t i = 0; i < N_OWN; i++)
        if (!strcmp(own_opts[i].name, opt))
            return set_value(o, &own_opts[i], val, err, n);
    if (!val && listed(kernel_opts, sizeof(kernel_opts) / sizeof(*kernel_opts), opt)) {
        add_kernel(o, opt);
        o->dirsync |= !strcmp(opt, "dirsync");
        return 0;
    }
    if (!val && listed(ignored_opts, sizeof(ignored_opts) / sizeof(*ignored_opts), opt))
        return 0;
    if (!val && !strcmp(opt, "remount")) {
        o->remount = true;
        return 0;
    }
    if (sloppy)
        return 0;
    char known[1024];
    known_names(known, sizeof(known));
    return options_fail(err, n, "unknown mount option '%s'; known are: %s", opt, known);
}

static int option_list(struct options *o, const char *list, bool sloppy, char *err, size_t n)
{
    for (const char *p = list;; p++) {
        size_t len = strcspn(p, ",");
        char *opt = dup_or_abort(p, len);
        int rc = one_option(o, opt, sloppy, err, n);
        free(opt);
        if (rc)
            return rc;
        p += len;
        if (!*p)
            return 0;
    }
}

/* What depends on several options at once. */
static int options_finish(struct options *o, bool as_root, char *err, size_t n)
{
    if (!o->spec)
        return options_fail(
            err, n, "which cluster? usage: mount.replfs META[:PORT][,META2...] DIR [-o OPTIONS]");
    if (!o->mountpoint)
        return options_fail(err, n,
                            "mount '%s' where? usage: mount.replfs META[:PORT][,META2...] DIR "
                            "[-o OPTIONS]",
                            o->spec);
    int tls = !!o->tls_cert + !!o->tls_key + !!o->tls_ca;
    if (tls != 0 && tls != 3)
        return options_fail(err, n, "tls_cert, tls_key and tls_ca go together; missing:%s%s%s",
                            o->tls_cert ? "" : " tls_cert", o->tls_key ? "" : " tls_key",
                            o->tls_ca ? "" : " tls_ca");
    if (o->remount) { /* only what is said changes */
        if (o->noatime)
            add_kernel(o, "noatime");
        return 0;
    }
    if (!o->allow_other_set)
        o->allow_other = as_root;
    if (o->strictatime) /* as the kernel takes them together */
        o->noatime = false;
    if (o->noatime)
        add_kernel(o, "noatime");
    if (o->debug)
        o->foreground = true;
    return 0;
}

static int positional(struct options *o, const char *arg, char *err, size_t n)
{
    if (!o->spec)
        return parse_spec(o, arg, err, n);
    if (o->mountpoint)
        return options_fail(err, n,
                            "'%s' is one argument too many: after %s %s only options may follow",
                            arg, o->spec, o->mountpoint);
    o->mountpoint = dup_or_abort(arg, strlen(arg));
    return 0;
}

/* Letters as mount(8) and people give them; *i advances over a separate value. */
static int letter(struct options *o, int argc, char **argv, int *i, bool *sloppy, char *err,
                  size_t n)
{
    const char *a = argv[*i];
    for (const char *c = a + 1; *c; c++) {
        if (strchr("oNt", *c)) {
            const char *val = c[1] ? c + 1 : *i + 1 < argc ? argv[++*i] : NULL;
            if (!val)
                return options_fail(err, n, "-%c needs a value", *c);
            if (*c == 'N')
                return options_fail(err, n, "-N (another mount namespace) is not supported");
            return *c == 'o' ? option_list(o, val, *sloppy, err, n) : 0;
        }
        switch (*c) {
        case 'f':
            o->foreground = true;
            break;
        case 'd':
            o->debug = true;
            break;
        case 'h':
            o->help = true;
            break;
        case 'V':
            o->version = true;
            break;
        case 's':
            *sloppy = true;
            break;
        case 'r':
            add_kernel(o, "ro");
            break;
        case 'w':
            add_kernel(o, "rw");
            break;
        case 'n':
        case 'v':
            break;
        default:
            return options_fail(err, n, "unknown option '-%c'; see mount.replfs --help", *c);
        }
    }
    return 0;
}

int options_parse(struct options *o, int argc, char **argv, bool as_root, char *err, size_t err_len)
{
    *o = (struct options){.timeout_ms = 60000,
                          .flush_ms = 1000,
                          .dirty_max = 128u << 20,
                          .readdirplus = true,
                          .max_threads = 32,
                          .rpc_threads = 2,
                          .readahead = 4u << 20,
                          .retry_min = OPTIONS_NO_RETRY};
    o->kernel = dup_or_abort("", 0);
    bool sloppy = false, only_args = false;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        int rc = 0;
        if (only_args || a[0] != '-' || !a[1])
            rc = positional(o, a, err, err_len);
        else if (!strcmp(a, "--"))
            only_args = true;
        else if (!strcmp(a, "--help"))
            o->help = true;
        else if (!strcmp(a, "--version"))
            o->version = true;
        else if (!strcmp(a, "--foreground"))
            o->foreground = true;
        else if (a[1] == '-')
            rc = options_fail(err, err_len, "unknown option '%s'; see mount.replfs --help", a);
        else
            rc = letter(o, argc, argv, &i, &sloppy, err, err_len);
        if (rc)
            return rc;
    }
    if (o->help || o->version)
        return 0;
    return options_finish(o, as_root, err, err_len);
}

void options_free(struct options *o)
{
    for (size_t i = 0; i < o->nmetads; i++)
        free(o->metads[i]);
    free(o->spec);
    free(o->mountpoint);
    free(o->kernel);
    free(o->tls_cert);
    free(o->tls_key);
    free(o->tls_ca);
    free(o->log_file);
    free(o->host_id);
    *o = (struct options){0};
}

const char *options_usage(void)
{
    static char text[4096];
    size_t at = (size_t)snprintf(
        text, sizeof(text),
        "usage: mount.replfs META[:PORT][,META2...] DIR [-o OPTIONS] [-f] [-d]\n"
        "       mount -t replfs META[:PORT][,META2...] DIR [-o OPTIONS]\n\n"
        "Mounts the replfs cluster that the metads (default port " OPTIONS_DEFAULT_PORT
        ") serve.\n\n"
        "  -o OPTIONS   comma-separated, below\n"
        "  -f           stay in the foreground, log to standard error\n"
        "  -d           debug: log every call; implies -f\n"
        "  -h, -V       this help, the version\n\n"
        "Options:\n");
    for (size_t i = 0; i < N_OWN && at < sizeof(text); i++) {
        char left[64];
        snprintf(left, sizeof(left), "%s%s%s", own_opts[i].name, own_opts[i].arg ? "=" : "",
                 own_opts[i].arg ? own_opts[i].arg : "");
        at +=
            (size_t)snprintf(text + at, sizeof(text) - at, "  %-16s %s\n", left, own_opts[i].help);
    }
    if (at < sizeof(text))
        snprintf(text + at, sizeof(text) - at,
                 "and rw, ro, [no]suid, [no]dev, [no]exec, noatime, dirsync and what fstab(5) and "
                 "mount(8) use.\n\nUnmount with umount DIR. See mount.replfs(8).\n");
    return text;
}
