/* heartbeat: keeps all metads informed, and knows which of them leads.
 *
 * One thread, which never waits for an answer: it looks after a link for each metad (link.c), those that the user named
 * and those that the leader tells of. Clients are served all the while; what they change is kept in the inventory.
 *
 * Who leads is said by the metads themselves: one that does not says `follows`, and one that does tells its term. The
 * highest term counts, so a deposed leader that does not know it yet is not listened to; terms.h has what becomes of its
 * orders. Only the leader's word counts of where other chunkds are (registry.h), of the time, of how far the metadata has
 * come (seen.h). When somebody waits for an address, its next heartbeat is sent at once, but not more often than every
 * HURRY_MS (link.c).
 *
 * A number is asked for by one link at a time, lest two metads that both take themselves for the leader give two.
 *
 * A registration proves that a copy is recent: what was stored under it is still there. It is the same with every metad,
 * and new with each run, so that bytes that are stored while the lead changes are not in doubt.
 *
 * Locks: mu guards what other threads leave here and wakes the thread; nothing is called while it is held. The
 * registry's is taken before it. */
#include "heartbeat.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/thread.h"
#include "link.h"
#include "names_file.h"
#include "terms.h"

#define LOG_MODULE "heartbeat"
#define REST_NS (60 * NSEC_PER_SEC)
#define GOODBYE_NS NSEC_PER_SEC
#define GOODBYE_LOOK_NS (20 * NSEC_PER_MSEC)

/* ---- what other threads say ---- */

static void thread_wake(struct heartbeat *h, bool hurry)
{
    LOCK_SCOPE(&h->mu);
    h->hurry |= hurry;
    h->woken = true;
    cond_signal(&h->wake);
}

/* The registry wants to know something. */
static void on_ask(void *arg)
{
    thread_wake(arg, true);
}

/* A term is to be saved. */
static void on_term(void *arg)
{
    thread_wake(arg, false);
}

static void on_closed(void *arg, struct rpc_conn *c)
{
    struct heartbeat *h = arg;
    struct link *l = rpc_conn_data(c);
    LOCK_SCOPE(&h->mu);
    if (l && l->conn == c) {
        l->closed = true;
        h->woken = true;
        cond_signal(&h->wake);
    }
}

static void on_request(void *arg, struct rpc_req *req)
{
    struct heartbeat *h = arg;
    const struct link *l = rpc_conn_data(req->conn);
    bool order = req->env->body_case == REPLFS__ENVELOPE__BODY_ORDER_REQ;
    if (order && l && req->env->order_req->term == 0 && atomic_load(&l->follows))
        rpc_fail(req, ERR_OLD_TERM, "this metad says that it does not lead");
    else
        serve_metad(h->cfg.service, req);
}

/* ---- for link.c ---- */

bool heartbeat_may_join(struct heartbeat *h, struct link *l)
{
    bool free = !h->joining || h->joining == l;
    if (free)
        h->joining = l;
    return free;
}

struct link *heartbeat_twin(struct heartbeat *h, const struct link *l)
{
    for (size_t i = 0; i < h->nlinks; i++)
        if (h->link[i] != l && l->instance && h->link[i]->instance == l->instance &&
            h->link[i]->stage > LINK_DIALLED)
            return h->link[i];
    return NULL;
}

static struct link *link_find(struct heartbeat *h, const char *addr)
{
    for (size_t i = 0; i < h->nlinks; i++)
        if (!strcmp(h->link[i]->addr, addr))
            return h->link[i];
    return NULL;
}

static void link_add(struct heartbeat *h, const char *addr, bool given)
{
    if (!*addr || strlen(addr) >= LINK_ADDR || link_find(h, addr))
        return;
    if (h->nlinks == LINKS_MAX) {
        log_warn("metad %s: more than %u are not kept in touch with", addr, LINKS_MAX);
        return;
    }
    h->link[h->nlinks++] = link_new(h, addr, given);
}

