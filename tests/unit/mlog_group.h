/* Several metads' logs in one process, each with an rpc loop of its own on loopback: made, joined, closed, opened
 * again, cut off. The first one makes the cluster, the others join. */
#ifndef REPLFS_TESTS_MLOG_GROUP_H
#define REPLFS_TESTS_MLOG_GROUP_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "metad/log/mlog.h"
#include "metad/log/mlog_internal.h"
#include "proto/request.h"
#include "rpc/rpc.h"
#include "tests/unit/tree.h"
#include "tests/unit/tsan_forks.h"
#include "tests/unit/wait.h"

#define GROUP_MAX 6
#define GROUP_PATIENCE_MS 30000u

struct group_node {
    uint64_t id;
    char dir[160];
    char addr[64];
    struct rpc_loop *loop;
    struct rpc_service svc;
    pthread_rwlock_t lock; /* requests hold it while they use mlog */
    struct mlog *mlog;
    struct fsm *fsm;
    uint64_t checkpoint_bytes;
    atomic_bool mute_addr;    /* knows no addresses but those that it is told */
    atomic_uint gained, lost; /* changes of role */
    atomic_uint failed;       /* its log gave up */
    unsigned check_ms;        /* mlog_config's */
    unsigned long_fork_us;    /* likewise */
    atomic_uint restored;     /* states got from the leader */
    /* What stands on it, set before group_open(); NULL: nothing does. */
    void (*role)(void *arg, bool leads);
    void (*restore)(void *arg);
    void *above;
    const struct rpc_service *rest; /* who gets the other requests; under lock */
    atomic_bool freeze, frozen;     /* its log thread stops at the next entry; does */
};
static char group_base[128];
static struct {
    char uuid[37];
    struct group_node node[GROUP_MAX]; /* [i] is metad i + 1 */
} group;

static pthread_mutex_t group_addr_lock = PTHREAD_MUTEX_INITIALIZER; /* addresses, of all nodes */

static inline void group_set_addr(unsigned i, const char *addr)
{
    pthread_mutex_lock(&group_addr_lock);
    snprintf(group.node[i].addr, sizeof(group.node[i].addr), "%s", addr);
    pthread_mutex_unlock(&group_addr_lock);
}

static inline bool group_addr_of(void *arg, uint64_t id, char out[256])
{
    struct group_node *self = arg;

    /* one that knows nothing yet has to be told, as in real life */
    if (self->mute_addr || id == 0 || id > GROUP_MAX)
        return false;
    pthread_mutex_lock(&group_addr_lock);
    snprintf(out, 256, "%s", group.node[id - 1].addr);
    pthread_mutex_unlock(&group_addr_lock);
    return out[0] != 0;
}

static inline void group_request(void *arg, struct rpc_req *req)
{
    struct group_node *n = arg;

    pthread_rwlock_rdlock(&n->lock);
    if (!n->mlog)
        rpc_fail(req, ERR_SHUTDOWN, "not running");
    else if (request_of(req->env) == REQUEST_RAFT)
        mlog_rpc_raft(n->mlog, req);
    else if (request_of(req->env) == REQUEST_CHECKPOINT)
        mlog_rpc_checkpoint(n->mlog, req);
    else if (n->rest)
        n->rest->request(n->rest->arg, req);
    else
        rpc_fail(req, ERR_PROTOCOL, "not this");
    pthread_rwlock_unlock(&n->lock);
}

static inline void group_closed(void *arg, struct rpc_conn *c)
{
    struct group_node *n = arg;

    pthread_rwlock_rdlock(&n->lock);
    if (n->rest)
        n->rest->closed(n->rest->arg, c);
    pthread_rwlock_unlock(&n->lock);
}

static inline void group_applied(void *arg, uint64_t index, uint64_t term, const void *entry,
                                 size_t len)
{
    struct group_node *n = arg;

    (void)index;
    (void)term;
    (void)entry;
    (void)len;
    while (atomic_load(&n->freeze)) {
        atomic_store(&n->frozen, true);
        usleep(1000);
    }
    atomic_store(&n->frozen, false);
}

static inline void group_restored(void *arg)
{
    struct group_node *n = arg;

    if (n->restore)
        n->restore(n->above);
    atomic_fetch_add(&n->restored, 1);
}

static inline void group_failed(void *arg)
{
    struct group_node *n = arg;

    atomic_fetch_add(&n->failed, 1);
}

static inline void group_role(void *arg, bool leader)
{
    struct group_node *n = arg;

    atomic_fetch_add(leader ? &n->gained : &n->lost, 1);
    if (n->role)
        n->role(n->above, leader);
}

