/* Requests for file locks, on their way without a thread: client_lock_prepare, client_lock_start, client_lock_cancel
 * and client_lock_test of client.h. */
#ifndef REPLFS_FUSE_CLIENT_LOCKS_LOCK_REQUESTS_H
#define REPLFS_FUSE_CLIENT_LOCKS_LOCK_REQUESTS_H

struct client;
/* Answers what waits, and refuses what is started later. Before session_stop; no lock held. */
void lock_requests_stop(struct client *c);
#endif
