/* The connection to metad and the session on it.
 *
 * One connection at a time, to the metad that answered last. Whoever finds it dead becomes the
 * connector: it goes round all addresses (those given, then those learnt), says which session it
 * resumes, what is open and locked and of which inodes changes are kept back (claims of exclusive
 * leases), and wakes the others. Requests are repeated over reconnects until their deadline; how
 * changes are, says mutation.c.
 *
 * When metad has not heard of us for longer than the lease (suspended, cut off), the session has lapsed:
 * its leases and locks are gone, but it goes on, and what was answered and not told yet is told now
 * (Mutation.kept). When metad does not know it at all any more, a new one is opened. Bytes written under
 * the old one and not committed are lost, and the files concerned say so.
 *
 * A session tells, as it resumes, how far metad's state had come in the newest answer that it had. A
 * metad that never was there runs from an older copy of its directory: it refuses the session, and
 * nothing that we remember of files is true there. What is open goes on only as far as it exists
 * there; its maps are fetched anew.
 *
 * The session thread sends keepalives (with the oldest chunk we still hold, so that metad can
 * tell garbage), reconnects while nobody asks anything, tells closes in batches and refreshes
 * the chunkd table. */
#include "client/internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "base/thread.h"
#include "base/u64.h"

#define LOG_MODULE "session"
#define CONNECT_TIMEOUT_MS 4000
#define TICK_MS 100
#define SLEPT_NS (100 * NSEC_PER_MSEC)
#define SOON_NS (3 * NSEC_PER_SEC) /* then it is told that the first connection takes long */
#define CLAIMS_MAX 65536u          /* as many as metad takes */
#define SESSION_BYTES (RPC_MAX_ENVELOPE - 4096u) /* of what a session resumes with */
#define HELD_MAX 4096u                           /* chunks named in a keepalive */

int64_t client_deadline(const struct client *c)
{
    return clock_mono() + c->cfg.timeout_ms * NSEC_PER_MSEC;
}

void attr_copy(Replfs__Attr *dst, const Replfs__Attr *src)
{
    *dst = *src;
    dst->base.n_unknown_fields = 0;
    dst->base.unknown_fields = NULL;
}

uint64_t session_id(struct client *c)
{
    pthread_mutex_lock(&c->session.mu);
    uint64_t id = c->session.id;
    pthread_mutex_unlock(&c->session.mu);
    return id;
}

unsigned session_min_copies(struct client *c, unsigned goal)
{
    pthread_mutex_lock(&c->session.mu);
    unsigned m = c->session.min_copies ? c->session.min_copies : 2;
    pthread_mutex_unlock(&c->session.mu);
    return m < goal ? m : goal;
}

/* ---- addresses (session.mu held) ---- */

static size_t addr_add(struct client *c, const char *addr)
{
    for (size_t i = 0; i < c->session.naddrs; i++) {
        if (!strcmp(c->session.addrs[i], addr))
            return i;
    }
    size_t n = c->session.naddrs;
    char **a = realloc(c->session.addrs, (n + 1) * sizeof(*a));
    if (a)
        c->session.addrs = a;
    char **e = realloc(c->session.errors, (n + 1) * sizeof(*e));
    if (e)
        c->session.errors = e;
    char *copy = strdup(addr);
    if (!a || !e || !copy) {
        free(copy);
        return 0;
    }
    c->session.addrs[n] = copy;
    c->session.errors[n] = NULL;
    c->session.naddrs++;
    return n;
}

void session_conn_failed(struct client *c, struct rpc_conn *conn, const char *leader)
{
    pthread_mutex_lock(&c->session.mu);
    if (c->session.conn == conn) {
        c->session.conn = NULL;
        if (leader && *leader)
            c->session.cur = addr_add(c, leader);
        else if (c->session.naddrs)
            c->session.cur = (c->session.cur + 1) % c->session.naddrs;
        pthread_mutex_unlock(&c->session.mu);
        rpc_conn_close(conn);
        rpc_conn_unref(conn);
        return;
    }
    pthread_mutex_unlock(&c->session.mu);
}

