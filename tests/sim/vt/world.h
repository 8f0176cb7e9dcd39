/* The computers of a run: some metads, chunkds and clients, all of them the real programs, each a process of its own
 * that can be killed and started again. */
#ifndef REPLFS_TESTS_SIM_WORLD_H
#define REPLFS_TESTS_SIM_WORLD_H
#include "fiber.h"
#include "fuse/client/client.h"

#define WORLD_CLIENTS 4u
#define WORLD_CHUNKDS 4u
#define WORLD_METADS 5u
#define HOST_METAD 1u  /* the first one; the others: world_metad_host() */
#define HOST_CHUNKD 2u /* and on */
#define HOST_CLIENT 8u /* and on */

struct fsm;
struct mlog;
struct world_config {
    const char *dir; /* for the few small files that the programs keep */
    unsigned nmetads, nclients, nchunkds;
    unsigned lease_ms, term_ms, timeout_ms, flush_ms;
    int64_t client_drift_ppm;
    size_t cache_max;          /* inodes that a client caches */
    uint64_t checkpoint_bytes; /* of the log between checkpoints */
    unsigned check_ms;         /* how often metads compare their states */
    bool async_close, dirsync;
};
struct world_client {
    struct vt_proc *proc; /* of the present run of it; NULL: not running */
    struct client *c;     /* when it is mounted */
    unsigned run;         /* how often it was started */
    bool starting;
};
struct world_metad {
    struct vt_proc *proc; /* of the present run; NULL: not running */
    struct fsm *fsm;      /* while it runs, from when it was opened on; else NULL */
    struct mlog *mlog;
    bool failed; /* its log has said that it has to be started again */
};
struct world {
    struct world_config cfg;
    struct vt_proc self; /* who does all this */
    struct world_metad metad[WORLD_METADS];
    struct vt_proc *chunkd[WORLD_CHUNKDS];
    struct world_client client[WORLD_CLIENTS];
    /* A client is mounted: on a fiber of its process. */
    void (*mounted)(unsigned client);
};
extern struct world world;

void world_init(const struct world_config *cfg);
void world_start_metad(unsigned i); /* return at once; not on a fiber of what is started */
void world_start_chunkd(unsigned i);
void world_start_client(unsigned i);
void world_kill_metad(unsigned i);
unsigned world_metad_host(unsigned i);
int world_leader(void);      /* the metad whose state may be read; -1: none right now */
struct fsm *world_fsm(void); /* the newest state there is; NULL: no metad runs */
bool world_equal(void);      /* all metads run, have applied the same and are voters */
void world_kill_chunkd(unsigned i);
void world_kill_client(unsigned i);
struct vt_proc *world_proc_new(const char *name, unsigned host);
#endif
