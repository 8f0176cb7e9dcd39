/* linear_check: reads histories (history.h) and says of each whether it is linearizable.
 *
 *     linear_check [--states N] FILE...
 *     linear_check --generate SEED [--clients N] [--ops N] [--unknown N] [--fault NAME]
 *
 * Exit code 0: all are; 1: one is not, printed with the longest order found, its state, and what cannot
 * come next; 2: wrong usage, or a file that is no history; 3: undecided, more than N states. --generate
 * writes a made-up history, to see how the checker does. */
#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gen.h"
#include "wgl.h"

enum { OPT_STATES = 256, OPT_GENERATE, OPT_CLIENTS, OPT_OPS, OPT_UNKNOWN, OPT_FAULT };
static const struct argp_option argp_options[] = {
    {"states", OPT_STATES, "N", 0, "give up behind so many states (default 2000000)", 0},
    {"generate", OPT_GENERATE, "SEED", 0, "write a made-up history", 0},
    {"clients", OPT_CLIENTS, "N", 0, "of that history (default 8)", 0},
    {"ops", OPT_OPS, "N", 0, "of that history (default 200)", 0},
    {"unknown", OPT_UNKNOWN, "N", 0, "of 1000 operations have no answer (default 20)", 0},
    {"fault", OPT_FAULT, "NAME", 0, "fine (default), stale, lost, doubled or reordered", 0},
    {0}};
static const char *const fault_names[GEN_FAULTS] = {"fine", "stale", "lost", "doubled",
                                                    "reordered"};

struct options {
    uint64_t states;
    bool generate;
    struct gen_options gen;
    char **files;
    size_t nfiles;
};

static uint64_t number(struct argp_state *state, const char *s, uint64_t min, uint64_t max)
{
    char *end;
    errno = 0;
    uint64_t n = strtoull(s, &end, 0);
    if (errno || end == s || *end || n < min || n > max)
        argp_error(state, "'%s' is not a number in range", s);
    return n;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case OPT_STATES:
        o->states = number(state, arg, 1, 1u << 30);
        break;
    case OPT_GENERATE:
        o->generate = true;
        o->gen.seed = number(state, arg, 0, UINT64_MAX);
        break;
    case OPT_CLIENTS:
        o->gen.clients = (unsigned)number(state, arg, 1, HISTORY_CLIENTS);
        break;
    case OPT_OPS:
        o->gen.ops = (unsigned)number(state, arg, 1, HISTORY_OPS / 2);
        break;
    case OPT_UNKNOWN:
        o->gen.unknown = (unsigned)number(state, arg, 0, 1000);
        break;
    case OPT_FAULT:
        for (o->gen.fault = 0; o->gen.fault < GEN_FAULTS; o->gen.fault++)
            if (!strcmp(arg, fault_names[o->gen.fault]))
                return 0;
        argp_error(state, "no fault '%s'", arg);
        break;
    case ARGP_KEY_ARGS:
        o->files = state->argv + state->next;
        o->nfiles = (size_t)(state->argc - state->next);
        break;
    case ARGP_KEY_NO_ARGS:
        if (!o->generate)
            argp_error(state, "which history?");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static int check_file(const struct options *o, const char *name)
{
    static const int codes[] = {[WGL_FINE] = 0, [WGL_VIOLATION] = 1, [WGL_UNDECIDED] = 3};
    struct history h = {0};
    struct wgl_result r;
    char err[256];
    FILE *in = fopen(name, "r");
    if (!in) {
        fprintf(stderr, "linear_check: %s: %s\n", name, strerror(errno));
        return 2;
    }
    if (!history_read(&h, in, err, sizeof err)) {
        fprintf(stderr, "linear_check: %s: %s\n", name, err);
        fclose(in);
        history_free(&h);
        return 2;
    }
    fclose(in);
    wgl_check(&h, o->states, &r);
    printf("%s: ", name);
    wgl_print(&h, &r, stdout);
    int code = codes[r.verdict];
    wgl_result_free(&r);
    history_free(&h);
    return code;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        argp_options, parse, "FILE...", "Whether histories of a small directory are linearizable.",
        NULL,         NULL,  NULL};
    struct options o = {.states = WGL_STATES,
                        .gen = {.clients = 8, .ops = 200, .unknown = 20, .last_look = true}};
    int code = 0;
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (o.generate) {
        struct history h = {0};
        bool made = gen_history(&o.gen, &h);
        history_write(&h, stdout);
        history_free(&h);
        if (!made)
            fprintf(stderr, "linear_check: the fault had no opportunity with this seed\n");
        return made ? 0 : 3;
    }
    for (size_t i = 0; i < o.nfiles; i++) {
        int one = check_file(&o, o.files[i]);
        if (code != 1 && one)
            code = one;
    }
    return code;
}
