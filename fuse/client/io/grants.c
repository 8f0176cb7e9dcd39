/* Chunks that metad granted to this session and that no file uses yet, per goal, so that
 * starting a file costs no round trip.
 *
 * The grants thread keeps each pool that was ever asked for at its wanted size, which grows when
 * takers find it empty and is bounded. A pooled chunk is dropped when a chunkd of its placement
 * failed a write lately or its capability is about to expire. Takers never wait: a file that
 * found nothing is put on the waiting list and pumped (send_pump) after the next refill, or told
 * the error when that is final (ENOSPC, EDQUOT, ...).
 *
 * Every chunk held, pooled or in use, is on one list in order of id; ids that metad hands to a
 * session only grow, so its head is what the keepalive reports as the oldest grant: what is
 * older and unknown to metad is garbage. Failure modes: metad away or too few chunkds: retried
 * every FEW_RETRY_MS; files give up by their own clock. */
#include "client/io/grants.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/lock.h"
#include "rpc/cap.h"
#include "client/base/limits.h"
#include "client/file/cfile.h"
#include "client/file/chunk_loc.h"
#include "client/file/wchunk.h"
#include "client/internal.h"
#include "client/io/chunkds.h"
#include "client/session/ask.h"
#include "client/session/session.h"

#define LOG_MODULE "grants"
#define FEW_RETRY_MS 200 /* too few chunkds: ask again */
#define POOL_MIN 4u
#define POOL_MAX 64u
#define EXPIRY_MARGIN (30 * NSEC_PER_SEC)

/* By our own clock, since metad's may be hours away; asked: before metad was. */
static int64_t cap_end(const Replfs__GrantReply *r, int64_t asked)
{
    return asked + (int64_t)(r->cap_life_s ? r->cap_life_s : CAP_LIFE_S) * NSEC_PER_SEC;
}

/* ---- everything held ---- */

uint64_t grants_oldest(struct client *c)
{
    lock_acquire(&c->grants.mu);
    uint64_t id = c->grants.oldest    ? c->grants.oldest->loc.chunk
                  : c->grants.last_id ? c->grants.last_id + 1
                                      : 0;
    lock_release(&c->grants.mu);
    return id;
}

size_t grants_held(struct client *c, uint64_t *out, size_t max, uint64_t *newest)
{
    size_t n = 0;
    lock_acquire(&c->grants.mu);
    const struct wchunk *wc = c->grants.oldest;
    for (; wc && n < max; wc = wc->next)
        out[n++] = wc->loc.chunk;
    *newest = wc ? 0 : c->grants.last_id; /* too many to name */
    lock_release(&c->grants.mu);
    return *newest ? n : 0;
}

/* ---- taking ---- */

/* One that was put on too few hosts because others were away goes when they are back. */
static bool still_good(struct client *c, const struct wchunk *wc)
{
    return wc->expiry > clock_boot() + EXPIRY_MARGIN && chunkds_usable(c, &wc->loc) &&
           !chunkds_better(c, &wc->loc, wc->epoch, wc->goal);
}

static void wait_listed(struct client *c, struct cfile *f)
{
    if (f->jobs & JOB_GRANT)
        return;
    if (c->grants.nwaiting == c->grants.cap_waiting) {
        c->grants.cap_waiting = c->grants.cap_waiting ? c->grants.cap_waiting * 2 : 16;
        c->grants.waiting =
            realloc(c->grants.waiting, c->grants.cap_waiting * sizeof(*c->grants.waiting));
        if (!c->grants.waiting)
            abort();
    }
    cfile_ref(f);
    f->jobs |= JOB_GRANT;
    c->grants.waiting[c->grants.nwaiting++] = f;
}

static unsigned goal_of(unsigned asked)
{
    return asked < 1 ? 1 : asked > COPIES_MAX ? COPIES_MAX : asked;
}

struct wchunk *grants_take(struct client *c, struct cfile *f, unsigned goal)
{
    goal = goal_of(goal);
    struct grants_pool *p = &c->grants.pools[goal];
    struct wchunk *out = NULL;
    lock_acquire(&c->grants.mu);
    while (p->n && !out) {
        struct wchunk *wc = p->items[0];
        memmove(p->items, p->items + 1, --p->n * sizeof(*p->items));
        /* chunkds.mu is a leaf like grants.mu: look without holding both. */
        lock_release(&c->grants.mu);
        bool good = still_good(c, wc);
        lock_acquire(&c->grants.mu);
        if (good) {
            out = wc;
        } else {
            wchunk_drop(c, wc);
        }
    }
    if (!out) {
        if (p->want && p->want < POOL_MAX)
            p->want *= 2;
        if (!p->want)
            p->want = POOL_MIN;
        p->waiting++;
        wait_listed(c, f);
    }
    if (!out || p->n < p->want / 2)
        cond_signal(&c->grants.cv);
    lock_release(&c->grants.mu);
    return out;
}

