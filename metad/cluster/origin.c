/* A peer's origin: its address without port, of IPv6 the upper half (an IPv4 address in it is one),
 * hashed. What is no address (a user at a UNIX socket) is taken as it stands. Pure. */
#include "origin.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"

uint64_t origin_of_addr(const char *addr)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const char *colon = strrchr(addr, ':');
    char host[128];
    struct in6_addr in6;
    uint64_t h = 1;

    snprintf(host, sizeof(host), "%.*s", colon ? (int)(colon - addr) : 127, addr);
    size_t n = strlen(host);
    const char *from = host;
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
        host[n - 1] = 0;
        from++;
        if (inet_pton(AF_INET6, from, &in6) == 1) {
            if (!memcmp(&in6, mapped, sizeof(mapped)))
                inet_ntop(AF_INET, (const uint8_t *)&in6 + 12, host, sizeof(host));
            else
                snprintf(host, sizeof(host), "%02x%02x:%02x%02x:%02x%02x:%02x%02x", in6.s6_addr[0],
                         in6.s6_addr[1], in6.s6_addr[2], in6.s6_addr[3], in6.s6_addr[4],
                         in6.s6_addr[5], in6.s6_addr[6], in6.s6_addr[7]);
            from = host;
        }
    }
    for (const char *p = from; *p; p++)
        h = hash_u64(h ^ (uint8_t)*p);
    return h | 1;
}
