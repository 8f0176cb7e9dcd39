/* The protocol under virtual time: the real client, metad and chunkd on a simulated network, disk and clock (vt/),
 * each run from a seed, in a process of its own. What is checked is said in vt/model.h and vt/work.h.
 *
 *   sim_test_sim_protocol                  the seeds of the test suite
 *   sim_test_sim_protocol --seed N [--trace]   one, with all that happens
 *   sim_test_sim_protocol --seeds A..B
 *   sim_test_sim_protocol --minutes M [--from A]
 *   ... --keep-on       after something was found
 *   ... --drift PPM     the clients' clocks run that much slower than the others'
 *
 * Exit: 0 when all were well; the seeds that were not are named. */
#include <errno.h>
#include <fcntl.h>
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

#include "base/clock.h"
#include "base/log.h"
#include "vt/nemesis.h"
#include "vt/net.h"
#include "vt/simdisk.h"
#include "vt/simlog.h"
#include "vt/model.h"
#include "vt/work.h"
#include "vt/world.h"

#define SUITE_SEEDS 400u
#define RUN_NS (900 * NSEC_PER_SEC)
#define CHILD_SECONDS 60u /* of processor time: a run that never ends */

/* Found bugs that are mended since; the first finds its bug again when the mending is taken out, the others did with
 * an earlier choice of calls (what a seed does changes with the calls that programs choose from). */
static const uint64_t regressions[] = {
    40, /* a second recall of an inode was answered before the flush for the first (client, lease_cache.c) */
    3166, /* the answer to an earlier recall took away a later lease (metad, leases.c; also test_leases.c) */
    585, /* a rename whose file lost its name to another one meanwhile failed with ENOENT (client, order.c) */
};

struct totals {
    uint64_t runs, found, calls, reads, messages, commands, appends, steps;
    int64_t virtual_ns;
};
static struct totals *sum; /* shared with the children */
static bool traced;
static int64_t drift_ppm;
static struct {
    struct fiber *nemesis;
    bool over;
} run;

/* ---- one run ---- */

static bool clients_are_up(void)
{
    for (unsigned i = 0; i < world.cfg.nclients; i++)
        if (!world.client[i].c || world.client[i].starting)
            return false;
    return true;
}

static void wait_for(bool (*cond)(void))
{
    while (!cond())
        vt_sleep_until(vt_now() + 20 * NSEC_PER_MSEC);
}

static bool metad_is_up(void)
{
    return world.fsm != NULL;
}

static void *run_main(void *arg)
{
    world_start_metad();
    for (unsigned i = 0; i < world.cfg.nchunkds; i++)
        world_start_chunkd(i);
    for (unsigned i = 0; i < world.cfg.nclients; i++)
        world_start_client(i);
    wait_for(clients_are_up);
    run.nemesis = vt_spawn(&world.self, "nemesis", nemesis_main, NULL);
    wait_for(work_over);
    nemesis_end();
    vt_join(run.nemesis);
    wait_for(clients_are_up);
    work_stop();
    wait_for(work_over);
    wait_for(metad_is_up);
    vt_sleep_until(vt_now() + world.cfg.term_ms * NSEC_PER_MSEC);
    work_verify();
    wait_for(work_verified);
    simlog_check(world.fsm);
    run.over = true;
    vt_stop();
    return arg;
}

/* What a run is like, from its seed. */
static void configure(uint64_t seed, const char *dir)
{
    static const unsigned preempt[] = {0, 4, 16, 64, 256};
    static const uint32_t blocks[] = {512, 1000, 4096, 6000};
    vt_init(&(struct vt_config){.seed = seed});
    vt_init(&(struct vt_config){seed, preempt[vt_below(5)]});
    bool faults = !vt_chance(4);
    int64_t slow = vt_chance(2) ? 200 : 20;
    net_init(&(struct net_config){.delay_min = 50 * NSEC_PER_USEC,
                                  .delay_max = vt_between(1, 5) * NSEC_PER_MSEC,
                                  .slow_one_in = 10 + (unsigned)vt_below(90),
                                  .slow_max = slow * NSEC_PER_MSEC,
                                  .trace = traced});
    simlog_init(&(struct simlog_config){.write_max = vt_between(0, 2) * NSEC_PER_MSEC,
                                        .sync_max = vt_between(0, 20) * NSEC_PER_MSEC,
                                        .checkpoint_one_in = vt_chance(2) ? 10 : 0});
    simdisk_init(&(struct simdisk_config){.write_max = vt_between(0, 2) * NSEC_PER_MSEC,
                                          .sync_max = vt_between(0, 20) * NSEC_PER_MSEC});
    struct world_config w = {.nclients = 2 + (unsigned)vt_below(vt_chance(3) ? 3 : 1),
                             .nchunkds = 2 + (unsigned)vt_below(2),
                             .lease_ms = 15000 + (unsigned)vt_below(10000),
                             .term_ms = 6000 + (unsigned)vt_below(4000),
                             .timeout_ms = 40000,
                             .flush_ms = 200 + (unsigned)vt_below(1000),
                             .cache_max = vt_chance(5) ? 8 : 1000,
                             .async_close = vt_chance(4),
                             .dirsync = vt_chance(6)};
    w.dir = dir;
    w.client_drift_ppm = -drift_ppm;
    world.mounted = work_mounted;
    work_init(&(struct work_config){.fibers = 1 + (unsigned)vt_below(3),
                                    .ops = 20 + (unsigned)vt_below(40),
                                    .names = 1 + (unsigned)vt_below(6),
                                    .dirs = 1 + (unsigned)vt_below(2),
                                    .block = blocks[vt_below(4)],
                                    .pause_max = vt_between(1, 300) * NSEC_PER_MSEC,
                                    .faults = faults,
                                    .locks = vt_chance(2),
                                    .trace = traced});
    nemesis_init(&(struct nemesis_config){.kinds = faults ? (unsigned)vt_below(256) : 0,
                                          .pause_max = vt_between(50, 3000) * NSEC_PER_MSEC,
                                          .acts = 2 + (unsigned)vt_below(20)});
    world_init(&w);
}

