/* A real metad in this process, and clients that talk to it over loopback. Each test gets a fresh
 * one (setup, teardown) and the session `me`. */
#ifndef REPLFS_TESTS_SERVICE_RIG_H
#define REPLFS_TESTS_SERVICE_RIG_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "metad/leader.h"
#include "tests/unit/tree.h"
#include "tests/unit/wait.h"

#ifndef LEASE_MS
#define LEASE_MS 1500u
#endif
#ifndef TERM_MS
#define TERM_MS 0u /* metad's default, or LEASE_MS when that is less */
#endif
#ifndef MAX_MEMORY
#define MAX_MEMORY 0u /* metad's default */
#endif
#ifndef SUSPECT_MS
#define SUSPECT_MS 5000u /* silence after which a chunkd gets no new data */
#endif
#ifndef METAD_DIR
#define METAD_DIR "/var/tmp" /* metad's directory is in here, unless TMPDIR says otherwise */
#endif
#define PATIENCE_MS 20000

static struct service_rig {
    char dir[128];
    struct fsm *fsm;
    struct mlog *mlog;
    struct ids *ids;
    struct sessions *sessions;
    struct rpc_loop *loop;
    struct nodes *nodes;
    struct leader *leader;
    struct service *service;
    int port;
    int64_t keep_ms;  /* of sessions that lapsed, 0: metad's default */
    unsigned term_ms; /* of leases, 0: TERM_MS */
} md;
static struct service_rig_peer {
    struct rpc_loop *loop;
    struct rpc_conn *conn;
    uint64_t session, seq;
} me;

/* ---- a metad, a client ---- */

/* The parts of the leadership that has just begun. */
static inline void service_rig_parts(void)
{
    md.ids = leader_ids(md.leader);
    md.sessions = leader_sessions(md.leader);
    md.service = leader_service(md.leader);
}

static inline void start_metad(void)
{
    struct rpc_config rpc = {.role = RPC_ROLE_METAD, .name = "metad", .threads = 2};
    struct mlog_config log_cfg = {.dir = md.dir, .role_changed = leader_role_changed};
    struct nodes_config nodes_cfg = {
        .heartbeat_ms = 1000, .suspect_ms = SUSPECT_MS, .dead_ms = 12 * SUSPECT_MS};
    struct leader_config cfg = {
        .sessions = {.lease_ms = LEASE_MS, .tick_ms = 20, .keep_ms = md.keep_ms},
        .service = {.lease_ms = LEASE_MS,
                    .term_ms = md.term_ms ? md.term_ms : TERM_MS,
                    .max_memory = MAX_MEMORY}};

    assert_int_equal(fsm_new(&md.fsm), 0);
    md.leader = log_cfg.arg = leader_new();
    log_cfg.fsm = md.fsm;
    assert_int_equal(mlog_open(&log_cfg, PATIENCE_MS, &md.mlog), 0);
    assert_int_equal(rpc_loop_new(&rpc, &md.loop), 0);
    nodes_cfg.fsm = cfg.fsm = md.fsm;
    nodes_cfg.mlog = cfg.mlog = md.mlog;
    nodes_cfg.loop = cfg.loop = md.loop;
    nodes_cfg.dir = md.dir;
    nodes_cfg.gate = leader_gate(md.leader);
    assert_int_equal(nodes_new(&nodes_cfg, &md.nodes), 0);
    cfg.nodes = md.nodes;
    assert_int_equal(leader_begin(md.leader, &cfg), 0);
    service_rig_parts();
    assert_int_equal(rpc_listen(md.loop, "127.0.0.1:0", leader_rpc(md.leader), &md.port), 0);
}

static inline void stop_metad(void)
{
    leader_end(md.leader);
    mlog_stop(md.mlog);
    rpc_loop_free(md.loop);
    nodes_free(md.nodes);
    mlog_close(md.mlog);
    fsm_free(md.fsm);
    leader_free(md.leader);
}

/* svc: for what metad asks of it, or NULL */
static inline void service_rig_dial_serving(struct service_rig_peer *p, enum rpc_role role,
                                            const struct rpc_service *svc)
{
    struct rpc_config rpc = {.role = role, .name = "test", .threads = 1};
    char addr[64];

    snprintf(addr, sizeof(addr), "127.0.0.1:%d", md.port);
    assert_int_equal(rpc_loop_new(&rpc, &p->loop), 0);
    assert_int_equal(rpc_dial(p->loop, addr, RPC_ROLE_METAD, svc, &p->conn), 0);
}

static inline void service_rig_dial(struct service_rig_peer *p, enum rpc_role role)
{
    service_rig_dial_serving(p, role, NULL);
}

static inline void service_rig_hang_up(struct service_rig_peer *p)
{
    rpc_conn_unref(p->conn);
    rpc_loop_free(p->loop);
}

static inline int service_rig_ask(struct service_rig_peer *p, Replfs__Envelope *env,
                                  struct rpc_result *out)
{
    return rpc_call_wait(p->conn, env, NULL, PATIENCE_MS, out);
}

/* A request under way, and what was answered. */
struct service_rig_call {
    pthread_mutex_t mu;
    pthread_cond_t cond;
    bool done, said; /* said: by metad, not by our own time-out */
    int code;        /* of the call, or of the first operation */
    uint32_t lease;
    uint64_t ino; /* of the attributes that came along; 0: none did */
};

