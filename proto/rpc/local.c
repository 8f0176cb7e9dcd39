/* Connections within one computer, without TLS.
 *
 * Any user of a computer can connect to its loopback addresses, or listen there: they prove nothing. So
 * without TLS a loopback address (127.0.0.0/8, ::1) is a name only: behind it is no TCP port but the UNIX
 * socket of that name in the abstract name space ("replfs/127.0.0.1:7000"), of which the kernel tells each
 * side the user at the other end (SO_PEERCRED: who connected, who listens). Both must be root, our own user
 * or the account "replfs", under which daemons run that are not root. Addresses stay what they are
 * everywhere else, in options, in messages, in what chunkds tell metad. Like loopback, the name space is one
 * per network namespace, and nothing is left behind in the file system.
 *
 * Whoever says `insecure` trusts everybody who can reach the port: listens on TCP, and connects to either.
 *
 * Failure: anybody can take a name before its daemon does, as with a port: the daemon says that the address
 * is in use, and nobody talks to the stranger. Thread context: any. */
#include "rpc/rpc_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define PREFIX "replfs/"
#define ACCOUNT "replfs"
#define SOCKET_BUFFER (4 << 20) /* a few of the largest messages */
#define PORT_TRIES 100

void local_init(struct rpc_loop *l)
{
    l->own_uid = l->account_uid = geteuid();
    const struct passwd *p = getpwnam(ACCOUNT); /* NOLINT(concurrency-mt-unsafe): before threads */
    if (p)
        l->account_uid = p->pw_uid;
}

bool local_used(const struct rpc_loop *l, const struct addr *a)
{
    return !l->use_tls && addr_is_loopback(a);
}

void local_name(const struct addr *tcp, struct addr *out)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&out->sa;
    struct addr a = *tcp; /* may be out */
    char text[64];

    addr_format(&a, text, sizeof(text));
    memset(out, 0, sizeof(*out));
    un->sun_family = AF_UNIX;
    int n = snprintf(un->sun_path + 1, sizeof(un->sun_path) - 1, PREFIX "%s", text);
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

/* A port that is free for TCP now: names are as little in others' way as ports would be. */
static int free_port(struct addr *a)
{
    struct addr bound = {.len = sizeof(bound.sa)};
    int rc = 0;
    int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    if (bind(fd, (const struct sockaddr *)&a->sa, a->len) < 0 ||
        getsockname(fd, (struct sockaddr *)&bound.sa, &bound.len) < 0)
        rc = -errno;
    else
        *a = bound;
    close(fd);
    return rc;
}

static int bind_name(const struct addr *tcp)
{
    struct addr name;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    local_name(tcp, &name);
    if (bind(fd, (const struct sockaddr *)&name.sa, name.len) < 0 || listen(fd, RPC_BACKLOG) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

int local_listen(const struct addr *tcp)
{
    struct addr a = *tcp;
    bool any = addr_port(tcp) == 0;

    for (int i = 0; i < (any ? PORT_TRIES : 1); i++) {
        a = *tcp;
        int rc = any ? free_port(&a) : 0;
        if (rc == 0)
            rc = bind_name(&a);
        if (rc != -EADDRINUSE || !any)
            return rc;
    }
    return -EADDRINUSE;
}

void local_sockopts(int fd)
{
    int size = SOCKET_BUFFER;

    /* Beyond what the system lets everybody have only for root: best effort. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

bool local_trusted(const struct rpc_loop *l, int fd, struct ucred *who)
{
    socklen_t len = sizeof(*who);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, who, &len) < 0) {
        *who = (struct ucred){.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
        return false;
    }
    return who->uid == 0 || who->uid == l->own_uid || who->uid == l->account_uid;
}
