/* See log_nodes.h. A command makes a file of a name and an inode that no other command has; it is proposed once, by one
 * metad, and never again: so it is in the log once or not at all. */
#include "log_nodes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "history.h"
#include "metad/log/mlog_internal.h"
#include "net.h"
#include "proto/request.h"
#include "rpc/rpc.h"

#define COMMANDS_MAX 16384u
#define TERMS_MAX 4096u
#define OPEN_MS 120000u
#define LOOK_NS (3 * NSEC_PER_MSEC)

enum fate { UNUSED, ASKED, ANSWERED, REFUSED, LOST };
struct command {
    enum fate fate;
    unsigned node;
    struct vt_proc *proc;
    uint64_t after; /* index that somebody had been told of before it was proposed */
    uint64_t index; /* in the log */
    unsigned times; /* it is there */
};

struct log_nodes nodes;
static struct {
    struct command v[COMMANDS_MAX];
    unsigned next; /* to be proposed */
    uint64_t told; /* highest index that anybody was told of */
    uint64_t leader_of[TERMS_MAX], elected[TERMS_MAX];
    uint64_t answered, looks, terms;
} all;

uint64_t log_nodes_answered(void)
{
    return all.answered;
}

bool log_nodes_all_used(void)
{
    return all.next == COMMANDS_MAX;
}

uint64_t log_nodes_looks(void)
{
    return all.looks;
}

uint64_t log_nodes_terms(void)
{
    return all.terms;
}

struct vt_proc *log_nodes_proc(unsigned i)
{
    return nodes.node[i].proc;
}

static struct log_node *me(void)
{
    for (unsigned i = 0; i < nodes.cfg.n; i++)
        if (nodes.node[i].proc && nodes.node[i].proc == vt_proc())
            return &nodes.node[i];
    return NULL;
}

static unsigned id_of(const struct log_node *n)
{
    return (unsigned)(n - nodes.node) + 1;
}

/* Before anything of it can be read or answered. */
static void applies(uint64_t index)
{
    struct log_node *n = me();
    if (n && index > n->applying)
        n->applying = index;
}

void log_nodes_init(const struct log_config *cfg)
{
    nodes.cfg = *cfg;
    history_hook = applies;
    snprintf(nodes.self.name, sizeof(nodes.self.name), "world");
    for (unsigned i = 0; i < cfg->n; i++) {
        snprintf(nodes.node[i].dir, sizeof(nodes.node[i].dir), "%s/m%u", cfg->dir, i + 1);
        snprintf(nodes.node[i].addr, sizeof(nodes.node[i].addr), "10.0.0.%u:7000", i + 1);
    }
}

/* ---- proposing ---- */

static void fill_create(Replfs__CreateOp *create, unsigned number, char name[16])
{
    snprintf(name, 16, "n%u", number);
    create->parent = FSM_ROOT_INO;
    create->name.data = (uint8_t *)name;
    create->name.len = strlen(name);
    create->mode = S_IFREG | 0644;
    create->ino = 100 + number;
}

static void applied(void *arg, int code, const struct fsm_result *res)
{
    struct command *c = arg;
    struct log_node *n = me();
    if (code) {
        c->fate = code == -EIO || code == -ERR_NOT_LEADER || code == -ERR_SHUTDOWN ? REFUSED : LOST;
        return;
    }
    if (res->code)
        vt_fail("command %u failed: %s", (unsigned)(c - all.v), err_str(-res->code));
    c->fate = ANSWERED;
    c->index = n->applying;
    if (c->index <= c->after)
        vt_fail("command %u has index %" PRIu64 ", though %" PRIu64
                " was answered before it was proposed",
                (unsigned)(c - all.v), c->index, c->after);
    all.answered++;
    if (c->index > all.told)
        all.told = c->index;
}

static void propose(struct log_node *n, unsigned number)
{
    char name[16];
    struct command *c = &all.v[number];
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CreateOp create = REPLFS__CREATE_OP__INIT;
    fill_create(&create, number, name);
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &create;
    cmd.op = &op;
    *c = (struct command){.fate = ASKED, .node = id_of(n), .proc = vt_proc(), .after = all.told};
    mlog_propose(n->mlog, &cmd, applied, NULL, c);
    while (c->fate == ASKED)
        vt_sleep_until(vt_now() + vt_between(1, 5) * NSEC_PER_MSEC);
}

