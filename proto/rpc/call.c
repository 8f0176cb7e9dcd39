/* Calls: requests of ours that wait for a reply. The id of a request holds its slot in the table,
 * so a reply finds its call without a search; the rest of the id is a sequence number that makes a
 * late reply to an ended call recognisable. A call is in the table until exactly one of reply,
 * deadline and teardown takes it out, under the lock; the one that took it calls its callback, without
 * the lock. */
#include "rpc/rpc_internal.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/wait_hook.h"
#include "base/lock.h"

#define SLOT_BITS 20
#define SLOT_MAX (1u << SLOT_BITS)

struct waiter {
    sem_t done; /* posted once; a condition would wake the waiter into a mutex still held */
    int code;
    struct message msg;
    struct buf *payload;
};

/* ---- the table, under the connection's lock ---- */

static int table_grow(struct calls *cs)
{
    uint32_t n = cs->nslots ? cs->nslots * 2 : 16;

    if (n > SLOT_MAX)
        return -ERR_BUSY;
    struct call **slots = realloc(cs->slots, n * sizeof(struct call *));
    uint32_t *free_slots = realloc(cs->free_slots, n * sizeof(*free_slots));
    if (!slots || !free_slots)
        abort();
    cs->slots = slots;
    cs->free_slots = free_slots;
    for (uint32_t i = n; i-- > cs->nslots;) {
        slots[i] = NULL;
        free_slots[cs->nfree++] = i;
    }
    cs->nslots = n;
    return 0;
}

static int table_add(struct calls *cs, struct call *k)
{
    if (cs->nfree == 0) {
        int rc = table_grow(cs);
        if (rc < 0)
            return rc;
    }
    uint32_t slot = cs->free_slots[--cs->nfree];
    assert(!cs->slots[slot]);
    cs->slots[slot] = k;
    k->id = ++cs->seq << SLOT_BITS | slot;
    return 0;
}

static struct call *table_find(const struct calls *cs, uint64_t id)
{
    uint32_t slot = (uint32_t)(id & (SLOT_MAX - 1));
    struct call *k = slot < cs->nslots ? cs->slots[slot] : NULL;

    return k && k->id == id ? k : NULL;
}

static void table_remove(struct calls *cs, struct call *k)
{
    uint32_t slot = (uint32_t)(k->id & (SLOT_MAX - 1));

    assert(cs->slots[slot] == k);
    cs->slots[slot] = NULL;
    cs->free_slots[cs->nfree++] = slot;
    timers_clear(&cs->deadlines, &k->timer);
}

void calls_free(struct calls *cs)
{
    assert(cs->nfree == cs->nslots);
    free(cs->slots);
    free(cs->free_slots);
    timers_free(&cs->deadlines);
}

bool call_exists_locked(const struct rpc_conn *c, uint64_t id)
{
    lock_assert_held(&c->mu);
    return table_find(&c->calls, id) != NULL;
}

struct call *calls_take_due_locked(struct rpc_conn *c, int64_t now)
{
    struct call *list = NULL, **last = &list;
    struct timer *t;

    lock_assert_held(&c->mu);
    while ((t = timers_first(&c->calls.deadlines)) && t->when <= now) {
        struct call *k = (struct call *)t; /* first member */
        table_remove(&c->calls, k);
        k->next = NULL;
        *last = k;
        last = &k->next;
    }
    return list;
}

/* ---- ending ---- */

static void waiter_wake(struct waiter *w, int code, struct message *msg, struct buf *payload)
{
    w->code = code;
    if (msg)
        w->msg = *msg;
    w->payload = payload;
    sem_post(&w->done); /* the waiter may return now, and w is gone */
}

/* Frees k and tells its owner. Takes msg (may be NULL) and payload. */
static void call_end(struct call *k, int code, struct message *msg, struct buf *payload)
{
    if (k->waiter) {
        waiter_wake(k->waiter, code, msg, payload);
    } else {
        k->done(k->arg, code, msg ? msg->env : NULL, payload);
        if (msg)
            message_free(msg);
        buf_unref(payload);
    }
    free(k);
}

