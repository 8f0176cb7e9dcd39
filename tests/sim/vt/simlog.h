/* The metadata log by virtual time, behind metad/mlog.h: what was written outlives its process. */
#ifndef REPLFS_TESTS_SIM_SIMLOG_H
#define REPLFS_TESTS_SIM_SIMLOG_H
#include <stdbool.h>
#include <stdint.h>
#include "metad/log/mlog.h"

struct simlog_config {
    int64_t write_max, sync_max; /* ns that a batch takes, at most */
    unsigned checkpoint_one_in;  /* of so many batches; 0: never */
};
void simlog_init(const struct simlog_config *cfg);
/* The power fails: what was not synced may be gone. The process is dead. */
void simlog_power_cut(void);
/* A fresh state machine that has executed the whole log is as fsm: else the run ends. */
void simlog_check(struct fsm *fsm);
uint64_t simlog_commands(void);
#endif
