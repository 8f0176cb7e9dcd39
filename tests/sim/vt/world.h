/* The computers of a run: one metad, some chunkds, some clients, all of them the real programs, each a process of
 * its own that can be killed and started again. */
#ifndef REPLFS_TESTS_SIM_WORLD_H
#define REPLFS_TESTS_SIM_WORLD_H
#include "fiber.h"
#include "fuse/client/client.h"

#define WORLD_CLIENTS 4u
#define WORLD_CHUNKDS 4u
#define HOST_METAD 1u
#define HOST_CHUNKD 2u /* and on */
#define HOST_CLIENT 8u /* and on */

struct fsm;
struct world_config {
    const char *dir; /* for the few small files that the programs keep */
    unsigned nclients, nchunkds;
    unsigned lease_ms, term_ms, timeout_ms, flush_ms;
    int64_t client_drift_ppm;
    size_t cache_max; /* inodes that a client caches */
    bool async_close, dirsync;
};
struct world_client {
    struct vt_proc *proc; /* of the present run of it; NULL: not running */
    struct client *c;     /* when it is mounted */
    unsigned run;         /* how often it was started */
    bool starting;
};
struct world {
    struct world_config cfg;
    struct vt_proc self; /* who does all this */
    struct vt_proc *metad, *chunkd[WORLD_CHUNKDS];
    struct fsm *fsm; /* metad's, while it serves; else NULL */
    struct world_client client[WORLD_CLIENTS];
    /* A client is mounted: on a fiber of its process. */
    void (*mounted)(unsigned client);
};
extern struct world world;

void world_init(const struct world_config *cfg);
void world_start_metad(void); /* return at once; not on a fiber of what is started */
void world_start_chunkd(unsigned i);
void world_start_client(unsigned i);
void world_kill_metad(void);
void world_kill_chunkd(unsigned i);
void world_kill_client(unsigned i);
struct vt_proc *world_proc_new(const char *name, unsigned host);
#endif
