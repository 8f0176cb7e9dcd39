/* A client that does what no honest one does, against a running metad: hostile ADDR METAD_PID [SCALE].
 * Each attack prints one line with its figures: what was tried, what was let through, how long it
 * took, and what it cost metad in memory. Exit code 1 when a bound did not hold.
 *
 * Trusted as far as a client is: it has said Hello, and has a session. Single-threaded but for the
 * rpc loop. */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/log.h"
#include "rpc/rpc.h"

#define TIMEOUT_MS 20000u
#define STALL_S                                                                                    \
    10 /* far above what a busy machine with sanitizers needs, far below what an attack took */
#define SESSIONS 2000u
#define LOCKS 40u
#define CHUNKDS 600u
#define LOCK_SESSIONS 40u
#define LOCK_OWNERS 100u /* of each of these sessions; and so many that wait, five times */
#define JUNK ((1u << 20) - 4096u)

static struct rpc_loop *loop;
static const char *addr;
static long metad;
static unsigned scale = 1;
static int bad;

static long rss_kib(void)
{
    char path[64], line[256];
    long kib = 0;

    snprintf(path, sizeof path, "/proc/%ld/status", metad);
    FILE *f = fopen(path, "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "VmRSS: %ld", &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return kib;
}

static double seconds_since(int64_t t0)
{
    return (double)(clock_mono() - t0) / NSEC_PER_SEC;
}

/* Says what came out; a bound that did not hold is remembered. */
static void verdict(bool held, const char *attack, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void verdict(bool held, const char *attack, const char *fmt, ...)
{
    va_list ap;

    printf("%-9s %-34s ", held ? "bounded" : "NOT HELD", attack);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
    bad |= !held;
}

static struct rpc_conn *dial(void)
{
    struct rpc_conn *c = NULL;

    if (rpc_dial(loop, addr, RPC_ROLE_METAD, NULL, &c) != 0) {
        fprintf(stderr, "hostile: cannot dial %s\n", addr);
        exit(2);
    }
    return c;
}

static int open_session(struct rpc_conn *c, uint64_t *session)
{
    Replfs__SessionReq q = REPLFS__SESSION_REQ__INIT;
    struct rpc_result r;

    q.name = (char *)"hostile";
    q.host_id = (char *)"hostile";
    RPC_ENVELOPE(env, SESSION_REQ, session_req, &q);
    int rc = rpc_call_wait(c, &env, NULL, TIMEOUT_MS, &r);
    if (rc == 0)
        *session = r.rep->session_reply->session;
    rpc_result_free(&r);
    return rc;
}

static int stat_root(struct rpc_conn *c, uint64_t session)
{
    Replfs__GetattrReq q = REPLFS__GETATTR_REQ__INIT;
    struct rpc_result r;

    q.session = session;
    q.ino = 1;
    RPC_ENVELOPE(env, GETATTR_REQ, getattr_req, &q);
    int rc = rpc_call_wait(c, &env, NULL, TIMEOUT_MS, &r);
    rpc_result_free(&r);
    return rc;
}

/* ---- attacks ---- */

/* Sessions without end, over one connection. */
static void many_sessions(void)
{
    struct rpc_conn *c = dial();
    unsigned n = SESSIONS * scale, opened = 0;
    uint64_t session;
    long before = rss_kib();
    int64_t t0 = clock_mono();

    for (unsigned i = 0; i < n; i++)
        opened += open_session(c, &session) == 0;
    verdict(opened <= 512, "sessions of one peer", "%u of %u opened, %.1f s, %ld KiB more", opened,
            n, seconds_since(t0), rss_kib() - before);
    rpc_conn_unref(c);
}

/* One's own inode, named over and over in one command; and very many of them. */
static void goal_of_death(struct rpc_conn *c, uint64_t session)
{
    static uint64_t ino[60000];
    Replfs__MutateReq q = REPLFS__MUTATE_REQ__INIT;
    Replfs__Mutation m = REPLFS__MUTATION__INIT, *ms = &m;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__SetGoalOp goal = REPLFS__SET_GOAL_OP__INIT;
    struct rpc_result r;
    size_t count[2] = {1000, 60000};

    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < count[k]; i++)
            ino[i] = k == 0 ? 1 : 1 + i;
        goal.ino = ino;
        goal.n_ino = count[k];
        goal.goal = 2;
        op.op_case = REPLFS__META_OP__OP_SET_GOAL;
        op.set_goal = &goal;
        m.seq = 1 + (uint64_t)k;
        m.op = &op;
        q.session = session;
        q.n_ops = 1;
        q.ops = &ms;
        RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &q);
        int64_t t0 = clock_mono();
        int rc = rpc_call_wait(c, &env, NULL, TIMEOUT_MS, &r);
        uint32_t code = rc == 0 ? r.rep->mutate_reply->results[0]->code : (uint32_t)-rc;
        double s = seconds_since(t0);
        verdict(code == EINVAL && s < STALL_S,
                k == 0 ? "SetGoal, one inode 1000 times" : "SetGoal of 60000 inodes", "%s, %.3f s",
                err_str(-(int)code), s);
        rpc_result_free(&r);
    }
}

