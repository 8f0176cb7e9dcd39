/* The life of a connection.
 *
 *   RESOLVING -> CONNECTING -> [TLS] -> HELLO -> READY -> DYING -> DEAD      dialled
 *                              [TLS] -> HELLO -> READY -> DYING -> DEAD      accepted
 *                                       HELLO -> LINGER -> DYING             accepted, refused
 *
 * Any thread may find out that a connection is finished: conn_die notes the first cause, enters
 * DYING and posts the connection to its worker, which alone tears down: closes the socket, ends
 * every call, tells the service. So a call that entered the table before DYING is ended by
 * teardown, one that comes later is ended by rpc_call itself; in both cases exactly once. After
 * DEAD nothing touches worker or loop.
 *
 * References: `refs` keeps the memory, one for each holder and one for the worker until teardown.
 * `users` counts holders outside rpc (for accepted connections also one of the worker): the last to
 * go closes.
 *
 * One timer serves all deadlines of a connection: it is set to the earliest when that becomes
 * earlier, and looked at again when it fires; a call that ends in time does not touch it. */
#include "rpc/rpc_internal.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/lock.h"

#define LOG_MODULE "rpc"
#define PINGS_MAX 512u /* while we do not read: minutes, not hours */

static void conn_event(struct source *s, uint32_t events);
static void conn_on_timer(void *arg);

/* ---- references ---- */

struct rpc_conn *conn_new(struct rpc_loop *l, const struct rpc_service *svc, bool accepted)
{
    struct rpc_conn *c = calloc(1, sizeof(*c));

    if (!c)
        abort();
    c->rbuf = malloc(RBUF_SIZE);
    if (!c->rbuf)
        abort();
    c->source.event = conn_event;
    c->loop = l;
    c->worker = loop_pick(l);
    c->refs = 1;
    c->users = 1;
    c->accepted = accepted;
    c->expect = RPC_ROLE_ANY;
    if (svc) {
        c->svc = *svc;
        c->has_svc = true;
    }
    lock_init(&c->mu, LOCK_RPC_CONN);
    c->state = CONN_RESOLVING;
    c->fd = -1;
    c->ready_by = clock_mono() + READY_MS * NSEC_PER_MSEC;
    out_init(&c->out);
    out_init(&c->backlog);
    c->timer.fn = conn_on_timer;
    c->timer.arg = c;
    c->timer_at = INT64_MAX;
    return c;
}

void conn_ref_internal(struct rpc_conn *c)
{
    atomic_fetch_add(&c->refs, 1);
}

void conn_unref_internal(struct rpc_conn *c)
{
    unsigned old = atomic_fetch_sub(&c->refs, 1);

    assert(old > 0);
    if (old > 1)
        return;
    assert(c->state == CONN_DEAD);
    calls_free(&c->calls);
    lock_destroy(&c->mu);
    free(c->rbuf);
    free(c);
}

void conn_discard(struct rpc_conn *c)
{
    c->state = CONN_DEAD;
    conn_unref_internal(c);
}

struct rpc_conn *rpc_conn_ref(struct rpc_conn *c)
{
    if (!c)
        return NULL;
    atomic_fetch_add(&c->refs, 1);
    atomic_fetch_add(&c->users, 1);
    return c;
}

void rpc_conn_unref(struct rpc_conn *c)
{
    if (!c)
        return;
    unsigned old = atomic_fetch_sub(&c->users, 1);
    assert(old > 0);
    if (old == 1)
        conn_die(c, -ERR_PEER_GONE, "%s: closed by us", c->target);
    conn_unref_internal(c);
}

void rpc_conn_close(struct rpc_conn *c)
{
    conn_die(c, -ERR_PEER_GONE, "%s: closed by us", c->target);
}

bool rpc_conn_alive(const struct rpc_conn *c)
{
    return c->state < CONN_LINGER;
}

const struct rpc_peer *rpc_conn_peer(const struct rpc_conn *c)
{
    return &c->peer;
}

void rpc_conn_set_data(struct rpc_conn *c, void *data)
{
    atomic_store(&c->data, data);
}

void *rpc_conn_data(const struct rpc_conn *c)
{
    return atomic_load(&c->data);
}

