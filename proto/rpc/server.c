/* Listening, and the receiving side of requests. A listener belongs to one worker; what it accepts
 * is spread over all. A request is on loan to the service until rpc_reply or rpc_fail, on any
 * thread; when its connection died meanwhile, the reply is dropped there. */
#include "rpc/rpc_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/hash.h"
#include "base/lock.h"
#include "rpc/may_answer.h"

#define LOG_MODULE "rpc"
#define ACCEPT_PAUSE_MS 100
#define CROWDED_PAUSE_MS 5
#define DEFAULT_DEADLINE_MS 60000
#define MAX_DEADLINE_MS 3600000u

struct listener {
    struct source source;
    struct rpc_loop *loop;
    struct worker *worker;
    struct rpc_service svc;
    int fd;
    struct listener *next;
};

/* ---- names of roles; trace ids ---- */

static const struct {
    enum rpc_role role;
    const char *name;
} roles[] = {
    {RPC_ROLE_METAD, "metad"},
    {RPC_ROLE_CHUNKD, "chunkd"},
    {RPC_ROLE_CLIENT, "client"},
    {RPC_ROLE_ADMIN, "admin"},
};
#define NROLES (sizeof(roles) / sizeof(roles[0]))

const char *role_name(enum rpc_role r)
{
    for (size_t i = 0; i < NROLES; i++) {
        if (roles[i].role == r)
            return roles[i].name;
    }
    return "none";
}

enum rpc_role role_parse(const char *s)
{
    for (size_t i = 0; i < NROLES; i++) {
        if (!strcmp(roles[i].name, s))
            return roles[i].role;
    }
    return RPC_ROLE_NONE;
}

void role_set_format(unsigned set, char *out, size_t len)
{
    out[0] = '\0';
    for (size_t i = 0, n = 0; i < NROLES; i++) {
        if (set & roles[i].role && n < len)
            n += (size_t)snprintf(out + n, len - n, "%s%s", n ? " or " : "", roles[i].name);
    }
}

uint64_t trace_new(void)
{
    static _Atomic uint64_t next;
    uint64_t t = atomic_load(&next);

    if (t == 0) {
        uint64_t seed = 0;
        if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
            seed = (uint64_t)clock_wall() ^ (uint64_t)getpid() << 40;
        atomic_compare_exchange_strong(&next, &t, seed | 1);
    }
    t = hash_u64(atomic_fetch_add(&next, 1));
    return t ? t : 1;
}

/* ---- listening ---- */

static void listener_resume(void *arg)
{
    struct listener *li = arg;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = &li->source};

    epoll_ctl(li->worker->epfd, EPOLL_CTL_MOD, li->fd, &ev);
}

/* An endless stream of readiness would burn the processor. */
static void listener_pause(struct listener *li, unsigned ms)
{
    struct epoll_event ev = {.events = 0, .data.ptr = &li->source};

    epoll_ctl(li->worker->epfd, EPOLL_CTL_MOD, li->fd, &ev);
    rpc_loop_defer(li->loop, ms, listener_resume, li);
}

static void cannot_accept(struct listener *li)
{
    log_warn("cannot accept a connection: %s; trying again shortly (is the limit of open files too "
             "low?)",
             strerror(errno));
    listener_pause(li, ACCEPT_PAUSE_MS);
}

static void accepted(struct listener *li, int fd, const struct addr *from)
{
    struct rpc_conn *c = conn_new(li->loop, &li->svc, true);

    if (from->sa.ss_family == AF_UNIX) {
        struct ucred who;
        c->stranger = !local_trusted(li->loop, fd, &who);
        snprintf(c->peer.addr, sizeof(c->peer.addr), "pid %d of user %u", (int)who.pid,
                 (unsigned)who.uid);
        local_sockopts(fd);
    } else {
        addr_format(from, c->peer.addr, sizeof(c->peer.addr));
    }
    snprintf(c->target, sizeof(c->target), "%s", c->peer.addr);
    if (!admit(&li->loop->admission, c, from, fd)) {
        close(fd);
        conn_discard(c);
        return;
    }
    conn_set_sockopts(fd);
    conn_ref_internal(c); /* its worker may end it at any time from here on */
    conn_register(c);
    int rc = conn_adopt_fd(c, fd, li->loop->use_tls ? CONN_TLS : CONN_HELLO);
    if (rc < 0)
        conn_die(c, rc, "%s: cannot serve the connection: %s", c->target, err_str(rc));
    conn_unref_internal(c);
}

