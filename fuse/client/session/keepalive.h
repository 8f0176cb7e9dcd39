/* The session thread: keepalives, reconnects, closes; and the session's begin and end. */
#ifndef REPLFS_FUSE_CLIENT_SESSION_KEEPALIVE_H
#define REPLFS_FUSE_CLIENT_SESSION_KEEPALIVE_H
#include "client/session/session.h"

/* Connects, opens a session and starts the thread. c->session.events is set before. 0 or a code, which is logged. */
int session_start(struct client *c);
/* Ends the thread, says goodbye to metad, and frees what the session has. Accepts one that never started. No other
 * thread asks any more; completions may still look for the connection. */
void session_stop(struct client *c);
#endif
