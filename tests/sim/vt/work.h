/* What the clients' programs do, checked against the model. */
#ifndef REPLFS_TESTS_SIM_WORK_H
#define REPLFS_TESTS_SIM_WORK_H
#include <stdbool.h>
#include <stdint.h>

struct work_config {
    unsigned fibers, ops; /* programs of a client, calls of each */
    unsigned names, dirs; /* of names in each directory; directories */
    uint32_t block;       /* bytes */
    int64_t pause_max;    /* ns between calls, at most */
    bool faults;          /* else each error is a finding */
    bool locks;
    bool trace;
};
void work_init(const struct work_config *cfg);
void work_mounted(unsigned client); /* on a fiber of the client: starts its programs */
bool work_over(void);               /* all programs have ended, or are dead */
void work_stop(void);               /* programs end with their present call */
/* All is quiet: everything is read by each client, and compared. On fibers of its own; then work_verified(). */
void work_verify(void);
bool work_verified(void);
/* The client is dead, or cut off (or back): for locks. */
void work_client_dead(unsigned client);
void work_client_cut(unsigned client, bool cut);
uint64_t work_calls(void);
#endif
