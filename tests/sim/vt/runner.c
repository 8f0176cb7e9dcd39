/* See runner.h. */
#include "runner.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

static struct {
    const struct runner *r;
    char base[100]; /* of the children's directories */
    uint64_t runs, found, from, to;
    double minutes;
    bool traced, keep_on;
} now;

bool runner_traced(void)
{
    return now.traced;
}

void *runner_shared(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        abort();
    return p;
}

static int in_child(uint64_t seed, const char *dir)
{
    struct rlimit cpu = {now.r->child_seconds, now.r->child_seconds};
    setrlimit(RLIMIT_CPU, &cpu);
    if (now.traced)
        log_init("", LOG_LVL_DEBUG, NULL);
    /* large tables come empty from the system: nothing to clear */
    mallopt(M_MMAP_THRESHOLD, 20000);
    return now.r->run(seed, dir);
}

static void remove_tree(const char *dir)
{
    char cmd[300];
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
    if (system(cmd) != 0)
        fprintf(stderr, "%s cannot be removed\n", dir);
}

/* In the child: what it says goes to the file `output`. */
static void plant(const struct runner_plant *p, const char *output)
{
    bool ok = freopen(output, "w", stderr) && now.r->option("--plant", p->name);
    for (unsigned i = 0; ok && p->options[i]; i += 2)
        ok = now.r->option(p->options[i], p->options[i + 1]);
    if (!ok)
        _exit(1);
}

static void said_in(char path[160])
{
    snprintf(path, 160, "%s/said", now.base);
}

/* How the child ended. p: NULL: no bug is planted. */
static int run_child(uint64_t seed, const struct runner_plant *p)
{
    char dir[160], output[160];
    int status = 0;
    said_in(output);
    snprintf(dir, sizeof(dir), "%s/%s%llu", now.base, p ? p->name : "", (unsigned long long)seed);
    if (mkdir(dir, 0700) && errno != EEXIST)
        abort();
    fflush(NULL);
    pid_t pid = fork();
    if (!pid && p)
        plant(p, output);
    if (!pid)
        _exit(in_child(seed, dir));
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        abort();
    return status;
}

static bool file_says(const char *path, const char *what)
{
    char line[1000];
    bool found = false;
    FILE *f = fopen(path, "r");
    while (f && !found && fgets(line, sizeof(line), f))
        found = strstr(line, what) != NULL;
    if (f)
        fclose(f);
    return found;
}

static void one_planted(const struct runner_plant *p)
{
    char output[160];
    said_in(output);
    for (uint64_t seed = p->seed; seed < p->seed + RUNNER_PLANT_SEEDS; seed++)
        if (run_child(seed, p) && file_says(output, p->says)) {
            printf("planted bug '%s': found by seed %llu\n", p->name, (unsigned long long)seed);
            return;
        }
    now.found++;
    fprintf(stderr, "seeds %llu to %llu do not find the planted bug '%s' (\"%s\")\n",
            (unsigned long long)p->seed, (unsigned long long)p->seed + RUNNER_PLANT_SEEDS - 1,
            p->name, p->says);
}

static void one(uint64_t seed)
{
    int status = run_child(seed, NULL);
    now.runs++;
    if (WIFEXITED(status) && !WEXITSTATUS(status))
        return;
    now.found++;
    if (WIFSIGNALED(status))
        fprintf(stderr, "FOUND: signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
    fprintf(stderr, "seed %llu: found something; again with --seed %llu --trace\n",
            (unsigned long long)seed, (unsigned long long)seed);
}

static double seconds(void)
{
    struct timespec ts;
    extern int __real_clock_gettime(clockid_t id, struct timespec * out);
    __real_clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The same addresses in each run: what depends on them would not be the seed's. */
static void fix_addresses(char **argv)
{
    int old = personality(0xffffffff);
    if (old < 0 || old & ADDR_NO_RANDOMIZE || getenv("SIM_FIXED"))
        return;
    setenv("SIM_FIXED", "1", 1);
    if (personality((unsigned long)old | ADDR_NO_RANDOMIZE) >= 0)
        execv("/proc/self/exe", argv);
}

static bool take_options(int argc, char **argv)
{
    unsigned long long from = now.from, to = now.to;
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--trace")) {
            now.traced = true;
            continue;
        }
        if (!strcmp(argv[i], "--keep-on")) {
            now.keep_on = true;
            continue;
        }
        if (!v)
            return false;
        if (!strcmp(argv[i], "--seed"))
            from = to = strtoull(v, NULL, 0);
        else if (!strcmp(argv[i], "--from"))
            from = strtoull(v, NULL, 0);
        else if (!strcmp(argv[i], "--minutes"))
            now.minutes = strtod(v, NULL);
        else if (!strcmp(argv[i], "--seeds") ? sscanf(v, "%llu..%llu", &from, &to) != 2
                                             : !now.r->option || !now.r->option(argv[i], v))
            return false;
        i++;
    }
    now.from = from;
    now.to = now.minutes > 0 ? UINT64_MAX : to;
    return true;
}

static void many(uint64_t from, uint64_t to, double t0)
{
    for (uint64_t s = from; s <= to && (now.keep_on || !now.found); s++) {
        one(s);
        if (now.minutes > 0 && seconds() - t0 > now.minutes * 60)
            break;
    }
}

static void suite_around(void)
{
    for (size_t i = 0; i < now.r->nregressions; i++)
        one(now.r->regressions[i]);
    for (size_t i = 0; i < now.r->nplants; i++)
        one_planted(&now.r->plants[i]);
}

int runner_main(const struct runner *r, int argc, char **argv)
{
    bool suite = argc == 1;
    fix_addresses(argv);
    now.r = r;
    now.from = r->suite_from;
    now.to = r->suite_from + r->suite_seeds - 1;
    if (!take_options(argc, argv)) {
        fprintf(stderr, "usage: see tests/sim/vt/runner.h and the top of the program's source\n");
        return 2;
    }
    snprintf(now.base, sizeof(now.base), "%s/replfs-sim-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(now.base))
        abort();
    double t0 = seconds();
    if (suite)
        suite_around();
    many(now.from, now.to, t0);
    for (size_t i = 0; suite && i < r->nmore; i++)
        if (r->option(r->more[i].option, r->more[i].value))
            many(r->more[i].from, r->more[i].from + r->more[i].seeds - 1, t0);
    remove_tree(now.base);
    double took = seconds() - t0;
    printf("%llu seeds in %.1f s (%.0f a minute), %llu of them found something: ",
           (unsigned long long)now.runs, took, (double)now.runs * 60 / took,
           (unsigned long long)now.found);
    r->report();
    return now.found ? 1 : 0;
}
