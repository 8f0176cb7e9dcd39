/* exerciser: random operations on two files of a file system, each compared with a model.
 *
 * Operation N of a seed is a function of (seed, N, what the files contain): its random numbers come
 * from a generator seeded with both, so a run can be repeated up to any operation, and a longer run
 * begins like a shorter one. Only what happens outside (daemons killed by --at commands) differs
 * between repetitions.
 *
 * exerciser.h tells which file does what. One process, one thread, except in concurrent.c. Any
 * difference ends the program with exit code 1 and a report (report.c); 2 is wrong usage. */
#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "exerciser.h"

enum {
    OPT_SECOND = 256,
    OPT_REPLAY,
    OPT_ONLY,
    OPT_WEIGHTS,
    OPT_ALL,
    OPT_LIST,
    OPT_AT,
    OPT_CLOSED,
    OPT_CONCURRENT,
    OPT_RECORDS,
    OPT_RECORD_SIZE,
    OPT_WRITERS
};

static const struct argp_option argp_options[] = {
    {"seed", 's', "N", 0, "which sequence (default 1)", 0},
    {"ops", 'n', "N", 0, "operations to do (default 10000)", 0},
    {"size", 'S', "BYTES", 0, "greatest size of a file (default 1 MiB)", 0},
    {"replay", OPT_REPLAY, "N", 0, "end with operation N", 0},
    {"log", 'l', "N", 0, "operations shown after a failure (default 50)", 0},
    {"only", OPT_ONLY, "OP,..", 0, "only these operations", 0},
    {"weights", OPT_WEIGHTS, "OP=W,..", 0, "how often each is done; see --list", 0},
    {"list", OPT_LIST, NULL, 0, "list operations and weights", 0},
    {"require-all", OPT_ALL, NULL, 0, "operations that are not supported are an error", 0},
    {"second", OPT_SECOND, "DIR2", 0, "DIR as seen by a second mount; use both in turn", 0},
    {"at", OPT_AT, "N=COMMAND", 0, "start COMMAND at operation N; it must succeed", 0},
    {"closed-at", OPT_CLOSED, "N=COMMAND", 0,
     "close all files before operation N, run COMMAND, open and compare them", 0},
    {"concurrent", OPT_CONCURRENT, "append|blocks|listing", 0,
     "instead: processes append records to one file or overwrite its blocks at once, or change a "
     "directory while it is listed",
     0},
    {"records", OPT_RECORDS, "N", 0, "that each process writes, or listings (default 2000)", 0},
    {"record-size", OPT_RECORD_SIZE, "BYTES", 0, "of a record or block (default 4096)", 0},
    {"writers", OPT_WRITERS, "N", 0, "processes, spread over the mounts (default 2)", 0},
    {0}};

static uint64_t number(struct argp_state *state, const char *s)
{
    char *end;
    errno = 0;
    uint64_t n = strtoull(s, &end, 0);
    if (errno || end == s || *end)
        argp_error(state, "'%s' is not a number", s);
    return n;
}

