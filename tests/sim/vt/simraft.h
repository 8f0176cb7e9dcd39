/* What libraft keeps on a disk, in memory: raft_uv_init() is defined in simraft.c and comes before the library's,
 * and mlog_check() is wrapped. A disk belongs to a log directory and outlives its process: what was not yet written when the process
 * died is lost, but for a beginning of it that the seed chooses. */
#ifndef REPLFS_TESTS_SIM_SIMRAFT_H
#define REPLFS_TESTS_SIM_SIMRAFT_H
#include <stdbool.h>
#include <stdint.h>

struct simraft_config {
    int64_t write_max, sync_max; /* ns that a batch takes, at most */
    unsigned trailing; /* entries kept behind a snapshot, at most; 0: as the product says */
    bool forget_votes,
        early; /* planted bugs: votes are lost, entries are said to be stored too early */
    bool trace;
};
void simraft_init(const struct simraft_config *cfg);
/* dir: a metad's data directory. A full disk: nothing is written before there is space again. */
void simraft_full(const char *dir, bool full);
/* The next write to it fails, if its process lives. */
void simraft_break(const char *dir);
void simraft_slow(const char *dir, int64_t ns); /* what a write takes in addition, at most */
/* A new, empty disk. The process is dead. */
void simraft_wipe(const char *dir);
uint64_t simraft_entries(void);   /* stored, in all */
uint64_t simraft_snapshots(void); /* likewise */
#endif
