/* One chunk daemon, whole: what main.c runs, and tests run several of in one process. */
#ifndef REPLFS_CHUNKD_CHUNKD_H
#define REPLFS_CHUNKD_CHUNKD_H
#include "disks.h"
#include "rpc/rpc.h"

struct chunkd_config {
    struct disks_config disks;
    struct rpc_config rpc; /* role is filled in */
    const char *listen;    /* "host:port", port 0: any */
    const char *advertise; /* NULL or "": the listening address */
    char *const *metas;
    size_t nmetas;
    const char *host_id, *host_name;
    bool no_scrub; /* for the simulator, whose schedules are known by their seeds */
    void (*fatal)(void *arg, int code); /* as in heartbeat.h */
    void (*ready)(void *arg, uint32_t chunkd);
    void *arg;
};
struct chunkd;
/* Opens the disks, listens, starts looking for metad. 0 or a negative code after a log line. */
int chunkd_start(const struct chunkd_config *cfg, struct chunkd **out);
/* Refuses new requests, finishes those under way, syncs and closes the stores, frees. NULL is fine.
 */
void chunkd_stop(struct chunkd *c);
/* Reads the certificates again, as rpc_loop_reload_tls. */
int chunkd_reload_tls(struct chunkd *c);
const char *chunkd_addr(const struct chunkd *c); /* where clients reach it, with the bound port */
uint32_t chunkd_id(struct chunkd *c);            /* 0: not registered yet */
struct disks *chunkd_disks(struct chunkd *c);    /* for tests */
#endif