static void ignore(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)code;
    (void)rep;
    (void)payload;
    atomic_fetch_sub((atomic_int *)arg, 1);
}

/* Requests that wait, each with a megabyte that nobody asked for: field 9999, over and over. */
static void junk_that_waits(struct rpc_conn *holder, uint64_t held_by)
{
    static atomic_int under_way;
    Replfs__LockReq q = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock l = REPLFS__LOCK__INIT;
    struct rpc_conn *c = dial();
    struct rpc_result r;
    uint64_t session;
    unsigned n = JUNK / 4;
    ProtobufCMessageUnknownField *junk = calloc(n, sizeof *junk);
    static uint8_t zero[1];

    l.ino = 1;
    l.type = 1;
    l.end = 9;
    q.session = held_by;
    q.lock = &l;
    RPC_ENVELOPE(first, LOCK_REQ, lock_req, &q);
    rpc_call_wait(holder, &first, NULL, TIMEOUT_MS, &r);
    rpc_result_free(&r);
    if (open_session(c, &session) != 0 || junk == NULL)
        exit(2);
    for (unsigned i = 0; i < n; i++)
        junk[i] = (ProtobufCMessageUnknownField){9999, PROTOBUF_C_WIRE_TYPE_VARINT, 1, zero};
    long before = rss_kib();
    int64_t t0 = clock_mono();
    for (unsigned i = 0; i < LOCKS * scale; i++) {
        q.session = session;
        q.wait = true;
        q.id = 1 + i;
        l.owner = 100 + i;
        RPC_ENVELOPE(env, LOCK_REQ, lock_req, &q);
        q.base.n_unknown_fields = n;
        q.base.unknown_fields = junk;
        atomic_fetch_add(&under_way, 1);
        rpc_call(c, &env, NULL, 3000, ignore, &under_way);
    }
    int rc = stat_root(holder, held_by);
    while (atomic_load(&under_way) > 0)
        usleep(10000);
    long more = rss_kib() - before;
    verdict(rc == 0 && more < 300 * 1024, "waiting requests full of junk",
            "%u of %u KiB each: %ld KiB more in metad, %.1f s", LOCKS * scale, JUNK >> 10, more,
            seconds_since(t0));
    rpc_conn_unref(c);
    free(junk);
}

struct tally {
    atomic_int under_way, refused;
};

static void count(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct tally *t = arg;

    (void)rep;
    (void)payload;
    atomic_fetch_add(&t->refused, code == -ENOLCK);
    atomic_fetch_sub(&t->under_way, 1);
}

static void lock(struct rpc_conn *c, struct tally *t, uint64_t session, uint64_t owner,
                 uint32_t type, uint64_t at, bool wait)
{
    Replfs__LockReq q = REPLFS__LOCK_REQ__INIT;
    Replfs__Lock l = REPLFS__LOCK__INIT;

    l.ino = 1;
    l.type = type;
    l.owner = owner;
    l.start = l.end = at;
    q.session = session;
    q.lock = &l;
    q.wait = wait;
    q.id = owner;
    RPC_ENVELOPE(env, LOCK_REQ, lock_req, &q);
    atomic_fetch_add(&t->under_way, 1);
    rpc_call(c, &env, NULL, TIMEOUT_MS, count, t);
}

static void wait_until(const atomic_int *n, int most, int64_t deadline)
{
    while (atomic_load(n) > most && clock_mono() < deadline)
        usleep(1000);
}

/* Many sessions, each with many owners of locks and requests that wait, all at one file: for each
 * release everybody who waits looks at everybody who holds something. Beside it a getattr. */
