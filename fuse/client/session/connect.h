/* A connection to metad, made when there is none. */
#ifndef REPLFS_FUSE_CLIENT_SESSION_CONNECT_H
#define REPLFS_FUSE_CLIENT_SESSION_CONNECT_H
#include "client/session/session.h"

/* A reference to a live connection with our session on it, or NULL at the deadline. Any thread but a loop thread, no
 * lock held: waits. One thread connects, the others wait for it. */
struct rpc_conn *session_conn(struct client *c, int64_t deadline);
/* The first one of a client, which says in the log when that takes long, and each address's error at the end. */
struct rpc_conn *session_first_conn(struct client *c);
/* After the last of them: ends what they left under way. */
void session_dial_end(struct client *c);
#endif