static inline void call_done(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct service_rig_call *k = arg;
    const Replfs__Attr *attr = NULL;

    (void)payload;
    pthread_mutex_lock(&k->mu);
    k->code = code;
    k->said = rep != NULL;
    if (code == 0 && rep->body_case == REPLFS__ENVELOPE__BODY_MUTATE_REPLY) {
        const Replfs__MutationResult *r = rep->mutate_reply->results[0];
        k->code = -(int)r->code;
        k->lease = r->lease;
        attr = r->attr;
    } else if (code == 0 && rep->body_case == REPLFS__ENVELOPE__BODY_GETATTR_REPLY) {
        k->lease = rep->getattr_reply->lease;
        attr = rep->getattr_reply->attr;
    } else if (code == 0 && rep->body_case == REPLFS__ENVELOPE__BODY_OPEN_REPLY) {
        k->lease = rep->open_reply->lease;
        attr = rep->open_reply->attr;
    } else if (code == 0 && rep->body_case == REPLFS__ENVELOPE__BODY_LEASE_REPLY) {
        k->lease = rep->lease_reply->lease;
        attr = rep->lease_reply->attr;
    } else if (code == 0 && rep->body_case == REPLFS__ENVELOPE__BODY_LOCK_REPLY) {
        attr = rep->lock_reply->attr;
    }
    k->ino = attr != NULL ? attr->ino : 0;
    k->done = true;
    pthread_cond_signal(&k->cond);
    pthread_mutex_unlock(&k->mu);
}

static inline void send_to(struct service_rig_peer *p, struct service_rig_call *k,
                           Replfs__Envelope *env, unsigned ms)
{
    *k = (struct service_rig_call){.mu = PTHREAD_MUTEX_INITIALIZER,
                                   .cond = PTHREAD_COND_INITIALIZER};
    rpc_call(p->conn, env, NULL, ms, call_done, k);
}

static inline int finish(struct service_rig_call *k)
{
    pthread_mutex_lock(&k->mu);
    while (!k->done)
        pthread_cond_wait(&k->cond, &k->mu);
    pthread_mutex_unlock(&k->mu);
    return k->code;
}

static inline bool is_done(struct service_rig_call *k)
{
    pthread_mutex_lock(&k->mu);
    bool done = k->done;
    pthread_mutex_unlock(&k->mu);
    return done;
}

/* id 0: a new session. Returns the code. */
static inline int service_rig_open_session(struct service_rig_peer *p, uint64_t id,
                                           const uint64_t *inos, size_t n)
{
    Replfs__SessionReq r = REPLFS__SESSION_REQ__INIT;
    struct rpc_result res;

    r.session = id;
    r.name = (char *)"test";
    r.host_id = (char *)"host";
    r.open_inos = (uint64_t *)(uintptr_t)inos;
    r.n_open_inos = n;
    RPC_ENVELOPE(env, SESSION_REQ, session_req, &r);
    int rv = service_rig_ask(p, &env, &res);
    if (rv == 0) {
        assert_int_equal(res.rep->session_reply->lease_ms, LEASE_MS);
        assert_string_equal(res.rep->session_reply->cluster, mlog_uuid(md.mlog));
        p->session = res.rep->session_reply->session;
        assert_true(p->session != 0);
    }
    rpc_result_free(&res);
    return rv;
}

struct one_result {
    uint32_t code;
    uint64_t ino, value;
};

/* One operation of our session, as number seq. */
static inline struct one_result mutate_as(Replfs__MetaOp *op, uint64_t seq)
{
    Replfs__MutateReq r = REPLFS__MUTATE_REQ__INIT;
    Replfs__Mutation m = REPLFS__MUTATION__INIT, *list = &m;
    struct rpc_result res = {0};

    m.seq = seq;
    m.op = op;
    r.session = me.session;
    r.n_ops = 1;
    r.ops = &list;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &r);
    assert_int_equal(service_rig_ask(&me, &env, &res), 0);
    const Replfs__MutationResult *x = res.rep->mutate_reply->results[0];
    struct one_result out = {x->code, x->attr ? x->attr->ino : 0, x->value};
    rpc_result_free(&res);
    return out;
}

#define MUTATE(CASE, field, body)                                                                  \
    ({                                                                                             \
        Replfs__MetaOp op_ = REPLFS__META_OP__INIT;                                                \
        op_.op_case = REPLFS__META_OP__OP_##CASE;                                                  \
        op_.field = (body);                                                                        \
        mutate_as(&op_, ++me.seq);                                                                 \
    })

static inline ProtobufCBinaryData bytes_of(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)(uintptr_t)s};
}

static inline struct one_result make_name(uint64_t dir, const char *name, uint32_t mode)
{
    Replfs__CreateOp c = REPLFS__CREATE_OP__INIT;

    c.parent = dir;
    c.name = bytes_of(name);
    c.mode = mode;
    return MUTATE(CREATE, create, &c);
}

/* One in an empty directory; false when that cannot be made. */
static inline bool new_metad(void)
{
    char uuid[37];

    memset(&md, 0, sizeof(md));
    if (!tree_make(md.dir, sizeof(md.dir), METAD_DIR, "service") ||
        mlog_init_dir(md.dir, uuid) != 0)
        return false;
    start_metad();
    return true;
}

static inline int service_rig_setup(void **state)
{
    (void)state;
    memset(&me, 0, sizeof(me));
    if (!new_metad())
        return -1;
    service_rig_dial(&me, RPC_ROLE_CLIENT);
    return service_rig_open_session(&me, 0, NULL, 0);
}

static inline int service_rig_teardown(void **state)
{
    (void)state;
    service_rig_hang_up(&me);
    stop_metad();
    tree_remove(md.dir);
    return 0;
}
#endif
