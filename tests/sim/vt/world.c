/* See world.h. What a process was is never freed when it is killed: nobody would be left to know how. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "chunkd/chunkd.h"
#include "metad/log/incarnation.h"
#include "metad/service/service.h"
#include "net.h"

#define METAD_ADDR "10.0.0.1:7000"
#define KEEP_MS 600000

struct world world;

struct vt_proc *world_proc_new(const char *name, unsigned host)
{
    struct vt_proc *p = calloc(1, sizeof(*p));
    if (!p)
        abort();
    snprintf(p->name, sizeof(p->name), "%s", name);
    p->host = host;
    p->mono_off = p->boot_off = vt_between(1, 1000) * NSEC_PER_SEC;
    p->wall_off = 1800000000ll * NSEC_PER_SEC;
    p->on_kill = net_killed;
    return p;
}

void world_init(const struct world_config *cfg)
{
    char path[200];
    world.cfg = *cfg;
    snprintf(world.self.name, sizeof(world.self.name), "world");
    snprintf(path, sizeof(path), "%s/m", cfg->dir);
    mkdir(path, 0700);
    for (unsigned i = 0; i < cfg->nchunkds; i++) {
        snprintf(path, sizeof(path), "%s/d%u", cfg->dir, i);
        mkdir(path, 0700);
        if (store_id_init(path))
            vt_fail("%s cannot be made a disk", path);
    }
}

/* ---- metad ---- */

static void told_ids(void *arg, uint64_t chunk_upto, uint64_t ino_upto)
{
    ids_told(arg, chunk_upto, ino_upto);
}

struct metad {
    char dir[160];
    struct fsm *fsm;
    struct mlog *mlog;
    struct ids *ids;
    struct sessions *sessions;
    struct rpc_loop *loop;
    struct nodes *nodes;
    struct service *service;
};

static int start_soft(struct metad *d)
{
    struct nodes_config nc = {.fsm = d->fsm,
                              .mlog = d->mlog,
                              .loop = d->loop,
                              .suspect_ms = 3000,
                              .dead_ms = 10000,
                              .dir = d->dir,
                              .addr = METAD_ADDR,
                              .orphaned = sessions_orphaned,
                              .adopted = sessions_adopted,
                              .session_closed = sessions_closed,
                              .hook_arg = d->sessions,
                              .ids_told = told_ids,
                              .ids_arg = d->ids};
    struct service_config sc = {.fsm = d->fsm,
                                .mlog = d->mlog,
                                .sessions = d->sessions,
                                .ids = d->ids,
                                .loop = d->loop,
                                .lease_ms = world.cfg.lease_ms,
                                .term_ms = world.cfg.term_ms,
                                .max_memory = 1ull << 40};
    int port, rc = nodes_new(&nc, &d->nodes);
    sc.nodes = d->nodes;
    if (!rc)
        rc = service_new(&sc, &d->service);
    if (!rc)
        rc = sessions_start(d->sessions);
    if (!rc)
        rc = rpc_listen(d->loop, METAD_ADDR, service_rpc(d->service), &port);
    return rc;
}

/* As metad/main.c does it. */
static void *metad_main(void *arg)
{
    struct metad *d = calloc(1, sizeof(*d));
    struct rpc_config rpc = {.role = RPC_ROLE_METAD, .name = "metad", .threads = 2};
    struct mlog_config lc = {.dir = "metad"};
    struct sessions_config oc = {.lease_ms = world.cfg.lease_ms, .keep_ms = KEEP_MS};
    (void)arg;
    if (!d)
        abort();
    snprintf(d->dir, sizeof(d->dir), "%s/m", world.cfg.dir);
    int rc = rpc_loop_new(&rpc, &d->loop);
    if (!rc)
        rc = fsm_new(&d->fsm);
    lc.fsm = oc.fsm = d->fsm;
    if (!rc)
        rc = mlog_open(&lc, 10000, &d->mlog);
    oc.mlog = d->mlog;
    if (!rc)
        rc = incarnation_begin(d->mlog);
    if (!rc)
        rc = ids_new(d->fsm, d->mlog, &d->ids);
    if (!rc)
        rc = sessions_new(&oc, &d->sessions);
    if (!rc)
        rc = start_soft(d);
    if (rc)
        vt_fail("metad does not start: %s", err_str(rc));
    world.fsm = d->fsm;
    return NULL;
}

