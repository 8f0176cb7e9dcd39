/* The protocol under virtual time: the real client, metad and chunkd on a simulated network, disk and clock (vt/),
 * each run from a seed, in a process of its own. What is checked is said in vt/model.h and vt/work.h.
 *
 * What can be asked for is in vt/runner.h, and:
 *   --drift PPM     the clients' clocks run that much slower than the others'
 *   --metads N      that many, instead of one
 *   --kinds MASK    only these kinds of faults (vt/nemesis.h), 20 of them
 *   --plant NAME    a bug that must be found: see vt/plant.h */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "metad/log/mlog.h"
#include "vt/history.h"
#include "vt/nemesis.h"
#include "vt/net.h"
#include "vt/plant.h"
#include "vt/simdisk.h"
#include "vt/simraft.h"
#include "vt/model.h"
#include "vt/runner.h"
#include "vt/work.h"
#include "vt/world.h"

#define SUITE_SEEDS 300u
#define RUN_NS (900 * NSEC_PER_SEC)
#define CHILD_SECONDS 60u /* of processor time: a run that never ends */

/* Found bugs that are mended since; the first finds its bug again when the mending is taken out, the others did with
 * an earlier choice of calls (what a seed does changes with the calls that programs choose from). */
static const uint64_t regressions[] = {
    40, /* a second recall of an inode was answered before the flush for the first (client, lease_cache.c) */
    3166, /* the answer to an earlier recall took away a later lease (metad, leases.c; also test_leases.c) */
    585, /* a rename whose file lost its name to another one meanwhile failed with ENOENT (client, order.c) */
};

/* "read" is not among them: no seed of 1 to 2000 finds it. A new leader waits for the clients that the sleeping one still
 * has, and by then they have left that one. test_sim_log's "lease" is the same bug seen from the log. */
static const struct runner_plant plants[] = {
    {"term", 27, "is obeyed by a chunkd", {"--metads", "3", "--kinds", "256"}},
    {"twice", 11, ": something seen ", {"--metads", "3", "--kinds", "259"}},
    {"lease", 18, ": read ", {"--metads", "3", "--kinds", "258"}},
};
static const struct runner_more more[] = {
    {"--metads", "3", 10126, 1}, /* a repeated create, removed meanwhile */
    {"--metads", "3", 2000000, 24},
    {"--metads", "5", 3000000, 12}};

struct totals {
    uint64_t calls, reads, messages, commands, checkpoints, appends, orders, old, steps;
    int64_t virtual_ns;
};
static struct totals *sum; /* shared with the children */
static int64_t drift_ppm;
static unsigned metads = 1, kinds;
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

static bool metad_leads(void)
{
    return world_leader() >= 0;
}

static void *run_main(void *arg)
{
    struct mlog_status status;
    for (unsigned i = 0; i < world.cfg.nmetads; i++)
        world_start_metad(i);
    for (unsigned i = 0; i < world.cfg.nchunkds; i++)
        world_start_chunkd(i);
    for (unsigned i = 0; i < world.cfg.nclients; i++)
        world_start_client(i);
    wait_for(clients_are_up);
    wait_for(world_equal);
    run.nemesis = vt_spawn(&world.self, "nemesis", nemesis_main, NULL);
    wait_for(work_over);
    nemesis_end();
    vt_join(run.nemesis);
    wait_for(clients_are_up);
    work_stop();
    wait_for(work_over);
    wait_for(metad_leads);
    vt_sleep_until(vt_now() + world.cfg.term_ms * NSEC_PER_MSEC);
    work_verify();
    wait_for(work_verified);
    wait_for(world_equal);
    for (unsigned i = 0; i < world.cfg.nmetads; i++) {
        mlog_status(world.metad[i].mlog, &status);
        history_check(world.metad[i].fsm, status.applied);
    }
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
    bool faults = !vt_chance(4) || kinds;
    int64_t slow = vt_chance(2) ? 200 : 20;
    net_init(&(struct net_config){.delay_min = 50 * NSEC_PER_USEC,
                                  .delay_max = vt_between(1, 5) * NSEC_PER_MSEC,
                                  .slow_one_in = 10 + (unsigned)vt_below(90),
                                  .slow_max = slow * NSEC_PER_MSEC,
                                  .trace = runner_traced()});
    simraft_init(&(struct simraft_config){.write_max = vt_between(0, 2) * NSEC_PER_MSEC,
                                          .sync_max = vt_between(0, 20) * NSEC_PER_MSEC,
                                          .trace = runner_traced()});
    history_init(0, plant_chosen() == PLANT_APPLY);
    simdisk_init(&(struct simdisk_config){.write_max = vt_between(0, 2) * NSEC_PER_MSEC,
                                          .sync_max = vt_between(0, 20) * NSEC_PER_MSEC});
    struct world_config w = {.nmetads = metads,
                             .nclients = 2 + (unsigned)vt_below(vt_chance(3) ? 3 : 1),
                             .nchunkds = 2 + (unsigned)vt_below(2),
                             .lease_ms = 15000 + (unsigned)vt_below(10000),
                             .term_ms = 6000 + (unsigned)vt_below(4000),
                             .timeout_ms = 40000,
                             .flush_ms = 200 + (unsigned)vt_below(1000),
                             .cache_max = vt_chance(5) ? 8 : 1000,
                             .async_close = vt_chance(4),
                             .dirsync = vt_chance(6),
                             .checkpoint_bytes = vt_chance(2) ? 1000 : 0};
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
                                    .trace = runner_traced()});
    struct nemesis_config nem = {.kinds = faults ? (unsigned)vt_below(metads > 1 ? 2048 : 256) : 0,
                                 .pause_max = vt_between(50, 3000) * NSEC_PER_MSEC,
                                 .acts = 2 + (unsigned)vt_below(20)};
    if (kinds) {
        nem.kinds = kinds;
        nem.acts = 20;
    }
    nemesis_init(&nem);
    world_init(&w);
}