void grants_drop_all(struct client *c)
{
    lock_acquire(&c->grants.mu);
    for (unsigned g = 1; g <= COPIES_MAX; g++) {
        struct grants_pool *p = &c->grants.pools[g];
        while (p->n) {
            struct wchunk *wc = p->items[--p->n];
            wchunk_drop(c, wc);
        }
    }
    lock_release(&c->grants.mu);
}

void grants_missing(struct client *c, char *out, size_t cap)
{
    lock_acquire(&c->grants.mu);
    snprintf(out, cap, "%s", c->grants.missing);
    lock_release(&c->grants.mu);
}

/* ---- refilling ---- */

static bool all_known(struct client *c, const Replfs__GrantReply *r)
{
    for (size_t i = 0; i < r->n_grants; i++) {
        for (size_t k = 0; k < r->grants[i]->n_chunkds; k++) {
            if (!chunkds_known(c, r->grants[i]->chunkds[k]))
                return false;
        }
    }
    return true;
}

static void note_missing(struct client *c, const Replfs__GrantReply *r)
{
    c->grants.missing[0] = 0;
    size_t at = 0;
    for (size_t i = 0; i < r->n_missing && at < sizeof(c->grants.missing) - 1; i++) {
        int k = snprintf(c->grants.missing + at, sizeof(c->grants.missing) - at, "%s%s",
                         i ? ", " : "", r->missing[i]);
        at += k > 0 ? (size_t)k : 0;
    }
}

/* Puts what metad gave into the pool. 0, or -ERR_FEW_COPIES when nothing usable was among it. */
static int pool_add(struct client *c, unsigned goal, uint64_t session, int64_t asked,
                    const Replfs__GrantReply *r)
{
    unsigned least = session_min_copies(c, goal);
    int rc = -ERR_FEW_COPIES;
    if (session != session_id(c))
        return -ERR_SESSION;
    lock_acquire(&c->grants.mu);
    struct grants_pool *p = &c->grants.pools[goal];
    note_missing(c, r);
    struct wchunk **items = realloc(p->items, (p->n + r->n_grants + 1) * sizeof(*items));
    if (items)
        p->items = items;
    for (size_t i = 0; items && i < r->n_grants; i++) {
        struct wchunk *wc = calloc(1, sizeof(*wc));
        if (!wc || cloc_from(&wc->loc, r->grants[i]) || wc->loc.n < least) {
            free(wc);
            continue;
        }
        wc->session = session;
        wc->goal = goal;
        wc->epoch = r->nodes_epoch;
        wc->loc.len = 0;
        wc->expiry = cap_end(r, asked);
        wchunk_hold(c, wc);
        if (wc->loc.chunk > c->grants.last_id)
            c->grants.last_id = wc->loc.chunk;
        p->items[p->n++] = wc;
        rc = 0;
    }
    lock_release(&c->grants.mu);
    return rc;
}

static int refill(struct client *c, unsigned goal, size_t count)
{
    uint32_t bad[64];
    Replfs__GrantReq m = REPLFS__GRANT_REQ__INIT;
    m.count = (uint32_t)count;
    m.goal = goal;
    m.n_exclude = chunkds_bad(c, bad, 64);
    m.exclude = bad;
    RPC_ENVELOPE(env, GRANT_REQ, grant_req, &m);
    uint64_t session = session_id(c);
    struct rpc_result res;
    int64_t asked = clock_boot();
    int rc = session_ask(c, &env, clock_mono() + 5 * NSEC_PER_SEC, &res);
    if (!rc && res.rep->body_case != REPLFS__ENVELOPE__BODY_GRANT_REPLY)
        rc = -ERR_PROTOCOL;
    if (!rc) {
        const Replfs__GrantReply *r = res.rep->grant_reply;
        chunkds_saw_epoch(c, r->nodes_epoch);
        session_saw(c, session, r->position);
        if (!all_known(c, r))
            chunkds_refresh(c);
        rc = pool_add(c, goal, session, asked, r);
    }
    if (rc && res.rep && res.rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE &&
        res.rep->failure->detail) {
        lock_acquire(&c->grants.mu);
        snprintf(c->grants.missing, sizeof(c->grants.missing), "%s", res.rep->failure->detail);
        lock_release(&c->grants.mu);
    }
    rpc_result_free(&res);
    return rc;
}

