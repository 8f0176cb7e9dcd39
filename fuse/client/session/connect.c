/* One connection to metad at a time, to the one that leads. A thread that finds none becomes the connector: it dials
 * the metads side by side, asks each whether it leads, then the one that does to go on with the session (resume.c), takes
 * the first that agrees, closes the rest, and wakes who waits.
 *
 * Each metad that is known (metads.c) has an attempt:
 *
 *   IDLE -> DIALLED -> READY -> PROBED -> READY -> ASKED -> it agreed
 *     ^--------+---------+--------+---------+--------/      failed; tried again after a pause of 50 to 500 ms
 *
 * The one that is thought to lead is dialled first, the others START_NS later, or at once when any attempt failed.
 * A metad that does not lead may say who does: that one is tried next. Its own connection stays, to be probed again. A
 * probe is cheap on both sides and changes nothing: only who leads hears what we hold, and until one does, what is cached
 * here stays. Where one metad is known, it is not probed.
 *
 * Only one is asked to go on at a time, unless it is silent (stopped, cut off) for PATIENCE_NS: a new leader is not
 * waited for behind a dead one. Two addresses of one program (rpc_peer.instance) are never asked side by side: it would
 * know us on the connection that lost.
 *
 * What is said (resume_words) is made once a second, for all. When a metad does not know the session, it is lost,
 * and a new one is asked for, of whomever; answers to what was said before are not waited for.
 *
 * The dial outlives a connector whose deadline has passed: the next one goes on with it. Answers come on loop threads,
 * which only leave them in the attempt (under session.mu) and wake the connector; everything else of a dial is the
 * connector's alone. A call that is still out when its attempt has gone holds the attempt's memory. */
#include "client/session/connect.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/lock.h"
#include "client/internal.h"
#include "client/session/metads.h"
#include "client/session/resume.h"
#include "client/session/session.h"
#include "rpc/copy.h"

#define LOG_MODULE "session"
#define SOON_NS (3 * NSEC_PER_SEC)    /* then it is told that it takes long */
#define START_NS (50 * NSEC_PER_MSEC) /* between the first attempt and the others */
#define PATIENCE_NS (300 * NSEC_PER_MSEC)
#define ANSWER_MS 4000u /* of a dial, or of the question */
#define PAUSE_MIN_MS 50u
#define PAUSE_SHORT_MS 100u /* at most, while an election may be under way: */
#define ELECTION_NS (3 * NSEC_PER_SEC)
#define PAUSE_MAX_MS 500u
#define REFUSED_MS 10000u /* an address that cannot even be dialled */
#define ALIAS_MS 1000u
#define WORDS_NS NSEC_PER_SEC
#define LOOK_NS (200 * NSEC_PER_MSEC) /* for a stop of the client */

enum stage { IDLE, DIALLED, READY, PROBED, ASKED };
struct attempt {
    char addr[METAD_ADDR];
    enum stage stage;
    struct rpc_conn *conn;
    uint64_t instance;
    bool leads;   /* so it said just now */
    int64_t at;   /* IDLE, READY: not before; ASKED: since (mono) */
    int64_t sent; /* of the question, boot clock */
    struct resume_words *words;
    unsigned pause_ms;
    /* session.mu: */
    unsigned calls; /* out */
    bool orphan;    /* freed with the last of them */
    bool answered;  /* the present one */
    int code;
    Replfs__Envelope *rep; /* a copy, or NULL */
};
/* A call of an attempt. */
struct attempt_call {
    struct client *c;
    struct attempt *a;
    struct rpc_conn *conn; /* an attempt's former ones are not listened to */
};
struct dial {
    struct attempt *attempt[METADS_MAX];
    size_t n;
    int64_t begun, lost; /* lost: there is no connection since then */
    bool failed;         /* an attempt: the others need not wait */
    bool fresh;          /* the session is lost */
    bool told;           /* that it takes long */
    struct resume_words *words,
        *old_words[METADS_MAX]; /* the present ones; those that may be out */
    size_t nold;
};

/* ---- attempts ---- */

static void attempt_free(struct attempt *a)
{
    rpc_envelope_free(a->rep);
    free(a);
}

