/* What has a date: the clocks of chunkds and clients beside ours, and the ends of certificates.
 *
 * Nothing depends on clocks agreeing: capabilities are judged by metad's time, which chunkds are told with each
 * heartbeat (nodes_cap_now), and clients are told lifetimes. But a client that sets a file's time from a clock that
 * is hours away confuses people and programs, so what is further away than CLOCKS_APART is said in health. Our own
 * clock may be the wrong one: that is where several agree against us.
 *
 * Clients whose clock is right are not remembered. Thread context: as said at each function. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/lock.h"
#include "nodes_internal.h"
#include "status_internal.h"

#define CLOCKS_APART (10 * NSEC_PER_SEC)
#define CLIENTS_MAX 64u
#define DAY_S 86400

/* Runs on while we do, whatever is done to our wall clock. */
uint32_t nodes_cap_now(const struct nodes *n)
{
    return (uint32_t)((n->cap_wall + clock_boot() - n->cap_boot) / NSEC_PER_SEC);
}

void clocks_init(struct nodes *n)
{
    n->cap_wall = clock_wall();
    n->cap_boot = clock_boot();
}

int64_t clocks_skew(uint64_t wall_ms)
{
    if (wall_ms == 0 || wall_ms > INT64_MAX / NSEC_PER_MSEC)
        return 0; /* not told, or nonsense */
    return (int64_t)wall_ms * NSEC_PER_MSEC - clock_wall();
}

static bool apart(int64_t skew)
{
    return skew > CLOCKS_APART || skew < -CLOCKS_APART;
}

static struct client_clock *clocks_find(struct nodes *n, uint64_t session)
{
    for (unsigned i = 0; i < n->nclocks; i++)
        if (n->clocks[i].session == session)
            return &n->clocks[i];
    return NULL;
}

void clocks_forget(struct nodes *n, uint64_t session)
{
    lock_assert_held(&n->mu);
    struct client_clock *k = clocks_find(n, session);
    if (k)
        *k = n->clocks[--n->nclocks];
}

static void session_name(struct fsm *f, uint64_t session, char *out, size_t len)
{
    const char *name = NULL;
    uint64_t found = 0;

    fsm_rdlock(f);
    bool is = fsm_session_next(f, session - 1, &found, &name) && found == session;
    snprintf(out, len, "%s", is && name ? name : "");
    fsm_unlock(f);
}

void nodes_client_clock(struct nodes *n, uint64_t session, uint64_t wall_ms)
{
    int64_t skew = clocks_skew(wall_ms);
    char name[sizeof(n->clocks[0].name)] = "";

    lock_acquire(&n->mu);
    struct client_clock *k = clocks_find(n, session);
    if (k && !apart(skew))
        clocks_forget(n, session);
    else if (k)
        k->skew = skew;
    bool add = !k && apart(skew);
    lock_release(&n->mu);
    if (!add)
        return;
    session_name(n->cfg.fsm, session, name, sizeof(name));
    lock_acquire(&n->mu);
    if (!clocks_find(n, session) && n->nclocks < CLIENTS_MAX) {
        k = &n->clocks[n->nclocks++];
        *k = (struct client_clock){.session = session, .skew = skew};
        memcpy(k->name, name, sizeof(k->name));
    }
    lock_release(&n->mu);
}

/* ---- health ---- */

/* "2 h 5 min ahead of" */
static const char *distance(struct status_ask *a, int64_t skew)
{
    long long s = ((skew < 0 ? -skew : skew) + NSEC_PER_SEC / 2) / NSEC_PER_SEC;
    long long min = s / 60, h = min / 60, d = h / 24;
    const char *way = skew < 0 ? "behind" : "ahead of";

    if (d > 0)
        return status_text(a, "%lld d %lld h %s", d, h % 24, way);
    if (h > 0)
        return status_text(a, "%lld h %lld min %s", h, min % 60, way);
    if (min > 0)
        return status_text(a, "%lld min %lld s %s", min, s % 60, way);
    return status_text(a, "%lld s %s", s, way);
}

static void problem_clock(struct status_ask *a, const char *who, int64_t skew)
{
    status_problem(a, 1, "clock",
                   status_text(a, "the clock of %s is %s metad's", who, distance(a, skew)),
                   "set it, or metad's if that is the wrong one (timedatectl set-ntp true): data "
                   "is safe, but times of "
                   "files and log lines mislead");
}

/* end: wall seconds, 0: no certificate. */
static void problem_cert(struct status_ask *a, const char *who, uint64_t end)
{
    int64_t left = (int64_t)end - clock_wall() / NSEC_PER_SEC;

    if (end == 0 || left > RPC_CERT_WARN_S)
        return;
    status_problem(
        a, left < 0 ? 2 : 1, "certificate",
        left < 0 ? status_text(a, "the certificate of %s has ended: it cannot connect again", who)
                 : status_text(a, "the certificate of %s ends in %lld days", who,
                               (long long)left / DAY_S),
        "make a new one (replfs-mkpki), put it in its place, and send the program SIGHUP");
}

void clocks_problems(struct status_ask *a)
{
    struct nodes *n = a->n;
    char label[256];

    for (uint32_t i = 1; i < n->nnodes; i++) {
        const struct node *d = n->node[i];
        if (!d || !d->conn)
            continue;
        nodes_label(d, label);
        if (apart(d->skew))
            problem_clock(a, label, d->skew);
        problem_cert(a, label, d->cert_end);
    }
    for (unsigned i = 0; i < n->nclocks; i++)
        problem_clock(a, status_text(a, "client %s", n->clocks[i].name), n->clocks[i].skew);
    problem_cert(a, "metad", (uint64_t)rpc_cert_end(n->cfg.loop));
}
