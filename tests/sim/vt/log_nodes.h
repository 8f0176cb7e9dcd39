/* Several metads' logs, without the rest of metad: each a process of its own with a state machine, a log and fibers that
 * propose numbered commands while it leads. The first makes the cluster, the others join it.
 *
 * Checked, at any time: one metad elected a term; never two that may be read; whoever may be read has applied all that anybody
 * was told of; one order of commands, in the order in which they were proposed and answered (and what vt/history.h and
 * vt/simraft.h check). At the end: what was answered with success is in the log once, what was not at most once; all
 * logs and states are equal. */
#ifndef REPLFS_TESTS_SIM_LOG_NODES_H
#define REPLFS_TESTS_SIM_LOG_NODES_H
#include <stdbool.h>
#include <stdint.h>
#include "fiber.h"
#include "metad/fsm/fsm.h"
#include "metad/log/mlog.h"

#define LOG_NODES 5u

/* Bugs to plant: what must be found (see test_sim_log.c). */
enum plant {
    PLANT_NONE,
    PLANT_LEASE,
    PLANT_VOTE,
    PLANT_FORGET,
    PLANT_EARLY,
    PLANT_APPLY,
    PLANT_TWICE
};
struct log_config {
    const char *dir;
    unsigned n;         /* metads */
    unsigned proposers; /* of each */
    int64_t pause_max;  /* ns, between two commands of a proposer */
    uint64_t checkpoint_bytes;
    int64_t drift_ppm; /* clocks, at most, in both directions */
    enum plant plant;
};
struct log_node {
    struct vt_proc *proc; /* of the present run; NULL: it is down */
    char dir[160], addr[32];
    bool made;   /* its directory */
    bool open;   /* it was opened and lives */
    bool failed; /* has said that it has to be started again */
    struct fsm *fsm;
    struct mlog *mlog;
    unsigned run;
    uint64_t applying; /* index; 0: none yet */
};
struct log_nodes {
    struct log_config cfg;
    struct vt_proc self;
    char uuid[37];
    struct log_node node[LOG_NODES];
    bool enough; /* nothing more is proposed */
    bool quiet;  /* for the moment */
};
extern struct log_nodes nodes;

void log_nodes_init(const struct log_config *cfg);
void log_nodes_start(unsigned i); /* returns at once */
void log_nodes_kill(unsigned i);
/* Stops its log in order and kills it then. On a fiber of nodes.self. */
void log_nodes_stop(unsigned i);
/* Until all belong to the cluster. On a fiber of nodes.self. */
void log_nodes_join_all(void);
int log_nodes_leader(void); /* the one that may be read; -1: none */
struct vt_proc *log_nodes_proc(unsigned i);
/* Looks at all of them now and then; ends with the run. A fiber's function. */
void *log_nodes_watch(void *arg);
bool log_nodes_done(void);  /* what was proposed is answered, or lost with a process */
bool log_nodes_equal(void); /* all are up, have a leader and applied the same */
void log_nodes_verify(void);
uint64_t log_nodes_answered(void);
bool log_nodes_all_used(void); /* there are no numbers for more commands */
uint64_t log_nodes_looks(void);
uint64_t log_nodes_terms(void); /* in which somebody led */
#endif