void call_end_list(struct call *list, int code)
{
    while (list) {
        struct call *k = list;
        list = k->next;
        call_end(k, code, NULL, NULL);
    }
}

static int reply_code(const Replfs__Envelope *env)
{
    if (env->body_case != REPLFS__ENVELOPE__BODY_FAILURE)
        return 0;
    uint32_t code = env->failure->code;
    return code > 0 && code <= INT32_MAX ? -(int)code : -ERR_PROTOCOL;
}

void call_reply(struct rpc_conn *c, struct message *msg, struct buf *payload)
{
    struct call *k = NULL;

    lock_acquire(&c->mu);
    if (c->outstanding == 0) {
        conn_die_locked(c, -ERR_PROTOCOL, "%s: sent a reply to no request", c->target);
    } else {
        c->outstanding--;
        k = table_find(&c->calls, msg->env->id);
        if (k)
            table_remove(&c->calls, k);
        if (c->backlog.first)
            conn_release_backlog_locked(c);
    }
    lock_release(&c->mu);
    if (k) {
        call_end(k, reply_code(msg->env), msg, payload);
        return;
    }
    message_free(msg); /* too late: the caller has been told ERR_TIMEOUT */
    buf_unref(payload);
}

/* ---- calling ---- */

static void call_start(struct rpc_conn *c, Replfs__Envelope *req, struct buf *payload,
                       unsigned timeout_ms, struct call *k)
{
    int64_t deadline = clock_mono() + timeout_ms * NSEC_PER_MSEC;
    int rc;

    req->is_reply = false;
    req->deadline_ms = timeout_ms;
    if (!req->trace)
        req->trace = trace_new();
    lock_acquire(&c->mu);
    if (c->state >= CONN_LINGER) {
        rc = c->code;
    } else {
        rc = table_add(&c->calls, k);
    }
    if (rc < 0) {
        lock_release(&c->mu);
        buf_unref(payload);
        call_end(k, rc, NULL, NULL);
        return;
    }
    req->id = k->id;
    timers_set(&c->calls.deadlines, &k->timer, deadline);
    rc = conn_send_locked(c, req, payload, k->id);
    if (rc < 0)
        table_remove(&c->calls, k);
    else
        conn_arm_locked(c, deadline);
    conn_watch_locked(c);
    lock_release(&c->mu);
    if (rc < 0)
        call_end(k, rc, NULL, NULL);
}

static struct call *call_new(rpc_done *done, void *arg, struct waiter *w)
{
    struct call *k = calloc(1, sizeof(*k));

    if (!k)
        abort();
    k->done = done;
    k->arg = arg;
    k->waiter = w;
    return k;
}

void rpc_call(struct rpc_conn *c, Replfs__Envelope *req, struct buf *payload, unsigned timeout_ms,
              rpc_done *done, void *arg)
{
    call_start(c, req, payload, timeout_ms, call_new(done, arg, NULL));
}

int rpc_call_wait(struct rpc_conn *c, Replfs__Envelope *req, struct buf *payload,
                  unsigned timeout_ms, struct rpc_result *out)
{
    struct waiter w = {0};

    assert(!worker_any_self()); /* it would wait for itself */
    sem_init(&w.done, 0, 0);
    call_start(c, req, payload, timeout_ms, call_new(NULL, NULL, &w));
    lock_assert_waitable("rpc_call_wait");
    wait_hook_call();
    while (sem_wait(&w.done) && errno == EINTR)
        ;
    sem_destroy(&w.done);
    out->code = w.code;
    out->rep = w.msg.env;
    out->payload = w.payload;
    out->priv = w.msg.arena;
    return out->code;
}

void rpc_result_free(struct rpc_result *r)
{
    struct message m = {r->rep, r->priv};

    message_free(&m);
    buf_unref(r->payload);
    r->rep = NULL;
    r->payload = NULL;
    r->priv = NULL;
}
