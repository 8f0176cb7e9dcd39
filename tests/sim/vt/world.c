/* See world.h. What a process was is never freed when it is killed: nobody would be left to know how. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "chunkd/chunkd.h"
#include "metad/leader.h"
#include "metad/log/digests.h"
#include "metad/log/mlog_internal.h"
#include "metad/service/join.h"
#include "metad/service/service_metad.h"
#include "net.h"

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
    for (unsigned i = 0; i < cfg->nchunkds; i++) {
        snprintf(path, sizeof(path), "%s/d%u", cfg->dir, i);
        mkdir(path, 0700);
        if (store_id_init(path))
            vt_fail("%s cannot be made a disk", path);
    }
}

/* ---- metads ---- */

struct metad {
    struct world_metad *w;
    unsigned i;
    char dir[160], addr[64], name[32];
    struct fsm *fsm;
    struct mlog *mlog;
    struct rpc_loop *loop;
    struct nodes *nodes;
    struct leader *leader;
    struct join *join;
};

unsigned world_metad_host(unsigned i)
{
    return i ? 12 + i : HOST_METAD;
}

static void metad_addr(unsigned i, char out[64])
{
    snprintf(out, 64, "10.0.0.%u:7000", world_metad_host(i));
}

/* As clients and chunkds are told them; kept for ever. */
static char **metad_addrs(void)
{
    char **v = calloc(WORLD_METADS, sizeof(*v));
    if (!v)
        abort();
    for (unsigned i = 0; i < world.cfg.nmetads; i++) {
        v[i] = malloc(64);
        if (!v[i])
            abort();
        metad_addr(i, v[i]);
    }
    return v;
}

static void role_changed(void *arg, bool leads)
{
    leader_role_changed(((struct metad *)arg)->leader, leads);
}

/* Is the state another one than those of the others (CheckOp), a finding; else the disk is broken. */
static void log_failed(void *arg)
{
    struct metad *d = arg;
    if (digests_barred(d->dir))
        vt_fail("metad %u has found that its state is not that of the others", d->i + 1);
    d->w->failed = true;
}

static void leader_addr(void *arg, char out[128])
{
    struct metad *d = arg;
    char addr[256];
    uint64_t id;
    if (mlog_leader(d->mlog, &id) && id != mlog_id(d->mlog) && metads_addr_of(d->fsm, id, addr))
        snprintf(out, 128, "%.127s", addr);
}

static int make_dir(struct metad *d, const struct join_who *who)
{
    char uuid[37], first[64];
    uint64_t id;
    if (mlog_dir_made(d->dir))
        return 0;
    if (!d->i)
        return mlog_init_dir(d->dir, uuid);
    metad_addr(0, first);
    int rc = join_ask(d->loop, first, who, &id, uuid);
    return rc ? rc : mlog_join_dir(d->dir, uuid, id);
}

static int start_state(struct metad *d)
{
    struct mlog_config lc = {.dir = d->dir,
                             .checkpoint_bytes = world.cfg.checkpoint_bytes,
                             .check_ms = world.cfg.check_ms,
                             .role_changed = role_changed,
                             .failed = log_failed,
                             .arg = d,
                             .loop = d->loop,
                             .addr_of = metads_addr_of};
    int rc = fsm_new(&d->fsm);
    if (rc)
        return rc;
    lc.fsm = lc.addr_arg = d->fsm;
    fsm_setting_offer(d->fsm, SETTING_SESSION_LEASE, world.cfg.lease_ms);
    fsm_setting_offer(d->fsm, SETTING_SESSION_KEEP, KEEP_MS);
    fsm_setting_offer(d->fsm, SETTING_LEASE_TERM, world.cfg.term_ms);
    fsm_setting_offer(d->fsm, SETTING_SUSPECT, 3000);
    fsm_setting_offer(d->fsm, SETTING_DEAD, 10000);
    return mlog_open(&lc, 60000, &d->mlog);
}

static int start_soft(struct metad *d)
{
    struct nodes_config nc = {.fsm = d->fsm,
                              .mlog = d->mlog,
                              .loop = d->loop,
                              .dir = d->dir,
                              .addr = d->addr,
                              .leader_addr = leader_addr,
                              .leader_arg = d,
                              .gate = leader_gate(d->leader)};
    struct leader_config lc = {
        .fsm = d->fsm, .mlog = d->mlog, .loop = d->loop, .service = {.max_memory = 1ull << 40}};
    int port, rc = nodes_new(&nc, &d->nodes);
    lc.nodes = d->nodes;
    if (!rc)
        rc = leader_begin(d->leader, &lc);
    if (!rc)
        rc = rpc_listen(d->loop, d->addr, leader_rpc(d->leader), &port);
    return rc;
}

/* Nobody removes members here. */
static void was_removed(void *arg, const char *leader)
{
    const struct metad *d = arg;
    vt_fail("metad at %s was removed, says %s", d->addr, leader);
}

