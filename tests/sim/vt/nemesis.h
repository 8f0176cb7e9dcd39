/* What goes wrong in a run, and when. */
#ifndef REPLFS_TESTS_SIM_NEMESIS_H
#define REPLFS_TESTS_SIM_NEMESIS_H
#include <stdbool.h>
#include <stdint.h>

enum {
    NEMESIS_RESET = 1,     /* connections break */
    NEMESIS_METAD = 2,     /* metad is killed and started again */
    NEMESIS_CHUNKD = 4,    /* so is a chunkd */
    NEMESIS_CLIENT = 8,    /* so is a client */
    NEMESIS_BLINK = 16,    /* short cuts and stops: shorter than any lease */
    NEMESIS_CUT = 32,      /* a client is cut off, or stopped, for longer than leases last */
    NEMESIS_POWER = 128,   /* that of all computers fails */
    NEMESIS_CLOCK = 64,    /* wall clocks are set; suspended computers */
    NEMESIS_ISOLATE = 256, /* some metads are cut off from the others, or one is stopped */
    NEMESIS_OLD =
        512, /* the leader sleeps for longer than leases last, with a client that reaches no other metad */
    NEMESIS_DISK = 1024, /* of a metad: slow, full, broken */
};
struct nemesis_config {
    unsigned kinds;
    int64_t pause_max; /* ns between two */
    unsigned acts;     /* so many in all */
};
void nemesis_init(const struct nemesis_config *cfg);
/* A fiber's function: goes on until nemesis_end(), then leaves everything running and connected. */
void *nemesis_main(void *arg);
void nemesis_end(void);
#endif
