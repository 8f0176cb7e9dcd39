/* See nemesis.h. One thing after the other; those that last are ended before the next begins. A metad whose log has given
 * up is killed and started by the keeper. */
#include "nemesis.h"

#include <stdio.h>

#include "base/clock.h"
#include "model.h"
#include "net.h"
#include "simdisk.h"
#include "simraft.h"
#include "work.h"
#include "world.h"

#define MS NSEC_PER_MSEC

static struct {
    struct nemesis_config cfg;
    bool end;
} nem;

void nemesis_init(const struct nemesis_config *cfg)
{
    nem.cfg = *cfg;
}

void nemesis_end(void)
{
    nem.end = true;
}

static void pause_ms(int64_t from, int64_t to)
{
    vt_sleep_until(vt_now() + vt_between(from * MS, to * MS));
}

static unsigned any_metad(void)
{
    int l = world_leader();
    return l >= 0 && vt_chance(2) ? (unsigned)l : (unsigned)vt_below(world.cfg.nmetads);
}

static unsigned any_host(void)
{
    unsigned n = 1 + world.cfg.nchunkds + world.cfg.nclients, i = (unsigned)vt_below(n);
    return !i                        ? world_metad_host(any_metad())
           : i <= world.cfg.nchunkds ? HOST_CHUNKD + i - 1
                                     : HOST_CLIENT + i - 1 - world.cfg.nchunkds;
}

static struct vt_proc *proc_of(unsigned host)
{
    for (unsigned i = 0; i < world.cfg.nmetads; i++)
        if (host == world_metad_host(i))
            return world.metad[i].proc;
    return host < HOST_CLIENT ? world.chunkd[host - HOST_CHUNKD]
                              : world.client[host - HOST_CLIENT].proc;
}

static void reset(void)
{
    unsigned a = any_host();
    net_reset(a, vt_chance(2) ? NET_HOSTS : any_host());
}

/* Unless somebody else did. */
static void start_metad(unsigned i)
{
    if (!world.metad[i].proc)
        world_start_metad(i);
}

static void restart_metad(void)
{
    unsigned i = any_metad();
    world_kill_metad(i);
    pause_ms(0, vt_chance(3) ? 3000 : 300);
    start_metad(i);
    pause_ms(0, 1000);
}

/* From all metads. */
static void cut_client(unsigned client, bool cut)
{
    for (unsigned i = 0; i < world.cfg.nmetads; i++)
        net_cut(HOST_CLIENT + client, world_metad_host(i), cut);
}

static void stop_metad(unsigned i)
{
    struct vt_proc *p = world.metad[i].proc;
    if (!p)
        return;
    vt_stop_proc(p, true);
    pause_ms(1, vt_chance(3) ? 10000 : 1500);
    if (!p->dead)
        vt_stop_proc(p, false);
}

/* group: bit per metad. */
static void cut_metads(unsigned group, bool cut)
{
    for (unsigned i = 0; i < world.cfg.nmetads; i++)
        for (unsigned k = 0; k < i; k++)
            if ((group >> i & 1) != (group >> k & 1))
                net_cut(world_metad_host(i), world_metad_host(k), cut);
}

/* Some metads are cut off from the others, or one is stopped; from others all are still reached. */
static void isolate_metads(void)
{
    unsigned group = 1u << any_metad();
    if (world.cfg.nmetads < 3)
        return;
    if (vt_chance(2)) {
        stop_metad(any_metad());
        return;
    }
    if (vt_chance(2))
        group |= (unsigned)vt_below(1u << world.cfg.nmetads);
    cut_metads(group, true);
    pause_ms(1, vt_chance(3) ? 10000 : 1500);
    cut_metads(group, false);
}

/* The leader sleeps, with a client that reaches no other metad, until others have gone on without both. */
static void old_leader(void)
{
    int l = world_leader();
    unsigned i = (unsigned)vt_below(world.cfg.nclients);
    struct vt_proc *p = l >= 0 ? world.metad[l].proc : NULL;
    int64_t from = vt_now();
    if (!p || world.cfg.nmetads < 3 || world.client[i].starting || !world.client[i].proc)
        return;
    model_cut_off(i, true);
    work_client_cut(i, true);
    for (int k = 0; k < (int)world.cfg.nmetads; k++)
        if (k != l)
            net_cut(HOST_CLIENT + i, world_metad_host((unsigned)k), true);
    vt_stop_proc(p, true);
    pause_ms(world.cfg.term_ms / 2, 2 * world.cfg.term_ms);
    if (vt_chance(2))
        p->mono_off -= vt_now() - from; /* the whole computer slept */
    if (!p->dead)
        vt_stop_proc(p, false);
    pause_ms(0, 1000);
    cut_client(i, false);
    pause_ms(world.cfg.term_ms, world.cfg.term_ms + 2000); /* until it has come back */
    model_cut_off(i, false);
    work_client_cut(i, false);
}

static void metad_disk(void)
{
    char dir[200];
    snprintf(dir, sizeof(dir), "%s/m%u", world.cfg.dir, any_metad());
    switch (vt_below(3)) {
    case 0:
        simraft_slow(dir, vt_between(1, 1000) * MS);
        pause_ms(1, 5000);
        simraft_slow(dir, 0);
        break;
    case 1:
        simraft_full(dir, true);
        pause_ms(1, 5000);
        simraft_full(dir, false);
        break;
    default:
        simraft_break(dir);
        break;
    }
}

