/* Private to status.c (the numbers), health.c (what is wrong, what to do) and info.c (files), status_metads.c. */
#ifndef REPLFS_METAD_CLUSTER_STATUS_INTERNAL_H
#define REPLFS_METAD_CLUSTER_STATUS_INTERNAL_H
#include "nodes_internal.h"

#define STATUS_COPIES_MAX 16
#define STATUS_PROBLEMS_MAX 256

struct status_count {
    uint64_t chunks[FSM_GOAL_MAX + 1][STATUS_COPIES_MAX],
        bytes[FSM_GOAL_MAX + 1][STATUS_COPIES_MAX];
    uint64_t below, above, misplaced, lost, unavailable, bad, damaged;
    uint64_t endangered;   /* chunks whose only good copies are on disks that can only be read */
    uint64_t unreferenced; /* bytes of chunks that no extent names any more, once for each chunk */
    char damaged_where[400];
};
struct status_mem {
    struct status_mem *next;
    _Alignas(16) char data[];
};
struct status_ask { /* one reply being built */
    struct nodes *n;
    int64_t now;
    struct fsm_counts fsm;
    struct status_count count;
    bool behind; /* nodes_past_behind */
    Replfs__Problem *problem[STATUS_PROBLEMS_MAX];
    size_t nproblems;
    struct status_mem *mem;
};
/* Memory that lives until status_free; zeroed. Never NULL. */
void *status_alloc(struct status_ask *a, size_t len);
char *status_text(struct status_ask *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void status_free(struct status_ask *a);
/* severity 1 warning, 2 error; what and way_out must live as long as the reply. */
void status_problem(struct status_ask *a, unsigned severity, const char *code, const char *what,
                    const char *way_out);
void clocks_problems(struct status_ask *a); /* clocks.c. lock held */
void status_metads(struct status_ask *a,
                   Replfs__StatusReply *r); /* status_metads.c. no lock held */
/* Finds what is wrong and hangs all problems into r, errors first. lock held. */
void status_problems(struct status_ask *a, Replfs__StatusReply *r);
#endif
