/* Sessions, open files and orphans of the leader.
 *
 * A session lives as long as something is heard of it: each request and keepalive renews its lease.
 * One that is silent for lease_ms lapses, through the log (SessionCloseOp.lapse), after which none of
 * its commands is accepted: here it is gone. It may come back within keep_ms; then it is closed for
 * good. Sessions found in the fsm at start have one lease to come back (they
 * cannot know that the clock started anew); a pause of this very process is added to every lease.
 *
 * An inode whose last name goes becomes an orphan. It is reaped (ReapOp, up to 1000 at a time) once
 * no session has it open. After a start nobody's open files are known yet, so reaping waits until
 * every session has come back or been closed, at most two leases.
 *
 * A file made with O_TMPFILE is an orphan from the beginning, open by the session that made it; when
 * it gets a name it is struck off the list.
 *
 * Race: an open that arrives while the ReapOp for its inode is under way. sessions_file_add looks at the
 * batch under the same mutex that filled it, so the open is refused (-ESTALE) or the inode was not
 * in the batch.
 *
 * Structures: a hash of (ino -> references), each reference also in its session's list. Everything
 * under o->lock. Nothing is proposed while it is held, since an answer may come on the log thread
 * with the fsm lock. */
#include "sessions.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/hash_table.h"
#include "base/thread.h"
#include "base/lock.h"

#define LOG_MODULE "sessions"
#define REAP_MAX 1000u
#define ORPHANS_LOOK 16384u
#define WORK_STEPS 4096u /* extents, a millisecond or so of others' waiting */
#define WORK_SLICES 50u
#define EXPIRE_MAX 64u
#define OVER_LOOK_NS (60 * NSEC_PER_SEC)
#define PAUSE_NS NSEC_PER_SEC /* a longer gap between two looks was our own standstill */

struct ref {
    uint64_t ino;
    struct session *session;
    struct hash_link link;
    struct ref *next, **prev; /* in the session's list */
};
struct session {
    struct hash_link link;
    uint64_t id;
    int64_t last;  /* clock_mono of the last sign of life */
    bool resumed;  /* came back, or began, under this leader */
    bool closing;  /* its SessionCloseOp is under way */
    uint8_t holds; /* what it may have held before this start */
    uint64_t peer; /* who began it under this leader, 0: unknown */
    struct ref *refs;
};
struct sessions {
    struct sessions_config cfg;
    uint64_t leading; /* the leadership that this is of */
    struct lock mu;
    struct cond cond;
    pthread_t thread;
    bool running, stop;
    struct hash_table sessions;           /* struct session by id */
    size_t missing;                       /* sessions that have not come back yet */
    size_t missing_leases, missing_locks; /* of them, those that may hold such */
    struct hash_table refs; /* struct ref by inode: one for each session that has it open */
    uint64_t *orphans;      /* to be reaped when nobody has them open */
    size_t norphans, orphans_cap;
    size_t orphans_at;        /* where to look next */
    uint64_t batch[REAP_MAX]; /* being reaped */
    size_t nbatch;
    void (*on_close)(void *arg, uint64_t session);
    void *on_close_arg;
    uint64_t expired[EXPIRE_MAX];
    size_t nexpired;
    uint64_t over[EXPIRE_MAX]; /* that lapsed long ago and are being closed */
    int64_t over_look;         /* mono */
    uint64_t *ended;           /* closed sessions that watchers are to hear of */
    const uint64_t *told;      /* that they are being told of */
    size_t nended, ended_cap, ntold;
    uint64_t *reaped;
    size_t nreaped, reaped_cap;
    struct sessions_watcher watchers[SESSIONS_WATCHERS];
    unsigned nwatchers;
    int64_t started, looked;
    int64_t lease, lease_was; /* ns; lease_was: before it was changed, 0: long ago */
    int64_t lease_changed;
};

/* ---- sessions and references, lock held ---- */

static int64_t setting_ns(const struct sessions *o, enum setting_key s)
{
    return (int64_t)fsm_setting(o->cfg.fsm, s) * NSEC_PER_MSEC;
}

static int64_t lease_ns(const struct sessions *o)
{
    lock_assert_held(&o->mu);
    return o->lease > o->lease_was ? o->lease : o->lease_was;
}

/* A shorter lease counts once everybody has had the time to hear of it: the former one. Lock held. */
static void see_lease(struct sessions *o, int64_t now)
{
    int64_t lease = setting_ns(o, SETTING_SESSION_LEASE);

    if (lease != o->lease) {
        o->lease_was = lease_ns(o);
        o->lease_changed = now;
        o->lease = lease;
    }
    if (now - o->lease_changed > o->lease_was)
        o->lease_was = 0;
}

