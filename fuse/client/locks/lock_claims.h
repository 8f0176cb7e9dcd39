/* The file locks' begin and end, and what a session says of them. locks.mu is taken; no lock of the client held. */
#ifndef REPLFS_FUSE_CLIENT_LOCKS_LOCK_CLAIMS_H
#define REPLFS_FUSE_CLIENT_LOCKS_LOCK_CLAIMS_H
#include "client/client.h"

void client_locks_start(struct client *c);
void client_locks_free(struct client *c); /* after the loop */
/* Everything held, for the resume of a session; answers to earlier requests count no more. */
struct locks_claims {
    Replfs__Lock *locks;
    Replfs__Lock *list[];
};
struct locks_claims *client_locks_claims(struct client *c, Replfs__SessionReq *m);
void client_locks_claims_free(struct locks_claims *x);
void client_locks_lost(struct client *c); /* the session is gone, and its locks */
#endif
