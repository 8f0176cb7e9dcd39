/* The main part of a program that runs seeds, each in a process of its own:
 *
 *   PROGRAM                                the seeds of the test suite
 *   PROGRAM --seed N [--trace]             one, with all that happens
 *   PROGRAM --seeds A..B
 *   PROGRAM --minutes M [--from A]
 *   ... --keep-on                          after something was found
 *
 * Exit: 0 when all were well; the seeds that were not are named. */
#ifndef REPLFS_TESTS_SIM_RUNNER_H
#define REPLFS_TESTS_SIM_RUNNER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A bug, for option("--plant", name), with further options (names and values; NULL: no more). What is said when it is
 * found has `says` in it. This seed finds it, or did: any change of the programs moves what a seed plays, so the next
 * ones are tried, too. */
#define RUNNER_PLANT_SEEDS 200u
struct runner_plant {
    const char *name;
    uint64_t seed;
    const char *says;
    const char *options[7];
};
/* Seeds with another option. */
struct runner_more {
    const char *option, *value;
    uint64_t from, seeds;
};
struct runner {
    /* In a child process, with a directory of its own. 0: all was well. */
    int (*run)(uint64_t seed, const char *dir);
    void (*report)(void); /* prints what all runs did; in the parent */
    /* Further options, each with a value; false: unknown. NULL: none. */
    bool (*option)(const char *name, const char *value);
    uint64_t suite_from, suite_seeds;
    const uint64_t *regressions; /* of the suite, too */
    size_t nregressions;
    const struct runner_plant *plants; /* of the suite, too: each must be found */
    size_t nplants;
    const struct runner_more *more; /* of the suite, too, as its end */
    size_t nmore;
    unsigned child_seconds; /* of processor time: a run that never ends */
};
int runner_main(const struct runner *r, int argc, char **argv);
bool runner_traced(void);
/* Memory that children and parent share, zeroed. Before runner_main. */
void *runner_shared(size_t len);
#endif