static void add_up(void)
{
    sum->calls += work_calls();
    sum->reads += model_reads();
    sum->messages += net_messages();
    sum->commands += history_commands();
    sum->checkpoints += simraft_snapshots();
    sum->appends += simdisk_appends();
    sum->orders += plant_orders();
    sum->old += plant_old();
    sum->steps += vt_steps();
    sum->virtual_ns += vt_now();
}

static int run_seed(uint64_t seed, const char *dir)
{
    configure(seed, dir);
    vt_spawn(&world.self, "run", run_main, NULL);
    if (!vt_run(RUN_NS) || !run.over) {
        fprintf(stderr, "FOUND: at %.3f s not all is over\n", (double)vt_now() / 1e9);
        vt_dump();
        return VT_EXIT_FOUND;
    }
    add_up();
    if (runner_traced())
        fprintf(stderr, "%12.6f the end: %llu steps\n", (double)vt_now() / 1e9,
                (unsigned long long)vt_steps());
    return 0;
}

static void report(void)
{
    printf("%.0f s of virtual time, %llu calls, %llu answers checked, %llu messages, "
           "%llu commands logged, %llu checkpoints, %llu appends, %llu orders and %llu of terms "
           "that were over, "
           "%llu steps\n",
           (double)sum->virtual_ns / 1e9, (unsigned long long)sum->calls,
           (unsigned long long)sum->reads, (unsigned long long)sum->messages,
           (unsigned long long)sum->commands, (unsigned long long)sum->checkpoints,
           (unsigned long long)sum->appends, (unsigned long long)sum->orders,
           (unsigned long long)sum->old, (unsigned long long)sum->steps);
}

static bool option(const char *name, const char *value)
{
    if (!strcmp(name, "--plant"))
        return plant_choose(value);
    if (!strcmp(name, "--drift")) {
        drift_ppm = strtol(value, NULL, 0);
        return true;
    }
    if (!strcmp(name, "--kinds")) {
        kinds = (unsigned)strtoul(value, NULL, 0);
        return kinds < 2048;
    }
    metads = (unsigned)strtoul(value, NULL, 0);
    return !strcmp(name, "--metads") && metads >= 1 && metads <= WORLD_METADS;
}

int main(int argc, char **argv)
{
    const struct runner r = {.run = run_seed,
                             .report = report,
                             .option = option,
                             .suite_from = 1000000,
                             .suite_seeds = SUITE_SEEDS,
                             .regressions = regressions,
                             .nregressions = sizeof(regressions) / sizeof(regressions[0]),
                             .plants = plants,
                             .nplants = sizeof(plants) / sizeof(plants[0]),
                             .more = more,
                             .nmore = sizeof(more) / sizeof(more[0]),
                             .child_seconds = CHILD_SECONDS};
    sum = runner_shared(sizeof(*sum));
    return runner_main(&r, argc, argv);
}
