/* The first words on a new connection: which session goes on, and what it holds. All for the connecting thread, without
 * a lock. */
#ifndef REPLFS_FUSE_CLIENT_SESSION_RESUME_H
#define REPLFS_FUSE_CLIENT_SESSION_RESUME_H
#include <stdbool.h>
#include <stdint.h>
#include "client/session/session.h"

struct resume_words; /* a SessionReq and what it points to */
/* What is to be said now. fresh: of a new session, whatever there was. From here on the client's leases are those
 * that it claims. Freed by resume_free; NULL is fine. */
struct resume_words *resume_words_new(struct client *c, bool fresh);
void resume_free(struct client *c, struct resume_words *w);
int64_t resume_made(const struct resume_words *w);     /* mono */
uint64_t resume_session(const struct resume_words *w); /* 0: a new one is asked for */
/* Says them; done as in rpc_call. */
void resume_say(struct resume_words *w, struct rpc_conn *conn, unsigned timeout_ms, rpc_done *done,
                void *arg);
/* metad at addr agreed to what was said at `sent` (boot clock). */
void resume_agreed(struct client *c, struct resume_words *w, const Replfs__SessionReply *r,
                   const char *addr, int64_t sent);
/* metad does not know the session any more. */
void resume_lost(struct client *c, uint64_t session);
#endif
