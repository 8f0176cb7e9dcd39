/* The disks of simulated chunkds: chunkd/store.h in memory. What was appended outlives its process, what was synced
 * also a power cut. A disk is known by its directory. */
#ifndef REPLFS_TESTS_SIM_SIMDISK_H
#define REPLFS_TESTS_SIM_SIMDISK_H
#include <stdbool.h>
#include <stdint.h>

struct simdisk_config {
    int64_t write_max, sync_max; /* ns that an operation takes, at most */
};
void simdisk_init(const struct simdisk_config *cfg);
/* The power of this disk fails; its process is dead. */
void simdisk_power_cut(const char *dir);
uint64_t simdisk_appends(void);
#endif