static struct session *session_find(const struct sessions *o, uint64_t id)
{
    lock_assert_held(&o->mu);
    return HASH_ENTRY(hash_table_find(&o->sessions, id), struct session, link);
}

/* by: 1 or -1 */
static void count_missing(struct sessions *o, const struct session *s, int by)
{
    lock_assert_held(&o->mu);
    o->missing += (size_t)by;
    o->missing_leases += s->holds & FSM_HOLDS_LEASES ? (size_t)by : 0;
    o->missing_locks += s->holds & FSM_HOLDS_LOCKS ? (size_t)by : 0;
}

static struct session *session_make(struct sessions *o, uint64_t id, bool resumed, unsigned holds)
{
    struct session *s = session_find(o, id);

    lock_assert_held(&o->mu);
    if (!s) {
        s = calloc(1, sizeof(*s));
        if (!s)
            abort();
        s->id = id;
        hash_table_add(&o->sessions, &s->link);
        s->resumed = resumed;
        s->holds = (uint8_t)holds;
        if (!resumed)
            count_missing(o, s, 1);
    }
    s->last = clock_mono();
    return s;
}

/* A reference to this inode, of this session or (but_not) of any other; NULL: none. */
static struct ref *ref_find(const struct sessions *o, uint64_t ino, uint64_t session, bool but_not)
{
    struct hash_link *l = hash_table_find(&o->refs, ino);

    lock_assert_held(&o->mu);
    while (l && (HASH_ENTRY(l, struct ref, link)->session->id == session) == but_not)
        l = hash_table_next_same(&o->refs, l);
    return HASH_ENTRY(l, struct ref, link);
}

static bool is_open(const struct sessions *o, uint64_t ino)
{
    lock_assert_held(&o->mu);
    return hash_table_find(&o->refs, ino) != NULL;
}

static void ref_add(struct sessions *o, struct session *s, uint64_t ino)
{
    lock_assert_held(&o->mu);
    if (ref_find(o, ino, s->id, false))
        return;
    struct ref *r = malloc(sizeof(*r));
    if (!r)
        abort();
    *r = (struct ref){.ino = ino, .session = s, .next = s->refs, .prev = &s->refs};
    hash_table_add(&o->refs, &r->link);
    if (s->refs)
        s->refs->prev = &r->next;
    s->refs = r;
}

static void ref_remove(struct sessions *o, struct ref *r)
{
    lock_assert_held(&o->mu);
    hash_table_remove(&o->refs, &r->link);
    *r->prev = r->next;
    if (r->next)
        r->next->prev = r->prev;
    free(r);
}

static void drop_refs(struct sessions *o, struct session *s)
{
    lock_assert_held(&o->mu);
    while (s->refs)
        ref_remove(o, s->refs);
}

static void resumed(struct sessions *o, struct session *s)
{
    lock_assert_held(&o->mu);
    if (!s->resumed)
        count_missing(o, s, -1);
    s->resumed = true;
}

static void push(uint64_t **v, size_t *n, size_t *cap, uint64_t id)
{
    if (*n == *cap) {
        *cap = *cap == 0 ? 256 : *cap * 2;
        *v = realloc(*v, *cap * sizeof(**v));
        if (!*v)
            abort();
    }
    (*v)[(*n)++] = id;
}

static void add_orphan(struct sessions *o, uint64_t ino)
{
    lock_assert_held(&o->mu);
    push(&o->orphans, &o->norphans, &o->orphans_cap, ino);
}

/* ---- what others call ---- */

/* Sessions begin seldom: a walk is cheaper than a table of peers. Lock held. */
static int session_begin(struct sessions *o, uint64_t session, uint64_t peer)
{
    unsigned n = 0;

    HASH_TABLE_EACH (&o->sessions, p)
        n += HASH_ENTRY(p, struct session, link)->peer == peer;
    if (n < SESSIONS_PER_PEER) {
        struct session *s = session_make(o, session, true, 0);
        s->peer = peer;
        s->closing = true; /* not there yet */
    }
    return n < SESSIONS_PER_PEER ? 0 : -EDQUOT;
}

int sessions_begin(struct sessions *o, uint64_t session, uint64_t peer)
{
    lock_acquire(&o->mu);
    int rc = session_begin(o, session, peer);
    lock_release(&o->mu);
    return rc;
}

