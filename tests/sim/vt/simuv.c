/* See simuv.h. A turn of a loop is as libuv's: timers, what is done before waiting (prepare), the wait, which ends with
 * what was posted and with wake-ups (async), what is done after it (check), the ends of closed handles. Everything that
 * a handle needs is kept in its own memory, in libuv's fields; of the loop only `data` is left where it is. */
#include "simuv.h"

#include <stdlib.h>
#include <string.h>

#include "fiber.h"

#define MS 1000000ll
#define ACTIVE 1u
#define CLOSING 2u

struct event {
    struct event *next;
    int64_t at;
    void (*fn)(void *arg);
    void *arg;
};
struct loop { /* lies over a uv_loop_t */
    void *data;
    uv_handle_t *handles; /* by next_closing */
    struct event *events; /* soonest first */
    struct vt_queue idle;
    uint64_t now; /* ms */
    uint64_t timers;
    bool stop;
};
_Static_assert(sizeof(struct loop) <= sizeof(uv_loop_t), "loop");

static struct loop *of(uv_loop_t *l)
{
    return (struct loop *)l;
}

static void handle_init(uv_loop_t *loop, uv_handle_t *h, uv_handle_type type)
{
    struct loop *l = of(loop);
    h->loop = loop;
    h->type = type;
    h->close_cb = NULL;
    h->flags = 0;
    h->next_closing = l->handles;
    l->handles = h;
}

/* ---- time ---- */

void uv_update_time(uv_loop_t *loop)
{
    of(loop)->now = (uint64_t)(vt_clock(vt_proc(), VT_MONO) / MS);
}

uint64_t uv_now(const uv_loop_t *loop)
{
    return ((const struct loop *)loop)->now;
}

int uv_timer_init(uv_loop_t *loop, uv_timer_t *t)
{
    handle_init(loop, (uv_handle_t *)t, UV_TIMER);
    return 0;
}

int uv_timer_start(uv_timer_t *t, uv_timer_cb cb, uint64_t timeout, uint64_t repeat)
{
    if (t->flags & CLOSING)
        return UV_EINVAL;
    t->timer_cb = cb;
    t->timeout = of(t->loop)->now + timeout;
    t->repeat = repeat;
    t->start_id = ++of(t->loop)->timers;
    t->flags |= ACTIVE;
    return 0;
}

int uv_timer_stop(uv_timer_t *t)
{
    t->flags &= ~ACTIVE;
    return 0;
}

static uv_timer_t *next_timer(struct loop *l)
{
    uv_timer_t *best = NULL;
    for (uv_handle_t *h = l->handles; h; h = h->next_closing) {
        uv_timer_t *t = (uv_timer_t *)h;
        if (h->type == UV_TIMER && h->flags == ACTIVE &&
            (!best || t->timeout < best->timeout ||
             (t->timeout == best->timeout && t->start_id < best->start_id)))
            best = t;
    }
    return best;
}

static void run_timers(struct loop *l)
{
    for (uv_timer_t *t; (t = next_timer(l)) && t->timeout <= l->now;) {
        uv_timer_stop(t);
        if (t->repeat)
            uv_timer_start(t, t->timer_cb, t->repeat, t->repeat);
        t->timer_cb(t);
    }
}

/* ---- around the wait ---- */

int uv_check_init(uv_loop_t *loop, uv_check_t *c)
{
    handle_init(loop, (uv_handle_t *)c, UV_CHECK);
    return 0;
}

int uv_check_start(uv_check_t *c, uv_check_cb cb)
{
    c->check_cb = cb;
    c->flags |= ACTIVE;
    return 0;
}

int uv_prepare_init(uv_loop_t *loop, uv_prepare_t *p)
{
    handle_init(loop, (uv_handle_t *)p, UV_PREPARE);
    return 0;
}

int uv_prepare_start(uv_prepare_t *p, uv_prepare_cb cb)
{
    p->prepare_cb = cb;
    p->flags |= ACTIVE;
    return 0;
}

int uv_async_init(uv_loop_t *loop, uv_async_t *a, uv_async_cb cb)
{
    handle_init(loop, (uv_handle_t *)a, UV_ASYNC);
    a->async_cb = cb;
    a->pending = 0;
    a->flags = ACTIVE;
    return 0;
}