/* ---- opening and resuming ---- */

void session_saw(struct client *c, uint64_t session, uint64_t position)
{
    pthread_mutex_lock(&c->session.mu);
    if (session == c->session.id && position > c->session.seen_position)
        c->session.seen_position = position;
    pthread_mutex_unlock(&c->session.mu);
}

static void forked(struct client *c)
{
    log_error(
        "this metad does not have what we have seen before: it runs from an older or another copy "
        "of its data directory. Files written since are missing there, programs that have them "
        "open get errors; replfsctl health says more");
    cfile_forget_maps(c);
}

static void session_lost(struct client *c, uint64_t old)
{
    log_error("session %016llx is gone: metad heard nothing from us for longer than its lease. "
              "Bytes written under it and not yet committed are lost; files concerned report EIO",
              (unsigned long long)old);
    grants_drop_all(c);
    client_locks_lost(c);
}

static void session_lapsed(struct client *c)
{
    log_warn(
        "metad heard nothing from us for longer than the session's lease: locks are gone, and "
        "others may have changed what we had leases on. What was written or changed here before "
        "is told to metad now; where others changed the same, that is lost, and named here");
    atomic_fetch_add(&c->life, 1);
    client_locks_lost(c);
}

static void session_opened(struct client *c, const Replfs__SessionReply *r, size_t i)
{
    pthread_mutex_lock(&c->session.mu);
    bool fresh = c->session.id != r->session, lapsed = !fresh && c->session.lapses != r->lapses;
    c->session.lapses = r->lapses;
    c->session.id = r->session;
    if (fresh) {
        c->session.next_seq = 1;
        c->session.npending = 0;
    }
    c->session.lease_ms = r->lease_ms ? r->lease_ms : 60000;
    c->session.term_ms = r->term_ms; /* 0: a metad that gives no leases */
    lease_cache_set_term(c->leases, r->term_ms);
    c->session.min_copies = r->default_min_copies;
    c->session.seen_incarnation = r->incarnation;
    c->session.seen_position = r->position;
    if (r->cluster && *r->cluster)
        snprintf(c->session.cluster, sizeof(c->session.cluster), "%s", r->cluster);
    for (size_t k = 0; k < r->n_metads && c->session.naddrs < 64; k++)
        addr_add(c, r->metads[k]);
    log_info("%s session %016llx with metad %s", fresh ? "opened" : "resumed",
             (unsigned long long)r->session, c->session.addrs[i]);
    pthread_mutex_unlock(&c->session.mu);
    if (lapsed)
        session_lapsed(c);
}

/* How many inodes can still be named in m. */
static size_t room(const Replfs__SessionReq *m)
{
    size_t used = protobuf_c_message_get_packed_size(&m->base);
    return used < SESSION_BYTES ? (SESSION_BYTES - used) / sizeof(uint64_t) : 0;
}

/* Names what is open, as many as fit: a metad that is told of some is better than none at all. */
static void name_open(Replfs__SessionReq *m, uint64_t *open, size_t n)
{
    size_t fit = room(m);
    m->open_inos = open;
    m->n_open_inos = n < fit ? n : fit;
    if (n > fit)
        log_warn(
            "%zu of %zu open files are more than metad can be told as the session resumes: those "
            "of them that were removed, or are before they are closed, can no longer be read",
            n - fit, n);
}

/* Inodes of which metad does not know everything yet, at most max. */
static uint64_t *kept_back(struct client *c, size_t max, size_t *n)
{
    struct cfile **list;
    size_t nfiles = cfile_dirty_all(c, &list);
    uint64_t *inos = malloc((nfiles + 1) * sizeof(*inos));
    if (!inos)
        abort();
    *n = 0;
    for (size_t i = 0; i < nfiles; i++) {
        inos[(*n)++] = list[i]->ino;
        cfile_unref(list[i]);
    }
    free(list);
    queue_inos(c, &inos, n);
    if (*n > max)
        *n = max; /* the rest goes to metad without a lease */
    return inos;
}