static struct attempt *attempt_find(const struct dial *d, const char *addr)
{
    for (size_t i = 0; i < d->n; i++)
        if (!strcmp(d->attempt[i]->addr, addr))
            return d->attempt[i];
    return NULL;
}

/* Any thread; the answer to what the attempt waits for. */
static void on_answer(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload)
{
    struct attempt_call *k = arg;
    struct attempt *a = k->a;
    struct client *c = k->c;
    Replfs__Envelope *copy = rpc_envelope_copy(rep);
    (void)payload;
    lock_acquire(&c->session.mu);
    bool present = !a->orphan && a->conn == k->conn && !a->answered;
    if (present) {
        a->answered = true;
        a->code = code;
        a->rep = copy;
        copy = NULL;
        cond_broadcast(&c->session.cv);
    }
    bool last = --a->calls == 0 && a->orphan;
    lock_release(&c->session.mu);
    if (last)
        attempt_free(a);
    rpc_envelope_free(copy);
    rpc_conn_unref(k->conn);
    free(k);
}

/* The attempt waits for one answer from here on. */
static struct attempt_call *call_begin(struct client *c, struct attempt *a)
{
    struct attempt_call *k = malloc(sizeof(*k));
    if (!k)
        abort();
    *k = (struct attempt_call){c, a, rpc_conn_ref(a->conn)};
    LOCK_SCOPE(&c->session.mu);
    a->calls++;
    a->answered = false;
    return k;
}

static void attempt_close(struct client *c, struct attempt *a)
{
    lock_acquire(&c->session.mu);
    struct rpc_conn *conn = a->conn;
    a->conn = NULL;
    a->answered = false;
    Replfs__Envelope *rep = a->rep;
    a->rep = NULL;
    lock_release(&c->session.mu);
    a->stage = IDLE;
    rpc_envelope_free(rep);
    if (conn)
        rpc_conn_close(conn);
    rpc_conn_unref(conn);
}

static void attempt_drop(struct client *c, struct attempt *a)
{
    attempt_close(c, a);
    lock_acquire(&c->session.mu);
    a->orphan = true;
    bool last = a->calls == 0;
    lock_release(&c->session.mu);
    if (last)
        attempt_free(a);
}

static void attempt_said(struct client *c, const struct attempt *a, const char *what)
{
    LOCK_SCOPE(&c->session.mu);
    metads_said_locked(c, a->addr, what);
}

/* Not before a pause is it tried again; keep: on the same connection. */
static void attempt_failed(struct client *c, struct dial *d, struct attempt *a, bool keep)
{
    int64_t now = clock_mono();
    unsigned most = now - d->begun < ELECTION_NS ? PAUSE_SHORT_MS : PAUSE_MAX_MS;
    a->pause_ms = !a->pause_ms ? PAUSE_MIN_MS : a->pause_ms * 2;
    if (a->pause_ms > most)
        a->pause_ms = most;
    d->failed = true;
    a->leads = false;
    if (keep)
        a->stage = READY;
    else
        attempt_close(c, a);
    a->at = now + a->pause_ms * NSEC_PER_MSEC;
}

static void attempt_dial(struct client *c, struct dial *d, struct attempt *a)
{
    struct rpc_conn *conn = NULL;
    int rc = rpc_dial(c->loop, a->addr, RPC_ROLE_METAD, &c->session.svc, &conn);
    if (rc) {
        attempt_said(c, a, err_str(rc));
        attempt_failed(c, d, a, false);
        a->at = clock_mono() + REFUSED_MS * NSEC_PER_MSEC;
        return;
    }
    lock_acquire(&c->session.mu);
    a->conn = conn;
    lock_release(&c->session.mu);
    a->stage = DIALLED;
    rpc_ping(conn, ANSWER_MS, on_answer, call_begin(c, a));
}

/* Does it lead? Any request that only a leader serves would do. */
static void attempt_probe(struct client *c, struct attempt *a)
{
    Replfs__NodesReq m = REPLFS__NODES_REQ__INIT;
    RPC_ENVELOPE(env, NODES_REQ, nodes_req, &m);
    a->stage = PROBED;
    rpc_call(a->conn, &env, NULL, ANSWER_MS, on_answer, call_begin(c, a));
}

