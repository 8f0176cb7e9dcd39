/* What main shares with the engine: the result table in shared memory. */
#ifndef CONFORM_ENGINE_H
#define CONFORM_ENGINE_H

#include "tests/conform/conform.h"

#include <stdatomic.h>

#define CONFORM_TEXT 400
#define CONFORM_KEPT 4000
#define CONFORM_STOPPED 3 // exit status of a process that ended its case after a failed assertion

struct conform_failure {
    int line;
    bool expected; // a listed difference
    char name[CONFORM_TEXT];
    char want[128];
    char got[256];
};

struct conform_difference {
    char pattern[256]; // fnmatch(3), over "AREA/CASE: TEXT"
    atomic_uint passed, failed;
};

struct conform_results {
    bool verbose, quiet;
    atomic_uint assertions, failed, expected, kept;
    struct conform_failure failure[CONFORM_KEPT];
    int differences;
    struct conform_difference difference[128];
};

extern struct conform_results *conform_results;

extern const char *conform_top, *conform_peer; // DIR, and the same by another mount or NULL

void conform_results_open(void);
/* The case whose assertions follow. */
void conform_enter(const char *area, const char *name);

#endif