/* metad lists those that it agreed to in ascending order. */
static void refused_claims(struct client *c, const Replfs__SessionReq *m,
                           const Replfs__SessionReply *r)
{
    for (size_t k = 0; k < m->n_exclusive; k++)
        if (!r->n_exclusive || !bsearch(&m->exclusive[k], r->exclusive, r->n_exclusive,
                                        sizeof(*r->exclusive), u64_cmp))
            lease_cache_regain(c->leases, m->exclusive[k], false);
}

static int hello_session(struct client *c, struct rpc_conn *conn, size_t i, int64_t deadline,
                         char *leader, size_t leader_cap)
{
    uint64_t old = session_id(c);
    size_t nopen = 0;
    uint64_t *open = cfile_open_inos(c, &nopen);
    int rc = 0;
    for (int round = 0; round < 2; round++) {
        Replfs__SessionReq m = REPLFS__SESSION_REQ__INIT;
        m.session = round ? 0 : old;
        m.comes_back = true;
        m.name = c->name;
        m.host_id = c->host_id;
        m.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
        pthread_mutex_lock(&c->session.mu);
        m.seen_incarnation = c->session.seen_incarnation;
        m.seen_position = c->session.seen_position;
        m.lapses = round ? 0 : c->session.lapses;
        pthread_mutex_unlock(&c->session.mu);
        struct locks_claims *claims = client_locks_claims(c, &m);
        name_open(&m, open, nopen);
        RPC_ENVELOPE(env, SESSION_REQ, session_req, &m);
        int64_t left = (deadline - clock_mono()) / NSEC_PER_MSEC;
        unsigned ms = left > CONNECT_TIMEOUT_MS ? CONNECT_TIMEOUT_MS
                      : left > 1                ? (unsigned)left
                                                : 1;
        struct rpc_result res;
        lease_cache_drop_all(c->leases); /* metad forgets our leases as we come back */
        size_t fit = room(&m);
        m.exclusive = kept_back(c, fit < CLAIMS_MAX ? fit : CLAIMS_MAX, &m.n_exclusive);
        for (size_t k = 0; k < m.n_exclusive; k++) /* a recall may come before the reply is seen */
            lease_cache_regain(c->leases, m.exclusive[k], true);
        int64_t sent = clock_boot();
        rc = rpc_call_wait(conn, &env, NULL, ms, &res);
        client_locks_claims_free(claims);
        if (!rc && res.rep->body_case == REPLFS__ENVELOPE__BODY_SESSION_REPLY) {
            client_told_time(c, res.rep->session_reply->wall_ms);
            session_opened(c, res.rep->session_reply, i);
            if (res.rep->session_reply->forked)
                forked(c);
            refused_claims(c, &m, res.rep->session_reply); /* before the term runs */
            lease_cache_renew(c->leases, sent);
        } else if (!rc)
            rc = -ERR_PROTOCOL;
        else if (rc == -ERR_NOT_LEADER && res.rep && res.rep->failure && res.rep->failure->leader)
            snprintf(leader, leader_cap, "%s", res.rep->failure->leader);
        rpc_result_free(&res);
        free(m.exclusive);
        if (rc != -ERR_SESSION || !old)
            break;
        session_lost(c, old);
    }
    free(open);
    return rc;
}