/* As metad/main.c does it. */
static void *metad_main(void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    struct metad *d = calloc(1, sizeof(*d));
    struct rpc_config rpc = {.role = RPC_ROLE_METAD, .name = "metad", .threads = 2};
    char first[64];
    if (!d)
        abort();
    d->i = i;
    d->w = &world.metad[i];
    snprintf(d->dir, sizeof(d->dir), "%s/m%u", world.cfg.dir, i);
    snprintf(d->name, sizeof(d->name), "host-of-metad-%u", i + 1);
    metad_addr(i, d->addr);
    metad_addr(0, first);
    struct join_who who = {.addr = d->addr, .name = d->name, .host_id = d->name};
    d->leader = leader_new();
    int rc = rpc_loop_new(&rpc, &d->loop);
    if (!rc)
        rc = make_dir(d, &who);
    if (!rc)
        rc = start_state(d);
    if (!rc)
        rc = start_soft(d);
    if (rc)
        vt_fail("metad %u does not start: %s", i + 1, err_str(rc));
    mlog_serves_at(d->mlog, d->addr);
    rc = join_announce(d->loop, d->mlog, d->fsm, i ? first : NULL, &who, was_removed, d, &d->join);
    if (rc)
        vt_fail("metad %u cannot say that it runs: %s", i + 1, err_str(rc));
    d->w->mlog = d->mlog;
    d->w->fsm = d->fsm;
    return NULL;
}

void world_start_metad(unsigned i)
{
    struct world_metad *w = &world.metad[i];
    char name[16];
    snprintf(name, sizeof(name), world.cfg.nmetads > 1 ? "metad%u" : "metad", i + 1);
    *w = (struct world_metad){.proc = world_proc_new(name, world_metad_host(i))};
    vt_spawn(w->proc, "main", metad_main, (void *)(uintptr_t)i);
}

void world_kill_metad(unsigned i)
{
    struct vt_proc *p = world.metad[i].proc;
    world.metad[i] = (struct world_metad){0};
    if (p)
        vt_kill_proc(p);
}

int world_leader(void)
{
    for (unsigned i = 0; i < world.cfg.nmetads; i++) {
        const struct world_metad *w = &world.metad[i];
        if (!w->mlog || !atomic_load(&w->mlog->leader))
            continue;
        int64_t until = atomic_load(&w->mlog->lease_until); /* by its own clock */
        if (until == INT64_MAX || (until && vt_clock(w->proc, VT_BOOT) < until))
            return (int)i;
    }
    return -1;
}

struct fsm *world_fsm(void)
{
    struct mlog_status s;
    struct fsm *best = NULL;
    uint64_t applied = 0;
    int leader = world_leader();
    if (leader >= 0)
        return world.metad[leader].fsm;
    for (unsigned i = 0; i < world.cfg.nmetads; i++) {
        if (!world.metad[i].mlog)
            continue;
        mlog_status(world.metad[i].mlog, &s);
        if (!best || s.applied > applied) {
            best = world.metad[i].fsm;
            applied = s.applied;
        }
    }
    return best;
}

static bool all_vote(struct mlog *leader)
{
    struct mlog_member m[MLOG_MEMBERS_MAX];
    unsigned n = mlog_members(leader, m), voters = 0;
    for (unsigned i = 0; i < n; i++)
        voters += m[i].role == MLOG_VOTER;
    return voters == world.cfg.nmetads;
}

bool world_equal(void)
{
    struct mlog_status s;
    int leader = world_leader();
    uint64_t applied = 0;
    if (leader < 0 || !all_vote(world.metad[leader].mlog))
        return false;
    for (unsigned i = 0; i < world.cfg.nmetads; i++) {
        if (!world.metad[i].mlog || world.metad[i].failed)
            return false;
        mlog_status(world.metad[i].mlog, &s);
        if (s.applied != s.last || (i && s.applied != applied))
            return false;
        applied = s.applied;
    }
    return true;
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
    char *dir = malloc(200), addr[64], host[32];
    char *dirs[] = {dir};
    struct chunkd *d;
    snprintf(dir, 200, "%s/d%u", world.cfg.dir, i);
    snprintf(addr, sizeof(addr), "10.0.0.%u:7101", HOST_CHUNKD + i);
    snprintf(host, sizeof(host), "host-of-chunkd-%u", i);
    struct chunkd_config cfg = {.disks = {.dirs = dirs, .ndirs = 1},
                                .rpc = {.name = addr, .threads = 1},
                                .listen = addr,
                                .metas = metad_addrs(),
                                .nmetas = world.cfg.nmetads,
                                .host_id = host,
                                .host_name = host,
                                .no_scrub = true,
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
    char name[32];
    snprintf(name, sizeof(name), "client%u", i);
    struct client_config cfg = {.metads = metad_addrs(),
                                .nmetads = world.cfg.nmetads,
                                .name = name,
                                .cache_max = world.cfg.cache_max,
                                .timeout_ms = world.cfg.timeout_ms,
                                .connect_ms = 120000,
                                .flush_ms = world.cfg.flush_ms,
                                .dirsync = world.cfg.dirsync,
                                .async_close = world.cfg.async_close,
                                .rpc = {.role = RPC_ROLE_CLIENT, .name = name, .threads = 2},
                                .host_id = name};
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
