/* Where a peer comes from, as one number: for counting what one stranger has. */
#ifndef REPLFS_METAD_CLUSTER_ORIGIN_H
#define REPLFS_METAD_CLUSTER_ORIGIN_H
#include "rpc/rpc.h"

/* Of an address as rpc_peer.addr has it, "host:port": the same for all ports, and for all addresses of
 * one IPv6 network of 64 bits, which one computer may use as it likes. Never 0. */
uint64_t origin_of_addr(const char *addr);
static inline uint64_t origin_of(const struct rpc_conn *c)
{
    return origin_of_addr(rpc_conn_peer(c)->addr);
}
#endif