/* ---- words ---- */

static void words_drop(struct client *c, struct dial *d)
{
    resume_free(c, d->words);
    d->words = NULL;
    for (size_t i = 0; i < d->nold; i++)
        resume_free(c, d->old_words[i]);
    d->nold = 0;
}

static bool words_out(const struct dial *d, const struct resume_words *w)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->attempt[i]->stage == ASKED && d->attempt[i]->words == w)
            return true;
    return false;
}

static void words_renew(struct client *c, struct dial *d)
{
    size_t kept = 0;
    if (d->words && clock_mono() - resume_made(d->words) < WORDS_NS)
        return;
    if (d->words)
        d->old_words[d->nold++] = d->words; /* each of them is out with another attempt, but one */
    for (size_t i = 0; i < d->nold; i++) {
        if (words_out(d, d->old_words[i]))
            d->old_words[kept++] = d->old_words[i];
        else
            resume_free(c, d->old_words[i]);
    }
    d->nold = kept;
    d->words = resume_words_new(c, d->fresh);
}

static void attempt_ask(struct client *c, struct dial *d, struct attempt *a)
{
    words_renew(c, d);
    a->stage = ASKED;
    a->at = clock_mono();
    a->sent = clock_boot();
    a->words = d->words;
    resume_say(a->words, a->conn, ANSWER_MS, on_answer, call_begin(c, a));
}

/* ---- answers ---- */

/* Of two that say that they lead one is wrong, and may not know what became of us since. */
static bool leads_alone(const struct dial *d, const struct attempt *a)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->attempt[i] != a && d->attempt[i]->leads)
            return false;
    return true;
}

/* The session is gone: what others were told of it does not count. */
static void session_gone(struct client *c, struct dial *d, struct attempt *a)
{
    uint64_t old = resume_session(a->words);
    for (size_t i = 0; i < d->n; i++)
        if (d->attempt[i] != a && d->attempt[i]->stage == ASKED)
            attempt_failed(c, d, d->attempt[i], false);
    a->stage = READY;
    a->at = 0;
    resume_lost(c, old);
    words_drop(c, d);
    d->fresh = true;
}

static void not_leader(struct client *c, struct dial *d, struct attempt *a,
                       const Replfs__Envelope *rep)
{
    const Replfs__Failure *f =
        rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE ? rep->failure : NULL;
    attempt_said(c, a, f && *f->detail ? f->detail : err_str(-ERR_NOT_LEADER));
    attempt_failed(c, d, a, true);
    if (!f || !*f->leader || !strcmp(f->leader, a->addr))
        return;
    lock_acquire(&c->session.mu);
    metads_leader_locked(c, f->leader);
    lock_release(&c->session.mu);
    struct attempt *to = attempt_find(d, f->leader);
    if (to && to->stage < PROBED && to->pause_ms <= PAUSE_MIN_MS)
        to->at = 0; /* not each time: it may not know yet, or be dead */
}

static void attempt_refused(struct client *c, struct dial *d, struct attempt *a, int code,
                            const Replfs__Envelope *rep)
{
    const char *why = rpc_conn_error(a->conn);
    if (rep && rep->body_case == REPLFS__ENVELOPE__BODY_FAILURE)
        why = rep->failure->detail;
    log_debug("metad %s: %s", a->addr, *why ? why : err_str(code));
    attempt_said(c, a, *why ? why : err_str(code));
    attempt_failed(c, d, a, code == -ERR_BUSY && rpc_conn_alive(a->conn));
}

/* What is known of a dialled metad: that it is there. */
static void attempt_is_there(struct client *c, struct dial *d, struct attempt *a)
{
    a->instance = rpc_conn_peer(a->conn)->instance;
    a->stage = READY;
    a->at = 0;
    for (size_t i = 0; i < d->n; i++) {
        const struct attempt *b = d->attempt[i];
        if (b == a || b->stage < READY || !a->instance || b->instance != a->instance)
            continue;
        attempt_said(c, a, "is another address of one that is named here");
        attempt_close(c, a);
        a->at = clock_mono() + ALIAS_MS * NSEC_PER_MSEC;
        return;
    }
}