static bool is_in(const uint64_t *v, size_t n, uint64_t id)
{
    size_t i = 0;

    while (i < n && v[i] != id)
        i++;
    return i < n;
}

int sessions_return(struct sessions *o, uint64_t session, uint64_t peer)
{
    lock_acquire(&o->mu);
    bool early = session_find(o, session) || is_in(o->ended, o->nended, session) ||
                 is_in(o->told, o->ntold, session);
    int rc = early ? -ERR_BUSY : session_begin(o, session, peer);
    lock_release(&o->mu);
    return rc;
}

void sessions_add(struct sessions *o, uint64_t session)
{
    lock_acquire(&o->mu);
    struct session *s = session_make(o, session, true, 0);
    s->closing = false;
    resumed(o, s);
    lock_release(&o->mu);
}

void sessions_none(struct sessions *o, uint64_t session)
{
    lock_acquire(&o->mu);
    struct session *s = session_find(o, session);
    if (s && s->closing && !s->refs) {
        hash_table_remove(&o->sessions, &s->link);
        free(s);
    }
    lock_release(&o->mu);
}

static struct session *find_alive(struct sessions *o, uint64_t session)
{
    struct session *s = session_find(o, session);

    if (!s || s->closing)
        return NULL;
    s->last = clock_mono();
    return s;
}

int sessions_touch(struct sessions *o, uint64_t session)
{
    lock_acquire(&o->mu);
    int rc = find_alive(o, session) ? 0 : -ERR_SESSION;
    lock_release(&o->mu);
    return rc;
}

int sessions_resume(struct sessions *o, uint64_t session, const uint64_t *inos, size_t n)
{
    lock_acquire(&o->mu);
    struct session *s = find_alive(o, session);
    if (s) {
        drop_refs(o, s);
        for (size_t i = 0; i < n; i++)
            ref_add(o, s, inos[i]);
        resumed(o, s);
    }
    lock_release(&o->mu);
    return s ? 0 : -ERR_SESSION;
}

int sessions_file_add(struct sessions *o, uint64_t session, uint64_t ino)
{
    int rc = 0;

    lock_acquire(&o->mu);
    struct session *s = find_alive(o, session);
    if (!s)
        rc = -ERR_SESSION;
    for (size_t i = 0; rc == 0 && i < o->nbatch; i++)
        if (o->batch[i] == ino)
            rc = -ESTALE;
    if (rc == 0)
        ref_add(o, s, ino);
    lock_release(&o->mu);
    return rc;
}

void sessions_file_del(struct sessions *o, uint64_t session, uint64_t ino)
{
    lock_acquire(&o->mu);
    struct session *s = find_alive(o, session);
    struct ref *r = s ? ref_find(o, ino, session, false) : NULL;
    if (r)
        ref_remove(o, r);
    lock_release(&o->mu);
}

bool sessions_is_open(struct sessions *o, uint64_t ino)
{
    lock_acquire(&o->mu);
    bool open = is_open(o, ino);
    lock_release(&o->mu);
    return open;
}

bool sessions_elsewhere(struct sessions *o, uint64_t session, uint64_t ino)
{
    lock_acquire(&o->mu);
    bool open = ref_find(o, ino, session, true) != NULL;
    lock_release(&o->mu);
    return open;
}

void sessions_orphaned(void *arg, uint64_t ino, uint64_t opener)
{
    struct sessions *o = arg;

    lock_acquire(&o->mu);
    struct session *s = opener ? session_find(o, opener) : NULL;
    if (s)
        ref_add(o, s, ino); /* in one step with the next, lest it be reaped at once */
    add_orphan(o, ino);
    lock_release(&o->mu);
}

void sessions_adopted(void *arg, uint64_t ino)
{
    struct sessions *o = arg;

    lock_acquire(&o->mu);
    for (size_t i = o->norphans; i-- > 0;)
        if (o->orphans[i] == ino) {
            o->orphans[i] = o->orphans[--o->norphans];
            break;
        }
    lock_release(&o->mu);
}

void sessions_closed(void *arg, uint64_t session)
{
    struct sessions *o = arg;

    lock_acquire(&o->mu);
    struct session *s = session_find(o, session);
    if (s) {
        drop_refs(o, s);
        resumed(o, s);
        hash_table_remove(&o->sessions, &s->link);
        free(s);
    }
    push(&o->ended, &o->nended, &o->ended_cap, session);
    cond_signal(&o->cond);
    if (o->on_close)
        o->on_close(o->on_close_arg, session);
    lock_release(&o->mu);
}

