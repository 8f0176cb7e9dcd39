/* The replicated log of three or five metads under virtual time: metad/log as it is, libraft's core, on a simulated
 * loop, disk and network (vt/). What is checked is said in vt/log_nodes.h.
 *
 * What can be asked for is in vt/runner.h, and:
 *   --plant NAME    a bug that must be found: lease (a leader reads without a lease), vote (a metad that was just
 *                   started votes), forget (a vote is not stored; no seed is known that finds it, since nobody
 *                   votes shortly after a start), early (entries are acknowledged before they are
 *                   stored), apply (what a command does depends on the metad), twice (a command is proposed again)
 *   --metads N      that many
 *   --kinds MASK    only these kinds of faults (vt/log_nemesis.h), 12 of them */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "vt/fiber.h"
#include "vt/history.h"
#include "vt/log_nemesis.h"
#include "vt/log_nodes.h"
#include "vt/net.h"
#include "vt/runner.h"
#include "vt/simraft.h"

#define SUITE_SEEDS 25u
#define RUN_NS (1200 * NSEC_PER_SEC)
#define CHILD_SECONDS 60u

/* Found with these seeds, when they are planted. */
static const struct runner_plant plants[] = {
    {"apply", 1, "the state is another one", {NULL}},
    {"lease", 20, "may both be read", {NULL}},
    {"vote", 1, "may both be read", {"--kinds", "1024"}},
    {"early", 2, "cannot be trusted", {NULL}},
    {"twice", 91, "File exists", {NULL}},
};

struct totals {
    uint64_t metads, commands, answered, entries, snapshots, terms, digests, looks, messages, steps;
    int64_t virtual_ns;
};
static struct totals *sum; /* shared with the children */
static enum plant plant;
static unsigned metads, kinds;
static unsigned slow_one_in;
static uint64_t last;
static bool over;

/* ---- one run ---- */

static void wait_for(bool (*cond)(void))
{
    while (!cond())
        vt_sleep_until(vt_now() + 20 * NSEC_PER_MSEC);
}

static bool first_is_open(void)
{
    return nodes.node[0].open;
}

static bool some_more_answered(void)
{
    return log_nodes_answered() >= last || log_nodes_all_used();
}

static void *run_main(void *arg)
{
    vt_spawn(&nodes.self, "watch", log_nodes_watch, NULL);
    log_nodes_start(0);
    wait_for(first_is_open);
    log_nodes_join_all();
    net_set_slow(slow_one_in);
    log_nemesis_start();
    log_nemesis_wait();
    net_set_slow(0);
    last = log_nodes_answered() + 10;
    wait_for(some_more_answered);
    nodes.enough = true;
    wait_for(log_nodes_done);
    wait_for(log_nodes_equal);
    log_nodes_verify();
    over = true;
    vt_stop();
    return arg;
}

static void configure(uint64_t seed, const char *dir)
{
    static const unsigned preempt[] = {0, 4, 16, 64, 256};
    vt_init(&(struct vt_config){.seed = seed});
    vt_init(&(struct vt_config){seed, preempt[vt_below(5)]});
    int64_t slow = vt_chance(3) ? 400 : 20;
    net_init(&(struct net_config){.delay_min = 50 * NSEC_PER_USEC,
                                  .delay_max = vt_between(1, 5) * NSEC_PER_MSEC,
                                  .slow_max = slow * NSEC_PER_MSEC,
                                  .trace = runner_traced()});
    slow_one_in = 10 + (unsigned)vt_below(90);
    simraft_init(
        &(struct simraft_config){.write_max = vt_between(0, 2) * NSEC_PER_MSEC,
                                 .sync_max = vt_between(0, 20) * NSEC_PER_MSEC,
                                 .trailing = vt_chance(2) ? 16 + (unsigned)vt_below(50) : 0,
                                 .forget_votes = plant == PLANT_FORGET,
                                 .early = plant == PLANT_EARLY,
                                 .trace = runner_traced()});
    history_init(1 + (unsigned)vt_below(40), plant == PLANT_APPLY);
    struct log_config cfg = {.n = vt_chance(2) ? 3 : 5,
                             .proposers = 1 + (unsigned)vt_below(4),
                             .pause_max = vt_between(10, 400) * NSEC_PER_MSEC,
                             .checkpoint_bytes = vt_chance(3) ? 0 : 500 + vt_below(4000),
                             .drift_ppm = vt_chance(2) ? 0 : 2000,
                             .plant = plant};
    cfg.dir = dir;
    if (metads)
        cfg.n = metads;
    log_nodes_init(&cfg);
    struct log_nemesis_config nem = {.kinds =
                                         vt_chance(6) ? 0 : (unsigned)vt_below(LOG_NEM_ALL + 1),
                                     .acts = 2 + (unsigned)vt_below(12),
                                     .at_once = 1 + (unsigned)vt_below(3),
                                     .pause_max = vt_between(50, 3000) * NSEC_PER_MSEC};
    if (kinds) {
        nem.kinds = kinds;
        nem.acts = 12;
    }
    log_nemesis_init(&nem);
}

static void add_up(void)
{
    sum->metads += nodes.cfg.n;
    sum->commands += history_commands();
    sum->answered += log_nodes_answered();
    sum->entries += simraft_entries();
    sum->snapshots += simraft_snapshots();
    sum->terms += log_nodes_terms();
    sum->digests += history_digests();
    sum->looks += log_nodes_looks();
    sum->messages += net_messages();
    sum->steps += vt_steps();
    sum->virtual_ns += vt_now();
}

static int run_seed(uint64_t seed, const char *dir)
{
    configure(seed, dir);
    vt_spawn(&nodes.self, "run", run_main, NULL);
    if (!vt_run(RUN_NS) || !over) {
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

/* ---- many ---- */

static void report(void)
{
    printf(
        "%.0f s of virtual time, %llu metads, %llu terms with a leader, %llu commands in the logs, "
        "%llu answered, %llu entries and %llu snapshots stored, %llu states compared, "
        "%llu looks, %llu messages, %llu steps\n",
        (double)sum->virtual_ns / 1e9, (unsigned long long)sum->metads,
        (unsigned long long)sum->terms, (unsigned long long)sum->commands,
        (unsigned long long)sum->answered, (unsigned long long)sum->entries,
        (unsigned long long)sum->snapshots, (unsigned long long)sum->digests,
        (unsigned long long)sum->looks, (unsigned long long)sum->messages,
        (unsigned long long)sum->steps);
}

static bool option(const char *name, const char *value)
{
    static const char *const names[] = {"none",  "lease", "vote",  "forget",
                                        "early", "apply", "twice", NULL};
    if (!strcmp(name, "--metads")) {
        metads = (unsigned)strtoul(value, NULL, 0);
        return metads >= 1 && metads <= LOG_NODES;
    }
    if (!strcmp(name, "--kinds")) {
        kinds = (unsigned)strtoul(value, NULL, 0);
        return kinds <= LOG_NEM_ALL;
    }
    for (int i = 0; names[i]; i++)
        if (!strcmp(value, names[i])) {
            plant = (enum plant)i;
            return !strcmp(name, "--plant");
        }
    return false;
}

int main(int argc, char **argv)
{
    const struct runner r = {.run = run_seed,
                             .report = report,
                             .option = option,
                             .suite_from = 10000000,
                             .suite_seeds = SUITE_SEEDS,
                             .plants = plants,
                             .nplants = sizeof(plants) / sizeof(plants[0]),
                             .child_seconds = CHILD_SECONDS};
    sum = runner_shared(sizeof(*sum));
    return runner_main(&r, argc, argv);
}