static void propose_again(struct log_node *n, unsigned number)
{
    int64_t until = vt_now() + 5 * NSEC_PER_SEC;
    while (n->open && !mlog_is_leader(n->mlog) && vt_now() < until)
        vt_sleep_until(vt_now() + 20 * NSEC_PER_MSEC);
    if (n->open && vt_now() < until)
        propose(n, number);
}

static void *proposer(void *arg)
{
    struct log_node *n = arg;
    while (!nodes.enough) {
        vt_sleep_until(vt_now() + vt_between(0, nodes.cfg.pause_max));
        if (!n->open || !mlog_is_leader(n->mlog) || nodes.quiet) {
            vt_sleep_until(vt_now() + vt_between(5, 50) * NSEC_PER_MSEC);
            continue;
        }
        if (all.next == COMMANDS_MAX)
            break;
        unsigned number = all.next++;
        propose(n, number);
        if (nodes.cfg.plant == PLANT_TWICE && all.v[number].fate == REFUSED)
            propose_again(n, number);
    }
    return NULL;
}

bool log_nodes_done(void)
{
    for (unsigned i = 0; i < all.next; i++) {
        const struct command *c = &all.v[i];
        if (c->fate == ASKED && c->proc == nodes.node[c->node - 1].proc)
            return false;
    }
    return nodes.enough;
}

/* The ids that commands take are reserved once, by whoever leads first. */
static void reserve(struct log_node *n)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__ReserveOp r = REPLFS__RESERVE_OP__INIT;
    r.ino_upto = 1u << 30;
    op.op_case = REPLFS__META_OP__OP_RESERVE;
    op.reserve = &r;
    cmd.op = &op;
    int rc = mlog_propose_wait(n->mlog, &cmd, NULL);
    if (rc)
        vt_fail("ids cannot be reserved: %s", err_str(rc));
}

/* ---- a metad ---- */

static bool addr_of(void *arg, uint64_t id, char out[256])
{
    (void)arg;
    if (!id || id > nodes.cfg.n)
        return false;
    snprintf(out, 256, "%s", nodes.node[id - 1].addr);
    return true;
}

static void request(void *arg, struct rpc_req *req)
{
    struct log_node *n = arg;
    if (!n->open || n->proc != vt_proc())
        rpc_fail(req, ERR_SHUTDOWN, "not running yet");
    else if (request_of(req->env) == REQUEST_RAFT)
        mlog_rpc_raft(n->mlog, req);
    else if (request_of(req->env) == REQUEST_CHECKPOINT)
        mlog_rpc_checkpoint(n->mlog, req);
    else
        rpc_fail(req, ERR_PROTOCOL, "not this");
}

static void role_changed(void *arg, bool leader)
{
    struct log_node *n = arg;
    if (!leader || !n->mlog)
        return;
    uint64_t term = n->mlog->raft.current_term;
    if (term >= TERMS_MAX)
        vt_fail("term %" PRIu64, term);
    if (all.leader_of[term] && all.leader_of[term] != id_of(n))
        vt_fail("metads %" PRIu64 " and %u lead in term %" PRIu64, all.leader_of[term], id_of(n),
                term);
    all.terms += !all.leader_of[term];
    all.leader_of[term] = id_of(n);
}

static void failed(void *arg)
{
    ((struct log_node *)arg)->failed = true;
}

static void make_dir(struct log_node *n)
{
    int rc = n == nodes.node ? mlog_init_dir(n->dir, nodes.uuid)
                             : mlog_join_dir(n->dir, nodes.uuid, id_of(n));
    if (rc)
        vt_fail("%s cannot be made: %s", n->dir, err_str(rc));
    n->made = true;
}