/* One answer. True: it agreed, and is the client's connection. */
static bool attempt_answered(struct client *c, struct dial *d, struct attempt *a)
{
    lock_acquire(&c->session.mu);
    bool answered = a->answered;
    int code = a->code;
    Replfs__Envelope *rep = a->rep;
    a->rep = NULL;
    a->answered = false;
    lock_release(&c->session.mu);
    bool agreed = false;
    if (!answered && a->stage == READY && !rpc_conn_alive(a->conn))
        attempt_refused(c, d, a, -ERR_PEER_GONE, NULL);
    if (!answered || a->stage == IDLE || a->stage == READY) {
        /* nothing new */
    } else if (a->stage == DIALLED && (!code || rep)) {
        attempt_is_there(c, d, a);
    } else if (a->stage == DIALLED) {
        attempt_refused(c, d, a, code, NULL);
    } else if (a->stage == PROBED && !code) {
        a->stage = READY;
        a->leads = true;
        a->at = 0;
    } else if (!code && rep->body_case == REPLFS__ENVELOPE__BODY_SESSION_REPLY) {
        resume_agreed(c, a->words, rep->session_reply, a->addr, a->sent);
        agreed = true;
    } else if (code == -ERR_SESSION && resume_session(a->words) && leads_alone(d, a)) {
        session_gone(c, d, a);
    } else if (code == -ERR_NOT_LEADER) {
        not_leader(c, d, a, rep);
    } else {
        attempt_refused(c, d, a, code ? code : -ERR_PROTOCOL, rep);
    }
    rpc_envelope_free(rep);
    return agreed;
}

/* ---- who is next ---- */

/* Attempts for all metads that are known by now, and for no others; the one that is thought to lead is first. */
static void attempts_list(struct client *c, struct dial *d)
{
    char addr[METADS_MAX][METAD_ADDR];
    lock_acquire(&c->session.mu);
    size_t n = c->session.nmetads;
    for (size_t i = 0; i < n; i++)
        memcpy(addr[i], c->session.metads[(c->session.cur + i) % n].addr, METAD_ADDR);
    lock_release(&c->session.mu);
    struct attempt *old[METADS_MAX];
    size_t nold = d->n;
    memcpy(old, d->attempt, nold * sizeof(struct attempt *));
    d->n = 0;
    for (size_t i = 0; i < n; i++) {
        struct attempt *a = NULL;
        for (size_t k = 0; k < nold && !a; k++) {
            if (!old[k] || strcmp(old[k]->addr, addr[i]) != 0)
                continue;
            a = old[k];
            old[k] = NULL;
        }
        if (!a && !(a = calloc(1, sizeof(*a))))
            abort();
        memcpy(a->addr, addr[i], METAD_ADDR);
        d->attempt[d->n++] = a;
    }
    for (size_t k = 0; k < nold; k++)
        if (old[k])
            attempt_drop(c, old[k]);
}

static void earlier(int64_t *next, int64_t at)
{
    if (at < *next)
        *next = at;
}

/* May a be asked though another, b, has not answered yet? */
static bool may_ask_beside(const struct attempt *a, const struct attempt *b, int64_t now,
                           int64_t *next)
{
    if (!a->instance || a->instance == b->instance)
        return false;
    if (now - b->at >= PATIENCE_NS)
        return true;
    earlier(next, b->at + PATIENCE_NS);
    return false;
}

/* The first is asked before all others, unless it is not there in time. */
static bool may_ask(const struct dial *d, size_t i, int64_t now, int64_t *next)
{
    const struct attempt *first = d->attempt[0];
    if (i > 0 && first->stage == DIALLED && now < d->begun + START_NS) {
        earlier(next, d->begun + START_NS);
        return false;
    }
    for (size_t k = 0; k < d->n; k++)
        if (k != i && d->attempt[k]->stage == ASKED &&
            !may_ask_beside(d->attempt[i], d->attempt[k], now, next))
            return false;
    return true;
}

