/* What is said on a new connection to metad: which session goes on, what is open and locked, and of which inodes
 * changes are kept back (claims of exclusive leases).
 *
 * When metad has not heard of us for longer than the lease (suspended, cut off), the session has lapsed:
 * its leases and locks are gone, but it goes on, and what was answered and not told yet is told now
 * (Mutation.kept). When metad does not know it at all any more, a new one is opened. Bytes written under
 * the old one and not committed are lost, and the files concerned say so.
 *
 * A session tells, as it resumes, how far metad's state had come in the newest answer that it had. A
 * metad that never was there runs from an older copy of its directory: it refuses the session, and
 * nothing that we remember of files is true there. What is open goes on only as far as it exists
 * there; its maps are fetched anew. */
#include "client/session/resume.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/compare.h"
#include "base/lock.h"
#include "client/base/client_clock.h"
#include "client/cache/lease_cache.h"
#include "client/internal.h"
#include "client/session/metads.h"
#include "client/session/session.h"

#define LOG_MODULE "session"
#define CLAIMS_MAX 65536u                        /* as many as metad takes */
#define SESSION_BYTES (RPC_MAX_ENVELOPE - 4096u) /* of what a session resumes with */

static void forked(struct client *c)
{
    log_error(
        "this metad does not have what we have seen before: it runs from an older or another copy "
        "of its data directory. Files written since are missing there, programs that have them "
        "open get errors; replfsctl health says more");
    c->session.events->forked(c);
}

static void session_lapsed(struct client *c)
{
    log_warn(
        "metad heard nothing from us for longer than the session's lease, or than a lease term "
        "while another mount wanted what we had leases on: locks are gone, and "
        "others may have changed what we had leases on. What was written or changed here before "
        "is told to metad now; where others changed the same, that is lost, and named here");
    atomic_fetch_add(&c->life, 1);
    c->session.events->lapsed(c);
}

static void session_opened(struct client *c, const Replfs__SessionReply *r, const char *addr)
{
    lock_acquire(&c->session.mu);
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
    metads_leader_locked(c, addr);
    lock_release(&c->session.mu);
    metads_told(c, r->metads, r->n_metads);
    log_info("%s session %016llx with metad %s", fresh ? "opened" : "resumed",
             (unsigned long long)r->session, addr);
    if (lapsed)
        session_lapsed(c);
}

/* How many inodes can still be named in m. */
static size_t resume_room(const Replfs__SessionReq *m)
{
    size_t used = protobuf_c_message_get_packed_size(&m->base);
    return used < SESSION_BYTES ? (SESSION_BYTES - used) / sizeof(uint64_t) : 0;
}

/* Names what is open, as many as fit: a metad that is told of some is better than none at all. */
static void name_open(Replfs__SessionReq *m, uint64_t *open, size_t n)
{
    size_t fit = resume_room(m);
    m->open_inos = open;
    m->n_open_inos = n < fit ? n : fit;
    if (n > fit)
        log_warn(
            "%zu of %zu open files are more than metad can be told as the session resumes: those "
            "of them that were removed, or are before they are closed, can no longer be read",
            n - fit, n);
}

/* metad lists those that it agreed to in ascending order. */
static void refused_claims(struct client *c, const Replfs__SessionReq *m,
                           const Replfs__SessionReply *r)
{
    for (size_t k = 0; k < m->n_exclusive; k++)
        if (!r->n_exclusive || !bsearch(&m->exclusive[k], r->exclusive, r->n_exclusive,
                                        sizeof(*r->exclusive), compare_u64))
            lease_cache_regain(c->leases, m->exclusive[k], false);
}

struct resume_words {
    Replfs__SessionReq m;
    uint64_t *open, *creates;
    struct locks_claims *claims;
    int64_t made;
};

/* Creations that were not answered yet, by their numbers. */
static uint64_t *list_creates(const struct client *c, size_t *n)
{
    uint64_t *out = malloc((c->session.npending + 1) * sizeof(*out));
    *n = 0;
    for (size_t i = 0; out && i < c->session.npending; i++)
        if (c->session.pending[i].creates)
            out[(*n)++] = c->session.pending[i].seq;
    return out;
}