static inline void group_open(unsigned i)
{
    struct group_node *n = &group.node[i];
    const struct mlog_observer observer = {.applied = group_applied, .arg = n};
    struct mlog_config cfg = {.dir = n->dir,
                              .checkpoint_bytes = n->checkpoint_bytes,
                              .role_changed = group_role,
                              .restored = group_restored,
                              .failed = group_failed,
                              .check_ms = n->check_ms,
                              .long_fork_us = n->long_fork_us,
                              .arg = n,
                              .loop = n->loop,
                              .addr_of = group_addr_of,
                              .addr_arg = n,
                              .observer = &observer};
    struct mlog *m;

    assert_int_equal(fsm_new(&n->fsm), 0);
    cfg.fsm = n->fsm;
    assert_int_equal(mlog_open(&cfg, GROUP_PATIENCE_MS, &m), 0);
    mlog_serves_at(m, n->addr);
    pthread_rwlock_wrlock(&n->lock);
    n->mlog = m;
    pthread_rwlock_unlock(&n->lock);
}

static inline void group_close(unsigned i)
{
    struct group_node *n = &group.node[i];
    struct mlog *m = n->mlog;

    if (!m)
        return;
    pthread_rwlock_wrlock(&n->lock);
    n->mlog = NULL;
    pthread_rwlock_unlock(&n->lock);
    mlog_close(m);
    fsm_free(n->fsm);
    n->fsm = NULL;
}

/* A node with a loop and a port, and no directory yet. */
static inline void group_prepare(unsigned i)
{
    struct group_node *n = &group.node[i];
    struct rpc_config rpc = {.role = RPC_ROLE_METAD, .name = "metad", .threads = 1};
    char addr[64];
    int port = 0;

    n->id = i + 1;
    snprintf(n->dir, sizeof(n->dir), "%s/%u", group_base, i + 1);
    pthread_rwlock_init(&n->lock, NULL);
    n->svc = (struct rpc_service){
        .request = group_request, .closed = group_closed, .arg = n, .cluster = group.uuid};
    assert_int_equal(rpc_loop_new(&rpc, &n->loop), 0);
    assert_int_equal(rpc_listen(n->loop, "127.0.0.1:0", &n->svc, &port), 0);
    snprintf(addr, sizeof(addr), "127.0.0.1:%d", port);
    group_set_addr(i, addr);
}

static inline int group_setup(void **state)
{
    (void)state;
    memset(&group, 0, sizeof(group));
    if (!tree_make(group_base, sizeof(group_base), "/var/tmp", "group"))
        return -1;
    group_prepare(0);
    assert_int_equal(mlog_init_dir(group.node[0].dir, group.uuid), 0);
    return 0;
}

static inline int group_teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < GROUP_MAX; i++)
        group_close(i);
    for (unsigned i = 0; i < GROUP_MAX; i++)
        if (group.node[i].loop) {
            rpc_loop_free(group.node[i].loop);
            pthread_rwlock_destroy(&group.node[i].lock);
        }
    tree_remove(group_base);
    return 0;
}

/* The one that leads and may be read; -1: none right now. */
static inline int group_leader(void)
{
    for (int i = 0; i < GROUP_MAX; i++)
        if (group.node[i].mlog && mlog_may_read(group.node[i].mlog))
            return i;
    return -1;
}

static inline int group_wait_leader(void)
{
    int i = -1;

    WAIT_UNTIL((i = group_leader()) >= 0);
    return i;
}

static inline unsigned group_role_of(int leader, uint64_t id)
{
    struct mlog_member all[MLOG_MEMBERS_MAX];
    unsigned n = mlog_members(group.node[leader].mlog, all);

    for (unsigned i = 0; i < n; i++)
        if (all[i].id == id)
            return all[i].role;
    return 99;
}

static inline void group_join(unsigned i)
{
    int leader = -1;

    if (!group.node[i].loop) {
        group_prepare(i);
        assert_int_equal(mlog_join_dir(group.node[i].dir, group.uuid, i + 1), 0);
        group.node[i].mute_addr = true;
    }
    group_open(i);
    int rc = -ERR_BUSY;
    int64_t end = clock_mono() + GROUP_PATIENCE_MS * NSEC_PER_MSEC;
    while (rc != 0 && clock_mono() < end) {
        leader = group_wait_leader();
        rc = mlog_change_wait(group.node[leader].mlog, MLOG_ADD, i + 1, 5000);
        usleep(2000);
    }
    assert_int_equal(rc, 0);
    WAIT_UNTIL((leader = group_leader()) >= 0 && group_role_of(leader, i + 1) == MLOG_VOTER);
    group.node[i].mute_addr = false; /* its state tells it all by now */
}

/* ---- commands ---- */

static inline void group_any_answer(void *arg, int code, const struct fsm_result *res)
{
    (void)arg, (void)code, (void)res;
}

