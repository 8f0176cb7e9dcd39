/* The chunkd's bond with metads: registration, heartbeats with what changed, full reports,
 * reconnection, which of them leads. Owns one thread. */
#ifndef REPLFS_CHUNKD_HEARTBEAT_H
#define REPLFS_CHUNKD_HEARTBEAT_H
#include "disks.h"
#include "rpc/rpc.h"
#include "service.h"

struct heartbeat;
struct heartbeat_config {
    struct rpc_loop *loop;
    struct service *service;
    struct disks *disks;
    struct registry *registry; /* is told what the leader says of other chunkds */
    struct terms *terms;       /* and in which term it leads */
    struct scrub *scrub;       /* and how fast it may read; tells what it found */
    char *const *metas;        /* addresses of metads; copied */
    size_t nmetas;
    const char *host_id, *host_name,
        *addr; /* told at registration; addr: where clients reach us; copied */
    /* Something that no retry mends (metad serves another cluster, a data directory cannot be given
     * its identity): message already logged. On the heartbeat's thread. */
    void (*fatal)(void *arg, int code);
    /* Registered for the first time, stores open: clients are served. May be NULL. */
    void (*ready)(void *arg, uint32_t chunkd);
    void *arg;
};
int heartbeat_start(const struct heartbeat_config *cfg, struct heartbeat **out);
/* Tells metads that this chunkd stops, waiting a second at most for their answers, and joins the thread. Not on a loop
 * thread. */
void heartbeat_stop(struct heartbeat *h);
void heartbeat_free(
    struct heartbeat *h); /* after heartbeat_stop and the loop's end; NULL is fine */
#endif
