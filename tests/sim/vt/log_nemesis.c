/* See log_nemesis.h. Each kind of act is a function that does it, waits and undoes it; a few fibers do one after the
 * other. A metad is started again by who killed it; one whose log has given up is killed and started by the keeper. */
#include "log_nemesis.h"

#include <stdio.h>

#include "base/clock.h"
#include "fiber.h"
#include "log_nodes.h"
#include "metad/log/mlog_internal.h"
#include "net.h"
#include "simraft.h"

#define MS NSEC_PER_MSEC
#define FIBERS_MAX 4u

static struct {
    struct log_nemesis_config cfg;
    struct fiber *fiber[FIBERS_MAX], *keeper;
    bool over;
    bool busy[LOG_NODES]; /* somebody kills and starts it */
} nem;

void log_nemesis_init(const struct log_nemesis_config *cfg)
{
    nem.cfg = *cfg;
}

static void pause_ms(int64_t from, int64_t to)
{
    vt_sleep_until(vt_now() + vt_between(from * MS, to * MS));
}

static unsigned any(void)
{
    return (unsigned)vt_below(nodes.cfg.n);
}

static unsigned leader_or_any(void)
{
    int l = log_nodes_leader();
    return l >= 0 && vt_chance(2) ? (unsigned)l : any();
}

static void restart(unsigned i, int64_t most)
{
    if (nem.busy[i])
        return;
    nem.busy[i] = true;
    if (vt_chance(4))
        log_nodes_stop(i);
    log_nodes_kill(i);
    pause_ms(0, most);
    log_nodes_start(i);
    nem.busy[i] = false;
}

static void kill_one(void)
{
    restart(leader_or_any(), vt_chance(3) ? 5000 : 300);
}

static void cut_pair(void)
{
    unsigned a = leader_or_any() + 1, b = any() + 1;
    bool both = vt_chance(2);
    if (a == b)
        return;
    net_cut_way(a, b, true);
    if (both)
        net_cut_way(b, a, true);
    pause_ms(1, vt_chance(3) ? 15000 : 1000);
    net_cut(a, b, false);
}

static void isolate(void)
{
    unsigned a = leader_or_any() + 1;
    for (unsigned b = 1; b <= nodes.cfg.n; b++)
        if (a != b)
            net_cut(a, b, true);
    pause_ms(1, vt_chance(3) ? 15000 : 1000);
    for (unsigned b = 1; b <= nodes.cfg.n; b++)
        if (a != b)
            net_cut(a, b, false);
}

static void stop(void)
{
    struct vt_proc *p = log_nodes_proc(leader_or_any());
    if (!p || p->stopped)
        return;
    vt_stop_proc(p, true);
    pause_ms(1, vt_chance(3) ? 5000 : 800);
    if (!p->dead)
        vt_stop_proc(p, false);
}

static void suspend(void)
{
    struct vt_proc *p = log_nodes_proc(leader_or_any());
    if (!p || p->stopped)
        return;
    int64_t t = vt_now();
    vt_stop_proc(p, true);
    pause_ms(1, vt_chance(3) ? 5000 : 800);
    p->mono_off -= vt_now() - t;
    if (!p->dead)
        vt_stop_proc(p, false);
}

static void set_clock(void)
{
    struct vt_proc *p = log_nodes_proc(any());
    if (p)
        p->wall_off += vt_between(-7200, 7200) * NSEC_PER_SEC;
}