static void *metad_main(void *arg)
{
    struct log_node *n = arg;
    struct rpc_config rpc = {.role = RPC_ROLE_METAD, .name = n->proc->name, .threads = 1};
    struct rpc_service svc = {.request = request, .arg = n, .cluster = nodes.uuid};
    struct mlog_config cfg = {.dir = n->dir,
                              .checkpoint_bytes = nodes.cfg.checkpoint_bytes,
                              .role_changed = role_changed,
                              .failed = failed,
                              .arg = n,
                              .addr_of = addr_of};
    int port;
    if (!n->made)
        make_dir(n);
    int rc = rpc_loop_new(&rpc, &cfg.loop);
    if (!rc)
        rc = fsm_new(&n->fsm);
    cfg.fsm = n->fsm;
    if (!rc)
        rc = rpc_listen(cfg.loop, n->addr, &svc, &port);
    if (!rc)
        rc = mlog_open(&cfg, OPEN_MS, &n->mlog);
    if (rc)
        vt_fail("metad %u does not start: %s", id_of(n), err_str(rc));
    mlog_serves_at(n->mlog, n->addr);
    if (n == nodes.node && n->run == 1)
        reserve(n);
    if (nodes.cfg.plant == PLANT_VOTE)
        n->mlog->votes_from = 0;
    n->open = true;
    for (unsigned i = 0; i < nodes.cfg.proposers; i++)
        vt_spawn(n->proc, "proposer", proposer, n);
    return NULL;
}

void log_nodes_start(unsigned i)
{
    struct log_node *n = &nodes.node[i];
    struct vt_proc *p = calloc(1, sizeof(*p));
    if (!p)
        abort();
    snprintf(p->name, sizeof(p->name), "metad%u.%u", i + 1, n->run++);
    p->host = i + 1;
    p->mono_off = p->boot_off = vt_between(1, 1000) * NSEC_PER_SEC;
    p->wall_off = 1800000000ll * NSEC_PER_SEC;
    p->drift_ppm = vt_between(-nodes.cfg.drift_ppm, nodes.cfg.drift_ppm);
    p->on_kill = net_killed;
    n->proc = p;
    n->failed = n->open = false;
    n->mlog = NULL;
    n->applying = 0;
    vt_spawn(p, "main", metad_main, n);
}

void log_nodes_kill(unsigned i)
{
    struct log_node *n = &nodes.node[i];
    struct vt_proc *p = n->proc;
    n->open = false;
    n->proc = NULL;
    n->mlog = NULL;
    if (p)
        vt_kill_proc(p);
}

static void *stop_main(void *arg)
{
    mlog_stop(((struct log_node *)arg)->mlog);
    return NULL;
}

void log_nodes_stop(unsigned i)
{
    struct log_node *n = &nodes.node[i];
    int64_t until = vt_now() + 5 * NSEC_PER_SEC; /* a full disk may make it wait */
    if (!n->open || n->proc->stopped)
        return;
    n->open = false;
    struct fiber *f = vt_spawn(n->proc, "stop", stop_main, n);
    while (!vt_over(f) && vt_now() < until)
        vt_sleep_until(vt_now() + 5 * NSEC_PER_MSEC);
}

/* ---- joining ---- */

/* mlog_may_read, as a thread of that metad would find it: its clock counts. */
static bool may_read(const struct log_node *n)
{
    if (!n->open || !atomic_load(&n->mlog->leader))
        return false;
    int64_t until = atomic_load(&n->mlog->lease_until);
    if (nodes.cfg.plant == PLANT_LEASE)
        return true;
    return until == INT64_MAX || (until && vt_clock(n->proc, VT_BOOT) < until);
}

int log_nodes_leader(void)
{
    for (unsigned i = 0; i < nodes.cfg.n; i++)
        if (may_read(&nodes.node[i]))
            return (int)i;
    return -1;
}

static bool is_voter(unsigned leader, uint64_t id)
{
    struct mlog_member m[MLOG_MEMBERS_MAX];
    unsigned n = mlog_members(nodes.node[leader].mlog, m);
    for (unsigned i = 0; i < n; i++)
        if (m[i].id == id)
            return m[i].role == MLOG_VOTER;
    return false;
}

struct added {
    bool over;
    int code;
};

static void added(void *arg, int code)
{
    struct added *a = arg;
    a->code = code;
    a->over = true;
}

static void *join_one(void *arg) /* on a fiber of the leader */
{
    struct log_node *n = arg;
    struct log_node *leader = me();
    struct added *a = calloc(1, sizeof(*a)); /* outlives us */
    if (!a)
        abort();
    mlog_change(leader->mlog, MLOG_ADD, id_of(n), 5000, added, a);
    while (!a->over)
        vt_sleep_until(vt_now() + NSEC_PER_MSEC);
    return NULL;
}