void heartbeat_named(struct heartbeat *h, const char *addr)
{
    link_add(h, addr, false);
}

static bool is_told(char *const *list, size_t n, const char *addr)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], addr))
            return true;
    return false;
}

/* Links to those that are members no more end; they are freed by the main loop, which may be in one of them. */
static void members(struct heartbeat *h, const struct link *by, char *const *list, size_t n)
{
    for (size_t i = 0; n && i < h->nlinks; i++) {
        struct link *l = h->link[i];
        l->dropped = l != by && !l->given && !is_told(list, n, l->addr);
    }
    for (size_t i = 0; i < n; i++) {
        if (!link_find(h, list[i]))
            log_info("metad %s is a member, too", list[i]);
        link_add(h, list[i], false);
    }
}

/* Which link's metad leads; NULL: none that we know of. */
static void set_lead(struct heartbeat *h, struct link *l)
{
    if (!l && h->lead)
        registry_lost(h->cfg.registry);
    h->lead = l;
    serve_set_metad(h->cfg.service, l ? rpc_conn_peer(l->conn)->addr : NULL);
}

/* One that tells no term is older than terms: it leads where nobody else does. */
static bool does_lead(struct heartbeat *h, struct link *l, bool follows, uint64_t term)
{
    uint64_t highest = terms_highest(h->cfg.terms);
    l->other_copy = !follows && term && names_life(term) < names_life(highest);
    if (follows || term >= highest)
        return !follows;
    if (!term)
        return !h->lead || h->lead == l;
    if (!l->old_logged)
        log_warn("metad %s says that it leads in term %llu, but one has led in term %llu: its "
                 "orders are refused. If it "
                 "does not step down soon, its state is older than what was there",
                 l->addr, (unsigned long long)term, (unsigned long long)highest);
    l->old_logged = true;
    return false;
}

bool heartbeat_heard(struct heartbeat *h, struct link *l, bool follows, uint64_t term,
                     char *const *metads, size_t nmetads)
{
    bool leads = does_lead(h, l, follows, term);
    atomic_store(&l->follows, follows);
    if (h->joining == l)
        h->joining = NULL;
    if (leads) {
        if (h->lead != l && nmetads > 1)
            log_info("metad %s leads", l->addr);
        set_lead(h, l);
        seen_term(&h->seen, h->cfg.disks, term);
        terms_saved(h->cfg.terms, h->seen.term);
        members(h, l, metads, nmetads);
    } else if (h->lead == l) {
        set_lead(h, NULL);
    }
    return leads;
}

void heartbeat_unlinked(struct heartbeat *h, struct link *l, bool had)
{
    if (h->joining == l)
        h->joining = NULL;
    if (h->lead == l) {
        set_lead(h, NULL);
    }
    for (size_t i = 0; had && i < h->nlinks; i++)
        if (h->link[i]->alias && h->link[i]->instance == l->instance)
            h->link[i]->at = 0; /* another address of the same */
}

/* ---- the thread ---- */

static bool stopping(struct heartbeat *h)
{
    LOCK_SCOPE(&h->mu);
    return h->stopping;
}

/* A dropped link may still be named by answers on their way: it is freed with the others, at the end. */
static void drop_links(struct heartbeat *h)
{
    for (size_t i = 0; i < h->nlinks; i++) {
        struct link *l = h->link[i];
        if (!l->dropped)
            continue;
        log_info("metad %s is no member any more", l->addr);
        link_close(l);
        h->link[i--] = h->link[--h->nlinks];
        l->next_gone = h->gone;
        h->gone = l;
    }
}

/* All that were told that we stop have answered, or are gone. */
static bool goodbyes_said(const struct heartbeat *h)
{
    for (size_t i = 0; i < h->nlinks; i++) {
        const struct link *l = h->link[i];
        if (l->registered && !(l->goodbye && l->stage == LINK_RESTING))
            return false;
    }
    return true;
}