static void disk(void)
{
    unsigned i = leader_or_any();
    const char *dir = nodes.node[i].dir;
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

static void reset(void)
{
    unsigned a = leader_or_any() + 1;
    net_reset(a, vt_chance(2) ? NET_HOSTS : any() + 1);
}

static void power_cut(void)
{
    for (unsigned i = 0; i < nodes.cfg.n; i++)
        if (nem.busy[i])
            return;
    for (unsigned i = 0; i < nodes.cfg.n; i++) {
        nem.busy[i] = true;
        log_nodes_kill(i);
    }
    pause_ms(0, 1000);
    for (unsigned i = 0; i < nodes.cfg.n; i++) {
        log_nodes_start(i);
        nem.busy[i] = false;
        pause_ms(0, 100);
    }
}

static void handed_over(void *arg, int code)
{
    (void)arg, (void)code;
}

static void *change_role(void *arg) /* on a fiber of that metad */
{
    struct log_node *n = arg;
    if (vt_chance(2))
        mlog_checkpoint(n->mlog);
    else
        mlog_change(n->mlog, MLOG_TRANSFER, vt_chance(2) ? 0 : 1 + any(), 3000, handed_over, NULL);
    return NULL;
}

static void role(void)
{
    struct log_node *n = &nodes.node[leader_or_any()];
    if (n->open)
        vt_spawn(n->proc, "role", change_role, n);
}

/* ms until the metad stands for election, if it hears nothing by then. */
static int64_t stands_in(unsigned i)
{
    const struct log_node *n = &nodes.node[i];
    if (!n->open || n->mlog->raft.state != RAFT_FOLLOWER)
        return 0;
    const struct raft *r = &n->mlog->raft;
    int64_t heard = vt_clock(n->proc, VT_MONO) / MS - (int64_t)r->election_timer_start;
    return (int64_t)r->follower_state.randomized_election_timeout - heard;
}

static void cut_from(unsigned l, unsigned mask, bool cut)
{
    for (unsigned i = 0; i < nodes.cfg.n; i++)
        if (mask >> i & 1)
            net_cut(l + 1, i + 1, cut);
}

/* As many followers as make a majority with another one restart shortly before that one, which does not hear the leader,
 * asks for their votes: what they promised the leader by following it, they do not remember. It has all entries, since
 * nothing is proposed meanwhile. */
static void squeeze(void)
{
    int l = log_nodes_leader();
    unsigned n = nodes.cfg.n, a = ((unsigned)l + 1) % n, mask = 0;
    int64_t margin = vt_between(5, 120);
    if (l < 0 || n < 3)
        return;
    nodes.quiet = true;
    pause_ms(60, 120);
    net_cut((unsigned)l + 1, a + 1, true);
    for (int i = 0; i < 200 && stands_in(a) > margin; i++)
        pause_ms(5, 5);
    for (unsigned k = 1; k <= n / 2; k++)
        mask |= 1u << (a + k) % n;
    mask &= ~(1u << l);
    cut_from((unsigned)l, mask, true);
    for (unsigned i = 0; i < n; i++)
        if (mask >> i & 1)
            restart(i, 20);
    pause_ms(0, 700);
    cut_from((unsigned)l, mask | 1u << a, false);
    nodes.quiet = false;
}

static void *acts_main(void *arg)
{
    static const struct {
        unsigned kind;
        void (*fn)(void);
    } acts[] = {{LOG_NEM_KILL, kill_one}, {LOG_NEM_CUT, cut_pair},    {LOG_NEM_ISOLATE, isolate},
                {LOG_NEM_STOP, stop},     {LOG_NEM_SUSPEND, suspend}, {LOG_NEM_CLOCK, set_clock},
                {LOG_NEM_DISK, disk},     {LOG_NEM_RESET, reset},     {LOG_NEM_POWER, power_cut},
                {LOG_NEM_ROLE, role},     {LOG_NEM_SQUEEZE, squeeze}};
    const unsigned n = sizeof(acts) / sizeof(acts[0]);
    while (nem.cfg.acts && (nem.cfg.kinds & LOG_NEM_ALL)) {
        vt_sleep_until(vt_now() + vt_between(MS, nem.cfg.pause_max));
        unsigned i = (unsigned)vt_below(n);
        while (!(acts[i].kind & nem.cfg.kinds))
            i = (i + 1) % n;
        if (!nem.cfg.acts)
            break;
        nem.cfg.acts--;
        acts[i].fn();
    }
    return arg;
}

/* As the one that watches over daemons. */
static void *keeper_main(void *arg)
{
    while (!nem.over) {
        pause_ms(10, 100);
        for (unsigned i = 0; i < nodes.cfg.n; i++)
            if (nodes.node[i].failed && !nem.busy[i])
                restart(i, 300);
    }
    return arg;
}

void log_nemesis_start(void)
{
    nem.keeper = vt_spawn(&nodes.self, "keeper", keeper_main, NULL);
    for (unsigned i = 0; i < nem.cfg.at_once && i < FIBERS_MAX; i++)
        nem.fiber[i] = vt_spawn(&nodes.self, "nemesis", acts_main, NULL);
}

void log_nemesis_wait(void)
{
    for (unsigned i = 0; i < nem.cfg.at_once && i < FIBERS_MAX; i++)
        vt_join(nem.fiber[i]);
    net_heal_all();
}
