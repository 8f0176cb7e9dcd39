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

/* How the child ended. */
static int run_child(uint64_t seed, const char *kind, bool quiet)
{
    char dir[160];
    int status = 0;
    snprintf(dir, sizeof(dir), "%s/%s%llu", now.base, kind, (unsigned long long)seed);
    if (mkdir(dir, 0700) && errno != EEXIST)
        abort();
    fflush(NULL);
    pid_t pid = fork();
    if (!pid && quiet && !freopen("/dev/null", "w", stderr))
        _exit(1);
    if (!pid)
        _exit(in_child(seed, dir));
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        abort();
    return status;
}

static void one_planted(const struct runner_plant *p)
{
    now.r->option("--plant", p->name);
    if (!run_child(p->seed, p->name, true)) {
        now.found++;
        fprintf(stderr, "seed %llu does not find the planted bug '%s'\n",
                (unsigned long long)p->seed, p->name);
    }
    now.r->option("--plant", "none");
}

static void one(uint64_t seed)
{
    int status = run_child(seed, "", false);
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
    for (size_t i = 0; suite && i < r->nregressions; i++)
        one(r->regressions[i]);
    for (size_t i = 0; suite && i < r->nplants; i++)
        one_planted(&r->plants[i]);
    for (uint64_t s = now.from; s <= now.to && (now.keep_on || !now.found); s++) {
        one(s);
        if (now.minutes > 0 && seconds() - t0 > now.minutes * 60)
            break;
    }
    remove_tree(now.base);
    double took = seconds() - t0;
    printf("%llu seeds in %.1f s (%.0f a minute), %llu of them found something: ",
           (unsigned long long)now.runs, took, (double)now.runs * 60 / took,
           (unsigned long long)now.found);
    r->report();
    return now.found ? 1 : 0;
}