void sessions_on_close(struct sessions *o, void (*fn)(void *arg, uint64_t session), void *arg)
{
    lock_acquire(&o->mu);
    o->on_close = fn;
    o->on_close_arg = arg;
    lock_release(&o->mu);
}

uint32_t sessions_silent_ms(struct sessions *o, uint64_t session)
{
    lock_acquire(&o->mu);
    const struct session *s = session_find(o, session);
    int64_t ms = !s ? UINT32_MAX : (clock_mono() - s->last) / NSEC_PER_MSEC;
    lock_release(&o->mu);
    return ms < 0 ? 0 : ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

bool sessions_is_missing(struct sessions *o, uint64_t session)
{
    lock_acquire(&o->mu);
    const struct session *s = session_find(o, session);
    bool missing = s && !s->resumed;
    lock_release(&o->mu);
    return missing;
}

static bool sessions_settled(const struct sessions *o, int64_t now)
{
    return o->missing == 0 || now - o->started >= 2 * lease_ns(o);
}

size_t sessions_awaited(struct sessions *o, unsigned holds)
{
    lock_acquire(&o->mu);
    size_t n = holds == FSM_HOLDS_LEASES ? o->missing_leases : o->missing_locks;
    if (sessions_settled(o, clock_mono()))
        n = 0;
    lock_release(&o->mu);
    return n;
}

void sessions_expire(struct sessions *o, uint64_t session)
{
    lock_acquire(&o->mu);
    struct session *s = session_find(o, session);
    if (s)
        s->last = clock_mono() - lease_ns(o) - 1;
    cond_signal(&o->cond);
    lock_release(&o->mu);
}

void sessions_watch(struct sessions *o, const struct sessions_watcher *w)
{
    assert(!o->running && o->nwatchers < SESSIONS_WATCHERS);
    o->watchers[o->nwatchers++] = *w;
}

/* ---- the thread ---- */

static void closed_applied(void *arg, int code, const struct fsm_result *res)
{
    struct sessions *o = arg;

    lock_acquire(&o->mu);
    if (code != 0 || res->code != 0) /* not closed: look again */
        for (size_t i = 0; i < o->nexpired; i++) {
            struct session *s = session_find(o, o->expired[i]);
            if (s)
                s->closing = false;
        }
    o->nexpired = 0;
    if (o->stop)
        cond_signal(&o->cond);
    lock_release(&o->mu);
}

/* some_left: of large files a part may still be there, to be reaped by further commands. The fsm's
 * write lock is held. */
static void reaped_one(struct sessions *o, uint64_t ino, bool some_left)
{
    Replfs__Attr attr = REPLFS__ATTR__INIT;

    if (some_left && fsm_getattr(o->cfg.fsm, ino, &attr) == 0 && attr.nlink == 0)
        add_orphan(o, ino);
    else
        push(&o->reaped, &o->nreaped, &o->reaped_cap, ino);
}

static void reap_applied(void *arg, int code, const struct fsm_result *res)
{
    struct sessions *o = arg;

    lock_acquire(&o->mu);
    if (code != 0 || res->code != 0)
        for (size_t i = 0; i < o->nbatch; i++)
            add_orphan(o, o->batch[i]);
    else
        for (size_t i = 0; i < o->nbatch; i++)
            reaped_one(o, o->batch[i], res->value > 0);
    if (o->nreaped > 0 || o->norphans > 0 || o->stop)
        cond_signal(&o->cond); /* more is waiting: do not wait for the next look */
    o->nbatch = 0;
    lock_release(&o->mu);
}

/* Fills `expired` with silent sessions. Lock held. */
static bool collect_expired(struct sessions *o, int64_t now)
{
    if (o->nexpired > 0)
        return false;
    see_lease(o, now);
    HASH_TABLE_EACH (&o->sessions, p) {
        struct session *s = HASH_ENTRY(p, struct session, link);
        if (!s->closing && now - s->last > lease_ns(o) && o->nexpired < EXPIRE_MAX) {
            s->closing = true;
            o->expired[o->nexpired++] = s->id;
        }
    }
    return o->nexpired > 0;
}

/* Those whose client has not come back. */
static void end_over(struct sessions *o, int64_t now)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__SessionCloseOp close_op = REPLFS__SESSION_CLOSE_OP__INIT;
    int64_t keep = setting_ns(o, SETTING_SESSION_KEEP);

    if (now < o->over_look)
        return;
    o->over_look = now + (keep / 8 < OVER_LOOK_NS ? keep / 8 : OVER_LOOK_NS);
    fsm_rdlock(o->cfg.fsm);
    close_op.n_session = fsm_lapsed_before(o->cfg.fsm, clock_wall() - keep, o->over, EXPIRE_MAX);
    fsm_unlock(o->cfg.fsm);
    if (close_op.n_session == 0)
        return;
    close_op.session = o->over;
    close_op.over = true;
    op.op_case = REPLFS__META_OP__OP_SESSION_CLOSE;
    op.session_close = &close_op;
    cmd.op = &op;
    log_info("%zu session(s) lapsed long ago: closing them for good", close_op.n_session);
    mlog_propose_as(o->cfg.mlog, o->leading, &cmd, NULL, NULL, NULL);
}