void world_start_metad(void)
{
    world.metad = world_proc_new("metad", HOST_METAD);
    vt_spawn(world.metad, "main", metad_main, NULL);
}

void world_kill_metad(void)
{
    struct vt_proc *p = world.metad;
    world.metad = NULL;
    world.fsm = NULL;
    if (p)
        vt_kill_proc(p);
}

/* ---- chunkds ---- */

static void fatal(void *arg, int code)
{
    (void)arg;
    vt_fail("a chunkd gives up: %s", err_str(code));
}

static void *chunkd_main(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    char *dir = malloc(200), *metad = strdup(METAD_ADDR), addr[64], host[32];
    char *dirs[] = {dir}, *metads[] = {metad};
    struct chunkd *d;
    snprintf(dir, 200, "%s/d%u", world.cfg.dir, i);
    snprintf(addr, sizeof(addr), "10.0.0.%u:7101", HOST_CHUNKD + i);
    snprintf(host, sizeof(host), "host-of-chunkd-%u", i);
    struct chunkd_config cfg = {.disks = {.dirs = dirs, .ndirs = 1},
                                .rpc = {.name = addr, .threads = 1},
                                .listen = addr,
                                .metas = metads,
                                .nmetas = 1,
                                .host_id = host,
                                .host_name = host,
                                .fatal = fatal};
    int rc = chunkd_start(&cfg, &d);
    if (rc)
        vt_fail("chunkd %u does not start: %s", i, err_str(rc));
    return NULL;
}

void world_start_chunkd(unsigned i)
{
    char name[16];
    snprintf(name, sizeof(name), "chunkd%u", i);
    world.chunkd[i] = world_proc_new(name, HOST_CHUNKD + i);
    vt_spawn(world.chunkd[i], "main", chunkd_main, (void *)(uintptr_t)i);
}

void world_kill_chunkd(unsigned i)
{
    struct vt_proc *p = world.chunkd[i];
    world.chunkd[i] = NULL;
    if (p)
        vt_kill_proc(p);
}

/* ---- clients ---- */

static void *client_main(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    struct world_client *w = &world.client[i];
    char name[32], *metads[] = {(char *)(uintptr_t)METAD_ADDR};
    snprintf(name, sizeof(name), "client%u", i);
    struct client_config cfg = {.metads = metads,
                                .nmetads = 1,
                                .name = name,
                                .cache_max = world.cfg.cache_max,
                                .timeout_ms = world.cfg.timeout_ms,
                                .connect_ms = 120000,
                                .flush_ms = world.cfg.flush_ms,
                                .dirsync = world.cfg.dirsync,
                                .async_close = world.cfg.async_close,
                                .rpc = {.role = RPC_ROLE_CLIENT, .name = name, .threads = 2},
                                .host_id = name};
    char **keep = malloc(sizeof(metads)); /* the client keeps the pointer */
    if (!keep)
        abort();
    memcpy(keep, metads, sizeof(metads));
    cfg.metads = keep;
    cfg.host_id = strdup(name);
    struct client *c;
    int rc = client_open(&cfg, &c);
    if (rc)
        vt_fail("client %u cannot mount: %s", i, err_str(rc));
    w->c = c;
    w->starting = false;
    world.mounted(i);
    return NULL;
}

void world_start_client(unsigned i)
{
    struct world_client *w = &world.client[i];
    char name[16];
    snprintf(name, sizeof(name), "client%u.%u", i, w->run++);
    w->proc = world_proc_new(name, HOST_CLIENT + i);
    w->proc->drift_ppm = world.cfg.client_drift_ppm;
    w->c = NULL;
    w->starting = true;
    vt_spawn(w->proc, "main", client_main, (void *)(uintptr_t)i);
}

void world_kill_client(unsigned i)
{
    struct vt_proc *p = world.client[i].proc;
    world.client[i].proc = NULL;
    world.client[i].c = NULL;
    if (p)
        vt_kill_proc(p);
}
