/* See net.h. A connection has two ends, each with an inbox: a queue of messages with the time from which they may be
 * delivered, and at most one event in its worker's heap that delivers the first. Nothing here waits but the
 * workers, so no lock is needed. Memory of connections is not given back: a run is short, and whoever uses one after
 * its last reference is found. */
#include "net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "net_trace.h"
#include "rpc/may_answer.h"
#include "rpc/rpc.h"

#define READY_NS (10 * NSEC_PER_SEC)
#define BREAK_NS (12 * NSEC_PER_SEC) /* an undelivered message is given up */
#define CUT_LOOK_NS (25 * NSEC_PER_MSEC)
#define LIFE_LOOK_NS (500 * NSEC_PER_MSEC)
#define LISTENERS 64u

enum kind { EV_DELIVER, EV_CONNECT, EV_DIE, EV_TIMEOUT, EV_SILENCE, EV_FN };
struct event {
    int64_t at;
    uint64_t seq;
    enum kind kind;
    struct rpc_conn *c;
    uint64_t id;
    void (*fn)(void *arg);
    void *arg;
};
struct worker {
    struct rpc_loop *loop;
    struct fiber *fiber;
    struct vt_queue idle;
    struct event *heap;
    size_t n, cap;
};
struct rpc_loop {
    struct rpc_config cfg;
    char name[64];
    struct vt_proc *proc;
    unsigned nworkers;
    bool stopping;
    struct worker worker[8];
    struct rpc_conn *conns;
    uint64_t instance;
};
enum what { MSG_HELLO, MSG_FRAME, MSG_CLOSE };
struct msg {
    struct msg *next;
    enum what what;
    int64_t at, sent;
    size_t len;
    struct buf *payload;
    uint8_t bytes[];
};
struct waiter {
    struct vt_queue q;
    bool done;
    int code;
    Replfs__Envelope *rep;
    struct buf *payload;
};
struct call {
    struct call *next;
    uint64_t id;
    rpc_done *done;
    void *arg;
    struct waiter *waiter;
};
enum conn_state { CONNECTING, READY, DYING, DEAD };
struct rpc_conn {
    struct rpc_loop *loop;
    struct worker *worker;
    struct rpc_conn *next, *other;
    unsigned users;
    bool accepted, has_svc, opened, posted, listens; /* for signs of life */
    int64_t silent;                                  /* since when; 0: is not */
    struct rpc_service svc;
    enum conn_state state;
    int code;
    char error[128], target[64];
    struct rpc_peer peer;
    void *data;
    struct msg *inbox, **inbox_last;
    struct msg *backlog, **backlog_last; /* before READY */
    int64_t last_at;                     /* of the newest in the inbox */
    int64_t born;
    struct call *calls;
    uint64_t seq;
};
struct request {
    struct rpc_req pub;
    Replfs__Envelope *env;
    uint64_t id;
};

static struct {
    struct net_config cfg;
    struct {
        char addr[64];
        struct rpc_loop *loop;
        struct rpc_service svc;
    } listener[LISTENERS];
    unsigned nlisteners;
    struct rpc_loop *loops[256];
    unsigned nloops;
    uint64_t seq, messages, trace;
} net;

/* ---- events ---- */