/* One round over all addresses. 0 when connected. Only the connector runs this. */
static int connect_round(struct client *c, int64_t deadline)
{
    int rc = -ERR_PEER_GONE;
    pthread_mutex_lock(&c->session.mu);
    size_t n = c->session.naddrs;
    pthread_mutex_unlock(&c->session.mu);
    for (size_t k = 0; k < n && clock_mono() < deadline && !c->stopping; k++) {
        char addr[256], why[256] = "", leader[256] = "";
        pthread_mutex_lock(&c->session.mu);
        size_t i = c->session.cur;
        snprintf(addr, sizeof(addr), "%s", c->session.addrs[i]);
        pthread_mutex_unlock(&c->session.mu);
        struct rpc_conn *conn = NULL;
        rc = rpc_dial(c->loop, addr, RPC_ROLE_METAD, &c->session.svc, &conn);
        if (!rc)
            rc = hello_session(c, conn, i, deadline, leader, sizeof(leader));
        if (rc && conn)
            snprintf(why, sizeof(why), "%s", rpc_conn_error(conn));
        pthread_mutex_lock(&c->session.mu);
        free(c->session.errors[i]);
        c->session.errors[i] = NULL;
        if (!rc) {
            c->session.conn = conn;
            pthread_mutex_unlock(&c->session.mu);
            return 0;
        }
        c->session.errors[i] = strdup(*why ? why : err_str(rc));
        c->session.cur = *leader ? addr_add(c, leader) : (i + 1) % c->session.naddrs;
        pthread_mutex_unlock(&c->session.mu);
        if (conn) {
            rpc_conn_close(conn);
            rpc_conn_unref(conn);
        }
        log_debug("metad %s: %s", addr, *why ? why : err_str(rc));
    }
    return rc;
}

static void log_addresses(struct client *c, const char *more)
{
    for (size_t i = 0; i < c->session.naddrs; i++)
        log_error("metad %s does not answer: %s%s", c->session.addrs[i],
                  c->session.errors[i] ? c->session.errors[i] : "not tried", more);
}

struct rpc_conn *session_conn(struct client *c, int64_t deadline)
{
    unsigned backoff = 50;
    struct rpc_conn *conn = NULL;
    pthread_mutex_lock(&c->session.mu);
    for (;;) {
        if (c->session.conn && rpc_conn_alive(c->session.conn)) {
            conn = rpc_conn_ref(c->session.conn);
            break;
        }
        if (clock_mono() >= deadline || c->stopping)
            break;
        if (c->session.connecting) {
            cond_wait_until(&c->session.cv, &c->session.mu, deadline);
            continue;
        }
        struct rpc_conn *dead = c->session.conn;
        c->session.conn = NULL;
        c->session.connecting = true;
        pthread_mutex_unlock(&c->session.mu);
        rpc_conn_unref(dead);
        int rc = connect_round(c, deadline);
        pthread_mutex_lock(&c->session.mu);
        c->session.connecting = false;
        pthread_cond_broadcast(&c->session.cv);
        if (rc) {
            int64_t until = clock_mono() + backoff * NSEC_PER_MSEC;
            cond_wait_until(&c->session.cv, &c->session.mu, until < deadline ? until : deadline);
            backoff = backoff < 500 ? backoff * 2 : 1000;
        }
    }
    pthread_mutex_unlock(&c->session.mu);
    return conn;
}

/* ---- requests ---- */

static void set_session(Replfs__Envelope *e, uint64_t s)
{
    switch ((int)e->body_case) {
    case REPLFS__ENVELOPE__BODY_MUTATE_REQ:
        e->mutate_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_LOOKUP_REQ:
        e->lookup_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_GETATTR_REQ:
        e->getattr_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_READDIR_REQ:
        e->readdir_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_READLINK_REQ:
        e->readlink_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_LAYOUT_REQ:
        e->layout_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_LAYOUTS_REQ:
        e->layouts_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_OPEN_REQ:
        e->open_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_CLOSE_REQ:
        e->close_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_GRANT_REQ:
        e->grant_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_STATFS_REQ:
        e->statfs_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_KEEPALIVE_REQ:
        e->keepalive_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_NODES_REQ:
        e->nodes_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_REPORT_BAD_REQ:
        e->report_bad_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_LOCK_REQ:
        e->lock_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_LEASE_REQ:
        e->lease_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_INOS_REQ:
        e->inos_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_LOCK_TEST_REQ:
        e->lock_test_req->session = s;
        break;
    case REPLFS__ENVELOPE__BODY_UNLOCK_ALL_REQ:
        e->unlock_all_req->session = s;
        break;
    default:
        break;
    }
}

