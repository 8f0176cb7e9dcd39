/* The first words on a new connection: which session goes on, and what it holds. */
#ifndef REPLFS_FUSE_CLIENT_SESSION_RESUME_H
#define REPLFS_FUSE_CLIENT_SESSION_RESUME_H
#include <stddef.h>
#include "client/session/session.h"

/* Opens or resumes the session on conn, to address number i. 0, or a code; -ERR_NOT_LEADER: *leader is where to
 * go, if known. Only the connecting thread; no lock held; waits for metad. */
int session_resume(struct client *c, struct rpc_conn *conn, size_t i, int64_t deadline,
                   char *leader, size_t leader_cap);
#endif