/* Moves orphans that nobody has open into `batch`. Looks at no more than ORPHANS_LOOK of them, and
 * goes on from there the next time: requests wait for the lock. Lock held. */
static bool collect_orphans(struct sessions *o, int64_t now)
{
    if (o->nbatch > 0 || !sessions_settled(o, now))
        return false;
    size_t look = o->norphans < ORPHANS_LOOK ? o->norphans : ORPHANS_LOOK;
    for (; look > 0 && o->nbatch < REAP_MAX; look--) {
        if (o->orphans_at >= o->norphans)
            o->orphans_at = 0;
        uint64_t *at = &o->orphans[o->orphans_at];
        if (is_open(o, *at)) {
            o->orphans_at++;
            continue;
        }
        o->batch[o->nbatch++] = *at;
        *at = o->orphans[--o->norphans];
    }
    return o->nbatch > 0;
}

/* A stopped and continued process must not blame its sessions. Lock held. */
static void forgive_pause(struct sessions *o, int64_t now)
{
    int64_t gap = now - o->looked - (int64_t)o->cfg.tick_ms * NSEC_PER_MSEC;

    o->looked = now;
    if (gap < PAUSE_NS)
        return;
    o->started += gap;
    HASH_TABLE_EACH (&o->sessions, p)
        HASH_ENTRY(p, struct session, link)->last += gap;
}

static void propose_close(struct sessions *o)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__SessionCloseOp close_op = REPLFS__SESSION_CLOSE_OP__INIT;

    close_op.session = o->expired;
    close_op.n_session = o->nexpired;
    close_op.lapse = true;
    op.op_case = REPLFS__META_OP__OP_SESSION_CLOSE;
    op.session_close = &close_op;
    cmd.op = &op;
    log_info("%zu session(s) silent for %llu ms, or for a lease term while others want what they "
             "hold: they hold nothing any more",
             o->nexpired, (unsigned long long)fsm_setting(o->cfg.fsm, SETTING_SESSION_LEASE));
    mlog_propose_as(o->cfg.mlog, o->leading, &cmd, closed_applied, NULL, o);
}

static void propose_reap(struct sessions *o)
{
    Replfs__Command cmd = REPLFS__COMMAND__INIT;
    Replfs__MetaOp op = REPLFS__META_OP__INIT;
    Replfs__ReapOp reap = REPLFS__REAP_OP__INIT;

    reap.ino = o->batch;
    reap.n_ino = o->nbatch;
    op.op_case = REPLFS__META_OP__OP_REAP;
    op.reap = &reap;
    cmd.op = &op;
    mlog_propose_as(o->cfg.mlog, o->leading, &cmd, reap_applied, NULL, o);
}

/* Lock held, dropped while they are told. */
static void tell_watchers(struct sessions *o)
{
    uint64_t *ended = o->ended, *reaped = o->reaped;
    size_t n = o->nended, nreaped = o->nreaped;

    o->ended = NULL;
    o->nended = o->ended_cap = 0;
    o->reaped = NULL;
    o->nreaped = o->reaped_cap = 0;
    o->told = ended;
    o->ntold = n;
    lock_release(&o->mu);
    for (unsigned k = 0; k < o->nwatchers; k++) {
        const struct sessions_watcher *w = &o->watchers[k];
        for (size_t i = 0; w->closed && i < n; i++)
            w->closed(w->arg, ended[i]);
        for (size_t i = 0; w->reaped && i < nreaped; i++)
            w->reaped(w->arg, reaped[i]);
        if (w->tick)
            w->tick(w->arg);
    }
    free(reaped);
    lock_acquire(&o->mu);
    o->told = NULL;
    o->ntold = 0;
    free(ended);
}