/* A last heartbeat to each metad, so that an absence that was meant is no alarm. */
static void say_goodbye(struct heartbeat *h)
{
    int64_t now = clock_mono(), until = now + GOODBYE_NS;
    h->leaves = true;
    for (size_t i = 0; i < h->nlinks; i++)
        h->link[i]->goodbye = false;
    while (now < until && !goodbyes_said(h)) {
        for (size_t i = 0; i < h->nlinks; i++) {
            struct link *l = h->link[i];
            if (l->stage == LINK_RESTING && !l->goodbye)
                l->at = now;
            if (l->registered)
                link_step(l, now);
        }
        lock_acquire(&h->mu);
        if (!h->woken)
            cond_sleep_until(&h->wake, &h->mu, now + GOODBYE_LOOK_NS);
        h->woken = false;
        lock_release(&h->mu);
        now = clock_mono();
    }
}

static void *heartbeat_main(void *arg)
{
    struct heartbeat *h = arg;
    seen_load(&h->seen, h->cfg.disks);
    terms_saved(h->cfg.terms, h->seen.term);
    while (!stopping(h)) {
        int64_t now = clock_mono(), next = now + REST_NS;
        uint64_t term = terms_highest(h->cfg.terms);
        seen_term(&h->seen, h->cfg.disks, term); /* an order brought it */
        terms_saved(h->cfg.terms, term);
        for (size_t i = 0; i < h->nlinks; i++) {
            int64_t at = link_step(h->link[i], now);
            next = at < next ? at : next;
        }
        drop_links(h);
        LOCK_SCOPE(&h->mu);
        while (!h->stopping && !h->woken && cond_sleep_until(&h->wake, &h->mu, next))
            ;
        h->woken = false;
    }
    say_goodbye(h);
    for (size_t i = 0; i < h->nlinks; i++)
        link_close(h->link[i]);
    seen_save(&h->seen, h->cfg.disks, true);
    return NULL;
}

void heartbeat_free(struct heartbeat *h)
{
    if (!h)
        return;
    for (size_t i = 0; i < h->nlinks; i++)
        link_free(h->link[i]);
    for (struct link *l = h->gone, *next; l; l = next) {
        next = l->next_gone;
        link_free(l);
    }
    free(h->host_id);
    free(h->host_name);
    free(h->addr);
    free(h->infos);
    cond_destroy(&h->wake);
    lock_destroy(&h->mu);
    free(h);
}

int heartbeat_start(const struct heartbeat_config *cfg, struct heartbeat **out)
{
    struct heartbeat *h = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    h->cfg = *cfg;
    h->svc = (struct rpc_service){.request = on_request, .closed = on_closed, .arg = h};
    h->host_id = strdup(cfg->host_id);
    h->host_name = strdup(cfg->host_name);
    h->addr = strdup(cfg->addr);
    h->infos = calloc(disks_count(cfg->disks), sizeof(*h->infos));
    if (getrandom(&h->registration, sizeof(h->registration), 0) != sizeof(h->registration))
        h->registration = 0; /* metads make one */
    bool ok = h->host_id && h->host_name && h->addr && h->infos;
    lock_init(&h->mu, LOCK_HEARTBEAT);
    cond_init(&h->wake);
    for (size_t i = 0; ok && i < cfg->nmetas; i++)
        link_add(h, cfg->metas[i], true);
    int rc = ok ? -thread_start(&h->tid, "heartbeat", heartbeat_main, h) : -ENOMEM;
    if (rc != 0) {
        heartbeat_free(h);
        return rc;
    }
    *out = h;
    registry_on_ask(cfg->registry, on_ask, h);
    terms_on_news(cfg->terms, on_term, h);
    return 0;
}

void heartbeat_stop(struct heartbeat *h)
{
    lock_acquire(&h->mu);
    h->stopping = true;
    cond_signal(&h->wake);
    lock_release(&h->mu);
    pthread_join(h->tid, NULL);
}
