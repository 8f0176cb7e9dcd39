/* fault_lab: the three programs of the fault laboratory in one; main.c has the usage. */
#pragma once
#include <stdint.h>
#include <stdio.h>

#include "model.h"

struct random {
    uint64_t x;
};
/* 0..below-1 */
uint32_t random_below(struct random *r, uint32_t below);

/* Microscopic views that all share: a folder outside of the cluster. */
struct board {
    const char *dir;  /* has violations, errors and stop */
    const char *name; /* of the load, in what it writes there */
};
/* A line of DIR/violations, printf-like. */
void board_violation(const struct board *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* An operation failed: a line of DIR/errors. Whether a fault explains it is for the script to say. */
void board_error(const struct board *b, const char *what, int error);
/* Whether the file is there. */
int board_has(const struct board *b, const char *file);
int board_stopped(const struct board *b);
uint64_t wall_ms(void);

/* One worker in the folder `root`, which it makes, until it is told to stop; its journal is new. Returns 0, or 1 when the
 * folder could not be made. Called by a thread of its own. */
int work_run(const struct board *b, const char *root, const char *journal, uint32_t worker,
             uint64_t seed);

/* Takes locks that the others take, too, until it is told to stop. `witness` is a file outside of the cluster that all
 * use, on whatever mount. */
enum { LOCKS = 3 };
int locks_run(const struct board *b, const char *folder, const char *witness, uint64_t seed);

/* Compares a worker's folder with its journal; prints each difference. `forgot`: what was not synced may be gone.
 * Writes each file's sum to `seen`, unless that is NULL. Returns the number of differences, -1 when it has no journal. */
int check_run(const char *root, const char *journal, uint32_t worker, int forgot, FILE *seen);
/* Compares it with what check_run wrote. */
int check_again(const char *seen);
