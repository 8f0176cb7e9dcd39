/* Connections to other chunkds, one per address, kept and redialled. Any thread. */
#ifndef REPLFS_CHUNKD_PEERS_H
#define REPLFS_CHUNKD_PEERS_H
#include "rpc/rpc.h"

struct peers;
int peers_new(struct rpc_loop *loop, struct peers **out);
/* Ends all connections: calls under way end with ERR_PEER_GONE; later ones fail with ERR_SHUTDOWN.
 */
void peers_close(struct peers *p);
void peers_free(struct peers *p); /* NULL is fine */
/* A connection to the chunkd at addr, dialled when there is none alive; does not block. The caller
 * has a reference. 0, -ERR_PEER_GONE (the last attempt just failed: not tried again at once),
 * -ERR_SHUTDOWN, or what rpc_dial says about the address. */
int peers_get(struct peers *p, const char *addr, struct rpc_conn **out);
#endif