/* Dials and asks whom there is to. When to look again. */
static int64_t attempts_go_on(struct client *c, struct dial *d)
{
    int64_t now = clock_mono(), next = now + LOOK_NS;
    for (size_t i = 0; i < d->n; i++) {
        struct attempt *a = d->attempt[i];
        int64_t at = a->at;
        if (a->stage == IDLE && i > 0 && !d->failed && at < d->begun + START_NS)
            at = d->begun + START_NS;
        if (a->stage != IDLE && a->stage != READY)
            continue;
        if (at > now)
            earlier(&next, at);
        else if (a->stage == IDLE)
            attempt_dial(c, d, a);
        else if (d->n > 1 && !a->leads)
            attempt_probe(c, a);
        else if (may_ask(d, i, now, &next))
            attempt_ask(c, d, a);
    }
    return next;
}

/* ---- the connector ---- */

static void dial_free(struct client *c, struct dial *d)
{
    for (size_t i = 0; i < d->n; i++)
        attempt_drop(c, d->attempt[i]);
    words_drop(c, d);
    free(d);
}

static struct rpc_conn *dial_won(struct client *c, struct attempt *a)
{
    LOCK_SCOPE(&c->session.mu);
    struct rpc_conn *conn = a->conn;
    a->conn = NULL;
    return conn;
}

/* Until connected: the connection, or NULL at the deadline. Only the connector runs this. */
static struct rpc_conn *dial_on(struct client *c, struct dial *d, int64_t deadline)
{
    for (;;) {
        attempts_list(c, d);
        for (size_t i = 0; i < d->n; i++)
            if (attempt_answered(c, d, d->attempt[i]))
                return dial_won(c, d->attempt[i]);
        attempts_list(c, d); /* an answer may have named one */
        int64_t next = attempts_go_on(c, d), now = clock_mono();
        if (!d->told && now - d->begun >= SOON_NS && c->session.started) {
            d->told = true;
            metads_log(c, "; trying on");
        }
        if (now >= deadline || c->stopping)
            return NULL;
        lock_acquire(&c->session.mu);
        bool any = false;
        for (size_t i = 0; i < d->n; i++)
            any |= d->attempt[i]->answered;
        if (!any && !c->stopping)
            cond_wait_until(&c->session.cv, &c->session.mu, next < deadline ? next : deadline);
        lock_release(&c->session.mu);
    }
}

static struct dial *dial_new(void)
{
    struct dial *d = calloc(1, sizeof(*d));
    if (!d)
        abort();
    d->begun = clock_mono();
    return d;
}

struct rpc_conn *session_conn(struct client *c, int64_t deadline)
{
    struct rpc_conn *conn = NULL;
    lock_acquire(&c->session.mu);
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
        struct dial *d = c->session.dial;
        c->session.conn = NULL;
        c->session.dial = NULL;
        c->session.connecting = true;
        lock_release(&c->session.mu);
        rpc_conn_unref(dead);
        if (!d)
            d = dial_new();
        struct rpc_conn *won = dial_on(c, d, deadline);
        if (won) { /* before the others are closed: who waits does not wait for that */
            lock_acquire(&c->session.mu);
            c->session.conn = won;
            cond_broadcast(&c->session.cv);
            lock_release(&c->session.mu);
            dial_free(c, d);
            d = NULL;
        }
        lock_acquire(&c->session.mu);
        c->session.dial = d;
        c->session.connecting = false;
        cond_broadcast(&c->session.cv);
    }
    lock_release(&c->session.mu);
    return conn;
}

void session_dial_end(struct client *c)
{
    lock_acquire(&c->session.mu);
    struct dial *d = c->session.dial;
    c->session.dial = NULL;
    lock_release(&c->session.mu);
    if (d)
        dial_free(c, d);
}

/* A user that mounts by hand is told soon why it takes long, and may end it. */
struct rpc_conn *session_first_conn(struct client *c)
{
    int64_t ms = c->cfg.connect_ms ? c->cfg.connect_ms : c->cfg.timeout_ms;
    int64_t now = clock_mono(), until = now + ms * NSEC_PER_MSEC, soon = now + SOON_NS;
    struct rpc_conn *conn = session_conn(c, soon < until ? soon : until);
    if (!conn && soon < until) {
        metads_log(c, "; trying on");
        conn = session_conn(c, until);
    }
    if (!conn)
        metads_log(c, "");
    return conn;
}