bool session_elsewhere(int code)
{
    return code == -ERR_NOT_LEADER || code == -ERR_PEER_GONE || code == -ERR_TIMEOUT ||
           code == -ERR_SHUTDOWN || code == -ECONNREFUSED || code == -EHOSTUNREACH ||
           code == -ENETUNREACH || code == -ETIMEDOUT || code == -ECONNRESET || code == -EPIPE;
}

unsigned session_try_ms(struct client *c, int64_t deadline)
{
    int64_t left = (deadline - clock_mono()) / NSEC_PER_MSEC;
    pthread_mutex_lock(&c->session.mu);
    /* longer than a silent holder of a lease can make metad wait */
    int64_t most = c->session.term_ms + 5000 > 15000 ? c->session.term_ms + 5000 : 15000;
    pthread_mutex_unlock(&c->session.mu);
    left = left < most ? left : most;
    return left > 1 ? (unsigned)left : 1;
}

bool session_attempt_failed(struct client *c, struct rpc_conn *conn, const struct rpc_result *res,
                            int64_t deadline, unsigned *busy_ms)
{
    if (clock_mono() >= deadline || c->stopping)
        return false;
    if (res->code == -ERR_BUSY) {
        int64_t until = clock_mono() + *busy_ms * NSEC_PER_MSEC;
        *busy_ms = *busy_ms < 200 ? *busy_ms * 2 : 200;
        pthread_mutex_lock(&c->session.mu);
        while (clock_mono() < until && !c->stopping)
            cond_wait_until(&c->session.cv, &c->session.mu, until);
        pthread_mutex_unlock(&c->session.mu);
        return true;
    }
    if (res->code == -ERR_SESSION) { /* the next session_conn() finds out and opens a new one */
        session_conn_failed(c, conn, NULL);
        return true;
    }
    if (!session_elsewhere(res->code))
        return false;
    const char *leader = NULL;
    if (res->code == -ERR_NOT_LEADER && res->rep &&
        res->rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE)
        leader = res->rep->failure->leader;
    session_conn_failed(c, conn, leader);
    return true;
}

int session_ask(struct client *c, Replfs__Envelope *req, int64_t deadline, struct rpc_result *out)
{
    *out = (struct rpc_result){.code = queue_before_ask(c, req)};
    return out->code ? out->code : session_ask_now(c, req, deadline, out);
}

int session_ask_now(struct client *c, Replfs__Envelope *req, int64_t deadline,
                    struct rpc_result *out)
{
    unsigned busy_ms = 10;
    for (;;) {
        *out = (struct rpc_result){.code = -ERR_TIMEOUT};
        struct rpc_conn *conn = session_conn(c, deadline);
        if (!conn)
            return out->code;
        set_session(req, session_id(c));
        int64_t sent = clock_boot();
        if (!rpc_call_wait(conn, req, NULL, session_try_ms(c, deadline), out))
            lease_cache_renew(c->leases, sent);
        bool again = out->code && session_attempt_failed(c, conn, out, deadline, &busy_ms);
        rpc_conn_unref(conn);
        if (!again)
            return out->code;
        rpc_result_free(out);
    }
}

/* ---- requests nobody waits for ---- */

static void told(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    (void)arg;
    (void)rep;
    (void)payload;
    if (code)
        log_debug("metad: %s", err_str(code));
}

struct rpc_conn *session_conn_now(struct client *c, uint64_t *session)
{
    pthread_mutex_lock(&c->session.mu);
    bool alive = c->session.conn && rpc_conn_alive(c->session.conn);
    struct rpc_conn *conn = rpc_conn_ref(alive ? c->session.conn : NULL);
    *session = c->session.id;
    pthread_mutex_unlock(&c->session.mu);
    return conn;
}