/* Files that metad counts as open: n inodes. A file that is made goes from the changes without an answer to the closes,
 * and from there to the open files, and is in both for a moment: so they are looked at in this order. */
static uint64_t *list_open(struct client *c, struct resume_words *w, bool fresh, size_t *n)
{
    size_t nopen = 0;
    lock_acquire(&c->session.mu);
    if (!fresh) /* else they are of the former session */
        w->creates = list_creates(c, &w->m.n_unanswered_creates);
    w->m.unanswered_creates = w->creates;
    size_t nclosing = c->session.ncloses;
    CLEANUP(free_ptr) uint64_t *closing = malloc((nclosing + 1) * sizeof(*closing));
    if (closing && nclosing)
        memcpy(closing, c->session.closes, nclosing * sizeof(*closing));
    lock_release(&c->session.mu);
    uint64_t *open = c->session.events->open_inos(c, &nopen);
    uint64_t *both = open ? realloc(open, (nopen + nclosing + 1) * sizeof(*both)) : NULL;
    if (both && closing && nclosing)
        memcpy(both + nopen, closing, nclosing * sizeof(*both));
    *n = both && closing ? nopen + nclosing : nopen;
    return both ? both : open;
}

struct resume_words *resume_words_new(struct client *c, bool fresh)
{
    const struct session_events *ev = c->session.events;
    struct resume_words *w = calloc(1, sizeof(*w));
    size_t nopen = 0;
    if (!w)
        abort();
    replfs__session_req__init(&w->m);
    w->open = list_open(c, w, fresh, &nopen);
    w->made = clock_mono();
    w->m.session = fresh ? 0 : session_id(c);
    w->m.comes_back = true;
    w->m.name = c->name;
    w->m.host_id = c->host_id;
    lock_acquire(&c->session.mu);
    w->m.seen_incarnation = c->session.seen_incarnation;
    w->m.seen_position = c->session.seen_position;
    w->m.lapses = fresh ? 0 : c->session.lapses;
    lock_release(&c->session.mu);
    w->claims = ev->claims(c, &w->m);
    name_open(&w->m, w->open, nopen);
    lease_cache_drop_all(c->leases); /* metad forgets our leases as we come back */
    size_t fit = resume_room(&w->m);
    w->m.exclusive = ev->kept_back(c, fit < CLAIMS_MAX ? fit : CLAIMS_MAX, &w->m.n_exclusive);
    for (size_t k = 0; k < w->m.n_exclusive; k++) /* a recall may come before the reply is seen */
        lease_cache_regain(c->leases, w->m.exclusive[k], true);
    return w;
}

void resume_free(struct client *c, struct resume_words *w)
{
    if (!w)
        return;
    c->session.events->claims_free(w->claims);
    free(w->m.exclusive);
    free(w->creates);
    free(w->open);
    free(w);
}

int64_t resume_made(const struct resume_words *w)
{
    return w->made;
}

uint64_t resume_session(const struct resume_words *w)
{
    return w->m.session;
}

void resume_say(struct resume_words *w, struct rpc_conn *conn, unsigned timeout_ms, rpc_done *done,
                void *arg)
{
    w->m.wall_ms = (uint64_t)(clock_wall() / NSEC_PER_MSEC);
    RPC_ENVELOPE(env, SESSION_REQ, session_req, &w->m);
    rpc_call(conn, &env, NULL, timeout_ms, done, arg);
}

void resume_agreed(struct client *c, struct resume_words *w, const Replfs__SessionReply *r,
                   const char *addr, int64_t sent)
{
    client_told_time(c, r->wall_ms);
    session_opened(c, r, addr);
    if (r->forked)
        forked(c);
    refused_claims(c, &w->m, r); /* before the term runs */
    lease_cache_renew(c->leases, sent);
}

void resume_lost(struct client *c, uint64_t session)
{
    log_error("session %016llx is gone: metad heard nothing from us for longer than its lease. "
              "Bytes written under it and not yet committed are lost; files concerned report EIO",
              (unsigned long long)session);
    c->session.events->lost(c);
}