static void listener_event(struct source *s, uint32_t events)
{
    struct listener *li = (struct listener *)s; /* first member */

    (void)events;
    for (int i = 0; i < 64; i++) {
        if (admit_crowded(&li->loop->admission)) {
            listener_pause(li, CROWDED_PAUSE_MS);
            return;
        }
        struct addr from = {.len = sizeof(from.sa)};
        int fd =
            accept4(li->fd, (struct sockaddr *)&from.sa, &from.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            accepted(li, fd, &from);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            cannot_accept(li);
        if (errno != ECONNABORTED && errno != EINTR)
            return;
    }
}

static int bind_one(const struct addr *a)
{
    int on = 1, off = 0;
    int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (a->sa.ss_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, (const struct sockaddr *)&a->sa, a->len) < 0 || listen(fd, RPC_BACKLOG) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

/* The first address that can be bound; ":port" tries IPv6 first, which then takes IPv4 too. */
static int bind_any(const struct rpc_loop *l, const struct addr *addrs, int n, bool any)
{
    int fd = -EADDRNOTAVAIL;

    for (int pass = any ? 0 : 1; pass < 2; pass++) {
        for (int i = 0; i < n; i++) {
            if (pass == 0 && addrs[i].sa.ss_family != AF_INET6)
                continue;
            bool local = local_used(l, &addrs[i]) && !l->cfg.insecure;
            fd = local ? local_listen(&addrs[i]) : bind_one(&addrs[i]);
            if (fd >= 0)
                return fd;
        }
    }
    return fd;
}

int rpc_listen(struct rpc_loop *l, const char *addr, const struct rpc_service *svc, int *port)
{
    struct addr addrs[ADDR_MAX], bound = {.len = sizeof(bound.sa)};
    char why[256];
    int n = addr_resolve(addr, false, true, addrs, why, sizeof(why));

    if (n < 0) {
        log_error("%s", why);
        return n;
    }
    for (int i = 0; i < n; i++) {
        if (!l->use_tls && !l->cfg.insecure && !addr_is_loopback(&addrs[i])) {
            log_error(
                "will not listen on %s: without TLS only programs of this computer are served; "
                "give "
                "certificates (tls-cert, tls-key, tls-ca), or trust everybody on the network with "
                "insecure, or listen on 127.0.0.1%s",
                addr, strrchr(addr, ':'));
            return -EPERM;
        }
    }
    int fd = bind_any(l, addrs, n, addr[0] == ':');
    if (fd < 0) {
        log_error("cannot listen on %s: %s", addr, err_str(fd));
        return fd;
    }
    struct listener *li = calloc(1, sizeof(*li));
    if (!li)
        abort();
    li->source.event = listener_event;
    li->loop = l;
    li->worker = loop_pick(l);
    li->svc = *svc;
    li->fd = fd;
    if (port && getsockname(fd, (struct sockaddr *)&bound.sa, &bound.len) == 0)
        *port = addr_port(&bound);
    lock_acquire(&l->mu);
    li->next = l->listeners;
    l->listeners = li;
    lock_release(&l->mu);
    return worker_watch(li->worker, fd, EPOLLIN, &li->source);
}

void listeners_free(struct rpc_loop *l)
{
    while (l->listeners) {
        struct listener *li = l->listeners;
        l->listeners = li->next;
        close(li->fd);
        free(li);
    }
}

/* ---- requests ---- */

void server_request(struct rpc_conn *c, struct message *msg, struct buf *payload)
{
    struct request *r = calloc(1, sizeof(*r));
    uint32_t ms = msg->env->deadline_ms ? msg->env->deadline_ms : DEFAULT_DEADLINE_MS;
    if (ms > MAX_DEADLINE_MS)
        ms = MAX_DEADLINE_MS; /* what waits for ever stays for ever */

    if (!r)
        abort();
    r->msg = *msg;
    r->id = msg->env->id;
    r->bytes = (payload ? payload->len : 0) + message_bytes(&r->msg);
    r->pub.conn = c;
    r->pub.env = msg->env;
    r->pub.payload = payload;
    r->pub.deadline = clock_mono() + ms * NSEC_PER_MSEC;
    r->pub.trace = msg->env->trace;
    conn_ref_internal(c);
    lock_acquire(&c->mu);
    c->in_bytes += r->bytes;
    bool too_many = c->inflight++ >= RPC_MAX_INFLIGHT;
    if (too_many)
        conn_die_locked(c, -ERR_PROTOCOL, "%s: has more than %d requests open", c->target,
                        RPC_MAX_INFLIGHT);
    conn_update_events_locked(c);
    lock_release(&c->mu);
    if (too_many)
        rpc_fail(&r->pub, ERR_PROTOCOL, "too many requests open");
    else if (msg->env->body_case == REPLFS__ENVELOPE__BODY__NOT_SET || !c->has_svc)
        rpc_fail(&r->pub, EOPNOTSUPP, "this program does not know the request");
    else
        c->svc.request(c->svc.arg, &r->pub);
}

static void failure_envelope(Replfs__Envelope *env, Replfs__Failure *f, int code,
                             const char *detail)
{
    replfs__failure__init(f);
    f->code = (uint32_t)(code < 0 ? -code : code);
    f->detail = (char *)(uintptr_t)detail;
    replfs__envelope__init(env);
    env->body_case = REPLFS__ENVELOPE__BODY_FAILURE;
    env->failure = f;
}

void rpc_reply(struct rpc_req *req, Replfs__Envelope *rep, struct buf *payload)
{
    struct request *r = (struct request *)req; /* first member */
    struct rpc_conn *c = req->conn;
    Replfs__Envelope own;
    Replfs__Failure instead;

    rep = rpc_allowed(req, rep, &payload, &own, &instead);
    rep->id = r->id;
    rep->is_reply = true;
    rep->trace = req->trace;
    lock_acquire(&c->mu);
    c->inflight--;
    c->in_bytes -= r->bytes;
    if (conn_send_locked(c, rep, payload, 0) == -ERR_PROTOCOL) {
        Replfs__Envelope env;
        Replfs__Failure f;
        failure_envelope(&env, &f, EMSGSIZE, "the reply is larger than a message may be");
        env.id = r->id;
        env.is_reply = true;
        conn_send_locked(c, &env, NULL, 0);
    }
    conn_update_events_locked(c);
    lock_release(&c->mu);
    message_free(&r->msg);
    buf_unref(req->payload);
    free(r);
    conn_unref_internal(c);
}

void rpc_fail_with(struct rpc_req *req, const Replfs__Failure *f)
{
    Replfs__Failure copy = *f;

    RPC_ENVELOPE(env, FAILURE, failure, &copy);
    rpc_reply(req, &env, NULL);
}

void rpc_fail(struct rpc_req *req, int code, const char *fmt, ...)
{
    Replfs__Envelope env;
    Replfs__Failure f;
    char detail[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(detail, sizeof(detail), fmt, ap);
    va_end(ap);
    failure_envelope(&env, &f, code, detail);
    rpc_reply(req, &env, NULL);
}