static void locks_of_one_file(struct rpc_conn *beside, uint64_t session)
{
    static struct tally holds, waits, frees;
    struct rpc_conn *c = dial();
    uint64_t s[LOCK_SESSIONS];
    unsigned owners = LOCK_SESSIONS * LOCK_OWNERS, waiting = owners * 5;
    double slowest = 0;
    int64_t t0 = clock_mono();

    for (unsigned i = 0; i < LOCK_SESSIONS; i++)
        if (open_session(c, &s[i]) != 0)
            exit(2);
    for (unsigned i = 0; i < owners; i++)
        lock(c, &holds, s[i % LOCK_SESSIONS], 1 + i, 0, 1000 + i, false);
    wait_until(&holds.under_way, 0, t0 + TIMEOUT_MS * NSEC_PER_MSEC);
    for (unsigned i = 0; i < waiting; i++) /* for what the last of them has */
        lock(c, &waits, s[i % LOCK_SESSIONS], 100000 + i, 1, 1000 + owners - 1, true);
    double setup = seconds_since(t0);
    t0 = clock_mono();
    for (unsigned i = 0; i < 20 * scale; i++)
        lock(c, &frees, s[i % LOCK_SESSIONS], 1 + i, 2, 1000 + i, false);
    while (atomic_load(&frees.under_way) > 0 && seconds_since(t0) < 60) {
        int64_t t1 = clock_mono();
        int rc = stat_root(beside, session);
        double took = rc == 0 ? seconds_since(t1) : 1000;
        slowest = took > slowest ? took : slowest;
        usleep(1000);
    }
    double took = seconds_since(t0);
    verdict(atomic_load(&waits.refused) > 0 && took < STALL_S && slowest < STALL_S,
            "waiting locks of one file",
            "%u owners, %d of %u that wait refused (%.1f s); %u releases in %.2f s, the slowest "
            "getattr "
            "beside them %.3f s",
            owners, atomic_load(&waits.refused), waiting, setup, 20 * scale, took, slowest);
    rpc_conn_close(c); /* ends those that wait */
    wait_until(&waits.under_way, 0, clock_mono() + TIMEOUT_MS * NSEC_PER_MSEC);
    rpc_conn_unref(c);
}

/* ---- a chunkd that is to call whom a client names ---- */

static atomic_uint calls; /* of chunkds at the stranger's door */

static void stranger_request(void *arg, struct rpc_req *req)
{
    (void)arg;
    atomic_fetch_add(&calls, 1);
    rpc_fail(req, -ERR_BUSY, "not for you");
}

/* The address of a chunkd, as metad tells it. */
static void chunkd_addr(struct rpc_conn *c, uint64_t session, uint32_t chunkd, char out[128])
{
    Replfs__NodesReq q = REPLFS__NODES_REQ__INIT;
    struct rpc_result r;

    q.session = session;
    RPC_ENVELOPE(env, NODES_REQ, nodes_req, &q);
    if (rpc_call_wait(c, &env, NULL, TIMEOUT_MS, &r) != 0)
        exit(2);
    for (size_t i = 0; i < r.rep->nodes_reply->n_nodes; i++)
        if (r.rep->nodes_reply->nodes[i]->chunkd == chunkd)
            snprintf(out, 128, "%s", r.rep->nodes_reply->nodes[i]->addr);
    rpc_result_free(&r);
}

/* Appends 4 KiB to a chunk granted just now, to go on to `next` at an address of our choice. Returns
 * the answer's code; next 0: the chunkd that metad has chosen. */
static int append_through(struct rpc_conn *c, uint64_t session, uint32_t next, char *where)
{
    Replfs__GrantReq q = REPLFS__GRANT_REQ__INIT;
    Replfs__AppendReq a = REPLFS__APPEND_REQ__INIT;
    Replfs__ChainHop hop = REPLFS__CHAIN_HOP__INIT, *chain = &hop;
    struct rpc_result grant, r;
    struct rpc_conn *first;
    struct buf *data = buf_new(4096);
    uint8_t crcs[4];
    char at[128] = "";

    q.session = session;
    q.count = 1;
    q.goal = 2;
    RPC_ENVELOPE(env, GRANT_REQ, grant_req, &q);
    if (rpc_call_wait(c, &env, NULL, TIMEOUT_MS, &grant) != 0 ||
        grant.rep->grant_reply->n_grants != 1)
        exit(2);
    const Replfs__ChunkLoc *l = grant.rep->grant_reply->grants[0];
    chunkd_addr(c, session, l->chunkds[0], at);
    if (l->n_chunkds < 2 || rpc_dial(loop, at, RPC_ROLE_CHUNKD, NULL, &first) != 0)
        exit(2);
    data->len = 4096;
    memset(data->data, 0, data->len);
    crc_blocks_make(data->data, data->len, crcs);
    hop.chunkd = next != 0 ? next : l->chunkds[1];
    hop.addr = where;
    a.chunk = l->chunk;
    a.len = (uint32_t)data->len;
    a.cap = l->cap;
    a.session = session;
    a.crcs = (ProtobufCBinaryData){sizeof crcs, crcs};
    a.chain = &chain;
    a.n_chain = 1;
    RPC_ENVELOPE(env2, APPEND_REQ, append_req, &a);
    int rc = rpc_call_wait(first, &env2, data, 5000, &r);
    rpc_result_free(&r);
    rpc_result_free(&grant);
    rpc_conn_unref(first);
    return rc;
}