static void add_event(struct argp_state *state, struct options *o, const char *s, bool closed)
{
    const char *eq = strchr(s, '=');
    if (!eq || o->nevents == EVENTS_MAX) {
        argp_error(state, "'%s': expected N=COMMAND, at most %u of them", s, EVENTS_MAX);
        return;
    }
    char *at = strndup(s, (size_t)(eq - s));
    o->events[o->nevents++] = (struct event){number(state, at), closed, eq + 1};
    free(at);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case 's':
        o->seed = number(state, arg);
        break;
    case 'n':
        o->ops = number(state, arg);
        break;
    case 'S':
        o->size = number(state, arg);
        break;
    case 'l':
        o->log = number(state, arg);
        break;
    case OPT_REPLAY:
        o->replay = number(state, arg);
        break;
    case OPT_ONLY:
        o->only = arg;
        break;
    case OPT_WEIGHTS:
        o->weights = arg;
        break;
    case OPT_LIST:
        o->list = true;
        break;
    case OPT_ALL:
        o->require_all = true;
        break;
    case OPT_SECOND:
        o->dirs[1] = arg;
        o->mounts = 2;
        break;
    case OPT_AT:
        add_event(state, o, arg, false);
        break;
    case OPT_CLOSED:
        add_event(state, o, arg, true);
        break;
    case OPT_CONCURRENT:
        o->concurrent = arg;
        break;
    case OPT_RECORDS:
        o->records = number(state, arg);
        break;
    case OPT_RECORD_SIZE:
        o->record_size = number(state, arg);
        break;
    case OPT_WRITERS:
        o->writers = (unsigned)number(state, arg);
        break;
    case ARGP_KEY_ARG:
        if (o->dirs[0])
            argp_error(state, "one directory only (a second mount of it: --second)");
        o->dirs[0] = arg;
        break;
    case ARGP_KEY_END:
        if (!o->dirs[0] && !o->list)
            argp_error(state, "which directory?");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static void check_options(const struct options *o)
{
    const char *wrong = NULL;
    if (o->size < 4 * PAGE || o->size % PAGE || o->size > 1u << 30)
        wrong = "--size must be a multiple of 4096 from 16384 to 1 GiB";
    else if (!o->log || o->log > 1u << 20)
        wrong = "--log must be from 1 to 1048576";
    else if (o->ops >= 1u << 31)
        wrong = "--ops must be below 2^31";
    else if (o->writers < 1 || o->writers > 64 || o->record_size < 32 || o->record_size % 8 ||
             o->record_size > 1u << 20 || o->records < 1 || o->records >= 1u << 31)
        wrong = "--writers from 1 to 64, --record-size a multiple of 8 from 32 to 1 MiB";
    if (!wrong)
        return;
    fprintf(stderr, "exerciser: %s\n", wrong);
    exit(2);
}

/* ---- random numbers ---- */

uint64_t mix(uint64_t v)
{
    v += 0x9e3779b97f4a7c15ull;
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
    return v ^ (v >> 31);
}

uint64_t below(struct exerciser *x, uint64_t n)
{
    x->rnd += 0x9e3779b97f4a7c15ull;
    return mix(x->rnd) % n;
}

bool one_in(struct exerciser *x, uint64_t n)
{
    return below(x, n) == 0;
}

/* ---- commands on the way ---- */

static pid_t running[EVENTS_MAX];

static void check_command(struct exerciser *x, const struct event *e, int status)
{
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail(x, "the command '%s' ended with status %#x", e->command, (unsigned)status);
}

/* One at a time: the next begins when the one before has ended. */
static void finish_events(struct exerciser *x)
{
    for (unsigned i = 0; i < x->o.nevents; i++) {
        int status;
        if (running[i] > 0 && waitpid(running[i], &status, 0) == running[i])
            check_command(x, &x->o.events[i], status);
        running[i] = 0;
    }
}

static void run_closed(struct exerciser *x, const struct event *e)
{
    for (unsigned i = 0; i < FILES; i++)
        file_close(x, &x->file[i]);
    check_command(x, e, system(e->command));
    for (unsigned i = 0; i < FILES; i++) {
        file_open(x, &x->file[i]);
        file_check_all(x, &x->file[i], x->file[i].fd, "read after all was closed");
    }
}

static void run_events(struct exerciser *x)
{
    for (unsigned i = 0; i < x->o.nevents; i++) {
        const struct event *e = &x->o.events[i];
        if (e->at != x->op)
            continue;
        finish_events(x);
        printf("operation %llu: %s\n", (unsigned long long)x->op, e->command);
        fflush(stdout);
        if (e->closed) {
            run_closed(x, e);
            continue;
        }
        running[i] = fork();
        if (running[i] < 0)
            fail(x, "fork: %s", strerror(errno));
        if (running[i] == 0) {
            execl("/bin/sh", "sh", "-c", e->command, (char *)NULL);
            _exit(127);
        }
    }
}

/* ---- the run ---- */

static struct exerciser the;

/* A mapping met an error: the kernel can tell it in no other way. */
static void on_sigbus(int sig)
{
    (void)sig;
    fail(&the, "SIGBUS while using a mapping");
}

static void step(struct exerciser *x)
{
    x->rnd = mix(x->o.seed) ^ mix(~x->op);
    run_events(x);
    struct xfile *f = &x->file[below(x, FILES)];
    const struct operation *o = table_pick(x);
    if (o->off)
        op_pread(x, f);
    else
        o->run(x, f);
    x->log[x->op % x->o.log].after = f->size;
}

static void run(struct exerciser *x)
{
    x->total = x->o.replay && x->o.replay < x->o.ops ? x->o.replay : x->o.ops;
    x->log = calloc(x->o.log, sizeof *x->log);
    if (!x->log)
        abort();
    model_init(x);
    signal(SIGBUS, on_sigbus);
    for (unsigned i = 0; i < FILES; i++)
        file_open(x, &x->file[i]);
    for (x->op = 1; x->op <= x->total; x->op++)
        step(x);
    x->op = x->total;
    finish_events(x);
    for (unsigned i = 0; i < FILES; i++) {
        char path[4096];
        struct xfile *f = &x->file[i];
        file_check_all(x, f, f->fd, "last read of the whole file");
        file_close(x, f);
        file_path(x, f, path, sizeof path);
        if (f->name[0] && unlink(path))
            fail_errno(x, f, "unlink");
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        argp_options, parse,
        "DIR",        "Random operations on files in DIR, each compared with a model in memory.",
        NULL,         NULL,
        NULL};
    struct timespec t0, t1;
    the.o = (struct options){.seed = 1,
                             .ops = 10000,
                             .size = 1 << 20,
                             .log = 50,
                             .mounts = 1,
                             .records = 2000,
                             .record_size = 4096,
                             .writers = 2,
                             .argc = argc,
                             .argv = argv};
    argp_err_exit_status = 2;
    char **order = calloc((size_t)argc + 1, sizeof *order); /* argp sorts argv */
    if (!order)
        abort();
    memcpy(order, argv, (size_t)argc * sizeof *order);
    argp_parse(&argp, argc, argv, 0, NULL, &the.o);
    the.o.argv = order;
    check_options(&the.o);
    if (the.o.list) {
        table_list();
        return 0;
    }
    clock_gettime(CLOCK_MONOTONIC, &t0);
    if (the.o.concurrent)
        return concurrent_run(&the);
    if (!table_prepare(&the))
        return 2;
    run(&the);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    printf("exerciser: seed %llu: %llu operations in %.1f s: fine\n",
           (unsigned long long)the.o.seed, (unsigned long long)the.total,
           (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9);
    return 0;
}