static void restart_chunkd(void)
{
    unsigned i = (unsigned)vt_below(world.cfg.nchunkds);
    world_kill_chunkd(i);
    pause_ms(0, vt_chance(3) ? 8000 : 500);
    world_start_chunkd(i);
}

static void restart_client(void)
{
    unsigned i = (unsigned)vt_below(world.cfg.nclients);
    if (world.client[i].starting || !world.client[i].c)
        return;
    model_dead(i);
    work_client_dead(i);
    world_kill_client(i);
    pause_ms(0, 3000);
    world_start_client(i);
}

/* A stop or a cut that nobody's lease runs out in. */
static void blink(void)
{
    unsigned a = any_host(), b = any_host();
    struct vt_proc *p = proc_of(a);
    int64_t most = world.cfg.term_ms / 4;
    if (vt_chance(2) && p) {
        vt_stop_proc(p, true);
        pause_ms(1, most);
        if (!p->dead)
            vt_stop_proc(p, false);
    } else if (a != b) {
        net_cut(a, b, true);
        pause_ms(1, most);
        net_cut(a, b, false);
    }
}

/* Leases run out, and sessions perhaps. */
static void cut_off(void)
{
    unsigned i = (unsigned)vt_below(world.cfg.nclients);
    struct vt_proc *p = world.client[i].proc;
    int64_t most = vt_chance(2) ? 2 * world.cfg.term_ms : 2 * world.cfg.lease_ms;
    if (!p || world.client[i].starting)
        return;
    model_cut_off(i, true);
    work_client_cut(i, true);
    bool stop = vt_chance(2);
    if (stop)
        vt_stop_proc(p, true);
    else
        cut_client(i, true);
    pause_ms(100, most);
    if (stop)
        vt_stop_proc(p, false);
    else
        cut_client(i, false);
    pause_ms(world.cfg.term_ms, world.cfg.term_ms + 2000); /* until it has come back */
    model_cut_off(i, false);
    work_client_cut(i, false);
}

static void set_clock(void)
{
    struct vt_proc *p = proc_of(any_host());
    if (p)
        p->wall_off += vt_between(-7200, 7200) * NSEC_PER_SEC;
}

static void power_cut(void)
{
    char dir[200];
    for (unsigned i = 0; i < world.cfg.nclients; i++)
        if (world.client[i].starting || !world.client[i].c)
            return;
    for (unsigned i = 0; i < world.cfg.nclients; i++) {
        model_dead(i);
        work_client_dead(i);
        world_kill_client(i);
    }
    model_power_cut();
    for (unsigned i = 0; i < world.cfg.nmetads; i++)
        world_kill_metad(i);
    for (unsigned i = 0; i < world.cfg.nchunkds; i++) {
        world_kill_chunkd(i);
        snprintf(dir, sizeof(dir), "%s/d%u", world.cfg.dir, i);
        simdisk_power_cut(dir);
    }
    pause_ms(0, 2000);
    for (unsigned i = 0; i < world.cfg.nmetads; i++)
        start_metad(i);
    for (unsigned i = 0; i < world.cfg.nchunkds; i++)
        world_start_chunkd(i);
    for (unsigned i = 0; i < world.cfg.nclients; i++)
        world_start_client(i);
}

/* As the one that watches over daemons. Ends with the run. */
static void *keeper_main(void *arg)
{
    for (;;) {
        pause_ms(10, 100);
        for (unsigned i = 0; i < world.cfg.nmetads; i++) {
            if (!world.metad[i].failed)
                continue;
            world_kill_metad(i);
            pause_ms(0, 300);
            start_metad(i);
        }
    }
    return arg;
}

void *nemesis_main(void *arg)
{
    static const struct {
        unsigned kind;
        void (*fn)(void);
    } acts[] = {{NEMESIS_RESET, reset},
                {NEMESIS_METAD, restart_metad},
                {NEMESIS_CHUNKD, restart_chunkd},
                {NEMESIS_CLIENT, restart_client},
                {NEMESIS_BLINK, blink},
                {NEMESIS_CUT, cut_off},
                {NEMESIS_CLOCK, set_clock},
                {NEMESIS_POWER, power_cut},
                {NEMESIS_ISOLATE, isolate_metads},
                {NEMESIS_OLD, old_leader},
                {NEMESIS_DISK, metad_disk}};
    const unsigned n = sizeof(acts) / sizeof(acts[0]);
    (void)arg;
    if (nem.cfg.kinds & NEMESIS_DISK)
        vt_spawn(&world.self, "keeper", keeper_main, NULL);
    while (!nem.end && nem.cfg.kinds) {
        vt_sleep_until(vt_now() + vt_between(NSEC_PER_MSEC, nem.cfg.pause_max));
        unsigned i = (unsigned)vt_below(n);
        while (!(acts[i].kind & nem.cfg.kinds))
            i = (i + 1) % n;
        if (nem.end || !nem.cfg.acts)
            continue;
        nem.cfg.acts--;
        acts[i].fn();
    }
    net_heal_all();
    return NULL;
}