static void chains_to_anywhere(struct rpc_conn *c, uint64_t session)
{
    struct rpc_config cfg = {.role = RPC_ROLE_CHUNKD, .name = "stranger", .threads = 1};
    struct rpc_service svc = {.request = stranger_request};
    struct rpc_loop *door;
    char where[32];
    int port;

    if (rpc_loop_new(&cfg, &door) != 0 || rpc_listen(door, "127.0.0.1:0", &svc, &port) != 0)
        exit(2);
    snprintf(where, sizeof where, "127.0.0.1:%d", port);
    int unknown = append_through(c, session, 9999, where);
    int64_t t0 = clock_mono();
    int known = append_through(c, session, 0, where);
    verdict(atomic_load(&calls) == 0 && unknown != 0 && known == 0, "chains to anywhere",
            "%u calls there; through an unknown chunkd: %s; through a known one: %s, %.3f s",
            atomic_load(&calls), err_str(unknown), known == 0 ? "where it is" : err_str(known),
            seconds_since(t0));
    rpc_loop_free(door);
}

/* Chunkds without end, of one peer. */
static void many_chunkds(struct rpc_conn *beside, uint64_t session)
{
    struct rpc_config cfg = {.role = RPC_ROLE_CHUNKD, .name = "hostile", .threads = 1};
    struct rpc_loop *mine;
    struct rpc_conn *c;
    struct rpc_result r;
    unsigned n = CHUNKDS * scale, taken = 0;
    char host[32], at[32];
    long before = rss_kib();
    int64_t t0 = clock_mono();

    if (rpc_loop_new(&cfg, &mine) != 0 || rpc_dial(mine, addr, RPC_ROLE_METAD, NULL, &c) != 0)
        exit(2);
    for (unsigned i = 0; i < n; i++) {
        Replfs__RegisterReq q = REPLFS__REGISTER_REQ__INIT;
        snprintf(host, sizeof host, "hostile%u", i);
        snprintf(at, sizeof at, "127.0.0.1:%u", 1 + i % 65535);
        q.cluster = (char *)"";
        q.host_id = q.host_name = host;
        q.addr = at;
        RPC_ENVELOPE(env, REGISTER_REQ, register_req, &q);
        taken += rpc_call_wait(c, &env, NULL, TIMEOUT_MS, &r) == 0;
        rpc_result_free(&r);
    }
    verdict(taken <= 256 && stat_root(beside, session) == 0, "chunkds of one peer",
            "%u of %u registered, %.1f s, %ld KiB more", taken, n, seconds_since(t0),
            rss_kib() - before);
    rpc_conn_unref(c);
    rpc_loop_free(mine);
}

int main(int argc, char **argv)
{
    struct rpc_config cfg = {.role = RPC_ROLE_CLIENT, .name = "hostile", .threads = 1};
    uint64_t session;

    if (argc < 3) {
        fprintf(stderr, "usage: hostile ADDR METAD_PID [SCALE]\n");
        return 2;
    }
    addr = argv[1];
    metad = atol(argv[2]);
    if (argc > 3)
        scale = (unsigned)atoi(argv[3]);
    log_init("hostile", LOG_LVL_ERROR, NULL);
    if (rpc_loop_new(&cfg, &loop) != 0)
        return 2;
    struct rpc_conn *c = dial();
    if (open_session(c, &session) != 0)
        return 2;
    goal_of_death(c, session);
    junk_that_waits(c, session);
    locks_of_one_file(c, session);
    chains_to_anywhere(c, session);
    many_sessions();
    many_chunkds(c, session);
    verdict(stat_root(c, session) == 0, "metad afterwards", "answers, %ld KiB", rss_kib());
    rpc_conn_unref(c);
    rpc_loop_free(loop);
    return bad;
}
