/* Addresses as text. Only name lookups block; callers on a loop thread ask for numeric ones. Any
 * thread. */
#include "rpc/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* Cuts text into host and port. 0 or -EINVAL. */
static int split(const char *text, char *host, size_t host_len, const char **port)
{
    const char *colon = strrchr(text, ':');
    const char *from = text, *to = colon;

    if (!colon || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return -EINVAL;
    if (*text == '[') {
        from++;
        to = colon - 1;
        if (to <= from || *to != ']')
            return -EINVAL;
    } else if (memchr(text, ':', (size_t)(colon - text))) {
        return -EINVAL; /* an IPv6 address needs its brackets */
    }
    size_t n = (size_t)(to - from);
    if (n >= host_len)
        return -EINVAL;
    memcpy(host, from, n);
    host[n] = '\0';
    *port = colon + 1;
    return 0;
}

int addr_resolve(const char *text, bool numeric, bool passive, struct addr out[ADDR_MAX], char *why,
                 size_t why_len)
{
    char host[256];
    const char *port;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int n = 0;

    if (split(text, host, sizeof(host), &port) < 0 || (!host[0] && !passive)) {
        snprintf(why, why_len, "'%s' is not an address; write host:port, [IPv6]:port%s", text,
                 passive ? " or :port" : "");
        return -EINVAL;
    }
    hints.ai_flags = AI_NUMERICSERV | (numeric ? AI_NUMERICHOST : 0) | (passive ? AI_PASSIVE : 0);
    int rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &list);
    if (rc != 0) {
        snprintf(why, why_len, "cannot resolve '%s': %s", text, gai_strerror(rc));
        return numeric ? -EINVAL : -EHOSTUNREACH;
    }
    for (struct addrinfo *a = list; a && n < ADDR_MAX; a = a->ai_next) {
        if (a->ai_addrlen > sizeof(out[n].sa))
            continue;
        memcpy(&out[n].sa, a->ai_addr, a->ai_addrlen);
        out[n++].len = a->ai_addrlen;
    }
    freeaddrinfo(list);
    if (n == 0)
        snprintf(why, why_len, "'%s' has no usable address", text);
    return n ? n : -EHOSTUNREACH;
}

bool addr_is_loopback(const struct addr *a)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->sa;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->sa;

    if (a->sa.ss_family == AF_INET)
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    if (a->sa.ss_family != AF_INET6)
        return false;
    return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
           (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127);
}

void addr_format(const struct addr *a, char *out, size_t len)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&a->sa;
    char host[64], port[16];

    if (a->sa.ss_family == AF_UNIX) { /* abstract: "\0replfs/127.0.0.1:7000", see local.c */
        int n = (int)a->len - (int)offsetof(struct sockaddr_un, sun_path) - 1;
        const char *slash = n > 0 ? memchr(un->sun_path + 1, '/', (size_t)n) : NULL;
        if (slash)
            snprintf(out, len, "%.*s", n - (int)(slash - un->sun_path), slash + 1);
        else
            snprintf(out, len, "(this computer)");
        return;
    }
    if (getnameinfo((const struct sockaddr *)&a->sa, a->len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(out, len, "(unknown address)");
    else
        snprintf(out, len, a->sa.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

int addr_port(const struct addr *a)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->sa;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->sa;

    if (a->sa.ss_family == AF_UNIX) {
        char text[128];
        addr_format(a, text, sizeof(text));
        const char *colon = strrchr(text, ':');
        return colon ? (int)strtol(colon + 1, NULL, 10) : 0;
    }
    return ntohs(a->sa.ss_family == AF_INET6 ? v6->sin6_port : v4->sin_port);
}
