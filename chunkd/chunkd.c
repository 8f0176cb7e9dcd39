/* chunkd: puts the parts of the daemon together and takes them apart in the right order.
 *
 * Start: disks (identity, recovery), rpc loop, service, listener, heartbeat. Stop: heartbeat first
 * (metad sends no more orders), then registry and peers (nobody waits for other chunkds any more),
 * service (all requests are answered), loop (no callback runs any more), scrub, and last the stores, which sync. What
 * the loop's callbacks may still touch is freed only after the loop.
 *
 * Thread context: start and stop on one thread, not a loop thread. */
#include "chunkd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "heartbeat.h"
#include "peers.h"
#include "registry.h"
#include "scrub.h"
#include "service.h"
#include "terms.h"

#define LOG_MODULE "chunkd"

struct chunkd {
    struct disks *disks;
    struct rpc_loop *loop;
    struct peers *peers;
    struct registry *registry;
    struct terms *terms;
    struct scrub *scrub;
    struct service *service;
    struct heartbeat *heartbeat;
    char cluster[40];
    char addr[300];
};

static int listen_on(struct chunkd *c, const struct chunkd_config *cfg)
{
    struct rpc_service svc = {.request = serve_request, .arg = c->service};
    if (c->cluster[0])
        svc.cluster = c->cluster;
    int port, rc = rpc_listen(c->loop, cfg->listen, &svc, &port);
    if (rc != 0)
        return rc;
    const char *colon = strrchr(cfg->listen, ':');
    int host = colon ? (int)(colon - cfg->listen) : (int)strlen(cfg->listen);
    if (cfg->advertise && cfg->advertise[0])
        snprintf(c->addr, sizeof(c->addr), "%s", cfg->advertise);
    else
        snprintf(c->addr, sizeof(c->addr), "%.*s:%d", host, cfg->listen, port);
    return 0;
}

int chunkd_start(const struct chunkd_config *cfg, struct chunkd **out)
{
    struct chunkd *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    int rc = disks_new(&cfg->disks, &c->disks);
    struct rpc_config rpc = cfg->rpc;
    rpc.role = RPC_ROLE_CHUNKD;
    if (rc == 0)
        rc = rpc_loop_new(&rpc, &c->loop);
    if (rc == 0)
        rc = peers_new(c->loop, &c->peers);
    if (rc == 0 && !cfg->no_scrub)
        rc = scrub_new(c->disks, &c->scrub);
    c->registry = registry_new();
    c->terms = terms_new();
    struct serve_config sc = {
        .loop = c->loop,
        .disks = c->disks,
        .peers = c->peers,
        .registry = c->registry,
        .terms = c->terms,
        .scrub = c->scrub,
        .ndisks = cfg->disks.ndirs,
    };
    if (rc == 0)
        rc = serve_new(&sc, &c->service);
    if (rc == 0) {
        uint32_t id = disks_identity(c->disks, c->cluster);
        serve_identity(c->service, c->cluster, id, 0);
        rc = listen_on(c, cfg);
    }
    struct heartbeat_config hc = {
        .loop = c->loop,
        .service = c->service,
        .disks = c->disks,
        .registry = c->registry,
        .terms = c->terms,
        .scrub = c->scrub,
        .metas = cfg->metas,
        .nmetas = cfg->nmetas,
        .host_id = cfg->host_id,
        .host_name = cfg->host_name,
        .addr = c->addr,
        .fatal = cfg->fatal,
        .ready = cfg->ready,
        .arg = cfg->arg,
    };
    if (rc == 0)
        rc = heartbeat_start(&hc, &c->heartbeat);
    if (rc != 0) {
        chunkd_stop(c);
        return rc;
    }
    *out = c;
    return 0;
}

void chunkd_stop(struct chunkd *c)
{
    if (!c)
        return;
    if (c->heartbeat)
        heartbeat_stop(c->heartbeat);
    if (c->terms)
        terms_close(c->terms);
    if (c->registry)
        registry_close(c->registry);
    if (c->peers)
        peers_close(c->peers);
    if (c->service)
        serve_stop(c->service);
    rpc_loop_free(c->loop);
    heartbeat_free(c->heartbeat);
    serve_free(c->service);
    peers_free(c->peers);
    registry_free(c->registry);
    terms_free(c->terms);
    scrub_free(c->scrub);
    disks_free(c->disks);
    free(c);
}

int chunkd_reload_tls(struct chunkd *c)
{
    return rpc_loop_reload_tls(c->loop);
}

const char *chunkd_addr(const struct chunkd *c)
{
    return c->addr;
}

uint32_t chunkd_id(struct chunkd *c)
{
    return serve_chunkd(c->service);
}

struct disks *chunkd_disks(struct chunkd *c)
{
    return c->disks;
}
