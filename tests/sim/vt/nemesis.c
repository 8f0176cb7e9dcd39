/* See nemesis.h. One thing after the other; those that last are ended before the next begins. */
#include "nemesis.h"

#include <stdio.h>

#include "base/clock.h"
#include "model.h"
#include "net.h"
#include "simdisk.h"
#include "simlog.h"
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

static unsigned any_host(void)
{
    unsigned n = 1 + world.cfg.nchunkds + world.cfg.nclients, i = (unsigned)vt_below(n);
    return !i                        ? HOST_METAD
           : i <= world.cfg.nchunkds ? HOST_CHUNKD + i - 1
                                     : HOST_CLIENT + i - 1 - world.cfg.nchunkds;
}

static struct vt_proc *proc_of(unsigned host)
{
    return host == HOST_METAD   ? world.metad
           : host < HOST_CLIENT ? world.chunkd[host - HOST_CHUNKD]
                                : world.client[host - HOST_CLIENT].proc;
}

static void reset(void)
{
    unsigned a = any_host();
    net_reset(a, vt_chance(2) ? NET_HOSTS : any_host());
}

static void restart_metad(void)
{
    world_kill_metad();
    pause_ms(0, vt_chance(3) ? 3000 : 300);
    world_start_metad();
    pause_ms(0, 1000);
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
        net_cut(HOST_CLIENT + i, HOST_METAD, true);
    pause_ms(100, most);
    if (stop)
        vt_stop_proc(p, false);
    else
        net_cut(HOST_CLIENT + i, HOST_METAD, false);
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
    world_kill_metad();
    simlog_power_cut();
    for (unsigned i = 0; i < world.cfg.nchunkds; i++) {
        world_kill_chunkd(i);
        snprintf(dir, sizeof(dir), "%s/d%u", world.cfg.dir, i);
        simdisk_power_cut(dir);
    }
    pause_ms(0, 2000);
    world_start_metad();
    for (unsigned i = 0; i < world.cfg.nchunkds; i++)
        world_start_chunkd(i);
    for (unsigned i = 0; i < world.cfg.nclients; i++)
        world_start_client(i);
}

void *nemesis_main(void *arg)
{
    static const struct {
        unsigned kind;
        void (*fn)(void);
    } acts[] = {{NEMESIS_RESET, reset},           {NEMESIS_METAD, restart_metad},
                {NEMESIS_CHUNKD, restart_chunkd}, {NEMESIS_CLIENT, restart_client},
                {NEMESIS_BLINK, blink},           {NEMESIS_CUT, cut_off},
                {NEMESIS_CLOCK, set_clock},       {NEMESIS_POWER, power_cut}};
    const unsigned n = sizeof(acts) / sizeof(acts[0]);
    (void)arg;
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