/* wait: 0 or an error; else what became of it is nobody's business. */
static inline int group_send_create(int node, unsigned i, bool wait)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__CreateOp create = REPLFS__CREATE_OP__INIT;
    struct fsm_result res = {0};
    char name[32];

    snprintf(name, sizeof(name), "n%08u", i);
    create.parent = FSM_ROOT_INO;
    create.name.data = (uint8_t *)name;
    create.name.len = strlen(name);
    create.mode = S_IFREG | 0644;
    create.ino = 2 + i;
    op.op_case = REPLFS__META_OP__OP_CREATE;
    op.create = &create;
    cmd.op = &op;
    if (!wait) {
        mlog_propose(group.node[node].mlog, &cmd, group_any_answer, NULL, NULL);
        return 0;
    }
    int rc = mlog_propose_wait(group.node[node].mlog, &cmd, &res);
    return rc != 0 ? rc : res.code;
}

static inline int group_propose_create(int node, unsigned i)
{
    return group_send_create(node, i, true);
}

/* An operation, with whoever leads. */
static inline void group_log(Replfs__MetaOp *op)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    struct fsm_result res = {0};

    cmd.op = op;
    assert_int_equal(mlog_propose_wait(group.node[group_wait_leader()].mlog, &cmd, &res), 0);
    assert_int_equal(res.code, 0);
}

/* The state's table has metads 1 to n, as after their joining. */
static inline void group_log_metads(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        Replfs__MetadOp metad = REPLFS__METAD_OP__INIT;
        Replfs__MetaOp op = REPLFS__META_OP__INIT;
        metad.id = i + 1;
        metad.addr = group.node[i].addr;
        op.op_case = REPLFS__META_OP__OP_METAD;
        op.metad = &metad;
        group_log(&op);
    }
}

static inline void group_reserve(void)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__ReserveOp reserve = REPLFS__RESERVE_OP__INIT;

    reserve.ino_upto = 1u << 30;
    op.op_case = REPLFS__META_OP__OP_RESERVE;
    op.reserve = &reserve;
    cmd.op = &op;
    assert_int_equal(mlog_propose_wait(group.node[group_wait_leader()].mlog, &cmd, NULL), 0);
}

/* With whoever leads, until it is done; a repetition that finds it done is fine. */
static inline void group_create(unsigned i)
{
    int rc = -1;

    for (int64_t end = clock_mono() + GROUP_PATIENCE_MS * NSEC_PER_MSEC; rc != 0;) {
        assert_true(clock_mono() < end);
        rc = group_propose_create(group_wait_leader(), i);
        if (rc == EEXIST)
            rc = 0;
    }
}

static inline bool group_has(int node, unsigned i)
{
    char name[32];
    uint64_t ino;

    snprintf(name, sizeof(name), "n%08u", i);
    fsm_rdlock(group.node[node].fsm);
    int rc = fsm_lookup(group.node[node].fsm, FSM_ROOT_INO, (uint8_t *)name, strlen(name), &ino);
    fsm_unlock(group.node[node].fsm);
    return rc == 0;
}

static inline bool group_equal(void)
{
    struct mlog_status l, s;
    uint64_t digest = 0;
    int leader = group_leader();

    if (leader < 0)
        return false;
    mlog_status(group.node[leader].mlog, &l);
    for (int i = 0; i < GROUP_MAX; i++) {
        if (!group.node[i].mlog)
            continue;
        mlog_status(group.node[i].mlog, &s);
        fsm_rdlock(group.node[i].fsm);
        uint64_t d = fsm_digest(group.node[i].fsm);
        fsm_unlock(group.node[i].fsm);
        if (s.applied != l.applied || (digest != 0 && d != digest))
            return false;
        digest = d;
    }
    return true;
}

/* All that run get to have applied the same, and are the same then. (A proposer hears of its command a moment before
 * the status does.) */
static inline void group_same(void)
{
    WAIT_UNTIL(group_equal());
}

/* Nothing passes between node and the others any more, or again. */
static inline void group_cut(unsigned node, bool cut)
{
    for (unsigned i = 0; i < GROUP_MAX; i++) {
        if (!group.node[i].mlog || i == node)
            continue;
        uint_fast64_t a = (uint_fast64_t)1 << (node + 1), b = (uint_fast64_t)1 << (i + 1);
        if (cut) {
            atomic_fetch_or(&group.node[i].mlog->net->cut, a);
            atomic_fetch_or(&group.node[node].mlog->net->cut, b);
        } else {
            atomic_fetch_and(&group.node[i].mlog->net->cut, ~a);
            atomic_fetch_and(&group.node[node].mlog->net->cut, ~b);
        }
    }
}
#endif