int uv_async_send(uv_async_t *a)
{
    a->pending = 1; /* a closed one hears nothing, as with libuv, whose manual forbids it */
    vt_wake_all(&of(a->loop)->idle);
    return 0;
}

static void run_all(struct loop *l, uv_handle_type type)
{
    for (uv_handle_t *h = l->handles; h; h = h->next_closing) {
        if (h->type != type || h->flags != ACTIVE)
            continue;
        if (type == UV_CHECK)
            ((uv_check_t *)h)->check_cb((uv_check_t *)h);
        else
            ((uv_prepare_t *)h)->prepare_cb((uv_prepare_t *)h);
    }
}

static bool woken(const struct loop *l)
{
    for (const uv_handle_t *h = l->handles; h; h = h->next_closing)
        if (h->type == UV_ASYNC && h->flags == ACTIVE && ((const uv_async_t *)h)->pending)
            return true;
    return false;
}

static void run_wakes(struct loop *l)
{
    for (uv_handle_t *h = l->handles; h; h = h->next_closing) {
        uv_async_t *a = (uv_async_t *)h;
        if (h->type != UV_ASYNC || h->flags != ACTIVE || !a->pending)
            continue;
        a->pending = 0;
        a->async_cb(a);
    }
}

/* ---- what was posted ---- */

void simuv_post(uv_loop_t *loop, int64_t at, void (*fn)(void *arg), void *arg)
{
    struct event *e = malloc(sizeof(*e)), **p = &of(loop)->events;
    if (!e)
        abort();
    while (*p && (*p)->at <= at)
        p = &(*p)->next;
    *e = (struct event){*p, at, fn, arg};
    *p = e;
    vt_wake_all(&of(loop)->idle);
}

static void run_events(struct loop *l)
{
    while (l->events && l->events->at <= vt_now()) {
        struct event e = *l->events;
        free(l->events);
        l->events = e.next;
        e.fn(e.arg);
    }
}

/* ---- the loop ---- */

int uv_loop_init(uv_loop_t *loop)
{
    memset(loop, 0, sizeof(*loop));
    uv_update_time(loop);
    return 0;
}

int uv_loop_close(uv_loop_t *loop)
{
    return of(loop)->handles ? UV_EBUSY : 0;
}

void uv_stop(uv_loop_t *loop)
{
    of(loop)->stop = true;
}

void uv_close(uv_handle_t *h, uv_close_cb cb)
{
    if (h->flags & CLOSING)
        vt_fail("a handle is closed twice");
    h->flags = CLOSING;
    h->close_cb = cb;
}

static bool any_closing(const struct loop *l)
{
    for (const uv_handle_t *h = l->handles; h; h = h->next_closing)
        if (h->flags & CLOSING)
            return true;
    return false;
}

static void end_closed(struct loop *l)
{
    for (uv_handle_t **p = &l->handles; *p;) {
        uv_handle_t *h = *p;
        if (!(h->flags & CLOSING)) {
            p = &h->next_closing;
            continue;
        }
        *p = h->next_closing;
        if (h->close_cb)
            h->close_cb(h);
        p = &l->handles; /* it may have changed anything */
    }
}

static bool alive(const struct loop *l)
{
    for (const uv_handle_t *h = l->handles; h; h = h->next_closing)
        if (h->flags)
            return true;
    return l->events != NULL;
}

static void wait_for_something(struct loop *l)
{
    uv_timer_t *t = next_timer(l);
    int64_t until = l->events ? l->events->at : INT64_MAX;
    if (t) {
        int64_t due = vt_from_clock(vt_proc(), VT_MONO, (int64_t)t->timeout * MS);
        if (due <= vt_now() && t->timeout > l->now) /* its clock is not quite there */
            due = vt_now() + MS / 10;
        until = due < until ? due : until;
    }
    if (!woken(l) && !any_closing(l) && !l->stop && until > vt_now())
        vt_wait(&l->idle, until, "the loop's next event");
}

int uv_run(uv_loop_t *loop, uv_run_mode mode)
{
    struct loop *l = of(loop);
    (void)mode;
    while (alive(l) && !l->stop) {
        uv_update_time(loop);
        run_timers(l);
        run_all(l, UV_PREPARE);
        wait_for_something(l);
        uv_update_time(loop);
        run_events(l);
        run_wakes(l);
        run_all(l, UV_CHECK);
        end_closed(l);
    }
    l->stop = false;
    return alive(l);
}
