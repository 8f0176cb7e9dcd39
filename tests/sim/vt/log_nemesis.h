/* What goes wrong while metads propose: several things at a time, each for a while. */
#ifndef REPLFS_TESTS_SIM_LOG_NEMESIS_H
#define REPLFS_TESTS_SIM_LOG_NEMESIS_H
#include <stdint.h>

enum {
    LOG_NEM_KILL = 1,       /* a metad dies and is started again */
    LOG_NEM_CUT = 2,        /* two do not hear each other, or one the other */
    LOG_NEM_ISOLATE = 4,    /* one is cut off from all */
    LOG_NEM_STOP = 8,       /* SIGSTOP */
    LOG_NEM_SUSPEND = 16,   /* the computer sleeps: one clock stands still */
    LOG_NEM_CLOCK = 32,     /* the wall clock is set */
    LOG_NEM_DISK = 64,      /* slow, full, broken */
    LOG_NEM_RESET = 128,    /* connections break */
    LOG_NEM_POWER = 256,    /* all die at a time */
    LOG_NEM_ROLE = 512,     /* leadership is handed over, a checkpoint is asked for */
    LOG_NEM_SQUEEZE = 1024, /* a follower restarts while another one does not hear the leader */
    LOG_NEM_ALL = 2047
};
struct log_nemesis_config {
    unsigned kinds;
    unsigned acts;     /* in all */
    unsigned at_once;  /* at most */
    int64_t pause_max; /* ns, between two */
};
void log_nemesis_init(const struct log_nemesis_config *cfg);
void log_nemesis_start(void); /* on a fiber of nodes.self */
void log_nemesis_wait(void);  /* until all acts were done, and all is well again */
#endif
