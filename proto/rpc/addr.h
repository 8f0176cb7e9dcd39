/* Text addresses: "host:port", "[v6]:port", ":port"; and the UNIX sockets that stand for loopback ones
 * (local.c). Private to rpc. */
#ifndef REPLFS_RPC_ADDR_H
#define REPLFS_RPC_ADDR_H
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define ADDR_MAX 8 /* addresses tried for one name */

struct addr {
    struct sockaddr_storage sa;
    socklen_t len;
};
/* Resolves text. numeric: no name lookup, so never blocks. passive: an empty host means all
 * addresses. Returns how many of out were filled (> 0), or a negative code with `why` filled in:
 * -EINVAL: not an address (or, with numeric, a name); -EHOSTUNREACH: unknown name. */
int addr_resolve(const char *text, bool numeric, bool passive, struct addr out[ADDR_MAX], char *why,
                 size_t why_len);
bool addr_is_loopback(const struct addr *a);
void addr_format(const struct addr *a, char *out, size_t len); /* "1.2.3.4:5", "[::1]:5" */
int addr_port(const struct addr *a);
#endif