const char *rpc_conn_error(const struct rpc_conn *c)
{
    return rpc_conn_alive(c) ? "" : c->error;
}

void conn_register(struct rpc_conn *c)
{
    struct worker *w = c->worker;

    conn_ref_internal(c);
    lock_acquire(&w->mu);
    c->next = w->conns;
    c->prev = &w->conns;
    if (c->next)
        c->next->prev = &c->next;
    w->conns = c;
    lock_release(&w->mu);
    lock_acquire(&c->mu);
    conn_arm_locked(c, c->ready_by);
    lock_release(&c->mu);
}

/* ---- the socket ---- */

void conn_set_sockopts(int fd)
{
    static const struct {
        int level, name, value;
    } opts[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},  {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 4}, {IPPROTO_TCP, TCP_KEEPINTVL, 2},
        {IPPROTO_TCP, TCP_KEEPCNT, 3},  {IPPROTO_TCP, TCP_USER_TIMEOUT, 10000},
    };
    /* Best effort: without them a dead peer is only noticed by the time-outs of calls. */
    for (size_t i = 0; i < sizeof(opts) / sizeof(opts[0]); i++)
        (void)setsockopt(fd, opts[i].level, opts[i].name, &opts[i].value, sizeof(opts[i].value));
}

int conn_adopt_fd(struct rpc_conn *c, int fd, enum conn_state state)
{
    int rc = 0;

    lock_acquire(&c->mu);
    if (c->state >= CONN_DYING) {
        lock_release(&c->mu);
        close(fd);
        return 0;
    }
    c->fd = fd;
    c->state = state;
    c->events = state == CONN_CONNECTING ? EPOLLOUT : EPOLLIN;
    if (state == CONN_TLS)
        rc = tls_attach(c);
    if (rc == 0)
        rc = worker_watch(c->worker, fd, c->events, &c->source);
    lock_release(&c->mu);
    return rc;
}

/* Keeps the peer from making us hold unlimited bytes, on accepted connections only: if both sides
 * stopped reading, neither would go on. */
static void pause_or_resume(struct rpc_conn *c)
{
    size_t held = c->in_bytes + c->out_bytes;

    if (!c->paused && c->accepted && held > HELD_HIGH) {
        c->paused = true;
        conn_watch_locked(c);
    } else if (c->paused && held < HELD_LOW) {
        c->paused = false;
        c->posted_read = true; /* frames may be in rbuf or inside TLS */
        worker_post(c);
    }
}

void conn_update_events_locked(struct rpc_conn *c)
{
    lock_assert_held(&c->mu);
    if (c->fd < 0 || c->state >= CONN_DYING)
        return;
    pause_or_resume(c);
    uint32_t want = c->paused ? 0 : EPOLLIN;
    if (c->out.first || c->ssl_wants_write)
        want |= EPOLLOUT;
    if (c->state == CONN_CONNECTING)
        want = EPOLLOUT;
    if (want == c->events)
        return;
    struct epoll_event ev = {.events = want, .data.ptr = &c->source};
    if (epoll_ctl(c->worker->epfd, EPOLL_CTL_MOD, c->fd, &ev) == 0)
        c->events = want;
    else
        conn_die_locked(c, -errno, "%s: epoll: %s", c->target, strerror(errno));
}

/* ---- death ---- */

