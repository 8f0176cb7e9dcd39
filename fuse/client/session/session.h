/* The session with metad and the connection that it is on: state only, nothing here waits for metad.
 *
 * The session is the ground floor of the client: it calls nobody above it, but tells its news through one table
 * of events, which lifecycle/events.c fills. All functions may be called by any thread and take session.mu, a
 * leaf; a file's mu, files.mu or locks.mu may be held. */
#ifndef REPLFS_FUSE_CLIENT_SESSION_SESSION_H
#define REPLFS_FUSE_CLIENT_SESSION_SESSION_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "rpc/rpc.h"

struct client;
struct locks_claims;
/* What the session tells and asks of the rest of the client. Unless said otherwise: no lock of the client is held,
 * the callee may take any, and must not ask metad (it is called while the session is being opened). */
struct session_events {
    /* -- as it is resumed, by the thread that connects -- */
    /* Inodes that are open: malloc'ed, told from now on. */
    uint64_t *(*open_inos)(struct client *c, size_t *n);
    /* Inodes of which metad does not know everything yet, at most max: malloc'ed. Their leases are claimed. */
    uint64_t *(*kept_back)(struct client *c, size_t max, size_t *n);
    /* File locks held, into m; what they are kept in until claims_free. */
    struct locks_claims *(*claims)(struct client *c, Replfs__SessionReq *m);
    void (*claims_free)(struct locks_claims *x);
    void (*lost)(struct client *c);   /* the session is gone: so are its grants and locks */
    void (*lapsed)(struct client *c); /* it goes on without its locks and leases */
    void (*forked)(struct client *c); /* metad is another copy: nothing known of files holds */
    /* -- the session thread -- */
    /* Fills in which chunks are held; `held` has room for max. */
    void (*holding)(struct client *c, Replfs__KeepaliveReq *m, uint64_t *held, size_t max);
    void (*renewed)(struct client *c, uint64_t nodes_epoch); /* a keepalive was answered */
    void (*tick)(struct client *c); /* about ten times a second; may ask metad */
    /* -- requests -- */
    /* Before req is sent by session_ask: waits for what it must not overtake. 0 or -ERR_TIMEOUT. */
    int (*before_ask)(struct client *c, const Replfs__Envelope *req);
    /* Is the inode's name still on its way to metad? session.mu held: takes leaf locks only. */
    bool (*name_queued)(struct client *c, uint64_t ino);
    /* metad asks something of us; on a loop thread, must not wait. */
    void (*request)(void *client, struct rpc_req *req);
};

/* The present session, 0: none yet. */
uint64_t session_id(struct client *c);
/* Copies that a change needs where `goal` are wanted, as metad said. */
unsigned session_min_copies(struct client *c, unsigned goal);
/* There is a live connection just now. */
bool session_connected(struct client *c);
/* The present connection (a reference) and the session on it, or NULL: none just now. */
struct rpc_conn *session_conn_now(struct client *c, uint64_t *session);
/* conn is of no use any more, as code and rep (NULL: no answer came) say: the session thread dials anew, perhaps
 * elsewhere. Must not be called with session.mu held. */
void session_conn_failed(struct client *c, struct rpc_conn *conn, int code,
                         const Replfs__Envelope *rep);
/* Nothing is wrong with conn, but the session is to be resumed on a new one. Likewise. */
void session_conn_again(struct client *c, struct rpc_conn *conn);
/* An answer to a request of this session says how far metad's state had come. */
void session_saw(struct client *c, uint64_t session, uint64_t position);
/* Is this code worth trying again on another connection? No lock. */
bool session_elsewhere(int code);
/* How long one attempt may take, in ms. */
unsigned session_try_ms(struct client *c, int64_t deadline);
/* What to do after a failed attempt: true: try again. Sleeps while metad is busy: no lock held. */
bool session_attempt_failed(struct client *c, struct rpc_conn *conn, const struct rpc_result *res,
                            int64_t deadline, unsigned *busy_ms);
#endif
