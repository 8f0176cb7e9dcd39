/* How many connections strangers may have. Whoever can reach a port can connect to it, without a
 * certificate, and each connection costs a descriptor and a receive buffer. So the accepted ones of
 * a loop are counted: in all, per address, and those that have not said Hello yet (they have
 * READY_MS for it).
 *
 *   of one address too many, or too many without Hello: the new one is refused
 *   too many without Hello in all, or no room in all:   the one that has waited longest goes, which
 *                                                       no honest peer is; none waits: refused
 *
 * An address is an IPv4 address, the upper half of an IPv6 one (what one host can choose freely), or
 * the user at the other end of a UNIX socket.
 *
 * Threads: any; `lock` comes before a connection's lock and is not held with another. */
#include "rpc/rpc_internal.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/hash_table.h"

#define LOG_MODULE "rpc"
#define MAX_CONNS 4096u
#define MAX_PER_ADDR 512u
#define MAX_SILENT_PER_ADDR 64u
#define MAX_SILENT 512u
#define SLACK 32u /* above the limit, while those that were told to go are going */
#define WARN_EVERY (10 * NSEC_PER_SEC)

struct admit_peer {
    uint64_t family, addr;
    unsigned conns, silent;
    struct hash_link link;
};

void admission_init(struct admission *a, const struct rpc_config *cfg)
{
    lock_init(&a->mu, LOCK_RPC_ADMISSION);
    HASH_TABLE_INIT(&a->peers, 256, struct admit_peer, link, addr);
    a->silent_tail = &a->silent_head;
    a->max = cfg->max_conns ? cfg->max_conns : MAX_CONNS;
    a->max_per_addr = cfg->max_conns_per_addr ? cfg->max_conns_per_addr : MAX_PER_ADDR;
    a->max_silent_per_addr =
        MAX_SILENT_PER_ADDR < a->max_per_addr ? MAX_SILENT_PER_ADDR : a->max_per_addr;
    a->max_silent = MAX_SILENT < a->max / 2 ? MAX_SILENT : (a->max + 1) / 2;
    a->warned = INT64_MIN;
}

void admission_free(struct admission *a)
{
    hash_table_free(&a->peers);
    lock_destroy(&a->mu);
}

static void key_of(const struct addr *from, int fd, uint64_t *family, uint64_t *addr)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const struct sockaddr_in *in = (const void *)&from->sa;
    const struct sockaddr_in6 *in6 = (const void *)&from->sa;
    struct ucred cred = {0};
    socklen_t len = sizeof(cred);

    *family = from->sa.ss_family;
    *addr = 0;
    if (*family == AF_INET) {
        *addr = in->sin_addr.s_addr;
    } else if (*family == AF_INET6 && memcmp(&in6->sin6_addr, mapped, sizeof(mapped)) == 0) {
        *family = AF_INET;
        memcpy(addr, in6->sin6_addr.s6_addr + 12, 4);
    } else if (*family == AF_INET6) {
        memcpy(addr, in6->sin6_addr.s6_addr, sizeof(*addr));
    } else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
        *addr = cred.uid;
    }
}

/* ---- lock held ---- */

static struct admit_peer *peer_find(const struct admission *a, uint64_t family, uint64_t addr)
{
    struct hash_link *l = hash_table_find(&a->peers, addr);

    lock_assert_held(&a->mu);
    while (l && HASH_ENTRY(l, struct admit_peer, link)->family != family)
        l = hash_table_next_same(&a->peers, l);
    return HASH_ENTRY(l, struct admit_peer, link);
}

static void unlist_silent(struct admission *a, struct rpc_conn *c)
{
    lock_assert_held(&a->mu);
    if (!c->silent_prev)
        return;
    *c->silent_prev = c->silent_next;
    if (c->silent_next)
        c->silent_next->silent_prev = c->silent_prev;
    else
        a->silent_tail = c->silent_prev;
    c->silent_prev = NULL;
    a->silent--;
    c->admitted->silent--;
}

/* Why not, or NULL. */
static const char *refusal(const struct admission *a, const struct admit_peer *p)
{
    if (p->conns >= a->max_per_addr)
        return "too many connections from one address";
    if (p->silent >= a->max_silent_per_addr)
        return "too many connections from one address that have not said Hello";
    if (a->conns >= a->max + SLACK || (a->conns >= a->max && !a->silent_head))
        return "too many connections";
    return NULL;
}

/* ---- */

static void warn(struct admission *a, const char *why, const struct addr *from)
{
    char text[64];
    int64_t now = clock_mono();

    a->refused++;
    if (a->warned != INT64_MIN && now - a->warned < WARN_EVERY)
        return;
    addr_format(from, text, sizeof(text));
    log_warn("%s: connection refused: %s (%llu refused since the start)", text, why,
             (unsigned long long)a->refused);
    a->warned = now;
}

bool admit(struct admission *a, struct rpc_conn *c, const struct addr *from, int fd)
{
    struct rpc_conn *oldest = NULL;
    uint64_t family, addr;

    key_of(from, fd, &family, &addr);
    lock_acquire(&a->mu);
    struct admit_peer *p = peer_find(a, family, addr);
    const char *why = refusal(a, p ? p : &(struct admit_peer){0});
    if (why) {
        warn(a, why, from);
        lock_release(&a->mu);
        return false;
    }
    if (!p) {
        p = calloc(1, sizeof(*p));
        if (!p)
            abort();
        p->family = family;
        p->addr = addr;
        hash_table_add(&a->peers, &p->link);
    }
    if (a->silent_head && (a->silent >= a->max_silent || a->conns >= a->max)) {
        oldest = a->silent_head;
        conn_ref_internal(oldest); /* it leaves this list before its worker lets go of it */
        unlist_silent(a, oldest);
        oldest->told_to_go = true;
        a->going++;
    }
    p->conns++;
    p->silent++;
    a->conns++;
    a->silent++;
    c->admitted = p;
    c->silent_next = NULL;
    c->silent_prev = a->silent_tail;
    *a->silent_tail = c;
    a->silent_tail = &c->silent_next;
    lock_release(&a->mu);
    if (oldest) {
        conn_die(oldest, -ERR_BUSY,
                 "%s: too many connections wait for a Hello: this one has longest", oldest->target);
        conn_unref_internal(oldest);
    }
    return true;
}

bool admit_crowded(struct admission *a)
{
    LOCK_SCOPE(&a->mu);
    return a->going >= SLACK / 2;
}

void admit_ready(struct admission *a, struct rpc_conn *c)
{
    LOCK_SCOPE(&a->mu);
    if (c->admitted)
        unlist_silent(a, c);
}

void admit_gone(struct admission *a, struct rpc_conn *c)
{
    LOCK_SCOPE(&a->mu);
    struct admit_peer *p = c->admitted;
    if (!p)
        return;
    unlist_silent(a, c);
    c->admitted = NULL;
    a->conns--;
    a->going -= c->told_to_go;
    if (--p->conns > 0)
        return;
    hash_table_remove(&a->peers, &p->link);
    free(p);
}