void session_tell_then(struct client *c, Replfs__Envelope *req, session_told *done, void *arg)
{
    uint64_t id;
    struct rpc_conn *conn = session_conn_now(c, &id);
    if (!conn) {
        done(arg, -ERR_PEER_GONE, NULL, NULL);
        return;
    }
    set_session(req, id);
    rpc_call(conn, req, NULL, 10000, done, arg);
    rpc_conn_unref(conn);
}

void session_tell(struct client *c, Replfs__Envelope *req)
{
    session_tell_then(c, req, told, NULL);
}

/* ---- the session thread ---- */

static void keepalive(struct client *c)
{
    struct rpc_conn *conn = session_conn(c, clock_mono() + 2 * NSEC_PER_SEC);
    if (!conn)
        return;
    Replfs__KeepaliveReq m = REPLFS__KEEPALIVE_REQ__INIT;
    uint64_t held[HELD_MAX];
    m.session = session_id(c);
    m.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    m.oldest_grant = grants_oldest(c);
    m.held = held;
    m.n_held = grants_held(c, held, HELD_MAX, &m.newest_grant);
    RPC_ENVELOPE(env, KEEPALIVE_REQ, keepalive_req, &m);
    struct rpc_result res;
    int64_t sent = clock_boot();
    int rc = rpc_call_wait(conn, &env, NULL, 5000, &res);
    if (!rc && res.rep->body_case == REPLFS__ENVELOPE__BODY_KEEPALIVE_REPLY) {
        lease_cache_renew(c->leases, sent);
        client_told_time(c, res.rep->keepalive_reply->wall_ms);
        nodes_saw_epoch(c, res.rep->keepalive_reply->nodes_epoch);
        session_saw(c, m.session, res.rep->keepalive_reply->position);
    } else if (rc) {
        log_warn("keepalive to metad: %s", err_str(rc));
        unsigned busy = 10;
        session_attempt_failed(c, conn, &res, clock_mono() + NSEC_PER_SEC, &busy);
    }
    rpc_result_free(&res);
    rpc_conn_unref(conn);
}

/* The computer was suspended: terms went on, while the kernel's clock stood still, so that it would keep what
 * it was given for longer than it may. asleep: until now, in all. */
static void see_sleep(struct client *c, int64_t *asleep)
{
    int64_t now = clock_boot() - clock_mono(), more = now - *asleep;
    *asleep = now;
    if (more < SLEPT_NS)
        return;
    log_info("the computer was suspended for %lld s: what is cached is asked for anew",
             (long long)(more / NSEC_PER_SEC));
    lease_cache_tell_all(c->leases);
    uint64_t id;
    struct rpc_conn *conn = session_conn_now(c, &id);
    if (conn) /* as we come back, each lease is claimed again or forgotten */
        session_conn_failed(c, conn, NULL);
    rpc_conn_unref(conn);
}

static void *session_thread(void *arg)
{
    struct client *c = arg;
    int64_t next_keepalive = 0, asleep = clock_boot() - clock_mono();
    while (!c->stopping) {
        int64_t now = clock_mono();
        see_sleep(c, &asleep);
        pthread_mutex_lock(&c->session.mu);
        bool alive = c->session.conn && rpc_conn_alive(c->session.conn);
        int64_t every = (int64_t)c->session.lease_ms / 6 * NSEC_PER_MSEC;
        int64_t renew = (int64_t)c->session.term_ms / 4 * NSEC_PER_MSEC;
        if (renew && every > renew)
            every = renew;
        pthread_mutex_unlock(&c->session.mu);
        if (every > 5 * NSEC_PER_SEC)
            every = 5 * NSEC_PER_SEC;
        if (now >= next_keepalive || !alive) {
            keepalive(c);
            next_keepalive = clock_mono() + every;
        }
        bool sent = session_send_closes(c, clock_mono() + 2 * NSEC_PER_SEC);
        nodes_tick(c);
        pthread_mutex_lock(&c->session.mu);
        bool more = c->session.ncloses >= CLOSE_BATCH || c->session.closes_now;
        if (!c->stopping && !(more && sent)) /* those not sent wait for their names */
            cond_wait_until(&c->session.cv, &c->session.mu, clock_mono() + TICK_MS * NSEC_PER_MSEC);
        pthread_mutex_unlock(&c->session.mu);
    }
    return NULL;
}