static bool final_error(int rc)
{
    return rc == -ENOSPC || rc == -EDQUOT || rc == -EROFS || rc == -EACCES || rc == -EPERM ||
           rc == -EINVAL;
}

/* Wakes the files that wait: to try again, or, those of the goal that cannot be had, to fail for
 * good. */
static void wake_waiting(struct client *c, unsigned goal, int rc)
{
    lock_acquire(&c->grants.mu);
    struct cfile **list = c->grants.waiting;
    size_t n = c->grants.nwaiting;
    c->grants.waiting = NULL;
    c->grants.nwaiting = c->grants.cap_waiting = 0;
    for (unsigned g = 1; g <= COPIES_MAX; g++)
        c->grants.pools[g].waiting = 0;
    lock_release(&c->grants.mu);
    for (size_t i = 0; i < n; i++) {
        struct cfile *f = list[i];
        lock_acquire(&f->mu);
        f->jobs &= ~JOB_GRANT;
        if (final_error(rc) && goal_of(f->attr.goal) == goal)
            c->grants.events->refused(f, rc, "metad grants no chunk");
        else
            c->grants.events->again(f);
        lock_release(&f->mu);
        cfile_unref(f);
    }
    free(list);
}

/* The pool most in need: its goal and how many chunks to ask for; 0 when all are full. */
static unsigned neediest(struct client *c, size_t *count)
{
    unsigned best = 0;
    for (unsigned g = 1; g <= COPIES_MAX; g++) {
        struct grants_pool *p = &c->grants.pools[g];
        if (p->want && (p->waiting || p->n < (p->want + 1) / 2) &&
            (!best || p->waiting > c->grants.pools[best].waiting))
            best = g;
    }
    if (best) {
        struct grants_pool *p = &c->grants.pools[best];
        *count = p->want - (p->n < p->want ? p->n : p->want - 1);
        if (p->waiting > *count)
            *count = p->waiting < 2 * POOL_MAX ? p->waiting : 2 * POOL_MAX;
    }
    return best;
}

static void *grants_thread(void *arg)
{
    struct client *c = arg;
    while (!c->stopping) {
        size_t count = 0;
        lock_acquire(&c->grants.mu);
        unsigned goal = neediest(c, &count);
        if (!goal) {
            cond_wait(&c->grants.cv, &c->grants.mu);
            lock_release(&c->grants.mu);
            continue;
        }
        lock_release(&c->grants.mu);
        int rc = refill(c, goal, count);
        lock_acquire(&c->grants.mu);
        if (rc && rc != c->grants.last_code)
            log_warn("no chunks granted for %u copies: %s%s%s", goal, err_str(rc),
                     c->grants.missing[0] ? "; " : "", c->grants.missing);
        c->grants.last_code = rc;
        if (rc && !final_error(rc) && !c->stopping)
            cond_wait_until(&c->grants.cv, &c->grants.mu,
                            clock_mono() + FEW_RETRY_MS * NSEC_PER_MSEC);
        if (final_error(rc)) /* do not ask again until somebody needs one */
            c->grants.pools[goal].want = 0;
        lock_release(&c->grants.mu);
        if (!rc || final_error(rc))
            wake_waiting(c, goal, rc);
    }
    return NULL;
}

int grants_start(struct client *c)
{
    int rc = thread_start(&c->grants.thread, "grants", grants_thread, c);
    c->grants.started = !rc;
    return -rc;
}

void grants_stop(struct client *c)
{
    if (c->grants.started) {
        lock_acquire(&c->grants.mu);
        c->stopping = true;
        cond_broadcast(&c->grants.cv);
        lock_release(&c->grants.mu);
        pthread_join(c->grants.thread, NULL);
    }
    for (size_t i = 0; i < c->grants.nwaiting; i++)
        cfile_unref(c->grants.waiting[i]);
    c->grants.nwaiting = 0;
    free(c->grants.waiting);
    c->grants.waiting = NULL;
    grants_drop_all(c);
    for (unsigned g = 1; g <= COPIES_MAX; g++) {
        free(c->grants.pools[g].items);
        c->grants.pools[g] = (struct grants_pool){0};
    }
}