/* What commands left to do later, a while of it. No lock held. */
static void work(struct sessions *o)
{
    fsm_rdlock(o->cfg.fsm);
    bool more = fsm_has_work(o->cfg.fsm);
    fsm_unlock(o->cfg.fsm);
    for (unsigned i = 0; more && i < WORK_SLICES; i++) {
        fsm_wrlock(o->cfg.fsm);
        more = fsm_work(o->cfg.fsm, WORK_STEPS);
        fsm_unlock(o->cfg.fsm);
    }
}

static void *thread_main(void *arg)
{
    struct sessions *o = arg;

    lock_acquire(&o->mu);
    o->looked = clock_mono();
    while (!o->stop) {
        int64_t now = clock_mono(), until = now + (int64_t)o->cfg.tick_ms * NSEC_PER_MSEC;
        forgive_pause(o, now);
        bool leads = mlog_leading(o->cfg.mlog) == o->leading;
        bool close_some = leads && collect_expired(o, now);
        bool reap_some = leads && collect_orphans(o, now);
        lock_release(&o->mu);
        /* batch and expired are ours until their answers come, and nobody else writes them */
        if (close_some)
            propose_close(o);
        if (reap_some)
            propose_reap(o);
        if (leads)
            end_over(o, now);
        work(o);
        lock_acquire(&o->mu);
        tell_watchers(o);
        if (!o->stop && o->nended == 0)
            cond_sleep_until(&o->cond, &o->mu, until);
    }
    lock_release(&o->mu);
    return NULL;
}

/* ---- life ---- */

int sessions_new(const struct sessions_config *cfg, struct sessions **out)
{
    struct sessions *o = calloc(1, sizeof(*o));
    const char *name;

    if (!o)
        abort();
    o->cfg = *cfg;
    o->leading = mlog_leading(cfg->mlog);
    fsm_setting_offer(cfg->fsm, SETTING_SESSION_LEASE, cfg->lease_ms);
    fsm_setting_offer(cfg->fsm, SETTING_SESSION_KEEP, (uint64_t)cfg->keep_ms);
    o->lease = o->lease_was = setting_ns(o, SETTING_SESSION_LEASE);
    if (o->cfg.tick_ms == 0)
        o->cfg.tick_ms = 100;
    lock_init(&o->mu, LOCK_SESSIONS);
    cond_init(&o->cond);
    HASH_TABLE_INIT(&o->sessions, 1024, struct session, link, id);
    HASH_TABLE_INIT(&o->refs, 1024, struct ref, link, ino);
    o->started = clock_mono();
    fsm_rdlock(cfg->fsm);
    lock_acquire(&o->mu); /* nobody else knows it yet; what is called asks for it */
    for (uint64_t id = 0; fsm_session_next(cfg->fsm, id, &id, &name);)
        session_make(o, id, false, fsm_session_holds(cfg->fsm, id));
    for (uint64_t ino = 0; fsm_orphan_next(cfg->fsm, ino, &ino);)
        add_orphan(o, ino);
    lock_release(&o->mu);
    fsm_unlock(cfg->fsm);
    *out = o;
    return 0;
}

int sessions_start(struct sessions *o)
{
    int rc = thread_start(&o->thread, "sessions", thread_main, o);

    o->running = rc == 0;
    return -rc;
}

void sessions_stop(struct sessions *o)
{
    lock_acquire(&o->mu);
    o->stop = true;
    cond_signal(&o->cond);
    lock_release(&o->mu);
    if (o->running)
        pthread_join(o->thread, NULL);
    o->running = false;
    lock_acquire(&o->mu);
    while (o->nexpired > 0 || o->nbatch > 0) /* their answers are to come */
        cond_wait(&o->cond, &o->mu);
    lock_release(&o->mu);
}

void sessions_free(struct sessions *o)
{
    if (!o)
        return;
    assert(!o->running);
    lock_acquire(&o->mu);
    HASH_TABLE_EACH (&o->sessions, p) {
        struct session *s = HASH_ENTRY(p, struct session, link);
        drop_refs(o, s);
        free(s);
    }
    lock_release(&o->mu);
    hash_table_free(&o->sessions);
    hash_table_free(&o->refs);
    free(o->orphans);
    free(o->ended);
    free(o->reaped);
    lock_destroy(&o->mu);
    cond_destroy(&o->cond);
    free(o);
}