static void set_error(struct rpc_conn *c, int code, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

static void set_error(struct rpc_conn *c, int code, const char *fmt, va_list ap)
{
    if (c->code)
        return; /* the first cause wins */
    vsnprintf(c->error, sizeof(c->error), fmt, ap);
    c->code = code;
}

void conn_die_locked(struct rpc_conn *c, int code, const char *fmt, ...)
{
    lock_assert_held(&c->mu);
    va_list ap;

    if (c->state >= CONN_DYING)
        return;
    va_start(ap, fmt);
    set_error(c, code, fmt, ap);
    va_end(ap);
    c->state = CONN_DYING;
    worker_post(c);
}

void conn_die(struct rpc_conn *c, int code, const char *fmt, ...)
{
    char text[ERROR_TEXT];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    lock_acquire(&c->mu);
    conn_die_locked(c, code, "%s", text);
    lock_release(&c->mu);
}

static void conn_unlist(struct rpc_conn *c)
{
    struct worker *w = c->worker;

    lock_acquire(&w->mu);
    *c->prev = c->next;
    if (c->next)
        c->next->prev = c->prev;
    if (c->posted) {
        struct rpc_conn **p = &w->posted;
        while (*p != c)
            p = &(*p)->posted_next;
        *p = c->posted_next;
        c->posted = false;
    }
    timers_clear(&w->timers, &c->timer.t);
    lock_release(&w->mu);
}

/* Refusals and broken peers are worth a line on the accepting side, where nobody else sees them;
 * what a dialled connection died of is reported by the one that dialled. */
static void log_end(const struct rpc_conn *c)
{
    bool odd = c->code != -ERR_PEER_GONE && c->code != -ERR_SHUTDOWN;

    if (c->accepted && odd)
        log_warn("connection dropped: %s", c->error);
    else
        log_debug("connection ended: %s", c->error);
}

void conn_teardown(struct rpc_conn *c)
{
    assert(worker_is_self(c->worker));
    lock_acquire(&c->mu);
    if (c->state == CONN_DEAD) {
        lock_release(&c->mu);
        return;
    }
    c->state = CONN_DEAD;
    SSL_free(c->ssl);
    c->ssl = NULL;
    if (c->fd >= 0) {
        worker_unwatch(c->worker, c->fd);
        close(c->fd);
    }
    c->fd = -1;
    struct call *ended = calls_take_due_locked(c, INT64_MAX);
    out_clear(&c->out);
    out_clear(&c->backlog);
    lock_release(&c->mu);
    conn_unlist(c);
    admit_gone(&c->loop->admission, c);
    log_end(c);
    message_free(&c->msg);
    buf_unref(c->payload);
    c->payload = NULL;
    free(c->env);
    c->env = NULL;
    call_end_list(ended, c->code);
    if (c->opened && c->svc.closed)
        c->svc.closed(c->svc.arg, c);
    if (c->accepted)
        rpc_conn_unref(c);
    conn_unref_internal(c);
}

/* ---- deadlines ---- */

void conn_arm_locked(struct rpc_conn *c, int64_t when)
{
    lock_assert_held(&c->mu);
    if (when >= c->timer_at || c->state >= CONN_DYING)
        return;
    c->timer_at = when;
    worker_timer_set(c->worker, &c->timer, when);
}

/* ---- signs of life ---- */

/* 0: never look. */
static int64_t silent_ns(const struct rpc_conn *c)
{
    unsigned ms = c->loop->cfg.silent_ms;

    return ms == UINT_MAX ? 0 : (ms ? ms : RPC_SILENT_MS) * NSEC_PER_MSEC;
}

bool conn_room_locked(const struct rpc_conn *c)
{
    lock_assert_held(&c->mu);
    return c->outstanding + c->pings + 1 < RPC_MAX_INFLIGHT;
}

void conn_watch_locked(struct rpc_conn *c)
{
    int64_t silent = silent_ns(c);

    if (silent)
        conn_arm_locked(c, alive_first(clock_mono(), silent));
}

/* Bytes that the other side has not taken. */
static uint64_t queued_locked(const struct rpc_conn *c)
{
    int n = 0;

    if (ioctl(c->fd, SIOCOUTQ, &n) < 0)
        n = 0;
    return c->out_bytes + (uint64_t)n;
}

static bool something_to_read(const struct rpc_conn *c)
{
    int n = 0;

    return ioctl(c->fd, FIONREAD, &n) == 0 && n > 0;
}

static void send_ping_locked(struct rpc_conn *c, int64_t now)
{
    Replfs__Ping p = REPLFS__PING__INIT;

    RPC_ENVELOPE(env, PING, ping, &p);
    if (c->pings < (c->paused ? PINGS_MAX : 1)) {
        c->pings++;
        conn_send_locked(c, &env, NULL, 0);
    }
    if (!c->paused)
        alive_asked(&c->alive, now, c->put, queued_locked(c));
}

static void look_alive_locked(struct rpc_conn *c, int64_t due, int64_t now)
{
    int64_t silent = silent_ns(c), next;

    if (!silent || c->state != CONN_READY)
        return;
    bool asked = c->alive.since != 0;
    struct alive_now n = {.now = now,
                          .due = due,
                          .silent = silent,
                          .put = c->put,
                          .queued = asked ? queued_locked(c) : 0,
                          .waits = c->outstanding > 0,
                          .paused = c->paused,
                          .readable = asked && something_to_read(c)};
    switch (alive_look(&c->alive, &n, &next)) {
    case ALIVE_REST:
        return;
    case ALIVE_DEAD:
        conn_die_locked(c, -ERR_PEER_GONE, "%s: no sign of life for %lld ms", c->target,
                        (long long)((now - c->alive.heard) / NSEC_PER_MSEC));
        return;
    case ALIVE_ASK:
        send_ping_locked(c, now);
        break;
    case ALIVE_NOTHING:
        break;
    }
    conn_arm_locked(c, next);
}

bool conn_ping_received(struct rpc_conn *c, const struct message *msg)
{
    const Replfs__Envelope *env = msg->env;

    if (env->is_reply && env->id == 0) {
        lock_acquire(&c->mu);
        if (c->pings == 0)
            conn_die_locked(c, -ERR_PROTOCOL, "%s: sent a reply to no request", c->target);
        c->pings -= c->pings > 0;
        lock_release(&c->mu);
        return true;
    }
    if (env->is_reply || env->body_case != REPLFS__ENVELOPE__BODY_PING)
        return false;
    Replfs__Ping p = REPLFS__PING__INIT;
    RPC_ENVELOPE(rep, PING, ping, &p);
    rep.id = env->id;
    rep.is_reply = true;
    lock_acquire(&c->mu);
    conn_send_locked(c, &rep, NULL, 0);
    conn_update_events_locked(c);
    lock_release(&c->mu);
    return true;
}

/* ---- the timer ---- */

static void conn_on_timer(void *arg)
{
    struct rpc_conn *c = arg;
    int64_t now = clock_mono();
    bool next_address = false;

    lock_acquire(&c->mu);
    int64_t due = c->timer_at;
    c->timer_at = INT64_MAX;
    if (c->state == CONN_CONNECTING && c->iaddr < c->naddrs && now < c->ready_by) {
        next_address = now >= c->addr_by;
        if (!next_address)
            conn_arm_locked(c, c->addr_by);
    }
    if (c->state != CONN_READY && now >= c->ready_by)
        conn_die_locked(c, -ERR_TIMEOUT, "%s: no answer within %d s (%s)", c->target,
                        READY_MS / 1000,
                        c->state == CONN_HELLO ? "connected, but no Hello came"
                        : c->state == CONN_TLS ? "connected, but TLS did not finish"
                                               : "could not connect");
    struct call *ended = calls_take_due_locked(c, now);
    struct timer *first = timers_first(&c->calls.deadlines);
    if (first)
        conn_arm_locked(c, first->when);
    if (c->state != CONN_READY)
        conn_arm_locked(c, c->ready_by);
    look_alive_locked(c, due, now);
    lock_release(&c->mu);
    call_end_list(ended, -ERR_TIMEOUT);
    if (next_address)
        conn_connect_next(c, ETIMEDOUT);
}

/* ---- Hello ---- */

static void send_hello_locked(struct rpc_conn *c, bool is_reply)
{
    Replfs__Hello h = REPLFS__HELLO__INIT;
    char cluster[sizeof(c->peer.cluster)] = "";

    lock_assert_held(&c->mu);
    if (c->has_svc && c->svc.cluster)
        snprintf(cluster, sizeof(cluster), "%s", c->svc.cluster);
    h.version = RPC_PROTO_VERSION;
    h.min_version = RPC_PROTO_VERSION;
    h.role = (char *)(uintptr_t)role_name(c->loop->cfg.role);
    h.name = (char *)(uintptr_t)c->loop->cfg.name;
    h.cluster = cluster;
    h.software = (char *)(uintptr_t)("replfs " REPLFS_VERSION);
    h.instance = c->loop->instance;
    RPC_ENVELOPE(env, HELLO, hello, &h);
    env.is_reply = is_reply;
    conn_send_locked(c, &env, NULL, 0);
}

/* The peer has been told why (c->error) and shall be able to read it: closing with its bytes unread
 * would reset the connection and take our last words along. So: end our side, drop what comes,
 * until the peer closes or LINGER_MS have passed. */
static void linger_locked(struct rpc_conn *c)
{
    lock_assert_held(&c->mu);
    c->state = CONN_LINGER;
    c->ready_by = clock_mono() + LINGER_MS * NSEC_PER_MSEC;
    conn_arm_locked(c, c->ready_by);
    conn_flush_locked(c);
}

/* Refuses the peer: an accepted one is told why first. */
static void refuse(struct rpc_conn *c, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void refuse(struct rpc_conn *c, int code, const char *fmt, ...)
{
    va_list ap;

    lock_acquire(&c->mu);
    va_start(ap, fmt);
    set_error(c, -code, fmt, ap);
    va_end(ap);
    if (c->state == CONN_HELLO && c->accepted) {
        Replfs__Failure f = REPLFS__FAILURE__INIT;
        f.code = (uint32_t)code;
        f.detail = c->error;
        RPC_ENVELOPE(env, FAILURE, failure, &f);
        env.is_reply = true;
        conn_send_locked(c, &env, NULL, 0);
        if (c->state == CONN_HELLO)
            linger_locked(c);
    } else {
        conn_die_locked(c, -code, "refused");
    }
    lock_release(&c->mu);
}

/* Whether the peer may talk to us; fills c->peer. False after refusing. */
static bool judge_hello(struct rpc_conn *c, const Replfs__Hello *h)
{
    enum rpc_role role = role_parse(h->role);
    char want[64];

    if (c->stranger) {
        refuse(c, ERR_ROLE,
               "%s: without TLS only root, the user that this program runs as and the user "
               "'replfs' are "
               "served; run it as one of them, or use TLS (tls-cert, tls-key, tls-ca)",
               c->target);
        return false;
    }
    if (h->version < RPC_PROTO_VERSION || h->min_version > RPC_PROTO_VERSION) {
        refuse(
            c, ERR_VERSION,
            "%s: speaks protocol versions %u to %u (%s), we speak %u (%s); upgrade the older side",
            c->target, h->min_version, h->version, h->software, RPC_PROTO_VERSION,
            "replfs " REPLFS_VERSION);
        return false;
    }
    if (c->ssl && role != c->peer.role) {
        refuse(c, ERR_ROLE,
               "%s: says it is '%s', but its certificate (CN=%s) is for '%s'; give it a "
               "certificate made by scripts/mkpki DIR %s NAME",
               c->target, h->role, c->peer.name, role_name(c->peer.role), h->role);
        return false;
    }
    if (role == RPC_ROLE_NONE || !(role & c->expect)) {
        role_set_format(c->expect, want, sizeof(want));
        refuse(c, ERR_ROLE, "%s: is a '%s', expected %s; check the address%s", c->target, h->role,
               want, c->ssl ? " and the certificate" : "");
        return false;
    }
    c->peer.role = role;
    c->peer.features = h->features;
    c->peer.instance = h->instance;
    if (!c->ssl)
        snprintf(c->peer.name, sizeof(c->peer.name), "%s", h->name);
    snprintf(c->peer.cluster, sizeof(c->peer.cluster), "%s", h->cluster);
    snprintf(c->peer.software, sizeof(c->peer.software), "%s", h->software);
    return true;
}

void conn_hello_received(struct rpc_conn *c, const Replfs__Envelope *env)
{
    if (!c->accepted && env->is_reply && env->body_case == REPLFS__ENVELOPE__BODY_FAILURE) {
        uint32_t code = env->failure->code;
        conn_die(c, code && code <= INT32_MAX ? -(int)code : -ERR_PROTOCOL, "%s refuses us: %s",
                 c->target, env->failure->detail);
        return;
    }
    if (env->body_case != REPLFS__ENVELOPE__BODY_HELLO || env->is_reply == c->accepted) {
        conn_die(c, -ERR_PROTOCOL, "%s: the first message is not Hello", c->target);
        return;
    }
    if (!judge_hello(c, env->hello))
        return;
    bool ready = false;
    lock_acquire(&c->mu);
    if (c->state == CONN_HELLO) {
        if (c->accepted)
            send_hello_locked(c, true);
        if (c->state == CONN_HELLO) {
            c->state = CONN_READY;
            c->opened = ready = true;
        }
    }
    lock_release(&c->mu);
    if (!ready)
        return;
    admit_ready(&c->loop->admission, c);
    log_debug("%s: ready, role %s, name %s", c->target, role_name(c->peer.role), c->peer.name);
    if (c->svc.opened)
        c->svc.opened(c->svc.arg, c);
    lock_acquire(&c->mu);
    conn_release_backlog_locked(c);
    lock_release(&c->mu);
}

/* ---- events ---- */

static void tls_step(struct rpc_conn *c)
{
    char why[320] = "";

    lock_acquire(&c->mu);
    if (c->state == CONN_TLS) {
        int rc = tls_handshake(c, why, sizeof(why));
        if (rc == 0) {
            c->state = CONN_HELLO;
            if (!c->accepted)
                send_hello_locked(c, false);
        } else if (rc != -EAGAIN && c->accepted) {
            snprintf(c->error, sizeof(c->error), "%s: %s", c->target, why);
            c->code = rc;
            linger_locked(c); /* OpenSSL has sent its alert */
        } else if (rc != -EAGAIN) {
            conn_die_locked(c, rc, "%s: %s", c->target, why);
        }
        conn_update_events_locked(c);
    }
    lock_release(&c->mu);
}

/* A process that listens on a UNIX socket must be one of us before it hears a word. */
static bool judge_listener(struct rpc_conn *c)
{
    struct ucred who;

    if (c->to.sa.ss_family != AF_UNIX || c->loop->cfg.insecure ||
        local_trusted(c->loop, c->fd, &who))
        return true;
    conn_die(c, -EPERM,
             "%s: the program that listens there (pid %d) runs as user %u, which is neither root, "
             "our own "
             "user nor 'replfs': it is not trusted; use TLS, or say insecure to trust everybody",
             c->target, (int)who.pid, (unsigned)who.uid);
    return false;
}

/* connect(2) finished: goes on to TLS or Hello, or to the next address. */
static void connect_step(struct rpc_conn *c)
{
    int err = 0;
    socklen_t len = sizeof(err);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        err = errno;
    if (err) {
        conn_connect_next(c, err);
        return;
    }
    if (!judge_listener(c))
        return;
    addr_format(&c->to, c->peer.addr, sizeof(c->peer.addr));
    lock_acquire(&c->mu);
    if (c->state == CONN_CONNECTING) {
        if (!c->loop->use_tls) {
            c->state = CONN_HELLO;
            send_hello_locked(c, false);
        } else if (tls_attach(c) == 0) {
            c->state = CONN_TLS;
        } else {
            conn_die_locked(c, -ENOMEM, "%s: cannot set up TLS: out of memory", c->target);
        }
        conn_update_events_locked(c);
    }
    lock_release(&c->mu);
    if (c->state == CONN_TLS)
        tls_step(c);
}

static void conn_event(struct source *s, uint32_t events)
{
    struct rpc_conn *c = (struct rpc_conn *)s; /* first member */

    if (c->state == CONN_CONNECTING) {
        connect_step(c);
        return;
    }
    if (c->state == CONN_TLS) {
        tls_step(c);
        if (c->state == CONN_TLS)
            return;
        events |= EPOLLIN; /* the handshake may have read more than its own */
    }
    if (events & EPOLLOUT) {
        lock_acquire(&c->mu);
        if (c->ssl_wants_write)
            events |= EPOLLIN;
        conn_flush_locked(c);
        lock_release(&c->mu);
    }
    if (events & (EPOLLERR | EPOLLHUP) && c->paused)
        conn_die(c, -ERR_PEER_GONE, "%s: connection lost", c->target);
    else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        conn_readable(c);
}

void conn_posted(struct rpc_conn *c)
{
    lock_acquire(&c->mu);
    int state = c->state;
    bool read_on = c->posted_read;
    c->posted_read = false;
    lock_release(&c->mu);
    if (state == CONN_DYING)
        conn_teardown(c);
    else if (state == CONN_RESOLVING && c->naddrs > 0)
        conn_connect_next(c, 0);
    else if (read_on)
        conn_readable(c);
}