static void add_up(void)
{
    sum->calls += work_calls();
    sum->reads += model_reads();
    sum->messages += net_messages();
    sum->commands += simlog_commands();
    sum->appends += simdisk_appends();
    sum->steps += vt_steps();
    sum->virtual_ns += vt_now();
}

static int run_seed(uint64_t seed, const char *dir)
{
    struct rlimit cpu = {CHILD_SECONDS, CHILD_SECONDS};
    setrlimit(RLIMIT_CPU, &cpu);
    if (traced)
        log_init("", LOG_LVL_DEBUG, NULL);
    mallopt(M_MMAP_THRESHOLD,
            20000); /* large tables come empty from the system: nothing to clear */
    configure(seed, dir);
    vt_spawn(&world.self, "run", run_main, NULL);
    if (!vt_run(RUN_NS) || !run.over) {
        fprintf(stderr, "FOUND: at %.3f s not all is over\n", (double)vt_now() / 1e9);
        vt_dump();
        return VT_EXIT_FOUND;
    }
    add_up();
    if (traced)
        fprintf(stderr, "%12.6f the end: %llu steps\n", (double)vt_now() / 1e9,
                (unsigned long long)vt_steps());
    return 0;
}

/* ---- many ---- */

static void remove_tree(const char *dir)
{
    char cmd[300];
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
    if (system(cmd) != 0)
        fprintf(stderr, "%s cannot be removed\n", dir);
}

static bool one(uint64_t seed, const char *base)
{
    char dir[160];
    int status = 0;
    snprintf(dir, sizeof(dir), "%s/%llu", base, (unsigned long long)seed);
    if (mkdir(dir, 0700) && errno != EEXIST)
        abort();
    fflush(NULL);
    pid_t pid = fork();
    if (!pid)
        _exit(run_seed(seed, dir));
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        abort();
    sum->runs++;
    if (WIFEXITED(status) && !WEXITSTATUS(status))
        return true;
    sum->found++;
    if (WIFSIGNALED(status))
        fprintf(stderr, "FOUND: signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
    fprintf(stderr, "seed %llu: found something; again with --seed %llu --trace\n",
            (unsigned long long)seed, (unsigned long long)seed);
    return false;
}

static double seconds(void)
{
    struct timespec ts;
    extern int __real_clock_gettime(clockid_t id, struct timespec * out);
    __real_clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void report(double took)
{
    printf("%llu seeds in %.1f s (%.0f a minute), %llu of them found something: %.0f s of virtual "
           "time, "
           "%llu calls, %llu answers checked, %llu messages, %llu commands logged, %llu appends, "
           "%llu steps\n",
           (unsigned long long)sum->runs, took, (double)sum->runs * 60 / took,
           (unsigned long long)sum->found, (double)sum->virtual_ns / 1e9,
           (unsigned long long)sum->calls, (unsigned long long)sum->reads,
           (unsigned long long)sum->messages, (unsigned long long)sum->commands,
           (unsigned long long)sum->appends, (unsigned long long)sum->steps);
}

/* The same addresses in each run: what depends on them would not be the seed's. */
static void fix_addresses(char **argv)
{
    int now = personality(0xffffffff);
    if (now < 0 || now & ADDR_NO_RANDOMIZE || getenv("SIM_FIXED"))
        return;
    setenv("SIM_FIXED", "1", 1);
    if (personality((unsigned long)now | ADDR_NO_RANDOMIZE) >= 0)
        execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    const char *tmp = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    char base[100];
    unsigned long long from = 1000000, to = from + SUITE_SEEDS - 1;
    double minutes = 0;
    bool keep_on = false, suite = argc == 1;
    fix_addresses(argv);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--trace"))
            traced = true;
        else if (!strcmp(argv[i], "--keep-on"))
            keep_on = true;
        else if (i + 1 < argc && !strcmp(argv[i], "--seed"))
            from = to = strtoull(argv[++i], NULL, 0);
        else if (i + 1 < argc && !strcmp(argv[i], "--from"))
            from = strtoull(argv[++i], NULL, 0);
        else if (i + 1 < argc && !strcmp(argv[i], "--drift"))
            drift_ppm = strtol(argv[++i], NULL, 0);
        else if (i + 1 < argc && !strcmp(argv[i], "--minutes"))
            minutes = strtod(argv[++i], NULL);
        else if (i + 1 >= argc || strcmp(argv[i], "--seeds") ||
                 sscanf(argv[++i], "%llu..%llu", &from, &to) != 2)
            return fprintf(stderr, "usage: see the top of tests/sim/test_sim_protocol.c\n"), 2;
    }
    sum = mmap(NULL, sizeof(*sum), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(base, sizeof(base), "%s/replfs-sim-XXXXXX", tmp);
    if (sum == MAP_FAILED || !mkdtemp(base))
        abort();
    double t0 = seconds();
    if (minutes > 0)
        to = UINT64_MAX;
    for (size_t i = 0; suite && i < sizeof(regressions) / sizeof(regressions[0]); i++)
        one(regressions[i], base);
    for (uint64_t s = from; s <= to && (keep_on || !sum->found); s++) {
        one(s, base);
        if (minutes > 0 && seconds() - t0 > minutes * 60)
            break;
    }
    remove_tree(base);
    report(seconds() - t0);
    return sum->found ? 1 : 0;
}
