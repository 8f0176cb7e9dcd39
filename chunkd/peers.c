/* peers: the chunkd's connections to other chunkds (next hops of chains, sources of copies).
 *
 * One connection per address carries everything, so appends of a chunk keep their order. A
 * connection that died is replaced at the next use, except within RETRY_NS of the last dial: then
 * the caller gets the failure at once and the client picks other chunkds, instead of every append
 * waiting for a dead host. At most MAX_PEERS are kept, the least recently used one goes.
 *
 * Locks: peers.mu, held across rpc_dial (which does not block) but never across a call.
 * Thread context: any. */
#include "peers.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define LOG_MODULE "peers"
#define MAX_PEERS 1024u
#define RETRY_NS (200 * NSEC_PER_MSEC)

struct peer {
    char *addr;
    struct rpc_conn *conn; /* NULL: never dialled or failed at once */
    int64_t dialled, used; /* clock_mono */
};
struct peers {
    struct rpc_loop *loop;
    struct lock mu;
    struct peer *v; /* mu */
    size_t n;       /* mu */
    bool closed;    /* mu */
};

int peers_new(struct rpc_loop *loop, struct peers **out)
{
    struct peers *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->v = calloc(MAX_PEERS, sizeof(*p->v));
    if (!p->v) {
        free(p);
        return -ENOMEM;
    }
    p->loop = loop;
    lock_init(&p->mu, LOCK_PEERS);
    *out = p;
    return 0;
}

static void peer_clear(struct peer *e)
{
    rpc_conn_unref(e->conn);
    free(e->addr);
    memset(e, 0, sizeof(*e));
}

void peers_close(struct peers *p)
{
    struct rpc_conn *conns[MAX_PEERS];
    size_t n = 0;
    lock_acquire(&p->mu);
    p->closed = true;
    for (size_t i = 0; i < p->n; i++)
        if (p->v[i].conn)
            conns[n++] = rpc_conn_ref(p->v[i].conn);
    lock_release(&p->mu);
    for (size_t i = 0; i < n; i++) { /* unlocked: ended calls run their callbacks */
        rpc_conn_close(conns[i]);
        rpc_conn_unref(conns[i]);
    }
}

void peers_free(struct peers *p)
{
    if (!p)
        return;
    peers_close(p);
    for (size_t i = 0; i < p->n; i++)
        peer_clear(&p->v[i]);
    lock_destroy(&p->mu);
    free(p->v);
    free(p);
}

static struct peer *find_or_add(struct peers *p, const char *addr)
{
    struct peer *oldest = NULL;
    for (size_t i = 0; i < p->n; i++) {
        struct peer *e = &p->v[i];
        if (strcmp(e->addr, addr) == 0)
            return e;
        if (!oldest || e->used < oldest->used)
            oldest = e;
    }
    struct peer *e = oldest;
    if (p->n < MAX_PEERS)
        e = &p->v[p->n++];
    else
        peer_clear(e);
    e->addr = strdup(addr);
    if (!e->addr)
        abort();
    return e;
}

int peers_get(struct peers *p, const char *addr, struct rpc_conn **out)
{
    LOCK_SCOPE(&p->mu);
    if (p->closed)
        return -ERR_SHUTDOWN;
    struct peer *e = find_or_add(p, addr);
    int64_t now = clock_mono();
    e->used = now;
    if (e->conn && rpc_conn_alive(e->conn)) {
        *out = rpc_conn_ref(e->conn);
        return 0;
    }
    if (e->dialled && now - e->dialled < RETRY_NS)
        return -ERR_PEER_GONE;
    rpc_conn_unref(e->conn);
    e->conn = NULL;
    e->dialled = now;
    int rc = rpc_dial(p->loop, addr, RPC_ROLE_CHUNKD, NULL, &e->conn);
    if (rc != 0) {
        e->conn = NULL;
        log_warn("cannot reach chunkd at %s: %s", addr, err_str(rc));
        return rc;
    }
    *out = rpc_conn_ref(e->conn);
    return 0;
}
