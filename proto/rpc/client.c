/* Dialling. A numeric address is connected to from the worker; a name is looked up first by a
 * short-lived thread, since the resolver blocks. All addresses of a name are tried in turn. */
#include "rpc/rpc_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/lock.h"

#define LOG_MODULE "rpc"
#define RESOLVERS_MAX 32u /* threads that look up names at once */

static void give_up(struct rpc_conn *c, int err)
{
    const char *hint = "";

    if (c->to.sa.ss_family == AF_UNIX && err == ECONNREFUSED)
        hint = " (no program of this computer serves it without TLS; one that was started with "
               "insecure is "
               "reached with insecure only)";
    conn_die(c, err ? -err : -EHOSTUNREACH, "cannot connect to %s: %s%s", c->target,
             strerror(err ? err : EHOSTUNREACH), hint);
}

/* The next address to try, in c->to; false: there is none. A loopback address is its UNIX socket first,
 * and a TCP one only if everybody is trusted. *err: why one was left out. */
static bool next_addr(struct rpc_conn *c, int *err)
{
    const struct rpc_loop *l = c->loop;
    char text[64] = "";

    while (c->iaddr < c->naddrs) {
        c->to = c->addrs[c->iaddr];
        if (local_used(l, &c->to) && !c->tried_local) {
            local_name(&c->to, &c->to);
            c->tried_local = l->cfg.insecure;
            c->iaddr += l->cfg.insecure ? 0 : 1;
            return true;
        }
        c->tried_local = false;
        c->iaddr++;
        if (l->use_tls || l->cfg.insecure)
            return true;
        addr_format(&c->to, text, sizeof(text));
        log_debug("%s: skipping %s: no plaintext beyond this computer", c->target, text);
        *err = EPERM;
    }
    return false;
}

/* On the worker: connects to the next address. err: why the former one failed. */
void conn_connect_next(struct rpc_conn *c, int err)
{
    for (;;) {
        lock_acquire(&c->mu);
        int old = c->fd;
        c->fd = -1;
        lock_release(&c->mu);
        if (old >= 0) {
            worker_unwatch(c->worker, old);
            close(old);
        }
        if (!next_addr(c, &err)) {
            give_up(c, err);
            return;
        }
        int fd = socket(c->to.sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) {
            err = errno;
            continue;
        }
        if (c->to.sa.ss_family == AF_UNIX)
            local_sockopts(fd);
        else
            conn_set_sockopts(fd);
        int rc = connect(fd, (const struct sockaddr *)&c->to.sa, c->to.len);
        err = rc < 0 && errno != EINPROGRESS ? errno : 0;
        if (err) {
            close(fd);
            continue;
        }
        /* Also when connected at once: the socket is writable then. */
        c->addr_by = clock_mono() + CONNECT_EACH_MS * NSEC_PER_MSEC;
        rc = conn_adopt_fd(c, fd, CONN_CONNECTING);
        if (rc == 0) {
            lock_acquire(&c->mu);
            if (c->iaddr < c->naddrs)
                conn_arm_locked(c, c->addr_by);
            lock_release(&c->mu);
            return;
        }
        err = -rc;
    }
}

static void *resolver_main(void *arg)
{
    struct rpc_conn *c = arg;
    struct rpc_loop *l = c->loop;
    struct addr addrs[ADDR_MAX];
    char why[256];
    int n = addr_resolve(c->target, false, false, addrs, why, sizeof(why));

    lock_acquire(&c->mu);
    if (n < 0) {
        conn_die_locked(c, n, "%s", why);
    } else if (c->state == CONN_RESOLVING) {
        memcpy(c->addrs, addrs, sizeof(addrs));
        c->naddrs = n;
        worker_post(c);
    }
    lock_release(&c->mu);
    conn_unref_internal(c);
    lock_acquire(&l->mu);
    l->resolving--;
    cond_broadcast(&l->resolved);
    lock_release(&l->mu);
    return NULL;
}

static int resolve_later(struct rpc_conn *c)
{
    pthread_t t;

    lock_acquire(&c->loop->mu);
    bool busy = c->loop->resolving >= RESOLVERS_MAX;
    c->loop->resolving += !busy;
    lock_release(&c->loop->mu);
    if (busy)
        return -EAGAIN; /* a peer may have given us the names */
    conn_ref_internal(c);
    int rc = thread_start(&t, "resolver", resolver_main, c);
    if (rc == 0) {
        pthread_detach(t);
        return 0;
    }
    lock_acquire(&c->loop->mu);
    c->loop->resolving--;
    lock_release(&c->loop->mu);
    conn_unref_internal(c);
    return -rc;
}

/* Fills addrs when that needs no name server. Returns their number, 0: look the name up, or
 * negative. */
static int resolve_now(struct rpc_loop *l, const char *addr, struct addr addrs[ADDR_MAX])
{
    char why[256];
    bool local = !strncmp(addr, "localhost:", 10);
    int n = addr_resolve(addr, !local, false, addrs, why, sizeof(why));

    if (n > 0 && !l->use_tls && !l->cfg.insecure && !addr_is_loopback(&addrs[0])) {
        log_error(
            "%s: without TLS only programs of this computer can be reached; give certificates "
            "(tls-cert, tls-key, tls-ca), or trust everybody on the network with insecure",
            addr);
        return -EPERM;
    }
    if (n > 0 || local)
        return n;
    /* Not numeric; a name needs at least the form host:port. */
    const char *colon = strrchr(addr, ':');
    if (!colon || colon == addr || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
        !colon[1] || memchr(addr, ':', (size_t)(colon - addr))) {
        log_error("%s", why);
        return -EINVAL;
    }
    return 0;
}

int rpc_dial(struct rpc_loop *l, const char *addr, unsigned expect, const struct rpc_service *svc,
             struct rpc_conn **out)
{
    struct addr addrs[ADDR_MAX];
    int n, rc = 0;

    *out = NULL;
    if (l->stopping)
        return -ERR_SHUTDOWN;
    n = resolve_now(l, addr, addrs);
    if (n < 0)
        return n;
    struct rpc_conn *c = conn_new(l, svc, false);
    c->expect = expect;
    snprintf(c->target, sizeof(c->target), "%s", addr);
    if (n > 0) {
        memcpy(c->addrs, addrs, sizeof(c->addrs));
        c->naddrs = n;
    }
    conn_register(c);
    lock_acquire(&c->mu);
    if (n > 0)
        worker_post(c);
    lock_release(&c->mu);
    if (n == 0)
        rc = resolve_later(c);
    if (rc < 0)
        conn_die(c, rc, "%s: cannot start a resolver thread: %s", addr, err_str(rc));
    *out = c;
    return 0;
}
