/* registry: where other chunkds are.
 *
 * A client says in an append through which chunkds it goes on, by number and address. The number is
 * what counts; the address is metad's, told at registration and in the heartbeats after a change.
 * Otherwise anyone who has a capability could have us connect to anything. An address differs, or a
 * number is unknown, for a moment after a chunkd has joined or moved: then the next heartbeat is
 * sent at once and the append waits for its answer, which decides. Nobody is forgotten: a metad that
 * has just started knows only the chunkds that have come back so far.
 *
 * Who waits is in `first`.., in the order of arrival. Appends of one connection must not overtake each
 * other, so one stays behind another of its line that waits, though its own address is known. A
 * heartbeat that began before an append came cannot answer it: `beat` counts them.
 *
 * Without a metad at hand there is nobody to ask: an unknown number is refused, and a known one is
 * where it was. A metad that tells no registry is older than this one: the client is believed.
 *
 * Locks: mu, innermost; done() is called without it, by the heartbeat's thread only. Threads: any. */
#include "registry.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/error.h"

#define ID_MAX (1u << 20)
#define WAITS_MAX 4096u

struct registry {
    struct lock mu;
    /* all under mu */
    char (*addr)[REGISTRY_ADDR]; /* by number; "": unknown */
    uint32_t n;
    uint64_t version;
    uint64_t begun, answered; /* heartbeats */
    bool reachable, closed;
    struct registry_wait *first, **last;
    size_t nwaits;
    void (*ask)(void *arg);
    void *ask_arg;
};

struct registry *registry_new(void)
{
    struct registry *r = calloc(1, sizeof(*r));
    if (!r)
        abort();
    lock_init(&r->mu, LOCK_CHUNKD_ADDRESSES);
    r->last = &r->first;
    return r;
}

void registry_free(struct registry *r)
{
    if (!r)
        return;
    lock_destroy(&r->mu);
    free(r->addr);
    free(r);
}

void registry_on_ask(struct registry *r, void (*ask)(void *arg), void *arg)
{
    LOCK_SCOPE(&r->mu);
    r->ask = ask;
    r->ask_arg = arg;
}

uint64_t registry_version(struct registry *r)
{
    LOCK_SCOPE(&r->mu);
    return r->version;
}

/* ---- mu held ---- */

static const char *known(const struct registry *r, uint32_t chunkd)
{
    return chunkd < r->n && r->addr[chunkd][0] ? r->addr[chunkd] : NULL;
}

static bool line_waits(const struct registry *r, const struct registry_wait *end, const void *line)
{
    lock_assert_held(&r->mu);
    for (const struct registry_wait *w = r->first; w != end; w = w->next)
        if (w->line == line)
            return true;
    return false;
}

static int found(const struct registry *r, uint32_t chunkd, char out[static REGISTRY_ADDR])
{
    lock_assert_held(&r->mu);
    const char *addr = known(r, chunkd);
    if (!addr)
        return -ERR_NOT_REGISTERED;
    memcpy(out, addr, REGISTRY_ADDR);
    return 0;
}

int registry_find(struct registry *r, struct registry_wait *w, const char *told,
                  char out[static REGISTRY_ADDR])
{
    LOCK_SCOPE(&r->mu);
    if (r->closed)
        return -ERR_SHUTDOWN;
    if (!r->version) {
        snprintf(out, REGISTRY_ADDR, "%s", told);
        return 0;
    }
    const char *addr = known(r, w->chunkd);
    w->asks = (!addr || strcmp(addr, told) != 0) && r->reachable && r->ask;
    if (!w->asks && (!r->first || !line_waits(r, NULL, w->line)))
        return found(r, w->chunkd, out);
    if (r->nwaits >= WAITS_MAX)
        return -ERR_BUSY;
    w->beat = r->begun + 1;
    w->next = NULL;
    *r->last = w;
    r->last = &w->next;
    r->nwaits++;
    if (w->asks)
        r->ask(r->ask_arg);
    return REGISTRY_LATER;
}

static void registry_take(struct registry *r, uint32_t chunkd, const char *addr)
{
    lock_assert_held(&r->mu);
    if (chunkd >= ID_MAX || strlen(addr) >= REGISTRY_ADDR)
        return;
    if (chunkd >= r->n) {
        uint32_t n = chunkd + 16;
        r->addr = realloc(r->addr, n * sizeof(*r->addr));
        if (!r->addr)
            abort();
        memset(r->addr + r->n, 0, (n - r->n) * sizeof(*r->addr));
        r->n = n;
    }
    snprintf(r->addr[chunkd], REGISTRY_ADDR, "%s", addr);
}

/* ---- the heartbeat's thread ---- */

/* Serves whom the last answer, or its absence, serves. code: 0, or what all are told. An entry stays in
 * the list until its done() has returned, so that none of its line overtakes it. */
static void registry_serve(struct registry *r, int code)
{
    struct registry_wait **p = &r->first;
    char addr[REGISTRY_ADDR];

    lock_acquire(&r->mu);
    while (*p) {
        struct registry_wait *w = *p;
        bool answered = w->beat <= r->answered || !r->reachable;
        bool due = code != 0 || (w->asks ? answered : !line_waits(r, w, w->line));
        if (!due) {
            p = &w->next;
            continue;
        }
        int rc = code ? code : found(r, w->chunkd, addr);
        struct registry_wait stay = {.line = w->line, .next = w->next}; /* keeps its place */
        *p = &stay;
        if (r->last == &w->next)
            r->last = &stay.next;
        lock_release(&r->mu);
        w->done(w, rc, rc == 0 ? addr : "");
        lock_acquire(&r->mu);
        *p = stay.next;
        if (r->last == &stay.next)
            r->last = p;
        r->nwaits--;
    }
    bool again = r->first && r->ask;
    if (again)
        r->ask(r->ask_arg);
    lock_release(&r->mu);
}

void registry_begin(struct registry *r)
{
    LOCK_SCOPE(&r->mu);
    r->begun++;
}

void registry_told(struct registry *r, uint64_t version, Replfs__ChunkdAddr *const *v, size_t n)
{
    lock_acquire(&r->mu);
    for (size_t i = 0; i < n; i++)
        registry_take(r, v[i]->chunkd, v[i]->addr);
    if (version)
        r->version = version;
    r->answered = r->begun;
    r->reachable = true;
    bool any = r->first != NULL;
    lock_release(&r->mu);
    if (any)
        registry_serve(r, 0);
}

void registry_lost(struct registry *r)
{
    lock_acquire(&r->mu);
    r->answered = r->begun;
    r->reachable = false;
    lock_release(&r->mu);
    registry_serve(r, 0);
}

void registry_close(struct registry *r)
{
    lock_acquire(&r->mu);
    r->closed = true;
    r->ask = NULL;
    lock_release(&r->mu);
    registry_serve(r, -ERR_SHUTDOWN);
}