void log_nodes_join_all(void)
{
    for (unsigned i = 1; i < nodes.cfg.n; i++) {
        log_nodes_start(i);
        for (;;) {
            int leader = log_nodes_leader();
            vt_sleep_until(vt_now() + 5 * NSEC_PER_MSEC);
            if (leader < 0 || !nodes.node[leader].open)
                continue;
            if (is_voter((unsigned)leader, i + 1))
                break;
            struct fiber *f = vt_spawn(nodes.node[leader].proc, "join", join_one, &nodes.node[i]);
            while (!vt_over(f))
                vt_sleep_until(vt_now() + 5 * NSEC_PER_MSEC);
            vt_sleep_until(vt_now() + 50 * NSEC_PER_MSEC);
        }
    }
}

/* ---- looking ---- */

/* Whoever has won an election, whether it is of use yet or not. */
static void look_elected(const struct log_node *n)
{
    uint64_t term;
    if (!n->open || n->mlog->raft.state != RAFT_LEADER)
        return;
    term = n->mlog->raft.current_term;
    if (term >= TERMS_MAX)
        vt_fail("term %" PRIu64, term);
    if (all.elected[term] && all.elected[term] != id_of(n))
        vt_fail("metads %" PRIu64 " and %u were elected in term %" PRIu64, all.elected[term],
                id_of(n), term);
    all.elected[term] = id_of(n);
}

static void look(void)
{
    int reader = -1;
    for (unsigned i = 0; i < nodes.cfg.n; i++) {
        struct log_node *n = &nodes.node[i];
        look_elected(n);
        if (!n->open || n->proc->stopped || !may_read(n))
            continue;
        if (reader >= 0)
            vt_fail("metads %d and %u may both be read", reader + 1, i + 1);
        reader = (int)i;
        struct mlog_status st; /* also of what a checkpoint held when it started */
        mlog_status(n->mlog, &st);
        if (n->applying < all.told && st.applied < all.told)
            vt_fail("metad %u may be read and has applied up to %" PRIu64 ", while %" PRIu64
                    " was answered",
                    i + 1, n->applying, all.told);
    }
    all.looks++;
}

void *log_nodes_watch(void *arg)
{
    for (;;) {
        look();
        vt_sleep_until(vt_now() + vt_between(1, LOOK_NS));
    }
    return arg;
}

bool log_nodes_equal(void)
{
    struct mlog_status a = {0}, b;
    if (log_nodes_leader() < 0)
        return false;
    for (unsigned i = 0; i < nodes.cfg.n; i++) {
        if (!nodes.node[i].open || nodes.node[i].failed)
            return false;
        mlog_status(nodes.node[i].mlog, &b);
        if (i && (a.applied != b.applied || a.last != b.last || b.applied != b.last))
            return false;
        a = b;
    }
    return true;
}

/* ---- the end ---- */

static void in_log(void *arg, uint64_t index, const Replfs__Command *cmd)
{
    unsigned number;
    char name[16] = "";
    (void)arg;
    if (!cmd->op || cmd->op->op_case != REPLFS__META_OP__OP_CREATE)
        return;
    size_t len = cmd->op->create->name.len;
    if (len < sizeof(name))
        memcpy(name, cmd->op->create->name.data, len);
    if (sscanf(name, "n%u", &number) != 1 || number >= all.next)
        vt_fail("entry %" PRIu64 " holds a command that nobody proposed: %s", index, name);
    struct command *c = &all.v[number];
    if (c->times++)
        vt_fail("command %u is in the log twice", number);
    if (c->fate == ANSWERED && c->index != index)
        vt_fail("command %u was answered at %" PRIu64 " and is at %" PRIu64, number, c->index,
                index);
}

void log_nodes_verify(void)
{
    history_each(in_log, NULL);
    for (unsigned i = 0; i < all.next; i++)
        if (all.v[i].fate == ANSWERED && !all.v[i].times)
            vt_fail("command %u was answered and is lost", i);
    for (unsigned i = 0; i < nodes.cfg.n; i++) {
        struct mlog_status s;
        mlog_status(nodes.node[i].mlog, &s);
        history_check(nodes.node[i].fsm, s.applied);
    }
}