/* Whoever mounts by hand is told soon why it takes long, and may end it. */
static struct rpc_conn *first_conn(struct client *c)
{
    int64_t ms = c->cfg.connect_ms ? c->cfg.connect_ms : c->cfg.timeout_ms;
    int64_t now = clock_mono(), until = now + ms * NSEC_PER_MSEC, soon = now + SOON_NS;
    struct rpc_conn *conn = session_conn(c, soon < until ? soon : until);
    if (!conn && soon < until) {
        log_addresses(c, "; trying on");
        conn = session_conn(c, until);
    }
    if (!conn)
        log_addresses(c, "");
    return conn;
}

int session_start(struct client *c)
{
    c->session.svc = (struct rpc_service){.request = recall_request, .arg = c};
    for (size_t i = 0; i < c->cfg.nmetads; i++)
        addr_add(c, c->cfg.metads[i]);
    struct rpc_conn *conn = first_conn(c);
    if (!conn)
        return -ETIMEDOUT;
    rpc_conn_unref(conn);
    int rc = thread_start(&c->session.thread, "session", session_thread, c);
    c->session.started = !rc;
    return -rc;
}

/* Tells metad that this session ends, so that what it held is freed now and not a lease later. Only
 * a courtesy: nothing is lost when it does not arrive. */
static void session_goodbye(struct client *c)
{
    pthread_mutex_lock(&c->session.mu);
    struct rpc_conn *conn = rpc_conn_ref(c->session.conn);
    Replfs__Mutation step = REPLFS__MUTATION__INIT, *steps = &step;
    Replfs__MutateReq m = REPLFS__MUTATE_REQ__INIT;
    m.session = c->session.id;
    step.seq = c->session.next_seq++;
    pthread_mutex_unlock(&c->session.mu);
    if (!conn || !rpc_conn_alive(conn)) {
        rpc_conn_unref(conn);
        return;
    }
    Replfs__SessionCloseOp close_op = REPLFS__SESSION_CLOSE_OP__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    close_op.session = &m.session;
    close_op.n_session = 1;
    op.op_case = REPLFS__META_OP__OP_SESSION_CLOSE;
    op.session_close = &close_op;
    step.op = &op;
    m.ops = &steps;
    m.n_ops = 1;
    RPC_ENVELOPE(env, MUTATE_REQ, mutate_req, &m);
    struct rpc_result res;
    if (rpc_call_wait(conn, &env, NULL, 2000, &res))
        log_info("metad did not answer the end of the session; it ends by itself after its lease");
    rpc_result_free(&res);
    rpc_conn_unref(conn);
}

void session_stop(struct client *c)
{
    if (c->session.started) {
        session_send_closes(c, clock_mono() + 2 * NSEC_PER_SEC);
        pthread_mutex_lock(&c->session.mu);
        c->stopping = true;
        pthread_cond_broadcast(&c->session.cv);
        pthread_mutex_unlock(&c->session.mu);
        pthread_join(c->session.thread, NULL);
        session_goodbye(c);
    }
    c->stopping = true;
    pthread_mutex_lock(&c->session.mu);
    struct rpc_conn *conn = c->session.conn;
    c->session.conn = NULL; /* the last answers may still look for it */
    pthread_mutex_unlock(&c->session.mu);
    rpc_conn_unref(conn);
    for (size_t i = 0; i < c->session.naddrs; i++) {
        free(c->session.addrs[i]);
        free(c->session.errors[i]);
    }
    free(c->session.addrs);
    free(c->session.errors);
    free(c->session.pending);
    free(c->session.closes);
}
