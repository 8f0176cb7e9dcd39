/*
 * test_conform: asks a folder's file system, in some thousand assertions, whether it behaves as Linux
 * programs expect.
 *
 *   test_conform [--list] [--only AREA[/CASE]] [--slow] [--peer DIR2] [--differences FILE] [--json] [-v] DIR
 *
 * --peer is DIR by another mount: of the cases with two openers (pair) the second one works there. Runs as
 * root. Each case is a process of its own in a folder of its own below DIR; a case that hangs is killed
 * after a minute (ten with --slow, which also runs the few cases that take long). What holds is what the
 * standards and the Linux manual say, proven on ext4; FILE lists the assertions that may fail, one
 * fnmatch(3) pattern over "AREA/CASE: TEXT" a line, comments after '#'; one of those that never fails is
 * an error too, so that the list stays true. Exit status: 0 all as expected, 1 not, 2 could not run.
 */
#include "tests/conform/engine.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static const struct conform_area *const areas[] = {
    &conform_paths,  &conform_names,   &conform_open,   &conform_nodes,  &conform_links,
    &conform_rename, &conform_listing, &conform_orphan, &conform_perms,  &conform_owner,
    &conform_acl,    &conform_xattr,   &conform_times,  &conform_utimes, &conform_data,
    &conform_sparse, &conform_ranges,  &conform_map,    &conform_locks,  &conform_pair,
    &conform_space,  &conform_notify,
};

const char *conform_top, *conform_peer;
static unsigned case_seconds = 60;
static bool slow;
static volatile sig_atomic_t too_long;

static void on_alarm(int sig)
{
    (void)sig;
    too_long = 1;
}

static bool load_differences(const char *file)
{
    FILE *f = fopen(file, "re");
    char line[512];
    if (!f)
        return false;
    while (fgets(line, sizeof(line), f)) {
        line[strcspn(line, "#\n")] = 0;
        size_t n = strlen(line);
        while (n && (line[n - 1] == ' ' || line[n - 1] == '\t'))
            line[--n] = 0;
        if (!n)
            continue;
        if (conform_results->differences == (int)COUNT(conform_results->difference)) {
            fprintf(stderr, "%s: too many lines\n", file);
            exit(2);
        }
        struct conform_difference *d = &conform_results->difference[conform_results->differences++];
        snprintf(d->pattern, sizeof(d->pattern), "%.250s", line);
    }
    fclose(f);
    return true;
}

/* Runs in the child; never returns. */
static void run_case(const struct conform_case *c, const char *dir)
{
    pid_t self = getpid();
    setpgid(0, 0);
    umask(022);
    if (mkdir(dir, 0755) || chdir(dir)) {
        perror(dir);
        conform_check(__LINE__, false, "a folder for the case", "one", "none");
        _exit(0);
    }
    c->run();
    if (getpid() != self)
        abort(); // a child left its block
    fflush(NULL);
    _exit(0);
}

static void one_case(const struct conform_area *area, const struct conform_case *c,
                     const char *base)
{
    char dir[4096];
    snprintf(dir, sizeof(dir), "%s/%s.%s", base, area->name, c->name);
    conform_enter(area->name, c->name);
    too_long = 0;
    pid_t pid = conform_fork();
    if (!pid)
        run_case(c, dir);
    alarm(case_seconds);
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (too_long)
            kill(-pid, SIGKILL);
    alarm(0);
    kill(-pid, SIGKILL); // children that it left behind
    if (too_long)
        conform_check(0, false, "the case", "an end", "none after %u s", case_seconds);
    else if (WIFSIGNALED(status))
        conform_check(0, false, "the case", "an end", "signal %d", WTERMSIG(status));
    conform_remove(dir);
    if (there(dir))
        conform_check(0, false, "removing the case's folder", "success", "failure");
}