static bool sooner(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void post(struct worker *w, struct event e)
{
    if (w->loop->proc->dead)
        return;
    if (w->n == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 64;
        w->heap = realloc(w->heap, w->cap * sizeof(*w->heap));
        if (!w->heap)
            abort();
    }
    e.seq = ++net.seq;
    size_t i = w->n++;
    for (; i && sooner(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = e;
    if (!i)
        vt_wake_all(&w->idle);
}

static struct event event_pop(struct worker *w)
{
    struct event top = w->heap[0], e = w->heap[--w->n];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < w->n; i = k) {
        if (k + 1 < w->n && sooner(&w->heap[k + 1], &w->heap[k]))
            k++;
        if (!sooner(&w->heap[k], &e))
            break;
        w->heap[i] = w->heap[k];
    }
    w->heap[i] = e;
    return top;
}

static int64_t delay(void)
{
    int64_t d = vt_between(net.cfg.delay_min, net.cfg.delay_max);
    return vt_chance(net.cfg.slow_one_in) ? d + vt_between(0, net.cfg.slow_max) : d;
}

static bool is_cut(const struct rpc_conn *c)
{
    return c->other && net_is_cut(c->other->loop->proc->host, c->loop->proc->host);
}

/* ---- ending ---- */

static void conn_die(struct rpc_conn *c, int code, const char *why)
{
    if (c->state >= DYING)
        return;
    c->state = DYING;
    c->code = code;
    snprintf(c->error, sizeof(c->error), "%s: %s", c->target, why);
    post(c->worker, (struct event){.at = vt_now(), .kind = EV_DIE, .c = c});
}

static void msg_free(struct msg *m)
{
    buf_unref(m->payload);
    free(m);
}

static void call_end(struct call *k, int code, Replfs__Envelope *rep, struct buf *payload)
{
    if (k->waiter) {
        struct waiter *w = k->waiter;
        w->done = true;
        w->code = code;
        w->rep = rep;
        w->payload = payload;
        vt_wake_all(&w->q);
    } else {
        k->done(k->arg, code, rep, payload);
        if (rep)
            replfs__envelope__free_unpacked(rep, NULL);
        buf_unref(payload);
    }
    free(k);
}

static void teardown(struct rpc_conn *c)
{
    if (c->state == DEAD)
        return;
    c->state = DEAD;
    if (!c->code)
        c->code = -ERR_SHUTDOWN;
    while (c->calls) {
        struct call *k = c->calls;
        c->calls = k->next;
        call_end(k, c->code, NULL, NULL);
    }
    if (c->opened && c->svc.closed)
        c->svc.closed(c->svc.arg, c);
}

/* ---- sending ---- */

static void deliver_later(struct rpc_conn *c)
{
    if (c->posted || !c->inbox)
        return;
    c->posted = true;
    post(c->worker, (struct event){.at = c->inbox->at, .kind = EV_DELIVER, .c = c});
}

/* Into the inbox of the other end. */
static void push(struct rpc_conn *c, struct msg *m)
{
    struct rpc_conn *o = c->other;
    if (!o || o->state >= DYING || o->loop->proc->dead) {
        msg_free(m);
        return;
    }
    m->sent = vt_now();
    m->at = vt_now() + delay();
    if (m->at < o->last_at)
        m->at = o->last_at;
    o->last_at = m->at;
    m->next = NULL;
    *o->inbox_last = m;
    o->inbox_last = &m->next;
    deliver_later(o);
}

static struct msg *msg_new(enum what what, const Replfs__Envelope *env, const struct buf *payload)
{
    size_t len = env ? replfs__envelope__get_packed_size(env) : 0;
    struct msg *m = malloc(sizeof(*m) + len);
    if (!m)
        abort();
    *m = (struct msg){.what = what, .len = len};
    if (env)
        replfs__envelope__pack(env, m->bytes);
    if (payload && payload->len) { /* the sender may go on using its own */
        m->payload = buf_new(payload->len);
        memcpy(m->payload->data, payload->data, payload->len);
        m->payload->len = payload->len;
    }
    return m;
}

static void trace(const char *dir, const struct rpc_conn *c, const Replfs__Envelope *env)
{
    if (net.cfg.trace)
        net_trace(c->loop->proc->name, dir, c->other ? c->other->loop->proc->name : "?", env);
}

static void send_frame(struct rpc_conn *c, const Replfs__Envelope *env, struct buf *payload)
{
    trace("->", c, env);
    net.messages++;
    struct msg *m = msg_new(MSG_FRAME, env, payload);
    buf_unref(payload);
    if (c->state == CONNECTING) {
        m->next = NULL;
        *c->backlog_last = m;
        c->backlog_last = &m->next;
    } else {
        push(c, m);
    }
}

/* ---- receiving ---- */

static void conn_close(struct rpc_conn *c, int code, const char *why)
{
    bool was = c->state < DYING;
    conn_die(c, code, why);
    if (was && c->other)
        push(c, msg_new(MSG_CLOSE, NULL, NULL));
}

static void got_hello(struct rpc_conn *c)
{
    const struct rpc_conn *o = c->other;
    c->peer = (struct rpc_peer){.role = o->loop->cfg.role, .instance = o->loop->instance};
    snprintf(c->peer.name, sizeof(c->peer.name), "%s", o->loop->name);
    snprintf(c->peer.cluster, sizeof(c->peer.cluster), "%s",
             o->has_svc && o->svc.cluster ? o->svc.cluster : "");
    snprintf(c->peer.addr, sizeof(c->peer.addr), "10.0.0.%u:9%03u", o->loop->proc->host,
             (unsigned)(net.seq % 1000));
    c->state = READY;
    c->opened = true;
    if (c->accepted)
        push(c, msg_new(MSG_HELLO, NULL, NULL));
    if (c->svc.opened)
        c->svc.opened(c->svc.arg, c);
    while (c->backlog && c->state == READY) {
        struct msg *m = c->backlog;
        c->backlog = m->next;
        push(c, m);
    }
}

static void got_ping(struct rpc_conn *c, Replfs__Envelope *env)
{
    Replfs__Ping p = REPLFS__PING__INIT;
    RPC_ENVELOPE(rep, PING, ping, &p);
    rep.id = env->id;
    rep.is_reply = true;
    send_frame(c, &rep, NULL);
    replfs__envelope__free_unpacked(env, NULL);
}

static void got_request(struct rpc_conn *c, Replfs__Envelope *env, struct buf *payload)
{
    struct request *r = calloc(1, sizeof(*r));
    if (!r)
        abort();
    r->env = env;
    r->id = env->id;
    c->users++;
    r->pub = (struct rpc_req){.conn = c,
                              .env = env,
                              .payload = payload,
                              .deadline = clock_mono() + env->deadline_ms * NSEC_PER_MSEC,
                              .trace = env->trace};
    if (c->has_svc)
        c->svc.request(c->svc.arg, &r->pub);
    else
        rpc_fail(&r->pub, ERR_PROTOCOL, "nobody serves requests here");
}

static void got_reply(struct rpc_conn *c, Replfs__Envelope *env, struct buf *payload)
{
    struct call **p = &c->calls;
    while (*p && (*p)->id != env->id)
        p = &(*p)->next;
    struct call *k = *p;
    if (!k) {
        replfs__envelope__free_unpacked(env, NULL);
        buf_unref(payload);
        return;
    }
    *p = k->next;
    int code = env->body_case == REPLFS__ENVELOPE__BODY_FAILURE ? -(int)env->failure->code : 0;
    call_end(k, code, env, payload);
}

static void deliver(struct rpc_conn *c)
{
    struct msg *m = c->inbox;
    c->posted = false;
    if (!m || c->state >= DYING)
        return;
    if (is_cut(c)) {
        if (vt_now() - m->sent > BREAK_NS) {
            conn_die(c, -ERR_PEER_GONE, "connection lost: timed out");
            conn_die(c->other, -ERR_PEER_GONE, "connection lost: timed out");
            return;
        }
        c->posted = true;
        post(c->worker, (struct event){.at = vt_now() + CUT_LOOK_NS, .kind = EV_DELIVER, .c = c});
        return;
    }
    c->inbox = m->next;
    if (!c->inbox)
        c->inbox_last = &c->inbox;
    struct buf *payload = m->payload;
    m->payload = NULL;
    if (m->what == MSG_HELLO) {
        got_hello(c);
    } else if (m->what == MSG_CLOSE) {
        conn_die(c, -ERR_PEER_GONE, "closed by the peer");
    } else {
        Replfs__Envelope *env = replfs__envelope__unpack(NULL, m->len, m->bytes);
        if (!env)
            vt_fail("a message cannot be unpacked");
        trace("<-", c, env);
        if (env->is_reply)
            got_reply(c, env, payload);
        else if (env->body_case == REPLFS__ENVELOPE__BODY_PING)
            got_ping(c, env);
        else
            got_request(c, env, payload);
    }
    msg_free(m);
    deliver_later(c);
}

/* ---- connecting ---- */

static struct rpc_conn *conn_new(struct rpc_loop *l, const struct rpc_service *svc, bool accepted)
{
    struct rpc_conn *c = calloc(1, sizeof(*c));
    if (!c)
        abort();
    c->loop = l;
    c->worker = &l->worker[vt_below(l->nworkers)];
    c->users = 1;
    c->accepted = accepted;
    c->has_svc = svc != NULL;
    if (svc)
        c->svc = *svc;
    c->inbox_last = &c->inbox;
    c->backlog_last = &c->backlog;
    c->born = vt_now();
    c->next = l->conns;
    l->conns = c;
    return c;
}

static void connect_to(struct rpc_conn *c)
{
    unsigned i = net.nlisteners;
    if (c->state != CONNECTING)
        return;
    while (i-- && (strcmp(net.listener[i].addr, c->target) || net.listener[i].loop->proc->dead ||
                   net.listener[i].loop->stopping))
        ;
    if (i == UINT32_MAX) {
        conn_die(c, -ECONNREFUSED, "cannot connect: refused");
        return;
    }
    struct rpc_loop *l = net.listener[i].loop;
    unsigned a = c->loop->proc->host, b = l->proc->host;
    if (net_is_cut(a, b) || net_is_cut(b, a)) {
        if (vt_now() - c->born > READY_NS)
            conn_die(c, -ETIMEDOUT, "cannot connect: timed out");
        else
            post(c->worker,
                 (struct event){.at = vt_now() + CUT_LOOK_NS, .kind = EV_CONNECT, .c = c});
        return;
    }
    struct rpc_conn *s = conn_new(l, &net.listener[i].svc, true);
    snprintf(s->target, sizeof(s->target), "%s", c->loop->name);
    s->state = READY;
    s->other = c;
    c->other = s;
    push(c, msg_new(MSG_HELLO, NULL, NULL));
}

int rpc_dial(struct rpc_loop *l, const char *addr, unsigned expect, const struct rpc_service *svc,
             struct rpc_conn **out)
{
    (void)expect;
    *out = NULL;
    if (l->stopping)
        return -ERR_SHUTDOWN;
    struct rpc_conn *c = conn_new(l, svc, false);
    snprintf(c->target, sizeof(c->target), "%s", addr);
    post(c->worker, (struct event){.at = vt_now() + delay(), .kind = EV_CONNECT, .c = c});
    post(c->worker, (struct event){.at = vt_now() + READY_NS, .kind = EV_TIMEOUT, .c = c});
    *out = c;
    return 0;
}

int rpc_listen(struct rpc_loop *l, const char *addr, const struct rpc_service *svc, int *port)
{
    unsigned i = 0;
    while (i < net.nlisteners && strcmp(net.listener[i].addr, addr) != 0)
        i++;
    if (i == LISTENERS)
        vt_fail("too many listeners");
    net.nlisteners += i == net.nlisteners;
    snprintf(net.listener[i].addr, sizeof(net.listener[i].addr), "%s", addr);
    net.listener[i].loop = l; /* the former one's process is dead */
    net.listener[i].svc = *svc;
    *port = atoi(strrchr(addr, ':') + 1);
    return 0;
}

/* ---- the loop ---- */

static void listen_for_life(struct rpc_conn *c)
{
    if (!c->listens)
        post(c->worker, (struct event){.at = vt_now() + LIFE_LOOK_NS, .kind = EV_SILENCE, .c = c});
    c->listens = true;
}

static void call_late(struct rpc_conn *c, uint64_t id)
{
    struct call **p = &c->calls;
    if (!id && c->state == CONNECTING) {
        conn_die(c, -ERR_TIMEOUT, "not ready in time");
        return;
    }
    while (*p && (*p)->id != id)
        p = &(*p)->next;
    struct call *k = *p;
    if (!id || !k)
        return;
    *p = k->next;
    call_end(k, -ERR_TIMEOUT, NULL, NULL);
}

/* While a call waits, the peer is to give signs of life. */
static void silence(struct rpc_conn *c)
{
    unsigned ms = c->loop->cfg.silent_ms ? c->loop->cfg.silent_ms : RPC_SILENT_MS;
    const struct rpc_conn *o = c->other;
    c->listens = false;
    if (!c->calls || c->state >= DYING)
        return;
    if (!o || !(is_cut(c) || is_cut(o) || o->loop->proc->stopped))
        c->silent = 0;
    else if (!c->silent)
        c->silent = vt_now();
    if (c->silent && ms != UINT_MAX && vt_now() - c->silent >= ms * NSEC_PER_MSEC)
        conn_die(c, -ERR_PEER_GONE, "connection lost: silent");
    else
        listen_for_life(c);
}

static void run_event(const struct event *e)
{
    switch (e->kind) {
    case EV_DELIVER:
        deliver(e->c);
        break;
    case EV_CONNECT:
        connect_to(e->c);
        break;
    case EV_DIE:
        teardown(e->c);
        break;
    case EV_TIMEOUT:
        call_late(e->c, e->id);
        break;
    case EV_SILENCE:
        silence(e->c);
        break;
    case EV_FN:
        e->fn(e->arg);
        break;
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    while (!w->loop->stopping) {
        if (w->n && w->heap[0].at <= vt_now()) {
            struct event e = event_pop(w);
            run_event(&e);
        } else {
            vt_wait(&w->idle, w->n ? w->heap[0].at : INT64_MAX, "messages");
        }
    }
    for (struct rpc_conn *c = w->loop->conns; c; c = c->next)
        if (c->worker == w)
            teardown(c);
    return NULL;
}

int rpc_loop_new(const struct rpc_config *cfg, struct rpc_loop **out)
{
    struct rpc_loop *l = calloc(1, sizeof(*l));
    if (!l || net.nloops == sizeof(net.loops) / sizeof(net.loops[0]))
        abort();
    l->cfg = *cfg;
    snprintf(l->name, sizeof(l->name), "%s", cfg->name ? cfg->name : "");
    l->proc = vt_proc();
    l->instance = vt_rand();
    l->nworkers = cfg->threads < 1 ? 1 : cfg->threads > 8 ? 8 : cfg->threads;
    for (unsigned i = 0; i < l->nworkers; i++) {
        l->worker[i].loop = l;
        l->worker[i].fiber = vt_spawn(l->proc, "rpc", worker_main, &l->worker[i]);
    }
    net.loops[net.nloops++] = l;
    *out = l;
    return 0;
}

void rpc_loop_free(struct rpc_loop *l)
{
    if (!l)
        return;
    l->stopping = true;
    for (struct rpc_conn *c = l->conns; c; c = c->next)
        conn_close(c, -ERR_SHUTDOWN, "shutting down");
    for (unsigned i = 0; i < l->nworkers; i++)
        vt_wake_all(&l->worker[i].idle);
    for (unsigned i = 0; i < l->nworkers; i++)
        vt_join(l->worker[i].fiber);
}

void rpc_loop_defer(struct rpc_loop *l, unsigned delay_ms, void (*fn)(void *arg), void *arg)
{
    post(&l->worker[vt_below(l->nworkers)],
         (struct event){
             .at = vt_now() + delay_ms * NSEC_PER_MSEC, .kind = EV_FN, .fn = fn, .arg = arg});
}

/* ---- connections ---- */

static void check_used(const struct rpc_conn *c)
{
    if (!c->users)
        vt_fail("a connection to %s is used after its last reference went", c->target);
}

struct rpc_conn *rpc_conn_ref(struct rpc_conn *c)
{
    if (c) {
        check_used(c);
        c->users++;
    }
    return c;
}

void rpc_conn_unref(struct rpc_conn *c)
{
    if (!c)
        return;
    check_used(c);
    if (!--c->users && !c->accepted)
        conn_close(c, -ERR_PEER_GONE, "closed by us");
    else if (!c->users)
        c->users = 1; /* an accepted one is held by the loop */
}

void rpc_conn_close(struct rpc_conn *c)
{
    check_used(c);
    conn_close(c, -ERR_PEER_GONE, "closed by us");
}

bool rpc_conn_alive(const struct rpc_conn *c)
{
    check_used(c);
    return c->state < DYING;
}

const struct rpc_peer *rpc_conn_peer(const struct rpc_conn *c)
{
    return &c->peer;
}

void rpc_conn_set_data(struct rpc_conn *c, void *data)
{
    c->data = data;
}

void *rpc_conn_data(const struct rpc_conn *c)
{
    return c->data;
}

const char *rpc_conn_error(const struct rpc_conn *c)
{
    return c->error;
}

/* ---- requests and replies ---- */

static void start(struct rpc_conn *c, Replfs__Envelope *req, struct buf *payload, unsigned ms,
                  struct call k)
{
    struct call *n = malloc(sizeof(*n));
    if (!n)
        abort();
    check_used(c);
    *n = k;
    req->is_reply = false;
    req->deadline_ms = ms;
    if (!req->trace)
        req->trace = ++net.trace;
    if (c->state >= DYING) {
        buf_unref(payload);
        call_end(n, c->code, NULL, NULL);
        return;
    }
    req->id = n->id = ++c->seq;
    n->next = c->calls;
    c->calls = n;
    post(c->worker,
         (struct event){
             .at = vt_now() + ms * NSEC_PER_MSEC, .kind = EV_TIMEOUT, .c = c, .id = n->id});
    send_frame(c, req, payload);
    listen_for_life(c);
    vt_maybe_yield();
}

void rpc_call(struct rpc_conn *c, Replfs__Envelope *req, struct buf *payload, unsigned timeout_ms,
              rpc_done *done, void *arg)
{
    start(c, req, payload, timeout_ms, (struct call){.done = done, .arg = arg});
}

int rpc_call_wait(struct rpc_conn *c, Replfs__Envelope *req, struct buf *payload,
                  unsigned timeout_ms, struct rpc_result *out)
{
    struct waiter w = {0};
    start(c, req, payload, timeout_ms, (struct call){.waiter = &w});
    while (!w.done)
        vt_wait(&w.q, INT64_MAX, "an answer");
    *out = (struct rpc_result){.code = w.code, .rep = w.rep, .payload = w.payload};
    return w.code;
}

void rpc_reply(struct rpc_req *req, Replfs__Envelope *rep, struct buf *payload)
{
    struct request *r = (struct request *)req;
    Replfs__Envelope own;
    Replfs__Failure instead;
    rep = rpc_allowed(req, rep, &payload, &own, &instead);
    rep->id = r->id;
    rep->is_reply = true;
    if (rpc_conn_alive(req->conn))
        send_frame(req->conn, rep, payload);
    else
        buf_unref(payload);
    buf_unref(req->payload);
    rpc_conn_unref(req->conn);
    replfs__envelope__free_unpacked(r->env, NULL);
    free(r);
    vt_maybe_yield();
}

/* ---- faults ---- */

void net_init(const struct net_config *cfg)
{
    net.cfg = *cfg;
}

void net_set_slow(unsigned one_in)
{
    net.cfg.slow_one_in = one_in;
}

static void inbox_drop(struct rpc_conn *c)
{
    while (c->inbox) {
        struct msg *m = c->inbox;
        c->inbox = m->next;
        msg_free(m);
    }
    c->inbox_last = &c->inbox;
}

static bool matches(const struct rpc_conn *c, unsigned a, unsigned b)
{
    return c->loop->proc->host == a && c->other &&
           (b == NET_HOSTS || c->other->loop->proc->host == b);
}

void net_reset(unsigned a, unsigned b)
{
    for (unsigned i = 0; i < net.nloops; i++)
        for (struct rpc_conn *c = net.loops[i]->conns; c; c = c->next) {
            if (net.loops[i]->proc->dead || c->state >= DYING || !matches(c, a, b))
                continue;
            inbox_drop(c);
            inbox_drop(c->other);
            conn_die(c, -ERR_PEER_GONE, "connection lost: reset");
            if (vt_chance(2)) /* else it hears of it as it sends, or not at all */
                conn_die(c->other, -ERR_PEER_GONE, "connection lost: reset");
            else
                push(c, msg_new(MSG_CLOSE, NULL, NULL));
        }
}

void net_killed(struct vt_proc *p)
{
    for (unsigned i = 0; i < net.nloops; i++) {
        if (net.loops[i]->proc != p)
            continue;
        for (struct rpc_conn *c = net.loops[i]->conns; c; c = c->next) {
            if (c->state >= DYING || !c->other)
                continue;
            if (vt_chance(2)) /* what it had sent is lost, too */
                inbox_drop(c->other);
            push(c, msg_new(MSG_CLOSE, NULL, NULL));
            c->state = DEAD;
        }
    }
}

uint64_t net_messages(void)
{
    return net.messages;
}
