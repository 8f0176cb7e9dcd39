/* Questions to metad, repeated over reconnects, and what it is told without an answer. */
#ifndef REPLFS_FUSE_CLIENT_SESSION_ASK_H
#define REPLFS_FUSE_CLIENT_SESSION_ASK_H
#include "client/session/session.h"

/* Asks, once the changes that the answer depends on are with metad (session_events.before_ask). 0 or a code; out:
 * rpc_result_free, also after an error. Any thread but a loop thread and the queue's sender; no lock held. */
int session_ask(struct client *c, Replfs__Envelope *req, int64_t deadline, struct rpc_result *out);
/* Asks at once: for threads that those changes wait for, too. No lock held. */
int session_ask_now(struct client *c, Replfs__Envelope *req, int64_t deadline,
                    struct rpc_result *out);
/* Told on the present connection and forgotten. Does not wait; locks of the client may be held but session.mu. */
void session_tell(struct client *c, Replfs__Envelope *req);
/* The same, and done hears of the answer: once, perhaps before this returns (with the caller's locks held), or on a
 * loop thread. */
typedef void session_told(void *arg, int code, const Replfs__Envelope *rep, struct buf *payload);
void session_tell_then(struct client *c, Replfs__Envelope *req, session_told *done, void *arg);
#endif