static void put_json(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 32 || c > 126)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void print_json(void)
{
    const struct conform_results *r = conform_results;
    printf("{\"assertions\":%u,\"failed\":%u,\"differences\":%u,\"failures\":[", r->assertions,
           r->failed, r->expected);
    for (unsigned i = 0; i < r->kept && i < CONFORM_KEPT; i++) {
        const struct conform_failure *f = &r->failure[i];
        printf("%s\n{\"name\":", i ? "," : "");
        put_json(f->name);
        printf(",\"line\":%d,\"listed\":%s,\"expected\":", f->line, f->expected ? "true" : "false");
        put_json(f->want);
        printf(",\"got\":");
        put_json(f->got);
        putchar('}');
    }
    printf("]}\n");
}

/* Listed differences that did not show, although what they name was run. */
static unsigned unneeded(void)
{
    unsigned n = 0;
    for (int i = 0; i < conform_results->differences; i++) {
        const struct conform_difference *d = &conform_results->difference[i];
        if (d->failed || !d->passed)
            continue;
        n++;
        if (!conform_results->quiet)
            printf("FAIL  listed as a difference, but passes: %s\n", d->pattern);
    }
    return n;
}

static bool wanted(const char *only, const char *area, const char *name)
{
    if (!slow && !strncmp(name, "slow-", 5))
        return false;
    if (!only)
        return true;
    size_t n = strlen(area);
    return !strncmp(only, area, n) &&
           (only[n] == 0 || (only[n] == '/' && !strcmp(only + n + 1, name)));
}

static int usage(void)
{
    fprintf(stderr, "usage: test_conform [--list] [--only AREA[/CASE]] [--slow] [--peer DIR2] "
                    "[--differences FILE] "
                    "[--json] [-v] DIR\n");
    return 2;
}

static int run_all(const char *top, const char *only, bool json)
{
    char base[3000];
    conform_top = realpath(top, NULL);
    struct rlimit files = {4096, 4096};
    setrlimit(RLIMIT_NOFILE, &files);
    snprintf(base, sizeof(base), "%.2900s/conform.%d", top, (int)getpid());
    if (mkdir(base, 0755) || chmod(base, 0755)) {
        perror(base);
        return 2;
    }
    struct sigaction sa = {.sa_handler = on_alarm}; // without SA_RESTART: waitpid returns
    sigaction(SIGALRM, &sa, NULL);
    for (size_t a = 0; a < COUNT(areas); a++)
        for (size_t c = 0; c < areas[a]->n; c++)
            if (wanted(only, areas[a]->name, areas[a]->cases[c].name))
                one_case(areas[a], &areas[a]->cases[c], base);
    if (rmdir(base))
        perror(base);
    unsigned surplus = unneeded();
    if (json)
        print_json();
    else
        printf("%u assertions, %u failed, %u known differences\n", conform_results->assertions,
               conform_results->failed + surplus, conform_results->expected);
    if (!conform_results->assertions) {
        fprintf(stderr, "no case is called '%s'; see --list\n", only ? only : "");
        return 2;
    }
    return conform_results->failed || surplus;
}

int main(int argc, char **argv)
{
    const char *only = NULL, *top = NULL;
    bool json = false;
    conform_results_open();
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--list")) {
            for (size_t a = 0; a < COUNT(areas); a++)
                for (size_t c = 0; c < areas[a]->n; c++)
                    printf("%s/%s\n", areas[a]->name, areas[a]->cases[c].name);
            return 0;
        }
        if (!strcmp(argv[i], "--only") && i + 1 < argc)
            only = argv[++i];
        else if (!strcmp(argv[i], "--peer") && i + 1 < argc)
            conform_peer = realpath(argv[++i], NULL);
        else if (!strcmp(argv[i], "--differences") && i + 1 < argc) {
            if (!load_differences(argv[++i])) {
                perror(argv[i]);
                return 2;
            }
        } else if (!strcmp(argv[i], "--json"))
            json = conform_results->quiet = true;
        else if (!strcmp(argv[i], "--slow")) {
            slow = true;
            case_seconds = 600;
        } else if (!strcmp(argv[i], "-v"))
            conform_results->verbose = true;
        else if (argv[i][0] == '-' || top)
            return usage();
        else
            top = argv[i];
    }
    if (!top)
        return usage();
    if (geteuid() != 0) {
        fprintf(stderr, "test_conform must run as root: it becomes several users\n");
        return 2;
    }
    return run_all(top, only, json);
}
